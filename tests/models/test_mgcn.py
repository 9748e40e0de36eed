import numpy as np
import pytest
import torch
from torch import Tensor

from mmrec.config import override
from mmrec.data.dataset import Dense
from mmrec.models.base import Batch
from mmrec.models.mgcn import MGCN, MGCNModel
from mmrec.nn.views import batch_nodes
from tests.models.golden import (
    assert_like,
    assert_norm,
    batch_of,
    features,
    filled,
    golden,
    pairs,
    problem,
)

RECORD = golden("mgcn")
CASE, DETAIL = RECORD["cases"]["main"], RECORD["detail"]
CONFIG = MGCN(dim=4, knn_k=3, reg_weight=0.01, cl_weight=0.1)
CHANGES = {
    "two item-graph layers, three user-item layers": {"item_layers": 2, "ui_layers": 3},
    "k = 2": {"knn_k": 2},
    "repeated users and positives in the batch": {},
}
VARIANTS = {v["label"]: v for v in DETAIL["variants"]}


def parts(model: MGCNModel) -> dict[str, Tensor]:
    """The model's parameters by their names in the record."""
    found = {
        "user_table": model.user_UD,
        "item_table": model.item_ID,
        "attention_weight": model.attention[0].weight,
        "attention_bias": model.attention[0].bias,
        "attention_vector": model.attention[2].weight,
    }
    for at, name in enumerate(("image", "text")):
        found[f"{name}_features"] = model.mapped[at].features.table_IF
        for kind, layer in (
            ("projection", model.mapped[at].map),
            ("gate", model.gates[at].map),
            ("preference", model.preferences[at]),
        ):
            found[f"{name}_{kind}_weight"], found[f"{name}_{kind}_bias"] = layer.weight, layer.bias
    return found


def built(**changes) -> MGCNModel:
    data = problem(CASE, features=features())
    model = override(CONFIG, changes).build(data, torch.Generator().manual_seed(0))
    found = parts(model)
    with torch.no_grad():
        for parameter in CASE["parameters"]:
            if parameter["filled"]:
                found[parameter["name"]].copy_(filled(parameter))
    return model


def batch(case: dict = CASE) -> Batch:
    plain = batch_of(case)
    nodes = batch_nodes(plain.user, plain.positive, plain.negative)
    return batch_of(case, full_size=8, **nodes)


def assert_terms(terms: dict[str, Tensor], record: dict[str, float]) -> None:
    assert_like(terms["bpr"], record["bpr"])
    assert_like(terms["reg"], record["l2"])
    contrast = record["contrastive_items"] + record["contrastive_users"]
    assert_like(terms["contrast"], 0.1 * contrast)
    assert_like(sum(terms.values()), record["total"])


@pytest.mark.usefixtures("float64")
def test_reproduces_the_released_representations():
    model = built()
    user, item = model.embeddings()
    assert_like(user, CASE["user"])
    assert_like(item, CASE["item"])
    assert_like(model.score(user, item), CASE["scores"])
    behaviour, side = model.behaviour_and_side()
    assert_like(behaviour, DETAIL["eval"]["behaviour_nodes"])
    assert_like(side, DETAIL["eval"]["side_nodes"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("label", [None, *VARIANTS])
def test_reproduces_the_released_step(label):
    record = VARIANTS[label] if label else DETAIL["train"]
    model = built(**(CHANGES[label] if label else {}))
    if label:
        assert_like(model.score(*model.embeddings()), record["scores"])
    terms = model.losses(batch(record if "batch" in record else CASE)).terms
    assert_terms(terms, record["loss_terms"])
    sum(terms.values()).backward()
    found = parts(model)
    assert record["gradient_l2"].keys() == found.keys()
    for name, norm in record["gradient_l2"].items():
        assert_norm(found[name].grad, norm)


@pytest.mark.usefixtures("float64")
def test_reproduces_two_epochs_of_two_steps():
    model, record = built(), DETAIL["trajectory"]
    optimizer = torch.optim.Adam(model.parameters())
    second = {"batch": DETAIL["problem"]["second_batch_of_trajectories"]}
    for case, step in zip([CASE, second] * 2, record["steps"], strict=True):
        optimizer.param_groups[0]["lr"] = step["learning_rate"]
        terms = model.losses(batch(case)).terms
        assert_terms(terms, step)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    assert_like(model.score(*model.embeddings()).detach(), record["scores_after"])
    for name, mapped in zip(("image", "text"), model.mapped, strict=True):
        table = mapped.features.table_IF.detach()
        assert_norm(table, record[f"{name}_feature_table_after_l2"])


# --- against the formulas, with any number of modalities, one item without audio

SEEN = np.zeros((6, 8))
SEEN[tuple(pairs(CASE["train"]).T)] = 1


def modalities(names: tuple[str, ...]) -> dict[str, Dense]:
    i, j = np.ogrid[:8, :6]
    audio = Dense(np.arange(8) != 2, np.sin(0.5 + 2.3 * i * j + i) * (i != 2))
    return {name: (features() | {"audio": audio})[name] for name in names}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def mapped(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return x @ weight.T + bias


def alike(table: np.ndarray, k: int) -> np.ndarray:
    length = np.linalg.norm(table, axis=1)
    graph = np.eye(8)
    for row in np.flatnonzero(length):
        cosine = np.where(length > 0, table @ table[row] / (length * length[row] + 1e-300), -9)
        best = np.argsort(-cosine)[:k]
        graph[row, best] = cosine[best]
    return graph / np.sqrt(np.outer(graph.sum(1), graph.sum(1)))


def dense_views(
    model: MGCNModel, data: dict[str, Dense], gates: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Behaviour and side of `dim=3, ui_layers=1, item_layers=2, knn_k=4`."""
    user, item = model.user_UD.detach().numpy(), model.item_ID.detach().numpy()
    spread = SEEN / np.sqrt(np.outer(SEEN.sum(1), SEEN.sum(0)))
    behaviour = np.concatenate((user + spread @ item, item + spread.T @ user)) / 2
    content = []
    names = sorted(data)
    for name, own, gate, of_modality in zip(names, model.mapped, model.gates, gates, strict=True):
        z = mapped(own.map, own.features.table_IF.detach().numpy())
        graph = alike(data[name].values, 4)
        view = graph @ graph @ (item * sigmoid(mapped(gate.map, z)))
        content.append(of_modality * np.concatenate((spread @ view, view)))
    if len(content) == 1:
        return behaviour, content[0] / 2
    query = model.attention[2].weight.detach().numpy()[0]
    logit = np.stack([np.tanh(mapped(model.attention[0], t)) @ query for t in content])
    share = np.exp(logit) / np.exp(logit).sum(axis=0)
    common = sum(w[:, None] * t for w, t in zip(share, content, strict=True))
    side = common.copy()
    for preference, t in zip(model.preferences, content, strict=True):
        side += sigmoid(mapped(preference, behaviour)) * (t - common)
    return behaviour, side / (len(content) + 1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize(
    ("names", "gates"),
    [
        (("text",), None),
        (("image", "text"), None),
        (("audio", "image", "text"), None),
        (("text",), (0.5,)),
        (("audio", "image", "text"), (0.9, 0.5, 1.3)),
    ],
)
def test_follows_the_formula_for_any_number_of_modalities(names, gates, trained):
    cfg = MGCN(dim=3, ui_layers=1, item_layers=2, knn_k=4, tau=0.5, train_features=trained)
    cfg = override(cfg, {"gate_modalities": gates is not None})
    data = modalities(names)
    model = cfg.build(problem(CASE, features=data), torch.Generator().manual_seed(3))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            wave = torch.sin(torch.arange(parameter.numel()) * 0.7 + number)
            parameter += wave.view_as(parameter)
    tables = [m.features.table_IF for m in model.mapped]
    assert [any(t is p for p in model.parameters()) for t in tables] == [trained] * len(names)

    if gates:
        with torch.no_grad():
            model.modality_gates.logit_M.copy_((torch.tensor(gates) / 2).logit())
    gates = gates or (1,) * len(names)
    behaviour, side = dense_views(model, data, gates)
    for found, wanted in zip(model.behaviour_and_side(), (behaviour, side), strict=True):
        assert_like(found.detach(), wanted)

    rows = {"batch": {"users": [4, 4, 1], "positives": [7, 3, 3], "negatives": [1, 2, 5]}}
    contrast = 0.0
    for at in (np.array([4, 4, 1]), 6 + np.array([7, 3, 3])):
        anchor, target = (
            x[at] / np.linalg.norm(x[at], axis=1, keepdims=True) for x in (side, behaviour)
        )
        logit = max(gates) * anchor @ target.T / 0.5
        contrast += (np.log(np.exp(logit).sum(1)) - np.diag(logit)).mean()
    terms = model.losses(batch(rows)).terms
    assert_like(terms["contrast"].detach(), 0.01 * contrast)
    sum(terms.values()).backward()
    assert all(p.grad.any() for p in model.parameters())


def test_needs_a_modality():
    with pytest.raises(ValueError, match="MGCN needs at least a modality"):
        CONFIG.build(problem(CASE), torch.Generator())
