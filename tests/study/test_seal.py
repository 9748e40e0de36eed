import io

import numpy as np
import pytest
import torch

from mmrec.evaluation import Ranking
from mmrec.study import seal
from mmrec.study.store import Folder


def test_what_is_sealed_is_unsealed(tmp_path):
    folder = Folder.at(tmp_path)
    values = torch.tensor([0.1, 1 / 3, 1.0], dtype=torch.float64)
    metrics = {"ndcg@10": float(values.mean()), "arp@10": 0.1 + 0.2, "pl@10": -0.5}
    per_user = {"ndcg@10": values, "recall@10": torch.zeros(3)}
    seal.write(folder, "00ff", Ranking(metrics, torch.tensor([2, 5, 9]), per_user), "ndcg@10")
    scores = seal.unseal(folder, "00ff")
    assert scores.metrics == metrics  # to the last bit
    assert scores.users.tolist() == [2, 5, 9]
    assert list(scores.per_user) == ["ndcg@10"]
    np.testing.assert_allclose(scores.per_user["ndcg@10"], values, rtol=2**-24)
    assert [file.name for file in (tmp_path / "trials/00ff").iterdir()] == ["test.npz"]


def test_a_trial_that_never_ended_has_nothing_to_unseal(tmp_path):
    with pytest.raises(FileNotFoundError):
        seal.unseal(Folder.at(tmp_path), "00ff")


def test_a_file_that_would_run_code_is_refused(tmp_path):
    folder, buffer = Folder.at(tmp_path), io.BytesIO()
    names = np.array(["x"], dtype=object)
    np.savez(buffer, names=names, values=np.zeros(1), users=names, per_user=names, objective=names)
    folder.write("trials/00ff/test.npz", buffer.getvalue())
    with pytest.raises(ValueError, match="allow_pickle"):
        seal.unseal(folder, "00ff")
