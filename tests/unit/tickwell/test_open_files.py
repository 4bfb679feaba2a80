"""A server, and what it starts, may have more connections than the 1,024 files of most systems."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import resource, subprocess, sys
from contextlib import suppress

_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
from tickwell.commands.serve import serve
from tickwell.errors import TickwellError

with suppress(TickwellError):  # nothing that it needs is set
    serve()
SHOW = "import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
subprocess.run([sys.executable, "-c", SHOW], check=True)
"""


def test_what_a_server_starts_may_open_as_many_files_as_the_system_allows(tmp_path: Path) -> None:
    settings = {name: value for name, value in os.environ.items() if "TICKWELL" not in name}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env=settings,
        capture_output=True,
        text=True,
        check=True,
    )
    soft, hard = done.stdout.split()
    assert soft == hard
    assert soft != "256"
