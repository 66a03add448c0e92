"""Sweeps that broke off and go on, ledgers that are damaged, and what is refused before anything is decoded."""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from sensikit.errors import OptionError, RunError, SensikitError
from sensikit.files import read_json, write_json
from sensikit.pruning.sweep import prune
from sensikit.run import Run
from sensikit.sensitivity.analysis import analyze
from sensikit.settings import AnalysisSettings, Decoding, SweepSettings
from tests.support.stored import everything
from tests.support.watched import CELLS, SCORING, SMALL, Translating, bits, ledger, snapshot, translating

# broken off, and resumed


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("call", [0, 1, 6, CELLS - 1])
def test_a_sweep_that_broke_off_resumes_and_ends_with_the_same_bytes(
    run: Run, straight: Path, call: int, error: type[BaseException]
) -> None:
    def broken(now: int) -> None:
        if now == call:
            raise error

    with pytest.raises(error):
        prune(run, translating(broken), **SMALL, settings=SCORING)
    again = translating()
    prune(Run.open(run.path), again, **SMALL, settings=SCORING, resume=True)
    assert len(again.calls) == CELLS - call
    assert snapshot(run.path) == snapshot(straight)


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_torn_last_line_is_decoded_again(run: Run, straight: Path, kept: int) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    path = run.path / "pruning" / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
    backend = translating()
    prune(run, backend, **SMALL, settings=SCORING, resume=True)
    assert len(backend.calls) == 1
    assert snapshot(run.path) == snapshot(straight)


def test_a_cell_whose_last_metric_is_torn_is_decoded_again_for_that_alone(run: Run, straight: Path) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    path = run.path / "pruning" / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4])
    backend = translating()
    prune(run, backend, **SMALL, settings=SCORING, resume=True)
    assert len(backend.calls) == CELLS - 2
    assert snapshot(run.path) == snapshot(straight)


@pytest.mark.parametrize("first", [("bleu", "chrf"), ("loss",), ("chrf", "loss")])
def test_metrics_are_added_to_cells_that_are_there(run: Run, first: tuple[str, ...]) -> None:
    backend, whole = translating(), replace(SCORING, metrics=("bleu", "chrf", "loss"))
    asked: dict[str, Any] = {"ratios": [0, 0.5], "groups": ["cat"]}
    prune(run, backend, **asked, settings=replace(SCORING, metrics=first))
    before = (run.path / "pruning" / "ledger.jsonl").read_bytes()
    decoded = len(backend.calls)
    assert decoded == (0 if first == ("loss",) else 2)
    table = prune(run, backend, **asked, settings=whole, resume=True)
    assert len(backend.calls) == decoded + (0 if "bleu" in first else 2)
    assert (run.path / "pruning" / "ledger.jsonl").read_bytes().startswith(before)
    assert table.groupby("ratio")["metric"].apply(set).tolist() == [{"bleu", "chrf", "loss"}] * 2
    alone = prune(Run.open(shutil.copytree(run.path, run.path.parent / "b", ignore=lambda *_: ["pruning"])), backend,
                  **asked, settings=whole)  # fmt: skip
    key = ["ratio", "metric"]
    pd.testing.assert_frame_equal(table.sort_values(key, ignore_index=True), alone.sort_values(key, ignore_index=True))


def test_what_translating_needs_is_noted_once_it_is_needed_and_then_kept_to(run: Run) -> None:
    asked: dict[str, Any] = {"ratios": [0], "groups": ["cat"], "resume": True}
    loss = replace(SCORING, metrics=("loss",), tokenizer="no tokenizer", decoding=Decoding(beam=2))
    prune(run, translating(), **asked, settings=loss)
    assert not {"tokenizer", "decoding"} & read_json(run.path / "pruning" / "settings.json").keys()
    prune(run, translating(), **asked, settings=SCORING)
    prune(run, translating(), **asked, settings=loss)
    with pytest.raises(RunError, match=r"was made with another decoding.beam \(5, not 2\)"):
        prune(run, translating(), **asked, settings=replace(SCORING, decoding=Decoding(beam=2)))
    with pytest.raises(RunError, match=r"was made with another max_sentences \(none, not 3\)"):
        prune(run, translating(), **asked, settings=replace(loss, decoding=Decoding(max_sentences=3)))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("protect", replace(SCORING, protect=0.05)),
        ("protect_among", replace(SCORING, protect_among="all")),
        ("split", replace(SCORING, split="valid")),
        ("decoding.beam", replace(SCORING, decoding=Decoding(beam=1))),
        ("decoding.max_sentences", replace(SCORING, decoding=Decoding(max_sentences=3))),
        ("tokenizer", replace(SCORING, tokenizer="13a")),
        ("bootstrap", replace(SCORING, bootstrap=11)),
    ],
)
def test_other_settings_are_refused_and_named_and_the_ledger_is_left_as_it_is(
    run: Run, straight: Path, name: str, settings: SweepSettings
) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    before, backend = snapshot(run.path), translating()
    with pytest.raises(RunError, match=f"was made with another {name} .*; keep to its own, or move it away"):
        prune(run, backend, **SMALL, settings=settings, resume=True)
    assert snapshot(run.path) == before
    assert backend.calls == []


def test_a_ledger_is_of_one_task(run: Run) -> None:
    backend = translating()
    analyze(backend, run.path, AnalysisSettings(batches=4, tokens=64, task="denoise"), resume=True)
    settings = replace(SCORING, metrics=("loss",))
    prune(Run.open(run.path), backend, [0], groups=["cat"], settings=settings)
    with pytest.raises(RunError, match=r"was made with another task \(mt, not denoise\)"):
        prune(Run.open(run.path), backend, [0], settings=replace(settings, task="denoise"), resume=True)


def test_another_spm_model_under_the_same_path_is_refused(run: Run, tmp_path: Path) -> None:
    model = tmp_path / "spm.model"
    with_model = replace(SCORING, spm_model=str(model))
    write_model(model, 36)
    prune(run, translating(), [0], groups=["cat"], settings=with_model)
    write_model(model, 30)
    clear()
    with pytest.raises(RunError, match=r"another tokenizer \(spm-"):
        prune(run, translating(), [0, 0.5], groups=["cat"], settings=with_model, resume=True)


def test_the_same_spm_model_at_another_place_goes_on(run: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "one.model", 36)
    shutil.copy(tmp_path / "one.model", tmp_path / "two.model")
    settings = [replace(SCORING, spm_model=str(tmp_path / name)) for name in ("one.model", "two.model")]
    prune(run, translating(), [0], groups=["cat"], settings=settings[0])
    backend = translating()
    prune(run, backend, [0, 0.5], groups=["cat"], settings=settings[1], resume=True)
    assert len(backend.calls) == 1


def write_model(path: Path, size: int) -> None:
    import sentencepiece

    text = path.with_suffix(".text")
    text.write_text("\n".join(f"w{i} w{i * 7 % 90} w{i * 3 % 80}" for i in range(90)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(path.with_suffix("")), vocab_size=size, minloglevel=2
    )


def clear() -> None:
    from sensikit.evaluation.metrics import bleu_metric

    bleu_metric.cache_clear()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    clear()
    yield
    clear()


@pytest.mark.parametrize("lost", [None, "settings.json"])
def test_a_ledger_that_stands_is_refused_without_resume_and_left_as_it_is(
    run: Run, straight: Path, lost: str | None
) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    if lost:
        (run.path / "pruning" / lost).unlink()
    before, backend = snapshot(run.path), translating()
    problem = r"already exists and is not a pruning sweep .*settings\.json" if lost else "already exists; .*--resume"
    with pytest.raises(RunError, match=f"pruning: {problem}"):
        prune(run, backend, **SMALL, settings=SCORING)
    assert snapshot(run.path) == before
    assert backend.calls == []


def test_a_ledger_whose_settings_are_lost_is_not_added_to(run: Run, straight: Path) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    (run.path / "pruning" / "settings.json").unlink()
    before = snapshot(run.path)
    with pytest.raises(RunError, match=r"settings\.json"):
        prune(run, translating(), **SMALL, settings=replace(SCORING, protect=0.05), resume=True)
    assert snapshot(run.path) == before


def test_a_later_sweep_adds_orders_ratios_and_languages_and_decodes_nothing_twice(run: Run, straight: Path) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    before = (run.path / "pruning" / "ledger.jsonl").read_bytes()
    backend = translating()
    table = prune(
        run,
        backend,
        [0.4, 0.6],
        ["specificity", "reverse"],
        groups=["cat", "nob"],
        settings=SCORING,
        resume=True,
    )
    # cat: specificity 0.6, reverse 0.4 and 0.6; nob: 0, and both of each
    assert [language for language, _, _ in backend.calls] == ["cat"] * 3 + ["nob"] * 5
    assert (run.path / "pruning" / "ledger.jsonl").read_bytes().startswith(before)
    assert len(table) == len(ledger(run)) == 2 * (CELLS + 8)
    assert len(table.drop_duplicates(["order", "seed", "group", "ratio"])) == CELLS + 8


def test_a_resume_with_nothing_left_to_do_writes_a_lost_table_again(run: Run, straight: Path) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    (run.path / "pruning.csv").unlink()
    backend = translating()
    prune(run, backend, **SMALL, settings=SCORING, resume=True)
    assert backend.calls == []
    assert snapshot(run.path) == snapshot(straight)


def test_what_a_killed_process_left_half_written_is_cleared_away(run: Run, straight: Path) -> None:
    (run.path / "hypotheses").mkdir()
    (run.path / "hypotheses" / ".cat.none.0.0.txt.12345.partial").write_text("half")
    prune(run, translating(), **SMALL, settings=SCORING, resume=True)
    assert snapshot(run.path) == snapshot(straight)


def test_a_full_disk_in_the_middle_leaves_a_ledger_that_resumes(
    run: Run, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """The ledger's file, on a disk that takes 30 bytes more."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, text: str) -> None:
            self.file.write(text[:30])
            self.file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real, additions = Path.open, 0

    def limited(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        nonlocal additions
        file = real(path, mode, *arguments, **options)
        if path.name == "ledger.jsonl" and "a" in mode:
            additions += 1
            return Full(file) if additions == 5 else file
        return file

    monkeypatch.setattr(Path, "open", limited)
    backend = translating()
    before = bits(backend.module)
    with pytest.raises(SensikitError, match=r"ledger\.jsonl: the disk is full") as caught:
        prune(run, backend, **SMALL, settings=SCORING)
    assert caught.value.exit_code == 2
    assert bits(backend.module) == before
    monkeypatch.undo()
    again = translating()
    prune(Run.open(run.path), again, **SMALL, settings=SCORING, resume=True)
    assert len(again.calls) == CELLS - 4
    assert snapshot(run.path) == snapshot(straight)


def test_a_disk_full_of_hypotheses_leaves_a_ledger_that_resumes(
    run: Run, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, syncs = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SensikitError, match="the disk is full"):
        prune(run, translating(), **SMALL, settings=SCORING)
    monkeypatch.undo()
    prune(Run.open(run.path), translating(), **SMALL, settings=SCORING, resume=True)
    assert snapshot(run.path) == snapshot(straight)


# what is refused before anything is decoded or written


def refused(
    run: Run, error: type[SensikitError], match: str, backend: Translating | None = None, **options: Any
) -> None:
    before, backend = snapshot(run.path), backend or translating()
    with pytest.raises(error, match=match) as caught:
        prune(run, backend, **{"ratios": [0, 0.5], "settings": SCORING, **options})
    assert "\n" not in str(caught.value)
    assert backend.calls == []
    assert snapshot(run.path) == before


def test_a_run_of_another_checkpoint_is_refused(run: Run) -> None:
    other = translating()
    with torch.no_grad():
        next(other.module.parameters())[3, 0] += 1e-3
    refused(run, RunError, "was measured on another checkpoint .* than toy/checkpoint.pt.*--checkpoint", other)


def test_a_run_of_other_data_is_refused(run: Run) -> None:
    other = translating()
    other.pairs["cat", "test"] = other.pairs["cat", "test"][1:]
    refused(run, RunError, "was measured on other data .* than toy/data.*--data", other)


@pytest.mark.parametrize("ratio", [-0.1, 1.5, 0.95, math.nan])
def test_a_ratio_that_cannot_be_is_refused(run: Run, ratio: float) -> None:
    refused(run, OptionError, "--ratios", ratios=[0.1, ratio])


def test_an_unknown_order_is_refused(run: Run) -> None:
    refused(run, OptionError, "--order: alphabet is not an order; choose among specificity, rev", orders=["alphabet"])


@pytest.mark.parametrize("options", [{"orders": []}, {"orders": ["random"], "seeds": []}, {"ratios": []}])
def test_nothing_asked_for_is_refused(run: Run, options: dict[str, Any]) -> None:
    refused(run, OptionError, "--(order|seeds|ratios)", **options)


@pytest.mark.parametrize("codes", [["xyz"], ["cat", "eng"], []])
def test_a_language_that_was_not_measured_is_refused(run: Run, codes: list[str]) -> None:
    refused(run, OptionError, "--groups.*choose among cat, fur, nob, nso", groups=codes)


@pytest.mark.parametrize("metrics", [(), ("bleu", "ter")])
def test_an_unknown_metric_is_refused(run: Run, metrics: tuple[str, ...]) -> None:
    refused(run, OptionError, "--metric: .* is not a metric", settings=replace(SCORING, metrics=metrics))


def test_an_unknown_tokenizer_is_refused(run: Run) -> None:
    refused(run, OptionError, "--tokenizer", settings=replace(SCORING, tokenizer="moses"))


@pytest.mark.parametrize(
    ("option", "change"),
    [
        ("--protect", {"protect": 1.0}),
        ("--protect", {"protect": -0.1}),
        ("--protect", {"protect": math.nan}),
        ("--max-sentences", {"max_sentences": 0}),
        ("--max-sentences", {"max_sentences": -3}),
        ("--beam", {"beam": 0}),
        ("--max-tokens", {"max_tokens": 0}),
        ("--lenpen", {"lenpen": math.nan}),
        ("--max-len-a", {"max_len_a": math.inf}),
        ("--max-len-a", {"max_len_a": -1}),
        ("--max-len-b", {"max_len_b": -1}),
        ("--max-len-b", {"max_len_a": 0, "max_len_b": 0}),
    ],
)
def test_a_setting_that_cannot_be_is_refused(option: str, change: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"^{option}: "):
        replace(SCORING if "protect" in change else SCORING.decoding, **change)


def test_a_run_that_another_process_writes_is_refused(run: Run) -> None:
    with Run.open(run.path).locked():
        refused(run, RunError, "is being written by another process")


@pytest.mark.parametrize("name", ["cat", "cat.rest"])
def test_damaged_sensitivities_are_refused_before_anything_is_decoded(run: Run, name: str) -> None:
    path = run.vector("mt", name)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    before, backend = everything(run.path), translating()
    with pytest.raises(RunError, match=f"{name}.safetensors: is missing or damaged"):
        prune(run, backend, [0.5], groups=["cat"], settings=SCORING, command="sensikit prune")
    assert backend.calls == []
    assert everything(run.path) == before


def test_a_ledger_of_an_earlier_format_is_refused(run: Run, straight: Path) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    path = run.path / "pruning" / "settings.json"
    write_json(path, {name: value for name, value in read_json(path).items() if name != "format"})
    refused(run, RunError, r"settings\.json: is not of format 4; prune again with this version", resume=True)
    shutil.copy(run.path / "manifest.json", path)
    refused(run, RunError, r"settings\.json: (lacks|is not of format)", resume=True)


def test_of_two_sweeps_begun_from_what_stood_there_before_neither_loses_its_scores(run: Run) -> None:
    other = Run.open(run.path)
    prune(run, translating(), [0.5], ["fisher"], groups=["cat"], settings=SCORING)
    prune(other, translating(), [0.5], ["wanda"], groups=["cat"], settings=SCORING, resume=True)
    for order in ("fisher", "wanda"):
        Run.open(run.path).check(f"{order}-mt", ["cat"])
