from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import sacrebleu
import sentencepiece

from sensikit.backends.base import Segments
from sensikit.errors import DataError, MissingDependencyError, NonFiniteError, OptionError
from sensikit.evaluation.metrics import (
    METRICS,
    TOKENIZERS,
    bits_per_byte,
    bleu_metric,
    bleu_score,
    chosen,
    chrf_score,
    evaluate,
    ids_of,
    loss_score,
    losses,
)
from sensikit.evaluation.resampling import identified
from sensikit.files import sha256
from sensikit.settings import Decoding
from tests.support import toy

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "quality.json").read_text(encoding="utf-8"))
HYPOTHESES, REFERENCES = GOLDEN["hypotheses"], GOLDEN["references"]
MODEL = "sacrebleu_tokenizer_spm.model"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    bleu_metric.cache_clear()
    yield
    bleu_metric.cache_clear()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two SentencePiece models of different sizes."""
    folder = tmp_path_factory.mktemp("spm")
    text = folder / "text"
    text.write_text("\n".join(REFERENCES * 5), encoding="utf-8")
    for size in (50, 65):
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=str(folder / f"m{size}"), vocab_size=size, minloglevel=2
        )
    return [folder / f"m{size}.model" for size in (50, 65)]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where sacreBLEU keeps its models, and no network."""

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr(import_module("sacrebleu.tokenizers.tokenizer_spm"), "SACREBLEU_DIR", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def without_version(signature: str) -> str:
    return signature.rsplit("|version:", 1)[0]


# the numbers


@pytest.mark.parametrize("case", GOLDEN["bleu"], ids=lambda case: case["tokenizer"])
def test_bleu_and_its_signature_are_those_of_sacrebleus_command_line_and_its_interval_is_near(
    case: dict[str, Any],
) -> None:
    found = evaluate(HYPOTHESES, REFERENCES, case["tokenizer"])["bleu"]
    assert found.value == pytest.approx(case["bleu"], abs=1e-9)
    assert (found.high - found.low) / 2 == pytest.approx(case["half_width"], rel=0.25)  # of very few sentences
    # the draws are not sacreBLEU's, so the signature does not name them
    *theirs, version = (part for part in case["signature"].split("|") if not part.startswith(("bs:", "seed:")))
    assert without_version(found.signature) == without_version("|".join([*theirs, version, "ci:poisson/10000"]))


def test_chrf_is_chrf_plus_plus_of_sacrebleus_command_line() -> None:
    found = evaluate(HYPOTHESES, REFERENCES, "13a", bootstrap=0)["chrf"]
    assert found.value == pytest.approx(GOLDEN["chrf"]["score"], abs=1e-9)
    assert without_version(found.signature) == without_version(GOLDEN["chrf"]["signature"])
    assert "nw:2" in found.signature


def test_signature_names_tokenizer_draws_and_version() -> None:
    for name, choice in (("bleu", "tok:13a"), ("chrf", "nw:2")):
        parts = evaluate(HYPOTHESES, REFERENCES, "13a", bootstrap=50)[name].signature.split("|")
        assert {choice, "ci:poisson/50", "nrefs:1", f"version:{sacrebleu.__version__}"} <= set(parts)


def test_signature_of_the_loss_tells_its_kind_its_unit_and_draws() -> None:
    assert METRICS["loss"].signature(50).startswith("loss|kind:nll|unit:nats/token|ci:poisson/50|v:")
    assert "ci:" not in METRICS["loss"].signature(0)


def test_signature_without_an_interval_does_not_claim_one_that_came_before() -> None:
    evaluate(HYPOTHESES, REFERENCES, "13a", bootstrap=50)
    for name, found in evaluate(HYPOTHESES, REFERENCES, "13a", bootstrap=0).items():
        assert "ci:" not in found.signature
        assert np.isnan([found.low, found.high]).all()
        assert found.value == evaluate(HYPOTHESES, REFERENCES, "13a")[name].value


def test_interval_holds_the_score_and_is_the_same_again() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(50)]
    references = [" ".join(rng.choice(words, 12)) for _ in range(100)]
    hypotheses = [" ".join(w if rng.random() < 0.8 else "x" for w in line.split()) for line in references]
    first = evaluate(hypotheses, references, "none")
    for found in first.values():
        assert found.low < found.value < found.high
        assert found.high - found.low < 20
    bleu_metric.cache_clear()
    assert evaluate(hypotheses, references, "none") == first


def test_interval_stays_within_what_bleu_can_be() -> None:
    references = [f"a{i} b{i} c{i} d{i} e{i}" for i in range(8)]
    one_right = evaluate([references[0], *["x y z u v"] * 7], references, "none")["bleu"]
    assert 0 == one_right.low <= one_right.high
    one_wrong = evaluate([*references[:7], "x y z u v"], references, "none")["bleu"]
    assert one_wrong.high == 100


def test_a_perfect_translation_scores_a_hundred() -> None:
    found = evaluate(REFERENCES, REFERENCES, "13a")
    assert [score.value for score in found.values()] == pytest.approx([100, 100], abs=1e-9)


@pytest.mark.parametrize("tokenizer", ["13a", "none", "char"])
def test_empty_hypotheses_score_zero_and_do_not_crash(tokenizer: str) -> None:
    for found in evaluate([""] * 3, REFERENCES[:3], tokenizer).values():
        assert found[:3] == (0, 0, 0)


def test_scores_are_of_the_corpus_and_not_a_mean_of_sentences() -> None:
    assert evaluate(["a b c d e f", "x"], ["a b c d e f", "y"], "none")["bleu"].value == pytest.approx(
        sacrebleu.corpus_bleu(["a b c d e f", "x"], [["a b c d e f", "y"]], tokenize="none").score, abs=1e-12
    )


@pytest.mark.parametrize("count", [2, 4])
def test_a_sentence_too_few_or_too_many_is_refused_and_not_cut_off(count: int) -> None:
    # sacreBLEU zips hypotheses and references, and says nothing of those that are left over
    with pytest.raises(DataError, match=f"{count} translations of 3 sentences"):
        evaluate(REFERENCES[:count], REFERENCES[:3], "13a")


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(DataError, match="no sentence"):
        evaluate([], [], "13a")


# scores of sums


def bleu_sums(rng: np.random.Generator) -> list[int]:
    """Counts as they can be, with n-grams that are missing."""
    total = np.sort(rng.integers(0, 12, 4))[::-1]
    correct = [int(rng.integers(0, most + 1)) for most in total]
    return [int(total[0]), int(rng.integers(0, 15)), *correct, *map(int, total)]


def chrf_sums(rng: np.random.Generator) -> list[int]:
    pairs = rng.integers(0, 6, (8, 2))
    return [int(n) for ours, theirs in pairs for n in (ours, theirs, rng.integers(0, min(ours, theirs) + 1))]


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_scores_of_sums_are_those_of_sacrebleu(name: str) -> None:
    rng, metric = np.random.default_rng(0), METRICS[name]
    theirs, drawn = metric.made("none", None), {"bleu": bleu_sums, "chrf": chrf_sums}[name]  # type: ignore[misc]
    rows = [drawn(rng) for _ in range(2000)]
    expected = [theirs._compute_score_from_stats(list(row)).score for row in rows]
    assert 0.2 < np.mean(np.array(expected) > 0) < 1
    np.testing.assert_allclose(metric.score(np.array(rows, dtype=np.float64)), expected, rtol=0, atol=1e-9)


def test_scores_are_taken_over_all_leading_axes() -> None:
    rng = np.random.default_rng(1)
    for score, width in ((bleu_score, 10), (chrf_score, 24), (loss_score, 5), (bits_per_byte, 5)):
        sums = rng.integers(1, 9, (3, 5, width)).astype(np.float64)
        assert score(sums).shape == (3, 5)
        assert score(sums)[2, 3] == pytest.approx(float(score(sums[2, 3])), abs=1e-12)


def test_the_loss_is_the_sum_of_its_terms_each_over_its_own_tokens() -> None:
    sums = np.array([[6.0, 2, 0, 0, 7], [2.0, 2, 5, 10, 9]])
    assert loss_score(sums).tolist() == [3.0, 1.5]
    assert float(loss_score(sums.sum(0))) == 8 / 4 + 5 / 10


def test_bits_per_byte_are_of_the_bytes_of_the_text_and_undefined_where_they_are_not_known() -> None:
    nats = math.log(2) * np.array([6.0, 10])
    assert float(bits_per_byte(np.array([nats[0], 2, 3]))) == pytest.approx(2)
    assert float(bits_per_byte(np.array([[nats[0], 2, 3], [nats[1], 2, 5]]).sum(0))) == pytest.approx(16 / 8)
    assert np.isnan(bits_per_byte(np.array([nats[0], 2, 0])))


def test_identities_are_of_all_that_is_translated_and_of_what_has_a_loss() -> None:
    class Some(toy.ToyBackend):
        def segments(self, language: str, split: str = "train") -> Any:
            return Segments(["a", "b", "c", "d"], np.array([0, 2, 3]), "line")

    for count, decodes, expected in ((4, True, "abcd"), (2, True, "ab"), (3, False, "acd"), (2, False, "ac")):
        ids, known_by = ids_of(Some(), "cat", "test", count, decodes)
        assert ids.tolist() == identified(list(expected)).tolist()
        assert known_by == "line"


@pytest.mark.parametrize("name", ["mt", "denoise"])
def test_losses_are_those_of_each_sentence_by_itself_in_the_order_of_the_split(name: str) -> None:
    model = toy.backend()
    task = model.task(name)
    found = losses(task, "cat", "test", Decoding(max_tokens=40))
    assert found.shape == (24, {"mt": 3, "denoise": 5}[name])
    for row, (*sums, size) in enumerate(found):
        nats, tokens = task.loss(task.collate([("cat", row)], "test"))
        terms = np.stack([nats.detach().double().reshape(-1).numpy(), np.atleast_1d(tokens)], axis=1)
        assert sums == pytest.approx(terms.ravel().tolist(), rel=1e-5)
        assert size == 0  # the toy has no text
    assert losses(task, "cat", "test", Decoding(max_sentences=5)) == pytest.approx(found[:5], rel=1e-5)


def test_a_micro_batch_of_losses_has_no_more_tokens_than_are_allowed() -> None:
    class Noting(toy.ToyBackend):
        padded: ClassVar[list[int]] = []

        def collate(self, items: Any, split: str = "train") -> Any:
            found = super().collate(items, split)
            self.padded.append(max(found.source.numel(), found.target.numel()))
            return found

    losses(Noting(), "cat", "test", Decoding(max_tokens=60))
    assert max(Noting.padded) <= 60
    assert 2 < len(Noting.padded) < 24


def test_losses_that_cannot_be_scored_are_refused() -> None:
    class Infinite(toy.ToyBackend):
        def losses(self, items: Any, split: str, kind: str = "nll") -> np.ndarray:
            return super().losses(items, split, kind) + np.inf

    with pytest.raises(DataError, match=r"^cat: there is no sentence to score"):
        losses(
            toy.ToyBackend(groups={"cat": replace(toy.LANGUAGES["cat"], sizes={"test": 0})}), "cat", "test", Decoding()
        )
    with pytest.raises(NonFiniteError, match=r"^cat: its loss is not finite"):
        losses(Infinite(), "cat", "test", Decoding())


@pytest.mark.parametrize("names", [[], ["bleu", "ter"]])
def test_a_metric_that_does_not_exist_is_refused_with_the_known_ones(names: list[str]) -> None:
    with pytest.raises(OptionError, match=r"^--metric: (nothing|ter) is not a metric; choose among bleu, chrf, loss"):
        chosen(names)


# tokenizers


@pytest.mark.parametrize("tokenizer", ["moses", "SPM", "13A"])
def test_an_unknown_tokenizer_is_refused_with_the_known_ones(tokenizer: str) -> None:
    with pytest.raises(OptionError, match=r"--tokenizer: .* is unknown; choose among spm, flores101") as caught:
        bleu_metric(tokenizer)
    assert all(name in str(caught.value) for name in TOKENIZERS)


@pytest.mark.parametrize("tokenizer", ["spm", "flores101"])
def test_spm_with_a_model_where_sacrebleu_keeps_them_equals_its_command_line(
    tokenizer: str, store: Path, models: list[Path], tmp_path: Path
) -> None:
    (store / MODEL).write_bytes(models[0].read_bytes())
    found = evaluate(HYPOTHESES, REFERENCES, tokenizer, bootstrap=0)
    assert f"tok:flores101-{sha256(models[0])[:8]}" in found["bleu"].signature.split("|")
    for name, lines in (("refs", REFERENCES), ("hyps", HYPOTHESES)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = "import sacrebleu.sacrebleu as s; s.main()"
    arguments = ["refs", "-i", "hyps", "-m", "bleu", "-tok", "flores101", "-w", "12", "-b"]
    theirs = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        cwd=tmp_path,
        env={**os.environ, "SACREBLEU": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found["bleu"].value == pytest.approx(float(theirs.stdout), abs=1e-9)


def test_another_spm_model_under_the_same_name_has_another_signature(store: Path, models: list[Path]) -> None:
    # sacreBLEU's own signature says flores101 for both
    signatures = set()
    for model in models:
        (store / MODEL).write_bytes(model.read_bytes())
        bleu_metric.cache_clear()
        signatures.add(evaluate(HYPOTHESES, REFERENCES, "spm")["bleu"].signature)
    assert len(signatures) == 2


def test_spm_offline_without_a_model_says_what_to_do_and_leaves_nothing_behind(store: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"--tokenizer spm: .*--spm-model FILE.*--tokenizer 13a") as caught:
        bleu_metric("spm")
    assert "\n" not in str(caught.value)
    assert not (store / MODEL).exists()


def test_a_download_that_breaks_off_leaves_no_model_behind(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __enter__(self) -> Broken:
            return self

        def __exit__(self, *_: object) -> None: ...

        def read(self) -> bytes:
            raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Broken())
    with pytest.raises(MissingDependencyError, match="--spm-model"):
        bleu_metric("spm")
    assert not (store / MODEL).exists(), "sacreBLEU would take it for the model next time"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_download_leaves_no_model_behind(
    store: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    class Interrupted:
        def __enter__(self) -> Interrupted:
            return self

        def __exit__(self, *_: object) -> None: ...

        def read(self) -> bytes:
            raise error

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Interrupted())
    with pytest.raises((error, MissingDependencyError)):
        bleu_metric("spm")
    assert not (store / MODEL).exists()


def test_a_certificate_that_is_refused_is_one_line_and_not_an_exit_of_sacrebleus(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl

    def refuse(*_: object, **__: object) -> None:
        raise ssl.SSLCertVerificationError("self-signed certificate")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(MissingDependencyError, match="--spm-model"):
        bleu_metric("spm")


@pytest.mark.parametrize("kept", [0, 1000])
def test_a_truncated_model_of_sacrebleus_is_one_line_that_names_it(store: Path, models: list[Path], kept: int) -> None:
    (store / MODEL).write_bytes(models[0].read_bytes()[:kept])
    with pytest.raises(MissingDependencyError, match="damaged") as caught:
        bleu_metric("spm")
    assert "\n" not in str(caught.value)
    assert str(store / MODEL) in str(caught.value)
    assert (store / MODEL).stat().st_size == kept, "what was there before is the user's"


def test_spm_model_is_used_and_its_hash_is_in_the_signature(store: Path, models: list[Path]) -> None:
    found = evaluate(HYPOTHESES, REFERENCES, spm_model=str(models[1]))
    assert f"tok:spm-{sha256(models[1])[:8]}" in found["bleu"].signature.split("|")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(models[1]))
    hypotheses, references = (
        [" ".join(processor.encode(line, out_type=str)) for line in lines] for lines in (HYPOTHESES, REFERENCES)
    )
    assert found["bleu"].value == pytest.approx(
        sacrebleu.corpus_bleu(hypotheses, [references], tokenize="none").score, abs=1e-9
    )
    assert found["bleu"].value != evaluate(HYPOTHESES, REFERENCES, spm_model=str(models[0]))["bleu"].value


def test_spm_model_equals_the_same_model_as_sacrebleus_own(store: Path, models: list[Path]) -> None:
    (store / MODEL).write_bytes(models[0].read_bytes())
    own, given = evaluate(HYPOTHESES, REFERENCES, "spm"), evaluate(HYPOTHESES, REFERENCES, spm_model=str(models[0]))
    assert own["bleu"][:3] == given["bleu"][:3]


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_spm_model_that_is_none_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "given.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OptionError, match=r"--spm-model .*given\.model: (does not exist|is not a SentencePiece model)"):
        bleu_metric(spm_model=str(path))


def test_spm_model_that_is_truncated_is_one_line(tmp_path: Path, models: list[Path]) -> None:
    path = tmp_path / "given.model"
    path.write_bytes(models[0].read_bytes()[:500])
    with pytest.raises(OptionError, match="is not a SentencePiece model") as caught:
        bleu_metric(spm_model=str(path))
    assert "\n" not in str(caught.value)


def test_choosing_a_tokenizer_without_a_model_needs_no_network(store: Path) -> None:
    for tokenizer in ("13a", "intl", "char", "zh", "none"):
        assert evaluate(HYPOTHESES, REFERENCES, tokenizer, bootstrap=0)["bleu"].value > 0
    assert list(store.iterdir()) == []
