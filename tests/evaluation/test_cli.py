"""`sensikit evaluate` on real checkpoints: what it prints and writes, and what it says of bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from sensikit.evaluation.metrics import evaluate
from sensikit.evaluation.tables import DECODED
from tests.cli.test_bad_input import refused, snapshot
from tests.support.command import call

QUICK = ["--tokenizer", "none", "--beam", 2]


@pytest.fixture(scope="module")
def evaluated(
    tiny_checkpoint: Path, plain_checkpoint: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """An evaluation of two checkpoints and what was printed."""
    out = tmp_path_factory.mktemp("evaluated") / "e"
    names = ["--label", "long", "--label", "short"]
    done = call("evaluate", tiny_checkpoint, plain_checkpoint, "--data", tiny_data, "--out", out, *names, *QUICK)
    assert done.code == 0, done.error
    return out, done.output


def test_two_checkpoints_side_by_side(evaluated: tuple[Path, str], tiny_checkpoint: Path, tiny_data: Path) -> None:
    from sensikit.backends import open_model
    from sensikit.backends.base import translation_of
    from sensikit.settings import Decoding

    out, printed = evaluated
    backend = open_model(tiny_checkpoint, tiny_data, device="cpu")
    found = translation_of(backend).translate("nob", "test", Decoding(beam=2))
    scores = pd.read_csv(out / "evaluation.csv").set_index(["system", "group", "metric"])["value"]
    assert scores["long", "nob", "bleu"] == evaluate(found.hypotheses, found.references, "none")["bleu"].value
    assert (out / "references" / "nob.txt").read_text() == (tiny_data / "text" / "test.nob-eng.eng").read_text()
    tiers = pd.read_csv(out / "tiers.csv").set_index(["system", "tier", "metric"])["value"]
    assert tiers["long", "All", "bleu"] > tiers["short", "All", "bleu"]
    rows = [line.split() for line in printed.splitlines()]
    assert ["System", "High", "Low", "Very", "Low", "All"] in rows
    assert ["System", "cat", "nob", "fao"] in rows
    of_short = next(row for row in rows if row[:1] == ["short"])
    assert [float(cell.strip("*")) for cell in of_short[1:]] == [
        round(tiers["short", tier, "bleu"], 2) for tier in ("High", "Low", "Very Low", "All")
    ]
    assert "What is tested against long: " in printed
    assert "One model against one (short against long)" in printed
    assert "under 200 no interval or p is to be trusted; nothing is marked" in printed
    assert (out / "tables" / "bleu-tiers.tex").is_file()


def test_seeds_of_a_recipe_are_named_on_the_command_line(
    evaluated: tuple[Path, str], tiny_checkpoint: Path, plain_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "e"
    shutil.copytree(evaluated[0], out)
    names = ["--label", "long", "--label", "short", "--group", "both=long,short", "--bootstrap", 50, "--resume"]
    done = call("evaluate", tiny_checkpoint, plain_checkpoint, "--data", tiny_data, "--out", out, *names, *QUICK)
    assert done.code == 0, done.error
    tiers = pd.read_csv(out / "tiers.csv").query("metric == 'bleu' and tier == 'All'").set_index("system")["value"]
    assert tiers["both"] == pytest.approx((tiers["long"] + tiers["short"]) / 2)
    assert "those of both also over training seeds" in done.output


def test_a_checkpoint_and_a_length_penalty_are_chosen_on_another_split(
    tiny_checkpoint: Path, plain_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    given = ["--data", tiny_data, "--out", tmp_path / "e", "--label", "x", "--label", "x", *QUICK, "--groups", "nob"]
    how = ["--choose-on", "valid", "--lenpens", "1,2", "--max-sentences", 5]
    done = call("evaluate", plain_checkpoint, tiny_checkpoint, *given, *how)
    assert done.code == 0, done.error
    choice = pd.read_csv(tmp_path / "e" / "choice.csv")
    assert (len(choice), choice["chosen"].sum()) == (4, 1)
    best = choice.loc[choice["value"].idxmax()]
    assert best["chosen"] == 1
    assert f"x: {best['checkpoint']} with length penalty {best['lenpen']:g}, the best in BLEU on valid" in done.output
    assert "Brevity penalty" in done.output


def test_manifest_tells_systems_and_command(evaluated: tuple[Path, str], tiny_checkpoint: Path) -> None:
    manifest = json.loads((evaluated[0] / "manifest.json").read_text("utf-8"))
    assert manifest["command"].startswith(f"sensikit evaluate {tiny_checkpoint} ")
    assert {label: facts["updates"] for label, facts in manifest["systems"].items()} == {"long": 200, "short": 60}
    assert manifest["systems"]["long"]["method"] == "regular"
    assert manifest["systems"]["long"]["mask_ratio"] is None


def test_without_out_nothing_is_written(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    done = call("evaluate", tiny_checkpoint, "--data", tiny_data, "--max-sentences", 3, *QUICK)
    assert done.code == 0, done.error
    assert "BLEU by group" in done.output
    assert "|sents:3|" in done.output
    assert list(tmp_path.iterdir()) == []


def test_resume_adds_a_system_under_its_folders_name(
    tiny_checkpoint: Path, plain_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    common = ["--data", tiny_data, "--out", tmp_path / "e", "--languages", "fao", *QUICK]
    assert call("evaluate", tiny_checkpoint, *common).code == 0
    refused(call("evaluate", tiny_checkpoint, plain_checkpoint, *common), str(tmp_path / "e"), "--resume")
    done = call("evaluate", tiny_checkpoint, plain_checkpoint, *common, "--resume")
    assert done.code == 0, done.error
    assert "evaluating: 12/12 sentences" in done.error
    names = [tiny_checkpoint.parent.name, plain_checkpoint.parent.name]
    assert sorted(path.name for path in (tmp_path / "e/hypotheses").iterdir()) == sorted(f"{n}.fao.txt" for n in names)


# bad input


def test_a_language_without_a_test_set_is_named_before_anything_is_decoded(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data / "bin", data)
    for path in data.glob("test.nob-eng.*"):
        path.unlink()
    out = tmp_path / "e"
    refused(call("evaluate", tiny_checkpoint, "--data", data, "--out", out, *QUICK), str(data), "test", "nob-eng")
    assert not out.exists()
    found = call("evaluate", tiny_checkpoint, "--data", data, "--out", out, *QUICK, "--languages", "cat")
    assert found.code == 0
    # no text stands beside the binaries
    assert DECODED in found.output.splitlines()
    assert DECODED in (out / "tables" / "bleu-tiers.txt").read_text(encoding="utf-8")


def test_a_checkpoint_of_other_data_is_named(
    tiny_checkpoint: Path, plain_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_data / "bin", other)
    for path in other.glob("dict.*.txt"):
        path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()[:-9]))
    refused(call("evaluate", tiny_checkpoint, "--data", other, "--out", tmp_path / "e", *QUICK), str(other))
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--label", "a"], ["--label", "1 for 2"]),
        (["--label", "a", "--label", "a"], ["--label", "called a"]),
        (["--label", "a/b", "--label", "c"], ["--label", "a/b"]),
        (["--baseline", "nobody"], ["--baseline", "nobody"]),
        (["--languages", "deu"], ["--groups", "deu"]),
        (["--direction", "eng-xxx"], ["--direction", "eng-xxx"]),
        (["--beam", "0"], ["--beam"]),
        (["--max-sentences", "0"], ["--max-sentences"]),
        (["--max-len-a", "long"], ["--max-len-a", "valid number"]),
        (["--split", "nonsense"], ["nonsense"]),
        (["--tokenizer", "nonsense"], ["--tokenizer", "nonsense"]),
        (["--spm-model", "missing.model"], ["--spm-model"]),
    ],
)
def test_options_that_cannot_be_carried_out(
    extra: list[str], words: list[str], tiny_checkpoint: Path, plain_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "e"
    both = [tiny_checkpoint, plain_checkpoint]
    refused(call("evaluate", *both, "--data", tiny_data, "--out", out, *QUICK, *extra), *words)
    assert not out.exists()


def test_a_checkpoint_that_is_given_twice_or_cannot_be_read(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy" / "c.pt"
    copy.parent.mkdir()
    shutil.copy(tiny_checkpoint, copy)
    common = ["--data", tiny_data, "--out", tmp_path / "e", *QUICK]
    refused(call("evaluate", tiny_checkpoint, copy, *common), str(copy), "once more")
    copy.write_text("no checkpoint")
    refused(call("evaluate", tiny_checkpoint, copy, *common), str(copy))
    assert not (tmp_path / "e").exists()


def test_resume_without_out_and_an_out_that_is_something_else(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    refused(call("evaluate", tiny_checkpoint, "--data", tiny_data, *QUICK, "--resume"), "--resume")
    before = snapshot(tiny_data)
    refused(
        call("evaluate", tiny_checkpoint, "--data", tiny_data, "--out", tiny_data, *QUICK, "--resume"), str(tiny_data)
    )
    assert snapshot(tiny_data) == before
