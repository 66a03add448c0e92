"""A few inputs of every kind: whatever is damaged is refused in one line, or changes nothing."""

from __future__ import annotations

import pytest

from tests.fuzz import GOOD, KINDS, kind_of

FEW = 6


# tests/test_kill.py has some kills for every day
LONG = ("kills", "writers")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in KINDS])
def test_no_input_of_a_kind_goes_wrong_in_silence(name: str) -> None:
    outcomes = list(kind_of(name)(FEW, 2))
    assert len(outcomes) == FEW
    assert [each for each in outcomes if each.result not in GOOD] == []
