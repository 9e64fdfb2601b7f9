/* The table of engines, the real functions behind the replaced ones, and what Python calls. */
#define _GNU_SOURCE
#include "fast.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct layout at;

#define DEFINE(result, name, arguments) result(*real_##name) arguments;
REAL(DEFINE)
#undef DEFINE
int (*real_uc_emu_stop)(void *);
void (*real_cpu_exit)(void *);
void (*real_cpu_abort)(void *, const char *, ...);
int (*real_uc_emu_start)(void *, uint64_t, uint64_t, uint64_t, size_t);

/* ---- The table. Records are used again and never freed, so that a thread that found one can go on looking at it. */

#define ENGINES 256
static engine table[ENGINES];
int in_use;
static engine *recent = table; /* a hint: any thread may change it at any time */

engine *engine_of_cpu(const void *cpu)
{
    engine *e = recent;

    if (likely(e->cpu == cpu))
        return e;
    for (e = table; e < table + ENGINES; e++)
        if (e->cpu == cpu)
            return recent = e;
    return NULL;
}

engine *engine_of_uc(const void *uc)
{
    engine *e = recent;

    if (likely(e->uc == uc))
        return e;
    for (e = table; e < table + ENGINES; e++)
        if (e->uc == uc)
            return recent = e;
    return NULL;
}

/* The control structure knows the instruction counted last; while blocks run that is only noted here. */
void engine_left(engine *e)
{
    const slot *s = running(e);

    if (s) {
        e->control->last = s->last;
        e->control->running = 0;
    }
}

/* In a device callback: the linear address of the instruction that is executing. It is the last of its block, as accesses
 * to devices happen in blocks of one instruction (be_alone). */
API uint64_t v2e_fast_instruction_pc(const engine *e)
{
    return running(e) ? running(e)->last : e->control->last;
}

/* ---- Loading */

struct found {
    const char *part;
    int loaded;
};

static int look_for(struct dl_phdr_info *info, size_t size, void *data)
{
    struct found *f = data;

    (void)size;
    if (info->dlpi_name && strstr(info->dlpi_name, f->part))
        f->loaded = 1;
    return 0;
}

static int unicorn_came_first;

/* Loaded too late the helper would be bound to by nobody. */
__attribute__((constructor)) static void note_the_order(void)
{
    struct found f = {"libunicorn", 0};

    dl_iterate_phdr(look_for, &f);
    unicorn_came_first = f.loaded;
}

API int v2e_fast_too_late(void)
{
    return unicorn_came_first;
}

/* Find every function in the library at `path`, which is loaded. Returns NULL, or the name of one that is missing; the
 * others are found all the same, as Unicorn may call their replacements. */
API const char *v2e_fast_open(const char *path, const struct layout *layout)
{
    void *library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
    const char *missing = NULL;

    if (!library)
        return "any function: the library is not loaded";
#define RESOLVE(result, name, arguments)                                                                               \
    if (!(*(void **)&real_##name = dlsym(library, #name "_x86_64")))                                                   \
        missing = #name "_x86_64";
    REAL(RESOLVE)
#undef RESOLVE
    if (!(*(void **)&real_uc_emu_stop = dlsym(library, "uc_emu_stop")))
        missing = "uc_emu_stop";
    if (!(*(void **)&real_cpu_exit = dlsym(library, "cpu_exit")))
        missing = "cpu_exit";
    if (!(*(void **)&real_uc_emu_start = dlsym(library, "uc_emu_start")))
        missing = "uc_emu_start";
    if (!(*(void **)&real_cpu_abort = dlsym(library, "cpu_abort_x86_64")))
        missing = "cpu_abort_x86_64";
    at = *layout;
    return missing;
}

/* ---- Engines come and go */

static void *reserve(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

/* A page of zeros for the control structure, so near `env` that 32 bits reach from the one to the other; NULL where there
 * is no room. Below it, as what is above may be the heap's to grow into. */
#define STRIDE (16ull << 20)
API void *v2e_fast_page(uint64_t env)
{
    for (uint64_t distance = STRIDE; distance < (1ull << 31) - STRIDE; distance += STRIDE) {
        void *wanted = (void *)((env - distance) & ~(PAGE - 1));
        void *page = mmap(wanted, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

        if (page == wanted)
            return page;
        if (page != MAP_FAILED) /* a kernel before 4.17 takes it for a hint */
            munmap(page, PAGE);
    }
    return NULL;
}

API void v2e_fast_page_back(void *page)
{
    munmap(page, PAGE);
}

/* Python lets go of its lock around each call, so engines may come and go in several threads at once. */
static pthread_mutex_t coming_and_going = PTHREAD_MUTEX_INITIALIZER;

static void release(engine *e)
{
    void *memory[] = {e->slots, e->cuts, e->has_code, e->linear, e->records, e->code_bytes};
    uint64_t bytes[] = {e->capacity * sizeof(slot), CUTS * sizeof(struct cut), e->pages,
                        e->pages * sizeof *e->linear, RECORDS_SIZE, e->pages * CODE_MAP};

    for (unsigned i = 0; i < sizeof memory / sizeof *memory; i++)
        if (memory[i])
            munmap(memory[i], bytes[i]);
    memset(e, 0, sizeof *e);
}

API void v2e_fast_detach(void *uc)
{
    engine *e = engine_of_uc(uc);

    if (!e || !e->uc)
        return;
    pthread_mutex_lock(&coming_and_going);
    e->uc = e->cpu = NULL;
    release(e);
    pthread_mutex_unlock(&coming_and_going);
}

static engine *claim(void *uc, struct control *control, struct cells *cells, uint32_t translations, uint64_t ram,
                     port_in *in, port_out *out)
{
    engine *e;

    for (e = table; e < table + ENGINES && e->uc; e++)
        ;
    if (e == table + ENGINES)
        return NULL;
    e->capacity = translations;
    e->slots = reserve(e->capacity * sizeof(slot));
    e->cuts = reserve(CUTS * sizeof(struct cut));
    e->pages = ram / PAGE + 1;
    e->has_code = reserve(e->pages);
    e->linear = reserve(e->pages * sizeof *e->linear);
    e->records = reserve(RECORDS_SIZE);
    e->code_bytes = reserve(e->pages * CODE_MAP);
    e->classes = 1;
    if (!e->slots || !e->cuts || !e->has_code || !e->linear || !e->records || !e->code_bytes) {
        release(e);
        return NULL;
    }
    e->control = control;
    e->cells = cells;
    e->cpu = AT(uint8_t *, uc, at.uc_cpu);
    e->tcg = AT(uint8_t *, uc, at.uc_tcg);
    e->env = e->cpu + at.cpu_env;
    e->decrementer = &AT(int32_t, e->env, at.env_icount_decr);
    e->can_do_io = &AT(uint32_t, e->cpu, at.cpu_can_do_io);
    e->eip = &AT(uint64_t, e->env, at.env_eip);
    e->near_control = (uint8_t *)control - e->env;
    if (e->near_control != (int32_t)e->near_control)
        e->near_control = 0;
    e->in = in;
    e->out = out;
    e->uc = uc; /* from here on it is found */
    in_use = 1;
    real_tb_flush(e->cpu);
    return e;
}

/* Serve the engine `uc`: keep at most `translations` of them, know `ram` bytes of Unicorn's RAM numbering, and call
 * `in` and `out` for ports that `cells` do not answer. Returns NULL when there is no room. */
API engine *v2e_fast_attach(void *uc, struct control *control, struct cells *cells, uint32_t translations,
                            uint64_t ram, port_in *in, port_out *out)
{
    engine *e;

    v2e_fast_detach(uc);
    pthread_mutex_lock(&coming_and_going);
    e = claim(uc, control, cells, translations, ram, in, out);
    pthread_mutex_unlock(&coming_and_going);
    return e;
}

/* The checksum of the sources that this was built from (setup.py), 0 when it was built by hand. */
#ifndef V2E_SOURCES
#define V2E_SOURCES 0
#endif
API uint32_t v2e_fast_sources(void)
{
    return V2E_SOURCES;
}

/* The sizes of structures shared with Python, and where the last field of one is: both sides must agree. */
API uint64_t v2e_fast_control(void)
{
    return sizeof(struct control) << 48 | sizeof(struct layout) << 32 | sizeof(struct cells) << 16 | offsetof(struct control, mode);
}

API void v2e_fast_statistics(const engine *e, uint64_t values[12])
{
    values[0] = e->translations;
    values[1] = e->partial;
    values[2] = e->retried;
    values[3] = e->unwound;
    values[4] = e->flushes;
    values[5] = e->slow;
    values[6] = e->used;
    values[7] = 0;
    for (uint64_t page = 0; page < e->pages; page++)
        values[7] += e->has_code[page];
    values[8] = e->begun;
    values[9] = e->made;
    values[10] = e->guarded;
    values[11] = e->asked;
}
