"""Which way should a generative recommender fuse the semantic IDs of modalities?

Zhu et al. (arXiv 2503.23333) write the next item's semantic IDs from those of the history: one ID
of all modalities (early fusion, MGR-EF), an ID a modality one after the other (late, MGR-LF), or
the latter with modalities aligned first and a token where they meet (MGR-LF++). Neither their code
nor their tables are known here, only that LF++ is best, by over 20 %; so no number of theirs stands
beside these. SASRec, which knows no modality, has the softmax over all items: with it, it is a
stronger baseline than with sampled negatives. All arms see the same number of a history's items.

`planted-sequences` has a next item that depends on both modalities, `planted-sequences-text` on
texts alone. `instruments` comes with codes in place of vectors, so that early fusion cannot be
tried there: its claims stand in the report as not tested. Its default size is reduced, which says
so; `--size paper` is that of GRID, by the same group, for a GPU.

Found (planted-sequences-c82be68b, 5 seeds): where both modalities decide, all late fusions rank at
NDCG@10 .35 to .37, early fusion at .29 (it still rises when training ends), SASRec at .26 and
either modality alone at .12. So LF++ beats the best single one by far more than 20 %, but plain
late fusion does as well: InfoNCE costs 5 %, and neither translation nor tokens add anything that
these seeds show. Early fusion goes by images (AMI .62, texts .14), which have more columns here.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

from mmrec.cli import main
from mmrec.models.popularity import Popularity
from mmrec.study.arms import knocked_sets, knockouts
from mmrec.study.claims import Better, Claim, ClaimTest, Where, Worse
from mmrec.study.columns import Exceeds
from mmrec.study.fusions import (
    BEST,
    EARLY,
    FUSED,
    GROUPS,
    KS,
    NAIVE,
    SIZES,
    TRAIN,
    UNIMODAL,
    fusion_arm,
)
from mmrec.study.gains import BetterBy
from mmrec.study.overlap import OverlapsMore
from mmrec.study.study import Asked, Choice, Study
from mmrec.study.views import (
    ArmMeasures,
    CellForest,
    ConditionForest,
    ConditionMap,
    Convergence,
    Correspondence,
    SharedHits,
    Verdicts,
    View,
)
from mmrec.training import RunConfig

PAPER = "Zhu et al., arXiv 2503.23333"
CODES = {"instruments": ("text_codes", "image_codes")}
"""Dataset -> its modalities in the order of the ID, where they come as codes."""
BY_DATASET = {"instruments": "reduced"}
"""Dataset -> its size unless the command line says; others are small."""
POPULARITY = "Popularity"
VARIANTS = tuple(GROUPS)


def shape(study: Study, asked: Asked) -> Study:
    """The arms asked for, with this dataset's modalities, and what can be claimed of them."""
    modalities, chosen = modalities_of(asked), asked.choices["variants"]
    codes, knocked = asked.dataset in CODES, "knockout" in asked.choices["conditions"]
    (named,) = asked.choices["size"] or (BY_DATASET.get(asked.dataset, "small"),)
    arms = {
        label: fusion_arm(label, SIZES[named], modalities)
        for label in chosen
        if not (codes and label == EARLY)
    }
    conditions, beside = study.conditions, {}
    if knocked:
        # What uses one modality or none is trained once, and stands beside the others.
        beside = {label: run for label, run in arms.items() if label not in FUSED}
        arms = {label: run for label, run in arms.items() if label in FUSED}
        fillers = asked.choices["fillers"]
        conditions = knockouts(knocked_sets(modalities, ("each",)), fillers, ("train+eval",))
    if not arms:
        raise ValueError(f"none of the variants {', '.join(chosen)} can be tried here")
    return replace(
        study,
        base=next(iter(arms.values())),
        arms=arms,
        groups={label: GROUPS[label] for label in (*arms, *beside)},
        controls={**beside, **study.controls},
        conditions=conditions,
        claims=tuple(
            claim
            for claim, named in claims(modalities, knocked, [c.name for c in conditions])
            if all(label in (*chosen, POPULARITY) for label in named)
        ),
        views=tuple(views(modalities, early=not codes, knocked=knocked)),
    )


def modalities_of(asked: Asked) -> tuple[str, str]:
    """Text and image, in the order of the ID.

    Raises:
        ValueError: the dataset has not got them.
    """
    if asked.dataset in CODES:
        return CODES[asked.dataset]
    if not {"text", "image"} <= set(asked.modalities):
        raise ValueError(
            f"this study is about text and image as vectors; dataset {asked.dataset!r} has:"
            f" {', '.join(asked.modalities) or 'no dense item feature'}"
        )
    return "text", "image"


def views(modalities: tuple[str, str], *, early: bool, knocked: bool) -> Iterator[View]:
    """What the report draws."""
    yield Verdicts(variants=("B",))
    yield CellForest()
    if knocked:
        yield ConditionForest()
        yield ConditionMap()
    names = [f"{kind}_{name}" for kind in ("right", "ami")[: 1 + early] for name in modalities]
    yield ArmMeasures(("right_all", *names, "valid_ids", "collisions"), against=BEST)
    yield Correspondence(modalities)
    yield SharedHits(of=EARLY if early else BEST, with_=UNIMODAL)
    yield Convergence()


Told = tuple[Claim, tuple[str, ...]]
"""A claim, and the arms that it needs."""


def of(*arms: str, condition: str = "baseline") -> Where:
    """The cells of arms under a condition."""
    return Where({"arm": arms, "condition": condition})


def claims(modalities: tuple[str, str], knocked: bool, conditions: list[str]) -> Iterator[Told]:
    """What the paper says, then what a reader asks of the data."""
    yield from _of_the_paper(*modalities)
    for label in UNIMODAL:
        topic = "above popularity"
        source = "not a claim of the paper: a modality that fails here says nothing of what follows"
        test = Better(of(label), than=of(POPULARITY))
        yield Claim(f"{label} ranks above popularity", source, test, topic, label), (label,)
    source = "the knockout of arXiv 2508.07399, here of semantic IDs"
    for name in conditions[1:] if knocked else ():
        for label in FUSED:
            topic = f"{name} hurts"
            test = Worse(of(label, condition=name), than=of(label))
            yield Claim(f"{label}: {topic}", source, test, topic, label), (label,)


def _of_the_paper(text: str, image: str) -> Iterator[Told]:
    def told(words: str, known: str, test: ClaimTest, topic: str, arm: str, *others: str) -> Told:
        return Claim(words, f"{PAPER}, {known}", test, topic, arm), (arm, *others)

    abstract = "abstract: over 20 % better than the best single modality; no table is known"
    beats = "better than one modality"
    for label, reading in ((BEST, "InfoNCE"), (f"{BEST} B", "translation")):
        yield told(
            f"{label}, aligned by {reading}, beats the best single modality",
            abstract, Better(of(label), than=of(*UNIMODAL)), beats, label, *UNIMODAL,
        )  # fmt: skip
    yield told(
        f"{BEST} beats the best single modality by 20 % or more",
        abstract, BetterBy(of(BEST), than=of(*UNIMODAL), share=0.2), "better by 20 %", BEST,
        *UNIMODAL,
    )  # fmt: skip
    known = "finding 3: the text can be right and the image wrong; as noted by a reader"
    yield told(
        f"{NAIVE}, without alignment and token, is worse than the best single modality",
        known, Worse(of(NAIVE), than=of(*UNIMODAL)), "worse than one modality", NAIVE, *UNIMODAL,
    )  # fmt: skip
    yield told(
        f"{NAIVE}: text codes are right where image codes are wrong more often than the other way"
        " round",
        known, Exceeds(of(NAIVE), f"measure.only_{text}", f"measure.only_{image}"),
        "text right, image wrong", NAIVE,
    )  # fmt: skip
    known = "finding 1, as noted by a reader; how it is measured is not known"
    yield told(
        f"{EARLY}: fused codes say more of the text's codes than of the image's",
        known, Exceeds(of(EARLY), f"measure.ami_{text}", f"measure.ami_{image}"),
        "goes by text", EARLY,
    )  # fmt: skip
    yield told(
        f"{EARLY} finds the items that text finds, rather than those that image finds",
        known, OverlapsMore(of(EARLY), of(UNIMODAL[0]), than=of(UNIMODAL[1])),
        "hits those of text", EARLY, *UNIMODAL,
    )  # fmt: skip
    known = "abstract: both parts matter; its loss and numbers are not known"
    for label, words, without in (
        (BEST, "alignment (reading A, InfoNCE) adds", f"{BEST} -alignment"),
        (f"{BEST} B", "alignment (reading B, translation) adds", f"{BEST} -alignment"),
        (BEST, "tokens where modalities meet add", f"{BEST} -tokens"),
        (BEST, "alignment and tokens together add", NAIVE),
    ):
        topic = {f"{BEST} -tokens": "tokens add", NAIVE: "both parts add"}.get(
            without, "alignment adds"
        )
        test = Better(of(label), than=of(without))
        yield told(f"{label}: {words}", known, test, topic, label, without)
    known = "summary: SASRec is a baseline and LF++ best on all metrics"
    yield told(
        f"{BEST} ranks above SASRec", known, Better(of(BEST), than=of("SASRec")),
        "above SASRec", BEST, "SASRec",
    )  # fmt: skip


STUDY = Study(
    name="fusion",
    question="Which way should a generative recommender fuse the semantic IDs of modalities?",
    base=fusion_arm(BEST, SIZES["small"], ("text", "image")),
    controls={POPULARITY: RunConfig(model=Popularity(), train=TRAIN, ks=KS)},
    dataset="planted-sequences",
    modalities=CODES,
    shape=shape,
    choices=(
        Choice("variants", "the arms", VARIANTS, VARIANTS),
        Choice(
            "conditions",
            "none, or a knockout of each modality for the arms that use both",
            ("none",),
            ("none", "knockout"),
        ),
        Choice("fillers", "what a knockout puts there", ("noise",), ("noise", "shuffle")),
        Choice("size", "of models and training; by dataset unless said", (), tuple(SIZES)),
    ),
    seeds=5,
    smoke={"train.epochs": 2, "train.eval_every": 2, "model.quantiser.steps": 50},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
