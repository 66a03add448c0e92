"""Every family: its tags where they belong, its loss that of transformers, S that of a plain loop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sensikit.backends import open_model
from sensikit.backends.huggingface.opening import HuggingFaceModel
from sensikit.backends.huggingface.tasks import EncoderDecoder
from sensikit.errors import OptionError
from sensikit.parameters import registry
from sensikit.sensitivity.batches import Batch
from sensikit.sensitivity.taylor import measure
from sensikit.settings import Decoding, Loading
from tests.support.directories import FAMILIES

SEQ2SEQ = ("m2m", "nllb", "mbart50", "mbart25", "marian", "madlad")
DECODERS = tuple(family for family in FAMILIES if family not in SEQ2SEQ)
Directory = Callable[[str], Path]


def opened(path: Path, text: Path, direction: str | None = None, **loading: Any) -> HuggingFaceModel:
    found = open_model(path, text, direction, "cpu", loading=Loading(**loading))
    assert isinstance(found, HuggingFaceModel)
    return found


def stock_ids(model: HuggingFaceModel, family: str, source: str, target: str) -> tuple[list[int], list[int]]:
    """Return what a user of transformers would feed and expect."""
    tokenizer = model.opened.tokens.tokenizer
    codes = {"m2m": ("en", "fr"), "nllb": ("eng_Latn", "fra_Latn"), "mbart50": ("en_XX", "fr_XX")}
    codes["mbart25"] = codes["mbart50"]
    if family in codes:
        tokenizer.src_lang, tokenizer.tgt_lang = codes[family]
    prefix = {"marian": ">>fra<< ", "madlad": "<2fr> "}.get(family, "")
    return tokenizer(prefix + source)["input_ids"], tokenizer(text_target=target)["input_ids"]


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_tags_stand_where_the_tokenizer_puts_them(family: str, directory: Directory, text: Path) -> None:
    model = opened(directory(family), text, "xxx-fra")
    task = model.task("mt")
    sources, references = model.opened.data.pair("eng", "fra", "train")
    found = task.examples("eng", "train")  # type: ignore[attr-defined]
    inputs, targets = task._cut("eng", found.reads[:20], found.says[:20])  # type: ignore[attr-defined]
    for row in range(20):
        assert (inputs[row], targets[row]) == stock_ids(model, family, sources[row], references[row])


def test_nllb_as_it_once_was_has_the_tag_after_the_source(directory: Directory, text: Path, tmp_path: Path) -> None:
    path = tmp_path / "legacy"
    shutil.copytree(directory("nllb"), path)
    settings = path / "tokenizer_config.json"
    noted = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps({**noted, "legacy_behaviour": True}), encoding="utf-8")
    model = opened(path, text, "xxx-fra")
    tokenizer = model.opened.tokens.tokenizer
    tokenizer.src_lang = "eng_Latn"
    found = model.opened.tokens.source(["river"], "eng_Latn", "fra_Latn")
    assert found == tokenizer(["river"])["input_ids"]
    assert found[0][-1] == tokenizer.convert_tokens_to_ids("eng_Latn")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_transformers_and_of_each_sentence(family: str, directory: Directory, text: Path) -> None:
    model = opened(directory(family), text)
    task = model.task(model.tasks[0])
    key = "eng"
    items = [(key, row) for row in range(7)]
    batch = task.collate(items)
    summed, tokens = task.loss(batch)
    each = task.losses(items, "train")
    assert tokens == task.sizes(key)[:7, 1].sum() == each[:, 1].sum()
    value = float(summed.detach())
    assert value == pytest.approx(each[:, 0].sum(), rel=1e-6)
    if family in SEQ2SEQ:
        theirs = model.module(**batch.fed, labels=batch.labels).loss
    else:
        labels = batch.labels.roll(1, dims=1)
        theirs = model.module(**batch.fed, labels=labels).loss
    assert value == pytest.approx(float(theirs.detach()) * tokens, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_s_is_that_of_a_plain_loop(family: str, directory: Directory, text: Path) -> None:
    model = opened(directory(family), text)
    task, parameters = model.task(model.tasks[0]), registry(model.module, model.ghosts)
    sizes = task.sizes("eng")[:, 1]
    rows = [[("eng", row) for row in range(start, start + 6)] for start in (0, 6, 12)]
    batches = [Batch((tuple(items[:4]), tuple(items[4:])), int(sum(sizes[row] for _, row in items))) for items in rows]
    found = measure(model.module, parameters, batches, task.collate, task.loss)
    plain = {each.name: torch.zeros(each.shape, dtype=torch.float64) for each in parameters}
    named = dict(model.module.named_parameters())
    for items in rows:
        model.module.zero_grad()
        loss, tokens = task.loss(task.collate(items))
        (loss / tokens).backward()  # type: ignore[operator]
        for name, total in plain.items():
            gradient = named[name].grad
            total += 0 if gradient is None else (named[name] * gradient).detach().double().abs() / len(rows)
    model.module.zero_grad()
    largest = max(float(each.max()) for each in plain.values())
    assert largest > 0
    for name, expected in plain.items():
        torch.testing.assert_close(found.mean[name].double(), expected, rtol=0, atol=2e-6 * largest)


@pytest.mark.parametrize("family", FAMILIES)
def test_components_stacks_and_layers_are_named(family: str, directory: Directory, text: Path) -> None:
    model = opened(directory(family), text)
    parameters = registry(model.module, model.ghosts)
    assert {each.component for each in parameters} >= {"embedding", "attention", "ffn", "norm"} - (
        {"ffn"} if family == "mixtral" else set()
    )
    wanted = {"encoder", "decoder", "shared"} if family in SEQ2SEQ else {"decoder"}
    assert {each.stack for each in parameters} == wanted
    assert {each.layer for each in parameters if each.stack == "decoder"} >= {0, 1}
    weights = [each for each in parameters if each.component in ("attention", "ffn", "embedding")]
    # the router of a mixture is no layer of its own kind to transformers
    assert all(each.prunable for each in weights if not each.name.endswith("mlp.gate.weight"))


def test_positions_that_loading_makes_trainable_are_ghosts(directory: Directory, text: Path) -> None:
    model = opened(directory("marian"), text)
    assert model.ghosts == {f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder")}


def test_fused_experts_are_prunable(directory: Directory, text: Path) -> None:
    model = opened(directory("mixtral"), text)
    assert [each.prunable for each in registry(model.module) if len(each.shape) == 3] == [True] * 4


def test_a_language_that_the_tokenizer_lacks_is_refused_and_never_unknown(directory: Directory, text: Path) -> None:
    with pytest.raises(OptionError, match="spa: is no language of the model's tokenizer"):
        open_model(directory("madlad"), text, device="cpu", pairs=["fra-spa"])
    # mBART-50 knows no Catalan
    model = opened(directory("mbart50"), text, "xxx-fra")
    assert list(model.task("mt").groups) == ["eng", "spa"]
    assert any(note.startswith("cat: left out") for note in model.notes)


@pytest.mark.parametrize("asked", [{"pairs": ["cat_Latn-fra_Latn", "es-fr"]}, {"direction": "xxx-fra_Latn"}])
def test_languages_are_asked_for_by_any_spelling(asked: dict[str, Any], directory: Directory, text: Path) -> None:
    task = open_model(directory("nllb"), text, device="cpu", **asked).task("mt")
    assert [*task.groups] == (["cat", "spa"] if "pairs" in asked else ["cat", "eng", "spa"])


def test_text_that_spells_out_a_special_token_does_not_become_it(directory: Directory, text: Path) -> None:
    for family, spelled in (("nllb", "fra_Latn </s>"), ("m2m", "__fr__ </s>"), ("llama", "</s>")):
        tokens = opened(directory(family), text).opened.tokens
        special = {tokens.tokenizer.eos_token_id, *(id for _, id in tokens.tags.values())}
        assert special.isdisjoint(tokens.body([f"house {spelled} river"])[0])


@pytest.mark.parametrize("family", ["nllb", "llama"])
def test_bf16_weights_have_sums_in_float32_and_the_signature_says_so(
    family: str, directory: Directory, text: Path
) -> None:
    full, half = (opened(directory(family), text, dtype=dtype) for dtype in ("fp32", "bf16"))
    assert half.provenance.loading == {"dtype": "bf16"}
    found = []
    for model in (full, half):
        task, parameters = model.task(model.tasks[0]), registry(model.module, model.ghosts)
        tokens = task.sizes("eng")[:8, 1]
        batches = [Batch(((("eng", row),),), int(tokens[row])) for row in range(8)]
        mean = measure(model.module, parameters, batches, task.collate, task.loss).mean
        assert all(each.dtype == torch.float32 for each in mean.values())
        found.append(np.concatenate([each.numpy().ravel() for each in mean.values()]))
    assert np.corrcoef(*found)[0, 1] > 0.999
    assert not np.array_equal(*found)


def test_a_mask_of_attention_that_a_file_holds_is_no_weight(directory: Directory, text: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(directory("gpt2"), tmp_path / "gpt2"))
    state = load_file(path / "model.safetensors")
    mask = {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool).tril()}
    save_file({**state, **mask}, path / "model.safetensors", {"format": "pt"})
    pairs = zip(*(opened(each, text).module.parameters() for each in (path, directory("gpt2"))), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_ctranslate2_says_the_same(family: str, directory: Directory, text: Path) -> None:
    model = opened(directory(family), text)
    task, weight = model.task("mt"), model.module.get_input_embeddings().weight
    assert isinstance(task, EncoderDecoder)
    group, before = next(iter(task.groups)), model.module.config.to_dict()
    greedy, fast = Decoding(beam=1, max_sentences=6), Decoding(beam=1, max_sentences=6, engine="ctranslate2")
    if family == "marian":  # whose padding, which its decoder starts from, is zeros in every model but this one
        with pytest.raises(OptionError, match="--engine: ctranslate2 starts from zeros"):
            task.translate(group, "test", fast)
        with torch.no_grad():
            weight[model.module.config.decoder_start_token_id] = 0
    assert task.translate(group, "test", fast) == task.translate(group, "test", greedy)
    assert model.module.config.to_dict() == before
