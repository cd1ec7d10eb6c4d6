"""What a task sees of its job, from a stage file and its environment."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import crossdock
from crossdock.errors import ConfigError
from crossdock.stagefile import (
    ENV_ATTEMPT,
    ENV_INDEX,
    ENV_JOB_INDEX,
    ENV_POD_UID,
    ENV_STAGE_FILE,
    FilesSource,
    FilesTarget,
    Share,
    ShuffleSource,
    ShuffleTarget,
    StageFile,
    pack,
    unpack,
)
from crossdock.tasks import FilesOutput, ShuffleInput, ShuffleOutput, task
from crossdock.wire.names import U64_MAX
from harness import WorkerProcess

ENVIRONMENT = (
    *(ENV_ATTEMPT, ENV_INDEX, ENV_JOB_INDEX, ENV_POD_UID, ENV_STAGE_FILE),
    "CROSSDOCK_ENDPOINTS",
)


@pytest.fixture(autouse=True)
def _no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


def shuffle_source(name: str, **fields: object) -> ShuffleSource:
    given = {"shuffle": name, "partitions": 4, "winners": ((0, 7),), "view": "x", **fields}
    return ShuffleSource(name=name, **given)  # type: ignore[arg-type]


def stage_file(tmp_path: Path, **fields: object) -> StageFile:
    given: dict[str, object] = {
        "job": "job-1",
        "stage": "join",
        "inputs": (
            FilesSource(name="raw"),
            shuffle_source("left"),
            shuffle_source("right", read_all=True),
        ),
        "output": FilesTarget(directory=str(tmp_path / "attempts")),
        "shares": (
            Share(partitions=range(3), files={"raw": ("a", "b")}),
            Share(partitions=range(3, 4), maps=range(1), split="left"),
        ),
        **fields,
    }
    return StageFile(**given)  # type: ignore[arg-type]


@pytest.fixture
def as_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make this process task 1, attempt 5; return its stage file."""
    path = tmp_path / "join.json"
    path.write_bytes(stage_file(tmp_path).encode())
    monkeypatch.setenv(ENV_STAGE_FILE, str(path))
    monkeypatch.setenv(ENV_INDEX, "1")
    monkeypatch.setenv(ENV_ATTEMPT, "5")
    return path


def test_a_stage_file_says_the_same_when_it_is_read(tmp_path: Path) -> None:
    for output in (
        FilesTarget(directory="/x"),
        ShuffleTarget(shuffle="join", partitions=3, compression="lz4"),
    ):
        made = stage_file(tmp_path, output=output)
        assert StageFile.decode(made.encode(), what="it") == made


def test_outside_of_a_job_the_error_says_so() -> None:
    with pytest.raises(ConfigError, match="this process is no task of a staged job") as caught:
        crossdock.task()
    assert "crossdock run" in str(caught.value.hint)


@pytest.mark.usefixtures("as_task")
def test_a_task_knows_its_share(tmp_path: Path) -> None:
    with task() as found:
        assert (found.stage, found.index, found.attempt, found.count) == ("join", 1, 5, 2)
        assert found.job_uid == "job-1"
        assert found.files() == found.files("raw") == ()
        left, right = found.input("left"), found.input("right")
        assert (left.partitions, left.maps) == (range(3, 4), range(1))
        assert (right.partitions, right.maps) == (range(4), None)
        assert isinstance(found.output, FilesOutput)
        path = found.output.path(".csv")
        assert path == tmp_path / "attempts" / "1-5" / "part-00001.csv"
        assert path.parent.is_dir()
        with pytest.raises(ConfigError, match="is no part of a file name"):
            found.output.path("/../../etc/passwd")


@pytest.mark.usefixtures("as_task")
def test_the_index_of_a_pod_and_an_attempt_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV_INDEX)
    monkeypatch.delenv(ENV_ATTEMPT)
    monkeypatch.setenv(ENV_JOB_INDEX, "0")
    first, second = task(), task()
    assert first.index == 0
    assert first.files() == ("a", "b")
    assert first.attempt != second.attempt
    assert 0 <= first.attempt <= U64_MAX
    monkeypatch.setenv(ENV_INDEX, "1")  # ours counts where both are set
    assert task().index == 1


@pytest.mark.usefixtures("as_task")
@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        (ENV_INDEX, "2", "task 2 of stage 'join', which has 2"),
        (ENV_INDEX, "", "CROSSDOCK_TASK_INDEX=None is not a whole number"),
        (ENV_INDEX, "-1", "is not a whole number"),
        (ENV_INDEX, "²", "is not a whole number"),
        (ENV_ATTEMPT, str(U64_MAX + 1), "CROSSDOCK_TASK_ATTEMPT=.* is not a whole number"),
        (ENV_STAGE_FILE, "/nowhere/stage.json", "cannot read CROSSDOCK_STAGE_FILE"),
    ],
)
def test_an_environment_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=problem):
        task()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "is no stage file"),
        (b"{}", "is no stage file"),
        (b"[]", "is no stage file"),
        (b'{"version": 2}', "is of version 2, this crossdock reads 1"),
    ],
)
def test_a_file_that_is_no_stage_file(as_task: Path, text: bytes, problem: str) -> None:
    as_task.write_bytes(text)
    with pytest.raises(ConfigError, match=problem):
        task()


@pytest.mark.usefixtures("as_task")
@pytest.mark.parametrize("name", ["none", "raw", None])
def test_inputs_that_are_not_there_name_those_that_are(name: str | None) -> None:
    with pytest.raises(ConfigError, match=r"\['left', 'right'\]"):
        task().input(name)
    with pytest.raises(ConfigError, match=r"\['raw'\]"):
        task().files("left")


def test_a_view_that_is_not_what_was_planned_for_is_not_read(
    as_task: Path,
    tmp_path: Path,
    worker: WorkerProcess,
    job_uid: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CROSSDOCK_ENDPOINTS", worker.url)
    with worker.connect() as cluster, cluster.job(job_uid, owner="runner") as job:
        with job.shuffle("left", partitions=4).writer(map_id=0, attempt=7) as writer:
            writer.write(3, b"data")
        view = job.shuffle("left", partitions=4).view({0: 7})
        for planned in (view.id, "another"):
            made = stage_file(
                tmp_path,
                job=job_uid,
                inputs=(shuffle_source("left", view=planned),),
                output=ShuffleTarget(shuffle="join", partitions=1, compression="none"),
            )
            as_task.write_bytes(made.encode())
            with task() as found:
                source = found.input()
                assert isinstance(source, ShuffleInput)
                if planned == view.id:
                    assert [bytes(b.data) for b in source.read()] == [b"data"]
                    assert isinstance(found.output, ShuffleOutput)
                    with found.output.writer() as writer:
                        writer.write(0, b"joined")
                else:
                    with pytest.raises(crossdock.DataCorrupt, match="the runner planned for"):
                        list(source.read())
        assert job.shuffle("join", partitions=1).complete_attempts() == {1: 5}
        assert job.shuffle("join", partitions=1).complete_attempts(since=6) == {}


@given(data=st.binary(max_size=3000), part=st.integers(1, 500))
def test_a_stage_file_in_parts_is_whole_again(data: bytes, part: int) -> None:
    parts = pack(data, part_bytes=part)
    assert unpack({**parts, "..data": b"what a mounted directory has beside"}) == data
    assert max(map(len, parts.values())) <= part


def test_parts_that_are_missing_or_damaged_are_told() -> None:
    parts = pack(bytes(range(256)) * 4, part_bytes=100)
    with pytest.raises(ConfigError, match="missing"):
        unpack(dict(list(parts.items())[:-1]))
    with pytest.raises(ConfigError, match="damaged"):
        unpack({name: b"\0" + part for name, part in parts.items()})


def test_pods_of_one_try_write_under_attempts_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a pod: the file in parts in a directory, the index from Kubernetes."""
    directory = tmp_path / "stage"
    directory.mkdir()
    for name, data in pack(stage_file(tmp_path).encode(), part_bytes=64).items():
        (directory / name).write_bytes(data)
    monkeypatch.setenv(ENV_STAGE_FILE, str(directory))
    monkeypatch.setenv(ENV_JOB_INDEX, "1")
    monkeypatch.setenv(ENV_ATTEMPT, str(5 << 16))
    attempts = set()
    for uid in ("a", "b"):
        monkeypatch.setenv(ENV_POD_UID, uid)
        with task() as found:
            assert found.index == 1
            assert found.attempt >> 16 == 5
            attempts.add(found.attempt)
    assert len(attempts) == 2
