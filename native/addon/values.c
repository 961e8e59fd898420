#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "berth.h"

enum { max_string_bytes = 1 << 20, max_list_length = 1 << 16 };

static void refuse(struct args *args, int error) {
  if (args->error == 0) args->error = -error;
}

/* A getter on an array from JavaScript may throw; the exception must not outlive the call. */
static void swallow_exception(napi_env env) {
  bool is_pending = false;
  napi_value thrown;
  if (napi_is_exception_pending(env, &is_pending) == napi_ok && is_pending)
    napi_get_and_clear_last_exception(env, &thrown);
}

void args_read(struct args *args, napi_env env, napi_callback_info info) {
  args->env = env;
  args->count = sizeof args->values / sizeof *args->values;
  args->error = 0;
  args->held = 0;
  args->arena_used = 0;
  void *data = NULL;
  if (napi_get_cb_info(env, info, &args->count, args->values, NULL, NULL) != napi_ok) refuse(args, EINVAL);
  if (napi_get_instance_data(env, &data) != napi_ok || data == NULL) refuse(args, EINVAL);
  args->instance = data;
  if (args->count > sizeof args->values / sizeof *args->values) args->count = sizeof args->values / sizeof *args->values;
}

static bool has_type(struct args *args, size_t index, napi_valuetype expected) {
  napi_valuetype type;
  if (index < args->count && napi_typeof(args->env, args->values[index], &type) == napi_ok && type == expected)
    return true;
  refuse(args, EINVAL);
  return false;
}

static bool read_integer(napi_env env, napi_value value, int64_t lowest, int64_t highest, int64_t *out) {
  napi_valuetype type;
  double number;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_number) return false;
  if (napi_get_value_double(env, value, &number) != napi_ok) return false;
  if (!isfinite(number) || number != trunc(number) || fabs(number) > 9007199254740991.0) return false;
  int64_t integer = (int64_t)number;
  if (integer < lowest || integer > highest) return false;
  *out = integer;
  return true;
}

int64_t args_integer(struct args *args, size_t index, int64_t lowest, int64_t highest) {
  int64_t value = lowest;
  if (args->error != 0 || index >= args->count ||
      !read_integer(args->env, args->values[index], lowest, highest, &value)) {
    refuse(args, EINVAL);
    return lowest;
  }
  return value;
}

int args_fd(struct args *args, size_t index) {
  int fd = (int)args_integer(args, index, 0, INT32_MAX);
  return args->error != 0 ? -1 : fd;
}

int args_directory_fd(struct args *args, size_t index) {
  int fd = (int)args_integer(args, index, AT_FDCWD, INT32_MAX);
  if (fd < 0 && fd != AT_FDCWD) refuse(args, EINVAL);
  return args->error != 0 ? -1 : fd;
}

bool args_is_null(struct args *args, size_t index) {
  napi_valuetype type;
  if (index >= args->count) return true;
  return napi_typeof(args->env, args->values[index], &type) == napi_ok && (type == napi_null || type == napi_undefined);
}

static char *reserve(struct args *args, size_t bytes) {
  if (bytes <= sizeof args->arena - args->arena_used) {
    char *place = args->arena + args->arena_used;
    args->arena_used += bytes;
    return place;
  }
  if (args->held == sizeof args->owned / sizeof *args->owned) return NULL;
  char *place = malloc(bytes);
  if (place != NULL) args->owned[args->held++] = place;
  return place;
}

enum { first_escape = 0xdc80, last_escape = 0xdcff };

static bool is_between(unsigned unit, unsigned lowest, unsigned highest) {
  return unit >= lowest && unit <= highest;
}

static char *put_code_point(char *to, uint32_t point) {
  if (point < 0x80) {
    *to++ = (char)point;
    return to;
  }
  int tail = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
  static const unsigned char marks[] = {0, 0xc0, 0xe0, 0xf0};
  *to++ = (char)(marks[tail] | (point >> (6 * tail)));
  while (tail-- > 0) *to++ = (char)(0x80 | ((point >> (6 * tail)) & 0x3f));
  return to;
}

/*
 * The bytes of a name stand in a string as native/names.ts has it: those that are no UTF-8 as halves of surrogate
 * pairs. N-API makes U+FFFD of each, which is longer: what it means has room in `text`, and its length is the answer.
 */
static size_t restore_bytes(napi_env env, napi_value value, char *text, size_t length) {
  size_t count = 0;
  if (memmem(text, length, "\xef\xbf\xbd", 3) == NULL) return length;
  if (napi_get_value_string_utf16(env, value, NULL, 0, &count) != napi_ok) return length;
  char16_t *units = malloc((count + 1) * sizeof *units);
  if (units == NULL || napi_get_value_string_utf16(env, value, units, count + 1, &count) != napi_ok) {
    free(units);
    return length;
  }
  char *to = text;
  for (size_t i = 0; i < count; i++) {
    unsigned unit = units[i];
    bool is_pair = is_between(unit, 0xd800, 0xdbff) && i + 1 < count && is_between(units[i + 1], 0xdc00, 0xdfff);
    if (is_pair) to = put_code_point(to, 0x10000 + ((unit - 0xd800) << 10) + (units[++i] - 0xdc00));
    else if (is_between(unit, first_escape, last_escape)) *to++ = (char)(unit & 0xff);
    else to = put_code_point(to, is_between(unit, 0xd800, 0xdfff) ? 0xfffd : unit);
  }
  free(units);
  *to = '\0';
  return (size_t)(to - text);
}

const char *args_string(struct args *args, size_t index) {
  size_t length = 0;
  if (args->error != 0 || !has_type(args, index, napi_string)) return "";
  if (napi_get_value_string_utf8(args->env, args->values[index], NULL, 0, &length) != napi_ok) {
    refuse(args, EINVAL);
    return "";
  }
  if (length > max_string_bytes) {
    refuse(args, ENAMETOOLONG);
    return "";
  }
  char *text = reserve(args, length + 1);
  if (text == NULL) {
    refuse(args, ENOMEM);
    return "";
  }
  if (napi_get_value_string_utf8(args->env, args->values[index], text, length + 1, &length) == napi_ok) {
    length = restore_bytes(args->env, args->values[index], text, length);
    if (strlen(text) == length) return text;
  }
  refuse(args, EINVAL);
  return "";
}

const uint8_t *args_bytes(struct args *args, size_t index, size_t *length) {
  bool is_typed_array = false;
  napi_typedarray_type type;
  void *data = NULL;
  *length = 0;
  if (args->error != 0) return NULL;
  if (index >= args->count || napi_is_typedarray(args->env, args->values[index], &is_typed_array) != napi_ok ||
      !is_typed_array ||
      napi_get_typedarray_info(args->env, args->values[index], &type, length, &data, NULL, NULL) != napi_ok ||
      type != napi_uint8_array) {
    *length = 0;
    refuse(args, EINVAL);
    return NULL;
  }
  if (data == NULL) *length = 0; /* detached or empty */
  return data;
}

static bool list_length(struct args *args, size_t index, size_t *length) {
  bool is_array = false;
  uint32_t count = 0;
  *length = 0;
  if (args->error != 0) return false;
  if (index >= args->count || napi_is_array(args->env, args->values[index], &is_array) != napi_ok || !is_array ||
      napi_get_array_length(args->env, args->values[index], &count) != napi_ok) {
    refuse(args, EINVAL);
    return false;
  }
  if (count > max_list_length) {
    refuse(args, E2BIG);
    return false;
  }
  *length = count;
  return true;
}

static char *copy_string(napi_env env, napi_value value) {
  napi_valuetype type;
  size_t length;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_string) return NULL;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok || length > max_string_bytes) return NULL;
  char *text = malloc(length + 1);
  if (text == NULL) return NULL;
  if (napi_get_value_string_utf8(env, value, text, length + 1, &length) == napi_ok) {
    length = restore_bytes(env, value, text, length);
    if (strlen(text) == length) return text;
  }
  free(text);
  return NULL;
}

void free_string_list(char **list) {
  if (list == NULL) return;
  for (size_t i = 0; list[i] != NULL; i++) free(list[i]);
  free(list);
}

static bool get_element(struct args *args, size_t index, uint32_t position, napi_value *element) {
  if (napi_get_element(args->env, args->values[index], position, element) == napi_ok) return true;
  swallow_exception(args->env);
  return false;
}

char **args_string_list(struct args *args, size_t index, size_t *length) {
  if (!list_length(args, index, length)) return NULL;
  char **list = calloc(*length + 1, sizeof *list);
  if (list == NULL) {
    refuse(args, ENOMEM);
    return NULL;
  }
  for (uint32_t i = 0; i < *length; i++) {
    napi_value element;
    if (get_element(args, index, i, &element)) list[i] = copy_string(args->env, element);
    if (list[i] == NULL) {
      free_string_list(list);
      refuse(args, EINVAL);
      *length = 0;
      return NULL;
    }
  }
  return list;
}

int *args_fd_list(struct args *args, size_t index, size_t *length) {
  if (!list_length(args, index, length)) return NULL;
  int *list = calloc(*length + 1, sizeof *list);
  if (list == NULL) {
    refuse(args, ENOMEM);
    return NULL;
  }
  for (uint32_t i = 0; i < *length; i++) {
    napi_value element;
    int64_t fd;
    if (!get_element(args, index, i, &element) || !read_integer(args->env, element, -1, INT32_MAX, &fd)) {
      free(list);
      refuse(args, EINVAL);
      *length = 0;
      return NULL;
    }
    list[i] = (int)fd;
  }
  return list;
}

napi_value make_integer(napi_env env, int64_t value) {
  napi_value number = NULL;
  napi_create_int64(env, value, &number);
  return number;
}

napi_value make_bytes(napi_env env, const void *bytes, size_t length) {
  napi_value buffer = NULL;
  void *copy;
  if (napi_create_buffer_copy(env, length, bytes, &copy, &buffer) != napi_ok) {
    swallow_exception(env);
    return make_integer(env, -ENOMEM);
  }
  return buffer;
}

napi_value args_answer_value(struct args *args, napi_value value) {
  for (size_t i = 0; i < args->held; i++) free(args->owned[i]);
  args->held = 0;
  return value;
}

napi_value args_answer(struct args *args, int64_t result) {
  return args_answer_value(args, make_integer(args->env, args->error != 0 ? args->error : result));
}
