"""Whatever a checkpoint's settings hold, they are taken as plain values within bounds, or refused with one line."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sensikit.backends.fairseq.checkpoint import Checkpoint
from sensikit.backends.fairseq.settings import Trained, trained
from sensikit.errors import CheckpointError, OptionError
from sensikit.languages import direction_of, keyed, select

GOOD: dict[str, Any] = {
    "_name": "translation_multi_simple_epoch",
    "arch": "transformer",
    "lang_pairs": ["cat-eng", "nob-eng"],
    "langs": ["cat", "nob", "eng"],
    "encoder_langtok": "src",
    "decoder_langtok": True,
    "langtoks": None,
}
NAMES = [
    *GOOD, "task", "lang_dict", "lang_tok_style", "langtoks_specs", "lang_tok_replacing_bos_eos", "left_pad_source",
    "left_pad_target", "truncate_source", "enable_lang_ids", "encoder_layers", "decoder_embed_dim", "dropout",
    "max_source_positions", "activation_fn", "share_all_embeddings", "adaptive_softmax_cutoff", "quant_noise_pq",
    "label_smoothing", "ignore_prefix_size", "criterion", "xformers_att_config", "encoder_layerdrop",
]  # fmt: skip

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=8),
    st.sampled_from(["True", "False", "cat-eng", "cat", "src", "eval('1')", "a" * 1000, "\x00", "main"]),
    st.just(torch.ones(2)),
    st.just(argparse.Namespace(a=1)),
)
anything = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(max_size=5), st.just("main"), st.integers()), inner, max_size=3),
    ),
    max_leaves=5,
)


def taken(content: dict[str, Any]) -> Trained | None:
    """Return the settings, or None if they are refused as they should be."""
    try:
        found = trained(Checkpoint(Path("c.pt"), "0" * 64, 1, {}, content, False))
        assert keyed(select(found.pairs))
    except (CheckpointError, OptionError) as error:
        refusal = str(error)
    else:
        return found
    assert "\n" not in refusal
    assert len(refusal) < 500
    return None


def config(part: str, changes: dict[str, Any]) -> dict[str, Any]:
    parts = {"task": dict(GOOD), "model": dict(GOOD), "criterion": {"_name": "cross_entropy"}}
    parts[part] |= changes
    return {"cfg": {name: argparse.Namespace(**values) for name, values in parts.items()}}


def test_good_settings_are_taken() -> None:
    found = taken(config("task", {}))
    assert found is not None
    assert found.pairs == (("cat", "eng"), ("nob", "eng"))


@settings(max_examples=600, deadline=None)
@given(
    part=st.sampled_from(["task", "model", "criterion"]),
    changes=st.dictionaries(st.sampled_from(NAMES), anything, min_size=1, max_size=3),
)
@example("task", {"lang_pairs": torch.ones(2)})  # has no truth value
def test_any_values_of_any_settings(part: str, changes: dict[str, Any]) -> None:
    found = taken(config(part, changes))
    if found is not None:
        for value in found.model.values():
            assert type(value) in (bool, int, float, str)
        assert type(found.left_pad_source) is bool
        assert 0 <= found.label_smoothing < 1
        assert found.encoder_tag in ("", "src", "tgt")
        assert "/" not in found.lang_dict


@settings(max_examples=200, deadline=None)
@given(
    content=st.fixed_dictionaries(
        {}, optional={"cfg": anything, "args": anything, "optimizer_history": anything, "extra_state": anything}
    )
)
def test_any_content(content: dict[str, Any]) -> None:
    assert taken(content) is None


@settings(max_examples=100, deadline=None)
@given(history=anything)
def test_any_history(history: Any) -> None:
    found = taken({**config("task", {}), "optimizer_history": history})
    assert found is not None
    assert found.updates is None


def test_a_number_too_long_to_be_written() -> None:
    assert taken(config("model", {"encoder_layers": 10**5000})) is None


def test_updates_are_counted() -> None:
    history = [{"num_updates": 5}, {"num_updates": 7}]
    found = taken({**config("task", {}), "optimizer_history": history})
    assert found is not None
    assert found.updates == 7


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from(["en", "eng", "cat", "nob", "fr", "en_XX"])] * 2), min_size=1, max_size=5))
def test_any_pairs_make_groups_that_are_found_again(pairs: list[tuple[str, str]]) -> None:
    for found in (select(pairs), select(pairs, pairs=["-".join(pairs[-1])])):
        assert set(found) <= set(pairs)
        assert found
        assert select(pairs, direction_of(found, pairs)) == found
        groups = keyed(found)
        assert set(groups.values()) == set(found)
        assert all(re.fullmatch(r"[A-Za-z_]+(-[A-Za-z_]+)?", key) for key in groups)


def test_tags_from_a_table() -> None:
    for main, expected in {
        ("src", "tgt"): ("src", True),
        (None, "tgt"): ("", True),
        ("tgt", None): ("tgt", False),
    }.items():
        found = taken(config("task", {"langtoks": {"main": main}}))
        assert found is not None
        assert (found.encoder_tag, found.decoder_tag) == expected
    for main in (("src.mined", "tgt"), ("src",), "src", ("src", "src")):
        with pytest.raises(CheckpointError, match="langtoks"):
            trained(Checkpoint(Path("c.pt"), "", 1, {}, config("task", {"langtoks": {"main": main}}), False))
