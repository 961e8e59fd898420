/*
 * Namespaces that belong to a user namespace. Entering one takes a process with a single thread, and costs it the right
 * to mount on the host: so a child enters and the parent, which stays outside, pins what the child is in.
 */
#include <asm/signal.h>
#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/limits.h>
#include <linux/mount.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/sockios.h>

#include "helper.h"

enum {
  detach = 2,
  no_follow = 8,
  open_flags = 02000000 /* O_CLOEXEC */,
  create_flags = 0100 | 0200 | 02000000 /* O_CREAT | O_EXCL | O_CLOEXEC */,
  interface_up = 1,
  kind_count = 3
};

/* struct ifreq, whose header would bring libc's along */
struct interface_request {
  char name[16];
  short flags;
  char rest[22];
};

static const struct {
  unsigned long flag;
  const char *name;
} kinds[kind_count] = {{CLONE_NEWNET, "net"}, {CLONE_NEWIPC, "ipc"}, {CLONE_NEWUTS, "uts"}};

/* What went wrong, and on what if that is a file named by the caller. */
struct failure {
  long error;
  char step[32];
  char subject[512];
};

static long fail(struct failure *failure, const char *step, long error) {
  if (error >= 0) return 0;
  failure->error = error;
  put_text(failure->step, step);
  return error;
}

static int end_with(const struct failure *failure) {
  char line[640];
  char *end = put_text(put_text(put_number(line, (unsigned long)-failure->error), failure->step), failure->subject);
  write_all(1, line, (size_t)(end - line));
  return 1;
}

static char *put_process_path(char *place, long pid, const char *rest) {
  place = put_text(place, "/proc/") - 1;
  place = put_number(place, (unsigned long)pid) - 1;
  return put_text(place, rest);
}

static long write_file(const char *path, const char *text) {
  long fd = call4(__NR_openat, AT_FDCWD, path, 1 /* O_WRONLY */ | open_flags, 0);
  if (fd < 0) return fd;
  size_t length = text_length(text);
  long written = call3(__NR_write, fd, text, length);
  call1(__NR_close, fd);
  return written < 0 ? written : 0;
}

static long pin_file(const char *source, const char *target) {
  long fd = call4(__NR_openat, AT_FDCWD, target, create_flags, 0600);
  if (fd < 0) return fd;
  call1(__NR_close, fd);
  long result = call5(__NR_mount, source, target, 0, 4096 /* MS_BIND */, 0);
  if (result < 0) call3(__NR_unlinkat, AT_FDCWD, target, 0);
  return result;
}

static void let_go(const char *target) {
  call2(__NR_umount2, target, detach | no_follow);
  call3(__NR_unlinkat, AT_FDCWD, target, 0);
}

static long start_child(unsigned long flags) { return call5(__NR_clone, flags | SIGCHLD, 0, 0, 0, 0); }

static void end_child(long pid) {
  call2(__NR_kill, pid, SIGKILL);
  call4(__NR_wait4, pid, 0, 0, 0);
}

/* Lives as long as the parent needs something to point at. */
static __attribute__((noreturn)) void stand_still(long parent) {
  call2(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL);
  while (call0(__NR_getppid) == parent || call0(__NR_getppid) == 0) {
    struct {
      long seconds, nanoseconds;
    } minute = {60, 0};
    call2(__NR_nanosleep, &minute, 0);
  }
  for (;;) call1(__NR_exit_group, 0);
}

int run_user_namespace(const char *target, const char *uid_map, const char *gid_map) {
  struct failure failure = {.error = 0};
  char path[64];
  long self = call0(__NR_getpid);
  long child = start_child(CLONE_NEWUSER);
  if (child == 0) stand_still(self);
  if (fail(&failure, "clone", child) < 0) return end_with(&failure);
  put_process_path(path, child, "/uid_map");
  long result = fail(&failure, "uid_map", write_file(path, uid_map));
  put_process_path(path, child, "/gid_map");
  if (result == 0) result = fail(&failure, "gid_map", write_file(path, gid_map));
  put_process_path(path, child, "/ns/user");
  if (result == 0) result = fail(&failure, "mount", pin_file(path, target));
  end_child(child);
  return result < 0 ? end_with(&failure) : 0;
}

static long bring_loopback_up(void) {
  struct interface_request request = {.name = "lo"};
  long fd = call3(__NR_socket, 2 /* AF_INET */, 2 /* SOCK_DGRAM */, 0);
  if (fd < 0) return fd;
  long result = call3(__NR_ioctl, fd, SIOCGIFFLAGS, &request);
  request.flags |= interface_up;
  if (result == 0) result = call3(__NR_ioctl, fd, SIOCSIFFLAGS, &request);
  call1(__NR_close, fd);
  return result;
}

struct pins {
  const char *user_namespace;
  const char *folder;
  unsigned long flags;
  const char *hostname;
  char **sysctls; /* path, value, …, NULL */
};

static long enter(const struct pins *pins, struct failure *failure) {
  long fd = call4(__NR_openat, AT_FDCWD, pins->user_namespace, open_flags, 0);
  if (fail(failure, "open", fd) < 0) return fd;
  long result = fail(failure, "setns", call2(__NR_setns, fd, CLONE_NEWUSER));
  call1(__NR_close, fd);
  if (result < 0) return result;
  /* As its root, whom the new namespaces will then belong to; not every mapping has one. */
  call3(__NR_setresgid, 0, 0, 0);
  call3(__NR_setresuid, 0, 0, 0);
  if (fail(failure, "unshare", call1(__NR_unshare, pins->flags)) < 0) return failure->error;
  if ((pins->flags & CLONE_NEWNET) != 0 && fail(failure, "ioctl", bring_loopback_up()) < 0) return failure->error;
  if ((pins->flags & CLONE_NEWUTS) != 0 && pins->hostname[0] != '\0' &&
      fail(failure, "sethostname", call2(__NR_sethostname, pins->hostname, text_length(pins->hostname))) < 0)
    return failure->error;
  for (char **at = pins->sysctls; at[0] != NULL && at[1] != NULL; at += 2) {
    if (fail(failure, "sysctl", write_file(at[0], at[1])) == 0) continue;
    if (text_length(at[0]) < sizeof failure->subject) put_text(failure->subject, at[0]);
    return failure->error;
  }
  return 0;
}

static int put_pin_path(char *place, const char *folder, const char *name) {
  if (text_length(folder) + 8 > PATH_MAX) return -ENAMETOOLONG;
  put_text(put_text(put_text(place, folder) - 1, "/") - 1, name);
  return 0;
}

static long pin_all(const struct pins *pins, long child, struct failure *failure) {
  static char target[PATH_MAX];
  char source[64], rest[16];
  unsigned long made = 0;
  for (int i = 0; i < kind_count; i++) {
    if ((pins->flags & kinds[i].flag) == 0) continue;
    put_text(put_text(rest, "/ns/") - 1, kinds[i].name);
    put_process_path(source, child, rest);
    long result = put_pin_path(target, pins->folder, kinds[i].name);
    if (result == 0) result = pin_file(source, target);
    if (fail(failure, "mount", result) < 0) break;
    made |= kinds[i].flag;
  }
  for (int i = 0; failure->error != 0 && i < kind_count; i++)
    if ((made & kinds[i].flag) != 0 && put_pin_path(target, pins->folder, kinds[i].name) == 0) let_go(target);
  return failure->error;
}

/* argv: user namespace, folder, kinds, hostname, then path and value of each sysctl */
int run_pin(char **argv) {
  struct pins pins = {argv[0], argv[1], read_number(argv[2]), argv[3], argv + 4};
  struct failure failure = {.error = 0};
  int ends[2];
  if (fail(&failure, "pipe2", call2(__NR_pipe2, ends, open_flags)) < 0) return end_with(&failure);
  long self = call0(__NR_getpid);
  long child = start_child(0);
  if (fail(&failure, "clone", child) < 0) return end_with(&failure);
  if (child == 0) {
    enter(&pins, &failure);
    write_all(ends[1], (const char *)&failure, sizeof failure);
    stand_still(self);
  }
  call1(__NR_close, ends[1]);
  long count = call3(__NR_read, ends[0], &failure, sizeof failure);
  if (count != (long)sizeof failure) fail(&failure, "read", -EIO);
  if (failure.error == 0) pin_all(&pins, child, &failure);
  end_child(child);
  return failure.error != 0 ? end_with(&failure) : 0;
}
