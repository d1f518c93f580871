"""Files that are written whole or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EISDIR
from pathlib import Path
from secrets import token_hex

from .errors import OutputError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary file beside ``path`` to write to; it takes the name once the block ends without an error.

    The content is on the disk before the name changes. Raises OutputError, with the reason, where the folder cannot be
    made or written or the disk is full. Where the block or the writing ends with an error, an older file under the name
    stays as it was, and folders that were made go away again.
    """
    path = Path(os.path.realpath(path))  # through a link, to what it names
    temporary = None
    with _reported(path):
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe or a device, which a rename would replace
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder) / path.name
                with open(Path(folder) / path.name, "rb") as content, open(path, "wb") as target:
                    shutil.copyfileobj(content, target, 1 << 20)
            return
        new_folders = [folder for folder in path.parents if not folder.exists()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_folder(path)
            temporary = path.parent / f".{token_hex(8)}{path.suffix}"  # known before it is made, lest an interrupt
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # between the two leave it there
            yield temporary
            _flush(temporary)
            temporary.chmod(_mode(path))
            temporary.replace(path)
            temporary = None
        finally:
            if temporary is not None:
                with suppress(OSError):
                    temporary.unlink()
                    for folder in new_folders:
                        folder.rmdir()


@contextmanager
def whole_files(folder: str | Path) -> Iterator[Path]:
    """A temporary folder inside ``folder``; its files move up, in the order of their names' length, longest first.

    That is how ``m.onnx`` appears when its ``m.onnx.data`` is there. Nothing moves where the block ends with an error.
    Raises OutputError, as ``whole_file``.
    """
    folder = Path(folder)
    with _reported(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".", dir=folder))
        try:
            yield stage
            moves = {file: Path(os.path.realpath(folder / file.name)) for file in stage.iterdir()}
            for target in moves.values():
                _refuse_folder(target)
            _move(dict(sorted(moves.items(), key=lambda move: -len(move[0].name))), stage)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """An empty folder beside ``folder`` that takes its name once the block ends without an error.

    What stood under the name goes, then and only then. Raises OutputError, as ``whole_file``.
    """
    folder = Path(os.path.realpath(folder))
    with _reported(folder):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError
        new_folders = [parent for parent in folder.parents if not parent.exists()]
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
        made, old = stage / "new", stage / "old"
        try:
            made.mkdir()
            yield made
            for file in made.rglob("*"):
                if file.is_file():
                    _flush(file)
            if folder.exists():
                folder.rename(old)
            made.rename(folder)
            new_folders = []
        finally:
            if old.exists() and not folder.exists():
                old.rename(folder)
            shutil.rmtree(stage, ignore_errors=True)
            with suppress(OSError):
                for parent in new_folders:
                    parent.rmdir()


def _move(moves: dict[Path, Path], stage: Path) -> None:
    """Move every file to its place; where one cannot, put back those that were there before."""
    done: list[tuple[Path, Path | None]] = []
    last = list(moves)[-1]
    try:
        for file, target in moves.items():
            old = stage / f"{file.name}.before"
            if target.exists() and file != last:  # after the last nothing can fail
                shutil.copy2(target, old)
            with whole_file(target) as temporary:
                file.replace(temporary) if _together(file, temporary) else shutil.copyfile(file, temporary)
            done.append((target, old if old.exists() else None))
    except OSError:
        for target, old in done:
            if old is None:
                target.unlink()
            else:
                shutil.copy2(old, target)
        raise


def _together(a: Path, b: Path) -> bool:
    """Whether a rename reaches from one to the other."""
    return a.parent.stat().st_dev == b.parent.stat().st_dev


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(EISDIR, f"{path.name} is a folder")


def through_link(path: str | Path) -> Path:
    """The file that a link names, or the path itself: what belongs beside a file belongs beside that one."""
    path = Path(path)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def identity(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced; None where there is none."""
    if not path.exists():
        return None
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file at once. Encoding it in memory before keeps a library's own words for a full disk out of the way.

    Raises OutputError, as ``whole_file``.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file stands where its folder should be" if in_the_way else error.strerror or str(error)
        hint = "choose a folder that can be written and has room, with -o"
        raise OutputError(f"{path}: cannot be written: {reason}; nothing was changed. What to do: {hint}") from error


def _flush(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _mode(path: Path) -> int:
    """Of the file that is there, else what the process gives to new ones."""
    if path.exists():
        return path.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
