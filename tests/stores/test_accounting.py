"""Requests counted by verb, outcome and job, and what they are thought to cost."""

import threading

import pytest

from crossdock.errors import ConfigError
from crossdock.store.accounting import (
    FREE,
    NO_JOB,
    OTHER,
    Count,
    Prices,
    Requests,
    prices_of,
    writes,
)
from crossdock.store.api import Verb
from crossdock.store.layout import ShuffleLayout
from crossdock.views import ShuffleKey

LAYOUT = ShuffleLayout.of("cluster", ShuffleKey("job-1", "sales", 0))


def tell(
    meter: Requests, verb: Verb, key: str, outcome: str = "ok", *, times: int = 1, nbytes: int = 0
) -> None:
    for _ in range(times):
        meter(verb, outcome, key=key, seconds=0.5, nbytes=nbytes)


def test_requests_count_for_the_job_of_their_key() -> None:
    meter = Requests()
    tell(meter, Verb.PUT, LAYOUT.segment("run", 1), times=2, nbytes=10)
    tell(meter, Verb.PUT, LAYOUT.intent("run"), "SlowDown")
    tell(meter, Verb.LIST, "cluster/job-1/")
    tell(meter, Verb.LIST, "cluster/")
    tell(meter, Verb.PUT, ".crossdock-probe/0123/condition")
    assert meter.of_job("job-1") == {
        (Verb.PUT, "ok"): Count(2, 20, 1.0),
        (Verb.PUT, "SlowDown"): Count(1, 0, 0.5),
        (Verb.LIST, "ok"): Count(1, 0, 0.5),
    }
    assert meter.of_job(NO_JOB) == {
        (Verb.LIST, "ok"): Count(1, 0, 0.5),
        (Verb.PUT, "ok"): Count(1, 0, 0.5),
    }
    assert meter.total()[Verb.PUT, "ok"] == Count(3, 20, 1.5)
    assert writes(meter.total()) == 6
    assert meter.jobs() == ["job-1"]


@pytest.mark.parametrize("verb", Verb)
def test_each_verb_has_its_price(verb: Verb) -> None:
    meter = Requests()
    tell(meter, verb, "cluster/job/x", times=1000)
    cheap = {Verb.GET, Verb.HEAD, Verb.GET_LIFECYCLE, Verb.GET_VERSIONING}
    dear = verb not in {*cheap, Verb.DELETE, Verb.ABORT_UPLOAD}
    free = verb in {Verb.DELETE, Verb.ABORT_UPLOAD}
    assert meter.dollars() == pytest.approx(0.005 if dear else 0 if free else 0.0004)
    assert writes(meter.total()) == (1000 if dear else 0)
    assert Requests(FREE).dollars(meter.total()) == 0


def test_prices_are_settings() -> None:
    meter = Requests(Prices(write=1.0, read=2.0, delete=3.0))
    tell(meter, Verb.PUT, "c/j/x")
    tell(meter, Verb.HEAD, "c/j/x")
    tell(meter, Verb.DELETE, "c/k/x")
    assert meter.dollars() == pytest.approx(0.006)
    assert meter.dollars(meter.of_job("j")) == pytest.approx(0.003)


def test_a_store_has_its_prices() -> None:
    assert prices_of("file:///data") == prices_of("hdfs://name/data") == FREE
    assert prices_of("s3://bucket/prefix") == prices_of("gs://bucket") == Prices()
    assert prices_of("file:///data", "1,0.5,0") == Prices(1.0, 0.5, 0.0)


@pytest.mark.parametrize("text", ["1", "1,2", "1,2,3,4", "a,b,c", "1,-2,3", "1,nan,3", "inf,0,0"])
def test_prices_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"WRITE,READ,DELETE"):
        prices_of("s3://bucket", text)


def test_memory_is_bounded_and_nothing_is_lost() -> None:
    meter = Requests(max_jobs=3, max_outcomes=4)
    for n in range(100):
        tell(meter, Verb.GET, f"c/job-{n}/x", outcome=f"code-{n}")
    assert meter.jobs() == ["job-0", "job-1", "job-2"]
    assert {outcome for _, outcome in meter.total()} == {"code-0", "code-1", "code-2", OTHER}
    assert sum(count.requests for count in meter.total().values()) == 100


def test_a_forgotten_job_still_counts_in_the_total() -> None:
    meter = Requests(max_jobs=1)
    tell(meter, Verb.PUT, "c/a/x", times=3)
    before = meter.total()
    assert meter.forget("a") == before
    assert meter.forget("a") == meter.of_job("a") == {}
    meter.forget(NO_JOB)
    assert meter.total() == before
    tell(meter, Verb.PUT, "c/b/x")
    assert meter.jobs() == ["b"]


def test_threads_lose_no_count() -> None:
    meter = Requests()
    threads = [
        threading.Thread(
            target=tell, args=(meter, Verb.GET, f"c/job-{n % 2}/x"), kwargs={"times": 500}
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.of_job("job-0")[Verb.GET, "ok"].requests == 2000
    assert meter.total()[Verb.GET, "ok"].requests == 4000
