"""Are the images, or the text, used at all?

Ye et al. (arXiv 2508.07399) replace the features of one or both modalities by noise and train
fourteen models again: text matters to graph models, images hardly, concatenation models use
neither. Theirs is one seed, tables that some models go on training, and a new random split in
every condition. Here a table stays what the condition makes it (unless `--train-features released`
asks otherwise), split, negatives and seeds are the same in all conditions, every arm has the same
number of tuning trials, and two models without features stand beside them.
"""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

from mmrec.cli import main
from mmrec.data.conditions import Filler
from mmrec.study.arms import arm, as_released, knocked_sets, knockouts, variants
from mmrec.study.claims import Better, Claim, ClaimTest, Equivalent, Where, Worse
from mmrec.study.contrasts import DependsOnFiller, MoreAffected
from mmrec.study.study import Asked, Choice, Study
from mmrec.study.tuning import Tuning
from mmrec.study.views import ARM_VIEWS, Published
from mmrec.training import TrainConfig

GROUPS = {
    "VBPR": "concatenation",
    "BM3": "concatenation",
    "SLMRec": "concatenation",
    "MMGCN": "user-item graphs",
    "GRCN": "user-item graphs",
    "DualGNN": "user-item graphs",
    "LGMRec": "user-item graphs",
    "LATTICE": "item-item graphs",
    "FREEDOM": "item-item graphs",
    "MGCN": "both graphs",
    "DRAGON": "both graphs",
    "DAMRS": "both graphs",
    "PGL": "both graphs",
    "SMORE": "both graphs",
}
"""The paper's; members that it does not name are placed by what they do."""
MODELS = tuple(GROUPS)
PAPER = "Ye et al., arXiv 2508.07399, appendix tables 4 to 9: NDCG@10"
MODALITIES = {"lfm2k": ("text", "vggish", "whisper")}
"""Dataset -> the modalities of the study, where it has more than these: its tags and the tags as
text say the same as one another."""
AUDIO = {"lfm2k": "audio"}
"""Dataset -> what stands in for images there."""
TRAIN = TrainConfig(epochs=100, patience=10, batch_size=512)
TRAINS = {"lfm2k": TrainConfig(epochs=50, patience=5)}


def shape(study: Study, asked: Asked) -> Study:
    """Arms, conditions and claims for the words on the command line and this dataset."""
    chosen = asked.choices
    modalities = used(asked)
    train = TRAINS.get(asked.dataset, TRAIN)
    arms = {}
    for name in chosen["models"]:
        for label, knobs in readings(name, chosen):
            run = arm(name, train, {**knobs, "modalities": modalities})
            if run not in arms.values():
                arms[label] = run
    conditions = knockouts(
        knocked_sets(modalities, chosen["conditions"]), chosen["fillers"], chosen["when"]
    )
    shaped = replace(
        study,
        arms=arms,
        groups={label: GROUPS[label.split()[0]] for label in arms},
        conditions=conditions,
        controls={"LightGCN": arm("LightGCN", train), "BPR-MF": arm("BPR", train)},
    )
    return replace(shaped, claims=tuple(claims(shaped, asked)))


def used(asked: Asked) -> tuple[str, ...]:
    """The modalities that the models get, by alphabet.

    Raises:
        ValueError: the dataset has no such modality, or none.
    """
    wanted = asked.choices["modalities"] or MODALITIES.get(asked.dataset, asked.modalities)
    missing = [name for name in wanted if name not in asked.modalities]
    if missing or not wanted:
        raise ValueError(
            f"dataset {asked.dataset!r} has no dense modality {', '.join(missing) or 'at all'};"
            f" it has: {', '.join(asked.modalities) or 'none'}"
        )
    return tuple(sorted(wanted))


def readings(name: str, chosen: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(label, knobs) of a model's arms; the first reading of each has no word after the name."""
    asked = itertools.product(chosen["variant"], chosen["train-features"], chosen["gates"])
    for variant, features, gates in asked:
        if variant not in variants(name):
            continue
        released = bool(as_released(name, "train_features"))
        words = [name]
        words += ["described"] * (variant == "described")
        words += ["frozen"] * (
            features == "frozen" and len(chosen["train-features"]) > 1 and released
        )
        words += ["gated"] * (gates == "on")
        knobs = {"variant": variant, "gate_modalities": gates == "on"}
        yield " ".join(words), {**knobs, "train_features": released and features == "released"}


def claims(study: Study, asked: Asked) -> Iterator[Claim]:
    """What the paper says, arm by arm and then by group, where the conditions let it be tested."""
    names = {condition.name for condition in study.conditions}
    for topic, needs, test in topics(asked):
        if needs <= names:
            for label in study.arms:
                yield Claim(f"{label}: {topic}", source(asked), test(label), topic, label)
    plain = tuple(label for label in study.arms if study.groups[label] == "concatenation")
    graph = tuple(label for label in study.arms if label not in plain)
    for knocked in (("text",), used(asked)):
        condition = knockout(asked, knocked)
        if plain and graph and condition in names:
            words = f"graph models use features more than concatenation models: {condition}"
            test = MoreAffected(graph, than=plain, condition=condition)
            yield Claim(words, source(asked), test)


def source(asked: Asked) -> str:
    """Who says so, and what stands in here for what they speak of."""
    if asked.dataset.startswith("planted"):
        return f"{PAPER}; images and texts are synthetic here"
    if asked.dataset in AUDIO:
        return f"{PAPER}; of images, for which {AUDIO[asked.dataset]} stands here"
    return PAPER


Topic = tuple[str, set[str], Callable[[str], ClaimTest]]
"""What is claimed, the conditions that it needs, and its test for an arm."""


def topics(asked: Asked) -> Iterator[Topic]:
    """The claims about single arms."""
    base, modalities = "baseline", used(asked)
    others = tuple(name for name in modalities if name != "text")
    text, every = knockout(asked, ("text",)), knockout(asked, modalities)

    def of(arm: str, condition: str) -> Where:
        return Where({"arm": arm, "condition": condition})

    yield (
        "text knockout hurts",
        {text},
        lambda arm: Worse(of(arm, text), than=of(arm, base)),
    )
    if others:
        second = knockout(asked, others)
        yield (
            f"{AUDIO.get(asked.dataset, ' and '.join(others))} knockout changes nothing",
            {second},
            lambda arm: Equivalent(of(arm, second), than=of(arm, base)),
        )
    yield (
        "with all modalities knocked out it ranks below LightGCN",
        {every},
        lambda arm: Worse(of(arm, every), than=Where(label="LightGCN")),
    )
    if len(asked.choices["fillers"]) > 1:
        yield (
            "the result depends on the filler",
            {every},
            lambda arm: DependsOnFiller(arm, "+".join(modalities), when=asked.choices["when"][0]),
        )
    trained, met = (knockout(asked, ("text",), when) for when in ("train+eval", "eval"))
    yield (
        "training with the text knockout is better than meeting it at evaluation",
        {trained, met},
        lambda arm: Better(of(arm, trained), than=of(arm, met)),
    )


def knockout(asked: Asked, knocked: tuple[str, ...], when: str | None = None) -> str:
    """The name of a condition, under the first filler and, unless given, the first `when`."""
    fillers, whens = asked.choices["fillers"], asked.choices["when"]
    return knockouts([knocked], fillers[:1], [when or whens[0]])[1].name


STUDY = Study(
    name="knockout",
    question="Are the images, or the text, used at all?",
    base=arm("VBPR", TRAIN),
    shape=shape,
    tuning=Tuning(trials=20),
    choices=(
        Choice("models", "the models", MODELS, MODELS),
        Choice(
            "conditions", "what is knocked out: each, pairs, all, subsets, or a+b", ("each", "all")
        ),
        Choice("fillers", "what replaces it", ("noise",), get_args(Filler)[1:]),
        Choice("when", "replaced when", ("train+eval",), ("train+eval", "eval")),
        Choice("variant", "reading of the models", ("released",), ("released", "described")),
        Choice(
            "train-features",
            "the feature tables: frozen, or trained where the release does",
            ("frozen",),
            ("frozen", "released"),
        ),
        Choice("gates", "a learned gate before each modality", ("off",), ("off", "on")),
        Choice("modalities", "which modalities the models get", ()),
    ),
    views=(*ARM_VIEWS, Published("knockout")),
    seeds=5,
    smoke={"train.epochs": 5},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
