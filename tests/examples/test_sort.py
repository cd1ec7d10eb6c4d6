"""`examples/sort` sorts, whatever the keys; its validator finds what is wrong."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness import COMMAND

EXAMPLE = Path(__file__).parents[2] / "examples" / "sort"
RECORD = 100


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run one of the example's scripts."""
    command = [sys.executable, str(EXAMPLE / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def sort(root: Path, job: Path = EXAMPLE / "job.yaml") -> list[dict[str, object]]:
    """Run the job; return what is said of its stages."""
    done = subprocess.run(
        [COMMAND, "run", job, "--json", "--slots", "2", "--data-root", root, "--dir", root / "run"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])["stages"]


def with_partitions(root: Path, partitions: int) -> Path:
    """Return the example's job with another number of partitions, its tasks where they are."""
    job = yaml.safe_load((EXAMPLE / "job.yaml").read_text())
    for stage in job["spec"]["stages"]:
        stage["podTemplate"]["spec"]["containers"][0]["workingDir"] = str(EXAMPLE)
    job["spec"]["stages"][1]["output"]["shuffle"]["partitions"] = partitions
    path = root / "job.yaml"
    path.write_text(json.dumps(job))
    return path


def data_of(directory: Path) -> list[bytes]:
    """Return all records of a directory's files, in order."""
    data = b"".join(p.read_bytes() for p in sorted(directory.glob("[!._]*")))
    return [data[i : i + RECORD] for i in range(0, len(data), RECORD)]


@pytest.mark.parametrize("options", [(), ("--binary",)], ids=["text", "binary"])
@pytest.mark.parametrize("kind", ["uniform", "skewed"])
def test_sorted_and_the_same_records(tmp_path: Path, kind: str, options: tuple[str, ...]) -> None:
    script("generate.py", tmp_path / "input", "--records=50000", f"--kind={kind}", *options)
    sort(tmp_path)
    said = script("validate.py", tmp_path / "input", tmp_path / "output")
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("sorted: 50000 records")
    # The validator is ours too: look without it.
    found, given = data_of(tmp_path / "output"), data_of(tmp_path / "input")
    assert [r[:10] for r in found] == sorted(r[:10] for r in given)
    assert sorted(found) == sorted(given)


def test_no_partition_is_large_though_one_key_is_frequent(tmp_path: Path) -> None:
    script("generate.py", tmp_path / "input", "--records=100000", "--kind=skewed")
    _, partition, last = sort(tmp_path)
    average = 100_000 * RECORD / 64
    assert partition["largest_bytes"] < 2.5 * average
    sizes = [p.stat().st_size for p in sorted((tmp_path / "output").glob("part-*"))]
    assert len(sizes) == last["tasks"] == 2
    assert max(sizes) < 1.1 * min(sizes)


def test_strange_keys(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    keys = [b"one"]
    keys += [b"same"] * 1000
    keys += [b"\0" * 9 + b"%c" % (i % 3) for i in range(1000)]
    keys += [b"\xff" * 8 + bytes(divmod(i * 7919 % 65536, 256)) for i in range(1000)]
    data = [key.ljust(10, b"\0") + b"%090d" % i for i, key in enumerate(keys)]
    for name, cut in [("a", slice(300)), ("b", slice(300, 301)), ("c", slice(301, None))]:
        (tmp_path / "input" / name).write_bytes(b"".join(data[cut]))
    (tmp_path / "input" / "empty").touch()
    sort(tmp_path, with_partitions(tmp_path, 7))
    found = data_of(tmp_path / "output")
    assert sorted(found) == sorted(data)
    assert [r[:10] for r in found] == sorted(r[:10] for r in data)


def test_more_in_a_partition_than_a_frame_takes(tmp_path: Path) -> None:
    script("generate.py", tmp_path / "input", "--records=180000", "--files=1")
    sort(tmp_path, with_partitions(tmp_path, 1))
    said = script("validate.py", tmp_path / "input", tmp_path / "output")
    assert said.stdout.startswith("sorted: 180000 records"), said.stderr


def test_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "empty").touch()
    sort(tmp_path, with_partitions(tmp_path, 1))
    assert data_of(tmp_path / "output") == []
    assert script("validate.py", tmp_path / "input", tmp_path / "output").returncode == 0


@pytest.fixture(scope="module")
def tasks() -> Iterator[ModuleType]:
    """The example's tasks, whose module is called like much else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        yield importlib.import_module("sort")
    for name in ("sort", "records"):
        del sys.modules[name]


@pytest.fixture(scope="module")
def records(tasks: ModuleType) -> ModuleType:
    """The example's arithmetic."""
    found: ModuleType = tasks.records
    return found


def test_each_task_reads_its_share_of_all_files(tmp_path: Path, tasks: ModuleType) -> None:
    data = [b"%0100d" % i for i in range(100)]
    files = []
    for name, cut in [("a", slice(70)), ("b", slice(70, 71)), ("c", slice(71, 100))]:
        (tmp_path / name).write_bytes(b"".join(data[cut]))
        files.append(tasks.File.at(str(tmp_path / name)))
    for share in [range(50), range(50, 75), range(75, 100), range(3, 3)]:
        read = list(tasks.chunks(files, share))
        assert [r for _, chunk in read for r in chunk.tolist()] == data[share.start : share.stop]
        assert [n for n, _ in read] == [share.start, *(n for n in (70, 71) if n in share)][
            : len(read)
        ]


COUNTS = st.one_of(st.integers(0, 100_000), st.sampled_from([0, 1, 40_000, 40_001, 80_000]))


@given(st.lists(COUNTS, min_size=1, max_size=20))
def test_pieces_fit_a_frame_and_have_all_records(tasks: ModuleType, counts: list[int]) -> None:
    partitions, sizes = tasks.pieces(np.array(counts))
    assert (np.diff(partitions) >= 0).all()
    assert ((sizes > 0) & (sizes <= tasks.PIECE_RECORDS)).all()
    assert np.bincount(partitions, sizes, minlength=len(counts)).tolist() == counts


# Few different bytes: keys that are equal, begin alike, end in zeros, or are next to each other.
KEYS = st.lists(
    st.one_of(
        st.binary(min_size=10, max_size=10),
        st.lists(st.sampled_from(b"\0\1 \xff"), min_size=10, max_size=10).map(bytes),
        st.sampled_from([b"\0" * 10, b"\xff" * 10, b"\0\1" * 5, b" " * 9 + b"\0"]),
    ),
    max_size=60,
)


@given(KEYS)
def test_order_is_that_of_bytes_and_stable(records: ModuleType, keys: list[bytes]) -> None:
    data = [key + b"%090d" % i for i, key in enumerate(keys)]
    order = records.order(records.of_bytes(b"".join(data)))
    assert [data[i] for i in order] == sorted(data, key=lambda record: record[:10])


@given(KEYS, KEYS, st.integers(1, 9), st.integers(0, 100))
def test_partitions_rise_with_keys(
    records: ModuleType, sampled: list[bytes], keys: list[bytes], partitions: int, first: int
) -> None:
    sample = np.frombuffer(b"".join(sampled), records.KEY)
    partition_of = records.partitioner(records.boundaries(sample, partitions))
    given_records = records.of_bytes(b"".join(key.ljust(100) for key in keys))
    ids = partition_of(given_records, first).tolist()
    assert all(0 <= i < partitions for i in ids)
    ranked = sorted(zip(keys, ids, strict=True))
    assert all(a[1] <= b[1] for a, b in pairwise(ranked) if a[0] < b[0])


def test_a_frequent_key_has_partitions_of_its_own_in_turn(records: ModuleType) -> None:
    sample = np.array([b"a"] * 25 + [b"key"] * 50 + [b"z"] * 25, records.KEY)
    partition_of = records.partitioner(records.boundaries(sample, 8))
    these = records.of_bytes(b"".join(key.ljust(100) for key in [b"key\0\0\0\0\0\0\0"] * 8))
    ids = partition_of(these, 3)
    assert np.bincount(ids, minlength=8).tolist() == [0, 0, 2, 2, 2, 2, 0, 0]
    assert partition_of(these[4:], 7).tolist() == ids[4:].tolist()


def test_a_file_that_ends_within_a_record_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "a").write_bytes(b"x" * 150)
    done = subprocess.run(
        [COMMAND, "run", EXAMPLE / "job.yaml", "--data-root", tmp_path, "--dir", tmp_path / "run"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "150 bytes, and records have 100" in done.stderr
    assert not (tmp_path / "output").exists()


def swap_two(records: list[bytes]) -> None:
    records[500], records[501] = records[501], records[500]


def swap_at_the_boundary_of_files(records: list[bytes]) -> None:
    records[999], records[1000] = records[1000], records[999]


def lose_one(records: list[bytes]) -> None:
    del records[7]


def double_one_for_another(records: list[bytes]) -> None:
    records[7] = records[6]


def exchange_values(records: list[bytes]) -> None:
    a, b = records[3], records[4]
    records[3:5] = [a[:10] + b[10:], b[:10] + a[10:]]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (swap_two, "not sorted: "),
        (swap_at_the_boundary_of_files, "part-00001, record 0: "),
        (lose_one, "not the same records"),
        (double_one_for_another, "not the same records"),
        (exchange_values, "not the same records"),
    ],
)
def test_the_validator_finds(
    tmp_path: Path, damage: Callable[[list[bytes]], None], why: str
) -> None:
    script("generate.py", tmp_path / "input", "--records=2000", "--files=1")
    records = sorted(data_of(tmp_path / "input"))
    (tmp_path / "output").mkdir()

    def validate() -> subprocess.CompletedProcess[str]:
        (tmp_path / "output" / "part-00000").write_bytes(b"".join(records[:1000]))
        (tmp_path / "output" / "part-00001").write_bytes(b"".join(records[1000:]))
        return script("validate.py", tmp_path / "input", tmp_path / "output")

    assert validate().returncode == 0
    damage(records)
    said = validate()
    assert said.returncode == 1
    assert why in said.stderr
