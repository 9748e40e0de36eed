import copy
import dataclasses

import numpy as np
import pytest
import torch

from mmrec.data.dataset import Dense
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.models.base import Batch
from mmrec.models.slmrec import SLMRec, listed
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

RECORD = golden("slmrec")
CASE = RECORD["cases"]["main"]
HYPER = CASE["hyper"]
OURS = {
    "U0": "user_UD",
    "I0": "item_ID",
    "W_v": "maps.0.weight",
    "b_v": "maps.0.bias",
    "W_t": "maps.1.weight",
    "b_t": "maps.1.bias",
    "W_I": "item_fusion.weight",
    "b_I": "item_fusion.bias",
    "W_U": "user_fusion.weight",
    "b_U": "user_fusion.bias",
    "W_1": "queries.0.weight",
    "b_1": "queries.0.bias",
    "W_2": "keys.0.weight",
    "W_3": "queries.1.weight",
    "b_3": "queries.1.bias",
    "W_4": "queries.2.weight",
    "b_4": "queries.2.bias",
    "W_5": "keys.1.weight",
}
"""The released parameters that have an effect; b_2 and b_5 have none, W_a, b_a are never read."""


def with_audio():
    i, j = np.ogrid[:8, :5]
    return {**features(), "audio": Dense(np.ones(8, dtype=bool), np.sin(0.3 + i * (j + 0.2)))}


def config(**more) -> SLMRec:
    return SLMRec(
        **{
            "dim": HYPER["d"],
            "layers": HYPER["layer_num"],
            "tau": HYPER["temp"],
            "cl_tau": HYPER["ssl_temp"],
            "cl_weight": HYPER["ssl_alpha"],
            **more,
        }
    )


def built(given=None, **more):
    data = problem(CASE, features=features() if given is None else given)
    return config(**more).build(data, torch.Generator().manual_seed(5))


def golden_model(amplitude: float):
    model = built()
    own = dict(model.named_parameters())
    assert set(own) == set(OURS.values())
    with torch.no_grad():
        for parameter in CASE["parameters"]:
            if parameter["name"] in OURS:
                value = filled({**parameter, "amplitude": amplitude})
                own[OURS[parameter["name"]]].copy_(value)
    return model


def golden_batch() -> Batch:
    batch = batch_of(CASE)
    return dataclasses.replace(batch, extra=listed(batch))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("amplitude", "record"),
    [(0.3, RECORD["detail"]["case"]), (1.2, RECORD["detail"]["variants"]["amplitude_1.2"])],
)
def test_reproduces_the_released_model(amplitude, record):
    model, batch = golden_model(amplitude), golden_batch()
    user, item = model.embeddings()
    assert_like(user, record["user"])
    assert_like(item, record["item"])
    assert_like(model.score(user, item).sigmoid(), record["scores"])

    terms = model.losses(batch).terms
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    wanted = record["loss_terms"]
    assert_like(terms["main"], wanted["main"])
    chain = wanted["fac_image"] + wanted["fac_text"]
    assert_like(terms["contrast"], HYPER["ssl_alpha"] * chain)
    assert_like(total, record["loss_total"])
    own = dict(model.named_parameters())
    for released, name in OURS.items():
        assert_norm(own[name].grad, record["grad_l2"][released])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("amplitude", "record"),
    [(0.3, RECORD["detail"]["case"]), (1.2, RECORD["detail"]["variants"]["amplitude_1.2"])],
)
def test_five_steps_of_adam_with_weight_decay(amplitude, record):
    model, batch, run = golden_model(amplitude), golden_batch(), record["adam_same_batch_5_steps"]
    adam = torch.optim.Adam(model.parameters(), lr=run["lr"], weight_decay=run["weight_decay"])
    losses = []
    for _ in range(5):
        total = sum(model.losses(batch).terms.values())
        adam.zero_grad()
        total.backward()
        adam.step()
        losses.append(total.detach())
    assert_like(torch.stack(losses), run["losses"])
    own = dict(model.named_parameters())
    for released, name in OURS.items():
        assert_norm(own[name].detach(), run["final_param_l2"][released])
    # The release scores with what the last step began from; here with the current weights.
    scores = model.score(*model.embeddings()).detach().sigmoid()
    assert_like(scores, run["scores_after_5_steps_if_recomputed"])


# --- against formulas


def plain(parameter) -> np.ndarray:
    return parameter.detach().numpy()


def affine(layer, x):
    return x @ plain(layer.weight).T + (0 if layer.bias is None else plain(layer.bias))


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def cross_entropy(logits) -> float:
    return float(np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits)))


def by_hand(model, tables, user, item):
    """Y, Z, main and each modality's contrast of a batch, from the equations alone."""
    seen = np.zeros((6, 8))
    seen[tuple(pairs(CASE["train"]).T)] = 1
    adjacency = np.block([[np.zeros((6, 6)), seen], [seen.T, np.zeros((8, 8))]])
    scale = np.diag((adjacency.sum(1) + 1e-8) ** -0.5)
    norm = scale @ adjacency @ scale
    spread = sum(np.linalg.matrix_power(norm, k) for k in range(model.layers + 1))
    sources = [plain(model.item_ID)]
    sources += [affine(m, unit(t.values)) for m, t in zip(model.maps, tables, strict=True)]
    means = [spread @ np.vstack((plain(model.user_UD), s)) / (model.layers + 1) for s in sources]
    user_all = affine(model.user_fusion, np.hstack([m[:6] for m in means]))
    item_all = affine(model.item_fusion, np.hstack([m[6:] for m in means]))
    main = cross_entropy(unit(user_all)[user] @ unit(item_all)[item].T / float(model.tau))

    query, *modalities = [m[6:][item] for m in means]
    contrasts = []
    waiting = list(zip(model.keys, modalities, strict=True))
    for place, step in enumerate(model.queries):
        query = affine(step, query)
        if len(modalities) == 2 and place == 1:
            continue
        key, modality = waiting.pop(0)
        contrasts.append(cross_entropy(query @ affine(key, modality).T / float(model.cl_tau)))
    assert not waiting
    return user_all, item_all, main, contrasts


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("layers", [1, 4])
@pytest.mark.parametrize("names", [("text",), ("text", "image"), ("image", "audio", "text")])
def test_is_what_its_equations_say_for_any_number_of_modalities(names, layers):
    tables = with_audio()
    model = built(tables, dim=6, layers=layers, modalities=names, tau=0.5, cl_tau=0.8)
    # Users and items recur, and a negative is never looked at.
    user, item = np.array([0, 3, 3, 5, 1]), np.array([1, 5, 1, 7, 1])
    batch = Batch(torch.tensor(user), torch.tensor(item), torch.zeros(5, 0, dtype=torch.int64))
    batch = dataclasses.replace(batch, extra=listed(batch))
    user_all, item_all, main, contrasts = by_hand(model, [tables[n] for n in names], user, item)
    assert len(contrasts) == len(names)
    assert_like(model.embeddings()[0].detach(), user_all)
    assert_like(model.embeddings()[1].detach(), item_all)
    terms = model.losses(batch).terms
    assert_like(terms["main"].detach(), main)
    assert_like(terms["contrast"].detach(), HYPER["ssl_alpha"] * sum(contrasts))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("names", [("text",), ("image", "text")])
def test_described_ranks_by_cosine_and_penalises_the_batchs_tables(names):
    released = built(modalities=names)
    mended = built(modalities=names, variant="described", reg_weight=0.3)
    mended.load_state_dict(released.state_dict())
    user, item = (plain(part) for part in released.embeddings())
    scores = mended.score(*mended.embeddings()).detach()
    assert_like(scores, unit(user) @ unit(item).T)
    assert (scores - torch.tensor(user @ item.T)).abs().max() > 0.01

    batch = golden_batch()
    terms = mended.losses(batch).terms
    for name, value in released.losses(batch).terms.items():
        assert_like(terms.pop(name), value.detach())
    assert set(terms) == {"reg"}
    squares = (plain(mended.user_UD)[batch.user] ** 2).sum()
    squares += (plain(mended.item_ID)[batch.positive] ** 2).sum()
    assert_like(terms["reg"].detach(), 0.3 * squares / (2 * 4))


# --- the rest


def test_the_dataset_must_have_a_modality():
    with pytest.raises(ValueError, match="SLMRec needs at least a modality"):
        built({})


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("trained", [False, True])
def test_feature_tables_are_parameters_only_if_asked(trained):
    model = built(train_features=trained)
    tables = {name for name, _ in model.named_parameters() if name.startswith("features")}
    assert len(tables) == 2 * trained
    sum(model.losses(golden_batch()).terms.values()).backward()
    own = dict(model.named_parameters())
    assert all(own[name].grad.norm() > 0 for name in tables)
    for table in model.features:
        lengths = table().detach().norm(dim=1)
        torch.testing.assert_close(lengths, torch.ones(8))


def test_an_item_without_features_keeps_a_row_of_zeros():
    given = copy.deepcopy(features("text"))
    given["text"].values[3] = 0
    model = built(given)
    assert not model.features[0]()[3].any()
    assert all(part.isfinite().all() for part in model.embeddings())


def test_batches_have_no_negatives():
    model = built()
    data = TrainingPairs.of(problem(CASE))
    batches = list(model.epoch_batches(data, Draws(0), 0, BatchShape(size=7, negatives=2)))
    assert [tuple(b.negative.shape) for b in batches] == [(7, 0), (7, 0), (6, 0)]
    met = sorted((int(u), int(i)) for b in batches for u, i in zip(b.user, b.positive, strict=True))
    assert met == sorted(map(tuple, pairs(CASE["train"]).tolist()))
    for batch in batches:
        assert torch.equal(batch.extra["users"][batch.extra["user_at"]], batch.user)
        assert torch.equal(batch.extra["items"][batch.extra["item_at"]], batch.positive)
