/* The pointers to the last x87 instruction and its operand, and its opcode, of an instruction that ends early, as an
 * exception of it is not masked: it is what a handler looks for (SDM vol. 1, 8.1.8 and 8.1.9). Unicorn stores the
 * pointers at an instruction's end, and the opcode never. */
#include "x87.h"
#include "checks.h"
#include "segments.h"

#define FOP_BITS 7u

/* The byte of the opcode, D8h to DFh, behind prefixes; `length` where there is none. */
static int escape_at(const uint8_t *bytes, int length)
{
    int i = 0;

    while (i < length && (bytes[i] & 0xf8) != 0xd8)
        i++;
    return i;
}

/* EIP is that of the instruction, which called from `host`. One without an operand leaves the last one's pointer. */
void point_here(engine *e, uint64_t host)
{
    void *env = e->env;
    uint32_t hflags = AT(uint32_t, env, at.env_hflags);
    int bits = hflags & HF_CS64 ? 64 : hflags & HF_CS32 ? 32 : 16, length, escape;
    static __thread struct instruction in;
    uint64_t ip = *e->eip, pc = bits == 64 ? ip : (uint32_t)(segment_of(env, CS)->base + ip);
    uint8_t bytes[LONGEST];

    AT(uint64_t, env, at.env_fpip) = ip;
    AT(uint16_t, env, at.env_fpcs) = (uint16_t)segment_of(env, CS)->selector;
    length = bytes_at(env, pc, host, bytes);
    escape = escape_at(bytes, length);
    if (escape + 1 < length)
        AT(uint16_t, env, at.env_fpop) = (uint16_t)((bytes[escape] & FOP_BITS) << 8 | bytes[escape + 1]);
    if (decode(bytes, length, bits, hflags & HF_SS32 ? 32 : 16, &in) && in.count) {
        const struct segment *segment = segment_of(env, in.references->segment);
        uint64_t linear = linear_address(env, in.references, addressing_of(&in, bits, pc));

        if (bits != 64)
            linear = (uint32_t)(linear - segment->base);
        else if (in.references->segment >= FS)
            linear -= segment->base;
        AT(uint64_t, env, at.env_fpdp) = linear;
        AT(uint16_t, env, at.env_fpds) = (uint16_t)segment->selector;
    }
}
