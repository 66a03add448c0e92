"""Models and data small enough to check by hand or by brute force, behind the protocol of `backends.base`.

    backend = toy.backend()          a trained model of four languages, with a BLEU of about 80
    backend = toy.ToyBackend(...)    any module, any sizes, any seed, untrained
    toy.TinyTransformer(...)         attention, feed-forward layers and norms under fairseq's names

A sentence is a few words of one language's vocabulary; its translation is the same words in English, one for one (but
for a few slips), and the end. Sources also carry a few filler tokens after their end, so that source and target lengths
differ. Nothing here reads torch's global random state.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from sensikit.backends.base import Item, Provenance, Segments, Task, Translations
from sensikit.errors import DataError
from sensikit.files import replacing
from sensikit.languages import Group
from sensikit.settings import Decoding

PAD, EOS, FILLER = 0, 1, 2
FIRST = 3
"""The first word of the vocabulary; English has words FIRST … FIRST + WORDS - 1."""

WORDS = 10
"""Words of one language."""

SLIPS = 0.1
"""The share of target words that are drawn anew."""


def group(key: str, name: str, family: str, tier: str, sizes: dict[str, int]) -> Group:
    """A language paired with English."""
    return Group(key, key, "eng", name, family, tier, sizes)


LANGUAGES = {
    "cat": group("cat", "Catalan", "Romance", "High", {"train": 600, "valid": 30, "test": 24}),
    "fur": group("fur", "Friulian", "Romance", "Low", {"train": 240, "valid": 30, "test": 24}),
    "nob": group("nob", "Norwegian", "Germanic", "High", {"train": 420, "valid": 30, "test": 24}),
    "nso": group("nso", "Northern Sotho", "Bantu", "Very Low", {"train": 150, "valid": 30, "test": 24}),
}
"""Catalan and Friulian share half of their words, so that their sensitivities are alike."""

GHOST = "encoder.layers.0.ghost.weight"
"""A parameter of `TokenModel` that its forward pass never reads."""


class Pair(NamedTuple):
    source: list[int]
    target: list[int]


class MicroBatch(NamedTuple):
    """A padded part of a batch: (B, S), (B, T), (B, T) int64."""

    source: torch.Tensor
    previous: torch.Tensor
    target: torch.Tensor


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, dropout: float, ghost: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        if ghost:
            self.ghost = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc2(self.dropout(functional.relu(self.fc1(self.final_layer_norm(x)))))


class TokenModel(nn.Module):
    """Translates word by word: (B, S), (B, T) → logits (B, T, vocabulary). Output projection tied to the embedding."""

    def __init__(self, vocabulary: int, width: int = 16, hidden: int = 24, dropout: float = 0.1) -> None:
        super().__init__()
        layers = nn.ModuleList([FeedForward(width, hidden, dropout, ghost=True)])
        embed, norm = nn.Embedding(vocabulary, width, padding_idx=PAD), nn.LayerNorm(width)
        self.encoder = nn.ModuleDict({"embed_tokens": embed, "layers": layers, "layer_norm": norm})
        self.decoder = nn.ModuleDict({"output_projection": nn.Linear(width, vocabulary, bias=False)})
        self.decoder["output_projection"].weight = self.encoder["embed_tokens"].weight

    def forward(self, source: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
        x = self.encoder["embed_tokens"](source[:, : previous.shape[1]])
        x = self.encoder["layer_norm"](self.encoder["layers"][0](x))
        return self.decoder["output_projection"](x)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.q_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, query: torch.Tensor, key: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Args: (B, T, E), (B, S, E), and (B or 1, T or 1, S) bool, true where nothing may be read."""

        def split(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = split(self.q_proj(query)), split(self.k_proj(key)), split(self.v_proj(key))
        weights = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        weights = weights.masked_fill(hidden[:, None], -1e9).softmax(-1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(-2))


class EncoderLayer(FeedForward):
    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__(width, hidden, dropout)
        self.self_attn, self.self_attn_layer_norm = Attention(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        normed = self.self_attn_layer_norm(x)
        return super().forward(x + self.self_attn(normed, normed, padding[:, None]))


class DecoderLayer(FeedForward):
    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__(width, hidden, dropout)
        self.self_attn, self.self_attn_layer_norm = Attention(width), nn.LayerNorm(width)
        self.encoder_attn, self.encoder_attn_layer_norm = Attention(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, memory: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        normed = self.self_attn_layer_norm(x)
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        x = x + self.self_attn(normed, normed, future[None])
        return super().forward(x + self.encoder_attn(self.encoder_attn_layer_norm(x), memory, padding[:, None]))


class TinyTransformer(nn.Module):
    """A pre-norm encoder-decoder under fairseq's names: (B, S), (B, T) → logits (B, T, vocabulary). One embedding."""

    def __init__(
        self, vocabulary: int, width: int = 16, hidden: int = 24, layers: int = 1, dropout: float = 0.1
    ) -> None:
        super().__init__()
        embed, project = nn.Embedding(vocabulary, width, padding_idx=PAD), nn.Linear(width, vocabulary, bias=False)
        project.weight = embed.weight
        encoder = nn.ModuleList([EncoderLayer(width, hidden, dropout) for _ in range(layers)])
        decoder = nn.ModuleList([DecoderLayer(width, hidden, dropout) for _ in range(layers)])
        self.encoder = nn.ModuleDict({"embed_tokens": embed, "layers": encoder, "layer_norm": nn.LayerNorm(width)})
        self.decoder = nn.ModuleDict(
            {"embed_tokens": embed, "layers": decoder, "layer_norm": nn.LayerNorm(width), "output_projection": project}
        )

    def forward(self, source: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
        padding = source == PAD
        memory = self._embed(source)
        for layer in self.encoder["layers"]:
            memory = layer(memory, padding)
        memory = self.encoder["layer_norm"](memory)
        x = self._embed(previous)
        for layer in self.decoder["layers"]:
            x = layer(x, memory, padding)
        return self.decoder["output_projection"](self.decoder["layer_norm"](x))

    def _embed(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.encoder["embed_tokens"](tokens)
        place = torch.arange(tokens.shape[1], dtype=x.dtype, device=x.device)[:, None]
        rate = torch.arange(x.shape[-1], dtype=x.dtype, device=x.device) * 0.37 + 0.1
        return x * x.shape[-1] ** 0.5 + torch.sin(place * rate)


def cross_entropy(logits: torch.Tensor, target: torch.Tensor, kind: str, reduction: str = "sum") -> torch.Tensor:
    """Nats of a kind of loss; none where the target is PAD."""
    smoothing = {"nll": 0.0, "train": 0.1}[kind]
    return functional.cross_entropy(logits, target, ignore_index=PAD, reduction=reduction, label_smoothing=smoothing)


class Corpora(dict[tuple[str, str], "list[Pair]"]):
    """Sentence pairs by (language, split); a split that is not there is refused as a backend does."""

    def __missing__(self, key: tuple[str, str]) -> list[Pair]:
        raise DataError("toy/data", f"has no {key[1]} set of {key[0]}", "choose another split")


class ToyBackend:
    """A `Model` of synthetic sentences, and its own `Task` of translation.

    Args:
        module: takes (source, previous target) and returns logits; a fresh `TokenModel` by default.
        groups: with the sizes of their splits.
        seed: of the weights of the default module.
        device: of everything.
        dtype: of the module.
        ghosts: names of parameters that take no part; those of `TokenModel` by default.
    """

    name = "mt"
    kinds = ("nll", "train")
    training: Mapping[str, object] = {}
    notes: Sequence[str] = ()
    tasks: tuple[str, ...] = ("mt", "denoise")

    def __init__(
        self,
        module: nn.Module | None = None,
        groups: Mapping[str, Group] = LANGUAGES,
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        direction: str = "xxx-eng",
        ghosts: Sequence[str] | None = None,
    ) -> None:
        self.groups = dict(groups)
        self.direction = direction
        self.device = torch.device(device)
        self.pairs = Corpora(corpora(self.groups))
        fresh = module if module is not None else initialised(TokenModel(vocabulary_size()), seed)
        self.module: nn.Module = fresh.to(self.device, dtype).eval()
        self.ghosts = frozenset(ghosts if ghosts is not None else [GHOST] if module is None else [])

    @property
    def provenance(self) -> Provenance:
        """Of the weights as they are now."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        data = hashlib.sha256(repr(sorted(self.pairs.items())).encode()).hexdigest()
        return Provenance("toy", "toy/checkpoint.pt", digest.hexdigest(), "toy/data", data)

    def task(self, name: str, seed: int = 1) -> Task:
        return self if name == "mt" else ToyDenoising(self, seed)

    def write_pruned(self, out: Path, masks: Mapping[str, torch.Tensor], note: str) -> int:
        named = dict(self.module.named_parameters())
        with replacing(out) as partial:
            save_file({name: named[name].detach().masked_fill(mask, 0) for name, mask in masks.items()}, partial)
        return sum(int(mask.sum()) for mask in masks.values())

    def choices(self) -> dict[str, str]:
        return {}

    def sizes(self, language: str, split: str = "train") -> np.ndarray:
        pairs = self.pairs[language, split]
        return np.array([(len(p.source), len(p.target)) for p in pairs], dtype=np.int64).reshape(-1, 2)

    bytes = staticmethod(lambda group, split="train": None)

    def segments(self, language: str, split: str = "train") -> Segments:
        texts = [text_of(pair.target) for pair in self.pairs[language, split]]
        return Segments(texts, np.arange(len(texts)), "eng")

    def layout(self, languages: Sequence[str], split: str = "train") -> None:
        return None

    left_out = staticmethod(lambda group, split="train": 0)

    def collate(self, items: Sequence[Item], split: str = "train") -> MicroBatch:
        pairs = [self.pairs[language, split][index] for language, index in items]
        return MicroBatch(
            self._padded([p.source for p in pairs]),
            self._padded([[EOS, *p.target[:-1]] for p in pairs]),
            self._padded([p.target for p in pairs]),
        )

    def loss(self, micro_batch: MicroBatch, kind: str = "nll") -> tuple[torch.Tensor, int]:
        logits = self.module(micro_batch.source, micro_batch.previous)
        total = cross_entropy(logits.flatten(0, 1), micro_batch.target.flatten(), kind)
        return total, int((micro_batch.target != PAD).sum())

    def losses(self, items: Sequence[Item], split: str, kind: str = "nll") -> np.ndarray:
        micro_batch = self.collate(items, split)
        logits = self.module(micro_batch.source, micro_batch.previous).transpose(1, 2)
        nats = cross_entropy(logits, micro_batch.target, kind, "none")
        tokens = (micro_batch.target != PAD).sum(dim=1)
        return torch.stack([nats.double().sum(dim=1), tokens], dim=1).detach().cpu().numpy()

    def translate(self, language: str, split: str, decoding: Decoding) -> Translations:
        """Greedy, whatever the beam; in the order of the split."""
        pairs = self.pairs[language, split][: decoding.max_sentences]
        return Translations([text_of(line) for line in self._greedy(pairs)], [text_of(p.target) for p in pairs], "text")

    @torch.no_grad()
    def _greedy(self, pairs: Sequence[Pair]) -> list[list[int]]:
        source = self._padded([p.source for p in pairs])
        previous = torch.full((len(pairs), 1), EOS, device=self.device)
        for _ in range(source.shape[1]):
            best = self.module(source, previous)[:, -1].argmax(-1)
            previous = torch.cat([previous, best[:, None]], dim=1)
        return previous[:, 1:].tolist()

    def _padded(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        longest = max(len(row) for row in rows)
        return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows], device=self.device)

    def train(self, steps: int = 60, rate: float = 0.02) -> ToyBackend:
        """Fit the module to its training pairs; return the backend."""
        generator = np.random.default_rng(0)
        pool = [(code, i) for code in self.groups for i in range(len(self.pairs[code, "train"]))]
        optimizer = torch.optim.Adam(self.module.parameters(), lr=rate)
        for _ in range(steps):
            items = [pool[i] for i in generator.choice(len(pool), 64, replace=False)]
            total, tokens = self.loss(self.collate(items))
            optimizer.zero_grad()
            (total / tokens).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.module.zero_grad(set_to_none=True)
        return self


class Masked(NamedTuple):
    """A padded micro-batch of masked sources: (B, S) int64 each; PAD in `missing` where no word was masked."""

    source: torch.Tensor
    whole: torch.Tensor
    missing: torch.Tensor


class ToyDenoising:
    """Says each source again after some of its words became FILLER; and, a second term, those words alone."""

    name = "denoise"
    kinds = ("nll", "train")

    def __init__(self, backend: ToyBackend, seed: int) -> None:
        self.backend, self.seed = backend, seed
        self.groups, self.direction, self.segments = backend.groups, backend.direction, backend.segments

    def choices(self) -> dict[str, str]:
        return {"noise": "toy"}

    def masked(self, language: str, split: str, row: int) -> np.ndarray:
        """Which tokens of a source are masked: decided by the sentence and the seed alone."""
        generator = np.random.default_rng([self.seed, row, *language.encode(), *split.encode()])
        return generator.random(len(self.backend.pairs[language, split][row].source)) < 0.4

    def sizes(self, language: str, split: str = "train") -> np.ndarray:
        rows = range(len(self.backend.pairs[language, split]))
        marks = [self.masked(language, split, row) for row in rows]
        return np.array([(len(mark), len(mark), mark.sum()) for mark in marks], dtype=np.int64).reshape(-1, 3)

    bytes = staticmethod(lambda group, split="train": None)

    def layout(self, languages: Sequence[str], split: str = "train") -> pd.DataFrame:
        """The first sentence of each."""
        rows = []
        for code in languages:
            words, mark = self.backend.pairs[code, split][0].source, self.masked(code, split, 0)
            for position, (word, masked) in enumerate(zip(words, mark, strict=True)):
                read, said = f"w{FILLER if masked else word}", f"w{word}" if masked else ""
                rows.append((code, position, read, said, f"w{word}", f"w{word}"))
        columns = ["group", "position", "source", "encoder_target", "decoder_input", "decoder_target"]
        return pd.DataFrame(rows, columns=columns)

    left_out = staticmethod(lambda group, split="train": 0)

    def collate(self, items: Sequence[Item], split: str = "train") -> Masked:
        whole = [np.array(self.backend.pairs[language, split][row].source) for language, row in items]
        marks = [self.masked(language, split, row) for language, row in items]
        both = list(zip(whole, marks, strict=True))
        sources = [np.where(mark, FILLER, words).tolist() for words, mark in both]
        missing = [np.where(mark, words, PAD).tolist() for words, mark in both]
        padded = self.backend._padded
        return Masked(padded(sources), padded([words.tolist() for words in whole]), padded(missing))

    def loss(self, micro_batch: Masked, kind: str = "nll") -> tuple[torch.Tensor, tuple[int, int]]:
        logits = self.backend.module(micro_batch.source, micro_batch.source).flatten(0, 1)
        terms = [cross_entropy(logits, each.flatten(), kind) for each in (micro_batch.whole, micro_batch.missing)]
        return torch.stack(terms), (int((micro_batch.whole != PAD).sum()), int((micro_batch.missing != PAD).sum()))

    def losses(self, items: Sequence[Item], split: str, kind: str = "nll") -> np.ndarray:
        rows = [self.loss(self.collate([item], split), kind) for item in items]
        return np.array([[*zip(terms.tolist(), counts, strict=True)] for terms, counts in rows]).reshape(-1, 4)


def backend(seed: int = 0, device: str | torch.device = "cpu") -> ToyBackend:
    """Return a trained toy of its own: what one test does to it no other test sees."""
    found = copy.deepcopy(_trained(seed))
    found.device = torch.device(device)
    found.module.to(found.device)
    return found


@functools.lru_cache
def _trained(seed: int) -> ToyBackend:
    return ToyBackend(seed=seed).train()


def vocabulary_size(languages: int = len(LANGUAGES)) -> int:
    return FIRST + WORDS * (1 + languages)


def initialised(module: nn.Module, seed: int = 0, scale: float = 0.25) -> nn.Module:
    """Give `module` random weights that depend on `seed` alone; norms become almost 1, padding stays 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
            tensor.copy_(noise * scale + (1.0 if "norm.weight" in name else 0.0))
        for part in module.modules():
            if isinstance(part, nn.Embedding) and part.padding_idx is not None:
                part.weight[part.padding_idx] = 0
    return module


def corpora(languages: Mapping[str, Group]) -> dict[tuple[str, str], list[Pair]]:
    """Return the sentence pairs of each language and split, by (language, split)."""
    return {
        (code, split): _sentences(number, split, size)
        for number, (code, language) in enumerate(languages.items())
        for split, size in language.sizes.items()
    }


def _sentences(language: int, split: str, count: int) -> list[Pair]:
    generator = np.random.default_rng([language, *split.encode()])
    pairs = []
    for _ in range(count):
        # lengths are skewed, as real ones are: 4 to 16 words, mostly short
        words = generator.integers(0, WORDS, size=4 + int(12 * generator.random() ** 3))
        fillers = [FILLER] * int(generator.integers(0, 4))
        # one target word in ten is another one: there is always a loss left, and gradients that disagree
        other = generator.random(len(words)) < SLIPS
        said = np.where(other, generator.integers(0, WORDS, size=len(words)), words)
        target = [*(FIRST + said).tolist(), EOS]
        pairs.append(Pair([*(_source_word(language, int(w)) for w in words), EOS, *fillers], target))
    return pairs


def _source_word(language: int, word: int) -> int:
    # the second language takes the first half of its words from the first one
    owner = 0 if language == 1 and word < WORDS // 2 else language
    return FIRST + WORDS * (1 + owner) + word


def text_of(tokens: Sequence[int]) -> str:
    """Return the words before the end, detokenised: `w3 w17`."""
    line = list(tokens)
    line = line[: line.index(EOS)] if EOS in line else line
    return " ".join(f"w{token}" for token in line if token != PAD)
