/* Jobs on files: state files, bounded reads, files inside a root that is not trusted. */
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "berth.h"

int write_all(int fd, const uint8_t *data, size_t length) {
  while (length > 0) {
    ssize_t written = write(fd, data, length);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return -1;
    data += written;
    length -= (size_t)written;
  }
  return 0;
}

static int open_in_root(int root, const char *path, uint64_t flags) {
  struct open_how how;
  memset(&how, 0, sizeof how);
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

/* strings: 0 folder, 1 final name, 2 name to write under first; numbers: 0 mode, 1 whether it is brought to the disk */
static void write_aside(struct job *job, int folder) {
  int fd = openat(folder, job->strings[2], O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) {
    job_fail(job, "open", errno);
    return;
  }
  const char *step = NULL;
  if (fchmod(fd, (mode_t)job->numbers[0]) < 0) step = "fchmod";
  if (step == NULL && write_all(fd, job->data, job->data_length) < 0) step = "write";
  bool is_synced = job->numbers[1] != 0;
  if (step == NULL && is_synced && fdatasync(fd) < 0) step = "fdatasync";
  if (step == NULL && renameat(folder, job->strings[2], folder, job->strings[1]) < 0) step = "rename";
  int error = errno;
  close(fd);
  if (step != NULL) {
    unlinkat(folder, job->strings[2], 0);
    job_fail(job, step, error);
  } else if (is_synced && fsync(folder) < 0) {
    job_fail(job, "fsync", errno);
  }
}

static void write_file(struct job *job) {
  int folder = open(job->strings[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) {
    job_fail(job, "open", errno);
    return;
  }
  write_aside(job, folder);
  close(folder);
}

static napi_value js_write_file(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, write_file);
  for (size_t i = 0; i < 3; i++) job_take_string(job, i, &args, 1 + i);
  if (job != NULL) {
    job->numbers[0] = args_integer(&args, 5, 0, 07777);
    job->numbers[1] = args_integer(&args, 6, 0, 1);
  }
  job_take_bytes(job, &args, 4);
  return job_start(job, &args);
}

/* Opens without side effects first: a device or FIFO in somebody's tree must not even be opened for reading. */
static int open_regular(int root, const char *path, bool in_root, struct job *job) {
  int place = in_root ? open_in_root(root, path, O_PATH) : open(path, O_PATH | O_CLOEXEC);
  if (place < 0) {
    job_fail(job, "open", errno);
    return -1;
  }
  struct stat status;
  int fd = -1;
  if (fstat(place, &status) < 0) {
    job_fail(job, "fstat", errno);
  } else if (!S_ISREG(status.st_mode)) {
    job_fail(job, "open", S_ISDIR(status.st_mode) ? EISDIR : EINVAL);
  } else {
    char self[32];
    snprintf(self, sizeof self, "/proc/self/fd/%d", place);
    fd = open(self, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) job_fail(job, "open", errno);
  }
  close(place);
  return fd;
}

/* Kernel files say 0 as their size, so it is not looked at. */
void job_read_all(int fd, size_t limit, struct job *job) {
  size_t capacity = 0, length = 0;
  uint8_t *buffer = NULL;
  for (;;) {
    if (length == capacity) {
      capacity = capacity == 0 ? 4096 : capacity * 2;
      uint8_t *larger = realloc(buffer, capacity);
      if (larger == NULL) {
        free(buffer);
        job_fail(job, "read", ENOMEM);
        return;
      }
      buffer = larger;
    }
    ssize_t count = read(fd, buffer + length, capacity - length);
    if (count < 0 && errno == EINTR) continue;
    if (count > 0) length += (size_t)count;
    if (count < 0 || length > limit) {
      job_fail(job, "read", count < 0 ? errno : EFBIG);
      free(buffer);
      return;
    }
    if (count == 0) break;
  }
  job->output = buffer;
  job->output_length = length;
}

/* strings: 0 path, 1 root or NULL; numbers: 0 limit */
static void read_file(struct job *job) {
  int root = -1;
  if (job->strings[1] != NULL) {
    root = open(job->strings[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) {
      job_fail(job, "open", errno);
      return;
    }
  }
  int fd = open_regular(root, job->strings[0], root >= 0, job);
  if (root >= 0) close(root);
  if (fd < 0) return;
  job_read_all(fd, (size_t)job->numbers[0], job);
  close(fd);
}

static napi_value js_read_file(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, read_file);
  job_take_string(job, 0, &args, 1);
  job_take_optional_string(job, 1, &args, 2);
  if (job != NULL) job->numbers[0] = args_integer(&args, 3, 0, 1 << 30);
  return job_start(job, &args);
}

/* The real path of what a path leads to inside a root. strings: 0 path, 1 root */
static void resolve_path(struct job *job) {
  int root = open(job->strings[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
  int fd = root < 0 ? -1 : open_in_root(root, job->strings[0], O_PATH);
  if (fd < 0) job_fail(job, "openat2", errno);
  if (root >= 0) close(root);
  if (fd < 0) return;
  char link[sizeof "/proc/self/fd/" + 3 * sizeof fd];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  job->output = malloc(PATH_MAX);
  ssize_t length = job->output == NULL ? -1 : readlink(link, (char *)job->output, PATH_MAX);
  if (length < 0)
    job_fail(job, "readlink", errno);
  else
    job->output_length = (size_t)length;
  close(fd);
}

static napi_value js_resolve_path(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, resolve_path);
  job_take_string(job, 0, &args, 1);
  job_take_string(job, 1, &args, 2);
  return job_start(job, &args);
}

/* The answer to many reads: per file a 32-bit length or -errno, then the bytes. */
static bool append(struct job *job, const void *bytes, size_t length) {
  uint8_t *larger = realloc(job->output, job->output_length + length + 1);
  if (larger == NULL) return false;
  job->output = larger;
  if (length > 0) memcpy(larger + job->output_length, bytes, length);
  job->output_length += length;
  return true;
}

void job_read_each(struct job *job, void (*read_one)(struct job *one)) {
  for (size_t i = 0; i < job->list_length; i++) {
    struct job one = {.strings = {job->list[i]}, .numbers = {job->numbers[0]}};
    read_one(&one);
    int32_t head = (int32_t)(one.result < 0 ? one.result : (int64_t)one.output_length);
    bool is_kept = append(job, &head, sizeof head) && append(job, one.output, one.output_length);
    free(one.output);
    if (!is_kept) {
      free(job->output);
      job->output = NULL;
      job_fail(job, "read", ENOMEM);
      return;
    }
  }
}

/* list: paths; numbers: 0 limit per file */
static void read_files(struct job *job) { job_read_each(job, read_file); }

static napi_value js_read_files(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, read_files);
  job_take_list(job, &args, 1);
  if (job != NULL) job->numbers[0] = args_integer(&args, 2, 0, 1 << 24);
  return job_start(job, &args);
}

static void claim_directory(struct job *job, int parent, const char *name) {
  uid_t uid = (uid_t)job->numbers[1];
  gid_t gid = (gid_t)job->numbers[2];
  if (mkdirat(parent, name, 0700) < 0) {
    if (errno != EEXIST) job_fail(job, "mkdir", errno);
    return;
  }
  int made = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (made < 0)
    job_fail(job, "open", errno);
  else if (fchown(made, uid, gid) < 0)
    job_fail(job, "fchown", errno);
  else if (fchmod(made, (mode_t)job->numbers[0]) < 0)
    job_fail(job, "fchmod", errno);
  if (made >= 0) close(made);
}

/* Makes the missing folders of a path, each prefix resolved anew inside the root. strings: 0 root, 1 path */
static void make_directories(struct job *job) {
  char *path = job->strings[1];
  int root = open(job->strings[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) {
    job_fail(job, "open", errno);
    return;
  }
  int parent = fcntl(root, F_DUPFD_CLOEXEC, 3);
  char *name = path + strspn(path, "/");
  while (parent >= 0 && *name != '\0' && job->result == 0) {
    char *end = name + strcspn(name, "/");
    char separator = *end;
    *end = '\0';
    int next = open_in_root(root, path, O_PATH | O_DIRECTORY);
    if (next < 0 && errno == ENOENT) {
      claim_directory(job, parent, name);
      next = open_in_root(root, path, O_PATH | O_DIRECTORY);
    }
    if (next < 0 && job->result == 0) job_fail(job, "open", errno);
    close(parent);
    parent = next;
    *end = separator;
    name = end + strspn(end, "/");
  }
  if (parent >= 0) close(parent);
  close(root);
}

/* makeDirectories(token, root, path, mode, uid, gid) */
static napi_value js_make_directories(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, make_directories);
  job_take_string(job, 0, &args, 1);
  job_take_string(job, 1, &args, 2);
  if (job != NULL) {
    job->numbers[0] = args_integer(&args, 3, 0, 07777);
    job->numbers[1] = args_integer(&args, 4, 0, UINT32_MAX - 1);
    job->numbers[2] = args_integer(&args, 5, 0, UINT32_MAX - 1);
  }
  return job_start(job, &args);
}

enum { fields_of_folder = 3 };

/* list: paths; data: per path mode, uid and gid, 32 bits each */
static void make_folders(struct job *job) {
  for (size_t i = 0; i < job->list_length; i++) {
    const char *path = job->list[i];
    uint32_t fields[fields_of_folder];
    memcpy(fields, job->data + i * sizeof fields, sizeof fields);
    const char *step = NULL;
    if (mkdir(path, 0700) < 0) step = "mkdir";
    if (step == NULL && lchown(path, fields[1], fields[2]) < 0) step = "chown";
    if (step == NULL && chmod(path, fields[0] & 07777) < 0) step = "chmod";
    if (step == NULL) continue;
    job_fail_on(job, step, errno, path);
    return;
  }
}

/* makeFolders(token, paths, modes and owners) */
static napi_value js_make_folders(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, make_folders);
  job_take_list(job, &args, 1);
  job_take_bytes(job, &args, 2);
  if (job != NULL && args.error == 0 && job->data_length != job->list_length * fields_of_folder * sizeof(uint32_t))
    args.error = -EINVAL;
  return job_start(job, &args);
}

/* list: paths. All are tried; the first that fails is told. */
static void remove_files(struct job *job) {
  for (size_t i = 0; i < job->list_length; i++)
    if (unlink(job->list[i]) < 0 && errno != ENOENT && job->result == 0)
      job_fail_on(job, "unlink", errno, job->list[i]);
}

static napi_value js_remove_files(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, remove_files);
  job_take_list(job, &args, 1);
  return job_start(job, &args);
}

/* strings: 0 path */
static void write_fifo(struct job *job) {
  int fd = open(job->strings[0], O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) {
    job_fail(job, "open", errno);
    return;
  }
  struct stat status;
  if (fstat(fd, &status) < 0)
    job_fail(job, "fstat", errno);
  else if (!S_ISFIFO(status.st_mode))
    job_fail(job, "open", EINVAL);
  else if (write_all(fd, job->data, job->data_length) < 0)
    job_fail(job, "write", errno);
  close(fd);
}

static napi_value js_write_fifo(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, write_fifo);
  job_take_string(job, 0, &args, 1);
  job_take_bytes(job, &args, 2);
  return job_start(job, &args);
}

static void remove_tree_job(struct job *job) { job->result = remove_tree(job->strings[0], &job->step); }

static napi_value js_remove_tree(napi_env env, napi_callback_info info) {
  return job_start_on_path(env, info, remove_tree_job);
}

/* strings: 0 path. Answers two 64-bit words: blocks of 512 bytes, inodes */
static void measure_tree_job(struct job *job) {
  struct tree_size size = {0, 0};
  job->result = measure_tree(job->strings[0], &size, &job->step);
  if (job->result < 0) return;
  job->output = malloc(sizeof size);
  if (job->output == NULL) {
    job_fail(job, "stat", ENOMEM);
    return;
  }
  memcpy(job->output, &size, sizeof size);
  job->output_length = sizeof size;
}

static napi_value js_measure_tree(napi_env env, napi_callback_info info) {
  return job_start_on_path(env, info, measure_tree_job);
}

/* strings: 0 path. 1 if the file system has taken the flag, 0 if it knows none. */
static void spread_folders(struct job *job) {
  int folder = open(job->strings[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) {
    job_fail(job, "open", errno);
    return;
  }
  int flags = 0;
  if (ioctl(folder, FS_IOC_GETFLAGS, &flags) == 0) {
    int wanted = flags | FS_TOPDIR_FL;
    job->result = wanted == flags || ioctl(folder, FS_IOC_SETFLAGS, &wanted) == 0;
  }
  close(folder);
}

static napi_value js_spread_folders(napi_env env, napi_callback_info info) {
  return job_start_on_path(env, info, spread_folders);
}

const struct entry file_job_entries[] = {
    {"writeFile", js_write_file},
    {"readFile", js_read_file},
    {"readFiles", js_read_files},
    {"resolvePath", js_resolve_path},
    {"makeDirectories", js_make_directories},
    {"makeFolders", js_make_folders},
    {"removeFiles", js_remove_files},
    {"writeFifo", js_write_fifo},
    {"removeTree", js_remove_tree},
    {"measureTree", js_measure_tree},
    {"spreadFolders", js_spread_folders},
    {NULL, NULL},
};
