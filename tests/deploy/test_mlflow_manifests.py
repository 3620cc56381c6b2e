"""deploy/mlflow on Kubernetes and with Compose: schema, secrets, access, and what the two promise each other."""

import json
import re

import jsonschema
import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from mlflow.server.security_utils import is_allowed_host_header

from tests.deploy.manifests import MLFLOW, changed, compose, mlflow_pods, of_kind
from tests.deploy.mlflow_home import SECRETS, prepared_home

SERVICES = compose()["services"]
SETTINGS = of_kind("mlflow", "ConfigMap")


# Kubernetes.


@pytest.mark.parametrize("pod", mlflow_pods().values(), ids=mlflow_pods())
def test_pod_gets_settings_from_the_config_map_and_secrets_from_a_read_only_volume(pod):
    (container,) = pod["spec"]["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": SETTINGS["metadata"]["name"]}}]
    assert "env" not in container
    assert pod["spec"]["enableServiceLinks"] is False  # a Service named mlflow would set MLFLOW_PORT
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    secrets = mounts[SETTINGS["data"]["MLFLOW_SECRETS"]]
    assert secrets["readOnly"] is True
    (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == secrets["name"]]
    assert volume["secret"]["defaultMode"] & 0o007 == 0
    assert f"create secret generic {volume['secret']['secretName']} " in (MLFLOW / "README.md").read_text()


def test_service_probes_and_policy_agree_on_the_servers_port():
    pod, service = mlflow_pods()["mlflow:Deployment"], of_kind("mlflow", "Service")["spec"]
    (container,) = pod["spec"]["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == int(SETTINGS["data"]["MLFLOW_PORT"])
    assert {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")} == {
        port["name"]
    }
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["ports"][0]["targetPort"] == port["name"]
    (rule,) = of_kind("mlflow", "NetworkPolicy")["spec"]["ingress"]
    assert rule["ports"] == [{"port": port["containerPort"], "protocol": "TCP"}]


def test_network_policy_admits_only_its_own_namespace_and_that_of_ganseg():
    policy = of_kind("mlflow", "NetworkPolicy")["spec"]
    assert (policy["podSelector"], policy["policyTypes"]) == ({}, ["Ingress"])  # every pod
    (rule,) = policy["ingress"]
    ganseg = {"kubernetes.io/metadata.name": of_kind("ray", "Namespace")["metadata"]["name"]}
    assert rule["from"] == [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": ganseg}}]


def test_ganseg_calls_the_server_by_a_name_that_it_allows():
    uri = of_kind("ray", "ConfigMap")["data"]["MLFLOW_TRACKING_URI"]
    service, namespace = (of_kind("mlflow", kind)["metadata"]["name"] for kind in ("Service", "Namespace"))
    port = of_kind("mlflow", "Service")["spec"]["ports"][0]["port"]
    assert uri == f"http://{service}.{namespace}.svc:{port}"
    allowed = SETTINGS["data"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    for host in (uri.removeprefix("http://"), "127.0.0.1:5000", "localhost:5123"):
        assert is_allowed_host_header(allowed, host), host
    assert not is_allowed_host_header(allowed, "elsewhere.example.org")


# Compose.


@pytest.fixture(scope="module")
def compose_schema():
    return jsonschema.Draft7Validator(get_builtin_schema("vendor.compose-spec"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return prepared_home(tmp_path_factory.mktemp("prepared"))


def test_compose_file_matches_its_schema(compose_schema):
    assert [f"{error.json_path}: {error.message}" for error in compose_schema.iter_errors(compose())] == []


@pytest.mark.parametrize(("path", "value"), [("services/server/port", ["5000"]), ("services/s3/cap_drop", "ALL")])
def test_compose_schema_rejects_unknown_fields_and_wrong_types(compose_schema, path, value):
    assert not compose_schema.is_valid(changed(compose(), path, value))


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_compose_container_has_no_privilege_and_a_pinned_image(service):
    assert service["user"].startswith("${MLFLOW_USER:?")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & set(service)
    assert re.fullmatch(r"[a-z/-]+:\d+(\.\d+)+", service["image"])


def test_compose_publishes_the_server_only_and_on_this_machine():
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"server"}
    assert SERVICES["server"]["ports"] == ["${MLFLOW_LISTEN:-127.0.0.1}:5000:5000"]
    assert compose()["networks"]["stores"] == {"internal": True}
    for name, service in SERVICES.items():
        assert name == "server" or service["networks"] == ["stores"], name


def test_compose_secrets_are_declared_used_and_written_by_prepare(home):
    declared = compose()["secrets"]
    for name, secret in declared.items():
        assert (home / secret["file"].removeprefix("${MLFLOW_HOME}/")).is_file(), name
    assert {name for service in SERVICES.values() for name in service["secrets"]} == set(declared)
    assert sorted(SERVICES["server"]["secrets"]) == SECRETS
    for service in SERVICES.values():
        text = json.dumps([service.get("environment", {}), service.get("command", [])])
        assert set(re.findall(r"/run/secrets/([\w.-]+)", text)) <= set(service["secrets"])


def test_compose_volumes_are_folders_that_prepare_makes(home):
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    assert volumes
    for volume in volumes:
        assert (home / volume.removeprefix("${MLFLOW_HOME}/").partition(":")[0]).is_dir(), volume


def test_compose_variables_are_written_by_prepare_or_have_a_default(home):
    written = {line.partition("=")[0] for line in (home / "compose.env").read_text().splitlines()}
    for name, rest in re.findall(r"\$\{(\w+)([^}]*)\}", (MLFLOW / "compose.yaml").read_text()):
        assert name in written or rest.startswith(":-"), name


def test_server_has_the_same_settings_in_compose_and_on_kubernetes():
    composed, kubernetes = SERVICES["server"]["environment"], SETTINGS["data"]
    assert composed.keys() == kubernetes.keys()
    for name in ("MLFLOW_HOST", "MLFLOW_PORT", "MLFLOW_WORKERS", "AWS_DEFAULT_REGION"):
        assert composed[name] == kubernetes[name]


# Secrets in files.

TEXTS = sorted(path for path in MLFLOW.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
SECRET = re.compile(r"^[ \t]*[\w-]*(?:password|secret|token|access_?key)[ \t]*[:=][ \t]*(\S.*)$", re.I | re.M)
REFERENCES = ("$", "{file: ", "[", "/run/secrets/", "false")
"""How a value begins that stands for a secret kept elsewhere."""


def secrets_in(text: str) -> list[str]:
    """Values that look like secrets, and URIs with a password."""
    found = [value for value in SECRET.findall(text) if not value.startswith(REFERENCES)]
    return found + re.findall(r"://[^\s/@:]+:[^\s/@$]+@", text)


@pytest.mark.parametrize("file", TEXTS, ids=lambda path: path.name)
def test_file_holds_no_secret(file):
    assert secrets_in(file.read_text()) == []


@pytest.mark.parametrize(
    "line",
    ["  MYSQL_PASSWORD: hunter2", "admin_password = changeme", "AWS_SECRET_ACCESS_KEY=abc", "postgresql://me:word@db"],
)
def test_secrets_in_finds_secret_in_line(line):
    assert len(secrets_in(line)) == 1
