#include <asm/unistd.h>

#include "helper.h"

size_t text_length(const char *text) {
  size_t length = 0;
  while (text[length] != '\0') length++;
  return length;
}

int text_equals(const char *left, const char *right) {
  while (*left != '\0' && *left == *right) {
    left++;
    right++;
  }
  return *left == *right;
}

char *put_number(char *place, unsigned long value) {
  char digits[24];
  size_t count = 0;
  do {
    digits[count++] = (char)('0' + value % 10);
    value /= 10;
  } while (value > 0);
  while (count > 0) *place++ = digits[--count];
  *place++ = '\0';
  return place;
}

char *put_text(char *place, const char *text) {
  do *place++ = *text;
  while (*text++ != '\0');
  return place;
}

unsigned long read_number(const char *text) {
  unsigned long value = 0;
  while (*text >= '0' && *text <= '9') value = value * 10 + (unsigned long)(*text++ - '0');
  return value;
}

int write_all(int fd, const char *bytes, size_t length) {
  while (length > 0) {
    long written = call3(__NR_write, fd, bytes, length);
    if (written < 0) return -1;
    bytes += written;
    length -= (size_t)written;
  }
  return 0;
}

int report_failure(const char *step, long error) {
  char line[128];
  char *end = put_text(put_number(line, (unsigned long)-error), step);
  write_all(1, line, (size_t)(end - line));
  return 1;
}

int run_command(int argc, char **argv) {
  if (argc == 2 && text_equals(argv[1], "pause")) return run_pause();
  if (argc == 3 && text_equals(argv[1], "umount")) return run_umount(argv[2]);
  if (argc == 2 && text_equals(argv[1], "resolve")) return run_resolve();
  if (argc == 4 && text_equals(argv[1], "tail")) return run_tail(argv[2], read_number(argv[3]));
  if (argc >= 3 && text_equals(argv[1], "relabel")) return run_relabel(argv[2], argv + 3);
  if (argc == 5 && text_equals(argv[1], "user-namespace")) return run_user_namespace(argv[2], argv[3], argv[4]);
  if (argc >= 6 && text_equals(argv[1], "pin")) return run_pin(argv + 2);
  if (argc == 2 && text_equals(argv[1], "relay")) return run_relay();
  if (argc >= 4 && text_equals(argv[1], "follow")) return run_follow(argv[2], argv + 3);
  static const char usage[] =
      "usage: berth-helper pause | umount TARGET | resolve | tail PATH MOST | relabel LABEL PATH... |\n"
      "  user-namespace TARGET UID-MAP GID-MAP | pin USER-NAMESPACE FOLDER KINDS HOSTNAME [SYSCTL VALUE]... |\n"
      "  relay | follow PID-FILE PROGRAM [ARGUMENT]...\n";
  write_all(2, usage, sizeof usage - 1);
  return 64;
}
