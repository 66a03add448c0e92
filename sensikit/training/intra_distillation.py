"""Intra-distillation (Xu et al., 2022): K passes, each with its own dropout, are to say the same."""

from __future__ import annotations

import math

import torch


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
