"""How many neighbours should an item have in the item-item graph?

Dai et al. (arXiv 2601.11151) turn k over 5, 10, 15, 20 for CRANE and see a drop at 20. FREEDOM,
LATTICE and MGCN build such graphs too, and all three take k = 10 from one toolbox without a
published sweep: here all four meet the same levels, each with its own settings tuned alike.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

from mmrec.cli import main
from mmrec.study.arms import arm
from mmrec.study.claims import Claim, Where, Worse
from mmrec.study.shapes import BestLevel
from mmrec.study.study import Asked, Choice, Factor, Study
from mmrec.study.tuning import Tuning
from mmrec.study.views import CellForest, Curve, Verdicts
from mmrec.training import TrainConfig

K = "model.knn_k"
MODELS = ("CRANE", "FREEDOM", "LATTICE", "MGCN")
PAPER = "Dai et al., arXiv 2601.11151, sensitivity analysis: Recall@20 over k, of CRANE"
TRAIN = TrainConfig(epochs=40, patience=5, lr=5e-3, batch_size=1024)
TRAINS = {"lfm2k": TrainConfig(epochs=50, patience=5, lr=5e-3, batch_size=4096)}
PATIENCE = {"MGCN": 20}
"""Model -> epochs without progress, where the usual ones stop it too soon: hardly trained, MGCN
ranks well by its item graphs alone, and takes some epochs to come back to that."""


def shape(study: Study, asked: Asked) -> Study:
    """The models as arms, with this dataset's modalities."""
    knobs = {"modalities": asked.modalities, "train_features": False, "dim": 32}
    train = TRAINS.get(asked.dataset, TRAIN)
    arms = {
        name: arm(name, replace(train, patience=PATIENCE.get(name, train.patience)), knobs)
        for name in asked.choices["models"]
    }
    return replace(study, arms=arms, claims=tuple(claims(asked.choices["models"])))


def claims(models: tuple[str, ...]) -> Iterator[Claim]:
    """The paper's for CRANE, and the same for every model that has such a graph."""
    for name in models:
        own = Where({"arm": name})
        at = {k: Where({"arm": name, K: k}) for k in (10, 20)}
        drop, best = "k = 20 ranks below k = 10", "k = 10 is best"
        yield Claim(f"{name}: {drop}", PAPER, Worse(at[20], than=at[10]), drop, name)
        yield Claim(f"{name}: {best}", PAPER, BestLevel(K, 10, own), best, name)


STUDY = Study(
    name="neighbour_k",
    question="How many neighbours should an item have in the item-item graph?",
    base=arm("CRANE", TRAIN),
    factors=(Factor(K, levels=(5, 10, 15, 20, 40)),),
    modalities={"lfm2k": ("text", "vggish")},
    shape=shape,
    tuning=Tuning(trials=6),
    choices=(Choice("models", "the models", MODELS, MODELS),),
    seeds=5,
    views=(
        Verdicts(),
        Curve(K, by="arm"),
        Curve(K, by="arm", column="cost.epoch_seconds"),
        CellForest(),
    ),
    smoke={K: [10, 20], "train.epochs": 3},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
