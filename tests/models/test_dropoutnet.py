"""DropoutNet against its released code, and against a dense formula where that has no case."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mmrec.data.dataset import Category, Dataset, Dense, Tags
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.models.dropoutnet import DropoutNet, DropoutNetModel, with_dropout
from tests.models.golden import assert_like, assert_norm, batch_of, filled, golden, problem
from tests.models.tiny import tiny

RECORD = golden("dropoutnet")
CASES = RECORD["cases"]
DETAIL = RECORD["detail"]["cases"]
EXTRA = RECORD["detail"]["extra_data"]
NARROW = ("item.contents.1.tag_TC", "item.net.0.weight")
"""The release gives each content a width of its own: tags are put in with 2 columns beside 3."""


def data_of(case: dict[str, Any]) -> Dataset:
    row, column = np.mgrid[:8, :10]
    image = np.sin(1 + 0.7 * row + 1.3 * column)
    tags = EXTRA["tags_per_item"]
    starts, ids = np.cumsum([0, *map(len, tags)]), np.concatenate(tags)
    items, users = np.ones(8, dtype=bool), np.ones(6, dtype=bool)
    return problem(
        case,
        features={"image": Dense(items, image), "tags": Tags(items, starts, ids, tuple("abcde"))},
        user_features={"gender": Category(users, np.array(EXTRA["gender_per_user"]), ("f", "m"))},
    )


def config_of(case: dict[str, Any]) -> DropoutNet:
    hyper = case["hyper"]
    names = {
        side: tuple(f["feature_name"] for f in hyper[f"{side}_features"])
        for side in ("user", "item")
    }
    image = hyper["item_features"][0]
    widths = (
        *image["pre_embedding_layers"],
        image["embedding_dim"],
        *image["post_embedding_layers"],
    )
    return DropoutNet(
        dim=hyper["shared_common_dim"],
        preference_dim=hyper["preference_layers"][0],
        shared_hidden=tuple(hyper["common_hidden_layers"]),
        feature_dim=widths[-1],
        feature_hidden=widths[:-1],
        modalities=names["item"],
        user_modalities=names["user"],
        activation=hyper["activation_fn"],
    )


RULES = [
    (r"_net\.pref_net\.layers\.linear_0\.weight", ".weight_MP"),
    (r"_net\.pref_net\.layers\.linear_0\.bias", ".bias_P"),
    (r"_net\.net\.layers\.linear_", ".net."),
    (r"user_net\.cont_modules\.0\.embedding_layer\.weight", "user.contents.0.level_TC"),
    (r"item_net\.cont_modules\.1\.embedding_layer\.weight", "item.contents.1.tag_TC"),
    (r"_net\.cont_modules\.", ".contents."),
    (r"\.pre_embedding_layers\.layers\.linear_", ".layers."),
    (r"\.post_embedding_layers\.layers\.linear_0", ".layers.2"),
]


def our_name(released: str) -> str:
    for pattern, ours in RULES:
        released = re.sub(pattern, ours, released)
    return released


def built(case: dict[str, Any], data: Dataset | None = None) -> DropoutNetModel:
    model = config_of(case).build(data or data_of(case), torch.Generator())
    left = dict(model.named_parameters())
    for parameter in case["parameters"]:
        value, name = filled(parameter), our_name(parameter["name"])
        # Released: one more row of tags for padding, and W where we keep its transpose.
        value = value[:-1] if name.endswith("tag_TC") else value
        value = value.T if name.endswith("weight_MP") else value
        assert left.pop(name).shape == value.shape or name in NARROW
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, torch.nn.Parameter(value.contiguous()))
    assert not left
    return model


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_scores(name):
    user, item = built(CASES[name]).embeddings()
    assert_like(user, CASES[name]["user"])
    assert_like(item, CASES[name]["item"])
    record = DETAIL[name]["eval"]["scores"]
    assert_like(user @ item.T, record)
    assert np.allclose(record, CASES[name]["scores"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_scores_without_interactions(name):
    """Of anybody, and of the items alone, where users keep theirs."""
    record, known = DETAIL[name]["eval_zero_interactions"], CASES[name]["user"]
    data = data_of(CASES[name])
    model = built(CASES[name], replace(data, train=np.zeros((0, 2), dtype=np.int64)))
    user, item = model.embeddings()
    assert_like(user, record["user_repr"])
    assert_like(item, record["item_repr"])
    assert_like(model.score(user, item), record["scores"])
    user, item = built(CASES[name], replace(data, items_known=False)).embeddings()
    assert_like(user, known)
    assert_like(item, record["item_repr"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CASES)
def test_a_training_step(name):
    case, train = CASES[name], DETAIL[name]["train"]
    model = built(case)
    kept_2B = torch.tensor([train["user_draw"], train["item_draw"]]) == 1
    batch = with_dropout(batch_of(case), kept_2B.T.long())

    user = model.user.coded(batch.extra["users"])[batch.extra["user_at"]]
    at = torch.cat((batch.extra["positive_at"][:, None], batch.extra["negative_at"]), 1)
    item = model.item.coded(batch.extra["items"])[at]
    assert_like((user[:, None] * item).sum(-1).detach(), train["train_scores"])

    terms = model.losses(batch).terms
    assert list(terms) == ["bpr"]
    assert_like(terms["bpr"].detach(), train["total"])
    terms["bpr"].backward()
    ours = dict(model.named_parameters())
    assert len(train["grad_norms"]) == len(ours)
    for released, norm in train["grad_norms"].items():
        assert_norm(ours[our_name(released)].grad, norm)


# --- what the release has no case of


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def by_hand(model: DropoutNetModel, side: str, seen: np.ndarray, contents: list[np.ndarray]):
    """(N, D) of one side with one shared hidden layer."""
    p = {
        name.removeprefix(f"{side}."): value.detach().numpy()
        for name, value in model.named_parameters()
    }
    x = relu(seen @ p["weight_MP"] + p["bias_P"])
    x = np.concatenate((*contents, x), axis=1)
    x = relu(x @ p["net.0.weight"].T + p["net.0.bias"])
    return relu(x @ p["net.1.weight"].T + p["net.1.bias"])


@pytest.mark.usefixtures("float64")
@torch.no_grad()
def test_all_kinds_on_both_sides_where_some_are_missing():
    """What is missing is zeros, also where a level or a bias stands behind it."""
    rng, users, items = np.random.default_rng(0), 6, 8
    has_item, has_user = np.arange(items) != 2, np.arange(users) != 4
    level, vector = rng.integers(0, 3, items) * has_item, rng.normal(size=(items, 4))
    vector[2] = 0
    starts = np.array([0, 1, 3, 3, 4, 4, 6])  # users 2 and 4 without a tag
    data = problem(
        {"train": [[0, 1, 2], [1, 3], [2], [5], [6, 7], [0]]},
        features={
            "level": Category(has_item, level, tuple("xyz")),
            "vector": Dense(has_item, vector),
        },
        user_features={"tags": Tags(has_user, starts, np.array([0, 1, 2, 1, 0, 2]), tuple("abc"))},
    )
    cfg = DropoutNet(dim=3, preference_dim=5, shared_hidden=(6,), feature_dim=2)
    model = cfg.build(data, torch.Generator().manual_seed(1))
    for parameter in model.parameters():
        parameter.copy_(torch.from_numpy(rng.normal(size=parameter.shape)))

    seen = np.zeros((users, items))
    seen[tuple(data.train.T)] = 1
    table, layer = model.item.contents[0].level_TC.numpy(), model.item.contents[1].layers[0]
    mapped = relu(vector @ layer.weight.numpy().T + layer.bias.numpy())
    contents = [table[level] * has_item[:, None], mapped * has_item[:, None]]
    user, item = model.embeddings()
    assert_like(item, by_hand(model, "item", seen.T, contents))
    tags = model.user.contents[0].tag_TC.numpy()
    sets = [[0], [1, 2], [], [1], [], [0, 2]]
    means = np.stack([tags[s].mean(0) if s else np.zeros(2) for s in sets])
    assert_like(user, by_hand(model, "user", seen, [means]))

    views = model.item_views()
    assert views["vector"].isnan().all(1).tolist() == (~has_item).tolist()
    assert_like(views["vector"][has_item], mapped[has_item])


@torch.no_grad()
def test_without_contents_items_of_the_same_users_are_the_same():
    train = [[0, 1], [0, 1, 2], [2, 3]]
    data = replace(problem({"train": train}), features=tiny().features)
    model = DropoutNet(dim=4, modalities=(), user_modalities=()).build(data, torch.Generator())
    _, item = model.embeddings()
    assert torch.equal(item[0], item[1])
    assert not torch.equal(item[0], item[2])


def test_half_of_the_rows_are_withheld_users_and_items_apart():
    """Each mean within four standard deviations; a row's items share their coin."""
    model = DropoutNet(dim=2).build(tiny(), torch.Generator())
    pairs, kept = TrainingPairs.of(tiny()), []
    for epoch in range(12):
        for batch in model.epoch_batches(pairs, Draws(0), epoch, BatchShape(30, 3)):
            extra = batch.extra
            user, positive = extra["users"][extra["user_at"]], extra["items"][extra["positive_at"]]
            negative = extra["items"][extra["negative_at"]]
            assert torch.equal(user // 2, batch.user)
            assert torch.equal(positive // 2, batch.positive)
            assert torch.equal(negative // 2, batch.negative)
            assert torch.equal(negative % 2, (positive % 2)[:, None].expand_as(negative))
            kept.append(torch.stack((user % 2, positive % 2, user % 2 * (positive % 2))))
    kept = torch.cat(kept, 1).double()
    rows = kept.shape[1]
    assert rows == 12 * len(pairs)
    for mean, expected in zip(kept.mean(1).tolist(), (0.5, 0.5, 0.25), strict=True):
        assert abs(mean - expected) < 4 * (expected * (1 - expected) / rows) ** 0.5


def test_the_interactions_are_no_content():
    with pytest.raises(ValueError, match="always uses interactions: name the contents of items"):
        DropoutNet(modalities=("interactions", "text")).build(tiny(), torch.Generator())
    with pytest.raises(KeyError, match="no user modality 'text'; there are: interactions, level"):
        DropoutNet(user_modalities=("text",)).build(tiny(), torch.Generator())
