import pytest
import torch
from torch import nn

from mmrec.nn.branch import BatchNorm, Branch, BranchShape


@pytest.mark.usefixtures("float64")
def test_weights_are_repetitions_of_a_row_in_torchs_batch_norm():
    rows, counts = torch.randn(5, 3), torch.tensor([1, 0, 3, 2, 1])
    ours, theirs = BatchNorm(3), nn.BatchNorm1d(3)
    with torch.no_grad():
        theirs.weight.copy_(ours.scale_D.uniform_())
        theirs.bias.copy_(ours.shift_D.uniform_())
    out, new = ours.train_rows(rows, counts.double())
    expected = theirs(rows.repeat_interleave(counts, 0))
    torch.testing.assert_close(out.repeat_interleave(counts, 0), expected)
    torch.testing.assert_close(new["mean_D"], theirs.running_mean)
    torch.testing.assert_close(new["variance_D"], theirs.running_var)
    ours.load_state_dict(new, strict=False)
    torch.testing.assert_close(ours(rows), theirs.eval()(rows))


def test_no_row_leaves_the_running_statistics_as_they_are():
    norm = BatchNorm(2)
    norm.load_state_dict({"mean_D": torch.tensor([1.0, 2.0])}, strict=False)
    _, new = norm.train_rows(torch.randn(4, 2), torch.zeros(4))
    assert new["mean_D"].tolist() == [1.0, 2.0]
    assert new["variance_D"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("every", "places"),
    [(None, []), (0, ["end"]), (-1, ["5"]), (1, list("12345")), (2, ["2", "4"]), (6, [])],
)
def test_where_batch_normalisation_stands(every, places):
    shape = BranchShape((4, 3, 3, 3, 3, 2), torch.relu, output_activation=True, norm_every=every)
    assert list(Branch(shape, torch.Generator()).norms) == places


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("every", "negative"), [(0, True), (-1, False)])
def test_normalisation_at_the_end_follows_the_output_activation_or_precedes_it(every, negative):
    shape = BranchShape((4, 3), torch.relu, output_activation=True, norm_every=every)
    branch = Branch(shape, torch.Generator().manual_seed(0))
    out, _ = branch.train_rows(torch.randn(20, 4, generator=torch.Generator().manual_seed(1)))
    assert bool((out < 0).any()) == negative
