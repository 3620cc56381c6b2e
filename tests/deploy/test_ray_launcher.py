"""deploy/ray/cluster.yaml, for Ray's cluster launcher: its validator, its commands, storage and access."""

import re
import shlex
import subprocess

import jsonschema
import pytest
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start as ray_start

from ganseg_dist.cluster.ray_cluster import AUTOSCALES
from tests.deploy.manifests import RAY, changed, only

LAUNCHER = RAY / "cluster.yaml"


@pytest.fixture(scope="module")
def config():
    """As the launcher completes it with its defaults."""
    return prepare_config(only(LAUNCHER))


def options(config: dict, name: str) -> list[str]:
    """The values of one option of `docker run`, such as volume."""
    return [option.split()[1] for option in config["docker"]["run_options"] if option.startswith(f"--{name} ")]


def test_launcher_accepts_its_config(config):
    validate_config(config)


def test_launcher_rejects_an_unknown_field(config):
    with pytest.raises(jsonschema.ValidationError, match="privileged"):
        validate_config(changed(config, "docker/privileged", True))


def test_launcher_that_starts_without_workers_sets_the_variable_that_makes_a_training_wait(config):
    gpu = config["available_node_types"]["gpu"]
    assert gpu["min_workers"] == 0 < gpu["max_workers"] <= config["max_workers"]
    assert f"{AUTOSCALES}=1" in options(config, "env"), "training would be rejected"


def test_machines_have_a_security_group_of_their_own(config):
    for kind in config["available_node_types"].values():
        assert kind["node_config"]["SecurityGroupIds"]  # else Ray makes one that is open to SSH from everywhere


def test_containers_share_the_mounted_folders_and_read_data_only(config):
    volumes = dict(volume.split(":", 1) for volume in options(config, "volume"))
    settings = dict(setting.split("=", 1) for setting in options(config, "env"))
    places = {place: folder for folder, place in volumes.items()}
    (created,) = [command for command in config["initialization_commands"] if "install -d" in command]
    assert set(volumes) <= set(shlex.split(created))
    assert volumes[places["/data:ro"]] == "/data:ro"
    assert settings["GANSEG_RUNS"] in places
    assert settings["RAY_AUTH_MODE"] == "token"
    folder, _, token = settings["RAY_AUTH_TOKEN_PATH"].rpartition("/")
    assert any(f"{places[folder]}/{token}" in command for command in config["initialization_commands"])
    assert config["file_mounts"] == {}  # images stay off the operator's machine


@pytest.mark.parametrize("role", ["head", "worker"])
def test_ray_start_accepts_the_launchers_options(config, role):
    (command,) = [line for line in config[f"{role}_start_ray_commands"] if line.startswith("ray start")]
    parameters = ray_start.make_context("start", shlex.split(command)[2:]).params
    assert parameters["head"] is (role == "head")
    if role == "head":
        assert (parameters["num_cpus"], parameters["dashboard_host"]) == (0, "127.0.0.1")


def test_token_is_created_once_and_readable_by_its_owner_only(tmp_path):
    (command,) = [line for line in only(LAUNCHER)["initialization_commands"] if "openssl" in line]
    (tmp_path / "runs").mkdir()
    command = command.replace("/mnt/ganseg", str(tmp_path))
    tokens = []
    for _ in range(2):
        subprocess.run(["bash", "-c", command], check=True, timeout=20)
        tokens.append((tmp_path / "runs" / ".ray-token").read_text())
    assert re.fullmatch(r"[0-9a-f]{64}\n", tokens[0])
    assert tokens[0] == tokens[1]
    assert (tmp_path / "runs" / ".ray-token").stat().st_mode & 0o077 == 0
