"""Which parts of MambaRec does its ranking need, and can dilation matter at all?

Ren et al. (CIKM 2025, arXiv 2509.09114) report small losses without MMD, without InfoNCE and with
one attention in place of two, and ascribe much to dilated convolutions. As released these see maps
of one pixel, where no rate can have an effect; here the features also become real maps of 4 x 4.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

from mmrec.cli import main
from mmrec.config import override
from mmrec.models.mambarec import MambaRec
from mmrec.study.claims import Better, Claim, Where
from mmrec.study.study import Asked, Study
from mmrec.study.views import CellForest
from mmrec.training import RunConfig, TrainConfig

PAPER = "Ren et al., CIKM 2025, ablation"
DREAM = "Ren et al., CIKM 2025, figure 2: branches of dilation 6, 12 and 18"
WHOLE = "MambaRec"
TAKEN = {
    "without MMD": ({"model.mmd_weight": 0.0}, "MMD helps", "-1.2 % Recall@20 (Sports)"),
    "without InfoNCE": ({"model.cl_weight": 0.0}, "InfoNCE helps", "-0.9 % NDCG@20 (Baby)"),
    "channel attention alone": (
        {"model.attention": "channel"},
        "two attentions rank better than that of channels",
        "-1.8 % Recall@20 with one (Baby)",
    ),
    "spatial attention alone": (
        {"model.attention": "spatial"},
        "two attentions rank better than the spatial one",
        "-1.8 % Recall@20 with one (Baby)",
    ),
}
"""Arm -> what is set, the claim, and the paper's figure for it."""
MAPS = {"model.spatial_shape": (2, 4, 4)}
RATES = {"rates 6, 12, 18": (6, 12, 18), "rates 1, 2, 3": (1, 2, 3), "rates 1, 1, 1": (1, 1, 1)}

BASE = RunConfig(
    model=MambaRec(dim=32, ui_layers=2, train_features=False),
    train=TrainConfig(epochs=30, patience=5, lr=5e-3, lr_decay=0.96, batch_size=1024),
)
LFM2K = override(BASE, {"train.epochs": 50, "train.batch_size": 4096})


def shape(study: Study, asked: Asked) -> Study:
    """The whole model, each part taken away, real maps under three dilations, and the release."""
    base = override(study.base, {"model.modalities": asked.modalities})
    arms = {WHOLE: base}
    arms |= {name: override(base, gone) for name, (gone, *_) in TAKEN.items()}
    arms |= {
        f"4 x 4 maps, {name}": override(base, {**MAPS, "model.dilations": rates})
        for name, rates in RATES.items()
    }
    released = override(base, {"model.variant": "released"})
    arms |= {
        "as released": released,
        "as released, rates 1, 2, 3": override(released, {"model.dilations": (1, 2, 3)}),
    }
    return replace(study, base=base, arms=arms, claims=tuple(claims()))


def claims() -> Iterator[Claim]:
    """The paper's ablations, and what dilation does where it can do something."""
    whole = Where({"arm": WHOLE})
    for name, (_, words, figure) in TAKEN.items():
        test = Better(whole, than=Where({"arm": name}))
        yield Claim(f"{words[:1].upper()}{words[1:]}", f"{PAPER}: {figure}", test)
    wide, near, none = (Where({"arm": f"4 x 4 maps, {name}"}) for name in RATES)
    yield Claim("On real maps, dilation matters: 1, 2, 3 ranks better than 1, 1, 1", DREAM,
                Better(near, than=none))  # fmt: skip
    yield Claim("On real maps, rates 6, 12, 18 rank better than 1, 1, 1", DREAM,
                Better(wide, than=none))  # fmt: skip
    yield Claim("Real maps rank better than maps of one pixel", DREAM, Better(wide, than=whole))
    yield Claim("The description ranks better than the release", PAPER,
                Better(whole, than=Where({"arm": "as released"})))  # fmt: skip


STUDY = Study(
    name="mambarec_ablation",
    question="Which parts of MambaRec does its ranking need, and can dilation matter at all?",
    base=BASE,
    bases={"lfm2k": LFM2K},
    modalities={"lfm2k": ("text", "vggish")},
    shape=shape,
    seeds=5,
    views=(CellForest(),),
    smoke={"train.epochs": 3},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
