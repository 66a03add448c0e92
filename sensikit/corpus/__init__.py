"""Parallel text made ready: read, cleaned, split without leaks, cut into pieces, binarised for fairseq."""

from sensikit.corpus.building import build

__all__ = ["build"]
