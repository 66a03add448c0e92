"""The terms of the loss, and how much each weighs: L = L_mmt + L_e + L_d (+ α·X of each), Eq. 7 and 8."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from torch.nn import functional

from sensikit.training.intra_distillation import x_divergence

TERMS = ("translation", "encoder", "decoder")
"""L_mmt, L_e and L_d."""


class Term(NamedTuple):
    """One term over some positions, summed, in nats: label-smoothed cross-entropy, the same without smoothing, and X.

    `loss` and `nll` are means over the K passes.
    """

    loss: torch.Tensor
    nll: torch.Tensor
    divergence: torch.Tensor


def term(logits: torch.Tensor, target: torch.Tensor, smoothing: float, distil: bool) -> Term:
    """Return the term of K passes at the positions that bear a loss, and at no others.

    Args:
        logits: (K, N, V) float.
        target: (N,) int64.
        smoothing: ε of label smoothing.
        distil: X is wanted; it is 0 otherwise.
    """
    log_probabilities = functional.log_softmax(logits, dim=-1, dtype=torch.float32)
    passes = len(logits)
    loss, nll = label_smoothed_nll_loss(log_probabilities.flatten(0, 1), target.repeat(passes), smoothing)
    divergence = x_divergence(log_probabilities).sum() if distil else loss.new_zeros(())
    return Term(loss / passes, nll.sum() / passes, divergence)


def weights(tokens: Mapping[str, int], how: str) -> tuple[dict[str, float], float]:
    """Return what each summed term is multiplied with, and the sample size that fairseq's trainer then divides by.

    With "own", each term is divided by its own token count: a term's factor is the translation's count over its own, and the
    sample size the translation's, so that a plain translation model is trained exactly as by fairseq's own criterion.
    With "released", sums are pooled and divided by all target tokens; those of concurrent denoising, shared by encoder and
    decoder, count once: about .77, .23 and .23 where both kinds of text have as many source tokens.

    Args:
        tokens: loss-bearing positions over the whole update, all processes together, by term; "targets": of all
            examples, each once.
        how: "own" or "released".
    """
    if how == "released":
        return dict.fromkeys(TERMS, 1.0), tokens["targets"]
    reference = tokens["translation"]
    return {name: reference / tokens[name] if tokens.get(name) else 0.0 for name in TERMS}, reference


def summed(counts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sums of dictionaries, name by name."""
    total: dict[str, Any] = {}
    for each in counts:
        total |= {name: total.get(name, 0) + value for name, value in each.items()}
    return total
