"""Opening checkpoints with the fairseq backend: designs, directions, devices, provenance."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensikit.backends.base import Model, Translation
from sensikit.backends.fairseq.checkpoint import read
from sensikit.backends.fairseq.compat import load, quiet
from sensikit.backends.fairseq.data import open_data
from sensikit.backends.fairseq.model import build_task
from sensikit.backends.fairseq.opening import FairseqModel, open_checkpoint
from sensikit.backends.fairseq.settings import trained
from sensikit.errors import CheckpointError, DataError, OptionError
from sensikit.parameters import registry
from sensikit.settings import Decoding, Tiers
from tests.conftest import HELD_OUT, LANGUAGES, write_corpus
from tests.support.checkpoints import MIXED, content_of, edited, translation, values

TEST = Decoding(beam=5, max_len_a=0, max_len_b=30)


def test_it_is_a_model_with_a_task(tiny_backend: FairseqModel) -> None:
    checked: Model = tiny_backend
    assert checked.device == torch.device("cpu")
    assert not checked.module.training
    assert checked.tasks == ("mt",)
    assert checked.notes == []
    task = checked.task("mt")
    assert task is checked.task("mt", 2)
    assert isinstance(task, Translation)
    assert (task.name, task.direction) == ("mt", "xxx-eng")
    assert list(task.groups) == list(LANGUAGES)
    catalan = task.groups["cat"]
    assert (catalan.key, catalan.source, catalan.target) == ("cat", "cat", "eng")
    assert (catalan.name, catalan.family, catalan.tier) == ("Catalan", "Western Romance", "High")
    assert catalan.sizes == {"train": LANGUAGES["cat"], "valid": HELD_OUT, "test": HELD_OUT}


def test_a_tied_embedding_is_one_parameter(tiny_backend: FairseqModel) -> None:
    parameters = registry(tiny_backend.module, tiny_backend.ghosts)
    first = parameters[0]
    assert first.name == "encoder.embed_tokens.weight"
    assert set(first.aliases) == {"decoder.embed_tokens.weight", "decoder.output_projection.weight"}
    assert len({parameter.name for parameter in parameters}) == len(parameters) == 89


def test_tiers_that_are_given_come_before_those_of_the_data_and_monolingual_text_is_counted(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    manifest["languages"]["fao"]["mono"] = 5000
    (data / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    # cat, nob, fao: 240, 200, 160 pairs; high and low begin at 220 and 180 in the data
    given = Tiers(tiers=f"{LANGUAGES['nob']},{LANGUAGES['nob']}", tier=("cat=very-low",))
    groups = open_checkpoint(tiny_checkpoint, data, device="cpu", tiers=given).task("mt").groups
    assert {key: group.tier for key, group in groups.items()} == {"cat": "Very Low", "nob": "High", "fao": "Very Low"}
    assert {key: group.mono for key, group in groups.items()} == {"cat": None, "nob": None, "fao": 5000}
    with pytest.raises(OptionError, match="--tier: isl is no group here; choose among cat, nob, fao"):
        open_checkpoint(tiny_checkpoint, data, device="cpu", tiers=Tiers(tier=("isl=high",)))


def test_bare_data_directory(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(tiny_data / "bin", tmp_path / "bare"))
    found = open_checkpoint(tiny_checkpoint, bare, device="cpu")
    catalan = found.task("mt").groups["cat"]
    assert (catalan.name, catalan.tier, catalan.sizes["train"]) == ("Catalan", "Very Low", LANGUAGES["cat"])
    assert translation(found).translate("cat", "test", TEST).references_from == "binarised"


def test_the_binaries_that_corpus_made_have_the_raw_references_of_their_directory(
    tiny_checkpoint: Path, tiny_data: Path
) -> None:
    found, whole = (open_checkpoint(tiny_checkpoint, path, device="cpu") for path in (tiny_data / "bin", tiny_data))
    assert found.task("mt").groups == whole.task("mt").groups
    assert found.provenance.data_sha256 == whole.provenance.data_sha256
    translations = translation(found).translate("cat", "test", TEST)
    assert translations.references_from == "text"
    assert translations.references == (tiny_data / "text/test.cat-eng.eng").read_text(encoding="utf-8").splitlines()


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
    design: dict[str, Any], tiny_checkpoint: Path, tiny_backend: FairseqModel, tiny_data: Path, tmp_path: Path
) -> None:
    """A model that fairseq builds of these settings, opened from a file, gives what it gave before."""
    from argparse import Namespace

    sides = {f"{side}_{name}": number for side in ("encoder", "decoder") for name, number in
             {"embed_dim": 32, "ffn_embed_dim": 64, "attention_heads": 2, "layers": 2}.items()}  # fmt: skip
    settings = {"arch": "transformer", "share_all_embeddings": True, **sides, **design}
    torch.manual_seed(3)
    original = tiny_backend.opened.task.build_model(Namespace(**settings)).eval()

    def replace(state: dict[str, torch.Tensor]) -> None:
        state.clear()
        state.update(original.state_dict())

    defaults = {"encoder_normalize_before": None, "decoder_normalize_before": None, "decoder_output_dim": None}
    defaults |= {"share_decoder_input_output_embed": None, "decoder_input_dim": None}
    path = edited(tiny_checkpoint, tmp_path / "c.pt", model={**defaults, **settings}, state=replace)
    found = open_checkpoint(path, tiny_data, device="cpu")
    piece = translation(found).collate(MIXED)
    with quiet():
        assert torch.equal(found.module(**piece.net_input)[0], original(**piece.net_input)[0])
    assert {name for name, _ in found.module.named_parameters()} == {name for name, _ in original.named_parameters()}
    translated = translation(found).translate("cat", "test", TEST)
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


def test_checkpoint_of_fairseq_before_0_10(
    tiny_checkpoint: Path, tiny_backend: FairseqModel, tiny_data: Path, tmp_path: Path
) -> None:
    """All its settings are in one Namespace, named args."""
    content = content_of(tiny_checkpoint)
    config = content.pop("cfg")
    flat = {**vars(config["model"]), **vars(config["task"]), "criterion": "label_smoothed_cross_entropy"}
    del flat["_name"]
    torch.save({**content, "args": argparse.Namespace(**flat), "cfg": None}, tmp_path / "c.pt")
    found = open_checkpoint(tmp_path / "c.pt", tiny_data, device="cpu")
    for kind in ("nll", "train"):
        assert values(found, kind=kind) == values(tiny_backend, kind=kind)


def task_of(checkpoint: Path, data: Path) -> Any:
    settings = trained(read(checkpoint))
    return build_task(load(), settings, settings.pairs, open_data(data))


def test_the_order_of_langs_decides_the_tags(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """fairseq appends the tags to a dictionary without them, in the order of --langs."""
    data = write_corpus(tmp_path / "data", tags=False)
    order = ["nob", "eng", "fao", "cat"]
    named = edited(tiny_checkpoint, tmp_path / "named.pt", task={"langs": order})
    assert task_of(named, data).target_dictionary.symbols[-4:] == [f"__{code}__" for code in order]


def test_the_order_of_languages_from_a_file(tiny_checkpoint: Path, tmp_path: Path) -> None:
    data = write_corpus(tmp_path / "data", tags=False)
    missing = {"langs": None, "lang_dict": "/some/where/languages.txt"}
    path = edited(tiny_checkpoint, tmp_path / "c.pt", task=missing, model=missing)
    with pytest.raises(DataError, match=r"languages\.txt: does not exist; put the file"):
        task_of(path, data)
    (data / "bin" / "languages.txt").write_text("fao\nnob\neng\n\ncat\n")
    assert task_of(path, data).langs == ["fao", "nob", "eng", "cat"]
    elsewhere = edited(tiny_checkpoint, tmp_path / "d.pt", task={"langs": None, "lang_dict": "../.."}, model=missing)
    with pytest.raises(CheckpointError, match="lang_dict"):
        task_of(elsewhere, data)


def test_the_order_of_languages_that_nobody_gave(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    none = {"langs": None}
    path = edited(tiny_checkpoint, tmp_path / "c.pt", task=none, model=none)
    assert task_of(path, tiny_data).langs == ["cat", "eng", "fao", "nob"]


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


@pytest.mark.parametrize("arch", ["sensikit_transformer", "sensikit_big12"])
def test_checkpoint_of_our_own_training(
    arch: str, tiny_checkpoint: Path, tiny_backend: FairseqModel, tiny_data: Path, tmp_path: Path
) -> None:
    """It may hold a second projection, for denoising, that translation never reads."""

    def extend(state: dict[str, torch.Tensor]) -> None:
        state["encoder_projection.weight"] = torch.ones(tiny_backend.module.encoder.embed_tokens.weight.shape)

    task, model = {"_name": "sensikit", "denoise": "cd"}, {"arch": arch, "_name": arch, "separate_projection": True}
    criterion = {"_name": "sensikit", "distill": "translation"}
    path = edited(tiny_checkpoint, tmp_path / "c.pt", task=task, model=model, criterion=criterion, state=extend)
    found = open_checkpoint(path, tiny_data, device="cpu")
    for kind in ("nll", "train"):
        assert values(found, MIXED, kind) == values(tiny_backend, MIXED, kind)
    assert "encoder_projection.weight" not in dict(found.module.named_parameters())


@pytest.fixture
def reversed_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The same weights, said to be trained from English."""
    pairs = {"lang_pairs": ["eng-nob", "eng-cat", "eng-fao"]}
    return edited(tiny_checkpoint, tmp_path / "from.pt", task=pairs, model=pairs)


def test_from_english(reversed_checkpoint: Path, tiny_data: Path) -> None:
    found = open_checkpoint(reversed_checkpoint, tiny_data, device="cpu")
    assert found.task("mt").direction == "eng-xxx"
    assert list(found.task("mt").groups) == ["nob", "cat", "fao"]
    piece = translation(found).collate([("nob", 0), ("cat", 0)])
    tags = [found.opened.task.target_dictionary.index(f"__{code}__") for code in ("nob", "cat")]
    assert piece.net_input["prev_output_tokens"][:, 0].tolist() == tags
    assert piece.net_input["src_tokens"][:, -1].tolist() == tags
    translated = translation(found).translate("fao", "test", TEST)
    assert translated.references == (tiny_data / "text" / "test.fao-eng.fao").read_text().splitlines()


def test_a_generator_is_told_the_language_it_translates_into(
    reversed_checkpoint: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = open_checkpoint(reversed_checkpoint, tiny_data, device="cpu")
    told = []
    task = found.opened.task
    step = task.inference_step
    monkeypatch.setattr(task, "inference_step", lambda *given: told.append(task.args.target_lang) or step(*given))
    for language in ("cat", "fao"):
        translation(found).translate(language, "test", TEST)
    assert told == ["cat", "fao"]


def test_both_directions_and_the_default_is_into_english(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    pairs = {"lang_pairs": "eng-cat,cat-eng,eng-nob,nob-eng"}
    path = edited(tiny_checkpoint, tmp_path / "both.pt", task=pairs, model=pairs)
    assert open_checkpoint(path, tiny_data, device="cpu").task("mt").direction == "xxx-eng"
    found = open_checkpoint(path, tiny_data, "eng-xxx", "cpu").task("mt")
    assert (found.direction, list(found.groups)) == ("eng-xxx", ["cat", "nob"])


def test_direction_that_was_not_trained(tiny_checkpoint: Path, tiny_data: Path) -> None:
    with pytest.raises(OptionError, match="not trained on eng-xxx; give xxx-eng"):
        open_checkpoint(tiny_checkpoint, tiny_data, "eng-xxx", "cpu")
    with pytest.raises(OptionError, match="--direction: the model was not trained on eng-cat; choose among cat-eng,"):
        open_checkpoint(tiny_checkpoint, tiny_data, "eng-cat", "cpu")
    with pytest.raises(OptionError, match="--pairs: the model was not trained on eng-cat; choose among cat-eng, nob"):
        open_checkpoint(tiny_checkpoint, tiny_data, None, "cpu", ["cat-eng", "eng-cat"])


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
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu(tiny_checkpoint: Path, tiny_data: Path) -> None:
    there = open_checkpoint(tiny_checkpoint, tiny_data, device="cuda")
    here = open_checkpoint(tiny_checkpoint, tiny_data, device="cpu")
    for kind in ("nll", "train"):
        assert values(there, MIXED, kind) == pytest.approx(values(here, MIXED, kind), rel=1e-4)
    assert len(translation(there).translate("cat", "test", TEST).hypotheses) == HELD_OUT
