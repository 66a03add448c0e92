from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import sentencepiece

from sensikit.errors import DataError, MissingDependencyError, OptionError
from sensikit.evaluation.metrics import TOKENIZERS, bleu_metric, evaluate, length_ratio
from sensikit.files import sha256

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
def test_bleu_its_interval_and_its_signature_are_those_of_sacrebleus_command_line(case: dict[str, Any]) -> None:
    found = evaluate(HYPOTHESES, REFERENCES, case["tokenizer"])
    assert found.bleu == pytest.approx(case["bleu"], abs=1e-9)
    assert found.bleu_low == pytest.approx(case["mean"] - case["half_width"], abs=1e-9)
    assert found.bleu_high == pytest.approx(case["mean"] + case["half_width"], abs=1e-9)
    assert without_version(found.bleu_signature) == without_version(case["signature"])


def test_chrf_is_chrf_plus_plus_of_sacrebleus_command_line() -> None:
    found = evaluate(HYPOTHESES, REFERENCES, "13a")
    assert found.chrf == pytest.approx(GOLDEN["chrf"]["score"], abs=1e-9)
    assert without_version(found.chrf_signature) == without_version(GOLDEN["chrf"]["signature"])
    assert "nw:2" in found.chrf_signature


def test_signature_names_tokenizer_resamples_seed_and_version() -> None:
    parts = evaluate(HYPOTHESES, REFERENCES, "13a", bootstrap=50).bleu_signature.split("|")
    assert {"tok:13a", "bs:50", "seed:12345", "nrefs:1", f"version:{sacrebleu.__version__}"} <= set(parts)


def test_signature_without_an_interval_does_not_claim_one_that_came_before() -> None:
    evaluate(HYPOTHESES, REFERENCES, "13a", bootstrap=50)
    found = evaluate(HYPOTHESES, REFERENCES, "13a", bootstrap=0)
    assert "bs:" not in found.bleu_signature
    assert "seed:" not in found.bleu_signature
    assert np.isnan([found.bleu_low, found.bleu_high]).all()
    assert found.bleu == evaluate(HYPOTHESES, REFERENCES, "13a").bleu


def test_interval_holds_the_score_and_is_the_same_again() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(50)]
    references = [" ".join(rng.choice(words, 12)) for _ in range(100)]
    hypotheses = [" ".join(w if rng.random() < 0.8 else "x" for w in line.split()) for line in references]
    first = evaluate(hypotheses, references, "none")
    assert first.bleu_low < first.bleu < first.bleu_high
    assert first.bleu_high - first.bleu_low < 20
    bleu_metric.cache_clear()
    assert evaluate(hypotheses, references, "none") == first


def test_interval_stays_within_what_bleu_can_be() -> None:
    references = [f"a{i} b{i} c{i} d{i} e{i}" for i in range(8)]
    one_right = evaluate([references[0], *["x y z u v"] * 7], references, "none")
    assert 0 <= one_right.bleu_low <= one_right.bleu_high
    one_wrong = evaluate([*references[:7], "x y z u v"], references, "none")
    assert one_wrong.bleu_high <= 100


def test_a_perfect_translation_scores_a_hundred() -> None:
    found = evaluate(REFERENCES, REFERENCES, "13a")
    assert found.bleu == pytest.approx(100, abs=1e-9)
    assert found.chrf == pytest.approx(100, abs=1e-9)


@pytest.mark.parametrize("tokenizer", ["13a", "none", "char"])
def test_empty_hypotheses_score_zero_and_do_not_crash(tokenizer: str) -> None:
    found = evaluate([""] * 3, REFERENCES[:3], tokenizer)
    assert (found.bleu, found.bleu_low, found.bleu_high, found.chrf) == (0, 0, 0, 0)


def test_scores_are_of_the_corpus_and_not_a_mean_of_sentences() -> None:
    assert evaluate(["a b c d e f", "x"], ["a b c d e f", "y"], "none").bleu == pytest.approx(
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


def test_length_ratio_by_hand() -> None:
    assert length_ratio(["a b c", "d"], ["a b", "c d"]) == 1.0
    assert length_ratio(["a a a a a a", ""], ["a b", "c"]) == 2.0
    assert length_ratio(["", ""], ["a", "b"]) == 0.0
    assert length_ratio(["a b"], [""]) == 2.0


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
    assert f"tok:flores101-{sha256(models[0])[:8]}" in found.bleu_signature.split("|")
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
    assert found.bleu == pytest.approx(float(theirs.stdout), abs=1e-9)


def test_another_spm_model_under_the_same_name_has_another_signature(store: Path, models: list[Path]) -> None:
    # sacreBLEU's own signature says flores101 for both
    signatures = set()
    for model in models:
        (store / MODEL).write_bytes(model.read_bytes())
        bleu_metric.cache_clear()
        signatures.add(evaluate(HYPOTHESES, REFERENCES, "spm").bleu_signature)
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
    assert f"tok:spm-{sha256(models[1])[:8]}" in found.bleu_signature.split("|")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(models[1]))
    hypotheses, references = (
        [" ".join(processor.encode(line, out_type=str)) for line in lines] for lines in (HYPOTHESES, REFERENCES)
    )
    assert found.bleu == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references], tokenize="none").score, abs=1e-9)
    assert found.bleu != evaluate(HYPOTHESES, REFERENCES, spm_model=str(models[0])).bleu


def test_spm_model_equals_the_same_model_as_sacrebleus_own(store: Path, models: list[Path]) -> None:
    (store / MODEL).write_bytes(models[0].read_bytes())
    own, given = evaluate(HYPOTHESES, REFERENCES, "spm"), evaluate(HYPOTHESES, REFERENCES, spm_model=str(models[0]))
    assert (own.bleu, own.bleu_low, own.bleu_high) == (given.bleu, given.bleu_low, given.bleu_high)


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
        assert evaluate(HYPOTHESES, REFERENCES, tokenizer, bootstrap=0).bleu > 0
    assert list(store.iterdir()) == []
