"""What a fairseq checkpoint says of itself, validated: enough to build its task and model from arguments of our own.

fairseq eval()s strings of a checkpoint's configuration (`left_pad_source`, `adam_betas`, …), so the configuration must
never reach fairseq. What is taken here is numbers within bounds, flags, known words and language codes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sensikit.backends.fairseq.checkpoint import Checkpoint, namespace
from sensikit.backends.fairseq.values import Settings
from sensikit.errors import CheckpointError
from sensikit.training.losses import TERMS
from sensikit.training.noise import OBJECTIVES
from sensikit.training.recipes import METHODS, Method

REGULAR: dict[str, Any] = {
    "method": "regular", "denoise": None, "distill": None, "mask_ratio": None, "id_k": None, "id_alpha": None,
    "id_passes": None, "id_weights": None, "loss_weights": None, "separate_projection": None, "dtype": None,
}  # fmt: skip
"""Translation alone; what has no effect there is None."""


def training_of(task: Settings, criterion: Settings, updates: int | None) -> dict[str, Any]:
    """Return `updates` and the fields of `REGULAR`: the method and what it was trained with.

    `method` is a name of `recipes.METHODS`, or None for another combination; `denoise` and `distill` are its parts,
    joined by commas as --denoise and --distill take them. A task that is not the training plugin's is a regular one.
    """
    if task.values.get("_name", task.values.get("task")) != "sensikit":
        return {"updates": updates, **REGULAR}
    denoise = _names(task, "denoise", OBJECTIVES)
    distill = _names(criterion, "distill", TERMS)
    found: dict[str, Any] = {"method": _method(denoise, distill)}
    if task.choice("dtype", ("fp32", "bf16"), "fp32") != "fp32":
        found["dtype"] = "bf16"
    if denoise:
        found |= {"denoise": ",".join(denoise), "mask_ratio": _ratio(task, denoise)}
        found["separate_projection"] = task.flag("separate_projection")
        found["loss_weights"] = criterion.choice("loss_weights", ("own", "released"), "own")
    if distill:
        found |= {"distill": ",".join(distill), "id_k": criterion.integer("id_k", 2, 1000, 2)}
        found["id_alpha"] = criterion.number("id_alpha", 0, 1e9, 5.0)
        found["id_passes"] = criterion.choice("id_passes", ("full", "shared-encoder"), "full")
        found["id_weights"] = criterion.choice("id_weights", ("equation", "halved"), "equation")
    return {"updates": updates, **REGULAR, **found}


def _names(settings: Settings, name: str, known: Collection[str]) -> tuple[str, ...]:
    value = settings.values.get(name) or ""
    names = tuple(part for part in value.split(",") if part) if type(value) is str else ("?",)
    if not set(names) <= set(known):
        raise settings.refusal(name, "some of " + ", ".join(known))
    return names


def _method(denoise: tuple[str, ...], distill: tuple[str, ...]) -> str | None:
    """Return the first name of these parts, in whatever order they were given."""

    def parts(method: Method) -> tuple[set[str], set[str]]:
        return set(method.denoise), set(method.distill)

    wanted = parts(Method(denoise, distill))
    return next((name for name, method in METHODS.items() if parts(method) == wanted), None)


def _ratio(task: Settings, denoise: tuple[str, ...]) -> float | None:
    """Return the share that was masked; None where objectives have defaults of their own."""
    usual = {OBJECTIVES[name].ratio for name in denoise}
    if "mask_ratio" in task:
        return task.number("mask_ratio", 0, 1)
    return usual.pop() if len(usual) == 1 else None


TASKS = frozenset({"translation_multi_simple_epoch", "sensikit"})
"""Tasks whose checkpoints are read: fairseq's translation_multi_simple_epoch, and what is derived from it."""

_FAIRSEQ = (
    "transformer", "transformer_tiny", "transformer_iwslt_de_en", "transformer_wmt_en_de", "transformer_wmt_en_de_big",
    "transformer_wmt_en_de_big_t2t", "transformer_vaswani_wmt_en_de_big", "transformer_vaswani_wmt_en_fr_big",
)  # fmt: skip
_SENSIKIT = ("transformer", "tiny", "small", "base", "big", "big12")
ARCHITECTURES = {name: name for name in _FAIRSEQ} | {f"sensikit_{name}": "transformer" for name in _SENSIKIT}
"""Architectures that are read, and the one of fairseq's that translates as they do."""

OTHER_TASKS = frozenset({"encoder_projection.weight"})
"""The one tensor of the training plugin that translation never reads: what the encoder may predict through."""

MONO = ("bitext", "extra", "both")
"""What the training plugin takes for monolingual text: the sides of the bitext, files of their own, both."""

CRITERIA = frozenset({"cross_entropy", "label_smoothed_cross_entropy", "sensikit"})
"""Criteria whose loss of translation `kind="train"` computes: without label smoothing, or with it."""

ACTIVATIONS = frozenset({"relu", "gelu", "gelu_accurate", "gelu_fast", "tanh", "linear", "relu_squared", "swish"})
STYLES = frozenset({"multilingual", "mbart"})
SPECS = frozenset({"main", "dae", "mono_dae", "mined"})

WIDEST, DEEPEST, LONGEST = 65536, 1000, 100_000
_INTEGERS = {
    **{f"{side}_{name}": WIDEST for side in ("encoder", "decoder") for name in ("embed_dim", "ffn_embed_dim")},
    **{f"{side}_{name}": DEEPEST for side in ("encoder", "decoder") for name in ("layers", "attention_heads")},
    "decoder_input_dim": WIDEST,
    "decoder_output_dim": WIDEST,
    "max_source_positions": LONGEST,
    "max_target_positions": LONGEST,
}
_SHARES = (
    "dropout", "attention_dropout", "activation_dropout", "relu_dropout", "encoder_layerdrop", "decoder_layerdrop",
)  # fmt: skip
_FLAGS = (
    "encoder_normalize_before", "decoder_normalize_before", "encoder_learned_pos", "decoder_learned_pos",
    "share_all_embeddings", "share_decoder_input_output_embed", "no_token_positional_embeddings",
    "layernorm_embedding", "no_scale_embedding", "no_cross_attention", "cross_self_attention", "no_decoder_final_norm",
)  # fmt: skip
_UNSUPPORTED = {
    "adaptive_softmax_cutoff": "adaptive softmax is not supported",
    "adaptive_input": "adaptive input is not supported",
    "merge_src_tgt_embed": "merged embeddings are not supported",
    **dict.fromkeys(("quant_noise_pq", "quant_noise_scalar"), "quantisation noise is not supported"),
    "encoder_layers_to_keep": "layers left out at loading are not supported",
    "decoder_layers_to_keep": "layers left out at loading are not supported",
    "base_layers": "BASE layers are not supported",
    "char_inputs": "character inputs are not supported",
    "xformers_att_config": "xformers attention is not supported",
    "left_pad_target": "fairseq's language tags need the target padded on the right",
    "enable_lang_ids": "the transformer takes no language ids",
}


@dataclass(frozen=True)
class Trained:
    """How the model was trained and built; every value is plain and within bounds.

    `pairs` are (source, target); `langs` is in the order of the tags that fairseq appends to the dictionary;
    `encoder_tag` is "src", "tgt" or "", and `decoder_tag` whether the decoder gets the tag of the target language; with
    `tags_replace_eos` the tags replace </s> instead of standing beside it. `lang_dict` is the name of a file that holds
    `langs` where they are not in the checkpoint. `model` holds the arguments of the architecture that are given.
    `training` tells which of the paper's systems it is, and `mono` (one of `MONO`) what it learned to denoise on.
    """

    task: str
    arch: str
    pairs: tuple[tuple[str, str], ...]
    langs: tuple[str, ...]
    lang_dict: str
    encoder_tag: str
    decoder_tag: bool
    tags_replace_eos: bool
    tag_style: str
    tag_specs: tuple[str, ...]
    left_pad_source: bool
    truncate_source: bool
    model: Mapping[str, bool | int | float | str]
    criterion: str
    label_smoothing: float
    ignored_prefix: int
    updates: int | None
    training: Mapping[str, Any]
    mono: str


def trained(checkpoint: Checkpoint) -> Trained:
    """Return the validated settings of `checkpoint`: of a known task and architecture, each within its bounds."""
    config = namespace(checkpoint.content.get("cfg"))
    flat = namespace(checkpoint.content.get("args"))  # fairseq before 0.10
    task = {**flat, **namespace(config.get("model")), **namespace(config.get("task"))}
    model = {**flat, **namespace(config.get("task")), **namespace(config.get("model"))}
    if not task:
        raise CheckpointError(checkpoint.path, "holds no settings of its task and model", "give one of fairseq-train")
    criterion = {**flat, **namespace(config.get("criterion"))}
    return _trained(checkpoint, *(Settings(checkpoint.path, each) for each in (task, model, criterion)))


def _trained(checkpoint: Checkpoint, task: Settings, model: Settings, losses: Settings) -> Trained:
    encoder_tag, decoder_tag = _tags(task)
    for name, why in _UNSUPPORTED.items():
        settings = task if name in ("left_pad_target", "enable_lang_ids") else model
        if not _is_off(settings.values.get(name)):
            raise settings.refusal(name, f"it off: {why}")
    pairs = task.pairs("lang_pairs")
    if not pairs:
        raise CheckpointError(checkpoint.path, "names no language pairs", "give one of " + ", ".join(TASKS))
    name = "_name" if "_name" in losses else "criterion"
    updates = _updates(checkpoint)
    training = training_of(task, losses, updates)
    return Trained(
        task=_known(task, ("_name", "task"), TASKS, "translation_multi_simple_epoch"),
        arch=_known(model, ("arch", "_name"), ARCHITECTURES, "an architecture of the transformer family"),
        pairs=pairs,
        langs=task.codes("langs"),
        lang_dict=_file_name(task),
        encoder_tag=encoder_tag,
        decoder_tag=decoder_tag,
        tags_replace_eos=task.flag("lang_tok_replacing_bos_eos"),
        tag_style=task.choice("lang_tok_style", STYLES, "multilingual"),
        tag_specs=_specs(task),
        left_pad_source=task.flag("left_pad_source", True),
        truncate_source=task.flag("truncate_source"),
        model=_model(model),
        criterion=next((known for known in CRITERIA if losses.values.get(name) == known), ""),
        label_smoothing=losses.number("label_smoothing", 0.0, 0.999),
        ignored_prefix=losses.integer("ignore_prefix_size", 0, 10),
        updates=updates,
        training=training,
        mono=task.choice("mono", MONO, "both") if training["denoise"] else "",
    )


def _is_off(value: Any) -> bool:
    return value is None or (type(value) in (bool, int, float, str, list) and (not value or value == "False"))


def _known(settings: Settings, names: tuple[str, ...], known: Collection[str], expected: str) -> str:
    """Return the first of the settings `names` that is set, if it is one of the known words."""
    name = next((name for name in names if name in settings), names[0])
    value = settings.values.get(name)
    if type(value) is not str or value not in known:
        raise settings.refusal(name, expected)
    return value


def _tags(task: Settings) -> tuple[str, bool]:
    """Return which tag the encoder gets ("src", "tgt" or "") and whether the decoder gets one."""
    tables = task.values.get("langtoks")
    main = tables.get("main") if isinstance(tables, dict) else None
    if main is None:
        return task.choice("encoder_langtok", ("src", "tgt")), task.flag("decoder_langtok")
    if isinstance(main, list | tuple) and len(main) == 2 and all(type(each) in (str, type(None)) for each in main):
        encoder, decoder = main[0] or "", main[1] or ""
        if encoder in ("", "src", "tgt") and decoder in ("", "tgt"):
            return encoder, decoder == "tgt"
    raise task.refusal("langtoks", "src, tgt or none for the encoder, tgt or none for the decoder")


def _specs(task: Settings) -> tuple[str, ...]:
    specs = task.codes("langtoks_specs") or ("main",)
    if not set(specs) <= SPECS:
        raise task.refusal("langtoks_specs", "some of " + ", ".join(sorted(SPECS)))
    return specs


def _file_name(task: Settings) -> str:
    """Return the last part of the path --lang-dict, harmless as a name within the data directory, or nothing."""
    value = task.values.get("lang_dict")
    if value is None:
        return ""
    name = value.rsplit("/", 1)[-1] if type(value) is str else ""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}", name):
        raise task.refusal("lang_dict", "the path of a file")
    return name


def _model(model: Settings) -> dict[str, bool | int | float | str]:
    """Return the arguments of the architecture that are set, each within its bounds."""
    found: dict[str, bool | int | float | str] = {}
    found |= {name: model.integer(name, 0, high) for name, high in _INTEGERS.items() if name in model}
    found |= {name: model.number(name, 0, 1) for name in _SHARES if name in model}
    found |= {name: model.flag(name) for name in _FLAGS if name in model}
    if "activation_fn" in model:
        found["activation_fn"] = model.choice("activation_fn", ACTIVATIONS)
    return found


def _updates(checkpoint: Checkpoint) -> int | None:
    history = checkpoint.content.get("optimizer_history")
    last = history[-1] if isinstance(history, list) and history else None
    count = last.get("num_updates") if isinstance(last, dict) else None
    return count if type(count) is int and 0 <= count < 1 << 40 else None


def ties_of(found: Trained) -> tuple[str, ...]:
    """Return the names of the tensors that these settings make one."""
    projections = ("decoder.embed_tokens.weight", "decoder.output_projection.weight")
    if found.model.get("share_all_embeddings"):
        return ("encoder.embed_tokens.weight", *projections)
    return projections if found.model.get("share_decoder_input_output_embed") else ()


def check_shapes(found: Trained, checkpoint: Checkpoint) -> None:
    """Refuse settings that contradict the tensors, before a model of their size is built."""
    state, path = checkpoint.state, checkpoint.path
    sizes = {"decoder_output_dim": _width(state, "decoder.output_projection.weight")}
    for side in ("encoder", "decoder"):
        stem = f"{side}.layers."
        sizes[f"{side}_layers"] = len({name[len(stem) :].split(".")[0] for name in state if name.startswith(stem)})
        sizes[f"{side}_embed_dim"] = _width(state, f"{side}.embed_tokens.weight")
        sizes[f"{side}_ffn_embed_dim"] = _width(state, f"{side}.layers.0.fc2.weight")
        width, heads = found.model.get(f"{side}_embed_dim"), found.model.get(f"{side}_attention_heads")
        if isinstance(width, int) and isinstance(heads, int) and (heads == 0 or width % heads):
            raise CheckpointError(path, f"has {heads} attention heads for width {width}", "its settings are damaged")
    for name, size in sizes.items():
        claimed = found.model.get(name)
        if claimed is not None and size is not None and claimed != size:
            problem = f"says {name} = {claimed} but its tensors have {size}"
            raise CheckpointError(path, problem, "it was put together wrongly")


def _width(state: Mapping[str, torch.Tensor], name: str) -> int | None:
    tensor = state.get(name)
    return tensor.shape[-1] if tensor is not None and tensor.dim() == 2 else None
