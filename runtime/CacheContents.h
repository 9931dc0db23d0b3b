// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Fills a cache in host memory as a prefill would, and reads one back: the scalar counterpart of the
// kernels, on the same definitions of format (Quantization.h) and layout (Layout.h).
#ifndef KVCC_RUNTIME_CACHECONTENTS_H
#define KVCC_RUNTIME_CACHECONTENTS_H

#include "dialect/Layout.h"
#include "dialect/Transforms.h"
#include "runtime/ThreadPool.h"
#include "llvm/Support/Error.h"

namespace kvcc {

/// The memory of one sequence in a cache. Page table entry i is the page of quantized tokens
/// i*page .. (i+1)*page-1.
struct SequenceMemory {
  uint8_t *pages;       ///< the pool
  const int32_t *table; ///< pages of this sequence
  uint8_t *slot;        ///< the slot of this sequence, CacheLayout::slotBytes
};

/// Keys or values of one sequence: [kv_heads, tokens, head_dim] with a stride between heads, numbers of the
/// cache's dtype.
struct PrefillTensor {
  const void *data;
  int64_t headStride; ///< in elements
};

/// What a writer may know of a KV head beforehand, say from a profile. What is empty is measured on the tokens it
/// gets, but for the queries: without their moment there is no feedback.
struct WriterStatistics {
  kv::TransformVectors keys, values;
  std::vector<double> queryMoment; ///< mean of q q^T over the queries of the KV head, [head_dim][head_dim]
};

/// What the append kernel is given of a layer: kv::GivenLayout and the bits kGivesKeyMeans, kGivesValueMeans,
/// kGivesWeights. Nothing without statistics. Fails if the format wants factors that are not there.
struct GivenVectors {
  std::vector<float> numbers;
  int64_t gives = 0;
};
llvm::Expected<GivenVectors> makeGivenVectors(kv::CacheType cache, llvm::ArrayRef<WriterStatistics> statistics);

/// The scalar writer, which the append kernel is compared with. Writes `tokens` tokens: transforms, quantized pages,
/// windows. `statistics` are of each KV head, or none at all. Fails, naming the place, on a number that is not finite,
/// and on one that does not fit the formats; the sequence then holds nothing of use. With `measured`, only so many
/// tokens were there when the sequence began, and what does not fit becomes the largest number that does, as the kernel
/// has it.
llvm::Error writePrefill(kv::CacheType cache, kv::ScheduleAttr schedule, const SequenceMemory &memory,
                         PrefillTensor keys, PrefillTensor values, int64_t tokens, ThreadPool &pool,
                         llvm::ArrayRef<WriterStatistics> statistics = {}, int64_t measured = -1);
/// Fails, naming the place, on a number that is not finite.
llvm::Error checkFinite(kv::CacheType cache, PrefillTensor tensor, llvm::StringRef name, int64_t tokens);

/// The `tokens` keys and values of a KV head as a reader understands the cache's bytes, transforms undone:
/// [tokens, head_dim] each.
void readSequence(kv::CacheType cache, kv::ScheduleAttr schedule, const SequenceMemory &memory, int64_t kvHead,
                  int64_t tokens, float *keys, float *values);

/// What one side of one KV head becomes when `tokens` tokens, numbers[tokens][head_dim], are quantized, all of them: as
/// writePrefill and readSequence would have it. `tokens` is a multiple of 32. Transforms measure on these tokens.
void roundTrip(kv::Role role, kv::QuantAttr quant, int64_t headDim, llvm::ArrayRef<float> numbers, int64_t tokens,
               const WriterStatistics &statistics, float *result);

} // namespace kvcc

#endif
