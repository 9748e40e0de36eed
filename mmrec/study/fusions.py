"""The arms of studies of semantic IDs: which modalities an ID has, how they are fused, what size.

Zhu et al. (arXiv 2503.23333) tell MGR-EF, one ID of all modalities, from MGR-LF, an ID a modality,
and the latter from MGR-LF++, with modalities aligned first and a token where they meet; TIGER is
the same recommender with one modality. SASRec, which knows none, has the softmax over all items:
with it, it is a stronger baseline than with sampled negatives (see `mmrec.models.sasrec`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mmrec.models.mgr import MGR
from mmrec.models.sasrec import SASRec
from mmrec.nn.quantiser import Quantiser
from mmrec.training import RunConfig, TrainConfig

UNIMODAL = ("TIGER text", "TIGER image")
"""In the order of the modalities of an ID."""
EARLY, NAIVE, BEST = "MGR-EF", "MGR-LF", "MGR-LF++"
FUSED: dict[str, Mapping[str, Any]] = {
    EARLY: {"fusion": "early", "alignment": "none"},
    NAIVE: {"alignment": "none", "transition_tokens": False},
    BEST: {},
    f"{BEST} B": {"alignment": "translation"},
    f"{BEST} -alignment": {"alignment": "none"},
    f"{BEST} -tokens": {"transition_tokens": False},
}
"""Arm that uses both modalities -> how it differs from MGR-LF++; B is the other reading of what
aligning is."""
GROUPS = {
    "SASRec": "no modality",
    **dict.fromkeys(UNIMODAL, "one modality"),
    **{arm: "early fusion" if arm == EARLY else "late fusion" for arm in FUSED},
}
"""Arm -> where a report shows it; all arms that there are, in their order."""

KS = (5, 10, 20)
"""Lengths of lists; the search has 20 beams."""
TRAIN = TrainConfig(patience=0, optimizer="adamw", weight_decay=1e-4)


@dataclass(frozen=True)
class Size:
    """How large models are and how long they train; all know as many items of a history."""

    mgr: MGR
    train: TrainConfig
    sasrec: SASRec
    sasrec_train: TrainConfig


def _mgr(dim: int, heads: int, ff: int, layers: int, **others: Any) -> MGR:
    """Heads of 16 and histories of 5; a position's probabilities add up over its own codes."""
    sizes = {"dim": dim, "heads": heads, "head_dim": 16, "ff": ff, "history": 5}
    layers_of = {"encoder_layers": layers, "decoder_layers": layers}
    return MGR(**sizes, **layers_of, output="level", **others)


SMALL_QUANTISER = Quantiser(levels=2, size=16, hidden=(64,), latent=16, steps=500)
SIZES = {
    "small": Size(
        _mgr(32, 2, 64, 1, quantiser=SMALL_QUANTISER),
        replace(TRAIN, epochs=40, eval_every=10, lr=1e-2, batch_size=256),
        SASRec(dim=32, history=5, dropout=0.2, loss="softmax"),
        replace(TRAIN, epochs=60, eval_every=10, lr=5e-3, batch_size=64),
    ),
    "reduced": Size(
        _mgr(64, 4, 256, 2, targets_per_user=2),
        replace(TRAIN, epochs=5, eval_every=5, lr=3e-3, batch_size=128),
        SASRec(dim=64, history=5, dropout=0.2, loss="softmax"),
        replace(TRAIN, epochs=20, eval_every=5, lr=1e-3, batch_size=128),
    ),
    "paper": Size(
        MGR(),
        replace(TRAIN, epochs=200, eval_every=5, patience=10, lr=1e-3, batch_size=512),
        SASRec(dim=128, history=20, dropout=0.2, loss="softmax"),
        replace(TRAIN, epochs=200, eval_every=5, patience=10, lr=1e-3, batch_size=128),
    ),
}
"""small is for planted data; reduced for instruments on a CPU, with two targets of a user an epoch
in place of all; paper is GRID's, by the same group: 128 wide, 6 heads of 64, 4 + 4 layers,
histories of 20, 3 levels of 256 code words."""


def fusion_arm(label: str, size: Size, modalities: tuple[str, str]) -> RunConfig:
    """An arm by its label; KeyError where there is none."""
    if label == "SASRec":
        return RunConfig(model=size.sasrec, train=size.sasrec_train, ks=KS)
    if label in UNIMODAL:
        one = {"modalities": (modalities[UNIMODAL.index(label)],)}
        model = replace(size.mgr, **one, **FUSED[NAIVE])
    else:
        model = replace(size.mgr, modalities=modalities, **FUSED[label])
    return RunConfig(model=model, train=size.train, ks=KS)
