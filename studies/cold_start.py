"""Who ranks items, or users, that nobody has met?

Ganhoer et al. (RecSys 2024, TORS 2025) report SiBraR above DropoutNet and CLCRec for cold items and
cold users, from one seed each and settings from searches of different lengths; their CLCRec never
used the weight of its contrast. Here `--split` says who is new (cold-item, cold-user; random or
given for nobody), every arm has the same features, number of tuning trials and seeds, and CLCRec
stands twice, as released and with its weight put to use.

In a cold-item split users are known by their history alone and items by content, in a cold-user
split the other way round, in all models alike. There VBPR, whose users are rows of a table, is left
out, and CLCRec's contrast, which the release makes 0 for users, is put to use in the described
reading. BPR-MF is no model of anything unseen: its rows stay as they were drawn.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace

from mmrec.cli import main
from mmrec.config import override
from mmrec.data.dataset import INTERACTIONS
from mmrec.models.sibrar import SiBraR
from mmrec.study.arms import arm
from mmrec.study.branches import CONTENTS, CONTRASTIVE, branch_arms
from mmrec.study.claims import Better, Claim, Equivalent, NoWorse, Where, Worse
from mmrec.study.ranges import Range
from mmrec.study.study import Asked, Choice, Study
from mmrec.study.tuning import Tuning, learning_rate_and_regulariser
from mmrec.study.views import BeyondAccuracy, CellForest, Published, Verdicts
from mmrec.training import RunConfig, TrainConfig

BRANCHES = ("SiBraR S", "SiBraR SC", "MuBraR", "MuBraR SC")
BEST = "SiBraR SC"
ONE = {
    "item": {"planted-five": "text", "lfm2k": "text", "ml-1m": "text"},
    "user": {"planted-five": "occupation", "ml-1m": "gender"},
}
"""Side -> dataset -> the one feature that CLCRec takes: the best by validation in a cold split."""
CONTENT_WEIGHT = Range(1e-6, 1e-3, log=True)
"""Of CLCRec's contrast: what the authors searched, to no effect."""
SUPPLEMENT = "Ganhoer et al., RecSys 2024, supplement: Precision@10"
TORS = "Ganhoer et al., TORS 2025, as quoted in notes: NDCG@10"
RELEASE = "the released CLCRec: lambda_content is searched, stored and never used"
PRECISION = "test.precision@10"

# Weight and temperature of the contrasts: the best by validation of a few on planted-five.
BASE = RunConfig(
    model=SiBraR(
        dim=32,
        common_dim=64,
        hidden=(64, 64),
        input_dropout=0.0,
        alpha=1e-3,
        tau=0.33,
        user_alpha=1e-3,
        user_tau=0.33,
    ),
    train=TrainConfig(
        epochs=40, patience=5, optimizer="adamw", lr=3e-3, batch_size=512, negatives=4
    ),
)
REAL = override(
    BASE,
    {
        "model.dim": 64,
        "model.common_dim": 128,
        "model.hidden": (128, 128),
        "train.batch_size": 2048,
    },
)
LFM2K = override(REAL, {"train.epochs": 50})
ML_1M = override(REAL, {"train.epochs": 10, "train.patience": 2, "train.negatives": 1})
KNOBS = ("dim", "common_dim", "hidden", "input_dropout", *CONTRASTIVE)
"""Of the base, and of all single- and multi-branch arms."""
PAPER = {
    "model.dim": 128,
    "model.common_dim": 512,
    "model.hidden": (512, 512, 512),
    "model.input_dropout": 0.02,
    "train.epochs": 50,
    "train.patience": 5,
    "train.batch_size": 256,
    "train.negatives": 10,
}
"""SiBraR's released configuration, and its loop for all arms."""


def knobs(run: RunConfig) -> dict[str, Range]:
    """What is tuned: nothing of closed forms, and the weight of the contrast where it is in use."""
    if run.model.closed_form:
        return {}
    found = learning_rate_and_regulariser(run)
    if getattr(run.model, "content_weight", 1.0) != 1.0:
        found["model.content_weight"] = CONTENT_WEIGHT
    return found


def shape(study: Study, asked: Asked) -> Study:
    """Arms and claims for the split at hand."""
    cold_users = asked.split == "cold-user"
    items, users = used(asked)
    model, train = study.base.model, study.base.train
    width = {"dim": model.dim}  # pyright: ignore[reportAttributeAccessIssue] - a SiBraR
    branch = {name: getattr(model, name) for name in KNOBS}
    side = "user" if cold_users else "item"
    one = {**width, "side": side, "modality": content(asked, users if cold_users else items)}
    if cold_users:
        branch |= {"user": "branch", "item": "interactions"}
        branch |= {"user_modalities": (INTERACTIONS, *users)}
    else:
        branch |= {"modalities": (INTERACTIONS, *items)}
    arms = branch_arms(train, branch, BRANCHES)
    arms["DropoutNet"] = arm(
        "DropoutNet", train, {**width, "modalities": items, "user_modalities": users}
    )
    arms["CLCRec"] = arm("CLCRec", train, one)
    reading = {"content_weight": 1e-4, "variant": "described" if cold_users else "released"}
    arms["CLCRec lambda"] = arm("CLCRec", train, {**one, **reading})
    if not cold_users:
        known = {**width, "modalities": items, "free_factors": False}
        arms["VBPR content"] = arm("VBPR", train, known)
    controls = {
        "BPR-MF": arm("BPR", train, width),
        "Popularity": arm("Popularity", train),
        "Random": arm("RandomRanking", train),
    }
    chosen = asked.choices["models"] or (*arms, *controls)
    unknown = [label for label in chosen if label not in arms and label not in controls]
    if unknown:
        raise ValueError(
            f"--models: no arm {unknown[0]!r} in split {asked.split!r}; there are:"
            f" {', '.join((*arms, *controls))}"
        )
    kept = {label: run for label, run in arms.items() if label in chosen}
    beside = {label: run for label, run in controls.items() if label in chosen}
    said = tuple(claim for claim in claims(asked.split) if _labels(claim) <= set(chosen))
    return replace(study, arms=kept, controls=beside, claims=said)


def used(asked: Asked) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The features of items and of users that the models get: those of the side that may be new.

    Raises:
        ValueError: that side has none.
    """
    side = "user" if asked.split == "cold-user" else "item"
    have = asked.user_features if side == "user" else CONTENTS.get(asked.dataset, asked.features)
    if not have:
        raise ValueError(
            f"dataset {asked.dataset!r} has no features of its {side}s, and so nothing by which"
            f" split {asked.split!r} could be studied; choose another dataset or --split"
        )
    return ((), have) if side == "user" else (have, ())


def content(asked: Asked, have: tuple[str, ...]) -> str:
    """The feature that CLCRec takes: the one asked for, the dataset's, or the first.

    Raises:
        ValueError: there is no such feature on the side that may be new, or several are asked for.
    """
    side = "user" if asked.split == "cold-user" else "item"
    name, *more = asked.choices["content"] or (ONE[side].get(asked.dataset, have[0]),)
    if more:
        raise ValueError(f"--content takes one feature, got {', '.join((name, *more))}")
    if name not in have:
        raise ValueError(
            f"--content: {side}s have no feature {name!r}; they have: {', '.join(have)}"
        )
    return name


def of(label: str) -> Where:
    """An arm or a control."""
    return Where({"arm": label})


def _labels(claim: Claim) -> set[str]:
    """The arms and controls that a claim of this study compares."""
    test = claim.test
    assert isinstance(test, Worse | Better | Equivalent)
    return {str(side.conditions["arm"]) for side in (test.cell, test.than)}


def claims(split: str) -> Iterator[Claim]:
    """What the papers report for a split, and what a weight of CLCRec's contrast would do."""
    about = {"cold-item": cold_items, "cold-user": cold_users}.get(split, nobody_new)
    yield from about()
    words = "CLCRec ranks the same with its weight of the contrast put to use"
    yield Claim(words, RELEASE, Equivalent(of("CLCRec lambda"), than=of("CLCRec")))


def below(figures: Mapping[str, str], source: str, column: str = "") -> Iterator[Claim]:
    """Of each arm: it ranks below SiBraR SC; with the published figures."""
    for label, said in figures.items():
        topic = f"ranks below {BEST}"
        test = Worse(of(label), than=of(BEST), column=column)
        yield Claim(f"{label} {topic}", f"{source}, {said}", test, topic, label)


def cold_items() -> Iterator[Claim]:
    """Of items that nobody has met."""
    figures = {
        "MuBraR SC": ".2949 to .2994 (ML-1M), .2276 to .2297 (Onion), .1262 to .1479 (Amazon)",
        "SiBraR S": ".0921 to .1479 (Amazon): the contrast helps cold items",
    }
    yield from below(figures, TORS)
    figures = {
        "DropoutNet": ".1854 to .2350 (ML-1M), .1109 to .1301 (Onion), .0276 to .0355 (Amazon)",
        "CLCRec": ".1644 to .2350 (ML-1M), .0890 to .1301 (Onion), .0314 to .0355 (Amazon)",
        "BPR-MF": ".0292 to .2350 (ML-1M), .0054 to .1301 (Onion)",
        "Popularity": ".0076 to .2350 (ML-1M), .0056 to .1301 (Onion)",
    }
    yield from below(figures, SUPPLEMENT, PRECISION)


def cold_users() -> Iterator[Claim]:
    """Of users whom nobody has met."""
    figures = {
        "DropoutNet": ".4395 to .4534 (ML-1M), .1008 to .1025 (Onion)",
        "CLCRec": ".4428 to .4534 (ML-1M), .0927 to .1025 (Onion)",
        "BPR-MF": ".4424 to .4534 (ML-1M), .0858 to .1025 (Onion)",
        "Popularity": ".4380 to .4534 (ML-1M), .0927 to .1025 (Onion)",
    }
    yield from below(figures, SUPPLEMENT, PRECISION)
    yield Claim(
        f"Popularity loses less than a tenth against {BEST}",
        f"{SUPPLEMENT}, .4380 to .4534 (ML-1M), .0927 to .1025 (Onion)",
        NoWorse(of("Popularity"), than=of(BEST), smallest=0.1, column=PRECISION),
    )


def nobody_new() -> Iterator[Claim]:
    """At warm start."""
    yield from below({"MuBraR": ".1259 to .1717 (Onion)"}, TORS)
    figures = {
        "DropoutNet": ".1884 to .1941 (ML-1M), .0602 to .1006 (Onion), .0095 to .0151 (Amazon)",
        "Popularity": ".1016 to .1941 (ML-1M), .0136 to .1006 (Onion), .0059 to .0151 (Amazon)",
    }
    yield from below(figures, SUPPLEMENT, PRECISION)
    figures = {
        "CLCRec": ".2680 to .2581 (ML-1M); on Onion Precision@10 says the reverse, .0764 to .1006",
        "MuBraR SC": ".1762 to .1717 (Onion)",
        "BPR-MF": ".0818 to .0728 (Amazon); on Onion Precision@10 says the reverse, .0818 to .1006",
    }
    for label, said in figures.items():
        topic = f"ranks above {BEST}"
        test = Better(of(label), than=of(BEST))
        yield Claim(f"{label} {topic}", f"{TORS}, {said}", test, topic, label)


STUDY = Study(
    name="cold_start",
    question="Who ranks items, or users, that nobody has met?",
    base=BASE,
    bases={"lfm2k": LFM2K, "ml-1m": ML_1M},
    dataset="planted-five",
    split="cold-item",
    shape=shape,
    tuning=Tuning(trials=4, knobs=knobs),
    choices=(
        Choice("models", "the arms and controls; all by default", ()),
        Choice("content", "the one feature that CLCRec takes", ()),
    ),
    presets={"paper": PAPER},
    views=(
        CellForest(),
        Verdicts(),
        BeyondAccuracy(against="Popularity"),
        Published("sibrar-cold-start"),
    ),
    seeds=5,
    smoke={"train.epochs": 2},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
