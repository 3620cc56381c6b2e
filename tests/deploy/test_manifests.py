"""Kubernetes, cloud machines and Slurm, without any of them: schemas, consistency, and what would be started."""

import json
import os
import re
import shlex
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import click
import jsonschema
import kubernetes_validate
import pytest
import ray
import typer
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start as ray_start
from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

from ganseg_dist.cli.main import app
from ganseg_dist.cluster.ray_cluster import AUTOSCALES
from ganseg_dist.config import override, parse_assignments
from ganseg_dist.systems import recipe

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "ray"
SCHEMAS = ROOT.parent / "shared" / "schemas" / "kuberay"
SITE_PACKAGES = Path(ray.__file__).parents[1]
KUBERNETES = "1.30"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

CORE = ("namespace.yaml", "storage.yaml", "network.yaml")
CUSTOM = {"raycluster.yaml": "rayclusters.crd.yaml", "rayjob.yaml": "rayjobs.crd.yaml"}


def documents(name: str) -> list[dict]:
    """As Kubernetes gets them: an anchor's value is written out wherever it is used."""
    return json.loads(json.dumps(list(yaml.safe_load_all((FOLDER / name).read_text()))))


def only(name: str) -> dict:
    (document,) = documents(name)
    return document


def all_documents() -> list[dict]:
    return [document for name in (*CORE, *CUSTOM) for document in documents(name)]


def of_kind(kind: str) -> list[dict]:
    return [document for document in all_documents() if document["kind"] == kind]


def cluster_specs() -> dict[str, dict]:
    return {
        "raycluster.yaml": only("raycluster.yaml")["spec"],
        "rayjob.yaml": only("rayjob.yaml")["spec"]["rayClusterSpec"],
    }


def groups(spec: dict) -> dict[str, dict]:
    return {"head": spec["headGroupSpec"]} | {group["groupName"]: group for group in spec["workerGroupSpecs"]}


def pods() -> dict[str, dict]:
    """Every pod template of ours, by where it is."""
    found = {
        f"{file}:{name}": group["template"]
        for file, spec in cluster_specs().items()
        for name, group in groups(spec).items()
    }
    found["rayjob.yaml:submitter"] = only("rayjob.yaml")["spec"]["submitterPodTemplate"]
    return found


def ray_pods() -> dict[str, dict]:
    return {place: pod for place, pod in pods().items() if not place.endswith(":submitter")}


def job_words() -> list[str]:
    return shlex.split(only("rayjob.yaml")["spec"]["entrypoint"])


# The schemas of KubeRay's own definitions.


def strict(schema: dict) -> dict:
    """An OpenAPI v3 schema as JSON Schema that knows no other fields than the named, as the API server prunes them."""
    made = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    if "properties" in schema:
        made["properties"] = {name: strict(field) for name, field in schema["properties"].items()}
        made["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        made["items"] = strict(schema["items"])
    return made


@pytest.fixture(scope="module")
def definitions():
    """A validator for each of KubeRay's kinds that is used here, by file."""
    if not SCHEMAS.is_dir():
        pytest.skip(f"KubeRay's definitions are not beside the repository, in {SCHEMAS}")
    found = {}
    for name, definition in CUSTOM.items():
        versions = yaml.load((SCHEMAS / definition).read_text(), yaml.CSafeLoader)["spec"]["versions"]
        (schema,) = [version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1"]
        made = strict(schema)
        made["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own, of which a definition says nothing
        found[name] = jsonschema.Draft202012Validator(made)
    return found


@pytest.mark.parametrize("name", CUSTOM)
def test_kuberay_knows_every_field(definitions, name):
    problems = [f"{error.json_path}: {error.message}" for error in definitions[name].iter_errors(only(name))]
    assert problems == []


def at(document: dict, path: str):
    for step in path.split("/"):
        document = document[int(step) if step.isdigit() else step]
    return document


CLUSTER_MISTAKES = [
    ("enableInTreeAutoscaling", "yes"),
    ("autoscalerOptions/upscalingMode", "Fast"),
    ("authOptions/mode", "password"),
    ("workerGroupSpecs/0/maxReplicas", "4"),
    ("workerGroupSpecs/1/unknown", 1),
    ("headGroupSpec/rayStartParams/num-cpus", 0),
    ("headGroupSpec/template/spec/containers/0/securityContext/dropped", ["ALL"]),
    ("headGroupSpec/template/spec/containers/0/volumeMounts/0/mountPath", None),
]
JOB_MISTAKES = [("backoffLimit", "2"), ("shutdownAfterJobFinishes", "true"), ("submitterConfig/retries", 2)]


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [("raycluster.yaml", f"spec/{path}", value) for path, value in CLUSTER_MISTAKES]
    + [("rayjob.yaml", f"spec/rayClusterSpec/{path}", value) for path, value in CLUSTER_MISTAKES]
    + [("rayjob.yaml", f"spec/{path}", value) for path, value in JOB_MISTAKES],
)
def test_a_mistake_would_be_found(definitions, name, path, value):
    wrong = only(name)
    *_, last = path.split("/")
    at(wrong, path.rpartition("/")[0])[last] = value
    (error,) = definitions[name].iter_errors(wrong)
    assert last in error.json_path or last in error.message


# The schemas of Kubernetes itself.


@pytest.mark.parametrize("name", CORE)
def test_kubernetes_knows_every_field(name):
    for document in documents(name):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("place", pods())
def test_kubernetes_knows_every_field_of_a_pod(place):
    template = pods()[place]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one", **template["metadata"]},
        "spec": template["spec"],
    }
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("PersistentVolumeClaim", "spec/accessMode", ["ReadWriteMany"]),
        ("PersistentVolumeClaim", "spec/accessModes", "ReadWriteMany"),
        ("NetworkPolicy", "spec/ingress/0/source", []),
        ("Service", "spec/ports/0/port", "dashboard"),
        ("ConfigMap", "data/GANSEG_RUNS", 1),
    ],
)
def test_kubernetes_would_find_a_mistake(kind, path, value):
    wrong = of_kind(kind)[0]
    at(wrong, path.rpartition("/")[0])[path.rpartition("/")[2]] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


# One manifest agrees with the other.


def test_everything_is_in_one_namespace():
    (namespace,) = of_kind("Namespace")
    inside = {document["metadata"].get("namespace") for document in all_documents() if document != namespace}
    assert inside == {namespace["metadata"]["name"]}


def test_the_job_runs_on_the_cluster_that_stays():
    """Word for word, but for the number of GPU workers: the two are tried as one."""
    stays, job = cluster_specs().values()
    for spec in (stays, job):
        for size in ("replicas", "minReplicas", "maxReplicas"):
            del groups(spec)["gpu"][size]
    assert stays == job


def test_one_image_of_this_version_everywhere():
    images = {container["image"] for pod in pods().values() for container in pod["spec"]["containers"]}
    images.add(only("cluster.yaml")["docker"]["image"])
    assert images == {f"ganseg-dist:{VERSION}-cuda"}
    assert f"--tag ganseg-dist:{VERSION}-cuda ." in (ROOT / "deploy" / "docker" / "Dockerfile").read_text()


def test_ray_is_the_installed_one():
    assert {spec["rayVersion"] for spec in cluster_specs().values()} == {ray.__version__}


def claims() -> dict[str, dict]:
    return {claim["metadata"]["name"]: claim["spec"] for claim in of_kind("PersistentVolumeClaim")}


def test_volumes_are_shared_by_all_nodes():
    assert {name: spec["accessModes"] for name, spec in claims().items()} == {
        "ganseg-runs": ["ReadWriteMany"],
        "ganseg-data": ["ReadWriteMany"],
    }


@pytest.mark.parametrize("place", ray_pods())
def test_every_node_mounts_both_volumes_at_the_same_place(place):
    spec = ray_pods()[place]["spec"]
    volumes = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    assert set(volumes.values()) == set(claims())
    (settings,) = of_kind("ConfigMap")
    assert volumes[mounts[settings["data"]["GANSEG_RUNS"]]["name"]] == "ganseg-runs"
    assert not mounts["/runs"].get("readOnly")
    assert volumes[mounts["/data"]["name"]] == "ganseg-data"
    assert mounts["/data"]["readOnly"] is True


@pytest.mark.parametrize("place", ray_pods())
def test_every_node_is_told_the_same(place):
    configured, secret = ray_pods()[place]["spec"]["containers"][0]["envFrom"]
    (settings,) = of_kind("ConfigMap")
    assert configured == {"configMapRef": {"name": settings["metadata"]["name"]}}
    assert secret == {"secretRef": {"name": "ganseg-mlflow", "optional": True}}


@pytest.mark.parametrize("place", pods())
def test_what_is_asked_for_is_the_limit(place):
    for container in pods()[place]["spec"]["containers"]:
        assert set(container["resources"]["requests"]) >= {"cpu", "memory"}
        assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize("place", pods())
def test_no_container_has_a_privilege(place):
    """The Pod Security Standard `restricted`, which the namespace enforces."""
    spec = pods()[place]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 1000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for container in spec["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    (namespace,) = of_kind("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_only_the_head_may_ask_kubernetes_for_anything():
    asking = {place for place, pod in pods().items() if pod["spec"].get("automountServiceAccountToken") is not False}
    assert asking == {"raycluster.yaml:head", "rayjob.yaml:head"}


@pytest.mark.parametrize("file", cluster_specs())
def test_the_cluster_scales_itself_asks_for_a_token_and_trains_on_workers(file):
    spec = cluster_specs()[file]
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["authOptions"] == {"mode": "token"}
    options = spec["autoscalerOptions"]
    assert options["resources"]["requests"] == options["resources"]["limits"]
    assert options["securityContext"] == spec["headGroupSpec"]["template"]["spec"]["containers"][0]["securityContext"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for name, group in groups(spec).items():
        container = group["template"]["spec"]["containers"][0]
        assert {"livenessProbe", "readinessProbe"}.isdisjoint(container)  # KubeRay's own are by Ray's version
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (name == "gpu")


def test_the_cluster_that_stays_grows_from_nothing():
    for group in cluster_specs()["raycluster.yaml"]["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
    (settings,) = of_kind("ConfigMap")
    assert settings["data"][AUTOSCALES] == "1", "training would be refused"


def test_nothing_is_reached_from_outside():
    services = of_kind("Service")
    assert {service["spec"]["type"] for service in services} == {"ClusterIP"}
    assert {spec["headGroupSpec"]["serviceType"] for spec in cluster_specs().values()} == {"ClusterIP"}
    assert not of_kind("Ingress")
    (dashboard,) = services
    assert dashboard["spec"]["selector"]["ray.io/cluster"] == only("raycluster.yaml")["metadata"]["name"]


def test_the_policy_covers_every_pod_and_lets_in_the_namespace_and_the_operator():
    (policy,) = of_kind("NetworkPolicy")
    chosen = policy["spec"]["podSelector"]["matchLabels"].items()
    for pod in pods().values():
        assert chosen <= pod["metadata"]["labels"].items()
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    own, operator = policy["spec"]["ingress"]
    assert own == {"from": [{"podSelector": {}}]}
    assert operator["ports"] == [{"port": 8265, "protocol": "TCP"}]
    (peer,) = operator["from"]
    assert {"namespaceSelector", "podSelector"} == set(peer)  # both at once: the operator's pod in its namespace


def settings_of_all() -> set[str]:
    launcher = only("cluster.yaml")["docker"]
    options = [*launcher["run_options"], *launcher["worker_run_options"]]
    script = (FOLDER / "slurm.sh").read_text()
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    return (
        set(of_kind("ConfigMap")[0]["data"])
        | {option.removeprefix("--env ").partition("=")[0] for option in options if option.startswith("--env ")}
        | set(re.findall(r"\b((?:GANSEG|MLFLOW|RAY|DO_NOT)_[A-Z_]+)=", script))
        | set(re.findall(r"\b(GANSEG_[A-Z_]+|GIT_PYTHON_[A-Z_]+)=", dockerfile))
    )


READ_BY = {
    "GANSEG": ROOT / "ganseg_dist", "DO_NOT_TRACK": SITE_PACKAGES / "mlflow", "MLFLOW": SITE_PACKAGES / "mlflow",
    "RAY": SITE_PACKAGES / "ray", "GIT_PYTHON": SITE_PACKAGES / "git",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(settings_of_all()))
def test_every_setting_is_read_by_somebody(name):
    (package,) = [folder for prefix, folder in READ_BY.items() if name.startswith(prefix)]
    found = subprocess.run(
        ["grep", "-rqw", "--include=*.py", "--include=*.so", "--exclude-dir=thirdparty_files", name, package],
        timeout=60,
    )
    assert found.returncode == 0, f"{package.name} does not read {name}"


# The command that a job runs.


def parsed(words: list[str]) -> dict:
    """What `ganseg` would be called with. Raises click.UsageError on words that it does not know."""
    python, option, module, *rest = words
    assert (python, option, module) == ("python", "-m", "ganseg_dist")
    command = typer.main.get_command(app)
    with command.make_context("ganseg", list(rest)) as context:
        name, subcommand, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        assert name == "train"
        return subcommand.make_context(name, arguments, parent=context).params


def test_the_job_trains_a_recipe_on_the_volumes_under_a_name():
    asked = parsed(job_words())
    assert str(asked["data"]).startswith("/data/")
    assert asked["run_name"]  # what a second submission goes on with
    config = override(recipe(asked["recipe"]), parse_assignments(asked["assignments"]))
    assert config.train.batch_size % asked["workers"] == 0
    gpu = groups(cluster_specs()["rayjob.yaml"])["gpu"]
    assert asked["gpus"] is True
    assert gpu["replicas"] == gpu["minReplicas"] == gpu["maxReplicas"] == asked["workers"]
    cpus = int(gpu["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"])
    assert config.train.threads <= cpus


def test_a_misspelt_command_would_be_found():
    with pytest.raises(click.UsageError):
        parsed([*job_words(), "--worker", "2"])


def test_the_job_ends_with_its_training_and_tries_again():
    spec = only("rayjob.yaml")["spec"]
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] > 0
    assert spec["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"


# Cloud machines.


def launcher_config() -> dict:
    return prepare_config(only("cluster.yaml"))


def test_rays_launcher_takes_the_config():
    validate_config(launcher_config())


@pytest.mark.parametrize(
    ("path", "value"),
    [("docker/privileged", True), ("max_workers", "4"), ("head_node_type", "other"), ("auth/user", "ubuntu")],
)
def test_rays_launcher_would_find_a_mistake(path, value):
    wrong = launcher_config()
    *folders, last = path.split("/")
    (at(wrong, "/".join(folders)) if folders else wrong)[last] = value
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate_config(wrong)


def test_workers_come_from_the_spot_market_and_the_head_does_not():
    config = launcher_config()
    head, gpu = (config["available_node_types"][name] for name in ("head", "gpu"))
    assert "InstanceMarketOptions" not in head["node_config"]
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert gpu["min_workers"] == 0 < gpu["max_workers"] <= config["max_workers"]
    assert f"--env {AUTOSCALES}=1" in config["docker"]["run_options"], "training would be refused"
    assert head["resources"] == {"CPU": 0}
    assert gpu["resources"]["GPU"] == 1
    for kind in (head, gpu):
        assert kind["node_config"]["ImageId"]
        assert kind["node_config"]["SecurityGroupIds"]  # else Ray makes one that is open to SSH from everywhere


def test_machines_share_their_storage_and_nothing_is_copied_to_them():
    config = launcher_config()
    assert config["file_mounts"] == {}
    assert config["setup_commands"] == config["head_setup_commands"] == config["worker_setup_commands"] == []
    mounted = [option.split()[1] for option in config["docker"]["run_options"] if option.startswith("--volume ")]
    assert mounted == ["/mnt/ganseg/runs:/runs", "/mnt/ganseg/data:/data:ro"]
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]


@pytest.mark.parametrize("who", ["head", "worker"])
def test_the_launchers_ray_start_parses(who):
    (command,) = [line for line in launcher_config()[f"{who}_start_ray_commands"] if line.startswith("ray start")]
    options = ray_start.make_context("start", shlex.split(command)[2:]).params
    assert options["head"] is (who == "head")
    if who == "head":
        assert (options["num_cpus"], options["dashboard_host"]) == (0, "127.0.0.1")


def test_the_token_is_made_once(tmp_path):
    (command,) = [line for line in only("cluster.yaml")["initialization_commands"] if "openssl" in line]
    (tmp_path / "runs").mkdir()
    command = command.replace("/mnt/ganseg", str(tmp_path))
    tokens = []
    for _ in range(2):
        subprocess.run(["bash", "-c", command], check=True, timeout=20)
        tokens.append((tmp_path / "runs" / ".ray-token").read_text())
    assert re.fullmatch(r"[0-9a-f]{64}\n", tokens[0])
    assert tokens[0] == tokens[1]
    assert (tmp_path / "runs" / ".ray-token").stat().st_mode & 0o077 == 0


# Slurm.

SCRIPT = FOLDER / "slurm.sh"
SBATCH_OPTIONS = """
    account acctg-freq array batch bb bbf begin chdir clusters comment constraint container contiguous core-spec
    cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency distribution error exclude
    exclusive export export-file extra-node-info get-user-env gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket
    gpus-per-task gres gres-flags hint hold ignore-pbs input job-name kill-on-invalid-dep licenses mail-type mail-user
    mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nice no-kill no-requeue nodefile nodelist nodes
    ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output overcommit oversubscribe
    parsable partition prefer priority profile propagate qos quiet reboot requeue reservation signal sockets-per-node
    spread-job switches test-only thread-spec threads-per-core time time-min tmp tres-per-task uid use-min-nodes
    verbose wait wait-all-nodes wckey wrap
"""
"""The long options of sbatch's manual page."""
SBATCH_FLAGS = frozenset({"exclusive", "requeue", "no-requeue", "contiguous", "hold", "overcommit", "reboot", "wait"})
"""Those of them that stand without a value."""

SRUN = """#!/bin/bash
# Starts the head's task alone, as one node of the job.
printf '%s\\n' "$@" >"$SAID/srun"
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
RAY = """#!/bin/bash
printf '%s\\n' "$@" >"$SAID/ray"
env >"$SAID/environment"
[ -n "${NO_RAY:-}" ] && exit 0  # as symmetric-run ends when `ray start` failed
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""
PYTHON = """#!/bin/bash
printf '%s\\n' "$@" >"$SAID/python"
echo "$RAY_ADDRESS" >"$SAID/address"
trap 'exit 130' TERM
[ -z "${ENDLESS:-}" ] || { touch "$SAID/training"; while :; do sleep 0.05; done; }
exit "${CODE:-0}"
"""
SCONTROL = """#!/bin/bash
printf '%s\\n' "$@" >"$SAID/scontrol"
"""
JOB = {"SLURM_JOB_ID": "42", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "8", "SLURMD_NODENAME": "node07"}
WORDS = ["ganet_seg", "--data", "/data/cohort of two", "--run-name", "first"]


def directives() -> dict[str, str]:
    lines = [line for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]
    found = {}
    for line in lines:
        matched = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line)
        assert matched, line
        found[matched[1]] = matched[2]
    assert len(found) == len(lines)
    return found


def test_every_directive_is_an_option_of_sbatch():
    for option, value in directives().items():
        assert option in SBATCH_OPTIONS.split()
        assert (value is None) == (option in SBATCH_FLAGS), option


def test_directives_come_before_the_first_command():
    """Where sbatch stops reading them."""
    lines = SCRIPT.read_text().splitlines()
    first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert not [line for line in lines[first_command:] if line.startswith("#SBATCH")]


def test_the_job_has_its_nodes_alone_hears_of_its_end_and_may_queue_again():
    found = directives()
    assert "exclusive" in found  # `ray stop` ends every Ray of the node
    assert "requeue" in found
    assert re.fullmatch(r"B:USR1@\d+", found["signal"])  # to the script alone, in time
    assert found["ntasks-per-node"] == "1"
    assert found["open-mode"] == "append"  # a second attempt keeps the first one's log


def test_bash_reads_the_script():
    subprocess.run(["bash", "-n", SCRIPT], check=True, timeout=20)


@pytest.fixture
def slurm(tmp_path):
    """Starts the script as Slurm would, with stand-ins that write down how they are called."""
    said, stand_ins, runs = (tmp_path / name for name in ("said", "bin", "runs"))
    for folder in (said, stand_ins, runs):
        folder.mkdir()
    for name, text in {"srun": SRUN, "ray": RAY, "python": PYTHON, "scontrol": SCONTROL}.items():
        (stand_ins / name).write_text(text)
        (stand_ins / name).chmod(0o755)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "RAY_", "GANSEG_"))}
    path = f"{stand_ins}{os.pathsep}{os.environ['PATH']}"
    environment = plain | {"PATH": path, "SAID": str(said), "GANSEG_RUNS": str(runs)}

    def start(words=WORDS, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", SCRIPT, *words], env={**environment, **JOB, **more}, stderr=subprocess.PIPE, text=True
        )

    start.said = lambda name: (said / name).read_text().splitlines()
    start.folder, start.runs = said, runs
    return start


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, error = process.communicate(timeout=20)
    return process.returncode, error


def training_of(slurm) -> list[str]:
    return ["python", *slurm.said("python")]


def test_two_nodes_with_two_gpus_each_are_four_workers(slurm):
    assert ended(slurm(SLURM_GPUS_PER_TASK="a100:2")) == (0, "")
    assert slurm.said("srun")[:4] == ["--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=8"]
    assert slurm.said("srun")[4:6] == ["ray", "symmetric-run"]
    assert training_of(slurm) == ["python", "-m", "ganseg_dist", "train", *WORDS, "--workers", "4", "--gpus"]
    assert slurm.said("address") == ["node07:6379"]
    asked = parsed(training_of(slurm))
    assert (asked["workers"], asked["gpus"], str(asked["data"])) == (4, True, "/data/cohort of two")
    assert "--num-gpus=2" in slurm.said("ray")


def test_without_gpus_a_node_is_a_worker(slurm):
    assert ended(slurm()) == (0, "")
    assert training_of(slurm)[-2:] == ["--workers", "2"]
    assert not [word for word in slurm.said("ray") if word.startswith("--num-gpus")]


@pytest.mark.parametrize("gpus", [{}, {"SLURM_GPUS_PER_TASK": "1"}])
def test_symmetric_run_and_ray_start_take_the_words(slurm, gpus):
    ended(slurm(**gpus))
    command, *words = slurm.said("ray")
    assert command == "symmetric-run"
    own = words[: words.index("--")]
    assert own[:4] == ["--address", "node07:6379", "--min-nodes", "2"]
    for role in (["--head", "--node-ip-address=10.0.0.7", "--port=6379"], ["--address", "node07:6379", "--block"]):
        options = ray_start.make_context("start", [*role, *curate_and_validate_ray_start_args(list(own))]).params
        assert options["num_cpus"] == 8
        assert options["num_gpus"] == (1 if gpus else None)


def test_every_job_has_a_token_of_its_own(slurm):
    tokens = set()
    for _ in range(2):
        ended(slurm())
        environment = dict(line.split("=", 1) for line in slurm.said("environment") if "=" in line)
        assert environment["RAY_AUTH_MODE"] == "token"
        assert re.fullmatch(r"[0-9a-f]{64}", environment["RAY_AUTH_TOKEN"])
        tokens.add(environment["RAY_AUTH_TOKEN"])
    assert len(tokens) == 2


def test_the_job_fails_as_its_training_does(slurm):
    assert ended(slurm(CODE="2")) == (2, "")
    assert not (slurm.folder / "scontrol").exists()  # what a person must mend is not tried again


def test_the_job_fails_where_ray_did_not_start(slurm):
    code, error = ended(slurm(NO_RAY="yes"))
    assert code == 1
    assert error.startswith("error: slurm.sh: the training did not end by itself")
    assert len(error.splitlines()) == 1


def test_when_its_time_is_up_the_training_ends_and_the_job_queues_again(slurm):
    job = slurm(ENDLESS="yes")
    while not (slurm.folder / "training").exists():
        assert job.poll() is None
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    code, error = ended(job)
    assert code == 130  # of the training, which was told so
    assert error.startswith("note: the time is up")
    assert slurm.said("scontrol") == ["requeue", "42"]
    assert list(slurm.runs.iterdir()) == []  # no notes are left


@pytest.mark.parametrize(
    ("words", "changed", "code", "said"),
    [
        ([], {}, 2, "usage: sbatch "),
        (WORDS, {"SLURM_JOB_ID": ""}, 1, "error: slurm.sh: is no job yet"),
        (WORDS, {"GANSEG_RUNS": "/nowhere"}, 1, "error: GANSEG_RUNS=/nowhere: is no folder"),
        (WORDS, {"GANSEG_RUNS": ""}, 1, "error: GANSEG_RUNS=: is no folder"),
    ],
)
def test_what_is_missing_is_said_in_a_line(slurm, words, changed, code, said):
    found, error = ended(slurm(words, **changed))
    assert found == code
    assert error.startswith(said)
    assert code == 2 or len(error.splitlines()) == 1
    assert not (slurm.folder / "srun").exists()


# The README.


def test_the_readme_names_every_file():
    text = (FOLDER / "README.md").read_text()
    for file in FOLDER.iterdir():
        assert file.name == "README.md" or f"`{file.name}`" in text


def test_the_readmes_training_commands_parse():
    text = (FOLDER / "README.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"python -m ganseg_dist [^\n\"'`]+", text)
    submitted = re.findall(r"deploy/ray/slurm\.sh (\w[^\n`]+)", text)
    assert len(commands) >= 2
    assert len(submitted) >= 2
    for command in [*commands, *(f"python -m ganseg_dist train {words}" for words in submitted)]:
        assert parsed(shlex.split(command))["run_name"]
