"""Triton's system shared memory extension: tensors in POSIX shared memory, of clients on the same machine.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_shared_memory.md. A region is read
and written as a file, never mapped: a client that truncates it would end a process that maps it with SIGBUS.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .refusals import Forbidden, Malformed, Unknown

_FOLDER = Path("/dev/shm")  # where shm_open(3) has them on Linux
_KEY = re.compile(r"/?([^/\0]{1,254})")
_MOST = 10_000
REGION, SIZE, OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"


@dataclass(frozen=True)
class Place:
    """Bytes of a region, as the parameters of a tensor name them."""

    region: str
    size: int
    offset: int


def place_of(parameters: Mapping[str, Any], tensor: str) -> Place | None:
    """The place that a tensor's parameters name; None: they name none. Raises Malformed."""
    region = parameters.get(REGION)
    if region is None:
        return None
    sizes = [parameters.get(SIZE), parameters.get(OFFSET, 0)]
    if not isinstance(region, str) or not all(type(size) is int and 0 <= size < 2**63 for size in sizes):
        shown = f"{REGION} {region!r:.80}, {SIZE} {sizes[0]!r:.40} and {OFFSET} {sizes[1]!r:.40}"
        raise Malformed(f"'{tensor}' has {shown}: a name and two numbers of bytes are expected")
    return Place(region, *sizes)  # pyright: ignore[reportArgumentType] - they are whole numbers


@dataclass(frozen=True)
class _Region:
    name: str
    key: str
    offset: int
    size: int
    file: int

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "key": self.key, "offset": self.offset, "byte_size": self.size}


class Regions:
    """The regions that clients registered; none may be where ``enabled`` is False."""

    def __init__(self, enabled: bool, max_text: int):
        """``max_text``: the most bytes of an input of texts, whose shape does not say how many it has."""
        self._enabled, self.max_text = enabled, max_text
        self._regions: dict[str, _Region] = {}

    def register(self, name: str, key: object, offset: object, size: object) -> None:
        """Open the shared memory object ``key``; the region is ``size`` bytes of it from ``offset`` on.

        Raises Forbidden; Malformed: there is no such object, or it has fewer bytes, or the name is taken.
        """
        if not self._enabled:
            raise Forbidden("this server was started without --shared-memory: it reads and writes none of its clients'")
        match = _KEY.fullmatch(key) if isinstance(key, str) else None
        if match is None or match[1] in (".", ".."):
            raise Malformed(f"the key {key!r:.80} is not the name of a shared memory object, such as /name")
        if type(offset) is not int or type(size) is not int or not 0 <= offset < 2**62 or not 0 < size < 2**62:
            raise Malformed(f"offset {offset!r:.40} and byte_size {size!r:.40}: numbers of bytes are expected")
        if name in self._regions:
            raise Malformed(f"the region '{name[:200]}' is registered already: unregister it first")
        if len(self._regions) >= _MOST:
            raise Malformed(f"{_MOST:,} regions are registered, and this server takes no more")
        try:
            file = os.open(_FOLDER / match[1], os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise Malformed(f"the shared memory {match[1]!r:.200} cannot be opened: {error.strerror}") from None
        there = os.fstat(file).st_size
        if there < offset + size:
            os.close(file)
            raise Malformed(
                f"the shared memory {match[1]!r:.200} has {there:,} bytes, and {offset + size:,} are asked for"
            )
        self._regions[name] = _Region(name, str(key), offset, size, file)

    def unregister(self, name: str | None) -> None:
        """Forget a region, or all of them. One that is not registered is no error, as in Triton."""
        for each in [*self._regions] if name is None else [name]:
            if (region := self._regions.pop(each, None)) is not None:
                with suppress(OSError):
                    os.close(region.file)

    def status(self, name: str | None = None) -> list[dict[str, Any]]:
        """The regions, or one. Raises Unknown."""
        if name is None:
            return [region.record() for region in self._regions.values()]
        if name not in self._regions:
            raise Unknown(f"no shared memory region is called '{name[:200]}'")
        return [self._regions[name].record()]

    def find(self, place: Place, tensor: str) -> _Region:
        """The region of a place. Raises Malformed: it is unknown, or smaller."""
        region = self._regions.get(place.region)
        if region is None:
            raise Malformed(
                f"'{tensor}' is in the shared memory region '{place.region[:200]}', which is not registered"
            )
        if place.offset + place.size > region.size:
            wanted = f"bytes {place.offset:,} to {place.offset + place.size:,}"
            raise Malformed(
                f"'{tensor}' is in {wanted} of the region '{place.region[:200]}', which has {region.size:,}"
            )
        return region

    def read(self, place: Place, tensor: str) -> bytearray:
        """The bytes of a place. Raises Malformed."""
        region, content = self.find(place, tensor), bytearray(place.size)
        if place.size and os.preadv(region.file, [content], region.offset + place.offset) != place.size:
            raise Malformed(f"the shared memory of the region '{place.region[:200]}' has become shorter")
        return content

    def write(self, place: Place, content: memoryview | bytes, tensor: str) -> None:
        """Write an output. Raises Malformed: the place is smaller, or too small by now."""
        region = self.find(place, tensor)
        size = len(content)
        if size > place.size:
            raise Malformed(f"output '{tensor}' has {size:,} bytes, and its place in shared memory {place.size:,}")
        start = region.offset + place.offset
        if os.fstat(region.file).st_size < start + size:
            raise Malformed(f"the shared memory of the region '{place.region[:200]}' has become shorter")
        try:
            written = os.pwrite(region.file, content, start)
        except OSError as error:  # such as a file with holes, where there is no memory left
            reason = error.strerror
            raise Malformed(
                f"the shared memory of the region '{place.region[:200]}' cannot be written: {reason}"
            ) from None
        if written != size:
            raise Malformed(
                f"the shared memory of the region '{place.region[:200]}' took {written:,} of {size:,} bytes"
            )
