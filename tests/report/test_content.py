from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sensikit.evaluation.tables import DECODED
from sensikit.figures import correlation
from sensikit.figures import curves as curve_points
from sensikit.figures.conclusions import bounded_mean
from sensikit.figures.style import Drawn
from sensikit.files import read_json, write_text
from sensikit.report import inputs, sections, tables
from sensikit.report import text as summary
from sensikit.report.costs import costs
from sensikit.report.page import report
from sensikit.run import file_of
from sensikit.settings import ReportSettings
from tests.support import synthetic_run, synthetic_tables
from tests.support.page import FEW, Page
from tests.support.stored import sealed

FIGURES = {
    "correlation-mt", "correlation-mt-observed", "dendrogram-mt", "similarity", "specificity-mt", "components-mt",
    "components-by-group-mt", "components-correlation-mt", "overlap-mt", "pruning", "pruning-change",
    "pruning-by-group", "pruning-cross-specificity", "distribution-mt", "balance-mt", "convergence-mt", "audit-mt",
    "groups", "layout",
}  # fmt: skip
TABLES = {"quality", "quality-by-group", "correlation", "specificity", "pruning", "brevity", "balance", "groups"}


def test_one_run_is_reported_into_itself_and_loses_nothing(reported: Path) -> None:
    drawn = {f"{stem}.{kind}" for stem in FIGURES for kind in ("svg", "csv")}
    assert {path.name for path in (reported / "figures").iterdir()} == drawn
    written = {f"{stem}.{kind}" for stem in TABLES for kind in ("csv", "txt", "tex")}
    assert {path.name for path in (reported / "tables").iterdir()} == written
    own = {f"{name}.csv" for name in synthetic_run.EVERY}
    assert {path.name for path in reported.iterdir()} == {
        *own, "manifest.json", "report.html", "figures", "tables",
    }  # fmt: skip


def test_the_headline_numbers_are_those_of_the_tables(reported: Path) -> None:
    text = Page(reported / "report.html").text
    frame = pd.read_csv(reported / "correlation.csv")
    for subset, words in (("high", "10% high-sensitive"), ("low", "90% low-sensitive")):
        at = frame[(frame["subset"] == subset) & (frame["group_a"] != frame["group_b"])]
        bounds = bounded_mean(at)
        assert bounds.startswith(f"{at['corrected'].mean():.3f} ({at['corrected_low'].mean():.3f} to ")
        assert f"{words} parameters: {bounds} over 6 pairs, corrected for noise" in text
        assert f"({at['pcc'].mean():.3f} of these batches, whose noise ceiling is {at['ceiling'].mean():.3f})" in text
    assert "which decides a PCC, is that of 100 of 100,000 (10% high-sensitive parameters) and 1,000 of" in text
    assert "hangs on the measure" not in text
    pruning = pd.read_csv(reported / "pruning.csv")
    pruning = pruning[pruning["metric"] == "bleu"]
    start = pruning.loc[pruning["order"] == "none", "value"].mean()
    at = pruning[pruning["order"] == "specificity"].groupby("ratio")["value"].mean()
    assert f"Unpruned, BLEU is {start:.2f}, the mean over 4 languages; with the least specific of the prunable" in text
    assert re.search(rf"it is {at[0.3]:.2f} \([^)]*\) at 30% and {at[0.5]:.2f} \([^)]*\) at 50% \(nearest to 60%", text)
    # the main results lead, what was measured follows
    order = ["How alike are the languages", "What does pruning cost", "What was measured", "Not in this report"]
    assert sorted(map(text.index, order)) == [text.index(each) for each in order]
    assert "1,000,000 parameters, 900,000 of them prunable, translating xxx→eng in 4 languages" in text
    assert "500 batches a language, of 4,084 target tokens" in text


def test_text_without_a_training_set_has_its_sizes_and_no_figure_of_them() -> None:
    known = {code: {**language, "sizes": {"dev": 997, "devtest": 1012}} for code, language in FEW.items()}
    (entry,) = sections.data(inputs.Inputs([], known, {}))
    assert isinstance(entry.content, tables.Table)
    assert [*entry.content.frame.columns[-2:]] == ["Dev", "Devtest"]


def test_beside_each_figure_stands_what_it_shows(reported: Path) -> None:
    shown = pd.read_csv(reported / "figures" / "pruning.csv")
    pd.testing.assert_frame_equal(
        shown[["order", "ratio", "value"]],
        curve_points.curve(pd.read_csv(reported / "pruning.csv"))[["order", "ratio", "value"]],
    )
    pcc = pd.read_csv(reported / "figures" / "correlation-mt.csv")
    assert len(pcc) == 3 * 4 * 4
    assert pcc["at_ceiling"].isna().sum() == 3 * 4  # a language with itself


def test_signature_and_command_stand_with_every_figure_and_table(reported: Path) -> None:
    analysis = read_json(reported / "manifest.json")["analyses"]["mt"]
    prune = f"sensikit prune '{reported}'"
    for stem in ("correlation", "specificity", "balance"):
        for path in (
            reported / "tables" / f"{stem}.tex",
            reported / "tables" / f"{stem}.txt",
            reported / "figures" / f"{stem}-mt.svg",
        ):
            assert analysis["signature"] in path.read_text(), path
            assert analysis["command"] in path.read_text(), path
    for name in (
        "tables/pruning.txt",
        "tables/quality.tex",
        "figures/pruning.svg",
        "figures/pruning-cross-specificity.svg",
    ):
        text = (reported / name).read_text()
        assert all(sign in text for sign in ("P|protect:0.1", "BLEU|nrefs:1", "chrF++|nrefs:1", prune)), name
    text = Page(reported / "report.html").text
    # all but those of the sweep, of the audit and of the data, and the provenance
    assert text.count(analysis["signature"]) == len(FIGURES) + len(TABLES) - 11 + 1
    for stem in ("components-mt", "convergence-mt", "distribution-mt", "overlap-mt", "dendrogram-mt", "similarity"):
        assert analysis["signature"] in (reported / "figures" / f"{stem}.svg").read_text()
    audit = (reported / "figures" / "audit-mt.svg").read_text()
    assert "A|task:mt|params:60" in audit
    assert synthetic_tables.AUDITED in audit
    assert analysis["signature"] not in audit


def test_the_numbers_in_the_page_are_those_on_disk(reported: Path) -> None:
    page = Page(reported / "report.html")
    found = [attributes for tag, attributes in page.tags if tag == "a" and "download" in attributes]
    assert len(found) == len(FIGURES) + len(TABLES)
    for attributes in found:
        inside = base64.b64decode(attributes["href"].removeprefix("data:text/csv;base64,"))
        places = [reported / folder / attributes["download"] for folder in ("figures", "tables")]
        assert inside in [place.read_bytes() for place in places if place.exists()]


def test_it_is_said_when_the_contrast_of_the_subsets_hangs_on_the_measure() -> None:
    frame = synthetic_run.correlation(FEW)
    frame.loc[frame["subset"] == "high", "spearman"] = 0.25
    frame.loc[frame["subset"] == "low", "spearman"] = 0.75
    (told,) = (sentence for sentence in summary._correlation(frame) if "hangs" in sentence)
    assert "more alike in the high subset than in the low one" in told
    assert "by Spearman correlation (0.250 against 0.750) it is the other way about" in told


@pytest.mark.usefixtures("undrawn")
def test_another_measure_of_the_heat_maps_stands_beside_the_pcc_of_these_batches(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=["correlation"])
    for value, stems in (("spearman", {"correlation-mt", "correlation-mt-observed"}), ("pcc", {"correlation-mt"})):
        report([run], tmp_path / value, settings=ReportSettings(correlation=value))
        drawn = {path.stem for path in (tmp_path / value / "figures").glob("correlation*.svg")}
        assert drawn == stems
        assert correlation.MEANINGS[value] in Page(tmp_path / value / "report.html").text


# traps


def test_audits_of_two_tasks_are_told_one_by_one() -> None:
    frame = synthetic_tables.audit_summary(FEW)
    both = pd.concat([frame, frame.assign(task="denoise", sampled=40)], ignore_index=True)
    told = [sentence.split(": ")[0] for sentence in summary._audit(both)]
    start = "Taylor estimate against exact ablation of"
    assert told == [f"{start} 60 parameters a language, translation", f"{start} 40 parameters a language, denoising"]


def test_an_audit_whose_command_was_not_noted_shows_the_one_that_repeats_it(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=["audit", "audit-summary"])
    frame = pd.read_csv(run / "audit-summary.csv")
    write_text(run / "audit-summary.csv", frame.assign(command="").to_csv(index=False))
    sealed(run)
    report([run])
    assert f"sensikit audit {run}" in (run / "figures" / "audit-mt.svg").read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_which_nothing_was_pruned_yet_shows_its_quality_and_no_curve(tmp_path: Path) -> None:
    first = synthetic_run.write_run(tmp_path / "a", FEW, only=["pruning"])
    frame = pd.read_csv(first / "pruning.csv").query("order == 'none'")
    write_text(first / "pruning.csv", frame.to_csv(index=False))
    sealed(first)
    report([first])
    assert {path.stem for path in (first / "figures").iterdir()} == {"groups"}
    assert {path.stem for path in (first / "tables").iterdir()} == {"quality", "quality-by-group", "groups"}
    second = synthetic_run.write_run(tmp_path / "b", FEW, only=["pruning"])
    headline = tables.headline(inputs.gather([first, second]).tables).shown()
    assert headline.iloc[0].tolist() == ["a", "16.60", "–"]
    assert headline.iloc[1].tolist()[:2] == ["b", "16.60"]
    points = curve_points.curve(inputs.gather([first, second]).tables["pruning.csv"])
    assert points["run"].unique().tolist() == ["b"]
    assert points["value"].dtype == float


@pytest.mark.usefixtures("undrawn")
def test_the_language_nan_is_a_language(tmp_path: Path) -> None:
    # ISO 639-3 calls Min Nan Chinese nan, which pandas reads as a missing value
    languages = {"nan": {**FEW["fao"], "name": "Min Nan", "family": "Sinitic"}, "cat": FEW["cat"], "fur": FEW["fur"]}
    run = synthetic_run.write_run(tmp_path / "run", languages, only=["pruning"])
    report([run])
    assert set(pd.read_csv(run / "tables" / "quality-by-group.csv", keep_default_na=False)["Language"]) == set(
        languages
    )


@pytest.mark.usefixtures("undrawn")
def test_sets_that_were_pooled_and_have_no_batches_do_not_count(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=["correlation"])
    manifest = read_json(run / "manifest.json")
    manifest["sets"] = {name: entry for name, entry in manifest["sets"].items() if not name.startswith("mt/rest.")}
    manifest["sets"] |= {
        f"mt/{code}.rest": {
            "pooled": ["x"],
            "tokens_mean": 1.0,
            "sigma": 1e-8,
            "files": {file_of("mt", f"{code}.rest"): ""},
        }
        for code in FEW
    }
    del manifest["sets"]["mt/cat"]["batches"], manifest["sets"]["mt/cat"]["block_batches"]
    sealed(run, manifest)
    assert "over 500 batches a language, of 4,084 target tokens" in Page(report([run])).text


def test_a_run_of_both_tasks_has_a_figure_for_each_with_the_signature_of_its_task(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=["overlap"])
    manifest = read_json(run / "manifest.json")
    first = manifest["analyses"]["mt"]["signature"]
    other = first.replace("task:mt", "task:denoise")
    manifest["analyses"]["denoise"] = {**manifest["analyses"]["mt"], "signature": other}
    frame = pd.read_csv(run / "overlap.csv")
    both = pd.concat([frame, frame.assign(task="denoise", jaccard=0.5)])
    write_text(run / "overlap.csv", both.to_csv(index=False))
    sealed(run, manifest)
    text = Page(report([run])).text
    assert pd.read_csv(run / "figures" / "overlap-denoise.csv")["jaccard"].unique().tolist() == [0.5]
    drawn = {task: (run / "figures" / f"overlap-{task}.svg").read_text() for task in ("mt", "denoise")}
    assert other in drawn["denoise"]
    assert first not in drawn["denoise"]
    assert other not in drawn["mt"]
    assert "Overlap of the most specific parameters, denoising" in text


def test_a_table_of_both_tasks_has_a_column_for_the_task() -> None:
    frame = synthetic_run.correlation(FEW)
    both = pd.concat([frame, frame.assign(task="denoise")])
    assert tables.correlation(both).frame["Task"].tolist() == ["mt"] * 3 + ["denoise"] * 3
    assert "Task" not in tables.correlation(frame).frame


def test_sources_longer_than_the_model_are_told_of(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=["pruning"])

    def said() -> str:
        return " ".join(summary.sentences(inputs.gather([run]).subjects[0]))

    assert "longer than the model" not in said()
    frame = pd.read_csv(run / "pruning.csv")
    frame.loc[(frame["order"] == "none") & (frame["group"] == "fao"), "truncated"] = 7
    write_text(run / "pruning.csv", frame.to_csv(index=False))
    sealed(run)
    assert "Sources longer than the model takes were translated in part: fao 7." in said()


def test_the_summary_says_whether_there_were_enough_batches_and_whether_the_estimate_holds(reported: Path) -> None:
    text = Page(reported / "report.html").text
    frame = pd.read_csv(reported / "convergence.csv").query("subset == 'low'").set_index(["group", "batches"])
    half = frame.loc[("fao", 10), "reliability"]
    assert f"S would correlate with itself at {2 * half / (1 + half):.3f} (fao, 20 batches) to" in text
    assert "0.95 takes more batches than were measured of fao." in text
    assert "ablation of 60 parameters a language: Spearman 0.970; of the top 10%, 91% are the same." in text
    assert "PCC between translating and denoising the same language, all parameters, corrected for noise: 0.9" in text
    same = pd.read_csv(reported / "similarity.csv").query("subset == 'all'")
    ends = " to ".join(f"{same[name].mean():.3f}" for name in ("corrected_low", "corrected_high"))
    assert f"({ends}), by language {same['corrected'].min():.3f} to {same['corrected'].max():.3f}." in text


# metrics


def test_a_sweep_of_the_loss_has_its_own_figures_beside_those_of_bleu(tmp_path: Path) -> None:
    both = synthetic_run.write_run(tmp_path / "both", FEW, only=["pruning", "pruning-cross"], metrics=("bleu", "loss"))
    report([both])
    stems = {path.stem for path in (both / "figures").glob("pruning*.svg")}
    drawn = {"pruning", "pruning-change", "pruning-by-group", "pruning-cross-specificity"}
    assert stems == drawn | {f"{stem}-loss" for stem in drawn}
    assert set(pd.read_csv(both / "figures" / "pruning-loss.csv")["metric"]) == {"loss"}
    assert "Loss|kind:nll" in (both / "tables" / "quality.txt").read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_sweep_of_the_loss_alone_is_reported_in_nats(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=["pruning", "pruning-cross"], metrics=("loss",))
    text = Page(report([run])).text
    frame = pd.read_csv(run / "pruning.csv")
    start = frame.loc[frame["order"] == "none", "value"].mean()
    assert f"Unpruned, the loss in nats per token is {start:.3f}, the mean over 4 languages" in text
    assert "near 0" not in text
    assert {path.stem for path in (run / "figures").iterdir()} >= {"pruning", "pruning-cross-specificity"}
    assert pd.read_csv(run / "tables" / "quality.csv")["Score"].tolist() == ["Loss"]


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_languages_alone_speaks_of_no_pairs_and_no_translation(tmp_path: Path) -> None:
    alone = {key: {**group, "source": None, "target": None, "tier": "Unknown"} for key, group in FEW.items()}
    only = ["correlation", "pruning", "pruning-cross"]
    run = synthetic_run.write_run(tmp_path / "run", alone, only=only, metrics=("loss",), direction="xxx")
    manifest = read_json(run / "manifest.json")
    manifest["analyses"] = {"lm": manifest["analyses"]["mt"]}
    manifest["sets"] = {
        name.replace("mt/", "lm/"): {**of, "files": {file.replace("/mt/", "/lm/"): "" for file in of["files"]}}
        for name, of in manifest["sets"].items()
    }
    manifest["provenance"]["framework"] = "transformers (LlamaForCausalLM)"
    for name in only:
        frame = pd.read_csv(run / f"{name}.csv").replace({"loss": "bpb", "mt": "lm"})
        frame.to_csv(run / f"{name}.csv", index=False)
    sealed(run, manifest)
    text = Page(report([run])).text
    for wrong in ("Sentence pairs", "translat", "Translat", "xxx→", "(nats", "denois", "resource levels"):
        assert wrong not in text, wrong
    assert "of 4 languages (" in text
    assert "Bits per byte, lower is better" in text
    assert "Bits per byte by which the loss of the language of a column increases" in text
    assert "Sentences for training of 4 languages, on a logarithmic scale (Figure 5 of the paper)." in text
    assert "--out EVALUATION --task lm --metric loss,bpb" in text
    assert list(pd.read_csv(run / "tables" / "quality.csv")) == ["Score", "All"]


@pytest.mark.usefixtures("undrawn")
def test_references_that_are_decoded_from_binaries_are_told_of_at_every_number(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=["pruning", "pruning-cross"])
    for raw in (True, False):
        found = inputs.gather([run])
        captions = [
            each.content.caption if isinstance(each.content, Drawn) else each.caption
            for section in (sections.quality, sections.pruning)
            for each in section(found)
            if "loss" not in each.stem
        ]
        said = [DECODED in text for text in (*captions, " ".join(summary.sentences(found.subjects[0])))]
        assert len(said) == 9
        assert not any(said) if raw else all(said)
        for name in ("pruning.csv", "pruning-cross.csv"):
            write_text(
                run / name, (run / name).read_text(encoding="utf-8").replace("P|protect", "P|refs:binarised|protect")
            )
        sealed(run)
    scores = synthetic_tables.write_evaluation(tmp_path / "scores", FEW)
    sealed(scores, notes=[DECODED])
    quality = [each for each in sections.quality(inputs.gather([scores])) if each.source == "tiers.csv"]
    assert all(DECODED in each.caption for each in quality if each.stem.startswith("bleu"))


@pytest.mark.usefixtures("undrawn")
def test_a_model_that_translates_nothing_still_has_a_report_that_says_so(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=["pruning", "pruning-cross"])
    for name in ("pruning.csv", "pruning-cross.csv"):
        frame = pd.read_csv(run / name)
        frame.loc[frame["metric"] == "bleu", ["value", "value_low", "value_high"]] = 0.0
        write_text(run / name, frame.to_csv(index=False))
    sealed(run)
    scores = synthetic_tables.write_evaluation(tmp_path / "scores", FEW)
    for name in ("evaluation.csv", "tiers.csv"):
        frame = pd.read_csv(scores / name)
        frame[["value", "value_low", "value_high"]] = 0.0
        write_text(scores / name, frame.to_csv(index=False))
    sealed(scores)
    swept = inputs.gather([run])
    points = [curve_points.curve(swept.tables["pruning.csv"], metric) for metric in ("bleu", "chrf")]
    tests = pd.concat(map(synthetic_tables.curve_tests, points))
    assert not any("minus random" in said for said in costs(replace(swept, curves=inputs.Curves(tests=tests))))
    text = Page(report([run, scores], tmp_path / "out")).text
    assert "Unpruned, BLEU is 0.00" in text
    assert "BLEU is near 0 before anything is pruned" in text
    assert "no curves of it are drawn" in text
    assert not [*(tmp_path / "out" / "figures").glob("pruning*")]  # flat lines say nothing
