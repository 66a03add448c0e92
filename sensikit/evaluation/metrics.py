"""BLEU, chrF++, loss and bits per byte: metrics of one kind, each a score of sums over sentences.

A metric turns every sentence of a test set into a row of numbers that may be added up, (n, K). The score of the test
set is the score of the sum of its rows, and that of a draw the score of their weighted sum, so one bootstrap and one
test (`resampling`) serve all metrics. BLEU and chrF++ are sacreBLEU's: its statistics, its numbers, its signatures.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from sensikit.backends.base import Model, Task, task_of, translation_of
from sensikit.errors import DataError, MissingDependencyError, NonFiniteError, OptionError
from sensikit.evaluation.resampling import Float, Ids, Scored, identified, resampled
from sensikit.files import sha256
from sensikit.settings import BOOTSTRAP, Decoding
from sensikit.signature import signature

TOKENIZERS = ("spm", "flores101", "flores200", "13a", "intl", "char", "zh", "none")


@dataclass(frozen=True)
class Metric:
    """A score of a test set, computed from a row of sums for each of its sentences.

    Attributes:
        name: what --metric takes and tables hold.
        label: what a reader sees.
        score: sums (…, K) float64 → scores (…).
        made: (tokenizer, spm_model) → the metric of sacreBLEU whose statistics the rows are; None where nothing is
            translated.
        bounds: the lowest and the highest score there can be.
        higher: whether higher is better.
        unit: in words; a score of 100 has none.
        lengths: sums (…, K) → the length of translations over that of their references (…); None where neither is
            known.
    """

    name: str
    label: str
    score: Callable[[Float], Float]
    made: Callable[[str, str | None], Any] | None = None
    bounds: tuple[float, float] = (0.0, 100.0)
    higher: bool = True
    unit: str = ""
    lengths: Callable[[Float], Float] | None = None

    @property
    def digits(self) -> str:
        """The format in which a score is printed."""
        return ".2f" if self.higher else ".3f"

    @property
    def decodes(self) -> bool:
        """Whether it is a score of translations."""
        return self.made is not None

    def sums(
        self, hypotheses: Sequence[str], references: Sequence[str], tokenizer: str = "spm", spm_model: str | None = None
    ) -> Float:
        """Return a row for each sentence, (n, K) float64, of `hypotheses` (n) against one reference each (n).

        Raises:
            DataError: if there is nothing to score, or not one translation for each reference.
            OptionError, MissingDependencyError: as `bleu_metric`.
        """
        assert self.made is not None
        if len(hypotheses) != len(references):
            # sacreBLEU would leave out the rest without a word
            problem = f"{len(hypotheses)} translations of {len(references)} sentences"
            raise DataError("references", problem, "check the data")
        if not references:
            raise DataError("references", "there is no sentence to score", "check the split")
        rows = self.made(tokenizer, spm_model)._extract_corpus_statistics(hypotheses, [references])
        return np.array(rows, dtype=np.float64)

    def signature(self, bootstrap: int, tokenizer: str = "spm", spm_model: str | None = None) -> str:
        """Return every choice that moves the score or its interval; of BLEU and chrF++ sacreBLEU's, and draws."""
        drawn = f"poisson/{bootstrap}" if bootstrap > 1 else None
        if self.made is None:
            return signature(self.name, kind="nll", unit=self.unit.replace(" per ", "/"), ci=drawn)
        metric = self.made(tokenizer, spm_model)
        metric.num_refs = 1
        return str(metric.get_signature().format()) + (f"|ci:{drawn}" if drawn else "")

    def scored(self, ids: Ids, sums: Float) -> Scored:
        """Return the test set of some sentences, by the identities of their segments (n,) and their sums (n, K)."""
        return Scored.of(self.score, ids, sums, self.bounds)


LENGTHS = ("length_ratio", "brevity_penalty")
"""Columns of tables of scores beside every BLEU, made by `lengths`; empty beside the other metrics."""


def lengths(metric: Metric, sums: Float) -> tuple[float, float] | tuple[None, None]:
    """Return the length ratio c/r of a test set by its sums (n, K), in BLEU's tokens, and the brevity penalty.

    BLEU's factor min(1, exp(1 - r/c)) is 1 where translations are as long as their references or longer. Where two
    systems differ in it, another length penalty of the beam search may turn their order round. Of other metrics there
    is neither.
    """
    if metric.lengths is None:
        return None, None
    total = sums.sum(0)
    return float(metric.lengths(total)), float(brevity(total))


def brevity(sums: Float) -> Float:
    """Return the brevity penalty of (…, 10) sums of BLEU."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Float = np.exp(np.minimum(1 - sums[..., 1] / sums[..., 0], 0))
    return found


def bleu_score(sums: Float) -> Float:
    """Return BLEU of (…, 10) sums: length, length of the reference, 4 · correct n-grams, 4 · n-grams.

    BLEU = 100 · min(1, exp(1 - r/c)) · (Π_n p_n)^¼ (Papineni et al., 2002). The k-th precision that would be 0 has
    1 / 2^k in the place of its correct n-grams (`exp`, the smoothing of mteval-v13a and sacreBLEU's default); without
    one correct n-gram, or any 4-gram at all, BLEU is 0.
    """
    correct, total = sums[..., 2:6], sums[..., 6:10]
    missing = correct == 0
    defined = ~missing.all(-1) & (total > 0).all(-1)
    smoothed = np.where(missing, 0.5 ** missing.cumsum(-1), correct)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.log(100 * smoothed / total).mean(-1)
    return np.where(defined, brevity(sums) * np.exp(np.where(defined, mean, 0)), 0.0)


def chrf_score(sums: Float) -> Float:
    """Return chrF++ of (…, 24) sums: n-grams, n-grams of the reference, and common ones, of 6 · characters, 2 · words.

    chrF = 100 · 5PR / (4P + R), P and R averaged over those of the 8 orders that both sides have (Popović, 2017).
    """
    ours, reference, common = np.moveaxis(sums.reshape(*sums.shape[:-1], 8, 3), -1, 0)
    both = (ours > 0) & (reference > 0)
    orders = np.maximum(both.sum(-1), 1)
    precision, recall = (
        np.divide(common, of, out=np.zeros_like(common), where=both).sum(-1) / orders for of in (ours, reference)
    )
    weighted = 4 * precision + recall
    score: Float = 100 * np.divide(5 * precision * recall, weighted, out=np.zeros_like(weighted), where=weighted > 0)
    return score


def loss_score(sums: Float) -> Float:
    """Return the loss of (…, 2K + 1) sums, nats and target tokens of each term and bytes: Σ_k nats_k / tokens_k."""
    nats, tokens = sums[..., 0:-1:2], sums[..., 1:-1:2]
    score: Float = np.divide(nats, tokens, out=np.zeros_like(nats), where=tokens > 0).sum(-1)
    return score


def bits_per_byte(sums: Float) -> Float:
    """Return the loss of (…, 2K + 1) sums in bits per byte of the text, Σ_k nats_k / (ln 2 · bytes).

    Unlike nats per token it compares models that cut text differently.
    """
    nats, size = sums[..., 0:-1:2].sum(-1), sums[..., -1]
    score: Float = np.divide(nats, np.log(2) * size, out=np.full_like(nats, np.nan), where=size > 0)
    return score


def losses(task: Task, group: str, split: str, decoding: Decoding) -> Float:
    """Return the sums of the loss, a row for each sentence of a split, (n, 2K + 1) float64.

    They are the nats and the tokens of each of the K terms, and the bytes of the text, 0 where they are not known.

    The model is in evaluation mode; sentences that are longer than its positions have no row; `max_sentences` and
    `max_tokens` of the decoding hold here as well.

    Raises:
        DataError: if there is no sentence.
        NonFiniteError: if a loss is infinite or not a number.
    """
    import torch  # BLEU does without

    # sentences of like length together: little padding
    longest = task.sizes(group, split)[: decoding.max_sentences].max(axis=1, initial=1)
    if not len(longest):
        raise DataError(group, "there is no sentence to score", "check the split")
    order, start, rows = np.argsort(-longest, kind="stable"), 0, []
    with torch.no_grad():
        while start < len(order):
            alike = order[start : start + max(1, decoding.max_tokens // int(longest[order[start]]))]
            rows.append(task.losses([(group, int(row)) for row in alike], split))
            start += len(alike)
    found: Float = np.concatenate(rows)[np.argsort(order)]
    if not np.isfinite(found).all():
        raise NonFiniteError(group, "its loss is not finite", "leave out --metric loss, or the group")
    size = task.bytes(group, split)
    size = np.zeros(len(found)) if size is None else size[: len(found)]
    return np.column_stack([found, size])


def ids_of(task: Task, group: str, split: str, count: int, decodes: bool) -> tuple[Ids, str]:
    """Return the identities of the first `count` sentences of a split, and what they are known by (see `Segments`).

    All sentences are translated, where it `decodes`; `losses` has those that fit the model's positions.
    """
    found = task.segments(group, split)
    texts = found.texts if decodes else [found.texts[row] for row in found.rows[:count]]
    return identified(texts[:count]), found.known_by


@lru_cache(maxsize=4)
def bleu_metric(tokenizer: str = "spm", spm_model: str | None = None) -> BLEU:
    """Return sacreBLEU's BLEU with a tokenizer.

    The paper's `spm` is called flores101 in sacreBLEU now. Its model is not part of sacreBLEU's signature, so the first
    eight digits of the SHA-256 of a SentencePiece model are added to it.

    Args:
        tokenizer: one of `TOKENIZERS`.
        spm_model: a SentencePiece model to tokenise with instead.

    Raises:
        OptionError: for a tokenizer that does not exist, or a model that cannot be read.
        MissingDependencyError: if sacreBLEU has no SentencePiece model for `tokenizer` and cannot fetch it.
    """
    if spm_model is not None:
        return _with_model(Path(spm_model))
    if tokenizer not in TOKENIZERS:
        raise OptionError("--tokenizer", f"{tokenizer} is unknown", f"choose among {', '.join(TOKENIZERS)}")
    name = "flores101" if tokenizer == "spm" else tokenizer
    if not name.startswith("flores"):
        return BLEU(tokenize=name, force=True)
    spm = importlib.import_module("sacrebleu.tokenizers.tokenizer_spm")
    path = Path(spm.SACREBLEU_DIR) / "models" / os.path.basename(spm.SPM_MODELS[name]["url"])  # noqa: PTH119  (a URL)
    there = path.exists()
    try:
        metric = BLEU(tokenize=name, force=True)
    except BaseException as error:
        if not there:
            # a download that broke off leaves a file that sacreBLEU would take for the model next time
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        # a certificate that is refused makes sacreBLEU exit
        if not isinstance(error, OSError | RuntimeError | SystemExit):
            raise
        problem = f"sacreBLEU's model {path} is damaged" if there else "sacreBLEU could not fetch its model"
        remedy = "give one with --spm-model FILE, or choose another, such as --tokenizer 13a"
        raise MissingDependencyError(f"--tokenizer {tokenizer}", problem, remedy) from error
    metric.tokenizer_signature = f"{name}-{sha256(path)[:8]}"
    return metric


def _with_model(path: Path) -> BLEU:
    import sentencepiece

    if not path.is_file():
        raise OptionError(f"--spm-model {path}", "does not exist", "give a SentencePiece model file")
    try:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise OptionError(f"--spm-model {path}", "is not a SentencePiece model", "give another file") from error
    metric = BLEU(tokenize="none", force=True)
    metric.tokenizer = lambda line: " ".join(processor.encode(line, out_type=str))
    metric.tokenizer_signature = f"spm-{sha256(path)[:8]}"
    return metric


def chrf_metric(*_: object) -> CHRF:
    """Return sacreBLEU's chrF++, which knows no tokenizer."""
    return CHRF(word_order=2)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("bleu", "BLEU", bleu_score, bleu_metric, lengths=lambda of: of[..., 0] / np.maximum(of[..., 1], 1)),
        Metric("chrf", "chrF++", chrf_score, chrf_metric),
        Metric("loss", "Loss", loss_score, bounds=(0.0, np.inf), higher=False, unit="nats per token"),
        Metric("bpb", "Bits per byte", bits_per_byte, bounds=(0.0, np.inf), higher=False, unit="bits per byte"),
    )
}
"""By the name that --metric takes."""


def chosen(names: Sequence[str]) -> list[Metric]:
    """Return the metrics of some names, each once.

    Raises:
        OptionError: if one does not exist, or none is named.
    """
    for name in names or ("nothing",):
        if name not in METRICS:
            raise OptionError("--metric", f"{name} is not a metric", f"choose among {', '.join(METRICS)}")
    return [METRICS[name] for name in dict.fromkeys(names)]


def check_scored(names: Sequence[str], model: Model, task: str, split: str) -> None:
    """Refuse a metric that a task has nothing to be scored by.

    Raises:
        OptionError: naming it.
    """
    for metric in chosen(names):
        of = translation_of(model, task) if metric.decodes else task_of(model, task)
        if metric.score is bits_per_byte and of.bytes(next(iter(of.groups)), split) is None:
            raise OptionError("--metric", f"the bytes of {task} sentences are not known", "give --metric loss")


class Score(NamedTuple):
    """A score, its 95 % interval over test sentences, and how both were computed."""

    value: float
    low: float
    high: float
    signature: str


def evaluate(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokenizer: str = "spm",
    spm_model: str | None = None,
    bootstrap: int = BOOTSTRAP,
) -> dict[str, Score]:
    """Return BLEU and chrF++, by `bleu` and `chrf`, of `hypotheses` (n) against one reference each (n).

    >>> found = evaluate(["The cat sat on a mat."], ["The cat sat on the mat."], "13a", bootstrap=0)
    >>> round(found["bleu"].value, 2), round(found["chrf"].value, 2)
    (48.89, 68.44)
    >>> found["chrf"].signature
    'nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no|version:2.6.0'

    Args:
        hypotheses: detokenised.
        references: raw text.
        tokenizer: of BLEU, see `bleu_metric`.
        spm_model: see `bleu_metric`.
        bootstrap: draws behind the intervals; below 2 there are none (NaN).

    Raises:
        DataError: if there is nothing to score, or not one translation for each reference.
        OptionError, MissingDependencyError: as `bleu_metric`.
    """
    metrics = [metric for metric in METRICS.values() if metric.decodes]
    rows = {metric: metric.sums(hypotheses, references, tokenizer, spm_model) for metric in metrics}
    ids = identified(references)
    scores = resampled([metric.scored(ids, sums) for metric, sums in rows.items()], bootstrap)
    return {
        metric.name: Score(score.value, *score.interval(), metric.signature(bootstrap, tokenizer, spm_model))
        for metric, score in zip(metrics, scores, strict=True)
    }
