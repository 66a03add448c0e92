"""What a model makes of a test set, as one process measures it and another takes it up."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from sensikit.backends.base import Model, Translations, task_of, translation_of
from sensikit.distributed import Part
from sensikit.evaluation.metrics import ids_of, losses
from sensikit.evaluation.resampling import Float, Ids
from sensikit.parameters import in_mode
from sensikit.settings import EvaluationSettings


@dataclass(frozen=True)
class Made:
    """A test set's translations, and the sums of its losses, (n, 2K + 1), as far as they were asked for.

    Beside each are the identities of its sentences, (n,), and what they are known by; see `Segments`.
    """

    translations: tuple[Translations, Ids, str] | None = None
    losses: tuple[Float, Ids, str] | None = None

    @classmethod
    def by(cls, model: Model, settings: EvaluationSettings, group: str, decodes: Collection[bool], seed: int) -> Self:
        """Return what a model, put in evaluation mode, makes of the test set of a group.

        With True in `decodes` it is translated, with False its losses are taken; `seed` is that of the noise of the
        sentences, where a task has any.
        """
        split, translated, lost = settings.split, None, None
        with in_mode(model.module, False):
            if True in decodes:
                translation = translation_of(model, settings.task)
                texts = translation.translate(group, split, settings.decoding)
                translated = texts, *ids_of(translation, group, split, len(texts.hypotheses), True)
            if False in decodes:
                task = task_of(model, settings.task, seed)
                sums = losses(task, group, split, settings.decoding)
                lost = sums, *ids_of(task, group, split, len(sums), False)
        return cls(translated, lost)

    def part(self, **facts: Any) -> Part:
        """Return it as another process reads it, with `facts` of the reader's own."""
        facts = {**facts, "translations": None, "losses": None}
        arrays: list[np.ndarray] = []
        if self.translations:
            texts, ids, known_by = self.translations
            facts["translations"], arrays = [asdict(texts), known_by], [ids]
        if self.losses:
            sums, ids, facts["losses"] = self.losses
            arrays += [sums, ids]
        return Part(facts, arrays)

    @classmethod
    def of(cls, part: Part) -> Self:
        """Return what another process has made."""
        translated, known_by, arrays = part.facts["translations"], part.facts["losses"], iter(part.arrays)
        return cls(
            (Translations(**translated[0]), next(arrays), translated[1]) if translated else None,
            (next(arrays), next(arrays), known_by) if known_by else None,
        )
