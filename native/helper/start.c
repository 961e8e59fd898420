/* What libc would bring: the entry, the system call, and the four functions the compiler may ask for. */
#include "helper.h"

#ifdef BERTH_HOSTED
#include <errno.h>
#include <unistd.h>

int main(int argc, char **argv) { return run_command(argc, argv); }

long system_call(long number, long a, long b, long c, long d, long e) {
  long result = syscall(number, a, b, c, d, e);
  return result < 0 ? -errno : result;
}

#else
#include <asm/unistd.h>

#if defined(__x86_64__)
__asm__(".globl _start\n"
        "_start:\n"
        "  xor %ebp, %ebp\n"
        "  mov %rsp, %rdi\n"
        "  and $-16, %rsp\n"
        "  call start_here\n");

long system_call(long number, long a, long b, long c, long d, long e) {
  register long fourth __asm__("r10") = d;
  register long fifth __asm__("r8") = e;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth)
                   : "rcx", "r11", "memory");
  return result;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n"
        "_start:\n"
        "  mov x29, xzr\n"
        "  mov x0, sp\n"
        "  b start_here\n");

long system_call(long number, long a, long b, long c, long d, long e) {
  register long name __asm__("x8") = number;
  register long first __asm__("x0") = a;
  register long second __asm__("x1") = b;
  register long third __asm__("x2") = c;
  register long fourth __asm__("x3") = d;
  register long fifth __asm__("x4") = e;
  __asm__ volatile("svc #0"
                   : "+r"(first)
                   : "r"(name), "r"(second), "r"(third), "r"(fourth), "r"(fifth)
                   : "memory");
  return first;
}
#else
#error "the helper knows the system calls of x86-64 and arm64 only"
#endif

void start_here(long *stack);
__attribute__((noreturn)) void start_here(long *stack) {
  int status = run_command((int)stack[0], (char **)(stack + 1));
  for (;;) call1(__NR_exit_group, status);
}

void *memset(void *place, int byte, size_t length);
void *memset(void *place, int byte, size_t length) {
  char *bytes = place;
  for (size_t i = 0; i < length; i++) {
    bytes[i] = (char)byte;
    __asm__ volatile("" ::: "memory"); /* or gcc turns the loop into a call of memset */
  }
  return place;
}

void *memcpy(void *place, const void *source, size_t length);
void *memcpy(void *place, const void *source, size_t length) {
  for (size_t i = 0; i < length; i++) {
    ((char *)place)[i] = ((const char *)source)[i];
    __asm__ volatile("" ::: "memory");
  }
  return place;
}
#endif
