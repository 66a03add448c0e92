"""The model's K passes, its two projections, and what each option of intra-distillation does."""

import pytest
import torch
from torch.nn import functional

from sensikit.backends.fairseq import compat
from sensikit.training.losses import x_divergence
from tests.support import training_system


def logits(system, part, passes=2, **how):
    """The logits of a part by side, (K, N, V)."""
    torch.manual_seed(0)
    scored = {side: (target.ne(1), functional.linear) for side, target in part["targets"].items()}
    with compat.quiet():
        return system.model(**part["net_input"], scored=scored, passes=passes, **how)


def divergence(scores):
    return x_divergence(torch.log_softmax(scores.double(), -1)).sum().item()


def part_of(system, objective):
    return next(part for sample in system.updates() for part in sample["parts"] if part["objective"] == objective)


@pytest.fixture(scope="module")
def encoder_dropout(tiny_data):
    """A system with dropout in the encoder alone."""
    system = training_system.build(tiny_data, "cd+id", "--dropout", "0.3")
    for name, module in system.model.named_modules():
        if hasattr(module, "p") and name.startswith("decoder"):
            module.p = 0.0
    return system


@pytest.fixture(scope="module")
def no_dropout(tiny_data):
    return training_system.build(tiny_data, "cd+id", "--dropout", "0")


class TestPasses:
    def test_dropout_in_the_encoder_alone_makes_passes_differ(self, encoder_dropout):
        # the released decoder read the first pass of the encoder in both: 0.0
        system = encoder_dropout
        system.model.train()
        for objective in ("translation", "cd"):
            scores = logits(system, part_of(system, objective))
            assert divergence(scores["decoder"]) > 1e-3

    def test_shared_encoder_is_the_released_code(self, encoder_dropout):
        system = encoder_dropout
        system.model.train()
        scores = logits(system, part_of(system, "translation"), shared_encoder=True)
        assert divergence(scores["decoder"]) < 1e-12
        both = logits(system, part_of(system, "cd"), shared_encoder=True)
        assert divergence(both["decoder"]) < 1e-12
        assert divergence(both["encoder"]) > 1e-3

    def test_without_dropout_passes_are_equal(self, no_dropout):
        no_dropout.model.train()
        scores = logits(no_dropout, part_of(no_dropout, "cd"), passes=3)
        assert scores["encoder"].shape[0] == scores["decoder"].shape[0] == 3
        assert divergence(scores["decoder"]) < 1e-9

    def test_they_are_the_passes_of_fairseqs_own_transformer(self, no_dropout):
        system, part = no_dropout, part_of(no_dropout, "translation")
        system.model.train()
        scores = logits(system, part)["decoder"]
        with compat.quiet():
            whole = system.model(**part["net_input"])[0]
        expected = whole[part["targets"]["decoder"].ne(1)]
        assert torch.allclose(scores, expected.expand_as(scores), rtol=1e-4, atol=1e-5)

    def test_encoder_scores_are_encoder_states_through_the_decoders_projection(self, no_dropout):
        system, part = no_dropout, part_of(no_dropout, "cd")
        scores = logits(system, part)["encoder"]
        with compat.quiet():
            states = system.model.encoder(part["net_input"]["src_tokens"], part["net_input"]["src_lengths"])
        expected = (states["encoder_out"][0] @ system.model.decoder.embed_tokens.weight.T).transpose(0, 1)
        expected = expected[part["targets"]["encoder"].ne(1)]
        assert torch.allclose(scores, expected.expand_as(scores), rtol=1e-4, atol=1e-5)

    def test_each_pass_has_its_own_dropout(self, encoder_dropout):
        encoder_dropout.model.train()
        scores = logits(encoder_dropout, part_of(encoder_dropout, "translation"), passes=3)["decoder"]
        for one, other in ((0, 1), (1, 2), (0, 2)):
            assert not torch.allclose(scores[one], scores[other], atol=1e-3)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("regular", {"translation": 1}),
        ("id", {"translation": 3}),
        ("table4-4", {"translation": 1, "dae": 3}),
        ("table4-7", {"translation": 1, "cd": 3}),
        ("cd+id", {"translation": 3, "cd": 3}),
    ],
)
def test_only_what_is_distilled_passes_k_times(tiny_data, method, expected):
    system = training_system.build(tiny_data, method, "--id-k", "3", "--dropout", "0.3")
    found, encode = set(), system.model.encoder.forward
    for part in system.updates()[0]["parts"]:
        calls = []
        system.model.encoder.forward = lambda *how, calls=calls: (calls.append(0), encode(*how))[1]
        training_system.step(system, {"parts": [part]})
        found.add((part["objective"], len(calls)))
    assert found == set(expected.items())


class TestProjection:
    def test_shared_by_default(self, no_dropout):
        assert no_dropout.model.encoder_projection is None
        assert not any("projection" in name for name, _ in no_dropout.model.named_parameters())

    def test_separate_is_the_encoders_own(self, tiny_data):
        system = training_system.build(tiny_data, "cd", "--separate-projection", "--dropout", "0")
        own = system.model.encoder_projection.weight
        assert own.shape == system.model.decoder.embed_tokens.weight.shape
        training_system.step(system, system.updates()[0])
        assert own.grad.abs().sum() > 0
        part = part_of(system, "cd")
        before = logits(system, part)
        with torch.no_grad():
            own.zero_()
        after = logits(system, part)
        assert after["encoder"].abs().max() == 0
        assert torch.equal(before["decoder"], after["decoder"])


def loss_of(tiny_data, *flags, method="cd+id", update=3):
    system = training_system.build(tiny_data, method, "--dropout", "0.3", *flags)
    _, size, log = training_system.step(system, system.updates()[0], update)
    return training_system.gradient(system, size), log, system


@pytest.fixture(scope="module")
def usual(tiny_data):
    return loss_of(tiny_data)


@pytest.mark.parametrize(
    "flags",
    [
        ("--id-k", "3"),
        ("--id-alpha", "2"),
        ("--id-schedule", "5,10"),
        ("--id-passes", "shared-encoder"),
        ("--id-weights", "halved"),
        ("--loss-weights", "released"),
        ("--label-smoothing", "0"),
        ("--distill", "translation"),
        ("--distill", "encoder"),
        ("--distill", "decoder"),
        ("--mask-ratio", "0.6"),
        ("--mono-temperature", "1"),
        ("--mono-share", "0.25"),
        ("--mix", "tokens", "--mono-share", "0.7"),
        ("--tokens-per-update", "800"),
        ("--separate-projection",),
        ("--seed", "2"),
    ],
)
def test_no_flag_is_dead(tiny_data, usual, flags):
    gradient, _, _ = loss_of(tiny_data, *flags)
    if len(gradient) == len(usual[0]):
        assert not torch.allclose(gradient, usual[0], rtol=1e-2, atol=1e-4)
    else:
        assert flags == ("--separate-projection",)


def test_halved_gives_encoder_and_decoder_half_of_alpha_and_translation_all_of_it(tiny_data):
    _, log, _ = loss_of(tiny_data, "--id-weights", "halved")
    expected = {"translation": 5.0, "encoder": 2.5, "decoder": 2.5}
    total = sum(
        (log[f"{name}_loss"].item() + alpha * log[f"{name}_x"].item()) / log[f"{name}_tokens"]
        for name, alpha in expected.items()
    )
    assert log["loss"].item() / log["sample_size"] == pytest.approx(total, rel=1e-5)


def test_halved_leaves_dae_its_alpha(tiny_data):
    _, log, _ = loss_of(tiny_data, "--id-weights", "halved", method="table4-4")
    total = (log["decoder_loss"].item() + 5 * log["decoder_x"].item()) / log["decoder_tokens"]
    total += log["translation_loss"].item() / log["translation_tokens"]
    assert log["loss"].item() / log["sample_size"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("alone", ["translation", "encoder", "decoder"])
def test_each_term_has_its_own_switch(tiny_data, alone):
    _, log, _ = loss_of(tiny_data, "--distill", alone)
    assert {name for name in ("translation", "encoder", "decoder") if log[f"{name}_x"]} == {alone}


@pytest.mark.parametrize("row", range(1, 9))
def test_the_rows_of_table_4(tiny_data, row):
    _, log, _ = loss_of(tiny_data, method=f"table4-{row}")
    trained = {name for name in ("translation", "encoder", "decoder") if log[f"{name}_tokens"]}
    distilled = {name for name in ("translation", "encoder", "decoder") if log[f"{name}_x"]}
    assert trained == {"translation"} | {
        1: set(), 2: set(), 3: {"decoder"}, 4: {"decoder"}, 5: {"decoder"},
        6: {"encoder", "decoder"}, 7: {"encoder", "decoder"}, 8: {"encoder", "decoder"},
    }[row]  # fmt: skip
    assert distilled == {
        1: set(), 2: {"translation"}, 3: set(), 4: {"decoder"}, 5: {"translation", "decoder"},
        6: set(), 7: {"encoder", "decoder"}, 8: {"translation", "encoder", "decoder"},
    }[row]  # fmt: skip
    # rows 3 to 5 are DAE: its decoder says every token, not the masked ones alone
    tokens = log["decoder_tokens"] / log["source_tokens"]
    assert row not in (3, 4, 5) or tokens > 0.4
    assert row not in (6, 7, 8) or tokens < 0.25
