"""DREAM against convolutions written out."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmrec.nn.dream import DREAM

ITEMS = 6


def features(dim: int) -> Tensor:
    at = torch.arange(ITEMS * dim, dtype=torch.float64).view(ITEMS, dim)
    return torch.sin(1.3 * at + 0.4) + 0.3 * torch.cos(0.7 * at)


def built(dim: int = 12, **changes) -> DREAM:
    dream = DREAM(dim, torch.Generator().manual_seed(2), **{"released": False, **changes}).double()
    with torch.no_grad():
        for number, parameter in enumerate(dream.parameters()):
            wave = torch.sin(torch.arange(parameter.numel()) * 0.9 + number)
            parameter += 0.3 * wave.view_as(parameter)
        for norm in (dream.view_norm, dream.mean_norm, dream.out_norm):
            norm.mean_D += torch.linspace(-0.2, 0.3, len(norm.mean_D))
            norm.variance_D += torch.linspace(0.0, 0.5, len(norm.mean_D))
    return dream


def reached(size: tuple[int, int], dilation: int) -> list[tuple[int, int]]:
    """The taps of a 3 x 3 kernel that meet a position of the map, row by row."""
    return [
        (a, b)
        for a in range(3)
        for b in range(3)
        if abs(a - 1) * dilation < size[0] and abs(b - 1) * dilation < size[1]
    ]


def kernels(dream: DREAM, size: tuple[int, int], dilations: tuple[int, ...]) -> list[Tensor]:
    """(C, C, 1, 1) of the first view, (C, C, 3, 3) of the others; 0 where a tap meets nothing."""
    first, *others = (view.tap_TCC.detach() for view in dream.views)
    found = [first[0][:, :, None, None]]
    for tap_TCC, dilation in zip(others, dilations, strict=True):
        kernel = torch.zeros(*tap_TCC.shape[1:], 3, 3, dtype=tap_TCC.dtype)
        taps = reached(size, dilation)
        assert len(taps) == len(tap_TCC)
        for (a, b), weight in zip(taps, tap_TCC, strict=True):
            kernel[:, :, a, b] = weight
        found.append(kernel)
    return found


def convolved(x: np.ndarray, kernel: np.ndarray, dilation: int) -> np.ndarray:
    """A convolution as a loop over positions and taps, zeros beyond the edge."""
    out = np.zeros((len(x), len(kernel), *x.shape[2:]))
    height, width = x.shape[2:]
    middle = kernel.shape[2] // 2
    for y, z, a, b in np.ndindex(height, width, *kernel.shape[2:]):
        v, w = y + (a - middle) * dilation, z + (b - middle) * dilation
        if 0 <= v < height and 0 <= w < width:
            out[:, :, y, z] += x[:, :, v, w] @ kernel[:, :, a, b].T
    return out


def normalised(x: np.ndarray, norm: torch.nn.Module, trained: bool, at: slice) -> np.ndarray:
    """(items, channels, height, width) under own or running statistics of each channel."""
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    if not trained:
        mean, variance = norm.mean_D[at].numpy(), norm.variance_D[at].numpy()
    scale, shift = norm.scale_D.detach()[at].numpy(), norm.shift_D.detach()[at].numpy()
    x = (x - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    return x * scale[:, None, None] + shift[:, None, None]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def direct(
    dream: DREAM,
    x_ID: Tensor,
    shape: tuple[int, int, int],
    dilations: tuple[int, ...],
    trained: bool,
) -> np.ndarray:
    channels, size = shape[0], shape[1:]
    x = x_ID.numpy().reshape(ITEMS, *shape)
    weight = {name: p.detach().numpy() for name, p in dream.named_parameters()}
    views = []
    for b, kernel in enumerate(kernels(dream, size, dilations)):
        seen = convolved(x, kernel.numpy(), (1, *dilations)[b])
        at = slice(b * channels, (b + 1) * channels)
        views.append(np.maximum(normalised(seen, dream.view_norm, trained, at), 0))
    mean = np.einsum("oc,ic->io", weight["mean_CC"], x.mean((2, 3)))[:, :, None, None]
    mean = np.maximum(normalised(mean, dream.mean_norm, trained, slice(None)), 0)
    every = np.concatenate((*views, np.broadcast_to(mean, (ITEMS, channels, *size))), 1)

    given = []
    if dream.channel is not None:
        inner = np.maximum(every.mean((2, 3)) @ weight["channel.inner_HK"].T, 0)
        if not dream.released:
            inner = sigmoid(inner @ weight["channel.outer_KH"].T)
        given.append(every * inner[:, :, None, None])
    if dream.spatial is not None:
        read = weight["spatial.read_1K"][0]
        if dream.released:
            place = sigmoid(np.einsum("ikyx,k->iyx", every, read))
        else:
            place = sigmoid(every.mean(1) * read[0])
        given.append(every * place[:, None])
    weighed = np.maximum(*given) if len(given) == 2 else (given or [every])[0]
    if dream.released:
        weighed = weighed * every
    out = np.einsum("ck,ikyx->icyx", weight["out_CK"], weighed)
    return np.maximum(normalised(out, dream.out_norm, trained, slice(None)), 0).reshape(ITEMS, -1)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("attention", ["both", "channel", "spatial", "none"])
@pytest.mark.parametrize(
    ("shape", "dilations"), [((2, 2, 3), (1, 2)), ((1, 3, 4), (1, 3)), ((12, 1, 1), (6, 12, 18))]
)
def test_dream_is_the_convolutions_written_out(shape, dilations, attention, released):
    dream = built(shape=shape, dilations=dilations, attention=attention, released=released)
    x_ID = features(12)
    evaluated = dream(x_ID).detach().numpy()
    expected = direct(dream, x_ID, shape, dilations, trained=False)
    np.testing.assert_allclose(evaluated, expected, rtol=1e-10, atol=1e-12)
    trained, buffers = dream.train_rows(x_ID)
    expected = direct(dream, x_ID, shape, dilations, trained=True)
    np.testing.assert_allclose(trained.detach().numpy(), expected, rtol=1e-10, atol=1e-12)
    assert (expected > 0).any()

    # Running statistics of the first view: torch's, of one evaluation, or released of two.
    seen = F.conv2d(x_ID.view(ITEMS, *shape), kernels(dream, shape[1:], dilations)[0])
    norm = torch.nn.BatchNorm2d(shape[0]).double()
    norm.running_mean.copy_(dream.view_norm.mean_D[: shape[0]])
    norm.running_var.copy_(dream.view_norm.variance_D[: shape[0]])
    for _ in range(1 + released):
        norm(seen)
    for name, value in (("mean_D", norm.running_mean), ("variance_D", norm.running_var)):
        torch.testing.assert_close(buffers[f"view_norm.{name}"][: shape[0]], value)


@pytest.mark.parametrize("released", [False, True])
def test_on_maps_of_one_position_dilation_does_nothing_and_on_real_ones_it_does(released):
    """Torch's own dilated convolutions say so, whatever the taps beyond the middle are."""
    x_ID, rates = features(12), ((6, 12, 18), (1, 2, 3))
    noise = torch.Generator().manual_seed(4)

    def both(shape: tuple[int, int, int]) -> tuple[list[list[Tensor]], list[Tensor]]:
        maps = x_ID.view(ITEMS, *shape)
        kernel = torch.randn(shape[0], shape[0], 3, 3, generator=noise, dtype=torch.float64)
        seen, ours = [], []
        for dilations in rates:
            dream = built(shape=shape, dilations=dilations, released=released)
            with torch.no_grad():
                for view, d in zip(list(dream.views)[1:], dilations, strict=True):
                    taps = reached(shape[1:], d)
                    view.tap_TCC.copy_(torch.stack([kernel[:, :, a, b] for a, b in taps]))
            seen.append([F.conv2d(maps, kernel, padding=d, dilation=d) for d in dilations])
            ours.append(dream.train_rows(x_ID)[0].detach())
        return seen, ours

    (far, near), (ours_far, ours_near) = both((12, 1, 1))
    for one, other in zip(far, near, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert torch.equal(ours_far, ours_near)
    (far, near), (ours_far, ours_near) = both((1, 3, 4))
    assert all((a - b).abs().max() > 0.1 for a, b in zip(far, near, strict=True))
    assert (ours_far - ours_near).abs().max() > 0.1


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (1, 7)])
@pytest.mark.parametrize("dilation", [1, 2, 3, 6])
def test_a_tap_exists_where_torchs_convolution_has_a_gradient_for_it(size, dilation):
    kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    maps = features(size[0] * size[1]).view(ITEMS, 1, *size)
    F.conv2d(maps, kernel, padding=dilation, dilation=dilation).square().sum().backward()
    living = [(int(a), int(b)) for a, b in kernel.grad[0, 0].nonzero()]
    dream = built(size[0] * size[1], shape=(1, *size), dilations=(dilation,))
    assert living == reached(size, dilation)
    assert len(dream.views[1].tap_TCC) == len(living)


def test_the_taps_start_as_narrow_as_those_of_a_whole_kernel():
    """Torch's bound of a convolution is 1 / sqrt(fan-in), here of 9 taps of 64 channels."""
    dream = DREAM(64, torch.Generator().manual_seed(0), released=True)
    plain, *dilated = (view.tap_TCC.detach().abs().max().item() for view in dream.views)
    assert plain == pytest.approx(1 / 8, rel=0.01)
    assert dilated == pytest.approx([1 / 24] * 3, rel=0.01)


@pytest.mark.parametrize("shape", [(4, 4), (1, 8, 9), (1, 1, 1, 64)])
def test_a_shape_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match=r"three numbers .* whose product is 64"):
        DREAM(64, torch.Generator(), released=False, shape=shape)
