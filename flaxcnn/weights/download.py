"""Files from the network into a cache: whole and verified, or not there at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flaxcnn.weights.errors import WeightsError

_ATTEMPTS = 4
_PAUSE = 0.5  # seconds before the second attempt, twice as long before each further one
_TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 2**18


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

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        resumed = partial.exists()
        _transfer(url, partial, path)
        if resumed and not checksum(partial).startswith(sha256):
            partial.unlink()  # what was there may have been of another file
            _transfer(url, partial, path)
        if not (found := checksum(partial)).startswith(sha256):
            partial.unlink()
            raise WeightsError(f"{url} has sha256 {found[:16]}, not {sha256}: it is damaged or another file")
        partial.replace(path)


def checksum(path: Path) -> str:
    """A file's sha256, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _transfer(url: str, partial: Path, path: Path) -> None:
    """Fill `partial`, in several attempts if need be."""
    failure: Exception | None = None
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE * 2 ** (attempt - 1))
        try:
            return _append_rest(url, partial)
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
