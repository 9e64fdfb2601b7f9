"""Interrupt controllers and timers in the reference hypervisor: the run is the same to the instruction as with them in
the machine's own process, and each access has come as an I/O request in bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from boots.machines import walk
from boots.plain import booted, end_of, machine_with
from boots.table import BOOTS, MILLION
from emu import layout
from emu.debugger import Debugger
from emu.firmware.roms import tour_rom
from emu.keeper import Keeper
from emu.ledger import Costs
from emu.machine import Machine, MachineConfig, MachineStop, build_machine
from emu.policies import policy_named
from emu.transitions import NativeConfig
from machines import TIMER_100US, rom
from oracles import assemble_image
from xenbridge import ioreq
from xenbridge.bridge import BridgeError
from xenbridge.ioreq import IoreqError, State, Type
from xenbridge.model import make_model
from xenbridge.model_devices import ModelDevices

POLICIES = ("emulated", "native", "dwell:100", "learn")
ENOUGH = 3_000_000
#: Counts the timer's interrupts at 500h, with an EOI each, and halts between them.
TICKS = f"""
    mov word [8 * 4], tick
    mov word [8 * 4 + 2], 0xf000
    mov sp, 0x7c00
    {TIMER_100US}
    sti
again:
    hlt
    in al, 0x61
    mov al, 0
    out 0x43, al
    in al, 0x40
    mov ah, al
    in al, 0x40
    xor [0x504], ax
    cmp word [0x500], 50
    jb again
    mov al, 7
    out 0xf4, al
"""
TICK = """
tick:
    inc word [0x500]
    push ax
    mov al, 0x20
    out 0x20, al
    pop ax
    iret
"""


def machine(
    firmware: bytes, keeper: Callable[[], Keeper], policy: str | None, kind: str = "isapc", slice: int | None = None
) -> Machine:
    native = None if policy is None else NativeConfig(make_model(), policy_named(policy, Costs()), Costs())
    return build_machine(
        MachineConfig(
            machine=kind, firmware=firmware, shadow=False, memory=64 << 20, native=native, keeper=keeper, slice=slice
        )
    )


def told(made: Machine) -> tuple[object, ...]:
    """All that shows what happened, and when; of the journal, which forgets, the last of what the guest did."""
    story = [(e.retired, e.kind, e.text) for e in made.journal if e.kind != "transition"][-20:]
    return made.fingerprint(), story, made.serial_text(), made.debugcon_text()


GUESTS = {
    "tour": tour_rom,
    "ticks": lambda: rom(TICKS, TICK),
    "probe_pit": lambda: assemble_image("probe_pit"),
    "probe_pic": lambda: assemble_image("probe_pic"),
    "pc_apic": lambda: assemble_image("pc_apic"),
}


@pytest.mark.slow_variants
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("guest", "kind"),
    [*(pytest.param(guest, "pc", marks=pytest.mark.slow) for guest in ("tour", "pc_apic")), ("ticks", "isapc")],
)
def test_a_guest_is_the_same_to_the_instruction_wherever_the_devices_are(guest: str, kind: str, policy: str) -> None:
    found = []
    for keeper, by in ((Keeper, None), (ModelDevices, policy)):
        made = machine(GUESTS[guest](), keeper, by, kind)
        assert made.run(ENOUGH).reason is MachineStop.EXIT
        found.append(told(made))
        if isinstance(made.keeper, ModelDevices):
            assert made.transitions is not None
            assert made.transitions.ledger.requests + made.transitions.ledger.inside > 40
        made.close()
    assert found[1] == found[0]


@pytest.mark.slow
@pytest.mark.parametrize("probe", ["probe_pit", "probe_pic"])
def test_a_probe_of_every_mode_finds_the_same_chip_behind_requests(probe: str) -> None:
    found = []
    for keeper, by in ((Keeper, None), (ModelDevices, "dwell:100")):
        made = machine(GUESTS[probe](), keeper, by)
        assert made.run(50 * MILLION).reason is MachineStop.EXIT
        found.append(told(made))
        made.close()
    assert found[1] == found[0]


@pytest.mark.slow
def test_slices_leave_no_trace_in_requests() -> None:
    found = set()
    for piece in (None, 7, 1):
        made = machine(GUESTS["ticks"](), ModelDevices, "dwell:20", slice=piece)
        assert made.run(ENOUGH).reason is MachineStop.EXIT
        assert made.transitions is not None
        found.add((made.fingerprint(), made.transitions.ledger.requests, made.transitions.ledger.inside))
        made.close()
    assert len(found) == 1


@pytest.mark.slow
def test_a_state_saved_in_one_place_goes_on_in_the_other() -> None:
    """A snapshot has the hypervisor's devices, and does not say where they were."""
    ends = []
    for keepers in ((Keeper, Keeper), (Keeper, ModelDevices), (ModelDevices, Keeper), (ModelDevices, ModelDevices)):
        first, second = (machine(GUESTS["ticks"](), keeper, "native") for keeper in keepers)
        assert first.run(500).reason is MachineStop.LIMIT
        second.restore(first.save())
        assert second.run(ENOUGH).reason is MachineStop.EXIT
        ends.append(second.fingerprint())
        first.close()
        second.close()
    assert ends.count(ends[0]) == 4


def test_a_native_access_is_no_exit_and_an_emulated_one_a_request() -> None:
    """Each of the 50 ticks takes an EOI, a look at port 61h, a latch command and two reads."""
    native = machine(GUESTS["ticks"](), ModelDevices, "native")
    emulated = machine(GUESTS["ticks"](), ModelDevices, "emulated")
    for made in (native, emulated):
        assert made.run(ENOUGH).reason is MachineStop.EXIT
    assert native.transitions is not None and emulated.transitions is not None
    counts, all_counts = native.transitions.ledger, emulated.transitions.ledger
    assert counts.inside >= 5 * 50 and counts.inside + counts.requests == all_counts.requests
    assert all_counts.inside == 0
    assert sum(n for cause, n in counts.exits.items() if cause.value == "pio") <= 2  # the debug-exit port
    prices = counts.costs
    assert all_counts.cycles == all_counts.requests * prices.request + all_counts.emulated * prices.emulated
    native.close()
    emulated.close()


def test_the_map_says_who_has_what_and_views_look_into_the_hypervisor() -> None:
    made = machine(tour_rom(), ModelDevices, "emulated", "pc")
    debugger = Debugger(made)
    owners = {(r.kind, r.name): r.owner for r in (*made.memory_map(), *made.port_map())}
    kept = [("port", n) for n in ("pic", "pit", "port61", "elcr")] + [("mmio", n) for n in ("lapic", "ioapic")]
    assert {place for place, owner in owners.items() if owner == "hypervisor"} == set(kept)
    assert owners["port", "rtc"] == owners["mmio", "hpet"] == "userspace"
    assert isinstance(made.keeper, ModelDevices)
    before = made.keeper.requests
    for name in ("pic", "pit", "port61", "lapic", "ioapic"):
        assert debugger.device(name).fields
    assert made.ports.peek(0x21) == made.board.pic.chips[0].peek(1)
    assert made.mmio.find(layout.LAPIC + 0x30) is not None
    assert made.keeper.requests == before
    made.close()


def test_the_map_says_of_each_device_whose_it_is_without_a_hypervisor_too() -> None:
    plain = machine(tour_rom(), Keeper, "emulated", "pc")
    ranges = (*plain.memory_map(), *plain.port_map())
    owners = {(r.kind in ("mmio", "port"), r.owner) for r in ranges}
    assert owners == {(True, "userspace"), (False, "")}
    plain.close()


# -- bytes


@pytest.fixture
def door():
    made = machine(tour_rom(), ModelDevices, "emulated", "pc")
    assert isinstance(made.keeper, ModelDevices)
    yield made.keeper.exchange
    made.close()


def test_an_answer_is_the_request_with_the_data_and_its_new_state(door) -> None:
    asked = ioreq.write(Type.COPY, layout.LAPIC + 0x80, 4, 0x50)
    assert ioreq.unpack(door(asked.pack())).state is State.ANSWERED
    answer = ioreq.unpack(door(ioreq.Ioreq(Type.COPY, layout.LAPIC + 0x80, 4, True, port=9).pack()))
    assert (answer.data, answer.state, answer.reads, answer.port) == (0x50, State.ANSWERED, True, 9)


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (ioreq.read(Type.PIO, 0x3F8, 1), r"^port 0x3f8 is no device of the hypervisor$"),
        (ioreq.read(Type.COPY, 0xFEE01000, 4), r"^address 0xfee01000 is no device of the hypervisor$"),
        (ioreq.read(Type.PIO, 0x43, 2), r"^port 0x43 is no device of the hypervisor$"),
        (ioreq.read(Type.PCI_CONFIG, 0x40, 1), r"^address 0x40 is no device of the hypervisor$"),
        (ioreq.Ioreq(Type.PIO, 0x40, 1, True, count=2), r"^a request is for one element"),
        (ioreq.Ioreq(Type.PIO, 0x40, 1, True, state=State.ANSWERED), r"^a request is for one element"),
    ],
)
def test_what_is_no_request_for_a_device_is_refused(door, request_, sentence: str) -> None:
    with pytest.raises(BridgeError, match=sentence):
        door(request_.pack())


def test_too_few_bytes_are_refused(door) -> None:
    with pytest.raises(IoreqError, match=r"^an I/O request has 32 bytes, and 31 are there$"):
        door(ioreq.read(Type.PIO, 0x40, 1).pack()[:-1])


# -- real loaders


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("name", "firmware", "policy"),
    [("syslinux", "builtin", "dwell:1000"), ("syslinux", "seabios", "dwell:1000"), ("post", "seabios", "native")],
)
def test_a_boot_is_the_same_to_the_byte_with_the_devices_in_the_hypervisor(
    name: str, firmware: str, policy: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    boot = next(row for row in BOOTS if row.name == name)
    options, expected = booted(boot, firmware, tmp_path_factory)
    made = machine_with(boot, options, "--hypervisor", "model", "--policy", policy, "--devices-in", "hypervisor")
    walk(boot, made)
    assert end_of(made) == expected
    made.close()
