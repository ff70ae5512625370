"""Files of a source in chunks of one folder, and the walk through folders on disk.

A chunk of a folder on disk holds names only and reads them when it is loaded, so that another
process can do it. Archives are in `annotation_import.opening`.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from annotation_import.problems import Problems

CHUNK_FILES = 5000
_FIRST_READ_BYTES = 4096  # a vote is about 350 bytes; one read is enough


class SourceFile(NamedTuple):
    """One file: its folder and name relative to the source ("" for the top), and its bytes."""

    folder: str
    name: str
    content: bytes

    @property
    def path(self) -> str:
        """Path relative to the source."""
        return join(self.folder, self.name)


def join(folder: str, name: str) -> str:
    """Join a folder relative to the source and a name."""
    return f"{folder}/{name}" if folder else name


class Limits:
    """Which files are wanted, by the end of their name in any case, and how large they may be."""

    def __init__(self, max_bytes: Mapping[str, int]) -> None:
        self._max_bytes = {suffix.lower(): limit for suffix, limit in max_bytes.items()}
        self.suffixes = tuple(self._max_bytes)

    def wants(self, name: str) -> bool:
        """Tell whether a file is wanted."""
        return name.endswith(self.suffixes) or name.lower().endswith(self.suffixes)

    def max_bytes(self, name: str) -> int:
        """Size above which a file is left out."""
        lower = name.lower()
        return max(limit for suffix, limit in self._max_bytes.items() if lower.endswith(suffix))

    def is_too_large(self, where: str, size_bytes: int, problems: Problems) -> bool:
        """Record and tell whether a file is too large."""
        limit = self.max_bytes(where)
        if size_bytes > limit:
            problems.add("too_large", where, f"more than {limit} bytes")
        return size_bytes > limit


@dataclass(frozen=True)
class Chunk:
    """Files of one folder.

    Attributes:
        folder: relative to the source.
        names: file names.
        limits: how large they may be.
        contents: their bytes, or None: read them from `root` when loaded.
        root: the source, if it is a folder on disk.
    """

    folder: str
    names: list[str]
    limits: Limits
    contents: list[bytes] | None = None
    root: str = ""

    def load(self, problems: Problems) -> tuple[list[str], list[bytes]]:
        """Return names and contents; files that cannot be read are recorded and left out."""
        if self.contents is not None:
            return self.names, self.contents
        top = os.open(os.path.join(self.root, self.folder), os.O_RDONLY | os.O_DIRECTORY)  # noqa: PTH118
        try:
            return self._read_all(top)
        except OSError:
            return self._read_each(top, problems)
        finally:
            os.close(top)

    def _read_all(self, top: int) -> tuple[list[str], list[bytes]]:
        """Read small files as fast as Python can; raises OSError where one needs a closer look."""
        contents: list[bytes] = []
        for name in self.names:
            # below the folder's descriptor, which saves the path walk
            handle = os.open(name, os.O_RDONLY, dir_fd=top)
            contents.append(os.read(handle, _FIRST_READ_BYTES))
            os.close(handle)
        if max(map(len, contents), default=0) == _FIRST_READ_BYTES:
            raise OSError("a file is longer than one read")
        return self.names, contents

    def _read_each(self, top: int, problems: Problems) -> tuple[list[str], list[bytes]]:
        names: list[str] = []
        contents: list[bytes] = []
        for name in self.names:
            where = join(self.folder, name)
            limit = self.limits.max_bytes(name)
            try:
                with open(
                    name, "rb", opener=lambda n, flags: os.open(n, flags, dir_fd=top)
                ) as file:
                    content = file.read(limit + 1)
            except OSError as error:
                problems.add("unreadable", where, str(error.strerror))
                continue
            if not self.limits.is_too_large(where, len(content), problems):
                names.append(name)
                contents.append(content)
        return names, contents


@dataclass(frozen=True)
class Folder:
    """A folder that has not been listed yet; another process can do that too.

    Attributes:
        root: the source.
        path: relative to the source.
        above: real paths of this folder and those above it, to see a link that leads back.
        limits: which files are wanted.
        aside: exact names of files that are no votes.
    """

    root: str
    path: str
    above: tuple[str, ...]
    limits: Limits
    aside: tuple[str, ...]

    def look(self, problems: Problems) -> "Listing":
        """List the folder's chunks, the folders in it, and the files to keep apart."""
        folders, names = self._scan(problems)
        below: list[Folder] = []
        for child in folders:
            path = join(self.path, child)
            real = os.path.realpath(os.path.join(self.root, path))  # noqa: PTH118
            if real in self.above:
                problems.add("symlink_loop", path, "leads back to a folder above it")
            else:
                below.append(replace(self, path=path, above=(*self.above, real)))
        aside: list[SourceFile] = []
        for name in set(names).intersection(self.aside):
            names.remove(name)
            content = Path(self.root, self.path, name).read_bytes()
            aside.append(SourceFile(self.path, name, content))
        chunks = [
            Chunk(self.path, names[start : start + CHUNK_FILES], self.limits, root=self.root)
            for start in range(0, len(names), CHUNK_FILES)
        ]
        return Listing(chunks, below, aside)

    def _scan(self, problems: Problems) -> tuple[list[str], list[str]]:
        folders: list[str] = []
        names: list[str] = []
        try:
            with os.scandir(Path(self.root, self.path)) as entries:
                for entry in entries:
                    name = entry.name
                    if name.endswith(self.limits.suffixes) and entry.is_file(follow_symlinks=False):
                        names.append(name)  # nearly all of them, so without a call
                        continue
                    is_folder = _is_folder(entry, self.path, problems)
                    if is_folder:
                        folders.append(name)
                    elif is_folder is not None and self.limits.wants(name):
                        names.append(name)
        except OSError as error:
            problems.add("unreadable", self.path or ".", str(error.strerror))
        return sorted(folders), names


@dataclass(frozen=True)
class Listing:
    """What a folder holds."""

    chunks: list[Chunk]
    folders: list[Folder]
    aside: list[SourceFile]


@dataclass
class Aside:
    """Files that are no votes: kept apart by their exact name."""

    names: tuple[str, ...] = ()
    files: list[SourceFile] = field(default_factory=list)


def walk(top: Folder, problems: Problems, aside: Aside) -> Iterator[Chunk]:
    """Yield the chunks of a folder and of all folders in it."""
    waiting = [top]
    while waiting:
        found = waiting.pop().look(problems)
        aside.files.extend(found.aside)
        waiting.extend(reversed(found.folders))
        yield from found.chunks


def _is_folder(entry: "os.DirEntry[str]", relative: str, problems: Problems) -> bool | None:
    """Tell folders from files; None for a link that leads nowhere."""
    try:
        return entry.is_dir()
    except OSError as error:  # a link to itself: too many levels of symbolic links
        problems.add("symlink_loop", join(relative, entry.name), str(error.strerror))
        return None
