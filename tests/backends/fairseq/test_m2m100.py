"""What is exported for transformers, loaded by stock code, is the model that was trained, and cuts text as it does."""

from __future__ import annotations

import copy
import io
import json
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from sensikit.backends import open_model
from sensikit.backends.base import translation_of
from sensikit.backends.fairseq import compat
from sensikit.backends.fairseq.opening import FairseqModel
from sensikit.corpus.binarising import Binariser
from sensikit.corpus.building import build
from sensikit.errors import OptionError, SensikitError
from sensikit.parameters import registry
from sensikit.pruning.export import convert
from sensikit.pruning.masks import Order, prunable_of, pruned, pruning_plan
from sensikit.run import Run
from sensikit.settings import Decoding
from tests.conftest import sentences
from tests.support import toy, training_run
from tests.support.checkpoints import edited, translation
from tests.support.command import call

transformers = pytest.importorskip("transformers")

SHARED = "encoder.embed_tokens.weight"
FLAGS = "--lr 0.01 --warmup-updates 20 --max-tokens 1500 --tokens-per-update 1500 --disable-validation --dropout 0"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `sensikit corpus` makes of two made-up languages."""
    root = tmp_path_factory.mktemp("m2m100")
    sources = [root / "cat.tsv", root / "nob.tsv"]
    for source in sources:
        pairs = sentences(source.stem, 400, seed=1)
        source.write_text("".join(f"{english}\t{other}\n" for other, english in pairs), encoding="utf-8")
    build(sources, root / "data", vocab=58, valid=12, test=12)
    return root / "data"


@pytest.fixture(scope="module")
def checkpoint(data: Path) -> Path:
    """What `sensikit train` makes of it, in both directions."""
    out = data.parent / "training"
    training_run.train(data, out, "--direction", "both", method="regular", updates=200, flags=FLAGS.split())
    return out / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def model(checkpoint: Path, data: Path) -> FairseqModel:
    found = open_model(checkpoint, data, device="cpu", pairs=["cat-eng", "nob-eng", "eng-cat"])
    assert isinstance(found, FairseqModel)
    return found


@pytest.fixture(scope="module")
def exported(checkpoint: Path, data: Path) -> Path:
    out = data.parent / "exported"
    done = call("export", checkpoint, "--data", data, "--format", "huggingface", "--out", out, "--device", "cpu")
    assert done.code == 0, done.error
    assert done.output.startswith(f"{out}: ")
    return out


@pytest.fixture(scope="module")
def twin(exported: Path) -> Any:
    transformers.utils.logging.disable_progress_bar()
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(exported).eval()


@pytest.fixture(scope="module")
def tokenizer(exported: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(exported)


def lines(data: Path, split: str, source: str, target: str) -> list[str]:
    pair = f"{source}-{target}" if target == "eng" else f"{target}-{source}"
    return (data / "text" / f"{split}.{pair}.{source}").read_text(encoding="utf-8").splitlines()


def test_the_weights_are_the_same_in_the_same_order(model: FairseqModel, twin: Any, exported: Path) -> None:
    ours, theirs = registry(model.module, model.ghosts), registry(twin)
    named = {each.name: "model.shared.weight" if each.name == SHARED else f"model.{each.name}" for each in ours}
    assert [(named[each.name], each.shape, each.start) for each in ours] == [
        (each.name, each.shape, each.start) for each in theirs
    ]
    weights = dict(twin.named_parameters())
    assert all(torch.equal(tensor, weights[named[name]]) for name, tensor in model.module.named_parameters())
    with safe_open(exported / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(named.values())
        assert file.metadata()["format"] == "pt"


def test_the_logits_are_the_same(model: FairseqModel, twin: Any) -> None:
    task = translation(model)
    batch = task.collate([(key, row) for key in task.groups for row in range(12)], "test")
    sources = batch.net_input["src_tokens"]
    with torch.no_grad(), compat.quiet():
        ours = model.module(**batch.net_input)[0]
        previous = batch.net_input["prev_output_tokens"]
        theirs = twin(input_ids=sources, attention_mask=sources.ne(1).long(), decoder_input_ids=previous).logits
    assert (ours - theirs)[batch.target.ne(1)].abs().max() < 1e-5


@pytest.mark.parametrize(("source", "target"), [("cat", "eng"), ("nob", "eng"), ("eng", "cat")])
def test_plain_transformers_translates_as_we_do(
    source: str, target: str, model: FairseqModel, twin: Any, tokenizer: Any, data: Path
) -> None:
    ours = translation(model).translate(f"{source}-{target}", "test", Decoding()).hypotheses
    tag, texts = f"__{target}__", lines(data, "test", source, target)
    batch = tokenizer([text + tag for text in texts], padding=True, return_tensors="pt")
    longest = int(1.2 * batch["input_ids"].shape[1] + 10)

    def ended(tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        others = torch.arange(scores.shape[1]) != tokenizer.eos_token_id
        return scores.masked_fill(others, -torch.inf) if tokens.shape[1] > longest else scores

    start = tokenizer.convert_tokens_to_ids(tag)
    found = twin.generate(**batch, decoder_start_token_id=start, max_new_tokens=longest + 1, logits_processor=[ended])
    assert tokenizer.batch_decode(found, skip_special_tokens=True) == ours
    assert len(set(ours)) > 9  # the model has learned something


def test_without_a_tag_nothing_is_translated(twin: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="decoder_start_token_id"):
        twin.generate(**tokenizer(["a"], return_tensors="pt"))
    assert tokenizer.convert_tokens_to_ids("__xyz__") is None  # and not <unk>


def numbers(model: FairseqModel, data: Path, text: str) -> list[int]:
    """What the text is binarised to."""
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=str(data / "spm.model"))
    dictionary = model.opened.task.source_dictionary
    return [dictionary.index(piece) for piece in pieces.id_to_piece(pieces.encode(text))]


def test_text_is_cut_as_it_was_for_training(model: FairseqModel, tokenizer: Any, data: Path) -> None:
    texts = [line for path in sorted((data / "text").iterdir()) for line in path.read_text().splitlines()]
    generator = random.Random(1)
    pool = [*"abehlrst_<>/", " ", "  ", "▁", "\n", "\u00a0", "é", "漢字", "__cat__", "<unk>", "</s>", "<mask>", "the "]
    texts += ["".join(generator.choices(pool, k=generator.randint(0, 12))) for _ in range(3000)]
    dataset = translation(model).split("cat-eng", "test").dataset
    for row, line in enumerate(lines(data, "test", "cat", "eng")):
        assert tokenizer(line)["input_ids"] == dataset[row]["source"].tolist()[:-1]
    found = tokenizer(texts, split_special_tokens=True)["input_ids"]
    wrong = [text for text, cut in zip(texts, found, strict=True) if cut != numbers(model, data, text)]
    assert wrong == []


def test_a_tag_is_one_number_wherever_it_stands_unless_it_is_to_stay_text(tokenizer: Any, model: FairseqModel) -> None:
    tag = model.opened.task.source_dictionary.index("__eng__")
    text = tokenizer("A page.")["input_ids"]
    for spelled in ("A page.__eng__", " A  page. __eng__"):
        assert tokenizer(spelled)["input_ids"] == [*text, tag]
    assert tokenizer("__eng__A page.")["input_ids"] == [tag, *text]
    assert tag not in tokenizer("A page.__eng__", split_special_tokens=True)["input_ids"]


def test_what_is_pruned_is_zero_and_nothing_else(model: FairseqModel, exported: Path, tmp_path: Path) -> None:
    masks = {each.name: torch.rand(each.shape) < 0.3 for each in registry(model.module, model.ghosts)}
    assert model.write_huggingface(tmp_path / "out", masks, "why") == sum(int(mask.sum()) for mask in masks.values())
    before, after = (load_file(path / "model.safetensors") for path in (exported, tmp_path / "out"))
    for name, mask in masks.items():
        named = "model.shared.weight" if name == SHARED else f"model.{name}"
        assert torch.equal(after[named], before[named].masked_fill(mask, 0))
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "sensikit": "why"}
    others = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
    assert all((exported / name).read_bytes() == (tmp_path / "out" / name).read_bytes() for name in others)
    assert json.loads((exported / "config.json").read_text())["sensikit"]["tags"] == "target-last"


def test_a_pruned_run_is_exported_by_the_command(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    run, out, mask = tmp_path / "run", tmp_path / "out", tmp_path / "mask.safetensors"
    done = call("analyze", checkpoint, "--data", data, "--out", run, "--batches", 4, "--tokens", 60, "--device", "cpu")
    assert done.code == 0, done.error
    options = ("--group", "cat", "--ratio", 0.3, "--format", "huggingface", "--mask", mask, "--device", "cpu")
    done = call("export", run, *options, "--out", out)
    assert done.code == 0, done.error
    weights = transformers.AutoModelForSeq2SeqLM.from_pretrained(out).state_dict()
    for name, gone in load_file(mask).items():
        assert not weights["model.shared.weight" if name == SHARED else f"model.{name}"][gone].any()
    assert done.output.splitlines()[1].startswith("M|task:mt|order:specificity|group:cat|ratio:0.3|")


# what is refused


def refused(model: FairseqModel, out: Path) -> str:
    with pytest.raises(SensikitError) as caught:
        model.write_huggingface(out / "out", {}, "")
    assert list(out.iterdir()) == []
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("encoder.normalize_before", False, "it is not pre-norm"),
        ("no_decoder_final_norm", True, "it is not pre-norm"),
        ("share_all_embeddings", False, "its embeddings are not shared by both sides and the projection"),
        ("decoder.learned_pos", True, "its positions are learned"),
        ("no_token_positional_embeddings", True, "it has no positions"),
        ("layernorm_embedding", True, "its embeddings are normalised"),
        ("cross_self_attention", True, "its decoder attends to the encoder in another way"),
        ("activation_fn", "gelu", "its activation is gelu"),
    ],
)
def test_another_transformer_is_refused(
    name: str, value: object, problem: str, model: FairseqModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = copy.deepcopy(model.opened.module.cfg)
    monkeypatch.setattr(model.opened.module, "cfg", cfg)
    stem, _, last = name.rpartition(".")
    setattr(getattr(cfg, stem) if stem else cfg, last, value)
    assert f"cannot be an M2M100: {problem}; export it with --format native" in refused(model, tmp_path)


@pytest.mark.parametrize("task", [{"langtoks": {"main": ["src", "tgt"]}}, {"lang_tok_replacing_bos_eos": False}])
def test_tags_elsewhere_are_refused(task: dict[str, Any], checkpoint: Path, data: Path, tmp_path: Path) -> None:
    other = open_model(edited(checkpoint, data.parent / "other.pt", task=task), data, device="cpu")
    assert isinstance(other, FairseqModel)
    assert "the target's tag does not stand for </s>" in refused(other, tmp_path)


def test_a_projection_of_the_encoders_own_is_refused(model: FairseqModel, tmp_path: Path) -> None:
    training = {**model.opened.settings.training, "separate_projection": True}
    opened = replace(model.opened, settings=replace(model.opened.settings, training=training))
    other = FairseqModel(opened, model.provenance)
    assert "its encoder predicts through a projection of its own" in refused(other, tmp_path)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("missing", "does not exist, and the tokenizer is made of it"),
        ("changed", "is not what the manifest says it was"),
        ("garbage", "is not a SentencePiece model"),
        ("smaller", "has other pieces than the dictionary"),
    ],
)
def test_pieces_that_are_not_the_dictionarys_are_refused(
    kind: str, problem: str, model: FairseqModel, data: Path, tmp_path: Path
) -> None:
    made = {"changed": (data / "spm.model").read_bytes(), "garbage": b"garbage", "smaller": pieces(data, vocab_size=45)}
    root, out = tmp_path / "data", tmp_path / "out"
    for folder in (root, out):
        folder.mkdir()
    if kind in made:
        (root / "spm.model").write_bytes(made[kind])
    noted = {"files": {"spm.model": "0" * 64}} if kind == "changed" else {}
    opened = replace(model.opened, data=replace(model.opened.data, root=root, manifest=noted))
    assert problem in refused(FairseqModel(opened, model.provenance), out)


@pytest.mark.parametrize("how", [{"model_type": "bpe"}, {"normalization_rule_name": "nmt_nfkc"}])
def test_pieces_that_text_is_cut_into_otherwise_are_refused(
    how: dict[str, str], model: FairseqModel, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "data" / "spm.model").write_bytes(pieces(data, vocab_size=50, **how))
    dictionary = compat.load().Dictionary()
    for symbol in Binariser((tmp_path / "data" / "spm.model").read_bytes()).symbols:
        dictionary.add_symbol(symbol)
    task = SimpleNamespace(args=model.opened.task.args, langs=model.opened.task.langs, target_dictionary=dictionary)
    held = replace(model.opened.data, root=tmp_path / "data", manifest={})
    other = FairseqModel(replace(model.opened, task=task, data=held), model.provenance)
    assert "cuts text otherwise than a unigram model without normalisation" in refused(other, tmp_path / "out")


def pieces(data: Path, **how: Any) -> bytes:
    """A SentencePiece model of the data's text."""
    from sentencepiece import SentencePieceTrainer

    found, texts = io.BytesIO(), lines(data, "train", "cat", "eng") + lines(data, "train", "eng", "cat")
    how = {"model_type": "unigram", "normalization_rule_name": "identity", "minloglevel": 3, **how}
    how["control_symbols"] = ["<pad>", "__cat__", "__nob__", "__eng__", "<mask>"]
    SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=found, **how)
    return found.getvalue()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--format", "huggingface"], "--data: is needed to convert a checkpoint"),
        (["--format", "huggingface", "--data", "{data}", "--out", "{data}"], "already exists"),
        (["--data", "{data}"], "--group: is missing"),
        (["--format", "huggingface", "--group", "cat"], "--ratio: is missing"),
    ],
)
def test_the_command_refuses(options: list[object], problem: str, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    words = [str(word).format(data=data) for word in options]
    done = call("export", checkpoint, "--out", tmp_path / "out", *words, "--device", "cpu")
    assert (done.code, problem in done.error, done.error.count("\n")) == (2, True, 1), done.error
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_the_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--format: toy has its own format alone"):
        convert(toy.ToyBackend(), tmp_path / "out")


def test_both_backends_measure_the_same_and_prune_the_same(
    checkpoint: Path, exported: Path, data: Path, tmp_path: Path
) -> None:
    """Two commands on one model, as its own framework and as transformers has it."""
    runs = {}
    for name, path in (("fairseq", checkpoint), ("huggingface", exported)):
        out = tmp_path / name
        done = call(
            "analyze", path, "--data", data, "--out", out, "--direction", "xxx-eng", "--batches", "20", "--tokens",
            "60", "--micro-batches", "1", "--device", "cpu",
        )  # fmt: skip
        assert done.code == 0, done.error
        runs[name] = Run.open(out)
    one, other = runs.values()
    assert one.manifest["parameter_count"] == other.manifest["parameter_count"]
    for ours, theirs in zip(one.parameters, other.parameters, strict=True):
        facts = ("shape", "start", "component", "stack", "layer", "prunable")
        assert [getattr(ours, fact) for fact in facts] == [getattr(theirs, fact) for fact in facts]
    for name, noted in one.manifest["sets"].items():
        assert noted["drawn"] == other.manifest["sets"][name]["drawn"]
        task, group = name.split("/")
        found = [np.concatenate([each[0] for each in run.stream([run.vector(task, group)])]) for run in (one, other)]
        assert np.abs(found[0] - found[1]).max() <= 1e-6 * found[0].max()
    said, masks = [], []
    for path, run in ((checkpoint, one), (exported, other)):
        opened = open_model(path, data, "xxx-eng", "cpu")
        task = translation_of(opened)
        said.append([task.translate("cat", "test", Decoding()).hypotheses])
        plan = pruning_plan(run, opened.module, Order("magnitude", "cat"), [0.5])
        with pruned(run, opened.module, plan, 0.5):
            said[-1].append(task.translate("cat", "test", Decoding()).hypotheses)
        plan = pruning_plan(run, opened.module, Order("specificity", "cat"), [0.5])
        masks.append(plan.mask(0.5))
    assert said[0] == said[1]
    # biases of keys cancel in the softmax: their S is nothing but rounding, and so is their D; a few lie at the cut
    sensitivity = np.concatenate([each[0] for each in one.stream([one.vector("mt", "cat")], prunable_of(one))])
    differ = (masks[0] != masks[1]) & (sensitivity > 1e-6 * sensitivity.max())
    assert differ.mean() < 1e-3
