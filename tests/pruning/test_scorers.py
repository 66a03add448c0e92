"""Scores of other pruning methods against their definitions, computed one batch, one sentence, one row at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sensikit.backends.base import Item, Model
from sensikit.errors import NonFiniteError, OptionError, RunError
from sensikit.parameters import registry, tensors
from sensikit.pruning.scorers import SCORERS, _without_padding, fisher, measure_missing, scorer_of, wanda
from sensikit.run import Run
from sensikit.sensitivity.batches import Batch, draw, pack
from sensikit.sensitivity.planning import Plan
from sensikit.settings import AnalysisSettings
from tests.support import toy
from tests.support.checkpoints import translation
from tests.support.measured import batches_of
from tests.support.watched import Watched, bits, breaks_at, infinite_at, snapshot


def transformer(seed: int = 0) -> toy.ToyBackend:
    """A trained toy with attention, several layers with biases, and one matrix for three uses."""
    return toy.ToyBackend(toy.initialised(toy.TinyTransformer(toy.vocabulary_size()), seed)).train(20)


def untied() -> toy.ToyBackend:
    """A toy whose embedding is no layer's matrix too."""
    module = toy.TokenModel(toy.vocabulary_size())
    module.decoder["output_projection"] = nn.Linear(16, toy.vocabulary_size())
    return toy.ToyBackend(toy.initialised(module), ghosts=[toy.GHOST])


def measured(of: Any, backend: Any, batches: Sequence[Batch], **options: Any) -> dict[str, np.ndarray]:
    plan = Plan(backend.task("mt"), registry(backend.module, backend.ghosts), [], 0, {}, [])
    found = of(backend.module, plan, AnalysisSettings(**options), batches)
    return {name: score.numpy() for name, score in found.items()}


# Fisher


@pytest.mark.parametrize("reduction", ["token", "sum"])
@pytest.mark.parametrize("loss", ["nll", "train"])
def test_fisher_is_the_mean_over_batches_of_the_squared_gradient_of_a_whole_batch(loss: str, reduction: str) -> None:
    backend = toy.backend()
    batches = batches_of(backend, 3, micro_batches=2, groups=["cat"])
    found = measured(fisher, backend, batches, loss=loss, reduction=reduction)
    named = {p.name: t for p, t in tensors(backend.module, registry(backend.module, backend.ghosts))}
    assert found.keys() == named.keys()
    for name, tensor in named.items():
        squares = []
        for batch in batches:
            total, tokens = backend.loss(backend.collate(batch.items), loss)
            (gradient,) = torch.autograd.grad(total / (tokens if reduction == "token" else 1), tensor)
            squares.append(gradient.double().numpy() ** 2)
        expected = np.mean(squares, axis=0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_fisher_is_not_the_square_of_the_mean_nor_the_mean_over_sentences() -> None:
    backend = toy.backend()
    batches = batches_of(backend, 4, groups=["cat"])
    whole = measured(fisher, backend, batches)["encoder.layers.0.fc1.weight"]
    sentences = [Batch((((item),),), int(backend.sizes("cat")[item[1], 1])) for b in batches for item in b.items]
    one_by_one = measured(fisher, backend, sentences)["encoder.layers.0.fc1.weight"]
    assert one_by_one.mean() > 2 * whole.mean()
    joined = Batch(tuple((item,) for b in batches for item in b.items), sum(b.tokens for b in batches))
    assert measured(fisher, backend, [joined])["encoder.layers.0.fc1.weight"].mean() < 0.9 * whole.mean()


def test_fisher_leaves_the_model_as_it_was_without_gradients_in_evaluation() -> None:
    backend = toy.backend()
    before = bits(backend.module)
    measured(fisher, backend, batches_of(backend, 2), mode="train")
    assert bits(backend.module) == before
    assert all(tensor.grad is None for tensor in backend.module.parameters())
    assert not backend.module.training


def test_fisher_of_dropout_is_the_same_again_and_another_by_seed() -> None:
    backend = toy.backend()
    batches = batches_of(backend, 2)
    one, again, other, still = (
        measured(fisher, backend, batches, mode=mode, seed=seed)["encoder.layers.0.fc2.weight"]
        for mode, seed in (("train", 1), ("train", 1), ("train", 2), ("eval", 1))
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, still)


def test_fisher_refuses_a_batch_that_is_not_finite_or_leaves_it_out() -> None:
    batches = batches_of(Watched(), 3, groups=["cat"])
    with pytest.raises(NonFiniteError, match="batch 1"):
        measured(fisher, Watched(before=infinite_at(1)), batches)
    found = measured(fisher, Watched(before=infinite_at(1)), batches, skip_nonfinite=True)
    expected = measured(fisher, Watched(), [batches[0], batches[2]])
    for name, score in expected.items():
        np.testing.assert_allclose(found[name], score, rtol=1e-6)


# Wanda


def obvious_wanda(backend: toy.ToyBackend, items: Sequence[Item]) -> dict[str, np.ndarray]:
    """|W_ij|·‖x_j‖ sentence by sentence with hooks of the layers, ranked row by row with Python's sort."""
    module = backend.module
    squares: dict[int, Any] = defaultdict(float)
    tokens: dict[int, int] = defaultdict(int)

    def hook(part: nn.Module, inputs: Any, _: Any) -> None:
        (x,) = inputs
        weight = part.weight
        assert isinstance(weight, torch.Tensor)
        if isinstance(part, nn.Embedding):
            x = functional.one_hot(x, len(weight))
            squares[id(weight)] = squares[id(weight)] + (x.double() ** 2).sum(dim=(0, 1)).numpy()[:, None]
        else:
            squares[id(weight)] = squares[id(weight)] + (x.double() ** 2).sum(dim=(0, 1)).numpy()[None, :]
            tokens[id(weight)] += x.shape[0] * x.shape[1]

    parts = [part for part in module.modules() if isinstance(part, nn.Linear | nn.Embedding)]
    handles = [part.register_forward_hook(hook) for part in parts]
    with torch.no_grad():
        for item in items:
            backend.loss(backend.collate([item]))
    for handle in handles:
        handle.remove()
    linear = {id(part.weight) for part in parts if isinstance(part, nn.Linear)}
    found = {}
    for part in parts:
        weight = part.weight.detach().abs().double().numpy()
        score = weight * np.sqrt(np.broadcast_to(squares[id(part.weight)], weight.shape))
        if id(part.weight) not in linear:
            found[id(part.weight)] = ranked(score.T).T
        elif isinstance(part, nn.Linear) and part.bias is not None:
            bias = part.bias.detach().abs().double().numpy() * np.sqrt(tokens[id(part.weight)])
            rank = ranked(np.column_stack([score, bias]))
            found[id(part.weight)], found[id(part.bias)] = rank[:, :-1], rank[:, -1]
        else:
            found[id(part.weight)] = ranked(score)
    return {p.name: found.get(id(t), np.zeros(t.shape)) for p, t in tensors(module, registry(module, backend.ghosts))}


def ranked(rows: np.ndarray) -> np.ndarray:
    found = np.empty(rows.shape)
    for i, row in enumerate(rows):
        for place, j in enumerate(sorted(range(len(row)), key=lambda j: (row[j], j))):
            found[i, j] = (place + 0.5) / len(row)
    return found


@pytest.mark.parametrize("make", [toy.backend, transformer, untied], ids=["tokens", "transformer", "untied"])
def test_wanda_is_its_definition_one_sentence_and_one_row_at_a_time(make: Any) -> None:
    backend = make()
    batches = batches_of(backend, 3, micro_batches=2, groups=["cat"])
    found = measured(wanda, backend, batches)
    expected = obvious_wanda(backend, [item for batch in batches for item in batch.items])
    assert found.keys() == expected.keys()
    for name, score in expected.items():
        np.testing.assert_allclose(found[name], score, rtol=1e-6, err_msg=name)


def test_wanda_reads_no_padding() -> None:
    backend = toy.backend()
    items = [("cat", row) for row in range(60)]
    groups = list(_without_padding(backend, "train", items))
    assert sorted(item for group in groups for item in group) == items
    assert len(groups) < 60
    for group in groups:
        micro_batch = backend.collate(group)
        assert (micro_batch.source != toy.PAD).all()
        assert (micro_batch.target != toy.PAD).all()


def test_wanda_reads_no_padding_of_fairseq_and_sees_what_attention_multiplies(any_design: Model) -> None:
    items = [("cat", row) for row in range(30)]
    task = translation(any_design)
    for group in _without_padding(task, "train", items):
        micro_batch = task.collate(group)
        for name in ("src_tokens", "prev_output_tokens"):
            assert (micro_batch.net_input[name] != task.opened.task.source_dictionary.pad()).all()
    found = measured(wanda, any_design, [Batch((tuple(items),), 1)])
    parts = dict(any_design.module.named_modules())
    for name in ("encoder.layers.1.self_attn.k_proj", "decoder.layers.0.encoder_attn.out_proj", "encoder.layers.0.fc1"):
        layer = parts[name]
        assert isinstance(layer, nn.Linear)
        rows = np.column_stack([found[f"{name}.weight"], found[f"{name}.bias"]])
        width = layer.in_features + 1
        # every row is a whole ranking of its inputs and the bias
        np.testing.assert_allclose(np.sort(rows, axis=1), [(np.arange(width) + 0.5) / width] * len(rows), rtol=1e-6)


def test_wanda_of_queries_in_fairseq_is_that_of_the_normed_states(tiny_backend: Model) -> None:
    # fairseq hands the weights of attention to a function, and never calls its layers
    items = [("cat", row) for row in range(8)]
    found = measured(wanda, tiny_backend, [Batch((tuple(items),), 1)])
    module: Any = tiny_backend.module
    task = translation(tiny_backend)
    norm, query = module.encoder.layers[0].self_attn_layer_norm, module.encoder.layers[0].self_attn.q_proj
    squares, tokens = torch.zeros(query.in_features, dtype=torch.float64), 0

    def hook(_: Any, __: Any, x: torch.Tensor) -> None:
        nonlocal squares, tokens
        squares = squares + (x.detach().double() ** 2).sum(dim=(0, 1))
        tokens += x.shape[0] * x.shape[1]

    handle = norm.register_forward_hook(hook)
    for item in items:
        task.loss(task.collate([item]))
    handle.remove()
    score = query.weight.detach().double().abs() * squares.sqrt()
    rows = torch.cat([score, query.bias.detach().double().abs()[:, None] * tokens**0.5], dim=1)
    expected = ranked(rows.numpy())
    np.testing.assert_allclose(found["encoder.layers.0.self_attn.q_proj.weight"], expected[:, :-1], rtol=1e-6)
    np.testing.assert_allclose(found["encoder.layers.0.self_attn.q_proj.bias"], expected[:, -1], rtol=1e-6)


def test_wanda_prunes_the_same_share_of_every_output() -> None:
    backend = toy.backend()
    score = measured(wanda, backend, batches_of(backend, 2, groups=["cat"]))["encoder.layers.0.fc1.weight"]
    for ratio in (0.25, 0.5):
        lost = (score < ratio).sum(axis=1)
        assert lost.max() - lost.min() <= 1


def test_wanda_restores_what_it_watches_with_and_leaves_the_model_as_it_was() -> None:
    linear, embedding = functional.linear, functional.embedding
    backend = Watched(before=breaks_at(1))
    before = bits(backend.module)
    backend.module.train()
    with pytest.raises(ZeroDivisionError):
        measured(wanda, backend, batches_of(Watched(), 2))
    assert (functional.linear, functional.embedding) == (linear, embedding)
    assert bits(backend.module) == before
    assert not backend.calls[0].training


def test_wanda_of_a_layer_whose_inputs_cannot_be_seen_is_refused() -> None:
    class Hidden(nn.Module):
        """Multiplies by hand."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = toy.initialised(toy.TokenModel(toy.vocabulary_size()))
            self.fc = nn.Linear(1, 1, bias=False)

        def forward(self, source: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.inner(source, previous)
            return logits * self.fc.weight[0, 0]

    backend = toy.ToyBackend(Hidden(), ghosts=[f"inner.{toy.GHOST}"])
    with pytest.raises(OptionError, match=r"--order wanda: the inputs of fc\.weight cannot be seen"):
        measured(wanda, backend, batches_of(backend, 2))


# in a run


def test_scores_are_of_the_runs_own_batches_and_are_kept_with_their_hashes(run: Run) -> None:
    backend = toy.backend()
    measure_missing(run, backend, [("fisher", "cat"), ("wanda", "nso"), ("none", "cat"), ("random", "cat")], "mt")
    again = Run.open(run.path)
    assert {name for name in again.manifest["sets"] if not name.startswith("mt/")} == {"fisher-mt/cat", "wanda-mt/nso"}
    entry = again.manifest["sets"]["fisher-mt/cat"]
    assert list(entry["files"]) == ["scores/fisher-mt/cat.safetensors"]
    assert entry["drawn"] == again.manifest["sets"]["mt/cat"]["drawn"]
    assert entry["batches"] == 4
    assert again.has("wanda-mt", "nso")
    sizes = {"cat": backend.sizes("cat")}
    batches = pack(draw(sizes, 1, "mt/cat"), sizes, 64, 4, None)
    expected = measured(fisher, backend, batches)
    for (parameter, _), block in again.chunks([again.vector("fisher-mt", "cat")]):
        assert np.array_equal(block[0], expected[parameter.name].ravel())


def test_what_is_measured_is_not_measured_again_and_what_is_damaged_is(run: Run) -> None:
    measure_missing(run, toy.backend(), [("fisher", "cat"), ("fisher", "nso")], "mt")
    whole = snapshot(run.path)
    path = run.vector("fisher-mt", "nso")
    path.write_bytes(path.read_bytes()[:-3])
    backend = Watched()  # would be refused: it has no such sentences
    backend.groups, backend.pairs, backend.module = (each := toy.backend()).groups, each.pairs, each.module
    measure_missing(run, backend, [("fisher", "cat"), ("fisher", "nso")], "mt")
    assert {language for call in backend.calls for language, _ in call.items} == {"nso"}
    assert snapshot(run.path) == whole


def test_batches_that_cannot_be_drawn_again_are_refused(run: Run) -> None:
    run.manifest["sets"]["mt/cat"]["drawn"] = "0" * 64
    with pytest.raises(RunError, match="was measured on other batches of cat than its settings give") as caught:
        measure_missing(run, toy.backend(), [("fisher", "cat")], "mt")
    assert "\n" not in str(caught.value)
    assert not (run.path / "scores").exists()


@pytest.mark.parametrize("settings", [{}, {"task": "mt", "nonsense": 1}])
def test_settings_of_another_version_are_refused(run: Run, settings: dict[str, Any]) -> None:
    run.manifest["analyses"]["mt"]["settings"] = settings
    with pytest.raises(RunError, match=r"settings of another version|other batches of cat"):
        measure_missing(run, toy.backend(), [("wanda", "cat")], "mt")


def test_the_table_of_scorers_says_what_each_reads() -> None:
    assert list(SCORERS) == [
        "specificity", "reverse", "matched", "matched-reverse", "matched-random", "sensitivity", "magnitude", "random",
        "fisher", "wanda",
    ]  # fmt: skip
    for name, scorer in SCORERS.items():
        own = (f"{name}-{{}}", "{}")
        assert bool(scorer.measure) == (own in scorer.reads), name
        assert scorer_of(name) is scorer
