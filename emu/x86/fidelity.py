"""Which promises of x86 are not kept, for `v2e doctor`; docs/fidelity.md says more, and a test compares the two."""

from __future__ import annotations

from emu.record import dataclass
from emu.typed import Final


@dataclass(frozen=True, slots=True)
class Gap:
    """One row of docs/fidelity.md: `promise` is its first column, `unkept` what is missing. `always`: with the C helper
    too, else only in the portable loop."""

    promise: str
    unkept: str
    always: bool = False


GAPS: Final = (
    Gap(
        "entries of page tables that are changed without INVLPG (SDM vol. 3A, 4.10.2.3 allows both outcomes): the same "
        "in equal runs and in any slices",
        "what the TLB keeps of entries changed without INVLPG, in snapshots",
        always=True,
    ),
    Gap(
        "RF is of one instruction, or of all iterations of a repeated one; IRETD and task switches load it",
        "RF ends with a translation, not with an instruction",
    ),
    Gap(
        "second half of the frame of RETF and IRET to an outer ring, and of IRET to V86",
        "limits of the second half of the frame of RETF and IRET outwards, but with --checks full",
    ),
    Gap("parameters of call gates", "limits of the parameters of call gates, but with --checks full"),
    Gap(
        "stack too small for a gate's frame, null or bad SS0 in the TSS: #SS, #TS or #DF, with code and EXT",
        "inner stacks of external interrupts, and of call gates but with --checks full",
    ),
    Gap("null and not-present segments: #GP(0)", "null ES, FS and GS beside flat segments, but with --checks full"),
    Gap("writes through CS of flat code", "writes through CS of flat code, but with --checks full"),
    Gap("64 KiB limits of real and V86 mode", "64 KiB limits of real and V86 mode, but with --checks full"),
    Gap(
        "far CALL, RETF and IRET of ring 3 and V86 mode reach their stack as the program does: #PF of the supervisor's "
        "pages, and U in the code",
        "page protection for far CALL of ring 3, and for far CALL and IRET of V86 mode",
    ),
    Gap(
        "the same of INT n and call gates that stay in ring 3 in long mode",
        "page protection for call gates that stay in ring 3 in long mode",
    ),
    Gap(
        "#PF of an operand that is read and written (ADD, XCHG, CMPXCHG) is a write's: W in the code",
        "W in the code of #PF of an operand that is read and written",
    ),
    Gap(
        "#PF before any effect where an operand or frame lies on two pages: PUSHA, POPA, ENTER, far CALL, SGDT, SIDT, "
        "FSTP m80, FBSTP, FNSTENV, FNSAVE, FLDENV, FRSTOR, FXSAVE, FXRSTOR, MASKMOVQ, MASKMOVDQU, MOVUPS, MOVUPD, "
        "MOVDQU",
        "#PF before any effect of PUSHA, ENTER, FNSAVE and others that access two pages in pieces",
    ),
    Gap("the same of XSAVE and XRSTOR", "#PF before any effect of XSAVE and XRSTOR"),
    Gap("XSAVE, XSAVEOPT and XRSTOR with CR0.TS: #NM", "#NM of XSAVE, XSAVEOPT and XRSTOR with CR0.TS"),
    Gap(
        "#PF of what is only touched: the new top of ENTER, the byte of CLFLUSH, the pointers of FLDENV",
        "#PF of the new top of ENTER, the byte of CLFLUSH, and the pointers of FLDENV",
    ),
    Gap(
        "far transfer (JMP, CALL, RETF, IRET, gates) to an offset beyond the new CS in protected mode, and of code "
        "in long mode that is not of 64 bits: #GP(0) in the transfer",
        "far transfers beyond the new CS fault at the target, but with --checks full outside long mode",
    ),
    Gap(
        "the same in real and V86 mode",
        "far transfers of real mode beyond CS fault at the target, but with --checks full",
    ),
    Gap(
        "INS and OUTS denied before their operand is written or read",
        "INS denied before it writes, but with --checks full, and OUTS before its page is looked at",
    ),
    Gap(
        "V86 with CR4.VME: VIF, VIP, interrupt redirection; ring 3 with CR4.PVI; single steps of them",
        "VIF and VIP loaded by IRET of ring 0",
    ),
    Gap(
        "VIF and VIP both set: #GP(0) before the next instruction",
        "#GP(0) before the next instruction when VIF and VIP are both set",
    ),
    Gap(
        "long mode: a gate's target or a stack of the TSS that is not canonical: #GP or #SS of the event",
        "in long mode gates to, and stacks of the TSS at, addresses that are not canonical",
    ),
    Gap(
        "64-bit code: prefixes of CS, DS, ES and SS ignored, whatever bases the registers have, also behind those of "
        "FS and GS",
        "in 64-bit code a prefix of CS, DS, ES or SS behind one of FS or GS takes its place",
    ),
    Gap(
        "RETF and IRETQ to a non-canonical address: #GP(0) in the instruction, behind what is wrong about its code "
        "segment",
        "RETF and IRETQ to addresses that are not canonical fault at the target",
    ),
    Gap(
        "near branches of 64-bit code under EFLAGS.TF to an address that is not canonical: #GP(0) in the branch, "
        "no #DB behind it",
        "near branches under TF to addresses that are not canonical: #GP(0) before #DB",
    ),
    Gap(
        "an operand of 64-bit code whose first byte has a canonical address and whose last has none: #GP(0) or "
        "#SS(0) before what is wrong with its pages",
        "#GP(0) before #PF of an operand that goes over the end of canonical addresses",
    ),
    Gap(
        "LGDT and LIDT of 64-bit code with a base that is not canonical: #GP(0)",
        "#GP(0) for LGDT and LIDT with a base that is not canonical",
    ),
    Gap(
        "near branches of 64-bit code ignore a prefix 66, by the models of Intel",
        "near branches of 64-bit code with a prefix 66 as on Intel's CPUs",
    ),
    Gap(
        "REX where a bit of it does not count: LAHF and SAHF use AH, MOV (C6, C7) has no register in ModRM.reg, "
        "SSSE3 of MMX registers has eight",
        "REX with LAHF, SAHF and MOV by C6 and C7; SSSE3 with REX.R stores behind the MMX registers",
    ),
    Gap(
        "far CALL, RETF and IRETD of 64-bit code with operands of 32 or 16 bits reach their stack by all of RSP",
        "all of RSP for far CALL, RETF and IRETD of 64-bit code with operands of 32 bits",
    ),
    Gap(
        "CS and SS are accessed in their caches whatever has loaded them",
        "the accessed bit of a descriptor in memory for far transfers, returns and interrupts",
        always=True,
    ),
    Gap("IRET to V86 mode loads RF", "RF loaded by IRET to V86 mode"),
    Gap("PUSHF pushes VM and RF as 0", "PUSHF pushing VM and RF as 0"),
    Gap(
        "the same by far CALL and JMP, task gates of the GDT, and IRET with NT",
        "task switches by far CALL and JMP and by IRET with NT, but with --checks full",
    ),
    Gap(
        "data breakpoints go by linear addresses: the same memory by another address does not meet one",
        "which linear address an access that meets a data breakpoint of DR0 to DR3 has been made by",
        always=True,
    ),
    Gap(
        "data breakpoints that MOV SS and POP SS meet: #DB behind the next instruction (SDM vol. 3A, 6.8.3)",
        "data breakpoints met by MOV SS and POP SS, behind the next instruction",
    ),
    Gap("DR7.GD", "DR7.GD"),
    Gap(
        "reserved bits of DR6 and DR7: fixed values; of their high halves: #GP(0)",
        "fixed values of the reserved bits of DR6 and DR7",
    ),
    Gap(
        "MOV to CR0 and CR3: combinations and reserved bits that are #GP(0), those of PDPTEs that it loads too",
        "#GP(0) for values that CR0, CR3 and the PDPTEs may not have",
    ),
    Gap("TEST by F6 and F7 with 1 in ModRM.reg", "TEST by its second encoding, F6 and F7 with reg 1"),
    Gap(
        "LOCK before what cannot be locked, 8F and C6, C7 with ModRM.reg not 0: #UD",
        "#UD for LOCK before MOV, BT, POP, for POP with reg not 0; LOCK before BTS of a register ends v2e",
    ),
    Gap(
        "EXTRQ, INSERTQ, MOVNTSS, MOVNTSD (SSE4A): #UD, as no model has them; NOP (0F 18 to 1F) and PREFETCHh before "
        "the P6; PREFETCHW (0F 0D) before long mode",
        "#UD for SSE4A, for NOP (0F 1F) and PREFETCHh before the P6, and for PREFETCHW on models without it",
    ),
    Gap("LTR and LLDT: null, wrong, busy and absent descriptors", "LTR of a null selector, but with --checks full"),
    Gap(
        "RDTSC, RDTSCP, RDPMC on virtual time; CR4.TSD, CR4.PCE; writes to the TSC",
        "event selection of RDPMC's counters",
        always=True,
    ),
    Gap(
        "MMX, SSE, SSE2 and SSE3 denied by the model: #UD, and RDMSR and WRMSR of a 486 in every ring",
        "MMX to SSE3 instructions that the CPU model lacks",
    ),
    Gap(
        "long mode: interrupt stack table, every slot, nested; non-canonical addresses: #SS(0) by way of the stack "
        "segment, else #GP(0), near branches before any effect",
        "SS kept where a stack of the interrupt stack table is taken without a change of ring",
        always=True,
    ),
    Gap(
        "the type of CS in real mode: read/write data, to the far transfer behind MOV CR0 (SDM vol. 3A, table 10-1)",
        "the type of CS in real mode, read/write data",
        always=True,
    ),
    Gap(
        "16-byte alignment of SSE memory operands (MOVAPS, MOVDQA, PADDB m128, MOVNTPS): #GP(0)",
        "#GP(0) for SSE operands that are not aligned",
    ),
    Gap("reserved bits of MXCSR in LDMXCSR, FXRSTOR and XRSTOR: #GP(0)", "#GP(0) for reserved bits of MXCSR"),
    Gap(
        "FBSTP of what has no 18 digits stores the indefinite value, and -0 its sign",
        "FBSTP's indefinite value, and its sign of -0",
    ),
    Gap(
        "SSE exceptions: flags of MXCSR; #XM of what is not masked, #UD without CR4.OSXMMEXCPT, before any effect",
        "SSE exceptions, and their flags in MXCSR",
    ),
    Gap(
        "RCPPS, RSQRTPS: 12 bits of precision, denormals and tiny results zeros, no exceptions",
        "denormals and tiny results of RCPPS and RSQRTPS taken for zeros",
    ),
    Gap(
        "SSE: denormals under DAZ and FZ, MIN and MAX included; which of two NaNs, and quiet ones of signalling ones",
        "MXCSR.FZ, DAZ of MIN and MAX, and which of two NaNs SSE takes",
    ),
    Gap(
        "x87 exceptions: IE, DE, ZE, OE, UE, PE, SF, C1; an empty or full stack; signalling NaNs; what is not masked "
        "leaves its operands, and is #MF at the next instruction that waits, with CR0.NE",
        "exception bits of the x87 status word but ZE, stack faults, and #MF but of WAIT",
    ),
    Gap("FXTRACT and FSCALE of NaNs, infinities and zeros", "FXTRACT and FSCALE of NaNs and infinities"),
    Gap(
        "x87 precision: 64 bits, RC of FLDPI and its kind",
        "the last bits of x87 transcendental functions and constants",
    ),
    Gap(
        "FERR#, IRQ 13, port F0h and IGNNE# of an x87 exception that is not masked with CR0.NE clear: the CPU waits "
        "for an interrupt at the next instruction that waits",
        "IRQ 13 of x87 exceptions with CR0.NE clear",
    ),
    Gap(
        "MMX instructions write ones to bits 79 to 64 of their register",
        "the ones that MMX instructions write above their registers",
    ),
    Gap(
        "alignment checks of ring 3 and V86 mode with CR0.AM and EFLAGS.AC: #AC, of all operands and stacks, INT n and "
        "far CALL that stay in ring 3 too",
        "#AC, but with --checks full outside 64-bit code",
    ),
    Gap(
        "MOVBE, CRC32, ADCX, ADOX, BMI1 and BMI2 whatever CR0.TS, CR0.EM and CR4.OSFXSR are",
        "MOVBE, CRC32, ADCX and BMI with CR0.TS or EM, or without CR4.OSFXSR",
    ),
    Gap(
        "VEX in 16-bit protected mode: BMI1 and BMI2; #UD of the rest, and in real and V86 mode",
        "VEX in 16-bit protected mode",
    ),
    Gap(
        "BZHI and BEXTR of as many bits as the operand has; CF of BLSI",
        "the highest bit of BZHI and BEXTR, and CF of BLSI",
    ),
    Gap(
        "FIP, FCS, FDP, FDS and FOP of an x87 instruction whose exception is not masked",
        "the x87's pointers and opcode of exceptions that are not masked",
    ),
    Gap(
        "the same and the reserved halves in what FNSTENV and FNSAVE store in each mode, FXSAVE, XSAVE, and what "
        "FLDENV, FRSTOR, FXRSTOR and XRSTOR load",
        "FOP, and the pointers of FXSAVE and of real mode, in images of the x87's state, and loading them",
    ),
    Gap(
        "control instructions leave the x87's pointers (SDM vol. 1, 8.1.8)",
        "FIP behind FNSTSW AX",
    ),
    Gap(
        "reserved bits of the x87's control word",
        "reserved bits of the x87's control word",
    ),
    Gap(
        "#UD, the privilege, IOPL, denied ports, NT, and the selector of a far CALL come before "
        "violations of an operand's or frame's segment",
        "#UD by mandatory prefixes and by the model before a violation of an operand's segment",
    ),
    Gap(
        "#UD of SSE and MMX forms with memory that are of registers alone (MOVMSKPS, PSLLW by an "
        "immediate, MOVDQ2Q), and of MMX with F2 or F3; #UD leaves the x87 as it is",
        "#UD of SSE and MMX forms with memory or prefixes that there are not",
    ),
    Gap(
        "#UD of what is no instruction (reserved opcodes and forms of 0F, 0F 38 and 0F 3A, groups, registers "
        "where there is memory alone, CR1 and CR5, PUSHA and POPA of 64-bit code, control and debug registers above "
        "the 7th but CR8) before its operand, CR0.TS and the privilege are looked at",
        "#UD of reserved encodings before their operand and CR0.TS",
    ),
    Gap(
        "VEX of AVX, which no model has: #UD",
        "#UD of AVX, which executes as SSE",
    ),
    Gap(
        "CR0.EM makes MMX and SSE #UD whatever CR0.TS is",
        "#UD of MMX and SSE with CR0.EM and TS both set",
    ),
    Gap(
        "#MF of a pending exception comes before what is wrong with the operand of an x87 or MMX instruction "
        "that waits, and leaves CR2",
        "#MF before what is wrong with an operand",
    ),
    Gap(
        "an MMX instruction or an x87 store that faults, and #XM of CVTPS2PI, leave the x87 as it was; RCL "
        "and RCR that fault leave the flags",
        "the x87's state and the flags behind instructions that fault",
    ),
    Gap(
        "SSSE3 of MMX registers waits for #MF and makes the registers those of MMX; EMMS makes TOP 0",
        "TOP and tags behind SSSE3 of MMX registers and EMMS",
    ),
    Gap(
        "IRET of rings 1 to 3, and of every ring in long mode, ignores VM in its frame",
        "IRET of rings 1 to 3, and in long mode, with VM in its frame",
    ),
    Gap(
        "flags of NEG with LOCK; RET and RETF with operands above 7FFFh; PHADDW, PHSUBW and their kin and "
        "PACKUSDW of a register with itself; 0F 0D and 0F 18 of registers are NOPs",
        "flags of LOCK NEG, RET with operands above 7FFFh, PHADDW of one register, 0F 18 of registers",
    ),
    Gap("SYSRET of real mode: #UD by Intel's CPUs, and by AMD's without EFER.SCE", "#UD of SYSRET of real mode"),
    Gap(
        "an event of real mode whose frame goes over the end of the stack within a word, at an odd SP below 6, or "
        "beyond a smaller limit of SS: shutdown",
        "shutdown by an interrupt of real mode whose frame goes over the end of the stack",
    ),
    Gap(
        "POPCNT, MOVBE and CRC32 in 16-bit code",
        "operand sizes of POPCNT, MOVBE and CRC32 in 16-bit code",
    ),
    Gap(
        "RETF of real and V86 mode whose CS lies at the other end of a stack of 64 KiB",
        "RETF over the end of a stack of 64 KiB",
    ),
    Gap(
        "F2 and F3 come before 66 as mandatory prefixes, and the last of F2 and F3 counts",
        "which of 66, F2 and F3 counts as mandatory prefix where there are several",
    ),
    Gap(
        "CMPPS, CMPPD, CMPSS, CMPSD with reserved bits in the immediate go by bits 2 to 0",
        "CMPPS and its kin with reserved bits in the immediate",
    ),
    Gap("single step behind PAUSE; the end of RF and of STI's shadow there", "single step behind PAUSE"),
    Gap(
        "DR6.B0 to B3 of a single step where CS has a base",
        "DR6.B0 to B3 of single steps where CS has a base",
    ),
    Gap(
        "execution where no RAM or ROM is: FFh FFh, which is #UD; stops, catches and the journal say what it was",
        "execution where no RAM or ROM is",
    ),
)


def unkept(*, helper: bool) -> tuple[str, ...]:
    """What is missing with the C helper, or in the portable loop."""
    return tuple(gap.unkept for gap in GAPS if gap.always or not helper)
