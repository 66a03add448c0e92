"""What an update of each method costs beside an update of Regular: `python -m tests.benchmarks.training [DATA]`.

CPU seconds of the trainer's whole step (forward, backward, clipping, Adam) on one thread, every method in turn on
updates of the same sentence pairs, each update several times, of which the least counts. Plain is fairseq-train without
sensikit: its own task, transformer and optimiser, of the same sizes, with batches of its own. DATA is what `sensikit
corpus` wrote; without it, a small synthetic corpus. ID's floor is K times Regular for the terms that it distils, here
K = 2.
"""

from __future__ import annotations

import itertools
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sensikit.backends.fairseq import compat
from tests.conftest import write_corpus
from tests.support import training_system

METHODS = ("regular", "id", "dae", "dae+mlm", "mass", "cd", "cd+id")
DESIGN = ("--arch", "sensikit_small", "--max-tokens", "4096", "--tokens-per-update", "4096")
UPDATES, ROUNDS = 5, 3
SIDES = ("encoder", "decoder")


def trainer_of(system: training_system.System) -> Any:
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.trainer import Trainer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hydra's, of its own age
        config = convert_namespace_to_omegaconf(system.task.args)
    return Trainer(config, system.task, system.model, system.criterion)


def tokens(sample: dict[str, Any]) -> np.ndarray:
    """Return the tokens of an update that sources hold, and those that translation predicts."""
    if "parts" not in sample:  # fairseq's own
        net = sample["net_input"]
        return np.array([int(net["src_lengths"].sum()), sample["ntokens"]])
    source = sum(part["source_tokens"] for part in sample["parts"])
    return np.array([source, sum(part["tokens"].get("translation", 0) for part in sample["parts"])])


def plain(system: training_system.System, count: int) -> tuple[Any, list[dict[str, Any]]]:
    """Return fairseq's own trainer of Regular, and updates that it cuts of the same data with as many tokens."""
    from fairseq import options, tasks

    ours = system.task.args
    flags = f"""{ours.data} --task translation_multi_simple_epoch --criterion label_smoothed_cross_entropy
        --label-smoothing {ours.label_smoothing} --lang-pairs {",".join(ours.lang_pairs)} --langs {",".join(ours.langs)}
        --encoder-langtok tgt --decoder-langtok --sampling-method temperature --sampling-temperature 1.4286
        --arch transformer --share-all-embeddings --optimizer adam --adam-betas {ours.adam_betas} --lr 3e-3
        --lr-scheduler inverse_sqrt --clip-norm {ours.clip_norm}
        --max-tokens 4096 --max-source-positions 512 --max-target-positions 512 --cpu"""
    sizes = ("layers", "embed_dim", "ffn_embed_dim", "attention_heads")
    given = [f"--{side}-{size.replace('_', '-')}={getattr(ours, f'{side}_{size}')}" for side in SIDES for size in sizes]
    given += [f"--dropout={ours.dropout}", *(f"--{side}-normalize-before" for side in SIDES)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args = options.parse_args_and_arch(options.get_training_parser(), [*flags.split(), *given])
        task = tasks.setup_task(args)
        model, criterion = task.build_model(args), task.build_criterion(args)
        task.load_dataset("train", epoch=1, combine=True)
        iterator = task.get_batch_iterator(task.dataset("train"), max_tokens=4096, max_positions=(512, 512), epoch=1)
        updates = list(itertools.islice(iterator.next_epoch_itr(shuffle=True), count))
    alike = training_system.System(task, model, criterion, None, 4096)
    return trainer_of(alike), [updates[number % len(updates)] for number in range(count)]  # a toy corpus has fewer


def steps(data: Path) -> None:
    """Print a line for each method: CPU seconds an update (median), the ratio to Regular, tokens an update."""
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING)  # where nobody has, hydra shows its debugging
    with compat.quiet():
        systems = {name: training_system.build(data, name, *DESIGN) for name in METHODS}
        trainers = {name: trainer_of(system) for name, system in systems.items()}
        samples = {name: drawn(system, UPDATES) for name, system in systems.items()}
        trainers["plain"], samples["plain"] = plain(systems["regular"], UPDATES)
        spent: dict[str, list[float]] = {name: [] for name in trainers}
        for number in range(UPDATES):
            rounds: dict[str, list[float]] = {name: [] for name in trainers}
            for name, trainer in list(trainers.items()) * ROUNDS:
                started = time.process_time()
                trainer.train_step([samples[name][number]])
                rounds[name].append(time.process_time() - started)
            for name, seconds in rounds.items():
                spent[name].append(min(seconds))
    print("method    s/update  times Regular  (of each update)  source tokens  target tokens of translation")
    sizes = {name: np.array([tokens(sample) for sample in of]) for name, of in samples.items()}
    # to one target token of translation: plain's updates are its own
    each = {name: np.array(seconds) / sizes[name][:, 1] for name, seconds in spent.items()}
    for name, seconds in spent.items():
        ratios = each[name] / each["regular"]
        ratio = sum(seconds) / sizes[name][:, 1].sum() / (sum(spent["regular"]) / sizes["regular"][:, 1].sum())
        source, target = sizes[name].mean(axis=0)
        spread = f"({ratios.min():.2f} to {ratios.max():.2f})"
        print(f"{name:9} {statistics.median(seconds):8.3f} {ratio:14.2f}  {spread:>16} {source:14.0f} {target:14.0f}")


def drawn(system: training_system.System, count: int) -> Sequence[dict[str, Any]]:
    """Return updates of the first epoch, the same for every method: they are cut alike whatever is added to them."""
    parts = system.data.updates(1, (512, 512), system.max_tokens)
    chosen = np.random.default_rng(0).permutation(len(parts))[:count]
    return [system.data.collater([system.data[part] for part in parts[number]]) for number in np.resize(chosen, count)]


def main(place: str | None = None) -> None:
    """Time on the data at a place, or on a small synthetic corpus."""
    if place:
        return steps(Path(place))
    with tempfile.TemporaryDirectory() as folder:
        return steps(write_corpus(Path(folder) / "data"))


if __name__ == "__main__":
    main(*sys.argv[1:])
