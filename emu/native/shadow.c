/* The shadows of STI and of loading SS, one behind the other (SDM vol. 3A, 6.8.3). */
#include "fast.h"

/* Whether the first instruction at `from` is MOV SS or POP SS (1), STI (2), or another one (0). Nothing behind the page
 * is read: what is there may be absent, or beyond the limit of CS, and is for the translator to find. */
static int kind_of(engine *e, uint64_t from, uint32_t flags)
{
    for (uint64_t at = from; at / PAGE == from / PAGE && at - from < 15; at++) {
        uint8_t bytes[2];

        read_code(e, at, bytes, 1);
        switch (bytes[0]) {
        case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: case 0x66: case 0x67: case 0xf2: case 0xf3:
            continue;
        case 0x17:
            return !(flags & HF_CS64);
        case 0xfb:
            return 2;
        case 0x8e:
            if (at % PAGE == PAGE - 1)
                return 0;
            read_code(e, at + 1, bytes + 1, 1);
            return (bytes[1] >> 3 & 7) == 2;
        default:
            if (flags & HF_CS64 && (bytes[0] & 0xf0) == 0x40)
                continue;
            return 0;
        }
    }
    return 0;
}

/* Whether the block, which is in a shadow, begins with an instruction that has one of its own. Unicorn begins none
 * within another, which is right for STI behind STI, whose IF was set, and for SS behind SS, of which the first alone
 * counts; but a load of SS behind STI holds interrupts off the instruction behind it, and so does STI behind a load of
 * SS. Neither can be jumped over, so the byte before tells which one the first was: STI is FBh. (A load of SS may end
 * with that byte too, in a displacement; then a second load behind it begins a shadow, which delays an interrupt by one
 * instruction.) At the beginning of a page the byte is not looked at, and the two are taken to be of different kinds. */
int shadow_of_its_own(engine *e, uint64_t pc, uint32_t flags)
{
    int kind = kind_of(e, pc, flags);
    uint8_t before;

    if (!kind || pc % PAGE == 0)
        return kind;
    read_code(e, pc - 1, &before, 1);
    return (kind == 1) == (before == 0xfb);
}

/* The instruction that has just ended is MOV SS or POP SS, behind which debug traps wait for the end of the next one (SDM vol.
 * 3A, 6.8.3). */
int holds_traps(engine *e)
{
    uint32_t flags = AT(uint32_t, e->env, at.env_hflags);

    return flags & HF_INHIBIT_IRQ && kind_of(e, e->control->last, flags) == 1;
}

/* STI begins a shadow only where IF was clear (SDM vol. 2B, STI). Unicorn's code for it begins one whatever IF was, behind
 * the call that would tell; it is taken back before anything looks at it: at the next block, or the run's end. */
REPLACES void helper_sti_x86_64(void *env)
{
    engine *e = engine_of_env(env);

    if (e && AT(uint64_t, env, at.env_eflags) & EFLAGS_IF)
        e->unshadowed = 1;
    if (e && (e->control->masked || e->unshadowed))
        e->control->leave |= LOOK;
    real_helper_sti(env);
}

void end_false_shadow(engine *e)
{
    if (likely(!e->unshadowed))
        return;
    e->unshadowed = 0;
    AT(uint32_t, e->env, at.env_hflags) &= ~HF_INHIBIT_IRQ;
    e->control->leave |= LEAVE_BLOCK; /* the block that comes now was made for the other hflags */
}
