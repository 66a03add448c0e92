"""Order statistics of sorted runs, held or sorted again, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from sensikit.statistics.ranks import Place, Sorted


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint64])
@pytest.mark.parametrize("held", [0, 1 << 30])
def test_every_rank_of_every_union_is_found_among_few_values(
    monkeypatch: pytest.MonkeyPatch, held: int, dtype: type
) -> None:
    monkeypatch.setattr("sensikit.statistics.ranks.HELD", held)
    values = (np.random.default_rng(0).lognormal(3, 2, 6000) // 3).astype(dtype)  # a third of them are equal
    sizes = {"a": 1, "b": 2000, "c": 3, "d": 3996}
    parts = dict(zip(sizes, np.split(values, np.cumsum(list(sizes.values()))[:-1]), strict=True))
    runs = Sorted(lambda: ((name, half) for name, part in parts.items() for half in np.array_split(part, 2))).read()
    asked = [(list(name), range(sum(sizes[part] for part in name))) for name in ("a", "bd", "ac", "abcd")]
    for (names, ranks), found in zip(asked, runs.places(asked), strict=True):
        whole = np.sort(np.concatenate([parts[name] for name in names]))
        sides = (np.searchsorted(whole, whole, side) for side in ("left", "right"))
        assert found == [Place(value, below, up - below) for value, below, up in zip(whole, *sides, strict=True)]
        assert len(found) == len(ranks)
    with pytest.raises(IndexError):
        runs.places([(["b"], [2000])])


def test_what_is_kept_of_a_run_is_a_small_part_of_it() -> None:
    runs = Sorted(lambda: [(0, np.random.default_rng(0).random(1 << 16))]).read()
    low, high, *_ = runs._brackets([0], [1 << 15])
    (sketch,) = runs._kept[0]
    assert len(sketch[0]) < 300
    assert (high - low)[0] < 3 / 256
