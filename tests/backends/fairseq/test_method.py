"""What a checkpoint says of how it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sensikit.backends.fairseq.settings import REGULAR, training_of
from sensikit.backends.fairseq.values import Settings
from sensikit.errors import CheckpointError
from sensikit.training.recipes import METHODS, TABLE_4
from tests.support import training_system
from tests.support.checkpoints import edited


def found_in(task: dict[str, Any], criterion: dict[str, Any] | None = None) -> dict[str, Any]:
    path = Path("c.pt")
    return training_of(Settings(path, {"_name": "sensikit", **task}), Settings(path, criterion or {}), 500)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_found_by_its_parts(name: str) -> None:
    method = METHODS[name]
    found = found_in({"denoise": ",".join(method.denoise)}, {"distill": ",".join(method.distill)})
    assert METHODS[found["method"]] == method
    if not name.startswith("table4"):
        assert found["method"] == name
    assert found["updates"] == 500


def test_parts_are_found_in_any_order_and_other_combinations_have_no_name() -> None:
    assert found_in({"denoise": "mlm,dae"})["method"] == "dae+mlm"
    found = found_in({"denoise": "mass,cd"}, {"distill": "encoder"})
    assert (found["method"], found["denoise"], found["distill"]) == (None, "mass,cd", "encoder")


def test_what_has_no_effect_is_left_empty() -> None:
    regular = found_in({"denoise": "", "mask_ratio": 0.2, "separate_projection": False}, {"distill": "", "id_k": 2})
    assert regular == {"updates": 500, **REGULAR}
    distilled = found_in({}, {"distill": "translation", "id_k": 3, "id_alpha": 2.5, "id_passes": "shared-encoder"})
    assert {name: value for name, value in distilled.items() if value is not None} == {
        "updates": 500, "method": "id", "distill": "translation", "id_k": 3, "id_alpha": 2.5,
        "id_passes": "shared-encoder", "id_weights": "equation",
    }  # fmt: skip
    assert [found_in({"dtype": name})["dtype"] for name in ("fp32", "bf16")] == [None, "bf16"]


@pytest.mark.parametrize(
    ("denoise", "given", "ratio"),
    [("cd", None, 0.3), ("mass", None, 0.5), ("cd", 0.6, 0.6), ("cd,mass", None, None), ("cd,mass", 0.1, 0.1)],
)
def test_the_masking_ratio_is_the_one_that_was_used(denoise: str, given: float | None, ratio: float | None) -> None:
    assert found_in({"denoise": denoise, "mask_ratio": given})["mask_ratio"] == ratio


@pytest.mark.parametrize("name", ["regular", "cd+id", "table4-5"])
def test_the_names_are_those_that_the_training_plugin_stores(name: str, tiny_data: Path) -> None:
    more = ("--mask-ratio", "0.4", "--id-alpha", "3") if name != "regular" else ()
    stored = vars(training_system.build(tiny_data, name, *more).task.args)
    for field in ("denoise", "distill", "mask_ratio", "separate_projection", "id_k", "id_alpha", "id_passes"):
        assert field in stored
    assert {"id_weights", "loss_weights"} <= set(stored)
    found = training_of(Settings(Path("c.pt"), {**stored, "_name": "sensikit"}), Settings(Path("c.pt"), stored), 7)
    assert METHODS[found["method"]] == METHODS[name]
    assert found["mask_ratio"] == (0.4 if more else None)
    assert found["id_alpha"] == (3.0 if more else None)


def test_a_plain_fairseq_checkpoint_is_a_regular_one(tiny_backend: Any) -> None:
    assert tiny_backend.training == {"updates": 200, **REGULAR}


def test_a_checkpoint_of_the_plugin_tells_its_method(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    from sensikit.backends import open_model

    changes = {"_name": "sensikit", "denoise": "cd", "mask_ratio": None, "separate_projection": False}
    distilled = {"_name": "sensikit", "distill": ",".join(TABLE_4[7].distill), "id_k": 2, "id_alpha": 5.0}
    path = edited(tiny_checkpoint, tmp_path / "c.pt", task=changes, criterion=distilled)
    found = open_model(path, tiny_data, device="cpu").training
    assert (found["method"], found["mask_ratio"], found["separate_projection"]) == ("cd+id", 0.3, False)


@pytest.mark.parametrize(
    ("task", "criterion"),
    [
        ({"denoise": "bert"}, {}),
        ({"denoise": 3}, {}),
        ({"denoise": ["cd"]}, {}),
        ({"denoise": "cd", "mask_ratio": 1.5}, {}),
        ({"denoise": "cd", "mask_ratio": float("nan")}, {}),
        ({}, {"distill": "sideways"}),
        ({}, {"distill": "translation", "id_k": 1}),
        ({}, {"distill": "translation", "id_alpha": float("inf")}),
        ({}, {"distill": "translation", "id_passes": "__import__('os')"}),
    ],
)
def test_settings_that_the_plugin_cannot_have_written_are_refused(
    task: dict[str, Any], criterion: dict[str, Any]
) -> None:
    with pytest.raises(CheckpointError, match=r"^c\.pt: has the setting ") as caught:
        found_in(task, criterion)
    assert "\n" not in str(caught.value)
