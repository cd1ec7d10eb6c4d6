"""S3 that fails: storms, silence, errors after the effect, and answers that are not true."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from faults import (
    Action,
    Answer,
    FaultyProxy,
    Forward,
    Request,
    changed,
    error,
    hang,
    late,
    refuse,
    vanish,
    vanish_late,
)
from places import RandomSource, Tally, keys, read, whole
from servers import S3Server, s3_options

from crossdock.errors import Closed, CrossdockError
from crossdock.store.api import Reading, Store, Verb
from crossdock.store.errors import (
    ObjectDamaged,
    ObjectExists,
    ObjectMissing,
    StoreDenied,
    StoreUnavailable,
    StoreUnsure,
)
from crossdock.store.opening import open_store
from crossdock.store.rules import HasLifecycle, Lifecycle
from crossdock.store.versions import HasVersions

MIB = 2**20
BIG = RandomSource(11 * MIB)
STALL_SECONDS = 3.0
"""For tests that wait for it; still longer than a busy machine needs for an answer."""
PATIENT_SECONDS = 30.0


@dataclass
class Scene:
    """A store behind a proxy that can fail, and one beside it that sees what is true."""

    server: S3Server
    proxy: FaultyProxy
    store: Store
    truth: Store
    meter: Tally
    url: str

    def impatient(self, seconds: float = 0.6) -> Store:
        """Return a store like `store` that gives up soon."""
        through = S3Server("proxy", self.proxy.endpoint)
        options = s3_options(
            through,
            deadline_seconds=seconds,
            stall_seconds=PATIENT_SECONDS,
            part_bytes=5 * MIB,
        )
        return open_store(self.url, options, meter=self.meter)


@pytest.fixture
def stall_seconds(request: pytest.FixtureRequest) -> float:
    """How long a store waits for a byte: for long, unless the test is about a silence."""
    parameters = getattr(request.node, "callspec", None)
    hangs = parameters is not None and parameters.params.get("silence") == "hang"
    return STALL_SECONDS if hangs or "stalled" in request.node.name else PATIENT_SECONDS


@pytest.fixture
def scene(moto: S3Server, folder: str, stall_seconds: float) -> Iterator[Scene]:
    url = f"s3://{moto.bucket}/{folder.strip('/')}"
    with FaultyProxy(moto.endpoint) as proxy:
        meter = Tally()
        through = S3Server("proxy", proxy.endpoint)
        options = s3_options(through, stall_seconds=stall_seconds, part_bytes=5 * MIB)
        store = open_store(url, options, meter=meter)
        truth = open_store(url, s3_options(moto))
        yield Scene(moto, proxy, store, truth, meter, url)
        proxy.heal()
        for each in truth.uploads(""):
            truth.abort(each)
        truth.delete(keys(truth))
        store.close()
        truth.close()


def upload(store: Store, *, if_absent: bool = False) -> None:
    with store.upload("c/j/up") as found:
        found.write(whole(BIG))
        found.complete(if_absent=if_absent)


def put_one(store: Store, *, if_absent: bool) -> None:
    store.put("c/j/up", b"1", if_absent=if_absent)


def abandon(store: Store) -> None:
    with store.upload("c/j/left") as found:
        found.write(whole(BIG))


def read_rules(store: Store) -> None:
    assert isinstance(store, HasLifecycle)
    store.read_lifecycle()


def write_rules(store: Store) -> None:
    """Write one that concerns nothing."""
    assert isinstance(store, HasLifecycle)
    rule = {"ID": "t", "Status": "Enabled", "Filter": {"Prefix": "no/"}, "Expiration": {"Days": 9}}
    store.write_lifecycle(Lifecycle([rule]))


def ask_for_versions(store: Store) -> None:
    assert isinstance(store, HasVersions)
    store.keeps_versions()


def count_versions(store: Store) -> None:
    assert isinstance(store, HasVersions)
    store.old_versions("")


WORK: dict[Verb, Callable[[Store], object]] = {
    Verb.PUT: lambda store: store.put("c/j/a", b"x"),
    Verb.CREATE_UPLOAD: upload,
    Verb.UPLOAD_PART: upload,
    Verb.COMPLETE_UPLOAD: upload,
    Verb.ABORT_UPLOAD: abandon,
    Verb.LIST_PARTS: abandon,
    Verb.GET: lambda store: read(store, "c/j/there"),
    Verb.HEAD: lambda store: read(store, "c/j/there", 1, 1),
    Verb.LIST: keys,
    Verb.LIST_UPLOADS: lambda store: list(store.uploads("")),
    Verb.DELETE: lambda store: store.delete(["c/j/there"]),
    Verb.GET_LIFECYCLE: read_rules,
    Verb.PUT_LIFECYCLE: write_rules,
    Verb.GET_VERSIONING: ask_for_versions,
    Verb.LIST_VERSIONS: count_versions,
}
WRITES = [Verb.PUT, Verb.CREATE_UPLOAD, Verb.UPLOAD_PART, Verb.COMPLETE_UPLOAD]


# -- "not now" -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "status", "code"),
    [
        *((verb, 503, "SlowDown") for verb in Verb if verb is not Verb.HEAD),
        (Verb.HEAD, 503, "503"),  # whose answers have no body
        (Verb.PUT, 429, "TooManyRequests"),
        (Verb.HEAD, 429, "429"),
    ],
)
def test_a_storm_is_waited_for(scene: Scene, verb: Verb, status: int, code: str) -> None:
    scene.truth.put("c/j/there", b"there")
    fault = scene.proxy.fail(verb, refuse(status, code), times=2)
    WORK[verb](scene.store)
    assert fault.hits == 2
    assert scene.meter.verbs(code) == [verb, verb]
    assert scene.store._caller.throttle.rate < 10_000  # type: ignore[attr-defined]
    assert not [*scene.truth.uploads("")]


@pytest.mark.parametrize("verb", Verb)
def test_a_storm_without_end_is_unavailable(scene: Scene, verb: Verb) -> None:
    scene.truth.put("c/j/there", b"there")
    scene.proxy.fail(verb, refuse(503, "SlowDown"), times=1000)
    store = scene.impatient()
    with pytest.raises(StoreUnavailable) as caught:
        WORK[verb](store)
    assert not isinstance(caught.value, StoreUnsure)  # the store said that it did nothing
    store.close()


def test_waits_end_when_the_store_is_closed(scene: Scene) -> None:
    reached = threading.Event()

    def storm(request: Request, forward: Forward) -> Answer:
        reached.set()
        return error(503, "SlowDown")

    scene.proxy.fail(Verb.GET, storm, times=1000)
    failures: list[CrossdockError] = []

    def work() -> None:
        try:
            scene.store.get("c/j/a")
        except CrossdockError as problem:
            failures.append(problem)

    thread = threading.Thread(target=work)
    thread.start()
    assert reached.wait(60)
    scene.store.close()
    thread.join(60)
    assert [type(problem) for problem in failures] == [Closed]


# -- writes without an answer --------------------------------------------------------------


@pytest.mark.parametrize("if_absent", [False, True])
@pytest.mark.parametrize("action", [late(500, "InternalError"), vanish_late, late(504, "Timeout")])
def test_a_put_that_took_effect_is_found(scene: Scene, action: Action, if_absent: bool) -> None:
    assert scene.store.capabilities.conditional_put
    scene.meter.clear()
    scene.proxy.fail(Verb.PUT, action)
    info = scene.store.put("c/j/a", b"bytes", if_absent=if_absent)
    assert read(scene.truth, "c/j/a", etag=info.etag) == b"bytes"
    assert scene.meter.verbs() == [Verb.PUT, Verb.HEAD]


@pytest.mark.parametrize("silence", ["vanish", "hang", "gateway"])
def test_a_put_without_an_answer_is_not_sent_again(scene: Scene, silence: str) -> None:
    actions = {
        "vanish": vanish,
        "hang": hang(scene.proxy, late=False),
        "gateway": refuse(504, "GatewayTimeout"),
    }
    scene.proxy.fail(Verb.PUT, actions[silence])
    with pytest.raises(StoreUnsure, match="c/j/a"):
        scene.store.put("c/j/a", b"bytes")
    assert scene.meter.verbs() == [Verb.PUT, Verb.HEAD]
    outcome = {"vanish": "connection", "hang": "timeout", "gateway": "GatewayTimeout"}[silence]
    assert scene.meter.verbs(outcome) == [Verb.PUT]


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_look_that_fails_is_no_news(scene: Scene, status: int) -> None:
    scene.proxy.fail(Verb.PUT, vanish_late)
    scene.proxy.fail(Verb.HEAD, refuse(status, ""), times=1000)
    with pytest.raises(StoreUnsure):
        scene.store.put("c/j/a", b"bytes")
    assert scene.meter.verbs().count(Verb.PUT) == 1


def test_a_put_that_was_answered_is_sent_again(scene: Scene) -> None:
    scene.proxy.fail(Verb.PUT, refuse(500, "InternalError"), times=2)
    scene.store.put("c/j/a", RandomSource(3 * MIB))
    assert scene.meter.verbs("ok") == [Verb.PUT]
    assert read(scene.truth, "c/j/a") == whole(RandomSource(3 * MIB))


def test_another_s_object_is_not_taken_for_ours(scene: Scene) -> None:
    assert scene.store.capabilities.conditional_put
    scene.truth.put("c/j/a", b"another's")
    scene.proxy.fail(Verb.PUT, refuse(500, "InternalError"))
    with pytest.raises(ObjectExists):
        scene.store.put("c/j/a", b"ours", if_absent=True)
    assert read(scene.truth, "c/j/a") == b"another's"


# -- multipart uploads ---------------------------------------------------------------------


@pytest.mark.parametrize("silence", ["error", "vanish", "hang"])
def test_a_part_is_sent_again(scene: Scene, silence: str) -> None:
    actions = {
        "error": late(500, "InternalError"),
        "vanish": vanish,
        "hang": hang(scene.proxy, late=True),
    }
    scene.proxy.fail(Verb.UPLOAD_PART, actions[silence])
    upload(scene.store)
    assert read(scene.truth, "c/j/up") == whole(BIG)
    assert len(scene.meter.verbs("ok")) == 5  # create, three parts, complete


@pytest.mark.parametrize("if_absent", [False, True])
@pytest.mark.parametrize("silence", ["error", "vanish", "hang"])
@pytest.mark.parametrize("effect", [True, False])
def test_a_completion_is_looked_for(
    scene: Scene, silence: str, effect: bool, if_absent: bool
) -> None:
    assert scene.store.capabilities.conditional_put
    scene.meter.clear()
    actions = {
        "error": late(500, "InternalError") if effect else refuse(500, "InternalError"),
        "vanish": vanish_late if effect else vanish,
        "hang": hang(scene.proxy, late=effect),
    }
    scene.proxy.fail(Verb.COMPLETE_UPLOAD, actions[silence])
    upload(scene.store, if_absent=if_absent)
    assert read(scene.truth, "c/j/up") == whole(BIG)
    assert scene.meter.verbs().count(Verb.COMPLETE_UPLOAD) == (1 if effect else 2)
    assert not [*scene.truth.uploads("")]


def test_a_completion_without_any_answer_is_unsure_and_nothing_stays(scene: Scene) -> None:
    scene.proxy.fail(Verb.COMPLETE_UPLOAD, vanish, times=1000)
    store = scene.impatient()
    with pytest.raises(StoreUnsure):
        upload(store)
    assert not [*scene.truth.uploads("")]
    assert not keys(scene.truth)
    store.close()


@pytest.mark.parametrize(
    "action", [vanish_late, vanish, late(500, "InternalError"), refuse(500, "InternalError")]
)
def test_a_beginning_without_a_clear_answer_leaves_nothing(scene: Scene, action: Action) -> None:
    """It is not begun once more: of the first one nobody would know."""
    scene.proxy.fail(Verb.CREATE_UPLOAD, action)
    with pytest.raises(StoreUnsure):
        upload(scene.store)
    assert not [*scene.truth.uploads("")]


def test_a_part_that_stays_refused_aborts_the_upload(scene: Scene) -> None:
    scene.proxy.fail(Verb.UPLOAD_PART, refuse(403, "AccessDenied"), times=1000)
    with pytest.raises(StoreDenied):
        upload(scene.store)
    assert not [*scene.truth.uploads("")]


def test_an_abort_is_repeated_until_no_part_is_left(scene: Scene) -> None:
    fault = scene.proxy.fail(Verb.ABORT_UPLOAD, lambda *_: Answer(204, {}, b""), times=2)
    abandon(scene.store)
    assert fault.hits == 2
    assert scene.meter.verbs().count(Verb.ABORT_UPLOAD) == 3
    assert not [*scene.truth.uploads("")]


def test_an_abort_that_fails_is_noted_on_the_first_error(scene: Scene) -> None:
    scene.proxy.fail(Verb.ABORT_UPLOAD, refuse(403, "AccessDenied"), times=1000)
    with pytest.raises(ZeroDivisionError) as caught:
        break_in_the_middle(scene.store)
    assert "unfinished" in caught.value.__notes__[0]


def break_in_the_middle(store: Store) -> None:
    with store.upload("c/j/a") as found:
        found.write(whole(BIG))
        raise ZeroDivisionError


def read_on(reading: Reading, target: memoryview) -> tuple[int, CrossdockError | None]:
    """Read until the end, or an error; return how much came."""
    at = 0
    try:
        while count := reading.read_into(target[at:]):
            at += count
    except CrossdockError as problem:
        return at, problem
    return at, None


# -- reads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 1, 700_000, 5 * MIB - 1])
def test_a_read_that_breaks_off_goes_on_where_it_was(scene: Scene, cut: int) -> None:
    data = whole(RandomSource(5 * MIB))
    etag = scene.truth.put("c/j/a", data).etag
    scene.proxy.fail(Verb.GET, changed(lambda answer: setattr(answer, "cut", cut)))
    found = bytearray(len(data))
    with scene.store.get("c/j/a", etag=etag) as reading:
        at, problem = read_on(reading, memoryview(found))
    assert isinstance(problem, StoreUnavailable)
    assert cut - 2**18 < at <= cut
    with scene.store.get("c/j/a", at, etag=etag) as reading:
        assert read_on(reading, memoryview(found)[at:]) == (len(data) - at, None)
    assert found == data


def test_a_slow_answer_is_good_and_a_stalled_one_is_not(scene: Scene) -> None:
    data = whole(RandomSource(2**19))
    scene.truth.put("c/j/a", data)
    scene.proxy.fail(Verb.GET, changed(lambda answer: setattr(answer, "pause", 0.05)))
    assert read(scene.store, "c/j/a") == data
    scene.proxy.fail(Verb.GET, changed(lambda answer: setattr(answer, "pause", 30)))
    with scene.store.get("c/j/a") as reading:
        _, problem = read_on(reading, memoryview(bytearray(2**19)))
    assert "broke off" in str(problem)


def wrong_etag(answer: Answer) -> None:
    answer.headers["etag"] = '"another"'


def wrong_range(answer: Answer) -> None:
    answer.headers["content-range"] = "bytes 0-9/100"


def no_range(answer: Answer) -> None:
    del answer.headers["content-range"]


def short(answer: Answer) -> None:
    answer.body = answer.body[:-1]


@pytest.mark.parametrize("change", [wrong_etag, wrong_range, no_range, short])
def test_an_answer_to_another_question_is_damage(
    scene: Scene, change: Callable[[Answer], None]
) -> None:
    etag = scene.truth.put("c/j/a", bytes(100)).etag
    scene.proxy.fail(Verb.GET, changed(change))
    with pytest.raises(ObjectDamaged):
        scene.store.get("c/j/a", 10, 20, etag=etag)
    assert read(scene.store, "c/j/a", 10, 20, etag=etag) == bytes(10)


def test_connections_are_used_again(scene: Scene) -> None:
    scene.store.put("c/j/a", bytes(100_000))
    for _ in range(10):
        read(scene.store, "c/j/a")
        read(scene.store, "c/j/a", 5, 500)
        keys(scene.store)
    assert scene.proxy.connections == 1


# -- checksums and damage on the way -------------------------------------------------------


def test_bytes_damaged_on_the_way_are_sent_again(scene: Scene) -> None:
    scene.proxy.fail(Verb.PUT, refuse(400, "BadDigest"), times=2)
    scene.store.put("c/j/a", b"x")
    assert read(scene.truth, "c/j/a") == b"x"
    scene.proxy.fail(Verb.PUT, refuse(400, "XAmzContentChecksumMismatch"), times=1000)
    with pytest.raises(ObjectDamaged):
        scene.store.put("c/j/b", b"x")


def test_every_write_carries_its_checksum(scene: Scene) -> None:
    sent: list[tuple[Verb, str | None]] = []

    def note(request: Request, forward: Forward) -> Answer:
        headers = {name.lower(): value for name, value in request.headers.items()}
        sent.append((request.verb, headers.get("x-amz-checksum-crc32c")))
        assert "x-amz-trailer" not in headers
        return forward(request)

    scene.proxy.fail(Verb.PUT, note)
    scene.proxy.fail(Verb.UPLOAD_PART, note, times=3)
    scene.store.put("c/j/a", b"123456789")
    upload(scene.store)
    assert sent[0] == (Verb.PUT, "4waSgw==")  # 0xe3069283: the check value of CRC-32C
    assert len([crc for _, crc in sent if crc]) == 4


def test_encryption_and_storage_class_are_asked_for(scene: Scene) -> None:
    seen: list[dict[str, str]] = []

    def note(request: Request, forward: Forward) -> Answer:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return forward(request)

    scene.proxy.fail(Verb.PUT, note, times=2)
    scene.proxy.fail(Verb.CREATE_UPLOAD, note, times=1)
    through = S3Server("proxy", scene.proxy.endpoint)
    kms = s3_options(
        through,
        encryption="aws:kms",
        kms_key_id="the-key",
        storage_class="STANDARD_IA",
        part_bytes=5 * MIB,
    )
    for options in (kms, s3_options(through, encryption="AES256")):
        store = open_store(scene.url, options)
        store.put("c/j/a", b"x")
        upload(store)
        store.close()
    names = ("", "-aws-kms-key-id")
    found = [[head.get(f"x-amz-server-side-encryption{name}") for name in names] for head in seen]
    assert found == [["aws:kms", "the-key"], ["aws:kms", "the-key"], ["AES256", None]]
    assert [head.get("x-amz-storage-class") for head in seen] == ["STANDARD_IA"] * 2 + [None]


def test_stores_of_one_prefix_are_throttled_together(scene: Scene) -> None:
    through = S3Server("proxy", scene.proxy.endpoint)
    same = open_store(scene.url, s3_options(through))
    other = open_store(f"{scene.url}/below", s3_options(through))
    scene.truth.put("c/j/a", b"x")
    scene.proxy.fail(Verb.GET, refuse(503, "SlowDown"))
    read(scene.store, "c/j/a")
    rates = [store._caller.throttle.rate for store in (scene.store, same, other)]  # type: ignore[attr-defined]
    assert rates[0] == rates[1] < rates[2] == float("inf")
    same.close()
    other.close()


# -- objects too long for one request ------------------------------------------------------


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossdock.store.s3.store.MAX_PUT_BYTES", 6 * MIB)


@pytest.mark.usefixtures("low_limit")
@pytest.mark.parametrize("crc32c", [True, False])
def test_a_long_object_goes_by_parts(scene: Scene, crc32c: bool) -> None:
    from crossdock.wire import crc  # noqa: PLC0415

    source = RandomSource(17 * MIB + 3)
    data = whole(source)
    source.longest_read = 0
    given = crc.extend(0, data) if crc32c else None
    info = scene.store.put("c/j/a", source, crc32c=given, if_absent=True)
    assert scene.meter.verbs("ok").count(Verb.UPLOAD_PART) == 4
    assert source.longest_read <= MIB
    assert read(scene.truth, "c/j/a", etag=info.etag) == data
    with pytest.raises(ObjectExists):
        scene.store.put("c/j/a", source, if_absent=True)
    assert not [*scene.truth.uploads("")]


@pytest.mark.usefixtures("low_limit")
def test_a_long_object_that_is_not_its_checksum_is_never_made(scene: Scene) -> None:
    with pytest.raises(ObjectDamaged):
        scene.store.put("c/j/a", BIG, crc32c=1)
    assert not keys(scene.truth)
    assert not [*scene.truth.uploads("")]


# -- credentials ---------------------------------------------------------------------------


def test_expired_credentials_come_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OLD")
    refused: list[str] = []

    def only_new(request: Request, forward: Forward) -> Answer:
        if "Credential=OLD/" not in request.headers["Authorization"]:
            return forward(request)
        refused.append(request.method)
        if len(refused) == 3:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NEW")
        return error(400, "ExpiredToken")

    scene.proxy.fail(Verb.PUT, only_new, times=1000)
    scene.store.put("c/j/a", b"x")
    assert len(refused) == 3
    assert read(scene.truth, "c/j/a") == b"x"


def test_expired_credentials_that_stay_so_are_denied(scene: Scene) -> None:
    scene.proxy.fail(Verb.GET, refuse(400, "ExpiredToken"), times=1000)
    store = scene.impatient()
    with pytest.raises(StoreDenied, match=r"ExpiredToken.*renew"):
        store.get("c/j/a")
    store.close()


@pytest.mark.parametrize(
    "verb", [v for v in Verb if v not in {Verb.GET_VERSIONING, Verb.LIST_VERSIONS}]
)
def test_a_denial_is_final(scene: Scene, verb: Verb) -> None:
    scene.truth.put("c/j/there", b"there")
    fault = scene.proxy.fail(verb, refuse(403, "AccessDenied"), times=1000)
    with pytest.raises(StoreDenied):
        WORK[verb](scene.store)
    if verb is Verb.UPLOAD_PART:  # several parts
        assert fault.hits >= 3
    else:
        assert fault.hits == (3 if verb in WRITES else 1)


@pytest.mark.parametrize("verb", WRITES)
def test_a_write_is_denied_only_after_three_tries(scene: Scene, verb: Verb) -> None:
    """MinIO denies a write into a folder whose last object goes at the same time."""
    scene.truth.put("c/j/there", b"there")
    fault = scene.proxy.fail(verb, refuse(403, "AccessDenied"), times=2)
    WORK[verb](scene.store)
    assert fault.hits == 2


def test_no_credentials_are_said(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StoreDenied, match="environment"):
        scene.store.get("c/j/a")
    assert not scene.proxy.seen
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "again")


def test_no_bucket_is_said(scene: Scene) -> None:
    store = open_store("s3://nothing-here/x", s3_options(scene.server))
    with pytest.raises(StoreDenied, match="NoSuchBucket"):
        store.put("c/j/a", b"x")
    store.close()


def test_a_server_that_is_away_is_unavailable(scene: Scene) -> None:
    away = S3Server("away", "http://127.0.0.1:1")
    store = open_store(scene.url, s3_options(away, deadline_seconds=0.5))
    with pytest.raises(StoreUnavailable, match="endpoint_url") as caught:
        store.put("c/j/a", b"x")
    assert not isinstance(caught.value, StoreUnsure)  # it was never sent
    store.close()


# -- servers that lack something, and servers that lie -------------------------------------


def test_nothing_is_sent_before_it_is_needed(scene: Scene) -> None:
    assert scene.store.url == scene.url
    assert not scene.proxy.seen


def test_a_probe_leaves_nothing(scene: Scene) -> None:
    assert scene.store.capabilities == scene.store.capabilities
    assert sum(scene.proxy.seen.values()) <= 10
    assert not keys(scene.truth)
    assert not [*scene.truth.uploads("")]


def without_condition(request: Request, forward: Forward) -> Answer:
    request.headers = {k: v for k, v in request.headers.items() if k.lower() != "if-none-match"}
    return forward(request)


@pytest.mark.parametrize("how", ["in silence", "with a word"])
@pytest.mark.parametrize("long", [False, True])
def test_a_server_without_conditions(scene: Scene, how: str, long: bool) -> None:
    action = without_condition
    if how == "with a word":

        def action(request: Request, forward: Forward) -> Answer:
            lower = {name.lower() for name in request.headers}
            return error(501, "NotImplemented") if "if-none-match" in lower else forward(request)

    scene.proxy.fail(Verb.PUT, action, times=1000)
    scene.proxy.fail(Verb.COMPLETE_UPLOAD, action, times=1000)
    assert not scene.store.capabilities.conditional_put
    work = upload if long else put_one
    work(scene.store, if_absent=True)
    etag = next(iter(scene.truth.list("c/j/up"))).etag
    with pytest.raises(ObjectExists):
        work(scene.store, if_absent=True)
    assert next(iter(scene.truth.list("c/j/up"))).etag == etag
    assert not [*scene.truth.uploads("")]


@pytest.mark.parametrize("how", ["in silence", "with a word"])
def test_a_server_that_does_not_compare(scene: Scene, how: str) -> None:
    def action(request: Request, forward: Forward) -> Answer:
        lower = {name.lower() for name in request.headers}
        if how == "with a word" and "if-match" in lower:
            return error(501, "NotImplemented")
        request.headers = {k: v for k, v in request.headers.items() if k.lower() != "if-match"}
        return forward(request)

    scene.proxy.fail(Verb.PUT, action, times=1000)
    assert scene.store.capabilities.conditional_put
    assert not scene.store.capabilities.conditional_replace
    first = scene.store.put("c/j/a", b"first")
    second = scene.store.put("c/j/a", b"second", if_match=first.etag)
    with pytest.raises(ObjectExists):
        scene.store.put("c/j/a", b"third", if_match=first.etag)
    with pytest.raises(ObjectMissing):
        scene.store.put("c/j/b", b"third", if_match=first.etag)
    assert read(scene.truth, "c/j/a", etag=second.etag) == b"second"


def test_a_listing_of_uploads_that_hides_them_is_found_out(scene: Scene) -> None:
    def hide(request: Request, forward: Forward) -> Answer:
        answer = forward(request)
        start, _, rest = answer.body.partition(b"<Upload>")
        answer.body = start + rest.rpartition(b"</Upload>")[2]
        return answer

    scene.proxy.fail(Verb.LIST_UPLOADS, hide, times=1000)
    assert not scene.store.capabilities.lists_uploads
    assert not [*scene.truth.uploads("")]


def test_a_listing_that_goes_backwards_is_damage(scene: Scene) -> None:
    for name in "abc":
        scene.truth.put(f"c/j/{name}", b"x")
    scene.proxy.fail(
        Verb.LIST, changed(lambda a: setattr(a, "body", a.body.replace(b"/c</Key>", b"/a</Key>")))
    )
    with pytest.raises(ObjectDamaged, match="listing"):
        keys(scene.store)
    scene.proxy.fail(
        Verb.LIST, changed(lambda a: setattr(a, "body", a.body.replace(b"c/j/a<", b"d/j/a<")))
    )
    with pytest.raises(ObjectDamaged, match="listing"):
        keys(scene.store, "c/")


def test_a_listing_without_an_end_is_damage(scene: Scene) -> None:
    def endless(answer: Answer) -> None:
        answer.body = answer.body.replace(
            b"<IsTruncated>false<",
            b"<NextContinuationToken>again</NextContinuationToken><IsTruncated>true<",
        )

    scene.proxy.fail(Verb.LIST, changed(endless), times=1000)
    with pytest.raises(ObjectDamaged, match="no end"):
        keys(scene.store)
    assert scene.proxy.seen[Verb.LIST] == 2


@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
def test_a_key_that_was_not_deleted_is_deleted_again(scene: Scene, code: str) -> None:
    names = [f"c/j/{n}" for n in range(3)]
    for name in names:
        scene.truth.put(name, b"x")

    def partly(request: Request, forward: Forward) -> Answer:
        full = f"{scene.url.partition('//')[2].partition('/')[2]}/{names[1]}"
        body = f"<DeleteResult><Error><Key>{full}</Key><Code>{code}</Code></Error></DeleteResult>"
        return Answer(200, {"content-type": "application/xml"}, body.encode())

    scene.proxy.fail(Verb.DELETE, partly, times=2)
    scene.store.delete(names)
    assert keys(scene.truth) == [names[0], names[2]]  # which it had said it had deleted
    assert scene.meter.verbs(code) == [Verb.DELETE] * 2


def test_a_key_that_may_not_be_deleted_is_said(scene: Scene) -> None:
    body = b"<DeleteResult><Error><Key>x/c</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    scene.proxy.fail(Verb.DELETE, lambda *_: Answer(200, {}, body))
    with pytest.raises(StoreDenied, match="AccessDenied"):
        scene.store.delete(["c/j/a"])


def test_a_thousand_keys_go_in_a_request(scene: Scene) -> None:
    answer = Answer(200, {"content-type": "application/xml"}, b"<DeleteResult></DeleteResult>")
    scene.proxy.fail(Verb.DELETE, lambda *_: answer, times=3)
    scene.store.delete(f"c/j/{n}" for n in range(2500))
    assert scene.proxy.seen[Verb.DELETE] == 3


def test_an_aborted_upload_is_missing(scene: Scene) -> None:
    gone = refuse(404, "NoSuchUpload")
    scene.proxy.fail(Verb.COMPLETE_UPLOAD, gone, times=1000)
    with pytest.raises(ObjectMissing):
        upload(scene.store)
