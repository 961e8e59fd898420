/* Jobs that mount. Only paths of our own go in here; what may hang belongs to the helper. */
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "berth.h"

/* <sys/mount.h> and <linux/mount.h> do not go together in this glibc. */
int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

enum { option_page_bytes = 4096 };

/* Options of one mount, which the kernel takes as one page. */
struct options {
  char text[option_page_bytes];
  size_t length;
  bool is_too_long;
};

static void add_char(struct options *options, char character) {
  if (options->length + 1 >= sizeof options->text)
    options->is_too_long = true;
  else
    options->text[options->length++] = character;
}

static void add_text(struct options *options, const char *text) {
  for (; *text != '\0'; text++) add_char(options, *text);
}

/* overlayfs splits at commas (and lowerdir at colons) unless a backslash stands before them. */
static void add_path(struct options *options, const char *key, const char *path) {
  if (path == NULL) return;
  add_text(options, ",");
  add_text(options, key);
  for (; *path != '\0'; path++) {
    if (*path == ',' || *path == '\\') add_char(options, '\\');
    add_char(options, *path);
  }
}

static int open_layers(struct job *job, int *fds) {
  for (size_t i = 0; i < job->list_length; i++) {
    fds[i] = open(job->list[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fds[i] < 0) return -1;
  }
  return 0;
}

/* list: lower folders, top first; strings: 0 target, 1 upper, 2 work, 3 further options */
static void mount_layers(struct job *job, const int *fds) {
  struct options options = {.length = 0, .is_too_long = false};
  add_text(&options, "lowerdir=");
  for (size_t i = 0; i < job->list_length; i++) {
    char place[32];
    snprintf(place, sizeof place, "%s/proc/self/fd/%d", i == 0 ? "" : ":", fds[i]);
    add_text(&options, place);
  }
  add_path(&options, "upperdir=", job->strings[1]);
  add_path(&options, "workdir=", job->strings[2]);
  if (job->strings[3][0] != '\0') {
    add_text(&options, ",");
    add_text(&options, job->strings[3]);
  }
  options.text[options.length] = '\0';
  if (options.is_too_long)
    job_fail(job, "mount", E2BIG);
  else if (mount("overlay", job->strings[0], "overlay", 0, options.text) < 0)
    job_fail(job, "mount", errno);
}

static void mount_overlay(struct job *job) {
  int *fds = malloc((job->list_length + 1) * sizeof *fds);
  if (fds == NULL) {
    job_fail(job, "open", ENOMEM);
    return;
  }
  for (size_t i = 0; i < job->list_length; i++) fds[i] = -1;
  if (open_layers(job, fds) < 0)
    job_fail(job, "open", errno);
  else
    mount_layers(job, fds);
  for (size_t i = 0; i < job->list_length; i++)
    if (fds[i] >= 0) close(fds[i]);
  free(fds);
}

/* mountOverlay(token, lower folders, target, upper | null, work | null, options) */
static napi_value js_mount_overlay(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, mount_overlay);
  job_take_list(job, &args, 1);
  job_take_string(job, 0, &args, 2);
  job_take_optional_string(job, 1, &args, 3);
  job_take_optional_string(job, 2, &args, 4);
  job_take_string(job, 3, &args, 5);
  return job_start(job, &args);
}

/* strings: 0 source, 1 target, 2 type, 3 data; numbers: 0 flags */
static void mount_plain(struct job *job) {
  if (mount(job->strings[0], job->strings[1], job->strings[2], (unsigned long)job->numbers[0], job->strings[3]) < 0)
    job_fail(job, "mount", errno);
}

static napi_value js_mount(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, mount_plain);
  for (size_t i = 0; i < 4; i++) job_take_string(job, i, &args, 1 + i);
  if (job != NULL) job->numbers[0] = args_integer(&args, 5, 0, INT32_MAX);
  return job_start(job, &args);
}

static int set_attributes(struct job *job, int tree, unsigned recursive) {
  struct mount_attr attributes;
  memset(&attributes, 0, sizeof attributes);
  attributes.attr_set = (uint64_t)job->numbers[1];
  attributes.propagation = (uint64_t)job->numbers[2];
  int user_namespace = -1;
  if (job->strings[2] != NULL) {
    user_namespace = open(job->strings[2], O_RDONLY | O_CLOEXEC);
    if (user_namespace < 0) {
      job_fail(job, "open", errno);
      return -1;
    }
    attributes.attr_set |= MOUNT_ATTR_IDMAP;
    attributes.userns_fd = (uint64_t)user_namespace;
  }
  long result = 0;
  if (attributes.attr_set != 0 || attributes.propagation != 0)
    result = syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | recursive, &attributes, sizeof attributes);
  if (result < 0) job_fail(job, "mount_setattr", errno);
  if (user_namespace >= 0) close(user_namespace);
  return (int)result;
}

/*
 * A bind mount that is never seen half made: cloned, its attributes set, then moved into place.
 * strings: 0 source, 1 target, 2 user namespace of an idmapped mount; numbers: 0 recursive, 1 attributes, 2 propagation
 */
static void mount_bind(struct job *job) {
  unsigned recursive = job->numbers[0] != 0 ? AT_RECURSIVE : 0;
  int tree = (int)syscall(SYS_open_tree, AT_FDCWD, job->strings[0], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive);
  if (tree < 0) {
    job_fail(job, "open_tree", errno);
    return;
  }
  int is_ready = set_attributes(job, tree, recursive) >= 0;
  int is_moved =
      is_ready && syscall(SYS_move_mount, tree, "", AT_FDCWD, job->strings[1], MOVE_MOUNT_F_EMPTY_PATH) == 0;
  if (is_ready && !is_moved) job_fail(job, "move_mount", errno);
  /* A shared parent, as "/" is under systemd, has made the mount shared too as it took it in. */
  struct mount_attr spread = {.propagation = (uint64_t)job->numbers[2]};
  if (is_moved && spread.propagation != 0 &&
      syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | recursive, &spread, sizeof spread) < 0)
    job_fail(job, "mount_setattr", errno);
  close(tree);
}

/* mountBind(token, source, target, user namespace | null, recursive, attributes, propagation) */
static napi_value js_mount_bind(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, mount_bind);
  job_take_string(job, 0, &args, 1);
  job_take_string(job, 1, &args, 2);
  job_take_optional_string(job, 2, &args, 3);
  if (job != NULL) {
    job->numbers[0] = args_integer(&args, 4, 0, 1);
    job->numbers[1] = args_integer(&args, 5, 0, 0x1fffff);
    job->numbers[2] = args_integer(&args, 6, 0, INT32_MAX);
  }
  return job_start(job, &args);
}

const struct entry mount_job_entries[] = {
    {"mountOverlay", js_mount_overlay},
    {"mount", js_mount},
    {"mountBind", js_mount_bind},
    {NULL, NULL},
};
