"""A Postgres that starts up, and says so in another encoding than a client asks for."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

SSL_REQUEST, GSS_REQUEST = 80_877_103, 80_877_104
"""What a client may ask before its startup message; "N" refuses it."""

SAID = "Datenbanksystem fährt hoch"
SAID_OF_IT = "FATAL:  Datenbanksystem f\ufffdhrt hoch"
"""What a client is told who does not know the encoding."""


class ForeignPostgres:
    """The URL of the server, and how many clients it has refused."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.url = f"postgresql://u:p@127.0.0.1:{listener.getsockname()[1]}/none"
        self.refused = 0

    def serve(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                with client, suppress(OSError):
                    self._refuse(client)

    def _refuse(self, client: socket.socket) -> None:
        while struct.unpack("!i", client.recv(4_096)[4:8])[0] in (SSL_REQUEST, GSS_REQUEST):
            client.sendall(b"N")
        fields = [b"SFATAL", b"C57P03", b"M" + SAID.encode("latin-1"), b"", b""]
        body = b"\0".join(fields)
        self.refused += 1
        client.sendall(b"E%b%b" % (struct.pack("!i", 4 + len(body)), body))


@contextmanager
def foreign_postgres() -> Iterator[ForeignPostgres]:
    """Refuses everybody while the context lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = ForeignPostgres(listener)
        thread = Thread(target=made.serve, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
