/* What Unicorn's translator is shown of the code that it reads, where it takes the bytes themselves for something else. */
#include "fast.h"

static int is_prefix(const engine *e, uint32_t byte)
{
    switch (byte) {
    case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: case 0x66: case 0x67: case 0xf0: case 0xf2: case 0xf3:
        return 1;
    default:
        return e->making->flags & HF_CS64 && (byte & 0xf0) == 0x40;
    }
}

/* Of an instruction that is refused, or not known yet, a LOCK prefix is shown as a harmless one (DS): what Unicorn makes of
 * LOCK BTS with a register is no code at all, and ends the process. On one CPU the prefix changes nothing of those that
 * may have it. */
static uint32_t without_lock(engine *e, uint32_t value)
{
    if (!is_prefix(e, value)) {
        e->unlocking = EMPTY;
        return value;
    }
    e->unlocking++;
    return value == 0xf0 ? 0x3e : value;
}

/* Of F2 and F3 the last counts (SDM vol. 2A, 2.1.1 leaves it open; CPUs and Bochs 2.7 do so), where Unicorn takes F2 of
 * both: it is shown the last one for each. What is behind a prefix has to be fetched anyway. */
static uint32_t last_repeat(const engine *e, void *env, uint64_t linear, uint32_t value)
{
    for (int i = 1; i < 15; i++) {
        uint32_t next = real_cpu_ldub_code(env, linear + (uint64_t)i);

        if (!is_prefix(e, next))
            break;
        if (next == 0xf2 || next == 0xf3)
            value = next;
    }
    return value;
}

/* TEST has two encodings, F6h and F7h with 0 and with 1 in ModRM.reg (AMD64 APM vol. 3, table A-6, group 3). Unicorn knows
 * the first, so it is shown that for the second. 0F 0D and 0F 18 are NOPs where ModRM names a register (SDM vol. 2D, table
 * A-6, groups P and 16), which Unicorn has as 0F 1F alone. */
static uint32_t with_one_encoding(engine *e, void *env, uint64_t linear, uint32_t value)
{
    int behind_0f = e->behind_0f;

    if (linear == e->group_at) {
        e->group_at = EMPTY;
        return (value >> 3 & 7) == 1 ? value & ~(1u << 3) : value;
    }
    if (!behind_0f && (is_prefix(e, value) || value == 0x0f)) {
        e->opcode_at++;
        e->behind_0f = value == 0x0f;
        return value == 0xf2 || value == 0xf3 ? last_repeat(e, env, linear, value) : value;
    }
    e->opcode_at = EMPTY;
    e->behind_0f = 0;
    if (behind_0f)
        return (value == 0x0d || value == 0x18) && real_cpu_ldub_code(env, linear + 1) >= 0xc0 ? 0x1f : value;
    if (value == 0xf6 || value == 0xf7)
        e->group_at = linear + 1;
    return value;
}

/* The translator reads code by this. */
REPLACES uint32_t cpu_ldub_code_x86_64(void *env, uint64_t linear)
{
    engine *e = translating;
    uint32_t value = real_cpu_ldub_code(env, linear);

    if (!e)
        return value;
    if (linear == e->prefix)
        value = shown_prefix(e, linear, value);
    if (linear == e->unlocking)
        value = without_lock(e, value);
    if (linear == e->opcode_at || linear == e->group_at)
        value = with_one_encoding(e, env, linear, value);
    return value;
}
