/* A web server for tests: webserver PORT PIDFILE [ANYTHING]. Answers every request with one page; says each on stdout. */
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char response[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 16\r\nConnection: close\r\n\r\n<h1>It works</h1";

static void end(int signal) { _exit(signal == SIGTERM || signal == SIGQUIT ? 0 : 1); }

static void serve(int client) {
  char request[4096];
  ssize_t length = read(client, request, sizeof request - 1);
  if (length > 0) {
    request[length] = 0;
    request[strcspn(request, "\r\n")] = 0;
    printf("%s\n", request);
    if (write(client, response, sizeof response - 1) < 0) perror("write");
  }
  shutdown(client, SHUT_WR);
  while (read(client, request, sizeof request) > 0) continue;
  close(client);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  signal(SIGTERM, end);
  signal(SIGQUIT, end);
  signal(SIGINT, end);
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stdout, NULL, _IOLBF, 0);
  FILE *pid_file = fopen(argv[2], "w");
  if (pid_file) {
    fprintf(pid_file, "%d\n", (int)getpid());
    fclose(pid_file);
  }
  /* Both families on one socket, as the servers that this one stands for. */
  struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((unsigned short)atoi(argv[1]))};
  int zero = 0, one = 1, listener = socket(AF_INET6, SOCK_STREAM, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) {
    perror(argv[0]);
    return 1;
  }
  const char *name = strrchr(argv[0], '/');
  printf("%s: resuming normal operations\n", name ? name + 1 : argv[0]);
  for (;;) {
    int client = accept(listener, NULL, NULL);
    if (client >= 0) serve(client);
  }
}
