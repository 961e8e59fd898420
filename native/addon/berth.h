/*
 * The machine, as JavaScript sees it. Rules of this addon:
 *  - every entry answers -errno instead of throwing, and refuses any argument of the wrong type with -EINVAL;
 *  - nothing runs on libuv's thread pool: what may take long is a job, for which there is always a thread;
 *  - every descriptor is made close-on-exec;
 *  - all state hangs on one struct instance per Node environment, so that workers may load it too.
 */
#ifndef BERTH_H
#define BERTH_H

#include <errno.h>
#include <node_api.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { max_job_strings = 6, max_job_numbers = 8, max_jobs = 64, job_stack_bytes = 256 * 1024 };

/* One Node environment (the main thread or a worker). Freed when the environment, its poller and its last job are gone. */
struct instance {
  pthread_mutex_t lock;
  int references;
  int running_jobs;
  bool is_closing;
  bool has_poller;
  int nice_value; /* of who waits for our locks */
  struct job *waiting; /* jobs that a thread at rest is to take */
  int resting;         /* threads that are at rest and have not been given one of those */
  sem_t given;         /* one for each job in `waiting` */
  int epoll_fd;
  int wake_fd;
  pthread_t poller;
  napi_threadsafe_function deliver;
};

/* Work that holds nobody up but its own thread. Inputs are copies; the thread fills in result, step and output. */
struct job {
  struct instance *instance;
  uint32_t token;
  void (*work)(struct job *job);
  struct job *next;
  bool ends_thread; /* the work leaves its thread unfit for any other, in another namespace say */
  char *strings[max_job_strings];
  int64_t numbers[max_job_numbers];
  char **list;
  size_t list_length;
  uint8_t *data;
  size_t data_length;

  int64_t result;      /* >= 0, or -errno */
  const char *step;    /* name of the call that failed */
  bool result_is_fd;   /* close it if nobody is left to take it */
  uint8_t *output;
  size_t output_length;
};

/* Arguments of one call, checked as they are read; after a bad one every further read is harmless. */
struct args {
  napi_env env;
  struct instance *instance;
  size_t count;
  napi_value values[12];
  int error; /* 0 or the -errno to answer */
  size_t held;
  char *owned[16];
  size_t arena_used;
  char arena[8192];
};

void args_read(struct args *args, napi_env env, napi_callback_info info);
int64_t args_integer(struct args *args, size_t index, int64_t lowest, int64_t highest);
int args_fd(struct args *args, size_t index);
int args_directory_fd(struct args *args, size_t index); /* also AT_FDCWD */
const char *args_string(struct args *args, size_t index);
bool args_is_null(struct args *args, size_t index);
/* Points into JavaScript memory: read it last, use it before returning to JavaScript. */
const uint8_t *args_bytes(struct args *args, size_t index, size_t *length);
/* A NULL-terminated list, owned by the caller. */
char **args_string_list(struct args *args, size_t index, size_t *length);
int *args_fd_list(struct args *args, size_t index, size_t *length);
void free_string_list(char **list);
napi_value args_answer(struct args *args, int64_t result);
napi_value args_answer_value(struct args *args, napi_value value);
napi_value make_integer(napi_env env, int64_t value);
napi_value make_bytes(napi_env env, const void *bytes, size_t length);

static inline int64_t result_of(int64_t value) { return value < 0 ? -errno : value; }

/* events.c */
struct instance *instance_create(napi_env env);
void instance_release(struct instance *instance);
napi_value js_start(napi_env env, napi_callback_info info);
napi_value js_keep_alive(napi_env env, napi_callback_info info);
napi_value js_watch(napi_env env, napi_callback_info info);
napi_value js_rearm(napi_env env, napi_callback_info info);
napi_value js_unwatch(napi_env env, napi_callback_info info);
struct job *job_create(struct args *args, void (*work)(struct job *));
void job_take_string(struct job *job, size_t slot, struct args *args, size_t index);
void job_take_optional_string(struct job *job, size_t slot, struct args *args, size_t index);
void job_take_list(struct job *job, struct args *args, size_t index);
void job_take_bytes(struct job *job, struct args *args, size_t index);
napi_value job_start(struct job *job, struct args *args);
/* A whole job(token, path). strings: 0 path */
napi_value job_start_on_path(napi_env env, napi_callback_info info, void (*work)(struct job *));
void job_fail(struct job *job, const char *step, int error);
/* Tells also what path it failed on, which is a failure's output. */
void job_fail_on(struct job *job, const char *step, int error, const char *path);

/* Tables of exported functions, one per file. */
struct entry {
  const char *name;
  napi_callback callback;
};
extern const struct entry process_entries[];
extern const struct entry path_entries[];
extern const struct entry socket_entries[];
extern const struct entry file_job_entries[];
extern const struct entry mount_job_entries[];
extern const struct entry namespace_job_entries[];
extern const struct entry inflate_entries[];
extern const struct entry attribute_entries[];
extern const struct entry memory_entries[];

/* files.c */
int write_all(int fd, const uint8_t *data, size_t length); /* -1 with errno */
/* Reads to the end into the job's output; more than limit bytes fail it. */
void job_read_all(int fd, size_t limit, struct job *job);
/* Reads once per element of the job's list: per element a 32-bit length or -errno, then the bytes. */
void job_read_each(struct job *job, void (*read_one)(struct job *one));

/* tree.c */
struct tree_size {
  uint64_t blocks, inodes;
};
int64_t remove_tree(const char *path, const char **step);
int64_t measure_tree(const char *path, struct tree_size *size, const char **step);

#endif
