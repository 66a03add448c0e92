"""fairseq-train as it runs on today's torch, in this process."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import NoReturn

from sensikit.backends.fairseq import compat
from sensikit.errors import OptionError


def train(arguments: Sequence[str]) -> None:
    """Run fairseq-train with `arguments` in this process.

    A run can be resumed, and no set loses its last batch, unless the arguments say otherwise.
    """
    compat.load()
    compat.allow_resuming()
    logging.getLogger("fairseq").setLevel(logging.NOTSET)
    from fairseq import checkpoint_utils, options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.distributed import utils as distributed
    from fairseq_cli import train as fairseq_train

    flag, value = compat.EVERY_SENTENCE
    given = [*arguments, *([] if flag in arguments else [flag, value])]
    for keeper in (checkpoint_utils.save_checkpoint, fairseq_train.should_stop_early, distributed.get_global_group):
        vars(keeper).clear()  # what an earlier run in this process left: its best loss, its patience, its processes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser = options.get_training_parser()
        parser.error = _refuse
        args = options.parse_args_and_arch(parser, given)
        args.tpu = "--tpu" in given  # fairseq takes --bf16 for a TPU's
        distributed.call_main(convert_namespace_to_omegaconf(args), fairseq_train.main)


def _refuse(problem: str) -> NoReturn:
    raise OptionError("fairseq-train", problem, "see fairseq-train --help")
