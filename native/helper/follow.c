/*
 * follow: runs a program that starts a process, writes its number to a file and leaves it behind (a runtime's
 * `exec --detach`), and ends as that process ends: with its exit code, or 128 + n after signal n. Without the file it
 * ends as the program does.
 */
#include <asm/signal.h>
#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/prctl.h>
#include <linux/wait.h>

#include "helper.h"

enum { close_on_exec = 02000000, unknown_status = 255, cannot_run_status = 127 };

static int to_exit_code(int status) {
  int signal = status & 0x7f;
  return signal == 0 ? (status >> 8) & 0xff : 128 + signal;
}

static __attribute__((noreturn)) void become(char **argv, char **environment) {
  long error = call3(__NR_execve, argv[0], argv, environment);
  char line[64];
  char *end = put_number(put_text(line, "the runtime cannot be executed: error ") - 1, (unsigned long)-error);
  write_all(2, line, (size_t)(end - line) - 1);
  for (;;) call1(__NR_exit_group, cannot_run_status);
}

/* 0 when there is none. */
static long read_pid(const char *path) {
  char text[24];
  long fd = call4(__NR_openat, AT_FDCWD, path, close_on_exec, 0);
  if (fd < 0) return 0;
  long count = call3(__NR_read, fd, text, sizeof text);
  call1(__NR_close, fd);
  long pid = 0;
  for (long i = 0; i < count && text[i] >= '0' && text[i] <= '9'; i++) pid = pid * 10 + (text[i] - '0');
  return pid;
}

/* Whatever else is left to us is reaped on the way. */
static int wait_for(long pid) {
  int status = 0;
  long found = call4(__NR_wait4, pid, &status, WNOHANG, 0);
  if (found == pid) return to_exit_code(status);
  if (found < 0) return unknown_status; /* not ours: somebody has reaped it, and others are not to be waited for */
  for (;;) {
    found = call4(__NR_wait4, -1, &status, 0, 0);
    if (found == pid) return to_exit_code(status);
    if (found < 0 && found != -EINTR) return unknown_status;
  }
}

int run_follow(const char *pid_file, char **argv) {
  /* What the program leaves behind becomes ours: nobody else could tell its exit code. */
  long result = call5(__NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  if (result < 0) return unknown_status;
  char **environment = argv;
  while (*environment != NULL) environment++;
  long program = call5(__NR_clone, SIGCHLD, 0, 0, 0, 0);
  if (program == 0) become(argv, environment + 1);
  if (program < 0) return unknown_status;
  /* Held here they would hide that the other side has closed them. */
  for (int fd = 0; fd < 3; fd++) call1(__NR_close, fd);

  int status = 0;
  long found;
  do found = call4(__NR_wait4, program, &status, 0, 0);
  while (found == -EINTR);
  long pid = read_pid(pid_file);
  if (pid == 0) return found == program ? to_exit_code(status) : unknown_status;
  return wait_for(pid);
}
