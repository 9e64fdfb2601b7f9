/* A KVM vCPU's state to and from `struct packed` (emu/native/packed.h), and the system calls that it takes: of the
 * parts that are not in the page which KVM_RUN shares only those that changed are given, and only those that a guest can
 * change without an exit are asked for. xenbridge/kvm/state.py does the same in Python, part by part; the tests compare
 * the two. Nothing here keeps anything but in the structure that it is given. */
#include "../../../emu/native/packed.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#define API __attribute__((visibility("default"))) /* called by Python */
#define PAGE 0x1000ull
#define XSTATE_BV 512 /* in an XSAVE area (SDM vol. 1, 13.4) */
#define X87 1u
#define SSE 2u
#define FX_POINTERS_END 24
#define FX_MXCSR_MASK 28
#define FX_XMM_END 416
#define AFTER_FNINIT 0x37f /* FCW; FSW and the abridged tags are 0 (SDM vol. 2A, FINIT) */

/* Numbers of the registers in their order in `struct packed` (SDM vol. 4; TSC_AUX and the SYSCALL family, APM vol. 2). */
static const uint32_t msr_numbers[PACKED_MSRS] = {0x174, 0x175, 0x176, 0xc0000081, 0xc0000082,
                                                  0xc0000083, 0xc0000084, 0xc0000102, 0xc0000103};
#define MSR_TSC 0x10
#define RFLAGS_IF 0x200

struct msr_list {
    struct kvm_msrs head;
    struct kvm_msr_entry entries[PACKED_MSRS + 1];
};

/* One slot's log of written pages: its bitmap has a bit for each, from the host address on. */
struct log {
    struct kvm_dirty_log request;
    uint64_t host, bytes; /* bytes of the bitmap, a multiple of 8 */
};

/* What belongs to one vCPU. Up to `system_calls` it is shared with xenbridge/kvm/hop.py. */
struct hop {
    struct kvm_run *run;
    struct packed *packed;
    int32_t fd, vm_fd;
    uint32_t changed; /* PACKED_*: since the state was given */
    uint32_t known;   /* a bit for each of the MSRs that this KVM has */
    uint32_t native;  /* the same of those that a guest can change without an exit */
    uint32_t reads_tsc;
    uint64_t tsc; /* as it was read last */
    uint64_t apic_base;
    uint32_t nmi_pending;
    int32_t error; /* errno of `request`, which failed; 0 where a value was refused */
    uint64_t request;
    const struct log *logs;
    uint64_t (*pieces)[2]; /* (host address, bytes) of runs of written pages */
    uint32_t log_count, piece_count; /* room for pieces */
    int (*pack)(const void *); /* the emulator's: fills `packed` in; 0, with nothing done, where there is more to the state */
    const void *packing;       /* its argument */
    uint64_t system_calls;
    /* What KVM has. */
    struct kvm_debugregs debug;
    uint64_t msrs[PACKED_MSRS];
    uint8_t fx[PACKED_FX];
    struct kvm_xsave xsave;
};

API uint64_t v2e_hop_layout(void)
{
    return (uint64_t)sizeof(struct hop) << 32 | offsetof(struct hop, debug) << 16 | sizeof(struct packed);
}

/* The checksum of the sources that this was built from (setup.py), 0 when it was built by hand. */
#ifndef V2E_SOURCES
#define V2E_SOURCES 0
#endif
API uint32_t v2e_hop_sources(void)
{
    return V2E_SOURCES;
}

static int call(struct hop *h, int fd, unsigned long request, void *argument)
{
    int answer = ioctl(fd, request, argument);

    h->system_calls++;
    if (answer < 0) {
        h->error = errno;
        h->request = request;
    }
    return answer;
}

/* ---- Segments: the order of kvm_sregs, by their numbers in `struct packed` */

enum { ES, CS, SS, DS, FS, GS, LDTR, TR };
#define SEGMENTS(X) X(cs, CS) X(ds, DS) X(es, ES) X(fs, FS) X(gs, GS) X(ss, SS) X(tr, TR) X(ldt, LDTR)

/* What is given is compared with what is there as it is written, a word at a time: bytes that have just been stored one by
 * one are slow to be loaded together again. */
static uint64_t give(uint64_t *to, uint64_t value)
{
    uint64_t differs = *to ^ value;

    *to = value;
    return differs;
}

/* struct kvm_segment is a base and 16 bytes more, which are put together here as two words (little-endian). */
_Static_assert(offsetof(struct kvm_segment, limit) == 8 && offsetof(struct kvm_segment, selector) == 12 &&
                   offsetof(struct kvm_segment, type) == 14 && offsetof(struct kvm_segment, present) == 15 &&
                   offsetof(struct kvm_segment, dpl) == 16 && offsetof(struct kvm_segment, db) == 17 &&
                   offsetof(struct kvm_segment, s) == 18 && offsetof(struct kvm_segment, l) == 19 &&
                   offsetof(struct kvm_segment, g) == 20 && offsetof(struct kvm_segment, avl) == 21 &&
                   offsetof(struct kvm_segment, unusable) == 22 && sizeof(struct kvm_segment) == 24,
               "a segment's bytes are where they are put");

static uint64_t give_segment(struct kvm_segment *to, const struct packed_segment *from)
{
    uint64_t a = from->access, unusable = !!(a & ACCESS_UNUSABLE), *words = (uint64_t *)(void *)to;
    uint64_t type = a & 0xf, present = unusable ? 0 : a >> 7 & 1, dpl = a >> 5 & 3, db = a >> 14 & 1, s = a >> 4 & 1;
    uint64_t l = a >> 13 & 1, g = a >> 15 & 1, avl = a >> 12 & 1;

    return give(words, from->base) |
           give(words + 1, from->limit | (uint64_t)(uint16_t)from->selector << 32 | type << 48 | present << 56) |
           give(words + 2, dpl | db << 8 | s << 16 | l << 24 | g << 32 | avl << 40 | unusable << 48);
}

static uint64_t give_table(struct kvm_dtable *to, const struct packed_table *from)
{
    uint64_t differs = (to->base ^ from->base) | (to->limit ^ (from->limit & 0xffff));

    to->base = from->base;
    to->limit = (uint16_t)from->limit;
    return differs;
}

static void take_segment(struct packed_segment *to, const struct kvm_segment *from)
{
    to->base = from->base;
    to->limit = from->limit;
    to->selector = from->selector;
    to->access = from->type | (uint32_t)from->s << 4 | (uint32_t)from->dpl << 5 | (uint32_t)from->present << 7 |
                 (uint32_t)from->avl << 12 | (uint32_t)from->l << 13 | (uint32_t)from->db << 14 |
                 (uint32_t)from->g << 15 | (from->unusable ? ACCESS_UNUSABLE : 0);
}

/* ---- Into KVM */

/* General registers: the order of kvm_regs, by the numbers of their encoding. */
#define REGISTERS(X)                                                                                                   \
    X(rax, 0) X(rbx, 3) X(rcx, 1) X(rdx, 2) X(rsi, 6) X(rdi, 7) X(rsp, 4) X(rbp, 5) X(r8, 8) X(r9, 9) X(r10, 10)       \
        X(r11, 11) X(r12, 12) X(r13, 13) X(r14, 14) X(r15, 15)

static void give_registers(struct kvm_run *run, const struct packed *p)
{
    struct kvm_regs *regs = &run->s.regs.regs;
    uint64_t differs = 0;

#define GIVE(name, number) differs |= (regs->name ^ p->regs[number]), regs->name = p->regs[number];
    REGISTERS(GIVE)
#undef GIVE
    differs |= (regs->rip ^ p->rip) | (regs->rflags ^ p->rflags);
    regs->rip = p->rip;
    regs->rflags = p->rflags;
    if (differs)
        run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
}

static void give_system(struct hop *h, const struct packed *p)
{
    struct kvm_run *run = h->run;
    struct kvm_sregs *s = &run->s.regs.sregs;
    uint64_t differs = give_table(&s->gdt, &p->gdtr) | give_table(&s->idt, &p->idtr);

#define GIVE(name, number) differs |= give_segment(&s->name, &p->segments[number]);
    SEGMENTS(GIVE)
#undef GIVE
#define GIVE(name, value) differs |= (s->name ^ (value)), s->name = (value);
    GIVE(cr0, p->cr0)
    GIVE(cr2, p->cr2)
    GIVE(cr3, p->cr3)
    GIVE(cr4, p->cr4)
    GIVE(cr8, p->cr8)
    GIVE(efer, p->efer)
    GIVE(apic_base, h->apic_base)
    for (unsigned i = 0; i < sizeof s->interrupt_bitmap / sizeof *s->interrupt_bitmap; i++)
        GIVE(interrupt_bitmap[i], 0) /* nothing is on its way */
#undef GIVE
    if (differs)
        run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
    run->cr8 = p->cr8; /* where the local APIC is the user's, KVM_RUN takes it from here, past what was set before */
}

static int half_delivered(const struct kvm_vcpu_events *e)
{
    return e->exception.injected || e->exception.pending || e->interrupt.injected || e->nmi.injected;
}

/* Nothing is being delivered. Which instruction made a shadow is not known: behind STI interrupts are enabled, so where
 * they are not it was a load of SS, as which VT-x has it or refuses the entry; else STI, which blocks less. */
static void give_events(struct hop *h, const struct packed *p)
{
    struct kvm_vcpu_events *e = &h->run->s.regs.events;
    uint8_t kind = p->rflags & RFLAGS_IF ? KVM_X86_SHADOW_INT_STI : KVM_X86_SHADOW_INT_MOV_SS;
    uint8_t shadow = p->shadow ? kind : 0;

    if (!half_delivered(e) && e->interrupt.shadow == shadow && !!e->nmi.pending == !!h->nmi_pending &&
        !!e->nmi.masked == p->nmi_blocked)
        return;
    memset(e, 0, sizeof *e);
    e->interrupt.shadow = shadow;
    e->nmi.pending = (uint8_t)h->nmi_pending;
    e->nmi.masked = p->nmi_blocked;
    e->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
    h->run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
}

static int give_debug(struct hop *h, const struct packed *p)
{
    struct kvm_debugregs d = {.dr6 = p->dr[6], .dr7 = (uint32_t)p->dr[7]};
    uint64_t differs = (d.dr6 ^ h->debug.dr6) | (d.dr7 ^ h->debug.dr7) | h->debug.flags;

    for (unsigned i = 0; i < 4; i++)
        differs |= p->dr[i] ^ h->debug.db[i];
    if (!differs)
        return 0;
    memcpy(d.db, p->dr, sizeof d.db);
    h->debug = d;
    return call(h, h->fd, KVM_SET_DEBUGREGS, &d);
}

static int give_fpu(struct hop *h, const struct packed *p)
{
    uint8_t *area = (uint8_t *)h->xsave.region;

    if (!memcmp(p->fx, h->fx, sizeof h->fx))
        return 0;
    memcpy(area, p->fx, FX_MXCSR_MASK);
    memcpy(area + FX_ST, p->fx + FX_ST, FX_XMM_END - FX_ST);
    area[XSTATE_BV] |= X87 | SSE;
    memcpy(h->fx, p->fx, sizeof h->fx);
    return call(h, h->fd, KVM_SET_XSAVE, &h->xsave);
}

static int give_msrs(struct hop *h, const struct packed *p)
{
    struct msr_list list;
    uint32_t differ = 0;
    int done;

    for (unsigned i = 0; i < PACKED_MSRS; i++)
        differ |= (uint32_t)(p->msrs[i] != h->msrs[i]) << i;
    if (!(differ &= h->known))
        return 0;
    memset(&list, 0, sizeof list);
    for (unsigned i = 0; i < PACKED_MSRS; i++)
        if (differ >> i & 1)
            list.entries[list.head.nmsrs++] = (struct kvm_msr_entry){msr_numbers[i], 0, p->msrs[i]};
    done = call(h, h->fd, KVM_SET_MSRS, &list);
    if (done < 0)
        return -1;
    memcpy(h->msrs, p->msrs, sizeof h->msrs);
    if (done == (int)list.head.nmsrs)
        return 0;
    h->error = 0;
    h->request = list.entries[done].index;
    return -1;
}

/* Go on from what is packed. Returns -1 where KVM refuses a part: see `error`. */
API int v2e_hop_in(struct hop *h)
{
    const struct packed *p = h->packed;

    h->changed = 0;
    give_registers(h->run, p);
    give_system(h, p);
    give_events(h, p);
    return give_debug(h, p) < 0 || give_fpu(h, p) < 0 || give_msrs(h, p) < 0 ? -1 : 0;
}

/* The emulator goes over: pack its state and go on from that, in the one call that a hop in makes. Returns -1, with
 * nothing done, where there is more to the state than can be packed; otherwise CR8 and what a caller seldom meets. */
enum { OVER_HALTED = 1, OVER_A20_MASKED = 2, OVER_REFUSED = 4, OVER_CR8_SHIFT = 4 };
int v2e_hop_over(struct hop *h)
{
    const struct packed *p = h->packed;
    int refused;

    if (!h->pack(h->packing))
        return -1;
    h->nmi_pending = 0; /* whoever packs has none */
    refused = v2e_hop_in(h) < 0;
    return (p->halted ? OVER_HALTED : 0) | (p->a20 ? 0 : OVER_A20_MASKED) | (refused ? OVER_REFUSED : 0) |
           (int)(p->cr8 & 0xf) << OVER_CR8_SHIFT;
}

/* KVM_RUN once: the exit's reason, INTERRUPTED by a signal or by immediate_exit, or below that -errno. */
enum { INTERRUPTED = -1 };
int v2e_hop_run(struct hop *h)
{
    if (ioctl(h->fd, KVM_RUN, 0) >= 0)
        return (int)h->run->exit_reason;
    return errno == EINTR || errno == EAGAIN ? INTERRUPTED : INTERRUPTED - errno;
}

/* ---- Out of KVM */

/* What is in the page: registers, segments and events, as behind the last KVM_RUN. */
API void v2e_hop_peek(struct hop *h)
{
    struct packed *p = h->packed;
    const struct kvm_sync_regs *page = &h->run->s.regs;
    const struct kvm_sregs *s = &page->sregs;

#define TAKE(name, number) p->regs[number] = page->regs.name;
    REGISTERS(TAKE)
#undef TAKE
    p->rip = page->regs.rip;
    p->rflags = page->regs.rflags;
#define TAKE(name, number) take_segment(&p->segments[number], &s->name);
    SEGMENTS(TAKE)
#undef TAKE
    p->gdtr = (struct packed_table){s->gdt.base, s->gdt.limit};
    p->idtr = (struct packed_table){s->idt.base, s->idt.limit};
    p->cr0 = s->cr0;
    p->cr2 = s->cr2;
    p->cr3 = s->cr3;
    p->cr4 = s->cr4;
    p->cr8 = s->cr8;
    p->efer = s->efer;
    p->shadow = !!page->events.interrupt.shadow;
    p->nmi_blocked = !!page->events.nmi.masked;
}

/* A component that XSTATE_BV leaves out is as after FNINIT, or zeros; MXCSR is there always (SDM vol. 1, 13.8). The last
 * instruction's FCS and FDS stay as long as no x87 instruction came. AMD's CPUs save no pointers at all while no exception
 * is pending, unless CPUID says RstrFpErrPtrs (APM vol. 3, Fn8000_0008): so where they are zeros and the FPU is not as
 * FNINIT leaves it those of before stay. */
static int take_fpu(struct hop *h)
{
    const uint8_t *area = (uint8_t *)h->xsave.region;
    struct packed *p = h->packed;
    uint8_t fx[PACKED_FX] = {0}, parts;
    uint16_t control = AFTER_FNINIT;

    if (call(h, h->fd, KVM_GET_XSAVE, &h->xsave) < 0)
        return -1;
    parts = area[XSTATE_BV];
    memcpy(fx + FX_MXCSR, area + FX_MXCSR, 4);
    memcpy(fx + FX_FCW, &control, 2);
    if (parts & SSE)
        memcpy(fx + FX_XMM, area + FX_XMM, FX_XMM_END - FX_XMM);
    if (parts & X87) {
        static const uint8_t none[FX_POINTERS_END - FX_FOP];
        const size_t pointers = FX_POINTERS_END - FX_FOP;
        int initial, unsaved;

        memcpy(fx, area, FX_POINTERS_END);
        fx[FX_FTW + 1] = 0;
        for (int i = 0; i < 8; i++)
            memcpy(fx + FX_ST + 16 * i, area + FX_ST + 16 * i, 10);
        initial = !memcmp(fx, &control, 2) && !fx[FX_FSW] && !fx[FX_FSW + 1] && !fx[FX_FTW];
        unsaved = !memcmp(fx + FX_FOP, none, pointers) && !initial;
        if (unsaved)
            memcpy(fx + FX_FOP, h->fx + FX_FOP, pointers);
        else if (memcmp(fx + FX_FOP, h->fx + FX_FOP, pointers))
            p->fcs = p->fds = 0;
    } else if (memcmp(fx, h->fx, FX_POINTERS_END)) {
        p->fcs = p->fds = 0;
    }
    if (memcmp(fx, h->fx, sizeof fx)) {
        memcpy(h->fx, fx, sizeof fx);
        memcpy(p->fx, fx, sizeof fx);
        h->changed |= PACKED_FPU;
    }
    return 0;
}

static int take_debug(struct hop *h)
{
    struct kvm_debugregs d;
    struct packed *p = h->packed;

    if (call(h, h->fd, KVM_GET_DEBUGREGS, &d) < 0)
        return -1;
    if (!memcmp(&d, &h->debug, sizeof d))
        return 0;
    h->debug = d;
    memset(p->dr, 0, sizeof p->dr);
    memcpy(p->dr, d.db, sizeof d.db);
    p->dr[6] = d.dr6;
    p->dr[7] = d.dr7;
    h->changed |= PACKED_DEBUG;
    return 0;
}

static int take_msrs(struct hop *h, uint32_t wanted)
{
    struct msr_list list = {0};
    unsigned at = 0;
    int done;

    for (unsigned i = 0; i < PACKED_MSRS; i++)
        if (wanted >> i & 1)
            list.entries[list.head.nmsrs++].index = msr_numbers[i];
    if (h->reads_tsc)
        list.entries[list.head.nmsrs++].index = MSR_TSC;
    if (!list.head.nmsrs)
        return 0;
    done = call(h, h->fd, KVM_GET_MSRS, &list);
    if (done < 0)
        return -1;
    for (unsigned i = 0; i < PACKED_MSRS; i++)
        if (wanted >> i & 1) {
            uint64_t value = list.entries[at++].data;

            if (value != h->msrs[i]) {
                h->msrs[i] = h->packed->msrs[i] = value;
                h->changed |= PACKED_MSR;
            }
        }
    if (h->reads_tsc && done == (int)list.head.nmsrs)
        h->tsc = list.entries[at].data;
    return 0;
}

/* All that can have changed while KVM ran; with `whole`, of the MSRs all that it has. */
API int v2e_hop_read(struct hop *h, int whole)
{
    v2e_hop_peek(h);
    return take_fpu(h) < 0 || take_debug(h) < 0 || take_msrs(h, whole ? h->known : h->native) < 0 ? -1 : 0;
}

/* Read what KVM has come to, behind an instruction that is `unfinished`, as its access was answered, when KVM has completed
 * it. What was to be delivered and has not been is taken back: nothing of it has happened. Returns AGAIN, before anything
 * was read, where the same instruction exits again. */
enum { AGAIN = 1 };
static int finish(struct hop *h, int unfinished)
{
    struct kvm_run *run = h->run;
    struct kvm_vcpu_events *e = &run->s.regs.events;

    if (unfinished) {
        uint8_t asked = run->immediate_exit;
        int answer;

        run->immediate_exit = 1;
        answer = ioctl(h->fd, KVM_RUN, 0);
        run->immediate_exit = asked;
        h->system_calls++;
        if (answer < 0 && errno != EINTR && errno != EAGAIN) {
            h->error = errno;
            h->request = KVM_RUN;
            return -1;
        }
        if (!answer && (run->exit_reason == KVM_EXIT_IO || run->exit_reason == KVM_EXIT_MMIO))
            return AGAIN;
    }
    if (half_delivered(e)) {
        e->exception.injected = e->exception.pending = e->interrupt.injected = e->nmi.injected = 0;
        run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
    }
    return v2e_hop_read(h, 0);
}

/* ---- Written pages */

/* Append a run to the pieces, or to the last of them. Returns 0 when there is no room. */
static int add_piece(struct hop *h, uint32_t *count, uint64_t address, uint64_t bytes)
{
    if (*count && h->pieces[*count - 1][0] + h->pieces[*count - 1][1] == address) {
        h->pieces[*count - 1][1] += bytes;
        return 1;
    }
    if (*count == h->piece_count)
        return 0;
    h->pieces[*count][0] = address;
    h->pieces[(*count)++][1] = bytes;
    return 1;
}

/* The pages that the guest has written since this was asked last: how many pieces; -1 where KVM refuses; NO_ROOM where
 * there is none for all of them. */
enum { NO_ROOM = 0x7fff };
static int written(struct hop *h)
{
    uint32_t count = 0;
    int full = 0;

    for (uint32_t i = 0; i < h->log_count; i++) {
        const struct log *log = &h->logs[i];
        const uint64_t *words = log->request.dirty_bitmap;

        if (call(h, h->vm_fd, KVM_GET_DIRTY_LOG, (void *)&log->request) < 0)
            return -1;
        for (uint64_t at = 0; at < log->bytes / 8 && !full; at++)
            for (uint64_t word = words[at]; word && !full; word &= word - 1)
                full = !add_piece(h, &count, log->host + (at * 64 + (uint64_t)__builtin_ctzll(word)) * PAGE, PAGE);
    }
    return full ? NO_ROOM : (int)count;
}

/* The emulator goes on, in the one call that a hop out makes: the state packed, and the pages that KVM has written where
 * it has run. `how` has what only the caller knows. Returns -1 where KVM refuses; AGAIN, with nothing done, where the
 * instruction has another access, to be answered first; or which parts have changed, and how many pieces of memory, NO_ROOM
 * where all of it has to be taken for written. */
enum { UNFINISHED = 1, RAN = 2, IS_HALTED = 4, A20_OPEN = 8 };
enum { CHANGED_SHIFT = 4, PIECES_SHIFT = 16 };
int v2e_hop_leave(struct hop *h, int how)
{
    int ended = finish(h, how & UNFINISHED), pieces = 0;

    if (ended)
        return ended;
    h->packed->halted = !!(how & IS_HALTED);
    h->packed->a20 = !!(how & A20_OPEN);
    if (how & RAN && (pieces = written(h)) < 0)
        return -1;
    return pieces << PIECES_SHIFT | (int)h->changed << CHANGED_SHIFT;
}
