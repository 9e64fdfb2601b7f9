/* What the flags of an x87 operation make: the status word, stack faults, #MF (SDM vol. 1, 8.5 to 8.7). */
#include "x87.h"

/* Take flags and C1 of `status` into the status word, with ES and B for what is not masked. */
void take_status(void *env, uint32_t status)
{
    uint16_t *fpus = &AT(uint16_t, env, at.env_fpus);
    uint32_t now = (*fpus & ~X87_C1) | (status & (X87_FLAGS | X87_SF | X87_C1));

    if (unmasked(env, now))
        now |= X87_ES | X87_B;
    *fpus = (uint16_t)now;
}

/* The instruction ends here, with what is in the CPU by now: nothing is stored, popped or compared behind it. It is
 * alone in its block. */
static __attribute__((noreturn)) void end_instruction(engine *e, uint64_t host)
{
    real_cpu_restore_state(e->cpu, host, 1);
    end_block(e);
}

/* The operation is not done, as something of `status` is not masked: its flags are all that it leaves. In the portable
 * loop it goes on. */
void refuse(void *env, uint32_t status, uint64_t host)
{
    engine *e = engine_of_env(env);

    if (e && running(e)) {
        be_alone(e, host);
        point_here(e, host);
    }
    take_status(env, status);
    if (e && running(e))
        end_instruction(e, host);
}

/* An operand is empty, or a register to be pushed is not (`c1`): IE and SF. Comes back where that is masked. */
void stack_fault(void *env, uint32_t c1, uint64_t host)
{
    uint32_t status = X87_IE | X87_SF | c1;

    if (unmasked(env, status))
        refuse(env, status, host);
    else
        take_status(env, status);
}

/* The real indefinite value (vol. 1, 4.8.3.7). */
void put_indefinite(void *to)
{
    static const uint8_t bytes[10] = {0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff};

    put(to, bytes);
}

/* FERR# and IGNNE#, by a port that no instruction reaches (emu/devices/coprocessor.py): it is read when FERR# is
 * asserted, and answers 0 while IGNNE# is not; it is written when FERR# is negated. */
#define FERR_PORT 0x10000u

/* FERR# is asserted, or would be at the next instruction that waits. */
static int has_error(void *env)
{
    return AT(uint16_t, env, at.env_fpus) & X87_ES && !((&AT(uint64_t, env, at.env_cr))[0] & CR0_NE);
}

/* An exception waits, and an instruction that waits for it is about to be executed: #MF with CR0.NE. Without it the CPU
 * asserts FERR#, and waits at the instruction for an interrupt unless IGNNE# is asserted (vol. 1, 8.7.2). Time passes
 * meanwhile, as in a loop of one instruction. */
void ask_pending(void *env, uint64_t host)
{
    engine *e = engine_of_env(env);

    if (!has_error(env))
        real_raise_exception_err_ra(env, EXCP_MF, 0, host);
    if (!e || !running(e))
        return;
    be_alone(e, host);
    e->cells->generation++;
    if (e->in(FERR_PORT, 1))
        return;
    real_cpu_restore_state(e->cpu, host, 1);
    leave_block(e);
}

REPLACES void helper_fwait_x86_64(void *env)
{
    wait_for(env, HOST);
}

/* What the instruction that has entered MMX last found. */
static __thread struct {
    uint64_t tags;
    uint32_t top;
    uint16_t *above, exponent; /* bits 79 to 64 of the register that it writes, if they are ones already; NULL */
} before_mmx;

/* All registers become valid, and TOP 0 (vol. 3A, 12.2). */
void enter_mmx(void *env)
{
    uint32_t *top = &AT(uint32_t, env, at.env_fpstt);
    uint64_t *tags = &AT(uint64_t, env, at.env_fptags);

    before_mmx.top = *top;
    before_mmx.tags = *tags;
    before_mmx.above = NULL;
    *top = 0;
    *tags = 0;
}

/* The same, of an instruction that writes register `number` and no more than its low 64 bits: the rest becomes ones
 * (vol. 1, 9.2). */
void enter_mmx_to(void *env, int number)
{
    enter_mmx(env);
    before_mmx.above = &AT(uint16_t, env, at.env_fpregs + 16 * (uint32_t)number + 8);
    before_mmx.exponent = *before_mmx.above;
    *before_mmx.above = 0xffff;
}

/* The instruction that has done so last faults: it leaves the state before it (vol. 3A, 6.5). */
void leave_mmx(void *env)
{
    AT(uint32_t, env, at.env_fpstt) = before_mmx.top;
    AT(uint64_t, env, at.env_fptags) = before_mmx.tags;
    if (before_mmx.above)
        *before_mmx.above = before_mmx.exponent;
}

/* MMX instructions wait too (vol. 1, 9.6.3). */
REPLACES void helper_enter_mmx_x86_64(void *env)
{
    wait_for(env, HOST);
    enter_mmx(env);
}

/* TOP becomes 0 with it (vol. 3A, table 12-2). */
REPLACES void helper_emms_x86_64(void *env)
{
    wait_for(env, HOST);
    real_helper_emms(env);
    AT(uint32_t, env, at.env_fpstt) = 0;
}

/* True while what is executed may negate FERR#, of which a device is to learn. */
static __thread int negating;

/* To be called before what may do so; a device is reached by instructions that are alone in their block. */
static void may_negate(void *env, uint64_t host)
{
    engine *e = engine_of_env(env);

    negating = unlikely(has_error(env)) && e && running(e);
    if (negating)
        be_alone(e, host);
}

#define FCW_RESERVED 0xe080u
#define FCW_ONE 0x40u

/* Reserved bits of a control word that was loaded are not kept, and one is 1 (vol. 1, 8.1.5, figure 8-6; Bochs 2.7,
 * cpu/fpu/fpu.cc). */
void keep_control(void *env)
{
    uint16_t *fpuc = &AT(uint16_t, env, at.env_fpuc);

    *fpuc = (uint16_t)((*fpuc & ~FCW_RESERVED) | FCW_ONE);
}

/* ES and B say whether a flag is not masked, whatever was loaded (vol. 1, 8.1.3.3 and 8.1.5). */
void find_pending(void *env)
{
    uint16_t *fpus = &AT(uint16_t, env, at.env_fpus);
    engine *e = engine_of_env(env);

    *fpus = (uint16_t)((*fpus & ~(X87_ES | X87_B)) | (unmasked(env, *fpus) ? X87_ES | X87_B : 0));
    if (unlikely(negating) && e && !(*fpus & X87_ES)) {
        e->cells->generation++;
        e->out(FERR_PORT, 1, 0);
    }
    negating = 0;
}

REPLACES void helper_fldcw_x86_64(void *env, uint32_t value)
{
    wait_for(env, HOST);
    may_negate(env, HOST);
    real_helper_fldcw(env, (value & ~FCW_RESERVED) | FCW_ONE);
    find_pending(env);
}

REPLACES void helper_fclex_x86_64(void *env)
{
    may_negate(env, HOST);
    real_helper_fclex(env);
    find_pending(env);
}

/* What FNINIT does (vol. 2A, FINIT), and FNSAVE at its end; Unicorn leaves the opcode. */
void initialize(void *env)
{
    real_helper_fninit(env);
    AT(uint16_t, env, at.env_fpop) = 0;
    find_pending(env);
}

REPLACES void helper_fninit_x86_64(void *env)
{
    may_negate(env, HOST);
    initialize(env);
}

/* Unicorn's functions find the instruction by their return address, which is in the block only where they are jumped
 * to: what they may raise is prepared for. A device and a watchpoint are met by an instruction that is alone in its
 * block, or else it is begun anew as that, which from within is too late. */
void prepare(void *env, uint64_t host)
{
    engine *e = engine_of_env(env);

    if (e && running(e))
        be_alone(e, host);
    may_negate(env, host);
    cpu_restore_state_x86_64((uint8_t *)env - at.cpu_env, host, 1);
}

void prepared(void *env)
{
    engine *e = engine_of_env(env);

    if (e)
        e->unwinding = 0;
}
