"""Chromium without a window, spoken to through a pipe."""

from __future__ import annotations

import itertools
import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
)


class Browser:
    """One tab. Use it as a context manager.

    Attributes:
        problems: of the page that was opened last: errors of its scripts, requests that failed.
        requests: its addresses.
    """

    def __init__(self, profile: Path) -> None:
        to_read, self._commands = os.pipe()
        self._answers, to_write = os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4.
        line = f'exec "$@" 3<&{to_read} 4>&{to_write}'
        arguments = ["bash", "-c", line, "bash", str(CHROMIUM), *_FLAGS, f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(arguments, pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self._numbers, self._buffer, self._session = itertools.count(1), b"", None
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        os.close(self._commands)
        os.close(self._answers)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol, and its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def open(self, address: str) -> None:
        """Go to a page and wait until it has loaded."""
        self.problems.clear()
        self.requests.clear()
        self._loaded = False
        self.call("Page.navigate", url=address)
        while not self._loaded:
            self._read()

    def set_screen(self, width: int, *, phone: bool = False, dark: bool = False) -> None:
        """The screen of the pages that are opened from now on.

        Args:
            width: in CSS pixels; it is 900 high.
            phone: whether it is one: no bar to scroll with, and pages that are too wide are made smaller.
            dark: whether its user prefers that.
        """
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, script: str) -> Any:
        """The value of JavaScript in the page; of a promise, what it comes to."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], 120)  # seconds
            assert ready, "Chromium does not answer"
            part = os.read(self._answers, 1 << 16)
            assert part, "Chromium has ended"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, event: str | None, what: dict[str, Any]) -> None:
        assert event != "Inspector.targetCrashed", "the tab has crashed"
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])
        elif event == "Network.loadingFailed" and not what.get("canceled"):
            self.problems.append(what["errorText"])
        elif event == "Network.responseReceived" and what["response"]["status"] >= 400:
            self.problems.append(f"{what['response']['status']} {what['response']['url']}")
        elif event == "Runtime.exceptionThrown":
            self.problems.append(what["exceptionDetails"]["text"])
        elif event == "Log.entryAdded" and what["entry"]["level"] == "error":
            self.problems.append(f"{what['entry']['text']} {what['entry'].get('url', '')}")
        elif event == "Runtime.consoleAPICalled" and what["type"] in ("error", "assert"):
            self.problems.append(str(what["args"]))
