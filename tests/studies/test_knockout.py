"""What the knockout study plans and claims, for the words on its command line."""

from pathlib import Path

import pytest

from mmrec.cli import load_study
from mmrec.config import get
from mmrec.study.study import Asked, Study

STUDY = load_study(Path(__file__).parents[2] / "studies" / "knockout.py")


def shaped(
    dataset: str = "planted", have: tuple[str, ...] = ("image", "text"), **words: str
) -> Study:
    chosen = {choice.name: choice.default for choice in STUDY.choices}
    chosen |= {name.replace("_", "-"): tuple(value.split(",")) for name, value in words.items()}
    return STUDY.on(Asked(dataset, have, chosen))


def test_by_default_fourteen_models_meet_four_conditions_and_two_controls_stand_by():
    study = shaped()
    names = [c.name for c in study.conditions]
    assert names == ["baseline", "image=noise", "text=noise", "image+text=noise"]
    cells = study.cells()
    assert len(cells) == 14 * 4 + 2
    assert {c.condition.name for c in cells if c.phase == "control"} == {"baseline"}
    assert set(study.groups) == set(study.arms)


def test_no_arm_trains_its_features_unless_asked():
    frozen = [
        get(run, "model.train_features") for run in shaped(models="FREEDOM,VBPR").arms.values()
    ]
    assert frozen == [False, False]
    both = shaped(models="FREEDOM,VBPR", train_features="released,frozen").arms
    features = {label: get(run, "model.train_features") for label, run in both.items()}
    # VBPR's release does not train them: its two readings are one.
    assert features == {"FREEDOM": True, "FREEDOM frozen": False, "VBPR": False}


def test_readings_of_a_model_stand_beside_each_other():
    arms = shaped(models="VBPR,FREEDOM", variant="released,described", gates="off,on").arms
    assert list(arms) == [
        "VBPR", "VBPR gated", "VBPR described", "VBPR described gated", "FREEDOM", "FREEDOM gated",
    ]  # fmt: skip
    assert get(arms["VBPR described"], "model.variant") == "described"
    assert get(arms["FREEDOM gated"], "model.gate_modalities") is True


def topics(study: Study) -> list[str]:
    return list(dict.fromkeys(claim.topic for claim in study.claims if claim.topic))


def test_claims_are_made_of_the_conditions_that_are_planned():
    assert topics(shaped()) == [
        "text knockout hurts",
        "image knockout changes nothing",
        "with all modalities knocked out it ranks below LightGCN",
    ]
    assert topics(shaped(conditions="text")) == ["text knockout hurts"]
    assert "the result depends on the filler" in topics(shaped(fillers="noise,zero"))
    adapts = "training with the text knockout is better than meeting it at evaluation"
    assert adapts in topics(shaped(when="train+eval,eval"))
    grouped = [claim.text for claim in shaped().claims if not claim.topic]
    assert len(grouped) == 2
    assert not [c for c in shaped(models="VBPR,BM3").claims if not c.topic]


def test_on_music_the_claim_is_about_audio_and_its_two_tables_go_together():
    study = shaped("lfm2k", ("tagtext", "text", "vggish", "whisper"), conditions="subsets")
    assert topics(study)[1] == "audio knockout changes nothing"
    claim = next(c for c in study.claims if c.topic.startswith("audio"))
    assert claim.test.cell.conditions["condition"] == "vggish+whisper=noise"
    assert {get(run, "model.modalities") for run in study.arms.values()} == {
        ("text", "vggish", "whisper")
    }


def test_a_dataset_without_such_modalities_is_refused():
    with pytest.raises(ValueError, match=r"'baby' has no dense modality at all; it has: none"):
        shaped("baby", ())
    with pytest.raises(ValueError, match="has no dense modality video; it has: image, text"):
        shaped(modalities="video")


@pytest.mark.parametrize(
    ("dataset", "said"),
    [("planted-text", "synthetic here"), ("lfm2k", "audio stands here"), ("baby", "NDCG@10")],
)
def test_a_claim_says_what_stands_in_for_images(dataset, said):
    study = shaped(dataset, ("image", "text", "vggish", "whisper"))
    assert {claim.source.endswith(said) for claim in study.claims} == {True}
