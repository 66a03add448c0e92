"""fairseq-train as it runs on today's torch: `python -m sensikit.backends.fairseq_train DATA [any of its flags]`.

Start it with `fairseq_compat.training_environment()`: how threads wait is decided when torch is loaded.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence

from sensikit.backends import fairseq_compat


def train(arguments: Sequence[str]) -> None:
    """Run fairseq-train with `arguments` in this process.

    A run can be resumed, and no set loses its last batch, unless the arguments say otherwise.
    """
    fairseq_compat.load()
    fairseq_compat.allow_resuming()
    logging.getLogger("fairseq").setLevel(logging.INFO)
    from fairseq_cli import train as fairseq_train

    before = sys.argv
    flag, value = fairseq_compat.EVERY_SENTENCE
    sys.argv = ["fairseq-train", *arguments, *([] if flag in arguments else [flag, value])]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fairseq_train.cli_main()
    finally:
        sys.argv = before


def main() -> None:
    """Run the command line."""
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(name)s | %(message)s", datefmt="%Y-%m-%d %H:%M:%S", level=logging.INFO
    )
    train(sys.argv[1:])


if __name__ == "__main__":
    main()
