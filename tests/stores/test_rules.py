"""Lifecycle rules: ours are there, others' stay, and what a server does not keep is said."""

from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import S3Server, s3_options
from typer.testing import CliRunner

from crossdock.cleanup.lifecycle_cli import app
from crossdock.errors import ConfigError
from crossdock.store.opening import open_store
from crossdock.store.rules import Lifecycle, Net, lost
from crossdock.store.s3.store import S3Store

NET = Net(prefix="shuffles/")


def expiring(name: str, days: int, **where: Any) -> dict[str, Any]:
    return {"ID": name, "Status": "Enabled", **where, "Expiration": {"Days": days}}


def test_rules_are_ours_alone_below_our_prefix() -> None:
    rules = NET.merged([])
    assert not NET.lacks(rules)
    assert NET.lacks([])
    assert all(rule["Filter"] == {"Prefix": "shuffles/"} for rule in rules)
    assert Net(prefix="other/").lacks(rules)
    assert len(Net(prefix="other/").merged(rules)) == 2  # two clusters of one bucket
    assert NET.merged(rules) == rules


def test_a_change_replaces_ours() -> None:
    changed = Net(prefix="shuffles/", abort_days=3, expire_days=90)
    rules = changed.merged(NET.merged([]))
    assert len(rules) == 1
    assert not changed.lacks(rules)
    assert NET.lacks(rules)


def test_rules_in_the_old_form_are_not_mixed_with_the_new_one() -> None:
    old = expiring("theirs", 400, Prefix="logs/")
    rules = NET.merged([old])
    assert rules[0] == old
    assert all("Filter" not in rule for rule in rules)
    assert not NET.lacks(rules)


@pytest.mark.parametrize(
    "rule",
    [
        expiring("x", 30, Filter={"Prefix": "shuffles/deeper/"}),
        expiring("x", 30, Filter={"Tag": {"Key": "a", "Value": "b"}}),
        expiring("x", 30, Filter={"And": {"Prefix": "", "Tags": []}}),
        expiring("x", 31, Filter={"Prefix": ""}),
        {**expiring("x", 30, Filter={"Prefix": ""}), "Status": "Disabled"},
    ],
)
def test_a_rule_that_does_not_reach_all_does_not_count(rule: dict[str, Any]) -> None:
    assert any("expires" in problem for problem in NET.lacks([rule]))


@pytest.mark.parametrize("where", ["", "shuffles/", "shuffles/default/job/"])
def test_a_rule_of_somebody_else_that_deletes_too_soon_is_named(where: str) -> None:
    rules = NET.merged([expiring("theirs", 7, Filter={"Prefix": where})])
    assert "'theirs'" in NET.conflicts(rules)[0]
    assert not NET.conflicts(NET.merged([expiring("theirs", 7, Filter={"Prefix": "logs/"})]))


OTHERS = st.lists(
    st.builds(
        lambda name, days, prefix: expiring(name, days, Filter={"Prefix": prefix}),
        st.text("abc-", min_size=1, max_size=4), st.integers(1, 99), st.text("sh/", max_size=4),
    ),
    max_size=5, unique_by=lambda rule: rule["ID"],
)  # fmt: skip


@given(others=OTHERS)
@settings(max_examples=100)
def test_nothing_of_others_is_ever_lost(others: list[dict[str, Any]]) -> None:
    rules = NET.merged(others)
    assert rules[: len(others)] == others
    assert len(rules) == len(others) + 1
    assert not lost(others, rules, NET)
    assert lost([*others, expiring("more", 1)], rules, NET) == ["more"]


def test_a_whole_bucket_is_refused() -> None:
    with pytest.raises(ConfigError, match="whole bucket"):
        Net(prefix="")


# -- the command -----------------------------------------------------------------------------


def said(server: S3Server | None, *arguments: object, code: int, url: str = "") -> str:
    options = [] if server is None else [
        f"endpoint_url={server.endpoint}", f"region={server.region}", "path_style=true",
    ]  # fmt: skip
    if server is not None and not url:
        url = f"s3://{server.bucket}/rules"
    given = [part for option in options for part in ("--store-option", option)]
    command = ["lifecycle", "--store", url, *given, *map(str, arguments)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def bucket(server: S3Server) -> S3Store:
    store = open_store(f"s3://{server.bucket}/rules", s3_options(server))
    assert isinstance(store, S3Store)
    return store


def test_a_server_that_has_rules_keeps_them(moto: S3Server) -> None:
    store = bucket(moto)
    theirs = expiring("theirs", 400, Filter={"Prefix": "logs/"})
    store.write_lifecycle(Lifecycle([theirs]))
    assert "no rule aborts" in said(moto, "--check", code=1)
    assert "aborted after 1 days" in said(moto, "--apply", code=0)
    assert "aborted after 1 days" in said(moto, "--check", code=0)
    found = store.read_lifecycle()
    assert found is not None
    assert len(found.rules) == 2
    assert dict(found.rules[0])["ID"] == "theirs"
    assert "no rule expires" in said(moto, "--check", "--expire-days", 90, code=1)
    said(moto, "--apply", "--abort-days", 2, "--expire-days", 90, code=0)
    found = store.read_lifecycle()
    assert found is not None
    assert len(found.rules) == 2
    store.close()


def test_a_server_without_rules_is_named(versitygw: S3Server) -> None:
    for what in ("--check", "--apply"):
        assert "no lifecycle rules at all" in said(versitygw, what, code=1)


@pytest.mark.servers
def test_a_rule_that_is_dropped_in_silence_is_named(minio: S3Server) -> None:
    assert "has not kept it: no rule aborts" in said(minio, "--apply", code=1)
    assert "no rule expires" not in said(minio, "--check", code=1)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["s3://bucket/prefix"], "one of --check and --apply"),
        (["s3://bucket/prefix", "--check", "--apply"], "one of --check and --apply"),
        (["s3://bucket", "--check"], "whole bucket"),
        (["file:///tmp/x", "--check"], "only s3://"),
        (["nowhere://x", "--check"], "scheme"),
        (["s3://bucket/prefix", "--check", "--abort-days", "0"], "--abort-days"),
        (["s3://bucket/prefix", "--check", "--expire-days", "x"], "--expire-days"),
        (
            ["s3://bucket/prefix", "--check", "--store-option", "endpoint_url=http://127.0.0.1:9",
             "--store-option", "deadline_seconds=0.2", "--store-option", "region=x"],
            "127.0.0.1:9",
        ),
    ],
)  # fmt: skip
def test_bad_input_ends_with_two(arguments: list[str], why: str) -> None:
    url, *rest = arguments
    assert why in said(None, *rest, url=url, code=2)


def test_the_command_is_a_group() -> None:
    assert isinstance(app, typer.Typer)
    assert "lifecycle" in CliRunner().invoke(app, ["--help"]).output
