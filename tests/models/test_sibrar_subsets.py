"""SiBraR and MuBraR, trained once and scored by any subset of the items' modalities."""

from dataclasses import replace
from itertools import chain, combinations

import numpy as np
import pytest

from mmrec.data.conditions import Condition, apply
from mmrec.data.dataset import Dataset, Dense, Tags
from mmrec.evaluation import PROTOCOLS
from mmrec.models.base import ModelConfig
from mmrec.models.mubrar import MuBraR
from mmrec.models.sibrar import SiBraR
from mmrec.training import Run, RunConfig, TrainConfig, fit
from tests.models.tiny import ITEMS, tiny

SMALL = {
    "dim": 4,
    "common_dim": 5,
    "hidden": (6, 3),
    "input_dropout": 0.0,
    "output_activation": False,
}
NAMES = ("interactions", "tags", "text")
SUBSETS = tuple(chain.from_iterable(combinations(NAMES, size) for size in (1, 2)))


@pytest.fixture
def data() -> Dataset:
    """Items 1 and 5 lack text, 5 and 9 tags."""
    base = tiny(missing=True)
    return replace(base, valid=base.test[::2], test=base.test[1::2])


def run_on(cfg: ModelConfig, data: Dataset, other: Dataset | None = None) -> Run:
    run = RunConfig(model=cfg, train=TrainConfig(epochs=2, batch_size=30, lr=0.05))
    return Run(run, data, seed=0, protocol=PROTOCOLS["full"], evaluate_on=other)


def missing(data: Dataset, *names: str) -> Dataset:
    return apply(Condition(missing=names, when="eval"), data)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def by_hand(best: dict[str, np.ndarray], data: Dataset, place: int) -> np.ndarray:
    """(I, D) all items by one modality: its map, length 1, its branch, running statistics."""
    weight = {
        name.removeprefix(f"item.projections.{place}."): value
        for name, value in best.items()
        if name.startswith(f"item.projections.{place}.")
    }
    tags, text = data.features["tags"], data.features["text"]
    assert isinstance(tags, Tags)
    assert isinstance(text, Dense)
    if NAMES[place] == "interactions":
        seen = np.zeros((ITEMS, data.num_users))
        seen[data.train[:, 1], data.train[:, 0]] = 1
        h = relu(seen @ weight["weight_MC"] + weight["bias_C"])
    elif NAMES[place] == "tags":
        bags = np.zeros((ITEMS, len(tags.names)))
        for item in range(ITEMS):
            own = tags.ids[tags.starts[item] : tags.starts[item + 1]]
            bags[item, own] = 1 / max(len(own), 1)
        h = bags @ weight["tag_TC"]
    else:
        h = relu(text.values @ weight["layers.0.weight"].T + weight["layers.0.bias"])
    h = h / np.maximum(np.linalg.norm(h, axis=1, keepdims=True), 1e-12)
    branch = f"item.branches.{place if 'item.branches.1.linears.0.bias' in best else 0}."
    of = {name.removeprefix(branch): v for name, v in best.items() if name.startswith(branch)}
    h = relu(h @ of["linears.0.weight"].T + of["linears.0.bias"])
    h = h @ of["linears.1.weight"].T + of["linears.1.bias"]
    h = (h - of["norms.2.mean_D"]) / np.sqrt(of["norms.2.variance_D"] + 1e-5)
    h = relu(h * of["norms.2.scale_D"] + of["norms.2.shift_D"])
    return h @ of["linears.2.weight"].T + of["linears.2.bias"]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", [SiBraR, MuBraR])
def test_any_subset_is_the_mean_of_what_is_there_and_nothing_is_trained_again(data, kind):
    parent = run_on(kind(**SMALL), data)
    list(fit(parent))
    best = {name: value.numpy() for name, value in parent.best_model.items()}
    alone = {name: by_hand(best, data, place) for place, name in enumerate(NAMES)}
    has = {name: data.features[name].present for name in NAMES[1:]}
    has["interactions"] = np.ones(ITEMS, dtype=bool)
    for left in SUBSETS:
        run = run_on(parent.cfg.model, data, missing(data, *set(NAMES) - set(left)))
        run.load(parent.final_state())
        assert list(fit(run)) == []
        total = sum(has[name][:, None] * alone[name] for name in left)
        count = sum(has[name].astype(int) for name in left)
        expected = total / np.maximum(count, 1)[:, None]
        user, item = run.scored().embeddings()
        np.testing.assert_allclose(item.detach(), expected, atol=1e-12)
        np.testing.assert_array_equal(user.detach(), best["user.table_ND"])
        assert (item[5] == 0).all() == ("interactions" not in left)

        scores = best["user.table_ND"] @ expected.T
        scores[tuple(data.train.T)] = scores[tuple(data.valid.T)] = -np.inf
        place = np.array([(scores[u] > scores[u, i]).sum() for u, i in data.test.tolist()])
        hits = np.bincount(data.test[:, 0], place < 5, minlength=data.num_users)
        relevant = np.bincount(data.test[:, 0], minlength=data.num_users)
        recall = (hits / np.maximum(relevant, 1))[relevant > 0].mean()
        found = run.score_test()
        if "interactions" in left:  # without, an item may have nothing, and ties are drawn
            assert found.metrics["recall@5"] == pytest.approx(recall)


def test_what_could_not_be_trained_on_can_be_scored_by(data):
    """Item 9 is left with nothing, or no item has the central modality: neither is trained."""
    whole = replace(data, features={**data.features, "text": tiny().features["text"]})
    several = SiBraR(**SMALL, modalities=("tags", "text"), sampling="single")
    for cfg in (several, SiBraR(**SMALL, sampling="central", central="text")):
        bare = missing(whole, "text")
        with pytest.raises(ValueError, match=r"such as 5, have none of|20 items, such as 0, lack"):
            run_on(cfg, bare)
        run = run_on(cfg, whole, bare)
        list(fit(run))
        item = run.scored().embeddings()[1]
        assert item.isfinite().all()
        assert item.any()
        assert (item[9] == 0).all() == (cfg is several)
