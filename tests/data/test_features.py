import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from mmrec.data import features
from mmrec.data.dataset import Category, Codes, Dense, Neighbours, Tags
from mmrec.data.features import rescaled, take

NAN = np.nan


def test_rows_wholly_nan_are_missing_and_counted():
    feature, notes = features.dense(np.array([[1.0, 2.0], [NAN, NAN], [3.0, 4.0]]), "text")
    assert feature.present.tolist() == [True, False, True]
    assert feature.values.tolist() == [[1, 2], [0, 0], [3, 4]]
    assert feature.values.dtype == np.float32
    assert notes == ("text: 1 of 3 rows are NaN, taken as missing",)


@pytest.mark.parametrize("bad", [[NAN, 1.0], [np.inf, 1.0], [-np.inf, NAN], [1e300, 1.0]])
def test_broken_rows_are_refused_with_modality_and_count(bad):
    with pytest.raises(ValueError, match=r"'image': 2 rows are partly NaN .* \(first: row 1\)"):
        features.dense(np.array([[0.0, 1.0], bad, [NAN, NAN], bad]), "image")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(3), r"'image': expected an \(N, F\) array of numbers, got shape \(3,\)"),
        (np.zeros((3, 0)), r"got shape \(3, 0\)"),
        (np.array([["a"]]), r"'image': expected .* of <U1"),
        (np.full((2, 2), NAN), r"'image': all 2 rows are missing"),
    ],
)
def test_what_is_no_feature_table_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        features.dense(values, "image")


def test_a_number_is_scaled_from_the_least_to_the_greatest_and_gaps_are_missing():
    feature = features.number(np.array([3, 0, 4, 1]), np.array([40.0, 15, NAN, 65]), 5, "age")
    assert feature.present.tolist() == [True, True, False, True, False]
    assert feature.values.tolist() == [[0], [1], [0], [0.5], [0]]
    assert feature.values.dtype == np.float32


@settings(max_examples=30)
@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=20, unique=True))
def test_numbers_agree_with_scikit_learn_whatever_the_unit(ages):
    rows, years = np.arange(len(ages)), np.array(ages, dtype=np.float64)
    found = features.number(rows, years, len(ages), "age").values
    expected = MinMaxScaler().fit_transform(years[:, None])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    days = features.number(rows, 365 * years + 7, len(ages), "age").values
    np.testing.assert_allclose(days, found, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "values", "message"),
    [
        ([0, 1], [30.0, 30], "'age': all 2 numbers are 30: no variation"),
        ([0, 1], [NAN, NAN], "'age': not one row has a number"),
        ([0, 0], [30.0, 40], "'age': row 0 is given more than once"),
        ([0, 3], [30.0, 40], r"'age': 1 ids are outside 0..2 \(first: 3\)"),
    ],
)
def test_bad_numbers_are_refused(rows, values, message):
    with pytest.raises(ValueError, match=message):
        features.number(np.array(rows), np.array(values), 3, "age")


def dense(values, present=None):
    values = np.asarray(values, dtype=np.float32)
    return Dense(np.ones(len(values), bool) if present is None else np.array(present), values)


def test_standardising_agrees_with_scikit_learn_over_the_present_rows(rng):
    values = rng.normal(40, [3, 50, 0.1], (30, 3)).astype(np.float32)
    present = np.arange(30) % 5 != 2
    scaled, notes = rescaled(dense(values * present[:, None], present), "audio", "auto")
    expected = StandardScaler().fit_transform(values[present].astype(np.float64))
    np.testing.assert_allclose(scaled.values[present], expected, atol=1e-5)
    assert not scaled.values[~present].any()
    assert len(notes) == 1
    assert notes[0].startswith("audio: columns standardised (root mean square was ")


@pytest.mark.parametrize(("level", "standardised"), [(9.9, False), (10.1, True)])
def test_auto_standardises_beyond_a_root_mean_square_of_ten(level, standardised):
    values = level * np.array([[1, -1], [-1, 1], [0, 0]])  # row 2 is missing: not in the mean
    feature = dense(values, [True, True, False])
    scaled, _ = rescaled(feature, "audio", "auto")
    assert (scaled is feature) == (not standardised)
    assert rescaled(feature, "audio", "none")[0] is feature
    np.testing.assert_allclose(rescaled(feature, "audio", "standard")[0].values, values / level)


def test_columns_without_variation_become_zero_and_are_counted(rng):
    values = rng.normal(0, 20, (50, 4))
    values[:, 1] = 7.0
    values[:, 3] = 1e-7 * rng.standard_normal(50)
    scaled, notes = rescaled(dense(values), "audio", "auto")
    assert scaled.values.any(axis=0).tolist() == [True, False, True, False]
    assert "2 of 4 columns without variation set to 0" in notes[0]


def test_a_constant_table_is_zero_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaled, _ = rescaled(dense(np.full((3, 2), 50.0)), "audio", "auto")
    assert not scaled.values.any()


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="scale must be auto, standard or none, got 'log'"):
        rescaled(dense([[1.0]]), "audio", "log")  # pyright: ignore[reportArgumentType]


def test_tags_by_hand():
    row = np.array([2, 0, 2, 0, 2])
    label = np.array(["rock", "jazz", "folk", "NA", "rock"], dtype=object)
    tags = features.tags(row, label, 4, "tags")
    assert tags.names == ("NA", "folk", "jazz", "rock")
    assert tags.starts.tolist() == [0, 2, 2, 4, 4]
    assert tags.ids.tolist() == [0, 2, 1, 3]
    assert tags.present.tolist() == [True, False, True, False]


def test_category_by_hand():
    level = np.array(["F", "", "M"], dtype=object)
    category = features.category(np.array([3, 1, 0]), level, 4, "gender")
    assert category.names == ("F", "M")
    assert category.codes.tolist() == [1, 0, 0, 0]
    assert category.present.tolist() == [True, False, False, True]


def test_category_and_tags_refuse_what_does_not_fit():
    words = np.array(["a", "b"], dtype=object)
    with pytest.raises(ValueError, match="'gender': row 1 is given more than once"):
        features.category(np.array([1, 1]), words, 4, "gender")
    with pytest.raises(ValueError, match=r"'gender': 1 ids are outside 0..3 \(first: 4\)"):
        features.category(np.array([1, 4]), words, 4, "gender")
    with pytest.raises(ValueError, match=r"'tags': 2 ids are outside 0..0 \(first: -1\)"):
        features.tags(np.array([-1, 4]), words, 1, "tags")
    with pytest.raises(ValueError, match="'tags': not one row has a label"):
        features.tags(np.array([], dtype=np.int64), words[:0], 3, "tags")


def test_codes_by_hand():
    codes, notes = features.codes([["<a_3>", "<B_0>"], ["<a_1>", "<B_4>"]], 2, "text_codes")
    assert codes.codes.tolist() == [[3, 0], [1, 4]]
    assert codes.sizes == (4, 5)
    assert notes == ()
    _, notes = features.codes([[1, "2"], ["a_1", 2], [1, 3]], 3, "text_codes")
    assert notes == ("text_codes: 3 items share 2 distinct codes",)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([[1]], "'c': codes of 1 items, but there are 2"),
        ([[1], [1, 2]], r"'c': every item needs .* lengths \[1, 2\]"),
        ([[1], "x"], r"lengths \[0, 1\]"),
        ([[1], ["-2"]], "'c': item 1 has '-2', which is no code"),
    ],
)
def test_codes_refuse_what_is_no_code(words, message):
    with pytest.raises(ValueError, match=message):
        features.codes(words, 2, "c")


def csr(matrix):
    matrix = np.asarray(matrix, dtype=np.float32)
    starts = np.concatenate([[0], np.cumsum((matrix != 0).sum(1))])
    rows, ids = np.nonzero(matrix)
    return starts, ids, matrix[rows, ids]


def test_neighbours_by_hand():
    starts, ids, weights = csr([[0.5, 0.25, 0], [0, 0, 0], [0.125, 0, 0]])
    arrays = {"indptr": starts, "indices": ids, "data": weights, "shape": np.array([3, 3])}
    graph, notes = features.neighbours(arrays, 3, "poster")
    assert graph.present.tolist() == [True, False, True]
    assert graph.weights.tolist() == [0.5, 0.25, 0.125]
    assert notes == ("poster: 1 rows of the graph name themselves as a neighbour, kept",)
    with pytest.raises(ValueError, match=r"'poster': a graph of shape \(3, 3\), but there are 4"):
        features.neighbours(arrays, 4, "poster")
    with pytest.raises(ValueError, match="'poster': indptr, indices and data do not make"):
        features.neighbours({**arrays, "data": weights[:-1]}, 3, "poster")


def as_matrix(feature, columns):
    """Dense form of tags or of a graph, independent of scipy."""
    weights = feature.weights if isinstance(feature, Neighbours) else np.ones(len(feature.ids))
    matrix = np.zeros((len(feature), columns))
    matrix[np.repeat(np.arange(len(feature)), np.diff(feature.starts)), feature.ids] = weights
    return matrix


@given(data=st.data(), count=st.integers(1, 8), seed=st.integers(0, 99))
def test_taking_rows_is_indexing_whatever_the_kind(data, count, seed):
    rows = np.array(data.draw(st.lists(st.integers(0, count - 1), unique=True, min_size=1)))
    rng = np.random.default_rng(seed)
    present = rng.random(count) < 0.7
    values = rng.standard_normal((count, 3)).astype(np.float32)
    np.testing.assert_array_equal(take(Dense(present, values), rows).present, present[rows])
    taken = take(Dense(present, values), rows)
    assert isinstance(taken, Dense)
    np.testing.assert_array_equal(taken.values, values[rows])
    number = rng.integers(0, 5, (count, 2))
    taken = take(Codes(present, number, (5, 5)), rows)
    assert isinstance(taken, Codes)
    np.testing.assert_array_equal(taken.codes, number[rows])
    taken = take(Category(present, number[:, 0], tuple("abcde")), rows)
    assert isinstance(taken, Category)
    np.testing.assert_array_equal(taken.codes, number[rows, 0])
    member = rng.random((count, 4)) < 0.5
    starts, ids, _ = csr(member)
    taken = take(Tags(np.asarray(member.any(1)), starts, ids, tuple("abcd")), rows)
    np.testing.assert_array_equal(as_matrix(taken, 4), member[rows])
    graph = np.where(rng.random((count, count)) < 0.5, rng.random((count, count)), 0)
    starts, ids, weights = csr(graph)
    taken = take(Neighbours(np.asarray(graph.any(1)), starts, ids, weights), rows)
    kept = graph[rows][:, rows]
    np.testing.assert_array_equal(as_matrix(taken, len(rows)), kept.astype(np.float32))
    np.testing.assert_array_equal(taken.present, kept.any(1))


@pytest.mark.parametrize(
    ("feature", "line"),
    [
        (
            dense(np.zeros((8, 3)), [True] * 7 + [False]),
            "dense, 3 columns, 7 of 8 present (87.5 %)",
        ),
        (dense([[0], [1]]), "dense, 1 column, 2 of 2 present (100 %)"),
        (
            features.tags(np.array([0, 0, 2]), np.array(["a", "b", "a"], object), 4, "tags"),
            "tags, 2 tags, 1.5 each, 2 of 4 present (50 %)",
        ),
        (
            features.category(np.array([0, 1]), np.array(["m", "f"], object), 2, "gender"),
            "category, 2 levels (f, m), 2 of 2 present (100 %)",
        ),
        (
            features.category(np.arange(10), np.arange(10).astype(str).astype(object), 10, "age"),
            "category, 10 levels (0, 1, 2, 3, 4, 5, 6, 7, ...), 10 of 10 present (100 %)",
        ),
        (
            features.codes([["a_1", "b_0"], ["a_4", "b_2"]], 2, "codes")[0],
            "codes, code books of 5, 3, 2 of 2 present (100 %)",
        ),
    ],
)
def test_what_a_modality_holds_in_a_line(feature, line):
    assert features.described(feature) == line
