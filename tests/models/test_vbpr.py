import dataclasses

import numpy as np
import pytest
import torch

from mmrec.data.dataset import Dense
from mmrec.data.sampling import distinct
from mmrec.models.base import Batch
from mmrec.models.vbpr import VBPR
from tests.models.golden import (
    assert_course,
    assert_like,
    assert_norm,
    batch_of,
    features,
    filled,
    golden,
    problem,
)

RECORD = golden("vbpr")
CASE = RECORD["cases"]["main"]
REG = CASE["hyper"]["reg_weight"]
TEXT = 7
"""The release has the text's columns first."""


def placed(batch: Batch) -> Batch:
    items, positive_at, negative_at = distinct(batch.positive, batch.negative)
    places = {"items": items, "positive_at": positive_at, "negative_at": negative_at}
    return dataclasses.replace(batch, extra=places)


def released():
    cfg = VBPR(dim=CASE["hyper"]["d"], reg_weight=REG)
    model = cfg.build(problem(CASE, features=features()), torch.Generator())
    user, item, weight, bias = map(filled, CASE["parameters"])
    with torch.no_grad():
        model.user_UC.copy_(user)
        model.item_ID.copy_(item)
        model.map_OF[0].copy_(weight[:, TEXT:])
        model.map_OF[1].copy_(weight[:, :TEXT])
        model.bias_D.copy_(bias)
    return model


@pytest.mark.usefixtures("float64")
def test_reproduces_the_released_model():
    model = released()
    user, item = model.embeddings()
    assert_like(user, CASE["user"])
    assert_like(item, CASE["item"])
    assert_like(model.score(user, item), CASE["scores"])

    terms = model.losses(placed(batch_of(CASE))).terms
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert_like(terms["bpr"], CASE["loss_terms"]["rank"])
    assert_like(terms["reg"], REG * CASE["loss_terms"]["reg"])
    assert_like(total, CASE["loss_total"])
    assert_norm(model.user_UC.grad, CASE["grad_l2"]["P"])
    assert_norm(model.item_ID.grad, CASE["grad_l2"]["Q"])
    assert_norm(torch.cat([p.grad for p in model.map_OF], 1), CASE["grad_l2"]["W"])
    assert_norm(model.bias_D.grad, CASE["grad_l2"]["b"])


@pytest.mark.usefixtures("float64")
def test_trains_like_the_released_model():
    record = RECORD["detail"]["case"]["adam_same_batch_5_steps"]
    model, batch = released(), placed(batch_of(CASE))
    assert_course(model, batch, record)
    weight = torch.cat(list(model.map_OF), 1)
    norms = [p.detach().norm() for p in (model.user_UC, model.item_ID, weight, model.bias_D)]
    assert_like(torch.stack(norms), list(record["final_param_l2"].values()))


def three() -> dict[str, Dense]:
    audio = np.random.default_rng(3).normal(size=(8, 5))
    return features() | {"audio": Dense(np.ones(8, dtype=bool), audio)}


BATCH = placed(
    Batch(
        torch.tensor([0, 1, 3, 3, 5]),
        torch.tensor([2, 3, 0, 7, 6]),
        torch.tensor([[5, 6], [0, 2], [1, 1], [3, 4], [0, 3]]),
    )
)


def rebuilt(variant: str, names: tuple[str, ...] | None = None, *, free: bool = True):
    """Every parameter drawn anew, biases too."""
    cfg = VBPR(dim=3, reg_weight=0.3, modalities=names, variant=variant, free_factors=free)
    model = cfg.build(problem(CASE, features=three()), torch.Generator())
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    arrays = {name: p.detach().numpy() for name, p in model.named_parameters()}
    return model, arrays


def triples():
    """Each row's user, positive and one of its negatives."""
    for user, positive, negatives in zip(BATCH.user, BATCH.positive, BATCH.negative, strict=True):
        for negative in negatives:
            yield int(user), int(positive), int(negative)


def ranking(scores: np.ndarray) -> np.float64:
    """Mean of -ln(1e-10 + sigmoid(x_ui - x_uj))."""
    gaps = np.array([scores[u, i] - scores[u, j] for u, i, j in triples()])
    return np.mean(-np.log(1e-10 + 1 / (1 + np.exp(-gaps))))


NAMES = [("image",), ("image", "text"), ("audio", "image", "text")]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("names", NAMES)
def test_released_formula(names):
    model, p = rebuilt("released", names)
    content = sum(three()[name].values @ p[f"map_OF.{m}"].T for m, name in enumerate(names))
    item = np.hstack((p["item_ID"], content + p["bias_D"]))
    scores = p["user_UC"] @ item.T
    assert_like(model.score(*model.embeddings()).detach(), scores)

    terms = model.losses(BATCH).terms
    assert_like(terms["bpr"].detach(), ranking(scores))
    parts = p["user_UC"][BATCH.user], item[BATCH.positive], item[BATCH.negative]
    norms = sum(np.sqrt(np.sum(part**2)) for part in parts)
    assert_like(terms["reg"].detach(), 0.3 * norms / 5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("names", NAMES)
def test_described_formula_has_an_item_and_a_visual_bias(names):
    model, p = rebuilt("described", names)
    gamma, theta = p["user_UC"][:, :3], p["user_UC"][:, 3:]
    stacked = np.hstack([three()[name].values for name in names])
    joined = np.hstack([p[f"map_OF.{m}"] for m in range(len(names))])
    embed, visual = joined[:3], joined[3]
    scores = gamma @ p["item_ID"].T + theta @ (stacked @ embed.T).T
    scores = scores + p["bias_I"] + stacked @ visual
    assert_like(model.score(*model.embeddings()).detach(), scores)

    terms = model.losses(BATCH).terms
    assert_like(terms["bpr"].detach(), ranking(scores))
    squares = [
        np.sum(gamma[u] ** 2) + np.sum(theta[u] ** 2)
        + np.sum(p["item_ID"][i] ** 2) + np.sum(p["item_ID"][j] ** 2)
        + p["bias_I"][i] ** 2 + p["bias_I"][j] ** 2
        for u, i, j in triples()
    ]  # fmt: skip
    assert_like(terms["reg"].detach(), 0.3 / 2 * np.mean(squares))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variant", ["released", "described"])
def test_content_alone_has_no_row_of_an_item(variant):
    model, p = rebuilt(variant, ("image", "text"), free=False)
    shift = {"bias_D"} if variant == "released" else set()
    assert set(p) == {"user_UC", "map_OF.0", "map_OF.1"} | shift
    theta = p["user_UC"]
    assert theta.shape == (6, 3)
    content = sum(three()[n].values @ p[f"map_OF.{m}"].T for m, n in enumerate(("image", "text")))
    if variant == "released":
        item = content + p["bias_D"]
        scores = theta @ item.T
        parts = theta[BATCH.user], item[BATCH.positive], item[BATCH.negative]
        penalty = sum(np.sqrt(np.sum(part**2)) for part in parts) / 5
    else:
        scores = theta @ content[:, :3].T + content[:, 3]
        penalty = np.mean([np.sum(theta[u] ** 2) for u, _, _ in triples()]) / 2
    assert_like(model.score(*model.embeddings()).detach(), scores)
    terms = model.losses(BATCH).terms
    assert_like(terms["bpr"].detach(), ranking(scores))
    assert_like(terms["reg"].detach(), 0.3 * penalty)


@pytest.mark.usefixtures("float64")
def test_the_described_regulariser_leaves_the_maps_alone():
    model, _ = rebuilt("described")
    model.losses(BATCH).terms["reg"].backward()
    assert not any(p.grad.any() for p in model.map_OF if p.grad is not None)
    model, _ = rebuilt("released")
    model.losses(BATCH).terms["reg"].backward()
    assert all(p.grad.any() for p in model.map_OF)


def test_the_maps_start_at_the_scale_of_the_concatenation():
    wide = {
        name: Dense(np.ones(8, dtype=bool), np.ones((8, 400), dtype=np.float32))
        for name in ("image", "text")
    }
    draw = torch.Generator().manual_seed(0)
    model = VBPR(dim=8).build(problem(CASE, features=wide), draw)
    drawn = torch.cat(list(model.map_OF), 1)
    assert float(drawn.detach().std()) == pytest.approx((2 / (8 + 800)) ** 0.5, rel=0.05)


@pytest.mark.usefixtures("float64")
def test_features_are_trained_only_if_asked():
    for trained in (False, True):
        cfg = VBPR(dim=3, train_features=trained)
        model = cfg.build(problem(CASE, features=features()), torch.Generator())
        sum(model.losses(BATCH).terms.values()).backward()
        tables = [p for n, p in model.named_parameters() if n.startswith("features.")]
        assert len(tables) == 2 * trained
        # Items outside the batch have no part in its loss.
        inside = torch.isin(torch.arange(8), BATCH.extra["items"])
        assert all(bool((p.grad.any(1) == inside).all()) for p in tables)


def test_needs_content():
    with pytest.raises(ValueError, match="VBPR needs at least a modality"):
        VBPR().build(problem(CASE), torch.Generator())
