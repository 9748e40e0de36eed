"""Random: for every user a list of all items in random order; the control that knows nothing.

A score is a hash of user, item and a seed that is drawn from `init`: scoring again, or in chunks of
users and items, gives the same lists. It is a closed form in all but this: each seed has its own.

Letters in names: U users, I items, B users of a chunk, C candidate items.
"""

import torch
from torch import Tensor

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.models.base import Card, ModelConfig
from mmrec.models.closed_form import ClosedForm
from mmrec.nn.tables import Constant

BITS = 24
"""Of a score: what float32 holds exactly. Two items in 16.8 million tie, and are then ranked in the
evaluator's random order."""


@config
class RandomRanking(ModelConfig):
    """Nothing to choose. The year is that of the comparison which it is from, SiBraR's."""

    CARD = Card("Random", 2024, "RecSys", "one random list a user", "none", "")
    closed_form = True

    def build(self, data: Dataset, init: torch.Generator) -> "RandomModel":
        return RandomModel(data, init)


class RandomModel(ClosedForm):
    """Scores are uniform in [0, 1), each pair's on its own. The tables hold ids."""

    ITEM_ROWS = ()

    def __init__(self, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        self.seed = int(torch.randint(2**62, (), generator=init))
        self.user_U1 = Constant(torch.arange(data.num_users)[:, None])
        self.item_I1 = Constant(torch.arange(data.num_items)[:, None])

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(U, 1) and (I, 1) int64: the ids of the users and items."""
        return self.user_U1.value, self.item_I1.value

    def score(self, user_BD: Tensor, item_ID: Tensor) -> Tensor:
        """(B, C) scores of rows of the two tables of ids."""
        key_B1 = mixed(mixed(user_BD) + self.seed)
        bits_BC = (mixed(key_B1 + mixed(item_ID[:, 0])) >> (64 - BITS)) & (2**BITS - 1)
        return bits_BC.to(torch.get_default_dtype()) / 2**BITS


def mixed(x: Tensor) -> Tensor:
    """A bijection of int64 that spreads every bit over all: the step of SplitMix64.

    Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014. Products
    wrap, and shifts fill with zeros.
    """
    x = x + _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ _shifted(x, shift)) * _signed(factor)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, shift: int) -> Tensor:
    return (x >> shift) & (2 ** (64 - shift) - 1)


def _signed(word: int) -> int:
    """The int64 of the same 64 bits."""
    return word - 2**64 if word >= 2**63 else word
