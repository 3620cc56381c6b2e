"""The image, without an engine to build it: what its file says, and what its commands would do."""

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

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = {
    requirement.name: requirement.specifier
    for requirement in map(Requirement, (ROOT / "constraints.txt").read_text().split())
}


@pytest.fixture
def parsed(tmp_path):
    parser = DockerfileParser(path=str(tmp_path))
    parser.content = DOCKERFILE.read_text()
    return parser


@pytest.fixture
def steps(parsed):
    return [(step["instruction"], step["value"]) for step in parsed.structure]


def values(steps, instruction):
    return [value for name, value in steps if name == instruction]


def test_hadolint_finds_nothing():
    linted = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), DOCKERFILE], capture_output=True, text=True, timeout=30
    )
    assert linted.returncode == 0, linted.stdout


def test_hadolint_would_find_something(tmp_path):
    careless = tmp_path / "Dockerfile"
    careless.write_text(DOCKERFILE.read_text().replace("# hadolint ignore=DL3008\n", ""))
    linted = subprocess.run([Path(sys.executable).with_name("hadolint"), careless], capture_output=True, timeout=30)
    assert b"DL3008" in linted.stdout


def test_one_stage_on_a_base_pinned_to_a_patch_release(parsed):
    (base,) = parsed.parent_images
    image, tag = base.split(":")
    assert "/" not in image  # a platform team's own registry is given with --build-arg BASE
    assert re.fullmatch(r"3\.\d+\.\d+-slim-[a-z]+", tag)
    python = tag.split("-")[0]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    assert python.rsplit(".", 1)[0] == f"{sys.version_info.major}.{sys.version_info.minor}"  # what the suite runs on


def test_the_last_user_is_a_number_and_not_root(steps):
    user, group = values(steps, "USER")[-1].split(":")
    assert int(user) == int(group) == 1000
    after = steps[steps.index(("USER", "1000:1000")) + 1 :]
    assert not [name for name, _ in after if name in ("RUN", "COPY", "ADD", "USER")]


def test_nothing_but_the_shell_of_whoever_starts_it(steps):
    names = [name for name, _ in steps]
    assert "ENTRYPOINT" not in names  # KubeRay's `bash -c` would become its argument
    assert "HEALTHCHECK" not in names
    assert "No HEALTHCHECK:" in DOCKERFILE.read_text()


def test_home_is_told_to_rays_launcher(parsed):
    assert parsed.envs["HOME"] == "/home/ganseg"


def test_every_installation_is_held_to_the_constraints(steps):
    installing = [value for value in values(steps, "RUN") if "pip install" in value]
    assert len(installing) == 3
    assert all(value.count("pip install") == value.count("--constraint constraints.txt") for value in installing)


def ignored_by_docker(path: str) -> bool:
    """As .dockerignore is read: the last pattern that matches the path or a folder above it decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        expression = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{expression}(/.*)?", path):
            ignored = not line.startswith("!")
    return ignored


def copied(steps):
    return [source for value in values(steps, "COPY") for source in shlex.split(value)[:-1]]


def test_what_is_copied_is_there_and_not_ignored(steps):
    sources = copied(steps)
    assert {"constraints.txt", "pyproject.toml", PROJECT["readme"]} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored_by_docker(source), source


def test_every_package_is_copied(steps):
    include = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {pattern.removesuffix("*") for pattern in include} <= set(copied(steps))


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
def test_images_runs_and_history_stay_outside(path):
    assert ignored_by_docker(path)


def run_of(steps, words: str) -> str:
    (found,) = [value for value in values(steps, "RUN") if words in value]
    return re.sub(r"^(--mount=\S+\s+)+", "", found)


def installed_by(command: str, tmp_path: Path, **arguments: str) -> list[list[str]]:
    """The words of every pip that a RUN starts, in a folder as the image has it."""
    said = tmp_path / "pip.jsonl"
    pip = tmp_path / "bin" / "pip"
    pip.parent.mkdir(exist_ok=True)
    pip.write_text(
        f"#!{sys.executable}\nimport json, sys\nwith open({str(said)!r}, 'a') as file:\n"
        "    print(json.dumps(sys.argv[1:]), file=file)\n"
    )
    pip.chmod(0o755)
    for name in ("constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    path = os.pathsep.join([str(pip.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, env={"PATH": path, **arguments},
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [json.loads(line) for line in said.read_text().splitlines()]


@pytest.mark.parametrize(("device", "build"), [("cuda", ""), ("cpu", "+cpu")])
def test_each_device_asks_for_a_torch_that_the_constraints_allow(steps, tmp_path, device, build):
    ((*_, wanted),) = installed_by(run_of(steps, "$DEVICE"), tmp_path, DEVICE=device)
    requirement = Requirement(wanted)
    (pin,) = requirement.specifier
    assert (requirement.name, pin.version) == ("torch", f"2.13.0{build}")
    assert CONSTRAINTS["torch"].contains(pin.version)
    (own,) = [one for one in map(Requirement, PROJECT["dependencies"]) if one.name == "torch"]
    assert own.specifier.contains(pin.version)


def test_the_cpu_build_is_the_one_that_the_suite_runs_on(steps, tmp_path):
    if "+cpu" not in torch.__version__:
        pytest.skip(f"torch {torch.__version__} is no CPU build")
    ((*_, wanted),) = installed_by(run_of(steps, "$DEVICE"), tmp_path, DEVICE="cpu")
    assert wanted == f"torch=={torch.__version__}"


def test_another_device_is_refused_in_one_line(steps, tmp_path):
    with pytest.raises(RuntimeError, match=r"^error: DEVICE=tpu: is cuda or cpu\n$"):
        installed_by(run_of(steps, "$DEVICE"), tmp_path, DEVICE="tpu")


def test_what_is_needed_is_what_the_project_says(steps, tmp_path):
    (words,) = installed_by(run_of(steps, "tomllib"), tmp_path)
    needed = (tmp_path / words[words.index("--requirement") + 1]).read_text().splitlines()
    assert needed == PROJECT["dependencies"]


@pytest.mark.parametrize(("extras", "wanted"), [("", "."), ("gpu", ".[gpu]"), ("gpu,aws", ".[gpu,aws]")])
def test_extras_reach_pip_and_are_the_projects(steps, tmp_path, extras, wanted):
    ((*_, asked),) = installed_by(run_of(steps, "$EXTRAS"), tmp_path, EXTRAS=extras)
    assert asked == wanted
    assert set(filter(None, extras.split(","))) <= set(PROJECT["optional-dependencies"])


def test_the_arguments_have_the_defaults_that_the_tags_promise(parsed):
    defaults = dict(
        value.split("=", 1) for value in (s["value"] for s in parsed.structure if s["instruction"] == "ARG")
    )
    assert defaults == {"BASE": "python:3.11.14-slim-bookworm", "DEVICE": "cuda", "EXTRAS": "gpu"}
