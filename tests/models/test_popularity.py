import numpy as np
import torch

from mmrec.data.dataset import Dataset
from mmrec.models.popularity import Popularity


def test_counts_training_pairs_and_nothing_else():
    train = np.array([[0, 1], [1, 1], [2, 1], [0, 3], [2, 3], [1, 0]])
    held_out = np.array([[0, 2], [1, 2], [2, 2], [3, 2]])
    data = Dataset("by hand", 4, 5, train, held_out, held_out)
    model = Popularity().build(data, torch.Generator())
    scores = model.score(*model.embeddings())
    assert scores.tolist() == [[1, 3, 0, 2, 0]] * 4
