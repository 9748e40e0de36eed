import dataclasses
from itertools import combinations

import numpy as np
import pytest
import torch

from mmrec.data.dataset import Dense
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.models.base import Batch
from mmrec.models.lgmrec import LGMRec, listed
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

RECORD = golden("lgmrec")
CASES = RECORD["cases"]
SHAPE = CASES["noise_zero"]
OURS = {
    "user_table": "user_UD",
    "item_table": "item_ID",
    "image_projection": "maps.0",
    "image_hyperedges": "hyper_maps.0",
    "text_projection": "maps.1",
    "text_hyperedges": "hyper_maps.1",
}
TABLES = {"user_UD", "item_ID"}


def config(hyper, **more) -> LGMRec:
    return LGMRec(
        **{
            "dim": hyper["embedding_size"],
            "ui_layers": hyper["n_ui_layers"],
            "mm_layers": hyper["n_mm_layers"],
            "hyper_layers": hyper["n_hyper_layer"],
            "hyperedges": hyper["hyper_num"],
            "dropout": 1 - hyper["keep_rate"],
            "tau": hyper["tau"],
            "alpha": hyper["alpha"],
            "cl_weight": hyper["cl_weight"],
            "reg_weight": hyper["reg_weight"],
            **more,
        }
    )


def built(given=None, **more):
    data = problem(SHAPE, features=features() if given is None else given)
    return config(SHAPE["hyper"], **more).build(data, torch.Generator().manual_seed(5))


def recorded(case):
    """The model of a golden case, and the noise and the masks that its batch met."""
    model = config(case["hyper"]).build(problem(case, features=features()), torch.Generator())
    own = dict(model.named_parameters())
    assert set(own) == set(OURS.values())
    with torch.no_grad():
        for parameter in case["parameters"]:
            name = OURS[parameter["name"]]
            value = filled(parameter)
            own[name].copy_(value if name in TABLES else value.T)
    return model


def draws_of(record) -> tuple[dict, dict]:
    """Without dropout, as the released evaluation has it; and with what training dropped."""
    noise = {
        f"{side}_noise": torch.tensor([record["gumbel"][f"{m}_{side}"] for m in ("image", "text")])
        for side in ("user", "item")
    }
    all_kept = {f"{side}_keep": torch.ones(2, n, 3) for side, n in (("user", 6), ("item", 8))}
    masks = record["dropout_keep_masks"]
    if masks is None:
        return noise | all_kept, noise | all_kept
    kept = {
        f"{side}_keep": 2.0 * torch.tensor([masks[f"{m}_{side}"] for m in ("image", "text")])
        for side in ("user", "item")
    }
    return noise | all_kept, noise | kept


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CASES)
def test_reproduces_the_released_model(name):
    case = CASES[name]
    model = recorded(case)
    noise, draws = draws_of(RECORD["detail"]["cases"][name])
    user, item = model.represent(noise)
    assert_like(user, case["user"])
    assert_like(item, case["item"])
    assert_like(model.score(user, item), case["scores"])

    batch = batch_of(case)
    terms = model.losses(dataclasses.replace(batch, extra=listed(batch) | draws)).terms
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    wanted, hyper = case["loss_terms"], case["hyper"]
    assert_like(terms["bpr"], wanted["bpr"])
    assert_like(terms["reg"], hyper["reg_weight"] * wanted["reg"])
    for term in ("contrast_users", "contrast_items"):
        assert_like(terms[term], hyper["cl_weight"] * wanted[term])
    assert_like(total, case["loss_total"])
    own = dict(model.named_parameters())
    for released, ours in OURS.items():
        assert_norm(own[ours].grad, case["grad_l2"][released])


@pytest.mark.usefixtures("float64")
def test_scores_have_no_noise():
    model, case = recorded(CASES["noise_zero"]), CASES["noise_zero"]
    for _ in range(2):
        assert_like(model.score(*model.embeddings()), case["scores"])


# --- against formulas


def plain(tensor) -> np.ndarray:
    return tensor.detach().numpy()


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def by_hand(model, tables, draws):
    """Final users and items, and each modality's global users and items, as the text has them."""
    seen = np.zeros((6, 8))
    seen[tuple(pairs(SHAPE["train"]).T)] = 1
    adjacency = np.block([[np.zeros((6, 6)), seen], [seen.T, np.zeros((8, 8))]])
    scale = np.diag((adjacency.sum(1) + 1e-7) ** -0.5)
    norm = scale @ adjacency @ scale
    power = [np.linalg.matrix_power(norm, k) for k in range(6)]
    start = np.vstack((plain(model.user_UD), plain(model.item_ID)))
    final = sum(power[k] @ start for k in range(model.ui_layers + 1)) / (model.ui_layers + 1)
    collaborative_item = final[6:].copy()
    globals_ = []
    gates = np.ones(len(tables)) if model.gates is None else plain(model.gates())
    for at, table in enumerate(tables):
        mapped = table.values @ plain(model.maps[at]).T
        means = seen @ mapped / (seen.sum(1, keepdims=True) + 1e-7)
        final = final + gates[at] * unit(power[model.mm_layers] @ np.vstack((means, mapped)))
        logit = gates[at] * table.values @ plain(model.hyper_maps[at]).T
        member = []
        for side, raw in (("user", seen @ logit), ("item", logit)):
            raw = np.exp((raw + plain(draws[f"{side}_noise"][at])) / float(model.tau))
            share = raw / raw.sum(1, keepdims=True)
            member.append(share * plain(draws[f"{side}_keep"][at]))
        z = collaborative_item
        for _ in range(model.hyper_layers):
            lat = member[1].T @ z
            z, y = member[1] @ lat, member[0] @ lat
        globals_.append((y, z))
    both = np.vstack([sum(y for y, _ in globals_), sum(z for _, z in globals_)])
    final = final + float(model.alpha) * unit(both)
    return final[:6], final[6:], globals_


def contrast(first, second, own) -> float:
    logits = unit(first)[own] @ unit(second).T / 0.2
    return float((np.log(np.exp(logits).sum(1)) - logits[np.arange(len(own)), own]).sum())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("names", [("text",), ("text", "image"), ("image", "audio", "text")])
@pytest.mark.parametrize(
    "more",
    [
        {"ui_layers": 1, "mm_layers": 3, "hyper_layers": 3, "hyperedges": 2},
        # As many hyperedges as columns, and no spreading at all.
        {"ui_layers": 0, "mm_layers": 0, "hyper_layers": 1, "hyperedges": 5},
    ],
)
def test_is_what_its_equations_say_for_any_number_of_modalities(names, more):
    i, j = np.ogrid[:8, :5]
    audio = Dense(np.ones(8, dtype=bool), np.sin(0.3 + i * (j + 0.2)))
    tables = {**features(), "audio": audio}
    model = built(tables, dim=5, modalities=names, alpha=0.7, dropout=0.25, **more)
    data = TrainingPairs.of(problem(SHAPE))
    batch = next(model.epoch_batches(data, Draws(0), 0, BatchShape(size=20, negatives=2)))
    assert len(batch.extra["users"]) < 20
    user, item, parts = by_hand(model, [tables[n] for n in names], batch.extra)
    for found, value in zip(model.represent(batch.extra), (user, item), strict=True):
        assert_like(found.detach(), value)

    terms = {name: value.detach() for name, value in model.losses(batch).terms.items()}
    u, p, n = user[batch.user], item[batch.positive], item[batch.negative]
    difference = (u * p).sum(1)[:, None] - (u[:, None] * n).sum(-1)
    assert_like(terms.pop("bpr"), np.log1p(np.exp(-difference)).mean())
    norms = sum(np.sqrt((x**2).sum()) for x in (u, p, n)) / 20
    assert_like(terms.pop("reg"), SHAPE["hyper"]["reg_weight"] * norms)
    for at, (term, own) in enumerate((("users", batch.user), ("items", batch.positive))):
        if len(names) > 1:
            links = [contrast(a[at], b[at], own) for a, b in combinations(parts, 2)]
            wanted = SHAPE["hyper"]["cl_weight"] * sum(links)
            assert_like(terms.pop(f"contrast_{term}"), wanted)
    assert not terms


@pytest.mark.usefixtures("float64")
def test_gates_are_on_memberships_and_on_local_rows_of_length_1():
    model = built(hyper_layers=2, gate_modalities=True)
    with torch.no_grad():
        model.gates.logit_M.copy_(torch.tensor([1.0, -2.0]))
    data = TrainingPairs.of(problem(SHAPE))
    batch = next(model.epoch_batches(data, Draws(0), 0, BatchShape(size=20, negatives=2)))
    *expected, _ = by_hand(model, list(features().values()), batch.extra)
    for found, value in zip(model.represent(batch.extra), expected, strict=True):
        assert_like(found.detach(), value)


# --- the draws


def test_noise_is_gumbel_and_dropout_keeps_the_mean():
    model = built(hyperedges=200, dropout=0.2)
    data = TrainingPairs.of(problem(SHAPE))
    steps = list(model.epoch_batches(data, Draws(0), 0, BatchShape(size=8, negatives=1)))
    for batch in steps:
        assert batch.extra["user_noise"].shape == batch.extra["user_keep"].shape == (2, 6, 200)
        assert batch.extra["item_noise"].shape == batch.extra["item_keep"].shape == (2, 8, 200)
    noise = torch.cat([b.extra[f"{s}_noise"].flatten() for b in steps for s in ("user", "item")])
    # Mean: Euler's constant. Variance: pi^2 / 6. 16,800 draws.
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.04)
    assert float(noise.var()) == pytest.approx(1.6449, abs=0.1)
    keep = torch.cat([b.extra[f"{s}_keep"].flatten() for b in steps for s in ("user", "item")])
    assert sorted(set(keep.tolist())) == [0.0, 1.25]
    assert float(keep.mean()) == pytest.approx(1.0, abs=0.02)
    first, second = (b.extra["item_noise"] for b in steps[:2])
    assert not torch.equal(first, second)


# --- the rest


def test_the_dataset_must_have_a_modality():
    with pytest.raises(ValueError, match="LGMRec needs at least a modality"):
        built({})


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("trained", [False, True])
def test_feature_tables_are_parameters_only_if_asked(trained):
    model = built(train_features=trained)
    tables = {name for name, _ in model.named_parameters() if name.startswith("features")}
    assert len(tables) == 2 * trained
    data = TrainingPairs.of(problem(SHAPE))
    batch: Batch = next(model.epoch_batches(data, Draws(0), 0, BatchShape(size=4, negatives=1)))
    sum(model.losses(batch).terms.values()).backward()
    own = dict(model.named_parameters())
    assert all(own[name].grad.norm() > 0 for name in tables)
