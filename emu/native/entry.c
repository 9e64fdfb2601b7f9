/* The check at the beginning of each block, emitted as TCG operations: what every block executes, and so what the speed
 * of short blocks depends on. `look` of count.c, called from the block's end, does the rest. */
#include "fast.h"
#include "tcg.h"

#include <stddef.h>

/* A temporary is known to operations by its address, and to functions by its distance from the context. */
static uint64_t new_temporary(engine *e)
{
    return (uint64_t)real_tcg_temp_new_internal(e->tcg, TCG_I64, 0);
}

static uint64_t constant(engine *e, const void *value)
{
    return (uint64_t)e->tcg + real_tcg_const_i64(e->tcg, (int64_t)value);
}

static void free_temporary(engine *e, uint64_t t)
{
    real_tcg_temp_free_internal(e->tcg, (void *)t);
}

/* struct TCGLabel: bit 0 of the first byte says that it has its place, the 16 bits at offset 2 count jumps to it. */
static void place_label(engine *e, uint8_t *label)
{
    label[0] |= 1;
    real_tcg_gen_op1(e->tcg, SET_LABEL, (uint64_t)label);
}

static void jump(engine *e, uint8_t *label)
{
    AT(uint16_t, label, 2)++;
    real_tcg_gen_op1(e->tcg, BR, (uint64_t)label);
}

/* Store a constant to a field of the CPU where device accesses are allowed. */
static void allow_devices(engine *e, int64_t allowed)
{
    uint64_t t = constant(e, (void *)allowed), base = constant(e, e->can_do_io);

    real_tcg_gen_op3(e->tcg, ST32_I64, t, base, 0);
    free_temporary(e, base);
    free_temporary(e, t);
}

/* Where operations have the control structure: `field` of it is at `offset` from the temporary `base`. It lies near the
 * CPU's state (v2e_fast_page), which a host register points to, so that a field is an instruction's displacement away. */
struct field {
    uint64_t base;
    int64_t offset;
};

static struct field control_field(engine *e, size_t field)
{
    struct field f = {(uint64_t)e->tcg + CPU_ENV, e->near_control + (int64_t)field};

    if (!e->near_control)
        f = (struct field){constant(e, e->control), (int64_t)field};
    return f;
}

static void free_field(engine *e, struct field f)
{
    if (!e->near_control)
        free_temporary(e, f.base);
}

/* A constant whose value is told later, at the address that this gives. */
static uint64_t *later(engine *e, uint64_t t)
{
    uint64_t *arguments = &AT(uint64_t, real_tcg_emit_op(e->tcg, MOVI_I64), OP_ARGUMENTS);

    arguments[0] = t;
    return &arguments[1];
}

/* remaining -= need; if (remaining < 0 || attention) goto slow; running = slot
 *
 * `need` is known when the block's instructions are, and put in place then: block_needs. `remaining` is stored before
 * the jump, as no temporary outlives one; the slow way takes it back. One jump asks both: a number below 0 has its
 * highest bit set, and so has the negative of the attention word, whose own is clear. That Unicorn wants the block left
 * is told by the attention word too: cpu_exit of count.c.
 *
 * Blocks are entered with device accesses forbidden (tb_exec_lock of count.c). One that was made of one instruction on
 * purpose allows them, and forbids them again where it goes on to another block. */
void emit_check(engine *e, const slot *s)
{
    uint64_t left = new_temporary(e), t = new_temporary(e);
    struct field remaining = control_field(e, offsetof(struct control, remaining)), f;

    e->slow_way = real_gen_new_label(e->tcg);
    e->go_on = real_gen_new_label(e->tcg);
    real_tcg_gen_op3(e->tcg, LD_I64, left, remaining.base, (uint64_t)remaining.offset);
    e->need = later(e, t);
    real_tcg_gen_op3(e->tcg, ADD_I64, left, left, t);
    real_tcg_gen_op3(e->tcg, ST_I64, left, remaining.base, (uint64_t)remaining.offset);
    free_field(e, remaining);
    /* the attention word: a byte of padding, and the seven from `checks` to `step`, the highest, which is 0 or 1 */
    f = control_field(e, offsetof(struct control, checks) - 1);
    real_tcg_gen_op3(e->tcg, LD_I64, t, f.base, (uint64_t)f.offset);
    free_field(e, f);
    real_tcg_gen_op2(e->tcg, NEG_I64, t, t);
    real_tcg_gen_op3(e->tcg, OR_I64, left, left, t);
    real_tcg_gen_brcondi_i64(e->tcg, LESS, left - (uint64_t)e->tcg, 0, e->slow_way);
    free_temporary(e, left);
    free_temporary(e, t);
    place_label(e, e->go_on);
    f = control_field(e, offsetof(struct control, running));
    t = constant(e, (void *)(s - e->slots + 1));
    real_tcg_gen_op3(e->tcg, ST32_I64, t, f.base, (uint64_t)f.offset);
    free_temporary(e, t);
    free_field(e, f);
    if (e->single)
        allow_devices(e, 1);
}

/* The operations of the block are there, and its check takes `need` from what remains. */
void block_needs(engine *e, int64_t need)
{
    *e->need = (uint64_t)-need;
}

/* EFLAGS.RF = 0, as the instruction is at its end. */
static void emit_end_of_resume(engine *e)
{
    uint64_t flags = new_temporary(e), mask = constant(e, (void *)~(uint64_t)EFLAGS_RF), env = (uint64_t)e->tcg + CPU_ENV;

    real_tcg_gen_op3(e->tcg, LD_I64, flags, env, at.env_eflags);
    real_tcg_gen_op3(e->tcg, AND_I64, flags, flags, mask);
    real_tcg_gen_op3(e->tcg, ST_I64, flags, env, at.env_eflags);
    free_temporary(e, mask);
    free_temporary(e, flags);
}

/* Of a block whose first instruction has RF set, `function` is about to be called: HLT, behind which the block ends as it
 * is; or what may load RF itself, before which RF is cleared (end_resume of steps.c), and not behind it. */
void ends_otherwise(engine *e, const void *function)
{
    extern void helper_iret_real_x86_64(void *, uint64_t), helper_iret_protected_x86_64(void *, uint64_t, uint64_t),
        helper_ljmp_protected_x86_64(void *, uint64_t, uint64_t, uint64_t),
        helper_lcall_protected_x86_64(void *, uint64_t, uint64_t, uint64_t, uint64_t);

    if (function == (void *)real_helper_hlt)
        emit_end_of_resume(e);
    else if (function == (void *)helper_iret_real_x86_64 || function == (void *)helper_iret_protected_x86_64 ||
             function == (void *)helper_ljmp_protected_x86_64 || function == (void *)helper_lcall_protected_x86_64)
        e->making->flags &= ~EFLAGS_RF;
}

/* The two ways from one block to another that do not go through the CPU loop. Where Unicorn ends a block by the first it
 * leaves RF set. A repeated string instruction goes back to itself by way 0, with RF as it is, and behind its last
 * iteration by way 1. */
REPLACES void tcg_gen_goto_tb_x86_64(void *tcg, unsigned way)
{
    engine *e = translating;

    if (e && e->tcg == tcg && unlikely(e->making->flags & EFLAGS_RF) && (way || !e->repeated))
        emit_end_of_resume(e);

    if (e && e->tcg == tcg && e->single)
        allow_devices(e, 0);
    real_tcg_gen_goto_tb(tcg, way);
}

REPLACES void tcg_gen_lookup_and_goto_ptr_x86_64(void *tcg)
{
    engine *e = translating;

    if (e && e->tcg == tcg && e->single)
        allow_devices(e, 0);
    real_tcg_gen_lookup_and_goto_ptr(tcg);
}

/* At the block's end, out of the way: the call of `look` for what the jump of `emit_check` comes with. */
void emit_slow_way(engine *e, const slot *s)
{
    extern void helper_check_exit_request_x86_64(void *, uint32_t);
    void *both[2];

    place_label(e, e->slow_way);
    both[0] = e->tcg + real_tcg_const_i64(e->tcg, (int64_t)s | 1);
    both[1] = e->tcg + real_tcg_const_i32(e->tcg, 0); /* which Unicorn's own takes */
    real_tcg_gen_callN(e->tcg, (void *)helper_check_exit_request_x86_64, NULL, 2, both);
    jump(e, e->go_on);
}

/* if ((sum & mask) > most) { ... emit_end_if; the sum is not needed any more */
static void emit_if(engine *e, uint64_t sum, uint32_t mask, uint32_t most)
{
    uint64_t distance = sum - (uint64_t)e->tcg;

    real_tcg_gen_andi_i64(e->tcg, distance, distance, mask);
    e->end_if = real_gen_new_label(e->tcg);
    real_tcg_gen_brcondi_i64(e->tcg, NOT_ABOVE, distance, most, e->end_if);
    free_temporary(e, sum);
}

/* if (((base + index + displacement) & mask) > most) { ... emit_end_if
 *
 * What stands between is skipped, and belongs to the instruction being translated, so that a call there is unwound to
 * it. Registers by number, below 0: none. */
void emit_if_beyond(engine *e, int base, int index, uint32_t displacement, uint32_t mask, uint32_t most)
{
    uint64_t tcg = (uint64_t)e->tcg, sum = new_temporary(e), part = constant(e, (void *)(uintptr_t)displacement);
    const uint64_t *regs = &AT(uint64_t, e->tcg, CPU_REGS);

    real_tcg_gen_op2(e->tcg, MOV_I64, sum, part);
    if (base >= 0)
        real_tcg_gen_op3(e->tcg, ADD_I64, sum, sum, tcg + regs[base]);
    if (index >= 0)
        real_tcg_gen_op3(e->tcg, ADD_I64, sum, sum, tcg + regs[index]);
    free_temporary(e, part);
    emit_if(e, sum, mask, most);
}

/* if (((base + (index << shift) + displacement + what is at env + `segment_base`) & low.mask) > low.most) { ...
 * emit_end_if
 *
 * `segment_base` below 0: none. Only the bits of the mask, the lowest ones, matter of the parts. */
void emit_if_low(engine *e, int base, int index, int shift, int64_t segment_base, uint32_t displacement,
                 struct low_bits low)
{
    uint64_t tcg = (uint64_t)e->tcg, sum = new_temporary(e), part;
    const uint64_t *regs = &AT(uint64_t, e->tcg, CPU_REGS);

    if (base >= 0) {
        real_tcg_gen_op2(e->tcg, MOV_I64, sum, tcg + regs[base]);
    } else {
        part = constant(e, NULL);
        real_tcg_gen_op2(e->tcg, MOV_I64, sum, part);
        free_temporary(e, part);
    }
    if (displacement & low.mask) {
        part = constant(e, (void *)(uintptr_t)(displacement & low.mask));
        real_tcg_gen_op3(e->tcg, ADD_I64, sum, sum, part);
        free_temporary(e, part);
    }
    if (index >= 0) {
        uint64_t by = constant(e, (void *)(uintptr_t)shift);

        part = new_temporary(e);
        real_tcg_gen_op3(e->tcg, SHL_I64, part, tcg + regs[index], by);
        real_tcg_gen_op3(e->tcg, ADD_I64, sum, sum, part);
        free_temporary(e, part);
        free_temporary(e, by);
    }
    if (segment_base >= 0) {
        part = new_temporary(e);
        real_tcg_gen_op3(e->tcg, LD_I64, part, tcg + CPU_ENV, (uint64_t)segment_base);
        real_tcg_gen_op3(e->tcg, ADD_I64, sum, sum, part);
        free_temporary(e, part);
    }
    emit_if(e, sum, low.mask, low.most);
}

/* if (CR0.PG) { ... emit_end_if */
void emit_if_paging(engine *e)
{
    uint64_t cr0 = new_temporary(e);

    real_tcg_gen_op3(e->tcg, LD_I64, cr0, (uint64_t)e->tcg + CPU_ENV, at.env_cr);
    emit_if(e, cr0, CR0_PG, 0);
}

void emit_end_if(engine *e)
{
    place_label(e, e->end_if);
}

/* A call of what FCMOV does whether its condition holds or not, with the number of its register. */
void emit_fcmov(engine *e, int number)
{
    extern void helper_fmov_FT0_STN_x86_64(void *, int);
    void *both[2] = {e->tcg + CPU_ENV, e->tcg + real_tcg_const_i32(e->tcg, number | FCMOV)};

    real_tcg_gen_callN(e->tcg, (void *)helper_fmov_FT0_STN_x86_64, NULL, 2, both);
    real_tcg_temp_free_internal(e->tcg, both[1]);
}

/* What an MMX register has above its 64 bits once an instruction has written it. */
void emit_ones(engine *e, int number)
{
    uint64_t ones = constant(e, (void *)0xffff);

    real_tcg_gen_op3(e->tcg, ST16_I64, ones, (uint64_t)e->tcg + CPU_ENV, at.env_fpregs + 16u * (uint32_t)number + 8);
    free_temporary(e, ones);
}
