"""Translation quality in sacreBLEU's numbers, each with its signature: BLEU with an interval, and chrF++."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sacrebleu.metrics import BLEU, CHRF

from sensikit.errors import DataError, MissingDependencyError, OptionError
from sensikit.files import sha256

TOKENIZERS = ("spm", "flores101", "flores200", "13a", "intl", "char", "zh", "none")

NAN = float("nan")

BOOTSTRAP = 1000
"""Resamples of the test sentences behind an interval, sacreBLEU's own number."""


@dataclass(frozen=True)
class Quality:
    """BLEU with its 95 % bootstrap interval over test sentences, chrF++, and how both were computed."""

    bleu: float
    bleu_low: float
    bleu_high: float
    chrf: float
    bleu_signature: str
    chrf_signature: str


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


def evaluate(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokenizer: str = "spm",
    spm_model: str | None = None,
    bootstrap: int = BOOTSTRAP,
) -> Quality:
    """Return BLEU and chrF++ of `hypotheses` (n) against one reference each (n).

    Args:
        hypotheses: detokenised.
        references: raw text.
        tokenizer: see `bleu_metric`.
        spm_model: see `bleu_metric`.
        bootstrap: resamples for the interval of BLEU; below 2 there is none (NaN).

    Raises:
        DataError: if there is nothing to score, or not one translation for each reference.
    """
    hypotheses, references = list(hypotheses), list(references)
    checked(hypotheses, references)
    metric = bleu_metric(tokenizer, spm_model)
    metric.n_bootstrap = metric.seed = None  # what an earlier call has left there would be in the signature
    resampled = {"n_bootstrap": bootstrap} if bootstrap > 1 else {}
    score: Any = metric.corpus_score(hypotheses, [references], **resampled)
    low, high = (max(score._mean - score._ci, 0.0), min(score._mean + score._ci, 100.0)) if resampled else (NAN, NAN)
    chrf = CHRF(word_order=2)
    chrf_score = chrf.corpus_score(hypotheses, [references]).score
    return Quality(score.score, low, high, chrf_score, metric.get_signature().format(), chrf.get_signature().format())


def checked(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    """Refuse to score nothing, or not one translation for each reference.

    Raises:
        DataError: saying which.
    """
    if len(hypotheses) != len(references):
        # sacreBLEU would leave out the rest without a word
        raise DataError(
            "references", f"{len(hypotheses)} translations of {len(references)} sentences", "check the data"
        )
    if not references:
        raise DataError("references", "there is no sentence to score", "check the split")


def length_ratio(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Return words in all hypotheses over words in all references: a model that runs on shows here first."""
    return sum(len(h.split()) for h in hypotheses) / max(sum(len(r.split()) for r in references), 1)
