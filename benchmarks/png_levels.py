"""PNG settings compared: time to encode and decode, and size, over real 512-px crops.

Run: python -m benchmarks.png_levels. Times are medians over the crops of interleaved minima,
so that other load on the machine cancels.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import skimage.data

from runtime.images import decode_png, encode_png

LEVEL, STRATEGY, FILTER = (
    cv2.IMWRITE_PNG_COMPRESSION,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_FILTER,
)
RLE, HUFFMAN = cv2.IMWRITE_PNG_STRATEGY_RLE, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY
SETTINGS: dict[str, list[int]] = {
    "level 0": [LEVEL, 0],
    "level 1": [LEVEL, 1],
    "level 6": [LEVEL, 6],
    "opencv's default": [],
    "level 1, rle": [LEVEL, 1, STRATEGY, RLE],
    "level 1, rle, sub": [LEVEL, 1, STRATEGY, RLE, FILTER, cv2.IMWRITE_PNG_FILTER_SUB],
    "level 1, rle, up": [LEVEL, 1, STRATEGY, RLE, FILTER, cv2.IMWRITE_PNG_FILTER_UP],
    "level 1, rle, avg": [LEVEL, 1, STRATEGY, RLE, FILTER, cv2.IMWRITE_PNG_FILTER_AVG],
    "level 1, rle, paeth": [LEVEL, 1, STRATEGY, RLE, FILTER, cv2.IMWRITE_PNG_FILTER_PAETH],
    "level 1, huffman, avg": [LEVEL, 1, STRATEGY, HUFFMAN, FILTER, cv2.IMWRITE_PNG_FILTER_AVG],
}
PHOTOGRAPHS = (
    "astronaut.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg", "ihc.png", "retina.jpg",
    "motorcycle_left.png", "gravel.png", "grass.png", "brick.png",
)  # fmt: skip


def crops(size_px: int = 512) -> list[np.ndarray]:
    """One central crop, uint8 [size, size, 3], of each photograph that is large enough."""
    folder = Path(skimage.data.__file__).parent
    found = []
    for name in PHOTOGRAPHS:
        image = cv2.imread(str(folder / name), cv2.IMREAD_COLOR)
        if image is not None and min(image.shape[:2]) >= size_px:
            row, col = (image.shape[0] - size_px) // 2, (image.shape[1] - size_px) // 2
            found.append(np.ascontiguousarray(image[row : row + size_px, col : col + size_px]))
    return found


def by_opencv(image_u8: np.ndarray, flags: list[int]) -> bytes:
    """Encode as `runtime.images` would by OpenCV."""
    bgr = cv2.cvtColor(image_u8, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".png", bgr, flags)[1].tobytes())


def main() -> None:
    cv2.setNumThreads(1)
    images = crops()
    encode_ms: dict[str, list[float]] = defaultdict(list)
    decode_ms: dict[str, list[float]] = defaultdict(list)
    kilobytes: dict[str, list[float]] = defaultdict(list)
    ways: dict[str, Callable[[np.ndarray], bytes]] = {
        name: partial(by_opencv, flags=flags) for name, flags in SETTINGS.items()
    }
    ways["ours: zlib-ng, huffman, avg"] = encode_png
    for image in images:
        best: dict[str, tuple[float, float]] = dict.fromkeys(ways, (1e9, 1e9))
        for _ in range(5):
            for name, encode in ways.items():
                start = time.perf_counter()
                content = encode(image)
                middle = time.perf_counter()
                decoded = decode_png(content, where=name)
                end = time.perf_counter()
                assert np.array_equal(decoded, image)
                best[name] = (min(best[name][0], middle - start), min(best[name][1], end - middle))
                if len(kilobytes[name]) < len(encode_ms[name]) + 1:
                    kilobytes[name].append(len(content) / 1000)
        for name, (encode_s, decode_s) in best.items():
            encode_ms[name].append(1000 * encode_s)
            decode_ms[name].append(1000 * decode_s)
    print(f"{len(images)} crops of 512 px; medians of encode and decode, mean size")
    for name in ways:
        print(
            f"{name:28} encode {np.median(encode_ms[name]):6.1f} ms  decode "
            f"{np.median(decode_ms[name]):5.1f} ms  {np.mean(kilobytes[name]):6.0f} kB"
        )


if __name__ == "__main__":
    main()
