"""How deep should CRANE's cross-modal attention recurse, and its two graph branches propagate?

Dai et al. (arXiv 2601.11151) recurse three times and say that ranking rises up to there and falls
beyond four; that two user-item layers are best, and that a second item-item layer smooths too much.
The paper's equations leave open between what the correlations are, and its released code has no
recursion at all: here both readings run side by side, and smoothing is measured, not inferred.
"""

import sys

from mmrec.cli import main
from mmrec.config import override
from mmrec.models.crane import CRANE
from mmrec.study.claims import Better, Claim, Where, Worse
from mmrec.study.shapes import BestLevel, Declines, Rises
from mmrec.study.study import Factor, Study
from mmrec.study.views import Curve
from mmrec.training import RunConfig, TrainConfig

DEPTH, READING = "model.depth", "model.reading"
UI, II = "model.ui_layers", "model.item_layers"
PAPER = "Dai et al., arXiv 2601.11151, sensitivity analysis: Recall@20 over R"
LAYERS = "Dai et al., arXiv 2601.11151, settings: two user-item layers, one item-item layer"
COSINE, ENERGY = "measure.semantic_cosine", "measure.dirichlet"
READINGS = {"nodes": "node by node", "features": "feature by feature"}

BASE = RunConfig(
    model=CRANE(dim=32, depth=3, ui_layers=2, item_layers=1, train_features=False),
    train=TrainConfig(epochs=30, patience=5, lr=5e-3, batch_size=1024),
)
LFM2K = override(
    BASE,
    {
        "model.modalities": ("text", "vggish"),
        "train.epochs": 40,
        "train.batch_size": 4096,
    },
)


def depth_claims(reading: str) -> tuple[Claim, ...]:
    """What the paper says of the depth, for one reading of its correlations."""
    line = Where({READING: reading, UI: 2, II: 1})
    deep, flat = (Where({**line.conditions, DEPTH: depth}) for depth in (3, 0))
    how = READINGS[reading]
    return (
        Claim(f"Correlating {how}, ranking rises up to R = 3", PAPER, Rises(DEPTH, 3, line)),
        Claim(f"Correlating {how}, it falls beyond R = 4", PAPER, Declines(DEPTH, 4, line)),
        Claim(f"Correlating {how}, R = 3 is best", PAPER, BestLevel(DEPTH, 3, line)),
        Claim(
            f"Correlating {how}, R = 3 ranks better than plain concatenation",
            "Dai et al., arXiv 2601.11151, section 4.6",
            Better(deep, than=flat),
        ),
        Claim(
            f"Correlating {how}, deeper recursion makes semantic embeddings alike",
            "Dai et al., arXiv 2601.11151, failure signatures: over-refinement",
            Rises(DEPTH, 5, line, column=COSINE),
        ),
    )


ONE_LAYER, TWO_LAYERS = (Where({READING: "nodes", DEPTH: 3, UI: 2, II: n}) for n in (1, 2))

STUDY = Study(
    name="recursion_depth",
    question="How deep should CRANE's cross-modal attention recurse, and its graphs propagate?",
    base=BASE,
    bases={"lfm2k": LFM2K},
    factors=(
        Factor(DEPTH, levels=(0, 1, 2, 3, 4, 5)),
        Factor(READING, levels=("nodes", "features")),
        Factor(UI, levels=(1, 2, 3)),
        Factor(II, levels=(1, 2)),
    ),
    sweeps=((DEPTH, READING), (UI,), (II,)),
    seeds=5,
    claims=(
        *depth_claims("nodes"),
        *depth_claims("features"),
        Claim(
            "Two user-item layers are best",
            LAYERS,
            BestLevel(UI, 2, Where({READING: "nodes", DEPTH: 3, II: 1})),
        ),
        Claim("A second item-item layer ranks worse", LAYERS, Worse(TWO_LAYERS, than=ONE_LAYER)),
        Claim(
            "A second item-item layer makes semantic embeddings alike",
            LAYERS + " (over-smoothing)",
            Better(TWO_LAYERS, than=ONE_LAYER, column=COSINE),
        ),
    ),
    views=(
        Curve(DEPTH, by=READING),
        Curve(DEPTH, by=READING, column=COSINE),
        Curve(DEPTH, by=READING, column=ENERGY),
        Curve(UI),
        Curve(II),
        Curve(II, column=COSINE),
        Curve(DEPTH, by=READING, column="cost.epoch_seconds"),
    ),
    smoke={DEPTH: [0, 3], UI: [2], "train.epochs": 3},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
