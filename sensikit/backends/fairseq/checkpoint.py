"""Reading a checkpoint that nobody vouches for: nothing in it runs, and damage is found before a weight is used.

The CRCs of the zip come first: `torch.load` checks none, and a flipped bit in a weight goes through it unseen. Then the
opcodes of its pickle (see `structure`), and only then torch's restricted unpickler, with one inert class allowed. Then
only dense tensors are taken, and plain values that are still to be validated. There is no other way in: no fallback, no
environment variable.
"""

from __future__ import annotations

import argparse
import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sensikit.backends.fairseq import structure
from sensikit.backends.fairseq.values import shown
from sensikit.errors import CheckpointError
from sensikit.files import sha256

PICKLE_LIMIT = 64 << 20
"""Bytes of structure (names, shapes, settings): 0.1 MB is usual. The unpickler builds objects from nothing else."""

ENTRY_LIMIT = 100_000
"""Tensors in one file."""

WRAPPED = re.compile(r"(?:^module|(?:^|(?<=\.))_(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module))\.")
"""What DistributedDataParallel, torch.compile, FSDP and checkpointing put into the names of what they wrap."""

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""Of weights: of any other, sensitivities would be those of something else, such as the real part alone."""

NAME = re.compile(r"[\w.-]{1,300}", re.ASCII)
"""Of a tensor."""

KINDS = "a checkpoint of fairseq-train, or the directory of a Hugging Face model"
AGAIN = "copy or download it again"
REMAKE = "save it with torch.save of torch 1.6 or later"


@dataclass(frozen=True)
class Checkpoint:
    """What was read: the weights, and the rest of the file as plain values that are still to be validated.

    `state` maps the names of the model's tensors to dense tensors in memory; tied ones share it. `content` is the top
    level of the file without them and without the optimizer's state. `bytes` is the size of the file. `wrapper` is
    what wrappers had put into the names of the tensors, and is left out of them.
    """

    path: Path
    sha256: str
    bytes: int
    state: dict[str, torch.Tensor]
    content: dict[str, Any]
    has_optimizer: bool
    wrapper: str = ""


def read(path: Path) -> Checkpoint:
    """Return the checkpoint at `path`.

    Raises:
        CheckpointError: if the file is missing, truncated, damaged, not a checkpoint, or would run code.
    """
    size = check_file(path)
    _check_zip(path, size)
    content = _load(path)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CheckpointError(path, "holds no 'model' with named tensors", f"give {KINDS}")
    wrapper, state = _unwrapped(path, _state(path, content["model"], size))
    optimizer = content.get("last_optimizer_state")
    if optimizer is not None and not isinstance(optimizer, dict):
        problem = f"has something other than the state of an optimizer in its place ({shown(optimizer)})"
        raise CheckpointError(path, problem, "do not use it")
    rest = {key: value for key, value in content.items() if key not in ("model", "last_optimizer_state")}
    return Checkpoint(path, sha256(path), size, state, rest, bool(optimizer), wrapper)


def check_file(path: Path) -> int:
    """Return the size of a file; refuse one that a glance shows to be no checkpoint."""
    if path.is_dir():
        raise CheckpointError(path, "is a directory", "give the file, often checkpoint_best.pt in it")
    try:
        found = path.stat()
        size = found.st_size
        if not stat.S_ISREG(found.st_mode):  # to open a pipe may be to wait for ever
            raise CheckpointError(path, "is not a regular file", "give a checkpoint file")
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError as error:
        raise CheckpointError(path, "does not exist", "check the path") from error
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        problem = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise CheckpointError(path, problem, "check its permissions") from error
    if size == 0:
        raise CheckpointError(path, "is empty", AGAIN)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise CheckpointError(path, "has the format of torch before 1.6, which cannot be checked for damage", REMAKE)
    if start != b"PK\x03\x04":
        raise CheckpointError(path, "is not a checkpoint (it is no zip archive)", f"give {KINDS}")
    return size


def _check_zip(path: Path, size: int) -> None:
    """Refuse an archive with a wrong checksum, one that would unpack to more than it holds, or one of odd structure."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            pickle = _check_entries(path, entries, size)
            broken = archive.testzip()
            content = b"" if broken else archive.read(pickle)
    except CheckpointError:
        raise
    except zipfile.BadZipFile as error:
        raise CheckpointError(path, f"is truncated or damaged ({error})", AGAIN) from error
    # a damaged directory of entries makes the reader fail in ways of its own
    except (OSError, RuntimeError, ValueError, EOFError, zlib.error, LookupError, MemoryError) as error:
        raise CheckpointError(path, f"is damaged ({type(error).__name__} in its archive)", AGAIN) from error
    if broken is not None:
        raise CheckpointError(path, f"is damaged (wrong checksum of {shown(broken)})", AGAIN)
    place = pickle.filename.removesuffix("data.pkl") + "data/"
    stored = {each.filename.removeprefix(place): each.file_size for each in entries if each.filename.startswith(place)}
    structure.check(path, content, stored)


def _check_entries(path: Path, entries: list[zipfile.ZipInfo], size: int) -> zipfile.ZipInfo:
    """Return the entry of the pickle."""
    names = [entry.filename for entry in entries]
    # of two entries with one name, the one that is checked need not be the one that is read
    if len(names) > ENTRY_LIMIT or len(set(names)) < len(names):
        raise CheckpointError(path, "has an archive that torch.save did not write", REMAKE)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(path, "holds compressed entries, which torch.save never writes", REMAKE)
    if sum(entry.file_size for entry in entries) > size:
        raise CheckpointError(path, "claims to hold more than its own size", "do not use it")
    pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1 or pickles[0].filename.count("/") != 1:
        raise CheckpointError(path, "is a zip archive but not a checkpoint (no data.pkl in it)", "check the path")
    if pickles[0].file_size > PICKLE_LIMIT:
        raise CheckpointError(path, f"has {pickles[0].file_size >> 20} MB of structure around its tensors", REMAKE)
    return pickles[0]


def _load(path: Path) -> Any:
    """Return the unpickled file; its tensors are maps of the file, not copies."""
    # argparse.Namespace has attributes and no code; nothing else that this process may have allowed is allowed here
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever kind of error a hostile or damaged pickle provokes
        problem = f"is not a readable checkpoint ({type(error).__name__})"
        remedy = "nothing of it was run; it must hold plain tensors and settings, as fairseq-train writes"
        raise CheckpointError(path, problem, remedy) from error
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def _state(path: Path, model: Mapping[Any, Any], size: int) -> dict[str, torch.Tensor]:
    """Return dense copies of the tensors, one for all those that are one in the file."""
    copies: dict[tuple[object, ...], torch.Tensor] = {}
    state: dict[str, torch.Tensor] = {}
    total = 0
    for name, tensor in model.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            problem = f"has something other than a tensor in its model ({shown(name)})"
            raise CheckpointError(path, problem, "do not use it")
        if not NAME.fullmatch(name):
            raise CheckpointError(path, f"has a tensor with the name {shown(name)}", "do not use it")
        if tensor.dtype not in FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(path, f"has {name} as {kind}", "give weights that are real floating-point numbers")
        if not tensor.is_contiguous() or tensor.is_neg():
            raise CheckpointError(path, f"has a tensor that is not dense ({name})", "save it as a plain tensor")
        identity = (tensor.data_ptr(), tuple(tensor.shape), tensor.dtype)
        if identity not in copies:
            total += tensor.numel() * tensor.element_size()
            if total > size:
                raise CheckpointError(path, "has tensors that overlap in memory", "save them as plain tensors")
            copies[identity] = tensor.detach().clone()
        state[name] = copies[identity]
    if not state:
        raise CheckpointError(path, "has an empty model", "give a checkpoint of fairseq-train")
    return state


def _unwrapped(path: Path, state: dict[str, torch.Tensor]) -> tuple[str, dict[str, torch.Tensor]]:
    """Return the words that wrappers put into names, and the tensors by their names without them."""
    if any(name.rsplit(".", 1)[-1].startswith(("flat_param", "_flat_param")) for name in state):
        problem = "is a part of a model whose weights FSDP made flat and spread over files (-shard0, -shard1, …)"
        remedy = "put them together first, with fairscale's consolidate_shard_weights"
        raise CheckpointError(path, problem, f"{remedy}, or save without --use-sharded-state")
    words: dict[str, None] = {}
    bare = {}
    for name, tensor in state.items():
        short = name
        while (shorter := WRAPPED.sub("", short)) != short:
            words |= dict.fromkeys(WRAPPED.findall(short))
            short = shorter
        bare[short] = tensor
    if len(bare) < len(state):
        problem = f"has a tensor twice, with and without {' '.join(words)} in its name"
        raise CheckpointError(path, problem, "take the wrapper's words from all names")
    return " ".join(words), bare


def namespace(value: Any) -> dict[str, Any]:
    """Return the attributes of a Namespace, or the items of a dict, that strings name; of anything else, nothing."""
    items = vars(value) if isinstance(value, argparse.Namespace) else value
    return {key: each for key, each in items.items() if isinstance(key, str)} if isinstance(items, dict) else {}
