"""`$(NAME)` in a pod template is replaced as Kubernetes does."""

import pytest
from jobs import load, stage

from crossdock.jobfile.expansion import expand

VARIABLES = {"A": "a", "B": "$(A)", "EMPTY": "", "x.y-z": "dots"}
CASES = {
    "$(A)": "a",
    "-$(A)-$(A)$(EMPTY)-": "-a-a-",
    "$(B)": "$(A)",  # what was put in is not looked at again
    "$(x.y-z)": "dots",
    "$$(A)": "$(A)",
    "$$$(A)": "$a",
    "$$$$(A)": "$$(A)",
    "$$": "$",
    "$$A": "$A",
    "$A ${A} $ $(": "$A ${A} $ $(",
    "$(A": "$(A",
    "$(NONE) $()": "$(NONE) $()",
    "$(A $(A)": "$(A $(A)",
    "a$": "a$",
}


@pytest.mark.parametrize(("text", "expected"), CASES.items(), ids=list(CASES))
def test_references(text: str, expected: str) -> None:
    assert expand(text, VARIABLES) == expected


POD = """podTemplate:
      spec:
        containers:
        - name: task
          command: [python, "$(FULL)", "$(SECRET)"]
          args: ["$(JOB_COMPLETION_INDEX)", "$$(NAME)", "$(HOME)"]
          env:
          - {name: LATER, value: "$(NAME)"}
          - {name: NAME, value: first}
          - {name: SECRET, valueFrom: {secretKeyRef: {name: s, key: k}}}
          - {name: FULL, value: "$(NAME)-$$(NAME)"}
          - {name: NAME, value: "$(NAME)er"}"""


def test_a_variable_names_those_above_it_and_the_command_names_all() -> None:
    (only,) = load(stage("a", "parallelism: 1", pod=POD)).stages
    command, env = only.container.expanded({"JOB_COMPLETION_INDEX": "3"})
    assert env == {"LATER": "$(NAME)", "NAME": "firster", "FULL": "first-$(NAME)"}
    assert command == ["python", "first-$(NAME)", "$(SECRET)", "3", "$(NAME)", "$(HOME)"]
