"""Translations of the fairseq backend against fairseq itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sensikit.backends.fairseq.decoding import _text, segments
from sensikit.backends.fairseq.opening import FairseqModel, open_checkpoint
from sensikit.backends.fairseq.translation import Translation
from sensikit.errors import DataError, OptionError
from sensikit.evaluation.resampling import identified
from sensikit.files import lines
from sensikit.settings import Decoding
from tests.conftest import HELD_OUT, LANGUAGES
from tests.support.checkpoints import MIXED, edited, translation

TEST = Decoding(beam=5, max_len_a=0, max_len_b=30)


@pytest.fixture
def mt(any_design: FairseqModel) -> Translation:
    return translation(any_design)


@pytest.fixture
def tiny_mt(tiny_backend: FairseqModel) -> Translation:
    return translation(tiny_backend)


def one_by_one(mt: Translation, language: str) -> list[str]:
    """Return fairseq's translation of each test sentence alone, without our batching or text."""
    from argparse import Namespace

    from fairseq.data.data_utils import post_process

    task = mt.opened.task
    task.args.source_lang, task.args.target_lang = mt.opened.pairs[language]
    generator = task.build_generator([mt.opened.module], Namespace(beam=5, max_len_a=0, max_len_b=30))
    dataset = mt.split(language, "test").dataset
    texts = []
    for index in range(len(dataset)):
        best = task.inference_step(generator, [mt.opened.module], dataset.collater([dataset[index]]))[0][0]
        words = [task.target_dictionary[int(token)] for token in best["tokens"] if int(token) != generator.eos]
        texts.append(post_process(" ".join(word for word in words if word != "__eng__"), "sentencepiece"))
    return texts


def test_translations_are_those_of_fairseq(mt: Translation, tiny_data: Path) -> None:
    for language in LANGUAGES:
        found = mt.translate(language, "test", TEST)
        assert found.hypotheses == one_by_one(mt, language)
        assert found.references == (tiny_data / "text" / f"test.{language}-eng.eng").read_text().splitlines()
        assert found.references_from == "text"
        assert found.truncated == 0


def test_the_model_has_learnt_something(tiny_mt: Translation) -> None:
    import sacrebleu

    for language in ("cat", "nob"):
        found = tiny_mt.translate(language, "test", TEST)
        assert sacrebleu.corpus_bleu(found.hypotheses, [found.references]).score > 20


@pytest.mark.parametrize("max_tokens", [1, 20, 50, 4096])
def test_every_sentence_comes_back_though_fairseq_drops_the_last_batch(max_tokens: int, tiny_mt: Translation) -> None:
    """With --required-batch-size-multiple 8 a set of 12 loses 4: the longest."""
    found = tiny_mt.translate("cat", "test", Decoding(max_len_a=0, max_len_b=30, max_tokens=max_tokens))
    assert len(found.hypotheses) == len(found.references) == HELD_OUT
    assert found.hypotheses == one_by_one(tiny_mt, "cat")


def test_segments_are_the_english_sentences_in_both_directions_and_decoded_where_there_is_no_text(
    tiny_checkpoint: Path, tiny_data: Path, tiny_mt: Translation
) -> None:
    english = lines(tiny_data / "text/test.cat-eng.eng")
    back = segments(tiny_mt.opened, "test", ("eng", "cat"), np.arange(HELD_OUT))
    bare = translation(open_checkpoint(tiny_checkpoint, tiny_data / "bin", device="cpu"))
    for found in (tiny_mt.segments("cat", "test"), back, bare.segments("cat", "test")):
        assert found.known_by == "eng"
        assert found.rows.tolist() == list(range(HELD_OUT))
    assert tiny_mt.segments("cat", "test").texts == back.texts == english
    decoded = bare.segments("cat", "test").texts
    assert decoded == bare.translate("cat", "test", TEST).references
    assert np.mean(identified(decoded) == identified(english)) > 0.5  # but for what is <unk> there


def test_first_sentences_alone(tiny_mt: Translation) -> None:
    everything = tiny_mt.translate("fao", "test", TEST)
    some = tiny_mt.translate("fao", "test", Decoding(max_len_a=0, max_len_b=30, max_sentences=5))
    assert some.hypotheses == everything.hypotheses[:5]
    assert some.references == everything.references[:5]
    more = tiny_mt.translate("fao", "test", Decoding(max_len_a=0, max_len_b=30, max_sentences=500))
    assert more == everything


def test_long_sentences_are_translated_from_what_fits(
    tiny_checkpoint: Path,
    tiny_data: Path,
    tiny_mt: Translation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = {"max_source_positions": 9, "max_target_positions": 40}
    path = edited(tiny_checkpoint, tmp_path / "c.pt", task=limits, model=limits)
    found = translation(open_checkpoint(path, tiny_data, device="cpu"))
    lengths = tiny_mt.sizes("cat", "test")[:, 0]
    sources: list[torch.Tensor] = []
    step = found.opened.task.inference_step
    monkeypatch.setattr(
        found.opened.task,
        "inference_step",
        lambda generator, models, sample: (
            sources.append(sample["net_input"]["src_tokens"]) or step(generator, models, sample)
        ),
    )
    translated = found.translate("cat", "test", TEST)
    assert translated.truncated == (lengths > 9).sum() > 0
    assert max(batch.shape[1] for batch in sources) == 9
    tag = found.opened.task.source_dictionary.index("__eng__")
    assert all((batch[:, -1] == tag).all() for batch in sources)
    assert len(translated.hypotheses) == HELD_OUT
    everything = tiny_mt.translate("cat", "test", TEST).hypotheses
    assert [text for text, length in zip(translated.hypotheses, lengths, strict=True) if length <= 9] == [
        text for text, length in zip(everything, lengths, strict=True) if length <= 9
    ]


def test_translating_leaves_no_trace(mt: Translation) -> None:
    """fairseq leaves the model in evaluation mode."""
    piece = mt.collate(MIXED)
    before = float(mt.loss(piece)[0].detach())
    weights = {name: tensor.clone() for name, tensor in mt.opened.module.state_dict().items()}
    mt.opened.module.train()
    mt.translate("cat", "test", TEST)
    assert all(part.training for part in mt.opened.module.modules())
    mt.opened.module.eval()
    assert float(mt.loss(piece)[0].detach()) == before
    assert all(torch.equal(tensor, weights[name]) for name, tensor in mt.opened.module.state_dict().items())
    assert not mt.opened.module.decoder.output_projection._forward_hooks


def test_a_beam_of_one_after_a_beam_of_five(mt: Translation) -> None:
    """fairseq's attention has a beam size of its own, which a generator may set."""
    greedy = Decoding(beam=1, max_len_a=0, max_len_b=30)
    first = mt.translate("cat", "test", greedy)
    mt.translate("cat", "test", TEST)
    assert mt.translate("cat", "test", greedy) == first


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("part", ["decoder.layers.1.fc2.weight", "decoder.embed_tokens.weight"])
def test_a_model_pruned_to_rubbish_still_decodes(value: float, part: str, mt: Translation) -> None:
    """Nothing of the output is probable or even defined: it runs on to the cap, and none is missing."""
    with torch.no_grad():
        mt.opened.module.get_parameter(part).fill_(value)
    cap = Decoding(beam=3, max_len_a=0, max_len_b=7)
    found = mt.translate("cat", "test", cap)
    assert len(found.hypotheses) == HELD_OUT
    assert max(len(text.split()) for text in found.hypotheses) <= 8


def test_a_model_pruned_to_nothing_still_decodes(mt: Translation) -> None:
    with torch.no_grad():
        for parameter in mt.opened.module.parameters():
            parameter.zero_()
    assert len(mt.translate("nob", "test", TEST).hypotheses) == HELD_OUT


def test_language_tags_are_no_text(tiny_mt: Translation) -> None:
    dictionary = tiny_mt.opened.task.target_dictionary
    symbols = ["__eng__", "▁ei", "__cat__", "m17", "<mask>", "▁no", "k3", "</s>"]
    tokens = [dictionary.index(symbol) for symbol in symbols]
    assert _text(tiny_mt.opened)(tokens) == "eim17 nok3"


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
    found = translation(open_checkpoint(tiny_checkpoint, data, device="cpu")).translate("cat", "test", TEST)
    assert found.references == lines[:-1]


def test_references_of_another_length(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    (data / "manifest.json").write_text('{"languages": {}}')
    (data / "text" / "test.cat-eng.eng").write_text("one line\n")
    with pytest.raises(DataError, match=r"test\.cat-eng\.eng: has 1 lines for 12 binarised sentences"):
        translation(open_checkpoint(tiny_checkpoint, data, device="cpu")).translate("cat", "test", TEST)


def test_references_decoded_from_the_binarised_target(tiny_checkpoint: Path, tiny_data: Path) -> None:
    found = translation(open_checkpoint(tiny_checkpoint, tiny_data / "bin", device="cpu")).translate(
        "cat", "test", TEST
    )
    assert found.references == (tiny_data / "text" / "test.cat-eng.eng").read_text().splitlines()


def test_decoding_that_leaves_the_shortest_sentence_no_token(tiny_mt: Translation) -> None:
    with pytest.raises(OptionError, match="--max-len-b: leaves no room"):
        tiny_mt.translate("cat", "test", Decoding(max_len_a=0.01, max_len_b=0))


def test_ctranslate2_says_the_same(mt: Translation) -> None:
    fast = Decoding(beam=5, max_len_a=0, max_len_b=30, engine="ctranslate2")
    for language in LANGUAGES:
        found, own = (mt.translate(language, "test", how).hypotheses for how in (fast, TEST))
        # at the longest allowed, fairseq ends an output and pays for the end, and ctranslate2 does not
        assert all(len(one) > 60 < len(other) for one, other in zip(found, own, strict=True) if one != other)
        assert sum(map(str.__eq__, found, own)) >= HELD_OUT * 3 // 4


def test_an_engine_of_another_framework_is_refused_and_what_ctranslate2_lacks_too(tiny_mt: Translation) -> None:
    with pytest.raises(OptionError, match="--engine: the model is of fairseq, not of huggingface"):
        tiny_mt.translate("cat", "test", Decoding(engine="huggingface"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_mt.opened.module.cfg, "activation_fn", "tanh")
        with pytest.raises(OptionError, match="--engine: ctranslate2 does not know an activation like tanh"):
            tiny_mt.translate("cat", "test", Decoding(engine="ctranslate2"))
    assert Decoding(engine="ctranslate2").choices("test", "text")["engine"] == "ctranslate2"
    assert "engine" not in Decoding(engine="fairseq").choices("test", "text")
