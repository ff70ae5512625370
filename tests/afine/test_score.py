"""`afine score` on files and folders, and images of every kind."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from afine.__main__ import main
from afine.pixels import read_image_file


@pytest.fixture
def images(tmp_path: Path, photo_u8: np.ndarray) -> Path:
    """A folder of references and one of test images."""
    for n in (1, 2):
        ref = photo_u8[100 * n :, 100:][:96, :64]
        for folder, name, image in (
            ("refs", f"a{n}.png", ref),
            ("tests", f"a{n}_blur.png", cv2.GaussianBlur(ref, (0, 0), 2)),
            ("tests", f"a{n}_same.png", ref),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / folder / name)
    return tmp_path


def score(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main(["score", *map(str, arguments)])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_files_as_table_and_json(images, tiny_file, capsys):
    files = [images / "refs/a1.png", images / "tests/a1_blur.png", images / "tests/a1_same.png"]
    code, out, _ = score(capsys, *files, "--weights", tiny_file)
    assert code == 0 and "lower is better" in out and "a1_blur.png" in out
    code, out, _ = score(capsys, *files, "--weights", tiny_file, "--json")
    facts = json.loads(out)
    assert facts["lower_is_better"] is True
    assert [Path(row["test"]).name for row in facts["scores"]] == ["a1_blur.png", "a1_same.png"]
    assert facts["scores"][0]["fidelity"] > facts["scores"][1]["fidelity"]


def test_folders_are_matched_by_name(images, tiny_file, capsys):
    code, out, _ = score(
        capsys, images / "refs", images / "tests", "--weights", tiny_file, "--json"
    )
    rows = json.loads(out)["scores"]
    assert code == 0 and len(rows) == 4
    assert all(Path(r["test"]).stem.startswith(Path(r["ref"]).stem) for r in rows)
    (images / "tests" / "zebra.png").write_bytes((images / "refs/a1.png").read_bytes())
    code, _, err = score(capsys, images / "refs", images / "tests", "--weights", tiny_file)
    assert code == 2 and "zebra.png: no reference" in err


def test_what_cannot_be_scored_is_named(images, tiny_file, capsys, photo_u8):
    ref = images / "refs/a1.png"
    code, _, err = score(capsys, ref, images / "none.png", "--weights", tiny_file)
    assert code == 2 and "none.png: image not found" in err
    Image.fromarray(photo_u8[:64, :64]).save(images / "small.png")
    code, _, err = score(capsys, ref, images / "small.png", "--weights", tiny_file)
    assert code == 2 and "64x64 pixels" in err and "64x96" in err
    (images / "broken.png").write_bytes(b"no image")
    code, _, err = score(capsys, ref, images / "broken.png", "--weights", tiny_file)
    assert code == 2 and "not a readable image" in err
    code, _, err = score(capsys, ref, ref, "--weights", images / "no.pth")
    assert code == 2 and "--weights" in err
    (images / "empty").mkdir()
    code, _, err = score(capsys, ref, images / "empty", "--weights", tiny_file)
    assert code == 2 and "holds no images" in err


def test_grey_alpha_16_bit_and_rotation(tmp_path, photo_u8):
    rgb = photo_u8[:40, :60]
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image_file(tmp_path / "grey.png"), np.dstack([grey] * 3))
    alpha = np.dstack([rgb, np.full(rgb.shape[:2], 7, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_image_file(tmp_path / "alpha.png"), rgb)
    cv2.imwrite(str(tmp_path / "deep.png"), rgb[:, :, ::-1].astype(np.uint16) * 256 + 17)
    np.testing.assert_array_equal(read_image_file(tmp_path / "deep.png"), rgb)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    assert read_image_file(tmp_path / "turned.jpg").shape == (60, 40, 3)


def test_help_needs_no_torch():
    """`--help` answers fast: nothing heavy is imported."""
    code = (
        "import sys; from afine.__main__ import main\n"
        "try: main(['score', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'cv2', 'scipy', 'polars'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]" and "example" in done.stdout
