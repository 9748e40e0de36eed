"""Modalities that no item has, of every kind, and the item's interactions among them."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from mmrec.data.conditions import Condition, apply
from mmrec.data.dataset import Category, Codes, Dataset, Dense, Neighbours, Tags
from mmrec.data.planted import Modality, Planted, planted
from mmrec.data.sampling import Draws
from mmrec.evaluation import PROTOCOLS
from mmrec.models.mubrar import MuBraR
from mmrec.training import Run, RunConfig, TrainConfig, fit
from tests.models.every import READERS

ALL = ("codes", "genres", "level", "near", "text")


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Four items; the second lacks everything but its place among the neighbours."""
    has = np.array([True, False, True, True])
    near = np.array([1, 0, 3, 2]), np.array([0.5, 0.5, 0.25, 0.25], dtype=np.float32)
    features = {
        "codes": Codes(has, np.array([[1, 2], [0, 0], [0, 1], [2, 0]]), (3, 4)),
        "genres": Tags(has, np.array([0, 2, 2, 3, 4]), np.array([0, 1, 1, 0]), ("a", "b")),
        "level": Category(has, np.array([1, 0, 2, 0]), ("x", "y", "z")),
        "near": Neighbours(np.ones(4, dtype=bool), np.arange(5), *near),
        "text": Dense(has, np.arange(12, dtype=np.float32).reshape(4, 3) * has[:, None]),
    }
    pairs = np.array([[0, 0], [1, 1], [2, 2], [0, 3], [1, 2], [2, 0]])
    user_features = {"age": Dense(np.ones(3, dtype=bool), np.ones((3, 1), dtype=np.float32))}
    return Dataset("hand", 3, 4, pairs[:4], pairs[4:5], pairs[5:], features, user_features)


def test_what_is_missing_is_there_for_no_item_and_keeps_kind_width_and_names(data):
    gone = apply(Condition(missing=ALL), data).features
    nowhere = np.zeros(4, dtype=bool)
    expected = {
        "codes": Codes(nowhere, np.zeros((4, 2), dtype=np.int64), (3, 4)),
        "genres": Tags(nowhere, np.zeros(5, np.int64), np.zeros(0, np.int64), ("a", "b")),
        "level": Category(nowhere, np.zeros(4, dtype=np.int64), ("x", "y", "z")),
        "near": Neighbours(
            nowhere, np.zeros(5, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
        ),
        "text": Dense(nowhere, np.zeros((4, 3), dtype=np.float32)),
    }
    assert sorted(gone) == sorted(expected)
    for name, wanted in expected.items():
        found = gone[name].arrays()
        assert gone[name].kind == wanted.kind
        assert found.keys() == wanted.arrays().keys()
        for array, value in wanted.arrays().items():
            np.testing.assert_array_equal(found[array], value, strict=True)


def test_only_what_is_named_goes(data):
    other = apply(Condition(missing=("text",)), data)
    assert other.condition == "missing=text"
    assert other.items_known
    assert other.digest != data.digest
    for name in ALL[:-1]:
        assert other.features[name] is data.features[name]
    assert other.user_features == data.user_features
    for part in ("train", "valid", "test"):
        assert other.part(part) is data.part(part)
    zeros = apply(Condition(modalities=("text",), filler="zero"), data)
    assert zeros.digest != other.digest  # zeros that are there are not the same as nothing


def test_interactions_are_missing_in_word_and_not_in_the_pairs(data):
    other = apply(Condition(missing=("interactions",), when="eval"), data)
    assert (data.items_known, other.items_known) == (True, False)
    assert other.features == data.features
    assert other.train is data.train
    assert other.digest != data.digest
    both = apply(Condition(missing=("text", "interactions"), when="eval"), data)
    assert not both.items_known
    assert not both.features["text"].present.any()


def test_a_swap_takes_what_is_missing_under_its_own_name(data):
    second = dataclasses.replace(data, features={**data.features, "vit": data.features["text"]})
    other = apply(Condition(missing=("vit",), swap=(("text", "vit"),)), second)
    assert other.features["text"] is second.features["vit"]
    assert not other.features["vit"].present.any()


def test_an_unknown_modality_is_refused(data):
    with pytest.raises(KeyError, match="no modality 'image'; it has: codes, genres, level"):
        apply(Condition(missing=("image",)), data)


# --- what models make of it


@pytest.fixture(scope="module")
def small() -> Dataset:
    modalities = (Modality(name="text", width=6, missing=0.1), Modality(name="image", width=6))
    spec = Planted(users=20, items=30, interactions=200, modalities=modalities, factors=4)
    return dataclasses.replace(planted(spec), ordered=True)


@pytest.mark.slow
@pytest.mark.parametrize("cfg", READERS.values(), ids=READERS)
def test_every_model_is_scored_without_modalities_or_says_why_not(small, cfg):
    """Trained with all; then items have one, or none but interactions, or one without these."""
    protocol = PROTOCOLS["full"]
    trained = Run(
        RunConfig(model=cfg, train=TrainConfig(epochs=1, batch_size=1000)),
        small,
        seed=0,
        protocol=protocol,
    )
    list(fit(trained))
    state, rows = trained.final_state(), trained.model.ITEM_ROWS
    for missing in (("text",), ("image", "text"), ("interactions", "text")):
        other = apply(Condition(missing=missing, when="eval"), small)
        if trained.model.FITTED:
            with pytest.raises(ValueError, match="makes codes of the features"):
                Run(trained.cfg, small, seed=0, protocol=protocol, evaluate_on=other)
            continue
        if "interactions" in missing and rows is None:
            name = type(cfg).__name__
            with pytest.raises(ValueError, match=f"{name} needs training interactions"):
                Run(trained.cfg, small, seed=0, protocol=protocol, evaluate_on=other)
            continue
        run = Run(trained.cfg, small, seed=0, protocol=protocol, evaluate_on=other)
        run.load(state)
        assert all(math.isfinite(value) for value in run.score_test().metrics.values()), missing
        with torch.no_grad():
            assert all(table.isfinite().all() for table in run.scored().embeddings()), missing


def test_nothing_left_to_score_by_is_refused(small):
    every = apply(Condition(missing=("image", "interactions", "text"), when="eval"), small)
    with pytest.raises(ValueError, match="no item has any of image, text to be scored by"):
        MuBraR(dim=4, common_dim=4, hidden=(4,)).build(every, Draws(0).generator("init"))
