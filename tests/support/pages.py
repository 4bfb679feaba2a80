"""What pages in Markdown have below and in their headings."""

from __future__ import annotations

import re
from pathlib import Path


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(page: Path, heading: str) -> str:
    """The text below a heading, to the next one of any level."""
    _, _, after = page.read_text().partition(f"\n{heading}\n")
    assert after, f"{page.name} has no {heading}"
    return re.split(r"^#+ ", after, maxsplit=1, flags=re.MULTILINE)[0]
