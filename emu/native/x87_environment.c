/* The x87's environment and whole state in memory: FNSTENV, FNSAVE, FLDENV and FRSTOR (SDM vol. 1, 8.1.10; vol. 2A).
 *
 * Unicorn stores the form of protected mode in each mode, without the opcode, and loads no pointers (QEMU 5.0.1,
 * target/i386/fpu_helper.c). */
#include "segments.h"
#include "x87.h"

#define REGISTERS 8
#define REGISTER 10 /* bytes of one */
#define RESERVED 0xffff0000u /* of the form of 32 bits, where CPUs store ones */
#define TOP_SHIFT 11
#define TOP 0x3800u
#define FOP 0x7ffu
enum { VALID, ZERO, SPECIAL, EMPTY_TAG };

/* Bytes of the environment and of the whole state, by whether they have the 32-bit form. All are touched first, as they
 * are accessed in parts. */
#define ENVIRONMENT(wide) ((wide) ? 28u : 14u)
#define STATE(wide) (ENVIRONMENT(wide) + REGISTERS * REGISTER)

/* In words or double-words, seven of them: control, status and tag word, and what the mode says of the pointers. */
#define PARTS 7
enum { CONTROL, STATUS, TAGS, INSTRUCTION, INSTRUCTION_MORE, OPERAND, OPERAND_MORE };

/* The tag of a register: what is in it (vol. 1, 8.1.7). */
static uint32_t tag_of(const uint8_t *bytes)
{
    uint64_t mantissa;
    uint16_t exponent;

    memcpy(&mantissa, bytes, sizeof mantissa);
    memcpy(&exponent, bytes + sizeof mantissa, sizeof exponent);
    exponent &= 0x7fff;
    if (!exponent && !mantissa)
        return ZERO;
    return !exponent || exponent == 0x7fff || !(mantissa >> 63) ? SPECIAL : VALID;
}

static uint32_t tag_word(void *env)
{
    uint32_t word = 0;

    for (int i = REGISTERS - 1; i >= 0; i--) {
        int empty = AT(uint8_t, env, at.env_fptags + i);

        word = word << 2 | (empty ? EMPTY_TAG : tag_of(&AT(uint8_t, env, at.env_fpregs + 16 * i)));
    }
    return word;
}

/* In real and V86 mode the pointers are linear addresses, of 20 bits in the form of 16, and the opcode is beside the
 * first. In protected mode they are offset and selector, and the form of 16 bits has no opcode. */
static void environment(void *env, int wide, uint32_t part[PARTS])
{
    uint32_t ip = (uint32_t)AT(uint64_t, env, at.env_fpip), cs = AT(uint16_t, env, at.env_fpcs);
    uint32_t dp = (uint32_t)AT(uint64_t, env, at.env_fpdp), ds = AT(uint16_t, env, at.env_fpds);
    uint32_t fop = AT(uint16_t, env, at.env_fpop) & FOP;

    part[CONTROL] = AT(uint16_t, env, at.env_fpuc) | RESERVED;
    part[STATUS] = (AT(uint16_t, env, at.env_fpus) & ~TOP) | AT(uint32_t, env, at.env_fpstt) << TOP_SHIFT | RESERVED;
    part[TAGS] = tag_word(env) | RESERVED;
    part[INSTRUCTION] = ip;
    part[INSTRUCTION_MORE] = wide ? fop << 16 | cs : cs;
    part[OPERAND] = dp;
    part[OPERAND_MORE] = ds | RESERVED;
    if (real_mode(env)) {
        ip += cs << 4;
        dp += ds << 4;
        part[INSTRUCTION] = (ip & 0xffff) | RESERVED;
        part[INSTRUCTION_MORE] = (ip & 0xffff0000) >> 4 | fop;
        part[OPERAND] = (dp & 0xffff) | RESERVED;
        part[OPERAND_MORE] = (dp & 0xffff0000) >> 4;
    }
}

/* The way back; of a linear address the offset is what it is from 0. */
static void load_pointers(void *env, int wide, const uint32_t part[PARTS])
{
    uint32_t ip = part[INSTRUCTION], cs = part[INSTRUCTION_MORE], dp = part[OPERAND], ds = part[OPERAND_MORE], fop = 0;

    if (real_mode(env)) {
        uint32_t high = wide ? 0x0ffff000u : 0xf000u;

        fop = cs;
        ip = (ip & 0xffff) | (cs & high) << 4;
        dp = (dp & 0xffff) | (ds & high) << 4;
        cs = ds = 0;
    } else if (wide) {
        fop = cs >> 16;
    }
    AT(uint64_t, env, at.env_fpip) = ip;
    AT(uint16_t, env, at.env_fpcs) = (uint16_t)cs;
    AT(uint64_t, env, at.env_fpdp) = dp;
    AT(uint16_t, env, at.env_fpds) = (uint16_t)ds;
    AT(uint16_t, env, at.env_fpop) = (uint16_t)(fop & FOP);
}

static void store_environment(void *env, uint64_t address, int wide, uint64_t host)
{
    uint32_t part[PARTS];

    environment(env, wide, part);
    for (unsigned i = 0; i < PARTS; i++)
        if (wide)
            real_cpu_stl_data_ra(env, address + 4 * i, part[i], host);
        else
            real_cpu_stw_data_ra(env, address + 2 * i, part[i], host);
}

static void load_environment(void *env, uint64_t address, int wide, uint64_t host)
{
    uint32_t part[PARTS];

    for (unsigned i = 0; i < PARTS; i++)
        part[i] = wide ? real_cpu_ldl_data_ra(env, address + 4 * i, host)
                       : real_cpu_lduw_data_ra(env, address + 2 * i, host);
    real_helper_fldcw(env, part[CONTROL] & 0xffff);
    AT(uint16_t, env, at.env_fpus) = (uint16_t)(part[STATUS] & ~TOP);
    AT(uint32_t, env, at.env_fpstt) = part[STATUS] >> TOP_SHIFT & 7;
    for (int i = 0; i < REGISTERS; i++)
        AT(uint8_t, env, at.env_fptags + i) = (part[TAGS] >> 2 * i & 3) == EMPTY_TAG;
    load_pointers(env, wide, part);
    keep_control(env);
}

/* FNSTENV masks everything behind what it stores. */
REPLACES void helper_fstenv_x86_64(void *env, uint64_t address, int wide)
{
    touch(env, address, ENVIRONMENT(wide), 1, HOST);
    prepare(env, HOST);
    store_environment(env, address, wide, HOST);
    prepared(env);
    AT(uint16_t, env, at.env_fpuc) |= X87_FLAGS;
    find_pending(env);
}

REPLACES void helper_fsave_x86_64(void *env, uint64_t address, int wide)
{
    uint64_t low, to = address + ENVIRONMENT(wide);
    uint16_t high;

    touch(env, address, STATE(wide), 1, HOST);
    prepare(env, HOST);
    store_environment(env, address, wide, HOST);
    for (int i = 0; i < REGISTERS; i++, to += REGISTER) {
        memcpy(&low, st(env, i), sizeof low);
        memcpy(&high, (const uint8_t *)st(env, i) + sizeof low, sizeof high);
        real_cpu_stq_data_ra(env, to, low, HOST);
        real_cpu_stw_data_ra(env, to + sizeof low, high, HOST);
    }
    prepared(env);
    initialize(env);
}

REPLACES void helper_fldenv_x86_64(void *env, uint64_t address, int wide)
{
    wait_for(env, HOST);
    touch(env, address, ENVIRONMENT(wide), 0, HOST);
    prepare(env, HOST);
    load_environment(env, address, wide, HOST);
    prepared(env);
    find_pending(env);
}

REPLACES void helper_frstor_x86_64(void *env, uint64_t address, int wide)
{
    uint64_t low, from = address + ENVIRONMENT(wide);
    uint16_t high;

    wait_for(env, HOST);
    touch(env, address, STATE(wide), 0, HOST);
    prepare(env, HOST);
    load_environment(env, address, wide, HOST);
    for (int i = 0; i < REGISTERS; i++, from += REGISTER) {
        low = real_cpu_ldq_data_ra(env, from, HOST);
        high = (uint16_t)real_cpu_lduw_data_ra(env, from + sizeof low, HOST);
        memcpy(st(env, i), &low, sizeof low);
        memcpy((uint8_t *)st(env, i) + sizeof low, &high, sizeof high);
    }
    prepared(env);
    find_pending(env);
}
