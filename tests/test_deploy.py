"""The files that start clusters: what Ray and Kubernetes make of them; what must not slip in."""

import copy
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mmrec.cli import load_study, study_parser

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "cluster.yaml", *sorted((ROOT / "deploy").iterdir())]
"""All of them, with what is built for them."""
CLUSTERS = [file for file in FILES if "provider:" in file.read_text()]
"""What `ray up` takes."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def loaded(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text())


def rayjob() -> dict[str, Any]:
    documents = yaml.safe_load_all((ROOT / "deploy" / "rayjob.yaml").read_text())
    (found,) = (document for document in documents if document["kind"] == "RayJob")
    return found


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """As Ray sees it: its own defaults where the file says nothing."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(copy.deepcopy(config))
    validate_config(config)
    return config


@pytest.mark.slow
@pytest.mark.parametrize("file", CLUSTERS, ids=named)
def test_ray_takes_it_and_what_it_starts_asks_for_a_token_and_tells_nobody(file):
    config = prepared(loaded(file))
    for node in ("head", "worker"):
        (start,) = (c for c in config[f"{node}_start_ray_commands"] if "ray start" in c)
        before, _, flags = start.partition("ray start")
        assert "RAY_AUTH_MODE=token" in before.replace(";", " ").split()
        assert "RAY_USAGE_STATS_ENABLED=0" in before.replace(";", " ").split()
        hosts = re.findall(r"--(?:dashboard-host|node-ip-address|ray-client-server)\S*", flags)
        assert set(hosts) <= {"--dashboard-host=127.0.0.1"}
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in shlex.join(
        config["head_start_ray_commands"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("initial_workers",), 1, "Additional properties are not allowed"),
        (("available_node_types", "gpu_spot", "resources", "GPU"), 0.5, "not of type 'integer'"),
        (("head_node_type",), "hed", "`head_node_type` must be one of"),
    ],
    ids=lambda value: str(value[-1] if isinstance(value, tuple) else ""),
)
def test_ray_would_have_refused_a_slip(path, value, complaint):
    config = loaded(ROOT / "cluster.yaml")
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, ValueError), match=complaint):
        prepared(config)


@pytest.mark.slow
def test_aws_nodes_are_ended_not_kept_and_ray_is_never_installed_anew():
    config = prepared(loaded(ROOT / "cluster.yaml"))
    assert config["provider"]["cache_stopped_nodes"] is False
    commands = [c for key, value in config.items() if "setup_commands" in key for c in value]
    assert not [c for c in commands if re.search(r"ray-wheels|[\s'\"]ray\b", c)]
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert (head["resources"], head["max_workers"]) == ({"CPU": 0}, 0)
    for worker in types.values():
        assert worker["min_workers"] == 0
        assert worker["max_workers"] == config["max_workers"]
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert all(t["node_config"]["IamInstanceProfile"] for t in (head, *types.values()))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_the_mounted_tree_has_the_whole_package_and_nothing_else_of_size(tmp_path):
    config = loaded(ROOT / "cluster.yaml")
    (source,) = (s for target, s in config["file_mounts"].items() if target == "/home/ray/mmrec")
    tree = tmp_path / "tree"
    for name in ("mmrec", "studies"):
        shutil.copytree(ROOT / source / name, tree / name)
    for name in (".git/config", "data/x.npy", "runs/x/ledger.db", ".venv/bin/python"):
        (tree / name).parent.mkdir(parents=True)
        (tree / name).touch()
    excluded = [f"--exclude={pattern}" for pattern in config["rsync_exclude"]]
    listed = subprocess.run(
        ["rsync", "-an", "--out-format=%n", *excluded, f"{tree}/", str(tmp_path / "there")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    copied = {line for line in listed.stdout.splitlines() if not line.endswith("/")}
    wanted = {
        str(file.relative_to(tree))
        for name in ("mmrec", "studies")
        for file in (tree / name).rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    assert "mmrec/data/sources.py" in copied
    assert copied == wanted


SCHEMA = json.loads((ROOT / "tests" / "rayjob_schema.json").read_text())


def test_the_rayjob_has_only_fields_that_kuberay_knows():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(rayjob(), SCHEMA)
    slip = rayjob()
    slip["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["container"] = []
    with pytest.raises(jsonschema.ValidationError, match="'container' was unexpected"):
        jsonschema.validate(slip, SCHEMA)


def test_the_rayjob_meets_the_operators_own_rules():
    """As ValidateRayJobSpec of KubeRay has them: token, autoscaler v2, time to live."""
    spec = rayjob()["spec"]
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52, 0)
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert spec["shutdownAfterJobFinishes"]
    assert spec["ttlSecondsAfterFinished"] > 0
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        assert "serviceAccountName" not in pod  # the operator's own, which sees its cluster alone
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            values = {variable["name"]: variable.get("value") for variable in container["env"]}
            assert values["RAY_USAGE_STATS_ENABLED"] == "0"
            assert container["resources"]["requests"] == container["resources"]["limits"]
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert mounts <= {volume["name"] for volume in pod["volumes"]}
    assert groups[0]["rayStartParams"]["num-cpus"] == "0"
    assert groups[0]["serviceType"] == "ClusterIP"
    assert cluster["workerGroupSpecs"][0]["minReplicas"] == 0


def test_the_rayjob_runs_a_command_that_the_study_understands():
    python, script, *arguments = shlex.split(rayjob()["spec"]["entrypoint"])
    assert python == "python"
    study = load_study(ROOT / Path(script).relative_to("/home/ray/mmrec"))
    asked = study_parser(study).parse_args(arguments)
    pod = rayjob()["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (shared,) = (m["mountPath"] for m in pod["containers"][0]["volumeMounts"])
    assert Path(asked.out).is_relative_to(shared)


def requirement(package: str) -> SpecifierSet:
    (found,) = (r for r in map(Requirement, PROJECT["dependencies"]) if r.name == package)
    return found.specifier


@pytest.mark.parametrize(
    ("what", "pattern", "allowed"),
    [
        ("Ray", r"(?:rayproject/ray:|-ray|rayVersion: )([\d.]+\d)", requirement("ray")),
        ("torch", r"torch==([\d.]+)", requirement("torch")),
        ("Python", r"-py(3)(\d+)", SpecifierSet(PROJECT["requires-python"])),
    ],
    ids=["ray", "torch", "python"],
)  # fmt: skip
def test_one_version_everywhere_and_it_is_the_projects(what, pattern, allowed):
    texts = [file.read_text() for file in FILES]
    found = {".".join(filter(None, m.groups())) for t in texts for m in re.finditer(pattern, t)}
    assert len(found) == 1, f"{what}: {found}"
    assert allowed.contains(found.pop())


def test_the_version_of_ray_is_the_one_that_these_tests_run():
    from importlib.metadata import version

    assert f"rayproject/ray:{version('ray')}-" in (ROOT / "cluster.yaml").read_text()


@pytest.mark.parametrize("file", FILES, ids=named)
def test_extras_and_images_exist_and_are_pinned(file):
    text = file.read_text()
    for extras in re.findall(r"mmrec\[([\w,]+)\]", text):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    for image in re.findall(r"image: (\S+)", text):
        name, _, tag = image.rpartition(":")
        assert name, f"{image} has no tag"
        assert not re.search("latest|nightly", tag)


SECRETS = {
    "a public bind address": r"0\.0\.0\.0|\[::\]|--host[= ]::",
    "a password in an address": r"://[^\s:/@]+:(?!PASSWORD\b)[^\s@/]+@",
    "a key of AWS": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b|aws_secret_access_key",
    "a private key": r"PRIVATE KEY-----",
    "a value of a secret": r"(?i)(auth_?token|password|secret)\s*[:=]\s*['\"]?[0-9a-f]{16,}",
}


@pytest.mark.parametrize("file", FILES, ids=named)
@pytest.mark.parametrize("what", SECRETS)
def test_no_secret_and_no_public_address_stands_in_a_file(file, what):
    assert not re.search(SECRETS[what], file.read_text())
