"""Letters in names: U users, E interactions, B users asked for, L length of a history."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec.data.conditions import Condition, apply
from mmrec.data.dataset import Dataset, Part
from mmrec.data.histories import NOTHING, histories, require_ordered, targets
from mmrec.data.raw import Raw
from mmrec.data.readers import read_folder
from mmrec.data.splits import split


@pytest.fixture
def data():
    """Users 0 and 3 take turns; user 1 is unknown until valid, user 2 is never met."""
    train = np.array([[3, 7], [0, 4], [3, 1], [0, 9], [3, 0], [0, 2]])
    valid = np.array([[1, 5], [0, 0], [3, 8], [0, 7]])
    return Dataset("hand", 4, 10, train, valid, np.array([[0, 1]]), ordered=True)


def of_users(found):
    ends = zip(found.starts[:-1], found.starts[1:], strict=True)
    return [found.items[start:end].tolist() for start, end in ends]


def test_what_is_known_of_each_user_by_hand(data):
    assert of_users(histories(data, "valid")) == [[4, 9, 2], [], [], [7, 1, 0]]
    assert of_users(histories(data, "test")) == [[4, 9, 2, 0, 7], [5], [], [7, 1, 0, 8]]


def test_the_latest_items_by_hand(data):
    known = histories(data, "test")
    x = NOTHING
    assert known.last(np.array([3, 0, 2, 1, 3]), 3).tolist() == [
        [1, 0, 8], [2, 0, 7], [x, x, x], [x, x, 5], [1, 0, 8]
    ]  # fmt: skip
    assert known.last(np.array([1, 0]), 6).tolist() == [[x, x, x, x, x, 5], [x, 4, 9, 2, 0, 7]]
    # User 3's items stand at 6 to 9: what was before her first, before her third, at her end.
    at, user = np.array([6, 8, 10]), np.array([3, 3, 3])
    assert known.before(at, user, 2).tolist() == [[x, x], [7, 1], [0, 8]]


def test_targets_by_hand(data):
    found = targets(data, 2)
    assert found.user.tolist() == [0, 0, 3, 3]
    assert found.item.tolist() == [9, 2, 1, 0]
    assert found.history.tolist() == [[NOTHING, 4], [4, 9], [NOTHING, 7], [7, 1]]


sequences = st.lists(
    st.lists(st.integers(0, 11), unique=True, max_size=8), min_size=1, max_size=6
).filter(lambda rows: any(len(row) > 3 for row in rows))


@given(rows=sequences, length=st.integers(1, 9), shuffle=st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_histories_and_targets_are_those_of_a_plain_loop(rows, length, shuffle):
    turns = [user for user, row in enumerate(rows) for _ in row]
    shuffle.shuffle(turns)
    left = [iter(row) for row in rows]
    pairs = np.array([(user, next(left[user])) for user in turns])
    raw = Raw("loop", len(rows), 12, pairs, ordered=True)
    data = split(raw, "leave-one-out")
    assert data.ordered
    parts: dict[Part, list[list[int]]] = {"valid": [], "test": []}
    expected = []
    for user, row in enumerate(rows):
        cut = len(row) - 2 if len(row) >= 3 else len(row)
        parts["valid"].append(row[:cut])
        parts["test"].append(row[: cut + 1])
        for at in range(1, cut):
            expected.append((user, row[at], padded(row[:at], length)))
    for part, known in parts.items():
        found = histories(data, part)
        assert of_users(found) == known
        last_BL = found.last(np.arange(len(rows)), length)
        assert last_BL.tolist() == [padded(row, length) for row in known]
    found = targets(data, length)
    columns = (found.user, found.item, found.history)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected


def padded(row, length):
    return ([NOTHING] * length + row)[-length:]


def test_ties_in_time_keep_the_order_of_the_file(tmp_path):
    rows = ["0\t5\t20", "0\t3\t10", "0\t4\t10", "0\t1\t10", "0\t0\t30", "0\t2\t30"]
    text = "userID\titemID\ttimestamp\n" + "".join(f"{row}\n" for row in rows)
    (tmp_path / "shop.inter").write_text(text)
    data = split(read_folder(tmp_path), "leave-one-out")
    assert of_users(histories(data, "test")) == [[3, 4, 1, 5, 0]]
    assert data.test.tolist() == [[0, 2]]


def raw_of(label=None, *, ordered=True):
    pairs = np.array([[user, item] for user in range(20) for item in range(6)])
    return Raw("shop", 20, 6, pairs, label=label, ordered=ordered)


@pytest.mark.parametrize(
    ("how", "label", "expected"),
    [
        ("leave-one-out", None, True),
        ("random", None, False),
        ("cold-item", None, False),  # items are held out of the middle
        ("cold-user", None, True),  # a user is in one part
        ("given", [0, 0, 0, 1, 1, 2], True),
        ("given", [0, 0, 0, 1, 2, 1], False),
        ("given", [0, 0, 1, 0, 1, 2], False),
    ],
)
def test_which_splits_are_in_order_of_time(how, label, expected):
    raw = raw_of(None if label is None else np.tile(label, 20))
    data = split(raw, how)
    assert data.ordered == expected
    if how != "leave-one-out":
        assert not split(dataclasses.replace(raw, ordered=False), how).ordered


def test_one_user_out_of_order_is_enough():
    label = np.tile([0, 0, 0, 1, 1, 2], 20)
    label[[6 * 13 + 3, 6 * 13 + 5]] = label[[6 * 13 + 5, 6 * 13 + 3]]
    assert not split(raw_of(label), "given").ordered


def test_a_condition_leaves_the_order(data):
    thin = apply(Condition(density=0.5), split(raw_of(), "leave-one-out"))
    assert thin.ordered
    # Four training items a user in order of their numbers, of which two are left.
    assert all(len(row) == 2 and row[0] < row[1] for row in of_users(histories(thin, "valid")))


def test_what_has_no_order_is_refused_by_name(data):
    message = "'hand', split 'given', is not in order of time, .* --split leave-one-out gives"
    other = dataclasses.replace(data, ordered=False)
    for ask in (require_ordered, lambda d: histories(d, "test"), lambda d: targets(d, 3)):
        with pytest.raises(ValueError, match=message):
            ask(other)
    require_ordered(data)


def test_where_nothing_comes_next_there_are_no_targets(data):
    ones = dataclasses.replace(data, train=data.train[:2])
    with pytest.raises(ValueError, match="'hand': no user has two training items, so that nothing"):
        targets(ones, 3)
