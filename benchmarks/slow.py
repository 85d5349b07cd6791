"""`python -m benchmarks.slow TARGET PORT LATENCY RATE`: a proxy with seconds of latency and bytes/s a connection."""

import asyncio
import contextlib
import sys
import time

CHUNK = 64 * 1024


async def main(target: int, port: int, latency: float, rate: float) -> None:
    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(latency)  # of the handshake
        with contextlib.suppress(OSError, asyncio.CancelledError):
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", target, limit=CHUNK)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(pump(reader, server_writer, latency, None))
                    both.create_task(pump(server_reader, writer, 0, rate))
            except* OSError:
                pass
            finally:
                server_writer.close()
        writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", port, limit=CHUNK)
    async with server:
        await server.serve_forever()


async def pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, latency: float, rate: float | None
) -> None:
    due = 0.0
    while data := await reader.read(CHUNK):
        if latency:
            await asyncio.sleep(latency)
        if rate:
            now = time.monotonic()
            due = max(due, now) + len(data) / rate
            await asyncio.sleep(due - now)
        writer.write(data)
        await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
