import threading

import numpy as np
import pytest

from mmrec import cache


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMREC_CACHE", str(tmp_path / "cache"))


def counted(value: float):
    calls = []

    def build():
        calls.append(1)
        return {"a": np.full(3, value), "b": np.arange(2)}

    return build, calls


def test_the_same_inputs_are_built_once_and_other_content_anew():
    build, calls = counted(1.5)
    table = np.arange(6.0).reshape(2, 3)
    for _ in range(3):
        found = cache.cached("x-1", {"table": table, "k": 2}, build)
        np.testing.assert_array_equal(found["a"], np.full(3, 1.5))
        np.testing.assert_array_equal(found["b"], [0, 1])
    assert len(calls) == 1
    for inputs in (
        {"table": table + 1, "k": 2},
        {"table": table.reshape(3, 2), "k": 2},
        {"table": table.astype(np.float32), "k": 2},
        {"table": table, "k": 3},
    ):
        cache.cached("x-1", inputs, build)
    cache.cached("x-2", {"table": table, "k": 2}, build)
    assert len(calls) == 6


def test_a_transposed_view_is_another_content():
    build, calls = counted(1.0)
    square = np.arange(4.0).reshape(2, 2)
    cache.cached("x-1", {"table": square}, build)
    cache.cached("x-1", {"table": square.T}, build)
    cache.cached("x-1", {"table": square.T.copy()}, build)
    assert len(calls) == 2


def test_a_builder_that_fails_leaves_nothing():
    def build():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cache.cached("x-1", {}, build)
    assert not list(cache.folder().glob("*"))


def test_a_damaged_file_is_named():
    build, _ = counted(1.0)
    cache.cached("x-1", {}, build)
    (path,) = cache.folder().iterdir()
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"x-1-\w+\.npz is damaged"):
        cache.cached("x-1", {}, build)


def test_writers_at_once_leave_one_whole_file():
    def build():
        return {"a": np.arange(200_000)}

    threads = [threading.Thread(target=cache.cached, args=("x-1", {}, build)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (path,) = cache.folder().iterdir()
    with np.load(path, allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["a"], np.arange(200_000))
