"""Languages by their ISO 639-3 codes: what they are called, whom they are related to, how much text they have."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from sensikit.errors import OptionError

if TYPE_CHECKING:
    from langcodes import Language as Tag

ENGLISH = "eng"
TIERS = HIGH, LOW, VERY_LOW = "High", "Low", "Very Low"
_LEVELS = {each.lower(): each for each in TIERS}
UNKNOWN = "Unknown"
ALONE = "xxx"
"""The direction of groups that are languages alone."""
THRESHOLDS = (1_000_000, 100_000)
"""Fewest training pairs of a High and of a Low language; fewer still is Very Low (the paper's Table 7)."""

NO_FAMILY = "unknown"
# the paper's own for M15 (Table 7) and M8; the others, of FLORES-200 all, are named as finely
_FAMILIES = {
    "Albanian": "sqi",
    "Armenian": "hye",
    "Aymaran": "aym",
    "Baltic": "lav lit ltg",
    "Berber": "kab taq tzm",
    "Brythonic": "bre cor cym",
    "Central Narrow Bantu": "bem cjk kam kik kin kon lua nso run sna sot ssw tsn tso tum xho",
    "Chadic": "hau",
    "Congo": "kmb lug nya swh umb zul",
    "Constructed": "epo",
    "Cushitic": "orm som",
    "Dravidian": "kan mal tam tel",
    "Eastern Romance": "ron",
    "Eastern Slavic": "bel rue rus ukr",
    "English Creole": "tpi",
    "Finnic": "est fin",
    "French Creole": "hat",
    "Goidelic": "gla gle glv",
    "Gur": "kbp mos",
    "Hellenic": "ell",
    "Hmong-Mien": "hmn",
    "Igboid": "ibo",
    "Indo-Aryan": "asm awa ben bho guj hin hne kas mag mai mar nep ori pan san sin snd urd",
    "Iranian": "ckb fas kur oss pbt pus tgk",
    "Isolate": "eus",
    "Italo-Dalmatian": "cos ita scn",
    "Japonic": "jpn",
    "Jingpho-Luish": "kac",
    "Karluk Turkic": "uig uzb",
    "Kartvelian": "kat",
    "Khmeric": "khm",
    "Kipchak Turkic": "bak crh kaa kaz kir tat",
    "Koreanic": "kor",
    "Kuki-Chin-Naga": "lus mni",
    "Kwa": "aka ewe fon twi",
    "Lolo-Burmese": "mya",
    "Malayo-Polynesian": "ace ban bjn bug ceb ilo ind jav min mlg msa pag sun tgl war",
    "Mande": "bam dyu",
    "Mongolic": "bua mon",
    "Munda": "sat",
    "Nilotic": "din luo nus",
    "North Germanic": "dan fao isl nno nob swe",
    "North-Central Atlantic": "fuv wol",
    "Northwest Narrow Bantu": "lin",
    "Oceanic": "fij haw mri smo tah ton",
    "Oghur Turkic": "chv",
    "Oghuz Turkic": "azb aze tuk tur",
    "Portuguese Creole": "kea pap",
    "Quechuan": "que quy",
    "Saharan": "kau",
    "Sami": "sme",
    "Semitic": "acm acq aeb ajp amh apc ara ars ary arz heb mlt tir",
    "Siberian Turkic": "sah tyv",
    "Sinitic": "hak nan wuu yue zho",
    "Southeastern Slavic": "bul mkd",
    "Southern Romance": "srd",
    "Southwestern Slavic": "bos cnr hrv slv srp",
    "Tai": "lao shn tha",
    "Tibetic": "bod dzo",
    "Tupian": "grn",
    "Ubangi": "sag",
    "Ugric": "hun",
    "Vietic": "vie",
    "Western Germanic": "afr bar deu eng fry gsw lim ltz nds nld sco yid",
    "Western Romance": "arg ast cat fra fur glg lij lmo oci por roh spa vec wln",
    "Western Slavic": "ces csb dsb hsb pol slk szl",
    "Yoruboid": "yor",
}
FAMILIES = {code: family for family, codes in _FAMILIES.items() for code in codes.split()}
_NAMES = {"nya": "Chewa", "slv": "Slovene", "tgl": "Tagalog"}  # the paper's, where the tables of langcodes have another
_MEMBERS = {"ful": "fuv", "nor": "nob", "swa": "swh", "fil": "tgl"}
"""Codes of macrolanguages, and of the one standard of Tagalog, to the language that the paper names."""
_CHINESE_SCRIPTS = {"CN": "Hans", "SG": "Hans", "TW": "Hant", "HK": "Hant", "MO": "Hant"}
_NOT_LANGUAGES = {"dev", "raw", "all", "old", "tmp"}
"""Codes of languages that few write in, and so more likely something else in the name of a file."""
# language, then scripts, regions and variants; a locale ends with its encoding and a variant
_NAME = re.compile(
    r"([A-Za-z]{2,3})((?:[-_](?:[A-Za-z]{2}|\d{3}|[A-Za-z\d]{4,}))*)(?:\.[\w-]+)?(?:@([A-Za-z\d]+))?", re.ASCII
)


@functools.cache
def canonical(name: str) -> str | None:
    """Return the ISO 639-3 code of a language code or locale; None if it is neither.

    A region is dropped, and so is the script that the language usually has; another script or a variant stays. Chinese
    keeps its script, or has that of its region. Three letters that no standard knows are a code too.

    >>> [canonical(name) for name in ("ca", "pt_BR", "en_XX", "cat_Latn", "zho_Hans", "zh_TW", "sr@latin", "xyz")]
    ['cat', 'por', 'eng', 'cat', 'zho_Hans', 'zho_Hant', 'srp_Latin', 'xyz']
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    short, parts = match.group(1).lower(), re.split("[-_]", match.group(2))
    tag = _tag(short)
    try:
        code = tag.to_alpha3()
    except LookupError:
        return None
    if len(short) == 3 and short != tag.to_alpha3("B"):
        code = short  # not fre for fra, but tgl, which langcodes calls fil
    code = _MEMBERS.get(code, code)
    kept = [part.capitalize() for part in (*parts, match.group(3) or tag.script or "") if len(part) > 3]
    if code == "zho":
        kept = kept or [_CHINESE_SCRIPTS[part.upper()] for part in parts if part.upper() in _CHINESE_SCRIPTS]
    elif kept and kept[0] == _tag(code).maximize().script:
        kept = kept[1:]
    return "_".join([code, *kept])


def standard(name: str) -> str:
    """Return the `canonical` code of a language, or the name itself where no standard knows it."""
    return canonical(name) or name


def language_in(part: str) -> str | None:
    """Return the `canonical` code that a part of a file's name is; None if it is more likely something else."""
    return None if part.lower() in _NOT_LANGUAGES else canonical(part)


def matching(name: str, known: Collection[str]) -> list[str]:
    """Return which of some codes a name means: itself; else other spellings of it; else those that it nearly is.

    That is its macrolanguage or a member of it, in the same script; else the language where only one of the two names a
    script. Several are for the caller to refuse.

    >>> flores = ["arb_Arab", "arb_Latn", "cat_Latn", "kor_Hang", "zho_Hans", "zho_Hant"]
    >>> [matching(name, flores) for name in ("cat", "ar", "ko", "zh", "fra")]
    [['cat_Latn'], ['arb_Arab'], ['kor_Hang'], ['zho_Hans', 'zho_Hant'], []]
    """
    own = canonical(name)
    if name in known or own is None:
        return [name] if name in known else []
    codes = {code: other for code in known if (other := canonical(code))}
    if same := [code for code, other in codes.items() if other == own]:
        return same
    language, _, script = own.partition("_")
    split = {code: other.partition("_")[::2] for code, other in codes.items()}
    near = [
        code
        for code, (other, its) in split.items()
        if its == script and (_macrolanguage(other) == language or _macrolanguage(language) == other)
    ]
    return near or [code for code, (other, its) in split.items() if other == language and not (its and script)]


def name_of(code: str) -> str:
    """Return the English name of a language by its `canonical` code; the code itself if it has none.

    >>> name_of("zho_Hans"), name_of("slv"), name_of("xyz")
    ('Chinese', 'Slovene', 'xyz')
    """
    short = code.split("_")[0]
    if short in _NAMES:
        return _NAMES[short]
    # as it is first: normalised, prs (Dari) is fa (Persian)
    names = (_tag(short, normalize).language_name() for normalize in (False, True))
    known = (name.removesuffix(" (individual language)") for name in names if not name.startswith("Unknown language"))
    return next(known, code)


def family_of(code: str) -> str:
    """Return the family of a language by its `canonical` code, or of its macrolanguage; "unknown" if neither has one.

    >>> family_of("cat"), family_of("arb"), family_of("xyz")
    ('Western Romance', 'Semitic', 'unknown')
    """
    short = code.split("_")[0]
    macro = _macrolanguage(short)
    return FAMILIES.get(short) or FAMILIES.get(_MEMBERS.get(macro, macro), NO_FAMILY)


@functools.cache
def _macrolanguage(code: str) -> str:
    return _tag(code).prefer_macrolanguage().to_alpha3()


def _tag(code: str, normalize: bool = True) -> Tag:
    from langcodes import Language

    return Language.get(code, normalize)


def tier(pairs: int | None, high: int = THRESHOLDS[0], low: int = THRESHOLDS[1]) -> str:
    """Return High, Low or Very Low for a language of so many training pairs; Unknown where nobody says how many."""
    if pairs is None:
        return UNKNOWN
    return HIGH if pairs >= high else LOW if pairs >= low else VERY_LOW


def read_tiers(text: str) -> tuple[int, int]:
    """Return the two thresholds of an option such as 50000,5000, the larger one first."""
    try:
        high, low = (int(part) for part in text.split(","))
    except ValueError:
        high, low = 0, 1
    if not high >= low > 0:
        raise OptionError("--tiers", f"{text[:50]!r} is not two thresholds", "give HIGH,LOW such as 1000000,100000")
    return high, low


def read_level(text: str) -> tuple[str, str]:
    """Return (key of a group, tier) of an option such as cat=high or fao=very-low."""
    key, _, level = text.partition("=")
    found = _LEVELS.get(level.strip().lower().replace("-", " "))
    if not key.strip() or not found:
        raise OptionError("--tier", f"{text!r} is not GROUP=high, =low or =very-low", "as in cat=high,fao=very-low")
    return standard(key.strip()), found


def read_name(text: str) -> tuple[str, tuple[str, str, str]]:
    """Return (code, (name, family, tier)) of an option such as cat=Catalan:Western Romance; empty means as usual."""
    code, equals, rest = text.partition("=")
    name, family, level, *more = [*rest.split(":"), "", ""]
    tiers = {**_LEVELS, "": ""}
    if not (code and equals and rest) or any(more) or level.lower() not in tiers or canonical(code) is None:
        problem = f"{text!r} is not CODE=NAME:FAMILY or CODE=NAME:FAMILY:TIER"
        raise OptionError("--name", problem, "as in cat=Catalan:Romance")
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
        tier: High, Low or Very Low; Unknown without a training set.
        sizes: examples by split.
        mono: sentences of text in the language alone, beside its pairs; None where nothing says how many.
    """

    key: str
    source: str | None
    target: str | None
    name: str
    family: str
    tier: str
    sizes: dict[str, int] = field(default_factory=dict)
    mono: int | None = None

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
        known = {"-".join(map(standard, pair)): pair for pair in trained} | own
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
        for name, side in ((f"xxx-{standard(code)}", 1), (f"{standard(code)}-xxx", 0)):
            those = [pair for pair in pairs if pair[side] == code]
            if len(those) > 1 or (those and code == hub):
                found.setdefault(name, those)  # of two codes of one language, the first
    return found


def hub_of(pairs: Sequence[Pair]) -> str:
    """Return the language that all pairs have in common, the target of a single pair; or nothing."""
    common = set.intersection(*(set(pair) for pair in pairs))
    return (common & {pairs[0][1]} or common or {""}).pop()


def common_side(pair: Pair, pairs: Collection[Pair]) -> tuple[str, str]:
    """Return the side of a pair whose sentences tell segments apart, and what they are known by in other pairs.

    It is English, in which test sets overlap, or else the language that all pairs have in common; where there is none,
    the first side in alphabetical order, and "own".

    >>> common_side(("eng", "cat"), [("eng", "cat"), ("fra", "spa")])
    ('eng', 'eng')
    >>> common_side(("cat", "fra"), [("cat", "fra"), ("spa", "fra")]), common_side(("cat", "fra"), [("cat", "fra")])
    (('fra', 'fra'), ('cat', 'own'))
    """
    if english := [code for code in pair if standard(code) == ENGLISH]:
        return english[0], ENGLISH
    hub = set.intersection(*map(set, pairs)) if len(pairs) > 1 else set()
    return (min(hub), standard(min(hub))) if hub else (min(pair), "own")


def chosen_groups(known: Sequence[str], groups: Sequence[str] | None) -> list[str]:
    """Return the groups that are asked for (all by default), in the order of `known`; refuse others, and none."""
    groups = [groups] if isinstance(groups, str) else groups  # one name is no list of letters
    unknown = [key for key in groups or () if key not in known]
    if unknown or (groups is not None and not groups):
        problem = f"{unknown[0]} is no group here" if unknown else "names no group"
        raise OptionError("--groups", problem, f"choose among {', '.join(known)}")
    return [key for key in known if groups is None or key in groups]


def grouped(
    key: str,
    pair: Pair | None,
    sizes: Mapping[str, int],
    noted: Mapping[str, Mapping[str, str]] | None = None,
    thresholds: tuple[int, int] = THRESHOLDS,
) -> Group:
    """Return the group of a pair by its key (see `keyed`), or of the language that is the key.

    The tier follows from `sizes` of the training set and `thresholds`, where `noted`, which has names, families and
    tiers by language, does not say.
    """
    codes = [key] if pair is None or key in pair else list(pair)
    pairs = sizes.get("train")
    found = [{**described(standard(code), pairs, thresholds), **(noted or {}).get(code, {})} for code in codes]
    return Group(
        key=key,
        source=pair[0] if pair else None,
        target=pair[1] if pair else None,
        name="→".join(each["name"] for each in found),
        family=found[0]["family"],
        tier=found[0]["tier"] if len(found) == 1 else tier(pairs, *thresholds),
        sizes=dict(sizes),
    )


def described(
    code: str, pairs: int | None, thresholds: tuple[int, int] = THRESHOLDS, given: tuple[str, str, str] = ("", "", "")
) -> dict[str, str]:
    """Return the name, family and tier of a language by its `canonical` code.

    The tier follows from its training pairs. What is `given` comes first, each empty where it is as usual.
    """
    usual = name_of(code), family_of(code), tier(pairs, *thresholds)
    return {what: own or other for what, own, other in zip(("name", "family", "tier"), given, usual, strict=True)}
