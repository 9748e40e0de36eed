import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mmrec.config import override
from mmrec.data.conditions import Condition, apply
from mmrec.data.dataset import Dataset, Dense, Tags
from mmrec.data.planted import Modality, Planted, planted

RANDOM = ("noise", "matched", "shuffle")
FILLERS = (*RANDOM, "constant", "zero", "mean")


@pytest.fixture(scope="module")
def data():
    """Modalities `text`, whole, and `image`, 30 of whose 150 rows are missing."""
    modalities = (Modality(name="text", width=16), Modality(name="image", width=12, missing=0.2))
    return planted(Planted(users=60, items=150, interactions=1000, modalities=modalities))


def knocked(data, filler, *names, seed=0):
    return apply(Condition(modalities=names or ("image",), filler=filler, seed=seed), data)


def rows(data, name="image"):
    feature = data.features[name]
    assert isinstance(feature, Dense)
    return feature.values[feature.present]


def as_sorted(values):
    return values[np.lexsort(values.T)]


def test_the_baseline_changes_nothing(data):
    assert apply(Condition(), data) is data
    assert Condition().name == "baseline"


@pytest.mark.parametrize("filler", FILLERS)
def test_only_the_named_modality_changes(data, filler):
    other = knocked(data, filler)
    assert other.digest != data.digest
    assert other.condition == f"image={filler}"
    assert other.features["text"] is data.features["text"]
    for part in ("train", "valid", "test"):
        assert other.part(part) is data.part(part)
    image = other.features["image"]
    assert isinstance(image, Dense)
    np.testing.assert_array_equal(image.present, data.features["image"].present)
    assert not image.values[~image.present].any()
    assert (image.values.shape, image.values.dtype) == ((150, 12), np.float32)
    assert not image.values.flags.writeable


def test_constants_by_hand(data):
    assert (rows(knocked(data, "constant")) == 1).all()
    assert (rows(knocked(data, "zero")) == 0).all()
    mean = rows(data).astype(np.float64).mean(0)
    np.testing.assert_allclose(rows(knocked(data, "mean")), np.tile(mean, (120, 1)), atol=1e-6)


@given(seed=st.integers(0, 50))
def test_shuffle_keeps_the_rows_and_moves_them(seed):
    base = planted(Planted(users=30, items=40, interactions=200))
    after = rows(knocked(base, "shuffle", "text", seed=seed), "text")
    before = rows(base, "text")
    np.testing.assert_array_equal(as_sorted(after), as_sorted(before))
    assert (after != before).any(axis=1).sum() > 30  # one fixed point is expected, of 40


def test_shuffles_of_two_modalities_differ(data):
    names = ("left", "right")
    whole = data.features["text"]
    twins = Dataset(
        "twins", 60, 150, data.train, data.valid, data.test, dict.fromkeys(names, whole)
    )
    both = knocked(twins, "shuffle", *names)
    assert (rows(both, "left") != rows(both, "right")).any()


def test_noise_is_that_of_the_paper(data):
    values = rows(knocked(data, "noise")).astype(np.float64)
    # 1440 draws: deviations of the mean 0.0026, of the deviation 0.0019; 4 of each.
    assert values.mean() == pytest.approx(1, abs=0.011)
    assert values.std() == pytest.approx(0.1, abs=0.008)


def test_matched_noise_has_the_columns_own_moments_and_none_of_their_relations():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((4000, 1)) * [1, 5] + [0, 30]
    feature = Dense(np.ones(4000, bool), values.astype(np.float32))
    pairs = [np.array([[0, n]]) for n in range(3)]
    base = Dataset("columns", 1, 4000, *pairs, features={"audio": feature})
    after = np.array(rows(knocked(base, "matched", "audio"), "audio"), dtype=np.float64)
    np.testing.assert_allclose(after.mean(0), values.mean(0), atol=0.4)  # 5 / sqrt(4000) x 5
    np.testing.assert_allclose(after.std(0), values.std(0), rtol=0.06)
    assert np.corrcoef(*values.T)[0, 1] > 0.99
    assert abs(np.corrcoef(*after.T)[0, 1]) < 0.08


@pytest.mark.parametrize("filler", RANDOM)
def test_draws_follow_the_seed_and_not_the_company(data, filler):
    assert knocked(data, filler).digest == knocked(data, filler).digest
    assert knocked(data, filler).digest != knocked(data, filler, seed=1).digest
    both = knocked(data, filler, "text", "image")
    np.testing.assert_array_equal(rows(both), rows(knocked(data, filler)))


def test_an_unknown_modality_is_refused_by_name(data):
    with pytest.raises(KeyError, match="no modality 'audio'; it has: image, text"):
        knocked(data, "zero", "audio")


def test_a_modality_without_vectors_is_refused(data):
    tags = Tags(np.ones(150, bool), np.arange(151), np.zeros(150, np.int64), ("a",))
    tagged = Dataset("tagged", 60, 150, data.train, data.valid, data.test, {"tags": tags})
    with pytest.raises(ValueError, match="'tags' is of kind tags: only dense ones"):
        knocked(tagged, "noise", "tags")


def test_a_second_condition_is_refused(data):
    with pytest.raises(ValueError, match="already under 'image=zero'"):
        knocked(knocked(data, "zero"), "noise")


def test_names_for_tables():
    assert Condition(modalities=("text", "image"), filler="noise").name == "image+text=noise"
    assert Condition(modalities=("text",), filler="shuffle", seed=3).name == "text=shuffle#3"


def test_the_order_of_modalities_does_not_make_another_condition():
    one, two = (Condition(modalities=m, filler="mean") for m in (("a", "b"), ("b", "a")))
    assert one == two
    text = TypeAdapter(Condition).dump_json(one)
    assert TypeAdapter(Condition).validate_json(text) == one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modalities": ("text",)}, "both modalities and a filler, or neither"),
        ({"filler": "zero"}, "both modalities and a filler, or neither"),
        ({"filler": "blur"}, "Input should be 'none', 'noise', 'matched'"),
        ({"modalities": ("a", "a"), "filler": "zero"}, "named more than once"),
    ],
)
def test_half_a_condition_is_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        Condition(**change)
    assert override(Condition(), {"seed": 2}).seed == 2
