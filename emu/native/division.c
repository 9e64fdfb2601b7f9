/* The signed division that the host's instruction does not survive. The replaced function serves every engine, whichever
 * run loop it uses; where the helper was not built, emu/unicorn_division.py sees to it. */
#include "fast.h"

#define LOWEST 0x80000000u /* EDX of the lowest dividend; EAX is 0 */

/* Unicorn has EDX:EAX divided by the host's IDIV of 64 bits. For -2**63 by -1 that raises a signal, which ends the
 * process. That dividend is #DE by any divisor: divided by the largest, -2**31, it has 33 bits (SDM vol. 2A, IDIV). The
 * other widths are safe: 8 and 16 bits are divided in more, 64 bits without a sign (target/i386/int_helper.c). */
REPLACES void helper_idivl_EAX_x86_64(void *env, uint64_t divisor)
{
    const uint64_t *regs = registers(env);

    if (unlikely(!(uint32_t)regs[AX] && (uint32_t)regs[DX] == LOWEST))
        real_raise_exception_err_ra(env, EXCP_DE, 0, (uint64_t)__builtin_return_address(0));
    /* Jumped to, as it finds its instruction by its return address when it raises #DE itself. */
    real_helper_idivl_EAX(env, divisor);
}
