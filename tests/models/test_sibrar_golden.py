"""SiBraR against its released code: six configurations, three samplings, both ways to compute."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrec.data.dataset import Category, Dataset, Dense, Feature, Tags
from mmrec.models.sibrar import SiBraR, SiBraRModel
from tests.models.golden import assert_like, assert_norm, batch_of, filled, golden, problem

RECORD = golden("sibrar")
CASES = RECORD["cases"]
DETAIL = RECORD["detail"]["cases"]
SAMPLINGS = {
    "no_regularization": "single",
    "pairwise_single": "pairwise",
    "central_modality": "central",
}


def features() -> tuple[dict[str, Feature], dict[str, Feature]]:
    row, column = np.mgrid[:8, :10]
    image = np.sin(1 + 0.7 * row + 1.3 * column)
    extra = RECORD["detail"]["extra_data"]
    tags = extra["tags_per_item"]
    starts = np.cumsum([0, *map(len, tags)])
    items = np.ones(8, dtype=bool)
    item = {
        "image": Dense(items, image),
        "tags": Tags(items, starts, np.concatenate(tags), tuple("abcde")),
    }
    users = np.ones(6, dtype=bool)
    return item, {"gender": Category(users, np.array(extra["gender_per_user"]), ("f", "m"))}


def data_of(case: dict[str, Any], split: str = "given") -> Dataset:
    item, user = features()
    return problem(case, features=item, user_features=user, split=split)


def config_of(case: dict[str, Any], sampling: str) -> SiBraR:
    hyper = case["hyper"]
    plain = {"user_embedding": "embedding", "interactions": "interactions"}
    sides = {
        side: "branch" if "train_modalities" in hyper[side] else plain[hyper[side]["feature_name"]]
        for side in ("user", "item")
    }
    side = next(name for name, kind in sides.items() if kind == "branch")
    branch = hyper[side]
    return SiBraR(
        dim=hyper["shared_common_dim"],
        **sides,
        common_dim=branch["common_modality_dim"],
        feature_hidden=tuple(branch["feature_hidden_layers"].get("image", ())),
        hidden=tuple(branch["single_branch_hidden_layers"]),
        activation=branch["activation_fn"],
        output_activation=branch["apply_output_activation"],
        normalize_input=branch["normalize_single_branch_input"],
        input_dropout=0.0,
        batch_norm=branch["apply_batch_normalization"],
        batch_norm_every=branch["apply_batch_norm_every"],
        aggregation=branch["aggregation_fn"],
        sampling=sampling,
        alpha=branch["regularization_weight"],
        tau=branch["regularization_temperature"],
        user_alpha=branch["regularization_weight"],
        user_tau=branch["regularization_temperature"],
    )


RULES = [
    (r"(user|item)_embedding_module\.", r"\1."),
    (r"\.embedding_layer\.weight", ".table_ND"),
    (r"(user|item)\.pre_embedding_layers\.layers\.linear_0\.", r"\1.projection."),
    (r"\.pre_embedding_layers\.layers\.linear_", ".layers."),
    (r"sb_net\.1\.layers\.linear_", "branches.0.linears."),
    (r"sb_net\.1\.layers\.batch_norm_(\d)", lambda m: f"branches.0.norms.{int(m[1]) + 1}"),
    (r"sb_net\.2", "branches.0.norms.end"),
    (r"norms\.(\w+)\.weight", r"norms.\1.scale_D"),
    (r"norms\.(\w+)\.bias", r"norms.\1.shift_D"),
    (r"\.running_mean", ".mean_D"),
    (r"\.running_var", ".variance_D"),
    (r"modality_modules\.interactions\.layers\.0\.", "projections.0."),
    (r"modality_modules\.(image|gender)", "projections.1"),
    (r"modality_modules\.tags", "projections.2"),
    (r"(projection|projections\.0)\.weight", r"\1.weight_MC"),
    (r"(projection|projections\.0)\.bias", r"\1.bias_C"),
    (r"projections\.1\.table_ND", "projections.1.level_TC"),
    (r"projections\.2\.table_ND", "projections.2.tag_TC"),
]


def our_name(released: str) -> str:
    for pattern, ours in RULES:
        released = re.sub(pattern, ours, released)
    return released


def built(case: dict[str, Any], sampling: str, split: str = "given") -> SiBraRModel:
    model = config_of(case, sampling).build(data_of(case, split), torch.Generator())
    ours = dict(model.named_parameters())
    with torch.no_grad():
        for parameter in case["parameters"]:
            value, name = filled(parameter), our_name(parameter["name"])
            # Released: one more row of tags for padding, and W where we keep its transpose.
            value = value[:-1] if name.endswith("tag_TC") else value
            value = value.T if name.endswith("weight_MC") else value
            assert ours[name].shape == value.shape
            ours.pop(name).copy_(value)
    assert not ours
    return model


def drawn(model: SiBraRModel, train: dict[str, Any]) -> dict[str, Tensor]:
    """The recorded draws as indices into our fixed order."""
    extra = {}
    for side in ("user", "item"):
        if f"{side}_sampled_modalities" in train:
            names = getattr(model, side).names
            table = np.array(train[f"{side}_sampled_modalities"])
            extra[f"{side}_modalities"] = torch.from_numpy(np.vectorize(names.index)(table))
    return extra


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("path", ["table", "stack"])
@pytest.mark.parametrize("mode", SAMPLINGS)
@pytest.mark.parametrize("name", CASES)
def test_a_training_step(name, mode, path):
    case, train = CASES[name], DETAIL[name]["train"][mode]
    model = built(case, SAMPLINGS[mode])
    side_name = "user" if model.cfg.user == "branch" else "item"
    getattr(model, side_name).path = path
    batch = batch_of(case, **drawn(model, train))

    user = model.user.encode(batch.user, batch.extra.get("user_modalities"))
    items = torch.cat((batch.positive[:, None], batch.negative), 1)
    item = model.item.encode(items, batch.extra.get("item_modalities"))
    assert_like((user.embedding[:, None] * item.embedding).sum(-1).detach(), train["train_scores"])

    terms, buffers = model.losses(batch)
    assert_like(terms["bpr"].detach(), train["bpr"])
    if mode == "no_regularization":
        assert list(terms) == ["bpr"]
    else:
        expected = train["weighted_reg"][f"{side_name}_reg_loss"]
        assert_like(terms[f"{side_name}_infonce"].detach(), expected)
        assert len(terms) == 2
    total = torch.stack(list(terms.values())).sum()
    assert_like(total.detach(), train["total"])

    total.backward()
    ours = dict(model.named_parameters())
    assert len(train["grad_norms"]) == len(ours)
    for released, norm in train["grad_norms"].items():
        assert_norm(ours[our_name(released)].grad, norm)

    assert {our_name(released) for released in train["bn_after"]} == set(buffers)
    for released, value in train["bn_after"].items():
        assert_like(buffers[our_name(released)], value)
    if "eval_after_one_forward" in train:
        model.load_state_dict(buffers, strict=False)
        after = train["eval_after_one_forward"]
        with torch.no_grad():
            user_table, item_table = model.embeddings()
        assert_like(user_table, after["user_repr"])
        assert_like(item_table, after["item_repr"])
        assert_like(model.score(user_table, item_table), after["scores"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_scoring_with_any_subset_of_modalities(name):
    record = DETAIL[name]["eval_fresh_bn"]
    model = built(CASES[name], "pairwise")
    user, item = model.embeddings()
    assert_like(user, record["all"]["user_repr"])
    assert_like(item, record["all"]["item_repr"])
    assert_like(model.score(user, item), record["all"]["scores"])
    subsets = [key for key in record if key != "all"]
    assert len(subsets) >= 2
    for key in subsets:
        side, _, names = key.split(":")
        wanted = names.split("+")
        table = getattr(model, f"{side}_embeddings")(wanted)
        assert_like(table, record[key]["repr"])
        scores = model.score(table, item) if side == "user" else model.score(user, table)
        assert_like(scores, record[key]["scores"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_interactions_are_left_out_on_the_cold_side(name):
    split = "cold-user" if config_of(CASES[name], "single").user == "branch" else "cold-item"
    model = built(CASES[name], "pairwise", split)
    scores = model.score(*model.embeddings())
    assert_like(scores, DETAIL[name]["eval_cold_flags"]["scores"])
