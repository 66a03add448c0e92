"""A Hugging Face directory with text: which languages and pairs the two have in common, and the tasks on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sensikit.backends.base import Provenance, Task
from sensikit.backends.devices import pick_device
from sensikit.backends.huggingface.data import TextData, open_text
from sensikit.backends.huggingface.directory import read_directory
from sensikit.backends.huggingface.model import build, configuration, ghosts
from sensikit.backends.huggingface.tasks import (
    EncoderDecoder,
    LanguageModelling,
    Opened,
    PromptedTranslation,
    check_prompt,
)
from sensikit.backends.huggingface.tokens import SCHEMES, Tokens, family_of, load_tokenizer
from sensikit.backends.huggingface.writing import write_pruned
from sensikit.backends.manifest import described_languages, thresholds_of
from sensikit.errors import DataError, OptionError
from sensikit.languages import ALONE, Group, Pair, canonical, direction_of, grouped, keyed, select
from sensikit.settings import Loading


class HuggingFaceModel:
    """A Hugging Face model with its data; see `sensikit.backends.base.Model`."""

    def __init__(self, opened: Opened, provenance: Provenance, tasks: Mapping[str, Task], notes: Sequence[str]) -> None:
        self.opened, self.provenance, self.notes = opened, provenance, notes
        self.module, self.device = opened.module, opened.device
        self.ghosts = ghosts(opened.module)
        self.training: Mapping[str, Any] = {}
        self.tasks = tuple(tasks)
        self._tasks = tasks

    def task(self, name: str, seed: int = 1) -> Task:
        """Return one of the tasks; none of them draws any noise."""
        task = self._tasks[name]
        task.choices()  # a prompt that is needed and was not given is refused here
        return task

    def write_pruned(self, out: Path, masks: Mapping[str, torch.Tensor], note: str) -> int:
        """Write the directory with what `masks` say set to zero; see `sensikit.backends.huggingface.writing`."""
        return write_pruned(self.opened.directory, self.provenance.checkpoint_sha256, out, masks, note)


def open_directory(
    name: str | Path,
    data: Path,
    direction: str | None = None,
    device: str = "auto",
    pairs: Sequence[str] | None = None,
    loading: Loading | None = None,
) -> HuggingFaceModel:
    """Return the model of a directory, or of the hub, with text; nothing of its own code is run.

    An encoder-decoder translates ("mt"); a decoder language model models text by language ("lm"), and translates where
    it is asked to. Languages that the model has no tag for are left out and noted, unless they are asked for.

    Args:
        name: see `directory.read_directory`.
        data: a folder of text, see `data.open_text`.
        direction: see `sensikit.languages.select`; "xxx" is every language alone.
        device: "auto", "cpu", "cuda" or "cuda:N".
        pairs: see `sensikit.languages.select`.
        loading: how it is loaded.

    Raises:
        CheckpointError: if the directory cannot be read safely, or makes no model of a kind that is known here.
        DataError: if there is no text, or none in a language of the model.
        OptionError: if a pair, the device or the prompt does not fit.
        MissingDependencyError: if transformers is not installed.
    """
    loading = loading or Loading()
    where, text = pick_device(device), open_text(Path(data))
    check_prompt(loading.prompt)
    directory = read_directory(name, loading.revision)
    config = configuration(directory)
    module: Any = build(directory, config, loading.dtype)
    tokenizer = load_tokenizer(directory, module.get_input_embeddings().num_embeddings)
    causal = not config.is_encoder_decoder
    family = "plain" if causal else family_of(directory, tokenizer)
    if loading.prompt and SCHEMES[family].tag:
        raise OptionError("--prompt", f"is not for this model, which has tags of languages ({family})", "leave it out")
    tokens = Tokens(tokenizer, family, None if causal else _start(config))
    opened = Opened(directory, config, module.to(where), tokens, text, where, loading.prompt)
    notes = list(text.notes)
    tasks: dict[str, Task] = {}
    items: list[Pair | str] = []
    if causal:
        languages = {_key(code): code for code in text.languages()}
        groups = {key: _group(key, None, text.counts(code), text) for key, code in languages.items()}
        tasks["lm"] = LanguageModelling(opened, groups, ALONE, languages)
        items += languages.values()
    if direction != ALONE and not (causal and _no_pairs(text, direction, pairs)):
        translation = _translation(opened, direction, pairs, notes)
        tasks["mt"] = translation
        items += translation.pairs.values()
    if not tasks:
        raise OptionError("--direction", "xxx is every language alone, and this model translates", "give xxx-LANG")
    provenance = Provenance(
        framework=f"transformers ({type(module).__name__})",
        checkpoint=str(name),
        checkpoint_sha256=directory.sha256,
        data=str(data),
        data_sha256=text.fingerprint(items),
        loading=loading.given() | ({"revision": directory.revision} if directory.revision else {}),
    )
    return HuggingFaceModel(opened, provenance, tasks, notes)


def _start(config: Any) -> int | None:
    found = config.decoder_start_token_id
    return config.bos_token_id if found is None else int(found)


def _no_pairs(text: TextData, direction: str | None, pairs: Sequence[str] | None) -> bool:
    """Return whether a decoder language model has nothing to translate: no pair is asked for, and the text has none."""
    if direction or pairs:
        return False
    try:
        return not text.pairs()
    except (DataError, OptionError):
        return True


def _translation(
    opened: Opened, direction: str | None, asked: Sequence[str] | None, notes: list[str]
) -> EncoderDecoder | PromptedTranslation:
    """Return translation between the languages that the data and the model have in common."""
    text, tokens = opened.data, opened.tokens
    wanted = asked or ([direction] if direction else None)
    there = text.pairs(wanted)
    refused = {pair: error for pair in there if (error := _refused(tokens, pair))}
    known = [pair for pair in there if pair not in refused]
    explicit = asked is not None or (direction is not None and "xxx" not in direction.split("-"))
    if refused and (explicit or not known):
        raise next(iter(refused.values()))
    if refused:
        lacking = sorted({error.where for error in refused.values()})
        notes.append(f"{', '.join(lacking)}: left out, no language of the model's tokenizer")
    spelled = {(_key(source), _key(target)): (source, target) for source, target in known}
    if len(spelled) < len(known):
        raise DataError(text.root, "has a pair of languages twice, under two spellings", "leave one of them out")
    # what is asked for was found by any spelling
    chosen = keyed(list(spelled) if wanted else select(list(spelled)))
    pairs = {key: spelled[pair] for key, pair in chosen.items()}
    groups = {key: _group(key, chosen[key], text.counts(*pair), text) for key, pair in pairs.items()}
    spellings = {
        code: tag for pair in pairs.values() for code, tag in zip(pair, tokens.tagged(pair), strict=True) if code != tag
    }
    if spellings:
        shown = ", ".join(f"{code} = {tag}" for code, tag in sorted(spellings.items()))
        notes.append(f"languages of the data as the model spells them: {shown}")
    kind = PromptedTranslation if not opened.config.is_encoder_decoder else EncoderDecoder
    return kind(opened, groups, direction_of(list(chosen.values()), list(spelled)), pairs)


def _refused(tokens: Tokens, pair: Pair) -> OptionError | None:
    try:
        tokens.tagged(pair)
    except OptionError as error:
        return error
    return None


def _key(code: str) -> str:
    """Return what a language is called in keys and tables: ISO 639-3 where it is known."""
    return canonical(code) or code


def _group(key: str, pair: Pair | None, sizes: Mapping[str, int], text: TextData) -> Group:
    return grouped(key, pair, sizes, described_languages(text.manifest), thresholds_of(text.manifest))
