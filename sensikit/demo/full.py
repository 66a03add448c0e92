"""Two systems of the paper on the demo's corpus, Regular and CD+ID, that differ in the method alone; side by side."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from sensikit.demo import TOKENIZER, Recipe, analyzed, audited, decoding, prepared, pruned, text_of, trained
from sensikit.progress import say

SYSTEMS = {"Regular": ("regular", ("mt",)), "CD+ID": ("cd+id", ("mt", "denoise"))}
"""By label: what is trained, by its name in `recipes.METHODS`, and the tasks that it is then analysed in."""


def demo_full(
    out: str | Path = "demo-full", recipe: Recipe | None = None, command: str = "sensikit demo --full"
) -> Path:
    """Return the page that a full demo in `out` ends with; one that was killed goes on where it stopped.

    Both systems see the same sentence pairs in the same updates; CD+ID sees as many monolingual sentences beside them,
    and everything twice. `out` holds data/, training/METHOD/, evaluation/, runs/METHOD/ and report.html. Arguments and
    errors are those of `sensikit.demo.demo`.
    """
    out, recipe = Path(out), recipe or Recipe()
    started = time.monotonic()
    with prepared(out, recipe, [method for method, _ in SYSTEMS.values()]):
        data = text_of(out, recipe, steps=6)
        say("2 of 6: training")
        checkpoints = {label: trained(method, data, out, recipe, command) for label, (method, _) in SYSTEMS.items()}
        from sensikit.backends import open_model
        from sensikit.evaluation.systems import evaluate_systems
        from sensikit.evaluation.tables import text
        from sensikit.report.page import report
        from sensikit.settings import EvaluationSettings

        say("3 of 6: BLEU and chrF++ of both")
        openers = {label: partial(open_model, path, data) for label, path in checkpoints.items()}
        scored = EvaluationSettings(tokenizer=TOKENIZER, decoding=decoding())
        evaluation = evaluate_systems(openers, out / "evaluation", scored, resume=True, command=command)
        runs = []
        for label, (method, tasks) in SYSTEMS.items():
            model = openers[label]()
            say(f"4 of 6: how much each parameter of {label} matters to each language")
            runs.append(analyzed(model, out / "runs" / method, recipe, tasks, command))
            audited(runs[-1], model, recipe, command)
            say(f"5 of 6: pruning {label}")
            pruned(runs[-1], model, recipe)
        say("6 of 6: report")
        places = [*(run.path for run in runs), out / "evaluation"]
        page = report(places, out, labels=[*SYSTEMS, "test"], command=command)
    say(text(evaluation.manifest, evaluation.tables))
    say(f"{(time.monotonic() - started) / 60:.1f} minutes")
    return page
