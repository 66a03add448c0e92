"""What is wrong with a directory, its tokenizer or its text is said in one line, and nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sensikit.backends.huggingface import compat, model
from sensikit.errors import CheckpointError
from tests.support import directories
from tests.support.command import call

Directory = Callable[[str], Path]
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"


def changed(path: Path, **values: Any) -> None:
    noted = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**noted, **values}), encoding="utf-8")


def no_weights(path: Path) -> None:
    (path / WEIGHTS).unlink()


def pickled(path: Path) -> None:
    torch.save({}, path / "pytorch_model.bin")
    (path / WEIGHTS).unlink()


def truncated(path: Path) -> None:
    (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:-100])


def sharded(path: Path) -> list[Path]:
    """Split the weights in two shards with an index."""
    state = load_file(path / WEIGHTS)
    names, parts = sorted(state), [path / f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    for half, part in zip(halves, parts, strict=True):
        save_file({name: state[name] for name in half}, part, {"format": "pt"})
    where = {name: part.name for half, part in zip(halves, parts, strict=True) for name in half}
    (path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}), encoding="utf-8")
    (path / WEIGHTS).unlink()
    return parts


def shard_missing(path: Path) -> None:
    sharded(path)[1].unlink()


def shard_of_another(path: Path) -> None:
    one, other = sharded(path)
    shutil.copyfile(one, other)


def shard_elsewhere(path: Path) -> None:
    sharded(path)
    changed(path / INDEX, weight_map={"a": "../../secret.safetensors"})


def unknown(path: Path) -> None:
    changed(path / "config.json", model_type="alien", architectures=["AlienForCausalLM"])


def remote(path: Path) -> None:
    changed(path / "config.json", model_type="alien", auto_map={"AutoConfig": "evil.Config"})
    (path / "evil.py").write_text("raise SystemExit('it ran')", encoding="utf-8")


def remote_tokenizer(path: Path) -> None:
    (path / "evil.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
    names = {"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", None]}}
    changed(path / "tokenizer_config.json", **names)


def classifier(path: Path) -> None:
    changed(path / "config.json", architectures=["BertForMaskedLM"])


def no_json(path: Path) -> None:
    (path / "config.json").write_text("{", encoding="utf-8")


def no_config(path: Path) -> None:
    (path / "config.json").unlink()


def larger(path: Path) -> None:
    changed(path / "config.json", d_model=32)


def enormous(path: Path) -> None:
    changed(path / "config.json", vocab_size=10**11)


def layers(path: Path) -> None:
    changed(path / "config.json", encoder_layers=10**9)


def other_tokenizer(path: Path) -> None:
    state = load_file(path / WEIGHTS)
    state["model.shared.weight"] = state["model.shared.weight"][:100].clone()
    save_file(
        {name: tensor for name, tensor in state.items() if "lm_head" not in name}, path / WEIGHTS, {"format": "pt"}
    )
    changed(path / "config.json", vocab_size=100)


def spoilt(path: Path) -> None:
    state = load_file(path / WEIGHTS)
    state["model.shared.weight"][0, 0] = torch.nan
    save_file(state, path / WEIGHTS, {"format": "pt"})


def untied(path: Path) -> None:
    state = load_file(path / WEIGHTS)
    save_file({**state, "lm_head.weight": state["model.shared.weight"] + 1}, path / WEIGHTS, {"format": "pt"})


def in_integers(path: Path) -> None:
    state = load_file(path / WEIGHTS)
    name = "model.encoder.layers.0.fc1.weight"
    save_file({**state, name: (state[name] * 100).to(torch.int8)}, path / WEIGHTS, {"format": "pt"})


def complex_bias(path: Path) -> None:
    state = load_file(path / WEIGHTS)
    name = "model.encoder.layers.0.fc1.bias"
    save_file({**state, name: state[name].to(torch.complex64)}, path / WEIGHTS, {"format": "pt"})


def pipe(path: Path) -> None:
    (path / "tokenizer.json").unlink()
    os.mkfifo(path / "tokenizer.json")


def no_start(path: Path) -> None:
    changed(path / "config.json", decoder_start_token_id=10**9)


def labels(path: Path) -> None:
    changed(path / "config.json", num_labels=10**10)


def positions(path: Path) -> None:
    changed(path / "config.json", max_position_embeddings=10**9)


def odd_setting(path: Path) -> None:
    changed(path / "config.json", activation_function=10**9)


def experts(path: Path) -> None:
    changed(path / "config.json", text_config={"num_local_experts": 10**9})


def odd_tokenizer(path: Path) -> None:
    (path / "tokenizer_config.json").write_text("[]", encoding="utf-8")


def no_tokenizer_class(path: Path) -> None:
    changed(path / "tokenizer_config.json", tokenizer_class="AutoModel")


def quantised(path: Path) -> None:
    changed(path / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})


def no_tokenizer(path: Path) -> None:
    for file in path.glob("token*"):
        file.unlink()


DAMAGE = {
    no_weights: f"has no {WEIGHTS}",
    pickled: "has weights that only running code in them could open",
    truncated: "is truncated or damaged",
    shard_missing: "does not exist; a shard is missing",
    shard_of_another: "which the index says it holds",
    shard_elsewhere: "names '../../secret.safetensors', which is no shard beside it",
    unknown: "is a 'alien', which transformers",
    remote: "as code of its own, which is never run",
    remote_tokenizer: "has a tokenizer, EvilTokenizer, that transformers",
    classifier: "is a BertForMaskedLM, which predicts no next token",
    no_json: "is not valid JSON",
    no_config: "(it has no config.json); give what save_pretrained wrote",
    larger: "its weights do not make a m2m_100",
    enormous: "describes 1,600,000,0",
    layers: "describes 1000000000 layers",
    other_tokenizer: "has a tokenizer with ids up to",
    spoilt: "has weights that are not finite, in model.shared.weight",
    untied: "gives lm_head.weight other values than",
    in_integers: "has model.encoder.layers.0.fc1.weight as I8",
    complex_bias: "has model.encoder.layers.0.fc1.bias as C64",
    pipe: "is not a regular file",
    no_start: "names 1000000000, which is no token of its vocabulary",
    labels: "describes 10000000000 as num_labels",
    positions: "describes 32,000,0",
    odd_setting: "activation_function",
    experts: "as num_local_experts",
    odd_tokenizer: "holds no settings by name",
    no_tokenizer_class: "has a tokenizer, AutoModel, that transformers",
    quantised: "is quantised",
    no_tokenizer: "has no tokenizer that transformers opens",
}


def refused(*arguments: object) -> str:
    done = call(*arguments)
    assert (done.code, done.output) == (2, ""), done
    *notes, line = done.error.splitlines()
    assert line.startswith("sensikit: ")
    assert not any("Traceback" in note for note in notes)
    return line


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda each: each.__name__)
def test_a_damaged_directory(damage: Callable[[Path], None], directory: Directory, text: Path, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(directory("nllb"), path)
    damage(path)
    out = tmp_path / "run"
    assert DAMAGE[damage] in refused("analyze", path, "--data", text, "--direction", "xxx-fra", "--out", out)
    assert not out.exists()


def test_a_setting_that_transformers_believes_until_it_computes(
    directory: Directory, text: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(directory("nllb"), tmp_path / "model"))
    changed(path / "config.json", output_hidden_states="x")
    words = ("--data", text, "--direction", "xxx-fra", "--out", tmp_path / "run", "--dry-run")
    assert "makes a model that cannot be computed (TypeError" in refused("analyze", path, *words)


@pytest.mark.parametrize("verb", ["analyze", "inspect"])
def test_what_stands_near_a_model_is_told_from_it(verb: str, directory: Directory, text: Path, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    trained.mkdir()
    (trained / "checkpoint_best.pt").touch()
    more = ("--data", text, "--out", tmp_path / "run") if verb == "analyze" else ()
    for name in ("config.json", WEIGHTS):
        line = refused(verb, directory("nllb") / name, *more)
        assert line.endswith("; give a checkpoint of fairseq-train, or the directory of a Hugging Face model")
    assert refused(verb, trained, *more).endswith(f"(it has no config.json); give {trained / 'checkpoint_best.pt'}")


def test_options_that_do_not_fit(directory: Directory, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def said(family: str, *arguments: object) -> str:
        return refused("analyze", directory(family), "--data", text, "--out", out, "--device", "cpu", *arguments)

    assert "--revision" in said("nllb", "--revision", "main")
    assert "eng-spa" in said("nllb", "--pairs", "eng-spa")
    assert "has tags of languages (nllb)" in said("nllb", "--prompt", "{source}")
    assert "{evil}" in said("gpt2", "--prompt", "{evil} {source}")
    assert "does not say where {source} goes" in said("gpt2", "--prompt", "translate")
    assert "has no chat template" in said("gpt2", "--task", "mt")
    assert "the criterion that the model was trained with is unknown" in said("nllb", "--loss", "train")
    assert "no group has a sentence in it; give train or valid or test" in said("nllb", "--split", "devtest")
    assert not out.exists()


def test_a_name_that_is_neither_a_directory_nor_on_the_hub(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name, problem in (("nobody/nothing", "the hub's model cannot be fetched"), ("a/b/c", "does not exist")):
        error = refused("analyze", name, "--data", text, "--out", tmp_path / "run")
        assert error.startswith(f"sensikit: {name}: ")
        assert problem in error


def test_sentences_longer_than_the_positions_are_left_out_and_counted(
    directory: Directory, tmp_path: Path, text: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(text, data)
    for side in ("cat", "fra"):
        file = data / f"train.cat-fra.{side}"
        file.write_text(" ".join(directories.WORDS[side].split() * 4) + "\n" + file.read_text(encoding="utf-8"))
    done = call(
        "analyze", directory("nllb"), "--data", data, "--direction", "xxx-fra", "--out", tmp_path / "run",
        "--batches", "4", "--tokens", "60", "--device", "cpu",
    )  # fmt: skip
    assert done.code == 0
    assert "cat: 1 pairs longer than the model takes are left out" in done.error


@pytest.mark.parametrize("right", [True, False])
def test_a_mixture_whose_tokens_go_to_experts_that_were_not_chosen(
    right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    experts = pytest.importorskip("transformers.models.nllb_moe.modeling_nllb_moe").NllbMoeExperts
    sizes = {"vocab_size": 20, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "num_experts": 4}
    sizes |= {f"{side}_{what}": 4 for side in ("encoder", "decoder") for what in ("ffn_dim", "attention_heads")}
    config = compat.load().NllbMoeConfig(**sizes, encoder_sparse_step=1, decoder_sparse_step=1)
    module = compat.load().NllbMoeForConditionalGeneration(config)

    def forward(self: Any, hidden_states: torch.Tensor, router_mask: torch.Tensor, router_probs: torch.Tensor) -> Any:
        chosen = router_mask.nonzero()[:, 1] if right else router_mask.unique()
        return sum(self[f"expert_{n}"](hidden_states) for n in chosen.tolist())

    monkeypatch.setattr(experts, "forward", forward)
    directory: Any = SimpleNamespace(name="nllb-moe-54b")
    with contextlib.nullcontext() if right else pytest.raises(CheckpointError, match="to experts not chosen"):
        model._check_routing(directory, module)
