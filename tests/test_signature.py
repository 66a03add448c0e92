"""Signatures: every choice that moves a number, in one line."""

from __future__ import annotations

import numpy as np

from sensikit.signature import rng, signature
from sensikit.version import __version__


def test_a_signature_names_its_choices_in_the_order_given_and_the_version_last() -> None:
    found = signature("S", task="mt", dir="xxx-eng", batches=500, sigma=2.4414e-12, seed=1)
    assert found == f"S|task:mt|dir:xxx-eng|batches:500|sigma:2.44e-12|seed:1|v:{__version__}"


def test_what_was_not_chosen_is_left_out_but_zero_and_false_are_choices() -> None:
    assert signature("P", nonfinite=None, seed=0, whole=False) == f"P|seed:0|whole:False|v:{__version__}"


def test_whole_numbers_are_written_out_and_floats_are_short() -> None:
    found = signature("S", tokens=123_456, protect=0.1, lenpen=1.0, sigma=np.float64(1e-8))
    assert found == f"S|tokens:123456|protect:0.1|lenpen:1|sigma:1e-08|v:{__version__}"


def test_streams_of_names_that_run_together_are_kept_apart() -> None:
    first, second = rng(1, "a", "bc").random(4), rng(1, "ab", "c").random(4)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, rng(1, "a", "bc").random(4))
