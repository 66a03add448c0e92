"""What a GPU does: `make gpu`, or `python -m tests.benchmarks.gpu --out FOLDER [--wheels FOLDER] [--toy]`.

Made for a machine that is lent for minutes: without a network, with torch, numpy, scipy and pandas, and with what else
is needed in a folder of wheels. Each part is a process with a time limit; what fails is written down, and the next one
goes on. FOLDER gets gpu.json, gpu.md, and what each part said. `--toy` is for a machine without a GPU, and tries the
script itself.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

MINUTES = 9.0
"""All that is done takes no longer."""

RATIOS = [ratio / 10 for ratio in range(1, 10)]


def row(what: str, value: float | str, unit: str = "", aim: str = "") -> None:
    """Say what was found: a line that the first process reads, even if this one is ended after it."""
    found = value if isinstance(value, str) else float(f"{value:.5g}")
    print(json.dumps({"what": what, "value": found, "unit": unit, "aim": aim}), flush=True)


class Setting:
    """Where a part works, and at what size."""

    def __init__(self, place: Path, toy: bool) -> None:
        import torch

        self.place, self.toy = place, toy
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.text = place / "text"
        self.batches = {"batches": 4, "tokens": 300} if toy else {"batches": 20, "tokens": 4096}

    def directory(self, shape: str) -> Path:
        """Return a model of a shape with random weights, written once."""
        from tests.benchmarks import nllb

        shape = "toy" if self.toy else shape
        if not self.text.exists():
            nllb.text(self.text, *((1.5, {"train": 120, "valid": 8, "test": 8}) if self.toy else ()))
        found = self.place / shape
        if not found.exists():  # a part that is ended while it writes leaves none that looks whole
            nllb.write(self.place / f"{shape}.partial", shape, self.text, device=self.device).rename(found)
        return found

    def opened(self, shape: str, device: str = "", dtype: str = "fp32") -> Any:
        """Return the model of a shape on a device."""
        from sensikit.backends import open_model
        from sensikit.settings import Loading

        return open_model(self.directory(shape), self.text, device=device or self.device, loading=Loading(dtype))

    def synchronised(self, work: Callable[[], object]) -> float:
        """Return the seconds that some work takes until the device has done it."""
        import torch

        wait = torch.cuda.synchronize if self.device == "cuda" else lambda: None
        wait()
        started = time.perf_counter()
        work()
        wait()
        return time.perf_counter() - started

    def peak(self, work: Callable[[], object]) -> int:
        """Return the most bytes of the GPU that are in use at a time during some work; 0 where there is none."""
        import torch

        if self.device == "cpu":
            work()
            return 0
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        work()
        return int(torch.cuda.max_memory_allocated())


# parts


def tests(at: Setting) -> None:
    """Run the tests that are marked `gpu`."""
    files = ["tests/test_devices.py"]
    if importlib.util.find_spec("fairseq"):
        files += ["tests/backends/fairseq/test_opening.py", "tests/backends/fairseq/plugin/test_run.py"]
    options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "-W", "default"]
    done = subprocess.run([sys.executable, "-m", "pytest", *options, *files], capture_output=True, text=True, cwd=ROOT)
    print(done.stdout[-20_000:], done.stderr[-5000:], sep="\n", file=sys.stderr)
    last = (done.stdout.strip().splitlines() or ["nothing"])[-1]
    row(f"tests marked gpu in {len(files)} files", last.strip("= "), aim="none failed")
    if done.returncode not in (0, 5):
        raise SystemExit(done.returncode)


def job_of(model: Any, at: Setting, batches: int = 0, tokens: int = 0, **memory: Any) -> Any:
    """Return what `analyze` would do."""
    from sensikit.sensitivity.analysis import job_of as made
    from sensikit.sensitivity.planning import make_plan
    from sensikit.settings import AnalysisSettings, MemorySettings

    size = {"batches": batches or at.batches["batches"], "tokens": tokens or at.batches["tokens"]}
    settings = AnalysisSettings(**size)
    return made(model, make_plan(model, settings), settings, MemorySettings(**memory))


def measured(job: Any, key: str = "cat") -> Any:
    """Measure S of one group, in as many passes as the job has."""
    from sensikit.sensitivity.taylor import joined, measure

    return joined([measure(**job.how(job.plan.sets[key], number)) for number in range(len(job.passes))])


def same(at: Setting) -> None:
    """S on the GPU against S on the CPU, of the same weights and batches."""
    import torch

    vectors = {}
    for name, device, dtype in (("cpu", "cpu", "fp32"), ("gpu", at.device, "fp32"), ("bf16", at.device, "bf16")):
        found = measured(job_of(at.opened("60M", device, dtype), at, 4, 100 if at.toy else 1000)).mean
        vectors[name] = torch.cat([each.flatten() for each in found.values()]).double()
    whole, size = vectors["cpu"], len(vectors["cpu"]) // 10
    top = whole.topk(size).indices
    for name, what, aims in (("gpu", "float32", ("1e-4 at most", ".999 or more")), ("bf16", "bfloat16", ("", ""))):
        found = vectors[name]
        row(
            f"S on the {at.device} in {what} against the CPU, relative L2",
            float((found - whole).norm() / whole.norm()),
            aim=aims[0],
        )
        ranks = torch.stack([each[top].argsort().argsort().double() for each in (whole, found)])
        row(f"the same, ranks within the top 10 % (Spearman), {what}", float(torch.corrcoef(ranks)[0, 1]), aim=aims[1])
        shared = len(set(top.tolist()) & set(found.topk(size).indices.tolist())) / size
        row(f"the same, of the top 10 % in both, {what}", shared)


def overhead(at: Setting, model: Any, what: str, count: int) -> None:
    """`analyze` against the bare passes of the same micro-batches."""
    from unittest import mock

    from sensikit.parameters import sample_of
    from sensikit.sensitivity import taylor

    job = job_of(model, at, count)
    batches = job.plan.sets["cat"]
    how, tokens = job.how(batches), sum(batch.tokens for batch in batches)
    with mock.patch.object(taylor, "blocks_of", lambda count: [count]):
        block = taylor.Blocks(**how)
    total = taylor._Total(model.module, job.passes[0], sample_of(job.passes[0]), job.sums)

    def bare() -> None:
        for batch in batches:
            for items in batch.micro_batches:
                terms, _ = how["loss"](how["collate"](items))
                terms.sum().backward()
            model.module.zero_grad(set_to_none=True)

    found = block.sums(0)  # what is loaded and allocated once
    seconds = [(at.synchronised(partial(block.sums, 0)), at.synchronised(bare)) for _ in range(3)]
    mine, theirs = (min(column) / len(batches) for column in zip(*seconds, strict=True))
    closed = at.synchronised(partial(total.add, found))
    mean = at.synchronised(total.mean)
    row(
        f"a batch of {tokens / len(batches):.0f} target tokens summed, {what}",
        tokens / len(batches) / mine,
        "tokens/s",
    )
    row(f"its bare passes, {what}", tokens / len(batches) / theirs, "tokens/s")
    row(f"a block closed, {what}", closed, "s")
    row(f"S taken from the sums, {what}", mean, "s")
    # as many batches, blocks and vectors as a set has by default
    above = (500 * mine + 20 * closed + 2 * mean) / (500 * theirs) - 1
    row(f"500 batches above their bare passes, {what}", 100 * above, "%", "3 at most")


def memory(at: Setting, model: Any, what: str) -> None:
    """The most memory that is in use, against what --dry-run says."""
    from sensikit.sensitivity.cost import estimate, padded

    job = job_of(model, at, 4)
    sizes = {key: job.plan.task.sizes(key) for key in job.plan.measured}
    widths = {
        key: max(padded(sizes, items) for batch in batches for items in batch.micro_batches)
        for key, batches in job.plan.sets.items()
    }
    widest = max(widths, key=widths.__getitem__)
    at.peak(lambda: None)  # what was held before does not count
    predicted = estimate(model, job.settings).others
    for passes, where in ((1, "device"), (1, "split"), (1, "cpu"), (4, "device"), (8, "cpu")):
        name = f"--parameter-passes {passes} --sums {where}"
        other = job_of(model, at, 4, parameter_passes=passes, sums=where)
        peak = at.peak(partial(measured, other, widest))
        row(f"memory, {what}, {name}", peak / 1e9, "GB")
        if peak:
            row(
                f"--dry-run said of it, {what}, {name}",
                100 * (predicted.get(name, 0) / peak - 1),
                "% off",
                "20 at most",
            )


def small(at: Setting) -> None:
    """Overhead at 60M."""
    for dtype in ("fp32", "bf16"):
        overhead(at, at.opened("60M", dtype=dtype), f"60M, {dtype}", 4 if at.toy else 24)


def large(at: Setting, dtype: str) -> None:
    """Overhead and memory at 600M."""
    model = at.opened("600M", dtype=dtype)
    overhead(at, model, f"600M, {dtype}", 4 if at.toy else 8)
    memory(at, model, f"600M, {dtype}")


def masks(at: Setting) -> None:
    """A plan of nine ratios over 600M, and what it prunes at each of them."""
    import torch

    from sensikit.parameters import registry
    from sensikit.pruning.masks import Order, pruned, pruning_plan
    from sensikit.run import rest_of
    from tests.support.stored import MANIFEST, empty

    model = at.opened("600M")
    parameters = registry(model.module, model.ghosts)
    count = parameters[-1].stop
    groups = {"cat": {"name": "Catalan", "family": "", "tier": "Low", "sizes": {"train": 9}}}
    run = empty(at.place / "run", {**MANIFEST, "groups": groups, "parameter_count": count}, parameters)
    generator = torch.Generator(at.device).manual_seed(0)

    def drawn(shape: Sequence[int]) -> torch.Tensor:
        return torch.randn(tuple(shape), generator=generator, device=at.device).mul_(1.5).exp_().mul_(1e-6).cpu()

    def written() -> None:
        for name in ("cat", rest_of("cat")):
            vector = {parameter.name: drawn(parameter.shape) for parameter in parameters}
            run.write_set("mt", name, {"": vector}, {"sigma": 1e-8 / 4096, "tokens_mean": 4096.0})

    row("two vectors at 600M written and hashed", at.synchronised(written), "s")
    plans = {}
    for order in ("specificity", "random"):
        seconds = at.synchronised(
            lambda order=order: plans.update(
                {order: pruning_plan(run, model.module, Order(order, "cat", seed=1), RATIOS)}
            )
        )
        row(f"a plan of nine ratios at 600M, {order}", seconds / count * 1e8, "s per 100M parameters", "2 at most")
    job = job_of(model, at, 2, 200 if at.toy else 2000)
    how, batch = job.how(job.plan.sets["cat"]), job.plan.sets["cat"][0]
    for ratio in (0.1, 0.5, 0.9):

        def cell(ratio: float = ratio) -> None:
            with pruned(run, model.module, plans["specificity"], ratio), torch.no_grad():
                nats = [float(how["loss"](how["collate"](items))[0]) for items in batch.micro_batches]
            row(f"loss at 600M (random weights), ratio {ratio:g}", sum(nats) / batch.tokens, "nats a token")

        row(f"a cell at 600M: pruned, {batch.tokens} tokens, restored", at.synchronised(cell), "s")


def decoding(at: Setting) -> None:
    """Sentences a second of the engines, at 60M with random weights: each output runs on to the longest allowed."""
    from sensikit.settings import Decoding

    task = at.opened("60M").task("mt")
    for engine in ("own", "ctranslate2"):
        how = Decoding(engine=engine, max_sentences=4 if at.toy else 64, max_len_a=0, max_len_b=20)
        try:
            seconds = [at.synchronised(partial(task.translate, "cat", "test", how)) for _ in range(2)]
        except Exception as error:  # the other one is still of interest
            row(f"decoding by {engine}", f"{type(error).__name__}: {error}"[:200])
            continue
        row(f"decoding by {engine}, beam 5", how.max_sentences / min(seconds), "sentences/s")


def training(at: Setting) -> None:
    """Steps of all methods, in bfloat16."""
    if not importlib.util.find_spec("fairseq"):
        row("training", "fairseq is not installed")
        return
    import statistics

    from sensikit.backends.fairseq import compat
    from tests.benchmarks.training import METHODS, drawn, trainer_of
    from tests.conftest import write_corpus
    from tests.support import training_system

    tokens, arch, updates = ("400", "sensikit_tiny", 2) if at.toy else ("4096", "sensikit_base", 8)
    design = ("--arch", arch, "--max-tokens", tokens, "--tokens-per-update", tokens, "--dtype", "bf16")
    data = write_corpus(at.place / "corpus")
    spent: dict[str, list[float]] = {}
    with compat.quiet():
        for method in METHODS:
            system = training_system.build(data, method, *design)
            system.task.args.cpu = at.device == "cpu"
            trainer, samples = trainer_of(system), drawn(system, updates + 2)
            seconds = [at.synchronised(partial(trainer.train_step, [sample])) for sample in samples]
            spent[method] = seconds[2:]
            del trainer, system
    usual = statistics.median(spent["regular"])
    for method, each in spent.items():
        row(f"a step of {method}, {arch}, bf16, {tokens} tokens", statistics.median(each), "s")
        row(f"the same, times that of regular: {method}", statistics.median(each) / usual)


PARTS: dict[str, tuple[Callable[[Setting], None], float]] = {
    "same": (same, 70),
    "large": (partial(large, dtype="fp32"), 100),
    "large-bf16": (partial(large, dtype="bf16"), 90),
    "tests": (tests, 100),
    "small": (small, 70),
    "training": (training, 90),
    "decoding": (decoding, 60),
    "masks": (masks, 110),
}
"""By name, in the order of what is wanted most: what it does, and the most seconds that it gets."""


# the first process


def installed(wheels: Path, place: Path) -> None:
    """Unpack the wheels of what is not there, or there in another version."""
    missing = []
    for wheel in sorted(wheels.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        try:
            there = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            there = ""
        missing += [str(wheel)] * (there != version)
    if missing:
        how = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
        subprocess.run([*how, "--target", str(place), *missing], check=True)


def machine() -> Iterator[tuple[str, str]]:
    """Yield what the numbers belong to."""
    import torch

    yield "card", torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    yield "CUDA", str(torch.version.cuda)
    yield "Python", sys.version.split()[0]
    yield "cores", str(os.cpu_count())
    for name in ("torch", "transformers", "ve-fairseq", "ctranslate2"):
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "not installed"


def done_by(part: str, limit: float, options: Sequence[str], log: Path) -> dict[str, Any]:
    """Run one part in a process of its own, and return what it found, however it ended."""
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--part", part, *options]
    started, problem = time.monotonic(), ""
    with tempfile.TemporaryFile("w+") as said, log.open("w") as errors:
        # in a group of its own: what it has started goes with it
        process = subprocess.Popen(command, stdout=said, stderr=errors, cwd=ROOT, start_new_session=True)
        try:
            process.wait(timeout=max(limit, 1))
        except subprocess.TimeoutExpired:
            problem = f"ended after {limit:.0f} s"
            os.killpg(process.pid, 9)
            process.wait()
        said.seek(0)
        rows = [json.loads(line) for line in said if line.startswith('{"what"')]
    if not problem and process.returncode:
        last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] or ["no word"]
        problem = f"failed ({process.returncode}): {last[-1][:300]}"
    return {"part": part, "seconds": round(time.monotonic() - started, 1), "problem": problem, "rows": rows}


def table(facts: dict[str, str], parts: Sequence[dict[str, Any]]) -> str:
    """Return all that was found, as Markdown."""
    lines = [", ".join(f"{name} {value}" for name, value in facts.items()), ""]
    lines += ["| part | what | found | aim |", "|---|---|---|---|"]
    for part in parts:
        for each in part["rows"]:
            value = each["value"] if isinstance(each["value"], str) else f"{each['value']:.4g}"
            cells = part["part"], each["what"], f"{value} {each['unit']}".strip(), each["aim"]
            lines.append("| " + " | ".join(re.sub(r"[|\n]", " ", cell) for cell in cells) + " |")
        if part["problem"]:
            lines.append(f"| {part['part']} | **{re.sub(r'[|]', ' ', part['problem'])}** | | |")
    return "\n".join(lines) + "\n"


def main(given: Sequence[str] | None = None) -> int:
    """Run all parts, or one; return how many of them failed."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.gpu")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--only", default=",".join(PARTS), help="some of " + ", ".join(PARTS))
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.part:
        PARTS[options.part][0](Setting(options.place, options.toy))
        return 0
    started = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        site, place = Path(folder) / "site", Path(folder) / "work"
        for path in (site, place):
            path.mkdir()
        if options.wheels and options.wheels.is_dir():
            installed(options.wheels.resolve(), site)
        (site / "sensikit_cli").symlink_to(ROOT / "cli")
        paths = [str(ROOT), str(site), os.environ.get("PYTHONPATH", "")]
        os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "TMPDIR": folder}
        sys.path.insert(0, str(site))
        facts = dict(machine())
        for name in options.only.split(","):
            left = 60 * options.minutes - (time.monotonic() - started)
            more = ["--place", str(place), *["--toy"] * options.toy]
            found.append(done_by(name, min(PARTS[name][1], left), more, options.out / f"{name}.log"))
            (options.out / "gpu.json").write_text(json.dumps({"machine": facts, "parts": found}, indent=1) + "\n")
            (options.out / "gpu.md").write_text(table(facts, found))
            print(f"{name}: {found[-1]['seconds']} s {found[-1]['problem']}", file=sys.stderr)
    print((options.out / "gpu.md").read_text())
    return sum(bool(part["problem"]) for part in found)


if __name__ == "__main__":
    sys.exit(main())
