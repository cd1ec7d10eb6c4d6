"""Files that are no YAML, hold other things than one job, or are meant badly."""

from pathlib import Path

import pytest
from jobs import HEAD, job, problems, stage

from crossdock.errors import JobFileError
from crossdock.jobfile.load import load

ONE = "parallelism: 1"
GOOD = job(stage("a", ONE))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: has no document of kind ShuffleJob (begin with kind: ShuffleJob)"),
        ("---\n# nothing\n---\n", "1: has no document of kind ShuffleJob"),
        ("- a\n", "1: must be a mapping with apiVersion, kind, metadata, spec"),
        (f"{GOOD}---\njust text\n", "11: must be a mapping with apiVersion"),
        (f"{GOOD}---\na: 1\n", "11: kind: is missing (kind: ShuffleJob)"),
        (f"{GOOD}---\nKind: Pod\n", "11: kind: is missing (Kind is meant?)"),
        (GOOD.replace("Job\n", "job\n"), '1: kind: is "Shufflejob", and no document is'),
        ("a: 1\n---\nkind: Pod\n", '3: kind: is "Pod", and no document is a ShuffleJob (add one'),
        (f"{GOOD}---\n{GOOD}", "11: kind: is a second ShuffleJob (one file holds one job)"),
        (GOOD.replace("v1alpha1", "v1"), "1: apiVersion: must be crossdock.dev/v1alpha1, is"),
        (GOOD.replace("{name: job}", "job"), '3: metadata: must be a mapping, is "job"'),
        (f"{HEAD}spec: {{stages: []}}", "4: spec.stages: must have at least 1, has 0"),
        (f"{HEAD}sepc: {{}}", "4: sepc: is no field that is known (spec is meant?)"),
        (HEAD, "1: spec: is missing (What to do)"),
        (job(stage("a", ONE), spec="  activeDeadlineSeconds: 0\n"), "5: spec.active"),
        (f"{HEAD}\tspec: 1\n", "4: is no YAML: found character '\\t' that cannot start any"),
        (f"{HEAD}spec: a: b\n", "4: is no YAML: mapping values are not allowed here (quote a text"),
        (f"{HEAD}spec: [a\n", "5: is no YAML: "),
        (f"{HEAD}spec: *nowhere\n", "4: is no YAML: found undefined alias"),
        (f"{HEAD}spec: \a\n", "4: holds the character U+0007"),
        (f'{HEAD}spec: "\\UFFFFFFFF"\n', "4: is no YAML: an escaped character does not exist"),
        (f'{HEAD}spec: {{dataRoot: "\\ud800"}}\n', "4: spec.dataRoot: holds half of a surrogate"),
        (f"{HEAD}spec: {'[' * 60}", "4: is no YAML: more than 50 levels deep"),
        (f"{HEAD}spec: &a {{x: *a}}\n", "1: is too large, or holds itself"),
        (f"{HEAD}spec: &a {{<<: *a}}\n", "1: is too large, or holds itself"),
        (f"{HEAD}spec: !!int x\n", '4: spec: is "x", which is no int (quote it if it is text)'),
        (f"{HEAD}spec: !!bool x\n", '4: spec: is "x", which is no bool'),
    ],
)  # fmt: skip
def test_the_document(text: str, expected: str) -> None:
    found = problems(text)
    assert any(f.startswith(expected) for f in found), found


def test_aliases_do_not_blow_up() -> None:
    bomb = "".join(f"b{n}: &b{n} [{','.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 7))
    (found,) = problems(f"{HEAD}b0: &b0 [x]\n{bomb}")
    assert found.startswith("1: is too large")


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(GOOD.encode() + b"# caf\xe9\n")
    with pytest.raises(JobFileError, match=r"job.yaml:10: is not UTF-8"):
        load(path)
