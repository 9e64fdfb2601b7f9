/* Alignment checks: ring 3 with CR0.AM and EFLAGS.AC, V86 mode with it (SDM vol. 3A, 6.15, "Interrupt 17", with its table of
 * data types). What is aligned to 16 bytes by definition is #GP, and checked elsewhere; of what may lie anywhere by
 * definition (MOVUPS, MOVDQU, LDDQU, PCMPESTRI) nothing is asked, which that section leaves open. */
#include "record.h"

/* One less than what an operand of so many bytes is to lie at a multiple of; 0: anywhere. */
static uint8_t natural(uint32_t size)
{
    switch (size) {
    case 2: case 4: case 8:
        return (uint8_t)(size - 1);
    case 10: /* of the x87, and far pointers of 64-bit code */
        return 7;
    default:
        return 0;
    }
}

/* The same of the first reference: of pairs and pointers the parts count, of an image of the x87 its words. */
static struct alignment of_first(const struct instruction *in)
{
    uint32_t size = in->references[0].size;
    int memory = in->rm == NONE;

    switch (in->opcode) {
    case 0x62: /* BOUND */
        return (struct alignment){.mask = natural(size / 2)};
    case 0xff:
        if (in->reg != 3 && in->reg != 5)
            break;
        /* fall through */
    case 0xc4: case 0xc5: case 0x0fb2: case 0x0fb4: case 0x0fb5: /* LxS, far CALL and JMP */
        return (struct alignment){.mask = size == 4 ? 1 : size == 6 ? 3 : 7};
    case 0x0f01: /* SGDT and SIDT: a word, and behind it a doubleword or quadword (vol. 3A, 3.5.1) */
        if (memory && in->reg < 2)
            return (struct alignment){.mask = size == 10 ? 7 : 3, .offset = 2};
        break;
    case 0xd9: case 0xdd: /* FLDENV, FNSTENV, FRSTOR, FNSAVE */
        if (memory && (in->reg == 4 || in->reg == 6))
            return (struct alignment){.mask = in->operand_size == 2 ? 1 : 3};
        break;
    }
    return (struct alignment){.mask = natural(size)};
}

/* What #NM and #UD come before that records.c does not know of: SSE without CR4.OSFXSR, LDMXCSR and STMXCSR. */
static int refused(const struct instruction *in, uint32_t flags)
{
    switch (in->opcode) {
    case 0x0fae:
        return flags & (HF_EM | HF_TS) || !(flags & HF_OSFXSR);
    case 0x0f10 ... 0x0f17: case 0x0f28 ... 0x0f2f: case 0x0f51 ... 0x0f5f: case 0x0fc2: case 0x0fc6:
        return !(flags & HF_OSFXSR);
    default:
        return is_vector(in) && in->form && !(flags & HF_OSFXSR);
    }
}

/* What is to be asked of the references of `in` in code translated for `flags`, CR0.AM being set. */
struct alignment alignment_of(const struct instruction *in, uint32_t flags)
{
    struct alignment a = {0, 0, 0};

    if ((flags & HF_CPL) != 3 || !(flags & EFLAGS_AC) || !in->count || refused(in, flags))
        return a;
    a = of_first(in);
    a.asked = a.mask != 0;
    for (int i = 1; i < in->count; i++)
        a.asked |= natural(in->references[i].size) != 0;
    return a;
}

/* True when an operand of the instruction of `r` does not lie where it is to. */
int misaligned(const struct record *r)
{
    const engine *e = r->engine;

    for (int i = 0; i < r->count; i++) {
        const struct reference *ref = &r->references[i];
        uint64_t linear = linear_address(e->env, ref, r->addressing);
        uint32_t mask = i ? natural(ref->size) : r->alignment.mask;

        if (ref->kind & REPEATED && !(registers(e->env)[CX] & counter_mask(r)))
            continue;
        if (((linear + (i ? 0 : r->alignment.offset)) & mask) || (!i && r->alignment.offset && linear & 1))
            return 1;
    }
    return 0;
}

/* True when the CPU checks alignment now. */
int alignment_checked(void *env)
{
    return (AT(uint32_t, env, at.env_hflags) & HF_CPL) == 3 && AT(uint64_t, env, at.env_cr) & CR0_AM &&
           AT(uint64_t, env, at.env_eflags) & EFLAGS_AC;
}
