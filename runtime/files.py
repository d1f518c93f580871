"""Files that are written completely or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from errno import EISDIR
from pathlib import Path
from secrets import token_hex

from .errors import OutputError


@contextmanager
def whole_file(path: str | Path) -> Generator[Path]:
    """A temporary file beside ``path`` to write to, which is renamed to it once the block ends without an error.

    The content is on the disk before the rename. Raises OutputError, with the reason, where the folder cannot be made
    or written or the disk is full. Where the block or the writing ends with an error, an older file of that name stays
    as it was, and new folders are removed again.

    Examples:
        >>> from pathlib import Path
        >>> from runtime import whole_file
        >>> with whole_file("table.csv") as temporary:
        ...     written = temporary.write_text("a,b")
        >>> Path("table.csv").read_text()
        'a,b'
    """
    path = Path(os.path.realpath(path))  # through a link, to its target
    with _as_output_error(path):
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe or a device, which a rename would replace
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder) / path.name
                with open(Path(folder) / path.name, "rb") as content, open(path, "wb") as target:
                    shutil.copyfileobj(content, target, 1 << 20)
            return
        with _parents_made(path):
            _refuse_folder(path)
            temporary = path.parent / f".{token_hex(8)}{path.suffix}"
            try:  # begins before the file exists, so that an interrupt cannot leave it there
                os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                yield temporary
                _flush(temporary)
                temporary.chmod(_mode(path))
                temporary.replace(path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise


@contextmanager
def whole_files(folder: str | Path) -> Generator[Path]:
    """A temporary folder inside ``folder``; its files move up, those with the longest names first.

    So ``m.onnx`` appears after its ``m.onnx.data``. Nothing moves where the block ends with an error.
    Raises OutputError, as ``whole_file``.

    Examples:
        >>> from pathlib import Path
        >>> from runtime import whole_files
        >>> with whole_files("pair") as stage:
        ...     written = [(stage / name).write_bytes(b"") for name in ("m.onnx", "m.onnx.data")]
        >>> sorted(path.name for path in Path("pair").iterdir())
        ['m.onnx', 'm.onnx.data']
    """
    folder = Path(folder)
    with _as_output_error(folder):
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
def whole_folder(folder: str | Path) -> Generator[Path]:
    """An empty folder beside ``folder``, which is renamed to it once the block ends without an error.

    An older folder of that name is removed then, and only then. Raises OutputError, as ``whole_file``.

    Examples:
        >>> from pathlib import Path
        >>> from runtime import whole_folder
        >>> with whole_folder("results") as stage:
        ...     written = (stage / "part.csv").write_text("a,b")
        >>> [path.name for path in Path("results").iterdir()]
        ['part.csv']
    """
    folder = Path(os.path.realpath(folder))
    with _as_output_error(folder):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError
        with _parents_made(folder):
            stage = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
            new, old = stage / "new", stage / "old"
            try:
                new.mkdir()
                yield new
                for file in new.rglob("*"):
                    if file.is_file():
                        _flush(file)
                if folder.exists():
                    folder.rename(old)
                new.rename(folder)
            finally:
                if old.exists() and not folder.exists():
                    old.rename(folder)
                shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def _parents_made(path: Path) -> Generator[None]:
    """The folder of ``path`` exists inside the block; where that fails, folders that are new are removed again."""
    new_folders = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):
            for folder in new_folders:
                folder.rmdir()
        raise


def _move(moves: dict[Path, Path], stage: Path) -> None:
    """Move every file to its target; where one cannot, put back the files that were there before."""
    done: list[tuple[Path, Path | None]] = []
    last = list(moves)[-1]
    try:
        for file, target in moves.items():
            old = stage / f"{file.name}.before"
            if target.exists() and file != last:  # after the last nothing can fail
                shutil.copy2(target, old)
            with whole_file(target) as temporary:
                file.replace(temporary) if _same_device(file, temporary) else shutil.copyfile(file, temporary)
            done.append((target, old if old.exists() else None))
    except OSError:
        for target, old in done:
            if old is None:
                target.unlink()
            else:
                shutil.copy2(old, target)
        raise


def _same_device(a: Path, b: Path) -> bool:
    """Whether a rename is possible from one to the other."""
    return a.parent.stat().st_dev == b.parent.stat().st_dev


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(EISDIR, f"{path.name} is a folder")


def through_link(path: str | Path) -> Path:
    """The target of a link, or the path itself: what belongs beside a file belongs beside its target.

    Examples:
        >>> from pathlib import Path
        >>> from runtime import through_link
        >>> through_link("comfort.onnx").name
        'comfort.onnx'
    """
    path = Path(path)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def identity(path: Path) -> tuple[int, ...] | None:
    """Changes when a file is replaced; None where there is none."""
    if not path.exists():
        return None
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits.

    Examples:
        >>> from pathlib import Path
        >>> from runtime import sha256
        >>> written = Path("abc.txt").write_bytes(b"abc")
        >>> sha256(Path("abc.txt"))[:16]
        'ba7816bf8f01cfea'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file at once. ``content`` is in memory, so that a full disk is not reported in a library's words.

    Raises OutputError, as ``whole_file``.

    Examples:
        >>> from pathlib import Path
        >>> from runtime import write_whole
        >>> write_whole(Path("notes/one.txt"), b"whole")
        >>> Path("notes/one.txt").read_bytes()
        b'whole'
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def _as_output_error(path: Path) -> Generator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        blocked = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file stands where its folder should be" if blocked else error.strerror or str(error)
        hint = "choose a folder that can be written and has room, with -o"
        raise OutputError(f"{path}: cannot be written: {reason}; nothing was changed. What to do: {hint}") from error


def _flush(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _mode(path: Path) -> int:
    """The mode of the file that is there, else that of the process's new files."""
    if path.exists():
        return path.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
