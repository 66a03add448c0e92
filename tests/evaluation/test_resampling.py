from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest, _compute_p_value

from sensikit.errors import DataError, RunError
from sensikit.evaluation import resampling as significance
from sensikit.evaluation.metrics import METRICS, evaluate, of_references
from sensikit.evaluation.resampling import Sampled, load_sums, mean, save_sums

RNG = np.random.default_rng(0)
WORDS = [f"w{i}" for i in range(60)]
REFERENCES = [" ".join(RNG.choice(WORDS, RNG.integers(5, 25))) for _ in range(120)]


def worse(share: float, seed: int) -> list[str]:
    """The references with a share of the words replaced."""
    rng = np.random.default_rng(seed)
    return [" ".join(w if rng.random() >= share else "x" for w in line.split()) for line in REFERENCES]


BASE, OTHER = worse(0.2, 1), worse(0.23, 2)


def resampled(hypotheses: list[str], references: list[str], samples: int = 1000, name: str = "bleu") -> Sampled:
    metric = METRICS[name]
    return metric.sampled(metric.sums(hypotheses, references, "none"), of_references(references), samples)


# what sacreBLEU says


def test_score_and_interval_are_those_of_evaluate() -> None:
    for name, alone in evaluate(BASE, REFERENCES, "none").items():
        found = resampled(BASE, REFERENCES, name=name)
        assert (found.value, *found.interval()) == alone[:3]


@pytest.mark.parametrize(
    ("name", "label", "metric"),
    [("bleu", "BLEU", BLEU(tokenize="none", force=True)), ("chrf", "chrF2++", CHRF(6, 2))],
)
def test_resamples_are_those_of_sacrebleus_paired_bootstrap(name: str, label: str, metric: Any) -> None:
    pair = [("base", BASE), ("other", OTHER)]
    _, theirs = PairedTest(pair, {label: metric}, [REFERENCES], test_type="bs", n_samples=400)()
    base, other = (resampled(hypotheses, REFERENCES, 400, name) for _, hypotheses in pair)
    for ours, result in zip((base, other), theirs[label], strict=True):
        assert ours.value == pytest.approx(result.score, abs=1e-9)
        assert ours.interval() == pytest.approx((result.mean - result.ci, result.mean + result.ci), abs=1e-4)
    difference = other - base
    size = np.abs(difference.samples)
    assert _compute_p_value(size - size.mean(), abs(difference.value)) == theirs[label][1].p_value


def test_resamples_are_sacrebleus_scores_of_the_sentences_drawn() -> None:
    sums, scorer = METRICS["bleu"].sums(BASE, REFERENCES, "none"), BLEU(tokenize="none", force=True)
    rng = np.random.default_rng(12345)
    draws = [rng.choice(len(BASE), size=len(BASE)) for _ in range(50)]
    expected = [scorer._compute_score_from_stats(sums[draw].sum(0).tolist()).score for draw in draws]
    assert sorted(resampled(BASE, REFERENCES, 50).samples) == pytest.approx(sorted(expected), abs=1e-9)


def test_a_large_bootstrap_is_computed_in_blocks_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resampled(BASE, REFERENCES, 100).samples
    monkeypatch.setattr(significance, "BLOCK", 7 * len(BASE))
    assert np.array_equal(resampled(BASE, REFERENCES, 100).samples, whole)


# the test of a difference


def test_p_and_interval_by_hand() -> None:
    samples = np.array([-0.5, *np.arange(1, 100) / 100, 0.0])
    found = Sampled(0.4, RNG.permutation(samples)).tested()
    # 101 resamples, two of them not above 0; two are left out at each end
    assert found == (0.4, 0.01, 0.97, pytest.approx(2 * 3 / 102))
    turned = (Sampled(0.0, np.zeros(101)) - Sampled(0.4, samples)).tested()
    assert turned == (-0.4, -0.97, -0.01, found.p)


def test_a_system_does_not_differ_from_itself() -> None:
    found = resampled(BASE, REFERENCES, 100)
    assert (found - found).tested() == (0, 0, 0, 1)


def test_a_large_difference_has_the_least_p_there_can_be() -> None:
    better, worst = resampled(BASE, REFERENCES, 199), resampled(worse(0.9, 3), REFERENCES, 199)
    found = (worst - better).tested()
    assert found.p == pytest.approx(2 / 200)
    assert found.low <= found.difference <= found.high < 0


@pytest.mark.parametrize("rarer", range(20, 30))
def test_where_p_is_below_a_twentieth_the_interval_leaves_out_0(rarer: int) -> None:
    samples = np.where(np.arange(1000) < rarer, -1.0, 1.0)
    found = Sampled(1.0, samples).tested()
    assert (found.p < 0.05) == (rarer < 25)
    assert (found.low > 0) == (rarer <= 25)


def test_one_in_twenty_equal_systems_differs_and_one_in_ten_by_the_p_of_sacrebleu() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = 0, 0
    for _ in range(1000):
        gains = rng.normal(size=(80, 1))  # of one system over another that is as good, by sentence
        found = Sampled(float(gains.sum()), significance.drawn(len(gains), 199) @ gains[:, 0])
        size = np.abs(found.samples)
        ours += found.tested().p < 0.05
        theirs += _compute_p_value(size - size.mean(), abs(found.value)) < 0.05
    # 199 resamples allow a p of 0.04 and of 0.05, so below 0.05 is 0.04 at most
    assert 0.02 < ours / 1000 < 0.06
    assert 0.08 < theirs / 1000 < 0.12


# means over languages


def test_the_mean_is_that_of_the_scores_and_of_each_resample() -> None:
    found = mean([Sampled(1.0, np.array([1.0, 2.0])), Sampled(4.0, np.array([5.0, 8.0]))])
    assert found.value == 2.5
    assert found.samples.tolist() == [3.0, 5.0]


def test_languages_with_as_many_sentences_are_drawn_independently() -> None:
    # sacreBLEU's fixed seed draws the same rows of both; these two would be the same up to the alphabet
    def renamed(lines: list[str]) -> list[str]:
        return [line.replace("w", "v") for line in lines]

    first = resampled(BASE, REFERENCES, 1000)
    second = resampled(renamed(BASE), renamed(REFERENCES), 1000)
    assert sorted(first.samples) == sorted(second.samples)
    assert abs(np.corrcoef(first.samples, second.samples)[0, 1]) < 0.1
    both, alone = mean([first, second]).samples.std(), first.samples.std()
    assert both == pytest.approx(alone / np.sqrt(2), rel=0.07)


def test_systems_are_paired_and_so_are_languages_of_one_english_test_set() -> None:
    # the second makes the mistakes of the first and a few more
    more = [line if number % 3 else " ".join([*line.split()[:-1], "y"]) for number, line in enumerate(BASE)]
    one, other = resampled(BASE, REFERENCES, 500), resampled(more, REFERENCES, 500)
    assert np.corrcoef(one.samples, other.samples)[0, 1] > 0.8
    unpaired = Sampled(other.value, RNG.permutation(other.samples))
    assert (one - other).samples.std() < 0.6 * (one - unpaired).samples.std()


# edges


def test_without_resamples_there_is_a_score_and_no_interval() -> None:
    found = resampled(BASE, REFERENCES, 1)
    assert found.value == evaluate(BASE, REFERENCES, "none")["bleu"].value
    assert np.isnan(found.interval()).all()
    assert np.isnan((found - found).tested()[1:]).all()
    assert np.isnan(mean([found, found]).interval()).all()


def test_an_interval_stays_within_what_a_score_can_be() -> None:
    high, low = np.array([100.0] * 90 + [80.0] * 10), np.array([0.0] * 90 + [30.0] * 10)
    assert Sampled(99.0, high, METRICS["bleu"].bounds).interval()[1] == 100
    assert Sampled(1.0, low, METRICS["bleu"].bounds).interval()[0] == 0
    assert Sampled(1.0, low, METRICS["loss"].bounds).interval()[0] == 0
    assert Sampled(99.0, high, METRICS["loss"].bounds).interval()[1] > 100
    assert mean([Sampled(1.0, low, (0.0, 100.0))] * 2).interval()[0] == 0


@pytest.mark.parametrize(("hypotheses", "references"), [(["a"], ["a", "b"]), ([], [])])
def test_what_cannot_be_scored(hypotheses: list[str], references: list[str]) -> None:
    with pytest.raises(DataError, match=r"^references: "):
        resampled(hypotheses, references)


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


@pytest.mark.parametrize("kind", ["missing", "empty", "cut", "other"])
def test_damaged_sums_are_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "cell.npy"
    digest = save_sums(path, np.ones((50, 10)))
    if kind == "missing":
        path.unlink()
    elif kind == "other":
        save_sums(path, np.ones((50, 10)) * 2)
    else:
        path.write_bytes({"empty": b"", "cut": path.read_bytes()[:200]}[kind])
    with pytest.raises(RunError, match="is missing or damaged; prune again") as caught:
        load_sums(path, digest, "prune again")
    assert "\n" not in str(caught.value)
