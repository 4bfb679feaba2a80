"""`make install` needs pip alone: uv is only faster."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PYTHON = """#!/bin/sh
[ "$1" = -m ] || exit 0
mkdir -p "$3/bin"
cp "$(dirname "$0")/pip" "$3/bin/pip"
"""
"""Stands for Python, of which `make install` wants a virtual environment."""

PIP = """#!/bin/sh
echo "pip $*" >> calls
case "$*" in *"uv>="*) {uv} ;; esac
"""
UV = "printf '#!/bin/sh\\necho uv >> calls; exit {code}\\n' > .venv/bin/uv; chmod +x .venv/bin/uv"


@pytest.mark.parametrize(
    ("uv", "last"),
    [
        ("exit 1", "pip"),  # pip finds none
        (UV.format(code=2), "pip"),  # it finds no packages
        (UV.format(code=0), "uv"),
    ],
)
def test_pip_stands_in_for_uv(tmp_path: Path, uv: str, last: str) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name, text in (("python", PYTHON), ("pip", PIP.format(uv=uv))):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    subprocess.run(
        ["make", "install", "PYTHON=./python"], cwd=tmp_path, check=True, capture_output=True
    )
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[-1].startswith(last)
    assert (tmp_path / ".venv/.installed").exists()
