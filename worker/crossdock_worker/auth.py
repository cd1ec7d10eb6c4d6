"""Who may call what: verifies the bearer token of every request."""

import time
from functools import lru_cache
from pathlib import Path

from crossdock.errors import ConfigError, Unauthenticated
from crossdock.wire import tokens
from crossdock.wire.tokens import ANY_JOB, Claims, Right

_CACHED_TOKENS = 4096
_EVERYTHING = Claims(ANY_JOB, frozenset({Right.ADMIN}), float("inf"))


class Authenticator:
    """Verifies tokens with the keys of a file, which is read again when it changes."""

    def __init__(self, key_file: Path | None) -> None:
        """Read the keys; `key_file` None lets everybody in."""
        self._file = key_file
        self._stamp: tuple[int, int] | None = None
        self._keys: tuple[bytes, ...] = ()
        self._verify = lru_cache(_CACHED_TOKENS)(tokens.verify)
        if key_file is not None:
            self._reload()

    def claims(self, authorization: str | None) -> Claims:
        """Return what the request's token says, or raise `Unauthenticated`."""
        if self._file is None:
            return _EVERYTHING
        if not authorization:
            raise Unauthenticated("the request has no token")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("the Authorization header is not: Bearer TOKEN")
        self._reload()
        claims = self._verify(self._keys, token.strip())
        if claims.expires <= time.time():
            raise Unauthenticated("the token has expired")
        return claims

    def own_token(self, *more: Right) -> str:
        """Return a short-lived token for calls to peers; "" without a key.

        Args: `more` rights than to read.
        """
        if self._file is None:
            return ""
        rights = [Right.READ, *more]
        return tokens.mint(self._keys[0], job=ANY_JOB, rights=rights, ttl_seconds=120)

    def _reload(self) -> None:
        assert self._file is not None
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return
            self._keys = tuple(tokens.parse_keys(self._file.read_text()))
            self._stamp = stamp
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            if self._keys:  # a Secret that is being swapped, or a slip: the old keys hold
                return
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"cannot read --key-file {self._file}: {error}") from error
