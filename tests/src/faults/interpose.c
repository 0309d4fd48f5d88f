/* Faults that no test can order from a disk, a clock or a resolver: a shared library that stands
 * between a process and its C library (LD_PRELOAD). `faults.rs` is the other end and says what
 * each number of the control file means.
 *
 * Files below FAULTS_ROOT are watched. Of each it is written down what a power loss would undo:
 * contents until fsync or fdatasync has returned for the file, names until fsync has for their
 * directory. sync_file_range makes nothing durable, so it is left alone.
 *
 * What it does not see, and the daemon does not do with these files: mmap, writev, O_TMPFILE,
 * descriptors that are duplicated, paths relative to a directory.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    WRITE_ERRNO, SYNC_ERRNO, SYNC_DELAY_MS, CLOCK_OFFSET_MS, RECORD, SYNC_IS_NOTHING,
    DIE_AT_RENAME, SLOTS
};

static volatile int64_t *control;
static char root[4096];
static char directory[4096];

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    const char *where = getenv("FAULTS_DIR"), *watched = getenv("FAULTS_ROOT");
    if (!where || !watched) return;
    snprintf(directory, sizeof directory, "%s", where);
    snprintf(root, sizeof root, "%s/", watched);
    char path[4200];
    snprintf(path, sizeof path, "%s/control", where);
    /* Whoever asked for faults must not go on without them. */
    int fd = REAL(open)(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) abort();
    void *map = mmap(NULL, SLOTS * 8, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) abort();
    REAL(close)(fd);
    control = map;
}

static int64_t slot(int index) { return control ? control[index] : 0; }

static int is_watched(const char *path) {
    return control && strncmp(path, root, strlen(root)) == 0;
}

/* --- which descriptors are watched --- */

enum { MAX_FD = 65536 };
static ino_t inode_of[MAX_FD];

static void watch(int fd) {
    struct stat known;
    if (fd >= 0 && fd < MAX_FD && fstat(fd, &known) == 0 && S_ISREG(known.st_mode))
        inode_of[fd] = known.st_ino;
}

static ino_t watched(int fd) { return fd >= 0 && fd < MAX_FD ? inode_of[fd] : 0; }

static void record_name(char kind, const char *path, const char *from);

static int opened(const char *path, int flags, mode_t mode, int (*real)(const char *, int, ...)) {
    if (!is_watched(path)) return real(path, flags, mode);
    int64_t fault = slot(WRITE_ERRNO);
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    int creates = (flags & O_CREAT) && access(path, F_OK) != 0;
    if (fault && (creates || (writes && fault == EROFS))) {
        errno = (int)fault;
        return -1;
    }
    int fd = real(path, flags, mode);
    int kept = errno;
    watch(fd);
    if (fd >= 0 && creates) record_name('C', path, "");
    errno = kept;
    return fd;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = va_arg(arguments, mode_t);
    va_end(arguments);
    return opened(path, flags, mode, (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open"));
}

int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = va_arg(arguments, mode_t);
    va_end(arguments);
    return opened(path, flags, mode, (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64"));
}

int close(int fd) {
    if (fd >= 0 && fd < MAX_FD) inode_of[fd] = 0;
    return REAL(close)(fd);
}

/* --- what a power loss would undo --- */

static pthread_mutex_t recording = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t syncing = PTHREAD_MUTEX_INITIALIZER;

static void undo_path(char *path, size_t size, ino_t inode, const char *kind) {
    snprintf(path, size, "%s/undo/%llu.%s", directory, (unsigned long long)inode, kind);
}

/* A record: offset, length, the file's size, how much is overwritten; then that, and what comes. */
static void record(int fd, ino_t inode, const void *bytes, size_t length, off_t offset) {
    struct stat known;
    char *whole = malloc(32 + 2 * length), path[4200];
    if (!whole || fstat(fd, &known) != 0) abort();
    ssize_t before = pread(fd, whole + 32, length, offset);
    if (before < 0) {
        /* It was opened for writing only. */
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        int readable = REAL(open)(path, O_RDONLY | O_CLOEXEC);
        if (readable < 0) abort();
        before = pread(readable, whole + 32, length, offset);
        REAL(close)(readable);
    }
    uint64_t overwritten = before > 0 ? (uint64_t)before : 0;
    uint64_t head[4] = {(uint64_t)offset, length, (uint64_t)known.st_size, overwritten};
    memcpy(whole, head, sizeof head);
    memcpy(whole + sizeof head + overwritten, bytes, length);
    undo_path(path, sizeof path, inode, "undo");
    int undo = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    size_t size = sizeof head + overwritten + length;
    if (undo < 0 || REAL(write)(undo, whole, size) != (ssize_t)size) abort();
    REAL(close)(undo);
    free(whole);
}

/* What becomes of a name, for as long as its directory is not synced: `C`reated, `R`enamed from
 * another, `U`nlinked. What was there before is kept under a name of our own. */
static void record_name(char kind, const char *path, const char *from) {
    if (!is_watched(path) || !slot(RECORD)) return;
    static int kept_files;
    char parent[4200], kept[4200] = "", names[4200], line[13000];
    snprintf(parent, sizeof parent, "%s", path);
    *strrchr(parent, '/') = 0;
    struct stat known;
    if (stat(parent, &known) != 0) return;
    pthread_mutex_lock(&recording);
    if (kind != 'C' && access(path, F_OK) == 0) {
        snprintf(kept, sizeof kept, "%s/kept/%d.%d", directory, getpid(), kept_files++);
        if (link(path, kept) != 0) abort();
    }
    undo_path(names, sizeof names, known.st_ino, "names");
    int length = snprintf(line, sizeof line, "%c\t%s\t%s\t%s\n", kind, path, from, kept);
    int fd = REAL(open)(names, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || REAL(write)(fd, line, length) != length) abort();
    REAL(close)(fd);
    pthread_mutex_unlock(&recording);
}

static ssize_t put(int fd, const void *bytes, size_t length, off_t offset,
                   ssize_t (*real)(int, const void *, size_t, off_t)) {
    ino_t inode = watched(fd);
    if (!inode) return real(fd, bytes, length, offset);
    if (slot(WRITE_ERRNO)) {
        errno = (int)slot(WRITE_ERRNO);
        return -1;
    }
    if (!slot(RECORD)) return real(fd, bytes, length, offset);
    pthread_mutex_lock(&recording);
    record(fd, inode, bytes, length, offset);
    ssize_t written = real(fd, bytes, length, offset);
    int kept = errno;
    pthread_mutex_unlock(&recording);
    errno = kept;
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return put(fd, bytes, length, offset, REAL(pwrite));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) {
    return put(fd, bytes, length, offset, REAL(pwrite64));
}

ssize_t write(int fd, const void *bytes, size_t length) {
    if (!watched(fd)) return REAL(write)(fd, bytes, length);
    struct stat known;
    off_t offset = lseek(fd, 0, SEEK_CUR);
    if ((fcntl(fd, F_GETFL) & O_APPEND) && fstat(fd, &known) == 0) offset = known.st_size;
    ssize_t written = put(fd, bytes, length, offset, REAL(pwrite64));
    if (written > 0) lseek(fd, offset + written, SEEK_SET);
    return written;
}

static int truncated(int fd, off_t length, int (*real)(int, off_t)) {
    if (watched(fd) && slot(WRITE_ERRNO)) {
        errno = (int)slot(WRITE_ERRNO);
        return -1;
    }
    return real(fd, length);
}

int ftruncate(int fd, off_t length) { return truncated(fd, length, REAL(ftruncate)); }

int ftruncate64(int fd, off_t length) { return truncated(fd, length, REAL(ftruncate64)); }

static int changed(const char *path) {
    if (!is_watched(path) || slot(WRITE_ERRNO) != EROFS) return 0;
    errno = EROFS;
    return -1;
}

/* Written down beforehand: of a name that was not changed after all, undoing it changes nothing. */
int rename(const char *from, const char *to) {
    static int64_t renames;
    if (is_watched(from) && ++renames == slot(DIE_AT_RENAME)) raise(SIGKILL);
    if (changed(from)) return -1;
    record_name('R', to, from);
    return REAL(rename)(from, to);
}

int unlink(const char *path) {
    if (changed(path)) return -1;
    if (access(path, F_OK) == 0) record_name('U', path, "");
    return REAL(unlink)(path);
}

int mkdir(const char *path, mode_t mode) {
    if (changed(path)) return -1;
    int result = REAL(mkdir)(path, mode);
    int kept = errno;
    if (result == 0) record_name('C', path, "");
    errno = kept;
    return result;
}

/* The names in a directory are durable. */
static int synced_names(int fd, int (*real)(int)) {
    struct stat known;
    if (!slot(RECORD) || slot(SYNC_IS_NOTHING) || fstat(fd, &known) != 0 ||
        !S_ISDIR(known.st_mode))
        return real(fd);
    int result = real(fd);
    if (result == 0) {
        char names[4200];
        undo_path(names, sizeof names, known.st_ino, "names");
        REAL(unlink)(names);
    }
    return result;
}

static int synced(int fd, int (*real)(int)) {
    ino_t inode = watched(fd);
    if (!inode) return synced_names(fd, real);
    int64_t delay = slot(SYNC_DELAY_MS);
    if (delay) {
        struct timespec pause = {delay / 1000, delay % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    if (slot(SYNC_ERRNO)) {
        errno = (int)slot(SYNC_ERRNO);
        return -1;
    }
    if (!slot(RECORD)) return real(fd);
    if (slot(SYNC_IS_NOTHING)) return 0;
    char undo[4200], moved[4200];
    undo_path(undo, sizeof undo, inode, "undo");
    undo_path(moved, sizeof moved, inode, "syncing");
    /* What is written from here on is not part of this sync. */
    pthread_mutex_lock(&syncing);
    pthread_mutex_lock(&recording);
    REAL(rename)(undo, moved);
    pthread_mutex_unlock(&recording);
    int result = real(fd);
    int kept = errno;
    if (result == 0) REAL(unlink)(moved);
    pthread_mutex_unlock(&syncing);
    errno = kept;
    return result;
}

int fsync(int fd) { return synced(fd, REAL(fsync)); }

int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

/* --- the wall clock --- */

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    int64_t offset = clock == CLOCK_REALTIME ? slot(CLOCK_OFFSET_MS) : 0;
    if (result == 0 && offset) {
        int64_t nanos = now->tv_nsec + offset % 1000 * 1000000;
        now->tv_sec += offset / 1000 + (nanos < 0 ? -1 : nanos / 1000000000);
        now->tv_nsec = nanos < 0 ? nanos + 1000000000 : nanos % 1000000000;
    }
    return result;
}

/* --- the resolver: a file for each name, with an address on each line, or what goes wrong --- */

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    char path[4600], line[256];
    snprintf(path, sizeof path, "%s/names/%s", directory, name ? name : "");
    FILE *lines = control && name && !strchr(name, '/') ? fopen(path, "r") : NULL;
    if (!lines) return REAL(getaddrinfo)(name, service, hints, found);
    struct addrinfo *first = NULL, **next = &first;
    int result = EAI_NONAME;
    while (fgets(line, sizeof line, lines)) {
        line[strcspn(line, "\n")] = 0;
        if (strcmp(line, "hang") == 0) for (;;) pause();
        if (strcmp(line, "fail") == 0) break;
        struct addrinfo *one = NULL;
        result = REAL(getaddrinfo)(line, service, hints, &one);
        if (result != 0) break;
        *next = one;
        while (*next) next = &(*next)->ai_next;
    }
    fclose(lines);
    if (result == 0) *found = first;
    return result;
}
