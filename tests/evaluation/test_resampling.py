from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest
from scipy import stats

from sensikit.errors import DataError, RunError
from sensikit.evaluation import resampling
from sensikit.evaluation.metrics import METRICS, evaluate
from sensikit.evaluation.resampling import (
    Sampled,
    Scored,
    distinct,
    holm,
    identified,
    load_ids,
    load_sums,
    mean,
    over_seeds,
    resampled,
    save_ids,
    save_sums,
    swapped,
)

RNG = np.random.default_rng(0)
WORDS = [f"w{i}" for i in range(60)]
REFERENCES = [" ".join(RNG.choice(WORDS, RNG.integers(5, 25))) for _ in range(120)]


def worse(share: float, seed: int) -> list[str]:
    """The references with a share of the words replaced."""
    rng = np.random.default_rng(seed)
    return [" ".join(w if rng.random() >= share else "x" for w in line.split()) for line in REFERENCES]


BASE, OTHER = worse(0.2, 1), worse(0.23, 2)


def scored(hypotheses: list[str], references: list[str] = REFERENCES, name: str = "bleu") -> Scored:
    metric = METRICS[name]
    return metric.scored(identified(references), metric.sums(hypotheses, references, "none"))


def sampled(*sets: Scored, draws: int = 1000) -> list[Sampled]:
    return resampled(sets, draws)


# what sacreBLEU says


@pytest.mark.parametrize(
    ("name", "label", "metric"),
    [("bleu", "BLEU", BLEU(tokenize="none", force=True)), ("chrf", "chrF2++", CHRF(6, 2))],
)
def test_scores_are_sacrebleus_and_intervals_and_p_near_its_own(name: str, label: str, metric: Any) -> None:
    pair = [("base", BASE), ("other", worse(0.2, 2))]
    theirs, of = {}, {}
    for kind in ("bs", "ar"):
        _, theirs[kind] = PairedTest(pair, {label: metric}, [REFERENCES], test_type=kind, n_samples=2000)()
        of[kind] = theirs[kind][label]
    a, b = (scored(hypotheses, name=name) for _, hypotheses in pair)
    ours = sampled(a, b, draws=4000)
    for found, result in zip(ours, of["bs"], strict=True):
        assert found.value == pytest.approx(result.score, abs=1e-9)
        centre, half = float(result.mean), float(result.ci)
        assert found.interval() == pytest.approx((centre - half, centre + half), abs=half / 6)
    difference = (ours[1] - ours[0]).tested(swapped(a, b, 4000))
    assert 0.05 < difference.p < 0.3
    assert difference.p == pytest.approx(of["ar"][1].p_value, abs=4 * np.sqrt(difference.p / 2000))


def test_score_and_interval_are_those_of_evaluate() -> None:
    for name, alone in evaluate(BASE, REFERENCES, "none", bootstrap=300).items():
        (found,) = sampled(scored(BASE, name=name), draws=300)
        assert (found.value, *found.interval()) == alone[:3]


# draws


def test_a_draw_is_the_score_of_the_weighted_sum_and_a_swap_of_the_sums_swapped() -> None:
    a, b = scored(BASE), scored(OTHER)
    (found,) = sampled(a, draws=6)
    swaps = swapped(a, b, 6)
    bits = next(resampling._bits(a.ids, 6, 4))[1].view(np.uint16)
    sides = np.unpackbits(next(resampling._bits(a.ids, 6, 64))[1].view(np.uint8), axis=1).astype(bool)
    for draw in range(6):
        weights = stats.poisson.ppf((bits[:, draw] + 0.5) / 65536, 1)
        assert found.samples[draw] == pytest.approx(float(a.score(weights @ a.sums)), abs=1e-9)
        side = sides[:, draw, None]
        one, other = np.where(side, b.sums, a.sums).sum(0), np.where(side, a.sums, b.sums).sum(0)
        assert swaps[draw] == pytest.approx(float(a.score(other) - a.score(one)), abs=1e-9)


def test_weights_are_poisson_and_no_segment_knows_of_another() -> None:
    ids = np.arange(300, dtype=np.uint64)  # hashes could not be more alike
    weights = np.concatenate(
        [resampling._POISSON[bits.view(np.uint16)] for _, bits in resampling._bits(ids, 4000, 4)], axis=1
    )
    assert np.bincount(weights.astype(int).ravel())[:6] / weights.size == pytest.approx(
        stats.poisson.pmf(np.arange(6), 1), abs=0.002
    )
    assert np.abs(np.corrcoef(weights) - np.eye(300)).max() < 5.5 / np.sqrt(4000)
    assert weights.sum(0).var() == pytest.approx(300, rel=0.12)


def test_blocks_and_other_test_sets_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = scored(BASE), scored(OTHER, [f"{line} other" for line in REFERENCES])
    whole, swaps = sampled(a, draws=999)[0].samples, swapped(a, scored(OTHER), 999)
    monkeypatch.setattr(resampling, "BLOCK", 64 * 7 * len(BASE))
    assert np.array_equal(sampled(b, a, scored(OTHER), draws=999)[1].samples, whole)
    assert np.array_equal(swapped(a, scored(OTHER), 999), swaps)
    assert np.array_equal(sampled(a, draws=500)[0].samples, whole[:500])


def test_a_segment_has_one_identity_however_it_is_written() -> None:
    same = ["A  cat sat.", "a cat\u00a0sat. ", "\tＡ cat sat."]
    assert len({*identified(same)}) == 1
    assert len({*identified([*same, "a cat sat", "acat sat."])}) == 3
    assert identified(["a cat"])[0] == 0x67F5DFB40B23DDA2  # stored: it may not change


def test_sentences_of_one_segment_are_drawn_together() -> None:
    twice = METRICS["loss"].scored(identified(["a", "b", "A "]), np.array([[1.0, 1, 0], [2, 1, 0], [3, 1, 0]]))
    assert sorted(twice.sums.tolist()) == [[2, 1, 0], [4, 2, 0]]
    assert distinct([twice, METRICS["loss"].scored(identified(["b", "c"]), np.ones((2, 3)))]) == 3


def test_languages_of_the_same_segments_are_drawn_at_once_and_others_by_themselves() -> None:
    blank = [f"{line}  " for line in REFERENCES]  # and blanks at the end of a line change nothing
    other = [f"{line} v" for line in REFERENCES]
    first, again, alone = sampled(
        scored(BASE), scored(BASE, blank), METRICS["bleu"].scored(identified(other), scored(BASE).sums)
    )
    assert mean([first, again]).samples.std() == pytest.approx(first.samples.std(), rel=0.01)
    assert mean([first, alone]).samples.std() == pytest.approx(first.samples.std() / np.sqrt(2), rel=0.07)
    assert mean([first, alone]).value == pytest.approx((first.value + alone.value) / 2)


def test_a_system_without_some_segments_is_swapped_for_nothing_there() -> None:
    few = METRICS["loss"].scored(identified(["a", "b"]), np.array([[4.0, 1, 0], [2, 1, 0]]))
    more = METRICS["loss"].scored(identified(["b", "c"]), np.array([[1.0, 1, 0], [5, 1, 0]]))
    expected = set()
    for a, b, c in product((False, True), repeat=3):
        sides = [4] * a + [2 if b else 1] + [5] * c, [4] * (not a) + [1 if b else 2] + [5] * (not c)
        expected.add(round(float(np.mean(sides[0]) - np.mean(sides[1])), 9))
    assert {round(float(each), 9) for each in swapped(few, more, 200)} == expected


@pytest.mark.parametrize("name", ["bleu", "chrf", "loss", "bpb"])
def test_a_draw_of_nothing_is_all_of_one_sentence(name: str) -> None:
    if METRICS[name].decodes:
        one = scored(["w1 w2 w3 w4"], ["w1 w2 w3 w4 w5"], name)
    else:
        one = METRICS[name].scored(identified(["w1"]), np.array([[2.0, 3.0, 4.0]]))
    (found,) = sampled(one, draws=50)
    assert np.allclose(found.samples, found.value)
    assert found.interval() == pytest.approx((found.value, found.value))


# tests


def test_p_and_interval_by_hand() -> None:
    samples = RNG.permutation(np.arange(101) / 100)
    found = Sampled(0.4, samples).tested(np.array([0.4, -0.4, 0.39, 0.0, -0.5, 0.1, 0.2, 0.3, -0.1]))
    assert found == (0.4, pytest.approx(0.025), pytest.approx(0.975), 4 / 10)
    turned = (Sampled(0.0, np.zeros(101)) - Sampled(0.4, samples)).tested(np.zeros(9))
    assert turned == (-0.4, pytest.approx(-0.975), pytest.approx(-0.025), 1 / 10)


def test_a_system_does_not_differ_from_itself() -> None:
    (found,) = sampled(scored(BASE), draws=100)
    assert (found - found).tested(swapped(scored(BASE), scored(BASE), 100)) == (0, 0, 0, 1)


def test_a_large_difference_has_the_least_p_there_can_be() -> None:
    a, b = scored(BASE), scored(worse(0.9, 3))
    better, worst = sampled(a, b, draws=199)
    found = (worst - better).tested(swapped(a, b, 199))
    assert found.p == pytest.approx(1 / 200)
    assert found.low <= found.difference <= found.high < 0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.6, 0.5, np.nan]).tolist() == pytest.approx([1, 1, np.nan], nan_ok=True)


def test_means_over_seeds_are_tested_with_t_of_both_variances() -> None:
    flat = np.zeros(100)  # test segments that change nothing: Welch's own test
    one, other = (over_seeds([Sampled(value, flat) for value in values]) for values in ([1.0, 2, 4], [3.0, 5, 5, 6]))
    found, welch = (other - one).tested(np.empty(0)), stats.ttest_ind([3, 5, 5, 6], [1, 2, 4], equal_var=False)
    assert found.p == pytest.approx(welch.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(welch.confidence_interval()))
    (low, high), t = one.interval(), stats.t.interval(0.95, 2, 7 / 3, stats.sem([1, 2, 4]))
    assert (low, high) == pytest.approx(t)
    assert Sampled(one.value, flat, (0, 5), one.seeds).interval() == pytest.approx((0, 5))
    noisy = np.where(np.arange(100) % 2, 3.0, -3.0)
    wider = over_seeds([Sampled(value, value + noisy) for value in (1.0, 2, 4)]).interval()
    assert wider[1] > high
    alone = over_seeds([Sampled(1.0, noisy)])
    assert alone.seeds == ()


# by simulation


def worlds(rng: np.random.Generator, count: int, models: int) -> list[list[Scored]]:
    """The losses of some models that are equally good, on 4 test sets that share half of their segments."""
    ids, hard = rng.integers(0, 1 << 64, count, dtype=np.uint64), rng.normal(0, 1, count)
    own = rng.normal(0, 0.5, (models, count))
    found: list[list[Scored]] = [[] for _ in range(models)]
    for _ in range(4):
        has, length = rng.random(count) < 0.5, rng.integers(8, 30, count)
        for each, of in zip(found, own, strict=True):
            sums = np.column_stack([length * (3 + hard + of + rng.normal(0, 0.3, count)), length, length])
            each.append(METRICS["loss"].scored(ids[has], sums[has]))
    return found


def apart(sets: list[Scored]) -> list[Scored]:
    """The same test sets as if they had no segment in common."""
    return [Scored(each.score, each.ids + np.uint64(place), each.sums) for place, each in enumerate(sets)]


def simulated(trials: int, count: int, draws: int, together: bool = True) -> tuple[float, float, float]:
    """How often the interval of a mean holds 3, that of a difference 0, and a difference has p < 0.05."""
    rng, found = np.random.default_rng(count), []
    for _ in range(trials):
        a, b = worlds(rng, count, 2) if together else map(apart, worlds(rng, count, 2))
        one, other = mean(resampled(a, draws)), mean(resampled(b, draws))
        swaps = np.mean([swapped(x, y, draws) for x, y in zip(a, b, strict=True)], axis=0)
        (low, high), test = one.interval(), (other - one).tested(swaps)
        found.append((low <= 3 <= high, test.low <= 0 <= test.high, test.p < 0.05))
    shares = np.mean(found, axis=0)
    return float(shares[0]), float(shares[1]), float(shares[2])


def test_intervals_of_means_over_overlapping_languages_cover_and_one_in_twenty_equal_systems_differs() -> None:
    alone, difference, differs = simulated(150, 60, 199)
    assert min(alone, difference) > 0.89
    assert differs < 0.11
    # each language drawn by itself, as if the test sets did not overlap: so few trials can tell
    alone, difference, differs = simulated(150, 60, 199, together=False)
    assert max(alone, difference) < 0.86
    assert differs > 0.13


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [60, 300])
def test_coverage_over_two_thousand_trials(count: int) -> None:
    alone, difference, differs = simulated(2000, count, 1000)
    print(count, alone, difference, differs)
    assert min(alone, difference) > 0.925
    assert 0.035 < differs < 0.065


# edges


def test_without_draws_there_is_a_score_and_no_interval() -> None:
    (found,) = sampled(scored(BASE), draws=1)
    assert found.value == evaluate(BASE, REFERENCES, "none", bootstrap=0)["bleu"].value
    assert np.isnan(found.interval()).all()
    assert np.isnan((found - found).tested(swapped(scored(BASE), scored(BASE), 1))[1:]).all()
    assert np.isnan(over_seeds([found, found]).interval()).all()


@pytest.mark.parametrize(("hypotheses", "references"), [(["a"], ["a", "b"]), ([], [])])
def test_what_cannot_be_scored(hypotheses: list[str], references: list[str]) -> None:
    with pytest.raises(DataError, match=r"^references: "):
        scored(hypotheses, references)


@pytest.mark.parametrize(("sums", "kind"), [(np.arange(12.0).reshape(3, 4), "<f4"), (np.array([[0.1, 3]]), "<f8")])
def test_sums_are_stored_as_small_as_they_can_be_and_come_back_as_they_were(
    sums: Any, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "below" / "cell.npy"
    digest = save_sums(path, sums)
    assert np.load(path).dtype == np.dtype(kind)
    again = load_sums(path, digest, "prune again")
    assert again.dtype == np.float64
    assert np.array_equal(again, sums)


@pytest.mark.parametrize("kind", ["missing", "empty", "cut", "other", "pipe"])
def test_damaged_sums_and_identities_are_one_line(kind: str, tmp_path: Path) -> None:
    path, ids = tmp_path / "cell.npy", identified(REFERENCES)
    digest, name = save_sums(path, np.ones((50, 10))), tmp_path / save_ids(tmp_path, ids)
    assert np.array_equal(load_ids(name, "prune again"), ids)
    for file in (path, name):
        if kind == "missing":
            file.unlink()
        elif kind == "other":
            np.save(file, np.ones((50, 10)) * 2)
        elif kind == "pipe":
            file.unlink()
            os.mkfifo(file)
        else:
            file.write_bytes({"empty": b"", "cut": file.read_bytes()[:200]}[kind])
    for read in (lambda: load_sums(path, digest, "prune again"), lambda: load_ids(name, "prune again")):
        with pytest.raises(RunError, match="is missing or damaged; prune again") as caught:
            read()
        assert "\n" not in str(caught.value)
