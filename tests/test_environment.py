import os

import pytest

from ganseg_dist.environment import environment


def test_environment_restores_variables_after_error(monkeypatch):
    monkeypatch.setenv("GANSEG_THERE", "before")
    monkeypatch.setenv("GANSEG_GONE", "before")
    monkeypatch.delenv("GANSEG_NEW", raising=False)
    inside = {"GANSEG_THERE": "inside", "GANSEG_GONE": None, "GANSEG_NEW": "inside"}

    def fail_inside() -> None:
        with environment(inside):
            assert {name: os.environ.get(name) for name in inside} == inside
            raise ValueError("as expected")

    with pytest.raises(ValueError, match="as expected"):
        fail_inside()
    assert os.environ["GANSEG_THERE"] == os.environ["GANSEG_GONE"] == "before"
    assert "GANSEG_NEW" not in os.environ
