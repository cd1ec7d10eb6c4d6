"""What goes wrong beside a connection is not the peer's fault."""

import asyncio
import errno
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crossdock.errors import Overloaded, PeerGone
from crossdock.views import ShuffleKey
from crossdock_worker import pump
from crossdock_worker.patience import Patience
from crossdock_worker.shuffle_log import ShuffleLog


class Transport(asyncio.BaseTransport):
    """Stands for a transport of a socket."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__({"socket": sock})


def no_descriptor(_fd: int) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_without_a_descriptor_the_worker_pushes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ShuffleLog.create(tmp_path / "log", ShuffleKey("job", "words", 0))
    with socket.socket() as sock:
        monkeypatch.setattr(os, "dup", no_descriptor)
        with pytest.raises(Overloaded, match="ulimit -n"), pump.duplicate(Transport(sock)):
            pass
        with pytest.raises(Overloaded, match=r"ulimit -n") as caught:
            log.payload_descriptors()
        assert "payload.log" in str(caught.value)
    log.close()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EPIPE, PeerGone),
        (errno.ECONNRESET, PeerGone),
        (errno.ETIMEDOUT, PeerGone),
        (errno.EHOSTUNREACH, PeerGone),
        (errno.EIO, OSError),
        (errno.EMFILE, OSError),
    ],
)
def test_only_what_is_wrong_with_the_connection_blames_the_peer(
    number: int, kind: type[Exception]
) -> None:
    def step(_sock: socket.socket) -> bool:
        raise OSError(number, os.strerror(number))

    async def on_wait() -> None:
        """Do nothing."""

    async def send(sock: socket.socket, pool: ThreadPoolExecutor) -> None:
        await pump.send(sock, step, pool=pool, patience=Patience(5, 0), on_wait=on_wait)

    with ThreadPoolExecutor(1) as pool, socket.socket() as sock:
        with pytest.raises(kind) as caught:
            asyncio.run(send(sock, pool))
        assert isinstance(caught.value, PeerGone) == (kind is PeerGone)
