"""The peers' own Python, made at the first time and kept in `benchmarks/.venv`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
PLACE = Path(__file__).parents[1] / ".venv"


def peer_python() -> Path:
    """Its interpreter. Raises `CalledProcessError` when it cannot be made."""
    stamp = PLACE / "installed"
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    python = PLACE / "bin/python"
    if stamp.exists() and stamp.read_text() == digest:
        return python
    print("installing the peers ...", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(PLACE)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
    stamp.write_text(digest)
    return python


def peer_versions() -> dict[str, str]:
    """What is installed there, by name."""
    told = subprocess.run(
        [str(peer_python()), "-m", "pip", "list", "--format", "freeze"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    pinned = {line.split("==")[0] for line in REQUIREMENTS.read_text().splitlines() if "==" in line}
    pairs = (line.partition("==") for line in told.splitlines())
    return {name: version for name, _, version in pairs if name in pinned}
