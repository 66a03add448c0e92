"""The manifest of a run directory: what it must hold, so that every later step can rely on it.

version, versions         of sensikit, Python, torch and numpy
direction                 "xxx-eng" or "eng-xxx"
provenance                framework, checkpoint and data, with their SHA-256
languages                 those measured, in order: name, family, tier, sizes by split
parameters                the registry, in flat order; parameter_count and prunable_count are scalars in it
analyses                  by task: signature, settings, tokens (T), notes, command
sets                      by task/name: counts, σ, the SHA-256 of each file
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensikit.errors import RunError

FORMAT = 2

_FIELDS = {
    "version": str, "versions": dict, "direction": str, "provenance": dict, "languages": dict, "parameters": list,
    "parameter_count": int, "prunable_count": int, "analyses": dict, "sets": dict,
}  # fmt: skip
_LANGUAGE = {"name": str, "family": str, "tier": str, "sizes": dict}
_ANALYSIS = {"signature": str, "settings": dict, "tokens": int, "notes": list, "command": str}
_PROVENANCE = dict.fromkeys(("framework", "checkpoint", "checkpoint_sha256", "data", "data_sha256"), str)


def check(manifest: Any, where: Path) -> None:
    """Refuse what is no manifest of this format, or lacks a field.

    Args:
        manifest: what was read.
        where: from which file.

    Raises:
        RunError: naming the first field that is missing or of another type.
    """
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise RunError(where, f"is not of format {FORMAT}", "analyze again with this version")
    _hold(manifest, _FIELDS, "", where)
    _hold(manifest["provenance"], _PROVENANCE, "the provenance's ", where)
    for code, language in manifest["languages"].items():
        _hold(language, _LANGUAGE, f"{code}'s ", where)
        if any(type(size) is not int for size in language["sizes"].values()) or "train" not in language["sizes"]:
            raise _lacks(f"{code}'s sizes", where)
    for task, analysis in manifest["analyses"].items():
        _hold(analysis, _ANALYSIS, f"the {task} analysis's ", where)
    for name, noted in manifest["sets"].items():
        _hold(noted, {"files": dict}, f"{name}'s ", where)
        if "/rest-" in name:
            _hold(noted, {"sigma": float}, f"{name}'s ", where)
    for field in ("languages", "analyses"):
        if not manifest[field]:
            raise _lacks(f"any {field}", where)


def _hold(found: Any, kinds: Mapping[str, type], whose: str, where: Path) -> None:
    for field, kind in kinds.items():
        if not isinstance(found, dict) or type(found.get(field)) is not kind:
            raise _lacks(f"{whose}{field}", where)


def _lacks(what: str, where: Path) -> RunError:
    return RunError(where, f"lacks {what}", "it is damaged; analyze again")
