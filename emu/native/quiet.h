/* Single steps and looks at memory without the interpreter, for C that serves a debugger's client: emu/native/quiet.c
 * makes them, stub/native asks for them, emu/quiet.py has the same structure and says what holds. */
#ifndef V2E_QUIET_H
#define V2E_QUIET_H

#include <stdint.h>

/* A range of physical memory, and where its bytes are in this process. */
struct quiet_region {
    uint64_t base, size, host;
};

struct quiet {
    int (*step)(struct quiet *);
    /* Where the bytes are that the CPU would read at linear addresses; NULL: it takes Python to say. */
    const uint8_t *(*look)(const struct quiet *, uint64_t linear, uint64_t length);
    void *engine;       /* the helper's */
    const void *hidden; /* what pack.c goes by */
    const struct quiet_region *regions;
    uint32_t region_count;
    int32_t ended;      /* what the step that was QUIET_ENDED ended by (runs.c) */
    int64_t left;       /* steps that may be made */
    uint64_t made;      /* steps that were QUIET_MADE */
    uint64_t brief[8];  /* behind the last of them: CpuState.brief */
    uint32_t moded;     /* the CPU's mode is another than when v2e_quiet_begin was called before, or a step has changed it */
    uint32_t looks;     /* a look may be made, as there is no paging */
    uint32_t mode[8];   /* what quiet.c compares */
};

/* What came of a step: nothing was done, and it is for Python to make; it was made, and nothing else happened; it was
 * made or begun, and Python has to look at how it ended. */
enum { QUIET_REFUSED, QUIET_MADE, QUIET_ENDED };

#endif
