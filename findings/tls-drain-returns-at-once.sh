#!/usr/bin/env bash
# Library: asyncio's TLS transports, of CPython 3.11 and of uvloop 0.23.0.
# Behaviour: a first write of any size to a peer that reads nothing is encrypted and handed to the
# transport below at once. `get_write_buffer_size()` is 0 from then on, `pause_writing` is not called
# and `StreamWriter.drain()` returns, while the whole write waits in the process. A transport without
# TLS says how much waits, and `drain()` waits for it.
# Why it matters to a feature store: a server of large answers that counts what waits for slow clients
# counts too little under TLS, unless it passes an answer on in pieces.
# Output seen on 2026-11-30 (8 MB written at once):
# > asyncio, plain: more than 1 MB counted as waiting: True, drain waits: True
# > asyncio, TLS: nothing counted as waiting: True, drain returns: True, more than 1 MB waits: True
# > uvloop, plain: more than 1 MB counted as waiting: True, drain waits: True
# > uvloop, TLS: nothing counted as waiting: True, drain returns: True, more than 1 MB waits: True
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    uvloop==0.23.0 trustme==1.2.1 || exit 2

"$work/venv/bin/python" - >"$work/seen" <<'END' || true
import asyncio
import fcntl
import socket
import ssl
import struct
import termios

import trustme
import uvloop

SIZE = 8_000_000
authority = trustme.CA()
server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
authority.issue_cert("127.0.0.1").configure_cert(server_tls)
client_tls = ssl.create_default_context()
authority.configure_trust(client_tls)


def connect(port, tls):
    """A client that reads nothing, and for which its system keeps little."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    client.connect(("127.0.0.1", port))
    return client_tls.wrap_socket(client, server_hostname="127.0.0.1") if tls else client


async def look(name, tls):
    seen = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        kernel = writer.get_extra_info("socket")
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        writer.write(b"x" * SIZE)
        counted = writer.transport.get_write_buffer_size()
        try:
            await asyncio.wait_for(writer.drain(), 1)
            waits = False
        except asyncio.TimeoutError:
            waits = True
        (sent,) = struct.unpack("i", fcntl.ioctl(kernel.fileno(), termios.TIOCOUTQ, bytes(4)))
        seen.set_result((counted, waits, sent))
        writer.transport.abort()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_tls if tls else None)
    port = listening.sockets[0].getsockname()[1]
    client = await asyncio.to_thread(connect, port, tls)
    counted, waits, in_system = await seen
    client.close()
    listening.close()
    if not tls:
        print(f"{name}, plain: more than 1 MB counted as waiting: {counted > 1_000_000}, "
              f"drain waits: {waits}")
        return
    # The system of the server has so little of it, and that of the client less.
    left = SIZE - in_system - 1_000_000
    print(f"{name}, TLS: nothing counted as waiting: {counted == 0}, drain returns: {not waits}, "
          f"more than 1 MB waits: {left > 1_000_000}")


for name, factory in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
    for tls in (False, True):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(look(name, tls))
END


cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: what a TLS transport counts as waiting (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
