/* PID 1 of a pod's PID namespace: reaps what is orphaned there, ends on SIGTERM or SIGINT. */
#include <asm/signal.h>
#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/wait.h>

#include "helper.h"

int run_pause(void) {
  /* Blocked signals queue up even for PID 1, which otherwise never sees one without a handler. */
  uint64_t wanted = 1ULL << (SIGTERM - 1) | 1ULL << (SIGINT - 1) | 1ULL << (SIGCHLD - 1);
  call4(__NR_rt_sigprocmask, SIG_BLOCK, &wanted, 0, sizeof wanted);
  for (;;) {
    while (call4(__NR_wait4, -1, 0, WNOHANG, 0) > 0) continue;
    long number = call4(__NR_rt_sigtimedwait, &wanted, 0, 0, sizeof wanted);
    if (number == SIGTERM || number == SIGINT) return 0;
    if (number < 0 && number != -EINTR && number != -EAGAIN) return 1;
  }
}
