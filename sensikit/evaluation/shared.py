"""What a model makes of a test set, as one process measures it and another takes it up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from sensikit.backends.base import Model, Translations, task_of, translation_of
from sensikit.distributed import Part
from sensikit.evaluation.metrics import ids_of, losses
from sensikit.evaluation.resampling import Float, Ids
from sensikit.settings import EvaluationSettings


class Known(NamedTuple):
    """The identities of the sentences of a test set, (n,), and what they are known by; see `Segments`."""

    ids: Ids
    by: str


@dataclass(frozen=True)
class Made:
    """A test set's translations, and the sums of its losses, (n, 2K + 1), each with its segments, where asked for."""

    translations: Translations | None = None
    translated: Known | None = None
    losses: Float | None = None
    lost: Known | None = None

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
        split, decoding, found = settings.split, settings.decoding, cls()
        if translated:
            task = translation_of(model, settings.task)
            texts = task.translate(group, split, decoding)
            found = cls(texts, Known(*ids_of(task, group, split, len(texts.hypotheses), True)))
        if lost:
            of = task_of(model, settings.task, seed)
            sums = losses(of, group, split, decoding)
            known = Known(*ids_of(of, group, split, len(sums), False))
            found = cls(found.translations, found.translated, sums, known)
        return found

    def part(self, **facts: Any) -> Part:
        """Return it as another process reads it, with `facts` of the reader's own."""
        texts, arrays = self.translations and asdict(self.translations), []
        if self.translated is not None:
            arrays.append(np.asarray(self.translated.ids))
        if self.lost is not None:
            arrays += [np.asarray(self.losses), np.asarray(self.lost.ids)]
        known = [each and each.by for each in (self.translated, self.lost)]
        return Part({**facts, "translations": texts, "known_by": known}, arrays)

    @classmethod
    def of(cls, part: Part) -> Self:
        """Return what another process has made."""
        texts, (translated, lost), arrays = part.facts["translations"], part.facts["known_by"], iter(part.arrays)
        found = cls(Translations(**texts), Known(next(arrays), translated)) if texts else cls()
        if lost:
            found = cls(found.translations, found.translated, next(arrays), Known(next(arrays), lost))
        return found
