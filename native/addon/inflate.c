/*
 * Inflating gzip with ISA-L, which takes half of zlib's time. It runs on the thread that calls it, so that the bytes are
 * still in its cache when they are hashed and written: a layer's worker does nothing else meanwhile, and a step is short.
 */
#include <isa-l/igzip_lib.h>
#include <stdlib.h>

#include "berth.h"

struct inflater {
  struct inflate_state state;
  bool is_between; /* members: the input may end here */
  bool is_padding; /* after the last one */
};

static const napi_type_tag inflater_tag = {0x8f6c2b1d4e7a4930, 0xb0c95d12e83f6a47};

static void free_inflater(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  free(data);
}

/* inflaterCreate(): an object for inflate(), or -errno. */
static napi_value js_inflater_create(napi_env env, napi_callback_info info) {
  (void)info;
  struct inflater *inflater = calloc(1, sizeof *inflater);
  napi_value object;
  if (inflater == NULL) return make_integer(env, -ENOMEM);
  isal_inflate_init(&inflater->state);
  inflater->state.crc_flag = ISAL_GZIP;
  inflater->is_between = true;
  if (napi_create_external(env, inflater, free_inflater, NULL, &object) != napi_ok) {
    free(inflater);
    return make_integer(env, -ENOMEM);
  }
  if (napi_type_tag_object(env, object, &inflater_tag) != napi_ok) return make_integer(env, -ENOMEM);
  return object;
}

/* A member ends with its checksum; what may follow is another one, or zeros to the end of the input. */
static void begin_member(struct inflater *inflater) {
  struct inflate_state *state = &inflater->state;
  if (state->block_state == ISAL_BLOCK_FINISH) {
    if (*state->next_in == 0) inflater->is_padding = true;
    isal_inflate_reset(state);
    state->crc_flag = ISAL_GZIP;
  }
  inflater->is_between = inflater->is_padding;
  if (inflater->is_padding) state->avail_in = 0;
}

static int64_t inflate_step(struct inflater *inflater) {
  struct inflate_state *state = &inflater->state;
  while (state->avail_out > 0) {
    if (inflater->is_between && state->avail_in > 0) begin_member(inflater);
    if (inflater->is_between) return 0;
    uint32_t had_in = state->avail_in, had_out = state->avail_out;
    if (isal_inflate(state) != ISAL_DECOMP_OK) return -EILSEQ;
    inflater->is_between = state->block_state == ISAL_BLOCK_FINISH;
    if (!inflater->is_between && state->avail_in == had_in && state->avail_out == had_out) return 0;
  }
  return 0;
}

static struct inflater *inflater_of(struct args *args) {
  napi_valuetype type;
  bool is_ours = false;
  void *inflater = NULL;
  napi_value object = args->values[0];
  if (args->count == 0 || napi_typeof(args->env, object, &type) != napi_ok || type != napi_external) return NULL;
  if (napi_check_object_type_tag(args->env, object, &inflater_tag, &is_ours) != napi_ok || !is_ours) return NULL;
  return napi_get_value_external(args->env, object, &inflater) == napi_ok ? inflater : NULL;
}

/*
 * inflate(inflater, input, output): [taken, given, may end here] or -errno. EILSEQ: this is not gzip, or it is damaged;
 * the inflater is of no further use then.
 */
static napi_value js_inflate(napi_env env, napi_callback_info info) {
  struct args args;
  args_read(&args, env, info);
  struct inflater *inflater = inflater_of(&args);
  if (inflater == NULL) return args_answer(&args, -EINVAL);
  size_t input_length, output_length;
  const uint8_t *input = args_bytes(&args, 1, &input_length);
  const uint8_t *output = args_bytes(&args, 2, &output_length);
  if (args.error != 0) return args_answer(&args, 0);
  if (input_length > INT32_MAX || output_length > INT32_MAX) return args_answer(&args, -EINVAL);
  struct inflate_state *state = &inflater->state;
  state->next_in = (uint8_t *)input;
  state->avail_in = (uint32_t)input_length;
  state->next_out = (uint8_t *)output;
  state->avail_out = (uint32_t)output_length;
  int64_t result = inflate_step(inflater);
  if (result < 0) return args_answer(&args, result);
  const int64_t facts[] = {
      (int64_t)(input_length - state->avail_in),
      (int64_t)(output_length - state->avail_out),
      inflater->is_between,
  };
  napi_value list;
  napi_create_array_with_length(env, 3, &list);
  for (uint32_t i = 0; i < 3; i++) napi_set_element(env, list, i, make_integer(env, facts[i]));
  return args_answer_value(&args, list);
}

const struct entry inflate_entries[] = {
    {"inflaterCreate", js_inflater_create},
    {"inflate", js_inflate},
    {NULL, NULL},
};
