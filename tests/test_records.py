from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from ganseg_dist.records import Problem, first_problem, no_such_field


class Node(BaseModel):
    model_config = ConfigDict(extra="forbid")
    epochs: dict[str, int]

    @model_validator(mode="after")
    def _not_both(self) -> Any:
        if len(self.epochs) > 1:
            raise ValueError("epochs:\n take one")
        return self


def error_of(**values: Any) -> ValidationError:
    with pytest.raises(ValidationError) as raised:
        Node.model_validate(values)
    return raised.value


def test_first_problem_names_field_and_message_without_value():
    assert first_problem(error_of(epochs={"a": "secret"})) == (
        "epochs.a: Input should be a valid integer, unable to parse string as an integer"
    )
    assert first_problem(error_of(epochs={"\x1b": "x"})).startswith("epochs.\\x1b: ")


def test_first_problem_names_whole_for_model_error():
    error = error_of(epochs={"a": 1, "b": 2})
    assert first_problem(error) == "epochs: take one"
    assert first_problem(error, "file") == "file: epochs: take one"


def test_problem_first_has_field_kind_and_value():
    problem = Problem.first(error_of(epochs={}, epoch=3))
    assert (problem.field, problem.kind, problem.value) == ("epoch", "extra_forbidden", 3)


def test_no_such_field_suggests_close_field():
    assert no_such_field("epoch", ["epochs"], "take it out") == "epoch: no such field; did you mean epochs?"
    assert no_such_field("zzz", ["epochs"], "take it out") == "zzz: no such field; take it out"
