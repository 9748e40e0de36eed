"""Which negatives should CRANE's contrast of behaviour and semantics take, and how warm?

Dai et al. (arXiv 2601.11151) align the two views of a node by InfoNCE and do not say against what.
Three choices: the batch as it is, where a node that occurs twice is its own negative; the batch
without these false negatives; and as many nodes drawn uniformly from all.
"""

import sys

from mmrec.cli import main
from mmrec.config import override
from mmrec.models.crane import CRANE
from mmrec.study.claims import Better, Claim, Where
from mmrec.study.shapes import BestLevel, Flat
from mmrec.study.study import Factor, Study
from mmrec.study.views import Curve, HeatMap, MainEffects
from mmrec.training import RunConfig, TrainConfig

NEGATIVES, TAU, BETA = "model.negatives", "model.tau", "model.cl_weight"
OPEN = "arXiv 2601.11151 leaves the negatives open (limitations)"
USUAL = "the usual temperature of graph contrast (Wu et al., SGL, SIGIR 2021)"

BASE = RunConfig(
    model=CRANE(dim=32, reading="features", train_features=False),
    train=TrainConfig(epochs=30, patience=5, lr=5e-3, batch_size=1024),
)
LFM2K = override(BASE, {"model.modalities": ("text", "vggish"), "train.batch_size": 2048})
WARM = Where({TAU: 0.2})

STUDY = Study(
    name="contrastive_negatives",
    question="Which negatives should CRANE's contrast take, and at which temperature?",
    base=BASE,
    bases={"lfm2k": LFM2K},
    factors=(
        Factor(NEGATIVES, levels=("batch", "distinct", "nodes")),
        Factor(TAU, levels=(0.05, 0.1, 0.2, 0.5, 1.0)),
    ),
    seeds=5,
    claims=(
        Claim("The choice of negatives changes nothing", OPEN, Flat(NEGATIVES, WARM)),
        Claim(
            "Without false negatives it ranks better",
            OPEN,
            Better(
                Where({NEGATIVES: "distinct", TAU: 0.2}), than=Where({NEGATIVES: "batch", TAU: 0.2})
            ),
        ),
        Claim(
            "Nodes drawn uniformly rank better than the batch's own",
            OPEN,
            Better(
                Where({NEGATIVES: "nodes", TAU: 0.2}), than=Where({NEGATIVES: "batch", TAU: 0.2})
            ),
        ),
        Claim("A temperature of 0.2 is best", USUAL, BestLevel(TAU, 0.2)),
    ),
    views=(
        HeatMap(x=TAU, y=NEGATIVES),
        Curve(TAU, by=NEGATIVES),
        Curve(TAU, by=NEGATIVES, column="measure.user_cosine"),
        MainEffects((NEGATIVES, TAU)),
    ),
    smoke={TAU: [0.2], "train.epochs": 3},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
