// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Where every byte of a cache lies, given its type and a schedule: shared by writers, kernels and checks.
#ifndef KVCC_DIALECT_LAYOUT_H
#define KVCC_DIALECT_LAYOUT_H

#include "dialect/Kv.h"

namespace kvcc::kv {

/// One side (keys or values) of a block of 32 tokens of one KV head: codes or numbers, scales, zero points, token
/// norms. Formats without codes have no scales, and only asymmetric ones zeros. Offsets in bytes from the start of the
/// block, each a multiple of 64.
struct SideLayout {
  int64_t data = 0, scales = 0, zeros = 0, norms = 0;
};
struct BlockLayout {
  SideLayout key, value;
  int64_t bytes = 0;
};

/// Vectors of head_dim f32 of one side in the slot of a sequence, for transforms that have them (else -1): the
/// factors of a diagonal and the means of a centring.
struct VectorLayout {
  int64_t factors = -1, means = -1;
};

/// Pages hold quantized tokens: page p of a sequence holds quantized tokens p*page .. (p+1)*page-1 (token
/// `sink` is the first), as [kv_heads][page/32] blocks. A slot holds what a sequence has outside its
/// pages, as [kv_heads] of: key factors | key means | value factors | value means | sink blocks | recent
/// blocks, the latter two in the cache's dtype. The recent blocks are a ring over quantized-token indices: the block
/// that starts at token sink + 32*j is recent block j % recentBlocks. The ring holds as many tokens as may be taken
/// back besides the window: after that, the tokens that are recent again are still there.
struct CacheLayout {
  /// Creates nothing in the context of its arguments, as all functions below: any thread may call them.
  CacheLayout(CacheType cache, ScheduleAttr schedule);
  /// Of a block of pages, whatever the schedule.
  static int64_t getBlockBytes(CacheType cache);

  BlockLayout page, window;
  int64_t blocksPerPage, pageHeadBytes, pageBytes;
  int64_t sinkBlocks, recentBlocks;
  VectorLayout keyVectors, valueVectors;
  int64_t sinkOffset, recentOffset, slotHeadBytes, slotBytes;
};

/// What writers may be given, f32: [kv_heads] of head_dim key factors | key means | value factors | value means, and
/// with feedback head_dim x head_dim weights. Offsets in elements from the start of a head.
struct GivenLayout {
  explicit GivenLayout(CacheType cache)
      : value(2 * cache.getHeadDim()), weights(2 * value),
        headExtent(weights + (cache.getKey().getFeedback() ? cache.getHeadDim() * cache.getHeadDim() : 0)) {}
  int64_t key = 0, value, weights, headExtent;
};

/// What a #kv.packing says. Unlike the attribute it can be made in any thread, whoever uses the context.
struct Packing {
  int64_t freeTile = 1, reduceTile = 1, lanes = 1;
  Order order = Order::Tiles;
  Packing() = default;
  Packing(PackingAttr attr)
      : freeTile(attr.getFreeTile()), reduceTile(attr.getReduceTile()), lanes(attr.getLanes()), order(attr.getOrder()) {
  }
};

/// The packing of a quantized format's scales (and zeros), given that of its codes: the free index in tiles
/// as wide as the codes' tiles; or, where every reduced index has a scale of its own, the reduced index
/// fastest; or what goes with fragments.
Packing getScalePacking(QuantAttr quant, Role role, Packing codes);
PackingAttr getScalePackingAttr(QuantAttr quant, Role role, PackingAttr codes);

/// Where the elements of a block of free x reduce indices lie in the order of a packing.
class ElementOrder {
public:
  ElementOrder(Packing packing, int64_t freeExtent, int64_t reduceExtent, unsigned bits)
      : packing(packing), freeExtent(freeExtent), reduceExtent(reduceExtent), bits(bits) {}

  /// The position of (free, reduce): of a number or a scale in memory, in elements; of a code as storeCode takes it.
  int64_t getIndex(int64_t free, int64_t reduce) const;

  /// Writes (the bits must be zero before) or reads one code at an index.
  void storeCode(uint8_t *data, int64_t index, uint8_t code) const;
  uint8_t loadCode(const uint8_t *data, int64_t index) const;

private:
  Packing packing;
  int64_t freeExtent, reduceExtent;
  unsigned bits;
};

} // namespace kvcc::kv

#endif
