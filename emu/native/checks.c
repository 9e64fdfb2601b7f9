/* What is looked at before an instruction executes, by the record that was made of it (records.c), the live segment caches
 * and registers: the exception comes before any effect. */
#include "record.h"
#include "x87.h"

static uint32_t reg(const engine *e, int number)
{
    return (uint32_t)registers(e->env)[number];
}

/* True when all bytes are inside the segment (SDM vol. 3A, 5.3). Offsets do not wrap: an operand that goes past the
 * highest offset is outside, but for segments of 4 GiB, where the SDM leaves it open. */
static int within(struct segment c, uint32_t address, uint32_t size)
{
    uint64_t last = (uint64_t)address + size - 1;

    if ((c.flags & (SEG_CODE | SEG_EXPAND_DOWN)) == SEG_EXPAND_DOWN)
        return address > c.limit && last <= (c.flags & SEG_BIG ? FLAT : 0xffff);
    return last <= c.limit || c.limit == FLAT;
}

/* The vector that an access raises, 0 if none. Error codes are 0: they never name the selector (SDM vol. 3A, 6.15). */
int violation(const engine *e, const struct reference *ref)
{
    struct segment c = *segment_of(e->env, ref->segment);
    int vector = ref->segment == SS ? EXCP_SS : EXCP_GP;

    if (ref->segment == CS && real_mode(e->env))
        c.flags = (c.flags & SEG_BIG) | SEG_PRESENT | SEG_WRITABLE;
    if (!(c.flags & SEG_PRESENT))
        return vector;
    if (ref->kind & WRITES && (c.flags & (SEG_CODE | SEG_WRITABLE)) != SEG_WRITABLE)
        return EXCP_GP;
    if (ref->kind & READS && (c.flags & (SEG_CODE | SEG_WRITABLE)) == SEG_CODE)
        return EXCP_GP;
    return within(c, effective(e->env, ref), ref->size) ? 0 : vector;
}

/* True when the operand's linear address is no multiple of 16; what the width of addresses cuts off does not matter. */
static int unaligned(const struct record *r)
{
    const engine *e = r->engine;
    const struct reference *ref = r->references;
    uint32_t address = displacement_of(r);

    if (r->bits != 64 || ref->segment >= FS)
        address += (uint32_t)segment_of(e->env, ref->segment)->base;
    if (ref->base != NONE)
        address += reg(e, ref->base);
    if (ref->index != NONE)
        address += reg(e, ref->index) * ref->scale;
    return address % 16 != 0;
}

/* Condition of Jcc (SDM vol. 1, appendix B). */
static int holds(uint32_t condition, uint64_t flags)
{
    int cf = flags & 1, pf = flags >> 2 & 1, zf = flags >> 6 & 1, sf = flags >> 7 & 1, of = flags >> 11 & 1;
    const int value[8] = {of, cf, zf, cf | zf, sf, pf, sf ^ of, zf | (sf ^ of)};

    return value[condition >> 1] != (int)(condition & 1);
}

/* The arithmetic flags before the instruction, which QEMU computes late; the block's unwind data say how. */
static uint64_t arithmetic_flags(engine *e, uint64_t host)
{
    cpu_restore_state_x86_64(e->cpu, host, 0);
    return real_cpu_cc_compute_all(e->env, (int)AT(uint32_t, e->env, at.env_cc_op));
}

/* True when the branch is taken and leads beyond CS: the branch itself faults (SDM vol. 2A: JMP, Jcc, LOOP, RET). */
static int branches_out(engine *e, const struct record *r, uint64_t host)
{
    struct segment code = *segment_of(e->env, CS);
    uint32_t width = r->operand_size == 2 ? 0xffff : FLAT, to, count;
    const struct reference *first = r->references;
    uint64_t linear;

    switch (r->branch) {
    case BRANCH_RETURN:
    case BRANCH_OPERAND:
        if (r->branch == BRANCH_OPERAND && r->rm != NONE) {
            to = reg(e, r->rm);
        } else {
            linear = (uint32_t)(segment_of(e->env, first->segment)->base + effective(e->env, first));
            to = r->operand_size == 2 ? (uint32_t)real_cpu_lduw_data_ra(e->env, linear, host)
                                      : (uint32_t)real_cpu_ldl_data_ra(e->env, linear, host);
        }
        return (to & width) > code.limit;
    case BRANCH_FAR:
        return (r->displacement & width) > code.limit;
    default:
        to = ((uint32_t)(r->pc - code.base) + r->length + r->displacement) & width;
    }
    if (to <= code.limit)
        return 0;
    if (r->branch == BRANCH_CONDITION)
        return holds(r->condition, arithmetic_flags(e, host));
    if (r->branch == BRANCH_LOOP) {
        count = reg(e, CX) & r->address_mask;
        if (r->condition == 3) /* JCXZ */
            return count == 0;
        if (count == 1)
            return 0;
        return r->condition == 2 || (arithmetic_flags(e, host) >> 6 & 1) == (r->condition == 1);
    }
    return 1;
}

/* INS and OUTS: the port is denied before the operand is looked at, which of INS Unicorn writes once before it asks. */
static void ask_for_port(engine *e, const struct record *r, uint64_t host)
{
    uint32_t port = reg(e, DX) & 0xffff;

    if (!asks_for_ports(e->env))
        return;
    cpu_restore_state_x86_64(e->cpu, host, 1);
    if (r->input == 1)
        real_helper_check_iob(e->env, port);
    else if (r->input == 2)
        real_helper_check_iow(e->env, port);
    else
        real_helper_check_iol(e->env, port);
    e->unwinding = 0;
}

/* A byte of the instruction that Unicorn has not read: beyond the limit of CS it is #GP(0), and on an absent page #PF. */
uint8_t byte_behind(engine *e, const struct record *r, int number, uint64_t host)
{
    uint64_t linear = r->pc + (uint64_t)number;
    const struct segment *cs = segment_of(e->env, CS);
    uint32_t byte;

    if (r->bits != 64 && e->checked && (uint32_t)(linear - cs->base) > cs->limit)
        real_raise_exception_err_ra(e->env, EXCP_GP, 0, host);
    cpu_restore_state_x86_64(e->cpu, host, 1);
    byte = real_cpu_ldub_code(e->env, r->bits == 64 ? linear : (uint32_t)linear);
    e->unwinding = 0;
    return (uint8_t)byte;
}

/* The record of an instruction on two pages, now that both are there. Returns 0 when nothing has to be looked at. */
static int complete(engine *e, struct record *r, uint64_t host)
{
    uint32_t flags = AT(uint32_t, e->env, at.env_hflags), sign = e->signatures[flags >> CLASS_SHIFT];

    flags |= (uint32_t)AT(uint64_t, e->env, at.env_eflags) & EFLAGS_AC; /* as in those of a block */
    uint8_t bytes[LONGEST];
    int length = running(e)->block->size < LONGEST ? running(e)->block->size : LONGEST, found;

    for (int i = 0; i < length; i++) {
        uint64_t linear = r->pc + (uint64_t)i;

        bytes[i] = (uint8_t)real_cpu_ldub_code(e->env, r->bits == 64 ? linear : (uint32_t)linear);
    }
    found = decode_for(r, bytes, length, sign, flags);
    /* Where Unicorn has taken it for a shorter one, as with TS, the CPU reads on. */
    for (; found < 0 && length < LONGEST; length++) {
        bytes[length] = byte_behind(e, r, length, host);
        found = decode_for(r, bytes, length + 1, sign, flags);
    }
    return found > 0;
}

/* A repeated instruction that has no iteration left: it asks for nothing (SDM vol. 2B, REP). */
static int has_ended(const struct record *r)
{
    uint64_t count = registers(r->engine->env)[CX];

    return r->repeated && !(r->bits == 64 && !r->addressing.narrow ? count : count & r->address_mask);
}

static __attribute__((noinline)) void check(struct record *r, uint64_t host)
{
    engine *e = r->engine;
    const struct segment *cs = segment_of(e->env, CS);
    int vector = 0;

    e->asked++;
    if (unlikely(!r->length) && !complete(e, r, host))
        return;
    if (unlikely(r->told)) /* a hypervisor is exited to whether or not it may be executed */
        tell(r, host);
    if (r->fetch && (uint64_t)(uint32_t)(r->pc - cs->base) + r->length - 1 > cs->limit)
        vector = EXCP_GP;
    else if (r->undefined || (r->apart == APART_XSETBV && !((&AT(uint64_t, e->env, at.env_cr))[4] & CR4_OSXSAVE)))
        vector = EXCP_UD; /* XSETBV before its privilege is looked at (SDM vol. 2D, XSETBV) */
    else if (r->first && comes_first(e->env, r->first, r->operand_size))
        return;
    else if (r->waits)
        wait_for(e->env, host);
    if (r->input && !vector && !has_ended(r))
        ask_for_port(e, r, host);
    for (int i = 0; i < r->count && !vector && r->bits != 64 && e->checked; i++)
        if (!(r->references[i].kind & REPEATED) || reg(e, CX) & r->address_mask)
            vector = violation(e, &r->references[i]);
    if (!vector && r->alignment.asked && misaligned(r))
        vector = EXCP_AC;
    if (!vector && r->aligned && unaligned(r))
        vector = EXCP_GP;
    if (!vector && r->branch && branches_out(e, r, host))
        vector = EXCP_GP;
    if (unlikely(vector))
        real_raise_exception_err_ra(e->env, vector, 0, host);
    for (int i = 0; i < r->count && r->touched; i++)
        touch(e->env, linear_address(e->env, &r->references[i], r->addressing), r->references[i].size,
              r->references[i].kind & WRITES, host);
    if (r->loads_base)
        refuse_base(e->env, linear_address(e->env, r->references, r->addressing), host);
    if (r->enters_mmx)
        enter_mmx_to(e->env, r->enters_mmx - 1);
    if (r->apart == APART_SYSRET)
        refuse_sysret(e, host);
    if (r->apart == APART_VEX)
        execute_vex(r, host);
    if (r->apart == APART_RETURN)
        return_around_the_end(e, r->operand_size, r->displacement & 0xffff, host);
    if (r->narrow.opcode)
        execute_narrow(e, &r->narrow, r->narrow.rm == NONE ? r->references : NULL, host);
}

__attribute__((visibility("hidden"), used)) void v2e_check_operands(uint8_t *argument)
{
    struct record *r = (struct record *)(void *)(argument - 3);
    const struct quick *q = &r->quick;

    if (likely(q->limit != NULL)) {
        uint32_t offset = (q->displacement + (uint32_t)*q->base + ((uint32_t)*q->index << q->shift)) & q->mask;

        if (likely((uint64_t)offset + q->beyond <= *q->limit))
            return;
    }
    check(r, (uint64_t)__builtin_return_address(0));
}
