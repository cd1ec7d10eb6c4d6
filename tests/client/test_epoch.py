"""An owner that was taken over cannot command any more."""

import pytest

import crossdock


def test_a_stale_owner_cannot_release_seal_or_abort(
    two_worker_cluster: crossdock.Cluster, job_uid: str
) -> None:
    old = two_worker_cluster.job(job_uid, owner="runner", epoch=1)
    stale = old.shuffle("words", partitions=4, maps=1)
    with stale.writer(map_id=0, attempt=0) as writer:
        writer.write(1, b"abc")
    new = two_worker_cluster.job(job_uid, owner="runner", epoch=2)
    with pytest.raises(crossdock.StaleEpoch):
        stale.release()
    with pytest.raises(crossdock.StaleEpoch):
        stale.view()
    fresh = new.shuffle("words", partitions=4, maps=1)
    assert [bytes(b.data) for b in fresh.view().read()] == [b"abc"]
