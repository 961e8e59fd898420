/*
 * Deletes a tree without following a symbolic link and without entering another mount. The depth of the tree is
 * somebody else's choice, so the walk holds one descriptor and goes back up by "..", checking that it is the
 * directory it came from.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "berth.h"

enum { entry_buffer_bytes = 32 * 1024, max_rounds = 16 };

struct entry_record { /* struct linux_dirent64 */
  uint64_t inode;
  int64_t offset;
  unsigned short length;
  unsigned char type;
  char name[];
};

/* A directory on the way down: who it is, and which of its folders are still to be emptied. */
struct level {
  dev_t device;
  ino_t inode;
  char *names; /* NUL-separated */
  size_t used, capacity, next;
  int rounds;
};

struct walk {
  struct level *levels;
  size_t depth, capacity;
  char *buffer;
  const char *step;
};

static int64_t fail(struct walk *walk, const char *step) {
  walk->step = step;
  return -errno;
}

static int open_below(int directory, const char *name) {
  struct open_how how;
  memset(&how, 0, sizeof how);
  how.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS;
  return (int)syscall(SYS_openat2, directory, name, &how, sizeof how);
}

static bool remember(struct level *level, const char *name) {
  size_t length = strlen(name) + 1;
  if (level->used + length > level->capacity) {
    size_t capacity = level->capacity * 2 + length + 256;
    char *larger = realloc(level->names, capacity);
    if (larger == NULL) return false;
    level->names = larger;
    level->capacity = capacity;
  }
  memcpy(level->names + level->used, name, length);
  level->used += length;
  return true;
}

/* Unlinks what can be unlinked at once; folders that are not empty are remembered. */
static int64_t remove_entry(struct walk *walk, int directory, struct level *level, const struct entry_record *entry) {
  if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0) return 0;
  bool is_folder = entry->type == DT_DIR;
  if (!is_folder) {
    if (unlinkat(directory, entry->name, 0) == 0 || errno == ENOENT) return 0;
    if (errno != EISDIR && !(errno == EPERM && entry->type == DT_UNKNOWN)) return fail(walk, "unlink");
  }
  if (unlinkat(directory, entry->name, AT_REMOVEDIR) == 0 || errno == ENOENT) return 0;
  if (errno != ENOTEMPTY && errno != EEXIST) return fail(walk, "rmdir");
  if (remember(level, entry->name)) return 0;
  errno = ENOMEM;
  return fail(walk, "rmdir");
}

static int64_t scan(struct walk *walk, int directory, struct level *level) {
  level->used = level->next = 0;
  if (lseek(directory, 0, SEEK_SET) < 0) return fail(walk, "lseek");
  for (;;) {
    long count = syscall(SYS_getdents64, directory, walk->buffer, entry_buffer_bytes);
    if (count < 0) return fail(walk, "getdents");
    if (count == 0) return 0;
    for (long at = 0; at < count;) {
      const struct entry_record *entry = (const struct entry_record *)(walk->buffer + at);
      int64_t result = remove_entry(walk, directory, level, entry);
      if (result < 0) return result;
      at += entry->length;
    }
  }
}

static int64_t enter(struct walk *walk, int directory) {
  struct stat status;
  if (fstat(directory, &status) < 0) return fail(walk, "fstat");
  if (walk->depth == walk->capacity) {
    size_t capacity = walk->capacity * 2 + 16;
    struct level *larger = realloc(walk->levels, capacity * sizeof *larger);
    if (larger == NULL) {
      errno = ENOMEM;
      return fail(walk, "open");
    }
    walk->levels = larger;
    walk->capacity = capacity;
  }
  struct level *level = &walk->levels[walk->depth++];
  memset(level, 0, sizeof *level);
  level->device = status.st_dev;
  level->inode = status.st_ino;
  return scan(walk, directory, level);
}

static int64_t leave(struct walk *walk, int *directory) {
  free(walk->levels[--walk->depth].names);
  const struct level *above = &walk->levels[walk->depth - 1];
  int parent = open_below(*directory, "..");
  if (parent < 0) return fail(walk, "open");
  close(*directory);
  *directory = parent;
  struct stat status;
  if (fstat(parent, &status) < 0) return fail(walk, "fstat");
  if (status.st_dev == above->device && status.st_ino == above->inode) return 0;
  errno = ESTALE; /* moved away under our feet */
  return fail(walk, "open");
}

/* One step: empty the next remembered folder of the current directory, or go back up. */
static int64_t advance(struct walk *walk, int *directory) {
  struct level *level = &walk->levels[walk->depth - 1];
  if (level->next == level->used) {
    if (walk->depth == 1) return 0;
    return leave(walk, directory);
  }
  const char *name = level->names + level->next;
  if (unlinkat(*directory, name, AT_REMOVEDIR) == 0 || errno == ENOENT) {
    level->next += strlen(name) + 1;
    level->rounds = 0;
    return 0;
  }
  if (errno != ENOTEMPTY && errno != EEXIST) return fail(walk, "rmdir");
  if (++level->rounds > max_rounds) return fail(walk, "rmdir"); /* somebody keeps filling it */
  int below = open_below(*directory, name);
  if (below < 0) return fail(walk, "open");
  close(*directory);
  *directory = below;
  return enter(walk, below);
}

static int64_t empty_directory(struct walk *walk, int *directory) {
  int64_t result = enter(walk, *directory);
  while (result == 0 && !(walk->depth == 1 && walk->levels[0].next == walk->levels[0].used))
    result = advance(walk, directory);
  while (walk->depth > 0) free(walk->levels[--walk->depth].names);
  return result;
}

static int64_t remove_folder(int parent, const char *name, const char **step) {
  struct walk walk = {.buffer = malloc(entry_buffer_bytes)};
  int directory = open_below(parent, name);
  int64_t result = 0;
  if (walk.buffer == NULL) errno = ENOMEM;
  if (directory < 0 || walk.buffer == NULL) result = fail(&walk, "open");
  if (result == 0) result = empty_directory(&walk, &directory);
  if (result == 0 && unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT) result = fail(&walk, "rmdir");
  if (directory >= 0) close(directory);
  free(walk.levels);
  free(walk.buffer);
  *step = walk.step;
  return result;
}

/* path: absolute, without a trailing slash. Something absent is a success. */
int64_t remove_tree(const char *path, const char **step) {
  const char *slash = strrchr(path, '/');
  *step = "open";
  if (path[0] != '/' || slash[1] == '\0') return -EINVAL;
  char *folder = strndup(path, slash == path ? 1 : (size_t)(slash - path));
  if (folder == NULL) return -ENOMEM;
  int parent = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int error = errno;
  free(folder);
  if (parent < 0) return error == ENOENT ? 0 : -error;
  const char *name = slash + 1;
  int64_t result = 0;
  if (unlinkat(parent, name, 0) < 0 && errno != ENOENT) {
    *step = "unlink";
    result = errno == EISDIR ? remove_folder(parent, name, step) : -errno;
  }
  close(parent);
  return result;
}
