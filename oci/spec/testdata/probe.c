/* Makes system calls by number and prints what each answers, for the tests of seccomp profiles. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void report(const char *name, long result) {
  printf("%s=%s\n", name, result < 0 ? strerrorname_np(errno) : "ok");
  fflush(stdout);
}

/* In a child, since some of these change the process. */
static void try_call(const char *name, long number, long a, long b, long c) {
  pid_t child = fork();
  if (child < 0) return report(name, -1);
  if (child == 0) {
    errno = 0;
    report(name, syscall(number, a, b, c, 0L, 0L));
    _exit(0);
  }
  waitpid(child, NULL, 0);
}

static void try_clone(const char *name, unsigned long flags) {
  errno = 0;
  long child = syscall(SYS_clone, flags | SIGCHLD, 0L, 0L, 0L, 0L);
  if (child == 0) _exit(0);
  report(name, child);
  if (child > 0) waitpid((pid_t)child, NULL, 0);
}

int main(void) {
  try_clone("clone", 0);
  try_clone("clone-newuser", CLONE_NEWUSER);
  try_clone("clone-newnet", CLONE_NEWNET);
  try_clone("clone-newns", CLONE_NEWNS);
  try_call("clone3", SYS_clone3, 0, 0, 0);
  try_call("unshare-files", SYS_unshare, CLONE_FILES, 0, 0);
  try_call("unshare-newuser", SYS_unshare, CLONE_NEWUSER, 0, 0);
  try_call("unshare-newtime", SYS_unshare, 0x80, 0, 0);
  try_call("unshare-newnet-files", SYS_unshare, CLONE_NEWNET | CLONE_FILES, 0, 0);
  try_call("setns", SYS_setns, -1, 0, 0);
  try_call("mount", SYS_mount, 0, 0, 0);
  try_call("bpf", SYS_bpf, BPF_MAP_CREATE, 0, 0);
  try_call("keyctl", SYS_keyctl, 0, 0, 0);
  try_call("io_uring_setup", SYS_io_uring_setup, 0, 0, 0);
  try_call("userfaultfd", SYS_userfaultfd, 0, 0, 0);
  try_call("perf_event_open", SYS_perf_event_open, 0, 0, 0);
  try_call("settimeofday", SYS_settimeofday, 0, 0, 0);
  try_call("sethostname", SYS_sethostname, (long)"x", 1, 0);
  try_call("init_module", SYS_init_module, 0, 0, 0);
  try_call("syslog", SYS_syslog, 10, 0, 0);
  try_call("ptrace", SYS_ptrace, PTRACE_TRACEME, 0, 0);
  try_call("personality-read", SYS_personality, 0xffffffff, 0, 0);
  try_call("personality-svr4", SYS_personality, 0x0001, 0, 0);
  try_call("socket-inet", SYS_socket, AF_INET, SOCK_STREAM, 0);
  try_call("socket-unix", SYS_socket, AF_UNIX, SOCK_STREAM, 0);
  try_call("socket-vsock", SYS_socket, AF_VSOCK, SOCK_STREAM, 0);
  try_call("unknown", 1000, 0, 0, 0);
  return 0;
}
