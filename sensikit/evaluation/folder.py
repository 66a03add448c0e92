"""The directory of an evaluation: what each system made of each test set, whole or not there, and of what, and how.

manifest.json                   systems with their checkpoints' SHA-256, recipes that they are seeds of, data, groups,
                                settings, every file's SHA-256
hypotheses/SYSTEM.GROUP.txt     references/GROUP.txt      a sentence each line
losses/SYSTEM.GROUP.npy         nats and target tokens of each sentence
segments/DIGEST.npy             the identities of the sentences, see `resampling.identified`
choice/LENPEN                   evaluations of what was chosen among, and choice.csv, where there was a choice
evaluation.csv  tiers.csv  significance.csv  tables/      made of those, every time anew; the first three are hashed
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from sensikit.backends.base import Translations
from sensikit.errors import DamagedError, DataError, RunError
from sensikit.evaluation.metrics import METRICS
from sensikit.evaluation.resampling import Float, Ids, load_ids, load_sums, save_ids, save_sums
from sensikit.files import lines, safe_name, sha256
from sensikit.folder import Folder

KIND = "evaluation"
CHOICE = "choice"
"""The folder below it of what was chosen among, see `choosing`."""


class Translated(Folder):
    """An evaluation directory: its path and its manifest."""

    KIND, VERB, FORMAT = "an evaluation", "evaluate", 3
    BARE = (CHOICE,)
    FIELDS: ClassVar[Mapping[str, type]] = {
        **dict.fromkeys(("data", "settings", "groups", "systems", "recipes", "files", "tables"), dict),
        **dict.fromkeys(("version", "direction", "baseline", "command"), str),
    }

    @classmethod
    def validate(cls, manifest: Any, where: Path) -> None:
        """Refuse what is not a manifest of an evaluation, or lacks a field.

        Raises:
            RunError: saying what is wrong with it.
        """
        if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
            raise RunError(where.parent, f"is not {cls.KIND}", cls.ELSEWHERE)
        super().validate(manifest, where)
        cls.hold(manifest["data"], {"path": str, "sha256": str}, where, "the data's ")
        cls.hold_groups(manifest["groups"], where)
        for system, facts in manifest["systems"].items():
            cls.hold(facts, {"checkpoint": str, "sha256": str}, where, f"{system}'s ")
        for name, facts in manifest["files"].items():
            kind = name.partition("/")[0]
            known: dict[str, type] = {"sha256": str} | ({} if kind == "segments" else {"sentences": int})
            known |= {"from": str} if kind == "references" else {"truncated": int} if kind == "hypotheses" else {}
            known |= {"segments": str, "known_by": str} if kind in ("hypotheses", "losses") else {}
            cls.hold(facts, known, where, f"{name}'s ")
        cls.hold(manifest["recipes"], dict.fromkeys(manifest["recipes"], list), where, "the seeds of ")

    def take_up(self, facts: Mapping[str, Any]) -> None:
        """Go on with the same direction, data, settings and checkpoints; systems and groups may be added.

        Raises:
            RunError: naming the first that differs.
        """
        for system, noted in self.manifest["systems"].items():
            given = facts["systems"].get(system)
            if given is None:
                raise RunError(self.path, f"holds {system} too", f"give its checkpoint as well, or {self.ELSEWHERE}")
            if given["sha256"] != noted["sha256"]:
                problem = f"holds {system} of another checkpoint ({noted['sha256'][:8]}, not {given['sha256'][:8]})"
                raise RunError(self.path, problem, f"give this one another --label, or {self.ELSEWHERE}")
            ours, theirs = ({"lenpen": "–"} | of.get("chosen", {}) for of in (noted, given))
            if ours["lenpen"] != theirs["lenpen"]:
                problem = f"holds {system} with length penalty {ours['lenpen']}, not {theirs['lenpen']}"
                raise RunError(self.path, problem, self.ELSEWHERE)
        super().take_up(facts)
        kept = {name: self.manifest[name] for name in ("files", "tables")}
        self.manifest = {"format": self.FORMAT, **facts, **kept}

    def compared(self, facts: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        """Yield what must be the same in an evaluation that is resumed."""
        noted = self.manifest
        yield "direction", noted["direction"], facts["direction"]
        yield "SHA-256 of the data", noted["data"]["sha256"], facts["data"]["sha256"]
        yield from ((name, noted["settings"].get(name), value) for name, value in facts["settings"].items())

    def has(self, system: str, group: str, decodes: bool) -> bool:
        """Return whether a test set was translated (else: its losses taken), and all of it is as it was written."""
        return all(map(self._has, self._files(system, group, decodes)))

    def keep(self, system: str, group: str, found: Translations, ids: Ids, known_by: str) -> None:
        """Store a translated test set, its references and segments, and note all in the manifest, last of all.

        Raises:
            DataError: if an earlier system has other references.
        """
        name, reference = _hypotheses(system, group), _references(group)
        if not self._has(reference):
            self._keep(reference, found.references, {"from": found.references_from})
        elif lines(self.path / reference) != found.references:
            problem = "are not those that an earlier system was given"
            raise DataError(f"the references of {system}, {group}", problem, "give checkpoints of the same data")
        self._keep(name, found.hypotheses, {"truncated": found.truncated, **self._keep_ids(ids, known_by)})
        self.save()

    def hypotheses(self, system: str, group: str) -> list[str]:
        """Return the translation of a test set, a line each."""
        return lines(self.path / _hypotheses(system, group))

    def references(self, group: str) -> list[str]:
        """Return the references of a group, a line each."""
        return lines(self.path / _references(group))

    def keep_losses(self, system: str, group: str, sums: Float, ids: Ids, known_by: str) -> None:
        """Store the losses of a test set, (n, 2K + 1), and its segments; note them in the manifest, last of all."""
        name = _losses(system, group)
        facts = {"sha256": save_sums(self.path / name, sums), "sentences": len(sums)}
        self.manifest["files"][name] = {**facts, **self._keep_ids(ids, known_by)}
        self.save()

    def losses(self, system: str, group: str) -> Float:
        """Return the losses of a test set, (n, 2K + 1)."""
        name = _losses(system, group)
        return load_sums(self.path / name, self.manifest["files"][name]["sha256"], "evaluate --resume")

    def ids(self, system: str, group: str, decodes: bool) -> Ids:
        """Return the identities of the segments of what was translated, or whose losses were taken, (n,)."""
        name = (_hypotheses if decodes else _losses)(system, group)
        return load_ids(self.path / self.manifest["files"][name]["segments"], "evaluate --resume")

    @property
    def known_by(self) -> list[str]:
        """What tells the segments of the test sets apart, each once; see `Segments`."""
        return sorted({facts["known_by"] for facts in self.manifest["files"].values() if "known_by" in facts})

    def noted(self, system: str, group: str) -> dict[str, Any]:
        """Return what is known of a translated test set: sha256, sentences, truncated, and `from`: its references."""
        files = self.manifest["files"]
        return {"from": files[_references(group)]["from"], **files[_hypotheses(system, group)]}

    def check(self, metrics: Iterable[str]) -> None:
        """Verify every file that some metrics are of.

        Raises:
            DamagedError: naming the first that is missing or not what was written.
        """
        units = product(self.manifest["systems"], self.manifest["groups"], {METRICS[name].decodes for name in metrics})
        for name in dict.fromkeys(name for unit in units for name in self._files(*unit)):
            if not self._has(name):
                raise DamagedError(self.path / name, "is missing or damaged", "make it again: evaluate --resume")

    def _files(self, system: str, group: str, decodes: bool) -> list[str]:
        """Return what a translated test set, or its losses, consists of: its segments too, where they are noted."""
        own = (_hypotheses if decodes else _losses)(system, group)
        segments = self.manifest["files"].get(own, {}).get("segments")
        return [own, *[_references(group)] * decodes, *[segments] * (segments is not None)]

    def _has(self, name: str) -> bool:
        return self.whole(name, self.manifest["files"].get(name, {}).get("sha256"))

    def _keep_ids(self, ids: Ids, known_by: str) -> dict[str, str]:
        name = f"segments/{save_ids(self.path / 'segments', ids)}"
        self.manifest["files"][name] = {"sha256": sha256(self.path / name)}
        return {"segments": name, "known_by": known_by}

    def _keep(self, name: str, text: list[str], facts: dict[str, Any]) -> None:
        self.manifest["files"][name] = {"sha256": self.write_lines(name, text), "sentences": len(text), **facts}


def _hypotheses(system: str, group: str) -> str:
    return f"hypotheses/{safe_name(f'{system}.{group}')}.txt"


def _losses(system: str, group: str) -> str:
    return f"losses/{safe_name(f'{system}.{group}')}.npy"


def _references(group: str) -> str:
    return f"references/{safe_name(group)}.txt"
