/* Path calls relative to a descriptor, for trees that somebody else filled. */
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "berth.h"

enum { max_xattr_bytes = 65536, max_flags = INT32_MAX };

/* openat2(dirFd, path, flags, mode, resolve) */
static napi_value js_openat2(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int directory = args_directory_fd(&args, 0);
  const char *path = args_string(&args, 1);
  struct open_how how;
  memset(&how, 0, sizeof how);
  how.flags = (uint64_t)args_integer(&args, 2, 0, max_flags) | O_CLOEXEC;
  how.mode = (uint64_t)args_integer(&args, 3, 0, 07777);
  how.resolve = (uint64_t)args_integer(&args, 4, 0, 63);
  if (args.error != 0) return args_answer(&args, 0);
  return args_answer(&args, result_of(syscall(SYS_openat2, directory, path, &how, sizeof how)));
}

/* tryLock(fd): an exclusive lock of the open file, or -EWOULDBLOCK; it ends with the last descriptor. */
static napi_value js_try_lock(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int fd = args_fd(&args, 0);
  return args_answer(&args, args.error != 0 ? 0 : result_of(flock(fd, LOCK_EX | LOCK_NB)));
}

static napi_value js_mkdirat(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int directory = args_directory_fd(&args, 0);
  const char *path = args_string(&args, 1);
  mode_t mode = (mode_t)args_integer(&args, 2, 0, 07777);
  return args_answer(&args, args.error != 0 ? 0 : result_of(mkdirat(directory, path, mode)));
}

/* mknodat(dirFd, path, mode with file type, major, minor) */
static napi_value js_mknodat(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int directory = args_directory_fd(&args, 0);
  const char *path = args_string(&args, 1);
  mode_t mode = (mode_t)args_integer(&args, 2, 0, 0177777);
  unsigned major_number = (unsigned)args_integer(&args, 3, 0, UINT32_MAX);
  unsigned minor_number = (unsigned)args_integer(&args, 4, 0, UINT32_MAX);
  dev_t device = makedev(major_number, minor_number);
  return args_answer(&args, args.error != 0 ? 0 : result_of(mknodat(directory, path, mode, device)));
}

static napi_value js_symlinkat(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  const char *target = args_string(&args, 0);
  int directory = args_directory_fd(&args, 1);
  const char *path = args_string(&args, 2);
  return args_answer(&args, args.error != 0 ? 0 : result_of(symlinkat(target, directory, path)));
}

static napi_value js_linkat(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int from = args_directory_fd(&args, 0);
  const char *old_path = args_string(&args, 1);
  int to = args_directory_fd(&args, 2);
  const char *new_path = args_string(&args, 3);
  int flags = (int)args_integer(&args, 4, 0, max_flags);
  return args_answer(&args, args.error != 0 ? 0 : result_of(linkat(from, old_path, to, new_path, flags)));
}

static napi_value js_unlinkat(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int directory = args_directory_fd(&args, 0);
  const char *path = args_string(&args, 1);
  int flags = (int)args_integer(&args, 2, 0, max_flags);
  return args_answer(&args, args.error != 0 ? 0 : result_of(unlinkat(directory, path, flags)));
}

static napi_value js_renameat(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int from = args_directory_fd(&args, 0);
  const char *old_path = args_string(&args, 1);
  int to = args_directory_fd(&args, 2);
  const char *new_path = args_string(&args, 3);
  return args_answer(&args, args.error != 0 ? 0 : result_of(renameat(from, old_path, to, new_path)));
}

static napi_value js_fchownat(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int directory = args_directory_fd(&args, 0);
  const char *path = args_string(&args, 1);
  uid_t uid = (uid_t)args_integer(&args, 2, 0, UINT32_MAX);
  gid_t gid = (gid_t)args_integer(&args, 3, 0, UINT32_MAX);
  int flags = (int)args_integer(&args, 4, 0, max_flags);
  return args_answer(&args, args.error != 0 ? 0 : result_of(fchownat(directory, path, uid, gid, flags)));
}

/* fchmodat(dirFd, path, mode): follows a symbolic link in the last component, as the kernel does. */
static napi_value js_fchmodat(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int directory = args_directory_fd(&args, 0);
  const char *path = args_string(&args, 1);
  mode_t mode = (mode_t)args_integer(&args, 2, 0, 07777);
  return args_answer(&args, args.error != 0 ? 0 : result_of(fchmodat(directory, path, mode, 0)));
}

static napi_value js_fchmod(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int fd = args_fd(&args, 0);
  mode_t mode = (mode_t)args_integer(&args, 1, 0, 07777);
  return args_answer(&args, args.error != 0 ? 0 : result_of(fchmod(fd, mode)));
}

/* utimensat(dirFd, path, atimeSeconds, atimeNanoseconds, mtimeSeconds, mtimeNanoseconds, flags) */
static napi_value js_utimensat(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int directory = args_directory_fd(&args, 0);
  const char *path = args_string(&args, 1);
  struct timespec times[2];
  for (size_t i = 0; i < 2; i++) {
    times[i].tv_sec = args_integer(&args, 2 + 2 * i, -9007199254740991, 9007199254740991);
    times[i].tv_nsec = args_integer(&args, 3 + 2 * i, 0, 999999999);
  }
  int flags = (int)args_integer(&args, 6, 0, max_flags);
  return args_answer(&args, args.error != 0 ? 0 : result_of(utimensat(directory, path, times, flags)));
}

/* The path of an xattr call: "/proc/self/fd/N" to name an open file; a final symbolic link is followed only if asked. */
static napi_value js_setxattr(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  const char *path = args_string(&args, 0);
  const char *name = args_string(&args, 1);
  bool follows = args_integer(&args, 3, 0, 1) != 0;
  size_t length;
  const uint8_t *bytes = args_bytes(&args, 2, &length);
  if (args.error != 0) return args_answer(&args, 0);
  const void *value = length > 0 ? (const void *)bytes : "";
  return args_answer(&args, result_of(follows ? setxattr(path, name, value, length, 0)
                                              : lsetxattr(path, name, value, length, 0)));
}

static napi_value answer_bytes(struct args *args, char *buffer, ssize_t length, int error) {
  napi_value answer = length < 0 ? make_integer(args->env, -error) : make_bytes(args->env, buffer, (size_t)length);
  free(buffer);
  return args_answer_value(args, answer);
}

static napi_value js_getxattr(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  const char *path = args_string(&args, 0);
  const char *name = args_string(&args, 1);
  bool follows = args_integer(&args, 2, 0, 1) != 0;
  char *buffer = args.error != 0 ? NULL : malloc(max_xattr_bytes);
  if (buffer == NULL) return args_answer(&args, -ENOMEM);
  ssize_t length =
      follows ? getxattr(path, name, buffer, max_xattr_bytes) : lgetxattr(path, name, buffer, max_xattr_bytes);
  return answer_bytes(&args, buffer, length, errno);
}

/* listxattr(path, follows): names, each ended by NUL. */
static napi_value js_listxattr(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  const char *path = args_string(&args, 0);
  bool follows = args_integer(&args, 1, 0, 1) != 0;
  char *buffer = args.error != 0 ? NULL : malloc(max_xattr_bytes);
  if (buffer == NULL) return args_answer(&args, -ENOMEM);
  ssize_t length = follows ? listxattr(path, buffer, max_xattr_bytes) : llistxattr(path, buffer, max_xattr_bytes);
  return answer_bytes(&args, buffer, length, errno);
}

static napi_value js_readlinkat(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int directory = args_directory_fd(&args, 0);
  const char *path = args_string(&args, 1);
  if (args.error != 0) return args_answer(&args, 0);
  char buffer[PATH_MAX];
  ssize_t length = readlinkat(directory, path, buffer, sizeof buffer);
  if (length < 0) return args_answer(&args, -errno);
  return args_answer_value(&args, make_bytes(env, buffer, (size_t)length));
}

/* fstatat(dirFd, path, flags): [mode, uid, gid, size, nlink, ino, dev, rdev major, rdev minor, mtime s, mtime ns]. */
static napi_value js_fstatat(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int directory = args_directory_fd(&args, 0);
  const char *path = args_string(&args, 1);
  int flags = (int)args_integer(&args, 2, 0, max_flags);
  struct stat status;
  if (args.error != 0) return args_answer(&args, 0);
  if (fstatat(directory, path, &status, flags) < 0) return args_answer(&args, -errno);
  const int64_t facts[] = {
      status.st_mode,
      status.st_uid,
      status.st_gid,
      status.st_size,
      (int64_t)status.st_nlink,
      (int64_t)status.st_ino,
      (int64_t)status.st_dev,
      major(status.st_rdev),
      minor(status.st_rdev),
      status.st_mtim.tv_sec,
      status.st_mtim.tv_nsec,
  };
  napi_value list;
  size_t count = sizeof facts / sizeof *facts;
  napi_create_array_with_length(env, count, &list);
  for (uint32_t i = 0; i < count; i++) napi_set_element(env, list, i, make_integer(env, facts[i]));
  return args_answer_value(&args, list);
}

const struct entry path_entries[] = {
    {"openat2", js_openat2},     {"mkdirat", js_mkdirat},       {"mknodat", js_mknodat},
    {"symlinkat", js_symlinkat}, {"linkat", js_linkat},         {"unlinkat", js_unlinkat},
    {"renameat", js_renameat},   {"fchownat", js_fchownat},     {"fchmodat", js_fchmodat},
    {"fchmod", js_fchmod},       {"utimensat", js_utimensat},   {"setxattr", js_setxattr},
    {"getxattr", js_getxattr},   {"listxattr", js_listxattr},   {"readlinkat", js_readlinkat},
    {"fstatat", js_fstatat},     {"tryLock", js_try_lock},      {NULL, NULL},
};
