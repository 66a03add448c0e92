"""A training run that is taken up again: the same data, the same losses, the same end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from sensikit.backends.fairseq.checkpoint import read
from sensikit.backends.fairseq.plugin.launch import Training
from sensikit.errors import OptionError, RunError
from tests.support.command import call
from tests.support.training_run import FEW, journal, same_weights, train

EPOCHS = ["--max-tokens", "2200", "--tokens-per-update", "2200", "--log-interval", "1", "--warmup-updates", "4"]
"""Few updates to an epoch."""


@pytest.fixture(scope="module")
def finished(tiny_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    train(tiny_data, out)
    return out


class TestResume:
    def test_a_killed_run_goes_on_as_if_nothing_had_happened(self, finished, tiny_data, tmp_path, monkeypatch):
        from sensikit.backends.fairseq.plugin.task import LanguageAwareTask

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
        assert same_weights(finished, out)
        kept = ("set", "num_updates", "loss", "translation", "encoder_x")
        lines = [
            [{name: line.get(name) for name in kept} for line in journal(run) if line["set"] != "train"]
            for run in (finished, out)
        ]
        assert lines[0] == lines[1]

    def test_an_interrupt_saves_the_update_that_it_came_in(self, finished, tiny_data, tmp_path, monkeypatch):
        from sensikit.backends.fairseq.plugin.task import LanguageAwareTask

        out, steps, real, before = tmp_path / "run", [], LanguageAwareTask.train_step, signal.getsignal(signal.SIGINT)

        def interrupted(self, **step):
            steps.append(step)
            if len(steps) == 6:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)  # a launcher passes on what the terminal has sent too
            return real(self, **step)

        monkeypatch.setattr(LanguageAwareTask, "train_step", interrupted)
        words = [tiny_data, "--out", out, "--method", "cd+id", "--arch", "tiny", "--updates", 10]
        done = call("train", *words, "--", *FEW)
        assert (done.code, done.output) == (130, "")
        shown = done.error.splitlines()
        assert shown[0].startswith(f"train: opens {tiny_data} (")
        (first,) = [line for line in shown if line.startswith("training: 1/10 updates, loss ")]
        assert re.search(r" target tokens/s, .*/s, .* s left$", first)
        kept = f"update 6 is saved in {out / 'checkpoint_last.pt'}; the same command with --resume goes on"
        assert shown[-1].startswith(f"sensikit: interrupted; {kept}")
        assert signal.getsignal(signal.SIGINT) == before
        monkeypatch.setattr(LanguageAwareTask, "train_step", real)
        done = call("train", *words, "--resume", "--json", "--", *FEW)
        assert done.code == 0, done.error
        assert "training: 7/10 updates, loss " in done.error
        assert same_weights(finished, out)
        assert [line for line in journal(out) if line["set"] == "valid"] != []
        valid = [line["loss"] for line in journal(out) if line["set"] == "valid"]
        assert json.loads(done.output)["validation"]["loss"] == min(valid)

    def test_an_interrupt_leaves_a_checkpoint_of_that_update_its_validation_loss(
        self, finished, tiny_data, tmp_path, monkeypatch
    ):
        """It is saved twice: as every fourth one is, and for the interrupt."""
        from sensikit.backends.fairseq.plugin.task import LanguageAwareTask

        out, steps, real = tmp_path / "run", [], LanguageAwareTask.train_step

        def interrupted(self, **step):
            steps.append(step)
            if len(steps) == 8:
                signal.raise_signal(signal.SIGINT)
            return real(self, **step)

        monkeypatch.setattr(LanguageAwareTask, "train_step", interrupted)
        words = [tiny_data, "--out", out, "--method", "cd+id", "--arch", "tiny", "--updates", 10]
        assert call("train", *words, "--", *FEW).code == 130
        (path,) = out.glob("checkpoint_*_8.pt")
        losses = [read(run / path.name).content["extra_state"]["val_loss"] for run in (finished, out)]
        assert losses[0] == losses[1] is not None

    def test_an_interrupt_before_the_first_update_keeps_nothing(self, tiny_data, tmp_path, monkeypatch):
        from sensikit.backends.fairseq.plugin.task import LanguageAwareTask

        def interrupted(*_, **__):
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(LanguageAwareTask, "build_model", interrupted)
        words = ["train", tiny_data, "--out", tmp_path / "run", "--arch", "tiny", "--", *FEW]
        done = call(*words)
        line = "sensikit: interrupted; nothing was kept: the same command with --resume starts again"
        assert (done.code, done.error.splitlines()[-1]) == (130, line)

    def test_the_first_samples_after_it_are_those_that_were_next(self, finished, tiny_data, tmp_path, monkeypatch):
        from sensikit.backends.fairseq.plugin.task import LanguageAwareTask

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

    def test_at_the_end_of_an_epoch_and_in_the_next(self, tiny_data, tmp_path):
        flags = [*EPOCHS, "--save-interval-updates", "1", "--validate-interval-updates", "1"]
        train(tiny_data, tmp_path / "whole", updates=9, flags=flags)
        lines = journal(tmp_path / "whole")
        assert {line["num_updates"] for line in lines if line["set"] == "train"} == {3, 6, 9}
        # a save at the end of an epoch goes with a validation, as any other
        assert [line["num_updates"] for line in lines if line["set"] == "valid"] == list(range(1, 10))
        for updates in (3, 4):
            parts = tmp_path / str(updates)
            train(tiny_data, parts, updates=updates, flags=flags)
            train(tiny_data, parts, "--resume", updates=9, flags=flags)
            assert same_weights(tmp_path / "whole", parts)

    def test_early_stopping_is_taken_up_where_it_was(self, tiny_data, tmp_path):
        # a model that hardly learns: its best loss comes early or late by chance, but at the same update both times
        flags = [*FEW, "--save-interval-updates", "1", "--lr", "1e-9", "--patience", "4", "--warmup-init-lr", "1e-10"]
        train(tiny_data, tmp_path / "whole", method="regular", updates=20, flags=flags)
        stopped = journal(tmp_path / "whole")[-1]["num_updates"]
        train(tiny_data, tmp_path / "parts", method="regular", updates=3, flags=flags)
        for _ in range(2):  # the second time there is nothing left to do
            train(tiny_data, tmp_path / "parts", "--resume", method="regular", updates=20, flags=flags)
            assert journal(tmp_path / "parts")[-1]["num_updates"] == stopped
        assert stopped < 20
        assert same_weights(tmp_path / "whole", tmp_path / "parts")

    def test_a_finished_run_gains_no_update(self, finished, tiny_data):
        # fairseq itself adds one each time
        before = {path: path.read_bytes() for path in finished.iterdir() if path.is_file()}
        done = train(tiny_data, finished, "--resume")
        assert done.stdout.splitlines()[0] == str(finished / "checkpoint_best.pt")
        assert {path: path.read_bytes() for path in finished.iterdir() if path.is_file()} == before

    def test_a_line_of_the_journal_that_was_cut_short_is_dropped(self, finished, tiny_data, tmp_path):
        train(tiny_data, tmp_path / "run", updates=4)
        with (tmp_path / "run" / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write('{"set": "train_inner", "num_upd')
        train(tiny_data, tmp_path / "run", "--resume")
        assert [(line["set"], line["num_updates"]) for line in journal(tmp_path / "run") if line["set"] != "train"] == [
            (line["set"], line["num_updates"]) for line in journal(finished) if line["set"] != "train"
        ]

    def test_without_a_whole_checkpoint_it_begins_anew(self, finished, tiny_data, tmp_path):
        train(tiny_data, tmp_path / "run", updates=4)
        for path in (tmp_path / "run").glob("*.pt"):
            path.write_bytes(path.read_bytes()[:1000])
        train(tiny_data, tmp_path / "run", "--resume")
        assert same_weights(finished, tmp_path / "run")

    @pytest.mark.slow
    def test_after_a_sigkill(self, finished, tiny_data, tmp_path):
        words = ["train", tiny_data, "--out", tmp_path / "run", "--method", "cd+id", "--arch", "tiny"]
        words = [sys.executable, "-m", "sensikit_cli", *map(str, words)]
        last = tmp_path / "run" / "checkpoint_last.pt"
        with subprocess.Popen([*words, "--updates", "10000", "--", *FEW]) as process:
            while not last.exists():
                assert process.poll() is None
                time.sleep(0.05)
            process.kill()
        done = int(read(last).content["optimizer_history"][-1]["num_updates"]) if last.stat().st_size else 0
        updates = str(max(done, 4) + 3)
        for out in ("run", "whole"):
            words[words.index("--out") + 1] = str(tmp_path / out)
            subprocess.run([*words, "--updates", updates, "--resume", "--", *FEW], check=True)
        assert same_weights(tmp_path / "run", tmp_path / "whole")


def test_other_data_are_refused(tiny_data, tmp_path):
    train(tiny_data, tmp_path / "run", method="regular", updates=2)
    moved = shutil.copytree(tiny_data, tmp_path / "moved")
    train(moved, tmp_path / "run", "--resume", method="regular", updates=3)
    manifest = json.loads((moved / "manifest.json").read_text(encoding="utf-8"))
    (moved / "manifest.json").write_text(json.dumps(manifest | {"seed": 2}), encoding="utf-8")
    with pytest.raises(RunError, match="another SHA-256 of the data"):
        train(moved, tmp_path / "run", "--resume", method="regular", updates=4)


def test_other_data_without_a_manifest_are_refused(tiny_data, tmp_path):
    plain = shutil.copytree(tiny_data / "bin", tmp_path / "bin")
    train(plain, tmp_path / "run", method="regular", updates=2)
    (plain / "train.cat-eng.cat.bin").write_bytes(b"")
    with pytest.raises(RunError, match="another SHA-256 of the data"):
        train(plain, tmp_path / "run", "--resume", method="regular", updates=4)


def test_a_recipe_that_is_damaged_is_one_line(finished, tiny_data, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "recipe.json").write_text('{"format": 2, "flags": []}', encoding="utf-8")
    with pytest.raises(RunError, match=r"recipe\.json: lacks data_sha256; it is damaged; train again"):
        train(tiny_data, tmp_path / "run", "--resume")


def test_a_run_that_another_process_trains_is_refused(finished, tiny_data):
    before = sorted(finished.iterdir())
    with Training.open(finished).locked(), pytest.raises(RunError, match="is being written by another process"):
        train(tiny_data, finished, "--resume")
    assert sorted(finished.iterdir()) == before


def test_flags_that_fairseq_refuses_can_be_put_right_in_the_same_place(tiny_data, tmp_path):
    with pytest.raises(OptionError, match="--no-such-flag"):
        train(tiny_data, tmp_path / "run", method="regular", updates=1, flags=[*FEW, "--no-such-flag"])
    assert train(tiny_data, tmp_path / "run", method="regular", updates=1).exit_code == 0
