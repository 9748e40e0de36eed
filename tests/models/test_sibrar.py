"""SiBraR and MuBraR beyond the golden vectors: missing modalities, dropout, draws, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from mmrec.data.dataset import Codes, Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.models.base import Batch
from mmrec.models.mubrar import MuBraR
from mmrec.models.sibrar import SiBraR, SiBraRModel
from mmrec.nn.modal_side import ModalSide
from mmrec.nn.modalities import ModalityDraws
from tests.models.tiny import ITEMS, tiny

SMALL = {"dim": 4, "common_dim": 5, "hidden": (6, 3), "input_dropout": 0.0, "user": "branch"}
SHAPE = BatchShape(size=30, negatives=2)


def built(cfg: SiBraR, data: Dataset | None = None) -> SiBraRModel:
    return cfg.build(tiny(missing=True) if data is None else data, Draws(5).generator("init"))


def first_batch(model: SiBraRModel, shape: BatchShape = SHAPE) -> Batch:
    return next(iter(model.epoch_batches(TrainingPairs.of(tiny()), Draws(3), 0, shape)))


# --- an independent dense formula


def raw_rows(side: str, data: Dataset) -> dict[str, np.ndarray]:
    """Modality -> one dense row an entity, to be multiplied with a weight."""
    seen = np.zeros((data.num_users, data.num_items))
    seen[data.train[:, 0], data.train[:, 1]] = 1
    if side == "user":
        level = data.user_features["level"]
        return {"interactions": seen, "level": np.eye(3)[level.codes]}
    tags = data.features["tags"]
    bags = np.zeros((ITEMS, 6))
    for item in range(ITEMS):
        own = tags.ids[tags.starts[item] : tags.starts[item + 1]]
        bags[item, own] = 1 / max(len(own), 1)
    return {"interactions": seen.T, "tags": bags, "text": data.features["text"].values}


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def projected(side: ModalSide, raw: np.ndarray, name: str) -> np.ndarray:
    layer = {
        k: v.detach().numpy()
        for k, v in side.projections[side.names.index(name)].named_parameters()
    }
    if name == "interactions":
        return relu(raw @ layer["weight_MC"] + layer["bias_C"])
    if name == "text":
        return relu(raw @ layer["layers.0.weight"].T + layer["layers.0.bias"])
    return raw @ layer["tag_TC" if name == "tags" else "level_TC"]


def through_branch(branch: torch.nn.Module, stack: np.ndarray) -> np.ndarray:
    """Three linear maps; batch normalisation after the second; training statistics."""
    p = {k: v.detach().numpy() for k, v in branch.named_parameters()}
    h = relu(stack @ p["linears.0.weight"].T + p["linears.0.bias"])
    h = h @ p["linears.1.weight"].T + p["linears.1.bias"]
    h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5)
    h = relu(h * p["norms.2.scale_D"] + p["norms.2.shift_D"])
    return relu(h @ p["linears.2.weight"].T + p["linears.2.bias"])


def reference_side(side, raw, cells, drawn, *, keep, rate):
    """(cells, D) means and cell -> list of vectors, one stacked row a (cell, drawn modality)."""
    present = side.present_MN.value.numpy() > 0
    rows, owner = [], []
    for at, entity in enumerate(cells):
        chosen = range(len(side.names)) if drawn is None else drawn[at]
        for place, modality in enumerate(chosen):
            if drawn is None and not present[modality, entity]:
                continue
            name = side.names[modality]
            row = projected(side, raw[name][entity], name)
            row = row / max(np.linalg.norm(row), 1e-12)
            if keep is not None:
                row = row * keep[at][place] / (1 - rate)
            rows.append(row)
            owner.append((at, modality))
    out: dict[int, list[np.ndarray]] = {at: [] for at in range(len(cells))}
    shared = len(side.branches) == 1
    z = np.zeros((len(rows), 4))
    for place, branch in enumerate(side.branches):
        mine = [n for n, (_, modality) in enumerate(owner) if shared or modality == place]
        z[mine] = through_branch(branch, np.array(rows)[mine])
    for (at, _), vector in zip(owner, z, strict=True):
        out[at].append(vector)
    return np.array([np.mean(out[at], axis=0) for at in range(len(cells))]), out


def reference_infonce(out, groups, drawn, tau):
    losses, weights = [], []
    for group in groups:
        for a, b in ((0, 1), (1, 0)):
            for at in group:
                logits = [out[at][a] @ out[other][b] / tau for other in group]
                losses.append(logsumexp(logits) - out[at][a] @ out[at][b] / tau)
                weights.append(drawn[at][0] != drawn[at][1])
    return 2 * np.average(losses, weights=weights)


def reference_terms(model: SiBraRModel, data: Dataset, batch: Batch) -> dict[str, float]:
    cfg, extra = model.cfg, {k: v.numpy() for k, v in batch.extra.items()}
    items = torch.cat((batch.positive[:, None], batch.negative), 1).numpy()
    cells = {"user": batch.user.numpy(), "item": items.reshape(-1)}
    groups = {
        "user": [range(len(items))],
        "item": np.arange(items.size).reshape(items.shape),
    }
    knobs = {"user": (cfg.user_alpha, cfg.user_tau), "item": (cfg.alpha, cfg.tau)}
    means, terms = {}, {}
    for name, entities in cells.items():
        drawn, keep = extra.get(f"{name}_modalities"), extra.get(f"{name}_keep")
        drawn = None if drawn is None else drawn.reshape(len(entities), -1)
        keep = None if keep is None else keep.reshape(len(entities), -1, cfg.common_dim)
        side = getattr(model, name)
        means[name], out = reference_side(
            side, raw_rows(name, data), entities, drawn, keep=keep, rate=cfg.input_dropout
        )
        if drawn is not None and drawn.shape[1] == 2:
            alpha, tau = knobs[name]
            terms[f"{name}_infonce"] = alpha * reference_infonce(out, groups[name], drawn, tau)
    scores = (means["user"][:, None] * means["item"].reshape(*items.shape, -1)).sum(-1)
    terms["bpr"] = np.log1p(np.exp(scores[:, 1:] - scores[:, :1])).mean()
    return terms


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("sampling", ["none", "single", "pairwise", "central"])
@pytest.mark.parametrize("kind", [SiBraR, MuBraR])
def test_terms_follow_the_dense_formula_with_missing_modalities(kind, sampling, dropout):
    small = {**SMALL, "input_dropout": dropout}
    cfg = kind(**small, sampling=sampling, alpha=0.3, tau=0.2, user_alpha=0.7, user_tau=1.5)
    data = tiny(missing=True)
    model = built(cfg, data)
    batch = first_batch(model)
    found = {name: term.item() for name, term in model.losses(batch).terms.items()}
    expected = reference_terms(model, data, batch)
    assert found == pytest.approx(expected, rel=1e-9)
    assert len(found) == (3 if sampling in ("pairwise", "central") else 1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("size", [4, 30])
@pytest.mark.parametrize("aggregation", ["mean", "max"])
@pytest.mark.parametrize("sampling", ["none", "single", "pairwise"])
@pytest.mark.parametrize("kind", [SiBraR, MuBraR])
def test_table_and_stack_agree(kind, sampling, aggregation, size, missing):
    # Of 24 users and 20 items a batch of 4 rows holds fewer, a batch of 30 more.
    cfg = kind(**SMALL, sampling=sampling, aggregation=aggregation, alpha=0.3)
    model = built(cfg, tiny(missing=missing))
    batch = first_batch(model, BatchShape(size, 2))
    results = []
    everything = replace(batch, extra={k: v for k, v in batch.extra.items() if "_mod" in k})
    for path, rows in (("table", batch), ("table", everything), ("stack", everything)):
        model.user.path = model.item.path = path
        model.zero_grad()
        terms, buffers = model.losses(rows)
        torch.stack(list(terms.values())).sum().backward()
        gradients = [p.grad for p in model.parameters()]
        results.append([*terms.values(), *buffers.values(), *gradients])
    for other in results[1:]:
        for left, right in zip(results[0], other, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)


# --- draws


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ("single", {(0,): 1 / 4, (1,): 1 / 4, (2,): 1 / 4, (3,): 1 / 4}),
        ("pairwise", {(a, b): 1 / 12 for a in range(4) for b in range(4) if a != b}),
        ("central", {(2, b): 1 / 3 for b in (0, 1, 3)}),
    ],
)
def test_draws_are_uniform_over_what_an_entity_has(sampling, expected):
    present = np.ones((2, 5), dtype=bool)
    present[1, 4] = False
    draws = ModalityDraws(sampling, present, central=2)
    grid = torch.cartesian_prod(torch.arange(12), torch.arange(12))  # every remainder of 3 and 4
    found = draws(torch.ones(144, dtype=torch.int64), grid)
    values, counts = np.unique(found.numpy(), axis=0, return_counts=True)
    shares = {tuple(v): c / 144 for v, c in zip(values.tolist(), counts, strict=True)}
    assert shares == pytest.approx(expected)
    full = draws(torch.zeros(144, dtype=torch.int64), grid)
    assert 4 in full


def test_an_entity_with_one_modality_has_it_drawn_twice():
    present = np.array([[True, False, False], [True, True, True]])
    draws = ModalityDraws("pairwise", present, central=0)
    random = torch.randint(2**31, (50, 2), generator=torch.Generator().manual_seed(0))
    assert not draws(torch.zeros(50, dtype=torch.int64), random).any()


def test_draws_of_one_side_do_not_depend_on_the_other():
    both, items = (built(SiBraR(**{**SMALL, "user": user})) for user in ("branch", "embedding"))
    left, right = first_batch(both), first_batch(items)
    assert {"user_modalities", "item_modalities"} < set(left.extra)
    assert not any(name.startswith("user") for name in right.extra)
    assert torch.equal(left.extra["item_modalities"], right.extra["item_modalities"])


def test_single_draws_the_first_of_the_pair():
    one, two = (built(SiBraR(**SMALL, sampling=sampling)) for sampling in ("single", "pairwise"))
    left, right = first_batch(one), first_batch(two)
    assert torch.equal(left.extra["item_modalities"], right.extra["item_modalities"][..., :1])


def test_dropout_zeroes_its_share():
    model = built(SiBraR(**{**SMALL, "common_dim": 200, "input_dropout": 0.1}))
    keep = first_batch(model).extra["item_keep"]
    assert keep.shape == (30, 3, 2, 200)
    # 36,000 draws: the share of zeros has a standard error of 0.0016.
    assert 1 - keep.double().mean().item() == pytest.approx(0.1, abs=0.007)


# --- scoring


@pytest.mark.usefixtures("float64")
@torch.no_grad()
def test_missing_modalities_are_left_out_of_the_mean():
    data = tiny(missing=True)
    model = built(SiBraR(**SMALL), data)
    alone = {name: model.item_embeddings((name,)) for name in model.item.names}
    tags, text = data.features["tags"].present, data.features["text"].present
    table = model.item_embeddings()
    for item in range(ITEMS):
        has = {"interactions": True, "tags": tags[item], "text": text[item]}
        there = [name for name in alone if has[name]]
        expected = torch.stack([alone[name][item] for name in there]).mean(0)
        torch.testing.assert_close(table[item], expected)
    assert not alone["text"][[1, 5]].any()
    assert not model.item_embeddings(("tags", "text"))[5].any()
    assert model.item.alone("text")[[1, 5]].isnan().all()


def test_any_order_of_modalities_is_the_same_model():
    names = ("text", "interactions", "tags")
    given, default = (built(SiBraR(**SMALL, modalities=m)) for m in (names, None))
    assert given.item.names == ("interactions", "tags", "text")
    left, right = (torch.cat([p.flatten() for p in m.parameters()]) for m in (given, default))
    assert torch.equal(left, right)


def test_weights_start_as_released():
    data = tiny()
    wide = {"dim": 100, "common_dim": 150, "hidden": (100,)}
    model = built(SiBraR(**{**SMALL, **wide, "user": "embedding"}), data)
    interactions, tags, text = model.item.projections
    linear = model.item.branches[0].linears[0]
    # Uniform draws: bounds from the fan-in (24 users, 4 columns of text, 150 common).
    for weight, bound in (
        (interactions.weight_MC, (6 / 24) ** 0.5),
        (text.layers[0].weight, (6 / 4) ** 0.5),
        (linear.weight, 150**-0.5),
        (linear.bias, 150**-0.5),
    ):
        assert 0.95 * bound < weight.abs().max().item() <= bound
    assert not interactions.bias_C.any()
    assert not text.layers[0].bias.any()
    # Normal draws: 900 of tags, 2,400 of the user table.
    assert tags.tag_TC.std().item() == pytest.approx(1.0, rel=0.1)
    assert model.user.table_ND.std().item() == pytest.approx(0.1 / 100, rel=0.06)
    level = built(SiBraR(**{**SMALL, **wide}), data).user.projections[1].level_TC
    assert level.std().item() == pytest.approx(0.1 / 150, rel=0.2)


def test_mubrar_has_a_branch_a_modality():
    one, many = (built(kind(**SMALL)) for kind in (SiBraR, MuBraR))
    assert (len(one.item.branches), len(many.item.branches)) == (1, 3)
    assert set(many.measures()) == {"item_cosine", "item_rank", "modality_gap"}


# --- what the items are by one modality


@pytest.mark.parametrize("kind", [SiBraR, MuBraR])
def test_items_are_the_mean_of_their_views(kind):
    model = built(kind(**SMALL, sampling="none")).eval()
    views = {name: view.detach().numpy() for name, view in model.item_views().items()}
    assert list(views) == ["interactions", "tags", "text"]
    lacking = {name: np.flatnonzero(np.isnan(view).any(1)) for name, view in views.items()}
    assert {name: items.tolist() for name, items in lacking.items()} == {
        "interactions": [], "tags": [5, 9], "text": [1, 5]
    }  # fmt: skip
    expected = np.nanmean(np.stack(list(views.values())), axis=0)
    np.testing.assert_allclose(model.item_embeddings().detach(), expected, atol=1e-6)


def test_unseen_items_have_no_view_by_interactions():
    data = tiny(split="cold-item")
    data = replace(data, train=data.train[~np.isin(data.train[:, 1], [4, 11])])
    cold, warm, unknown = (
        built(SiBraR(**SMALL), replace(data, **changes)).item_views()
        for changes in ({}, {"split": "given"}, {"items_known": False})
    )
    missing = torch.isnan(cold["interactions"]).all(1)
    assert missing.nonzero()[:, 0].tolist() == [4, 11]
    assert not torch.isnan(warm["interactions"]).any()
    assert torch.isnan(unknown["interactions"]).all()
    assert not torch.isnan(unknown["text"]).any()


def test_items_that_are_no_branch_have_no_views():
    assert built(SiBraR(**SMALL, item="interactions")).item_views() == {}


# --- refusals


@pytest.mark.parametrize(
    ("changes", "split", "error", "message"),
    [
        ({"modalities": ("audio",)}, "given", KeyError, "no item modality 'audio'.*tags, text"),
        ({"modalities": ("text", "text")}, "given", ValueError, "distinct"),
        ({"modalities": ("codes",)}, "given", TypeError, "'codes' is of kind 'codes'"),
        ({"modalities": ("interactions",)}, "given", ValueError, "draws 2 .*, there is 1"),
        (
            {"modalities": ("tags", "text")},
            "given",
            ValueError,
            "1 items .* such as 5, have none of",
        ),
        (
            {"sampling": "central", "central": "text", "user": "embedding"},
            "given",
            ValueError,
            "2 items, such as 1, lack the central modality 'text'",
        ),
        (
            {"modalities": ("interactions",), "sampling": "single"},
            "cold-item",
            ValueError,
            "unseen items need a modality beside",
        ),
        ({"item": "interactions"}, "cold-item", ValueError, "one score where these are missing"),
        ({"user": "embedding"}, "cold-user", ValueError, "cold-user split"),
        (
            {"user": "embedding", "user_modalities": ("level",)},
            "given",
            ValueError,
            "user='embedding' has no modalities to choose",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(changes, split, error, message):
    data = tiny(split=split, missing=True)
    codes = Codes(np.ones(ITEMS, dtype=bool), np.zeros((ITEMS, 2), dtype=np.int64), (3, 3))
    data = replace(data, features={**data.features, "codes": codes})
    with pytest.raises(error, match=message):
        built(SiBraR(**{**SMALL, **changes}), data).require_trainable(data)


def test_the_broken_id_item_side_is_not_offered():
    with pytest.raises(ValueError, match="'branch' or 'interactions'"):
        SiBraR(item="embedding")


def test_a_batch_without_draws_is_refused():
    model = built(SiBraR(**SMALL))
    with pytest.raises(ValueError, match="make batches with the model's `epoch_batches`"):
        model.losses(replace(first_batch(model), extra={}))
    dropping = built(MuBraR(**{**SMALL, "input_dropout": 0.1}))
    with pytest.raises(ValueError, match="needs its mask"):
        dropping.losses(replace(first_batch(dropping), extra={}))


def test_embeddings_of_unknown_or_no_modalities_are_refused():
    model = built(SiBraR(**SMALL))
    with pytest.raises(KeyError, match="no modality 'audio' was trained"):
        model.item_embeddings(("audio",))
    with pytest.raises(ValueError, match="at least one modality"):
        model.item_embeddings(())
    plain = built(SiBraR(**{**SMALL, "user": "embedding"}))
    with pytest.raises(ValueError, match="no modalities to choose"):
        plain.user_embeddings(("interactions",))
