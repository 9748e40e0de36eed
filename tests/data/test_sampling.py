import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from mmrec.data.dataset import Dataset
from mmrec.data.sampling import Draws, TrainingPairs, bpr_epoch, draw_negatives

NONE = np.zeros((0, 2), dtype=np.int64)


def dataset(seen_UI: np.ndarray) -> Dataset:
    """Training pairs from a 0/1 table, in a shuffled order."""
    pairs = np.random.default_rng(0).permutation(np.argwhere(seen_UI))
    users, items = seen_UI.shape
    return Dataset("x", users, items, pairs, NONE, NONE)


def uniform(draws: Draws, *key) -> list[float]:
    return torch.rand(4, generator=draws.generator(*key)).tolist()


def test_draws_are_keyed_by_seed_stream_and_epoch_and_by_nothing_else():
    streams = ["init", "order", "negatives", "modalities", "edges", "dropout"]
    keys = list(itertools.product((0, 1, 11, 111), streams, (0, 1, 11)))
    first = {key: uniform(Draws(key[0]), *key[1:]) for key in keys}
    again = {key: uniform(Draws(key[0]), *key[1:]) for key in reversed(keys)}
    assert first == again
    assert len({tuple(numbers) for numbers in first.values()}) == len(keys)


def test_a_generator_starts_anew_each_time_it_is_asked_for():
    draws = Draws(3)
    one, two = draws.generator("order", 5), draws.generator("order", 5)
    torch.rand(100, generator=one)
    assert uniform(draws, "order", 5) == torch.rand(4, generator=two).tolist()


def test_an_unknown_stream_is_refused_by_name():
    with pytest.raises(KeyError, match="no stream 'oder'; streams are init, order"):
        Draws(0).generator("oder")  # type: ignore[arg-type]


@st.composite
def tables(draw: st.DrawFn) -> np.ndarray:
    """0/1 tables in which no user has every item that anybody has."""
    users, items = draw(st.integers(1, 6)), draw(st.integers(3, 12))
    seen = np.array(draw(st.lists(st.booleans(), min_size=users * items, max_size=users * items)))
    seen = seen.reshape(users, items)
    seen[0, :2] = True  # an item that is not user 0's, and one that is
    seen[0, 2] = False
    if users > 1:
        seen[1, 2], seen[1, 0] = True, False
    pool = seen.any(0)
    for row in seen:
        if pool.sum() == row.sum():
            row[np.flatnonzero(pool)[0]] = False
    return seen


@settings(deadline=None)
@given(tables(), st.integers(0, 3), st.integers(0, 2**31), st.integers(0, 9))
def test_an_epoch_is_all_pairs_once_with_unseen_items_of_the_pool(seen, negatives, seed, epoch):
    pool = set(np.flatnonzero(seen.any(0)))
    if any(set(np.flatnonzero(row)) >= pool for row in seen):
        return  # refused by name, see below
    data = dataset(seen)
    rows = bpr_epoch(TrainingPairs.of(data), Draws(seed), epoch, negatives)
    met = torch.stack([rows.user, rows.positive], dim=1).tolist()
    assert sorted(met) == sorted(data.train.tolist())
    assert rows.negative.shape == (len(data.train), negatives)
    assert set(rows.negative.unique().tolist()) <= pool
    assert not seen[rows.user[:, None].numpy(), rows.negative.numpy()].any()


def test_an_epoch_is_the_same_under_one_key_and_another_under_another():
    data = TrainingPairs.of(dataset(np.random.default_rng(1).random((20, 30)) < 0.3))

    def drawn(seed, epoch):
        rows = bpr_epoch(data, Draws(seed), epoch, 2)
        return rows.user.tolist(), rows.positive.tolist(), rows.negative.tolist()

    same, again, later, other = drawn(0, 1), drawn(0, 1), drawn(0, 2), drawn(1, 1)
    assert same == again
    for different in (later, other):
        assert all(a != b for a, b in zip(same, different, strict=True))


def test_more_negatives_do_not_change_the_order_in_which_pairs_are_met():
    data = TrainingPairs.of(dataset(np.random.default_rng(1).random((20, 30)) < 0.3))
    few, many = (bpr_epoch(data, Draws(0), 0, negatives) for negatives in (1, 5))
    assert torch.equal(few.positive, many.positive)


def test_negatives_are_uniform_over_the_unseen_items_of_the_pool():
    seen = np.zeros((2, 12), dtype=bool)
    seen[0, [0, 3, 4]] = True
    seen[1, [1, 2, 5, 6, 7, 9]] = True  # items 8, 10 and 11 are in nobody's training
    data = TrainingPairs.of(dataset(seen))
    users = torch.zeros(6_000, dtype=torch.int64)
    drawn = draw_negatives(data, users, 2, torch.Generator().manual_seed(0))
    counts = np.bincount(drawn.flatten().numpy(), minlength=12)
    allowed = [1, 2, 5, 6, 7, 9]
    assert counts.sum() == counts[allowed].sum() == 12_000
    assert chisquare(counts[allowed]).pvalue > 1e-3
    pairs = np.bincount(drawn[:, 0].numpy() * 12 + drawn[:, 1].numpy())
    assert chisquare(pairs[pairs > 0]).pvalue > 1e-3  # a row's negatives are independent
    assert np.count_nonzero(pairs) == len(allowed) ** 2


def test_orders_are_uniform_over_permutations():
    seen = np.array([[1, 1, 1, 0], [0, 0, 0, 1]])
    data = TrainingPairs.of(dataset(seen))
    orders = [
        tuple(bpr_epoch(data, Draws(seed), epoch, 0).positive.tolist())
        for seed in range(20)
        for epoch in range(60)
    ]
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert sum(counts) == 1200
    assert chisquare(counts).pvalue > 1e-3


def test_seen_is_the_training_table():
    seen = np.random.default_rng(4).random((7, 9)) < 0.4
    data = TrainingPairs.of(dataset(seen))
    got = data.seen(torch.arange(7)[:, None], torch.arange(9)[None, :])
    np.testing.assert_array_equal(got.numpy(), seen)


def test_a_user_who_has_the_whole_pool_is_refused_by_name():
    seen = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0]])
    with pytest.raises(ValueError, match="user 1 has interacted with all 3 training items"):
        TrainingPairs.of(dataset(seen))
