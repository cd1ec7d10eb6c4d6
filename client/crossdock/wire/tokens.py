"""Tokens: JSON Web Tokens (RFC 7519) signed with HMAC-SHA256 by the cluster's key.

Claims: `sub` is the job's uid, or "*" for tokens that are not of one job; `rights`, a list of
`Right`; `exp`, seconds since 1970. The signing key never leaves workers and operator.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from crossdock.errors import ConfigError, Forbidden, Unauthenticated

ANY_JOB: Final = "*"
MIN_KEY_BYTES: Final = 32
_ALGORITHM: Final = "HS256"


class Right(StrEnum):
    """What a token allows."""

    READ = "read"
    """List and read a job's shuffles."""
    WRITE = "write"
    """Push frames, abort attempts, seal; and read."""
    OWN = "own"
    """Register, renew, release, fence and delete a job; and write and read."""
    ADMIN = "admin"
    """The control calls of a worker, and everything above, for any job."""
    METRICS = "metrics"
    """/metrics only."""


_INCLUDED_IN: Final = {
    Right.READ: {Right.READ, Right.WRITE, Right.OWN, Right.ADMIN},
    Right.WRITE: {Right.WRITE, Right.OWN, Right.ADMIN},
    Right.OWN: {Right.OWN, Right.ADMIN},
    Right.METRICS: {Right.METRICS, Right.ADMIN},
    Right.ADMIN: {Right.ADMIN},
}
JOB_RIGHTS: Final = (Right.READ, Right.WRITE, Right.OWN)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says."""

    job: str
    rights: frozenset[str]
    expires: float

    def demand(self, right: Right, job: str | None) -> None:
        """Raise `Forbidden` unless the token has this right, for this job if one is named."""
        if not self.may(right):
            raise Forbidden(f"the token lacks the right {right.value!r}")
        if job is not None and Right.ADMIN not in self.rights and self.job != job:
            raise Forbidden("the token is for another job")

    def may(self, right: Right) -> bool:
        """Whether the token has this right, or one that includes it."""
        return bool(self.rights & _INCLUDED_IN[right])


def parse_keys(text: str) -> list[bytes]:
    """Return the keys of a key file: one a line; the first signs, all verify."""
    keys = [line.strip().encode() for line in text.splitlines() if line.strip()]
    if not keys:
        raise ConfigError("the key file has no key", hint="crossdock key > FILE")
    if min(map(len, keys)) < MIN_KEY_BYTES:
        raise ConfigError(
            f"a key in the key file has fewer than {MIN_KEY_BYTES} characters",
            hint="crossdock key > FILE",
        )
    return keys


def mint(
    key: bytes, *, job: str, rights: Iterable[Right] = JOB_RIGHTS, ttl_seconds: float = 86_400
) -> str:
    """Return a token for one job (or `ANY_JOB`) that is good for `ttl_seconds`."""
    import jwt  # noqa: PLC0415 -- takes 9 MiB, and most processes neither mint nor verify

    claims = {
        "sub": job,
        "rights": sorted(str(Right(r)) for r in rights),
        "exp": int(time.time() + ttl_seconds),
    }
    return jwt.encode(claims, key, _ALGORITHM)


def verify(keys: Sequence[bytes], token: str) -> Claims:
    """Return a token's claims, or raise `Unauthenticated`. Compares in constant time."""
    import jwt  # noqa: PLC0415

    problem = "the token is not one of this cluster's"
    for key in keys:
        try:
            claims = jwt.decode(
                token, key, [_ALGORITHM], options={"require": ["sub", "exp", "rights"]}
            )
        except jwt.ExpiredSignatureError:
            problem = "the token has expired"
        except jwt.InvalidTokenError:
            continue
        else:
            rights = claims["rights"]
            if not isinstance(rights, list):
                break
            return Claims(str(claims["sub"]), frozenset(map(str, rights)), float(claims["exp"]))
    raise Unauthenticated(problem)
