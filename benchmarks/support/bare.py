"""The baseline: a bare threaded server, as fast as Python moves bytes, that promises nothing.

    push   b"P", u64 length, body      recv_into(1 MiB) + pwrite, then one byte back
    read   b"R", u64 length            that many bytes of the file, by sendfile
    clear  b"C"                        empties the file, then one byte back

Run as `python -m support.bare FILE`; prints the port it listens on.
"""

import os
import socket
import struct
import sys
import threading

CHUNK = 1024 * 1024


class Server:
    """One file, appended to by all connections."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._end = 0
        self._lock = threading.Lock()

    def serve(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        buffer = memoryview(bytearray(CHUNK))
        with connection:
            while command := connection.recv(1):
                if command == b"C":
                    with self._lock:
                        os.ftruncate(self._fd, 0)
                        self._end = 0
                    connection.sendall(b".")
                    continue
                (length,) = struct.unpack("<Q", connection.recv(8, socket.MSG_WAITALL))
                if command == b"P":
                    self._push(connection, length, buffer)
                else:
                    self._read(connection, length)

    def _push(self, connection: socket.socket, length: int, buffer: memoryview) -> None:
        with self._lock:
            offset = self._end
            self._end += length
        while length:
            n = connection.recv_into(buffer[: min(length, CHUNK)])
            os.pwrite(self._fd, buffer[:n], offset)
            offset, length = offset + n, length - n
        connection.sendall(b".")

    def _read(self, connection: socket.socket, length: int) -> None:
        offset = 0
        while length:
            n = os.sendfile(connection.fileno(), self._fd, offset, length)
            offset, length = offset + n, length - n


if __name__ == "__main__":
    Server(sys.argv[1]).serve()
