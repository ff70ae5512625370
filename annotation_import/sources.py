"""Files of a source, from a folder, a .zip, a .tar(.gz|.bz2|.xz) or a single file, read in memory.

Archives are never extracted, so a member cannot be written anywhere; members with an unsafe
name are rejected all the same, because they say that the archive is not what it claims.
"""

import os
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from annotation_import.problems import Problems
from runtime.errors import DataError

_FIRST_READ_BYTES = 4096  # a vote is about 350 bytes; one read is enough
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class SourceFile(NamedTuple):
    """One file: its folder and name relative to the source ("" for the top), and its bytes."""

    folder: str
    name: str
    content: bytes

    @property
    def path(self) -> str:
        """Path relative to the source."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


class Limits:
    """Which files are wanted, by the end of their name in any case, and how large they may be."""

    def __init__(self, max_bytes: Mapping[str, int]) -> None:
        self._max_bytes = {suffix.lower(): limit for suffix, limit in max_bytes.items()}
        self.suffixes = tuple(self._max_bytes)

    def wants(self, name: str) -> bool:
        """Tell whether a file is wanted."""
        return name.lower().endswith(self.suffixes)

    def max_bytes(self, name: str) -> int:
        """Size above which a file is left out."""
        lower = name.lower()
        return max(limit for suffix, limit in self._max_bytes.items() if lower.endswith(suffix))


def iter_files(source: str | Path, limits: Limits, problems: Problems) -> Iterator[SourceFile]:
    """Yield the wanted files of `source`; those of one folder come together, sorted by name.

    Args:
        source: folder, archive or single file.
        limits: which files are wanted and how large they may be.
        problems: receives unreadable files, link loops and unsafe members.

    Raises:
        DataError: the source does not exist, or is an archive that cannot be opened.
    """
    path = Path(source)
    name = path.name.lower()
    if path.is_dir():
        return _iter_folder(path, limits, problems)
    if not path.is_file():
        raise DataError(f"{path}: source not found; expected a folder, an archive or a table")
    if name.endswith(".zip"):
        return _iter_zip(path, limits, problems)
    if name.endswith(_TAR_SUFFIXES):
        return _iter_tar(path, limits, problems)
    if not limits.wants(name):
        raise DataError(
            f"{path}: expected a folder, a .zip, a .tar(.gz) or a file ending in "
            f"{', '.join(limits.suffixes)}"
        )
    return iter([SourceFile("", path.name, path.read_bytes())])


def _iter_folder(root: Path, limits: Limits, problems: Problems) -> Iterator[SourceFile]:
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(root),))]
    while waiting:
        relative, above = waiting.pop()
        folders, names = _list_folder(root, relative, limits, problems)
        for child in reversed(folders):
            path = f"{relative}/{child}" if relative else child
            real = os.path.realpath(root / path)
            if real in above:
                problems.add("symlink_loop", path, "leads back to a folder above it")
            else:
                waiting.append((path, (*above, real)))
        if names:
            yield from _read_names(root / relative, relative, names, limits, problems)


def _list_folder(
    root: Path, relative: str, limits: Limits, problems: Problems
) -> tuple[list[str], list[str]]:
    folders: list[str] = []
    names: list[str] = []
    try:
        with os.scandir(root / relative) as entries:
            for entry in entries:
                is_folder = _is_folder(entry, relative, problems)
                if is_folder:
                    folders.append(entry.name)
                elif is_folder is not None and limits.wants(entry.name):
                    names.append(entry.name)
    except OSError as error:
        problems.add("unreadable", relative or ".", str(error.strerror))
    return sorted(folders), sorted(names)


def _is_folder(entry: "os.DirEntry[str]", relative: str, problems: Problems) -> bool | None:
    """Tell folders from files; None for a link that leads nowhere."""
    try:
        return entry.is_dir()
    except OSError as error:  # a link to itself: too many levels of symbolic links
        where = f"{relative}/{entry.name}" if relative else entry.name
        problems.add("symlink_loop", where, str(error.strerror))
        return None


def _read_names(
    folder: Path, relative: str, names: list[str], limits: Limits, problems: Problems
) -> Iterator[SourceFile]:
    """Read many small files of one folder; opening below its descriptor saves the path walk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in names:
            try:
                handle = os.open(name, os.O_RDONLY, dir_fd=descriptor)
                try:
                    content = os.read(handle, _FIRST_READ_BYTES)
                    if len(content) == _FIRST_READ_BYTES:
                        content = _read_rest(handle, content, limits.max_bytes(name))
                finally:
                    os.close(handle)
            except OSError as error:
                problems.add("unreadable", f"{relative}/{name}", str(error.strerror))
                continue
            if len(content) >= _FIRST_READ_BYTES and _is_too_large(
                f"{relative}/{name}", len(content), limits, problems
            ):
                continue
            yield SourceFile(relative, name, content)
    finally:
        os.close(descriptor)


def _read_rest(handle: int, content: bytes, max_bytes: int) -> bytes:
    parts = [content]
    size = len(content)
    while size <= max_bytes and (block := os.read(handle, 1 << 20)):
        parts.append(block)
        size += len(block)
    return b"".join(parts)


def _iter_zip(path: Path, limits: Limits, problems: Problems) -> Iterator[SourceFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: not a readable zip ({error}); fetch or make it again") from None
    with archive:
        for item in archive.infolist():
            if item.is_dir() or not limits.wants(item.filename):
                continue
            if not _is_safe(item.filename, problems):
                continue
            if _is_too_large(item.filename, item.file_size, limits, problems):
                continue
            try:
                content = archive.read(item)
            except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
                problems.add("unreadable", item.filename, str(error))
                continue
            yield _member(item.filename, content)


def _iter_tar(path: Path, limits: Limits, problems: Problems) -> Iterator[SourceFile]:
    try:
        with tarfile.open(path, mode="r|*") as archive:
            for item in archive:
                if not limits.wants(item.name) or item.isdir():
                    continue
                if not _is_safe(item.name, problems):
                    continue
                if not item.isfile():
                    problems.add("unsafe_member", item.name, "a link or device, not a file")
                    continue
                if _is_too_large(item.name, item.size, limits, problems):
                    continue
                handle = archive.extractfile(item)
                assert handle is not None, "a regular member has content"
                yield _member(item.name, handle.read())
                archive.members = []  # type: ignore[attr-defined]  # else every header stays in memory
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path}: not a readable tar ({error}); fetch or make it again") from None


def _is_safe(name: str, problems: Problems) -> bool:
    plain = name.replace("\\", "/")
    parts = plain.split("/")
    is_safe = not (plain.startswith("/") or ".." in parts or ":" in parts[0])
    if not is_safe:
        problems.add("unsafe_member", name, "absolute path or '..' in an archive")
    return is_safe


def _member(name: str, content: bytes) -> SourceFile:
    path = PurePosixPath(name)
    folder = path.parent.as_posix()
    return SourceFile("" if folder == "." else folder, path.name, content)


def _is_too_large(where: str, size_bytes: int, limits: Limits, problems: Problems) -> bool:
    limit = limits.max_bytes(where)
    if size_bytes > limit:
        problems.add("too_large", where, f"more than {limit} bytes")
    return size_bytes > limit
