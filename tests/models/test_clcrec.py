"""CLCRec against its released code, and against dense formulas where ours departs from it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mmrec.data.dataset import Category, Dataset, Dense, Tags
from mmrec.data.sampling import distinct
from mmrec.models.base import Batch
from mmrec.models.clcrec import CLCRec, CLCRecModel
from tests.models.golden import (
    assert_like,
    assert_norm,
    batch_of,
    features,
    filled,
    golden,
    problem,
)
from tests.models.tiny import tiny

RECORD = golden("clcrec")
CASES = RECORD["cases"]
DETAIL = RECORD["detail"]["cases"]
EXTRA = RECORD["detail"]["extra_data"]


def data_of(case: dict[str, Any]) -> Dataset:
    tags = EXTRA["tags_per_item"]
    starts, ids = np.cumsum([0, *map(len, tags)]), np.concatenate(tags)
    gender = Category(np.ones(6, dtype=bool), np.array(EXTRA["gender_per_user"]), ("f", "m"))
    labels = Tags(np.ones(8, dtype=bool), starts, ids, tuple("abcde"))
    item = {**features(), "tags": labels}
    return problem(case, features=item, user_features={"gender": gender})


def config_of(case: dict[str, Any], **changes: Any) -> CLCRec:
    hyper = case["hyper"]
    assert not hyper["use_user_bias"]
    assert not hyper["use_global_bias"]
    fields = {
        "dim": hyper["embedding_dim"],
        "side": "user" if hyper["variant"].startswith("User") else "item",
        "modality": hyper["feature_name"],
        "content_hidden": tuple(hyper["intermediate_layers"] or ()),
        "aggregate": hyper["aggregate_for_rec"],
        "item_bias": hyper["use_item_bias"],
        "tau": hyper["temperature"],
        "anchors": hyper["embedding_loss_aggregator"],
    }
    return CLCRec(**fields | changes)


def our_name(released: str) -> str:
    ours = {
        "user_embeddings.weight": "user_UD",
        "item_embeddings.weight": "item_ID",
        "item_bias.weight": "bias_I",
    }
    tables = {"tags": "content.tag_TC", "gender": "content.level_TC"}
    for kind, table in tables.items():
        ours[f"embedding_net.embedding_layer.weight/{kind}"] = table
    layer = "embedding_net.pre_embedding_layers.layers.linear_"
    return ours.get(released) or released.replace(layer, "content.layers.")


def renamed(case: dict[str, Any], released: str) -> str:
    table = "embedding_layer.weight"
    return our_name(
        f"{released}/{case['hyper']['feature_name']}" if table in released else released
    )


def built(case: dict[str, Any], **changes: Any) -> CLCRecModel:
    model = config_of(case, **changes).build(data_of(case), torch.Generator())
    ours = dict(model.named_parameters())
    with torch.no_grad():
        for parameter in case["parameters"]:
            value, name = filled(parameter), renamed(case, parameter["name"])
            value = value[:-1] if name.endswith("tag_TC") else value  # a row of padding
            value = value[:, 0] if name == "bias_I" else value
            assert ours[name].shape == value.shape
            ours.pop(name).copy_(value)
    assert not ours
    return model


def placed(batch: Batch, side: str) -> Batch:
    items = torch.cat((batch.positive[:, None], batch.negative), 1)
    entities, at = distinct(batch.user if side == "user" else items)
    return replace(batch, extra={"entities": entities, "at": at})


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CASES)
def test_reproduces_the_released_model(name):
    case, train = CASES[name], DETAIL[name]["train"]
    model = built(case)
    user, item = (table.detach() for table in model.embeddings())
    scores = model.score(user, item)
    assert_like(scores, case["scores"])

    batch = placed(batch_of(case), model.cfg.side)
    cells = torch.cat((batch.positive[:, None], batch.negative), 1)
    assert_like(scores[batch.user[:, None], cells], train["train_scores"])
    terms = model.losses(batch).terms
    assert_like(terms["bpr"].detach(), train["bpr"])
    if model.cfg.side == "user":
        assert float(terms["contrast"].detach()) == train["contrastive"] == 0
    assert_like(terms["contrast"].detach(), train["contrastive"])
    total = terms["bpr"] + terms["contrast"]
    assert_like(total.detach(), case["loss_total"])
    total.backward()
    ours = dict(model.named_parameters())
    assert len(train["grad_norms"]) == len(ours)
    for released, norm in train["grad_norms"].items():
        assert_norm(ours[renamed(case, released)].grad, norm)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("weight", [0.0, 0.25, 123.0])
def test_the_unused_weight_is_put_to_use(weight):
    case = CASES["D_image_lambda_changed"]
    terms = built(case, content_weight=weight).losses(placed(batch_of(case), "item")).terms
    assert_like(terms["bpr"].detach(), case["loss_terms"]["bpr"])
    assert_like(terms["contrast"].detach(), weight * case["loss_terms"]["contrastive"])


# --- where ours departs: entities that are unseen, lack the content, or are users

TRAIN = [[0, 1], [1, 3], [0, 4], [3], [], [1, 4]]
"""Users 0 to 5; nobody took items 2 and 5 to 7."""
SEEN = np.array([1, 1, 0, 1, 1, 0, 0, 0])
HAS = np.array([1, 0, 1, 1, 1, 0, 1, 1])
"""Items 1 and 5 have no text."""


def rebuilt(variant: str, items_known: bool = True, **changes: Any):
    """On items of which some were never seen and some lack their text; every weight drawn anew."""
    text = features("text")["text"].values * HAS[:, None]
    data = problem({"train": TRAIN}, features={"text": Dense(HAS > 0, text)})
    cfg = CLCRec(dim=3, variant=variant, **changes)
    model = cfg.build(replace(data, items_known=items_known), torch.Generator())
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    p = {name: value.detach().numpy() for name, value in model.named_parameters()}
    content = np.maximum(text @ p["content.layers.0.weight"].T + p["content.layers.0.bias"], 0)
    return model, p, content


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("aggregate", [True, False])
@pytest.mark.parametrize("variant", ["released", "described"])
@pytest.mark.parametrize("items_known", [True, False])
def test_scores_of_unseen_items(items_known, variant, aggregate):
    model, p, content = rebuilt(variant, items_known, aggregate=aggregate)
    item, bias = p["item_ID"].copy(), p["bias_I"].copy()
    for i in range(8):
        if variant == "described" and not (items_known and SEEN[i]):
            item[i], bias[i] = content[i] * HAS[i], 0
        elif aggregate and HAS[i]:
            item[i] = (item[i] + content[i]) / 2
    assert_like(model.score(*model.embeddings()).detach(), p["user_UD"] @ item.T + bias)


def cross_entropy(logits: np.ndarray) -> np.ndarray:
    """-ln softmax at the diagonal of each row."""
    return np.log(np.exp(logits).sum(1)) - np.diag(logits)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("anchors", ["mean", "sum"])
def test_an_item_without_the_content_is_no_anchor(anchors):
    model, p, content = rebuilt("released", anchors=anchors, tau=0.7, content_weight=0.3)
    batch = Batch(
        torch.tensor([0, 3, 5]),
        torch.tensor([0, 3, 4]),
        torch.tensor([[4, 3], [1, 4], [0, 0]]),
    )
    loss, count = 0.0, 0
    for row in ([0, 4, 3], [3, 1, 4], [4, 0, 0]):
        logits = p["item_ID"][row] @ content[row].T / 0.7
        both = cross_entropy(logits) + cross_entropy(logits.T)
        loss, count = loss + both @ HAS[row], count + HAS[row].sum()
    expected = 0.3 * loss / (count if anchors == "mean" else 1)
    assert_like(model.losses(placed(batch, "item")).terms["contrast"].detach(), expected)


@pytest.mark.usefixtures("float64")
def test_a_users_contrast_is_with_the_batch_as_described():
    case = CASES["U_user_variant_gender"]
    model = built(case, variant="described", tau=0.5)
    batch = replace(batch_of(case), user=torch.tensor([0, 4, 5, 4]))
    user = model.user_UD.detach().numpy()[[0, 4, 5, 4]]
    gender = model.content.level_TC.detach().numpy()[[0, 1, 0, 1]]
    logits = user @ gender.T / 0.5
    expected = np.mean(cross_entropy(logits) + cross_entropy(logits.T))
    found = model.losses(placed(batch, "user")).terms
    assert_like(found["contrast"].detach(), expected)
    scores = model.score(*model.embeddings()).detach().numpy()
    cells = np.array([[0, 6, 4], [3, 0, 5], [5, 1, 7], [7, 2, 3]])
    margin = scores[[0, 4, 5, 4]][np.arange(4)[:, None], cells]
    gaps = margin[:, :1] - margin[:, 1:]
    assert_like(found["bpr"].detach(), np.log1p(np.exp(-gaps)).mean())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("anchors", ["mean", "sum"])
@pytest.mark.parametrize("has", [[1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 0]])
def test_a_user_without_the_content_is_no_anchor(has, anchors):
    """As described: user 4, who trained on nothing, is the content alone."""
    has = np.array(has)
    age = np.array([[0.1], [0.9], [0.3], [0.6], [0.2], [0.7]]) * has[:, None]
    data = problem({"train": TRAIN}, user_features={"age": Dense(has > 0, age)})
    cfg = CLCRec(side="user", variant="described", dim=2, tau=0.3, anchors=anchors)
    model = cfg.build(data, torch.Generator())
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    p = {name: value.detach().numpy() for name, value in model.named_parameters()}
    content = np.maximum(age @ p["content.layers.0.weight"].T + p["content.layers.0.bias"], 0)
    users = np.array([0, 2, 5, 0, 3])
    item = torch.tensor([[0, 2], [4, 5], [1, 0], [1, 7], [3, 2]])
    batch = placed(Batch(torch.from_numpy(users), item[:, 0], item[:, 1:]), "user")
    logits = p["user_UD"][users] @ content[users].T / 0.3
    each = (cross_entropy(logits) + cross_entropy(logits.T))[has[users] > 0]
    expected = each.mean() if anchors == "mean" else each.sum()
    assert_like(model.losses(batch).terms["contrast"].detach(), expected)

    user = np.where(has[:, None], (p["user_UD"] + content) / 2, p["user_UD"])
    user[4] = content[4]
    bias = p["bias_I"] * SEEN
    assert_like(model.score(*model.embeddings()).detach(), user @ p["item_ID"].T + bias)


@pytest.mark.usefixtures("float64")
def test_what_an_item_looks_like_by_its_rows_and_by_its_content():
    model, p, content = rebuilt("released")
    views = {name: view.detach() for name, view in model.item_views().items()}
    assert list(views) == ["interactions", "text"]
    assert_like(views["interactions"], p["item_ID"])
    assert views["text"].isnan().all(1).tolist() == (HAS == 0).tolist()
    assert_like(views["text"][HAS > 0], content[HAS > 0])


def test_a_side_that_is_unseen_needs_the_content():
    for side, other in (("item", "user"), ("user", "item")):
        data = tiny(split=f"cold-{other}")
        with pytest.raises(ValueError, match=rf"nothing of the {other}s .* side='{other}' does"):
            CLCRec(side=side).build(data, torch.Generator())
        CLCRec(side=other).build(data, torch.Generator())
    with pytest.raises(ValueError, match="CLCRec needs a content of the items"):
        CLCRec().build(replace(tiny(), features={}), torch.Generator())
    with pytest.raises(KeyError, match="no item modality 'level'"):
        CLCRec(modality="level").build(tiny(), torch.Generator())
