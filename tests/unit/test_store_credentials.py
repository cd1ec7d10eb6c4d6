"""Credentials of the store come from files, as Kubernetes mounts a Secret."""

import os
from pathlib import Path

import pytest

from crossdock.errors import ConfigError
from crossdock.store import renewal
from crossdock_worker.store_credentials import take


def test_files_become_variables_of_this_process_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "of the environment")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    secret = tmp_path / "..2026_11_22"
    secret.mkdir()
    (secret / "AWS_SECRET_ACCESS_KEY").write_text("the-secret-of-a-store\n")
    (tmp_path / "..data").symlink_to(secret.name)
    (tmp_path / "AWS_SECRET_ACCESS_KEY").symlink_to("..data/AWS_SECRET_ACCESS_KEY")
    (tmp_path / "a-note.txt").write_text("no variable")
    before = dict(os.environ)
    try:
        take(tmp_path)
        after = dict(os.environ)
    finally:
        renewal.renewed_by(None)
        os.environ.pop("AWS_SECRET_ACCESS_KEY", None)
    assert after == {**before, "AWS_SECRET_ACCESS_KEY": "the-secret-of-a-store"}
    assert b"the-secret-of-a-store" not in Path("/proc/self/environ").read_bytes()


def test_without_a_directory_nothing_changes_and_one_that_is_missing_is_named(
    tmp_path: Path,
) -> None:
    before = dict(os.environ)
    take(None)
    assert dict(os.environ) == before
    with pytest.raises(ConfigError, match=r"--store-credentials .*missing"):
        take(tmp_path / "missing")


def test_files_that_change_are_taken_again_and_empty_or_broken_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    for name in names:
        monkeypatch.setenv(name, "of the environment")
        (tmp_path / name).write_text("old")
    try:
        take(tmp_path)
        assert renewal.renewals(at_once=True) == 0
        for name in names[:2]:
            (tmp_path / name).write_text("new")
        (tmp_path / names[2]).unlink()
        assert renewal.renewals() == 0  # it has just looked
        assert renewal.renewals(at_once=True) == 1
        assert [os.environ.get(name) for name in names] == ["new", "new", None]
        (tmp_path / names[1]).write_bytes(b"\xff")
        assert renewal.renewals(at_once=True) == 1
        for name in names[:2]:
            (tmp_path / name).unlink()
        assert renewal.renewals(at_once=True) == 1
        assert [os.environ.get(name) for name in names] == ["new", "new", None]
    finally:
        renewal.renewed_by(None)
