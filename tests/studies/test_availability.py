"""What the availability study plans and claims, for the words on its command line."""

from collections import Counter
from pathlib import Path

import pytest

from mmrec.cli import load_study
from mmrec.config import get
from mmrec.study.study import Asked, Study
from mmrec.study.trials import Setting

STUDY = load_study(Path(__file__).parents[2] / "studies" / "availability.py")
FIVE = {"audio", "genres", "image", "interactions", "text"}
SETTING = Setting(data="00ff", split="random", protocol="full", device="cpu")


def shaped(
    dataset: str = "planted-five",
    have: tuple[str, ...] = ("audio", "genres", "image", "text"),
    **words: str,
) -> Study:
    chosen = {choice.name: choice.default for choice in STUDY.choices}
    chosen |= {name: tuple(value.split(",")) for name, value in words.items()}
    return STUDY.on(Asked(dataset, (), chosen, features=have))


def left(study: Study) -> list[frozenset[str]]:
    """What the conditions beside the first leave of the five."""
    return [frozenset(FIVE - set(c.missing)) for c in study.conditions[1:]]


def test_all_is_every_subset_but_all_and_none():
    found = left(shaped(subsets="all"))
    assert len(found) == len(set(found)) == 2**5 - 2
    assert Counter(map(len, found)) == {4: 5, 3: 10, 2: 10, 1: 5}


def test_by_default_every_modality_is_left_equally_often_in_every_size():
    found = left(shaped())
    assert len(set(found)) == 20
    for size in (1, 2, 3, 4):
        subsets = [names for names in found if len(names) == size]
        assert Counter(name for names in subsets for name in names) == dict.fromkeys(FIVE, size)


def test_what_is_met_at_evaluation_starts_from_what_was_trained():
    study = shaped()
    planned = study.plan(study.cells(), range(2), SETTING)
    trained = {p.hash: p for p in planned if not p.trial.condition.missing}
    assert len(trained) == 2 * len(study.arms)  # one training an arm and seed, no more
    for one in planned:
        if one.trial.condition.missing:
            parent = trained[one.parent]
            assert (parent.arm, parent.trial.seed) == (one.arm, one.trial.seed)


def test_branches_know_the_interactions_and_baselines_have_them_anyway():
    arms = shaped(models="SiBraR SC,VBPR,DropoutNet,CLCRec").arms
    assert set(get(arms["SiBraR SC"], "model.modalities")) == FIVE
    for label in ("VBPR", "DropoutNet"):
        assert get(arms[label], "model.modalities") == ("audio", "genres", "image", "text")
    assert get(arms["CLCRec"], "model.modality") == "text"


def test_only_sc_has_its_contrast_set():
    arms = shaped().arms
    alpha = {label: get(run, "model.alpha") for label, run in arms.items() if "BraR" in label}
    assert {label for label, value in alpha.items() if value == 1e-3} == {"SiBraR SC", "MuBraR SC"}


def test_claims_need_their_arms():
    words = [claim.text for claim in shaped(models="MuBraR,MuBraR S").claims]
    assert words == [
        "MuBraR, without sampling, falls steeply: one modality keeps less than half",
        "With all modalities sampling helps MuBraR",
    ]
    assert len(shaped().claims) == 8
    assert "0.1124 and 0.0921" in shaped().claims[3].source


def test_on_music_the_tags_as_text_are_left_out():
    study = shaped("lfm2k", ("tags", "tagtext", "text", "vggish", "whisper"))
    assert {name for c in study.conditions for name in c.missing} == {
        "interactions", "tags", "text", "vggish", "whisper",
    }  # fmt: skip


def test_a_dataset_without_features_is_refused():
    with pytest.raises(ValueError, match=r"'baby' has no item feature at all; it has: none"):
        shaped("baby", ())
    with pytest.raises(ValueError, match="has no item feature genres; it has: text"):
        shaped("ml-1m", ("text",))
