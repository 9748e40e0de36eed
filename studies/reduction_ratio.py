"""How far can MambaRec reduce the features, and what does that cost or save?

Ren et al. (CIKM 2025, arXiv 2509.09114) divide the width of the features by r before alignment,
find r = 8 best and cheaper, and leave open whether that holds for denser or sparser interactions.
As released the reduction is a detour of two maps with nothing between them, which adds parameters
unless r is large. Here parameters, time and memory are measured beside ranking.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

from mmrec.cli import main
from mmrec.config import override
from mmrec.data.conditions import Condition
from mmrec.models.mambarec import MambaRec
from mmrec.study.claims import Better, Cheaper, Claim, NoWorse, Where
from mmrec.study.shapes import BestLevel, Flat
from mmrec.study.study import Asked, Factor, Study
from mmrec.study.tuning import Tuning
from mmrec.study.views import Curve, Pareto
from mmrec.training import RunConfig, TrainConfig

R, MMD, BATCH = "model.reduction", "model.mmd_weight", "train.batch_size"
PAPER = "Ren et al., CIKM 2025, sensitivity analysis: Recall@20 over r"
COST = "Ren et al., CIKM 2025: 25 % less time and 30 % fewer parameters at r = 8"
OPEN = "Ren et al., CIKM 2025, open question 3: other densities than Amazon's"
MMD_HELPS = "Ren et al., CIKM 2025, ablation: -1.2 % Recall@20 without MMD (Sports)"
DIRECT = "not reduced"
COSTS = {
    "cost.parameters": "has fewer parameters",
    "cost.epoch_seconds": "trains faster",
    "cost.peak_mib": "needs less memory",
}

BASE = RunConfig(
    model=MambaRec(dim=32, ui_layers=2, reduction=8, train_features=False),
    train=TrainConfig(epochs=30, patience=5, lr=5e-3, lr_decay=0.96, batch_size=1024),
)
LFM2K = override(BASE, {"train.epochs": 50, "train.batch_size": 4096})


def shape(study: Study, asked: Asked) -> Study:
    """With the dataset's modalities and a quarter of its batches, planted data also thinned."""
    base = override(study.base, {"model.modalities": asked.modalities})
    sparser = (Condition(density=0.5),) if asked.dataset.startswith("planted") else ()
    claims = (*reduction_claims(base), *(c for s in sparser for c in density_claims(base, s)))
    size = base.train.batch_size
    sizes = Factor(BATCH, levels=(size // 4, size))
    return replace(
        study,
        base=base,
        factors=(*study.factors, sizes),
        sweeps=(*study.sweeps, (BATCH,)),
        conditions=(Condition(), *sparser),
        controls={DIRECT: override(base, {R: 0})},
        claims=claims,
    )


def others(base: RunConfig) -> dict[str, object]:
    """The levels of all that stays where r is turned."""
    return {MMD: 0.15, BATCH: base.train.batch_size, "condition": "baseline"}


def reduction_claims(base: RunConfig) -> Iterator[Claim]:
    """The paper's: r = 8 is best, hardly worse than no reduction, and cheaper; MMD helps.

    Without a reduction there may be two maps still, of which the first keeps the width, or but one.
    """
    line = Where(others(base))
    eight, whole = (Where({**line.conditions, R: r}) for r in (8, 1))
    yield Claim("r = 8 ranks best", PAPER, BestLevel(R, 8, line))
    yield Claim("r = 8 ranks no worse than r = 1", COST, NoWorse(eight, than=whole))
    yield Claim("Ranking does not depend on r", "the claim against the paper's", Flat(R, line))
    for column, words in COSTS.items():
        yield Claim(f"r = 8 {words} than r = 1", COST, Cheaper(eight, than=whole, column=column))
    for column, words in COSTS.items():
        test = Cheaper(eight, than=Where(label=DIRECT), column=column)
        yield Claim(f"r = 8 {words} than one map without any reduction", COST, test)
    without = Where({**others(base), R: 8, MMD: 0.0})
    weights = Where({**others(base), R: 8, MMD: "> 0"})
    yield Claim("Aligning modalities by MMD helps", MMD_HELPS, Better(weights, than=without))


def density_claims(base: RunConfig, sparser: Condition) -> Iterator[Claim]:
    """What the paper leaves open."""
    line = Where({**others(base), "condition": sparser.name})
    yield Claim("With half of the interactions r = 8 is best too", OPEN, BestLevel(R, 8, line))


STUDY = Study(
    name="reduction_ratio",
    question="How far can MambaRec reduce the features, and what does that cost or save?",
    base=BASE,
    bases={"lfm2k": LFM2K},
    factors=(
        Factor(R, levels=(1, 2, 4, 8, 12, 16)),
        Factor(MMD, levels=(0.0, 0.1, 0.15, 0.2)),
    ),
    sweeps=((R, "condition"), (MMD,)),
    modalities={"lfm2k": ("text", "vggish")},
    shape=shape,
    tuning=Tuning(trials=6),
    seeds=5,
    views=(
        Curve(R, by="condition"),
        Pareto("cost.epoch_seconds", by=R),
        Pareto("cost.parameters", by=R),
        Pareto("cost.peak_mib", by=R),
        Curve(MMD),
        Curve(BATCH),
        Curve(BATCH, column="cost.epoch_seconds"),
    ),
    smoke={R: [1, 8], MMD: [0.0, 0.15], "train.epochs": 3},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
