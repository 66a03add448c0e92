"""What every verb has: --json, --quiet, --config, paths that are checked at once, a --help in groups, completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

from sensikit.run import Run
from sensikit_cli import config
from sensikit_cli.endings import command_line, json_of, kept
from sensikit_cli.main import app
from tests.support import synthetic_run
from tests.support.command import Called, call, done
from tests.support.page import FEW

VERBS: dict[str, Any] = typer.main.get_command(app).commands
NEEDED = {
    "demo": ["--out", "new"], "corpus": ["a.tsv", "--out", "new"], "train": ["DATA", "--out", "new"],
    "evaluate": ["a.pt", "--data", "DATA"], "inspect": ["a.pt"], "analyze": ["a.pt", "--data", "DATA", "--out", "new"],
    "audit": ["RUN"], "prune": ["RUN"], "sweep": ["a.pt", "--data", "DATA", "--out", "new"],
    "export": ["RUN", "--out", "new"], "report": ["RUN"],
}  # fmt: skip
"""The fewest words that each verb can be called with."""

SMALL = ["--batches", 4, "--tokens", 64]


def ended(verb: str, *words: object) -> tuple[Called, dict[str, Any]]:
    """Call a verb with --json; return what was written, and its one object."""
    found = call(verb, *words, "--json")
    assert found.code == 0, found.error
    return found, json.loads(found.output, parse_constant=pytest.fail)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_them_and_refuses_what_does_not_exist_in_the_file(verb: str, tmp_path: Path) -> None:
    assert {"--json", "--quiet", "--config"} <= {name for each in VERBS[verb].params for name in each.opts}
    file = tmp_path / "c.toml"
    file.write_text("json = true\nquiet = true\n")
    assert config.expanded([verb, *NEEDED[verb], "--config", str(file)], VERBS) == [
        verb, "--json", "--quiet", *NEEDED[verb]
    ]  # fmt: skip
    file.write_text("bathces = 3\n")
    found = call(verb, *NEEDED[verb], "--config", file)
    line = f"sensikit: --config {file}: bathces is no option of {verb}; see {verb} --help\n"
    assert (found.code, found.output, found.error) == (2, "", line)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("demo", "corpus")])
def test_a_path_that_does_not_exist_is_told_before_torch_is_loaded(verb: str, tmp_path: Path) -> None:
    program = (
        "import sys; from sensikit_cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", program, verb, *NEEDED[verb]]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout == "2 False False\n"
    assert found.stderr.startswith("sensikit: ")
    assert "does not exist" in found.stderr
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_whole_and_in_groups(verb: str) -> None:
    text = done(verb, "--help")
    assert text == done(verb, "-h")
    last = text.splitlines()[-1]
    assert last == VERBS[verb].epilog  # in one line, to be copied
    assert text.index("Options:") < text.index("Every verb:") < text.index("--quiet") < text.index("--help ")
    summary = VERBS[verb].get_short_help_str(1000)
    assert " ".join(summary.split()) in " ".join(done("--help").replace("intra-\n", "intra-").split()).replace(
        "intra- ", "intra-"
    )
    assert not summary.endswith(("...", "(Eq."))


def test_options_of_a_settings_class_stand_under_its_heading() -> None:
    text = done("analyze", "--help")
    place = [text.index(part) for part in ("How an analysis fits into memory:", "--parameter-passes", "Every verb:")]
    assert place == sorted(place)


def test_the_shell_completes_verbs_and_options() -> None:
    words = {"_SENSIKIT_COMPLETE": "complete_bash", "COMP_WORDS": "sensikit prune --ord", "COMP_CWORD": "2"}
    program = "import sys; from sensikit_cli.main import main; sys.argv[0] = 'sensikit'; main()"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | words)
    assert found.stdout.split() == ["--order"]
    assert "--install-completion" in done("--help")


@pytest.mark.parametrize(
    ("text", "added"),
    [
        ("batches = 9", ["--batches", "9"]),
        ('groups = ["cat", "nob"]', ["--groups", "cat,nob"]),
        ("rest-temperature = 2.5", ["--rest-temperature", "2.5"]),
        ("dry-run = true", ["--dry-run"]),
        ("dry-run = false", []),
        ("seed = 3", []),  # typed
        ('languages = "cat"', ["--languages", "cat"]),
    ],
)
def test_a_file_holds_options_by_their_names_and_what_is_typed_wins(
    text: str, added: list[str], tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text(text)
    words = ["analyze", "--seed=4", "--config", str(tmp_path / "c.toml"), "a.pt"]
    assert config.expanded(words, VERBS) == ["analyze", *added, "--seed=4", "a.pt"]


def test_several_values_of_one_option_and_the_flags_of_fairseq(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('\ufefflabel = ["a", "b"]\n', encoding="utf-8")  # as some editors begin a file
    words = ["evaluate", f"--config={tmp_path / 'c.toml'}", "x"]
    assert config.expanded(words, VERBS) == ["evaluate", "--label", "a", "--label", "b", "x"]
    assert config.expanded(["train", "--", "--config", "x"], VERBS) == ["train", "--", "--config", "x"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("batches", "is not TOML"), ("batches = true", "batches is none it can be; give text, a number"),
        ("dry-run = 1", "dry-run is none it can be; give true or false"), ("[analyze]\nbatches = 3", "analyze is no"),
        ("batches = []\nseed = {}", "seed is none"), ("batches = 'many'", "Invalid value for '--batches'"),
        ("config = 'a'", "config is no option"), (None, "No such file"), ("a = " + "[" * 10**5, "is not TOML"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_is_one_line(text: str | None, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    if text is not None:
        file.write_text(text)
    found = call("analyze", "a.pt", "--data", "d", "--out", tmp_path / "new", "--config", file)
    assert (found.code, found.error.count("\n")) == (2, 1), found.error
    assert problem in found.error


def test_an_empty_name_of_a_file_is_one_line() -> None:
    found = call("corpus", "--config=")
    assert (found.code, found.error.count("\n")) == (2, 1), found.error


@pytest.mark.usefixtures("backend")
def test_analyze_and_prune_end_with_their_numbers(tmp_path: Path) -> None:
    out = tmp_path / "run"
    file = tmp_path / "c.toml"
    file.write_text("batches = 4\ntokens = 64\n")
    found, analysed = ended("analyze", "a.pt", "--data", "data", "--out", out, "--config", file, "--device", "cpu")
    assert found.error.startswith("analyze: opens a.pt (of the hub), data (of the hub), writes ")
    assert analysed["next"] == f"sensikit prune {out} --order specificity,random --device cpu"
    table = Run.open(out).read_table("correlation.csv")
    assert analysed["correlation"] == json.loads(json_of(table))
    (high,) = [row for row in analysed["mean"]["mt"] if row["subset"] == "high"]
    once = table[(table["subset"] == "high") & (table["group_a"] < table["group_b"])]
    assert high["corrected"] == pytest.approx(once["corrected"].mean())
    assert high["corrected_low"] < high["corrected"] < high["corrected_high"]
    typed = f"sensikit analyze --batches 4 --tokens 64 a.pt --data data --out {out} --device cpu"
    assert Run.open(out).analysis()["command"] == typed  # with what the file said, and not --json
    options = ["--ratios", "0,0.5", "--task", "mt", "--tokenizer", "none", "--bootstrap", 20]
    found, pruned = ended("prune", out, "--order", "specificity", *options)
    again = "--order random --ratios 0,0.5 --task mt --tokenizer none --bootstrap 20 --resume"
    assert pruned["next"] == f"sensikit prune {out} {again}"
    quiet = call(*pruned["next"].split()[1:], "--quiet")
    assert (quiet.code, quiet.error) == (0, "")
    assert "BLEU: second curve minus first" in quiet.output
    found, pruned = ended("prune", out, "--order", "specificity,random", *options, "--resume")
    assert {(row["order_a"], row["ratio"], row["metric"]) for row in pruned["tests"]} == {
        ("random", 0.5, "bleu"), ("random", 0.5, "chrf")
    }  # fmt: skip
    assert pruned["next"] == f"sensikit report {out}"
    assert pruned["pruning"] == json.loads(json_of(Run.open(out).read_table("pruning.csv")))
    found, audited = ended("audit", out, "--parameters", 100, "--groups", "cat")
    assert {row["group"] for row in audited["audit"]} == {"cat"}
    page = ended("report", synthetic_run.write_run(tmp_path / "bare", FEW, only=["overlap"]))[1]
    assert Path(page["report"]).is_file()


@pytest.mark.usefixtures("backend")
def test_a_process_that_does_not_lead_prints_nothing(tmp_path: Path) -> None:
    found = call("analyze", "a.pt", "--data", "data", "--out", tmp_path / "r", *SMALL, "--share", "2/2", "--dry-run")
    assert (found.code, found.output) == (0, "")


def test_what_is_no_number_is_null() -> None:
    frame = pd.DataFrame({"a": [0.1 + 0.2, float("inf")], "b": pd.array([1, None], dtype="Int64"), "c": ["x", None]})
    assert json.loads(json_of({"frame": frame, "where": Path("p")})) == {
        "frame": [{"a": 0.1 + 0.2, "b": 1, "c": "x"}, {"a": None, "b": None, "c": None}], "where": "p"
    }  # fmt: skip


def test_what_the_next_command_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["evaluate", "--pairs=cat-fra", "--device", "cpu", "--json", "--beam", "3", "--", "--device", "x", "--json"]
    monkeypatch.setattr(sys, "argv", ["/bin/sensikit", *words])
    assert kept("--device", "--pairs") == ["--pairs=cat-fra", "--device", "cpu"]
    assert command_line() == "sensikit evaluate --pairs=cat-fra --device cpu --beam 3 -- --device x --json"
