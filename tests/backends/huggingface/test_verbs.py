"""Every verb on an encoder-decoder and on a decoder language model, from a directory and text to figures and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from safetensors.torch import load_file

from sensikit.backends import open_model
from sensikit.backends.base import Translation
from sensikit.errors import OptionError, SensikitError
from sensikit.report import tables
from sensikit.run import Run
from sensikit.sensitivity.analysis import analyze
from sensikit.sensitivity.planning import redrawn
from sensikit.settings import AnalysisSettings, Decoding, Loading, Tiers
from tests.support import directories
from tests.support.command import call, done

Directory = Callable[[str], Path]
SMALL = ("--batches", "6", "--tokens", "40", "--micro-batches", "2", "--device", "cpu")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("family", "metrics"), [("nllb", "bleu,loss,bpb"), ("llama", "loss,bpb")])
def test_every_verb(family: str, metrics: str, directory: Directory, text: Path, tmp_path: Path) -> None:
    model, run = directory(family), tmp_path / "run"
    shown = json.loads(done("inspect", model, "--json"))
    direction = () if family == "llama" else ("--direction", "xxx-fra")
    tiers = ("--tiers", "160,12", "--tier", "spa=very-low")
    assert "GB of memory" in done("analyze", model, "--data", text, "--out", run, *direction, *SMALL, "--dry-run")
    signature = done("analyze", model, "--data", text, "--out", run, *direction, *SMALL, *tiers)
    manifest = Run.open(run).manifest
    assert (manifest["parameter_count"], manifest["prunable_count"]) == (shown["parameters"], shown["prunable"])
    assert shown["sha256"] == manifest["provenance"]["checkpoint_sha256"]
    groups = ["cat", "eng", "spa"] if family == "nllb" else ["cat", "eng", "fra", "spa"]
    assert list(manifest["groups"]) == groups
    assert {manifest["groups"][key]["tier"] for key in ("cat", "spa")} == {"High", "Very Low"}
    assert ("S|task:mt|dir:xxx-fra|" if family == "nllb" else "S|task:lm|bos:yes|dir:xxx|") in signature
    done("audit", run, "--parameters", "60", "--groups", "cat")
    sweep = ("--ratios", "0,0.5", "--order", "specificity,magnitude,wanda,fisher", "--tokenizer", "13a", "--beam", "2")
    done("prune", run, *sweep, "--metric", metrics, "--groups", "cat,spa", "--cross", "--max-sentences", "4")
    curves = pd.read_csv(run / "pruning.csv")
    assert set(curves["metric"]) == set(metrics.split(","))
    pair = curves[(curves["order"] == "none") & (curves["group"] == "cat")].set_index("metric")["value"]
    task = open_model(model, text, manifest["direction"], "cpu").task(manifest["analyses"].popitem()[0])
    nats = task.losses([("cat", row) for row in range(4)], "test")
    size = task.bytes("cat", "test")
    assert size is not None
    assert pair["loss"] == pytest.approx(nats[:, 0].sum() / nats[:, 1].sum(), rel=1e-5)
    assert pair["bpb"] == pytest.approx(nats[:, 0].sum() / np.log(2) / size[:4].sum(), rel=1e-5)
    scored = ("--metric", metrics, "--tokenizer", "13a", "--beam", "2")
    out = done("evaluate", model, "--data", text, *direction, *scored, *tiers, "--out", tmp_path / "evaluation")
    assert f"{family}: ckpt {shown['sha256'][:8]}" in out
    assert {"High", "Very Low"} <= set(pd.read_csv(tmp_path / "evaluation" / "tiers.csv")["tier"])
    pruned, mask = tmp_path / "pruned", tmp_path / "mask.safetensors"
    done("export", run, "--group", "cat", "--ratio", "0.4", "--out", pruned, "--mask", mask)
    masks = load_file(mask)
    auto = transformers.AutoModelForCausalLM if family == "llama" else transformers.AutoModelForSeq2SeqLM
    before, after = (dict(auto.from_pretrained(path).named_parameters()) for path in (model, pruned))
    transformers.AutoTokenizer.from_pretrained(pruned)
    for name, tensor in before.items():
        wanted = tensor.masked_fill(masks[name], 0)
        assert torch.equal(after[name], wanted), name
    assert sum(int(each.sum()) for each in masks.values()) == round(0.4 * shown["prunable"])
    page = tmp_path / "page"
    done("report", run, tmp_path / "evaluation", "--out", page)
    assert (page / "report.html").stat().st_size > 10_000


def test_a_decoder_is_asked_to_translate_and_its_answer_alone_is_counted(directory: Directory, text: Path) -> None:
    prompt = "{source_name} house {source} {target_code}"
    model = open_model(directory("gpt2"), text, "xxx-fra", "cpu", loading=Loading(prompt=prompt))
    assert model.tasks == ("lm", "mt")
    task = model.task("mt")
    assert isinstance(task, Translation)
    tokenizer = model.opened.tokens.tokenizer  # type: ignore[attr-defined]
    sources, targets = model.opened.data.pair("cat", "fra", "train")  # type: ignore[attr-defined]
    asked = tokenizer(f"Catalan house {sources[0]} fra", add_special_tokens=False)["input_ids"]
    answer = tokenizer(targets[0], add_special_tokens=False)["input_ids"]
    assert task.sizes("cat")[0].tolist() == [1 + len(asked), len(answer) + 1]
    whole = torch.tensor([[tokenizer.bos_token_id, *asked, *answer, tokenizer.eos_token_id]])
    said = model.module(whole).logits[0, len(asked) : -1].log_softmax(-1)
    expected = -said.gather(1, whole[0, 1 + len(asked) :, None]).sum()
    assert task.losses([("cat", 0)], "train")[0, 0] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert "prompt" in task.choices()
    found = task.translate("cat", "test", Decoding(beam=2, max_sentences=3))
    assert len(found.hypotheses) == 3


def test_monolingual_text_that_corpus_noted_is_known_of_the_groups(
    directory: Directory, text: Path, tmp_path: Path
) -> None:
    shutil.copytree(text, tmp_path / "data" / "text")
    noted = {"languages": {"cat": {"mono": 70, "tier": "Low"}, "spa": {"mono": 0}}}
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(noted), encoding="utf-8")
    groups = open_model(directory("nllb"), tmp_path / "data", "xxx-fra", "cpu").task("mt").groups
    assert {key: (of.mono, of.tier) for key, of in groups.items()} == {
        "cat": (70, "Low"), "eng": (None, "Very Low"), "spa": (None, "Very Low"),
    }  # fmt: skip
    table = tables.groups({key: of.facts() for key, of in groups.items()}).frame  # as a manifest has them
    assert table.set_index("Language")["Monolingual"].dropna().to_dict() == {"cat": 70}
    with pytest.raises(OptionError, match="--tier: fao is no group here; choose among cat, eng, spa"):
        open_model(directory("nllb"), tmp_path / "data", "xxx-fra", "cpu", None, None, Tiers(tier=("fao=low",)))


def test_left_padding_changes_no_answer(directory: Directory, text: Path) -> None:
    task = open_model(directory("llama"), text, "xxx-fra", "cpu").task("mt")
    assert isinstance(task, Translation)
    assert task.choices()["prompt"].startswith("chat:")
    together, alone = (task.translate("eng", "test", Decoding(beam=3, max_tokens=most)) for most in (4096, 1))
    # the longest answer counts from the longest source of a batch, so the shorter of two answers is compared
    for one, other in zip(together.hypotheses, alone.hypotheses, strict=True):
        assert one.startswith(other) or other.startswith(one)


def test_shards_are_the_model_whole(directory: Directory, text: Path, tmp_path: Path) -> None:
    parts = directories.write_directory("nllb", text, tmp_path / "parts", shard="40KB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    settings = AnalysisSettings(batches=4, tokens=40)
    runs = [
        analyze(open_model(path, text, "xxx-fra", "cpu"), tmp_path / f"run{number}", settings)
        for number, path in enumerate((directory("nllb"), parts))
    ]
    one, other = (list(run.stream([run.vector("mt", "cat")])) for run in runs)
    assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))
    again = open_model(parts, text, "xxx-fra", "cpu")
    assert again.provenance.checkpoint_sha256 == runs[1].manifest["provenance"]["checkpoint_sha256"]


def test_an_order_that_a_model_does_not_allow_is_refused_and_leaves_no_ledger(
    directory: Directory, text: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done("analyze", directory("gpt2"), "--data", text, "--out", run, *SMALL)
    before = sorted(run.rglob("*"))
    found = call("prune", run, "--order", "wanda", "--ratios", "0,0.5", "--groups", "cat")
    assert found.code == 2
    assert "--order wanda: the inputs of transformer.h.0.attn.c_attn.weight cannot be seen" in found.error
    assert sorted(run.rglob("*")) == before


def test_some_pairs_of_text_that_is_parallel_in_more_languages_are_found_again(
    directory: Directory, text: Path, tmp_path: Path
) -> None:
    flores = tmp_path / "flores"
    for split, source in (("dev", "train"), ("devtest", "test")):
        (flores / split).mkdir(parents=True)
        for code, name in (("cat", "cat_Latn"), ("eng", "eng_Latn"), ("spa", "spa_Latn"), ("fra", "fra_Latn")):
            lines = (text / f"{source}.{'cat' if code == 'fra' else code}-fra.{code}").read_text(encoding="utf-8")
            (flores / split / f"{name}.{split}").write_text(lines, encoding="utf-8")
    run = tmp_path / "run"
    pairs = "cat_Latn-fra_Latn,spa_Latn-fra_Latn"
    done("analyze", directory("nllb"), "--data", flores, "--pairs", pairs, "--split", "dev", "--out", run, *SMALL)
    assert list(Run.open(run).manifest["groups"]) == ["cat", "spa"]
    done("prune", run, "--ratios", "0,0.5", "--split", "devtest", "--metric", "loss")


def test_a_language_model_of_text_with_pairs_and_monolingual_files_is_found_again(
    directory: Directory, text: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(text, tmp_path / "data"))
    for code in ("cat", "eng"):
        shutil.copyfile(text / f"train.{code}-fra.{code}", data / f"{code}.txt")
    prompt = ("--prompt", "{source} {target_code}")
    for task, more in (("lm", ()), ("mt", (*prompt, "--direction", "xxx-fra")), ("mt", prompt)):
        run = tmp_path / f"{task}{len(more)}"
        done("analyze", directory("gpt2"), "--data", data, "--task", task, "--out", run, *more, *SMALL)
        done("prune", run, "--ratios", "0,0.5", "--groups", "cat", "--metric", "loss")
        assert [task] == Run.open(run).tasks


def test_a_name_of_the_hub_is_looked_up_in_its_cache(
    directory: Directory, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "1234567890" * 4
    cache = tmp_path / "hub"
    home = cache / "models--owner--tiny"
    shutil.copytree(directory("gpt2"), home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(cache))
    run = tmp_path / "run"
    done("analyze", "owner/tiny", "--data", text, "--out", run, *SMALL)
    noted = Run.open(run).manifest["provenance"]
    assert (noted["checkpoint"], noted["loading"]) == ("owner/tiny", {"revision": commit})
    done("prune", run, "--ratios", "0,0.5", "--groups", "cat")
    assert "gpt2" in done("inspect", "owner/tiny")


def test_a_run_in_bf16_is_opened_again_as_it_was(directory: Directory, text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    out = done("analyze", directory("gpt2"), "--data", text, "--out", run, "--dtype", "bf16", *SMALL)
    assert "|dtype:bf16|" in out
    done("prune", run, "--ratios", "0,0.5", "--groups", "cat")
    assert Run.open(run).manifest["provenance"]["loading"] == {"dtype": "bf16"}


def test_what_was_counted_of_the_text_is_kept_with_the_run_and_not_counted_again(
    directory: Directory, text: Path, tmp_path: Path
) -> None:
    settings = AnalysisSettings(batches=2, tokens=20)
    model = open_model(directory("nllb"), text, "xxx-fra", "cpu")
    run = analyze(model, tmp_path / "run", settings, groups=["cat", "spa"])
    before = {path: path.read_bytes() for path in sorted(run.path.rglob("*.*"))}
    kept = [path.name for path in before if path.parent.name == "lengths"]
    assert kept == ["mt.cat.train.npy", "mt.spa.train.npy"]

    def again() -> tuple[Run, int]:
        """Open the model again and redraw the plan; return how many lines were cut meanwhile."""
        fresh = open_model(directory("nllb"), text, "xxx-fra", "cpu")
        task, lines = fresh.task("mt"), []
        cut = task._cut  # type: ignore[attr-defined]
        task._cut = lambda *given: lines.append(len(given[1])) or cut(*given)  # type: ignore[attr-defined]
        opened = Run.open(run.path)
        _, plan = redrawn(opened, fresh, ["cat"], "mt")
        plan.task.collate(plan.sets["cat"][0].items)
        return opened, sum(lines)

    assert again()[1] < 40
    analyze(model, run.path, settings, groups=["cat", "spa"], resume=True)
    assert {path: path.read_bytes() for path in before} == before
    (run.path / "lengths" / "mt.cat.train.npy").write_bytes(b"")  # counted again, and otherwise as it was
    assert again()[1] >= directories.SIZES["train"]
    # lengths of another tokenizer
    opened, _ = again()
    run.manifest["lengths"]["lengths/mt.cat.train.npy"] = opened.write(
        "lengths/mt.cat.train.npy", lambda path: shutil.copyfile(run.path / "lengths" / "mt.spa.train.npy", path)
    )
    run.save()
    with pytest.raises(SensikitError, match=r"batches of cat|otherwise than when it was counted"):
        again()
