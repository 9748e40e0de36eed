"""MuBraR: SiBraR's control, with a branch of its own for every modality.

Ganhoer et al., "Single-Branch Network Architectures to Close the Modality Gap in Multimodal
Recommendation", TORS 2025. Its code was not available: inputs, losses and averaging are SiBraR's
(`mmrec.models.sibrar`), and each branch has the widths of SiBraR's one, so that the two differ in
weight sharing alone.

The paper's variants: MuBraR is `sampling="none"` (the default: training averages all modalities
that an entity has, and there is no InfoNCE), MuBraR_S `sampling="single"` (or "pairwise" with
`alpha=0`), MuBraR_SC `sampling="pairwise"`.
"""

from mmrec.config import config
from mmrec.models.base import Card
from mmrec.models.sibrar import SiBraR
from mmrec.nn.modalities import Sampling


@config
class MuBraR(SiBraR):
    """Defaults: SiBraR's, without sampling and InfoNCE."""

    CARD = Card("MuBraR", 2025, "TORS", "a branch for each modality", "one or more, users' too", "")

    sampling: Sampling = "none"
    """As in SiBraR; here "none" is the paper's plain MuBraR."""

    def num_branches(self, num_modalities: int) -> int:
        """One a modality."""
        return num_modalities
