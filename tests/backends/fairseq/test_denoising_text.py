"""`--task denoise` on fairseq checkpoints: the sentences are those that were trained on, each with its own noise."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sensikit.backends.fairseq.denoising import Denoising
from sensikit.backends.fairseq.opening import open_checkpoint
from sensikit.errors import DataError, OptionError
from sensikit.files import read_json, sha256, write_json
from sensikit.sensitivity.planning import make_plan
from sensikit.settings import AnalysisSettings
from tests.support import training_system
from tests.support.checkpoints import translation
from tests.support.denoised import ITEMS, denoising, opened

# the examples


@pytest.mark.parametrize("mono", ["bitext", "extra", "both"])
def test_the_sentences_are_those_that_were_trained_on(data_with_extra: Path, tmp_path: Path, mono: str) -> None:
    system, model = opened(data_with_extra, tmp_path / "c.pt", "cd", "--mono", mono)
    task, tags = denoising(model), system.data.mono.tags
    for code in ("cat", "nob", "fao"):
        held = task.text(code, "train")
        found = sorted(held.data[int(row)].tolist() for row in held.rows)
        numbers = system.data.pools.get(code, np.empty(0, int))
        assert found == sorted(system.data.mono[n].tolist() for n in numbers)
        assert {task.tags[code]} == {int(tags[n]) for n in numbers} or not found
        assert len(found) == {
            "bitext": {"cat": 240, "nob": 200, "fao": 160},
            "extra": {"cat": 160, "nob": 0, "fao": 0},
        }["bitext" if mono == "both" else mono][code] + (160 if mono == "both" and code == "cat" else 0)


@pytest.fixture
def data_with_extra(tiny_data: Path, tmp_path: Path) -> Path:
    """The data with extra Catalan: the Faroese side, which it is not, of 160 sentences."""
    root = tmp_path / "data"
    shutil.copytree(tiny_data, root)
    (root / "bin" / "mono").mkdir()
    for end in ("idx", "bin"):
        shutil.copy(root / "bin" / f"train.fao-eng.fao.{end}", root / "bin" / "mono" / f"mono.cat.{end}")
    return root


def test_of_pairs_the_groups_are_their_languages(data_with_extra: Path, tmp_path: Path) -> None:
    system = training_system.build(data_with_extra, "cd")
    task = system.task.args
    task.lang_pairs = ["cat-eng", "eng-fao", "nob-eng"]
    path = training_system.saved(system, tmp_path / "c.pt")
    model = open_checkpoint(path, data_with_extra, device="cpu", pairs=["cat-eng", "eng-fao"])
    assert list(model.task("mt").groups) == ["cat-eng", "eng-fao"]
    denoise = denoising(model)
    assert list(denoise.groups) == ["cat", "eng", "fao"]
    assert [(group.source, group.target) for group in denoise.groups.values()] == [(None, None)] * 3
    assert {key: group.sizes["train"] for key, group in denoise.groups.items()} == {"cat": 240, "eng": 240, "fao": 160}
    # English is that of its first pair, Catalan has its extra text too
    assert [len(denoise.sizes(key)) for key in denoise.groups] == [240 + 160, 240, 160]
    english = [item.tolist() for item in denoise.text("eng", "train").data]
    assert english == [pair["target"].tolist() for pair in translation(model).split("cat-eng", "train").dataset]


@pytest.mark.parametrize("direction", ["xxx-eng", "eng-xxx"])
def test_the_tag_is_that_of_the_language_itself_in_either_direction(
    tiny_data: Path, tmp_path: Path, direction: str
) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", "cd", direction=direction)
    task, dictionary = denoising(model), model.opened.task.source_dictionary
    for code, row in ITEMS:
        (part,) = task.collate([(code, row)])
        assert part.previous is not None
        assert dictionary[int(part.source[0, -1])] == dictionary[int(part.previous[0, 0])] == f"__{code}__"
        raw = task.text(code, "train").data[int(task.text(code, "train").rows[row])]
        assert part.previous[0, 1:].tolist() == raw[:-1].tolist()  # the decoder reads the clean sentence


def test_a_held_out_split_has_its_own_sentences_and_no_extra_ones(data_with_extra: Path, tmp_path: Path) -> None:
    _, model = opened(data_with_extra, tmp_path / "c.pt", "cd", "--mono", "extra")
    assert len(denoising(model).sizes("cat", "valid")) == 12
    assert len(denoising(model).sizes("nob", "valid")) == 12
    with pytest.raises(DataError, match=r"^cat: is the only group with a train split \(no sentence of fao, nob is"):
        make_plan(model, AnalysisSettings(task="denoise"))


def test_the_noise_of_a_sentence_is_the_same_whichever_batch_it_is_in(tiny_data: Path, tmp_path: Path) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", "dae+mlm")
    task, again, other = denoising(model), Denoising(model.opened, 3), denoising(model, 4)
    assert task is denoising(model)
    together = task.collate(ITEMS)
    same = 0
    for number, item in enumerate(ITEMS):
        for whole, alone, elsewhere in zip(together, again.collate([item]), other.collate([item]), strict=True):
            length = int(alone.lengths[0])
            assert torch.equal(whole.source[number, :length], alone.source[0])
            assert set(whole.source[number, length:].tolist()) <= {1}
            same += elsewhere.source.tolist() == alone.source.tolist()
    assert same < len(ITEMS)  # of 16: another seed is other noise


def test_equal_sentences_have_noise_of_their_own(data_with_extra: Path, tmp_path: Path) -> None:
    _, model = opened(data_with_extra, tmp_path / "c.pt", "cd", "--mono", "extra", "--mask-ratio", "0.9")
    task = denoising(model)
    text = task.text("cat", "train")
    bitext = Denoising(model.opened, 3)
    bitext.extra = {}
    rows = [int(row) for row in text.rows[:40]]
    own = [task._noised("cd", "cat", "train", text.data, row).source.tolist() for row in rows]
    others = [task._noised("cd", "fao", "train", text.data, row).source.tolist() for row in rows]
    assert sum(a[:-1] != b[:-1] for a, b in zip(own, others, strict=True)) > 20


# a sentence, token by token


def test_the_layout_is_a_short_masked_sentence_of_each_language_as_collate_gives_it(
    tiny_data: Path, tmp_path: Path
) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", "cd")
    task = denoising(model)
    layout = task.layout(["cat", "nob"])
    assert layout is not None
    assert list(dict.fromkeys(layout["group"])) == ["cat", "nob"]
    for code, rows in layout.groupby("group"):
        assert rows["position"].tolist() == list(range(len(rows)))
        assert 5 <= len(rows) <= 10
        assert "<mask>" in list(rows["source"])
        (same,) = [
            part
            for part in (task.collate([(str(code), row)])[0] for row in range(len(task.sizes(str(code)))))
            if [task.dictionary[int(token)] for token in part.source[0]] == rows["source"].tolist()
        ][:1]
        said = [same.targets["encoder"][0], same.previous[0], same.targets["decoder"][0]]  # type: ignore[index]
        for column, tokens in zip(["encoder_target", "decoder_input", "decoder_target"], said, strict=True):
            assert rows[column].tolist() == ["" if token == 1 else task.dictionary[int(token)] for token in tokens]


def test_the_layout_is_the_first_such_sentence(tiny_data: Path, tmp_path: Path) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", "cd")
    task = denoising(model)
    layout = task.layout(["cat"])
    assert layout is not None
    sources = [task.collate([("cat", row)])[0].source[0].tolist() for row in range(len(task.sizes("cat")))]
    short = [each for each in sources if 5 <= len(each) <= 10 and task.vocabulary.mask in each]
    assert [task.dictionary[token] for token in short[0]] == layout["source"].tolist()


@pytest.mark.parametrize("method", ["dae", "mass"])
def test_objectives_that_share_no_positions_have_no_layout(tiny_data: Path, tmp_path: Path, method: str) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", method)
    assert denoising(model).layout(["cat"]) is None


def test_where_no_sentence_is_short_enough_there_is_no_layout(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", "cd")
    monkeypatch.setattr("sensikit.backends.fairseq.denoising.SHOWN", range(900, 901))
    assert denoising(model).layout(["cat"]) is None


@pytest.mark.parametrize("method", ["cd", "dae", "dae+mlm", "mass"])
def test_sizes_are_what_the_loss_counts(tiny_data: Path, tmp_path: Path, method: str) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", method)
    task = denoising(model)
    sizes = task.sizes("nob")
    assert sizes.shape == (200, 1 + len(task.terms))
    for row in range(30):
        piece = task.collate([("nob", row)])
        assert task.loss(piece)[1] == tuple(sizes[row, 1:])
        assert sizes[row, 0] == max(part.source.shape[1] for part in piece)


def test_sentences_longer_than_the_positions_are_left_out_and_counted(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the noise of DAE may lengthen a sentence beyond the positions: here by three <mask> for spans of no word
    monkeypatch.setattr("sensikit.training.noise.span_lengths", lambda *_: [0, 0, 0])
    system = training_system.build(tiny_data, "dae", "--max-source-positions", "9", "--max-target-positions", "12")
    model = open_checkpoint(training_system.saved(system, tmp_path / "c.pt"), tiny_data, device="cpu")
    task = denoising(model)
    raw = np.asarray(task._datasets("cat", "train")[0].sizes)
    assert task.left_out("cat") == (raw + 3 > 9).sum() > (raw > 9).sum() > 0
    assert task.sizes("cat")[:, 0].tolist() == [size + 3 for size in raw if size + 3 <= 9]
    task.loss(task.collate([("cat", row) for row in range(len(task.sizes("cat")))]))
    notes = make_plan(model, AnalysisSettings(task="denoise", tokens=20, batches=3)).notes
    assert f"cat: {task.left_out('cat')} sentences longer than the model takes are left out" in notes


def test_no_more_sentences_are_drawn_from_than_are_needed(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensikit.backends.fairseq.denoising.MOST", 50)
    _, model = opened(tiny_data, tmp_path / "c.pt", "cd")
    first, again, other = (Denoising(model.opened, seed) for seed in (3, 3, 4))
    rows = first.text("cat", "train").rows
    assert len(rows) == len(set(rows.tolist())) == len(first.sizes("cat")) == 50
    assert np.array_equal(rows, again.text("cat", "train").rows)
    assert not np.array_equal(rows, other.text("cat", "train").rows)


def test_an_unknown_language_and_a_missing_split_are_one_line(tiny_data: Path, tmp_path: Path) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", "cd")
    with pytest.raises(OptionError, match=r"^xyz: is no group of the checkpoint here"):
        denoising(model).sizes("xyz")
    with pytest.raises(DataError, match="has no devtest set of cat-eng"):
        denoising(model).sizes("cat", "devtest")


# the signature, and what belongs to it


def test_the_signature_says_how_was_masked_and_what_text(data_with_extra: Path, tmp_path: Path) -> None:
    found = {}
    for name, flags in {"both": ["dae+mlm"], "bitext": ["cd", "--mono", "bitext", "--mask-ratio", "0.45"]}.items():
        _, model = opened(data_with_extra, tmp_path / f"{name}.pt", *flags)
        found[name] = denoising(model).choices()
    assert found["bitext"] == {"noise": "cd0.45", "mono": "bitext"}
    assert found["both"]["noise"] == "dae0.3+mlm0.3"
    path = data_with_extra / "bin" / "mono" / "mono.cat.bin"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    other = open_checkpoint(tmp_path / "both.pt", data_with_extra, device="cpu")
    assert denoising(other).choices()["mono"].startswith("both/")
    assert denoising(other).choices() != found["both"]


def test_extra_text_that_is_not_what_the_manifest_says_is_refused(data_with_extra: Path, tmp_path: Path) -> None:
    opened(data_with_extra, tmp_path / "c.pt", "cd")
    manifest = read_json(data_with_extra / "manifest.json")
    path = data_with_extra / "bin" / "mono" / "mono.cat.bin"
    manifest["files"]["bin/mono/mono.cat.bin"] = sha256(path)
    write_json(data_with_extra / "manifest.json", manifest)
    path.write_bytes(path.read_bytes()[::-1])
    again = open_checkpoint(tmp_path / "c.pt", data_with_extra, device="cpu")
    with pytest.raises(DataError, match=r"mono.cat.bin: is not what the manifest says it was"):
        again.task("denoise")
