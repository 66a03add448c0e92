"""Random damage: a checkpoint is either refused, with one kind of error, or its weights are what they were."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
import torch

from sensikit.backends.fairseq.checkpoint import read
from sensikit.errors import CheckpointError
from tests.support.checkpoints import content_of

MUTATIONS = 300


def damaged(data: bytes, seed: int) -> bytes:
    """Return `data` truncated, with bits flipped, with a stretch zeroed, or with one copied over another."""
    generator = random.Random(seed)
    kind = seed % 4
    if kind == 0:
        return data[: generator.randrange(len(data))]
    copy = bytearray(data)
    if kind == 1:
        for _ in range(generator.choice((1, 1, 1, 8))):
            copy[generator.randrange(len(copy))] ^= 1 << generator.randrange(8)
    start, length = generator.randrange(len(copy)), generator.randrange(1, 4096)
    if kind == 2:
        copy[start : start + length] = bytes(len(copy[start : start + length]))
    if kind == 3:
        other = generator.randrange(len(copy) - length)
        copy[start : start + length] = copy[other : other + length][: len(copy[start : start + length])]
    return bytes(copy)


@pytest.fixture(scope="module")
def small(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "small.pt"
    torch.save(content_of(tiny_checkpoint), path)
    return path


def test_no_damage_goes_unseen(small: Path, tmp_path: Path) -> None:
    data, weights = small.read_bytes(), read(small).state
    path = tmp_path / "damaged.pt"
    lines: set[str] = set()
    harmless = 0
    for seed in range(MUTATIONS):
        path.write_bytes(damaged(data, seed))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = read(path).state
        except CheckpointError as error:
            lines.add(str(error).replace(str(path), "FILE"))
            continue
        assert found.keys() == weights.keys(), seed
        assert all(torch.equal(found[name], weights[name]) for name in weights), seed
        harmless += 1
    assert harmless < MUTATIONS // 2
    assert all(line.startswith("FILE: ") and "; " in line and "\n" not in line for line in lines)


def test_damage_to_the_directory_of_the_archive_goes_unseen_neither(small: Path, tmp_path: Path) -> None:
    """The directory is a small part of the file, where random damage seldom falls, and has the most to break."""
    data, weights = small.read_bytes(), read(small).state
    start = data.index(b"PK\x01\x02")
    path = tmp_path / "damaged.pt"
    for seed in range(MUTATIONS):
        generator = random.Random(seed)
        copy = bytearray(data)
        copy[generator.randrange(start, len(copy))] ^= 1 << generator.randrange(8)
        path.write_bytes(copy)
        try:
            found = read(path).state
        except CheckpointError:
            continue
        assert found.keys() == weights.keys(), seed
        assert all(torch.equal(found[name], weights[name]) for name in weights), seed
