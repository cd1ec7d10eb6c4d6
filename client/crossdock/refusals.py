"""Errors as they come over the wire: what a response that is no 2xx says."""

import json
from collections.abc import Mapping

from crossdock.errors import (
    AttemptsElsewhere,
    AttemptsMissing,
    CrossdockError,
    Missing,
    ProtocolError,
    Unavailable,
)


def _classes(base: type[CrossdockError]) -> dict[str, type[CrossdockError]]:
    found = {base.code: base} if "code" in vars(base) else {}  # a subclass may share its code
    for sub in base.__subclasses__():
        found |= _classes(sub)
    return found


def from_response(status: int, headers: Mapping[str, str], body: bytes) -> CrossdockError:
    """Return the error that a worker's response carries.

    A body that is not ours (a proxy's page, say) becomes `Unavailable` for 502, 503, 504 and 429,
    else `ProtocolError`.
    """
    try:
        data = json.loads(body)
        code, message = str(data["code"]), str(data["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        text = body[:200].decode("utf-8", "replace")
        if status in {429, 502, 503, 504}:
            return Unavailable(f"HTTP {status}: {text}")
        return ProtocolError(f"HTTP {status}: {text}")
    kind = _classes(CrossdockError).get(code, Unavailable if status == 503 else CrossdockError)
    hint = str(data.get("hint", ""))
    if issubclass(kind, AttemptsMissing):
        try:
            missing = [Missing(int(m), int(a), str(why)) for m, a, why in data.get("missing", [])]
        except (ValueError, TypeError, OverflowError):
            return ProtocolError(f"HTTP {status}: {code} without its list of attempts: {message}")
        if issubclass(kind, AttemptsElsewhere):
            records = data.get("records", [])
            names = [str(r) for r in records] if isinstance(records, list) else []
            return kind(missing, message=message, hint=hint, records=names)
        return kind(missing, message=message, hint=hint)
    error = kind(message, hint=hint)
    if isinstance(error, Unavailable):
        error.retry_after_seconds = _retry_after_seconds(headers.get("retry-after", ""))
    return error


def _retry_after_seconds(text: str) -> float:
    """Return how long a worker asks to wait; a second, if it does not say so in numbers."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1.0
