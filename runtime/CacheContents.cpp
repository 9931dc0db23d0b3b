// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The prefill writer and its inverse.
#include "runtime/CacheContents.h"

#include "dialect/Quantization.h"
#include "dialect/Transforms.h"
#include "passes/Passes.h"

#include <cmath>
#include <cstring>
#include <mutex>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::kv;

namespace {

uint32_t loadBits(const uint8_t *data, unsigned bytes) {
  uint32_t bits = 0;
  std::memcpy(&bits, data, bytes);
  return bits;
}

/// The numbers of one block of 32 tokens in the order of a packing: a side (keys or values) of a page
/// block or of a window block.
class BlockSide {
public:
  /// Numbers as they are.
  BlockSide(Role role, mlir::Type element, Packing packing, int64_t headDim)
      : BlockSide(role, element, element.getIntOrFloatBitWidth(), packing, headDim, /*saturates=*/false) {}
  BlockSide(Role role, QuantAttr format, Packing packing, int64_t headDim, bool saturates = false)
      : BlockSide(role, format.getElement(), format.getBits(), packing, headDim, saturates) {
    quant = format;
    hasZeros = quant.hasZeros();
    if (quant.isQuantized()) {
      quantizer.emplace(quant, saturates);
      scaleBytes = quant.getScale().getIntOrFloatBitWidth() / 8;
      int64_t reducedGroups = reduceExtent / quant.getReducedExtent(role);
      int64_t freeExtent = isKey ? kBlockTokens : headDim;
      int64_t freeGroups = freeExtent / (quant.getGroupSize() / quant.getReducedExtent(role));
      ElementOrder scales(getScalePacking(quant, role, packing), freeGroups, reducedGroups,
                          quant.getScale().getIntOrFloatBitWidth());
      for (int64_t t = 0; t < kBlockTokens; ++t)
        for (int64_t c = 0; c < headDim; ++c) {
          int64_t groupToken = t / quant.getGroupTokens(), groupChannel = c / quant.getGroupChannels();
          scaleAt.push_back(
              int32_t(isKey ? scales.getIndex(groupToken, groupChannel) : scales.getIndex(groupChannel, groupToken)));
        }
    }
    if (auto norm = quant.getTransform<TokenNormAttr>()) {
      normType = norm.getType();
      normBytes = normType.getIntOrFloatBitWidth() / 8;
    }
  }

  /// The memory of this side of a block.
  struct Memory {
    uint8_t *data, *scales, *zeros, *norms;
  };

  /// Transforms and encodes [32, head_dim] numbers of which the first `tokens` tokens are there and the rest zero.
  /// Returns the (token, channel) of a number that does not fit.
  std::optional<std::pair<int64_t, int64_t>> encode(MutableArrayRef<float> numbers, int64_t tokens,
                                                    const SideTransform *transform, const Feedback *feedback,
                                                    const Memory &memory) const {
    auto row = [&](int64_t token) { return numbers.data() + token * headDim; };
    // Tokens that are not there have a norm, so that their weights of zero stay zero.
    auto one = normBytes ? uint16_t(encodeFloat(normType, 1.0f)) : uint16_t(0);
    for (int64_t t = tokens; normBytes && t < kBlockTokens; ++t)
      std::memcpy(memory.norms + t * normBytes, &one, size_t(normBytes));
    for (int64_t t = 0; transform && t < tokens; ++t) {
      uint16_t norm = transform->apply(row(t));
      if (!transform->isFinite(norm))
        return std::pair(t, largest(ArrayRef<float>(row(t), size_t(headDim))));
      if (normBytes)
        std::memcpy(memory.norms + t * normBytes, &norm, size_t(normBytes));
    }
    return quantizer ? encodeCodes(numbers, feedback, memory) : encodeNumbers(numbers, memory);
  }

  /// The numbers of a token as the memory holds them, transforms undone.
  void decode(int64_t token, const SideTransform *transform, const Memory &memory, float *numbers) const {
    for (int64_t c = 0; c < headDim; ++c)
      numbers[c] = decodeElement(token, c, memory);
    if (transform)
      transform->undo(numbers,
                      normBytes ? uint16_t(loadBits(memory.norms + token * normBytes, normBytes)) : uint16_t(0));
  }

private:
  BlockSide(Role role, mlir::Type element, unsigned bits, Packing packing, int64_t headDim, bool saturates)
      : isKey(role == Role::Key), saturates(saturates), element(element), headDim(headDim),
        reduceExtent(isKey ? headDim : kBlockTokens), bits(bits),
        order(packing, isKey ? kBlockTokens : headDim, reduceExtent, bits) {
    // Asked for every element: looked up.
    for (int64_t t = 0; t < kBlockTokens; ++t)
      for (int64_t c = 0; c < headDim; ++c)
        elementAt.push_back(int32_t(isKey ? order.getIndex(t, c) : order.getIndex(c, t)));
  }

  static int64_t largest(ArrayRef<float> numbers) {
    auto larger = [](float a, float b) { return std::fabs(a) < std::fabs(b); };
    return std::max_element(numbers.begin(), numbers.end(), larger) - numbers.begin();
  }

  std::optional<std::pair<int64_t, int64_t>> encodeNumbers(ArrayRef<float> numbers, const Memory &memory) const {
    unsigned bytes = bits / 8;
    float largest = getLargestScale(element);
    for (int64_t t = 0; t < kBlockTokens; ++t)
      for (int64_t c = 0; c < headDim; ++c) {
        float number = numbers[size_t(t * headDim + c)];
        uint32_t bits = encodeFloat(element, saturates ? std::clamp(number, -largest, largest) : number);
        if (!std::isfinite(decodeFloat(element, bits)))
          return std::pair(t, c);
        std::memcpy(memory.data + elementIndex(t, c) * bytes, &bits, bytes);
      }
    return std::nullopt;
  }

  std::optional<std::pair<int64_t, int64_t>> encodeCodes(ArrayRef<float> numbers, const Feedback *feedback,
                                                         const Memory &memory) const {
    int64_t groupTokens = quant.getGroupTokens(), groupChannels = quant.getGroupChannels();
    SmallVector<float, 256> group;
    for (int64_t t0 = 0; t0 < kBlockTokens; t0 += groupTokens)
      for (int64_t c0 = 0; c0 < headDim; c0 += groupChannels) {
        group.clear();
        for (int64_t t = t0; t < t0 + groupTokens; ++t)
          for (int64_t c = c0; c < c0 + groupChannels; ++c)
            group.push_back(numbers[size_t(t * headDim + c)]);
        GroupParameters parameters = quantizer->choose(group);
        if (!quantizer->isFinite(parameters)) {
          int64_t at = largest(group);
          return std::pair(t0 + at / groupChannels, c0 + at % groupChannels);
        }
        int64_t at = scaleIndex(t0, c0) * scaleBytes;
        std::memcpy(memory.scales + at, &parameters.scale, size_t(scaleBytes));
        if (hasZeros)
          std::memcpy(memory.zeros + at, &parameters.zero, size_t(scaleBytes));
      }
    std::memset(memory.data, 0, size_t(kBlockTokens * headDim * bits / 8));
    SmallVector<float, 256> errors(size_t(headDim), 0.0f);
    for (int64_t t = 0; t < kBlockTokens; ++t)
      for (int64_t c = 0; c < headDim; ++c) {
        float number = numbers[size_t(t * headDim + c)];
        GroupParameters parameters = loadParameters(t, c, memory);
        uint8_t code;
        if (feedback) {
          const float *weights = feedback->getWeights(c);
          float target = number;
          for (int64_t j = 0; j < c; ++j)
            target += errors[size_t(j)] * weights[j];
          code = quantizer->encode(target, parameters);
          errors[size_t(c)] = number - quantizer->decode(code, parameters);
        } else {
          code = quantizer->encode(number, parameters);
        }
        order.storeCode(memory.data, elementIndex(t, c), code);
      }
    return std::nullopt;
  }

  float decodeElement(int64_t token, int64_t channel, const Memory &memory) const {
    if (!quantizer) {
      unsigned bytes = bits / 8;
      return decodeFloat(element, loadBits(memory.data + elementIndex(token, channel) * bytes, bytes));
    }
    uint8_t code = order.loadCode(memory.data, elementIndex(token, channel));
    return quantizer->decode(code, loadParameters(token, channel, memory));
  }

  GroupParameters loadParameters(int64_t token, int64_t channel, const Memory &memory) const {
    int64_t at = scaleIndex(token, channel) * scaleBytes;
    return {uint16_t(loadBits(memory.scales + at, scaleBytes)),
            hasZeros ? uint16_t(loadBits(memory.zeros + at, scaleBytes)) : uint16_t(0)};
  }

  int64_t elementIndex(int64_t token, int64_t channel) const { return elementAt[size_t(token * headDim + channel)]; }
  int64_t scaleIndex(int64_t token, int64_t channel) const { return scaleAt[size_t(token * headDim + channel)]; }

  bool isKey, saturates;
  QuantAttr quant; ///< null for numbers as they are
  mlir::Type element, normType;
  int64_t headDim, reduceExtent;
  unsigned bits, scaleBytes = 0, normBytes = 0;
  ElementOrder order;
  std::vector<int32_t> elementAt, scaleAt; ///< [token][channel]
  std::optional<Quantizer> quantizer;
  bool hasZeros = false;
};

/// Where the tokens of a sequence lie, one KV head at a time.
class HeadMemory {
public:
  HeadMemory(CacheType cache, ScheduleAttr schedule, const SequenceMemory &memory, int64_t kvHead, int64_t tokens,
             bool saturates = false)
      : layout(cache, schedule), window(cache.getWindow()), memory(memory), kvHead(kvHead), tokens(tokens),
        slot(memory.slot + kvHead * layout.slotHeadBytes) {
    for (auto [role, quant] : {std::pair(Role::Key, cache.getKey()), std::pair(Role::Value, cache.getValue())}) {
      PackingAttr codes = role == Role::Key ? schedule.getKey() : schedule.getValue();
      pageSides.emplace_back(role, quant, quant.isQuantized() ? codes : schedule.getFloats(), cache.getHeadDim(),
                             saturates);
      windowSides.emplace_back(role, cache.getDtype(), schedule.getFloats(), cache.getHeadDim());
    }
  }

  struct Block {
    uint8_t *base;
    const BlockLayout &layout;
    ArrayRef<BlockSide> sides; ///< keys, values
    int64_t first, count;      ///< tokens
    bool quantized;

    BlockSide::Memory getMemory(bool isKey) const {
      const SideLayout &side = isKey ? layout.key : layout.value;
      return {base + side.data, base + side.scales, base + side.zeros, base + side.norms};
    }
  };

  /// Factors and means of a side; null where the format has none.
  std::pair<float *, float *> getVectors(bool isKey) const {
    auto [factors, means] = isKey ? layout.keyVectors : layout.valueVectors;
    auto at = [&](int64_t offset) { return offset < 0 ? nullptr : reinterpret_cast<float *>(slot + offset); };
    return {at(factors), at(means)};
  }
  MutableArrayRef<uint8_t> slotBytes() const { return {slot, size_t(layout.slotHeadBytes)}; }

  /// Every block of the sequence, in the order of its tokens.
  template <typename Visit> void forEachBlock(Visit visit) const {
    int64_t sink = std::min(tokens, window.getSink()), quantized = window.getQuantizedTokens(tokens);
    for (int64_t t = 0; t < sink; t += kBlockTokens)
      visit(Block{slot + layout.sinkOffset + t / kBlockTokens * layout.window.bytes, layout.window, windowSides, t,
                  std::min(kBlockTokens, sink - t), false});
    for (int64_t b = 0; b * kBlockTokens < quantized; ++b) {
      int64_t page = memory.table[b / layout.blocksPerPage];
      visit(Block{memory.pages + page * layout.pageBytes + kvHead * layout.pageHeadBytes +
                      b % layout.blocksPerPage * layout.page.bytes,
                  layout.page, pageSides, sink + b * kBlockTokens, std::min(kBlockTokens, quantized - b * kBlockTokens),
                  true});
    }
    for (int64_t t = sink + quantized; t < tokens; t += kBlockTokens) {
      int64_t ring = (t - sink) / kBlockTokens % layout.recentBlocks;
      visit(Block{slot + layout.recentOffset + ring * layout.window.bytes, layout.window, windowSides, t,
                  std::min(kBlockTokens, tokens - t), false});
    }
  }

  /// The blocks of the ring whose tokens are quantized already: they are recent again when the last ones are taken
  /// back.
  template <typename Visit> void forEachKeptBlock(Visit visit) const {
    int64_t sink = window.getSink(), blocks = divideCeil(std::max<int64_t>(tokens - sink, 0), kBlockTokens);
    int64_t end = window.getQuantizedTokens(tokens) / kBlockTokens;
    for (int64_t b = std::max<int64_t>(blocks - layout.recentBlocks, 0); layout.recentBlocks && b < end; ++b)
      visit(Block{slot + layout.recentOffset + b % layout.recentBlocks * layout.window.bytes, layout.window,
                  windowSides, sink + b * kBlockTokens, kBlockTokens, false});
  }

private:
  CacheLayout layout;
  WindowAttr window;
  SequenceMemory memory;
  int64_t kvHead, tokens;
  uint8_t *slot;
  SmallVector<BlockSide, 2> pageSides, windowSides;
};

/// The feedback of a format's writer, if it has one and the queries are known. `factors` are those that the keys are
/// expected to be divided by.
std::optional<Feedback> makeFeedback(QuantAttr quant, ArrayRef<float> factors, const WriterStatistics *statistics,
                                     int64_t headDim) {
  if (!quant.getFeedback() || !statistics || statistics->queryMoment.empty())
    return std::nullopt;
  std::vector<float> known(factors.begin(), factors.end());
  known.resize(size_t(headDim), 1.0f);
  std::vector<float> means(size_t(headDim), 0.0f);
  std::vector<double> moment = statistics->queryMoment;
  SideTransform(quant, headDim, known.data(), means.data()).transformMoment(moment);
  return Feedback(std::move(moment), headDim);
}

std::string factorsMissing(bool isKey) {
  return "expected given factors for " + std::string(isKey ? "keys" : "values") + " with #kv.diag<given>, but got none";
}

class HeadWriter {
public:
  HeadWriter(CacheType cache, int64_t kvHead, int64_t tokens)
      : cache(cache), kvHead(kvHead), tokens(tokens), headDim(cache.getHeadDim()) {}

  Error write(const HeadMemory &memory, PrefillTensor keyTensor, PrefillTensor valueTensor,
              const WriterStatistics *statistics, int64_t measured) {
    std::vector<float> numbers[2];
    if (Error error = convert(keyTensor, "k", numbers[0]))
      return error;
    if (Error error = convert(valueTensor, "v", numbers[1]))
      return error;
    std::memset(memory.slotBytes().data(), 0, memory.slotBytes().size());

    for (bool isKey : {true, false}) {
      const std::vector<float> &source = numbers[isKey ? 0 : 1];
      QuantAttr quant = isKey ? cache.getKey() : cache.getValue();
      TransformVectors given;
      if (statistics)
        given = isKey ? statistics->keys : statistics->values;
      if (auto diag = quant.getDiag(); diag && diag.getStat() != DiagStat::Given)
        given.factors.clear();
      else if (diag && given.factors.empty())
        return createStringError(factorsMissing(isKey));
      SideTransform transform(quant, headDim, source.data(), measured < 0 ? tokens : std::min(measured, tokens), given);
      auto [factors, means] = memory.getVectors(isKey);
      if (factors)
        llvm::copy(transform.getVectors().factors, factors);
      if (means)
        llvm::copy(transform.getVectors().means, means);
      std::optional<Feedback> feedback = makeFeedback(
          quant, statistics ? ArrayRef<float>(statistics->keys.factors) : ArrayRef<float>(), statistics, headDim);
      if (Error error = writeSide(memory, isKey, source, transform, feedback ? &*feedback : nullptr))
        return error;
    }
    return Error::success();
  }

  Error convert(PrefillTensor tensor, StringRef name, std::vector<float> &numbers) const {
    unsigned bytes = cache.getDtype().getIntOrFloatBitWidth() / 8;
    auto *data = static_cast<const uint8_t *>(tensor.data) + kvHead * tensor.headStride * bytes;
    numbers.resize(size_t(tokens * headDim));
    for (size_t i = 0; i < numbers.size(); ++i) {
      numbers[i] = decodeFloat(cache.getDtype(), loadBits(data + i * bytes, bytes));
      if (!std::isfinite(numbers[i]))
        return createStringError("expected finite numbers, but got " +
                                 std::string(std::isnan(numbers[i]) ? "nan"
                                             : numbers[i] > 0       ? "inf"
                                                                    : "-inf") +
                                 " at " + place(name, int64_t(i) / headDim, int64_t(i) % headDim));
    }
    return Error::success();
  }

private:
  Error writeSide(const HeadMemory &memory, bool isKey, ArrayRef<float> source, const SideTransform &transform,
                  const Feedback *feedback) const {
    Error failure = Error::success();
    std::vector<float> block(size_t(kBlockTokens * headDim));
    auto writeBlock = [&](HeadMemory::Block at) {
      if (failure)
        return;
      auto first = source.begin() + at.first * headDim;
      std::fill(std::copy(first, first + at.count * headDim, block.begin()), block.end(), 0.0f);
      auto bad = at.sides[isKey ? 0 : 1].encode(block, at.count, at.quantized ? &transform : nullptr,
                                                at.quantized ? feedback : nullptr, at.getMemory(isKey));
      if (!bad)
        return;
      int64_t token = at.first + bad->first, channel = bad->second;
      failure = createStringError("expected numbers that fit the cache's formats, but got " +
                                  std::to_string(source[size_t(token * headDim + channel)]) + " at " +
                                  place(isKey ? "k" : "v", token, channel));
    };
    memory.forEachBlock(writeBlock);
    memory.forEachKeptBlock(writeBlock);
    return failure;
  }

  std::string place(StringRef name, int64_t token, int64_t channel) const {
    return (name + "[kv head " + Twine(kvHead) + ", token " + Twine(token) + ", channel " + Twine(channel) + "]").str();
  }

  CacheType cache;
  int64_t kvHead, tokens, headDim;
};

} // namespace

Error kvcc::writePrefill(CacheType cache, ScheduleAttr schedule, const SequenceMemory &memory, PrefillTensor keys,
                         PrefillTensor values, int64_t tokens, ThreadPool &pool, ArrayRef<WriterStatistics> statistics,
                         int64_t measured) {
  // The first head's error, whichever thread finds one first: the same input, the same message.
  std::vector<std::string> messages(size_t(cache.getKvHeads()));
  pool.run(cache.getKvHeads(), 0, [&](int64_t head) {
    HeadMemory where(cache, schedule, memory, head, tokens, /*saturates=*/measured >= 0);
    const WriterStatistics *known = statistics.empty() ? nullptr : &statistics[size_t(head)];
    if (Error error = HeadWriter(cache, head, tokens).write(where, keys, values, known, measured))
      messages[size_t(head)] = toString(std::move(error));
  });
  for (const std::string &message : messages)
    if (!message.empty())
      return createStringError(message);
  return Error::success();
}

Error kvcc::checkFinite(CacheType cache, PrefillTensor tensor, StringRef name, int64_t tokens) {
  std::vector<float> numbers;
  for (int64_t head = 0; head < cache.getKvHeads(); ++head)
    if (Error error = HeadWriter(cache, head, tokens).convert(tensor, name, numbers))
      return error;
  return Error::success();
}

Expected<GivenVectors> kvcc::makeGivenVectors(CacheType cache, ArrayRef<WriterStatistics> statistics) {
  GivenLayout layout(cache);
  GivenVectors result;
  for (bool isKey : {true, false}) {
    QuantAttr quant = isKey ? cache.getKey() : cache.getValue();
    auto diag = quant.getDiag();
    for (const WriterStatistics &head : statistics)
      if (diag && diag.getStat() == DiagStat::Given && (isKey ? head.keys : head.values).factors.empty())
        return createStringError(factorsMissing(isKey));
    if (diag && diag.getStat() == DiagStat::Given && statistics.empty())
      return createStringError(factorsMissing(isKey));
  }
  if (statistics.empty())
    return result;
  result.numbers.assign(size_t(cache.getKvHeads() * layout.headExtent), 0.0f);
  for (auto [index, head] : enumerate(statistics)) {
    float *base = result.numbers.data() + int64_t(index) * layout.headExtent;
    for (auto [side, offset] : {std::pair(&head.keys, layout.key), std::pair(&head.values, layout.value)}) {
      copy(side->factors, base + offset);
      copy(side->means, base + offset + cache.getHeadDim());
      if (!side->means.empty())
        result.gives |= side == &head.keys ? kGivesKeyMeans : kGivesValueMeans;
    }
    auto feedback = makeFeedback(cache.getKey(), head.keys.factors, &head, cache.getHeadDim());
    if (!feedback)
      continue;
    result.gives |= kGivesWeights;
    for (int64_t c = 0; c < cache.getHeadDim(); ++c)
      std::copy_n(feedback->getWeights(c), cache.getHeadDim(), base + layout.weights + c * cache.getHeadDim());
  }
  return result;
}

void kvcc::readSequence(CacheType cache, ScheduleAttr schedule, const SequenceMemory &memory, int64_t kvHead,
                        int64_t tokens, float *keys, float *values) {
  HeadMemory head(cache, schedule, memory, kvHead, tokens);
  int64_t headDim = cache.getHeadDim();
  for (bool isKey : {true, false}) {
    auto [factors, means] = head.getVectors(isKey);
    SideTransform transform(isKey ? cache.getKey() : cache.getValue(), headDim, factors, means);
    float *numbers = isKey ? keys : values;
    head.forEachBlock([&](HeadMemory::Block at) {
      for (int64_t t = 0; t < at.count; ++t)
        at.sides[isKey ? 0 : 1].decode(t, at.quantized ? &transform : nullptr, at.getMemory(isKey),
                                       numbers + (at.first + t) * headDim);
    });
  }
}

void kvcc::roundTrip(Role role, QuantAttr quant, int64_t headDim, ArrayRef<float> numbers, int64_t tokens,
                     const WriterStatistics &statistics, float *result) {
  SideTransform transform(quant, headDim, numbers.data(), tokens, {});
  std::optional<Feedback> feedback = makeFeedback(quant, transform.getVectors().factors, &statistics, headDim);
  BlockSide side(role, quant, Packing(), headDim);
  std::vector<float> block(size_t(kBlockTokens * headDim));
  // Enough for any format: 4 bytes for a number, its scale, its zero and a norm each.
  std::vector<uint8_t> memory(size_t(4 * 4 * kBlockTokens * headDim));
  uint8_t *quarter = memory.data() + memory.size() / 4;
  BlockSide::Memory at{memory.data(), quarter, quarter + memory.size() / 4, quarter + memory.size() / 2};
  for (int64_t t = 0; t < tokens; t += kBlockTokens) {
    std::copy_n(numbers.begin() + t * headDim, block.size(), block.begin());
    side.encode(block, kBlockTokens, &transform, feedback ? &*feedback : nullptr, at);
    for (int64_t i = 0; i < kBlockTokens; ++i)
      side.decode(i, &transform, at, result + (t + i) * headDim);
  }
}
