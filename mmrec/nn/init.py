"""Initial weights: every one drawn from the generator that is handed in.

Letters in names: F fan-in, O fan-out.
"""

import math
from typing import Literal

import torch
from torch import nn

LinearRule = Literal["kaiming", "default", "xavier_uniform", "xavier_normal"]


def xavier_uniform(rows: int, columns: int, init: torch.Generator) -> nn.Parameter:
    """(rows, columns) from U(-b, b) with b = sqrt(6 / (rows + columns)) (Glorot & Bengio 2010)."""
    return uniform((rows, columns), math.sqrt(6 / (rows + columns)), init)


def xavier_normal(rows: int, columns: int, init: torch.Generator) -> nn.Parameter:
    """(rows, columns) from N(0, s^2) with s = sqrt(2 / (rows + columns))."""
    return normal((rows, columns), math.sqrt(2 / (rows + columns)), init)


def uniform(shape: tuple[int, ...], bound: float, init: torch.Generator) -> nn.Parameter:
    """From U(-bound, bound)."""
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=init))


def normal(shape: tuple[int, ...], deviation: float, init: torch.Generator) -> nn.Parameter:
    """From N(0, deviation^2)."""
    return nn.Parameter(torch.empty(shape).normal_(0.0, deviation, generator=init))


def zeros(*shape: int) -> nn.Parameter:
    """All zero."""
    return nn.Parameter(torch.zeros(*shape))


def kaiming_bound(fan_in: int) -> float:
    """sqrt(6 / fan_in), the bound of a uniform start in front of a ReLU (He et al. 2015)."""
    return math.sqrt(6 / fan_in)


def linear(
    fan_in: int, fan_out: int, init: torch.Generator, rule: LinearRule, *, bias: bool = True
) -> nn.Linear:
    """A linear map.

    Args:
        fan_in: input width.
        fan_out: output width.
        init: where the weights are drawn.
        rule: of the weight. "kaiming": U(+-sqrt(6 / fan_in)), and a bias of 0. The others have
            torch's own bias, U(+-1 / sqrt(fan_in)), and "default" its weight too, likewise;
            "xavier_uniform" and "xavier_normal" as the functions above.
        bias: whether there is one.
    """
    # Without weights, or torch would draw them from its global generator first.
    layer = nn.Linear(fan_in, fan_out, bias=bias, device="meta")
    match rule:
        case "kaiming":
            layer.weight = uniform((fan_out, fan_in), kaiming_bound(fan_in), init)
        case "default":
            layer.weight = uniform((fan_out, fan_in), fan_in**-0.5, init)
        case "xavier_uniform":
            layer.weight = xavier_uniform(fan_out, fan_in, init)
        case "xavier_normal":
            layer.weight = xavier_normal(fan_out, fan_in, init)
    if bias:
        zero = rule == "kaiming"
        layer.bias = zeros(fan_out) if zero else uniform((fan_out,), fan_in**-0.5, init)
    return layer
