/* SIGIO's handler: the exact stop of the machine whose descriptor has become readable (xenbridge/signals.py).
 *
 * It is C because Python runs a handler only when its main thread comes by: the machine would go on until then, and a
 * signal that arrives just before the main thread begins to wait would end no wait. What it does is async-signal-safe
 * (signal-safety(7)): poll, write, and stores to bytes. Which descriptor it was is asked of all of them, as SIGIO is not
 * queued: two that come together are one signal, whose si_fd would name one. A disposition belongs to the process, and
 * so does this table; everything of it but the handler's part is called under one lock of Python's. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#define API __attribute__((visibility("default"))) /* called by Python */
#define MOST 64
#define FLAGS 2

/* One descriptor: bytes to be set to 1 in this order, and where its owner is told. */
struct watched {
    _Atomic int fd; /* -1: the place is free */
    int bell;       /* an eventfd */
    uint8_t *flags[FLAGS];
    _Atomic uint64_t count; /* signals that found it readable */
};

static struct watched table[MOST];
static struct sigaction before;
static unsigned used; /* places, and so whether the handler is there */
static _Atomic unsigned inside; /* handlers that are running now */

#ifndef V2E_SOURCES
#define V2E_SOURCES 0
#endif
API uint32_t v2e_sigio_sources(void)
{
    return V2E_SOURCES;
}

static void handler(int number, siginfo_t *info, void *context)
{
    const uint64_t one = 1;
    struct pollfd asked[MOST];
    int saved = errno;

    inside++;
    for (int i = 0; i < MOST; i++) {
        asked[i].fd = table[i].fd; /* poll passes over negative ones */
        asked[i].events = POLLIN;
        asked[i].revents = 0;
    }
    if (poll(asked, MOST, 0) > 0)
        for (int i = 0; i < MOST; i++) {
            struct watched *w = &table[i];

            if (!(asked[i].revents & POLLIN) || w->fd != asked[i].fd)
                continue;
            for (int n = 0; n < FLAGS; n++)
                if (w->flags[n])
                    *(volatile uint8_t *)w->flags[n] = 1;
            w->count++;
            if (write(w->bell, &one, sizeof one) < 0) {
                /* Only a counter that is full fails, and then who waits for it is awake. */
            }
        }
    inside--;
    /* Whoever had it before has descriptors of his own. */
    if (before.sa_flags & SA_SIGINFO) {
        if (before.sa_sigaction)
            before.sa_sigaction(number, info, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
        before.sa_handler(number);
    }
    errno = saved;
}

/* Watch `fd`: the place, or -errno; -EMFILE where all are taken. */
API int v2e_sigio_add(int fd, int bell, uint8_t *first, uint8_t *second)
{
    int place = 0;

    while (place < MOST && used && table[place].fd >= 0)
        place++;
    if (place == MOST)
        return -EMFILE;
    if (!used) {
        struct sigaction ours = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};

        for (int i = 0; i < MOST; i++)
            table[i].fd = -1;
        sigemptyset(&ours.sa_mask);
        if (sigaction(SIGIO, &ours, &before) < 0)
            return -errno;
    }
    table[place].bell = bell;
    table[place].flags[0] = first;
    table[place].flags[1] = second;
    table[place].count = 0;
    table[place].fd = fd;
    used++;
    return place;
}

API uint64_t v2e_sigio_count(int place)
{
    return table[place].count;
}

/* Whether the handler is the process's. */
API int v2e_sigio_installed(void)
{
    struct sigaction now;

    return !sigaction(SIGIO, NULL, &now) && now.sa_flags & SA_SIGINFO && now.sa_sigaction == handler;
}

/* Watch it no more. Behind this no handler touches its bytes; O_ASYNC is to be cleared before. The last one puts back
 * what was there before: by way of SIG_IGN, which drops a signal that is pending, as SIG_DFL would end the process for
 * it. */
API void v2e_sigio_remove(int place)
{
    table[place].fd = -1;
    while (inside) /* on another thread; on this one nothing of ours runs meanwhile */
        sched_yield();
    if (--used == 0) {
        struct sigaction ignored = {.sa_handler = SIG_IGN};

        if (!v2e_sigio_installed()) /* somebody has put another one there since, which is to stay */
            return;
        sigaction(SIGIO, &ignored, NULL);
        sigaction(SIGIO, &before, NULL);
    }
}
