"""Environments of the peers' own, made at the first time and kept: they pin older libraries."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass(frozen=True, slots=True)
class Environment:
    """What is installed, and where."""

    requirements: Path
    place: Path

    def python(self) -> Path:
        """Its interpreter. Raises `CalledProcessError` when it cannot be made."""
        stamp = self.place / "installed"
        digest = hashlib.sha256(self.requirements.read_bytes()).hexdigest()
        python = self.place / "bin/python"
        if stamp.exists() and stamp.read_text() == digest:
            return python
        print(f"installing {self.requirements.name} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(self.place)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(self.requirements)], check=True)
        stamp.write_text(digest)
        return python

    def versions(self) -> dict[str, str]:
        """What is pinned there, by name."""
        told = subprocess.run(
            [str(self.python()), "-m", "pip", "list", "--format", "freeze"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        pinned = {
            line.split("==")[0].partition("[")[0]
            for line in self.requirements.read_text().splitlines()
            if "==" in line
        }
        pairs = (line.partition("==") for line in told.splitlines())
        return {name: version for name, _, version in pairs if name in pinned}


PEERS = Environment(HERE / "requirements.txt", HERE.parent / ".venv")
"""What is measured beside the workers, and what draws."""

FEAST = Environment(HERE / "requirements-feast.txt", ROOT / "build/feast-server")
"""Feast's server."""
