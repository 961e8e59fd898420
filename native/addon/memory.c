/* Memory that nobody uses goes back to the kernel. */
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "berth.h"

/* One mapping as /proc/self/smaps tells of it. */
struct mapping {
  unsigned long start, end;
  bool is_program;       /* of the running program's file, and not writable */
  unsigned long changed; /* KiB that are no longer the file's */
};

/* The head of a mapping: start-end permissions offset device inode path. */
static bool read_head(const char *line, const char *program, struct mapping *mapping) {
  struct mapping head = {0, 0, false, 0};
  char permissions[5];
  int path = 0;
  if (sscanf(line, "%lx-%lx %4s %*s %*s %*s %n", &head.start, &head.end, permissions, &path) != 3 || path == 0)
    return false;
  size_t length = strlen(program);
  head.is_program = strchr(permissions, 'w') == NULL && permissions[3] == 'p' &&
                    strncmp(line + path, program, length) == 0 && line[path + length] == '\n';
  *mapping = head;
  return true;
}

/*
 * Unmaps the pages of the program's own file. They stay in the page cache, and those that are needed are mapped again
 * when they are touched, while what only the start needed is not. Pages that were written (relocations) are kept.
 */
static void drop_program_pages(void) {
  char program[PATH_MAX];
  ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  FILE *smaps = length < 0 ? NULL : fopen("/proc/self/smaps", "re");
  if (smaps == NULL) return;
  program[length] = '\0';
  char line[PATH_MAX + 128];
  struct mapping mapping = {0, 0, false, 0};
  while (fgets(line, sizeof line, smaps) != NULL) {
    unsigned long kibibytes;
    if (read_head(line, program, &mapping)) continue;
    if (sscanf(line, "Anonymous: %lu", &kibibytes) == 1 || sscanf(line, "Swap: %lu", &kibibytes) == 1)
      mapping.changed += kibibytes;
    else if (strncmp(line, "VmFlags:", 8) == 0 && mapping.is_program && mapping.changed == 0) /* a mapping's last line */
      madvise((void *)mapping.start, mapping.end - mapping.start, MADV_DONTNEED);
  }
  fclose(smaps);
}

static void release_memory(struct job *job) {
  (void)job;
#ifdef __GLIBC__
  malloc_trim(0);
#endif
  drop_program_pages();
}

static napi_value js_release_memory(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  return job_start(job_create(&args, release_memory), &args);
}

const struct entry memory_entries[] = {{"releaseMemory", js_release_memory}, {NULL, NULL}};
