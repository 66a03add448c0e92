"""What a model makes of a test set, as one process measures it and another takes it up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from sensikit.backends.base import Model, Translations, task_of, translation_of
from sensikit.distributed import Part
from sensikit.evaluation.metrics import losses
from sensikit.evaluation.resampling import Float
from sensikit.settings import EvaluationSettings


@dataclass(frozen=True)
class Made:
    """A test set's translations, and the sums of its losses, (n, 2K + 1): each where it was asked for."""

    translations: Translations | None = None
    losses: Float | None = None

    @classmethod
    def by(
        cls, model: Model, settings: EvaluationSettings, group: str, *, translated: bool, lost: bool, seed: int
    ) -> Self:
        """Return what a model makes of the test set of a group.

        Args:
            model: in evaluation mode.
            settings: whose task, split and decoding.
            group: whose test set.
            translated: translate it.
            lost: take the losses.
            seed: of the noise of the sentences, where a task has any.
        """
        split, decoding = settings.split, settings.decoding
        texts = translation_of(model, settings.task).translate(group, split, decoding) if translated else None
        sums = losses(task_of(model, settings.task, seed), group, split, decoding) if lost else None
        return cls(texts, sums)

    def part(self, **facts: Any) -> Part:
        """Return it as another process reads it, with `facts` of the reader's own."""
        texts = self.translations and asdict(self.translations)
        arrays = [] if self.losses is None else [np.asarray(self.losses)]
        return Part({**facts, "translations": texts}, arrays)

    @classmethod
    def of(cls, part: Part) -> Self:
        """Return what another process has made."""
        texts = part.facts["translations"]
        return cls(Translations(**texts) if texts else None, next(iter(part.arrays), None))
