"""Rows of small images under their names, as one PNG file. Knows Pillow, not what the images show."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cifarsweep.results import files

MOST_SIDE = 64
"""Pixels. A larger image is made smaller, as it is shown at a centimetre."""
MOST_PIXELS = 2**26
"""Of a file: 1,600 rows of ten images. A PNG file of a few kB can stand for billions."""
MOST_BYTES = 2**28
_KEY = "cifarsweep"


@dataclass(frozen=True)
class Mosaic:
    names: list[str]
    """Of each row."""
    images: NDArray[np.uint8]
    """(rows, columns, height, width, 3); white where a row has fewer images than others."""

    def write(self, path: Path) -> None:
        """A PNG file without gaps, which holds the names as text."""
        images = self.images[: MOST_PIXELS // (self.images.shape[1] * MOST_SIDE**2)]
        rows, columns, height, width, channels = images.shape
        if max(height, width) > MOST_SIDE:
            flat, height, width = images.reshape(-1, height, width, channels), MOST_SIDE, MOST_SIDE
            small = [Image.fromarray(image).resize((width, height), Image.Resampling.BOX) for image in flat]
            images = np.stack([np.asarray(image) for image in small]).reshape(rows, columns, height, width, channels)
        about = PngInfo()
        about.add_itxt(_KEY, json.dumps({"names": self.names[:rows], "columns": columns}))
        whole = images.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
        with files.atomic(path, "wb") as file:
            Image.fromarray(whole).save(file, format="PNG", pnginfo=about)


def read(path: Path) -> Mosaic | None:
    """What `Mosaic.write` wrote, or None where there is no such file. Corrupt where it is something else."""
    if not path.exists():
        return None
    with _opened(path) as image:
        if image.width * image.height > MOST_PIXELS:
            raise files.Corrupt(path, f"{image.width}×{image.height} pixels, expected {MOST_PIXELS:,} or fewer")
        about = json.loads(image.text[_KEY])
        names, columns = [str(name) for name in about["names"]], int(about["columns"])
        pixels = np.asarray(image.convert("RGB"))
        height, width = pixels.shape[0] // len(names), pixels.shape[1] // columns
        images = pixels.reshape(len(names), height, columns, width, 3).transpose(0, 2, 1, 3, 4)
    return Mosaic(names, images)


def check(path: Path) -> bool:
    """Whether there is such a file. Corrupt where it is damaged. Takes a tenth of the time to read it."""
    if not path.exists():
        return False
    with _opened(path):
        return True


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The image, whose checksums are right. Corrupt where it is none, and for whatever is raised in the block."""
    try:
        with warnings.catch_warnings(), files.opened(path, MOST_BYTES) as file:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.open(file, formats=["PNG"]).verify()  # which reading the pixels does not do
            file.seek(0)
            yield Image.open(file, formats=["PNG"])
    except files.Corrupt:
        raise
    except Exception as error:  # whatever a decoder raises on a damaged file: SyntaxError, zlib.error, …
        advice = "the command of a run makes it again".__str__
        raise files.Corrupt(path, "not rows of images, or damaged", advice) from error
