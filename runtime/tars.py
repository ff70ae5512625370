"""Tar shards that plain `webdataset` opens, and that are the same bytes every time.

A shard is a sorted list of members `<key>.<ext>`; modification time, owner and mode are
fixed. Keys are `[a-z0-9_-]+`, because WebDataset cuts a member's name at its first dot.
"""

import io
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.atomic import atomic_file, remove_leftovers
from runtime.errors import DataError

KEY_PATTERN = re.compile(r"[a-z0-9_-]+")
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Member:
    """One file inside a shard.

    Attributes:
        name: `<key>.<ext>`.
        offset: first byte of its content inside the tar.
        size_bytes: length of its content.
    """

    name: str
    offset: int
    size_bytes: int


def check_key(key: str) -> str:
    """Return `key` if it may be the key of a sample.

    Raises:
        DataError: it holds a character outside [a-z0-9_-].
    """
    if not KEY_PATTERN.fullmatch(key):
        raise DataError(f"key '{key}': expected only lower-case letters, digits, '-' and '_'")
    return key


def write_tar(
    path: str | Path, members: Iterable[tuple[str, bytes]], *, is_sorted: bool = True
) -> list[Member]:
    """Write a shard atomically from `(name, content)` in the order given.

    Args:
        path: the tar file.
        members: names `<key>.<ext>` in strictly ascending order by key, contents.
        is_sorted: False allows any order of the keys, as long as a key's members lie together.

    Returns:
        Where each member's content lies, for reading it without scanning the tar.

    Raises:
        DataError: a bad key, a name given twice, or keys out of order.
    """
    written: list[Member] = []
    names: set[str] = set()
    keys: set[str] = set()
    last_key = ""
    remove_leftovers(path)
    with (
        atomic_file(path) as handle,
        tarfile.open(fileobj=handle, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in members:
            key = check_key(name.partition(".")[0])
            is_misplaced = key < last_key if is_sorted else key != last_key and key in keys
            if name in names or is_misplaced:
                raise DataError(f"{path}: member '{name}' is given twice or out of order")
            names.add(name)
            keys.add(key)
            last_key = key
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o644
            start = tar.offset
            tar.addfile(info, io.BytesIO(content))
            written.append(Member(name, start + _BLOCK, len(content)))
    return written


def list_tar(path: str | Path) -> list[Member]:
    """List a shard's members by reading its headers only.

    Raises:
        DataError: the file is missing or is not a whole tar.
    """
    try:
        with tarfile.open(path, mode="r:") as tar:
            return [Member(item.name, item.offset_data, item.size) for item in tar if item.isfile()]
    except FileNotFoundError:
        raise _not_found(path) from None
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{path}: not a readable tar ({error}); delete it and rerun its stage"
        ) from None


def read_member(path: str | Path, member: Member) -> bytes:
    """Read one member's content by its position.

    Raises:
        DataError: the file is missing or ends before the member does.
    """
    try:
        with open(path, "rb") as handle:
            handle.seek(member.offset)
            content = handle.read(member.size_bytes)
    except FileNotFoundError:
        raise _not_found(path) from None
    if len(content) != member.size_bytes:
        raise DataError(
            f"{path}: member '{member.name}' ends early ({len(content)} of {member.size_bytes} "
            "bytes); the shard was cut short: delete it and rerun its stage"
        )
    return content


def _not_found(path: str | Path) -> DataError:
    return DataError(f"{path}: shard not found; run the stage that writes it first")


def iter_samples(path: str | Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Read a shard sample by sample: the key, and its members' contents by extension."""
    key: str | None = None
    sample: dict[str, bytes] = {}
    for member in list_tar(path):
        stem, _, extension = member.name.partition(".")
        if key is not None and stem != key:
            yield key, sample
            sample = {}
        key = stem
        sample[extension] = read_member(path, member)
    if key is not None:
        yield key, sample
