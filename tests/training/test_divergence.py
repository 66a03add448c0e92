"""X-divergence and the schedule of its weight."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import entropy

from sensikit.training.losses import strength, x_divergence, x_with_slope


def log_probabilities(passes: int, positions: int = 5, vocabulary: int = 7, scale: float = 1.5) -> torch.Tensor:
    logits = np.random.default_rng(passes).normal(0, scale, (passes, positions, vocabulary))
    return torch.from_numpy(log_softmax(logits, axis=-1))


@pytest.mark.parametrize("passes", [2, 3, 5])
def test_it_is_the_sum_of_both_divergences_of_scipy(passes):
    scores = log_probabilities(passes)
    chances = scores.exp().numpy()
    mean = chances.mean(0)
    expected = np.mean([entropy(p, mean, axis=-1) + entropy(mean, p, axis=-1) for p in chances], axis=0)
    assert x_divergence(scores).numpy() == pytest.approx(expected, rel=1e-12)


def test_a_number_worked_by_hand():
    scores = torch.tensor([[[0.8, 0.2]], [[0.2, 0.8]]], dtype=torch.float64).log()
    # m = (.5, .5): KL(p‖m) = .8 ln 1.6 + .2 ln .4, KL(m‖p) = .5 ln .625 + .5 ln 2.5, the same for both passes
    expected = 0.8 * np.log(1.6) + 0.2 * np.log(0.4) + 0.5 * np.log(0.625) + 0.5 * np.log(2.5)
    assert x_divergence(scores).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_passes_do_not_diverge(dtype):
    one = log_probabilities(1).to(dtype)
    assert x_divergence(one.repeat(2, 1, 1)).abs().max() == 0
    assert x_divergence(one.repeat(3, 1, 1)).abs().max() < 1e-6


def test_passes_may_change_places():
    scores = log_probabilities(3)
    for order in ([1, 0, 2], [2, 1, 0], [1, 2, 0]):
        assert torch.allclose(x_divergence(scores[order]), x_divergence(scores), rtol=1e-13, atol=0)


def test_it_is_never_negative():
    assert (x_divergence(log_probabilities(2, 500)) > 0).all()


def test_probabilities_that_underflow_give_no_inf_and_no_nan():
    logits = torch.tensor([[[0.0, 800.0, -800.0]], [[0.0, 700.0, -900.0]]])
    scores = torch.log_softmax(logits, -1).requires_grad_()
    divergence = x_divergence(scores)
    divergence.sum().backward()
    assert torch.isfinite(divergence).all()
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("passes", [2, 3])
def test_what_is_written_of_its_gradient_is_that_of_autograd(passes):
    logits = log_probabilities(passes).requires_grad_()
    scores = torch.log_softmax(logits, -1)
    expected = x_divergence(scores)
    expected.sum().backward()
    found, slope = x_with_slope(scores.detach(), scores.detach().exp())
    assert torch.allclose(found, expected, rtol=1e-12, atol=0)
    assert torch.allclose(slope / passes, logits.grad, rtol=1e-12, atol=1e-15)


class TestStrength:
    def test_constant_without_a_schedule(self):
        assert [strength(update, 5.0) for update in (0, 10, 10**6)] == [5.0] * 3

    def test_it_is_one_at_n_over_q_and_alpha_from_n_over_p_on(self):
        weights = {update: strength(update, 5.0, (5, 10), 50_000) for update in (0, 2500, 5000, 7500, 10_000, 50_000)}
        assert weights[0] == 0
        assert weights[5000] == pytest.approx(1, rel=1e-12)
        assert weights[10_000] == weights[50_000] == 5
        assert 0 < weights[2500] < 1 < weights[7500] < 5

    def test_between_them_it_is_the_formula_of_the_authors(self):
        p, q, alpha, total, x = 5, 10, 5.0, 50_000, 6000
        gamma = np.log(1 / alpha) / np.log(p / q)
        expected = p**gamma * alpha * x**gamma / total**gamma
        assert strength(x, alpha, (p, q), total) == pytest.approx(expected, rel=1e-12)

    def test_an_alpha_of_at_most_one_knows_no_schedule(self):
        assert [strength(update, 0.5, (5, 10), 100) for update in (0, 5, 100)] == [0.5] * 3
