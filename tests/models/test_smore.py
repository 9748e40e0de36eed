import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from mmrec.config import override
from mmrec.data.dataset import Dense
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.graphs import spmm
from mmrec.models.base import Batch
from mmrec.models.smore import SMORE, SMOREModel, largest
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

RECORD = golden("smore")
CASE, DETAIL = RECORD["cases"]["main"], RECORD["detail"]
CONFIG = SMORE(dim=4, ui_layers=2, knn_k=3, reg_weight=0.01, cl_weight=0.1, dropout=0.0)
CHANGES = {
    "two item-graph layers, three user-item layers": {"item_layers": 2, "ui_layers": 3},
    "different k per modality (image 2, text 4)": {"image_knn_k": 2, "knn_k": 4},
    "odd width 5": {"dim": 5},
    "dropout 0.5 on the preference gates, recorded masks": {"dropout": 0.5},
}
VARIANTS = {v["label"]: v for v in DETAIL["variants"]}


def parts(model: SMOREModel) -> dict[str, Tensor]:
    """The model's parameters by their names in the record."""
    found = {"user_table": model.user_UD, "item_table": model.item_ID}
    for at, name in enumerate(("image", "text", "fusion")):
        layers = {"gate": model.gates[at].map, "preference": model.preferences[at]}
        found[f"{name}_filter"] = model.filter_H2[at]
        if name != "fusion":
            layers |= {"projection": model.mapped[at].map, "query": model.queries[at][0]}
            found[f"{name}_features"] = model.mapped[at].features.table_IF
            found[f"{name}_query_output"] = model.queries[at][2].weight
        for kind, layer in layers.items():
            found[f"{name}_{kind}_weight"], found[f"{name}_{kind}_bias"] = layer.weight, layer.bias
    return found


def built(**changes) -> SMOREModel:
    data = problem(CASE, features=features())
    model = override(CONFIG, changes).build(data, torch.Generator().manual_seed(0))
    found = parts(model)
    with torch.no_grad():
        for parameter in CASE["parameters"]:
            if parameter["filled"]:
                own = found[parameter["name"]]
                own.copy_(filled(parameter | {"shape": own.shape}))
    return model


def batch(case: dict = CASE, masks: dict | None = None) -> Batch:
    plain = batch_of(case)
    nodes = batch_nodes(plain.user, plain.positive, plain.negative)
    if masks is not None:
        kept = [masks[f"{name}_preference"] for name in ("image", "text", "fusion")]
        kept = torch.tensor(kept).bool().transpose(0, 1)
        nodes["keep_users"], nodes["keep_items"] = (
            kept[:6][nodes["users"]],
            kept[6:][nodes["items"]],
        )
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
def test_reproduces_the_released_filters():
    model = built()
    spectra = [model.spectra.of(mapped()) for mapped in model.mapped]
    spectra.append(model.spectra.product(*spectra))
    for name, x, response in zip(
        ("image", "text", "fusion"), spectra, model.filter_H2, strict=True
    ):
        assert_like(x @ model.spectra.back(response), DETAIL["eval"][f"{name}_filtered"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("label", [None, *VARIANTS])
def test_reproduces_the_released_step(label):
    record = VARIANTS[label] if label else DETAIL["train"]
    model = built(**(CHANGES[label] if label else {}))
    if label:
        assert_like(model.score(*model.embeddings()), record["scores"])
    terms = model.losses(batch(masks=record.get("masks_kept_1_dropped_0"))).terms
    assert_terms(terms, record["loss_terms"])
    sum(terms.values()).backward()
    found = parts(model)
    assert record["gradient_l2"].keys() == found.keys()
    for name, norm in record["gradient_l2"].items():
        assert_norm(found[name].grad, norm)
    last_is_real = model.item_ID.shape[1] % 2 == 0
    for response in model.filter_H2:
        dead = response.grad[:, 1] == 0
        assert dead.tolist() == [True, *[False] * (len(dead) - 2), last_is_real]


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
    """The normalised graph, with -inf where nothing is stored."""
    length = np.linalg.norm(table, axis=1)
    graph = np.full((8, 8), -np.inf)
    np.fill_diagonal(graph, 1)
    for row in np.flatnonzero(length):
        cosine = np.where(length > 0, table @ table[row] / (length * length[row] + 1e-300), -9)
        best = np.argsort(-cosine)[:k]
        graph[row, best] = cosine[best]
    total = np.where(np.isfinite(graph), graph, 0).sum(1)
    return graph / np.sqrt(np.outer(total, total))


def dense_side(
    model: SMOREModel, data: dict[str, Dense], behaviour: np.ndarray, gates: tuple[float, ...]
) -> np.ndarray:
    """Of `dim=6, item_layers=2, knn_k=4`."""
    item = model.item_ID.detach().numpy()
    spread = SEEN / np.sqrt(np.outer(SEEN.sum(1), SEEN.sum(0)))
    bins = [
        np.fft.rfft(mapped(own.map, own.features.table_IF.detach().numpy()), norm="ortho")
        for own in model.mapped
    ]
    bins.append(np.prod([g * x + (1 - g) for g, x in zip(gates, bins, strict=True)], axis=0))
    graphs = [alike(data[name].values, 4) for name in sorted(data)]
    graphs.append(np.max([g * graph for g, graph in zip(gates, graphs, strict=True)], axis=0))
    content = []
    for x, response, gate, graph in zip(bins, model.filter_H2, model.gates, graphs, strict=True):
        real, imaginary = response.detach().numpy().T
        filtered = np.fft.irfft(x * (real + 1j * imaginary), n=6, norm="ortho")
        stored = np.where(np.isfinite(graph), graph, 0)
        view = stored @ stored @ (item * sigmoid(mapped(gate.map, filtered)))
        content.append(np.concatenate((spread @ view, view)))
    preference = [sigmoid(mapped(p, behaviour)) for p in model.preferences]
    rise = np.exp(
        [
            np.tanh(mapped(query[0], content[-1])) @ query[2].weight.detach().numpy().T
            for query in model.queries
        ]
    )
    # Over modalities or over a node's entries; a lone modality has nothing to be weighed against.
    share = rise / rise.sum(axis=0 if model.described else 2, keepdims=True)
    share = share if len(rise) else np.ones((1, 1, 1))
    side = preference[-1] * content[-1]
    for at, gate in enumerate(gates):
        side = side + preference[at] * share[at] * gate * content[at]
    return side / len(content)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("trained", "variant"), [(True, "released"), (False, "described")])
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
def test_follows_the_formula_for_any_number_of_modalities(names, gates, trained, variant):
    cfg = SMORE(dim=6, ui_layers=1, item_layers=2, knn_k=4, train_features=trained, variant=variant)
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
    behaviour, side = model.behaviour_and_side()
    wanted = dense_side(model, data, behaviour.detach().numpy(), gates or (1,) * len(names))
    assert_like(side.detach(), wanted)
    assert_like(torch.cat(model.embeddings()), (behaviour + side).detach())
    terms = model.losses(batch()).terms
    sum(terms.values()).backward()
    assert all(p.grad.any() for p in model.parameters())


@pytest.mark.usefixtures("float64")
def test_a_closed_modality_leaves_the_fusion_that_the_other_has_alone():
    both, text = (
        override(CONFIG, {"gate_modalities": True}).build(
            problem(CASE, features=features(*names)), torch.Generator().manual_seed(0)
        )
        for names in (("image", "text"), ("text",))
    )
    with torch.no_grad():
        both.modality_gates.logit_M[0] = -60
        for alone, shared in ((text.mapped, both.mapped), (text.gates, both.gates)):
            alone[-1].load_state_dict(shared[-1].state_dict())
        text.item_ID.copy_(both.item_ID)
        text.filter_H2[-1].copy_(both.filter_H2[-1])
        fused = []
        for model in (both, text):
            entries = model.parts(model.modality_gates())
            assert entries.min() >= 0
            fused.append(spmm(model.views.item_graphs[-1], model.gated()[-1], entries))
    assert_like(*fused)


def test_dropout_leaves_its_share_of_each_distinct_node():
    model = built(dropout=0.3)
    pairs_of = TrainingPairs.of(problem(CASE))
    kept, whole = [], built()
    for epoch in range(60):
        for one in model.epoch_batches(pairs_of, Draws(0), epoch, BatchShape(9, 1)):
            for name in ("users", "items"):
                assert one.extra[f"keep_{name}"].shape == (len(one.extra[name]), 3, 4)
                kept.append(one.extra[f"keep_{name}"].float().flatten())
    share = torch.cat(kept)
    assert abs(share.mean() - 0.7) < 4 * (0.21 / len(share)) ** 0.5
    first = next(iter(whole.epoch_batches(pairs_of, Draws(0), 0, BatchShape(9, 1))))
    assert "keep_users" not in first.extra


def test_the_largest_entry_wins_where_any_is_stored():
    first = sp.csr_array(np.array([[1.0, -2, 0], [0, 3, 0]]))
    second = sp.csr_array(np.array([[2.0, 0, 0], [-1, 1, 0]]))
    np.testing.assert_array_equal(largest([first, second]).toarray(), [[2, -2, 0], [-1, 3, 0]])


def test_refuses_what_it_cannot_use():
    with pytest.raises(ValueError, match="SMORE needs at least a modality"):
        CONFIG.build(problem(CASE), torch.Generator())
    text = problem(CASE, features=features("text"))
    with pytest.raises(ValueError, match='needs a modality "image"; there are: text'):
        override(CONFIG, {"image_knn_k": 2}).build(text, torch.Generator())
