"""Runs that broke off and go on, and what is refused before anything is computed."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sensikit.errors import DataError, OptionError, RunError, SensikitError
from sensikit.run import Run
from sensikit.sensitivity.analysis import analyze
from sensikit.sensitivity.cost import estimate
from sensikit.settings import MemorySettings
from tests.support.watched import CHANGES, QUICK, SIZES, Both, Watched, breaks_at, snapshot, undisturbed


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never disturbed."""
    return undisturbed(tmp_path_factory.mktemp("straight") / "run")


# broken off, and resumed


@pytest.mark.parametrize("call", [0, 3, 60, 166])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_analysis_that_broke_off_resumes_and_ends_with_the_same_bytes(
    tmp_path: Path, straight: Path, call: int, error: type[BaseException]
) -> None:
    def before(now: int) -> None:
        if now == call:
            raise error

    with pytest.raises(error):
        analyze(Watched(before=before), tmp_path / "run", QUICK, command="sensikit analyze")
    analyze(Watched(), tmp_path / "run", QUICK, resume=True, command="sensikit analyze --resume")
    assert snapshot(tmp_path / "run") == snapshot(straight)


def test_a_resume_measures_only_what_is_missing(tmp_path: Path, straight: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    backend = Watched()
    analyze(backend, tmp_path / "run", QUICK, resume=True)
    assert backend.calls == []
    Run.open(straight).vector("mt", "cat.rest")
    (tmp_path / "run" / "sensitivity" / "mt" / "cat.rest.safetensors").unlink()
    analyze(backend, tmp_path / "run", QUICK, resume=True)
    assert {language for call in backend.calls for language, _ in call.items} == {"nob", "fur"}
    assert snapshot(tmp_path / "run") == snapshot(straight)


@pytest.mark.parametrize("name", ["cat.safetensors", "nob.half.safetensors", "fur.blocks.safetensors"])
def test_a_resume_measures_a_damaged_set_again(tmp_path: Path, straight: Path, name: str) -> None:
    shutil.copytree(straight, tmp_path / "run")
    path = tmp_path / "run" / "sensitivity" / "mt" / name
    content = bytearray(path.read_bytes())
    content[-7] ^= 4
    path.write_bytes(content)
    analyze(Watched(), tmp_path / "run", QUICK, resume=True)
    assert snapshot(tmp_path / "run") == snapshot(straight)


def test_a_pooled_run_that_broke_off_ends_with_the_same_bytes(tmp_path: Path) -> None:
    pooled = replace(QUICK, rest="pooled")
    analyze(Watched(), tmp_path / "one", pooled)
    with pytest.raises(ZeroDivisionError):
        analyze(Watched(before=breaks_at(50)), tmp_path / "two", pooled)
    analyze(Watched(), tmp_path / "two", pooled, resume=True)
    (tmp_path / "two" / "sensitivity" / "mt" / "nob.rest.safetensors").unlink()
    analyze(Watched(), tmp_path / "two", pooled, resume=True)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path, straight: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    (tmp_path / "run" / ".correlation.csv.4711.partial").write_text("half")
    (tmp_path / "run" / "sensitivity" / "mt" / ".cat.safetensors.4711.partial").write_text("half")
    analyze(Watched(), tmp_path / "run", QUICK, resume=True)
    assert snapshot(tmp_path / "run") == snapshot(straight)


def test_a_run_killed_before_its_first_manifest_was_whole_can_begin_again(tmp_path: Path, straight: Path) -> None:
    for name, resume in (("one", True), ("two", False)):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".manifest.json.4711.partial").write_text("{")
        analyze(Watched(), tmp_path / name, QUICK, resume=resume, command="sensikit analyze")
        assert snapshot(tmp_path / name) == snapshot(straight)


@pytest.mark.parametrize("sums", ["device", "split", "cpu"])
def test_passes_and_the_place_of_the_sums_move_no_byte(tmp_path: Path, straight: Path, sums: str) -> None:
    backend, memory = Watched(), MemorySettings(parameter_passes=3, sums=sums)
    analyze(backend, tmp_path / "run", QUICK, memory=memory, command="sensikit analyze")
    assert snapshot(tmp_path / "run") == snapshot(straight)


# what is refused


def refused(path: Path, error: type[SensikitError], match: str, backend: Watched | None = None, **options: Any) -> None:
    """Nothing is computed, and nothing at `path` changes."""
    before, existed = snapshot(path), path.exists()
    backend = backend or Watched()
    with pytest.raises(error, match=match) as caught:
        analyze(backend, path, **{"settings": QUICK, **options})
    assert "\n" not in str(caught.value)
    assert backend.calls == []
    assert snapshot(path) == before
    assert path.exists() == existed


@pytest.mark.parametrize("name", CHANGES)
def test_a_resume_with_other_settings_is_refused(tmp_path: Path, straight: Path, name: str) -> None:
    shutil.copytree(straight, tmp_path / "run")
    settings = replace(QUICK, **CHANGES[name])
    refused(tmp_path / "run", RunError, "was made with another", Both(), settings=settings, resume=True)


def test_a_resume_says_which_setting_is_another(tmp_path: Path, straight: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    settings = replace(QUICK, tokens=41, seed=3)
    refused(tmp_path / "run", RunError, "tokens:40, not tokens:41.*seed:1, not seed:3", settings=settings, resume=True)


def test_a_resume_with_another_checkpoint_other_data_or_other_languages_is_refused(
    tmp_path: Path, straight: Path
) -> None:
    shutil.copytree(straight, tmp_path / "run")
    for backend in (Watched(seed=1), Watched({**SIZES, "fur": 51}), Watched(direction="eng-xxx")):
        refused(tmp_path / "run", RunError, "was made with another signature", backend, resume=True)
    refused(tmp_path / "run", RunError, "was made with another", groups=["cat", "nob"], resume=True)


@pytest.mark.parametrize("kind", ["run", "directory", "file"])
def test_an_output_that_exists_is_refused_and_left_as_it_is(tmp_path: Path, straight: Path, kind: str) -> None:
    path = tmp_path / "out"
    if kind == "run":
        shutil.copytree(straight, path)
    elif kind == "directory":
        path.mkdir()
        (path / "thesis.tex").write_text("years of work")
    else:
        path.write_text("years of work")
    before = path.read_text() if kind == "file" else ""
    if kind == "run":
        refused(path, RunError, "already exists; choose another --out, or --resume what is there")
    else:
        for resume in (False, True):
            refused(path, RunError, "already exists and is not a run directory .*another --out", resume=resume)
    assert kind != "file" or path.read_text() == before


def test_an_empty_output_directory_is_taken(tmp_path: Path, straight: Path) -> None:
    (tmp_path / "run").mkdir()
    analyze(Watched(), tmp_path / "run", QUICK, command="sensikit analyze")
    assert snapshot(tmp_path / "run") == snapshot(straight)


def test_a_run_that_another_process_writes_is_refused(tmp_path: Path, straight: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    with Run.open(tmp_path / "run").locked():
        refused(tmp_path / "run", RunError, "is being written by another process", resume=True)


@pytest.mark.parametrize("codes", [["xyz"], ["cat", "eng"]])
def test_an_unknown_language_is_refused_with_the_known_ones(tmp_path: Path, codes: list[str]) -> None:
    expected = f"--groups: {codes[-1]} is no group here; choose among nob, cat, fur"
    refused(tmp_path / "run", OptionError, expected, groups=codes)


def test_no_language_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "run", OptionError, "--groups: names no group", groups=[])


def test_a_group_with_no_data_that_is_asked_for_is_refused(tmp_path: Path) -> None:
    refused(
        tmp_path / "run",
        DataError,
        "fur: has no sentence in the train split; leave it out of --groups",
        Watched({**SIZES, "fur": 0}),
        groups=["cat", "fur"],
    )


def test_a_single_language_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "run", DataError, "cat: is the only group.*at least two", Watched({"cat": 60}))
    only = r"cat: .* \(no sentence of fur is there, or short enough\); B_-l needs"
    refused(tmp_path / "run", DataError, only, Watched({"cat": 60, "fur": 0}))


def test_a_language_that_does_not_fill_two_batches_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "run", DataError, "fur: fills 0 batches of 40 target tokens", Watched({**SIZES, "fur": 3}))


@pytest.mark.parametrize(
    ("option", "change"),
    [
        ("--task", {"task": "mlm"}),
        ("--loss", {"loss": "mse"}),
        ("--rest", {"rest": "both"}),
        ("--batches", {"batches": 1}),
        ("--batches", {"batches": -5}),
        ("--tokens", {"tokens": 0}),
        ("--micro-batches", {"micro_batches": 0}),
        ("--rest-temperature", {"rest_temperature": 0.0}),
        ("--rest-temperature", {"rest_temperature": math.inf}),
        ("--rest-temperature", {"rest_temperature": math.nan}),
        ("--sigma", {"sigma": 0.0}),
        ("--sigma", {"sigma": -1e-8}),
        ("--sigma", {"sigma": math.nan}),
        ("--seed", {"seed": -1}),
    ],
)
def test_a_setting_that_cannot_be_is_refused(option: str, change: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"^{option}: ") as caught:
        replace(QUICK, **change)
    assert "\n" not in str(caught.value)


def test_a_disk_that_is_too_full_is_refused_before_anything_is_measured(
    tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Watched()
    needed = estimate(Watched(), QUICK).disk
    free = needed - 1

    def usage(_: Path) -> tuple[int, int, int]:
        return shutil._ntuple_diskusage(10**12, 10**12 - free, free)  # type: ignore[attr-defined, no-any-return]

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(SensikitError, match=r"the disk has .* free and the run takes .* more; free some space"):
        analyze(backend, tmp_path / "run", QUICK, command="sensikit analyze")
    assert backend.calls == []
    assert list(tmp_path.iterdir()) == []
    free = needed
    analyze(backend, tmp_path / "run", QUICK, resume=True, command="sensikit analyze")
    assert snapshot(tmp_path / "run") == snapshot(straight)
    free = 0  # all that it takes is there already
    analyze(backend, tmp_path / "run", QUICK, resume=True)
