import time

import pytest
import torch
from torch.nn import functional as F

from mmrec.nn import maps
from mmrec.nn.maps import linear, linear_rows

F64 = torch.float64


def random(*shape: int, dtype: torch.dtype = F64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-12), (torch.float32, 1e-5)])
def test_product_and_gradients_are_those_of_torch(dtype, tolerance):
    torch.manual_seed(0)
    x, weight = random(37, 50, dtype=dtype), random(9, 50, dtype=dtype)
    bias = random(9, dtype=dtype)
    factor = torch.randn(37, 9, dtype=dtype)
    found, expected = linear(x, weight, bias), F.linear(x, weight, bias)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    gradients = [
        torch.autograd.grad((out * factor).sum(), (x, weight, bias)) for out in (found, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=tolerance, atol=tolerance)


def test_gradients_of_first_and_second_order():
    x, weight = random(4, 3), random(2, 3)
    assert torch.autograd.gradcheck(linear, (x, weight))
    assert torch.autograd.gradgradcheck(linear, (x, weight))


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0), (1, 0), (0, 1), (2, None)])
def test_lanes_are_a_loop(in_dims):
    shapes = ((6, 5), (4, 5))
    args = [
        torch.randn(shape, dtype=F64)
        if dim is None
        else torch.randn(3, *shape, dtype=F64).movedim(0, dim)
        for dim, shape in zip(in_dims, shapes, strict=True)
    ]
    both = torch.func.grad(lambda x, w: linear(x, w).tanh().sum(), argnums=(0, 1))
    found = torch.func.vmap(both, in_dims=in_dims)(*args)
    for lane in range(3):
        ends = [a if d is None else a.select(d, lane) for a, d in zip(args, in_dims, strict=True)]
        for part, expected in zip(found, both(*ends), strict=True):
            torch.testing.assert_close(part[lane], expected, rtol=1e-12, atol=1e-12)


def test_a_slice_of_columns_is_no_slower_by_orders():
    x, weight = torch.randn(2000, 64), torch.randn(64, 128)
    slice_OF = weight[:, :64]
    torch.testing.assert_close(linear(x, slice_OF), x @ slice_OF.T, rtol=1e-4, atol=1e-4)
    seconds = []
    for right_OF in (slice_OF.contiguous(), slice_OF):
        begin = time.process_time()
        for _ in range(3):
            linear(x, right_OF)
        seconds.append(time.process_time() - begin)
    assert seconds[1] < 20 * seconds[0] + 0.05


@pytest.mark.parametrize("rows", [2, 5, 512])
def test_rows_of_a_table_are_mapped_as_if_they_were_gathered(rows, monkeypatch):
    monkeypatch.setattr(maps, "_CHUNK_ROWS", rows)
    torch.manual_seed(0)
    index = torch.tensor([3, 0, 3, 6, 6, 1, 2])
    table, weight, factor = random(8, 5), random(4, 5), torch.randn(7, 4, dtype=F64)
    found, expected = linear_rows(table, index, weight), F.linear(table[index], weight)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gradients = [
        torch.autograd.grad((out * factor).sum(), (table, weight)) for out in (found, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("in_dims", [(0, 0, 0), (None, 0, 0), (None, None, 0), (0, None, None)])
def test_rows_of_lanes_are_a_loop(in_dims):
    index = torch.tensor([[1, 1, 0], [2, 4, 1], [3, 3, 3]])
    whole = (torch.randn(3, 5, 6, dtype=F64), index, torch.randn(3, 2, 6, dtype=F64))
    args = [w if d == 0 else w[0] for w, d in zip(whole, in_dims, strict=True)]
    both = torch.func.grad(lambda x, i, w: linear_rows(x, i, w).tanh().sum(), argnums=(0, 2))
    found = torch.func.vmap(both, in_dims=in_dims)(*args)
    for lane in range(3):
        ends = [a if d is None else a[lane] for a, d in zip(args, in_dims, strict=True)]
        for part, expected in zip(found, both(*ends), strict=True):
            torch.testing.assert_close(part[lane], expected, rtol=1e-12, atol=1e-12)
