import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mmrec.config import changed, override
from mmrec.data.conditions import Condition, apply
from mmrec.data.dataset import Dataset, Dense, Tags
from mmrec.data.planted import Modality, Planted, planted
from mmrec.evaluation import PROTOCOLS
from mmrec.models.mgr import MGR
from mmrec.training import Run, RunConfig, TrainConfig, fit
from tests.models.every import READERS

RANDOM = ("noise", "matched", "shuffle")
FILLERS = (*RANDOM, "constant", "zero", "mean")
WHENS = ("train+eval", "eval")
KNOCKOUT = {"modalities": ("text", "image"), "filler": "noise"}


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
@settings(deadline=None)
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


@pytest.fixture(scope="module")
def tagged(data):
    tags = Tags(np.ones(150, bool), np.arange(151), np.zeros(150, np.int64), ("a",))
    return dataclasses.replace(data, features={**data.features, "tags": tags})


def test_a_modality_without_vectors_is_refused(tagged):
    with pytest.raises(ValueError, match=r"'tags' is of kind tags: only dense ones .* by 'noise'"):
        knocked(tagged, "noise", "tags")


def test_a_second_condition_is_refused(data):
    with pytest.raises(ValueError, match="already under 'image=zero'"):
        knocked(knocked(data, "zero"), "noise")


@pytest.mark.parametrize(
    ("fields", "name", "knocked", "swapped"),
    [
        ({}, "baseline", "", ""),
        (KNOCKOUT, "image+text=noise", "image+text", ""),
        ({"modalities": ("text",), "filler": "mean", "seed": 3}, "text=mean#3", "text", ""),
        ({**KNOCKOUT, "when": "eval"}, "image+text=noise@eval", "image+text", ""),
        ({**KNOCKOUT, "when": "eval", "seed": 1}, "image+text=noise#1@eval", "image+text", ""),
        ({"swap": (("text", "tagtext"),)}, "text<-tagtext", "", "text<-tagtext"),
        (
            {"swap": (("text", "tagtext"), ("image", "vit")), "when": "eval"},
            "image<-vit,text<-tagtext@eval",
            "",
            "image<-vit,text<-tagtext",
        ),
        ({"density": 0.25}, "density=0.25", "", ""),
        ({"density": 0.5, **KNOCKOUT}, "density=0.5,image+text=noise", "image+text", ""),
        (
            {"density": 0.1, "swap": (("text", "tagtext"),), "seed": 1},
            "density=0.1,text<-tagtext#1",
            "",
            "text<-tagtext",
        ),
        ({"missing": ("text", "image")}, "missing=image+text", "", ""),
        (
            {"missing": ("text", "interactions"), "when": "eval"},
            "missing=interactions+text@eval",
            "",
            "",
        ),
        (
            {**KNOCKOUT, "density": 0.5, "missing": ("sound",), "swap": (("vit", "a"),), "seed": 3},
            "density=0.5,vit<-a,image+text=noise,missing=sound#3",
            "image+text",
            "vit<-a",
        ),
        (
            {**KNOCKOUT, "swap": (("sound", "vggish"),), "seed": 2},
            "sound<-vggish,image+text=noise#2",
            "image+text",
            "sound<-vggish",
        ),
    ],
)
def test_names_for_tables(fields, name, knocked, swapped):
    condition = Condition(**fields)
    assert (condition.name, condition.knocked, condition.swapped) == (name, knocked, swapped)
    assert condition.baseline == (name == "baseline")


def test_what_names_a_trial_does_not_grow_with_what_it_does_not_use():
    """So that trials keep their names when a condition can say more."""
    assert changed(Condition()) == {"": "Condition"}
    assert changed(Condition(**KNOCKOUT)) == {
        "": "Condition",
        "modalities": ["image", "text"],
        "filler": "noise",
    }
    assert changed(Condition(**KNOCKOUT, when="eval")) != changed(Condition(**KNOCKOUT))
    assert changed(Condition(density=1.0)) == {"": "Condition"}
    assert changed(Condition(density=0.5)) == {"": "Condition", "density": 0.5}
    assert changed(Condition(missing=("b", "a"))) == {"": "Condition", "missing": ["a", "b"]}


def test_when_is_the_callers_business(data):
    now, later = (apply(Condition(**KNOCKOUT, when=when), data) for when in WHENS)
    assert now.digest == later.digest
    assert later.condition == "image+text=noise@eval"


def test_the_order_of_modalities_does_not_make_another_condition():
    one, two = (Condition(modalities=m, filler="mean") for m in (("a", "b"), ("b", "a")))
    assert one == two
    swaps = (("a", "b"), ("c", "d"))
    assert Condition(swap=swaps) == Condition(swap=swaps[::-1])
    whole = override(one, {"swap": [["d", "c"], ["c", "d"]]})
    text = TypeAdapter(Condition).dump_json(whole)
    assert TypeAdapter(Condition).validate_json(text) == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modalities": ("text",)}, "both modalities and a filler, or neither"),
        ({"filler": "zero"}, "both modalities and a filler, or neither"),
        ({"filler": "blur"}, "Input should be 'none', 'noise', 'matched'"),
        ({"modalities": ("a", "a"), "filler": "zero"}, "named more than once"),
        ({"when": "eval"}, "the baseline replaces nothing: it cannot do so at 'eval' only"),
        ({"modalities": ("a",), "filler": "zero", "when": "test"}, "'train.eval' or 'eval'"),
        ({"density": 0.0}, "greater than 0"),
        ({"density": 1.5}, "less than or equal to 1"),
        ({"density": 0.5, "when": "eval"}, "a density of 0.5 is of what is trained on"),
        (
            {"density": 0.5, "modalities": ("a",), "filler": "zero", "when": "eval"},
            "a density of 0.5 is of what is trained on",
        ),
        ({"swap": (("a", "b"), ("a", "c"))}, "named more than once"),
        ({"swap": (("a", "a"),)}, r"swapped with themselves: \['a'\]"),
        (
            {"swap": (("a", "b"),), "modalities": ("a",), "filler": "zero"},
            r"both swapped and knocked out: \['a'\]",
        ),
        ({"missing": ("a", "a")}, "named more than once"),
        (
            {"missing": ("b", "a"), "modalities": ("a",), "filler": "zero"},
            r"both knocked out and missing: \['a'\]",
        ),
        ({"missing": ("b", "a"), "swap": (("a", "c"),)}, r"both swapped and missing: \['a'\]"),
        ({"missing": ("interactions",)}, "'interactions' can be missing at 'eval' only"),
        ({"missing": ("a",), "density": 0.5, "when": "eval"}, "a density of 0.5 is of what"),
        ({"modalities": ("missing",), "filler": "zero"}, "called 'missing' has no knockout"),
    ],
)
def test_half_a_condition_is_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        Condition(**change)
    assert override(Condition(), {"seed": 2}).seed == 2


# --- encoder swaps


def test_a_swap_gives_the_other_vectors_and_their_gaps_and_leaves_the_rest(data):
    third = Dense(np.ones(150, bool), np.arange(300, dtype=np.float32).reshape(150, 2))
    wider = dataclasses.replace(data, features={**data.features, "sound": third})
    swapped = apply(Condition(swap=(("text", "image"),)), wider)
    assert swapped.features == {**wider.features, "text": wider.features["image"]}
    assert (swapped.condition, wider.condition) == ("text<-image", "baseline")
    assert swapped.digest != wider.digest
    for part in ("train", "valid", "test"):
        assert swapped.part(part) is wider.part(part)


def test_every_swap_takes_what_was_there_before(data):
    """Also where modalities change places, or the other is knocked out."""
    text, image = data.features["text"], data.features["image"]
    turned = apply(Condition(swap=(("text", "image"), ("image", "text"))), data)
    assert turned.features == {"text": image, "image": text}
    mixed = apply(Condition(swap=(("text", "image"),), modalities=("image",), filler="zero"), data)
    assert mixed.features["text"] is image
    assert not rows(mixed).any()
    assert mixed.condition == "text<-image,image=zero"


@pytest.mark.parametrize(
    ("pair", "kind", "message"),
    [
        (("text", "vit"), KeyError, "no modality 'vit'; it has: image, tags, text"),
        (("vit", "text"), KeyError, "no modality 'vit'; it has: image, tags, text"),
        (("text", "tags"), ValueError, "'tags' is of kind tags: only dense ones"),
        (("tags", "text"), ValueError, "'tags' is of kind tags: only dense ones"),
    ],
)
def test_a_swap_with_what_is_not_there_or_not_dense_is_refused(tagged, pair, kind, message):
    with pytest.raises(kind, match=message):
        apply(Condition(swap=(pair,)), tagged)


# --- density


def as_set(pairs):
    return set(map(tuple, pairs.tolist()))


@pytest.mark.parametrize("density", [0.05, 0.25, 1 / 3, 0.5, 0.99])
def test_a_density_keeps_each_users_share_rounded_up(data, density):
    thinned = apply(Condition(density=density), data)
    count_U, kept_U = (np.bincount(d.train[:, 0], minlength=60) for d in (data, thinned))
    assert count_U.min() > 0
    np.testing.assert_array_equal(kept_U, np.ceil(density * count_U))
    # In the order that they had, and nothing else has changed.
    still = [pair for pair in data.train.tolist() if tuple(pair) in as_set(thinned.train)]
    assert thinned.train.tolist() == still
    assert thinned.valid is data.valid
    assert thinned.test is data.test
    assert thinned.features == data.features
    assert (thinned.num_users, thinned.num_items) == (60, 150)
    assert thinned.condition == f"density={density}"
    assert not thinned.train.flags.writeable


def test_a_share_that_is_a_whole_number_is_not_rounded_up():
    """0.07 of 100 is 7, though 0.07 * 100 is 7.000000000000001."""
    train = np.array([[0, item] for item in range(100)] + [[1, 0]])
    base = Dataset("long", 3, 102, train, np.array([[0, 100]]), np.array([[2, 101]]))
    kept = apply(Condition(density=0.07), base).train
    assert np.bincount(kept[:, 0], minlength=3).tolist() == [7, 1, 0]


@given(
    seed=st.integers(0, 20),
    low=st.floats(0.01, 1, exclude_max=True),
    high=st.floats(0.01, 1, exclude_max=True),
)
@settings(deadline=None, max_examples=20)
def test_what_a_lower_density_keeps_a_higher_one_keeps(data, seed, low, high):
    low, high = sorted((low, high))
    few, many = (apply(Condition(density=d, seed=seed), data).train for d in (low, high))
    assert as_set(few) <= as_set(many) <= as_set(data.train)


def test_which_interactions_are_kept_follows_the_seed_and_not_the_company(data):
    alone = apply(Condition(density=0.5), data)
    mixed = apply(Condition(density=0.5, **KNOCKOUT), data)
    np.testing.assert_array_equal(mixed.train, alone.train)
    assert mixed.features["image"].arrays()["values"].tolist() == (
        knocked(data, "noise", "text", "image").features["image"].arrays()["values"].tolist()
    )
    assert as_set(apply(Condition(density=0.5, seed=1), data).train) != as_set(alone.train)


def test_every_interaction_of_a_user_is_kept_as_often():
    """Under 400 seeds; each of 12 is kept in 3 of 12 on average."""
    train = np.array([[0, item] for item in range(12)])
    base = Dataset("one", 1, 14, train, np.array([[0, 12]]), np.array([[0, 13]]))
    kept_I = sum(
        np.bincount(apply(Condition(density=0.25, seed=seed), base).train[:, 1], minlength=12)
        for seed in range(400)
    )
    assert np.sum(kept_I) == 1200
    # Deviation of a count: sqrt(400 * 1/4 * 3/4) = 8.7.
    assert np.abs(np.asarray(kept_I) - 100).max() < 35


# --- what models make of it


@pytest.fixture(scope="module")
def worlds():
    """Both modalities all alike, all zero, missing, or as they are with few interactions left.

    It is a small dataset; some items lack the text.
    """
    modalities = (Modality(name="text", width=6, missing=0.1), Modality(name="image", width=6))
    spec = Planted(users=20, items=30, interactions=200, modalities=modalities, factors=4)
    base = dataclasses.replace(planted(spec), ordered=True)
    thinned = apply(Condition(density=0.05), base)
    assert len(np.unique(thinned.train[:, 1])) < 20
    filled = (knocked(base, filler, "image", "text") for filler in ("constant", "zero"))
    return [*filled, thinned, apply(Condition(missing=("image", "text")), base)]


@pytest.mark.slow
@pytest.mark.parametrize("cfg", READERS.values(), ids=READERS)
def test_no_model_makes_nan_of_a_condition(worlds, cfg):
    """In a step and an evaluation, though columns have deviation 0, rows length 0 or degree 0."""
    train = TrainConfig(epochs=1, batch_size=1000)
    for data in worlds:
        if isinstance(cfg, MGR) and data.condition.startswith("density"):
            with pytest.raises(ValueError, match="no user has two training items"):
                cfg.build(data, torch.Generator())
            continue
        run = Run(RunConfig(model=cfg, train=train), data, seed=0, protocol=PROTOCOLS["full"])
        (report,) = fit(run)
        assert all(map(math.isfinite, (*report.losses.values(), *report.valid.values())))
        with torch.no_grad():
            tables = (*run.model.state_dict().values(), *run.model.eval().embeddings())
        assert all(table.isfinite().all() for table in tables), data.condition
