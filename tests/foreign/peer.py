"""A backend: answers each line after a delay. `python peer.py CONTROL_FILE`; prints its port.

The control file says how many milliseconds the answer is late; it may change at any time.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

USUAL_S = 0.002


async def _serve(control: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            await asyncio.sleep(USUAL_S + float(control.read_text() or 0) / 1000)
            writer.write(b"x" * 200 + b"\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
