/* Answers what is known already, without the interpreter: behind each stop gdb sends a few packets, one after the other
 * has been answered, and Python's way from one to the next costs more than the two system calls. Bytes that came and are
 * in the table are answered by those beside them; all else is handed back. stub/exchange.py does the same in Python, and
 * the tests compare the two.
 *
 * Where the target can do that in C (emu/native/quiet.h), more kinds of packets are answered: `m`, `M` and `X`; whether
 * memory is as it was; and the bytes by which the client has stepped last, or run to a watchpoint, with a stop reply that
 * Python has made the form of. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "../../emu/native/quiet.h"

#define API __attribute__((visibility("default"))) /* called by Python */
#define NANOSECONDS 1000000000ull

enum { MOST = 256 }; /* packets answered in one call */
enum { LONGEST = 1024 }; /* bytes of memory in one answer */
enum { STAYS = 1 };  /* a table's entry: the answer is the same behind a step that leaves the CPU's mode */
#define FRAME 4      /* `$`, `#` and two digits */

/* What v2e_known_answer returns beside a count of bytes. */
enum { NOTHING = 0, ENDED = -1 };

/* A value in a stop reply: in hex at the reply's byte `at`, so many bytes of struct quiet's `brief` from its byte `from`. */
struct piece {
    uint32_t at, from, bytes;
};

/* A watchpoint that is set: the packet that takes it out, and the one that puts it in again. gdb does both at each stop. */
struct toggle {
    const uint8_t *off, *on;
    uint32_t off_size, on_size;
};

/* A watchpoint that a run may end by: `length` bytes from linear `address` on, and bits of which accesses. The reply then
 * begins by `head`, behind which are the address, `;` and what of the reply to a step stands behind SIGNALLED. */
struct watched {
    uint64_t address, length;
    const uint8_t *head;
    uint32_t head_size, accesses;
};
enum { READS = 1, WRITES = 2 };
#define SIGNALLED 4 /* `$T05` */

/* Memory that was read: so many bytes from `linear` on, which follow. */
struct span {
    uint64_t linear, length;
};

/* Shared with stub/known.py: what a target's steps and looks mean to its client. */
struct talk {
    struct quiet *quiet;
    const uint8_t *step;         /* the packet that is a step */
    const uint8_t *reply;        /* to it, framed: with any values, and any checksum */
    const struct piece *pieces;  /* its values */
    const struct toggle *toggles;
    uint32_t step_size, reply_size, piece_count, looks; /* looks: `m` is answered */
    uint32_t toggle_count, watched_count; /* at most 32 toggles */
    const uint8_t *go;               /* the packet that is a run */
    const struct watched *watched;
    const uint8_t *same;             /* the packet that asks whether memory is as it was when `spans` were read */
    const uint8_t *spans;            /* struct span and its bytes, one behind the other */
    uint32_t go_size, same_size, span_count, pad;
};

/* A packet that was answered: by the table's entry of this number, or by what was MADE here. */
struct said {
    uint32_t number, made, length, answer_length;
};

/* Shared with stub/known.py. */
struct exchange {
    uint64_t until;   /* CLOCK_MONOTONIC, ns: when to come back at the latest, but for one wait of the socket's own */
    int32_t fd;       /* a socket that waits for no longer than its SO_RCVTIMEO */
    uint32_t table_size, size; /* bytes */
    uint32_t answered; /* how many packets were */
    uint32_t unsent;   /* bytes of the last answer for which there was no room */
    uint32_t begun;    /* a step was, and did not end quietly: its packet is handed back */
    const uint8_t *table; /* entries: two 32-bit lengths, that of a packet and that of its answer, flags, and both */
    uint8_t *data;    /* room for what comes */
    const struct talk *talk; /* NULL: there is none */
    uint8_t *answer;  /* room for an answer that is made here: `answer_size` bytes */
    uint8_t *log;     /* what was said: struct said, and where it is MADE the packet and the answer */
    uint32_t answer_size, log_size, logged, stepped; /* bytes in the log; steps */
    uint32_t out; /* bit n: toggle n is off, to the client, and nobody has been told */
    uint32_t met, written; /* runs; stores */
    uint32_t pad;
};

API uint64_t v2e_known_layout(void)
{
    return (uint64_t)sizeof(struct exchange) << 48 | (uint64_t)sizeof(struct talk) << 32 | sizeof(struct quiet) << 16 | MOST;
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

struct bytes {
    const uint8_t *at; /* NULL: none */
    uint32_t length;
    uint32_t number; /* of the table's entry that it is from */
};
static const struct bytes nothing;

/* What the table has for the `length` bytes that came. */
static struct bytes from_table(const struct exchange *x, size_t length)
{
    const uint8_t *at = x->table, *end = at + x->table_size;
    int moved = x->stepped || x->met, moded = moved && x->talk->quiet->moded;
    uint32_t entry[3];

    if (x->written)
        return nothing;
    for (uint32_t n = 0; at < end; n++) {
        memcpy(entry, at, sizeof entry);
        at += sizeof entry;
        if (entry[0] == length && !memcmp(at, x->data, length)) {
            if (moved && (moded || !(entry[2] & STAYS)))
                return nothing;
            return (struct bytes){at + entry[0], entry[1], n};
        }
        at += (size_t)entry[0] + entry[1];
    }
    return nothing;
}

static const char digits[] = "0123456789abcdef";

static uint8_t *put_hex(uint8_t *to, const uint8_t *bytes, uint64_t count)
{
    for (; count--; bytes++) {
        *to++ = (uint8_t)digits[*bytes >> 4];
        *to++ = (uint8_t)digits[*bytes & 15];
    }
    return to;
}

/* The digits behind `#` of the packet of `length` bytes at `packet`, by what it holds. */
static void checksum(const uint8_t *packet, size_t length, uint8_t to[2])
{
    uint8_t sum = 0;

    for (size_t i = 1; i < length - 3; i++)
        sum = (uint8_t)(sum + packet[i]);
    put_hex(to, &sum, 1);
}

/* Lower-case hexadecimal, as gdb writes it, of at most 64 bits; NULL where there is none. */
static const uint8_t *number(const uint8_t *at, uint64_t *value)
{
    const uint8_t *from = at;

    for (*value = 0; at - from < 16; at++) {
        if (*at >= '0' && *at <= '9')
            *value = *value << 4 | (uint64_t)(*at - '0');
        else if (*at >= 'a' && *at <= 'f')
            *value = *value << 4 | (uint64_t)(*at - 'a' + 10);
        else
            break;
    }
    return at > from ? at : NULL;
}

/* To `m ADDRESS,LENGTH`, whole and alone. What this does not take for one, or cannot read at once, is for Python. */
static struct bytes memory(const struct exchange *x, size_t length)
{
    const struct talk *t = x->talk;
    const uint8_t *at = x->data, *found;
    uint64_t address, count;
    uint8_t sum[2];

    if (length < 8 || at[0] != '$' || at[1] != 'm' || at[length - 3] != '#')
        return nothing;
    at = number(at + 2, &address); /* ends at `#` at the latest */
    if (!at || *at != ',')
        return nothing;
    at = number(at + 1, &count);
    checksum(x->data, length, sum);
    if (!at || at != x->data + length - 3 || memcmp(at + 1, sum, 2) || !count || count > LONGEST ||
        2 * count + FRAME > x->answer_size)
        return nothing;
    found = t->quiet->look(t->quiet, address, count);
    if (!found)
        return nothing;
    x->answer[0] = '$';
    *put_hex(x->answer + 1, found, count) = '#';
    length = 2 * count + FRAME;
    checksum(x->answer, length, x->answer + length - 2);
    return (struct bytes){x->answer, (uint32_t)length, 0};
}

static const char ok[] = "$OK#9a";

static struct bytes well(const struct exchange *x)
{
    memcpy(x->answer, ok, sizeof ok - 1);
    return (struct bytes){x->answer, sizeof ok - 1, 0};
}

static int digit(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The `count` bytes that `at` has in hex, up to `end`. */
static int put_bytes(const uint8_t *at, const uint8_t *end, uint8_t *to, uint64_t count)
{
    if ((uint64_t)(end - at) != 2 * count)
        return 0;
    for (; at < end; at += 2) {
        int high = digit(at[0]), low = digit(at[1]);

        if (high < 0 || low < 0)
            return 0;
        *to++ = (uint8_t)(high << 4 | low);
    }
    return 1;
}

/* The same of bytes as they are, where `}` has the next one's bit 5 turned round. */
static int put_escaped(const uint8_t *at, const uint8_t *end, uint8_t *to, uint64_t count)
{
    for (; at < end && count; count--) {
        uint8_t flip = *at == '}' ? 0x20 : 0;

        at += flip != 0;
        if (at == end || *at == '$' || *at == '#')
            return 0;
        *to++ = *at++ ^ flip;
    }
    return at == end && !count;
}

/* To `M ADDRESS,LENGTH:HEX` or `X ADDRESS,LENGTH:BYTES`, whole and alone. What this does not take for one, or cannot
 * write at once, is for Python. */
static struct bytes store(struct exchange *x, size_t length)
{
    const uint8_t *at = x->data, *end = x->data + length - 3;
    uint64_t address, count;
    uint8_t sum[2];

    if (length < 9 || at[0] != '$' || (at[1] != 'M' && at[1] != 'X') || *end != '#')
        return nothing;
    at = number(at + 2, &address); /* ends at `#` at the latest */
    if (!at || *at != ',')
        return nothing;
    at = number(at + 1, &count);
    if (!at || *at != ':' || !count || count > x->answer_size)
        return nothing;
    checksum(x->data, length, sum);
    if (memcmp(end + 1, sum, 2) || !(x->data[1] == 'M' ? put_bytes : put_escaped)(at + 1, end, x->answer, count))
        return nothing;
    if (!x->talk->quiet->put(x->talk->quiet, address, x->answer, count))
        return nothing;
    x->written++;
    return well(x);
}

/* The values that a stop reply has, which stands `by` bytes further than `reply` of struct talk does. */
static void fill_in(const struct exchange *x, uint32_t by)
{
    const struct talk *t = x->talk;

    for (uint32_t i = 0; i < t->piece_count; i++) {
        const struct piece *p = &t->pieces[i];

        put_hex(x->answer + by + p->at, (const uint8_t *)t->quiet->brief + p->from, p->bytes);
    }
    checksum(x->answer, by + t->reply_size, x->answer + by + t->reply_size - 2);
}

/* To the packet that is a step. */
static struct bytes step(struct exchange *x)
{
    const struct talk *t = x->talk;
    int made;

    if (t->reply_size > x->answer_size)
        return nothing;
    made = t->quiet->step(t->quiet);
    x->begun = made == QUIET_ENDED;
    if (made != QUIET_MADE)
        return nothing;
    x->stepped++;
    memcpy(x->answer, t->reply, t->reply_size);
    fill_in(x, 0);
    return (struct bytes){x->answer, t->reply_size, 0};
}

static int is_near(const struct watched *w, const struct quiet_hit *hit)
{
    int meets = hit->linear < w->address ? w->address - hit->linear < hit->size : hit->linear - w->address < w->length;

    return meets && w->accesses & (hit->is_write ? WRITES : READS);
}

#define ADDRESS_SIZE 17 /* of 64 bits in hex, and `;` */

/* To the packet that is a run: one that the first watchpoint is told by which the access meets. */
static struct bytes run(struct exchange *x)
{
    const struct talk *t = x->talk;
    const struct quiet_hit *hit = &t->quiet->hit;
    const struct watched *w = t->watched, *end = w + t->watched_count;
    uint64_t address;
    uint8_t *to;
    int made = t->quiet->go(t->quiet), shift = 60;

    x->begun = made == QUIET_ENDED || made == QUIET_MET;
    if (made != QUIET_MET)
        return nothing;
    while (w < end && !is_near(w, hit))
        w++;
    if (w == end || w->head_size + ADDRESS_SIZE + t->reply_size > x->answer_size)
        return nothing;
    t->quiet->take(t->quiet);
    x->begun = 0;
    x->met++;
    memcpy(x->answer, w->head, w->head_size);
    to = x->answer + w->head_size;
    address = hit->linear > w->address ? hit->linear : w->address;
    while (shift && !(address >> shift))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        *to++ = (uint8_t)digits[address >> shift & 15];
    *to++ = ';';
    memcpy(to, t->reply + SIGNALLED, t->reply_size - SIGNALLED);
    fill_in(x, (uint32_t)(to - x->answer) - SIGNALLED);
    return (struct bytes){x->answer, (uint32_t)(to - x->answer) - SIGNALLED + t->reply_size, 0};
}

/* To a packet that takes a watchpoint out or puts it in again: nothing depends on that until the guest runs. */
static struct bytes toggled(struct exchange *x, size_t length)
{
    const struct talk *t = x->talk;

    for (uint32_t i = 0; i < t->toggle_count; i++) {
        const struct toggle *g = &t->toggles[i];
        int is_out = x->out >> i & 1;

        if (length == (is_out ? g->on_size : g->off_size) && !memcmp(x->data, is_out ? g->on : g->off, length)) {
            x->out ^= 1u << i;
            return well(x);
        }
    }
    return nothing;
}

/* To the packet that asks whether memory is as it was. That it is not is for Python to say. */
static struct bytes same(const struct exchange *x)
{
    static const char yes[] = "$1#31";
    const struct talk *t = x->talk;
    const uint8_t *at = t->spans, *found;
    struct span span;

    for (uint32_t i = 0; i < t->span_count; i++, at += span.length) {
        memcpy(&span, at, sizeof span);
        at += sizeof span;
        found = t->quiet->look(t->quiet, span.linear, span.length);
        if (!found || memcmp(found, at, span.length))
            return nothing;
    }
    memcpy(x->answer, yes, sizeof yes - 1);
    return (struct bytes){x->answer, sizeof yes - 1, 0};
}

static struct bytes answer_to(struct exchange *x, size_t length)
{
    const struct talk *t = x->talk;
    struct bytes found = from_table(x, length);

    if (found.at || !t)
        return found;
    found = toggled(x, length);
    if (found.at)
        return found;
    if (t->step_size && !x->out && length == t->step_size && !memcmp(x->data, t->step, length))
        return step(x);
    if (t->go_size && !x->out && length == t->go_size && !memcmp(x->data, t->go, length))
        return run(x);
    if (!t->looks)
        return nothing;
    if (t->same_size && length == t->same_size && !memcmp(x->data, t->same, length))
        return same(x);
    found = memory(x, length);
    return found.at ? found : store(x, length);
}

static void note(struct exchange *x, size_t length, struct bytes answer)
{
    struct said said = {answer.number, answer.at == x->answer, (uint32_t)length, answer.length};
    uint8_t *to = x->log + x->logged;

    memcpy(to, &said, sizeof said);
    x->logged += sizeof said;
    if (said.made) {
        memcpy(to + sizeof said, x->data, length);
        memcpy(to + sizeof said + length, answer.at, answer.length);
        x->logged += (uint32_t)(length + answer.length);
    }
}

/* Wait for packets and answer them. Returns the bytes that came and are not known; NOTHING when none came, an answer did
 * not go out as a whole, or it is time; ENDED when the peer is gone. */
API int64_t v2e_known_answer(struct exchange *x)
{
    x->answered = x->unsent = x->begun = x->logged = x->stepped = x->out = x->met = x->written = 0;
    while (x->answered < MOST) {
        ssize_t got = recv(x->fd, x->data, x->size, 0), sent;
        struct bytes answer;

        if (got == 0)
            return ENDED;
        if (got < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? NOTHING : ENDED;
        if (x->log_size - x->logged < sizeof(struct said) + (size_t)got + x->answer_size)
            return got;
        answer = answer_to(x, (size_t)got);
        if (!answer.at)
            return got;
        x->answered++;
        note(x, (size_t)got, answer);
        sent = send(x->fd, answer.at, answer.length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            return ENDED;
        x->unsent = answer.length - (sent < 0 ? 0 : (uint32_t)sent);
        if (x->unsent || is_time(x->until))
            return NOTHING;
    }
    return NOTHING;
}
