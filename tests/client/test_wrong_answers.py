"""Whatever a worker answers, callers get what was written, or an error of Crossdock."""

import json
import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support import expected, options, read, write
from tamper import Passing, Tampered, tampered

import crossdock
from crossdock import ConfigError, CrossdockError, ProtocolError, Shuffle
from crossdock.errors import BlocksLost, Overloaded, Unavailable
from crossdock.refusals import from_response
from harness import WorkerProcess

WINNERS = {0: 0, 1: 0}
ROUTES = {
    "workers": r"GET /v1/workers",
    "describe": r"GET /v1/jobs/[^/]+",
    "register": r"PUT /v1/jobs/[^/]+",
    "push": r"PUT .*/frames",
    "list": r"POST .*/frames/list",
    "places": r"PUT .*/places/\w+",
    "blocks": r"GET .*/blocks\?.*",
    "sizes": r"GET .*/sizes\?.*",
    "read the seal": r"GET .*/seal\?.*",
    "release": r"DELETE .*/shuffles/.*",
}
BODIES = {
    "nothing": b"",
    "torn JSON": b'{"self": ',
    "no UTF-8": b'"\xff"',
    "deep": b"[" * 100_000,
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "empty fields": b'{"self": null, "workers": null, "record": null, "worker": null}',
    "wrong fields": b'{"self": {"id": 3}, "workers": [3], "record": 3, "worker": 3}',
    "garbage": random.Random(1).randbytes(997),
    "zeros": bytes(960),
}


@pytest.fixture
def proxy(worker: WorkerProcess) -> Iterator[Tampered]:
    with tampered(worker.url) as found:
        yield found


@pytest.fixture
def cluster(proxy: Tampered) -> Iterator[crossdock.Cluster]:
    hasty = options(deadline_seconds=0.001, stall_seconds=5)  # every call is tried once
    with crossdock.connect([proxy.url], options=hasty) as found:
        yield found


def use_all(cluster: crossdock.Cluster, uid: str) -> None:
    """Call everything there is; raise the first error that is not one of Crossdock's."""

    def attempt(call: Callable[[], object]) -> object:
        try:
            return call()
        except CrossdockError:
            return None

    with cluster.job(uid) as job:
        old = job.shuffle("old", partitions=3, maps=2)
        view = old.view(WINNERS)
        cluster._asked = float("-inf")
        fresh = job.shuffle("fresh", partitions=3, maps=2)
        attempt(lambda: write(fresh, 0))
        for call in (lambda: fresh.view({0: 0}), fresh.view, lambda: view):
            found = attempt(call)
            if isinstance(found, crossdock.View):
                attempt(lambda found=found: found.block_sizes(range(3)))
                attempt(lambda found=found: found.blocks)
                check(found, {})
                check(found, {"maps": range(1)})
        attempt(fresh.release)
        attempt(lambda: cluster.job(uid))
        attempt(lambda: cluster.job(uid, owner="runner").close())
        attempt(job.close)


def check(view: crossdock.View, ranges: dict[str, range]) -> None:
    """Read all or fail with an error of Crossdock."""
    winners = {m: a for m, a in view.winners.items() if m in ranges.get("maps", range(9))}
    try:
        found = read(view, **ranges)
    except CrossdockError:
        return
    assert found == expected(view.shuffle, winners)


@pytest.fixture
def written(worker: WorkerProcess, job_uid: str) -> Iterator[str]:
    """A job with a shuffle "old"; its uid."""
    with worker.connect() as cluster, cluster.job(job_uid, owner="runner") as job:
        for map_id in WINNERS:
            write(job.shuffle("old", partitions=3), map_id)
        yield job.uid
        job.end()


def only_first(change: Callable[[Passing], Passing], pattern: str, spare: int) -> object:
    """Return what changes the answers of a route, all but the first `spare`."""
    left = spare

    def apply(answer: Passing) -> Passing:
        nonlocal left
        if not re.fullmatch(pattern, f"{answer.method} {answer.target}"):
            return answer
        left -= 1
        return change(answer) if left < 0 else answer

    return apply


# `use_all` needs so many sound answers before it is in the middle of things.
SPARED = {"workers": 3, "describe": 1, "list": 1, "places": 1}


@pytest.mark.parametrize("route", ROUTES)
def test_other_bodies(
    proxy: Tampered, cluster: crossdock.Cluster, written: str, route: str
) -> None:
    spare = SPARED.get(route, 0)
    for name, body in BODIES.items():
        print(name)
        with proxy.changing(only_first(lambda a, b=body: a.but(body=b), ROUTES[route], spare)):
            use_all(cluster, written)
    mine = [s for s in proxy.seen if re.fullmatch(ROUTES[route], s)]
    assert len(mine) > spare * len(BODIES), "the route was never in the middle of things"


@pytest.mark.parametrize("route", ROUTES)
def test_damaged_answers(
    proxy: Tampered, cluster: crossdock.Cluster, written: str, route: str
) -> None:
    """Cut, longer, flipped, without their headers, too long to be true."""
    random_ = random.Random(route)

    def damage(kind: str, answer: Passing) -> Passing:
        body, headers = bytearray(answer.body), dict(answer.headers)
        match kind:
            case "cut":
                del body[random_.randrange(len(body) + 1) :]
            case "longer":
                body += random_.randbytes(random_.randrange(1, 90))
            case "flipped" if body:
                body[random_.randrange(len(body))] ^= 1 << random_.randrange(8)
            case "bare":
                headers = {"content-length": headers["content-length"]}
            case "other headers":
                headers |= {"crossdock-partitions": "\xb2", "crossdock-worker": "nobody"}
            case "huge":
                headers["content-length"] = str(10**18)
            case "no length":
                headers = {"connection": "close"}
        return answer.but(body=bytes(body), headers=headers)

    for kind in ["cut", "longer", "flipped", "bare", "other headers", "huge", "no length"]:
        with proxy.changing(only_first(partial(damage, kind), ROUTES[route], SPARED.get(route, 0))):
            use_all(cluster, written)


@pytest.mark.parametrize("status", [204, 302, 404, 410, 500, 503])
def test_other_statuses(
    proxy: Tampered, cluster: crossdock.Cluster, written: str, status: int
) -> None:
    for route, pattern in ROUTES.items():
        with proxy.changing(
            only_first(
                lambda a: a.but(status=status, body=b"" if status == 204 else a.body),
                pattern,
                SPARED.get(route, 0),
            )
        ):
            use_all(cluster, written)


@pytest.mark.parametrize("body", [
    {"code": "blocks_lost", "message": "x", "missing": None},
    {"code": "blocks_lost", "message": "x", "missing": [[1]]},
    {"code": "blocks_lost", "message": "x", "missing": [["a", 1, "x"]]},
    {"code": "blocks_lost", "message": "x", "missing": [[1e999, 1, "x"]]},
    {"code": ["unheard"], "message": {}}, {"code": "unheard"}, [1], "x", None, 3,
])  # fmt: skip
def test_wrong_error_bodies(body: object) -> None:
    for status in (400, 503):
        error = from_response(status, {}, json.dumps(body).encode())
        assert isinstance(error, CrossdockError)
        assert not isinstance(error, BlocksLost)


def test_a_deep_error_body_is_an_error() -> None:
    assert type(from_response(503, {}, b"[" * 100_000)) is Unavailable


@pytest.mark.parametrize(("text", "seconds"), [
    ("7", 7.0), ("0", 0.0), ("", 1.0), ("nan", 1.0), ("-5", 1.0), ("inf", 1.0), ("9" * 400, 1.0),
    ("Wed, 21 Oct 2026 07:28:00 GMT", 1.0),
])  # fmt: skip
def test_how_long_to_wait(text: str, seconds: float) -> None:
    error = from_response(503, {"retry-after": text}, b'{"code": "overloaded", "message": "x"}')
    assert isinstance(error, Overloaded)
    assert error.retry_after_seconds == seconds


@pytest.mark.parametrize("token", ["a\nb", "a\r\nX: y", "\u00e4\u20ac", "\0"])
def test_a_token_that_no_header_carries(worker: WorkerProcess, token: str) -> None:
    with (
        crossdock.connect([worker.url], token=token, options=options()) as cluster,
        pytest.raises(ConfigError, match="the token, or the URL") as caught,
    ):
        cluster.job("some-job")
    assert token not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_a_token_file_that_is_no_text(worker: WorkerProcess, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xff\xfe\x00")
    with (
        crossdock.connect([worker.url], token_file=file, options=options()) as cluster,
        pytest.raises(ConfigError, match="cannot read the token file"),
    ):
        cluster.job("some-job")


WRONG_URLS = [
    *("http://", "http://:7070", "http://host:port", "http://host:99999", "http://[::1", "ftp://x"),
    *("http://a..b:1", f"http://{'a' * 70}.b:1", "http://a\0b:1", "HTTPS://host:1"),
]


@pytest.mark.parametrize("url", WRONG_URLS, ids=range(len(WRONG_URLS)))
def test_wrong_urls(url: str) -> None:
    with pytest.raises(ConfigError, match="is no URL"):
        crossdock.connect([url])


@pytest.mark.parametrize("url", [*WRONG_URLS, "http://a b:1"], ids=range(len(WRONG_URLS) + 1))
def test_wrong_urls_of_peers(proxy: Tampered, written: str, url: str) -> None:
    """A peer that cannot be asked is one that does not answer."""

    def add_peer(answer: Passing) -> Passing:
        if answer.target != "/v1/workers":
            return answer
        data = json.loads(answer.body)
        data["workers"].append({**data["self"], "id": "stranger", "url": url})
        return answer.but(body=json.dumps(data).encode())

    with proxy.changing(add_peer), crossdock.connect([proxy.url], options=options()) as cluster:
        assert cluster.members().unreachable == {url}
        shuffle = cluster.job(written).shuffle("old", partitions=3)
        assert read(shuffle.view(WINNERS)) == expected(shuffle, WINNERS)


def test_statistics_of_another_length_are_named(proxy: Tampered, written: str) -> None:
    with crossdock.connect([proxy.url], options=options()) as cluster:
        shuffle: Shuffle = cluster.job(written).shuffle("old", partitions=3)
        cut = only_first(lambda a: a.but(body=a.body[:-20]), ROUTES["places"], 0)
        with proxy.changing(cut), pytest.raises(ProtocolError, match="2 partitions, not 3"):
            shuffle.view(WINNERS)
