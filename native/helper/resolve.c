/*
 * resolve: reads what is wanted and a path, each request ended by NUL, and answers for each, as soon as it is known,
 * errno NUL mode NUL major NUL minor NUL path NUL major of its file system NUL minor NUL inode NUL.
 * "-": to know what is there. "c": a folder; a missing one is made, parents too. Both answer the real path.
 * "f": room for a file, answering for its folder's path; that is made, and what is there goes unless it is a regular
 * file. A folder there is EISDIR.
 * "u": nothing; a file there goes. For "f" and "u" no link is followed at the end, and mode 0 says that nothing is there.
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

static long remove_file(const char *path) {
  long result = call3(__NR_unlinkat, AT_FDCWD, path, 0);
  return result == -ENOENT ? 0 : result;
}

static long make_room(char *path, struct statx *status, char *real) {
  size_t name = text_length(path);
  while (name > 0 && path[name - 1] != '/') name--;
  char first = path[name];
  path[name] = '\0';
  long result = look_at(path, 1, status, real);
  path[name] = first;
  if (result < 0) return result;
  result = call5(__NR_statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, status);
  if (result == 0 && S_ISREG(status->stx_mode)) return 0;
  int is_folder = S_ISDIR(status->stx_mode);
  *status = (struct statx){0};
  if (result < 0) return result == -ENOENT ? 0 : result;
  return is_folder ? -EISDIR : remove_file(path);
}

static long do_request(char want, char *path, struct statx *status, char *real) {
  if (path[0] != '/') return -EINVAL;
  if (want == 'f') return make_room(path, status, real);
  if (want == 'u') return remove_file(path);
  return look_at(path, want == 'c', status, real);
}

static int answer(char want, char *path) {
  static char line[PATH_MAX + 256];
  static char real[PATH_MAX];
  struct statx status = {0};
  real[0] = '\0';
  long result = do_request(want, path, &status, real);
  char *end = put_number(line, (unsigned long)-result);
  end = put_number(end, status.stx_mode);
  end = put_number(end, status.stx_rdev_major);
  end = put_number(end, status.stx_rdev_minor);
  end = put_text(end, result < 0 ? "" : real);
  end = put_number(end, status.stx_dev_major);
  end = put_number(end, status.stx_dev_minor);
  end = put_number(end, status.stx_ino);
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
    if (at + size > length) break; /* cut short: who writes it was killed */
    if (answer(request[at], request + at + 1) < 0) return 1;
    at += size;
  }
  return 0;
}
