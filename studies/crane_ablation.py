"""Which parts of CRANE does its ranking need, and when do its users collapse?

Dai et al. (arXiv 2601.11151, sections 4.4 and 4.6) report that ranking falls without recursive
attention, without the item-item graph and without the contrast, and that plain concatenation is
often no better than the best single modality; users become identical where too many edges are
dropped or the contrast weighs too much. Here every part is taken away by itself, and the share of
dropped edges is crossed with the contrast's weight.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

from mmrec.cli import main
from mmrec.config import override
from mmrec.models.crane import CRANE
from mmrec.study.arms import arm
from mmrec.study.claims import Better, Cheaper, Claim, NoWorse, Where, Worse
from mmrec.study.shapes import Rises
from mmrec.study.study import Asked, Factor, Study
from mmrec.study.views import CellForest, Curve, HeatMap
from mmrec.training import RunConfig, TrainConfig

DEPTH, II = "model.depth", "model.item_layers"
DROPOUT, BETA = "model.dropout", "model.cl_weight"
ABLATION = "Dai et al., arXiv 2601.11151, section 4.4 (ablations)"
SINGLE = "Dai et al., arXiv 2601.11151, section 4.6 (modalities)"
FAILURE = "Dai et al., arXiv 2601.11151, failure signatures: mode collapse"
FASTER = "Dai et al., arXiv 2601.11151: faster convergence on small data"

DIM = 32
BASE = RunConfig(
    model=CRANE(dim=DIM, depth=3, item_layers=1, dropout=0.5, train_features=False),
    train=TrainConfig(epochs=30, patience=5, lr=5e-3, batch_size=1024),
)
LFM2K = override(BASE, {"train.epochs": 50, "train.batch_size": 4096})
AT_BASE = {DEPTH: 3, II: 1, DROPOUT: 0.5, BETA: 0.01}


def shape(study: Study, asked: Asked) -> Study:
    """The study with this dataset's modalities, each of them alone, and models to compare with."""
    modalities = asked.modalities
    base = override(study.base, {"model.modalities": modalities})
    alone = {f"{name} alone": override(base, {"model.modalities": (name,)}) for name in modalities}
    knobs = {"modalities": modalities, "train_features": False, "dim": DIM}
    others = {name: arm(name, base.train, knobs) for name in ("FREEDOM", "MGCN", "LightGCN")}
    released = {"CRANE as released": override(base, {"model.variant": "released"})}
    return replace(
        study,
        base=base,
        controls={**alone, **released, **others},
        claims=tuple(claims(tuple(alone))),
    )


def claims(alone: tuple[str, ...]) -> Iterator[Claim]:
    """The paper's, each against the whole model."""
    whole = Where(AT_BASE)
    for words, gone in (
        ("recursive attention", {DEPTH: 0}),
        ("the item-item graph", {II: 0}),
        ("the contrast", {BETA: 0.0}),
    ):
        test = Worse(Where({**AT_BASE, **gone}), than=whole)
        yield Claim(f"Without {words} it ranks worse", ABLATION, test)
    concatenated = Where({**AT_BASE, DEPTH: 0})
    single = Where({"label": alone})
    yield Claim(
        "All modalities rank better than the best alone", SINGLE, Better(whole, than=single)
    )
    yield Claim(
        "Plain concatenation is no better than the best modality alone",
        SINGLE,
        NoWorse(single, than=concatenated),
    )
    for path, words in ((DROPOUT, "more dropped edges"), (BETA, "a heavier contrast")):
        others = {name: level for name, level in AT_BASE.items() if name != path}
        test = Rises(path, 1.0, Where(others), column="measure.user_cosine")
        yield Claim(f"With {words} users grow alike", FAILURE, test)
    yield Claim(
        "It converges in fewer epochs than FREEDOM and MGCN",
        FASTER,
        Cheaper(whole, than=Where({"label": ("FREEDOM", "MGCN")}), column="cost.converged_epoch"),
    )
    for name in ("FREEDOM", "MGCN", "CRANE as released"):
        test = Better(whole, than=Where(label=name))
        yield Claim(f"It ranks better than {name}", "Dai et al., arXiv 2601.11151, abstract", test)


STUDY = Study(
    name="crane_ablation",
    question="Which parts of CRANE does its ranking need, and when do its users collapse?",
    base=BASE,
    bases={"lfm2k": LFM2K},
    factors=(
        Factor(DEPTH, levels=(0, 3)),
        Factor(II, levels=(0, 1)),
        Factor(DROPOUT, levels=(0.0, 0.5, 0.9)),
        Factor(BETA, levels=(0.0, 0.01, 0.1, 1.0)),
    ),
    sweeps=((DEPTH,), (II,), (DROPOUT, BETA)),
    modalities={"lfm2k": ("text", "vggish")},
    shape=shape,
    seeds=5,
    views=(
        CellForest(),
        HeatMap(x=BETA, y=DROPOUT),
        Curve(BETA, by=DROPOUT, column="measure.user_cosine"),
        Curve(BETA, by=DROPOUT, column="cost.converged_epoch"),
    ),
    smoke={DROPOUT: [0.5], BETA: [0.01], "train.epochs": 3},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
