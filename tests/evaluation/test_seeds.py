"""Systems that are training seeds of one recipe, and test sets of which nothing is known in common."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sensikit.errors import OptionError
from sensikit.evaluation.resampling import INDEPENDENT
from sensikit.evaluation.systems import evaluate_systems
from tests.evaluation.test_systems import SETTINGS, opened, prepared, refused, untrained
from tests.support.watched import Translating, translating


def test_seeds_of_one_recipe_are_tested_together_and_resume_may_name_others(tmp_path: Path) -> None:
    one, two, three = translating(), prepared(untrained()), prepared(untrained(6))
    systems = opened(one, two, three)
    found = evaluate_systems(systems, tmp_path / "e", SETTINGS, recipes={"ID": ["two", "three"]})
    tests = found.tables["significance.csv"]
    assert set(zip(tests["system_a"], tests["system_b"], tests["seeds_b"], strict=True)) == {("one", "ID", 2)}
    assert list(dict.fromkeys(found.tables["tiers.csv"]["system"])) == ["one", "two", "three", "ID"]
    assert found.manifest["recipes"] == {"ID": ["two", "three"]}
    again = evaluate_systems(
        systems, tmp_path / "e", SETTINGS, baseline="ID", recipes={"ID": ["one", "three"]}, resume=True
    )
    tests = again.tables["significance.csv"]
    assert set(zip(tests["system_a"], tests["system_b"], tests["seeds_a"], strict=True)) == {("ID", "two", 2)}
    assert len(one.calls) == 4
    text = "--baseline: two is one seed of a recipe; choose among one, ID"
    refused(OptionError, text, systems, tmp_path / "f", baseline="two", recipes={"ID": ["two", "three"]})


def test_what_the_data_do_not_say_of_the_segments_is_said(tmp_path: Path) -> None:
    class Apart(Translating):
        def segments(self, language: str, split: str = "train") -> Any:
            return replace(super().segments(language, split), known_by="own")

    backend = prepared(Apart(seed=3))
    found = evaluate_systems(opened(backend), tmp_path / "e", SETTINGS)
    assert found.manifest["notes"] == [INDEPENDENT]
    assert "|seg:own|" in found.manifest["signature"]
    found = evaluate_systems(opened(backend), tmp_path / "f", SETTINGS, groups=["cat"])
    assert found.manifest["notes"] == []
