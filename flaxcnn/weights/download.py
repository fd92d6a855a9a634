"""Files from the network into a cache: whole and verified, or not there at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from flaxcnn.weights.errors import WeightsError

_ATTEMPTS = 4
_PAUSE = 0.5  # seconds before the second attempt, twice as long before each further one
_TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 2**18
_LONGEST_POINTER = 2**16  # bytes
_T = TypeVar("_T")


def cache_folder() -> Path:
    """Where downloaded weights are kept: `$XDG_CACHE_HOME/flaxcnn/weights`, by default below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flaxcnn" / "weights"


def download(url: str, path: Path, sha256: str) -> None:
    """Download a file unless it is there already. An interrupted download goes on where it stopped.

    Of several processes that want the same file one downloads it and the others wait.

    Args:
        url: http, https or file.
        path: where the file shall be.
        sha256: the first hexadecimal digits of its checksum.

    Raises:
        WeightsError: when it cannot be had, or is not what the checksum says; says what to do.
    """
    import fcntl  # not on Windows, where all but this works

    partial = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f"{path.name}.lock").open("w")
    except OSError as error:
        raise WeightsError(
            f"cannot write in {path.parent}: {error.strerror}; the environment variable XDG_CACHE_HOME moves the cache"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        resumed = partial.exists()
        _persist(lambda: _append_rest(url, partial), url, path)
        if resumed and not checksum(partial).startswith(sha256):
            partial.unlink()  # what was there may have been of another file
            _persist(lambda: _append_rest(url, partial), url, path)
        if not (found := checksum(partial)).startswith(sha256):
            partial.unlink()
            raise WeightsError(
                f"{url} has sha256 {found[:16]}, not {sha256[:16]}: it is damaged or another file; try again, or put "
                f"the right one at {path}"
            )
        partial.replace(path)


def checksum(path: Path) -> str:
    """A file's sha256, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checksum(url: str, wanted: str, path: Path) -> str:
    """Read the sha256 of a file that stands in a small one: a Git LFS pointer, or a line of `sha256sum`.

    Args:
        url: of the small file: http, https or file.
        wanted: URL of the file itself, for messages.
        path: where that shall be, likewise.

    Returns:
        64 hexadecimal digits.

    Raises:
        WeightsError: when it cannot be had, or holds none; says what to do.
    """

    def read() -> bytes:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            return response.read(_LONGEST_POINTER)

    found = re.search(r"\b[0-9a-f]{64}\b", _persist(read, wanted, path).decode(errors="replace"))
    if found is None:
        raise WeightsError(f"{url} does not hold the sha256 of {wanted}")
    return found[0]


def _persist(request: Callable[[], _T], url: str, path: Path) -> _T:
    """What a request for a file returns, in several attempts if need be."""
    failure: Exception | None = None
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE * 2 ** (attempt - 1))
        try:
            return request()
        except (OSError, http.client.HTTPException) as error:
            failure = error
            if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 416:
                break
    raise WeightsError(
        f"cannot download {url} ({failure}); fetch it where there is a network and put it at {path}, or set "
        "FLAXCNN_MIRROR to the URL of a folder that has it"
    ) from failure


def _append_rest(url: str, partial: Path) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # there is no rest: the file is complete already, or another one
                partial.unlink()
            raise
    with response:
        if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0  # the server sends the whole file
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with partial.open("r+b" if start else "wb") as file, _progress(url, start, total) as advance:
            file.seek(start)
            received = start
            while block := response.read(_BLOCK):
                file.write(block)
                received += len(block)
                advance(len(block))
    if total is not None and received < total:
        raise ConnectionError(f"the connection ended after {received:,} of {total:,} bytes")


@contextmanager
def _progress(url: str, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(url.rpartition("/")[2], total=total, completed=start)
        yield lambda count: progress.advance(task, count)
