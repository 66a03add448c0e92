import json
import operator
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from sensikit import demo as demo_module
from sensikit.backends import open_model
from sensikit.backends.fairseq.plugin import launch
from sensikit.demo import Demo, Recipe, bridged, catalogues, demo
from sensikit.demo.partner import free_port, launched, partner
from sensikit.distributed import Share
from sensikit.errors import MissingDependencyError, RunError
from sensikit.files import read_json, sha256
from sensikit.report import page
from sensikit.run import Run
from tests.support.command import call
from tests.support.corpus_text import english, translated

BEST = "training/regular/checkpoint_best.pt"
TINY = Recipe(
    packages=("pages", "shop"),
    languages=("cat", "isl"),
    vocab=120,
    valid=10,
    test=15,
    tiers=(200, 100),
    updates=30,
    batches=4,
    ratios=(0.0, 0.5),
    orders=("specificity",),
    matched=(),
    audited=60,
)


def write_package(root: Path, name: str, sentences: list[str]) -> None:
    """A package that cannot be imported, with catalogues."""
    for code, locale in (("cat", "ca"), ("isl", "is")):
        folder = root / name / "locale" / locale / "LC_MESSAGES"
        folder.mkdir(parents=True)
        entries = "".join(f'msgid "{one}"\nmsgstr "{translated(one, code)}"\n\n' for one in sentences)
        header = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n'
        (folder / "django.po").write_text(header + entries, encoding="utf-8")
    (root / name / "__init__.py").write_text("raise RuntimeError('settings are not configured')\n")


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    """The smallest of models in the place of the demo's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_module, "DESIGN", demo_module.DESIGN.replace("sensikit_small", "sensikit_tiny"))
        yield


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packages")
    sentences = english(240)
    write_package(root, "pages", sentences[:160])
    write_package(root, "shop", sentences[120:])
    return root


@pytest.fixture(autouse=True)
def importable(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(packages))


@pytest.fixture(scope="module")
def finished(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(packages))
        assert demo(out, TINY, "sensikit demo") == out / "report.html"
    return out


def test_it_goes_the_whole_way(finished: Path) -> None:
    manifest = read_json(finished / "data" / "manifest.json")
    assert {code: entry["sizes"]["test"] for code, entry in manifest["languages"].items()} == {"cat": 15, "isl": 15}
    run = read_json(finished / "run" / "manifest.json")
    assert run["provenance"]["checkpoint_sha256"] == sha256(finished / BEST)
    audit = pd.read_csv(finished / "run" / "audit-summary.csv")
    assert set(audit["group"]) == set(TINY.languages)
    assert set(audit["command"]) == {"sensikit demo"}
    assert (finished / "run" / "pruning.csv").read_text().count("\n") == 1 + 2 * 2 * len(
        TINY.ratios
    )  # two groups, two metrics
    assert "<svg" in (finished / "report.html").read_text() or "data:image" in (finished / "report.html").read_text()
    assert read_json(finished / "demo.json")["recipe"]["updates"] == 30


def test_a_finished_demo_does_nothing_twice(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ["data/manifest.json", BEST, "run/pruning/ledger.jsonl", "run/correlation.csv", "run/audit.csv"]
    kept += ["huggingface/model.safetensors", "run-huggingface/sensitivity/mt/cat.safetensors"]
    before = [sha256(finished / name) for name in kept]

    def refuse(*_: object) -> None:
        raise AssertionError("done before")

    monkeypatch.setattr(launch, "train", refuse)
    monkeypatch.setattr("sensikit.corpus.build", refuse)
    monkeypatch.setattr("sensikit.sensitivity.ablation.audit", refuse)
    monkeypatch.setattr("sensikit.sensitivity.analysis.measure", refuse)
    monkeypatch.setattr("sensikit.pruning.export.convert", refuse)
    monkeypatch.setattr("sensikit.backends.fairseq.translation.Translation.translate", refuse)
    monkeypatch.setattr(page, "report", lambda runs, out, **_: out / "report.html")
    assert demo(finished, TINY) == finished / "report.html"
    assert [sha256(finished / name) for name in kept] == before


def test_a_demo_that_is_interrupted_goes_on_where_it_stopped(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    (tmp_path / "demo").mkdir()
    for name in ("demo.json", "data", "training"):
        (tmp_path / "demo" / name).symlink_to(finished / name)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sensikit.pruning.sweep.prune", interrupt)
        with pytest.raises(KeyboardInterrupt):
            demo(tmp_path / "demo", TINY)
    monkeypatch.setattr(page, "report", lambda runs, out, **_: out / "report.html")
    # with two threads, there is a second process
    torch.set_num_threads(2)
    try:
        demo(tmp_path / "demo", TINY)
    finally:
        torch.set_num_threads(before)
    for name in ("run/correlation.csv", "run/pruning.csv", "run/sensitivity/mt/cat.safetensors"):
        assert (tmp_path / "demo" / name).read_bytes() == (finished / name).read_bytes()


def test_transformers_has_the_same_sensitivities_or_is_passed_over(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, model = Run.open(finished / "run"), open_model(finished / BEST, finished / "data")
    said = bridged(run, model, finished / "data", finished, "")
    found = re.fullmatch(r"S of cat and isl on the same batches: apart by at most (\S+) of the largest", said)
    assert found
    assert float(found[1]) < 1e-6
    monkeypatch.setitem(sys.modules, "transformers", None)
    said = bridged(run, model, finished / "data", finished, "")
    assert said == 'Left out: transformers: is not installed; pip install "sensikit[hf]"'


def test_a_demo_of_other_settings_or_versions_is_refused(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"demo: was made with another recipe\.updates \(30, not 31\)"):
        demo(finished, replace(TINY, updates=31))
    monkeypatch.setattr(demo_module, "version", lambda name: "9.9")
    with pytest.raises(RunError, match=r"demo: was made with another packages\.sensikit \(.*, not 9\.9\)"):
        demo(finished, TINY)


def met(share: Share, port: int) -> float:
    with launched(share, port):
        torch.distributed.init_process_group("gloo")
        found = torch.ones(1)
        torch.distributed.all_reduce(found)
    assert "RANK" not in os.environ
    return found.item()


def left(share: Share, port: int) -> None:
    with launched(share, port):
        torch.distributed.init_process_group("gloo")
        os._exit(1)


def test_a_second_process_answers_and_its_end_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    steps: dict[str, Any] = {"answer": operator.eq, "meet": met, "leave": left}

    def ended() -> None:
        with partner(tmp_path, steps) as second:
            second.begin("answer", 1)
            assert second.answer() is False
            port = free_port()
            second.begin("meet", port)
            assert met(second.share, port) == second.answer() == 2
            second.begin("leave", port)
            met(second.share, port)  # breaks off

    with pytest.raises(RunError, match="its second process has ended"):
        ended()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_demo_is_left_alone(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "mine"
    if kind == "folder":
        place.mkdir()
        (place / "letter.txt").write_text("dear")
    else:
        place.write_text("dear")
    with pytest.raises(RunError, match="already exists and is not a demo"):
        demo(place, TINY)
    assert sorted(path.name for path in tmp_path.rglob("*")) == (
        ["letter.txt", "mine"] if kind == "folder" else ["mine"]
    )


def test_catalogues_are_found_without_importing_their_package(packages: Path) -> None:
    assert catalogues("pages") == packages / "pages"
    assert "pages" not in sys.modules


def test_a_missing_package_is_named_with_what_to_install(tmp_path: Path) -> None:
    recipe = Recipe(packages=("pages", "no_such_package"))
    with pytest.raises(
        MissingDependencyError, match=r'no_such_package: is not installed.*pip install "sensikit\[demo,fairseq\]"'
    ):
        demo(tmp_path / "demo", recipe)
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_what_is_no_demo_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    done = call("demo", "--out", tmp_path)
    assert done.code == 2
    assert "already exists and is not a demo" in done.error
    assert "Traceback" not in done.error


def test_the_installed_catalogues_have_text_enough(tmp_path: Path) -> None:
    recipe = Recipe()
    demo_module._make_data([catalogues(package) for package in recipe.packages], tmp_path / "data", recipe)
    languages = read_json(tmp_path / "data" / "manifest.json")["languages"]
    assert set(languages) == set(recipe.languages)
    for entry in languages.values():
        assert entry["sizes"]["test"] == recipe.test >= 100
        assert entry["sizes"]["train"] > 900
    assert {entry["tier"] for entry in languages.values()} == {"High", "Low", "Very Low"}


def test_two_demos_do_not_write_the_same_place(finished: Path) -> None:
    with Demo.open(finished).locked(), pytest.raises(RunError, match="is being written by another process"):
        demo(finished, TINY)


@pytest.mark.slow
def test_a_demo_that_is_killed_while_it_trains_goes_on(packages: Path, tmp_path: Path) -> None:
    program = (
        f"from tests.test_demo import TINY, demo; from dataclasses import replace; demo({str(tmp_path / 'demo')!r}, "
    )
    program += "replace(TINY, updates=600))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packages), *sys.path]), "OMP_NUM_THREADS": "2"}
    training = tmp_path / "demo" / "training" / "regular"
    first = subprocess.Popen([sys.executable, "-c", program], env=environment)
    deadline = time.monotonic() + 300
    while not (training / "checkpoint_last.pt").exists():
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (tmp_path / "demo" / "report.html").exists()
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert (tmp_path / "demo" / "report.html").exists()
    assert "Loaded checkpoint" in (training / "fairseq.log").read_text()
    assert (
        "training on 2 devices" in (training / "fairseq.log").read_text()
    )  # in two processes, where there are threads
    lines = [json.loads(line) for line in (training / "log.jsonl").read_text().splitlines()]
    updates = [line["num_updates"] for line in lines if line["set"] == "train_inner"]
    assert updates == sorted(set(updates))
    assert updates[-1] == 600
