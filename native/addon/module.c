#include <stdlib.h>

#include "berth.h"

static const struct entry event_entries[] = {
    {"start", js_start},   {"keepAlive", js_keep_alive}, {"watch", js_watch},
    {"rearm", js_rearm},   {"unwatch", js_unwatch},      {NULL, NULL},
};

static bool export_entries(napi_env env, napi_value exports, const struct entry *entries) {
  for (; entries->name != NULL; entries++) {
    napi_value function;
    if (napi_create_function(env, entries->name, NAPI_AUTO_LENGTH, entries->callback, NULL, &function) != napi_ok ||
        napi_set_named_property(env, exports, entries->name, function) != napi_ok)
      return false;
  }
  return true;
}

NAPI_MODULE_INIT() {
  const struct entry *tables[] = {event_entries,  process_entries,   path_entries,         socket_entries,
                                  file_job_entries, mount_job_entries, namespace_job_entries, inflate_entries,
                                  attribute_entries, memory_entries};
  struct instance *instance = instance_create(env);
  if (instance == NULL) {
    napi_throw_error(env, NULL, "native addon: out of memory");
    return NULL;
  }
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
    if (!export_entries(env, exports, tables[i])) return NULL;
  return exports;
}
