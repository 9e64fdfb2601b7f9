/* System instructions, done by emu/unicorn_system.py: it is called in place of Unicorn's own function, and answers 0 or
 * the exception to raise. Blocks end behind all of them but RDMSR, WRMSR, RDPMC, RDTSC and RDTSCP, which stand alone in
 * their blocks: they ask for the exact count, or may change what the next instruction does. */
#include "segments.h"

/* The numbers of emu/unicorn_system.py. */
enum { RDMSR = 1, WRMSR, RDPMC, MOV_CR4, SYSCALL, SYSENTER, SYSRET, SYSEXIT, GET_TSC, GET_TSCP, MOV_CR8, MOV_CR0, MOV_CR3, FLOATS };

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
        be_alone(e, HOST);                                                                                             \
        ask(e, operation, 0, HOST);                                                                                    \
    }
COUNTED(rdmsr, RDMSR)
COUNTED(wrmsr, WRMSR)
COUNTED(rdpmc, RDPMC)

/* Python's answer to the same instruction earlier in this run tells the time, and it is allowed (SDM vol. 2B: CR4.TSD
 * leaves it to CPL 0). Loops that wait by the counter ask millions of times. */
static int time_known(const engine *e, uint32_t operation)
{
    const struct cells *c = e->cells;

    return c->tick && c->time_known & (operation == GET_TSCP ? TIME_BY_TSCP : TIME_BY_TSC) &&
           !((&AT(uint64_t, e->env, at.env_cr))[4] & CR4_TSD && AT(uint32_t, e->env, at.env_hflags) & HF_CPL);
}

static void read_time(void *env, void (*real)(void *), uint32_t operation, uint64_t host)
{
    engine *e = engine_of_env(env);
    uint64_t *regs, time;

    if (!e) {
        real(env);
        return;
    }
    be_alone(e, host);
    if (!time_known(e, operation)) {
        ask(e, operation, 0, host);
        return;
    }
    time = e->cells->time + (uint64_t)(e->cells->time_left - e->control->remaining) * e->cells->tick;
    regs = registers(e->env);
    regs[AX] = (uint32_t)time;
    regs[DX] = time >> 32;
    if (operation == GET_TSCP)
        regs[CX] = (uint32_t)AT(uint64_t, e->env, at.env_tsc_aux);
}

REPLACES void helper_rdtsc_x86_64(void *env)
{
    read_time(env, real_helper_rdtsc, GET_TSC, HOST);
}

REPLACES void helper_rdtscp_x86_64(void *env)
{
    read_time(env, real_helper_rdtscp, GET_TSCP, HOST);
}

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

/* SYSRET of real mode, where Unicorn raises #GP(0) whatever the CPU (SDM vol. 2B, SYSRET: #UD; APM vol. 3, SYSRET: #GP(0),
 * and #UD without EFER.SCE). */
void refuse_sysret(engine *e, uint64_t host)
{
    ask(e, SYSRET, 0, host);
    __builtin_unreachable(); /* it is never done there */
}

/* True when MOV of `value` to CR0 may be refused, or has PDPTEs loaded, which may be wrong: that is looked at in Python.
 * Most writes change PE, TS or WP, and are not asked about. */
static int doubtful_cr0(const engine *e, uint64_t value)
{
    uint64_t old = (&AT(uint64_t, e->env, at.env_cr))[0];

    return value >> 32 || (value ^ old) & (CR0_PG | CR0_CD | CR0_NW) || (value & (CR0_PG | CR0_PE)) == CR0_PG ||
           (value & (CR0_NW | CR0_CD)) == CR0_NW;
}

/* The same for CR3: addresses beyond 4 GiB, and PAE paging, whose four PDPTEs are looked at. */
static int doubtful_cr3(const engine *e, uint64_t value)
{
    const uint64_t *cr = &AT(uint64_t, e->env, at.env_cr);

    return value >> 32 || (cr[0] & CR0_PG && cr[4] & CR4_PAE && !(AT(uint32_t, e->env, at.env_hflags) & HF_LMA));
}

/* MOV to CR0, CR3 and CR4: only whether the value is allowed is asked. MOV to CR8 reaches the local APIC. */
REPLACES void helper_write_crN_x86_64(void *env, int number, uint64_t value)
{
    engine *e = engine_of_env(env);

    if (!e) {
        real_helper_write_crN(env, number, value);
        return;
    }
    if (!(AT(uint32_t, e->env, at.env_hflags) & HF_CS64))
        value = (uint32_t)value;
    if (number == 0) {
        if (doubtful_cr0(e, value))
            ask(e, MOV_CR0, value, HOST);
        value = (value & CR0_DEFINED) | CR0_ET; /* the reserved bits of the low half are ignored (SDM vol. 2B) */
    }
    if (number == 3 && doubtful_cr3(e, value))
        ask(e, MOV_CR3, value, HOST);
    if (number == 4)
        ask(e, MOV_CR4, value, HOST);
    if (number == 8) {
        be_alone(e, HOST);
        ask(e, MOV_CR8, value, HOST);
    }
    real_helper_write_crN(env, number, value);
    if (number == 4) /* Unicorn has the bit with SSE only, but it came with FXSAVE (SDM vol. 3A, 2.5) */
        (&AT(uint64_t, e->env, at.env_cr))[4] |= value & CR4_OSFXSR;
}

/* LGDT and LIDT of 64-bit code with the operand at `linear`, of a base that is not canonical: #GP(0) (SDM vol. 2A, LGDT).
 * Unicorn loads it. */
void refuse_base(void *env, uint64_t linear, uint64_t host)
{
    if (AT(uint32_t, env, at.env_hflags) & HF_CPL) /* which is #GP(0) before the operand is looked at */
        return;
    real_cpu_lduw_data_ra(env, linear, host); /* the limit, the first to fault */
    if (!canonical(real_cpu_ldq_data_ra(env, linear + 2, host)))
        real_raise_exception_err_ra(env, EXCP_GP, 0, host);
}

/* Whether nothing answers in the page of the physical address, neither memory nor a device. */
int bus_floats(engine *e, uint64_t physical)
{
    return e->system(FLOATS, physical) != 0;
}

API void v2e_fast_system(engine *e, system_call *system)
{
    e->system = system;
}
