/*
 * The helper does what may hang on somebody's path, or needs a process with one thread. It is also the pause process of
 * a pod that shares its PID namespace, of which a node runs hundreds: so no libc, a few kilobytes, one page of data.
 */
#ifndef BERTH_HELPER_H
#define BERTH_HELPER_H

#include <linux/types.h>
#include <stddef.h>
#include <stdint.h>

/* Answers a value or -errno. */
long system_call(long number, long a, long b, long c, long d, long e);
#define call0(number) system_call(number, 0, 0, 0, 0, 0)
#define call1(number, a) system_call(number, (long)(a), 0, 0, 0, 0)
#define call2(number, a, b) system_call(number, (long)(a), (long)(b), 0, 0, 0)
#define call3(number, a, b, c) system_call(number, (long)(a), (long)(b), (long)(c), 0, 0)
#define call4(number, a, b, c, d) system_call(number, (long)(a), (long)(b), (long)(c), (long)(d), 0)
#define call5(number, a, b, c, d, e) system_call(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

size_t text_length(const char *text);
int text_equals(const char *left, const char *right);
/* Writes the decimal digits and a NUL; answers the place after the NUL. */
char *put_number(char *place, unsigned long value);
char *put_text(char *place, const char *text);
unsigned long read_number(const char *text);
int write_all(int fd, const char *bytes, size_t length);
/* Tells the parent "errno NUL call NUL" and answers the exit status to end with. */
int report_failure(const char *step, long error);

int run_pause(void);
int run_umount(const char *target);
int run_resolve(void);
int run_tail(const char *path, unsigned long most);
int run_relabel(const char *label, char **paths);
int run_user_namespace(const char *target, const char *uid_map, const char *gid_map);
int run_pin(char **argv);
int run_relay(void);
int run_follow(const char *pid_file, char **argv);
int run_command(int argc, char **argv);

#endif
