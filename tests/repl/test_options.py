"""Values of command-line options."""

from __future__ import annotations

import re

import pytest

from repl.options import UsageError, choose, parse_count, parse_domain, parse_memory


@pytest.mark.parametrize(
    ("text", "size"), [("64M", 64 << 20), ("1M", 1 << 20), ("1g", 1 << 30), ("3G", 3 << 30), ("2048k", 2 << 20),
                       ("16MiB", 16 << 20), ("16MB", 16 << 20)],
)  # fmt: skip
def test_a_size_with_a_suffix_is_bytes(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "text", ["", "64", "M", "-1M", "0M", "1500k", "512k", "4G", "64X", "1e3M", "64 M", "٣M", "9" * 40 + "G", "0x40M"]
)
def test_a_nonsense_size_is_refused_by_name(text):
    with pytest.raises(UsageError) as caught:
        parse_memory(text)
    assert "--memory" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("1000000", 1_000_000), ("1_000", 1000), ("0x10", 16)])
def test_a_count_is_positive(text, count):
    assert parse_count("--limit", text) == count


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.5", str(1 << 62)])
def test_a_count_that_is_none_is_refused_by_name(text):
    with pytest.raises(UsageError, match="--limit"):
        parse_count("--limit", text)


@pytest.mark.parametrize(("least", "good", "bad"), [(0, "0", "-1"), (0, "00", "-0x1"), (1, "1", "0")])
def test_the_least_that_is_possible_is_said(least, good, bad):
    assert parse_count("--vcpu", good, least) == int(good)
    with pytest.raises(UsageError, match=rf"^--vcpu {bad} is out of range: {least} to 2\*\*62 - 1 is possible$"):
        parse_count("--vcpu", bad, least)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("00", 0), ("7", 7), ("0x10", 16), ("32751", 0x7FEF)])
def test_a_domain_is_a_number(text, number):
    assert parse_domain(text) == number


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "DOMAIN 'x' is not a number of a domain: `xl list` shows them, beside the names"),
        ("", "DOMAIN '' is not a number of a domain: `xl list` shows them, beside the names"),
        ("1.5", "DOMAIN '1.5' is not a number of a domain: `xl list` shows them, beside the names"),
        ("a\nb", "DOMAIN 'a\\nb' is not a number of a domain: `xl list` shows them, beside the names"),
        ("-1", "DOMAIN -1 is out of range: 0 to 32751 is possible"),
        ("32752", "DOMAIN 32752 is out of range: 0 to 32751 is possible"),
    ],
)
def test_what_is_no_number_of_a_domain_is_said(text, said):
    with pytest.raises(UsageError) as caught:
        parse_domain(text)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("100m", "--limit 100000000 or 100_000_000"), ("2K", "--limit 2000 or 2_000"), ("3 g", "or 3_000_000_000"),
        ("1e6", "--limit 1000000 or 1_000_000"), ("5e+1", "--limit 50"), ("1,000,000", "--limit 1000000 or"),
        ("010", "--limit 10"), ("1.5", "as 1000000, 1_000_000 or 0xf4240"), ("many", "as 1000000"), ("", "as 1000000"),
        ("9" * 40 + "m", "as 1000000"),
    ],
)  # fmt: skip
def test_what_looks_like_a_number_is_told_in_the_wanted_form(text, wanted):
    with pytest.raises(UsageError, match="is not a whole number: write it in digits") as caught:
        parse_count("--limit", text)
    assert wanted in str(caught.value)
    if digits := re.search(r"--limit ([0-9]+)( or|$)", str(caught.value)):
        assert parse_count("--limit", digits[1])


def test_a_value_of_a_later_version_is_told_from_an_unknown_one():
    assert choose("--policy", "emulated", ("emulated",), ("auto", "dwell:")) == "emulated"
    with pytest.raises(UsageError, match="--policy dwell:8 is not available in this version: use emulated"):
        choose("--policy", "dwell:8", ("emulated",), ("auto", "dwell:"))
    with pytest.raises(UsageError, match="--policy 'fast' is unknown: use emulated"):
        choose("--policy", "fast", ("emulated",), ("auto", "dwell:"))
