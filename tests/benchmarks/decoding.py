"""A whole sweep decoded by CTranslate2, and by the beam search of the model's own framework.

python -m tests.benchmarks.decoding RUN     such as demo/run; of copies
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sensikit.api import reopened
from sensikit.pruning.sweep import prune
from sensikit.run import Run
from sensikit.settings import Decoding, SweepSettings

RATIOS = (0, 0.2, 0.4, 0.6, 0.8)


def swept(path: Path, copy: Path, engine: str) -> tuple[float, float, pd.Series]:
    """Return the CPU seconds of the unpruned cells and of the others, and BLEU by ratio and group."""
    shutil.copytree(path, copy, ignore=shutil.ignore_patterns("pruning*"))
    settings, seconds = SweepSettings(metrics=("bleu",), tokenizer="13a", decoding=Decoding(engine=engine)), []
    for ratios in ([0], RATIOS):
        run = Run.open(copy)
        model = reopened(run, device="cpu")
        started = time.process_time()
        table = prune(run, model, ratios, settings=settings, resume=len(ratios) > 1)
        seconds.append(time.process_time() - started)
    return seconds[0], seconds[1], table.set_index(["ratio", "group"])["value"]


def main(path: Path) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        own, other = (swept(path, Path(folder) / engine, engine) for engine in ("own", "ctranslate2"))
    seconds = np.array([own[:2], other[:2]])
    (whole, pruned), (ours, theirs) = seconds[0] / seconds[1], seconds.sum(axis=1)
    print(f"a sweep of {len(RATIOS)} ratios: {theirs:.1f} CPU s with ctranslate2 against {ours:.1f}")
    print(f"    {ours / theirs:.2f} times as fast (unpruned {whole:.2f}, pruned {pruned:.2f})")
    print("    mean BLEU by ratio, and how much higher ctranslate2's is:")
    for ratio, higher in (other[2] - own[2]).groupby("ratio"):
        span = f"of a group {higher.min():+.3f} to {higher.max():+.3f}"
        print(f"    {ratio:g}: {own[2][ratio].mean():.2f} {higher.mean():+.3f} ({span})")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
