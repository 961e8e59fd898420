/* Unix sockets that Node does not speak (SEQPACKET, descriptors as cargo), and inotify. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "berth.h"

enum { max_sent_fds = 16, max_message_bytes = 1 << 20 };

/*
 * A path too long for sun_path goes through its directory's descriptor, which the caller closes. A leading @ is systemd's
 * way to write an abstract name, whose length counts. Answers the address's length.
 */
static int make_address(const char *path, struct sockaddr_un *address, int *directory) {
  *directory = -1;
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  size_t length = strlen(path);
  if (length == 0) return -ENOENT;
  if (path[0] == '@') {
    if (length > sizeof address->sun_path) return -ENAMETOOLONG;
    memcpy(address->sun_path + 1, path + 1, length - 1);
    return (int)(offsetof(struct sockaddr_un, sun_path) + length);
  }
  if (length < sizeof address->sun_path) {
    memcpy(address->sun_path, path, length);
    return sizeof *address;
  }
  const char *slash = strrchr(path, '/');
  if (slash == NULL || slash == path) return -ENAMETOOLONG;
  char *parent = strndup(path, (size_t)(slash - path));
  if (parent == NULL) return -ENOMEM;
  *directory = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
  int error = errno;
  free(parent);
  if (*directory < 0) return -error;
  int written =
      snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/%s", *directory, slash + 1);
  if (written > 0 && (size_t)written < sizeof address->sun_path) return sizeof *address;
  close(*directory);
  return -ENAMETOOLONG;
}

static napi_value open_unix(napi_env env, napi_callback_info info, bool is_listening) {
  struct args args;
  args_read(&args, env, info);
  const char *path = args_string(&args, 0);
  int type = (int)args_integer(&args, 1, SOCK_STREAM, SOCK_SEQPACKET);
  if (args.error != 0) return args_answer(&args, 0);
  struct sockaddr_un address;
  int directory;
  int length = make_address(path, &address, &directory);
  if (length < 0) return args_answer(&args, length);
  int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int result = fd;
  const struct sockaddr *generic = (const struct sockaddr *)&address;
  if (fd >= 0 && is_listening) result = bind(fd, generic, (socklen_t)length);
  if (result >= 0 && is_listening && type != SOCK_DGRAM) result = listen(fd, 16);
  if (fd >= 0 && !is_listening) result = connect(fd, generic, (socklen_t)length);
  int error = errno;
  if (directory >= 0) close(directory);
  if (result >= 0) return args_answer(&args, fd);
  if (fd >= 0) close(fd);
  return args_answer(&args, -error);
}

static napi_value js_connect_unix(napi_env env, napi_callback_info info) { return open_unix(env, info, false); }
static napi_value js_listen_unix(napi_env env, napi_callback_info info) { return open_unix(env, info, true); }

static napi_value js_accept(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int fd = args_fd(&args, 0);
  if (args.error != 0) return args_answer(&args, 0);
  return args_answer(&args, result_of(accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)));
}

/* socketPair(type): [a, b], a stream blocking as a child expects it, packets not. */
static napi_value js_socket_pair(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int type = (int)args_integer(&args, 0, SOCK_STREAM, SOCK_SEQPACKET);
  int fds[2];
  if (args.error != 0) return args_answer(&args, 0);
  int flags = type == SOCK_STREAM ? SOCK_CLOEXEC : SOCK_CLOEXEC | SOCK_NONBLOCK;
  if (socketpair(AF_UNIX, type | flags, 0, fds) < 0) return args_answer(&args, -errno);
  napi_value answer;
  napi_create_array_with_length(env, 2, &answer);
  napi_set_element(env, answer, 0, make_integer(env, fds[0]));
  napi_set_element(env, answer, 1, make_integer(env, fds[1]));
  return args_answer_value(&args, answer);
}

/* send(fd, bytes): one message, never waits, never raises SIGPIPE. */
static napi_value js_send(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int fd = args_fd(&args, 0);
  size_t length;
  const uint8_t *bytes = args_bytes(&args, 1, &length);
  if (args.error != 0) return args_answer(&args, 0);
  const void *data = length > 0 ? (const void *)bytes : "";
  return args_answer(&args, result_of(send(fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL)));
}

/* shutdownWrite(fd): the other side reads end-of-file, this side goes on reading. */
static napi_value js_shutdown_write(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int fd = args_fd(&args, 0);
  if (args.error != 0) return args_answer(&args, 0);
  return args_answer(&args, result_of(shutdown(fd, SHUT_WR)));
}

static napi_value js_send_fds(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int fd = args_fd(&args, 0);
  size_t count, length;
  int *fds = args_fd_list(&args, 1, &count);
  const uint8_t *bytes = args_bytes(&args, 2, &length);
  int64_t result = args.error;
  if (result == 0 && (count == 0 || count > max_sent_fds || length == 0)) result = -EINVAL;
  if (result == 0) {
    union {
      struct cmsghdr header;
      char space[CMSG_SPACE(max_sent_fds * sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control};
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    result = result_of(sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL));
  }
  free(fds);
  return args_answer(&args, result);
}

static uint32_t collect_fds(napi_env env, struct msghdr *message, napi_value list) {
  uint32_t count = 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL; header = CMSG_NXTHDR(message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t bytes = header->cmsg_len - CMSG_LEN(0);
    for (size_t at = 0; at + sizeof(int) <= bytes; at += sizeof(int)) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + at, sizeof fd);
      napi_set_element(env, list, count++, make_integer(env, fd));
    }
  }
  return count;
}

/* recvFds(fd, limit): [bytes, fds] or -errno. The bytes are empty at the end of the stream. */
static napi_value js_recv_fds(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int fd = args_fd(&args, 0);
  size_t limit = (size_t)args_integer(&args, 1, 1, max_message_bytes);
  if (args.error != 0) return args_answer(&args, 0);
  char *buffer = malloc(limit);
  if (buffer == NULL) return args_answer(&args, -ENOMEM);
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(max_sent_fds * sizeof(int))];
  } control;
  struct iovec part = {.iov_base = buffer, .iov_len = limit};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t length = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (length < 0) {
    int error = errno;
    free(buffer);
    return args_answer(&args, -error);
  }
  napi_value answer, list;
  napi_create_array(env, &list);
  collect_fds(env, &message, list);
  napi_create_array_with_length(env, 2, &answer);
  napi_set_element(env, answer, 0, make_bytes(env, buffer, (size_t)length));
  napi_set_element(env, answer, 1, list);
  free(buffer);
  return args_answer_value(&args, answer);
}

/* socketError(fd): how a connection attempt ended, 0 or -errno. */
static napi_value js_socket_error(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int fd = args_fd(&args, 0);
  int error = 0;
  socklen_t size = sizeof error;
  if (args.error != 0) return args_answer(&args, 0);
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0) return args_answer(&args, -errno);
  return args_answer(&args, -error);
}

static napi_value js_inotify_open(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  const char *path = args_string(&args, 0);
  uint32_t mask = (uint32_t)args_integer(&args, 1, 1, UINT32_MAX);
  if (args.error != 0) return args_answer(&args, 0);
  int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (fd < 0) return args_answer(&args, -errno);
  if (inotify_add_watch(fd, path, mask) >= 0) return args_answer(&args, fd);
  int error = errno;
  close(fd);
  return args_answer(&args, -error);
}

const struct entry socket_entries[] = {
    {"connectUnix", js_connect_unix}, {"listenUnix", js_listen_unix},
    {"accept", js_accept},            {"socketPair", js_socket_pair},
    {"send", js_send},                {"sendFds", js_send_fds},
    {"shutdownWrite", js_shutdown_write},
    {"recvFds", js_recv_fds},         {"socketError", js_socket_error},
    {"inotifyOpen", js_inotify_open}, {NULL, NULL},
};
