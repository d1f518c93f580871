"""Files that are written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OutputError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary file beside ``path`` to write to; it takes the name once the block ends without an error.

    The content is on the disk before the name changes. Raises OutputError, with the reason, where the folder cannot be
    made or written or the disk is full; an older file under the name then stays as it was.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file stands where its folder should be" if in_the_way else error.strerror or str(error)
        hint = "choose a folder that can be written and has room, with -o"
        raise OutputError(f"{path}: cannot be written: {reason}; nothing was changed. What to do: {hint}") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file at once. Encoding it in memory before keeps a library's own words for a full disk out of the way.

    Raises OutputError, as ``whole_file``.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
