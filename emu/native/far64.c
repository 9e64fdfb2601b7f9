/* Far CALL, RETF and IRET of 64-bit code with operands of 32 or 16 bits: what they push and pop lies where all of RSP says
 * (SDM vol. 1, 6.2.5; vol. 2A, CALL, IRET; vol. 2B, RET). Unicorn takes the low half of RSP, or 16 bits where SS has no B.
 * So its way for operands of 64 bits is taken, whose accesses to the stack are made of the smaller items here. */
#include "segments.h"

#define ITEMS 5 /* of IRET: RIP, CS, RFLAGS, RSP, SS */

/* The accesses to come: of 64 bits where Unicorn makes them, and where the item is. `count` 0: there are none. */
static __thread struct {
    uint32_t next, count, size;
    uint64_t there[ITEMS], here[ITEMS], upper[ITEMS];
} frame;

void forget_frame(void)
{
    frame.count = 0;
}

int is_narrow_far(void *env, uint64_t shift)
{
    return shift < 2 && AT(uint32_t, env, at.env_hflags) & HF_CS64;
}

static int is_item(uint64_t linear)
{
    return frame.next < frame.count && linear == frame.there[frame.next];
}

REPLACES uint64_t cpu_ldq_mmuidx_ra_x86_64(void *env, uint64_t linear, int index, uint64_t host)
{
    uint32_t n = frame.next;

    if (likely(!frame.count) || !is_item(linear))
        return real_cpu_ldq_mmuidx_ra(env, linear, index, host);
    frame.next++;
    if (frame.size == 4)
        return real_cpu_ldl_mmuidx_ra(env, frame.here[n], index, host);
    return real_cpu_lduw_mmuidx_ra(env, frame.here[n], index, host) | frame.upper[n];
}

REPLACES void cpu_stq_mmuidx_ra_x86_64(void *env, uint64_t linear, uint64_t value, int index, uint64_t host)
{
    uint32_t n = frame.next;

    if (likely(!frame.count) || !is_item(linear)) {
        real_cpu_stq_mmuidx_ra(env, linear, value, index, host);
        return;
    }
    frame.next++;
    if (frame.size == 4)
        real_cpu_stl_mmuidx_ra(env, frame.here[n], (uint32_t)value, index, host);
    else
        real_cpu_stw_mmuidx_ra(env, frame.here[n], (uint16_t)value, index, host);
}

static void item(uint64_t there, uint64_t here)
{
    frame.there[frame.count] = there;
    frame.here[frame.count] = here;
    frame.upper[frame.count++] = 0;
}

/* Unicorn's function finds its instruction by its return address, which is in the block only where it is jumped to: the
 * CPU's state is made that of the instruction before. */
static void begin(void *env, uint32_t size, uint64_t host)
{
    frame.next = frame.count = 0;
    frame.size = size;
    cpu_restore_state_x86_64((uint8_t *)env - at.cpu_env, host, 1);
}

static void done(void *env)
{
    engine *e = engine_of_env(env);

    forget_frame();
    if (e)
        e->unwinding = 0;
}

void return_far_64(void *env, uint64_t shift, uint64_t parameters, uint64_t host)
{
    uint64_t *rsp = &AT(uint64_t, env, at.env_rsp), top = *rsp;
    uint32_t size = 2u << shift, ring = AT(uint32_t, env, at.env_hflags) & HF_CPL;

    begin(env, size, host);
    item(top, top);
    item(top + 8, top + size);
    item(top + 16 + parameters, top + 2 * size + parameters); /* RSP and SS, which a return to another ring pops */
    item(top + 24 + parameters, top + 3 * size + parameters);
    real_helper_lret_protected(env, 2, parameters);
    done(env);
    if ((AT(uint32_t, env, at.env_hflags) & HF_CPL) == ring)
        *rsp = top + 2 * size + parameters;
}

/* RSP and SS are popped whatever the ring is. Of 16 bits the upper ones of RFLAGS stay. */
void return_interrupt_64(void *env, uint64_t shift, uint64_t next, uint64_t host)
{
    uint64_t top = AT(uint64_t, env, at.env_rsp);
    uint32_t size = 2u << shift;

    begin(env, size, host);
    for (uint32_t i = 0; i < ITEMS; i++)
        item(top + 8 * i, top + size * i);
    frame.upper[2] = AT(uint64_t, env, at.env_eflags) & 0xffff0000;
    real_helper_iret_protected(env, 2, next);
    done(env);
}

/* Of a code segment that nothing is wrong about; a gate pushes 64 bits whatever the operands are. */
void call_far_64(void *env, uint64_t selector, uint64_t offset, uint64_t shift, uint64_t next, uint64_t host)
{
    uint64_t *rsp = &AT(uint64_t, env, at.env_rsp), top = *rsp;
    uint32_t size = 2u << shift;

    begin(env, size, host);
    item(top - 8, top - size);
    item(top - 16, top - 2 * size);
    real_helper_lcall_protected(env, selector, offset, 2, next);
    done(env);
    *rsp = top - 2 * size;
}
