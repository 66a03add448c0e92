"""Languages by their ISO 639-3 codes: what they are called, whom they are related to, how much text they have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sensikit.errors import OptionError

ENGLISH = "eng"
HIGH, LOW, VERY_LOW = "High", "Low", "Very Low"
THRESHOLDS = (1_000_000, 100_000)
"""Fewest training pairs of a High and of a Low language; fewer still is Very Low (the paper's Table 7)."""

LANGUAGES: dict[str, tuple[str, str]] = {
    # M15 (Table 7), with the families of the paper
    "nso": ("Northern Sotho", "Central Narrow Bantu"),
    "run": ("Rundi", "Central Narrow Bantu"),
    "ssw": ("Swati", "Central Narrow Bantu"),
    "ind": ("Indonesian", "Malayo-Polynesian"),
    "msa": ("Malay", "Malayo-Polynesian"),
    "tgl": ("Tagalog", "Malayo-Polynesian"),
    "nob": ("Norwegian Bokmål", "North Germanic"),
    "isl": ("Icelandic", "North Germanic"),
    "fao": ("Faroese", "North Germanic"),
    "slv": ("Slovene", "Southwestern Slavic"),
    "ltz": ("Luxembourgish", "Western Germanic"),
    "lim": ("Limburgish", "Western Germanic"),
    "cat": ("Catalan", "Western Romance"),
    "glg": ("Galician", "Western Romance"),
    "fur": ("Friulian", "Western Romance"),
    # M8: six Congo languages and two North-Central Atlantic ones
    "fuv": ("Nigerian Fulfulde", "North-Central Atlantic"),
    "wol": ("Wolof", "North-Central Atlantic"),
    "kmb": ("Kimbundu", "Congo"),
    "lug": ("Ganda", "Congo"),
    "nya": ("Chewa", "Congo"),
    "swh": ("Swahili", "Congo"),
    "umb": ("Umbundu", "Congo"),
    "zul": ("Zulu", "Congo"),
    # others that text is often found in
    "afr": ("Afrikaans", "Western Germanic"),
    "ara": ("Arabic", "Semitic"),
    "bel": ("Belarusian", "Eastern Slavic"),
    "ben": ("Bengali", "Indo-Aryan"),
    "bul": ("Bulgarian", "Southeastern Slavic"),
    "ces": ("Czech", "Western Slavic"),
    "cym": ("Welsh", "Brythonic"),
    "dan": ("Danish", "North Germanic"),
    "deu": ("German", "Western Germanic"),
    "ell": ("Greek", "Hellenic"),
    "eng": ("English", "Western Germanic"),
    "epo": ("Esperanto", "Constructed"),
    "est": ("Estonian", "Finnic"),
    "eus": ("Basque", "Isolate"),
    "fas": ("Persian", "Iranian"),
    "fin": ("Finnish", "Finnic"),
    "fra": ("French", "Western Romance"),
    "fry": ("Western Frisian", "Western Germanic"),
    "gle": ("Irish", "Goidelic"),
    "hau": ("Hausa", "Chadic"),
    "heb": ("Hebrew", "Semitic"),
    "hin": ("Hindi", "Indo-Aryan"),
    "hrv": ("Croatian", "Southwestern Slavic"),
    "hun": ("Hungarian", "Ugric"),
    "hye": ("Armenian", "Armenian"),
    "ibo": ("Igbo", "Igboid"),
    "ita": ("Italian", "Italo-Dalmatian"),
    "jpn": ("Japanese", "Japonic"),
    "kat": ("Georgian", "Kartvelian"),
    "kin": ("Kinyarwanda", "Central Narrow Bantu"),
    "kor": ("Korean", "Koreanic"),
    "lav": ("Latvian", "Baltic"),
    "lit": ("Lithuanian", "Baltic"),
    "mkd": ("Macedonian", "Southeastern Slavic"),
    "mon": ("Mongolian", "Mongolic"),
    "nld": ("Dutch", "Western Germanic"),
    "nno": ("Norwegian Nynorsk", "North Germanic"),
    "pol": ("Polish", "Western Slavic"),
    "por": ("Portuguese", "Western Romance"),
    "ron": ("Romanian", "Eastern Romance"),
    "rus": ("Russian", "Eastern Slavic"),
    "slk": ("Slovak", "Western Slavic"),
    "sot": ("Southern Sotho", "Central Narrow Bantu"),
    "spa": ("Spanish", "Western Romance"),
    "sqi": ("Albanian", "Albanian"),
    "srp": ("Serbian", "Southwestern Slavic"),
    "swe": ("Swedish", "North Germanic"),
    "tam": ("Tamil", "Dravidian"),
    "tha": ("Thai", "Tai"),
    "tsn": ("Tswana", "Central Narrow Bantu"),
    "tur": ("Turkish", "Oghuz Turkic"),
    "ukr": ("Ukrainian", "Eastern Slavic"),
    "vie": ("Vietnamese", "Vietic"),
    "xho": ("Xhosa", "Central Narrow Bantu"),
    "yor": ("Yoruba", "Yoruboid"),
    "zho": ("Chinese", "Sinitic"),
}

# two letters (and the old three-letter codes) to ISO 639-3; macrolanguages to the member that the paper names
_ALIASES = """
    af:afr ar:ara be:bel bg:bul bn:ben ca:cat cs:ces cy:cym da:dan de:deu el:ell en:eng eo:epo es:spa et:est eu:eus
    fa:fas ff:fuv fi:fin fo:fao fr:fra fy:fry ga:gle gl:glg ha:hau he:heb hi:hin hr:hrv hu:hun hy:hye id:ind ig:ibo
    is:isl it:ita ja:jpn ka:kat ko:kor lb:ltz lg:lug li:lim lt:lit lv:lav mk:mkd mn:mon ms:msa nb:nob nl:nld nn:nno
    no:nob ny:nya pl:pol pt:por rn:run ro:ron ru:rus rw:kin sk:slk sl:slv sq:sqi sr:srp ss:ssw st:sot sv:swe sw:swh
    swa:swh ta:tam th:tha tl:tgl fil:tgl tn:tsn tr:tur uk:ukr vi:vie wo:wol xh:xho yo:yor zh:zho zu:zul
"""
ALIASES = dict(pair.split(":") for pair in _ALIASES.split())
_CHINESE_SCRIPTS = {"CN": "Hans", "SG": "Hans", "TW": "Hant", "HK": "Hant", "MO": "Hant"}
_CODE = re.compile(r"([A-Za-z]{2,3})(?:[-_@.].*)?")


def canonical(name: str) -> str | None:
    """Return the code of a locale or language name such as ca, nb_NO, cat, zh-hans or sr@latin; None if it is none.

    A region is dropped (pt_BR is por); a script or variant stays, as in FLORES (zho_Hans, srp_Latin).
    """
    match = _CODE.fullmatch(name)
    if match is None:
        return None
    short = match.group(1).lower()
    code = ALIASES.get(short, short if len(short) == 3 else None)
    if code is None:
        return None
    variants = [part for part in re.split(r"[-_@.]", name)[1:] if part and part.lower() not in ("utf", "utf8", "8")]
    kept = [part.capitalize() for part in variants if not _is_region(part)]
    if code == "zho" and not kept:
        kept = [_CHINESE_SCRIPTS[part.upper()] for part in variants if part.upper() in _CHINESE_SCRIPTS]
    return "_".join([code, *kept])


def _is_region(part: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z]{2}|\d{3}", part))


def tier(pairs: int, high: int = THRESHOLDS[0], low: int = THRESHOLDS[1]) -> str:
    """Return High, Low or Very Low for a language of so many training pairs."""
    return HIGH if pairs >= high else LOW if pairs >= low else VERY_LOW


def read_tiers(text: str) -> tuple[int, int]:
    """Return the two thresholds of an option such as 50000,5000.

    Raises:
        OptionError: if they are not two numbers, the larger one first.
    """
    try:
        high, low = (int(part) for part in text.split(","))
    except ValueError:
        high, low = 0, 1
    if not high >= low > 0:
        raise OptionError("--tiers", f"{text!r} is not two thresholds", "give HIGH,LOW such as 1000000,100000")
    return high, low


def read_name(text: str) -> tuple[str, tuple[str, str, str]]:
    """Return (code, (name, family, tier)) of an option such as cat=Catalan:Western Romance; empty means as usual.

    Raises:
        OptionError: if it does not have that form, or the tier is none of the three.
    """
    code, equals, rest = text.partition("=")
    name, family, level, *more = [*rest.split(":"), "", ""]
    tiers = {each.lower(): each for each in (HIGH, LOW, VERY_LOW, "")}
    if not (code and equals and rest) or any(more) or level.lower() not in tiers or canonical(code) is None:
        raise OptionError(
            "--name", f"{text!r} is not CODE=NAME:FAMILY or CODE=NAME:FAMILY:TIER", "as in cat=Catalan:Romance"
        )
    return canonical(code) or code, (name, family, tiers[level.lower()])


@dataclass(frozen=True)
class Group:
    """What sensitivities are compared over: the pairs of two languages, or the sentences of one.

    Attributes:
        key: its name in files and tables: the language that tells it from the others, or SOURCE-TARGET.
        source: code of the source language, as the model has it; None of a language alone.
        target: code of the target language.
        name: in words, such as Catalan, or Catalan→French.
        family: of the language that tells it from the others; of the source, where both do.
        tier: High, Low or Very Low.
        sizes: examples by split.
    """

    key: str
    source: str | None
    target: str | None
    name: str
    family: str
    tier: str
    sizes: dict[str, int] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Return what a manifest says of the group under its key."""
        return {name: value for name, value in asdict(self).items() if name != "key"}


Pair = tuple[str, str]
"""(source, target)."""


def keyed(pairs: Sequence[Pair]) -> dict[str, Pair]:
    """Return pairs by the keys of their groups: the side that tells them apart, or SOURCE-TARGET where both do.

    >>> keyed([("cat", "eng"), ("fao", "eng")])
    {'cat': ('cat', 'eng'), 'fao': ('fao', 'eng')}
    >>> list(keyed([("cat", "fra"), ("cat", "eng"), ("spa", "fra")]))
    ['cat-fra', 'cat-eng', 'spa-fra']
    """
    sources, targets = (len({pair[side] for pair in pairs}) for side in (0, 1))
    if targets == 1:
        return {source: (source, target) for source, target in pairs}
    if sources == 1:
        return {target: (source, target) for source, target in pairs}
    return {"-".join(pair): pair for pair in pairs}


def direction_of(pairs: Sequence[Pair], trained: Sequence[Pair]) -> str:
    """Return what `select` finds some pairs again by: "xxx-eng", "eng-xxx", or the pairs themselves, joined by +.

    >>> trained = [("cat", "eng"), ("fao", "eng"), ("isl", "eng")]
    >>> direction_of(trained, trained), direction_of(trained[:2], trained)
    ('xxx-eng', 'cat-eng+fao-eng')
    """
    named = (name for name, those in views(trained).items() if those == list(pairs))
    return next(named, "+".join("-".join(pair) for pair in pairs))


def select(trained: Sequence[Pair], direction: str | None = None, pairs: Sequence[str] | None = None) -> list[Pair]:
    """Return those of the pairs that a model was trained on that are asked for, in the order of training.

    Args:
        trained: (source, target) of each.
        direction: "xxx-LANG" or "LANG-xxx": all pairs into or out of one language; or pairs, joined by +. None takes
            the pairs into the language that all have in common, else those out of it; where there is none, all pairs.
        pairs: "cat-fra" and so on.

    Raises:
        OptionError: if the model was not trained on one of them.
    """
    option = "--direction" if pairs is None else "--pairs"
    if pairs is None and direction is not None and ("+" in direction or "xxx" not in direction.split("-")):
        pairs = direction.split("+")
    if pairs is not None:
        own = {"-".join(pair): pair for pair in trained}
        known = {"-".join(map(_shown, pair)): pair for pair in trained} | own
        unknown = [pair for pair in pairs if pair not in known]
        if unknown or not pairs:
            problem = f"the model was not trained on {unknown[0]}" if unknown else "names no pair"
            raise OptionError(option, problem, f"choose among {', '.join(own)}")
        wanted = {known[pair] for pair in pairs}
        return [pair for pair in trained if pair in wanted]
    found = views(trained)
    if direction is None:
        return next(iter(found.values())) if hub_of(trained) else list(trained)
    if direction not in found:
        raise OptionError("--direction", f"the model was not trained on {direction}", f"give {' or '.join(found)}")
    return found[direction]


def views(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Return the pairs into, and out of, each language that has several of them (or is common to all), by direction.

    Those of the language that all pairs have in common come first.
    """
    hub = hub_of(pairs)
    languages = sorted(dict.fromkeys(code for pair in pairs for code in pair), key=lambda code: code != hub)
    found: dict[str, list[Pair]] = {}
    for code in languages:
        for name, side in ((f"xxx-{_shown(code)}", 1), (f"{_shown(code)}-xxx", 0)):
            those = [pair for pair in pairs if pair[side] == code]
            if len(those) > 1 or (those and code == hub):
                found.setdefault(name, those)  # of two codes of one language, the first
    return found


def hub_of(pairs: Sequence[Pair]) -> str:
    """Return the language that all pairs have in common, the target of a single pair; or nothing."""
    common = set.intersection(*(set(pair) for pair in pairs))
    return (common & {pairs[0][1]} or common or {""}).pop()


def _shown(code: str) -> str:
    """Return the code that a direction is written with: ISO 639-3 where it is known."""
    return canonical(code) or code


def chosen_groups(known: Sequence[str], groups: Sequence[str] | None) -> list[str]:
    """Return the groups that are asked for (all by default), in the order of `known`.

    Raises:
        OptionError: if one is unknown, or none is named.
    """
    unknown = [key for key in groups or () if key not in known]
    if unknown or (groups is not None and not groups):
        problem = f"{unknown[0]} is no group here" if unknown else "names no group"
        raise OptionError("--groups", problem, f"choose among {', '.join(known)}")
    return [key for key in known if groups is None or key in groups]


def grouped(
    key: str,
    pair: Pair | None,
    sizes: Mapping[str, int],
    noted: Mapping[str, Mapping[str, Any]] | None = None,
) -> Group:
    """Return the group of a pair, or of a language alone.

    Args:
        key: see `keyed`.
        pair: (source, target); None where `key` is a language.
        sizes: examples by split; the tier follows from `train`.
        noted: name, family and tier by language, where the data's manifest has them.
    """
    codes = [key] if pair is None or key in pair else list(pair)
    found = [{**asdict(language(_shown(code), sizes)), **(noted or {}).get(code, {})} for code in codes]
    return Group(
        key=key,
        source=pair[0] if pair else None,
        target=pair[1] if pair else None,
        name="→".join(str(each["name"]) for each in found),
        family=str(found[0]["family"]),
        tier=str(found[0]["tier"]) if len(found) == 1 else tier(sizes.get("train", 0)),
        sizes=dict(sizes),
    )


@dataclass(frozen=True)
class Language:
    """What is known of a language: its ISO 639-3 code, name, family and tier, and examples by split."""

    code: str
    name: str
    family: str
    tier: str
    sizes: dict[str, int] = field(default_factory=dict)


def language(
    code: str,
    sizes: Mapping[str, int],
    thresholds: tuple[int, int] = THRESHOLDS,
    overrides: Mapping[str, tuple[str, str, str]] | None = None,
) -> Language:
    """Return what is known of a language; one that nobody has named has its code as its name and an unknown family.

    Args:
        code: ISO 639-3, with a script where there is one.
        sizes: sentence pairs by split; the tier follows from `train`.
        thresholds: fewest training pairs of a High and of a Low language.
        overrides: name, family and tier by code, each empty where the table is right.
    """
    known_name, known_family = LANGUAGES.get(code) or LANGUAGES.get(code.split("_")[0]) or (code, "unknown")
    name, family, level = (overrides or {}).get(code, ("", "", ""))
    return Language(
        code=code,
        name=name or known_name,
        family=family or known_family,
        tier=level or tier(sizes.get("train", 0), *thresholds),
        sizes=dict(sizes),
    )
