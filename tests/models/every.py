"""Every model in every variant it has, small enough for tests."""

import dataclasses
from typing import Any, Literal, get_args, get_type_hints

from mmrec.config import override
from mmrec.models import all_models
from mmrec.models.base import ModelConfig
from mmrec.nn.quantiser import Quantiser

SMALL: dict[str, Any] = {
    "dim": 8, "common_dim": 8, "hidden": (8, 8), "shared_hidden": (8, 8), "content_hidden": (8, 8),
    "reduction": 2, "blocks": 1,
    "history": 4, "targets_per_user": 1, "heads": 2, "head_dim": 4, "ff": 16,
    "encoder_layers": 1, "decoder_layers": 1, "align_epochs": 1,
    "quantiser": Quantiser(kind="rqkmeans", levels=2, size=4), "ids_seed": 0,
}  # fmt: skip
"""Widths that a model may have, and what divides a width; all else stays at its defaults."""


def small(model: type[ModelConfig], variant: str = "") -> ModelConfig:
    names = {field.name for field in dataclasses.fields(model)}
    changes = {k: v for k, v in SMALL.items() if k in names}
    return override(model(), changes | ({"variant": variant} if variant else {}))


CONFIGS = {
    f"{model.__name__}{'-' * bool(variant)}{variant}": small(model, variant)
    for model in all_models()
    for variant in get_args(get_type_hints(model).get("variant", Literal[""]))
}
"""By name: `BPR`, or `FREEDOM-described`."""
TRAINED = {name: cfg for name, cfg in CONFIGS.items() if not cfg.closed_form}
CLOSED_FORMS = {name: cfg for name, cfg in CONFIGS.items() if cfg.closed_form}


def readings(cfg: ModelConfig) -> dict[str, ModelConfig]:
    """With feature tables as they are and, where the model can train them, trained."""
    if not hasattr(cfg, "train_features"):
        return {"frozen": cfg}
    return {
        "frozen": override(cfg, {"train_features": False}),
        "trained": override(cfg, {"train_features": True}),
    }


READERS = {
    f"{name}-{kind}": reading
    for name, cfg in CONFIGS.items()
    if cfg.CARD.modalities != "none"
    for kind, reading in readings(cfg).items()
}
"""What takes modalities: `VBPR-released-frozen`."""
