"""Whatever a file holds, there is a job or a list of problems."""

import json

from hypothesis import given
from hypothesis import strategies as st
from jobs import HEAD, job, shuffling, stage

from crossdock.errors import JobFileError
from crossdock.jobfile.load import loads
from crossdock.jobfile.model import ShuffleJob

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
keys = st.text(max_size=3) | st.sampled_from(
    ["name", "stage", "files", "inputs", "output", "shuffle", "read", "split"]
)
trees = st.recursive(
    scalars, lambda t: st.lists(t, max_size=3) | st.dictionaries(keys, t, max_size=4)
)


def outcome(text: str) -> None:
    """A job, or problems that can be printed, a line each: nothing else ever."""
    try:
        assert isinstance(loads(text), ShuffleJob)
    except JobFileError as raised:
        error = raised
    else:
        return
    printed = str(error).encode().decode().splitlines()
    assert len(printed) - 1 == len(error.problems) > 0
    assert all(1 <= p.line <= text.count("\n") + 2 for p in error.problems)


@given(trees)
def test_any_spec(spec: object) -> None:
    document = {"apiVersion": "crossdock.dev/v1alpha1", "kind": "ShuffleJob", "spec": spec}
    outcome(json.dumps(document))


@given(trees, st.integers(0, 10))
def test_any_stage(tree: object, at: int) -> None:
    fields = ["name", "inputs", "parallelism", "plan", "retries", "podTemplate", "output"]
    good = {
        "name": "a",
        "parallelism": 1,
        "podTemplate": {"spec": {"containers": [{"command": ["a"]}]}},
        "output": {"files": "x"},
    }
    bad = good | {fields[at % len(fields)]: tree}
    spec = {"stages": [good | {"name": "z", "output": {"shuffle": {"partitions": 2}}}, bad]}
    head = {"apiVersion": "crossdock.dev/v1alpha1", "kind": "ShuffleJob", "metadata": {"name": "x"}}
    outcome(json.dumps(head | {"spec": spec}))


@given(st.text(max_size=60) | st.text("[]{}:,-&*!|>'\"%@ \n\tab<?#", max_size=60))
def test_any_text(text: str) -> None:
    outcome(text)
    outcome(f"{HEAD}spec: {text}")


@given(st.data())
def test_any_damage(data: st.DataObject) -> None:
    full = job(shuffling("a"), stage("b", "inputs: [{stage: a, split: true}]", "retries: 2"))
    at = data.draw(st.integers(0, len(full)))
    cut = data.draw(st.integers(0, 6))
    new = data.draw(st.text("[]{}:,-&*!|>'\"%@ \n\tabno01", max_size=4))
    outcome(full[:at] + new + full[at + cut :])
