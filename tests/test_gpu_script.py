"""`make gpu` at toy size and without a GPU: its parts say what they found, and one that fails stops no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from tests.benchmarks import gpu


@pytest.mark.slow
def test_each_part_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = gpu.Setting(tmp_path, toy=True)
    at.device = "cpu"
    for name in ("same", "small", "large", "masks"):
        gpu.PARTS[name][0](at)
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
        assert len(rows) >= 6, name
        if name == "same":  # the same device twice
            assert rows[0]["value"] == 0
            assert 0 < rows[3]["value"] < 0.1


def test_a_part_that_fails_or_takes_too_long_is_written_down(tmp_path: Path) -> None:
    log = tmp_path / "log"
    failed = gpu.done_by("unknown", 60, [], log)
    assert failed["problem"] == "failed (1): KeyError: 'unknown'"
    late = gpu.done_by("same", 0, ["--place", str(tmp_path)], log)
    assert late["problem"] == "ended after 0 s"
    rows = [{"what": "a|b", "value": 1.0, "unit": "s", "aim": ""}]
    table = gpu.table({"card": "none"}, [{"part": "same", "rows": rows, "problem": ""}, failed])
    assert "| same | a b | 1 s |  |" in table
    assert "| unknown | **failed (1): KeyError: 'unknown'** | | |" in table
