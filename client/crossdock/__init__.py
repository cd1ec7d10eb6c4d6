"""Crossdock: a remote shuffle service. What an executor imports.

import crossdock

cluster = crossdock.connect(["http://127.0.0.1:7070"], token=…)
job = cluster.job("job-uid", owner="runner")
shuffle = job.shuffle("words", partitions=200, maps=M)
with shuffle.writer(map_id=3) as w:
    w.write(partition, data, rows=n)
for block in shuffle.view().read(partitions=range(8, 12)):
    block.partition, block.map_id, block.data, block.rows
"""

from crossdock.blocks import Block, BlockBatch
from crossdock.cluster import Cluster, connect
from crossdock.errors import (
    AccessError,
    AttemptConflict,
    AttemptsMissing,
    BlocksLost,
    Closed,
    ConfigError,
    Conflict,
    CrossdockError,
    DataCorrupt,
    Forbidden,
    FrameError,
    FrameTooLarge,
    Gone,
    JobFenced,
    JobUnknown,
    Missing,
    Overloaded,
    ProtocolError,
    QuotaExceeded,
    SchemaMismatch,
    SealLost,
    ShuffleIncomplete,
    ShuffleMismatch,
    ShuffleReleased,
    ShuffleUnknown,
    StaleEpoch,
    Unauthenticated,
    Unavailable,
)
from crossdock.job import Job
from crossdock.options import Options
from crossdock.shuffle import Shuffle
from crossdock.statistics import ReadStatistics, Tier, TierStatistics
from crossdock.store.view import StoreView, open_view
from crossdock.tasks import Task, task
from crossdock.view import View
from crossdock.writer import Writer

__all__ = [
    "AccessError", "AttemptConflict", "AttemptsMissing", "Block", "BlockBatch", "BlocksLost",
    "Closed", "Cluster", "ConfigError", "Conflict", "CrossdockError", "DataCorrupt",
    "Forbidden", "FrameError", "FrameTooLarge", "Gone", "Job", "JobFenced", "JobUnknown",
    "Missing", "Options", "Overloaded", "ProtocolError", "QuotaExceeded", "ReadStatistics",
    "SchemaMismatch", "SealLost", "Shuffle", "ShuffleIncomplete", "ShuffleMismatch",
    "ShuffleReleased", "ShuffleUnknown", "StaleEpoch", "StoreView", "Task", "Tier",
    "TierStatistics", "Unauthenticated", "Unavailable", "View", "Writer", "connect", "open_view",
    "task",
]  # fmt: skip
