/*
 * resolve: reads "c" or "-" and a path, each request ended by NUL, and answers for each
 * errno NUL mode NUL major NUL minor NUL real path NUL. With "c" a missing path becomes a folder, parents too.
 */
#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/limits.h>
#include <linux/stat.h>

#include "helper.h"

enum { max_request_bytes = 1 << 20, at_empty_path = 0x1000, path_only = 010000000, close_on_exec = 02000000 };

static char request[max_request_bytes + 1];

static long open_place(const char *path) {
  return call4(__NR_openat, AT_FDCWD, path, path_only | close_on_exec, 0);
}

static long make_folders(char *path) {
  for (char *at = path + 1;; at++) {
    if (*at != '/' && *at != '\0') continue;
    char before = *at;
    *at = '\0';
    long result = call3(__NR_mkdirat, AT_FDCWD, path, 0755);
    *at = before;
    if (result < 0 && result != -EEXIST) return result;
    if (before == '\0') return 0;
  }
}

static long real_path(long fd, char *path) {
  char self[64];
  put_number(put_text(self, "/proc/self/fd/") - 1, (unsigned long)fd);
  long length = call4(__NR_readlinkat, AT_FDCWD, self, path, PATH_MAX - 1);
  if (length < 0) return length;
  path[length] = '\0';
  return path[0] == '/' ? 0 : -ENOENT; /* "(unreachable)…" */
}

static long look_at(char *path, int is_wanted, struct statx *status, char *real) {
  if (path[0] != '/') return -EINVAL;
  long fd = open_place(path);
  if (fd == -ENOENT && is_wanted) {
    long result = make_folders(path);
    if (result < 0) return result;
    fd = open_place(path);
  }
  if (fd < 0) return fd;
  long result = call5(__NR_statx, fd, "", at_empty_path, STATX_BASIC_STATS, status);
  if (result == 0) result = real_path(fd, real);
  call1(__NR_close, fd);
  return result;
}

static int answer(char *path, int is_wanted) {
  static char line[PATH_MAX + 128];
  static char real[PATH_MAX];
  struct statx status = {0};
  real[0] = '\0';
  long result = look_at(path, is_wanted, &status, real);
  char *end = put_number(line, (unsigned long)-result);
  end = put_number(end, status.stx_mode);
  end = put_number(end, status.stx_rdev_major);
  end = put_number(end, status.stx_rdev_minor);
  end = put_text(end, result < 0 ? "" : real);
  return write_all(1, line, (size_t)(end - line));
}

int run_resolve(void) {
  size_t length = 0;
  for (;;) {
    long count = call3(__NR_read, 0, request + length, max_request_bytes - length);
    if (count < 0) return report_failure("read", count);
    if (count == 0) break;
    length += (size_t)count;
  }
  if (length == max_request_bytes) return report_failure("read", -E2BIG);
  call1(__NR_umask, 022);
  for (size_t at = 0; at < length;) {
    size_t size = text_length(request + at) + 1;
    if (answer(request + at + 1, request[at] == 'c') < 0) return 1;
    at += size;
  }
  return 0;
}
