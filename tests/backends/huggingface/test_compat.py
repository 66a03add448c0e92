"""What transformers needs to be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sensikit.backends.huggingface import compat
from sensikit.errors import MissingDependencyError


def said(root: Path, torchaudio: str, program: str) -> str:
    """Return what a program prints in a new process, beside a package torchaudio of one file."""
    (root / "torchaudio").mkdir()
    (root / "torchaudio" / "__init__.py").write_text(torchaudio, encoding="utf-8")
    command = [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{program}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_models_are_imported_beside_a_torchaudio_that_cannot_be(tmp_path: Path) -> None:
    program = """
from transformers import AutoTokenizer  # by which time it has looked for torchaudio, and remembers
try:
    from transformers import M2M100ForConditionalGeneration
except OSError as error:
    print(error)
from sensikit.backends.huggingface import compat
compat.load()
from transformers import M2M100ForConditionalGeneration
print("imported")
"""
    assert said(tmp_path, "raise OSError('no libcudart.so.13')", program) == "no libcudart.so.13\nimported\n"


def test_a_torchaudio_that_works_stays(tmp_path: Path) -> None:
    program = """
from sensikit.backends.huggingface import compat
print(compat.load().utils.is_torchaudio_available())
"""
    assert said(tmp_path, "", program) == "True\n"


def test_missing_transformers_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError) as caught:
        compat.load()
    assert str(caught.value) == 'transformers: is not installed; pip install "sensikit[hf]"'
