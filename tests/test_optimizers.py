"""Torch's own optimisers are what ours must equal, to the last bit."""

import pytest
import torch
from torch import nn

from mmrec.nn.optimizers import OptimizerKind, make_optimizer

TORCH = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "adagrad": torch.optim.Adagrad}


def weights() -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=rng)) for shape in ((5, 3), (3,))]


def train(optimizer: torch.optim.Optimizer, these: list[nn.Parameter], steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        sum((weight**4).sum() for weight in these).backward()
        optimizer.step()


@pytest.mark.parametrize("kind", TORCH)
def test_steps_and_saved_states_are_torch_s(kind: OptimizerKind):
    ours, theirs = weights(), weights()
    words = {"lr": 0.03, "weight_decay": 0.1}
    mine = make_optimizer(kind, ours, **words)
    reference = TORCH[kind](theirs, fused=True, **words)
    train(mine, ours, 3)
    train(reference, theirs, 3)
    # Each goes on from what the other saved.
    goes_on = make_optimizer(kind, ours, **words)
    goes_on.load_state_dict(reference.state_dict())
    follows = TORCH[kind](theirs, fused=True, **words)
    follows.load_state_dict(mine.state_dict())
    train(goes_on, ours, 2)
    train(follows, theirs, 2)
    for one, other, start in zip(ours, theirs, weights(), strict=True):
        assert torch.equal(one, other)
        assert not torch.equal(one, start)
    assert str(goes_on.state_dict()) == str(follows.state_dict())
