/* A file of an archive in one call: content, owner, mode, time. What the file already has costs nothing. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "berth.h"

struct attributes {
  mode_t mode;
  uid_t uid;
  gid_t gid;
  struct timespec time;
};

/* mode, uid, gid, mtime seconds, mtime nanoseconds, from an argument on */
static struct attributes read_attributes(struct args *args, size_t index) {
  struct attributes wanted;
  wanted.mode = (mode_t)args_integer(args, index, 0, 07777);
  wanted.uid = (uid_t)args_integer(args, index + 1, 0, UINT32_MAX - 1);
  wanted.gid = (gid_t)args_integer(args, index + 2, 0, UINT32_MAX - 1);
  wanted.time.tv_sec = args_integer(args, index + 3, -9007199254740991, 9007199254740991);
  wanted.time.tv_nsec = args_integer(args, index + 4, 0, 999999999);
  return wanted;
}

/* Owner before mode, which a change of owner would cut; the time last. Answers the blocks on disk, in bytes. */
static int64_t apply(int fd, const struct attributes *wanted) {
  struct stat status;
  if (fstat(fd, &status) < 0) return -errno;
  bool has_owner = status.st_uid == wanted->uid && status.st_gid == wanted->gid;
  if (!has_owner && fchown(fd, wanted->uid, wanted->gid) < 0) return -errno;
  bool has_mode = has_owner && (status.st_mode & 07777) == wanted->mode;
  if (!has_mode && fchmod(fd, wanted->mode) < 0) return -errno;
  const struct timespec times[2] = {wanted->time, wanted->time};
  if (futimens(fd, times) < 0) return -errno;
  return (int64_t)status.st_blocks * 512;
}

/* applyAttributes(fd, mode, uid, gid, mtime seconds, mtime nanoseconds) */
static napi_value js_apply_attributes(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int fd = args_fd(&args, 0);
  struct attributes wanted = read_attributes(&args, 1);
  return args_answer(&args, args.error != 0 ? 0 : apply(fd, &wanted));
}

/* createFile(dirFd, name, content, mode, uid, gid, mtime seconds, mtime nanoseconds) */
static napi_value js_create_file(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int directory = args_fd(&args, 0);
  const char *name = args_string(&args, 1);
  struct attributes wanted = read_attributes(&args, 3);
  size_t length;
  const uint8_t *content = args_bytes(&args, 2, &length);
  if (args.error != 0) return args_answer(&args, 0);
  int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, wanted.mode & 0777);
  if (fd < 0) return args_answer(&args, -errno);
  int64_t result = write_all(fd, content, length) < 0 ? -errno : apply(fd, &wanted);
  close(fd);
  return args_answer(&args, result);
}

const struct entry attribute_entries[] = {
    {"applyAttributes", js_apply_attributes},
    {"createFile", js_create_file},
    {NULL, NULL},
};
