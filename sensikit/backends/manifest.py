"""The manifest of `sensikit corpus`: what the languages are called, and what every file hashes to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensikit.errors import DataError
from sensikit.files import read_json, sha256, unreadable
from sensikit.languages import THRESHOLDS, Group, Pair, grouped


def read_manifest(root: Path) -> dict[str, Any] | None:
    """Return the manifest of a data directory, or None if it has none.

    Raises:
        DataError: if `root` is no directory, or its manifest is damaged.
    """
    if not root.is_dir():
        raise DataError(root, "is not a directory" if root.exists() else "does not exist", "give a data directory")
    path = root / "manifest.json"
    if not path.is_file():
        return None
    manifest = read_json(path, DataError)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("languages", {}), dict):
        raise DataError(path, "is not a manifest of sensikit corpus", "make the data again")
    return manifest


def digest(path: Path, root: Path, manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a file of a data directory.

    Raises:
        DataError: if it cannot be read, or is not what the manifest says it was.
    """
    try:
        found = sha256(path)
    except OSError as error:
        raise unreadable(path, error) from error
    noted = manifest.get("files")
    if isinstance(noted, dict) and noted.get(path.relative_to(root).as_posix(), found) != found:
        raise DataError(path, "is not what the manifest says it was", "make the data again with sensikit corpus")
    return found


def group_of(key: str, pair: Pair | None, sizes: Mapping[str, int], manifest: Mapping[str, Any]) -> Group:
    """Return the group of a pair, or of a language alone, with what a manifest knows of its languages and tiers.

    Args:
        key: see `sensikit.languages.grouped`.
        pair: (source, target); None of a language alone.
        sizes: examples by split.
        manifest: empty where there is none.
    """
    tiers = manifest.get("tiers")
    high, low = (tiers.get(name) if isinstance(tiers, dict) else None for name in ("high", "low"))
    thresholds = (high, low) if isinstance(high, int) and isinstance(low, int) else THRESHOLDS
    noted = {
        code: {name: str(entry[name]) for name in ("name", "family", "tier") if entry.get(name)}
        for code, entry in manifest.get("languages", {}).items()
        if isinstance(entry, dict)
    }
    return grouped(key, pair, sizes, noted, thresholds)
