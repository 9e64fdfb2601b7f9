/* What comes before a violation of an operand's segment: an instruction that is undefined in its mode, or refused for
 * its privilege, never looks at its operand, and an IRET with NT reads no stack (SDM vol. 3A, table 6-2; vol. 2: the
 * operation of each). Unicorn raises what is to be raised; here is only asked whether it will. */
#include "checks.h"
#include "segments.h"

enum { FIRST_NOTHING, FIRST_RING0, FIRST_PROTECTED, FIRST_BOTH, FIRST_IOPL, FIRST_IRET };

/* What may come first of an instruction of 16- or 32-bit code. */
uint8_t precedence_of(const struct instruction *in)
{
    switch (in->opcode) {
    case 0x0f00: /* SLDT, STR, VERR, VERW; LLDT, LTR */
        return in->reg == 2 || in->reg == 3 ? FIRST_BOTH : FIRST_PROTECTED;
    case 0x0f01: /* LGDT, LIDT, LMSW, INVLPG */
        return in->reg == 2 || in->reg == 3 || in->reg > 5 ? FIRST_RING0 : FIRST_NOTHING;
    case 0x0f02: case 0x0f03: case 0x63: /* LAR, LSL, ARPL */
        return FIRST_PROTECTED;
    case 0x9c: case 0x9d: /* PUSHF, POPF */
        return FIRST_IOPL;
    case 0xcf:
        return FIRST_IRET;
    default:
        return FIRST_NOTHING;
    }
}

/* True when it does come first, by the CPU's state. With VME the 16-bit forms are not refused at once (vol. 3B, 20.3). */
int comes_first(void *env, uint8_t what, uint32_t operand_size)
{
    uint64_t eflags = AT(uint64_t, env, at.env_eflags);
    const uint64_t *cr = &AT(uint64_t, env, at.env_cr);
    int virtual = (eflags & EFLAGS_VM) != 0, protected = cr[0] & 1 && !virtual;
    int refused = virtual && (eflags & EFLAGS_IOPL) != EFLAGS_IOPL && !(cr[4] & CR4_VME && operand_size == 2);

    switch (what) {
    case FIRST_RING0:
        return (AT(uint32_t, env, at.env_hflags) & HF_CPL) != 0;
    case FIRST_PROTECTED:
        return !protected;
    case FIRST_BOTH:
        return !protected || AT(uint32_t, env, at.env_hflags) & HF_CPL;
    case FIRST_IOPL:
        return refused;
    case FIRST_IRET:
        return refused || (protected && eflags & EFLAGS_NT);
    default:
        return 0;
    }
}

/* A far CALL of protected mode, whose frame is asked about when its selector has been (tasks.c). */
int calls_far(const struct instruction *in, uint32_t flags)
{
    return (in->opcode == 0x9a || (in->opcode == 0xff && in->reg == 3)) && flags & HF_PE && !(flags & HF_VM);
}
