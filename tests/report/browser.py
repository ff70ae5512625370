"""A headless Chromium that is spoken to through a pipe: real sizes, fingers, keys, pictures."""

import base64
import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SHIFT = 8


class Browser:
    """One page in one Chromium, by the DevTools protocol."""

    def __init__(self, sender: int, receiver: int) -> None:
        self._sender, self._receiver = sender, receiver
        self._numbers, self._rest, self._session = itertools.count(1), b"", ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")

    def call(self, method: str, **values: Any) -> Any:
        """Send one command and wait for its result."""
        message = {"id": next(self._numbers), "method": method, "params": values}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._sender, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != message["id"]:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path: Path, *, width_px: int, height_px: int, is_phone: bool) -> None:
        """Show a file in a window of this size; a phone has fingers and three pixels for one."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width_px, height=height_px,
            deviceScaleFactor=3 if is_phone else 1, mobile=is_phone,
        )  # fmt: skip
        self.call("Emulation.setTouchEmulationEnabled", enabled=is_phone)
        self.call("Page.navigate", url=path.as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def value(self, expression: str) -> Any:
        """Evaluate JavaScript in the page, after what is going on has been drawn."""
        drawn = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        found = self.call(
            "Runtime.evaluate", expression=f"{drawn}.then(() => ({expression}))",
            awaitPromise=True, returnByValue=True,
        )  # fmt: skip
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def mouse(self, kind: str, x: float, y: float, **values: Any) -> None:
        """Move, press, release or turn the wheel of a mouse."""
        button = {"button": "left", "clickCount": 1} if kind != "mouseWheel" else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button, **values)

    def drag(self, *places: tuple[float, float]) -> None:
        """Press the mouse at the first place, move it through the others and let it go."""
        self.mouse("mousePressed", *places[0])
        for place in places[1:]:
            self.mouse("mouseMoved", *place, buttons=1)
        self.mouse("mouseReleased", *places[-1])

    def touch(self, *steps: list[tuple[float, float]]) -> None:
        """Put fingers down, move them through the steps, and lift them."""
        for index, fingers in enumerate(steps):
            points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(fingers)]
            kind = "touchMove" if index else "touchStart"
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def key(self, name: str, *, has_shift: bool = False) -> None:
        """Press and release a key."""
        values = {"key": name, "modifiers": _SHIFT if has_shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **values)
        self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    def picture(self, path: Path, *, is_whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page with one pixel for each of CSS."""
        clip: dict[str, Any] = {}
        if is_whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {**size, "scale": 1 / self.value("devicePixelRatio")}}
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=is_whole, **clip)
        path.write_bytes(base64.b64decode(taken["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._receiver, 1 << 20)
            assert part, "the browser is gone"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


@contextmanager
def browsing(program: str, profile: Path) -> Iterator[Browser]:
    """Start Chromium with an empty profile, and end it afterwards."""
    to_it, from_us = os.pipe()
    to_us, from_it = os.pipe()
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{to_it} 4>&{from_it}', "browser", program, "--headless",
         "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe",
         f"--user-data-dir={profile}"],
        pass_fds=(to_it, from_it), stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_it)
    os.close(from_it)
    try:
        yield Browser(from_us, to_us)
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(from_us)
        os.close(to_us)
