"""Promises that every Kubernetes manifest of deploy/ keeps: schemas, namespaces, privileges and limits."""

import kubernetes_validate
import pytest

from tests.deploy.manifests import (
    CUSTOM,
    RAY,
    STANDARD,
    changed,
    mlflow_pods,
    of_kind,
    only,
    ray_pods,
    standard,
    validate,
)

PODS = ray_pods() | mlflow_pods()
DOCUMENTS = {
    f"{folder}:{document['kind']}:{document['metadata']['name']}": document
    for folder in STANDARD
    for document in standard(folder)
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_manifest_matches_kubernetes_schema(document):
    validate(document)


@pytest.mark.parametrize("pod", ray_pods().values(), ids=ray_pods())
def test_ray_pod_template_matches_kubernetes_schema(pod):
    metadata = {"name": "one", **pod["metadata"]}
    validate({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]})


@pytest.mark.parametrize(
    ("path", "value"), [("spec/ingress/0/source", []), ("spec/ingress/0/ports", "http")], ids=["unknown", "type"]
)
def test_kubernetes_schema_rejects_unknown_fields_and_wrong_types(path, value):
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(changed(of_kind("mlflow", "NetworkPolicy"), path, value))


@pytest.mark.parametrize("folder", STANDARD)
def test_manifests_of_a_folder_share_one_namespace_that_enforces_restricted_pods(folder):
    namespace = of_kind(folder, "Namespace")
    every = standard(folder) + ([only(RAY / name) for name in CUSTOM] if folder == "ray" else [])
    inside = {document["metadata"].get("namespace") for document in every if document["kind"] != "Namespace"}
    assert inside == {namespace["metadata"]["name"]}
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_pod_meets_the_restricted_security_standard(pod):
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 1000  # the images' user
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for container in spec["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_container_requests_equal_its_limits(pod):
    for container in pod["spec"]["containers"]:
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])


def test_only_ray_heads_get_a_kubernetes_token():
    with_token = {name for name, pod in PODS.items() if pod["spec"].get("automountServiceAccountToken") is not False}
    assert with_token == {"raycluster.yaml:head", "rayjob.yaml:head"}  # their autoscaler requests pods


@pytest.mark.parametrize("folder", STANDARD)
def test_services_are_reachable_inside_the_cluster_only(folder):
    assert of_kind(folder, "Service")["spec"]["type"] == "ClusterIP"
    assert "Ingress" not in {document["kind"] for document in standard(folder)}
