"""What trials keep of their item embeddings, and the numbers and pictures made of it."""

import dataclasses
import math
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from mmrec.data.dataset import Dense
from mmrec.data.sampling import Draws
from mmrec.evaluation import PROTOCOLS
from mmrec.models.bpr import BPR
from mmrec.models.popularity import Popularity
from mmrec.models.sibrar import SiBraR
from mmrec.models.vbpr import VBPR
from mmrec.nn.features import values_of
from mmrec.study import clouds
from mmrec.study.cloud_tables import cloud_tables, clouds_from, measured, tsne, umap
from mmrec.study.store import Folder
from mmrec.study.views import Clouds
from mmrec.training import Run, RunConfig, TrainConfig, fit
from tests.models.tiny import ITEMS, tiny


def ended(model, data=None, **how) -> Run:
    cfg = RunConfig(model=model, train=TrainConfig(epochs=3, lr=0.05, batch_size=16))
    run = Run(cfg, data or tiny(), seed=how.pop("seed", 2), protocol=PROTOCOLS["full"], **how)
    list(fit(run))
    return run


# --- at a trial's end


def test_clouds_are_features_their_map_from_init_and_the_trained_map():
    run = ended(VBPR(dim=3))
    kept = clouds.clouds_of(run)
    fresh = VBPR(dim=3).build(tiny(), Draws(2).generator("init"))
    best = run.best_model
    for n, name in enumerate(("tags", "text")):
        raw = values_of(tiny().features[name])
        np.testing.assert_array_equal(kept[f"features/{name}"], raw)
        start = raw @ fresh.map_OF[n].detach().numpy().T
        np.testing.assert_allclose(kept[f"start/{name}"], start, rtol=1e-5, atol=1e-6)
        trained = raw @ best[f"map_OF.{n}"].numpy().T
        np.testing.assert_allclose(kept[f"trained/{name}"], trained, rtol=1e-5, atol=1e-6)
        assert not np.allclose(start, trained, atol=1e-3)
    np.testing.assert_array_equal(kept["start/all"][:, :3], fresh.item_ID.detach().numpy())
    np.testing.assert_array_equal(kept["trained/all"][:, :3], best["item_ID"].numpy())
    assert {cloud.dtype for key, cloud in kept.items() if "items" not in key} == {np.dtype("f4")}


def test_the_sample_is_fixed_and_the_same_at_every_stage():
    data = tiny(missing=True)  # items 1 and 5 lack text, 5 and 9 tags
    kept = clouds.clouds_of(ended(VBPR(dim=3), data), limit=6)
    again = clouds.clouds_of(ended(VBPR(dim=2, reg_weight=0.0), data, seed=9), limit=6)
    items = kept["items/text"]
    assert len(set(items)) == 6
    for name in ("text", "tags", "all"):
        assert kept[f"items/{name}"].tolist() == items.tolist() == again[f"items/{name}"].tolist()
        assert {len(kept[f"{at}/{name}"]) for at in ("start", "trained")} == {6}
    np.testing.assert_array_equal(kept["features/text"], data.features["text"].values[items])
    np.testing.assert_array_equal(kept["features/text"], again["features/text"])


def test_items_without_a_modality_are_in_none_of_its_clouds():
    kept = clouds.clouds_of(ended(VBPR(dim=3), tiny(missing=True)))
    assert kept["items/all"].tolist() == list(range(ITEMS))
    assert set(range(ITEMS)) - set(kept["items/text"].tolist()) == {1, 5}
    assert set(range(ITEMS)) - set(kept["items/tags"].tolist()) == {5, 9}
    # Items that have everything come before those that do not.
    few = clouds.clouds_of(ended(VBPR(dim=3), tiny(missing=True)), limit=17)
    complete = set(range(ITEMS)) - {1, 5, 9}
    assert [set(few[f"items/{name}"].tolist()) for name in ("text", "tags")] == [complete] * 2


def test_a_modality_that_no_item_has_makes_no_cloud():
    data = tiny()
    nothing = np.zeros_like(data.features["text"].values)
    text = Dense(np.zeros(ITEMS, dtype=bool), nothing)
    bare = dataclasses.replace(data, features={**data.features, "text": text}, items_known=False)
    model = SiBraR(dim=3, common_dim=4, hidden=(), input_dropout=0.0)
    kept = clouds.clouds_of(ended(model, data, evaluate_on=bare))
    assert {key.partition("/")[2] for key in kept} == {"tags", "all"}
    seen = clouds.clouds_of(ended(model, data))
    assert {key.partition("/")[2] for key in seen} == {"interactions", "tags", "text", "all"}
    assert "features/interactions" not in seen


def test_a_model_without_content_has_its_items_only():
    kept = clouds.clouds_of(ended(BPR(dim=3)))
    assert set(kept) == {"items/all", "start/all", "trained/all"}
    assert clouds.clouds_of(ended(Popularity())) == {}


def test_a_run_evaluated_on_other_features_shows_those():
    data = tiny()
    text = Dense(data.features["text"].present, 1 + data.features["text"].values[::-1].copy())
    other = dataclasses.replace(data, features={**data.features, "text": text})
    run = ended(VBPR(dim=3), data, evaluate_on=other)
    kept = clouds.clouds_of(run)
    np.testing.assert_array_equal(kept["features/text"], text.values)
    trained = text.values @ run.best_model["map_OF.1"].numpy().T
    np.testing.assert_allclose(kept["trained/text"], trained, rtol=1e-5, atol=1e-6)


def test_a_cloud_that_is_not_finite_is_named():
    run = ended(BPR(dim=3))
    run.best_model["item_ID"] = torch.full((ITEMS, 3), math.inf)
    with pytest.raises(FloatingPointError, match="the cloud trained/all is not finite"):
        clouds.clouds_of(run)


# --- in the run folder


def test_what_is_read_is_what_was_written_and_features_lie_once(tmp_path):
    folder = Folder.at(tmp_path)
    for seed, name in enumerate(("aa", "bb")):
        kept = clouds.clouds_of(ended(VBPR(dim=3), seed=seed))
        clouds.write(folder, name, kept)
        back = clouds.read(folder, name)
        assert list(back) == list(kept)
        for key, cloud in kept.items():
            np.testing.assert_array_equal(back[key], cloud)
            assert back[key].dtype == cloud.dtype
    assert len(list((tmp_path / "features").iterdir())) == 2  # tags and text, of both trials
    assert (clouds.kept(folder, "aa"), clouds.kept(folder, "cc")) == (True, False)


# --- what they measure


def drawn(seed: int, count: int = 30, width: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def values(arrays) -> dict[tuple[str, str, str], float]:
    rows = measured(clouds_from(arrays))
    return {(row["stage"], row["modality"], row["measure"]): row["value"] for row in rows}


def nearest(x: np.ndarray, k: int) -> list[set[int]]:
    search = NearestNeighbors(n_neighbors=k, metric="cosine").fit(x)
    return [set(row) for row in search.kneighbors(return_distance=False).tolist()]


def shared(x: np.ndarray, y: np.ndarray, k: int = 10) -> float:
    lists = zip(nearest(x, k), nearest(y, k), strict=True)
    return float(np.mean([len(one & other) / k for one, other in lists]))


def test_every_cloud_and_every_pair_of_a_stage_is_measured():
    every = np.arange(30)
    raw, text, image, both = drawn(0, width=7), drawn(1), drawn(2), drawn(3, width=8)
    found = values(
        {"items/text": every, "items/image": every, "items/all": every, "features/text": raw}
        | {"trained/text": text, "trained/image": image, "trained/all": both}
    )
    assert found["trained", "text", "kept_neighbours"] == pytest.approx(shared(raw, text))
    pairs = {"image|text": (image, text), "image|all": (image, both), "text|all": (text, both)}
    for pair, (x, y) in pairs.items():
        assert found["trained", pair, "neighbour_overlap"] == pytest.approx(shared(x, y))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text)]
    gap = 1 - (unit[0] * unit[1]).sum(1).mean()
    assert found["trained", "image|text", "modality_gap"] == pytest.approx(gap, abs=1e-6)
    gaps = [key for key in found if key[2] == "modality_gap"]
    assert gaps == [("trained", "image|text", "modality_gap")]  # `all` is another space
    distance = found["trained", "image|text", "centroid_distance"]
    assert distance == pytest.approx(np.linalg.norm(unit[0].mean(0) - unit[1].mean(0)), abs=1e-6)
    for pair, (x, y) in pairs.items():  # clouds in different spaces can be laid out alike
        centred = [z.astype(float) - z.mean(0, dtype=float) for z in (x, y)]
        kernels = [z @ z.T for z in centred]
        cka = (kernels[0] * kernels[1]).sum() / np.prod([np.linalg.norm(k) for k in kernels])
        assert found["trained", pair, "linear_cka"] == pytest.approx(cka, abs=1e-6)
    cosine_NN = unit[1] @ unit[1].T
    mean = (cosine_NN.sum() - 30) / (30 * 29)
    assert found["trained", "text", "mean_cosine"] == pytest.approx(mean, abs=1e-6)
    variance_D = np.linalg.eigvalsh(np.cov(text.T.astype(float)))
    first = found["trained", "text", "first_component_share"]
    assert first == pytest.approx(variance_D[-1] / variance_D.sum(), rel=1e-9)
    assert {key[2] for key in found if key[:2] == ("features", "text")} == {
        "effective_rank", "mean_cosine", "hubness", "hub_share", "first_component_share"
    }  # fmt: skip


def test_two_clouds_are_compared_where_they_are_of_the_same_items():
    text, image = drawn(1), drawn(2)
    arrays = {"items/text": np.arange(5, 30), "items/image": np.arange(25)}
    arrays |= {"start/text": text[5:], "start/image": image[:25]}
    found = values(arrays)
    expected = shared(image[5:25], text[5:25])
    assert found["start", "image|text", "neighbour_overlap"] == pytest.approx(expected)


def test_tables_of_a_study(tmp_path):
    folder, every = Folder.at(tmp_path), np.arange(12)
    side = np.where(every % 2, 1.0, -1.0)[:, None] * [1, 1, 0]
    near = 0.1 * drawn(5, 12, 3) + side
    arrays = {"items/text": every, "items/image": every, "items/all": every}
    arrays |= {"trained/text": near[:, :3], "trained/image": 2 * near[::-1]}
    clouds.write(folder, "first", arrays)
    for name in ("second", "late"):
        clouds.write(folder, name, {"items/all": every, "start/all": drawn(6, 12)})
    trials = pd.DataFrame(
        [
            ("second", "done", "control", "", "BPR-MF", "baseline", 3),
            ("late", "done", "grid", "A", "A image=noise", "image=noise", 1),
            ("first", "done", "grid", "A", "A", "baseline", 1),
            ("without", "done", "grid", "A", "A", "baseline", 0),
            ("try", "done", "tune", "A", "A tune", "baseline", 0),
            ("failed", "failed", "grid", "A", "A", "baseline", 2),
        ],
        columns=["hash", "state", "phase", "arm", "label", "condition", "seed"],
    )
    made = cloud_tables(trials, folder)
    assert made.without == 1
    arm_of = dict(zip(made.measures["hash"], made.measures["arm"], strict=True))
    assert arm_of == {"first": "A", "late": "A", "second": "BPR-MF"}

    one = made.spectra.query("hash == 'first' and modality == 'text'")
    assert one["component"].tolist() == [1, 2, 3]
    assert one["share"].sum() == pytest.approx(1)

    # One picture, of the views of the first trial under the first trial's condition.
    points = made.points
    assert set(points["hash"]) == {"first"}
    assert set(points["panel"]) == {"image+text"}
    assert points["modality"].tolist() == ["image"] * 12 + ["text"] * 12
    assert points["item"].tolist() == [*every, *every]
    group = np.where(points["modality"] == "text", points["item"] % 2, 1 - points["item"] % 2)
    place = points[["x", "y"]].to_numpy()
    apart = np.linalg.norm(place[:, None] - place[None], axis=2) + 1e9 * np.eye(24)
    assert (group[apart.argmin(1)] == group).all()


@pytest.mark.skipif(find_spec("umap") is not None, reason="umap-learn is installed")
def test_what_is_not_installed_is_refused_before_the_first_trial():
    with pytest.raises(ValueError, match=r"umap-learn, .* pip install 'mmrec\[umap\]'"):
        Clouds("pictures", method="umap")


@pytest.mark.slow
@pytest.mark.timeout(300)  # umap-learn compiles itself
@pytest.mark.parametrize("method", [tsne, umap])
def test_planes_keep_groups_apart(method):
    if method is umap:
        pytest.importorskip("umap")
    centres = np.repeat(np.eye(3, 5), 30, axis=0)
    place = method(centres + 0.1 * drawn(0, 90, 5))
    apart = np.linalg.norm(place[:, None] - place[None], axis=2) + 1e9 * np.eye(90)
    group = np.arange(90) // 30
    assert (group[apart.argmin(1)] == group).mean() > 0.95
    np.testing.assert_array_equal(method(np.ones((6, 3))), np.zeros((6, 2)))
