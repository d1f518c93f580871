"""A page in headless Chromium that a test looks at, clicks and types into, by the DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.browser import CHROMIUM, LOOK

_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
_FLAGS += [
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-pipe",
    "--hide-scrollbars",
]
_PATIENCE = 60
"""Seconds until a page that does not come up fails the test."""


class Page:
    """One tab. ``requests`` are the addresses that it asked for, ``errors`` what it threw or refused to run."""

    def __init__(self, width: int = 1200, *, dark: bool = False):
        assert CHROMIUM is not None
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._replies: dict[int, dict[str, Any]] = {}
        self._held, self._last, self._session = b"", 0, None
        self._profile = tempfile.mkdtemp()
        theirs, self._write = os.pipe()
        self._read, back = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        command = f'exec "$0" "$@" 3<&{theirs} 4>&{back}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, *_FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            pass_fds=(theirs, back),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(back)
        target = next(each for each in self.call("Target.getTargets")["targetInfos"] if each["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> Page:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._write)  # Chromium ends where its pipe does
        self._process.wait(_PATIENCE)
        os.close(self._read)
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + _PATIENCE
        while self._last not in self._replies:
            self._receive(until)
        reply = self._replies.pop(self._last)
        assert "error" not in reply, (method, reply["error"])
        return reply["result"]

    def open(self, address: str) -> None:
        """Go to a page, and wait until its own files are there."""
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; promises are waited for."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, (expression, found["exceptionDetails"])
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """The expression's value, as soon as it is true."""
        until = time.monotonic() + _PATIENCE
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < until, (expression, self.evaluate("document.body.innerText"), self.errors)
        return value

    def text(self, selector: str) -> str:
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def type(self, selector: str, value: object) -> None:
        """Give a field, slider or list a value, as a person would."""
        names = f"{json.dumps(selector)}, {json.dumps(str(value))}"
        events = "for (const type of ['input', 'change']) e.dispatchEvent(new Event(type, {bubbles: true}));"
        set_it = f"(e, v) => {{ e.focus(); e.value = v; {events} }}"
        self.evaluate(f"((s, v) => ({set_it})(document.querySelector(s), v))({names})")

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def key(self, key: str) -> None:
        """Press a key where the focus is."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def press(self, selector: str, x: float, y: float) -> None:
        """Press the mouse in an element, at ``x`` and ``y`` as shares of its width and height."""
        place = "(({x, y, width, height}) => [x, y, width, height])"
        found = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{found}.scrollIntoView()")
        left, top, width, height = self.evaluate(f"{place}({found}.getBoundingClientRect())")
        at = {"x": left + x * width, "y": top + y * height, "button": "left", "buttons": 1, "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", **at)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **at)

    def look(self) -> dict[str, Any]:
        """What is cut off and what is hard to read, as ``tests.support.browser`` says it; the page is gone after it."""
        self.evaluate(f"window.failed = []; (() => {{{LOOK}\n}})()")
        return json.loads(self.evaluate("document.body.textContent").removeprefix("LOOKED").removesuffix("END"))

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        content = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(content))

    def _receive(self, until: float) -> None:
        ready, _, _ = select.select([self._read], [], [], max(0, until - time.monotonic()))
        assert ready, "Chromium does not answer"
        content = os.read(self._read, 1 << 20)
        assert content, "Chromium has ended"
        *whole, self._held = (self._held + content).split(b"\0")
        for message in map(json.loads, whole):
            if "id" in message:
                self._replies[message["id"]] = message
            elif message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            elif message["method"] == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(message["params"]["exceptionDetails"]))
            elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.errors.append(message["params"]["entry"]["text"])
