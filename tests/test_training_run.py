"""A whole training run: started, killed, resumed, opened, translated; by `sensikit train` and by fairseq alone."""

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import sensikit
from sensikit.backends import open_checkpoint
from sensikit.backends.base import Decoding
from sensikit.errors import OptionError, RunError
from sensikit.training.recipes import METHODS

FEW = (
    "--max-tokens",
    "300",
    "--tokens-per-update",
    "300",
    "--log-interval",
    "2",
    "--save-interval-updates",
    "4",
    "--warmup-updates",
    "4",
)


def train(data, out, *options, method="cd+id", updates=10, flags=FEW):
    """`sensikit train`, in this process."""
    import typer

    from cli.train import train as command

    app = typer.Typer()
    app.command()(command)
    words = [str(data), "--out", str(out), "--method", method, "--arch", "tiny", "--updates", str(updates), *options]
    result = CliRunner().invoke(app, [*words, "--", *flags], catch_exceptions=False)
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    return result


def weights(out):
    return torch.load(out / "checkpoint_last.pt", weights_only=False)["model"]


def journal(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def finished(tiny_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    train(tiny_data, out)
    return out


class TestRun:
    def test_it_is_opened_and_it_translates(self, finished, tiny_data):
        backend = open_checkpoint(finished / "checkpoint_best.pt", tiny_data, device="cpu")
        assert backend.direction == "xxx-eng"
        assert set(backend.languages) == {"cat", "nob", "fao"}
        translations = backend.translate("cat", "test", Decoding(beam=2))
        assert len(translations.hypotheses) == 12
        piece = backend.collate([("cat", 0), ("fao", 3)])
        loss, tokens = backend.loss(piece, "train")
        assert 0 < loss.item() / tokens < 20

    def test_the_backend_feeds_the_model_what_it_was_trained_on(self, finished, tiny_data):
        from tests import training_system

        system = training_system.build(tiny_data, "cd+id")
        backend = open_checkpoint(finished / "checkpoint_best.pt", tiny_data, device="cpu")
        part = system.data[("translation", 1, [0, 1, 2])]
        piece = backend.collate([("cat", 0), ("cat", 1), ("cat", 2)])
        ours = sorted(
            zip(*(part["net_input"][name].tolist() for name in ("src_tokens", "prev_output_tokens")), strict=True)
        )
        theirs = sorted(
            zip(*(piece.net_input[name].tolist() for name in ("src_tokens", "prev_output_tokens")), strict=True)
        )
        assert ours == theirs

    def test_losses_of_every_term_are_in_the_journal(self, finished):
        lines = journal(finished)
        training = [line for line in lines if line["set"] == "train_inner"]
        assert [line["num_updates"] for line in training] == [2, 4, 6, 8, 10]
        for line in training:
            terms = ("translation", "encoder", "decoder")
            total = sum(line[name] + 5 * line[f"{name}_x"] for name in terms)
            # means over two updates of like size, each rounded to four digits
            assert line["loss"] == pytest.approx(total, rel=0.02)
            assert line["wps"] > 0
            assert all(line[f"{name}_x"] > 0 for name in terms)
        assert [line["num_updates"] for line in lines if line["set"] == "valid"] == [4, 8, 10]
        assert all("encoder" not in line for line in lines if line["set"] == "valid")

    def test_the_recipe_is_kept(self, finished, tiny_data):
        recipe = json.loads((finished / "recipe.json").read_text())
        assert recipe["data"] == str(tiny_data)
        assert recipe["flags"][recipe["flags"].index("--distill") + 1] == "translation,encoder,decoder"

    def test_checkpoints_hold_no_code(self, finished):
        allowed = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        try:
            for path in finished.glob("*.pt"):
                assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == ["argparse.Namespace"]
        finally:
            torch.serialization.add_safe_globals(allowed)

    def test_an_old_run_is_not_overwritten(self, finished, tiny_data):
        before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
        with pytest.raises(RunError, match="already exists"):
            train(tiny_data, finished)
        with pytest.raises(RunError, match="--max-tokens"):
            train(tiny_data, finished, "--resume", flags=(*FEW, "--max-tokens", "200"))
        with pytest.raises(RunError, match="--distill"):
            train(tiny_data, finished, "--resume", method="cd")
        assert {path: path.stat().st_mtime_ns for path in finished.iterdir()} == before


class TestResume:
    def test_a_killed_run_goes_on_as_if_nothing_had_happened(self, finished, tiny_data, tmp_path, monkeypatch):
        from sensikit.training.task import LanguageAwareTask

        out, steps, real = tmp_path / "run", [], LanguageAwareTask.train_step

        def killed(self, **step):
            steps.append(step)
            if len(steps) == 7:
                raise KeyboardInterrupt
            return real(self, **step)

        monkeypatch.setattr(LanguageAwareTask, "train_step", killed)
        assert train(tiny_data, out).exit_code != 0
        monkeypatch.setattr(LanguageAwareTask, "train_step", real)
        assert journal(out)[-1]["num_updates"] == 6
        # and the kill came while checkpoint_last.pt was being copied
        whole = (out / "checkpoint_last.pt").read_bytes()
        (out / "checkpoint_last.pt").write_bytes(whole[: len(whole) // 2])
        os.utime(out / "checkpoint_last.pt")
        train(tiny_data, out, "--resume")
        expected, found = weights(finished), weights(out)
        assert all(torch.equal(expected[name], found[name]) for name in expected)
        kept = ("set", "num_updates", "loss", "translation", "encoder_x")
        lines = [
            [{name: line.get(name) for name in kept} for line in journal(run) if line["set"] != "train"]
            for run in (finished, out)
        ]
        assert lines[0] == lines[1]

    def test_the_first_samples_after_it_are_those_that_were_next(self, finished, tiny_data, tmp_path, monkeypatch):
        from sensikit.training.task import LanguageAwareTask

        seen, real = {}, LanguageAwareTask.train_step

        def watched(self, *, sample, update_num, **more):
            seen.setdefault(update_num, []).append(sample["parts"][1]["net_input"]["src_tokens"].tolist())
            return real(self, sample=sample, update_num=update_num, **more)

        monkeypatch.setattr(LanguageAwareTask, "train_step", watched)
        train(tiny_data, tmp_path / "run", updates=6)
        train(tiny_data, tmp_path / "run", "--resume", updates=9)
        train(tiny_data, tmp_path / "whole", updates=9)
        assert sorted(seen) == list(range(9))
        assert all(len(samples) == 2 and samples[0] == samples[1] for samples in seen.values())

    def test_early_stopping_is_taken_up_where_it_was(self, tiny_data, tmp_path):
        flags = (
            *FEW[:4],
            "--save-interval-updates",
            "1",
            "--lr",
            "1e-9",
            "--patience",
            "4",
            "--warmup-init-lr",
            "1e-10",
        )
        # a model that hardly learns: its best loss comes early or late by chance, but at the same update both times
        train(tiny_data, tmp_path / "whole", method="regular", updates=20, flags=flags)
        stopped = journal(tmp_path / "whole")[-1]["num_updates"]
        train(tiny_data, tmp_path / "parts", method="regular", updates=3, flags=flags)
        train(tiny_data, tmp_path / "parts", "--resume", method="regular", updates=20, flags=flags)
        assert journal(tmp_path / "parts")[-1]["num_updates"] == stopped
        assert stopped < 20


class TestPlainFairseq:
    def test_user_dir_registers_once_resumes_and_trains_the_same_weights(self, finished, tiny_data, tmp_path):
        train(tiny_data, tmp_path / "run", updates=4)
        recipe = json.loads((finished / "recipe.json").read_text(encoding="utf-8"))
        site = Path(sensikit.__file__).parent
        program = Path(sys.executable).with_name("fairseq-train")
        words = [program, tiny_data / "bin", "--user-dir", site / "training", *recipe["flags"]]
        words += ["--save-dir", tmp_path / "run", "--log-format", "simple"]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "checkpoint_last.pt (epoch 1 @ 4 updates)" in done.stdout
        expected, found = weights(finished), weights(tmp_path / "run")
        assert all(torch.equal(expected[name], found[name]) for name in expected)

    @pytest.mark.slow
    def test_resume_and_generate(self, tiny_data, tmp_path):
        site = Path(sensikit.__file__).parent
        recipe = [
            "--task",
            "sensikit",
            "--criterion",
            "sensikit",
            "--arch",
            "sensikit_tiny",
            "--langs",
            "cat,nob,fao,eng",
        ]
        recipe += ["--lang-pairs", "cat-eng,nob-eng,fao-eng", "--denoise", "cd", "--optimizer", "adam", "--lr", "0.001"]
        recipe += ["--max-tokens", "300", "--cpu", "--save-dir", str(tmp_path), "--num-workers", "0"]
        start = [str(tiny_data / "bin"), "--user-dir", str(site / "training")]
        programs = Path(sys.executable).parent
        for updates in ("3", "6"):
            words = [str(programs / "fairseq-train"), *start, *recipe, "--max-update", updates]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-2000:]
        assert "Loaded checkpoint" in done.stdout
        words = [
            str(programs / "fairseq-generate"),
            *start,
            "--task",
            "sensikit",
            "--path",
            str(tmp_path / "checkpoint_last.pt"),
        ]
        words += [
            "--langs",
            "cat,nob,fao,eng",
            "--lang-pairs",
            "cat-eng,nob-eng,fao-eng",
            "-s",
            "cat",
            "-t",
            "eng",
            "--cpu",
        ]
        words += ["--gen-subset", "test", "--required-batch-size-multiple", "1", "--beam", "2"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert sum(line.startswith("H-") for line in done.stdout.splitlines()) == 12


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--method", "cd+"), "--method"),
        (("--direction", "eng"), "--direction"),
        (("--preset", "m8"), "--preset"),
        (("--arch", "huge"), "--arch"),
    ],
)
def test_bad_options_name_what_there_is(tiny_data, tmp_path, options, named):
    with pytest.raises(OptionError, match=named):
        train(tiny_data, tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_a_flag_that_fairseq_does_not_know_is_one_line_and_may_be_corrected(tiny_data, tmp_path):
    with pytest.raises(OptionError, match="unrecognized arguments: --id-beta 3"):
        train(tiny_data, tmp_path / "run", flags=("--id-beta", "3"))
    with pytest.raises(OptionError, match="--id-k"):
        train(tiny_data, tmp_path / "run", flags=("--id-k", "two"))
    train(tiny_data, tmp_path / "run", method="regular", updates=2)
    assert (tmp_path / "run" / "checkpoint_best.pt").is_file()


def test_other_data_are_refused(tiny_data, tmp_path):
    import shutil

    train(tiny_data, tmp_path / "run", method="regular", updates=2)
    moved = shutil.copytree(tiny_data, tmp_path / "moved")
    train(moved, tmp_path / "run", "--resume", method="regular", updates=3)
    manifest = json.loads((moved / "manifest.json").read_text(encoding="utf-8"))
    (moved / "manifest.json").write_text(json.dumps(manifest | {"seed": 2}), encoding="utf-8")
    with pytest.raises(RunError, match="other data"):
        train(moved, tmp_path / "run", "--resume", method="regular", updates=4)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["xxx-eng", "eng-xxx", "both"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_trains_resumes_and_is_opened(tiny_data, tmp_path, method, direction):
    train(tiny_data, tmp_path / "run", "--direction", direction, method=method, updates=4)
    train(tiny_data, tmp_path / "run", "--direction", direction, "--resume", method=method, updates=6)
    assert [line["num_updates"] for line in journal(tmp_path / "run") if line["set"] == "valid"] == [4, 6]
    for asked in ("xxx-eng", "eng-xxx"):
        if direction in (asked, "both"):
            backend = open_checkpoint(tmp_path / "run" / "checkpoint_last.pt", tiny_data, asked, device="cpu")
            assert len(backend.translate("fao", "test", Decoding(beam=1)).hypotheses) == 12


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ("--id-passes", "shared-encoder", "--id-weights", "halved", "--loss-weights", "released"),
        ("--separate-projection",),
        ("--id-batching", "copies", "--id-k", "3"),
        ("--id-schedule", "5,10"),
        ("--mix", "tokens", "--tokens-per-update", "600"),
        ("--encoder-layerdrop", "0.2", "--decoder-layerdrop", "0.2"),
        ("--num-workers", "2"),
        ("--bf16",),
    ],
)
def test_every_option_trains(tiny_data, tmp_path, flags):
    train(tiny_data, tmp_path / "run", updates=4, flags=(*FEW, *flags))
    backend = open_checkpoint(tmp_path / "run" / "checkpoint_last.pt", tiny_data, device="cpu")
    assert len(backend.translate("fao", "test", Decoding(beam=1)).hypotheses) == 12


@pytest.mark.slow
def test_it_learns(tiny_data, tmp_path):
    train(
        tiny_data,
        tmp_path / "run",
        updates=150,
        flags=("--max-tokens", "1500", "--tokens-per-update", "1500", "--lr", "0.01", "--warmup-updates", "20"),
    )
    last = [line for line in journal(tmp_path / "run") if line["set"] == "train_inner"][-1]
    uniform = math.log(len((tiny_data / "bin" / "dict.eng.txt").read_text(encoding="utf-8").splitlines()))
    # words are drawn at random: what is masked can be told by its language, in the decoder also by its first piece
    assert last["encoder"] < uniform - 0.5
    assert last["decoder"] < uniform - 1
    assert last["translation"] < uniform - 1.5
