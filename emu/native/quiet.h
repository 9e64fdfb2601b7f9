/* Single steps, runs to watchpoints, looks at memory and stores to it without the interpreter, for C that serves a debugger's client: emu/native/quiet.c
 * makes them, stub/native asks for them, emu/quiet.py has the same structure and says what holds. */
#ifndef V2E_QUIET_H
#define V2E_QUIET_H

#include <stdint.h>

/* A range of physical memory, and where its bytes are in this process. */
struct quiet_region {
    uint64_t base, size, host;
};

/* A watchpoint that has ended a run: the number of its hook, the access, and when and where the guest stood behind it,
 * at linear `pc`, cs:ip. */
struct quiet_hit {
    uint64_t linear, value, retired, pc, ip;
    uint32_t number, size;
    uint32_t is_write, cs;
};

struct quiet {
    int (*step)(struct quiet *);
    /* Run until a watchpoint ends that; `take` then says that its hit is told, else Python is to look at it. */
    int (*go)(struct quiet *);
    void (*take)(struct quiet *);
    /* Store at linear addresses as a debugger does; 0: nothing was done, it takes Python to say. */
    int (*put)(struct quiet *, uint64_t linear, const uint8_t *bytes, uint64_t length);
    /* Where the bytes are that the CPU would read at linear addresses; NULL: it takes Python to say. */
    const uint8_t *(*look)(const struct quiet *, uint64_t linear, uint64_t length);
    void *engine;       /* the helper's */
    const void *hidden; /* what pack.c goes by */
    const struct quiet_region *regions;
    uint32_t region_count;
    int32_t ended;      /* what the step or run that was QUIET_ENDED or QUIET_MET ended by (runs.c) */
    int64_t left;       /* instructions that may be executed, in steps or runs */
    int64_t most;       /* not 0: no steps may be made, but runs of so many */
    int64_t budget;     /* how many the last one had */
    uint64_t from;      /* and instructions retired before it */
    uint64_t made;      /* steps that were QUIET_MADE */
    uint64_t brief[16]; /* behind the last of them: CpuState.brief, and instructions retired */
    uint32_t moded;     /* the CPU's mode is another than when v2e_quiet_begin was called before, or a step has changed it */
    uint32_t looks;     /* a look may be made, as there is no paging */
    uint32_t mode[8];   /* what quiet.c compares */
    uint32_t hit_count, hit_room; /* hits that were taken, and there is room for */
    struct quiet_hit *hits;
    struct quiet_hit hit; /* behind QUIET_MET */
};

/* What came of a step: nothing was done, and it is for Python to make; it was made, and nothing else happened; it was
 * made or begun, and Python has to look at how it ended. Of a run QUIET_MET: a watchpoint was, and nothing else happened. */
enum { QUIET_REFUSED, QUIET_MADE, QUIET_ENDED, QUIET_MET };

#endif
