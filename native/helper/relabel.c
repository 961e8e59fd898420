/*
 * relabel LABEL PATH...: gives the paths and all below them a SELinux label, where their file system keeps labels. The
 * paths are real ones and no link is followed, since a container may be at work below. Answers, as it fails,
 * errno NUL call NUL path NUL.
 */
#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/limits.h>
#include <linux/openat2.h>

#include "helper.h"

enum {
  deepest = 1000, /* folders in each other; each takes a descriptor and some of the stack */
  entries_bytes = 4096,
  name_at = 19, /* in struct linux_dirent64 */
  path_only = 010000000,
  close_on_exec = 02000000,
  only_folders = O_DIRECTORY,
  no_follow = O_NOFOLLOW
};

static const char attribute[] = "security.selinux";

struct label {
  const char *text;
  size_t size; /* with the NUL, as libselinux has it */
};

static int is_labelled(const char *place, const struct label *label, long get) {
  char old[256];
  long size = call4(get, place, attribute, old, sizeof old - 1);
  if (size <= 0) return 0;
  old[size] = '\0';
  return text_equals(old, label->text);
}

/* The entry of an open folder, itself if it is a link; or, with an empty name, the open file. */
static long label_one(long folder, const char *name, const struct label *label) {
  char place[NAME_MAX + 64];
  char *end = put_number(put_text(place, "/proc/self/fd/") - 1, (unsigned long)folder);
  if (name[0] != '\0') {
    end[-1] = '/';
    put_text(end, name);
  }
  if (is_labelled(place, label, name[0] == '\0' ? __NR_getxattr : __NR_lgetxattr)) return 0;
  long set = name[0] == '\0' ? __NR_setxattr : __NR_lsetxattr;
  long result = call5(set, place, attribute, label->text, label->size, 0);
  return result == -EOPNOTSUPP || result == -ENOENT ? 0 : result;
}

static long label_below(long folder, const struct label *label, int depth);

static long label_entry(long folder, const char *name, const struct label *label, int depth) {
  long result = label_one(folder, name, label);
  if (result < 0) return result;
  long below = call4(__NR_openat, folder, name, only_folders | no_follow | close_on_exec, 0);
  if (below == -ENOTDIR || below == -ELOOP || below == -ENOENT) return 0;
  if (below < 0) return below;
  result = label_below(below, label, depth + 1);
  call1(__NR_close, below);
  return result;
}

static long label_below(long folder, const struct label *label, int depth) {
  if (depth > deepest) return -ENAMETOOLONG;
  char entries[entries_bytes] __attribute__((aligned(8)));
  for (;;) {
    long size = call3(__NR_getdents64, folder, entries, sizeof entries);
    if (size <= 0) return size == -ENOENT ? 0 : size; /* the folder went */
    for (long at = 0; at < size; at += *(unsigned short *)(entries + at + name_at - 3)) {
      const char *name = entries + at + name_at;
      if (text_equals(name, ".") || text_equals(name, "..")) continue;
      long result = label_entry(folder, name, label, depth);
      if (result < 0) return result;
    }
  }
}

static long label_tree(const char *path, const struct label *label) {
  struct open_how how = {
      .flags = path_only | close_on_exec,
      .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
  };
  long place = call4(__NR_openat2, AT_FDCWD, path, &how, sizeof how);
  if (place < 0) return place;
  long result = label_one(place, "", label);
  long folder = result < 0 ? -ENOTDIR : call4(__NR_openat, place, ".", only_folders | close_on_exec, 0);
  if (folder >= 0) {
    result = label_below(folder, label, 1);
    call1(__NR_close, folder);
  } else if (folder != -ENOTDIR) {
    result = folder;
  }
  call1(__NR_close, place);
  return result;
}

int run_relabel(const char *text, char **paths) {
  struct label label = {.text = text, .size = text_length(text) + 1};
  for (; *paths != NULL; paths++) {
    long result = label_tree(*paths, &label);
    if (result == 0) continue;
    report_failure("setxattr", result);
    write_all(1, *paths, text_length(*paths) + 1);
    return 1;
  }
  return 0;
}
