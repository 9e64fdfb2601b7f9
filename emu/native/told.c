/* Instructions that a hypervisor would be exited to by, told to Python before they are executed: which of them, and when,
 * is for a policy that learns (emu/caught.py). Found where they are translated (records.c), so that no other costs
 * anything. */
#include "record.h"

/* Of the classes of events.c those of the instruction that begins `code` which are to be told. */
uint32_t told_classes(const engine *e, const uint8_t *code, int length, int bits)
{
    return e->told ? v2e_fast_class_of(code, length, bits) & e->told : 0;
}

/* The instruction is alone in its block from here on: Python asks for the exact count, and may ask for a stop behind it. */
void tell(const struct record *r, uint64_t host)
{
    engine *e = r->engine;
    uint8_t code[LONGEST];
    int length;

    be_alone(e, host);
    if (!running(e))
        return;
    length = code_at(e, running(e)->block, r->pc, code);
    if (length)
        e->tell(code, length);
}

/* From now on `tell` is called before each instruction of the `classes`, 0: of none. Translations are to be made anew. */
API void v2e_fast_tell(engine *e, uint32_t classes, told_call *tell)
{
    e->told = classes;
    e->tell = tell;
}
