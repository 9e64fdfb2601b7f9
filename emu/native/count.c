/* Counting and stopping: the check at the beginning of each block, and every way out of one. */
#include "fast.h"

#include <stddef.h>

/* Leave the block that is about to begin. Nothing of it has happened, and its EIP is in place. */
void leave_block(engine *e)
{
    AT(int32_t, e->cpu, at.cpu_exception_index) = -1;
    real_cpu_loop_exit(e->cpu);
    __builtin_unreachable();
}

void stop_run(engine *e, uint32_t reason)
{
    e->control->reason = reason;
    real_uc_emu_stop(e->uc);
    leave_block(e);
}

/* The breakpoint on the first instruction of `block` has been reported or passed over; when the block has to begin
 * again without having executed that instruction, it is not to be met a second time. */
void keep_skip(engine *e, const tb *block)
{
    e->control->skip = block->flags & HF_CS64 ? block->pc : (uint32_t)block->pc;
    e->control->skip_rsp = AT(uint64_t, e->env, at.env_rsp);
}

/* True when the breakpoint on the first instruction of `s` ends the run. A repeated string instruction is reported
 * on arrival only; the one to be resumed from is passed over once, by the block that then runs. */
static int breakpoint_met(engine *e, const slot *s, int64_t most)
{
    struct control *c = e->control;
    uint64_t linear = s->block->flags & HF_CS64 ? s->block->pc : (uint32_t)s->block->pc;

    if (c->skip == linear && c->skip_rsp == AT(uint64_t, e->env, at.env_rsp)) {
        if (s->insns <= most)
            c->skip = EMPTY;
        return 0;
    }
    return !(s->repeats && c->last == s->block->pc);
}

/* True when something changed that watchpoints are placed by. */
static int watched_changed(const engine *e)
{
    const struct control *c = e->control;
    const uint64_t *cr = &AT(uint64_t, e->env, at.env_cr), *dr = &AT(uint64_t, e->env, at.env_dr);

    if (!c->paging)
        return 0;
    if (cr[0] != c->cr0 || cr[3] != c->cr3 || cr[4] != c->cr4)
        return 1;
    for (int i = 0; i < 4; i++)
        if (dr[i] != c->dr[i])
            return 1;
    return 0;
}

/* The order of the questions is that of the gate of emu/unicorn_thunks.py, so that both loops stop alike. */
static __attribute__((noinline)) void look(engine *e, slot *s)
{
    struct control *c = e->control;
    int64_t most = c->remaining;

    e->slow++;
    *e->eip = s->eip;
    engine_left(e);
    end_false_shadow(e);
    /* Unicorn itself wants the block left: a callback stopped the engine, or an access failed. */
    if (*e->decrementer < 0)
        leave_block(e);
    if ((uint32_t)(&AT(uint64_t, e->env, at.env_dr))[7] != c->dr7)
        stop_run(e, STOP_CHANGED);
    /* A data breakpoint of DR0 to DR3 was met: a trap behind its instruction. */
    if (c->trap && !holds_traps(e)) {
        c->trap = c->step = 0;
        AT(uint64_t, e->env, at.env_error_code) = 0; /* and exception_is_int */
        AT(int32_t, e->cpu, at.cpu_exception_index) = 1;
        c->leave |= LOOK;
        real_cpu_loop_exit(e->cpu);
    }
    if (c->remaining <= 0) {
        if (!next_part(e))
            stop_run(e, STOP_BUDGET);
        most = c->remaining;
    }
    if (c->stop || c->halt_run)
        stop_run(e, STOP_ASKED);
    if (c->changes && mode_or_task_changed(e))
        stop_run(e, STOP_EVENT);
    /* An interrupt is delivered at the first boundary where the CPU takes it, whatever chained blocks to each other:
     * shadows end only with a block, and while IF is clear all that may set it have the next block looked at. */
    if (c->masked || c->interrupt) {
        c->masked = !(AT(uint64_t, e->env, at.env_eflags) & EFLAGS_IF);
        c->interrupt = !c->masked;
    }
    if (c->interrupt && !(AT(uint32_t, e->env, at.env_hflags) & HF_INHIBIT_IRQ)) {
        if (s->repeats && c->last == s->block->pc)
            mark_repeat(e, s);
        c->interrupt = 0;
        c->taken = c->last_for_now && !c->taken && !c->step && c->skip == EMPTY ? TAKEN_ON : TAKEN;
        c->taken_at = e->cells->end - (uint64_t)c->remaining;
        if (c->taken == TAKEN) /* stop at the handler's first instruction: the controller must learn of it */
            c->halt_run = 1;
        else
            acknowledge_shared(e);
        c->taken_vector = (uint8_t)c->vector;
        c->step = 0;
        AT(uint32_t, e->cpu, at.cpu_interrupt_request) |= INTERRUPT_VIRQ;
        leave_block(e);
    }
    if (watched_changed(e))
        stop_run(e, STOP_CHANGED);
    /* The segment caches are of another class than the block was made for. */
    if (reclassify(e) || c->leave & LEAVE_BLOCK) {
        c->leave = virtual_interrupt_due(e) ? LOOK : 0;
        if (c->step) /* what comes instead is to be of one instruction too */
            AT(uint32_t, e->cpu, at.cpu_cflags_next_tb) = 1;
        leave_block(e);
    }
    if (s->breakpoint && breakpoint_met(e, s, most)) {
        e->stopped = s->block;
        stop_run(e, STOP_BREAKPOINT);
    }
    if (c->leave && virtual_interrupt_due(e)) { /* a fault of the instruction, which counts */
        c->remaining--;
        c->last = s->block->pc;
        c->step = 0;
        real_raise_exception_err(e->env, EXCP_GP, 0);
    }
    if (e->fills == THRASHES)
        grow_tlb(e);
    if (c->trap) /* behind the one instruction to come */
        most = 1;
    /* Too long for what is left: the next block is one of exactly so many. */
    if (s->insns > most) {
        e->partial++;
        AT(uint32_t, e->cpu, at.cpu_cflags_next_tb) = (uint32_t)most;
        leave_block(e);
    }
    c->leave = 0;
    /* A single step: the CPU loop is to return behind this instruction, before it translates what follows. */
    if (c->step && s->insns == 1) {
        AT(uint8_t, e->cpu, at.cpu_exit_request) = 1;
        AT(uint32_t, e->uc, at.uc_invalid_error) = STEP_DONE;
    }
    c->remaining -= s->insns;
    c->running = (uint32_t)(s - e->slots) + 1;
}

/* The slow way out of the check (entry.c), which has counted the block already. Returns to go on with it. */
__attribute__((visibility("hidden"), used)) void v2e_check_block(uint8_t *argument)
{
    slot *s = (slot *)(argument - 1);

    s->engine->control->remaining += s->need;
    look(s->engine, s);
}

/* void helper_check_exit_request(void *, uint32_t): Unicorn's own check gets the address of struct uc_struct, which is
 * even; a slot's has bit 0 set, a record's of checks.c bits 0 and 1. They are jumped to, as they look at their return
 * address. */
__asm__(".text\n"
        ".globl helper_check_exit_request_x86_64\n"
        ".type helper_check_exit_request_x86_64, @function\n"
        "helper_check_exit_request_x86_64:\n"
        "    testb $1, %dil\n"
        "    je 1f\n"
        "    testb $2, %dil\n"
        "    je v2e_check_block\n"
        "    jmp v2e_check_operands\n"
        "1:\n"
        "    movq real_helper_check_exit_request@GOTPCREL(%rip), %rax\n"
        "    jmp *(%rax)\n"
        ".size helper_check_exit_request_x86_64, .-helper_check_exit_request_x86_64\n");

/* The CPU loop is about to enter a block. Device accesses are allowed outside of blocks, and in those that say so. */
REPLACES void tb_exec_lock_x86_64(void *uc)
{
    engine *e = engine_of_uc(uc);

    real_tb_exec_lock(uc);
    if (e)
        *e->can_do_io = 0;
}

/* ---- Ways out */

/* Unicorn wants the running block left: it sets `decrementer`, which the next block's `look` looks at. */
REPLACES void cpu_exit(void *cpu)
{
    engine *e = engine_of_cpu(cpu);

    real_cpu_exit(cpu);
    if (e)
        e->control->leave |= LOOK;
}

/* A block is left in the middle: give back what did not run. A faulting instruction counts, a store that must be done
 * again because it changes its own block does not, nor does the instruction under a breakpoint of DR0 to DR3. */
static void unwind(engine *e)
{
    slot *s = running(e);
    tb *block = s->block;
    uint64_t pc = *e->eip + block->cs_base, previous = EMPTY;
    int index = -1, done;

    e->unwound++;
    e->control->running = 0;
    if (e->unwinding) /* the host address tells even when EIP is another task's by now */
        index = index_of_host(block, e->unwinding, &pc);
    if (index < 0)
        index = index_of_pc(block, pc, &previous);
    else
        index_of_pc(block, pc, &previous);
    if (index < 0) { /* behind the last instruction: HLT, a single-step trap */
        e->control->last = s->last;
        return;
    }
    done = index + 1;
    if (AT(int32_t, e->cpu, at.cpu_exception_index) == -1 &&
        AT(uint32_t, e->cpu, at.cpu_cflags_next_tb) != NO_CFLAGS) {
        done = index;
        if (!index && s->breakpoint)
            keep_skip(e, block);
    } else if (AT(int32_t, e->cpu, at.cpu_exception_index) == EXCP_DEBUG) {
        done = index;
    }
    e->control->last = done > index ? pc : previous;
    e->control->remaining += block->icount - done;
}

/* Unicorn disables its memory hooks while it takes an unaligned access apart, and leaving in there keeps them so until
 * the CPU loop is entered again: make it, where watchpoints depend on them. */
void enable_hooks(const engine *e)
{
    if (e->control->paging)
        AT(uint8_t, e->cpu, at.cpu_exit_request) = 1;
}

/* Every longjmp out of a block or out of the making of one comes through here. */
REPLACES void cpu_loop_exit_x86_64(void *cpu)
{
    engine *e = engine_of_cpu(cpu);

    if (e) {
        translating = NULL;
        if (running(e))
            unwind(e);
        e->unwinding = e->synchronised = 0;
        if (AT(int32_t, e->cpu, at.cpu_exception_index) >= 0)
            e->control->leave |= LOOK; /* its delivery loads segments */
        enable_hooks(e);
    }
    real_cpu_loop_exit(cpu);
}

/* Unicorn asks for this before it calls a memory hook, too, of accesses of an instruction that goes on behind it
 * (`will_exit` is 0). In a block of one instruction that must not be done: RETF in real mode has stored the new EIP
 * before its second read, and would be run again. Elsewhere the block is left there (v2e_fast_memory_hook). */
REPLACES int cpu_restore_state_x86_64(void *cpu, uint64_t host, int will_exit)
{
    engine *e = engine_of_cpu(cpu);

    if (e) {
        if (will_exit)
            e->unwinding = host;
        else
            e->synchronised = host;
        if (!will_exit && running(e) && running(e)->io)
            return 1;
    }
    return real_cpu_restore_state(cpu, host, will_exit);
}

/* The next block is being looked up: the running one reached its end. */
REPLACES tb *tb_htable_lookup_x86_64(void *cpu, uint64_t pc, uint64_t cs_base, uint32_t flags, uint32_t cflags)
{
    engine *e = engine_of_cpu(cpu);

    if (e) {
        engine_left(e);
        refuse_fetch(e, pc, pc - cs_base, flags);
    }
    return real_tb_htable_lookup(cpu, pc, cs_base, flags, cflags);
}

REPLACES int x86_cpu_exec_interrupt_x86_64(void *cpu, int request)
{
    engine *e = engine_of_cpu(cpu);

    if (e) {
        engine_left(e);
        e->control->leave |= LOOK;
        *e->can_do_io = 1; /* its delivery is no block's work */
    }
    if (interrupt_delivered(cpu, request))
        return 1;
    return real_x86_cpu_exec_interrupt(cpu, request);
}

/* ---- What changes seldom: control and debug registers, segment caches, mode
 *
 * `look` compares it with what was decided by it. These are the ways in which an instruction or a task switch changes
 * any of it; each ends its block, but for a load of a data segment register, which is made to. More are in tasks.c.
 */

engine *look_behind(void *env)
{
    engine *e = engine_of_env(env);

    if (e)
        e->control->leave |= LOOK;
    return e;
}

#define LOOK_BEHIND(name, parameters, arguments)                                                                       \
    REPLACES void name##_x86_64 parameters                                                                             \
    {                                                                                                                  \
        look_behind(env);                                                                                              \
        real_##name arguments;                                                                                         \
    }
LOOK_BEHIND(cpu_x86_update_cr3, (void *env, uint64_t a), (env, a))
LOOK_BEHIND(cpu_x86_update_cr4, (void *env, uint32_t a), (env, a))
LOOK_BEHIND(cpu_x86_update_dr7, (void *env, uint32_t a), (env, a))
LOOK_BEHIND(helper_rsm, (void *env), (env))

/* POPF, and STI of shadow.c, of which few set IF while an interrupt waits for that. Other ways to it are among those
 * above and in system.c and tasks.c. */
REPLACES void helper_write_eflags_x86_64(void *env, uint64_t value, uint32_t mask)
{
    engine *e = engine_of_env(env);

    if (e && e->control->masked)
        e->control->leave |= LOOK;
    real_helper_write_eflags(env, value, mask);
}

REPLACES void helper_load_seg_x86_64(void *env, int segment, int selector)
{
    engine *e = look_behind(env);

    if (e && e->checked) /* the class is another for the rest of the block */
        be_alone(e, (uint64_t)__builtin_return_address(0));
    real_helper_load_seg(env, segment, selector);
}
