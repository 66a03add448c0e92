"""The manifest of `sensikit corpus`: what the languages are called, and what every file hashes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sensikit.errors import DataError
from sensikit.files import read_json, sha256, unreadable
from sensikit.languages import THRESHOLDS, Group, Pair, grouped, standard
from sensikit.settings import Tiers


def read_manifest(root: Path) -> dict[str, Any] | None:
    """Return the manifest of a data directory, or None if it has none; one of something else is none."""
    if not root.is_dir():
        raise DataError(root, "is not a directory" if root.exists() else "does not exist", "give a data directory")
    path = root / "manifest.json"
    if not path.is_file():
        return None
    manifest = read_json(path, DataError)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("languages", {}), dict):
        raise DataError(path, "is not a manifest of sensikit corpus", "make the data again")
    return manifest if {"languages", "files"} & {*manifest} else None


def digest(path: Path, root: Path, manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a file of a data directory; refuse one that is not what the manifest says it was."""
    try:
        found = sha256(path)
    except OSError as error:
        raise unreadable(path, error) from error
    noted = manifest.get("files")
    if isinstance(noted, dict) and noted.get(path.relative_to(root).as_posix(), found) != found:
        raise DataError(path, "is not what the manifest says it was", "make the data again with sensikit corpus")
    return found


def group_of(key: str, pair: Pair | None, sizes: Mapping[str, int], manifest: Mapping[str, Any], tiers: Tiers) -> Group:
    """Return the group of a pair, or of a language alone, with what a manifest knows of its languages and tiers.

    `tiers` stand in place of what the manifest, which may be empty, knows of them; see `sensikit.languages.grouped`.
    """
    kept = manifest.get("tiers")
    high, low = (kept.get(name) if isinstance(kept, dict) else None for name in ("high", "low"))
    thresholds = tiers.thresholds or ((high, low) if isinstance(high, int) and isinstance(low, int) else THRESHOLDS)
    languages = {code: entry for code, entry in manifest.get("languages", {}).items() if isinstance(entry, dict)}
    names = ("name", "family") if tiers.thresholds else ("name", "family", "tier")
    noted = {code: {name: str(entry[name]) for name in names if entry.get(name)} for code, entry in languages.items()}
    group = grouped(key, pair, sizes, noted, thresholds)
    mono = languages.get(key, {}).get("mono") if pair else None
    return replace(
        group, tier=tiers.levels.get(standard(key), group.tier), mono=mono if type(mono) is int and mono > 0 else None
    )
