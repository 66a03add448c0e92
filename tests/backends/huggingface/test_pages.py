"""The example of the README and the commands of the tutorial work, one by one, as they stand there."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.support.command import done

ROOT = Path(__file__).parents[3]


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; figures are not laid out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Figure, "draw_without_rendering", lambda _: None)
    return tmp_path


def test_the_example_of_the_readme(directory: Callable[[str], Path], text: Path, place: Path) -> None:
    (example,) = blocks("README.md", "python")
    assert len(example.strip().splitlines()) <= 10
    (place / "nllb").symlink_to(directory("nllb"))
    (place / "text").mkdir()
    for path in text.iterdir():  # fewer lines: a batch of fewer tokens
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        (place / "text" / path.name).write_text("".join(lines[:12]), encoding="utf-8")
    names: dict[str, object] = {}
    exec(example, names)
    assert names["page"] == Path("run", "report.html")
    curves = pd.read_csv("run/pruning.csv")
    assert {"none", "specificity", "random"} == set(curves["order"])
    assert "<svg" in Path("alike.svg").read_text()
    assert "<svg" in Path("curves.svg").read_text()


SMALLER = {"--updates 200": "--updates 5", "--batches 40": "--batches 6 --tokens 60", "loss": "loss --max-sentences 9"}
"""The tutorial's own sizes would take a minute: what is tested is that its commands fit together."""


def test_the_commands_of_the_tutorial(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("django")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    _, _, install, *others = "".join(blocks("docs/tutorial.md", "bash")).splitlines()
    assert install.startswith('pip install ".[hf,demo]"')
    for command in others:
        for size, smaller in SMALLER.items():
            command = command.replace(size, smaller)
        if name := re.match(r"(\w+)=\$\(", command):
            shell = subprocess.run(["sh", "-c", f'{command}; echo "${name[1]}"'], capture_output=True, check=True)
            monkeypatch.setenv(name[1], shell.stdout.decode().strip())
            continue
        program, *words = shlex.split(os.path.expandvars(command))
        if program == "python":
            monkeypatch.setattr(sys, "argv", words)
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        else:
            assert program == "sensikit"
            done(*words)
    assert Path("run", "report.html").is_file()
    (example,) = blocks("docs/tutorial.md", "python")
    exec(example, {})
    assert Path("alike.svg").stat().st_size > 10_000 < Path("curves.pdf").stat().st_size
