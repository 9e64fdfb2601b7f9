/* How an x87 instruction is executed for the guest: shared by the files x87*.c and fpu.c. */
#ifndef V2E_X87_H
#define V2E_X87_H

#include "fast.h"

#include <string.h>

/* The status word (SDM vol. 1, 8.1.3), and of its flags those found before an operation, which is not done then. */
#define X87_IE 1u
#define X87_UE 0x10u
#define X87_FLAGS 0x3fu
#define X87_BEFORE 7u
#define X87_RANGE 0x18u /* overflow and underflow: what would be stored in memory is not */
#define X87_SF 0x40u
#define X87_ES 0x80u
#define X87_C0 0x100u
#define X87_C1 0x200u
#define X87_C2 0x400u
#define X87_C3 0x4000u
#define X87_B 0x8000u
#define X87_CONDITIONS (X87_C0 | X87_C1 | X87_C2 | X87_C3)

#define HOST ((uint64_t)__builtin_return_address(0))

/* ST(n): 80 bits in 16 bytes, and its tag, 1 for an empty one. */
static inline long double *st(void *env, int n)
{
    return &AT(long double, env, at.env_fpregs + 16 * ((AT(uint32_t, env, at.env_fpstt) + (uint32_t)n) & 7));
}

static inline uint8_t *tag(void *env, int n)
{
    return &AT(uint8_t, env, at.env_fptags + ((AT(uint32_t, env, at.env_fpstt) + (uint32_t)n) & 7));
}

static inline void turn(void *env, int by)
{
    uint32_t *top = &AT(uint32_t, env, at.env_fpstt);

    *top = (*top + (uint32_t)by) & 7;
}

/* Of the flags in `status` those that are not masked. */
static inline uint32_t unmasked(const void *env, uint32_t status)
{
    return status & ~AT(uint16_t, env, at.env_fpuc) & X87_FLAGS;
}

/* Copy 80 bits; a move of C's would change a signalling NaN. */
static inline void put(void *to, const void *from)
{
    memcpy(to, from, 10);
}

/* Execute under the guest's precision and direction: `loads` puts the operands on the host's stack, `stores` takes
 * everything off. First with everything masked. Where the guest has not masked what came of it, once more with its
 * masks: the host would tell at the next instruction that waits, and none does before FNCLEX, so it does what the SDM
 * says of such exceptions, too. Underflow that is not masked comes of exact results too, which the first tells nothing
 * of. The host's control word is mostly the one that is wanted, and its flags are clear. */
#define OPERATE(env, status, loads, instruction, stores, outputs, inputs)                                              \
    do {                                                                                                               \
        uint16_t old_, control_ = (AT(uint16_t, env, at.env_fpuc) & 0xf00) | 0x7f, other_;                             \
                                                                                                                       \
        __asm__ volatile("fnstcw %0\n\tfnstsw %1" : "=m"(old_), "=a"(status));                                         \
        other_ = control_ != old_;                                                                                     \
        if (unlikely(status & (X87_FLAGS | X87_SF)))                                                                   \
            __asm__ volatile("fnclex");                                                                                \
        if (unlikely(other_))                                                                                          \
            __asm__ volatile("fldcw %0" : : "m"(control_));                                                            \
        __asm__ volatile(loads "\n\t" instruction "\n\tfnstsw %[sw]\n\t" stores                                        \
                         : [sw] "=a"(status)outputs                                                                    \
                         : [control] "m"(control_)inputs                                                               \
                         : X87_STACK, "memory");                                                                       \
        if (status & (X87_FLAGS | X87_SF))                                                                             \
            __asm__ volatile("fnclex");                                                                                \
        if (unlikely(unmasked(env, status | X87_UE))) {                                                                \
            control_ = (AT(uint16_t, env, at.env_fpuc) & 0xf3f) | 0x40;                                                \
            other_ = 1;                                                                                                \
            __asm__ volatile("fldcw %[control]\n\t" loads "\n\t" instruction "\n\tfnstsw %[sw]\n\tfnclex\n\t" stores   \
                             "\n\tfninit"                                                                              \
                             : [sw] "=a"(status)outputs                                                                \
                             : [control] "m"(control_)inputs                                                           \
                             : X87_STACK, "memory");                                                                   \
        }                                                                                                              \
        if (unlikely(other_))                                                                                          \
            __asm__ volatile("fldcw %0" : : "m"(old_));                                                                \
    } while (0)
#define X87_STACK "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)"
#define ALSO(...) , __VA_ARGS__
#define NOTHING

void point_here(engine *e, uint64_t host);
void ask_pending(void *env, uint64_t host);
void take_status(void *env, uint32_t status);
void refuse(void *env, uint32_t status, uint64_t host);
void stack_fault(void *env, uint32_t c1, uint64_t host);
void put_indefinite(void *to);
void find_pending(void *env);
void prepare(void *env, uint64_t host);
void prepared(void *env);
void initialize(void *env);
void keep_control(void *env);
void enter_mmx(void *env);
void enter_mmx_to(void *env, int number);
void leave_mmx(void *env);
void begin_fcmov(void *env, int n, uint64_t host);

/* What a store that faults behind its flags, and an MMX instruction that faults, put back (paging.c). */
extern __thread uint16_t status_before_store;

/* To be called first by each instruction that waits (vol. 1, 8.6). */
static inline void wait_for(void *env, uint64_t host)
{
    if (unlikely(AT(uint16_t, env, at.env_fpus) & X87_ES))
        ask_pending(env, host);
}

/* What a masked stack fault leaves instead of the value: for an operand in an empty register. */
static inline int is_empty(void *env, int n)
{
    return *tag(env, n);
}

#endif
