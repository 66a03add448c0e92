"""Tidy tables: what is declared beside a maker is what it makes, and what is read again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sensikit.errors import RunError
from sensikit.report.inputs import SCORES, TABLES
from sensikit.run import MIXED, Run
from sensikit.statistics.correlation import CORRELATION, correlation_table, similarity_table
from sensikit.statistics.results import BY_TASK, OF_BOTH_TASKS, write_results
from sensikit.statistics.specificity import specificity_table
from sensikit.statistics.spread import balance_table
from sensikit.tables import P_VALUE, Schema, Table
from tests.support import handmade
from tests.support.batched import SHAPES, batches

POINTS = Schema(
    "points.csv", "Points", "audit",
    key=("group", "index"), numbers=("index", "value", "more"), text=("note",), empty=("more", "note"),
)  # fmt: skip
ROWS = [("cat", 7, 0.1, 1.0, "x"), ("007", 10**15, 1 / 3, np.nan, np.nan), ("nan", 2, 3e-310, 2.0, "a,b")]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = handmade.run_of_batches(tmp_path / "run", batches(1), shapes=SHAPES)
    return handmade.add_task(made, "denoise", batches(2))


def test_what_is_asked_of_a_run_is_of_its_first_task_where_none_is_named(run: Run) -> None:
    (run.path / "sensitivity" / "mt").rename(run.path / "sensitivity" / "lm")
    first = Run(run.path, json.loads(json.dumps(run.manifest).replace('"mt', '"lm').replace("/mt/", "/lm/")))
    assert first.tasks == ["lm", "denoise"]
    assert first.analysis() == first.analysis("lm")
    assert first.groups() == first.groups("lm") != []
    for table in (correlation_table, specificity_table, balance_table):
        assert set(table(first)["task"]) == {"lm"}
        pd.testing.assert_frame_equal(table(first), table(first, "lm"))


@pytest.mark.parametrize("schema", [*BY_TASK, *OF_BOTH_TASKS], ids=lambda schema: schema.name)
def test_what_is_made_is_what_is_declared_and_what_is_read_again(run: Run, schema: Schema) -> None:
    table = BY_TASK[schema](run, "mt") if schema in BY_TASK else OF_BOTH_TASKS[schema](run)
    assert list(table) == schema.columns
    assert len(table)
    run.write_table(schema, table)
    again = run.read_table(schema)
    pd.testing.assert_frame_equal(
        again.replace({np.nan: None}), table.replace({np.nan: None, "": None}), check_dtype=False
    )
    assert all(pd.api.types.is_numeric_dtype(again[name]) == (name in schema.numbers) for name in again)


def test_each_table_is_declared_once_and_its_key_and_its_groups_are_among_its_columns() -> None:
    assert len(TABLES) == len(BY_TASK) + len(OF_BOTH_TASKS) + 5
    for schema in (*TABLES.values(), *SCORES.values()):
        assert {*schema.key, *schema.empty, *schema.groups} <= set(schema.columns), schema.name
        assert schema.columns[: len(schema.key)] == list(schema.key)


def test_the_columns_that_readers_of_the_files_rely_on() -> None:
    shown = (
        "task subset group_a group_b corrected corrected_low corrected_high pcc pcc_low pcc_high ceiling reliability_a "
        "reliability_b spearman log_pcc positive half_variance_a parameters"
    )
    assert CORRELATION.columns == shown.split()
    shown = (
        "order seed group ratio metric value value_low value_high pruned prunable sentences truncated "
        "length_ratio brevity_penalty metric_signature signature hypotheses sha256"
    )
    assert TABLES["pruning.csv"].columns == shown.split()
    assert TABLES["pruning-cross.csv"].columns == shown.replace("group", "group evaluated", 1).split()
    shown = "system direction group tier metric value value_low value_high length_ratio brevity_penalty sentences "
    shown += "seeds metric_signature"
    assert SCORES["evaluation.csv"].columns == shown.split()


def test_a_group_alone_makes_no_table_of_pairs(tmp_path: Path) -> None:
    run = handmade.run(tmp_path / "run", {"cat": [3, 1, 2, 4]})
    run.write_set("mt", MIXED, {"": handmade.shaped(run.parameters, [1, 2, 3, 4])}, {})
    write_results(run)
    assert not (run.path / "overlap.csv").exists()
    assert not (run.path / "similarity.csv").exists()
    assert set(run.read_table(TABLES["balance.csv"])["group"]) == {"cat", MIXED}


def test_tables_that_share_a_measurement_are_as_each_alone(run: Run) -> None:
    run.write_set("mt", MIXED, {"": handmade.shaped(run.parameters, handmade.flat(run, "nob"))}, {})
    write_results(run)
    for schema, make in BY_TASK.items():
        assert (run.path / schema.name).read_text() == make(run, "mt")[schema.columns].to_csv(index=False)


def test_no_task_in_common_is_an_empty_table(tmp_path: Path) -> None:
    table = similarity_table(handmade.run(tmp_path / "run", {"cat": [3, 1], "nob": [1, 1]}))
    assert table.empty
    assert list(table)[:4] == ["task_a", "task_b", "subset", "group"]


# reading


def read(run: Run, text: str | None = None) -> pd.DataFrame:
    run.write_table(POINTS, POINTS.frame(ROWS))
    if text is not None:
        (run.path / "points.csv").write_text(text)
    return POINTS.read(run.path / "points.csv", ["cat", "007", "nan"])


def test_values_are_read_as_they_were_written(run: Run) -> None:
    found = read(run)
    pd.testing.assert_frame_equal(found, POINTS.frame(ROWS), check_dtype=False)
    # whole numbers stay whole and codes stay text, so that what was read can be written again
    assert found.to_csv(index=False) == (run.path / "points.csv").read_text()


def test_rows_may_be_tuples_mappings_or_a_frame_with_more_columns() -> None:
    frame = POINTS.frame(ROWS)
    assert POINTS.frame(frame.to_dict("records")).equals(frame)
    assert POINTS.frame(frame[frame.columns[::-1]].assign(other=1)).equals(frame)


def test_a_table_that_lacks_a_declared_column_is_not_written(run: Run) -> None:
    with pytest.raises(KeyError, match="more"):
        run.write_table(POINTS, POINTS.frame(ROWS).drop(columns="more"))
    assert not (run.path / "points.csv").exists()


HEAD = "group,index,value,more,note\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [("group,index,value,more\ncat,1,2,3\n", "points.csv: lacks the column note"),
     (HEAD, "points.csv: has no rows"),
     (f"{HEAD}cat,1,2,3,x\ncat,2,,3,x\n", "points.csv:3: has nothing for value"),
     (f"{HEAD}cat,1,2,3,x\ncat,2,inf,3,x\n", "points.csv:3: has inf for value"),
     (f"{HEAD}cat,1,2,3,x\ncat,2,2,many,x\n", "points.csv:3: has many for more"),
     (f"{HEAD},1,2,3,x\n", "points.csv:2: has nothing for group"),
     (f"{HEAD}zul,1,2,3,x\n", "points.csv: names zul, which is no group of the manifest"),
     (f"{HEAD}cat,1,2,3,x\ncat,1,4,5,y\n", "points.csv:3: repeats an earlier line"),
     ("", "points.csv: is not a table")],
)  # fmt: skip
def test_what_a_table_must_not_hold_is_refused_with_the_line_and_the_command(run: Run, text: str, said: str) -> None:
    with pytest.raises(RunError) as caught:
        read(run, text)
    remedy = "it is damaged; remove it and make it again with sensikit audit"
    assert str(caught.value) == f"{run.path}/{said}; {remedy}"


def test_a_problem_that_a_table_knows_of_itself_is_refused(run: Run) -> None:
    run.write_table("pruning.csv", TABLES["pruning.csv"].frame([("random", 1, "cat", 0.5, "bleu", 1, 1, 1, *[1] * 10)]))
    with pytest.raises(RunError, match=r"pruning.csv: lacks the unpruned bleu of cat; .* sensikit prune --resume$"):
        run.read_table(TABLES["pruning.csv"])


def test_a_table_that_is_not_there_says_what_makes_it(run: Run) -> None:
    with pytest.raises(RunError, match=r"similarity.csv: does not exist; make it with sensikit analyze --task denoise"):
        run.read_table(TABLES["similarity.csv"])


def test_control_signs_in_text_are_not_passed_on(run: Run) -> None:
    assert read(run, f"{HEAD}cat,1,2,3,a\tb\x07\n")["note"].tolist() == ["a b\N{REPLACEMENT CHARACTER}"]


def test_a_p_that_its_digits_would_call_zero_is_said_to_be_smaller(tmp_path: Path) -> None:
    table = Table(pd.DataFrame({"p": [0.04996, 0.00005, 0.0000499, 1e-300, None]}), {"p": P_VALUE})
    assert table.shown()["p"].tolist() == ["0.0500", "0.0001", "<0.0001", "<0.0001", "–"]
    _, _, latex = table.save(tmp_path / "table", ["1 < 2"])
    # a bare < is printed as ¡ by the default fonts
    assert [line for line in latex.read_text().splitlines() if "0.0001" in line][1] == r"\textless{}0.0001 \\"
