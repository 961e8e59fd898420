/* Children, pidfds and the small descriptors around them. */
#include <dirent.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "berth.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

enum { spawn_process_group = 1, spawn_session = 2, max_child_fds = 32, child_stack_bytes = 64 * 1024 };

struct start {
  char **argv;
  char **environment;
  const char *directory; /* NULL: stay */
  const int *fds;        /* fds[i] becomes descriptor i of the child, -1 becomes /dev/null */
  size_t fd_count;
  unsigned flags;
  int error;
  const char *step;
};

#define IN_CHILD __attribute__((no_sanitize("address", "undefined"), no_stack_protector))

IN_CHILD static int fail_start(struct start *start, const char *step) {
  start->error = errno;
  start->step = step;
  return 127;
}

/* Ignored signals stay ignored over exec, and Node ignores SIGPIPE: hand on the defaults. */
IN_CHILD static void reset_signals(void) {
  struct sigaction standard;
  standard.sa_handler = SIG_DFL;
  standard.sa_flags = 0;
  sigemptyset(&standard.sa_mask);
  for (int number = 1; number < 32; number++) sigaction(number, &standard, NULL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

/* First out of the way of the numbers to be filled, then into place; dup2 clears close-on-exec. */
IN_CHILD static int place_fds(struct start *start) {
  int moved[max_child_fds];
  int null_fd = -1;
  int floor = (int)start->fd_count;
  for (size_t i = 0; i < start->fd_count; i++) {
    int source = start->fds[i];
    if (source < 0) {
      if (null_fd < 0) null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
      source = null_fd;
    }
    moved[i] = fcntl(source, F_DUPFD_CLOEXEC, floor);
    if (moved[i] < 0) return -1;
  }
  for (size_t i = 0; i < start->fd_count; i++)
    if (dup2(moved[i], (int)i) < 0) return -1;
  return (int)syscall(SYS_close_range, (unsigned)floor, ~0U, 0);
}

/* Shares the parent's memory while the parent's thread waits: only calls that touch nothing of libc's state. */
IN_CHILD static int child_main(void *data) {
  struct start *start = data;
  if ((start->flags & spawn_session) != 0 && setsid() < 0) return fail_start(start, "setsid");
  if ((start->flags & spawn_process_group) != 0 && setpgid(0, 0) < 0) return fail_start(start, "setpgid");
  if (start->directory != NULL && chdir(start->directory) < 0) return fail_start(start, "chdir");
  if (place_fds(start) < 0) return fail_start(start, "dup");
  umask(022);
  reset_signals();
  execve(start->argv[0], start->argv, start->environment);
  return fail_start(start, "execve");
}

/*
 * Like vfork: costs the same however large the heap is. Returns the pid or -errno. No handler of ours may run in the
 * child: on a job's thread all signals are blocked.
 */
static pid_t start_child(struct start *start, int *pidfd) {
  char *stack = mmap(NULL, child_stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) {
    start->step = "mmap";
    return -errno;
  }
  pid_t pid = clone(child_main, stack + child_stack_bytes, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, start, pidfd);
  int error = errno;
  munmap(stack, child_stack_bytes);
  if (pid < 0) {
    start->step = "clone";
    return -error;
  }
  if (start->error == 0) return pid;
  siginfo_t info;
  while (waitid(P_PIDFD, (id_t)*pidfd, &info, WEXITED) < 0 && errno == EINTR) continue;
  close(*pidfd);
  return -start->error;
}

static napi_value pair(napi_env env, napi_value first, napi_value second) {
  napi_value array;
  napi_create_array_with_length(env, 2, &array);
  napi_set_element(env, array, 0, first);
  napi_set_element(env, array, 1, second);
  return array;
}

/* list: arguments, then the environment; numbers: 0 arguments, 1 flags, 2 descriptors; data: these; strings: 0 cwd */
static void run_start(struct job *job) {
  size_t argc = (size_t)job->numbers[0];
  char **argv = calloc(argc + 1, sizeof *argv);
  pid_t *told = malloc(sizeof *told);
  if (argv == NULL || told == NULL) {
    free(argv);
    free(told);
    job_fail(job, "spawn", ENOMEM);
    return;
  }
  memcpy(argv, job->list, argc * sizeof *argv);
  struct start start = {
      .argv = argv,
      .environment = job->list + argc,
      .directory = job->strings[0],
      .fds = (const int *)(const void *)job->data,
      .fd_count = (size_t)job->numbers[2],
      .flags = (unsigned)job->numbers[1],
  };
  int pidfd = -1;
  *told = start_child(&start, &pidfd);
  free(argv);
  if (*told < 0) {
    if (strcmp(start.step, "chdir") == 0)
      job_fail_on(job, start.step, -*told, start.directory);
    else
      job_fail(job, start.step, -*told);
    free(told);
    return;
  }
  job->result = pidfd;
  job->result_is_fd = true;
  job->output = (uint8_t *)told;
  job->output_length = sizeof *told;
}

/* spawn(token, argv and env, arguments in it, cwd | null, fds, flags): a job whose value is a pidfd, its output the pid */
static napi_value js_spawn(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, run_start);
  job_take_list(job, &args, 1);
  job_take_optional_string(job, 0, &args, 3);
  size_t fd_count;
  int *fds = args_fd_list(&args, 4, &fd_count);
  if (job == NULL) {
    free(fds);
    return args_answer(&args, 0);
  }
  job->data = (uint8_t *)fds;
  job->numbers[0] = args_integer(&args, 2, 1, (int64_t)job->list_length);
  job->numbers[1] = args_integer(&args, 5, 0, spawn_process_group | spawn_session);
  job->numbers[2] = (int64_t)fd_count;
  if (args.error == 0 && (fd_count < 3 || fd_count > max_child_fds)) args.error = -EINVAL;
  return job_start(job, &args);
}

static void run_reap(struct job *job) {
  siginfo_t status;
  memset(&status, 0, sizeof status);
  if (waitid(P_PIDFD, (id_t)job->numbers[0], &status, WEXITED | WNOHANG) < 0)
    job_fail(job, "waitid", errno);
  else if (status.si_pid == 0)
    job_fail(job, "waitid", EAGAIN);
  else
    job->result = status.si_code == CLD_EXITED ? status.si_status : 256 + status.si_status;
}

/* reap(token, pidfd): a job, for the kernel may take tens of ms; code, or 256 + signal; -EAGAIN while the child runs. */
static napi_value js_reap(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, run_reap);
  int64_t pidfd = args_fd(&args, 1);
  if (job != NULL) job->numbers[0] = pidfd;
  return job_start(job, &args);
}

static napi_value js_pidfd_open(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  pid_t pid = (pid_t)args_integer(&args, 0, 1, INT32_MAX);
  if (args.error != 0) return args_answer(&args, 0);
  return args_answer(&args, result_of(syscall(SYS_pidfd_open, pid, 0)));
}

static napi_value js_pidfd_signal(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int pidfd = args_fd(&args, 0);
  int number = (int)args_integer(&args, 1, 0, 64);
  if (args.error != 0) return args_answer(&args, 0);
  return args_answer(&args, result_of(syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0)));
}

/* Group 1 would be init's and 0 our own: neither is ever meant. */
static napi_value js_signal_group(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  pid_t group = (pid_t)args_integer(&args, 0, 2, INT32_MAX);
  int number = (int)args_integer(&args, 1, 0, 64);
  if (args.error != 0) return args_answer(&args, 0);
  return args_answer(&args, result_of(kill(-group, number)));
}

/* struct sched_attr of <linux/sched/types.h>, whose name glibc has taken from 2.41 on. */
struct scheduling {
  uint32_t size;
  uint32_t policy;
  uint64_t flags;
  int32_t nice_value;
  uint32_t priority;
  /* Kernels before 6.12 pass over it. */
  uint64_t slice_ns;
  uint64_t deadline_ns;
  uint64_t period_ns;
};

/* SCHED_FLAG_RESET_ON_FORK. A short slice is an early deadline: who wakes with one does not wait for others' ends. */
enum { reset_on_fork = 1, shortest_slice_ns = 100 * 1000 };

/* Threads that end meanwhile are passed over. */
static int raise_threads(int nice_value) {
  DIR *threads = opendir("/proc/self/task");
  if (threads == NULL) return -errno;
  int result = 0;
  for (struct dirent *entry; (entry = readdir(threads)) != NULL;) {
    pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);
    if (thread > 0 && setpriority(PRIO_PROCESS, (id_t)thread, nice_value) < 0 && errno != ESRCH) result = -errno;
  }
  closedir(threads);
  return result;
}

/*
 * raisePriority(nice): of every thread there is, since this one waits for the others' locks: V8's, libuv's and the
 * poller. What this one starts from here on begins at 0 again. A priority that was chosen before stays.
 */
static napi_value js_raise_priority(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int nice_value = (int)args_integer(&args, 0, -20, -1);
  if (args.error != 0 || sched_getscheduler(0) != SCHED_OTHER || getpriority(PRIO_PROCESS, 0) != 0)
    return args_answer(&args, 0);
  const struct scheduling wanted = {
      .size = sizeof wanted,
      .policy = SCHED_OTHER,
      .flags = reset_on_fork,
      .nice_value = nice_value,
      .slice_ns = shortest_slice_ns,
  };
  /* First, for without its reset what this thread starts would be raised as well. */
  if (syscall(SYS_sched_setattr, 0, &wanted, 0) < 0) return args_answer(&args, -errno);
  args.instance->nice_value = nice_value;
  return args_answer(&args, raise_threads(nice_value));
}

static napi_value js_pipe(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int fds[2];
  if (args.error != 0 || pipe2(fds, O_CLOEXEC) < 0) return args_answer(&args, -errno);
  return args_answer_value(&args, pair(env, make_integer(env, fds[0]), make_integer(env, fds[1])));
}

/* readKernelFile(path, limit): a small file of /proc or /sys, whose reading does not wait. */
static napi_value js_read_kernel_file(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  const char *path = args_string(&args, 0);
  size_t limit = (size_t)args_integer(&args, 1, 1, 65536);
  if (args.error != 0) return args_answer(&args, 0);
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return args_answer(&args, -errno);
  char *buffer = malloc(limit);
  ssize_t length = buffer == NULL ? -1 : read(fd, buffer, limit);
  int error = buffer == NULL ? ENOMEM : errno;
  close(fd);
  napi_value answer = length < 0 ? make_integer(env, -error) : make_bytes(env, buffer, (size_t)length);
  free(buffer);
  return args_answer_value(&args, answer);
}

static napi_value js_close(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int fd = args_fd(&args, 0);
  return args_answer(&args, args.error != 0 ? 0 : result_of(close(fd)));
}

/* read(fd, limit): bytes or -errno; meant for descriptors that do not block. */
static napi_value js_read(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int fd = args_fd(&args, 0);
  size_t limit = (size_t)args_integer(&args, 1, 1, 1 << 20);
  if (args.error != 0) return args_answer(&args, 0);
  char *buffer = malloc(limit);
  ssize_t length = buffer == NULL ? -1 : read(fd, buffer, limit);
  int error = buffer == NULL ? ENOMEM : errno;
  napi_value answer = length < 0 ? make_integer(env, -error) : make_bytes(env, buffer, (size_t)length);
  free(buffer);
  return args_answer_value(&args, answer);
}

static napi_value js_write(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int fd = args_fd(&args, 0);
  size_t length;
  const uint8_t *bytes = args_bytes(&args, 1, &length);
  if (args.error != 0) return args_answer(&args, 0);
  return args_answer(&args, result_of(write(fd, length > 0 ? (const void *)bytes : "", length)));
}

static napi_value js_eventfd(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  return args_answer(&args, args.error != 0 ? 0 : result_of(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)));
}

/* setWindowSize(fd, rows, columns) */
static napi_value js_set_window_size(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int fd = args_fd(&args, 0);
  struct winsize size = {.ws_row = (unsigned short)args_integer(&args, 1, 0, UINT16_MAX),
                         .ws_col = (unsigned short)args_integer(&args, 2, 0, UINT16_MAX)};
  if (args.error != 0) return args_answer(&args, 0);
  return args_answer(&args, result_of(ioctl(fd, TIOCSWINSZ, &size)));
}

const struct entry process_entries[] = {
    {"spawn", js_spawn},
    {"reap", js_reap},
    {"pidfdOpen", js_pidfd_open},
    {"pidfdSignal", js_pidfd_signal},
    {"signalGroup", js_signal_group},
    {"raisePriority", js_raise_priority},
    {"pipe", js_pipe},
    {"readKernelFile", js_read_kernel_file},
    {"close", js_close},
    {"read", js_read},
    {"write", js_write},
    {"eventfd", js_eventfd},
    {"setWindowSize", js_set_window_size},
    {NULL, NULL},
};
