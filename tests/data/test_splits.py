import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec.data.dataset import Dense
from mmrec.data.raw import Raw, scaled, with_k_core, with_min_rating
from mmrec.data.splits import split


def raw_of(pairs, **more):
    pairs = np.array(pairs, dtype=np.int64)
    users, items = (int(n) + 1 for n in pairs.max(0))
    return Raw("shop", users, items, pairs, **more)


def grid(counts, items=60):
    """User u has `counts[u]` interactions, in an order of items of its own."""
    rng = np.random.default_rng(3)
    return raw_of([(u, i) for u, n in enumerate(counts) for i in rng.permutation(items)[:n]])


def per_user(pairs, users):
    return np.bincount(pairs[:, 0], minlength=users)


def as_set(pairs):
    return set(map(tuple, pairs.tolist()))


@given(counts=st.lists(st.integers(1, 45), min_size=1, max_size=6), seed=st.integers(0, 9))
def test_random_gives_each_user_a_tenth_rounded_up_twice(counts, seed):
    counts = [*counts, 3]  # at least one user has enough for every part
    raw = grid(counts)
    data = split(raw, "random", seed)
    held = [0 if n < 3 else -(-n // 10) for n in counts]
    assert per_user(data.valid, len(counts)).tolist() == held
    assert per_user(data.test, len(counts)).tolist() == held
    parts = [as_set(part) for part in (data.train, data.valid, data.test)]
    assert set.union(*parts) == as_set(raw.pairs)
    assert sum(map(len, parts)) == len(raw.pairs)


def test_random_is_fixed_by_its_seed():
    raw = grid([30] * 8)
    first, again, other = (split(raw, "random", seed) for seed in (42, 42, 43))
    assert first.digest == again.digest != other.digest
    assert split(raw, "random").digest == first.digest


def test_random_holds_out_all_of_a_users_rows_equally_often():
    raw = grid([20])
    tests = [split(raw, "random", seed).test[:, 1] for seed in range(600)]
    hits = np.bincount(np.searchsorted(np.sort(raw.pairs[:, 1]), np.concatenate(tests)))
    # 2 of 20 in each of 600 splits: 60 +- 7.3 (binomial); 5 deviations on either side.
    assert len(hits) == 20
    assert 23 < hits.min() <= hits.max() < 97


def test_train_keeps_file_order():
    raw = grid([20, 20])
    data = split(raw, "random")
    place = {pair: n for n, pair in enumerate(map(tuple, raw.pairs.tolist()))}
    order = [place[pair] for pair in map(tuple, data.train.tolist())]
    assert order == sorted(order)


def test_leave_one_out_by_hand():
    pairs = [(0, 4), (1, 0), (0, 2), (1, 1), (0, 1), (0, 3), (2, 0), (2, 1), (2, 2)]
    data = split(raw_of(pairs, ordered=True), "leave-one-out")
    assert data.test.tolist() == [[0, 3], [2, 2]]
    assert data.valid.tolist() == [[0, 1], [2, 1]]
    assert data.train.tolist() == [[0, 4], [1, 0], [0, 2], [1, 1], [2, 0]]  # user 1 has only two
    assert data.split == "leave-one-out"


def test_leave_one_out_needs_time():
    with pytest.raises(ValueError, match="'shop' has neither timestamps nor sequences"):
        split(grid([5]), "leave-one-out")


@pytest.mark.parametrize(("how", "side"), [("cold-user", 0), ("cold-item", 1)])
def test_cold_splits_hold_out_a_tenth_of_the_ids_whole(how, side):
    raw = grid([25] * 31, items=47)
    data = split(raw, how)
    ids = [set(part[:, side].tolist()) for part in (data.train, data.valid, data.test)]
    count = len(set(raw.pairs[:, side].tolist()))
    held = {31: 4, 47: 5}[count]
    assert [len(part) for part in ids] == [count - 2 * held, held, held]
    assert len(set.union(*ids)) == count
    assert sum(len(part) for part in (data.train, data.valid, data.test)) == len(raw.pairs)
    assert split(raw, how, 43).digest != data.digest


def test_a_given_split_drops_held_out_rows_of_users_without_training_rows():
    label = np.array([0, 1, 2, 1, 2, 2])
    raw = raw_of([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)], label=label)
    data = split(raw, "given")
    assert (data.valid.tolist(), data.test.tolist()) == ([[0, 1]], [[0, 2]])
    assert data.notes == ("3 valid and test rows of users without training rows dropped",)


def test_a_split_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"'shop' comes without a split; choose random, .*user$"):
        split(grid([5]), "given")
    with pytest.raises(ValueError, match=r"split must be one of given, .*, got 'warm'"):
        split(grid([5]), "warm")  # pyright: ignore[reportArgumentType]


def test_an_empty_part_is_refused_by_name():
    with pytest.raises(ValueError, match="'shop': the valid part of the split 'random' is empty"):
        split(grid([2, 2, 1]), "random")


def test_min_rating_keeps_ids_and_needs_ratings():
    rating = np.array([5.0, 3.0, 4.0])
    raw = with_min_rating(raw_of([(0, 0), (1, 1), (2, 3)], rating=rating), 4)
    assert raw.pairs.tolist() == [[0, 0], [2, 3]]
    assert (raw.num_users, raw.num_items) == (3, 4)
    assert raw.notes == ("min_rating 4: 2 of 3 interactions kept",)
    with pytest.raises(ValueError, match="'shop' has no rating of 6 or better"):
        with_min_rating(raw, 6)
    with pytest.raises(ValueError, match="'shop' has no ratings: min_rating=4 cannot apply"):
        with_min_rating(grid([3]), 4)


def core_by_hand(pairs, k):
    """One removal at a time, until nobody has fewer than k."""
    pairs = set(pairs)
    while True:
        few = [p for p in pairs for s in (0, 1) if sum(q[s] == p[s] for q in pairs) < k]
        if not few:
            return pairs
        pairs.remove(few[0])


@given(
    pairs=st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30),
    k=st.integers(1, 4),
)
def test_k_core_is_the_largest_set_where_everybody_has_k(pairs, k):
    raw = raw_of(sorted(pairs))
    expected = core_by_hand(pairs, k)
    if not expected:
        with pytest.raises(ValueError, match=f"k_core={k} leaves nothing of dataset 'shop'"):
            with_k_core(raw, k)
        return
    cored = with_k_core(raw, k)
    users, items = (sorted({pair[side] for pair in expected}) for side in (0, 1))
    assert {(users[u], items[i]) for u, i in cored.pairs.tolist()} == expected
    assert (cored.num_users, cored.num_items) == (len(users), len(items))


def test_feature_rows_follow_the_k_core():
    values = np.arange(4, dtype=np.float32)[:, None]
    table = {"x": Dense(np.ones(4, bool), values)}
    pairs = [(0, 0), (1, 1), (1, 3), (3, 1), (3, 3), (2, 2)]
    cored = with_k_core(raw_of(pairs, features=table, user_features=table), 2)
    assert cored.pairs.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    for features in (cored.features, cored.user_features):
        assert features["x"].arrays()["values"].tolist() == [[1], [3]]
    note = "k_core 2: 2 of 4 users, 2 of 4 items, 4 of 6 interactions kept"
    assert cored.notes == (note,)


def test_scaling_reaches_both_sides_and_tells():
    table = {"loud": Dense(np.ones(2, bool), np.array([[100.0], [300.0]], np.float32))}
    raw = scaled(raw_of([(0, 0), (1, 1)], features=table, user_features=table), "auto")
    for features in (raw.features, raw.user_features):
        assert features["loud"].arrays()["values"].tolist() == [[-1], [1]]
    assert len(raw.notes) == 2
