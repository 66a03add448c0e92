"""A small model trained with plain fairseq-train, in a process of its own that shows how far it is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sensikit.errors import CheckpointError, RunError
from sensikit.progress import Bar, progress, say

ARCHITECTURE = (
    "--arch transformer --share-all-embeddings --encoder-normalize-before --decoder-normalize-before "
    "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 128 --decoder-embed-dim 128 "
    "--encoder-ffn-embed-dim 512 --decoder-ffn-embed-dim 512 --encoder-attention-heads 4 --decoder-attention-heads 4"
)
OPTIMISATION = (
    "--criterion label_smoothed_cross_entropy --label-smoothing 0.1 --dropout 0.2 --optimizer adam "
    "--adam-betas (0.9,0.98) --clip-norm 1 --lr 0.004 --lr-scheduler polynomial_decay --warmup-updates 150 "
    "--max-tokens 2048 --sampling-method temperature --sampling-temperature 1"
)
TAGS = "--lang-tok-replacing-bos-eos --encoder-langtok tgt --decoder-langtok"
"""The tag of the target language in place of </s>, at the end of the source and at the start of the decoder's input."""

LOG = "fairseq.log"
_STATISTICS = re.compile(r" \| (train_inner|valid) \| (\{.*\})$")
_PROGRAM = (
    # PR_SET_PDEATHSIG: however the demo ends, its training ends with it
    "import ctypes, signal; ctypes.CDLL(None).prctl(1, signal.SIGTERM); "
    "from sensikit.backends.fairseq.train import main; main()"
)


def flags(languages: Sequence[str], updates: int, seed: int) -> list[str]:
    """Return the flags of fairseq-train, but for the data and where to: all languages into English."""
    import torch

    texts = f"--task translation_multi_simple_epoch --langs {','.join(languages)},eng "
    texts += f"--lang-pairs {','.join(f'{code}-eng' for code in languages)} {TAGS} {ARCHITECTURE} {OPTIMISATION} "
    texts += f"--max-update {updates} --total-num-update {updates} --seed {seed} --no-epoch-checkpoints "
    texts += "--required-batch-size-multiple 1 --num-workers 0 --log-format json --log-interval 25"
    return [*texts.split(), *([] if torch.cuda.is_available() else ["--cpu"])]


def train(data: Path, out: Path, arguments: Sequence[str], updates: int) -> Path:
    """Train in `out`, or go on from the last whole checkpoint there; return the one with the lowest validation loss.

    Args:
        data: fairseq's data directory.
        out: for checkpoints and fairseq's log.
        arguments: flags of fairseq-train.
        updates: of the whole training.

    Raises:
        RunError: if fairseq fails.
    """
    from sensikit.backends.fairseq.compat import training_environment

    out.mkdir(parents=True, exist_ok=True)
    restored, begun = last_checkpoint(out)
    command = [sys.executable, "-c", _PROGRAM, str(data), *arguments, "--save-dir", str(out)]
    command += ["--restore-file", str(restored)] if restored else []
    with (
        (out / LOG).open("a", encoding="utf-8") as log,
        progress(updates - begun, "training", "updates") as bar,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=training_environment(),
        ) as process,
    ):
        try:
            last = follow(process.stdout or (), log.write, bar, begun)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise RunError(out / LOG, f"fairseq-train ended with code {process.returncode}: {last}", "see the log")
    return out / "checkpoint_best.pt"


def last_checkpoint(out: Path) -> tuple[Path | None, int]:
    """Return the checkpoint to go on from and its updates; none and 0 at the start.

    fairseq writes one file in one step and copies it to the other name: a kill may leave half a copy.
    """
    from sensikit.backends.fairseq.checkpoint import read

    for path in (out / "checkpoint_last.pt", out / "checkpoint_best.pt"):
        if path.exists():
            try:
                return path, int(read(path).content["optimizer_history"][-1]["num_updates"])
            except CheckpointError as error:
                say(f"{error}: trying the one before")
    return None, 0


def follow(lines: Iterable[str], keep: Callable[[str], object], bar: Bar, begun: int) -> str:
    """Keep fairseq's lines, show its updates and losses, and return its last line."""
    last, done = "", begun
    for line in lines:
        keep(line)
        last = line.strip() or last
        found = _STATISTICS.search(line.rstrip())
        if found is None:
            continue
        numbers = json.loads(found.group(2))
        if found.group(1) == "valid":
            say(f"update {numbers['valid_num_updates']}: validation loss {numbers['valid_loss']}")
        else:
            bar.advance(int(numbers["num_updates"]) - done)
            done = int(numbers["num_updates"])
    return last
