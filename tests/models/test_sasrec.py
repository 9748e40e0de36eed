"""Held to its formulas, user by user and loop by loop, in float64."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrec.config import override
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.models import sasrec
from mmrec.models.base import Batch
from mmrec.models.sasrec import SASRec, SASRecModel, pack
from mmrec.nn import formed
from tests.models.test_contract import assert_lanes_agree_with_solo_runs

ITEMS = 11
TRAIN = [[3], [1, 4], [7, 2, 8, 0, 5, 9], [], [6, 0, 3], [2, 1], [9, 10, 4, 6]]
"""By user, in order of time."""
VALID = {0: [8], 2: [10], 3: [5], 4: [1], 6: []}
TEST = {1: [9], 2: [6]}
LEARN = [1, 2, 4, 5, 6]
"""Users whose training has a next item."""
SMALL = SASRec(dim=4, history=4, blocks=2, heads=2, dropout=0.4)

pytestmark = pytest.mark.usefixtures("float64")


def data_of(train: list[list[int]] = TRAIN, *, ordered: bool = True) -> Dataset:
    """Users' rows of training are mixed, each user's in order."""
    steps = itertools.zip_longest(*train, fillvalue=-1)
    mixed = [(u, i) for step in steps for u, i in enumerate(step) if i >= 0]
    valid, test = ([(u, i) for u, own in part.items() for i in own] for part in (VALID, TEST))
    parts = [np.array(pairs) for pairs in (mixed, valid, test)]
    return Dataset("seven", len(train), ITEMS, parts[0], parts[1], parts[2], ordered=ordered)


def built(cfg: SASRec = SMALL, seed: int = 3) -> SASRecModel:
    model = cfg.build(data_of(), torch.Generator().manual_seed(seed))
    assert isinstance(model, SASRecModel)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            wave = torch.sin(torch.arange(parameter.numel()) * 0.7 + number)
            parameter += 0.5 * wave.view_as(parameter)
    return model


def batches(model: SASRecModel, size: int = 4, negatives: int = 2, epoch: int = 0) -> list[Batch]:
    pairs, draws = TrainingPairs.of(data_of()), Draws(1)
    return list(model.epoch_batches(pairs, draws, epoch, BatchShape(size, negatives)))


def sequences(batch: Batch) -> dict[int, tuple[int, slice]]:
    """User -> the row and the columns in which their sequence lies."""
    found = {}
    for number, user in enumerate(batch.user.tolist(), start=1):
        rows, columns = (batch.extra["sequence"] == number).nonzero().T.tolist()
        assert len(set(rows)) == 1
        assert columns == list(range(columns[0], columns[0] + len(columns)))
        found[user] = rows[0], slice(columns[0], columns[-1] + 1)
    return found


# --- the formula: one user at a time, without rows, masks or padding


def weights(model: SASRecModel) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in model.named_parameters()}


def normal(x: np.ndarray, of: dict[str, np.ndarray], name: str) -> np.ndarray:
    out = np.empty_like(x)
    for t, row in enumerate(x):
        spread = np.sqrt(((row - row.mean()) ** 2).mean() + 1e-8)
        out[t] = of[f"{name}.weight"] * (row - row.mean()) / spread + of[f"{name}.bias"]
    return out


def mapped(x: np.ndarray, of: dict[str, np.ndarray], name: str) -> np.ndarray:
    return x @ of[f"{name}.weight"].T + of.get(f"{name}.bias", 0.0)


def attention(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, heads: int, kept: np.ndarray
) -> np.ndarray:
    out, width = np.zeros_like(query), query.shape[1] // heads
    for head, t in itertools.product(range(heads), range(len(query))):
        own = slice(head * width, (head + 1) * width)
        logit = [query[t, own] @ key[s, own] / np.sqrt(width) for s in range(t + 1)]
        share = np.exp(logit) / np.exp(logit).sum()
        for s in range(t + 1):
            out[t, own] += share[s] * kept[head, t, s] * value[s, own]
    return out


def formula(
    cfg: SASRec, of: dict[str, np.ndarray], items: list[int], kept: Any, kept_weights: Any
) -> np.ndarray:
    """(t, D) states; what dropout kept as (K, t, D) and (blocks, H, t, t), scaled already."""
    released = cfg.variant == "released"
    scale = np.sqrt(cfg.dim) if released else 1.0
    later = range(len(items) - 1, -1, -1)
    x = np.array(
        [scale * of["item_ID"][i] + of["position_PD"][a] for i, a in zip(items, later, strict=True)]
    )
    x = x * kept[0]
    for b in range(cfg.blocks):
        name, first, second = f"blocks.{b}.", kept[1 + 2 * b], kept[2 + 2 * b]
        q = normal(x, of, name + "norms.0")
        k = x if released else q
        found = attention(
            mapped(q, of, name + "query"),
            mapped(k, of, name + "key"),
            mapped(k, of, name + "value"),
            cfg.heads,
            kept_weights[b],
        )
        x = q + found if released else x + found * first
        h = normal(x, of, name + "norms.1")
        hidden = np.maximum(mapped(h, of, name + "inner"), 0) * (first if released else 1)
        x = (h if released else x) + mapped(hidden, of, name + "outer") * second
    return normal(x, of, "norm")


def whole(cfg: SASRec, items: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Nothing is dropped."""
    t = len(items)
    return np.ones((1 + 2 * cfg.blocks, t, cfg.dim)), np.ones((cfg.blocks, cfg.heads, t, t))


def dropped(cfg: SASRec, batch: Batch, user: int) -> tuple[np.ndarray, np.ndarray]:
    """What dropout keeps of a user's sequence, over the chance that it is kept."""
    row, columns = sequences(batch)[user]
    items = batch.extra["item"][row, columns].tolist()
    masks = list(whole(cfg, items))
    if cfg.dropout:
        masks[0] = batch.extra["kept"][row, :, columns].numpy() / (1 - cfg.dropout)
    if cfg.dropout and cfg.variant == "released":
        kept = batch.extra["kept_weights"][row, :, :, columns, columns]
        masks[1] = kept.numpy() / (1 - cfg.dropout)
    return masks[0], masks[1]


CASES = [
    {"variant": variant, "dropout": dropout}
    for variant, dropout in itertools.product(("released", "described"), (0.0, 0.4))
]


@pytest.mark.parametrize("loss", ["bce", "softmax"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_a_step_follows_the_formulas(case, loss):
    cfg = override(SMALL, case | {"loss": loss})
    model = built(cfg)
    for batch in batches(model):
        of, terms = weights(model), []
        for user, (row, columns) in sequences(batch).items():
            window = TRAIN[user][-cfg.history - 1 :]
            assert batch.extra["item"][row, columns].tolist() == window[:-1]
            assert batch.positive[row, columns].tolist() == window[1:]
            states = formula(cfg, of, window[:-1], *dropped(cfg, batch, user))
            found = model.states(batch.extra)[row, columns].detach()
            np.testing.assert_allclose(found, states, rtol=1e-9, atol=1e-12)
            for t, (x, positive) in enumerate(zip(states, window[1:], strict=True)):
                score = of["item_ID"] @ x
                if loss == "softmax":
                    terms.append(np.log(np.exp(score).sum()) - score[positive])
                    continue
                negatives = batch.negative[row, columns][t].tolist()
                assert len(negatives) == 2
                assert not set(negatives) & set(TRAIN[user])
                terms.append(np.log1p(np.exp(-score[positive])))
                terms[-1] += sum(np.log1p(np.exp(score[n])) for n in negatives)
        (found,) = model.losses(batch).terms.values()
        assert found.item() == pytest.approx(np.mean(terms), rel=1e-10)


@pytest.mark.parametrize("variant", ["released", "described"])
def test_users_are_ranked_by_the_state_after_all_that_is_known(variant):
    cfg = override(SMALL, {"variant": variant})
    model = built(cfg)
    of = weights(model)
    for part in ("valid", "test"):
        user_UD, item_ID = model.embeddings_at(part)
        np.testing.assert_array_equal(item_ID.detach(), of["item_ID"])
        for user, train in enumerate(TRAIN):
            known = (train + (VALID.get(user, []) if part == "test" else []))[-cfg.history :]
            wanted = formula(cfg, of, known, *whole(cfg, known))[-1] if known else np.zeros(cfg.dim)
            np.testing.assert_allclose(user_UD[user].detach(), wanted, rtol=1e-9, atol=1e-12)
    for one, same in zip(model.embeddings(), model.embeddings_at("valid"), strict=True):
        assert torch.equal(one, same)


def test_ranking_a_few_rows_at_a_time_changes_nothing(monkeypatch):
    model = built()
    at_once = model.embeddings_at("test")[0]
    monkeypatch.setattr(sasrec, "ROWS", 1)
    torch.testing.assert_close(model.embeddings_at("test")[0], at_once, rtol=1e-12, atol=0)


def test_the_softmax_has_the_gradient_of_its_formula(monkeypatch):
    monkeypatch.setattr(formed, "_CHUNK_CELLS", 3 * ITEMS)
    model = built(override(SMALL, {"loss": "softmax"}))
    (batch,) = batches(model, size=8)
    model.losses(batch).terms["softmax"].backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    real_RL = batch.extra["sequence"] > 0
    score_TI = model.states(batch.extra)[real_RL] @ model.item_ID.T
    torch.nn.functional.cross_entropy(score_TI, batch.positive[real_RL]).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-9, atol=1e-12)


# --- who sees whom


@pytest.mark.parametrize("variant", ["released", "described"])
def test_a_token_changes_itself_and_what_comes_after_it_in_its_sequence(variant):
    model = built(override(SMALL, {"variant": variant, "dropout": 0.0}))
    (batch,) = batches(model, size=8)
    shared = [row for row, _ in sequences(batch).values()]
    assert len(set(shared)) < len(shared)  # some lie side by side
    before = model.states(batch.extra)
    for row, columns in sequences(batch).values():
        for column in range(columns.start, columns.stop):
            item = batch.extra["item"].clone()
            item[row, column] = (item[row, column] + 1) % ITEMS
            after = model.states({**batch.extra, "item": item})
            moved = {(r, c) for r, c in (after != before).any(-1).nonzero().tolist()}
            assert moved == {(row, c) for c in range(column, columns.stop)}


@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_lanes_agree_with_solo_runs_in_several_blocks_and_heads(loss):
    assert_lanes_agree_with_solo_runs(override(SMALL, {"loss": loss}), own_batches=True)


def gradient_of_items(model: SASRecModel, batch: Batch) -> Tensor:
    (gradient,) = torch.autograd.grad(model.losses(batch).terms["softmax"], model.item_ID)
    return gradient


def test_columns_without_a_token_weigh_nothing():
    """Whatever stands there: not in the loss, not in a state, not in a gradient."""
    model = built(override(SMALL, {"loss": "softmax", "dropout": 0.0}))
    (batch,) = batches(model, size=8)
    empty_RL = batch.extra["sequence"] == 0
    assert empty_RL.any()
    extra = {**batch.extra, "item": batch.extra["item"].masked_fill(empty_RL, 7)}
    other = dataclasses.replace(
        batch, positive=batch.positive.masked_fill(empty_RL, 9), extra=extra
    )
    assert torch.equal(model.states(extra)[~empty_RL], model.states(batch.extra)[~empty_RL])
    assert torch.equal(model.losses(other).terms["softmax"], model.losses(batch).terms["softmax"])
    assert torch.equal(gradient_of_items(model, other), gradient_of_items(model, batch))


def test_a_history_longer_than_any_sequence_changes_nothing():
    """Positions count from the latest item: those that nobody reaches are never used."""
    models = [built(override(SMALL, {"history": n, "dropout": 0.0})) for n in (7, 30)]
    short, long = models
    with torch.no_grad():
        long.position_PD[:7] = short.position_PD
        others = {k: v for k, v in short.named_parameters() if k != "position_PD"}
        long.load_state_dict(others, strict=False)
    for part in ("valid", "test"):
        tables = (model.embeddings_at(part)[0] for model in models)
        torch.testing.assert_close(*tables, rtol=1e-12, atol=0)
    for one, other in zip(*map(batches, models), strict=True):
        losses = (m.losses(b).terms["bce"] for m, b in zip(models, (one, other), strict=True))
        torch.testing.assert_close(*losses, rtol=1e-12, atol=0)


# --- epochs and rows


def test_an_epoch_meets_every_user_who_has_a_next_item_once_in_a_fresh_order():
    model = built()
    orders = [[u for b in batches(model, 2, epoch=e) for u in b.user.tolist()] for e in range(2)]
    assert [sorted(order) for order in orders] == [LEARN] * 2
    assert orders[0] != orders[1]
    assert [len(b.user) for b in batches(model, 2)] == [2, 2, 1]


def test_sequences_lie_whole_in_rows_and_a_row_is_closed_where_the_next_does_not_fit():
    length, end = np.array([3, 2, 1, 4, 1]), np.array([3, 10, 6, 14, 20])
    packed = pack(end, length, 4)
    item = torch.from_numpy(packed.from_T) + 100
    assert packed.grid(item).tolist() == [
        [100, 101, 102, 0],
        [108, 109, 105, 0],
        [110, 111, 112, 113],
        [119, 0, 0, 0],
    ]
    tensors = packed.tensors(np.arange(200, 220))
    assert tensors["item"][1].tolist() == [208, 209, 205, 0]
    assert tensors["sequence"].tolist() == [[1, 1, 1, 0], [2, 2, 3, 0], [4] * 4, [5, 0, 0, 0]]
    assert tensors["age"].tolist() == [[2, 1, 0, 0], [1, 0, 0, 0], [3, 2, 1, 0], [0] * 4]
    assert packed.row_S.tolist() == [0, 1, 1, 2, 3]
    assert packed.last_S.tolist() == [2, 5, 6, 11, 12]


# --- what it refuses


def test_what_does_not_fit_is_refused_by_name():
    init = torch.Generator()
    with pytest.raises(ValueError, match="'seven', split 'given', is not in order of time"):
        SMALL.build(data_of(ordered=False), init)
    with pytest.raises(ValueError, match="'seven': no user has two training items"):
        SMALL.build(data_of([own[:1] for own in TRAIN]), init)
    with pytest.raises(ValueError, match="dim must be a multiple of the 3 heads, got 4"):
        override(SMALL, {"heads": 3}).build(data_of(), init)
    with pytest.raises(ValueError, match=r"loss='bce' needs train.negatives of 1 or more, got 0"):
        batches(built(), negatives=0)
    softmax = built(override(SMALL, {"loss": "softmax"}))
    assert all(b.negative.shape[-1] == 0 for b in batches(softmax, negatives=5))
