"""The fairseq backend against fairseq itself, on checkpoints that fairseq-train wrote."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensikit.backends.base import Backend, Decoding
from sensikit.backends.fairseq import FairseqBackend, open_checkpoint
from sensikit.backends.fairseq_decoding import _text
from sensikit.backends.fairseq_model import english_of
from sensikit.errors import CheckpointError, DataError, OptionError
from sensikit.parameters import registry
from tests.conftest import HELD_OUT, LANGUAGES
from tests.files import edited

FIRST = [("cat", 0), ("cat", 1), ("cat", 2), ("cat", 3)]
MIXED = [("fao", 5), ("cat", 0), ("nob", 7), ("cat", 9), ("fao", 1)]
TEST = Decoding(beam=5, max_len_a=0, max_len_b=30)


@pytest.fixture(params=["replaced", "plain"])
def backend(request: pytest.FixtureRequest) -> FairseqBackend:
    """The two designs of language tags, in turn."""
    name = {"replaced": "tiny_backend", "plain": "plain_backend"}[request.param]
    found: FairseqBackend = request.getfixturevalue(name)
    return found


def fairseq_loss(backend: FairseqBackend, items: list[tuple[str, int]], split: str = "train") -> tuple[float, float]:
    """Return (training loss, nll) of fairseq's own criterion on fairseq's own batches, one for each language."""
    from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion

    smoothing, ignored = backend.settings.label_smoothing, backend.settings.ignored_prefix
    criterion = LabelSmoothedCrossEntropyCriterion(backend.task, False, smoothing, ignored)
    totals = [0.0, 0.0]
    for language in sorted({language for language, _ in items}):
        dataset = backend.split(language, split).dataset
        sample = dataset.collater([dataset[index] for code, index in items if code == language])
        loss, _, log = criterion(backend.module, sample)
        totals = [totals[0] + float(loss), totals[1] + float(log["nll_loss"])]
    return totals[0], totals[1]


def values(backend: Backend, items: list[tuple[str, int]], kind: str = "nll") -> float:
    return float(backend.loss(backend.collate(items), kind)[0])


# opening


def test_it_is_a_backend(tiny_backend: FairseqBackend) -> None:
    checked: Backend = tiny_backend
    assert checked.direction == "xxx-eng"
    assert checked.english == "eng"
    assert checked.device == torch.device("cpu")
    assert not checked.module.training
    assert list(checked.languages) == list(LANGUAGES)
    catalan = checked.languages["cat"]
    assert (catalan.name, catalan.family, catalan.tier) == ("Catalan", "Western Romance", "High")
    assert catalan.sizes == {"train": LANGUAGES["cat"], "valid": HELD_OUT, "test": HELD_OUT}


def test_a_tied_embedding_is_one_parameter(tiny_backend: FairseqBackend) -> None:
    parameters = registry(tiny_backend.module, tiny_backend.ghosts)
    first = parameters[0]
    assert first.name == "encoder.embed_tokens.weight"
    assert set(first.aliases) == {"decoder.embed_tokens.weight", "decoder.output_projection.weight"}
    assert len({parameter.name for parameter in parameters}) == len(parameters) == 89


def test_bare_data_directory(tiny_checkpoint: Path, tiny_data: Path) -> None:
    found = open_checkpoint(tiny_checkpoint, tiny_data / "bin", device="cpu")
    assert found.languages["cat"].name == "Catalan"
    assert found.languages["cat"].tier == "Very Low"
    assert found.languages["cat"].sizes["train"] == LANGUAGES["cat"]
    assert found.translate("cat", "test", TEST).references_from == "binarised"


def test_half_precision_weights_are_loaded_as_single(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    def halve(state: dict[str, torch.Tensor]) -> None:
        state.update({name: tensor.half() for name, tensor in state.items()})

    path = edited(tiny_checkpoint, tmp_path / "half.pt", state=halve)
    state = torch.load(path, weights_only=False)["model"]
    module = open_checkpoint(path, tiny_data, device="cpu").module
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}
    assert all(torch.equal(tensor, state[name].float()) for name, tensor in module.named_parameters())


@pytest.mark.parametrize(
    "design",
    [
        {},
        {"share_all_embeddings": False, "share_decoder_input_output_embed": True},
        {"share_all_embeddings": False},
        {"encoder_normalize_before": True, "decoder_normalize_before": True},
        {"encoder_learned_pos": True, "decoder_learned_pos": True, "max_source_positions": 40},
        {"layernorm_embedding": True, "no_scale_embedding": True},
        {"activation_fn": "gelu", "encoder_ffn_embed_dim": 48, "decoder_layers": 1},
        {"arch": "transformer_iwslt_de_en", "encoder_layers": 1, "decoder_layers": 1, "decoder_embed_dim": 32},
        {"no_token_positional_embeddings": True, "decoder_normalize_before": True, "no_decoder_final_norm": True},
    ],
)
def test_designs_of_the_transformer(
    design: dict[str, Any], tiny_checkpoint: Path, tiny_backend: FairseqBackend, tiny_data: Path, tmp_path: Path
) -> None:
    """A model that fairseq builds of these settings, opened from a file, gives what it gave before."""
    from argparse import Namespace

    sides = {f"{side}_{name}": number for side in ("encoder", "decoder") for name, number in
             {"embed_dim": 32, "ffn_embed_dim": 64, "attention_heads": 2, "layers": 2}.items()}  # fmt: skip
    settings = {"arch": "transformer", "share_all_embeddings": True, **sides, **design}
    torch.manual_seed(3)
    original = tiny_backend.task.build_model(Namespace(**settings)).eval()

    def replace(state: dict[str, torch.Tensor]) -> None:
        state.clear()
        state.update(original.state_dict())

    defaults = {"encoder_normalize_before": None, "decoder_normalize_before": None, "decoder_output_dim": None}
    defaults |= {"share_decoder_input_output_embed": None, "decoder_input_dim": None}
    path = edited(tiny_checkpoint, tmp_path / "c.pt", model={**defaults, **settings}, state=replace)
    found = open_checkpoint(path, tiny_data, device="cpu")
    piece = found.collate(MIXED)
    assert torch.equal(found.module(**piece.net_input)[0], original(**piece.net_input)[0])
    assert {name for name, _ in found.module.named_parameters()} == {name for name, _ in original.named_parameters()}
    translated = found.translate("cat", "test", TEST)
    assert len(translated.hypotheses) == HELD_OUT


def test_source_and_target_with_dictionaries_of_their_own(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    data = tmp_path / "bin"
    shutil.copytree(tiny_data / "bin", data)
    with (data / "dict.eng.txt").open("a") as file:
        file.write("extra 1\nmore 1\n")

    def separate(state: dict[str, torch.Tensor]) -> None:
        for name in ("decoder.embed_tokens.weight", "decoder.output_projection.weight"):
            state[name] = torch.cat([state[name], torch.ones(2, 32)])

    changes = {"share_all_embeddings": False, "share_decoder_input_output_embed": False}
    path = edited(tiny_checkpoint, tmp_path / "c.pt", model=changes, state=separate)
    found = open_checkpoint(path, data, device="cpu")
    rows = [found.module.encoder.embed_tokens.weight.shape[0], found.module.decoder.embed_tokens.weight.shape[0]]
    assert rows[1] == rows[0] + 2
    assert np.isfinite(values(found, MIXED))
    names = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight"}
    assert names <= {parameter.name for parameter in registry(found.module)}


def test_provenance_is_the_hash_of_all_that_is_read(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    from sensikit.files import sha256

    data = tmp_path / "bin"
    shutil.copytree(tiny_data / "bin", data)
    first = open_checkpoint(tiny_checkpoint, data, device="cpu").provenance
    assert first.checkpoint_sha256 == sha256(tiny_checkpoint)
    assert first == open_checkpoint(tiny_checkpoint, data, device="cpu").provenance
    seen = {first.data_sha256}
    for name in ("dict.cat.txt", "train.fao-eng.fao.bin", "test.nob-eng.eng.bin", "valid.cat-eng.cat.idx"):
        path = data / name
        content = path.read_bytes()
        if name.startswith("dict"):
            for each in data.glob("dict.*"):
                each.write_bytes(content.replace(b" 1\n", b" 2\n", 1))
        elif name.endswith(".bin"):
            path.write_bytes(content[2:4] + content[:2] + content[4:])
        else:
            path.write_bytes(content[:-8] + bytes(8))
        seen.add(open_checkpoint(tiny_checkpoint, data, device="cpu").provenance.data_sha256)
    assert len(seen) == 5


# directions


@pytest.fixture
def reversed_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The same weights, said to be trained from English."""
    pairs = {"lang_pairs": ["eng-nob", "eng-cat", "eng-fao"]}
    return edited(tiny_checkpoint, tmp_path / "from.pt", task=pairs, model=pairs)


def test_from_english(reversed_checkpoint: Path, tiny_data: Path) -> None:
    found = open_checkpoint(reversed_checkpoint, tiny_data, device="cpu")
    assert found.direction == "eng-xxx"
    assert list(found.languages) == ["nob", "cat", "fao"]
    piece = found.collate([("nob", 0), ("cat", 0)])
    tags = [found.task.target_dictionary.index(f"__{code}__") for code in ("nob", "cat")]
    assert piece.net_input["prev_output_tokens"][:, 0].tolist() == tags
    assert piece.net_input["src_tokens"][:, -1].tolist() == tags
    translated = found.translate("fao", "test", TEST)
    assert translated.references == (tiny_data / "text" / "test.fao-eng.fao").read_text().splitlines()


def test_a_generator_is_told_the_language_it_translates_into(
    reversed_checkpoint: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = open_checkpoint(reversed_checkpoint, tiny_data, device="cpu")
    told = []
    task = found.task
    step = task.inference_step
    monkeypatch.setattr(task, "inference_step", lambda *given: told.append(task.args.target_lang) or step(*given))
    for language in ("cat", "fao"):
        found.translate(language, "test", TEST)
    assert told == ["cat", "fao"]


def test_both_directions_and_the_default_is_into_english(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    pairs = {"lang_pairs": "eng-cat,cat-eng,eng-nob,nob-eng"}
    path = edited(tiny_checkpoint, tmp_path / "both.pt", task=pairs, model=pairs)
    assert open_checkpoint(path, tiny_data, device="cpu").direction == "xxx-eng"
    found = open_checkpoint(path, tiny_data, "eng-xxx", "cpu")
    assert (found.direction, list(found.languages)) == ("eng-xxx", ["cat", "nob"])


def test_direction_that_was_not_trained(tiny_checkpoint: Path, tiny_data: Path) -> None:
    with pytest.raises(OptionError, match="not trained on eng-xxx; give xxx-eng"):
        open_checkpoint(tiny_checkpoint, tiny_data, "eng-xxx", "cpu")
    with pytest.raises(OptionError, match="'cat-eng' is unknown"):
        open_checkpoint(tiny_checkpoint, tiny_data, "cat-eng", "cpu")


@pytest.mark.parametrize(
    ("pairs", "english"),
    [
        ("cat-eng nob-eng", "eng"),
        ("en-de en-fr", "en"),
        ("de-fr fr-nl", "fr"),
        ("cat-en", "en"),
        ("ro_RO-en_XX en_XX-ro_RO", "en_XX"),
        ("cat-eng eng-cat cat-nob", "cat"),
        ("cat-eng eng-nob nob-cat", "eng"),
    ],
)
def test_which_language_is_english(pairs: str, english: str) -> None:
    assert english_of([(a, b) for a, b in (pair.split("-") for pair in pairs.split())]) == english


def test_no_language_is_english() -> None:
    with pytest.raises(OptionError, match="no language of the checkpoint's pairs"):
        english_of([("de", "fr"), ("nl", "es")])


# sizes and batches


def test_sizes_count_what_the_loss_counts(backend: FairseqBackend) -> None:
    for language, count in LANGUAGES.items():
        sizes = backend.sizes(language)
        assert sizes.shape == (count, 2)
        assert sizes.dtype == np.int64
        for index in range(0, count, 17):
            piece = backend.collate([(language, index)])
            assert backend.loss(piece)[1] == sizes[index, 1]
            assert piece.net_input["src_tokens"].shape == (1, sizes[index, 0])
    piece = backend.collate(MIXED)
    assert backend.loss(piece)[1] == sum(backend.sizes(language)[index, 1] for language, index in MIXED)


def test_a_language_tag_before_the_target_is_a_target(
    tiny_backend: FairseqBackend, plain_backend: FairseqBackend
) -> None:
    replaced, plain = tiny_backend.sizes("cat"), plain_backend.sizes("cat")
    np.testing.assert_array_equal(plain, replaced + 1)


def test_tags_that_replace_the_end_of_the_sentence(tiny_backend: FairseqBackend) -> None:
    piece = tiny_backend.collate(MIXED)
    dictionary = tiny_backend.task.target_dictionary
    english = dictionary.index("__eng__")
    assert set(piece.net_input["src_tokens"][:, -1].tolist()) == {english}
    assert set(piece.net_input["prev_output_tokens"][:, 0].tolist()) == {english}
    assert not (piece.target == english).any()
    assert ((piece.target == dictionary.eos()).sum(dim=1) == 1).all()


def test_tags_that_stand_before_the_sentences(plain_backend: FairseqBackend) -> None:
    piece = plain_backend.collate([("cat", 0), ("fao", 0)])
    dictionary = plain_backend.task.target_dictionary
    sources = piece.net_input["src_tokens"]
    first = [int(row[row != dictionary.pad()][0]) for row in sources]
    assert [dictionary[index] for index in first] == ["__cat__", "__fao__"]
    assert [dictionary[int(index)] for index in piece.target[:, 0]] == ["__eng__", "__eng__"]


def test_the_order_of_langs_decides_the_tags(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """fairseq appends the tags to a dictionary without them, in the order of --langs."""
    from sensikit.backends.checkpoint import read
    from sensikit.backends.databin import open_data
    from sensikit.backends.fairseq_compat import load
    from sensikit.backends.fairseq_model import build_task, pairs_of
    from sensikit.backends.fairseq_settings import trained
    from tests.conftest import write_corpus

    data = open_data(write_corpus(tmp_path / "data", tags=False))
    order = ["nob", "eng", "fao", "cat"]
    settings = trained(read(edited(tiny_checkpoint, tmp_path / "c.pt", task={"langs": order})))
    task = build_task(load(), settings, list(pairs_of(settings, None)[2].values()), data)
    assert task.target_dictionary.symbols[-4:] == [f"__{code}__" for code in order]


def test_a_mixed_piece_is_the_sum_of_its_languages(backend: FairseqBackend) -> None:
    alone = sum(values(backend, [item]) for item in MIXED)
    assert values(backend, MIXED) == pytest.approx(alone, rel=1e-5)
    assert len(backend.collate(MIXED).target) == len(MIXED)


def test_items_that_fairseq_caches_are_never_written_to(backend: FairseqBackend) -> None:
    """MMapIndexedDataset caches its last 8 items: a tag written into one would stay there."""
    dataset = backend.split("cat", "train").dataset
    before = {key: dataset[0][key].clone() for key in ("source", "target")}
    first = backend.collate(FIRST)
    for _ in range(2):
        backend.loss(backend.collate(FIRST))
    again = backend.collate(FIRST)
    assert torch.equal(first.target, again.target)
    assert all(torch.equal(first.net_input[name], again.net_input[name]) for name in first.net_input)
    assert all(torch.equal(dataset[0][key], before[key]) for key in before)


def test_pairs_longer_than_the_positions_are_left_out_and_counted(
    tiny_checkpoint: Path, tiny_data: Path, tiny_backend: FairseqBackend, tmp_path: Path
) -> None:
    limits = {"max_source_positions": 9, "max_target_positions": 11}
    path = edited(tiny_checkpoint, tmp_path / "c.pt", task=limits, model=limits)
    found = open_checkpoint(path, tiny_data, device="cpu")
    everything = tiny_backend.sizes("cat")
    fit = (everything <= [9, 11]).all(axis=1)
    assert 0 < fit.sum() < len(fit)
    np.testing.assert_array_equal(found.sizes("cat"), everything[fit])
    assert found.left_out("cat") == len(fit) - fit.sum()
    assert tiny_backend.left_out("cat") == 0
    row = 5
    same = tiny_backend.collate([("cat", int(np.flatnonzero(fit)[row]))])
    assert torch.equal(found.collate([("cat", row)]).target, same.target)


# the loss


def test_loss_is_that_of_fairseqs_criterion(backend: FairseqBackend) -> None:
    train, nll = fairseq_loss(backend, MIXED)
    assert values(backend, MIXED, "nll") == pytest.approx(nll, rel=1e-5)
    assert values(backend, MIXED, "train") == pytest.approx(train, rel=1e-5)
    assert train > nll * 1.01


def test_loss_of_a_checkpoint_trained_without_smoothing(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    path = edited(tiny_checkpoint, tmp_path / "c.pt", criterion={"_name": "cross_entropy"})
    found = open_checkpoint(path, tiny_data, device="cpu")
    assert values(found, MIXED, "train") == values(found, MIXED, "nll")


def test_the_ignored_prefix_is_no_target(plain_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    path = edited(plain_checkpoint, tmp_path / "c.pt", criterion={"ignore_prefix_size": 1})
    found = open_checkpoint(path, tiny_data, device="cpu")
    piece = found.collate(MIXED)
    tokens = found.loss(piece)[1]
    assert tokens == int((piece.target != found.task.target_dictionary.pad()).sum()) - len(MIXED)
    assert tokens == sum(found.sizes(language)[index, 1] for language, index in MIXED)
    train, nll = fairseq_loss(found, MIXED)
    assert values(found, MIXED, "nll") == pytest.approx(nll, rel=1e-5)
    assert values(found, MIXED, "train") == pytest.approx(train, rel=1e-5)


def test_loss_in_double_precision_is_not_rounded_by_fairseqs_log_softmax(backend: FairseqBackend) -> None:
    """fairseq casts logits to float32: a step of 1e-9 in a weight would vanish."""
    single = values(backend, MIXED)
    backend.module.double()
    loss, _ = backend.loss(backend.collate(MIXED))
    assert loss.dtype == torch.float64
    assert float(loss.detach()) == pytest.approx(single, rel=1e-5)
    weight = backend.module.decoder.layers[1].fc1.bias
    loss.backward()
    index = int(weight.grad.abs().argmax())
    step, ends = 1e-6, []
    with torch.no_grad():
        for sign in (1, -1):
            weight[index] += sign * step
            ends.append(values(backend, MIXED))
            weight[index] -= sign * step
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(weight.grad[index]), rel=1e-6)


def test_loss_obeys_the_mode_of_the_module(backend: FairseqBackend) -> None:
    piece = backend.collate(MIXED)
    backend.module.train()
    torch.manual_seed(1)
    noisy = [float(backend.loss(piece)[0]) for _ in range(2)]
    assert noisy[0] != noisy[1]
    assert backend.module.training
    backend.module.eval()
    assert float(backend.loss(piece)[0]) == float(backend.loss(piece)[0])


def test_loss_of_an_unknown_kind(tiny_backend: FairseqBackend) -> None:
    with pytest.raises(OptionError, match="'sum' is unknown"):
        tiny_backend.loss(tiny_backend.collate(FIRST), "sum")


def test_loss_of_an_unknown_criterion(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    path = edited(tiny_checkpoint, tmp_path / "c.pt", criterion={"_name": "my_own"})
    found = open_checkpoint(path, tiny_data, device="cpu")
    assert values(found, FIRST) > 0
    with pytest.raises(OptionError, match="the criterion .* is unknown; give nll"):
        values(found, FIRST, "train")


# translation


def one_by_one(backend: FairseqBackend, language: str) -> list[str]:
    """Return fairseq's translation of each test sentence alone, without our batching or text."""
    from argparse import Namespace

    from fairseq.data.data_utils import post_process

    task = backend.task
    task.args.source_lang, task.args.target_lang = backend.pairs[language]
    generator = task.build_generator([backend.module], Namespace(beam=5, max_len_a=0, max_len_b=30))
    dataset = backend.split(language, "test").dataset
    texts = []
    for index in range(len(dataset)):
        best = task.inference_step(generator, [backend.module], dataset.collater([dataset[index]]))[0][0]
        words = [task.target_dictionary[int(token)] for token in best["tokens"] if int(token) != generator.eos]
        texts.append(post_process(" ".join(word for word in words if word != "__eng__"), "sentencepiece"))
    return texts


def test_translations_are_those_of_fairseq(backend: FairseqBackend, tiny_data: Path) -> None:
    for language in LANGUAGES:
        found = backend.translate(language, "test", TEST)
        assert found.hypotheses == one_by_one(backend, language)
        assert found.references == (tiny_data / "text" / f"test.{language}-eng.eng").read_text().splitlines()
        assert found.references_from == "text"
        assert found.truncated == 0


def test_the_model_has_learnt_something(backend: FairseqBackend) -> None:
    import sacrebleu

    for language in ("cat", "nob"):
        found = backend.translate(language, "test", TEST)
        assert sacrebleu.corpus_bleu(found.hypotheses, [found.references]).score > 20


@pytest.mark.parametrize("max_tokens", [1, 20, 50, 4096])
def test_every_sentence_comes_back_though_fairseq_drops_the_last_batch(
    max_tokens: int, tiny_backend: FairseqBackend
) -> None:
    """With --required-batch-size-multiple 8 a set of 12 loses 4: the longest."""
    found = tiny_backend.translate("cat", "test", Decoding(max_len_a=0, max_len_b=30, max_tokens=max_tokens))
    assert len(found.hypotheses) == len(found.references) == HELD_OUT
    assert found.hypotheses == one_by_one(tiny_backend, "cat")


def test_first_sentences_alone(tiny_backend: FairseqBackend) -> None:
    everything = tiny_backend.translate("fao", "test", TEST)
    some = tiny_backend.translate("fao", "test", Decoding(max_len_a=0, max_len_b=30, max_sentences=5))
    assert some.hypotheses == everything.hypotheses[:5]
    assert some.references == everything.references[:5]
    more = tiny_backend.translate("fao", "test", Decoding(max_len_a=0, max_len_b=30, max_sentences=500))
    assert more == everything


def test_long_sentences_are_translated_from_what_fits(
    tiny_checkpoint: Path, tiny_data: Path, tiny_backend: FairseqBackend, tmp_path: Path
) -> None:
    limits = {"max_source_positions": 9, "max_target_positions": 40}
    path = edited(tiny_checkpoint, tmp_path / "c.pt", task=limits, model=limits)
    found = open_checkpoint(path, tiny_data, device="cpu")
    lengths = tiny_backend.sizes("cat", "test")[:, 0]
    translated = found.translate("cat", "test", TEST)
    assert translated.truncated == (lengths > 9).sum() > 0
    assert len(translated.hypotheses) == HELD_OUT
    everything = tiny_backend.translate("cat", "test", TEST).hypotheses
    assert [text for text, length in zip(translated.hypotheses, lengths, strict=True) if length <= 9] == [
        text for text, length in zip(everything, lengths, strict=True) if length <= 9
    ]


def test_translating_leaves_no_trace(backend: FairseqBackend) -> None:
    """fairseq leaves the model in evaluation mode, with the generator's beam size in its decoder."""
    piece = backend.collate(MIXED)
    before, weights = float(backend.loss(piece)[0]), {k: v.clone() for k, v in backend.module.state_dict().items()}
    backend.module.train()
    backend.translate("cat", "test", TEST)
    assert all(part.training for part in backend.module.modules())
    backend.module.eval()
    assert float(backend.loss(piece)[0]) == before
    assert all(torch.equal(tensor, weights[name]) for name, tensor in backend.module.state_dict().items())
    assert not backend.module.decoder.output_projection._forward_hooks
    assert not [part for part in backend.module.modules() if getattr(part, "beam_size", 1) != 1]


def test_a_beam_of_one_after_a_beam_of_five(backend: FairseqBackend) -> None:
    """fairseq sets the beam size in the decoder's attention only if it is more than one."""
    greedy = Decoding(beam=1, max_len_a=0, max_len_b=30)
    first = backend.translate("cat", "test", greedy)
    backend.translate("cat", "test", TEST)
    assert backend.translate("cat", "test", greedy) == first


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("part", ["decoder.layers.1.fc2.weight", "decoder.embed_tokens.weight"])
def test_a_model_pruned_to_rubbish_still_decodes(value: float, part: str, backend: FairseqBackend) -> None:
    """Nothing of the output is probable or even defined: it runs on to the cap, and none is missing."""
    with torch.no_grad():
        backend.module.get_parameter(part).fill_(value)
    cap = Decoding(beam=3, max_len_a=0, max_len_b=7)
    found = backend.translate("cat", "test", cap)
    assert len(found.hypotheses) == HELD_OUT
    assert max(len(text.split()) for text in found.hypotheses) <= 8


def test_a_model_pruned_to_nothing_still_decodes(backend: FairseqBackend) -> None:
    with torch.no_grad():
        for parameter in backend.module.parameters():
            parameter.zero_()
    assert len(backend.translate("nob", "test", TEST).hypotheses) == HELD_OUT


def test_language_tags_are_no_text(tiny_backend: FairseqBackend) -> None:
    dictionary = tiny_backend.task.target_dictionary
    symbols = ["__eng__", "▁ei", "__cat__", "m16", "<mask>", "▁ne", "r21", "</s>"]
    tokens = [dictionary.index(symbol) for symbol in symbols]
    assert _text(tiny_backend)(tokens) == "ei" + dictionary[dictionary.index("m16")].replace("<unk>", "<unk>") + " " + (
        "ne" + dictionary[dictionary.index("r21")]
    )


def test_a_line_separator_within_a_sentence_is_not_the_end_of_its_line(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """str.splitlines() would cut at it, and every later reference would belong to another sentence."""
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    (data / "manifest.json").write_text('{"languages": {}}')
    path = data / "text" / "test.cat-eng.eng"
    lines = path.read_text().split("\n")
    lines[0], lines[3] = "one\u2028two\x0bthree", "\u0085"
    path.write_text("\n".join(lines), encoding="utf-8")
    found = open_checkpoint(tiny_checkpoint, data, device="cpu").translate("cat", "test", TEST)
    assert found.references == lines[:-1]


def test_references_of_another_length(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    (data / "manifest.json").write_text('{"languages": {}}')
    (data / "text" / "test.cat-eng.eng").write_text("one line\n")
    with pytest.raises(DataError, match=r"test\.cat-eng\.eng: has 1 lines for 12 binarised sentences"):
        open_checkpoint(tiny_checkpoint, data, device="cpu").translate("cat", "test", TEST)


def test_references_decoded_from_the_binarised_target(tiny_checkpoint: Path, tiny_data: Path) -> None:
    found = open_checkpoint(tiny_checkpoint, tiny_data / "bin", device="cpu").translate("cat", "test", TEST)
    assert found.references == (tiny_data / "text" / "test.cat-eng.eng").read_text().splitlines()


@pytest.mark.parametrize("decoding", [Decoding(beam=0), Decoding(max_tokens=0), Decoding(max_len_a=0, max_len_b=0)])
def test_decoding_that_cannot_be_carried_out(decoding: Decoding, tiny_backend: FairseqBackend) -> None:
    with pytest.raises(OptionError):
        tiny_backend.translate("cat", "test", decoding)


# devices


def test_a_gpu_that_is_not_there(tiny_checkpoint: Path, tiny_data: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(OptionError, match="--device: there is no cuda on this machine"):
        open_checkpoint(tiny_checkpoint, tiny_data, device="cuda")
    assert open_checkpoint(tiny_checkpoint, tiny_data, device="auto").device.type == "cpu"


def test_a_device_that_is_unknown(tiny_checkpoint: Path, tiny_data: Path) -> None:
    with pytest.raises(OptionError, match="--device: 'tpu' is unknown"):
        open_checkpoint(tiny_checkpoint, tiny_data, device="tpu")


@pytest.mark.gpu
def test_on_a_gpu(tiny_checkpoint: Path, tiny_data: Path) -> None:
    there = open_checkpoint(tiny_checkpoint, tiny_data, device="cuda")
    here = open_checkpoint(tiny_checkpoint, tiny_data, device="cpu")
    for kind in ("nll", "train"):
        assert values(there, MIXED, kind) == pytest.approx(values(here, MIXED, kind), rel=1e-4)
    assert len(there.translate("cat", "test", TEST).hypotheses) == HELD_OUT


# what does not fit


def test_unknown_language_and_split(tiny_backend: FairseqBackend) -> None:
    with pytest.raises(
        OptionError, match="xyz: is no language of the checkpoint in this direction; it has cat, nob, fao"
    ):
        tiny_backend.sizes("xyz")
    with pytest.raises(DataError, match="has no dev set of cat-eng"):
        tiny_backend.sizes("cat", "dev")


def test_checkpoint_of_another_task(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    path = edited(tiny_checkpoint, tmp_path / "c.pt", task={"_name": "translation"})
    with pytest.raises(CheckpointError, match="_name = 'translation'; expected one of translation_multi_simple_epoch"):
        open_checkpoint(path, tiny_data, device="cpu")


def test_checkpoint_of_another_architecture(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    path = edited(tiny_checkpoint, tmp_path / "c.pt", model={"arch": "lstm"})
    with pytest.raises(CheckpointError, match="arch = 'lstm'; expected one of transformer"):
        open_checkpoint(path, tiny_data, device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"adaptive_softmax_cutoff": [100]},
        {"quant_noise_pq": 0.1},
        {"encoder_layers_to_keep": "0"},
        {"xformers_att_config": "{}"},
        {"base_layers": 1},
    ],
)
def test_designs_that_are_not_supported(
    change: dict[str, Any], tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    path = edited(tiny_checkpoint, tmp_path / "c.pt", model=change)
    with pytest.raises(CheckpointError, match="expected it off"):
        open_checkpoint(path, tiny_data, device="cpu")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"encoder_layers": 3}, "says encoder_layers = 3 but its tensors have 2"),
        ({"decoder_ffn_embed_dim": 4096}, "says decoder_ffn_embed_dim = 4096 but its tensors have 64"),
        ({"encoder_embed_dim": 65536}, "says encoder_embed_dim = 65536"),
        ({"decoder_output_dim": 65536}, "says decoder_output_dim = 65536"),
        ({"encoder_embed_dim": 1 << 40}, "expected a whole number"),
        ({"encoder_attention_heads": 5}, "5 attention heads for width 32"),
        ({"encoder_attention_heads": 0}, "0 attention heads"),
        ({"max_source_positions": 10**9}, "expected a whole number"),
        ({"layernorm_embedding": True}, "do not make a transformer"),
        ({"encoder_learned_pos": True}, "do not make a transformer"),
    ],
)
def test_settings_that_contradict_the_tensors(
    change: dict[str, Any], problem: str, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """Found before a model of that size is built."""
    path = edited(tiny_checkpoint, tmp_path / "c.pt", model=change)
    with pytest.raises(CheckpointError, match=problem):
        open_checkpoint(path, tiny_data, device="cpu")


def drop(state: dict[str, torch.Tensor]) -> None:
    del state["decoder.layers.0.fc1.bias"]


def add(state: dict[str, torch.Tensor]) -> None:
    state["decoder.adapter"] = torch.ones(2)


def reshape(state: dict[str, torch.Tensor]) -> None:
    state["decoder.layers.0.fc1.bias"] = torch.ones(63)


def untie(state: dict[str, torch.Tensor]) -> None:
    state["decoder.output_projection.weight"] = torch.ones_like(state["decoder.output_projection.weight"])


def diverge(state: dict[str, torch.Tensor]) -> None:
    state["encoder.layers.0.fc1.bias"][0] = float("nan")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (drop, r"do not make a transformer .*fc1\.bias"),
        (add, r"do not make a transformer .*adapter"),
        (reshape, r"do not make a transformer .*fc1\.bias"),
        (untie, r"gives \S+ other values than the tensor it is tied to"),
        (diverge, r"weights that are not finite, in encoder\.layers\.0\.fc1\.bias"),
    ],
)
def test_tensors_must_match_strictly(
    change: Any, problem: str, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    path = edited(tiny_checkpoint, tmp_path / "c.pt", state=change)
    with pytest.raises(CheckpointError, match=problem):
        open_checkpoint(path, tiny_data, device="cpu")
