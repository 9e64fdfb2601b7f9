/* Answers what is known already, without the interpreter: behind each stop gdb sends a few packets, one after the other
 * has been answered, and Python's way from one to the next costs more than the two system calls. Nothing here knows what a
 * packet means. Bytes that came and are in the table are answered by those beside them; all else is handed back.
 * stub/exchange.py does the same in Python, and the tests compare the two. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define API __attribute__((visibility("default"))) /* called by Python */
#define NANOSECONDS 1000000000ull

enum { MOST = 256 }; /* packets answered in one call */

/* What v2e_known_answer returns beside a count of bytes. */
enum { NOTHING = 0, ENDED = -1 };

/* Shared with stub/known.py. */
struct exchange {
    uint64_t until;   /* CLOCK_MONOTONIC, ns: when to come back at the latest, but for one wait of the socket's own */
    int32_t fd;       /* a socket that waits for no longer than its SO_RCVTIMEO */
    uint32_t table_size, size; /* bytes */
    uint32_t answered; /* how many packets were */
    uint32_t unsent;   /* bytes of the last answer for which there was no room */
    uint32_t pad;
    const uint8_t *table; /* entries: two 32-bit lengths, that of a packet and that of its answer, and both */
    uint8_t *data;    /* room for what comes */
    uint16_t which[MOST]; /* the entries of the packets that were answered, in their order */
};

API uint64_t v2e_known_layout(void)
{
    return (uint64_t)sizeof(struct exchange) << 32 | MOST;
}

#ifndef V2E_SOURCES
#define V2E_SOURCES 0u
#endif

API uint32_t v2e_known_sources(void)
{
    return V2E_SOURCES;
}

static int is_time(uint64_t until)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NANOSECONDS + (uint64_t)now.tv_nsec >= until;
}

/* The answer to the `length` bytes at `data`, with its own length and its entry's number; NULL where there is none. */
static const uint8_t *answer_to(const struct exchange *x, size_t length, uint32_t *answer_length, uint16_t *number)
{
    const uint8_t *at = x->table, *end = at + x->table_size;
    uint32_t lengths[2];

    for (uint16_t n = 0; at < end; n++) {
        memcpy(lengths, at, sizeof lengths);
        at += sizeof lengths;
        if (lengths[0] == length && !memcmp(at, x->data, length)) {
            *answer_length = lengths[1];
            *number = n;
            return at + lengths[0];
        }
        at += (size_t)lengths[0] + lengths[1];
    }
    return NULL;
}

/* Wait for packets and answer them. Returns the bytes that came and are not known; NOTHING when none came, an answer did
 * not go out as a whole, or it is time; ENDED when the peer is gone. */
API int64_t v2e_known_answer(struct exchange *x)
{
    x->answered = x->unsent = 0;
    while (x->answered < MOST) {
        uint32_t length;
        const uint8_t *answer;
        ssize_t got = recv(x->fd, x->data, x->size, 0), sent;

        if (got == 0)
            return ENDED;
        if (got < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? NOTHING : ENDED;
        answer = answer_to(x, (size_t)got, &length, &x->which[x->answered]);
        if (!answer)
            return got;
        x->answered++;
        sent = send(x->fd, answer, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            return ENDED;
        x->unsent = length - (sent < 0 ? 0 : (uint32_t)sent);
        if (x->unsent || is_time(x->until))
            return NOTHING;
    }
    return NOTHING;
}
