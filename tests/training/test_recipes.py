"""Presets hold what the paper and the scripts say; methods are combinations of the same parts."""

import pytest

from sensikit.training.recipes import METHODS, PRESETS, SIZES, TABLE_4, Method, flags

PAIRS = [("cat", "eng"), ("nob", "eng")]


def values(preset, method="regular"):
    given = flags(preset, method, PAIRS, ["cat", "nob", "eng"])
    return {name: value for name, value in zip(given, [*given[1:], ""], strict=True) if name.startswith("--")}


def test_the_papers_text():
    m8, m15 = values("paper-m8", "cd+id"), values("paper-m15", "cd+id")
    assert (m8["--arch"], m15["--arch"]) == ("sensikit_big", "sensikit_big12")
    assert (m8["--max-update"], m15["--max-update"]) == ("100000", "300000")
    assert (m8["--mono-cap"], m15["--mono-cap"]) == ("3000000", "15000000")
    for each in (m8, m15):
        assert (each["--warmup-updates"], each["--tokens-per-update"], each["--patience"]) == ("8000", "30000", "10")
        assert int(each["--tokens-per-update"]) % int(each["--max-tokens"]) == 0
        assert (each["--id-k"], each["--id-alpha"]) == ("2", "5")
        assert (each["--id-passes"], each["--id-weights"], each["--loss-weights"]) == ("full", "equation", "own")
        assert (each["--denoise"], each["--distill"]) == ("cd", "translation,encoder,decoder")
        # 30 % belongs to concurrent denoising; MASS keeps the half of its own paper
        assert "--mask-ratio" not in each


def test_the_authors_scripts():
    m8, m15 = values("released-m8"), values("released-m15")
    assert (m8["--max-tokens"], m8["--tokens-per-update"]) == ("4096", "262144")
    assert (m15["--max-tokens"], m15["--tokens-per-update"]) == ("4096", "131072")
    assert (m8["--save-interval-updates"], m15["--save-interval-updates"]) == ("500", "1000")
    for each in (m8, m15):
        assert "--patience" not in each
        assert (each["--lr"], each["--adam-eps"], each["--adam-betas"]) == ("1e-3", "1e-6", "(0.9,0.98)")
        assert (each["--dropout"], each["--attention-dropout"], each["--label-smoothing"]) == ("0.3", "0.1", "0.1")
        assert (each["--clip-norm"], each["--seed"], each["--max-source-positions"]) == ("0", "42", "512")
        assert (each["--id-passes"], each["--id-weights"]) == ("shared-encoder", "halved")
        assert each["--loss-weights"] == "released"
        assert each["--mask-ratio"] == "0.3"


def test_sizes_of_the_paper():
    assert SIZES["big"] == {"layers": 6, "embed_dim": 1024, "ffn_embed_dim": 4096, "attention_heads": 16}
    assert SIZES["big12"] == SIZES["big"] | {"layers": 12}


def test_the_methods_of_tables_1_to_3_and_the_rows_of_table_4():
    assert {name: METHODS[name] for name in ("regular", "id", "dae", "dae+mlm", "mass", "cd", "cd+id")} == {
        "regular": Method(),
        "id": Method((), ("translation",)),
        "dae": Method(("dae",)),
        "dae+mlm": Method(("dae", "mlm")),
        "mass": Method(("mass",)),
        "cd": Method(("cd",)),
        "cd+id": Method(("cd",), ("translation", "encoder", "decoder")),
    }
    assert [METHODS[f"table4-{row}"] for row in range(1, 9)] == list(TABLE_4)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_directions_and_languages(preset):
    given = values(preset)
    assert given["--validate-interval-updates"] == given["--save-interval-updates"]
    assert given["--lang-pairs"] == "cat-eng,nob-eng"
    assert given["--langs"] == "cat,nob,eng"
    assert "--denoise" not in given


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_fairseq_takes_every_flag(preset, tiny_data):
    from tests.support import training_system

    words = PRESETS[preset].replace("sensikit_big12", "sensikit_tiny").replace("sensikit_big", "sensikit_tiny").split()
    system = training_system.build(tiny_data, "cd+id", *words, "--log-format", "none")
    assert system.task.args.adam_betas == "(0.9,0.98)"
    assert system.model.max_positions() == (512, 512)
