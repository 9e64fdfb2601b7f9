"""Views of timers of which it is known how they were programmed, and not how far they have counted since.

Xen's records have neither the 8254's counts nor the instant at which they began (struct hvm_hw_pit;
`count_load_time` of struct PITState stays in Xen), nor the local APIC timer's current count (struct hvm_hw_lapic; the
register's place in LAPIC_REGS is not kept, as Xen works the count out when the guest reads it, `vlapic_get_tmcct`).
Source: Xen 4.17, xen/include/public/arch-x86/hvm/save.h, xen/arch/x86/emul-i8254.c, xen/arch/x86/hvm/vlapic.c.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from emu.record import replace
from emu.views import DeviceView, FieldView

UNKNOWN: Final = "unknown"
REASON: Final = "not in the record"


def changed(view: DeviceView, change: Callable[[FieldView], FieldView], name: str = "") -> DeviceView:
    """With `change` made to the fields of that name, or all."""
    return replace(view, fields=tuple(change(f) if name in ("", f.name) else f for f in view.fields))


def _unknown(field: FieldView) -> FieldView:
    return FieldView(field.name, UNKNOWN, REASON)


def pit_view(view: DeviceView, silent: Collection[str] = ()) -> DeviceView:
    """The 8254's without its counts and what is at its outputs; of the `silent` counters, by their fields' names, which
    have had no control word, nothing but the gate."""

    def change(field: FieldView) -> FieldView:
        if field.name in silent:
            return FieldView(field.name, "not programmed")
        if field.name.endswith(" CE"):
            return _unknown(field)
        if field.name.endswith(" CR"):
            return FieldView(field.name, field.value)
        if field.name.endswith(" pins"):
            return FieldView(field.name, f"{str(field.value).split()[0]} OUT unknown")
        return field

    counts = tuple(f"{name} {part}" for name in silent for part in ("CR", "CE"))
    return changed(replace(view, fields=tuple(f for f in view.fields if f.name not in counts)), change)


def port61_view(view: DeviceView, value: int) -> DeviceView:
    """Port 61h's, of which `value` are the bits that were written."""
    return changed(view, lambda f: FieldView(f.name, value, "outputs unknown"))


def lapic_view(view: DeviceView) -> DeviceView:
    """The local APIC's without its timer's count."""
    return changed(view, _unknown, "current count")
