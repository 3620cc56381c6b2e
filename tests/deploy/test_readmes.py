"""The pages of deploy/: they name the files that there are, and their commands parse."""

import re
import shlex

import pytest

from tests.deploy.manifests import MLFLOW, RAY, ROOT, training_arguments


@pytest.mark.parametrize("folder", [RAY, MLFLOW], ids=lambda folder: folder.name)
def test_readme_lists_every_file_of_its_folder_and_no_other(folder):
    page = (folder / "README.md").read_text()
    listed = set(re.findall(r"^\| `([\w./-]+)` \|", page.partition("\n## ")[0], re.M))
    files = {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert listed == {str(path.relative_to(folder)) for path in files} - {"README.md", "Dockerfile.dockerignore"}


@pytest.mark.parametrize("folder", [RAY, MLFLOW], ids=lambda folder: folder.name)
def test_paths_in_the_readme_exist(folder):
    for path in re.findall(r"\b(?:deploy|docs|tests)/[\w./-]+\w", (folder / "README.md").read_text()):
        assert (ROOT / path).exists(), path


def test_training_commands_of_the_ray_readme_parse_and_name_their_run():
    text = (RAY / "README.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"python -m ganseg_dist [^\n\"'`]+", text)
    submitted = re.findall(r"deploy/ray/slurm\.sh (\w[^\n`]+)", text)
    assert commands
    assert submitted
    for command in [*commands, *(f"python -m ganseg_dist train {words}" for words in submitted)]:
        assert training_arguments(shlex.split(command))["run_name"]
