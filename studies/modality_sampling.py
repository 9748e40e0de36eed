"""How many modalities should training sample, with contrast or without, and at which temperature?

Ganhoer et al. (TORS 2025) sample one modality of an item, or two that a contrastive loss draws
together, and report neither other numbers nor whether training had converged. Here SiBraR, which
shares one branch, and MuBraR, with a branch for each modality, sample from one to all; contrast is
taken over all pairs of what is sampled. Sampling all without contrast is not sampling at all, the
plain MuBraR: one cell has both names. One sampled has no pair, and so no contrast.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mmrec.cli import main
from mmrec.data.dataset import INTERACTIONS
from mmrec.study.branches import CONTENTS, CONTRAST, LARGE, SMALL, TRAIN, TRAINS, branch_arms
from mmrec.study.claims import Better, Claim, Where
from mmrec.study.shapes import BestLevel, Flat
from mmrec.study.study import Asked, Factor, Study
from mmrec.study.views import BeyondAccuracy, Convergence, Curve, Pareto, Verdicts

NUM, ALPHA, TAU = "model.num_sampled", "model.alpha", "model.tau"
WEIGHT, TEMPERATURE = CONTRAST["alpha"], CONTRAST["tau"]
PAPER = "Ganhoer et al., TORS 2025, Music4All-Onion, warm, NDCG@10"
OPEN = "arXiv 2509.18807: sampling was tried with one and two modalities only"
HEAT_MAP = "Ganhoer et al., RecSys 2024, supplement: NDCG@10 over alpha and tau"
MODELS = ("SiBraR", "MuBraR")
EVERY = "every"
"""The grid of every number of modalities."""


def same(point: Mapping[str, Any]) -> Mapping[str, Any]:
    """One modality has nothing to be contrasted with, and no contrast has no temperature."""
    point = {**point, ALPHA: 0.0} if point.get(NUM) == 1 else point
    return {**point, TAU: TEMPERATURE} if point.get(ALPHA) == 0 else point


def shape(study: Study, asked: Asked) -> Study:
    """An arm a model; one, two, three and all modalities of this dataset, or every number."""
    contents = CONTENTS.get(asked.dataset, asked.features or asked.modalities)
    modalities = tuple(sorted((*contents, INTERACTIONS)))
    train = TRAINS.get(asked.dataset, TRAIN)
    size = LARGE if asked.dataset in TRAINS else SMALL
    knobs = {**size, **CONTRAST, "modalities": modalities}
    runs = branch_arms(train, knobs, (f"{model} SC" for model in MODELS))
    most = len(modalities)
    every = tuple(range(1, most + 1))
    numbers = Factor(NUM, tuple(n for n in every if n <= 3 or n == most), {EVERY: every})
    factors = tuple(numbers if f.path == NUM else f for f in study.factors)
    return replace(
        study,
        base=runs["SiBraR SC"],
        factors=factors,
        arms={model: runs[f"{model} SC"] for model in MODELS},
        claims=tuple(claim for model in MODELS for claim in claims_of(model, most)),
    )


def claims_of(model: str, most: int) -> Iterator[Claim]:
    """What the paper says of a model, and what it leaves open."""

    def at(number: int, weight: float) -> Where:
        return Where({"arm": model, NUM: number, ALPHA: weight, TAU: TEMPERATURE})

    one, two, contrasted = at(1, 0.0), at(2, 0.0), at(2, WEIGHT)
    source = "the paper has no SiBraR that averages all"
    if model == "MuBraR":
        source = f"{PAPER}: .1259 without sampling, .1586 with it"
    yield Claim(
        f"{model}: sampling one modality beats averaging all",
        source,
        Better(one, than=at(most, 0.0)),
        "sampling helps",
        model,
    )
    source = (
        "Ganhoer et al., TORS 2025, Amazon Video Games, cold items: .0921 for one, .1479 for two"
    )
    if model == "MuBraR":
        source = f"{PAPER}: .1586 for one, .1762 for two"
    yield Claim(
        f"{model}: two sampled and contrasted beat one",
        source,
        Better(contrasted, than=one),
        "contrast of two beats one",
        model,
    )
    yield Claim(
        f"{model}: of two sampled, contrast adds to the ranking",
        "the paper never samples two without contrast",
        Better(contrasted, than=two),
        "contrast itself adds",
        model,
    )
    if most > 2:
        yield Claim(
            f"{model}: two is the best number to contrast",
            OPEN,
            BestLevel(NUM, 2, Where({"arm": model, ALPHA: WEIGHT, TAU: TEMPERATURE})),
            "two is the best number",
            model,
        )
    yield Claim(
        f"{model}: the temperature does not matter at this weight",
        f"{HEAT_MAP}: flat for alpha/tau below 1e-1 on ML-1M",
        Flat(TAU, Where({"arm": model, NUM: 2, ALPHA: WEIGHT})),
        "temperature does not matter",
        model,
    )


STUDY = Study(
    name="modality_sampling",
    question="How many modalities should training sample, and does contrasting them help?",
    base=branch_arms(TRAIN, {**SMALL, **CONTRAST}, ("SiBraR SC",))["SiBraR SC"],
    factors=(
        Factor(NUM, levels=(1, 2, 3, 5), grids={EVERY: (1, 2, 3, 4, 5)}),
        Factor(ALPHA, levels=(0.0, WEIGHT)),
        Factor(TAU, levels=(0.1, TEMPERATURE, 1.0)),
    ),
    sweeps=((NUM, ALPHA), (TAU,)),
    same=same,
    dataset="planted-five",
    shape=shape,
    seeds=5,
    views=(
        Verdicts(),
        Curve(NUM, by="arm"),
        Curve(NUM, by="arm", where={ALPHA: 0.0}),
        Curve(TAU, by="arm"),
        Convergence(),
        Curve(NUM, by="arm", column="measure.modality_gap"),
        Pareto("cost.epoch_seconds", by="arm"),
        BeyondAccuracy(),
    ),
    smoke={NUM: [1, 2, 5], TAU: [TEMPERATURE], "train.epochs": 2},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
