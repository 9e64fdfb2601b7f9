/* Unwind data: for each instruction the differences of its linear address, its flags' state and the end of its
 * machine code, as signed LEB128 numbers behind the code (encode_search of translate-all.c). */
#include "fast.h"

int64_t signed_leb(const uint8_t **data)
{
    const uint8_t *p = *data;
    int64_t value = 0;
    int shift = 0;
    uint8_t byte;

    do {
        byte = *p++;
        value |= (int64_t)((uint64_t)(byte & 0x7f) << shift);
        shift += 7;
    } while (byte & 0x80);
    if (shift < 64 && byte & 0x40)
        value |= (int64_t)(UINT64_MAX << shift);
    *data = p;
    return value;
}

/* Which instruction of the block is at linear `pc`, -1 if none; `previous` gets the address of the one before. */
int index_of_pc(const tb *block, uint64_t pc, uint64_t *previous)
{
    const uint8_t *data = block->code + block->code_size;
    uint64_t here = block->pc, before = EMPTY;

    for (int i = 0; i < block->icount; i++) {
        here += (uint64_t)signed_leb(&data);
        signed_leb(&data);
        signed_leb(&data);
        if (here == pc) {
            *previous = before;
            return i;
        }
        before = here;
    }
    return -1;
}

/* Which instruction of the block the return address `host` is in, -1 if none; its linear address in `pc`. */
int index_of_host(const tb *block, uint64_t host, uint64_t *pc)
{
    const uint8_t *data = block->code + block->code_size;
    uint64_t end = (uint64_t)block->code, here = block->pc;

    host -= 2; /* from the return address back into the call, as cpu_restore_state does */
    if (host < end)
        return -1;
    for (int i = 0; i < block->icount; i++) {
        here += (uint64_t)signed_leb(&data);
        signed_leb(&data);
        end += (uint64_t)signed_leb(&data);
        if (end > host) {
            *pc = here;
            return i;
        }
    }
    return -1;
}
