/* Which encodings are #UD that Unicorn executes, and which operands have to be aligned. SDM vol. 2A to 2C, each
 * instruction's own page; vol. 2A, "LOCK", and 2.4.2 to 2.4.4 (exception classes 2 to 4 of legacy SSE). */
#include "checks.h"

/* The instructions that may be locked, with a destination in memory (SDM vol. 2A, "LOCK"). */
static int is_lockable(const struct instruction *in)
{
    switch (in->opcode) {
    case 0x00: case 0x01: case 0x08: case 0x09: case 0x10: case 0x11: case 0x18: case 0x19: /* ADD, OR, ADC, SBB */
    case 0x20: case 0x21: case 0x28: case 0x29: case 0x30: case 0x31:                       /* AND, SUB, XOR */
    case 0x86: case 0x87:                                                                   /* XCHG */
    case 0x0fab: case 0x0fb3: case 0x0fbb:                                                  /* BTS, BTR, BTC */
    case 0x0fb0: case 0x0fb1: case 0x0fc0: case 0x0fc1:                                     /* CMPXCHG, XADD */
        break;
    case 0x80: case 0x81: case 0x82: case 0x83: /* all but CMP */
        if (in->reg == 7)
            return 0;
        break;
    case 0xf6: case 0xf7: /* NOT, NEG */
        if (in->reg != 2 && in->reg != 3)
            return 0;
        break;
    case 0xfe: case 0xff: /* INC, DEC */
        if (in->reg > 1)
            return 0;
        break;
    case 0x0fba: /* BTS, BTR, BTC */
        if (in->reg < 5)
            return 0;
        break;
    case 0x0fc7: /* CMPXCHG8B, CMPXCHG16B */
        if (in->reg != 1)
            return 0;
        break;
    default:
        return 0;
    }
    return in->rm == NONE;
}

/* PSRLW, PSRAW, PSLLW and the like; PSRLDQ and PSLLDQ with 66. */
static int shifts(const struct instruction *in)
{
    if (in->opcode == 0x0f73 && (in->reg == 3 || in->reg == 7))
        return in->form == 1;
    return in->reg == 2 || in->reg == 6 || (in->reg == 4 && in->opcode != 0x0f73);
}

/* What is behind 0F 38 and 0F 3A without VEX (vol. 2D, tables ), by its mandatory prefix: the extension, 0 for
 * what is here whatever the model is asked about, EXTENSION_NONE for no instruction. */
static uint32_t extension_behind(const struct instruction *in)
{
    int with_66 = in->form == 1;

    switch (in->opcode) {
    case 0x3800 ... 0x380b: case 0x381c ... 0x381e: case 0x3a0f:
        return in->form > 1 ? EXTENSION_NONE : EXTENSION_SSSE3;
    case 0x3810: case 0x3814: case 0x3815: case 0x3817: case 0x3820 ... 0x3825: case 0x3828 ... 0x382b:
    case 0x3830 ... 0x3835: case 0x3838 ... 0x3841: case 0x3a08 ... 0x3a0e: case 0x3a14 ... 0x3a17: case 0x3a20 ... 0x3a22:
    case 0x3a40 ... 0x3a42:
        return with_66 ? EXTENSION_SSE41 : EXTENSION_NONE;
    case 0x3837: case 0x3a60 ... 0x3a63:
        return with_66 ? EXTENSION_SSE42 : EXTENSION_NONE;
    case 0x38db ... 0x38df: case 0x3adf:
        return with_66 ? EXTENSION_AES : EXTENSION_NONE;
    case 0x3a44:
        return with_66 ? EXTENSION_PCLMULQDQ : EXTENSION_NONE;
    case 0x38f0: case 0x38f1: /* MOVBE, of memory alone, and CRC32 */
        if (in->repeat)
            return in->form == 2 ? EXTENSION_NONE : EXTENSION_SSE42;
        return in->rm == NONE ? EXTENSION_MOVBE : EXTENSION_NONE;
    case 0x38f6: /* ADCX, ADOX */
        return in->form == 1 || in->form == 2 ? EXTENSION_ADX : EXTENSION_NONE;
    default:
        return EXTENSION_NONE;
    }
}

/* `denied`: the extensions that the CPU model lacks. */
int is_undefined(const struct instruction *in, uint32_t denied)
{
    denied |= EXTENSION_NONE;
    if (in->lock && !is_lockable(in))
        return 1;
    if (in->unknown)
        return (in->extension & denied) != 0;
    if (in->extension & denied)
        return 1;
    if (in->opcode > 0x0fff)
        return in->form < VEX && (extension_behind(in) & denied) != 0;
    switch (in->opcode) {
    case 0x8c: /* MOV of a segment register that there is not */
        return in->reg > 5;
    case 0x8e: /* the same, and CS */
        return in->reg > 5 || in->reg == 1;
    case 0xc4: case 0xc5: /* of a register: VEX, but for what decode.c knows of it */
        return in->rm != NONE;
    case 0xfe: /* group 4: INC and DEC */
        return in->reg > 1;
    case 0xff: /* group 5 */
        return in->reg == 7 || ((in->reg == 3 || in->reg == 5) && in->rm != NONE);
    case 0x0f0e: case 0x0f0f: /* 3DNow!, which no model has; Unicorn would make the registers those of MMX first */
    case 0x0f24: case 0x0f26: /* MOV of test registers */
        return 1;
    case 0x0f20: case 0x0f22: /* MOV of CR1, CR5, CR6 and CR7 (vol. 2B) */
        return in->reg == 1 || (in->reg > 4);
    case 0x0fb8: /* POPCNT, which is F3's */
        return !in->repeat || in->form == 3 || (denied & EXTENSION_POPCNT) != 0;
    case 0x0fba: /* group 8: BT, BTS, BTR, BTC */
        return in->reg < 4;
    case 0x0f13: case 0x0f17: case 0x0f2b: case 0x0fc3: case 0x0fe7: case 0x0ff0: /* MOVLPS, MOVHPS, MOVNTPS, MOVNTI, */
        return in->rm != NONE;                                                   /* MOVNTQ, LDDQU: of memory alone */
    case 0x0f12: case 0x0f16: /* MOVLPD and MOVHPD */
        return in->form == 1 && in->rm != NONE;
    case 0x0f40 ... 0x0f4f: /* CMOVcc */
        return (denied & EXTENSION_CMOV) != 0;
    case 0xda: case 0xdb: case 0xdf: /* FCMOVcc, FUCOMI and FCOMI (vol. 2A: "CPUID Feature Flag") */
        return in->rm != NONE && denied & EXTENSION_CMOV &&
               ((in->opcode != 0xdf && in->reg < 4) || (in->opcode != 0xda && (in->reg == 5 || in->reg == 6)));
    case 0x0fc7: /* CMPXCHG8B and CMPXCHG16B */
        return in->reg == 1 && (denied & (in->wide ? EXTENSION_CX16 : EXTENSION_CX8)) != 0;
    case 0x0fae: /* with a mandatory prefix there are RDFSBASE and its kind, of 64-bit code, which Unicorn knows */
        if (!in->form && in->rm == NONE && (in->reg < 2 || in->reg == 7))
            return (denied & (in->reg == 7 ? EXTENSION_CLFLUSH : EXTENSION_FXSR)) != 0;
        return in->form && !(in->form == 2 && in->rm != NONE && in->reg < 4);
    case 0x0f50: case 0x0fc5: case 0x0fd7: case 0x0ff7: /* MOVMSKPS, PEXTRW, PMOVMSKB, MASKMOVQ: of registers alone */
        return in->rm == NONE;
    case 0x0fd6: /* MOVDQ2Q and MOVQ2DQ too */
        return in->form > 1 && in->rm == NONE;
    case 0x0f71: case 0x0f72: case 0x0f73: /* shifts by an immediate, of registers (vol. 2D, table A-6, groups 12 to 14) */
        return in->rm == NONE || !shifts(in);
    case 0x8f: case 0xc6: case 0xc7: /* of groups 1A and 11 there is POP, and MOV (vol. 2D, table A-6; RTM is no model's) */
        return in->reg != 0;
    default:
        return 0;
    }
}

/* True when an operand of 16 bytes behind 66 0F 38 or 66 0F 3A has to be aligned; those that extend smaller operands,
 * PCMPxSTRx, MOVBE and ADCX have none such. */
static int is_whole(uint32_t opcode)
{
    switch (opcode) {
    case 0x3800 ... 0x3817: case 0x381c ... 0x381e: case 0x3828 ... 0x382b: case 0x3837 ... 0x3841: case 0x38db ... 0x38df:
    case 0x3a08: case 0x3a09: case 0x3a0c ... 0x3a0f: case 0x3a40 ... 0x3a44: case 0x3adf:
        return 1;
    default:
        return 0;
    }
}

/* The first reference is the operand of a legacy SSE instruction that raises #GP(0) when it does not lie at a multiple of
 * 16: every one of 16 bytes but MOVUPS, MOVUPD, MOVDQU, LDDQU and MASKMOVDQU. What the model lacks is #UD. FXSAVE,
 * FXRSTOR and CMPXCHG16B are Unicorn's to check, and it does. */
int wants_alignment(const struct instruction *in, uint32_t denied)
{
    uint32_t extension = in->extension & (EXTENSION_SSE | EXTENSION_SSE2 | EXTENSION_SSE3);

    if (in->rm != NONE || !in->count || in->references[0].size != 16)
        return 0;
    if (in->opcode > 0x0fff)
        extension = in->form == 1 && is_whole(in->opcode) ? extension_behind(in) : 0;
    switch (in->opcode) {
    case 0x0f10: case 0x0f11: case 0x0ff0: case 0x0ff7:
        return 0;
    case 0x0f6f: case 0x0f7f:
        return in->form != 2 && extension;
    default:
        return extension && !(extension & denied);
    }
}

/* An instruction of MMX or SSE that CR0.EM makes #UD, and CR0.TS #NM, before its operand is looked at. */
int is_vector(const struct instruction *in)
{
    switch (in->opcode) {
    case 0x0f2b: /* MOVNTPS is, of SSE4A there is none */
    case 0x0f10 ... 0x0f17: case 0x0f28 ... 0x0f2a: case 0x0f2c ... 0x0f2f: case 0x0f50 ... 0x0f77: case 0x0f7c ... 0x0f7f:
    case 0x0fc2: case 0x0fc4 ... 0x0fc6: case 0x0fd0 ... 0x0ffe:
    case 0x3800 ... 0x3841: case 0x38db ... 0x38df: case 0x3a08 ... 0x3a63: case 0x3adf:
        return 1;
    default:
        return 0;
    }
}

/* One of MMX registers, with the operand that it has: it waits for an exception of the x87, and makes its registers those
 * of MMX, before anything else (vol. 1, 9.5.1 and 9.6.3; vol. 3A, 12.3). */
int is_mmx(const struct instruction *in)
{
    switch (in->opcode) {
    case 0x0f2a: /* CVTPI2PS; CVTPI2PD of memory is none (vol. 2A) */
        return !in->form || (in->form == 1 && in->rm != NONE);
    case 0x0f2c: case 0x0f2d: /* CVTTPS2PI and CVTPS2PI, and of two */
        return in->form < 2;
    case 0x0f60 ... 0x0f6b: case 0x0f6e ... 0x0f77: case 0x0f7e: case 0x0f7f: case 0x0fc4: case 0x0fc5: case 0x0fd1 ... 0x0fd5:
    case 0x0fd7 ... 0x0fe5: case 0x0fe7 ... 0x0fef: case 0x0ff1 ... 0x0ffe:
        return !in->form;
    default:
        return enters_mmx(in);
    }
}

/* Of these Unicorn does not say so to the x87. */
int enters_mmx(const struct instruction *in)
{
    return !in->form && in->opcode > 0x0fff && extension_behind(in) == EXTENSION_SSSE3;
}

/* One that waits for an exception of the x87 before its operand is looked at (vol. 1, 8.6). */
int waits_for_x87(const struct instruction *in)
{
    if (!is_x87(in) || in->rm != NONE)
        return is_mmx(in);
    return !((in->opcode == 0xd9 || in->opcode == 0xdd) && in->reg > 5); /* FNSTENV, FNSTCW, FNSAVE, FNSTSW */
}

/* A store of the x87 whose flags are in its status word before its operand is written (x87_memory.c). */
int stores_behind_flags(const struct instruction *in)
{
    if (!is_x87(in) || !(in->opcode & 1) || in->rm != NONE)
        return 0;
    return (in->reg >= (in->opcode == 0xd9 ? 2 : 1) && in->reg <= 3) || (in->opcode == 0xdf && in->reg == 7);
}

/* One that CR0.EM makes #UD, whatever TS is (vol. 3A, table 12-1, and 13.1.3; vol. 2, each instruction's exceptions). */
int wants_no_emulation(const struct instruction *in)
{
    switch (in->opcode) {
    case 0x0fc3: /* MOVNTI */
        return 0;
    case 0x0fae: /* LDMXCSR, STMXCSR */
        return in->rm == NONE && (in->reg == 2 || in->reg == 3);
    default:
        return is_vector(in);
    }
}

/* One that is sure to write no general register and no segment register. */
int keeps_registers(const struct instruction *in)
{
    switch (in->opcode) {
    case 0x0f10 ... 0x0f17: case 0x0f28 ... 0x0f2b: case 0x0f2e: case 0x0f2f: case 0x0f51 ... 0x0f76: case 0x0f7c:
    case 0x0f7d: case 0x0f7f: case 0x0fc2: case 0x0fc6: case 0x0fd0 ... 0x0fd6: case 0x0fd8 ... 0x0ffe:
    case 0x3800 ... 0x3841: case 0x38db ... 0x38df: case 0x3a08 ... 0x3a0f: case 0x3a40 ... 0x3a44: case 0x3adf:
        return 1;
    default:
        return 0;
    }
}

int is_x87(const struct instruction *in)
{
    return in->opcode >= 0xd8 && in->opcode <= 0xdf;
}

int is_fcmov(const struct instruction *in)
{
    return (in->opcode == 0xda || in->opcode == 0xdb) && in->rm != NONE && in->reg < 4;
}

/* Of NEG with LOCK Unicorn makes the flags of the operand, not of the result. On one CPU the prefix changes nothing. */
int loses_flags_locked(const struct instruction *in)
{
    return in->lock && (in->opcode == 0xf6 || in->opcode == 0xf7) && in->reg == 3;
}

/* RET with an operand above 7FFFh, which Unicorn takes for a negative one (SDM vol. 2B, RET: "unsigned"): what it adds to
 * the stack pointer, which is 0 as well where that is as much as it pops; 0 for others. Far ones of protected mode are in
 * tasks.c. */
int64_t drops_too_little(const struct instruction *in)
{
    if ((in->opcode != 0xc2 && in->opcode != 0xca) || !(in->immediate & 0x8000))
        return 0;
    return (int16_t)in->immediate + (in->opcode == 0xc2 ? 1 : 2) * (in->opcode == 0xc2 ? in->stack_size : in->operand_size);
}

/* A near branch, by its opcode and ModRM.reg. Of 64-bit code its operand has 64 bits. */
int is_near_branch(uint32_t opcode, uint32_t reg)
{
    switch (opcode) {
    case 0x70 ... 0x7f: case 0xc2: case 0xc3: case 0xe0 ... 0xe3: case 0xe8: case 0xe9: case 0xeb: case 0x0f80 ... 0x0f8f:
        return 1;
    default:
        return opcode == 0xff && (reg == 2 || reg == 4);
    }
}
