"""Does it matter which encoder made a modality's features?

Ye et al. (arXiv 2508.07399) swap the image encoder (CNN features, ViT, captions by LLaVA) and find
mixed results, of one seed each. Here a modality takes the vectors of another encoder of the same
items, all else equal: on planted data of a worse one, so that the answer is known; on Last.fm text
of a description or of the tags, and audio of two networks.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

from mmrec.cli import main
from mmrec.data.conditions import Condition
from mmrec.study.arms import arm
from mmrec.study.claims import Claim, Where, Worse
from mmrec.study.study import Asked, Choice, Study
from mmrec.study.tuning import Tuning
from mmrec.training import TrainConfig

ENCODERS = {
    "planted-encoders": {"text": "text_b", "image": "image_b"},
    "lfm2k": {"text": "tagtext", "vggish": "whisper"},
}
"""Dataset -> modality -> the same modality by another encoder."""
MODELS = ("VBPR", "BM3", "SLMRec", "GRCN", "LATTICE", "FREEDOM", "MGCN", "PGL")
PAPER = "Ye et al., arXiv 2508.07399, appendix tables 10 and 11: NDCG@10, mixed results"
TRAIN = TrainConfig(epochs=100, patience=10, batch_size=512)
TRAINS = {"lfm2k": TrainConfig(epochs=50, patience=5)}


def shape(study: Study, asked: Asked) -> Study:
    """Every model with the first encoders, and with each modality's other one."""
    named = [pair.partition("=") for pair in asked.choices["swaps"]]
    swaps = {first: other for first, _, other in named} or ENCODERS.get(asked.dataset, {})
    if not swaps:
        raise ValueError(
            f"which features of {asked.dataset!r} are one modality by two encoders? Say --swaps"
            f" text=OTHER; it has: {', '.join(asked.modalities) or 'none'}"
        )
    train = TRAINS.get(asked.dataset, TRAIN)
    knobs = {"modalities": tuple(sorted(swaps)), "train_features": False}
    conditions = tuple(Condition(swap=(pair,)) for pair in swaps.items())
    return replace(
        study,
        arms={name: arm(name, train, knobs) for name in asked.choices["models"]},
        conditions=(Condition(), *conditions),
        controls={"LightGCN": arm("LightGCN", train)},
        claims=tuple(claims(asked.choices["models"], conditions)),
    )


def claims(models: tuple[str, ...], conditions: tuple[Condition, ...]) -> Iterator[Claim]:
    """Of each model and each modality: the other encoder ranks below the first."""
    for condition in conditions:
        ((modality, other),) = condition.swap
        topic = f"{other} ranks below {modality}"
        for name in models:
            swapped = Where({"arm": name, "condition": condition.name})
            first = Where({"arm": name, "condition": "baseline"})
            yield Claim(f"{name}: {topic}", PAPER, Worse(swapped, than=first), topic, name)


STUDY = Study(
    name="encoder_swap",
    question="Does it matter which encoder made a modality's features?",
    base=arm("VBPR", TRAIN),
    dataset="planted-encoders",
    shape=shape,
    tuning=Tuning(trials=20),
    choices=(
        Choice("models", "the models", MODELS),
        Choice("swaps", "MODALITY=OTHER, another feature for a modality", ()),
    ),
    seeds=5,
    smoke={"train.epochs": 5},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
