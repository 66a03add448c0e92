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
    way to anything that all passes share: with the mean of the log p_k, everything stays in log space, and the m
    before it vanishes in its turn: X = (1/K) Σ_k Σ_v p_k (log p_k - mean_j log p_j). A probability that underflows
    gives no inf and no nan.

    Args:
        log_probabilities: (K, N, V) float, the K passes at N positions, normalised over V.

    Returns:
        (N,) nats.
    """
    apart = log_probabilities - log_probabilities.mean(0)
    return (log_probabilities.exp() * apart).sum(-1).mean(0)


def x_with_slope(log_probabilities: torch.Tensor, probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return X, (N,), and K·∂X/∂logits, (K, N, V): through the p_k and through m.

    With a_k = log p_k - mean_j log p_j and r_k = Σ_v p_k a_k, X = mean_k r_k and the slope is p_k (a_k - r_k + 1) - m.
    `log_probabilities` are written over.
    """
    apart = log_probabilities.sub_(log_probabilities.mean(0))
    own = torch.linalg.vecdot(probabilities, apart)
    slope = apart.sub_(own.unsqueeze(-1) - 1).mul_(probabilities).sub_(probabilities.mean(0))
    return own.mean(0), slope


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


def term(states: torch.Tensor, projection: torch.Tensor, target: torch.Tensor, smoothing: float, alpha: float) -> Term:
    """Return the term of K passes at N positions, all of which bear a loss.

    The same as the projection onto the vocabulary, log_softmax, fairseq's label smoothing,
    (1-ε-ε/(V-1))·nll + ε/(V-1)·Σ_v -log p_v, and `x_divergence`. But logits and probabilities live for a slice of
    positions alone, one that fits into a cache, and the gradient is made while they are there: the backward pass, which
    scales it, needs neither them nor a second softmax. Twice as fast on a processor, and K·N·V numbers less in memory.

    Args:
        states: (K, N, d) float.
        projection: (V, d) float.
        target: (N,) int64.
        smoothing: ε.
        alpha: α, 0 where X is not wanted.
    """
    learns = torch.is_grad_enabled() and (states.requires_grad or projection.requires_grad)
    return Term(*_Term.apply(states, projection, target, smoothing, alpha, learns))  # type: ignore[no-untyped-call]


class _Term(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        states: torch.Tensor,
        projection: torch.Tensor,
        target: torch.Tensor,
        smoothing: float,
        alpha: float,
        learns: bool,
    ) -> Any:
        passes, vocabulary = len(states), len(projection)
        precise = torch.promote_types(states.dtype, torch.float32)
        nll, uniform, divergence = torch.zeros(3, dtype=precise, device=states.device)
        slopes = [torch.empty_like(states), torch.zeros_like(projection, dtype=precise)] if learns else []
        each = smoothing / (vocabulary - 1)
        for span in _spans(len(target), passes, vocabulary, states.is_cuda):
            read = states[:, span]
            logits = functional.linear(read, projection)
            wanted = target[span].expand(passes, -1).unsqueeze(-1)
            scores = functional.log_softmax(logits, -1, dtype=precise)
            nll = nll - scores.gather(-1, wanted).sum()
            uniform = uniform - scores.sum()
            if not learns:
                divergence = divergence + x_divergence(scores).sum() if alpha else divergence
                continue
            slope = scores.exp()
            if alpha:
                values, of_x = x_with_slope(scores, slope)
                divergence = divergence + values.sum()
                slope.add_(of_x, alpha=alpha)
            # of the smoothed cross-entropy: p − ε/(V−1), and p − (1−ε) at the target
            slope.sub_(each).scatter_add_(-1, wanted, torch.full_like(wanted, smoothing + each - 1, dtype=precise))
            slope = slope.to(logits.dtype)
            slopes[0][:, span] = slope @ projection.to(logits.dtype)
            slopes[1] += slope.flatten(0, 1).T @ read.to(logits.dtype).flatten(0, 1)
        context.slopes = [slope.div_(passes) for slope in slopes]
        nll, uniform = nll / passes, uniform / passes
        loss = (1 - smoothing - each) * nll + each * uniform
        context.mark_non_differentiable(loss, nll, divergence)
        return loss + alpha * divergence, loss, nll, divergence

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor, *_: Any) -> Any:
        states, projection = (slope * gradient for slope in context.slopes)
        return states, projection, None, None, None, None


def _spans(count: int, passes: int, vocabulary: int, on_gpu: bool) -> Iterator[slice]:
    """Yield spans of positions: what a processor's cache holds, or more where the products need it, or a GPU does."""
    rows = (1 << 26) // vocabulary if on_gpu else max(256, (1 << 20) // vocabulary)
    step = max(1, rows // passes)
    for start in range(0, count, step):
        yield slice(start, start + step)


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
