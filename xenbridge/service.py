"""Where an interrupt that has been acknowledged is in service."""

from __future__ import annotations

import enum


class Service(enum.Enum):
    """Who has a vector in service, and holds back what is below it."""

    NONE = "none"  #: its end was automatic, or in special mask mode lower ones pass it
    PIC = "pic"
    LAPIC = "lapic"
