"""Directories as stores: crashes, races, links, and file systems that lack or refuse something."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import keys, read

from crossdock.errors import ConfigError
from crossdock.store.api import StoreOptions, UnfinishedUpload
from crossdock.store.errors import ObjectExists, ObjectMissing, StoreDenied, StoreUnavailable
from crossdock.store.file import FileStore
from crossdock.store.opening import open_store
from crossdock.store.tree import Entry, draft_key, new_draft, parsed, walk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def files(root: Path) -> FileStore:
    return FileStore(root)


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


CRASH = """
import os, signal, sys
from crossdock.store.opening import open_store
store = open_store(sys.argv[1])
class Source:
    nbytes = 3 * 2**20
    def read_at(self, offset, size):
        if offset:
            os.kill(os.getpid(), signal.SIGKILL)
        return bytes(size)
if sys.argv[2] == "put":
    store.put("c/j/a", Source())
upload = store.upload("c/j/a")
upload.write(b"half")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["put", "upload"])
def test_a_crash_leaves_nothing_but_an_unfinished_upload(files: FileStore, how: str) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH, files.url, how], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not keys(files)
    [left] = files.uploads("")
    assert left.key == "c/j/a"
    assert left.initiated is not None
    files.abort(left)
    assert not [*files.uploads("")]
    assert not list(Path(files.url.removeprefix("file://")).iterdir())


def test_nothing_but_the_object_is_left(files: FileStore, root: Path) -> None:
    files.put("c/j/a", b"x")
    files.put("c/j/a", b"y", if_absent=False)
    with pytest.raises(ObjectExists):
        files.put("c/j/a", b"z", if_absent=True)
    assert files.capabilities.conditional_put
    assert everything(root) == ["c/j/a"]
    files.delete(["c/j/a"])
    assert not list(root.iterdir())


def test_the_disk_is_waited_for_if_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    open_store(root.as_uri()).put("c/a", b"x")
    assert not synced
    open_store(root.as_uri(), StoreOptions(extra={"fsync": "true"})).put("c/b", b"x")
    assert [Path(name).name for name in synced] == [Path(synced[0]).name, "c"]
    assert synced[0].endswith("-b")


def test_links_out_of_the_store_are_not_followed(
    files: FileStore, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "file").symlink_to(tmp_path / "outside" / "secret")
    for refused in (
        lambda: files.get("link/secret"),
        lambda: files.put("link/new", b"x"),
        lambda: files.delete(["link/secret"]),
        lambda: keys(files, "link/"),
    ):
        with pytest.raises(ConfigError, match="links"):
            refused()
    with pytest.raises(StoreDenied):
        files.get("file")
    assert not keys(files)
    assert everything(tmp_path / "outside") == ["secret"]


def test_the_store_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = FileStore(tmp_path / "link")
    store.put("a/b", b"x")
    assert read(store, "a/b") == b"x"
    assert keys(store) == ["a/b"]


def test_uploads_of_no_store_are_refused(files: FileStore) -> None:
    for bad in ("../../x", "", "0123456789abcdeg", "0123456789abcdef/x"):
        with pytest.raises(ConfigError):
            files.abort(UnfinishedUpload("a", bad))
    files.abort(UnfinishedUpload("a", new_draft()))


def test_one_key_within_another_is_said(files: FileStore) -> None:
    files.put("a/b", b"x")
    with pytest.raises(ConfigError, match="within"):
        files.put("a", b"x")
    with pytest.raises(ConfigError, match="within"):
        files.put("a/b/c", b"x")
    with pytest.raises(ObjectMissing):
        files.get("a")
    files.delete(["a", "a/b/c"])
    assert keys(files) == ["a/b"]


def refusing(number: int) -> Callable[..., int]:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreUnavailable),
        (errno.EDQUOT, StoreUnavailable),
        (errno.EIO, StoreUnavailable),
        (errno.EACCES, StoreDenied),
        (errno.EROFS, StoreDenied),
    ],
)
def test_what_the_disk_refuses_is_said_and_leaves_nothing(
    files: FileStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[Exception],
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", refusing(number))
        with pytest.raises(kind, match="c/j/a"):
            files.put("c/j/a", b"x")
    assert not list(root.iterdir())


def test_without_hard_links_it_looks_first(
    files: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", refusing(errno.EOPNOTSUPP))
    assert not files.capabilities.conditional_put
    files.put("c/j/a", b"first", if_absent=True)
    with pytest.raises(ObjectExists):
        files.put("c/j/a", b"second", if_absent=True)
    assert read(files, "c/j/a") == b"first"
    assert not [*files.uploads("")]


def test_a_file_that_ends_early_while_it_is_read_is_damage(files: FileStore, root: Path) -> None:
    files.put("a", bytes(100))
    with files.get("a") as reading:
        os.truncate(root / "a", 50)
        target = memoryview(bytearray(100))
        assert reading.read_into(target) == 50
        with pytest.raises(Exception, match="ends at byte 50"):
            reading.read_into(target)


# -- the walk, against sorting all keys ----------------------------------------------------

NAME = st.sampled_from(["a", "b", "a.", "a0", "a-", "aa", "ab", "Z"])
KEYS = st.sets(st.lists(NAME, min_size=1, max_size=3).map("/".join), max_size=20)


def folders(names: set[str]) -> Callable[[str], list[Entry]]:
    """Return what scans a made-up directory."""

    def scan(folder: str) -> list[Entry]:
        below = {name.removeprefix(folder) for name in names if name.startswith(folder)}
        found = {name.partition("/")[0]: "/" in name for name in below}
        return [Entry(name, is_folder=deep) for name, deep in found.items()]

    return scan


@given(names=KEYS, prefix=KEYS, after=KEYS, cut=st.integers(0, 3))
def test_the_walk_is_the_sorted_list(
    names: set[str], prefix: set[str], after: set[str], cut: int
) -> None:
    nested = {name for name in names if any(other.startswith(f"{name}/") for other in names)}
    held = names - nested
    start, last = "".join(sorted(prefix)[:1])[:cut], "".join(sorted(after)[:1])
    found = [key for key, _ in walk(folders(held), start, after=last)]
    assert found == sorted(key for key in held if key.startswith(start) and key > last)


@given(name=st.text(st.characters(exclude_characters="/"), min_size=1))
def test_drafts_tell_their_key(name: str) -> None:
    draft = new_draft()
    assert parsed(draft_key(f"c/j/{name}", draft).rpartition("/")[2]) == (name, draft)
    assert parsed(name) == (name, "")
