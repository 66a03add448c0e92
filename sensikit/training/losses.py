"""The terms of the loss, and how much each weighs: L = L_mmt + L_e + L_d (+ α·X of each), Eq. 7 and 8."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch.nn import functional


def x_divergence(log_probabilities: torch.Tensor) -> torch.Tensor:
    """Return X = (1/K) Σ_k [KL(p_k‖m) + KL(m‖p_k)] at every position (Eq. 5), m the mean of the K distributions.

    Both divergences together are Σ_v (p_k - m)(log p_k - log m). As the p_k - m sum to zero over k, log m may give
    way to anything that all passes share: with the mean of the log p_k, X is their covariance over the passes, and
    everything stays in log space. A probability that underflows gives no inf and no nan.

    Args:
        log_probabilities: (K, N, V) float, the K passes at N positions, normalised over V.

    Returns:
        (N,) nats.
    """
    probabilities = log_probabilities.exp()
    apart = log_probabilities - log_probabilities.mean(0)
    return ((probabilities - probabilities.mean(0)) * apart).sum(-1).mean(0)


def x_gradient(log_probabilities: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Return K·∂X/∂log p_k = p_k (log p_k - mean_j log p_j) + p_k - m, (K, N, V): through the p_k and through m."""
    apart = log_probabilities - log_probabilities.mean(0)
    return apart.mul_(probabilities).add_(probabilities).sub_(probabilities.mean(0))


def strength(update: int, alpha: float, schedule: tuple[float, float] | None = None, horizon: int = 0) -> float:
    """Return the weight of X at an update: α, or α′ = α·(p·x/N)^γ while x < N/p with the schedule of Xu et al. (2022).

    γ = log_{p/q}(1/α), so that α′ is 1 at update N/q and α from update N/p on. An α of at most 1 knows no schedule.

    Args:
        update: x, updates done.
        alpha: α.
        schedule: (p, q) with q > p > 0; None for a constant α.
        horizon: N, updates in all.
    """
    if schedule is None or alpha <= 1 or update * schedule[0] >= horizon:
        return alpha
    p, q = schedule
    gamma = math.log(1 / alpha) / math.log(p / q)
    return alpha * math.pow(p * update / horizon, gamma)


TERMS = ("translation", "encoder", "decoder")
"""L_mmt, L_e and L_d."""


class Term(NamedTuple):
    """One term, summed over its positions, in nats; cross-entropies are means over the K passes.

    `total` is what is minimised, label-smoothed cross-entropy + α·X; the gradient flows through it alone. `loss`, `nll`
    (without smoothing) and `divergence` (X; 0 with α = 0) are for the log.
    """

    total: torch.Tensor
    loss: torch.Tensor
    nll: torch.Tensor
    divergence: torch.Tensor


def term(logits: torch.Tensor, target: torch.Tensor, smoothing: float, alpha: float) -> Term:
    """Return the term of K passes at N positions, all of which bear a loss.

    The same as log_softmax, fairseq's label smoothing, (1-ε-ε/(V-1))·nll + ε/(V-1)·Σ_v -log p_v, and `x_divergence`,
    but in slices that fit into a cache, forward and backward: four times as fast on a processor, and with less memory.

    Args:
        logits: (K, N, V) float.
        target: (N,) int64.
        smoothing: ε.
        alpha: α, 0 where X is not wanted.
    """
    return Term(*_Term.apply(logits, target, smoothing, alpha))  # type: ignore[no-untyped-call]


class _Term(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, logits: torch.Tensor, target: torch.Tensor, smoothing: float, alpha: float) -> Any:
        context.save_for_backward(logits, target)
        context.settings = smoothing, alpha
        passes, _, vocabulary = logits.shape
        nll, uniform, divergence = torch.zeros(3, dtype=_precise(logits), device=logits.device)
        for span, wanted in _spans(logits, target):
            scores = functional.log_softmax(logits[:, span], -1, dtype=_precise(logits))
            nll = nll - scores.gather(-1, wanted).sum() / passes
            uniform = uniform - scores.sum() / passes
            divergence = divergence + x_divergence(scores).sum() if alpha else divergence
        each = smoothing / (vocabulary - 1)
        loss = (1 - smoothing - each) * nll + each * uniform
        context.mark_non_differentiable(loss, nll, divergence)
        return loss + alpha * divergence, loss, nll, divergence

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor, *_: Any) -> Any:
        logits, target = context.saved_tensors
        smoothing, alpha = context.settings
        each = smoothing / (logits.shape[-1] - 1)
        result = torch.empty_like(logits)
        for span, wanted in _spans(logits, target):
            scores = functional.log_softmax(logits[:, span], -1, dtype=_precise(logits))
            chances = scores.exp()
            slope = x_gradient(scores, chances).mul_(alpha) if alpha else torch.zeros_like(scores)
            observed = torch.full_like(wanted, smoothing + each - 1, dtype=slope.dtype)
            slope.sub_(each).scatter_add_(-1, wanted, observed)
            slope.sub_(chances.mul_(slope.sum(-1, keepdim=True)))
            result[:, span] = slope.mul_(gradient / len(logits))
        return result, None, None, None


def _precise(logits: torch.Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _spans(logits: torch.Tensor, target: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield spans of positions, and their targets (K, n, 1): what a processor's cache holds or keeps a GPU busy."""
    passes, count, vocabulary = logits.shape
    step = max(1, (1 << (26 if logits.is_cuda else 16)) // (passes * vocabulary))
    for start in range(0, count, step):
        span = slice(start, start + step)
        yield span, target[span].expand(passes, -1).unsqueeze(-1)


def weights(tokens: Mapping[str, int], how: str) -> tuple[dict[str, float], float]:
    """Return what each summed term is multiplied with, and the sample size that fairseq's trainer then divides by.

    With "own", each term is divided by its own token count: a term's factor is the translation's count over its own,
    and the sample size the translation's, so that translation alone is trained just as by fairseq's own criterion.
    With "released", sums are pooled and divided by all target tokens; those of concurrent denoising, shared by encoder
    and decoder, count once: about .77, .23 and .23 where both kinds of text have as many source tokens.

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
