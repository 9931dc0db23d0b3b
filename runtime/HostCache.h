// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A cache in this process's memory, for tools and tests; a framework brings its own memory (kvcc.h).
#ifndef KVCC_RUNTIME_HOSTCACHE_H
#define KVCC_RUNTIME_HOSTCACHE_H

#include "runtime/CacheContents.h"
#include "runtime/Program.h"

namespace kvcc {

/// Zeroed bytes at an address that is a multiple of 64.
class AlignedBytes {
public:
  explicit AlignedBytes(size_t size = 0);
  uint8_t *data() const { return bytes.get(); }
  size_t size() const { return count; }

private:
  struct Free {
    void operator()(uint8_t *pointer) const { std::free(pointer); }
  };
  std::unique_ptr<uint8_t[], Free> bytes;
  size_t count;
};

/// New tokens of all sequences: token t of KV head h of sequence b is at element b * sequenceStride + t * tokenStride +
/// h * headStride of keys and of values.
struct NewTokens {
  const void *keys, *values;
  int64_t sequenceStride, tokenStride, headStride;
};

class HostCache {
public:
  /// For `batch` sequences of up to `maxTokens` tokens. Pages and slots are handed out back to front, so
  /// that nothing works by the accident of consecutive memory.
  HostCache(const Program &program, int64_t batch, int64_t maxTokens);

  /// The same contents in other memory.
  std::unique_ptr<HostCache> clone() const;

  /// Fills one sequence, which begins with these tokens. Numbers that are not finite, or do not fit the formats, fail
  /// with their place. Keys and values have the same stride.
  llvm::Error prefill(int64_t sequence, PrefillTensor keys, PrefillTensor values, int64_t tokens, ThreadPool &pool,
                      llvm::ArrayRef<WriterStatistics> statistics = {});
  /// Appends counts[b] tokens to sequence b.
  llvm::Error append(llvm::ArrayRef<int64_t> counts, const NewTokens &tokens, const GivenVectors &given = {},
                     const LaunchOptions &options = {}) {
    return append(0, counts, tokens, given, options);
  }
  /// The same for the sequences from `first` on.
  llvm::Error append(int64_t first, llvm::ArrayRef<int64_t> counts, const NewTokens &tokens,
                     const GivenVectors &given = {}, const LaunchOptions &options = {});
  /// Takes back the last `count` tokens of a sequence, see WindowAttr::getRollback.
  void rollBack(int64_t sequence, int64_t count) { lens[size_t(sequence)] -= int32_t(count); }
  int64_t getTokens(int64_t sequence) const { return lens[size_t(sequence)]; }
  SequenceMemory getSequence(int64_t sequence);
  /// A call over this cache; query, out, lse and the rest are the caller's.
  AttendCall getCall() const;
  size_t getBytes() const { return pages.size() + slots.size(); }
  /// The cache's bytes that one step over all sequences reads.
  int64_t getBytesRead() const;

  const AlignedBytes &getPages() const { return pages; }
  const AlignedBytes &getSlots() const { return slots; }
  const Program &getProgram() const { return program; }

private:
  const Program &program;
  int64_t batch, tableStride;
  AlignedBytes pages, slots;
  std::vector<int32_t> table, slotIds, lens;
};

/// One decode step over a whole cache, on host tensors whatever the executor: a GPU gets copies. `query` is [batch,
/// queries, q_heads, head_dim]; `out` and `lse` are resized. `splits` 0 chooses. `sinks` are [q_heads] of a shape with
/// sink logits, else empty.
llvm::Error decodeStep(const HostCache &cache, const void *query, std::vector<float> &out, std::vector<float> &lse,
                       int64_t splits = 0, unsigned threads = 0, uint64_t seed = 0, int64_t queries = 1,
                       llvm::ArrayRef<float> sinks = {});

} // namespace kvcc

#endif
