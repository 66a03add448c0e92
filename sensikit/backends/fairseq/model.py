"""From validated settings to fairseq's task and model, built from arguments of our own."""

from __future__ import annotations

import itertools
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from sensikit.backends.fairseq import compat
from sensikit.backends.fairseq.checkpoint import Checkpoint
from sensikit.backends.fairseq.data import DataBin
from sensikit.backends.fairseq.settings import ARCHITECTURES, OTHER_TASKS, Trained, check_shapes
from sensikit.errors import CheckpointError, DataError, OptionError
from sensikit.files import lines
from sensikit.languages import Group, Pair
from sensikit.settings import Tiers

_NOT_GIVEN = (
    "source_lang", "target_lang", "lang_dict", "source_dict", "target_dict", "fixed_dictionary", "langtoks",
    "dataset_impl", "extra_data", "extra_lang_pairs", "sampling_weights", "sampling_weights_from_file",
    "virtual_epoch_size", "virtual_data_size",
)  # fmt: skip
_OFF = (
    "load_alignments", "enable_lang_ids", "enable_reservsed_directions_shared_datasets", "keep_inference_langtok",
)  # fmt: skip
"""Settings that fairseq's task reads and that no checkpoint here has a say in."""


@dataclass(frozen=True)
class Opened:
    """A checkpoint with its data, as all of its tasks share it.

    `module` is in evaluation mode; `task` has the dictionaries; `parts` are those of `compat.load`; `pairs` and
    `groups` are by the key of the group, and `direction` is what they have in common. The encoder predicts through
    `projection`, (V, D), or where that is None through the decoder's.
    """

    module: Any
    task: Any
    parts: SimpleNamespace
    settings: Trained
    data: DataBin
    pairs: Mapping[str, Pair]
    groups: Mapping[str, Group]
    tiers: Tiers
    direction: str
    device: torch.device
    projection: torch.Tensor | None = None

    @property
    def limits(self) -> tuple[int, int]:
        """The most tokens of a source and of a target that the model has positions for."""
        source, target = self.module.max_positions()
        return int(source), int(target)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The losses that are known: that of the training run too, where the checkpoint names its criterion."""
        return ("nll", "train") if self.settings.criterion else ("nll",)

    def pair_of(self, group: str) -> Pair:
        """Return (source, target) of a group."""
        if group not in self.pairs:
            raise OptionError(group, "is no group of the checkpoint here", f"it has {', '.join(self.pairs)}")
        return self.pairs[group]

    def smoothing(self, kind: str, vocabulary: int) -> float:
        """Return torch's smoothing that is fairseq's ε over the other words: ε·V/(V-1), or 0 without."""
        if kind not in ("nll", "train"):
            raise OptionError("--loss", f"{kind!r} is unknown", "give nll or train")
        if kind == "train" and not self.settings.criterion:
            raise OptionError("--loss", "the criterion that the checkpoint was trained with is unknown", "give nll")
        smoothed = kind == "train" and self.settings.criterion != "cross_entropy"
        return self.settings.label_smoothing * vocabulary / (vocabulary - 1) if smoothed else 0.0


def build_task(parts: SimpleNamespace, trained: Trained, pairs: Sequence[Pair], data: DataBin) -> Any:
    """Return fairseq's task for the pairs, with its dictionaries, which all languages of a side have in common."""
    for language in sorted({language for pair in pairs for language in pair}):
        data.dictionary(language)
    args = Namespace(
        data=str(data.bin),
        lang_pairs=["-".join(pair) for pair in pairs],
        langs=list(_languages(trained, data)),
        lang_tok_style=trained.tag_style,
        langtoks_specs=list(trained.tag_specs),
        encoder_langtok=trained.encoder_tag or None,
        decoder_langtok=trained.decoder_tag,
        lang_tok_replacing_bos_eos=trained.tags_replace_eos,
        left_pad_source=str(trained.left_pad_source),
        left_pad_target="False",
        truncate_source=trained.truncate_source,
        max_source_positions=trained.model.get("max_source_positions", 1024),
        max_target_positions=trained.model.get("max_target_positions", 1024),
        upsample_primary=1,
        train_subset="train",
        sampling_method="concat",
        sampling_temperature=1.0,
        seed=1,
        **dict.fromkeys(_NOT_GIVEN),
        **dict.fromkeys(_OFF, False),
    )
    try:
        return parts.Task.setup_task(args)
    except (AssertionError, ValueError, OSError, RuntimeError) as error:
        problem = f"its dictionaries do not belong together ({str(error) or 'they differ between languages'})"
        raise DataError(data.bin, problem, "binarise it again") from error


def _languages(trained: Trained, data: DataBin) -> Sequence[str]:
    """Return all languages in the order of their tags in the dictionary."""
    if trained.langs:
        return trained.langs
    if trained.lang_dict:
        path = data.bin / trained.lang_dict
        if not path.is_file():
            raise DataError(path, "does not exist", "put the file that training had as --lang-dict there")
        return [line.strip() for line in lines(path) if line.strip()]
    return sorted({language for pair in trained.pairs for language in pair})


def build_model(trained: Trained, checkpoint: Checkpoint, task: Any, data: DataBin) -> nn.Module:
    """Return the model with the checkpoint's weights, in float32 and evaluation mode.

    Raises:
        DataError: if the dictionaries have another size than the model's vocabulary.
        CheckpointError: if the settings and the tensors do not make one model.
    """
    check_shapes(trained, checkpoint)
    _check_vocabulary(checkpoint, task, data)
    stored = compat.weights(checkpoint.state)
    state = {name: tensor.float() for name, tensor in stored.items() if name not in OTHER_TASKS}
    _check_finite(checkpoint, state)
    args = Namespace(arch=ARCHITECTURES[trained.arch], **trained.model)
    args.quant_noise_scalar = 0
    try:
        with compat.quiet():
            module: nn.Module = task.build_model(args)
        module.load_state_dict(compat.fitted(state, module), strict=True)
    except (AssertionError, ValueError, TypeError, RuntimeError, KeyError, ZeroDivisionError) as error:
        problem = f"its tensors and settings do not make a {trained.arch} ({' '.join(str(error).split())[:200]})"
        raise CheckpointError(checkpoint.path, problem, "it may be damaged") from error
    for name, tensor in module.state_dict().items():
        # of tied tensors that differ, the last one would silently win
        if name in state and not torch.equal(tensor, state[name]):
            problem = f"gives {name} other values than the tensor it is tied to"
            raise CheckpointError(checkpoint.path, problem, "it was put together wrongly")
    compat.disable_fast_path(module)
    return module.float().eval()


def encoder_projection(trained: Trained, checkpoint: Checkpoint) -> torch.Tensor | None:
    """Return the projection (V, D) float32 that the encoder predicts through, or None where it is the decoder's."""
    (name,) = OTHER_TASKS
    if not trained.training["separate_projection"]:
        return None
    own, shared = checkpoint.state.get(name), checkpoint.state.get("decoder.output_projection.weight")
    if own is None or shared is None or own.shape != shared.shape:
        problem = f"was trained with --separate-projection, but its {name} is not what belongs to it"
        raise CheckpointError(checkpoint.path, problem, "it may be damaged")
    _check_finite(checkpoint, {name: own})
    return own.float()


def _check_finite(checkpoint: Checkpoint, state: dict[str, torch.Tensor]) -> None:
    spoilt = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if spoilt:
        problem = f"has weights that are not finite, in {spoilt[0]}"
        raise CheckpointError(checkpoint.path, problem, "its training diverged; take an earlier one")


def _check_vocabulary(checkpoint: Checkpoint, task: Any, data: DataBin) -> None:
    for side, dictionary in (("encoder", task.source_dictionary), ("decoder", task.target_dictionary)):
        weight = checkpoint.state.get(f"{side}.embed_tokens.weight")
        if weight is None or weight.dim() != 2:
            raise CheckpointError(checkpoint.path, f"has no {side}.embed_tokens.weight", "it is no transformer")
        if weight.shape[0] != len(dictionary):
            counts = f"{len(dictionary)} entries with the language tags, the model {weight.shape[0]}"
            remedy = "give the data that the checkpoint was trained on"
            raise DataError(data.root, f"its dictionary has {counts}", remedy)


def tags_of(parts: SimpleNamespace, task: Any) -> set[int]:
    """Return the indices of the symbols of the target dictionary that are no text: language tags and <mask>."""
    dictionary, args = task.target_dictionary, task.args
    both = itertools.product(task.langs, args.langtoks_specs)
    names = [parts.get_lang_tok(language, args.lang_tok_style, spec) for language, spec in both]
    return {dictionary.index(name) for name in [*names, "<mask>"]} - {dictionary.unk()}


def detokenizer_of(path: Path, symbols: Sequence[str]) -> str | None:
    """Return how fairseq undoes the pieces of the dictionary at `path`: "sentencepiece", "@@ ", None of whole words."""
    if not symbols:
        raise DataError(path, "is empty", "binarise the text again")
    if any(symbol.startswith("▁") for symbol in symbols):
        return "sentencepiece"
    return "@@ " if any(symbol.endswith("@@") for symbol in symbols) else None
