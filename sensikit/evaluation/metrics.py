"""Translation quality in sacreBLEU's numbers, each with its signature: BLEU with an interval, and chrF++."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sacrebleu.metrics import BLEU, CHRF

from sensikit.errors import MissingDependencyError, OptionError
from sensikit.evaluation.resampling import Sampled, resampled
from sensikit.files import sha256
from sensikit.settings import BOOTSTRAP

TOKENIZERS = ("spm", "flores101", "flores200", "13a", "intl", "char", "zh", "none")


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
    return evaluate_resampled(hypotheses, references, tokenizer, spm_model, bootstrap)[0]


def evaluate_resampled(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokenizer: str = "spm",
    spm_model: str | None = None,
    bootstrap: int = BOOTSTRAP,
) -> tuple[Quality, Sampled]:
    """Return what `evaluate` returns, and BLEU on each of the resamples that its interval is of."""
    metric, chrf = bleu_metric(tokenizer, spm_model), CHRF(word_order=2)
    bleu = resampled(metric, hypotheses, references, bootstrap)
    chrf_score = chrf.corpus_score(list(hypotheses), [list(references)]).score
    signatures = metric.get_signature().format(), chrf.get_signature().format()
    return Quality(bleu.value, *bleu.interval(), chrf_score, *signatures), bleu


def length_ratio(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Return words in all hypotheses over words in all references: a model that runs on shows here first."""
    return sum(len(h.split()) for h in hypotheses) / max(sum(len(r.split()) for r in references), 1)
