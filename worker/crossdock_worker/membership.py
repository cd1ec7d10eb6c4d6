"""Which workers there are: each asks its peers how they are. No leader, nothing agreed on."""

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import structlog

from crossdock.errors import ConfigError, ProtocolError
from crossdock.records import DRAINED, WorkerInfo
from crossdock_worker.gossip import Gossip, Round
from crossdock_worker.tls import Renewed

log = structlog.get_logger()

_TIMEOUT = aiohttp.ClientTimeout(total=5)
_MOST_MET = 1000
_SCHEMES = {"http", "https", "dns+http", "dns+https"}
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, ProtocolError, ValueError, RecursionError)
"""What a peer that is away makes of a call, or one whose answer is not one: JSON may be deep."""


def check_peer(peer: str) -> None:
    """Raise `ConfigError` unless this is a URL with a host, and a port that can be."""
    try:
        parts = urlsplit(peer)
        sound = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(
            f"--peers {peer} is no URL of a worker",
            hint="http://HOST:PORT, or dns+http://NAME:PORT",
        )


class Membership:
    """What this worker knows of its peers."""

    def __init__(
        self,
        peers: tuple[str, ...],
        *,
        interval_seconds: float,
        token: Callable[[], str],
        tls: Renewed | None,
        gone_file: Path,
        gossip: Gossip | None = None,
    ) -> None:
        """Check the peers' URLs.

        Args:
            peers: URLs, or names in DNS.
            interval_seconds: how often they are asked.
            token: makes the token to ask with.
            tls: how their certificates are checked.
            gone_file: keeps the ids that an admin declared gone.
            gossip: what those that were found are asked next, in each round.
        """
        self._gossip = gossip
        self._met_at: set[str] = set()
        """URLs at which somebody has answered."""
        self._never_met: set[str] = set()
        """URLs that were asked in the last round, and where nobody has ever answered."""
        self._resolved: set[str] = set()
        """Names in DNS that did resolve."""
        self._names: dict[str, str] = {}
        """By host and port of an address from DNS: the name, which the certificate there has."""
        for peer in peers:
            check_peer(peer)
        self._peers = peers
        self._interval_seconds = interval_seconds
        self._token = token
        self._tls = tls
        self._known: dict[str, WorkerInfo] = {}
        self._asked_at: dict[str, str] = {}
        """By id, the URL that was asked when it answered last: it may name another one itself."""
        self._gone_file = gone_file
        self._gone: set[str] = set(gone_file.read_text().split()) if gone_file.exists() else set()
        if gossip is not None:
            gossip.gone.update(self._gone)

    def __iter__(self) -> Iterator[WorkerInfo]:
        """Iterate over peers, the unreachable and the gone ones included, not over this worker."""
        known = dict(self._known)
        for id_ in self._gone:
            url = known[id_].url if id_ in known else ""
            known[id_] = WorkerInfo(id=id_, incarnation=0, url=url, state="gone")
        return iter(known.values())

    def meet(self, id_: str, url: str) -> None:
        """Take note of a peer that has asked this worker: it is asked too from now on."""
        if id_ not in self._known and id_ not in self._gone and len(self._known) < _MOST_MET:
            self._known[id_] = WorkerInfo(id=id_, incarnation=0, url=url, state="unreachable")
            self._asked_at[id_] = url.rstrip("/")
            self._met_at.add(url.rstrip("/"))

    def declare_gone(self, id_: str) -> None:
        """Remember, over restarts, that a worker never comes back. Idempotent."""
        if self._gossip is not None:
            self._gossip.learn_gone([id_])
        self._gone.add(id_)
        self._asked_at.pop(id_, None)
        temporary = self._gone_file.with_suffix(".new")
        temporary.write_text("\n".join(sorted(self._gone)))
        temporary.replace(self._gone_file)

    async def run(self, own_id: str) -> None:
        """Ask all peers again and again, until cancelled."""
        checked = True if self._tls is None else self._tls.context()
        connector = aiohttp.TCPConnector(ssl=checked)
        async with aiohttp.ClientSession(timeout=_TIMEOUT, connector=connector) as session:
            while True:
                if self._tls is not None:
                    self._tls.context()  # the same one, with what is new in the file
                try:
                    await self._ask_all(session, own_id)
                except Exception:  # whatever it was: the next round may do better
                    log.exception("asking the peers failed")
                await asyncio.sleep(self._interval_seconds)

    async def _ask_all(self, session: aiohttp.ClientSession, own_id: str) -> None:
        """Ask every peer once, also at the URLs where those known answered last.

        A name in DNS may have lost one that lives, and a worker may be known by other URLs than its
        own: who did not answer in this round, whatever it was asked at, is unreachable.
        """
        urls = sorted({*await self._urls(), *self._asked_at.values()})
        found = await asyncio.gather(*(self._ask(session, url) for url in urls))
        answered = {i.id: (url, i) for url, i in zip(urls, found, strict=True) if i and i.id}
        taken = {url for url, info in zip(urls, found, strict=True) if info}
        self._met_at |= taken
        answered.pop(own_id, None)
        for id_, (url, info) in answered.items():
            self._known[id_], self._asked_at[id_] = self._seen(info), url
        for id_ in self._known.keys() - answered.keys():
            known = self._known[id_]
            # Who had drained held nothing alone, and may come back: nobody waits for it meanwhile.
            state = "gone" if known.state in {DRAINED, "gone"} else "unreachable"
            self._known[id_] = replace(known, state=state, inflight_bytes=0, disk_used=0.0)
            if self._asked_at.get(id_) in taken:  # another one lives there now
                del self._asked_at[id_]
        if self._gossip is not None:
            silent = set(urls) - taken
            await self._gossip.round(partial(self._get, session), self._round(answered, silent))
            for id_ in self._gossip.gone - self._gone:
                self.declare_gone(id_)

    def _seen(self, info: WorkerInfo) -> WorkerInfo:
        """Return what is told of a peer that answers.

        That it can go is told once it has said here what it heard: it goes when all tell it.
        """
        known = self._gossip is None or self._gossip.has_heard_all(info.id, info.incarnation)
        return info if info.state != DRAINED or known else replace(info, state="draining")

    def _round(self, answered: Iterable[str], silent: set[str]) -> Round:
        """Return who counts: neither those that are gone, nor those whose disk was replaced."""
        peers = {
            id_: self._asked_at[id_]
            for id_, info in self._known.items()
            if id_ in self._asked_at and id_ not in self._gone and info.state != "gone"
        }
        never_met = silent - self._met_at
        dropped = self._never_met - never_met - self._met_at
        self._never_met = never_met
        unresolved = {p for p in self._peers if urlsplit(p).scheme.startswith("dns+")}
        unmet = bool(never_met or unresolved - self._resolved)
        return Round(peers, frozenset(answered) & peers.keys(), unmet, bool(dropped))

    async def _ask(self, session: aiohttp.ClientSession, url: str) -> WorkerInfo | None:
        """Return a peer's description; None when it does not answer."""
        data = await self._get(session, f"{url}/v1/workers")
        try:
            own = data.get("self") if isinstance(data, dict) else None
            return None if data is None else WorkerInfo.from_json(own)
        except _NO_ANSWER as error:
            log.debug("peer does not answer", peer=url, problem=str(error))
        return None

    async def _get(self, session: aiohttp.ClientSession, url: str) -> object | None:
        """Return the JSON of a peer's answer; None when there is none."""
        token = self._token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        name = self._names.get(urlsplit(url).netloc)
        try:
            async with session.get(url, headers=headers, server_hostname=name) as response:
                if response.status == 200:
                    data: object = await response.json()
                    return data
                log.warning("peer refuses", peer=url, status=response.status)
        except _NO_ANSWER as error:
            log.debug("peer does not answer", peer=url, problem=str(error))
        return None

    async def _urls(self) -> list[str]:
        urls = []
        for peer in self._peers:
            parts = urlsplit(peer)
            if not parts.scheme.startswith("dns+"):
                urls.append(peer.rstrip("/"))
                continue
            scheme, port = parts.scheme.removeprefix("dns+"), parts.port or 7070
            loop = asyncio.get_running_loop()
            try:
                found = await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
            except OSError as error:
                log.warning("peers' name does not resolve", name=parts.hostname, problem=str(error))
                continue
            self._resolved.add(peer)
            for *_, address in found:
                host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
                self._names[f"{host}:{port}"] = str(parts.hostname)
                urls.append(f"{scheme}://{host}:{port}")
        return sorted(set(urls))
