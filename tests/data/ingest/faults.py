"""What servers do wrong, each a coroutine that writes to a bare connection; FAULTS names them."""

import asyncio
import gzip
import socket
import struct
from collections.abc import Callable, Coroutine

Fault = Callable[[asyncio.Transport, bytes], Coroutine[None, None, None]]
FAULTS: dict[str, Fault] = {}
DRIP_S = 0.02  # between two bytes of a slow server
BIG = 100 * 2**20
MEGABYTE = bytes(2**20)


def fault(function: Fault) -> Fault:
    FAULTS[function.__name__] = function
    return function


def head(*lines: str, status: str = "200 OK", kind: str = "image/gif") -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", *lines)
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


CHUNKED = "Transfer-Encoding: chunked"


async def write(transport: asyncio.Transport, data: bytes) -> None:
    """Wait until the client has taken most of it, or is gone."""
    transport.write(data)
    while transport.get_write_buffer_size() > len(MEGABYTE) and not transport.is_closing():
        await asyncio.sleep(0.002)


async def drip(transport: asyncio.Transport, data: bytes) -> None:
    for byte in data:
        transport.write(bytes([byte]))
        await asyncio.sleep(DRIP_S)
        if transport.is_closing():
            return


def reset(transport: asyncio.Transport) -> None:
    """Close so that the client's kernel sees a reset (RST), not an orderly end."""
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


@fault
async def silent(transport: asyncio.Transport, gif: bytes) -> None:
    while not transport.is_closing():
        await asyncio.sleep(DRIP_S)


@fault
async def slow_headers(transport: asyncio.Transport, gif: bytes) -> None:
    await drip(transport, b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 4000)


@fault
async def endless_headers(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(b"HTTP/1.1 200 OK\r\n")
    while not transport.is_closing():
        await write(transport, b"X-Many: again\r\n" * 1000)


@fault
async def endless_continue(transport: asyncio.Transport, gif: bytes) -> None:
    while not transport.is_closing():
        await write(transport, b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


@fault
async def slow_body(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head(f"Content-Length: {len(gif)}"))
    await drip(transport, gif)


@fault
async def endless_body(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head(CHUNKED) + chunk(gif))
    while not transport.is_closing():
        await write(transport, chunk(MEGABYTE))


@fault
async def endless_unframed_body(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head("Connection: close") + gif)
    while not transport.is_closing():
        await write(transport, MEGABYTE)


@fault
async def tiny_chunks(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head(CHUNKED) + chunk(gif))
    while not transport.is_closing():
        await write(transport, b"1\r\n0\r\n" * 10_000)


@fault
async def big(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head(f"Content-Length: {BIG}") + gif)
    for _ in range(BIG // len(MEGABYTE)):
        await write(transport, MEGABYTE)


@fault
async def big_chunked(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head(CHUNKED) + chunk(gif))
    for _ in range(BIG // len(MEGABYTE)):
        await write(transport, chunk(MEGABYTE))
    transport.write(chunk(b""))


@fault
async def mislabelled(transport: asyncio.Transport, gif: bytes) -> None:
    """A GIF that is said to be compressed and is not."""
    transport.write(head("Content-Encoding: gzip", f"content-length: {len(gif)}") + gif)


@fault
async def chunked(transport: asyncio.Transport, gif: bytes) -> None:
    """Nothing wrong: a GIF in three chunks, its length not announced."""
    third = len(gif) // 3 + 1
    parts = [gif[start : start + third] for start in range(0, len(gif), third)]
    transport.write(head(CHUNKED) + b"".join(map(chunk, [*parts, b""])))


@fault
async def unframed(transport: asyncio.Transport, gif: bytes) -> None:
    """Nothing wrong, if old: the end of the connection is the end of the GIF."""
    transport.write(head("Connection: close") + gif)


@fault
async def cut(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head(f"Content-Length: {len(gif)}") + gif[: len(gif) // 2])


@fault
async def cut_chunked(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head(CHUNKED) + chunk(gif[: len(gif) // 2]))


@fault
async def overstated(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head(f"Content-Length: {len(gif) + 1}") + gif)


@fault
async def understated(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head(f"Content-Length: {len(gif) - 1}") + gif)
    await asyncio.sleep(DRIP_S)


@fault
async def negative_length(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head("Content-Length: -1") + gif)


@fault
async def two_lengths(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head(f"Content-Length: {len(gif)}", "Content-Length: 7") + gif)


@fault
async def bad_chunk(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head(CHUNKED) + chunk(gif) + b"xyz\r\n")


@fault
async def reset_at_once(transport: asyncio.Transport, gif: bytes) -> None:
    reset(transport)


@fault
async def closed_at_once(transport: asyncio.Transport, gif: bytes) -> None:
    transport.close()


@fault
async def reset_in_body(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head(f"Content-Length: {len(gif)}") + gif[: len(gif) // 2])
    await asyncio.sleep(DRIP_S)
    reset(transport)


@fault
async def gzip_bomb(transport: asyncio.Transport, gif: bytes) -> None:
    """100 KB that inflate to 100 MB."""
    packed = gzip.compress(gif) + 100 * gzip.compress(MEGABYTE)
    transport.write(head("Content-Encoding: gzip", f"Content-Length: {len(packed)}") + packed)


@fault
async def html(transport: asyncio.Transport, gif: bytes) -> None:
    page = b"<!DOCTYPE html><title>Gone</title>" + MEGABYTE
    transport.write(head(f"Content-Length: {len(page)}"))
    await write(transport, page)


@fault
async def xml(transport: asyncio.Transport, gif: bytes) -> None:
    page = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'
    transport.write(head(f"Content-Length: {len(page)}", kind="application/xml") + page)


@fault
async def empty(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head("Content-Length: 0"))


@fault
async def not_http(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(b"SSH-2.0-OpenSSH_9.6\r\n" + gif)


@fault
async def no_location(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(head("Content-Length: 0", status="302 Found"))


@fault
async def location_of_odd_bytes(transport: asyncio.Transport, gif: bytes) -> None:
    transport.write(
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://\xff\xfe\x01:port/\r\n\r\n"
    )
