/* POPCNT, MOVBE and CRC32 of 16-bit code, whose operands Unicorn takes to have 32 bits without a prefix 66 and 16 with it
 * (SDM vol. 1, 3.6: it is the other way round). They are executed here, alone in their block (vol. 2A, CRC32; vol. 2B,
 * MOVBE, POPCNT). */
#include "checks.h"
#include "segments.h"

#define CC_OP_EFLAGS 1u
#define CASTAGNOLI 0x82f63b78u /* the polynomial 11EDC6F41h, its bits reversed */

int is_narrow(const struct instruction *in)
{
    switch (in->opcode) {
    case 0x0fb8: case 0x38f1:
        return 1;
    case 0x38f0: /* CRC32 of a byte is right */
        return !in->repeat;
    default:
        return 0;
    }
}

static uint32_t of_size(uint32_t value, uint32_t size)
{
    return size == 2 ? value & 0xffff : value;
}

static void put_register(void *env, uint32_t number, uint32_t size, uint32_t value)
{
    uint64_t *reg = registers(env) + number;

    *reg = size == 2 ? (*reg & ~0xffffull) | value : value;
}

static uint32_t swapped(uint32_t value, uint32_t size)
{
    return size == 2 ? (value >> 8 | value << 8) & 0xffff : __builtin_bswap32(value);
}

static uint32_t crc32(uint32_t sum, uint32_t value, uint32_t size)
{
    sum ^= value;
    for (uint32_t i = 0; i < 8 * size; i++)
        sum = sum >> 1 ^ (sum & 1 ? CASTAGNOLI : 0);
    return sum;
}

/* What the instruction does, and the end of it. `ref`: its operand, NULL for the register `n->rm`. */
void execute_narrow(engine *e, const struct narrow *n, const struct reference *ref, uint64_t host)
{
    void *env = e->env;
    const uint64_t *regs = registers(env);
    int stores = n->opcode == 0x38f1 && !n->sums;
    uint64_t linear = 0;
    uint32_t value, flags = 0;

    be_alone(e, host);
    if (ref)
        linear = (uint32_t)(segment_of(env, ref->segment)->base + effective(env, ref));
    if (stores)
        value = swapped(of_size((uint32_t)regs[n->reg], n->size), n->size);
    else if (!ref)
        value = of_size((uint32_t)regs[n->rm], n->size);
    else
        value = n->size == 2 ? real_cpu_lduw_data_ra(env, linear, host) : real_cpu_ldl_data_ra(env, linear, host);
    if (stores && n->size == 2)
        real_cpu_stw_data_ra(env, linear, value, host);
    else if (stores)
        real_cpu_stl_data_ra(env, linear, value, host);
    real_cpu_restore_state(e->cpu, host, 1);
    if (n->opcode == 0x0fb8) {
        flags = value ? 0 : EFLAGS_ZF;
        put_register(env, n->reg, n->size, (uint32_t)__builtin_popcount(value));
        AT(uint32_t, env, at.env_cc_op) = CC_OP_EFLAGS;
        AT(uint64_t, env, at.env_cc_src) = flags;
    } else if (n->sums) {
        put_register(env, n->reg, 4, crc32((uint32_t)regs[n->reg], value, n->size));
    } else if (!stores) {
        put_register(env, n->reg, n->size, swapped(value, n->size));
    }
    end_block(e);
}
