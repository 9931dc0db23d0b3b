// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc run: prefill, one decode step, results, and the comparison with exact attention.
#include "tools/kvcc/Commands.h"

#include "runtime/Check.h"
#include "runtime/Safetensors.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/raw_ostream.h"

#include <chrono>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::tool;

cl::SubCommand tool::runCommand("run", "prefill a cache from tensors, decode a step or several and write the results");
static KernelOptions kernelOptions(runCommand);
static SchemeOptions schemeOptions(runCommand);
static cl::opt<std::string> target("target", cl::desc("cpu, cpu:generic, cuda, cuda-host, ..."), cl::init("cpu"),
                                   cl::sub(runCommand));
static cl::opt<std::string> input("input",
                                  cl::desc("tensors q, k, v and, optional, seq_lens; sinks of models that have them"),

                                  cl::value_desc("file.safetensors"), cl::sub(runCommand));
static cl::opt<std::string> output("output", cl::desc("receives out and lse"), cl::value_desc("file.safetensors"),
                                   cl::sub(runCommand));
static cl::opt<bool> check("check", cl::desc("compare with exact attention; fail above the kernel's error bound"),
                           cl::sub(runCommand));
static cl::opt<int> threads("threads", cl::desc("threads of a cpu target; 0: one per processor"), cl::init(0),
                            cl::sub(runCommand));
static cl::opt<int64_t> splits("splits", cl::desc("parts of each sequence; 0 chooses"), cl::init(0),
                               cl::sub(runCommand));

static cl::opt<int64_t> steps("steps",
                              cl::desc("append the last N tokens one by one, each followed by a step; q is [batch, N, "
                                       "q_heads, head_dim]; 0: all tokens are prefilled"),
                              cl::value_desc("N"), cl::init(0), cl::sub(runCommand));

namespace {

std::string shapeText(ArrayRef<int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i)
    text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

/// The tensors of a decode step, checked against the model.
struct Inputs {
  std::string dtype;
  int64_t batch = 0, tokens = 0;
  std::vector<uint8_t> query; ///< [steps, batch, q_heads, head_dim]
  ArrayRef<uint8_t> keys, values;
  std::vector<int64_t> lens;
  std::vector<float> sinks;                                  ///< [q_heads], of a model with sink logits
  std::vector<float> queryNumbers, keyNumbers, valueNumbers; ///< for the check
};

class InputReader {
public:
  InputReader(const SafetensorsFile &file, const LayerConfig &layer, size_t index)
      : file(file), layer(layer), index(index) {}

  Expected<Inputs> read() {
    // A file of one step has q, k, v; a capture has them per layer, without a batch, with several queries.
    std::string prefix = "layer." + std::to_string(index) + ".";
    bool captured = !file.find("q") && file.find(prefix + "q");
    Inputs in;
    auto q = get(captured ? prefix + "q" : "q"), k = get(captured ? prefix + "k" : "k"),
         v = get(captured ? prefix + "v" : "v");
    Error problems[] = {q.takeError(), k.takeError(), v.takeError()};
    Error first = Error::success();
    for (Error &problem : problems) { // one is enough
      if (first)
        consumeError(std::move(problem));
      else
        first = std::move(problem);
    }
    if (first)
      return std::move(first);
    for (const TensorView *tensor : {*q, *k, *v})
      if (tensor->dtype != (*q)->dtype)
        return fail(*tensor, "dtype " + stringify((*q)->dtype).str() + " as " + (*q)->name,
                    stringify(tensor->dtype).str());
    in.dtype = (*q)->dtype == TensorType::F16 ? "f16" : (*q)->dtype == TensorType::BF16 ? "bf16" : "f32";

    size_t lead = captured ? 0 : 1; // dimensions before the heads
    for (const TensorView *tensor : {*k, *v})
      if (tensor->shape.size() != lead + 3)
        return fail(*tensor,
                    captured ? "shape [kv_heads, tokens, head_dim]" : "shape [batch, kv_heads, tokens, head_dim]",
                    shapeText(tensor->shape));
    size_t rank = steps && !captured ? 4 : 3;
    if ((*q)->shape.size() != rank)
      return fail(**q,
                  captured ? "shape [q_heads, queries, head_dim]"
                  : steps  ? "shape [batch, steps, q_heads, head_dim]"
                           : "shape [batch, q_heads, head_dim]",
                  shapeText((*q)->shape));
    in.batch = captured ? 1 : (*q)->shape[0];
    in.tokens = (*k)->shape[lead + 1];
    std::vector<int64_t> cacheShape = {layer.kvHeads, in.tokens, layer.headDim};
    if (!captured)
      cacheShape.insert(cacheShape.begin(), in.batch);
    for (const TensorView *tensor : {*k, *v})
      if (tensor->shape != cacheShape)
        return fail(*tensor, "shape " + shapeText(cacheShape) + " (from the model and the other tensors)",
                    shapeText(tensor->shape));
    int64_t count = std::max<int64_t>(steps, 1);
    std::vector<int64_t> queryShape = captured ? std::vector<int64_t>{layer.qHeads, (*q)->shape[1], layer.headDim}
                                      : steps  ? std::vector<int64_t>{in.batch, count, layer.qHeads, layer.headDim}
                                               : std::vector<int64_t>{in.batch, layer.qHeads, layer.headDim};
    if ((*q)->shape != queryShape)
      return fail(**q, "shape " + shapeText(queryShape) + " (from the model)", shapeText((*q)->shape));
    if (captured && queryShape[1] < count)
      return fail(**q, "at least " + Twine(count) + " queries", Twine(queryShape[1]));

    if (layer.attentionSinks)
      if (Error error = readSinks(in, captured ? prefix + "sinks" : "sinks"))
        return std::move(error);
    if (Error error = readLens(in))
      return std::move(error);
    for (int64_t b = 0; steps && b < in.batch; ++b)
      if (in.lens[size_t(b)] < steps)
        return createStringError(file.path() + ": expected sequences of at least steps = " + Twine(steps) +
                                 " tokens, but got " + Twine(in.lens[size_t(b)]) + " in sequence " + Twine(b));
    size_t row = size_t(layer.headDim * bytesOf((*q)->dtype)), heads = size_t(layer.qHeads);
    for (size_t step = 0; step < size_t(count); ++step) {
      if (captured) { // the last query sees all tokens
        size_t queries = size_t(queryShape[1]), at = queries - size_t(count) + step;
        for (size_t head = 0; head < heads; ++head)
          append_range(in.query, (*q)->data.slice((head * queries + at) * row, row));
        continue;
      }
      for (size_t b = 0; b < size_t(in.batch); ++b)
        append_range(in.query, (*q)->data.slice((b * size_t(count) + step) * heads * row, heads * row));
    }
    in.keys = (*k)->data;
    in.values = (*v)->data;
    TensorView queryView{(*q)->name, (*q)->dtype, {count, in.batch, layer.qHeads, layer.headDim}, in.query};
    for (auto [view, numbers] : {std::pair<const TensorView *, std::vector<float> *>(&queryView, &in.queryNumbers),
                                 {*k, &in.keyNumbers},
                                 {*v, &in.valueNumbers}}) {
      auto converted = toFloat32(*view);
      if (!converted)
        return converted.takeError();
      *numbers = std::move(*converted);
    }
    for (size_t i = 0; i < in.queryNumbers.size(); ++i)
      if (!std::isfinite(in.queryNumbers[i]))
        return createStringError(file.path() + ": expected finite numbers, but got " +
                                 Twine(std::isnan(in.queryNumbers[i]) ? "nan"
                                       : in.queryNumbers[i] > 0       ? "inf"
                                                                      : "-inf") +
                                 " at element " + Twine(i) + " of the query");
    return in;
  }

private:
  Error fail(const TensorView &tensor, const Twine &what, const Twine &got) const {
    return createStringError(file.path() + ": tensor '" + tensor.name + "': expected " + what + ", but got " + got);
  }

  Expected<const TensorView *> get(StringRef name) const {
    auto tensor = file.get(name);
    if (!tensor)
      return tensor.takeError();
    TensorType type = (*tensor)->dtype;
    if (type != TensorType::F16 && type != TensorType::BF16 && type != TensorType::F32)
      return fail(**tensor, "dtype F16, BF16 or F32", stringify(type));
    return tensor;
  }

  Error readSinks(Inputs &in, StringRef name) const {
    auto tensor = get(name);
    if (!tensor)
      return tensor.takeError();
    if ((*tensor)->shape != std::vector<int64_t>{layer.qHeads})
      return fail(**tensor, "shape " + shapeText({layer.qHeads}) + " (from the model)", shapeText((*tensor)->shape));
    auto numbers = toFloat32(**tensor);
    if (!numbers)
      return numbers.takeError();
    for (auto [i, number] : enumerate(*numbers))
      if (!std::isfinite(number))
        return fail(**tensor, "finite numbers", (std::isnan(number) ? "nan" : "inf") + Twine(" at ") + Twine(i));
    in.sinks = std::move(*numbers);
    return Error::success();
  }

  Error readLens(Inputs &in) const {
    in.lens.assign(size_t(in.batch), in.tokens);
    const TensorView *lens = file.find("seq_lens");
    if (!lens)
      return Error::success();
    if (lens->shape != std::vector<int64_t>{in.batch})
      return fail(*lens, "shape " + shapeText({in.batch}), shapeText(lens->shape));
    if (lens->dtype != TensorType::I32)
      return fail(*lens, "dtype I32", stringify(lens->dtype));
    auto numbers = toInt32(*lens);
    if (!numbers)
      return numbers.takeError();
    for (size_t i = 0; i < numbers->size(); ++i) {
      if ((*numbers)[i] < 0 || (*numbers)[i] > in.tokens)
        return fail(*lens, "lengths from 0 to " + Twine(in.tokens), Twine((*numbers)[i]) + " at " + Twine(i));
      in.lens[i] = (*numbers)[i];
    }
    return Error::success();
  }

  const SafetensorsFile &file;
  const LayerConfig &layer;
  size_t index;
};

template <typename T> ArrayRef<uint8_t> asBytes(const std::vector<T> &numbers) {
  return {reinterpret_cast<const uint8_t *>(numbers.data()), numbers.size() * sizeof(T)};
}

double millisecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

} // namespace

Error tool::runRun() {
  if (Error error = requireOptions({&input}))
    return error;
  auto scheme = schemeOptions.getText();
  if (!scheme)
    return scheme.takeError();
  if (Error error = checkRange(threads, threads, 0, 1024))
    return error;
  if (Error error = checkRange(splits, splits, 0, 1024))
    return error;
  if (Error error = checkRange(steps, steps, 0, 65536))
    return error;
  auto layer = kernelOptions.loadLayer();
  if (!layer)
    return layer.takeError();
  auto file = SafetensorsFile::open(input);
  if (!file)
    return file.takeError();
  auto in = InputReader(*file, layer->model.layers[layer->index], layer->index).read();
  if (!in)
    return in.takeError();

  ThreadPool pool{unsigned(threads)};
  auto start = std::chrono::steady_clock::now();
  Compiler compiler;
  auto planned = kernelOptions.plan(compiler, *layer, *scheme, target, in->dtype);
  if (!planned)
    return planned.takeError();
  auto program = Program::load(compiler, std::move(planned->plan), pool);
  if (!program)
    return program.takeError();
  double loadTime = millisecondsSince(start);
  if (!(*program)->getNote().empty())
    errs() << "kvcc: note: " << (*program)->getNote() << "\n";

  AttentionShape shape = (*program)->getPlan().shape;
  HostCache cache(**program, in->batch, in->tokens);
  int64_t headElements = in->tokens * shape.headDim;
  size_t elementBytes = (*program)->getPlan().cache.getDtype().getIntOrFloatBitWidth() / 8;
  size_t sequenceBytes = in->batch ? in->keys.size() / size_t(in->batch) : 0;
  for (int64_t b = 0; b < in->batch; ++b)
    if (Error error = cache.prefill(b, {in->keys.data() + size_t(b) * sequenceBytes, headElements},
                                    {in->values.data() + size_t(b) * sequenceBytes, headElements},
                                    in->lens[size_t(b)] - steps, pool, planned->statistics))
      return createStringError(input + ": sequence " + Twine(b) + ": " + toString(std::move(error)));
  auto given = makeGivenVectors((*program)->getPlan().cache, planned->statistics);
  if (!given)
    return given.takeError();

  size_t count = size_t(std::max<int64_t>(steps, 1)), batch = size_t(in->batch);
  size_t rowNumbers = size_t(shape.qHeads * shape.headDim), stepNumbers = batch * rowNumbers;
  // [batch, steps, ...], as the file has them.
  std::vector<float> out(count * stepNumbers), lse(count * batch * size_t(shape.qHeads));
  double stepTime = 0;
  StepErrors errors;
  for (size_t step = 0; step < count; ++step) {
    std::vector<float> stepOut, stepLse;
    start = std::chrono::steady_clock::now();
    // Every sequence gets the token that is its `steps - step`-th from the end, one call each: their places differ.
    for (int64_t b = 0; steps && b < in->batch; ++b) {
      size_t at = size_t(b) * sequenceBytes +
                  size_t((in->lens[size_t(b)] - steps + int64_t(step)) * shape.headDim) * elementBytes;
      if (Error error = cache.append(
              b, 1, {in->keys.data() + at, in->values.data() + at, 0, shape.headDim, headElements}, *given))
        return error;
    }
    if (Error error = decodeStep(cache, in->query.data() + step * stepNumbers * elementBytes, stepOut, stepLse, splits,
                                 unsigned(threads), /*seed=*/0, /*queries=*/1, in->sinks))
      return error;
    stepTime += millisecondsSince(start) / double(count);
    for (size_t b = 0; b < batch; ++b) {
      size_t row = b * count + step;
      std::copy_n(stepOut.begin() + b * rowNumbers, rowNumbers, out.begin() + row * rowNumbers);
      std::copy_n(stepLse.begin() + b * size_t(shape.qHeads), size_t(shape.qHeads),
                  lse.begin() + row * size_t(shape.qHeads));
    }
    if (check) {
      StepErrors found = checkStep(cache, ArrayRef(in->queryNumbers).slice(step * stepNumbers, stepNumbers),
                                   in->keyNumbers, in->valueNumbers, in->tokens, in->sinks, stepOut, stepLse, pool);
      errors.kernel = std::max(errors.kernel, found.kernel);
      errors.lse = std::max(errors.lse, found.lse);
      errors.total = std::max(errors.total, found.total);
      errors.perSequence = std::max(errors.perSequence, found.perSequence);
    }
  }

  if (!output.empty()) {
    std::vector<int64_t> lseShape{in->batch}, outShape;
    if (steps)
      lseShape.push_back(steps);
    lseShape.push_back(shape.qHeads);
    outShape = lseShape;
    outShape.push_back(shape.headDim);
    if (Error error = writeSafetensors(output, {{"out", TensorType::F32, outShape, asBytes(out)},
                                                {"lse", TensorType::F32, lseShape, asBytes(lse)}}))
      return error;
  }

  int64_t tokens = 0;
  for (int64_t length : in->lens)
    tokens += length;
  double plain = double(tokens * shape.kvHeads * shape.headDim * 2 * 2);
  outs() << layer->model.name << " layer " << layer->index << ", " << (*program)->getPlan().scheme << " on "
         << (*program)->getPlan().target.name << ", batch " << in->batch << ", " << tokens << " tokens\n"
         << "kernel: " << describeCompile((*program)->wasCached(), loadTime) << "\n"
         << "cache: " << formatBytes(double(cache.getBytesRead())) << " read per step";
  if (tokens)
    outs() << formatv(", {0:f1} % of fp16", 100 * double(cache.getBytesRead()) / plain);
  outs() << formatv(steps ? "\nper append and step: {0:f3} ms\n" : "\nfirst step: {0:f3} ms\n", stepTime);
  if (!check)
    return Error::success();

  double bound = getErrorBound((*program)->getPlan());
  outs() << formatv("kernel error: {0:e2} (bound {1:e2}), lse error: {2:e2}\ntotal error: {3:e2}", errors.kernel, bound,
                    errors.lse, errors.total);
  if (in->batch > 1)
    outs() << formatv(", root mean square over sequences: {0:e2}", errors.perSequence);
  outs() << "\n";
  outs().flush();
  if (!(errors.kernel <= bound) || !(errors.lse <= bound))
    return createStringError(formatv("expected a kernel error of at most {0:e2}, but got {1:e2} (lse {2:e2})", bound,
                                     errors.kernel, errors.lse));
  return Error::success();
}
