"""Letters in names: U users, I items, A text classes, B image classes, S steps of all users."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare

from mmrec.data.planted_sequences import SEQUENCES, PlantedSequences, sequences_raw, truth
from mmrec.data.sources import load
from mmrec.data.splits import split
from tests.data.probes import ndcg_at_10, values

BOTH, TEXT = SEQUENCES["planted-sequences"], SEQUENCES["planted-sequences-text"]
SMALL = PlantedSequences(
    users=30, items=60, interactions=240, text_classes=3, image_classes=4, seed=3
)


def as_lists(raw):
    return [raw.pairs[raw.pairs[:, 0] == user, 1].tolist() for user in range(raw.num_users)]


def steps(spec):
    """(S,) each: an item, and the item that comes next."""
    pairs = [(a, b) for row in as_lists(sequences_raw(spec)) for a, b in pairwise(row)]
    return np.array(pairs).T


def rate(hits):
    """Share, and the deviation of a share of about four fifths."""
    return hits.mean(), 0.4 / np.sqrt(len(hits))


def test_classes_follow_their_maps_as_often_as_stated_and_each_by_itself():
    true, (now, then) = truth(BOTH), steps(BOTH)
    followed = []
    for class_I, map_N in ((true.text, true.next_text), (true.image, true.next_image)):
        hit = class_I[then] == map_N[class_I[now]]
        share, deviation = rate(hit)
        # Of the 1 - p at random, one in 8 is the mapped class too.
        assert share == pytest.approx(0.8 + 0.2 / 8, abs=4 * deviation)
        elsewhere = (class_I[then] - map_N[class_I[now]])[~hit] % 8
        assert chisquare(np.bincount(elsewhere, minlength=8)[1:]).pvalue > 1e-3
        followed.append(hit)
    assert chi2_contingency(np.histogram2d(*followed, bins=2)[0]).pvalue > 1e-3


def test_maps_are_one_cycle_and_cells_equally_large():
    for spec, per_cell in ((BOTH, (6, 7)), (SMALL, (5, 5))):
        true = truth(spec)
        for map_N in (true.next_text, true.next_image):
            walk = [0]
            while (last := int(map_N[walk[-1]])) != 0:
                walk.append(last)
            assert sorted(walk) == list(range(len(map_N)))
        counts = np.bincount(true.text * spec.image_classes + true.image)
        assert (counts.min(), counts.max()) == per_cell


def test_images_of_planted_sequences_text_say_nothing_of_what_comes_next():
    true, (now, then) = truth(TEXT), steps(TEXT)
    next_image = true.image[then]
    assert chisquare(np.bincount(next_image)).pvalue > 1e-3
    for known in (true.image[now], true.text[now], true.text[then]):
        assert chi2_contingency(np.histogram2d(known, next_image, bins=8)[0]).pvalue > 1e-3
    share, deviation = rate(true.text[then] == true.next_text[true.text[now]])
    assert share == pytest.approx(0.8 + 0.2 / 8, abs=4 * deviation)


def test_first_items_are_drawn_by_popularity_within_their_cells():
    spec = PlantedSequences(
        users=4000, items=24, interactions=20_000, text_classes=2, image_classes=2, popularity=1.0
    )
    first_U = sequences_raw(spec).pairs[::5, 1]
    true = truth(spec)
    # Each cell has items of weights 1, 1/2, ..., 1/6, which are 2.45 together, and a quarter of
    # the users.
    assert sorted(true.weight) == pytest.approx(np.repeat(1 / np.arange(6, 0, -1), 4))
    expected = 4000 / 4 * true.weight / 2.45
    assert chisquare(np.bincount(first_U, minlength=24), expected).pvalue > 1e-3


def test_a_cell_that_a_user_has_had_whole_gives_way_to_the_catalogue():
    """With two classes of each and maps that always hold, two cells of four items alternate."""
    spec = PlantedSequences(users=200, items=16, interactions=1400, text_classes=2, image_classes=2)
    spec = dataclasses.replace(spec, follow_text=1.0, follow_image=1.0)
    true = truth(spec)
    rows = [row for row in as_lists(sequences_raw(spec)) if len(row) > 8]
    assert len(rows) > 20
    for row in rows:
        for turn, item in enumerate(row[:8]):
            assert true.text[item] == (true.text[row[0]] + turn) % 2
            assert true.image[item] == (true.image[row[0]] + turn) % 2
        assert row[8] not in row[:8]
    # Eight are left, all of the other two cells.
    assert len({row[8] for row in rows}) > 8


def test_lengths_and_pairs():
    for spec in (BOTH, TEXT, SMALL):
        raw = sequences_raw(spec)
        assert len(np.unique(raw.pairs, axis=0)) == len(raw.pairs) == spec.interactions
        length_U = np.bincount(raw.pairs[:, 0], minlength=spec.users)
        assert length_U.min() >= 5
        assert length_U.max() >= 2 * length_U.min()
        assert raw.pairs[:, 1].max() < spec.items


def test_leave_one_out_holds_out_what_comes_last():
    data, rows = split(sequences_raw(SMALL)), as_lists(sequences_raw(SMALL))
    assert (data.split, data.ordered) == ("leave-one-out", True)
    assert [data.train[data.train[:, 0] == u, 1].tolist() for u in range(30)] == [
        row[:-2] for row in rows
    ]
    assert [part[:, 0].tolist() for part in (data.valid, data.test)] == [[*range(30)]] * 2
    assert [part[:, 1].tolist() for part in (data.valid, data.test)] == [
        [row[at] for row in rows] for at in (-2, -1)
    ]


def test_same_spec_same_bytes_and_digests_of_the_built_in_sets_stay():
    """A changed digest renames every trial on planted data: change it on purpose only."""
    assert split(sequences_raw(SMALL)).digest == split(sequences_raw(SMALL)).digest
    other = dataclasses.replace(SMALL, seed=4)
    assert split(sequences_raw(other)).digest != split(sequences_raw(SMALL)).digest
    assert {name: load(name).digest for name in SEQUENCES} == {
        "planted-sequences": "c82be68bec47bc78",
        "planted-sequences-text": "1e4343414cb8d45a",
    }


def test_a_change_of_one_modality_changes_nothing_else():
    one, other = (sequences_raw(s) for s in (SMALL, dataclasses.replace(SMALL, text_strength=0.0)))
    np.testing.assert_array_equal(one.pairs, other.pairs)
    np.testing.assert_array_equal(values(one, "image"), values(other, "image"))
    assert (values(one, "text") != values(other, "text")).any()
    both, alone = (sequences_raw(spec) for spec in (BOTH, TEXT))
    for name in ("text", "image"):
        np.testing.assert_array_equal(values(both, name), values(alone, name))
    # What is said of images does not touch the course of text classes.
    text_I = truth(BOTH).text
    np.testing.assert_array_equal(text_I[both.pairs[:, 1]], text_I[alone.pairs[:, 1]])
    assert (both.pairs != alone.pairs).any()


@pytest.mark.parametrize("name", ["text", "image"])
def test_rows_are_a_class_centre_a_few_own_factors_and_a_little_noise(name):
    spec = PlantedSequences(users=50, items=4000, interactions=500, text_classes=40, noise=0.2)
    spec = dataclasses.replace(spec, image_classes=40, text_strength=3.0, image_strength=3.0)
    class_I, rows_IF = getattr(truth(spec), name), values(sequences_raw(spec), name)
    assert rows_IF.shape == (4000, {"text": 32, "image": 48}[name])
    centre_NF = np.stack([rows_IF[class_I == n].mean(0) for n in range(40)])
    # 39 x 32 or more squares: the deviation of their mean is 0.04 of it.
    assert centre_NF.var(axis=0, ddof=1).mean() == pytest.approx(9, rel=0.15)
    left = np.linalg.svd(rows_IF - centre_NF[class_I], compute_uv=False) ** 2
    # Eight factors, whose map has 8 x 32 entries or more, and white noise of variance 0.04.
    assert left.sum() / rows_IF.size == pytest.approx(1.04, rel=0.35)
    assert left[8:].sum() / rows_IF.size == pytest.approx(
        0.04 * (1 - 8 / rows_IF.shape[1]), rel=0.1
    )


def oracle(spec, *known):
    """NDCG@10 on test of the true odds given the last item's classes of some modalities."""
    true, data = truth(spec), split(sequences_raw(spec))
    last_U = np.zeros(spec.users, dtype=int)
    last_U[data.valid[:, 0]] = data.valid[:, 1]
    of_cell_I = true.text * spec.image_classes + true.image
    odds_UI = np.tile(true.weight / np.bincount(of_cell_I, true.weight)[of_cell_I], (spec.users, 1))
    for name in known:
        class_I, map_N = getattr(true, name), getattr(true, f"next_{name}")
        follow = getattr(spec, f"follow_{name}")
        hit_UI = class_I == map_N[class_I[last_U]][:, None]
        odds_UI *= follow * hit_UI + (1 - follow) / len(map_N)
    odds_UI[data.valid[:, 0], data.valid[:, 1]] = -1
    return ndcg_at_10(odds_UI, data, "test")


def test_an_oracle_needs_both_modalities_or_the_text_alone():
    both, text, image, nothing = (
        oracle(BOTH, *known) for known in (("text", "image"), ("text",), ("image",), ())
    )
    assert 0.38 < both < 0.48
    assert max(text, image) < 0.4 * both
    assert min(text, image) > 3 * nothing
    assert oracle(TEXT, "text", "image") == oracle(TEXT, "text") > 4 * oracle(TEXT, "image")
    assert oracle(TEXT, "image") == oracle(TEXT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": 11}, "3 text and 4 image classes make 12 cells, more than the 11 items"),
        ({"interactions": 149}, "149 interactions are fewer than 5 for each of 30 users"),
        ({"interactions": 1800}, r"a user would have \d+ of 60 items, over three quarters"),
    ],
)
def test_what_cannot_be_planted_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        sequences_raw(dataclasses.replace(SMALL, **change))
