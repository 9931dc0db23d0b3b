// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The order #kv.packing<fragments>: which lane of a warp has an element, and in which bits of its words.
#ifndef KVCC_DIALECT_FRAGMENTS_H
#define KVCC_DIALECT_FRAGMENTS_H

#include "llvm/ADT/ArrayRef.h"

#include <array>
#include <cstdint>
#include <utility>

namespace kvcc::kv {

/// Element (free, reduce) as a half of a register of an operand fragment: row 8*hi + gid of row tile t, half e of
/// register h of k-step s. (u, n) is its pair.
struct FragmentElement {
  int64_t u, n, e, tig, lane;
  FragmentElement(int64_t free, int64_t reduce)
      : u(free / 16 * 2 + free % 2), n(reduce / 16 * 2 + reduce % 2), e(reduce % 4 / 2), tig(reduce % 16 / 4),
        lane(free % 16 / 2 * 4 + tig) {}
};
/// The indices of row u in lane gid, and of pair n, half e, in lane tig.
constexpr int64_t getFreeIndex(int64_t u, int64_t gid) { return u / 2 * 16 + 2 * gid + u % 2; }
constexpr int64_t getReduceIndex(int64_t n, int64_t tig, int64_t e) { return n / 2 * 16 + 4 * tig + 2 * e + n % 2; }

/// Bits from..from+count-1 of a code are bits bit..bit+count-1 of a half of a word of its line.
struct CodePiece {
  int word, bit, count, from;
};
/// Where the code of position 0..15 of a line of `bits` words stands. Halves hold as many whole codes as fit; the bits
/// that are left over make up the last positions.
llvm::ArrayRef<CodePiece> getCodePieces(unsigned bits, int64_t position);

/// The lines of a block.
class FragmentOrder {
public:
  /// Extents are multiples of 32.
  FragmentOrder(int64_t freeExtent, int64_t reduceExtent, unsigned bits)
      : pairs(reduceExtent / 8), bits(bits), words(freeExtent / 8 * pairs / 16 * bits) {}

  /// Pairs n first..first+extent-1, 4, 8 or 16 of them, of four rows: extent / 4 lines.
  struct Chunk {
    int64_t first, extent;
    int64_t getLines() const { return extent / 4; }
  };
  Chunk getChunk(int64_t n) const;
  int64_t getLinesPerUnit() const { return pairs / 4; } ///< a unit is four rows u
  int64_t getWordsPerLane() const { return words; }
  int64_t getReduceExtent() const { return 8 * pairs; }

  std::pair<int64_t, int64_t> getPosition(int64_t u, int64_t n) const; ///< line of the lane, position in it
  /// Word x of a lane, in words from the start of the block.
  int64_t getWord(int64_t x, int64_t lane) const;

private:
  int64_t pairs;
  unsigned bits;
  int64_t words;
};

/// Position of row u (of four) and index n of a line of `chunk` indices.
int64_t getLinePosition(unsigned bits, int64_t chunk, int64_t u, int64_t n);

} // namespace kvcc::kv

#endif
