"""A Hugging Face directory with text: which languages and pairs the two have in common, and the tasks on them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sensikit import sharding
from sensikit.backends.base import Provenance, Task, described
from sensikit.backends.huggingface import compat
from sensikit.backends.huggingface.data import TextData, open_text
from sensikit.backends.huggingface.directory import TEXTS, Directory, read_directory
from sensikit.backends.huggingface.model import FLOATS, build, configuration, ghosts, skeleton
from sensikit.backends.huggingface.prompts import check_prompt
from sensikit.backends.huggingface.tasks import EncoderDecoder, LanguageModelling, Opened, PromptedTranslation
from sensikit.backends.huggingface.tokens import Tokens, family_of, load_tokenizer
from sensikit.backends.manifest import group_of
from sensikit.errors import CheckpointError, DataError, OptionError
from sensikit.files import appearing, write_json
from sensikit.languages import ALONE, Pair, direction_of, keyed, select, standard
from sensikit.settings import Loading, Tiers

NOTE = "sensikit.json"
"""The file in which a directory says how it was pruned."""


class Selected(NamedTuple):
    """Pairs by the keys of their groups: as ISO 639-3 has their codes, and as the data spell them."""

    direction: str
    pairs: dict[str, Pair]
    spelled: dict[str, Pair]


class HuggingFaceModel:
    """A Hugging Face model with its data; see `sensikit.backends.base.Model`."""

    def __init__(self, opened: Opened, provenance: Provenance, tasks: Mapping[str, Task], notes: Sequence[str]) -> None:
        self.opened, self.provenance, self.notes = opened, provenance, notes
        self.module, self.device = opened.module, opened.device
        self.ghosts = ghosts(opened.module)
        self.training: Mapping[str, Any] = {}
        self.tasks = tuple(tasks)
        self._tasks = tasks

    def __repr__(self) -> str:
        return described(self)

    def task(self, name: str, seed: int = 1) -> Task:
        """Return one of the tasks; none of them draws any noise."""
        task = self._tasks[name]
        task.choices()  # a prompt that is needed and was not given is refused here
        return task

    def write_pruned(self, out: Path, masks: Mapping[str, torch.Tensor], note: str) -> int:
        """Write a directory with what `masks` say set to zero; see `sensikit.backends.base.Model`.

        Every other weight keeps its value, and its dtype where all have one: of several it is the widest. The
        configuration and the tokenizer are copied as they stand, and stock transformers loads it.

        Raises:
            CheckpointError: if the directory is not what it was.
        """
        source = self.opened.directory
        fresh = read_directory(source.path)
        if fresh.sha256 != self.provenance.checkpoint_sha256:
            raise CheckpointError(source.name, "is not what it was when it was opened", "analyze it again")
        stored = {FLOATS[header.dtype] for header in fresh.tensors.values() if header.dtype in FLOATS}
        widest = "fp64" if "fp64" in stored else "fp32"
        config = configuration(fresh)
        module: Any = build(fresh, config, skeleton(fresh, config), stored.pop() if len(stored) == 1 else widest)
        named = dict(module.named_parameters())
        with torch.no_grad():
            for parameter, mask in masks.items():
                named[parameter][mask] = 0
        with appearing(out) as partial:
            with compat.quiet():
                module.save_pretrained(partial)
            for file in (path for pattern in TEXTS for path in fresh.path.glob(pattern) if path.is_file()):
                if not file.name.endswith(".index.json"):
                    shutil.copyfile(file, partial / file.name)
            write_json(partial / NOTE, {"pruned": note})
        return sum(int(mask.sum()) for mask in masks.values())


def open_directory(
    name: str | Path,
    data: Path,
    direction: str | None = None,
    device: str = "auto",
    pairs: Sequence[str] | None = None,
    loading: Loading | None = None,
    tiers: Tiers | None = None,
    shard: int = 1,
) -> HuggingFaceModel:
    """Return the model of a directory, or of the hub, with text; nothing of its own code is run.

    An encoder-decoder translates ("mt"); a decoder language model models text by language ("lm"), and translates where
    it is asked to. Languages that the model has no tag for are left out and noted, unless they are asked for.

    What is given is as for `sensikit.backends.open_model`. The direction "xxx" is every language alone; on the device
    "meta" the model has no weights, and they need not be there. Of `shard` processes the first alone reads them.

    Raises:
        CheckpointError: if the directory cannot be read safely, or makes no model of a kind that is known here.
        DataError: if there is no text, or none in a language of the model.
        OptionError: if a pair, the device or the prompt does not fit.
        MissingDependencyError: if transformers is not installed.
    """
    loading, tiers = loading or Loading(), tiers or Tiers()
    weightless = device == "meta"
    where, text = sharding.pick_device("cpu" if weightless else device), open_text(Path(data))
    check_prompt(loading.prompt)
    directory = read_directory(name, loading.revision, weights=not weightless)
    config = configuration(directory)
    bare: Any = skeleton(directory, config, loading.dtype)
    tokenizer = load_tokenizer(directory, bare.get_input_embeddings().num_embeddings)
    causal = not config.is_encoder_decoder
    family = "plain" if causal else family_of(directory, tokenizer)
    tokens = Tokens(tokenizer, family, None if causal else _start(directory, config, bare))
    if loading.prompt and tokens.scheme.tag:
        raise OptionError("--prompt", f"is not for this model, which has tags of languages ({family})", "leave it out")
    notes = list(text.notes)
    languages = {standard(code): code for code in text.languages()} if causal else {}
    translates = direction != ALONE and not (causal and _no_pairs(text, direction, pairs))
    selected = _selected(text, tokens, direction, pairs, notes) if translates else None
    if not languages and selected is None:
        raise OptionError("--direction", "xxx is every language alone, and this model translates", "give xxx-LANG")
    tiers.check([*languages, *(selected.pairs if selected else ())])
    # the weights come last: they take longest
    module: Any = bare.eval()
    if shard > 1:
        mesh = sharding.joined(shard, where)
        first = mesh.get_local_rank() == 0
        module = sharding.shard(module, mesh, build(directory, config, bare, loading.dtype) if first else None)
    elif not weightless:
        module = build(directory, config, bare, loading.dtype).to(where)
    opened = Opened(directory, config, module, tokens, text, where, loading.prompt)
    tasks: dict[str, Task] = {}
    if languages:
        alone = {key: group_of(key, None, text.counts(code), text.manifest, tiers) for key, code in languages.items()}
        tasks["lm"] = LanguageModelling(opened, alone, ALONE, languages)
    if selected is not None:
        groups = {
            key: group_of(key, selected.pairs[key], text.counts(*pair), text.manifest, tiers)
            for key, pair in selected.spelled.items()
        }
        kind = PromptedTranslation if causal else EncoderDecoder
        tasks["mt"] = kind(opened, groups, selected.direction, selected.spelled)
    provenance = Provenance(
        framework=f"transformers ({type(module).__name__})",
        checkpoint=str(name),
        checkpoint_sha256=directory.sha256,
        data=str(data),
        # of a decoder all of it, for a run of languages is opened again without the pairs
        data_sha256=text.fingerprint(None if causal or selected is None else selected.spelled.values()),
        loading=loading.given() | ({"revision": directory.revision} if directory.revision else {}),
    )
    return HuggingFaceModel(opened, provenance, tasks, notes)


def _start(directory: Directory, config: Any, bare: Any) -> int:
    found = config.decoder_start_token_id
    found = config.bos_token_id if found is None else found
    if type(found) is not int or not 0 <= found < bare.get_input_embeddings().num_embeddings:
        problem = f"names {found!s:.20}, which is no token of its vocabulary, as what the decoder starts with"
        raise CheckpointError(directory.path / "config.json", problem, "mend decoder_start_token_id")
    return found


def _no_pairs(text: TextData, direction: str | None, pairs: Sequence[str] | None) -> bool:
    """Return whether a decoder language model has nothing to translate: no pair is asked for, and the text has none."""
    if direction or pairs:
        return False
    try:
        return not text.pairs()
    except (DataError, OptionError):
        return True


def _selected(
    text: TextData, tokens: Tokens, direction: str | None, asked: Sequence[str] | None, notes: list[str]
) -> Selected:
    """Return the pairs that are asked for, or else those of the data, between languages that the model has.

    What is asked for one by one must all be there. The direction finds the same pairs again: text that is parallel in
    all languages has more of them than were asked for.
    """
    view = asked is None and "xxx" in (direction or "").split("-")
    wanted = asked or ([direction] if direction else None)
    there = text.pairs(wanted)
    refused = {pair: error for pair in there if (error := _refused(tokens, pair))}
    known = [pair for pair in there if pair not in refused]
    if refused and (not known or (wanted and not view)):
        raise next(iter(refused.values()))
    if refused:
        lacking = sorted({error.where for error in refused.values()})
        notes.append(f"{', '.join(lacking)}: left out, no language of the model's tokenizer")
    by_code = {(standard(source), standard(target)): (source, target) for source, target in known}
    if len(by_code) < len(known):
        raise DataError(text.root, "has a pair of languages twice, under two spellings", "leave one of them out")
    chosen = list(by_code) if wanted else select(list(by_code))
    if view and direction:
        shown = "-".join(map(standard, direction.split("-")))
    else:
        shown = "+".join(map("-".join, chosen)) if wanted else direction_of(chosen, list(by_code))
    pairs = keyed(chosen)
    spelled = {key: by_code[pair] for key, pair in pairs.items()}
    tags = {each for pair in spelled.values() for each in zip(pair, tokens.tagged(pair), strict=True)}
    if renamed := sorted((code, tag) for code, tag in tags if code != tag):
        listed = ", ".join(f"{code} = {tag}" for code, tag in renamed)
        notes.append(f"languages of the data as the model spells them: {listed}")
    return Selected(shown, pairs, spelled)


def _refused(tokens: Tokens, pair: Pair) -> OptionError | None:
    try:
        tokens.tagged(pair)
    except OptionError as error:
        return error
    return None
