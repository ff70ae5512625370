"""Cropping against the least work there is: OpenCV decodes a photograph and encodes its crops.

Run: python -m benchmarks.crop [--photographs 6]. Photographs of 6 megapixels, JPEG and PNG; one
thread and one process each, CPU time, interleaved. The contender encodes the same pixels
with OpenCV's own PNG defaults.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from crop.config import CropConfig  # noqa: E402
from crop.listing import ListedPhoto  # noqa: E402
from crop.photograph import PhotoRecord, PhotoTask, process_photo  # noqa: E402
from tests.degrade.degrade_statistics import photographs  # noqa: E402

SIDES = (3000, 2000)


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Large photographs with texture at every scale, half of them JPEG."""
    generator = np.random.default_rng(0)
    paths = []
    for index, image in zip(range(count), photographs() * count, strict=False):
        large = cv2.resize(image, SIDES, interpolation=cv2.INTER_CUBIC)
        noisy = large + generator.normal(0, 6, large.shape)
        paths.append(folder / f"photo{index}.{'jpg' if index % 2 == 0 else 'png'}")
        cv2.imwrite(str(paths[-1]), np.clip(noisy, 0, 255).astype(np.uint8))
    return paths


def opencv_alone(path: Path, record: PhotoRecord, size_px: int, folder: Path) -> None:
    """Decode, and encode the crops that ours kept."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None
    for crop in record.crops:
        window = image[crop.row : crop.row + size_px, crop.col : crop.col + size_px]
        cv2.imwrite(str(folder / f"{path.stem}-{crop.row}-{crop.col}.png"), window)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=int, default=6, help="how many to crop")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    config = CropConfig(photo_min_grey_std=5, photo_min_laplacian_var=5, min_grey_std=5)
    ours_s = alone_s = 0.0
    crops = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_photographs(folder, arguments.photographs)
        for index, path in enumerate([paths[0], *paths]):
            photo = ListedPhoto("bench", path.name, path, f"bench-{index}")
            start = time.process_time()
            record = process_photo(PhotoTask(photo, config, 0, folder / "state"))
            middle = time.process_time()
            opencv_alone(path, record, config.size_px, folder)
            end = time.process_time()
            if index > 0:  # the first one warms up
                ours_s, alone_s = ours_s + middle - start, alone_s + end - middle
                crops += len(record.crops)
    print(f"{len(paths)} photographs of 6 megapixels, {crops} crops of 512 px, CPU time")
    print(f"  crop          {ours_s:6.2f} s  {crops / ours_s:6.1f} crops/s")
    print(f"  OpenCV alone  {alone_s:6.2f} s  {crops / alone_s:6.1f} crops/s")
    print(f"  crop : OpenCV alone = {alone_s / ours_s:.2f} (target 1/1.3 = 0.77)")


if __name__ == "__main__":
    main()
