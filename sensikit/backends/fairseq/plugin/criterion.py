"""The criterion: the terms of one part of an update, with K passes and intra-distillation where it is on."""

# mypy: disable-error-code="valid-type"
# ruff: noqa: RUF009
# no "from __future__ import annotations": fairseq wants the types of its configuration themselves
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II

from sensikit.backends.fairseq.plugin.mixing import TRANSLATION
from sensikit.errors import OptionError
from sensikit.training.losses import TERMS, strength, summed, term, weights


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class LanguageAwareConfig(FairseqDataclass):  # type: ignore[misc]
    """Flags of the criterion."""

    label_smoothing: float = _flag(0.0, "ε, in every term")
    distill: str = _flag("", "terms with intra-distillation, joined by commas: translation, encoder, decoder")
    id_k: int = _flag(2, "K, passes of what is distilled")
    id_alpha: float = _flag(5.0, "α")
    id_schedule: str = _flag("", "p,q of the adaptive α of Xu et al. (2022), theirs 5,10; empty: constant")
    id_passes: ChoiceEnum(["full", "shared-encoder"]) = _flag("full", "shared-encoder: as released")
    id_weights: ChoiceEnum(["equation", "halved"]) = _flag("equation", "halved: α/2 on both sides, as released")
    loss_weights: ChoiceEnum(["own", "released"]) = _flag("own", "by each term's own tokens, or pooled")
    max_update: int = II("optimization.max_update")


def _schedule(text: str, updates: int) -> tuple[float, float] | None:
    """Return the p and q of --id-schedule; None for nothing."""
    parts = text.split(",") if text else []
    if not parts:
        return None
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts) or not 0 < int(parts[0]) < int(parts[1]):
        raise OptionError("--id-schedule", f"{text!r} is not p,q with 0 < p < q", "give 5,10 for instance")
    if not updates:
        raise OptionError("--id-schedule", "needs to know the number of updates", "give --max-update")
    return int(parts[0]), int(parts[1])


@register_criterion("sensikit", dataclass=LanguageAwareConfig)
class LanguageAwareCriterion(FairseqCriterion):  # type: ignore[misc]
    """L_mmt + L_e + L_d + α·(X of those that are distilled), Eq. 8, label-smoothed, in nats.

    In training the task calls `part` for each part of an update, with the factors of the whole update.
    """

    def __init__(self, cfg: LanguageAwareConfig, task: Any) -> None:
        super().__init__(task)
        # each read of a value of omegaconf's takes longer than a small operation of torch's, and an update has dozens
        self.cfg = SimpleNamespace(**{each.name: getattr(cfg, each.name) for each in fields(LanguageAwareConfig)})
        self.distilled = {name for name in cfg.distill.split(",") if name}
        trained = [name for name in TERMS if name in {TRANSLATION, *task.predicted}]
        if not self.distilled <= set(trained):
            problem = f"{cfg.distill!r} names a term that is not trained"
            raise OptionError("--distill", problem, f"give some of {', '.join(trained)}")
        if self.distilled and cfg.id_k < 2:
            raise OptionError("--id-k", f"{cfg.id_k} passes cannot differ", "give 2 or more")
        self.schedule = _schedule(cfg.id_schedule, cfg.max_update)

    def alpha(self, sides: int, update: int) -> float:
        """Return the weight of X in an example that is predicted on one or two sides, at an update."""
        alpha = strength(update, self.cfg.id_alpha, self.schedule, self.cfg.max_update)
        return alpha / 2 if str(self.cfg.id_weights) == "halved" and sides == 2 else alpha

    def part(
        self, model: Any, part: Mapping[str, Any], factors: Mapping[str, float], update: int = 0
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return the weighted sum of a part's terms, and what is to be logged of them.

        Args:
            model: a `LanguageAwareTransformer`, perhaps wrapped; in training it passes K times.
            part: as `Mixture` makes it.
            factors: of each term, of `objectives.weights`.
            update: updates done.
        """
        bearing = {side: target.ne(self.padding_idx) for side, target in part["targets"].items()}
        names = {side: TRANSLATION if part["objective"] == TRANSLATION else side for side in bearing}
        passes = self.cfg.id_k if self.training and self.distilled & set(names.values()) else 1
        scored = {}
        for side, name in names.items():
            alpha = self.alpha(len(names), update) if passes > 1 and name in self.distilled else 0.0
            target, smoothing = part["targets"][side][bearing[side]], self.cfg.label_smoothing
            scored[side] = bearing[side], partial(term, target=target, smoothing=smoothing, alpha=alpha)
        shared = str(self.cfg.id_passes) == "shared-encoder"
        terms = model(**part["net_input"], scored=scored, passes=passes, shared_encoder=shared)
        total: Any = 0.0
        log = empty_log()
        for side, name in names.items():
            found = terms[side]
            total = total + factors[name] * found.total
            log |= {f"{name}_loss": found.loss, f"{name}_nll": found.nll, f"{name}_x": found.divergence}
            log[f"{name}_tokens"] = part["tokens"][name]
        log |= {name: part[name] for name in ("nsentences", "source_tokens")}
        return total, {**log, "loss": total.detach(), "ntokens": log["translation_tokens"]}

    def forward(self, model: Any, sample: Mapping[str, Any], reduce: bool = True) -> tuple[Any, float, dict[str, Any]]:
        """Return the loss of a sample by itself, its sample size, and what is to be logged: for validation."""
        factors, size = weights(summed([part["tokens"] for part in sample["parts"]]), str(self.cfg.loss_weights))
        losses, logs = zip(*(self.part(model, part, factors) for part in sample["parts"]), strict=True)
        return sum(losses), size, {**summed(logs), "sample_size": size}

    @classmethod
    def reduce_metrics(cls, logging_outputs: Sequence[Mapping[str, Any]]) -> None:
        """Log each term by its own tokens, in nats: loss, nll_loss (of translation), translation, translation_x."""
        total = {name: float(value) for name, value in summed(logging_outputs).items()}
        for name in TERMS:
            if tokens := total[f"{name}_tokens"]:
                metrics.log_scalar(name, total[f"{name}_loss"] / tokens, tokens, round=4)
                metrics.log_scalar(f"{name}_x", total[f"{name}_x"] / tokens, tokens, round=6)
                metrics.log_scalar(f"{name}_tokens", tokens, round=1)
        metrics.log_scalar("loss", total["loss"] / (total["sample_size"] or 1), total["sample_size"], round=4)
        metrics.log_scalar("nll_loss", total["translation_nll"] / (total["ntokens"] or 1), total["ntokens"], round=4)
        metrics.log_scalar("source_tokens", total["source_tokens"], round=1)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Return True: sums are all that is logged."""
        return True


def empty_log() -> dict[str, Any]:
    """Return zeros under every name that is logged: processes must agree on them."""
    names = [f"{name}_{what}" for name in TERMS for what in ("loss", "nll", "x", "tokens")]
    return dict.fromkeys([*names, "loss", "ntokens", "nsentences", "source_tokens"], 0)
