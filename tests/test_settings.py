"""The settings refuse, as they are made, what their fields do not allow."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sensikit.errors import OptionError
from sensikit.settings import (
    RELEASED,
    AnalysisSettings,
    Decoding,
    EvaluationSettings,
    Options,
    SweepSettings,
    option,
    read_recipes,
)


@dataclass(frozen=True)
class Toy(Options):
    kind: str = option("nll", choices=("nll", "train"))
    some: str | None = option(None, choices=("one",))
    low: int = option(3, least=2)
    between: float = option(0.5, above=0, below=1)
    free: float = option(1.0)
    number: int | None = option(None, least=1, most=9)
    plain: float = 1.0
    several: tuple[str, ...] = option(("x",), choices=("x", "y"), names=("--some-of", "--several"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"kind": "mse"}, "--kind: mse is not one of them; choose nll or train"),
        ({"low": "40"}, "--low: '40' is not what it takes; give a whole number"),
        ({"number": 4.5}, "--number: 4.5 is not what it takes; give a whole number"),
        ({"free": "1"}, "--free: '1' is not what it takes; give a number"),
        ({"kind": 3}, "--kind: 3 is not what it takes; give text"),
        ({"several": "x"}, "--some-of: 'x' is not what it takes; give a tuple of names"),
        ({"some": "two"}, "--some: two is not one of them; choose one"),
        ({"low": 1}, "--low: 1 is out of range; give 2 or more"),
        ({"between": 0}, "--between: 0 is out of range; give more than 0, less than 1"),
        ({"between": 1.0}, "--between: 1 is out of range; give more than 0, less than 1"),
        ({"between": math.nan}, "--between: nan is out of range; give more than 0, less than 1"),
        ({"free": -math.inf}, "--free: -inf is out of range; give a finite number"),
        ({"number": 0}, "--number: 0 is out of range; give 1 or more, at most 9"),
        ({"number": 10**400}, "--number: a number so large is out of range; give 1 or more, at most 9"),
        ({"several": ("y", "z")}, "--some-of: z is not one of them; choose x or y"),
        ({"plain": math.nan}, "--plain: nan is out of range; give a finite number"),
    ],
)
def test_what_a_field_does_not_allow_is_refused_in_one_line(change: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError, match=f"^{re.escape(line)}$"):
        Toy(**change)
    with pytest.raises(OptionError, match=f"^{re.escape(line)}$"):
        replace(Toy(), **change)


def test_bounds_are_allowed_where_they_belong_to_the_range() -> None:
    assert Toy(kind="train", some="one", low=2, between=1e-9, number=1, several=("y", "x")) != Toy()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (AnalysisSettings, {"task": "mlm"}),
        (AnalysisSettings, {"loss": "mse"}),
        (AnalysisSettings, {"reduction": "mean"}),
        (AnalysisSettings, {"mode": "test"}),
        (AnalysisSettings, {"batches": 1}),
        (AnalysisSettings, {"tokens": 0}),
        (AnalysisSettings, {"rest": "both"}),
        (AnalysisSettings, {"rest_temperature": 0.0}),
        (AnalysisSettings, {"sigma": 0.0}),
        (AnalysisSettings, {"seed": -1}),
        (AnalysisSettings, {"micro_batches": 0}),
        (Decoding, {"beam": 0}),
        (Decoding, {"max_tokens": 0}),
        (Decoding, {"max_sentences": 0}),
        (EvaluationSettings, {"bootstrap": -1}),
        (SweepSettings, {"bootstrap": -1}),
        (SweepSettings, {"protect": 1.0}),
    ],
)
def test_every_bound_of_the_settings(kind: type[Options], change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(OptionError, match=f"^--{name.replace('_', '-')}: "):
        kind(**change)


def test_the_released_preset_is_allowed() -> None:
    assert replace(AnalysisSettings(), **RELEASED).mode == "train"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["ID"], "is not NAME=LABEL,LABEL,…"),
        (["ID=a"], "is not NAME=LABEL,LABEL,…"),
        (["=a,b"], "is not NAME=LABEL,LABEL,…"),
        (["ID=a,x"], "names x, which is not there"),
        (["ID=a,"], "names nothing, which is not there"),
        (["c=a,b"], "has the name of another: c"),
        (["ID=a,b", "ID=c,d"], "has the name of another: ID"),
        (["ID=a,a"], "names a twice"),
        (["ID=a,b", "CD=b,c"], "names b twice"),
    ],
)
def test_recipes_that_cannot_be_are_one_line(given: list[str], problem: str) -> None:
    with pytest.raises(OptionError, match=re.escape(f"--group {given[-1]}: {problem}; give two or more of a, b, c, d")):
        read_recipes(given, ["a", "b", "c", "d"])
    assert read_recipes(["ID=a,b", "CD=d,c"], ["a", "b", "c", "d"]) == {"ID": ("a", "b"), "CD": ("d", "c")}
