import pytest

from sensikit.errors import OptionError
from sensikit.languages import ALIASES, LANGUAGES, canonical, language, read_name, read_tiers, tier

M15 = ["nso", "run", "ssw", "ind", "msa", "tgl", "nob", "isl", "fao", "slv", "ltz", "lim", "cat", "glg", "fur"]
M8 = ["fuv", "kmb", "lug", "nya", "swh", "umb", "wol", "zul"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("cat", "cat"),
        ("ca", "cat"),
        ("nb_NO", "nob"),
        ("no", "nob"),
        ("id", "ind"),
        ("ms", "msa"),
        ("is", "isl"),
        ("gl", "glg"),
        ("sl", "slv"),
        ("af", "afr"),
        ("sw", "swh"),
        ("cy", "cym"),
        ("pt_BR", "por"),
        ("es-419", "spa"),
        ("de_DE.UTF-8", "deu"),
        ("zh_CN", "zho_Hans"),
        ("zh-hans", "zho_Hans"),
        ("zh_Hant_TW", "zho_Hant"),
        ("sr@latin", "srp_Latin"),
        ("fur", "fur"),
        ("xyz", "xyz"),
        ("xx", None),
        ("data", None),
        ("", None),
        ("c4t", None),
    ],
)
def test_a_locale_name_becomes_a_code(name: str, code: str | None) -> None:
    assert canonical(name) == code


def test_the_papers_languages_are_known_and_aliases_lead_to_known_ones() -> None:
    assert set(M15 + M8) <= set(LANGUAGES)
    assert set(ALIASES.values()) <= set(LANGUAGES)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [(0, "Very Low"), (99_999, "Very Low"), (100_000, "Low"), (999_999, "Low"), (1_000_000, "High")],
)
def test_a_tier_begins_at_its_threshold(pairs: int, expected: str) -> None:
    assert tier(pairs) == expected


def test_tiers_are_read_from_an_option() -> None:
    assert read_tiers("50000,5000") == (50_000, 5_000)


@pytest.mark.parametrize("text", ["5000,50000", "5000", "a,b", "1,2,3", "5,0", ""])
def test_other_tiers_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--tiers"):
        read_tiers(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat=Catalan:Romance", ("cat", ("Catalan", "Romance", ""))),
        ("ca=Català", ("cat", ("Català", "", ""))),
        ("xyz=Xyz:Unheard Of:very low", ("xyz", ("Xyz", "Unheard Of", "Very Low"))),
        ("fao=::High", ("fao", ("", "", "High"))),
    ],
)
def test_a_name_is_read_from_an_option(text: str, expected: tuple[str, tuple[str, str, str]]) -> None:
    assert read_name(text) == expected


@pytest.mark.parametrize("text", ["cat", "cat=", "=Catalan", "cat=a:b:Middle", "cat=a:b:High:more", "12=Twelve"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--name"):
        read_name(text)


def test_a_language_has_its_tier_from_its_training_pairs_alone() -> None:
    found = language("cat", {"train": 99_999, "test": 1_000})
    assert (found.name, found.family, found.tier) == ("Catalan", "Western Romance", "Very Low")
    assert found.sizes == {"train": 99_999, "test": 1_000}
    assert language("cat", {"train": 600}, (500, 50)).tier == "High"


def test_an_unknown_language_has_its_code_as_name_unless_it_is_given_one() -> None:
    assert language("xyz", {}).name == "xyz"
    assert language("xyz", {}).family == "unknown"
    given = language("xyz", {}, overrides={"xyz": ("Xyz", "Isolate", "High")})
    assert (given.name, given.family, given.tier) == ("Xyz", "Isolate", "High")


def test_an_override_leaves_what_it_does_not_name() -> None:
    found = language("fao", {"train": 5}, overrides={"fao": ("", "", "Low")})
    assert (found.name, found.family, found.tier) == ("Faroese", "North Germanic", "Low")


def test_a_script_has_the_name_of_its_language() -> None:
    assert language("zho_Hans", {}).name == "Chinese"
