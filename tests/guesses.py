"""Many guesses at once, and the right password right behind them from the same address."""

import asyncio
from base64 import b64encode
from urllib.parse import urlsplit


def basic(user: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def answers(url: str, wrong: str, right: str, number: int = 200) -> list[tuple[bool, int]]:
    """(whether it was the right one, its status) of `number` guesses and one right password, as they were answered.

    `wrong` and `right` are Authorization headers. All guesses have been sent before the right one is.
    """
    parts = urlsplit(url)

    async def run() -> list[tuple[bool, int]]:
        heard: list[tuple[bool, int]] = []
        sent = []
        for header in [*[wrong] * number, right]:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            head = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: {header}\r\n\r\n"
            writer.write(head.encode())
            await writer.drain()
            sent.append((reader, writer, header == right))

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_right: bool) -> None:
            status = await reader.readline()
            heard.append((is_right, int(status.split()[1])))
            writer.close()

        async with asyncio.timeout(60):
            await asyncio.gather(*(hear(*one) for one in sent))
        return heard

    return asyncio.run(run())
