"""How deep should CRANE's cross-modal attention recurse, and its two graph branches propagate?

Dai et al. (arXiv 2601.11151) recurse three times and say that ranking rises up to there and falls
beyond four; that two user-item layers are best, and that a second item-item layer smooths too much.
The paper's equations leave open between what the correlations are, and its released code has no
recursion at all: here both readings run side by side, each with its own settings tuned alike at
R = 3, and smoothing is measured, not inferred.
"""

import sys
from dataclasses import replace

from mmrec.cli import main
from mmrec.config import override
from mmrec.models.crane import CRANE
from mmrec.study.claims import Better, Claim, ClaimTest, NoWorse, Where, Worse
from mmrec.study.shapes import BestLevel, Declines, Rises
from mmrec.study.study import Asked, Choice, Factor, Study
from mmrec.study.tuning import Tuning
from mmrec.study.views import Curve, Verdicts
from mmrec.training import RunConfig, TrainConfig

DEPTH, UI, II = "model.depth", "model.ui_layers", "model.item_layers"
AT_BASE = {DEPTH: 3, UI: 2, II: 1}
PAPER = "Dai et al., arXiv 2601.11151, sensitivity analysis: Recall@20 over R"
CONCATENATION = "Dai et al., arXiv 2601.11151, section 4.6"
REFINEMENT = "Dai et al., arXiv 2601.11151, failure signatures: over-refinement"
LAYERS = "Dai et al., arXiv 2601.11151, settings: two user-item layers, one item-item layer"
SPARSE = "Dai et al., arXiv 2601.11151, open question 2: block-sparse attention"
COSINE, ENERGY = "measure.semantic_cosine", "measure.dirichlet"
READINGS = {
    "nodes": {"model.reading": "nodes"},
    "features": {"model.reading": "features"},
    "nearest": {"model.reading": "nodes", "model.rca_columns": "topk"},
}
"""What is correlated: each node with all, or only with the 64 nearest; or columns of features."""

BASE = RunConfig(
    model=CRANE(dim=32, depth=3, ui_layers=2, item_layers=1, train_features=False),
    train=TrainConfig(epochs=30, patience=5, lr=5e-3, batch_size=1024),
)
LFM2K = override(BASE, {"train.epochs": 50, "train.batch_size": 4096})


def shape(study: Study, asked: Asked) -> Study:
    """An arm for each reading, with this dataset's modalities."""
    base = override(study.base, {"model.modalities": asked.modalities})
    readings = asked.choices["readings"]
    arms = {reading: override(base, READINGS[reading]) for reading in readings}
    claims = [claim for reading in readings for claim in claims_of(reading)]
    if {"nodes", "nearest"} <= set(readings):
        near, every = (Where({"arm": name, **AT_BASE}) for name in ("nearest", "nodes"))
        words = "64 nearest columns rank no worse than all"
        claims.append(Claim(words, SPARSE, NoWorse(near, than=every)))
    return replace(study, base=base, arms=arms, claims=tuple(claims))


def claims_of(reading: str) -> tuple[Claim, ...]:
    """What the paper says of R and of the layers, for one reading of its correlations."""

    def claim(words: str, source: str, test: ClaimTest) -> Claim:
        return Claim(f"Correlating {reading}: {words}", source, test, words, reading)

    base = {"arm": reading, **AT_BASE}
    over_depth = Where({"arm": reading, UI: 2, II: 1})
    over_layers = Where({"arm": reading, DEPTH: 3, II: 1})
    whole, flat = Where(base), Where({**base, DEPTH: 0})
    twice = Where({**base, II: 2})
    return (
        claim("ranking rises up to R = 3", PAPER, Rises(DEPTH, 3, over_depth)),
        claim("ranking falls beyond R = 4", PAPER, Declines(DEPTH, 4, over_depth)),
        claim("R = 3 is best", PAPER, BestLevel(DEPTH, 3, over_depth)),
        claim("R = 3 beats plain concatenation", CONCATENATION, Better(whole, than=flat)),
        claim(
            "recursion makes semantic embeddings alike",
            REFINEMENT,
            Rises(DEPTH, 5, over_depth, column=COSINE),
        ),
        claim("two user-item layers are best", LAYERS, BestLevel(UI, 2, over_layers)),
        claim("a second item-item layer ranks worse", LAYERS, Worse(twice, than=whole)),
        claim(
            "a second item-item layer smooths embeddings",
            LAYERS + " (over-smoothing)",
            Worse(twice, than=whole, column=ENERGY),
        ),
    )


STUDY = Study(
    name="recursion_depth",
    question="How deep should CRANE's cross-modal attention recurse, and its graphs propagate?",
    base=BASE,
    bases={"lfm2k": LFM2K},
    factors=(
        Factor(DEPTH, levels=(0, 1, 2, 3, 4, 5)),
        Factor(UI, levels=(1, 2, 3)),
        Factor(II, levels=(1, 2)),
    ),
    sweeps=((DEPTH,), (UI,), (II,)),
    modalities={"lfm2k": ("text", "vggish")},
    shape=shape,
    tuning=Tuning(trials=6),
    choices=(Choice("readings", "what CRANE correlates", ("nodes", "features"), tuple(READINGS)),),
    seeds=5,
    views=(
        Verdicts(),
        Curve(DEPTH, by="arm"),
        Curve(DEPTH, by="arm", column=COSINE),
        Curve(DEPTH, by="arm", column=ENERGY),
        Curve(UI, by="arm"),
        Curve(II, by="arm"),
        Curve(II, by="arm", column=ENERGY),
        Curve(DEPTH, by="arm", column="cost.epoch_seconds"),
    ),
    smoke={DEPTH: [0, 3], UI: [2], II: [1], "train.epochs": 3},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
