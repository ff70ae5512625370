"""The three answers as the label trees spell them, and decoding of one vote file.

Strict and fast first (msgspec types); a file that does not fit is looked at again, leniently
about the case of keys and a byte-order mark, and then either kept or given its reason.
"""

import re
from typing import Any

import msgspec

from annotation_import.problems import Problems

ANSWERS: dict[str, int] = {"Positive": 1, "Similar": 0, "Negative": -1}
SPELLING: dict[int, str] = {code: word for word, code in ANSWERS.items()}
_BY_LOWER_CASE = {word.lower(): code for word, code in ANSWERS.items()}
_BOM = b"\xef\xbb\xbf"


class Picture(msgspec.Struct, gc=False):
    """One picture of a vote file."""

    Name: str | None = None
    File: str | None = None
    Label: str | None = None


class TimeCost(msgspec.Struct, gc=False):
    """When the answer was given; `Total` in seconds. Start and End are cut to whole seconds."""

    Start: str | None = None
    End: str | None = None
    Total: float | None = None


class Trial(msgspec.Struct, gc=False):
    """One vote file of any layout: its pictures in order, and its time."""

    pictures: list[Picture]
    time: TimeCost


def decode_trial(content: bytes, where: str, problems: Problems) -> Trial:
    """Decode a vote file whose pictures are found by name, not by key.

    Raises:
        VoteError: not JSON, or a picture of the wrong shape.
    """
    parts = decode_leniently(content, where, problems)
    keys = sorted((key for key in parts if key.startswith("picture")), key=_natural)
    pictures = [as_picture(parts[key], key) for key in keys]
    return Trial(pictures, as_time(parts.get("time_cost"), where, problems))


def _natural(key: str) -> tuple[str, int]:
    digits = re.sub(r"\D", "", key)
    return re.sub(r"\d", "", key), int(digits or 0)


class VoteError(Exception):
    """A vote file that must be left out: its reason and what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def answer_code(label: str | None) -> int:
    """Return -1, 0 or 1 for an answer as written, in any case.

    Raises:
        VoteError: there is no answer, or an unknown one.
    """
    if label is None or not label.strip():
        raise VoteError("missing_label", "expected Positive, Similar or Negative, found none")
    code = _BY_LOWER_CASE.get(label.strip().lower())
    if code is None:
        raise VoteError("wrong_label", f"expected Positive, Similar or Negative, found '{label}'")
    return code


def decode_leniently(content: bytes, where: str, problems: Problems) -> dict[str, Any]:
    """Decode a vote file that the strict decoder refused.

    Returns:
        The pictures and the time by lower-case key ("picture_ai", "time_cost"), each a mapping
        with keys capitalised as in `Picture` and `TimeCost`.

    Raises:
        VoteError: not JSON, or not an object of objects.
    """
    if content.startswith(_BOM):
        problems.add("byte_order_mark", where)
        content = content[len(_BOM) :]
    try:
        raw = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise VoteError("malformed_json", str(error)) from None
    if not isinstance(raw, dict) or not all(isinstance(part, dict) for part in raw.values()):
        raise VoteError("malformed_json", "expected an object of Picture_... and Time_cost")
    parts: dict[str, Any] = {}
    for key, part in raw.items():
        if key.lower() in parts:
            raise VoteError("malformed_json", f"key '{key}' is given twice")
        parts[key.lower()] = {name.strip().capitalize(): value for name, value in part.items()}
    return parts


def as_picture(part: Any, key: str) -> Picture:
    """Convert one leniently decoded picture.

    Raises:
        VoteError: it is missing, or a name or label is not a text.
    """
    if part is None:
        raise VoteError("malformed_json", f"key '{key}' is missing")
    if not isinstance(part.get("Label"), (str, type(None))):
        raise VoteError(
            "wrong_label", f"expected Positive, Similar or Negative, found {part['Label']!r}"
        )
    try:
        return msgspec.convert(part, Picture)
    except msgspec.ValidationError as error:
        raise VoteError("malformed_json", f"{key}: {error}") from None


def as_time(part: Any, where: str, problems: Problems) -> TimeCost:
    """Convert a leniently decoded time; a wrong one is noted and left empty."""
    try:
        return msgspec.convert(part or {}, TimeCost)
    except msgspec.ValidationError as error:
        problems.add("bad_time", where, str(error))
        return TimeCost()


def check_name(found: str | None, expected_stem: str) -> None:
    """Compare a name inside a vote file with the one that its file name implies.

    Raises:
        VoteError: they differ by more than case and extension.
    """
    stem = (found or "").rpartition(".")[0] or (found or "")
    if stem.lower() != expected_stem.lower():
        raise VoteError("name_mismatch", f"expected '{expected_stem}.png', found '{found}'")
