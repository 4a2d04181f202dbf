"""Installs what the clients need, once, into a cache folder; what is pinned here names the folder."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
INSTALL_SECONDS = 600


def cache():
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "inflightd-ci"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def fresh(name, *pins):
    """The folder for these pins, and whether it has to be filled; a half-filled one is thrown away."""
    digest = hashlib.sha256(sys.version.encode())
    for pin in pins:
        digest.update(pin.read_bytes())
    folder = cache() / f"{name}-{digest.hexdigest()[:12]}"
    with open(cache() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = folder / "complete"
        missing = not complete.exists()
        if missing:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            print(f"installing {name} into {folder}", flush=True)
        yield folder, missing
        complete.touch()


def python_venv(name, pins=HERE):
    """The interpreter of a virtual environment with the packages of NAME.txt in the folder `pins`."""
    pins = pins / f"{name}.txt"
    with fresh(name, pins) as (folder, missing):
        python = folder / "bin" / "python"
        if missing:
            run([sys.executable, "-m", "venv", folder])
            run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "-r", pins])
    return python


def node_packages(name, pins=HERE):
    """The folder with the packages of package-lock.json in the folder `pins`."""
    pins = [pins / "package.json", pins / "package-lock.json"]
    with fresh(name, *pins) as (folder, missing):
        if missing:
            for pin in pins:
                shutil.copy(pin, folder)
            run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder)
    return folder


def node_modules(script):
    """What starts `script` with Node and the clients' packages."""
    folder = node_packages("node")
    # An import is resolved from where the script lies.
    for each in script.parent.glob("*.mjs"):
        shutil.copy(each, folder)
    return [node(folder), folder / script.name]


def node(folder):
    """The Node among these packages, else the machine's."""
    return next(folder.glob("node_modules/node-linux-*/bin/node"), None) or shutil.which("node")


def run(command, cwd=None, stdout=None):
    subprocess.run(list(map(str, command)), cwd=cwd, check=True, stdin=subprocess.DEVNULL, stdout=stdout, timeout=INSTALL_SECONDS)
