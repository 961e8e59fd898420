/* Says whether set-uid took effect: prints 0 for an ordinary process, the caller's own id under no_new_privs. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
  printf("Effective uid: %d\n", (int)geteuid());
  return 0;
}
