"""Names that are safe everywhere: `[a-z0-9-]+`, from what photographs are called on disk.

The official DiffIQA tree cuts names at "_" and WebDataset cuts them at ".", so neither may occur.
"""

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath

_MAX_STEM = 48  # a tar member's name has at most 100 characters
_HASH_CHARS = 8


def photo_key(source: str, path: str) -> str:
    """Derive the key of a photograph from its source's name and its file's stem.

    Accents are dropped, everything else outside [a-z0-9] becomes "-". A short hash of the stem is
    added where letters got lost (other scripts) or the stem is too long.

    Args:
        source: name of the source, [a-z0-9]+.
        path: path of the file below its source, with "/".
    Returns:
        A key of at most 24 + 1 + 57 characters out of [a-z0-9-].
    """
    stem = PurePosixPath(path).stem
    plain = unicodedata.normalize("NFKD", stem)
    is_lossy = any(letter.isalnum() and not letter.isascii() for letter in plain)
    slug = re.sub(r"[^a-z0-9]+", "-", plain.encode("ascii", "ignore").decode().lower()).strip("-")
    if is_lossy or len(slug) > _MAX_STEM or not slug:
        name = stem.encode("utf-8", "surrogateescape")
        tail = hashlib.blake2b(name, digest_size=_HASH_CHARS // 2).hexdigest()
        slug = "-".join(filter(None, [slug[:_MAX_STEM].strip("-"), tail]))
    return f"{source}-{slug}"


def crop_key(photo_id: str, row: int, col: int) -> str:
    """Key of a crop; x is the row and y the column, as in DiffIQA's file names."""
    return f"{photo_id}-x{row}y{col}"
