"""Which image files belong to which class, by the names and places of folders. Opens no file."""

import os
import unicodedata
from collections import deque
from collections.abc import Iterable
from pathlib import Path

IMAGE_ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}

SYSTEM_FOLDERS = {
    *("__macosx", "network trash folder", "temporary items"),  # macOS
    *("$recycle.bin", "recycler", "system volume information"),  # Windows
    *("@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "lost+found"),  # network storage and Linux
}
"""In lower case: what systems make in a user's folder, some of them for small copies of the images."""


def class_files(part: Path) -> dict[str, list[Path]]:
    """The image files at any depth of each folder in `part`, both sorted; the folder's name is the class.

    Hidden and system entries do not count. Links are followed, and a file that is reached twice counts once. ValueError
    names classes without an image, names that cannot be shown or told apart, and a file of two classes.
    """
    root, entries = f"root={part.parent}", [part / entry.name for entry in _entries(part)]
    for path in entries:
        if not os.path.exists(path):  # a class would be missing without a word
            raise ValueError(f"{root}: {path} is a link to nothing, expected the folder of a class")
    folders = [path for path in entries if path.is_dir()]
    _check_names(root, [folder.name for folder in folders])
    classes: dict[str, list[Path]] = {}
    found: dict[str, Path] = {}
    for folder in folders:
        of_class = image_files(folder)
        if not of_class:
            endings = " ".join(sorted(IMAGE_ENDINGS))
            raise ValueError(f"{root}: no image in {folder}, expected files ending in {endings}")
        if both := sorted(found.keys() & of_class):
            same = f"{of_class[both[0]]} is the same file as {found[both[0]]}"
            raise ValueError(f"{root}: {same}, expected each image in one class")
        found |= of_class
        classes[folder.name] = sorted(of_class.values())
    return classes


def image_files(folder: Path) -> dict[str, Path]:
    """The folder's, at any depth, by their path without links. What is there itself keeps its own name, whatever links
    to it."""
    found: dict[str, Path] = {}
    folders, links = [folder], deque[Path]()
    seen = {str(above) for above in Path(os.path.realpath(folder)).parents}  # a link upwards would bring all classes in
    while folders or links:
        here = folders.pop() if folders else links.popleft()
        real = os.path.realpath(here)
        if not here.is_dir():  # a link to a file, or one that is broken: whoever opens it names it
            found.setdefault(real, here)
        elif real not in seen:
            seen.add(real)
            for entry in _entries(here):
                path = here / entry.name
                is_image = path.suffix.lower() in IMAGE_ENDINGS
                if entry.is_symlink():
                    if path.is_dir() or (is_image and (path.is_file() or not os.path.exists(path))):
                        links.append(path)
                elif entry.is_dir():
                    folders.append(path)
                elif entry.is_file() and is_image:  # no FIFO, which has no end
                    found[os.path.join(real, entry.name)] = path
    return found


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    """Sorted by name, without hidden entries, backups and what systems make."""
    with os.scandir(folder) as entries:
        shown = (entry for entry in entries if not entry.name.startswith((".", "~")) and not entry.name.endswith("~"))
        return sorted((e for e in shown if e.name.lower() not in SYSTEM_FOLDERS), key=lambda entry: entry.name)


def _check_names(root: str, names: list[str]) -> None:
    by_form: dict[str, str] = {}
    for name in names:
        if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
            raise ValueError(f"{root}: class folder {name!a}, expected a name in UTF-8 without control characters")
        if (other := by_form.setdefault(_form(name), name)) != name:
            differ = "differ in their Unicode form only"
            raise ValueError(f"{root}: class folders {other!a} and {name!a} {differ}, expected one of them")


def check_same_classes(root: str, train: Iterable[str], test: Iterable[str]) -> None:
    """ValueError names the class folders that train or test has alone."""
    alone = {"train": sorted({*train} - {*test}), "test": sorted({*test} - {*train})}
    if not any(alone.values()):
        return
    alike = {_form(name) for name in alone["train"]} & {_form(name) for name in alone["test"]}
    show = ascii if alike else str
    parts = [f"{part} alone has {listed(map(show, names))}" for part, names in alone.items() if names]
    reason = ", of which some differ in their Unicode form only" if alike else ""
    raise ValueError(f"root={root}: expected the same class folders in train and test; {', '.join(parts)}{reason}")


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first names, and how many more there are."""
    texts = list(map(str, names))
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
