import numpy as np
import pytest
import torch

from mmrec.graphs import bipartite
from mmrec.nn.propagation import mean_of_layers

F64 = torch.float64
TRAIN = np.array([(0, 0), (0, 1), (1, 1), (2, 3), (2, 0)])


@pytest.mark.parametrize("layers", [0, 1, 3])
@pytest.mark.parametrize("own_weights", [False, True])
def test_is_the_mean_of_matrix_powers(layers, own_weights):
    rng = np.random.default_rng(0)
    graph = bipartite(TRAIN, 3, 4, dtype=F64)
    weight_E = torch.tensor(rng.normal(size=10)) if own_weights else None
    dense = graph.dense()
    if weight_E is not None:
        dense[graph.row_E, graph.column_E] = weight_E
    user_UD, item_ID = torch.tensor(rng.normal(size=(3, 2))), torch.tensor(rng.normal(size=(4, 2)))
    found = mean_of_layers(graph, user_UD, item_ID, layers, weight_E)
    start = torch.cat((user_UD, item_ID))
    powers = [torch.linalg.matrix_power(dense, k) @ start for k in range(layers + 1)]
    expected = torch.stack(powers).mean(0)
    torch.testing.assert_close(found[0], expected[:3], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found[1], expected[3:], rtol=1e-12, atol=1e-14)
