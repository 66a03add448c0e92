"""The directory of an evaluation: what each system made of each test set, whole or not there, and of what, and how.

manifest.json                   systems with their checkpoints' SHA-256, data, languages, settings, every text's SHA-256
hypotheses/SYSTEM.LANG.txt      references/LANG.txt      a sentence each line
evaluation.csv  tiers.csv  significance.csv  tables/     made of the texts, every time anew
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensikit.backends.base import Translations
from sensikit.errors import DataError, RunError
from sensikit.files import lines, partials, read_json, sha256, write_json, write_text

FORMAT = 1
KIND = "evaluation"


class Translated:
    """An evaluation directory: its path and its manifest."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    def begin(cls, path: Path, facts: Mapping[str, Any], resume: bool) -> Translated:
        """Return the directory at `path`: a new one, or with `resume` the one that stands there. Nothing is written.

        Args:
            path: where.
            facts: of the manifest. What is resumed must agree in direction, data, settings, and the checkpoint of each
                system; systems and languages may be added.
            resume: go on with what an earlier call left, if it left anything.

        Raises:
            RunError: if something else stands there, or what stands there (without `resume`), or it was made of
                something else (with it).
        """
        manifest = {"format": FORMAT, "kind": KIND, **facts}
        if resume and (path / "manifest.json").exists():
            before = _read(path)
            _check_same(path, before, manifest)
            manifest["files"] = before["files"]
        elif path.exists() and (not path.is_dir() or set(path.iterdir()) - {path / ".lock", *partials(path)}):
            raise RunError(path, "already exists", "choose another --out, or --resume what is there")
        else:
            manifest["files"] = {}
        return cls(path, manifest)

    @classmethod
    def open(cls, path: Path) -> Translated:
        """Return the evaluation at `path`.

        Raises:
            RunError: if it is none, or damaged.
        """
        return cls(path, _read(path))

    def save(self) -> None:
        """Write the manifest, in one step."""
        write_json(self.path / "manifest.json", self.manifest)

    def has(self, system: str, language: str) -> bool:
        """Return whether a test set was translated, and it and its references are as they were written."""
        names = _hypotheses(system, language), _references(language)
        return all(self._whole(name) for name in names)

    def keep(self, system: str, language: str, found: Translations) -> None:
        """Store a translated test set and its references, and note both in the manifest, last of all.

        Raises:
            DataError: if an earlier system has other references.
        """
        name, reference = _hypotheses(system, language), _references(language)
        if not self._whole(reference):
            noted = {"from": found.references_from}
            self._write(reference, found.references, noted)
        elif lines(self.path / reference) != found.references:
            problem = "are not those that an earlier system was given"
            raise DataError(f"the references of {system}, {language}", problem, "give checkpoints of the same data")
        self._write(name, found.hypotheses, {"truncated": found.truncated})
        self.save()

    def hypotheses(self, system: str, language: str) -> list[str]:
        """Return the translation of a test set, a line each."""
        return lines(self.path / _hypotheses(system, language))

    def references(self, language: str) -> list[str]:
        """Return the references of a language, a line each."""
        return lines(self.path / _references(language))

    def noted(self, system: str, language: str) -> dict[str, Any]:
        """Return what is known of a translated test set: sha256, sentences, truncated, and `from`: its references."""
        files = self.manifest["files"]
        return {"from": files[_references(language)]["from"], **files[_hypotheses(system, language)]}

    def _whole(self, name: str) -> bool:
        noted, path = self.manifest["files"].get(name), self.path / name
        return noted is not None and path.is_file() and sha256(path) == noted["sha256"]

    def _write(self, name: str, text: list[str], facts: dict[str, Any]) -> None:
        write_text(self.path / name, "".join(f"{line}\n" for line in text))
        self.manifest["files"][name] = {"sha256": sha256(self.path / name), "sentences": len(text), **facts}


def _hypotheses(system: str, language: str) -> str:
    return f"hypotheses/{system}.{language}.txt"


def _references(language: str) -> str:
    return f"references/{language}.txt"


def _read(path: Path) -> dict[str, Any]:
    where = path / "manifest.json"
    manifest = read_json(where, RunError)
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise RunError(path, "is not an evaluation", "choose another --out")
    if manifest.get("format") != FORMAT:
        raise RunError(where, f"is not of format {FORMAT}", "evaluate again with this version")
    kinds = {"direction": str, "data": dict, "settings": dict, "systems": dict, "files": dict}
    for field, kind in kinds.items():
        if type(manifest.get(field)) is not kind:
            raise RunError(where, f"lacks {field}", "it is damaged; evaluate again")
    return manifest


def _check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    def differ(what: str, was: Any, given: Any) -> RunError:
        return RunError(path, f"was made with {what} {was}, not {given}", "keep it, or choose another --out")

    if before["direction"] != now["direction"]:
        raise differ("direction", before["direction"], now["direction"])
    if before["data"].get("sha256") != now["data"]["sha256"]:
        raise differ("data", str(before["data"].get("sha256"))[:8], now["data"]["sha256"][:8])
    for name, value in now["settings"].items():
        if before["settings"].get(name) != value:
            raise differ(name, before["settings"].get(name), value)
    for system, facts in before["systems"].items():
        if system not in now["systems"]:
            raise RunError(path, f"holds {system} too", "give its checkpoint as well, or choose another --out")
        was, given = facts["sha256"], now["systems"][system]["sha256"]
        if was != given:
            problem = f"holds {system} of another checkpoint ({was[:8]}, not {given[:8]})"
            raise RunError(path, problem, "give this one another --label, or choose another --out")
