"""The package as users meet it: the documented example, imports, finding a map's schema."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import crossdock
import crossdock.arrow
from crossdock import ConfigError
from harness import StartWorker

DOCUMENT = Path(__file__).parents[2] / "docs" / "arrow-exchange.md"


def test_the_documented_example(job: crossdock.Job) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names: dict[str, Any] = {"job": job}
    exec(example, names)  # noqa: S102 -- it is what the document shows
    assert str(names["total"]) == "3.75"


def python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_client_does_without_arrow() -> None:
    done = python("import crossdock, sys; sys.exit('pyarrow' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_without_pyarrow_the_error_says_what_to_install() -> None:
    done = python("import sys; sys.modules['pyarrow'] = None; import crossdock.arrow")
    assert "pip install 'crossdock[arrow]'" in done.stderr


def test_everything_public_is_documented() -> None:
    for name in crossdock.arrow.__all__:
        found = getattr(crossdock.arrow, name)
        assert found.__doc__, name
        for attribute, member in vars(found).items() if isinstance(found, type) else ():
            if not attribute.startswith("_") and callable(member):
                assert member.__doc__, f"{name}.{attribute}"


def test_the_first_piece_of_a_block(start_worker: StartWorker) -> None:
    worker = start_worker()
    options = crossdock.Options(frame_bytes=2**16, deadline_seconds=60, connect_seconds=2)
    with (
        worker.connect(options=options) as cluster,
        cluster.job("job", owner="runner", lease_seconds=3600) as job,
    ):
        shuffle = job.shuffle("s", partitions=3)
        for map_id in range(2):
            with shuffle.writer(map_id=map_id, attempt=0) as writer:
                assert writer.piece_bytes == 2**16
                writer.write(1, b"%d first" % map_id)
                for _ in range(9):
                    writer.write(1, b"x" * 2**15)
        view = shuffle.view({0: 0, 1: 0})
        for _ in range(2):
            for map_id in range(2):
                piece = view.first_piece(1, map_id)
                assert piece is not None
                assert bytes(piece[:7]) == b"%d first" % map_id
                assert len(piece) <= 2**16 < view.bytes[1] // 2
            assert view.first_piece(1, 2) is None
            assert view.first_piece(0, 0) is None
            worker.restart()  # it forgets the view's places
        with pytest.raises(ConfigError):
            view.first_piece(3, 0)


def test_a_damaged_first_piece(start_worker: StartWorker) -> None:
    worker = start_worker()
    with (
        worker.connect() as cluster,
        cluster.job("job", owner="runner", lease_seconds=3600) as job,
    ):
        shuffle = job.shuffle("s", partitions=1)
        schema = pa.schema([("k", pa.int64())])
        with crossdock.arrow.writer((shuffle, 0, 0), schema, keys=["k"]) as writer:
            writer.write(pa.table({"k": [1, 2, 3]}))
        view = shuffle.view({0: 0})
        (log,) = (
            p for p in worker.data_dir.rglob("*") if p.is_file() and b"XDA1" in p.read_bytes()
        )
        log.write_bytes(log.read_bytes().replace(b"XDA1", b"XXXX", 1))
        with pytest.raises(crossdock.BlocksLost, match="first piece of map 0 partition 0"):
            crossdock.arrow.read(view)
