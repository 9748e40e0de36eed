"""Trained with interactions, scored as if nobody had met the items: `Dataset.items_known`."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from mmrec.data.conditions import Condition, apply
from mmrec.data.dataset import Dataset, Dense
from mmrec.data.planted import Modality, Planted, planted
from mmrec.data.sampling import Draws
from mmrec.evaluation import PROTOCOLS
from mmrec.models.base import ModelConfig
from mmrec.models.bpr import BPR
from mmrec.models.contentknn import ContentKNN
from mmrec.models.ease import EASE
from mmrec.models.itemknn import ItemKNN
from mmrec.models.lightgcn import LightGCN
from mmrec.models.popularity import Popularity
from mmrec.models.vbpr import VBPR
from mmrec.training import Run, RunConfig, TrainConfig, fit
from tests.models.every import CONFIGS

UNKNOWN = Condition(missing=("interactions",), when="eval")
NO_TEXT = Condition(missing=("interactions", "text"), when="eval")


@pytest.fixture(scope="module")
def data() -> Dataset:
    modalities = tuple(Modality(name=name, width=4) for name in ("image", "text"))
    spec = Planted(users=30, items=60, interactions=300, modalities=modalities, factors=4)
    return dataclasses.replace(planted(spec), ordered=True)


def scored_under(condition: Condition, data: Dataset, model: ModelConfig, **train: Any) -> Run:
    """A finished run that is scored under a condition."""
    cfg = RunConfig(
        model=model, train=TrainConfig(epochs=3, lr=0.05, batch_size=100, patience=0, **train)
    )
    other = apply(condition, data)
    run = Run(cfg, data, seed=0, protocol=PROTOCOLS["full"], evaluate_on=other)
    list(fit(run))
    return run


def tables(run: Run) -> tuple[np.ndarray, np.ndarray]:
    user, item = run.scored().embeddings()
    return user.detach().numpy(), item.detach().numpy()


def start(run: Run) -> dict[str, np.ndarray]:
    """Weights as the seed draws them."""
    model = run.cfg.model.build(run.data, Draws(0).generator("init"))
    return {name: value.numpy() for name, value in model.state_dict().items()}


def values(data: Dataset, name: str) -> np.ndarray:
    feature = data.features[name]
    assert isinstance(feature, Dense)
    return feature.values


def test_item_rows_stay_as_they_start_and_users_are_trained(data):
    """Weight decay, which shrinks every row, has no part in what starts."""
    run = scored_under(UNKNOWN, data, BPR(dim=4), weight_decay=0.5)
    best, before = run.best_model, start(run)
    user, item = tables(run)
    np.testing.assert_array_equal(item, before["item_ID"])
    np.testing.assert_array_equal(user, best["user_UD"].numpy())
    for name, table in before.items():
        assert np.abs(best[name].numpy() - table).max() > 0.01
    np.testing.assert_array_equal(run.model.state_dict()["item_ID"], best["item_ID"])


@pytest.mark.parametrize("trained", [False, True])
def test_content_is_mapped_as_trained_from_features_as_they_come(data, trained):
    """And an item's own bias is forgotten: it starts at 0."""
    model = VBPR(dim=4, variant="described", train_features=trained, reg_weight=0.0)
    for condition, seen in ((UNKNOWN, ("image", "text")), (NO_TEXT, ("image",))):
        run = scored_under(condition, data, model)
        best = {name: value.numpy() for name, value in run.best_model.items()}
        assert np.abs(best["bias_I"]).max() > 0.01
        if trained:
            assert np.abs(best["features.0._table"] - values(data, "image")).max() > 0.01
        maps = {"image": best["map_OF.0"], "text": best["map_OF.1"]}
        content = sum((values(data, name) @ maps[name].T for name in seen), np.zeros((60, 5)))
        expected = np.concatenate((start(run)["item_ID"], content), axis=1)
        np.testing.assert_allclose(tables(run)[1], expected, atol=1e-5)


@pytest.mark.parametrize("trained", [False, True])
def test_a_missing_modality_is_not_scored_by_whether_its_table_is_trained_or_not(data, trained):
    model = VBPR(dim=4, train_features=trained)
    run = scored_under(Condition(missing=("text",), when="eval"), data, model)
    best = {name: value.numpy() for name, value in run.best_model.items()}
    image = best["features.0._table"] if trained else values(data, "image")
    expected = np.concatenate((best["item_ID"], image @ best["map_OF.0"].T + best["bias_D"]), 1)
    np.testing.assert_allclose(tables(run)[1], expected, atol=1e-5)


def test_popularity_knows_nothing_and_contentknn_what_it_did(data):
    _, count_I1 = tables(scored_under(UNKNOWN, data, Popularity()))
    assert count_I1.shape == (60, 1)
    assert not count_I1.any()
    with torch.no_grad():
        plain, unknown, image_only, empty = (
            model.score(*model.embeddings())
            for model in (
                scored_under(Condition(missing=missing, when="eval"), data, knn).scored()
                for missing, knn in (
                    (("text",), ContentKNN(knn_k=4, modalities=("image",))),
                    (("interactions",), ContentKNN(knn_k=4, modalities=("image",))),
                    (("text",), ContentKNN(knn_k=4)),
                    (("image", "interactions", "text"), ContentKNN(knn_k=4)),
                )
            )
        )
    assert plain.any()
    assert torch.equal(plain, unknown)
    assert torch.equal(plain, image_only)
    assert not empty.any()


@pytest.mark.parametrize("model", [LightGCN(dim=4), EASE(), ItemKNN()], ids=type)
def test_a_model_that_needs_its_items_interactions_is_refused_before_it_is_trained(data, model):
    other = apply(UNKNOWN, data)
    name = type(model).__name__
    with pytest.raises(ValueError, match=f"^{name} needs training interactions"):
        Run(RunConfig(model=model), data, seed=0, protocol=PROTOCOLS["full"], evaluate_on=other)


def test_nothing_is_trained_where_items_are_unknown(data):
    other = apply(UNKNOWN, data)
    with pytest.raises(ValueError, match=r"\(missing=interactions@eval\) hides the interactions"):
        Run(RunConfig(model=BPR(dim=4)), other, seed=0, protocol=PROTOCOLS["full"])


@pytest.mark.slow
def test_item_rows_are_parameters_with_a_row_an_item(data):
    """Of some variant at least, and of every model that names any."""
    named, found = set(), set()
    for cfg in CONFIGS.values():
        model = cfg.build(data, Draws(0).generator("init"))
        rows = dict(model.named_parameters())
        for name in model.ITEM_ROWS or ():
            named.add((type(model), name))
            if name in rows:
                assert len(rows[name]) == data.num_items
                found.add((type(model), name))
    assert named == found
    assert len(named) >= 3
