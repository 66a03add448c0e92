"""What an update holds, and in what order."""

import numpy as np
import pytest
import torch

from sensikit.backends.fairseq import compat
from sensikit.errors import DataError, OptionError
from tests.support import training_system
from tests.training.test_noise import CAT, END, ENG, PAD, SYMBOLS, vocabulary_of

compat.load()

from sensikit.backends.fairseq.plugin.mixing import Mixture, Text, batches_of, draw, proportions  # noqa: E402


class Indexed(torch.utils.data.Dataset):
    """Sentences as fairseq's indexed dataset hands them out: the very tensor that it keeps."""

    def __init__(self, sentences):
        self.kept = [torch.tensor([*pieces, END]) for pieces in sentences]
        self.sizes = np.array([len(pieces) for pieces in self.kept])

    def __len__(self):
        return len(self.kept)

    def __getitem__(self, number):
        return self.kept[number]


def text(count, seed, longest=12):
    rng = np.random.default_rng(seed)
    return Indexed([rng.integers(4, 84, rng.integers(1, longest)).tolist() for _ in range(count)])


def mixture(pairs=200, mono=(300, 60), objectives=("cd",), **how):
    parallel = Text([(ENG, text(pairs, 1))]), Text([(ENG, text(pairs, 2))])
    monolingual = Text([(CAT, text(mono[0], 3)), (ENG, text(mono[1], 4))])
    pools = {"cat": np.arange(mono[0]), "eng": mono[0] + np.arange(mono[1])}
    ratios = dict.fromkeys(objectives, 0.3)
    return Mixture(*parallel, vocabulary_of(SYMBOLS), 1, monolingual, pools, ratios, **how)


def numbers(update, objective):
    parts = [part for name, _, part in update if name == objective]
    return np.concatenate(parts) if parts else np.array([], int)


class TestUpdates:
    def test_every_pair_comes_once_an_epoch(self):
        data = mixture()
        for epoch in (1, 2, 3):
            drawn = np.concatenate([numbers(update, "translation") for update in data.updates(epoch, (99, 99), 120)])
            assert sorted(drawn) == list(range(200))

    @pytest.mark.parametrize("objectives", [("cd",), ("dae", "mlm")])
    @pytest.mark.parametrize("batches", [1, 3])
    def test_every_update_mixes_both_half_and_half(self, batches, objectives):
        data = mixture(objectives=objectives)
        updates = data.updates(1, (99, 99), 120, None, batches)
        for update in updates:
            for objective in objectives:
                assert len(numbers(update, objective)) == len(numbers(update, "translation"))
        assert len(updates) > 5

    def test_dae_and_mlm_are_given_the_same_sentences(self):
        for update in mixture(objectives=("dae", "mlm")).updates(1, (99, 99), 120):
            assert numbers(update, "dae").tolist() == numbers(update, "mlm").tolist()

    def test_a_third_if_it_is_asked_for(self):
        updates = mixture(share=1 / 3).updates(1, (99, 99), 120)
        pairs = sum(len(numbers(update, "translation")) for update in updates)
        assert sum(len(numbers(update, "cd")) for update in updates) == pairs / 2

    def test_tokens_if_they_are_asked_for(self):
        data = mixture(pairs=4000, mono=(5000, 1000), by="tokens")
        data.mono.sizes[:] = np.where(np.arange(6000) % 2, 4, 30)
        shares = []
        for update in data.updates(1, (99, 99), 400):
            pairs = data.lengths[numbers(update, "translation")].sum()
            shares.append(data.mono.sizes[numbers(update, "cd")].sum() / pairs)
        # which of 1,600 sentences are long ones is drawn: 13 / sqrt(1600) of 17 tokens, four times
        assert np.mean(shares) == pytest.approx(1, abs=4 * 13 / 40 / 17)
        # and within an update a sentence of 30 more or less, in some 300
        assert max(shares) < 1.25
        assert min(shares) > 0.75

    def test_no_update_is_without_monolingual_text_even_when_it_is_rare(self):
        data = mixture(share=0.01)
        updates = data.updates(1, (99, 99), 60)
        assert len(updates) > 10
        assert all(len(numbers(update, "cd")) >= 1 for update in updates)

    @pytest.mark.parametrize("by", ["sentences", "tokens"])
    @pytest.mark.parametrize("share", [0.02, 0.1, 0.2, 0.3, 0.7])
    def test_nor_where_updates_are_of_different_sizes(self, share, by):
        data = mixture(share=share, by=by)
        for longest in (8, 15, 30, 60):
            updates = data.updates(1, (99, 99), longest)
            assert all(len(numbers(update, "cd")) >= 1 for update in updates)
            drawn = np.concatenate([numbers(update, "cd") for update in updates])
            assert (np.diff(data.mono.sizes[drawn]) >= 0).all()

    def test_no_part_is_larger_than_max_tokens(self):
        data = mixture()
        for update in data.updates(1, (99, 99), 60):
            for objective, _, part in update:
                sizes = data.lengths if objective == "translation" else data.mono.sizes
                assert len(part) * sizes[part].max() <= 60

    def test_sentences_of_an_update_are_of_like_length(self):
        data = mixture(pairs=2000, mono=(2000, 500))
        for update in data.updates(1, (99, 99), 240):
            for objective, _, part in update:
                sizes = data.sources.sizes if objective == "translation" else data.mono.sizes
                assert np.ptp(sizes[part]) <= 2

    def test_what_is_too_long_is_left_out(self):
        data = mixture()
        updates = data.updates(1, (6, 7), 120)
        kept = np.concatenate([numbers(update, "translation") for update in updates])
        assert sorted(kept) == np.flatnonzero((data.sources.sizes <= 6) & (data.targets.sizes <= 7)).tolist()
        assert data.mono.sizes[np.concatenate([numbers(update, "cd") for update in updates])].max() <= 6
        with pytest.raises(DataError, match="no pair is within"):
            data.updates(1, (1, 1), 120)

    def test_what_is_left_out_is_said(self, caplog):
        data = mixture()
        data.updates(1, (99, 99), 120)
        assert not caplog.records
        data.updates(1, (6, 7), 120)
        lost = 200 - ((data.sources.sizes <= 6) & (data.targets.sizes <= 7)).sum()
        assert f"{lost} of 200 pairs are longer than (6, 7) tokens and left out" in caplog.text

    def test_empty_sentences_are_left_out(self):
        data = mixture()
        data.mono.sizes[::2] = 1
        drawn = np.concatenate([numbers(update, "cd") for update in data.updates(1, (99, 99), 120)])
        assert (drawn % 2 == 1).all()

    def test_the_order_is_that_of_seed_and_epoch_alone(self):
        def flat(updates):
            return [(name, part.tolist()) for update in updates for name, _, part in update]

        first, second = mixture(), mixture()
        second.updates(1, (99, 99), 120)
        assert flat(first.updates(2, (99, 99), 120)) == flat(second.updates(2, (99, 99), 120))
        assert flat(first.updates(2, (99, 99), 120)) != flat(first.updates(3, (99, 99), 120))
        first.seed = 2
        assert flat(first.updates(2, (99, 99), 120)) != flat(second.updates(2, (99, 99), 120))

    def test_batches_of_one_update_are_of_any_length(self):
        data = mixture(pairs=2000, mono=(2000, 500))
        means = [
            data.sources.sizes[numbers(update, "translation")].mean()
            for update in data.updates(1, (99, 99), 240, None, 8)
        ]
        assert np.std(means) < np.std(data.sources.sizes) / 2


@pytest.mark.parametrize(
    ("tokens", "most", "processes", "expected"),
    [
        (4096, 4096, 1, (1, 4096)),
        (30000, 3750, 1, (8, 3750)),
        (30000, 4096, 1, (8, 3750)),
        (262144, 4096, 32, (2, 4096)),
        (262144, 4096, 3, (22, 3971)),
        (4096, 4096, 4, (1, 1024)),
        (30000, 3750, 64, (1, 468)),
    ],
)
def test_the_tokens_of_an_update_are_the_same_on_one_device_and_on_many(tokens, most, processes, expected):
    batches, each = batches_of(tokens, most, processes)
    assert (batches, each) == expected
    assert each <= most
    assert tokens - batches * processes < batches * processes * each <= tokens


def test_an_update_has_the_tokens_that_were_asked_for(tiny_data):
    few = training_system.build(tiny_data, "regular", "--max-tokens", "150", "--tokens-per-update", "100")
    many = training_system.build(tiny_data, "regular", "--max-tokens", "60", "--tokens-per-update", "100")
    for system, batches, most in ((few, 1, 100), (many, 2, 50)):
        updates = system.updates()
        assert {len(sample["parts"]) for sample in updates[:-1]} == {batches}
        sizes = [part["net_input"]["src_tokens"].numel() for sample in updates for part in sample["parts"]]
        assert most / 2 < max(sizes) <= most


class TestDraw:
    def test_temperature(self):
        assert proportions({"a": 900, "b": 100}, 1) == pytest.approx({"a": 0.9, "b": 0.1})
        powers = 900**0.7, 100**0.7
        expected = {"a": powers[0] / sum(powers), "b": powers[1] / sum(powers)}
        assert proportions({"a": 900, "b": 100}, 10 / 7) == pytest.approx(expected)

    def test_languages_without_text_are_left_out(self):
        assert proportions({"a": 3, "b": 0}, 1) == {"a": 1}
        with pytest.raises(DataError, match="no monolingual text"):
            proportions({"a": 0}, 1)

    def test_counts_are_those_of_the_shares(self):
        pools = {"a": np.arange(100), "b": 100 + np.arange(10)}
        drawn = draw(pools, {"a": 0.75, "b": 0.25}, 40, 1, 1)
        assert len(drawn) == 40
        assert (drawn < 100).sum() == 30

    def test_no_sentence_twice_before_all_were_drawn(self):
        pools = {"a": np.arange(10), "b": 10 + np.arange(7)}
        seen = {"a": [], "b": []}
        for epoch in range(1, 9):
            drawn = draw(pools, {"a": 0.5, "b": 0.5}, 8, 1, epoch)
            seen["a"] += drawn[drawn < 10].tolist()
            seen["b"] += drawn[drawn >= 10].tolist()
        assert sorted(seen["a"][:30]) == sorted([*range(10)] * 3)
        assert sorted(seen["b"][:28]) == sorted([*range(10, 17)] * 4)
        assert seen["a"][:10] != seen["a"][10:20]

    def test_more_than_there_is_in_one_epoch(self):
        drawn = draw({"a": np.arange(3)}, {"a": 1.0}, 8, 1, 1)
        assert np.bincount(drawn).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


class TestNoise:
    def test_it_is_new_in_every_epoch_and_the_same_at_every_call(self):
        data = mixture()
        once, again = (data.noised("cd", epoch, 5).source.tolist() for epoch in (1, 1))
        others = [data.noised("cd", epoch, 5).source.tolist() for epoch in range(2, 30)]
        assert once == again
        assert any(other != once for other in others)

    def test_objectives_draw_their_own(self):
        data = mixture(objectives=("cd", "mlm"))
        same = [(data.noised("cd", 1, n).source == data.noised("mlm", 1, n).source).all() for n in range(300)]
        assert not all(same)

    @pytest.mark.parametrize("objective", ["cd", "dae", "mlm", "mass"])
    def test_the_indexed_sentences_stay_as_they_were(self, objective):
        # noise in place came back as the next clean sentence: the released DAE had <mask> in all of its targets
        data = mixture(objectives=(objective,))
        before = [kept.clone() for dataset in data.mono.data.datasets for kept in dataset.kept]
        for update in data.updates(1, (99, 99), 120):
            data.collater([data[part] for part in update])
        after = [kept for dataset in data.mono.data.datasets for kept in dataset.kept]
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))

    def test_tags_are_those_of_each_sentences_language(self):
        data = mixture()
        for update in data.updates(1, (99, 99), 120):
            for part in update:
                made = data[part]
                tags = data.sources.tags[part[2]] if part[0] == "translation" else data.mono.tags[part[2]]
                lengths = made["net_input"]["src_lengths"]
                assert made["net_input"]["src_tokens"][torch.arange(len(tags)), lengths - 1].tolist() == tags.tolist()
                assert made["net_input"]["prev_output_tokens"][:, 0].tolist() == tags.tolist()

    def test_tokens_are_counted(self):
        data = mixture(objectives=("cd", "dae", "mlm"))
        for update in data.updates(1, (99, 99), 120):
            for part in update:
                made = data[part]
                for side, target in made["targets"].items():
                    name = "translation" if part[0] == "translation" else side
                    assert made["tokens"][name] == int((target != PAD).sum())
                # encoder and decoder share the targets of concurrent denoising: they count once
                assert made["tokens"]["targets"] == max(int((t != PAD).sum()) for t in made["targets"].values())


class TestRealData:
    @pytest.mark.parametrize("objective", ["cd", "dae", "mass"])
    def test_binarised_text_has_no_tag_lost_and_no_mask_in_a_target(self, tiny_data, objective):
        system = training_system.build(tiny_data, objective)
        mask = system.task.vocabulary.mask
        for epoch in (1, 2):
            for sample in system.updates(epoch):
                for part in sample["parts"]:
                    inputs = part["net_input"]
                    ends = inputs["src_tokens"][torch.arange(part["nsentences"]), inputs["src_lengths"] - 1]
                    assert set(ends.tolist()) <= set(system.task.tags.values())
                    assert not any((target == mask).any() for target in part["targets"].values())

    def test_english_is_among_the_monolingual_languages(self, tiny_data):
        system = training_system.build(tiny_data, "cd")
        assert set(system.data.pools) == {"cat", "nob", "fao", "eng"}
        assert {name: len(pool) for name, pool in system.data.pools.items()} == {
            "cat": 240,
            "nob": 200,
            "fao": 160,
            "eng": 600,
        }

    def test_both_directions_share_their_sides(self, tiny_data):
        system = training_system.build(tiny_data, "cd", direction="both")
        assert len(system.data) == 1200
        assert {name: len(pool) for name, pool in system.data.pools.items()} == {
            "cat": 240,
            "nob": 200,
            "fao": 160,
            "eng": 600,
        }
        tags = system.task.tags
        assert np.unique(system.data.sources.tags, return_counts=True)[1].sum() == 1200
        assert (system.data.sources.tags == tags["eng"]).sum() == 600

    def test_english_to_others_has_the_tag_of_the_target(self, tiny_data):
        system = training_system.build(tiny_data, "regular", direction="eng-xxx")
        assert set(system.data.sources.tags) == {system.task.tags[code] for code in ("cat", "nob", "fao")}

    def test_a_cap_on_what_is_taken_from_files(self, tiny_data, tmp_path):
        data = with_mono(tiny_data, tmp_path)
        both = training_system.build(data, "cd", "--mono-cap", "25")
        extra = training_system.build(data, "cd", "--mono", "extra", "--mono-cap", "25")
        bitext = training_system.build(data, "cd", "--mono", "bitext", "--mono-cap", "25")
        assert [len(each.data.pools["cat"]) for each in (both, extra, bitext)] == [265, 25, 240]
        assert len(set(extra.data.pools["cat"])) == 25
        assert "nob" not in extra.data.pools
        more = training_system.build(data, "cd", "--mono", "extra")
        assert len(more.data.pools["cat"]) == 40


def with_mono(tiny_data, tmp_path):
    """A copy of the data with forty Catalan sentences beside it."""
    import shutil

    from fairseq.data import Dictionary, indexed_dataset

    shutil.copytree(tiny_data, tmp_path / "data")
    (tmp_path / "data" / "bin" / "mono").mkdir()
    dictionary = Dictionary.load(str(tiny_data / "bin" / "dict.cat.txt"))
    stem = str(tmp_path / "data" / "bin" / "mono" / "mono.cat")
    builder = indexed_dataset.make_builder(f"{stem}.bin", "mmap", len(dictionary))
    for number in range(40):
        builder.add_item(torch.tensor([5 + number % 7, 6, END]))
    builder.finalize(f"{stem}.idx")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("method", "flags", "named"),
    [
        ("cd", ("--update-freq", "2"), "--update-freq.*give --tokens-per-update"),
        ("cd", ("--tokens-per-update", "-1"), "--tokens-per-update"),
        ("cd", ("--denoise", "bert"), "--denoise"),
        ("cd", ("--sampling-method", "temperature"), "--sampling-method"),
        ("cd", ("--truncate-source",), "--truncate-source"),
        ("cd", ("--encoder-langtok", "src"), "--encoder-langtok"),
        ("cd", ("--mono-share", "1"), "--mono-share"),
        ("cd", ("--mask-ratio", "0"), "--mask-ratio"),
        ("cd", ("--mono", "extra"), "no monolingual text"),
        ("id", ("--id-k", "1"), "--id-k"),
        ("id", ("--distill", "encoder"), "--distill"),
        ("mass", ("--distill", "translation,encoder"), "--distill"),
        ("id", ("--id-schedule", "10,5"), "--id-schedule"),
        ("id", ("--id-schedule", "__import__('os').getpid()"), "--id-schedule"),
    ],
)
def test_what_would_be_wrong_in_silence_is_refused(tiny_data, method, flags, named):
    with pytest.raises((OptionError, DataError), match=named) as error:
        training_system.build(tiny_data, method, *flags)
    assert "\n" not in str(error.value)


def test_a_dictionary_without_mask_is_refused(tiny_data, tmp_path):
    import shutil

    shutil.copytree(tiny_data, tmp_path / "data")
    for path in (tmp_path / "data" / "bin").glob("dict.*.txt"):
        path.write_text(path.read_text(encoding="utf-8").replace("<mask> 1\n", ""), encoding="utf-8")
    training_system.build(tmp_path / "data", "id")
    with pytest.raises(DataError, match="<mask>"):
        training_system.build(tmp_path / "data", "cd")
