"""The pre-flight on real clusters of several nodes on this machine."""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mmrec
from mmrec.data.dataset import Dataset
from mmrec.data.planted import Modality, Planted, planted
from mmrec.study.database import Refused
from mmrec.study.store import Folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

WITHOUT = "import sys; sys.modules['mmrec'] = None"
"""What a node runs at its start to have no mmrec."""

ANOTHER = """
import importlib.machinery, sys
class First:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "mmrec":
            return importlib.machinery.PathFinder.find_spec(name, [{root!r}])
sys.meta_path.insert(0, First)
"""
"""The same, to have that at `root`."""


@pytest.fixture(scope="module")
def data() -> Dataset:
    return planted(
        Planted(users=30, items=60, interactions=300, modalities=(Modality(name="text", width=4),))
    )


@pytest.fixture
def cluster(monkeypatch) -> Iterator[Any]:
    """A head without CPUs, found as `ray start` leaves it to be found."""
    from mmrec.tune import local  # noqa: F401 - before ray: it sets the environment  # isort: skip
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # Ray's sockets want a short path
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # Nodes may be added in a thread, where Python allows no handler.
    monkeypatch.setattr("ray._private.utils.set_sigterm_handler", lambda _handler: None)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield made
    made.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def at_start(folder: Path, code: str) -> dict[str, str]:
    """Environment of a node whose every Python runs `code` first."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder)}


def test_nodes_that_agree(cluster, data, tmp_path, capsys):
    from mmrec.tune import local
    from mmrec.tune.preflight import require

    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    with local.started():
        assert not local.is_private()
        require(data, Folder.at(tmp_path), gpus=0)
    assert "3 node(s) agree" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_a_node_without_the_package_and_one_with_another(cluster, data, tmp_path):
    from mmrec.tune import local
    from mmrec.tune.preflight import require
    from mmrec.tune.versions import this_node

    other = tmp_path / "other"
    shutil.copytree(Path(mmrec.__file__).parent, other / "mmrec")
    (other / "mmrec" / "new.py").write_text("")
    cluster.add_node(num_cpus=1, env_vars=at_start(tmp_path / "a", WITHOUT))
    cluster.add_node(num_cpus=1, env_vars=at_start(tmp_path / "b", ANOTHER.format(root=str(other))))
    with local.started(), pytest.raises(Refused) as refused:
        require(data, Folder.at(tmp_path / "run"), gpus=0)
    first, *lines = str(refused.value).splitlines()
    assert first.startswith("pre-flight: 2 of 3 node(s) cannot take part")
    assert len(lines) == 3
    assert lines[0].endswith("  ok")  # the head
    mine = this_node()["code"]
    ends = {line.partition("code")[2] for line in lines[1:]}
    (gone,) = (end for end in ends if "ModuleNotFoundError" in end)
    assert gone.endswith(f"expected {mine}")
    (another,) = ends - {gone}
    assert another.endswith(f", expected {mine}")
    assert another.split(",")[0].strip() != mine


def test_a_folder_that_nodes_do_not_share(cluster, data):
    """`memory://` is a folder that every process has for itself."""
    from mmrec.tune import local
    from mmrec.tune.preflight import require

    with local.started(), pytest.raises(Refused) as refused:
        require(data, Folder("memory://run"), gpus=0)
    (line,) = str(refused.value).splitlines()[1:]
    assert line.endswith("storage memory://run is not shared: what the driver wrote is not there")
    assert not Folder("memory://run").exists()


def test_one_s_own_ray_is_not_asked(data, tmp_path):
    from mmrec.tune import local
    from mmrec.tune.preflight import require

    with local.started("local"):
        assert local.is_private()
        start = time.monotonic()
        require(data, Folder.at(tmp_path), gpus=0)
        assert time.monotonic() - start < 0.1
        with pytest.raises(Refused, match="1 node"):  # at once: nobody else will join
            local.slots(10_000, 0)


def test_a_cluster_may_grow(cluster):
    from mmrec.tune import local

    tested = threading.Event()

    def join() -> None:
        cluster.add_node(num_cpus=1)
        tested.wait(100)  # a node dies with the thread that started it

    with local.started():
        with pytest.raises(Refused, match=r"a trial wants 1 CPU .* after 0.5 s"):
            local.slots(1, 0, wait_seconds=0.5)
        thread = threading.Thread(target=join)
        thread.start()
        assert local.slots(1, 0, wait_seconds=60) == 1
        room = local.Room(1, 0, every=0)
        assert room() == 1 + 2
        cluster.add_node(num_cpus=5)
        assert room() == 6 + 3
        assert local.slots(2, 0) == 2  # no trial of 2 CPUs fits on the first node
        tested.set()
        thread.join()
