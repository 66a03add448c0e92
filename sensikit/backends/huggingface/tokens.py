"""Text as a model's own tokenizer cuts it, with the tags of languages where the model's family puts them.

Families differ in what stands around a text (Y is the translation of X):

    NLLB, M2M100, mBART-50    encoder: <src> X </s>     decoder starts with </s> and says <tgt> Y </s>
    mBART-25                  encoder: X </s> <src>     decoder starts with <tgt> and says Y </s> <tgt>
    Marian (OPUS-MT)          encoder: >>tgt<< X </s>   decoder starts with <pad> and says Y </s>
    T5, mT5, MADLAD           encoder: <2tgt> X </s>    decoder starts with <pad> and says Y </s>
    sensikit, exported        encoder: X <tgt>          decoder starts with <tgt> and says Y </s>

Ids are put together here and not by the tokenizer's own settings: NLLB's takes an unknown language for <unk> and a
missing one for the source's, without a word, and Marian's and T5's take an unknown tag for text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sensikit.backends.huggingface import compat
from sensikit.backends.huggingface.directory import Directory
from sensikit.errors import CheckpointError, OptionError, said
from sensikit.files import read_json
from sensikit.languages import Pair, matching

Ids = list[int]


@dataclass(frozen=True)
class Scheme:
    """Where a family puts tags: `tag` finds them in the vocabulary, its group is the language.

    `source` and `target` say what stands on a side, of src, tgt, text, eos; `start` what the decoder starts with: the
    configuration's own token, or tgt. A tag `as_text` goes through the tokenizer in front of the text.
    """

    tag: re.Pattern[str] | None
    source: tuple[str, ...] = ("text", "eos")
    target: tuple[str, ...] = ("text", "eos")
    start: str = "own"
    as_text: bool = False


_NLLB, _M2M, _MBART = map(re.compile, (r"([a-z]{3}_[A-Z][a-z]{3})", r"__(\w+)__", r"([a-z]{2}_[A-Z]{2})"))
_TAGGED = ("src", "text", "eos"), ("tgt", "text", "eos")

SCHEMES = {
    "sensikit": Scheme(_M2M, ("text", "tgt"), ("text", "eos"), start="tgt"),
    "nllb": Scheme(_NLLB, *_TAGGED),
    "nllb-legacy": Scheme(_NLLB, ("text", "eos", "src"), _TAGGED[1]),
    "m2m_100": Scheme(_M2M, *_TAGGED),
    "mbart-50": Scheme(_MBART, *_TAGGED),
    "mbart-25": Scheme(_MBART, ("text", "eos", "src"), ("text", "eos", "tgt"), start="tgt"),
    "marian": Scheme(re.compile(r">>(\w+)<<"), as_text=True),
    "t5": Scheme(re.compile(r"<2(\w+)>"), as_text=True),
    "plain": Scheme(None),
}
"""By family."""


def family_of(directory: Directory, tokenizer: Any) -> str:
    """Return which of `SCHEMES` an encoder-decoder follows."""
    kind, own = directory.config["model_type"], type(tokenizer).__name__
    if isinstance(noted := directory.config.get("sensikit"), dict) and noted.get("tags") == "target-last":
        return "sensikit"
    if kind == "m2m_100" and own.startswith("Nllb"):
        family = "nllb-legacy" if getattr(tokenizer, "legacy_behaviour", False) else "nllb"
    elif kind == "mbart":
        family = "mbart-50" if own.startswith("MBart50") else "mbart-25"
    else:
        family = "t5" if "t5" in kind else kind if kind in SCHEMES else "plain"
    tag = SCHEMES[family].tag
    if tag is None or any(map(tag.fullmatch, vocabulary_of(tokenizer))):
        return family
    if kind in ("m2m_100", "mbart"):
        problem = f"is a {kind} whose tokenizer, a {own}, has no tags of languages"
        raise CheckpointError(directory.name, problem, "fetch all of its files")
    return "plain"


def vocabulary_of(tokenizer: Any) -> dict[str, int]:
    """Return the ids of all tokens; M2M100's languages have theirs beside the vocabulary, past its length."""
    more: Mapping[str, int] = getattr(tokenizer, "lang_token_to_id", None) or {}
    return {**tokenizer.get_vocab(), **more}


def load_tokenizer(directory: Directory, vocabulary: int) -> Any:
    """Return the tokenizer of a directory; refuse one with code of its own, or more tokens than the `vocabulary`."""
    transformers = compat.load()
    settings = directory.path / "tokenizer_config.json"
    found = read_json(settings, CheckpointError) if settings.is_file() else {}
    if not isinstance(found, dict):
        raise CheckpointError(settings, "holds no settings by name", "it is damaged; fetch it again")
    named = found.get("tokenizer_class")
    kind = getattr(transformers, str(named), None)
    # of one whose package is not installed, there is a stand-in that says which
    base = transformers.PreTrainedTokenizerBase
    if named and not (isinstance(kind, type) and (issubclass(kind, base) or hasattr(kind, "_backends"))):
        # transformers would take another tokenizer in its place, or call whatever that is
        problem = f"has a tokenizer, {named}, that transformers {transformers.__version__} does not have"
        raise CheckpointError(directory.name, problem, "code of its own is never run")
    try:
        with compat.quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                directory.path, trust_remote_code=False, local_files_only=True
            )
    except BaseException as error:  # tokenizers raises Exception itself, and panics that are none
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        problem = f"has no tokenizer that transformers opens ({said(error)})"
        remedy = "fetch all of its files; code of its own is never run"
        raise CheckpointError(directory.name, problem, remedy) from error
    largest = max(vocabulary_of(tokenizer).values(), default=-1)
    if largest >= vocabulary:
        problem = f"has a tokenizer with ids up to {largest:,} and a model with {vocabulary:,} rows"
        raise CheckpointError(directory.name, problem, "they do not belong together")
    return tokenizer


class Tokens:
    """A tokenizer, and the tags of languages in its vocabulary.

    Attributes:
        tokenizer: transformers' own.
        family: of `SCHEMES`.
        tags: (token, id) by the code of the language, as the vocabulary spells it.
    """

    def __init__(self, tokenizer: Any, family: str = "plain", start: int | None = None) -> None:
        self.tokenizer, self.family, self.scheme, self._start = tokenizer, family, SCHEMES[family], start
        tag, vocabulary = self.scheme.tag, sorted(vocabulary_of(tokenizer).items(), key=lambda item: item[1])
        found = ((tag.fullmatch(token), id) for token, id in vocabulary) if tag else ()
        self.tags = {match.group(1): (match.group(0), id) for match, id in found if match}
        self._special = frozenset({*tokenizer.all_special_ids, *(id for _, id in self.tags.values())})

    @property
    def pad(self) -> int:
        """The id that fills rows up; where the tokenizer has none, its end, which a mask leaves out of everything."""
        found = self.tokenizer.pad_token_id
        return int(found if found is not None else self.tokenizer.eos_token_id or 0)

    def tagged(self, pair: Pair) -> Pair:
        """Return a pair as the model spells it; a side that the family has no tag for stays as it is."""
        used = self.scheme.source + self.scheme.target
        source = self.tag_of(pair[0]) if "src" in used else pair[0]
        return source, self.tag_of(pair[1]) if "tgt" in used or self.scheme.as_text else pair[1]

    def tag_of(self, language: str) -> str:
        """Return the code that the model has of a language, however it is spelled."""
        found = matching(language, list(self.tags))
        if len(found) == 1:
            return found[0]
        if found:
            problem = f"is several languages of the model's tokenizer: {', '.join(found)}"
            raise OptionError(language, problem, "call the data after one of them")
        near = [code for code in self.tags if code[:2] == language[:2]] or list(self.tags)
        shown = ", ".join(near[:8]) + (", …" if len(near) > 8 else "")
        raise OptionError(language, "is no language of the model's tokenizer", f"choose among {shown}")

    def start_of(self, target: str) -> int:
        """Return the id that the decoder starts with."""
        if self.scheme.start == "tgt":
            return self.tags[target][1]
        assert self._start is not None
        return self._start

    def forced_of(self, target: str) -> int | None:
        """Return the id that the decoder says first, whatever the model thinks."""
        return self.tags[target][1] if self.scheme.target[0] == "tgt" else None

    def source(self, texts: Sequence[str], source: str, target: str) -> list[Ids]:
        """Return what the encoder reads of some texts, between languages by their tags' codes."""
        if self.scheme.as_text:
            prefix = f"{self.tags[target][0]} "
            return [list(map(int, ids)) for ids in self.tokenizer([f"{prefix}{text}" for text in texts])["input_ids"]]
        return self._around(self.body(texts), self.scheme.source, source, target)

    def target(self, texts: Sequence[str], source: str, target: str) -> list[Ids]:
        """Return what the decoder is to say."""
        return self._around(self.body(texts, target), self.scheme.target, source, target)

    def _around(self, bodies: list[Ids], parts: Sequence[str], source: str, target: str) -> list[Ids]:
        eos = self.tokenizer.eos_token_id
        ids = {"src": [self.tags[source][1]] if "src" in parts else [], "eos": [] if eos is None else [eos]}
        ids["tgt"] = [self.tags[target][1]] if "tgt" in parts else []
        at = parts.index("text")
        before, after = ([id for part in side for id in ids[part]] for side in (parts[:at], parts[at + 1 :]))
        return [[*before, *body, *after] for body in bodies]

    def body(self, texts: Sequence[str], target: str | None = None) -> list[Ids]:
        """Return the ids of texts alone, of a `target` where its side has a vocabulary or pieces of its own.

        A text that spells out a special token does not become it.
        """
        if not texts:
            return []
        if target is not None and "tgt" in self.scheme.target:
            # M2M100's cuts no target without, though which they are moves no id here
            self.tokenizer.src_lang = self.tokenizer.tgt_lang = target
        given = {"text" if target is None else "text_target": list(texts)}
        found = self.tokenizer(**given, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        unknown = self.tokenizer.unk_token_id
        return [self._harmless(ids, unknown) for ids in found]

    def _harmless(self, ids: Sequence[int], unknown: int | None) -> Ids:
        if unknown is None or self._special.isdisjoint(ids):
            return list(ids)
        return [unknown if id in self._special else id for id in ids]

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of what the model said, without tags and other special tokens."""
        kept = [id for id in ids if id not in self._special]
        # Marian's decodes with the source's pieces unless it is told not to
        own = {"use_source_tokenizer": False} if self.family == "marian" else {}
        return str(self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False, **own))
