"""Arms and conditions by the words of a command line."""

import pytest

from mmrec.config import get
from mmrec.study.arms import arm, as_released, knocked_sets, knockouts, variants
from mmrec.training import TrainConfig


def test_an_arm_trains_as_its_release_where_that_departs():
    train = TrainConfig(epochs=7, lr=5e-3)
    assert get(arm("MGCN", train), "train.lr_decay") == 0.96
    assert get(arm("DRAGON", train), "train.lr") == 1e-4
    assert arm("VBPR", train).train == train


def test_a_knob_goes_to_the_models_that_have_it():
    knobs = {"train_features": False, "modalities": ("text",)}
    assert get(arm("FREEDOM", TrainConfig(), knobs), "model.train_features") is False
    assert get(arm("FREEDOM", TrainConfig(), knobs), "model.modalities") == ("text",)
    assert arm("BPR", TrainConfig(), knobs) == arm("BPR", TrainConfig())
    with pytest.raises(KeyError, match=r"no model 'Freedom'; there are: .*FREEDOM"):
        arm("Freedom", TrainConfig())


def test_readings_and_released_values_are_read_off_the_model():
    assert variants("VBPR") == ("released", "described")
    assert variants("FREEDOM") == ("released",)
    assert variants("LightGCN") == ("released",)
    assert as_released("FREEDOM", "train_features") is True
    assert as_released("VBPR", "train_features") is False
    assert as_released("LightGCN", "train_features") is None


THREE = ("text", "vggish", "whisper")


@pytest.mark.parametrize(
    ("words", "sets"),
    [
        (["each"], [("text",), ("vggish",), ("whisper",)]),
        (["pairs"], [("text", "vggish"), ("text", "whisper"), ("vggish", "whisper")]),
        (["all"], [THREE]),
        (["whisper+text", "text"], [("text",), ("text", "whisper")]),
        (["each", "text"], [("text",), ("vggish",), ("whisper",)]),
    ],
)
def test_words_name_sets_of_modalities(words, sets):
    assert knocked_sets(THREE, words) == sets


def test_subsets_are_all_but_the_empty_one():
    assert len(knocked_sets(THREE, ["subsets"])) == 2**3 - 1


def test_a_word_that_is_no_modality_is_refused():
    with pytest.raises(ValueError, match=r"'text\+image': 'image' is no modality .* text, vggish"):
        knocked_sets(THREE, ["text+image"])


def test_every_set_meets_every_filler_and_the_baseline_comes_first():
    names = [c.name for c in knockouts([("text",), THREE], ["noise", "zero"], ["eval"])]
    assert names == [
        "baseline",
        "text=noise@eval",
        "text+vggish+whisper=noise@eval",
        "text=zero@eval",
        "text+vggish+whisper=zero@eval",
    ]
