"""What a Hugging Face directory holds, found without running anything in it and without loading its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from sensikit.backends.base import HUB
from sensikit.backends.huggingface import compat
from sensikit.errors import CheckpointError, OptionError, said
from sensikit.files import read_json, sha256, sha256_of

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")
TEXTS = ("*.json", "*.model", "*.spm", "*.txt", "*.jinja")
"""Files beside the weights that decide numbers: the configuration and the tokenizer."""


class Header(NamedTuple):
    """What the head of a shard says of a tensor: dtype as safetensors writes it, shape, and the shard's name."""

    dtype: str
    shape: tuple[int, ...]
    shard: str


@dataclass(frozen=True)
class Directory:
    """A directory with config.json and weights as safetensors.

    `name` is what it was given as: a path, or the name of a model on the hub, of which `revision` is the commit.
    `shards` are in the order of their names, `tensors` by their names in them.
    """

    path: Path
    name: str
    revision: str | None
    config: Mapping[str, Any]
    shards: tuple[Path, ...]
    tensors: Mapping[str, Header] = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """One SHA-256 of the names and bytes of all files that decide a number: weights, configuration, tokenizer."""
        files = {*self.shards, *(path for pattern in TEXTS for path in self.path.glob(pattern) if path.is_file())}
        return sha256_of(*(f"{path.name}={sha256(path)}" for path in sorted(files)))

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor as it is stored."""
        with safe_open(self.path / self.tensors[name].shard, framework="pt") as file:
            found: torch.Tensor = file.get_tensor(name)
        return found

    @property
    def bytes(self) -> int:
        """The size of the weights on disk."""
        return sum(path.stat().st_size for path in self.shards)


def read_directory(name: str | Path, revision: str | None = None, weights: bool = True) -> Directory:
    """Return the directory `name`, or the snapshot of owner/model, from huggingface_hub's cache or else the hub.

    Without `weights`, there need be none, and none are fetched.

    Raises:
        CheckpointError: if it is neither, has no weights as safetensors, or is damaged.
        OptionError: for a revision of a directory.
    """
    path, commit = Path(name), None
    if path.is_dir():
        if revision:
            raise OptionError("--revision", f"{name} is a directory, which has none", "leave it out")
    else:
        path = _snapshot(str(name), revision, weights)
        commit = path.name
    for each in path.iterdir():
        if each.exists() and not (each.is_file() or each.is_dir()):  # to open a pipe may be to wait for ever
            raise CheckpointError(each, "is not a regular file", "take it away")
    if not (path / "config.json").exists():
        best = path / "checkpoint_best.pt"  # of what `sensikit train` wrote
        remedy = f"give {best if best.exists() else 'what save_pretrained wrote'}"
        raise CheckpointError(path, "is no directory of a Hugging Face model (it has no config.json)", remedy)
    config = read_json(path / "config.json", CheckpointError)
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise CheckpointError(path / "config.json", "names no model_type", "it is not of a Hugging Face model")
    if not weights:
        return Directory(path, str(name), commit, config, (), {})
    index = None if (path / WHOLE).exists() else _index(path)
    shards = tuple(path / file for file in sorted({*index.values()} if index else {WHOLE}))
    tensors = {entry: header for shard in shards for entry, header in _headers(shard)}
    for entry, file in (index or {}).items():
        if entry not in tensors or tensors[entry].shard != file:
            raise CheckpointError(path / file, f"lacks {entry}, which the index says it holds", "fetch it again")
    return Directory(path, str(name), commit, config, shards, tensors)


def _snapshot(name: str, revision: str | None, weights: bool) -> Path:
    """Return where the files of a model on the hub are, fetched if they are not in the cache."""
    if not HUB.fullmatch(name):
        remedy = "give a fairseq checkpoint, a directory, or owner/model of the hub"
        raise CheckpointError(name, "does not exist", remedy)
    hub, patterns = compat.installed("huggingface_hub"), [*["*.safetensors"] * weights, *TEXTS]
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError, RuntimeError) as error:  # huggingface_hub's own are of these
        problem = f"is no directory here, and the hub's model cannot be fetched ({said(error)})"
        raise CheckpointError(name, problem, "check the name, --revision and the network") from error


def _index(path: Path) -> dict[str, str]:
    """Return which shard holds which tensor."""
    if not (path / INDEX).exists():
        if any((path / each).exists() for each in PICKLES):
            problem = "has weights that only running code in them could open, and none as safetensors"
            remedy = "convert it where you trust it: AutoModel….from_pretrained(DIR).save_pretrained(NEW)"
            raise CheckpointError(path, problem, remedy)
        # of the hub, nothing but safetensors is fetched: the pickle of such a model is not seen here
        remedy = "fetch it, or convert what there is where you trust it: AutoModel….from_pretrained(MODEL)"
        raise CheckpointError(path, f"has no {WHOLE}", f"{remedy}.save_pretrained(NEW); merge an adapter first")
    named = read_json(path / INDEX, CheckpointError)
    files = named.get("weight_map") if isinstance(named, dict) else None
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise CheckpointError(path / INDEX, "has no weight_map", "it is damaged; fetch it again")
    for file in files.values():
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise CheckpointError(path / INDEX, f"names {file[:80]!r}, which is no shard beside it", "do not trust it")
    return files


def _headers(shard: Path) -> Iterator[tuple[str, Header]]:
    try:
        with safe_open(shard, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118  (no mapping)
                part = file.get_slice(name)
                yield name, Header(part.get_dtype(), tuple(part.get_shape()), shard.name)
    except FileNotFoundError as error:
        raise CheckpointError(shard, "does not exist", "a shard is missing; fetch it again") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(shard, f"is truncated or damaged ({error})", "fetch it again") from error
