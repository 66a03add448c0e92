"""The plugin without `sensikit train`: by fairseq's own programs, and in several processes."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import sensikit
from sensikit.backends.fairseq.checkpoint import read
from sensikit.demo.partner import free_port
from tests.support.training_run import FEW, journal, same_weights, train

PAGE = Path(__file__).parents[4] / "docs" / "how-to" / "training.md"


@pytest.fixture(scope="module")
def finished(tiny_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    train(tiny_data, out)
    return out


class TestPlainFairseq:
    @pytest.mark.slow
    def test_user_dir_registers_once_resumes_and_trains_the_same_weights(self, finished, tiny_data, tmp_path):
        train(tiny_data, tmp_path / "run", updates=4)
        recipe = json.loads((finished / "recipe.json").read_text(encoding="utf-8"))
        site = Path(sensikit.__file__).parent
        words = [
            "fairseq-train",
            tiny_data / "bin",
            "--user-dir",
            site / "backends" / "fairseq" / "plugin",
            *recipe["flags"],
        ]
        words += ["--save-dir", tmp_path / "run", "--log-format", "simple"]
        assert "checkpoint_last.pt (epoch 1 @ 4 updates)" in run(list(map(str, words)), tmp_path)
        assert same_weights(finished, tmp_path / "run")

    def test_the_example_in_the_readme(self, tiny_data, tmp_path):
        run([*example(tiny_data), "--max-update", "2"], tmp_path)
        last = read(tmp_path / "systems" / "cd+id" / "checkpoint_last.pt")
        assert last.content["optimizer_history"][-1]["num_updates"] == 2

    @pytest.mark.slow
    def test_the_example_resumes_by_itself_and_generates(self, tiny_data, tmp_path):
        words = example(tiny_data)
        last = str(tmp_path / "systems" / "cd+id" / "checkpoint_last.pt")
        run([*words, "--max-update", "2"], tmp_path)
        assert "@ 2 updates)" in run([*words, "--max-update", "3"], tmp_path)
        generate = ["fairseq-generate", *words[1:4], "--task", "sensikit", "--path", last]
        generate += [*words[words.index("--langs") :][:4], "-s", "cat", "-t", "eng", "--gen-subset", "test", "--cpu"]
        done = run([*generate, "--required-batch-size-multiple", "1", "--beam", "2"], tmp_path)
        assert sum(line.startswith("H-") for line in done.splitlines()) == 12


@pytest.mark.slow
def test_two_processes_of_torchrun_train_together_resume_and_write_one_journal(tiny_data, tmp_path):
    torchrun = ["torchrun", "--nproc-per-node", "2", "--master-port", str(free_port()), "-m", "sensikit_cli", "train"]
    command = [*torchrun, str(tiny_data), "--method", "cd+id", "--arch", "tiny", "--resume"]
    for out, updates in (("whole", 8), ("parts", 5), ("parts", 8)):
        run([*command, "--out", str(tmp_path / out), "--updates", str(updates), "--", *FEW], tmp_path)
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    lines = [line for line in journal(tmp_path / "parts") if line["set"] == "train_inner"]
    assert [line["num_updates"] for line in lines] == [2, 4, 6, 8]
    # the tokens of both processes: what was asked for, less the padding
    assert all(200 < line["translation_tokens"] <= 300 for line in lines)
    assert "training on 2 devices" in (tmp_path / "parts" / "fairseq.log").read_text(encoding="utf-8")


def example(data: Path) -> list[str]:
    """The command in the documentation, as a shell would read it, on other data and with a smaller model."""
    found = re.search(r"^fairseq-train data/bin --user-dir .*?^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    words = shlex.split(found[0].removesuffix("```").replace("\\\n", ""))
    assert words[1::2][:2] == [
        "data/bin",
        "$(python -c 'import sensikit; print(*sensikit.__path__)')/backends/fairseq/plugin",
    ]
    words[1], words[3] = str(data / "bin"), str(Path(sensikit.__file__).parent / "backends" / "fairseq" / "plugin")
    return [*words, "--arch", "sensikit_tiny", "--cpu"]


def run(words: list[str], where: Path) -> str:
    """The standard output of a program of this environment."""
    words = [str(Path(sys.executable).with_name(words[0])), *words[1:]]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=where)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
