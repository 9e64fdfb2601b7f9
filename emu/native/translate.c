/* Translation: one slot for each block, and where blocks are cut. */
#include "checks.h"

#include <string.h>

/* Bytes before the end of a page where instructions are decoded to see which of them fit. */
#define NEAR_END 256

/* Instructions in a block at most (TCG_MAX_INSNS of QEMU), and so few that translating them again does not matter. */
enum { MOST = 512, FEW = 16 };

/* The engine whose block is being made by this thread. */
__thread engine *translating;

/* ---- Cuts: how many instructions a block beginning at an address may have at most. Another address in the same place
 * of the table makes this one forgotten, which costs time and nothing else. */

static struct cut *cut_for(engine *e, uint64_t pc)
{
    return &e->cuts[(uint32_t)(pc * 0x9E3779B97F4A7C15ull >> 32) % CUTS];
}

void remember_cut(engine *e, uint64_t pc, uint32_t flags, uint32_t insns)
{
    struct cut *cut = cut_for(e, pc);

    cut->pc = pc;
    cut->flags = flags;
    cut->insns = insns;
}

/* `count` bytes of code from linear address `from` on, none of them beyond its page. */
void read_code(engine *e, uint64_t from, uint8_t *bytes, int count)
{
    uint64_t eight;

    if (unlikely(e->nothing)) {
        memset(bytes, FLOATING, (size_t)count);
        return;
    }
    if (count < (int)sizeof eight) {
        for (int i = 0; i < count; i++)
            bytes[i] = (uint8_t)real_cpu_ldub_code(e->env, from + (uint64_t)i);
        return;
    }
    for (int i = 0; i < count; i += (int)sizeof eight) {
        int here = i < count - (int)sizeof eight ? i : count - (int)sizeof eight; /* the last end with the bytes */

        eight = real_cpu_ldq_code(e->env, from + (uint64_t)here);
        memcpy(bytes + here, &eight, sizeof eight);
    }
}

/* How many instructions from the block's first on end in its page, up to the first near branch; at most `most`. */
static int instructions_in_page(engine *e, const tb *block, int most)
{
    static __thread struct instruction in;
    uint64_t offset = block->pc % PAGE;
    uint8_t bytes[NEAR_END];
    int length = (int)(PAGE - offset), at = 0, count = 0;
    int bits = block->flags & HF_CS64 ? 64 : block->flags & HF_CS32 ? 32 : 16;

    read_code(e, block->pc, bytes, length);
    while (count < most && decode(bytes + at, length - at, bits, 32, &in)) {
        count++;
        at += in.length;
        if (in.branch != BRANCH_NONE)
            break;
    }
    return count;
}

/* Blocks end before a page does, so that each depends on one page only, and no fetch fault comes from its middle: an
 * instruction has at most 15 bytes, and near the end they are decoded. One that lies on both sides makes a block of its
 * own. */
static int most_instructions(engine *e, const tb *block, int most)
{
    const struct cut *cut = cut_for(e, block->pc);
    int left = (int)(PAGE - block->pc % PAGE), fit = left / LONGEST;

    if (most > fit && most > 1 && left <= NEAR_END) {
        int decoded = instructions_in_page(e, block, most);

        fit = decoded > fit ? decoded : fit; /* decoding ends at what it does not know */
    }
    if (most > fit)
        most = fit ? fit : 1;
    if (cut->pc == block->pc && cut->flags == block->flags && cut->insns && most > (int)cut->insns)
        most = (int)cut->insns;
    e->limited = e->longest && most > e->longest;
    return e->limited ? e->longest : most;
}

/* Where each instruction accesses a device, as in zeros that are executed with EAX pointing to nowhere, a block would be
 * translated to its end again and again, to be left behind its first instruction. So blocks become shorter, the fewer
 * instructions one was good for, and longer again with each that was not left. How long they are decides nothing else. */
void block_was_wasted(engine *e, const tb *block, int done)
{
    int left = block->icount - done;

    if (left > FEW || (e->limited && left > 1))
        e->longest = left / 2;
}

static void lengthen(engine *e)
{
    if (e->limited && e->retried == e->retried_before)
        e->longest = e->longest < MOST / 2 ? e->longest * 2 : 0;
}

/* ---- Breakpoints. A block begins at each, so that only the beginnings of blocks are looked up. */

int is_breakpoint(const engine *e, uint64_t pc, uint32_t flags)
{
    const struct control *c = e->control;
    const uint64_t *table = (const uint64_t *)c->table;

    if (!c->breakpoints)
        return 0;
    if (!(flags & HF_CS64))
        pc = (uint32_t)pc;
    for (uint64_t i = pc * 0x9E3779B97F4A7C15ull >> 32;; i++) {
        uint64_t entry = table[i & c->mask];

        if (entry == pc || entry == EMPTY)
            return entry == pc;
    }
}

/* True when a stop is asked for at the instruction of `block` at linear `pc`: by its address or what it is. */
static int is_stop(engine *e, const tb *block, uint64_t pc)
{
    const struct control *c = e->control;

    return is_breakpoint(e, pc, block->flags) || ((c->classes || c->physical_count || c->range_count) && is_event(e, block, pc));
}

/* The first instruction of the block, other than its first, that a stop is asked for at; 0 if none. */
static int inner_breakpoint(engine *e, const tb *block)
{
    const uint8_t *data = block->code + block->code_size;
    uint64_t here = block->pc;

    if (!e->control->breakpoints && !e->control->classes && !e->control->physical_count && !e->control->range_count)
        return 0;
    for (int i = 0; i < block->icount; i++) {
        here += (uint64_t)signed_leb(&data);
        signed_leb(&data);
        signed_leb(&data);
        if (i && is_stop(e, block, here))
            return i;
    }
    return 0;
}

/* The set of breakpoints changed. */
API void v2e_fast_breakpoints(engine *e)
{
    for (uint32_t i = 0; i < e->used; i++) {
        slot *s = &e->slots[i];

        if (s->block->cflags & CF_INVALID)
            continue;
        if (s->breakpoint != is_stop(e, s->block, s->block->pc) || inner_breakpoint(e, s->block))
            real_tb_phys_invalidate(e->tcg, s->block, EMPTY);
    }
}

/* ---- Making a block */

void forget_translations(engine *e)
{
    engine_left(e);
    e->flushes++;
    e->used = 0;
    e->records_used = 0;
    for (uint64_t page = 0; page < e->pages; page++)
        if (e->has_code[page])
            bytes_are_plain(e, page * PAGE);
    memset(e->has_code, 0, e->pages);
}

REPLACES void tb_flush_x86_64(void *cpu)
{
    engine *e = engine_of_cpu(cpu);

    if (e)
        forget_translations(e);
    real_tb_flush(cpu);
}

/* For Python, whose call of tb_flush would reach the original. */
API void v2e_fast_flush(engine *e)
{
    tb_flush_x86_64(e->cpu);
}

/* Unicorn emits a call of its check at the beginning of each block and behind each load and store. Ours takes the place
 * of the first (entry.c); the others, which stop in the middle of instructions, are left out. */
REPLACES void tcg_gen_callN_x86_64(void *tcg, void *function, void *result, int count, void **arguments)
{
    engine *e = translating;
    extern void helper_check_exit_request_x86_64(void *, uint32_t);
    extern void helper_pause_x86_64(void *, int), tcg_gen_lookup_and_goto_ptr_x86_64(void *);

    if (e && e->tcg == tcg && function == (void *)helper_check_exit_request_x86_64) {
        if (e->checks++ == 0)
            emit_check(e, &e->slots[e->used]);
        return;
    }
    if (e && e->tcg == tcg && unlikely(e->making->flags & EFLAGS_RF))
        ends_otherwise(e, function);
    real_tcg_gen_callN(tcg, function, result, count, arguments);
    if (e && e->tcg == tcg)
        mmx_called(e, function);
    if (e && e->tcg == tcg && function == (void *)helper_pause_x86_64) /* steps.c */
        tcg_gen_lookup_and_goto_ptr_x86_64(tcg);
}

/* How many bytes the counter has of a repeated string instruction (REP INS OUTS MOVS CMPS STOS LODS SCAS) that begins
 * `code`; 0 when it is none. */
static int counter_of(const uint8_t *code, uint64_t length, uint32_t flags)
{
    int repeated = 0, bytes = flags & HF_CS64 ? 8 : flags & HF_CS32 ? 4 : 2;

    for (uint64_t i = 0; i < length; i++) {
        uint8_t byte = code[i];

        switch (byte) {
        case 0xf2: case 0xf3:
            repeated = 1;
            break;
        case 0x67:
            bytes = flags & (HF_CS64 | HF_CS32) ? (flags & HF_CS64 ? 4 : 2) : 4;
            break;
        case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: case 0x66: case 0xf0:
            break;
        default:
            if (flags & HF_CS64 && (byte & 0xf0) == 0x40)
                break;
            return repeated && ((byte >= 0x6c && byte <= 0x6f) || (byte >= 0xa4 && byte <= 0xa7) ||
                                (byte >= 0xaa && byte <= 0xaf))
                       ? bytes
                       : 0;
        }
    }
    return 0;
}

/* The same of the block's only instruction. */
static int repeats(engine *e, const tb *block)
{
    uint8_t code[LONGEST];
    uint64_t length = block->size < LONGEST ? block->size : LONGEST;

    if (block->icount != 1 || block->page_addr[0] == EMPTY)
        return 0;
    for (uint64_t i = 0; i < length; i++) {
        uint64_t offset = block->pc % PAGE + i;
        uint64_t page = offset < PAGE ? block->page_addr[0] : block->page_addr[1];

        code[i] = *(const uint8_t *)(host_of(e, page) + offset % PAGE);
    }
    return counter_of(code, length, block->flags);
}

/* The same of the first instruction of a block that is to be made, as far as its bytes are in the block's page. */
static int will_repeat(engine *e, const tb *block)
{
    uint64_t left = PAGE - block->pc % PAGE, length = left < LONGEST ? left : LONGEST;
    uint8_t code[LONGEST];

    read_code(e, block->pc, code, (int)length);
    return counter_of(code, length, block->flags) != 0;
}

REPLACES void gen_intermediate_code_x86_64(void *cpu, tb *block, int most)
{
    engine *e = engine_of_cpu(cpu);
    uint32_t flags = block->flags;

    if (!e) {
        real_gen_intermediate_code(cpu, block, most);
        return;
    }
    most = most_instructions(e, block, most);
    if (unlikely(flags & EFLAGS_RF)) { /* RF is of the first instruction: breakpoints of DR0 to DR3 are met behind it */
        most = 1;
        e->repeated = (uint8_t)will_repeat(e, block);
    }
    if (unlikely(is_exempt(e, block->pc, flags))) {
        block->flags = (flags & ~(HF_EM | HF_TS)) | HF_OSFXSR;
        most = 1;
    }
    e->checks = 0;
    e->single = most == 1;
    e->making = block;
    e->unlocking = e->shown_at = e->prefix = e->mmx = e->status_word = EMPTY;
    e->known_aligned = 0;
    e->begun_before = e->begun;
    e->exempt = 0;
    translating = e;
    /* Translated as if in no shadow, it begins one; it ends the block anyway. */
    if (flags & HF_INHIBIT_IRQ && shadow_of_its_own(e, block->pc, flags))
        block->flags &= ~HF_INHIBIT_IRQ;
    real_gen_intermediate_code(cpu, block, most);
    block->flags = flags;
    if (e->checks) {
        block_needs(e, e->stops ? NEVER : block->icount);
        emit_slow_way(e, &e->slots[e->used]);
    }
    translating = NULL;
    e->making = NULL;
}

REPLACES tb *tb_gen_code_x86_64(void *cpu, uint64_t pc, uint64_t cs_base, uint32_t flags, int cflags)
{
    engine *e = engine_of_cpu(cpu);
    const uint8_t *data;
    tb *block;
    slot *s;
    int inner;

    if (!e)
        return real_tb_gen_code(cpu, pc, cs_base, flags, cflags);
    if (e->used == e->capacity || records_full(e)) { /* begin anew, as when the translation buffer is full */
        tb_flush_x86_64(cpu);
        leave_block(e);
    }
    e->nothing = is_nothing(e, pc);
    lengthen(e);
    e->stops = is_breakpoint(e, pc, flags);
    block = real_tb_gen_code(cpu, pc, cs_base, flags, cflags);
    while ((inner = e->exempt ? (int)e->exempt : inner_breakpoint(e, block)) || e->stops != is_stop(e, block, block->pc)) {
        if (inner)
            remember_cut(e, block->pc, block->flags, (uint32_t)inner);
        e->stops = is_stop(e, block, block->pc);
        real_tb_phys_invalidate(e->tcg, block, EMPTY);
        block = real_tb_gen_code(cpu, pc, cs_base, flags, cflags);
    }
    e->nothing = 0;
    e->retried_before = e->retried;
    e->translations++;
    e->made += block->icount;
    s = &e->slots[e->used++];
    s->engine = e;
    s->eip = block->pc - block->cs_base;
    s->block = block;
    s->insns = block->icount;
    s->io = block->icount == 1;
    s->repeats = (uint8_t)repeats(e, block);
    s->breakpoint = (uint8_t)e->stops;
    s->need = e->stops ? NEVER : s->insns;
    data = block->code + block->code_size;
    s->last = block->pc;
    for (int i = 0; i < block->icount; i++) {
        s->last += (uint64_t)signed_leb(&data);
        signed_leb(&data);
        signed_leb(&data);
    }
    bytes_are_code(e, block);
    for (int i = 0; i < 2; i++)
        if (block->page_addr[i] != EMPTY)
            page_has_code(e, block->page_addr[i]);
    return block;
}
