"""What a run was measured on, found again: its languages, its checkpoint and data, and the very batches of each set."""

from __future__ import annotations

from collections.abc import Sequence

from sensikit.backends.base import Backend
from sensikit.errors import OptionError, RunError
from sensikit.sensitivity.batches import Batch, fingerprint
from sensikit.sensitivity.planning import Settings, make_plan
from sensikit.store.run import Run


def measured_languages(run: Run, languages: Sequence[str] | None, task: str = "mt") -> list[str]:
    """Return the languages asked for (all by default) in the order of the run.

    Raises:
        OptionError: if one was not measured, or none is named.
    """
    measured = run.languages(task)
    unknown = [code for code in languages or () if code not in measured]
    if unknown or (languages is not None and not languages):
        problem = f"{unknown[0]} was not measured" if unknown else "names no language"
        raise OptionError("--languages", problem, f"choose among {', '.join(measured)}")
    return [code for code in measured if languages is None or code in languages]


def check_source(run: Run, backend: Backend) -> None:
    """Refuse a checkpoint or data that are not what the run was measured on.

    Raises:
        RunError: saying which.
    """
    noted, found = run.manifest["provenance"], backend.provenance
    if found.checkpoint_sha256 != noted["checkpoint_sha256"]:
        problem = f"was measured on another checkpoint ({noted['checkpoint_sha256'][:8]}) than {found.checkpoint}"
        raise RunError(run.path, problem, "give that one with --checkpoint")
    if found.data_sha256 != noted["data_sha256"]:
        problem = f"was measured on other data ({noted['data_sha256'][:8]}) than {found.data}"
        raise RunError(run.path, problem, "give those with --data")


def redrawn(
    run: Run, backend: Backend, languages: Sequence[str], task: str = "mt"
) -> tuple[Settings, dict[str, list[Batch]]]:
    """Return the settings of a run's analysis and the batches B_l of `languages`, drawn again.

    Raises:
        RunError: if they are not the sentences that S(θ, B_l) was measured on.
    """
    settings = _settings(run, task)
    plan = make_plan(backend, settings, run.languages(task))
    for code in languages:
        if fingerprint(plan.sets[code]) != run.manifest["sets"][f"{task}/{code}"].get("drawn"):
            problem = f"was measured on other batches of {code} than its settings give"
            raise RunError(run.path, problem, "another version made it; analyze again")
    return settings, {code: plan.sets[code] for code in languages}


def _settings(run: Run, task: str) -> Settings:
    try:
        return Settings(**run.analysis(task)["settings"])
    except TypeError as error:
        raise RunError(run.path / "manifest.json", "has settings of another version", "analyze again") from error
