"""The Dockerfiles, without an engine to build them: their linter, what they copy, and what their commands install."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.deploy.manifests import CONSTRAINTS, MLFLOW, PROJECT, RAY, ROOT, compose, mlflow_pods, only, ray_pods

DOCKERFILES = {"ganseg": ROOT / "deploy" / "docker" / "Dockerfile", "mlflow": MLFLOW / "Dockerfile"}


def parsed(image: str, folder: Path) -> DockerfileParser:
    parser = DockerfileParser(path=str(folder))
    parser.content = DOCKERFILES[image].read_text()
    return parser


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """(instruction, value) of each step, by image."""
    folder = tmp_path_factory.mktemp("dockerfile")
    return {
        image: [(step["instruction"], step["value"]) for step in parsed(image, folder).structure]
        for image in DOCKERFILES
    }


def values(steps, instruction):
    return [value for name, value in steps if name == instruction]


def defaults(steps) -> dict[str, str]:
    """The build arguments."""
    return dict(value.split("=", 1) for value in values(steps, "ARG"))


def copied(steps) -> list[str]:
    return [source for value in values(steps, "COPY") for source in shlex.split(value)[:-1]]


@pytest.mark.parametrize("file", DOCKERFILES.values(), ids=DOCKERFILES)
def test_hadolint_accepts_dockerfile(file):
    linter = Path(sys.executable).with_name("hadolint")
    linted = subprocess.run([linter, file], capture_output=True, text=True, timeout=30)
    assert linted.returncode == 0, linted.stdout


def test_images_share_one_base_of_the_suites_python_version(steps, tmp_path):
    (base,) = parsed("ganseg", tmp_path).parent_images
    image, tag = base.split(":")
    assert "/" not in image  # a platform team's own registry is given with --build-arg BASE
    assert re.fullmatch(r"3\.\d+\.\d+-slim-[a-z]+", tag)
    python = tag.split("-")[0]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    assert python.rsplit(".", 1)[0] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert defaults(steps["mlflow"])["BASE"] == base


@pytest.mark.parametrize("image", DOCKERFILES)
def test_image_runs_as_user_1000_and_changes_no_file_after_that(steps, image):
    assert values(steps[image], "USER") == ["1000:1000"]  # a number: Kubernetes cannot resolve a name
    after = steps[image][steps[image].index(("USER", "1000:1000")) + 1 :]
    assert not [name for name, _ in after if name in ("RUN", "COPY", "ADD")]


@pytest.mark.parametrize("image", DOCKERFILES)
def test_image_has_no_entrypoint(steps, image):
    assert values(steps[image], "ENTRYPOINT") == []


@pytest.mark.parametrize("image", DOCKERFILES)
def test_every_pip_install_is_constrained(steps, image):
    installing = [value for value in values(steps[image], "RUN") if "pip install" in value]
    assert installing
    assert all(value.count("pip install") == value.count("--constraint constraints.txt") for value in installing)


# Names of the images in manifests.


def test_ray_manifests_use_one_image_of_this_version_and_the_default_device(steps):
    images = {container["image"] for pod in ray_pods().values() for container in pod["spec"]["containers"]}
    images.add(only(RAY / "cluster.yaml")["docker"]["image"])
    image = f"ganseg-dist:{PROJECT['version']}-{defaults(steps['ganseg'])['DEVICE']}"
    assert images == {image}
    assert f"--tag {image} ." in DOCKERFILES["ganseg"].read_text()


def test_mlflow_manifests_use_one_image_of_the_clients_mlflow():
    images = {container["image"] for pod in mlflow_pods().values() for container in pod["spec"]["containers"]}
    images |= {compose()["services"][name]["image"] for name in ("server", "bucket")}
    image = f"ganseg-mlflow:{CONSTRAINTS['mlflow']}"
    assert images == {image}
    for file in ("Dockerfile", "README.md"):
        assert f"docker build --file deploy/mlflow/Dockerfile --tag {image} ." in (MLFLOW / file).read_text()


# What is copied.


def ignored_by_docker(path: str, ignorefile: Path) -> bool:
    """By the last pattern that matches the path or a folder above it."""
    ignored = False
    for line in ignorefile.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        expression = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{expression}(/.*)?", path):
            ignored = not line.startswith("!")
    return ignored


@pytest.mark.parametrize(
    ("image", "ignorefile"), [("ganseg", ".dockerignore"), ("mlflow", "deploy/mlflow/Dockerfile.dockerignore")]
)
def test_copied_files_exist_and_are_not_ignored(steps, image, ignorefile):
    sources = copied(steps[image])
    assert {"constraints.txt", "pyproject.toml"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored_by_docker(source, ROOT / ignorefile), source


def test_ganseg_image_copies_every_package_and_the_readme(steps):
    include = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {pattern.removesuffix("*") for pattern in include} | {PROJECT["readme"]} <= set(copied(steps["ganseg"]))


@pytest.mark.parametrize(
    "path",
    [
        "runs/first/model/card.md",
        "demo/cohort/a.nii.gz",
        ".git/config",
        ".venv/bin/python",
        "clients/__pycache__/a.pyc",
    ],
)
def test_images_of_patients_runs_and_history_are_ignored(path):
    assert ignored_by_docker(path, ROOT / ".dockerignore")


def test_commands_of_mlflow_containers_are_in_the_image(steps):
    (folder,) = values(steps["mlflow"], "WORKDIR")
    commands = [pod["spec"]["containers"][0]["args"][0] for pod in mlflow_pods().values()]
    commands += [compose()["services"]["bucket"]["command"][1], json.loads(values(steps["mlflow"], "CMD")[0])[0]]
    for command in commands:
        assert f"deploy/mlflow/{Path(command).relative_to(folder)}" in copied(steps["mlflow"]), command


# What is installed.


def pip_commands(steps, words: str, folder: Path, **arguments: str) -> list[list[str]]:
    """The arguments of each `pip` of the RUN with these words, started with a stand-in in a folder like the image's."""
    (command,) = [value for value in values(steps, "RUN") if words in value]
    calls = folder / "pip.jsonl"
    pip = folder / "bin" / "pip"
    pip.parent.mkdir(exist_ok=True)
    pip.write_text(
        f"#!{sys.executable} -S\nimport json, sys\nwith open({str(calls)!r}, 'a') as file:\n"
        "    print(json.dumps(sys.argv[1:]), file=file)\n"
    )
    pip.chmod(0o755)
    for name in ("constraints.txt", "pyproject.toml"):
        (folder / name).write_text((ROOT / name).read_text())
    path = os.pathsep.join([str(pip.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["/bin/sh", "-c", re.sub(r"^(--mount=\S+\s+)+", "", command)], cwd=folder, env={"PATH": path, **arguments},
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [json.loads(line) for line in calls.read_text().splitlines()]


@pytest.mark.parametrize(("device", "build"), [("cuda", ""), ("cpu", "+cpu")])
def test_ganseg_image_installs_the_constrained_torch_of_its_device(steps, tmp_path, device, build):
    ((*_, wanted),) = pip_commands(steps["ganseg"], "$DEVICE", tmp_path, DEVICE=device)
    assert wanted == f"torch=={CONSTRAINTS['torch']}{build}"
    (own,) = [one for one in map(Requirement, PROJECT["dependencies"]) if one.name == "torch"]
    assert own.specifier.contains(CONSTRAINTS["torch"])
    if "+cpu" in torch.__version__ and device == "cpu":
        assert wanted == f"torch=={torch.__version__}"


def test_ganseg_image_rejects_an_unknown_device(steps, tmp_path):
    with pytest.raises(RuntimeError, match=r"^error: DEVICE=tpu: is cuda or cpu\n$"):
        pip_commands(steps["ganseg"], "$DEVICE", tmp_path, DEVICE="tpu")


def test_ganseg_image_installs_the_projects_dependencies(steps, tmp_path):
    (words,) = pip_commands(steps["ganseg"], "tomllib", tmp_path)
    needed = (tmp_path / words[words.index("--requirement") + 1]).read_text().splitlines()
    assert needed == PROJECT["dependencies"]


@pytest.mark.parametrize(("extras", "wanted"), [("", "."), ("gpu", ".[gpu]"), ("gpu,aws", ".[gpu,aws]")])
def test_ganseg_image_installs_the_extras_of_its_build_argument(steps, tmp_path, extras, wanted):
    ((*_, requirement),) = pip_commands(steps["ganseg"], "$EXTRAS", tmp_path, EXTRAS=extras)
    assert requirement == wanted
    for names in (extras, defaults(steps["ganseg"])["EXTRAS"]):
        assert set(filter(None, names.split(","))) <= set(PROJECT["optional-dependencies"])


def test_mlflow_image_installs_the_servers_extra_with_the_clients_mlflow(steps, tmp_path):
    (words,) = pip_commands(steps["mlflow"], "pip install", tmp_path)
    needed = (tmp_path / words[words.index("--requirement") + 1]).read_text().splitlines()
    assert needed == PROJECT["optional-dependencies"]["mlflow-server"]
    server = {requirement.name: requirement.specifier for requirement in map(Requirement, needed)}
    for name, specifier in server.items():
        assert specifier.contains(CONSTRAINTS[name]), name
    (client,) = [one for one in map(Requirement, PROJECT["dependencies"]) if one.name == "mlflow"]
    assert server["mlflow"] == client.specifier
