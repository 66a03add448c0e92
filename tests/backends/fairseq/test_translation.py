"""Batches and losses of the fairseq backend against fairseq itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sensikit.backends.fairseq.compat import quiet
from sensikit.backends.fairseq.opening import FairseqModel, open_checkpoint
from sensikit.backends.fairseq.translation import Translation
from sensikit.errors import OptionError
from tests.conftest import LANGUAGES
from tests.support.checkpoints import MIXED, edited, translation, values

FIRST = [("cat", 0), ("cat", 1), ("cat", 2), ("cat", 3)]


@pytest.fixture
def mt(any_design: FairseqModel) -> Translation:
    return translation(any_design)


def fairseq_loss(mt: Translation, items: list[tuple[str, int]], split: str = "train") -> tuple[float, float]:
    """Return (training loss, nll) of fairseq's own criterion on fairseq's own batches, one for each language."""
    from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion

    smoothing, ignored = mt.opened.settings.label_smoothing, mt.opened.settings.ignored_prefix
    criterion = LabelSmoothedCrossEntropyCriterion(mt.opened.task, False, smoothing, ignored)
    totals = [0.0, 0.0]
    for language in sorted({language for language, _ in items}):
        dataset = mt.split(language, split).dataset
        sample = dataset.collater([dataset[index] for code, index in items if code == language])
        with quiet(), torch.no_grad():
            loss, _, log = criterion(mt.opened.module, sample)
        totals = [totals[0] + float(loss), totals[1] + float(log["nll_loss"])]
    return totals[0], totals[1]


def test_sizes_count_what_the_loss_counts(mt: Translation) -> None:
    for language, count in LANGUAGES.items():
        sizes = mt.sizes(language)
        assert sizes.shape == (count, 2)
        assert sizes.dtype == np.int64
        for index in range(0, count, 17):
            piece = mt.collate([(language, index)])
            assert mt.loss(piece)[1] == sizes[index, 1]
            assert piece.net_input["src_tokens"].shape == (1, sizes[index, 0])
    piece = mt.collate(MIXED)
    assert mt.loss(piece)[1] == sum(mt.sizes(language)[index, 1] for language, index in MIXED)


def test_a_language_tag_before_the_target_is_a_target(tiny_backend: FairseqModel, plain_backend: FairseqModel) -> None:
    replaced, plain = translation(tiny_backend).sizes("cat"), translation(plain_backend).sizes("cat")
    np.testing.assert_array_equal(plain, replaced + 1)


def test_tags_that_replace_the_end_of_the_sentence(tiny_backend: FairseqModel) -> None:
    piece = translation(tiny_backend).collate(MIXED)
    dictionary = tiny_backend.opened.task.target_dictionary
    english = dictionary.index("__eng__")
    assert set(piece.net_input["src_tokens"][:, -1].tolist()) == {english}
    assert set(piece.net_input["prev_output_tokens"][:, 0].tolist()) == {english}
    assert not (piece.target == english).any()
    assert ((piece.target == dictionary.eos()).sum(dim=1) == 1).all()


def test_tags_that_stand_before_the_sentences(plain_backend: FairseqModel) -> None:
    piece = translation(plain_backend).collate([("cat", 0), ("fao", 0)])
    dictionary = plain_backend.opened.task.target_dictionary
    sources = piece.net_input["src_tokens"]
    first = [int(row[row != dictionary.pad()][0]) for row in sources]
    assert [dictionary[index] for index in first] == ["__cat__", "__fao__"]
    assert [dictionary[int(index)] for index in piece.target[:, 0]] == ["__eng__", "__eng__"]


def test_a_mixed_piece_is_the_sum_of_its_languages(mt: Translation) -> None:
    alone = sum(values(mt, [item]) for item in MIXED)
    assert values(mt, MIXED) == pytest.approx(alone, rel=1e-5)
    assert len(mt.collate(MIXED).target) == len(MIXED)


def test_items_that_fairseq_caches_are_never_written_to(mt: Translation) -> None:
    """MMapIndexedDataset caches its last 8 items: a tag written into one would stay there."""
    dataset = mt.split("cat", "train").dataset
    before = {key: dataset[0][key].clone() for key in ("source", "target")}
    first = mt.collate(FIRST)
    for _ in range(2):
        mt.loss(mt.collate(FIRST))
    again = mt.collate(FIRST)
    assert torch.equal(first.target, again.target)
    assert all(torch.equal(first.net_input[name], again.net_input[name]) for name in first.net_input)
    assert all(torch.equal(dataset[0][key], before[key]) for key in before)


def test_pairs_longer_than_the_positions_are_left_out_and_counted(
    tiny_checkpoint: Path, tiny_data: Path, tiny_backend: FairseqModel, tmp_path: Path
) -> None:
    limits = {"max_source_positions": 9, "max_target_positions": 11}
    path = edited(tiny_checkpoint, tmp_path / "c.pt", task=limits, model=limits)
    found = translation(open_checkpoint(path, tiny_data, device="cpu"))
    everything = translation(tiny_backend).sizes("cat")
    fit = (everything <= [9, 11]).all(axis=1)
    assert 0 < fit.sum() < len(fit)
    np.testing.assert_array_equal(found.sizes("cat"), everything[fit])
    assert found.left_out("cat") == len(fit) - fit.sum()
    assert translation(tiny_backend).left_out("cat") == 0
    row = 5
    same = translation(tiny_backend).collate([("cat", int(np.flatnonzero(fit)[row]))])
    assert torch.equal(found.collate([("cat", row)]).target, same.target)


def test_loss_is_that_of_fairseqs_criterion(mt: Translation) -> None:
    train, nll = fairseq_loss(mt, MIXED)
    assert values(mt, MIXED, "nll") == pytest.approx(nll, rel=1e-5)
    assert values(mt, MIXED, "train") == pytest.approx(train, rel=1e-5)
    assert train > nll * 1.01


def test_loss_of_a_checkpoint_trained_without_smoothing(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    path = edited(tiny_checkpoint, tmp_path / "c.pt", criterion={"_name": "cross_entropy"})
    found = translation(open_checkpoint(path, tiny_data, device="cpu"))
    assert values(found, MIXED, "train") == values(found, MIXED, "nll")


def test_the_ignored_prefix_is_no_target(plain_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    path = edited(plain_checkpoint, tmp_path / "c.pt", criterion={"ignore_prefix_size": 1})
    found = translation(open_checkpoint(path, tiny_data, device="cpu"))
    piece = found.collate(MIXED)
    tokens = found.loss(piece)[1]
    assert tokens == int((piece.target != found.opened.task.target_dictionary.pad()).sum()) - len(MIXED)
    assert tokens == sum(found.sizes(language)[index, 1] for language, index in MIXED)
    train, nll = fairseq_loss(found, MIXED)
    assert values(found, MIXED, "nll") == pytest.approx(nll, rel=1e-5)
    assert values(found, MIXED, "train") == pytest.approx(train, rel=1e-5)


def test_loss_in_double_precision_is_not_rounded_by_fairseqs_log_softmax(mt: Translation) -> None:
    """fairseq casts logits to float32: a step of 1e-9 in a weight would vanish."""
    single = values(mt, MIXED)
    mt.opened.module.double()
    loss, _ = mt.loss(mt.collate(MIXED))
    assert loss.dtype == torch.float64
    assert float(loss.detach()) == pytest.approx(single, rel=1e-5)
    weight = mt.opened.module.decoder.layers[1].fc1.bias
    loss.backward()
    index = int(weight.grad.abs().argmax())
    step, ends = 1e-6, []
    with torch.no_grad():
        for sign in (1, -1):
            weight[index] += sign * step
            ends.append(values(mt, MIXED))
            weight[index] -= sign * step
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(weight.grad[index]), rel=1e-6)


def test_loss_obeys_the_mode_of_the_module(mt: Translation) -> None:
    piece = mt.collate(MIXED)
    mt.opened.module.train()
    torch.manual_seed(1)
    noisy = [float(mt.loss(piece)[0].detach()) for _ in range(2)]
    assert noisy[0] != noisy[1]
    assert mt.opened.module.training
    mt.opened.module.eval()
    assert values(mt, MIXED) == values(mt, MIXED)


def test_loss_of_an_unknown_kind(tiny_backend: FairseqModel) -> None:
    with pytest.raises(OptionError, match="'sum' is unknown"):
        translation(tiny_backend).loss(translation(tiny_backend).collate(FIRST), "sum")


def test_loss_of_an_unknown_criterion(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    path = edited(tiny_checkpoint, tmp_path / "c.pt", criterion={"_name": "my_own"})
    found = translation(open_checkpoint(path, tiny_data, device="cpu"))
    assert values(found, FIRST) > 0
    with pytest.raises(OptionError, match=r"the criterion .* is unknown; give nll"):
        values(found, FIRST, "train")
