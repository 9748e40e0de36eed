"""Should a user's multimodal profile be the sum of the items' features, or their mean?

Dai et al. (arXiv 2601.11151, section 3.3.1) sum, so as not to "dilute" active users, and see a
slight loss with the mean; that sums of unlike interests may be incoherent is left open. Here both
are compared overall, and for users by the length of their history and the diversity of their
interests. The planted users differ in both: half of them have two tastes that have nothing in
common.

The file is not called `profile.py`: Python's own module of that name would be hidden from all
scripts in this folder, and with it what torch's compiler imports.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

from mmrec.cli import main
from mmrec.study.arms import arm
from mmrec.study.claims import Better, Claim, Where, Worse
from mmrec.study.study import Asked, Choice, Study
from mmrec.study.tuning import Tuning
from mmrec.study.views import CellForest, Strata, Verdicts
from mmrec.training import TrainConfig

PAPER = "Dai et al., arXiv 2601.11151, section 3.3.1: sum, not mean"
OPEN = "Dai et al., arXiv 2601.11151: left open by the paper (incoherent sums)"
TRAIN = TrainConfig(epochs=40, patience=5, lr=5e-3, batch_size=1024)
TRAINS = {"lfm2k": TrainConfig(epochs=40, patience=5, lr=5e-3, batch_size=4096)}
OBJECTIVE = "ndcg@10"
GROUPS_OF_USERS = {
    "short-histories": "short histories",
    "long-histories": "long histories",
    "narrow-interests": "narrow interests",
    "wide-interests": "wide interests",
}


def shape(study: Study, asked: Asked) -> Study:
    """A sum and a mean arm for each reading of the attention."""
    train = TRAINS.get(asked.dataset, TRAIN)
    knobs = {"modalities": asked.modalities, "train_features": False, "dim": 32}
    readings = asked.choices["readings"]
    arms = {
        f"{how}, {reading}": arm("CRANE", train, {**knobs, "profile": how, "reading": reading})
        for reading in readings
        for how in ("sum", "mean")
    }
    return replace(study, arms=arms, claims=tuple(claims(readings)))


def claims(readings: tuple[str, ...]) -> Iterator[Claim]:
    """The paper's, and for each group of users which of the two serves it better."""
    for reading in readings:
        total, mean = (Where({"arm": f"{how}, {reading}"}) for how in ("sum", "mean"))
        topic = "the sum ranks better than the mean"
        yield Claim(
            f"{reading}: {topic}", PAPER, Better(total, than=mean), topic, f"sum, {reading}"
        )
        for stratum, words in GROUPS_OF_USERS.items():
            wide = stratum == "wide-interests"
            judge, side, source = (Worse, "worse", OPEN) if wide else (Better, "better", PAPER)
            topic = f"the sum ranks {side} for users with {words}"
            test = judge(total, than=mean, column=f"test.{OBJECTIVE}:{stratum}")
            yield Claim(f"{reading}: {topic}", source, test, topic, f"sum, {reading}")


STUDY = Study(
    name="user_profile",
    question="Should a user's multimodal profile be the sum of the items' features, or their mean?",
    base=arm("CRANE", TRAIN),
    dataset="planted-diverse",
    modalities={"lfm2k": ("text", "vggish")},
    shape=shape,
    tuning=Tuning(trials=6),
    choices=(
        Choice("readings", "what CRANE correlates", ("nodes", "features"), ("nodes", "features")),
    ),
    seeds=10,
    views=(CellForest(), Verdicts(), Strata(control="mean, nodes")),
    smoke={"train.epochs": 3},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
