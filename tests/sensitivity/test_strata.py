from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sensikit.errors import OptionError
from sensikit.parameters import Parameter, component_of
from sensikit.run import Run
from sensikit.sensitivity import strata
from sensikit.sensitivity.strata import (
    CLASSES,
    FEWEST,
    LEAST,
    STATISTICS,
    Sample,
    _jackknife,
    _wilson,
    allocation,
    intervals,
    pearson,
    sample,
    spearman,
    top_agreement,
    weighted_ranks,
)
from tests.support import handmade

SHAPES = {
    f"encoder.{name}": shape
    for name, shape in {
        "embed_tokens.weight": (40, 50), "fc1.weight": (30, 100), "layer_norm.weight": (20,), "fc1.bias": (30,),
    }.items()
}  # fmt: skip
SIZE = 2000 + 3000 + 20 + 30


def population(seed: int = 0) -> np.ndarray:
    """S of many parameters over eight decades, no two alike."""
    return np.random.default_rng(seed).lognormal(-12, 2.5, SIZE).astype(np.float32)


def run_of(path: Path, own: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Run:
    def parameters(shapes: handmade.Shapes, spared: object = ()) -> tuple[Parameter, ...]:
        made, start = [], 0
        for name, shape in shapes.items():
            made.append(Parameter(name, shape, start, component_of(name), "encoder", None, True))
            start = made[-1].stop
        return tuple(made)

    with monkeypatch.context() as patch:
        patch.setattr(handmade, "parameters_of", parameters)
        return handmade.run(path, {"cat": own}, shapes=SHAPES)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return run_of(tmp_path / "run", population(), monkeypatch)


def flat_of(found: Sample) -> np.ndarray:
    return np.array([parameter.start + index for parameter, index in found.places])


def obvious_strata(own: np.ndarray) -> list[str]:
    """Component and class of every parameter, from a sort of all of them."""
    component = ["embedding"] * 2000 + ["ffn"] * 3000 + ["norm"] * 20 + ["ffn"] * 30
    ranks = stats.rankdata(own, method="ordinal") - 1
    edges = [int(level * len(own)) - 1 for level in (0.5, 0.8, 0.9, 0.99, 0.999)]
    return [
        f"{name}/{CLASSES[np.searchsorted(edges, rank, side='left')]}"
        for name, rank in zip(component, ranks, strict=True)
    ]


# the sample


def test_classes_are_named_by_their_quantiles() -> None:
    assert CLASSES == ("0-50%", "50-80%", "80-90%", "90-99%", "99-99.9%", "99.9-100%")


@pytest.mark.parametrize("chunk", [7, 1 << 18])
def test_a_sample_is_of_the_strata_that_it_says_and_weighs_what_it_stands_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("sensikit.run.CHUNK", chunk)
    found = sample(run, "cat", 200, seed=1, task="mt")
    expected = np.array(obvious_strata(population()))
    places = flat_of(found)
    assert len(set(places.tolist())) == len(places) == 200
    assert found.strata.tolist() == expected[places].tolist()
    for name in set(expected.tolist()):
        inside = found.weights[found.strata == name]
        assert len(inside) >= min(LEAST, (expected == name).sum())
        np.testing.assert_allclose(inside.sum(), (expected == name).sum())
        assert len(set(inside.tolist())) == 1
    for parameter, index in found.places:
        assert 0 <= index < parameter.numel


def test_the_top_is_sampled_densely(run: Run) -> None:
    found = sample(run, "cat", 200, seed=1, task="mt")
    top = [name.split("/")[1] in CLASSES[3:] for name in found.strata]
    assert np.mean(top) > 0.3
    np.testing.assert_allclose(found.weights[top].sum() / SIZE, 0.1, atol=1 / SIZE)


def test_a_census_is_every_parameter_once_with_weight_one(run: Run) -> None:
    for count in (SIZE, SIZE + 1000):
        found = sample(run, "cat", count, seed=1, task="mt")
        assert sorted(flat_of(found).tolist()) == list(range(SIZE))
        assert (found.weights == 1).all()


def test_the_draw_is_the_same_again_and_another_by_seed_and_by_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_of(tmp_path / "run", population(), monkeypatch)
    draws = [flat_of(sample(found, "cat", 150, seed, "mt")).tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    vector = found.vector("mt", "cat")
    monkeypatch.setattr("sensikit.run.Run.vector", lambda *_: vector)
    assert flat_of(sample(found, "nob", 150, 1, "mt")).tolist() != draws[0]


def test_every_parameter_of_a_stratum_is_as_likely_as_any_other(run: Run) -> None:
    expected = np.array(obvious_strata(population()))
    members = np.flatnonzero(expected == "embedding/0-50%")
    counts = np.zeros(SIZE)
    for seed in range(150):
        counts[flat_of(sample(run, "cat", 100, seed, "mt"))] += 1
    tens = counts[members][: len(members) // 10 * 10].reshape(10, -1).sum(axis=1)
    assert tens.sum() > 750
    assert stats.chisquare(tens).pvalue > 1e-4


def test_ties_of_S_are_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = np.zeros(SIZE, dtype=np.float32)  # as of the embeddings of words that never come
    own[-400:] = population()[-400:] + 1
    found = sample(run_of(tmp_path / "run", own, monkeypatch), "cat", 100, seed=1, task="mt")
    assert set(found.strata[flat_of(found) < SIZE - 400]) == {"embedding/0-50%", "ffn/0-50%"}
    np.testing.assert_allclose(found.weights.sum(), SIZE)


def test_fewer_than_two_of_a_stratum_are_refused_in_one_line(run: Run) -> None:
    with pytest.raises(
        OptionError, match=r"^--parameters: 5 is too few for \d+ strata .*; give (\d+) or more"
    ) as caught:
        sample(run, "cat", 5, seed=1, task="mt")
    least = int(str(caught.value).split("give ")[1].split()[0])
    assert len(sample(run, "cat", least, seed=1, task="mt").places) == least
    with pytest.raises(OptionError):
        sample(run, "cat", least - 1, seed=1, task="mt")


def test_allocation_gives_classes_alike_and_components_by_size() -> None:
    # class 0: two components of 900 and 100, class 1: one of 50
    sizes = {0: 900, len(CLASSES): 100, 1: 50}
    assert allocation(sizes, 40) == {0: 18, len(CLASSES): 2, 1: 20}
    # what a small stratum cannot take goes to the others
    assert allocation(sizes, 200) == {0: 135, len(CLASSES): 15, 1: 50}
    assert allocation({0: 1, 1: 3}, 2 + 1) == {0: 1, 1: 2}


# weighted statistics


def repeated(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.repeat(values, weights.astype(int))


def obvious_agreement(one: np.ndarray, other: np.ndarray, share: float = 0.1) -> float:
    size = int(share * len(one) + 1e-9)
    tops = [set(np.argsort(-values, kind="stable")[:size].tolist()) for values in (one, other)]
    return len(tops[0] & tops[1]) / size


def test_a_census_gives_the_plain_statistics() -> None:
    rng = np.random.default_rng(3)
    one = rng.lognormal(0, 2, 1000)
    other = one * rng.lognormal(0, 0.5, 1000)
    ones = np.ones(1000)
    assert spearman(one, other, ones) == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-12)
    assert pearson(one, other, ones) == pytest.approx(stats.pearsonr(one, other).statistic, abs=1e-12)
    assert top_agreement(one, other, ones) == obvious_agreement(one, other)
    assert 0.3 < obvious_agreement(one, other) < 0.95


def test_a_weight_is_a_number_of_parameters() -> None:
    rng = np.random.default_rng(4)
    one = rng.integers(0, 9, 60).astype(float)  # with ties
    other = one + rng.integers(-2, 3, 60)
    weights = rng.integers(1, 20, 60).astype(float)
    whole = repeated(one, weights), repeated(other, weights)
    assert spearman(one, other, weights) == pytest.approx(stats.spearmanr(*whole).statistic, abs=1e-12)
    assert pearson(one, other, weights) == pytest.approx(stats.pearsonr(*whole).statistic, abs=1e-12)
    assert weighted_ranks(one, weights) == pytest.approx(
        [(stats.rankdata(whole[0]) - 0.5)[whole[0] == value][0] for value in one]
    )


def test_agreement_of_the_top_by_hand() -> None:
    weights = np.array([5.0, 3.0, 4.0, 8.0])
    one, other = np.array([4.0, 3.0, 2.0, 1.0]), np.array([4.0, 1.0, 3.0, 2.0])
    # the highest 8 of 20: by one 5 of the first and 3 of the second; by the other 5 of the first and 3 of the third
    assert top_agreement(one, other, weights, 0.4) == pytest.approx(5 / 8)
    assert top_agreement(one, one, weights, 0.3) == pytest.approx(1)  # the cut falls within the second
    assert top_agreement(one, other, weights, 0.3) == top_agreement(other, one, weights, 0.3) == pytest.approx(5 / 6)
    assert math.isnan(top_agreement(one, other, weights, 0.01))


def test_what_is_constant_has_no_correlation() -> None:
    assert math.isnan(pearson(np.ones(5), np.arange(5.0), np.ones(5)))


def test_the_weighted_statistic_of_a_sample_is_that_of_the_population_and_the_unweighted_is_not(run: Run) -> None:
    own = population().astype(float)
    exact = own * np.random.default_rng(5).lognormal(0, 1.2, SIZE)
    truth = {name: of(own, exact, np.ones(SIZE)) for name, of in STATISTICS.items()}
    estimates = {name: [] for name in STATISTICS}
    plain = []
    for seed in range(60):
        found = sample(run, "cat", 400, seed, "mt")
        places = flat_of(found)
        for name, of in STATISTICS.items():
            estimates[name].append(of(own[places], exact[places], found.weights))
        plain.append(spearman(own[places], exact[places], np.ones(400)))
    for name in ("spearman", "top10_agreement"):
        error = np.std(estimates[name]) / math.sqrt(60)
        assert abs(np.mean(estimates[name]) - truth[name]) < 5 * error, name
    assert abs(np.mean(plain) - truth["spearman"]) > 5 * np.std(plain) / math.sqrt(60)


# intervals


def fake(strata_: list[str], weights: list[float]) -> Sample:
    return Sample([], np.array(strata_), np.array(weights))


def test_the_variance_of_the_jackknife_is_that_of_a_stratified_sample() -> None:
    # of a mean of n of N, s²/n·(1 − n/N) with s² over n − 1; a mean has no bias
    values = np.array([0.0, 1.0, 10.0, 14.0, 15.0])
    drawn = fake(["a"] * 2 + ["b"] * 3, [50.0] * 2 + [20.0] * 3)
    strata = [np.array([0, 1]), np.array([2, 3, 4])]
    bias, variance = _jackknife(
        lambda weights: float(weights @ values / weights.sum()),
        float(drawn.weights @ values / drawn.weights.sum()), drawn, strata,
    )  # fmt: skip
    expected = (100 / 160) ** 2 * 0.5 / 2 * (1 - 2 / 100)
    expected += (60 / 160) ** 2 * np.var([10, 14, 15], ddof=1) / 3 * (1 - 3 / 60)
    assert (bias, variance) == (pytest.approx(0, abs=1e-12), pytest.approx(expected, rel=1e-12))


def test_the_interval_of_the_agreement_is_wilsons_of_the_parameters_that_vary_so_much() -> None:
    rng = np.random.default_rng(5)
    one, drawn, strata_ = rng.random(100), fake(["a"] * 100, [30.0] * 100), [np.arange(100)]
    alike = stats.binomtest(10, 10).proportion_ci(method="wilson")  # without a disagreement, as many as are in the top
    quantile = stats.norm.ppf(0.975)
    assert _wilson(one, one, drawn, strata_, quantile) == (pytest.approx(alike.low), pytest.approx(alike.high))
    other = one + rng.normal(0, 0.1, 100)
    agreement = top_agreement(one, other, drawn.weights)
    _, variance = _jackknife(lambda weights: top_agreement(one, other, weights), agreement, drawn, strata_)
    count = agreement * (1 - agreement) / variance
    assert 1 < count < 10
    for end in _wilson(one, other, drawn, strata_, quantile):
        assert (agreement - end) ** 2 == pytest.approx(quantile**2 * end * (1 - end) / count)


def test_a_census_has_no_interval_to_speak_of() -> None:
    own = population()[:300].astype(float)
    exact = own * np.random.default_rng(6).lognormal(0, 1, 300)
    for value, low, high in intervals(own, exact, fake(["a"] * 100 + ["b"] * 200, [1.0] * 300)).values():
        assert value == low == high


def test_a_stratum_that_is_taken_whole_does_not_vary_beside_one_that_is_not() -> None:
    rng = np.random.default_rng(7)
    one, other = rng.random(120), rng.random(120)
    widths = []
    for weights in ([30.0] * 60 + [1.0] * 60, [30.0] * 60 + [1.0 + 1e-9] * 60):
        _, low, high = intervals(one, other, fake(["a"] * 60 + ["b"] * 60, weights))["spearman"]
        widths.append(high - low)
    # hardly anything was left out of the second stratum: it moves the degrees of freedom alone, 2.002 to 1.980
    assert widths[0] == pytest.approx(widths[1], rel=0.02)


def covered(run: Run, noise: float, count: int, repeats: int) -> tuple[dict[str, float], bool]:
    """How often intervals hold the truth, and whether each holds its own value."""
    own = population().astype(float)
    exact = own * np.random.default_rng(8).lognormal(0, noise, SIZE)
    held, own_held = {"spearman": 0.0, "top10_agreement": 0.0}, True
    for seed in range(repeats):
        found = sample(run, "cat", count, seed, "mt")
        places = flat_of(found)
        of = intervals(own[places], exact[places], found)
        for name in held:
            value, low, high = of[name]
            held[name] += (low <= STATISTICS[name](own, exact, np.ones(SIZE)) <= high) / repeats
            own_held &= low <= value <= high
    return held, own_held


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
def test_an_interval_of_the_audit_never_excludes_its_own_estimate_and_covers_the_truth(
    run: Run, noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, own_held = covered(run, noise, FEWEST, 25)
    assert own_held
    monkeypatch.setattr(strata, "FEWEST", 0)
    assert covered(run, noise, 46, 25)[1]  # as few as no interval is given for
    assert all(share >= 0.76 for share in held.values()), held  # of .9, 1 in 50 draws of 25 has less


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.05, 0.3, 1.2])
def test_a_95_percent_interval_covers_about_95_percent_of_the_time(run: Run, noise: float) -> None:
    held, own_held = covered(run, noise, 200, 300)
    assert own_held
    # 300 repeats tell shares apart to about 0.025
    assert all(0.9 <= share <= 1 for share in held.values()), held


def test_too_few_parameters_and_pearson_have_no_interval(run: Run) -> None:
    own = population().astype(float)
    for count, without in ((46, list(STATISTICS)), (FEWEST, ["pearson"])):
        found = sample(run, "cat", count, seed=1, task="mt")
        of = intervals(own[flat_of(found)], own[flat_of(found)] ** 1.1, found)
        assert [name for name, (_, *ends) in of.items() if np.isnan(ends).all()] == without
        assert not any(math.isnan(value) for value, *_ in of.values())
