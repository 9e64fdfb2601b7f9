/* System instructions, done by emu/unicorn_system.py: it is called in place of Unicorn's own function, and answers 0 or
 * the exception to raise. Blocks end behind all of them but RDMSR, WRMSR, RDPMC, RDTSC and RDTSCP, which stand alone in
 * their blocks: they ask for the exact count, or may change what the next instruction does. */
#include "fast.h"

/* The numbers of emu/unicorn_system.py. */
enum { RDMSR = 1, WRMSR, RDPMC, MOV_CR4, SYSCALL, SYSENTER, SYSRET, SYSEXIT, GET_TSC, GET_TSCP };

static engine *engine_of_env(const void *env)
{
    return engine_of_cpu((const uint8_t *)env - at.cpu_env);
}

/* `host` is the return address into the block: what is raised is found there by unwinding. */
static void ask(engine *e, uint32_t operation, uint64_t operand, uint64_t host)
{
    uint64_t answer = e->system(operation, operand);

    if (answer)
        real_raise_exception_err_ra(e->env, (int)(answer & 0xff), (int)(answer >> 32), host);
}

#define HOST ((uint64_t)__builtin_return_address(0))

#define COUNTED(name, operation)                                                                                       \
    REPLACES void helper_##name##_x86_64(void *env)                                                                    \
    {                                                                                                                  \
        engine *e = engine_of_env(env);                                                                                \
                                                                                                                       \
        if (!e) {                                                                                                      \
            real_helper_##name(env);                                                                                   \
            return;                                                                                                    \
        }                                                                                                              \
        if (unlikely(!*e->can_do_io))                                                                                  \
            retry_alone(e, HOST);                                                                                      \
        ask(e, operation, 0, HOST);                                                                                    \
    }
COUNTED(rdmsr, RDMSR)
COUNTED(wrmsr, WRMSR)
COUNTED(rdpmc, RDPMC)
COUNTED(rdtsc, GET_TSC)
COUNTED(rdtscp, GET_TSCP)

/* These load CS, SS and CPL. The operand is the instruction's length, or the operand size. */
#define TRANSFER(name, operation)                                                                                      \
    REPLACES void helper_##name##_x86_64(void *env, int operand)                                                       \
    {                                                                                                                  \
        engine *e = engine_of_env(env);                                                                                \
                                                                                                                       \
        if (!e) {                                                                                                      \
            real_helper_##name(env, operand);                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        e->control->leave |= LOOK;                                                                                     \
        ask(e, operation, (uint64_t)(uint32_t)operand, HOST);                                                          \
    }
TRANSFER(syscall, SYSCALL)
TRANSFER(sysenter, SYSENTER)
TRANSFER(sysret, SYSRET)
TRANSFER(sysexit, SYSEXIT)

/* MOV to CR4: only whether the value is allowed is asked. */
REPLACES void helper_write_crN_x86_64(void *env, int number, uint64_t value)
{
    engine *e = engine_of_env(env);

    if (e && number == 4)
        ask(e, MOV_CR4, value, HOST);
    real_helper_write_crN(env, number, value);
}

API void v2e_fast_system(engine *e, system_call *system)
{
    e->system = system;
}
