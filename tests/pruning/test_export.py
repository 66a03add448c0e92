"""What is exported is what was pruned in memory, for our own backend and for fairseq itself."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import sensikit
from sensikit.backends.base import translation_of
from sensikit.backends.fairseq import compat
from sensikit.backends.fairseq.checkpoint import read
from sensikit.backends.fairseq.opening import open_checkpoint, write_pruned
from sensikit.errors import CheckpointError, OptionError, RunError, SensikitError
from sensikit.files import sha256
from sensikit.pruning.export import export, export_signature
from sensikit.pruning.masks import Order, chosen, pruned, pruning_plan
from sensikit.run import Run
from sensikit.sensitivity.analysis import analyze
from sensikit.settings import AnalysisSettings, Decoding
from tests.support.checkpoints import content_of, edited
from tests.support.command import call
from tests.support.watched import bits, snapshot

TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
GREEDY = Decoding(beam=1)


@pytest.fixture(scope="module")
def analysed(tiny_checkpoint: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("analysed") / "run"
    backend = open_checkpoint(tiny_checkpoint, tiny_data, device="cpu")
    analyze(backend, path, AnalysisSettings(batches=4, tokens=60), groups=["cat", "fao"])
    return path


@pytest.fixture
def run(analysed: Path, tmp_path: Path) -> Run:
    shutil.copytree(analysed, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.mark.parametrize("order", ["specificity", "magnitude", "random", "wanda", "fisher"])
def test_what_is_exported_translates_as_what_was_pruned_in_memory(
    run: Run, tiny_backend: Any, tiny_data: Path, tmp_path: Path, order: str
) -> None:
    chosen_order = Order(order, "cat", seed=1 if order == "random" else None)
    done = export(run, tiny_backend, chosen_order, 0.3, tmp_path / "model.pt", tmp_path / "mask.safetensors")
    plan = pruning_plan(run, tiny_backend.module, chosen_order, [0.3])
    unpruned = translation_of(tiny_backend).translate("cat", "test", GREEDY).hypotheses
    with pruned(run, tiny_backend.module, plan, 0.3) as count:
        expected = translation_of(tiny_backend).translate("cat", "test", GREEDY).hypotheses
        weights = bits(tiny_backend.module)
    again = open_checkpoint(tmp_path / "model.pt", tiny_data, device="cpu")
    assert bits(again.module) == weights
    assert translation_of(again).translate("cat", "test", GREEDY).hypotheses == expected != unpruned
    assert done.pruned == count == round(0.3 * run.manifest["prunable_count"])
    assert done.prunable == run.manifest["prunable_count"]


def test_the_mask_is_a_bool_for_every_parameter_and_gives_the_same_model(
    run: Run, tiny_backend: Any, tiny_data: Path, tmp_path: Path
) -> None:
    order, mask = Order("specificity", "cat"), tmp_path / "mask.safetensors"
    done = export(run, tiny_backend, order, 0.45, tmp_path / "model.pt", mask)
    masks = load_file(mask)
    assert {name: tuple(each.shape) for name, each in masks.items()} == {p.name: p.shape for p in run.parameters}
    assert {each.dtype for each in masks.values()} == {torch.bool}
    assert sum(int(each.sum()) for each in masks.values()) == done.pruned
    plan = pruning_plan(run, tiny_backend.module, order, [0.45])
    inside = np.concatenate([part.ravel() for _, part in chosen(run, plan, 0.45)])
    assert np.array_equal(inside, np.concatenate([masks[p.name].numpy().ravel() for p in run.parameters if p.prunable]))
    assert not any(masks[p.name].any() for p in run.parameters if not p.prunable)
    with safe_open(mask, framework="numpy") as file:
        assert file.metadata() == {"signature": done.signature}
    again = open_checkpoint(tmp_path / "model.pt", tiny_data, device="cpu")
    with torch.no_grad():
        for name, tensor in tiny_backend.module.named_parameters():
            tensor.masked_fill_(masks[name], 0)
    assert bits(again.module) == bits(tiny_backend.module)


def test_the_file_is_the_old_one_but_for_the_zeros_and_the_optimizer(
    run: Run, tiny_backend: Any, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    done = export(run, tiny_backend, Order("specificity", "cat"), 0.3, tmp_path / "model.pt")
    old, new = content_of(tiny_checkpoint), content_of(tmp_path / "model.pt")
    assert read(tiny_checkpoint).has_optimizer
    assert not read(tmp_path / "model.pt").has_optimizer
    assert new.pop("sensikit") == done.signature
    before, after = old.pop("model"), new.pop("model")
    assert repr(old) == repr(new)
    assert list(before) == list(after)
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        kept = after[name] != 0
        assert torch.equal(after[name][kept], tensor[kept]), name
    zeros = {name: int((tensor == 0).sum() - (before[name] == 0).sum()) for name, tensor in after.items()}
    assert zeros[TIED[0]] > 0
    assert len({after[name].data_ptr() for name in TIED}) == 1
    assert all(zeros[name] == 0 for name in zeros if "layer_norm" in name)


def test_fairseq_itself_loads_it(run: Run, tiny_backend: Any, tiny_data: Path, tmp_path: Path) -> None:
    export(run, tiny_backend, Order("specificity", "cat"), 0.3, tmp_path / "model.pt")
    compat.load()
    from fairseq import checkpoint_utils

    with torch.serialization.safe_globals([__import__("argparse").Namespace]):
        (model,), *_ = checkpoint_utils.load_model_ensemble_and_task(
            [str(tmp_path / "model.pt")], arg_overrides={"data": str(tiny_data / "bin")}
        )
    again = open_checkpoint(tmp_path / "model.pt", tiny_data, device="cpu")
    assert bits(model) == bits(again.module)


@pytest.mark.slow
def test_fairseq_generate_translates_with_it(run: Run, tiny_backend: Any, tiny_data: Path, tmp_path: Path) -> None:
    export(run, tiny_backend, Order("specificity", "cat"), 0.3, tmp_path / "model.pt")
    command = [
        "fairseq-generate",
        str(tiny_data / "bin"),
        "--user-dir",
        str(Path(sensikit.__file__).parent / "backends/fairseq/plugin"),
    ]
    command += ["--path", str(tmp_path / "model.pt"), "--task", "translation_multi_simple_epoch", "--cpu", "-s", "cat"]
    command += ["-t", "eng", "--lang-pairs", "cat-eng", "--langs", "cat,nob,fao,eng", "--lang-tok-replacing-bos-eos"]
    command += ["--encoder-langtok", "tgt", "--decoder-langtok", "--required-batch-size-multiple", "1", "--beam", "5"]
    command += ["--max-len-a", "1.2", "--max-len-b", "10", "--remove-bpe", "sentencepiece", "--batch-size", "1"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines() if line.startswith("H-")]
    found = [text.replace("__eng__", "").strip() for _, _, text in sorted(lines, key=lambda line: int(line[0][2:]))]
    again = open_checkpoint(tmp_path / "model.pt", tiny_data, device="cpu")
    assert found == translation_of(again).translate("cat", "test", Decoding(max_tokens=1)).hypotheses


def test_weights_keep_their_dtype_and_second_copies_of_fairseq_0_12_2_are_left_out(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    def half(state: dict[str, torch.Tensor]) -> None:
        whole = state[TIED[0]].half()
        state.update({name: tensor.half() for name, tensor in state.items()})
        state.update(dict.fromkeys(TIED, whole))
        state["encoder.layers.0.fc1_weight"] = state["encoder.layers.0.fc1.weight"].clone()

    source = edited(tiny_checkpoint, tmp_path / "half.pt", state=half)
    before = read(source).state
    mask = {"encoder.layers.0.fc1.weight": before["encoder.layers.0.fc1.weight"] > 0, TIED[0]: before[TIED[0]] < 0}
    count = write_pruned(source, sha256(source), tmp_path / "out.pt", mask, "note")
    after = read(tmp_path / "out.pt").state
    assert count == sum(int(each.sum()) for each in mask.values())
    assert set(before) - set(after) == {"encoder.layers.0.fc1_weight"}
    assert {tensor.dtype for tensor in after.values()} == {torch.float16}
    assert after["encoder.layers.0.fc1.weight"].max() <= 0
    assert all(after[name].min() >= 0 for name in TIED)


def test_settings_that_fairseq_would_run_are_copied_and_not_run(tiny_checkpoint: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    content = content_of(tiny_checkpoint)
    content["cfg"]["optimizer"]["adam_betas"] = code
    torch.save(content, tmp_path / "hostile.pt")
    source = tmp_path / "hostile.pt"
    write_pruned(source, sha256(source), tmp_path / "out.pt", {}, "note")
    assert content_of(tmp_path / "out.pt")["cfg"]["optimizer"]["adam_betas"] == code
    assert not marker.exists()


# what is refused


def test_a_place_that_is_taken_is_refused_and_left_as_it_is(run: Run, tiny_backend: Any, tmp_path: Path) -> None:
    taken, free = tmp_path / "taken", tmp_path / "free"
    taken.write_text("mine")
    before = snapshot(run.path)
    (link := tmp_path / "linked taken").symlink_to("nowhere")
    for out, mask, option in ((taken, None, "--out"), (free, taken, "--mask"), (link, None, "--out")):
        with pytest.raises(OptionError, match=f"^{option} .*taken: already exists"):
            export(run, tiny_backend, Order("fisher", "cat"), 0.3, out, mask)
    assert taken.read_text() == "mine"
    assert link.is_symlink()
    assert not free.exists()
    assert snapshot(run.path) == before


@pytest.mark.parametrize(
    ("order", "ratio", "match"),
    [
        (Order("alphabet", "cat"), 0.3, "^--order: alphabet is not an order"),
        (Order("specificity", "nob"), 0.3, "^--groups: nob is no group here"),
        (Order("specificity", "cat"), 0.95, "^--ratios: 0.95 is more than"),
        (Order("specificity", "cat"), float("nan"), "^--ratios: nan is not between"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    run: Run, tiny_backend: Any, tmp_path: Path, order: Order, ratio: float, match: str
) -> None:
    with pytest.raises(OptionError, match=match):
        export(run, tiny_backend, order, ratio, tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


def test_another_checkpoint_is_refused(run: Run, plain_backend: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="was measured on another checkpoint"):
        export(run, plain_backend, Order("specificity", "cat"), 0.3, tmp_path / "model.pt")


def test_a_checkpoint_that_changed_since_it_was_opened_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has changed since it was opened"):
        write_pruned(tiny_checkpoint, "0" * 64, tmp_path / "model.pt", {}, "note")
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize("shape", [(3, 3), (64, 32)])
def test_a_mask_of_another_model_is_refused(tiny_checkpoint: Path, tmp_path: Path, shape: tuple[int, int]) -> None:
    name = "encoder.layers.7.fc1.weight" if shape == (64, 32) else "encoder.layers.0.fc1.weight"
    masks = {name: torch.zeros(shape, dtype=torch.bool)}
    with pytest.raises(CheckpointError, match=r"has no .* of the shape"):
        write_pruned(tiny_checkpoint, sha256(tiny_checkpoint), tmp_path / "model.pt", masks, "note")


def test_a_full_disk_is_one_line_and_leaves_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    # the real thing: the system lets no file of this process grow beyond 3000 bytes
    limits, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(SensikitError) as caught:
            write_pruned(tiny_checkpoint, sha256(tiny_checkpoint), tmp_path / "model.pt", {}, "note")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert str(caught.value) == f"{tmp_path}/model.pt: cannot be written (File too large); choose another place"
    assert list(tmp_path.iterdir()) == []


# the signature and the command


def test_what_moves_the_mask_is_in_its_signature(run: Run) -> None:
    plain = export_signature(run, Order("specificity", "cat"), 0.3)
    assert plain.startswith(
        "M|task:mt|order:specificity|group:cat|ratio:0.3|protect:0.1|among:prunable|scope:global|dir:xxx-eng|ckpt:"
    )
    others = [
        export_signature(run, order, ratio)
        for order, ratio in (
            (Order("reverse", "cat"), 0.3), (Order("specificity", "nob"), 0.3), (Order("specificity", "cat"), 0.3001),
            (Order("specificity", "cat", protect=0.2), 0.3), (Order("random", "cat", 1), 0.3),
            (Order("random", "cat", 2), 0.3),
        )
    ]  # fmt: skip
    assert len({plain, *others}) == 7


def test_the_command_exports(run: Run, tiny_data: Path, tmp_path: Path) -> None:
    out, mask = tmp_path / "model.pt", tmp_path / "mask.safetensors"
    options = ["--order", "random", "--seed", 3, "--language", "cat", "--ratio", 0.25, "--protect", 0.2]
    done = call("export", run.path, *options, "--out", out, "--mask", mask, "--device", "cpu")
    assert done.code == 0, done.error
    size = run.manifest["prunable_count"]
    assert done.output.splitlines()[0] == f"{out}: {round(0.25 * size)} of {size} prunable parameters are zero"
    assert done.output.splitlines()[1] == export_signature(run, Order("random", "cat", 3, 0.2), 0.25)
    assert sum(int(each.sum()) for each in load_file(mask).values()) == round(0.25 * size)
    assert open_checkpoint(out, tiny_data, device="cpu").task("mt").groups
    again = call("export", run.path, *options, "--out", out, "--device", "cpu")
    assert again.code == 2
    assert "already exists" in again.error
