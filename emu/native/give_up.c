/* Where Unicorn ends the process because the guest's task register holds no task state segment. */
#include "segments.h"

#include <string.h>

/* LTR lets none in, but RSM loads what the handler has left in SMRAM, and a state may be loaded with anything. A stack of
 * an inner ring then cannot be read: #TS with the selector of the task (SDM vol. 3A, 6.15, "Invalid TSS"). Unicorn asks
 * in the middle of a delivery, from where it raises exceptions as well (target/i386/seg_helper.c, get_ss_esp_from_tss). */
REPLACES __attribute__((noreturn)) void cpu_abort_x86_64(void *cpu, const char *format, ...)
{
    if (in_use && !strncmp(format, "invalid tss", 11)) {
        uint8_t *env = (uint8_t *)cpu + at.cpu_env;

        real_raise_exception_err(env, EXCP_TS, (int)(segment_of(env, TR)->selector & 0xfffc));
    }
    real_cpu_abort(cpu, format);
    __builtin_unreachable();
}
