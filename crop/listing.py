"""Which files a source holds: recursive globs or a list file, in a fixed order.

Symbolic links are followed; a folder that contains itself is recorded once and not entered.
"""

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from crop.config import SourceConfig
from crop.keys import photo_key
from crop.rejection import Rejected
from runtime.errors import ConfigError

_PACKAGE = "package:"


@dataclass(frozen=True)
class ListedPhoto:
    """One file to read.

    Attributes:
        source: name of its source.
        path: path relative to the source's folder, printable.
        file: where it is.
        photo_id: its key, unique in the run.
    """

    source: str
    path: str
    file: Path
    photo_id: str


@dataclass
class Listing:
    """The files of all sources, and what was left out already."""

    photos: list[ListedPhoto] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def list_photos(sources: Sequence[SourceConfig]) -> Listing:
    """List the files of all sources, in the order of the sources and of their paths.

    Raises:
        ConfigError: two sources share a name, a folder is missing, or a source has no file.
    """
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ConfigError(f"sources: names must differ, found {', '.join(names)}")
    listing = Listing()
    by_key: dict[str, ListedPhoto] = {}
    for source in sources:
        folder = source_folder(source)
        before = len(listing.photos) + len(listing.rejected)
        found = _listed(source, folder, listing) if source.list_file else _globbed(
            source, folder, listing
        )  # fmt: skip
        for file in islice(found, source.limit):
            _add(listing, by_key, source, folder, file)
        if len(listing.photos) + len(listing.rejected) == before:
            raise ConfigError(
                f"sources.{source.name}: no file in {folder} matches "
                f"{source.list_file or ', '.join(source.globs)}; correct path or globs"
            )
    return listing


def listing_values(listing: Listing) -> list[dict[str, Any]]:
    """What stands for the photographs in the stage's fingerprint: names and sizes."""
    return [
        {"photo_id": photo.photo_id, "path": photo.path, "bytes": _size(photo.file)}
        for photo in listing.photos
    ]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


def source_folder(source: SourceConfig) -> Path:
    """Resolve a source's folder.

    Raises:
        ConfigError: it is not there, or is no folder.
    """
    if source.path.startswith(_PACKAGE):
        folder = _package_folder(source.path.removeprefix(_PACKAGE), source)
    else:
        folder = Path(source.path).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"sources.{source.name}: {folder} is not a folder (relative paths start at "
            f"{Path.cwd()}); correct sources.path"
        )
    return folder


def _package_folder(name: str, source: SourceConfig) -> Path:
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        raise ConfigError(
            f"sources.{source.name}: no installed package '{name}'; install it or name a folder"
        )
    return Path(next(iter(found.submodule_search_locations)))


def _add(
    listing: Listing,
    by_key: dict[str, ListedPhoto],
    source: SourceConfig,
    folder: Path,
    file: Path,
) -> None:
    path = printable(file.relative_to(folder).as_posix())
    key = photo_key(source.name, file.relative_to(folder).as_posix())
    photo = ListedPhoto(source.name, path, file, key)
    first = by_key.setdefault(key, photo)
    if first is photo:
        listing.photos.append(photo)
        return
    detail = f"key '{key}' is taken by '{first.path}'; rename one or give it a source of its own"
    listing.rejected.append(Rejected(source.name, path, "key_collision", detail=detail))


def printable(path: str) -> str:
    """Replace bytes of a name that are not UTF-8, which a table cannot hold."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _listed(source: SourceConfig, folder: Path, listing: Listing) -> Iterator[Path]:
    assert source.list_file is not None
    try:
        lines = Path(source.list_file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"sources.{source.name}: list_file {source.list_file} cannot be read ({error})"
        ) from None
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        file = folder / name
        if file.is_file() and not Path(name).is_absolute() and ".." not in Path(name).parts:
            yield file
        else:
            detail = f"line {number} of {Path(source.list_file).name}: no such file in the folder"
            listing.rejected.append(Rejected(source.name, name, "missing", detail=detail))


def _globbed(source: SourceConfig, folder: Path, listing: Listing) -> Iterator[Path]:
    patterns = [_pattern(glob) for glob in source.globs]
    for file in _walk(folder, folder, (_identity(folder),), source, listing):
        relative = file.relative_to(folder).as_posix()
        if any(pattern.fullmatch(relative) for pattern in patterns):
            yield file


def _walk(
    top: Path,
    folder: Path,
    above: tuple[tuple[int, int], ...],
    source: SourceConfig,
    listing: Listing,
) -> Iterator[Path]:
    """Yield files depth first in the order of their names; `above` are the folders we are in."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        shown = printable(folder.relative_to(top).as_posix())
        detail = f"folder: {error.strerror}"
        listing.rejected.append(Rejected(source.name, shown, "unreadable", detail=detail))
        return
    for entry in entries:
        path = folder / entry.name
        if not _is_folder(entry):
            yield path
        elif (identity := _identity(path)) in above:
            shown = printable(path.relative_to(top).as_posix())
            detail = "a link to a folder that contains it"
            listing.rejected.append(Rejected(source.name, shown, "symlink_loop", detail=detail))
        else:
            yield from _walk(top, path, (*above, identity), source, listing)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; opening it says so later
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _pattern(glob: str) -> re.Pattern[str]:
    """Translate a glob; "**/" is any depth, "*" and "?" stay inside a name."""
    text = ""
    for part in re.split(r"(\*\*/|\*|\?)", glob):
        text += {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    return re.compile(text, re.IGNORECASE | re.DOTALL)
