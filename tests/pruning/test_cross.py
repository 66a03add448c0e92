"""The cross matrix: prune in the order of one language, decode every other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sensikit.errors import RunError
from sensikit.evaluation.metrics import evaluate, losses
from sensikit.pruning.ledger import Cell, cells
from sensikit.pruning.masks import Order, pruned, pruning_plan
from sensikit.pruning.sweep import prune
from sensikit.run import Run
from sensikit.settings import Decoding
from tests.support import toy
from tests.support.watched import SCORING, bits, snapshot, translating

LANGUAGES = ["cat", "fur", "nso"]
CROSS: dict[str, Any] = {"ratios": [0.5], "groups": LANGUAGES, "settings": SCORING, "cross": True}


@pytest.fixture(scope="module")
def straight(analysed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose cross matrix was never disturbed."""
    path = tmp_path_factory.mktemp("straight") / "run"
    shutil.copytree(analysed, path)
    prune(Run.open(path), toy.backend(), **CROSS)
    return path


def test_every_pruned_model_decodes_its_own_language_and_then_the_others() -> None:
    found = cells(["cat", "nob", "fur"], [0.5, 0, 0.3], ["specificity"], [], cross=True)
    assert [(c.group, c.order, c.ratio, c.evaluated) for c in found if c.group == "nob"] == [
        ("nob", "none", 0.0, "nob"),
        *(("nob", "specificity", ratio, code) for ratio in (0.3, 0.5) for code in ("nob", "cat", "fur")),
    ]
    assert len(found) == 3 * (1 + 2 * 3)
    assert len({cell.hypotheses for cell in found}) == len(found)
    assert [cell for cell in found if not cell.other] == cells(["cat", "nob", "fur"], [0.5, 0.3], ["specificity"], [])


def test_a_cell_is_the_other_language_translated_by_what_the_order_of_the_first_leaves(straight: Path) -> None:
    run, backend = Run.open(straight), toy.backend()
    table = run.read_table("pruning-cross.csv")
    assert len(table) == 2 * (3 + 9)
    for row in table[table["order"] == "specificity"].to_dict("records"):
        plan = pruning_plan(run, backend.module, Order("specificity", row["group"]), [0.5])
        with pruned(run, backend.module, plan, 0.5) as count:
            found = backend.translate(row["evaluated"], "test", Decoding())
        quality = evaluate(found.hypotheses, found.references, "none", bootstrap=10)
        score = quality[row["metric"]]
        assert (row["value"], row["value_low"], row["value_high"], row["metric_signature"]) == score
        assert row["pruned"] == count == round(0.5 * row["prunable"])
        assert (straight / row["hypotheses"]).read_text("utf-8").splitlines() == found.hypotheses


def test_the_matrix_has_the_columns_that_others_read_and_the_unpruned_model(straight: Path) -> None:
    table = Run.open(straight).read_table("pruning-cross.csv")
    assert table.columns.tolist() == [
        "order", "seed", "group", "evaluated", "ratio", "metric", "value", "value_low", "value_high", "pruned",
        "prunable", "sentences", "truncated", "length_ratio", "brevity_penalty", "metric_signature", "signature",
        "hypotheses", "sha256",
    ]  # fmt: skip
    unpruned = table[table["order"] == "none"]
    assert unpruned["evaluated"].tolist() == unpruned["group"].tolist() == [key for key in LANGUAGES for _ in range(2)]
    assert not table.duplicated(["order", "group", "evaluated", "ratio", "metric"]).any()


def test_curves_hold_the_own_languages_alone(straight: Path) -> None:
    run = Run.open(straight)
    curves, matrix = run.read_table("pruning.csv"), run.read_table("pruning-cross.csv")
    assert "evaluated" not in curves
    own = matrix[matrix["group"] == matrix["evaluated"]].drop(columns="evaluated").reset_index(drop=True)
    pd.testing.assert_frame_equal(curves, own)


def test_a_sweep_without_it_writes_no_matrix(run: Run) -> None:
    prune(run, translating(), [0, 0.5], groups=["cat"], settings=SCORING)
    assert not (run.path / "pruning-cross.csv").exists()


def test_a_matrix_shares_the_ledger_of_the_curves_and_decodes_nothing_twice(run: Run, straight: Path) -> None:
    prune(run, translating(), [0, 0.3, 0.5], groups=["cat", "nso"], settings=SCORING)
    backend = translating()
    prune(run, backend, **CROSS, resume=True)
    # fur: 0 and its own; and every other of each
    assert len(backend.calls) == 2 + 3 * 2
    matrix, whole = (Run.open(path).read_table("pruning-cross.csv") for path in (run.path, straight))
    key = ["order", "group", "evaluated", "ratio", "metric"]
    pd.testing.assert_frame_equal(
        matrix.sort_values(key).reset_index(drop=True), whole.sort_values(key).reset_index(drop=True)
    )
    # 0.3 was not crossed: it is in the curves alone
    assert set(Run.open(run.path).read_table("pruning.csv")["ratio"]) == {0, 0.3, 0.5}


@pytest.mark.parametrize("call", [0, 1, 2, 5, 11])
def test_a_matrix_that_broke_off_resumes_and_ends_with_the_same_bytes(run: Run, straight: Path, call: int) -> None:
    def broken(now: int) -> None:
        if now == call:
            raise KeyboardInterrupt

    backend = translating(broken)
    before = bits(backend.module)
    with pytest.raises(KeyboardInterrupt):
        prune(run, backend, **CROSS)
    assert bits(backend.module) == before
    again = translating()
    prune(Run.open(run.path), again, **CROSS, resume=True)
    assert len(again.calls) == 12 - call
    assert snapshot(run.path) == snapshot(straight)


def test_a_model_is_pruned_once_for_all_that_it_decodes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from sensikit.pruning import sweep

    applied: list[tuple[str, float]] = []
    real = sweep.pruned

    def counted(run: Run, module: Any, plan: Any, ratio: float) -> Any:
        applied.append((plan.order.group, ratio))
        return real(run, module, plan, ratio)

    monkeypatch.setattr(sweep, "pruned", counted)
    prune(run, translating(), **{**CROSS, "ratios": [0.3, 0.5]})
    assert applied == [(code, ratio) for code in LANGUAGES for ratio in (0.3, 0.5)]


def test_random_orders_are_crossed_by_seed(run: Run) -> None:
    table = prune(
        run, translating(), [0.5], ["random"], seeds=[1, 2], groups=["cat", "nso"], settings=SCORING, cross=True
    )
    matrix = run.read_table("pruning-cross.csv")
    assert len(table) == 2 * 2 * (1 + 2)
    assert len(matrix) == 2 * (2 + 2 * 2 * 2)
    assert 2 * len(set(matrix["hypotheses"])) == len(matrix)


def test_another_length_penalty_is_another_sweep(run: Run) -> None:
    # a penalty moves BLEU as much as a beam does
    other = replace(SCORING, decoding=Decoding(lenpen=0.6))
    one = prune(run, translating(), [0], groups=["cat"], settings=SCORING)
    with pytest.raises(RunError, match=r"was made with another decoding\.lenpen"):
        prune(run, translating(), [0], groups=["cat"], settings=other, resume=True)
    shutil.rmtree(run.path / "pruning")
    two = prune(run, translating(), [0], groups=["cat"], settings=other)
    assert one["signature"][0] != two["signature"][0]
    assert "|lenpen:0.6|" in two["signature"][0]


def test_a_line_of_the_ledger_says_what_was_decoded(straight: Path) -> None:
    lines = [json.loads(line) for line in (straight / "pruning" / "ledger.jsonl").read_text("utf-8").splitlines()]
    assert [line["evaluated"] for line in lines[:8:2]] == ["cat", "cat", "fur", "nso"]
    cell = Cell("specificity", None, "cat", 0.5, "nso")
    assert (cell.hypotheses, cell.sums("bleu")) == (lines[6]["hypotheses"], lines[6]["sums"])


def test_the_loss_of_every_group_is_crossed_without_translating(run: Run) -> None:
    backend = translating()
    table = prune(run, backend, **{**CROSS, "settings": replace(SCORING, metrics=("loss",))})
    assert backend.calls == []
    matrix = run.read_table("pruning-cross.csv")
    assert (len(table), len(matrix)) == (2 * 3, 3 + 9)
    row = matrix[(matrix["group"] == "cat") & (matrix["evaluated"] == "nso")].iloc[0]
    with pruned(run, backend.module, pruning_plan(run, backend.module, Order("specificity", "cat"), [0.5]), 0.5):
        nats, tokens, _ = losses(backend, "nso", "test", Decoding()).sum(0)
    assert row["value"] == pytest.approx(nats / tokens, abs=1e-12)


def test_a_metric_that_nobody_crossed_is_not_in_the_matrix(straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    settings = replace(SCORING, metrics=("loss",))
    curves = prune(run, toy.backend(), [0.5], groups=LANGUAGES, settings=settings, resume=True)
    assert "loss" in set(curves["metric"])
    assert "loss" not in set(run.read_table("pruning-cross.csv")["metric"])
