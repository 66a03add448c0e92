"""A checkpoint and a length penalty, chosen for each system on one split and scored on another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sensikit.errors import OptionError, RunError
from sensikit.evaluation.choosing import candidates, evaluate_chosen
from sensikit.evaluation.systems import evaluate_systems
from sensikit.settings import Choice, Decoding
from tests.evaluation.test_systems import SETTINGS, prepared, untrained
from tests.support.watched import Translating, snapshot, translating


class Short(Translating):
    """One whose translations are whole with a length penalty of 1.5 alone."""

    def translate(self, language: str, split: str, decoding: Decoding) -> Any:
        found = super().translate(language, split, decoding)
        kept = 1 if decoding.lenpen == 1.5 else 2
        return replace(found, hypotheses=[" ".join(text.split()[:: kept * 2 - 1]) for text in found.hypotheses])


def short() -> Translating:
    found = translating()
    found.__class__ = Short
    return found


def choose(systems: dict[str, dict[str, Translating]], out: Path, **options: Any) -> Any:
    openers = {label: {name: lambda f=f: f for name, f in found.items()} for label, found in systems.items()}
    return evaluate_chosen(openers, out, SETTINGS, "valid", [1.0, 1.5], groups=["cat", "nso"], **options)  # type: ignore[arg-type]


def test_each_system_is_scored_with_what_it_is_best_with_elsewhere(tmp_path: Path) -> None:
    whole, other = short(), prepared(untrained())
    systems = {"one": {"early": prepared(untrained(7)), "late": whole}, "two": {"last": other}}
    found = choose(systems, tmp_path / "e")
    picked = found.tables["choice.csv"].query("chosen == 1")
    assert picked[["system", "checkpoint", "lenpen"]].to_numpy().tolist() == [
        ["two", "last", 1.0],
        ["one", "late", 1.5],
    ]
    # the test sets were looked at once, each with the chosen length penalty
    assert [call[2].lenpen for call in whole.calls if call[1] == "test"] == [1.5, 1.5]
    assert [call[2].lenpen for call in other.calls if call[1] == "test"] == [1.0, 1.0]
    assert not [call for call in systems["one"]["early"].calls if call[1] == "test"]
    decoding = replace(SETTINGS, decoding=Decoding(lenpen=1.5))
    plain = evaluate_systems({"one": lambda: whole}, tmp_path / "p", decoding, groups=["cat", "nso"])
    scores = [
        of.query("system == 'one'").reset_index() for of in (found.tables["tiers.csv"], plain.tables["tiers.csv"])
    ]
    pd.testing.assert_frame_equal(*scores)
    assert "|lenpen:chosen|" in found.manifest["signature"]
    assert "|chosen:bleu/valid/lenpen=1+1.5|" in found.manifest["signature"]
    assert any(
        note.startswith("one: late with length penalty 1.5, the best in BLEU on valid (")
        for note in found.manifest["notes"]
    )
    # going on asks for nothing that is there, and another choice is refused
    done = snapshot(tmp_path / "e")
    whole.calls = []
    choose(systems, tmp_path / "e", resume=True)
    assert not whole.calls
    assert snapshot(tmp_path / "e") == done
    with pytest.raises(RunError, match="holds one with length penalty"):
        evaluate_systems(
            {"one": lambda: whole, "two": lambda: other}, tmp_path / "e", SETTINGS, groups=["cat", "nso"], resume=True
        )


def test_what_cannot_be_chosen_is_told_of_before_anything_is_opened(tmp_path: Path) -> None:
    def never() -> Any:
        raise AssertionError

    systems = {"one": {"a": never}}
    with pytest.raises(OptionError, match="--baseline: three is no label"):
        evaluate_chosen(systems, tmp_path / "e", SETTINGS, "valid", [1.0], baseline="three")
    with pytest.raises(OptionError, match="--choose-on: test is what is scored"):
        evaluate_chosen(systems, tmp_path / "e", SETTINGS, "test", [1.0])
    with pytest.raises(OptionError, match="--lenpens: are chosen among, and nothing says where"):
        Choice(lenpens=("1",))
    with pytest.raises(OptionError, match="--lenpens: long is no length penalty"):
        Choice(choose_on="valid", lenpens=("1", "long"))
    assert not (tmp_path / "e").exists()


def test_checkpoints_of_one_folder_or_label_belong_together(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a/checkpoint_1_5.pt", "a/checkpoint_2_10.pt", "b/checkpoint_1_5.pt")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    names = {label: [name for name, _ in found] for label, found in candidates(paths).items()}
    assert names == {"a": ["checkpoint_1_5", "checkpoint_2_10"], "b": ["checkpoint_1_5"]}
    one = candidates(paths, ["x"] * 3)["x"]
    assert [name for name, _ in one] == ["a-checkpoint_1_5", "a-checkpoint_2_10", "b-checkpoint_1_5"]
