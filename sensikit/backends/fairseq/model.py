"""From validated settings to fairseq's task and model, built from arguments of our own."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from sensikit.backends.fairseq import compat
from sensikit.backends.fairseq.checkpoint import Checkpoint
from sensikit.backends.fairseq.data import DataBin, lines
from sensikit.backends.fairseq.settings import ARCHITECTURES, OTHER_TASKS, Trained, check_shapes
from sensikit.errors import CheckpointError, DataError, OptionError

DIRECTIONS = ("xxx-eng", "eng-xxx")
_ENGLISH = re.compile(r"en|eng|en_XX|en_US|en_GB|eng_Latn")

Pair = tuple[str, str]


def english_of(pairs: Sequence[Pair]) -> str:
    """Return the language that all pairs have in common; where that leaves a choice, the one whose code is English's.

    Raises:
        OptionError: if no language is in all pairs and none has a code of English.
    """
    common = set.intersection(*({source, target} for source, target in pairs))
    if len(common) == 1:
        return common.pop()
    named = {code for pair in pairs for code in pair if _ENGLISH.fullmatch(code) and (not common or code in common)}
    if len(named) == 1:
        return named.pop()
    shown = ", ".join("-".join(pair) for pair in pairs[:4])
    raise OptionError("--direction", f"no language of the checkpoint's pairs ({shown}) is English", "none is possible")


def pairs_of(trained: Trained, direction: str | None) -> tuple[str, str, dict[str, Pair]]:
    """Return the direction, the code of English, and the pair of every training language of that direction.

    Args:
        trained: of the checkpoint.
        direction: "xxx-eng", "eng-xxx", or None for what the checkpoint was trained on (xxx-eng if both).

    Raises:
        OptionError: if the direction is unknown, or not one that the checkpoint was trained on.
    """
    if direction not in (None, *DIRECTIONS):
        raise OptionError("--direction", f"{direction!r} is unknown", "give xxx-eng or eng-xxx")
    english = english_of(trained.pairs)
    found: dict[str, dict[str, Pair]] = {
        "xxx-eng": {pair[0]: pair for pair in trained.pairs if pair[1] == english},
        "eng-xxx": {pair[1]: pair for pair in trained.pairs if pair[0] == english},
    }
    chosen = direction or next(each for each in DIRECTIONS if found[each])
    if not found[chosen]:
        other = next(each for each in DIRECTIONS if found[each])
        raise OptionError("--direction", f"the checkpoint was not trained on {chosen}", f"give {other}")
    return chosen, english, found[chosen]


def build_task(parts: SimpleNamespace, trained: Trained, pairs: Sequence[Pair], data: DataBin) -> Any:
    """Return fairseq's task for the pairs, with its dictionaries.

    Raises:
        DataError: if a dictionary is missing, damaged, or not the same for all languages of a side.
    """
    for language in sorted({language for pair in pairs for language in pair}):
        data.dictionary(language)
    args = Namespace(
        data=str(data.bin),
        source_lang=None,
        target_lang=None,
        lang_pairs=["-".join(pair) for pair in pairs],
        langs=list(_languages(trained, data)),
        lang_dict=None,
        source_dict=None,
        target_dict=None,
        fixed_dictionary=None,
        lang_tok_style=trained.tag_style,
        langtoks=None,
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
        dataset_impl=None,
        train_subset="train",
        load_alignments=False,
        enable_lang_ids=False,
        enable_reservsed_directions_shared_datasets=False,
        extra_data=None,
        extra_lang_pairs=None,
        keep_inference_langtok=False,
        sampling_method="concat",
        sampling_temperature=1.0,
        sampling_weights=None,
        sampling_weights_from_file=None,
        virtual_epoch_size=None,
        virtual_data_size=None,
        seed=1,
    )
    try:
        return parts.Task.setup_task(args)
    except (AssertionError, ValueError, OSError, RuntimeError) as error:
        problem = str(error) or "the languages' dictionaries differ"
        raise DataError(
            data.bin, f"its dictionaries do not belong together ({problem})", "binarise it again"
        ) from error


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
        detail = " ".join(str(error).split())[:200]
        raise CheckpointError(
            checkpoint.path, f"its tensors and settings do not make a {trained.arch} ({detail})", "it may be damaged"
        ) from error
    _check_held(checkpoint, state, module)
    compat.disable_fast_path(module)
    return module.float().eval()


def encoder_projection(trained: Trained, checkpoint: Checkpoint) -> torch.Tensor | None:
    """Return the projection (V, D) float32 that the encoder predicts through, or None where it is the decoder's.

    Raises:
        CheckpointError: if it is missing, of another shape than the decoder's, or not finite.
    """
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
        raise CheckpointError(
            checkpoint.path,
            f"has weights that are not finite, in {spoilt[0]}",
            "its training diverged; take an earlier one",
        )


def _check_held(checkpoint: Checkpoint, state: dict[str, torch.Tensor], module: nn.Module) -> None:
    """Refuse a checkpoint whose tied tensors differ: the last one would silently win."""
    for name, tensor in module.state_dict().items():
        if name in state and not torch.equal(tensor, state[name]):
            raise CheckpointError(
                checkpoint.path,
                f"gives {name} other values than the tensor it is tied to",
                "it was put together wrongly",
            )


def _check_vocabulary(checkpoint: Checkpoint, task: Any, data: DataBin) -> None:
    for side, dictionary in (("encoder", task.source_dictionary), ("decoder", task.target_dictionary)):
        weight = checkpoint.state.get(f"{side}.embed_tokens.weight")
        if weight is None or weight.dim() != 2:
            raise CheckpointError(checkpoint.path, f"has no {side}.embed_tokens.weight", "it is no transformer")
        if weight.shape[0] != len(dictionary):
            raise DataError(
                data.root,
                f"its dictionary has {len(dictionary)} entries with the language tags, the model {weight.shape[0]}",
                "give the data that the checkpoint was trained on",
            )


def pick_device(device: str) -> torch.device:
    """Return the device that is asked for; "auto" is the first GPU where there is one.

    Raises:
        OptionError: if it does not exist.
    """
    gpu = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda" if gpu else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise OptionError("--device", f"{device!r} is unknown", "give auto, cpu, cuda or cuda:N")
    if device.startswith("cuda") and (not gpu or (torch.device(device).index or 0) >= torch.cuda.device_count()):
        raise OptionError("--device", f"there is no {device} on this machine", "give --device cpu or auto")
    return torch.device(device)


def tags_of(parts: SimpleNamespace, task: Any) -> set[int]:
    """Return the indices of the symbols of the target dictionary that are no text: language tags and <mask>."""
    dictionary = task.target_dictionary
    args = task.args
    names = [
        parts.get_lang_tok(language, args.lang_tok_style, spec)
        for language in task.langs
        for spec in args.langtoks_specs
    ]
    found = {dictionary.index(name) for name in [*names, "<mask>"]}
    return found - {dictionary.unk()}


def detokenizer_of(path: Path, symbols: Sequence[str]) -> str | None:
    """Return how fairseq undoes the pieces of this vocabulary: "sentencepiece", "@@ " or None for whole words.

    Args:
        path: the dictionary, for the error.
        symbols: of the dictionary.

    Raises:
        DataError: if it has no symbols.
    """
    if not symbols:
        raise DataError(path, "is empty", "binarise the text again")
    if any(symbol.startswith("▁") for symbol in symbols):
        return "sentencepiece"
    return "@@ " if any(symbol.endswith("@@") for symbol in symbols) else None
