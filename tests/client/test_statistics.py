"""What is read is counted by the tier that it comes from."""

from support import expected, open_job, read, wipe, write

import crossdock
from crossdock import Tier
from harness import started_workers

WINNERS = {0: 0, 1: 0}


def test_reads_are_counted_by_tier() -> None:
    with started_workers(2) as workers, open_job(workers) as job:
        shuffle = job.shuffle("words", partitions=8)
        for m in WINNERS:
            write(shuffle, m, replicas=2, size=5_000)
        view = shuffle.view(WINNERS)
        nbytes = int(view.bytes.sum())
        nothing = crossdock.TierStatistics()
        assert job.cluster.statistics() == dict.fromkeys(Tier, nothing)
        assert (nothing.hit_rate, nothing.mean_seconds) == (1.0, 0.0)

        assert read(view) == expected(shuffle, WINNERS, size=5_000)
        first = job.cluster.statistics()
        assert first[Tier.WORKER].bytes == nbytes
        assert first[Tier.WORKER].hit_rate == 1.0
        assert first[Tier.WORKER].mean_seconds > 0
        assert first[Tier.REPLICA] == first[Tier.STORE] == nothing

        [served] = {share.worker for share in view.shares}
        ids = {w.get_json("/v1/workers")["self"]["id"]: w for w in workers}
        wipe(ids[served])
        assert read(view) == expected(shuffle, WINNERS, size=5_000)
        second = job.cluster.statistics()
        assert second[Tier.REPLICA].bytes == nbytes
        assert second[Tier.REPLICA].hit_rate == 1.0
        assert second[Tier.WORKER].bytes == nbytes
        assert second[Tier.WORKER].misses >= 1
        assert second[Tier.WORKER].hit_rate < 1.0
        assert second[Tier.STORE] == nothing
