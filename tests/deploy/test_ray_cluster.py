"""deploy/ray on Kubernetes: KubeRay's schemas, the RayCluster and the RayJob against each other, and the job."""

import shlex

import jsonschema
import pytest
import ray
import yaml

from ganseg_dist.cluster.ray_cluster import AUTOSCALES
from ganseg_dist.config import override, parse_assignments
from ganseg_dist.systems import recipe
from tests.deploy.manifests import (
    CUSTOM,
    RAY,
    ROOT,
    changed,
    documents,
    groups,
    of_kind,
    only,
    ray_clusters,
    ray_nodes,
    ray_pods,
    training_arguments,
)

SCHEMAS = ROOT.parent / "shared" / "schemas" / "kuberay"
DEFINITIONS = {"raycluster.yaml": "rayclusters.crd.yaml", "rayjob.yaml": "rayjobs.crd.yaml"}


def strict(schema: dict) -> dict:
    """An OpenAPI v3 schema as JSON Schema that rejects unnamed fields, which the API server would drop."""
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
    """A validator for each of KubeRay's kinds, by the manifest of that kind."""
    if not SCHEMAS.is_dir():
        pytest.skip(f"KubeRay's definitions are not beside the repository, in {SCHEMAS}")
    found = {}
    for name, definition in DEFINITIONS.items():
        versions = yaml.load((SCHEMAS / definition).read_text(), yaml.CSafeLoader)["spec"]["versions"]
        (schema,) = [version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1"]
        made = strict(schema)
        made["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own, which a definition leaves out
        found[name] = jsonschema.Draft202012Validator(made)
    return found


@pytest.mark.parametrize("name", CUSTOM)
def test_manifest_matches_kuberay_schema(definitions, name):
    problems = [f"{error.json_path}: {error.message}" for error in definitions[name].iter_errors(only(RAY / name))]
    assert problems == []


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("raycluster.yaml", "enableInTreeAutoscaling", "yes"),
        ("raycluster.yaml", "autoscalerOptions/upscalingMode", "Fast"),
        ("raycluster.yaml", "workerGroupSpecs/1/unknown", 1),
        ("raycluster.yaml", "headGroupSpec/rayStartParams/num-cpus", 0),
        ("raycluster.yaml", "headGroupSpec/template/spec/containers/0/volumeMounts/0/mountPath", None),
        ("rayjob.yaml", "rayClusterSpec/authOptions/mode", "password"),
        ("rayjob.yaml", "submitterConfig/retries", 2),
    ],
)
def test_kuberay_schema_rejects_unknown_fields_and_wrong_values(definitions, name, path, value):
    (error,) = definitions[name].iter_errors(changed(only(RAY / name), f"spec/{path}", value))
    last = path.rpartition("/")[2]
    assert last in error.json_path or last in error.message


def test_ray_job_has_same_cluster_as_ray_cluster_except_for_gpu_workers():
    sizes = ("replicas", "minReplicas", "maxReplicas")
    ray_cluster, ray_job = (
        [
            {key: value for key, value in group.items() if name != "gpu" or key not in sizes}
            for name, group in groups(cluster).items()
        ]
        + [{key: value for key, value in cluster.items() if key not in ("headGroupSpec", "workerGroupSpecs")}]
        for cluster in ray_clusters().values()
    )
    assert ray_cluster == ray_job


def test_ray_version_is_the_installed_one():
    assert {cluster["rayVersion"] for cluster in ray_clusters().values()} == {ray.__version__}


# Storage and settings.

CLAIMS = {claim["metadata"]["name"]: claim["spec"] for claim in documents(RAY / "storage.yaml")}
SETTINGS = of_kind("ray", "ConfigMap")


def test_volume_claims_can_be_mounted_by_many_nodes():
    assert [name for name, claim in CLAIMS.items() if claim["accessModes"] != ["ReadWriteMany"]] == []


@pytest.mark.parametrize("pod", ray_nodes().values(), ids=ray_nodes())
def test_ray_node_mounts_runs_writable_and_data_read_only(pod):
    volumes = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    assert set(volumes.values()) == set(CLAIMS)
    runs = mounts[SETTINGS["data"]["GANSEG_RUNS"]]
    assert volumes[runs["name"]] == "ganseg-runs"
    assert not runs.get("readOnly")
    assert volumes[mounts["/data"]["name"]] == "ganseg-data"
    assert mounts["/data"]["readOnly"] is True


@pytest.mark.parametrize("pod", ray_nodes().values(), ids=ray_nodes())
def test_ray_node_reads_the_config_map_and_the_secret_that_the_readme_creates(pod):
    configured, secret = pod["spec"]["containers"][0]["envFrom"]
    assert configured == {"configMapRef": {"name": SETTINGS["metadata"]["name"]}}
    assert secret["secretRef"]["optional"] is True
    assert f"create secret generic {secret['secretRef']['name']} " in (RAY / "README.md").read_text()


def test_autoscaling_cluster_sets_the_variable_that_makes_a_training_wait_for_nodes():
    for cluster in ray_clusters().values():
        assert cluster["enableInTreeAutoscaling"] is True
    for group in ray_clusters()["raycluster.yaml"]["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
    assert SETTINGS["data"][AUTOSCALES] == "1", "training would be rejected"


# Access.


@pytest.mark.parametrize("cluster", ray_clusters().values(), ids=ray_clusters())
def test_ray_cluster_requires_a_token_and_is_reachable_inside_kubernetes_only(cluster):
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert cluster["autoscalerOptions"]["securityContext"] == head["securityContext"]


def test_dashboard_service_selects_ray_cluster():
    selector = of_kind("ray", "Service")["spec"]["selector"]
    assert selector["ray.io/cluster"] == only(RAY / "raycluster.yaml")["metadata"]["name"]


def test_network_policy_covers_every_pod_and_admits_the_namespace_and_the_operator():
    policy = of_kind("ray", "NetworkPolicy")["spec"]
    for pod in ray_pods().values():
        assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert policy["policyTypes"] == ["Ingress"]
    own, operator = policy["ingress"]
    assert own == {"from": [{"podSelector": {}}]}
    head = ray_clusters()["rayjob.yaml"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in head["ports"]}
    assert operator["ports"] == [{"port": ports["dashboard"], "protocol": "TCP"}]
    (peer,) = operator["from"]
    assert {"namespaceSelector", "podSelector"} == set(peer)  # both at once: the operator's pod in its namespace


# The job.


def test_job_trains_a_recipe_on_as_many_gpu_workers_as_it_starts():
    arguments = training_arguments(shlex.split(only(RAY / "rayjob.yaml")["spec"]["entrypoint"]))
    assert str(arguments["data"]).startswith("/data/")
    assert arguments["run_name"]  # a second submission resumes this run
    config = override(recipe(arguments["recipe"]), parse_assignments(arguments["assignments"]))
    assert config.train.batch_size % arguments["workers"] == 0
    gpu = groups(ray_clusters()["rayjob.yaml"])["gpu"]
    assert gpu["replicas"] == gpu["minReplicas"] == gpu["maxReplicas"] == arguments["workers"]
    requests = gpu["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert arguments["gpus"] is True
    assert requests["nvidia.com/gpu"] == "1"
    assert config.train.threads <= int(requests["cpu"])
