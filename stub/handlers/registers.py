"""g, G, p, P: registers, in the numbering of the target description that the client has read."""

from __future__ import annotations

from stub import messages
from stub.handlers.base import OK, Answer, Context, Handler, error_text
from stub.target import HasRegisters, Register, TargetError


def hex_value(value: bytes | None, register: Register) -> str:
    """The register's bytes in hex; `x` for each digit that cannot be known ("Packets", `g`)."""
    return "xx" * register.size if value is None else value.hex()


def read_registers(context: Context, message: messages.ReadRegisters) -> Answer:
    target = context.registers
    assert target is not None
    layout = context.layout()
    expedites = context.expedites
    if expedites is not None and (told := expedites.tell_all(context.thread, layout)) is not None:
        return told
    values = target.read_registers(context.thread, layout.registers)
    try:
        return b"".join(values).hex().encode("ascii")  # type: ignore[arg-type]
    except TypeError:  # one cannot be known
        return "".join(map(hex_value, values, layout.registers)).encode("ascii")


def write_registers(context: Context, message: messages.WriteRegisters) -> Answer:
    target = context.registers
    assert target is not None
    layout = context.layout()
    data, offset, row = message.data, 0, False
    if len(data) != (size := sum(register.size for register in layout.registers)):
        raise TargetError(f"the registers have {size} bytes, not {len(data)}: P writes one of them")
    for register, now in zip(layout.registers, target.read_registers(context.thread, layout.registers), strict=True):
        value = data[offset : offset + register.size]
        offset += register.size
        # Only what differs is written: derived and read-only registers come back as they went out.
        if value != now:
            _write(target, context.thread, register, value, row)
            row = True
    return OK


def _register(context: Context, number: int) -> Register:
    registers = context.layout().registers
    if number >= len(registers):
        raise TargetError(f"there is no register {number:#x}: the last is {len(registers) - 1:#x}")
    return registers[number]


def read_register(context: Context, message: messages.ReadRegister) -> Answer:
    target = context.registers
    assert target is not None
    try:
        register = _register(context, message.number)
    except TargetError as error:
        return context.error(str(error))
    (value,) = target.read_registers(context.thread, (register,))
    return hex_value(value, register).encode("ascii")


def _write(target: HasRegisters, thread: int, register: Register, data: bytes, row: bool) -> None:
    if len(data) != register.size:
        raise TargetError(f"{register.name} has {register.size} bytes, not {len(data)}")
    target.write_register(thread, register, data, row)


def write_register(context: Context, message: messages.WriteRegister) -> Answer:
    target = context.registers
    assert target is not None
    before, context.wrote = context.wrote, message.number
    try:
        _write(target, context.thread, _register(context, message.number), message.data, 0 <= before < message.number)
    except TargetError as error:
        return error_text(str(error))
    return OK


HANDLERS = (
    Handler(
        (("g", "all registers, in the target description's order"),),
        messages.ReadRegisters,
        read_registers,
        (HasRegisters,),
    ),
    Handler((("G HEX", "write the registers that differ"),), messages.WriteRegisters, write_registers, (HasRegisters,)),
    Handler((("p N", "one register"),), messages.ReadRegister, read_register, (HasRegisters,)),
    Handler((("P N=HEX", "write one register"),), messages.WriteRegister, write_register, (HasRegisters,)),
)
