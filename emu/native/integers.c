/* Instructions of general registers that Unicorn takes for SSE, as they are behind 0F 38, 0F 3A or VEX: MOVBE, CRC32,
 * ADCX, ADOX, BMI1 and BMI2. CR0.TS, CR0.EM and CR4.OSFXSR do not concern them (SDM vol. 2A to 2C, their tables of
 * exceptions); each is made a block of its own, translated as if the bits let it pass. */
#include "checks.h"
#include "segments.h"

/* True when code with these hflags must not be left to Unicorn's rule. */
static int is_concerned(uint32_t flags)
{
    return flags & (HF_EM | HF_TS) || !(flags & HF_OSFXSR);
}

/* True for one of them. Map 2 of VEX: ANDN; BLSR, BLSMSK, BLSI; BZHI, PEXT, PDEP; MULX; BEXTR, SHLX, SARX, SHRX. Map 3:
 * RORX (vol. 2D, tables ). */
static int is_integer(const uint8_t *code, int length, int bits)
{
    int at = 0, prefixed = 0, refused = 0; /* by 66, F3; what VEX may not have before it (vol. 2A, 2.3.2 to 2.3.4) */

    for (; at < length; at++) {
        switch (code[at]) {
        case 0x66: case 0xf3:
            prefixed = refused = 1;
            continue;
        case 0xf2:
            refused = 1;
            continue;
        case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: case 0x67:
            continue;
        }
        if (bits == 64 && (code[at] & 0xf0) == 0x40) {
            refused = 1;
            continue;
        }
        break;
    }
    if (at + 3 >= length)
        return 0;
    code += at;
    if (code[0] == 0x0f && code[1] == 0x38)
        return code[2] == 0xf0 || code[2] == 0xf1 || (code[2] == 0xf6 && prefixed);
    if (code[0] != 0xc4 || refused || (bits != 64 && code[1] < 0xc0))
        return 0;
    switch (code[1] & 0x1f) {
    case 2:
        return code[3] == 0xf2 || code[3] == 0xf3 || (code[3] >= 0xf5 && code[3] <= 0xf7);
    case 3:
        return code[3] == 0xf0;
    default:
        return 0;
    }
}

/* True when `code`, which ends before it is known whether it begins one of them, may, so that the CPU reads on as well. */
static int goes_on(const uint8_t *code, int length, int bits)
{
    int at = 0;

    while (at < length && (code[at] == 0x26 || code[at] == 0x2e || code[at] == 0x36 || code[at] == 0x3e ||
                           (code[at] >= 0x64 && code[at] <= 0x67) || code[at] == 0xf2 || code[at] == 0xf3 ||
                           (bits == 64 && (code[at] & 0xf0) == 0x40)))
        at++;
    code += at;
    length -= at;
    if (length < 2)
        return !length || code[0] == 0x0f || code[0] == 0xc4;
    if (code[0] == 0xc4)
        return length < 4 && (bits == 64 || (bits == 32 && code[1] >= 0xc0));
    if (code[0] != 0x0f || code[1] != 0x38)
        return 0;
    return length == 2 || (length == 3 && (code[2] == 0xf0 || code[2] == 0xf1 || code[2] == 0xf6));
}

/* Whether the instruction at `pc`, linear, is one of them, in code with these hflags that concern it. One that goes on in
 * the next page is the first of its block, and is about to be read whole. */
int is_exempt(engine *e, uint64_t pc, uint32_t flags)
{
    uint64_t here = flags & HF_CS64 ? pc : (uint32_t)pc;
    uint8_t bytes[LONGEST];
    int length = (int)(PAGE - here % PAGE);

    int bits = flags & HF_CS64 ? 64 : flags & HF_CS32 ? 32 : 16, in_page;

    if (!is_concerned(flags))
        return 0;
    if (length > LONGEST)
        length = LONGEST;
    read_code(e, here, bytes, length);
    for (in_page = length; in_page < LONGEST && length < LONGEST && goes_on(bytes, length, bits); length++) {
        if (length == in_page)
            refuse_fetch(e, pc, here + (uint64_t)length - segment_of(e->env, CS)->base, flags);
        bytes[length] = (uint8_t)real_cpu_ldub_code(e->env, here + (uint64_t)length);
    }
    return is_integer(bytes, length, bits);
}
