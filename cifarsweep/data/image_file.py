"""One image file as pixels. Knows Pillow's modes, and refuses those that cannot be scaled to 8 bits a channel."""

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

REFUSED = {
    "F": "floats, which have no full range",
    "I": "integers of 32 bits or with a sign, whose range is not known",
    "LAB": "Lab colours",
}
"""Modes that Pillow cuts off at 255 when it converts them, or that it does not convert."""

WITH_ALPHA = ("LA", "PA", "RGBA", "RGBa")


def read_image(file: Path, size: int) -> NDArray[np.uint8]:
    """(size, size, 3) of the image's middle square: of an animation the first frame, on white where it is transparent.

    ValueError where the file holds none of 8 or 16 bits a channel; what Pillow raises where it is damaged.
    """
    from PIL import Image, ImageOps

    kind = file.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # a FIFO would be waited for; open() says what a folder is
        raise ValueError("not a file")
    with Image.open(file) as image:
        if image.format == "EPS":
            raise ValueError("EPS is a program, which Ghostscript would have to run")
        # How the file holds a pixel, such as "RGB;16B", which is known until it is decoded; of these formats only.
        arguments: Any = image.tile[0][3] if image.tile and image.format in ("PNG", "TIFF") else ""
        raw_mode = str(arguments[0] if isinstance(arguments, tuple) else arguments)
        ImageOps.exif_transpose(image, in_place=True)
        square = ImageOps.fit(_rgb(image, raw_mode), (size, size), Image.Resampling.BILINEAR)
    return np.asarray(square)


def _rgb(image: "ImageFile", raw_mode: str) -> "Image":
    from PIL import Image

    tags = getattr(image, "tag_v2", {})
    sample_format, photometric = (tags.get(tag) for tag in (339, 262))  # TIFF's names of these numbers
    transparent = image.info.get("transparency")
    # A 16-bit grey of PNG (before Pillow 10.3) and PGM comes as "I".
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        most = 4095 if raw_mode == "I;12" else 65535
        grey = np.asarray(image).astype(np.int64)
        if photometric == 0:  # white is zero, which Pillow heeds in images of 8 bits only
            grey = most - grey
        if transparent is not None:
            grey[grey == transparent] = most
        return Image.fromarray(((grey * 255 + most // 2) // most).astype(np.uint8)).convert("RGB")
    if image.mode in REFUSED or 2 in (sample_format or ()):
        holds = REFUSED.get(image.mode, "integers with a sign")
        raise ValueError(f"mode {image.mode}, {holds}; expected 8 or 16 bits a channel in grey, RGB, CMYK or a palette")
    if transparent is None and image.mode not in WITH_ALPHA:
        return image.convert("RGB")
    if raw_mode.startswith("RGB;16"):
        raise ValueError("a transparent colour of 16 bits a channel; expected an alpha channel, or 8 bits")
    if raw_mode in ("L;2", "L;4"):  # Pillow scales the greys to 255, and leaves the one that is transparent
        image.info["transparency"] *= {"L;2": 85, "L;4": 17}[raw_mode]
    # Conversion to RGB alone would show the colours that lie hidden under what is transparent.
    with_alpha = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), with_alpha).convert("RGB")


def why_unreadable(error: Exception) -> str:
    """The reason alone: Pillow's line on a file in no format that it knows ends with the file's name."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "in no format that Pillow reads"
    return first_line(error)


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
