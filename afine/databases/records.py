"""What every reader returns, and a file index that forgives the case of names."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import DataError


@dataclass(frozen=True)
class ImageRecord:
    """One image of a set.

    Attributes:
        content: what the images of one reference have in common.
        image: name inside the set, unique.
        file: path below the set's folder, or of a shard below the run's folder.
        is_ref: it is the reference of its content.
        quality: higher is better; None for a reference that was not rated.
        label: against the reference: -1 worse, 0 similar, 1 better; None where only a
            quality is known.
        split: train, val or test where the set says so, else "".
        offset: first byte inside a shard; -1 for a plain file.
        size_bytes: length inside a shard; -1 for a plain file.
    """

    content: str
    image: str
    file: str
    is_ref: bool = False
    quality: float | None = None
    label: int | None = None
    split: str = ""
    offset: int = -1
    size_bytes: int = -1


@dataclass
class ImageSet:
    """A set as read: its images, and what had to be left out.

    Attributes:
        name: short name, as in the configuration.
        folder: what the records' files are relative to.
        records: all usable images.
        rejected: (image, reason, detail) of the others.
        label_files: files that the scores came from.
    """

    name: str
    folder: Path
    records: list[ImageRecord] = field(default_factory=list)
    rejected: list[tuple[str, str, str]] = field(default_factory=list)
    label_files: list[Path] = field(default_factory=list)


class FileIndex:
    """Files below a folder by lower-cased name, because lists and disks disagree on case.

    Args:
        root: the set's folder, which found paths are relative to.
        folders: where to look, below `root`.
    Raises:
        DataError: two files differ only in case, so that a name is ambiguous.
    """

    def __init__(self, root: Path, folders: Iterable[str]) -> None:
        self._root = root
        self._paths: dict[str, str] = {}
        for folder in folders:
            for path in sorted((root / folder).glob("*")):
                if path.is_file():
                    self._add(path)

    def _add(self, path: Path) -> None:
        relative = path.relative_to(self._root).as_posix()
        known = self._paths.setdefault(path.name.lower(), relative)
        if known != relative:
            raise DataError(
                f"{self._root}: '{known}' and '{relative}' have the same name but for case or "
                "folder; remove one of them"
            )

    def find(self, *names: str) -> str | None:
        """Return the path of the first of `names` that exists, in any case."""
        for name in names:
            if (path := self._paths.get(name.lower())) is not None:
                return path
        return None


def existing_folder(root: Path, *names: str, what: str) -> str:
    """Return the first of `names` that is a folder below `root`, in any case.

    Raises:
        DataError: none is there.
    """
    if not root.is_dir():
        raise DataError(f"{root}: folder of {what} not found")
    there = {path.name.lower(): path.name for path in root.iterdir() if path.is_dir()}
    for name in names:
        if name.lower() in there:
            return there[name.lower()]
    raise DataError(
        f"{root}: {what} has none of the folders {', '.join(names)}; found "
        f"{', '.join(sorted(there.values())) or 'none'}"
    )


def find_file(root: Path, name: str, *, what: str) -> Path:
    """Return `name` below `root`, in any case.

    Raises:
        DataError: it is not there.
    """
    for path in sorted(root.glob("*")):
        if path.name.lower() == name.lower():
            return path
    raise DataError(f"{root / name}: {what} not found")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a label file that are not blank, with their numbers from 1."""
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


def parse_score(text: str, path: Path, number: int) -> float:
    """Read a score.

    Raises:
        DataError: naming file and line, where the score is missing or is no finite number.
    """
    try:
        score = float(text)
    except ValueError:
        raise DataError(f"{path}:{number}: '{text}' is no score; repair the line") from None
    if not -1e9 < score < 1e9:
        raise DataError(f"{path}:{number}: score {text} is not finite; repair the line")
    return score


def add_once(seen: dict[str, int], image: str, path: Path, number: int) -> None:
    """Note that line `number` lists `image`.

    Raises:
        DataError: an earlier line lists it already.
    """
    key = image.lower()
    if key in seen:
        raise DataError(
            f"{path}:{number}: '{image}' is listed twice (first on line {seen[key]}); remove one"
        )
    seen[key] = number
