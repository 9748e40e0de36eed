"""Training: its clockwork, that it can be continued anywhere, and that its numbers stay."""

import dataclasses
import functools
import io
import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from mmrec import gap, training
from mmrec.config import config, override
from mmrec.data.conditions import Condition, apply
from mmrec.data.dataset import Dataset, Dense
from mmrec.data.planted import Modality, Planted, planted
from mmrec.data.sampling import Draws
from mmrec.evaluation import PROTOCOLS, Evaluator, Ranking
from mmrec.models import all_models
from mmrec.models.base import Batch, Losses, ModelConfig, Recommender
from mmrec.models.bpr import BPR
from mmrec.models.freedom import FREEDOM
from mmrec.models.lattice import LATTICE
from mmrec.models.lightgcn import LightGCN
from mmrec.models.popularity import Popularity
from mmrec.models.random import RandomRanking
from mmrec.models.sibrar import SiBraR
from mmrec.models.vbpr import VBPR
from mmrec.training import EpochReport, Run, RunConfig, TrainConfig, fit
from tests.models.every import CLOSED_FORMS, CONFIGS, small

GOLDEN = Path(__file__).parent / "golden"
TOOLBOX = json.loads((GOLDEN / "_toolbox.json").read_text())
DEFAULTS = {model.__name__: small(model) for model in all_models()}
"""Every model once, in the variant that it is unless told otherwise."""
TRAINED = {name: model for name, model in DEFAULTS.items() if not model.closed_form}
QUICK = ("BPR", "LATTICE", "SiBraR", "CRANE")
"""Models that differ in what they keep from epoch to epoch; `make test` takes care of all."""


def each(models: dict[str, ModelConfig]) -> list[Any]:
    """Every model under its name, all but the quick ones marked slow."""
    return [
        pytest.param(model, id=name, marks=[pytest.mark.slow] * (name not in QUICK))
        for name, model in models.items()
    ]


@pytest.fixture(scope="module")
def data() -> Dataset:
    modalities = tuple(Modality(name=name, width=4) for name in ("image", "text"))
    spec = Planted(users=40, items=64, interactions=480, modalities=modalities, factors=4)
    # Said to be in order of time, so that models of sequences take it too.
    return dataclasses.replace(planted(spec), ordered=True)


def config_of(model: ModelConfig | None = None, **train: Any) -> RunConfig:
    train = {"lr": 0.02, "batch_size": 100, "patience": 0, **train}
    return RunConfig(model=model or BPR(dim=8), train=TrainConfig(**train))


def run_of(data: Dataset, cfg: RunConfig, seed: int = 0) -> Run:
    return Run(cfg, data, seed=seed, protocol=PROTOCOLS["full"])


def numbers(reports: list[EpochReport]) -> list[dict[str, Any]]:
    """All that reports say, but for the time it took."""
    return [{**dataclasses.asdict(report), "seconds": None} for report in reports]


def weights(run: Run) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in run.model.state_dict().items()}


def same_weights(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


# --- the same numbers, however often a run is interrupted


@pytest.mark.parametrize(
    ("optimizer", "model"),
    [
        pytest.param("adamw", BPR(), id="BPR-adamw"),
        *(pytest.param("adam", *p.values, id=p.id, marks=p.marks) for p in each(DEFAULTS)),
    ],
)
def test_resuming_at_any_epoch_changes_nothing(data, model, optimizer):
    cfg = config_of(
        model, epochs=3, negatives=2, optimizer=optimizer, weight_decay=0.01, lr_decay=0.5
    )
    whole = run_of(data, cfg)
    states = [through_a_file(whole.state())] + [through_a_file(whole.state()) for _ in fit(whole)]
    final, test = weights(whole), whole.score_test()
    for epoch, state in enumerate(states):
        again = run_of(data, cfg)
        again.load(state)
        assert again.epoch == epoch
        list(fit(again))
        assert numbers(again.reports) == numbers(whole.reports)
        assert same_weights(weights(again), final)
        assert again.score_test().metrics == test.metrics


def test_stopping_after_every_epoch_changes_nothing(data):
    cfg = config_of(epochs=5, eval_every=2, patience=2)
    whole = run_of(data, cfg)
    list(fit(whole))
    run = run_of(data, cfg)
    while not run.finished:
        next(fit(run))
        state = through_a_file(run.state())
        run = run_of(data, cfg)
        run.load(state)
    assert numbers(run.reports) == numbers(whole.reports)
    assert [report.epoch for report in run.reports] == [2, 4, 5]
    assert same_weights(weights(run), weights(whole))


def test_the_final_state_is_enough_for_test_and_nothing_more(data):
    run = run_of(data, config_of(epochs=3))
    list(fit(run))
    state = through_a_file(run.final_state())
    assert "optimizer" not in state
    again = run_of(data, run.cfg)
    again.load(state)
    assert again.finished
    assert list(fit(again)) == []
    found, expected = again.score_test(), run.score_test()
    assert found.metrics == expected.metrics
    assert all(torch.equal(found.per_user[k], expected.per_user[k]) for k in expected.per_user)


@pytest.mark.parametrize("model", each(TRAINED))
def test_the_seed_decides_the_numbers(data, model):
    cfg = config_of(model, epochs=2)
    runs = [run_of(data, cfg, seed) for seed in (1, 1, 2)]
    one, same, other = ([numbers([report]) for report in fit(run)] for run in runs)
    assert one == same
    assert same_weights(weights(runs[0]), weights(runs[1]))
    for first, second in zip(one, other, strict=True):
        assert first[0]["losses"] != second[0]["losses"]
        assert first[0]["valid"] != second[0]["valid"]


def test_other_random_numbers_in_the_process_change_nothing(data):
    first = run_of(data, config_of(epochs=2))
    list(fit(first))
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - the old global state is what must not matter
    second = run_of(data, config_of(epochs=2))
    for _ in fit(second):
        torch.rand(3)
    assert numbers(first.reports) == numbers(second.reports)


def test_two_runs_in_turns_are_as_each_alone(data):
    cfgs = [config_of(epochs=3), config_of(small(SiBraR), epochs=3)]
    alone = [run_of(data, cfg) for cfg in cfgs]
    for run in alone:
        list(fit(run))
    turns = [run_of(data, cfg) for cfg in cfgs]
    list(zip(*map(fit, turns), strict=True))
    for one, other in zip(alone, turns, strict=True):
        assert numbers(one.reports) == numbers(other.reports)


# --- a model without parameters


@pytest.mark.parametrize("model", CLOSED_FORMS.values(), ids=CLOSED_FORMS)
def test_a_closed_form_is_evaluated_once_whatever_the_seed_and_keeps_no_state(data, model):
    """Random's lists alone are another seed's others."""
    cfg = config_of(model, epochs=50, eval_every=7, patience=3)
    run, seed = run_of(data, cfg), 0 if isinstance(model, RandomRanking) else 1
    with pytest.raises(RuntimeError, match="no epoch has been evaluated"):
        run.restore_best()
    (report,) = fit(run)
    assert (report.epoch, report.best_epoch, report.finished) == (1, 1, True)
    assert report.losses == {}
    built = model.build(data, Draws(seed).generator("init")).eval()
    valid = Evaluator(data, "valid", PROTOCOLS["full"], cfg.ks)
    assert report.valid == valid.rank(built).metrics
    assert numbers(list(fit(run_of(data, cfg, seed)))) == numbers([report])

    state = through_a_file(run.final_state())
    assert state["best_model"] == through_a_file(run.state())["model"] == {}
    again = run_of(data, cfg, seed)
    again.load(state)
    assert list(fit(again)) == []
    test = Evaluator(data, "test", PROTOCOLS["full"], cfg.ks)
    expected = test.rank(built, beyond=True, strata=cfg.objective)
    assert again.score_test().metrics == expected.metrics


@pytest.mark.parametrize("model", CLOSED_FORMS.values(), ids=CLOSED_FORMS)
def test_a_closed_form_refuses_to_be_trained(data, model):
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(TypeError, match="is a closed form: it has no losses"):
        model.build(data, torch.Generator()).losses(Batch(none, none, none[:, None]))


# --- when it stops, and which epoch counts


class Scripted:
    """Instead of an evaluator: validation values as told."""

    def __init__(self, values: list[float]) -> None:
        self.values = iter(values)

    def rank(self, model: Recommender) -> Ranking:
        assert not model.training
        return Ranking({"ndcg@10": next(self.values)}, torch.zeros(0), {})


def scripted(data: Dataset, values: list[float], **train: Any) -> Run:
    run = run_of(data, config_of(epochs=len(values) * train.get("eval_every", 1), **train))
    run.valid = Scripted(values)  # type: ignore[assignment]
    return run


def test_early_stopping_follows_the_released_toolbox(data):
    """The toolbox stops when more than `max_step` evaluations in a row brought nothing: one more
    than our `patience` counts."""
    golden = TOOLBOX["early_stop"]
    values, trace = golden["values"], golden["trace"]
    stops = [stop for _, _, stop, _ in trace]
    run = scripted(data, values, patience=golden["max_step"] + 1)
    reports = list(fit(run))
    assert len(reports) == stops.index(True) + 1
    assert [r.finished for r in reports] == stops[: len(reports)]
    updated = [epoch for epoch, (_, _, _, update) in enumerate(trace, 1) if update]
    expected = [max(e for e in updated if e <= report.epoch) for report in reports]
    assert [report.best_epoch for report in reports] == expected
    assert run.best_value == trace[len(reports) - 1][0]


@pytest.mark.parametrize(
    ("values", "patience", "ends", "best"),
    [
        ([0.3, 0.2, 0.2, 0.4, 0.1], 2, 3, 1),
        ([0.3, 0.2, 0.4, 0.1, 0.1], 2, 5, 3),
        ([0.3, 0.3, 0.3], 1, 2, 1),  # a tie is not better
        ([0.3, 0.2, 0.1, 0.1], 0, 4, 1),
        ([0.1, 0.2, 0.3], 1, 3, 3),
        ([0.0, 0.0], 2, 2, 1),
    ],
)
@pytest.mark.parametrize("every", [1, 3])
def test_patience_counts_evaluations_without_a_strictly_better_one(
    data, values, patience, ends, best, every
):
    run = scripted(data, values, patience=patience, eval_every=every, batch_size=1000)
    reports = list(fit(run))
    assert [r.epoch for r in reports] == [every * n for n in range(1, ends + 1)]
    assert [r.finished for r in reports] == [False] * (ends - 1) + [True]
    assert (run.best_epoch, run.best_value) == (best * every, values[best - 1])


def test_patience_survives_a_resume(data):
    values = [0.3, 0.2, 0.2, 0.2, 0.2]
    run = scripted(data, values, patience=3)
    next(fit(run))
    next(fit(run))
    again = scripted(data, values[2:] + [0.9] * 2, patience=3)
    again.load(through_a_file(run.state()))
    assert [report.finished for report in fit(again)] == [False, True]
    assert (again.best_epoch, again.best_value) == (1, 0.3)


def test_the_last_epoch_is_evaluated_whatever_the_stride(data):
    run = run_of(data, config_of(epochs=5, eval_every=3))
    assert [report.epoch for report in fit(run)] == [3, 5]


def test_test_is_scored_on_the_weights_of_the_best_epoch(data):
    run = scripted(data, [0.1, 0.2, 0.5, 0.3, 0.4])
    kept = [weights(run) for _ in fit(run)]
    found = run.score_test()
    assert run.best_epoch == 3
    assert same_weights(weights(run), kept[2])
    fresh = run_of(data, run.cfg)
    fresh.model.load_state_dict(kept[2])
    test = Evaluator(data, "test", PROTOCOLS["full"], run.cfg.ks)
    expected = test.rank(fresh.model.eval(), beyond=True, strata=run.cfg.objective)
    assert found.metrics == expected.metrics
    fresh.model.load_state_dict(kept[4])
    assert test.rank(fresh.model.eval()).metrics["ndcg@10"] != found.metrics["ndcg@10"]


def test_test_and_the_best_state_are_refused_before_their_time(data):
    run = run_of(data, config_of(epochs=2))
    with pytest.raises(RuntimeError, match="no epoch has been evaluated"):
        run.restore_best()
    next(fit(run))
    with pytest.raises(RuntimeError, match="test is scored at the end of a run, not at epoch 1"):
        run.score_test()
    with pytest.raises(RuntimeError, match="validation is scored at the end of a run, not at"):
        run.score_valid()


def test_training_never_looks_at_test(data):
    cfg = config_of(epochs=3)
    other = dataclasses.replace(data, test=np.array([[0, 0], [1, 1]]))
    one, two = run_of(data, cfg), run_of(other, cfg)
    list(fit(one))
    list(fit(two))
    assert numbers(one.reports) == numbers(two.reports)
    assert same_weights(weights(one), weights(two))
    assert one.score_test().metrics != two.score_test().metrics


# --- trained on one dataset, evaluated on another


SHUFFLED = Condition(modalities=("text",), filler="shuffle", when="eval")
"""The fixture's `image` comes first, by alphabet, and stays as it is."""


def elsewhere(data: Dataset, cfg: RunConfig) -> tuple[Run, Dataset]:
    """A finished run that is scored under `SHUFFLED`, and the data it is scored on."""
    other = apply(SHUFFLED, data)
    run = Run(cfg, data, seed=0, protocol=PROTOCOLS["full"], evaluate_on=other)
    list(fit(run))
    return run, other


def vectors(data: Dataset, name: str) -> np.ndarray:
    feature = data.features[name]
    assert isinstance(feature, Dense)
    return feature.values


def near(values: np.ndarray, k: int) -> np.ndarray:
    """Cosines of each row with its k nearest, itself among them; 0 elsewhere."""
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    cosine = (unit @ unit.T).astype(np.float64)
    cut = np.sort(cosine, axis=1)[:, -k][:, None]
    return np.where(cosine >= cut, cosine, 0)


class Tables(Recommender):
    """Two tables and nothing else."""

    def __init__(self, user_UD: np.ndarray, item_ID: np.ndarray) -> None:
        super().__init__()
        self.tables = torch.from_numpy(user_UD), torch.from_numpy(item_ID)

    def losses(self, batch: Batch) -> Losses:
        raise NotImplementedError

    def embeddings(self) -> tuple[Tensor, Tensor]:
        return self.tables


@pytest.mark.parametrize("trained", [False, True])
def test_a_linear_model_is_scored_on_the_features_it_is_told_to(data, trained):
    """A trained table is the features: the replaced one is as it comes, the other as trained."""
    cfg = config_of(VBPR(dim=4, train_features=trained), epochs=3)
    run, other = elsewhere(data, cfg)
    plain = run_of(data, cfg)
    list(fit(plain))
    assert numbers(run.reports) == numbers(plain.reports)

    before, best = weights(run), {k: v.numpy() for k, v in run.best_model.items()}
    image = vectors(data, "image")
    if trained:
        assert np.abs(best["features.0._table"] - image).max() > 0.01
        image = best["features.0._table"]
    content = image @ best["map_OF.0"].T + vectors(other, "text") @ best["map_OF.1"].T
    expected = np.concatenate((best["item_ID"], content + best["bias_D"]), axis=1)
    user, item = run.scored().embeddings()
    np.testing.assert_array_equal(user.detach(), best["user_UC"])
    np.testing.assert_allclose(item.detach(), expected, atol=1e-6)

    tables = Tables(best["user_UC"], expected)
    valid, test = (Evaluator(data, part, PROTOCOLS["full"], cfg.ks) for part in ("valid", "test"))
    assert run.score_valid().metrics == pytest.approx(valid.rank(tables).metrics, rel=1e-6)
    assert run.score_valid().metrics["ndcg@10"] != run.best_value
    wanted = test.rank(tables, beyond=True, strata=cfg.objective).metrics
    assert run.score_test().metrics == pytest.approx(wanted, rel=1e-6)
    assert run.score_test().metrics["ndcg@10"] != plain.score_test().metrics["ndcg@10"]
    assert same_weights(weights(run), before)


def test_freedom_is_scored_on_the_neighbours_of_the_other_features(data):
    k, image_weight = 4, 0.3
    cfg = config_of(FREEDOM(dim=4, knn_k=k, image_weight=image_weight), epochs=2)
    run, other = elsewhere(data, cfg)
    own_ID, item_ID = (
        m.embeddings()[1].detach().numpy() for m in (run.restore_best(), run.scored())
    )
    mean_II, old_II = ((near(vectors(seen, "text"), k) > 0) / k for seen in (other, data))
    best_ID = run.best_model["item_ID"].double().numpy()
    expected_ID = (1 - image_weight) * (mean_II - old_II) @ best_ID
    np.testing.assert_allclose(item_ID - own_ID, expected_ID, atol=1e-6)
    assert np.abs(expected_ID).max() > 0.01


def test_lattice_is_scored_on_the_graph_of_the_other_features(data):
    """With frozen graphs alone: what an item's neighbours add is their sum, at length 1."""
    k = 4
    cfg = config_of(LATTICE(dim=4, feature_dim=4, knn_k=k, frozen_share=1.0), epochs=2)
    run, other = elsewhere(data, cfg)
    share_M = run.best_model["modality_M"].double().softmax(0).tolist()
    best_ID = run.best_model["item_ID"].double().numpy()

    def added(seen: Dataset) -> np.ndarray:
        sum_ID = np.zeros((data.num_items, 4))
        for share, name in zip(share_M, ("image", "text"), strict=True):
            graph_II = near(vectors(seen, name), k)
            scale_I = graph_II.sum(1) ** -0.5
            sum_ID += share * scale_I[:, None] * graph_II * scale_I @ best_ID
        return sum_ID / np.linalg.norm(sum_ID, axis=1, keepdims=True)

    own_ID, item_ID = (
        m.embeddings()[1].detach().numpy() for m in (run.restore_best(), run.scored())
    )
    np.testing.assert_allclose(item_ID - own_ID, added(other) - added(data), atol=1e-5)


ELSEWHERE = {name: model for name, model in DEFAULTS.items() if name != "MGR"}
"""Models that can be evaluated on other features; MGR refuses, as its own tests have it."""


@pytest.mark.parametrize("model", ELSEWHERE.values(), ids=ELSEWHERE)
def test_on_the_same_features_nothing_changes(data, model):
    """Whatever is trained, feature tables and running statistics included, is taken over."""
    copies = {
        name: Dense(feature.present.copy(), vectors(data, name).copy())
        for name, feature in data.features.items()
    }
    plain = run_of(data, config_of(model, epochs=2))
    list(fit(plain))
    twin = dataclasses.replace(data, features=copies)
    run = Run(plain.cfg, data, seed=0, protocol=PROTOCOLS["full"], evaluate_on=twin)
    run.load(through_a_file(plain.final_state()))
    assert plain.score_valid().metrics == plain.reports[plain.best_epoch - 1].valid
    assert run.score_valid().metrics == plain.score_valid().metrics
    assert run.score_test().metrics == plain.score_test().metrics


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_other_interactions_to_be_evaluated_on_are_refused(data, part):
    other = dataclasses.replace(data, **{part: data.part(part)[1:]})
    with pytest.raises(ValueError, match=rf"the {part} parts of 'planted' \(baseline\) and"):
        Run(config_of(), data, seed=0, protocol=PROTOCOLS["full"], evaluate_on=other)


def test_features_of_another_width_to_be_evaluated_on_are_refused(data):
    text = Dense(data.features["text"].present, vectors(data, "text")[:, :3])
    for features, said in (
        ({**data.features, "text": text}, "'text': 'dense 3'"),
        ({"image": data.features["image"]}, r"\{'image': 'dense 4'\}:"),
    ):
        other = dataclasses.replace(data, features=features)
        with pytest.raises(ValueError, match=rf"'text': 'dense 4'\}} does not fit .*{said}"):
            Run(config_of(), data, seed=0, protocol=PROTOCOLS["full"], evaluate_on=other)


# --- the modality gap


GAPPED = SiBraR(dim=4, common_dim=6, hidden=(6,), input_dropout=0.0)


def test_the_gap_is_that_of_each_epochs_model_and_changes_nothing_else(data, monkeypatch):
    monkeypatch.setattr(gap, "TREES", 1)
    cfg = dataclasses.replace(config_of(GAPPED, epochs=2, lr=0.05), gap="epochs")
    run, states, found = run_of(data, cfg), [], []
    for _ in fit(run):
        states.append(through_a_file(run.state()))
        with torch.no_grad():
            found.append({k: v.numpy() for k, v in run.model.eval().item_views().items()})
    expected = [gap.measures(views) for views in found]
    assert [report.measures for report in run.reports] == expected
    assert expected[0] != expected[1]
    end = run.measures()
    own = run.restore_best().measures()
    assert end == own | expected[run.best_epoch - 1]

    plain = run_of(data, dataclasses.replace(cfg, gap="none"))
    list(fit(plain))
    assert [{**one, "measures": {}} for one in numbers(run.reports)] == numbers(plain.reports)
    assert plain.measures() == own

    again = run_of(data, cfg)
    again.load(states[0])
    list(fit(again))
    assert numbers(again.reports) == numbers(run.reports)


def test_the_gap_is_that_of_the_features_that_are_evaluated_on(data, monkeypatch):
    monkeypatch.setattr(gap, "TREES", 1)
    cfg = dataclasses.replace(config_of(GAPPED, epochs=1), gap="end")
    run, _ = elsewhere(data, cfg)
    assert run.reports[0].measures == {}
    with torch.no_grad():
        views = {name: view.numpy() for name, view in run.scored().item_views().items()}
    expected = {name: run.measures()[name] for name in gap.MEASURES}
    assert gap.measures(views) == expected
    plain = run_of(data, cfg)
    list(fit(plain))
    assert plain.measures()["gap_intra_cosine"] != expected["gap_intra_cosine"]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (LightGCN(dim=4), r"LightGCNModel on 'planted' \(baseline\) .* by no modality"),
        (VBPR(dim=4, modalities=("text",)), "VBPRModel .* by text: .* got text; set gap='none'"),
        (Popularity(), "PopularityModel .* by no modality"),
    ],
)
@pytest.mark.parametrize("when", ["end", "epochs"])
def test_a_model_without_a_gap_is_refused_at_the_start(data, model, said, when):
    with pytest.raises(ValueError, match=said):
        run_of(data, dataclasses.replace(config_of(model), gap=when))


# --- a step


STEPS = 4
"""Of an epoch on `data` in batches of 100."""


@config
class Toy(ModelConfig):
    """Two tables, a loss told from outside, a counter."""

    loss: str = "zero"

    def build(self, data: Dataset, init: torch.Generator) -> "ToyModel":
        return ToyModel(self, data)


class ToyModel(Recommender):
    steps: Tensor

    def __init__(self, cfg: Toy, data: Dataset) -> None:
        super().__init__()
        self.kind = cfg.loss
        self.user_UD = nn.Parameter(torch.linspace(0.5, 1, data.num_users)[:, None])
        self.item_ID = nn.Parameter(torch.linspace(0.5, 1, data.num_items)[:, None])
        self.register_buffer("steps", torch.zeros(()))
        self.started: list[int] = []

    def start_epoch(self, draws: Draws, epoch: int) -> None:
        self.started.append(epoch)

    def losses(self, batch: Batch) -> Losses:
        assert self.training
        whole = self.user_UD.sum() + self.item_ID.sum()
        terms = {"zero": 0 * whole, "rows": 0 * whole + len(batch.user)}
        terms["bad"] = 0 * whole
        if self.kind != "zero" and len(self.started) == 3 and self.steps % STEPS == 1:
            terms["bad"] = whole * float(self.kind)
        return Losses(terms, {"steps": self.steps + 1})

    def embeddings(self) -> tuple[Tensor, Tensor]:
        return self.user_UD, self.item_ID


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_a_loss_that_is_not_finite_names_epoch_and_term(data, bad):
    run = run_of(data, config_of(Toy(loss=bad), epochs=5))
    assert len(data.train) > 2 * run.cfg.train.batch_size  # what follows a NaN is NaN throughout
    with pytest.raises(FloatingPointError, match=f"epoch 3, step 2: the loss term 'bad' is {bad}"):
        list(fit(run))
    assert [report.epoch for report in run.reports] == [1, 2]


def test_a_validation_that_is_not_finite_names_the_epoch(data):
    run = scripted(data, [0.1, math.nan, 0.2])
    with pytest.raises(FloatingPointError, match="epoch 2: validation ndcg@10 is nan"):
        list(fit(run))


def test_an_epoch_passes_every_row_once_and_keeps_the_models_buffers(data):
    rows = len(data.train)
    run = run_of(data, config_of(Toy(), epochs=3, batch_size=100))
    reports = list(fit(run))
    steps = math.ceil(rows / 100)
    assert steps == STEPS
    expected = {"zero": 0.0, "rows": pytest.approx(rows / steps, rel=1e-15), "bad": 0.0}
    assert reports[0].losses == expected
    assert float(run.model.state_dict()["steps"]) == 3 * steps
    assert run.model.started == [0, 1, 2]


def test_weight_decay_is_coupled_in_adam_and_not_in_adamw(data):
    """With no other gradient Adam's first step is lr, whatever the decay; AdamW's is lr decay w."""
    one_step = {"epochs": 1, "batch_size": 10_000, "lr": 0.01, "weight_decay": 0.2}
    before = torch.linspace(0.5, 1, data.num_users)[:, None]
    for optimizer, expected in (("adam", before - 0.01), ("adamw", before * (1 - 0.01 * 0.2))):
        run = run_of(data, config_of(Toy(), optimizer=optimizer, **one_step))
        list(fit(run))
        torch.testing.assert_close(weights(run)["user_UD"], expected, rtol=1e-6, atol=0)


def test_the_learning_rate_decays_as_in_the_released_toolbox(data):
    golden = TOOLBOX["lr_schedule"]
    decay, epochs = golden["setting"]
    assert epochs == 50  # ours is fixed there
    run = run_of(data, config_of(epochs=4, lr=golden["base"], lr_decay=decay))
    rates = [run.optimizer.param_groups[0]["lr"] for _ in fit(run)]
    np.testing.assert_allclose(rates, golden["lr_of_epoch_0_to_3"], rtol=1e-14)


def test_the_objective_must_be_among_what_is_scored():
    with pytest.raises(ValidationError, match=r"'ndcg@7' must be name@K with K among ks=\[5, 10"):
        RunConfig(model=BPR(), objective="ndcg@7")
    with pytest.raises(ValidationError, match="objective 'ndcg'"):
        RunConfig(model=BPR(), objective="ndcg")


def test_an_objective_that_no_evaluation_gives_is_refused_by_name(data):
    run = run_of(data, override(config_of(), {"objective": "ndgc@10"}))
    with pytest.raises(KeyError, match=r"no metric 'ndgc@10'; there are: .*ndcg@10"):
        next(fit(run))


# --- numbers that may only change with a VERSION


SHORT = Planted(
    users=150,
    items=120,
    interactions=2_500,
    modalities=(
        Modality(name="image", width=6, informativeness=0.8, noise=0.3, missing=0.1),
        Modality(name="text", width=5, informativeness=0.6, noise=0.3),
    ),
    factors=8,
    taste=3.0,
    popularity=0.6,
    noise_correlation=0.0,
    seed=0,
)
RECORDED = GOLDEN / "short_run.json"
COMMAND = "python -m tests.test_training"
"""Records the models named behind it, or, without a name, what is new or has a new VERSION."""


def short_run(model: ModelConfig) -> dict[str, Any]:
    """Three epochs on a planted dataset.

    In float64: what another processor rounds differently then moves no item past another.
    """
    torch.set_default_dtype(torch.float64)
    try:
        cfg = config_of(model, epochs=3, batch_size=512, negatives=2, weight_decay=1e-4)
        run = Run(cfg, short_data(), seed=0, protocol=PROTOCOLS["full"])
        reports = list(fit(run))
        return {
            "versions": versions(model),
            "losses": [report.losses for report in reports],
            "valid": [at_10(report.valid) for report in reports],
            "test": at_10(run.score_test().metrics),
        }
    finally:
        torch.set_default_dtype(torch.float32)


@functools.cache
def short_data() -> Dataset:
    return dataclasses.replace(planted(SHORT), ordered=True)


def versions(model: ModelConfig) -> list[int]:
    return [model.VERSION, training.VERSION]


def at_10(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.endswith("@10")}


@pytest.mark.parametrize("name", CONFIGS)
def test_numbers_change_only_with_a_version(name):
    recorded = json.loads(RECORDED.read_text()).get(name)
    assert recorded, f"{name} has no recorded run; when its own tests pass, {COMMAND} adds it"
    assert versions(CONFIGS[name]) == recorded["versions"], (
        f"{name} has a new VERSION; {COMMAND} records its numbers"
    )
    flat, expected = dict(leaves(short_run(CONFIGS[name]))), dict(leaves(recorded))
    assert flat == pytest.approx(expected, rel=1e-6), "the same VERSION must give the same numbers"


def test_what_is_recorded_is_still_there():
    gone = set(json.loads(RECORDED.read_text())) - set(CONFIGS)
    assert not gone, f"{COMMAND} drops the recorded runs of models that are gone"


def leaves(value: Any, path: str = "") -> Any:
    """(path, number) of every number in nested JSON."""
    if not isinstance(value, dict | list):
        yield path, value
        return
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    yield from itertools.chain.from_iterable(leaves(part, f"{path}/{key}") for key, part in parts)


def record(anew: list[str]) -> None:
    """Write the numbers of the models named; of all that need it, if none is."""
    unknown = set(anew) - set(CONFIGS)
    if unknown:
        raise SystemExit(f"no model {sorted(unknown)}; there are: {', '.join(CONFIGS)}")
    old = json.loads(RECORDED.read_text())
    content = {name: old[name] for name in CONFIGS if name in old}
    needed = [n for n in CONFIGS if n not in old or old[n]["versions"] != versions(CONFIGS[n])]
    for name in anew or needed:
        content[name] = short_run(CONFIGS[name])
        print(f"recorded {name}")  # noqa: T201 - a command's answer
    RECORDED.write_text(json.dumps(dict(sorted(content.items())), indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    record(sys.argv[1:])
