"""How long should semantic IDs be, how large their code books, and does fusion change that?

Zhu et al. (arXiv 2503.23333) ablate the length of IDs and the size of code books; which levels they
turn, and what they find, is not known here. So the claims are what a reader would expect, more
words help, and its contrary. Late fusion gives each modality an ID of the stated length, early
fusion one ID to both. One factor is turned at a time around two levels of 16 words; `--grid full`
has all combinations, `--grid paper` books of 64 to 512 words. `--quantisers rqvae,rqkmeans` puts
the autoencoder of the paper beside plain residual k-means; the codes' own measures say what their
words keep and how many items collide.

Found (planted-sequences-c82be68b, 5 seeds): after 30 epochs longer IDs rank better in early fusion
(NDCG@10 .27, .31 and .33 with 2, 3 and 4 levels, of which 89, 39 and 8 % of the items share a code)
and worse in late fusion (.35, .29 and .25), whose two IDs tell nearly all items apart with 2 levels
each. But every cell still rises there, that of 4 levels most: after 120 epochs late fusion has .38
with 2 levels and .35 with 4 (2 seeds, no verdict), so that most of its loss is that longer IDs are
learned more slowly. Sizes of 8 to 32 words are not told apart. Late fusion ranks above early, both
at their best, by 6 %.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import replace

from mmrec.cli import main
from mmrec.config import get, override
from mmrec.study.claims import Better, Claim, Where
from mmrec.study.fusions import BEST, EARLY, SIZES, fusion_arm
from mmrec.study.shapes import Flat, Rises
from mmrec.study.study import Asked, Choice, Factor, Study
from mmrec.study.views import Convergence, Curve, Verdicts, View
from mmrec.training import RunConfig

LEVELS, SIZE = "model.quantiser.levels", "model.quantiser.size"
PAPER = "Zhu et al., arXiv 2503.23333"
ABLATION = f"{PAPER}, ablation of semantic IDs; neither its levels nor its numbers are known"
FUSION = f"{PAPER}, abstract: late fusion with both parts is best; no table is known"
ARMS = {"late": BEST, "early": EARLY}
QUANTISERS = ("rqvae", "rqkmeans")
EPOCHS = {"train.epochs": 30}
"""Fewer than in the sister study, as so many cells are trained here."""
BASE = override(fusion_arm(BEST, SIZES["small"], ("text", "image")), EPOCHS)


def shape(study: Study, asked: Asked) -> Study:
    """An arm a fusion and quantiser.

    Raises:
        ValueError: the dataset has no vectors of both modalities, of which codes are made here.
    """
    if not {"text", "image"} <= set(asked.modalities):
        raise ValueError(
            f"codes are made of vectors of text and image here; dataset {asked.dataset!r} has:"
            f" {', '.join(asked.modalities) or 'no dense item feature'}"
        )
    chosen = [asked.choices[name] for name in ("fusions", "quantisers")]
    arms = {label(*pair): run(*pair) for pair in ((f, q) for f in chosen[0] for q in chosen[1])}
    return replace(
        study,
        base=next(iter(arms.values())),
        arms=arms,
        claims=tuple(claims(*chosen)),
        views=tuple(views(tuple(arms))),
    )


def label(fusion: str, quantiser: str) -> str:
    """An arm's; the paper's quantiser goes without saying."""
    return ARMS[fusion] if quantiser == QUANTISERS[0] else f"{ARMS[fusion]} {quantiser}"


def run(fusion: str, quantiser: str) -> RunConfig:
    """An arm, where the base is in all else."""
    arm = fusion_arm(ARMS[fusion], SIZES["small"], ("text", "image"))
    return override(arm, {**EPOCHS, "model.quantiser.kind": quantiser})


def claims(fusions: tuple[str, ...], quantisers: tuple[str, ...]) -> Iterator[Claim]:
    """Of each arm: longer IDs and larger books help, or do not matter; late fusion is better."""
    for fusion, quantiser in ((f, q) for f in fusions for q in quantisers):
        arm = label(fusion, quantiser)
        for path, other, words, change in (
            (LEVELS, SIZE, "longer IDs", "the length of IDs"),
            (SIZE, LEVELS, "larger code books", "the size of code books"),
        ):
            line = Where({"arm": arm, other: get(BASE, other)})
            topic = f"{words} rank better"
            yield Claim(f"{arm}: {topic}", ABLATION, Rises(path, math.inf, line), topic, arm)
            topic = f"{change} does not matter"
            yield Claim(f"{arm}: {topic}", "the contrary", Flat(path, line), topic, arm)
    for quantiser in quantisers if set(ARMS) <= set(fusions) else ():
        arm, other = (label(fusion, quantiser) for fusion in ARMS)
        topic = "late fusion is better than early, both at their best"
        test = Better(Where({"arm": arm}), than=Where({"arm": other}))
        yield Claim(f"{arm} ranks above {other}, both at their best", FUSION, test, topic, arm)


def views(arms: tuple[str, ...]) -> Iterator[View]:
    """Ranking over either factor, then what the codes themselves are like."""
    yield Verdicts(variants=QUANTISERS)
    for path in (LEVELS, SIZE):
        yield Curve(path, by="arm")
        yield Curve(path, by="arm", column="measure.collisions")
    early = tuple(arm for arm in arms if arm.startswith(EARLY))
    late = tuple(arm for arm in arms if arm not in early)
    for vectors, own in (("text", late), ("image", late), ("fused", early)):
        for measure, path in (
            ("reconstruction", LEVELS),
            ("reconstruction", SIZE),
            ("usage", SIZE),
        ):
            if own:
                column = f"measure.{measure}_{vectors}"
                yield Curve(path, by="arm", column=column, where={"arm": own})
    yield Convergence()


STUDY = Study(
    name="semantic_ids",
    question="How long should semantic IDs be, and how large their code books?",
    base=BASE,
    factors=(
        Factor(LEVELS, levels=(2, 3, 4)),
        Factor(SIZE, levels=(8, 16, 32), grids={"paper": (64, 128, 256, 512)}),
    ),
    sweeps=((LEVELS,), (SIZE,)),
    dataset="planted-sequences",
    shape=shape,
    choices=(
        Choice("fusions", "late or early", tuple(ARMS), tuple(ARMS)),
        Choice("quantisers", "how vectors become code words", ("rqvae",), QUANTISERS),
    ),
    seeds=5,
    smoke={
        LEVELS: [2, 3],
        SIZE: [8, 16],
        "train.epochs": 2,
        "train.eval_every": 2,
        "model.quantiser.steps": 50,
    },
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
