/* One access that a borrowed vCPU makes (xenbridge/kvm/requests.py): the 32 bytes of an ioreq in, those of its answer in
 * their place. Only the usual kind is served here, one element to a device of the kernel's; of any other nothing is done,
 * and Python says what is wrong with it. requests.py does the same in Python; the tests compare the two. */
#include <errno.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <sys/ioctl.h>

#define API __attribute__((visibility("default"))) /* called by Python */
#define RANGES 16
#define READS 0x20 /* bits of an ioreq: direction, and the states READY and ANSWERED (Xen, public/hvm/ioreq.h) */
#define READY 1
#define ANSWERED 3
#define FLAGS 2 /* RFLAGS: the bit that is always set */

struct ioreq {
    uint64_t address, data;
    uint32_t count, size, port;
    uint16_t pad;
    uint8_t bits, type;
};

struct range {
    uint64_t first, last;
};

/* What belongs to one vCPU; shared with xenbridge/kvm/requests.py. */
struct lent {
    struct kvm_run *run;
    int32_t fd;
    uint32_t door; /* the port at which the code comes back */
    struct ioreq request;
    uint64_t entries[2][2][3]; /* the pieces of code: port or memory, write or read, 1, 2 or 4 bytes */
    struct range owned[2][RANGES]; /* ports and physical addresses of the kernel's devices; unused ones hold nothing */
    uint64_t made;                 /* accesses */
};

enum { DONE, UNUSUAL, NOBODY };

API uint32_t v2e_hop_lent_size(void)
{
    return sizeof(struct lent);
}

/* Where a request is put, and its answer is found. */
struct ioreq *v2e_request_of(struct lent *lent)
{
    return &lent->request;
}

static int is_owned(const struct range *ranges, const struct ioreq *r)
{
    for (int i = 0; i < RANGES; i++)
        if (r->address >= ranges[i].first && r->address <= ranges[i].last && r->size - 1 <= ranges[i].last - r->address)
            return 1;
    return 0;
}

/* KVM_RUN, on through interruptions by signals: no longer than one entry and one exit, as only xenbridge.kvm.kick's
 * signals end it, and these are another thread's. */
static int run(const struct lent *lent)
{
    int answer;

    do
        answer = ioctl(lent->fd, KVM_RUN, 0);
    while (answer < 0 && (errno == EINTR || errno == EAGAIN));
    return answer < 0 ? -errno : 0;
}

/* DONE; UNUSUAL: nothing was done; NOBODY: the vCPU came back with another exit; or -errno of KVM_RUN. */
int v2e_request(struct lent *lent)
{
    struct ioreq *r = &lent->request;
    struct kvm_run *page = lent->run;
    struct kvm_regs *regs = &page->s.regs.regs;
    const int reads = !!(r->bits & READS);
    int outcome;

    if (r->type > 1 || r->count != 1 || (r->bits & ~READS) != READY || (r->size != 1 && r->size != 2 && r->size != 4) ||
        !is_owned(lent->owned[r->type], r))
        return UNUSUAL;
    regs->rax = reads ? 0 : r->data;
    regs->rbx = regs->rdx = r->address;
    regs->rip = lent->entries[r->type][reads][r->size >> 1];
    regs->rflags = FLAGS;
    page->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
    lent->made++;
    if ((outcome = run(lent)) < 0)
        return outcome;
    if (page->exit_reason != KVM_EXIT_IO || page->io.port != lent->door)
        return NOBODY;
    if (reads)
        r->data = regs->rax & (r->size == 4 ? 0xffffffffu : (1u << 8 * r->size) - 1);
    else
        r->data = 0;
    r->bits = (uint8_t)(ANSWERED | (r->bits & READS));
    return DONE;
}

/* One KVM_RUN and nothing else: what the bench compares a request with. */
int v2e_request_bare(struct lent *lent)
{
    return run(lent);
}
