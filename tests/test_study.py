"""The study of notebooks/study: what runs when, and what its page says of what has not run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

PLACE = Path(__file__).parent.parent / "notebooks" / "study"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PLACE))
    for name in ("study", "answer"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("study")


def made(out: Path, *names: str) -> None:
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()


def waiting(study: Any, out: Path) -> list[Any]:
    found = study.steps(out, Path("deb8"), Path("mono"))
    return [
        step for step in found if not list(out.glob(step.makes)) and all(list(out.glob(need)) for need in step.needs)
    ]


def test_a_step_waits_for_what_it_needs_and_later_seeds_for_what_the_first_was_best_with(
    study: Any, tmp_path: Path
) -> None:
    assert [step.command[0] for step in waiting(study, tmp_path)] == ["text"]
    made(tmp_path, "text/mono/eng.txt", "data/manifest.json")
    assert [step.makes for step in waiting(study, tmp_path)][:2] == [
        "training/regular-1/checkpoint_*_2240.pt", "training/id-1/checkpoint_*_2240.pt",
    ]  # fmt: skip
    # what has been trained is evaluated before the next is; the checkpoints of the second half alone are candidates
    made(tmp_path, *(f"training/regular-1/checkpoint_{at // 83}_{at}.pt" for at in (280, 1120, 2240, 2520)))
    first = waiting(study, tmp_path)[0]
    paths = [text for text in first.command if text.endswith(".pt")]
    assert paths == ["training/regular-1/checkpoint_13_1120.pt", "training/regular-1/checkpoint_26_2240.pt"]
    assert first.alone == "evaluation"
    rows = ["system,checkpoint,lenpen,value,length_ratio,brevity_penalty,chosen"]
    rows += [
        f"id{variant}-1,checkpoint_26_2240,1.5,{value},1,1,1"
        for variant, value in (("", 9), ("-dropout3", 11), ("-schedule", 10))
    ]
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "choice.csv").write_text("\n".join(rows))
    seeds = [name for each in study.listed(tmp_path) if (name := each.name).startswith("id-") and each.seed > 1]
    assert seeds == [f"id-dropout3-{seed}{longer}" for longer in ("", "-longer") for seed in (2, 3)]
    choice = tmp_path / "evaluation" / "choice.csv"
    text = choice.read_text()
    choice.write_text(text.replace(",11,1,1,1", ",9.2,1,1,1").replace(",10,1,1,1", ",9.1,1,1,1"))
    assert study.best_variant(tmp_path, study.System("id")) == ""  # better by less than seeds differ
    choice.write_text(text)
    # seeds that a GPU has trained at a guess are taken up
    guessed = {each.name for each in study.guessed()}
    assert {"id-3", "id-dropout3-3", "id-schedule-1"} <= guessed
    assert "id-schedule-2" not in guessed
    made(tmp_path, "training/regular-2/checkpoint_26_2240.pt")
    assert "regular-2" in [each.name for each in study.listed(tmp_path)]
    # a run whose variant lost is not taken apart
    assert [step.makes for step in waiting(study, tmp_path) if step.command[0] == "analyze"] == [
        "analysed/id-dropout3-1/correlation.csv"
    ]
    # a report waits for all that can be taken apart
    made(tmp_path, "analysed/id-dropout3-1/correlation.csv")
    assert [step.command[0] for step in waiting(study, tmp_path)].count("report") == 0
    made(tmp_path, "analysed/id-dropout3-1/pruning.csv")
    assert [step.command[0] for step in waiting(study, tmp_path)].count("report") == 1


def test_a_verdict_needs_all_seeds_and_an_interval_on_one_side(study: Any, tmp_path: Path) -> None:
    answer = importlib.import_module("answer")
    for a, b, verdict in (
        ([1.0, 1.1, 0.9], [2.0, 2.1, 1.9], "holds here"),
        ([2.0, 2.1, 1.9], [1.0, 1.1, 0.9], "refuted here"),
        ([1.0, 1.1, 0.9], [1.0, 1.2, 0.9], "not told apart"),
        ([1.0, 1.1], [2.0, 2.1], "not yet answered (2 seeds)"),
        ([], [2.0], "not yet answered (0 seeds)"),
    ):
        assert answer.welch("x", a, b, 1).row().endswith(f"| {verdict}")
    low = answer.welch("x", [1.0, 1.1, 0.9], [2.0, 2.1, 1.9], -1)
    assert low.row().endswith("| refuted here")
    assert low.low == pytest.approx(0.7733, abs=1e-4)  # 1 ± t(.975, 4) · .1 · √(2/3)
    page = answer.page(tmp_path)
    assert [line.rsplit("| ", 1)[1] for line in page.splitlines() if line.startswith("| (")] == [
        "not yet answered (0 seeds) |"
    ] * (len(answer.CLAIMS) + 2)
