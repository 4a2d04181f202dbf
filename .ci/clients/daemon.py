"""A real daemon for as long as a `with` lasts. Standard library only: driver and clients share it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

READY_SECONDS = 15
# Above the daemon's own drain limit (30 s): the exit code, not this bound, is to say what went wrong.
STOP_SECONDS = 40


class Daemon:
    """`inflightd serve` on a free port, in an empty folder, with no setting but those named."""

    ready_seconds = READY_SECONDS

    def __init__(self, program, **settings):
        self.program = program
        self.settings = settings
        self.address = f"127.0.0.1:{free_port()}"
        self.folder = Path(tempfile.mkdtemp(prefix="inflightd-ci-"))
        self.process = None
        self.fault = None

    def __enter__(self):
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                [self.program, "serve"],
                env=inherited | {"INFLIGHTD_LISTEN": self.address} | self.settings,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def wait_until_ready(self):
        until = time.monotonic() + self.ready_seconds
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://{self.address}/readyz", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        raise RuntimeError(f"the daemon was not ready within {self.ready_seconds} s:\n{self.log_end()}")

    def stop(self):
        """Ends it with TERM, and says what was wrong with its end, if anything was."""
        if self.process.poll() is not None:
            return f"the daemon had ended before TERM, with {self.process.returncode}"
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return f"the daemon was still there {STOP_SECONDS} s after TERM"
        return None if code == 0 else f"the daemon ended with {code} on TERM"

    def log_end(self, lines=40):
        text = (self.folder / "log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def waiters(address):
    """How many callers wait for an answer now, as the statistics say."""
    with urllib.request.urlopen(f"http://{address}/api/v1/stats", timeout=5) as answer:
        stats = json.load(answer)
    found = figure(stats, "waiters")
    if found is None:
        raise KeyError(f"/api/v1/stats has no figure `waiters`: {stats}")
    return found


def figure(stats, name):
    """The number that is called `name`, wherever it stands in the statistics."""
    if isinstance(stats, dict):
        if isinstance(stats.get(name), int):
            return stats[name]
        stats = stats.values()
    elif not isinstance(stats, list):
        return None
    return next((found for part in stats if (found := figure(part, name)) is not None), None)
