"""The transformer that is trained: fairseq's own, with scores for encoder and decoder, in K passes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from fairseq.models import register_model, register_model_architecture
from fairseq.models.transformer import TransformerModel, base_architecture
from torch import nn

from sensikit.training.recipes import SIZES


@register_model("sensikit_transformer")
class LanguageAwareTransformer(TransformerModel):  # type: ignore[misc]
    """A transformer whose encoder can predict too, through the decoder's output projection or one of its own (Table 6).

    Encoder states and projection meet in prediction alone; the decoder is as it always was.
    """

    @classmethod
    def add_args(cls, parser: ArgumentParser) -> None:
        """Add the one argument that the transformer lacks."""
        super().add_args(parser)
        parser.add_argument(
            "--separate-projection", action="store_true", help="the encoder predicts through a projection of its own"
        )

    @classmethod
    def build_model(cls, args: Namespace, task: Any) -> LanguageAwareTransformer:
        """Return a new model."""
        model: LanguageAwareTransformer = super().build_model(args, task)
        model.encoder_projection = None
        if getattr(args, "separate_projection", False):
            shared: torch.Tensor = model.decoder.output_projection.weight
            model.encoder_projection = nn.Linear(shared.shape[1], shared.shape[0], bias=False)
            nn.init.normal_(model.encoder_projection.weight, std=shared.shape[1] ** -0.5)
        return model

    def forward(
        self,
        src_tokens: torch.Tensor,
        src_lengths: torch.Tensor,
        prev_output_tokens: torch.Tensor | None = None,
        scored: Mapping[str, tuple[torch.Tensor, Callable[[torch.Tensor, torch.Tensor], Any]]] | None = None,
        passes: int = 1,
        shared_encoder: bool = False,
        **rest: Any,
    ) -> Any:
        """Return what is made of each side that is `scored`; without it, what fairseq's transformer returns.

        Everything happens in one call, as data-parallel wrappers need it. A side that is not scored is not computed,
        and only what bears a loss goes through the costly projection. The passes are K calls: one batch of K copies
        took 1 to 4 % longer on a processor, and would drop the same layers in every pass.

        Args:
            src_tokens: (B, S) int64, padded on the right.
            src_lengths: (B,) int64.
            prev_output_tokens: (B, T) int64; None where the decoder is not scored.
            scored: "encoder" (B, S), "decoder" (B, T) bool: the N positions that bear a loss, and what takes the
                states there, (K, N, d), and the projection, (V, d).
            passes: K, each with its own dropout, the encoder's included.
            shared_encoder: the decoder reads the first pass's encoder states in every pass, as in the released code.
            rest: of fairseq's transformer.
        """
        if scored is None:
            return super().forward(src_tokens, src_lengths, prev_output_tokens, **rest)
        fresh = 1 if shared_encoder and "encoder" not in scored else passes
        encoded = [self.encoder(src_tokens, src_lengths) for _ in range(fresh)]
        states = {}
        if "encoder" in scored:
            states["encoder"] = [each["encoder_out"][0].transpose(0, 1) for each in encoded]
        if "decoder" in scored:
            read = encoded[:1] * passes if shared_encoder else encoded
            decode = partial(self.decoder, prev_output_tokens, features_only=True)
            states["decoder"] = [decode(encoder_out=each)[0] for each in read]
        found = {}
        for side, (where, made) in scored.items():
            projection = (side == "encoder" and self.encoder_projection) or self.decoder.output_projection
            found[side] = made(torch.stack([each[where] for each in states[side]]), projection.weight)
        return found


def _architecture(size: dict[str, int]) -> Callable[[Namespace], None]:
    def configure(args: Namespace) -> None:
        for side in ("encoder", "decoder"):
            for name, value in size.items():
                setattr(args, f"{side}_{name}", getattr(args, f"{side}_{name}", value))
            setattr(args, f"{side}_normalize_before", True)
        args.share_all_embeddings = True
        args.separate_projection = getattr(args, "separate_projection", False)
        base_architecture(args)

    return configure


for _name, _size in SIZES.items():
    register_model_architecture("sensikit_transformer", f"sensikit_{_name}")(_architecture(_size))
