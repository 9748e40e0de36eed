"""What the cold-start study plans and claims, for a split and a dataset."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmrec.cli import load_study
from mmrec.config import get
from mmrec.study.study import Asked, Study

STUDY = load_study(Path(__file__).parents[2] / "studies" / "cold_start.py")
FIVE = Asked(
    "planted-five",
    ("audio", "image", "text"),
    {"models": (), "content": ()},
    ("audio", "genres", "image", "text"),
    ("age", "gender", "occupation"),
    "cold-item",
)


def shaped(asked: Asked = FIVE, **changes: Any) -> Study:
    return STUDY.on(replace(asked, **changes))


def values(study: Study, path: str) -> dict[str, object]:
    """A model's knob, by arm."""
    return {label: getattr(run.model, path, None) for label, run in study.arms.items()}


def test_by_default_items_are_new():
    assert STUDY.split == "cold-item"


def test_new_items_are_known_by_content_in_all_arms_and_users_by_history_alone():
    study = shaped()
    items = ("audio", "genres", "image", "text")
    assert values(study, "modalities") == {
        **dict.fromkeys(("SiBraR S", "SiBraR SC", "MuBraR", "MuBraR SC"), ("interactions", *items)),
        "DropoutNet": items, "VBPR content": items, "CLCRec": None, "CLCRec lambda": None,
    }  # fmt: skip
    assert get(study.arms["DropoutNet"], "model.user_modalities") == ()
    assert {get(study.arms[arm], "model.modality") for arm in ("CLCRec", "CLCRec lambda")} == {
        "text"
    }
    assert get(study.arms["VBPR content"], "model.free_factors") is False
    assert list(study.controls) == ["BPR-MF", "Popularity", "Random"]


def test_new_users_are_known_by_their_features_in_all_arms_and_vbpr_is_left_out():
    study = shaped(split="cold-user")
    users = ("age", "gender", "occupation")
    assert "VBPR content" not in study.arms
    for arm in ("SiBraR S", "SiBraR SC", "MuBraR", "MuBraR SC"):
        model: Any = study.arms[arm].model
        assert (model.user, model.item) == ("branch", "interactions")
        assert model.user_modalities == ("interactions", *users)
    assert get(study.arms["DropoutNet"], "model.user_modalities") == users
    assert get(study.arms["DropoutNet"], "model.modalities") == ()
    assert {get(study.arms[arm], "model.side") for arm in ("CLCRec", "CLCRec lambda")} == {"user"}
    # As released, the contrast of users is 0 whatever its weight.
    assert get(study.arms["CLCRec lambda"], "model.variant") == "described"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": "cold-user", "user_features": ()}, "'planted-five' has no features of its user"),
        ({"features": ()}, "'planted-five' has no features of its items"),
        ({"choices": {"models": (), "content": ("video",)}}, "items have no feature 'video'"),
        ({"choices": {"models": (), "content": ("text", "audio")}}, "one feature, got text, audio"),
        ({"choices": {"models": ("BRP",), "content": ()}}, "no arm 'BRP' in split 'cold-item'"),
    ],
    ids=["users", "items", "content", "contents", "arm"],
)
def test_what_cannot_work_is_refused_by_name(changes, said):
    with pytest.raises(ValueError, match=said):
        shaped(**changes)


def test_on_real_data_the_models_get_the_published_kinds_of_features():
    music = ("tags", "tagtext", "text", "vggish", "whisper")
    arm = shaped(dataset="lfm2k", features=music).arms["DropoutNet"]
    assert get(arm, "model.modalities") == ("tags", "text", "vggish", "whisper")
    films = shaped(dataset="ml-1m", features=("genres", "text", "title"))
    assert get(films.arms["DropoutNet"], "model.modalities") == ("genres", "text")
    sizes = [get(films.arms["SiBraR SC"], f"model.{name}") for name in ("dim", "common_dim")]
    assert sizes == [64, 128]
    assert {run.train.epochs for run in films.arms.values()} == {10}


def test_every_arm_that_trains_has_as_many_tries_and_a_weight_that_is_used_is_tuned():
    study = shaped()
    tried: dict[str, list] = {}
    for cell in study.tuning_cells():
        tried.setdefault(str(cell.levels["arm"]), []).append(cell.run)
    assert set(tried) == {*study.arms, "BPR-MF"}
    assert {len(runs) for runs in tried.values()} == {4}
    for arm, runs in tried.items():
        weights = {getattr(run.model, "content_weight", None) for run in runs}
        assert len(weights) == (4 if arm == "CLCRec lambda" else 1), arm


def test_the_papers_size_reaches_the_branches_and_its_loop_all_arms():
    study = shaped()
    paper = study.set(study.preset("paper"))
    hidden = {"SiBraR S", "SiBraR SC", "MuBraR", "MuBraR SC"}
    sized = values(paper, "hidden")
    assert {arm for arm, width in sized.items() if width == (512, 512, 512)} == hidden
    assert {arm for arm, width in sized.items() if width is not None} == hidden
    assert set(values(paper, "dim").values()) == {128}
    for run in (*paper.arms.values(), *paper.controls.values()):
        assert (run.train.batch_size, run.train.negatives, run.train.epochs) == (256, 10, 50)


@pytest.mark.parametrize(
    ("split", "topics"),
    [
        ("cold-item", {"ranks below SiBraR SC": 6}),
        ("cold-user", {"ranks below SiBraR SC": 4}),
        ("random", {"ranks below SiBraR SC": 3, "ranks above SiBraR SC": 3}),
    ],
)
def test_claims_are_those_of_the_split_about_arms_that_are_there(split, topics):
    study = shaped(split=split)
    named = [claim for claim in study.claims if claim.topic]
    assert {t: sum(c.topic == t for c in named) for t in {c.topic for c in named}} == topics
    planned = {*study.arms, *study.controls}
    assert {claim.arm for claim in named} <= planned
    fewer = shaped(split=split, choices={"models": ("SiBraR SC", "CLCRec"), "content": ()})
    assert {claim.arm for claim in fewer.claims} == {"CLCRec"}
