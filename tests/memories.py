"""What the RAM of two machines differs in, but for what docs/divergences.md explains."""

from __future__ import annotations

from emu.machine import Machine


def _accessed_code(machine: Machine) -> set[int]:
    """Where the access rights of the GDT's code segments are."""
    table = machine.executor.state().gdtr
    rights = {table.base + 8 * entry + 5 for entry in range((table.limit + 1) // 8)}
    return {at for at in rights if machine.memory.read(at, 1)[0] & 0x18 == 0x18}


def ram_differences(emulated: Machine, other: Machine) -> list[str]:
    """The first places where RAM differs. Far transfers of a native CPU set the accessed bit of a code descriptor in
    memory, as the SDM says (vol. 3A, 3.4.5.1), Unicorn's do not: in the GDT that bit may be set in `other` alone."""
    here, there = (
        {region.base: machine.memory.read(region.base, region.size)
         for region in machine.memory.regions if region.kind == "ram"}
        for machine in (emulated, other)
    )  # fmt: skip
    if here.keys() != there.keys():
        return [f"RAM is at {sorted(here)} and at {sorted(there)}"]
    code, found = _accessed_code(emulated), []
    for base, memory in here.items():
        masked = bytearray(there[base])
        for at in code:
            if base <= at < base + len(masked) and not memory[at - base] & 1:
                masked[at - base] &= ~1
        if masked != memory:  # and only then byte by byte
            found += [hex(base + at) for at in range(len(memory)) if masked[at] != memory[at]]
    return found[:16]
