/* What Unicorn's translator is shown of the code that it reads, where it takes the bytes themselves for something else. */
#include "checks.h"

/* Which byte of an instruction is at e->shown_at. */
enum { PREFIX, SECOND, GROUP_3, COMPARISON, COMPARISON_SIB, PREDICATE };

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

/* ---- Mandatory prefixes */

/* Of the opcodes behind 0Fh those whose form 66, F3 and F2 choose (SDM vol. 2D, tables ); of the map behind 38
 * not CRC32 and MOVBE, to which 66 is the operand size. */
static int chooses_form(uint32_t second, uint32_t third)
{
    switch (second) {
    case 0x10 ... 0x17: case 0x28 ... 0x2f: case 0x3a: case 0x50 ... 0x79: case 0x7c ... 0x7f: case 0xc2: case 0xc4 ... 0xc6:
    case 0xd0 ... 0xfe:
        return 1;
    case 0x38:
        return third != 0xf0 && third != 0xf1;
    default:
        return 0;
    }
}

/* F2 and F3 come before 66, wherever they stand, and the last of them counts (SDM vol. 2A, 2.1.1 and 2.1.2; vol. 2D, A.2.1;
 * AMD64 APM vol. 3, 1.2.1). Unicorn prefers 66, then F3. So it is shown the one that counts for each of them. All that is
 * read here is read of the instruction in any case. */
static void find_mandatory(engine *e, uint64_t from)
{
    uint32_t byte, second, third, before = 0;
    uint8_t last = 0;
    int i = 0, most = LONGEST - (int)(from - e->begun_at);

    for (byte = 0; i < most; i++) {
        byte = real_cpu_ldub_code(e->env, from + (uint64_t)i);
        if (!is_prefix(e, byte))
            break;
        if (byte == 0xf2 || byte == 0xf3)
            last = (uint8_t)byte;
        before = byte;
    }
    e->for_66 = 0x66;
    e->for_repeat = last;
    if (!last || byte != 0x0f || i + 1 >= most)
        return;
    second = real_cpu_ldub_code(e->env, from + (uint64_t)i + 1);
    third = second == 0x38 && i + 2 < most ? real_cpu_ldub_code(e->env, from + (uint64_t)i + 2) : 0;
    /* and POPCNT, which Unicorn has go by 66 though REX.W comes before it (SDM vol. 2A, 2.2.1.2) */
    if (chooses_form(second, third) || (second == 0xb8 && e->making->flags & HF_CS64 && (before & 0xf8) == 0x48))
        e->for_66 = last;
}

static uint32_t shown_repeat(engine *e, uint64_t linear, uint32_t value)
{
    switch (value) {
    case 0x66: case 0xf2: case 0xf3:
        if (!e->for_66)
            find_mandatory(e, linear);
        return value == 0x66 ? e->for_66 : e->for_repeat;
    default:
        return value;
    }
}

/* ---- Bytes behind the opcode */

/* TEST has two encodings, F6h and F7h with 0 and with 1 in ModRM.reg (AMD64 APM vol. 3, table A-6, group 3). Unicorn knows
 * the first, so it is shown that for the second. */
static uint32_t with_one_test(uint32_t modrm)
{
    return (modrm >> 3 & 7) == 1 ? modrm & ~(1u << 3) : modrm;
}

/* 0F 0D and 0F 18 are NOPs where ModRM, which is read of them in any case, names a register (SDM vol. 2D, table A-6,
 * groups P and 16). Unicorn has that as 0F 1F alone. */
static uint32_t with_one_nop(const engine *e, uint64_t linear, uint32_t second)
{
    return real_cpu_ldub_code(e->env, linear + 1) >= 0xc0 ? 0x1f : second;
}

/* The predicate of CMPPS, CMPPD, CMPSS and CMPSD is in bits 2 to 0 of the immediate, the rest of which is reserved (SDM
 * vol. 2A, CMPPS). Unicorn takes a larger one for #UD. It is behind ModRM, SIB and the displacement (vol. 2A, 2.1.5). */
static void find_predicate(engine *e, uint64_t linear, uint32_t modrm)
{
    uint32_t mod = modrm >> 6, rm = modrm & 7, displacement = mod == 1 ? 1 : e->short_addresses ? 2 : 4;

    e->shown = PREDICATE;
    e->shown_at = linear + 1;
    if (mod == 3)
        return;
    if (!e->short_addresses && rm == SP) {
        e->shown = mod ? PREDICATE : COMPARISON_SIB;
        e->shown_at += mod ? 1 + displacement : 0;
    } else if (mod || rm == (e->short_addresses ? 6 : 5)) { /* without a base */
        e->shown_at += displacement;
    }
}

/* What is shown for `value`, which is at e->shown_at. */
static uint32_t shown_byte(engine *e, uint64_t linear, uint32_t value)
{
    e->shown_at = linear + 1;
    switch (e->shown) {
    case PREFIX:
        if (is_prefix(e, value)) {
            if (value == 0x67)
                e->short_addresses = (e->making->flags & (HF_CS32 | HF_CS64)) == HF_CS32;
            return shown_repeat(e, linear, value);
        }
        e->shown = value == 0x0f ? SECOND : GROUP_3;
        if (value != 0x0f && value != 0xf6 && value != 0xf7)
            e->shown_at = EMPTY;
        return value;
    case SECOND:
        e->shown = COMPARISON;
        if (value != 0xc2)
            e->shown_at = EMPTY;
        return value == 0x0d || value == 0x18 ? with_one_nop(e, linear, value) : value;
    case COMPARISON:
        find_predicate(e, linear, value);
        return value;
    case COMPARISON_SIB: /* without a displacement but where there is no base */
        e->shown = PREDICATE;
        e->shown_at += (value & 7) == BP ? 4 : 0;
        return value;
    case PREDICATE:
        e->shown_at = EMPTY;
        return value & 7;
    default:
        e->shown_at = EMPTY;
        return with_one_test(value);
    }
}

/* An instruction of the block that is being translated begins at linear `pc`. */
void show_begin(engine *e, uint64_t pc)
{
    e->shown_at = pc;
    e->shown = PREFIX;
    e->short_addresses = !(e->making->flags & (HF_CS32 | HF_CS64));
    e->for_66 = 0;
}

/* The translator reads code by this. */
REPLACES uint32_t cpu_ldub_code_x86_64(void *env, uint64_t linear)
{
    engine *e = translating;
    uint32_t value;

    if (e && unlikely(e->nothing) && !((linear ^ e->making->pc) & ~(PAGE - 1)))
        return FLOATING;
    value = real_cpu_ldub_code(env, linear);
    if (!e)
        return value;
    if (linear == e->prefix)
        value = shown_prefix(e, linear, value);
    if (linear == e->unlocking)
        value = without_lock(e, value);
    if (linear == e->shown_at)
        value = shown_byte(e, linear, value);
    return value;
}
