/* LD_PRELOAD: the wall clock of one process, and of no other, is wrong by as many nanoseconds as the file says that
   WALL_CLOCK_FILE names, and the kernel calls it synchronised if the file says so (two int64, read through a shared
   mapping).  All other clocks are left alone: libfaketime moves them too, and breaks the waiting of CPython. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t right[2];
static volatile int64_t *said = right; /* wrong by, synchronised */
static int (*get)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  get = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  const char *name = getenv("WALL_CLOCK_FILE");
  int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *map = mmap(NULL, sizeof right, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (map != MAP_FAILED) said = map;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  if (!get) begin();
  int result = get(clock, at);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t now = at->tv_sec * 1000000000LL + at->tv_nsec + said[0];
    at->tv_sec = now / 1000000000LL;
    at->tv_nsec = now % 1000000000LL;
  }
  return result;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

int adjtimex(struct timex *asked) {
  asked->status = said[1] ? 0 : STA_UNSYNC;
  return said[1] ? TIME_OK : TIME_ERROR;
}
