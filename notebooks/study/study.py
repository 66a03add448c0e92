"""The study: systems trained side by side, each chosen on the validation sets, compared on the test sets.

python notebooks/study/study.py DEB8 MONO --out study --jobs 2

A list of steps, each a command of sensikit that is done once what it makes is there: a killed study goes on. Steps run
in the order of the list, as many at a time as there are jobs, and the list is made anew whenever one ends: what later
steps are can depend on what earlier ones found (the dropout of seeds 2 and 3 is the one that seed 1 did best with).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

UPDATES, INTERVAL = 2240, 280
"""27 epochs of 83 updates, and how often a checkpoint is kept."""


@dataclass(frozen=True)
class Step:
    """A command, the file that is there (a pattern, below the folder of the study) once it has ended, what it needs."""

    command: tuple[str, ...]
    makes: str
    needs: tuple[str, ...] = ()

    def done(self, out: Path) -> bool:
        """Return whether it need not run."""
        return any(out.glob(self.makes))

    def ready(self, out: Path) -> bool:
        """Return whether it can."""
        return all(any(out.glob(need)) for need in self.needs)


@dataclass(frozen=True)
class System:
    """One training run."""

    method: str
    seed: int = 1
    variant: str = ""
    direction: str = "xxx-eng"

    @property
    def name(self) -> str:
        """Return what its folders are called."""
        return "-".join(
            filter(None, ["eng" * (self.direction == "eng-xxx"), self.method, self.variant, str(self.seed)])
        )

    def trained(self) -> Step:
        """Return its training; all its checkpoints are kept, for the choice is not by validation loss."""
        flags = ["--save-interval-updates", "--validate-interval-updates"]
        flags = [text for flag in flags for text in (flag, str(INTERVAL))] + ["--keep-interval-updates", "1000"]
        given = ["--method", self.method, "--direction", self.direction, "--seed", str(self.seed)]
        given += ["--updates", str(UPDATES), "--out", f"training/{self.name}", "--resume"]
        return Step(
            ("train", "data", *given, "--", *flags, *VARIANTS[self.variant]),
            f"training/{self.name}/checkpoint_*_{UPDATES}.pt",
            ("data/manifest.json",),
        )


VARIANTS = {"": [], "dropout3": ["--dropout", "0.3"]}


def steps(out: Path, parallel: Path, mono: Path) -> Iterator[Step]:
    """Yield what there is to do, in order."""
    yield Step(("text", str(parallel), str(mono), "text"), "text/mono/eng.txt")
    given = [f"text/{path.name}" for path in sorted((out / "text").glob("*.tsv"))]
    given += [
        text for path in sorted((out / "text" / "mono").glob("*.txt")) for text in ("--mono", f"text/mono/{path.name}")
    ]
    yield Step(("corpus", *given, "--out", "data"), "data/manifest.json", ("text/mono/eng.txt",))
    for variant in ("", "dropout3"):
        for method in ("regular", "id"):
            yield System(method, variant=variant).trained()


def run(step: Step, out: Path, device: str) -> int:
    """Run a step and return its exit code; what it says goes to log/, and one line of when it ended to the screen."""
    log = out / "log" / f"{step.makes.replace('/', '_').replace('*', '')}.txt"
    log.parent.mkdir(exist_ok=True)
    program = (
        [str(Path(__file__).parent / "text.py")]
        if step.command[0] == "text"
        else ["-m", "sensikit_cli", step.command[0]]
    )
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})
    started = time.monotonic()
    with log.open("a") as text:
        code = subprocess.call(  # noqa: S603
            [sys.executable, *program, *step.command[1:]], cwd=out, stdout=text, stderr=text, env=environment
        )
    print(f"{time.strftime('%F %T')} {step.makes}: {code or 'done'} ({time.monotonic() - started:.0f} s)", flush=True)
    return code


def main() -> None:
    """Do what is not done."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("parallel", type=Path)
    given.add_argument("mono", type=Path)
    given.add_argument("--out", type=Path, default=Path("study"))
    given.add_argument("--jobs", type=int, default=1)
    given.add_argument("--device", choices=("auto", "cpu"), default="auto")
    typed = given.parse_args()
    out, failed, running = typed.out.resolve(), set[str](), dict[Future[int], Step]()
    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(typed.jobs) as pool:
        while True:
            busy = failed | {step.makes for step in running.values()}
            listed = steps(out, typed.parallel.resolve(), typed.mono.resolve())
            todo = [step for step in listed if step.makes not in busy and not step.done(out) and step.ready(out)]
            for step in todo[: typed.jobs - len(running)]:
                running[pool.submit(run, step, out, typed.device)] = step
            if not running:
                break
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                step = running.pop(ended)
                failed |= {step.makes} if ended.result() else set()
    if failed:
        sys.exit(f"these failed, see {out}/log: {', '.join(sorted(failed))}")


if __name__ == "__main__":
    main()
