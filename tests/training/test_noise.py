"""What each objective makes of a sentence."""

from types import SimpleNamespace

import numpy as np
import pytest

from sensikit.training.noise import (
    OBJECTIVES,
    Vocabulary,
    concurrent_denoising,
    denoising_autoencoder,
    infilled,
    masked_language_model,
    masked_sequence_to_sequence,
    span_lengths,
    translation,
    words_of,
)

SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>"]
SYMBOLS += [f"▁w{n}" for n in range(40)] + [f"x{n}" for n in range(40)]
SYMBOLS += ["__cat__", "__eng__", "<mask>", "madeupword0000"]
PAD, END, UNKNOWN = 1, 2, 3
CAT, ENG, MASK, FILLER = (SYMBOLS.index(name) for name in SYMBOLS[-4:])
WORDS, INSIDE = range(4, 44), range(44, 84)


@pytest.fixture
def vocabulary():
    return vocabulary_of(SYMBOLS)


def vocabulary_of(symbols):
    dictionary = SimpleNamespace(
        symbols=symbols, nspecial=4, pad=lambda: PAD, eos=lambda: END, index=lambda name: symbols.index(name)
    )
    return Vocabulary.of(dictionary, ["__cat__", "__eng__"])


def sentence(words, rng, longest=3):
    """Pieces of so many words: one that begins it, and up to two more."""
    parts = [[rng.choice(WORDS), *rng.choice(INSIDE, rng.integers(0, longest))] for _ in range(words)]
    return np.concatenate(parts).astype(np.int64)


def sentences(count, seed=0, words=12):
    rng = np.random.default_rng(seed)
    return [(sentence(int(rng.integers(1, words + 1)), rng), np.random.default_rng([seed, n])) for n in range(count)]


class TestVocabulary:
    def test_only_text_may_stand_for_text(self, vocabulary):
        assert vocabulary.text.tolist() == [*WORDS, *INSIDE]

    def test_words_begin_at_the_sign_of_a_space(self, vocabulary):
        assert words_of(np.array([4, 44, 45, 5, 6, 46]), vocabulary).tolist() == [0, 0, 0, 1, 2, 2]

    def test_the_first_piece_begins_a_word_in_any_case(self, vocabulary):
        assert words_of(np.array([44, 45, 5]), vocabulary).tolist() == [0, 0, 1]

    def test_without_the_sign_every_piece_is_a_word(self):
        plain = vocabulary_of([symbol.replace("▁", "") for symbol in SYMBOLS])
        assert words_of(np.array([4, 44, 45]), plain).tolist() == [0, 1, 2]


class TestTranslation:
    def test_the_tag_replaces_the_end_of_the_source_and_starts_the_decoder(self):
        example = translation(np.array([4, 5, END]), np.array([6, 7, 8, END]), ENG)
        assert example.source.tolist() == [4, 5, ENG]
        assert example.previous.tolist() == [ENG, 6, 7, 8]
        assert example.decoder_target.tolist() == [6, 7, 8, END]
        assert example.encoder_target is None


class TestConcurrentDenoising:
    def test_figure_4(self, vocabulary):
        pieces = np.array([4, 5, 6])
        for seed in range(50):
            example = concurrent_denoising(pieces, CAT, vocabulary, 0.3, np.random.default_rng(seed))
            if example.source.tolist() == [4, MASK, 6, CAT]:
                break
        assert example.source.tolist() == [4, MASK, 6, CAT]
        assert example.previous.tolist() == [CAT, 4, 5, 6]
        assert example.encoder_target.tolist() == example.decoder_target.tolist() == [PAD, 5, PAD, PAD]

    def test_encoder_and_decoder_predict_the_same_tokens_at_the_same_positions(self, vocabulary):
        for pieces, rng in sentences(200):
            example = concurrent_denoising(pieces, CAT, vocabulary, 0.3, rng)
            assert len(example.source) == len(example.previous) == len(pieces) + 1
            assert (example.encoder_target == example.decoder_target).all()
            at = np.flatnonzero(example.encoder_target != PAD)
            assert (example.encoder_target[at] == pieces[at]).all()
            # what precedes position t in the decoder is what precedes it in the clean sentence
            assert (example.previous[1:] == pieces).all()

    def test_the_last_position_is_never_a_target(self, vocabulary):
        for pieces, rng in sentences(200):
            example = concurrent_denoising(pieces, CAT, vocabulary, 1.0, rng)
            assert example.decoder_target[-1] == PAD
            assert (example.decoder_target[:-1] == pieces).all()

    def test_words_are_chosen_whole(self, vocabulary):
        for pieces, rng in sentences(200):
            chosen = concurrent_denoising(pieces, CAT, vocabulary, 0.3, rng).decoder_target[:-1] != PAD
            word = words_of(pieces, vocabulary)
            assert all(len(set(chosen[word == number])) == 1 for number in range(word[-1] + 1))

    def test_whole_words_are_masked_whole(self, vocabulary):
        for pieces, rng in sentences(200):
            masked = concurrent_denoising(pieces, CAT, vocabulary, 0.5, rng).source[:-1] == MASK
            word = words_of(pieces, vocabulary)
            assert all(len(set(masked[word == number])) == 1 for number in range(word[-1] + 1))

    @pytest.mark.parametrize("ratio", [0.15, 0.3, 0.6])
    def test_the_share_of_words_and_their_fates(self, vocabulary, ratio):
        words = chosen = masked = same = 0
        for pieces, rng in sentences(3000, seed=5):
            example = concurrent_denoising(pieces, CAT, vocabulary, ratio, rng)
            word = words_of(pieces, vocabulary)
            first = np.flatnonzero(np.diff(word, prepend=-1))
            picked = example.decoder_target[first] != PAD
            words += len(first)
            chosen += picked.sum()
            masked += (example.source[first][picked] == MASK).sum()
            same += (example.source[first][picked] == pieces[first][picked]).sum()
        # four standard errors of a binomial share
        assert chosen / words == pytest.approx(ratio, abs=4 * np.sqrt(ratio * (1 - ratio) / words))
        assert masked / chosen == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / chosen))
        # a random piece is the old one by chance, one time in 80
        assert same / chosen == pytest.approx(0.1 + 0.1 / 80, abs=4 * np.sqrt(0.09 / chosen))

    def test_short_sentences_keep_the_ratio_on_average(self, vocabulary):
        chosen = [
            (
                concurrent_denoising(np.array([4]), CAT, vocabulary, 0.3, np.random.default_rng(n)).decoder_target
                != PAD
            ).sum()
            for n in range(3000)
        ]
        assert np.mean(chosen) == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 3000))


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
class TestEveryObjective:
    def test_the_tag_ends_the_source_and_starts_the_decoder(self, vocabulary, objective):
        # the released code's DAE had no tag on any source
        for pieces, rng in sentences(200):
            example = OBJECTIVES[objective].make(pieces, CAT, vocabulary, 0.3, rng)
            assert example.source[-1] == CAT
            assert CAT not in example.source[:-1]
            assert END not in example.source
            if example.previous is not None:
                assert example.previous[0] == CAT

    def test_no_tag_and_no_mask_is_ever_a_target_or_a_random_piece(self, vocabulary, objective):
        for pieces, rng in sentences(500):
            example = OBJECTIVES[objective].make(pieces, CAT, vocabulary, 0.5, rng)
            for target in (example.encoder_target, example.decoder_target):
                if target is not None:
                    assert not np.isin(target, [CAT, ENG, MASK, FILLER]).any()
            assert not np.isin(example.source[:-1], [CAT, ENG, FILLER, PAD, UNKNOWN]).any()

    def test_special_symbols_in_the_text_are_no_targets(self, vocabulary, objective):
        pieces = np.array([4, UNKNOWN, 5, ENG, 6, MASK])
        example = OBJECTIVES[objective].make(pieces, CAT, vocabulary, 1.0, np.random.default_rng(0))
        if objective != "dae":
            target = example.decoder_target if example.encoder_target is None else example.encoder_target
            assert target.tolist() == [4, PAD, 5, PAD, 6, PAD, PAD]

    def test_what_it_is_given_stays_as_it_was(self, vocabulary, objective):
        # fairseq's own noise writes into the tensor that the indexed dataset keeps
        for pieces, rng in sentences(50):
            pieces.setflags(write=False)
            before = pieces.copy()
            example = OBJECTIVES[objective].make(pieces, CAT, vocabulary, 0.5, rng)
            for part in example:
                if part is not None:
                    part[:] = 0
            assert (pieces == before).all()

    def test_it_predicts_on_the_sides_that_are_declared(self, vocabulary, objective):
        example = OBJECTIVES[objective].make(np.array([4, 5]), CAT, vocabulary, 0.5, np.random.default_rng(0))
        sides = {side for side in ("encoder", "decoder") if getattr(example, f"{side}_target") is not None}
        assert sides == set(OBJECTIVES[objective].sides)
        assert ("decoder" in sides) == (example.previous is not None)

    def test_a_sentence_of_one_piece(self, vocabulary, objective):
        # the released MASS stopped there
        for seed in range(20):
            example = OBJECTIVES[objective].make(np.array([44]), CAT, vocabulary, 0.5, np.random.default_rng(seed))
            assert example.source[-1] == CAT

    def test_the_ratio_is_alive(self, vocabulary, objective):
        noise = []
        for ratio in (0.1, 0.9):
            examples = [OBJECTIVES[objective].make(p, CAT, vocabulary, ratio, rng) for p, rng in sentences(100)]
            noise.append(sum((example.source == MASK).sum() for example in examples))
        if objective == "dae":
            lengths = [
                sum(len(OBJECTIVES["dae"].make(p, CAT, vocabulary, ratio, rng).source) for p, rng in sentences(100))
                for ratio in (0.1, 0.9)
            ]
            assert lengths[1] < lengths[0]
        else:
            assert noise[1] > 3 * noise[0]


def test_mlm_leaves_the_decoder_alone(vocabulary):
    example = masked_language_model(np.array([4, 5, 6]), CAT, vocabulary, 1.0, np.random.default_rng(0))
    assert example.previous is None
    assert example.decoder_target is None
    assert example.encoder_target.tolist() == [4, 5, 6, PAD]


class TestDenoisingAutoencoder:
    def test_the_decoder_says_the_whole_sentence_and_its_end(self, vocabulary):
        for pieces, rng in sentences(100):
            example = denoising_autoencoder(pieces, CAT, vocabulary, 0.3, rng)
            assert example.decoder_target.tolist() == [*pieces, END]
            assert example.previous.tolist() == [CAT, *pieces]

    def test_a_span_of_words_becomes_one_mask(self, vocabulary):
        pieces = np.array([4, 44, 5, 6, 45, 46, 7])
        results = {
            tuple(infilled(pieces, vocabulary, 0.5, np.random.default_rng(seed), random_share=0.0))
            for seed in range(300)
        }
        assert (MASK, 6, 45, 46, 7) in results
        assert (4, 44, MASK, 7) in results
        assert (4, 44, 5, MASK) in results
        # half words never
        assert not any(result[:2] == (4, MASK) and 44 in result for result in results)

    def test_a_span_of_none_inserts_a_mask(self, vocabulary):
        pieces = np.array([4, 5, 6, 7])
        lengths = [
            len(infilled(pieces, vocabulary, 0.25, np.random.default_rng(seed), span=0.5, random_share=0.0))
            for seed in range(50)
        ]
        assert max(lengths) > len(pieces)

    def test_the_share_of_words_that_is_lost(self, vocabulary):
        words = lost = 0
        for pieces, rng in sentences(1500, seed=3, words=30):
            result = infilled(pieces, vocabulary, 0.3, rng, random_share=0.0)
            kept = result[result != MASK]
            count = words_of(pieces, vocabulary)[-1] + 1
            words += count
            lost += count - (words_of(kept, vocabulary)[-1] + 1 if len(kept) else 0)
            assert len(kept) == 0 or set(kept) <= set(pieces)
        # rounding to whole words alone varies it: at most 1/4 a sentence
        assert lost / words == pytest.approx(0.3, abs=4 * np.sqrt(1500 * 0.25) / words)

    def test_what_is_kept_keeps_its_order(self, vocabulary):
        pieces = np.arange(4, 24)
        for seed in range(50):
            result = infilled(pieces, vocabulary, 0.4, np.random.default_rng(seed), random_share=0.0)
            kept = result[result != MASK]
            assert (np.diff(kept) > 0).all()
            assert len(kept) == 12

    def test_the_length_of_spans_is_alive(self):
        # the released --poisson-lambda had no effect
        means = []
        for mean in (1.0, 3.5):
            rng = np.random.default_rng(0)
            draws = [span_lengths(1000, mean, rng) for _ in range(20)]
            assert all(sum(lengths) == 1000 for lengths in draws)
            means.append(np.mean([length for lengths in draws for length in lengths[:-1]]))
        assert means == pytest.approx([1.0, 3.5], rel=0.03)

    def test_a_tenth_of_the_spans_is_a_random_piece(self, vocabulary):
        pieces = np.full(30, 4)
        spans = masks = 0
        for seed in range(400):
            result = infilled(pieces, vocabulary, 0.5, np.random.default_rng(seed))
            masks += (result == MASK).sum()
            spans += len(result) - 15
        # the old piece by chance counts as random too: it is a span that is no <mask>
        assert masks / spans == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / spans))


class TestMass:
    def test_one_fragment_at_its_own_positions(self, vocabulary):
        pieces = np.arange(4, 14)
        for seed in range(100):
            example = masked_sequence_to_sequence(pieces, CAT, vocabulary, 0.5, np.random.default_rng(seed))
            at = np.flatnonzero(example.decoder_target != PAD)
            assert len(at) == 5
            assert (np.diff(at) == 1).all()
            assert (example.decoder_target[at] == pieces[at]).all()
            outside = np.setdiff1d(np.arange(10), at)
            assert (example.source[outside] == pieces[outside]).all()

    def test_the_decoder_reads_the_fragment_alone(self, vocabulary):
        pieces = np.arange(4, 14)
        for seed in range(100):
            example = masked_sequence_to_sequence(pieces, CAT, vocabulary, 0.5, np.random.default_rng(seed))
            at = np.flatnonzero(example.decoder_target != PAD)
            expected = np.full(11, MASK)
            expected[0] = CAT
            expected[at[1:]] = pieces[at[:-1]]
            assert example.previous.tolist() == expected.tolist()

    def test_the_fragment_may_lie_anywhere(self, vocabulary):
        # the released code never reached the last pieces
        pieces = np.arange(4, 10)
        starts = {
            int(np.flatnonzero(example.decoder_target != PAD)[0])
            for seed in range(100)
            for example in [masked_sequence_to_sequence(pieces, CAT, vocabulary, 0.5, np.random.default_rng(seed))]
        }
        assert starts == {0, 1, 2, 3}

    def test_eight_to_one_to_one(self, vocabulary):
        masked = same = count = 0
        for pieces, rng in sentences(1500, seed=9):
            example = masked_sequence_to_sequence(pieces, CAT, vocabulary, 0.5, rng)
            at = np.flatnonzero(example.decoder_target != PAD)
            count += len(at)
            masked += (example.source[at] == MASK).sum()
            same += (example.source[at] == pieces[at]).sum()
        assert masked / count == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / count))
        assert same / count == pytest.approx(0.1 + 0.1 / 80, abs=4 * np.sqrt(0.09 / count))
