"""Who reads features: the name under which reads are counted, and the header that has it."""

from __future__ import annotations

import re

HEADER = "X-Consumer"
"""The header in which a client names itself, where the server needs no API keys."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,63}")
"""What can name a consumer. Names of API keys can."""

FORM = "1 to 64 of A-Z, a-z, 0-9 and . _ : / @ + -, and begins with a letter or a digit"
"""The same for people."""

UNNAMED = "unnamed"
"""The consumer of requests that name none."""

OTHERS = "others"
"""The consumer of requests of those that a process counts no more by themselves."""
