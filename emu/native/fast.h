/* What the parts of the helper share: the layout of Unicorn's structures, an engine's record, and the real functions.
 *
 * The helper is a shared library loaded, for everyone to see, before libunicorn. libunicorn exports its internal
 * functions and calls them through its procedure linkage table, so the dynamic linker binds those calls to functions
 * of the same name in here. Nothing of Unicorn is changed in memory or on disk. Each replacement does its part for
 * engines that were attached (v2e_fast_attach) and is the original for all others.
 *
 * x86-64, ELF, glibc. The names and structures are those of Unicorn 2.1.4 (a QEMU 5.0 inside): qemu/accel/tcg/
 * cpu-exec.c, translate-all.c, cputlb.c, include/exec/exec-all.h.
 */
#ifndef V2E_FAST_H
#define V2E_FAST_H

#include "shared_ports.h"
#include "vga.h"
#include "x86.h"

#include <stddef.h>
#include <stdint.h>

#define API __attribute__((visibility("default")))      /* called by Python */
#define REPLACES __attribute__((visibility("default"))) /* found by libunicorn in place of its own */
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define AT(type, base, offset) (*(type *)((uint8_t *)(base) + (offset)))

#define PAGE 0x1000ull
#define EMPTY UINT64_MAX      /* no linear address: no instruction begins at the last byte */
#define NEVER ((int64_t)1 << 62) /* more instructions than any run has left: always take the slow way */

/* Constants of QEMU. */
#define HF_CPL 0x3u
#define HF_INHIBIT_IRQ 0x8u
#define HF_CS32 0x10u
#define HF_SS32 0x20u
#define HF_ADDSEG 0x40u
#define HF_PE 0x80u
#define HF_EM 0x400u
#define HF_TS 0x800u
#define HF_LMA 0x4000u
#define HF_CS64 0x8000u
#define HF_VM 0x20000u
#define HF_SMM 0x80000u
#define HF_OSFXSR 0x400000u
#define HF_SMAP 0x800000u
#define CF_NOCACHE 0x10000u
#define CF_INVALID 0x40000u
#define NO_CFLAGS UINT32_MAX
#define EXCP_DEBUG 0x10002
#define INTERRUPT_VIRQ 0x100u
#define TLB_NOTDIRTY 0x400ull
#define TLB_MMIO 0x200ull
#define MMU_MODES 3
#define PROT_WRITE_BIT 2
#define FLOATING 0xffu /* what is read where nothing answers */

/* Where Unicorn keeps things; filled in by Python, which has them calibrated (emu/unicorn_overlay.py). */
struct layout {
    uint32_t uc_cpu, uc_tcg, uc_invalid_error;
    uint32_t cpu_exit_request, cpu_cflags_next_tb, cpu_interrupt_request, cpu_can_do_io, cpu_exception_index, cpu_halted, cpu_env;
    uint32_t env_eip, env_eflags, env_hflags, env_cr, env_rsp, env_segs, env_dr,
        env_error_code, env_tsc_aux, env_cc_op, env_old_exception, env_fpstt, env_fpuc, env_fpregs, env_cc_src,
        env_mxcsr, env_fpus, env_fptags, env_fpop, env_fpcs, env_fpds, env_fpip, env_fpdp;
    int32_t env_icount_decr, env_tlb; /* these two lie below env */
};
extern struct layout at;

/* The general registers, by the numbers of x86.h. */
static inline uint64_t *registers(void *env)
{
    return &AT(uint64_t, env, at.env_rsp) - SP;
}

/* TranslationBlock, as far as it is used. The unwind data follow the machine code. */
typedef struct tb {
    uint64_t pc, cs_base;
    uint32_t flags;
    uint16_t size, icount;
    uint32_t cflags, trace;
    uint8_t *code;
    uint64_t code_size;
    struct tb *original;
    uint64_t page_next[2], page_addr[2];
} tb;

/* CPUTLBEntry and CPUTLBDescFast. */
typedef struct {
    uint64_t read, write, code, physical, addend, pad[3];
} tlb_entry;
typedef struct {
    uint64_t mask; /* (entries - 1) * sizeof(tlb_entry) */
    tlb_entry *table;
} tlb_fast;

/* Shared with Python: emu/unicorn_control.py, Control. */
struct control {
    int64_t remaining; /* instructions that may still be counted */
    uint64_t last;     /* linear address of the instruction counted last, where it is known */
    uint64_t invalidated, rcx, rsp;
    /* 1 more than the number of the slot of the block entered last; 0, when it was left otherwise than by its end. Each
     * block stores it and `remaining`: they share a cache line, so that the host writes both back at once */
    uint32_t running;
    uint8_t masked, hold, flags_before, checks; /* the second and third are of the other run loop */
    uint8_t stop, halt_run, interrupt, leave, trap, step, breakpoints, paging;
    uint8_t taken, suppress, taken_vector, ports;
    uint32_t reason;
    uint64_t skip, msr_map, skip_rsp, table;
    uint32_t dr7;
    uint32_t vector; /* at offset 100: where the CPU looks for the vector of a virtual interrupt */
    uint64_t mask, cr0, cr3, cr4, dr[4], event;
    uint64_t (*checker)(void *uc, uint64_t address);
    uint64_t caches[6];
    uint32_t mode, pad4;
    /* events.c: the classes of instructions to stop at, the changes to stop behind, places in RAM to stop at; and the
     * mode and the task register, as when the run began */
    uint32_t classes, changes;
    uint64_t physical;
    uint32_t physical_count, seen_mode;
    uint64_t seen_task;
    /* an interrupt taken while `last_for_now` does not end the run (`taken` is then TAKEN_ON): INTR is low behind it
     * until its controller is reached, which is told later that it was taken when `taken_at` instructions had retired */
    uint64_t taken_at;
    uint8_t last_for_now, pad5[7];
    uint64_t ranges; /* pairs of linear addresses, first and last: stop at each instruction in one */
    uint32_t range_count, pad6;
} __attribute__((packed));
enum { STOP_BUDGET = 1, STOP_ASKED, STOP_BREAKPOINT, STOP_CHANGED, STOP_EVENT };
enum { TAKEN = 1, TAKEN_ON };
#define STEP_DONE 0x100
#define INSTEAD 0x200 /* an answer of Python's: it has executed the instruction itself */
/* `leave`: 1, set by Python, the block is to be looked up again; 2, something that only `look` compares has changed. */
#define LEAVE_BLOCK 1
#define LOOK 2
/* The seven bytes from `checks` to `step` are looked at before each block, as one word (entry.c); breakpoints and paging
 * are looked at otherwise. */

/* One per translation. The translation hands its address, with bit 0 set, to the check at its beginning. */
typedef struct slot {
    int64_t need; /* `insns`, or NEVER */
    struct engine *engine;
    uint64_t eip;  /* of the first instruction; nothing stores it when the block is entered by a jump from another */
    tb *block;
    uint64_t last; /* linear address of the last instruction */
    uint32_t io;   /* 1: ports may be accessed in it, as it has one instruction */
    uint16_t insns;
    uint8_t breakpoint; /* one is on the first instruction */
    uint8_t repeats;    /* the first instruction is a repeated string instruction: the bytes of its counter */
    uint64_t pad;
} __attribute__((aligned(64))) slot;

#define CUTS (1u << 14)
struct cut {
    uint64_t pc;
    uint32_t flags, insns;
};

/* Reads of ports that need no Python: shared with it, emu/unicorn_shared.py. An answer holds while nothing else has
 * entered Python through a port (`generation`) and more than `floor` instructions are left to the run. */
#define CELLS 64
struct cell {
    uint16_t port;
    uint8_t value;   /* of byte reads, unless: */
    uint8_t streams; /* the answers are the `left` bytes at `data`, taken by reads of these sizes (a sum of 1, 2 and 4) */
    uint32_t generation;
    int64_t floor;
    const uint8_t *data;
    uint64_t left;
    uint64_t kept; /* the device is a hypervisor's own: its answers are counted apart */
};
/* Writes to a port that need no Python at once, under the same condition: they fill the `room` bytes at `data`. */
struct sink {
    uint16_t port;
    uint8_t sizes, pad; /* a sum of 1, 2 and 4 */
    uint32_t generation;
    uint8_t *data;
    uint64_t room;
};
/* The first access of a run that a watchpoint is met by. */
struct met {
    uint64_t linear, value;
    uint32_t number, size; /* the hook's; bytes */
    uint32_t kind, pad;    /* MET_*; 0: there was none */
};
enum { MET_READ = 1, MET_WRITE };

struct cells {
    uint32_t generation;
    /* RDTSC in this run, once Python has answered one (`time_known`, TIME_BY_*): `time` was the answer when `time_left`
     * instructions were left to the run, and each takes `tick` more. */
    uint32_t time_known, tick;
    uint32_t noting; /* NOTE_*; the display's window is not exposed, so that each access to it is counted */
    uint64_t time;
    int64_t time_left;
    uint64_t end; /* instructions retired when the run has none left */
    uint64_t answered, answered_at; /* accesses that needed no Python; instructions retired before the last of them */
    uint64_t kept; /* those to a hypervisor's own devices, which are not among them */
    struct sink sink;
    struct met met;
    struct cell cell[CELLS];
};

/* Bits of `halt_run` in struct control: a callback wants the run to end, a watchpoint does. */
enum { HALT_ASKED = 1, HALT_MET = 2 };

/* Classes of the segment caches (checks.c): their number stands in hflags from this bit on, where QEMU has none. */
#define CLASS_SHIFT 27
#define CLASSES 32u
/* Bytes of address space for what instructions have to be checked for. */
#define RECORDS_SIZE (64ull << 20)

/* A range of physical memory, where its bytes are in this process, and where in Unicorn's numbering of RAM; shared with
 * emu/unicorn_shared.py. */
struct place {
    uint64_t base, size, host, ram;
};

/* stores.c: which page of Unicorn's RAM numbering is at a page of this process; both are numbers of pages. */
#define HOMES 1024
struct home {
    uint64_t host, page;
};
#define CODE_MAP (PAGE / 8)

enum { TIME_BY_TSC = 1, TIME_BY_TSCP };
/* What `answered` counts: each access, or each instruction that makes some. Python writes `answered_at` too. */
enum { NOTE_ACCESSES = 1, NOTE_INSTRUCTIONS };
typedef uint32_t port_in(uint32_t port, int size);
typedef void port_out(uint32_t port, int size, uint32_t value);
typedef uint64_t system_call(uint32_t operation, uint64_t operand);
typedef void told_call(const uint8_t *code, int length);

typedef struct engine {
    struct control *control;
    uint8_t *uc, *cpu, *env, *tcg;
    /* Often used fields of the above. */
    int32_t *decrementer; /* < 0: Unicorn wants the block left */
    uint32_t *can_do_io;
    uint64_t *eip;
    slot *slots;
    uint32_t used, capacity;
    uint32_t checks;        /* checks asked for in the translation being made */
    uint8_t *end_if;    /* the label behind the check of an operand */
    int single;             /* that one is of one instruction on purpose: device accesses may happen in it */
    int stops;              /* a stop is asked for at its first instruction */
    uint64_t *need;         /* where its operations have what is taken from `remaining`, negative */
    int64_t near_control;   /* from env to the control structure, 0: too far for an instruction's displacement */
    uint8_t *slow_way, *go_on; /* the labels of the one that was emitted there */
    uint64_t unwinding;     /* host address a register state was just unwound to, for good */
    uint64_t synchronised;  /* the same for a memory hook, which goes on */
    struct cut *cuts;
    uint8_t *has_code; /* per page of Unicorn's RAM numbering */
    uint64_t *linear;  /* the same: the number of the linear page by which it was made writable last */
    uint8_t *code_bytes; /* the same, CODE_MAP bytes for each page: bit n, byte n may be part of a translation's code */
    struct home homes[HOMES];
    uint64_t pages;
    uint64_t fills; /* entries made in the TLB since it was flushed last; THRASHES: it is to be flushed, and grows by that */
    uint32_t tlb_flushes; /* modulo 2^32 */
    uint8_t *marks; /* per page of the guest's memory from `marked` on in this process: written */
    uint8_t *traces; /* the same for somebody else, who clears them at other times; NULL: there is nobody */
    uint64_t marked, marked_pages;
    const struct place *places;
    uint32_t place_count;
    port_in *in;
    port_out *out;
    system_call *system;
    told_call *tell; /* told.c; `told`: classes of events.c, 0: nothing is */
    uint32_t told;
    struct cells *cells;
    struct shared_ports *ports; /* NULL: none are answered here */
    int64_t beyond; /* instructions that the run has left behind the part that `remaining` and `end` know of (cut_run) */
    struct display *display; /* NULL: none is served here */
    uint64_t display_base;
    /* checks.c: whether it checks, what each class stands for, the records of the translations that there are */
    int checked;
    uint8_t ignores_66; /* the CPU model ignores an operand size prefix of near branches of 64-bit code */
    uint32_t denied; /* extensions of the instruction set that the CPU model lacks */
    uint32_t classes, signatures[CLASSES];
    uint8_t *records;
    uint64_t records_used;
    tb *making; /* the block being translated */
    uint8_t repeated; /* its instruction is a repeated string instruction; of those that begin with RF set */
    uint64_t known_aligned; /* the sum that the block being translated has just asked about (checks.c); 0: none */
    uint64_t begun_before; /* `begun` when the translation being made began */
    uint32_t exempt; /* the first instruction in it, but its first, that is exempt (integers.c); 0: none */
    int unshadowed; /* STI was executed with IF set: it begins no shadow, but Unicorn has it begin one */
    uint64_t unlocking; /* where its translator finds a prefix that may be LOCK, which it is not shown; EMPTY: nowhere */
    uint64_t shown_at; /* the next byte of the instruction that it may be shown as another (shown.c); EMPTY: none */
    uint8_t shown, short_addresses; /* what that byte is; the instruction's addresses have 16 bits */
    uint8_t for_66, for_repeat; /* what it is shown for the prefix 66, and for F2 and F3; 0: not known yet */
    int64_t dropping; /* by how much its translator moves the stack pointer in a RET with an operand above 7FFFh; 0: none */
    uint64_t prefix; /* the linear address of the next prefix that its translator reads of 64-bit code; EMPTY: none (prefixes.c) */
    uint64_t begun_at; /* the linear address of the instruction being translated */
    uint64_t mmx, status_word; /* the same, where it is of MMX, or FNSTSW AX (mmx.c); EMPTY: it is not */
    uint8_t override; /* the prefix of FS or GS that it has read of this instruction, 0: none */
    int longest; /* instructions that a block may have now, 0: any number */
    int nothing; /* the block being made is where no memory is: all of its page is FFh (nothing.c) */
    int keeps_tlb; /* CR0 changes, and the TLB does not depend on it (tlb.c) */
    int limited; /* the one made last could have had more */
    uint64_t retried_before; /* `retried` when that was made */
    const tb *stopped; /* that before which a breakpoint ended the run; good until anything else happens */
    uint64_t translations, partial, retried, unwound, flushes, slow, begun, made, guarded, asked; /* statistics */
} engine;

/* The block entered last, NULL when it was left otherwise than by its end. */
static inline slot *running(const engine *e)
{
    return e->control->running ? &e->slots[e->control->running - 1] : NULL;
}

/* Python was not asked for an access. That of a port is alone in its block; of a window, its whole block is counted. */
static inline void note_answer(engine *e)
{
    uint64_t at = e->cells->end - (uint64_t)e->control->remaining - 1;

    if (e->cells->noting == NOTE_INSTRUCTIONS && e->cells->answered_at == at)
        return;
    e->cells->answered++;
    e->cells->answered_at = at;
}

/* ---- engines.c */
engine *engine_of_cpu(const void *cpu);
static inline engine *engine_of_env(const void *env)
{
    return engine_of_cpu((const uint8_t *)env - at.cpu_env);
}
engine *engine_of_uc(const void *uc);
extern int in_use;           /* an engine was attached once */
void engine_left(engine *e); /* the running block ended: remember its last instruction */
struct packing;
API int v2e_fast_go(engine *e, int64_t budget, int skip);                   /* runs.c */
enum { BRIEF = 15 };   /* words of CpuState.brief */
API void v2e_fast_brief(const struct packing *from, uint64_t to[BRIEF]); /* pack.c */
int has_a20(const engine *e);

#define REAL(X)                                                                                                        \
    X(void, helper_check_exit_request, (void *, uint32_t))                                                             \
    X(void, helper_pause, (void *, int))                                                                               \
    X(void, tcg_gen_lookup_and_goto_ptr, (void *))                                                                     \
    X(void, tcg_gen_goto_tb, (void *, unsigned))                                                                       \
    X(void, tb_exec_lock, (void *))                                                                                    \
    X(void, tcg_gen_callN, (void *, void *, void *, int, void **))                                                     \
    X(uint64_t, tcg_const_i64, (void *, int64_t))                                                                      \
    X(void, tcg_gen_andi_i64, (void *, uint64_t, uint64_t, int64_t))                                                   \
    X(uint64_t, tcg_const_i32, (void *, int32_t))                                                                      \
    X(void, tcg_temp_free_internal, (void *, void *))                                                                  \
    X(void, tcg_gen_op2, (void *, uint32_t, uint64_t, uint64_t))                                                       \
    X(uint32_t, cpu_ldub_code, (void *, uint64_t))                                                                     \
    X(uint64_t, get_page_addr_code, (void *, uint64_t))                                                                \
    X(uint64_t, cpu_ldq_code, (void *, uint64_t))                                                                      \
    X(uint32_t, cpu_lduw_data_ra, (void *, uint64_t, uint64_t))                                                        \
    X(uint32_t, cpu_ldl_data_ra, (void *, uint64_t, uint64_t))                                                         \
    X(int, x86_cpu_tlb_fill, (void *, uint64_t, int, int, int, int, uint64_t))                                         \
    X(void *, probe_access, (void *, uint64_t, int, int, int, uint64_t))                                               \
    X(uint32_t, cpu_cc_compute_all, (void *, int))                                                                     \
    X(void, raise_exception_err_ra, (void *, int, int, uint64_t))                                                      \
    X(uint8_t *, tcg_temp_new_internal, (void *, int, int))                                                            \
    X(uint8_t *, gen_new_label, (void *))                                                                              \
    X(void, tcg_gen_op1, (void *, int, uint64_t))                                                                      \
    X(uint8_t *, tcg_emit_op, (void *, int))                                                                           \
    X(void, tcg_gen_op3, (void *, int, uint64_t, uint64_t, uint64_t))                                                  \
    X(void, tcg_gen_brcondi_i64, (void *, int, uint64_t, int64_t, void *))                                             \
    X(void, gen_intermediate_code, (void *, tb *, int))                                                                \
    X(tb *, tb_gen_code, (void *, uint64_t, uint64_t, uint32_t, int))                                                  \
    X(tb *, tb_htable_lookup, (void *, uint64_t, uint64_t, uint32_t, uint32_t))                                        \
    X(tb *, tcg_tb_lookup, (void *, uint64_t))                                                                         \
    X(void, tb_phys_invalidate, (void *, tb *, uint64_t))                                                              \
    X(void, tb_flush, (void *))                                                                                        \
    X(void, breakpoint_handler, (void *))                                                                              \
    X(void, cpu_loop_exit, (void *))                                                                                   \
    X(int, cpu_restore_state, (void *, uint64_t, int))                                                                 \
    X(int, x86_cpu_exec_interrupt, (void *, int))                                                                      \
    X(void, cpu_io_recompile, (void *, uint64_t))                                                                      \
    X(void, cpu_x86_update_cr0, (void *, uint32_t))                                                                    \
    X(void, cpu_x86_update_cr3, (void *, uint64_t))                                                                    \
    X(void, cpu_x86_update_cr4, (void *, uint32_t))                                                                    \
    X(void, cpu_x86_update_dr7, (void *, uint32_t))                                                                    \
    X(void, helper_fldcw, (void *, uint32_t))                                                                          \
    X(void, helper_ldmxcsr, (void *, uint32_t))                                                                        \
    X(void, helper_set_dr, (void *, int, uint64_t))                                                                    \
    X(void, helper_load_seg, (void *, int, int))                                                                       \
    X(void, helper_ljmp_protected, (void *, uint64_t, uint64_t, uint64_t))                                             \
    X(void, helper_lcall_protected, (void *, uint64_t, uint64_t, uint64_t, uint64_t))                                  \
    X(void, helper_lcall_real, (void *, int, uint64_t, int, int))                                                      \
    X(void, helper_hlt, (void *, int))                                                                                 \
    X(void, helper_iret_real, (void *, uint64_t))                                                                      \
    X(void, helper_iret_protected, (void *, uint64_t, uint64_t))                                                       \
    X(void, helper_lret_protected, (void *, uint64_t, uint64_t))                                                       \
    X(void, helper_syscall, (void *, int))                                                                             \
    X(void, helper_sysret, (void *, int))                                                                              \
    X(void, helper_sysenter, (void *, int))                                                                            \
    X(void, helper_sysexit, (void *, int))                                                                             \
    X(void, helper_rdmsr, (void *))                                                                                    \
    X(void, helper_wrmsr, (void *))                                                                                    \
    X(void, helper_rdpmc, (void *))                                                                                    \
    X(void, helper_write_crN, (void *, int, uint64_t))                                                                 \
    X(void, helper_bpt_io, (void *, uint32_t, uint32_t, uint64_t))                                                     \
    X(void, helper_sti, (void *))                                                                                      \
    X(void, helper_write_eflags, (void *, uint64_t, uint32_t))                                                         \
    X(void, helper_rsm, (void *))                                                                                      \
    X(uint64_t, helper_get_dr, (void *, int))                                                                          \
    X(void, helper_ltr, (void *, int))                                                                                 \
    X(void, helper_cmpxchg8b, (void *, uint64_t))                                                                      \
    X(void, helper_cmpxchg8b_unlocked, (void *, uint64_t))                                                             \
    X(void, helper_cmpxchg16b, (void *, uint64_t))                                                                     \
    X(void, helper_cmpxchg16b_unlocked, (void *, uint64_t))                                                            \
    X(void, helper_idivl_EAX, (void *, uint64_t))                                                                      \
    X(void, helper_fxrstor, (void *, uint64_t))                                                                        \
    X(void, helper_xrstor, (void *, uint64_t, uint64_t))                                                               \
    X(uint64_t, helper_xgetbv, (void *, uint32_t))                                                                     \
    X(void, helper_fxsave, (void *, uint64_t))                                                                         \
    X(void, helper_xsave, (void *, uint64_t, uint64_t))                                                                \
    X(void, helper_xsaveopt, (void *, uint64_t, uint64_t))                                                             \
    X(void, cpu_stl_data_ra, (void *, uint64_t, uint32_t, uint64_t))                                                   \
    X(void, helper_maskmov_mmx, (void *, void *, void *, uint64_t))                                                    \
    X(void, helper_maskmov_xmm, (void *, void *, void *, uint64_t))                                                    \
    X(void, cpu_stb_data_ra, (void *, uint64_t, uint32_t, uint64_t))                                                   \
    X(void, helper_emms, (void *))                                                                                     \
    X(void, helper_fclex, (void *))                                                                                    \
    X(void, helper_fninit, (void *))                                                                                   \
    X(uint32_t, helper_fnstsw, (void *))                                                                               \
    X(void, helper_fincstp, (void *))                                                                                  \
    X(void, helper_fdecstp, (void *))                                                                                  \
    X(void, helper_ffree_STN, (void *, int))                                                                           \
    X(void, helper_fbld_ST0, (void *, uint64_t))                                                                       \
    X(uint64_t, cpu_ldq_data_ra, (void *, uint64_t, uint64_t))                                                         \
    X(void, cpu_stq_data_ra, (void *, uint64_t, uint64_t, uint64_t))                                                   \
    X(void, cpu_stw_data_ra, (void *, uint64_t, uint32_t, uint64_t))                                                   \
    X(void, helper_roundps_xmm, (void *, void *, const void *, uint32_t))                                              \
    X(void, helper_roundss_xmm, (void *, void *, const void *, uint32_t))                                              \
    X(void, helper_roundpd_xmm, (void *, void *, const void *, uint32_t))                                              \
    X(void, helper_roundsd_xmm, (void *, void *, const void *, uint32_t))                                              \
    X(void, helper_phaddw_mmx, (void *, void *, void *))                                                               \
    X(void, helper_phaddw_xmm, (void *, void *, void *))                                                               \
    X(void, helper_phaddd_mmx, (void *, void *, void *))                                                               \
    X(void, helper_phaddd_xmm, (void *, void *, void *))                                                               \
    X(void, helper_phaddsw_mmx, (void *, void *, void *))                                                              \
    X(void, helper_phaddsw_xmm, (void *, void *, void *))                                                              \
    X(void, helper_phsubw_mmx, (void *, void *, void *))                                                               \
    X(void, helper_phsubw_xmm, (void *, void *, void *))                                                               \
    X(void, helper_phsubd_mmx, (void *, void *, void *))                                                               \
    X(void, helper_phsubd_xmm, (void *, void *, void *))                                                               \
    X(void, helper_phsubsw_mmx, (void *, void *, void *))                                                              \
    X(void, helper_phsubsw_xmm, (void *, void *, void *))                                                              \
    X(void, helper_packusdw_xmm, (void *, void *, void *))                                                             \
    X(uint64_t, helper_read_eflags, (void *))                                                                          \
    X(uint32_t, cpu_ldl_mmuidx_ra, (void *, uint64_t, int, uint64_t))                                                  \
    X(uint32_t, cpu_lduw_mmuidx_ra, (void *, uint64_t, int, uint64_t))                                                 \
    X(uint64_t, cpu_ldq_mmuidx_ra, (void *, uint64_t, int, uint64_t))                                                  \
    X(void, cpu_stw_mmuidx_ra, (void *, uint64_t, uint32_t, int, uint64_t))                                            \
    X(void, cpu_stl_mmuidx_ra, (void *, uint64_t, uint32_t, int, uint64_t))                                            \
    X(void, cpu_stq_mmuidx_ra, (void *, uint64_t, uint64_t, int, uint64_t))                                            \
    X(void, raise_exception_err, (void *, int, int))                                                                   \
    X(void, helper_check_iob, (void *, uint32_t))                                                                      \
    X(void, helper_check_iow, (void *, uint32_t))                                                                      \
    X(void, helper_check_iol, (void *, uint32_t))                                                                      \
    X(uint64_t, helper_inb, (void *, uint32_t))                                                                        \
    X(uint64_t, helper_inw, (void *, uint32_t))                                                                        \
    X(uint64_t, helper_inl, (void *, uint32_t))                                                                        \
    X(void, helper_outb, (void *, uint32_t, uint32_t))                                                                 \
    X(void, helper_outw, (void *, uint32_t, uint32_t))                                                                 \
    X(void, helper_outl, (void *, uint32_t, uint32_t))                                                                 \
    X(void, helper_rdtsc, (void *))                                                                                    \
    X(void, helper_rdtscp, (void *))                                                                                   \
    X(void, tlb_set_page_with_attrs, (void *, uint64_t, uint64_t, uint32_t, int, int, uint64_t))                       \
    X(void, tlb_flush_by_mmuidx, (void *, uint16_t))                                                                   \
    X(void, tlb_flush_page_by_mmuidx, (void *, uint64_t, uint16_t))                                                    \
    X(void, tlb_flush, (void *))                                                                                       \
    X(void, tlb_reset_dirty, (void *, uint64_t, uint64_t))                                                             \
    X(void, tlb_reset_dirty_by_vaddr, (void *, uint64_t, uint64_t))                                                    \
    X(void, tlb_unprotect_code, (void *, uint64_t))                                                                    \
    X(void, tb_invalidate_phys_page_fast, (void *, void *, uint64_t, int, uint64_t))                                   \
    X(void, tb_invalidate_phys_range, (void *, uint64_t, uint64_t))                                                    \
    X(void, helper_ret_stb_mmu, (void *, uint64_t, uint8_t, uint32_t, uint64_t))                                       \
    X(void, helper_le_stw_mmu, (void *, uint64_t, uint16_t, uint32_t, uint64_t))                                       \
    X(void, helper_le_stl_mmu, (void *, uint64_t, uint32_t, uint32_t, uint64_t))                                       \
    X(void, helper_le_stq_mmu, (void *, uint64_t, uint64_t, uint32_t, uint64_t))                                       \
    X(void, x86_stb_phys, (void *, uint64_t, uint8_t))                                                                 \
    X(void, x86_stw_phys, (void *, uint64_t, uint32_t))                                                                \
    X(void, x86_stl_phys, (void *, uint64_t, uint32_t))                                                                \
    X(void, x86_stl_phys_notdirty, (void *, uint64_t, uint32_t))                                                       \
    X(void, x86_stq_phys, (void *, uint64_t, uint64_t))                                                                \
    X(uint8_t *, qemu_map_ram_ptr, (void *, void *, uint64_t))                                                         \
    X(uint64_t, qemu_ram_addr_from_host, (void *, void *))

#define DECLARE(result, name, arguments) extern result(*real_##name) arguments;
REAL(DECLARE)
#undef DECLARE
extern int (*real_uc_emu_stop)(void *);
extern int (*real_uc_emu_start)(void *, uint64_t, uint64_t, uint64_t, size_t);
extern void (*real_cpu_exit)(void *);
extern void (*real_cpu_abort)(void *, const char *, ...);

/* ---- alone.c */
void be_alone(engine *e, uint64_t host);

/* ---- count.c */
void enable_hooks(const engine *e);
void keep_skip(engine *e, const tb *block);
engine *look_behind(void *env);
__attribute__((noreturn)) void leave_block(engine *e);
__attribute__((noreturn)) void stop_run(engine *e, uint32_t reason);
int cpu_restore_state_x86_64(void *cpu, uint64_t host, int will_exit);

/* ---- corrections.c */
__attribute__((noreturn)) void end_block(engine *e);
__attribute__((noreturn)) void end_block_at(engine *e, uint64_t eip);
void mark_repeat(engine *e, const slot *s);
int virtual_interrupt_due(const engine *e);

/* ---- dirty.c */
int is_unmarked(const engine *e, uint64_t host);
void mark_written(const engine *e, uint64_t host);
API void v2e_fast_host_changed(engine *e, uint64_t host, uint64_t end);
API void v2e_fast_physical_changed(engine *e, uint64_t first, uint64_t end);
void take_traces(engine *e, uint8_t *traces);

/* ---- events.c */
int is_event(engine *e, const tb *block, uint64_t pc);
int code_at(engine *e, const tb *block, uint64_t pc, uint8_t *code);
API uint32_t v2e_fast_class_of(const uint8_t *code, int length, int bits);
int mode_or_task_changed(const engine *e);
enum { CHANGE_MODE = 1, CHANGE_TASK = 2 }; /* bits of `changes` in struct control */
void task_register_loaded(void *env);

/* ---- entry.c */
void emit_check(engine *e, const slot *s);
void ends_otherwise(engine *e, const void *function);
void block_needs(engine *e, int64_t need);
void emit_slow_way(engine *e, const slot *s);
#define FCMOV 0x100
void emit_fcmov(engine *e, int number);
void emit_ones(engine *e, int number);
void emit_if_beyond(engine *e, int base, int index, uint32_t displacement, uint32_t mask, uint32_t most);
/* What is asked of a sum: whether its bits `mask` are more than `most`. */
struct low_bits {
    uint32_t mask, most;
};
void emit_if_low(engine *e, int base, int index, int shift, int64_t segment_base, uint32_t displacement,
                 struct low_bits low);
void emit_if_paging(engine *e);
void emit_end_if(engine *e);

/* ---- far64.c */
void forget_frame(void);
int is_narrow_far(void *env, uint64_t shift);
void return_far_64(void *env, uint64_t shift, uint64_t parameters, uint64_t host);
void return_interrupt_64(void *env, uint64_t shift, uint64_t next, uint64_t host);
void call_far_64(void *env, uint64_t selector, uint64_t offset, uint64_t shift, uint64_t next, uint64_t host);

/* ---- nothing.c */
int is_nothing(engine *e, uint64_t pc);

/* ---- paging.c */
int mmu_index(const void *env);

/* ---- system.c */
int bus_floats(engine *e, uint64_t physical);
void refuse_base(void *env, uint64_t linear, uint64_t host);
__attribute__((noreturn)) void refuse_sysret(engine *e, uint64_t host);

/* ---- shown.c */
void show_begin(engine *e, uint64_t pc);

/* ---- prefixes.c */
void prefixes_begin(engine *e, uint64_t pc, uint32_t flags);
uint32_t shown_prefix(engine *e, uint64_t linear, uint32_t value);
void hide_ignored_66(const engine *e, uint8_t *code, int length);

/* ---- steps.c */
__attribute__((noreturn)) void step_trap(void *env);
void end_of_instruction(void *env);
void end_resume(void *env);

/* ---- mmx.c */
void mmx_called(engine *e, const void *function);
void mmx_stored(engine *e, uint64_t base, uint64_t offset);
int is_pointer_of_fnstsw(const engine *e, uint64_t base, uint64_t offset);

/* ---- stores.c */
void bytes_are_code(engine *e, const tb *block);
void bytes_are_plain(engine *e, uint64_t ram);
void remember_home(engine *e, uint64_t host, uint64_t ram);

/* ---- paging.c */
void touch(void *env, uint64_t linear, uint32_t size, int write, uint64_t host);
void leave_mmx_for_exception(void *env, uint64_t host);

/* ---- gates.c */
API int v2e_fast_gate_unsure(void *env, uint32_t vector);
int gate_is_usual(void *env, uint32_t vector);

/* ---- shared_ports.c */
int shared_memory(engine *e, uint64_t address, unsigned size, uint64_t *value);
int shared_memory_written(engine *e, uint64_t address, unsigned size, uint64_t value);
void acknowledge_shared(engine *e);
void join_run(engine *e);
void cut_run(engine *e);
int next_part(engine *e);

/* ---- tasks.c */
int interrupt_delivered(void *cpu, int request);
void show_all_flags(void);

/* ---- temporaries.c */
void end_before_full(void *tcg);

/* ---- tlb.c */
#define THRASHES UINT64_MAX
void tlb_filled(engine *e, const tlb_fast *tlb);
void grow_tlb(engine *e);

/* ---- translate.c */
extern __thread engine *translating;
void block_was_wasted(engine *e, const tb *block, int done);
void remember_cut(engine *e, uint64_t pc, uint32_t flags, uint32_t insns);
void read_code(engine *e, uint64_t from, uint8_t *bytes, int count);
int shadow_of_its_own(engine *e, uint64_t pc, uint32_t flags);
void end_false_shadow(engine *e);
int holds_traps(engine *e);
int is_breakpoint(const engine *e, uint64_t pc, uint32_t flags);
void forget_translations(engine *e);

/* ---- unwind.c */
int64_t signed_leb(const uint8_t **data);
int index_of_pc(const tb *block, uint64_t pc, uint64_t *previous);
int index_of_host(const tb *block, uint64_t host, uint64_t *pc);

/* ---- code_pages.c */
void page_has_code(engine *e, uint64_t ram);
uint64_t host_of(engine *e, uint64_t ram);
API void v2e_fast_memory_changed(engine *e, uint64_t first, uint64_t end);

/* ---- integers.c */
int is_exempt(engine *e, uint64_t pc, uint32_t flags);

/* ---- vga.c */
int dac_written(struct display *d, uint32_t port, uint32_t value);
void note_shared(engine *e, uint32_t port);
int shared_in(engine *e, uint32_t port, uint32_t *value);
int shared_out(engine *e, uint32_t port, uint32_t value);
void expose_display(engine *e, uint64_t physical, uint64_t page, tlb_entry *entry);
int exposed(const engine *e, uint64_t ram);

/* ---- checks.c */
int reclassify(engine *e);
int records_full(const engine *e);
void refuse_fetch(engine *e, uint64_t pc, uint64_t eip, uint32_t flags);

#endif
