from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sacrebleu.metrics import BLEU

from sensikit.errors import OptionError
from sensikit.evaluation.metrics import evaluate, losses
from sensikit.figures.curves import pruning_curves
from sensikit.folder import SEAL
from sensikit.pruning.ledger import Cell, cells
from sensikit.pruning.masks import Order, pruned, pruning_plan
from sensikit.pruning.scorers import measure_missing
from sensikit.pruning.sweep import cell_signature, parse_ratios, prune
from sensikit.run import Run
from sensikit.sensitivity.analysis import analyze
from sensikit.settings import AMONG, AnalysisSettings, Decoding, SweepSettings
from tests.support import toy
from tests.support.watched import CELLS, SCORING, SMALL, bits, ledger, translating

# cells


def test_cells_go_by_language_then_order_then_ratio_and_ratio_0_comes_once() -> None:
    found = cells(["cat", "nob"], [0.5, 0, 0.1], ["specificity", "random"], [1, 2])
    assert [(c.group, c.order, c.seed, c.ratio) for c in found] == [
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
    assert len({cell.hypotheses for cell in found}) == len(found)


def test_ratio_0_is_decoded_once_per_language_whatever_the_orders(run: Run) -> None:
    backend = translating()
    table = prune(run, backend, [0, 0.5], ["specificity", "reverse", "random"], seeds=[1, 2], settings=SCORING)
    assert 2 * len(backend.calls) == len(table) == 2 * 4 * (1 + 1 + 1 + 2)
    unpruned = table[(table["ratio"] == 0) & (table["metric"] == "bleu")]
    assert unpruned["group"].tolist() == ["cat", "fur", "nob", "nso"]
    assert (unpruned["order"] == "none").all()
    assert (unpruned["pruned"] == 0).all()
    assert unpruned["seed"].isna().all()


# the numbers of a cell


def test_cells_are_what_plan_apply_decode_and_score_give_one_by_one(straight: Path) -> None:
    run, backend = Run.open(straight), toy.backend()
    for line in ledger(straight):
        cell = Cell(line["order"], line["seed"], line["group"], line["ratio"])
        if cell.order == "none":
            found = backend.translate(cell.group, "test", Decoding())
        else:
            order = Order(cell.order, cell.group, cell.seed)
            with pruned(run, backend.module, pruning_plan(run, backend.module, order, [cell.ratio]), cell.ratio):
                found = backend.translate(cell.group, "test", Decoding())
        quality = evaluate(found.hypotheses, found.references, "none", bootstrap=10)
        assert (line["value"], line["value_low"], line["value_high"], line["metric_signature"]) == quality[
            line["metric"]
        ]
        if line["metric"] == "bleu":  # as sacreBLEU has them
            theirs = BLEU(tokenize="none", force=True).corpus_score(found.hypotheses, [found.references])
            assert (line["length_ratio"], line["brevity_penalty"]) == pytest.approx((theirs.ratio, theirs.bp))
        assert line["sentences"] == 24
        assert line["prunable"] == run.manifest["prunable_count"]
        assert line["pruned"] == round(cell.ratio * line["prunable"])
        kept = straight / line["hypotheses"]
        assert kept.read_text("utf-8").splitlines() == found.hypotheses
        assert line["sha256"] == hashlib.sha256(kept.read_bytes()).hexdigest()


def test_the_curve_is_alive(straight: Path) -> None:
    table = pd.read_csv(straight / "pruning.csv")
    mean = table[table["metric"] == "bleu"].groupby(["order", "ratio"])["value"].mean()
    assert mean["none", 0.0] > 50
    assert mean["specificity", 0.8] < mean["specificity", 0.4] < mean["none", 0.0]
    assert mean["random", 0.4] < mean["specificity", 0.4]


def test_table_is_the_ledger_and_has_the_columns_that_others_read(straight: Path) -> None:
    table = Run.open(straight).read_table("pruning.csv")
    assert table.columns.tolist() == [
        "order", "seed", "group", "ratio", "metric", "value", "value_low", "value_high", "pruned", "prunable",
        "sentences", "truncated", "length_ratio", "brevity_penalty", "metric_signature", "signature",
        "hypotheses", "sha256",
    ]  # fmt: skip
    lines = ledger(straight)
    assert len(table) == len(lines) == 2 * CELLS
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
        replace(SCORING, protect=0.2),
        replace(SCORING, protect_among="all"),
        replace(SCORING, split="valid"),
        replace(SCORING, decoding=Decoding(beam=1)),
        replace(SCORING, decoding=Decoding(lenpen=0.6)),
        replace(SCORING, decoding=Decoding(max_len_a=2)),
        replace(SCORING, decoding=Decoding(max_len_b=11)),
        replace(SCORING, decoding=Decoding(max_sentences=7)),
    ],
    ids=["protect", "among", "split", "beam", "lenpen", "max_len_a", "max_len_b", "max_sentences"],
)
def test_what_moves_the_numbers_is_in_the_signature(run: Run, changed: SweepSettings) -> None:
    assert cell_signature(run, SCORING, "eng", "text") != cell_signature(run, changed, "eng", "text")


def test_signature_tells_checkpoint_data_direction_and_references(run: Run) -> None:
    whole = cell_signature(run, SCORING, "eng", "text")
    assert whole != cell_signature(run, SCORING, "eng", "binarised")
    for field in ("checkpoint_sha256", "data_sha256"):
        other = Run(run.path, {**run.manifest, "provenance": {**run.manifest["provenance"], field: "f" * 64}})
        assert cell_signature(other, SCORING, "eng", "text") != whole, field
    assert "dir:xxx-eng" in whole


def test_decoding_settings_and_split_reach_the_backend(run: Run) -> None:
    backend, decoding = translating(), Decoding(beam=3, max_sentences=5)
    settings = replace(SCORING, split="valid", decoding=decoding)
    table = prune(run, backend, [0], groups=["cat"], settings=settings)
    assert backend.calls == [("cat", "valid", decoding)]
    assert table["sentences"].tolist() == [5, 5]


def test_protect_reaches_the_plan(run: Run) -> None:
    table = prune(run, translating(), [0.95], groups=["cat"], settings=replace(SCORING, protect=0.05))
    prunable = run.manifest["prunable_count"]
    assert table["pruned"].tolist()[1:3] == [0, prunable - int(0.05 * prunable)]


def test_what_the_protected_are_a_share_of_reaches_the_plan(run: Run) -> None:
    settings = replace(SCORING, protect_among="all")
    table = prune(run, translating(), [0.8], "reverse", groups="cat", settings=settings)  # one of each, without a list
    plans = [pruning_plan(run, toy.backend().module, Order("reverse", "cat", among=name), [0.8]) for name in AMONG]
    assert [line["mask"] == plan.digest(0.8) for line, plan in zip(ledger(run)[-2:], plans, strict=True)] == [
        False,
        True,
    ]
    assert "|protect:0.1|among:all|" in table["signature"].iloc[0]


def test_a_caption_says_where_all_orders_have_pruned_the_same(run: Run) -> None:
    table = prune(run, translating(), [0, 0.4, 0.9], ["specificity", "reverse"], groups=["cat"], settings=SCORING)
    same = "so that at 90% all orders have pruned the same"
    assert same in pruning_curves(table).caption
    assert same not in pruning_curves(table[table["ratio"] < 0.9]).caption
    end = table[table["ratio"] == 0.9]
    assert end["sha256"].nunique() == 1


def test_cells_of_one_mask_share_one_decoding_and_each_has_its_line(run: Run) -> None:
    backend, orders = translating(), ["specificity", "matched", "matched-random"]
    asked = {"seeds": [1, 2], "groups": ["cat", "nso"], "settings": replace(SCORING, metrics=("bleu", "loss"))}
    prune(run, backend, [0.5, 0.9], orders, **asked)  # type: ignore[arg-type]
    assert len(backend.calls) == 2 * (1 + 4 + 1)
    prune(run, backend, [0.9], ["reverse"], **asked, resume=True)  # type: ignore[arg-type]
    assert len(backend.calls) == 2 * (1 + 4 + 1)
    lines = [line for line in ledger(run) if line["ratio"] == 0.9]
    assert (
        len(lines) == len({(each["order"], each["seed"], each["group"], each["metric"]) for each in lines}) == 2 * 2 * 5
    )
    for metric, group in itertools.product(("bleu", "loss"), ("cat", "nso")):
        same = [line for line in lines if (line["metric"], line["group"]) == (metric, group)]
        own = ("order", "seed", "hypotheses", "sums", SEAL)
        assert all({**line, **{key: same[0][key] for key in own}} == same[0] for line in same)
        assert [(run.path / line["sums"]).exists() for line in same] == [True] * 5
    line = next(line for line in lines if line["order"] == "reverse")
    assert (line["sums"], line["hypotheses"]) == (
        (cell := Cell("reverse", None, "cat", 0.9)).sums("bleu"),
        cell.hypotheses,
    )
    # what is damaged is not copied
    for path in (run.path / "hypotheses").glob("cat.*.0.9.txt"):
        path.write_text("")
    prune(run, backend, [0.9], ["sensitivity"], **asked, resume=True)  # type: ignore[arg-type]
    assert len(backend.calls) == 2 * (1 + 4 + 1) + 1


def test_a_model_that_was_crossed_is_not_decoded_again_for_its_own_group(run: Run) -> None:
    backend = translating()
    asked = {"groups": ["cat", "nso"], "settings": SCORING}
    prune(run, backend, [0.9], ["specificity"], **asked, cross=True)  # type: ignore[arg-type]
    assert len(backend.calls) == 2 + 4
    prune(run, backend, [0.9], ["random"], **asked, cross=True, resume=True)  # type: ignore[arg-type]
    assert len(backend.calls) == 2 + 4
    assert len(run.read_table("pruning-cross.csv")) == 2 * (2 + 4 * 2)


# the loss, other tasks


LOSS = replace(SCORING, metrics=("loss",), tokenizer="no tokenizer is needed")


@pytest.mark.parametrize("task", ["mt", "denoise"])
def test_the_loss_of_a_cell_is_that_of_what_the_order_of_the_task_leaves(run: Run, task: str) -> None:
    backend = translating()
    analyze(backend, run.path, AnalysisSettings(batches=4, tokens=64, task="denoise"), resume=True)
    run = Run.open(run.path)
    table = prune(run, backend, [0, 0.5], groups=["cat", "nso"], settings=replace(LOSS, task=task))
    assert backend.calls == []
    assert not (run.path / "hypotheses").exists()
    plan = pruning_plan(run, backend.module, Order("specificity", "cat", task=task), [0.5])
    with pruned(run, backend.module, plan, 0.5):
        sums = losses(backend.task(task), "cat", "test", Decoding())
    terms = sums.sum(0)[:-1].reshape(-1, 2)
    row = table[(table["group"] == "cat") & (table["ratio"] == 0.5)].iloc[0]
    assert row["value"] == pytest.approx((terms[:, 0] / terms[:, 1]).sum(), abs=1e-12)
    assert row["value_low"] < row["value"] < row["value_high"]
    assert row[["hypotheses", "sha256", "length_ratio", "brevity_penalty"]].isna().all()
    assert row["sentences"] == 24
    assert f"P|task:{task}|" in row["signature"]
    assert ("|noise:toy|seed:1|" in row["signature"]) == (task == "denoise")
    assert "beam" not in row["signature"]


def test_the_order_of_another_task_is_another_order(run: Run) -> None:
    backend = translating()
    analyze(backend, run.path, AnalysisSettings(batches=4, tokens=64, task="denoise"), resume=True)
    run = Run.open(run.path)
    for name in ("specificity", "sensitivity", "fisher", "wanda"):
        masks = []
        for task in ("mt", "denoise"):
            measure_missing(run, backend, [(name, "cat")], task)
            plan = pruning_plan(run, backend.module, Order(name, "cat", task=task), [0.5])
            with pruned(run, backend.module, plan, 0.5):
                masks.append(torch.cat([tensor.flatten() == 0 for tensor in backend.module.parameters()]))
        assert not torch.equal(*masks), name
        assert masks[0].sum() == masks[1].sum(), name


def test_a_task_that_was_not_measured_and_scores_that_it_does_not_have_are_refused(run: Run) -> None:
    with pytest.raises(OptionError, match=r"^--groups: cat is no group here"):
        prune(run, translating(), [0.5], groups=["cat"], settings=replace(LOSS, task="denoise"))
    backend = translating()
    analyze(backend, run.path, AnalysisSettings(batches=4, tokens=64, task="denoise"), resume=True)
    with pytest.raises(OptionError, match=r"^--metric: denoise has no translations to score; give --metric loss"):
        prune(
            Run.open(run.path),
            backend,
            [0.5],
            groups=["cat"],
            settings=replace(SCORING, task="denoise", metrics=("bleu",)),
        )


# the model


def test_the_model_is_bit_identical_after_a_sweep(run: Run) -> None:
    backend = translating()
    backend.module.train()
    before = bits(backend.module)
    prune(run, backend, [0, 0.9], ["specificity", "magnitude"], groups=["cat"], settings=SCORING)
    assert bits(backend.module) == before
    assert backend.module.training  # as it was


def test_the_model_is_bit_identical_after_a_sweep_that_broke_off(run: Run) -> None:
    def broken(call: int) -> None:
        if call == 2:
            raise RuntimeError("out of memory")

    backend = translating(broken)
    before = bits(backend.module)
    with pytest.raises(RuntimeError, match="out of memory"):
        prune(run, backend, **SMALL, settings=SCORING)
    assert bits(backend.module) == before


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


@pytest.mark.parametrize(
    "text", ["", "a", "0:1", "0:1:0", "0:1:-0.1", "1:0:0.1", "0:1:0.1:2", "0:1:1e-9", "0,,1", "nan:1:1"]
)
def test_ratios_that_are_none_are_one_line(text: str) -> None:
    with pytest.raises(OptionError, match=r"^--ratios") as caught:
        parse_ratios(text)
    assert "\n" not in str(caught.value)


def test_a_range_and_a_list_name_the_same_cells() -> None:
    # 3·0.1 is not 0.3: a second sweep with a list would otherwise decode it again
    assert set(parse_ratios("0:0.9:0.1")) == set(parse_ratios("0,.1,.2,.3,.4,.5,.6,.7,.8,.9"))
    assert np.diff(parse_ratios("0:0.9:0.1")).min() > 0.09
