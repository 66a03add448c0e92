"""A checkpoint and a length penalty for each system, chosen on one split and scored on another.

The lowest validation loss is not the best translation (of one model, trained past its minimum, it cost 2 BLEU), and
which of two systems is better can depend on the length penalty. So both are chosen for each system by itself, by BLEU
on the validation sets, and the test sets are looked at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sensikit.backends.base import is_file
from sensikit.distributed import Share
from sensikit.errors import OptionError
from sensikit.evaluation.folder import CHOICE as PLACE
from sensikit.evaluation.folder import Translated
from sensikit.evaluation.metrics import LENGTHS
from sensikit.evaluation.scoring import ALL, BY_TIER
from sensikit.evaluation.systems import Chosen, Evaluation, Opener, baseline_of, called, evaluate_systems, named
from sensikit.settings import EvaluationSettings
from sensikit.tables import Schema

CHOICE = Schema(
    "choice.csv", "What was chosen among", "evaluate",
    key=("system", "checkpoint", "lenpen"),
    numbers=("lenpen", "value", *LENGTHS, "chosen"),
    groups=(),
)  # fmt: skip
"""BLEU on the split that was chosen on, mean over groups, of each checkpoint and length penalty."""


def evaluate_chosen(
    systems: Mapping[str, Mapping[str, Opener]],
    out: Path,
    settings: EvaluationSettings,
    split: str,
    lenpens: Sequence[float],
    *,
    baseline: str | None = None,
    recipes: Mapping[str, Sequence[str]] | None = None,
    **how: Any,
) -> Evaluation:
    """Return what `evaluate_systems` does, of the checkpoint of each system that is best on `split`.

    Best is the highest BLEU, mean over groups, with one of the length penalties, which is kept; of equals, the first.
    Beside the tables there is choice.csv, and each length penalty has an evaluation of its own in choice/.

    Args:
        systems: by label, the checkpoints that each is chosen of, by name.
        out: the evaluation directory.
        settings: of what is scored once all is chosen.
        split: that is chosen on.
        lenpens: length penalties.
        baseline: as of `evaluate_systems`; so are the recipes, and `how`: groups, resume, command, share.
        recipes: see `baseline`.
        how: see `baseline`.

    Raises:
        OptionError: if `split` is what is scored, or as `evaluate_systems`.
        DataError, RunError: as `evaluate_systems`.
    """
    if split == settings.split:
        raise OptionError("--choose-on", f"{split} is what is scored", "choose on another split, such as valid")
    baseline = baseline_of(list(systems), recipes or {}, baseline)  # refused before hours of choosing
    leads = (how.get("share") or Share()).leads
    if leads:
        Translated.stands(out, how.get("resume", False))
    openers = {f"{label}.{name}": opener for label, found in systems.items() for name, opener in found.items()}
    rows: list[tuple[Any, ...]] = []
    for lenpen in lenpens:
        decoding = replace(settings.decoding, lenpen=lenpen)
        of = replace(settings, metrics=("bleu",), split=split, bootstrap=0, decoding=decoding)
        found = evaluate_systems(openers, out / PLACE / f"lenpen-{lenpen:g}", of, everywhere=True, **how)
        if not found.tables:  # the first process has ended
            return found
        scores = found.tables[BY_TIER.name]
        means = scores[scores["tier"] == ALL].set_index("system")[["value", *LENGTHS]]
        rows += [
            (label, name, lenpen, *means.loc[f"{label}.{name}"], 0) for label in systems for name in systems[label]
        ]
    table = CHOICE.frame(rows)
    table.loc[table.groupby("system")["value"].idxmax(), "chosen"] = 1
    chosen = {
        row["system"]: Chosen(row["checkpoint"], row["lenpen"], split, row["value"], lenpens)
        for row in table[table["chosen"] == 1].to_dict("records")
    }
    found = evaluate_systems(
        {label: systems[label][chosen[label].checkpoint] for label in systems},
        out, settings, baseline=baseline, recipes=recipes, choices=chosen, **how,
    )  # fmt: skip
    if not leads:
        return found
    with Translated.open(out).locked() as folder:
        folder.write_table(CHOICE, table)
    return Evaluation(folder.manifest, {**found.tables, CHOICE.name: table})


def candidates(checkpoints: Sequence[Path], labels: Sequence[str] = ()) -> dict[str, list[tuple[str, Path]]]:
    """Return the checkpoints of each system: those of one label, or else of one folder; each with its name.

    Raises:
        OptionError: if there is not one label for each.
    """
    found: dict[str, list[tuple[str, Path]]] = {}
    for label, path in zip(called(checkpoints, labels), checkpoints, strict=True):
        found.setdefault(label, []).append((path.stem if is_file(path) else path.name, path))
    for label, those in found.items():
        if len({name for name, _ in those}) < len(those):
            found[label] = [(named(path), path) for _, path in those]
    return found
