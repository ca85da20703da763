/* Stops or kills this process at its n-th system call of a kind, before or after it. Preloaded by
 * tests/chaos/killpoints.py; it does nothing until kp_start, which a forked child calls. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define KINDS(X) \
    X(connect) X(setsockopt) X(send) X(recv) X(shutdown) X(write) X(pwrite) X(fsync) X(fdatasync) \
    X(create) X(rename) X(unlink) X(ftruncate)

#define AS_ENUM(name) K_##name,
#define AS_NAME(name) #name " "
enum kind { KINDS(AS_ENUM) KIND_COUNT };
const char kp_names[] = KINDS(AS_NAME);

/* Shared with the process that watches: see killpoints.Counts. */
struct counts {
    uint32_t calls[32];
    uint32_t total;
    int32_t struck_kind; /* -1: not struck */
    uint32_t struck_call, struck_arm;
};
/* As in virtual_time.Shared. */
struct slot {
    double wake;
    int32_t state;
};
struct arm {
    int kind; /* -1: any */
    uint32_t call;
    int after, signal;
};

#define MAX_ARMS 8
static struct counts *counts;
static struct arm arms[MAX_ARMS];
static int armed, active;

void kp_arm(int kind, uint32_t call, int after, int signal) {
    if (armed < MAX_ARMS)
        arms[armed++] = (struct arm){kind, call, after, signal};
}

void kp_start(struct counts *shared) {
    counts = shared;
    active = 1;
}

void kp_stop(void) { active = 0; }

static void strike(const struct arm *arm, enum kind kind, uint32_t call) {
    counts->struck_kind = kind;
    counts->struck_call = call;
    counts->struck_arm = (uint32_t)(arm - arms);
    /* To this very thread, so that not one instruction more of it runs. */
    syscall(SYS_tgkill, getpid(), (pid_t)syscall(SYS_gettid), arm->signal);
}

struct turn {
    uint32_t call, total;
};

static void look(enum kind kind, struct turn turn, int after) {
    for (int i = 0; i < armed; i++)
        if (arms[i].after == after && (arms[i].kind < 0 ? arms[i].call == turn.total
                                                        : arms[i].kind == (int)kind && arms[i].call == turn.call))
            strike(&arms[i], kind, turn.call);
}

#define AROUND(kind, call)                                                                          \
    if (!active)                                                                                    \
        return call;                                                                                \
    struct turn turn = {__atomic_add_fetch(&counts->calls[K_##kind], 1, __ATOMIC_SEQ_CST),         \
                        __atomic_add_fetch(&counts->total, 1, __ATOMIC_SEQ_CST)};                   \
    look(K_##kind, turn, 0);                                                                        \
    __typeof__(call) result = call;                                                                 \
    int kept = errno;                                                                               \
    look(K_##kind, turn, 1);                                                                        \
    errno = kept;                                                                                   \
    return result;

#define WRAP(kind, type, name, parameters, arguments)                                              \
    type name parameters {                                                                          \
        static type(*real) parameters;                                                              \
        if (!real)                                                                                  \
            real = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                     \
        AROUND(kind, real arguments)                                                                \
    }

WRAP(connect, int, connect, (int fd, const struct sockaddr *to, socklen_t size), (fd, to, size))
WRAP(setsockopt, int, setsockopt, (int fd, int level, int name, const void *value, socklen_t size),
     (fd, level, name, value, size))
WRAP(send, ssize_t, send, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags))
WRAP(send, ssize_t, sendto,
     (int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t to_size),
     (fd, data, size, flags, to, to_size))
WRAP(send, ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
WRAP(recv, ssize_t, recv, (int fd, void *data, size_t size, int flags), (fd, data, size, flags))
WRAP(recv, ssize_t, recvfrom,
     (int fd, void *data, size_t size, int flags, struct sockaddr *from, socklen_t *from_size),
     (fd, data, size, flags, from, from_size))
WRAP(recv, ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags))
WRAP(shutdown, int, shutdown, (int fd, int how), (fd, how))
WRAP(write, ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
WRAP(write, ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
WRAP(pwrite, ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRAP(pwrite, ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
WRAP(fsync, int, fsync, (int fd), (fd))
WRAP(fdatasync, int, fdatasync, (int fd), (fd))
WRAP(rename, int, rename, (const char *from, const char *to), (from, to))
WRAP(rename, int, renameat, (int from_fd, const char *from, int to_fd, const char *to),
     (from_fd, from, to_fd, to))
WRAP(unlink, int, unlink, (const char *path), (path))
WRAP(unlink, int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags))
WRAP(ftruncate, int, ftruncate, (int fd, off_t size), (fd, size))
WRAP(ftruncate, int, ftruncate64, (int fd, off64_t size), (fd, size))

static int create(const char *name, const char *path, int flags, mode_t mode) {
    int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, name);
    if (!(flags & O_CREAT))
        return real(path, flags, mode);
    AROUND(create, real(path, flags, mode))
}

#define WRAP_OPEN(name)                                                                             \
    int name(const char *path, int flags, ...) {                                                    \
        va_list rest;                                                                               \
        va_start(rest, flags);                                                                      \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                     \
        va_end(rest);                                                                               \
        return create(#name, path, flags, mode);                                                    \
    }
WRAP_OPEN(open)
WRAP_OPEN(open64)

/* SQLite waits for a lock in this way: in virtual time, unless the one who holds it is running. */
static double *virtual_offset;
static struct slot *slots;
static int slot_count, own_slot;

void kp_virtual_time(double *offset, struct slot *all, int count, int own) {
    slots = all, slot_count = count, own_slot = own;
    virtual_offset = offset;
}

static int pause_for(double seconds) {
    for (int i = 0; i < slot_count; i++)
        if (i != own_slot && slots[i].state == 1)
            return 0;
    *virtual_offset += seconds;
    return 1;
}

int usleep(useconds_t microseconds) {
    static int (*real)(useconds_t);
    if (!real)
        real = (int (*)(useconds_t))dlsym(RTLD_NEXT, "usleep");
    if (!virtual_offset)
        return real(microseconds);
    return pause_for(microseconds / 1e6) ? 0 : real(microseconds < 500 ? microseconds : 500);
}

int nanosleep(const struct timespec *wanted, struct timespec *left) {
    static int (*real)(const struct timespec *, struct timespec *);
    if (!real)
        real = (int (*)(const struct timespec *, struct timespec *))dlsym(RTLD_NEXT, "nanosleep");
    if (!virtual_offset)
        return real(wanted, left);
    if (pause_for((double)wanted->tv_sec + wanted->tv_nsec / 1e9))
        return 0;
    struct timespec half_a_millisecond = {0, 500000};
    return real(&half_a_millisecond, left);
}
