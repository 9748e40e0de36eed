import sys

import pytest

from mmrec.study.provenance import command_line, versions


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (["studies/x.py", "--smoke"], "python studies/x.py --smoke"),
        (["/home/me/mmrec/studies/x.py"], "python x.py"),
        (["/home/me/.venv/bin/mmrec", "report", "runs/x y"], "mmrec report 'runs/x y'"),
        (["x.py", "--set", "model.alpha=[0.0, 1]"], "python x.py --set 'model.alpha=[0.0, 1]'"),
        (
            ["x.py", "--storage", "postgresql://me:S3CRET@host/db"],
            "python x.py --storage 'postgresql://me:***@host/db'",
        ),
        (
            ["x.py", "--storage=postgresql://host/db?password=S3CRET"],
            "python x.py '--storage=postgresql://host/db?password=***'",
        ),
    ],
)
def test_the_command_can_be_typed_again_but_for_its_password(monkeypatch, typed, shown):
    monkeypatch.setattr(sys, "argv", typed)
    assert command_line() == shown


def test_versions_are_those_of_what_is_imported():
    import numpy
    import torch

    found = versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["numpy"] == numpy.__version__
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
