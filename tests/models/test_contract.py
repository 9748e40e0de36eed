"""What every model must do. A new file in mmrec/models is picked up by itself."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from mmrec.config import override
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.evaluation import PROTOCOLS, Evaluator
from mmrec.models.base import Batch, ModelConfig, Recommender
from mmrec.training import RunConfig
from tests.models.every import CONFIGS, TRAINED
from tests.models.tiny import tiny

SHAPE = BatchShape(size=30, negatives=3)


def built(cfg: ModelConfig, seed: int = 0) -> Recommender:
    return cfg.build(tiny(missing=True), Draws(seed).generator("init"))


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS)
def any_cfg(request) -> ModelConfig:
    return request.param


@pytest.fixture(params=TRAINED.values(), ids=TRAINED)
def cfg(request) -> ModelConfig:
    return request.param


def batches(model: Recommender, seed: int = 0, epoch: int = 0) -> list[Batch]:
    pairs, draws = TrainingPairs.of(tiny()), Draws(seed)
    model.start_epoch(draws, epoch)
    return list(model.epoch_batches(pairs, draws, epoch, SHAPE))


def content(batch: Batch) -> list[Tensor]:
    return [batch.user, batch.positive, batch.negative, *batch.extra.values()]


def state(model: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(map(torch.equal, left, right))


def total(model: Recommender, batch: Batch) -> Tensor:
    return torch.stack(list(model.losses(batch).terms.values())).sum()


def test_every_parameter_gets_a_gradient(cfg):
    model = built(cfg)
    for batch in batches(model):
        total(model, batch).backward()
    dead = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert dead == set(model.DEAD)


def test_the_seed_decides_weights_and_batches(cfg):
    first, again, other = built(cfg, 1), built(cfg, 1), built(cfg, 2)
    assert equal(state(first), state(again))
    assert not equal(state(first), state(other))
    drawn = [
        [t for b in batches(first, seed, epoch) for t in content(b)]
        for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))
    ]
    assert equal(drawn[0], drawn[1])
    assert not equal(drawn[0], drawn[2])
    assert not equal(drawn[0], drawn[3])


def test_torchs_own_generator_is_never_used(cfg):
    before = torch.get_rng_state()
    model = built(cfg)
    for batch in batches(model):
        model.losses(batch)
    assert torch.equal(before, torch.get_rng_state())


def test_losses_are_finite_scalars_and_a_function(cfg):
    model = built(cfg).train()
    batch = batches(model)[0]
    before = state(model)
    terms, buffers = model.losses(batch)
    for name, term in terms.items():
        assert term.shape == (), name
        assert term.isfinite(), name
    assert equal(before, state(model))
    again = model.losses(batch)
    assert equal(list(terms.values()), list(again.terms.values()))
    assert equal(list(buffers.values()), list(again.buffers.values()))
    model.eval()
    assert equal(list(terms.values()), list(model.losses(batch).terms.values()))


def test_new_buffers_are_values_for_buffers_that_exist(cfg):
    model = built(cfg)
    known = dict(model.named_buffers())
    for name, value in model.losses(batches(model)[0]).buffers.items():
        assert value.shape == known[name].shape
        assert not value.requires_grad


def test_continuous_knobs_are_scalar_buffers(cfg):
    scalars = {
        name.rpartition(".")[2]: float(value)
        for name, value in built(cfg).named_buffers()
        if value.ndim == 0
    }
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        if isinstance(value, float) and field.name not in cfg.STRUCTURE:
            assert scalars[field.name] == pytest.approx(value), field.name


def stack(parts: tuple[Tensor, ...]) -> Tensor:
    """Lanes beside each other; a list of distinct ids is lengthened by repeating its last entry."""
    longest = max(map(len, parts))
    return torch.stack(
        [torch.cat((p, p[-1:].expand(longest - len(p), *p.shape[1:]))) for p in parts]
    )


class _Losses(nn.Module):
    """`losses` as a forward, which is what `functional_call` calls."""

    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        terms, buffers = self.model.losses(batch)
        return terms, dict(buffers)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("own_batches", [False, True])
def test_lanes_agree_with_solo_runs(cfg, own_batches):
    assert_lanes_agree_with_solo_runs(cfg, own_batches=own_batches)


def assert_lanes_agree_with_solo_runs(cfg: ModelConfig, *, own_batches: bool) -> None:
    """Losses, gradients and buffers of two lanes, on one batch or one each, and of two models."""
    models = [built(cfg, seed) for seed in (0, 1)]
    for value in models[1].buffers():
        if value.ndim == 0:
            value.mul_(0.7)
    runs = [batches(model, seed * own_batches)[0] for seed, model in enumerate(models)]
    lanes = [_Losses(model) for model in models]
    params, buffers = torch.func.stack_module_state(lanes)
    names = list(runs[0].extra)
    stacked = [stack(parts) for parts in zip(*map(content, runs), strict=True)]

    def step(params: dict[str, Tensor], buffers: dict[str, Tensor], *parts: Tensor):
        extra = dict(zip(names, parts[3:], strict=True))
        batch = dataclasses.replace(
            runs[0], user=parts[0], positive=parts[1], negative=parts[2], extra=extra
        )
        terms, new = torch.func.functional_call(lanes[0], (params, buffers), (batch,))
        return torch.stack(list(terms.values())).sum(), (terms, new)

    parts = stacked if own_batches else content(runs[0])
    in_dims = (0, 0, *[0 if own_batches else None] * len(parts))
    gradient, (terms, new) = torch.func.vmap(torch.func.grad(step, has_aux=True), in_dims=in_dims)(
        params, buffers, *parts
    )

    for lane, (model, batch) in enumerate(zip(models, runs, strict=True)):
        solo = model.losses(batch)
        torch.stack(list(solo.terms.values())).sum().backward()
        for name, value in solo.terms.items():
            torch.testing.assert_close(terms[name][lane], value, rtol=1e-6, atol=1e-14)
        for name, value in solo.buffers.items():
            torch.testing.assert_close(new[name][lane], value, rtol=1e-6, atol=1e-14)
        for name, parameter in model.named_parameters():
            found = gradient[f"model.{name}"][lane]
            expected = torch.zeros_like(found) if parameter.grad is None else parameter.grad
            scale = float(expected.abs().max())
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * scale + 1e-12)


def held_out_recall(model: Recommender) -> float:
    """Share of held-out pairs among a user's best five unseen items."""
    data = tiny()
    best = Evaluator(data, "valid", PROTOCOLS["full"], (5,)).top(model.eval(), 5)
    return float(torch.stack([(best[u] == i).any() for u, i in data.test.tolist()]).double().mean())


@pytest.mark.slow
def test_learns_what_the_untrained_model_does_not_know(cfg):
    model = built(cfg)
    untrained = held_out_recall(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03, fused=True)
    known = dict(model.named_buffers())
    epochs = (batches(model, epoch=epoch) for epoch in itertools.count())
    # Those of 20 epochs of pairs, or of more of users.
    for batch in itertools.islice(itertools.chain.from_iterable(epochs), 60):
        terms, buffers = model.losses(batch)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        for name, value in buffers.items():
            known[name].copy_(value)
    # Untrained embeddings that are spread over users and items may know the tastes already.
    assert held_out_recall(model) > min(untrained + 0.2, 0.99)


def test_scores_and_measures_are_finite(any_cfg):
    model = built(any_cfg).eval()
    with torch.no_grad():
        user, item = model.embeddings()
        scores = model.score(user[:3], item)
    assert scores.shape == (3, len(item))
    assert scores.isfinite().all()
    assert all(math.isfinite(value) for value in model.measures().values())


def test_the_card_and_the_published_grid_say_what_is_there(any_cfg):
    assert len(any_cfg.CARD.idea.split()) == 5
    run = RunConfig(model=any_cfg)
    for path, levels in any_cfg.search_space.items():
        assert len(set(levels)) == len(levels) > 1
        for level in levels:
            override(run, {path: level})
    override(run, any_cfg.released_training)


def test_a_closed_form_and_nothing_else_has_no_parameters(any_cfg):
    assert any_cfg.closed_form == (not list(built(any_cfg).parameters()))
