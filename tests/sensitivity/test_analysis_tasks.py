"""Two tasks in one run: each measured once, the same languages of the same model, tables of both."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sensikit.backends.base import Task
from sensikit.errors import OptionError, RunError, SensikitError
from sensikit.files import sha256
from sensikit.parameters import registry
from sensikit.run import MIXED, Run
from sensikit.sensitivity.analysis import analyze
from sensikit.sensitivity.batches import Batch, pack
from sensikit.sensitivity.cost import estimate
from sensikit.sensitivity.planning import make_plan
from sensikit.settings import AnalysisSettings
from tests.support import toy
from tests.support.command import Called, call
from tests.support.watched import QUICK, SIZES, Both, Watched, signature_of, snapshot, undisturbed

DENOISE = replace(QUICK, task="denoise")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of translation."""
    return undisturbed(tmp_path_factory.mktemp("straight") / "run")


@pytest.fixture(scope="module")
def whole(straight: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both tasks, the second added to the first."""
    path = tmp_path_factory.mktemp("both") / "run"
    shutil.copytree(straight, path)
    analyze(Watched(), path, DENOISE, resume=True, command="sensikit analyze --task denoise")
    return path


class Breaking(Watched):
    """One that breaks off at a call of the loss of denoising."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.left = call

    def task(self, name: str, seed: int = 1) -> Task:
        found = super().task(name, seed)
        if isinstance(found, toy.ToyDenoising):
            inner = found.loss

            def loss(micro_batch: toy.Masked, kind: str = "nll") -> Any:
                self.left -= 1
                return inner(micro_batch, kind) if self.left else 1 / 0

            found.loss = loss  # type: ignore[method-assign]
        return found


# S


def obvious(backend: toy.ToyBackend, batches: Sequence[Batch], seed: int, per_token: bool = True) -> np.ndarray:
    """|θ| times the mean over batches of |∇(L_1/n_1 + L_2/n_2)|, with a whole gradient, (P,) float64."""
    task = backend.task("denoise", seed)
    tensors = [p for name, p in backend.module.named_parameters() if name not in backend.ghosts]
    total = np.zeros(sum(tensor.numel() for tensor in tensors))
    for batch in batches:
        terms, counts = task.loss(task.collate(batch.items))
        assert isinstance(counts, tuple)
        loss = terms[0] / counts[0] + terms[1] / counts[1] if per_token else terms.sum()
        total += torch.cat([g.flatten() for g in torch.autograd.grad(loss, tensors)]).abs().double().numpy()
    weights = torch.cat([tensor.detach().flatten() for tensor in tensors]).abs().double().numpy()
    return total / len(batches) * weights


@pytest.mark.parametrize("settings", [DENOISE, replace(DENOISE, reduction="sum", seed=2)])
def test_S_of_two_terms_is_that_of_each_by_its_own_tokens(tmp_path: Path, settings: AnalysisSettings) -> None:
    backend = Watched()
    run = analyze(backend, tmp_path / "run", settings)
    sets = make_plan(backend, settings).sets
    for name in ("cat", "cat.rest", MIXED):
        found = np.concatenate([block[0] for block in run.stream([run.vector("denoise", name)])])
        expected = obvious(backend, sets[name], settings.seed, settings.reduction == "token")
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * expected.max())
        counts = np.array([batch.counts for batch in sets[name]])
        assert (counts[:, 0] > 1.5 * counts[:, 1]).all()  # one denominator for both would be seen
        assert run.manifest["sets"][f"denoise/{name}"]["tokens_mean"] == counts[:, 0].mean()


def test_batches_are_packed_by_the_first_term_and_count_the_others() -> None:
    sizes = {"cat": np.array([[5, 4, 1], [6, 4, 3], [7, 4, 2], [9, 4, 4]])}
    batches = pack(iter([("cat", row) for row in (2, 0, 3, 1)]), sizes, tokens=8, count=2)
    assert [batch.counts for batch in batches] == [(8, 3), (8, 7)]
    assert [batch.tokens for batch in batches] == [8, 8]


def test_a_count_of_any_term_that_disagrees_between_plan_and_loss_is_caught() -> None:
    from sensikit.sensitivity.taylor import measure

    backend = Watched()
    task = backend.task("denoise", 1)
    first, second, *_ = make_plan(backend, DENOISE).sets["cat"]
    wrong = [first, replace(second, others=(second.others[0] + 1,))]
    with pytest.raises(AssertionError, match=rf"packed to {second.tokens}, {second.others[0] + 1} target tokens"):
        measure(backend.module, registry(backend.module, backend.ghosts), wrong, task.collate, task.loss)


# a task is added


def test_a_second_task_is_added_without_a_second_pass_over_the_first(straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    before = snapshot(tmp_path / "run" / "sensitivity")
    backend = Watched()
    run = analyze(backend, tmp_path / "run", DENOISE, resume=True, command="sensikit analyze --task denoise")
    assert backend.calls == []  # of translation
    after = snapshot(tmp_path / "run" / "sensitivity")
    assert {name: after[name] for name in before} == before
    assert set(after) == {*before, *(name.replace("mt/", "denoise/") for name in before)}
    assert run.tasks == ["mt", "denoise"]
    assert run.analysis("mt") == Run.open(straight).analysis("mt")
    assert run.analysis("denoise")["command"] == "sensikit analyze --task denoise"
    assert run.analysis("denoise")["settings"]["task"] == "denoise"
    assert run.analysis("denoise")["signature"].startswith("S|task:denoise|noise:toy|dir:xxx-eng|")
    for entry in (entry for name, entry in run.manifest["sets"].items() if name.startswith("denoise/")):
        assert all(sha256(run.path / file) == digest for file, digest in entry["files"].items())


def test_tables_hold_both_tasks_and_the_first_as_it_was(straight: Path, whole: Path) -> None:
    for name in ("correlation.csv", "specificity.csv", "balance.csv"):
        alone, both = Run.open(straight).read_table(name), Run.open(whole).read_table(name)
        assert list(both["task"].unique()) == ["mt", "denoise"]
        pd.testing.assert_frame_equal(both[both["task"] == "mt"], alone)
        second = both[both["task"] == "denoise"].reset_index(drop=True)
        assert len(second) == len(alone)
        assert not second.drop(columns="task").equals(alone.drop(columns="task"))


def test_the_tasks_are_compared_only_in_a_run_that_holds_both(straight: Path, whole: Path) -> None:
    assert not (straight / "similarity.csv").exists()
    found = Run.open(whole).read_table("similarity.csv")
    assert set(found["group"]) == set(SIZES)
    assert {"high", "low"} <= set(found["subset"])
    run = Run.open(whole)
    vectors = [run.vector(task, "cat") for task in ("mt", "denoise")]
    a, b = np.concatenate(list(run.stream(vectors)), axis=1).astype(np.float64)
    row = found[(found["group"] == "cat") & (found["subset"] == "all")]
    assert float(row["pcc"].iloc[0]) == pytest.approx(np.corrcoef(a, b)[0, 1], rel=1e-9)


@pytest.mark.parametrize("call", [1, 40, 150])
def test_a_task_that_broke_off_resumes_and_ends_with_the_same_bytes(
    straight: Path, whole: Path, tmp_path: Path, call: int
) -> None:
    shutil.copytree(straight, tmp_path / "run")
    how: dict[str, Any] = {"resume": True, "command": "sensikit analyze --task denoise"}
    with pytest.raises(ZeroDivisionError):
        analyze(Breaking(call), tmp_path / "run", DENOISE, **how)
    assert Run.open(tmp_path / "run").complete("mt")
    assert not Run.open(tmp_path / "run").complete("denoise")
    analyze(Watched(), tmp_path / "run", DENOISE, resume=True)
    assert snapshot(tmp_path / "run") == snapshot(whole)


def test_denoising_can_come_first_and_alone(whole: Path, tmp_path: Path) -> None:
    run = analyze(Watched(), tmp_path / "run", DENOISE)
    assert run.tasks == ["denoise"]
    assert set(run.read_table("correlation.csv")["task"]) == {"denoise"}
    assert not (run.path / "similarity.csv").exists()
    analyze(Watched(), tmp_path / "run", QUICK, resume=True)
    first, second = snapshot(tmp_path / "run" / "sensitivity"), snapshot(whole / "sensitivity")
    assert first == second  # whichever came first


def test_tables_wait_for_a_task_that_is_not_measured_whole(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        analyze(Watched(before=lambda now: 1 / 0 if now == 60 else None), tmp_path / "run", QUICK)
    run = analyze(Watched(), tmp_path / "run", DENOISE, resume=True)
    assert run.tasks == ["mt", "denoise"]
    assert set(run.read_table("correlation.csv")["task"]) == {"denoise"}
    assert not (run.path / "similarity.csv").exists()
    run = analyze(Watched(), tmp_path / "run", QUICK, resume=True)
    assert set(run.read_table("correlation.csv")["task"]) == {"mt", "denoise"}
    assert (run.path / "similarity.csv").exists()


# what is refused


@pytest.mark.parametrize(
    ("other", "options", "field"),
    [
        (lambda: Watched(seed=1), {}, "SHA-256 of the checkpoint"),
        (lambda: Watched({**SIZES, "fur": 51}), {}, "SHA-256 of the data"),
        (lambda: Watched(direction="eng-xxx"), {}, "direction .xxx-eng, not eng-xxx"),
        (Watched, {"groups": ["cat", "fur"]}, r"groups\.nob"),
    ],
)
def test_a_task_of_something_else_is_refused_and_the_run_left_as_it_is(
    straight: Path, tmp_path: Path, other: Any, options: dict[str, Any], field: str
) -> None:
    shutil.copytree(straight, tmp_path / "run")
    with pytest.raises(RunError, match=f"was made with another {field}") as caught:
        analyze(other(), tmp_path / "run", DENOISE, resume=True, **options)
    assert "\n" not in str(caught.value)
    assert snapshot(tmp_path / "run") == snapshot(straight)


def test_a_second_task_may_have_settings_of_its_own(straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    run = analyze(Watched(), tmp_path / "run", replace(DENOISE, tokens=31, seed=2), resume=True)
    assert (run.analysis("mt")["tokens"], run.analysis("denoise")["tokens"]) == (40, 31)
    with pytest.raises(RunError, match=r"was made with another signature .*tokens:31, not tokens:40"):
        analyze(Watched(), tmp_path / "run", DENOISE, resume=True)


def test_a_disk_that_is_too_full_for_a_second_task_is_refused(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(straight, tmp_path / "run")
    needed = estimate(Watched(), DENOISE).disk
    free = needed - 1  # what the first task takes is no part of it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12 - free, free))  # type: ignore[attr-defined]
    with pytest.raises(SensikitError, match=r"the disk has .* free and the run takes .* more"):
        analyze(Watched(), tmp_path / "run", DENOISE, resume=True)
    assert snapshot(tmp_path / "run") == snapshot(straight)
    free = needed
    assert analyze(Watched(), tmp_path / "run", DENOISE, resume=True).complete("denoise")


def test_a_second_task_without_resume_is_refused(straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    with pytest.raises(RunError, match="already exists"):
        analyze(Watched(), tmp_path / "run", DENOISE)


def test_a_model_that_was_not_trained_on_the_task_is_refused_before_anything(tmp_path: Path) -> None:
    backend = Watched()
    backend.tasks = ("mt",)
    for what in (lambda: analyze(backend, tmp_path / "run", DENOISE), lambda: estimate(backend, DENOISE)):
        with pytest.raises(OptionError, match=r"^--task: the model was not trained on denoise"):
            what()
    assert not (tmp_path / "run").exists()


# the signature, and the seed


def test_noise_is_drawn_by_the_seed_and_the_signature_says_so(tmp_path: Path) -> None:
    backend = Both()
    other = replace(DENOISE, seed=2)
    assert signature_of(backend, DENOISE) != signature_of(backend, other)
    assert signature_of(backend, DENOISE) != signature_of(backend, QUICK)
    first = [batch.items for batch in make_plan(backend, DENOISE).sets["cat"]]
    assert first != [batch.items for batch in make_plan(backend, QUICK).sets["cat"]]


# the command line


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensikit.backends.open_model", lambda *_: Watched())
    monkeypatch.setattr("sensikit_cli.options.check_there", lambda _: None)


def command(path: Path, *options: object) -> Called:
    quick = ["--batches", QUICK.batches, "--tokens", QUICK.tokens, "--micro-batches", QUICK.micro_batches]
    return call("analyze", "a.pt", "--data", "data", "--out", path, *quick, *options)


@pytest.mark.usefixtures("opened")
def test_one_command_measures_both_one_after_the_other(whole: Path, tmp_path: Path) -> None:
    done = command(tmp_path / "run", "--task", "mt,denoise")
    assert done.code == 0
    run = Run.open(tmp_path / "run")
    signatures = [run.analysis(task)["signature"] for task in ("mt", "denoise")]
    assert done.output.splitlines()[-4:-1] == [*signatures, str(tmp_path / "run")]
    both, apart = snapshot(tmp_path / "run"), snapshot(whole)
    assert {name: both[name] for name in both if name != "manifest.json"} == {
        name: apart[name] for name in apart if name != "manifest.json"
    }
    again = command(tmp_path / "run", "--task", "denoise,mt", "--resume")
    assert again.code == 0
    assert snapshot(tmp_path / "run") == both


@pytest.mark.usefixtures("opened")
def test_a_dry_run_adds_up_the_tasks(tmp_path: Path) -> None:
    done = command(tmp_path / "run", "--task", "mt,denoise", "--dry-run")
    assert done.code == 0
    each = [estimate(Watched(), settings) for settings in (QUICK, DENOISE)]
    assert done.output.startswith(f"{sum(cost.batches for cost in each)} batches")
    total = each[0] + each[1]
    assert total.disk == each[0].disk + each[1].disk
    assert total.memory == each[0].memory
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("task", ["mlm", "mt,mlm", "", ","])
def test_an_unknown_task_is_one_line(tmp_path: Path, task: str) -> None:
    done = command(tmp_path / "run", "--task", task)
    assert done.code == 2
    assert "--task" in done.error.splitlines()[-1]
    assert done.error.count("sensikit: ") == 1
    assert not (tmp_path / "run").exists()


# a sentence, token by token


def test_denoising_leaves_a_sentence_of_each_language_and_translation_none(straight: Path, whole: Path) -> None:
    assert not (straight / "layout.csv").exists()
    table = pd.read_csv(whole / "layout.csv")
    expected = Watched().task("denoise", DENOISE.seed).layout(list(SIZES))
    assert expected is not None
    pd.testing.assert_frame_equal(table.fillna(""), expected)
