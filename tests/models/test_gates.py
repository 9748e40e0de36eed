"""What every model with gates must do. One whose config gets `gate_modalities` is picked up."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrec.config import override
from mmrec.data.dataset import Dataset, Dense, Tags, csr_rows
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.models.base import ModelConfig, Recommender
from mmrec.nn.gates import ModalityGates, gated
from tests.models.every import TRAINED
from tests.models.test_contract import assert_lanes_agree_with_solo_runs
from tests.models.tiny import ITEMS, tiny

NAMES = ("tags", "text")
PLAIN = {
    name: cfg
    for name, cfg in TRAINED.items()
    if "gate_modalities" in {field.name for field in dataclasses.fields(cfg)}
}
GATED = {name: override(cfg, {"gate_modalities": True}) for name, cfg in PLAIN.items()}

NO_GRADIENT: dict[str, str] = {}
"""Models (class names) in whose loss a gate has no effect, and why."""
NEVER_CLOSED: dict[str, str] = {
    "PGL-described": "the contrast reads the direction of an item, which an item without an edge in"
    " the epoch's part of the graph has from its features alone, however small they are",
}
"""Models (class names, or with their variant) that read features past their closed gates, and
why."""
NO_VIEWS: dict[str, str] = {
    "DAMRS": "features choose the edges of static graphs, and no map of them is used",
}
"""Models (class names) that map no modality, and why."""

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(params=GATED)
def name(request) -> str:
    return request.param


def refilled(*names: str) -> Dataset:
    """The tiny dataset with other values of the modalities named, in the same places."""
    rng, data = np.random.default_rng(11), tiny(missing=True)
    tags, text = data.features["tags"], data.features["text"]
    values = rng.normal(size=(ITEMS, 4)) * text.present[:, None]
    labels = [(item, tag) for item in np.flatnonzero(tags.present) for tag in (item % 5, 5)]
    other = {
        "tags": Tags(tags.present, *csr_rows(np.array(labels), ITEMS), tuple("abcdef")),
        "text": Dense(text.present, values.astype(np.float32)),
    }
    features = {n: other[n] if n in names else data.features[n] for n in NAMES}
    return dataclasses.replace(data, features=features)


def built(cfg: ModelConfig, data: Dataset, logit: float | None = None) -> Recommender:
    model = cfg.build(data, Draws(0).generator("init"))
    model.start_epoch(Draws(0), 0)
    if logit is not None:
        torch.nn.init.constant_(gates_of(model).logit_M, logit)
    return model


def gates_of(model: Recommender) -> ModalityGates:
    (gates,) = (module for module in model.modules() if isinstance(module, ModalityGates))
    return gates


def first_losses(model: Recommender) -> dict[str, Tensor]:
    pairs, shape = TrainingPairs.of(tiny()), BatchShape(size=30, negatives=3)
    return model.losses(next(iter(model.epoch_batches(pairs, Draws(0), 0, shape)))).terms


def outcome(model: Recommender) -> dict[str, Tensor]:
    """What a model says: the losses of its first batch, and its embeddings."""
    user, item = model.embeddings()
    return {**first_losses(model), "users": user, "items": item}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    assert left.keys() == right.keys()
    return all(torch.allclose(left[k], right[k], rtol=1e-9, atol=1e-12) for k in left)


# --- the gates themselves


def test_a_gate_is_two_sigmoids_of_its_logit():
    gates = ModalityGates(("image", "text", "audio"))
    assert gates().tolist() == [1.0, 1.0, 1.0]
    with torch.no_grad():
        gates.logit_M.copy_(torch.tensor([math.log(3), -math.log(7), -40.0]))
    expected = {"gate.image": 1.5, "gate.text": 0.25, "gate.audio": 0.0}
    assert gates.measures() == pytest.approx(expected, abs=1e-15)
    assert gates().tolist() == pytest.approx(list(expected.values()), abs=1e-15)
    values = torch.tensor([[2.0, -4.0]])
    for which in ("text", 1):
        torch.testing.assert_close(gates.of(which), torch.tensor(0.25))
        torch.testing.assert_close(gated(gates, which, values), torch.tensor([[0.5, -1.0]]))
    assert gated(None, "text", values) is values
    with pytest.raises(KeyError, match="no gate for 'video'; there are: image, text, audio"):
        gates.of("video")


# --- the models


def test_gates_change_nothing_at_their_start(name):
    plain, model = (built(cfg[name], tiny(missing=True)) for cfg in (PLAIN, GATED))
    expected, found = outcome(plain), outcome(model)
    assert found.keys() == expected.keys()
    for part, value in expected.items():
        torch.testing.assert_close(found[part], value, rtol=1e-6, atol=1e-12)
    # One parameter more, of which an ungated model knows nothing.
    more = model.state_dict().keys() - plain.state_dict().keys()
    assert {key.rpartition(".")[2] for key in more} == {"logit_M"}
    assert len(more) == 1
    assert not plain.state_dict().keys() - model.state_dict().keys()


def test_a_loss_moves_every_gate(name):
    model = built(GATED[name], tiny(missing=True))
    torch.stack(list(first_losses(model).values())).sum().backward()
    gradient_M = gates_of(model).logit_M.grad
    assert gradient_M is not None
    if name.partition("-")[0] in NO_GRADIENT:
        assert not gradient_M.any()
    else:
        assert gradient_M.isfinite().all()
        # Well above what rounding leaves of a scale without effect.
        assert (gradient_M.abs() > 1e-9).all()


@pytest.mark.slow
def test_gated_lanes_agree_with_solo_runs(name):
    assert_lanes_agree_with_solo_runs(GATED[name], own_batches=False)


@torch.no_grad()
def test_closed_gates_hide_the_features(name):
    first, second = tiny(missing=True), refilled(*NAMES)
    opened = [outcome(built(GATED[name], data)) for data in (first, second)]
    assert not same(*opened)
    closed = [outcome(built(GATED[name], data, -40.0)) for data in (first, second)]
    assert same(*closed) == {name, name.partition("-")[0]}.isdisjoint(NEVER_CLOSED)


@torch.no_grad()
@pytest.mark.parametrize("cfgs", [PLAIN, GATED], ids=["plain", "gated"])
def test_a_view_shows_the_items_by_one_modality_alone(name, cfgs):
    views = built(cfgs[name], tiny(missing=True)).item_views()
    assert set(views) == (set() if name.partition("-")[0] in NO_VIEWS else set(NAMES))
    for modality, view_ID in views.items():
        assert view_ID.ndim == 2
        assert len(view_ID) == ITEMS
        assert view_ID.isfinite().all()
        for other in NAMES:
            again_ID = built(cfgs[name], refilled(other)).item_views()[modality]
            assert torch.allclose(view_ID, again_ID, atol=1e-12) == (other != modality), other


@torch.no_grad()
def test_measures_are_the_gates(name):
    assert not [m for m in built(PLAIN[name], tiny()).measures() if m.startswith("gate.")]
    model = built(GATED[name], tiny())
    assert {f"gate.{n}": 1.0 for n in NAMES}.items() <= model.measures().items()
    gates_of(model).logit_M[1] = math.log(3)
    assert model.measures()["gate.text"] == pytest.approx(1.5)
    assert model.measures()["gate.tags"] == 1.0


MAPS = {"VBPR": "map_OF.{}", "BM3": "map_DF.{}", "SLMRec": "maps.{}.weight"}
"""Models whose features enter through one linear map each."""


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in GATED if name.partition("-")[0] in MAPS])
def test_a_gate_in_front_of_a_linear_map_scales_the_map_and_not_its_bias(name):
    plain, model = (built(cfg[name], tiny()) for cfg in (PLAIN, GATED))
    untouched = outcome(plain)
    for at, gate in enumerate((1.5, 0.25)):
        plain.get_parameter(MAPS[name.partition("-")[0]].format(at)).mul_(gate)
        gates_of(model).logit_M[at] = math.log(gate / (2 - gate))
    assert same(outcome(model), outcome(plain))
    assert not same(untouched, outcome(plain))
