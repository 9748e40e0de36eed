import numpy as np
import pytest
import torch

from mmrec.data.dataset import Dataset, Dense
from mmrec.models.base import Batch
from mmrec.models.grcn import GRCN
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

RECORD = golden("grcn")
CASE = RECORD["cases"]["main"]
DETAIL = RECORD["detail"]["case"]
NAMES = {
    "C": "confidence_VM",
    "E": "id_VD",
    "img.P": "contents.0.preference_UC",
    "img.in.W": "contents.0.map.weight",
    "img.in.b": "contents.0.map.bias",
    "txt.P": "contents.1.preference_UC",
    "txt.in.W": "contents.1.map.weight",
    "txt.in.b": "contents.1.map.bias",
}
"""In the golden record -> ours."""
WIDTHS = {"audio": 3, "image": 6, "text": 4}


def released():
    cfg = GRCN(dim=4, latent_dim=4, reg_weight=CASE["hyper"]["reg_weight"])
    model = cfg.build(problem(CASE, features=features()), torch.Generator())
    with torch.no_grad():
        for parameter in CASE["parameters"]:
            model.get_parameter(NAMES[parameter["name"]]).copy_(filled(parameter))
    return model


@pytest.mark.usefixtures("float64")
def test_reproduces_the_released_model():
    model = released()
    assert set(dict(model.named_parameters())) == set(NAMES.values())
    user, item = model.embeddings()
    assert_like(user, CASE["user"])
    assert_like(item, CASE["item"])
    assert_like(model.score(user, item), CASE["scores"])

    terms = model.losses(batch_of(CASE)).terms
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    expected = dict(CASE["loss_terms"])
    assert_like(terms["bpr"], expected.pop("bpr"))
    assert_like(terms["reg"], CASE["hyper"]["reg_weight"] * sum(expected.values()))
    assert_like(total, CASE["loss_total"])
    for theirs, norm in CASE["grad_l2"].items():
        assert_norm(model.get_parameter(NAMES[theirs]).grad, norm)


@pytest.mark.usefixtures("float64")
def test_prunes_the_messages_that_the_release_prunes():
    model = released()
    # There: users' messages to items by user, then the items' in the same order.
    place_P = model.messages.to_user.place_E

    def as_here(values: list[float]) -> torch.Tensor:
        to_item_P, to_user_P = torch.tensor(values).view(2, -1)
        return torch.cat((to_user_P, to_item_P[place_P]))

    attentions = [content(content.items(), model.messages, 0)[1] for content in model.contents]
    assert_like(attentions[0], as_here(DETAIL["attention_image"]))
    assert_like(attentions[1], as_here(DETAIL["attention_text"]))
    weight_E = model.refined(attentions)
    assert_like(weight_E, as_here(DETAIL["refined_edge_weight"]))
    assert (weight_E == 0).sum() == 18


@pytest.mark.usefixtures("float64")
def test_trains_as_released():
    model, record = released(), DETAIL["adam_same_batch_5_steps"]
    assert_course(model, batch_of(CASE), record)
    for theirs, norm in record["final_param_l2"].items():
        assert_norm(model.get_parameter(NAMES[theirs]).detach(), norm)


TRAIN = [(0, 0), (0, 1), (0, 4), (1, 1), (1, 2), (2, 5), (3, 3), (3, 0), (3, 5)]
BATCH = Batch(
    torch.tensor([0, 1, 3]), torch.tensor([0, 2, 0]), torch.tensor([[5, 3], [0, 6], [1, 1]])
)


def dataset(*names: str) -> Dataset:
    """5 users by 7 items, of which the last user and item have no interaction."""
    rng = np.random.default_rng(1)
    none = np.zeros((0, 2), dtype=np.int64)
    tables = {n: Dense(np.ones(7, dtype=bool), rng.normal(size=(7, WIDTHS[n]))) for n in names}
    return Dataset("small", 5, 7, np.array(TRAIN), none, none, features=tables)


def built(*names: str, **changes):
    init = torch.Generator().manual_seed(5)
    return GRCN(dim=3, latent_dim=2, **changes).build(dataset(*names), init)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def formula(model, data: Dataset, rounds: int) -> np.ndarray:
    """(V, X) message by message from the equations, with the weights of a model."""
    items_of = {u: [i for v, i in TRAIN if v == u] for u in range(5)}
    users_of = {i: [u for u, j in TRAIN if j == i] for i in range(7)}
    confidence = numpy(model.confidence_VM)
    gates = [1.0] * len(model.modalities) if model.gates is None else numpy(model.gates())
    parts, weights = [], []
    for name, content in zip(model.modalities, model.contents, strict=True):
        mapped = data.features[name].values @ numpy(content.map.weight).T + numpy(content.map.bias)
        f = gates[len(parts)] * unit(np.where(mapped > 0, mapped, 0.01 * mapped))
        p = unit(numpy(content.preference_UC))
        for _ in range(rounds):
            p = unit([p[u] + softmax(f[near] @ p[u]) @ f[near] if near else p[u]
                      for u, near in items_of.items()])  # fmt: skip
        w, v = np.zeros((12, 12)), np.concatenate((p, f))
        for u, near in items_of.items():
            if near:
                attention = softmax(f[near] @ p[u])
                v[u] += attention @ f[near]
                w[u, 5 + np.array(near)] = attention * confidence[5 + np.array(near), len(parts)]
        for i, near in users_of.items():
            if near:
                attention = softmax(p[near] @ f[i])
                v[5 + i] += attention @ p[near]
                w[5 + i, near] = attention * confidence[near, len(parts)]
        parts.append(v)
        weights.append(w)
    w, e = np.maximum(np.max(weights, axis=0), 0), unit(numpy(model.id_VD))
    return np.concatenate((e + w @ e + w @ w @ e, *parts), axis=1)


def ranking(node_VX: np.ndarray) -> float:
    """Mean over rows and negatives of -ln sigmoid of the difference."""
    losses = []
    for k, negatives in enumerate(BATCH.negative.tolist()):
        user, positive = node_VX[BATCH.user[k]], node_VX[5 + BATCH.positive[k]]
        losses += [np.log1p(np.exp(-user @ (positive - node_VX[5 + n]))) for n in negatives]
    return float(np.mean(losses))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("names", [("text",), ("image",), ("image", "text"), tuple(WIDTHS)])
@pytest.mark.parametrize(
    ("variant", "layers", "rounds"),
    [("released", 3, 0), ("described", 0, 0), ("described", 1, 1), ("described", 3, 3)],
)
def test_follows_the_equations(names, variant, layers, rounds):
    model = built(*names, variant=variant, layers=layers, reg_weight=0.3)
    expected = formula(model, dataset(*names), rounds)
    assert_like(torch.cat(model.embeddings()).detach(), expected)
    terms = model.losses(BATCH).terms
    assert_like(terms["bpr"].detach(), ranking(expected))

    id_UD, id_ID = np.split(numpy(model.id_VD), [5])
    penalty = (
        2 * np.mean(id_UD[BATCH.user] ** 2)
        + np.mean(id_ID[BATCH.positive] ** 2)
        + np.mean(id_ID[BATCH.negative] ** 2)
    ) / 2
    for name, content in zip(names, model.contents, strict=True):
        preference = numpy(content.preference_UC)
        penalty += np.mean(preference[BATCH.user] ** 2)
        if variant == "released" and name == "image":
            penalty += np.mean(preference**2)
    assert_like(terms["reg"].detach(), 0.3 * penalty)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("variant", "rounds"), [("released", 0), ("described", 2)])
def test_gates_come_after_the_division_by_the_length(variant, rounds):
    model = built("image", "text", variant=variant, layers=rounds, gate_modalities=True)
    with torch.no_grad():
        model.gates.logit_M.copy_(torch.tensor([1.0, -2.0]))
    expected = formula(model, dataset("image", "text"), rounds)
    assert_like(torch.cat(model.embeddings()).detach(), expected)


def test_routing_reaches_users_in_described_alone():
    tables = {
        (variant, layers): torch.cat(built("text", variant=variant, layers=layers).embeddings())
        for variant in ("released", "described")
        for layers in (0, 3)
    }
    assert torch.equal(tables["released", 0], tables["released", 3])
    assert torch.equal(tables["released", 0], tables["described", 0])
    moved = (tables["described", 3] - tables["described", 0])[:, 3:].abs().amax(1)
    assert (moved[:4] > 1e-3).all()
    assert moved[[4, 11]].max() < 1e-6  # the user and the item without interactions


def test_tables_are_trained_on_request_and_start_at_the_features():
    frozen, trained = (built("image", "text", train_features=t) for t in (False, True))
    tables = {f"contents.{k}.table._table" for k in (0, 1)}
    more = set(dict(trained.named_parameters())) - set(dict(frozen.named_parameters()))
    assert more == tables
    assert torch.equal(torch.cat(frozen.embeddings()), torch.cat(trained.embeddings()))
    trained.losses(BATCH).terms["bpr"].backward()
    assert all(trained.get_parameter(name).grad.any() for name in tables)


def test_refuses_a_dataset_without_modalities():
    with pytest.raises(ValueError, match="needs at least a modality"):
        built()
