"""Checkpoints that are safe to read and still do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sensikit.backends.fairseq.opening import FairseqModel, open_checkpoint
from sensikit.errors import CheckpointError, DataError, OptionError
from tests.support.checkpoints import edited, translation


def test_unknown_language_and_split(tiny_backend: FairseqModel) -> None:
    with pytest.raises(OptionError, match="xyz: is no group of the checkpoint here; it has cat, nob, fao"):
        translation(tiny_backend).sizes("xyz")
    with pytest.raises(DataError, match="has no dev set of cat-eng"):
        translation(tiny_backend).sizes("cat", "dev")


def test_checkpoint_of_another_task(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    path = edited(tiny_checkpoint, tmp_path / "c.pt", task={"_name": "translation"})
    with pytest.raises(CheckpointError, match="_name = 'translation'; expected translation_multi_simple_epoch"):
        open_checkpoint(path, tiny_data, device="cpu")


def test_checkpoint_of_another_architecture(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    path = edited(tiny_checkpoint, tmp_path / "c.pt", model={"arch": "lstm"})
    with pytest.raises(CheckpointError, match="arch = 'lstm'; expected an architecture of the transformer family"):
        open_checkpoint(path, tiny_data, device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"adaptive_softmax_cutoff": [100]},
        {"quant_noise_pq": 0.1},
        {"encoder_layers_to_keep": "0"},
        {"xformers_att_config": "{}"},
        {"base_layers": 1},
    ],
)
def test_designs_that_are_not_supported(
    change: dict[str, Any], tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    path = edited(tiny_checkpoint, tmp_path / "c.pt", model=change)
    with pytest.raises(CheckpointError, match="expected it off"):
        open_checkpoint(path, tiny_data, device="cpu")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"encoder_layers": 3}, "says encoder_layers = 3 but its tensors have 2"),
        ({"decoder_ffn_embed_dim": 4096}, "says decoder_ffn_embed_dim = 4096 but its tensors have 64"),
        ({"encoder_embed_dim": 65536}, "says encoder_embed_dim = 65536"),
        ({"decoder_output_dim": 65536}, "says decoder_output_dim = 65536"),
        ({"encoder_embed_dim": 1 << 40}, "expected a whole number"),
        ({"encoder_attention_heads": 5}, "5 attention heads for width 32"),
        ({"encoder_attention_heads": 0}, "0 attention heads"),
        ({"max_source_positions": 10**9}, "expected a whole number"),
        ({"layernorm_embedding": True}, "do not make a transformer"),
        ({"encoder_learned_pos": True}, "do not make a transformer"),
    ],
)
def test_settings_that_contradict_the_tensors(
    change: dict[str, Any], problem: str, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """Found before a model of that size is built."""
    path = edited(tiny_checkpoint, tmp_path / "c.pt", model=change)
    with pytest.raises(CheckpointError, match=problem):
        open_checkpoint(path, tiny_data, device="cpu")


def drop(state: dict[str, torch.Tensor]) -> None:
    del state["decoder.layers.0.fc1.bias"]


def add(state: dict[str, torch.Tensor]) -> None:
    state["decoder.adapter"] = torch.ones(2)


def reshape(state: dict[str, torch.Tensor]) -> None:
    state["decoder.layers.0.fc1.bias"] = torch.ones(63)


def untie(state: dict[str, torch.Tensor]) -> None:
    state["decoder.output_projection.weight"] = torch.ones_like(state["decoder.output_projection.weight"])


def diverge(state: dict[str, torch.Tensor]) -> None:
    state["encoder.layers.0.fc1.bias"][0] = float("nan")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (drop, r"do not make a transformer .*fc1\.bias"),
        (add, r"do not make a transformer .*adapter"),
        (reshape, r"do not make a transformer .*fc1\.bias"),
        (untie, r"gives \S+ other values than the tensor it is tied to"),
        (diverge, r"weights that are not finite, in encoder\.layers\.0\.fc1\.bias"),
    ],
)
def test_tensors_must_match_strictly(
    change: Any, problem: str, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    path = edited(tiny_checkpoint, tmp_path / "c.pt", state=change)
    with pytest.raises(CheckpointError, match=problem):
        open_checkpoint(path, tiny_data, device="cpu")
