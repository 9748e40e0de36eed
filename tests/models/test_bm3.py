import numpy as np
import pytest
import torch

from mmrec.data.dataset import Dense
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs, distinct
from mmrec.models.base import Batch
from mmrec.models.bm3 import BM3
from tests.models.golden import (
    assert_course,
    assert_like,
    assert_norm,
    features,
    filled,
    golden,
    pairs,
    problem,
)
from tests.models.tiny import tiny

RECORD = golden("bm3")
CASE = RECORD["cases"]["main"]
HYPER = CASE["hyper"]
VARIANTS = RECORD["detail"]["variants"]
WITH_FEATURES = VARIANTS["feature_tables"]
WITH_DROPOUT = VARIANTS["feature_tables_dropout_0.3_recorded_masks"]
OURS = {
    "U0": "user_UD",
    "I0": "item_ID",
    "W_p": "predictor.weight",
    "b_p": "predictor.bias",
    "V": "features.0._table",
    "W_v": "map_DF.0",
    "b_v": "bias_D.0",
    "T": "features.1._table",
    "W_t": "map_DF.1",
    "b_t": "bias_D.1",
}


def released(*, own_tables: bool):
    cfg = BM3(
        dim=HYPER["d"],
        ui_layers=HYPER["n_layers"],
        reg_weight=HYPER["reg_weight"],
        cl_weight=HYPER["cl_weight"],
    )
    model = cfg.build(problem(CASE, features=features()), torch.Generator())
    with torch.no_grad():
        for parameter in CASE["parameters"]:
            if own_tables or parameter["name"] not in ("V", "T"):
                model.get_parameter(OURS[parameter["name"]]).copy_(filled(parameter))
    return model


def placed(user: torch.Tensor, item: torch.Tensor, user_mask, item_mask) -> Batch:
    """A batch with masks given for all users (U, D) and all items (I, 1 + M, D)."""
    users, user_at = distinct(user)
    items, item_at = distinct(item)
    extra = {
        "users": users,
        "items": items,
        "user_at": user_at,
        "item_at": item_at,
        "user_kept": torch.as_tensor(user_mask)[users].bool(),
        "item_kept": torch.as_tensor(item_mask)[items].bool(),
    }
    return Batch(user, item, torch.empty(len(user), 0, dtype=torch.int64), extra)


def golden_batch(masks: dict | None = None) -> Batch:
    """All kept unless masks were recorded."""
    user, item = (torch.tensor(CASE["batch"][name]) for name in ("users", "positives"))
    if masks is None:
        return placed(user, item, np.ones((6, 4)), np.ones((8, 3, 4)))
    item_mask = np.stack([masks["item"], masks["image"], masks["text"]], axis=1)
    return placed(user, item, masks["user"], item_mask)


def assert_terms(terms, record) -> None:
    weights = {"reg": HYPER["reg_weight"]}
    names = {
        "user_to_item": "to_item",
        "item_to_user": "to_user",
        "image_to_image": "image_to_itself",
        "text_to_text": "text_to_itself",
    }
    assert len(terms) == len(record["loss_terms"])
    for name, value in record["loss_terms"].items():
        weight = HYPER["cl_weight"] if name.startswith(("text", "image")) else weights.get(name, 1)
        assert_like(terms[names.get(name, name)], weight * value)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("record", "own_tables", "masks"),
    [
        (CASE, True, None),
        (WITH_FEATURES, False, None),
        (WITH_DROPOUT, False, WITH_DROPOUT["dropout_masks_kept_entries"]),
    ],
    ids=["tables by the rule", "features", "dropout"],
)
def test_reproduces_the_released_model(record, own_tables, masks):
    model = released(own_tables=own_tables)
    user, item = model.embeddings()
    assert_like(user, record["user"])
    assert_like(item, record["item"])
    assert_like(model.score(user, item), record["scores"])

    terms = model.losses(golden_batch(masks)).terms
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert_terms(terms, record)
    assert_like(total, record["loss_total"])
    for name, norm in record["grad_l2"].items():
        assert_norm(model.get_parameter(OURS[name]).grad, norm)


@pytest.mark.usefixtures("float64")
def test_propagates_like_the_released_model():
    user, item = released(own_tables=False).propagate()
    assert_like(user, WITH_FEATURES["user_unpredicted"])
    assert_like(item, WITH_FEATURES["item_unpredicted"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("record", "own_tables"), [(RECORD["detail"]["case"], True), (WITH_FEATURES, False)]
)
def test_trains_like_the_released_model(record, own_tables):
    steps = record["adam_same_batch_5_steps"]
    model, batch = released(own_tables=own_tables), golden_batch()
    assert_course(model, batch, steps)
    for name, norm in steps["final_param_l2"].items():
        assert_like(model.get_parameter(OURS[name]).detach().norm(), norm)


def three() -> dict[str, Dense]:
    audio = np.random.default_rng(3).normal(size=(8, 5))
    return features() | {"audio": Dense(np.ones(8, dtype=bool), audio)}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("names", [("text",), ("text", "image"), ("audio", "image", "text")])
def test_is_the_formula_with_repeated_users_and_items(names, layers):
    rng = np.random.default_rng(layers)
    cfg = BM3(dim=3, ui_layers=layers, reg_weight=0.7, cl_weight=1.3, modalities=names)
    model = cfg.build(problem(CASE, features=three()), torch.Generator().manual_seed(1))
    user, item = np.array([0, 4, 4, 2, 1]), np.array([7, 7, 0, 3, 0])
    user_mask = rng.random((6, 3)) < 0.6
    item_mask = rng.random((8, 1 + len(names), 3)) < 0.6
    batch = placed(torch.tensor(user), torch.tensor(item), user_mask, item_mask)
    terms = {name: term.detach() for name, term in model.losses(batch).terms.items()}

    p = {name: value.detach().numpy() for name, value in model.named_parameters()}
    seen = np.zeros((6, 8))
    seen[tuple(pairs(CASE["train"]).T)] = 1
    adjacency = np.block([[np.zeros((6, 6)), seen], [seen.T, np.zeros((8, 8))]])
    scale = np.diag((adjacency.sum(1) + 1e-7) ** -0.5)
    norm = scale @ adjacency @ scale
    start = np.vstack((p["user_UD"], p["item_ID"]))
    mean = np.mean([np.linalg.matrix_power(norm, k) @ start for k in range(layers + 1)], axis=0)
    users, items = mean[:6], mean[6:] + p["item_ID"]

    def predicted(x):
        return x @ p["predictor.weight"].T + p["predictor.bias"]

    def distance(x, y):
        """1 - the mean cosine, with dropout's factor 1 / (1 - 0.4) on the target."""
        y = y / 0.6
        lengths = np.maximum(np.linalg.norm(x, axis=1), 1e-8)
        return 1 - np.mean(
            np.sum(x * y, axis=1) / (lengths * np.maximum(np.linalg.norm(y, axis=1), 1e-8))
        )

    goal_user, goal_item = users * user_mask, items * item_mask[:, 0]
    expected = {
        "to_item": distance(predicted(users)[user], goal_item[item]),
        "to_user": distance(predicted(items)[item], goal_user[user]),
        "reg": 0.7 * (np.linalg.norm(users) + np.linalg.norm(items)) / 8,
    }
    for m, name in enumerate(names):
        content = three()[name].values @ p[f"map_DF.{m}"].T + p[f"bias_D.{m}"]
        guess, own = predicted(content)[item], (content * item_mask[:, 1 + m])[item]
        expected[f"{name}_to_item"] = 1.3 * distance(guess, goal_item[item])
        expected[f"{name}_to_itself"] = 1.3 * distance(guess, own)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert_like(terms[name], value)
    scores = predicted(users) @ predicted(items).T
    assert_like(model.score(*model.embeddings()).detach(), scores)


@pytest.mark.usefixtures("float64")
def test_targets_are_constants():
    model = released(own_tables=False)
    terms = model.losses(golden_batch()).terms
    terms["text_to_item"].backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {OURS[name] for name in ("T", "W_t", "b_t", "W_p", "b_p")}


def test_draws_no_negatives_and_masks_at_the_rate():
    for rate in (0.0, 0.3):
        model = BM3(dim=50, dropout=rate).build(tiny(), torch.Generator())
        draws, pairs_ = Draws(0), TrainingPairs.of(tiny())
        batches = list(model.epoch_batches(pairs_, draws, 0, BatchShape(30, 5)))
        assert [len(batch.user) for batch in batches] == [30, 30, 12]
        for batch in batches:
            assert batch.negative.shape == (len(batch.user), 0)
            assert torch.equal(batch.extra["users"][batch.extra["user_at"]], batch.user)
            assert torch.equal(batch.extra["items"][batch.extra["item_at"]], batch.positive)
        kept = torch.cat([batch.extra["item_kept"].flatten() for batch in batches]).double()
        assert float(kept.mean()) == pytest.approx(1 - rate, abs=4 * 0.46 * len(kept) ** -0.5)
        assert batches[0].extra["item_kept"].shape[1:] == (3, 50)
        assert batches[0].extra["user_kept"].shape[1:] == (50,)


@pytest.mark.usefixtures("float64")
def test_features_are_trained_unless_frozen():
    for trained in (False, True):
        cfg = BM3(dim=3, train_features=trained)
        model = cfg.build(problem(CASE, features=features()), torch.Generator())
        tables = [n for n, _ in model.named_parameters() if n.startswith("features.")]
        assert len(tables) == 2 * trained


def test_needs_content():
    with pytest.raises(ValueError, match="BM3 needs at least a modality"):
        BM3().build(problem(CASE), torch.Generator())
