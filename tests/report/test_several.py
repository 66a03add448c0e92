from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sensikit.figures.words import joined
from sensikit.files import read_json, write_text
from sensikit.pruning.ledger import record
from sensikit.pruning.sweep import cell_signature
from sensikit.report import inputs
from sensikit.report import text as summary
from sensikit.report.missing import missing
from sensikit.report.page import report
from sensikit.report.sections import quality
from tests.support import synthetic_run, synthetic_tables
from tests.support.command import call
from tests.support.page import FEW, Page
from tests.support.stored import empty, sealed
from tests.support.watched import QUICK, SCORING, Watched, signature_of

# what is missing

MORE = ["matched", "matched-reverse", "matched-random", "fisher", "wanda"]
"""Orders that no synthetic run was pruned in."""


def absent(*paths: Path, compare: bool = False) -> dict[str, str]:
    """What a report of `paths` lacks, each with its command."""
    return {each.what: each.command for each in missing(inputs.gather(paths, compare=compare))}


@pytest.mark.usefixtures("undrawn")
def test_what_a_run_lacks_is_listed_with_its_command(tmp_path: Path) -> None:
    bare = synthetic_run.write_run(tmp_path / "bare", FEW, only=["overlap"])
    text = Page(report([bare])).text
    analyze = f"sensikit analyze synthetic/checkpoint_best.pt --data synthetic/data --out {bare} --resume"
    assert absent(bare) == {
        "Similarity of the two tasks and a sentence under concurrent denoising "
        "(of a model that was trained to denoise)":
            f"{analyze} --task denoise",
        "Correlation between groups, Language specificity, Sensitivity and specificity by component, Correlation "
        "within components, Balance of sensitivity, Distribution of sensitivity and Convergence with the number of "
        "batches": analyze,
        "Audit of the Taylor estimate and its agreement with exact ablation": f"sensikit audit {bare}",
        "Pruning curves": f"sensikit prune {bare}",
        "What pruning for one group does to the others": f"sensikit prune {bare} --cross --ratios 0.3,0.6 --resume",
        "Translation quality on whole test sets, with intervals and paired tests":
            "sensikit evaluate synthetic/checkpoint_best.pt --data synthetic/data --out EVALUATION",
    }  # fmt: skip
    for what, command in absent(bare).items():
        assert f"{what}: {command}" in text
    assert not (bare / "figures" / "pruning.svg").exists()


def test_a_command_is_listed_with_the_options_of_the_analysis_and_where_the_run_is_now(tmp_path: Path) -> None:
    command = "sensikit analyze a.pt --data 'my data' --out=elsewhere --batches 60 --direction xxx-eng --resume"
    run = synthetic_run.write_run(tmp_path / "my run", FEW, only=["correlation"], command=command)
    wanted = f"sensikit analyze a.pt --data 'my data' --batches 60 --direction xxx-eng --out '{run}' --resume"
    assert wanted in absent(run).values()
    assert f"sensikit prune '{run}'" in absent(run).values()
    assert any(of.startswith("sensikit evaluate") and of.endswith("--direction xxx-eng") for of in absent(run).values())


def test_a_sweep_goes_on_with_the_options_that_it_was_begun_with(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=["pruning"])
    begun = "sensikit prune elsewhere --tokenizer 13a --order specificity,random --ratios=0,0.5 --beam 2 --resume"
    (run / "pruning").mkdir()
    record(run / "pruning", "sensikit demo")
    record(run / "pruning", begun)
    found, again = absent(run), f"sensikit prune {run} --tokenizer 13a --beam 2"
    more = f"{again} --order {','.join(MORE)} --ratios 0,0.1,0.3,0.5,0.7,0.9 --resume"
    assert found[f"Pruning curves in the orders {joined(MORE)}"] == more
    crossed = found["What pruning for one group does to the others"]
    assert crossed == f"{again} --cross --ratios 0.3,0.6 --resume"
    (subject,) = inputs.gather([run]).subjects
    assert subject.prunings == ("sensikit demo", begun)


def test_a_command_that_no_shell_would_read_is_not_repeated(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=["pruning"], command="sensikit analyze 'a --out x")
    analyze = f"sensikit analyze synthetic/checkpoint_best.pt --data synthetic/data --out {run} --resume"
    assert analyze in absent(run).values()


def test_a_model_that_denoises_in_another_way_lacks_no_sentence(tmp_path: Path) -> None:
    # of DAE or MASS, analyze has no common positions to show, however often it is called
    of_mt = synthetic_run.manifest(FEW)["analyses"]["mt"]
    tables = [name for name in synthetic_run.EVERY if name != "layout"]
    for tasks, lacks in ((["mt"], True), (["mt", "denoise"], False)):
        run = synthetic_run.write_run(tmp_path / tasks[-1], FEW, only=tables, analyses=dict.fromkeys(tasks, of_mt))
        assert any("concurrent denoising" in what for what in absent(run)) == lacks


def test_a_single_language_has_no_pairs_to_be_missing(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", {"cat": FEW["cat"]}, only=["balance"])
    assert not any("Correlation" in what or "Overlap" in what for what in absent(run))


def test_nothing_is_missing_from_a_run_that_has_everything_but_what_other_directories_hold(reported: Path) -> None:
    assert list(absent(reported)) == [
        f"Pruning curves in the orders {joined(MORE)}",
        "Translation quality on whole test sets, with intervals and paired tests",
    ]


def test_orders_languages_and_points_that_were_not_decoded_are_listed(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=synthetic_run.EVERY)
    frame = pd.read_csv(run / "pruning.csv")
    frame = frame[~frame["order"].isin(["reverse", "random"]) & (frame["group"] != "nob")]
    frame = frame[~((frame["group"] == "cat") & (frame["ratio"] == 0.9) & (frame["order"] == "specificity"))]
    write_text(run / "pruning.csv", frame.to_csv(index=False))
    sealed(run)
    (run / "pruning").mkdir(exist_ok=True)
    record(run / "pruning", f"sensikit prune {run} --languages cat,fao --beam 2")  # where nob would never come
    found, ratios = absent(run), "--ratios 0,0.1,0.3,0.5,0.7,0.9 --resume"
    resume = f"--order specificity,sensitivity,magnitude {ratios}"
    absent_orders = [*MORE[:3], "reverse", *MORE[3:], "random"]
    others = f"sensikit prune {run} --languages cat,fao --beam 2 --order {','.join(absent_orders)} {ratios}"
    assert found[f"Pruning curves in the orders {joined(absent_orders)}"] == others
    assert found["Pruning curves for nob"] == f"sensikit prune {run} --beam 2 {resume}"
    point = found["1 point of the pruning curves, left out because not every language was scored there"]
    assert point == f"sensikit prune {run} --languages cat,fao --beam 2 {resume}"


# several runs


def test_runs_of_the_same_name_are_told_apart_by_their_parents(tmp_path: Path) -> None:
    runs = [synthetic_run.write_run(tmp_path / name / "run", FEW, only=["correlation"]) for name in ("a", "b")]
    assert [subject.label for subject in inputs.gather(runs).subjects] == ["a/run", "b/run"]
    named = inputs.gather(runs, ["one", "two"])
    assert named.tables["correlation.csv"]["run"].unique().tolist() == ["one", "two"]


def test_the_headline_table_holds_both_runs(reported_pair: Path) -> None:
    text = Page(reported_pair / "report.html").text
    for label in ("regular", "distilled"):
        frame = pd.read_csv(reported_pair.parent / label / "correlation.csv").query(
            "subset == 'low' and group_a != group_b"
        )
        assert re.search(
            rf"{label} ?0\.\d+ ?0\.\d+ ?{frame['corrected'].mean():.3f}", text.replace("BLEU, 90% pruned", "")
        ), label


@pytest.mark.usefixtures("undrawn")
def test_one_run_may_lack_what_the_other_has(tmp_path: Path) -> None:
    first = synthetic_run.write_run(tmp_path / "a", FEW, only=["overlap", "pruning"])
    second = synthetic_run.write_run(tmp_path / "b", FEW, only=["overlap"])
    text = Page(report([first, second], tmp_path / "out")).text
    assert f"Pruning curves of b: sensikit prune {second}" in text
    assert pd.read_csv(tmp_path / "out" / "figures" / "pruning.csv")["run"].unique().tolist() == ["a"]


def test_runs_that_were_not_measured_alike_are_compared_under_a_warning(reported_pair: Path, reported: Path) -> None:
    text = Page(reported_pair / "report.html").text
    assert "These runs were not measured alike" in text
    assert "regular and distilled differ in tokens: 4096 and 3000." in text
    assert "not measured alike" not in Page(reported / "report.html").text


SIGNATURE = synthetic_run.SIGNATURE.format(tokens=4096)
PROVENANCE = {"checkpoint_sha256": "5e1fca5e", "data_sha256": "0ddba115"}


@pytest.mark.parametrize(
    ("was", "now", "differs"),
    [("loss:nll/token", "loss:train/sum", True), ("rest:mixed/T1", "rest:pooled", True),
     ("mode:eval", "mode:train", True), ("dir:xxx-eng", "dir:eng-xxx", True),
     ("data:0ddba115", "data:00000000", True), ("groups:15", "groups:cat+fao", True),
     ("tokens:4096", "tokens:100", True),
     ("seed:1", "seed:2", False), ("batches:500", "batches:50", False), ("ckpt:5e1fca5e", "ckpt:0", False)],
)  # fmt: skip
def test_only_differences_that_move_what_is_measured_are_told(
    tmp_path: Path, was: str, now: str, differs: bool
) -> None:
    assert was in SIGNATURE
    first = synthetic_run.write_run(tmp_path / "a", FEW, only=["correlation"])
    second = synthetic_run.write_run(tmp_path / "b", FEW, only=["correlation"], signature=SIGNATURE.replace(was, now))
    found = summary.differences(inputs.gather([first, second]))
    name, old, new = was.split(":")[0], was.split(":")[1], now.split(":")[1]
    assert found == ([f"a and b differ in {name}: {old} and {new}."] if differs else [])


def test_what_is_compared_are_fields_that_signatures_have() -> None:
    # under the name of a field that no signature has, nothing would ever differ
    fields = {
        "S": signature_of(Watched(), QUICK),
        "P": cell_signature(
            empty(Path("run"), {"direction": "xxx-eng", "provenance": PROVENANCE}),
            SCORING,
            "eng",
            "text",
        ),
    }
    of_noise = {"noise", "mono", "engine"}  # of denoising alone, and of another engine
    for head, text in fields.items():
        assert set(summary.MATTERS[head]) - of_noise <= {part.partition(":")[0] for part in text.split("|")}


def test_another_bleu_another_beam_and_other_languages_are_told(tmp_path: Path) -> None:
    first = synthetic_run.write_run(tmp_path / "a", FEW)
    second = synthetic_run.write_run(tmp_path / "b", {code: FEW[code] for code in ("cat", "fao", "fur")})
    text = (second / "pruning.csv").read_text().replace("tok:13a", "tok:flores101").replace("beam:5", "beam:1")
    write_text(second / "pruning.csv", text)
    sealed(second)
    assert summary.differences(inputs.gather([first, second])) == [
        "a and b differ in beam: 5 and 1.",
        "BLEU of a and b is not the same score: nrefs:1|tok:13a|v:2.6.0 and nrefs:1|tok:flores101|v:2.6.0.",
        "a and b are of different languages: nob in one alone.",
    ]


# comparisons


def test_runs_whose_sensitivities_are_gone_are_shown_without_their_difference(tmp_path: Path) -> None:
    runs = [synthetic_run.write_run(tmp_path / name, FEW, only=["overlap"]) for name in ("a", "b")]
    (compared,) = inputs.gather(runs, compare=True).comparisons
    assert compared.table is None
    found = absent(*runs, compare=True)
    (what,) = (each for each in found if each.startswith("The difference between a and b"))
    assert str(runs[0] / "sensitivity") in what
    alike = f"sensikit analyze synthetic/checkpoint_best.pt --data synthetic/data --out {runs[1]}-alike"
    assert found[what] == f"{alike} --tokens 4096 --batches 500"


def test_runs_of_another_t_are_not_compared_and_the_command_is_told_that_would_make_them_alike(tmp_path: Path) -> None:
    runs = [synthetic_run.write_run(tmp_path / name, FEW, only=["overlap"], tokens=tokens)
            for name, tokens in (("a", 4096), ("b", 3000))]  # fmt: skip
    (what, command) = next(each for each in absent(*runs, compare=True).items() if "difference" in each[0])
    assert "T is 3000 here and 4096 there" in what
    assert command.endswith("--tokens 4096 --batches 500")


def test_a_run_that_does_not_say_what_its_batches_were_is_not_compared(tmp_path: Path) -> None:
    runs = [synthetic_run.write_run(tmp_path / name, FEW, only=["overlap"]) for name in ("a", "b")]
    manifest = read_json(runs[1] / "manifest.json")
    del manifest["sets"]["mt/fao"]["drawn"]
    sealed(runs[1], manifest)
    (compared,) = inputs.gather(runs, compare=True).comparisons
    assert "does not say of which batches mt/fao is" in compared.problem


def test_curves_without_the_scores_of_their_resamples_are_shown_without_tests(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=["pruning"])
    found = inputs.gather([run], compare=True)
    assert found.curves.bands is None
    assert [subject.label for subject in found.curves.lacking] == ["run"]
    what = "Intervals and paired tests of the pruning curves of run"
    assert absent(run, compare=True)[what] == (
        f"sensikit prune {run} --order specificity,reverse,sensitivity,magnitude,random "
        "--ratios 0,0.1,0.3,0.5,0.7,0.9 --resume"
    )


def compared(difference: float, half: float) -> inputs.Inputs:
    """Two runs with the mean difference of their low subset, and its interval."""
    run = inputs.Subject("a", "a", None, {})  # type: ignore[arg-type]
    row = {"task": "mt", "subset": "low", "group_a": np.nan, "group_b": np.nan, "difference": difference,
           "difference_low": difference - half, "difference_high": difference + half}  # fmt: skip
    found = inputs.Comparison(run, replace(run, label="b"), "mt", pd.DataFrame([row]))
    return inputs.Inputs([], {}, {}, comparisons=[found])


def test_a_change_that_noise_may_have_made_is_said_to_be_none_that_can_be_told() -> None:
    what = "Mean PCC corrected for noise, low-sensitive parameters, translation: b minus a is"
    assert summary.changes(compared(-0.05, 0.01)) == [f"{what} −0.050 (−0.060 to −0.040)."]
    unsure = f"{what} −0.050 (−0.110 to +0.010), which cannot be told from no change."
    assert summary.changes(compared(-0.05, 0.06)) == [unsure]
    assert summary.changes(compared(-0.05, np.nan)) == [f"{what} −0.050."]


# evaluations


def test_an_evaluation_has_its_tables_and_what_each_system_gains(reported_pair: Path) -> None:
    stems = {"bleu-tiers", "bleu-differences", "bleu-groups", "chrf-tiers", "chrf-differences", "chrf-groups",
             "systems"}  # fmt: skip
    tables = {path.stem for path in (reported_pair / "tables").iterdir()}
    assert {f"{stem}-xxx-eng" for stem in stems} <= tables
    assert not {"quality", "quality-by-group"} & tables
    assert (reported_pair / "figures" / "gains-xxx-eng.svg").exists()
    shown = (reported_pair / "tables" / "bleu-tiers-xxx-eng.txt").read_text().splitlines()
    assert shown[0].split() == ["System", "High", "Low", "Very", "Low", "All"]
    assert shown[2].split()[0] == "cd+id"
    assert shown[2].count("*") == 3  # not in the tier whose p is 0.2
    text = Page(reported_pair / "report.html").text
    assert "BLEU xxx→eng, mean over all languages: cd+id minus regular is +1.00 (+0.30 to +1.70)." in text
    assert "E|dir:xxx-eng|beam:5" in (reported_pair / "figures" / "gains-xxx-eng.svg").read_text()
    assert "sensikit evaluate a.pt b.pt" in (reported_pair / "tables" / "systems-xxx-eng.tex").read_text()
    # what the runs were made by is not what the evaluation was made by
    assert "sensikit analyze" not in (reported_pair / "tables" / "systems-xxx-eng.tex").read_text()


@pytest.mark.usefixtures("undrawn")
def test_an_evaluation_alone_is_reported_into_itself(tmp_path: Path) -> None:
    path = synthetic_tables.write_evaluation(tmp_path / "scores", FEW, notes=["cd+id, fao: 2 sources longer"])
    done = call("report", path)
    assert done.code == 0, done.error
    text = Page(path / "report.html").text
    assert text.startswith("scores – sensikit report")
    assert "scores: cd+id, fao: 2 sources longer." in text
    assert "sensikit evaluate" not in " ".join(absent(path))  # it is there
    train = "sensikit train synthetic/data --method cd+id --out cd+id-50 -- --mask-ratio 0.5"
    assert absent(path) == {"Quality against the masking ratio of cd+id: systems that mask more": train}


def test_a_report_is_called_after_its_runs_or_else_its_evaluations(tmp_path: Path) -> None:
    scores = synthetic_tables.write_evaluation(tmp_path / "scores", FEW)
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=["pruning"])
    assert inputs.gather([scores]).labels == ["scores"]
    assert inputs.gather([run, scores]).labels == ["run"]


def test_both_directions_and_two_evaluations_of_one_are_told_apart(tmp_path: Path) -> None:
    paths = [synthetic_tables.write_evaluation(tmp_path / name, FEW, direction=direction)
             for name, direction in (("a", "xxx-eng"), ("b", "eng-xxx"), ("c", "eng-xxx"))]  # fmt: skip
    found = list(quality(inputs.gather(paths)))
    stems = [entry.stem for entry in found if entry.stem.startswith("bleu-tiers")]
    assert stems == ["bleu-tiers-xxx-eng", "bleu-tiers-eng-xxx-2", "bleu-tiers-eng-xxx-3"]
    titles = [entry.title for entry in found if entry.stem.startswith("bleu-tiers")]
    assert titles[0].endswith(", xxx→eng")
    assert titles[1].endswith(", eng→xxx, b")


def test_systems_that_differ_in_their_masking_ratio_have_a_figure(tmp_path: Path) -> None:
    systems = synthetic_tables.evaluation_manifest(FEW)["systems"]
    systems["regular"] = {**systems["cd+id"], "checkpoint": "b.pt", "mask_ratio": 0.5}
    path = synthetic_tables.write_evaluation(tmp_path / "scores", FEW, systems=systems)
    found = {entry.stem: entry for entry in quality(inputs.gather([path]))}
    data = found["masking-cd+id-xxx-eng"].content.data
    assert data.loc[data["tier"] == "All", "mask_ratio"].tolist() == [0.3, 0.5]
    assert absent(path) == {}
