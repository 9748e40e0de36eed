"""What comes from outside leads nowhere: names of datasets, and passwords that were typed."""

import json

import numpy as np
import pandas as pd
import pytest

from mmrec.cli import main, mmrec_command
from mmrec.data.sources import load
from tests.e2e.mini import STUDY

PASSWORD = "postgresql://me:S3CRET@host/db"


def dataset(folder, name: str):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame({"user": np.repeat(np.arange(20), 10)})
    pairs["item"] = np.concatenate([rng.permutation(30)[:10] for _ in range(20)])
    pairs.to_csv(folder / "pairs.csv", index=False)
    manifest = {"interactions": "pairs.csv", "name": name}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/x", "..", ".hidden", "a/b", "a\\b", "a\nb", "", "x" * 101]
)
def test_a_dataset_cannot_name_itself_out_of_the_run_folder(tmp_path, name):
    folder = dataset(tmp_path / "data", name)
    with pytest.raises(ValueError, match=r"manifest\.json: name: a run folder is named after it"):
        load(str(folder))


def test_a_name_may_be_odd_as_long_as_it_is_a_name(tmp_path):
    odd = "<script>alert(1)<:script> 'quoted' \"so\" %{x} ..é"
    assert load(str(dataset(tmp_path / "data", odd))).name == odd


@pytest.mark.parametrize(
    "words",
    [
        ["--storge", PASSWORD],
        [f"--storge={PASSWORD}"],
        ["--seeds", PASSWORD],
        ["--storage", "postgresql://me:S3CRET@host:port/db"],
        ["--storage", "mysql://me:S3CRET@host/db"],
        ["--out", "ftp://me:S3CRET@host/runs", "--storage", "sqlite:////tmp/x.db"],
    ],
)
def test_a_slip_beside_a_password_does_not_print_it(words, capsys):
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main(STUDY, words))
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert "S3CRET" not in said.out + said.err
    assert "***" in said.err


def test_nor_does_a_slip_of_the_other_command(capsys):
    with pytest.raises(SystemExit):
        mmrec_command(["report", "runs/x", "--storge", PASSWORD])
    assert "S3CRET" not in capsys.readouterr().err
