/* The poller thread, the jobs, and the one way by which both report to JavaScript. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "berth.h"

/* Posted to JavaScript as handler(token, result, output, step). */
struct message {
  uint32_t token;
  int64_t result;
  struct job *job; /* NULL for a readiness event */
};

static const uint64_t wake_mark = UINT64_MAX;

/* How long a thread waits for its next job: bursts find it there, and a daemon at rest is small. */
enum { rest_seconds = 1 };

static void job_free(struct job *job) {
  for (size_t i = 0; i < max_job_strings; i++) free(job->strings[i]);
  free_string_list(job->list);
  free(job->data);
  free(job->output);
  free(job);
}

static void drop_message(struct message *message) {
  struct job *job = message->job;
  if (job != NULL) {
    if (job->result_is_fd && job->result >= 0) close((int)job->result);
    job_free(job);
  }
  free(message);
}

void instance_release(struct instance *instance) {
  pthread_mutex_lock(&instance->lock);
  int left = --instance->references;
  pthread_mutex_unlock(&instance->lock);
  if (left > 0) return;
  if (instance->epoll_fd >= 0) close(instance->epoll_fd);
  if (instance->wake_fd >= 0) close(instance->wake_fd);
  pthread_mutex_destroy(&instance->lock);
  sem_destroy(&instance->given);
  free(instance);
}

/* Runs before the environment takes its threadsafe functions down: after it, no thread of ours calls into Node. */
static void close_instance(void *data) {
  struct instance *instance = data;
  pthread_mutex_lock(&instance->lock);
  instance->is_closing = true;
  bool has_poller = instance->has_poller;
  int resting = instance->resting;
  instance->resting = 0;
  pthread_mutex_unlock(&instance->lock);
  for (int i = 0; i < resting; i++) sem_post(&instance->given); /* there will be no job for them */
  if (has_poller) {
    uint64_t one = 1;
    if (write(instance->wake_fd, &one, sizeof one) == sizeof one) pthread_join(instance->poller, NULL);
  }
  instance_release(instance);
}

struct instance *instance_create(napi_env env) {
  struct instance *instance = calloc(1, sizeof *instance);
  if (instance == NULL) return NULL;
  pthread_mutex_init(&instance->lock, NULL);
  sem_init(&instance->given, 0, 0);
  instance->references = 1;
  instance->epoll_fd = -1;
  instance->wake_fd = -1;
  if (napi_set_instance_data(env, instance, NULL, NULL) != napi_ok) {
    instance_release(instance);
    return NULL;
  }
  return instance;
}

static void post(struct instance *instance, struct message *message) {
  bool was_taken = false;
  pthread_mutex_lock(&instance->lock);
  if (!instance->is_closing)
    was_taken = napi_call_threadsafe_function(instance->deliver, message, napi_tsfn_nonblocking) == napi_ok;
  pthread_mutex_unlock(&instance->lock);
  if (!was_taken) drop_message(message);
}

static void deliver(napi_env env, napi_value handler, void *context, void *data) {
  (void)context;
  struct message *message = data;
  if (env == NULL || handler == NULL) {
    drop_message(message);
    return;
  }
  napi_value undefined, arguments[4], ignored;
  napi_get_undefined(env, &undefined);
  arguments[0] = make_integer(env, message->token);
  arguments[1] = make_integer(env, message->result);
  arguments[2] = arguments[3] = undefined;
  struct job *job = message->job;
  if (job != NULL && job->output != NULL) arguments[2] = make_bytes(env, job->output, job->output_length);
  if (job != NULL && job->step != NULL) napi_create_string_utf8(env, job->step, NAPI_AUTO_LENGTH, &arguments[3]);
  if (job != NULL) job->result_is_fd = false; /* JavaScript owns it from here */
  drop_message(message);
  napi_call_function(env, undefined, handler, 4, arguments, &ignored);
}

static void report_ready(struct instance *instance, uint64_t mark, uint32_t events) {
  struct message *message = calloc(1, sizeof *message);
  if (message == NULL) return;
  message->token = (uint32_t)mark;
  message->result = events;
  post(instance, message);
}

/* Signals belong to Node's main thread; here they would only interrupt calls. */
static void block_signals(void) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, NULL);
}

static void *poll_loop(void *data) {
  block_signals();
  struct instance *instance = data;
  struct epoll_event events[64];
  for (;;) {
    int count = epoll_wait(instance->epoll_fd, events, 64, -1);
    for (int i = 0; i < count; i++) {
      if (events[i].data.u64 == wake_mark) return NULL;
      report_ready(instance, events[i].data.u64, events[i].events);
    }
    if (count < 0 && errno != EINTR) return NULL;
  }
}

static int start_poller(struct instance *instance) {
  instance->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  instance->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  struct epoll_event wake = {.events = EPOLLIN, .data.u64 = wake_mark};
  if (instance->epoll_fd < 0 || instance->wake_fd < 0 ||
      epoll_ctl(instance->epoll_fd, EPOLL_CTL_ADD, instance->wake_fd, &wake) < 0)
    return -errno;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, job_stack_bytes);
  int error = pthread_create(&instance->poller, &attributes, poll_loop, instance);
  pthread_attr_destroy(&attributes);
  instance->has_poller = error == 0;
  return -error;
}

/* start(handler): to be called once per environment, before anything that reports. */
napi_value js_start(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  napi_valuetype type = napi_undefined;
  if (args.error != 0) return args_answer(&args, 0);
  if (args.count < 1 || napi_typeof(env, args.values[0], &type) != napi_ok || type != napi_function)
    return args_answer(&args, -EINVAL);
  struct instance *instance = args.instance;
  if (instance->deliver != NULL) return args_answer(&args, -EALREADY);
  napi_value name;
  napi_create_string_utf8(env, "berth", NAPI_AUTO_LENGTH, &name);
  if (napi_create_threadsafe_function(env, args.values[0], NULL, name, 0, 1, NULL, NULL, NULL, deliver,
                                      &instance->deliver) != napi_ok)
    return args_answer(&args, -ENOMEM);
  napi_unref_threadsafe_function(env, instance->deliver);
  int result = start_poller(instance);
  napi_add_env_cleanup_hook(env, close_instance, instance);
  return args_answer(&args, result);
}

/* keepAlive(yes): whether something is pending for which the event loop must stay. */
napi_value js_keep_alive(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  int64_t is_wanted = args_integer(&args, 0, 0, 1);
  if (args.error != 0) return args_answer(&args, 0);
  if (args.instance->deliver == NULL) return args_answer(&args, -ENOTCONN);
  if (is_wanted != 0)
    napi_ref_threadsafe_function(env, args.instance->deliver);
  else
    napi_unref_threadsafe_function(env, args.instance->deliver);
  return args_answer(&args, 0);
}

static napi_value control(napi_env env, napi_callback_info info, int operation) {
  struct args args;
  args_read(&args, env, info);
  int fd = args_fd(&args, 0);
  struct epoll_event event = {0};
  if (operation != EPOLL_CTL_DEL) {
    event.data.u64 = (uint64_t)args_integer(&args, 1, 0, UINT32_MAX);
    /* One event per arming, so that a slow JavaScript thread is told once and not a thousand times. */
    event.events = (uint32_t)args_integer(&args, 2, 0, EPOLLIN | EPOLLOUT | EPOLLPRI) | EPOLLONESHOT;
  }
  if (args.error != 0) return args_answer(&args, 0);
  if (!args.instance->has_poller) return args_answer(&args, -ENOTCONN);
  if (fd == args.instance->wake_fd) return args_answer(&args, -EINVAL);
  return args_answer(&args, result_of(epoll_ctl(args.instance->epoll_fd, operation, fd, &event)));
}

napi_value js_watch(napi_env env, napi_callback_info info) { return control(env, info, EPOLL_CTL_ADD); }
napi_value js_rearm(napi_env env, napi_callback_info info) { return control(env, info, EPOLL_CTL_MOD); }
napi_value js_unwatch(napi_env env, napi_callback_info info) { return control(env, info, EPOLL_CTL_DEL); }

/* Jobs. Argument 0 of every job entry is its token. */

struct job *job_create(struct args *args, void (*work)(struct job *)) {
  struct job *job = calloc(1, sizeof *job);
  if (job == NULL) {
    if (args->error == 0) args->error = -ENOMEM;
    return NULL;
  }
  job->work = work;
  job->token = (uint32_t)args_integer(args, 0, 0, UINT32_MAX);
  return job;
}

static void give_string(struct job *job, size_t slot, struct args *args, size_t index) {
  const char *text = args_string(args, index);
  if (job == NULL || args->error != 0) return;
  job->strings[slot] = strdup(text);
  if (job->strings[slot] == NULL) args->error = -ENOMEM;
}

void job_take_string(struct job *job, size_t slot, struct args *args, size_t index) {
  give_string(job, slot, args, index);
}

void job_take_optional_string(struct job *job, size_t slot, struct args *args, size_t index) {
  if (!args_is_null(args, index)) give_string(job, slot, args, index);
}

void job_take_list(struct job *job, struct args *args, size_t index) {
  if (job != NULL) job->list = args_string_list(args, index, &job->list_length);
}

void job_take_bytes(struct job *job, struct args *args, size_t index) {
  size_t length;
  const uint8_t *bytes = args_bytes(args, index, &length);
  if (job == NULL || args->error != 0) return;
  job->data = malloc(length + 1);
  if (job->data == NULL) {
    args->error = -ENOMEM;
    return;
  }
  if (length > 0) memcpy(job->data, bytes, length);
  job->data_length = length;
}

void job_fail(struct job *job, const char *step, int error) {
  job->result = -error;
  job->step = step;
}

void job_fail_on(struct job *job, const char *step, int error, const char *path) {
  job_fail(job, step, error);
  job->output = (uint8_t *)strdup(path);
  job->output_length = job->output == NULL ? 0 : strlen(path);
}

/* Whether the thread is to wait for another. */
static bool run_job(struct instance *instance, struct job *job) {
  /* It is raised from its last job, or was there before; what it starts must not be. */
  if (instance->nice_value != 0) setpriority(PRIO_PROCESS, 0, 0);
  job->work(job);
  /* Whom the answer wakes must not find its locks with a thread that has yet to wait for a processor. */
  if (instance->nice_value != 0) setpriority(PRIO_PROCESS, 0, instance->nice_value);
  pthread_mutex_lock(&instance->lock);
  instance->running_jobs--;
  bool rests = !job->ends_thread && !instance->is_closing; /* from here on, so that who hears the answer finds it */
  if (rests) instance->resting++;
  pthread_mutex_unlock(&instance->lock);
  struct message *message = calloc(1, sizeof *message);
  if (message == NULL) abort(); /* a promise that never settles would be worse */
  message->token = job->token;
  message->result = job->result;
  message->job = job;
  post(instance, message);
  return rests;
}

/* NULL: none has come for a while, or none will. */
static struct job *wait_for_job(struct instance *instance) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += rest_seconds;
  bool has_come = sem_clockwait(&instance->given, CLOCK_MONOTONIC, &until) == 0; /* no signal interrupts it */
  pthread_mutex_lock(&instance->lock);
  /* As many are waiting as are at rest or have been given a job: with none at rest, one of these is for us. */
  bool may_go = !has_come && instance->resting > 0;
  if (may_go) instance->resting--;
  pthread_mutex_unlock(&instance->lock);
  if (may_go) return NULL;
  while (!has_come) has_come = sem_wait(&instance->given) == 0;
  pthread_mutex_lock(&instance->lock);
  struct job *job = instance->waiting;
  if (job != NULL) instance->waiting = job->next;
  pthread_mutex_unlock(&instance->lock);
  return job;
}

/* Starting a thread costs the main thread far more than waking one. */
static void *run_jobs(void *data) {
  struct job *job = data;
  struct instance *instance = job->instance;
  block_signals();
  while (job != NULL) job = run_job(instance, job) ? wait_for_job(instance) : NULL;
  instance_release(instance);
  return NULL;
}

static int start_thread(struct job *job) {
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, job_stack_bytes);
  int error = pthread_create(&thread, &attributes, run_jobs, job);
  pthread_attr_destroy(&attributes);
  return error;
}

/* Whether a thread at rest has it now. Called with the lock held. */
static bool give(struct instance *instance, struct job *job) {
  if (instance->resting == 0) return false;
  instance->resting--;
  struct job **end = &instance->waiting;
  while (*end != NULL) end = &(*end)->next;
  *end = job;
  return true;
}

napi_value job_start(struct job *job, struct args *args) {
  struct instance *instance = args->instance;
  int error = -args->error;
  if (error == 0 && instance->deliver == NULL) error = ENOTCONN;
  bool is_given = false;
  if (error == 0) {
    job->instance = instance;
    pthread_mutex_lock(&instance->lock);
    if (instance->running_jobs >= max_jobs) {
      error = EAGAIN;
    } else {
      instance->running_jobs++;
      is_given = give(instance, job);
      if (!is_given) instance->references++;
    }
    pthread_mutex_unlock(&instance->lock);
  }
  if (is_given) sem_post(&instance->given);
  if (error == 0 && !is_given) {
    error = start_thread(job);
    if (error != 0) {
      pthread_mutex_lock(&instance->lock);
      instance->running_jobs--;
      instance->references--;
      pthread_mutex_unlock(&instance->lock);
    }
  }
  if (error == 0) return args_answer(args, 0);
  if (job != NULL) job_free(job);
  return args_answer(args, -error);
}

napi_value job_start_on_path(napi_env env, napi_callback_info info, void (*work)(struct job *)) {
  struct args args;
  args_read(&args, env, info);
  struct job *job = job_create(&args, work);
  job_take_string(job, 0, &args, 1);
  return job_start(job, &args);
}
