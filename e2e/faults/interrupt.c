/* Stops a process at every system call by which it changes the world, before and after it, and asks what to do.
 *
 * usage: interrupt PID
 *
 * Says "ready" once every thread is watched, then one line per point: "before NAME WHAT" or "after NAME WHAT", WHAT
 * being a path or what a descriptor is. Each line is answered on standard input by a byte: c continues, k kills the
 * process (before: the call is not made any more). Threads are followed, children are not. Ends with the process;
 * killed itself, it leaves the process running. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/ptrace.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* glibc's <sys/ptrace.h> and the kernel's header do not go together. */
extern long ptrace(int request, ...);

enum what { by_path, by_path_at, by_create, by_create2, by_fd, by_address, by_clone, by_nothing };

struct call {
  long number;
  const char *name;
  enum what what;
  int argument; /* of the path or descriptor; a path_at's folder is the one before */
};

static const struct call calls[] = {
    {SYS_clone, "clone", by_clone, 0},
    {SYS_unshare, "unshare", by_nothing, 0},
    {SYS_setns, "setns", by_fd, 0},
    {SYS_sethostname, "sethostname", by_nothing, 0},
    {SYS_pidfd_send_signal, "pidfd_send_signal", by_nothing, 0},
    {SYS_kill, "kill", by_nothing, 0},
    {SYS_mount, "mount", by_path, 1},
    {SYS_umount2, "umount2", by_path, 0},
    {SYS_move_mount, "move_mount", by_path_at, 3},
    {SYS_mount_setattr, "mount_setattr", by_path_at, 1},
    {SYS_openat, "openat", by_create, 1},
    {SYS_openat2, "openat2", by_create2, 1},
    {SYS_write, "write", by_fd, 0},
    {SYS_writev, "writev", by_fd, 0},
    {SYS_pwrite64, "pwrite64", by_fd, 0},
    {SYS_sendmsg, "sendmsg", by_fd, 0},
    {SYS_sendto, "sendto", by_fd, 0},
    {SYS_copy_file_range, "copy_file_range", by_fd, 2},
    {SYS_ftruncate, "ftruncate", by_fd, 0},
    {SYS_fsync, "fsync", by_fd, 0},
    {SYS_fdatasync, "fdatasync", by_fd, 0},
    {SYS_fchmod, "fchmod", by_fd, 0},
    {SYS_fchown, "fchown", by_fd, 0},
    {SYS_fchmodat, "fchmodat", by_path_at, 1},
    {SYS_fchownat, "fchownat", by_path_at, 1},
    {SYS_utimensat, "utimensat", by_path_at, 1},
    {SYS_mkdirat, "mkdirat", by_path_at, 1},
    {SYS_mknodat, "mknodat", by_path_at, 1},
    {SYS_linkat, "linkat", by_path_at, 3},
    {SYS_symlinkat, "symlinkat", by_path_at, 2},
    {SYS_unlinkat, "unlinkat", by_path_at, 1},
    {SYS_renameat, "renameat", by_path_at, 3},
    {SYS_renameat2, "renameat2", by_path_at, 3},
    {SYS_connect, "connect", by_address, 1},
    {SYS_bind, "bind", by_address, 1},
#ifdef __x86_64__ /* the older forms, which libc still uses here */
    {SYS_mkdir, "mkdir", by_path, 0},
    {SYS_rmdir, "rmdir", by_path, 0},
    {SYS_rename, "rename", by_path, 1},
    {SYS_unlink, "unlink", by_path, 0},
    {SYS_link, "link", by_path, 1},
    {SYS_symlink, "symlink", by_path, 1},
    {SYS_chmod, "chmod", by_path, 0},
    {SYS_chown, "chown", by_path, 0},
    {SYS_lchown, "lchown", by_path, 0},
#endif
};

enum { max_threads = 512, line_bytes = 2 * PATH_MAX };

/* Threads inside a call that was told of. */
static struct pending {
  pid_t thread;
  char line[line_bytes];
} pending[max_threads];

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static struct pending *find_pending(pid_t thread) {
  for (size_t i = 0; i < max_threads; i++)
    if (pending[i].thread == thread) return &pending[i];
  return NULL;
}

static void read_memory(pid_t thread, uint64_t address, void *to, size_t size) {
  memset(to, 0, size);
  struct iovec local = {to, size};
  struct iovec remote = {(void *)(uintptr_t)address, size};
  if (process_vm_readv(thread, &local, 1, &remote, 1, 0) >= 0) return;
  /* the string may end before memory does */
  size_t to_page_end = 4096 - address % 4096;
  if (to_page_end >= size) return;
  local.iov_len = remote.iov_len = to_page_end;
  process_vm_readv(thread, &local, 1, &remote, 1, 0);
}

static void describe_fd(pid_t thread, int fd, char *to) {
  char link[64];
  snprintf(link, sizeof link, fd == AT_FDCWD ? "/proc/%d/cwd" : "/proc/%d/fd/%d", thread, fd);
  ssize_t length = readlink(link, to, PATH_MAX - 1);
  to[length < 0 ? 0 : length] = 0;
}

static void describe_path(pid_t thread, int folder, uint64_t address, char *to) {
  char path[PATH_MAX];
  read_memory(thread, address, path, sizeof path);
  path[sizeof path - 1] = 0;
  to[0] = 0;
  if (path[0] != '/') describe_fd(thread, folder, to);
  size_t length = strlen(to);
  snprintf(to + length, line_bytes - 64 - length, "%s%s", length > 0 && path[0] != 0 ? "/" : "", path);
}

static void describe_address(pid_t thread, uint64_t address, char *to) {
  struct sockaddr_un name;
  read_memory(thread, address, &name, sizeof name);
  if (name.sun_family == AF_UNIX) snprintf(to, PATH_MAX, "%.*s", (int)sizeof name.sun_path, name.sun_path);
  else snprintf(to, PATH_MAX, "family %d", name.sun_family);
}

/* False for calls that change nothing. */
static bool describe(pid_t thread, const struct call *call, const uint64_t *arguments, char *to) {
  uint64_t argument = arguments[call->argument];
  to[0] = 0;
  switch (call->what) {
  case by_path:
    describe_path(thread, AT_FDCWD, argument, to);
    return true;
  case by_path_at:
    describe_path(thread, (int)arguments[call->argument - 1], argument, to);
    return true;
  case by_create:
    describe_path(thread, (int)arguments[call->argument - 1], argument, to);
    return (arguments[call->argument + 1] & (O_CREAT | O_TRUNC)) != 0;
  case by_create2: {
    uint64_t flags;
    read_memory(thread, arguments[call->argument + 1], &flags, sizeof flags);
    describe_path(thread, (int)arguments[call->argument - 1], argument, to);
    return (flags & (O_CREAT | O_TRUNC)) != 0;
  }
  case by_fd:
    describe_fd(thread, (int)argument, to);
    return strncmp(to, "anon_inode:", 11) != 0; /* wake-ups between our own threads */
  case by_address:
    describe_address(thread, argument, to);
    return true;
  case by_clone:
    return (argument & CLONE_THREAD) == 0;
  case by_nothing:
    return true;
  }
  return false;
}

static const struct call *find_call(uint64_t number) {
  for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
    if (calls[i].number == (long)number) return &calls[i];
  return NULL;
}

static void ask(pid_t process, const char *when, const char *line) {
  printf("%s %s\n", when, line);
  fflush(stdout);
  char answer;
  if (read(STDIN_FILENO, &answer, 1) != 1) exit(0);
  if (answer == 'k') kill(process, SIGKILL);
}

static void at_syscall(pid_t process, pid_t thread) {
  struct ptrace_syscall_info info;
  if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) < 0) return;
  if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
    struct pending *found = find_pending(thread);
    if (found == NULL) return;
    found->thread = 0;
    ask(process, "after", found->line);
    return;
  }
  if (info.op != PTRACE_SYSCALL_INFO_ENTRY) return;
  const struct call *call = find_call(info.entry.nr);
  char what[line_bytes];
  if (call == NULL || !describe(thread, call, (const uint64_t *)info.entry.args, what)) return;
  for (char *c = what; *c != 0; c++)
    if (*c == '\n') *c = '?';
  struct pending *slot = find_pending(0);
  if (slot == NULL) return;
  slot->thread = thread;
  snprintf(slot->line, sizeof slot->line, "%s %s", call->name, what);
  ask(process, "before", slot->line);
}

/* Threads that begin meanwhile are followed from those that are watched, or found by looking again. */
static void watch_all(pid_t process) {
  static pid_t watched[max_threads];
  size_t count = 0;
  for (bool is_new = true; is_new;) {
    is_new = false;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", process);
    DIR *folder = opendir(path);
    if (folder == NULL) fail(path);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
      pid_t thread = atoi(entry->d_name);
      bool is_known = thread == 0;
      for (size_t i = 0; i < count; i++) is_known = is_known || watched[i] == thread;
      if (is_known || count == max_threads) continue;
      watched[count++] = thread;
      if (ptrace(PTRACE_SEIZE, thread, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE) < 0) {
        if (errno == ESRCH || (errno == EPERM && count > 1)) continue; /* gone, or followed already */
        fail("PTRACE_SEIZE");
      }
      is_new = true;
      ptrace(PTRACE_INTERRUPT, thread, 0, 0);
    }
    closedir(folder);
  }
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  pid_t process = atoi(argv[1]);
  watch_all(process);
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    int status;
    pid_t thread = waitpid(-1, &status, __WALL);
    if (thread < 0 && errno == EINTR) continue;
    if (thread < 0) return 0; /* all are gone */
    if (!WIFSTOPPED(status)) {
      struct pending *left = find_pending(thread);
      if (left != NULL) left->thread = 0;
      continue;
    }
    int number = WSTOPSIG(status);
    bool is_syscall = number == (SIGTRAP | 0x80);
    if (is_syscall) at_syscall(process, thread);
    bool is_signal = !is_syscall && status >> 16 == 0;
    ptrace(PTRACE_SYSCALL, thread, 0, is_signal ? number : 0);
  }
}
