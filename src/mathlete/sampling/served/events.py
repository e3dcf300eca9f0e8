"""Server-sent events from bytes, as WHATWG's HTML standard reads them (section 9.2.6); only `data` is looked at."""

import re
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator
from contextlib import aclosing

from mathlete.lost import Lost
from mathlete.text import clean, quote

_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
"""A carriage return at the very end may be the first half of a line's end."""
_LONGEST = 4_000_000
"""Bytes of a line: an event has one token, with its alternatives at most."""
_SHOWN = 300
"""Bytes of a body without events that are quoted."""


class Events:
    """The events of a response."""

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        self._chunks = chunks
        self.beginning = b""
        """The first bytes of what came, for a message."""

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        """Yield the data of each event; an event without data is none.

        Raises:
            Lost: an event that is not UTF-8, or a line without end.
        """
        data: list[str] = []
        begins = True
        # Closed here, not when the garbage collector comes to it: its connection may be gone by then.
        async with aclosing(self._lines()) as lines:
            async for line in lines:
                if begins:
                    line, begins = line.removeprefix(BOM_UTF8), False
                field, _, value = line.partition(b":")
                if field == b"data":
                    data.append(_decode(value.removeprefix(b" ")))
                elif not line and any(data):
                    yield "\n".join(data)
                    data = []
        # The standard drops what no empty line ends; some servers end with their last word.
        if any(data):
            yield "\n".join(data)

    async def _lines(self) -> AsyncGenerator[bytes, None]:
        pending = bytearray()
        async for chunk in self._chunks:
            self.beginning = (self.beginning + chunk)[:_SHOWN]
            begun = pending.endswith(b"\r")
            pending += chunk
            # What has no end in it is not searched again with each piece: a line may come in thousands.
            if begun or b"\n" in chunk or b"\r" in chunk:
                *lines, rest = _LINE_END.split(bytes(pending))
                for line in lines:
                    yield line
                pending = bytearray(rest)
            if len(pending) > _LONGEST:
                raise Lost(f"a line of more than {_LONGEST} bytes came: {quote(repr(bytes(pending[:100])))}")
        yield bytes(pending)

    def quote_beginning(self) -> str:
        """Return how what came began."""
        return quote(clean(self.beginning.decode(errors="replace"))) or "nothing"


def _decode(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Lost(f"an event must be UTF-8: {quote(repr(value[max(0, error.start - 20) :][:60]))}") from error
