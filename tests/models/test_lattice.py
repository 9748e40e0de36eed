import numpy as np
import pytest
import torch
from torch import Tensor

from mmrec.config import override
from mmrec.data.dataset import Dense
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.models.base import Batch
from mmrec.models.lattice import LATTICE, LATTICEModel
from mmrec.nn.neighbour_lists import NeighbourLists, nearest_cosines
from tests.models.golden import (
    assert_like,
    assert_norm,
    batch_of,
    features,
    filled,
    golden,
    problem,
)
from tests.models.golden import pairs as train_pairs

RECORD = golden("lattice")
CASE, DETAIL = RECORD["cases"]["main"], RECORD["detail"]
CONFIG = LATTICE(dim=4, feature_dim=5, knn_k=3, reg_weight=0.01)
SECOND = {"batch": DETAIL["problem"]["second_batch_of_trajectories"]}
CHANGES = {
    "two item-graph layers": {"item_layers": 2},
    "three user-item layers": {"ui_layers": 3},
    "matrix factorisation head": {"ui_layers": 0},
    "image modality only (no text file)": {"modalities": ("image",)},
    "lambda 0.3": {"frozen_share": 0.3},
}
VARIANTS = {v["label"]: v for v in DETAIL["variants"] if v["label"] in CHANGES}


def parts(model: LATTICEModel) -> dict[str, Tensor]:
    """The model's parameters by their names in the record."""
    found = {"user_table": model.user_UD, "item_table": model.item_ID}
    if model.modality_M is not None:
        found["modality_logits"] = model.modality_M
    for name, mapped in zip(("image", "text"), model.mapped, strict=False):
        found[f"{name}_projection_weight"] = mapped.map.weight
        found[f"{name}_projection_bias"] = mapped.map.bias
        found[f"{name}_features"] = mapped.features.table_IF
    return found


def built(**changes) -> LATTICEModel:
    data = problem(CASE, features=features())
    model = override(CONFIG, changes).build(data, torch.Generator().manual_seed(0))
    found = parts(model)
    with torch.no_grad():
        for parameter in CASE["parameters"]:
            if parameter["filled"] and parameter["name"] in found:
                found[parameter["name"]].copy_(filled(parameter))
    return model


def first_batch(case: dict = CASE) -> Batch:
    return batch_of(case, full_size=8, rebuild=torch.zeros(1))


def later_batch(case: dict = CASE) -> Batch:
    return batch_of(case, full_size=8)


def keep_buffers(model: LATTICEModel, new: dict[str, Tensor]) -> None:
    for name, value in new.items():
        getattr(model, name).copy_(value)


@pytest.mark.usefixtures("float64")
def test_reproduces_the_released_representations():
    model = built()
    user, item = model.embeddings()
    assert_like(user, CASE["user"])
    assert_like(item, CASE["item"])
    assert_like(model.score(user, item), CASE["scores"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("label", [None, *CHANGES])
def test_reproduces_the_first_step_of_an_epoch(label):
    record = VARIANTS[label] if label else DETAIL["first_step_of_epoch"]
    model = built(**(CHANGES[label] if label else {}))
    if label:
        assert_like(model.score(*model.embeddings()), record["scores"])
    terms = model.losses(first_batch()).terms
    assert_like(terms["bpr"], record["loss_terms"]["bpr"])
    assert_like(terms["reg"], record["loss_terms"]["l2"])
    total = terms["bpr"] + terms["reg"]
    assert_like(total, record["loss_terms"]["total"])
    total.backward()
    found = parts(model)
    wanted = {name: norm for name, norm in record["gradient_l2"].items() if norm is not None}
    assert wanted.keys() == found.keys()
    for name, norm in wanted.items():
        assert_norm(found[name].grad, norm)


@pytest.mark.usefixtures("float64")
def test_later_steps_use_the_numbers_and_not_the_gradient():
    model, record = built(), DETAIL["later_step_same_parameters"]
    keep_buffers(model, model.losses(first_batch()).buffers)
    terms, buffers = model.losses(later_batch())
    assert not buffers
    assert_like(terms["bpr"] + terms["reg"], record["loss_terms"]["total"])
    (terms["bpr"] + terms["reg"]).backward()
    for name, parameter in parts(model).items():
        if record["gradient_l2"][name] is None:
            assert parameter.grad is None
        else:
            assert_norm(parameter.grad, record["gradient_l2"][name])


@pytest.mark.usefixtures("float64")
def test_reproduces_two_epochs_of_two_steps():
    model, record = built(), DETAIL["trajectory_missing_gradients_skipped"]
    optimizer = torch.optim.Adam(model.parameters())
    batches = [first_batch(), later_batch(SECOND)] * 2
    for batch, step in zip(batches, record["steps"], strict=True):
        optimizer.param_groups[0]["lr"] = 0.01 * 0.96 ** (step["epoch"] / 50)
        terms, buffers = model.losses(batch)
        assert_like(terms["bpr"], step["bpr"])
        assert_like(terms["reg"], step["l2"])
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        keep_buffers(model, buffers)
        found = parts(model)
        assert_norm(found["image_features"].detach(), step["image_feature_table_l2_after"])
        assert_like(found["modality_logits"].detach(), step["modality_logits_after"])
    assert_like(model.score(*model.embeddings()).detach(), record["scores_after"])


# --- against dense formulas

SEEN = np.zeros((6, 8))
SEEN[tuple(train_pairs(CASE["train"]).T)] = 1


def three_modalities() -> dict[str, Dense]:
    """Image, text and audio; one item has no audio, another no image."""
    more = features()
    i, j = np.ogrid[:8, :6]
    more["audio"] = Dense(np.arange(8) != 2, np.sin(0.5 + 2.3 * i * j + i) * (i != 2))
    more["image"] = Dense(np.arange(8) != 5, more["image"].values * (i != 5))
    return more


def alike(table: np.ndarray, k: int) -> np.ndarray:
    length = np.linalg.norm(table, axis=1)
    cosine = np.full((8, 8), -np.inf)
    some = length > 0
    scaled = table[some] / length[some, None]
    cosine[np.ix_(some, some)] = scaled @ scaled.T
    np.fill_diagonal(cosine, 1)
    kept = np.argsort(-cosine, axis=1)[:, :k]
    graph = np.zeros((8, 8))
    np.put_along_axis(graph, kept, np.take_along_axis(cosine, kept, axis=1), axis=1)
    return np.where(np.isfinite(graph), graph, 0)


def normalised(graph: np.ndarray) -> np.ndarray:
    total = graph.sum(axis=1)
    return graph / np.sqrt(np.outer(total, total))


OPEN = (1.0, 1.0, 1.0)


def dense_graph(
    model: LATTICEModel,
    k: int,
    frozen_share: float,
    gates: tuple[float, ...] = OPEN,
    gates_when_built: tuple[float, ...] | None = None,
) -> np.ndarray:
    names = sorted(three_modalities())
    logit = model.modality_M.detach().numpy()
    share = np.exp(logit) / np.exp(logit).sum()
    learned, frozen = [], np.zeros((8, 8))
    built = gates_when_built or gates
    for w, name, mapped, gate, was in zip(share, names, model.mapped, gates, built, strict=True):
        table = was * mapped.features.table_IF.detach().numpy()
        weight, bias = (p.detach().numpy() for p in (mapped.map.weight, mapped.map.bias))
        learned.append(w * alike(table @ weight.T + bias, k))
        frozen += gate * w * normalised(alike(three_modalities()[name].values, k))
    total = np.sum(learned, axis=(0, 2))
    kept = sum(gate * part for gate, part in zip(gates, learned, strict=True))
    return (1 - frozen_share) * kept / np.sqrt(np.outer(total, total)) + frozen_share * frozen


def dense_embeddings(
    model: LATTICEModel,
    graph: np.ndarray,
    layers: int,
    item_layers: int,
    gates: tuple[float, ...] = OPEN,
) -> tuple[np.ndarray, np.ndarray]:
    user, item = model.user_UD.detach().numpy(), model.item_ID.detach().numpy()
    both = np.block([[np.eye(6), SEEN], [SEEN.T, np.eye(8)]])
    both /= both.sum(axis=1, keepdims=True)
    powers = [np.linalg.matrix_power(both, n) for n in range(layers + 1)]
    mean = np.mean(powers, axis=0) @ np.concatenate((user, item))
    near = np.linalg.matrix_power(graph, item_layers) @ item
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    length = np.average(gates, weights=gates)
    return mean[:6], mean[6:] + length * near


def three(**changes) -> LATTICEModel:
    cfg = LATTICE(dim=3, feature_dim=4, ui_layers=1, item_layers=3, knn_k=4, frozen_share=0.6)
    data = problem(CASE, features=three_modalities())
    model = override(cfg, changes).build(data, torch.Generator().manual_seed(3))
    with torch.no_grad():
        model.modality_M.copy_(torch.tensor([0.3, -0.4, 0.9]))
    return model


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("trained", [True, False])
def test_follows_the_formula_for_three_modalities_and_missing_ones(trained):
    model = three(train_features=trained)
    user, item = dense_embeddings(model, dense_graph(model, 4, 0.6), 1, 3)
    for found, wanted in zip(model.embeddings(), (user, item), strict=True):
        assert_like(found.detach(), wanted)
    tables = [m.features.table_IF for m in model.mapped]
    assert [any(t is p for p in model.parameters()) for t in tables] == [trained] * 3


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("gates", [(1.0, 0.5, 1.3), (0.7, 0.7, 0.5)])
def test_gates_are_on_features_on_shares_of_the_graph_and_on_what_is_added(gates):
    model = three(gate_modalities=True)
    with torch.no_grad():
        model.gates.logit_M.copy_((torch.tensor(gates) / 2).logit())
    wanted = dense_embeddings(model, dense_graph(model, 4, 0.6, gates), 1, 3, gates)
    for found, table in zip(model.embeddings(), wanted, strict=True):
        assert_like(found.detach(), table)
    for mapped, view, gate in zip(model.mapped, model.item_views().values(), gates, strict=True):
        content = gate * mapped.features.table_IF @ mapped.map.weight.T + mapped.map.bias
        assert_like(view.detach(), content.detach())


@pytest.mark.usefixtures("float64")
def test_gates_learn_where_the_graph_is_stale():
    model = three(gate_modalities=True)
    data = problem(CASE, features=three_modalities())
    batches = model.epoch_batches(TrainingPairs.of(data), Draws(0), 0, BatchShape(10, 2))
    first, later = list(batches)[:2]
    keep_buffers(model, model.losses(first).buffers)
    gates = (1.0, 0.5, 1.3)
    with torch.no_grad():
        model.gates.logit_M.copy_((torch.tensor(gates) / 2).logit())
    graph = dense_graph(model, 4, 0.6, gates, gates_when_built=OPEN)
    user, item = dense_embeddings(model, graph, 1, 3, gates)
    rows = torch.cat((later.positive[:, None], later.negative), 1)
    score = (user[later.user][:, None] * item[rows]).sum(-1)
    terms = model.losses(later).terms
    bpr = np.log1p(np.exp(score[:, 1:] - score[:, :1])).mean()
    assert_like(terms["bpr"].detach(), bpr)
    sum(terms.values()).backward()
    assert (model.gates.logit_M.grad.abs() > 1e-9).all()
    assert all(p.grad is None for p in model.mapped.parameters())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variant", ["released", "described"])
def test_the_graph_of_a_later_step_is_stale_as_released_and_fresh_as_described(variant):
    model = three(variant=variant)
    data = problem(CASE, features=three_modalities())
    batches = model.epoch_batches(TrainingPairs.of(data), Draws(0), 0, BatchShape(10, 2))
    first, later = list(batches)[:2]
    keep_buffers(model, model.losses(first).buffers)
    graph = dense_graph(model, 4, 0.6)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter += 0.3 * torch.sin(torch.arange(parameter.numel()) + number).view_as(
                parameter
            )
    if variant == "described":
        graph = dense_graph(model, 4, 0.6)
    user, item = dense_embeddings(model, graph, 1, 3)
    rows = torch.cat((later.positive[:, None], later.negative), 1)
    score = (user[later.user][:, None] * item[rows]).sum(-1)
    bpr = np.log1p(np.exp(score[:, 1:] - score[:, :1])).mean()
    squares = (user[later.user] ** 2).sum() + (item[rows] ** 2).sum()
    terms = model.losses(later).terms
    assert_like(terms["bpr"].detach(), bpr)
    assert_like(terms["reg"].detach(), 1e-3 * squares / 20)
    sum(terms.values()).backward()
    learns = [p.grad is not None for p in model.mapped.parameters()]
    assert learns == [variant == "described"] * 9


def test_a_constant_modality_keeps_lists_of_full_length():
    more = features()
    more["text"] = Dense(np.ones(8, dtype=bool), np.zeros((8, 2)))
    model = CONFIG.build(problem(CASE, features=more), torch.Generator().manual_seed(0))
    assert all(table.isfinite().all() for table in model.embeddings())


# --- lists of neighbours


@pytest.mark.usefixtures("float64")
def test_spreading_over_lists_is_a_product_with_a_matrix():
    near = torch.tensor([[0, 1, 1], [2, 2, 0], [2, 0, 1], [0, 0, 0]])
    rng = torch.Generator().manual_seed(1)
    weight, x = torch.randn(4, 3, generator=rng), torch.randn(4, 5, generator=rng)
    dense = torch.zeros(4, 4).index_put((torch.arange(4)[:, None], near), weight, accumulate=True)
    assert_like(NeighbourLists(near, weight).spread(x), dense @ x)
    inputs = (weight.requires_grad_(), x.requires_grad_())
    assert torch.autograd.gradcheck(lambda w, x: NeighbourLists(near, w).spread(x), inputs)


@pytest.mark.usefixtures("float64")
def test_cosines_of_lists_have_a_gradient_and_their_own_item_first():
    z = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    z[4] = 0
    near, cosine = nearest_cosines(z, 3)
    assert near[:, 0].tolist() == list(range(6))
    assert (near[4].tolist(), cosine[4].tolist()) == ([4, 4, 4], [1, 0, 0])
    directions = torch.nn.functional.normalize(z, dim=1)
    for row in (0, 1, 2, 3, 5):
        every = torch.cat((directions[:4], directions[5:])) @ directions[row]
        assert_like(cosine[row], every.sort(descending=True).values[:3])
    some = torch.cat((z[:4], z[5:])).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: nearest_cosines(z, 3).weight_IS, some)


def test_needs_a_modality():
    with pytest.raises(ValueError, match="LATTICE needs at least a modality"):
        CONFIG.build(problem(CASE), torch.Generator())
