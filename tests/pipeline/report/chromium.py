"""A headless Chromium, driven through its DevTools protocol over a pair of pipes.

https://chromedevtools.github.io/devtools-protocol/; with --remote-debugging-pipe the browser reads
file descriptor 3 and writes 4, one JSON object after the other, each ended by a zero byte.
"""

import json
import os
import subprocess
import tempfile

ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-quic", "--hide-scrollbars"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Chromium:
    """One page of a browser; a context manager that ends the browser."""

    def __init__(self):
        self.events = []  # what the page reported: requests, console messages, exceptions
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._write = os.pipe()
        read, from_browser = os.pipe()
        # The shell gives the pipes the numbers that the browser expects.
        command = f'exec chromium "$@" 3<&{to_browser} 4>&{from_browser}'
        profile = f"--user-data-dir={self._profile.name}"
        self._process = subprocess.Popen(
            ["bash", "-c", command, "chromium", *ARGUMENTS, profile],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._input = os.fdopen(read, "rb", buffering=0)
        self._buffer = b""
        self._last_id = 0
        self._session = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        self._input.close()
        self._profile.cleanup()

    def call(self, method, **parameters):
        """Call a method of the protocol; returns its result."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters, **self._session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (reply := self._receive()).get("id") != self._last_id:
            self.events.append(reply)
        assert "error" not in reply, reply
        return reply["result"]

    def _receive(self):
        while b"\0" not in self._buffer:
            chunk = self._input.read(65536)
            assert chunk, "chromium ended"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, url, width=1280, dark=False):
        """Open a page on a screen of that width and wait until it has loaded."""
        self.events.clear()
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        while not self._of("Page.loadEventFired"):
            self.events.append(self._receive())

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page; of a promise, once it is kept."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def assert_quiet(self):
        """The page said nothing on the console, and asked for nothing from elsewhere."""
        complaints = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        assert [event for kind in complaints for event in self._of(kind)] == []
        asked = {event["request"]["url"] for event in self._of("Network.requestWillBeSent")}
        origin = self.evaluate("location.protocol == 'file:' ? location.href : location.origin")
        assert [url for url in asked if not url.startswith(("data:", origin))] == []

    def _of(self, method):
        return [event["params"] for event in self.events if event.get("method") == method]
