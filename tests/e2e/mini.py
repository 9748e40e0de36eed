"""A study small enough to be run many times, and run as a script to be killed."""

import sys

from mmrec.cli import main
from mmrec.models.bpr import BPR
from mmrec.models.sibrar import SiBraR
from mmrec.study.claims import Better, Claim, Where
from mmrec.study.ranges import Range
from mmrec.study.study import Factor, Study
from mmrec.training import RunConfig, TrainConfig

STUDY = Study(
    name="mini",
    question="Does a contrastive term help?",
    base=RunConfig(
        model=SiBraR(dim=16, common_dim=32, hidden=(32,), input_dropout=0.0, alpha=1e-3),
        train=TrainConfig(
            epochs=20, patience=0, optimizer="adamw", lr=5e-3, batch_size=512, negatives=10
        ),
    ),
    factors=(Factor("model.alpha", (0.0, 1e-3), search=Range(1e-5, 1e-1, log=True)),),
    controls={"BPR-MF": RunConfig(model=BPR(dim=16), train=TrainConfig(epochs=20, patience=0))},
    references={"alpha=0": {"model.alpha": 0.0}},
    claims=(
        Claim(
            "It helps",
            "none",
            Better(Where({"model.alpha": "> 0"}), than=Where({"model.alpha": 0.0})),
        ),
    ),
    seeds=2,
    search_trials=6,
    confirm=1,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
