from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn.utils import prune as torch_prune

from sensikit.errors import OptionError
from sensikit.parameters import registry
from sensikit.pruning.ledger import SEEDED
from sensikit.pruning.masks import Order, check_ratios, chosen, pruned, pruning_plan
from sensikit.pruning.scorers import SCORERS, random_keys
from sensikit.settings import AMONG
from sensikit.statistics.specificity import specificity
from tests.support import handmade
from tests.support.tied import PRUNABLE, SIZE, applied_mask, mask_of, model, obvious_mask, prunable_part, run_of, scores

RATIOS = (0.0, 0.05, 0.1, 1 / 3, 0.5, 0.77, 0.9)


# plan and apply


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize(
    ("chunk", "held", "fits"),
    [(4, 0, False), (4, 9, False), (1 << 18, 1 << 27, False), (4, 9, True)],
    ids=["streamed", "in part", "held", "as on a GPU"],
)
@pytest.mark.parametrize("name", SCORERS)
def test_plan_and_apply_are_the_argsort_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, chunk: int, held: int, fits: bool, ties: bool
) -> None:
    monkeypatch.setattr("sensikit.pruning.masks._fits", lambda *_: fits)
    monkeypatch.setattr("sensikit.run.CHUNK", chunk)
    monkeypatch.setattr("sensikit.statistics.streaming.HELD", held)
    module = model()
    run = run_of(tmp_path / "run", module, *scores(1, ties))
    order = Order(name, "cat", seed=3 if name in SEEDED else None)
    plan = pruning_plan(run, module, order, RATIOS)
    assert plan.prunable == PRUNABLE
    for ratio in RATIOS:
        expected = obvious_mask(run, module, order, ratio)
        assert np.array_equal(mask_of(run, plan, ratio), expected)
        assert np.array_equal(applied_mask(run, module, plan, ratio), expected)


@pytest.mark.parametrize("among", AMONG)
@pytest.mark.parametrize("protect", [0.0, 0.1, 0.25, 0.5])
def test_protection_of_any_share_is_the_argsort_in_memory(tmp_path: Path, protect: float, among: str) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, *scores(2, ties=True))
    for name in SCORERS:
        order = Order(name, "cat", 1, protect, among=among)
        plan = pruning_plan(run, module, order, [1 - protect])
        assert np.array_equal(mask_of(run, plan, 1 - protect), obvious_mask(run, module, order, 1 - protect))


@pytest.mark.parametrize("name", SCORERS)
def test_ratio_is_pruned_over_prunable_exactly(tmp_path: Path, name: str) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, *scores(3, ties=False))
    ratios = [i / PRUNABLE for i in range(int(0.9 * PRUNABLE) + 1)]
    plan = pruning_plan(run, module, Order(name, "cat", 1), ratios)
    for pruned_count, ratio in enumerate(ratios):
        assert plan.counts[ratio] == pruned_count
        with pruned(run, module, plan, ratio) as count:
            zeros = sum(int((tensor == 0).sum()) for tensor in module.parameters())
        # the bias of the norm is zero from the start
        assert count == zeros - 4 == pruned_count


@pytest.mark.parametrize("name", SCORERS)
def test_at_the_highest_ratio_all_but_the_protected_are_gone(tmp_path: Path, name: str) -> None:
    module = model()
    own, rest = scores(4, ties=False)
    run = run_of(tmp_path / "run", module, own, rest)
    kept = ~mask_of(run, pruning_plan(run, module, Order(name, "cat", 1), [0.9]), 0.9)
    part = prunable_part(run, own)
    assert kept.sum() == 8  # ⌊81/10⌋
    assert set(np.flatnonzero(kept)) == set(np.argsort(-part)[:8])


def test_the_protected_are_those_of_the_language_and_not_of_the_others(tmp_path: Path) -> None:
    own, rest = np.full(SIZE, 2, dtype=np.float32), np.full(SIZE, 1, dtype=np.float32)
    own[:8], rest[:8] = 8, 64  # the highest S(θ,B_l), and by D (−7/8) the first to go
    rest[8:16] = 4096  # the highest S(θ,B_-l)
    module = model()
    run = run_of(tmp_path / "run", module, own, rest)
    mask = mask_of(run, pruning_plan(run, module, Order("specificity", "cat"), [0.1]), 0.1)
    assert np.flatnonzero(mask).tolist() == list(range(8, 16))


def test_the_order_is_global_and_not_by_layer(tmp_path: Path) -> None:
    module = model()
    own, rest = np.ones(SIZE, dtype=np.float32), np.ones(SIZE, dtype=np.float32)
    inside = next(p for p in registry(module) if p.name == "fc2.weight")
    rest[inside.start : inside.stop] = 2
    run = run_of(tmp_path / "run", module, own, rest)
    plan = pruning_plan(run, module, Order("specificity", "cat"), [20 / PRUNABLE])
    with pruned(run, module, plan, 20 / PRUNABLE):
        assert not module.fc2.weight.any()
        assert module.fc1.weight.all()
        assert module.embed_tokens.weight.all()


def test_the_order_of_specificity_is_signed_and_not_that_of_torchs_l1(tmp_path: Path) -> None:
    module = model()
    rest = np.full(SIZE, 2, dtype=np.float32)
    own = np.full(SIZE, 2.25, dtype=np.float32)  # D just above zero: the smallest |D|
    own[:10] = 0.25  # D far below zero: the largest |D| of them, and the least specific
    own[-10:] = 64  # protected
    run = run_of(tmp_path / "run", module, own, rest)
    ratio = 10 / PRUNABLE
    ours = mask_of(run, pruning_plan(run, module, Order("specificity", "cat"), [ratio]), ratio)
    score = torch.from_numpy(specificity(prunable_part(run, own), prunable_part(run, rest), 1e-7))
    theirs = torch_prune.L1Unstructured(10).compute_mask(score, torch.ones_like(score)) == 0
    assert np.flatnonzero(ours).tolist() == list(range(10))
    assert not theirs[:10].any()


def test_norms_and_whatever_is_not_prunable_stay_as_they_are(tmp_path: Path) -> None:
    module = model()
    own, rest = scores(5, ties=False)
    norm = next(p for p in registry(module) if p.name == "layer_norm.weight")
    own[norm.start : norm.start + 8], rest[norm.start : norm.start + 8] = 0, 1  # by every order the first to go
    run = run_of(tmp_path / "run", module, own, rest)
    for name in SCORERS:
        plan = pruning_plan(run, module, Order(name, "cat", 1), [0.9])
        assert {parameter.name for parameter, _ in chosen(run, plan, 0.9)} == {
            "embed_tokens.weight", "fc1.weight", "fc1.bias", "fc2.weight",
        }  # fmt: skip
        with pruned(run, module, plan, 0.9):
            assert module.layer_norm.weight.all()


def test_a_norm_does_not_take_a_place_among_the_protected(tmp_path: Path) -> None:
    # the authors' code counts norms in the top 10 % though they are never pruned
    module = model()
    own, rest = scores(6, ties=False)
    norm = next(p for p in registry(module) if p.name == "layer_norm.weight")
    own[norm.start : norm.start + 8] = 1e6
    run = run_of(tmp_path / "run", module, own, rest)
    plan = pruning_plan(run, module, Order("specificity", "cat"), [0.9])
    assert (~mask_of(run, plan, 0.9)).sum() == 8
    # as there: of the ⌊89/10⌋ highest of all parameters, the norm takes all
    plan = pruning_plan(run, module, Order("specificity", "cat", among="all"), [0.9])
    assert (~mask_of(run, plan, 0.9)).sum() == PRUNABLE - round(0.9 * PRUNABLE)
    assert not set(np.flatnonzero(~mask_of(run, plan, 0.9))) >= set(np.argsort(-prunable_part(run, own))[:8])


def test_a_tied_embedding_is_pruned_once_and_both_of_its_uses_see_the_zeros(tmp_path: Path) -> None:
    # torch's global_unstructured on one of two tied modules leaves the other as it was
    module = model()
    own, rest = np.ones(SIZE, dtype=np.float32), np.ones(SIZE, dtype=np.float32)
    rest[:16] = 3  # words 0 to 3 of the embedding
    own[-10:] = 2  # protected
    run = run_of(tmp_path / "run", module, own, rest)
    plan = pruning_plan(run, module, Order("specificity", "cat"), [16 / PRUNABLE])
    tokens = torch.arange(9)
    with torch.no_grad(), pruned(run, module, plan, 16 / PRUNABLE) as count:
        assert count == 16
        assert not module.output_projection.weight[:4].any()
        assert module.output_projection.weight is module.embed_tokens.weight
        output = module(tokens)
        assert torch.equal(output[:, :4], torch.zeros(9, 4))
        # the embedded words are all alike too: a norm of zeros
        # (to the last bit or nearly so: a product of matrices need not add up each row in the same order)
        torch.testing.assert_close(output[0], output[3], rtol=1e-5, atol=1e-7)
        assert not torch.equal(output[0], output[4])


# the orders


def test_magnitude_is_that_of_the_unpruned_weights_even_while_they_are_pruned(tmp_path: Path) -> None:
    # zeros rank first: were the order read again while the weights are zeroed, the tail would be cut elsewhere
    module = model()
    run = run_of(tmp_path / "run", module, *scores(11, ties=False))
    order = Order("magnitude", "cat")
    plan = pruning_plan(run, module, order, [0.5])
    assert np.array_equal(applied_mask(run, module, plan, 0.5), obvious_mask(run, module, order, 0.5))


def test_reverse_is_the_reverse_of_specificity(tmp_path: Path) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, *scores(12, ties=False))
    steps = [i / PRUNABLE for i in range(73)]
    plans = {name: pruning_plan(run, module, Order(name, "cat"), steps) for name in ("specificity", "reverse")}
    masks = {name: [mask_of(run, plan, ratio) for ratio in steps] for name, plan in plans.items()}
    turns = {name: [int(np.flatnonzero(b & ~a)[0]) for a, b in itertools.pairwise(m)] for name, m in masks.items()}
    # 73 are not protected; each order has told of its first 72
    assert turns["reverse"][1:] == turns["specificity"][:0:-1]


def test_reverse_breaks_ties_by_index_as_every_order_does(tmp_path: Path) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, np.ones(SIZE, dtype=np.float32), np.ones(SIZE, dtype=np.float32))
    for name in ("specificity", "reverse", "sensitivity"):
        plan = pruning_plan(run, module, Order(name, "cat"), [10 / PRUNABLE])
        # the first eight are protected: ties of S(θ,B_l) go by index as well
        assert np.flatnonzero(mask_of(run, plan, 10 / PRUNABLE)).tolist() == list(range(8, 18))


def test_matched_orders_take_the_same_share_of_every_stratum_of_sensitivity(tmp_path: Path) -> None:
    # 400 parameters of which the last 40 are protected: by S, strata of 3 or 4; D rises with the index in each
    own, rest = np.arange(1, 401, dtype=np.float32), np.ones(400, dtype=np.float32)
    run = handmade.run(tmp_path / "run", {"cat": own}, {"cat": rest}, shapes={"weight": (20, 20)})
    strata = np.repeat(np.arange(100), [4] * 60 + [3] * 40)
    masks = {}
    for name in ("matched", "matched-reverse", "matched-random"):
        plan = pruning_plan(run, nn.Linear(20, 20, bias=False), Order(name, "cat", 1), [0.25, 0.5, 0.9])
        masks[name] = [mask_of(run, plan, ratio)[:360] for ratio in (0.25, 0.5, 0.9)]
        for mask, taken in zip(masks[name], ([1] * 100, [2] * 100, [4] * 60 + [3] * 40), strict=True):
            assert np.bincount(strata, weights=mask).tolist() == taken
    first = np.flatnonzero(np.diff(strata, prepend=-1))
    assert np.flatnonzero(masks["matched"][0]).tolist() == first.tolist()
    assert np.flatnonzero(masks["matched-reverse"][0]).tolist() == [*(first[1:] - 1), 359]
    assert 150 > (masks["matched-random"][0] & masks["matched"][0]).sum() > 10
    (other,) = (
        mask_of(run, plan, 0.25)[:360] for plan in [pruning_plan(run, nn.Linear(20, 20), Order(name, "cat", 2), [0.25])]
    )
    assert not np.array_equal(other, masks["matched-random"][0])


def test_what_goes_at_one_ratio_goes_at_every_larger_one(tmp_path: Path) -> None:
    module, ratios = model(), [*(i / PRUNABLE for i in range(73)), 0.9]
    run = run_of(tmp_path / "run", module, *scores(18, ties=True))
    for name in SCORERS:
        plan = pruning_plan(run, module, Order(name, "cat", 1), ratios)
        masks = [mask_of(run, plan, ratio) for ratio in ratios]
        assert all((larger >= mask).all() for mask, larger in itertools.pairwise(masks)), name
        assert len({plan.digest(ratio) for ratio in ratios}) == 74
    assert len({pruning_plan(run, module, Order(name, "cat", 1), [0.9]).digest(0.9) for name in SCORERS}) == 1


def test_more_than_255_ratios_have_a_plan(tmp_path: Path) -> None:
    own = np.random.default_rng(0).permutation(1000).astype(np.float32)
    run = handmade.run(tmp_path / "run", {"cat": own}, shapes={"weight": (10, 100)})
    ratios = [i / 1000 for i in range(901)]
    plan = pruning_plan(run, nn.Linear(100, 10, bias=False), Order("sensitivity", "cat"), ratios)
    assert all(np.array_equal(plan.mask(ratio), own < count) for count, ratio in enumerate(ratios))


def test_random_order_is_the_same_by_seed_and_another_by_another(tmp_path: Path) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, *scores(13, ties=False))

    def mask(seed: int) -> list[bool]:
        return mask_of(run, pruning_plan(run, module, Order("random", "cat", seed), [0.5]), 0.5).tolist()

    assert mask(1) == mask(1)
    assert len({tuple(mask(seed)) for seed in range(8)}) == 8


def test_random_order_does_not_read_the_scores_but_for_the_protection(tmp_path: Path) -> None:
    module = model()
    own, rest = scores(14, ties=False)
    one = run_of(tmp_path / "one", module, own, rest)
    two = run_of(tmp_path / "two", module, own, rest[::-1].copy())
    masks = [mask_of(run, pruning_plan(run, module, Order("random", "cat", 1), [0.5]), 0.5) for run in (one, two)]
    assert np.array_equal(*masks)


@pytest.mark.parametrize("size", [1, 7, 1000])
def testrandom_keys_are_the_same_however_chunked(size: int) -> None:
    parts = [random_keys(5, start, min(size, 3000 - start)) for start in range(0, 3000, size)]
    assert np.array_equal(np.concatenate(parts), random_keys(5, 0, 3000))


def test_random_order_is_uniform() -> None:
    # the share of each 1/64 of the flat vector that falls under each 1/16 of the order: chi square on 64·16 cells
    size = 1 << 17
    for seed in (1, 2, 3):
        keys = random_keys(seed, 0, size)
        assert len(np.unique(keys)) == size
        places = np.arange(size) * 64 // size
        slices = (keys >> np.uint64(60)).astype(int)
        table = np.bincount(places * 16 + slices, minlength=1024)
        assert 1e-4 < stats.chisquare(table).pvalue < 1 - 1e-4


def test_random_orders_of_two_seeds_and_of_neighbours_have_nothing_in_common() -> None:
    size = 1 << 18
    one, two = random_keys(1, 0, size).astype(float), random_keys(2, 0, size).astype(float)
    bound = 5 / np.sqrt(size)  # five standard errors of a correlation of nothing
    assert abs(np.corrcoef(one, two)[0, 1]) < bound
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < bound
    assert abs(np.corrcoef(one, np.arange(size))[0, 1]) < bound


def test_scaling_loss_and_sigma_together_leaves_every_order_as_it_was(tmp_path: Path) -> None:
    module = model()
    own, rest = scores(15, ties=False)
    one = run_of(tmp_path / "one", module, own, rest, sigma=2.0**-20)
    two = run_of(tmp_path / "two", module, own * 1024, rest * 1024, sigma=2.0**-10)
    for name in SCORERS:
        masks = [mask_of(run, pruning_plan(run, module, Order(name, "cat", 1), [0.5]), 0.5) for run in (one, two)]
        assert np.array_equal(*masks)


# what is refused


@pytest.mark.parametrize("ratio", [-0.1, 1.1, math.nan, math.inf, -math.inf])
def test_a_ratio_that_is_no_share_is_refused_in_one_line(ratio: float) -> None:
    with pytest.raises(OptionError, match=r"--ratios: .* is not between 0 and 1") as caught:
        check_ratios([0.1, ratio])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("ratio", "protect"), [(0.91, 0.1), (1.0, 0.1), (0.6, 0.5)])
def test_a_ratio_that_reaches_into_the_protected_is_refused(ratio: float, protect: float) -> None:
    with pytest.raises(OptionError, match="--protect"):
        check_ratios([ratio], protect)


@pytest.mark.parametrize(("ratio", "protect"), [(0.0, 0.1), (0.9, 0.1), (1.0, 0.0), (0.3 + 0.6, 0.1), (0.2, 0.8)])
def test_the_ends_of_the_range_are_allowed(ratio: float, protect: float) -> None:
    check_ratios([ratio], protect)


def test_a_plan_checks_its_ratios_itself(tmp_path: Path) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, *scores(16, ties=False))
    with pytest.raises(OptionError, match="--ratios"):
        pruning_plan(run, module, Order("specificity", "cat"), [0.95])


def test_an_unknown_order_is_refused(tmp_path: Path) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, *scores(17, ties=False))
    with pytest.raises(OptionError, match="--order: alphabet is not an order; choose among specificity"):
        pruning_plan(run, module, Order("alphabet", "cat"), [0.5])
