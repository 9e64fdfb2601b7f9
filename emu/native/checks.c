/* Segment limits, types and null selectors, fetches and near branches beyond CS (SDM vol. 3A, 5.3 to 5.5; vol. 1, 6.2);
 * encodings that are #UD, operands of SSE that are not aligned (encodings.c).
 *
 * The segment caches are put into a class: for each register, which accesses can never break it. The class is part of
 * what a block is translated for, as five bits of hflags that QEMU leaves free, so that blocks of another class are
 * never entered. An instruction is decoded when it is translated. If something of it can break a segment of the class,
 * a call of `v2e_check_operands` is emitted before it, with a record of what to look at; there the live caches and
 * registers decide, and the exception comes before any effect. Flat code, and byte accesses of 64 KiB segments by
 * 16-bit addresses, get no call. A change of the caches reclassifies at the next block (`look`).
 */
#include "checks.h"
#include "segments.h"
#include "tcg.h"
#include "x87.h"


/* What a class knows of a segment register, two bits each, ES first; then two for fetches and branches. */
enum { DATA_CHECK, DATA_64K, DATA_FLAT, DATA_READ };
enum { CODE_CHECK, CODE_64K, CODE_FLAT };
#define CODE_AT 12
#define SIGNED_ALL 0x80000000u /* a signature in use is never 0 */
#define ALL_FLAT (SIGNED_ALL | CODE_FLAT << CODE_AT | 0xaaau)

/* One operand of a 64 KiB segment, which is what most checks are about: all that has to be asked is whether its last
 * byte is within the limit. */
struct quick {
    const uint64_t *base, *index; /* registers, or a zero */
    const uint32_t *limit;        /* NULL: there is more to look at */
    uint32_t displacement, mask;
    uint32_t shift, beyond; /* of the index; size - 1 */
};

/* A record: which instruction, and what of it. */
struct record {
    struct quick quick;
    engine *engine;
    uint64_t pc;
    uint8_t length;  /* 0: not decoded yet, as it lies on two pages */
    uint8_t branch, condition, rm, fetch, input, operand_size, bits, stack_bits, count, undefined;
    uint8_t aligned, relative; /* the first reference is to be at a multiple of 16; RIP is added to it */
    uint8_t keeps; /* no general register is written */
    uint8_t first;   /* what comes before its operands are looked at (precedence.c) */
    uint8_t repeated;
    uint8_t touched; /* TOUCH and TOUCH_ON_TWO_PAGES: all references are touched before it (paging.c) */
    struct addressing addressing;
    uint8_t fcmov; /* 1 more than the number of its register, 0 for other instructions */
    struct narrow narrow;
    uint8_t shows_lock; /* Unicorn is shown its LOCK prefix */
    uint8_t waits;      /* for an exception of the x87 */
    uint8_t loads_base; /* LGDT and LIDT of 64-bit code */
    uint8_t enters_mmx; /* 1 + the register that it writes: they are to become those of MMX; 0: they are not */
    uint32_t displacement, address_mask;
    struct reference references[];
};
#define RECORD_MOST (sizeof(struct record) + REFERENCES * sizeof(struct reference))

static uint32_t data_class(struct segment c)
{
    if (!(c.flags & SEG_PRESENT))
        return DATA_CHECK;
    if (c.flags & SEG_CODE)
        return c.flags & SEG_WRITABLE && c.limit == FLAT ? DATA_READ : DATA_CHECK;
    if (c.flags & SEG_EXPAND_DOWN)
        return DATA_CHECK;
    if (!(c.flags & SEG_WRITABLE))
        return c.limit == FLAT ? DATA_READ : DATA_CHECK;
    return c.limit == FLAT ? DATA_FLAT : c.limit >= 0xffff ? DATA_64K : DATA_CHECK;
}

static uint32_t signature(const engine *e)
{
    uint32_t found = SIGNED_ALL;
    int real = real_mode(e->env);

    if (!e->checked || AT(uint32_t, e->env, at.env_hflags) & HF_CS64)
        return ALL_FLAT;
    for (int i = 0; i < 6; i++) {
        struct segment c = *segment_of(e->env, i);

        if (i == CS) {
            if (real)
                c.flags = SEG_PRESENT | SEG_WRITABLE;
            found |= (c.limit == FLAT ? CODE_FLAT : c.limit >= 0xffff ? CODE_64K : CODE_CHECK) << CODE_AT;
        }
        found |= data_class(c) << 2 * i;
    }
    return found;
}

/* Class 0 checks nothing. When the numbers run out all translations go, and numbering begins anew. */
static uint32_t class_of(engine *e, uint32_t sign)
{
    if (sign == ALL_FLAT)
        return 0;
    for (uint32_t i = 1; i < e->classes; i++)
        if (e->signatures[i] == sign)
            return i;
    if (e->classes == CLASSES) {
        real_tb_flush(e->cpu);
        forget_translations(e);
        e->classes = 1;
    }
    e->signatures[e->classes] = sign;
    return e->classes++;
}

/* True when the caches have left the class by which blocks are looked up: from now on another one is. */
int reclassify(engine *e)
{
    uint32_t *hflags = &AT(uint32_t, e->env, at.env_hflags);
    uint64_t flushes = e->flushes;
    uint32_t class = class_of(e, signature(e));

    if (class == *hflags >> CLASS_SHIFT && flushes == e->flushes)
        return 0;
    *hflags = (*hflags & ~(UINT32_MAX << CLASS_SHIFT)) | class << CLASS_SHIFT;
    return 1;
}

/* ---- When an instruction is translated */

/* True when no registers and no cache of the class make this access a violation. */
static int never_breaks(const struct reference *ref, uint32_t sign)
{
    switch (sign >> 2 * ref->segment & 3) {
    case DATA_FLAT:
        return 1;
    case DATA_READ:
        return !(ref->kind & WRITES);
    case DATA_64K:
        if (ref->base == NONE && ref->index == NONE && ref->bits == NONE && !(ref->kind & XLAT))
            return (ref->displacement & ref->mask) + ref->size <= 0x10000 && (ref->displacement & ref->mask) <= 0xffff;
        return ref->mask == 0xffff && ref->size == 1;
    default:
        return 0;
    }
}

static const uint64_t zero;

/* See whether the one reference of `r` can be asked the quick way. */
static void simplify(struct record *r, uint32_t sign)
{
    const struct reference *ref = r->references;
    const uint64_t *regs = registers(r->engine->env);

    r->quick.limit = NULL;
    if (r->count != 1 || r->undefined || r->enters_mmx || r->narrow.opcode || r->aligned || r->touched || r->branch || r->fetch || r->input || r->first ||
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
    r->shows_lock = !loses_flags_locked(in);
    r->engine->dropping = drops_too_little(in);
    r->aligned = r->engine->checked && !refused && wants_alignment(in, r->engine->denied);
    r->touched = refused || r->aligned ? 0 : (uint8_t)touched_first(in); /* what is aligned lies on one page */
    r->addressing = addressing_of(in, r->bits, r->pc);
    r->fetch = r->input = r->count = 0;
    if (in->opcode >= 0x6c && in->opcode <= 0x6f) /* INS and OUTS: ports are denied first */
        r->input = in->opcode % 2 ? in->operand_size : 1;
    r->first = wide ? 0 : precedence_of(in);
    r->repeated = in->repeat;
    r->narrow.opcode = r->bits == 16 && is_narrow(in) ? (uint16_t)in->opcode : 0;
    if (r->narrow.opcode) {
        r->narrow.size = in->operand_size;
        r->narrow.reg = in->reg;
        r->narrow.rm = in->rm;
        r->narrow.sums = in->opcode == 0x38f1 && in->repeat;
    }
    r->loads_base = wide && in->opcode == 0x0f01 && in->rm == NONE && (in->reg == 2 || in->reg == 3);
    if (wide && (r->aligned || r->touched || r->loads_base)) {
        r->count = r->aligned ? 1 : in->count;
        memcpy(r->references, in->references, r->count * sizeof r->references[0]);
    }
    if (wide) {
        r->quick.limit = NULL;
        return r->aligned || r->undefined || r->touched || r->input || r->enters_mmx || r->loads_base;
    }
    if (limited)
        r->branch = in->branch != BRANCH_NONE || !real_mode(r->engine->env) ? in->branch : (uint8_t)far_branch(in);
    r->fetch = code == CODE_CHECK || (code == CODE_64K && (uint64_t)ip + in->length > 0x10000);
    for (int i = 0; i < in->count && !refused; i++)
        if (in->references[i].segment == SS && in->references[i].kind == WRITES && calls_far(in, flags))
            continue;
        /* the target of a branch through memory is taken from the first reference */
        else if (r->touched || !never_breaks(&in->references[i], sign) ||
            (i == 0 && (r->aligned || r->narrow.opcode || r->branch == BRANCH_OPERAND || r->branch == BRANCH_RETURN)))
            r->references[r->count++] = in->references[i];
    simplify(r, sign);
    return r->count || r->branch || r->fetch || r->input || r->undefined || r->enters_mmx || r->narrow.opcode;
}

/* What is to be looked at of the instruction that begins `bytes`; -1 when they end before it does. Of some the length
 * is not known; what they are is. */
static int decode_for(struct record *r, const uint8_t *bytes, int length, uint32_t sign, uint32_t flags)
{
    static __thread struct instruction in;
    uint32_t ip = (uint32_t)(r->pc - segment_of(r->engine->env, CS)->base);

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
    return r->aligned && r->count == 1 && !r->undefined && !r->fetch && !r->branch &&
           (r->bits == 64 || never_breaks(r->references, sign));
}

/* Nothing but whether its operands' pages are there is to be asked. */
static int only_pages(const struct record *r, uint32_t sign)
{
    if (!r->touched || r->undefined || r->fetch || r->branch)
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

/* Of the first reference; what RIP adds to it is known, as the instruction stands where it is translated for. */
static uint32_t displacement_of(const struct record *r)
{
    return r->references[0].displacement + (r->relative ? (uint32_t)r->pc + r->length : 0);
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
        if (e->signatures[0])
            emit(e, tcg, a);
    }
}

/* True when a block of the longest kind may not find room for its records. */
int records_full(const engine *e)
{
    return e->records_used + 512 * RECORD_MOST > RECORDS_SIZE;
}

/* ---- When it executes */

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
static uint8_t byte_behind(engine *e, const struct record *r, int number, uint64_t host)
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

static __attribute__((noinline)) void check(struct record *r, uint64_t host)
{
    engine *e = r->engine;
    const struct segment *cs = segment_of(e->env, CS);
    int vector = 0;

    e->asked++;
    if (unlikely(!r->length) && !complete(e, r, host))
        return;
    if (r->fetch && (uint64_t)(uint32_t)(r->pc - cs->base) + r->length - 1 > cs->limit)
        vector = EXCP_GP;
    else if (r->undefined)
        vector = EXCP_UD;
    else if (r->first && comes_first(e->env, r->first, r->operand_size))
        return;
    else if (r->waits)
        wait_for(e->env, host);
    if (r->input && !vector && !(r->repeated && !(reg(e, CX) & r->address_mask)))
        ask_for_port(e, r, host);
    for (int i = 0; i < r->count && !vector && r->bits != 64 && e->checked; i++)
        if (!(r->references[i].kind & REPEATED) || reg(e, CX) & r->address_mask)
            vector = violation(e, &r->references[i]);
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

/* `enabled`: segments are checked. `denied`: bits of emu/x86/vectors.py, whose instructions are undefined. */
API void v2e_fast_checks(engine *e, int enabled, uint32_t denied)
{
    e->checked = enabled;
    e->denied = (uint16_t)denied;
    e->signatures[0] = ALL_FLAT;
    e->control->leave |= LEAVE_BLOCK;
}
