"""How do the item embeddings of each modality change in training?

Ye et al. (arXiv 2508.07399) look at embeddings before and after training in t-SNE pictures of one
run. Here each trial keeps a sample of its items, the same in all of them: raw features, what the
untrained and the trained model make of each modality, and the embeddings that are scored. The
report gives rank, spread, hubs and neighbours in numbers with intervals over seeds, and pictures
beside them. A condition without any content shows what training makes of noise.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

from mmrec.cli import main
from mmrec.study.arms import arm, knockouts
from mmrec.study.claims import Claim, Equivalent, Where, Worse
from mmrec.study.study import Asked, Study
from mmrec.study.tuning import Tuning
from mmrec.study.views import Clouds, ConditionForest
from mmrec.training import TrainConfig

CONCATENATION, GRAPHS = ("VBPR", "BM3"), ("MMGCN", "FREEDOM", "MGCN", "SMORE")
TRAIN = TrainConfig(epochs=100, patience=10, batch_size=512)
PAPER = "Ye et al., arXiv 2508.07399, appendix tables 4 and 5: NDCG@10"


def shape(study: Study, asked: Asked) -> Study:
    """The arms with this dataset's modalities; the baseline, and noise in place of all of them."""
    knobs = {"modalities": asked.modalities, "train_features": False}
    arms = {name: arm(name, TRAIN, knobs) for name in CONCATENATION + GRAPHS}
    baseline, noise = knockouts([asked.modalities], ["noise"], ["train+eval"])
    return replace(study, arms=arms, conditions=(baseline, noise), claims=tuple(claims(noise.name)))


def claims(noise: str) -> Iterator[Claim]:
    """What the embeddings should explain: the paper gives no numbers about their distribution."""
    for name in CONCATENATION + GRAPHS:
        without = Where({"arm": name, "condition": noise})
        whole = Where({"arm": name, "condition": "baseline"})
        topic, test = "noise for all modalities hurts", Worse(without, than=whole)
        if name in CONCATENATION:
            topic, test = "noise for all modalities changes nothing", Equivalent(without, whole)
        yield Claim(f"{name}: {topic}", PAPER, test, topic, name)


STUDY = Study(
    name="embedding_distribution",
    question="How do the item embeddings of each modality change in training?",
    base=arm("VBPR", TRAIN),
    modalities={"lfm2k": ("text", "vggish", "whisper")},
    shape=shape,
    tuning=Tuning(trials=20),
    seeds=5,
    clouds=True,
    views=(
        Clouds("measures"),
        Clouds("relations"),
        Clouds("spectra"),
        Clouds("pictures"),
        ConditionForest(),
    ),
    smoke={"train.epochs": 5},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
