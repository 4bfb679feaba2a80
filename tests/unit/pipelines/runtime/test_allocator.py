"""Memory that is freed goes back to the system, where it should."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np, psutil
from pipelines.runtime.allocator import give_back_at_once

np.ones(3_000_000)  # freed: from now on glibc keeps blocks of this size
{first}
before = psutil.Process().memory_info().rss
blocks = [np.ones(300_000) for _ in range(15)]  # 36 MB
del blocks
print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the option is glibc's")
@pytest.mark.parametrize(("first", "kept"), [("", True), ("give_back_at_once()", False)])
def test_what_is_freed_goes_back_at_once(first: str, kept: bool) -> None:
    program = [sys.executable, "-c", PROGRAM.format(first=first)]
    output = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert (int(output) > 20e6) == kept
