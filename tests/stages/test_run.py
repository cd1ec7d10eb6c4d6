"""`crossdock run`, with tasks that are processes."""

import re
from contextlib import suppress
from pathlib import Path

import psutil
from runs import PARTITIONS, JobDirectory, maps, reduces

INDEX = "CROSSDOCK_TASK_INDEX"


def environment(process: psutil.Process) -> dict[str, str]:
    """Return a process's environment; none of one that has ended meanwhile."""
    with suppress(psutil.Error):
        return process.environ()
    return {}


def test_a_job_leaves_its_result_and_nothing_else(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path, maps(3), reduces(2))
    run = job.finish()
    job.check_result()
    job.check_clean("result")
    assert sorted(p.name for p in job.result.iterdir()) == [
        "_SUCCESS",
        "part-00000.txt",
        "part-00001.txt",
    ]
    assert re.search(r"^map: 3/3 tasks, .* out", run.err, re.MULTILINE), run.err
    assert "\x1b" not in run.out + run.err, "escape codes, and nobody has a terminal"
    rows = {line.split()[0]: line.split() for line in run.out.splitlines()}
    assert rows["map"][1:3] == ["3", "3"]
    assert rows["reduce"][1:3] == ["2", "2"]
    assert rows["stage"][-1] == "seconds"
    assert f"result in {job.result}" in run.out
    assert set(job.starts().values()) == {1}


def test_a_task_that_fails_too_often_is_shown_and_nothing_is_left(tmp_path: Path) -> None:
    failing = 'i=1; while [ $i -le 40 ]; do echo "line $i"; i=$((i+1)); done; exit 7'
    job = JobDirectory(
        tmp_path, maps(1, "sh", "-c", failing, retries=1), reduces(1, "sh", "-c", "exit 0")
    )
    run = job.finish(code=1)
    assert "task 0 of stage map failed 2 times, last in attempt 1: exit code 7" in run.err
    shown = [line for line in run.err.splitlines() if line.startswith("  | ")]
    assert shown[:3] == [f"  | line {i}" for i in range(38, 41)], "of the first try"
    assert shown[3:] == [f"  | line {i}" for i in range(21, 41)]
    job.check_clean()
    assert re.search(r"^map +0/1 +2 ", run.out, re.MULTILINE), run.out


def test_tasks_that_fail_and_die_are_tried_again_and_the_result_is_the_winners(
    tmp_path: Path,
) -> None:
    job = JobDirectory(tmp_path, maps(3, retries=2), reduces(2))
    job.fail("map-1", 2)  # after its output was written and committed
    job.fail("reduce-0", 1)  # writes part-00000.1.txt, then part-00000.2.txt
    job.hold("map-2")
    # Without `--preload`, so that the system knows each task's environment.
    with job.run("--json", "--preload", "") as run:
        job.until("the start of a task", lambda: job.starts()["map-2"])
        before = job.starts()
        [victim] = [p for p in run.find("task.py") if environment(p).get(INDEX) == "2"]
        victim.kill()
        job.until("another try", lambda: job.starts()["map-2"] > before["map-2"])
        job.release("map-2")
        run.wait()
    job.check_result()
    job.check_clean("result")
    assert job.starts()["map-1"] == 3
    assert {p.name for p in job.result.iterdir()} == {
        "_SUCCESS",
        "part-00000.2.txt",
        "part-00001.txt",
    }
    *before_the_end, result = run.json_lines()
    notes = [line["message"] for line in before_the_end if line["event"] != "progress"]
    log = "\n  | about to fail {0}\n  | last words {0}"
    assert sorted(re.sub(r"attempt \d+", "attempt N", note) for note in notes) == [
        "task 0 of stage reduce: attempt N failed: exit code 7" + log.format("reduce-0"),
        *["task 1 of stage map: attempt N failed: exit code 7" + log.format("map-1")] * 2,
        "task 2 of stage map: attempt N failed: killed by SIGKILL",
    ]
    assert result["event"] == "result"
    assert result["succeeded"] is True
    assert [s["attempts"] for s in result["stages"]] == [6, 3]
    assert run.err == ""


def test_a_failure_for_machines_and_logs_that_are_kept(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path, maps(1, retries=0), reduces(1))
    job.fail("map-0", 1)
    run = job.finish("--json", "--keep-logs", tmp_path / "logs", code=1)
    result = run.json_lines()[-1]
    assert result["succeeded"] is False
    assert result["task"] == {"stage": "map", "index": 0, "attempt": 0}
    assert result["log"][-2:] == ["about to fail map-0", "last words map-0"]
    assert sorted(p.name for p in (tmp_path / "logs").iterdir()) == ["map-0-0.log", "worker.log"]
    job.check_clean()


def test_inputs_of_all_kinds_and_numbers_of_tasks(tmp_path: Path) -> None:
    job = JobDirectory(
        tmp_path,
        maps(inputs=[{"files": "in/*.txt"}], parallelism=2),
        maps(
            name="auto",
            inputs=[{"files": "in", "name": "raw"}],
            plan={"targetTaskSize": "4"},
            parallelism="auto",
        ),
        reduces(
            inputs=[{"stage": "map", "read": "All"}, {"stage": "auto"}],
            parallelism="auto",
            plan={"targetTaskSize": "1"},
        ),
    )
    (job.path / "in").mkdir()
    for name in "abc":
        (job.path / "in" / f"{name}.txt").write_text(f"{name} 1")
    for name in ("map", "auto"):
        (job.control / f"show-{name}").touch()
    job.finish("--slots", 3)
    job.check_clean("result", "in")
    assert job.starts().keys() == {
        *("map-0", "map-1"),
        *("auto-0", "auto-1", "auto-2"),  # three bytes each, and four are a task
        *(f"reduce-{i}" for i in range(PARTITIONS)),
    }
    whole = {f"{p} map {m}" for p in range(PARTITIONS) for m in range(2)}
    for i in range(PARTITIONS):
        lines = (job.result / f"part-{i:05d}.txt").read_text().splitlines()
        mapped = [line for line in lines if " map " in line]
        assert {" ".join(line.split()[:3]) for line in mapped} == whole
        shared = [line.rpartition(" same ")[2] for line in mapped[:2]]
        assert sorted("+".join(shared).split("+")) == ["a 1", "b 1", "c 1"]
        own = [line for line in lines if " auto " in line]
        assert own == [f"{i} auto {m} same {name} 1" for m, name in enumerate("abc")]


def test_what_is_wrong_from_the_start_runs_nothing_and_touches_nothing(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path, maps(1, inputs=[{"files": "none/*.txt"}]), reduces(1))
    run = job.finish(code=2)
    assert "no file matches 'none/*.txt'" in run.err
    job.check_clean()
    job.result.mkdir()
    (job.result / "precious").write_text("x")
    run = job.finish(code=2)
    assert re.search(r"output .*result is not empty", run.err)
    assert [p.name for p in job.result.iterdir()] == ["precious"]
    job.check_clean("result")
    run = job.finish("--data-root", tmp_path / "nowhere", code=2)
    assert "is no directory" in run.err
    run = job.finish("--resume", tmp_path / "nowhere", job=False, code=2)
    assert "no run to go on with" in run.err
    assert job.starts() == {}


def test_overwrite_replaces_what_was_there_only_in_the_end(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path, maps(1), reduces(1, retries=0))
    job.result.mkdir()
    (job.result / "old").write_text("x")
    job.fail("reduce-0", 1)
    job.finish("--overwrite", code=1)
    assert [p.name for p in job.result.iterdir()] == ["old"]
    job.check_clean("result")
    job.finish("--overwrite")
    assert {p.name for p in job.result.iterdir()} == {"_SUCCESS", "part-00000.2.txt"}
    job.check_clean("result")


def test_a_job_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    job = JobDirectory(
        tmp_path,
        maps(1, "sh", "-c", "trap '' TERM; sleep 1000 & wait"),
        reduces(1),
        activeDeadlineSeconds=2,
    )
    run = job.finish(code=1)
    assert "not done within 2 s" in run.err
    job.check_clean()


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path, maps(1, "no-such-command", retries=0))
    run = job.finish(code=1)
    assert "no-such-command" in run.err
    job.check_clean()


def test_a_task_that_forgets_to_write_fails(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path, maps(1, "true", retries=1))
    run = job.finish(code=1)
    assert "it ended well, and its output is not there" in run.err
    job.check_clean()


def test_runs_at_the_same_time_do_not_meet(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path, maps(2), reduces(1))
    other = JobDirectory(tmp_path / "other", maps(2), reduces(1))
    other.temporary.rmdir()
    other.temporary = job.temporary
    directory = tmp_path / "kept"
    job.hold("map")
    with job.run("--dir", directory) as run:
        job.until("a task", job.starts)
        for options, named in ((["--dir", directory], True), (["--resume", directory], False)):
            refused = job.finish(*options, job=named, code=2)
            assert "a run is under way in" in refused.err
        other.finish()
        other.check_result(2)
        job.release("map")
        run.wait()
    job.check_result(2)
    assert job.starts() == {"map-0": 1, "map-1": 1, "reduce-0": 1}
    job.check_clean("result")
    assert not directory.exists()


def test_references_in_the_pod_template_are_replaced(tmp_path: Path) -> None:
    script = 'echo "$0 $1 $2 $A $JOB_COMPLETION_INDEX"; exit 9'
    command = ("sh", "-c", script, "$(B)", "$(JOB_COMPLETION_INDEX)", "$(HOME)")
    first = maps(1, *command, retries=0)
    first["podTemplate"]["spec"]["containers"][0]["env"] = [
        {"name": "A", "value": "one"}, {"name": "B", "value": "$(A)-two"},
    ]  # fmt: skip
    job = JobDirectory(tmp_path, first, reduces(1))
    run = job.finish(code=1)
    assert "| one-two 0 $(HOME) one 0" in run.err
    assert "cannot honour" not in run.err


def test_directories_made_for_a_result_that_does_not_come_go_again(tmp_path: Path) -> None:
    job = JobDirectory(
        tmp_path, maps(1), reduces(1, retries=0, output={"files": "there/not/yet/result"})
    )
    (job.path / "there").mkdir()
    job.fail("reduce-0", 1)
    job.finish("--dir", tmp_path / "some" / "where", code=1)
    assert not (tmp_path / "some").exists()
    assert list((job.path / "there").iterdir()) == []
    job.check_clean("there")
    job.finish()
    assert (job.path / "there/not/yet/result/_SUCCESS").exists()
    job.check_clean("there")
