"""One file from a web server, which goes on where an earlier attempt broke off. Knows no data set."""

import hashlib
import logging
import re
import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from cifarsweep.results import files

log = logging.getLogger("cifarsweep.data")

PATIENCE = 60.0
"""Seconds without a byte after which a connection counts as broken."""
PAUSE = 1.0
"""Seconds before the second attempt; twice as long before each further one that brings nothing."""
ATTEMPTS = 5
"""In a row that bring nothing. The official site of CIFAR-10 breaks off, and is at times slower than 100 kB/s."""
EVERY = 10.0
"""Seconds between two lines on how far it is."""
MOST_BYTES = 2**30


def download(url: str, target: Path, md5: str) -> None:
    """The file at this address, whole and with this MD5 sum. ValueError says what arrived instead, OSError why nothing.

    What has arrived is in `.NAME.part` beside it, from where the next attempt goes on, of another process as well. A
    file that has another sum is kept as NAME.corrupt.
    """
    part, failures, begun = target.with_name(f".{target.name}.part"), 0, False
    while True:
        before = _size(part)
        try:
            _go_on(url, part)
            break
        except (OSError, HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 416 and before:  # there is no more
                break
            has_grown = _size(part) > before
            begun, failures = begun or has_grown, 0 if has_grown else failures + 1
            if not begun or failures == ATTEMPTS:
                raise
            log.info("%s: %s; goes on after %s", target.name, error, _megabytes(_size(part)))
            time.sleep(PAUSE * 2**failures)
    with files.opened(part) as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    part.rename(target)
    if found == md5:
        return
    kept = files.set_aside(target)
    raise ValueError(f"the file at {url} has the MD5 sum {found}, expected {md5}; it is kept as {kept}")


def _go_on(url: str, part: Path) -> None:
    """Adds what is missing. ConnectionError where it breaks off."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        if response.headers.get_content_type() == "text/html":
            raise ValueError(f"{url} is a web page, expected a file")
        if have and not _begins_at(response, have):
            have = 0  # the server sends all of it
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        if (total or 0) > MOST_BYTES:
            raise ValueError(f"{url} has {total:,} bytes, expected {MOST_BYTES:,} or fewer")
        with open(part, "ab" if have else "wb", opener=files.opener) as file:
            start = shown = time.monotonic()
            size = have
            while block := response.read(2**16):
                file.write(block)
                size += len(block)
                if size > MOST_BYTES:
                    raise ValueError(f"{url} has more than {MOST_BYTES:,} bytes")
                if (now := time.monotonic()) - shown >= EVERY:
                    shown = now
                    log.info("%s: %s", part.name[1:-5], _progress(size, total, (size - have) / (now - start)))
    if total and size < total:
        raise ConnectionError(f"broke off at {size:,} of {total:,} bytes")


def _begins_at(response: HTTPResponse, byte: int) -> bool:
    place = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return response.status == 206 and place is not None and int(place[1]) == byte


def _size(path: Path) -> int:
    return files.check_file(path) or 0


def _progress(size: int, total: int | None, rate: float) -> str:
    if total is None:
        return f"{_megabytes(size)}, {rate / 1000:,.0f} kB/s"
    seconds = (total - size) / rate
    left = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
    return f"{_megabytes(size)} of {_megabytes(total)}, {rate / 1000:,.0f} kB/s, {left} left"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
