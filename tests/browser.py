"""A headless Chromium for tests of pages: real clicks and keys, and what the page complained of or asked for.

It is driven by its DevTools protocol over two pipes, so nothing but the browser has to be installed.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
          "--disable-background-networking", "--disable-extensions", "--window-size=1300,1000")  # fmt: skip
_KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "Enter": 13, "Tab": 9, "End": 35, "Home": 36}
_TIMEOUT_S = 60.0
# Chromium reads commands from descriptor 3 and answers on 4.
_LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def find_browser() -> str | None:
    """The browser's program, if there is one; HIPOSEG_BROWSER names it where it is not on the path."""
    named = os.environ.get("HIPOSEG_BROWSER")
    return named or next((path for name in _NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page in a browser.

    Attributes:
        complaints: uncaught errors, console errors and warnings, and what the page's policy refused.
        requests: addresses asked for, data URIs aside.
    """

    def __init__(self, program: str, profile: Path) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._number, self._session, self._buffer = 0, "", b""
        to_read, self._to = _pipe()
        self._from, to_write = _pipe()
        command = [program, *_FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(to_read), str(to_write), *command],
            pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)

    def __enter__(self) -> Browser:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self._process.terminate()
        self._process.wait(timeout=_TIMEOUT_S)
        os.close(self._to)
        os.close(self._from)

    def open(self, path: Path) -> None:
        """Load a file, and wait until its scripts have run."""
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self.value("document.readyState") != "complete":
            time.sleep(0.05)

    def value(self, expression: str) -> Any:
        """What an expression of the page is."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def click(self, selector: str, at: float = 0.5) -> None:
        """Press the left button on the first element, `at` a share of its width."""
        x, y = self._point(selector, at)
        self._mouse("mousePressed", x, y)
        self._mouse("mouseReleased", x, y)

    def drag(self, selector: str, start: float, end: float) -> None:
        """Press inside an element at a share of its width, and let go at another."""
        (first, y), (last, _) = self._point(selector, start), self._point(selector, end)
        self._mouse("mousePressed", first, y)
        for step in range(1, 5):
            self._mouse("mouseMoved", first + (last - first) * step / 4, y)
        self._mouse("mouseReleased", last, y)

    def press(self, key: str) -> None:
        """Press a key on what has the focus."""
        for kind in ("keyDown", "keyUp"):
            code = _KEYS[key]
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def emulate(self, scheme: str) -> None:
        """Take the page as one who prefers `dark` or `light`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def _point(self, selector: str, at: float) -> tuple[float, float]:
        box = self.value(
            f"(() => {{ const element = document.querySelector({json.dumps(selector)}); "
            'element.scrollIntoView({block: "center", behavior: "instant"}); '
            "const box = element.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; })()"
        )
        assert box[2] * box[3], f"{selector} is not to be seen"
        return box[0] + box[2] * at, box[1] + box[3] / 2

    def _mouse(self, kind: str, x: float, y: float) -> None:
        held = {"button": "left", "buttons": 1, "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **held)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and return its answer; what the browser reports meanwhile is kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(method)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            self._keep(answer.get("method", ""), answer.get("params", {}))

    def _receive(self, method: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._from], [], [], _TIMEOUT_S)[0], f"the browser does not answer {method}"
            received = os.read(self._from, 1 << 16)
            assert received, f"the browser ended before it answered {method}"
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))

    def _keep(self, event: str, params: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(params["args"]))
        elif event == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif event == "Network.requestWillBeSent" and not params["request"]["url"].startswith("data:"):
            self.requests.append(params["request"]["url"])


def _pipe() -> tuple[int, int]:
    """The ends of a pipe at descriptors that the child's 3 and 4 do not meet."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return moved[0], moved[1]
