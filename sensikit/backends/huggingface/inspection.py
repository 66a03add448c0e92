"""What is inside a Hugging Face directory, found in its configuration and the heads of its shards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sensikit.backends.huggingface.directory import read_directory
from sensikit.backends.huggingface.model import FLOATS, configuration, ghosts, skeleton
from sensikit.backends.huggingface.tokens import Tokens, family_of, load_tokenizer
from sensikit.backends.inspection import Contents, counted
from sensikit.errors import CheckpointError
from sensikit.parameters import disk_per_group, memory_of, registry


def inspect(name: Path, revision: str | None = None) -> Contents:
    """Return what the directory `name`, or the hub's model of that name, holds; no weight is loaded."""
    directory = read_directory(name, revision)
    config = configuration(directory)
    module = skeleton(directory, config)
    unread = ghosts(module)
    parameters = registry(module, unread)
    layers = {
        side: len({each.layer for each in parameters if each.stack == side} - {None}) for side in ("encoder", "decoder")
    }
    total = sum(each.numel for each in parameters)
    vocabulary = next(each.shape[0] for each in parameters if each.component == "embedding")
    problem, tags = "", "none"
    try:
        tokenizer = load_tokenizer(directory, vocabulary)
        if config.is_encoder_decoder:
            family = family_of(directory, tokenizer)
            tags = f"{family}, {len(Tokens(tokenizer, family).tags)} languages"
    except CheckpointError as error:
        problem = f"{error.problem}; {error.remedy}"
    return Contents(
        path=str(name),
        sha256=directory.sha256,
        bytes=directory.bytes,
        problem=problem,
        task="translation" if config.is_encoder_decoder else "language modelling",
        arch=f"{type(module).__name__} ({config.model_type})",
        directions={},
        language_tags=tags,
        criterion="",
        updates=None,
        optimizer_state=None,
        layers=layers,
        vocabulary=vocabulary,
        dtypes=dict(Counter(FLOATS.get(header.dtype, header.dtype) for header in directory.tensors.values())),
        tensors=len(parameters),
        parameters=total,
        prunable=sum(each.numel for each in parameters if each.prunable),
        components=counted((f"{each.stack} {each.component}", each.numel) for each in parameters),
        tied=[[each.name, *each.aliases] for each in parameters if each.aliases],
        ghosts=sum(tensor.numel() for name, tensor in module.named_parameters() if name in unread),
        memory=memory_of(total),
        disk_per_group=disk_per_group(total),
    )
