"""What importing loads, and what it must not need."""

from __future__ import annotations

import ast
import json
import pkgutil
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import sensikit
from sensikit_cli.main import app
from tests.support import synthetic_run
from tests.support.page import FEW

HEAVY = ("torch", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "sacrebleu", "fairseq", "transformers", "django")
SIDE_ROOMS = ("sensikit.backends.fairseq", "sensikit.backends.huggingface")
"""What may need a framework. Nothing else imports them (test_architecture.py); training is free of any too."""

CORE = [
    module.name
    for module in pkgutil.walk_packages(sensikit.__path__, "sensikit.")
    if not module.name.startswith(SIDE_ROOMS)
]
VERBS = [command.name for command in app.registered_commands if command.name]


def result_of(program: str, *arguments: str) -> Any:
    """Run a program in an interpreter of its own; return what it prints last, as JSON."""
    command = [sys.executable, "-W", "error", "-W", "ignore::SyntaxWarning", "-c", textwrap.dedent(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def loaded(program: str, among: Sequence[str], *arguments: str) -> list[str]:
    """Return which packages are loaded after a program has run."""
    report = f"""
        import json, sys
        print(json.dumps([name for name in {list(among)} if name in sys.modules]))
    """
    found: list[str] = result_of(textwrap.dedent(program) + textwrap.dedent(report), *arguments)
    return found


BLOCK = """
    import sys

    asked = []

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("fairseq", "fairseq_cli", "hydra", "omegaconf", "transformers"):
                asked.append(name)
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Blocked())
"""


def test_importing_sensikit_loads_nothing_heavy() -> None:
    assert loaded("import sensikit; sensikit.__version__; dir(sensikit)", HEAVY) == []


def test_the_check_sees_what_is_loaded() -> None:
    assert loaded("import numpy", HEAVY) == ["numpy"]


def test_the_core_is_more_than_a_handful_of_modules() -> None:
    assert {
        "sensikit.sensitivity.taylor",
        "sensikit.run",
        "sensikit.pruning.masks",
        "sensikit.sensitivity.analysis",
    } <= set(CORE)


def test_the_core_works_where_no_framework_is_installed_and_asks_for_none() -> None:
    program = """
        import importlib, json
        import torch
        from torch import nn

        for name in sys.argv[1:]:
            importlib.import_module(name)

        from sensikit import measure, registry
        from sensikit.sensitivity.batches import Batch

        model = nn.Linear(1, 1, bias=False)
        model.weight.data.fill_(2.0)
        batches = [Batch(((("cat", 0),),), 1), Batch(((("cat", 1),),), 1)]
        points = torch.tensor([[1.0], [-3.0]])
        found = measure(
            model, registry(model), batches, lambda items: points[[i for _, i in items]],
            lambda x: (model(x).sum(), len(x)),
        )
        # |θ| · mean |x|
        print(json.dumps([asked, found.mean["weight"].tolist()]))
    """
    assert result_of(textwrap.dedent(BLOCK) + textwrap.dedent(program), *CORE) == [[], [[4.0]]]


def test_without_a_framework_stored_runs_are_read_and_the_rest_says_what_to_install(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    program = """
        import json
        from dataclasses import astuple
        from tests.support.command import call

        checkpoint, data, run, out = sys.argv[1:]
        commands = [
            ["--help"], ["inspect", checkpoint], ["report", run, "--out", f"{out}/page"],
            ["analyze", checkpoint, "--data", data, "--out", f"{out}/run"],
            ["train", data, "--out", f"{out}/system"], ["demo", "--out", f"{out}/demo"],
        ]
        print(json.dumps([astuple(call(*command)) for command in commands]))
    """
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=["overlap"])
    places = map(str, (tiny_checkpoint, tiny_data, run, tmp_path / "out"))
    done = result_of(textwrap.dedent(BLOCK) + textwrap.dedent(program), *places)
    assert [code for code, _, _ in done] == [0, 0, 0, 2, 2, 2]
    for _, output, error in done[3:]:
        assert output == ""
        assert re.fullmatch(
            r'sensikit: fairseq: is not installed; pip install "sensikit\[fairseq\]" .*', error.splitlines()[-1]
        )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["page"]


def test_the_block_blocks() -> None:
    program = """
        import json
        try:
            import fairseq
        except ModuleNotFoundError as error:
            print(json.dumps([asked, error.name]))
    """
    assert result_of(textwrap.dedent(BLOCK) + textwrap.dedent(program)) == [["fairseq"], "fairseq"]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_loads_nothing_heavy(verb: str) -> None:
    program = """
        import contextlib, io, sys
        from sensikit_cli.main import main

        sys.argv = ["sensikit", *sys.argv[1:], "--help"]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main()
        assert "Usage: sensikit" in said.getvalue(), said.getvalue()
    """
    assert loaded(program, HEAVY, *([verb] if verb else [])) == []


def test_the_verbs_that_must_exist_do() -> None:
    assert {"corpus", "analyze", "prune", "report"} <= set(VERBS)


# public names


@pytest.mark.parametrize("name", sensikit.__all__)
def test_a_public_name_can_be_had(name: str) -> None:
    assert getattr(sensikit, name) is not None


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        sensikit.nonsense  # noqa: B018
    assert not hasattr(sensikit, "__wrapped__")


def test_completion_lists_every_public_name_and_the_version() -> None:
    assert sorted(dir(sensikit)) == sorted(sensikit.__all__)
    assert {"Run", "analyze", "prune", "figures", "statistics", "__version__"} <= set(dir(sensikit))


def test_every_package_is_a_public_name() -> None:
    assert {module.name for module in pkgutil.iter_modules(sensikit.__path__) if module.ispkg} <= set(sensikit.__all__)


def test_type_checkers_see_every_public_name() -> None:
    # in a stub, only a name that is imported as itself is public
    stub = ast.parse(Path(sensikit.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    seen = [alias for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert [alias.name for alias in seen if alias.asname != alias.name] == []
    assert sorted(alias.name for alias in seen) == sorted(sensikit.__all__)


def test_every_package_is_installed_with_what_it_reads() -> None:
    # an editable install finds what a wheel would lack
    root = Path(__file__).parents[1]
    setuptools = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    found = {".".join(path.parent.relative_to(root).parts) for path in (root / "sensikit").rglob("__init__.py")}
    assert found == set(setuptools["packages"]) - {"sensikit_cli"}
    for path in (root / "sensikit").rglob("*.*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            package = ".".join(path.parent.relative_to(root).parts)
            assert any(path.match(pattern) for pattern in setuptools["package-data"][package]), path


def test_the_citation_is_of_this_version() -> None:
    citation = (Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {sensikit.__version__}\n" in citation
