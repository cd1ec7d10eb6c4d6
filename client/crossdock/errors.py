"""Every error of Crossdock, on both sides of the wire.

    CrossdockError
    ├── ConfigError             a setting or argument is wrong; nothing was sent
    │   └── JobFileError        a job file is wrong; `problems` says all that is, by line and field
    ├── Closed                  closed or given up by this process while the call went on, or before
    ├── ProtocolError           bytes that are not what docs/protocol.md says
    │   ├── FrameError          a frame is malformed or damaged
    │   └── FrameTooLarge       a frame is over the worker's limit
    ├── AccessError             the token does not open this
    │   ├── Unauthenticated     no token, or not one of ours, or expired
    │   └── Forbidden           a good token without the right that is needed
    ├── Gone                    asking again cannot help
    │   ├── JobUnknown          no worker was told of this job
    │   ├── JobFenced           the job was ended
    │   ├── StaleEpoch          somebody with a higher epoch took the job over
    │   ├── ShuffleReleased     this generation of the shuffle was released
    │   ├── SealLost            every home of the job's seals is lost, and the choice with it
    │   ├── SealHomeClosed      this home left its seals to others (the client asks the next one)
    │   ├── ShuffleUnknown      no frame of this shuffle ever came
    │   └── PlacesUnknown       these places are not registered (the reader registers them again)
    ├── Conflict                two who both say they are the same
    │   ├── AttemptConflict     one (map, attempt, seq), two writers or contents
    │   ├── ShuffleMismatch     partitions or settings differ from what the shuffle has
    │   └── SchemaMismatch      rows of Arrow whose columns differ from what others have
    ├── AttemptsMissing         some attempts are not there; `missing` says which, and why
    │   ├── BlocksLost          confirmed loss: exactly these must run again
    │   ├── ShuffleIncomplete   some map has no complete attempt yet
    │   └── AttemptsElsewhere   not whole on the worker asked; others may have the rest
    ├── QuotaExceeded           the job's own quota is full
    ├── DataCorrupt             bytes on a disk are not what was acked
    │   └── CorruptBlock        a piece came damaged; another copy may be sound
    └── Unavailable             not now; nothing is lost
        ├── Overloaded          a worker pushes back
        ├── LeaseEnded          the job's owner was not heard for its lease; a word revives it
        ├── WorkersLost         no worker is left that answers, or that is waited for
        ├── CleanupUnfinished   what was to be deleted is not proved to be gone; begin again
        └── PeerGone            the other side closed the connection, or moved no byte for too long

`code` is stable and travels in HTTP error bodies; `hint` says what to do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final


class CrossdockError(Exception):
    """Base of all errors of Crossdock."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    hint: str = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or type(self).hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def to_json(self) -> dict[str, object]:
        """Return the body of the HTTP error response that carries this error."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


class ConfigError(CrossdockError):
    """A setting or an argument is wrong; nothing was sent."""

    code = "config"
    status = 400


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong in a file."""

    file: str
    line: int
    field: str
    """Path of the field; empty for the document."""
    what: str
    """What is wrong, to be read after the field."""
    remedy: str = ""

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{self.file}:{self.line}: {field}{self.what}{remedy}"


class JobFileError(ConfigError):
    """A job file is wrong; `problems` has all that is. Its code is that of `ConfigError`."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        count = len(self.problems)
        files = ", ".join(dict.fromkeys(p.file for p in self.problems))
        head = f"{count} problem{'s' if count != 1 else ''} in {files}"
        super().__init__("\n".join([head, *map(str, self.problems)]))


class Closed(CrossdockError):
    """The cluster was closed, or the attempt given up, while the call went on, or before it."""

    code = "closed"


class ProtocolError(CrossdockError):
    """Bytes or parameters that are not what docs/protocol.md says."""

    code = "protocol"
    status = 400


class FrameError(ProtocolError):
    """A frame is malformed or was damaged on its way."""

    code = "frame"
    hint = "push the frame again; if it fails again, the writer builds it wrongly"


class FrameTooLarge(ProtocolError):
    """A frame is over the worker's limit; the same frame will never be taken."""

    code = "frame_too_large"
    status = 413
    hint = "make smaller frames, or raise the worker's --max-frame-bytes"


class AccessError(CrossdockError):
    """The token does not open this."""

    code = "access"
    status = 403


class Unauthenticated(AccessError):
    """No token, not one of ours, or an expired one."""

    code = "unauthenticated"
    status = 401
    hint = "pass token=, or set CROSSDOCK_TOKEN or CROSSDOCK_TOKEN_FILE"


class Forbidden(AccessError):
    """A good token that lacks the right, or is for another job."""

    code = "forbidden"


class Gone(CrossdockError):
    """Asking again cannot help."""

    code = "gone"
    status = 410


class JobUnknown(Gone):
    """The worker was never told of this job."""

    code = "job_unknown"
    status = 404
    hint = "its owner registers it: cluster.job(uid, owner=…)"


class JobFenced(Gone):
    """The job was ended; nothing of it is taken or served any more."""

    code = "job_fenced"


class StaleEpoch(Gone):
    """Somebody with a higher epoch has taken the job over."""

    code = "stale_epoch"
    status = 409


class ShuffleReleased(Gone):
    """This generation of the shuffle was released."""

    code = "shuffle_released"


class ShuffleUnknown(Gone):
    """No frame of this shuffle ever reached the worker."""

    code = "shuffle_unknown"
    status = 404


class SealLost(Gone):
    """Every home of the job's seals is lost: what was chosen is not known, and cannot be again."""

    code = "seal_lost"
    hint = "pass the winners to view(), or register the job anew under another uid and run its maps"


class SealHomeClosed(Gone):
    """This home of seals makes none any more, and has none of this shuffle: ask the next one."""

    code = "seal_home_closed"
    status = 409
    hint = "the next home decides; when all are closed, a worker with the store (?in=store)"


class PlacesUnknown(Gone):
    """The worker does not know these places (any more): register them again."""

    code = "places_unknown"
    status = 404


NOT_HERE: Final = (JobUnknown, ShuffleUnknown, PlacesUnknown)
"""How a worker says that it has nothing of what it was asked for; others may have it."""


class Conflict(CrossdockError):
    """Two who both claim to be the same."""

    code = "conflict"
    status = 409


class AttemptConflict(Conflict):
    """One (map, attempt, seq) came from two writers, or with two contents."""

    code = "attempt_conflict"
    hint = "give every try of a map its own attempt number"


class ShuffleMismatch(Conflict):
    """The partition count differs from what the shuffle was made with."""

    code = "shuffle_mismatch"


class SchemaMismatch(Conflict):
    """Rows of Arrow whose columns differ from the writer's schema, or those of another map."""

    code = "schema_mismatch"
    hint = "all tasks that write a shuffle declare the same schema"


@dataclass(frozen=True, slots=True, order=True)
class Missing:
    """One attempt that a view needs and does not have, and why."""

    map_id: int
    attempt: int
    reason: str

    def __str__(self) -> str:
        return f"map {self.map_id} attempt {self.attempt}: {self.reason}"


class AttemptsMissing(CrossdockError):
    """Some attempts are not there; `missing` says which, and why."""

    code = "attempts_missing"
    status = 409

    def __init__(self, missing: Sequence[Missing], *, message: str = "", hint: str = "") -> None:
        self.missing: tuple[Missing, ...] = tuple(sorted(missing))
        listed = "; ".join(map(str, self.missing[:5]))
        more = f"; and {len(self.missing) - 5} more" if len(self.missing) > 5 else ""
        super().__init__(
            message or f"blocks of {len(self.missing)} attempts are missing: {listed}{more}",
            hint=hint,
        )

    @property
    def attempts(self) -> list[tuple[int, int]]:
        """The missing (map, attempt) pairs, sorted."""
        return [(m.map_id, m.attempt) for m in self.missing]

    def to_json(self) -> dict[str, object]:
        rows = [[m.map_id, m.attempt, m.reason] for m in self.missing]
        return {**super().to_json(), "missing": rows}


class BlocksLost(AttemptsMissing):
    """Confirmed loss. `missing` has exactly the attempts that must run again."""

    code = "blocks_lost"
    status = 410
    hint = "run these maps again under new attempts"


class AttemptsElsewhere(AttemptsMissing):
    """Attempts are not whole on the worker that was asked; others may have the rest."""

    code = "attempts_elsewhere"
    hint = "ask the others too, with partial=true, or make a view"

    def __init__(
        self,
        missing: Sequence[Missing],
        *,
        message: str = "",
        hint: str = "",
        records: Sequence[str] = (),
    ) -> None:
        super().__init__(missing, message=message, hint=hint)
        self.records = tuple(records)
        """Keys within the shuffle of objects that say where the store has what was here."""

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), "records": list(self.records)}


class ShuffleIncomplete(AttemptsMissing):
    """A seal was asked for while some map has no complete attempt; `missing` names the maps."""

    code = "shuffle_incomplete"
    hint = "wait for these maps, or run them"

    def __init__(self, missing: Sequence[Missing], *, message: str = "", hint: str = "") -> None:
        maps = ", ".join(str(m.map_id) for m in sorted(missing)[:10])
        more = ", …" if len(missing) > 10 else ""
        text = message or f"{len(missing)} maps have no complete attempt: {maps}{more}"
        super().__init__(missing, message=text, hint=hint)


class QuotaExceeded(CrossdockError):
    """The job's own quota is full: only releasing its shuffles helps."""

    code = "quota_exceeded"
    status = 507
    hint = "release shuffles that are consumed, or raise the job's quota"


class DataCorrupt(CrossdockError):
    """Bytes on a disk are not what was acked."""

    code = "data_corrupt"
    status = 500


class CorruptBlock(DataCorrupt):
    """A piece that came damaged from a worker; another copy may be sound."""

    code = "corrupt_block"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        frames: Mapping[tuple[int, int, int], str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.frames = dict(frames or {})
        """What is wrong with each damaged frame (map, attempt, seq)."""


class Unavailable(CrossdockError):
    """Not now. Nothing is lost; the deadline of the call has passed."""

    code = "unavailable"
    status = 503
    retry_after_seconds: float = 1.0


class Overloaded(Unavailable):
    """A worker is at one of its limits and pushes back."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class LeaseEnded(Unavailable):
    """The job's owner was not heard for its lease; its next word revives the job."""

    code = "lease_ended"


class WorkersLost(Unavailable):
    """No worker answers, and all have been away for so long that what they held counts as lost.

    Calls that need a worker still wait for one; what asks for data says what is lost.
    """


class CleanupUnfinished(Unavailable):
    """What was to be deleted is not proved to be gone in time. Delete it again: that goes on."""

    code = "cleanup_unfinished"


class PeerGone(Unavailable):
    """The other side closed the connection, or moved no byte for too long."""

    code = "peer_gone"
