"""The worker's HTTP API in one table. docs/protocol.md describes each call."""

import re
from dataclasses import dataclass

from crossdock.wire import names
from crossdock.wire.tokens import Right
from crossdock_worker.api import control, facts, objects, persisting, reading, seals, writing
from crossdock_worker.api.context import Handler


@dataclass(frozen=True, slots=True)
class Route:
    """A call: `right` None means that no token is needed."""

    method: str
    path: str
    handler: Handler
    right: Right | None

    @property
    def template(self) -> str:
        """The path as the documents write it: without patterns of its parameters."""
        return re.sub(":[^}]*", "", self.path)


_SHUFFLE = "/v1/jobs/{job}/shuffles/{shuffle}/{generation}"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/healthz", control.healthz, None),
    Route("GET", "/readyz", control.readyz, None),
    Route("GET", "/metrics", control.metrics, Right.METRICS),
    Route("GET", "/v1/workers", control.list_workers, Right.READ),
    Route("GET", "/v1/facts", facts.get_facts, Right.READ),
    Route("POST", names.RELEASED, writing.take_released, Right.ADMIN),
    Route("POST", "/v1/workers/{worker}/gone", control.declare_gone, Right.ADMIN),
    Route("POST", "/v1/drain", control.begin_drain, Right.ADMIN),
    Route("GET", "/v1/drain", control.get_drain, Right.ADMIN),
    Route("GET", "/v1/jobs", control.list_jobs, Right.ADMIN),
    Route("PUT", "/v1/jobs/{job}", control.put_job, Right.WRITE),
    Route("GET", "/v1/jobs/{job}", control.get_job, Right.READ),
    Route("PUT", "/v1/jobs/{job}/demand", control.put_demand, Right.WRITE),
    Route("POST", "/v1/jobs/{job}/fence", control.fence_job, Right.OWN),
    Route("DELETE", "/v1/jobs/{job}", control.delete_job, Right.OWN),
    Route("PUT", f"{_SHUFFLE}/frames", writing.put_frame, Right.WRITE),
    Route("POST", f"{_SHUFFLE}/frames/list", reading.list_frames, Right.READ),
    Route("DELETE", f"{_SHUFFLE}/attempts/{{map}}/{{attempt}}", writing.abort_attempt, Right.WRITE),
    Route("DELETE", _SHUFFLE, writing.release_shuffle, Right.OWN),
    Route("PUT", f"{_SHUFFLE}/seal", seals.put_seal, Right.WRITE),
    Route("GET", f"{_SHUFFLE}/seal", seals.get_seal, Right.READ),
    Route("PUT", f"{_SHUFFLE}/places/{{digest}}", reading.put_places, Right.READ),
    Route("GET", f"{_SHUFFLE}/places/{{digest}}/blocks", reading.read_places, Right.READ),
    Route("GET", f"{_SHUFFLE}/places/{{digest}}/sizes", reading.block_sizes, Right.READ),
    Route("POST", f"{_SHUFFLE}/blocks", reading.read_attempts, Right.READ),
    Route("POST", f"{_SHUFFLE}/views", reading.make_view, Right.READ),
    Route("POST", f"{_SHUFFLE}/persist", persisting.persist, Right.OWN),
    Route("GET", f"{_SHUFFLE}/runs/{{run}}", persisting.get_record, Right.READ),
    Route("GET", f"{_SHUFFLE}/objects", objects.list_objects, Right.READ),
    Route("GET", f"{_SHUFFLE}/objects/{{key:.+}}", objects.get_object, Right.READ),
    Route("PUT", f"{_SHUFFLE}/views/{{view}}/manifest", persisting.put_manifest, Right.OWN),
)
