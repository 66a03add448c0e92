"""Intra-distillation (Xu et al., 2022): K passes, each with its own dropout, are to say the same."""

from __future__ import annotations

import math

import torch


def x_divergence(log_probabilities: torch.Tensor) -> torch.Tensor:
    """Return X = (1/K) Σ_k [KL(p_k‖m) + KL(m‖p_k)] at every position (Eq. 5); m is the mean of the K distributions.

    Both divergences together are Σ_v (p_k - m)(log p_k - log m). All of it stays in log space: a probability that
    underflows gives no inf and no nan. The gradient flows through the p_k and through m.

    Args:
        log_probabilities: (K, N, V) float, the K passes at N positions, normalised over V.

    Returns:
        (N,) nats.
    """
    passes = log_probabilities.shape[0]
    mean = torch.logsumexp(log_probabilities, dim=0) - math.log(passes)
    apart = (log_probabilities.exp() - mean.exp()) * (log_probabilities - mean)
    return apart.sum(dim=-1).mean(dim=0)


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
    return alpha * float(p * update / horizon) ** gamma
