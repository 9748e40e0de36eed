"""What is left of the ranking when modalities are missing at inference, from all to one?

Ganhoer et al. (TORS 2025) train on everything and take modalities away afterwards: where weights
are shared, training samples modalities and a contrastive loss draws them together, most of the
ranking stays; with a branch for each modality and no sampling it falls. Which modalities go first
is not said there. Here the trained models of each seed meet subsets of every size, the interactions
among them, and the mean over the subsets of a size is judged, beside the spread.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

from mmrec.cli import main
from mmrec.data.conditions import Condition
from mmrec.data.dataset import INTERACTIONS
from mmrec.study import branches
from mmrec.study.arms import arm
from mmrec.study.averages import Drops, Holds, MeanBetter, RetainsMore
from mmrec.study.branches import CONTENTS, CONTRAST, LABELS, LARGE, SMALL, branch_arms
from mmrec.study.claims import Better, Claim, Where
from mmrec.study.study import Asked, Choice, Study
from mmrec.study.tuning import Tuning
from mmrec.study.views import Availability, BeyondAccuracy
from mmrec.training import RunConfig, TrainConfig

PAPER = "Ganhoer et al., TORS 2025, Music4All-Onion, NDCG@10"
ONE_LEFT = {"SiBraR SC": 0.1124, "MuBraR SC": 0.0921, "SiBraR S": 0.0846, "MuBraR S": 0.0572}
"""Arm -> what the paper has with one modality left, the best first."""
BASELINES = {
    "BPR-MF": "BPR",
    "VBPR": "VBPR",
    "DropoutNet": "DropoutNet",
    "CLCRec": "CLCRec",
    "Popularity": "Popularity",
    "Random": "RandomRanking",
}
"""Arm -> model; all of them can be asked without the interactions of their items."""
MODELS = (*LABELS, "BPR-MF", "VBPR", "Random")
SMOKE = ("SiBraR SC", "MuBraR", "BPR-MF", "Random")
TRAIN = replace(branches.TRAIN, lr=7e-3, batch_size=1024)
TRAINS = {name: replace(train, lr=7e-3) for name, train in branches.TRAINS.items()}
"""Faster than in the sister studies, as so many arms are trained here."""


def shape(study: Study, asked: Asked) -> Study:
    """Arms and conditions for this dataset's modalities.

    Raises:
        ValueError: the dataset has no such item feature, or none at all.
    """
    contents = CONTENTS.get(asked.dataset, asked.features)
    lacking = [name for name in contents if name not in asked.features]
    if lacking or not contents:
        raise ValueError(
            f"dataset {asked.dataset!r} has no item feature {', '.join(lacking) or 'at all'};"
            f" it has: {', '.join(asked.features) or 'none'}"
        )
    train, large = TRAINS.get(asked.dataset, TRAIN), asked.dataset in TRAINS
    modalities = tuple(sorted((*contents, INTERACTIONS)))
    knobs = {**(LARGE if large else SMALL), **CONTRAST, "modalities": modalities}
    chosen = asked.choices["models"]
    arms = branch_arms(train, knobs, [label for label in LABELS if label in chosen])
    for label in chosen:
        if label in BASELINES:
            arms[label] = baseline(label, train, contents, large)
    return replace(
        study,
        base=next(iter(arms.values())),
        arms=arms,
        groups={label: group(label) for label in arms},
        conditions=tuple(conditions(modalities, asked.choices["subsets"])),
        claims=tuple(claims(modalities, arms)),
    )


def baseline(label: str, train: TrainConfig, contents: Sequence[str], large: bool) -> RunConfig:
    """A model that the paper compares with, or a control."""
    one = "text" if "text" in contents else contents[0]
    own = {"modalities": tuple(contents), "modality": one, "dim": 64 if large else 32}
    return arm(BASELINES[label], train, own)


def group(label: str) -> str:
    """Under which heading the report shows an arm."""
    if label in BASELINES:
        return "baselines"
    return "one branch" if label.startswith("SiBraR") else "a branch for each modality"


def subsets(modalities: Sequence[str], which: str) -> Iterator[tuple[str, ...]]:
    """What is left, from all but one modality to one.

    `all` is every subset; `sizes` only those of neighbours on a circle, as many of each size as
    there are modalities, so that in every size all modalities are left equally often; `one` the
    single modalities.
    """
    count = len(modalities)
    for size in (1,) if which == "one" else range(count - 1, 0, -1):
        if which == "all":
            yield from combinations(modalities, size)
            continue
        for first in range(count):
            yield tuple(modalities[(first + step) % count] for step in range(size))


def conditions(modalities: Sequence[str], which: Sequence[str]) -> Iterator[Condition]:
    """All modalities, then the subsets asked for."""
    yield Condition()
    for left in subsets(modalities, which[0]):
        yield without(modalities, left)


def without(modalities: Sequence[str], left: Sequence[str]) -> Condition:
    """Only `left` are there at evaluation."""
    return Condition(missing=tuple(m for m in modalities if m not in left), when="eval")


def claims(modalities: Sequence[str], arms: Collection[str]) -> Iterator[Claim]:
    """What the paper says, where the arms of a claim are all there."""
    one = {name: without(modalities, (name,)).name for name in modalities}
    unseen = tuple(condition for name, condition in one.items() if name != INTERACTIONS)

    def of(label: str, conditions: Sequence[str] = tuple(one.values())) -> Where:
        return Where({"arm": label, "condition": tuple(conditions)})

    def whole(label: str) -> Where:
        return of(label, ("baseline",))

    def kept(label: str) -> tuple[Where, Where]:
        return of(label), whole(label)

    single, multi = "SiBraR SC", "MuBraR"
    said = [
        (
            f"With one modality left {single} keeps a larger share of its ranking than {multi}",
            PAPER,
            (single, multi),
            RetainsMore(*kept(single), *kept(multi)),
        ),
        (
            f"{multi}, without sampling, falls steeply: one modality keeps less than half",
            PAPER,
            (multi,),
            Drops(*kept(multi)),
        ),
        (
            f"{single} holds: one modality keeps more than half",
            f"{PAPER}: .1717 with all, .1124 with one left",
            (single,),
            Holds(*kept(single)),
        ),
        *(
            (
                f"With one modality left {better} ranks above {worse}",
                f"{PAPER} with one left: {ONE_LEFT[better]} and {ONE_LEFT[worse]}",
                (better, worse),
                MeanBetter(of(better), than=of(worse)),
            )
            for better, worse in pairwise(ONE_LEFT)
        ),
        (
            "With all modalities sampling helps MuBraR",
            f"{PAPER}: MuBraR .1259, MuBraR S .1586",
            ("MuBraR S", "MuBraR"),
            Better(whole("MuBraR S"), than=whole("MuBraR")),
        ),
        (
            f"With one content and no interactions left {single} ranks above a random list",
            PAPER,
            (single, "Random"),
            MeanBetter(of(single, unseen), than=of("Random", unseen)),
        ),
    ]
    for words, source, named, test in said:
        if all(label in arms for label in named):
            yield Claim(words, source, test)


STUDY = Study(
    name="availability",
    question="What is left of the ranking when modalities are missing at inference?",
    base=branch_arms(TRAIN, {**SMALL, **CONTRAST}, ("SiBraR SC",))["SiBraR SC"],
    dataset="planted-five",
    shape=shape,
    tuning=Tuning(trials=4),
    choices=(
        Choice("models", "the arms", MODELS, (*LABELS, *BASELINES), smoke=SMOKE),
        Choice(
            "subsets",
            "what is left: all subsets, of each size as many as there are modalities, or one",
            ("sizes",),
            ("sizes", "all", "one"),
            smoke=("one",),
        ),
    ),
    views=(Availability(), BeyondAccuracy(against="BPR-MF")),
    seeds=5,
    smoke={"train.epochs": 2},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
