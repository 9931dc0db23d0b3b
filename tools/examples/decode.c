/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *
 * decode MODEL CAPTURE [SCHEME [LAYER]]: decodes the end of a captured sequence, token by token, as an engine does for
 * one layer. MODEL is a config.json, CAPTURE a safetensors file with layer.N.k and .v [kv_heads, tokens, head_dim] and
 * .q [q_heads, queries, head_dim] of F16, the last query being that of the last token. Every output is compared with
 * attention over the captured numbers, computed here: the difference is what the scheme loses.
 */
#include <kvcc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *what, const char *why) {
  fprintf(stderr, "decode: %s: %s\n", what, why);
  exit(1);
}

static void check(kvcc_status status, const char *what) {
  if (status != KVCC_OK)
    fail(what, kvcc_last_message());
}

/* Memory at a multiple of 64, as the pools have to be. */
static void *allocate(int64_t bytes) {
  void *memory = aligned_alloc(64, ((size_t)bytes + 64) / 64 * 64);
  if (!memory)
    fail("memory", "not enough");
  return memory;
}

/* A whole file: 8 bytes of length, that many of JSON, numbers. Ends in a zero byte. */
static char *read_file(const char *path, int64_t *bytes) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END) || (*bytes = ftell(file)) < 8)
    fail(path, "not a file that can be read");
  char *text = allocate(*bytes + 1);
  rewind(file);
  text[fread(text, 1, (size_t)*bytes, file)] = 0;
  fclose(file);
  return text;
}

/* The numbers of layer.LAYER.WHICH and its extents. Good enough for an example; a real reader parses the JSON. */
static const uint16_t *find(const char *file, int64_t bytes, int layer, char which, long long extents[3]) {
  char name[32];
  uint64_t header;
  long long begin, end;
  memcpy(&header, file, 8);
  snprintf(name, sizeof name, "\"layer.%d.%c\"", layer, which);
  const char *at = strstr(file + 8, name);
  if (!at || header > (uint64_t)bytes - 8)
    fail(name, "not in the capture");
  if (sscanf(at + strlen(name), ":{\"dtype\":\"F16\",\"shape\":[%lld,%lld,%lld],\"data_offsets\":[%lld,%lld]",
             &extents[0], &extents[1], &extents[2], &begin, &end) != 5 ||
      begin < 0 || end > bytes - 8 - (long long)header || end - begin != extents[0] * extents[1] * extents[2] * 2)
    fail(name, "not F16 with three axes, or cut off");
  return (const uint16_t *)(file + 8 + header + begin);
}

static double number(uint16_t half) {
  int exponent = half >> 10 & 31, fraction = half & 1023; /* finite numbers only */
  double size = exponent ? ldexp(fraction + 1024, exponent - 25) : ldexp(fraction, -24);
  return half & 0x8000 ? -size : size;
}

/* softmax(scale * q.K) V of one head over `tokens` tokens, one after the other. */
static void exact(const uint16_t *q, const uint16_t *k, const uint16_t *v, int64_t tokens, int64_t dim, double scale,
                  double *out) {
  double largest = -INFINITY, sum = 0;
  memset(out, 0, (size_t)dim * sizeof *out);
  for (int64_t t = 0; t < tokens; ++t, k += dim, v += dim) {
    double logit = 0;
    for (int64_t c = 0; c < dim; ++c)
      logit += scale * number(q[c]) * number(k[c]);
    double larger = fmax(largest, logit), kept = exp(largest - larger), weight = exp(logit - larger);
    largest = larger, sum = sum * kept + weight;
    for (int64_t c = 0; c < dim; ++c)
      out[c] = out[c] * kept + weight * number(v[c]);
  }
  for (int64_t c = 0; c < dim; ++c)
    out[c] /= sum;
}

int main(int argc, char **argv) {
  if (argc < 3)
    fail("expected", "MODEL CAPTURE [SCHEME [LAYER]]");
  const int index = argc > 4 ? atoi(argv[4]) : 0;
  kvcc_context *context;
  check(kvcc_context_create(NULL, &context), "kvcc_context_create");
  kvcc_compile_options options = {.size = sizeof options, .model = argv[1], .target = "cpu", .dtype = "f16"};
  options.scheme = argc > 3 ? argv[3] : "innerq-small";
  kvcc_program *program;
  check(kvcc_compile(context, &options, &program), "kvcc_compile");
  kvcc_layer_info layer = {.size = sizeof layer};
  check(kvcc_program_get_layer(program, index, &layer), "kvcc_program_get_layer");

  long long kx[3], vx[3], qx[3];
  int64_t bytes, pages;
  char *file = read_file(argv[2], &bytes);
  const uint16_t *k = find(file, bytes, index, 'k', kx), *v = find(file, bytes, index, 'v', vx);
  const uint16_t *q = find(file, bytes, index, 'q', qx);
  const int64_t tokens = kx[1], dim = layer.head_dim, heads = layer.q_heads, steps = qx[1];
  if (memcmp(kx, vx, sizeof kx) || kx[0] != layer.kv_heads || kx[2] != dim || qx[0] != heads || qx[2] != dim ||
      steps >= tokens)
    fail(argv[2], layer.served ? "not of the shape of the model's layer" : layer.unserved_reason);

  /* The memory of one sequence, which is the caller's: pages, their order, a slot, and workspace. */
  size_t workspace;
  check(kvcc_pages_for(program, index, tokens, &pages), "kvcc_pages_for");
  check(kvcc_workspace_bytes(program, index, 1, tokens, &workspace), "kvcc_workspace_bytes");
  kvcc_memory memory = {allocate(pages * layer.page_bytes), pages, allocate(layer.slot_bytes), 1};
  int32_t *table = allocate(pages * (int64_t)sizeof *table), slot = 0, length = 0, added = (int32_t)(tokens - steps);
  for (int64_t i = 0; i < pages; ++i)
    table[i] = (int32_t)i;
  uint16_t *query = allocate(heads * dim * (int64_t)sizeof *query);
  kvcc_append_args append = {.size = sizeof append, .memory = memory, .table = table, .table_stride = pages};
  append.slots = &slot, append.seq_lens = &length, append.new_lens = &added, append.batch = 1;
  append.max_new = tokens, append.token_stride = dim, append.head_stride = tokens * dim;
  kvcc_attend_args attend = {.size = sizeof attend, .memory = memory, .table = table, .table_stride = pages};
  attend.slots = &slot, attend.seq_lens = &length, attend.batch = 1, attend.max_tokens = tokens, attend.query = query;
  attend.out = allocate(heads * dim * (int64_t)sizeof(float)), attend.lse = allocate(heads * (int64_t)sizeof(float));
  attend.workspace = allocate((int64_t)workspace), attend.workspace_bytes = workspace;

  /* All but the last tokens at once, then one after the other. */
  double difference = 0, whole = 0, *expected = allocate(dim * (int64_t)sizeof *expected);
  for (int64_t step = -1; step < steps; ++step, added = 1) {
    append.keys = k + length * dim, append.values = v + length * dim;
    length += added;
    check(kvcc_append(program, index, &append, NULL), "kvcc_append");
    if (step < 0)
      continue;
    for (int64_t h = 0; h < heads; ++h)
      memcpy(query + h * dim, q + (h * steps + step) * dim, (size_t)dim * sizeof *query);
    check(kvcc_attend(program, index, &attend, NULL), "kvcc_attend");
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t shared = h / (heads / layer.kv_heads) * tokens * dim; /* the KV head of this query head */
      exact(query + h * dim, k + shared, v + shared, length, dim, layer.scale, expected);
      for (int64_t c = 0; c < dim; ++c)
        difference += pow(((float *)attend.out)[h * dim + c] - expected[c], 2), whole += pow(expected[c], 2);
    }
    if (step % 8 == 7)
      printf("%d tokens: relative error so far %.1e\n", (int)length, sqrt(difference / whole));
  }
  printf("%s: %d steps, relative error %.1e\n", options.scheme, (int)steps, sqrt(difference / whole));
  kvcc_program_destroy(program);
  kvcc_context_destroy(context);
  return 0;
}
