"""A headless Chromium, driven by its DevTools protocol. Use it as a context."""

import asyncio
import base64
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import pytest

from harness import eventually

_PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
_SECONDS: Final = 60.0
_OPTIONS: Final = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-extensions", "--no-first-run", "--hide-scrollbars", "--remote-debugging-port=0",
    "--disable-background-networking", "--disable-component-update", "--force-color-profile=srgb",
)  # fmt: skip


class Chromium:
    """One browser with one page."""

    def __init__(self, directory: Path, *, width: int = 1100, height: int = 900) -> None:
        found = next(filter(None, map(shutil.which, _PROGRAMS)), None)
        if found is None:
            pytest.fail("there is no Chromium; `make chromium` installs it", pytrace=False)
        self._directory = directory
        self._command = [found, *_OPTIONS, f"--user-data-dir={directory}",
                         f"--window-size={width},{height}", "about:blank"]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._runner = asyncio.Runner()
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._number = 0
        self.problems: list[str] = []
        """Errors of scripts, and what the page's policy has refused."""

    def __enter__(self) -> Self:
        self._directory.mkdir()
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            port = eventually(self._port, seconds=_SECONDS, what="Chromium's start")
            url = eventually(lambda: self._page(port), seconds=_SECONDS, what="its page")
            self._runner.run(self._connect(url))
        except BaseException:
            self.__exit__()
            raise
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._runner.run(self._socket.close())
        if self._session is not None:
            self._runner.run(self._session.close())
        self._runner.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def open(self, url: str) -> None:
        """Go to a URL."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'", what=url)

    def js(self, expression: str) -> Any:
        """Return what an expression is in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, expression: str, *, what: str = "") -> None:
        """Wait until an expression is true in the page."""
        try:
            eventually(lambda: self.js(expression), seconds=_SECONDS, pause=0.1,
                       what=what or expression)  # fmt: skip
        except AssertionError as error:
            text = self.js("document.body.innerText")
            raise AssertionError(f"{error}\n{text}\n{self.problems}") from None

    def screenshot(self) -> bytes:
        """Return the whole page as a PNG."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    def call(self, method: str, **parameters: object) -> Mapping[str, Any]:
        """Have something done; return the result."""
        return self._runner.run(self._call(method, parameters))

    async def _call(self, method: str, parameters: Mapping[str, object]) -> Mapping[str, Any]:
        assert self._socket is not None
        self._number += 1
        await self._socket.send_json(
            {"id": self._number, "method": method, "params": dict(parameters)}
        )
        async with asyncio.timeout(_SECONDS):
            while True:
                said = await self._socket.receive_json()
                if said.get("id") == self._number:
                    assert "error" not in said, f"{method}: {said['error']}"
                    found: Mapping[str, Any] = said["result"]
                    return found
                self._take_in(said)

    def _take_in(self, event: Mapping[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(event["params"]["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded":
            entry = event["params"]["entry"]
            # The network's are answers such as 401, which the page itself shows.
            if entry["level"] == "error" and entry["source"] != "network":
                self.problems.append(f"{entry['source']}: {entry['text']}")

    async def _connect(self, url: str) -> None:
        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(url, max_msg_size=0)

    def _port(self) -> int:
        path = self._directory / "DevToolsActivePort"
        lines = path.read_text().splitlines() if path.exists() else []
        return int(lines[0]) if lines else 0

    def _page(self, port: int) -> str:
        url = f"http://127.0.0.1:{port}/json/list"
        with urllib.request.urlopen(url, timeout=10) as answer:
            pages = [each for each in json.loads(answer.read()) if each["type"] == "page"]
        return str(pages[0]["webSocketDebuggerUrl"]) if pages else ""
