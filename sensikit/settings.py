"""The settings of every step, each field with its default, its help text and its bounds.

The command line makes its options of them, so a new option is a new field here and nothing else. It answers `--help`
before torch is loaded: nothing heavy is imported here.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from sensikit.errors import OptionError
from sensikit.languages import read_level, read_tiers, standard

T = TypeVar("T")

TASKS = ("mt", "denoise", "lm")
"""Whose sensitivities are measured; a vector of anything else is a score of another pruning method."""

SIGMA = 1e-8
"""σ of the paper (its footnote 3), which belongs to a loss summed over the tokens of a batch."""

HIGH = 0.1
"""The share of the parameters in the high subset (section 3.2 of the paper)."""

PROTECT = 0.1
"""The share of the prunable parameters that is never pruned: those with the highest S(θ, B_l)."""

AMONG = ("prunable", "all")
"""What they are a share of: the prunable parameters, or all, norms too, as in the authors' code."""

SEEDS = 2**32 - 1
"""The largest seed that all generators take."""

CORRELATIONS = ("corrected", "pcc", "spearman", "log_pcc")
"""How alike two groups are, as columns of correlation.csv: see `sensikit.statistics.correlation`."""

STRATA = 100
"""Strata of equal S(θ,B_l), from each of which a matched order takes the same share."""

BOOTSTRAP = 10_000
"""Draws of the test segments behind an interval: of fewer, no p is small enough where many are looked at."""


def option(
    default: T,
    help: str = "",
    *,
    names: Sequence[str] = (),
    choices: Sequence[str] = (),
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> T:
    """Return a field of an `Options` dataclass.

    Args:
        default: its value where nothing is given.
        help: a line for the command line, where it follows the choices; a field without it is set from Python alone.
        names: spellings of the option (--on/--off of a flag that is on); the name of the field with dashes by default.
        choices: what a string, or each of several, may be.
        least: the smallest value; `above` and `below` are bounds that are not reached themselves.
        most: the largest value: of a count, far more than anyone has use for, and little enough to end.
        above: see `least`.
        below: see `least`.
    """
    bounds = {"least": least, "most": most, "above": above, "below": below}
    return field(default=default, metadata={"help": help, "names": names, "choices": choices, **bounds})


def names_of(field: Field[Any]) -> Sequence[str]:
    """Return what the command line calls a field: its own spellings, or its name with dashes."""
    return field.metadata.get("names") or ["--" + field.name.replace("_", "-")]


@dataclass(frozen=True)
class Options:
    """A dataclass that refuses a value that its fields do not allow, as it is made: an OptionError names the option."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value, allows, name = getattr(self, each.name), each.metadata, names_of(each)[0]
            kind, what = _KINDS.get(str(each.type).removesuffix(" | None"), (object, ""))
            if value is not None and not isinstance(value, kind):
                raise OptionError(name, f"{value!r} is not what it takes", f"give {what}")
            choices = allows.get("choices")
            for part in value if isinstance(value, tuple) else (value,):
                if choices and part is not None and part not in choices:
                    raise OptionError(name, f"{part} is not one of them", f"choose {' or '.join(choices)}")
            if isinstance(value, int | float):
                _check_bounds(name, value, allows)


_KINDS: dict[str, tuple[Any, str]] = {
    "int": (int, "a whole number"),
    "float": (int | float, "a number"),
    "str": (str, "text"),
    "tuple[str, ...]": (tuple | list, "a tuple of names"),
}
"""What a field of a type holds, for Python itself would take "40" for 40 and "loss" for ("loss",)."""

_BOUNDS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "least": (operator.ge, "{:g} or more"),
    "most": (operator.le, "at most {:,}"),
    "above": (operator.gt, "more than {:g}"),
    "below": (operator.lt, "less than {:g}"),
}


def _check_bounds(name: str, value: float, allows: Mapping[str, Any]) -> None:
    bounds = [(*bound, allows[key]) for key, bound in _BOUNDS.items() if allows.get(key) is not None]
    finite = isinstance(value, int) or math.isfinite(value)
    if finite and all(within(value, limit) for within, _, limit in bounds):
        return
    try:
        written = f"{value:g}"
    except OverflowError:  # an integer that is more than any float
        written = "a number so large"
    wanted = ", ".join(text.format(limit) for _, text, limit in bounds)
    raise OptionError(name, f"{written} is out of range", f"give {wanted or 'a finite number'}")


def read_recipes(texts: Sequence[str], labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return what options such as ID=a,b,c say: by name, the labels of the training seeds of one recipe.

    >>> read_recipes(["ID=a,b"], ["regular", "a", "b"])
    {'ID': ('a', 'b')}

    Raises:
        OptionError: if one is not of that form, has fewer than two seeds, or a name or label that is taken or unknown.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, _, rest = text.partition("=")
        seeds, taken = tuple(rest.split(",")), [label for those in found.values() for label in those]
        unknown = [label for label in seeds if label not in labels]
        if not name.strip() or not name.isprintable() or len(seeds) < 2:
            problem = "is not NAME=LABEL,LABEL,…"
        elif unknown:
            problem = f"names {unknown[0] or 'nothing'}, which is not there"
        elif name in labels or name in found:
            problem = f"has the name of another: {name}"
        elif twice := [label for label in seeds if [*taken, *seeds].count(label) > 1]:
            problem = f"names {twice[0]} twice"
        else:
            found[name] = seeds
            continue
        raise OptionError(f"--group {text[:100]}", problem, f"give two or more of {', '.join(labels)} under a new name")
    return found


@dataclass(frozen=True)
class Loading(Options):
    """How a model is loaded. Each of these moves numbers, so each is kept in the manifest of a run."""

    dtype: str = option("fp32", "of the weights; losses and sums are fp32.", choices=("fp32", "bf16"))
    revision: str | None = option(None, "Of a model on the Hugging Face hub: a branch, tag or commit.")
    prompt: str | None = option(
        None,
        "Template of a translation, for models without language tags: $'{source_name}: {source}\\n{target_name}: '.",
    )

    @classmethod
    def noted(cls, values: Mapping[str, str], directory: bool = False) -> Loading:
        """Return what a manifest says, without the revision where the model is now a `directory`."""
        known = {each.name for each in fields(cls)} - ({"revision"} if directory else set())
        return cls(**{name: value for name, value in values.items() if name in known})

    def given(self) -> dict[str, str]:
        """Return what is not as usual."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default}


@dataclass(frozen=True)
class Tiers(Options):
    """The resource levels of groups, in place of those that are kept with the data or follow from their sizes."""

    tiers: str | None = option(
        None, "HIGH,LOW: fewest training examples of a High and of a Low group; by default as kept with the data."
    )
    tier: tuple[str, ...] | None = option(None, "Of single groups: cat=high,isl=low,fao=very-low.")

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.thresholds, self.levels  # what cannot be read is refused as it is given

    @property
    def thresholds(self) -> tuple[int, int] | None:
        """The two thresholds, where they are given."""
        return None if self.tiers is None else read_tiers(self.tiers)

    @property
    def levels(self) -> dict[str, str]:
        """The tiers of single groups, by key."""
        return dict(map(read_level, self.tier or ()))

    def check(self, groups: Sequence[str]) -> None:
        """Refuse the tier of a group that is none of these."""
        for key in self.levels:
            if key not in map(standard, groups):
                raise OptionError("--tier", f"{key} is no group here", f"choose among {', '.join(groups)}")


@dataclass(frozen=True)
class AnalysisSettings(Options):
    """What decides the numbers of one task of a run."""

    task: str = option("mt", choices=TASKS)
    """Translation, the self-supervised task of `sensikit train`, or language modelling; a run takes several in turn."""
    split: str = "train"
    """Whose sentences the batches are made of."""
    loss: str = option(
        "nll", "cross-entropy, or the criterion of the training run (fairseq).", choices=("nll", "train")
    )
    reduction: str = option("token", "mean over the target tokens of a batch, or their sum.", choices=("token", "sum"))
    mode: str = option("eval", "without dropout, or with it as in training.", choices=("eval", "train"))
    batches: int = option(500, "Batches of each set, at most.", least=2, most=100_000)
    tokens: int | None = option(
        None,
        "T, target tokens of a batch; 4096 by default, lowered until the smallest group has 40 batches.",
        least=1,
        most=10**8,
    )
    rest: str = option(
        "mixed",
        "B_-l is batches of the other groups, or the mean of their S: larger, never compare the two.",
        choices=("mixed", "pooled"),
    )
    rest_temperature: float = option(1.0, "Of the mix: 1 = in proportion to the data.", least=0.01, most=1000)
    sigma: float = option(SIGMA, "σ of D, on the scale of a summed loss.", least=1e-20, most=10**6)
    high: float = option(HIGH, "Share of the parameters in the high subset: the largest S.", above=0, below=1)
    seed: int = option(1, "Of every random choice: sentences, and the noise that is denoised.", least=0, most=SEEDS)
    micro_batches: int | None = option(
        None,
        "Parts of like length that a batch is computed in, by default what takes the least time: the same S.",
        least=1,
        most=10_000,
    )
    skip_nonfinite: bool = option(False, "Leave out, and count, batches whose gradient is not finite.")
    store: str = option(
        "fp32",
        "of the vectors on disk; bf16 takes half of it, and S within 0.4 % of each other may become equal.",
        choices=("fp32", "bf16"),
    )
    halves: bool = option(
        True,
        "Store S of half the batches too; without it, noise is told from the blocks of a sample of the parameters.",
        names=("--halves/--no-halves",),
    )


@dataclass(frozen=True)
class MemorySettings(Options):
    """How an analysis fits into memory. None of it moves a number, but for the rounding of sums over `shard` parts."""

    parameter_passes: int = option(
        1, "Passes over the batches, each for a part of the parameters, whose sums alone are in memory.", least=1
    )
    sums: str = option(
        "auto",
        "of gradients: as there is room; on the GPU; those of all blocks on the CPU; or all there, which is slower.",
        choices=("auto", "device", "split", "cpu"),
    )
    memory: float | None = option(
        None, "GB of a GPU that the sums and gradients may take; by default .6 of what is free.", above=0
    )
    shard: int = option(
        1,
        "Processes, each with a device, that hold one model together; torchrun starts a multiple of them.",
        least=1,
        most=100_000,
    )


RELEASED: dict[str, Any] = {"loss": "train", "reduction": "sum", "mode": "train"}
"""`--preset released`: the loss and the mode of the authors' code (dropout on, label smoothing, summed over tokens)."""


@dataclass(frozen=True)
class Decoding(Options):
    """How to translate. Each of these moves BLEU, so each is in the signature.

    The longest output allowed is `max_len_a` · source tokens + `max_len_b` tokens; heavily pruned models run on to it.
    """

    beam: int = option(5, "Beam size.", least=1, most=1000)
    lenpen: float = option(1.0, "Length penalty: 1 leaves scores per token.", least=-10, most=10)
    max_len_a: float = option(1.2, "A of the longest output allowed: A · source tokens + B.", least=0, most=1000)
    max_len_b: int = option(10, "B of the longest output allowed.", least=0, most=100_000)
    max_sentences: int | None = option(None, "Score only the first N sentences.", least=1, most=10**9)
    max_tokens: int = option(4096, "Source tokens computed at a time, padding included.", least=1, most=10**8)
    engine: str = option(
        "own",
        "What searches: the model's own framework, or CTranslate2, which is several times as fast.",
        choices=("own", "fairseq", "huggingface", "ctranslate2"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_len_a == self.max_len_b == 0:
            raise OptionError("--max-len-b", "allows no output, as --max-len-a 0 does", "give one of them more than 0")

    def choices(self, split: str, references: str = "") -> dict[str, Any]:
        """Return what a signature says of a split that was scored: which, how it was translated, whence the references.

        Without references, nothing was translated.
        """
        # the cap counts from the longest source decoded at a time, so how many are belongs to it
        longest = f"{self.max_len_a:g}x+{self.max_len_b}/{self.max_tokens}"
        engine = {"engine": self.engine} if self.engine == "ctranslate2" else {}
        how = {"beam": self.beam, "lenpen": self.lenpen, "maxlen": longest, **engine} if references else {}
        return {"split": split, **how, "sents": self.max_sentences or "all", "refs": references or None}


@dataclass(frozen=True)
class EvaluationSettings(Options):
    """What decides the numbers of an evaluation."""

    metrics: tuple[str, ...] | None = option(
        None,
        "Comma-separated: bleu, chrf, loss, bpb (bits per byte); by default bleu,chrf of translations, else loss.",
        names=("--metric",),
    )
    task: str = option("mt", choices=TASKS)
    """Whose sentences: of denoising and language modelling, there is the loss alone."""
    split: str = option("test", "Which of them.")
    decoding: Decoding = field(default_factory=Decoding)
    tokenizer: str = option("spm", "Of BLEU, as sacreBLEU names it.")
    spm_model: str | None = option(None, "A SentencePiece model for BLEU, in place of a tokenizer of sacreBLEU's.")
    bootstrap: int = option(BOOTSTRAP, "Draws of the test sentences, for intervals and tests.", least=0, most=100_000)

    @property
    def scored(self) -> tuple[str, ...]:
        """The metrics: those that are asked for, or else those of the task."""
        return (("bleu", "chrf") if self.task == "mt" else ("loss",)) if self.metrics is None else self.metrics


@dataclass(frozen=True)
class Choice(Options):
    """What is chosen before the test, for each system by itself: its checkpoint and its length penalty."""

    choose_on: str | None = option(
        None,
        "A split, valid: of checkpoints of one --label or folder, and of --lenpens, the best in BLEU there is scored.",
    )
    lenpens: tuple[str, ...] | None = option(None, "Length penalties to choose among: 1,1.5,2; by default --lenpen.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lenpens is not None and self.choose_on is None:
            raise OptionError("--lenpens", "are chosen among, and nothing says where", "give --choose-on valid")
        _ = self.penalties(1.0)

    def penalties(self, lenpen: float) -> list[float]:
        """Return the length penalties, each once; `lenpen` where none are given."""
        found = []
        for text in self.lenpens or ():
            try:
                found.append(Decoding(lenpen=float(text)).lenpen)
            except (ValueError, OptionError) as error:
                raise OptionError("--lenpens", f"{text[:100]} is no length penalty", "give such as 1,1.5,2") from error
        return list(dict.fromkeys(found)) or [lenpen]


@dataclass(frozen=True)
class SweepSettings(EvaluationSettings):
    """What decides the numbers of a pruning sweep; a ledger holds cells of one of these alone, in any metrics."""

    protect: float = option(PROTECT, "Share with the highest S(θ,B_l) that is never pruned.", least=0, below=1)
    protect_among: str = option(AMONG[0], "parameters, that it is a share of; the authors' code: all.", choices=AMONG)


@dataclass(frozen=True)
class ReportSettings(Options):
    """What a report shows."""

    correlation: str = option(
        "corrected",
        "in heat maps and the tree: PCC of endless batches, of these batches, of ranks, or of log S.",
        choices=CORRELATIONS,
    )
