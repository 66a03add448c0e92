from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sensikit.run import Run
from sensikit.statistics.correlation import similarity_table
from tests.statistics.test_noise import obvious_interval
from tests.support import handmade
from tests.support.batched import CODES, SHAPES, batches, groups_of, high_of

DENOISED = ("cat", "nob", "isl")


def both(path: Path) -> tuple[Run, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A run of two tasks: fur is translated alone, isl denoised alone; the two have cat and nob in another order."""
    translated, denoised = batches(6), batches(7, DENOISED, (30, 40, 40))
    run = handmade.run_of_batches(path, translated, shapes=SHAPES)
    run.manifest["groups"]["isl"] = run.manifest["groups"]["cat"]
    return handmade.add_task(run, "denoise", denoised), translated, denoised


def stored(rows: np.ndarray) -> np.ndarray:
    return rows.mean(axis=0).astype(np.float32).astype(np.float64)


def test_similarity_is_the_pcc_between_the_tasks_of_one_language(tmp_path: Path) -> None:
    run, translated, denoised = both(tmp_path / "run")
    found = similarity_table(run)
    assert list(found["group"].unique()) == ["nob", "cat"]
    assert (found[["task_a", "task_b"]] == ["mt", "denoise"]).all(axis=None)
    found = found.set_index(["subset", "group"])
    # the high subset is that of translation, of all its languages
    for subset, inside in groups_of([stored(translated[code]) for code in CODES]).items():
        for code in ("nob", "cat"):
            expected = np.corrcoef(stored(translated[code])[inside], stored(denoised[code])[inside])[0, 1]
            assert found.at[(subset, code), "pcc"] == pytest.approx(expected, abs=1e-12)


def test_the_high_group_is_neither_that_of_denoising_nor_of_the_languages_in_common(tmp_path: Path) -> None:
    _, translated, denoised = both(tmp_path / "run")
    ours = set(np.flatnonzero(high_of([stored(translated[code]) for code in CODES])))
    others = [[stored(denoised[code]) for code in DENOISED], [stored(translated[code]) for code in ("nob", "cat")]]
    assert all(ours != set(np.flatnonzero(high_of(other))) for other in others), "the fixture must tell them apart"


def test_interval_is_the_obvious_leave_one_block_out_of_both_tasks(tmp_path: Path) -> None:
    run, translated, denoised = both(tmp_path / "run")
    found = similarity_table(run).set_index(["subset", "group"])
    for subset, inside in groups_of([stored(translated[code]) for code in CODES]).items():
        for code in ("nob", "cat"):
            row = found.loc[(subset, code)]
            drawn = {"mt": translated[code], "denoise": denoised[code]}
            low, high = obvious_interval(drawn, "mt", "denoise", np.flatnonzero(inside), row["pcc"])
            assert row["pcc_low"] == pytest.approx(low, abs=1e-5)
            assert row["pcc_high"] == pytest.approx(high, abs=1e-5)


def test_ceiling_by_hand_is_of_the_reliabilities_of_the_two_tasks(tmp_path: Path) -> None:
    # translation: halves (1,2,3,4) and (2,1,4,3) correlate at 0.6, so r = 0.75; denoising: 0.8, so r = 1.6/1.8
    translated = {"cat": np.array([[1.0, 2, 3, 4], [2.0, 1, 4, 3]])}
    denoised = {"cat": np.array([[1.0, 2, 3, 4], [1.0, 3, 2, 4]])}
    run = handmade.add_task(handmade.run_of_batches(tmp_path / "run", translated), "denoise", denoised)
    found = similarity_table(run).set_index("subset").loc["all"]
    assert found["pcc"] == pytest.approx(3 / np.sqrt(18), rel=1e-12)
    assert found["ceiling"] == pytest.approx(np.sqrt(0.75 * 1.6 / 1.8), rel=1e-12)


def test_a_run_of_one_task_has_no_similarity(tmp_path: Path) -> None:
    found = similarity_table(handmade.run_of_batches(tmp_path / "run", batches(3), shapes=SHAPES))
    assert isinstance(found, pd.DataFrame)
    assert found.empty
    assert "ceiling" in found
