// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The C interface: checks arguments, translates errors, and calls what the tools call.
#define KVCC_BUILD
#include "runtime/kvcc.h"

#include "runtime/CacheContents.h"
#include "runtime/Check.h"
#include "runtime/ErrorKind.h"
#include "runtime/ModelProgram.h"

#include <chrono>
#include <cstring>

using namespace llvm;
using namespace kvcc;

/// Owned by its handle and by the programs compiled with it.
struct kvcc_context : std::enable_shared_from_this<kvcc_context> {
  kvcc_context(CacheOptions options, const kvcc_context_options &given)
      : compiler(std::move(options)), pool(given.threads, given.parallel_for, given.parallel_for_user) {}
  Compiler compiler;
  ThreadPool pool;
  std::shared_ptr<kvcc_context> handle; ///< itself, until kvcc_context_destroy
};

struct kvcc_program {
  std::shared_ptr<kvcc_context> context; // before what lives in it
  std::unique_ptr<ModelProgram> model;
  double milliseconds = 0;
};

namespace {

thread_local std::string lastMessage;

kvcc_status report(Error error) {
  if (!error)
    return KVCC_OK;
  auto [kind, message] = takeKind(std::move(error));
  lastMessage = std::move(message);
  switch (kind) {
  case ErrorKind::InvalidArgument:
    return KVCC_INVALID_ARGUMENT;
  case ErrorKind::Unsupported:
    return KVCC_UNSUPPORTED;
  case ErrorKind::Unavailable:
    return KVCC_UNAVAILABLE;
  case ErrorKind::Failed:
    return KVCC_FAILED;
  }
  llvm_unreachable("unknown kind");
}

Error expected(const Twine &what, const Twine &got) {
  return createStringError("expected " + what + ", but got " + got);
}

Error notNull(const void *pointer, StringRef name) {
  return pointer ? Error::success() : expected(name + " that is not null", "null");
}

/// The structure of a caller, who may have been built with other versions of it.
template <typename T> Error checkStruct(const T *structure, StringRef name) {
  if (!structure)
    return notNull(structure, name);
  if (structure->size != sizeof(T))
    return expected(name + ".size of " + Twine(sizeof(T)), Twine(structure->size));
  return Error::success();
}

Error notNegative(int64_t value, StringRef name) {
  return value >= 0 ? Error::success() : expected(name + " of at least 0", Twine(value));
}

Expected<const Program *> getLayer(const kvcc_program *program, int32_t layer) {
  if (Error error = notNull(program, "program"))
    return std::move(error);
  size_t layers = program->model->getModel().layers.size();
  if (layer < 0 || size_t(layer) >= layers)
    return expected("layer from 0 to " + Twine(layers - 1), Twine(layer));
  if (const Program *found = program->model->getProgram(size_t(layer)))
    return found;
  return withKind(
      ErrorKind::Unsupported,
      createStringError("layer " + Twine(layer) + ": " + program->model->getModel().layers[size_t(layer)].unsupported));
}

Error checkMemory(const kvcc_memory &memory) {
  if (Error error = notNegative(memory.num_pages, "num_pages"))
    return error;
  if (Error error = notNegative(memory.num_slots, "num_slots"))
    return error;
  if (memory.num_pages)
    if (Error error = notNull(memory.pages, "memory.pages"))
      return error;
  if (Error error = notNull(memory.slots, "memory.slots"))
    return error;
  for (auto [pointer, name] : {std::pair(memory.pages, "pages"), std::pair(memory.slots, "slots")})
    if (uintptr_t(pointer) % 64)
      return expected(Twine("memory.") + name + " at a multiple of 64 bytes",
                      "0x" + Twine::utohexstr(uintptr_t(pointer)));
  return Error::success();
}

/// The part of a block table that a sequence uses.
Error checkTable(const Program &program, const int32_t *table, int64_t length, int64_t tokens,
                 const kvcc_memory &memory) {
  int64_t pages = program.getPages(tokens);
  if (pages == 0)
    return Error::success();
  if (Error error = notNull(table, "table"))
    return error;
  if (length < pages)
    return expected("a table of at least " + Twine(pages) + " pages for " + Twine(tokens) + " tokens", Twine(length));
  for (int64_t i = 0; i < pages; ++i)
    if (table[i] < 0 || table[i] >= memory.num_pages)
      return expected("table entries from 0 to num_pages - 1 = " + Twine(memory.num_pages - 1),
                      Twine(table[i]) + " at entry " + Twine(i));
  return Error::success();
}

Error checkSlot(int32_t slot, const kvcc_memory &memory) {
  if (slot < 0 || slot >= memory.num_slots)
    return expected("a slot from 0 to num_slots - 1 = " + Twine(memory.num_slots - 1), Twine(slot));
  return Error::success();
}

Error compile(kvcc_context *context, const kvcc_compile_options *options, kvcc_program **program) {
  if (Error error = notNull(program, "program"))
    return error;
  *program = nullptr;
  if (Error error = notNull(context, "context"))
    return error;
  if (Error error = checkStruct(options, "options"))
    return error;
  for (auto [text, name] :
       {std::pair(options->model, "model"), std::pair(options->scheme, "scheme"), std::pair(options->target, "target")})
    if (Error error = notNull(text, name))
      return error;
  auto start = std::chrono::steady_clock::now();
  auto model = loadModelConfig(options->model);
  if (!model)
    return model.takeError();
  ModelRequest request{options->scheme, options->target, options->dtype ? options->dtype : "", {}};
  request.options.compute = options->compute ? options->compute : "auto";
  request.options.page = options->page_tokens;
  auto result = std::make_unique<kvcc_program>();
  result->context = context->shared_from_this();
  auto loaded = ModelProgram::load(context->compiler, std::move(*model), request, context->pool);
  if (!loaded)
    return loaded.takeError();
  result->model = std::move(*loaded);
  result->milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  *program = result.release();
  return Error::success();
}

Error prefill(const kvcc_program *handle, int32_t layer, const kvcc_prefill_args *args) {
  auto program = getLayer(handle, layer);
  if (!program)
    return program.takeError();
  if (Error error = checkStruct(args, "args"))
    return error;
  if (Error error = checkMemory(args->memory))
    return error;
  if (Error error = notNegative(args->tokens, "tokens"))
    return error;
  if (args->tokens > INT32_MAX)
    return expected("tokens of at most " + Twine(INT32_MAX), Twine(args->tokens));
  if (Error error = checkSlot(args->slot, args->memory))
    return error;
  if (Error error = checkTable(**program, args->table, args->table_length, args->tokens, args->memory))
    return error;
  if (args->tokens) {
    if (Error error = notNull(args->keys, "keys"))
      return error;
    if (Error error = notNull(args->values, "values"))
      return error;
  }
  const Plan &plan = (*program)->getPlan();
  int64_t dense = args->tokens * plan.shape.headDim;
  for (auto [stride, name] :
       {std::pair(args->key_head_stride, "key_head_stride"), std::pair(args->value_head_stride, "value_head_stride")})
    if (stride && stride < dense)
      return expected(Twine(name) + " of 0 or at least tokens * head_dim = " + Twine(dense), Twine(stride));
  SequenceMemory memory{static_cast<uint8_t *>(args->memory.pages), args->table,
                        static_cast<uint8_t *>(args->memory.slots) + args->slot * (*program)->getLayout().slotBytes};
  return writePrefill(plan.cache, plan.schedule, memory,
                      {args->keys, args->key_head_stride ? args->key_head_stride : dense},
                      {args->values, args->value_head_stride ? args->value_head_stride : dense}, args->tokens,
                      handle->context->pool, handle->model->getStatistics(size_t(layer)));
}

Error attend(const kvcc_program *handle, int32_t layer, const kvcc_attend_args *args, void *stream) {
  auto program = getLayer(handle, layer);
  if (!program)
    return program.takeError();
  if (Error error = checkStruct(args, "args"))
    return error;
  if (Error error = notNegative(args->batch, "batch"))
    return error;
  if (Error error = notNegative(args->max_tokens, "max_tokens"))
    return error;
  if (args->batch == 0)
    return Error::success();
  if (args->batch > UINT16_MAX)
    return expected("a batch of at most " + Twine(UINT16_MAX), Twine(args->batch));
  if (Error error = checkMemory(args->memory))
    return error;
  for (auto [pointer, name] : {std::pair<const void *, const char *>(args->slots, "slots"),
                               {args->seq_lens, "seq_lens"},
                               {args->query, "query"},
                               {args->out, "out"},
                               {args->lse, "lse"}})
    if (Error error = notNull(pointer, name))
      return error;
  if (Error error = notNegative(args->table_stride, "table_stride"))
    return error;
  if ((*program)->getPlan().target.executor != Executor::CudaDevice)
    for (int64_t b = 0; b < args->batch; ++b) {
      int64_t tokens = args->seq_lens[b];
      if (tokens < 0 || tokens > args->max_tokens)
        return expected("seq_lens from 0 to max_tokens = " + Twine(args->max_tokens),
                        Twine(tokens) + " for sequence " + Twine(b));
      if (Error error = checkSlot(args->slots[b], args->memory))
        return error;
      if (Error error = checkTable(**program, args->table ? args->table + b * args->table_stride : nullptr,
                                   args->table_stride, tokens, args->memory))
        return error;
    }
  int64_t splits = (*program)->chooseSplits(args->batch, args->max_tokens, 0);
  size_t bytes = (*program)->getWorkspaceBytes(args->batch, splits);
  if (bytes) {
    if (Error error = notNull(args->workspace, "workspace"))
      return error;
    if (args->workspace_bytes < bytes)
      return expected("a workspace of at least " + Twine(bytes) + " bytes", Twine(args->workspace_bytes));
  }
  AttendCall call;
  call.query = args->query;
  call.pages = args->memory.pages;
  call.table = args->table;
  call.slots = args->memory.slots;
  call.slotIds = args->slots;
  call.lens = args->seq_lens;
  call.out = args->out;
  call.lse = args->lse;
  call.workspace = args->workspace;
  call.tableStride = args->table_stride;
  call.batch = args->batch;
  call.splits = splits;
  call.stream = stream;
  return withKind(ErrorKind::Failed, (*program)->attend(call));
}

} // namespace

const char *kvcc_version(void) { return KVCC_VERSION; }
const char *kvcc_last_message(void) { return lastMessage.c_str(); }

kvcc_status kvcc_context_create(const kvcc_context_options *options, kvcc_context **context) {
  return report([&]() -> Error {
    if (Error error = notNull(context, "context"))
      return error;
    *context = nullptr;
    CacheOptions cache;
    kvcc_context_options given = {};
    if (options) {
      // The first version ended before parallel_for.
      if (options->size != offsetof(kvcc_context_options, parallel_for))
        if (Error error = checkStruct(options, "options"))
          return error;
      std::memcpy(&given, options, options->size);
      if (options->cache_dir)
        cache.directory = options->cache_dir;
      if (options->threads > 1024)
        return expected("threads from 0 to 1024", Twine(options->threads));
    }
    auto created = std::make_shared<kvcc_context>(std::move(cache), given);
    created->handle = created;
    *context = created.get();
    return Error::success();
  }());
}

void kvcc_context_destroy(kvcc_context *context) {
  if (context)
    std::shared_ptr<kvcc_context> last = std::move(context->handle);
}

kvcc_status kvcc_compile(kvcc_context *context, const kvcc_compile_options *options, kvcc_program **program) {
  return report(compile(context, options, program));
}

void kvcc_program_destroy(kvcc_program *program) { delete program; }

kvcc_status kvcc_program_get_info(const kvcc_program *program, kvcc_program_info *info) {
  return report([&]() -> Error {
    if (Error error = notNull(program, "program"))
      return error;
    if (Error error = checkStruct(info, "info"))
      return error;
    auto variants = program->model->getVariants();
    info->layers = int32_t(program->model->getModel().layers.size());
    info->variants = int32_t(variants.size());
    info->from_cache = int32_t(count_if(variants, [](const auto &variant) { return variant->wasCached(); }));
    info->milliseconds = program->milliseconds;
    return Error::success();
  }());
}

kvcc_status kvcc_program_get_layer(const kvcc_program *handle, int32_t layer, kvcc_layer_info *info) {
  return report([&]() -> Error {
    if (Error error = checkStruct(info, "info"))
      return error;
    auto program = getLayer(handle, layer);
    kvcc_layer_info result = {};
    result.size = sizeof(result);
    if (!program) {
      auto [kind, message] = takeKind(program.takeError());
      if (kind != ErrorKind::Unsupported)
        return createStringError(message);
      result.unserved_reason = handle->model->getModel().layers[size_t(layer)].unsupported.c_str();
      *info = result;
      return Error::success();
    }
    const Plan &plan = (*program)->getPlan();
    const kv::CacheLayout &layout = (*program)->getLayout();
    result.served = 1;
    result.q_heads = plan.shape.qHeads;
    result.kv_heads = plan.shape.kvHeads;
    result.head_dim = plan.shape.headDim;
    result.scale = plan.shape.scale;
    mlir::Type dtype = plan.cache.getDtype();
    result.dtype = dtype.isF16() ? "f16" : dtype.isBF16() ? "bf16" : "f32";
    result.sink = plan.cache.getWindow().getSink();
    result.recent = plan.cache.getWindow().getRecent();
    result.flush = plan.cache.getWindow().getFlush();
    result.page_tokens = plan.schedule.getPage();
    result.page_bytes = layout.pageBytes;
    result.slot_bytes = layout.slotBytes;
    result.kernel_error_bound = getErrorBound(plan);
    *info = result;
    return Error::success();
  }());
}

kvcc_status kvcc_pages_for(const kvcc_program *handle, int32_t layer, int64_t tokens, int64_t *pages) {
  return report([&]() -> Error {
    auto program = getLayer(handle, layer);
    if (!program)
      return program.takeError();
    if (Error error = notNull(pages, "pages"))
      return error;
    if (Error error = notNegative(tokens, "tokens"))
      return error;
    *pages = (*program)->getPages(tokens);
    return Error::success();
  }());
}

kvcc_status kvcc_workspace_bytes(const kvcc_program *handle, int32_t layer, int64_t batch, int64_t maxTokens,
                                 size_t *bytes) {
  return report([&]() -> Error {
    auto program = getLayer(handle, layer);
    if (!program)
      return program.takeError();
    if (Error error = notNull(bytes, "bytes"))
      return error;
    if (Error error = notNegative(batch, "batch"))
      return error;
    if (Error error = notNegative(maxTokens, "max_tokens"))
      return error;
    // Fewer sequences or tokens may be split more often: the most that any of them needs.
    *bytes = 0;
    for (int64_t b = 1; b <= batch; ++b)
      *bytes = std::max(*bytes, (*program)->getWorkspaceBytes(b, (*program)->chooseSplits(b, maxTokens, 0)));
    return Error::success();
  }());
}

kvcc_status kvcc_prefill(const kvcc_program *program, int32_t layer, const kvcc_prefill_args *args) {
  return report(prefill(program, layer, args));
}

kvcc_status kvcc_attend(const kvcc_program *program, int32_t layer, const kvcc_attend_args *args, void *stream) {
  return report(attend(program, layer, args, stream));
}
