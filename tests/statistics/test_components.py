from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sensikit.parameters import Parameter, component_of, layer_of, registry, stack_of
from sensikit.run import Run
from sensikit.statistics.components import component_correlation_table, component_table, part_of, parts
from sensikit.statistics.specificity import specificity
from tests.support import handmade

SHAPES = {
    "encoder.embed_tokens.weight": (9, 4),
    "encoder.layers.0.self_attn.q_proj.weight": (4, 4),
    "encoder.layers.0.self_attn.q_proj.bias": (4,),
    "encoder.layers.1.self_attn.q_proj.weight": (4, 4),
    "encoder.layers.1.fc1.weight": (8, 4),
    "encoder.layer_norm.weight": (4,),
    "decoder.layers.0.self_attn.q_proj.weight": (4, 4),
    "decoder.layers.0.encoder_attn.q_proj.weight": (4, 4),
    "decoder.layers.0.fc2.weight": (4, 8),
}
SIZE = sum(int(np.prod(shape)) for shape in SHAPES.values())
CODES = ("cat", "nob", "fao")


def parameter(name: str) -> Parameter:
    return Parameter(name, (1,), 0, component_of(name), stack_of(name), layer_of(name), True)


def made(path: Path, seed: int = 0) -> tuple[Run, dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    own = {code: rng.lognormal(0, 1, SIZE).astype(np.float32) for code in CODES}
    rest = {code: rng.lognormal(0, 1, SIZE).astype(np.float32) for code in CODES}
    return handmade.run(path, own, rest, shapes=SHAPES, sigma=0.1), own, rest


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("encoder.layers.0.self_attn.q_proj.weight", "q"),
        ("encoder.layers.0.self_attn.k_proj.bias", "k"),
        ("decoder.layers.1.self_attn.v_proj.weight", "v"),
        ("decoder.layers.1.self_attn.out_proj.weight", "out"),
        ("decoder.layers.1.encoder_attn.q_proj.weight", "cross-q"),
        ("decoder.layers.1.encoder_attn.out_proj.bias", "cross-out"),
        ("decoder.layers.0.self_attn.in_proj_weight", "attention"),
        ("decoder.layers.0.encoder_attn.in_proj_weight", "cross-attention"),
        ("encoder.block.0.layer.0.SelfAttention.o.weight", "out"),
        ("decoder.block.0.layer.1.EncDecAttention.k.weight", "cross-k"),
        ("encoder.layer.3.attention.self.query.weight", "q"),
        ("decoder.layers.0.encoder_attn_layer_norm.weight", "norm"),
        ("encoder.layers.0.fc1.weight", "fc"),
        ("encoder.layers.0.fc2.bias", "fc"),
        ("encoder.embed_tokens.weight", "embedding"),
        ("decoder.output_projection.weight", "projection"),
    ],
)
def test_parts_of_a_model(name: str, part: str) -> None:
    assert part_of(parameter(name)) == part


def test_parts_of_a_model_that_fairseq_trained(tiny_backend) -> None:  # type: ignore[no-untyped-def]
    parts = {(each.stack, part_of(each)) for each in registry(tiny_backend.module, tiny_backend.ghosts)}
    inner = {"q", "k", "v", "out", "fc", "norm"}
    assert {part for stack, part in parts if stack == "encoder"} == inner
    assert {part for stack, part in parts if stack == "decoder"} == inner | {
        "cross-q",
        "cross-k",
        "cross-v",
        "cross-out",
    }
    assert {part for stack, part in parts if stack == "shared"} == {"embedding"}


def test_every_cell_of_one_grain_holds_every_parameter_once(tmp_path: Path) -> None:
    run, _, _ = made(tmp_path / "run")
    for layers, components in ((False, False), (True, False), (False, True), (True, True)):
        grain = [
            members
            for (_, layer, component), members in parts(run).items()
            if (layer == "all", component == "all") == (layers, components)
        ]
        assert sorted(p.start for members in grain for p in members) == [p.start for p in run.parameters]


@pytest.mark.parametrize("held", [0, 1 << 22])
@pytest.mark.parametrize("chunk", [3, 1 << 18])
def test_table_is_the_obvious_computation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int, chunk: int
) -> None:
    monkeypatch.setattr("sensikit.statistics.ranks.HELD", held)
    monkeypatch.setattr("sensikit.run.CHUNK", chunk)
    run, own, rest = made(tmp_path / "run")
    found = component_table(run, "mt").set_index(["group", "stack", "layer", "component"])
    where = {p.name: np.arange(p.start, p.stop) for p in run.parameters}
    first, second = (np.concatenate([where[f"encoder.layers.0.self_attn.q_proj.{k}"] for k in ("weight", "bias")]),
                     where["encoder.layers.1.self_attn.q_proj.weight"])  # fmt: skip
    places = {
        ("encoder", "0", "q"): first,
        ("encoder", "1", "q"): second,
        ("encoder", "all", "q"): np.concatenate([first, second]),
        ("encoder", "1", "all"): np.concatenate([second, where["encoder.layers.1.fc1.weight"]]),
        ("encoder", "", "norm"): where["encoder.layer_norm.weight"],
        ("encoder", "", "embedding"): where["encoder.embed_tokens.weight"],
        ("encoder", "all", "all"): np.concatenate([at for name, at in where.items() if name.startswith("encoder")]),
        ("decoder", "0", "cross-q"): where["decoder.layers.0.encoder_attn.q_proj.weight"],
        ("decoder", "0", "fc"): where["decoder.layers.0.fc2.weight"],
    }
    for code in CODES:
        score = specificity(own[code], rest[code], 0.1)
        for key, at in places.items():
            row = found.loc[(code, *key)]
            assert row["parameters"] == len(at)
            assert row["sensitivity_mean"] == pytest.approx(own[code][at].mean(dtype=float), rel=1e-12)
            assert row["sensitivity_share"] == pytest.approx(
                own[code][at].sum(dtype=float) / own[code].sum(dtype=float)
            )
            assert row["specificity_mean"] == pytest.approx(score[at].mean(), rel=1e-12)
            assert row["specificity_median"] == pytest.approx(np.median(score[at]), rel=1e-12)
            assert row["share_positive"] == (score[at] > 0).mean()


def test_shares_of_the_parts_add_up_to_one(tmp_path: Path) -> None:
    found = component_table(made(tmp_path / "run")[0], "mt")
    parts = found[(found["layer"] != "all") & (found["component"] != "all")]
    assert parts.groupby("group")["sensitivity_share"].sum().to_numpy() == pytest.approx(1, rel=1e-12)
    stacks = found[(found["layer"] == "all") & (found["component"] == "all")]
    assert stacks.groupby("group")["sensitivity_share"].sum().to_numpy() == pytest.approx(1, rel=1e-12)


def test_layers_survive_the_table_as_they_are(tmp_path: Path) -> None:
    run, _, _ = made(tmp_path / "run")
    run.write_table("components.csv", component_table(run, "mt"))
    layers = run.read_table("components.csv")["layer"]
    assert set(layers.dropna()) == {"0", "1", "all"}
    assert layers.isna().any()


@pytest.mark.parametrize("chunk", [3, 1 << 18])
def test_correlation_is_that_of_the_parameters_of_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("sensikit.run.CHUNK", chunk)
    run, own, _ = made(tmp_path / "run")
    found = component_correlation_table(run, "mt").set_index(["stack", "layer", "component", "group_a", "group_b"])
    where = {p.name: slice(p.start, p.stop) for p in run.parameters}

    def expected(a: str, b: str, *names: str) -> float:
        chosen = [np.concatenate([own[code][where[name]] for name in names]).astype(float) for code in (a, b)]
        return float(np.corrcoef(*chosen)[0, 1])

    q = [f"encoder.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)]
    decoder = [name for name in SHAPES if name.startswith("decoder")]
    row = found.loc[("encoder", "all", "q", "cat", "fao")]
    assert row["pcc"] == pytest.approx(expected("cat", "fao", q[0], q[0].replace("weight", "bias"), q[1]), abs=1e-12)
    assert row["parameters"] == 36
    row = found.loc[("encoder", "1", "all", "nob", "cat")]
    assert row["pcc"] == pytest.approx(expected("nob", "cat", q[1], "encoder.layers.1.fc1.weight"), abs=1e-12)
    assert found.at[("decoder", "all", "all", "cat", "nob"), "pcc"] == pytest.approx(
        expected("cat", "nob", *decoder), abs=1e-12
    )
    assert ("encoder", "0", "q", "cat", "nob") not in found.index, "a cell of both grains is not listed"
