"""How long jobs and their shuffles stay."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from crossdock_operator.api.common import Seconds
from crossdock_operator.api.fields import Quantity


class ReleaseShuffles(StrEnum):
    """When a shuffle of a job is given up."""

    WHEN_CONSUMED = "WhenConsumed"
    AT_JOB_END = "AtJobEnd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """How long a job and its shuffles stay. What is missing is as the cluster has it."""

    release_shuffles: Annotated[
        ReleaseShuffles | None,
        "WhenConsumed: a shuffle goes when every stage that reads it is done, and what those wrote "
        "is in the store. AtJobEnd: all at once.",
    ] = None
    ttl_seconds_after_success: Annotated[
        Seconds | None, "A job that succeeded is deleted after so long."
    ] = None
    ttl_seconds_after_failure: Annotated[
        Seconds | None, "A job that failed is deleted after so long."
    ] = None
    max_age_seconds: Annotated[
        Seconds | None, "A job that is older is ended, whatever it does; 0: never."
    ] = None
    keep_on_failure: Annotated[
        bool | None, "Whether shuffles of a job that failed stay until it is deleted."
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDefaults:
    """What holds for jobs that say nothing, and the most that they may ask."""

    lifecycle: Annotated[Lifecycle, "Where a job's own lifecycle says nothing."] = field(
        default_factory=Lifecycle
    )
    most_ttl_seconds: Annotated[Seconds | None, "Longest TTL that a job may ask."] = None
    most_age_seconds: Annotated[Seconds | None, "Highest maxAgeSeconds that a job may ask."] = None
    most_quota: Annotated[
        int | None,
        "Highest quota that a job may ask; a job with more is refused, one without has this much.",
        Quantity(),
    ] = None
