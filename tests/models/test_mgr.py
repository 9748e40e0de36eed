"""MGR: its losses, its lists and its measures against formulas written out one item at a time.

Letters in names: I items, T positions of an ID, V tokens, D width.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor

from mmrec.config import override
from mmrec.data.conditions import Condition, apply
from mmrec.data.dataset import Codes, Dataset, Dense
from mmrec.data.histories import histories
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.evaluation import PROTOCOLS, Evaluator
from mmrec.models.base import Batch
from mmrec.models.mgr import MGR, MGRModel
from mmrec.nn.quantiser import Quantiser, fitted
from mmrec.nn.semantic_ids import BEGIN
from mmrec.training import Run, RunConfig, TrainConfig, fit

ITEMS, USERS = 13, 6
SMALL = MGR(
    dim=8, heads=2, head_dim=4, ff=12, encoder_layers=1, decoder_layers=1, history=3, beams=4,
    align_epochs=2, dropout=0.0, quantiser=Quantiser(kind="rqkmeans", levels=2, size=3),
)  # fmt: skip
SHAPE = BatchShape(size=5, negatives=0)


def catalogue(*, missing: tuple[int, ...] = ()) -> Dataset:
    """Six users with four to eight of 13 items; text codes collide, image codes do not."""
    rng = np.random.default_rng(3)
    rows = [rng.permutation(ITEMS)[: 4 + user % 5] for user in range(USERS)]
    train = [(u, i) for u, row in enumerate(rows) for i in row[:-2]]
    text = np.stack([np.arange(ITEMS) % 3, np.arange(ITEMS) % 2], axis=1)
    image = np.stack([np.arange(ITEMS) // 4, np.arange(ITEMS) % 4], axis=1)
    present = np.ones(ITEMS, dtype=bool)
    present[list(missing)] = False
    text[~present] = 0
    vectors = rng.normal(size=(ITEMS, 5)).astype(np.float32)
    return Dataset(
        "catalogue",
        USERS,
        ITEMS,
        np.array(train),
        np.array([(u, row[-2]) for u, row in enumerate(rows)]),
        np.array([(u, row[-1]) for u, row in enumerate(rows)]),
        features={
            "image": Codes(np.ones(ITEMS, dtype=bool), image, (4, 4)),
            "text": Codes(present, text, (3, 2)),
            "vectors": Dense(np.ones(ITEMS, dtype=bool), vectors),
            "others": Dense(np.ones(ITEMS, dtype=bool), vectors[::-1].copy()),
        },
        split="leave-one-out",
        ordered=True,
    )


CODES = override(SMALL, {"modalities": ("text", "image")})
VARIANTS = {
    "LF++": CODES,
    "LF": override(CODES, {"alignment": "none", "transition_tokens": False}),
    "level": override(CODES, {"output": "level"}),
    "translation": override(CODES, {"alignment": "translation"}),
    "TIGER": override(SMALL, {"modalities": ("text",)}),
}


@pytest.fixture(autouse=True)
def _double(float64: None) -> None:
    """All of this file in float64."""


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def cfg(request: pytest.FixtureRequest) -> MGR:
    return request.param


def built(cfg: MGR, data: Dataset | None = None, seed: int = 0) -> MGRModel:
    return cfg.build(data or catalogue(), Draws(seed).generator("init"))


def batches(model: MGRModel, epoch: int = 0) -> list[Batch]:
    pairs = TrainingPairs.of(catalogue())
    return list(model.epoch_batches(pairs, Draws(0), epoch, SHAPE))


def ids_of(model: MGRModel) -> list[list[int]]:
    return model.ids.token_IT.tolist()


def log_p(model: MGRModel, source: list[int], written: list[int], first: int = 0) -> float:
    """ln p(written | source), a token at a time from its own prefix, without any padding."""
    return log_p_after(model, *encoded(model, source), written, first)


def encoded(model: MGRModel, source: list[int]) -> tuple[Tensor, Tensor]:
    real = torch.ones(1, len(source), dtype=torch.bool)
    return model.t5.encode(torch.tensor([source]), real), real


@torch.no_grad()
def log_p_after(
    model: MGRModel, state: Tensor, real: Tensor, written: list[int], first: int = 0
) -> float:
    total = 0.0
    for t, token in enumerate(written):
        prefix = torch.tensor([[BEGIN, *written[:t]]])
        logits_V = model.t5.logits(model.t5.decode(prefix, state, real))[0, -1].numpy()
        if model.cfg.output == "level":
            start = int(model.ids.first_T[first + t])
            logits_V = logits_V[start : start + model.ids.sizes[first + t]]
            token = token - start
        total += logits_V[token] - np.log(np.exp(logits_V).sum())
    return float(total)


def source_of(model: MGRModel, items: list[int]) -> list[int]:
    ids = ids_of(model)
    return [token for item in items for token in ids[item]]


# --- training


def test_the_loss_is_the_mean_surprise_of_the_next_items_tokens(cfg):
    model = built(cfg)
    batch = batches(model, epoch=1)[0]
    (term,) = model.losses(batch).terms.values()
    ids = ids_of(model)
    expected = [
        -log_p(model, source_of(model, [i for i in history if i >= 0]), ids[item])
        for history, item in zip(batch.extra["history"].tolist(), batch.positive.tolist(),
                                 strict=True)
    ]  # fmt: skip
    assert term.item() == pytest.approx(np.mean(expected) / len(ids[0]), rel=1e-9)


def test_alignment_by_infonce_is_the_formula():
    """Reading A: half of cross-entropies both ways of cosines over tau, one item at a time."""
    model = built(CODES)
    batch = batches(model)[0]
    (name, term), = model.losses(batch).terms.items()  # fmt: skip
    assert name == "align"
    ids, spans = ids_of(model), model.ids.spans

    def directions(span: slice) -> np.ndarray:
        states = []
        for item in batch.positive.tolist():
            tokens = torch.tensor([ids[item][span]])
            state = model.t5.encode(tokens, torch.ones_like(tokens, dtype=torch.bool))
            mean = state[0].detach().numpy().mean(axis=0)
            states.append(mean / np.sqrt((mean**2).sum()))
        return np.array(states)

    logits = directions(spans["text"]) @ directions(spans["image"]).T / 0.07
    rows = -np.diag(logits) + np.log(np.exp(logits).sum(axis=1))
    columns = -np.diag(logits) + np.log(np.exp(logits).sum(axis=0))
    assert term.item() == pytest.approx((rows.mean() + columns.mean()) / 2, rel=1e-9)


def test_alignment_by_translation_writes_each_modality_from_the_other():
    model = built(VARIANTS["translation"])
    batch = batches(model)[0]
    ids, spans = ids_of(model), model.ids.spans
    means = []
    for source, target in itertools.permutations(("text", "image")):
        span = spans[target]
        each = [
            -log_p(model, ids[item][spans[source]], ids[item][span], span.start) / 2
            for item in batch.positive.tolist()
        ]
        means.append(np.mean(each))
    (term,) = model.losses(batch).terms.values()
    assert term.item() == pytest.approx(np.mean(means), rel=1e-9)


def test_alignment_comes_first_and_once_and_leaves_out_items_that_lack_a_modality():
    data = catalogue(missing=(2, 7))
    model = built(CODES, data)
    first, later = (batches(model, epoch) for epoch in (0, 1))
    stages = ["history" in batch.extra for batch in first]
    assert stages == sorted(stages)
    aligned = torch.cat([b.positive for b in first if "history" not in b.extra]).tolist()
    assert sorted(aligned) == sorted([i for i in range(ITEMS) if i not in (2, 7)] * 2)
    assert all("history" in batch.extra for batch in later)
    nothing = apply(Condition(missing=("text",)), data)
    assert not built(CODES, nothing).aligned


def test_each_stage_of_an_epoch_reports_its_own_loss():
    """Means over a stage's own steps; a learning rate of next to nothing leaves the weights."""
    cfg = RunConfig(model=CODES, train=TrainConfig(epochs=2, lr=1e-14, batch_size=SHAPE.size))
    run = Run(cfg, catalogue(), seed=0, protocol=PROTOCOLS["full"])
    found: dict[str, list[float]] = {"align": [], "next": []}
    for batch in batches(run.model):
        for name, term in run.model.losses(batch).terms.items():
            found[name].append(term.item())
    first, second = fit(run)
    assert first.losses == pytest.approx({n: np.mean(v) for n, v in found.items()}, rel=1e-9)
    assert list(second.losses) == ["next"]


def test_an_epoch_has_every_target_once_or_so_many_of_each_user():
    data = catalogue()
    own = histories(data, "valid")
    pairs = sorted(
        (user, int(item))
        for user in range(USERS)
        for item in own.items[own.starts[user] + 1 : own.starts[user + 1]]
    )
    for most in (None, 1, 2):
        model = built(override(VARIANTS["LF"], {"targets_per_user": most}))
        drawn = [p for b in batches(model) for p in zip(b.user.tolist(), b.positive.tolist(),
                                                        strict=True)]  # fmt: skip
        counts = [min(sum(u == user for u, _ in pairs), most or 99) for user in range(USERS)]
        assert [sum(u == user for u, _ in drawn) for user in range(USERS)] == counts
        assert set(drawn) <= set(pairs)
        assert len(set(drawn)) == len(drawn)
        assert most is not None or sorted(drawn) == pairs


# --- ranking


def exhaustive(model: MGRModel, data: Dataset, user: int, part: str) -> np.ndarray:
    """(I,) ln p of every item's whole ID after the user's last three items."""
    known = [data.train] + ([data.valid] if part == "test" else [])
    items = [int(i) for pairs in known for u, i in pairs if u == user][-3:]
    source = encoded(model, source_of(model, items))
    return np.array([log_p_after(model, *source, tokens) for tokens in ids_of(model)])


@pytest.mark.parametrize(("part", "protocol"), [("valid", "repeats"), ("test", "full")])
def test_wide_enough_beams_rank_as_scoring_every_item_does(cfg, part, protocol):
    data = catalogue()
    model = built(cfg, data).eval()
    top_UI = Evaluator(data, part, PROTOCOLS[protocol], [5]).top(model, ITEMS)
    for user in (0, 5):
        score_I = exhaustive(model, data, user, part)
        hidden = {
            int(i)
            for pairs in (data.train, data.valid)[: 1 + (part == "test")]
            for u, i in pairs
            if u == user and protocol == "full"
        }
        expected = [int(i) for i in np.argsort(-score_I) if int(i) not in hidden]
        expected += [-1] * (ITEMS - len(expected))
        assert top_UI[user].tolist() == expected


def test_lists_are_whole_though_the_beams_are_fewer():
    model, data = built(CODES).eval(), catalogue()
    top = Evaluator(data, "valid", PROTOCOLS["repeats"], [5]).top(model, 9)
    assert all(len({*row} - {-1}) == 9 for row in top.tolist())


# --- measures


def test_measures_count_what_is_right_in_ids_written_freely(monkeypatch):
    data = catalogue()
    model = built(VARIANTS["LF"], data).eval()
    ids, want = ids_of(model), [int(i) for _, i in data.valid]
    text, image = model.ids.spans["text"], model.ids.spans["image"]

    def wrong(tokens: list[int], span: slice) -> list[int]:
        """With the first code of a modality exchanged for another one."""
        first = int(model.ids.first_T[span.start])
        other = first + (tokens[span.start] - first + 1) % model.ids.sizes[span.start]
        return [*tokens[: span.start], other, *tokens[span.start + 1 :]]

    written = {user: ids[item] for user, item in enumerate(want)}
    written[1] = wrong(written[1], image)
    written[2] = wrong(written[2], image)
    written[3] = wrong(written[3], text)
    written[4] = wrong(wrong(written[4], text), image)
    monkeypatch.setattr(
        model, "_freely", lambda user_B: torch.tensor([written[int(u)] for u in user_B])
    )
    found = model.measures()
    assert found["right_text"] == pytest.approx(4 / 6)
    assert found["right_image"] == pytest.approx(3 / 6)
    assert found["only_text"] == pytest.approx(2 / 6)
    assert found["only_image"] == pytest.approx(1 / 6)
    assert found["right_all"] == pytest.approx(2 / 6)
    known = {tuple(tokens) for tokens in ids}
    valid = sum(tuple(tokens) in known for tokens in written.values())
    assert found["valid_ids"] == pytest.approx(valid / 6)


def test_freely_written_ids_take_the_likeliest_token_each_time(cfg):
    data = catalogue()
    model = built(cfg, data).eval()
    user = 5
    items = [int(i) for u, i in data.train if u == user][-3:]
    source, written = source_of(model, items), []
    real = torch.ones(1, len(source), dtype=torch.bool)
    state = model.t5.encode(torch.tensor([source]), real)
    for t in range(len(model.ids.sizes)):
        logits_V = model.t5.logits(model.t5.decode(torch.tensor([[BEGIN, *written]]), state, real))
        first, size = int(model.ids.first_T[t]), model.ids.sizes[t]
        if cfg.output == "level":
            written.append(first + int(logits_V[0, -1, first : first + size].argmax()))
        else:
            written.append(int(logits_V[0, -1].argmax()))
    assert model._freely(torch.tensor([user])).tolist() == [written]


def test_the_modalitys_share_of_an_early_code_is_whole_where_nothing_else_enters():
    """Without the other modality the fused vector is the one: the same code words, AMI 1."""
    data = catalogue()
    vectors = data.features["vectors"]
    assert isinstance(vectors, Dense)
    unit = vectors.values / np.linalg.norm(vectors.values, axis=1, keepdims=True)
    text = Dense(vectors.present, unit.astype(np.float32))
    absent = Dense(np.zeros(ITEMS, dtype=bool), np.zeros((ITEMS, 4), dtype=np.float32))
    early = override(SMALL, {"fusion": "early"})
    alone = built(early, dataclasses.replace(data, features={"text": text, "image": absent}))
    assert alone.measures()["ami_text"] == pytest.approx(1.0)
    assert "ami_image" not in alone.measures()
    both = built(early, dataclasses.replace(data, features={"text": text, "image": vectors}))
    oracle = adjusted_mutual_info_score(
        both.ids.code_IT[:, 0], fitted(unit.astype(np.float32), text.present, SMALL.quantiser,
                                       Draws(0).generator("init").initial_seed()).codes[:, 0]
    )  # fmt: skip
    assert both.measures()["ami_text"] == pytest.approx(oracle)


# --- what is refused


def test_views_of_items_are_mean_states_of_a_modalitys_codes():
    model = built(CODES, catalogue(missing=(2,))).eval()
    views = model.item_views()
    assert list(views) == ["text", "image"]
    assert views["text"][2].isnan().all()
    tokens = torch.tensor([ids_of(model)[4][model.ids.spans["image"]]])
    state = model.t5.encode(tokens, torch.ones_like(tokens, dtype=torch.bool))
    torch.testing.assert_close(views["image"][4], state[0].mean(0))


def test_what_cannot_work_is_refused_by_name():
    data = catalogue()
    with pytest.raises(KeyError, match="no item modality 'sound'; there are: text, image"):
        built(override(SMALL, {"modalities": ("sound",)}))
    with pytest.raises(TypeError, match="needs vectors; 'text' is of kind 'codes'"):
        built(override(CODES, {"fusion": "early"}))
    with pytest.raises(ValueError, match="modalities must be distinct"):
        built(override(SMALL, {"modalities": ("text", "text")}))
    with pytest.raises(ValueError, match="needs an item modality of kind dense or codes"):
        built(SMALL, dataclasses.replace(data, features={}))
    with pytest.raises(ValueError, match="not in order of time"):
        built(CODES, dataclasses.replace(data, ordered=False))
    cfg = RunConfig(model=CODES)
    other = apply(Condition(missing=("text",), when="eval"), data)
    with pytest.raises(ValueError, match="MGR makes codes of the features that it is trained on"):
        Run(cfg, data, seed=0, protocol=PROTOCOLS["full"], evaluate_on=other)


def test_a_mean_of_modalities_needs_one_width():
    data = catalogue()
    narrow = Dense(np.ones(ITEMS, dtype=bool), np.ones((ITEMS, 2), dtype=np.float32))
    early = override(SMALL, {"fusion": "early", "joint": "mean"})
    wide = {"text": data.features["vectors"], "image": data.features["others"]}
    assert "fused" in built(early, dataclasses.replace(data, features=wide)).ids.spans
    with pytest.raises(ValueError, match=r"vectors of one width.*'concatenation' fits"):
        built(early, dataclasses.replace(data, features={**wide, "image": narrow}))


def weights(model: MGRModel) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def test_codes_are_of_the_seed_and_the_weights_are_drawn_whatever_they_take():
    """The quantiser has streams of its own: a dense and a given code book start the same T5."""
    dense = override(SMALL, {"modalities": ("vectors",)})
    one, again, other = built(dense), built(dense), built(dense, seed=1)
    assert all(map(torch.equal, weights(one), weights(again)))
    assert one.ids.token_IT.tolist() == again.ids.token_IT.tolist()
    shared = override(dense, {"ids_seed": 3})
    pair = built(shared), built(shared, seed=1)
    assert pair[0].ids.token_IT.tolist() == pair[1].ids.token_IT.tolist()
    assert one.ids.token_IT.tolist() != other.ids.token_IT.tolist()
    assert not torch.equal(weights(pair[0])[0], weights(pair[1])[0])
