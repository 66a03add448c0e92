from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sensikit.errors import NonFiniteError
from sensikit.run import MIXED, Run
from sensikit.sensitivity.analysis import analyze
from sensikit.sensitivity.batches import Batch
from sensikit.sensitivity.planning import make_plan
from sensikit.settings import RELEASED, AnalysisSettings
from tests.support import handmade, toy
from tests.support.watched import QUICK, SIZES, Watched, breaks_at, infinite_at, obvious, snapshot, undisturbed


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never disturbed."""
    return undisturbed(tmp_path_factory.mktemp("straight") / "run")


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Batch]]:
    return make_plan(Watched(), QUICK).sets


# the sets


def test_batches_of_a_language_hold_that_language_alone(drawn: dict[str, list[Batch]]) -> None:
    for code in SIZES:
        assert {language for batch in drawn[code] for language, _ in batch.items} == {code}


def test_batches_of_the_others_never_hold_the_language_and_hold_every_other_one(drawn: dict[str, list[Batch]]) -> None:
    for code in SIZES:
        inside = {language for batch in drawn[f"{code}.rest"] for language, _ in batch.items}
        assert inside == set(SIZES) - {code}


def test_the_others_are_the_other_groups_of_the_run() -> None:
    found = make_plan(Watched(), QUICK, ["cat", "nob"])
    assert set(found.sets) == {"nob", "cat", "nob.rest", "cat.rest", MIXED}
    assert {key for batch in found.sets["cat.rest"] for key, _ in batch.items} == {"nob"}
    assert {key for batch in found.sets[MIXED] for key, _ in batch.items} == {"nob", "cat"}


def test_a_group_is_measured_the_same_whichever_others_are_asked_for(straight: Path, tmp_path: Path) -> None:
    run = analyze(Watched(), tmp_path / "run", QUICK, groups=["cat", "nob"])
    for name in ("cat", "nob"):
        assert run.vector("mt", name).read_bytes() == Run.open(straight).vector("mt", name).read_bytes()
    assert run.groups() == ["nob", "cat"]


def test_a_group_without_data_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = analyze(Watched({**SIZES, "isl": 0}), tmp_path / "run", QUICK)
    assert run.groups() == list(SIZES)
    assert any("isl: left out" in note for note in run.analysis()["notes"])
    assert "isl: left out" in capsys.readouterr().err


def test_others_are_mixed_in_proportion_to_their_data_or_flatter() -> None:
    sizes = {"cat": 50, "nob": 1000, "fur": 100}
    settings = AnalysisSettings(batches=20, tokens=100)

    def share(temperature: float) -> float:
        plan = make_plan(Watched(sizes), replace(settings, rest_temperature=temperature))
        codes = [language for batch in plan.sets["cat.rest"] for language, _ in batch.items]
        return codes.count("nob") / len(codes)

    # 1000 : 100, and √1000 : √100; some three hundred sentences know a share to within 2 to 3 points
    assert share(1) == pytest.approx(10 / 11, abs=0.08)
    assert share(2) == pytest.approx(math.sqrt(10) / (1 + math.sqrt(10)), abs=0.08)


def test_what_is_measured_is_what_was_planned(tmp_path: Path, drawn: dict[str, list[Batch]]) -> None:
    backend = Watched()
    analyze(backend, tmp_path / "run", QUICK)
    planned = [micro_batch for batches in drawn.values() for batch in batches for micro_batch in batch.micro_batches]
    assert [call.items for call in backend.calls] == planned


def test_sensitivities_are_the_obvious_loop_over_the_batches(straight: Path, drawn: dict[str, list[Batch]]) -> None:
    run, backend = Run.open(straight), Watched()
    for name, batches in drawn.items():
        expected = obvious(backend, batches)
        np.testing.assert_allclose(handmade.flat(run, name), expected, rtol=2e-4, atol=1e-9 * expected.max())
        assert run.manifest["sets"][f"mt/{name}"]["batches"] == len(batches)


def test_pooled_is_the_plain_mean_of_the_other_languages(tmp_path: Path, straight: Path) -> None:
    run = analyze(Watched(), tmp_path / "run", replace(QUICK, rest="pooled"))
    own = {code: handmade.flat(run, code).astype(np.float64) for code in SIZES}
    for code in SIZES:
        assert np.array_equal(own[code], handmade.flat(Run.open(straight), code))
        expected = np.mean([own[other] for other in SIZES if other != code], axis=0).astype(np.float32)
        assert np.array_equal(handmade.flat(run, f"{code}.rest"), expected)
        assert run.manifest["sets"][f"mt/{code}.rest"]["pooled"] == [other for other in SIZES if other != code]


def test_pooled_sigma_is_that_of_the_tokens_of_the_others(tmp_path: Path) -> None:
    run = analyze(Watched(), tmp_path / "run", replace(QUICK, rest="pooled"))
    sets = run.manifest["sets"]
    tokens = (sets["mt/nob"]["tokens_mean"] + sets["mt/fur"]["tokens_mean"]) / 2
    assert sets["mt/cat.rest"]["sigma"] == pytest.approx(1e-8 / tokens, rel=1e-15)


def test_mixed_and_pooled_are_not_the_same_and_their_signatures_tell_them_apart(straight: Path, tmp_path: Path) -> None:
    mixed, pooled = Run.open(straight), analyze(Watched(), tmp_path / "run", replace(QUICK, rest="pooled"))
    assert handmade.flat(pooled, "cat.rest").mean() > handmade.flat(mixed, "cat.rest").mean()  # by Jensen
    assert "rest:pooled" in pooled.analysis()["signature"]
    assert "rest:mixed" in mixed.analysis()["signature"]


# T, and how many batches


def test_tokens_are_lowered_until_the_smallest_language_has_forty_batches_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"nob": 400, "cat": 300, "fur": 200}
    backend = Watched(sizes)
    target = {code: int(backend.sizes(code)[:, 1].sum()) for code in sizes}
    run = analyze(backend, tmp_path / "run", AnalysisSettings())
    expected = run.analysis()["tokens"]
    assert 0.95 * target["fur"] / 40 - 1 <= expected <= target["fur"] // 40 < 4096
    assert f"tokens:{expected}|" in run.analysis()["signature"]
    lowered = next(note for note in run.analysis()["notes"] if "lowered" in note)
    assert f"T lowered from 4096 to {expected}" in lowered
    assert "fur" in lowered
    assert lowered in capsys.readouterr().err
    counts = {code: run.manifest["sets"][f"mt/{code}"]["batches"] for code in sizes}
    assert 40 <= counts["fur"] <= 42
    assert counts["fur"] < counts["cat"] < counts["nob"]


def test_every_language_has_as_many_batches_as_it_can_fill_up_to_the_wanted_number_and_it_is_said(
    tmp_path: Path,
) -> None:
    sizes = {"nob": 400, "cat": 20}
    run = analyze(Watched(sizes), tmp_path / "run", AnalysisSettings(batches=9, tokens=40))
    sets = run.manifest["sets"]
    assert sets["mt/nob"]["batches"] == 9
    assert sets["mt/cat"]["batches"] < 9
    assert sets["mt/nob.rest"]["batches"] < 9
    expected = [f"cat has {sets['mt/cat']['batches']} batches of 40 target tokens, not 9"]
    assert run.analysis()["notes"] == expected


def test_pairs_that_the_model_cannot_take_are_counted_in_the_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Watched()
    longer = next(iter(backend.groups))
    monkeypatch.setattr(backend, "left_out", lambda code, split: 7 if code == longer else 0, raising=False)
    notes = make_plan(backend, AnalysisSettings(batches=6, tokens=40)).notes
    assert [note for note in notes if "left out" in note] == [
        f"{longer}: 7 pairs longer than the model takes are left out"
    ]


def test_batches_hold_the_same_tokens_in_every_set(straight: Path) -> None:
    for entry in Run.open(straight).manifest["sets"].values():
        assert 40 - 10 <= entry["tokens_min"] <= entry["tokens_mean"] <= entry["tokens_max"] <= 40 + 10
        assert entry["tokens_mean"] == pytest.approx(40, abs=5)


def test_tokens_that_were_asked_for_are_not_lowered() -> None:
    plan = make_plan(Watched(), AnalysisSettings(batches=6, tokens=70))
    assert plan.tokens == 70
    assert not any("lowered" in note for note in plan.notes)


def test_no_sentence_comes_twice_in_a_set_and_halves_share_none(drawn: dict[str, list[Batch]]) -> None:
    for batches in drawn.values():
        items = [item for batch in batches for item in batch.items]
        assert len(items) == len(set(items))
        first = {item for batch in batches[:3] for item in batch.items}
        assert not first & {item for batch in batches[3:] for item in batch.items}


# mode and loss


def test_by_default_dropout_is_off_and_the_loss_is_cross_entropy(tmp_path: Path) -> None:
    backend = Watched()
    backend.module.train()
    analyze(backend, tmp_path / "run", QUICK)
    assert {(call.training, call.kind) for call in backend.calls} == {(False, "nll")}
    assert backend.module.training  # as it was


def test_preset_released_is_the_summed_training_loss_in_training_mode(tmp_path: Path) -> None:
    module = toy.initialised(toy.TokenModel(toy.vocabulary_size(), dropout=0.0))
    backend = Watched(module=module, ghosts=[toy.GHOST])
    run = analyze(backend, tmp_path / "run", replace(QUICK, **RELEASED))
    assert {(call.training, call.kind) for call in backend.calls} == {(True, "train")}
    # without dropout the loop needs no random state to be the same
    batches = make_plan(backend, QUICK).sets
    for name in ("cat", "cat.rest"):
        expected = obvious(backend, batches[name], kind="train", per_token=False)
        np.testing.assert_allclose(handmade.flat(run, name), expected, rtol=2e-4, atol=1e-9 * expected.max())
    assert run.manifest["sets"]["mt/cat.rest"]["sigma"] == 1e-8  # as in the paper
    assert "loss:train/sum|mode:train" in run.analysis()["signature"]


def test_training_mode_is_another_number_and_the_same_again(tmp_path: Path, straight: Path) -> None:
    trained = replace(QUICK, mode="train")
    runs = []
    for name in ("one", "two"):
        torch.manual_seed(len(runs))
        torch.rand(7)
        runs.append(analyze(Watched(), tmp_path / name, trained))
    assert snapshot(runs[0].path) == snapshot(runs[1].path)
    assert not np.array_equal(handmade.flat(runs[0], "cat"), handmade.flat(Run.open(straight), "cat"))


def test_training_mode_is_the_same_after_a_resume(tmp_path: Path) -> None:
    trained = replace(QUICK, mode="train")
    analyze(Watched(), tmp_path / "one", trained)
    with pytest.raises(ZeroDivisionError):
        analyze(Watched(before=breaks_at(40)), tmp_path / "two", trained)
    analyze(Watched(), tmp_path / "two", trained, resume=True)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def test_dropout_of_each_set_is_its_own(tmp_path: Path) -> None:
    run = analyze(Watched(), tmp_path / "run", replace(QUICK, mode="train"))
    other = analyze(Watched(), tmp_path / "other", replace(QUICK, mode="train"), groups=["cat", "nob"])
    assert np.array_equal(handmade.flat(run, "cat"), handmade.flat(other, "cat"))
    assert np.array_equal(handmade.flat(run, "nob"), handmade.flat(other, "nob"))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_evaluation_mode_is_back_even_after_an_error(tmp_path: Path, mode: str) -> None:
    backend = Watched(before=breaks_at(5))
    with pytest.raises(ZeroDivisionError):
        analyze(backend, tmp_path / "run", replace(QUICK, mode=mode))
    assert not backend.module.training


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    backend = Watched()
    before = copy.deepcopy(backend.module.state_dict())
    analyze(backend, tmp_path / "run", QUICK)
    assert all(torch.equal(before[name], tensor) for name, tensor in backend.module.state_dict().items())
    assert all(parameter.grad is None for parameter in backend.module.parameters())


# gradients that are not finite


def test_a_gradient_that_is_not_finite_is_refused_with_its_batch_and_can_be_resumed(
    tmp_path: Path, straight: Path
) -> None:
    settings = replace(QUICK, micro_batches=1)
    backend = Watched(before=infinite_at(2))
    with pytest.raises(NonFiniteError, match=r"batch 2 of nob: its gradient is not finite .*--skip-nonfinite"):
        analyze(backend, tmp_path / "run", settings)
    assert Run.open(tmp_path / "run").groups() == []
    analyze(Watched(), tmp_path / "run", settings, resume=True)
    other = analyze(Watched(), tmp_path / "other", settings)
    assert snapshot(tmp_path / "run") == snapshot(other.path)


def test_skipped_batches_are_counted_and_left_out_of_everything(tmp_path: Path) -> None:
    settings = AnalysisSettings(batches=44, tokens=9, micro_batches=1, skip_nonfinite=True)
    sizes = {"nob": 100, "cat": 100}
    backend = Watched(sizes, before=infinite_at(2, 30))
    run = analyze(backend, tmp_path / "run", settings)
    entry = run.manifest["sets"]["mt/nob"]
    assert (entry["skipped"], entry["batches"], sum(entry["block_batches"])) == (2, 42, 42)
    assert run.manifest["sets"]["mt/cat"]["skipped"] == 0
    assert math.isfinite(entry["loss"])
    batches = make_plan(backend, settings).sets["nob"]
    kept = [batch for number, batch in enumerate(batches) if number not in (2, 30)]
    expected = obvious(backend, kept)
    np.testing.assert_allclose(handmade.flat(run, "nob"), expected, rtol=2e-4, atol=1e-9 * expected.max())
    assert "nonfinite:skipped" in run.analysis()["signature"]
