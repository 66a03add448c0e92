"""A whole training run: what it leaves, that it is opened and translates, and which options it refuses."""

import importlib.util
import io
import json
import logging
import math

import pytest
import torch

from sensikit.backends import open_model
from sensikit.backends.fairseq.plugin import launch
from sensikit.errors import OptionError, RunError
from sensikit.settings import Decoding
from tests.support.training_run import FEW, journal, train

KEEP = ("--keep", "2")


@pytest.fixture(scope="module")
def finished(tiny_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    train(tiny_data, out, *KEEP)
    return out


class TestRun:
    def test_it_is_opened_and_it_translates(self, finished, tiny_data):
        task = open_model(finished / "checkpoint_best.pt", tiny_data, device="cpu").task("mt")
        assert task.direction == "xxx-eng"
        assert set(task.groups) == {"cat", "nob", "fao"}
        translations = task.translate("cat", "test", Decoding(beam=2))
        assert len(translations.hypotheses) == 12
        piece = task.collate([("cat", 0), ("fao", 3)])
        loss, tokens = task.loss(piece, "train")
        assert 0 < loss.item() / tokens < 20

    def test_the_backend_feeds_the_model_what_it_was_trained_on(self, finished, tiny_data):
        from tests.support import training_system

        system = training_system.build(tiny_data, "cd+id")
        task = open_model(finished / "checkpoint_best.pt", tiny_data, device="cpu").task("mt")
        part = system.data[("translation", 1, [0, 1, 2])]
        piece = task.collate([("cat", 0), ("cat", 1), ("cat", 2)])
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
        assert sorted(path.stem.split("_")[2] for path in finished.glob("checkpoint_*_*.pt")) == ["4", "8"]
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
            train(tiny_data, finished, *KEEP, "--resume", flags=(*FEW, "--max-tokens", "200"))
        with pytest.raises(RunError, match="--distill"):
            train(tiny_data, finished, *KEEP, "--resume", method="cd")
        assert {path: path.stat().st_mtime_ns for path in finished.iterdir()} == before

    def test_fairseqs_words_are_in_its_log_and_not_on_the_terminal(self, tiny_data, tmp_path):
        shown = logging.StreamHandler(io.StringIO())
        logging.getLogger().addHandler(shown)
        try:
            train(tiny_data, tmp_path / "run", method="regular", updates=2)
            assert shown in logging.getLogger().handlers
        finally:
            logging.getLogger().removeHandler(shown)
        assert "Stopping training" in (tmp_path / "run" / "fairseq.log").read_text(encoding="utf-8")
        assert shown.stream.getvalue() == ""

    @pytest.mark.parametrize("package", ["tensorboard", "tensorboardX", None])
    def test_tensorboard_if_it_is_installed(self, tiny_data, tmp_path, monkeypatch, package):
        given = []
        monkeypatch.setattr(launch, "train", given.extend)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == package or None)
        train(tiny_data, tmp_path / "run")
        assert ("--tensorboard-logdir" in given) == bool(package)
        assert str(tmp_path / "run" / "tensorboard") in given or not package


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ("--id-passes", "shared-encoder", "--id-weights", "halved", "--loss-weights", "released"),
        ("--separate-projection",),
        ("--id-k", "3"),
        ("--id-schedule", "5,10"),
        ("--mix", "tokens", "--tokens-per-update", "600"),
        ("--encoder-layerdrop", "0.2", "--decoder-layerdrop", "0.2"),
        ("--num-workers", "2"),
        ("--bf16",),
    ],
)
def test_every_option_trains(tiny_data, tmp_path, flags):
    train(tiny_data, tmp_path / "run", updates=4, flags=(*FEW, *flags))
    task = open_model(tmp_path / "run" / "checkpoint_last.pt", tiny_data, device="cpu").task("mt")
    assert len(task.translate("fao", "test", Decoding(beam=1)).hypotheses) == 12


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("precision", ["--fp16", "--memory-efficient-fp16", "--bf16", "--amp"])
def test_every_precision_trains_and_resumes_on_a_gpu(tiny_data, tmp_path, precision):
    for updates in (4, 8):
        train(tiny_data, tmp_path / "run", "--resume", updates=updates, flags=(*FEW, precision))
    losses = [line["loss"] for line in journal(tmp_path / "run") if line["set"] == "train_inner"]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    task = open_model(tmp_path / "run" / "checkpoint_last.pt", tiny_data, device="cpu").task("mt")
    assert len(task.translate("fao", "test", Decoding(beam=1)).hypotheses) == 12


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
