"""The bearer token with which somebody asks the operator's page."""

import time
from dataclasses import dataclass, field
from typing import Final

from crossdock.errors import ConfigError
from crossdock_operator.kinds import SERVICE_ACCOUNT
from crossdock_operator.kubectl.access import Person, explained

_SCHEME: Final = "Bearer "
_ACCOUNT_SECONDS: Final = 3600
_MAKE_AN_ACCOUNT: Final = (
    "ask as a service account that may look: kubectl -n NAMESPACE create serviceaccount viewer; "
    "kubectl -n NAMESPACE create rolebinding viewer --clusterrole=view "
    "--serviceaccount=NAMESPACE:viewer; then --account NAMESPACE/viewer"
)
FRESH_SECONDS: Final = 60.0
"""For so long a token is used without asking for a newer one: some are good for minutes."""


@dataclass(slots=True)
class Bearer:
    """Gives a token that is good now."""

    person: Person
    account: str = ""
    """NAMESPACE/NAME of a service account to ask as; empty: with the kubeconfig's own token."""
    _token: str = ""
    _asked: float = field(default=float("-inf"))

    async def token(self) -> str:
        """Return it.

        Raises:
            ConfigError: the kubeconfig has none, but a client certificate.
            NotAllowed: no token of the account may be made.
        """
        now = time.monotonic()
        if now - self._asked >= FRESH_SECONDS:
            self._token = await (self._of_account() if self.account else self._own())
            self._asked = now
        return self._token

    async def _own(self) -> str:
        _, session = await self.person.kube.session(lambda *_: None)
        async with session:
            said = session.headers.get("Authorization", "")
        if not said.startswith(_SCHEME):
            raise ConfigError(
                "this kubeconfig has no bearer token, and the operator's page takes nothing else",
                hint=_MAKE_AN_ACCOUNT,
            )
        return said.removeprefix(_SCHEME)

    async def _of_account(self) -> str:
        namespace, slash, name = self.account.partition("/")
        if not (slash and namespace and name):
            raise ConfigError(f"--account {self.account!r} is not NAMESPACE/NAME")
        path = SERVICE_ACCOUNT.path(namespace, name, "token")
        with explained("create", SERVICE_ACCOUNT, namespace, "token"):
            answer = await self.person.streams.post(
                path, {"spec": {"expirationSeconds": _ACCOUNT_SECONDS}}
            )
        return str(answer["status"]["token"])
