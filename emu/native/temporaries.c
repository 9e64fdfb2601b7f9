/* The end of a block before its translation has more temporaries than Unicorn has room for. */
#include "tcg.h"
#include "fast.h"

/* Unicorn's translator keeps what some instructions need (FADD one temporary, each time) to the end of the block, and
 * counts on to whatever is behind its 512 places: a few hundred of those in a row would end the process. It ends a block
 * behind the instruction at which it has MANY operations, which is what it is told here. (tcg/tcg.c, tcg_temp_alloc;
 * accel/tcg/translator.c.) */
#define PLACES 512
#define MOST 160 /* more than an instruction takes, which is some thirty */
#define MANY 4000

/* Of every engine, whichever run loop it uses, once one is attached: from then on it is known that this is the Unicorn
 * whose structure tcg.h knows. */
void end_before_full(void *tcg)
{
    if (in_use && unlikely(AT(int32_t, tcg, NB_TEMPS) > PLACES - MOST))
        AT(int32_t, tcg, NB_OPS) += MANY;
}
