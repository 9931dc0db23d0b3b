/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *
 * The C interface of libkvcc: compiles decode-attention kernels over quantized KV caches for a model and a
 * machine, and runs them. C99 and newer.
 *
 *   kvcc_context   a kernel cache, a compiler and a pool of threads; one per process is enough
 *   kvcc_program   the kernels of one model for one scheme and target, loaded and ready
 *
 * The caller owns all cache memory and passes it with every call (kvcc_memory). Per layer there are
 *   pages   a pool of page_bytes each, which hold the quantized tokens of all sequences;
 *   slots   a pool of slot_bytes each, one per sequence: normalization factors and the tokens that stay in
 *           full precision (the first `sink` and the latest ones).
 * Page i of a sequence holds its quantized tokens i * page_tokens .. (i + 1) * page_tokens - 1, counted from
 * token `sink` on; a block table maps i to a page of the pool. Pools of different layers are independent.
 *
 * The state of a sequence is its length, which the caller keeps, its pages and its slot. It lives like this:
 *   kvcc_append    the first call is the prefill: what the formats' transforms measure is measured on the tokens
 *                  that it brings, so bring the prompt, or as much of it as there is. Later calls add chunks of
 *                  the prompt or decoded tokens. The same tokens give the same bytes, however they are cut.
 *   kvcc_attend    one step over what is there, for the last token or the last few.
 *   kvcc_rollback  the last tokens are taken back: a smaller length, nothing else. The next append writes over them.
 *   kvcc_fork      a second sequence with the same beginning, sharing its finished pages.
 *   kvcc_snapshot, kvcc_restore   to bytes and back; also into another scheme or page size.
 *   kvcc_adopt     says that the caller has moved a sequence, by copying its slot and its pages.
 *
 * Every function returns a status; kvcc_last_message() says what was wrong with which value, and what would
 * be right. Functions are thread-safe, except that a handle must not be destroyed while in use, and that a
 * sequence is written (kvcc_append, kvcc_fork to it, kvcc_restore) by one call at a time, with no other call that
 * reads or writes it at that time. Structures begin with `size`, which the caller sets to sizeof(the structure):
 * later versions add members at the end, and what a caller's structure lacks is taken as zero.
 *
 * Tables, slots, lengths, strides and sizes of memory are trusted; what stands in pages and slots is not: whatever
 * bytes they hold, no call reads or writes elsewhere or goes on for ever, but results may be any numbers. With
 * KVCC_VALIDATE=1 in the environment, or `validate` of the context, every call on a CPU target checks them first and
 * names the index that is wrong; it also finds numbers that are not finite, lengths that do not follow each other,
 * tokens taken back too far, and two writers of one sequence.
 */
#ifndef KVCC_H
#define KVCC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(KVCC_BUILD)
#define KVCC_API __attribute__((visibility("default")))
#else
#define KVCC_API
#endif

typedef enum kvcc_status {
  KVCC_OK = 0,
  KVCC_INVALID_ARGUMENT = 1, /* a value of the caller's: model, scheme, target, shape, pointer, number */
  KVCC_UNSUPPORTED = 2,      /* understood, but there is no kernel for it, such as a layer of MLA */
  KVCC_UNAVAILABLE = 3,      /* NVRTC, a driver, a device or an instruction set is missing here */
  KVCC_FAILED = 4            /* compiling, loading or launching failed */
} kvcc_status;

typedef struct kvcc_context kvcc_context;
typedef struct kvcc_program kvcc_program;

/* "0.1.0". */
KVCC_API const char *kvcc_version(void);
/* The message of this thread's last call that did not return KVCC_OK; valid until its next call. */
KVCC_API const char *kvcc_last_message(void);

typedef struct kvcc_context_options {
  size_t size;
  const char *cache_dir; /* kernel cache; NULL: $KVCC_CACHE_DIR, else ~/.cache/kvcc */
  uint32_t threads;      /* for CPU targets, the caller included; 0: one per processor */
  /* The host's own threads instead of the context's, so that the processors are not taken twice; NULL: the context's.
   * Calls body(data, i) for each i from 0 to items-1, on any threads, and returns when all are done; `threads` above
   * says how many there are. May be called from several threads at once, as kvcc_attend may. */
  void (*parallel_for)(void *user, int64_t items, void (*body)(void *data, int64_t item), void *data);
  void *parallel_for_user; /* its first argument */
  uint32_t validate;       /* 1: check what is otherwise trusted; 0: only if $KVCC_VALIDATE is 1 */
} kvcc_context_options;

/* `options` may be NULL. */
KVCC_API kvcc_status kvcc_context_create(const kvcc_context_options *options, kvcc_context **context);
/* Programs of the context stay usable. NULL is fine. */
KVCC_API void kvcc_context_destroy(kvcc_context *context);

typedef struct kvcc_compile_options {
  size_t size;
  const char *model; /* path of a Hugging Face config.json, or of a folder with one */
  /* How caches are stored: a preset ("innerq-small"; `kvcc schemes` lists them), a preset with parts changed or parts
   * alone ("innerq-small; v = <i4, map = asym, group = 1x32, scale = f16>"), "auto" with options ("auto; budget = 3.5;
   * context = 32768; prefer = speed"), or the path of a table of layers ("FILE.mlir"). "; profile = P.json" may follow:
   * what kvcc profile measured, for auto, and for the writer's centring and error feedback. */
  const char *scheme;
  const char *target;    /* "cpu", "cpu:generic", "cuda", "cuda:sm_90", ... */
  const char *dtype;     /* of queries, keys and values: "f16", "bf16", "f32"; NULL: the model's */
  const char *compute;   /* "auto", "f32", "f16" (CUDA), "bf16", "int16", "int8" (CPU): products with codes; NULL:
                            "auto", which the layer's kernel_error_bound tells */
  int64_t page_tokens;   /* a multiple of 32; 0: chosen */
  int64_t page_bytes;    /* of every layer, a multiple of 64, so that one pool of pages serves layers that are stored
                          * differently; 0: as many as each layer's page needs */
  const char *out_dtype; /* of what kvcc_attend writes to `out`: "f32", or that of the queries; NULL: "f32" */
  int64_t queries; /* of a sequence in most steps, 1 to 16 (more than 1 with speculative decoding): on tensor cores
                    * they share passes over the codes as far as they fit. Any number is right in any step; 0: as
                    * many as make no pass longer */
} kvcc_compile_options;

/* Compiles, or finds in the kernel cache, the kernels of all layers that can be served; a model without any
 * is KVCC_UNSUPPORTED. Never call it on the decode path, nor on a thread that captures a CUDA graph: the driver
 * refuses to load kernels then (on every thread, if the capture is global), and so does this, by name. */
KVCC_API kvcc_status kvcc_compile(kvcc_context *context, const kvcc_compile_options *options, kvcc_program **program);
KVCC_API void kvcc_program_destroy(kvcc_program *program);

typedef struct kvcc_program_info {
  size_t size;
  int32_t layers;
  int32_t variants;    /* distinct kernels behind the layers */
  int32_t from_cache;  /* variants that were found in the kernel cache */
  double milliseconds; /* for compiling and loading */
} kvcc_program_info;
KVCC_API kvcc_status kvcc_program_get_info(const kvcc_program *program, kvcc_program_info *info);

typedef struct kvcc_layer_info {
  size_t size;
  int32_t served;              /* 0: left to the framework, and only `unserved_reason` is filled in */
  const char *unserved_reason; /* lives as long as the program */
  int64_t q_heads, kv_heads, head_dim;
  double scale;                /* of q.k, from the model */
  const char *dtype;           /* of query, keys, values: "f16", "bf16", "f32" */
  int64_t sink, recent, flush; /* window, in tokens */
  int64_t page_tokens;
  int64_t page_bytes, slot_bytes;
  double kernel_error_bound; /* relative L2, against exact attention over the cache as stored */
  int64_t max_rollback;      /* tokens that may be taken back, see kvcc_rollback */
  double softcap;            /* logits are softcap * tanh(scale * q.k / softcap); 0: scale * q.k */
  int64_t window_tokens; /* 0: a query reaches all tokens before it. Else: its last window_tokens, itself included, */
  int32_t chunked;       /* or, if this is 1, those of its chunk: from token window_tokens * i on */
  int32_t sink_logits;   /* 1: kvcc_attend takes a learned logit for each query head */
  const char *out_dtype; /* of results: "f32", "f16" or "bf16" */
} kvcc_layer_info;
KVCC_API kvcc_status kvcc_program_get_layer(const kvcc_program *program, int32_t layer, kvcc_layer_info *info);

/* Where one side (keys or values) lies in a block of 32 tokens of one KV head, in bytes from the start of the block; -1
 * where the format has no such thing. */
typedef struct kvcc_side_layout {
  int64_t codes;  /* codes, or numbers of a format that has none */
  int64_t scales; /* one for each group */
  int64_t zeros;  /* zero points, one for each group */
  int64_t norms;  /* token norms, one for each token */
} kvcc_side_layout;

/* Where everything lies in a page: [kv_heads] of head_bytes, each [page_tokens / 32] blocks of block_bytes; page_bytes
 * are all of it. The order of the elements inside a part is the packing, IR text of #kv.packing, which
 * dialect/KvAttrs.td describes with an example; it depends on the kind of the target. With innerq-small and head_dim
 * 128 on a CPU a block is keys:   codes at 0 (32 * 128 * 3 bits = 1536 bytes), scales at 1536 (32 * 4 of f16 = 256
 * bytes) values: codes at 1792 (32 * 128 * 2 bits = 1024 bytes), scales at 2816 (128 of f16 = 256 bytes) so block_bytes
 * are 3072, and with pages of 128 tokens head_bytes are 12288. Block b of KV head h of page p begins at p * page_bytes
 * + h * head_bytes + b * block_bytes; it holds quantized tokens 32 * b to 32 * b + 31 of the page. */
typedef struct kvcc_page_layout {
  size_t size;
  int64_t block_tokens; /* 32 */
  int64_t block_bytes, head_bytes, page_bytes;
  kvcc_side_layout keys, values;
  const char *key_packing, *value_packing, *number_packing; /* of codes, and of formats without; live as the program */
} kvcc_page_layout;
KVCC_API kvcc_status kvcc_program_get_page_layout(const kvcc_program *program, int32_t layer, kvcc_page_layout *layout);

/* Pages that a sequence of `tokens` tokens occupies in a layer. */
KVCC_API kvcc_status kvcc_pages_for(const kvcc_program *program, int32_t layer, int64_t tokens, int64_t *pages);

/* How many pages at the beginning of a sequence are read by no query at a length of `tokens` or more: all of their
 * tokens are out of reach of a layer with window_tokens. Once these tokens have been appended, neither kvcc_append nor
 * kvcc_attend touches the pages any more, and their entries in the table may name any page of the pool. Ask with the
 * least length that the sequence may still be attended at: minus what may be taken back, and minus the queries of a
 * step that come before the last. The other functions know nothing of it: a fork copies what the entries name, as a
 * snapshot does, into pages that are all its own, and kvcc_restore writes all pages. A snapshot that is requantized
 * keeps what its own format would have kept: it can be taken back by as many tokens as that. */
KVCC_API kvcc_status kvcc_expired_pages(const kvcc_program *program, int32_t layer, int64_t tokens, int64_t *pages);

/* How many of `tokens` tokens are quantized; those from token `sink` on. A step whose queries are on both sides of a
 * flush sees the same for all of them: a block that is quantized at the last query's length. An engine that wants
 * drafts to be decoded as single steps would ends them where this number grows. */
KVCC_API kvcc_status kvcc_quantized_tokens(const kvcc_program *program, int32_t layer, int64_t tokens,
                                           int64_t *quantized);

/* Bytes of workspace that kvcc_attend needs for up to `batch` sequences of up to `max_tokens` tokens; with several
 * queries per sequence, `batch` is sequences times queries. One workspace serves all layers and programs, one call at a
 * time. On a GPU its first 16 KiB count what has been done of a call: they must be zero when it is first used, and are
 * zero again after each call. */
KVCC_API kvcc_status kvcc_workspace_bytes(const kvcc_program *program, int32_t layer, int64_t batch, int64_t max_tokens,
                                          size_t *bytes);

/* The same for steps with `split_tokens`, see kvcc_attend_args. */
KVCC_API kvcc_status kvcc_split_workspace_bytes(const kvcc_program *program, int32_t layer, int64_t batch,
                                                int64_t max_tokens, int64_t split_tokens, size_t *bytes);

/* The pools of a layer. Pointers are multiples of 64. Memory of the host for CPU targets, of the device for
 * CUDA targets. Needs no initialization. */
typedef struct kvcc_memory {
  void *pages;
  int64_t num_pages;
  void *slots;
  int64_t num_slots;
} kvcc_memory;

/* For CUDA targets, what is pointed to is memory of the device, unless it says host. */
typedef struct kvcc_append_args {
  size_t size;
  kvcc_memory memory;
  const int32_t *table; /* [batch, table_stride]: pages for the length after the call, see kvcc_pages_for */
  int64_t table_stride;
  const int32_t *slots;    /* [batch] */
  const int32_t *seq_lens; /* [batch]: tokens of each sequence after the call */
  const int32_t *new_lens; /* [batch]: the tokens of it that are new, 0 to max_new; all of them: the sequence begins */
  int64_t batch;
  int64_t max_new;    /* at least every new_len; decides how the work is split */
  const void *keys;   /* of the layer's dtype, after RoPE: token i of KV head h of sequence b at element */
  const void *values; /* b * sequence_stride + i * token_stride + h * head_stride of either */
  int64_t sequence_stride, token_stride, head_stride;
} kvcc_append_args;

/* Adds tokens at the ends of sequences, and quantizes what leaves their recent windows. Finite numbers that are too
 * large for a format become its largest; what is not finite spoils its own sequence only. CPU targets: done on return.
 * CUDA targets: asynchronous on `stream`, legal during stream capture. Allocates nothing. */
KVCC_API kvcc_status kvcc_append(const kvcc_program *program, int32_t layer, const kvcc_append_args *args,
                                 void *stream);

/* The length of a sequence of `tokens` tokens without its last `count`; 0 to max_rollback of them, and not more than
 * that below the greatest length it has had. What has been taken back counts for its forks and snapshots, too. Changes
 * nothing else. */
KVCC_API kvcc_status kvcc_rollback(const kvcc_program *program, int32_t layer, int64_t tokens, int64_t count,
                                   int64_t *result);

/* How many pages of a sequence of `tokens` tokens a fork shares: the first ones, which no append or rollback of either
 * sequence changes any more. */
KVCC_API kvcc_status kvcc_shared_pages(const kvcc_program *program, int32_t layer, int64_t tokens, int64_t *pages);

typedef struct kvcc_fork_args {
  size_t size;
  kvcc_memory memory;
  const int32_t *table; /* host, [table_length]: pages of the sequence */
  int32_t slot;
  const int32_t *fork_table; /* host, [table_length]: the shared pages of `table` first, pages of its own after them */
  int32_t fork_slot;
  int64_t table_length;
  int64_t tokens; /* of the sequence, and of the fork */
} kvcc_fork_args;

/* Makes a sequence with the same tokens: copies the slot and the pages that are not shared. Asynchronous on `stream`
 * for CUDA targets. */
KVCC_API kvcc_status kvcc_fork(const kvcc_program *program, int32_t layer, const kvcc_fork_args *args, void *stream);

/* The caller has filled a slot, and the pages of its sequence, itself: moved them to other memory, or back from where
 * they had been swapped out. Validation then takes the length that the next kvcc_append sees for the right one; without
 * it, and for CUDA targets, this does nothing. It must not be called while the sequence is written. */
KVCC_API kvcc_status kvcc_adopt(const kvcc_program *program, int32_t layer, const kvcc_memory *memory, int32_t slot);

typedef struct kvcc_snapshot_args {
  size_t size;
  kvcc_memory memory;
  const int32_t *table; /* host, [table_length] */
  int64_t table_length;
  int32_t slot;
  int64_t tokens;      /* of the sequence; kvcc_restore fills it in */
  void *bytes;         /* host */
  size_t bytes_length; /* at least kvcc_snapshot_bytes; kvcc_restore: of the snapshot */
} kvcc_snapshot_args;

KVCC_API kvcc_status kvcc_snapshot_bytes(const kvcc_program *program, int32_t layer, int64_t tokens, size_t *bytes);
/* The tokens of a snapshot, whatever its scheme. */
KVCC_API kvcc_status kvcc_snapshot_tokens(const void *bytes, size_t bytes_length, int64_t *tokens);
/* Writes a sequence to bytes that name its format and end in a checksum. Waits for `stream` on CUDA targets. */
KVCC_API kvcc_status kvcc_snapshot(const kvcc_program *program, int32_t layer, const kvcc_snapshot_args *args,
                                   void *stream);
/* Fills a sequence from a snapshot of the same format, bit for bit. Another format, page size or packing is refused
 * unless `requantize` is 1: then the numbers that the snapshot stands for are written in the format of the layer.
 * The shape and dtype must be the layer's. A damaged snapshot is refused, and memory is as it was. The checksum is no
 * signature: who can write a snapshot can give it any tokens, but no more than that (see above). */
KVCC_API kvcc_status kvcc_restore(const kvcc_program *program, int32_t layer, kvcc_snapshot_args *args,
                                  int32_t requantize, void *stream);

typedef struct kvcc_attend_args {
  size_t size;
  kvcc_memory memory;
  const int32_t *table; /* [batch, table_stride] */
  int64_t table_stride;
  const int32_t *slots;    /* [batch] */
  const int32_t *seq_lens; /* [batch]; 0 gives out = 0 and lse = -inf (or the sink logit) */
  int64_t batch;
  int64_t max_tokens; /* at least every seq_len; decides how the work is split */
  const void *query;  /* [batch, queries, q_heads, head_dim] of the layer's dtype, after RoPE, not scaled */
  void *out;          /* [batch, queries, q_heads, head_dim] of out_dtype */
  float *lse;         /* [batch, queries, q_heads]: natural logarithm of the sum of exp of the logits */
  void *workspace;    /* at a multiple of 16 bytes; may be NULL if kvcc_workspace_bytes says 0 */
  size_t workspace_bytes;
  int64_t queries;    /* 1 to 16, 0 is 1: of the last tokens; query i sees all but the last queries - 1 - i tokens */
  const float *sinks; /* [q_heads]: the logits that join the softmax, of a layer with sink_logits; not read otherwise */
  int64_t
      split_tokens; /* 0, or how many tokens at a time a sequence is split into, a multiple of 256: results of a
                     * sequence have the same bits then, whatever else is in the batch and on however many threads */
} kvcc_attend_args;

/* One decode step. All queries see the same cache: a block that leaves the window with one of the last tokens is
 * quantized for the queries before it, too. How a step is split among processors depends on the batch and changes
 * results by rounding, within kernel_error_bound, unless split_tokens says how; with one thread a CPU target splits
 * nothing, and they do not depend on it. CPU targets: done on return. CUDA targets: asynchronous on `stream` (a
 * cudaStream_t or CUstream), legal during stream capture; tables, slots and lengths are device memory and cannot be
 * checked. Allocates nothing. */
KVCC_API kvcc_status kvcc_attend(const kvcc_program *program, int32_t layer, const kvcc_attend_args *args,
                                 void *stream);

typedef struct kvcc_merge_args {
  size_t size;
  const float *outs; /* [parts, rows, head_dim], rows are batch * queries * q_heads; finite, even of empty parts */
  const float *lses; /* [parts, rows]; -inf: the part has no tokens */
  int64_t parts, rows;
  float *out; /* [rows, head_dim] */
  float *lse; /* [rows] */
} kvcc_merge_args;

/* Merges results over disjoint sets of tokens, such as parts of a long sequence on several machines, into that over all
 * of them: out = sum_i exp(lse_i) out_i / sum_i exp(lse_i), lse = ln sum_i exp(lse_i). A sink logit may be in one part
 * only. Memory and asynchrony are as for kvcc_attend. */
KVCC_API kvcc_status kvcc_merge(const kvcc_program *program, int32_t layer, const kvcc_merge_args *args, void *stream);

#ifdef __cplusplus
}
#endif

#endif
