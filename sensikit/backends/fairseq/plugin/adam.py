"""Adam as fairseq has it, all parameters in one call: fairseq's loop over them is a seventh of a small update."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from fairseq.optim import register_optimizer
from fairseq.optim.adam import Adam, FairseqAdam, FairseqAdamConfig


class FusedAdam(Adam):  # type: ignore[misc]
    """fairseq's Adam by torch's fused kernel; its state is fairseq's own, and a run may go on with either.

    The kernel adds ε to √(v/(1-β₂^t)), fairseq to √v: the kernel is given ε/√(1-β₂^t).
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step; gradients or parameters in half precision are left to fairseq's loop."""
        parameters = [each for group in self.param_groups for each in group["params"] if each.grad is not None]
        if any(tensor.dtype != torch.float32 for each in parameters for tensor in (each, each.grad)):
            return super().step(closure)
        loss = closure() if closure else None
        for group in self.param_groups:
            together: dict[int, list[torch.Tensor]] = {}  # one that had no gradient in some update has done fewer steps
            for each in group["params"]:
                if each.grad is not None:
                    state = self.state[each]
                    if not state:
                        state |= {"step": 0, "exp_avg": torch.zeros_like(each), "exp_avg_sq": torch.zeros_like(each)}
                    state["step"] += 1
                    together.setdefault(state["step"], []).append(each)
            for step, same in together.items():
                self._step(group, step, same)
        return loss

    def _step(self, group: dict[str, Any], step: int, parameters: list[torch.Tensor]) -> None:
        (beta1, beta2), states = group["betas"], [self.state[each] for each in parameters]
        torch._fused_adamw_(
            parameters,
            [each.grad for each in parameters if each.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [torch.full((), float(step), device=parameters[0].device)] * len(parameters),
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"] / math.sqrt(1 - beta2**step),
            amsgrad=False,
            maximize=False,
        )


@register_optimizer("sensikit_adam", dataclass=FairseqAdamConfig)
class LanguageAwareAdam(FairseqAdam):  # type: ignore[misc]
    """fairseq's, with `FusedAdam` where fairseq has no fused one of its own."""

    def __init__(self, cfg: FairseqAdamConfig, params: Any) -> None:
        super().__init__(cfg, params)
        if type(self._optimizer) is Adam:  # type: ignore[has-type]
            self._optimizer = FusedAdam(params, **self.optimizer_config)
