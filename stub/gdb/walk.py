"""The way out of a function: from an instruction to the RET, RETF or IRET that ends it. Knows no gdb.

Boot code has no unwind tables and mostly no frame pointer. But a function has to find its return address itself, so its
own code says where that is: this follows the instructions from the given one on, without executing them in the guest,
and keeps account of what they do to the stack pointer, the frame pointer, segments and the registers they pop. Calls
are taken to return with the stack as it was and with (E)BX, (E)SI, (E)DI and (E)BP kept; both ways of a conditional
jump are tried. It also gets through a BIOS that switches to a stack of its own, since its way back is in its code, too.
What is not known (a value read from a device, a far jump through memory) is None and ends the way where it matters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from .cpu import AX, BP, BX, CX, DI, DX, SI, SP, Cpu, Load, Read, Segment
from .decode import CS, DS, ES, FS, GS, LONGEST, SS, Instruction, decode

#: Instructions looked at before the search is given up, and ways of jumps that wait to be tried.
BUDGET, WAITING = 3000, 64
#: What a call leaves undefined in the calling conventions of i386 C compilers.
_CLOBBERED = (AX, CX, DX)


class Kind(Enum):
    """How a function returns."""

    NEAR = "near"
    FAR = "far"
    INTERRUPT = "interrupt"


@dataclass(slots=True)
class Way:
    """The end of a way: `cpu` is the CPU behind the return, `slot` the linear address where the return address stands,
    `size` the bytes of each word popped. `pushed`: the way itself has put the address there, so that it is a jump
    (PUSH; RET) unless it is one that was taken away before. `through`: the general registers that the way does not
    touch; `halves`: those of which it touches the lower half alone."""

    kind: Kind
    size: int
    slot: int
    cpu: Cpu
    pushed: bool = False
    through: tuple[int, ...] = ()
    halves: tuple[int, ...] = ()


class _End(Exception):
    """This way leads nowhere."""


class _Unknown(_End):
    """This way leads where cannot be known."""


@dataclass(slots=True)
class _State:
    cpu: Cpu
    #: bytes written by the way itself: by linear address, None for unknown ones
    written: dict[int, int | None] = field(default_factory=dict)
    #: general registers whose value is neither the one at the beginning nor taken back from the stack
    changed: set[int] = field(default_factory=set)
    #: all that were written, if only with what they had; those of them of which all 32 bits were
    touched: set[int] = field(default_factory=set)
    widely: set[int] = field(default_factory=set)

    def fork(self, ip: int) -> _State:
        cpu = self.cpu
        copy = Cpu(list(cpu.general), list(cpu.segments), ip, cpu.flags, cpu.protected, cpu.cpl, cpu.cr0)
        return _State(copy, dict(self.written), set(self.changed), set(self.touched), set(self.widely))


class Walker:
    """Follows code. One walker serves many walks."""

    def __init__(self, read: Read, load: Load) -> None:
        """`load` is asked in protected mode only."""
        self._read = read
        self._load = load
        #: something was not known at the last walk, so that with more registers known it may have ended otherwise
        self.unsure = False

    def way_out(self, cpu: Cpu, accept: Callable[[Way], bool]) -> Way | None:
        """The first way that ends in a return that `accept` takes for one to a caller, None if none is found."""
        self.unsure = False
        waiting, seen, budget = [_State(cpu).fork(cpu.ip)], set(), BUDGET
        while waiting:
            state = waiting.pop()
            while budget:
                budget -= 1
                key = (state.cpu.pc, state.cpu.stack)
                if None in key:
                    self.unsure = True
                    break
                if key in seen:
                    break
                seen.add(key)
                try:
                    way = self._instruction(state, waiting)
                except _Unknown:
                    self.unsure = True
                    break
                except _End:
                    break
                if way is None:
                    continue
                if accept(way):
                    for register in state.changed - {SP}:
                        way.cpu.general[register] = None  # what the caller had there was not kept, or not visibly
                    way.through = tuple({*range(8)} - state.touched - {SP})
                    way.halves = tuple(state.touched - state.widely - {SP})
                    return way
                if not way.pushed:
                    break
        return None

    # -- memory and registers

    def _bytes(self, state: _State, linear: int, length: int) -> int | None:
        if state.written:
            known = [state.written.get((linear + n) & 0xFFFFFFFF, -1) for n in range(length)]
            if None in known:
                self.unsure = True
                return None
            if known.count(-1) < length:
                data = self._read(linear, length)
                pairs = zip(known, data or b"", strict=False)
                return sum((k if k is not None and k >= 0 else d) << 8 * n for n, (k, d) in enumerate(pairs))
        data = self._read(linear, length)
        return None if data is None else int.from_bytes(data, "little")

    def _linear(self, state: _State, i: Instruction) -> int | None:
        """Of the memory operand."""
        offset = i.displacement
        for register, scale in ((i.base, 1), (i.index, i.scale)):
            if register is not None:
                value = state.cpu.general[register]
                if value is None:
                    self.unsure = True
                    return None
                offset += value * scale
        segment = i.segment
        if segment is None:
            segment = SS if i.base == BP or (i.base == SP and i.address == 4) else DS
        base = state.cpu.segments[segment].base
        self.unsure |= base is None
        return None if base is None else (base + (offset & (1 << 8 * i.address) - 1)) & 0xFFFFFFFF

    def _operand(self, state: _State, i: Instruction, size: int) -> int | None:
        """The value of the ModR/M operand."""
        if i.is_memory:
            linear = self._linear(state, i)
            return None if linear is None else self._bytes(state, linear, size)
        value = state.cpu.general[i.rm]
        return None if value is None else value & (1 << 8 * size) - 1

    def _set(self, state: _State, register: int, value: int | None, size: int, restored: bool = False) -> None:
        """`restored`: the value is one that had been kept on the stack."""
        general = state.cpu.general
        if value is not None and size == 2:
            value = value & 0xFFFF | (general[register] or 0) & 0xFFFF0000
        general[register] = None if value is None else value & 0xFFFFFFFF
        state.touched.add(register)
        if size == 4:
            state.widely.add(register)
        (state.changed.discard if restored else state.changed.add)(register)

    def _load_segment(self, state: _State, register: int, selector: int | None) -> None:
        if register == CS:
            raise _End
        self.unsure |= selector is None
        state.cpu.segments[register] = self._segment(state.cpu, register, selector) or Segment(selector, None)

    def _segment(self, cpu: Cpu, register: int, selector: int | None) -> Segment | None:
        if selector is None:
            return None
        return self._load(selector & 0xFFFF) if cpu.protected else cpu.segments[register].real(selector)

    def _move_stack(self, state: _State, by: int) -> None:
        value = state.cpu.general[SP]
        if value is None:
            raise _Unknown
        if state.cpu.segments[SS].big:
            state.cpu.general[SP] = (value + by) & 0xFFFFFFFF
        else:
            state.cpu.general[SP] = value & 0xFFFF0000 | (value + by) & 0xFFFF

    def _push(self, state: _State, value: int | None, size: int) -> None:
        self._move_stack(state, -size)
        linear = state.cpu.stack
        if linear is None:
            raise _Unknown
        for n in range(size):
            state.written[(linear + n) & 0xFFFFFFFF] = None if value is None else value >> 8 * n & 0xFF

    def _pop(self, state: _State, size: int) -> tuple[int | None, bool]:
        """The word, and whether it stood on the stack before this way began."""
        linear = state.cpu.stack
        if linear is None:
            raise _Unknown
        unsure, kept = self.unsure, linear not in state.written
        value = self._bytes(state, linear, size)
        self.unsure = unsure  # what the way has put there itself is no register's value in the caller
        if value is None and kept:
            raise _End  # no memory: a bad stack
        self._move_stack(state, size)
        return value, kept

    # -- instructions

    def _instruction(self, state: _State, waiting: list[_State]) -> Way | None:
        """Follow one instruction. Returns the way at its end; raises _End."""
        cpu = state.cpu
        linear = cpu.pc
        assert linear is not None
        code = self._read(linear, LONGEST)
        i = None if code is None else decode(code, cpu.segments[CS].big)
        if i is None or code is None or not any(code[:8]):
            raise _End  # not code; zeros are memory that holds nothing
        cpu.ip = self._wrap(cpu, cpu.ip + i.length, 4)
        code_width = 4 if cpu.segments[CS].big else 2
        size, op = i.operand, i.opcode
        if 0x50 <= op <= 0x57:
            self._push(state, cpu.general[op & 7], size)
        elif 0x58 <= op <= 0x5F:
            value, kept = self._pop(state, size)
            self._set(state, op & 7, value, size, kept)
        elif op in (0x06, 0x0E, 0x16, 0x1E, 0x0FA0, 0x0FA8):
            self._push(state, cpu.segments[self._named_segment(op)].selector, size)
        elif op in (0x07, 0x17, 0x1F, 0x0FA1, 0x0FA9):
            self._load_segment(state, self._named_segment(op), self._pop(state, size)[0])
        elif op in (0x68, 0x6A):
            self._push(state, i.immediate, size)
        elif op == 0x9C:
            self._push(state, cpu.flags, size)
        elif op == 0x9D:
            self._pop(state, size)
        elif op == 0x60:
            kept_sp = cpu.general[SP]
            for register in range(8):
                self._push(state, kept_sp if register == SP else cpu.general[register], size)
        elif op == 0x61:
            for register in reversed(range(8)):
                value, kept = self._pop(state, size)
                if register != SP:
                    self._set(state, register, value, size, kept)
        elif op == 0xC9:
            self._set(state, SP, cpu.general[BP], 4 if cpu.segments[SS].big else 2, True)
            value, kept = self._pop(state, size)
            self._set(state, BP, value, size, kept)
        elif op == 0xC8:
            self._push(state, cpu.general[BP], size)
            self._set(state, BP, cpu.general[SP], size)
            self._move_stack(state, -(i.immediate & 0xFFFF))
        elif op in (0xC3, 0xC2, 0xCB, 0xCA, 0xCF):
            return self._return(state, i)
        elif 0x70 <= op <= 0x7F or 0x0F80 <= op <= 0x0F8F or 0xE0 <= op <= 0xE3:
            if op in (0xE0, 0xE1, 0xE2):
                self._set(state, CX, None, size)
            if len(waiting) < WAITING:
                waiting.append(state.fork(self._wrap(cpu, cpu.ip + i.immediate, size)))
        elif op in (0xEB, 0xE9):
            cpu.ip = self._wrap(cpu, cpu.ip + i.immediate, size)
        elif op == 0xEA:
            self._far(state, i.selector, i.immediate & (1 << 8 * size) - 1)
        elif op == 0xFF and i.reg in (4, 5):
            self._jump_indirect(state, i)
        elif op in (0xE8, 0x9A, 0xCC, 0xCD) or (op == 0xFF and i.reg in (2, 3)):
            for register in _CLOBBERED:
                self._set(state, register, None, 4)
        elif op == 0x0F22 or (op == 0x0F01 and i.reg == 6):
            self._switch_mode(state, i)
        elif op == 0x0F20:
            self._set(state, i.rm, cpu.cr0 if i.reg == 0 else None, 4)
        else:
            self._data(state, i, code_width)
        return None

    def _switch_mode(self, state: _State, i: Instruction) -> None:
        """MOV to a control register, and LMSW. PE may change where paging is off, which moves no memory."""
        cpu = state.cpu
        if i.opcode == 0x0F22 and i.reg != 0:
            return
        value = cpu.general[i.rm] if i.opcode == 0x0F22 else self._operand(state, i, 2)
        if value is None or cpu.cr0 is None:
            raise _Unknown
        if (value | cpu.cr0) >> 31:
            raise _End
        cpu.cr0 = value if i.opcode == 0x0F22 else cpu.cr0 & 0xFFFFFFF0 | value & 0xF | cpu.cr0 & 1
        cpu.protected = bool(cpu.cr0 & 1)

    def _named_segment(self, op: int) -> int:
        return {0x0FA0: FS, 0x0FA1: FS, 0x0FA8: GS, 0x0FA9: GS}.get(op, (ES, CS, SS, DS)[op >> 3 & 3])

    def _wrap(self, cpu: Cpu, ip: int, size: int) -> int:
        """IP as the CPU masks it: 16 bits wide in 16-bit segments and behind 16-bit jumps."""
        return ip & (0xFFFFFFFF if cpu.segments[CS].big and size == 4 else 0xFFFF)

    def _data(self, state: _State, i: Instruction, code_width: int) -> None:
        """Moves and arithmetic as far as stacks and segments are made with them; anything else spoils its target."""
        cpu, size, op = state.cpu, i.operand, i.opcode
        general = cpu.general
        if op == 0x8B:
            # What comes from the stack by an address is as restored as what is popped.
            self._set(state, i.reg, self._operand(state, i, size), size, i.is_memory and i.segment is None)
        elif op == 0x89 and i.mod == 3:
            self._set(state, i.rm, general[i.reg], size, i.rm == SP)
        elif op == 0x89:
            self._store(state, i, general[i.reg], size)
        elif 0xB8 <= op <= 0xBF:
            self._set(state, op & 7, i.immediate, size)
        elif op == 0xA1:
            self._set(state, AX, self._operand_at(state, i, size), size)
        elif op == 0x8D:
            linear = self._linear(state, i)
            base = cpu.segments[SS if i.base == BP or (i.base == SP and i.address == 4) else DS].base
            if i.segment is not None:
                base = cpu.segments[i.segment].base
            offset = None if linear is None or base is None else (linear - base) & (1 << 8 * i.address) - 1
            self._set(state, i.reg, offset, size)
        elif op in (0x81, 0x83) and i.mod == 3:
            self._arithmetic(state, i.reg, i.rm, general[i.rm], i.immediate, size)
        elif op < 0x40 and op & 7 == 5:
            self._arithmetic(state, op >> 3, AX, general[AX], i.immediate, size)
        elif op < 0x40 and op & 7 == 4:
            self._low_byte(state, op >> 3, AX, i.immediate)
        elif op == 0x80 and i.mod == 3 and i.rm < 4:
            self._low_byte(state, i.reg, i.rm, i.immediate)
        elif op in (0x01, 0x29, 0x31) and i.mod == 3:
            if op == 0x31 and i.reg == i.rm:
                self._set(state, i.rm, 0, size)
            else:
                self._arithmetic(state, op >> 3, i.rm, general[i.rm], general[i.reg], size)
        elif op in (0x03, 0x2B, 0x33):
            self._arithmetic(state, op >> 3, i.reg, general[i.reg], self._operand(state, i, size), size)
        elif 0x40 <= op <= 0x4F:
            self._arithmetic(state, 0 if op < 0x48 else 5, op & 7, general[op & 7], 1, size)
        elif op == 0x0FB7:
            self._set(state, i.reg, self._operand(state, i, 2), size, i.reg == SP)
        elif op == 0x8E and i.reg < 6:
            self._load_segment(state, i.reg, self._operand(state, i, 2))
        elif op == 0x8C and i.reg < 6:
            if i.is_memory:
                self._store(state, i, cpu.segments[i.reg].selector, 2)
            else:
                self._set(state, i.rm, cpu.segments[i.reg].selector, size)
        elif op in (0xC4, 0xC5, 0x0FB2, 0x0FB4, 0x0FB5):
            self._load_pointer(state, i)
        elif op == 0x8F:
            value, _ = self._pop(state, size)
            if i.is_memory:
                self._store(state, i, value, size)
            else:
                self._set(state, i.rm, value, size)
        elif op == 0xFF and i.reg == 6:
            self._push(state, self._operand(state, i, size), size)
        elif op == 0x87 and i.mod == 3:
            first, second = general[i.reg], general[i.rm]
            self._set(state, i.reg, second, size)
            self._set(state, i.rm, first, size)
        elif 0x91 <= op <= 0x97:
            first, second = general[AX], general[op & 7]
            self._set(state, AX, second, size)
            self._set(state, op & 7, first, size)
        else:
            self._spoil(state, i)

    def _arithmetic(
        self, state: _State, what: int, register: int, left: int | None, right: int | None, size: int
    ) -> None:
        """`what` as in ModR/M.reg of 81: 0 ADD, 1 OR, 4 AND, 5 SUB, 6 XOR, 7 CMP."""
        if what == 7:
            return
        result = None
        if left is not None and right is not None:
            right &= 0xFFFFFFFF
            results = {0: left + right, 1: left | right, 4: left & right, 5: left - right, 6: left ^ right}
            result = results.get(what)
        self._set(state, register, result, size, register == SP)

    def _low_byte(self, state: _State, what: int, register: int, right: int) -> None:
        """Arithmetic on AL, CL, DL or BL, by which PE is set and cleared."""
        whole = state.cpu.general[register]
        self._arithmetic(state, what, register, None if whole is None else whole & 0xFF, right & 0xFF, 4)
        result = state.cpu.general[register]
        if whole is not None and result is not None:
            state.cpu.general[register] = whole & 0xFFFFFF00 | result & 0xFF

    def _operand_at(self, state: _State, i: Instruction, size: int) -> int | None:
        """Of an address in the instruction (A1)."""
        base = state.cpu.segments[DS if i.segment is None else i.segment].base
        if base is None:
            self.unsure = True
            return None
        return self._bytes(state, (base + (i.displacement & (1 << 8 * i.address) - 1)) & 0xFFFFFFFF, size)

    def _store(self, state: _State, i: Instruction, value: int | None, size: int) -> None:
        linear = self._linear(state, i)
        if linear is None:
            return  # somewhere: taken to be no return address
        for n in range(size):
            state.written[(linear + n) & 0xFFFFFFFF] = None if value is None else value >> 8 * n & 0xFF

    def _load_pointer(self, state: _State, i: Instruction) -> None:
        linear = self._linear(state, i)
        offset = selector = None
        if linear is not None:
            offset, selector = self._bytes(state, linear, i.operand), self._bytes(state, linear + i.operand, 2)
        self._set(state, i.reg, offset, i.operand, True)
        named = {0xC4: ES, 0xC5: DS, 0x0FB2: SS, 0x0FB4: FS, 0x0FB5: GS}
        self._load_segment(state, named[i.opcode], selector)

    def _spoil(self, state: _State, i: Instruction) -> None:
        """Whatever the instruction writes is unknown; compares and tests write nothing."""
        op = i.opcode
        if op in (0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x84, 0x85, 0xA8, 0xA9, 0x90, 0xF4) or 0xD8 <= op <= 0xDF:
            return
        if op in (0x80, 0x81, 0x83) and i.reg == 7:
            return
        spoilt = set()
        if 0xA4 <= op <= 0xA7 or 0xAA <= op <= 0xAF or 0x6C <= op <= 0x6F:
            spoilt = {AX, CX, SI, DI}
        elif i.mod >= 0:
            byte = (op < 0x40 and not op & 1) or op in (0x80, 0x88, 0x8A, 0xC0, 0xC6, 0xD0, 0xD2, 0xF6, 0xFE)
            spoilt = {i.reg} | ({i.rm} if i.mod == 3 else set())
            if byte:  # AL to BL and AH to BH are parts of the first four
                spoilt = {register & 3 for register in spoilt}
            if op in (0xF6, 0xF7):
                spoilt = {AX, DX} if i.reg > 3 else spoilt - {i.reg} if i.mod != 3 else {i.rm & (3 if byte else 7)}
            elif op in (0xC0, 0xC1, 0xC6, 0xC7, 0xD0, 0xD1, 0xD2, 0xD3, 0x80, 0x81, 0x83, 0xFE, 0xFF):
                spoilt = {i.rm & 3 if byte else i.rm} if i.mod == 3 else set()
        elif 0xB0 <= op <= 0xB7:
            spoilt = {op & 3}
        elif op < 0x40 or op in (0x98, 0x99, 0x9F, 0xA0, 0xA1, 0xD7, 0xE4, 0xE5, 0xEC, 0xED, 0x0FA2, 0x0F31, 0x0F32):
            spoilt = {AX, DX} | ({BX, CX} if op == 0x0FA2 else set())
        for register in spoilt:
            self._set(state, register, None, 4)

    # -- jumps and returns

    def _jump_indirect(self, state: _State, i: Instruction) -> None:
        cpu = state.cpu
        if i.reg == 4:
            target = self._operand(state, i, i.operand)
            if target is None:
                raise _Unknown
            cpu.ip = self._wrap(cpu, target, i.operand)
            return
        linear = self._linear(state, i) if i.is_memory else None
        if linear is None:
            raise _Unknown
        self._far(state, self._bytes(state, linear + i.operand, 2), self._bytes(state, linear, i.operand))

    def _far(self, state: _State, selector: int | None, offset: int | None, virtual: bool = False) -> None:
        """`virtual`: to virtual-8086 mode."""
        segment = Segment.virtual(selector) if virtual else self._segment(state.cpu, CS, selector)
        if segment is None or segment.base is None or offset is None:
            raise _Unknown
        state.cpu.segments[CS] = segment
        state.cpu.ip = offset

    def _return(self, state: _State, i: Instruction) -> Way | None:
        """SDM vol. 2, RET and IRET."""
        cpu, size = state.cpu, i.operand
        kind = {0xC3: Kind.NEAR, 0xC2: Kind.NEAR, 0xCF: Kind.INTERRUPT}.get(i.opcode, Kind.FAR)
        slot = cpu.stack
        assert slot is not None
        ip, kept = self._pop(state, size)
        selector = flags = None
        if kind is not Kind.NEAR:
            selector = self._pop(state, size)[0]
            if selector is None:
                raise _Unknown
            selector &= 0xFFFF
        if kind is Kind.INTERRUPT:
            flags = self._pop(state, size)[0]
            self.unsure |= flags is None
        if ip is None:
            raise _Unknown
        if kind is Kind.NEAR:
            cpu.ip = self._wrap(cpu, ip, size)
        else:
            from_ring_0 = kind is Kind.INTERRUPT and size == 4 and cpu.protected and not cpu.cpl
            virtual = from_ring_0 and bool((flags or 0) >> 17 & 1)
            if virtual:
                cpu.protected = False
            outer = cpu.protected and selector is not None and selector & 3 > cpu.cpl
            self._far(state, selector, ip, virtual)
            if i.opcode in (0xC2, 0xCA):
                self._move_stack(state, i.immediate & 0xFFFF)
            if outer or virtual:
                self._other_stack(state, size, virtual)
                cpu.cpl = 3 if virtual else (selector or 0) & 3
        if i.opcode == 0xC2:
            self._move_stack(state, i.immediate & 0xFFFF)
        cpu.flags = flags if kind is Kind.INTERRUPT else cpu.flags
        return Way(kind, size, slot, cpu, not kept)

    def _other_stack(self, state: _State, size: int, virtual: bool) -> None:
        """IRET and RETF to an outer ring pop SS:(E)SP, and IRET to virtual-8086 mode the data segments as well."""
        pointer, selector = self._pop(state, size)[0], self._pop(state, size)[0]
        if pointer is None or selector is None:
            raise _Unknown
        if virtual:
            for register in (ES, DS, FS, GS):
                state.cpu.segments[register] = Segment.virtual(self._pop(state, size)[0])
            state.cpu.segments[SS] = Segment.virtual(selector)
        else:
            self._load_segment(state, SS, selector & 0xFFFF)
        self._set(state, SP, pointer, size, True)
