import dataclasses

import numpy as np
import pytest

from mmrec.data.checks import check, seal
from mmrec.data.dataset import Category, Codes, Dataset, Dense, Neighbours, Tags

HERE = np.ones(4, dtype=bool)


def pairs(*rows):
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def with_feature(feature):
    return dataclasses.replace(good(), features={"x": feature})


def good():
    dense = Dense(
        np.array([True, True, False, True]), np.eye(4, 3, dtype=np.float32) * [[1], [1], [0], [1]]
    )
    return Dataset(
        "shop", 3, 4, pairs((0, 0), (1, 1), (2, 3)), pairs((0, 1)), pairs((0, 2)), {"x": dense}
    )


def test_a_sound_dataset_passes_and_is_sealed():
    data = seal(good())
    with pytest.raises(ValueError, match="read-only"):
        data.train[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        data.features["x"].present[0] = False


@pytest.mark.parametrize(
    ("part", "rows", "message"),
    [
        ("valid", pairs((3, 0)), r"'shop valid users': 1 ids are outside 0..2 \(first: 3\)"),
        ("test", pairs((0, 9), (1, -1)), r"'shop test items': 2 ids are outside 0..3 \(first: 9"),
        ("train", pairs(), "'shop': the train part of the split 'given' is empty"),
        ("valid", pairs(), "the valid part .* is empty"),
        ("test", pairs(), "the test part .* is empty"),
        ("test", pairs((0, 2), (0, 2)), r"1 interactions are duplicates .*user 0, item 2"),
        ("valid", pairs((2, 3), (1, 1)), r"2 interactions are duplicates .*user 1, item 1"),
        ("train", np.array([[0, 1, 2]]), r"'shop train': pairs must be .* got \(1, 3\)"),
        ("train", np.array([[0.0, 1.0]]), "must be .*int64 array, got .* of float64"),
    ],
)
def test_bad_interactions_are_refused(part, rows, message):
    with pytest.raises(ValueError, match=message):
        check(dataclasses.replace(good(), **{part: rows}))


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (Dense(HERE[:3], np.zeros((3, 2), np.float32)), "'x' has 3 rows, but there are 4 items"),
        (Dense(HERE, np.zeros((3, 2), np.float32)), "'x': 3 rows of values, but 4 of presence"),
        (Dense(HERE, np.full((4, 2), np.nan, np.float32)), "'x': 4 rows hold NaN or infinities"),
        (Dense(~HERE, np.eye(4, 2, dtype=np.float32)), "'x': 2 missing rows are not zero"),
        (Category(HERE, np.array([0, 1, 2, 2]), ("a", "b")), r"'x levels': 2 ids are outside 0..1"),
        (Codes(HERE, np.array([[0, 4]] * 4), (1, 4)), r"'x level 1': 4 ids are outside 0..3"),
        (Codes(HERE, np.zeros((4, 3), int), (1, 4)), "'x': 3 codes an item, but 2 code-book sizes"),
        (Tags(HERE, np.arange(5), np.arange(4), ("a",)), r"'x labels': 3 ids are outside 0..0"),
        (
            Neighbours(HERE, np.arange(5), np.array([0, 1, 2, 4]), np.ones(4, np.float32)),
            r"'x neighbours': 1 ids are outside 0..3",
        ),
    ],
)
def test_bad_features_are_refused(feature, message):
    with pytest.raises(ValueError, match=message):
        check(with_feature(feature))


def test_user_features_are_counted_against_users():
    data = dataclasses.replace(
        good(), user_features={"age": Category(HERE, np.zeros(4, int), ("9",))}
    )
    with pytest.raises(ValueError, match="'age' has 4 rows, but there are 3 users"):
        check(data)
