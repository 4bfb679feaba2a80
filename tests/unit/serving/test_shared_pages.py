"""Pages that processes share: what was written last, whole, whenever its writer was killed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.shared_pages import CONTENT_BYTES, HALF_BYTES, PAGE_BYTES, SharedPages


@pytest.fixture
def pages() -> Iterator[SharedPages]:
    made = SharedPages.create(2)
    yield made
    made.close()


def test_nothing_is_read_before_the_first_write(pages: SharedPages) -> None:
    assert (pages.read(0), pages.written(0)) == (None, 0)


@given(written=st.lists(st.tuples(st.integers(0, 1), st.binary(max_size=300)), max_size=9))
def test_what_was_written_last_is_read_also_by_others(written: list[tuple[int, bytes]]) -> None:
    pages = SharedPages.create(2)
    other = SharedPages(os.dup(pages.file), 2)
    last: dict[int, bytes] = {}
    for page, content in written:
        pages.write(page, content)
        last[page] = content
    for page in range(2):
        assert other.read(page) == last.get(page)
        assert other.written(page) == [number for number, _ in written].count(page)
    other.close()
    pages.close()


@given(
    before=st.lists(st.binary(max_size=40), min_size=1, max_size=3),
    content=st.binary(max_size=40),
    data=st.data(),
)
def test_a_write_that_was_cut_off_leaves_the_one_before(
    before: list[bytes], content: bytes, data: st.DataObject
) -> None:
    """Whichever of the bytes that it changes have been written."""
    pages = SharedPages.create(1)
    for each in before:
        pages.write(0, each)
    old = os.pread(pages.file, PAGE_BYTES, 0)
    pages.write(0, content)
    new = os.pread(pages.file, PAGE_BYTES, 0)
    near = (*range(99), *range(HALF_BYTES, HALF_BYTES + 99))
    changed = [place for place in near if old[place] != new[place]]
    kept = data.draw(st.sets(st.sampled_from(changed)))
    for place in kept:
        os.pwrite(pages.file, old[place : place + 1], place)
    assert pages.read(0) == (before[-1] if kept else content)
    pages.write(0, b"next")
    assert pages.read(0) == b"next"
    pages.close()


def test_what_is_too_long_is_refused(pages: SharedPages) -> None:
    pages.write(1, bytes(CONTENT_BYTES))
    with pytest.raises(ValueError, match=f"{CONTENT_BYTES + 1} bytes are more than a page holds"):
        pages.write(1, bytes(CONTENT_BYTES + 1))
    assert pages.read(1) == bytes(CONTENT_BYTES)
