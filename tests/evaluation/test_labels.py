"""What the checkpoints of an evaluation are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensikit.errors import OptionError
from sensikit.evaluation.systems import labels_of


def test_a_checkpoint_is_called_after_its_folder() -> None:
    paths = [Path("runs/regular/checkpoint_best.pt"), Path("runs/cd+id/checkpoint_best.pt")]
    assert labels_of(paths) == ["regular", "cd+id"]
    assert labels_of(paths, ["A", "B"]) == ["A", "B"]
    same = [Path("runs/regular/checkpoint_1_500.pt"), Path("runs/regular/checkpoint_last.pt")]
    assert labels_of(same) == ["regular-checkpoint_1_500", "regular-checkpoint_last"]


@pytest.mark.parametrize(
    ("paths", "labels", "problem"),
    [
        (["a/c.pt", "b/c.pt"], ["A"], "there are 1 for 2"),
        (["a/c.pt", "b/c.pt"], ["A", "A"], "two checkpoints would be called A"),
        (["x/a/c.pt", "y/a/c.pt"], [], "two checkpoints would be called a-c"),
    ],
)
def test_labels_that_are_not_one_for_each(paths: list[str], labels: list[str], problem: str) -> None:
    with pytest.raises(OptionError, match=r"^--label: ") as caught:
        labels_of([Path(path) for path in paths], labels)
    assert problem in str(caught.value)
