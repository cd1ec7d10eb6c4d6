"""Everything that is wrong with a job file is told at once: line, field, what, remedy."""

import json

import pytest
from jobs import HEAD, POD, job, problems, shuffling, stage

from crossdock.errors import ConfigError, JobFileError
from crossdock.jobfile.explain import PATTERNS, fields
from crossdock.jobfile.load import loads, schema_text

ONE = "parallelism: 1"
GOOD = job(stage("a", ONE))


def test_the_error_has_a_line_for_each_problem() -> None:
    text = job(stage("a", ONE, "retires: 1"), stage("b", "parallelism: 0"))
    with pytest.raises(JobFileError) as caught:
        loads(text, source="dir/job.yaml")
    assert str(caught.value).splitlines() == [
        "2 problems in dir/job.yaml",
        "dir/job.yaml:8: spec.stages[0].retires: is no field that is known (retries is meant?)",
        "dir/job.yaml:12: spec.stages[1].parallelism: must be at least 1, is 0",
    ]
    assert isinstance(caught.value, ConfigError)
    assert caught.value.code == "config"
    first = caught.value.problems[0]
    assert (first.file, first.line, first.field) == ("dir/job.yaml", 8, "spec.stages[0].retires")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("name: b", ".name: is given twice, in line 6 already (remove one)"),
        ("retires: 1", ".retires: is no field that is known (retries is meant?)"),
        (
            "compression: zstd",
            ".compression: is no field that is known (it belongs to spec.stages[].output.shuffle)",
        ),
        (
            "zzz: 1",
            (
                ".zzz: is no field that is known (spec.stages[0] has name, inputs,"
                " parallelism, plan, retries, podTemplate, output)"
            ),
        ),
        ("retries: -1", ".retries: must be at least 0, is -1"),
        ("retries: 101", ".retries: must be at most 100, is 101"),
        ("retries: 1.5", ".retries: must be a whole number, is 1.5"),
        ("retries: yes", ".retries: must be a whole number, is true"),
        ("retries:", ".retries: is empty (it must be a whole number)"),
        (
            'retries: "3"',
            '.retries: must be a whole number, is "3" (write the number without quotes)',
        ),
        (
            "inputs: a.csv",
            '.inputs: must be a list, is "a.csv" ([a, b], or a line with - for each item)',
        ),
        ("inputs: [{name: a}]", ".inputs[0]: needs files or stage"),
        (
            "inputs: [{file: a}]",
            ".inputs[0].file: is no field that is known (files is meant?)",
        ),
        (
            "inputs: [{files: 2024}]",
            '.inputs[0].files: must be text, and YAML reads 2024 as 2024 (quote it: "2024")',
        ),
        (
            'inputs: [{files: "a\\0"}]',
            '.inputs[0].files: must not be empty, and have no NUL, is "a\\u0000"',
        ),
        (
            "inputs: [{files: a, read: All}]",
            ".inputs[0].read: is for shuffles only (files are shared out whole)",
        ),
        (
            "inputs: [{files: a, stage: b}]",
            ".inputs[0]: has files and stage (exactly one of files, stage)",
        ),
        (
            "inputs: [{files: a}, {files: b}]",
            (
                '.inputs[1].name: is "files" for an earlier input too'
                " (names of a stage's inputs are unique: give this one a name)"
            ),
        ),
        (
            "plan: {skewFactor: 0.5}",
            ".plan.skewFactor: must be at least 1, is 0.5",
        ),
        (
            "plan: {skewFloor: 1500m}",
            ".plan.skewFloor: 1500m is in thousandths of a byte (M or Mi is meant?)",
        ),
        (
            "plan: {targetTaskSize: 64MB}",
            ".plan.targetTaskSize: '64MB' has no unit that is known (M or Mi is meant?)",
        ),
        (
            "plan: {targetTaskSize: no}",
            (
                ".plan.targetTaskSize: must be a whole number or text, and YAML reads"
                ' no as false (quote it: "no")'
            ),
        ),
        ("plan: {maxTasks: .inf}", ".plan.maxTasks: is .inf (numbers are finite)"),
        ("on: 1", ': has the key on, which YAML reads as true (quote it: "on")'),
        ("? [a]\n    : b", ": has a key that is no text"),
        ("retries: !big 3", ".retries: has the tag !big (job files need no tags)"),
        ("<<: 3", ": << merges mappings, and this is none (<<: *anchor)"),
    ],
)
def test_a_line_that_is_wrong(line: str, expected: str) -> None:
    found = problems(job(stage("a", line, ONE)))
    assert f"7: spec.stages[0]{expected}" in found


@pytest.mark.parametrize(
    ("parallelism", "expected"),
    [
        ('"8"', 'must be auto or a number of tasks, is "8" (write the number without quotes)'),
        ("Auto", 'must be auto or a number of tasks, is "Auto"'),
        ("0", "must be at least 1, is 0"),
        ("on", 'must be a whole number or text, and YAML reads on as true (quote it: "on")'),
        ("auto", "must be a number in a stage without inputs (how many tasks shall there be?)"),
    ],
)
def test_parallelism(parallelism: str, expected: str) -> None:
    found = problems(job(stage("a", f"parallelism: {parallelism}")))
    assert found == [f"7: spec.stages[0].parallelism: {expected}"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("No", 'must be text, and YAML reads No as false (quote it: "No")'),
        ("A", f'{PATTERNS["^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"]}, is "A"'),
        ('"a\\n"', f'{PATTERNS["^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"]}, is "a\\n"'),
        ("a" * 64, f'must have at most 63 characters, is "{"a" * 59}…'),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert problems(job(stage(name, ONE, output="{files: o}"))) == [
        f"6: spec.stages[0].name: {expected}"
    ]


def test_what_is_missing_has_the_line_of_what_it_is_missing_from() -> None:
    text = f"{HEAD}spec:\n  stages:\n  - retries: 1\n    parallelism: 1\n    {POD}\n"
    assert problems(text) == [
        (
            "6: spec.stages[0].name: is missing (The stage's name, once in a job: up to 63 of"
            " a-z 0-9 -, with a letter or digit at both ends)"
        ),
        "6: spec.stages[0].output: is missing (What the stage makes: a shuffle or files)",
    ]
    assert problems(GOOD.replace("{name: job}", "{nmae: job}")) == [
        "3: metadata.name: is missing (nmae is meant?)"
    ]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("{}", ": needs shuffle or files"),
        (
            "{files: a, shuffle: {partitions: 1}}",
            ": has shuffle and files (exactly one of shuffle,",
        ),
        ("{shufle: {partitions: 1}}", ".shufle: is no field that is known (shuffle is meant?)"),
        ("{shuffle: {}}", ".shuffle.partitions: is missing (Number of partitions)"),
        ("{shuffle: {partitions: 0}}", ".shuffle.partitions: must be at least 1, is 0"),
        (
            "{shuffle: {partitions: 1, compression: off}}",
            '.shuffle.compression: must be text, and YAML reads off as false (quote it: "off")',
        ),
        (
            "{shuffle: {partitions: 1, compression: ZSTD}}",
            '.shuffle.compression: must be zstd, lz4 or none, is "ZSTD" (zstd is meant?)',
        ),
        ("{files: ''}", '.files: must not be empty, and have no NUL, is ""'),
        ("result", '.output: must be a mapping, is "result"'),
    ],
)
def test_output(output: str, expected: str) -> None:
    (found,) = problems(job(stage("a", ONE, output=output)))
    assert found.startswith("9: spec.stages[0].output")
    assert expected in found


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ("{}", ".command: names no program (a process has no image to know it from)"),
        ("{command: []}", ".command: names no program"),
        ("{command: ['']}", ".command: names no program"),
        ("{args: [x]}", ".command: names no program"),
        ("{command: [a, 1]}", '.command[1]: must be text, and YAML reads 1 as 1 (quote it: "1")'),
        ("{command: a b}", '.command: must be a list, is "a b" ([a, b], or'),
        ("{command: [a], env: [{name: A, value: 1.0}]}", ".env[0].value: must be text, and YAML"),
        ("{command: [a], env: [{value: b}]}", ".env[0].name: is missing (Name of the variable)"),
        ("{command: [a], env: [{name: A=B}]}", ".env[0].name: must not be empty, and have no ="),
        ("{command: [a], env: {A: b}}", ".env: must be a list, is a mapping"),
    ],
)
def test_the_container(container: str, expected: str) -> None:
    pod = f"podTemplate: {{spec: {{containers: [{container}]}}}}"
    (found,) = problems(job(stage("a", ONE, pod=pod)))
    assert found.startswith(f"8: spec.stages[0].podTemplate.spec.containers[0]{expected}")


def test_a_pod_without_containers() -> None:
    (found,) = problems(job(stage("a", ONE, pod="podTemplate: {spec: {containers: []}}")))
    assert found.startswith("8: spec.stages[0].podTemplate.spec.containers: must have at least 1")


READER = "spec.stages[2].inputs"


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("[{stage: aa}]", "[0].stage: names aa, and no stage is called so (a is meant?)"),
        (
            "[{stage: zz}]",
            "[0].stage: names zz, and no stage is called so (earlier shuffles: a, b)",
        ),
        ("[{stage: c}]", "[0].stage: is the stage itself (name an earlier stage)"),
        (
            "[{stage: d}]",
            "[0].stage: names the stage d, which comes later (move it before this one:",
        ),
        (
            "[{stage: a}, {stage: b}]",
            "[1].stage: has 5 partitions, and a has 4 (tasks read the same",
        ),
        ("[{stage: a}, {stage: a}]", '[1].name: is "a" for an earlier input too'),
        ("[{stage: a, split: true, read: All}]", "[0].split: does not go with read: All"),
        (
            "[{stage: a, split: true}, {stage: a, name: x, split: true}]",
            "[1].split: is true for inputs[0] too (one input of a stage can be split)",
        ),
        (
            "[{stage: a, read: all}]",
            '[0].read: must be Partitions or All, is "all" (All is meant?)',
        ),
        ("[{stage: a, split: 'no'}]", '[0].split: must be true or false, is "no"'),
    ],
)
def test_inputs_from_stages(inputs: str, expected: str) -> None:
    text = job(
        shuffling("a"),
        shuffling("b", partitions=5),
        shuffling("c", f"inputs: {inputs}", ONE),
        shuffling("d"),
    )
    (found,) = problems(text)
    assert found.startswith(f"15: {READER}{expected}")


def test_reading_a_stage_without_a_shuffle() -> None:
    (found,) = problems(job(stage("a", ONE), stage("b", "inputs: [{stage: a}]")))
    assert found == (
        "11: spec.stages[1].inputs[0].stage: names the stage a, which has no shuffle"
        " (give it output.shuffle, or read what it wrote as files)"
    )


def test_different_partitions_go_together_when_one_is_read_whole() -> None:
    inputs = "inputs: [{stage: a}, {stage: b, read: All}]"
    assert loads(job(shuffling("a"), shuffling("b", partitions=5), stage("c", inputs)))


def test_auto_needs_an_input_that_is_shared_out() -> None:
    (found,) = problems(job(shuffling("a"), stage("b", "inputs: [{stage: a, read: All}]")))
    assert found.startswith("10: spec.stages[1].parallelism: must be a number where all inputs")
    assert loads(job(shuffling("a"), stage("b", "inputs: [{stage: a, read: All}, {files: x}]")))


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("out", "out/", True),
        ("./out", "out/part/..", True),
        ("out", "out/part", True),
        (".", "out", True),
        ("out", "outer", False),
        ("other/../out", "out", True),
        ("s3://b/x/", "s3://b/x", True),
        ("s3://b/x", "s3://b/y", False),
    ],
)
def test_outputs_are_apart(one: str, other: str, clash: bool) -> None:
    text = job(
        stage("a", ONE, output=f"{{files: {one}}}"), stage("b", ONE, output=f"{{files: {other}}}")
    )
    if clash:
        (found,) = problems(text)
        assert found.startswith("13: spec.stages[1].output.files: is, or lies in, or holds")
    else:
        assert loads(text)


def test_stage_names_are_unique() -> None:
    (found,) = problems(job(shuffling("a"), shuffling("a"), stage("c", "inputs: [{stage: a}]")))
    assert found == "10: spec.stages[1].name: is that of stages[0] too (names are unique)"


def test_no_follow_ups_of_a_stage_that_is_wrong_itself() -> None:
    text = job(shuffling("a").replace("4}", "four}"), stage("b", "inputs: [{stage: a}]"))
    (found,) = problems(text)
    assert found.startswith("9: spec.stages[0].output.shuffle.partitions: must be a whole number")
    text = job(stage("a", ONE, output="{}"), stage("b", "inputs: [{stage: a}]"))
    assert problems(text) == ["9: spec.stages[0].output: needs shuffle or files"]


def test_a_misspelt_field_is_one_problem() -> None:
    (found,) = problems(GOOD.replace("output:", "ouput:"))
    assert found == "9: spec.stages[0].ouput: is no field that is known (output is meant?)"


def test_a_problem_stands_where_its_field_begins() -> None:
    (found,) = problems(GOOD.replace("output: ", "output:\n\n      ").replace("files", "fles"))
    assert found.startswith("11: spec.stages[0].output.fles: is no field that is known")
    (found,) = problems(GOOD.replace("output: {files: out/a}", "output:\n\n      {}"))
    assert found.startswith("9: spec.stages[0].output: needs")


def test_a_problem_is_one_line_whatever_names_hold() -> None:
    found = problems(job(stage("a", 'inputs: [{stage: "b\\n\\e[1m"}]', ONE)))
    assert any("names b\\n\\x1b[1m, and no stage is called so" in f for f in found), found


def test_every_pattern_of_the_schema_is_explained() -> None:
    used = {str(f["pattern"]) for _, f in fields(json.loads(schema_text())) if "pattern" in f}
    nested = {
        str(items["pattern"])
        for _, f in fields(json.loads(schema_text()))
        if isinstance(items := f.get("items"), dict) and "pattern" in items
    }
    quantity = {p for p in used if "KMGTPE" in p}
    assert (used | nested) - quantity == set(PATTERNS)


def test_a_file_with_many_mistakes_tells_them_all_by_line() -> None:
    text = job(
        stage("A", "parallelism: x", "retries: no", output="{}"),
        stage("b", "inputs: [{stage: c, raed: All}]", output="{shuffle: {}}"),
        spec="  dataroot: x\n",
    )
    found = problems(text)
    lines = [int(f.partition(":")[0]) for f in found]
    assert lines == sorted(lines) == [5, 7, 8, 9, 11, 13, 13, 15]
