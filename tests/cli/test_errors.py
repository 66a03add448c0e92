"""Exit codes and error lines of analyze, prune and sweep, without fairseq: 0 done, 1 failed, 2 bad input."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer

from sensikit.errors import CheckpointError
from sensikit.files import read_json
from sensikit.run import Run
from tests.support import toy
from tests.support.command import Called, call
from tests.support.watched import snapshot

pytestmark = pytest.mark.usefixtures("backend")

SMALL = ["--batches", 4, "--tokens", 64]


def analyze(tmp_path: Path, *options: object) -> Called:
    return call("analyze", "a.pt", "--data", "data", "--out", tmp_path / "new", *options)


def prune(run: Path, *options: object) -> Called:
    return call("prune", run, "--ratios", "0,0.5", "--groups", "cat", "--tokenizer", "none", *options)


def one_line(done: Called, code: int, *words: str) -> None:
    """Assert the exit code, and a single line of error that holds `words`; progress and notes are no errors."""
    assert done.code == code, done.error
    lines = [line for line in done.error.splitlines() if line.startswith("sensikit: ")]
    assert len(lines) == 1, done.error
    assert "Traceback" not in done.error
    assert "\n" not in lines[0].strip()
    for word in words:
        assert word in lines[0], lines[0]


# done


def test_analyze_prints_its_signature_and_where_it_wrote(tmp_path: Path) -> None:
    done = analyze(tmp_path, *SMALL, "--seed", 3)
    assert done.code == 0
    analysis = Run.open(tmp_path / "new").analysis()
    following = f"Next: sensikit prune {tmp_path / 'new'} --order specificity,random"
    assert done.output.splitlines()[-3:] == [analysis["signature"], str(tmp_path / "new"), following]
    table = Run.open(tmp_path / "new").read_table("correlation.csv")
    once = table[(table["subset"] == "high") & (table["group_a"] < table["group_b"])].sort_values("corrected")
    (high,) = [line for line in done.output.splitlines() if line.strip().startswith("10% high")]
    assert f" {once['corrected'].mean():.3f} " in high
    first, last = ("{group_a}, {group_b} {corrected:.3f}".format(**once.iloc[at]) for at in (0, -1))
    assert re.search(rf"{last} +{first}$", high)
    assert "seed:3" in analysis["signature"]
    assert analysis["command"].startswith("sensikit analyze a.pt --data data --out")


def test_every_option_of_analyze_reaches_the_settings(tmp_path: Path) -> None:
    options = {
        "--batches": 5, "--tokens": 50, "--rest": "pooled", "--rest-temperature": 2.0, "--loss": "train",
        "--sigma": 3e-8, "--high": 0.2, "--seed": 4, "--micro-batches": 2, "--reduction": "sum", "--mode": "train",
    }  # fmt: skip
    typed = [part for pair in options.items() for part in pair]
    assert analyze(tmp_path, *typed, "--skip-nonfinite").code == 0
    settings = Run.open(tmp_path / "new").analysis()["settings"]
    assert {name: settings[name[2:].replace("-", "_")] for name in options} == options
    assert settings["skip_nonfinite"] is True


def test_preset_released_reaches_the_settings(tmp_path: Path) -> None:
    assert analyze(tmp_path, *SMALL, "--preset", "released").code == 0
    settings = Run.open(tmp_path / "new").analysis()["settings"]
    assert (settings["loss"], settings["reduction"], settings["mode"]) == ("train", "sum", "train")


def test_every_option_of_prune_reaches_the_settings(run: Path) -> None:
    options = ["--protect", 0.2, "--max-sentences", 4, "--beam", 3, "--lenpen", 0.5, "--max-len-a", 2]
    options += ["--max-len-b", 7, "--bootstrap", 30]
    assert prune(run, *options, "--max-tokens", 99, "--split", "valid", "--order", "random", "--seeds", 2).code == 0
    table = Run.open(run).read_table("pruning.csv")
    signature = table["signature"][0]
    for part in ("protect:0.2", "sents:4", "beam:3", "lenpen:0.5", "maxlen:2x+7/99", "split:valid"):
        assert f"|{part}|" in signature
    assert set(table["seed"].dropna()) == {1, 2}
    settings = read_json(run / "pruning" / "settings.json")
    assert (settings["decoding"]["max_tokens"], settings["bootstrap"]) == (99, 30)


def test_a_dry_run_says_what_it_takes_and_writes_nothing(tmp_path: Path) -> None:
    done = analyze(tmp_path, *SMALL, "--dry-run")
    assert done.code == 0
    assert re.search(r"36 batches, about .* minutes on cpu; .* GB of memory .*; .* GB of disk", done.output)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_goes_on_where_it_stopped(tmp_path: Path, backend: toy.ToyBackend) -> None:
    options = ["--data", "data", "--out", tmp_path, *SMALL, "--groups", "cat,nob", "--ratios", "0,0.5"]
    options += ["--order", "specificity", "--tokenizer", "none"]
    assert call("sweep", "one/a.pt", "two/a.pt", *options).code == 0
    before = snapshot(tmp_path)
    assert {name.split("/")[0] for name in before} == {"one-a", "two-a"}
    assert "one-a/pruning.csv" in before
    backend.translate = backend.loss = pytest.fail  # type: ignore[assignment, method-assign]  # nothing is left to do
    assert call("sweep", "one/a.pt", "two/a.pt", *options).code == 0
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("option", [["--tokenizer", "moses"], ["--ratios", "0.95"], ["--order", "alphabet"]])
def test_what_prune_would_refuse_is_told_before_a_sweep_begins(tmp_path: Path, option: list[str]) -> None:
    one_line(call("sweep", "a.pt", "--data", "data", "--out", tmp_path / "new", *SMALL, *option), 2, option[0])
    assert not (tmp_path / "new").exists()


def test_a_sweep_of_two_checkpoints_that_would_share_a_run_is_refused(tmp_path: Path) -> None:
    done = call("sweep", "x/one/a.pt", "y/one/a.pt", "--data", "data", "--out", tmp_path / "new", *SMALL)
    one_line(done, 2, "MODEL", "same run directory")
    assert not (tmp_path / "new").exists()


# bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--groups", "xyz"], ["--groups", "xyz", "cat, fur, nob, nso"]),
        (["--groups", ""], ["--groups"]),
        (["--batches", 1], ["--batches"]),
        (["--batches", 10**12], ["--batches", "at most 100,000"]),
        (["--micro-batches", 10**9], ["--micro-batches", "at most 10,000"]),
        (["--rest-temperature", "1e-300"], ["--rest-temperature", "0.01 or more"]),
        (["--tokens", 0], ["--tokens"]),
        (["--tokens", 10**6], ["fills 0 batches", "--tokens"]),
        (["--micro-batches", 0], ["--micro-batches"]),
        (["--rest", "all"], ["--rest", "mixed or pooled"]),
        (["--rest-temperature", "nan"], ["--rest-temperature"]),
        (["--loss", "mse"], ["--loss", "nll or train"]),
        (["--preset", "paper"], ["--preset", "released"]),
        (["--sigma", 0], ["--sigma"]),
        (["--seed", -1], ["--seed"]),
        (["--task", "mlm"], ["--task"]),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_an_option_of_analyze_that_cannot_be(
    tmp_path: Path, options: list[object], words: list[str], dry: list[str]
) -> None:
    one_line(analyze(tmp_path, *options, *dry), 2, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ratios", "0,1.5"], ["--ratios", "not between 0 and 1"]),
        (["--ratios", "0.95"], ["--ratios", "--protect"]),
        (["--ratios", "nan"], ["--ratios"]),
        (["--ratios", "half"], ["--ratios half", "0:0.9:0.1"]),
        (["--ratios", ""], ["--ratios"]),
        (["--protect", 1], ["--protect"]),
        (["--protect", "nan"], ["--protect"]),
        (["--order", "alphabet"], ["--order", "alphabet", "specificity"]),
        (["--order", ""], ["--order"]),
        (["--order", "random", "--seeds", 0], ["--seeds"]),
        (["--seeds", 10**9], ["--seeds", "at most 1,000"]),
        (["--bootstrap", 10**12], ["--bootstrap", "at most 100,000"]),
        (["--groups", "xyz"], ["--groups", "xyz", "cat, fur, nob, nso"]),
        (["--groups", ","], ["--groups"]),
        (["--max-sentences", 0], ["--max-sentences"]),
        (["--max-sentences", -2], ["--max-sentences"]),
        (["--beam", 0], ["--beam"]),
        (["--max-tokens", 0], ["--max-tokens"]),
        (["--lenpen", "inf"], ["--lenpen"]),
        (["--max-len-a", "1,2"], ["--max-len-a", "valid number"]),
        (["--max-len-a", "nan"], ["--max-len-a", "nan is out of range", "0 or more"]),
        (["--max-len-a", "inf"], ["--max-len-a"]),
        (["--max-len-b", "inf"], ["--max-len-b"]),
        (["--max-len-b", "1.2"], ["--max-len-b"]),
        (["--max-len-a", 0, "--max-len-b", 0], ["--max-len-b", "allows no output"]),
        (["--bootstrap", -1], ["--bootstrap"]),
        (["--tokenizer", "moses"], ["--tokenizer", "moses", "13a"]),
        (["--spm-model", "nowhere.model"], ["--spm-model nowhere.model", "does not exist"]),
    ],
)
def test_an_option_of_prune_that_cannot_be(run: Path, options: list[object], words: list[str]) -> None:
    before = snapshot(run)
    one_line(prune(run, *options), 2, *words)
    assert snapshot(run) == before


def test_an_output_that_exists(run: Path) -> None:
    before = snapshot(run)
    one_line(call("analyze", "a.pt", "--data", "data", "--out", run, *SMALL), 2, str(run), "--resume")
    one_line(call("analyze", "a.pt", "--data", "data", "--out", run / "manifest.json", *SMALL), 2, "already exists")
    assert snapshot(run) == before


def test_an_output_that_exists_is_told_before_a_checkpoint_is_opened(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(run)
    monkeypatch.setattr("sensikit.backends.open_model", None)
    one_line(call("analyze", "a.pt", "--data", "data", "--out", run, *SMALL), 2, "already exists")
    assert snapshot(run) == before


def test_what_is_wrong_with_prunes_options_is_told_before_a_checkpoint_is_opened(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(run)
    monkeypatch.setattr("sensikit.backends.open_model", None)
    for options in (["--ratios", "0.95"], ["--protect", 2], ["--beam", 0], ["--max-len-a", "wide"]):
        one_line(prune(run, *options), 2, str(options[0]))
    assert snapshot(run) == before


def test_a_run_of_another_checkpoint(run: Path, backend: toy.ToyBackend) -> None:
    before = snapshot(run)
    with torch.no_grad():
        next(backend.module.parameters())[5, 0] += 1
    one_line(prune(run), 2, "another checkpoint", "--checkpoint")
    assert snapshot(run) == before


def test_a_sweep_that_stands_already(run: Path) -> None:
    assert prune(run).code == 0
    before = snapshot(run)
    one_line(prune(run), 2, f"{run}/pruning: already exists", "--resume")
    assert snapshot(run) == before
    assert prune(run, "--resume").code == 0


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": 3}', '{"format": 4, "parameters": [{}]}'])
def test_a_manifest_that_is_damaged(run: Path, content: str) -> None:
    (run / "manifest.json").write_text(content)
    before = snapshot(run)
    one_line(prune(run), 2, "manifest.json")
    one_line(call("analyze", "a.pt", "--data", "data", "--out", run, *SMALL, "--resume"), 2, "manifest.json")
    assert snapshot(run) == before


@pytest.mark.parametrize(
    "field", ["parameters", "sets", "groups", "provenance", "direction", "analyses", "prunable_count"]
)
def test_a_manifest_that_lacks_a_field(run: Path, field: str) -> None:
    from sensikit.files import write_json

    found = read_json(run / "manifest.json")
    del found[field]
    write_json(run / "manifest.json", found)
    before = snapshot(run)
    one_line(prune(run), 2, "manifest.json", field)
    assert snapshot(run) == before


def test_an_error_of_several_lines_is_told_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise CheckpointError("a.pt", "is\nnot\n\nreadable", "give\nanother")

    monkeypatch.setattr("sensikit.backends.open_model", broken)
    one_line(analyze(tmp_path), 2, "a.pt: is not readable; give another")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["analyze"],
        ["analyze", "a.pt", "--out", "new"],
        ["analyze", "a.pt", "--data", "d", "--out", "new", "--batches", "many"],
        ["analyze", "a.pt", "--data", "d", "--out", "new", "--no-such-option"],
        ["prune"],
        ["prune", "run", "--beam", "wide"],
        ["no-such-verb"],
    ],
)
def test_what_the_command_line_cannot_read_is_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one_line(call(*arguments), 2, "--help")
    assert not list(tmp_path.iterdir())


def test_nothing_at_all_shows_the_help() -> None:
    done = call()
    assert done.code == 2
    assert "analyze" in done.error
    assert "prune" in done.error


# failed, and interrupted


def raises(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("sensikit.backends.open_model", broken)


def test_what_nobody_thought_of_is_one_line_and_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raises(ZeroDivisionError("by\nnothing"), monkeypatch)
    one_line(analyze(tmp_path), 1, "ZeroDivisionError: by nothing", "--debug")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(36, "File name too long", "x" * 400), "x: File name too long; check the path"),
        (PermissionError(13, "Permission denied", "data"), "data: Permission denied; check the path"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "give names and text in UTF-8"),
        (MemoryError(), "too large for the memory"),
        (OverflowError("int too large"), "too large for the bounds"),
        (RecursionError("maximum recursion depth"), "too large for the bounds"),
    ],
)
def test_what_the_system_or_python_refuses_to_do_with_an_input_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    raises(error, monkeypatch)
    one_line(analyze(tmp_path), 2, words)


def test_an_argument_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    one_line(analyze(tmp_path, "--groups", "\udcff"), 2, "give names and text in UTF-8")


def test_signs_that_steer_a_terminal_do_not_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raises(ZeroDivisionError("\x1b[31m\u202e"), monkeypatch)
    one_line(analyze(tmp_path), 1, r"\x1b[31m\u202e")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "ascii:strict"])
def test_a_terminal_of_few_signs_shows_the_help(encoding: str) -> None:
    program = "import sys; from sensikit_cli.main import main; main()"
    command = [sys.executable, "-c", program, "analyze", "--help"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("error", [ZeroDivisionError("by nothing"), CheckpointError("a.pt", "is not readable")])
@pytest.mark.parametrize("first", [True, False])
def test_debug_shows_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, first: bool
) -> None:
    raises(error, monkeypatch)
    typed = ["analyze", "a.pt", "--data", "data", "--out", tmp_path / "new"]
    with pytest.raises(type(error)):
        call(*(["--debug", *typed] if first else [*typed, "--debug"]))


def test_debug_in_a_process_of_its_own_shows_the_line_and_fails() -> None:
    for debug, expected in ((["--debug"], True), ([], False)):
        program = "import sys; from sensikit_cli.main import main; sys.argv[0] = 'sensikit'; main()"
        done = subprocess.run(
            [sys.executable, "-c", program, "prune", "nowhere", *debug], capture_output=True, text=True
        )
        assert done.returncode == (1 if debug else 2)
        assert ("Traceback" in done.stderr) == expected
        assert "nowhere: does not exist; check the path" in done.stderr


def test_an_interrupt_is_130_and_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raises(KeyboardInterrupt(), monkeypatch)
    one_line(analyze(tmp_path), 130, "interrupted; nothing was kept: the same command starts again")
    (tmp_path / "new").mkdir()
    one_line(analyze(tmp_path, "--resume"), 130, "--resume goes on from what is kept")
    raises(KeyboardInterrupt("update 3 is saved in x"), monkeypatch)
    one_line(analyze(tmp_path, "--resume"), 130, "interrupted; update 3 is saved in x; ")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_an_interrupt_before_or_after_the_work_is_130_too(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupted(**_: object) -> None:
        raise error

    monkeypatch.setattr("sensikit_cli.main.app", interrupted)
    one_line(call("analyze"), 130, "interrupted; nothing was kept")


@pytest.mark.parametrize(
    ("verb", "remedy"),
    [
        ("analyze", "the same command with --resume goes on from what is kept"),
        ("evaluate", "the same command with --resume goes on from what is kept"),
        ("train", "nothing was kept: the same command with --resume starts again"),
        ("sweep", "the same command goes on from here"),
        ("demo", "the same command goes on from here"),
        ("audit", "the same command starts again"),
        ("export", "nothing was kept: the same command starts again"),
        ("report", "the same command starts again"),
    ],
)
def test_after_an_interrupt_no_verb_names_an_option_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, remedy: str
) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sensikit_cli.main.app", interrupted)
    assert remedy in call(verb, "--out", tmp_path).error


def test_an_interrupted_analysis_goes_on(tmp_path: Path, backend: toy.ToyBackend) -> None:
    real, calls = backend.loss, 0

    def interrupted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    backend.loss = interrupted  # type: ignore[assignment, method-assign]
    assert analyze(tmp_path, *SMALL).code == 130
    backend.loss = real  # type: ignore[method-assign]
    assert analyze(tmp_path, *SMALL, "--resume").code == 0


def test_help_and_version_are_no_errors() -> None:
    for arguments in (["--help"], ["analyze", "--help"], ["prune", "--help"], ["sweep", "--help"], ["--version"]):
        done = call(*arguments)
        assert done.code == 0
        assert done.output
        assert done.error == ""


def test_an_output_without_greek_letters_gets_their_codes() -> None:
    program = "import sys; sys.argv = ['sensikit', 'analyze', '--help']; from sensikit_cli.main import main; main()"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}  # a pipe's on Windows
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="cp1252", env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"S(\u03b8" in done.stdout
