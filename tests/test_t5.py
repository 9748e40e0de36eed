import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from mmrec.nn.t5 import T5, T5Shape

F64 = torch.float64
SHAPE = T5Shape(dim=8, heads=2, head_dim=3, ff=12, encoder_layers=2, decoder_layers=2)
TOKENS, ROWS, SOURCE, TARGET = 11, 4, 6, 5
GOLDEN = json.loads((Path(__file__).parent / "golden" / "t5.json").read_text())


def model(dropout: float = 0.0, seed: int = 0, shape: T5Shape = SHAPE) -> T5:
    return T5(TOKENS, shape, dropout, torch.Generator().manual_seed(seed)).double()


def sequences(seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Sources, what is no padding in them (of the last row nothing), and decoder inputs."""
    draws = torch.Generator().manual_seed(seed)
    source = torch.randint(TOKENS, (ROWS, SOURCE), generator=draws)
    real = torch.rand(ROWS, SOURCE, generator=draws) < 0.7
    real[0], real[-1] = True, False
    return source, real, torch.randint(TOKENS, (ROWS, TARGET), generator=draws)


def decoded(net: T5, source: Tensor, real: Tensor, target: Tensor, kept=None) -> Tensor:
    kept = kept or {}
    return net.decode(target, net.encode(source, real, kept), real, kept)


def filled(record: dict) -> Tensor:
    n = torch.arange(math.prod(record["shape"]), dtype=F64)
    value = record["offset"] + record["amplitude"] * torch.sin(0.37 * n * n + record["p"])
    return value.view(record["shape"])


def as_ours(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Its parameters under our names, queries, keys and values in one matrix."""
    found = {"token_VD": theirs["shared.weight"]}
    for stack, feed_at in (("encoder", 1), ("decoder", 2)):
        found[f"{stack}.norm_D"] = theirs[f"{stack}.final_layer_norm.weight"]
        first = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        found[f"{stack}.near_RH"] = theirs[first]
        for layer in range(2):
            block = f"{stack}.block.{layer}.layer"
            kinds = {"own": (0, "SelfAttention"), "cross": (1, "EncDecAttention")}
            for ours, (at, kind) in list(kinds.items())[:feed_at]:
                name = f"{block}.{at}.{kind}"
                every = [theirs[f"{name}.{part}.weight"] for part in "qkv"]
                found[f"{stack}.{ours}.{layer}.into_CD"] = torch.cat(every)
                found[f"{stack}.{ours}.{layer}.out_DC"] = theirs[f"{name}.o.weight"]
                norm = theirs[f"{block}.{at}.layer_norm.weight"]
                found[f"{stack}.{ours}.{layer}.norm_D"] = norm
            name = f"{block}.{feed_at}.DenseReluDense"
            found[f"{stack}.feed.{layer}.wide_FD"] = theirs[f"{name}.wi.weight"]
            found[f"{stack}.feed.{layer}.narrow_DF"] = theirs[f"{name}.wo.weight"]
            norm = theirs[f"{block}.{feed_at}.layer_norm.weight"]
            found[f"{stack}.feed.{layer}.norm_D"] = norm
    return found


def test_logits_and_gradients_are_those_of_transformers():
    config = dict(GOLDEN["config"])
    vocabulary = config.pop("vocabulary")
    net = T5(vocabulary, T5Shape(**config), 0.0, torch.Generator()).double()
    theirs = {name: filled(record) for name, record in GOLDEN["parameters"].items()}
    net.load_state_dict(as_ours(theirs))
    source, begin, target = (torch.tensor(GOLDEN[name]) for name in ("tokens", "begin", "target"))
    logits = net.logits(decoded(net, source, torch.tensor(GOLDEN["real"]).bool(), begin))
    expected = torch.tensor(GOLDEN["logits"], dtype=F64)
    torch.testing.assert_close(logits[:, GOLDEN["positions"]], expected, rtol=0, atol=1e-10)
    loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
    assert loss.item() == pytest.approx(GOLDEN["loss"], rel=1e-10)
    loss.backward()
    norms = {
        name: torch.tensor([value], dtype=F64) for name, value in GOLDEN["gradient_norms"].items()
    }
    for name, parameter in net.named_parameters():
        of_one = as_ours(norms)[name]
        assert parameter.grad is not None
        assert float(parameter.grad.norm()) == pytest.approx(float(of_one.norm()), rel=1e-10), name


def test_some_tokens_logits_are_a_part_of_all():
    net, state = model(), torch.randn(2, 3, 8, dtype=F64)
    torch.testing.assert_close(net.logits(state, 3, 7), net.logits(state)[..., 3:7])
    assert net.logits(state[0], 9).shape == (3, 2)


def test_what_stands_in_padding_does_not_matter():
    net = model()
    source, real, target = sequences()
    expected = decoded(net, source, real, target)
    assert expected.isfinite().all()
    changed = torch.where(real, source, (source + 3) % TOKENS)
    torch.testing.assert_close(decoded(net, changed, real, target), expected)
    wider = F.pad(source, (2, 1), value=4), F.pad(real, (2, 1))
    torch.testing.assert_close(decoded(net, *wider, target), expected)
    assert not net.encode(source, real)[~real].any()


def test_later_tokens_do_not_change_earlier_states():
    net = model()
    source, real, target = sequences()
    before = decoded(net, source, real, target)
    target[:, 3:] = (target[:, 3:] + 1) % TOKENS
    after = decoded(net, source, real, target)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert (after[:, 3:] - before[:, 3:]).abs().amin((0, 2)).min() > 1e-9


def test_cached_decoding_is_decoding_of_each_beams_own_tokens():
    net = model()
    source, real, _ = sequences()
    state = net.encode(source, real)
    draws = torch.Generator().manual_seed(2)
    decoding = net.start(state, real)
    prefix = torch.zeros(ROWS, 1, 0, dtype=torch.int64)
    for beams, ordered in ((1, None), (3, 1), (5, 3), (5, None), (2, 5)):
        token = torch.randint(TOKENS, (ROWS, beams), generator=draws)
        parent = None
        if ordered is not None:
            parent = torch.randint(ordered, (ROWS, beams), generator=draws)
            prefix = prefix.gather(1, parent[..., None].expand(-1, -1, prefix.shape[2]))
        prefix = torch.cat((prefix, token[..., None]), 2)
        found = net.step(token, decoding, parent)
        for beam in range(beams):
            expected = net.decode(prefix[:, beam], state, real)[:, -1]
            torch.testing.assert_close(found[:, beam], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_lanes_agree_with_solo(dropout):
    class Loss(torch.nn.Module):
        def __init__(self, net: T5) -> None:
            super().__init__()
            self.net = net

        def forward(self, *parts) -> Tensor:
            return self.net.logits(decoded(self.net, *parts)).log_softmax(-1)[..., 2].square().sum()

    lanes = [Loss(model(dropout, seed)) for seed in (0, 1)]
    kept = lanes[0].net.draw_dropout(ROWS, SOURCE, TARGET, torch.Generator().manual_seed(3))
    parts = (*sequences(), kept)
    params, _ = stack_module_state(lanes)
    found = vmap(grad(lambda p: functional_call(lanes[0], p, parts)))(params)
    for at, lane in enumerate(lanes):
        lane(*parts).backward()
        for name, parameter in lane.named_parameters():
            assert parameter.grad is not None
            assert parameter.grad.any(), name
            torch.testing.assert_close(found[name][at], parameter.grad, rtol=1e-8, atol=1e-10)


def test_dropout_keeps_as_many_as_its_rate_says():
    rate = 0.15
    kept = model(rate).draw_dropout(500, 4, 3, torch.Generator().manual_seed(0))
    assert {name: tuple(mask.shape) for name, mask in kept.items()} == {
        "encoder_sums": (500, 5, 4, 8),
        "encoder_hidden": (500, 2, 4, 12),
        "decoder_sums": (500, 7, 3, 8),
        "decoder_hidden": (500, 2, 3, 12),
    }
    for mask in kept.values():
        share, deviation = mask.double().mean(), math.sqrt(rate * (1 - rate) / mask.numel())
        assert abs(float(share) - (1 - rate)) < 4 * deviation
    assert set(model(rate).draw_dropout(2, 4, 0, torch.Generator())) == {
        "encoder_sums",
        "encoder_hidden",
    }
    assert model(0.0).draw_dropout(2, 4, 3, torch.Generator()) == {}


class Dense:
    """The formulas of one row in NumPy, what dropout keeps scaled by 4 / 3; short sequences."""

    def __init__(self, net: T5, kept: dict[str, Tensor], row: int) -> None:
        self.weight = {name: p.detach().numpy() for name, p in net.named_parameters()}
        self.kept = {name: mask[row].numpy() / 0.75 for name, mask in kept.items()}

    def near(self, stack: str, bucket_AC: np.ndarray) -> np.ndarray:
        return np.moveaxis(self.weight[f"{stack}.near_RH"][bucket_AC], 2, 0)

    def normed(self, x: np.ndarray, name: str) -> np.ndarray:
        scale = np.sqrt((x**2).mean(1, keepdims=True) + 1e-6)
        return self.weight[f"{name}.norm_D"] * x / scale

    def attended(self, name: str, x: np.ndarray, y: np.ndarray, bias_HAC: np.ndarray) -> np.ndarray:
        into, found = self.weight[f"{name}.into_CD"], []
        for head in range(2):
            q, k, v = (into[i * 6 + head * 3 :][:3] for i in range(3))
            weight = np.exp((x @ q.T) @ (y @ k.T).T + bias_HAC[head])
            found.append(weight / weight.sum(1, keepdims=True) @ (y @ v.T))
        return np.hstack(found) @ self.weight[f"{name}.out_DC"].T

    def stack(self, name: str, tokens: np.ndarray, bias_HAA, source=None, hidden_HAC=None):
        sums = iter(self.kept[f"{name}_sums"])
        x = self.weight["token_VD"][tokens] * next(sums)
        for at in range(2):
            y = self.normed(x, f"{name}.own.{at}")
            x = x + self.attended(f"{name}.own.{at}", y, y, bias_HAA) * next(sums)
            if source is not None and hidden_HAC is not None:
                y = self.normed(x, f"{name}.cross.{at}")
                x = x + self.attended(f"{name}.cross.{at}", y, source, hidden_HAC) * next(sums)
            wide, narrow = (self.weight[f"{name}.feed.{at}.{w}"] for w in ("wide_FD", "narrow_DF"))
            y = np.maximum(self.normed(x, f"{name}.feed.{at}") @ wide.T, 0)
            x = x + (y * self.kept[f"{name}_hidden"][at]) @ narrow.T * next(sums)
        return self.normed(x, name)


def test_states_under_dropout_follow_the_formula():
    net = model(dropout=0.25)
    source, real, target = sequences()
    kept = net.draw_dropout(ROWS, SOURCE, TARGET, torch.Generator().manual_seed(4))
    found = decoded(net, source, real, target, kept).detach().numpy()
    i, j = np.ogrid[:SOURCE, :SOURCE]
    for row in range(ROWS - 1):
        dense = Dense(net, kept, row)
        # So near each other, tokens have a bucket for each distance, after them one 16 further on.
        near_HSS = dense.near("encoder", 16 * (j > i) + abs(j - i))
        hidden = np.where(real[row].numpy(), 0.0, -np.inf)
        state = dense.stack("encoder", source[row].numpy(), near_HSS + hidden)
        near_HTT = dense.near("decoder", abs(i - j))
        causal_HTT = (near_HTT + np.where(j > i, -np.inf, 0.0))[:, :TARGET, :TARGET]
        across_HTS = np.broadcast_to(hidden, (2, TARGET, SOURCE))
        expected = dense.stack("decoder", target[row].numpy(), causal_HTT, state, across_HTS)
        np.testing.assert_allclose(found[row], expected, rtol=1e-9, atol=1e-11)


def test_weights_start_as_t5s():
    shape = T5Shape(dim=64, heads=4, head_dim=25, ff=144, encoder_layers=1, decoder_layers=1)
    net = T5(500, shape, 0.0, torch.Generator().manual_seed(0))
    query, pair = net.encoder.get_parameter("own.0.into_CD").split((100, 200))
    for weight, deviation in (
        (net.token_VD, 1.0),
        (query, 1 / 40),
        (pair, 1 / 8),
        (net.encoder.get_parameter("own.0.out_DC"), 1 / 10),
        (net.decoder.get_parameter("feed.0.wide_FD"), 1 / 8),
        (net.decoder.get_parameter("feed.0.narrow_DF"), 1 / 12),
        (net.decoder.near_RH, 1 / 8),
    ):
        weight = weight.detach()
        assert abs(float(weight.mean())) < 4 * deviation / weight.numel() ** 0.5
        assert float(weight.std()) == pytest.approx(deviation, rel=4 / (2 * weight.numel()) ** 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"dropout": 1.0}, "dropout must be in"), ({"shape": SHAPE._replace(heads=0)}, "heads = 0")],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        model(**changes)
