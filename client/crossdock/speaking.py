"""An owner's words to the workers: that the job lives on, and all that is known of it.

A right to write begins when a worker read its clock, not when a word came (lifecycle/words.py). So
each word brings back the newest reading that its worker gave, and a job's first words go out twice.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from crossdock.errors import DataCorrupt, ProtocolError
from crossdock.records import JobRecord, Reading, Word
from crossdock.survey import Members

if TYPE_CHECKING:
    from crossdock.cluster import Cluster


class Speaker:
    """Speaks for one job. Used by one thread at a time."""

    def __init__(self, cluster: "Cluster", path: str) -> None:
        """Args: `path` of the job's URL."""
        self._cluster = cluster
        self._path = path
        self._readings: dict[str, Reading] = {}
        """By worker, the newest."""
        self._agreed = False
        """Whether nobody can have rights from an owner of a lower epoch any more."""

    def speak(
        self, record: JobRecord, released: Mapping[str, int], members: Members
    ) -> list[JobRecord]:
        """Say a word to every worker that answers, and a second one where rights come of it.

        Args:
            record: of the job.
            released: by shuffle, the first generation that is not released.
            members: who there is.

        Returns:
            The records that the workers keep.

        Raises:
            DataCorrupt: the job's files are damaged at every worker.
            JobFenced: the job was ended.
            StaleEpoch: somebody with a higher epoch took it over.
        """
        stored, news = self._round(record, released, members)
        if news:
            again, _ = self._round(record, released, members)
            stored = again or stored
        return stored

    def _round(
        self, record: JobRecord, released: Mapping[str, int], members: Members
    ) -> tuple[list[JobRecord], bool]:
        """Say one word to each; return their records, and whether a second would give rights."""
        gives_rights = self._agreed or not record.epoch
        ids = {info.url: id_ for id_, info in members.reachable.items()}

        def call(url: str) -> tuple[JobRecord, Reading | None, bool]:
            as_of = self._readings.get(ids[url]) if gives_rights else None
            body = json.dumps(Word(record, as_of, released).to_json()).encode()
            with self._cluster.pool.call("PUT", url, self._path, body=body) as response:
                answer = response.read_json()
            kept = record_of(answer)
            assert isinstance(answer, dict)
            reading = answer.get("reading")
            return (
                kept,
                None if reading is None else Reading.from_json(reading),
                answer.get("settled") is True,
            )

        # Where its files are damaged nothing is taken or written for the job: the others matter.
        found = self._cluster.ask_each(members, call, collect=(DataCorrupt,))
        if found.collected and not found.answers:
            raise found.collected[0]
        fresh = False
        for _, reading, _ in found.answers.values():
            if reading is not None:
                known = self._readings.get(reading.worker)
                fresh |= known is None or known.incarnation != reading.incarnation
                self._readings[reading.worker] = reading
        settled = all(settled for _, _, settled in found.answers.values())
        # Who may be mended has not written the epoch down.
        agreed = members.complete and not found.away and not found.collected and settled
        news = fresh if gives_rights else agreed
        self._agreed = self._agreed or agreed
        return [kept for kept, _, _ in found.answers.values()], news


def record_of(described: object) -> JobRecord:
    """Return the record in a worker's description of a job."""
    if not isinstance(described, dict):
        raise ProtocolError("a job's description is no JSON object")
    return JobRecord.from_json(described.get("record"))
