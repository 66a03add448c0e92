"""A small model with a tied embedding, runs of it, and the masks of an order: as chunks make them, and obviously."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sensikit.parameters import registry
from sensikit.pruning.masks import Order, Plan, chosen, pruned
from sensikit.pruning.scorers import SCORERS, random_keys
from sensikit.run import Run
from tests.support import handmade

STORED = [name for name, scorer in SCORERS.items() if scorer.measure]
"""Orders whose scores are not S or D."""


class Tied(nn.Module):
    """An embedding tied to its projection, a norm between, and a layer with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(9, 4)
        self.layer_norm = nn.LayerNorm(4)
        self.fc1 = nn.Linear(4, 5)
        self.fc2 = nn.Linear(5, 4, bias=False)
        self.output_projection = nn.Linear(4, 9, bias=False)
        self.output_projection.weight = self.embed_tokens.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.layer_norm(self.embed_tokens(tokens))
        return self.output_projection(x + self.fc2(torch.relu(self.fc1(x))))


PRUNABLE = 9 * 4 + 4 * 5 + 5 + 5 * 4
SIZE = PRUNABLE + 8  # the norm's weight and bias stand between


def model(seed: int = 0) -> Tied:
    torch.manual_seed(seed)
    return Tied()


def run_of(path: Path, module: nn.Module, own: np.ndarray, rest: np.ndarray, sigma: float = 1e-7) -> Run:
    """Write a run with S(θ,B_l) and S(θ,B_-l) of cat, and some scores of the other methods."""
    parameters = registry(module)
    made = handmade.run(
        path,
        {"cat": own},
        {"cat": rest},
        shapes={parameter.name: parameter.shape for parameter in parameters},
        spared=[parameter.name for parameter in parameters if not parameter.prunable],
        sigma=sigma,
    )
    generator = np.random.default_rng(99)
    for name in STORED:  # few different values, so that many places are shared
        made.write_set(f"{name}-mt", "cat", {"": handmade.shaped(parameters, generator.integers(0, 30, SIZE))}, {})
    return made


def scores(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if ties:  # few different values, so that most places in every order are shared
        return tuple(rng.integers(0, 4, SIZE).astype(np.float32) / 8 for _ in range(2))  # type: ignore[return-value]
    return tuple(rng.lognormal(-9, 2, SIZE).astype(np.float32) for _ in range(2))  # type: ignore[return-value]


def prunable_part(run: Run, vector: np.ndarray) -> np.ndarray:
    return np.concatenate([vector[p.start : p.stop] for p in run.parameters if p.prunable])


def obvious_mask(run: Run, module: nn.Module, order: Order, ratio: float) -> np.ndarray:
    """Argsort in memory: the protected taken out of all prunable parameters, the first of the rest pruned."""
    own, rest = (prunable_part(run, handmade.flat(run, name)) for name in ("cat", "cat.rest"))
    named = dict(module.named_parameters())
    weights = np.concatenate([named[p.name].detach().numpy().ravel() for p in run.parameters if p.prunable])
    every = handmade.flat(run, "cat") if order.among == "all" else own
    sigma = run.manifest["sets"]["mt/cat.rest"]["sigma"]
    wide = rest.astype(np.float64)
    score = (own.astype(np.float64) - wide) / (wide + sigma)
    by = {
        "specificity": score,
        "reverse": -score,
        "sensitivity": own,
        "magnitude": np.abs(weights),
        "random": random_keys(order.seed or 0, 0, len(own)),
        **{name: prunable_part(run, flat_of(run, f"{name}-mt")) for name in STORED},
    }
    spared = np.zeros(len(every), dtype=bool)
    spared[np.argsort(-every, kind="stable")[: math.floor(order.protect * len(every) + 1e-9)]] = True
    safe = prunable_part(run, spared) if order.among == "all" else spared
    left, mask = int((~safe).sum()), np.zeros(len(own), dtype=bool)
    whole = ratio >= 1 - order.protect - 1e-9 and order.among == "prunable"
    count = left if whole else min(round(ratio * len(own)), left)
    if order.name.startswith("matched"):
        within = by[{"matched": "specificity", "matched-reverse": "reverse", "matched-random": "random"}[order.name]]
        strata = np.array_split(np.array([i for i in np.argsort(own, kind="stable") if not safe[i]], dtype=int), 100)
        for place, stratum in enumerate(strata):
            members = sorted(stratum, key=lambda i: (within[i], i))
            mask[members[: count // 100 + (place < count % 100)]] = True
    else:
        mask[[i for i in np.argsort(by[order.name], kind="stable") if not safe[i]][:count]] = True
    return mask


def flat_of(run: Run, task: str) -> np.ndarray:
    return np.concatenate([block[0] for block in run.stream([run.vector(task, "cat")])])


def mask_of(run: Run, plan: Plan, ratio: float) -> np.ndarray:
    return np.concatenate([inside.ravel() for _, inside in chosen(run, plan, ratio)])


def applied_mask(run: Run, module: nn.Module, plan: Plan, ratio: float) -> np.ndarray:
    """What is zero in the module while the plan is applied; none of its weights is zero otherwise."""
    with pruned(run, module, plan, ratio):
        named = dict(module.named_parameters())
        zero = [(named[p.name] == 0).numpy().ravel() for p in run.parameters if p.prunable]
    return np.concatenate(zero)
