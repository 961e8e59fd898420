/* Jobs that change the namespaces of their own thread, which then ends: no other thread sees the change. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include "berth.h"

static const struct {
  int flag;
  const char *name;
} kinds[] = {{CLONE_NEWNET, "net"}, {CLONE_NEWIPC, "ipc"}, {CLONE_NEWUTS, "uts"}};

enum { kind_count = 3, all_kinds = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS };

static int bring_loopback_up(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  struct ifreq request;
  memset(&request, 0, sizeof request);
  memcpy(request.ifr_name, "lo", 3);
  int result = ioctl(fd, SIOCGIFFLAGS, &request);
  if (result == 0) {
    request.ifr_flags |= IFF_UP;
    result = ioctl(fd, SIOCSIFFLAGS, &request);
  }
  int error = errno;
  close(fd);
  errno = error;
  return result;
}

static int write_sysctl(const char *path, const char *value) {
  int fd = open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t written = write(fd, value, strlen(value));
  int error = errno;
  close(fd);
  errno = error;
  return written < 0 ? -1 : 0;
}

static bool make_path(char *path, size_t size, const char *folder, const char *name) {
  int length = snprintf(path, size, "%s/%s", folder, name);
  return length > 0 && (size_t)length < size;
}

static void unpin(const char *folder, int flags) {
  char path[4096];
  for (size_t i = 0; i < kind_count; i++) {
    if ((flags & kinds[i].flag) == 0 || !make_path(path, sizeof path, folder, kinds[i].name)) continue;
    umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
    unlink(path);
  }
}

static int pin(struct job *job, int kind, int *made) {
  char path[4096], source[64];
  if (!make_path(path, sizeof path, job->strings[0], kinds[kind].name)) {
    job_fail(job, "open", ENAMETOOLONG);
    return -1;
  }
  snprintf(source, sizeof source, "/proc/thread-self/ns/%s", kinds[kind].name);
  int fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) {
    job_fail(job, "open", errno);
    return -1;
  }
  close(fd);
  *made |= kinds[kind].flag;
  if (mount(source, path, NULL, MS_BIND, NULL) == 0) return 0;
  job_fail(job, "mount", errno);
  return -1;
}

/* list: path and value of each sysctl in turn; the output of a failure is the path it failed on. */
static int write_sysctls(struct job *job) {
  for (size_t i = 0; i + 1 < job->list_length; i += 2) {
    if (write_sysctl(job->list[i], job->list[i + 1]) == 0) continue;
    job_fail_on(job, "sysctl", errno, job->list[i]);
    return -1;
  }
  return 0;
}

static int prepare(struct job *job, int flags) {
  job->ends_thread = true;
  if (unshare(flags) < 0) {
    job_fail(job, "unshare", errno);
    return -1;
  }
  if ((flags & CLONE_NEWNET) != 0 && bring_loopback_up() < 0) {
    job_fail(job, "ioctl", errno);
    return -1;
  }
  const char *hostname = job->strings[1];
  if ((flags & CLONE_NEWUTS) != 0 && hostname != NULL && sethostname(hostname, strlen(hostname)) < 0) {
    job_fail(job, "sethostname", errno);
    return -1;
  }
  return write_sysctls(job);
}

/* strings: 0 folder, 1 hostname; numbers: 0 kinds */
static void pin_namespaces(struct job *job) {
  int flags = (int)job->numbers[0];
  int made = 0;
  if (prepare(job, flags) < 0) return;
  for (int i = 0; i < kind_count; i++) {
    if ((flags & kinds[i].flag) != 0 && pin(job, i, &made) < 0) {
      unpin(job->strings[0], made);
      return;
    }
  }
}

/* pinNamespaces(token, folder, hostname | null, kinds, [sysctl path, value, …]) */
static napi_value js_pin_namespaces(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, pin_namespaces);
  job_take_string(job, 0, &args, 1);
  job_take_optional_string(job, 1, &args, 2);
  if (job != NULL) job->numbers[0] = args_integer(&args, 3, 1, all_kinds);
  if (job != NULL && (job->numbers[0] & ~(int64_t)all_kinds) != 0 && args.error == 0) args.error = -EINVAL;
  job_take_list(job, &args, 4);
  return job_start(job, &args);
}

/* strings: 0 path. The pins lie on a file system of our own, so this does not need the helper. */
static void unpin_namespace(struct job *job) {
  int result = 0;
  while (result == 0) result = umount2(job->strings[0], MNT_DETACH | UMOUNT_NOFOLLOW);
  if (errno != EINVAL && errno != ENOENT && errno != ENOTDIR)
    job_fail(job, "umount2", errno);
  else if (unlink(job->strings[0]) < 0 && errno != ENOENT && errno != ENOTDIR)
    job_fail(job, "unlink", errno);
}

static napi_value js_unpin_namespace(napi_env env, napi_callback_info info) {
  return job_start_on_path(env, info, unpin_namespace);
}

/* strings: 0 namespace, 1 address; numbers: 0 port. Starts the connection only; who waits is the poller. */
static void connect_in_namespace(struct job *job) {
  struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)job->numbers[0])};
  struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)job->numbers[0])};
  bool is_ipv4 = inet_pton(AF_INET, job->strings[1], &ipv4.sin_addr) == 1;
  if (!is_ipv4 && inet_pton(AF_INET6, job->strings[1], &ipv6.sin6_addr) != 1) {
    job_fail(job, "connect", EINVAL);
    return;
  }
  int network = open(job->strings[0], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (network < 0) {
    job_fail(job, "open", errno);
    return;
  }
  job->ends_thread = true;
  int result = setns(network, CLONE_NEWNET);
  if (result < 0) job_fail(job, "setns", errno);
  close(network);
  if (result < 0) return;
  int fd = socket(is_ipv4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    job_fail(job, "socket", errno);
    return;
  }
  const void *address = is_ipv4 ? (const void *)&ipv4 : (const void *)&ipv6;
  if (connect(fd, address, is_ipv4 ? sizeof ipv4 : sizeof ipv6) < 0 && errno != EINPROGRESS) {
    job_fail(job, "connect", errno);
    close(fd);
    return;
  }
  job->result = fd;
  job->result_is_fd = true;
}

static napi_value js_connect_in_namespace(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, connect_in_namespace);
  job_take_string(job, 0, &args, 1);
  job_take_string(job, 1, &args, 2);
  if (job != NULL) job->numbers[0] = args_integer(&args, 3, 1, 65535);
  return job_start(job, &args);
}

/* strings: 0 namespace; numbers: 0 limit. A namespace that cannot be entered leaves the thread in the last one's. */
static void read_devices(struct job *one) {
  int network = open(one->strings[0], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (network < 0) {
    job_fail(one, "open", errno);
    return;
  }
  int result = setns(network, CLONE_NEWNET);
  if (result < 0) job_fail(one, "setns", errno);
  close(network);
  if (result < 0) return;
  int fd = open("/proc/thread-self/net/dev", O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    job_fail(one, "open", errno);
    return;
  }
  job_read_all(fd, (size_t)one->numbers[0], one);
  close(fd);
}

/* list: namespaces; numbers: 0 limit per namespace */
static void read_network_devices(struct job *job) {
  job->ends_thread = true;
  job_read_each(job, read_devices);
}

/* readNetworkDevices(token, [namespace path, …], limit): /proc/net/dev as each of them has it */
static napi_value js_read_network_devices(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, read_network_devices);
  job_take_list(job, &args, 1);
  if (job != NULL) job->numbers[0] = args_integer(&args, 2, 0, 1 << 24);
  return job_start(job, &args);
}

const struct entry namespace_job_entries[] = {
    {"pinNamespaces", js_pin_namespaces},
    {"unpinNamespace", js_unpin_namespace},
    {"connectInNamespace", js_connect_in_namespace},
    {"readNetworkDevices", js_read_network_devices},
    {NULL, NULL},
};
