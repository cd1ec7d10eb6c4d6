"""Sound job files become the model that they describe."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import HEAD, POD, job, shuffling, stage
from jobs import load as load_stages

from crossdock.errors import ConfigError
from crossdock.jobfile.load import load, loads
from crossdock.jobfile.model import (
    MIB,
    FilesInput,
    FilesOutput,
    PlanSettings,
    ShuffleJob,
    ShuffleOutput,
    Stage,
    StageInput,
)

FULL = """
apiVersion: crossdock.dev/v1alpha1
kind: ShuffleJob
metadata: {name: q3, labels: {team: data}}
spec:
  dataRoot: ./data
  activeDeadlineSeconds: 90
  stages:
  - name: orders
    inputs: [{files: orders/*.parquet}]
    parallelism: 3
    retries: 0
    plan: {targetTaskSize: 1Mi, skewFactor: 2.5, skewFloor: 7, maxTasks: 9}
    podTemplate:
      spec:
        containers:
        - image: crossdock
          command: [python, stages.py]
          args: [orders, --fast]
          env: [{name: A, value: b}, {name: EMPTY}, {name: A, value: c}]
          workingDir: sub
    output: {shuffle: {partitions: 16, compression: lz4}}
  - name: join
    inputs:
    - {stage: orders, split: true}
    - {stage: orders, name: small, read: All}
    - {files: customer/, name: raw}
    podTemplate: {spec: {containers: [{command: [./join]}]}}
    output: {files: s3://bucket/result}
"""


def test_every_field_arrives() -> None:
    loaded = loads(FULL)
    orders, join = loaded.stages
    assert loaded == ShuffleJob(
        name="q3",
        data_root="./data",
        active_deadline_seconds=90.0,
        stages=(
            Stage(
                name="orders",
                inputs=(FilesInput(name="files", files="orders/*.parquet"),),
                parallelism=3,
                retries=0,
                plan=PlanSettings(
                    target_task_bytes=MIB, skew_factor=2.5, skew_floor_bytes=7, max_tasks=9
                ),
                pod_template=orders.pod_template,
                output=ShuffleOutput(partitions=16, compression="lz4"),
            ),
            Stage(
                name="join",
                inputs=(
                    StageInput(name="orders", stage="orders", split=True),
                    StageInput(name="small", stage="orders", read_all=True),
                    FilesInput(name="raw", files="customer/"),
                ),
                pod_template=join.pod_template,
                output=FilesOutput(files="s3://bucket/result"),
            ),
        ),
    )
    container = orders.container
    assert container.command == ("python", "stages.py", "orders", "--fast")
    assert container.env == {"A": "c", "EMPTY": ""}
    assert container.working_dir == "sub"
    assert join.container.working_dir is None


def test_what_is_left_out_has_its_default() -> None:
    (only,) = load_stages(stage("only", "parallelism: 1")).stages
    assert only == Stage(
        name="only",
        parallelism=1,
        output=FilesOutput(files="out/only"),
        pod_template=only.pod_template,
    )
    assert (only.retries, only.inputs, only.plan) == (3, (), PlanSettings())


def test_stages_by_name_and_upstream() -> None:
    loaded = load_stages(
        shuffling("a"),
        shuffling("b"),
        stage("c", "inputs: [{stage: b}, {stage: a}, {stage: b, name: again, read: All}]"),
    )
    a, b, c = loaded.stages
    assert loaded.stage("b") is b
    assert loaded.upstream(c) == (a, b)
    assert loaded.upstream(a) == ()
    with pytest.raises(ConfigError, match=r"no stage 'd'.*a, b, c"):
        loaded.stage("d")


def test_other_documents_are_passed_over() -> None:
    text = job(stage("a", "parallelism: 1"))
    config = "apiVersion: v1\nkind: ConfigMap\ndata: {a: 1, a: 2, b: !odd c}\n"
    loaded = loads(f"{config}---\n---\n# nothing\n---\n{text}---\n{config}...\n")
    assert [s.name for s in loaded.stages] == ["a"]


def test_anchors_and_merges() -> None:
    text = job(
        stage("a", "parallelism: 1", pod=f"podTemplate: &pod {POD.partition(' ')[2]}"),
        stage("b", "<<: [{parallelism: 2, retries: 7}, {retries: 8}]", "parallelism: 3",
              pod="podTemplate: *pod"),
    )  # fmt: skip
    a, b = loads(text).stages
    assert (b.parallelism, b.retries) == (3, 7)
    assert b.pod_template == a.pod_template


def test_values_are_what_kubectl_reads() -> None:
    pod = (
        "podTemplate: {metadata: {annotations: {day: 2024-01-01, at: 1:30, eq: =, yes1: yes}},"
        " spec: {containers: [{command: [1:30, 2024-01-01, '1', \"no\", !!str 2]}]}}"
    )
    (only,) = load_stages(stage("a", "parallelism: 1", pod=pod)).stages
    assert only.container.command == ("1:30", "2024-01-01", "1", "no", "2")
    assert only.pod_template["metadata"] == {
        "annotations": {"day": "2024-01-01", "at": "1:30", "eq": "=", "yes1": True}
    }


def test_whole_numbers_may_have_a_point() -> None:
    (only,) = load_stages(stage("a", "parallelism: 2.0", "retries: 1.0")).stages
    assert (only.parallelism, only.retries) == (2, 1)
    assert type(only.parallelism) is type(only.retries) is int


def test_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("\ufeff" + job(stage("a", "parallelism: 1")), encoding="utf-8")
    assert load(path).name == load(str(path)).name == "job"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        load(tmp_path / "nowhere.yaml")
    big = tmp_path / "big.yaml"
    big.write_text(HEAD + "#" * 2**20)
    with pytest.raises(ConfigError, match="larger than 1048576"):
        load(big)


def test_json_is_yaml() -> None:
    document = {
        "apiVersion": "crossdock.dev/v1alpha1",
        "kind": "ShuffleJob",
        "metadata": {"name": "j"},
        "spec": {
            "stages": [
                {
                    "name": "a",
                    "parallelism": 1,
                    "podTemplate": {"spec": {"containers": [{"command": ["a"]}]}},
                    "output": {"files": "x"},
                }
            ]
        },
    }
    assert loads(json.dumps(document, indent=2)).stages[0].output == FilesOutput(files="x")


@given(st.integers(1, 1_000_000), st.integers(1, 100_000), st.text(min_size=1, max_size=20))
def test_numbers_and_texts_arrive(partitions: int, parallelism: int, argument: str) -> None:
    if "\0" in argument:
        return
    pod = f"podTemplate: {{spec: {{containers: [{{command: {json.dumps([argument])}}}]}}}}"
    output = f"{{shuffle: {{partitions: {partitions}}}}}"
    text = stage("a", f"parallelism: {parallelism}", output=output, pod=pod)
    (only,) = load_stages(text).stages
    assert only.output == ShuffleOutput(partitions=partitions)
    assert only.parallelism == parallelism
    assert only.container.command == (argument,)


def test_the_client_and_the_model_need_no_yaml() -> None:
    code = (
        "import sys, crossdock, crossdock.jobfile.model, crossdock.jobfile.advice, crossdock.cli\n"
        "assert not {'yaml', 'jsonschema', 'rich', 'pyarrow'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
