from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sensikit.analysis import Settings, analyze
from sensikit.backends.base import Decoding, Translations
from sensikit.errors import OptionError, RunError, SensikitError
from sensikit.evaluation import evaluate, length_ratio
from sensikit.masks import Order, make_plan, pruned
from sensikit.store import Run
from sensikit.sweep import Cell, SweepSettings, cell_signature, cells, parse_ratios, prune
from tests import toy

QUICK = SweepSettings(tokenizer="none", bootstrap=10)
SMALL = {"ratios": [0, 0.4, 0.8], "orders": ["specificity", "random"], "seeds": [1, 2], "languages": ["cat", "nso"]}
CELLS = 2 * (1 + 2 + 2 * 2)


class Watched(toy.ToyBackend):
    """A trained toy that notes what it is asked to translate, and may break off."""

    calls: list[tuple[str, str, Decoding]]
    before: Callable[[int], None]

    def translate(self, language: str, split: str, decoding: Decoding) -> Translations:
        assert not self.module.training
        self.before(len(self.calls))
        self.calls.append((language, split, decoding))
        return super().translate(language, split, decoding)


def watched(before: Callable[[int], None] = lambda _: None, seed: int = 0) -> Watched:
    found = toy.backend(seed)
    found.__class__ = Watched
    assert isinstance(found, Watched)
    found.calls, found.before = [], before
    return found


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("analysed") / "run"
    analyze(toy.backend(), path, Settings(batches=4, tokens=64))
    return path


@pytest.fixture
def run(analysed: Path, tmp_path: Path) -> Run:
    shutil.copytree(analysed, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.fixture(scope="module")
def straight(analysed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose sweep was never disturbed."""
    path = tmp_path_factory.mktemp("straight") / "run"
    shutil.copytree(analysed, path)
    prune(Run.open(path), toy.backend(), **SMALL, settings=QUICK)
    return path


def snapshot(path: Path) -> dict[str, bytes]:
    """Every file below a run but the lock."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def ledger(run: Run | Path) -> list[dict[str, Any]]:
    path = run.path if isinstance(run, Run) else run
    return [json.loads(line) for line in (path / "pruning" / "ledger.jsonl").read_text("utf-8").splitlines()]


def bits(module: torch.nn.Module) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in module.state_dict().items()}


# cells


def test_cells_go_by_language_then_order_then_ratio_and_ratio_0_comes_once() -> None:
    found = cells(["cat", "nob"], [0.5, 0, 0.1], ["specificity", "random"], [1, 2])
    assert [(c.language, c.order, c.seed, c.ratio) for c in found] == [
        ("cat", "none", None, 0.0),
        ("cat", "specificity", None, 0.1),
        ("cat", "specificity", None, 0.5),
        ("cat", "random", 1, 0.1),
        ("cat", "random", 1, 0.5),
        ("cat", "random", 2, 0.1),
        ("cat", "random", 2, 0.5),
        ("nob", "none", None, 0.0),
        ("nob", "specificity", None, 0.1),
        ("nob", "specificity", None, 0.5),
        ("nob", "random", 1, 0.1),
        ("nob", "random", 1, 0.5),
        ("nob", "random", 2, 0.1),
        ("nob", "random", 2, 0.5),
    ]


def test_what_is_asked_for_twice_is_one_cell() -> None:
    found = cells(["cat"], [0.1, 0.1, 0.0, -0.0], ["specificity", "specificity", "random"], [1, 1])
    assert len(found) == len(set(found)) == 3


def test_every_cell_has_a_file_of_its_own() -> None:
    ratios = [0.1, 0.10001, 0.100011, 1 / 3, 0.3333]
    found = cells(["cat", "nob"], ratios, ["specificity", "random"], [1, 11])
    assert len({cell.file for cell in found}) == len(found)


def test_ratio_0_is_decoded_once_per_language_whatever_the_orders(run: Run) -> None:
    backend = watched()
    table = prune(run, backend, [0, 0.5], ["specificity", "reverse", "random"], seeds=[1, 2], settings=QUICK)
    assert len(backend.calls) == len(table) == 4 * (1 + 1 + 1 + 2)
    unpruned = table[table["ratio"] == 0]
    assert unpruned["language"].tolist() == ["cat", "fur", "nob", "nso"]
    assert (unpruned["order"] == "none").all()
    assert (unpruned["pruned"] == 0).all()
    assert unpruned["seed"].isna().all()


# the numbers of a cell


def test_cells_are_what_plan_apply_decode_and_score_give_one_by_one(straight: Path) -> None:
    run, backend = Run.open(straight), toy.backend()
    for line in ledger(straight):
        cell = Cell(line["order"], line["seed"], line["language"], line["ratio"])
        if cell.order == "none":
            found = backend.translate(cell.language, "test", Decoding())
        else:
            order = Order(cell.order, cell.language, cell.seed)
            with pruned(run, backend.module, make_plan(run, backend.module, order, [cell.ratio]), cell.ratio):
                found = backend.translate(cell.language, "test", Decoding())
        quality = evaluate(found.hypotheses, found.references, "none", bootstrap=10)
        assert (line["bleu"], line["bleu_low"], line["bleu_high"]) == (quality.bleu, quality.bleu_low, quality.bleu_high)
        assert (line["chrf"], line["bleu_signature"]) == (quality.chrf, quality.bleu_signature)
        assert line["mean_length_ratio"] == length_ratio(found.hypotheses, found.references)
        assert line["sentences"] == 24
        assert line["prunable"] == run.manifest["prunable_count"]
        assert line["pruned"] == round(cell.ratio * line["prunable"])
        kept = straight / line["hypotheses"]
        assert kept.read_text("utf-8").splitlines() == found.hypotheses
        assert line["sha256"] == hashlib.sha256(kept.read_bytes()).hexdigest()


def test_the_curve_is_alive(straight: Path) -> None:
    table = pd.read_csv(straight / "pruning.csv")
    mean = table.groupby(["order", "ratio"])["bleu"].mean()
    assert mean["none", 0.0] > 50
    assert mean["specificity", 0.8] < mean["specificity", 0.4] < mean["none", 0.0]
    assert mean["random", 0.4] < mean["specificity", 0.4]


def test_table_is_the_ledger_and_has_the_columns_that_others_read(straight: Path) -> None:
    table = Run.open(straight).read_table("pruning.csv")
    assert table.columns[:14].tolist() == [
        "order", "seed", "language", "ratio", "pruned", "prunable", "bleu", "bleu_low", "bleu_high", "chrf",
        "sentences", "mean_length_ratio", "bleu_signature", "chrf_signature",
    ]  # fmt: skip
    lines = ledger(straight)
    assert len(table) == len(lines) == CELLS
    for column in table.columns:
        expected = [line[column] for line in lines]
        found = [None if pd.isna(value) else value for value in table[column]]
        assert found == expected, column
    rows = (straight / "pruning.csv").read_text("utf-8").splitlines()[1:]
    assert {row.split(",")[1] for row in rows} == {"", "1", "2"}, "seeds are whole numbers"


def test_no_duration_and_no_time_of_day_is_in_the_ledger(straight: Path) -> None:
    assert not {"seconds", "duration", "time", "started"} & {key for line in ledger(straight) for key in line}


@pytest.mark.parametrize(
    "changed",
    [
        replace(QUICK, protect=0.2),
        replace(QUICK, split="valid"),
        replace(QUICK, decoding=Decoding(beam=1)),
        replace(QUICK, decoding=Decoding(lenpen=0.6)),
        replace(QUICK, decoding=Decoding(max_len_a=2)),
        replace(QUICK, decoding=Decoding(max_len_b=11)),
        replace(QUICK, decoding=Decoding(max_sentences=7)),
    ],
    ids=["protect", "split", "beam", "lenpen", "max_len_a", "max_len_b", "max_sentences"],
)
def test_what_moves_the_numbers_is_in_the_signature(run: Run, changed: SweepSettings) -> None:
    assert cell_signature(run, QUICK, "text") != cell_signature(run, changed, "text")


def test_signature_tells_checkpoint_data_direction_and_references(run: Run) -> None:
    whole = cell_signature(run, QUICK, "text")
    assert whole != cell_signature(run, QUICK, "binarised")
    for field in ("checkpoint_sha256", "data_sha256"):
        other = Run(run.path, {**run.manifest, "provenance": {**run.manifest["provenance"], field: "f" * 64}})
        assert cell_signature(other, QUICK, "text") != whole, field
    assert "dir:xxx-eng" in whole


def test_decoding_settings_and_split_reach_the_backend(run: Run) -> None:
    backend, decoding = watched(), Decoding(beam=3, max_sentences=5)
    settings = replace(QUICK, split="valid", decoding=decoding)
    table = prune(run, backend, [0], languages=["cat"], settings=settings)
    assert backend.calls == [("cat", "valid", decoding)]
    assert table["sentences"].tolist() == [5]


def test_protect_reaches_the_plan(run: Run) -> None:
    table = prune(run, watched(), [0.95], languages=["cat"], settings=replace(QUICK, protect=0.05))
    assert table["pruned"].tolist() == [0, round(0.95 * run.manifest["prunable_count"])]


# the model


def test_the_model_is_bit_identical_after_a_sweep(run: Run) -> None:
    backend = watched()
    backend.module.train()
    before = bits(backend.module)
    prune(run, backend, [0, 0.9], ["specificity", "magnitude"], languages=["cat"], settings=QUICK)
    assert bits(backend.module) == before
    assert not backend.module.training


def test_the_model_is_bit_identical_after_a_sweep_that_broke_off(run: Run) -> None:
    def broken(call: int) -> None:
        if call == 2:
            raise RuntimeError("out of memory")

    backend = watched(broken)
    before = bits(backend.module)
    with pytest.raises(RuntimeError, match="out of memory"):
        prune(run, backend, **SMALL, settings=QUICK)
    assert bits(backend.module) == before


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
        prune(run, watched(broken), **SMALL, settings=QUICK)
    again = watched()
    prune(Run.open(run.path), again, **SMALL, settings=QUICK, resume=True)
    assert len(again.calls) == CELLS - call
    assert snapshot(run.path) == snapshot(straight)


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_torn_last_line_is_decoded_again(run: Run, straight: Path, kept: int) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    path = run.path / "pruning" / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
    backend = watched()
    prune(run, backend, **SMALL, settings=QUICK, resume=True)
    assert len(backend.calls) == 1
    assert snapshot(run.path) == snapshot(straight)


@pytest.mark.parametrize("damage", [b"{", b"null", b"[1, 2]", b'{"order": "none"}', b"\xff\xfe", b"", b'"text"', b"7"])
def test_a_damaged_line_in_the_middle_is_refused_with_its_number_and_left_as_it_is(
    run: Run, straight: Path, damage: bytes
) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    path = run.path / "pruning" / "ledger.jsonl"
    lines = path.read_bytes().splitlines()
    lines[3] = damage
    path.write_bytes(b"\n".join(lines) + b"\n")
    before, backend = snapshot(run.path), watched()
    with pytest.raises(RunError, match=r"ledger\.jsonl:4: is not a line of a ledger") as caught:
        prune(run, backend, **SMALL, settings=QUICK, resume=True)
    assert "\n" not in str(caught.value)
    assert snapshot(run.path) == before
    assert backend.calls == []


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("protect", replace(QUICK, protect=0.05)),
        ("split", replace(QUICK, split="valid")),
        ("decoding", replace(QUICK, decoding=Decoding(beam=1))),
        ("decoding", replace(QUICK, decoding=Decoding(max_sentences=3))),
        ("tokenizer", replace(QUICK, tokenizer="13a")),
        ("bootstrap", replace(QUICK, bootstrap=11)),
    ],
)
def test_other_settings_are_refused_and_named_and_the_ledger_is_left_as_it_is(
    run: Run, straight: Path, name: str, settings: SweepSettings
) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    before, backend = snapshot(run.path), watched()
    with pytest.raises(RunError, match=f"was made with other settings: .*{name}"):
        prune(run, backend, **SMALL, settings=settings, resume=True)
    assert snapshot(run.path) == before
    assert backend.calls == []


def test_another_spm_model_under_the_same_path_is_refused(run: Run, tmp_path: Path) -> None:
    model = tmp_path / "spm.model"
    with_model = replace(QUICK, spm_model=str(model))
    write_model(model, 36)
    prune(run, watched(), [0], languages=["cat"], settings=with_model)
    write_model(model, 30)
    clear()
    with pytest.raises(RunError, match="other settings: .*spm-"):
        prune(run, watched(), [0, 0.5], languages=["cat"], settings=with_model, resume=True)


def test_the_same_spm_model_at_another_place_goes_on(run: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "one.model", 36)
    shutil.copy(tmp_path / "one.model", tmp_path / "two.model")
    settings = [replace(QUICK, spm_model=str(tmp_path / name)) for name in ("one.model", "two.model")]
    prune(run, watched(), [0], languages=["cat"], settings=settings[0])
    backend = watched()
    prune(run, backend, [0, 0.5], languages=["cat"], settings=settings[1], resume=True)
    assert len(backend.calls) == 1


def write_model(path: Path, size: int) -> None:
    import sentencepiece

    text = path.with_suffix(".text")
    text.write_text("\n".join(f"w{i} w{i * 7 % 90} w{i * 3 % 80}" for i in range(90)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(path.with_suffix("")), vocab_size=size, minloglevel=2
    )


def clear() -> None:
    from sensikit.evaluation import bleu_metric

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
    before, backend = snapshot(run.path), watched()
    with pytest.raises(RunError, match=r"ledger\.jsonl: already exists; --resume"):
        prune(run, backend, **SMALL, settings=QUICK)
    assert snapshot(run.path) == before
    assert backend.calls == []


def test_a_ledger_whose_settings_are_lost_is_not_added_to(run: Run, straight: Path) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    (run.path / "pruning" / "settings.json").unlink()
    before = snapshot(run.path)
    with pytest.raises(RunError, match=r"settings\.json"):
        prune(run, watched(), **SMALL, settings=replace(QUICK, protect=0.05), resume=True)
    assert snapshot(run.path) == before


def test_a_later_sweep_adds_orders_ratios_and_languages_and_decodes_nothing_twice(run: Run, straight: Path) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    before = (run.path / "pruning" / "ledger.jsonl").read_bytes()
    backend = watched()
    table = prune(
        run, backend, [0.4, 0.6], ["specificity", "reverse"], languages=["cat", "nob"], settings=QUICK, resume=True
    )
    # cat: specificity 0.6, reverse 0.4 and 0.6; nob: 0, and both of each
    assert [language for language, _, _ in backend.calls] == ["cat"] * 3 + ["nob"] * 5
    assert (run.path / "pruning" / "ledger.jsonl").read_bytes().startswith(before)
    assert len(table) == len(ledger(run)) == CELLS + 8
    assert len(table.drop_duplicates(["order", "seed", "language", "ratio"])) == CELLS + 8


def test_a_resume_with_nothing_left_to_do_writes_a_lost_table_again(run: Run, straight: Path) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    (run.path / "pruning.csv").unlink()
    backend = watched()
    prune(run, backend, **SMALL, settings=QUICK, resume=True)
    assert backend.calls == []
    assert snapshot(run.path) == snapshot(straight)


def test_what_a_killed_process_left_half_written_is_cleared_away(run: Run, straight: Path) -> None:
    (run.path / "hypotheses").mkdir()
    (run.path / "hypotheses" / ".cat.none.0.0.txt.12345.partial").write_text("half")
    prune(run, watched(), **SMALL, settings=QUICK, resume=True)
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
    backend = watched()
    before = bits(backend.module)
    with pytest.raises(SensikitError, match=r"ledger\.jsonl: the disk is full") as caught:
        prune(run, backend, **SMALL, settings=QUICK)
    assert caught.value.exit_code == 2
    assert bits(backend.module) == before
    monkeypatch.undo()
    again = watched()
    prune(Run.open(run.path), again, **SMALL, settings=QUICK, resume=True)
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
        prune(run, watched(), **SMALL, settings=QUICK)
    monkeypatch.undo()
    prune(Run.open(run.path), watched(), **SMALL, settings=QUICK, resume=True)
    assert snapshot(run.path) == snapshot(straight)


# what is refused before anything is decoded or written


def refused(run: Run, error: type[SensikitError], match: str, backend: Watched | None = None, **options: Any) -> None:
    before, backend = snapshot(run.path), backend or watched()
    with pytest.raises(error, match=match) as caught:
        prune(run, backend, **{"ratios": [0, 0.5], "settings": QUICK, **options})
    assert "\n" not in str(caught.value)
    assert backend.calls == []
    assert snapshot(run.path) == before


def test_a_run_of_another_checkpoint_is_refused(run: Run) -> None:
    other = watched()
    with torch.no_grad():
        next(other.module.parameters())[3, 0] += 1e-3
    refused(run, RunError, "was measured on another checkpoint .* than toy/checkpoint.pt.*--checkpoint", other)


def test_a_run_of_other_data_is_refused(run: Run) -> None:
    other = watched()
    other.pairs["cat", "test"] = other.pairs["cat", "test"][1:]
    refused(run, RunError, "was measured on other data .* than toy/data.*--data", other)


@pytest.mark.parametrize("ratio", [-0.1, 1.5, 0.95, math.nan])
def test_a_ratio_that_cannot_be_is_refused(run: Run, ratio: float) -> None:
    refused(run, OptionError, "--ratios", ratios=[0.1, ratio])


def test_an_unknown_order_is_refused(run: Run) -> None:
    refused(run, OptionError, "--order: wanda is not an order; choose among specificity, reverse", orders=["wanda"])


@pytest.mark.parametrize("options", [{"orders": []}, {"orders": ["random"], "seeds": []}, {"ratios": []}])
def test_nothing_asked_for_is_refused(run: Run, options: dict[str, Any]) -> None:
    refused(run, OptionError, "--(order|seeds|ratios)", **options)


@pytest.mark.parametrize("codes", [["xyz"], ["cat", "eng"], []])
def test_a_language_that_was_not_measured_is_refused(run: Run, codes: list[str]) -> None:
    refused(run, OptionError, "--languages.*choose among cat, fur, nob, nso", languages=codes)


def test_an_unknown_tokenizer_is_refused(run: Run) -> None:
    refused(run, OptionError, "--tokenizer", settings=replace(QUICK, tokenizer="moses"))


@pytest.mark.parametrize(
    ("option", "change"),
    [
        ("--protect", {"protect": 1.0}),
        ("--protect", {"protect": -0.1}),
        ("--protect", {"protect": math.nan}),
        ("--max-sentences", {"decoding": Decoding(max_sentences=0)}),
        ("--max-sentences", {"decoding": Decoding(max_sentences=-3)}),
        ("--beam", {"decoding": Decoding(beam=0)}),
        ("--max-tokens", {"decoding": Decoding(max_tokens=0)}),
        ("--lenpen", {"decoding": Decoding(lenpen=math.nan)}),
        ("--max-len", {"decoding": Decoding(max_len_a=math.inf)}),
        ("--max-len", {"decoding": Decoding(max_len_a=-1)}),
        ("--max-len", {"decoding": Decoding(max_len_b=-1)}),
        ("--max-len", {"decoding": Decoding(max_len_a=0, max_len_b=0)}),
    ],
)
def test_a_setting_that_cannot_be_is_refused(option: str, change: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"^{option}"):
        replace(QUICK, **change)


def test_a_run_that_another_process_writes_is_refused(run: Run) -> None:
    with Run.open(run.path).locked():
        refused(run, RunError, "is being written by another process")


@pytest.mark.parametrize("name", ["cat", "rest-cat"])
def test_damaged_sensitivities_are_refused_before_anything_is_decoded(run: Run, name: str) -> None:
    path = run.vector("mt", name)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    backend = watched()
    with pytest.raises(RunError, match=f"{name}.safetensors: is missing or damaged"):
        prune(run, backend, [0.5], languages=["cat"], settings=QUICK)
    assert backend.calls == []


# ratios as they are typed


@pytest.mark.parametrize(
    ("text", "ratios"),
    [
        ("0:0.9:0.1", [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        ("0,0.3,0.6", [0, 0.3, 0.6]),
        ("0.5", [0.5]),
        ("0.1:0.1:0.1", [0.1]),
        ("0:0.5:0.2", [0, 0.2, 0.4]),
        (" 0 , 0.25 ", [0, 0.25]),
    ],
)
def test_ratios_as_typed(text: str, ratios: list[float]) -> None:
    assert parse_ratios(text) == ratios


@pytest.mark.parametrize("text", ["", "a", "0:1", "0:1:0", "0:1:-0.1", "1:0:0.1", "0:1:0.1:2", "0:1:1e-9", "0,,1", "nan:1:1"])
def test_ratios_that_are_none_are_one_line(text: str) -> None:
    with pytest.raises(OptionError, match="^--ratios") as caught:
        parse_ratios(text)
    assert "\n" not in str(caught.value)


def test_a_range_and_a_list_name_the_same_cells() -> None:
    # 3·0.1 is not 0.3: a second sweep with a list would otherwise decode it again
    assert set(parse_ratios("0:0.9:0.1")) == set(parse_ratios("0,.1,.2,.3,.4,.5,.6,.7,.8,.9"))
    assert np.diff(parse_ratios("0:0.9:0.1")).min() > 0.09
