"""The task: fairseq's multilingual translation, with updates that also hold denoised monolingual text.

As `sensikit train` runs it, or by fairseq alone (SENSIKIT is where this package lies):

    fairseq-train DATA/bin --user-dir SENSIKIT/backends/fairseq/plugin --task sensikit --criterion sensikit …
        --lang-pairs cat-eng,nob-eng --langs cat,nob,eng --denoise cd --distill translation,encoder,decoder …
"""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import data_utils, iterators
from fairseq.data.multilingual.multilingual_utils import get_lang_tok
from fairseq.distributed import utils as distributed
from fairseq.optim.amp_optimizer import AMPOptimizer
from fairseq.tasks import register_task
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask
from fairseq_cli.train import should_stop_early

import sensikit.backends.fairseq.plugin.adam
import sensikit.backends.fairseq.plugin.criterion
import sensikit.backends.fairseq.plugin.model  # noqa: F401  all register themselves
from sensikit.backends.fairseq.compat import allow_resuming
from sensikit.backends.fairseq.plugin.log import Log
from sensikit.backends.fairseq.plugin.mixing import Mixture, Text, batches_of
from sensikit.backends.fairseq.plugin.watch import Watch
from sensikit.errors import DataError, OptionError
from sensikit.training.losses import TERMS, summed, weights
from sensikit.training.noise import MASK, OBJECTIVES, Vocabulary

allow_resuming()

_UNUSED = {
    "sampling_method": "concat",
    **dict.fromkeys(("sampling_weights", "sampling_weights_from_file", "extra_data", "extra_lang_pairs")),
    **dict.fromkeys(("virtual_epoch_size", "virtual_data_size")),
    **dict.fromkeys(("truncate_source", "load_alignments", "enable_lang_ids", "sentence_avg"), False),
}
"""Flags of fairseq with their defaults: every pair comes once an epoch (T = 1), as it is."""


@register_task("sensikit")
class LanguageAwareTask(TranslationMultiSimpleEpochTask):  # type: ignore[misc]
    """Multilingual translation with self-supervision; an update is one sample, and holds all of its parts.

    fairseq divides the gradient of an update by one number. To weigh each term by its own tokens, `train_step` must
    know the counts of the whole update before the first backward pass: so the batches of an update come as one sample
    (--tokens-per-update stands for --update-freq), and counts are summed over processes.
    """

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of the task."""
        TranslationMultiSimpleEpochTask.add_args(parser)
        add = parser.add_argument
        add("--denoise", default="", help="objectives on monolingual text, joined by commas: cd, dae, mlm, mass")
        add("--mask-ratio", type=float, help="share that is masked; by default 0.3, of MASS 0.5")
        add("--mono", default="both", choices=["bitext", "extra", "both"], help="sides of the bitext, DATA/mono, both")
        add("--mono-cap", type=int, default=3_000_000, help="sentences of a language that are taken from DATA/mono")
        add("--mono-temperature", type=float, default=10 / 7, help="T of the languages of monolingual text")
        add("--mono-share", type=float, default=0.5, help="of an update")
        add("--mix", default="sentences", choices=["sentences", "tokens"], help="what --mono-share counts")
        add("--tokens-per-update", type=int, help="of translation, padded, in all processes; else a batch in each")
        add("--dtype", default="fp32", choices=["fp32", "bf16"], help="bf16: autocast; weights and sums are fp32")
        tags = {"lang_tok_replacing_bos_eos": True, "encoder_langtok": "tgt", "decoder_langtok": True}
        parser.set_defaults(left_pad_source="False", **tags)

    def __init__(self, args: Namespace, langs: list[str], dicts: dict[str, Any], training: bool) -> None:
        super().__init__(args, langs, dicts, training)
        self.objectives = [name for name in args.denoise.split(",") if name]
        self.predicted = {side for name in self.objectives if name in OBJECTIVES for side in OBJECTIVES[name].sides}
        names = {lang: get_lang_tok(lang, args.lang_tok_style) for lang in langs}
        self.tags = {lang: self.source_dictionary.index(name) for lang, name in names.items()}
        self.vocabulary = Vocabulary.of(self.source_dictionary, list(names.values()))
        if training:
            self._check(args)
            if args.log_format == "json":
                Watch.begin()
            if args.log_format == "json" and not (torch.distributed.is_initialized() and torch.distributed.get_rank()):
                Log.attach(Path(args.save_dir), args.max_update)

    def _check(self, args: Namespace) -> None:
        """Refuse what would be wrong in silence."""
        unknown = [name for name in self.objectives if name not in OBJECTIVES]
        if unknown:
            raise OptionError("--denoise", f"{unknown[0]!r} is unknown", f"give some of {', '.join(OBJECTIVES)}")
        for name, usual in _UNUSED.items():
            if getattr(args, name, usual) != usual:
                raise OptionError(f"--{name.replace('_', '-')}", "has no effect here", "leave it out")
        if list(args.update_freq) != [1]:
            raise OptionError("--update-freq", "would weigh each of its batches alone", "give --tokens-per-update")
        if args.encoder_langtok != "tgt" or args.left_pad_source or not args.lang_tok_replacing_bos_eos:
            raise OptionError("--encoder-langtok", "the target's tag ends the source, padded right", "leave it out")
        if not 0 < args.mono_share < 1 or not 0 < (0.5 if args.mask_ratio is None else args.mask_ratio) <= 1:
            raise OptionError("--mono-share, --mask-ratio", "are shares", "give numbers between 0 and 1")
        if args.tokens_per_update and not (args.max_tokens and args.tokens_per_update > 0):
            raise OptionError("--tokens-per-update", "comes in batches of --max-tokens", "give both, above 0")
        if self.objectives and self.vocabulary.mask == self.source_dictionary.unk():
            problem = f"{MASK} is in no dictionary"
            raise DataError(args.data, problem, f"add the line '{MASK} 1' to every dict.LANG.txt in it")

    def get_checkpoint_dict(self) -> dict[str, Any]:
        """Return what fairseq forgets of early stopping: the best loss, and how often it was not beaten."""
        return {type(self).__name__: dict(vars(should_stop_early))}

    def set_checkpoint_dict(self, kept: dict[str, Any]) -> None:
        """Take up early stopping where the checkpoint left it."""
        vars(should_stop_early).update(kept)

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Load a split: as `Mixture` for training and validation, as fairseq has it for generation."""
        if not self.training:
            super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        elif split not in self.datasets:
            self.datasets[split] = self._mixture(split, combine)

    def _mixture(self, split: str, combine: bool) -> Mixture:
        args = self.args
        sides: dict[tuple[str, str], tuple[Any, Any]] = {}
        for pair in self.lang_pairs:
            source, target = pair.split("-")
            sides[source, target] = self._pair(split, source, target, combine)
        sources = Text([(self.tags[target], first) for (_, target), (first, _) in sides.items()])
        targets = Text([(self.tags[target], second) for (_, target), (_, second) in sides.items()])
        if split != args.train_subset or not self.objectives:
            return Mixture(sources, targets, self.vocabulary, args.seed)
        once = {tuple(sorted(pair)): (pair, texts) for pair, texts in sides.items()}.values()
        bitext = [each for pair, texts in once for each in zip(pair, texts, strict=True)]
        mono, pools = self._monolingual(bitext if args.mono != "extra" else [])
        default = {name: OBJECTIVES[name].ratio for name in self.objectives}
        ratios = default if args.mask_ratio is None else dict.fromkeys(default, args.mask_ratio)
        choices = args.mono_temperature, args.mono_share, args.mix
        return Mixture(sources, targets, self.vocabulary, args.seed, mono, pools, ratios, *choices)

    def _pair(self, split: str, source: str, target: str, combine: bool) -> tuple[Any, Any]:
        dictionary, longest = self.source_dictionary, self.args.max_source_positions
        where = (self.args.data, split, source, dictionary, target, dictionary, combine, self.args.dataset_impl)
        try:
            first, second, _ = self.data_manager.load_lang_dataset(*where, 1, longest)
        except FileNotFoundError as error:
            raise DataError(self.args.data, f"has no {split} set of {source}-{target}", "binarise it") from error
        return first, second

    def _monolingual(self, bitext: list[tuple[str, Any]]) -> tuple[Text, dict[str, np.ndarray]]:
        """Return monolingual text, English too, and the numbers of each language's sentences; files within the cap."""
        texts = [(lang, dataset, len(dataset)) for lang, dataset in bitext]
        for lang in self.langs if self.args.mono != "bitext" else ():
            prefix = str(Path(self.args.data, "mono", f"mono.{lang}"))
            if found := data_utils.load_indexed_dataset(prefix, self.source_dictionary, self.args.dataset_impl):
                texts.append((lang, found, min(len(found), self.args.mono_cap)))
        if not texts:
            raise DataError(f"{self.args.data}/mono", "has no monolingual text", "give --mono bitext")
        rng, start = np.random.default_rng(self.args.seed), 0
        pools: dict[str, np.ndarray] = {}
        for lang, dataset, most in texts:
            chosen = start + np.sort(rng.choice(len(dataset), most, replace=False))
            pools[lang] = np.append(pools.get(lang, chosen[:0]), chosen)
            start += len(dataset)
        return Text([(self.tags[lang], dataset) for lang, dataset, _ in texts]), pools

    def get_batch_iterator(
        self,
        dataset: Any,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        max_positions: Any = None,
        **options: Any,
    ) -> Any:
        """Return fairseq's iterator over updates, which is shuffled by seed and epoch and knows where it stopped."""
        options["required_batch_size_multiple"] = 1
        if not isinstance(dataset, Mixture):
            return super().get_batch_iterator(dataset, max_tokens, max_sentences, max_positions, **options)
        training, batches = dataset is self.datasets.get(self.args.train_subset), 1
        if training and self.args.tokens_per_update and max_tokens:
            processes = distributed.get_data_parallel_world_size()
            batches, max_tokens = batches_of(self.args.tokens_per_update, max_tokens, processes)
        how = max_positions, max_tokens, max_sentences, batches, training
        kept = ("seed", "num_shards", "shard_id", "num_workers", "epoch", "skip_remainder_batch", "grouped_shuffling")
        return iterators.EpochBatchIterator(
            dataset=dataset,
            collate_fn=dataset.collater,
            batch_sampler=lambda data, epoch: data.updates(epoch, *how),
            buffer_size=options.get("data_buffer_size", 0),
            **{name: options[name] for name in kept if name in options},
        )

    def train_step(
        self, sample: Any, model: Any, criterion: Any, optimizer: Any, update_num: int, ignore_grad: bool = False
    ) -> tuple[Any, float, dict[str, Any]]:
        """Compute and add up the gradients of all parts of an update; return its loss, sample size and log."""
        if not model.training:  # fairseq's trainer has seen to it
            model.train()
        model.set_num_updates(update_num)
        counts = dict.fromkeys((*TERMS, "targets"), 0) | summed(part["tokens"] for part in sample["parts"])
        own = counts = {name: 0 if ignore_grad else count for name, count in counts.items()}
        if distributed.get_data_parallel_world_size() > 1:
            device = next(model.parameters()).device
            reduced = distributed.all_reduce_dict(counts, device, distributed.get_data_parallel_group())
            counts = {name: int(count) for name, count in reduced.items()}
        how = str(criterion.cfg.loss_weights)
        factors, _ = weights(counts, how)
        logs = []
        half = self.args.dtype == "bf16"
        device = next(model.parameters()).device.type if half else "cuda"
        autocast = torch.autocast(
            device, torch.bfloat16 if half else None, enabled=half or isinstance(optimizer, AMPOptimizer)
        )
        for number, part in enumerate(sample["parts"], start=1):
            last = number == len(sample["parts"])
            wait = contextlib.nullcontext() if last or not hasattr(model, "no_sync") else model.no_sync()
            with wait:
                with autocast:
                    loss, log = criterion.part(model, part, factors, update_num)
                optimizer.backward(loss * 0 if ignore_grad else loss)
            logs.append(log)
        log = {**summed(logs), "sample_size": weights(own, how)[1]}
        return log["loss"], log["sample_size"], log
