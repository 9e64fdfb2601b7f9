/* What a hop and a request call, as built-in functions of Python's own: a call through ctypes costs as much as all that
 * these do. The few functions and structures of Python that this takes are of its stable ABI (PEP 384: the same from one
 * version to the next) and are declared here, so that no installation needs Python's headers. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define API __attribute__((visibility("default"))) /* called by Python */

typedef struct python_object object;

struct method { /* PyMethodDef */
    const char *name;
    object *(*function)(object *self, object *argument);
    int flags;
    const char *doc;
};
enum { ONE_ARGUMENT = 8, NO_ARGUMENT = 4 }; /* METH_O, METH_NOARGS */

extern object *PyExc_ValueError;
object *PyLong_FromLong(long value);
object *PyLong_FromVoidPtr(void *pointer);
void *PyLong_AsVoidPtr(object *number);
long PyLong_AsLong(object *number);
object *PyBytes_FromStringAndSize(const char *data, ptrdiff_t size);
int PyBytes_AsStringAndSize(object *bytes, char **data, ptrdiff_t *size);
object *PyCFunction_NewEx(struct method *method, object *self, object *module);
void PyErr_SetString(object *type, const char *text);
void Py_DecRef(object *counted);
void *PyEval_SaveThread(void);
void PyEval_RestoreThread(void *thread);

/* Of hop.c and request.c, which say what these do. */
struct hop;
int v2e_hop_over(struct hop *);
int v2e_hop_leave(struct hop *, int how);
int v2e_hop_run(struct hop *);
struct lent;
struct ioreq *v2e_request_of(struct lent *);
int v2e_request(struct lent *);
int v2e_request_bare(struct lent *);

enum { IOREQ = 32 }; /* bytes of a request */

static object *over(object *self, object *unused)
{
    (void)unused;
    return PyLong_FromLong(v2e_hop_over(PyLong_AsVoidPtr(self)));
}

static object *leave(object *self, object *how)
{
    return PyLong_FromLong(v2e_hop_leave(PyLong_AsVoidPtr(self), (int)PyLong_AsLong(how)));
}

/* The guest may run for long, so other threads of Python go on meanwhile. */
static object *run(object *self, object *unused)
{
    struct hop *hop = PyLong_AsVoidPtr(self);
    void *thread = PyEval_SaveThread();
    int ended = v2e_hop_run(hop);

    (void)unused;
    PyEval_RestoreThread(thread);
    return PyLong_FromLong(ended);
}

static object *bare(object *self, object *unused)
{
    (void)unused;
    return PyLong_FromLong(v2e_request_bare(PyLong_AsVoidPtr(self)));
}

/* A request's bytes in; those of its answer out, or what else came of it as v2e_request says it. */
static object *request(object *self, object *raw)
{
    struct lent *lent = PyLong_AsVoidPtr(self);
    struct ioreq *place = v2e_request_of(lent);
    char *data;
    ptrdiff_t size;
    int outcome;

    if (PyBytes_AsStringAndSize(raw, &data, &size) < 0)
        return NULL;
    if (size != IOREQ) {
        PyErr_SetString(PyExc_ValueError, "a request has 32 bytes");
        return NULL;
    }
    memcpy(place, data, IOREQ);
    outcome = v2e_request(lent);
    return outcome ? PyLong_FromLong(outcome) : PyBytes_FromStringAndSize((const char *)place, IOREQ);
}

/* In the order of DIRECT of xenbridge/kvm/hop.py. Python keeps pointers to these, and never unloads the library. */
static struct method methods[] = {
    {"over", over, NO_ARGUMENT, NULL},
    {"leave", leave, ONE_ARGUMENT, NULL},
    {"run", run, NO_ARGUMENT, NULL},
    {"bare", bare, NO_ARGUMENT, NULL},
    {"request", request, ONE_ARGUMENT, NULL},
};

/* The function of that number, about the structure at `about`, which has to live as long as it. NULL, with an exception
 * set, where there is no memory left. */
API object *v2e_hop_direct(uint32_t which, void *about)
{
    object *self = PyLong_FromVoidPtr(about), *function;

    if (!self)
        return NULL;
    function = PyCFunction_NewEx(&methods[which], self, NULL);
    Py_DecRef(self);
    return function;
}
