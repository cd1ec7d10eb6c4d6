"""How long jobs that were ended are remembered."""

import json
import time
from pathlib import Path

import pytest

from crossdock.lifecycle.facts import Facts, Stage
from crossdock.records import JobRecord, Owner
from crossdock_worker.tombstones import KEPT_SECONDS, UNPROVED_KEPT_SECONDS, Tombstones
from crossdock_worker.trash import Trash

MONTH, WEEK = UNPROVED_KEPT_SECONDS, KEPT_SECONDS


@pytest.mark.parametrize(
    ("stage", "owner", "age", "stays"),
    [
        (Stage.CLEAN, Owner.RUNNER, WEEK - 60, True),
        (Stage.CLEAN, Owner.RUNNER, WEEK + 60, False),
        (Stage.FENCED, None, WEEK + 60, True),
        (Stage.FENCED, None, MONTH - 60, True),
        (Stage.FENCED, None, MONTH + 60, False),
        (Stage.FENCED, Owner.CLUSTER, MONTH + 60, False),
        (Stage.FENCED, Owner.DRIVER, 100 * MONTH, True),
    ],
)
def test_what_nobody_will_prove_is_forgotten_after_a_month(
    tmp_path: Path, stage: Stage, owner: Owner | None, *, age: float, stays: bool
) -> None:
    """An audit fences jobs of which no worker knows whose they were."""
    trash = Trash(tmp_path / "trash")
    stones = Tombstones(tmp_path / "tombstones", trash)
    record = None if owner is None else JobRecord(owner=owner, lease_seconds=60, grace_seconds=300)
    stones.bury("job", Facts(0, stage), record, stored=False)
    path = tmp_path / "tombstones" / "job.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "fenced_at": time.time() - age}))
    stones = Tombstones(tmp_path / "tombstones", trash)
    assert (stones.forget_old() == []) is stays
    assert path.exists() is stays
    assert ("job" in stones) is stays
