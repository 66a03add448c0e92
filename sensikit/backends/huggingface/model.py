"""From a directory to transformers' module: its weights checked, in one dtype, in evaluation mode."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sensikit.backends.huggingface import compat
from sensikit.backends.huggingface.directory import Directory
from sensikit.errors import CheckpointError, said

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""By name; fp64 and fp16 are only stored, and never measured in."""

FLOATS = {"F64": "fp64", "F32": "fp32", "BF16": "bf16", "F16": "fp16"}
"""Names of `DTYPES` by what a shard writes."""

GENERATES = ("ForConditionalGeneration", "ForCausalLM", "LMHeadModel", "MTModel")
"""How the names of classes that predict the next token end."""

_LAYERS = ("num_hidden_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers", "n_layer")

_COUNT = re.compile("layer|expert|block|head|group|stage|label")
MOST = 100_000
"""Of what a configuration counts; a window may be as long."""

DEEPEST = 1000
"""Layers of a model whose weights are not there to say how many it has."""


def configuration(directory: Directory) -> Any:
    """Return transformers' configuration of a directory; refuse what predicts no next token or needs its own code."""
    transformers = compat.load()
    kind = str(directory.config["model_type"])
    _check_counts(directory)
    named = directory.config.get("architectures")
    for name in named if isinstance(named, list) else ():
        if not str(name).endswith(GENERATES):
            problem = f"is a {name}, which predicts no next token"
            raise CheckpointError(directory.name, problem, "give an encoder-decoder or a decoder language model")
    if directory.config.get("quantization_config"):
        raise CheckpointError(directory.name, "is quantised", "give the model that it was made of")
    if kind not in transformers.CONFIG_MAPPING:
        own = " but as code of its own, which is never run" if directory.config.get("auto_map") else ""
        problem = f"is a {kind!r}, which transformers {transformers.__version__} does not have{own}"
        raise CheckpointError(directory.name, problem, "a later transformers may have it")
    try:
        with compat.quiet():
            found: Any = transformers.AutoConfig.from_pretrained(
                directory.path, trust_remote_code=False, local_files_only=True
            )
    except Exception as error:  # transformers raises all kinds of it for what makes no model
        raise CheckpointError(directory.path / "config.json", said(error), "it may be damaged") from error
    return found


def _check_counts(directory: Directory) -> None:
    """Refuse counts that would take for ever to build, before transformers sees them."""
    parts: list[Any] = [directory.config]
    while parts:
        part = parts.pop()
        parts += part if isinstance(part, list) else []
        for name, value in part.items() if isinstance(part, dict) else ():
            parts.append(value)
            most = (len(directory.tensors) or DEEPEST) if name in _LAYERS else MOST
            if _COUNT.search(name) and isinstance(value, int) and value > most:
                what = "layers" if name in _LAYERS else f"as {name}"
                held = f" for {len(directory.tensors)} tensors" if directory.tensors else ""
                problem = f"describes {str(value)[:20]} {what}{held}"
                raise CheckpointError(directory.path / "config.json", problem, "it belongs to other weights")


def skeleton(directory: Directory, config: Any, dtype: str = "fp32") -> nn.Module:
    """Return the module without its weights, on torch's meta device.

    A configuration of far more parameters than the shards hold is refused.
    """
    stored = sum(math.prod(each.shape) for each in directory.tensors.values())
    try:
        with compat.quiet(), torch.device("meta"):
            module: nn.Module = _class(config).from_config(config, dtype=DTYPES[dtype], trust_remote_code=False)
    except Exception as error:
        problem = f"makes no model ({said(error)})"
        raise CheckpointError(directory.path / "config.json", problem, "it may be damaged") from error
    for name, header in directory.tensors.items():
        # as another dtype they would be read without their scales, and complex ones without their imaginary part;
        # attn.bias of four dimensions, which older GPTs hold, is a mask and no weight
        weight = name.endswith("weight") or (name.endswith("bias") and len(header.shape) < 4)
        if header.dtype not in FLOATS and (weight or header.dtype.startswith("C")):
            problem = f"has {name} as {header.dtype}"
            raise CheckpointError(directory.name, problem, "give weights that are real and not quantised")
    described, computed = (sum(each.numel() for each in part) for part in (module.parameters(), module.buffers()))
    # tables that are computed, of positions or masks, are as large as the configuration says
    if directory.tensors and (described > 1.5 * stored + 1e6 or computed > 1.5 * stored + 1e8):
        described += computed
        problem = f"describes {described:,} parameters, and the weights are {stored:,}"
        raise CheckpointError(directory.path / "config.json", problem, "it belongs to other weights")
    return module


def build(directory: Directory, config: Any, bare: nn.Module, dtype: str = "fp32") -> nn.Module:
    """Return the module with its weights, on the CPU, in evaluation mode; `bare` is its `skeleton`.

    Raises:
        CheckpointError: if the weights are not those of the configuration, or are not finite.
    """
    try:
        with compat.quiet():
            module, found = _class(config).from_pretrained(
                directory.path,
                config=config,
                dtype=DTYPES[dtype],
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:
        problem = f"its weights do not make a {config.model_type} ({said(error)})"
        raise CheckpointError(directory.name, problem, "it may be damaged") from error
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if names := sorted(map(str, found[what])):
            problem = f"its weights do not make a {config.model_type} ({what.replace('_', ' ')}: {names[0]})"
            raise CheckpointError(directory.name, problem, "it may be damaged, or of another architecture")
    for name, tensor in module.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(directory.name, f"has weights that are not finite, in {name}", "take an earlier one")
    if directory.config.get("tie_word_embeddings") is not False:  # as mT5 and MADLAD say of the projection
        # of the configuration: transformers unties weights that differ, with no more than a warning
        _check_ties(directory, getattr(bare, "all_tied_weights_keys", None) or {})
    found_module: nn.Module = module.eval()
    _check_routing(directory, found_module)
    return found_module


def _check_routing(directory: Directory, module: nn.Module) -> None:
    """Refuse NLLB's mixture where transformers takes the mask of its router for numbers of experts (5.24 does)."""
    found: Any = next((part for part in module.modules() if type(part).__name__ == "NllbMoeExperts"), None)
    if found is None or "router_mask" not in inspect.signature(found.forward).parameters:
        return
    weight, computed, last = next(found.parameters()), list[int](), found.num_experts - 1
    hooks = [
        found[f"expert_{n}"].register_forward_hook(lambda *_, n=n: computed.append(n)) for n in range(found.num_experts)
    ]
    chosen = nn.functional.one_hot(torch.tensor([last], device=weight.device), found.num_experts)
    with torch.no_grad():
        found(weight.new_zeros(1, weight.shape[1]), chosen, chosen.to(weight.dtype))
    for hook in hooks:
        hook.remove()
    if computed != [last]:
        problem = f"is a mixture whose tokens transformers {compat.load().__version__} sends to experts not chosen"
        raise CheckpointError(directory.name, problem, "take another version of transformers, or a dense model")


def _check_ties(directory: Directory, ties: Mapping[str, str]) -> None:
    """Refuse tied weights that the files hold several times with different values; `ties` is alias → name."""
    for name in {*ties.values()}:
        aliases = (alias for alias, other in ties.items() if other == name)
        stored = [each for each in (name, *aliases) if each in directory.tensors]
        for other in stored[1:]:
            if not torch.equal(directory.read(stored[0]), directory.read(other)):
                problem = f"gives {other} other values than {stored[0]}, to which it is tied"
                raise CheckpointError(directory.name, problem, "set tie_word_embeddings to false, or mend the weights")


def ghosts(module: nn.Module) -> frozenset[str]:
    """Return the names of position tables that are computed and not learned: loading makes some of them trainable."""
    return frozenset(
        f"{prefix}.{name}"
        for prefix, part in module.named_modules()
        if "Sinusoidal" in type(part).__name__
        for name, _ in part.named_parameters(recurse=False)
    )


def _class(config: Any) -> Any:
    transformers = compat.load()
    return transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
