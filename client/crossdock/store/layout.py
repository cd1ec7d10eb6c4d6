"""Where things lie in a store. The only place that makes or takes apart a key.

    {cluster}/{job}/{hash}/{shuffle}/{generation}/
        intents/{run}                what a persist run may bring into being, before its first write
        intents/{run}.{n}            and before its segment n × INTENT_ORDINALS: n is 1 or more
        segments/{run}/{ordinal}     pieces and a footer (segment.py)
        records/{run}                which frames a finished run has put where (records.py)
        records/{run}.log            frames that were to be here before their acks (logs.py)
        views/{view id}              a manifest
        seal                         the choice of winners, left by its home (seals.py)
    {cluster}/{job}/homes/{worker}   a home of the job's seals that has left all of them

`{hash}` is the same for all keys of one shuffle and differs between shuffles, so a store that
splits its load by key prefix spreads them, and one shuffle is deleted by one prefix. A run's name
is drawn anew by whoever runs it, so no key is ever used twice: a request that was thought to have
failed can only ever bring back what its own run's intent names.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Final, NamedTuple

from crossdock.errors import ProtocolError
from crossdock.views import ShuffleKey
from crossdock.wire.names import NAME, U32_MAX, check_name, parse_number

DEFAULT_CLUSTER: Final = "default"
"""Uid of a cluster that nobody named; whoever shares a store between clusters names them."""

LOG_SUFFIX: Final = ".log"
INTENT_ORDINALS: Final = 16
"""Segments that one intent of a run allows for. Where uploads cannot be listed by prefix, each is a
request for who looks for what was left."""

_HASH_DIGITS: Final = 4
_ORDINAL_DIGITS: Final = 6
_OURS: Final = re.compile(
    rf"(?P<cluster>{NAME.pattern})/(?P<job>{NAME.pattern})/"
    rf"(?:homes/[^/]+|[0-9a-f]{{{_HASH_DIGITS}}}/{NAME.pattern}/[0-9]{{1,10}}/"
    rf"(?:seal|views/[^/]+|(?P<kind>intents|segments|records)/(?P<run>[^/]+)(?:/[0-9]+)?))"
)
_PART: Final = re.compile(r"\.([1-9][0-9]{0,5})$")


def job_prefix(cluster: str, job: str) -> str:
    """Return the beginning of all keys of a job."""
    check_name("cluster", cluster)
    check_name("job", job)
    return f"{cluster}/{job}/"


def closed_homes(cluster: str, job: str) -> str:
    """Return the beginning of the keys that name the homes of seals which have left them."""
    return f"{job_prefix(cluster, job)}homes/"


def new_run(incarnation: str) -> str:
    """Return a name for a persist run that nobody used, or will use."""
    return f"{incarnation}-{secrets.token_hex(6)}"


@dataclass(frozen=True, slots=True)
class ShuffleLayout:
    """The keys of one generation of a shuffle."""

    prefix: str
    """Beginning of all its keys, with a slash at the end."""

    @classmethod
    def of(cls, cluster: str, key: ShuffleKey) -> "ShuffleLayout":
        """Return the layout of a shuffle of a cluster."""
        digest = hashlib.sha256(key.digest_prefix()).hexdigest()[:_HASH_DIGITS]
        check_name("shuffle", key.name)
        return cls(f"{job_prefix(cluster, key.job)}{digest}/{key.name}/{key.generation}/")

    def intent(self, run: str, part: int = 0) -> str:
        """Return the key of a run's intent, or of a further one; all begin like the first."""
        return f"{self.prefix}intents/{run}" + (f".{part}" if part else "")

    def segment(self, run: str, ordinal: int) -> str:
        """Return the key of the `ordinal`-th segment of a run; retries take a new ordinal."""
        return f"{self.segments(run)}{ordinal:0{_ORDINAL_DIGITS}d}"

    def segments(self, run: str) -> str:
        """Return the beginning of the keys of all segments of a run."""
        return f"{self.all_segments}{run}/"

    @property
    def all_segments(self) -> str:
        """The beginning of the keys of all segments."""
        return f"{self.prefix}segments/"

    def record(self, run: str) -> str:
        """Return the key of a run's record."""
        return self.prefix + record_within(run)

    @property
    def records(self) -> str:
        """The beginning of the keys of all records."""
        return self.prefix + record_within("")

    def log(self, run: str) -> str:
        """Return the key of a log object; it has a record too, and is listed with the others."""
        return f"{self.record(run)}{LOG_SUFFIX}"

    @property
    def seal(self) -> str:
        """The key of the choice of winners."""
        return f"{self.prefix}seal"

    def manifest(self, view_id: str) -> str:
        """Return the key of a view's manifest."""
        return f"{self.prefix}views/{view_id}"


def record_within(run: str) -> str:
    """Return the key of a run's record behind the prefix of its shuffle."""
    return f"records/{run}"


def run_of(record_key: str) -> str:
    """Return the run of a record or a log object."""
    return record_key.rpartition("/")[2].removesuffix(LOG_SUFFIX)


def names_job(prefix: str) -> bool:
    """Whether all keys with this beginning are of one job."""
    return prefix.count("/") >= 2


def shuffle_of(key: str) -> tuple[ShuffleKey, str]:
    """Return the shuffle that a key, or a beginning of keys, belongs to, and what is behind it.

    Raises:
        ProtocolError: it is of no shuffle.
    """
    parts = key.split("/", 5)
    if len(parts) < 6:
        raise ProtocolError(f"{key!r} is no key of a shuffle")
    _, job, _, name, generation, rest = parts
    number = parse_number("generation", generation, U32_MAX)
    return ShuffleKey(check_name("job", job), check_name("shuffle", name), number), rest


def job_of(key: str) -> str:
    """Return the job that a key belongs to, or raise `ProtocolError`."""
    parts = key.split("/")
    if len(parts) < 3:
        raise ProtocolError(f"{key!r} is no key of ours")
    return parts[1]


class Place(NamedTuple):
    """Whose a key is."""

    cluster: str
    job: str
    run: str
    """Of a persist run's keys; else empty."""
    is_intent: bool
    part: int = 0
    """Of an intent: which of its run's it is."""


def place_of(key: str) -> Place | None:
    """Return whose a key is, or None if it is not made as here: then it is not ours to touch."""
    found = _OURS.fullmatch(key)
    if found is None:
        return None
    run = (found["run"] or "").removesuffix(LOG_SUFFIX)
    if found["kind"] != "intents":
        return Place(found["cluster"], found["job"], run, is_intent=False)
    further = _PART.search(run)
    part = int(further[1]) if further is not None else 0
    run = run[: further.start()] if further is not None else run
    return Place(found["cluster"], found["job"], run, is_intent=True, part=part)
