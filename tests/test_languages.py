import pytest

from sensikit.errors import OptionError
from sensikit.languages import (
    FAMILIES,
    NO_FAMILY,
    canonical,
    described,
    family_of,
    name_of,
    read_name,
    read_tiers,
    tier,
)
from sensikit.settings import Tiers

M15 = ["nso", "run", "ssw", "ind", "msa", "tgl", "nob", "isl", "fao", "slv", "ltz", "lim", "cat", "glg", "fur"]
M8 = ["fuv", "kmb", "lug", "nya", "swh", "umb", "wol", "zul"]
FLORES = """
    ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn als_Latn amh_Ethi apc_Arab arb_Arab arb_Latn
    ars_Arab ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn bak_Cyrl bam_Latn ban_Latn bel_Cyrl
    bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bug_Latn bul_Cyrl cat_Latn ceb_Latn ces_Latn cjk_Latn
    ckb_Arab crh_Latn cym_Latn dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt ell_Grek eng_Latn epo_Latn est_Latn eus_Latn
    ewe_Latn fao_Latn fij_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn gaz_Latn gla_Latn gle_Latn glg_Latn grn_Latn
    guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn
    ita_Latn jav_Latn jpn_Jpan kab_Latn kac_Latn kam_Latn kan_Knda kas_Arab kas_Deva kat_Geor kaz_Cyrl kbp_Latn kea_Latn
    khk_Cyrl khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn kmr_Latn knc_Arab knc_Latn kon_Latn kor_Hang lao_Laoo lij_Latn
    lim_Latn lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn lua_Latn lug_Latn luo_Latn lus_Latn lvs_Latn mag_Deva mai_Deva
    mal_Mlym mar_Deva min_Arab min_Latn mkd_Cyrl mlt_Latn mni_Beng mos_Latn mri_Latn mya_Mymr nld_Latn nno_Latn nob_Latn
    npi_Deva nso_Latn nus_Latn nya_Latn oci_Latn ory_Orya pag_Latn pan_Guru pap_Latn pbt_Arab pes_Arab plt_Latn pol_Latn
    por_Latn prs_Arab quy_Latn ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Olck scn_Latn shn_Mymr sin_Sinh slk_Latn
    slv_Latn smo_Latn sna_Latn snd_Arab som_Latn sot_Latn spa_Latn srd_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn
    szl_Latn tam_Taml taq_Latn taq_Tfng tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi tpi_Latn tsn_Latn tso_Latn
    tuk_Latn tum_Latn tur_Latn twi_Latn tzm_Tfng uig_Arab ukr_Cyrl umb_Latn urd_Arab uzn_Latn vec_Latn vie_Latn war_Latn
    wol_Latn xho_Latn ydd_Hebr yor_Latn yue_Hant zho_Hans zho_Hant zsm_Latn zul_Latn
"""


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
        ("sr_Cyrl", "srp"),
        ("sh", "srp_Latn"),
        ("ca_ES@valencia", "cat_Valencia"),
        ("fr_FR.ISO-8859-1", "fra"),
        ("en_XX", "eng"),
        ("ro_RO", "ron"),
        ("cat_Latn", "cat"),
        ("arb_Arab", "arb"),
        ("arb_Latn", "arb_Latn"),
        ("zho_Hans", "zho_Hans"),
        ("am", "amh"),
        ("ur", "urd"),
        ("te", "tel"),
        ("az", "aze"),
        ("bs", "bos"),
        ("ff", "fuv"),
        ("fil", "tgl"),
        ("tl", "tgl"),
        ("new", "new"),
        ("nan", "nan"),
        ("fre", "fra"),
        ("ger", "deu"),
        ("fur", "fur"),
        ("xyz", "xyz"),
        ("xx", None),
        ("data", None),
        ("", None),
        ("c4t", None),
        ("cat-eng", None),
        ("cat_old", None),
    ],
)
def test_a_locale_name_becomes_a_code(name: str, code: str | None) -> None:
    assert canonical(name) == code


def test_every_code_of_flores_200_is_a_language_of_its_own_with_a_name() -> None:
    codes = [canonical(each) for each in FLORES.split()]
    assert len(set(codes) - {None}) == len(codes) == 204
    assert [code for code in codes if code and name_of(code) in (code, code[:3], "")] == []
    assert [code for code in codes if code and family_of(code) == NO_FAMILY] == []


def test_the_papers_languages_have_its_names_and_families() -> None:
    assert set(M15 + M8) <= set(FAMILIES)
    names = ["Northern Sotho", "Malay", "Tagalog", "Norwegian Bokmål", "Slovene", "Limburgish"]
    assert [name_of(code) for code in ("nso", "msa", "tgl", "nob", "slv", "lim")] == names
    names = ["Nigerian Fulfulde", "Ganda", "Chewa", "Swahili"]
    assert [name_of(code) for code in ("fuv", "lug", "nya", "swh")] == names


def test_the_languages_of_a_family_are_there_by_their_canonical_codes() -> None:
    assert {code for code in FAMILIES if canonical(code) != code or name_of(code) == code} == set()


@pytest.mark.parametrize(("code", "family"), [("zho_Hans", "Sinitic"), ("als", "Albanian"), ("swa", "Congo")])
def test_a_script_and_a_member_have_the_family_of_their_language(code: str, family: str) -> None:
    assert family_of(code) == family


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


def test_the_tier_of_a_group_is_read_from_an_option() -> None:
    found = Tiers(tier=("ca=high", "isl=Very Low", "cat-fra=very-low")).levels
    assert found == {"cat": "High", "isl": "Very Low", "cat-fra": "Very Low"}


@pytest.mark.parametrize("text", ["cat", "cat=", "=high", "cat=middle", "cat=unknown"])
def test_other_tiers_of_groups_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"--tier: .*; as in cat=high"):
        Tiers(tier=(text,))


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
    assert described("cat", 99_999) == {"name": "Catalan", "family": "Western Romance", "tier": "Very Low"}
    assert described("cat", 600, (500, 50))["tier"] == "High"


def test_an_unknown_language_has_its_code_as_name_unless_it_is_given_one() -> None:
    assert described("xyz", 0) == {"name": "xyz", "family": "unknown", "tier": "Very Low"}
    assert list(described("xyz", 0, given=("Xyz", "Isolate", "High")).values()) == ["Xyz", "Isolate", "High"]


def test_an_override_leaves_what_it_does_not_name() -> None:
    assert list(described("fao", 5, given=("", "", "Low")).values()) == ["Faroese", "North Germanic", "Low"]


def test_a_script_has_the_name_of_its_language() -> None:
    assert described("zho_Hans", 0)["name"] == "Chinese"
