/* VEX where Unicorn's translator does not know it, or has it wrong. It does not in 16-bit code of protected mode: C4h with a
 * ModRM that LES does not have. Of what has VEX there are BMI1 and BMI2 here; the rest is #UD (SDM vol. 2A, 2.3; the
 * operation of each instruction), as all of it is in real and V86 mode (2.3.1). In all modes Unicorn has CF of BLSI the wrong
 * way round, and BZHI and BEXTR of as many bits as the operand has lose the highest (QEMU 5.0.1, target/i386/translate.c).
 * These are executed here, alone in their block. */
#include "record.h"

#define CC_OP_EFLAGS 1u
enum { NO_PREFIX, P66, PF3, PF2 };

/* `in` is one of them: C4h of 16-bit code, with nothing before it but prefixes of segments and of the address size; BLSI,
 * BZHI or BEXTR. */
int is_vex_apart(const struct instruction *in, uint32_t flags)
{
    if (in->form == VEX + NO_PREFIX && (in->opcode == 0x38f5 || in->opcode == 0x38f7))
        return 1;
    if (in->form >= VEX && in->opcode == 0x38f3)
        return in->reg == 3;
    return in->opcode == 0xc4 && in->rm != NONE && !(flags & (HF_CS32 | HF_CS64 | HF_VM)) && flags & HF_PE && !in->lock &&
           !in->form;
}

struct vex {
    uint8_t opcode, prefix, immediate, length;
    uint8_t reg, group, other; /* ModRM.reg as a register and as a part of the opcode; VEX.vvvv */
    uint8_t rm, two;           /* NONE: memory; it is of BMI2 */
    uint8_t wide, narrow, relative; /* of 64-bit code: VEX.W, prefix 67, RIP is added */
    struct reference operand;
};

static int is_known(const struct vex *v, uint32_t map, uint32_t vvvv)
{
    if (map == 3)
        return v->opcode == 0xf0 && v->prefix == PF2 && vvvv == 15; /* RORX */
    if (map != 2)
        return 0;
    switch (v->opcode) {
    case 0xf2: /* ANDN */
        return v->prefix == NO_PREFIX;
    case 0xf3: /* BLSR, BLSMSK, BLSI */
        return v->prefix == NO_PREFIX && v->group >= 1 && v->group <= 3;
    case 0xf5: /* BZHI, PEXT, PDEP */
        return v->prefix != P66;
    case 0xf6: /* MULX */
        return v->prefix == PF2;
    case 0xf7: /* BEXTR; SHLX, SARX, SHRX */
        return 1;
    default:
        return 0;
    }
}

/* Returns 1 when the instruction ends within `length` bytes, 0 when it does not, -1 when there is none such. */
static int parse(const uint8_t *code, int length, const struct record *r, struct vex *v)
{
    static __thread struct instruction load;
    uint32_t extended; /* VEX.R, X and B, which 64-bit code alone has */
    uint8_t other[LONGEST + 1];
    int at = 0, count;

    while (at < length && code[at] != 0xc4)
        at++;
    if (length < at + 5)
        return 0;
    v->opcode = code[at + 3];
    v->prefix = code[at + 2] & 3;
    extended = r->bits == 64 ? ~(uint32_t)code[at + 1] >> 5 & 7 : 0;
    v->wide = r->bits == 64 && code[at + 2] >> 7;
    v->other = ~(code[at + 2] >> 3) & (r->bits == 64 ? 15 : 7);
    v->group = code[at + 4] >> 3 & 7;
    v->reg = (uint8_t)(v->group | (extended & 4) << 1);
    v->two = v->opcode == 0xf0 || v->opcode == 0xf5 || v->opcode == 0xf6 || (v->opcode == 0xf7 && v->prefix != NO_PREFIX);
    if (code[at + 2] & 4 || !is_known(v, code[at + 1] & 31, code[at + 2] >> 3 & 15) ||
        r->engine->denied & (v->two ? EXTENSION_BMI2 : EXTENSION_BMI1))
        return -1;
    /* Its operand is that of a MOV of 32 bits with the same prefixes and ModRM. */
    for (count = 0; count < at; count++)
        other[count] = code[count];
    if (r->bits == 16)
        other[count++] = 0x66;
    if (r->bits == 64)
        other[count++] = (uint8_t)(0x40 | v->wide << 3 | extended);
    other[count++] = 0x8b;
    for (int i = at + 4; i < length && count < (int)sizeof other; i++)
        other[count++] = code[i];
    if (!decode(other, count, r->bits, r->stack_bits, &load))
        return 0;
    v->rm = load.rm == NONE ? NONE : (uint8_t)(load.rm | (extended & 1) << 3);
    v->operand = load.references[0];
    v->narrow = load.narrow;
    v->relative = load.relative;
    v->length = (uint8_t)(load.length + (r->bits == 32 ? 3 : 2));
    if (v->opcode == 0xf0) {
        if (v->length >= length)
            return 0;
        v->immediate = code[v->length++];
    }
    return 1;
}

static uint32_t extract(uint32_t value, uint32_t mask)
{
    uint32_t result = 0;

    for (int to = 0; mask; mask &= mask - 1)
        result |= (value >> __builtin_ctz(mask) & 1) << to++;
    return result;
}

static uint32_t deposit(uint32_t value, uint32_t mask)
{
    uint32_t result = 0;

    for (; mask; mask &= mask - 1, value >>= 1)
        result |= (value & 1) << __builtin_ctz(mask);
    return result;
}

static uint64_t low_bits(uint64_t value, uint32_t count)
{
    return count > 63 ? value : value & ((1ull << count) - 1);
}

/* What is written to the register `*to`, and the carry flag; -1: the flags stay. Those that are executed here in 64-bit code
 * too know both sizes. */
static uint64_t operate(const struct vex *v, uint64_t *regs, uint64_t source, int *to, int *carry)
{
    uint32_t other = (uint32_t)regs[v->other], start = other & 0xff, low = (uint32_t)source, count = other & 31;

    *to = v->reg;
    *carry = -1;
    switch (v->opcode) {
    case 0xf0:
        count = v->immediate & 31;
        return count ? low >> count | low << (32 - count) : low;
    case 0xf2:
        *carry = 0;
        return ~other & low;
    case 0xf3:
        *to = v->other;
        *carry = v->group == 3 ? source != 0 : source == 0;
        source = v->group == 1 ? source & (source - 1) : v->group == 2 ? source ^ (source - 1) : source & -source;
        return v->wide ? source : (uint32_t)source;
    case 0xf5:
        if (v->prefix != NO_PREFIX)
            return v->prefix == PF3 ? extract(other, low) : deposit(other, low);
        *carry = start > (v->wide ? 63 : 31);
        return low_bits(source, start);
    case 0xf6: {
        uint64_t product = (uint64_t)(uint32_t)regs[DX] * low;

        regs[v->other] = (uint32_t)product;
        return product >> 32;
    }
    default:
        if (v->prefix == P66)
            return low << count;
        if (v->prefix == PF3)
            return (uint32_t)((int32_t)low >> count);
        if (v->prefix == PF2)
            return low >> count;
        *carry = 0;
        return start > 63 ? 0 : low_bits(source >> start, other >> 8 & 0xff);
    }
}

/* The operand in memory. Raises what is wrong with it. */
static uint64_t load_operand(const struct record *r, const struct vex *v, uint64_t host)
{
    const engine *e = r->engine;
    struct addressing where = {v->relative ? r->pc + v->length : 0, r->bits, v->narrow};
    uint64_t linear = linear_address(e->env, &v->operand, where);
    int vector = e->checked && r->bits != 64 ? violation(e, &v->operand) : 0;

    if (!vector && e->checked && alignment_checked(e->env) && linear & (v->wide ? 7 : 3))
        vector = EXCP_AC;
    if (vector)
        real_raise_exception_err_ra(e->env, vector, 0, host);
    return v->wide ? real_cpu_ldq_data_ra(e->env, linear, host) : real_cpu_ldl_data_ra(e->env, linear, host);
}

/* Do the instruction of `r`, or raise its exception, and leave the block. */
void execute_vex(const struct record *r, uint64_t host)
{
    engine *e = r->engine;
    void *env = e->env;
    uint64_t *regs = registers(env), source, result, next;
    uint8_t bytes[LONGEST];
    int length = 0, found = 0, to, carry;
    struct vex v;

    be_alone(e, host);
    while (!found && length < LONGEST) {
        bytes[length] = byte_behind(e, r, length, host);
        length++;
        found = parse(bytes, length, r, &v);
    }
    if (found <= 0)
        real_raise_exception_err_ra(env, found ? EXCP_UD : EXCP_GP, 0, host); /* #GP: longer than 15 bytes */
    source = v.rm == NONE ? load_operand(r, &v, host) : v.wide ? regs[v.rm] : (uint32_t)regs[v.rm];
    real_cpu_restore_state(e->cpu, host, 1);
    next = *e->eip + v.length;
    result = operate(&v, regs, source, &to, &carry);
    regs[to] = result;
    if (carry >= 0) { /* AF and PF are undefined */
        AT(uint32_t, env, at.env_cc_op) = CC_OP_EFLAGS;
        AT(uint64_t, env, at.env_cc_src) = (carry ? EFLAGS_CF : 0) | (result ? 0 : EFLAGS_ZF) | (result >> (v.wide ? 63 : 31) ? EFLAGS_SF : 0);
    }
    end_block_at(e, next);
}
