/*
 * Deletes or measures a tree without following a symbolic link and without entering another mount. The depth of the
 * tree is somebody else's choice, so the walk holds one descriptor and goes back up by "..", checking that it is the
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

/* A directory on the way down: who it is, and which of its folders are still to be entered. */
struct level {
  dev_t device;
  ino_t inode;
  char *names; /* NUL-separated */
  size_t used, capacity, next;
  int rounds;
};

struct walk {
  /* Once per entry of a directory but "." and ".."; may remember it as a folder to enter. */
  int64_t (*visit)(struct walk *walk, int directory, struct level *level, const struct entry_record *entry);
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

static int64_t scan(struct walk *walk, int directory, struct level *level) {
  level->used = level->next = 0;
  if (lseek(directory, 0, SEEK_SET) < 0) return fail(walk, "lseek");
  for (;;) {
    long count = syscall(SYS_getdents64, directory, walk->buffer, entry_buffer_bytes);
    if (count < 0) return fail(walk, "getdents");
    if (count == 0) return 0;
    for (long at = 0; at < count;) {
      const struct entry_record *entry = (const struct entry_record *)(walk->buffer + at);
      at += entry->length;
      if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0) continue;
      int64_t result = walk->visit(walk, directory, level, entry);
      if (result < 0) return result;
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

static int64_t descend(struct walk *walk, int *directory, int below) {
  close(*directory);
  *directory = below;
  return enter(walk, below);
}

/* Enters a directory and all below it; `advance` takes the next remembered folder of the current one. */
static int64_t go(struct walk *walk, int *directory, int64_t (*advance)(struct walk *walk, int *directory)) {
  walk->buffer = malloc(entry_buffer_bytes);
  if (walk->buffer == NULL) errno = ENOMEM;
  int64_t result = walk->buffer == NULL ? fail(walk, "open") : enter(walk, *directory);
  while (result == 0 && !(walk->depth == 1 && walk->levels[0].next == walk->levels[0].used)) {
    struct level *level = &walk->levels[walk->depth - 1];
    result = level->next == level->used ? leave(walk, directory) : advance(walk, directory);
  }
  while (walk->depth > 0) free(walk->levels[--walk->depth].names);
  free(walk->levels);
  free(walk->buffer);
  return result;
}

/* Unlinks what can be unlinked at once; folders that are not empty are remembered. */
static int64_t remove_entry(struct walk *walk, int directory, struct level *level, const struct entry_record *entry) {
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

static int64_t empty_next(struct walk *walk, int *directory) {
  struct level *level = &walk->levels[walk->depth - 1];
  const char *name = level->names + level->next;
  if (unlinkat(*directory, name, AT_REMOVEDIR) == 0 || errno == ENOENT) {
    level->next += strlen(name) + 1;
    level->rounds = 0;
    return 0;
  }
  if (errno != ENOTEMPTY && errno != EEXIST) return fail(walk, "rmdir");
  if (++level->rounds > max_rounds) return fail(walk, "rmdir"); /* somebody keeps filling it */
  int below = open_below(*directory, name);
  return below < 0 ? fail(walk, "open") : descend(walk, directory, below);
}

static int64_t remove_folder(int parent, const char *name, const char **step) {
  struct walk walk = {.visit = remove_entry};
  int directory = open_below(parent, name);
  int64_t result = directory < 0 ? fail(&walk, "open") : go(&walk, &directory, empty_next);
  if (result == 0 && unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT) result = fail(&walk, "rmdir");
  if (directory >= 0) close(directory);
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

/* Inodes with several names, of which only the first counts: open addressing, 0 is a free slot. */
struct links {
  ino_t *slots;
  size_t capacity, used;
};

struct measurement {
  struct walk walk;
  struct links links;
  struct tree_size size;
};

static void place_link(struct links *links, ino_t inode) {
  size_t slot = inode % links->capacity;
  while (links->slots[slot] != 0) slot = (slot + 1) % links->capacity;
  links->slots[slot] = inode;
  links->used++;
}

/* 1 if it was not there yet, else 0; -1 without memory. */
static int add_link(struct links *links, ino_t inode) {
  if (2 * (links->used + 1) > links->capacity) {
    struct links larger = {.capacity = links->capacity * 2 + 61};
    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    if (larger.slots == NULL) return -1;
    for (size_t i = 0; i < links->capacity; i++)
      if (links->slots[i] != 0) place_link(&larger, links->slots[i]);
    free(links->slots);
    *links = larger;
  }
  for (size_t slot = inode % links->capacity; links->slots[slot] != 0; slot = (slot + 1) % links->capacity)
    if (links->slots[slot] == inode) return 0;
  place_link(links, inode);
  return 1;
}

static void count(struct tree_size *size, const struct stat *status) {
  size->blocks += (uint64_t)status->st_blocks;
  size->inodes++;
}

static int64_t measure_entry(struct walk *walk, int directory, struct level *level, const struct entry_record *entry) {
  struct measurement *measurement = (struct measurement *)walk; /* its first member */
  struct stat status;
  if (fstatat(directory, entry->name, &status, AT_SYMLINK_NOFOLLOW) < 0) return 0; /* gone meanwhile */
  if (S_ISDIR(status.st_mode)) {
    if (remember(level, entry->name)) return 0; /* counted when it is entered */
    errno = ENOMEM;
    return fail(walk, "stat");
  }
  int is_first = status.st_nlink > 1 ? add_link(&measurement->links, status.st_ino) : 1;
  if (is_first < 0) return fail(walk, "stat");
  if (is_first) count(&measurement->size, &status);
  return 0;
}

static bool measure_directory(struct measurement *measurement, int directory) {
  struct stat status;
  if (fstat(directory, &status) < 0) return false;
  count(&measurement->size, &status);
  return true;
}

static int64_t measure_next(struct walk *walk, int *directory) {
  struct level *level = &walk->levels[walk->depth - 1];
  const char *name = level->names + level->next;
  level->next += strlen(name) + 1;
  int below = open_below(*directory, name);
  if (below < 0) return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? fail(walk, "open") : 0;
  if (!measure_directory((struct measurement *)walk, below)) {
    int64_t result = fail(walk, "fstat");
    close(below);
    return result;
  }
  return descend(walk, directory, below);
}

/* Blocks of 512 bytes and inodes of a directory and all below it, as du counts them. Something absent has none. */
int64_t measure_tree(const char *path, struct tree_size *size, const char **step) {
  struct measurement measurement = {.walk = {.visit = measure_entry}};
  int directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  *step = "open";
  if (directory < 0) return errno == ENOENT ? 0 : -errno;
  int64_t result = measure_directory(&measurement, directory) ? go(&measurement.walk, &directory, measure_next)
                                                              : fail(&measurement.walk, "fstat");
  close(directory);
  free(measurement.links.slots);
  *size = measurement.size;
  *step = measurement.walk.step;
  return result;
}
