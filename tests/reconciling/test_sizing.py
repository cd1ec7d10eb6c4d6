"""How many workers a cluster gets by use: up at once, down one by one, and no flapping."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.records import WorkerInfo
from crossdock_operator.api.cluster import MIB, Autoscaling
from crossdock_operator.plan.contest import CONTEST_SECONDS, CONTESTED_TIMES
from crossdock_operator.plan.sizing import Decision, Past, Reading, decide, read

WINDOW = 60
EVERY = 10.0
SCALING = Autoscaling(min_replicas=1, max_replicas=10, scale_down_after_seconds=WINDOW)


class Cluster:
    """A cluster whose pods are there as soon as they are wanted, under a load."""

    def __init__(self, scaling: Autoscaling = SCALING, *, replicas: int = 3) -> None:
        self.scaling = scaling
        self.replicas = replicas
        self.now = 0.0
        self.past = Past()
        self.said = ""
        self.steps: list[int] = []

    def look(
        self,
        disk: float = 0.0,
        inflight: float = 0.0,
        *,
        settled: bool = True,
        missing: int = 0,
        whole: bool = True,
    ) -> Decision:
        """Decide by one more reading: shares of all pods added up, in pods."""
        self.now += EVERY
        reading = Reading(
            at=self.now,
            workers=self.replicas - missing,
            whole=whole,
            disk=disk,
            inflight=inflight,
        )
        return self.decide(reading, settled=settled)

    def decide(self, reading: Reading | None, *, settled: bool = True) -> Decision:
        found = decide(
            self.scaling,
            reading,
            self.past,
            replicas=self.replicas,
            processes=1,
            settled=settled,
            now=self.now,
            before=self.said,
        )
        self.past = found.past
        self.said = self.said if found.answer is None else found.answer.reason
        if found.replicas != self.replicas:
            self.steps.append(found.replicas - self.replicas)
            self.replicas = found.replicas
        return found


loads = st.floats(0.0, 12.0)


@given(loads, loads, st.integers(1, 10))
def test_a_load_that_stays_moves_it_one_way_and_it_comes_to_rest(
    disk: float, inflight: float, replicas: int
) -> None:
    cluster = Cluster(replicas=replicas)
    for _ in range(200):
        cluster.look(disk, inflight)
    assert not cluster.steps or len({step > 0 for step in cluster.steps}) == 1, "it flaps"
    assert len([step for step in cluster.steps if step > 0]) <= 1, "up is one step"
    needed = max(disk, inflight) / 0.6
    assert needed <= cluster.replicas * 1.1 + 1e-6 or cluster.replicas == 10
    fewer = cluster.replicas - 1
    assert fewer < 1 or needed > fewer * 0.9 - 1e-6, "one less would do"
    at_rest = len(cluster.steps)
    for _ in range(50):
        cluster.look(disk, inflight)
    assert len(cluster.steps) == at_rest


@given(
    st.lists(st.tuples(loads, st.booleans(), st.integers(0, 2)), max_size=80),
    st.integers(1, 4),
    st.integers(0, 6),
)
def test_bounds_and_one_step_down_at_a_time(
    looks: list[tuple[float, bool, int]], least: int, more: int
) -> None:
    scaling = Autoscaling(
        min_replicas=least, max_replicas=least + more, scale_down_after_seconds=WINDOW
    )
    cluster = Cluster(scaling, replicas=least)
    calm = 0
    for disk, settled, missing in looks:
        before, steps = cluster.replicas, len(cluster.steps)
        low = settled and not missing and disk / 0.6 <= (before - 1) * 0.9 + 1e-6
        calm = calm + 1 if low else 0
        cluster.look(disk, settled=settled, missing=min(missing, before - 1))
        assert least <= cluster.replicas <= least + more
        if cluster.replicas < before:
            assert cluster.replicas == before - 1
            assert (calm - 1) * EVERY >= WINDOW, "use was not low for long enough"
        if len(cluster.steps) > steps:
            calm = 0


def test_up_at_once_when_two_readings_agree() -> None:
    cluster = Cluster()
    assert cluster.look(inflight=3.0).replicas == 3, "one reading may be a chance"
    cluster.look(inflight=0.1)
    cluster.look(inflight=3.0)
    assert cluster.replicas == 3
    found = cluster.look(inflight=2.5)
    assert found.replicas == math.ceil(2.5 / 0.6) == 5
    assert found.answer is not None
    assert found.answer.reason == "ScaledUp"
    assert found.answer.message == (
        "from 3 to 5 pods: disk 0% (target 60%), bytes in flight 83% (target 60%)"
    )
    steady = cluster.look(inflight=2.5)
    assert steady.answer is None, "what was said last says why"


def test_down_begins_anew_after_each_step() -> None:
    cluster = Cluster()
    taken = []
    for n in range(30):
        if cluster.look(disk=0.1).replicas < 3 - len(taken):
            taken.append(n)
    assert taken == [6, 13], "the first reading begins the time, and so does each after a step"
    assert cluster.replicas == 1


@pytest.mark.parametrize("hindrance", [{"settled": False}, {"missing": 1}, {"whole": False}])
def test_nothing_goes_while_pods_come_or_somebody_is_away(hindrance: dict[str, Any]) -> None:
    cluster = Cluster()
    for _ in range(20):
        cluster.look(disk=0.1, **hindrance)
    assert cluster.replicas == 3


def test_a_target_may_be_missed_by_a_tenth() -> None:
    cluster = Cluster()
    for disk in (3 * 0.6 * 1.09, 2 * 0.6 * 0.91):
        for _ in range(20):
            cluster.look(disk)
        assert cluster.replicas == 3
    for _ in range(2):
        cluster.look(disk=3 * 0.6 * 1.11)
    assert cluster.replicas == 4


def test_what_is_said_beside_steps() -> None:
    cluster = Cluster(replicas=20)
    found = cluster.decide(None)
    assert (found.replicas, cluster.said) == (10, "IntoBounds")
    cluster.decide(None)
    assert (cluster.replicas, cluster.said) == (10, "NoReadings")
    cluster.look(disk=3.0)
    assert cluster.said == "WithinTargets"
    for _ in range(2):
        cluster.look(disk=9.5)
    assert cluster.said == "AtMaxReplicas"
    cluster.look(disk=6.0)
    assert cluster.said == "WithinTargets"


def info(name: str, **fields: object) -> WorkerInfo:
    data = {"id": name, "incarnation": 1, "url": f"http://{name}", **fields}
    return WorkerInfo.from_json(data)


def test_a_reading_adds_up_who_takes_frames() -> None:
    first = read(
        [info("a", inflight_bytes=MIB, disk_used=0.5, ingested_bytes=100),
         info("b", state="full", disk_used=0.9, ingested_bytes=1000),
         info("c", state="draining", disk_used=0.8, inflight_bytes=MIB)],
        at=1.0, whole=True, max_inflight=4 * MIB, last=None,
    )  # fmt: skip
    assert (first.workers, first.inflight, first.ingest) == (2, 0.25, None)
    assert first.disk == pytest.approx(1.4)
    second = read(
        [info("a", ingested_bytes=600), info("b", incarnation=2, ingested_bytes=3)],
        at=6.0, whole=True, max_inflight=4 * MIB, last=first,
    )  # fmt: skip
    assert second.ingest == 100.0, "what a process took before it began anew is not known"


def test_ingest_counts_where_there_is_a_target() -> None:
    scaling = Autoscaling(
        max_replicas=10,
        target_disk_percent=0,
        target_inflight_percent=0,
        target_ingest_per_second=100 * MIB,
    )
    cluster = Cluster(scaling)
    for at in (1.0, 2.0):
        found = cluster.decide(
            Reading(at=at, workers=3, whole=True, disk=3, inflight=3, ingest=700.0 * MIB)
        )
    assert found.replicas == 7
    assert found.answer is not None
    assert found.answer.message == "from 3 to 7 pods: ingest 233 MiB/s (target 100)"


@pytest.mark.parametrize(("theirs", "disk"), [(12, 5.0), (2, 3.0)])
def test_who_sets_the_number_again_and_again_has_it_for_a_while(theirs: int, disk: float) -> None:
    """Beyond the bounds, and within them."""
    cluster = Cluster(replicas=3)
    for _ in range(20):
        cluster.replicas = theirs
        for _ in range(2):
            cluster.look(disk)
    assert len(cluster.steps) == CONTESTED_TIMES
    assert (cluster.replicas, cluster.said) == (theirs, "Contested")
    cluster.now += CONTEST_SECONDS
    for _ in range(2):
        cluster.look(disk)
    assert len(cluster.steps) == CONTESTED_TIMES + 1, "it tries again"


def test_who_sets_the_number_once_is_followed() -> None:
    cluster = Cluster(replicas=3)
    for replicas in (12, 2):
        cluster.replicas = replicas
        for _ in range(2):
            cluster.look(2.0)
    assert cluster.said == "ScaledUp"
