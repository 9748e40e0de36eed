"""Torch's optimisers, without the compiler.

With a process's first optimiser torch (2.13) imports `torch._dynamo`, to tell it what it should not
compile: 820 modules, 0.9 s and 70 MiB in every worker, and here nothing is compiled.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import nn

OptimizerKind = Literal["adagrad", "adam", "adamw"]

_WRAPPED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
"""What torch wraps for the compiler alone; `step` also turns gradients off."""


def make_optimizer(
    kind: OptimizerKind, weights: Iterable[nn.Parameter], *, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """One that updates all weights in one kernel; everything else is as torch has it."""
    return _KINDS[kind](weights, lr=lr, weight_decay=weight_decay, fused=True)


def _uncompiled(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The same class, of which no method imports the compiler."""
    plain = {name: _inside(getattr(kind, name)) for name in _WRAPPED}
    step = torch.no_grad()(_inside(kind.step))
    return type(kind.__name__, (kind,), {**plain, "step": step})


def _inside(method: Callable[..., Any]) -> Callable[..., Any]:
    return getattr(method, "__wrapped__", method)


_KINDS = {
    "adam": _uncompiled(torch.optim.Adam),
    "adamw": _uncompiled(torch.optim.AdamW),
    "adagrad": _uncompiled(torch.optim.Adagrad),
}
