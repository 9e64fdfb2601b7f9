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

/* Which forms an opcode has, a bit each: without a mandatory prefix, with 66, F3, F2 (vol. 2D, tables ). */
enum { NO_PREFIX = 1, BY_66 = 2, BY_F3 = 4, BY_F2 = 8, ANY_PREFIX = 15 };

static uint32_t forms_of(uint32_t opcode)
{
    switch (opcode) {
    case 0x0f13 ... 0x0f15: case 0x0f17: case 0x0f28: case 0x0f29: case 0x0f2b: case 0x0f2e: case 0x0f2f: case 0x0f50:
    case 0x0f54 ... 0x0f57: case 0x0f60 ... 0x0f6b: case 0x0f6e: case 0x0f71 ... 0x0f76: case 0x0fc4 ... 0x0fc6:
    case 0x0fd1 ... 0x0fd5: case 0x0fd7 ... 0x0fe5: case 0x0fe7 ... 0x0fef: case 0x0ff1 ... 0x0ffe:
        return NO_PREFIX | BY_66;
    case 0x0f16: case 0x0f5b: case 0x0f6f: case 0x0f7e: case 0x0f7f:
        return NO_PREFIX | BY_66 | BY_F3;
    case 0x0f52: case 0x0f53:
        return NO_PREFIX | BY_F3;
    case 0x0f6c: case 0x0f6d:
        return BY_66;
    case 0x0f7c: case 0x0f7d: case 0x0fd0:
        return BY_66 | BY_F2;
    case 0x0fc3:
        return NO_PREFIX;
    case 0x0fd6: case 0x0fe6:
        return BY_66 | BY_F3 | BY_F2;
    case 0x0ff0:
        return BY_F2;
    default:
        return ANY_PREFIX;
    }
}

/* `denied`: the extensions that the CPU model lacks. */
int is_undefined(const struct instruction *in, uint32_t denied)
{
    if (in->lock && !is_lockable(in))
        return 1;
    if (in->unknown)
        return (in->extension & denied) != 0;
    if (in->extension & denied || !(forms_of(in->opcode) >> in->form & 1))
        return 1;
    switch (in->opcode) {
    case 0x8c: /* MOV of a segment register that there is not */
        return in->reg > 5;
    case 0x8e: /* the same, and CS */
        return in->reg > 5 || in->reg == 1;
    case 0x0f0f: /* 3DNow!, which no model has; Unicorn would make the registers those of MMX first */
        return 1;
    case 0x0f50: case 0x0fc5: case 0x0fd7: case 0x0ff7: /* MOVMSKPS, PEXTRW, PMOVMSKB, MASKMOVQ: of registers alone */
        return in->rm == NONE;
    case 0x0fd6: /* MOVDQ2Q and MOVQ2DQ too */
        return in->form > 1 && in->rm == NONE;
    case 0x0fc3: /* MOVNTI: to memory alone */
        return in->rm != NONE;
    case 0x0f71: case 0x0f72: case 0x0f73: /* shifts by an immediate, of registers (vol. 2D, table A-6, groups 12 to 14) */
        return in->rm == NONE || !shifts(in);
    case 0x8f: case 0xc6: case 0xc7: /* of groups 1A and 11 there is POP, and MOV (vol. 2D, table A-6; RTM is no model's) */
        return in->reg != 0;
    default:
        return 0;
    }
}

/* The extension of an instruction behind 66 0F 38 or 66 0F 3A whose operand of 16 bytes has to be aligned, 0 for others:
 * those that extend smaller operands, PCMPxSTRx, MOVBE, ADCX. */
static uint32_t aligned_behind_66(uint32_t opcode)
{
    switch (opcode) {
    case 0x3800 ... 0x380b: case 0x381c ... 0x381e: case 0x3a0f:
        return EXTENSION_SSSE3;
    case 0x3810: case 0x3814: case 0x3815: case 0x3817: case 0x3828 ... 0x382b: case 0x3838 ... 0x3841:
    case 0x3a08: case 0x3a09: case 0x3a0c ... 0x3a0e: case 0x3a40 ... 0x3a42:
        return EXTENSION_SSE41;
    case 0x3837:
        return EXTENSION_SSE42;
    case 0x38db ... 0x38df: case 0x3adf:
        return EXTENSION_AES;
    case 0x3a44:
        return EXTENSION_PCLMULQDQ;
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
        extension = in->form == 1 ? aligned_behind_66(in->opcode) : 0;
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
