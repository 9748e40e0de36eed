from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrec.config import override
from mmrec.data.dataset import Dense
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.models.base import Batch
from mmrec.models.mambarec import MambaRec, MambaRecModel
from mmrec.nn.views import batch_nodes
from tests.models.golden import assert_like, assert_norm, batch_of, features, golden, problem
from tests.models.test_contract import assert_lanes_agree_with_solo_runs

RECORD = golden("mambarec")
CASE, DETAIL = RECORD["cases"]["main"], RECORD["detail"]["cases"]
MODALITIES = ("image", "text")
NAMES = {
    "dim": "embedding_size",
    "knn_k": "knn_k",
    "cl_weight": "cl_loss",
    "ui_layers": "n_ui_layers",
    "item_layers": "n_layers",
    "reg_weight": "reg_weight",
    "mmd_weight": "mmd_weight",
    "bandwidth": "mmd_kernel_bandwidth",
    "reduction": "reduction_factor",
    "dropout": "dropout",
}
"""Our fields, and what the release calls them."""

# --- against the record


def weights(case: dict) -> dict[str, Tensor]:
    """The case's parameters by their released names; feature tables left out."""
    found = {}
    for place, name, shape, rule in case["params"]:
        if rule == "rule":
            at = torch.arange(int(np.prod(shape)), dtype=torch.float64)
            found[name] = (case["param_amplitude"] * torch.sin(0.37 * at + place)).view(shape)
        elif rule != "features":
            found[name] = torch.full(shape, float(rule.removeprefix("constant ")))
    return found


def parts(model: MambaRecModel) -> dict[str, Tensor]:
    """What of the release's parameters the model has, by their names there."""
    found = {
        "user_embedding.weight": model.user_UD,
        "item_id_embedding.weight": model.item_ID,
        "image_reduce.weight": model.reduced[0].inner_HF,
        "image_trs.weight": model.reduced[0].outer_DH,
        "text_trs.weight": model.reduced[1].outer_DH,
        "norm.weight": model.norm.weight,
        "norm.bias": model.norm.bias,
        "query_common.0.weight": model.attention[0].weight,
        "query_common.0.bias": model.attention[0].bias,
        "query_common.2.weight": model.attention[2].weight,
    }
    for m, name in enumerate(MODALITIES):
        dream = model.dreams[m]
        found[f"{name}_embedding.weight"] = model.reduced[m].features.table_IF
        for kind, norm in (("branch5_bn", dream.mean_norm), ("conv_cat.1", dream.out_norm)):
            found[f"dream_{name}.{kind}.weight"] = norm.scale_D
            found[f"dream_{name}.{kind}.bias"] = norm.shift_D
        found[f"dream_{name}.branch5_conv.weight"] = dream.mean_CC
        found[f"dream_{name}.conv_cat.0.weight"] = dream.out_CK
        found[f"dream_{name}.fusion.channel.fc.weight"] = dream.channel.inner_HK
        found[f"dream_{name}.fusion.spatial.Conv1x1.weight"] = dream.spatial.read_1K
        for kind, layer in (
            (f"gate_{name[0]}".replace("gate_i", "gate_v"), model.gates[m].map),
            (f"gate_{name}_prefer", model.preferences[m]),
        ):
            found[f"{kind}.0.weight"], found[f"{kind}.0.bias"] = layer.weight, layer.bias
    return found


def sliced(model: MambaRecModel) -> dict[str, tuple[Tensor, slice | int]]:
    """Parameters of the release that lie within one of the model's, and where."""
    found = {}
    for dream, name in zip(model.dreams, MODALITIES, strict=True):
        for b, view in enumerate(dream.views):
            at = slice(4 * b, 4 * b + 4)
            found[f"dream_{name}.branch{b + 1}.0.weight"] = view.tap_TCC, 0
            found[f"dream_{name}.branch{b + 1}.1.weight"] = dream.view_norm.scale_D, at
            found[f"dream_{name}.branch{b + 1}.1.bias"] = dream.view_norm.shift_D, at
    return found


def centre(name: str, weight: Tensor, shape: torch.Size) -> Tensor:
    """What of the release's weight can have an effect, as the model has it."""
    if weight.ndim == 4 and weight.shape[-1] == 3:
        weight = weight[:, :, 1, 1]
    return weight.reshape(shape)


def offsets(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """By the name of a normalisation, what the biases in front of it add to its running mean."""
    reduced = {
        "image": given["image_trs.weight"] @ given["image_reduce.bias"] + given["image_trs.bias"],
        "text": given["text_trs.bias"],
    }
    found = {}
    for name, bias in reduced.items():
        for b in range(1, 5):
            at = f"dream_{name}.branch{b}"
            kernel = given[f"{at}.0.weight"]
            kernel = kernel[:, :, kernel.shape[2] // 2, kernel.shape[3] // 2]
            found[f"{at}.1"] = kernel @ bias + given[f"{at}.0.bias"]
        kernel = given[f"dream_{name}.branch5_conv.weight"][:, :, 0, 0]
        found[f"dream_{name}.branch5_bn"] = kernel @ bias + given[f"dream_{name}.branch5_conv.bias"]
        found[f"dream_{name}.conv_cat.1"] = given[f"dream_{name}.conv_cat.0.bias"]
    return found


def running(model: MambaRecModel) -> dict[str, tuple[Tensor, Tensor]]:
    """By the name of a normalisation, its running mean and variance."""
    found = {}
    for dream, name in zip(model.dreams, MODALITIES, strict=True):
        norm = dream.view_norm
        for b in range(4):
            at = slice(4 * b, 4 * b + 4)
            found[f"dream_{name}.branch{b + 1}.1"] = norm.mean_D[at], norm.variance_D[at]
        for kind, norm in (("branch5_bn", dream.mean_norm), ("conv_cat.1", dream.out_norm)):
            found[f"dream_{name}.{kind}"] = norm.mean_D, norm.variance_D
    return found


def released(case: dict) -> MambaRecModel:
    """The record's model; its biases in front of normalisation are in the running means."""
    hyper = {field: case["hyper"][name] for field, name in NAMES.items()}
    cfg = MambaRec(variant="released", **hyper)
    model = cfg.build(problem(CASE, features=features()), torch.Generator().manual_seed(0))
    given = weights(case)
    with torch.no_grad():
        for name, found in parts(model).items():
            if name in given:
                found.copy_(centre(name, given[name], found.shape))
        for name, (whole, at) in sliced(model).items():
            whole[at] = centre(name, given[name], whole[at].shape)
        for name, offset in offsets(given).items():
            running(model)[name][0].copy_(-offset)
    return model


def nodes_of(plain: Batch, size: int, **extra: Tensor) -> Batch:
    nodes = batch_nodes(plain.user, plain.positive, plain.negative)
    return Batch(plain.user, plain.positive, plain.negative, {**nodes, **extra}, size)


def step(model: MambaRecModel, case: dict) -> dict[str, Tensor]:
    """The loss terms of the record's batch; running statistics are brought on."""
    terms, buffers = model.losses(nodes_of(batch_of(CASE), case["hyper"]["train_batch_size"]))
    known = dict(model.named_buffers())
    for name, value in buffers.items():
        known[name].copy_(value)
    return terms


def assert_evaluated(model: MambaRecModel, record: dict) -> None:
    with torch.no_grad():
        user, item = model.embeddings()
        assert_like(user, record["user_repr"])
        assert_like(item, record["item_repr"])
        assert_like(model.score(user, item), record["scores"])
        views = model.item_views()
        behaviour, side = model.behaviour_and_side(model.purified(list(views.values())))
        assert_like(behaviour, record["behaviour"])
        assert_like(side, record["side"])
        for name in MODALITIES:
            assert_like(views[name], record[f"dream_{name}"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("label", DETAIL)
def test_reproduces_the_released_model_before_and_after_a_step(label):
    case = DETAIL[label]
    model, given = released(case), weights(case)
    assert_evaluated(model, case["eval_fresh_bn"])
    step(model, case)
    found, bias = running(model), offsets(given)
    assert len(case["bn_after_one_step"]) == 2 * len(found) == 24
    for name, (mean, variance) in found.items():
        record = f"{name}.running_mean", f"{name}.running_var"
        assert_like(mean + bias[name], case["bn_after_one_step"][record[0]])
        assert_like(variance, case["bn_after_one_step"][record[1]])
    assert_evaluated(model, case["eval_after_bn_update"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("label", DETAIL)
def test_reproduces_the_released_losses_and_gradients(label):
    case = DETAIL[label]
    model, record = released(case), case["losses"]
    terms = step(model, case)
    contrast = record["cl_item"] + record["cl_user"]
    expected = {
        "bpr": record["bpr"],
        "reg": record["reg_weighted"],
        "contrast": case["hyper"]["cl_loss"] * contrast,
        "mmd": case["hyper"]["mmd_weight"] * record["mmd"],
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert_like(terms[name], value)
    assert_like(sum(terms.values()), record["total"])

    sum(terms.values()).backward()
    gradients = {name: p.grad for name, p in parts(model).items()}
    gradients |= {name: whole.grad[at] for name, (whole, at) in sliced(model).items()}
    for name, norm in case["grad_norms"].items():
        if name in gradients:
            assert_norm(gradients[name], norm)
        else:  # a bias in front of normalisation
            assert name.endswith(".bias")
            assert norm < 1e-12
    assert len(gradients) == 75 - 15


# --- against the formulas, with any number of modalities, one item without audio

ROWS = {"batch": {"users": [4, 4, 1, 0], "positives": [7, 3, 3, 5], "negatives": [1, 2, 5, 0]}}


def tables(names: tuple[str, ...]) -> dict[str, Dense]:
    i, j = np.ogrid[:8, :6]
    audio = Dense(np.arange(8) != 2, np.sin(0.5 + 2.3 * i * j + i) * (i != 2))
    return {name: (features() | {"audio": audio})[name] for name in names}


def built(names: tuple[str, ...], **changes) -> MambaRecModel:
    cfg = override(MambaRec(dim=8, knn_k=3, reduction=2, tau=0.5, bandwidth=0.7), changes)
    data = problem(CASE, features=tables(names))
    model = cfg.build(data, torch.Generator().manual_seed(3))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            wave = torch.sin(torch.arange(parameter.numel()) * 0.7 + number)
            parameter += 0.5 * wave.view_as(parameter)
    return model


def normalised(h: np.ndarray, norm: torch.nn.Module) -> np.ndarray:
    h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5)
    return h * norm.scale_D.detach().numpy() + norm.shift_D.detach().numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def refined(model: MambaRecModel, m: int) -> np.ndarray:
    """The described DREAM of maps of one position."""
    own, dream = model.reduced[m], model.dreams[m]
    weight = {
        k: p.detach().numpy() for k, p in (*own.named_parameters(), *dream.named_parameters())
    }
    y = (own.features.table_IF.detach().numpy() @ weight["inner_HF"].T) @ weight["outer_DH"].T
    seen = np.concatenate([y @ weight[f"views.{b}.tap_TCC"][0].T for b in range(4)], 1)
    mean = normalised(y @ weight["mean_CC"].T, dream.mean_norm)
    every = np.maximum(np.concatenate((normalised(seen, dream.view_norm), mean), 1), 0)
    inner = np.maximum(every @ weight["channel.inner_HK"].T, 0)
    channel = sigmoid(inner @ weight["channel.outer_KH"].T)
    spatial = sigmoid(every.mean(1, keepdims=True) * weight["spatial.read_1K"])
    weighed = np.maximum(every * channel, every * spatial)
    return np.maximum(normalised(weighed @ weight["out_CK"].T, dream.out_norm), 0)


def unit(x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length == 0, 1, length)


def dense_mmd(x: np.ndarray, y: np.ndarray, sigma: float) -> float:
    def mean(a: np.ndarray, b: np.ndarray) -> float:
        return np.exp(-np.square(a[:, None] - b).sum(2) / (2 * sigma**2)).mean()

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


def dense_infonce(x: np.ndarray, y: np.ndarray, tau: float) -> float:
    logit = x @ y.T / tau
    return (np.log(np.exp(logit).sum(1)) - np.diag(logit)).mean()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("names", [("text",), ("image", "text"), ("audio", "image", "text")])
def test_follows_the_description_for_any_number_of_modalities(names):
    model, data = built(names), tables(names)
    widest = max(data[name].values.shape[1] for name in names)
    assert {own.inner_HF.shape[0] for own in model.reduced} == {widest // 2}
    expected = [refined(model, m) for m in range(len(names))]
    found, _ = model.train_refined()
    for one, other in zip(found, expected, strict=True):
        assert_like(one.detach(), other)

    kept = torch.rand(len(names), 8, 8, generator=torch.Generator().manual_seed(5)) > 0.4
    item = model.item_ID.detach().numpy()
    purified = []
    for m, x in enumerate(expected):
        normal = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        normal = normal * model.norm.weight.detach().numpy() + model.norm.bias.detach().numpy()
        gate = model.gates[m].map
        logit = (kept[m].numpy() * normal / 0.8) @ gate.weight.detach().numpy().T
        purified.append(item * sigmoid(logit + gate.bias.detach().numpy()))
    for one, other in zip(model.purified(found, kept), purified, strict=True):
        assert_like(one.detach(), other)

    terms = model.losses(nodes_of(batch_of(ROWS), 8, kept=kept)).terms
    if len(names) == 1:
        assert terms.keys() == {"bpr", "reg"}
    else:
        rows = [unit(x)[ROWS["batch"]["positives"]] for x in expected]
        pairs = list(combinations(rows, 2))
        assert_like(terms["mmd"].detach(), 0.15 * sum(dense_mmd(*pair, 0.7) for pair in pairs))
        contrast = sum(dense_infonce(a, b, 0.5) + dense_infonce(b, a, 0.5) for a, b in pairs) / 2
        assert_like(terms["contrast"].detach(), 0.01 * contrast)
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.usefixtures("float64")
def test_several_kernels_are_averaged():
    model = built(("image", "text"), more_bandwidths=[0.2, 3.0], mmd_weight=1.0)
    rows = [unit(refined(model, m))[ROWS["batch"]["positives"]] for m in range(2)]
    expected = np.mean([dense_mmd(*rows, sigma) for sigma in (0.7, 0.2, 3.0)])
    assert_like(model.losses(nodes_of(batch_of(ROWS), 8)).terms["mmd"].detach(), expected)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variant", ["described", "released"])
def test_one_modality_has_its_content_as_side(variant):
    model = built(("text",), variant=variant)
    (purified,) = model.purified(model.refined())
    _, side = model.behaviour_and_side([purified])
    (graph,) = model.views.item_graphs
    spread = torch.zeros(8, 8, dtype=torch.float64)
    spread[graph.row_E, graph.column_E] = graph.weight_E
    assert_like(side[6:].detach(), (spread @ purified).detach())


def test_a_third_modality_is_drawn_towards_the_others():
    """Steps against MMD alone bring all three distributions nearer."""
    model = built(("audio", "image", "text"), mmd_weight=5.0, dropout=0.0)
    batch = nodes_of(batch_of(ROWS), 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    course = []
    for _ in range(8):
        term = model.losses(batch).terms["mmd"]
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
        course.append(float(term.detach()))
    assert course[-1] < 0.5 * course[0]


# --- what the options do


@pytest.mark.parametrize(
    ("variant", "names", "reduction", "widths"),
    [
        ("described", ("image", "text"), 4, {"image": 2, "text": 2}),
        ("described", ("image", "text"), 1, {"image": 10, "text": 10}),
        ("described", ("text",), 7, {"text": 1}),
        ("described", ("image", "text"), 0, {}),
        ("released", ("image", "text"), 3, {"image": 3}),
        ("released", ("audio", "text"), 3, {"text": 2}),
    ],
)
def test_what_is_reduced_and_how_far(variant, names, reduction, widths):
    model = built(names, variant=variant, reduction=reduction)
    found = dict(zip(sorted(names), model.reduced, strict=True))
    for name, own in found.items():
        if name in widths:
            assert own.inner_HF.shape == (widths[name], tables(names)[name].values.shape[1])
            assert own.outer_DH.shape == (8, widths[name])
        else:
            assert own.inner_HF is None
            assert own.outer_DH.shape == (8, tables(names)[name].values.shape[1])


@pytest.mark.parametrize("variant", ["described", "released"])
def test_a_reduction_that_leaves_nothing_is_refused(variant):
    with pytest.raises(
        ValueError, match="reduction=11 leaves nothing of the 10 columns of 'image'"
    ):
        built(("image", "text"), variant=variant, reduction=11)


def test_a_shape_that_does_not_hold_the_width_is_refused():
    with pytest.raises(ValueError, match=r"spatial_shape \(1, 2, 2\) does not fit dim=8"):
        built(("image",), spatial_shape=(1, 2, 2))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variant", ["described", "released"])
def test_dilations_decide_scores_on_real_maps_alone(variant):
    def scores(**changes) -> Tensor:
        model = built(("image", "text"), variant=variant, **changes)
        for _ in range(2):
            step_on(model)
        with torch.no_grad():
            return model.score(*model.embeddings())

    def step_on(model: MambaRecModel) -> None:
        _, buffers = model.losses(nodes_of(batch_of(ROWS), 8))
        known = dict(model.named_buffers())
        for name, value in buffers.items():
            known[name].copy_(value)

    assert torch.equal(scores(), scores(dilations=(1, 2, 3)))
    shape = {"spatial_shape": (2, 2, 2)}
    assert torch.equal(scores(**shape), scores(**shape, dilations=(2, 2, 2)))
    assert (scores(**shape) - scores(**shape, dilations=(1, 2, 3))).abs().max() > 1e-6


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variant", ["described", "released"])
def test_lanes_of_real_maps_agree_with_solo_runs(variant):
    changes = {"dim": 8, "reduction": 2, "spatial_shape": (2, 2, 2), "dilations": (1, 3)}
    cfg = override(MambaRec(variant=variant), changes)
    assert_lanes_agree_with_solo_runs(cfg, own_batches=True)


def test_dropout_leaves_its_share_and_is_drawn_by_epoch():
    model = built(("image", "text"), dropout=0.3)
    pairs = TrainingPairs.of(problem(CASE))

    def kept(seed: int, epoch: int) -> Tensor:
        drawn = model.epoch_batches(pairs, Draws(seed), epoch, BatchShape(1, 1))
        return torch.stack([batch.extra["kept"] for batch in drawn])

    masks = kept(0, 0)
    assert masks.shape[1:] == (2, 8, 8)
    share = 0.7
    assert float(masks.double().mean()) == pytest.approx(
        share, abs=4 * (share * (1 - share) / masks.numel()) ** 0.5
    )
    assert torch.equal(masks, kept(0, 0))
    assert not torch.equal(masks, kept(0, 1))
    assert not torch.equal(masks[0], masks[1])
    none = built(("image", "text"), dropout=0.0)
    (batch, *_) = none.epoch_batches(pairs, Draws(0), 0, BatchShape(4, 1))
    assert "kept" not in batch.extra


def test_needs_a_modality():
    with pytest.raises(ValueError, match="MambaRec needs at least a modality"):
        MambaRec().build(problem(CASE), torch.Generator())
