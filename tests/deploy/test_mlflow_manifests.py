"""What deploy/mlflow says, without Docker, Kubernetes or a server: schemas, consistency, and what would be started."""

import configparser
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import mlflow
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from dockerfile_parse import DockerfileParser
from mlflow.cli import cli
from mlflow.server.security_utils import is_allowed_host_header
from packaging.requirements import Requirement

from tests.deploy.test_image import installed_by, run_of, values

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "mlflow"
KUBERNETES = "1.30"
SECRETS = ["admin-password", "database-password", "s3-credentials", "session-key"]
"""What serve.sh reads."""


def kubernetes_documents() -> list[dict]:
    """As Kubernetes gets them: an anchor's value is written out wherever it is used."""
    files = sorted((FOLDER / "kubernetes").glob("*.yaml"))
    found = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    return json.loads(json.dumps(found))


def of_kind(kind: str) -> dict:
    (document,) = [document for document in kubernetes_documents() if document["kind"] == kind]
    return document


def at(document: Any, path: str) -> Any:
    for step in filter(None, path.split("/")):
        document = document[int(step) if step.isdigit() else step]
    return document


def put(document: Any, path: str, value: Any) -> None:
    folder, _, last = path.rpartition("/")
    at(document, folder)[last] = value


# Kubernetes.


@pytest.mark.parametrize("document", kubernetes_documents(), ids=lambda document: document["kind"])
def test_kubernetes_knows_every_field(document):
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", "spec/replicas", "1"),
        ("Deployment", "spec/template/spec/enableServiceLink", False),
        ("Deployment", "spec/template/spec/containers/0/startupProbe/httpGet/port", None),
        ("Job", "spec/backoffLimits", 0),
        ("Service", "spec/ports/0/port", "http"),
        ("NetworkPolicy", "spec/ingress/0/source", []),
        ("ConfigMap", "data/MLFLOW_PORT", 5000),
    ],
)
def test_kubernetes_would_find_a_mistake(kind, path, value):
    wrong = of_kind(kind)
    put(wrong, path, value)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_everything_is_in_one_namespace_which_lets_no_container_be_root():
    namespace = of_kind("Namespace")
    inside = {document["metadata"].get("namespace") for document in kubernetes_documents() if document != namespace}
    assert inside == {namespace["metadata"]["name"]}
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_a_pod_has_no_privilege_and_gets_settings_and_secrets(kind):
    pod = of_kind(kind)["spec"]["template"]["spec"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False  # a Service of the name mlflow would set MLFLOW_PORT
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    (container,) = pod["containers"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    assert container["envFrom"] == [{"configMapRef": {"name": of_kind("ConfigMap")["metadata"]["name"]}}]
    assert "env" not in container
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    secrets = mounts[of_kind("ConfigMap")["data"]["MLFLOW_SECRETS"]]
    assert secrets["readOnly"] is True
    assert volumes[secrets["name"]]["secret"] == {"secretName": "mlflow", "defaultMode": 0o440}


def test_the_server_is_asked_how_it_is_and_is_reached_from_ganseg_alone():
    pod = of_kind("Deployment")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] >= 120
    port = of_kind("ConfigMap")["data"]["MLFLOW_PORT"]
    assert container["ports"] == [{"name": "http", "containerPort": int(port)}]
    service = of_kind("Service")["spec"]
    assert service["type"] == "ClusterIP"
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["ports"][0]["targetPort"] == "http"
    policy = of_kind("NetworkPolicy")["spec"]
    assert (policy["podSelector"], policy["policyTypes"]) == ({}, ["Ingress"])
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"port": service["ports"][0]["port"], "protocol": "TCP"}]
    own, ganseg = rule["from"]
    assert own == {"podSelector": {}}
    assert ganseg == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ray_settings()[0]}}}


def test_the_upgrade_is_tried_once():
    spec = of_kind("Job")["spec"]
    assert (spec["backoffLimit"], spec["template"]["spec"]["restartPolicy"]) == (0, "Never")


def ray_settings() -> tuple[str, dict[str, str]]:
    """The namespace that ganseg runs in, and what its pods are told."""
    namespace, settings = yaml.safe_load_all((ROOT / "deploy" / "ray" / "namespace.yaml").read_text())
    return namespace["metadata"]["name"], settings["data"]


def test_ganseg_calls_the_server_by_a_name_that_it_answers_to():
    address = ray_settings()[1]["MLFLOW_TRACKING_URI"]
    service, namespace = of_kind("Service")["metadata"]["name"], of_kind("Namespace")["metadata"]["name"]
    port = of_kind("Service")["spec"]["ports"][0]["port"]
    assert address == f"http://{service}.{namespace}.svc:{port}"
    allowed = of_kind("ConfigMap")["data"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    for host in (address.removeprefix("http://"), "127.0.0.1:5000", "localhost:5123"):
        assert is_allowed_host_header(allowed, host), host
    assert not is_allowed_host_header(allowed, "elsewhere.example.org")


# Compose.


def compose() -> dict:
    return json.loads(json.dumps(yaml.safe_load((FOLDER / "compose.yaml").read_text())))


def services() -> dict[str, dict]:
    return compose()["services"]


@pytest.fixture(scope="module")
def compose_schema():
    return jsonschema.Draft7Validator(get_builtin_schema("vendor.compose-spec"))


def test_compose_knows_every_field(compose_schema):
    assert [f"{error.json_path}: {error.message}" for error in compose_schema.iter_errors(compose())] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("services/server/port", ["5000"]),
        ("services/server/secrets", "session-key"),
        ("services/database/healthcheck/test", 5),
        ("services/bucket/depends_on/s3/condition", "healthy"),
        ("networks/stores/internal", []),
        ("services/s3/cap_drop", "ALL"),
    ],
)
def test_composes_schema_would_find_a_mistake(compose_schema, path, value):
    wrong = compose()
    put(wrong, path, value)
    assert not compose_schema.is_valid(wrong)


def test_every_container_is_contained_watched_and_pinned():
    for name, service in services().items():
        assert service["user"].startswith("${MLFLOW_USER:?"), name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "cap_add", "network_mode", "pid"} & set(service)
        assert re.fullmatch(r"[a-z/-]+:\d+(\.\d+)+", service["image"]), service["image"]
        once = name == "bucket"
        assert service["restart"] == ("on-failure:5" if once else "unless-stopped")
        assert ("healthcheck" in service) is not once


def test_only_the_server_is_reached_and_on_this_machine():
    ports = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert ports == {"server": ["${MLFLOW_LISTEN:-127.0.0.1}:5000:5000"]}
    networks = {name: service["networks"] for name, service in services().items()}
    assert networks.pop("server") == ["stores", "clients"]
    assert set(map(tuple, networks.values())) == {("stores",)}
    assert compose()["networks"]["stores"] == {"internal": True}


def test_secrets_are_files_that_are_declared_and_read():
    declared = compose()["secrets"]
    assert {name: secret["file"] for name, secret in declared.items()} == {
        name: f"${{MLFLOW_HOME}}/secrets/{name}" for name in (*SECRETS, "s3.json")
    }
    assert {name for service in services().values() for name in service["secrets"]} == set(declared)
    assert sorted(services()["server"]["secrets"]) == SECRETS
    for service in services().values():
        told = json.dumps([service.get("environment", {}), service.get("command", [])])
        for read in re.findall(r"/run/secrets/([\w.-]+)", told):
            assert read in service["secrets"]


def test_what_is_kept_is_in_the_folder_that_prepare_makes(home):
    kept = [volume for service in services().values() for volume in service.get("volumes", [])]
    assert len(kept) == 2
    for volume in kept:
        assert (home / volume.removeprefix("${MLFLOW_HOME}/").partition(":")[0]).is_dir()


def test_every_variable_is_in_the_file_that_prepare_writes_or_has_a_default(home):
    written = {line.partition("=")[0] for line in (home / "compose.env").read_text().splitlines()}
    text = (FOLDER / "compose.yaml").read_text()
    for name, rest in re.findall(r"\$\{(\w+)([^}]*)\}", text):
        assert name in written or rest.startswith(":-"), name


# Both.


def told() -> dict[str, dict[str, str]]:
    return {"compose.yaml": services()["server"]["environment"], "Kubernetes": of_kind("ConfigMap")["data"]}


def test_the_server_is_told_the_same_things_in_both():
    compose_told, kubernetes_told = told().values()
    assert compose_told.keys() == kubernetes_told.keys()
    for same in ("MLFLOW_HOST", "MLFLOW_PORT", "MLFLOW_WORKERS", "AWS_DEFAULT_REGION"):
        assert compose_told[same] == kubernetes_told[same]


@pytest.mark.parametrize("name", sorted(told()["Kubernetes"]))
def test_every_setting_is_read_by_somebody(name):
    package = Path(mlflow.__file__).parent
    readers = {"MLFLOW": [package, FOLDER / "serve.sh"], "AWS": [package.parent / "botocore"]}[name.partition("_")[0]]
    found = subprocess.run(["grep", "-rqw", "--include=*.py", "--include=*.sh", name, *readers], timeout=60)
    assert found.returncode == 0, f"{name} is read by nobody"


def test_one_image_of_the_mlflow_that_clients_have():
    images = {of_kind(kind)["spec"]["template"]["spec"]["containers"][0]["image"] for kind in ("Deployment", "Job")}
    images |= {services()[name]["image"] for name in ("server", "bucket")}
    constraints = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    assert images == {f"ganseg-mlflow:{constraints['mlflow']}"}
    (image,) = images
    for file in ("Dockerfile", "README.md"):
        assert f"docker build --file deploy/mlflow/Dockerfile --tag {image} ." in (FOLDER / file).read_text()


TEXTS = sorted(path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
SECRET_NAMES = re.compile(r"^[ \t]*[\w-]*(?:password|secret|token|access_?key)[ \t]*[:=][ \t]*(\S.*)$", re.I | re.M)
HARMLESS = ("$", "{file: ", "[", "/run/secrets/", "false")
"""What stands for a secret that is elsewhere."""


@pytest.mark.parametrize("file", TEXTS, ids=lambda path: path.name)
def test_no_secret_is_in_a_file(file):
    text = file.read_text()
    assert not re.search(r"://[^\s/@:]+:[^\s/@$]+@", text), "a password in a URI"
    assert [value for value in SECRET_NAMES.findall(text) if not value.startswith(HARMLESS)] == []


@pytest.mark.parametrize(
    "line", ["  MYSQL_PASSWORD: hunter2", "admin_password = changeme", "AWS_SECRET_ACCESS_KEY=abc"]
)
def test_a_secret_in_a_file_would_be_found(line):
    (value,) = SECRET_NAMES.findall(line)
    assert not value.startswith(HARMLESS)


# The image.


@pytest.fixture
def steps(tmp_path):
    parser = DockerfileParser(path=str(tmp_path))
    parser.content = (FOLDER / "Dockerfile").read_text()
    return [(step["instruction"], step["value"]) for step in parser.structure]


def test_hadolint_finds_nothing():
    linter = Path(sys.executable).with_name("hadolint")
    linted = subprocess.run([linter, FOLDER / "Dockerfile"], capture_output=True, text=True, timeout=30)
    assert linted.returncode == 0, linted.stdout


def test_the_image_holds_what_the_servers_extra_names_and_the_constraints_pin(steps, tmp_path):
    (words,) = installed_by(run_of(steps, "pip install"), tmp_path)
    assert words[:3] == ["install", "--constraint", "constraints.txt"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = (tmp_path / words[words.index("--requirement") + 1]).read_text().splitlines()
    assert needed == project["optional-dependencies"]["mlflow-server"]
    constraints = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    for requirement in map(Requirement, needed):
        assert requirement.specifier.contains(constraints[requirement.name]), requirement
    clients = {one.name: one for one in map(Requirement, project["dependencies"])}
    server = {one.name: one for one in map(Requirement, needed)}
    assert server["mlflow"].specifier == clients["mlflow"].specifier


def test_the_image_is_on_the_base_of_the_other_and_is_not_root(steps):
    other = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    assert f"ARG {values(steps, 'ARG')[0]}\n" in other
    assert [step for step in steps if step[0] != "COMMENT"][-2:] == [
        ("USER", "1000:1000"),
        ("CMD", '["/opt/mlflow/serve.sh", "start"]'),
    ]


def test_what_is_copied_is_there_executable_and_let_in(steps):
    let_in = [line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    copied = [source for value in values(steps, "COPY") for source in value.split()[:-1]]
    assert sorted(copied) == sorted(let_in)
    assert all((ROOT / source).is_file() for source in copied)
    assert values(steps, "WORKDIR") == ["/opt/mlflow"]


def test_what_containers_start_is_in_the_image():
    started = [of_kind(kind)["spec"]["template"]["spec"]["containers"][0]["args"][0] for kind in ("Deployment", "Job")]
    started.append(services()["bucket"]["command"][1])
    for program in started:
        assert (FOLDER / program.removeprefix("/opt/mlflow/")).is_file(), program


# The commands.

COMMANDS = sorted(FOLDER.glob("*.sh"))


def said_by(name: str, *words: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_", "PG"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [FOLDER / name, *map(str, words)], cwd=folder, env={**plain, "PATH": path, **environment},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_they_are_these():
    assert [script.name for script in COMMANDS] == ["one.sh", "prepare.sh", "serve.sh"]


@pytest.mark.parametrize("script", COMMANDS, ids=lambda script: script.name)
def test_without_words_each_says_what_it_takes(script, tmp_path):
    said = said_by(script.name, folder=tmp_path)
    assert said.returncode == 2
    assert said.stderr.startswith(f"usage: {script.name} ")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def home(tmp_path):
    said = said_by("prepare.sh", "home", folder=tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
    assert f"--env-file {tmp_path}/home/compose.env --file {FOLDER}/compose.yaml up" in said.stdout
    return tmp_path / "home"


def test_secrets_are_drawn_once_and_are_their_owners_alone(home, tmp_path):
    drawn = {file.name: file.read_text() for file in (home / "secrets").iterdir()}
    assert sorted(drawn) == sorted([*SECRETS, "s3.json"])
    for name in ("database-password", "admin-password", "session-key"):
        assert re.fullmatch("[0-9a-f]{48,64}", drawn[name]), name
    assert len(set(drawn.values())) == 5
    for path in (home, *home.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    shutil.rmtree(home / "s3")
    assert said_by("prepare.sh", "home", folder=tmp_path).returncode == 0
    assert drawn == {file.name: file.read_text() for file in (home / "secrets").iterdir()}
    assert (home / "s3").is_dir()


def test_both_ends_of_s3_know_the_same_key(home):
    client = configparser.ConfigParser()
    client.read(home / "secrets" / "s3-credentials")
    (identity,) = json.loads((home / "secrets" / "s3.json").read_text())["identities"]
    assert identity["credentials"] == [
        {
            "accessKey": client["default"]["aws_access_key_id"],
            "secretKey": client["default"]["aws_secret_access_key"],
        }
    ]


def test_containers_run_as_whoever_owns_the_folder_and_never_as_root(home):
    settings = dict(line.split("=", 1) for line in (home / "compose.env").read_text().splitlines())
    owner = home.stat()
    assert settings == {"MLFLOW_HOME": str(home), "MLFLOW_USER": f"{owner.st_uid}:{owner.st_gid}"}
    assert owner.st_uid != 0
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (home / "secrets").iterdir()} == {
        (owner.st_uid, owner.st_gid)
    }


STAND_IN = """#!/bin/bash
printf '%s\\n' "$@" >>"$SAID/words"
env >"$SAID/environment"
[ -z "${MLFLOW_AUTH_CONFIG_PATH:-}" ] || cp "$MLFLOW_AUTH_CONFIG_PATH" "$SAID/auth.ini"
"""


@pytest.fixture
def stand_in(tmp_path):
    """A mlflow and a python that write down how they are called."""
    (tmp_path / "bin").mkdir()
    for name in ("mlflow", "python"):
        (tmp_path / "bin" / name).write_text(STAND_IN)
        (tmp_path / "bin" / name).chmod(0o755)
    return {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "SAID": str(tmp_path)}


def words_of(folder: Path) -> list[str]:
    return (folder / "words").read_text().splitlines()


def environment_of(folder: Path) -> dict[str, str]:
    lines = (folder / "environment").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def server_options(words: list[str], environment: dict[str, str], monkeypatch) -> dict[str, Any]:
    """What `mlflow server` would be called with."""
    for name, value in environment.items():
        if name.startswith("MLFLOW_"):
            monkeypatch.setenv(name, value)
    assert words[0] == "server"
    return cli.commands["server"].make_context("server", words[1:]).params


def test_a_team_is_served_from_postgresql_and_s3_with_secrets_from_files(home, tmp_path, stand_in, monkeypatch):
    settings = told()["Kubernetes"] | {"MLFLOW_SECRETS": str(home / "secrets")}
    said = said_by("serve.sh", "start", folder=tmp_path, **settings, **stand_in)
    assert (said.returncode, said.stderr) == (0, "")
    environment = environment_of(tmp_path)
    options = server_options(words_of(tmp_path), environment, monkeypatch)
    assert options["app_name"] == "basic-auth"
    assert options["serve_artifacts"] is True
    assert (options["backend_store_uri"], options["artifacts_destination"]) == (
        settings["MLFLOW_BACKEND_STORE_URI"],
        settings["MLFLOW_ARTIFACTS_DESTINATION"],
    )
    assert (options["host"], options["port"], options["workers"]) == ("0.0.0.0", 5000, "2")
    assert options["allowed_hosts"] == settings["MLFLOW_SERVER_ALLOWED_HOSTS"]
    assert not options["disable_security_middleware"]
    for name, file in {
        "PGPASSWORD": "database-password",
        "MLFLOW_AUTH_ADMIN_PASSWORD": "admin-password",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "session-key",
    }.items():
        assert environment[name] == (home / "secrets" / file).read_text()
    assert environment["AWS_SHARED_CREDENTIALS_FILE"] == str(home / "secrets" / "s3-credentials")
    assert environment["DO_NOT_TRACK"] == environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    auth = configparser.ConfigParser()
    auth.read(tmp_path / "auth.ini")
    assert dict(auth["mlflow"]) == {
        "database_uri": settings["MLFLOW_BACKEND_STORE_URI"],
        "default_permission": "EDIT",
        "admin_username": "admin",
        "auth_cache_ttl_seconds": "60",
    }


def test_without_keys_s3_is_asked_as_the_pod(home, tmp_path, stand_in):
    (home / "secrets" / "s3-credentials").unlink()
    settings = told()["Kubernetes"] | {"MLFLOW_SECRETS": str(home / "secrets")}
    assert said_by("serve.sh", "start", folder=tmp_path, **settings, **stand_in).returncode == 0
    assert "AWS_SHARED_CREDENTIALS_FILE" not in environment_of(tmp_path)


def test_an_upgrade_is_of_runs_and_of_users(home, tmp_path, stand_in):
    settings = told()["Kubernetes"] | {"MLFLOW_SECRETS": str(home / "secrets")}
    assert said_by("serve.sh", "upgrade", folder=tmp_path, **settings, **stand_in).returncode == 0
    uri = settings["MLFLOW_BACKEND_STORE_URI"]
    runs, users = ["db", "upgrade", uri], ["-m", "mlflow.server.auth", "db", "upgrade", "--url", uri]
    assert words_of(tmp_path) == [*runs, *users]


@pytest.mark.parametrize("missing", ["MLFLOW_BACKEND_STORE_URI", "MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SECRETS"])
def test_a_setting_that_is_missing_is_one_line(home, tmp_path, stand_in, missing):
    settings = told()["Kubernetes"] | {"MLFLOW_SECRETS": str(home / "secrets")}
    del settings[missing]
    said = said_by("serve.sh", "start", folder=tmp_path, **settings, **stand_in)
    assert said.returncode == 1
    assert said.stderr == f"error: {missing}: is not set; the head of serve.sh says what it is\n"


@pytest.mark.parametrize("missing", ["database-password", "admin-password", "session-key"])
def test_a_secret_that_is_missing_is_one_line(home, tmp_path, stand_in, missing):
    (home / "secrets" / missing).write_text("")
    settings = told()["Kubernetes"] | {"MLFLOW_SECRETS": str(home / "secrets")}
    said = said_by("serve.sh", "start", folder=tmp_path, **settings, **stand_in)
    assert said.returncode == 1
    assert said.stderr.startswith(f"error: {home / 'secrets' / missing}: is empty or not there for user ")
    assert len(said.stderr.splitlines()) == 1
    assert not (tmp_path / "words").exists()


@pytest.mark.parametrize(("words", "port"), [(("state",), 5000), (("state", "5123"), 5123)])
def test_one_person_is_served_on_this_machine_alone(tmp_path, stand_in, monkeypatch, words, port):
    said = said_by("one.sh", *words, folder=tmp_path, **stand_in)
    assert (said.returncode, said.stderr) == (0, "")
    options = server_options(words_of(tmp_path), environment_of(tmp_path), monkeypatch)
    assert (options["host"], options["port"], options["workers"]) == ("127.0.0.1", port, "1")
    assert options["backend_store_uri"] == f"sqlite:///{tmp_path}/state/mlflow.db"
    assert options["artifacts_destination"] == f"{tmp_path}/state/artifacts"
    assert options["app_name"] is None


# The page about them.


def test_the_page_names_every_file_and_no_other():
    page = (FOLDER / "README.md").read_text()
    named = set(re.findall(r"^\| `([\w./-]+)` \|", page.partition("\n## ")[0], re.M))
    there = {str(path.relative_to(FOLDER)) for path in TEXTS} - {"README.md", "Dockerfile.dockerignore"}
    assert named == there
    for path in re.findall(r"\b(?:deploy|docs|tests)/[\w./-]+\w", page):
        assert (ROOT / path).exists(), path
