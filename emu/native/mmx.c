/* What is added to, or left out of, what Unicorn's translator emits for MMX and x87 instructions.
 *
 * MMX instructions write ones to bits 79 to 64 of the register that they write (SDM vol. 1, 9.2 and 9.5), so that what
 * FNSAVE and FXSAVE find in it without EMMS is a NaN or infinity. Unicorn leaves those bits (QEMU 5.0.1,
 * target/i386/ops_sse.h). They are stored behind what its translator emits for the register itself: a store, or a call. */
#include "checks.h"
#include "tcg.h"

#define MMX_REGISTERS 8

/* The MMX register that the instruction writes, -1 if it writes none (vol. 2D, tables ). SSSE3's are in checks.c,
 * as Unicorn does not make registers valid for them. */
static int written(const struct instruction *in)
{
    switch (in->opcode) {
    case 0x0f60 ... 0x0f6b: case 0x0f6e ... 0x0f70: case 0x0f74 ... 0x0f76: case 0x0fc4: case 0x0fd1 ... 0x0fd5:
    case 0x0fd8 ... 0x0fe5: case 0x0fe8 ... 0x0fef: case 0x0ff1 ... 0x0ff6: case 0x0ff8 ... 0x0ffe:
        return in->form == 0 ? in->reg % MMX_REGISTERS : -1;
    case 0x0f71 ... 0x0f73: case 0x0f7f: /* shifts by an immediate; MOVQ, to memory too */
        return in->form == 0 && in->rm != NONE ? in->rm % MMX_REGISTERS : -1;
    case 0x0f2c: case 0x0f2d: /* CVTTPS2PI, CVTTPD2PI and those that round */
        return in->form < 2 ? in->reg % MMX_REGISTERS : -1;
    case 0x0fd6: /* MOVDQ2Q */
        return in->form == 3 ? in->reg % MMX_REGISTERS : -1;
    default:
        return -1;
    }
}

/* The pointers to the last x87 instruction are not of control instructions (vol. 1, 8.1.8), of which FNSTSW is one: true
 * for the stores that Unicorn emits of FNSTSW AX, so that a handler which looks at the status word first finds where the
 * exception was. */
int is_pointer_of_fnstsw(const engine *e, uint64_t base, uint64_t offset)
{
    return e->status_word != EMPTY && base == (uint64_t)e->tcg + CPU_ENV &&
           (offset == at.env_fpip || offset == at.env_fpcs);
}

/* A call of `function` has been emitted. An instruction of MMX first calls what makes all registers valid; by its next
 * call all of its bytes have been read, so that they are there. */
void mmx_called(engine *e, const void *function)
{
    extern void helper_enter_mmx_x86_64(void *);
    static __thread struct instruction in;
    uint8_t bytes[LONGEST];
    int count = 0, bits, number;

    if (function == (const void *)helper_enter_mmx_x86_64) {
        e->mmx = e->begun_at;
        return;
    }
    if (function == (const void *)real_helper_fnstsw)
        e->status_word = e->begun_at;
    if (likely(e->mmx == EMPTY))
        return;
    bits = e->making->flags & HF_CS64 ? 64 : e->making->flags & HF_CS32 ? 32 : 16;
    do {
        if (count == LONGEST || (count && in.unknown))
            return;
        bytes[count] = (uint8_t)real_cpu_ldub_code(e->env, e->mmx + (uint64_t)count);
    } while (!decode(bytes, ++count, bits, 32, &in));
    number = written(&in);
    if (number >= 0)
        emit_ones(e, number);
}

/* A store of an MMX register, or of part of it, has been emitted. */
void mmx_stored(engine *e, uint64_t base, uint64_t offset)
{
    if (base == (uint64_t)e->tcg + CPU_ENV && offset - at.env_fpregs < 16 * MMX_REGISTERS)
        emit_ones(e, (int)(offset - at.env_fpregs) / 16);
}
