// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The C interface: checks arguments, translates errors, and calls what the tools call.
#define KVCC_BUILD
#include "runtime/CApiSupport.h"
#include "runtime/Check.h"

#include <chrono>
#include <cstdlib>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::capi;

static bool wantsValidation(const kvcc_context_options &given) {
  const char *variable = std::getenv("KVCC_VALIDATE");
  return given.validate || (variable && StringRef(variable) == "1");
}

kvcc_context::kvcc_context(CacheOptions options, const kvcc_context_options &given)
    : compiler(std::move(options)), pool(given.threads, given.parallel_for, given.parallel_for_user),
      validates(wantsValidation(given)) {}

static thread_local std::string lastMessage;

kvcc_status capi::report(Error error) {
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

Error capi::expected(const Twine &what, const Twine &got) {
  return createStringError("expected " + what + ", but got " + got);
}

Error capi::notNull(const void *pointer, StringRef name) {
  return pointer ? Error::success() : expected(name + " that is not null", "null");
}

Error capi::notNegative(int64_t value, StringRef name) {
  return value >= 0 ? Error::success() : expected(name + " of at least 0", Twine(value));
}

Expected<const Program *> capi::getLayer(const kvcc_program *program, int32_t layer) {
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

Error capi::checkTokens(int64_t tokens) {
  if (tokens < 0 || tokens > INT32_MAX)
    return expected("tokens from 0 to 2^31 - 1", Twine(tokens));
  return Error::success();
}

Error capi::checkMemory(const kvcc_memory &memory) {
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

Error capi::checkTable(const Program &program, const int32_t *table, int64_t length, int64_t tokens,
                       const kvcc_memory &memory, bool entries) {
  int64_t pages = program.getPages(tokens);
  if (pages == 0)
    return Error::success();
  if (Error error = notNull(table, "table"))
    return error;
  if (length < pages)
    return expected("a table of at least " + Twine(pages) + " pages for " + Twine(tokens) + " tokens", Twine(length));
  for (int64_t i = 0; entries && i < pages; ++i)
    if (table[i] < 0 || table[i] >= memory.num_pages)
      return expected("table entries from 0 to num_pages - 1 = " + Twine(memory.num_pages - 1),
                      Twine(table[i]) + " at entry " + Twine(i));
  return Error::success();
}

Error capi::checkSlot(int32_t slot, const kvcc_memory &memory) {
  if (slot < 0 || slot >= memory.num_slots)
    return expected("a slot from 0 to num_slots - 1 = " + Twine(memory.num_slots - 1), Twine(slot));
  return Error::success();
}

namespace {

Error compile(kvcc_context *context, const kvcc_compile_options *options, kvcc_program **program) {
  if (Error error = notNull(program, "program"))
    return error;
  *program = nullptr;
  if (Error error = notNull(context, "context"))
    return error;
  kvcc_compile_options full;
  if (Error error = readStruct(options, "options", full, offsetof(kvcc_compile_options, page_bytes)))
    return error;
  options = &full;
  for (auto [text, name] :
       {std::pair(options->model, "model"), std::pair(options->scheme, "scheme"), std::pair(options->target, "target")})
    if (Error error = notNull(text, name))
      return error;
  auto start = std::chrono::steady_clock::now();
  auto model = loadModelConfig(options->model);
  if (!model)
    return model.takeError();
  ModelRequest request{options->scheme,
                       options->target,
                       options->dtype ? options->dtype : "",
                       {},
                       options->out_dtype ? options->out_dtype : ""};
  request.options.compute = options->compute ? options->compute : "auto";
  request.options.page = options->page_tokens;
  request.options.pageBytes = options->page_bytes;
  request.options.queries = options->queries;
  auto result = std::make_unique<kvcc_program>();
  result->context = context->shared_from_this();
  auto loaded = ModelProgram::load(context->compiler, std::move(*model), request, context->pool);
  if (!loaded)
    return loaded.takeError();
  result->model = std::move(*loaded);
  bool onHost = any_of(result->model->getVariants(),
                       [](const auto &variant) { return variant->getPlan().target.executor != Executor::CudaDevice; });
  if (context->validates && onHost)
    result->ledger = std::make_unique<SequenceLedger>();
  result->milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  *program = result.release();
  return Error::success();
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
      if (Error error = readStruct(options, "options", given, offsetof(kvcc_context_options, parallel_for)))
        return error;
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
    kvcc_program_info full;
    if (Error error = readStruct(info, "info", full))
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
    kvcc_layer_info result;
    if (Error error = readStruct(info, "info", result, offsetof(kvcc_layer_info, max_rollback)))
      return error;
    auto program = getLayer(handle, layer);
    size_t size = info->size;
    result = {};
    result.size = size;
    if (!program) {
      auto [kind, message] = takeKind(program.takeError());
      if (kind != ErrorKind::Unsupported)
        return createStringError(message);
      result.unserved_reason = handle->model->getModel().layers[size_t(layer)].unsupported.c_str();
      std::memcpy(static_cast<void *>(info), &result, size);
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
    result.out_dtype = plan.shape.roundsOut ? result.dtype : "f32";
    result.sink = plan.cache.getWindow().getSink();
    result.recent = plan.cache.getWindow().getRecent();
    result.flush = plan.cache.getWindow().getFlush();
    result.page_tokens = plan.schedule.getPage();
    result.page_bytes = layout.pageBytes;
    result.slot_bytes = layout.slotBytes;
    result.kernel_error_bound = getErrorBound(plan);
    result.max_rollback = plan.cache.getWindow().getRollback();
    result.softcap = plan.shape.softcap;
    result.window_tokens = plan.shape.windowTokens;
    result.chunked = plan.shape.reach == kv::Reach::Chunked;
    result.sink_logits = plan.shape.sinkLogits;
    std::memcpy(static_cast<void *>(info), &result, size);
    return Error::success();
  }());
}

/// The offsets of a side, of what its format has.
static kvcc_side_layout describe(kv::QuantAttr quant, const kv::SideLayout &side) {
  return {side.data, quant.isQuantized() ? side.scales : -1, quant.hasZeros() ? side.zeros : -1,
          quant.getTransform<kv::TokenNormAttr>() ? side.norms : -1};
}

kvcc_status kvcc_program_get_page_layout(const kvcc_program *handle, int32_t layer, kvcc_page_layout *layout) {
  return report([&]() -> Error {
    kvcc_page_layout result;
    if (Error error = readStruct(layout, "layout", result))
      return error;
    auto program = getLayer(handle, layer);
    if (!program)
      return program.takeError();
    const kv::CacheLayout &in = (*program)->getLayout();
    const Plan &plan = (*program)->getPlan();
    result.block_tokens = kv::kBlockTokens;
    result.block_bytes = in.page.bytes;
    result.head_bytes = in.pageHeadBytes;
    result.page_bytes = in.pageBytes;
    result.keys = describe(plan.cache.getKey(), in.page.key);
    result.values = describe(plan.cache.getValue(), in.page.value);
    result.key_packing = (*program)->getPackings().key.c_str();
    result.value_packing = (*program)->getPackings().value.c_str();
    result.number_packing = (*program)->getPackings().floats.c_str();
    *layout = result;
    return Error::success();
  }());
}

kvcc_status kvcc_pages_for(const kvcc_program *handle, int32_t layer, int64_t tokens, int64_t *pages) {
  return answer<int64_t>(handle, layer, tokens, pages, "pages",
                         [&](const Program &program) { return program.getPages(tokens); });
}

kvcc_status kvcc_expired_pages(const kvcc_program *handle, int32_t layer, int64_t tokens, int64_t *pages) {
  return answer<int64_t>(handle, layer, tokens, pages, "pages",
                         [&](const Program &program) { return program.getExpiredPages(tokens); });
}

kvcc_status kvcc_quantized_tokens(const kvcc_program *handle, int32_t layer, int64_t tokens, int64_t *quantized) {
  return answer<int64_t>(handle, layer, tokens, quantized, "quantized", [&](const Program &program) {
    return program.getPlan().cache.getWindow().getQuantizedTokens(tokens);
  });
}

Error capi::checkSplitTokens(int64_t splitTokens, int64_t maxTokens) {
  constexpr int64_t kGranule = 256; // the largest stage
  if (splitTokens < 0 || splitTokens % kGranule || splitTokens > INT32_MAX)
    return expected("split_tokens of 0 or a multiple of " + Twine(kGranule), Twine(splitTokens));
  return splitTokens ? checkTokens(maxTokens) : Error::success();
}

kvcc_status kvcc_split_workspace_bytes(const kvcc_program *handle, int32_t layer, int64_t batch, int64_t maxTokens,
                                       int64_t splitTokens, size_t *bytes) {
  return report([&]() -> Error {
    auto program = getLayer(handle, layer);
    if (!program)
      return program.takeError();
    if (Error error = notNull(bytes, "bytes"))
      return error;
    if (batch < 0 || batch > UINT16_MAX)
      return expected("batch from 0 to " + Twine(UINT16_MAX), Twine(batch));
    if (Error error = notNegative(maxTokens, "max_tokens"))
      return error;
    if (Error error = checkSplitTokens(splitTokens, maxTokens))
      return error;
    if (splitTokens) {
      *bytes = (*program)->getWorkspaceBytes(batch, (*program)->getSplits(splitTokens / kv::kBlockTokens, maxTokens));
      return Error::success();
    }
    // Fewer sequences or tokens may be split more often: the most that any of them needs.
    *bytes = 0;
    for (int64_t b = 1; b <= batch; ++b)
      *bytes = std::max(*bytes, (*program)->getWorkspaceBytes(b, (*program)->getMostSplits(b, maxTokens, 0)));
    return Error::success();
  }());
}

kvcc_status kvcc_workspace_bytes(const kvcc_program *handle, int32_t layer, int64_t batch, int64_t maxTokens,
                                 size_t *bytes) {
  return kvcc_split_workspace_bytes(handle, layer, batch, maxTokens, /*splitTokens=*/0, bytes);
}
