"""`crossdock run --store`: what the worker persists is found by tasks, and is gone in the end."""

from pathlib import Path

from runs import JobDirectory, maps, reduces

from listing import files_below


def segments(store: Path) -> list[Path]:
    return [path for path in files_below(store) if path.parts[-3] == "segments"]


def records(store: Path) -> list[Path]:
    return [path for path in files_below(store) if path.parts[-2] == "records"]


def test_a_run_leaves_nothing_in_its_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    job = JobDirectory(tmp_path, maps(3), reduces(2), persistence="Eager")
    job.hold("reduce")
    options = ("--store", store.as_uri(), "--store-option", "fsync=false")
    with job.run(*options) as run:
        job.until("persisting", lambda: records(store))
        assert segments(store)
        job.release("reduce")
        run.wait(0)
    job.check_result()
    job.check_clean("result")
    assert not files_below(store)


def test_a_run_that_goes_on_does_so_with_its_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    job = JobDirectory(tmp_path, maps(3), reduces(2), persistence="Eager")
    job.hold("reduce")
    directory = job.path / "run"
    with job.run("--dir", directory, "--store", store.as_uri()) as run:
        job.until("persisting", lambda: records(store))
        run.kill9()
    assert records(store)
    refused = job.finish("--resume", directory, "--store", store.as_uri(), job=False, code=2)
    assert "goes on with the store of that run" in refused.err
    job.release("reduce")
    job.finish("--resume", directory, job=False)
    job.check_result()
    assert job.starts()["map-0"] == 1
    assert not files_below(store)


def test_any_later_run_clears_the_store_of_a_dead_one(tmp_path: Path) -> None:
    store = tmp_path / "store"
    job = JobDirectory(tmp_path, maps(3), reduces(2), persistence="Eager")
    job.hold("reduce")
    with job.run("--store", store.as_uri()) as run:
        job.until("persisting", lambda: records(store))
        run.kill9()
    assert records(store)
    job.release("reduce")
    cleared = job.finish()
    assert "cleared what a dead run left in" in cleared.err
    assert not files_below(store)
    job.check_clean("result")


def test_a_directory_used_again_is_cleared_of_its_store_too(tmp_path: Path) -> None:
    store = tmp_path / "store"
    job = JobDirectory(tmp_path, maps(3), reduces(2), persistence="Eager")
    job.hold("reduce")
    directory = job.path / "run"
    with job.run("--dir", directory, "--store", store.as_uri()) as run:
        job.until("persisting", lambda: records(store))
        run.kill9()
    assert records(store)
    job.release("reduce")
    job.finish("--dir", directory)
    assert not files_below(store)


def test_a_run_that_puts_nothing_into_its_store_asks_it_nothing(tmp_path: Path) -> None:
    """The server is not there: each request would fail, and be told of."""
    job = JobDirectory(tmp_path, maps(2), reduces(1), persistence="Never")
    options = ["endpoint_url=http://127.0.0.1:9", "region=x", "path_style=true"]
    given = [part for option in options for part in ("--store-option", option)]
    run = job.finish("--store", "s3://bucket/prefix", *given)
    assert "ListMultipartUploads" not in run.err  # with which deleting begins
    job.check_result(2)
    job.check_clean("result")


def test_a_store_that_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path, maps(1), reduces(1))
    run = job.finish("--store", "nowhere://bucket", code=2)
    assert "no store has this scheme" in run.err
    job.check_clean()
    assert not job.starts()


def test_a_policy_that_needs_a_store_is_refused_before_anything_runs(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path, maps(1), reduces(1), persistence="BeforeAck")
    run = job.finish(code=2)
    assert "has no store" in run.err
    job.check_clean()
    assert not job.starts()
