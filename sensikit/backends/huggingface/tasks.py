"""Translation and language modelling by transformers' models: sentences as ids, their loss, their translation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from sensikit.backends import ctranslate2
from sensikit.backends.base import Item, Segments, Translations
from sensikit.backends.huggingface.data import TextData
from sensikit.backends.huggingface.decoding import generate, generate_fast
from sensikit.backends.huggingface.directory import Directory
from sensikit.backends.huggingface.prompts import PROMPT, prompted
from sensikit.backends.huggingface.tokens import Ids, Tokens
from sensikit.errors import CheckpointError, DataError, OptionError, said
from sensikit.files import sha256_of
from sensikit.languages import Group, Pair
from sensikit.settings import Decoding

IGNORED = -100
"""In the place of a label where nothing is counted."""

CUT = 10_000
"""Lines that are cut at a time where they are only counted: their ids take twenty times the room of their text."""


@dataclass(frozen=True)
class Opened:
    """A directory with its data, as all of its tasks share it; the module is in evaluation mode."""

    directory: Directory
    config: Any
    module: Any
    tokens: Tokens
    data: TextData
    device: torch.device
    prompt: str | None = None

    @property
    def limit(self) -> int | None:
        """The most tokens that the model has positions for on a side; None where their number is not bounded."""
        found = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return found if isinstance(found, int) and found > 0 else None


@dataclass(frozen=True)
class Examples:
    """One group and split as text, and as many ids as it is cut into: the ids themselves are cut for a batch at a time.

    Of every line `reads` is what is read and not counted, `says` what is counted. `rows` (n,) int64 are the lines that
    have both and fit the model's positions, `sizes` (n, 2) int64 their tokens; `long` counts those that do not fit.
    """

    reads: list[str]
    says: list[str]
    rows: np.ndarray
    sizes: np.ndarray
    long: int


@dataclass(frozen=True)
class MicroBatch:
    """Some examples, padded: what the module is fed, what it should say at each position, (B, T) int64, in all."""

    fed: dict[str, torch.Tensor]
    labels: torch.Tensor
    counted: int


class TextTask(ABC):
    """What the tasks of Hugging Face models have in common; see `sensikit.backends.base.Task`."""

    name = ""
    kinds: tuple[str, ...] = ("nll",)  # no directory says what it was trained with

    def __init__(self, opened: Opened, groups: Mapping[str, Group], direction: str) -> None:
        self.opened, self.groups, self.direction = opened, groups, direction
        self.lengths: dict[tuple[str, str], np.ndarray] = {}
        self._examples: dict[tuple[str, str], Examples] = {}

    def choices(self) -> dict[str, str]:
        """Return what belongs in a signature because of this task alone."""
        return {}

    def sizes(self, group: str, split: str = "train") -> np.ndarray:
        """Return (n, 2) int64, the tokens of the input and of the target of every example that fits the positions."""
        return self.examples(group, split).sizes

    def left_out(self, group: str, split: str = "train") -> int:
        """Return how many examples are longer than the model's positions."""
        return self.examples(group, split).long

    def segments(self, group: str, split: str = "train") -> Segments:
        """Return what tells the sentences of a split apart; see `TextData.segments`."""
        texts, known_by = self._segments(group, split)
        return Segments(texts, self.examples(group, split).rows, known_by)

    @abstractmethod
    def _segments(self, group: str, split: str) -> tuple[list[str], str]:
        """Return what tells the lines of a split apart, and what it is known by."""

    def bytes(self, group: str, split: str = "train") -> np.ndarray:
        """Return (n,) int64, the bytes in UTF-8 of the counted text of every example."""
        found = self.examples(group, split)
        return np.array([len(found.says[row].encode()) for row in found.rows], dtype=np.int64)

    def layout(self, groups: Sequence[str], split: str = "train") -> None:  # noqa: B027  (of every task here)
        """Return nothing: it belongs to concurrent denoising."""

    def loss(self, micro_batch: MicroBatch, kind: str = "nll") -> tuple[torch.Tensor, int]:
        """Return the summed loss of a micro-batch (nats, in float32 or a wider dtype of the module), and its tokens."""
        return self._cross_entropy(micro_batch, kind, "sum"), micro_batch.counted

    def losses(self, items: Sequence[Item], split: str, kind: str = "nll") -> np.ndarray:
        """Return the loss of each example, in the order of `items`: (n, 2) float64, nats and counted tokens."""
        micro_batch = self.collate(items, split)
        with torch.no_grad():
            nats = self._cross_entropy(micro_batch, kind, "none").view(micro_batch.labels.shape).double().sum(dim=1)
        return torch.stack([nats, micro_batch.labels.ne(IGNORED).sum(dim=1).double()], dim=1).cpu().numpy()

    def _cross_entropy(self, micro_batch: MicroBatch, kind: str, reduction: str) -> torch.Tensor:
        if kind not in self.kinds:
            raise OptionError("--loss", f"{kind!r} is unknown", "give nll")
        try:
            logits = self.opened.module(**micro_batch.fed, use_cache=False).logits
        except (TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
            # transformers believes most of a configuration until it computes
            problem = f"makes a model that cannot be computed ({said(error)})"
            raise CheckpointError(self.opened.directory.path / "config.json", problem, "it may be damaged") from error
        # the loss that transformers computes itself is a mean, and of bfloat16 logits
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return functional.cross_entropy(
            wide.flatten(0, 1), micro_batch.labels.flatten(), ignore_index=IGNORED, reduction=reduction
        )

    def collate(self, items: Sequence[Item], split: str = "train") -> MicroBatch:
        """Return the examples, in their order and whatever their groups, as one padded micro-batch on the device."""
        cut: dict[int, tuple[Ids, Ids]] = {}
        for key in dict.fromkeys(key for key, _ in items):
            found, places = self.examples(key, split), [place for place, item in enumerate(items) if item[0] == key]
            lines = [found.rows[items[place][1]] for place in places]
            ids = self._cut(key, [found.reads[line] for line in lines], [found.says[line] for line in lines])
            cut |= zip(places, zip(*ids, strict=True), strict=True)
            counted = found.sizes[[items[place][1] for place in places]].tolist()
            if counted != [[len(one), len(other)] for one, other in zip(*ids, strict=True)]:
                problem = f"cuts the text of {key} otherwise than when it was counted"
                raise CheckpointError(self.opened.directory.name, problem, "analyze it anew: its tokenizer has changed")
        inputs, targets = zip(*(cut[place] for place in range(len(items))), strict=True)
        return self._padded(inputs, targets, [key for key, _ in items])

    @abstractmethod
    def _padded(self, inputs: Sequence[Ids], targets: Sequence[Ids], groups: Sequence[str]) -> MicroBatch:
        """Return examples as one micro-batch."""

    def _fed(self, labels: Sequence[Ids], inputs: Sequence[Ids], **more: Sequence[Ids]) -> MicroBatch:
        """Return rows of ids, padded and on the device; what pads the input is masked."""
        pad, device = self.opened.tokens.pad, self.opened.device
        fed = {name: right_padded(rows, pad) for name, rows in {"input_ids": inputs, **more}.items()}
        fed["attention_mask"] = right_padded([[1] * len(ids) for ids in inputs], 0)
        moved = {name: tensor.to(device) for name, tensor in fed.items()}
        said = right_padded(labels, IGNORED)
        # counted here: to ask a GPU is to wait for it
        return MicroBatch(moved, said.to(device), int(said.ne(IGNORED).sum()))

    def examples(self, group: str, split: str) -> Examples:
        """Return one group and split as text and numbers of ids, made on the first call."""
        if (group, split) not in self._examples:
            if group not in self.groups:
                raise OptionError(group, "is no group of the model here", f"it has {', '.join(self.groups)}")
            reads, says = self._read(group, split)
            sizes = self.lengths.get((group, split))
            if sizes is None or sizes.shape != (len(says), 2):
                sizes = self.lengths[group, split] = self._lengths(group, reads, says)
            whole = np.array([bool(one and other) for one, other in zip(reads, says, strict=True)]) & (sizes[:, 1] > 0)
            limit = self.opened.limit
            fits = self._fits(sizes, limit) if limit else np.ones(len(sizes), dtype=bool)
            rows = np.flatnonzero(whole & fits)
            self._examples[group, split] = Examples(reads, says, rows, sizes[rows], int((whole & ~fits).sum()))
        return self._examples[group, split]

    def _lengths(self, group: str, reads: Sequence[str], says: Sequence[str]) -> np.ndarray:
        """Return the ids of the input and of the target of every line, (lines, 2) int64."""
        found: list[tuple[int, int]] = []
        for start in range(0, len(says), CUT):
            part = slice(start, start + CUT)
            found += zip(*(map(len, side) for side in self._cut(group, reads[part], says[part])), strict=True)
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    @abstractmethod
    def _read(self, group: str, split: str) -> tuple[list[str], list[str]]:
        """Return what is read and what is counted of every line, as text."""

    @abstractmethod
    def _cut(self, group: str, reads: Sequence[str], says: Sequence[str]) -> tuple[list[Ids], list[Ids]]:
        """Return the ids of what is read and of what is counted, of some lines."""

    @abstractmethod
    def _fits(self, sizes: np.ndarray, limit: int) -> np.ndarray:
        """Return which examples fit `limit` positions, (n,) bool."""


class _Pairs(TextTask):
    """Sentence pairs."""

    name = "mt"

    def __init__(self, opened: Opened, groups: Mapping[str, Group], direction: str, pairs: Mapping[str, Pair]) -> None:
        super().__init__(opened, groups, direction)
        self.pairs = pairs

    def _tagged(self, group: str) -> Pair:
        return self.opened.tokens.tagged(self.pairs[group])

    def _read(self, group: str, split: str) -> tuple[list[str], list[str]]:
        found = self.opened.data.pair(*self.pairs[group], split)
        if not found[0]:
            problem = f"has no sentence in the {split} set of {group}"
            raise DataError(self.opened.data.root, problem, "choose another split")
        return found

    def _segments(self, group: str, split: str) -> tuple[list[str], str]:
        return self.opened.data.segments(self.pairs[group], split, self.pairs.values())

    def _cut(self, group: str, reads: Sequence[str], says: Sequence[str]) -> tuple[list[Ids], list[Ids]]:
        return self._inputs(group, reads), self._outputs(group, says)

    @abstractmethod
    def _inputs(self, group: str, texts: Sequence[str]) -> list[Ids]:
        """Return what is read of sources."""

    @abstractmethod
    def _outputs(self, group: str, texts: Sequence[str]) -> list[Ids]:
        """Return what is counted of targets."""


class EncoderDecoder(_Pairs):
    """Translation by an encoder-decoder."""

    def choices(self) -> dict[str, str]:
        """Return what the text is put into, where it is put into anything."""
        return {"prompt": sha256_of(self.opened.prompt)[:8]} if self.opened.prompt else {}

    def _inputs(self, group: str, texts: Sequence[str]) -> list[Ids]:
        if self.opened.prompt:
            texts = prompted(texts, self._tagged(group), self.opened.prompt)
        return self.opened.tokens.source(texts, *self._tagged(group))

    def _outputs(self, group: str, texts: Sequence[str]) -> list[Ids]:
        return self.opened.tokens.target(texts, *self._tagged(group))

    def _fits(self, sizes: np.ndarray, limit: int) -> np.ndarray:
        found: np.ndarray = np.less_equal(sizes, limit).all(axis=1)
        return found

    def _padded(self, inputs: Sequence[Ids], targets: Sequence[Ids], groups: Sequence[str]) -> MicroBatch:
        starts = {group: self.opened.tokens.start_of(self._tagged(group)[1]) for group in set(groups)}
        said = [[starts[group], *ids[:-1]] for group, ids in zip(groups, targets, strict=True)]
        return self._fed(targets, inputs, decoder_input_ids=said)

    def translate(self, group: str, split: str, decoding: Decoding) -> Translations:
        """Return a translation of every sentence of the split, in order, by beam search."""
        sources, references = self._read(group, split)
        count = min(len(sources), decoding.max_sentences or len(sources))
        target, tokens = self._tagged(group)[1], self.opened.tokens
        inputs, truncated = truncate(self._inputs(group, sources[:count]), self.opened.limit)
        module, limit = self.opened.module, self.opened.limit
        start, forced = tokens.start_of(target), tokens.forced_of(target)
        if ctranslate2.wanted(decoding, "huggingface"):
            found = generate_fast(module, inputs, decoding, tokens, limit=limit, start=start, forced=forced)
        else:
            eos = tokens.tokenizer.eos_token_id
            found = generate(module, inputs, decoding, tokens.pad, eos, limit=limit, start=start, forced=forced)
        return Translations([tokens.text(ids) for ids in found], references[:count], "text", truncated)


class Causal(TextTask):
    """What a decoder language model does: everything in one sequence."""

    def _fits(self, sizes: np.ndarray, limit: int) -> np.ndarray:
        found: np.ndarray = np.less_equal(sizes.sum(axis=1), limit)
        return found

    def _padded(self, inputs: Sequence[Ids], targets: Sequence[Ids], groups: Sequence[str]) -> MicroBatch:
        whole = [[*one, *other] for one, other in zip(inputs, targets, strict=True)]
        # what is said at a position is the id that comes after it
        labels = [[*[IGNORED] * (len(one) - 1), *other, IGNORED] for one, other in zip(inputs, targets, strict=True)]
        return self._fed(labels, whole)


class LanguageModelling(Causal):
    """The next token of text in one language; groups are languages alone.

    A line begins with the tokenizer's BOS where it has one, else its first token is not counted.
    """

    name = "lm"

    def __init__(
        self, opened: Opened, groups: Mapping[str, Group], direction: str, languages: Mapping[str, str]
    ) -> None:
        super().__init__(opened, groups, direction)
        self.languages = languages
        self._bos: int | None = opened.tokens.tokenizer.bos_token_id

    def choices(self) -> dict[str, str]:
        """Return whether a line begins with a token of its own."""
        return {"bos": "yes" if self._bos is not None else "no"}

    def _segments(self, group: str, split: str) -> tuple[list[str], str]:
        return self.opened.data.segments([self.languages[group]], split)

    def _read(self, group: str, split: str) -> tuple[list[str], list[str]]:
        texts = self.opened.data.sentences(self.languages[group], split)
        if not texts:
            raise DataError(self.opened.data.root, f"has no {group} text in its {split} set", "choose another split")
        return texts, texts

    def _cut(self, group: str, reads: Sequence[str], says: Sequence[str]) -> tuple[list[Ids], list[Ids]]:
        bodies = self.opened.tokens.body(says)
        begun = [ids if self._bos is None else [self._bos, *ids] for ids in bodies]
        return [ids[:1] for ids in begun], [ids[1:] for ids in begun]


class PromptedTranslation(Causal, _Pairs):
    """Translation by a decoder language model that is asked for it; the answer and its end are counted."""

    def choices(self) -> dict[str, str]:
        """Return what the model is asked, and whether in its chat template."""
        chat = "chat:" if self._chat else ""
        return {"prompt": f"{chat}{sha256_of(self._template)[:8]}"}

    @property
    def _chat(self) -> bool:
        return bool(self.opened.tokens.tokenizer.chat_template)

    @property
    def _template(self) -> str:
        if self.opened.prompt is None and not self._chat:
            problem = "is needed, for this model has no chat template"
            raise OptionError("--prompt", problem, r"such as --prompt $'{source_name}: {source}\n{target_name}: '")
        return self.opened.prompt or PROMPT

    def _inputs(self, group: str, texts: Sequence[str]) -> list[Ids]:
        tokenizer = self.opened.tokens.tokenizer
        asked = prompted(texts, self.pairs[group], self._template)
        if self._chat:
            chats = [[{"role": "user", "content": text}] for text in asked]
            told = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
            return [list(ids) for ids in tokenizer(told, add_special_tokens=False)["input_ids"]]
        bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        return [[*bos, *ids] for ids in self.opened.tokens.body(asked)]

    def _outputs(self, group: str, texts: Sequence[str]) -> list[Ids]:
        eos = self.opened.tokens.tokenizer.eos_token_id
        return [[*ids, *([] if eos is None else [eos])] for ids in self.opened.tokens.body(texts)]

    def translate(self, group: str, split: str, decoding: Decoding) -> Translations:
        """Return the model's answer for every sentence of the split, in order; a plain prompt's ends with its line."""
        sources, references = self._read(group, split)
        count = min(len(sources), decoding.max_sentences or len(sources))
        tokens, bodies = self.opened.tokens, self.opened.tokens.body(sources[:count])
        inputs, truncated = truncate(self._inputs(group, sources[:count]), self.opened.limit, left=True)
        if ctranslate2.wanted(decoding, "huggingface"):
            raise OptionError("--engine", "ctranslate2 is for encoder-decoders here", "give --engine own")
        eos = tokens.tokenizer.eos_token_id
        found = generate(
            self.opened.module, inputs, decoding, tokens.pad, eos,
            limit=self.opened.limit, lengths=[len(ids) + 1 for ids in bodies],
        )  # fmt: skip
        answers = [tokens.text(ids).strip() for ids in found]
        said = [" ".join(answer.split()) if self._chat else answer.partition("\n")[0].strip() for answer in answers]
        return Translations(said, references[:count], "text", truncated)


def right_padded(rows: Sequence[Ids], pad: int) -> torch.Tensor:
    """Return rows of ids as (n, longest) int64."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], True, pad)


def truncate(inputs: Sequence[Ids], limit: int | None, left: bool = False) -> tuple[list[Ids], int]:
    """Return inputs that fit the positions, each with its last token, and how many had to be cut.

    With `left`, room is left for an answer, and the beginning goes rather than the end.
    """
    most = limit if limit is None or not left else max(1, limit * 3 // 4)
    long = sum(most is not None and len(ids) > most for ids in inputs)
    if left:
        return [ids[-most:] if most else ids for ids in inputs], long
    return [[*ids[: most - 1], ids[-1]] if most and len(ids) > most else ids for ids in inputs], long
