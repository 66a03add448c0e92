"""The benchmarks run: what they measure is for `make bench`, which nobody waits for in a test."""

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import __main__ as every
from tests.benchmarks import decoding, models, tables, training
from tests.support.command import done


def test_an_analysis_is_timed_against_bare_passes_and_the_obvious_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(every, "ROUNDS", 1)
    monkeypatch.setattr(every, "batches", lambda count, tokens, parts: models.batches(2, 50, parts))
    monkeypatch.setattr(every, "translator", lambda: models.translator(8, 1))
    every.analyze_against_loops()
    assert capsys.readouterr().out.count(" times\n") == 2


@pytest.mark.slow
def test_memory_in_chunks_is_less_than_of_whole_vectors(capsys: pytest.CaptureFixture[str]) -> None:
    large = np.ones(250_000_000)  # of it nothing may be seen in the processes that are begun
    every.memory_against_whole()
    del large
    assert float(capsys.readouterr().out.split()[-2]) < 0.5


def test_what_tables_cost_is_printed_for_both_ways_of_making_them(capsys: pytest.CaptureFixture[str]) -> None:
    tables.main(0.2, 2)
    printed = capsys.readouterr().out
    assert printed.count("tables of 0.2 M parameters and 2 groups") == 2
    assert printed.count("distribution.csv ") == 2


@pytest.mark.slow
def test_a_sweep_is_timed_by_both_engines(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ctranslate2")
    done("analyze", tiny_checkpoint, "--data", tiny_data, "--out", tmp_path / "run", "--batches", "4", "--tokens", "64")
    capsys.readouterr()
    decoding.main(tmp_path / "run")
    rows = capsys.readouterr().out.splitlines()[-len(decoding.RATIOS) :]
    assert [float(row.split(":")[0]) for row in rows] == list(decoding.RATIOS)


@pytest.mark.slow
def test_every_method_and_plain_fairseq_are_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "UPDATES", 1)
    monkeypatch.setattr(training, "ROUNDS", 1)
    training.main()
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*training.METHODS, "plain"]
    assert all(np.isfinite([float(word.strip("()")) for word in line.split()[1:3]]).all() for line in lines)
