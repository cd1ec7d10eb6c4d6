"""Buckets that keep what is deleted: that is found out, said, and ended by rules."""

import json
import secrets
from contextlib import closing
from dataclasses import replace
from typing import Any

import boto3
import pytest
import typer
from deletions import worker_options
from faults import FaultyProxy, refuse
from servers import ACCESS_KEY, SECRET_KEY, S3Server, s3_options
from typer.testing import CliRunner

from crossdock.cleanup.cli import run_audit
from crossdock.cleanup.lifecycle_cli import app
from crossdock.store.api import Verb
from crossdock.store.layout import ShuffleLayout
from crossdock.store.opening import open_store
from crossdock.store.rules import Net
from crossdock.store.s3.store import S3Store
from crossdock.store.versions import OldVersions
from crossdock.views import ShuffleKey
from harness import StartWorker, eventually

NET = Net(prefix="shuffles/", versions=True)
KEY = ShuffleLayout.of("c", ShuffleKey("job", "words", 0)).segment("run", 0)


def test_a_net_for_versions_has_a_second_rule() -> None:
    rules = NET.merged([])
    assert len(rules) == 2
    assert not NET.lacks(rules)
    assert NET.merged(rules) == rules
    assert len(replace(NET, versions=False).merged(rules)) == 1
    said = " ".join(NET.lacks(replace(NET, versions=False).merged([])))
    assert "not current" in said
    assert "marks of deleted objects" in said
    for rule in rules:  # S3 takes no such mark beside a number of days
        assert not {"Days", "ExpiredObjectDeleteMarker"} <= rule["Expiration"].keys()


@pytest.mark.parametrize(
    "change",
    [
        {"Filter": {"Prefix": "shuffles/deeper/"}},
        {"Status": "Disabled"},
        {"NoncurrentVersionExpiration": {"NoncurrentDays": 2}},
        {"NoncurrentVersionExpiration": {"NoncurrentDays": 1, "NewerNoncurrentVersions": 3}},
    ],
)
def test_a_rule_that_leaves_versions_does_not_count(change: dict[str, Any]) -> None:
    current, old = NET.merged([])
    assert any("not current" in problem for problem in NET.lacks([current, {**old, **change}]))


@pytest.fixture
def versioned(moto: S3Server) -> S3Server:
    """A bucket of its own."""
    name = f"versioned-{secrets.token_hex(4)}"
    with closing(client(moto)) as found:
        found.create_bucket(Bucket=name)
    return replace(moto, bucket=name)


def client(server: S3Server) -> Any:
    return boto3.client(
        "s3", endpoint_url=server.endpoint, region_name=server.region,
        aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
    )  # fmt: skip


def version(server: S3Server, status: str) -> None:
    with closing(client(server)) as found:
        found.put_bucket_versioning(
            Bucket=server.bucket, VersioningConfiguration={"Status": status}
        )


def store_of(server: S3Server, endpoint: str = "") -> S3Store:
    options = s3_options(server)
    if endpoint:
        options = replace(options, endpoint_url=endpoint)
    found = open_store(f"s3://{server.bucket}/p", options)
    assert isinstance(found, S3Store)
    return found


def said(command: typer.Typer, server: S3Server, *arguments: str, code: int) -> str:
    options = [f"endpoint_url={server.endpoint}", f"region={server.region}", "path_style=true"]
    given = [part for option in options for part in ("--store-option", option)]
    url = f"s3://{server.bucket}/p"
    result = CliRunner().invoke(command, [*arguments, "--store", url, *given])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize("status", ["Enabled", "Suspended"])
def test_rules_end_versions_where_the_bucket_keeps_them(versioned: S3Server, status: str) -> None:
    said(app, versioned, "lifecycle", "--apply", code=0)
    version(versioned, status)
    assert "keeps versions" in said(app, versioned, "lifecycle", "--check", code=1)
    said(app, versioned, "lifecycle", "--apply", code=0)
    said(app, versioned, "lifecycle", "--check", code=0)
    with closing(client(versioned)) as found:
        there = found.get_bucket_lifecycle_configuration(Bucket=versioned.bucket)["Rules"]
    old = [rule for rule in there if rule["ID"].endswith("-versions")]
    assert [rule["NoncurrentVersionExpiration"]["NoncurrentDays"] for rule in old] == [1]


def test_an_audit_says_what_the_bucket_keeps(versioned: S3Server) -> None:
    command = typer.Typer()
    command.command()(run_audit)
    given = ("--cluster", "c", "--live", "", "--grace-seconds", "0")
    assert json.loads(said(command, versioned, *given, "--json", code=0))["versions"] == []
    version(versioned, "Enabled")
    with closing(store_of(versioned)) as store:
        for key in (KEY, "other/job/0000/words/0/seal"):
            store.put(key, b"data")
            store.delete([key])
    found = json.loads(said(command, versioned, *given, "--json", code=0))
    assert found["versions"] == [{"store": f"s3://{versioned.bucket}/p", "count": 2, "more": False}]
    text = said(command, versioned, *given, code=0)
    assert "keeps versions: 2 that are not current" in text
    assert "crossdock store lifecycle --apply" in text


def test_whoever_may_not_know_is_told_so(versioned: S3Server) -> None:
    with FaultyProxy(versioned.endpoint) as proxy:
        denied = refuse(403, "AccessDenied")
        proxy.fail(Verb.GET_VERSIONING, denied, times=100)
        proxy.fail(Verb.LIST_VERSIONS, denied, times=100)
        behind = replace(versioned, endpoint=proxy.endpoint)
        assert "s3:GetBucketVersioning" in said(app, behind, "lifecycle", "--apply", code=1)
        with closing(store_of(behind)) as store:
            assert store.keeps_versions() is None
            assert store.old_versions("c/") is None


@pytest.mark.parametrize("kind", ["versitygw", pytest.param("minio", marks=pytest.mark.servers)])
def test_a_server_without_versions_keeps_none(request: pytest.FixtureRequest, kind: str) -> None:
    server: S3Server = request.getfixturevalue(kind)
    with closing(store_of(server)) as store:
        assert store.keeps_versions() is False
        assert store.old_versions("c/") == OldVersions(0, more=False)


def test_a_worker_warns_when_it_starts(start_worker: StartWorker, versioned: S3Server) -> None:
    version(versioned, "Enabled")
    url, options = f"s3://{versioned.bucket}/p", s3_options(versioned)
    worker = start_worker(**worker_options(url, options))

    def warnings() -> list[dict[str, Any]]:
        return [line for line in worker.log_lines() if line["event"] == "bucket keeps versions"]

    [warning] = eventually(warnings)
    assert f"--store {url} --apply" in warning["hint"]
