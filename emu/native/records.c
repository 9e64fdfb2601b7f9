/* What has to be looked at of an instruction, found when it is translated: segment limits, types and null selectors, fetches
 * and near branches beyond CS (SDM vol. 3A, 5.3 to 5.5; vol. 1, 6.2); encodings that are #UD and operands of SSE that are not
 * aligned (encodings.c); alignment (alignment.c).
 *
 * If something of it can break a segment of the class, a call of `v2e_check_operands` is emitted before it, with a record
 * of what to look at; there the live caches and registers decide (checks.c), and the exception comes before any effect. Flat
 * code, and byte accesses of 64 KiB segments by 16-bit addresses, get no call.
 */
#include "record.h"
#include "tcg.h"

#include <string.h>

static const uint64_t zero;

/* See whether the one reference of `r` can be asked the quick way. */
static void simplify(struct record *r, uint32_t sign)
{
    const struct reference *ref = r->references;
    const uint64_t *regs = registers(r->engine->env);

    r->quick.limit = NULL;
    if (r->count != 1 || r->undefined || r->told || r->alignment.asked || r->apart || r->enters_mmx || r->narrow.opcode || r->aligned || r->touched || r->branch || r->fetch || r->input || r->first ||
        ref->kind & (XLAT | REPEATED) ||
        ref->bits != NONE || (sign >> 2 * ref->segment & 3) != DATA_64K)
        return;
    r->quick.base = ref->base == NONE ? &zero : regs + ref->base;
    r->quick.index = ref->index == NONE ? &zero : regs + ref->index;
    r->quick.displacement = ref->displacement;
    r->quick.mask = ref->mask;
    r->quick.shift = (uint32_t)__builtin_ctz(ref->scale);
    r->quick.beyond = ref->size - 1u;
    r->quick.limit = &AT(uint32_t, r->engine->env, at.env_segs + 24u * ref->segment + 16);
}

/* A far transfer of real or V86 mode, whose CS keeps its limit; of protected mode tasks.c looks at them. */
static uint32_t far_branch(const struct instruction *in)
{
    switch (in->opcode) {
    case 0xea: case 0x9a:
        return BRANCH_FAR;
    case 0xff:
        return (in->reg == 3 || in->reg == 5) && in->rm == NONE ? BRANCH_OPERAND : BRANCH_NONE;
    case 0xca: case 0xcb: case 0xcf:
        return BRANCH_RETURN;
    default:
        return BRANCH_NONE;
    }
}

/* CR0.EM and TS and CR4.OSFXSR make the instruction #UD or #NM, which come before what is found of its operand (SDM
 * vol. 3A, table 6-2), and are Unicorn's to raise. */
static int refused_first(const struct instruction *in, uint32_t flags)
{
    if (in->opcode == 0x0fae && in->rm == NONE && in->reg < 2) /* FXSAVE and FXRSTOR */
        return flags & (HF_EM | HF_TS);
    if (in->opcode == 0x0fae && in->rm == NONE && in->reg >= 4 && in->reg < 7) /* XSAVE, XRSTOR, XSAVEOPT */
        return flags & HF_TS;
    if (is_vector(in))
        return flags & (HF_EM | HF_TS) || (!(flags & HF_OSFXSR) && in->count && in->references[0].size == 16);
    return is_x87(in) && flags & (HF_EM | HF_TS);
}

/* Put what has to be looked at of `in` into `r`, in 64-bit code but for segments. Returns 0 when that is nothing. */
static int reduce(struct record *r, const struct instruction *in, uint32_t ip, uint32_t sign, uint32_t flags)
{
    int wide = r->bits == 64, refused = refused_first(in, flags);
    uint32_t code = sign >> CODE_AT & 3;
    int limited = code == CODE_CHECK || (code == CODE_64K && in->operand_size == 4);

    r->length = in->length;
    r->operand_size = in->operand_size;
    r->rm = in->rm;
    r->condition = in->condition;
    r->displacement = in->immediate;
    r->address_mask = in->address_mask;
    r->branch = BRANCH_NONE;
    r->relative = in->relative;
    r->keeps = (uint8_t)keeps_registers(in);
    r->fcmov = is_fcmov(in) && !(flags & (HF_EM | HF_TS)) ? in->rm % 8 + 1 : 0;
    r->undefined = is_undefined(in, r->engine->denied) || (flags & HF_EM && wants_no_emulation(in));
    r->waits = !refused && waits_for_x87(in);
    r->enters_mmx = !refused && enters_mmx(in) ? in->reg % 8 + 1 : 0;
    r->apart = may_wrap(in, flags) ? APART_RETURN : in->opcode == 0x0f07 && !(flags & HF_PE) ? APART_SYSRET : APART_NOT;
    if (in->opcode == 0x0f01 && in->rm != NONE && (in->rm & 7) == 1 && in->reg == 2)
        r->apart = APART_XSETBV;
    if (is_vex_apart(in, flags)) { /* which is_undefined may take for LES */
        r->apart = APART_VEX;
        r->undefined = 0;
    }
    r->shows_lock = !loses_flags_locked(in);
    r->engine->dropping = drops_too_little(in);
    r->aligned = r->engine->checked && !refused && wants_alignment(in, r->engine->denied);
    r->touched = refused || r->aligned ? 0 : (uint8_t)touched_first(in); /* what is aligned lies on one page */
    r->alignment = sign & SIGNED_AM && !refused ? alignment_of(in, flags) : (struct alignment){0, 0, 0};
    r->addressing = addressing_of(in, r->bits, r->pc);
    r->fetch = r->input = r->count = 0;
    if (in->opcode >= 0x6c && in->opcode <= 0x6f) /* INS and OUTS: ports are denied first */
        r->input = in->opcode % 2 ? in->operand_size : 1;
    r->first = wide && !r->alignment.asked ? 0 : precedence_of(in);
    r->repeated = in->repeat;
    r->narrow.opcode = r->bits == 16 && is_narrow(in) ? (uint16_t)in->opcode : 0;
    if (r->narrow.opcode) {
        r->narrow.size = in->operand_size;
        r->narrow.reg = in->reg;
        r->narrow.rm = in->rm;
        r->narrow.sums = in->opcode == 0x38f1 && in->repeat;
    }
    r->loads_base = wide && in->opcode == 0x0f01 && in->rm == NONE && (in->reg == 2 || in->reg == 3);
    if (wide && (r->aligned || r->touched || r->alignment.asked || r->loads_base)) {
        r->count = (r->touched || r->alignment.asked || r->loads_base) && !calls_far(in, flags) ? in->count : 1;
        memcpy(r->references, in->references, r->count * sizeof r->references[0]);
    }
    if (wide) {
        r->quick.limit = NULL;
        return r->aligned || r->undefined || r->touched || r->input || r->enters_mmx || r->alignment.asked || r->apart ||
               r->loads_base || r->told;
    }
    if (limited)
        r->branch = in->branch != BRANCH_NONE || !real_mode(r->engine->env) ? in->branch : (uint8_t)far_branch(in);
    r->fetch = code == CODE_CHECK || (code == CODE_64K && (uint64_t)ip + in->length > 0x10000);
    for (int i = 0; i < in->count && !refused; i++)
        if (in->references[i].segment == SS && in->references[i].kind == WRITES && calls_far(in, flags))
            continue;
        /* the target of a branch through memory is taken from the first reference */
        else if (r->touched || r->alignment.asked || !never_breaks(&in->references[i], sign) ||
            (i == 0 && (r->aligned || r->narrow.opcode || r->branch == BRANCH_OPERAND || r->branch == BRANCH_RETURN)))
            r->references[r->count++] = in->references[i];
    simplify(r, sign);
    return r->count || r->branch || r->fetch || r->input || r->undefined || r->enters_mmx || r->narrow.opcode || r->apart ||
           r->told;
}

/* What is to be looked at of the instruction that begins `bytes`; -1 when they end before it does. Of some the length
 * is not known; what they are is. */
int decode_for(struct record *r, uint8_t *bytes, int length, uint32_t sign, uint32_t flags)
{
    static __thread struct instruction in;
    uint32_t ip = (uint32_t)(r->pc - segment_of(r->engine->env, CS)->base);

    if (r->bits == 64)
        hide_ignored_66(r->engine, bytes, length);
    r->told = told_classes(r->engine, bytes, length, r->bits) != 0;
    if (decode(bytes, length, r->bits, r->stack_bits, &in))
        return reduce(r, &in, ip, sign, flags);
    if (!in.unknown)
        return -1;
    in.length = 1; /* anything but 0 */
    return reduce(r, &in, ip, sign, flags);
}

/* Nothing but the alignment of the only operand is to be asked. */
static int only_alignment(const struct record *r, uint32_t sign)
{
    return r->aligned && r->count == 1 && !r->told && !r->alignment.asked && !r->undefined && !r->fetch && !r->branch &&
           (r->bits == 64 || never_breaks(r->references, sign));
}

/* Nothing but whether its operands' pages are there is to be asked. */
static int only_pages(const struct record *r, uint32_t sign)
{
    if (!r->touched || r->told || r->alignment.asked || r->undefined || r->fetch || r->branch)
        return 0;
    for (int i = 0; i < r->count && r->bits != 64; i++)
        if (!never_breaks(&r->references[i], sign))
            return 0;
    return 1;
}

/* From env to the base of the segment of the reference, -1 where that is a multiple of 16: in 64-bit code of all but FS
 * and GS, and as hflags says where ES, SS and DS begin at 0. */
static int64_t base_to_add(const struct reference *ref, uint32_t flags)
{
    int none = flags & HF_CS64 ? ref->segment < FS
                               : !(flags & HF_ADDSEG) && (ref->segment == ES || ref->segment == SS || ref->segment == DS);

    return none ? -1 : (int64_t)at.env_segs + 24 * ref->segment + 8;
}

static int number_of(const engine *e, const uint64_t *reg)
{
    return reg == &zero ? -1 : (int)(reg - registers(e->env));
}

/* #GP(0) when the byte at `eip` is beyond CS, before the page fault that fetching it may raise (SDM vol. 3A, table 6-2).
 * For what Unicorn fetches before any check of ours executes: the first byte of a block that is not in its cache, and of
 * the second page of an instruction on two. `pc` is the instruction's, which counts as any that faults. */
void refuse_fetch(engine *e, uint64_t pc, uint64_t eip, uint32_t flags)
{
    if (!e->checked || flags & HF_CS64 || likely((uint32_t)eip <= segment_of(e->env, CS)->limit))
        return;
    if (e->control->remaining <= 0) /* the next run will meet it again */
        stop_run(e, STOP_BUDGET);
    e->control->remaining--;
    e->control->last = pc;
    real_raise_exception_err(e->env, EXCP_GP, 0);
}

/* True when it is known at translation that the operand is aligned: its address is a constant, or the sum is one that was
 * asked about in this block, with no register written since. Loops that move blocks ask once a turn. */
static int surely_aligned(engine *e, const struct record *r, int64_t segment_base)
{
    const struct reference *ref = r->references;
    uint32_t low = displacement_of(r) % 16;
    uint64_t sum = 1ull << 63 | (uint64_t)(segment_base < 0 ? NONE : ref->segment) << 32 | (uint64_t)ref->scale << 24 |
                   low << 16 | (uint32_t)ref->index << 8 | ref->base;

    if (ref->base == NONE && ref->index == NONE && segment_base < 0)
        return !low;
    if (e->known_aligned == sum)
        return 1;
    e->known_aligned = sum;
    return 0;
}

/* Emit the check of the instruction at `pc`, which is about to be translated. */
static void emit(engine *e, void *tcg, uint64_t pc)
{
    extern void helper_check_exit_request_x86_64(void *, uint32_t);
    uint32_t flags = e->making->flags, sign = e->signatures[flags >> CLASS_SHIFT];
    struct record *r = (struct record *)(void *)(e->records + e->records_used);
    uint8_t bytes[LONGEST];
    uint64_t here = flags & HF_CS64 ? pc : (uint32_t)pc;
    int length, found;

    r->engine = e;
    r->pc = here;
    r->keeps = r->fcmov = 0;
    r->shows_lock = 1;
    e->dropping = 0;
    r->bits = flags & HF_CS64 ? 64 : flags & HF_CS32 ? 32 : 16;
    r->stack_bits = flags & HF_SS32 ? 32 : 16;
    /* Only bytes of the block's own page are known to be there; what goes beyond it is a block of its own. */
    length = (int)(PAGE - here % PAGE);
    if (length > LONGEST)
        length = LONGEST;
    read_code(e, here, bytes, length);
    found = decode_for(r, bytes, length, sign, flags);
    e->unlocking = found < 0 || r->undefined || !r->shows_lock ? pc : EMPTY;
    if (!r->keeps)
        e->known_aligned = 0;
    if (r->fcmov && !r->undefined) /* what Unicorn makes of it calls nothing where the condition does not hold */
        emit_fcmov(e, r->fcmov - 1);
    if (!found || (found < 0 && length == LONGEST && flags & HF_CS64))
        return;
    int alignment = found > 0 && only_alignment(r, sign), pages = found > 0 && only_pages(r, sign);
    const struct reference *ref = r->references;

    if (alignment && surely_aligned(e, r, base_to_add(ref, flags)))
        return;
    if (found < 0 && length < LONGEST)
        refuse_fetch(e, pc, here + (uint64_t)length - segment_of(e->env, CS)->base, flags);
    if (found < 0)
        r->length = r->count = 0, r->quick.limit = NULL;
    e->records_used += sizeof *r + r->count * sizeof(struct reference);
    if (found < 0) /* room for what it will turn out to be */
        e->records_used += REFERENCES * sizeof(struct reference);
    e->records_used = (e->records_used + 15) & ~(uint64_t)15;

    e->guarded++;
    /* Ask inline where that is a sum and a comparison: for a 64 KiB segment, whose limit is at least so much. */
    int quick = found > 0 && r->quick.limit && !r->quick.shift;

    if (quick)
        emit_if_beyond(e, number_of(e, r->quick.base), number_of(e, r->quick.index), r->quick.displacement,
                       r->quick.mask, 0xffff - r->quick.beyond);
    int two_pages = pages && r->touched == TOUCH_ON_TWO_PAGES;
    struct low_bits low = two_pages ? (struct low_bits){PAGE - 1, (uint32_t)PAGE - ref->size} : (struct low_bits){15, 0};

    if (alignment || two_pages)
        emit_if_low(e, ref->base == NONE ? -1 : ref->base, ref->index == NONE ? -1 : ref->index,
                    __builtin_ctz(ref->scale), base_to_add(ref, flags), displacement_of(r), low);
    else if (pages)
        emit_if_paging(e);
    uint64_t record = real_tcg_const_i64(tcg, (int64_t)(uintptr_t)r | 3), size = real_tcg_const_i32(tcg, 0);
    void *both[2] = {(uint8_t *)tcg + record, (uint8_t *)tcg + size};

    real_tcg_gen_callN(tcg, (void *)helper_check_exit_request_x86_64, NULL, 2, both);
    real_tcg_temp_free_internal(tcg, both[0]);
    real_tcg_temp_free_internal(tcg, both[1]);
    if (quick || alignment || pages)
        emit_end_if(e);
}

/* A breakpoint of DR0 to DR3 is on the instruction at `pc`: in its place Unicorn raises #DB, which comes before any other
 * fault of it (SDM vol. 3A, table 6-2). When one comes or goes, the block is made anew. */
static int under_breakpoint(const engine *e, uint64_t pc)
{
    const uint64_t *dr = &AT(uint64_t, e->env, at.env_dr);

    if (likely(!(dr[7] & DR7_ENABLES)) || e->making->flags & EFLAGS_RF)
        return 0;
    for (int i = 0; i < BREAKPOINTS; i++)
        if (dr[7] >> 2 * i & 3 && !(dr[7] >> (16 + 4 * i) & 3) && dr[i] == pc)
            return 1;
    return 0;
}

REPLACES void tcg_gen_op2_x86_64(void *tcg, uint32_t opcode, uint64_t a, uint64_t b)
{
    engine *e = translating;

    if (opcode == MOVI_I64 && e && e->tcg == tcg && e->dropping && (int64_t)b == e->dropping)
        b += 0x10000;
    real_tcg_gen_op2(tcg, opcode, a, b);
    if (opcode == INSN_START)
        end_before_full(tcg);
    if (opcode == INSN_START && e && e->tcg == tcg && e->making) {
        e->begun++;
        prefixes_begin(e, a, e->making->flags);
        if (!e->exempt && e->begun - e->begun_before > 1 && is_exempt(e, a, e->making->flags))
            e->exempt = (uint32_t)(e->begun - e->begun_before - 1);
        show_begin(e, a);
        e->begun_at = a;
        e->mmx = e->status_word = EMPTY;
        if (e->signatures[0] && !under_breakpoint(e, a))
            emit(e, tcg, a);
    }
}

/* True when a block of the longest kind may not find room for its records. */
int records_full(const engine *e)
{
    return e->records_used + 512 * RECORD_MOST > RECORDS_SIZE;
}
