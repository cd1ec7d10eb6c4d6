"""What can go wrong with an object store; all of the one hierarchy of `crossdock.errors`.

Unavailable
└── StoreUnavailable        throttled, unreachable or slow, for longer than the deadline
    └── StoreUnsure         a write got no answer: it may have happened, or may yet happen
AccessError
└── StoreDenied             the credentials do not open this
Gone
├── ObjectMissing           no object has this key
└── NoStore                 the worker that was asked has none
Conflict
└── ObjectExists            put-if-absent: somebody was first
DataCorrupt
└── ObjectDamaged           an object, or an answer, is not what was written
"""

from crossdock.errors import AccessError, Conflict, DataCorrupt, Gone, Unavailable


class StoreUnavailable(Unavailable):
    """The store throttles, is slow or cannot be reached, and the deadline is over."""

    code = "store_unavailable"


class StoreUnsure(StoreUnavailable):
    """A write got no answer: it may have taken effect, or may do so yet. Never reuse its key."""

    code = "store_unsure"


class StoreDenied(AccessError):
    """The store refuses the credentials, or the bucket does not exist for them."""

    code = "store_denied"


class ObjectMissing(Gone):
    """No object has this key."""

    code = "object_missing"
    status = 404


class NoStore(Gone):
    """The worker that was asked has no store."""

    code = "no_store"
    status = 404
    hint = "start workers with --store URL"


class ObjectExists(Conflict):
    """An object has this key already, so put-if-absent changed nothing."""

    code = "object_exists"


class ObjectDamaged(DataCorrupt):
    """An object is not what was written: another length, ETag or checksum."""

    code = "object_damaged"
