import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrec.config import override
from mmrec.data.dataset import Dense
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs, distinct
from mmrec.models.base import Batch, Recommender
from mmrec.models.crane import CRANE, CRANEModel, ReleasedCRANEModel
from mmrec.nn import formed
from mmrec.nn.node_contrast import drawn_nodes, node_infonce
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
from tests.models.tiny import tiny

# --- the release

RECORD = golden("crane")
CASES, DETAIL = RECORD["cases"], RECORD["detail"]["cases"]
CASE = CASES["d4_no_pruning"]
KNOBS = {
    "embedding_size": "dim",
    "knn_k": "knn_k",
    "feat_embed_dim": "feature_dim",
    "n_mm_layers": "item_layers",
    "n_ui_layers": "ui_layers",
    "mm_image_weight": "image_weight",
    "dropout": "dropout",
}


def released(name: str) -> tuple[ReleasedCRANEModel, dict[str, Tensor]]:
    """The model of a case, and its parameters by their names in the release."""
    case = CASES[name]
    cfg = CRANE(variant="released", modalities=("image", "text"))
    cfg = override(cfg, {ours: case["hyper"][theirs] for theirs, ours in KNOBS.items()})
    model = cfg.build(problem(case, features=features()), torch.Generator())
    assert isinstance(model, ReleasedCRANEModel)
    attention = "cross_modal_attention"
    found = {
        "user_embedding.weight": model.user_UD,
        "item_id_embedding.weight": model.item_ID,
        f"{attention}.attention.in_proj_weight": model.attention.weight,
        f"{attention}.attention.in_proj_bias": model.attention.bias,
        f"{attention}.attention.out_proj.weight": model.attention.out.weight,
        f"{attention}.attention.out_proj.bias": model.attention.out.bias,
    }
    for m, (first, second) in enumerate((("image", "visual"), ("text", "textual"))):
        found[f"{first}_embedding.weight"] = model.get_parameter(f"mapped.{m}.features._table")
        for kind in ("weight", "bias"):
            found[f"{first}_trs.{kind}"] = getattr(model.mapped[m].map, kind)
            found[f"{attention}.{second}_proj.{kind}"] = getattr(model.second[m], kind)
    with torch.no_grad():
        for parameter in case["parameters"]:
            if parameter["filled"]:
                found[parameter["name"]].copy_(filled(parameter))
    return model, found


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CASES)
def test_reproduces_the_released_model(name):
    case, detail = CASES[name], DETAIL[name]
    model, found = released(name)
    user, item = model.embeddings()
    assert_like(user, case["user"])
    assert_like(item, case["item"])
    assert_like(model.score(user, item), case["scores"])
    assert_like(model.attended().mean(0), detail["fused"])
    assert_like(model.alike.dense(), detail["mm_adj"])

    edges = pairs(case["train"]).tolist()
    kept = detail.get("kept_edges", edges)
    assert model.part.kept == len(kept)
    model.part.keep(torch.tensor([edge in kept for edge in edges]))
    terms = model.losses(batch_of(case)).terms
    assert terms.keys() == case["loss_terms"].keys()
    assert_like(terms["bpr"], case["loss_total"])
    terms["bpr"].backward()
    assert case["grad_l2"].keys() == found.keys()
    for theirs, norm in case["grad_l2"].items():
        gradient = found[theirs].grad
        assert gradient is not None
        assert_norm(gradient, norm)


@pytest.mark.usefixtures("float64")
def test_one_modality_of_the_release_averages_the_items_own_table():
    cfg = CRANE(dim=4, knn_k=3, modalities=("text",), ui_layers=1, variant="released")
    model = cfg.build(problem(CASE, features=features()), torch.Generator().manual_seed(0))
    assert isinstance(model, ReleasedCRANEModel)
    assert {name for name, _ in model.named_parameters()} == {"user_UD", "item_ID"}
    user, item = (table.detach().numpy() for table in (model.user_UD, model.item_ID))
    norm = seen_UI() / np.sqrt(np.outer(seen_UI().sum(1) + 1e-7, seen_UI().sum(0) + 1e-7))
    near = nearest(features()["text"].values, 3)
    wanted = (item + norm.T @ user) / 2 + item[near].sum(1) / (3 + 1e-7)
    assert_like(model.embeddings()[1].detach(), wanted)


# --- as described, against the formulas

SEED = 3
REPEATED = {"users": [4, 4, 1, 0], "positives": [7, 3, 3, 1], "negatives": [1, 2, 5, 6]}


def modalities(names: tuple[str, ...]) -> dict[str, Dense]:
    i, j = np.ogrid[:8, :6]
    audio = Dense(np.ones(8, dtype=bool), np.sin(0.5 + 2.3 * i * j + i))
    return {name: (features() | {"audio": audio})[name] for name in names}


def seen_UI() -> np.ndarray:
    seen = np.zeros((6, 8))
    seen[tuple(pairs(CASE["train"]).T)] = 1
    return seen


def nearest(table: np.ndarray, k: int) -> np.ndarray:
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    return np.argsort(-(unit @ unit.T), axis=1)[:, :k]


def stir(model: Recommender) -> None:
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            wave = torch.sin(torch.arange(parameter.numel()) * 0.7 + number)
            parameter += 0.5 * wave.view_as(parameter)


def described(cfg: CRANE, names: tuple[str, ...]) -> CRANEModel:
    data = problem(CASE, features=modalities(names))
    model = cfg.build(data, torch.Generator().manual_seed(SEED))
    assert isinstance(model, CRANEModel)
    return model


class Dense64:
    """The model's equations on dense arrays; its attention alone is the model's own."""

    def __init__(self, model: CRANEModel, cfg: CRANE, names: tuple[str, ...]) -> None:
        self.p = {name: value.detach().numpy() for name, value in model.named_parameters()}
        contents = [
            modalities(names)[name].values @ self.p[f"map_DF.{m}"].T for m, name in enumerate(names)
        ]
        history = seen_UI()
        if cfg.profile == "mean":
            history = history / history.sum(1, keepdims=True)
        self.items = self.refined(model, contents)
        self.users = self.refined(model, [history @ content for content in contents])
        self.near = nearest(self.items, cfg.knn_k)
        self.cfg = cfg

    @staticmethod
    def refined(model: CRANEModel, views: list[np.ndarray]) -> np.ndarray:
        if model.rca.depth:
            views = [v.detach().numpy() for v in model.rca([torch.tensor(v) for v in views])]
        return np.concatenate(views, axis=1)

    def semantic(self, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weight, bias = self.p["join.weight"], self.p["join.bias"]
        item = self.items @ weight.T + bias
        for _ in range(self.cfg.item_layers):
            item = item[near].mean(1)
        if self.cfg.user_side == "items":
            return seen_UI() @ item / seen_UI().sum(1, keepdims=True), item
        return self.users @ weight.T + bias, item

    def behaviour(self, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Two layers and the tables."""
        norm = seen / np.sqrt(np.outer(seen.sum(1) + 1e-7, seen.sum(0) + 1e-7))
        layers = [(self.p["user_UD"], self.p["item_ID"])]
        for _ in range(2):
            user, item = layers[-1]
            layers.append((norm @ item, norm.T @ user))
        user, item = (np.mean(side, axis=0) for side in zip(*layers, strict=True))
        return user, item


def contrast(e: np.ndarray, h: np.ndarray, of_rows: list[int], against: list[list[int]]) -> float:
    """Mean over rows; a row's own target and those of the nodes listed."""
    unit_e, unit_h = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (e, h))
    losses = []
    for node, others in zip(of_rows, against, strict=True):
        logit = unit_h[[node, *others]] @ unit_e[node] / 0.5
        losses.append(np.log(np.exp(logit).sum()) - logit[0])
    return float(np.mean(losses))


def others(kind: str, of_rows: list[int], drawn: list[int]) -> list[list[int]]:
    match kind:
        case "batch":
            return [of_rows[:at] + of_rows[at + 1 :] for at in range(len(of_rows))]
        case "distinct":
            return [sorted(set(of_rows) - {node}) for node in of_rows]
    return [[other for other in drawn if other != node] for node in of_rows]


DRAWN = {"user": [5, 4, 2, 0], "item": [3, 0, 6, 5]}


def with_nodes(batch: Batch, kind: str) -> Batch:
    users, user_at = distinct(batch.user)
    items, item_at = distinct(batch.positive)
    extra = {"users": users, "user_at": user_at, "items": items, "item_at": item_at}
    if kind == "nodes":
        for side, nodes in (("user", users), ("item", items)):
            drawn = DRAWN[side]
            extra[f"drawn_{side}s"] = torch.tensor(drawn)
            place = [drawn.index(n) if n in drawn else len(drawn) for n in nodes.tolist()]
            extra[f"{side}_place"] = torch.tensor(place)
    return dataclasses.replace(batch, extra=extra)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("names", "knobs"),
    [
        (("text",), {"depth": 0, "item_layers": 0}),
        (("image", "text"), {"depth": 0, "profile": "mean", "negatives": "distinct"}),
        (("image", "text"), {"depth": 0, "user_side": "items", "rebuild": "once"}),
        (("audio",), {"depth": 1, "negatives": "nodes"}),
        (("image", "text"), {"depth": 3, "item_layers": 2, "rebuild": "once"}),
        (("audio", "image", "text"), {"depth": 2, "reading": "features", "profile": "mean"}),
        (("audio", "image", "text"), {"depth": 1, "user_side": "items", "negatives": "nodes"}),
    ],
)
def test_is_the_formula(names, knobs):
    cfg = CRANE(dim=3, knn_k=3, tau=0.5, cl_weight=0.7, modalities=names)
    cfg = override(cfg, knobs)
    model = described(cfg, names)
    once = Dense64(model, cfg, names).near
    stir(model)
    model.start_epoch(Draws(0), 0)
    dense = Dense64(model, cfg, names)
    near = once if cfg.rebuild == "once" else dense.near
    assert not np.array_equal(np.sort(once), np.sort(dense.near))

    semantic = dense.semantic(near)
    whole = [e + h for e, h in zip(dense.behaviour(seen_UI()), semantic, strict=True)]
    for found, wanted in zip(model.embeddings(), whole, strict=True):
        assert_like(found.detach(), wanted)
    assert_like(torch.cat(list(model.item_views().values()), 1).detach(), dense.items)

    edges = pairs(CASE["train"])
    chosen = np.arange(len(edges)) % 2 == 0
    model.part.keep(torch.tensor(chosen))
    part = np.zeros((6, 8))
    part[tuple(edges[chosen].T)] = 1
    behaviour = dense.behaviour(part)
    user, item = (e + h for e, h in zip(behaviour, semantic, strict=True))
    batch = with_nodes(batch_of({"batch": REPEATED}), cfg.negatives)
    terms = {name: term.detach() for name, term in model.losses(batch).terms.items()}
    rows, wanted, other = REPEATED.values()
    gap = (user[rows] * (item[wanted] - item[other])).sum(1)
    assert_like(terms.pop("bpr"), np.log1p(np.exp(-gap)).mean())
    total = sum(
        contrast(e, h, nodes, others(cfg.negatives, nodes, DRAWN[side]))
        for side, nodes, e, h in zip(
            ("user", "item"), (rows, wanted), behaviour, semantic, strict=True
        )
    )
    assert_like(terms.pop("contrast"), 0.7 * total)
    assert not terms


@pytest.mark.usefixtures("float64")
def test_an_epoch_keeps_the_graph_that_it_starts_from():
    cfg = CRANE(dim=3, knn_k=3, depth=1, dropout=0.0)
    model = described(cfg, ("image", "text"))
    before = Dense64(model, cfg, ("image", "text")).near
    model.start_epoch(Draws(0), 0)
    stir(model)
    dense = Dense64(model, cfg, ("image", "text"))
    sides = zip(dense.behaviour(seen_UI()), dense.semantic(before), strict=True)
    user, item = (e + h for e, h in sides)
    rows, wanted, other = REPEATED.values()
    gap = (user[rows] * (item[wanted] - item[other])).sum(1)
    batch = with_nodes(batch_of({"batch": REPEATED}), "batch")
    assert_like(model.losses(batch).terms["bpr"].detach(), np.log1p(np.exp(-gap)).mean())
    model.start_epoch(Draws(0), 1)
    after = Dense64(model, cfg, ("image", "text")).near
    assert not np.array_equal(np.sort(before), np.sort(after))
    assert np.array_equal(np.sort(model.alike.near_IS), np.sort(after))


@pytest.mark.usefixtures("float64")
def test_attention_to_the_nearest_nodes():
    names = ("image", "text")
    base = CRANE(dim=3, depth=2, rca_columns="topk")
    # All nodes are among the nearest of so many: that is attention to all.
    found = described(override(base, {"rca_k": 8}), names).embeddings()
    wanted = described(override(base, {"rca_columns": "all"}), names).embeddings()
    for ours, theirs in zip(found, wanted, strict=True):
        assert_like(ours.detach(), theirs.detach())
    model = described(override(base, {"rca_k": 3}), names)
    raw = np.concatenate([features()[name].values for name in names], axis=1)
    for graph, table in ((model.near_items, raw), (model.near_users, seen_UI() @ raw)):
        pattern = np.zeros((len(table), len(table)))
        np.put_along_axis(pattern, nearest(table, 3), 1, 1)
        assert graph is not None
        assert np.array_equal(graph.dense().numpy(), pattern)


@pytest.mark.usefixtures("float64")
def test_measures_say_how_alike_embeddings_are():
    cfg = CRANE(dim=3, knn_k=3, depth=1)
    model = described(cfg, ("image", "text"))
    stir(model)
    dense = Dense64(model, cfg, ("image", "text"))
    h = dense.semantic(dense.near)[1]
    whole = dict(
        zip(("user", "item"), (t.detach().numpy() for t in model.embeddings()), strict=True)
    )
    found = model.measures()
    for name, table in (*whole.items(), ("semantic", h)):
        unit = table / np.linalg.norm(table, axis=1, keepdims=True)
        above = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
        assert found[f"{name}_cosine"] == pytest.approx(above.mean(), rel=1e-9)
    gaps = [((h[i] - h[j]) ** 2).sum() / 2 for i in range(8) for j in dense.near[i] if i != j]
    assert found["dirichlet"] == pytest.approx(np.mean(gaps) / (h**2).sum(1).mean(), rel=1e-9)


# --- epochs


def test_an_epoch_trains_on_its_own_edges_all_alike():
    model = CRANE(dim=4, depth=0, dropout=0.7).build(tiny(), torch.Generator().manual_seed(0))
    assert isinstance(model, CRANEModel)
    scored = model.embeddings()
    whole = model.part.graph.weight_E.clone()
    times = torch.zeros(72)
    for epoch in range(200):
        model.start_epoch(Draws(0), epoch)
        kept = model.part.weight_E[:72] > 0
        assert int(kept.sum()) == 21  # 72 * 0.3 is 21.6
        times += kept
    # Binomial, 200 times 21 / 72: the most extreme of 72 edges lies within 4.5 deviations.
    share = 21 / 72
    assert ((times - 200 * share).abs() < 4.5 * (200 * share * (1 - share)) ** 0.5).all()
    again = model.embeddings()
    assert all(torch.equal(a, b) for a, b in zip(scored, again, strict=True))
    everything = CRANE(dim=4, depth=0, dropout=0.0).build(tiny(), torch.Generator().manual_seed(0))
    everything.start_epoch(Draws(0), 0)
    assert isinstance(everything, CRANEModel)
    torch.testing.assert_close(everything.part.weight_E, whole)


def test_nodes_are_drawn_uniformly_for_every_batch():
    data = tiny()
    model = CRANE(dim=4, depth=0, negatives="nodes").build(data, torch.Generator().manual_seed(0))
    shape = BatchShape(size=10, negatives=1)
    found = list(model.epoch_batches(TrainingPairs.of(data), Draws(0), 0, shape))
    assert [len(b.extra["drawn_users"]) for b in found] == [10] * 7 + [2]
    for batch in found:
        for side, of_rows in (("user", batch.user), ("item", batch.positive)):
            assert torch.equal(batch.extra[f"{side}s"][batch.extra[f"{side}_at"]], of_rows)
            drawn = batch.extra[f"drawn_{side}s"].tolist()
            assert len(set(drawn)) == len(drawn)
            nodes, places = batch.extra[f"{side}s"].tolist(), batch.extra[f"{side}_place"].tolist()
            for node, place in zip(nodes, places, strict=True):
                assert (node not in drawn) if place == len(drawn) else drawn[place] == node
    assert all(
        not torch.equal(a.extra["drawn_items"], b.extra["drawn_items"]) for a, b in pairwise(found)
    )
    drawn, place = drawn_nodes(5, 9, torch.Generator().manual_seed(0))
    assert sorted(drawn.tolist()) == list(range(5))
    assert drawn[place].tolist() == list(range(5))


@pytest.mark.parametrize("rebuild", ["once", "epoch"])
def test_a_restored_model_scores_the_same(rebuild):
    def fresh() -> Recommender:
        data = tiny(missing=True)
        return CRANE(dim=4, rebuild=rebuild).build(data, torch.Generator().manual_seed(0))

    model = fresh()
    model.start_epoch(Draws(0), 0)
    stir(model)
    again = fresh()
    again.load_state_dict(model.state_dict())
    for found, wanted in zip(again.embeddings(), model.embeddings(), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("variant", "given", "trained"),
    [
        ("described", None, False),
        ("described", True, True),
        ("released", None, True),
        ("released", False, False),
    ],
)
def test_each_variant_has_its_own_way_with_feature_tables(variant, given, trained):
    cfg = CRANE(dim=4, depth=1, train_features=given, variant=variant)
    model = cfg.build(tiny(), torch.Generator())
    tables = [name for name, _ in model.named_parameters() if name.endswith("_table")]
    assert len(tables) == 2 * trained


def test_refuses_what_cannot_work():
    data = problem(CASE, features=features())
    with pytest.raises(ValueError, match="multiple of the 4 heads, got 6"):
        CRANE(dim=6, variant="released").build(data, torch.Generator())
    with pytest.raises(ValueError, match="reading 'features' attends to none"):
        CRANE(reading="features", rca_columns="topk").build(data, torch.Generator())
    with pytest.raises(ValueError, match="CRANE needs at least a modality"):
        CRANE().build(problem(CASE), torch.Generator())


# --- the contrast by itself


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("cells", [1, 15, 1000])
@pytest.mark.parametrize("drawn", [False, True])
def test_node_contrast_is_a_softmax_over_rows_gathered(monkeypatch, cells, drawn):
    monkeypatch.setattr(formed, "_CHUNK_CELLS", cells)
    rng = torch.Generator().manual_seed(3)
    tables = [torch.randn(n, 4, generator=rng, requires_grad=True) for n in (6, 6, 3)]
    # Node 4 is in no pair; of the three others drawn the second is node 2.
    at_B, tau = torch.tensor([0, 1, 2, 2, 3, 5, 5, 5]), torch.tensor(0.3)
    place_Q = torch.tensor([3, 3, 1, 3, 3, 3])

    def plain() -> Tensor:
        anchor, target, other = (x / x.norm(dim=1, keepdim=True) for x in tables)
        losses = []
        for node in at_B.tolist():
            others = [target[q] for q in (0, 1, 2, 3, 5) if q != node]
            if drawn:
                others = [other[c] for c in range(3) if c != place_Q[node]]
            logit = torch.stack([target[node], *others]) @ anchor[node] / tau
            losses.append(-logit.log_softmax(0)[0])
        return torch.stack(losses).mean()

    more = {"others_CD": tables[2], "place_Q": place_Q} if drawn else {}
    found = node_infonce(tables[0], tables[1], tau, at_B, **more)
    torch.testing.assert_close(found, plain(), rtol=1e-12, atol=0)
    wanted = torch.autograd.grad(1.5 * plain(), tables, allow_unused=True)
    actual = torch.autograd.grad(1.5 * found, tables, allow_unused=True)
    for ours, theirs in zip(actual, wanted, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_node_contrast_of_views_that_are_opposites_is_finite():
    anchor, target = torch.ones(3, 4, requires_grad=True), -torch.ones(3, 4)
    at_B, tau = torch.tensor([0, 1, 2]), torch.tensor(0.002)
    for more in ({}, {"others_CD": target, "place_Q": torch.arange(3)}):
        loss = node_infonce(anchor, target, tau, at_B, **more)
        assert loss.item() == pytest.approx(np.log(3), rel=1e-4)
        (gradient,) = torch.autograd.grad(loss, anchor)
        assert gradient.isfinite().all()
