"""The terms of the loss, what each weighs, and their gradients, against the obvious slow way."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from sensikit.backends.fairseq import compat
from tests.support import training_system

compat.load()

from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss  # noqa: E402

from sensikit.training import losses as objectives  # noqa: E402
from sensikit.training.losses import Term, term, weights  # noqa: E402

PAD = 1


TARGET = torch.tensor([0, 8, 3, 3, 5, 1])


def inputs_of(passes=2, positions=6, vocabulary=9, dtype=torch.float64):
    """States (K, N, 4) and a projection (V, 4) whose logits differ by some nats."""
    generator = torch.Generator().manual_seed(3)
    shapes = (passes, positions, 4), (vocabulary, 4)
    return [torch.randn(*shape, dtype=dtype, generator=generator).requires_grad_() for shape in shapes]


def slow_term(states, projection, target, smoothing, alpha):
    """The term as it is written in the papers, by autograd."""
    scores = functional.log_softmax(states @ projection.T, -1)
    losses = [label_smoothed_nll_loss(each, target, smoothing)[0] for each in scores]
    loss = sum(losses) / len(states)
    mean = scores.exp().mean(0)
    divergence = sum(
        functional.kl_div(mean.log(), each, log_target=True, reduction="sum")
        + functional.kl_div(each, mean.log(), log_target=True, reduction="sum")
        for each in scores
    ) / len(states)
    nll = sum(functional.nll_loss(each, target, reduction="sum") for each in scores) / len(states)
    return Term(loss + alpha * divergence, loss, nll, divergence)


@pytest.fixture(params=[1, 4, 1000], ids=["slices of one", "slices of four", "one slice"])
def slices(request, monkeypatch):
    starts = range(0, 6, request.param)
    monkeypatch.setattr(objectives, "_spans", lambda *_: [slice(start, start + request.param) for start in starts])


@pytest.mark.parametrize(("passes", "smoothing", "alpha"), [(1, 0.0, 0.0), (1, 0.1, 0.0), (2, 0.1, 5.0), (3, 0.2, 0.7)])
class TestTerm:
    def test_it_is_what_the_papers_write(self, slices, passes, smoothing, alpha):
        given = *inputs_of(passes), TARGET, smoothing, alpha
        fast, slow = term(*given), slow_term(*given)
        assert fast.total.item() == pytest.approx(slow.total.item(), rel=1e-12)
        assert fast.loss.item() == pytest.approx(slow.loss.item(), rel=1e-12)
        assert fast.nll.item() == pytest.approx(slow.nll.item(), rel=1e-12)
        assert fast.divergence.item() == pytest.approx(slow.divergence.item() if alpha else 0.0, rel=1e-9)
        with torch.no_grad():
            assert [each.item() for each in term(*given)] == pytest.approx([each.item() for each in fast], rel=1e-12)

    def test_so_are_its_gradients(self, slices, passes, smoothing, alpha):
        gradients = []
        for make in (term, slow_term):
            inputs = inputs_of(passes)
            (make(*inputs, TARGET, smoothing, alpha).total * 3).backward()
            gradients.append(torch.cat([each.grad.flatten() for each in inputs]))
        assert torch.allclose(*gradients, rtol=1e-10, atol=1e-14)

    def test_its_gradient_is_that_of_finite_differences(self, passes, smoothing, alpha):
        inputs = inputs_of(passes, 2, 4)
        assert torch.autograd.gradcheck(lambda *x: term(*x, torch.tensor([0, 2]), smoothing, alpha).total, inputs)


def test_half_precision_is_added_up_in_single():
    """What is rounded is the logits and their slopes, not the sums over positions and over the vocabulary."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [each.detach().bfloat16().to(dtype).requires_grad_() for each in inputs_of(2, 500, 40)]
        result = term(*inputs, torch.arange(500) % 40, 0.1, 5.0)
        result.total.backward()
        assert (result.total.dtype, inputs[1].grad.dtype) == (torch.float32, dtype)
        found.append((result.total.detach().view(1), *(each.grad.float() for each in inputs)))
    for exact, half in zip(*found, strict=True):
        assert (half - exact).norm() < 2**-7 * exact.norm()


def test_a_part_without_any_target_is_zero_and_has_a_gradient():
    states, projection = inputs_of(positions=0)
    found = term(states, projection, torch.zeros(0, dtype=torch.long), 0.1, 5.0)
    found.total.backward()
    assert found.total.item() == 0
    assert states.grad.shape == states.shape
    assert not projection.grad.any()


@pytest.mark.parametrize("on_gpu", [False, True])
def test_spans_cover_every_position_once(on_gpu):
    spans = list(objectives._spans(100_000, 2, 40_000, on_gpu))
    assert len(spans) > 10
    assert np.array_equal(np.concatenate([np.arange(100_000)[span] for span in spans]), np.arange(100_000))


COUNTS = {"translation": 600, "encoder": 150, "decoder": 150, "targets": 750}


class TestWeights:
    def test_each_term_is_divided_by_its_own_count(self):
        factors, size = weights(COUNTS, "own")
        assert {name: factors[name] / size for name in factors} == pytest.approx(
            {"translation": 1 / 600, "encoder": 1 / 150, "decoder": 1 / 150}
        )

    def test_translation_alone_has_fairseqs_own_factor(self):
        factors, size = weights({"translation": 600, "targets": 600}, "own")
        assert (factors["translation"], size) == (1, 600)

    def test_released_pools_them(self):
        factors, size = weights(COUNTS, "released")
        shares = {name: factors[name] * COUNTS[name] / size for name in factors}
        assert shares == pytest.approx({"translation": 0.8, "encoder": 0.2, "decoder": 0.2})

    def test_the_released_shares_with_as_many_source_tokens(self):
        tokens = {"translation": 1000, "encoder": 300, "decoder": 300, "targets": 1300}
        factors, size = weights(tokens, "released")
        shares = [round(factors[name] * tokens[name] / size, 2) for name in ("translation", "encoder", "decoder")]
        assert shares == [0.77, 0.23, 0.23]


def slow_losses(system, sample):
    """Each term's summed cross-entropy and its tokens, sentence by sentence, without padding or our forward."""
    sums = {name: torch.zeros(()) for name in objectives.TERMS}
    counts = dict.fromkeys(objectives.TERMS, 0)
    model = system.model
    for part in sample["parts"]:
        inputs = part["net_input"]
        for row, length in enumerate(inputs["src_lengths"].tolist()):
            encoded = model.encoder(inputs["src_tokens"][row : row + 1, :length], torch.tensor([length]))
            logits = {"encoder": model.decoder.output_layer(encoded["encoder_out"][0][:, 0])}
            if inputs["prev_output_tokens"] is not None:
                previous = inputs["prev_output_tokens"][row]
                previous = previous[: int(previous.ne(PAD).sum())][None]
                logits["decoder"] = model.decoder(previous, encoder_out=encoded)[0][0]
            for side, targets in part["targets"].items():
                name = "translation" if part["objective"] == "translation" else side
                target = targets[row, : len(logits[side])]
                scores = functional.log_softmax(logits[side], -1)
                smoothed, _ = label_smoothed_nll_loss(scores, target[:, None], 0.1, ignore_index=PAD)
                sums[name] = sums[name] + smoothed
                counts[name] += int(target.ne(PAD).sum())
    return sums, counts


def gradients_of(system, losses):
    found = {}
    for name, loss in losses.items():
        system.model.zero_grad()
        if loss.requires_grad:
            loss.backward(retain_graph=True)
        found[name] = training_system.gradient(system)
    return found


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("method", ["cd", "dae", "dae+mlm", "mass"])
def test_the_gradient_of_each_term_is_divided_by_its_own_tokens_over_the_whole_update(tiny_data, method, batches):
    few = "--dropout", "0", "--max-tokens", "60", "--tokens-per-update", str(60 * batches)
    system = training_system.build(tiny_data, method, *few)
    sample = system.updates()[0]
    assert len({tuple(part["tokens"].items()) for part in sample["parts"]}) > 1
    _, size, log = training_system.step(system, sample)
    ours = training_system.gradient(system, size)
    sums, counts = slow_losses(system, sample)
    gradients = gradients_of(system, sums)
    trained = [name for name in sums if counts[name]]
    assert set(trained) == {"translation", *system.task.predicted}
    expected = sum(gradients[name] / counts[name] for name in trained)
    assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-6)
    # and none of them is lost in the sum
    for name in trained:
        assert (gradients[name] / counts[name]).norm() > 100 * (ours - expected).norm()
        assert log[f"{name}_tokens"] == counts[name]
        assert log[f"{name}_loss"].item() == pytest.approx(sums[name].item(), rel=1e-5)


def test_released_weights_pool_the_terms(tiny_data):
    system = training_system.build(
        tiny_data,
        "cd",
        "--dropout",
        "0",
        "--max-tokens",
        "60",
        "--tokens-per-update",
        "60",
        "--loss-weights",
        "released",
    )
    sample = system.updates()[0]
    _, size, _ = training_system.step(system, sample)
    ours = training_system.gradient(system, size)
    sums, counts = slow_losses(system, sample)
    gradients = gradients_of(system, sums)
    assert size == counts["translation"] + counts["encoder"]
    assert torch.allclose(ours, sum(gradients.values()) / size, rtol=1e-3, atol=1e-6)


def test_regular_training_is_fairseqs_own(tiny_data):
    system = training_system.build(tiny_data, "regular", "--dropout", "0")
    from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion

    sample = system.updates()[0]
    _, size, log = training_system.step(system, sample)
    ours = training_system.gradient(system)
    (part,) = sample["parts"]
    stock = LabelSmoothedCrossEntropyCriterion(system.task, False, 0.1)
    whole = {"net_input": part["net_input"], "target": part["targets"]["decoder"], "ntokens": part["tokens"]["targets"]}
    system.model.zero_grad()
    with compat.quiet():
        loss, stock_size, _ = stock(system.model, whole)
    loss.backward()
    assert size == stock_size
    assert log["loss"].item() == pytest.approx(loss.item(), rel=1e-6)
    assert torch.allclose(ours, training_system.gradient(system), rtol=1e-4, atol=1e-4)


def test_x_is_added_with_alpha_per_token(tiny_data):
    gradients = {}
    for alpha in ("0", "1", "5"):
        system = training_system.build(tiny_data, "cd+id", "--dropout", "0.3", "--id-alpha", alpha)
        _, size, log = training_system.step(system, system.updates()[0])
        gradients[alpha] = training_system.gradient(system, size)
    assert torch.allclose(gradients["5"] - gradients["0"], 5 * (gradients["1"] - gradients["0"]), rtol=1e-2, atol=1e-5)
    assert (gradients["1"] - gradients["0"]).norm() > 0.01
    total = sum(
        (log[f"{name}_loss"].item() + 5 * log[f"{name}_x"].item()) / log[f"{name}_tokens"] for name in objectives.TERMS
    )
    assert log["loss"].item() / size == pytest.approx(total, rel=1e-5)


def test_rows_are_not_cut_to_the_shortest(tiny_data):
    # the released code ignored everything beyond the shortest row of a batch
    system = training_system.build(tiny_data, "dae", "--distill", "translation,decoder", "--mix", "tokens")
    for sample in system.updates()[:4]:
        _, _, log = training_system.step(system, sample)
        rows = [part["targets"]["decoder"].ne(PAD).sum(1) for part in sample["parts"] if part["objective"] == "dae"]
        assert log["decoder_tokens"] == sum(int(row.sum()) for row in rows)
    assert any(row.min() < row.max() for row in rows)


def test_mlm_with_intra_distillation_keeps_its_loss(tiny_data):
    # in the released code the loss of id_mlm was overwritten by another's
    system = training_system.build(tiny_data, "dae+mlm", "--denoise", "mlm", "--distill", "encoder", "--dropout", "0.3")
    _, _, log = training_system.step(system, system.updates()[0])
    assert log["encoder_loss"] > 0
    assert log["encoder_x"] > 0
    assert log["decoder_tokens"] == 0
    assert system.model.encoder.layers[0].fc1.weight.grad.abs().sum() > 0


def test_another_process_without_data_adds_nothing(tiny_data):
    system = training_system.build(tiny_data, "cd")
    _, size, _ = training_system.step(system, system.updates()[0], ignore=True)
    assert size == 0
    assert training_system.gradient(system).abs().max() == 0


def test_validation_is_the_translation_in_one_pass(tiny_data, monkeypatch):
    system = training_system.build(tiny_data, "cd+id", "--dropout", "0.3")
    passes, forward = [], system.model.forward
    monkeypatch.setattr(system.model, "forward", lambda **how: (passes.append(how["passes"]), forward(**how))[1])
    system.task.load_dataset("valid")
    data = system.task.dataset("valid")
    samples = [
        data.collater([data[part] for part in update]) for update in data.updates(1, (512, 512), 400, shuffle=False)
    ]
    system.model.eval()
    system.criterion.eval()
    with compat.quiet():
        losses = [system.criterion(system.model, sample) for sample in samples]
        again = [system.criterion(system.model, sample)[0].item() for sample in samples]
    assert sum(size for _, size, _ in losses) == sum(data.targets.sizes)
    assert [loss.item() for loss, _, _ in losses] == again
    assert all(log["translation_x"] == 0 and log["encoder_tokens"] == 0 for _, _, log in losses)
    assert set(passes) == {1}


def test_losses_are_in_nats(tiny_data):
    system = training_system.build(tiny_data, "regular")
    for parameter in system.model.parameters():
        torch.nn.init.zeros_(parameter)
    _, size, log = training_system.step(system, system.updates()[0])
    assert log["translation_nll"].item() / size == pytest.approx(math.log(len(system.task.source_dictionary)), rel=1e-5)


def test_half_precision_is_of_the_passes_alone(tiny_data):
    found = []
    for dtype in ("fp32", "bf16"):
        system = training_system.build(tiny_data, "cd+id", "--dropout", "0", "--dtype", dtype)
        _, _, log = training_system.step(system, system.updates()[0])
        found.append((log["loss"].item(), training_system.gradient(system)))
    assert {gradient.dtype for _, gradient in found} == {torch.float32}
    assert found[0][0] != found[1][0] == pytest.approx(found[0][0], rel=0.01)
    assert torch.cosine_similarity(found[0][1], found[1][1], dim=0) > 0.999
