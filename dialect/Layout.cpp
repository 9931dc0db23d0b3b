// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The byte layout of caches.
#include "dialect/Layout.h"

#include "llvm/Support/MathExtras.h"

using namespace kvcc::kv;

/// Vector loads of a CPU and 16-byte loads of a GPU start at aligned addresses.
static constexpr int64_t kAlignment = 64;

static int64_t align(int64_t bytes) { return llvm::alignTo(bytes, kAlignment); }

static BlockLayout layOutBlock(int64_t headDim, QuantAttr key, QuantAttr value) {
  BlockLayout block;
  int64_t elements = kBlockTokens * headDim, at = 0;
  auto place = [&](QuantAttr quant) {
    int64_t perGroup =
        quant.isQuantized() ? elements / quant.getGroupSize() * quant.getScale().getIntOrFloatBitWidth() / 8 : 0;
    SideLayout side;
    side.data = at;
    side.scales = at = align(at + elements * quant.getBits() / 8);
    side.zeros = at = align(at + perGroup);
    side.norms = at = align(at + (quant.hasZeros() ? perGroup : 0));
    if (auto norm = quant.getTransform<TokenNormAttr>())
      at = align(at + kBlockTokens * norm.getType().getIntOrFloatBitWidth() / 8);
    return side;
  };
  block.key = place(key);
  block.value = place(value);
  block.bytes = at;
  return block;
}

/// A block of numbers as they are.
static BlockLayout layOutBlock(int64_t headDim, unsigned bits) {
  int64_t side = align(kBlockTokens * headDim * bits / 8);
  return {{0, side, side, side}, {side, 2 * side, 2 * side, 2 * side}, 2 * side};
}

CacheLayout::CacheLayout(CacheType cache, ScheduleAttr schedule) {
  page = layOutBlock(cache.getHeadDim(), cache.getKey(), cache.getValue());
  window = layOutBlock(cache.getHeadDim(), cache.getDtype().getIntOrFloatBitWidth());

  blocksPerPage = schedule.getPage() / kBlockTokens;
  pageHeadBytes = blocksPerPage * page.bytes;
  pageBytes = std::max(cache.getKvHeads() * pageHeadBytes, schedule.getPageBytes());

  WindowAttr tokens = cache.getWindow();
  sinkBlocks = llvm::divideCeil(tokens.getSink(), kBlockTokens);
  // Tokens that are quantized one by one never wait.
  recentBlocks = tokens.getFlush() == 1
                     ? 0
                     : llvm::divideCeil(tokens.getRecent() + tokens.getFlush() + tokens.getRollback(), kBlockTokens);
  sinkOffset = 0;
  auto place = [&](bool wanted, int64_t &offset) {
    if (!wanted)
      return;
    offset = sinkOffset;
    sinkOffset += align(cache.getHeadDim() * int64_t(sizeof(float)));
  };
  for (auto [quant, vectors] : {std::pair(cache.getKey(), &keyVectors), std::pair(cache.getValue(), &valueVectors)}) {
    place(bool(quant.getDiag()), vectors->factors);
    place(bool(quant.getTransform<CenterAttr>()), vectors->means);
  }
  recentOffset = sinkOffset + sinkBlocks * window.bytes;
  slotHeadBytes = recentOffset + recentBlocks * window.bytes;
  slotBytes = std::max(cache.getKvHeads() * slotHeadBytes, kAlignment);
}

Packing kvcc::kv::getScalePacking(QuantAttr quant, Role role, Packing codes) {
  Packing scales;
  scales.freeTile = quant.getReducedExtent(role) == 1 ? 1 : codes.freeTile;
  return scales;
}

int64_t kvcc::kv::getElementIndex(Packing packing, int64_t free, int64_t reduce, int64_t reduceExtent) {
  int64_t freeTile = packing.freeTile, reduceTile = packing.reduceTile;
  int64_t tile = (free / freeTile) * (reduceExtent / reduceTile) + reduce / reduceTile;
  int64_t row = free % freeTile, column = reduce % reduceTile;
  // The lanes of a free index take the reduction indices in turn.
  int64_t lanes = std::max<int64_t>(packing.lanes / freeTile, 1);
  return tile * freeTile * reduceTile + row * reduceTile + column % lanes * (reduceTile / lanes) + column / lanes;
}

/// Calls `visit(bit position in data, first bit of the code, how many bits)` for the pieces of a code.
template <typename Visit> static void visitPieces(Packing packing, int64_t index, unsigned bits, Visit visit) {
  int64_t lanes = packing.lanes;
  if (lanes == 1) {
    visit(index * bits, 0u, bits);
    return;
  }
  // Code i of a lane: bits i*b.. of its b words; word k of all lanes of a tile stands together.
  int64_t width = packing.freeTile * packing.reduceTile / lanes;
  int64_t lane = index / width, first = index % width * bits, word = first / width, shift = first % width;
  auto bitOfWord = [&](int64_t k) { return ((lane / lanes * bits + k) * lanes + lane % lanes) * width; };
  unsigned low = unsigned(std::min<int64_t>(bits, width - shift));
  visit(bitOfWord(word) + shift, 0u, low);
  if (low < bits)
    visit(bitOfWord(word + 1), low, bits - low);
}

void kvcc::kv::storeCode(uint8_t *data, Packing packing, int64_t index, unsigned bits, uint8_t code) {
  visitPieces(packing, index, bits, [&](int64_t at, unsigned first, unsigned count) {
    unsigned piece = ((code >> first) & ((1u << count) - 1)) << (at % 8);
    data[at / 8] |= uint8_t(piece);
    if (piece >> 8)
      data[at / 8 + 1] |= uint8_t(piece >> 8);
  });
}

uint8_t kvcc::kv::loadCode(const uint8_t *data, Packing packing, int64_t index, unsigned bits) {
  unsigned code = 0;
  visitPieces(packing, index, bits, [&](int64_t at, unsigned first, unsigned count) {
    unsigned raw = data[at / 8];
    if (at % 8 + count > 8)
      raw |= unsigned(data[at / 8 + 1]) << 8;
    code |= ((raw >> (at % 8)) & ((1u << count) - 1)) << first;
  });
  return uint8_t(code);
}
