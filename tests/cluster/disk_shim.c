/* LD_PRELOAD: writes and syncs of files below DISK_PREFIX are slow, fail, or write a part only, as a shared file says.

   DISK_FILE holds four native int64: microseconds that a sync takes longer, errno of syncs, errno of writes, and
   whether a write takes half of its bytes before that.  All else goes to libc as it came. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct faults {
    volatile int64_t sync_delay_us, sync_errno, write_errno, is_short;
};

static struct faults *faults;
static const char *prefix;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("DISK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    prefix = getenv("DISK_PREFIX");
    if (file < 0 || !prefix)
        return;
    void *shared = mmap(NULL, sizeof *faults, PROT_READ, MAP_SHARED, file, 0);
    if (shared != MAP_FAILED)
        faults = shared;
    close(file);
}

static int is_ours(int file)
{
    char link[64], path[4096];
    if (!faults)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return strncmp(path, prefix, strlen(prefix)) == 0;
}

static int sync_by(const char *name, int file)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (is_ours(file)) {
        int64_t delay = faults->sync_delay_us, number = faults->sync_errno;
        struct timespec rest = {delay / 1000000, delay % 1000000 * 1000};
        if (delay > 0)
            nanosleep(&rest, NULL);
        if (number) {
            errno = (int)number;
            return -1;
        }
    }
    return real(file);
}

int fsync(int file)
{
    return sync_by("fsync", file);
}

int fdatasync(int file)
{
    return sync_by("fdatasync", file);
}

ssize_t write(int file, const void *bytes, size_t count)
{
    ssize_t (*real)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (is_ours(file) && faults->write_errno) {
        if (faults->is_short && count > 1)
            real(file, bytes, count / 2);
        errno = (int)faults->write_errno;
        return -1;
    }
    return real(file, bytes, count);
}
