"""Conditions on semantic IDs: whose code words are replaced, by what, and what stays."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from mmrec.data.conditions import Condition, apply
from mmrec.data.dataset import Codes, Dataset, Dense

ITEMS, LACK = 2000, 50
SIZES = (7, 4, 9)
FILLERS = ("noise", "matched", "shuffle", "constant")


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Two codes; every 40th item lacks `text`, whose levels go together and have odd frequencies.

    Of its nine words of the third level, the last three do not occur.
    """
    rng = np.random.default_rng(5)
    present = np.arange(ITEMS) % 40 != 0
    first_I = rng.choice(7, ITEMS, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])
    text = np.stack([first_I, first_I // 2, rng.choice(6, ITEMS)], axis=1) * present[:, None]
    image = rng.integers(SIZES, size=(ITEMS, 3))
    features = {
        "text_codes": Codes(present, text, SIZES),
        "image_codes": Codes(np.ones(ITEMS, bool), image, SIZES),
        "short_codes": Codes(np.ones(ITEMS, bool), image[:, :2], SIZES[:2]),
        "other_codes": Codes(np.ones(ITEMS, bool), image, (7, 5, 9)),
        "vit": Dense(np.ones(ITEMS, bool), np.ones((ITEMS, 2), np.float32)),
    }
    pairs = np.array([[0, 0], [0, 1], [0, 2]])
    return Dataset("codes", 1, ITEMS, pairs[:1], pairs[1:2], pairs[2:], features)


def knocked(data, filler, *names, seed=0):
    return apply(Condition(modalities=names or ("text_codes",), filler=filler, seed=seed), data)


def words(data, name="text_codes"):
    feature = data.features[name]
    assert isinstance(feature, Codes)
    return feature.codes[feature.present]


def as_rows(codes):
    return sorted(map(tuple, codes.tolist()))


def counts(codes):
    return [np.bincount(level, minlength=size) for level, size in zip(codes.T, SIZES, strict=True)]


@pytest.mark.parametrize("filler", FILLERS)
def test_only_the_named_codes_change_and_gaps_and_books_stay(data, filler):
    other = knocked(data, filler)
    assert (other.condition, other.digest != data.digest) == (f"text_codes={filler}", True)
    before, after = (d.features["text_codes"] for d in (data, other))
    assert isinstance(after, Codes)
    np.testing.assert_array_equal(after.present, before.present)
    assert (~after.present).sum() == LACK
    assert not after.codes[~after.present].any()
    assert (after.codes.shape, after.codes.dtype, after.sizes) == ((ITEMS, 3), np.int64, SIZES)
    assert not after.codes.flags.writeable
    for name in set(data.features) - {"text_codes"}:
        assert other.features[name] is data.features[name]
    for part in ("train", "valid", "test"):
        assert other.part(part) is data.part(part)


def test_a_constant_is_the_first_word_of_every_level(data):
    assert words(knocked(data, "constant")).tolist() == [[0, 0, 0]] * (ITEMS - LACK)


@given(seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_shuffle_keeps_the_ids_and_moves_them(data, seed):
    after, before = words(knocked(data, "shuffle", seed=seed)), words(data)
    assert as_rows(after) == as_rows(before)
    assert (after != before).any(axis=1).mean() > 0.8  # of two items 0.07 have one ID by chance


def test_noise_is_uniform_over_each_code_book(data):
    """Over words that do not occur too."""
    for counted in counts(words(knocked(data, "noise"))):
        assert chisquare(counted).pvalue > 1e-3


def test_matched_has_each_levels_own_frequencies(data):
    after, before = counts(words(knocked(data, "matched"))), counts(words(data))
    for counted, expected in zip(after, before, strict=True):
        there = expected > 0
        assert counted[~there].sum() == 0
        assert chisquare(counted[there], expected[there]).pvalue > 1e-3


def test_words_of_an_item_stay_together_under_a_shuffle_alone(data):
    """In the data the second word is half the first, rounded down: how often is it still?"""

    def together(filler):
        first, second, _ = words(knocked(data, filler)).T
        return np.mean(second == first // 2)

    assert together("shuffle") == 1
    # 1950 items: the deviation of a share is 0.011 at most; by chance a quarter, and under matched
    # two draws of the second level's own words.
    assert together("noise") == pytest.approx(1 / 4, abs=0.045)
    share = counts(words(data))[1] / (ITEMS - LACK)
    assert together("matched") == pytest.approx(np.square(share).sum(), abs=0.045)


@pytest.mark.parametrize("filler", FILLERS[:3])
def test_draws_follow_the_seed_and_the_modality_and_not_the_company(data, filler):
    names = ("image_codes", "text_codes")
    assert knocked(data, filler).digest == knocked(data, filler).digest
    assert knocked(data, filler).digest != knocked(data, filler, seed=1).digest
    both = knocked(data, filler, *names)
    np.testing.assert_array_equal(words(both), words(knocked(data, filler)))
    twins = dataclasses.replace(data, features=dict.fromkeys(names, data.features["image_codes"]))
    left, right = (words(knocked(twins, filler, *names), name) for name in names)
    assert (left != right).any()


@pytest.mark.parametrize("filler", ["zero", "mean"])
def test_codes_have_no_zero_and_no_mean(data, filler):
    message = f"'text_codes' is of kind codes, which have no '{filler}'; noise, matched, constant"
    with pytest.raises(ValueError, match=message):
        knocked(data, filler)


def test_codes_of_the_same_books_can_be_swapped(data):
    swapped = apply(Condition(swap=(("image_codes", "text_codes"),)), data)
    expected = {**data.features, "image_codes": data.features["text_codes"]}
    assert swapped.features == expected
    assert swapped.condition == "image_codes<-text_codes"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("short_codes", r"is codes of the books \(7, 4, 9\) and 'short_codes' codes of .*\(7, 4\)"),
        ("other_codes", r"'other_codes' codes of the books \(7, 5, 9\): only dense ones, or codes"),
        ("vit", r"'text_codes' is codes of the books \(7, 4, 9\) and 'vit' dense: only dense ones"),
    ],
)
def test_a_swap_with_what_is_not_like_it_is_refused(data, other, message):
    with pytest.raises(ValueError, match=message):
        apply(Condition(swap=(("text_codes", other),)), data)
