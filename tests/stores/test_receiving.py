"""Ranges that stall, break off or are cancelled: the bytes come, once, and nothing stays behind."""

import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from faults import Answer, FaultyProxy, Forward, Request, changed
from places import RandomSource, keys, whole
from servers import S3Server, s3_options

from crossdock import Options
from crossdock.errors import Closed
from crossdock.store.access import Access
from crossdock.store.api import Store, Verb
from crossdock.store.errors import ObjectDamaged, ObjectMissing
from crossdock.store.hedging import Hedging
from crossdock.store.opening import open_store
from crossdock.store.receiving import receive
from harness import eventually

MIB = 2**20
SOURCE = RandomSource(3 * MIB)
KEY = "c/j/object"
PATIENT = 60.0  # far longer than any test here: what waits for this has failed


class Scene:
    """An object behind a proxy that can stall, and what reads it."""

    def __init__(self, proxy: FaultyProxy, store: Store, access: Access) -> None:
        self.proxy = proxy
        self.store = store
        self.access = access

    def read(self, start: int = 0, stop: int = 3 * MIB, etag: str = "") -> bytes:
        return bytes(receive(self.access, KEY, start, stop - start, etag=etag))

    @property
    def quiet(self) -> bool:
        """Whether no request is under way any more that lost."""
        return self.access.hedging.under_way == 0


@pytest.fixture
def hedge_seconds() -> float:
    """After how long without a byte a range is asked for twice."""
    return 1.0


@pytest.fixture
def scene(moto: S3Server, folder: str, hedge_seconds: float) -> Iterator[Scene]:
    url = f"s3://{moto.bucket}/{folder.strip('/')}"
    with FaultyProxy(moto.endpoint) as proxy:
        options = s3_options(S3Server("proxy", proxy.endpoint), stall_seconds=PATIENT)
        store = open_store(url, options)
        store.put(KEY, SOURCE)
        access = Access.to(
            open_store(url, options),
            Options(deadline_seconds=PATIENT, store_hedge_seconds=hedge_seconds, store_threads=3),
        )
        yield Scene(proxy, store, access)
        proxy.heal()
        access.close()
        store.delete(keys(store))
        store.close()


def stalling(proxy: FaultyProxy, after: int) -> Callable[[Request, Forward], Answer]:
    """Answer so many bytes of a range, and then nothing until the test is over."""

    def action(request: Request, forward: Forward) -> Answer:
        answer = forward(request)
        answer.stall = after
        return answer

    return action


def ranges(scene: Scene) -> list[str]:
    return [r.headers["Range"] for r in scene.proxy.requests if r.verb is Verb.GET]


@pytest.mark.parametrize("after", [0, 1, MIB + 7])
def test_a_range_that_stalls_is_asked_for_again_from_the_byte_reached(
    scene: Scene, after: int
) -> None:
    scene.proxy.fail(Verb.GET, stalling(scene.proxy, after))
    began = time.monotonic()
    assert scene.read(100, 2 * MIB) == whole(SOURCE)[100 : 2 * MIB]
    assert time.monotonic() - began < PATIENT / 2
    first, second = ranges(scene)
    assert first == f"bytes=100-{2 * MIB - 1}"
    start = int(second.removeprefix("bytes=").split("-")[0])
    assert 100 + after - 2**18 <= start <= 100 + after, "at most one read is lost"
    eventually(lambda: scene.quiet, what="the end of the request that lost")


def test_a_head_that_does_not_come_is_not_waited_for(scene: Scene) -> None:
    def silent(request: Request, forward: Forward) -> None:
        scene.proxy.released.wait(PATIENT)

    scene.proxy.fail(Verb.GET, silent)
    began = time.monotonic()
    assert scene.read() == whole(SOURCE)
    assert time.monotonic() - began < PATIENT / 2


def test_the_first_request_may_win_after_all(scene: Scene) -> None:
    go_on = threading.Event()

    def pausing(request: Request, forward: Forward) -> Answer:
        answer = forward(request)
        go_on.wait(PATIENT)
        return answer

    def stalled(request: Request, forward: Forward) -> None:
        go_on.set()
        scene.proxy.released.wait(PATIENT)

    scene.proxy.fail(Verb.GET, pausing)
    scene.proxy.fail(Verb.GET, stalled)
    assert scene.read() == whole(SOURCE)
    assert len(ranges(scene)) == 2


def test_memory_and_threads_of_the_loser_come_back(scene: Scene) -> None:
    scene.proxy.fail(Verb.GET, stalling(scene.proxy, MIB))
    data = receive(scene.access, KEY, 0, 3 * MIB, etag="")
    eventually(lambda: scene.quiet)
    assert data == whole(SOURCE)
    del data
    gc.collect()
    assert scene.access.buffers.kept_bytes == 2 * 3 * MIB, "of the winner and of the loser"
    assert len(scene.access.receivers._threads) <= 2 * scene.access.options.store_threads


@pytest.mark.parametrize("hedge_seconds", [3.0])
def test_a_slow_range_that_moves_is_not_asked_for_twice(scene: Scene) -> None:
    scene.proxy.fail(Verb.GET, changed(lambda answer: setattr(answer, "pause", 0.08)))
    assert scene.read() == whole(SOURCE)  # some fifty pauses
    assert len(ranges(scene)) == 1


@pytest.mark.parametrize("hedge_seconds", [30.0])
def test_what_breaks_off_goes_on_and_never_twice(scene: Scene) -> None:
    for cut in (MIB, MIB // 2):
        scene.proxy.fail(Verb.GET, changed(lambda answer, cut=cut: setattr(answer, "cut", cut)))
    assert scene.read() == whole(SOURCE)
    starts = [int(r.removeprefix("bytes=").split("-")[0]) for r in ranges(scene)]
    assert starts[0] == 0
    assert MIB - 2**18 <= starts[1] <= MIB
    assert starts[1] < starts[2] <= starts[1] + MIB // 2


def test_errors_come_through(scene: Scene) -> None:
    info = scene.store.put("c/j/other", b"x" * 10)
    with pytest.raises(ObjectDamaged):
        scene.read(0, 10, etag=info.etag)
    with pytest.raises(ObjectDamaged):
        scene.read(0, 4 * MIB)
    with pytest.raises(ObjectMissing):
        receive(scene.access, "c/j/none", 0, 10, etag="")


def test_closing_ends_a_range_that_stalls(scene: Scene) -> None:
    scene.proxy.fail(Verb.GET, stalling(scene.proxy, MIB), times=10)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            scene.read()
        except Closed as error:
            caught.append(error)

    reading = threading.Thread(target=work)
    reading.start()
    eventually(lambda: len(ranges(scene)) == 2, what="the second request")
    began = time.monotonic()
    scene.access.close()
    reading.join(PATIENT)
    assert time.monotonic() - began < PATIENT / 2
    assert len(caught) == 1


# -- when a range is asked for twice -------------------------------------------------------


def test_few_ranges_are_asked_for_twice() -> None:
    hedging = Hedging(1.0, at_once=4)
    begun = 0
    for _ in range(1_000):
        if hedging.begin():
            begun += 1
            hedging.end()
        hedging.note(0.001)
    assert 50 <= begun <= 55


def test_no_more_are_under_way_than_may_be() -> None:
    hedging = Hedging(1.0, at_once=2)
    assert [hedging.begin() for _ in range(3)] == [True, True, False]
    for _ in range(100):
        hedging.note(0.0)
    assert not hedging.begin(), "those two have not ended"
    hedging.end()
    assert hedging.begin()


def test_what_is_usual_decides_what_is_a_stall() -> None:
    hedging = Hedging(1.0, at_once=2)
    assert hedging.after_seconds == 1.0
    seen = []
    for silence in itertools.repeat(2.0, 100):
        hedging.note(silence)
        seen.append(hedging.after_seconds)
    assert seen == sorted(seen)
    assert 7.5 < seen[-1] <= 8.0
    for _ in range(200):
        hedging.note(0.01)
    assert hedging.after_seconds == 1.0
