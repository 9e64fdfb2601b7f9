"""What `--until` accepts."""

from __future__ import annotations

import pytest

from emu.until import UntilError, parse_until


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ("pc:0x7c00", 0x7C00),
        ("pc:31744", 0x7C00),
        ("pc:f000:fff0", 0xFFFF0),
        ("pc:0:7c00", 0x7C00),
        ("insns:1_000", 1000),
    ],
)
def test_numbers_are_read_as_written(spec: str, value: int) -> None:
    assert parse_until(spec).value == value


@pytest.mark.parametrize("kind", ["text", "serial", "debugcon"])
def test_patterns_match_at_line_starts(kind: str) -> None:
    until = parse_until(f"{kind}:^DL: 80")
    assert until.kind == kind
    assert until.pattern is not None
    assert until.pattern.search("x\nDL: 80")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nonsense", "is no event"),
        ("text:", "is no event"),
        ("exit:1", "is no event"),
        ("text:(", "no regular expression"),
        ("pc:zz", "'zz' is not a number"),
        ("insns:0", "less than 1"),
        ("pc:-1", "not between 0 and"),
        ("pc:0x10000000000000000", "not between 0 and"),
        ("insns:x", "'x' is not a number"),
    ],
)
def test_what_cannot_be_understood_is_named(spec: str, says: str) -> None:
    with pytest.raises(UntilError, match=says):
        parse_until(spec)
