"""Downloads from a server on the loopback that interrupts, damages and delays them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flaxcnn.weights import WeightsError, download

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()[:8]


class Server(ThreadingHTTPServer):
    """Serves `CONTENT`, or less of it.

    Attributes:
        content: what it serves.
        cut: bytes after which it drops the connection, for each of the next requests.
        resumable: whether it knows the Range header.
        delay: seconds between two blocks.
        status: of all its answers, unless 200.
        requests: the Range header of each request so far.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut, self.resumable, self.delay, self.status = CONTENT, [], True, 0.0, 200
        self.requests: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/weights.pth"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.requests.append(asked)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.resumable else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        stop = server.cut.pop(0) if server.cut else len(body)
        for block in range(0, stop, 100_000):
            self.wfile.write(body[block : min(block + 100_000, stop)])
            time.sleep(server.delay)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "_PAUSE", 0.01)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_downloads_once(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "weights.pth"
    download.download(server.url, path, SHA256)
    download.download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.requests == [None]
    assert names(path.parent) == ["weights.pth"]


def test_goes_on_where_it_was_interrupted(server: Server, tmp_path: Path) -> None:
    server.cut = [300_000, 200_001]
    download.download(server.url, tmp_path / "weights.pth", SHA256)
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", "bytes=500001-"]


def test_goes_on_in_a_later_process(server: Server, tmp_path: Path) -> None:
    server.cut = [100_000] + [0] * 3
    with pytest.raises(WeightsError, match="the connection ended after 100,000 of 1,024,000 bytes"):
        download.download(server.url, tmp_path / "weights.pth", SHA256)
    assert names(tmp_path) == ["weights.pth.part"]
    download.download(server.url, tmp_path / "weights.pth", SHA256)
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=100000-"


def test_starts_again_where_the_server_cannot_go_on(server: Server, tmp_path: Path) -> None:
    server.cut, server.resumable = [300_000], False
    download.download(server.url, tmp_path / "weights.pth", SHA256)
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("rest", [b"of another file", CONTENT + b"and more"], ids=["shorter", "longer"])
def test_starts_again_where_the_rest_of_another_file_lies(server: Server, tmp_path: Path, rest: bytes) -> None:
    (tmp_path / "weights.pth.part").write_bytes(rest)
    download.download(server.url, tmp_path / "weights.pth", SHA256)
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


def test_refuses_a_damaged_file(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:5000] + b"\x00" + CONTENT[5001:]
    with pytest.raises(WeightsError, match=f"not {SHA256}: it is damaged or another file"):
        download.download(server.url, tmp_path / "weights.pth", SHA256)
    assert names(tmp_path) == []


def test_survives_a_slow_server_and_not_a_silent_one(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_TIMEOUT", 0.5)
    server.delay = 0.1  # 1 s in all, twice the time without a byte that it may take
    download.download(server.url, tmp_path / "slow.pth", SHA256)
    assert (tmp_path / "slow.pth").read_bytes() == CONTENT
    server.delay = 1.5
    monkeypatch.setattr(download, "_ATTEMPTS", 1)
    with pytest.raises(WeightsError, match="timed out"):
        download.download(server.url, tmp_path / "silent.pth", SHA256)


def test_two_at_once_download_once(server: Server, tmp_path: Path) -> None:
    server.delay = 0.02
    path = tmp_path / "weights.pth"
    failures: list[Exception] = []

    def run() -> None:
        try:
            download.download(server.url, path, SHA256)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert path.read_bytes() == CONTENT
    assert server.requests == [None]


def test_two_processes_at_once_download_once(server: Server, tmp_path: Path) -> None:
    server.delay = 0.3  # 3 s, so that the second one starts meanwhile
    path = tmp_path / "weights.pth"
    code = f"from flaxcnn.weights.download import download; from pathlib import Path; p = Path({str(path)!r});"
    code += f"download({server.url!r}, p, {SHA256!r}); assert p.stat().st_size == {len(CONTENT)}"
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert server.requests == [None]
    assert names(tmp_path) == ["weights.pth"]


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (403, 1), (503, 4)])
def test_says_what_to_do_where_there_is_no_file(server: Server, tmp_path: Path, status: int, attempts: int) -> None:
    server.status = status
    path = tmp_path / "weights.pth"
    with pytest.raises(WeightsError) as refusal:
        download.download(server.url, path, SHA256)
    for part in (server.url, str(status), f"put it at {path}", "FLAXCNN_MIRROR"):
        assert part in str(refusal.value)
    assert len(server.requests) == attempts


def test_says_what_to_do_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_PAUSE", 0.01)
    url = "http://127.0.0.1:9/weights.pth"  # nobody listens
    with pytest.raises(
        WeightsError, match=r"cannot download .*refused.* put it at .*weights\.pth, or set FLAXCNN_MIRROR"
    ):
        download.download(url, tmp_path / "weights.pth", SHA256)


def test_takes_files_from_a_folder(tmp_path: Path) -> None:
    source = tmp_path / "mirror" / "weights.pth"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    download.download(source.as_uri(), tmp_path / "cache" / "weights.pth", SHA256)
    assert (tmp_path / "cache" / "weights.pth").read_bytes() == CONTENT
