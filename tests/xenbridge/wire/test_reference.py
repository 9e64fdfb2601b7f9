"""docs/formats.md is what the schemas say."""

from __future__ import annotations

from pathlib import Path

from xenbridge.wire import reference

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_in_docs_is_current():
    assert (ROOT / reference.TARGET).read_text() == reference.page(), "run `make docs`"


def test_every_layout_is_on_the_page_once_without_a_gap():
    page = reference.page()
    titles = [line for line in page.splitlines() if line.startswith("### ")]
    assert len(titles) == len(set(titles))
    for layouts in reference.hvm.LAYOUTS.values():
        for layout in layouts:
            rows = list(layout.fields())
            assert [row.offset for row in rows[1:]] == [row.offset + row.size for row in rows[:-1]]
            assert rows[-1].offset + rows[-1].size == layout.size
