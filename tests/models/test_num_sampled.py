"""SiBraR and MuBraR that draw another number of modalities than the paper's two."""

from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from mmrec.data.dataset import Dataset, Dense
from mmrec.data.sampling import BatchShape
from mmrec.models.base import Batch
from mmrec.models.mubrar import MuBraR
from mmrec.models.sibrar import SiBraR, SiBraRModel
from mmrec.nn.modalities import RANDOM_RANGE, ModalityDraws
from tests.models.test_contract import assert_lanes_agree_with_solo_runs
from tests.models.test_sibrar import (
    SMALL,
    built,
    first_batch,
    projected,
    raw_rows,
    relu,
    through_branch,
)
from tests.models.tiny import ITEMS, tiny

ITEM_SIDE = {**SMALL, "user": "embedding"}


def four() -> Dataset:
    """Four item modalities; items 1 and 9 have three of them, item 5 has two."""
    data = tiny(missing=True)
    there = np.ones(ITEMS, dtype=bool)
    there[[5, 12]] = False
    values = np.random.default_rng(1).normal(size=(ITEMS, 3)) * there[:, None]
    return replace(
        data, features={**data.features, "audio": Dense(there, values.astype(np.float32))}
    )


# --- draws


def drawn_by(num: int, present_NM: np.ndarray, entity: int, sampling="pairwise") -> np.ndarray:
    """(30,000, num) draws of one entity."""
    random = torch.randint(RANDOM_RANGE, (30_000, 2), generator=torch.Generator().manual_seed(num))
    draws = ModalityDraws(sampling, present_NM, central=2, num=num)
    return draws(torch.full((len(random),), entity), random).numpy()


def shares(found: np.ndarray) -> dict[tuple[int, ...], float]:
    values, counts = np.unique(found, axis=0, return_counts=True)
    return {tuple(v): c / len(found) for v, c in zip(values.tolist(), counts, strict=True)}


@pytest.mark.parametrize("num", [1, 3, 4])
def test_every_order_of_what_an_entity_has_is_as_likely(num):
    present = np.array([[True] * 5, [True, False, True, True, True]])
    expected = set(permutations((0, 2, 3, 4), num))
    found = shares(drawn_by(num, present, 1))
    assert set(found) == expected
    # The share of one in 24 has a standard error of 0.0012.
    assert list(found.values()) == pytest.approx([1 / len(expected)] * len(expected), abs=0.009)


def test_central_comes_first_and_the_others_are_as_likely():
    found = shares(drawn_by(3, np.ones((1, 4), dtype=bool), 0, "central"))
    assert set(found) == {(2, *pair) for pair in permutations((0, 1, 3), 2)}
    assert list(found.values()) == pytest.approx([1 / 6] * 6, abs=0.009)


def test_what_an_entity_lacks_is_its_first_again():
    present = np.array([[True] * 5, [True, False, False, True, False]])
    found = drawn_by(4, present, 1)
    assert {tuple(row) for row in found.tolist()} == {(0, 3, 0, 0), (3, 0, 3, 3)}


def test_a_cell_meets_the_same_first_modalities_however_many_it_draws():
    model = {n: built(SiBraR(**ITEM_SIDE, num_sampled=n), four()) for n in (1, 2, 3, 4)}
    drawn = {n: first_batch(m).extra["item_modalities"] for n, m in model.items()}
    for fewer, more in combinations(drawn, 2):
        assert torch.equal(drawn[fewer], drawn[more][..., :fewer])


# --- losses


def reference(model: SiBraRModel, data: Dataset, batch: Batch) -> tuple[float, float]:
    """BPR and the unweighted InfoNCE of the items, cell by cell and pair by pair."""
    side, cfg = model.item, model.cfg
    items = torch.cat((batch.positive[:, None], batch.negative), 1).numpy()
    drawn = batch.extra["item_modalities"].numpy()
    raw = {**raw_rows("item", data), "audio": data.features["audio"].values}
    at = {}  # (row, place, modality) -> a row of the stack: each is there once
    stack = []
    for row, place in np.ndindex(items.shape):
        for modality in dict.fromkeys(drawn[row, place]):
            name = side.names[modality]
            if name == "audio":
                layer = side.projections[modality].layers[0]
                weight, bias = (p.detach().numpy() for p in (layer.weight, layer.bias))
                vector = relu(raw[name][items[row, place]] @ weight.T + bias)
            else:
                vector = projected(side, raw[name][items[row, place]], name)
            at[row, place, modality] = len(stack)
            stack.append(vector / max(np.linalg.norm(vector), 1e-12))
    z = np.zeros((len(stack), cfg.dim))
    for number, branch in enumerate(side.branches):
        mine = [i for (*_, m), i in at.items() if len(side.branches) == 1 or m == number]
        z[mine] = through_branch(branch, np.array(stack)[mine])
    mean = np.zeros((*items.shape, cfg.dim))
    losses = []
    for row in range(len(items)):
        cells = range(items.shape[1])
        for place in cells:
            own = dict.fromkeys(drawn[row, place])
            mean[row, place] = np.mean([z[at[row, place, m]] for m in own], axis=0)
        for a, b in combinations(range(drawn.shape[-1]), 2):
            left, right = (
                np.array([z[at[row, place, drawn[row, place, slot]]] for place in cells])
                for slot in (a, b)
            )
            for place in cells:
                slots = list(drawn[row, place])
                if slots.index(slots[a]) < a or slots.index(slots[b]) < b:
                    continue  # a repeat
                logits = left @ right.T / cfg.tau
                own = logits[place, place]
                both = logsumexp(logits[place]) - own + logsumexp(logits[:, place]) - own
                losses.append(both)
    user = model.user.table_ND.detach().numpy()[batch.user.numpy()]
    scores = (user[:, None] * mean).sum(-1)
    return np.log1p(np.exp(scores[:, 1:] - scores[:, :1])).mean(), float(np.mean(losses))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("num", [3, 4])
@pytest.mark.parametrize("kind", [SiBraR, MuBraR])
def test_terms_of_several_drawn_modalities_follow_the_dense_formula(kind, num):
    data = four()
    cfg = kind(**ITEM_SIDE, sampling="pairwise", num_sampled=num, alpha=0.3, tau=0.2)
    model = built(cfg, data)
    batch = first_batch(model)
    found = {name: term.item() for name, term in model.losses(batch).terms.items()}
    bpr, infonce = reference(model, data, batch)
    assert found == pytest.approx({"bpr": bpr, "item_infonce": 0.3 * infonce}, rel=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("aggregation", ["mean", "max"])
@pytest.mark.parametrize("kind", [SiBraR, MuBraR])
def test_drawing_all_is_averaging_all(kind, aggregation):
    small = {**ITEM_SIDE, "aggregation": aggregation}
    every = built(kind(**small, sampling="pairwise", num_sampled=4), four())
    none = built(kind(**small, sampling="none"), four())
    batch = first_batch(every)
    drawn, averaged = every.losses(batch), none.losses(replace(batch, extra={}))
    torch.testing.assert_close(drawn.terms["bpr"], averaged.terms["bpr"], rtol=1e-12, atol=0)
    for name, value in averaged.buffers.items():
        torch.testing.assert_close(drawn.buffers[name], value, rtol=1e-12, atol=1e-15)


@pytest.mark.usefixtures("float64")
def test_one_drawn_is_single():
    one = built(SiBraR(**ITEM_SIDE, num_sampled=1), four())
    single = built(SiBraR(**ITEM_SIDE, sampling="single"), four())
    left, right = (model.losses(first_batch(model)) for model in (one, single))
    assert set(left.terms) == set(right.terms) == {"bpr"}
    assert torch.equal(left.terms["bpr"], right.terms["bpr"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("size", [4, 30])
@pytest.mark.parametrize("kind", [SiBraR, MuBraR])
def test_table_and_stack_agree_of_several(kind, size):
    model = built(kind(**ITEM_SIDE, sampling="pairwise", num_sampled=3, alpha=0.3), four())
    batch = first_batch(model, BatchShape(size, 2))
    results = []
    everything = {"item_modalities": batch.extra["item_modalities"]}
    for path, extra in (("table", batch.extra), ("table", everything), ("stack", everything)):
        model.item.path = path
        model.zero_grad()
        terms, buffers = model.losses(replace(batch, extra=extra))
        torch.stack(list(terms.values())).sum().backward()
        gradients = [p.grad for p in model.parameters()]
        results.append([*terms.values(), *buffers.values(), *gradients])
    for other in results[1:]:
        for left, right in zip(results[0], other, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_lanes_that_draw_three_agree_with_solo_runs():
    small = {**ITEM_SIDE, "dim": 8, "hidden": (8, 8)}
    assert_lanes_agree_with_solo_runs(SiBraR(**small, num_sampled=3), own_batches=True)


# --- refusals


def test_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match="draws 5 modalities, there are 4"):
        built(SiBraR(**ITEM_SIDE, num_sampled=5), four())


@pytest.mark.parametrize("sampling", ["none", "single"])
def test_a_number_that_nothing_reads_is_refused(sampling):
    with pytest.raises(ValueError, match=f"num_sampled=3 is for .* not '{sampling}'"):
        built(SiBraR(**ITEM_SIDE, sampling=sampling, num_sampled=3), four())
