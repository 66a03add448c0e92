"""Groups: which of a model's pairs are compared, what they are called, and by what name they are found again."""

from __future__ import annotations

import pytest

from sensikit.errors import OptionError
from sensikit.languages import Pair, chosen_groups, direction_of, grouped, hub_of, keyed, select, views


def pairs(text: str) -> list[Pair]:
    """`cat-eng nob-eng` as pairs."""
    return [(source, target) for source, target in (pair.split("-") for pair in text.split())]


BOTH = pairs("cat-eng eng-cat fao-eng eng-fao")
FRENCH = pairs("cat-fra spa-fra fra-oci fra-cat")
NO_HUB = pairs("cat-nob fao-nob cat-eng")


@pytest.mark.parametrize(
    ("text", "hub"),
    [
        ("cat-eng nob-eng", "eng"),
        ("en-de en-fr", "en"),
        ("de-fr fr-nl", "fr"),
        ("cat-en", "en"),
        ("en-cat", "cat"),
        ("ro_RO-en_XX en_XX-ro_RO", "en_XX"),
        ("cat-eng eng-cat cat-nob", "cat"),
        ("cat-eng eng-nob nob-cat", ""),
        ("de-fr nl-es", ""),
    ],
)
def test_the_language_that_all_pairs_have_in_common(text: str, hub: str) -> None:
    assert hub_of(pairs(text)) == hub


def test_the_pairs_into_a_language_and_out_of_it_are_views() -> None:
    assert views(BOTH) == {"xxx-eng": pairs("cat-eng fao-eng"), "eng-xxx": pairs("eng-cat eng-fao")}
    assert list(views(FRENCH)) == ["xxx-fra", "fra-xxx"]
    assert views(NO_HUB) == {"cat-xxx": pairs("cat-nob cat-eng"), "xxx-nob": pairs("cat-nob fao-nob")}
    assert views(pairs("cat-eng")) == {"xxx-eng": pairs("cat-eng")}


def test_views_are_named_by_the_code_of_the_language() -> None:
    assert list(views(pairs("ro_RO-en_XX en_XX-ro_RO de_DE-en_XX"))) == ["xxx-eng", "eng-xxx"]
    # two codes of Norwegian, each with two pairs into it: one of them has the name
    twice = pairs("cat-no fao-no cat-nb fao-nb")
    assert views(twice)["xxx-nob"] == twice[:2]
    assert select(twice, direction_of(twice[2:], twice)) == twice[2:]


@pytest.mark.parametrize(
    ("trained", "found", "keys", "direction"),
    [
        (BOTH, "cat-eng fao-eng", ["cat", "fao"], "xxx-eng"),
        (pairs("eng-cat eng-fao"), "eng-cat eng-fao", ["cat", "fao"], "eng-xxx"),
        (FRENCH, "cat-fra spa-fra", ["cat", "spa"], "xxx-fra"),
        (NO_HUB, "cat-nob fao-nob cat-eng", ["cat-nob", "fao-nob", "cat-eng"], "cat-nob+fao-nob+cat-eng"),
        (pairs("cat-eng"), "cat-eng", ["cat"], "xxx-eng"),
        (pairs("cat-en"), "cat-en", ["cat"], "xxx-eng"),
        (pairs("fao-eng cat-eng"), "fao-eng cat-eng", ["fao", "cat"], "xxx-eng"),
    ],
)
def test_by_default_the_pairs_into_the_language_in_common_else_out_of_it_else_all(
    trained: list[Pair], found: str, keys: list[str], direction: str
) -> None:
    selected = select(trained)
    assert selected == pairs(found)
    assert list(keyed(selected)) == keys
    assert direction_of(selected, trained) == direction
    assert select(trained, direction) == selected


def test_a_direction() -> None:
    assert select(BOTH, "eng-xxx") == pairs("eng-cat eng-fao")
    assert select(FRENCH, "fra-xxx") == pairs("fra-oci fra-cat")
    assert select(NO_HUB, "xxx-nob") == pairs("cat-nob fao-nob")
    assert select(NO_HUB, "cat-eng") == pairs("cat-eng")
    assert select(NO_HUB, "cat-eng+fao-nob") == pairs("fao-nob cat-eng")  # in the order of training


@pytest.mark.parametrize("direction", ["xxx-eng", "xxx-xxx", "xxx", "eng-xxx"])
def test_a_direction_that_was_not_trained(direction: str) -> None:
    with pytest.raises(OptionError, match=f"--direction: the model was not trained on {direction}; give .*xxx-nob"):
        select(NO_HUB, direction)


def test_pairs_in_the_checkpoints_own_codes_and_in_those_of_iso() -> None:
    trained = pairs("ro_RO-en_XX de_DE-en_XX ro_RO-de_DE")
    assert select(trained, pairs=["ro_RO-de_DE", "ron-eng"]) == pairs("ro_RO-en_XX ro_RO-de_DE")
    assert select(trained, pairs=["deu-eng"]) == pairs("de_DE-en_XX")


def test_a_code_of_the_checkpoint_is_itself_before_it_is_another_ones_iso_code() -> None:
    trained = pairs("nob-eng no-eng")
    assert select(trained, pairs=["nob-eng"]) == pairs("nob-eng")
    assert select(trained, pairs=["no-eng"]) == pairs("no-eng")


def test_pairs_that_were_not_trained_are_refused_with_the_list() -> None:
    with pytest.raises(OptionError) as caught:
        select(pairs("cat-no fao-no"), pairs=["cat-no", "cat-eng"])
    assert str(caught.value) == "--pairs: the model was not trained on cat-eng; choose among cat-no, fao-no"
    with pytest.raises(OptionError, match="--pairs: names no pair; choose among cat-nob, fao-nob, cat-eng"):
        select(NO_HUB, pairs=[])
    with pytest.raises(OptionError, match="--direction: the model was not trained on eng-cat; choose among cat-nob"):
        select(NO_HUB, "eng-cat")


def test_keys_name_the_side_that_tells_groups_apart() -> None:
    assert keyed(pairs("cat-nob fao-nob")) == {"cat": ("cat", "nob"), "fao": ("fao", "nob")}
    assert keyed(pairs("nob-cat nob-fao")) == {"cat": ("nob", "cat"), "fao": ("nob", "fao")}
    assert list(keyed(pairs("zho_Hans-eng zho_Hant-eng"))) == ["zho_Hans", "zho_Hant"]
    everything = [(a, b) for a in ("cat", "fao", "all", "en_XX") for b in ("cat", "fao", "all", "en_XX") if a != b]
    keys = list(keyed(everything))
    assert len(set(keys)) == len(everything)
    assert not any("/" in key or "." in key for key in keys)


def test_what_is_known_of_a_group() -> None:
    noted = {"cat": {"name": "Valencian", "tier": "Low"}}
    alone = grouped("cat", ("cat", "en_XX"), {"train": 2_000_000}, noted)
    assert (alone.key, alone.source, alone.target) == ("cat", "cat", "en_XX")
    assert (alone.name, alone.family, alone.tier) == ("Valencian", "Western Romance", "Low")
    two = grouped("cat-fao", ("cat", "fao"), {"train": 2_000_000}, noted)
    assert (two.name, two.family, two.tier) == ("Valencian→Faroese", "Western Romance", "High")
    language = grouped("nb_NO", None, {"train": 5})
    assert (language.source, language.target, language.name, language.tier) == (
        None,
        None,
        "Norwegian Bokmål",
        "Very Low",
    )
    assert language.facts()["sizes"] == {"train": 5}
    assert "key" not in language.facts()


def test_groups_are_chosen_in_the_order_of_the_model() -> None:
    assert chosen_groups(["cat", "fao", "nob"], ["nob", "cat"]) == ["cat", "nob"]
    assert chosen_groups(["cat", "fao"], None) == ["cat", "fao"]
    assert chosen_groups(["c", "cat"], "cat") == ["cat"]
    with pytest.raises(OptionError, match="--groups: eng is no group here; choose among cat, fao"):
        chosen_groups(["cat", "fao"], ["eng"])
    with pytest.raises(OptionError, match="--groups: names no group"):
        chosen_groups(["cat", "fao"], [])
