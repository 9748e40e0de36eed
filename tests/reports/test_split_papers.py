"""Which published numbers of a split may stand beside ours, and that they are the printed ones."""

import math
from typing import cast

import pytest

from mmrec.models.sibrar import SiBraR
from mmrec.reports import papers, split_papers
from mmrec.reports.arm_exhibits import of_view
from mmrec.study.trials import Trial
from mmrec.study.views import Published
from mmrec.training import RunConfig, TrainConfig
from tests.reports.compared import study

NAME = "sibrar-cold-start"
PUBLISHED = cast(papers.BySplit, papers.source(Published(NAME)))
CONFIG = Trial(
    RunConfig(
        model=SiBraR(
            dim=48, common_dim=96, hidden=(72, 72), modalities=("genres", "interactions", "text")
        ),
        train=TrainConfig(epochs=7, batch_size=2048, negatives=3),
    )
).to_json()


def cold(dataset="ml-1m", split="cold-item", protocol="split-items"):
    scores = {
        ("SiBraR SC", "baseline"): [0.28, 0.30],
        ("SiBraR SC", "text=noise"): [0.01, 0.01],
        ("MuBraR SC", "baseline"): [0.2, math.nan],
        ("CLCRec", "baseline"): [0.1, 0.1],
        ("CLCRec lambda", "baseline"): [0.9, 0.9],
        ("Random", "baseline"): [0.04, 0.04],
    }

    def more(arm, condition, seed, score):
        others = {"precision@10": 2 * score, "coverage@10": 0.05, "map@10": score / 2}
        return {f"test.{name}": value for name, value in others.items()} | {"config": CONFIG}

    data = {"name": dataset, "split": split, "num_users": 6040, "num_items": 3260}
    data |= {"interactions": {"train": 700, "valid": 100, "test": 200}}
    shapes = {"genres": "tags, 18 tags", "text": "dense, 384 columns", "title": "dense, 9 columns"}
    data |= {"modalities": shapes}
    facts = {"dataset": data, "protocol": {"name": protocol, "text": "in our words"}}
    return study(scores, more, ["Random"], seeds=[0, 1], tune=6, **facts)


def test_the_numbers_of_the_split_and_dataset_stand_beside_the_arm_that_is_the_model():
    table = split_papers.beside(cold(), PUBLISHED)
    rows = table[table["metric"] == "precision@10"].set_index("theirs")
    assert rows["published"].to_dict() == {
        "SiBraR_one": 0.2108, "SiBraR_best": 0.2350, "CLCRec": 0.1644, "Rand": 0.0463,
    }  # fmt: skip
    assert rows["arm"].tolist() == ["SiBraR SC", "SiBraR SC", "CLCRec", "Random"]
    assert rows["ours"].tolist() == pytest.approx([0.58, 0.58, 0.2, 0.08])
    assert rows.loc["SiBraR_best", "ratio"] == pytest.approx(0.58 / 0.2350)
    ndcg = table[table["metric"] == "ndcg@10"].set_index("arm")
    assert ndcg["published"].to_dict() == {"SiBraR SC": 0.2994, "MuBraR SC": 0.2949}
    assert ndcg["ours"].tolist() == pytest.approx([0.29, 0.2])
    assert ndcg["n"].tolist() == [2, 1]
    assert set(ndcg["source"]) == {"TORS 2025"}


def test_a_metric_that_is_another_quantity_is_left_out_with_the_reason():
    (shown, _) = of_view(cold(), Published(NAME))
    assert "coverage@10" not in set(shown.table["metric"])
    # SiBraR SC .58 by .2350, CLCRec .2 by .1644, Random .08 by .0463: one order.
    assert "Rank correlation: Precision@10 1.00 (3 arms)," in shown.finding
    assert "Coverage@10 is left out: theirs is a share of the ranked part's items" in shown.finding
    warm = split_papers.beside(cold(split="random", protocol="full"), PUBLISHED)
    assert warm.loc[warm["metric"] == "coverage@10", "published"].tolist() == [0.4986]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"protocol": "full"}, "the protocol is full, theirs is split-items"),
        ({"split": "random"}, "the protocol is split-items, theirs is full"),
        ({"split": "leave-one-out", "protocol": "full"}, "the split is leave-one-out"),
        ({"dataset": "planted-five"}, "the dataset is planted-five; there are published numbers"),
    ],
    ids=["protocol", "the split's protocol", "split", "dataset"],
)
def test_no_published_number_stands_beside_another_protocol_split_or_dataset(changes, why):
    assert split_papers.beside(cold(**changes), PUBLISHED).empty
    (said,) = of_view(cold(**changes), Published(NAME))
    assert said.finding.startswith(f"No published column stands here: {why}")
    assert said.table.empty
    assert said.figure is None


def test_the_nearest_dataset_stands_under_its_own_name_and_without_a_ratio():
    table = split_papers.beside(cold("lfm2k"), PUBLISHED)
    assert set(table["dataset"]) == {"Onion"}
    assert table["ratio"].isna().all()
    best = table[(table["theirs"] == "SiBraR_best") & (table["metric"] == "precision@10")]
    assert best["published"].tolist() == [0.1301]
    numbers, apart = of_view(cold("lfm2k"), Published(NAME))
    assert "Onion, the nearest to lfm2k but another dataset" in numbers.finding
    assert apart.table["theirs"].iloc[0].startswith("Music4All-Onion: 5,192 users")


def test_what_differs_is_said_in_words_on_both_sides():
    _, apart = of_view(cold(split="given", protocol="full"), Published(NAME))
    said = apart.table.set_index("what")
    assert list(said.index) == [
        "data", "features", "split", "protocol", "size", "tuning", "seeds",
    ]  # fmt: skip
    assert said.loc["data", "ours"] == "ml-1m: 6,040 users, 3,260 items, 1,000 interactions"
    assert said.loc["features", "ours"] == "genres: tags, 18 tags; text: dense, 384 columns"
    assert said.loc["split", "ours"] == "given, the file's own: 70 % train, 10 % valid, 20 % test"
    assert said.loc["size", "ours"] == (
        "SiBraR: dim 48, common dim 96, hidden (72, 72), batches of 2,048, 3 negatives, at most 7"
        " epochs"
    )
    assert said.loc["tuning", "ours"] == "6 trials an arm on validation"
    assert (said.loc["seeds", "theirs"], said.loc["seeds", "ours"]) == ("1", "2")
    assert (said["theirs"] != "").all()


def test_the_printed_table_holds_together():
    table = papers.printed(PUBLISHED)
    assert not table.duplicated(["source", "split", "metric", "model"]).any()
    values = table[["ML-1M", "Onion", "Amazon"]]
    assert values.min().min() > 0
    assert values.max().max() < 1
    assert table.loc[table["split"] == "cold user", "Amazon"].isna().all()
    # Popularity shows every user the same ten of the 330 items that are ranked.
    shown = table[(table["metric"] == "coverage@10") & (table["model"] == "Pop")]
    assert shown[["split", "ML-1M"]].to_numpy().tolist() == [["cold item", round(10 / 330, 4)]]
    # Precision and recall of one list share their hits, so that they put models in one order
    # where users have alike many items to find.
    both = table[table["metric"].isin(("precision@10", "recall@10"))]
    assert both.groupby("metric").size().tolist() == [27, 27]
    for split in ("warm", "cold item"):
        by_model = both[both["split"] == split].pivot(
            index="model", columns="metric", values="Amazon"
        )
        assert by_model.corr(method="spearman").min().min() > 0.9
