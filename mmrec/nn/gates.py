"""A learned scalar a modality, between 0 and 2: a model that may knock a modality out by itself.

Our addition; no released model has it. A gate is 2 sigmoid(logit) with a logit that starts at 0,
so that it starts at exactly 1, where a gated model is the ungated one, and can close towards 0.
No draw is made for it; weight decay, where there is any, pulls it towards 1.

Where a model puts it: on what a modality brings, at the first place where its scale is felt. In
front of a map (g x) W is g (x W), and the bias is not gated. In front of a division by the length
it would be without effect, so there it comes right after. A graph of cosines feels no scale of the
features either: there the gate is on the graph's share.

Letters in names: M modalities.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmrec.nn.init import zeros


class ModalityGates(nn.Module):
    """The gates of the modalities named, in that order."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.logit_M = zeros(len(self.names))

    def forward(self) -> Tensor:
        """(M,) the gates."""
        return 2 * self.logit_M.sigmoid()

    def of(self, which: str | int) -> Tensor:
        """The 0-dim gate of a modality, by name or place; KeyError names those there are."""
        if isinstance(which, str) and which not in self.names:
            raise KeyError(f"no gate for {which!r}; there are: {', '.join(self.names)}")
        at = self.names.index(which) if isinstance(which, str) else which
        return 2 * self.logit_M[at].sigmoid()

    def measures(self) -> dict[str, float]:
        """`gate.NAME` of every modality."""
        with torch.no_grad():
            values = self().tolist()
        return {f"gate.{name}": value for name, value in zip(self.names, values, strict=True)}


def gates_if(wanted: bool, names: Sequence[str]) -> ModalityGates | None:
    """Gates, or None: then there is no parameter, and a model's numbers are those without."""
    return ModalityGates(names) if wanted else None


def gated(gates: ModalityGates | None, which: str | int, values: Tensor) -> Tensor:
    """The values, of any shape, times a modality's gate if there are gates."""
    return values if gates is None else gates.of(which) * values


def gate_measures(gates: ModalityGates | None) -> dict[str, float]:
    """`gate.NAME` of every modality; nothing without gates."""
    return {} if gates is None else gates.measures()
