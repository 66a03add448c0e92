from __future__ import annotations

import copy
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from sensikit import __version__
from sensikit.analysis import RELEASED, Settings, analyze, cost_on_disk, estimate, make_plan
from sensikit.backends.base import Item, Language
from sensikit.batches import Batch
from sensikit.errors import DataError, NonFiniteError, OptionError, RunError, SensikitError
from sensikit.files import sha256, sha256_of
from sensikit.masks import Order, chosen
from sensikit.masks import make_plan as make_pruning_plan
from sensikit.parameters import registry
from sensikit.store import Run
from tests import handmade, toy

SIZES = {"nob": 70, "cat": 60, "fur": 50}
"""Training sentences by language, in an order that is not that of the alphabet."""

QUICK = Settings(batches=6, tokens=40)


def languages(sizes: Mapping[str, int]) -> dict[str, Language]:
    return {code: Language(code, code.title(), "Romance", "Low", {"train": n, "test": 5}) for code, n in sizes.items()}


class Noted(NamedTuple):
    """One call of the loss: the module's mode, the kind of loss, and the sentences."""

    training: bool
    kind: str
    items: tuple[Item, ...]


class Watched(toy.ToyBackend):
    """An untrained toy of three languages that notes what it computes, and may break off or change its loss."""

    def __init__(
        self, sizes: Mapping[str, int] = SIZES, before: Callable[[int], float | None] = lambda _: None, **options: Any
    ) -> None:
        super().__init__(languages=languages(sizes), **options)
        self.calls: list[Noted] = []
        self.before = before
        self.items: tuple[Item, ...] = ()

    def collate(self, items: Sequence[Item], split: str = "train") -> toy.Piece:
        self.items = tuple(items)
        return super().collate(items, split)

    def loss(self, piece: toy.Piece, kind: str = "nll") -> tuple[torch.Tensor, int]:
        factor = self.before(len(self.calls))
        self.calls.append(Noted(self.module.training, kind, self.items))
        total, tokens = super().loss(piece, kind)
        return total * (1.0 if factor is None else factor), tokens


def snapshot(path: Path) -> dict[str, bytes]:
    """Every file below a run but the lock."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never disturbed."""
    path = tmp_path_factory.mktemp("straight") / "run"
    analyze(Watched(), path, QUICK, command="sensikit analyze")
    return path


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Batch]]:
    return make_plan(Watched(), QUICK).sets


def obvious(backend: toy.ToyBackend, batches: Sequence[Batch], kind: str = "nll", per_token: bool = True) -> np.ndarray:
    """|θ| times the mean over batches of |∇L|, batch by batch with a whole gradient, (P,) float64."""
    tensors = [p for name, p in backend.module.named_parameters() if name not in backend.ghosts]
    total = np.zeros(sum(tensor.numel() for tensor in tensors))
    for batch in batches:
        loss, tokens = toy.ToyBackend.loss(backend, toy.ToyBackend.collate(backend, batch.items), kind)
        gradients = torch.autograd.grad(loss / tokens if per_token else loss, tensors)
        total += torch.cat([gradient.flatten() for gradient in gradients]).abs().double().numpy()
    weights = torch.cat([tensor.detach().flatten() for tensor in tensors]).abs().double().numpy()
    return total / len(batches) * weights


# the sets


def test_batches_of_a_language_hold_that_language_alone(drawn: dict[str, list[Batch]]) -> None:
    for code in SIZES:
        assert {language for batch in drawn[code] for language, _ in batch.items} == {code}


def test_batches_of_the_others_never_hold_the_language_and_hold_every_other_one(drawn: dict[str, list[Batch]]) -> None:
    for code in SIZES:
        inside = {language for batch in drawn[f"rest-{code}"] for language, _ in batch.items}
        assert inside == set(SIZES) - {code}


@pytest.mark.parametrize("asked", [["cat"], ["cat", "nob"]])
def test_batches_of_the_others_hold_all_training_languages_whatever_is_asked_for(asked: list[str]) -> None:
    found = make_plan(Watched(), QUICK, asked)
    assert set(found.sets) == {*asked, *(f"rest-{code}" for code in asked), "all"}
    inside = {language for batch in found.sets["rest-cat"] for language, _ in batch.items}
    assert inside == {"nob", "fur"}
    assert {language for batch in found.sets["all"] for language, _ in batch.items} == set(SIZES)


def test_a_language_is_measured_the_same_whichever_others_are_asked_for(straight: Path, tmp_path: Path) -> None:
    run = analyze(Watched(), tmp_path / "run", QUICK, languages=["cat"])
    for name in ("cat", "rest-cat", "all"):
        assert run.vector("mt", name).read_bytes() == Run.open(straight).vector("mt", name).read_bytes()
    assert run.languages() == ["cat"]


def test_others_are_mixed_in_proportion_to_their_data_or_flatter() -> None:
    sizes = {"cat": 50, "nob": 1000, "fur": 100}
    settings = Settings(batches=20, tokens=100)

    def share(temperature: float) -> float:
        plan = make_plan(Watched(sizes), replace(settings, rest_temperature=temperature))
        codes = [language for batch in plan.sets["rest-cat"] for language, _ in batch.items]
        return codes.count("nob") / len(codes)

    # 1000 : 100, and √1000 : √100; some three hundred sentences know a share to within 2 to 3 points
    assert share(1) == pytest.approx(10 / 11, abs=0.08)
    assert share(2) == pytest.approx(math.sqrt(10) / (1 + math.sqrt(10)), abs=0.08)


def test_what_is_measured_is_what_was_planned(tmp_path: Path, drawn: dict[str, list[Batch]]) -> None:
    backend = Watched()
    analyze(backend, tmp_path / "run", QUICK)
    planned = [piece for batches in drawn.values() for batch in batches for piece in batch.pieces]
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
        assert np.array_equal(handmade.flat(run, f"rest-{code}"), expected)
        assert run.manifest["sets"][f"mt/rest-{code}"]["pooled"] == [other for other in SIZES if other != code]


def test_pooled_sigma_is_that_of_the_tokens_of_the_others(tmp_path: Path) -> None:
    run = analyze(Watched(), tmp_path / "run", replace(QUICK, rest="pooled"))
    sets = run.manifest["sets"]
    tokens = (sets["mt/nob"]["tokens_mean"] + sets["mt/fur"]["tokens_mean"]) / 2
    assert sets["mt/rest-cat"]["sigma"] == pytest.approx(1e-8 / tokens, rel=1e-15)


def test_pooled_measures_every_language_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backend = Watched()
    run = analyze(backend, tmp_path / "run", replace(QUICK, rest="pooled"), languages=["cat"])
    assert run.languages() == list(SIZES)
    assert any("--rest pooled" in note for note in run.manifest["notes"])
    assert "--rest pooled" in capsys.readouterr().err


def test_mixed_and_pooled_are_not_the_same_and_their_signatures_tell_them_apart(straight: Path, tmp_path: Path) -> None:
    mixed, pooled = Run.open(straight), analyze(Watched(), tmp_path / "run", replace(QUICK, rest="pooled"))
    assert handmade.flat(pooled, "rest-cat").mean() > handmade.flat(mixed, "rest-cat").mean()  # by Jensen
    assert "rest:pooled" in pooled.manifest["signature"]
    assert "rest:mixed" in mixed.manifest["signature"]


# T, and how many batches


def test_tokens_are_lowered_until_the_smallest_language_has_forty_batches_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"nob": 400, "cat": 300, "fur": 200}
    backend = Watched(sizes)
    target = {code: int(backend.sizes(code)[:, 1].sum()) for code in sizes}
    run = analyze(backend, tmp_path / "run", Settings())
    expected = target["fur"] // 40
    assert run.manifest["tokens"] == expected < 4096
    assert f"tokens:{expected}|" in run.manifest["signature"]
    lowered = next(note for note in run.manifest["notes"] if "lowered" in note)
    assert f"T lowered from 4096 to {expected}" in lowered
    assert "fur" in lowered
    assert lowered in capsys.readouterr().err
    assert 38 <= run.manifest["sets"]["mt/fur"]["batches"] <= 41


def test_every_language_has_as_many_batches_as_it_can_fill_up_to_the_wanted_number_and_it_is_said(
    tmp_path: Path,
) -> None:
    sizes = {"nob": 400, "cat": 20}
    run = analyze(Watched(sizes), tmp_path / "run", Settings(batches=9, tokens=40))
    sets = run.manifest["sets"]
    assert sets["mt/nob"]["batches"] == 9
    assert sets["mt/cat"]["batches"] < 9
    assert sets["mt/rest-nob"]["batches"] < 9
    expected = [f"cat has {sets['mt/cat']['batches']} batches of 40 target tokens, not 9"]
    assert run.manifest["notes"] == expected


def test_batches_hold_the_same_tokens_in_every_set(straight: Path) -> None:
    for entry in Run.open(straight).manifest["sets"].values():
        assert 40 - 10 <= entry["tokens_min"] <= entry["tokens_mean"] <= entry["tokens_max"] <= 40 + 10
        assert entry["tokens_mean"] == pytest.approx(40, abs=5)


def test_tokens_that_were_asked_for_are_not_lowered() -> None:
    plan = make_plan(Watched(), Settings(batches=6, tokens=70))
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
    assert not backend.module.training


def test_preset_released_is_the_summed_training_loss_in_training_mode(tmp_path: Path) -> None:
    module = toy.initialised(toy.TokenModel(toy.vocabulary_size(), dropout=0.0))
    backend = Watched(module=module, ghosts=[toy.GHOST])
    run = analyze(backend, tmp_path / "run", replace(QUICK, **RELEASED))
    assert {(call.training, call.kind) for call in backend.calls} == {(True, "train")}
    # without dropout the loop needs no random state to be the same
    batches = make_plan(backend, QUICK).sets
    for name in ("cat", "rest-cat"):
        expected = obvious(backend, batches[name], kind="train", per_token=False)
        np.testing.assert_allclose(handmade.flat(run, name), expected, rtol=2e-4, atol=1e-9 * expected.max())
    assert run.manifest["sets"]["mt/rest-cat"]["sigma"] == 1e-8  # as in the paper
    assert "loss:train/sum|mode:train" in run.manifest["signature"]


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
    other = analyze(Watched(), tmp_path / "other", replace(QUICK, mode="train"), languages=["cat"])
    assert np.array_equal(handmade.flat(run, "cat"), handmade.flat(other, "cat"))
    assert np.array_equal(handmade.flat(run, "rest-cat"), handmade.flat(other, "rest-cat"))


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


def breaks_at(call: int) -> Callable[[int], float | None]:
    def before(now: int) -> float | None:
        return 1 / 0 if now == call else None

    return before


def infinite_at(*calls: int) -> Callable[[int], float | None]:
    return lambda now: math.inf if now in calls else None


def test_a_gradient_that_is_not_finite_is_refused_with_its_batch_and_can_be_resumed(
    tmp_path: Path, straight: Path
) -> None:
    settings = replace(QUICK, pieces=1)
    backend = Watched(before=infinite_at(2))
    with pytest.raises(NonFiniteError, match=r"batch 2 of nob: its gradient is not finite .*--skip-nonfinite"):
        analyze(backend, tmp_path / "run", settings)
    assert Run.open(tmp_path / "run").languages() == []
    analyze(Watched(), tmp_path / "run", settings, resume=True)
    other = analyze(Watched(), tmp_path / "other", settings)
    assert snapshot(tmp_path / "run") == snapshot(other.path)


def test_skipped_batches_are_counted_and_left_out_of_everything(tmp_path: Path) -> None:
    settings = Settings(batches=44, tokens=9, pieces=1, skip_nonfinite=True)
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
    assert "nonfinite:skipped" in run.manifest["signature"]


# what is recorded


def test_manifest_says_what_was_measured_of_what_and_how(straight: Path) -> None:
    backend = Watched()
    found = json.loads((straight / "manifest.json").read_text("utf-8"))
    assert found["format"] == 1
    assert found["version"] == __version__
    assert found["direction"] == "xxx-eng"
    assert found["settings"] == asdict(QUICK)
    assert found["settings"]["seed"] == 1
    assert found["provenance"] == asdict(backend.provenance)
    assert list(found["languages"]) == found["training_languages"] == list(SIZES)
    assert found["languages"]["cat"] == {
        "name": "Cat", "family": "Romance", "tier": "Low", "sizes": {"train": 60, "test": 5},
    }  # fmt: skip
    parameters = registry(backend.module, backend.ghosts)
    assert [(p["name"], tuple(p["shape"]), p["prunable"]) for p in found["parameters"]] == [
        (p.name, p.shape, p.prunable) for p in parameters
    ]
    assert toy.GHOST not in {p["name"] for p in found["parameters"]}
    assert found["parameter_count"] == sum(p.numel for p in parameters)
    assert found["prunable_count"] == sum(p.numel for p in parameters if p.prunable)
    assert found["command"] == "sensikit analyze"
    assert {"python", "torch", "numpy"} <= set(found["versions"])
    assert set(found["sets"]) == {f"mt/{name}" for code in SIZES for name in (code, f"rest-{code}")} | {"mt/all"}


def test_every_set_records_its_counts_its_loss_and_the_hashes_of_its_files(
    straight: Path, drawn: dict[str, list[Batch]]
) -> None:
    run, backend = Run.open(straight), Watched()
    for name, batches in drawn.items():
        entry = run.manifest["sets"][f"mt/{name}"]
        items = [item for batch in batches for item in batch.items]
        assert entry["tokens_mean"] == np.mean([batch.tokens for batch in batches])
        assert entry["sentences"] == {c: n for c in SIZES if (n := sum(code == c for code, _ in items))}
        assert entry["skipped"] == 0
        with torch.no_grad():
            losses = [toy.ToyBackend.loss(backend, backend.collate(batch.items)) for batch in batches]
        assert entry["loss"] == pytest.approx(np.mean([float(total) / count for total, count in losses]), rel=1e-5)
        assert entry["sigma"] == pytest.approx(1e-8 / entry["tokens_mean"], rel=1e-15)
        assert entry["drawn"] == sha256_of(*(f"{language}:{index}" for language, index in items))
        kinds = {f"sensitivity/mt/{name}{kind}.safetensors" for kind in ([""] + [".half", ".blocks"] * (name in SIZES))}
        assert set(entry["files"]) == kinds
        assert all(sha256(straight / file) == digest for file, digest in entry["files"].items())


def test_the_seed_decides_which_sentences_are_drawn(straight: Path, tmp_path: Path) -> None:
    def hashes(run: Run) -> dict[str, str]:
        return {name: entry["drawn"] for name, entry in run.manifest["sets"].items()}

    first = Run.open(straight)
    again = analyze(Watched(), tmp_path / "again", QUICK)
    other = analyze(Watched(), tmp_path / "other", replace(QUICK, seed=2))
    assert hashes(first) == hashes(again)
    assert not set(hashes(first).values()) & set(hashes(other).values())
    assert len(set(hashes(first).values())) == len(hashes(first))


CHANGES: dict[str, dict[str, Any]] = {
    "split": {"split": "valid"},
    "loss": {"loss": "train"},
    "reduction": {"reduction": "sum"},
    "mode": {"mode": "train"},
    "batches": {"batches": 7},
    "tokens": {"tokens": 41},
    "rest": {"rest": "pooled"},
    "rest_temperature": {"rest_temperature": 2.0},
    "sigma": {"sigma": 2e-8},
    "seed": {"seed": 2},
    "skip_nonfinite": {"skip_nonfinite": True},
}


def signature_of(backend: toy.ToyBackend, settings: Settings, asked: list[str] | None = None) -> str:
    from sensikit.analysis import run_signature

    return run_signature(backend, settings, make_plan(backend, settings, asked))


class Both(Watched):
    def sizes(self, language: str, split: str = "train") -> np.ndarray:
        return super().sizes(language, "train")


@pytest.mark.parametrize("name", CHANGES)
def test_every_choice_that_moves_a_number_is_in_the_signature(name: str) -> None:
    assert set(CHANGES) | {"task", "pieces"} == set(asdict(QUICK)), "a new setting must be thought about"
    backend = Both()
    assert signature_of(backend, QUICK) != signature_of(backend, replace(QUICK, **CHANGES[name]))


def test_pieces_draw_other_dropout_and_are_in_the_signature_of_training_mode_alone() -> None:
    backend = Watched()
    assert signature_of(backend, QUICK) == signature_of(backend, replace(QUICK, pieces=2))
    trained = replace(QUICK, mode="train")
    assert signature_of(backend, trained) != signature_of(backend, replace(trained, pieces=2))


def test_temperature_moves_the_batches_of_all_languages_under_pooled_too() -> None:
    backend, pooled = Watched(), replace(QUICK, rest="pooled")
    flatter = replace(pooled, rest_temperature=5.0)
    assert make_plan(backend, pooled).sets["all"] != make_plan(backend, flatter).sets["all"]
    assert signature_of(backend, pooled) != signature_of(backend, flatter)


def test_signature_tells_checkpoint_data_direction_and_languages() -> None:
    whole = signature_of(Watched(), QUICK)
    assert whole != signature_of(Watched(seed=1), QUICK)
    assert whole != signature_of(Watched({**SIZES, "fur": 51}), QUICK)
    assert whole != signature_of(Watched(direction="eng-xxx"), QUICK)
    assert whole != signature_of(Watched(), QUICK, ["cat"])
    assert signature_of(Watched(), QUICK, ["nob"]) != signature_of(Watched(), QUICK, ["cat"])
    assert whole.startswith("S|task:mt|dir:xxx-eng|")
    assert whole.endswith(f"|v:{__version__}")
    assert f"|ckpt:{Watched().provenance.checkpoint_sha256[:8]}|" in whole


# metamorphic


def test_the_same_batches_under_two_names_have_no_specificity_and_correlate_perfectly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Twins(Watched):
        """Two languages of the same sentences."""

        def __init__(self) -> None:
            super().__init__({"cat": 60, "nob": 60})
            for split in ("train", "test"):
                self.pairs["nob", split] = self.pairs["cat", split]

    def in_order(sizes: Mapping[str, np.ndarray], *_: Any) -> Iterator[Item]:
        return ((language, index) for index in range(60) for language in sizes)

    monkeypatch.setattr("sensikit.analysis.draw", in_order)
    run = analyze(Twins(), tmp_path / "run", QUICK)
    assert handmade.flat(run, "cat").max() > 0
    table = run.read_table("specificity.csv").set_index(["language", "statistic"])["value"].unstack()
    assert (table["share_ties_at_zero"] == 1).all()
    assert (table[["mean", "q01", "median", "q99", "share_positive"]] == 0).all(axis=None)
    correlation = run.read_table("correlation.csv")
    np.testing.assert_allclose(correlation["pcc"], 1, atol=1e-12)


def test_scaling_the_loss_and_sigma_together_leaves_pcc_specificity_and_the_order_as_they_were(
    straight: Path, tmp_path: Path
) -> None:
    run = Run.open(straight)
    scaled = analyze(Watched(before=lambda _: 16.0), tmp_path / "run", replace(QUICK, sigma=16e-8))
    assert np.array_equal(handmade.flat(scaled, "cat"), 16 * handmade.flat(run, "cat"))
    assert (scaled.path / "correlation.csv").read_bytes() == (straight / "correlation.csv").read_bytes()
    one, two = (table.read_table("specificity.csv") for table in (run, scaled))
    same = one["statistic"] != "sigma"
    assert one[same].equals(two[same])
    module = Watched().module
    for name in ("specificity", "sensitivity"):
        masks = []
        for each in (run, scaled):
            plan = make_pruning_plan(each, module, Order(name, "cat"), [0.5])
            masks.append(np.concatenate([inside for _, _, inside in chosen(each, module, plan, 0.5)]))
        assert np.array_equal(*masks)


def test_permuting_the_parameters_permutes_the_result(straight: Path, tmp_path: Path) -> None:
    def turned(part: torch.nn.Module) -> None:
        """Register what `part` holds the other way round, under the same names."""
        part._modules = dict(reversed(part._modules.items()))
        part._parameters = dict(reversed(part._parameters.items()))

    backend = Watched()
    for part in backend.module.modules():
        if part is not backend.module:  # the tied tensor keeps its first name
            turned(part)
    run, permuted = Run.open(straight), analyze(backend, tmp_path / "run", QUICK)
    names = [parameter.name for parameter in permuted.parameters]
    assert names != [parameter.name for parameter in run.parameters]
    assert sorted(names) == sorted(parameter.name for parameter in run.parameters)

    def by_name(which: Run, name: str) -> dict[str, np.ndarray]:
        flat = handmade.flat(which, name)
        return {p.name: flat[p.start : p.stop] for p in which.parameters}

    for name in ("cat", "rest-cat", "all"):
        one, two = by_name(run, name), by_name(permuted, name)
        assert all(np.array_equal(one[each], two[each]) for each in names)
    for table in ("correlation.csv", "specificity.csv", "balance.csv"):
        one, two = run.read_table(table), permuted.read_table(table)
        numbers = one.select_dtypes("number").columns
        np.testing.assert_allclose(one[numbers], two[numbers], rtol=1e-6, atol=1e-9)

    def pruned_by_name(which: Run, module: torch.nn.Module) -> dict[str, np.ndarray]:
        plan = make_pruning_plan(which, module, Order("specificity", "cat"), [0.5])
        return {p.name: inside for p, _, inside in chosen(which, module, plan, 0.5)}

    one, two = pruned_by_name(run, Watched().module), pruned_by_name(permuted, backend.module)
    assert all(np.array_equal(one[name], two[name]) for name in one)


# broken off, and resumed


@pytest.mark.parametrize("call", [0, 3, 60, 166])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_analysis_that_broke_off_resumes_and_ends_with_the_same_bytes(
    tmp_path: Path, straight: Path, call: int, error: type[BaseException]
) -> None:
    def before(now: int) -> None:
        if now == call:
            raise error

    with pytest.raises(error):
        analyze(Watched(before=before), tmp_path / "run", QUICK, command="sensikit analyze")
    analyze(Watched(), tmp_path / "run", QUICK, resume=True, command="sensikit analyze --resume")
    assert snapshot(tmp_path / "run") == snapshot(straight)


def test_a_resume_measures_only_what_is_missing(tmp_path: Path, straight: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    backend = Watched()
    analyze(backend, tmp_path / "run", QUICK, resume=True)
    assert backend.calls == []
    Run.open(straight).vector("mt", "rest-cat")
    (tmp_path / "run" / "sensitivity" / "mt" / "rest-cat.safetensors").unlink()
    analyze(backend, tmp_path / "run", QUICK, resume=True)
    assert {language for call in backend.calls for language, _ in call.items} == {"nob", "fur"}
    assert snapshot(tmp_path / "run") == snapshot(straight)


@pytest.mark.parametrize("name", ["cat.safetensors", "nob.half.safetensors", "fur.blocks.safetensors"])
def test_a_resume_measures_a_damaged_set_again(tmp_path: Path, straight: Path, name: str) -> None:
    shutil.copytree(straight, tmp_path / "run")
    path = tmp_path / "run" / "sensitivity" / "mt" / name
    content = bytearray(path.read_bytes())
    content[-7] ^= 4
    path.write_bytes(content)
    analyze(Watched(), tmp_path / "run", QUICK, resume=True)
    assert snapshot(tmp_path / "run") == snapshot(straight)


def test_a_pooled_run_that_broke_off_ends_with_the_same_bytes(tmp_path: Path) -> None:
    pooled = replace(QUICK, rest="pooled")
    analyze(Watched(), tmp_path / "one", pooled)
    with pytest.raises(ZeroDivisionError):
        analyze(Watched(before=breaks_at(50)), tmp_path / "two", pooled)
    analyze(Watched(), tmp_path / "two", pooled, resume=True)
    (tmp_path / "two" / "sensitivity" / "mt" / "rest-nob.safetensors").unlink()
    analyze(Watched(), tmp_path / "two", pooled, resume=True)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path, straight: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    (tmp_path / "run" / ".correlation.csv.4711.partial").write_text("half")
    (tmp_path / "run" / "sensitivity" / "mt" / ".cat.safetensors.4711.partial").write_text("half")
    analyze(Watched(), tmp_path / "run", QUICK, resume=True)
    assert snapshot(tmp_path / "run") == snapshot(straight)


def test_a_run_killed_before_its_first_manifest_was_whole_can_begin_again(tmp_path: Path, straight: Path) -> None:
    for name, resume in (("one", True), ("two", False)):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".manifest.json.4711.partial").write_text("{")
        analyze(Watched(), tmp_path / name, QUICK, resume=resume, command="sensikit analyze")
        assert snapshot(tmp_path / name) == snapshot(straight)


# what is refused


def refused(
    path: Path, error: type[SensikitError], match: str, backend: Watched | None = None, **options: Any
) -> None:
    """Nothing is computed, and nothing at `path` changes."""
    before, existed = snapshot(path), path.exists()
    backend = backend or Watched()
    with pytest.raises(error, match=match) as caught:
        analyze(backend, path, **{"settings": QUICK, **options})
    assert "\n" not in str(caught.value)
    assert backend.calls == []
    assert snapshot(path) == before
    assert path.exists() == existed


@pytest.mark.parametrize("name", CHANGES)
def test_a_resume_with_other_settings_is_refused(tmp_path: Path, straight: Path, name: str) -> None:
    shutil.copytree(straight, tmp_path / "run")
    settings = replace(QUICK, **CHANGES[name])
    refused(tmp_path / "run", RunError, "was made with another", Both(), settings=settings, resume=True)


def test_a_resume_says_which_setting_is_another(tmp_path: Path, straight: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    settings = replace(QUICK, tokens=41, seed=3)
    refused(
        tmp_path / "run", RunError, "tokens:40, not tokens:41.*seed:1, not seed:3", settings=settings, resume=True
    )


def test_a_resume_with_another_checkpoint_other_data_or_other_languages_is_refused(
    tmp_path: Path, straight: Path
) -> None:
    shutil.copytree(straight, tmp_path / "run")
    for backend in (Watched(seed=1), Watched({**SIZES, "fur": 51}), Watched(direction="eng-xxx")):
        refused(tmp_path / "run", RunError, "was made with another signature", backend, resume=True)
    refused(tmp_path / "run", RunError, "was made with another", languages=["cat"], resume=True)


@pytest.mark.parametrize("kind", ["run", "directory", "file"])
def test_an_output_that_exists_is_refused_and_left_as_it_is(tmp_path: Path, straight: Path, kind: str) -> None:
    path = tmp_path / "out"
    if kind == "run":
        shutil.copytree(straight, path)
    elif kind == "directory":
        path.mkdir()
        (path / "thesis.tex").write_text("years of work")
    else:
        path.write_text("years of work")
    before = path.read_text() if kind == "file" else ""
    refused(path, RunError, "already exists; choose another --out")
    assert kind != "file" or path.read_text() == before
    if kind != "run":
        refused(path, RunError, "already exists", resume=True)


def test_an_empty_output_directory_is_taken(tmp_path: Path, straight: Path) -> None:
    (tmp_path / "run").mkdir()
    analyze(Watched(), tmp_path / "run", QUICK, command="sensikit analyze")
    assert snapshot(tmp_path / "run") == snapshot(straight)


def test_a_run_that_another_process_writes_is_refused(tmp_path: Path, straight: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    with Run.open(tmp_path / "run").locked():
        refused(tmp_path / "run", RunError, "is being written by another process", resume=True)


@pytest.mark.parametrize("codes", [["xyz"], ["cat", "eng"]])
def test_an_unknown_language_is_refused_with_the_known_ones(tmp_path: Path, codes: list[str]) -> None:
    expected = f"--languages: {codes[-1]} is not a training language; choose among nob, cat, fur"
    refused(tmp_path / "run", OptionError, expected, languages=codes)


def test_no_language_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "run", OptionError, "--languages", languages=[])


def test_a_language_with_no_data_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "run", DataError, "fur: has no sentence in the train split", Watched({**SIZES, "fur": 0}))


def test_a_single_language_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "run", DataError, "cat: is the only language.*at least two", Watched({"cat": 60}))


def test_a_language_that_does_not_fill_two_batches_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "run", DataError, "fur: fills 0 batches of 40 target tokens", Watched({**SIZES, "fur": 3}))


@pytest.mark.parametrize(
    ("option", "change"),
    [
        ("--task", {"task": "denoise"}),
        ("--loss", {"loss": "mse"}),
        ("--rest", {"rest": "both"}),
        ("--batches", {"batches": 1}),
        ("--batches", {"batches": -5}),
        ("--tokens", {"tokens": 0}),
        ("--pieces", {"pieces": 0}),
        ("--rest-temperature", {"rest_temperature": 0.0}),
        ("--rest-temperature", {"rest_temperature": math.inf}),
        ("--rest-temperature", {"rest_temperature": math.nan}),
        ("--sigma", {"sigma": 0.0}),
        ("--sigma", {"sigma": -1e-8}),
        ("--sigma", {"sigma": math.nan}),
        ("--seed", {"seed": -1}),
    ],
)
def test_a_setting_that_cannot_be_is_refused(option: str, change: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"^{option}: ") as caught:
        replace(QUICK, **change)
    assert "\n" not in str(caught.value)


def test_a_disk_that_is_too_full_is_refused_before_anything_is_measured(
    tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Watched()
    needed = estimate(Watched(), QUICK).disk
    free = needed - 1

    def usage(_: Path) -> tuple[int, int, int]:
        return shutil._ntuple_diskusage(10**12, 10**12 - free, free)  # type: ignore[attr-defined, no-any-return]

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(SensikitError, match="the disk has .* free and the run takes .* more; free some space"):
        analyze(backend, tmp_path / "run", QUICK, command="sensikit analyze")
    assert backend.calls == []
    free = needed
    analyze(backend, tmp_path / "run", QUICK, resume=True)
    assert snapshot(tmp_path / "run") == snapshot(straight)
    free = 0  # all that it takes is there already
    analyze(backend, tmp_path / "run", QUICK, resume=True)


# before it is begun


@pytest.mark.parametrize(
    "settings", [QUICK, replace(QUICK, rest="pooled"), Settings(batches=44, tokens=9), replace(QUICK, batches=3)]
)
@pytest.mark.parametrize("asked", [None, ["cat"]])
def test_a_dry_run_knows_the_disk_and_the_batches_a_run_takes(
    tmp_path: Path, settings: Settings, asked: list[str] | None
) -> None:
    cost = estimate(Watched(), settings, asked)
    run = analyze(Watched(), tmp_path / "run", settings, languages=asked)
    taken = 0
    for path in (tmp_path / "run").rglob("*.safetensors"):
        content = path.read_bytes()
        header = int.from_bytes(content[:8], "little")  # names and shapes, beside the numbers
        taken += len(content) - 8 - header
    assert cost.disk == taken
    measured = [entry for entry in run.manifest["sets"].values() if "pooled" not in entry]
    assert cost.batches == sum(entry["batches"] for entry in measured)
    assert cost.seconds > 0
    assert cost.memory >= 4 * 4 * run.manifest["parameter_count"]


def test_a_dry_run_writes_nothing_and_leaves_the_model_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for settings in (QUICK, replace(QUICK, mode="train")):
        backend = Watched()
        before = copy.deepcopy(backend.module.state_dict())
        state = torch.random.get_rng_state()
        estimate(backend, settings)
        assert list(tmp_path.iterdir()) == []
        assert all(torch.equal(before[name], tensor) for name, tensor in backend.module.state_dict().items())
        assert all(parameter.grad is None for parameter in backend.module.parameters())
        assert not backend.module.training
        assert torch.equal(torch.random.get_rng_state(), state)
        assert len({call.items for call in backend.calls}) <= 4  # one batch, in its pieces


def test_a_dry_run_does_not_stumble_over_what_the_run_would_skip() -> None:
    backend = Watched(before=lambda _: math.inf)
    assert estimate(backend, replace(QUICK, skip_nonfinite=True)).batches > 0


def test_block_means_of_large_models_are_those_of_a_sample() -> None:
    plan = make_plan(Watched(), Settings(batches=44, tokens=9))
    for count in (999_999, 1_000_000, 5_000_000):
        vectors = 3 * 3 + 1
        assert cost_on_disk(count, plan) == 4 * (count * vectors + min(count, 1_000_000) * 20 * 3)


def test_notes_are_said_once_each_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = analyze(Watched({"nob": 400, "cat": 20}), tmp_path / "run", Settings(batches=9, tokens=40))
    said = capsys.readouterr().err
    for note in run.manifest["notes"]:
        assert len(re.findall(re.escape(note), said)) == 1
