/* Segment prefixes of 64-bit code, where only FS and GS have a base: those of ES, CS, SS and DS are ignored, and do not
 * take back one of FS or GS (SDM vol. 1, 3.4.2.1; AMD64 APM vol. 3, 1.2.4). Unicorn's translator adds the base that the
 * register was left with, as before the branch to long mode, and takes the last prefix. Compilers emit these prefixes:
 * 3Eh is NOTRACK of a jump by a table. And REX, of which no bit counts that the instruction has no use for (SDM vol. 2A,
 * 2.2.1.2). */
#include "checks.h"
#include "tcg.h"

#define REX_R 4u

/* An instruction of the block that is being translated begins at linear `pc`. */
void prefixes_begin(engine *e, uint64_t pc, uint32_t flags)
{
    e->prefix = flags & HF_CS64 ? pc : EMPTY;
    e->override = 0;
}

/* A byte behind the prefix that is at `linear`. All that is asked for is read of the instruction in any case; 0 where it is so
 * long that it is not. */
static uint32_t behind(const engine *e, uint64_t linear, int number)
{
    if (linear + (uint64_t)number - e->begun_at >= LONGEST)
        return 0;
    return real_cpu_ldub_code(e->env, linear + (uint64_t)number);
}

/* SSSE3 of MMX registers, of which there are eight: REX.R is no part of their number. Unicorn takes it for one, and stores to
 * what lies behind its registers: the x87's last opcode and pointers, MXCSR, and what it rounds by. */
static int is_ssse3(const engine *e, uint64_t linear)
{
    uint32_t map = behind(e, linear, 2), third = map == 0x38 || map == 0x3a ? behind(e, linear, 3) : 0;

    if (e->for_66) /* 66, F2 or F3: of XMM registers, or none */
        return 0;
    return map == 0x38 ? third <= 0x0b || (third >= 0x1c && third <= 0x1e) : map == 0x3a && third == 0x0f;
}

/* What the translator is shown for REX at `linear`. */
static uint32_t shown_rex(const engine *e, uint64_t linear, uint32_t value)
{
    switch (behind(e, linear, 1)) {
    case 0x9e: case 0x9f: /* SAHF and LAHF: AH, which Unicorn takes for SPL, as it is where an operand names it */
        return e->override ? e->override : 0x3e;
    case 0xc6: case 0xc7: /* MOV, whose ModRM.reg is to be 0 */
        return value & ~REX_R;
    case 0x0f:
        return value & REX_R && is_ssse3(e, linear) ? value & ~REX_R : value;
    default:
        return value;
    }
}

static int is_prefix(uint32_t byte)
{
    return byte == 0x66 || byte == 0x67 || byte == 0xf0 || byte == 0xf2 || byte == 0xf3 || (byte & 0xe7) == 0x26 ||
           byte == 0x64 || byte == 0x65 || (byte & 0xf0) == 0x40;
}

/* The instruction with prefix 66 at `linear` is a near branch of 64-bit code. All that is asked for is read of it in any
 * case, unless it is so long that it is none. */
static int branches_near(const engine *e, uint64_t linear)
{
    uint32_t byte = 0x66;
    int i = 1;

    while (is_prefix(byte))
        byte = behind(e, linear, i++);
    if (byte == 0xff)
        byte |= behind(e, linear, i) << 8;
    return is_near_branch(byte == 0x0f ? 0x0f00 | behind(e, linear, i) : byte & 0xff, byte >> 11 & 7);
}

/* Make prefixes 66 in the 64-bit `code` others that are ignored, where the CPU model ignores them. */
void hide_ignored_66(const engine *e, uint8_t *code, int length)
{
    int at = 0;
    uint32_t next;

    while (at < length && is_prefix(code[at]))
        at++;
    if (!e->ignores_66 || at == length)
        return;
    next = at + 1 < length ? code[at + 1] : 0;
    if (!is_near_branch(code[at] == 0x0f ? 0x0f00 | next : code[at], next >> 3 & 7))
        return;
    for (int i = 0; i < at; i++)
        code[i] = code[i] == 0x66 ? 0x3e : code[i];
}

/* What the translator is shown for the byte `value` at e->prefix: for an ignored prefix behind one of FS or GS that one
 * again. */
uint32_t shown_prefix(engine *e, uint64_t linear, uint32_t value)
{
    e->prefix = linear + 1;
    switch (value) {
    case 0x64: case 0x65:
        e->override = (uint8_t)value;
        return value;
    case 0x26: case 0x2e: case 0x36: case 0x3e:
        return e->override ? e->override : value;
    case 0x66: /* which Intel's CPUs ignore of near branches (vol. 2A, CALL, JMP; vol. 2B, RET), and AMD's do not */
        return e->ignores_66 && branches_near(e, linear) ? e->override ? e->override : 0x3e : value;
    case 0x67: case 0xf0: case 0xf2: case 0xf3:
        return value;
    }
    if ((value & 0xf0) == 0x40)
        return shown_rex(e, linear, value);
    e->prefix = EMPTY;
    return value;
}

/* Addresses of operands are put together by one function of the translator, and nothing else of 64-bit code adds the
 * base of a segment: it stays away where that is to be 0. */
REPLACES void tcg_gen_op3_x86_64(void *tcg, int opcode, uint64_t a, uint64_t b, uint64_t c)
{
    engine *e = translating;

    if (opcode == ADD_I64 && e && e->tcg == tcg && e->making && e->making->flags & HF_CS64) {
        const uint64_t *bases = &AT(uint64_t, tcg, CPU_SEG_BASE);

        for (int segment = ES; segment <= DS; segment++) {
            if (c != (uint64_t)tcg + bases[segment])
                continue;
            if (a != b)
                real_tcg_gen_op2(tcg, MOV_I64, a, b);
            return;
        }
    }
    if (e && e->tcg == tcg && is_pointer_of_fnstsw(e, b, c))
        return;
    real_tcg_gen_op3(tcg, opcode, a, b, c);
    if ((opcode == ST_I64 || opcode == ST16_I64) && e && e->tcg == tcg && e->mmx != EMPTY)
        mmx_stored(e, b, c);
}
