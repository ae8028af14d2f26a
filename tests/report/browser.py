"""A headless Chromium that tests steer through a pipe: real pointers, keys, media and network, no further package."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
# Chromium reads commands from file 3 and answers on file 4.
_LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
    # Nothing may be fetched: no name resolves.
    "--host-resolver-rules=MAP * ~NOTFOUND",
]  # fmt: skip


class Browser:
    """One page of a fresh Chromium.

    Attributes:
        requests: every address that the page has asked for.
        complaints: what it has written to its console, and scripts' errors.
    """

    def __init__(self, profile):
        command, ours = os.pipe()
        theirs, answer = os.pipe()
        line = [sys.executable, "-c", _LAUNCH, str(command), str(answer), CHROMIUM, *QUIET]
        line += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(line, pass_fds=(command, answer), stderr=subprocess.DEVNULL)
        os.close(command)
        os.close(answer)
        self._out, self._in = os.fdopen(ours, "wb"), os.fdopen(theirs, "rb")
        self._numbers, self._session, self._unread = itertools.count(1), None, b""
        self.requests, self.complaints = [], []
        page = next(one for one in self("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(30)
        for pipe in (self._out, self._in):
            with contextlib.suppress(OSError):
                pipe.close()

    def __call__(self, method, **params):
        """A command of the DevTools protocol, and its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        self._out.write(json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0")
        self._out.flush()
        while True:
            found = self._read()
            if found.get("id") == number:
                assert "error" not in found, (method, found)
                return found["result"]
            self._note(found)

    def _read(self):
        while b"\0" not in self._unread:
            more = os.read(self._in.fileno(), 1 << 20)
            assert more, "Chromium is gone"
            self._unread += more
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(json.dumps(params)[:500])

    def js(self, code):
        """The value of an expression in the page."""
        # Under the page's own policy of content, as its scripts are.
        settings = {"awaitPromise": True, "returnByValue": True, "allowUnsafeEvalBlockedByCSP": False}
        found = self("Runtime.evaluate", expression=code, **settings)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, code, seconds=60):
        """Waits for an expression to become true."""
        end = time.monotonic() + seconds
        while not (value := self.js(code)):
            assert time.monotonic() < end, f"not within {seconds} s: {code}"
            time.sleep(0.05)
        return value

    def show(self, file, width=1100, height=900, scheme="light"):
        """Opens a file in a window of that size and theme."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.media(scheme)
        self("Page.navigate", url=file.as_uri())
        self.until(f"location.href === {json.dumps(file.as_uri())} && document.readyState === 'complete'")

    def media(self, scheme="light", kind=""):
        """Light or dark; `kind` is "print" for paper."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self("Emulation.setEmulatedMedia", media=kind, features=features)

    def point(self, x, y):
        """Moves the pointer there, as a hand does: not in one leap."""
        for step in (3, 2, 1, 0):
            self("Input.dispatchMouseEvent", type="mouseMoved", x=x + step, y=y)

    def press(self, key):
        self("Input.dispatchKeyEvent", type="keyDown", key=key)
        self("Input.dispatchKeyEvent", type="keyUp", key=key)
