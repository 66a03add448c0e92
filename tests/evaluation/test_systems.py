"""Several systems decoded, scored and tested: what is written, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sensikit.backends.base import Provenance
from sensikit.errors import DataError, OptionError, RunError, SensikitError
from sensikit.evaluation.metrics import evaluate, losses
from sensikit.evaluation.systems import evaluate_systems
from sensikit.settings import Decoding, EvaluationSettings
from tests.support import toy
from tests.support.watched import Translating, snapshot, translating

SETTINGS = EvaluationSettings(tokenizer="none", bootstrap=40)
CODES = list(toy.LANGUAGES)


def untrained(seed: int = 5) -> Translating:
    return Translating(seed=seed)


def opened(*backends: Any) -> dict[str, Callable[[], Any]]:
    return {name: (lambda found=found: found) for name, found in zip(("one", "two", "three"), backends, strict=False)}


def prepared(backend: Translating) -> Translating:
    backend.calls, backend.before = [], lambda _: None
    return backend


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of two systems that nothing disturbed."""
    path = tmp_path_factory.mktemp("straight") / "evaluation"
    systems = opened(translating(), prepared(untrained()))
    evaluate_systems(systems, path, SETTINGS, command="sensikit evaluate")
    return path


def refused(kind: type[SensikitError], where: str, *arguments: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        evaluate_systems(*arguments, **{"settings": SETTINGS, **options})
    text = str(caught.value)
    assert text.startswith(where), text
    assert "\n" not in text
    return text


# what is written


def test_scores_are_those_of_evaluate_on_what_each_system_translates(straight: Path) -> None:
    table = pd.read_csv(straight / "evaluation.csv")
    assert len(table) == 2 * 4 * 2
    for label, backend in (("one", toy.backend()), ("two", untrained())):
        for code in CODES:
            found = toy.ToyBackend.translate(backend, code, "test", Decoding())
            assert (straight / f"hypotheses/{label}.{code}.txt").read_text().splitlines() == found.hypotheses
            assert (straight / f"references/{code}.txt").read_text().splitlines() == found.references
            quality = evaluate(found.hypotheses, found.references, "none", bootstrap=40)
            rows = table[(table["system"] == label) & (table["group"] == code)].set_index("metric")
            for name, score in quality.items():
                found = rows.loc[name, ["value", "value_low", "value_high", "metric_signature"]]
                assert tuple(found) == score
            assert set(rows["tier"]) == {toy.LANGUAGES[code].tier}
            assert set(rows["sentences"]) == {24}


def test_a_tier_is_the_mean_of_its_languages_and_all_of_all(straight: Path) -> None:
    scores, tiers = pd.read_csv(straight / "evaluation.csv"), pd.read_csv(straight / "tiers.csv")
    assert list(dict.fromkeys(tiers["tier"])) == ["High", "Low", "Very Low", "All"]
    assert len(tiers) == 2 * 4 * 2
    for _, row in tiers.iterrows():
        of = scores[(scores["system"] == row["system"]) & (scores["metric"] == row["metric"])]
        of = of if row["tier"] == "All" else of[of["tier"] == row["tier"]]
        assert row["value"] == pytest.approx(of["value"].mean(), abs=1e-9)
        assert row["groups"] == len(of) == {"High": 2, "Low": 1, "Very Low": 1, "All": 4}[row["tier"]]
        if len(of) == 1:
            assert row["value_low"] == of["value_low"].iloc[0]
        elif row["metric"] == "chrf":  # languages are independent: their mean is surer than they are
            assert row["value_high"] - row["value_low"] < (of["value_high"] - of["value_low"]).mean()


def test_differences_are_of_the_same_scores_and_against_the_baseline(straight: Path) -> None:
    tests = pd.read_csv(straight / "significance.csv", keep_default_na=False)
    assert set(tests["system_a"]) == {"one"}
    assert set(tests["system_b"]) == {"two"}
    assert len(tests) == (4 + 4) * 2
    assert ((tests["group"] == "") != (tests["tier"] == "")).all()
    tiers = pd.read_csv(straight / "tiers.csv").set_index(["system", "tier", "metric"])["value"]
    scores = pd.read_csv(straight / "evaluation.csv").set_index(["system", "group", "metric"])["value"]
    for _, row in tests.iterrows():
        known, name = (tiers, row["tier"]) if row["tier"] else (scores, row["group"])
        expected = known["two", name, row["metric"]] - known["one", name, row["metric"]]
        assert row["difference"] == pytest.approx(expected, abs=1e-9)
        assert row["difference_low"] <= row["difference_high"] < 0
        assert row["p"] == pytest.approx(1 / 41)


def test_columns_are_those_that_others_read(straight: Path) -> None:
    assert list(pd.read_csv(straight / "evaluation.csv")) == [
        "system", "direction", "group", "tier", "metric", "value", "value_low", "value_high", "length_ratio",
        "brevity_penalty", "sentences", "seeds", "metric_signature",
    ]  # fmt: skip
    assert list(pd.read_csv(straight / "tiers.csv")) == [
        "system", "direction", "tier", "metric", "value", "value_low", "value_high", "length_ratio", "brevity_penalty",
        "groups", "segments", "seeds",
    ]  # fmt: skip
    assert list(pd.read_csv(straight / "significance.csv")) == [
        "system_a", "system_b", "direction", "group", "tier", "metric", "difference", "difference_low",
        "difference_high", "p", "p_holm", "without_low", "without_high", "segments", "seeds_a", "seeds_b",
    ]  # fmt: skip


def test_manifest_tells_of_what_and_how(straight: Path) -> None:
    manifest = json.loads((straight / "manifest.json").read_text("utf-8"))
    origin = toy.backend().provenance
    assert (manifest["format"], manifest["kind"], manifest["direction"]) == (3, "evaluation", "xxx-eng")
    assert manifest["command"] == "sensikit evaluate"
    assert manifest["data"] == {"path": origin.data, "sha256": origin.data_sha256}
    assert manifest["systems"]["one"]["sha256"] == origin.checkpoint_sha256
    assert manifest["systems"]["two"]["sha256"] == untrained().provenance.checkpoint_sha256
    assert manifest["groups"]["nso"] == {
        "source": "nso", "target": "eng", "name": "Northern Sotho", "family": "Bantu", "tier": "Very Low",
        "sizes": {"train": 150, "valid": 30, "test": 24}, "mono": None,
    }  # fmt: skip
    assert manifest["signature"].startswith(
        "E|task:mt|dir:xxx-eng|split:test|beam:5|lenpen:1|maxlen:1.2x+10/4096|sents:all|"
    )
    assert f"|refs:text|seg:eng|data:{origin.data_sha256[:8]}|" in manifest["signature"]
    for name, noted in manifest["files"].items():
        assert noted["sha256"] == hashlib.sha256((straight / name).read_bytes()).hexdigest()
    assert len(manifest["files"]) == 2 * 4 + 4 + 4


def test_what_the_checkpoint_says_of_its_training_is_in_the_manifest(tmp_path: Path) -> None:
    backend = translating()
    backend.training = {"updates": 7, "method": "cd"}
    found = evaluate_systems(opened(backend), tmp_path / "e", SETTINGS)
    assert {"updates": 7, "method": "cd"}.items() <= found.manifest["systems"]["one"].items()


def test_one_system_alone_is_tested_against_nothing(tmp_path: Path) -> None:
    found = evaluate_systems(opened(translating()), tmp_path / "e", SETTINGS)
    assert set(found.tables) == {"evaluation.csv", "tiers.csv"}
    assert not (tmp_path / "e" / "significance.csv").exists()


def test_languages_settings_and_baseline_are_as_asked(tmp_path: Path) -> None:
    one, two = translating(), prepared(untrained())
    decoding = Decoding(beam=2, max_sentences=5)
    settings = replace(SETTINGS, split="valid", decoding=decoding)
    asked = {"groups": ["nso", "cat"], "baseline": "two"}
    found = evaluate_systems(opened(one, two), tmp_path / "e", settings, **asked)
    assert one.calls == two.calls == [("cat", "valid", decoding), ("nso", "valid", decoding)]
    assert set(found.tables["evaluation.csv"]["sentences"]) == {5}
    assert list(dict.fromkeys(found.tables["tiers.csv"]["tier"])) == ["High", "Very Low", "All"]
    assert set(found.tables["significance.csv"]["system_a"]) == {"two"}
    assert (found.tables["significance.csv"]["difference"] > 0).all()
    assert "split:valid|beam:2|" in found.manifest["signature"]


def test_truncated_sources_are_told_of(tmp_path: Path) -> None:
    class Truncating(Translating):
        def translate(self, language: str, *arguments: Any) -> Any:
            return replace(super().translate(language, *arguments), truncated=3 * (language == "fur"))

    backend = translating()
    backend.__class__ = Truncating
    found = evaluate_systems(opened(backend), tmp_path / "e", SETTINGS)
    assert found.manifest["notes"] == ["one, fur: 3 sources longer than the model takes, translated in part"]


# resuming


def test_an_evaluation_that_broke_off_goes_on_where_it_was_and_ends_with_the_same_bytes(
    straight: Path, tmp_path: Path
) -> None:
    def breaks(call: int) -> None:
        if call == 2:
            raise KeyboardInterrupt

    one, two = translating(), prepared(untrained())
    two.before = breaks
    with pytest.raises(KeyboardInterrupt):
        evaluate_systems(opened(one, two), tmp_path / "e", SETTINGS)
    assert not (tmp_path / "e" / "evaluation.csv").exists()
    one, two = translating(), prepared(untrained())
    evaluate_systems(opened(one, two), tmp_path / "e", SETTINGS, resume=True, command="sensikit evaluate")
    assert one.calls == []
    assert [code for code, *_ in two.calls] == CODES[2:]
    assert snapshot(tmp_path / "e") == snapshot(straight)


@pytest.mark.parametrize("name", ["hypotheses/one.fur.txt", "references/fur.txt", "segments"])
@pytest.mark.parametrize("how", ["gone", "edited"])
def test_a_text_that_is_not_what_was_written_is_made_again(name: str, how: str, straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "e")
    facts = json.loads((straight / "manifest.json").read_text())["files"]["hypotheses/one.fur.txt"]
    path = tmp_path / "e" / (facts["segments"] if name == "segments" else name)
    path.unlink() if how == "gone" else path.write_text("w1 w2\n" * 24)
    one = translating()
    systems = opened(one, prepared(untrained()))
    evaluate_systems(systems, tmp_path / "e", SETTINGS, resume=True, command="sensikit evaluate")
    assert [code for code, *_ in one.calls] == ["fur"]
    assert snapshot(tmp_path / "e") == snapshot(straight)


def test_systems_and_languages_may_be_added_and_nothing_is_decoded_twice(straight: Path, tmp_path: Path) -> None:
    one, two = translating(), prepared(untrained())
    evaluate_systems(opened(one), tmp_path / "e", SETTINGS, groups=["cat"])
    evaluate_systems(opened(one, two), tmp_path / "e", SETTINGS, resume=True, command="sensikit evaluate")
    assert [code for code, *_ in one.calls] == CODES
    assert snapshot(tmp_path / "e") == snapshot(straight)


def test_resume_scores_anew_with_another_tokenizer_and_decodes_nothing(tmp_path: Path) -> None:
    one = translating()
    before = evaluate_systems(opened(one), tmp_path / "e", SETTINGS)
    after = evaluate_systems(opened(one), tmp_path / "e", replace(SETTINGS, tokenizer="char"), resume=True)
    assert len(one.calls) == 4
    signatures = [set(found.tables["evaluation.csv"]["metric_signature"]) for found in (before, after)]
    assert any("tok:char" in each for each in signatures[1])
    assert not any("tok:char" in each for each in signatures[0])


# the loss


LOSS = replace(SETTINGS, metrics=("loss",), tokenizer="no tokenizer is needed")


@pytest.mark.parametrize("task", ["mt", "denoise"])
def test_the_loss_is_taken_without_translating_and_tested_like_any_score(task: str, tmp_path: Path) -> None:
    one, two = translating(), prepared(untrained())
    done = evaluate_systems(opened(one, two), tmp_path / "e", replace(LOSS, task=task))
    assert one.calls == two.calls == []
    assert not (tmp_path / "e" / "hypotheses").exists()
    table = done.tables["evaluation.csv"]
    for label, backend in (("one", one), ("two", two)):
        for code in CODES:
            sums = losses(backend.task(task), code, "test", Decoding())
            row = table[(table["system"] == label) & (table["group"] == code)].iloc[0]
            terms = sums.sum(0)[:-1].reshape(-1, 2)
            assert row["value"] == pytest.approx((terms[:, 0] / terms[:, 1]).sum(), abs=1e-12)
            assert 0 < row["value_low"] < row["value"] < row["value_high"]
            assert row["sentences"] == len(sums) == 24
    assert table["metric_signature"].str.startswith("loss|kind:nll|unit:nats/token|ci:poisson/40|").all()
    tests = done.tables["significance.csv"]
    assert tests["p"].max() == pytest.approx(1 / 41)
    # a model that was trained to translate loses less there, and more where it is to repeat its source
    assert ((tests["difference_low"] > 0) if task == "mt" else (tests["difference_high"] < 0)).all()
    noise, seed = ("noise:toy|", "seed:1|") if task == "denoise" else ("", "")
    assert f"E|task:{task}|{noise}dir:xxx-eng|split:test|sents:all|seg:eng|{seed}data:" in done.manifest["signature"]


def test_the_loss_is_added_to_what_was_translated_and_the_other_way_round(tmp_path: Path) -> None:
    both = replace(SETTINGS, metrics=("bleu", "chrf", "loss"))
    for place, first in (("a", SETTINGS), ("b", LOSS)):
        one = translating()
        evaluate_systems(opened(one), tmp_path / place, first)
        evaluate_systems(opened(one), tmp_path / place, both, resume=True)
        assert len(one.calls) == 4
        evaluate_systems(opened(one), tmp_path / place, both, resume=True)
        assert len(one.calls) == 4
    assert (tmp_path / "a/evaluation.csv").read_bytes() == (tmp_path / "b/evaluation.csv").read_bytes()
    assert set(pd.read_csv(tmp_path / "a/evaluation.csv")["metric"]) == {"bleu", "chrf", "loss"}


def test_losses_that_are_not_what_was_written_are_taken_again(tmp_path: Path) -> None:
    one = translating()
    evaluate_systems(opened(one), tmp_path / "e", LOSS)
    before = snapshot(tmp_path / "e")
    (tmp_path / "e/losses/one.fur.npy").write_bytes(before["losses/one.cat.npy"])
    evaluate_systems(opened(one), tmp_path / "e", LOSS, resume=True)
    assert snapshot(tmp_path / "e") == before


def test_max_sentences_are_those_of_the_loss_too(tmp_path: Path) -> None:
    few = replace(LOSS, decoding=Decoding(max_sentences=7))
    done = evaluate_systems(opened(translating()), tmp_path / "e", few)
    assert set(done.tables["evaluation.csv"]["sentences"]) == {7}
    assert "|sents:7|" in done.manifest["signature"]


def test_a_task_that_does_not_translate_is_refused_a_score_of_translations(tmp_path: Path) -> None:
    settings = replace(SETTINGS, task="denoise", metrics=("bleu",))
    refused(
        OptionError,
        "--metric: denoise has no translations to score; give --metric loss",
        opened(translating()),
        tmp_path / "e",
        settings=settings,
    )
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("task", replace(LOSS, task="denoise")),
        ("beam", replace(SETTINGS, decoding=Decoding(beam=4))),
        ("max_sentences", replace(SETTINGS, decoding=Decoding(max_sentences=3))),
        ("max_tokens", replace(SETTINGS, decoding=Decoding(max_tokens=100))),
        ("split", replace(SETTINGS, split="valid")),
    ],
)
def test_what_was_decoded_otherwise_is_not_gone_on_with(
    field: str, changed: EvaluationSettings, straight: Path
) -> None:
    before = snapshot(straight)
    systems = opened(translating(), prepared(untrained()))
    text = refused(
        RunError, f"{straight}: was made with another {field} (", systems, straight, settings=changed, resume=True
    )
    assert ", not " in text
    assert snapshot(straight) == before


def test_another_checkpoint_under_the_same_label_is_refused(straight: Path) -> None:
    before = snapshot(straight)
    systems = opened(translating(), prepared(untrained(6)))
    refused(RunError, f"{straight}: holds two of another checkpoint (", systems, straight, resume=True)
    refused(RunError, f"{straight}: holds two too", opened(translating()), straight, resume=True)
    assert snapshot(straight) == before


def test_a_checkpoint_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    backends = iter([translating(), prepared(untrained())])
    refused(RunError, "toy/checkpoint.pt: is being written", {"one": lambda: next(backends)}, tmp_path / "e")


# what is refused


def test_what_exists_is_not_touched(straight: Path, tmp_path: Path) -> None:
    before = snapshot(straight)
    systems = opened(translating(), prepared(untrained()))
    refused(RunError, f"{straight}: already exists; ", systems, straight)
    (tmp_path / "thesis.tex").write_text("years of work")
    refused(RunError, f"{tmp_path}: already exists and is not an evaluation", systems, tmp_path, resume=True)
    thesis = tmp_path / "thesis.tex"
    refused(RunError, f"{thesis}: already exists and is not an evaluation", systems, thesis)
    assert snapshot(straight) == before
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not an evaluation"),
        ('{"format": 3, "sets": {}}', "is not an evaluation"),
        ('{"format": 2, "kind": "evaluation"}', "is not of format 3"),
        ('{"format": 3, "kind": "evaluation", "direction": "xxx-eng"}', "lacks data"),
    ],
)
def test_a_directory_that_is_no_evaluation_is_not_resumed(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert problem in refused(RunError, str(tmp_path), opened(translating()), tmp_path, resume=True)
    assert (tmp_path / "manifest.json").read_text() == text


def test_systems_that_do_not_belong_together_are_told_of_before_anything_is_decoded(tmp_path: Path) -> None:
    class Elsewhere(Translating):
        @property
        def provenance(self) -> Provenance:
            return replace(super().provenance, checkpoint="b.pt", data_sha256="f" * 64)

    class Back(Translating):
        direction = "eng-xxx"

    class Named(Translating):
        @property
        def provenance(self) -> Provenance:
            return replace(super().provenance, checkpoint="c.pt")

    fewer = prepared(Named(groups={code: toy.LANGUAGES[code] for code in ("cat", "nob")}))
    other = prepared(Elsewhere(seed=3))
    back = prepared(Named(seed=3, direction="eng-xxx"))
    one = translating()
    refused(DataError, "b.pt: goes with other data than toy/checkpoint.pt", opened(one, other), tmp_path / "e")
    text = refused(DataError, "c.pt: was trained on other languages", opened(one, fewer), tmp_path / "e")
    assert "fur, nso in one alone" in text
    refused(OptionError, "c.pt: translates eng-xxx", opened(one, back), tmp_path / "e")
    refused(OptionError, "toy/checkpoint.pt: is the checkpoint of one once more", opened(one, one), tmp_path / "e")
    assert one.calls == []
    assert not (tmp_path / "e").exists()


def test_other_references_for_the_same_language_are_refused(tmp_path: Path) -> None:
    class Otherwise(Translating):
        def translate(self, *arguments: Any) -> Any:
            found = super().translate(*arguments)
            return replace(found, references=found.references[::-1])

    other = prepared(Otherwise(seed=3))
    refused(DataError, "the references of two, cat: ", opened(translating(), other), tmp_path / "e")


def test_options_that_cannot_be_are_told_of_before_a_checkpoint_is_opened(tmp_path: Path) -> None:
    def never() -> Any:
        raise AssertionError

    out = tmp_path / "e"
    text = refused(OptionError, "--baseline: three is no label", {"one": never}, out, baseline="three")
    assert "choose among one" in text
    for label in ("", " ", "a/b", ".hidden", "a\nb", "x" * 101):
        refused(OptionError, "--label: ", {label: never}, out)
    refused(OptionError, "--metric: ter", {"one": never}, out, settings=replace(SETTINGS, metrics=("ter",)))
    refused(OptionError, "--tokenizer: nonsense", {"one": never}, out, settings=replace(SETTINGS, tokenizer="nonsense"))
    with pytest.raises(OptionError, match=r"^--beam: 0 is out of range; give 1 or more"):
        EvaluationSettings(decoding=Decoding(beam=0))
    for languages, problem in ((["cat", "deu"], "deu is no group"), ([], "names no group")):
        systems = opened(translating())
        assert problem in refused(OptionError, "--groups: ", systems, out, groups=languages)
    assert not out.exists()


def test_two_processes_do_not_write_the_same_evaluation(tmp_path: Path) -> None:
    def begun_twice(_: int) -> None:
        refused(RunError, f"{tmp_path / 'e'}: is being written", opened(translating()), tmp_path / "e", resume=True)

    one = translating(begun_twice)
    evaluate_systems(opened(one), tmp_path / "e", SETTINGS)
    assert len(one.calls) == 4
