"""Open a source: a folder, a .zip, a .tar(.gz|.bz2|.xz) or a single file, read in memory.

Archives are never extracted, so a member cannot be written anywhere; members with an unsafe
name are rejected all the same, because they say that the archive is not what it claims.
"""

import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from annotation_import.problems import Problems
from annotation_import.sources import (
    CHUNK_FILES,
    Aside,
    Chunk,
    Folder,
    Limits,
    SourceFile,
    walk,
)
from runtime.errors import DataError

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def open_source(
    source: str | Path, limits: Limits, problems: Problems, aside: Aside
) -> Folder | Iterator[Chunk]:
    """Open a folder, or an archive or single file.

    Args:
        source: folder, archive or single file.
        limits: which files are wanted and how large they may be.
        problems: receives unsafe members.
        aside: which files to keep apart; receives those of an archive.

    Returns:
        The folder, not listed yet; or the chunks of an archive or file.

    Raises:
        DataError: the source does not exist, or is an archive that cannot be opened.
    """
    path = Path(source)
    name = path.name.lower()
    if path.is_dir():
        return Folder(str(path), "", (os.path.realpath(path),), limits, aside.names)
    if not path.is_file():
        raise DataError(f"{path}: source not found; expected a folder, an archive or a table")
    if name.endswith(".zip"):
        return _memory_chunks(_iter_zip(path, limits, problems), limits, aside)
    if name.endswith(_TAR_SUFFIXES):
        return _memory_chunks(_iter_tar(path, limits, problems), limits, aside)
    if not limits.wants(name):
        raise DataError(
            f"{path}: expected a folder, a .zip, a .tar(.gz) or a file ending in "
            f"{', '.join(limits.suffixes)}"
        )
    return iter([Chunk("", [path.name], limits, [path.read_bytes()])])


def iter_files(
    source: str | Path, limits: Limits, problems: Problems, aside: Aside
) -> Iterator[SourceFile]:
    """Yield the wanted files of a source one by one; see `open_source`."""
    opened = open_source(source, limits, problems, aside)
    chunks = walk(opened, problems, aside) if isinstance(opened, Folder) else opened
    for chunk in chunks:
        for name, content in zip(*chunk.load(problems)):
            yield SourceFile(chunk.folder, name, content)


def _memory_chunks(files: Iterator[SourceFile], limits: Limits, aside: Aside) -> Iterator[Chunk]:
    chunk: Chunk | None = None
    for folder, name, content in files:
        if name in aside.names:
            aside.files.append(SourceFile(folder, name, content))
            continue
        if chunk is not None and (chunk.folder != folder or len(chunk.names) == CHUNK_FILES):
            yield chunk
            chunk = None
        if chunk is None:
            chunk = Chunk(folder, [], limits, [])
        chunk.names.append(name)
        assert chunk.contents is not None
        chunk.contents.append(content)
    if chunk is not None:
        yield chunk


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
            if limits.is_too_large(item.filename, item.file_size, problems):
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
                if limits.is_too_large(item.name, item.size, problems):
                    continue
                handle = archive.extractfile(item)
                assert handle is not None, "a regular member has content"
                yield _member(item.name, handle.read())
                archive.members = []  # type: ignore[attr-defined]  # else all headers stay
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
