/* Rules of single instructions and of the boundary between two that Unicorn leaves out. The replaced functions, moves
 * to and from debug registers, LTR and PUSHF, serve every engine, whichever run loop it uses. */
#include "fast.h"

/* The instruction that is alone in its block has been executed, otherwise than by what the block has; EIP is to be this. */
void end_block_at(engine *e, uint64_t eip)
{
    *e->eip = eip;
    end_of_instruction(e->env);
    if (AT(uint64_t, e->env, at.env_eflags) & EFLAGS_TF) {
        e->control->step = 0;
        step_trap(e->env);
    }
    leave_block(e);
}

/* The same, and EIP goes on behind it. */
void end_block(engine *e)
{
    const slot *s = running(e);

    end_block_at(e, s->eip + s->block->size);
}

/* General detect: #DB before the move (SDM vol. 3B, 17.2.4). The handler runs with GD clear. */
static void detect(void *env, uint64_t host)
{
    uint64_t *dr = &AT(uint64_t, env, at.env_dr);

    if (!(dr[7] & DR7_GD))
        return;
    dr[7] &= ~(uint64_t)DR7_GD;
    dr[6] |= DR6_BD;
    real_raise_exception_err_ra(env, EXCP_DB, 0, host);
}

/* What MOV to DR6 and DR7 leaves of the value (SDM vol. 3B, 17.2.3 and 17.2.4): reserved bits have fixed values, those
 * of the high half must be 0. DR4 and DR5 are names of the same, without CR4.DE. */
static uint64_t debug_value(void *env, int number, uint64_t value, uint64_t host)
{
    if (number < 4)
        return value;
    if (!(AT(uint32_t, env, at.env_hflags) & HF_CS64))
        value = (uint32_t)value;
    else if (value >> 32)
        real_raise_exception_err_ra(env, EXCP_GP, 0, host);
    return number & 1 ? (value & DR7_DEFINED) | DR7_ONES : (value & DR6_DEFINED) | DR6_ONES;
}

REPLACES void helper_set_dr_x86_64(void *env, int number, uint64_t value)
{
    uint64_t host = (uint64_t)__builtin_return_address(0);

    look_behind(env);
    detect(env, host);
    real_helper_set_dr(env, number, debug_value(env, number, value, host));
}

REPLACES uint64_t helper_get_dr_x86_64(void *env, int number)
{
    detect(env, (uint64_t)__builtin_return_address(0));
    return real_helper_get_dr(env, number);
}

/* LTR of a null selector: #GP(0) (SDM vol. 2A, LTR); Unicorn loads it. */
REPLACES void helper_ltr_x86_64(void *env, int selector)
{
    uint64_t host = (uint64_t)__builtin_return_address(0);
    engine *e = engine_of_cpu((uint8_t *)env - at.cpu_env);

    if (!(selector & 0xfffc))
        real_raise_exception_err_ra(env, EXCP_GP, 0, host);
    if (e && e->control->changes & CHANGE_TASK) {
        /* It finds its instruction by its return address, which is in the block only where it is jumped to. */
        cpu_restore_state_x86_64(e->cpu, host, 1);
        real_helper_ltr(env, selector);
        e->unwinding = 0;
        task_register_loaded(env);
        return;
    }
    real_helper_ltr(env, selector);
}

/* PUSHF pushes VM and RF as 0 (SDM vol. 2B, PUSHF). */
REPLACES uint64_t helper_read_eflags_x86_64(void *env)
{
    uint64_t flags = real_helper_read_eflags(env);

    return engine_of_env(env) ? flags & ~(uint64_t)(EFLAGS_VM | EFLAGS_RF) : flags;
}

/* CMPXCHG8B and CMPXCHG16B keep all flags but ZF (SDM vol. 2A). Unicorn computes them from `cc_op`, which its translator
 * has not written since the beginning of the block: they would be made of whatever CC_SRC holds, and any bit of that
 * would be in EFLAGS, TF among them, where the run ends behind. The instruction's data has what is right for it.
 * The portable loop's hooks have Unicorn write `cc_op` before each instruction, behind those data. */
__attribute__((visibility("hidden"), used)) void v2e_write_cc_op(uint8_t *env, uint64_t host)
{
    if (engine_of_env(env))
        real_cpu_restore_state(env - at.cpu_env, host, 0);
}

/* Jumped to, as Unicorn's function finds its instruction by its return address if an access faults. */
#define KNOWS_FLAGS(name)                                                                                              \
    __asm__(".text\n"                                                                                                 \
            ".globl " #name "_x86_64\n"                                                                               \
            ".type " #name "_x86_64, @function\n" #name "_x86_64:\n"                                                 \
            "    pushq %rdi\n"                                                                                        \
            "    pushq %rsi\n"                                                                                        \
            "    subq $8, %rsp\n"                                                                                     \
            "    movq 24(%rsp), %rsi\n"                                                                               \
            "    call v2e_write_cc_op\n"                                                                              \
            "    addq $8, %rsp\n"                                                                                     \
            "    popq %rsi\n"                                                                                         \
            "    popq %rdi\n"                                                                                         \
            "    movq real_" #name "@GOTPCREL(%rip), %rax\n"                                                          \
            "    jmp *(%rax)\n"                                                                                       \
            ".size " #name "_x86_64, .-" #name "_x86_64\n");
KNOWS_FLAGS(helper_cmpxchg8b)
KNOWS_FLAGS(helper_cmpxchg8b_unlocked)
KNOWS_FLAGS(helper_cmpxchg16b)
KNOWS_FLAGS(helper_cmpxchg16b_unlocked)

/* True when VIF and VIP are both set where they are looked at: #GP(0) at the beginning of the next instruction, so that
 * the monitor handles the pending interrupt (SDM vol. 3A, 20.3.2 and 20.4). Only IRET, SYSRET and a task switch come
 * here with both, as STI and POPF refuse to set VIF then; all of them have `look` look. */
int virtual_interrupt_due(const engine *e)
{
    uint64_t flags = AT(uint64_t, e->env, at.env_eflags), cr4 = (&AT(uint64_t, e->env, at.env_cr))[4];

    return (flags & (EFLAGS_VIF | EFLAGS_VIP)) == (EFLAGS_VIF | EFLAGS_VIP) &&
           cr4 & (flags & EFLAGS_VM ? CR4_VME : CR4_PVI) && (AT(uint32_t, e->env, at.env_hflags) & HF_CPL) == 3 &&
           (flags >> EFLAGS_IOPL_SHIFT & 3) < 3;
}

/* An interrupt comes behind an iteration of the repeated string instruction of `s`: RF is pushed as 1 (SDM vol. 3B,
 * 17.3.1.1). But behind the last one the instruction has ended, which Unicorn goes back to it to find out. */
void mark_repeat(engine *e, const slot *s)
{
    uint64_t count = registers(e->env)[CX];

    if (s->repeats < 8 ? count & ((1ull << 8 * s->repeats) - 1) : count)
        AT(uint64_t, e->env, at.env_eflags) |= EFLAGS_RF;
    else
        *e->eip += s->block->size;
}
