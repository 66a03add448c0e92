"""The registry: every trainable tensor once, under one name, at one place in the flat order."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from sensikit.errors import CheckpointError
from sensikit.parameters import component_of, layer_of, registry, sample_of, stack_of, tensors
from tests.support import toy

FAIRSEQ = [
    # name, component, stack, layer
    ("encoder.embed_tokens.weight", "embedding", "encoder", None),
    ("encoder.embed_positions.weight", "embedding", "encoder", None),
    ("encoder.layernorm_embedding.weight", "norm", "encoder", None),
    ("encoder.layers.0.self_attn.k_proj.weight", "attention", "encoder", 0),
    ("encoder.layers.0.self_attn_layer_norm.bias", "norm", "encoder", 0),
    ("encoder.layers.1.fc1.bias", "ffn", "encoder", 1),
    ("encoder.layers.11.fc2.weight", "ffn", "encoder", 11),
    ("encoder.layers.11.final_layer_norm.weight", "norm", "encoder", 11),
    ("encoder.layer_norm.weight", "norm", "encoder", None),
    ("decoder.embed_tokens.weight", "embedding", "decoder", None),
    ("decoder.layers.0.encoder_attn.out_proj.bias", "attention", "decoder", 0),
    ("decoder.layers.0.encoder_attn_layer_norm.weight", "norm", "decoder", 0),
    ("decoder.layers.3.self_attn.q_proj.weight", "attention", "decoder", 3),
    ("decoder.output_projection.weight", "projection", "decoder", None),
]
HUGGING_FACE = [
    # M2M100, NLLB and mBART
    ("model.shared.weight", "embedding", "shared", None),
    ("model.encoder.embed_positions.weight", "embedding", "encoder", None),
    ("model.encoder.layers.0.self_attn.k_proj.weight", "attention", "encoder", 0),
    ("model.encoder.layers.0.self_attn_layer_norm.weight", "norm", "encoder", 0),
    ("model.decoder.layers.5.encoder_attn.v_proj.bias", "attention", "decoder", 5),
    ("model.decoder.layers.5.encoder_attn_layer_norm.weight", "norm", "decoder", 5),
    ("model.decoder.layers.11.fc1.weight", "ffn", "decoder", 11),
    ("model.encoder.layers.3.ffn.experts.expert_7.fc1.weight", "ffn", "encoder", 3),
    ("model.encoder.layernorm_embedding.weight", "norm", "encoder", None),
    ("lm_head.weight", "projection", "decoder", None),
    # Marian
    ("model.decoder.embed_tokens.weight", "embedding", "decoder", None),
    ("model.encoder.layers.2.final_layer_norm.bias", "norm", "encoder", 2),
    # T5 and MADLAD
    ("shared.weight", "embedding", "shared", None),
    ("encoder.block.0.layer.0.SelfAttention.q.weight", "attention", "encoder", 0),
    ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "attention", "encoder", 0),
    ("encoder.block.3.layer.1.DenseReluDense.wi_0.weight", "ffn", "encoder", 3),
    ("encoder.block.3.layer.1.DenseReluDense.wo.weight", "ffn", "encoder", 3),
    ("decoder.block.2.layer.1.EncDecAttention.o.weight", "attention", "decoder", 2),
    ("decoder.block.2.layer.2.layer_norm.weight", "norm", "decoder", 2),
    ("encoder.final_layer_norm.weight", "norm", "encoder", None),
]


@pytest.mark.parametrize(("name", "component", "stack", "layer"), FAIRSEQ + HUGGING_FACE)
def test_the_place_of_a_parameter_is_read_from_its_name(
    name: str, component: str, stack: str, layer: int | None
) -> None:
    assert (component_of(name), stack_of(name), layer_of(name)) == (component, stack, layer)


def test_a_name_that_says_nothing_is_other() -> None:
    assert component_of("gate.scale") == "other"


def test_a_tensor_tied_across_the_stacks_belongs_to_neither() -> None:
    names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight"]
    assert stack_of(names[0], names) == "shared"
    assert stack_of(names[1], names[1:]) == "decoder"


def test_tied_tensors_are_listed_once_under_their_first_name() -> None:
    model = toy.TinyTransformer(toy.vocabulary_size())
    found = registry(model)
    (embedding,) = [p for p in found if p.component == "embedding"]
    assert embedding.name == "encoder.embed_tokens.weight"
    assert embedding.aliases == ("decoder.embed_tokens.weight", "decoder.output_projection.weight")
    assert embedding.stack == "shared"
    assert not [p for p in found if p.component == "projection"]
    assert sum(p.numel for p in found) == sum(tensor.numel() for tensor in model.parameters())


def test_a_tensor_that_is_not_tied_has_no_alias() -> None:
    assert [p.aliases for p in registry(nn.Linear(3, 2))] == [(), ()]


def test_parameters_lie_end_to_end_in_the_order_of_named_parameters() -> None:
    model = toy.TinyTransformer(toy.vocabulary_size(), layers=2)
    found = registry(model)
    assert [p.name for p in found] == [name for name, _ in model.named_parameters()]
    assert [p.shape for p in found] == [tuple(tensor.shape) for tensor in model.parameters()]
    assert found[0].start == 0
    assert all(before.stop == after.start for before, after in itertools.pairwise(found))
    assert all(p.stop - p.start == p.numel == torch.Size(p.shape).numel() for p in found)


def test_frozen_tensors_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[0].weight.requires_grad_(False)
    found = registry(model)
    assert [(p.name, p.start) for p in found] == [("0.bias", 0), ("1.weight", 2), ("1.bias", 6)]


def test_ghosts_are_left_out() -> None:
    model = toy.TokenModel(toy.vocabulary_size())
    names = [p.name for p in registry(model)]
    assert toy.GHOST in names
    assert [p.name for p in registry(model, {toy.GHOST})] == [name for name in names if name != toy.GHOST]


def test_nothing_trainable_is_refused() -> None:
    model = nn.Linear(3, 2).requires_grad_(False)
    with pytest.raises(CheckpointError, match="Linear: has no trainable parameter"):
        registry(model)


class Pair(nn.Module):
    def __init__(self, first: torch.Tensor, second: torch.Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)


MEMORY = torch.arange(12.0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (MEMORY[:6], MEMORY[:6]),
        (MEMORY[:6].view(2, 3), MEMORY[:6].view(3, 2)),
        (MEMORY, MEMORY[4:8]),
        (MEMORY[4:8], MEMORY),
        (MEMORY[:6], MEMORY[5:]),
        (MEMORY.view(3, 4).T, MEMORY[11:]),
    ],
    ids=["same", "other shape", "slice", "slice first", "overlap", "transposed"],
)
def test_different_parameters_that_share_memory_are_refused(first: torch.Tensor, second: torch.Tensor) -> None:
    with pytest.raises(CheckpointError, match=r"shares its memory with (first|second)") as caught:
        registry(Pair(first, second))
    assert "\n" not in str(caught.value)


def test_neighbours_in_one_buffer_are_different_parameters() -> None:
    assert [p.numel for p in registry(Pair(MEMORY[6:], MEMORY[:6]))] == [6, 6]


def test_parameters_without_memory_can_be_listed() -> None:
    with torch.device("meta"):
        model = toy.TinyTransformer(toy.vocabulary_size())
    assert sum(p.numel for p in registry(model)) > 1000


class Everything(nn.Module):
    """One of each kind of module that holds parameters in a translation model."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(5, 4)
        self.embed_positions = nn.Embedding(6, 4)
        self.linear = nn.Linear(4, 4)
        self.layer_norm = nn.LayerNorm(4)
        self.conv = nn.Conv1d(4, 4, 1)
        self.scale = nn.Parameter(torch.ones(4))
        self.self_attn = nn.MultiheadAttention(4, 2)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed_tokens.weight


def test_weights_and_biases_of_Linear_and_Embedding_alone_are_prunable() -> None:
    assert {p.name for p in registry(Everything()) if p.prunable} == {
        # tied to a Linear, and not
        "embed_tokens.weight",
        "embed_positions.weight",
        "linear.weight",
        "linear.bias",
        # a Linear of its own inside torch's attention
        "self_attn.out_proj.weight",
        "self_attn.out_proj.bias",
    }


def test_the_prunable_set_of_a_transformer_is_all_but_its_norms() -> None:
    for p in registry(toy.TinyTransformer(toy.vocabulary_size())):
        assert p.prunable == (p.component != "norm"), p.name


def test_tensors_pairs_each_parameter_with_its_tensor() -> None:
    model = toy.TinyTransformer(toy.vocabulary_size())
    found = registry(model)
    some = [found[3], found[0]]
    pairs = list(tensors(model, some))
    assert [parameter for parameter, _ in pairs] == some
    assert pairs[1][1] is model.decoder["output_projection"].weight


# the sample


def test_the_sample_is_everything_where_there_is_not_more_than_the_limit() -> None:
    parameters = registry(toy.TokenModel(toy.vocabulary_size()))
    total = sum(p.numel for p in parameters)
    for limit in (total, total + 1):
        sample = sample_of(parameters, limit)
        assert list(sample) == [p.name for p in parameters]
        assert all(np.array_equal(sample[p.name], np.arange(p.numel)) for p in parameters)


@pytest.mark.parametrize("limit", [1, 7, 100, 1500])
def test_the_sample_is_stratified_by_tensor(limit: int) -> None:
    parameters = registry(toy.TokenModel(toy.vocabulary_size()))
    total = sum(p.numel for p in parameters)
    sample = sample_of(parameters, limit)
    assert sum(map(len, sample.values())) == limit
    for parameter in parameters:
        indices = sample[parameter.name]
        assert abs(len(indices) - limit * parameter.numel / total) < 1
        assert np.array_equal(indices, np.unique(indices)), "sorted, none twice"
        assert all(0 <= index < parameter.numel for index in indices)


def test_the_sample_is_spread_over_each_tensor() -> None:
    (weight, *_) = parameters = registry(nn.Linear(100, 100))
    indices = sample_of(parameters, 1000)[weight.name]
    # the mean of 990 draws from 0…9999 has a standard deviation of about 10000/√(12·990)
    assert abs(indices.mean() - 4999.5) < 4 * 10000 / math.sqrt(12 * 990)


def test_two_models_of_one_shape_have_the_same_sample() -> None:
    first = sample_of(registry(toy.initialised(toy.TokenModel(toy.vocabulary_size()), seed=1)), 200)
    np.random.seed(5)  # noqa: NPY002  (the state that must not be read)
    second = sample_of(registry(toy.initialised(toy.TokenModel(toy.vocabulary_size()), seed=2)), 200)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
