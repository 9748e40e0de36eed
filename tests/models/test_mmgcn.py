import numpy as np
import pytest
import torch

from mmrec.data.dataset import Dataset, Dense
from mmrec.models.base import Batch
from mmrec.models.mmgcn import MMGCN, FixedPreference
from tests.models.golden import (
    assert_course,
    assert_like,
    assert_norm,
    batch_of,
    features,
    filled,
    golden,
    problem,
)

RECORD = golden("mmgcn")
CASE = RECORD["cases"]["main"]
WIDTHS = {"audio": 3, "image": 6, "text": 4}


def trained_names(short: str, branch: str, *, projected: bool) -> dict[str, str]:
    """Names in the golden record -> ours."""
    names = {}
    if projected:
        names |= {f"{short}.in.W": f"{branch}.items.map.weight"}
        names |= {f"{short}.in.b": f"{branch}.items.map.bias"}
    for k in range(3):
        layer = f"{branch}.layers.{k}"
        names |= {f"{short}.msg{k + 1}": f"{layer}.message.weight"}
        for theirs, ours in (("lin", "own"), ("mix", "mix")):
            names |= {f"{short}.{theirs}{k + 1}.W": f"{layer}.{ours}.weight"}
            names |= {f"{short}.{theirs}{k + 1}.b": f"{layer}.{ours}.bias"}
    return names


NAMES = trained_names("img", "branches.0", projected=True) | trained_names(
    "txt", "branches.1", projected=False
)


def released():
    cfg = MMGCN(dim=4, reg_weight=CASE["hyper"]["reg_weight"])
    model = cfg.build(problem(CASE, features=features()), torch.Generator())
    values = {p["name"]: filled(p) for p in CASE["parameters"]}
    with torch.no_grad():
        for theirs, ours in NAMES.items():
            # The release multiplies rows by its message maps, where ours are turned.
            value = values[theirs].T if ".msg" in theirs else values[theirs]
            model.get_parameter(ours).copy_(value)
    model.id_VD.copy_(values["id.E"])
    for branch, name in zip(model.branches, ("img.P", "txt.P"), strict=True):
        branch.users = FixedPreference(values[name], model.item_from_user)
    return model


@pytest.mark.usefixtures("float64")
def test_reproduces_the_released_model():
    model = released()
    assert set(dict(model.named_parameters())) == set(NAMES.values())
    user, item = model.embeddings()
    assert_like(user, CASE["user"])
    assert_like(item, CASE["item"])
    assert_like(model.score(user, item), CASE["scores"])

    terms = model.losses(batch_of(CASE)).terms
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    penalty = CASE["loss_terms"]["reg_id"] + CASE["loss_terms"]["reg_img_preference"]
    assert_like(terms["bpr"], CASE["loss_terms"]["bpr"])
    assert_like(terms["reg"], CASE["hyper"]["reg_weight"] * penalty)
    assert_like(total, CASE["loss_total"])
    for theirs, norm in CASE["grad_l2"].items():
        assert_norm(model.get_parameter(NAMES[theirs]).grad, norm)


@pytest.mark.usefixtures("float64")
def test_trains_as_released():
    model, record = released(), RECORD["detail"]["case"]["adam_same_batch_5_steps"]
    assert_course(model, batch_of(CASE), record)
    for theirs, ours in NAMES.items():
        assert_norm(model.get_parameter(ours).detach(), record["final_param_l2"][theirs])
    assert_norm(model.id_VD, record["final_param_l2"]["id.E"])


def dataset(*names: str) -> Dataset:
    """5 users by 7 items, of which the last user and item have no interaction."""
    rng = np.random.default_rng(1)
    train = np.array([(0, 0), (0, 1), (0, 4), (1, 1), (1, 2), (2, 5), (3, 3), (3, 0), (3, 5)])
    none = np.zeros((0, 2), dtype=np.int64)
    tables = {n: Dense(np.ones(7, dtype=bool), rng.normal(size=(7, WIDTHS[n]))) for n in names}
    return Dataset("small", 5, 7, train, none, none, features=tables)


BATCH = Batch(
    torch.tensor([0, 1, 3]), torch.tensor([0, 2, 0]), torch.tensor([[5, 3], [0, 6], [1, 1]])
)


def built(*names: str, **changes):
    init = torch.Generator().manual_seed(3)
    return MMGCN(dim=3, latent_dim=5, **changes).build(dataset(*names), init)


def preferences(seed: int, names: tuple[str, ...], widths: list[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(5, width)) for _, width in zip(names, widths, strict=True)]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.01 * x)


def numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def formula(model, data: Dataset, preference: list[np.ndarray]) -> np.ndarray:
    """(V, D) node by node from the equations, with the weights of a model."""
    near = {v: [] for v in range(12)}
    for user, item in data.train:
        near[user].append(5 + item)
        near[5 + item].append(user)
    gates = [1.0] * len(model.modalities) if model.gates is None else numpy(model.gates())
    last = []
    for name, branch, start in zip(model.modalities, model.branches, preference, strict=True):
        content = data.features[name].values
        if branch.items.map is not None:
            content = content @ numpy(branch.items.map.weight).T + numpy(branch.items.map.bias)
        x = np.concatenate((unit(start), gates[len(last)] * unit(content)))
        for layer in branch.layers:
            mapped = x @ numpy(layer.message.weight).T
            mean = [mapped[n].mean(0) if n else np.zeros(mapped.shape[1]) for n in near.values()]
            own = leaky(x @ numpy(layer.own.weight).T + numpy(layer.own.bias))
            both = np.concatenate((leaky(np.array(mean)), own + numpy(model.id_VD)), axis=1)
            x = leaky(both @ numpy(layer.mix.weight).T + numpy(layer.mix.bias))
        last.append(x)
    return np.mean(last, axis=0)


def ranking(node_VD: np.ndarray) -> float:
    """Mean over rows and negatives of -ln sigmoid of the difference."""
    losses = []
    for k, negatives in enumerate(BATCH.negative.tolist()):
        user, positive = node_VD[BATCH.user[k]], node_VD[5 + BATCH.positive[k]]
        losses += [np.log1p(np.exp(-user @ (positive - node_VD[5 + n]))) for n in negatives]
    return float(np.mean(losses))


MODALITIES = [("text",), ("image",), ("image", "text"), ("audio", "image", "text")]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("names", MODALITIES)
def test_released_has_three_layers_of_fixed_preferences(names):
    model = built(*names, layers=1)
    widths = [5 if n == "image" else WIDTHS[n] for n in names]
    assert [branch.items.width for branch in model.branches] == widths
    fixed = preferences(0, names, widths)
    for branch, preference in zip(model.branches, fixed, strict=True):
        branch.users = FixedPreference(torch.tensor(preference), model.item_from_user)
    expected = formula(model, dataset(*names), fixed)
    assert len(model.branches[0].layers) == 3
    assert_like(torch.cat(model.embeddings()).detach(), expected)
    assert_like(model.losses(BATCH).terms["bpr"].detach(), ranking(expected))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("names", MODALITIES)
def test_described_counts_layers_and_penalises_every_modality(names, layers):
    weight = 0.3
    model = built(*names, layers=layers, variant="described", reg_weight=weight)
    assert {len(branch.layers) for branch in model.branches} == {layers}
    trained = [numpy(branch.users.preference_UQ) for branch in model.branches]
    expected = formula(model, dataset(*names), trained)
    assert_like(torch.cat(model.embeddings()).detach(), expected)
    terms = model.losses(BATCH).terms
    assert_like(terms["bpr"].detach(), ranking(expected))

    id_UD, id_ID = np.split(numpy(model.id_VD), [5])
    ids = (
        2 * np.mean(id_UD[BATCH.user] ** 2)
        + np.mean(id_ID[BATCH.positive] ** 2)
        + np.mean(id_ID[BATCH.negative] ** 2)
    ) / 2
    squares = sum(np.mean(preference**2) for preference in trained)
    assert_like(terms["reg"].detach(), weight * (ids + squares))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("layers", [1, 3])
def test_gates_come_after_the_division_by_the_length(layers):
    names = ("image", "text")
    model = built(*names, layers=layers, variant="described", gate_modalities=True)
    with torch.no_grad():
        model.gates.logit_M.copy_(torch.tensor([1.0, -2.0]))
    trained = [numpy(branch.users.preference_UQ) for branch in model.branches]
    expected = formula(model, dataset(*names), trained)
    assert_like(torch.cat(model.embeddings()).detach(), expected)


def test_only_described_trains_ids_and_preferences():
    fixed, trained = (
        dict(built("image", layers=3, variant=variant).named_parameters())
        for variant in ("released", "described")
    )
    assert trained.keys() - fixed.keys() == {"id_VD", "branches.0.users.preference_UQ"}
    reg = built("image").losses(BATCH).terms["reg"]
    assert reg > 0
    assert not reg.requires_grad


def test_released_penalises_the_preferences_of_images_alone():
    both, alone = built("image", "text"), built("text")
    without = both.losses(BATCH).terms["reg"] - 1e-3 * both.branches[0].users.penalty
    for model, expected in ((both, without), (alone, alone.losses(BATCH).terms["reg"])):
        id_UD, id_ID = model.id_VD.split((5, 7))
        ids = id_UD[BATCH.user].square().mean() + (
            id_ID[BATCH.positive].square().mean() / 2 + id_ID[BATCH.negative].square().mean() / 2
        )
        torch.testing.assert_close(expected, 1e-3 * ids)


@pytest.mark.parametrize("projected", [(), ("image", "text")])
def test_tables_are_trained_on_request_and_start_at_the_features(projected):
    frozen, trained = (
        built("image", "text", projected=projected, train_features=t) for t in (False, True)
    )
    tables = {f"branches.{k}.items.table._table" for k in (0, 1)}
    more = set(dict(trained.named_parameters())) - set(dict(frozen.named_parameters()))
    assert more == tables
    torch.testing.assert_close(frozen.embeddings(), trained.embeddings())
    trained.losses(BATCH).terms["bpr"].backward()
    assert all(trained.get_parameter(name).grad.any() for name in tables)


def test_refuses_what_it_cannot_project():
    with pytest.raises(ValueError, match="cannot project \\['audio'\\]"):
        built("image", "text", projected=("audio", "image"))
    with pytest.raises(ValueError, match="needs at least a modality"):
        built()
