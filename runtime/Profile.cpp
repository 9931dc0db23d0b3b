// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Measures formats on captured tensors.
#include "runtime/Profile.h"

#include "passes/Candidates.h"
#include "passes/Passes.h"

#include "llvm/Support/FormatVariadic.h"

#include <atomic>
#include <cmath>
#include <map>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::kv;

/// Without sensitivities, damage is the squared relative change of a layer's output times this, over the number of
/// layers: on SmolLM2-135M the damages of recipe T at 3 to 4 bits then add up to 0.9 to 1.4 times its KL(exact ||
/// quantized) of next-token logits.
static constexpr double kKlPerChange = 1.5;
/// Queries that damage is measured with.
static constexpr int64_t kMostTests = 64;

std::string kvcc::describeShape(const ModelConfig &model) {
  std::string text = model.modelType + " of " + std::to_string(model.layers.size()) + " layers";
  std::map<std::string, std::vector<size_t>> groups;
  for (auto [i, layer] : enumerate(model.layers))
    if (hasCache(layer))
      groups[formatv("{0}/{1}x{2}", layer.qHeads, layer.kvHeads, layer.headDim).str()].push_back(i);
  for (const auto &[shape, layers] : groups)
    text += ", " + shape + " in " + formatLayerRanges(layers);
  return text;
}

bool kvcc::hasCache(const LayerConfig &layer) {
  bool softmax = layer.kind == LayerKind::Full || layer.kind == LayerKind::Sliding || layer.kind == LayerKind::Chunked;
  return softmax && !layer.kEqualsV && !layer.sharedCache && layer.headDim == layer.vHeadDim &&
         layer.headDim % 32 == 0 && layer.headDim >= 32 && layer.headDim <= 256 && layer.kvHeads > 0 &&
         layer.qHeads % layer.kvHeads == 0;
}

namespace {

/// The tensors of one layer as f32.
struct LayerTensors {
  std::vector<float> queries, keys, values; ///< [q_heads][queries][D], [kv_heads][tokens][D]
  std::vector<float> sensitivity;           ///< [q_heads][D][D]; empty without
  int64_t queryCount = 0, tokens = 0;
};

Expected<LayerTensors> loadLayer(const SafetensorsFile &file, const LayerConfig &layer, size_t index,
                                 int64_t maxQueries, bool isSensitive) {
  LayerTensors tensors;
  std::string prefix = "layer." + std::to_string(index) + ".";
  auto load = [&](const char *name, std::vector<float> &numbers) -> Expected<ArrayRef<int64_t>> {
    auto view = file.get(prefix + name);
    if (!view)
      return view.takeError();
    auto converted = toFloat32(**view);
    if (!converted)
      return converted.takeError();
    numbers = std::move(*converted);
    return ArrayRef((*view)->shape);
  };
  auto fail = [&](const char *name, const Twine &expected) {
    return createStringError(file.path() + ": tensor '" + prefix + name + "': expected " + expected);
  };
  auto q = load("q", tensors.queries), k = load("k", tensors.keys), v = load("v", tensors.values);
  for (auto *shape : {&q, &k, &v})
    if (!*shape) {
      Error first = shape->takeError();
      for (auto *other : {&q, &k, &v})
        if (other != shape && !*other)
          consumeError(other->takeError());
      return std::move(first);
    }
  if (q->size() != 3 || (*q)[0] != layer.qHeads || (*q)[2] != layer.headDim || (*q)[1] < 2)
    return fail("q", "shape [" + Twine(layer.qHeads) + ", queries (at least 2), " + Twine(layer.headDim) + "]");
  if (k->size() != 3 || (*k)[0] != layer.kvHeads || (*k)[2] != layer.headDim || *k != *v)
    return fail("k", "shape [" + Twine(layer.kvHeads) + ", tokens, " + Twine(layer.headDim) + "], as 'v'");
  tensors.queryCount = (*q)[1];
  tensors.tokens = (*k)[1];
  if (tensors.tokens < std::max<int64_t>(tensors.queryCount, 192))
    return fail("k", "at least 192 tokens, and as many as queries");
  if (tensors.queryCount > maxQueries) {
    std::vector<float> last;
    for (int64_t head = 0; head < layer.qHeads; ++head) {
      auto end = tensors.queries.begin() + (head + 1) * tensors.queryCount * layer.headDim;
      last.insert(last.end(), end - maxQueries * layer.headDim, end);
    }
    tensors.queries = std::move(last);
    tensors.queryCount = maxQueries;
  }
  if (!isSensitive)
    return tensors;
  auto g = load("g", tensors.sensitivity);
  if (!g)
    return g.takeError();
  if (g->size() != 3 || (*g)[0] != layer.qHeads || (*g)[1] != layer.headDim || (*g)[2] != layer.headDim)
    return fail("g", "shape [" + Twine(layer.qHeads) + ", " + Twine(layer.headDim) + ", " + Twine(layer.headDim) + "]");
  return tensors;
}

/// Measures the candidates of one layer.
class LayerMeter {
public:
  LayerMeter(WindowAttr window, const LayerConfig &layer, const LayerTensors &tensors)
      : layer(layer), in(tensors), dim(layer.headDim), group(layer.qHeads / layer.kvHeads), window(window),
        first(window.getSink()), count(window.getQuantizedTokens(tensors.tokens)) {
    // Queries are of use if they read quantized tokens, as the last one does.
    while (window.getQuantizedTokens(seenBy(firstReader)) == 0)
      ++firstReader;
    // Neighbouring queries are alike: the statistics come from the first half, the damage from the second, of which
    // some say enough.
    int64_t half = in.queryCount / 2, from = std::max(half, firstReader);
    int64_t step = divideCeil(in.queryCount - from, kMostTests);
    for (int64_t i = in.queryCount - 1; i >= from; i -= step)
      tests.push_back(i);
    statistics = computeStatistics(firstReader < half ? firstReader : 0, half);
    computeExact();
  }

  /// From all queries, once nothing is measured any more.
  std::vector<WriterStatistics> getStatistics() const { return computeStatistics(firstReader, in.queryCount); }

  /// The mean over queries of what a change of the layer's output does with one side in a format: its damage, or,
  /// without sensitivities, its square relative to the output's.
  double measure(Role role, QuantAttr quant) {
    std::vector<float> changes(exact.size(), 0.0f);
    std::vector<float> rounded(size_t(count * dim));
    for (int64_t head = 0; head < layer.kvHeads; ++head) {
      const std::vector<float> &numbers = role == Role::Key ? in.keys : in.values;
      const float *source = numbers.data() + (head * in.tokens + first) * dim;
      roundTrip(role, quant, dim, ArrayRef<float>(source, size_t(count * dim)), count, statistics[size_t(head)],
                rounded.data());
      for (int64_t i = 0; i < count * dim; ++i)
        rounded[size_t(i)] -= source[i]; // what is wrong
      for (int64_t member = 0; member < group; ++member)
        for (size_t test = 0; test < tests.size(); ++test)
          change(role, head, head * group + member, test, rounded, changes);
    }
    return summarize(changes);
  }

private:
  int64_t rowOf(int64_t qHead, size_t test) const { return qHead * int64_t(tests.size()) + int64_t(test); }
  const float *queryOf(int64_t qHead, int64_t query) const {
    return in.queries.data() + (qHead * in.queryCount + query) * dim;
  }
  /// The tokens that a query sees.
  int64_t seenBy(int64_t query) const { return in.tokens - in.queryCount + query + 1; }

  static float dot(const float *a, const float *b, int64_t n) {
    float sums[8] = {};
    for (int64_t i = 0; i < n; i += 8)
      for (int64_t j = 0; j < 8; ++j)
        sums[j] += a[i + j] * b[i + j];
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
  }

  std::vector<WriterStatistics> computeStatistics(int64_t from, int64_t to) const {
    std::vector<WriterStatistics> result;
    for (int64_t head = 0; head < layer.kvHeads; ++head) {
      WriterStatistics &known = result.emplace_back();
      known.queryMoment.assign(size_t(dim * dim), 0.0);
      int64_t queries = (to - from) * group;
      for (int64_t member = 0; member < group; ++member)
        for (int64_t i = from; i < to; ++i) {
          const float *q = queryOf(head * group + member, i);
          for (int64_t a = 0; a < dim; ++a)
            for (int64_t b = 0; b < dim; ++b)
              known.queryMoment[size_t(a * dim + b)] += double(q[a]) * double(q[b]) / double(queries);
        }
      // Few queries say little about most directions: shrunk towards one that knows none of them.
      double own = double(queries) / double(queries + dim), mean = 0;
      for (int64_t a = 0; a < dim; ++a)
        mean += known.queryMoment[size_t(a * dim + a)] / double(dim);
      for (int64_t i = 0; i < dim * dim; ++i) {
        double &entry = known.queryMoment[size_t(i)];
        entry = own * entry + (i / dim == i % dim ? (1 - own) * mean : 0);
      }
    }
    return result;
  }

  void computeExact() {
    size_t rows = size_t(layer.qHeads) * tests.size();
    logits.resize(rows * size_t(in.tokens));
    weights.resize(rows * size_t(in.tokens));
    exact.resize(rows * size_t(dim));
    for (int64_t qHead = 0; qHead < layer.qHeads; ++qHead)
      for (size_t test = 0; test < tests.size(); ++test) {
        int64_t row = rowOf(qHead, test), seen = seenBy(tests[test]), kvHead = qHead / group;
        float *logit = logits.data() + row * in.tokens;
        for (int64_t t = 0; t < seen; ++t)
          logit[t] = float(layer.scale) *
                     dot(queryOf(qHead, tests[test]), in.keys.data() + (kvHead * in.tokens + t) * dim, dim);
        softmax(logit, seen, weights.data() + row * in.tokens);
        accumulate(weights.data() + row * in.tokens, in.values.data() + kvHead * in.tokens * dim, 0, seen,
                   exact.data() + row * dim);
      }
    for (size_t test = 0; test < tests.size(); ++test)
      references.push_back(squaresOf(exact, test));
  }

  static void softmax(const float *logit, int64_t seen, float *weight) {
    float max = *std::max_element(logit, logit + seen), sum = 0;
    for (int64_t t = 0; t < seen; ++t)
      sum += weight[t] = std::exp(logit[t] - max);
    for (int64_t t = 0; t < seen; ++t)
      weight[t] /= sum;
  }

  /// out += sum over tokens of weight * numbers.
  void accumulate(const float *weight, const float *numbers, int64_t from, int64_t to, float *out) const {
    for (int64_t t = from; t < to; ++t)
      for (int64_t c = 0; c < dim; ++c)
        out[c] += weight[t] * numbers[t * dim + c];
  }

  /// What the errors of one KV head do to one row of the output.
  void change(Role role, int64_t kvHead, int64_t qHead, size_t test, ArrayRef<float> errors,
              std::vector<float> &changes) const {
    // As in its step: what is recent for it is exact.
    int64_t row = rowOf(qHead, test), seen = seenBy(tests[test]), last = first + window.getQuantizedTokens(seen);
    float *out = changes.data() + row * dim;
    if (role == Role::Value) {
      accumulate(weights.data() + row * in.tokens + first, errors.data(), 0, last - first, out);
      return;
    }
    const float *exactLogit = logits.data() + row * in.tokens;
    std::vector<float> logit(exactLogit, exactLogit + seen), weight(size_t(seen), 0.0f);
    for (int64_t t = first; t < last; ++t)
      logit[size_t(t)] += float(layer.scale) * dot(queryOf(qHead, tests[test]), errors.data() + (t - first) * dim, dim);
    softmax(logit.data(), seen, weight.data());
    for (int64_t t = 0; t < seen; ++t)
      weight[size_t(t)] -= weights[size_t(row * in.tokens + t)];
    accumulate(weight.data(), in.values.data() + kvHead * in.tokens * dim, 0, seen, out);
  }

  /// Sum of squares of what all heads give to a test.
  double squaresOf(const std::vector<float> &outputs, size_t test) const {
    double sum = 0;
    for (int64_t qHead = 0; qHead < layer.qHeads; ++qHead) {
      const float *row = outputs.data() + rowOf(qHead, test) * dim;
      sum += double(dot(row, row, dim));
    }
    return sum;
  }
  /// Half of the square of what all heads give to a test, in their sensitivities.
  double lossOf(const std::vector<float> &outputs, size_t test) const {
    double sum = 0;
    for (int64_t qHead = 0; qHead < layer.qHeads; ++qHead) {
      const float *row = outputs.data() + rowOf(qHead, test) * dim;
      const float *metric = in.sensitivity.data() + qHead * dim * dim;
      for (int64_t c = 0; c < dim; ++c)
        sum += 0.5 * double(row[c]) * double(dot(metric + c * dim, row, dim));
    }
    return sum;
  }

  /// Every query counts alike.
  double summarize(const std::vector<float> &changes) const {
    double sum = 0;
    for (size_t test = 0; test < tests.size(); ++test)
      if (!in.sensitivity.empty())
        sum += lossOf(changes, test);
      else if (references[test] > 0)
        sum += squaresOf(changes, test) / references[test];
    return sum / double(tests.size());
  }

  const LayerConfig &layer;
  const LayerTensors &in;
  int64_t dim, group;
  WindowAttr window;
  int64_t first, count; ///< the tokens that are quantized
  int64_t firstReader = 0;
  std::vector<int64_t> tests;
  std::vector<WriterStatistics> statistics;
  std::vector<float> logits, weights, exact; ///< [q_heads][tests][tokens or head_dim]
  std::vector<double> references;            ///< by test
};

/// The largest over the median root mean square of a channel.
double computeImbalance(ArrayRef<float> numbers, int64_t heads, int64_t tokens, int64_t dim) {
  std::vector<double> rms;
  for (int64_t head = 0; head < heads; ++head)
    for (int64_t c = 0; c < dim; ++c) {
      double sum = 0;
      for (int64_t t = 0; t < tokens; ++t)
        sum += std::pow(double(numbers[size_t((head * tokens + t) * dim + c)]), 2);
      rms.push_back(std::sqrt(sum / double(tokens)));
    }
  llvm::sort(rms);
  double median = rms[rms.size() / 2];
  return median > 0 ? rms.back() / median : 1;
}

/// The largest |mean| of a channel over the root mean square of all; also the means.
double computeOffset(ArrayRef<float> numbers, int64_t heads, int64_t tokens, int64_t dim,
                     std::vector<WriterStatistics> &statistics) {
  double squares = 0, largest = 0;
  for (float x : numbers)
    squares += double(x) * double(x) / double(numbers.size());
  for (int64_t head = 0; head < heads; ++head)
    for (int64_t c = 0; c < dim; ++c) {
      double sum = 0;
      for (int64_t t = 0; t < tokens; ++t)
        sum += double(numbers[size_t((head * tokens + t) * dim + c)]);
      statistics[size_t(head)].keys.means.push_back(float(sum / double(tokens)));
      largest = std::max(largest, std::fabs(sum / double(tokens)));
    }
  return squares > 0 ? largest / std::sqrt(squares) : 0;
}

/// Drops formats that in every layer damage more, for no fewer bits, than another one.
void dropDominated(std::vector<LayerProfile> &layers, int64_t headDim) {
  size_t count = layers.front().measured.size();
  std::vector<bool> drop(count, false);
  for (size_t i = 0; i < count; ++i)
    for (size_t j = 0; j < count && !drop[i]; ++j) {
      MeasuredAttr a = layers.front().measured[i], b = layers.front().measured[j];
      if (i == j || drop[j] || a.getRole() != b.getRole() ||
          a.getQuant().getBitsPerElement(headDim) < b.getQuant().getBitsPerElement(headDim))
        continue;
      drop[i] = llvm::all_of(layers, [&](const LayerProfile &layer) {
        return layer.measured[i].getDamage().convertToDouble() > layer.measured[j].getDamage().convertToDouble();
      });
    }
  for (LayerProfile &layer : layers) {
    std::vector<MeasuredAttr> kept;
    for (size_t i = 0; i < count; ++i)
      if (!drop[i])
        kept.push_back(layer.measured[i]);
    layer.measured = std::move(kept);
  }
}

} // namespace

Expected<Profile> kvcc::measureProfile(mlir::MLIRContext &context, const ModelConfig &model,
                                       const SafetensorsFile &capture, int64_t maxQueries, unsigned threads,
                                       function_ref<void(size_t, size_t)> progress) {
  std::vector<size_t> indices;
  for (size_t i = 0; i < model.layers.size(); ++i)
    if (hasCache(model.layers[i]))
      indices.push_back(i);
  if (indices.empty())
    return createStringError(model.name + ": expected a layer of softmax attention over K and V, but got none");
  Profile profile;
  profile.model = model.name;
  profile.shape = describeShape(model);
  profile.layers.resize(indices.size());
  std::vector<std::string> messages(indices.size());
  // MLIR is single-threaded here: the attributes are made before and after.
  std::vector<std::vector<std::pair<Role, QuantAttr>>> candidates(indices.size());
  std::vector<std::vector<double>> changes(indices.size());
  for (auto [i, index] : llvm::enumerate(indices))
    for (Role role : {Role::Key, Role::Value})
      for (QuantAttr quant : getProfileCandidates(context, role, model.layers[index].headDim))
        candidates[i].push_back({role, quant});
  WindowAttr window = getDefaultWindow(&context);
  // Damages of layers are compared: all have sensitivities, or none.
  profile.sensitive = llvm::any_of(
      indices, [&](size_t index) { return capture.find("layer." + std::to_string(index) + ".g") != nullptr; });
  std::atomic<size_t> done{0};
  ThreadPool pool(threads);
  pool.run(int64_t(indices.size()), 0, [&](int64_t item) {
    size_t i = size_t(item), index = indices[i];
    const LayerConfig &layer = model.layers[index];
    auto tensors = loadLayer(capture, layer, index, maxQueries, profile.sensitive);
    if (!tensors) {
      messages[i] = toString(tensors.takeError());
      return;
    }
    LayerMeter meter(window, layer, *tensors);
    LayerProfile &result = profile.layers[i];
    result.layer = index;
    for (auto [role, quant] : candidates[i]) {
      double change = meter.measure(role, quant);
      if (!std::isfinite(change) || change < 0) {
        messages[i] =
            formatv("{0}: layer {1}: expected tensors of finite numbers, and 'g' without negative directions, "
                    "but they give a damage of {2}",
                    capture.path(), index, change);
        return;
      }
      changes[i].push_back(change);
    }
    result.keyImbalance = computeImbalance(tensors->keys, layer.kvHeads, tensors->tokens, layer.headDim);
    result.valueImbalance = computeImbalance(tensors->values, layer.kvHeads, tensors->tokens, layer.headDim);
    result.statistics = meter.getStatistics();
    result.keyOffset = computeOffset(tensors->keys, layer.kvHeads, tensors->tokens, layer.headDim, result.statistics);
    if (i == 0) {
      profile.tokens = tensors->tokens;
      profile.queries = tensors->queryCount;
    }
    progress(++done, indices.size());
  });
  for (const std::string &message : messages)
    if (!message.empty())
      return createStringError(message);
  double unit = profile.sensitive ? 1 : kKlPerChange / double(indices.size());
  for (auto [i, layer] : llvm::enumerate(profile.layers))
    for (auto [candidate, change] : llvm::zip(candidates[i], changes[i]))
      layer.measured.push_back(MeasuredAttr::get(&context, candidate.first, candidate.second, APFloat(change * unit)));
  bool uniform = llvm::all_of(
      indices, [&](size_t index) { return model.layers[index].headDim == model.layers[indices.front()].headDim; });
  if (uniform)
    dropDominated(profile.layers, model.layers[indices.front()].headDim);
  return profile;
}
