"""What went wrong with one HTTP request of S3, and what that means."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from botocore import exceptions as boto

from crossdock.errors import ConfigError, CrossdockError
from crossdock.store.api import Verb
from crossdock.store.errors import (
    ObjectDamaged,
    ObjectExists,
    ObjectMissing,
    StoreDenied,
    StoreUnavailable,
)


class Kind(Enum):
    """What a failure means to whoever sent the request."""

    SLOW = auto()
    """Refused for now; it had no effect."""
    AGAIN = auto()
    """Answered "not now"; a write may have had its effect all the same."""
    UNSENT = auto()
    """No connection: nobody has heard of it."""
    UNANSWERED = auto()
    """It may have had an effect, or may have one yet."""
    EXPIRED = auto()
    """The credentials were good once, and may be renewed."""
    BAD_BYTES = auto()
    """Other bytes came than the checksum says."""
    DENIED = auto()
    MISSING = auto()
    """The object, or the upload."""
    UNMET = auto()
    """The condition that was sent along."""
    NO_RANGE = auto()
    LACKS = auto()
    """The server cannot do this at all."""
    WRONG = auto()
    """A setting or argument."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed request."""

    kind: Kind
    outcome: str
    """For the meter: the store's code, "timeout" or "connection"."""
    text: str
    hint: str = ""


class NotSupported(ConfigError):
    """The server cannot do this at all."""


class NoSuchRange(ObjectDamaged):
    """No byte of the range is in the object."""


class DeleteRefused(Exception):
    """An answer that is "200 OK" and names a key that was not deleted, and why."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


_BY_CODE: Final = {
    **dict.fromkeys(
        [
            "SlowDown",
            "SlowDownRead",  # MinIO's
            "SlowDownWrite",
            "Throttling",
            "ThrottlingException",
            "RequestLimitExceeded",
            "RequestThrottled",
            "BandwidthLimitExceeded",
            "TooManyRequests",
            "ServiceUnavailable",
        ],
        Kind.SLOW,
    ),
    **dict.fromkeys(
        ["InternalError", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict"],
        Kind.AGAIN,
    ),
    **dict.fromkeys(
        ["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"],
        Kind.EXPIRED,
    ),
    **dict.fromkeys(
        [
            "BadDigest",
            "InvalidDigest",
            "XAmzContentSHA256Mismatch",
            "XAmzContentChecksumMismatch",  # MinIO's
        ],
        Kind.BAD_BYTES,
    ),
    **dict.fromkeys(
        [
            "AccessDenied",
            "AccountProblem",
            "AllAccessDisabled",
            "InvalidAccessKeyId",
            "NoSuchBucket",
            "SignatureDoesNotMatch",
            "XAdminUserNotFound",  # versitygw's for InvalidAccessKeyId, with 404
        ],
        Kind.DENIED,
    ),
    **dict.fromkeys(["NoSuchKey", "NoSuchUpload"], Kind.MISSING),
    "PreconditionFailed": Kind.UNMET,
    "InvalidRange": Kind.NO_RANGE,
    "NotImplemented": Kind.LACKS,
}
_BY_STATUS: Final = {
    401: Kind.DENIED,
    403: Kind.DENIED,
    404: Kind.MISSING,
    412: Kind.UNMET,
    416: Kind.NO_RANGE,
    429: Kind.SLOW,
    500: Kind.AGAIN,
    501: Kind.LACKS,
    502: Kind.UNANSWERED,  # of a proxy: the store itself may be at it still
    503: Kind.SLOW,
    504: Kind.UNANSWERED,
}
_HINTS: Final = {
    Kind.DENIED: "check the credentials' rights, the bucket's name and its policy",
    Kind.EXPIRED: "renew the credentials where the chain of boto3 finds them",
}
_REGION_CODES: Final = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
_TIMEOUTS: Final = (boto.ReadTimeoutError, boto.ConnectTimeoutError)
_UNSENT: Final = (
    boto.EndpointConnectionError,
    boto.ConnectTimeoutError,
    boto.ProxyConnectionError,
)
_RETRIEVAL: Final = (boto.CredentialRetrievalError, boto.MetadataRetrievalError)
_NO_CREDENTIALS: Final = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
)

REPORTED: Final = (boto.ClientError, boto.BotoCoreError, DeleteRefused)
"""What a request can fail with."""


def classify(problem: Exception, verb: Verb) -> Failure:  # noqa: PLR0911 -- a table
    """Return what a failure means; `problem` is one of `REPORTED`."""
    if isinstance(problem, boto.ClientError):
        error = problem.response.get("Error", {})
        code = error.get("Code", "")
        status = problem.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return _answered(code, status, f"{code}: {error.get('Message', '')}", verb)
    if isinstance(problem, DeleteRefused):
        return _answered(problem.code, 500, str(problem), verb)
    if isinstance(problem, boto.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(problem):
        return Failure(Kind.WRONG, "connection", str(problem), "set ca_file to the authority's")
    if isinstance(problem, _RETRIEVAL):
        return Failure(Kind.EXPIRED, "credentials", str(problem))
    if isinstance(problem, _NO_CREDENTIALS):
        return Failure(
            Kind.DENIED,
            "credentials",
            str(problem),
            "give them by the environment, a profile, or the machine's or pod's role",
        )
    outcome = "timeout" if isinstance(problem, _TIMEOUTS) else "connection"
    if isinstance(problem, _UNSENT):
        return Failure(Kind.UNSENT, outcome, str(problem), "check endpoint_url and the network")
    if isinstance(problem, boto.HTTPClientError):  # the others that break off
        return Failure(Kind.UNANSWERED, outcome, str(problem))
    return Failure(Kind.WRONG, type(problem).__name__, str(problem))


def _answered(code: str, status: int, text: str, verb: Verb) -> Failure:
    if verb is Verb.HEAD and status == 400:  # answers to HEAD have no body to say "expired" in
        return Failure(Kind.EXPIRED, code, text)
    if code in _REGION_CODES:
        return Failure(Kind.WRONG, code, text, "set region to the bucket's")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, Kind.WRONG)
    return Failure(kind, code or str(status), text, _HINTS.get(kind, ""))


def as_error(  # noqa: PLR0911 -- a table
    failure: Failure, verb: Verb, key: str
) -> CrossdockError:
    """Return the error for a failure that nothing is done about, or nothing any more."""
    text = f"{verb} {key}: {failure.text}"
    match failure.kind:
        case Kind.DENIED | Kind.EXPIRED:
            return StoreDenied(text, hint=failure.hint)
        case Kind.MISSING:
            return ObjectMissing(text)
        case Kind.UNMET if verb in {Verb.GET, Verb.HEAD}:
            return ObjectDamaged(f"{key}: its ETag is not what it should be")
        case Kind.UNMET:
            return ObjectExists(f"{key}: there is one, or another one")
        case Kind.BAD_BYTES:
            return ObjectDamaged(text)
        case Kind.NO_RANGE:
            return NoSuchRange(text)
        case Kind.LACKS:
            return NotSupported(text, hint="the server lacks it; see docs/stores.md")
        case Kind.WRONG:
            return ConfigError(text, hint=failure.hint)
        case Kind.SLOW | Kind.AGAIN | Kind.UNSENT | Kind.UNANSWERED:
            return StoreUnavailable(text, hint=failure.hint)
