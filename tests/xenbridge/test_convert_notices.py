"""What of a stream a machine has no place for is said, and only that."""

from __future__ import annotations

import pytest

from emu.firmware.roms import builtin_bios
from emu.machine import Machine, MachineConfig, build_machine
from emu.x86.cpuid import MODELS
from emu.x86.msrs import msrs_of
from emu.x86.state import CpuState, Fpu
from xen_files import with_records
from xenbridge import convert
from xenbridge.convert_cpu import SAVED_MSRS, context_cpu
from xenbridge.convert_fpu import build_fxsave, parse_fxsave
from xenbridge.convert_notices import beyond, unplaced, unsaved
from xenbridge.wire import hvm
from xenbridge.wire.hvm import Record, build_record
from xenbridge.xen.files import parse_file

OSXSAVE = 1 << 18
XSAVE = {
    "xfeature_mask": 7, "xcr0": 7, "xcr0_accum": 7, "fpu_sse": build_fxsave(Fpu()), "xstate_bv": 7, "xcomp_bv": 0,
    "reserved": bytes(48), "rest": b"\xab" * 256,
}  # fmt: skip


def built() -> Machine:
    return build_machine(MachineConfig(machine="pc", memory=2 << 20, firmware=builtin_bios(), bios=True))


def notices(*more: Record, cr4: int = 0) -> list[str]:
    """Of the sample's stream with these records besides, but for the notice of every stream."""

    def change(records: tuple[Record, ...]) -> list[Record]:
        cpu = hvm.find(records, "CPU")
        assert cpu is not None
        changed = build_record("CPU", cpu.values() | {"cr4": cpu.values()["cr4"] | cr4})
        return [*(changed if record is cpu else record for record in records), *more]

    found = convert.load(built(), parse_file(with_records(change)))
    assert found[0] == convert.LEFT_OUT
    return [notice for notice in found[1:] if "pages left out" not in notice and "requests of IRQ" not in notice]


def dropped(*irqs: int, without: str = "", **timer: int) -> list[str]:
    """What is said of the sample's stream where Xen's 8259s have these requests, none masked, and counter 0 of the 8254
    is as `timer` says; the record `without` is left out."""

    def change(records: tuple[Record, ...]) -> list[Record]:
        changed = []
        for record in records:
            values = record.values()
            if record.name == "PIC":
                asked = sum(1 << n % 8 for n in irqs if n // 8 == record.instance)
                values |= {"imr": 0, "irr": asked}
            elif record.name == "PIT":
                values["channels"] = [values["channels"][0] | timer, *values["channels"][1:]]
            changed.append(build_record(record.name, values, record.instance))
        return [record for record in changed if record.name != without]

    found = convert.load(built(), parse_file(with_records(change)))
    return [notice for notice in found if "requests of IRQ" in notice]


@pytest.mark.parametrize(
    ("irqs", "changes", "said"),
    [
        ((0,), {"mode": 2}, []),  # the output is high until the count is at its end (8254, mode 2)
        ((0, 8), {"mode": 0}, ["requests of IRQ 0, 8 are dropped, as no timer of the stream drives them now"]),
        ((4, 14), {}, ["requests of IRQ 4, 14 are dropped, as their devices' state is not in the stream"]),
        ((0, 4), {"mode": 0}, [
            "requests of IRQ 4 are dropped, as their devices' state is not in the stream",
            "requests of IRQ 0 are dropped, as no timer of the stream drives them now",
        ]),
        ((0,), {"without": "PIT"}, ["requests of IRQ 0 are dropped, as their devices' state is not in the stream"]),
        ((8,), {"without": "RTC"}, ["requests of IRQ 8 are dropped, as their devices' state is not in the stream"]),
    ],
)  # fmt: skip
def test_a_request_that_ends_is_named_with_the_reason(irqs, changes, said):
    """The 8254 and the clock are in a stream: what they do not drive is not lost for want of their state."""
    assert dropped(*irqs, **changes) == said


def xsave(*, xcr0: int = 7, xstate_bv: int = 7) -> Record:
    """The host has had all of them."""
    had = xcr0 | 7
    values = {"xcr0": xcr0, "xstate_bv": xstate_bv, "xcr0_accum": had, "xfeature_mask": had}
    return build_record("CPU_XSAVE", XSAVE | values)


def test_of_a_stream_of_xens_that_has_only_what_a_machine_has_nothing_is_said():
    assert notices() == []
    assert notices(xsave(xcr0=3, xstate_bv=3), cr4=OSXSAVE) == []
    assert notices(xsave(xcr0=1, xstate_bv=0)) == []


def test_registers_beyond_sse_and_another_xcr0_are_named():
    registers, xcr0 = notices(xsave(xcr0=0x207), cr4=OSXSAVE)
    assert "components 0x4 " in registers
    assert xcr0 == "XCR0 = 0x207 in the stream is 0x7 here, as XGETBV says"


@pytest.mark.parametrize(
    ("xcr0", "cr4", "said"), [(1, OSXSAVE, 0), (0x201, OSXSAVE, 1), (0x201, 0, 0), (3, OSXSAVE, 0), (7, OSXSAVE, 0)]
)
def test_xcr0_is_named_where_the_guest_can_read_another_one(xcr0: int, cr4: int, said: int):
    assert len(notices(xsave(xcr0=xcr0, xstate_bv=1), cr4=cr4)) == said


def read_xcr0(machine: Machine) -> int:
    """By XGETBV, as the guest reads it."""
    state = machine.cpu_state()
    state.cr4 |= OSXSAVE
    state.regs[1] = 0
    machine.load_cpu(state)
    machine.memory.write(state.linear_pc, b"\x0f\x01\xd0")
    machine.run(machine.executor.retired + 1)
    return machine.cpu_state().regs[0]


@pytest.mark.parametrize(("xcr0", "here"), [(1, 1), (3, 3), (7, 7), (0x207, 7)], ids=lambda value: f"{value:#x}")
def test_xcr0_is_that_of_the_stream(xcr0: int, here: int):
    """In the emulator, of the state that a stream has been loaded into."""
    machine = built()
    convert.load(machine, parse_file(with_records(lambda records: [*records, xsave(xcr0=xcr0)])))
    assert read_xcr0(machine) == here


def test_xcr0_is_as_at_reset_without_a_record():
    """SDM vol. 1, 13.3."""
    machine = built()
    convert.load(machine, parse_file(with_records(lambda records: records)))
    assert read_xcr0(machine) == 1


@pytest.mark.parametrize("xcr0", [1, 3, 7])
def test_a_stream_of_a_guest_with_osxsave_has_its_xcr0_and_its_registers(xcr0: int):
    """As Xen takes it: XCR0_ACCUM has all of XCR0 and XSTATE_BV, the area is as long as that says (validate_xstate)."""
    state = built().save()
    state.cpu.cr4 |= OSXSAVE
    state.cpu.xcr0, state.cpu.fpu.xmm[3] = xcr0, 0x1234
    records = convert.context_of(state, MODELS["max"])
    record = hvm.find(records, "CPU_XSAVE")
    assert record is not None
    values = record.values()
    assert (values["xcr0"], values["xcr0_accum"], values["xstate_bv"]) == (xcr0, xcr0 | 3, 3)
    assert len(record.data) == 24 + 512 + 64 + (256 if xcr0 & 4 else 0)
    assert parse_fxsave(values["fpu_sse"]) == state.cpu.fpu
    loaded = context_cpu(records)
    assert (loaded.xcr0, loaded.fpu) == (xcr0, state.cpu.fpu)


def test_a_stream_of_a_guest_without_osxsave_has_no_record_of_it():
    """Xen refuses a domain for one on a host without XSAVE (hvm_load_cpu_xsave_states)."""
    state = built().save()
    assert hvm.find(convert.context_of(state, MODELS["max"]), "CPU_XSAVE") is None


@pytest.mark.parametrize(("name", "field", "words"), [
    ("VIRIDIAN_DOMAIN", "guest_os_id", "Hyper-V"), ("VIRIDIAN_VCPU", "simp_msr", "Hyper-V"),
    ("VMCE_VCPU", "mci_ctl2_bank1", "machine checks"), ("VMCE_VCPU", "mcg_ext_ctl", "machine checks"),
])  # fmt: skip
def test_settings_that_nothing_here_keeps_are_named(name: str, field: str, words: str):
    empty = hvm.LAYOUTS[hvm.CODES[name]][0].empty()
    cpu = build_record("CPU", hvm.LAYOUTS[hvm.CPU_CODE][0].empty())
    assert list(unplaced((cpu, build_record(name, empty)), 0)) == []
    (said,) = unplaced((cpu, build_record(name, empty | {field: 1})), 0)
    assert words in said


@pytest.mark.parametrize(("name", "of"), [("PIC", ""), ("PIT", ""), ("IOAPIC", ""), ("LAPIC", " of vCPU 0"),
                                          ("LAPIC_REGS", " of vCPU 0"), ("RTC", "")])  # fmt: skip
def test_a_record_of_a_controller_or_timer_that_is_missing_is_named(name: str, of: str):
    """Xen writes them for each domain, those of the local APIC for each vCPU (HVMSR_PER_VCPU)."""
    found = convert.load(built(), parse_file(with_records(lambda records: [r for r in records if r.name != name])))
    assert [text.partition(":")[0] for text in found if "has no record" in text] == [
        f"the stream has no record {name}{of}"
    ]


def test_records_of_an_unknown_type_are_named_with_their_size():
    said = notices(Record(77, 0, b"hello"), Record(77, 1, b"you"), Record(99, 0, b""))
    assert said == [
        "records of type 77, which is not known, are left out: 2 with 8 bytes",
        "records of type 99, which is not known, are left out: 1 with 0 bytes",
    ]


def test_another_vcpus_xsave_is_not_this_ones():
    other = Record(hvm.CODES["CPU_XSAVE"], 1, xsave().data)
    assert list(unplaced((other,), 0)) == []
    assert len(list(unplaced((other,), 1))) == 1


@pytest.mark.parametrize(("cr4", "a20", "said"), [(0, True, 0), (OSXSAVE, True, 0), (0, False, 1)])
def test_what_of_the_cpu_is_not_in_a_stream_is_named(cr4: int, a20: bool, said: int):
    assert len(list(unsaved(CpuState(cr4=cr4, a20=a20), MODELS["max"]))) == said


@pytest.mark.parametrize(("cr4", "named"), [(0, True), (OSXSAVE, False)])
def test_an_xcr0_that_the_guest_has_hidden_is_named(cr4: int, named: bool):
    """Its record is there with OSXSAVE alone."""
    said = list(unsaved(CpuState(cr4=cr4, xcr0=7), MODELS["max"]))
    assert [text.startswith("nor is XCR0 = 0x7 in the stream") for text in said] == [True] * named


@pytest.mark.parametrize(
    ("model", "cr4", "efer", "said"),
    [("max", OSXSAVE | 0x620, 0xD01, []), ("pentium3", 0x600, 0, []),
     ("pentium3", OSXSAVE | 0x20, 0xD00, ["CR4 = 0x40020 in the file has bits 0x40000, which --cpu pentium3",
                                          "EFER = 0xd00 in the file has bits 0xd00, which --cpu pentium3"]),
     ("qemu64", OSXSAVE, 0xD01, ["CR4 = 0x40000 in the file has bits 0x40000, which --cpu qemu64"])],
)  # fmt: skip
def test_what_the_model_could_not_have_turned_on_is_named(model: str, cr4: int, efer: int, said: list[str]):
    found = list(beyond(CpuState(cr4=cr4, efer=efer), MODELS[model]))
    assert [text.removesuffix(" does not have") for text in found] == said


def test_an_msr_that_is_not_in_a_stream_is_named_where_the_guest_has_set_it():
    model = MODELS["max"]
    at_reset = {number: msr.reset for number, msr in msrs_of(model).items()}
    assert list(unsaved(CpuState(msrs=at_reset), model)) == []
    saved = {number: 0x12340 for number in at_reset if number in SAVED_MSRS}
    assert list(unsaved(CpuState(msrs=at_reset | saved), model)) == []
    (said,) = unsaved(CpuState(msrs=at_reset | {0x1A0: 0x41801, 0x3A: 1}), model)
    assert said.startswith("nor is MSR 0x3a (feature_control), 0x1a0 (misc_enable) in the stream")


def test_each_record_that_xen_knows_is_carried_over_or_spoken_of():
    """A type that is added to the layouts has to be thought of."""
    carried = {"HEADER", "CPU", "PIC", "IOAPIC", "LAPIC", "LAPIC_REGS", "ISA_IRQ", "PCI_LINK", "PIT", "RTC", "HPET",
               "PMTIMER", "MTRR", "CPU_MSR", "CPU_XSAVE"}  # fmt: skip
    spoken_of = {"VIRIDIAN_DOMAIN", "VIRIDIAN_VCPU", "VMCE_VCPU"}
    documented = {"PCI_IRQ", "TSC_ADJUST"}  # docs/inspect.md
    assert carried | spoken_of | documented == set(hvm.CODES)
