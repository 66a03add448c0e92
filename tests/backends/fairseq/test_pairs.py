"""A fairseq checkpoint of pairs that have no language in common: what is measured of it, and what is left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sensikit.backends import open_model
from sensikit.backends.base import Model
from sensikit.backends.fairseq import compat
from sensikit.backends.fairseq.inspection import inspect
from sensikit.backends.inspection import describe
from sensikit.errors import DataError, OptionError
from sensikit.languages import direction_of
from sensikit.settings import Decoding
from tests.conftest import REPLACED, WORDS, binarise, pieces, train_checkpoint, word
from tests.support.checkpoints import translation, values
from tests.support.command import call

PAIRS = {("cat", "nob"): 60, ("fao", "nob"): 50, ("cat", "eng"): 70}
"""Training sentences of each."""
CODES = ["cat", "nob", "fao", "eng"]
DESIGN = (*REPLACED, "--langs", ",".join(CODES), "--lang-pairs", ",".join(map("-".join, PAIRS)))
HELD_OUT = 8
ALL = "cat-nob+fao-nob+cat-eng"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare data-bin of the pairs, word for word."""
    root = tmp_path_factory.mktemp("pairs") / "bin"
    root.mkdir()
    symbols = sorted({piece for code in CODES for n in range(WORDS) for piece in pieces(word(code, n)).split()})
    symbols += [f"__{code}__" for code in CODES]
    for code in CODES:
        (root / f"dict.{code}.txt").write_text("".join(f"{symbol} 1\n" for symbol in symbols), encoding="utf-8")
    dictionary = compat.load().Dictionary.load(str(root / "dict.eng.txt"))
    for (source, target), count in PAIRS.items():
        for split, size in {"train": count, "valid": HELD_OUT, "test": HELD_OUT}.items():
            for code in (source, target):
                texts = [" ".join(word(code, (7 * n + k) % WORDS) for k in range(2 + n % 4)) for n in range(size)]
                binarise(root / f"{split}.{source}-{target}.{code}", texts, dictionary)
    return root


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on all pairs."""
    return train_checkpoint(data, tmp_path_factory.mktemp("trained"), *DESIGN, updates=12)


def groups_of(model: Model) -> dict[str, tuple[str | None, str | None, int]]:
    return {key: (g.source, g.target, g.sizes["train"]) for key, g in model.task("mt").groups.items()}


WHOLE = {"-".join(pair): (*pair, count) for pair, count in PAIRS.items()}


@pytest.mark.parametrize(
    ("direction", "pairs", "groups", "name"),
    [
        (None, None, WHOLE, ALL),
        (ALL, None, WHOLE, ALL),
        ("xxx-nob", None, {"cat": ("cat", "nob", 60), "fao": ("fao", "nob", 50)}, "xxx-nob"),
        ("cat-xxx", None, {"nob": ("cat", "nob", 60), "eng": ("cat", "eng", 70)}, "cat-xxx"),
        (None, ["fao-nob", "cat-nob"], {"cat": ("cat", "nob", 60), "fao": ("fao", "nob", 50)}, "xxx-nob"),
        (
            None,
            ["cat-eng", "fao-nob"],
            {"fao-nob": ("fao", "nob", 50), "cat-eng": ("cat", "eng", 70)},
            "fao-nob+cat-eng",
        ),
        (None, ["cat-eng"], {"cat": ("cat", "eng", 70)}, "cat-eng"),
    ],
)
def test_a_selection_is_found_again_by_its_direction(
    checkpoint: Path,
    data: Path,
    direction: str | None,
    pairs: list[str] | None,
    groups: dict[str, tuple[str, str, int]],
    name: str,
) -> None:
    model = open_model(checkpoint, data, direction, "cpu", pairs)
    assert groups_of(model) == groups
    assert model.task("mt").direction == name
    assert model.notes == []
    again = open_model(checkpoint, data, name, "cpu")
    assert groups_of(again) == groups
    assert again.task("mt").direction == name
    assert again.provenance == model.provenance


def test_selections_read_other_files(checkpoint: Path, data: Path) -> None:
    found = {
        open_model(checkpoint, data, direction, "cpu").provenance.data_sha256
        for direction in (ALL, "xxx-nob", "cat-xxx", "cat-eng")
    }
    assert len(found) == 4


def test_a_group_is_called_by_both_of_its_languages(checkpoint: Path, data: Path) -> None:
    group = open_model(checkpoint, data, device="cpu").task("mt").groups["fao-nob"]
    assert (group.name, group.family, group.tier) == ("Faroese→Norwegian Bokmål", "North Germanic", "Very Low")
    assert group.sizes == {"train": 50, "valid": HELD_OUT, "test": HELD_OUT}


def test_a_batch_of_several_pairs_has_the_tags_of_each(checkpoint: Path, data: Path) -> None:
    model = open_model(checkpoint, data, device="cpu")
    task = translation(model)
    items = [("cat-eng", 3), ("cat-nob", 0), ("fao-nob", 7), ("cat-eng", 1)]
    dictionary = task.opened.task.target_dictionary
    micro_batch = task.collate(items)
    tags = [dictionary[int(token)] for token in micro_batch.net_input["prev_output_tokens"][:, 0]]
    assert [tags[micro_batch.order.index(place)] for place in range(4)] == ["__eng__", "__nob__", "__nob__", "__eng__"]
    assert values(model, items) == pytest.approx(sum(values(model, [item]) for item in items), rel=1e-5)
    # a sentence is the same, whichever other pairs are opened with it
    alone = open_model(checkpoint, data, "cat-eng", "cpu")
    assert values(alone, [("cat", 3)]) == pytest.approx(values(model, [("cat-eng", 3)]), rel=1e-6)


def test_every_pair_is_translated_into_its_own_language(
    checkpoint: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = translation(open_model(checkpoint, data, device="cpu"))
    fairseq, told = task.opened.task, []
    step = fairseq.inference_step
    monkeypatch.setattr(fairseq, "inference_step", lambda *a: told.append(fairseq.args.target_lang) or step(*a))
    for key, pair in task.opened.pairs.items():
        found = task.translate(key, "test", Decoding(beam=1, max_len_a=0, max_len_b=10))
        assert found.references[1] == " ".join(word(pair[1], (7 + k) % WORDS) for k in range(3))
        assert found.references_from == "binarised"
    assert list(dict.fromkeys(told)) == ["nob", "eng"]


def test_what_inspect_says_of_it(checkpoint: Path) -> None:
    contents = inspect(checkpoint)
    assert contents.directions == {"pairs": list(WHOLE)}
    assert ["pairs", "cat-nob,", "fao-nob,", "cat-eng"] in [line.split() for line in describe(contents).splitlines()]


def test_pairs_that_were_not_trained_are_one_line(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="not trained on nob-cat; choose among cat-nob, fao-nob, cat-eng"):
        open_model(checkpoint, data, pairs=["nob-cat"])
    with pytest.raises(OptionError, match="not trained on xxx-eng; give cat-xxx or xxx-nob"):
        open_model(checkpoint, data, "xxx-eng")


# data that are missing


@pytest.fixture
def without(data: Path, tmp_path: Path) -> Path:
    """The data without Faroese, dictionary and all."""
    place = tmp_path / "bin"
    return Path(shutil.copytree(data, place, ignore=lambda *_: [path.name for path in data.glob("*fao*")]))


def test_a_group_without_data_is_left_out_and_noted(checkpoint: Path, data: Path, without: Path) -> None:
    model = open_model(checkpoint, without, device="cpu")
    assert groups_of(model) == {key: group for key, group in WHOLE.items() if key != "fao-nob"}
    assert model.notes == [f"fao-nob: left out, no data in {without}"]
    # the others are measured as ever
    whole = open_model(checkpoint, data, device="cpu")
    items = [("cat-nob", 4), ("cat-eng", 2)]
    assert values(model, items) == values(whole, items)
    # the selection says what was asked for, and is found again
    assert model.task("mt").direction == ALL
    again = open_model(checkpoint, without, ALL, "cpu")
    assert (groups_of(again), again.provenance) == (groups_of(model), model.provenance)
    with pytest.raises(OptionError, match="fao-nob: is no group of the checkpoint here; it has cat-nob, cat-eng"):
        model.task("mt").sizes("fao-nob")


def test_it_is_left_out_of_an_analysis_of_the_others(checkpoint: Path, without: Path, tmp_path: Path) -> None:
    options = ["--data", without, "--out", tmp_path / "run", "--batches", 4, "--tokens", 40, "--device", "cpu"]
    done = call("analyze", checkpoint, *options)
    assert done.code == 0, done.error
    assert "fao-nob: left out" in done.error
    assert sorted(path.stem for path in (tmp_path / "run" / "sensitivity" / "mt").glob("cat*.safetensors"))


def test_no_data_at_all_are_refused(checkpoint: Path, without: Path) -> None:
    with pytest.raises(DataError, match="has no binarised fao-nob; give the data that the checkpoint was trained on"):
        open_model(checkpoint, without, "fao-nob")


def test_the_direction_of_a_selection_needs_no_data() -> None:
    assert direction_of([("cat", "nob")], list(PAIRS)) == "cat-nob"
