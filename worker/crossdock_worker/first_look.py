"""What a worker looks for in its store when it starts; all of it blocks."""

from dataclasses import asdict

import structlog

from crossdock.errors import CrossdockError
from crossdock.store.api import Store
from crossdock.store.buckets import each_bucket
from crossdock.store.probes import clear_old_probes
from crossdock.store.versions import HasVersions

log = structlog.get_logger()


def look_at(store: Store) -> None:
    """Say what the store can do; it is found out now, before anything rests on it."""
    try:
        found = store.capabilities
    except CrossdockError as error:
        log.warning("store does not answer yet", store=store.url, problem=str(error))
        return
    log.info("store is there", store=store.url, **asdict(found))
    for bucket in each_bucket(store):
        try:
            _warn_of_versions(bucket)
            clear_old_probes(bucket)
        except CrossdockError as error:  # an audit looks too, and the next start
            log.warning("what probes have left stays for now", problem=str(error))


def _warn_of_versions(bucket: Store) -> None:
    if isinstance(bucket, HasVersions) and bucket.keeps_versions():
        log.warning(
            "bucket keeps versions", store=bucket.url,
            problem="what is deleted stays there as older versions, and is paid for",
            hint=f"crossdock store lifecycle --store {bucket.url} --apply",
        )  # fmt: skip
