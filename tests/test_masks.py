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
from sensikit.masks import ORDERS, Order, Plan, _random_keys, check_ratios, chosen, make_plan, pruned
from sensikit.parameters import registry
from sensikit.specificity import specificity
from sensikit.store import Run
from tests import handmade

RATIOS = (0.0, 0.05, 0.1, 1 / 3, 0.5, 0.77, 0.9)


class Tied(nn.Module):
    """An embedding tied to its projection, a norm between, and a layer with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(9, 4)
        self.layer_norm = nn.LayerNorm(4)
        self.fc1 = nn.Linear(4, 5)
        self.fc2 = nn.Linear(5, 4, bias=False)
        self.output_projection = nn.Linear(4, 9, bias=False)
        self.output_projection.weight = self.embed_tokens.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.layer_norm(self.embed_tokens(tokens))
        return self.output_projection(x + self.fc2(torch.relu(self.fc1(x))))


PRUNABLE = 9 * 4 + 4 * 5 + 5 + 5 * 4
SIZE = PRUNABLE + 8  # the norm's weight and bias stand between


def model(seed: int = 0) -> Tied:
    torch.manual_seed(seed)
    return Tied()


def run_of(path: Path, module: nn.Module, own: np.ndarray, rest: np.ndarray, sigma: float = 1e-7) -> Run:
    parameters = registry(module)
    return handmade.run(
        path,
        {"cat": own},
        {"cat": rest},
        shapes={parameter.name: parameter.shape for parameter in parameters},
        spared=[parameter.name for parameter in parameters if not parameter.prunable],
        sigma=sigma,
    )


def scores(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if ties:  # few different values, so that most places in every order are shared
        return tuple(rng.integers(0, 4, SIZE).astype(np.float32) / 8 for _ in range(2))  # type: ignore[return-value]
    return tuple(rng.lognormal(-9, 2, SIZE).astype(np.float32) for _ in range(2))  # type: ignore[return-value]


def prunable_part(run: Run, vector: np.ndarray) -> np.ndarray:
    return np.concatenate([vector[p.start : p.stop] for p in run.parameters if p.prunable])


def obvious_mask(run: Run, module: nn.Module, order: Order, ratio: float) -> np.ndarray:
    """Argsort in memory: the protected taken out of all prunable parameters, the first of the rest pruned."""
    own, rest = (prunable_part(run, handmade.flat(run, name)) for name in ("cat", "rest-cat"))
    named = dict(module.named_parameters())
    weights = np.concatenate([named[p.name].detach().numpy().ravel() for p in run.parameters if p.prunable])
    sigma = run.manifest["sets"]["mt/rest-cat"]["sigma"]
    wide = rest.astype(np.float64)
    score = (own.astype(np.float64) - wide) / (wide + sigma)
    by = {
        "specificity": score,
        "reverse": -score,
        "sensitivity": own,
        "magnitude": np.abs(weights),
        "random": _random_keys(order.seed or 0, 0, len(own)),
    }[order.name]
    safe = set(np.argsort(-own, kind="stable")[: math.floor(order.protect * len(own) + 1e-9)].tolist())
    left = [i for i in np.argsort(by, kind="stable").tolist() if i not in safe]
    mask = np.zeros(len(own), dtype=bool)
    mask[left[: min(round(ratio * len(own)), len(left))]] = True
    return mask


def mask_of(run: Run, module: nn.Module, plan: Plan, ratio: float) -> np.ndarray:
    return np.concatenate([inside for _, _, inside in chosen(run, module, plan, ratio)])


def applied_mask(run: Run, module: nn.Module, plan: Plan, ratio: float) -> np.ndarray:
    """What is zero in the module while the plan is applied; none of its weights is zero otherwise."""
    with pruned(run, module, plan, ratio):
        named = dict(module.named_parameters())
        zero = [(named[p.name] == 0).numpy().ravel() for p in run.parameters if p.prunable]
    return np.concatenate(zero)


# plan and apply


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("chunk", [4, 1 << 18])
@pytest.mark.parametrize("name", ORDERS)
def test_plan_and_apply_are_the_argsort_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, chunk: int, ties: bool
) -> None:
    monkeypatch.setattr("sensikit.store.CHUNK", chunk)
    module = model()
    run = run_of(tmp_path / "run", module, *scores(1, ties))
    order = Order(name, "cat", seed=3 if name == "random" else None)
    plan = make_plan(run, module, order, RATIOS)
    assert plan.prunable == PRUNABLE
    for ratio in RATIOS:
        expected = obvious_mask(run, module, order, ratio)
        assert np.array_equal(mask_of(run, module, plan, ratio), expected)
        assert np.array_equal(applied_mask(run, module, plan, ratio), expected)


@pytest.mark.parametrize("protect", [0.0, 0.1, 0.25, 0.5])
def test_protection_of_any_share_is_the_argsort_in_memory(tmp_path: Path, protect: float) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, *scores(2, ties=True))
    for name in ORDERS:
        order = Order(name, "cat", 1, protect)
        plan = make_plan(run, module, order, [1 - protect])
        assert np.array_equal(mask_of(run, module, plan, 1 - protect), obvious_mask(run, module, order, 1 - protect))


@pytest.mark.parametrize("name", ORDERS)
def test_ratio_is_pruned_over_prunable_exactly(tmp_path: Path, name: str) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, *scores(3, ties=False))
    ratios = [i / PRUNABLE for i in range(int(0.9 * PRUNABLE) + 1)]
    plan = make_plan(run, module, Order(name, "cat", 1), ratios)
    for pruned_count, ratio in enumerate(ratios):
        assert plan.counts[ratio] == pruned_count
        with pruned(run, module, plan, ratio) as count:
            zeros = sum(int((tensor == 0).sum()) for tensor in module.parameters())
        # the bias of the norm is zero from the start
        assert count == zeros - 4 == pruned_count


@pytest.mark.parametrize("name", ORDERS)
def test_at_the_highest_ratio_all_but_the_protected_are_gone(tmp_path: Path, name: str) -> None:
    module = model()
    own, rest = scores(4, ties=False)
    run = run_of(tmp_path / "run", module, own, rest)
    kept = ~mask_of(run, module, make_plan(run, module, Order(name, "cat", 1), [0.9]), 0.9)
    part = prunable_part(run, own)
    assert kept.sum() == 8  # ⌊81/10⌋
    assert set(np.flatnonzero(kept)) == set(np.argsort(-part)[:8])


def test_the_protected_are_those_of_the_language_and_not_of_the_others(tmp_path: Path) -> None:
    own, rest = np.full(SIZE, 2, dtype=np.float32), np.full(SIZE, 1, dtype=np.float32)
    own[:8], rest[:8] = 8, 64  # the highest S(θ,B_l), and by D (−7/8) the first to go
    rest[8:16] = 4096  # the highest S(θ,B_-l)
    module = model()
    run = run_of(tmp_path / "run", module, own, rest)
    mask = mask_of(run, module, make_plan(run, module, Order("specificity", "cat"), [0.1]), 0.1)
    assert np.flatnonzero(mask).tolist() == list(range(8, 16))


def test_the_order_is_global_and_not_by_layer(tmp_path: Path) -> None:
    module = model()
    own, rest = np.ones(SIZE, dtype=np.float32), np.ones(SIZE, dtype=np.float32)
    inside = next(p for p in registry(module) if p.name == "fc2.weight")
    rest[inside.start : inside.stop] = 2
    run = run_of(tmp_path / "run", module, own, rest)
    plan = make_plan(run, module, Order("specificity", "cat"), [20 / PRUNABLE])
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
    ours = mask_of(run, module, make_plan(run, module, Order("specificity", "cat"), [ratio]), ratio)
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
    for name in ORDERS:
        plan = make_plan(run, module, Order(name, "cat", 1), [0.9])
        assert {parameter.name for parameter, _, _ in chosen(run, module, plan, 0.9)} == {
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
    plan = make_plan(run, module, Order("specificity", "cat"), [0.9])
    assert (~mask_of(run, module, plan, 0.9)).sum() == 8


def test_a_tied_embedding_is_pruned_once_and_both_of_its_uses_see_the_zeros(tmp_path: Path) -> None:
    # torch's global_unstructured on one of two tied modules leaves the other as it was
    module = model()
    own, rest = np.ones(SIZE, dtype=np.float32), np.ones(SIZE, dtype=np.float32)
    rest[:16] = 3  # words 0 to 3 of the embedding
    own[-10:] = 2  # protected
    run = run_of(tmp_path / "run", module, own, rest)
    plan = make_plan(run, module, Order("specificity", "cat"), [16 / PRUNABLE])
    tokens = torch.arange(9)
    with torch.no_grad(), pruned(run, module, plan, 16 / PRUNABLE) as count:
        assert count == 16
        assert not module.output_projection.weight[:4].any()
        assert module.output_projection.weight is module.embed_tokens.weight
        output = module(tokens)
        assert torch.equal(output[:, :4], torch.zeros(9, 4))
        # the embedded words are all alike too: a norm of zeros
        assert torch.equal(output[0], output[3])
        assert not torch.equal(output[0], output[4])


# restore


def bits(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy().view(np.uint32).copy() for name, tensor in module.named_parameters()}


def peculiar(module: Tied) -> Tied:
    """Give every prunable tensor negative zeros, infinities, subnormals and NaNs that carry something."""
    odd = np.array(
        [0x80000000, 0x7FC00000, 0x7FC12345, 0xFFC54321, 0xFF800000, 0x00000001, 0x7F800000], dtype=np.uint32
    )
    with torch.no_grad():
        for tensor in (module.embed_tokens.weight, module.fc1.weight, module.fc1.bias, module.fc2.weight):
            tensor.numpy().view(np.uint32).reshape(-1)[: len(odd)][:] = odd[: tensor.numel()]
    return module


@pytest.mark.parametrize("ratio", [0.0, 0.4, 0.9])
def test_restore_is_bit_for_bit(tmp_path: Path, ratio: float) -> None:
    module = peculiar(model())
    run = run_of(tmp_path / "run", module, *scores(7, ties=False))
    plan = make_plan(run, module, Order("specificity", "cat"), [ratio])
    before = bits(module)
    with pruned(run, module, plan, ratio) as count:
        during = bits(module)
    after = bits(module)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    # what was pruned is +0, whatever it was: a NaN too
    changed = sum(int((before[name] != during[name]).sum()) for name in before)
    assert changed == count == round(ratio * PRUNABLE)
    assert all((during[name][before[name] != during[name]] == 0).all() for name in before)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_restore_is_bit_for_bit_after_an_exception_in_the_block(tmp_path: Path, error: type[BaseException]) -> None:
    module = peculiar(model())
    run = run_of(tmp_path / "run", module, *scores(8, ties=False))
    plan = make_plan(run, module, Order("specificity", "cat"), [0.5])
    before = bits(module)
    with pytest.raises(error), pruned(run, module, plan, 0.5):
        raise error
    after = bits(module)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_restore_is_bit_for_bit_when_the_scores_break_off_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, *scores(9, ties=False))
    plan = make_plan(run, module, Order("specificity", "cat"), [0.9])
    before = bits(module)

    def breaks_off(*arguments: object):  # type: ignore[no-untyped-def]
        stream = chosen(*arguments)  # type: ignore[arg-type]
        yield next(stream)
        raise OSError("the disk is gone")

    monkeypatch.setattr("sensikit.masks.chosen", breaks_off)
    with pytest.raises(OSError, match="gone"), pruned(run, module, plan, 0.9):
        raise AssertionError("the block must not run")
    after = bits(module)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_same_tensors_stay_in_their_places(tmp_path: Path) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, *scores(10, ties=False))
    plan = make_plan(run, module, Order("specificity", "cat"), [0.9])
    before = {name: tensor.data_ptr() for name, tensor in module.named_parameters()}
    with pruned(run, module, plan, 0.9):
        assert {name: tensor.data_ptr() for name, tensor in module.named_parameters()} == before
    assert {name: tensor.data_ptr() for name, tensor in module.named_parameters()} == before


# the orders


def test_magnitude_is_that_of_the_unpruned_weights_even_while_they_are_pruned(tmp_path: Path) -> None:
    # zeros rank first: were the order read again while the weights are zeroed, the tail would be cut elsewhere
    module = model()
    run = run_of(tmp_path / "run", module, *scores(11, ties=False))
    order = Order("magnitude", "cat")
    plan = make_plan(run, module, order, [0.5])
    assert np.array_equal(applied_mask(run, module, plan, 0.5), obvious_mask(run, module, order, 0.5))


def test_reverse_is_the_reverse_of_specificity(tmp_path: Path) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, *scores(12, ties=False))
    steps = [i / PRUNABLE for i in range(73)]
    plans = {name: make_plan(run, module, Order(name, "cat"), steps) for name in ("specificity", "reverse")}
    masks = {name: [mask_of(run, module, plan, ratio) for ratio in steps] for name, plan in plans.items()}
    turns = {name: [int(np.flatnonzero(b & ~a)[0]) for a, b in itertools.pairwise(m)] for name, m in masks.items()}
    # 73 are not protected; each order has told of its first 72
    assert turns["reverse"][1:] == turns["specificity"][:0:-1]


def test_reverse_breaks_ties_by_index_as_every_order_does(tmp_path: Path) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, np.ones(SIZE, dtype=np.float32), np.ones(SIZE, dtype=np.float32))
    for name in ("specificity", "reverse", "sensitivity"):
        plan = make_plan(run, module, Order(name, "cat"), [10 / PRUNABLE])
        # the first eight are protected: ties of S(θ,B_l) go by index as well
        assert np.flatnonzero(mask_of(run, module, plan, 10 / PRUNABLE)).tolist() == list(range(8, 18))


def test_random_order_is_the_same_by_seed_and_another_by_another(tmp_path: Path) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, *scores(13, ties=False))

    def mask(seed: int) -> list[bool]:
        return mask_of(run, module, make_plan(run, module, Order("random", "cat", seed), [0.5]), 0.5).tolist()

    assert mask(1) == mask(1)
    assert len({tuple(mask(seed)) for seed in range(8)}) == 8


def test_random_order_does_not_read_the_scores_but_for_the_protection(tmp_path: Path) -> None:
    module = model()
    own, rest = scores(14, ties=False)
    one = run_of(tmp_path / "one", module, own, rest)
    two = run_of(tmp_path / "two", module, own, rest[::-1].copy())
    masks = [mask_of(run, module, make_plan(run, module, Order("random", "cat", 1), [0.5]), 0.5) for run in (one, two)]
    assert np.array_equal(*masks)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_random_keys_are_the_same_however_chunked(size: int) -> None:
    parts = [_random_keys(5, start, min(size, 3000 - start)) for start in range(0, 3000, size)]
    assert np.array_equal(np.concatenate(parts), _random_keys(5, 0, 3000))


def test_random_order_is_uniform() -> None:
    # the share of each 1/64 of the flat vector that falls under each 1/16 of the order: chi square on 64·16 cells
    size = 1 << 17
    for seed in (1, 2, 3):
        keys = _random_keys(seed, 0, size)
        assert len(np.unique(keys)) == size
        places = np.arange(size) * 64 // size
        slices = (keys >> np.uint64(60)).astype(int)
        table = np.bincount(places * 16 + slices, minlength=1024)
        assert 1e-4 < stats.chisquare(table).pvalue < 1 - 1e-4


def test_random_orders_of_two_seeds_and_of_neighbours_have_nothing_in_common() -> None:
    size = 1 << 18
    one, two = _random_keys(1, 0, size).astype(float), _random_keys(2, 0, size).astype(float)
    bound = 5 / np.sqrt(size)  # five standard errors of a correlation of nothing
    assert abs(np.corrcoef(one, two)[0, 1]) < bound
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < bound
    assert abs(np.corrcoef(one, np.arange(size))[0, 1]) < bound


def test_scaling_loss_and_sigma_together_leaves_every_order_as_it_was(tmp_path: Path) -> None:
    module = model()
    own, rest = scores(15, ties=False)
    one = run_of(tmp_path / "one", module, own, rest, sigma=2.0**-20)
    two = run_of(tmp_path / "two", module, own * 1024, rest * 1024, sigma=2.0**-10)
    for name in ORDERS:
        masks = [mask_of(run, module, make_plan(run, module, Order(name, "cat", 1), [0.5]), 0.5) for run in (one, two)]
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
        make_plan(run, module, Order("specificity", "cat"), [0.95])


def test_an_unknown_order_is_refused(tmp_path: Path) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, *scores(17, ties=False))
    with pytest.raises(OptionError, match="--order: wanda is not an order; choose among specificity"):
        make_plan(run, module, Order("wanda", "cat"), [0.5])
