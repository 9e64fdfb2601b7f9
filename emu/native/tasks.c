/* Far transfers and interrupts that Unicorn gets wrong: asked of Python (emu/unicorn_transfers.py) where they are
 * unusual, left to Unicorn where they are not. */
#include "targets.h"

#include "checks.h"
#include "segments.h"

#include <pthread.h>
#include <stddef.h>

enum { JUMP = 1, CALL, IRET, RETF, INTERRUPT };
typedef uint64_t transfer(void *env, uint32_t kind, uint64_t a, uint64_t b);

#define EFLAGS_VIRTUAL (EFLAGS_VIF | EFLAGS_VIP)

/* Whom to ask, for engines of either run loop. Entries are used again and never freed. */
#define ENGINES 256
static struct {
    void *env;
    transfer *ask;
} asked[ENGINES];
static pthread_mutex_t coming_and_going = PTHREAD_MUTEX_INITIALIZER;

/* Ask `ask` about the CPU at `env`; NULL forgets it. Returns 0 when there is no room. */
API int v2e_fast_transfers(void *env, transfer *ask)
{
    int room = -1;

    pthread_mutex_lock(&coming_and_going);
    for (int i = 0; i < ENGINES; i++) {
        if (asked[i].env == env) {
            room = i;
            break;
        }
        if (!asked[i].env && room < 0)
            room = i;
    }
    if (room >= 0) {
        asked[room].ask = ask;
        asked[room].env = ask ? env : NULL;
    }
    pthread_mutex_unlock(&coming_and_going);
    return room >= 0;
}

static transfer *whom(const void *env)
{
    for (int i = 0; i < ENGINES; i++)
        if (asked[i].env == env)
            return asked[i].ask;
    return NULL;
}

/* Ask, with EIP and the flags' state of the instruction that called from `host`; act on the answer. Returns when the
 * original has to do it. */
static void ask(void *env, uint32_t kind, uint64_t a, uint64_t b, uint64_t host)
{
    uint8_t *cpu = (uint8_t *)env - at.cpu_env;
    engine *e = engine_of_cpu(cpu);
    transfer *f = whom(env);
    extern void cpu_loop_exit_x86_64(void *);
    uint64_t answer;

    if (!f)
        return;
    real_cpu_restore_state(cpu, host, 0);
    end_resume(env);
    answer = f(env, kind, a, b);
    if (!answer)
        return;
    if (e && running(e))
        e->unwinding = host;
    if (answer == INSTEAD) {
        AT(int32_t, cpu, at.cpu_exception_index) = -1;
        cpu_loop_exit_x86_64(cpu);
        __builtin_unreachable();
    }
    real_raise_exception_err(env, (int)(answer & 0xff), (int)(answer >> 32));
}

/* True when `beyond` is of the address on the stack to which RETF or IRET of operands of `size` bytes returns. */
static int returns_beyond(void *env, int size, uint64_t host)
{
    const struct segment *ss = segment_of(env, SS);
    uint32_t esp = (uint32_t)AT(uint64_t, env, at.env_rsp), mask = stack_mask(ss);
    uint32_t offset, image;

    offset = real_cpu_ldl_data_ra(env, (uint32_t)(ss->base + (esp & mask)), host);
    image = real_cpu_lduw_data_ra(env, (uint32_t)(ss->base + ((esp + (uint32_t)size) & mask)), host);
    return beyond(env, image, size == 2 ? offset & 0xffff : offset, host);
}

/* ---- Frames on the stack of the program. Unicorn stores and loads them as the supervisor that it is in a transfer to
 * another ring; of one that stays in its ring, and in V86 mode, the accesses are the program's own (SDM vol. 3A, 4.6). */

static uint64_t on_stack(void *env, uint64_t rsp)
{
    const struct segment *ss = segment_of(env, SS);

    return AT(uint32_t, env, at.env_hflags) & HF_CS64 ? rsp : (uint32_t)(ss->base + ((uint32_t)rsp & stack_mask(ss)));
}

/* `count` pushes of `size` bytes are to come: each is touched before the first is made. */
static void touch_pushes(void *env, uint32_t size, uint32_t count, uint64_t host)
{
    for (uint32_t i = 1; i <= count; i++)
        touch(env, on_stack(env, AT(uint64_t, env, at.env_rsp) - size * i), size, 1, host);
}

static void touch_pops(void *env, uint32_t size, uint32_t count, uint64_t host)
{
    for (uint32_t i = 0; i < count; i++)
        touch(env, on_stack(env, AT(uint64_t, env, at.env_rsp) + size * i), size, 0, host);
}

/* Ring 3, and V86 mode with it, which comes back to no other ring. */
static int of_users(void *env)
{
    return (AT(uint32_t, env, at.env_hflags) & HF_CPL) == 3;
}

/* A far JMP or CALL in IA-32e mode, without a gate: #GP(0) when its offset is beyond code that is not of 64 bits, if nothing
 * is wrong about that (vol. 2A, CALL, JMP). */
static void refuse_offset(void *env, uint32_t selector, uint32_t offset, uint64_t host)
{
    if (!legacy_mode(env) && calls_code(env, selector, 0, host) && beyond_in_64(env, selector, offset, host))
        real_raise_exception_err_ra(env, EXCP_GP, 0, host);
}

/* #SS(0) where the frame of a far CALL is not within the stack: behind what its selector may raise, before what its
 * offset does (vol. 2A, CALL). */
static void refuse_pushes(void *env, uint32_t selector, uint32_t operand_size, uint64_t host)
{
    const engine *e = engine_of_env(env);
    const struct segment *ss = segment_of(env, SS);
    uint32_t size;

    if (!e || !running(e) || !e->checked || is_flat(ss) || !(size = size_of_pushes(env, selector, operand_size, host)))
        return;
    for (uint32_t i = 1; i <= 2; i++) {
        struct reference push = {.segment = SS, .kind = WRITES, .size = (uint16_t)size, .base = SP, .index = NONE,
                                 .scale = 1, .bits = NONE, .displacement = 0u - size * i, .mask = stack_mask(ss)};
        int vector = violation(e, &push);

        if (vector)
            real_raise_exception_err_ra(env, vector, 0, host);
    }
}

/* #AC(0) where the pushes of a far CALL of ring 3 that stays in it are not aligned (vol. 2A, CALL). */
static void refuse_unaligned(void *env, uint32_t size, uint64_t host)
{
    const engine *e = engine_of_env(env);

    if (e && e->checked && size && alignment_checked(env) && on_stack(env, AT(uint64_t, env, at.env_rsp)) & (size - 1))
        real_raise_exception_err_ra(env, EXCP_AC, 0, host);
}

/* IA-32e mode: #GP(0) when RETF or IRET, which pop `items` at first, would go to an address that is not canonical, or beyond
 * the limit of code that is not of 64 bits, if nothing is wrong about the code segment (SDM vol. 2A, IRET; vol. 2B, RET). */
static void refuse_return(void *env, uint64_t shift, uint32_t items, uint64_t host)
{
    uint64_t rsp = AT(uint64_t, env, at.env_rsp), first, offset;
    uint32_t selector, size = 2u << (shift & 3);

    if (legacy_mode(env))
        return;
    first = on_stack(env, rsp);
    offset = size == 2 ? real_cpu_lduw_data_ra(env, first, host) : real_cpu_ldl_data_ra(env, first, host);
    if (size == 8)
        offset = real_cpu_ldq_data_ra(env, first, host);
    selector = real_cpu_lduw_data_ra(env, on_stack(env, rsp + size), host);
    if (canonical(offset) && !beyond_in_64(env, selector, (uint32_t)offset, host))
        return;
    real_cpu_lduw_data_ra(env, on_stack(env, rsp + size * (items - 1)), host);
    if (returns_to_code(env, selector, host))
        real_raise_exception_err_ra(env, EXCP_GP, 0, host);
}

/* The originals find the instruction by their return address, so each is called last, as a jump. */

REPLACES void helper_ljmp_protected_x86_64(void *env, uint64_t selector, uint64_t offset, uint64_t next)
{
    uint64_t host = (uint64_t)__builtin_return_address(0);

    look_behind(env);
    end_resume(env);
    if (legacy_mode(env) && (rare(env, (uint32_t)selector, 1, host) ||
                        beyond(env, (uint32_t)selector, (uint32_t)offset, host)))
        ask(env, JUMP, (selector & 0xffff) | offset << 32, (uint32_t)next, host);
    refuse_offset(env, (uint32_t)selector, (uint32_t)offset, host);
    real_helper_ljmp_protected(env, selector, offset, next);
}

REPLACES void helper_lcall_protected_x86_64(void *env, uint64_t selector, uint64_t offset, uint64_t shift,
                                            uint64_t next)
{
    uint64_t host = (uint64_t)__builtin_return_address(0);

    look_behind(env);
    end_resume(env);
    if (!(AT(uint32_t, env, at.env_hflags) & HF_CS64))
        refuse_pushes(env, (uint32_t)selector, 2u << (shift & 1), host);
    if (alignment_checked(env))
        refuse_unaligned(env,
                         legacy_mode(env) ? size_of_pushes(env, (uint32_t)selector, 2u << (shift & 1), host)
                         : calls_code(env, (uint32_t)selector, 0, host)         ? 2u << (shift & 3)
                         : calls_by_gate_64(env, (uint32_t)selector, host)      ? 8
                                                                                : 0,
                         host);
    if (legacy_mode(env) && (rare(env, (uint32_t)selector, 1, host) ||
                        beyond(env, (uint32_t)selector, (uint32_t)offset, host)))
        ask(env, CALL, (selector & 0xffff) | offset << 32, (uint32_t)next | (shift & 1) << 32, host);
    if (paging(env) && calls_code(env, (uint32_t)selector, 0, host))
        touch_pushes(env, 2u << (shift & 3), 2, host);
    else if (paging(env) && !legacy_mode(env) && of_users(env) && calls_by_gate_64(env, (uint32_t)selector, host))
        touch_pushes(env, 8, 2, host);
    refuse_offset(env, (uint32_t)selector, (uint32_t)offset, host);
    if (is_narrow_far(env, shift) && calls_code(env, (uint32_t)selector, 0, host)) {
        call_far_64(env, selector, offset, shift, next, host);
        return;
    }
    real_helper_lcall_protected(env, selector, offset, shift, next);
}

/* Of real mode, which has no pages, and of V86 mode. */
REPLACES void helper_lcall_real_x86_64(void *env, int selector, uint64_t offset, int shift, int next)
{
    touch_pushes(env, shift ? 4 : 2, 2, (uint64_t)__builtin_return_address(0));
    real_helper_lcall_real(env, selector, offset, shift, next);
}

REPLACES void helper_iret_real_x86_64(void *env, uint64_t shift)
{
    look_behind(env);
    end_resume(env);
    touch_pops(env, shift & 1 ? 4 : 2, 3, (uint64_t)__builtin_return_address(0));
    real_helper_iret_real(env, shift);
}

/* EFLAGS in the frame of an IRET of operands of `size` bytes, 4 or 8. */
static uint32_t flags_to_return_to(void *env, uint32_t size, uint64_t host)
{
    uint64_t rsp = AT(uint64_t, env, at.env_rsp);

    real_cpu_ldl_data_ra(env, on_stack(env, rsp), host); /* the first to fault */
    return real_cpu_ldl_data_ra(env, on_stack(env, rsp + 2 * size), host);
}

/* The linear address of EFLAGS in the frame of an IRET that is not to return to V86 mode; EMPTY: of none. */
static __thread uint64_t frame_without_vm = EMPTY;

void show_all_flags(void)
{
    frame_without_vm = EMPTY;
    forget_frame();
}

REPLACES uint32_t cpu_ldl_mmuidx_ra_x86_64(void *env, uint64_t linear, int index, uint64_t host)
{
    uint32_t value = real_cpu_ldl_mmuidx_ra(env, linear, index, host);

    if (likely(linear != frame_without_vm))
        return value;
    frame_without_vm = EMPTY;
    return value & ~(uint32_t)EFLAGS_VM;
}

REPLACES void helper_iret_protected_x86_64(void *env, uint64_t shift, uint64_t next)
{
    uint64_t host = (uint64_t)__builtin_return_address(0), *flags = &AT(uint64_t, env, at.env_eflags);
    uint32_t image;
    int resumes;
    engine *e;

    e = look_behind(env);
    end_resume(env);
    if (of_users(env) && !(AT(uint64_t, env, at.env_eflags) & EFLAGS_NT)) /* in 64-bit code SS:RSP is always there */
        touch_pops(env, 2u << (shift & 3), AT(uint32_t, env, at.env_hflags) & HF_CS64 ? 5 : 3, host);
    if (!(*flags & EFLAGS_NT))
        refuse_return(env, shift, 3, host);
    if (legacy_mode(env) && (AT(uint64_t, env, at.env_eflags) & EFLAGS_NT || !is_flat(segment_of(env, SS)) ||
                        returns_beyond(env, 2 << (shift & 1), host)))
        ask(env, IRET, 2u << (shift & 1), (uint32_t)next, host);
    /* IRET of ring 0 loads VIF and VIP (SDM vol. 2A, IRET), which Unicorn keeps as they are; its return to V86 loads them
     * itself. Nothing of it happens where the IRET faults, and then nobody comes back here. */
    image = shift && !(AT(uint32_t, env, at.env_hflags) & HF_CPL) && !(*flags & EFLAGS_NT)
                ? flags_to_return_to(env, 2u << (shift & 3), host)
                : (uint32_t)*flags;
    if (is_narrow_far(env, shift) && !(*flags & EFLAGS_NT)) {
        return_interrupt_64(env, shift, next, host);
        *flags = (*flags & ~(uint64_t)EFLAGS_VIRTUAL) | (image & EFLAGS_VIRTUAL);
        return;
    }
    /* Only that of ring 0 returns to V86 mode, which IA-32e mode does not have; others ignore VM in their frame (vol. 2A,
     * IRET). */
    frame_without_vm = shift == 1 && (!legacy_mode(env) || AT(uint32_t, env, at.env_hflags) & HF_CPL) && !(*flags & EFLAGS_NT)
                           ? on_stack(env, AT(uint64_t, env, at.env_rsp) + 8)
                           : EMPTY;
    /* Its return to V86 mode loads RF (vol. 3B, 17.3.1.1), which Unicorn leaves out. The portable loop could not end it
     * behind one instruction. */
    resumes = e && legacy_mode(env) && shift == 1 && image & EFLAGS_VM && image & EFLAGS_RF &&
              !(AT(uint32_t, env, at.env_hflags) & HF_CPL) && !(*flags & EFLAGS_NT);
    if (resumes || ((!legacy_mode(env) || !(image & EFLAGS_VM)) && (image ^ *flags) & EFLAGS_VIRTUAL)) {
        /* It finds its instruction by its return address, which is in the block only where it is jumped to. */
        cpu_restore_state_x86_64((uint8_t *)env - at.cpu_env, host, 1);
        real_helper_iret_protected(env, shift, next);
        if (e)
            e->unwinding = 0;
        *flags = (*flags & ~(uint64_t)EFLAGS_VIRTUAL) | (image & EFLAGS_VIRTUAL) | (resumes ? EFLAGS_RF : 0);
        return;
    }
    real_helper_iret_protected(env, shift, next);
}

REPLACES void helper_lret_protected_x86_64(void *env, uint64_t shift, uint64_t parameters)
{
    uint64_t host = (uint64_t)__builtin_return_address(0);

    /* Only a return outwards has a frame that nobody has looked at, and there is none from ring 3. */
    look_behind(env);
    parameters &= 0xffff; /* an unsigned number (vol. 2B, RET), whose sign has been extended */
    if (of_users(env))
        touch_pops(env, 2u << (shift & 3), 2, host);
    refuse_return(env, shift, 2, host);
    if (legacy_mode(env) && ((!is_flat(segment_of(env, SS)) && (AT(uint32_t, env, at.env_hflags) & HF_CPL) < 3) ||
                        returns_beyond(env, 2 << (shift & 1), host)))
        ask(env, RETF, 2u << (shift & 1), parameters, host);
    if (is_narrow_far(env, shift)) {
        return_far_64(env, shift, parameters, host);
        return;
    }
    real_helper_lret_protected(env, shift, parameters);
}

/* In real mode, where there is one: FLAGS, CS and IP can be pushed. Python says what comes of it where they cannot. */
static int frame_of_real_mode_fits(void *env)
{
    const struct segment *ss = segment_of(env, SS);
    uint32_t sp = (uint32_t)AT(uint64_t, env, at.env_rsp) & 0xffff;

    return !(AT(uint32_t, env, at.env_hflags) & HF_PE) && sp >= 6 && sp - 1 <= ss->limit &&
           (ss->flags & (SEG_CODE | SEG_EXPAND_DOWN | SEG_WRITABLE)) == SEG_WRITABLE;
}

/* An interrupt is about to be delivered (INTERRUPT_VIRQ). Returns 1 when Python did it. */
int interrupt_delivered(void *cpu, int request)
{
    uint8_t *env = (uint8_t *)cpu + at.cpu_env;
    const engine *e = engine_of_cpu(cpu);
    transfer *f = request & INTERRUPT_VIRQ ? whom(env) : NULL;
    uint64_t answer;

    if (!f || frame_of_real_mode_fits(env) || !(AT(uint64_t, env, at.env_eflags) & EFLAGS_IF) || AT(uint32_t, env, at.env_hflags) & HF_INHIBIT_IRQ)
        return 0;
    if (e && (legacy_mode(env) ? AT(uint32_t, env, at.env_hflags) & HF_PE && gate_is_usual(env, e->control->vector)
                               : !v2e_fast_gate_unsure(env, e->control->vector)))
        return 0; /* of the portable loop, whose vector is not known here, Python looks */
    answer = f(env, INTERRUPT, 0, 0);
    if (answer && answer != INSTEAD)
        real_raise_exception_err(env, (int)(answer & 0xff), (int)(answer >> 32));
    return answer == INSTEAD;
}
