"""The study: the paper's systems, each trained, chosen on the validation sets, compared on the test sets, taken apart.

    make study DATA=corpora/deb8 MONO=corpora/mono JOBS=2      # or python notebooks/study/study.py DATA MONO --jobs 2

A list of steps, each a command of sensikit and done once what it makes is there, so a killed study goes on. Steps run
in the order of the list, as many at a time as there are jobs, and the list is made anew whenever one ends: the dropout
of seeds 2 and 3 is what seed 1 did best with on the validation sets. The page that answers the questions, study.md, is
written whenever a step ends (see answer.py).

Small models leave a GPU waiting: 16 jobs share one well, best under NVIDIA's MPS. `--train-only` trains first what may
be chosen, where a GPU is lent for minutes; the rest can be done on a processor, from the checkpoints alone.
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

import pandas as pd

UPDATES, EVERY, FIRST = 2240, 560, 1120
"""22 epochs of 102 updates, how often a checkpoint is kept, and the first that may be chosen."""
LONGER = 5040
"""Updates of Regular in the time of ID's 2,240: equal time; and, in the end, of ID too: convergence."""
SEEDS = 3
VARIANTS = {
    "": [],
    "dropout3": ["--dropout", "0.3"],
    "schedule": ["--id-schedule", "5,10"],
    "released": ["--loss-weights", "released"],
    "unclipped": ["--clip-norm", "0"],
}
"""What one seed is tried with, by what is added to fairseq's flags."""
MARGIN = 0.3
"""BLEU on the validation sets by which a variant must beat the plain system to take its place: seeds differ by it."""
DROPOUT, DISTILLED, DENOISED = ("", "dropout3"), ("schedule",), ("released", "unclipped")
WAVES = (
    (("regular", "xxx-eng", DROPOUT), ("id", "xxx-eng", (*DROPOUT, *DISTILLED))),
    (("cd+id", "xxx-eng", (*DROPOUT, *DISTILLED, *DENOISED)), ("cd", "xxx-eng", (*DROPOUT, *DENOISED))),
    (("regular", "eng-xxx", DROPOUT), ("id", "eng-xxx", DROPOUT)),
    (("dae", "xxx-eng", DROPOUT), ("dae+mlm", "xxx-eng", DROPOUT), ("mass", "xxx-eng", DROPOUT),
     ("table4-5", "xxx-eng", DROPOUT)),
)  # fmt: skip
"""By what decides most: systems side by side, one seed with each variant, then the other seeds."""
DECODING = ("--engine", "ctranslate2", "--tokenizer", "13a")
ORDERS = "specificity,random,matched,matched-random"
SWEEP = ("--ratios", "0,0.1,0.2,0.3,0.5", "--order", ORDERS, "--seeds", "1", "--metric", "bleu,loss",
         "--max-sentences", "200", "--lenpen", "1.5", *DECODING)  # fmt: skip
"""One length penalty for all, so that seeds can be averaged."""


@dataclass(frozen=True)
class Step:
    """A command, a file (or pattern) that it ends with, those that it needs, and what two of its kind may not share."""

    command: tuple[str, ...]
    makes: str
    needs: tuple[str, ...] = ()
    alone: str = ""


@dataclass(frozen=True)
class System:
    """One training run; `longer` is the same one, gone on with."""

    method: str
    direction: str = "xxx-eng"
    seed: int = 1
    variant: str = ""
    longer: bool = False

    @property
    def folder(self) -> str:
        """Return what its directories are called."""
        direction = "from-english" if self.direction == "eng-xxx" else ""
        return "-".join(filter(None, [direction, self.method, self.variant, str(self.seed)]))

    @property
    def name(self) -> str:
        """Return what it is called in tables."""
        return self.folder + "-longer" * self.longer

    @property
    def updates(self) -> int:
        """Return how long it is trained."""
        return LONGER if self.longer else UPDATES

    @property
    def evaluation(self) -> str:
        """Return the directory of its evaluation, which all systems of a direction share."""
        return "evaluation" + "-from-english" * (self.direction == "eng-xxx")

    def trained(self) -> Step:
        """Return its training. All checkpoints are kept, and none is chosen by validation loss."""
        given = ["--method", self.method, "--direction", self.direction, "--seed", str(self.seed)]
        given += ["--updates", str(self.updates), "--out", f"training/{self.folder}", "--resume", "--keep", "1000"]
        flags = ["--save-interval-updates", str(EVERY), "--validate-interval-updates", str(EVERY)]
        ends = f"training/{self.folder}/checkpoint_*_{{}}.pt"
        before = (ends.format(UPDATES),) if self.longer else ("data/manifest.json",)
        command = ("train", "data", *given, "--", *flags, *VARIANTS[self.variant])
        return Step(command, ends.format(self.updates), before)

    def checkpoints(self, out: Path) -> list[str]:
        """Return those of its checkpoints that may be chosen."""
        found = (out / "training" / self.folder).glob("checkpoint_*_*.pt")
        updates = {int(path.stem.split("_")[2]): path for path in found}
        return [str(updates[at].relative_to(out)) for at in sorted(updates) if FIRST <= at <= self.updates]

    def chosen(self, out: Path) -> pd.Series | None:
        """Return the row of choice.csv of what was chosen; None where it has not come to that."""
        path = out / self.evaluation / "choice.csv"
        table = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["system", "chosen"])
        found = table[(table["system"] == self.name) & (table["chosen"] == 1)]
        return found.iloc[0] if len(found) else None

    def measured(self, out: Path) -> Iterator[Step]:
        """Yield its analysis and its pruning, once its checkpoint is chosen."""
        best = self.chosen(out)
        if best is None:
            return
        run, path = f"analysed/{self.name}", f"training/{self.folder}/{best['checkpoint']}.pt"
        tasks = ("--task", "mt,denoise") if self.method.startswith("cd") else ()
        how = ("--data", "data", "--direction", self.direction, "--batches", "40", *tasks)
        # the tables of an analysis are written last
        done = f"{run}/similarity.csv" if tasks else f"{run}/correlation.csv"
        yield Step(("analyze", path, *how, "--out", run, "--resume"), done)
        yield Step(("prune", run, *SWEEP, "--task", "mt", "--resume"), f"{run}/pruning.csv", (done,))


def evaluated(out: Path, systems: list[System]) -> Iterator[Step]:
    """Yield the choice and the test of what has been trained and not been evaluated: one step for each direction."""
    for place in dict.fromkeys(each.evaluation for each in systems):
        of = [each for each in systems if each.evaluation == place and list(out.glob(each.trained().makes))]
        if all(each.chosen(out) is not None for each in of):
            continue
        paths = [(each.name, path) for each in of for path in each.checkpoints(out)]
        given = [path for _, path in paths] + [text for name, _ in paths for text in ("--label", name)]
        for method, seeds in recipes(out, of).items():
            given += ["--group", f"{method}={','.join(each.name for each in seeds)}"] if len(seeds) > 1 else []
        how = ("--data", "data", "--direction", of[0].direction, "--choose-on", "valid", "--lenpens", "1,1.5,2")
        command = ("evaluate", *given, *how, *DECODING, "--metric", "bleu,chrf,loss", "--out", place, "--resume")
        yield Step(command, f"{place}/after-{len(of)}", alone=place)


def recipes(out: Path, systems: list[System]) -> dict[str, list[System]]:
    """Return, by method, the training seeds of the variant that seed 1 did best with on the validation sets."""
    found: dict[str, list[System]] = {}
    for each in systems:
        if each.variant == best_variant(out, each):
            found.setdefault(f"{each.method.upper()}{'-LONGER' * each.longer}", []).append(each)
    return found


def reported(out: Path, systems: list[System]) -> Iterator[Step]:
    """Yield the report of what has been pruned so far."""
    swept = [each for each in systems if (out / "analysed" / each.name / "pruning.csv").is_file()]
    given = [f"analysed/{each.name}" for each in swept]
    given += [place.name for place in sorted(out.glob("evaluation*"))]
    for method, seeds in recipes(out, swept).items():
        given += ["--group", f"{method}={','.join(each.name for each in seeds)}"] if len(seeds) > 1 else []
    if swept:
        yield Step(("report", *given, "--out", f"reports/{len(swept)}"), f"reports/{len(swept)}/report.html")


def best_variant(out: Path, system: System) -> str:
    """Return what a system's seed 1 did best with, by a margin; the plain one until all are compared."""
    method, direction = system.method, system.direction
    tried = next(of for wave in WAVES for *which, of in wave if which == [method, direction])
    rows = {each: System(method, direction, variant=each).chosen(out) for each in tried}
    if any(row is None for row in rows.values()):
        return tried[0]
    values = {each: float(row["value"]) - MARGIN * (each != tried[0]) for each, row in rows.items()}
    return max(tried, key=values.__getitem__)


def listed(out: Path) -> Iterator[System]:
    """Yield the training runs in order; the further seeds of a system once its variant is known."""
    for wave in WAVES:
        for variant in VARIANTS:
            yield from (System(name, way, variant=variant) for name, way, tried in wave if variant in tried)
        for seed in range(2, SEEDS + 1):
            for name, way, tried in wave:
                system = System(name, way, seed, best_variant(out, System(name, way)))
                known = all(System(name, way, variant=each).chosen(out) is not None for each in tried)
                if known or any(out.glob(system.trained().makes)):
                    yield system
        if wave is WAVES[0]:
            best = best_variant(out, System("regular"))
            yield from (System("regular", seed=seed, variant=best, longer=True) for seed in range(1, SEEDS + 1))
    best = best_variant(out, System("id"))
    yield from (System("id", seed=seed, variant=best, longer=True) for seed in range(1, SEEDS + 1))


def guessed() -> Iterator[System]:
    """Yield the training runs that may be wanted, before anything is chosen: each dropout with all seeds."""
    for wave in WAVES:
        for seed in range(1, SEEDS + 1):
            for name, way, tried in wave:
                yield from (System(name, way, seed, each) for each in tried if seed == 1 or each in DROPOUT)


def steps(out: Path, parallel: Path, mono: Path) -> Iterator[Step]:
    """Yield what there is to do: what a trained system shows comes before the next is trained."""
    yield Step(("text", str(parallel), str(mono), "text"), "text/mono/eng.txt")
    given = [f"text/{path.name}" for path in sorted((out / "text").glob("*.tsv"))]
    for path in sorted((out / "text" / "mono").glob("*.txt")):
        given += ["--mono", f"text/mono/{path.name}"]
    yield Step(("corpus", *given, "--out", "data"), "data/manifest.json", ("text/mono/eng.txt",))
    systems = list(listed(out))
    yield from evaluated(out, systems)
    best = [each for each in systems if best_variant(out, each) == each.variant and not each.longer]
    measured = [step for each in best for step in each.measured(out)]
    yield from measured
    if all(any(out.glob(step.makes)) for step in measured):
        yield from reported(out, [each for each in systems if each.direction == "xxx-eng"])
    yield from (each.trained() for each in systems)


def run(step: Step, out: Path, device: str) -> int:
    """Run a step, and return its exit code; what it says goes to log/."""
    log = out / "log" / f"{step.makes.replace('/', '_').replace('*', '')}.txt"
    log.parent.mkdir(exist_ok=True)
    verb, *rest = step.command
    program = [str(Path(__file__).parent / "text.py")] if verb == "text" else ["-m", "sensikit_cli", verb]
    environment = {"OMP_NUM_THREADS": "1", **os.environ} | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})
    started = time.monotonic()
    with log.open("a") as text:
        where = {"cwd": out, "env": environment, "stdout": text, "stderr": text}
        code = subprocess.call([sys.executable, *program, *rest], **where)  # type: ignore[call-overload]
        if not code and verb == "evaluate":
            (out / step.makes).touch()
        subprocess.call([sys.executable, str(Path(__file__).parent / "answer.py"), str(out)], **where)  # type: ignore[call-overload]
    print(f"{time.strftime('%F %T')} {step.makes}: {code or 'done'} ({time.monotonic() - started:.0f} s)", flush=True)
    return int(code)


def main() -> None:
    """Do what is not done, and say what failed."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument(
        "parallel", type=Path, help="LANG.train.tsv.gz, LANG.dev.tsv.gz, LANG.test.tsv.gz of each language"
    )
    given.add_argument("mono", type=Path, help="LANG.extra.txt.gz")
    given.add_argument("--out", type=Path, default=Path("study"))
    given.add_argument("--jobs", type=int, default=1, help="Steps at a time.")
    given.add_argument("--device", choices=("auto", "cpu"), default="auto", help="cpu leaves a GPU alone.")
    how = "Only train, all that may be chosen: for a GPU that is lent for minutes. The same without it goes on."
    given.add_argument("--train-only", action="store_true", help=how)
    typed = given.parse_args()
    out, failed, running = typed.out.resolve(), set[str](), dict[Future[int], Step]()
    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(typed.jobs) as pool:
        while True:
            busy, alone = {each.makes for each in running.values()} | failed, {each.alone for each in running.values()}
            todo = steps(out, typed.parallel.resolve(), typed.mono.resolve())
            for step in (each.trained() for each in guessed()) if typed.train_only else todo:
                done = step.makes in busy or any(out.glob(step.makes))
                if len(running) == typed.jobs or done or (step.alone and step.alone in alone):
                    continue
                if all(any(out.glob(need)) for need in step.needs):
                    running[pool.submit(run, step, out, typed.device)] = step
                    busy, alone = busy | {step.makes}, alone | {step.alone}
            if not running:
                break
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                step = running.pop(ended)
                failed |= {step.makes} if ended.result() else set()
    if failed:
        sys.exit(f"these failed, see {out / 'log'}: {', '.join(sorted(failed))}")


if __name__ == "__main__":
    main()
