// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc._native: kvcc.h for Python. Takes arrays of any library that speaks DLPack or the buffer protocol, checks what
// the C interface trusts (shapes, dtypes, devices; on the host also tables, slots and lengths), releases the GIL, and
// turns a status into an exception of kvcc.errors. Links nothing but libkvcc.so; everything else is written in Python.
#include <kvcc.h>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

namespace nb = nanobind;
using nb::dlpack::dtype_code;

namespace {

using Input = nb::ndarray<nb::ro>;
using Output = nb::ndarray<>;

//===-------------------------------------------------------------------------------------------------------------===//
// Errors
//===-------------------------------------------------------------------------------------------------------------===//

[[noreturn]] void raise(const char *name, const std::string &message) {
  nb::object type = nb::module_::import_("kvcc.errors").attr(name);
  PyErr_SetString(type.ptr(), message.c_str());
  throw nb::python_error();
}

[[noreturn]] void expected(const std::string &what, const std::string &got) {
  raise("InvalidArgument", "expected " + what + ", but got " + got);
}

void check(kvcc_status status, const std::string &message) {
  switch (status) {
  case KVCC_OK:
    return;
  case KVCC_INVALID_ARGUMENT:
    raise("InvalidArgument", message);
  case KVCC_UNSUPPORTED:
    raise("Unsupported", message);
  case KVCC_UNAVAILABLE:
    raise("Unavailable", message);
  case KVCC_FAILED:
    break;
  }
  raise("Failed", message); // and what later versions may add
}

/// For a function of the C interface that only answers a question.
void check(kvcc_status status) {
  if (status != KVCC_OK)
    check(status, kvcc_last_message());
}

/// For one that works: without the GIL. Its message is this thread's, so it is taken before others run.
template <typename Call> void run(Call call) {
  kvcc_status status;
  std::string message;
  {
    nb::gil_scoped_release release;
    status = call();
    if (status != KVCC_OK)
      message = kvcc_last_message();
  }
  check(status, message);
}

template <typename T> T sized() {
  T structure = {};
  structure.size = sizeof(T);
  return structure;
}

//===-------------------------------------------------------------------------------------------------------------===//
// Arrays
//===-------------------------------------------------------------------------------------------------------------===//

std::string nameOf(nb::dlpack::dtype type) {
  std::string bits = std::to_string(type.bits);
  switch (dtype_code(type.code)) {
  case dtype_code::Int:
    return "int" + bits;
  case dtype_code::UInt:
    return "uint" + bits;
  case dtype_code::Float:
    return "float" + bits;
  case dtype_code::Bfloat:
    return "bfloat" + bits;
  case dtype_code::Complex:
    return "complex" + bits;
  case dtype_code::Bool:
    return "bool";
  default:
    return "another type of " + bits + " bits";
  }
}

std::string nameOf(int device) {
  return device == nb::device::cpu::value    ? "cpu"
         : device == nb::device::cuda::value ? "cuda"
                                             : "device type " + std::to_string(device);
}

constexpr nb::dlpack::dtype makeType(dtype_code code, uint8_t bits) { return {uint8_t(code), bits, 1}; }
constexpr auto int32Type = makeType(dtype_code::Int, 32);
constexpr auto float32Type = makeType(dtype_code::Float, 32);
constexpr auto uint8Type = makeType(dtype_code::UInt, 8);

template <typename Array> std::string shapeOf(const Array &array) {
  std::string text = "[";
  for (size_t i = 0; i < array.ndim(); ++i)
    text += (i ? ", " : "") + std::to_string(array.shape(i));
  return text + "]";
}

/// An extent that may be any.
constexpr int64_t any = -1;

std::string shapeOf(const std::vector<int64_t> &shape, const char *axes) {
  std::string text = std::string("[") + axes + "] = [";
  for (size_t i = 0; i < shape.size(); ++i)
    text += (i ? ", " : "") + (shape[i] == any ? "any" : std::to_string(shape[i]));
  return text + "]";
}

/// Where the arrays of a program have to be, and of what type its numbers are.
struct Place {
  int device;
  nb::dlpack::dtype number;
};

/// That an array is what a call needs; strides are looked at by isContiguous, where they matter.
template <typename Array>
void checkArray(const Array &array, const char *name, const Place &place, nb::dlpack::dtype type, const char *axes,
                const std::vector<int64_t> &shape) {
  if (array.dtype() != type)
    expected(std::string(name) + " of " + nameOf(type), nameOf(array.dtype()));
  if (array.device_type() != place.device)
    expected(std::string(name) + " on " + nameOf(place.device), nameOf(array.device_type()));
  bool fits = array.ndim() == shape.size();
  for (size_t i = 0; fits && i < shape.size(); ++i)
    fits = shape[i] == any || int64_t(array.shape(i)) == shape[i];
  if (!fits)
    expected(std::string(name) + " of shape " + shapeOf(shape, axes), shapeOf(array));
}

template <typename Array> bool isEmpty(const Array &array) {
  for (size_t i = 0; i < array.ndim(); ++i)
    if (array.shape(i) == 0)
      return true;
  return false;
}

/// From axis `from` on, in C order.
template <typename Array> bool isContiguous(const Array &array, size_t from = 0) {
  int64_t stride = 1;
  for (size_t i = array.ndim(); i-- > from; stride *= int64_t(array.shape(i)))
    if (array.shape(i) > 1 && array.stride(i) != stride)
      return false;
  return true;
}

template <typename Array>
void checkContiguous(const Array &array, const char *name, const Place &place, nb::dlpack::dtype type, const char *axes,
                     const std::vector<int64_t> &shape) {
  checkArray(array, name, place, type, axes, shape);
  if (!isEmpty(array) && !isContiguous(array))
    expected(std::string(name) + " that is contiguous in C order", "other strides; make a contiguous copy of it");
}

/// The array in an argument; nanobind's own error would not name it.
template <typename Array> Array take(nb::handle object, const char *name) {
  Array array;
  if (!nb::try_cast(object, array))
    expected(std::string(name) + " to be " + (std::is_same_v<Array, Input> ? "an" : "a writable") +
                 " array that speaks DLPack or the buffer protocol (a tensor of PyTorch: detached)",
             "a " + nb::cast<std::string>(object.type().attr("__name__")));
  return array;
}

template <typename T, typename Array> T *dataOf(const Array &array) {
  return reinterpret_cast<T *>(static_cast<char *>(array.data_handle()) + array.byte_offset());
}

//===-------------------------------------------------------------------------------------------------------------===//
// Handles
//===-------------------------------------------------------------------------------------------------------------===//

class Context {
public:
  Context(std::optional<std::string> cacheDir, uint32_t threads, bool validate) {
    auto options = sized<kvcc_context_options>();
    options.cache_dir = cacheDir ? cacheDir->c_str() : nullptr;
    options.threads = threads;
    options.validate = validate;
    kvcc_context *created = nullptr;
    run([&] { return kvcc_context_create(&options, &created); });
    handle.reset(created);
  }
  kvcc_context *get() const { return handle.get(); }

private:
  struct Destroy {
    void operator()(kvcc_context *context) const { kvcc_context_destroy(context); }
  };
  std::unique_ptr<kvcc_context, Destroy> handle;
};

/// The pools of a layer, which it keeps alive.
struct Memory {
  Output pages, slots;
  kvcc_memory memory;
  int32_t layer;
  const kvcc_program *program;
};

class Program {
public:
  Program(const Context &context, const std::string &model, const std::string &scheme, const std::string &target,
          const std::optional<std::string> &dtype, const std::string &compute, int64_t pageTokens, int64_t pageBytes,
          const std::optional<std::string> &outDtype, int64_t queries)
      // Kernels of a GPU get its memory, all others the host's (cuda-host and cpu-emulated are for tests).
      : device(target == "cuda" || target.rfind("cuda:", 0) == 0 ? nb::device::cuda::value : nb::device::cpu::value),
        process(getpid()) {
    auto options = sized<kvcc_compile_options>();
    options.model = model.c_str();
    options.scheme = scheme.c_str();
    options.target = target.c_str();
    options.dtype = dtype ? dtype->c_str() : nullptr;
    options.compute = compute.c_str();
    options.page_tokens = pageTokens;
    options.page_bytes = pageBytes;
    options.out_dtype = outDtype ? outDtype->c_str() : nullptr;
    options.queries = queries;
    kvcc_program *compiled = nullptr;
    run([&] { return kvcc_compile(context.get(), &options, &compiled); });
    handle.reset(compiled);
    auto info = sized<kvcc_program_info>();
    check(kvcc_program_get_info(get(), &info));
    for (int32_t i = 0; i < info.layers; ++i) {
      auto layer = sized<kvcc_layer_info>();
      check(kvcc_program_get_layer(get(), i, &layer));
      layers.push_back(layer);
    }
  }

  nb::dict info() const {
    auto info = sized<kvcc_program_info>();
    check(kvcc_program_get_info(get(), &info));
    nb::dict result;
    result["layers"] = info.layers;
    result["variants"] = info.variants;
    result["from_cache"] = info.from_cache;
    result["milliseconds"] = info.milliseconds;
    return result;
  }

  nb::dict layer(int32_t index) const {
    auto layer = sized<kvcc_layer_info>();
    check(kvcc_program_get_layer(get(), index, &layer));
    nb::dict result;
    result["served"] = bool(layer.served);
    result["unserved_reason"] = layer.unserved_reason ? nb::object(nb::str(layer.unserved_reason)) : nb::none();
    result["q_heads"] = layer.q_heads;
    result["kv_heads"] = layer.kv_heads;
    result["head_dim"] = layer.head_dim;
    result["scale"] = layer.scale;
    result["dtype"] = layer.dtype ? layer.dtype : "";
    result["sink"] = layer.sink;
    result["recent"] = layer.recent;
    result["flush"] = layer.flush;
    result["page_tokens"] = layer.page_tokens;
    result["page_bytes"] = layer.page_bytes;
    result["slot_bytes"] = layer.slot_bytes;
    result["kernel_error_bound"] = layer.kernel_error_bound;
    result["max_rollback"] = layer.max_rollback;
    result["softcap"] = layer.softcap;
    result["window_tokens"] = layer.window_tokens;
    result["chunked"] = bool(layer.chunked);
    result["sink_logits"] = bool(layer.sink_logits);
    result["out_dtype"] = layer.out_dtype ? layer.out_dtype : "";
    return result;
  }

  int64_t pagesFor(int32_t layer, int64_t tokens) const {
    int64_t pages = 0;
    check(kvcc_pages_for(get(), layer, tokens, &pages));
    return pages;
  }
  int64_t expiredPages(int32_t layer, int64_t tokens) const {
    int64_t pages = 0;
    check(kvcc_expired_pages(get(), layer, tokens, &pages));
    return pages;
  }
  int64_t quantizedTokens(int32_t layer, int64_t tokens) const {
    int64_t quantized = 0;
    check(kvcc_quantized_tokens(get(), layer, tokens, &quantized));
    return quantized;
  }
  size_t workspaceBytes(int32_t layer, int64_t batch, int64_t maxTokens, int64_t splitTokens) const {
    size_t bytes = 0;
    check(kvcc_split_workspace_bytes(get(), layer, batch, maxTokens, splitTokens, &bytes));
    return bytes;
  }
  int64_t rollback(int32_t layer, int64_t tokens, int64_t count) const {
    int64_t left = 0;
    check(kvcc_rollback(get(), layer, tokens, count, &left));
    return left;
  }
  int64_t sharedPages(int32_t layer, int64_t tokens) const {
    int64_t pages = 0;
    check(kvcc_shared_pages(get(), layer, tokens, &pages));
    return pages;
  }

  Memory memory(int32_t layer, nb::object pagesArray, nb::object slotsArray) const {
    auto pages = take<Output>(pagesArray, "pages"), slots = take<Output>(slotsArray, "slots");
    const kvcc_layer_info &info = served(layer);
    Place place = placeOf(info);
    checkContiguous(pages, "pages", place, uint8Type, "num_pages, page_bytes", {any, info.page_bytes});
    checkContiguous(slots, "slots", place, uint8Type, "num_slots, slot_bytes", {any, info.slot_bytes});
    kvcc_memory memory = {isEmpty(pages) ? nullptr : dataOf<void>(pages), int64_t(pages.shape(0)), dataOf<void>(slots),
                          int64_t(slots.shape(0))};
    return {std::move(pages), std::move(slots), memory, layer, get()};
  }

  void append(const Memory &memory, nb::object tableArray, nb::object slotsArray, nb::object lensArray,
              nb::object newLensArray, nb::object keysArray, nb::object valuesArray, std::optional<int64_t> maxNew,
              uintptr_t stream) const {
    auto table = take<Input>(tableArray, "table"), slots = take<Input>(slotsArray, "slots");
    auto lens = take<Input>(lensArray, "seq_lens"), newLens = take<Input>(newLensArray, "new_lens");
    auto keys = take<Input>(keysArray, "keys"), values = take<Input>(valuesArray, "values");
    const kvcc_layer_info &info = owned(memory);
    Place place = placeOf(info);
    int64_t batch = checkBatch(memory, place, table, slots, lens);
    checkContiguous(newLens, "new_lens", place, int32Type, "batch", {batch});
    const char *axes = "batch, kv_heads, tokens, head_dim";
    checkArray(keys, "keys", place, place.number, axes, {batch, info.kv_heads, any, info.head_dim});
    int64_t tokens = int64_t(keys.shape(2)), most = maxNew.value_or(tokens);
    checkArray(values, "values", place, place.number, axes, {batch, info.kv_heads, tokens, info.head_dim});
    bool empty = isEmpty(keys);
    for (auto [array, name] : {std::pair(&keys, "keys"), std::pair(&values, "values")})
      if (!empty && !isContiguous(*array, 3))
        expected(std::string(name) + " whose head_dim axis is contiguous",
                 "a stride of " + std::to_string(array->stride(3)) + "; make a contiguous copy of it");
    for (size_t axis = 0; !empty && axis < 3; ++axis)
      if (keys.shape(axis) > 1 && keys.stride(axis) != values.stride(axis))
        expected("values with the strides of keys", std::to_string(values.stride(axis)) + " beside " +
                                                        std::to_string(keys.stride(axis)) + " at axis " +
                                                        std::to_string(axis) + "; make contiguous copies of both");
    if (most < 0 || most > tokens)
      expected("max_new from 0 to tokens = " + std::to_string(tokens), std::to_string(most));
    if (place.device == nb::device::cpu::value)
      for (int64_t b = 0; b < batch; ++b) {
        int32_t added = dataOf<const int32_t>(newLens)[b], length = dataOf<const int32_t>(lens)[b];
        checkSequence(memory, info, table, slots, b, length);
        if (int64_t limit = std::min<int64_t>(most, length); added < 0 || added > limit)
          expected("new_lens from 0 to " + std::to_string(limit) + " for sequence " + std::to_string(b),
                   std::to_string(added));
      }
    auto args = sized<kvcc_append_args>();
    args.memory = memory.memory;
    args.table = isEmpty(table) ? nullptr : dataOf<const int32_t>(table);
    args.table_stride = int64_t(table.shape(1));
    args.slots = dataOf<const int32_t>(slots);
    args.seq_lens = dataOf<const int32_t>(lens);
    args.new_lens = dataOf<const int32_t>(newLens);
    args.batch = batch;
    args.max_new = empty ? 0 : most;
    args.keys = dataOf<const void>(keys);
    args.values = dataOf<const void>(values);
    if (!empty) {
      // The stride of an axis of one element says nothing, whoever made the array.
      args.sequence_stride = batch > 1 ? keys.stride(0) : 0;
      args.head_stride = info.kv_heads > 1 ? keys.stride(1) : info.head_dim;
      args.token_stride = tokens > 1 ? keys.stride(2) : info.head_dim;
    }
    run([&, program = get()] { return kvcc_append(program, memory.layer, &args, reinterpret_cast<void *>(stream)); });
  }

  void attend(const Memory &memory, nb::object tableArray, nb::object slotsArray, nb::object lensArray,
              nb::object queryArray, nb::object outArray, nb::object lseArray, nb::object workspaceArray,
              int64_t maxTokens, nb::object sinksArray, int64_t splitTokens, uintptr_t stream) const {
    auto table = take<Input>(tableArray, "table"), slots = take<Input>(slotsArray, "slots");
    auto lens = take<Input>(lensArray, "seq_lens"), query = take<Input>(queryArray, "query");
    auto out = take<Output>(outArray, "out"), lse = take<Output>(lseArray, "lse");
    std::optional<Output> workspace;
    if (!workspaceArray.is_none())
      workspace = take<Output>(workspaceArray, "workspace");
    const kvcc_layer_info &info = owned(memory);
    Place place = placeOf(info);
    int64_t batch = checkBatch(memory, place, table, slots, lens);
    const char *axes = "batch, queries, q_heads, head_dim";
    checkContiguous(query, "query", place, place.number, axes, {batch, any, info.q_heads, info.head_dim});
    int64_t queries = int64_t(query.shape(1));
    if (queries < 1 || queries > 16)
      expected("1 to 16 queries per sequence", std::to_string(queries));
    checkContiguous(out, "out", place, typeOf(info.out_dtype), axes, {batch, queries, info.q_heads, info.head_dim});
    checkContiguous(lse, "lse", place, float32Type, "batch, queries, q_heads", {batch, queries, info.q_heads});
    if (workspace)
      checkContiguous(*workspace, "workspace", place, uint8Type, "bytes", {any});
    std::optional<Input> sinks;
    if (info.sink_logits) {
      sinks = take<Input>(sinksArray, "sinks");
      checkContiguous(*sinks, "sinks", place, float32Type, "q_heads", {info.q_heads});
    } else if (!sinksArray.is_none()) {
      expected("sinks of None for a layer without sink logits", "an array");
    }
    if (place.device == nb::device::cpu::value)
      for (int64_t b = 0; b < batch; ++b) {
        int32_t length = dataOf<const int32_t>(lens)[b];
        checkSequence(memory, info, table, slots, b, length);
        if (length > maxTokens)
          expected("seq_lens of at most max_tokens = " + std::to_string(maxTokens),
                   std::to_string(length) + " for sequence " + std::to_string(b));
      }
    auto args = sized<kvcc_attend_args>();
    args.memory = memory.memory;
    args.table = isEmpty(table) ? nullptr : dataOf<const int32_t>(table);
    args.table_stride = int64_t(table.shape(1));
    args.slots = dataOf<const int32_t>(slots);
    args.seq_lens = dataOf<const int32_t>(lens);
    args.batch = batch;
    args.max_tokens = maxTokens;
    args.query = dataOf<const void>(query);
    args.out = dataOf<void>(out);
    args.lse = dataOf<float>(lse);
    if (workspace && !isEmpty(*workspace)) {
      args.workspace = dataOf<void>(*workspace);
      args.workspace_bytes = workspace->shape(0);
    }
    args.queries = queries;
    if (sinks)
      args.sinks = dataOf<const float>(*sinks);
    args.split_tokens = splitTokens;
    run([&, program = get()] { return kvcc_attend(program, memory.layer, &args, reinterpret_cast<void *>(stream)); });
  }

  void merge(int32_t layer, nb::object outsArray, nb::object lsesArray, nb::object outArray, nb::object lseArray,
             uintptr_t stream) const {
    auto outs = take<Input>(outsArray, "outs"), lses = take<Input>(lsesArray, "lses");
    auto out = take<Output>(outArray, "out"), lse = take<Output>(lseArray, "lse");
    const kvcc_layer_info &info = served(layer);
    Place place = placeOf(info);
    checkContiguous(outs, "outs", place, float32Type, "parts, rows, head_dim", {any, any, info.head_dim});
    int64_t parts = int64_t(outs.shape(0)), rows = int64_t(outs.shape(1));
    checkContiguous(lses, "lses", place, float32Type, "parts, rows", {parts, rows});
    checkContiguous(out, "out", place, float32Type, "rows, head_dim", {rows, info.head_dim});
    checkContiguous(lse, "lse", place, float32Type, "rows", {rows});
    auto args = sized<kvcc_merge_args>();
    args.outs = dataOf<const float>(outs);
    args.lses = dataOf<const float>(lses);
    args.parts = parts;
    args.rows = rows;
    args.out = dataOf<float>(out);
    args.lse = dataOf<float>(lse);
    run([&, program = get()] { return kvcc_merge(program, layer, &args, reinterpret_cast<void *>(stream)); });
  }

  void fork(const Memory &memory, nb::object tableArray, int32_t slot, nb::object forkTableArray, int32_t forkSlot,
            int64_t tokens, uintptr_t stream) const {
    owned(memory);
    auto table = take<Input>(tableArray, "table"), forkTable = take<Input>(forkTableArray, "fork_table");
    auto args = sized<kvcc_fork_args>();
    args.memory = memory.memory;
    args.table = hostTable(table, "table");
    args.slot = slot;
    args.fork_table = hostTable(forkTable, "fork_table");
    args.fork_slot = forkSlot;
    args.table_length = int64_t(table.shape(0));
    if (forkTable.shape(0) != table.shape(0))
      expected("fork_table as long as table",
               std::to_string(forkTable.shape(0)) + " beside " + std::to_string(table.shape(0)) + " pages");
    args.tokens = tokens;
    run([&, program = get()] { return kvcc_fork(program, memory.layer, &args, reinterpret_cast<void *>(stream)); });
  }

  void adopt(const Memory &memory, int32_t slot) const {
    owned(memory);
    check(kvcc_adopt(get(), memory.layer, &memory.memory, slot));
  }

  nb::bytes snapshot(const Memory &memory, nb::object tableArray, int32_t slot, int64_t tokens,
                     uintptr_t stream) const {
    owned(memory);
    auto table = take<Input>(tableArray, "table");
    size_t bytes = 0;
    check(kvcc_snapshot_bytes(get(), memory.layer, tokens, &bytes));
    std::vector<char> data(bytes);
    auto args = describe(memory, table, slot);
    args.tokens = tokens;
    args.bytes = data.data();
    args.bytes_length = bytes;
    run([&, program = get()] { return kvcc_snapshot(program, memory.layer, &args, reinterpret_cast<void *>(stream)); });
    return nb::bytes(data.data(), bytes);
  }

  int64_t restore(const Memory &memory, nb::object tableArray, int32_t slot, nb::bytes data, bool requantize,
                  uintptr_t stream) const {
    owned(memory);
    auto table = take<Input>(tableArray, "table");
    auto args = describe(memory, table, slot);
    args.bytes = const_cast<char *>(data.c_str()); // is read only
    args.bytes_length = data.size();
    run([&, program = get()] {
      return kvcc_restore(program, memory.layer, &args, requantize, reinterpret_cast<void *>(stream));
    });
    return args.tokens;
  }

private:
  const kvcc_program *get() const {
    if (getpid() != process)
      raise("Failed", "expected a program that this process compiled, but got one of process " +
                          std::to_string(process) + ", whose threads a fork does not take along; compile it again");
    return handle.get();
  }

  const kvcc_layer_info &served(int32_t layer) const {
    if (layer < 0 || size_t(layer) >= layers.size())
      expected("layer from 0 to " + std::to_string(layers.size() - 1), std::to_string(layer));
    const kvcc_layer_info &info = layers[size_t(layer)];
    if (!info.served)
      raise("Unsupported", "layer " + std::to_string(layer) + ": " + info.unserved_reason);
    return info;
  }

  const kvcc_layer_info &owned(const Memory &memory) const {
    if (memory.program != get())
      expected("memory of this program", "memory of another one");
    return served(memory.layer);
  }

  static nb::dlpack::dtype typeOf(const std::string &name) {
    return name == "f32"   ? float32Type
           : name == "f16" ? makeType(dtype_code::Float, 16)
                           : makeType(dtype_code::Bfloat, 16);
  }
  Place placeOf(const kvcc_layer_info &info) const { return {device, typeOf(info.dtype)}; }

  int64_t checkBatch(const Memory &memory, const Place &place, const Input &table, const Input &slots,
                     const Input &lens) const {
    checkContiguous(slots, "slots", place, int32Type, "batch", {any});
    int64_t batch = int64_t(slots.shape(0));
    checkContiguous(lens, "seq_lens", place, int32Type, "batch", {batch});
    checkContiguous(table, "table", place, int32Type, "batch, pages", {batch, any});
    return batch;
  }

  /// What the C interface trusts, of a sequence whose numbers are in host memory.
  void checkSequence(const Memory &memory, const kvcc_layer_info &info, const Input &table, const Input &slots,
                     int64_t b, int32_t length) const {
    std::string which = " for sequence " + std::to_string(b);
    int32_t slot = dataOf<const int32_t>(slots)[b];
    if (slot < 0 || slot >= memory.memory.num_slots)
      expected("slots from 0 to " + std::to_string(memory.memory.num_slots - 1) + which, std::to_string(slot));
    if (length < 0)
      expected("seq_lens of at least 0" + which, std::to_string(length));
    int64_t pages = 0;
    check(kvcc_pages_for(get(), memory.layer, length, &pages));
    int64_t stride = int64_t(table.shape(1));
    if (pages > stride)
      expected("a table of at least " + std::to_string(pages) + " pages" + which, std::to_string(stride));
    const int32_t *row = dataOf<const int32_t>(table) + b * stride;
    for (int64_t i = 0; i < pages; ++i)
      if (row[i] < 0 || row[i] >= memory.memory.num_pages)
        expected("pages from 0 to " + std::to_string(memory.memory.num_pages - 1) + " in the table" + which,
                 std::to_string(row[i]));
  }

  static const int32_t *hostTable(const Input &table, const char *name) {
    checkContiguous(table, name, {nb::device::cpu::value, {}}, int32Type, "pages", {any});
    return isEmpty(table) ? nullptr : dataOf<const int32_t>(table);
  }

  static kvcc_snapshot_args describe(const Memory &memory, const Input &table, int32_t slot) {
    auto args = sized<kvcc_snapshot_args>();
    args.memory = memory.memory;
    args.table = hostTable(table, "table");
    args.table_length = int64_t(table.shape(0));
    args.slot = slot;
    return args;
  }

  struct Destroy {
    void operator()(kvcc_program *program) const { kvcc_program_destroy(program); }
  };
  std::unique_ptr<kvcc_program, Destroy> handle;
  std::vector<kvcc_layer_info> layers;
  int device;
  pid_t process;
};

int64_t snapshotTokens(nb::bytes data) {
  int64_t tokens = 0;
  check(kvcc_snapshot_tokens(data.c_str(), data.size(), &tokens));
  return tokens;
}

} // namespace

NB_MODULE(_native, m) {
  // What lives until the interpreter ends, such as a program in a variable of a module, is no leak.
  nb::set_leak_warnings(false);
  m.doc() = "kvcc.h for Python; see the package kvcc, which documents it";
  m.def("version", [] { return kvcc_version(); });
  m.def("snapshot_tokens", &snapshotTokens, nb::arg("data"));
  nb::class_<Context>(m, "Context")
      .def(nb::init<std::optional<std::string>, uint32_t, bool>(), nb::arg("cache_dir").none(), nb::arg("threads"),
           nb::arg("validate"));
  nb::class_<Memory>(m, "Memory")
      .def_prop_ro("num_pages", [](const Memory &memory) { return memory.memory.num_pages; })
      .def_prop_ro("num_slots", [](const Memory &memory) { return memory.memory.num_slots; })
      .def_prop_ro("layer", [](const Memory &memory) { return memory.layer; });
  nb::class_<Program>(m, "Program")
      .def(nb::init<const Context &, const std::string &, const std::string &, const std::string &,
                    const std::optional<std::string> &, const std::string &, int64_t, int64_t,
                    const std::optional<std::string> &, int64_t>(),
           nb::arg("context"), nb::arg("model"), nb::arg("scheme"), nb::arg("target"), nb::arg("dtype").none(),
           nb::arg("compute"), nb::arg("page_tokens"), nb::arg("page_bytes"), nb::arg("out_dtype").none(),
           nb::arg("queries"))
      .def("info", &Program::info)
      .def("layer", &Program::layer, nb::arg("layer"))
      .def("pages_for", &Program::pagesFor, nb::arg("layer"), nb::arg("tokens"))
      .def("expired_pages", &Program::expiredPages, nb::arg("layer"), nb::arg("tokens"))
      .def("quantized_tokens", &Program::quantizedTokens, nb::arg("layer"), nb::arg("tokens"))
      .def("workspace_bytes", &Program::workspaceBytes, nb::arg("layer"), nb::arg("batch"), nb::arg("max_tokens"),
           nb::arg("split_tokens"))
      .def("rollback", &Program::rollback, nb::arg("layer"), nb::arg("tokens"), nb::arg("count"))
      .def("shared_pages", &Program::sharedPages, nb::arg("layer"), nb::arg("tokens"))
      // Of the memory: the program may not go before it, and its handle is compared.
      .def("memory", &Program::memory, nb::arg("layer"), nb::arg("pages"), nb::arg("slots"), nb::keep_alive<0, 1>())
      .def("append", &Program::append, nb::arg("memory"), nb::arg("table"), nb::arg("slots"), nb::arg("seq_lens"),
           nb::arg("new_lens"), nb::arg("keys"), nb::arg("values"), nb::arg("max_new").none(), nb::arg("stream"))
      .def("attend", &Program::attend, nb::arg("memory"), nb::arg("table"), nb::arg("slots"), nb::arg("seq_lens"),
           nb::arg("query"), nb::arg("out"), nb::arg("lse"), nb::arg("workspace").none(), nb::arg("max_tokens"),
           nb::arg("sinks").none(), nb::arg("split_tokens"), nb::arg("stream"))
      .def("merge", &Program::merge, nb::arg("layer"), nb::arg("outs"), nb::arg("lses"), nb::arg("out"), nb::arg("lse"),
           nb::arg("stream"))
      .def("fork", &Program::fork, nb::arg("memory"), nb::arg("table"), nb::arg("slot"), nb::arg("fork_table"),
           nb::arg("fork_slot"), nb::arg("tokens"), nb::arg("stream"))
      .def("adopt", &Program::adopt, nb::arg("memory"), nb::arg("slot"))
      .def("snapshot", &Program::snapshot, nb::arg("memory"), nb::arg("table"), nb::arg("slot"), nb::arg("tokens"),
           nb::arg("stream"))
      .def("restore", &Program::restore, nb::arg("memory"), nb::arg("table"), nb::arg("slot"), nb::arg("data"),
           nb::arg("requantize"), nb::arg("stream"));
}
