"""A persisted view needs no worker, and is the very same view; what is damaged or gone is named."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from persisted import Blocks, blocks_of, flip_byte, objects

import crossdock
from crossdock import BlocksLost, ConfigError, CrossdockError, View
from crossdock.errors import CorruptBlock
from crossdock.persisting import Published
from crossdock.store.errors import ObjectMissing
from crossdock.store.view import StoreView
from harness import QUICK, StartWorker, WorkerProcess, connect_all, eventually

SMALL = {"segment_bytes": 3 * 2**20, "max_frame_bytes": 2**20}


@dataclass
class Cluster:
    """Workers with one store."""

    workers: list[WorkerProcess]
    directory: Path

    @contextmanager
    def job(self, uid: str) -> Iterator[crossdock.Job]:
        options = crossdock.Options(
            frame_bytes=2**19, buffer_bytes=2**21, deadline_seconds=QUICK.deadline_seconds,
            loss_after_seconds=QUICK.loss_after_seconds,
        )  # fmt: skip
        with (
            connect_all(self.workers, options=options) as cluster,
            cluster.job(uid, owner="runner") as job,
        ):
            yield job

    def objects(self, part: str = "") -> list[Path]:
        """Return the objects in the store whose keys have `part`."""
        return objects(self.directory, part)

    def kill(self) -> None:
        for worker in self.workers:
            worker.kill9()


@pytest.fixture
def cluster(start_worker: StartWorker, tmp_path: Path) -> Cluster:
    store = (tmp_path / "store").as_uri()
    return Cluster([start_worker(store=store, **SMALL) for _ in range(2)], tmp_path / "store")


def write(shuffle: crossdock.Shuffle, map_id: int, attempt: int = 0, *, size: int = 3000) -> None:
    """Write blocks of random sizes, some empty, two pieces each now and then."""
    rng = random.Random(f"{map_id} {attempt}")
    with shuffle.writer(map_id=map_id, attempt=attempt) as writer:
        for _ in range(2):
            for p in range(shuffle.partitions):
                if rng.random() < 0.7:
                    writer.write(p, rng.randbytes(rng.randrange(size)), rows=rng.randrange(5))


def opened(published: Published) -> StoreView:
    return crossdock.open_view(
        published.store, published.job, published.shuffle, published.view,
        generation=published.generation, cluster=published.cluster,
    )  # fmt: skip


def test_a_persisted_view_is_read_with_every_worker_dead(cluster: Cluster, job_uid: str) -> None:
    with cluster.job(job_uid) as job:
        shuffle = job.shuffle("words", partitions=40, maps=12)
        for m in range(12):
            write(shuffle, m, size=40_000)
        view = shuffle.view()
        expected = blocks_of(view)
        seen = []
        published = view.persist(on_progress=seen.append)
        cluster.kill()
    assert seen[-1].persisted_bytes == seen[-1].total_bytes == int(view.bytes.sum())
    assert len(cluster.objects("segments")) >= 4
    with opened(published) as stored:
        assert blocks_of(stored) == expected
        assert stored.id == view.id
        assert stored.winners == view.winners
        for mine, theirs in ((stored.bytes, view.bytes), (stored.rows, view.rows)):
            assert (mine == theirs).all()
        assert (stored.blocks == view.blocks).all()
        assert blocks_of(stored, partitions=range(7, 19)) == [b for b in expected if 7 <= b[0] < 19]
        some = [b for b in expected if 3 <= b[0] < 30 and 2 <= b[1] < 9]
        assert blocks_of(stored, partitions=range(3, 30), maps=range(2, 9)) == some
        assert blocks_of(stored, maps=range(4)) == [b for b in expected if b[1] < 4]
        assert blocks_of(stored, partitions=range(5, 5)) == []
        with pytest.raises(ConfigError, match="partitions 0 to 41 is outside"):
            stored.read_batches(range(41))


def test_no_object_is_larger_than_the_bound_and_all_end_with_the_job_directory(
    cluster: Cluster, job_uid: str
) -> None:
    with cluster.job(job_uid) as job:
        shuffle = job.shuffle("big", partitions=2, maps=6)
        for m in range(6):
            with shuffle.writer(map_id=m, attempt=0) as writer:
                for _ in range(4):
                    writer.write(1, random.Random(m).randbytes(500_000), rows=1)
        view = shuffle.view()
        expected = blocks_of(view)
        published = view.persist()
    segments = cluster.objects("segments")
    assert len(segments) >= 4, "one partition of several segments"
    assert max(p.stat().st_size for p in segments) <= SMALL["segment_bytes"]
    assert not cluster.objects("intents"), "a run that is over leaves no intent"
    assert all(f"default/{job_uid}/" in str(p) for p in cluster.objects())
    with opened(published) as stored:
        assert blocks_of(stored) == expected


def test_persisting_again_writes_nothing_and_a_new_view_reuses_the_segments(
    cluster: Cluster, job_uid: str
) -> None:
    with cluster.job(job_uid) as job:
        shuffle = job.shuffle("again", partitions=9, maps=5)
        for m in range(5):
            write(shuffle, m)
        first = shuffle.view(dict.fromkeys(range(5), 0))
        first.persist()
        before = cluster.objects()
        assert first.persist() == first.persist()
        assert cluster.objects() == before

        write(shuffle, 3, attempt=1)
        second = shuffle.view({m: int(m == 3) for m in range(5)})
        expected = blocks_of(second)
        published = second.persist()
        new = [p for p in cluster.objects("segments") if p not in before]
        assert (
            sum(p.stat().st_size for p in new)
            < sum(p.stat().st_size for p in before if "segments" in str(p)) / 2
        ), "only the map that ran again was sent"
        cluster.kill()
    with opened(published) as stored:
        assert blocks_of(stored) == expected
        assert stored.winners[3] == 1


def test_a_restarted_worker_remembers_what_it_has_persisted(cluster: Cluster, job_uid: str) -> None:
    with cluster.job(job_uid) as job:
        shuffle = job.shuffle("restart", partitions=9, maps=4)
        for m in range(4):
            write(shuffle, m)
        view = shuffle.view()
        published = view.persist()
        before = cluster.objects()
        cluster.kill()
        for worker in cluster.workers:
            worker.start()
        assert shuffle.view().persist() == published
    assert cluster.objects() == before


@pytest.mark.parametrize("maps", [0, 1])
def test_views_without_data_are_published_too(cluster: Cluster, job_uid: str, maps: int) -> None:
    with cluster.job(job_uid) as job:
        shuffle = job.shuffle("empty", partitions=3, maps=maps)
        for m in range(maps):
            with shuffle.writer(map_id=m, attempt=0):
                pass
        published = shuffle.view(dict.fromkeys(range(maps), 0)).persist()
    with opened(published) as stored:
        assert blocks_of(stored) == []
        assert stored.winners == dict.fromkeys(range(maps), 0)
        assert stored.bytes.tolist() == [0, 0, 0]


def test_ten_thousand_small_partitions_share_a_segment(cluster: Cluster, job_uid: str) -> None:
    with cluster.job(job_uid) as job:
        shuffle = job.shuffle("small", partitions=10_000, maps=2)
        for m in range(2):
            with shuffle.writer(map_id=m, attempt=0) as writer:
                for p in range(10_000):
                    writer.write(p, b"%d %d " % (p, m) * 10, rows=1)
        view = shuffle.view()
        expected = blocks_of(view)
        published = view.persist()
    assert len(cluster.objects("segments")) <= 4
    with opened(published) as stored:
        assert blocks_of(stored) == expected
        assert blocks_of(stored, partitions=range(7777, 7778)) == [
            b for b in expected if b[0] == 7777
        ]


def test_a_single_partition_is_persisted_and_read(cluster: Cluster, job_uid: str) -> None:
    """Of several segments, from a batch for each map to one that has many."""
    with cluster.job(job_uid) as job:
        shuffle = job.shuffle("one", partitions=1, maps=12)
        for m in range(12):
            with shuffle.writer(map_id=m, attempt=0) as writer:
                for _ in range(m % 4):
                    writer.write(0, random.Random(m).randbytes(m * 60_000), rows=m)
        view = shuffle.view()
        expected = blocks_of(view)
        assert [b[1] for b in expected] == [m for m in range(12) if m % 4]
        published = view.persist()
    assert len(cluster.objects("segments")) > 2
    cluster.kill()
    with opened(published) as stored:
        assert blocks_of(stored) == expected
        assert blocks_of(stored, maps=range(5, 8)) == [b for b in expected if 5 <= b[1] < 8]
        assert stored.blocks.tolist() == [9]
        assert int(stored.rows[0]) == sum(b[3] for b in expected)


def published_alone(cluster: Cluster, job_uid: str) -> tuple[Published, Blocks]:
    with cluster.job(job_uid) as job:
        shuffle = job.shuffle("hurt", partitions=30, maps=8)
        for m in range(8):
            write(shuffle, m, size=60_000)
        view = shuffle.view()
        return view.persist(), blocks_of(view)


def test_one_flipped_byte_is_named_by_object_offset_partition_and_map(
    cluster: Cluster, job_uid: str
) -> None:
    published, expected = published_alone(cluster, job_uid)
    segment = cluster.objects("segments")[0]
    data = segment.read_bytes()
    block = max(expected, key=lambda b: len(b[2]) if b[2][:50] in data else 0)
    at = data.index(block[2][:50])
    flip_byte(segment, at + 20)
    key = str(segment.relative_to(cluster.directory))
    with opened(published) as stored:
        with pytest.raises(CorruptBlock) as caught:
            blocks_of(stored)
        said = str(caught.value)
        assert key in said
        assert f"offset {at}" in said
        assert f"map {block[1]} attempt 0 partition {block[0]}" in said
        others = [b for b in expected if b[0] < block[0] - 12]
        assert blocks_of(stored, partitions=range(max(0, block[0] - 12))) == others


def test_a_segment_that_is_gone_names_exactly_the_maps_inside(
    cluster: Cluster, job_uid: str, tmp_path: Path
) -> None:
    with cluster.job(job_uid) as job:
        shuffle = job.shuffle("gone", partitions=6, maps=6)
        for m in range(6):  # map m has data in partition m alone, more than fits one segment
            with shuffle.writer(map_id=m, attempt=0) as writer:
                for _ in range(3):
                    writer.write(m, random.Random(m).randbytes(700_000), rows=1)
        published = shuffle.view().persist()
    with opened(published) as stored:
        whole = blocks_of(stored)
        for segment in cluster.objects("segments"):
            kept = segment.read_bytes()
            aside = segment.rename(tmp_path / "aside")
            inside = {m for p, m, data, _ in whole if data[:60] in kept or data[-60:] in kept}
            inside |= {m for _, m, data, _ in whole if data[700_000:700_060] in kept}
            with pytest.raises(BlocksLost) as caught:
                blocks_of(stored)
            assert {m.map_id for m in caught.value.missing} == inside
            aside.rename(segment)


def test_what_is_persisted_again_replaces_a_manifest_whose_segments_are_gone(
    cluster: Cluster, start_worker: StartWorker, job_uid: str
) -> None:
    def persisted() -> tuple[Published, Blocks]:
        with cluster.job(job_uid) as job:
            shuffle = job.shuffle("again", partitions=5, maps=3)
            for m in range(3):
                write(shuffle, m)
            view = shuffle.view(dict.fromkeys(range(3), 0))
            return view.persist(), blocks_of(view)

    cluster.workers = cluster.workers[:1]  # frames are cut by worker, and are to be the same
    published, expected = persisted()
    cluster.kill()
    for segment in cluster.objects("segments"):
        segment.unlink()
    with opened(published) as stored, pytest.raises(BlocksLost):
        blocks_of(stored)
    # The maps run again on workers with empty disks, and write the same.
    cluster.workers = [start_worker(store=cluster.directory.as_uri(), **SMALL)]
    assert persisted() == (published, expected)
    cluster.kill()
    with opened(published) as stored:
        assert blocks_of(stored) == expected


def test_a_view_that_was_not_published_is_told_with_the_remedy(
    cluster: Cluster, job_uid: str
) -> None:
    with pytest.raises(ObjectMissing, match=r"view aabb of shuffle 'words'.*view\.persist\(\)"):
        crossdock.open_view(cluster.directory.as_uri(), job_uid, "words", "aabb")


def test_workers_that_were_not_told_of_the_job_yet_are_passed_over(
    start_worker: StartWorker, tmp_path: Path, job_uid: str
) -> None:
    """They were away when it was registered, and are back; any worker publishes a view."""
    store = (tmp_path / "store").as_uri()
    cluster = Cluster([start_worker(store=store, **SMALL) for _ in range(4)], tmp_path / "store")
    for worker in cluster.workers[:-1]:
        worker.kill9()
    with cluster.job(job_uid) as job:
        shuffle = job.shuffle("words", partitions=2)
        write(shuffle, 0)
        view = shuffle.view({0: 0})
        for worker in cluster.workers[:-1]:
            worker.start()
        published = view.persist()
        assert blocks_of(opened(published)) == blocks_of(view)


def test_workers_without_a_store_say_so(worker: WorkerProcess, job_uid: str) -> None:
    with connect_all([worker]) as found, found.job(job_uid, owner="runner") as job:
        shuffle = job.shuffle("none", partitions=2, maps=1)
        write(shuffle, 0)
        for persist in (shuffle.view().persist, shuffle.view().try_persist):
            with pytest.raises(ConfigError, match=r"no store.*--store URL"):
                persist()
        job.end()


def test_a_view_is_persisted_without_waiting_for_it(cluster: Cluster, job_uid: str) -> None:
    with cluster.job(job_uid) as job:
        shuffle = job.shuffle("words", partitions=20, maps=6)
        for map_id in range(6):
            write(shuffle, map_id)
        view = shuffle.view()
        expected = blocks_of(view)
        assert view.try_persist() is None, "both workers have only begun"
        published = eventually(view.try_persist, what="the view in the store")
        assert published is not None
        cluster.kill()
        assert blocks_of(opened(published)) == expected


def test_two_clients_persist_one_view_at_once_and_agree(cluster: Cluster, job_uid: str) -> None:
    with cluster.job(job_uid) as job:
        shuffle = job.shuffle("race", partitions=20, maps=6)
        for m in range(6):
            write(shuffle, m, size=30_000)
        expected = blocks_of(shuffle.view())
        with connect_all(cluster.workers) as other, ThreadPoolExecutor(4) as pool:
            views = [
                shuffle.view(),
                other.job(job_uid).shuffle("race", partitions=20, maps=6).view(),
            ]
            published = list(pool.map(View.persist, [*views, *views]))
    assert len(set(published)) == 1
    assert len(cluster.objects("views")) == 1
    assert len(cluster.objects("records")) == 2, "each worker sent its part once"
    with opened(published[0]) as stored:
        assert blocks_of(stored) == expected


def test_a_released_shuffle_is_not_persisted_any_more(cluster: Cluster, job_uid: str) -> None:
    with cluster.job(job_uid) as job:
        shuffle = job.shuffle("released", partitions=2, maps=1)
        write(shuffle, 0)
        view = shuffle.view()
        shuffle.release()
        with pytest.raises(CrossdockError, match="released"):
            view.persist()
    assert not cluster.objects("segments")


def test_requests_are_counted_by_job_and_a_shuffle_that_is_not_persisted_costs_none(
    cluster: Cluster, job_uid: str
) -> None:
    with cluster.job(job_uid) as job, cluster.job(f"{job_uid}-2") as other:
        for each in (job, other):
            shuffle = each.shuffle("counted", partitions=5, maps=2)
            for m in range(2):
                write(shuffle, m)
        view = job.shuffle("counted", partitions=5, maps=2).view()
        blocks_of(other.shuffle("counted", partitions=5, maps=2).view())
        view.persist()
        asked = [w.get_json(f"/v1/jobs/{job_uid}")["store"] for w in cluster.workers]
        spared = [w.get_json(f"/v1/jobs/{job_uid}-2")["store"] for w in cluster.workers]
        said = cluster.workers[0].request("GET", "/metrics").body.decode()
    assert sum(s["persisted_bytes"] for s in asked) == int(view.bytes.sum())
    assert sum(s["writes"] for s in asked) == 3 * 2 + 1, "intent, segment, record; one manifest"
    assert all(s["dollars"] == 0 for s in asked), "directories bill nothing"
    assert sum(s["verbs"].get("PutObject", {}).get("ok", 0) for s in asked) == 3 * 2 + 1
    assert [each.pop("verbs") for each in spared] == [{}] * len(spared)
    assert sum(each.pop("only_here_bytes") for each in spared) > 0, "nobody else has them"
    assert all(set(each.values()) == {0} for each in spared)
    assert 'crossdock_store_requests_total{outcome="ok",verb="PutObject"}' in said


def test_requests_cost_what_the_settings_say(
    start_worker: StartWorker, tmp_path: Path, job_uid: str
) -> None:
    store = (tmp_path / "store").as_uri()
    priced = Cluster([start_worker(store=store, store_prices="1000,0,0", **SMALL)], tmp_path)
    with priced.job(job_uid) as job:
        shuffle = job.shuffle("counted", partitions=5, maps=1)
        write(shuffle, 0)
        shuffle.view().persist()
        asked = priced.workers[0].get_json(f"/v1/jobs/{job_uid}")["store"]
    assert asked["dollars"] == asked["writes"] > 0
