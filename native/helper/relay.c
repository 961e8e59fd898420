/*
 * relay: stands between a monitor (descriptor 0) and the daemon (1), both SEQPACKET sockets. The monitor writes to
 * whoever is attached and waits, and its container with it: so its output is always taken here. A daemon that does not
 * take it (stopped, stuck) while the buffer is full is dropped. Ends with either side.
 */
#include <asm/poll.h>
#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/time.h>

#include "helper.h"

enum {
  monitor = 0,
  daemon = 1,
  header_bytes = 4,
  max_packet_bytes = 64 << 10,
  record_bytes = header_bytes + max_packet_bytes,
  buffer_bytes = 4 << 20,
  dont_wait = 0x40 | 0x4000 /* MSG_DONTWAIT | MSG_NOSIGNAL */,
  shut_write = 1,
  packets_per_turn = 64,
  /* how long a full buffer may hold up the container before the daemon counts as stuck */
  patience_ms = 1000,
  /* how long input that a leaving daemon left behind is still offered to the monitor */
  farewell_ms = 10000,
  dropped_status = 75
};

/* Packets in order, each behind its size; none lies across the end. Empty, it starts over: few pages are ever touched. */
static unsigned char buffer[buffer_bytes];
static size_t head, tail, wrap;
static int is_wrapped;

static unsigned char input[max_packet_bytes];

struct state {
  size_t input_length;
  int has_input_ended;
  int has_monitor_ended;
  int is_daemon_gone;
  int is_waiting;
  long long waiting_since_ms;
};

static long long now_ms(void) {
  struct {
    long seconds, nanoseconds;
  } now = {0, 0};
  call2(__NR_clock_gettime, CLOCK_MONOTONIC, &now);
  return (long long)now.seconds * 1000 + now.nanoseconds / 1000000;
}

static int has_room(void) {
  if (is_wrapped) return tail + record_bytes <= head;
  return tail + record_bytes <= buffer_bytes || record_bytes <= head;
}

static int has_output(void) { return is_wrapped || head != tail; }

static unsigned char *next_record(void) {
  if (!is_wrapped && tail + record_bytes > buffer_bytes) {
    wrap = tail;
    tail = 0;
    is_wrapped = 1;
  }
  return buffer + tail;
}

static void put_size(unsigned char *place, size_t size) {
  for (int i = 0; i < header_bytes; i++) place[i] = (unsigned char)(size >> (8 * i));
}

static size_t read_size(const unsigned char *place) {
  size_t size = 0;
  for (int i = 0; i < header_bytes; i++) size |= (size_t)place[i] << (8 * i);
  return size;
}

static void forget_record(size_t size) {
  head += header_bytes + size;
  if (is_wrapped && head == wrap) {
    head = 0;
    is_wrapped = 0;
  }
  if (!is_wrapped && head == tail) head = tail = 0;
}

static void take_output(struct state *state) {
  for (int count_left = packets_per_turn; count_left > 0 && has_room(); count_left--) {
    unsigned char *record = next_record();
    long count = call5(__NR_recvfrom, monitor, record + header_bytes, max_packet_bytes, dont_wait, 0);
    if (count == -EAGAIN || count == -EINTR) return;
    if (count <= 0) {
      state->has_monitor_ended = 1;
      return;
    }
    if (state->is_daemon_gone) continue;
    put_size(record, (size_t)count);
    tail += header_bytes + (size_t)count;
  }
}

static void leave_daemon(struct state *state) {
  state->is_daemon_gone = 1;
  state->is_waiting = 0;
  head = tail = 0;
  is_wrapped = 0;
}

static void give_output(struct state *state) {
  while (has_output()) {
    const unsigned char *record = buffer + head;
    size_t size = read_size(record);
    long sent = call5(__NR_sendto, daemon, record + header_bytes, size, dont_wait, 0);
    if (sent == -EAGAIN || sent == -EINTR) return;
    if (sent < 0) {
      leave_daemon(state);
      return;
    }
    state->is_waiting = 0;
    forget_record(size);
  }
}

static void take_input(struct state *state) {
  long count = call5(__NR_recvfrom, daemon, input, max_packet_bytes, dont_wait, 0);
  if (count == -EAGAIN || count == -EINTR) return;
  if (count > 0) {
    state->input_length = (size_t)count;
    return;
  }
  state->has_input_ended = 1;
  if (!state->is_daemon_gone) call2(__NR_shutdown, monitor, shut_write);
}

static void give_input(struct state *state) {
  long sent = call5(__NR_sendto, monitor, input, state->input_length, dont_wait, 0);
  if (sent == -EAGAIN || sent == -EINTR) return;
  state->input_length = 0; /* a monitor that takes no more says so when it is read */
}

/* The daemon has until then to take something, or input until then to be taken; -1 waits for ever. */
static long wait_ms(const struct state *state) {
  if (!state->is_waiting) return -1;
  long long left = state->waiting_since_ms + (state->is_daemon_gone ? farewell_ms : patience_ms) - now_ms();
  return left > 0 ? (long)left : 0;
}

static long wait_for_events(const struct state *state, struct pollfd *ends) {
  ends[0] = (struct pollfd){.fd = monitor};
  ends[1] = (struct pollfd){.fd = daemon};
  if (has_room() && !state->has_monitor_ended) ends[0].events |= POLLIN;
  if (state->input_length > 0 && !state->has_monitor_ended) ends[0].events |= POLLOUT;
  if (state->input_length == 0 && !state->has_input_ended) ends[1].events |= POLLIN;
  if (has_output()) ends[1].events |= POLLOUT;
  if (ends[0].events == 0) ends[0].fd = -1; /* a hang-up is reported to who asks for nothing, again and again */
  if (state->is_daemon_gone && ends[1].events == 0) ends[1].fd = -1;
  long left = wait_ms(state);
  struct {
    long seconds, nanoseconds;
  } limit = {left / 1000, left % 1000 * 1000000};
  return call5(__NR_ppoll, ends, 2, left < 0 ? NULL : &limit, NULL, 0);
}

static void begin_waiting(struct state *state) {
  int is_full = !has_room() && !state->has_monitor_ended;
  if ((is_full || state->is_daemon_gone) && !state->is_waiting) state->waiting_since_ms = now_ms();
  state->is_waiting = is_full || state->is_daemon_gone;
}

static int is_over(const struct state *state) {
  if (state->has_monitor_ended) return state->is_daemon_gone || !has_output();
  return state->is_daemon_gone && state->has_input_ended && state->input_length == 0;
}

int run_relay(void) {
  struct state state = {0};
  while (!is_over(&state)) {
    struct pollfd ends[2];
    begin_waiting(&state);
    if (wait_ms(&state) == 0) return state.is_daemon_gone ? 0 : dropped_status;
    long ready = wait_for_events(&state, ends);
    if (ready < 0 && ready != -EINTR) return 1;
    if (ready <= 0) continue;
    if ((ends[1].revents & (POLLHUP | POLLERR)) != 0 && !state.is_daemon_gone) leave_daemon(&state);
    if ((ends[1].revents & POLLOUT) != 0 && !state.is_daemon_gone) give_output(&state);
    if ((ends[1].revents & POLLIN) != 0) take_input(&state);
    if (state.input_length > 0 && !state.has_monitor_ended) give_input(&state);
    if (ends[0].revents != 0 && (ends[0].events & POLLIN) != 0) take_output(&state);
  }
  return 0;
}
