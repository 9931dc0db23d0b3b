// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The prefill writer and its inverse.
#include "runtime/CacheContents.h"

#include "dialect/Quantization.h"

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
  BlockSide(Role role, QuantAttr quant, ScheduleAttr schedule, int64_t headDim)
      : isKey(role == Role::Key), quant(quant), packing(!quant.isQuantized() ? schedule.getFloats()
                                                        : isKey              ? schedule.getKey()
                                                                             : schedule.getValue()),
        headDim(headDim), reduceExtent(isKey ? headDim : kBlockTokens) {}

  /// Encodes [32, head_dim] numbers. Returns the (token, channel) of a number that does not fit.
  std::optional<std::pair<int64_t, int64_t>> encode(const float *numbers, uint8_t *data, uint8_t *scales,
                                                    uint8_t *zeros) const {
    if (!quant.isQuantized()) {
      unsigned bytes = quant.getBits() / 8;
      for (int64_t t = 0; t < kBlockTokens; ++t)
        for (int64_t c = 0; c < headDim; ++c) {
          float number = numbers[t * headDim + c];
          uint32_t bits = encodeFloat(quant.getElement(), number);
          if (!std::isfinite(decodeFloat(quant.getElement(), bits)))
            return std::pair(t, c);
          std::memcpy(data + elementIndex(t, c) * bytes, &bits, bytes);
        }
      return std::nullopt;
    }
    Quantizer quantizer(quant);
    int64_t groupTokens = quant.getGroupTokens(), groupChannels = quant.getGroupChannels();
    std::memset(data, 0, size_t(kBlockTokens * headDim * quant.getBits() / 8));
    SmallVector<float, 256> group;
    for (int64_t t0 = 0; t0 < kBlockTokens; t0 += groupTokens)
      for (int64_t c0 = 0; c0 < headDim; c0 += groupChannels) {
        group.clear();
        for (int64_t t = t0; t < t0 + groupTokens; ++t)
          for (int64_t c = c0; c < c0 + groupChannels; ++c)
            group.push_back(numbers[t * headDim + c]);
        GroupParameters parameters = quantizer.choose(group);
        if (!quantizer.isFinite(parameters)) {
          auto larger = [](float a, float b) { return std::fabs(a) < std::fabs(b); };
          int64_t at = std::max_element(group.begin(), group.end(), larger) - group.begin();
          return std::pair(t0 + at / groupChannels, c0 + at % groupChannels);
        }
        std::memcpy(scales + scaleIndex(t0, c0) * 2, &parameters.scale, 2);
        if (quant.hasZeros())
          std::memcpy(zeros + scaleIndex(t0, c0) * 2, &parameters.zero, 2);
        size_t i = 0;
        for (int64_t t = t0; t < t0 + groupTokens; ++t)
          for (int64_t c = c0; c < c0 + groupChannels; ++c)
            storeCode(data, packing, elementIndex(t, c), quant.getBits(), quantizer.encode(group[i++], parameters));
      }
    return std::nullopt;
  }

  float decode(int64_t token, int64_t channel, const uint8_t *data, const uint8_t *scales, const uint8_t *zeros) const {
    if (!quant.isQuantized()) {
      unsigned bytes = quant.getBits() / 8;
      return decodeFloat(quant.getElement(), loadBits(data + elementIndex(token, channel) * bytes, bytes));
    }
    int64_t at = scaleIndex(token, channel) * 2;
    GroupParameters parameters{uint16_t(loadBits(scales + at, 2)),
                               quant.hasZeros() ? uint16_t(loadBits(zeros + at, 2)) : uint16_t(0)};
    return Quantizer(quant).decode(loadCode(data, packing, elementIndex(token, channel), quant.getBits()), parameters);
  }

private:
  int64_t elementIndex(int64_t token, int64_t channel) const {
    return isKey ? getElementIndex(packing, token, channel, reduceExtent)
                 : getElementIndex(packing, channel, token, reduceExtent);
  }
  int64_t scaleIndex(int64_t token, int64_t channel) const {
    int64_t t = token / quant.getGroupTokens(), c = channel / quant.getGroupChannels();
    PackingAttr scalePacking = getScalePacking(quant, isKey ? Role::Key : Role::Value, packing);
    return isKey ? getElementIndex(scalePacking, t, c, headDim / quant.getGroupChannels())
                 : getElementIndex(scalePacking, c, t, kBlockTokens / quant.getGroupTokens());
  }

  bool isKey;
  QuantAttr quant;
  PackingAttr packing;
  int64_t headDim, reduceExtent;
};

/// Where the tokens of a sequence lie, one KV head at a time.
class HeadMemory {
public:
  HeadMemory(CacheType cache, ScheduleAttr schedule, const SequenceMemory &memory, int64_t kvHead, int64_t tokens)
      : layout(cache, schedule), window(cache.getWindow()), memory(memory), kvHead(kvHead), tokens(tokens),
        slot(memory.slot + kvHead * layout.slotHeadBytes) {
    auto plain = QuantAttr::get(cache.getContext(), cache.getDtype(), Map::None, 0, 0,
                                mlir::NoneType::get(cache.getContext()), mlir::ArrayAttr::get(cache.getContext(), {}));
    for (auto [role, quant] : {std::pair(Role::Key, cache.getKey()), std::pair(Role::Value, cache.getValue())}) {
      pageSides.emplace_back(role, quant, schedule, cache.getHeadDim());
      windowSides.emplace_back(role, plain, schedule, cache.getHeadDim());
    }
  }

  struct Block {
    uint8_t *base;
    const BlockLayout &layout;
    ArrayRef<BlockSide> sides; ///< keys, values
    int64_t first, count;      ///< tokens
    bool quantized;
  };

  float *norms() const { return reinterpret_cast<float *>(slot + layout.normOffset); }
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
                  layout.page, pageSides, sink + b * kBlockTokens,
                  std::min(kBlockTokens, quantized - b * kBlockTokens), true});
    }
    for (int64_t t = sink + quantized; t < tokens; t += kBlockTokens) {
      int64_t ring = (t - sink) / kBlockTokens % layout.recentBlocks;
      visit(Block{slot + layout.recentOffset + ring * layout.window.bytes, layout.window, windowSides, t,
                  std::min(kBlockTokens, tokens - t), false});
    }
  }

private:
  CacheLayout layout;
  WindowAttr window;
  SequenceMemory memory;
  int64_t kvHead, tokens;
  uint8_t *slot;
  SmallVector<BlockSide, 2> pageSides, windowSides;
};

class HeadWriter {
public:
  HeadWriter(CacheType cache, int64_t kvHead, int64_t tokens)
      : cache(cache), kvHead(kvHead), tokens(tokens), headDim(cache.getHeadDim()) {}

  Error write(const HeadMemory &memory, PrefillTensor keyTensor, PrefillTensor valueTensor) {
    std::vector<float> keys, values;
    if (Error error = convert(keyTensor, "k", keys))
      return error;
    if (Error error = convert(valueTensor, "v", values))
      return error;
    std::memset(memory.slotBytes().data(), 0, memory.slotBytes().size());
    float *norms = memory.norms();
    std::fill(norms, norms + headDim, 1.0f);
    if (DiagAttr diag = cache.getKey().getDiag())
      computeDiagFactors(diag, keys.data(), tokens, headDim, norms);

    Error failure = Error::success();
    std::vector<float> block(size_t(kBlockTokens * headDim));
    memory.forEachBlock([&](HeadMemory::Block at) {
      if (failure)
        return;
      for (bool isKey : {true, false}) {
        const std::vector<float> &source = isKey ? keys : values;
        auto first = source.begin() + at.first * headDim;
        std::fill(std::copy(first, first + at.count * headDim, block.begin()), block.end(), 0.0f);
        if (isKey && at.quantized)
          for (int64_t i = 0; i < kBlockTokens * headDim; ++i)
            block[size_t(i)] /= norms[i % headDim];
        uint8_t *data = at.base + (isKey ? at.layout.keyData : at.layout.valueData);
        uint8_t *scales = at.base + (isKey ? at.layout.keyScales : at.layout.valueScales);
        uint8_t *zeros = at.base + (isKey ? at.layout.keyZeros : at.layout.valueZeros);
        auto bad = at.sides[isKey ? 0 : 1].encode(block.data(), data, scales, zeros);
        if (!bad)
          continue;
        int64_t token = at.first + bad->first, channel = bad->second;
        float number = source[size_t(token * headDim + channel)];
        failure = createStringError("expected numbers that fit the cache's 16-bit formats, but got " +
                                    std::to_string(number) + " at " + place(isKey ? "k" : "v", token, channel));
        return;
      }
    });
    return failure;
  }

private:
  std::string place(StringRef name, int64_t token, int64_t channel) const {
    return (name + "[kv head " + Twine(kvHead) + ", token " + Twine(token) + ", channel " + Twine(channel) + "]").str();
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

  CacheType cache;
  int64_t kvHead, tokens, headDim;
};

} // namespace

Error kvcc::writePrefill(CacheType cache, ScheduleAttr schedule, const SequenceMemory &memory, PrefillTensor keys,
                         PrefillTensor values, int64_t tokens, ThreadPool &pool) {
  // The first head's error, whichever thread finds one first: the same input, the same message.
  std::vector<std::string> messages(size_t(cache.getKvHeads()));
  pool.run(cache.getKvHeads(), 0, [&](int64_t head) {
    HeadMemory where(cache, schedule, memory, head, tokens);
    if (Error error = HeadWriter(cache, head, tokens).write(where, keys, values))
      messages[size_t(head)] = toString(std::move(error));
  });
  for (const std::string &message : messages)
    if (!message.empty())
      return createStringError(message);
  return Error::success();
}

void kvcc::readSequence(CacheType cache, ScheduleAttr schedule, const SequenceMemory &memory, int64_t kvHead,
                        int64_t tokens, float *keys, float *values) {
  HeadMemory head(cache, schedule, memory, kvHead, tokens);
  int64_t headDim = cache.getHeadDim();
  const float *norms = head.norms();
  head.forEachBlock([&](HeadMemory::Block at) {
    for (int64_t t = 0; t < at.count; ++t)
      for (int64_t c = 0; c < headDim; ++c) {
        size_t i = size_t((at.first + t) * headDim + c);
        keys[i] = at.sides[0].decode(t, c, at.base + at.layout.keyData, at.base + at.layout.keyScales,
                                   at.base + at.layout.keyZeros);
        if (at.quantized && cache.getKey().getDiag())
          keys[i] *= norms[c];
        values[i] = at.sides[1].decode(t, c, at.base + at.layout.valueData, at.base + at.layout.valueScales,
                                     at.base + at.layout.valueZeros);
      }
  });
}
