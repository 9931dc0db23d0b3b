/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *
 * decode MODEL [TOKENS]: one layer's decode steps through the C interface, on this processor. MODEL is a config.json or
 * a folder that holds one; keys, values and queries are made up. The caller's side of things is all here: pages, slots,
 * block table and workspace are plain memory.
 */
#include <kvcc.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Ends the program with the library's message. */
static void check(kvcc_status status, const char *what) {
  if (status == KVCC_OK)
    return;
  fprintf(stderr, "%s: %s\n", what, kvcc_last_message());
  exit(1);
}

/* Memory at a multiple of 64, as the pools have to be. */
static void *allocate(size_t bytes) {
  void *memory = aligned_alloc(64, (bytes + 64) / 64 * 64);
  if (!memory) {
    fprintf(stderr, "no memory\n");
    exit(1);
  }
  return memory;
}

/* `count` numbers in the layer's dtype, which is "f32": about normal, from a generator of our own so that every machine
 * makes the same. */
static float *make_up(size_t count, unsigned seed) {
  float *numbers = allocate(count * sizeof(float));
  for (size_t i = 0; i < count; ++i) {
    float sum = 0;
    for (int draw = 0; draw < 4; ++draw) {
      seed = seed * 1664525u + 1013904223u;
      sum += (float)(seed >> 8) / 16777216.0f - 0.5f;
    }
    numbers[i] = sum * 1.7f;
  }
  return numbers;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: decode MODEL [TOKENS]\n");
    return 2;
  }
  int64_t tokens = argc > 2 ? atoll(argv[2]) : 1000;

  kvcc_context *context = NULL;
  check(kvcc_context_create(NULL, &context), "kvcc_context_create");
  kvcc_compile_options options = {0};
  options.size = sizeof options;
  options.model = argv[1];
  options.scheme = "innerq-small";
  options.target = "cpu";
  options.dtype = "f32";
  kvcc_program *program = NULL;
  check(kvcc_compile(context, &options, &program), "kvcc_compile");
  kvcc_program_info info = {0};
  info.size = sizeof info;
  check(kvcc_program_get_info(program, &info), "kvcc_program_get_info");

  /* The first layer that is served. */
  kvcc_layer_info layer = {0};
  layer.size = sizeof layer;
  int32_t index = -1;
  while (!layer.served && ++index < info.layers)
    check(kvcc_program_get_layer(program, index, &layer), "kvcc_program_get_layer");
  printf("kvcc %s: %d layers, layer %d has %d query heads and %d KV heads of %d channels\n", kvcc_version(),
         (int)info.layers, (int)index, (int)layer.q_heads, (int)layer.kv_heads, (int)layer.head_dim);

  /* One sequence: its pages, its slot, and what a prefill computed. */
  int64_t pages = 0;
  check(kvcc_pages_for(program, index, tokens, &pages), "kvcc_pages_for");
  kvcc_memory memory = {allocate((size_t)(pages * layer.page_bytes)), pages, allocate((size_t)layer.slot_bytes), 1};
  int32_t *table = allocate((size_t)pages * sizeof *table);
  for (int64_t i = 0; i < pages; ++i)
    table[i] = (int32_t)i;
  float *keys = make_up((size_t)(layer.kv_heads * tokens * layer.head_dim), 1);
  float *values = make_up((size_t)(layer.kv_heads * tokens * layer.head_dim), 2);
  kvcc_prefill_args prefill = {0};
  prefill.size = sizeof prefill;
  prefill.memory = memory;
  prefill.table = table;
  prefill.table_length = pages;
  prefill.keys = keys;
  prefill.values = values;
  prefill.tokens = tokens;
  check(kvcc_prefill(program, index, &prefill), "kvcc_prefill");
  printf("%lld tokens take %lld bytes in pages and %lld in the slot, %lld unquantized\n", (long long)tokens,
         (long long)(pages * layer.page_bytes), (long long)layer.slot_bytes,
         (long long)(2 * layer.kv_heads * tokens * layer.head_dim * 4));

  /* Decode steps over these tokens. */
  size_t workspace_bytes = 0;
  check(kvcc_workspace_bytes(program, index, 1, tokens, &workspace_bytes), "kvcc_workspace_bytes");
  const int32_t slot = 0, length = (int32_t)tokens;
  size_t outputs = (size_t)(layer.q_heads * layer.head_dim);
  kvcc_attend_args attend = {0};
  attend.size = sizeof attend;
  attend.memory = memory;
  attend.table = table;
  attend.table_stride = pages;
  attend.slots = &slot;
  attend.seq_lens = &length;
  attend.batch = 1;
  attend.max_tokens = tokens;
  attend.out = allocate(outputs * sizeof(float));
  attend.lse = allocate((size_t)layer.q_heads * sizeof(float));
  attend.workspace = allocate(workspace_bytes);
  attend.workspace_bytes = workspace_bytes;
  for (unsigned step = 0; step < 3; ++step) {
    float *query = make_up(outputs, 3 + step);
    attend.query = query;
    check(kvcc_attend(program, index, &attend, NULL), "kvcc_attend");
    double square = 0;
    for (size_t i = 0; i < outputs; ++i)
      square += (double)attend.out[i] * attend.out[i];
    printf("step %u: the output's root mean square is %.4f, lse of head 0 is %.3f\n", step,
           sqrt(square / (double)outputs), (double)attend.lse[0]);
    free(query);
  }

  free(attend.workspace);
  free(attend.lse);
  free(attend.out);
  free(values);
  free(keys);
  free(table);
  free(memory.slots);
  free(memory.pages);
  kvcc_program_destroy(program);
  kvcc_context_destroy(context);
  return 0;
}
