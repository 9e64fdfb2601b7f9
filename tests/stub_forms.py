"""A packet of every documented form."""

from __future__ import annotations

import re

from stub.handlers.every import ALL_HANDLERS
from stub_fakes import FakeTarget

#: What the words of a packet's form stand for in these tests.
WORDS = {
    "FEATURE;...": "swbreak+", "ADDR": "10100", "LENGTH": "4", "KIND": "1", "HEX": "70630000", "BYTES": "aaaa",
    "EXPR": "X3,220127",
    "THREAD": "1",
    "N": "1", "PLACE": "10100", "ENA": "E", "STEP": "0", "PASS": "0", "ACTION": "R1", "TYPE": "at", "START": "0",
    "SLEN": "1", "SOURCE": "2a", "VALUE": "0", "BUILTIN": "0", "NAME": "61", "END": "1",
    "BITS": "5", "FLAG": "1",
    "PID": "1", "CHECKSUM": "89abcdef", "SIGNAL": "05", "ANNEX": "", "OFFSET": "0", ";...": ";", " ": "",
}  # fmt: skip
FORMS = [(form, handler) for handler in ALL_HANDLERS if handler.active(FakeTarget()) for form, _ in handler.forms]


def example(form: str) -> str:
    """A packet of this form."""
    if form == "G HEX":
        target = FakeTarget()
        return "G" + b"".join(target.read_registers(1, target.describe().standard().registers)).hex()
    text = re.sub(r"\[.*?\]", "", form).replace(" XX", "00")
    if re.fullmatch("vCont;[CS]", text):
        text += "05"
    if text == "vCont;r":
        text += "10100,10101"
    for word in sorted(WORDS, key=len, reverse=True):
        text = re.sub(rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])" if word.isalpha() else re.escape(word),
                      WORDS[word], text)  # fmt: skip
    return text.replace("features:read::", "features:read:target.xml:")
