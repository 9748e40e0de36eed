"""What may import what, and where test scores may be read: from the sources alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = [
    {"config", "cache", "stats", "metrics", "losses", "graphs", "geometry", "gap"},
    {"data"},
    {"nn"},
    {"models"},
    {"evaluation"},
    {"training", "lanes"},
    {"study"},
    {"reports"},
    {"tune"},
    {"cli", "cli_dashboard", "cli_scaling"},
    {"studies"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

LIBRARY = sorted((ROOT / "mmrec").rglob("*.py"))
SCRIPTS = sorted((ROOT / "studies").rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in [*LIBRARY, *SCRIPTS]}


def name_of(path: Path) -> str:
    """`mmrec.study.seal`, `studies.alpha_tau`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path) for path in TREES}


def layer(module: str) -> str:
    """`study` of `mmrec.study.seal`; the package itself belongs to none."""
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] if top == "mmrec" else top


def imported(tree: ast.AST, *, lazily: bool = True) -> Iterator[str]:
    """Every module that is imported, those inside functions too unless told otherwise."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                assert level == 0, f"line {node.lineno}: relative imports hide the layer"
                full = [f"{module}.{alias.name}" for alias in names]
                yield from (name if name in MODULES else str(module) for name in full)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda() if not lazily:
                pass
            case _:
                yield from imported(node, lazily=lazily)


def test_the_walk_sees_every_kind_of_import():
    tree = ast.parse(
        "import ray.tune\nfrom mmrec.study import seal\nfrom mmrec.config import get\n"
        "if 1:\n    import a\ndef f():\n    import b\nclass C:\n    import c\n"
    )
    top = {"ray.tune", "mmrec.study.seal", "mmrec.config", "a", "c"}
    assert set(imported(tree, lazily=False)) == top
    assert set(imported(tree)) == top | {"b"}


@pytest.mark.parametrize("path", TREES, ids=name_of)
def test_imports_point_one_way(path):
    own = layer(name_of(path))
    used = {name for name in imported(TREES[path]) if name.split(".")[0] in ("mmrec", "studies")}
    for name in sorted(used):
        assert name in MODULES, f"there is no {name}"
        if layer(name):
            assert own in RANK, f"{own} is not a layer"
            assert RANK[layer(name)] <= RANK[own], f"{own} may not import {name}"


@pytest.mark.parametrize(
    ("package", "home"), [("ray", "mmrec.tune."), ("plotly", "mmrec.reports.")]
)
def test_one_layer_alone_knows(package, home):
    users = {
        name_of(path)
        for path, tree in TREES.items()
        if package in {name.split(".")[0] for name in imported(tree)}
    }
    assert users, f"nobody imports {package}: is it still needed?"
    assert [user for user in sorted(users) if not user.startswith(home)] == []


def reached_on_import(start: str) -> set[str]:
    """What importing a module imports, at once and through others."""
    tree_of = {name_of(path): tree for path, tree in TREES.items()}
    found, queue = set(), [start]
    while queue:
        name = queue.pop()
        if name in found:
            continue
        found.add(name)
        if name in tree_of:
            queue += imported(tree_of[name], lazily=False)
            queue += [name.rpartition(".")[0]] if "." in name else []
    return found


@pytest.mark.parametrize(
    "start", ["mmrec.cli", "mmrec.cli_scaling", "mmrec.tune.job", "mmrec.tune.again"]
)
def test_help_plans_and_reports_do_not_wait_for_ray(start):
    assert "ray" not in {name.split(".")[0] for name in reached_on_import(start)}


# --- the seal on test


def users_of(module: str) -> set[str]:
    return {name_of(path) for path, tree in TREES.items() if module in set(imported(tree))}


def mentions(*words: str) -> dict[str, set[str]]:
    """Module -> which of the names it calls, reads or defines."""
    found: dict[str, set[str]] = {}
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            name = getattr(node, "id", getattr(node, "attr", getattr(node, "name", None)))
            if name in words:
                found.setdefault(name_of(path), set()).add(name)
    return found


def test_only_the_worker_seals_and_only_the_end_unseals():
    assert users_of("mmrec.study.seal") == {
        "mmrec.tune.trainable",
        "mmrec.study.collect",
        "mmrec.tune.again",
    }
    assert set(mentions("unseal")) == {
        "mmrec.study.seal",
        "mmrec.study.collect",
        "mmrec.tune.again",
    }
    trainable = TREES[ROOT / "mmrec/tune/trainable.py"]
    uses = {
        node.attr
        for node in ast.walk(trainable)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "seal"
    }
    assert uses == {"write"}


def test_unsealed_tables_are_made_after_selection_only():
    assert set(mentions("with_test", "claim_data")) == {"mmrec.study.collect", "mmrec.study.finish"}
    assert set(mentions("tables_of")) == {
        "mmrec.study.finish",
        "mmrec.tune.driver",
        "mmrec.tune.again",
    }


def test_test_is_scored_by_the_worker_and_by_a_rerun_only():
    assert set(mentions("score_test")) == {
        "mmrec.training",
        "mmrec.tune.trainable",
        "mmrec.tune.again",
    }
    holders = {name_of(path) for path in TREES if "test.npz" in path.read_text()}
    assert holders == {"mmrec.study.seal", "mmrec.study.collect"}


# --- files that may hold code


@pytest.mark.parametrize(
    ("loader", "word", "value"),
    [("torch.load", "weights_only", True), ("np.load", "allow_pickle", False)],
)
def test_nothing_is_unpickled(loader, word, value):
    calls = [
        node
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == loader
    ]
    assert calls
    for call in calls:
        given = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
        assert given.get(word) is value, ast.unparse(call)


def test_pickle_is_not_imported():
    users = {
        name
        for path, tree in TREES.items()
        for name in imported(tree)
        if name.split(".")[0] in ("pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal")
    }
    assert users == set()
