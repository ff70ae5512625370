import tarfile

import pytest
import webdataset

from runtime.errors import DataError
from runtime.tars import iter_samples, list_tar, read_member, write_tar

MEMBERS = [("a-1.json", b"{}"), ("a-1.png", b"x" * 700), ("b-2_01.png", b"y")]


def test_positions_lead_to_the_content(tmp_path):
    path = tmp_path / "s.tar"
    written = write_tar(path, MEMBERS)
    assert written == list_tar(path)
    assert [read_member(path, member) for member in written] == [data for _, data in MEMBERS]


def test_same_members_same_bytes_and_fixed_headers(tmp_path):
    write_tar(tmp_path / "1.tar", MEMBERS)
    write_tar(tmp_path / "2.tar", MEMBERS)
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    with tarfile.open(tmp_path / "1.tar") as tar:
        assert {(item.mtime, item.uid, item.mode) for item in tar} == {(0, 0, 0o644)}


def test_plain_webdataset_groups_by_key(tmp_path):
    write_tar(tmp_path / "s.tar", MEMBERS)
    rows = list(webdataset.WebDataset(str(tmp_path / "s.tar"), shardshuffle=False))
    assert [row["__key__"] for row in rows] == ["a-1", "b-2_01"]
    assert rows[0]["png"] == b"x" * 700
    assert [key for key, _ in iter_samples(tmp_path / "s.tar")] == ["a-1", "b-2_01"]


@pytest.mark.parametrize(
    "members",
    [
        [("A.png", b"")],
        [("a.b.png", b""), ("a.b.png", b"")],
        [("b.png", b""), ("a.png", b"")],
        [("ü.png", b"")],
    ],
)
def test_bad_names_are_refused_and_leave_no_file(tmp_path, members):
    with pytest.raises(DataError):
        write_tar(tmp_path / "s.tar", members)
    assert list(tmp_path.iterdir()) == []


def test_truncated_tar_is_named(tmp_path):
    path = tmp_path / "s.tar"
    members = write_tar(path, MEMBERS)
    path.write_bytes(path.read_bytes()[:1200])
    with pytest.raises(DataError, match=r"s\.tar.*cut short"):
        read_member(path, members[1])
    path.write_bytes(b"no tar at all")
    with pytest.raises(DataError, match="not a readable tar"):
        list_tar(path)


def test_missing_tar_is_named(tmp_path):
    path = tmp_path / "s.tar"
    (member, *_) = write_tar(path, MEMBERS)
    path.unlink()
    for read in (lambda: read_member(path, member), lambda: list_tar(path)):
        with pytest.raises(DataError, match=r"s\.tar: shard not found; run the stage"):
            read()


def test_failing_producer_keeps_the_earlier_file(tmp_path):
    path = tmp_path / "s.tar"
    write_tar(path, MEMBERS)
    before = path.read_bytes()

    def broken():
        yield "a.png", b"1"
        raise DataError("stop")

    with pytest.raises(DataError):
        write_tar(path, broken())
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["s.tar"]
