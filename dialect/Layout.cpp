// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The byte layout of caches.
#include "dialect/Layout.h"

#include "dialect/Fragments.h"

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

int64_t CacheLayout::getBlockBytes(CacheType cache) {
  return layOutBlock(cache.getHeadDim(), cache.getKey(), cache.getValue()).bytes;
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

static Order getScaleOrder(QuantAttr quant, Role role, Order codes) {
  if (codes == Order::Tiles)
    return Order::Tiles;
  return quant.getReducedExtent(role) == 1 ? Order::FragmentColumns : Order::FragmentRows;
}

Packing kvcc::kv::getScalePacking(QuantAttr quant, Role role, Packing codes) {
  Packing scales;
  scales.order = getScaleOrder(quant, role, codes.order);
  scales.freeTile = quant.getReducedExtent(role) == 1 ? 1 : codes.freeTile;
  return scales;
}

PackingAttr kvcc::kv::getScalePackingAttr(QuantAttr quant, Role role, PackingAttr codes) {
  Order order = getScaleOrder(quant, role, codes.getOrder());
  if (order != Order::Tiles)
    return PackingAttr::get(quant.getContext(), order);
  return PackingAttr::get(quant.getContext(), getScalePacking(quant, role, codes).freeTile, 1, 1);
}

int64_t ElementOrder::getIndex(int64_t free, int64_t reduce) const {
  if (packing.order == Order::Tiles) {
    int64_t freeTile = packing.freeTile, reduceTile = packing.reduceTile;
    int64_t tile = (free / freeTile) * (reduceExtent / reduceTile) + reduce / reduceTile;
    int64_t row = free % freeTile, column = reduce % reduceTile;
    // The lanes of a free index take the reduction indices in turn.
    int64_t lanes = std::max<int64_t>(packing.lanes / freeTile, 1);
    return tile * freeTile * reduceTile + row * reduceTile + column % lanes * (reduceTile / lanes) + column / lanes;
  }
  FragmentElement at(free, reduce);
  if (packing.order == Order::FragmentRows) // of groups of reduced indices
    return ((free % 16 / 2) * (freeExtent / 8) + at.u) * reduceExtent + reduce;
  if (packing.order == Order::FragmentColumns) // of groups of free indices
    return free * reduceExtent + at.tig * (reduceExtent / 4) + at.n * 2 + at.e;
  FragmentOrder order(freeExtent, reduceExtent, bits);
  auto [line, position] = order.getPosition(at.u, at.n);
  // Numbers are one word a pair.
  if (bits == 16)
    return 2 * order.getWord(line * 16 + position, at.lane) + at.e;
  return 2 * ((line * 16 + position) * 32 + at.lane) + at.e;
}

/// Calls `visit(bit position in data, first bit of the code, how many bits)` for the pieces of a code.
template <typename Visit>
static void visitPieces(Packing packing, const FragmentOrder &order, int64_t index, unsigned bits, Visit visit) {
  if (packing.order == Order::Fragments) {
    int64_t line = index / (2 * 32 * 16), position = index / (2 * 32) % 16, lane = index / 2 % 32, e = index % 2;
    for (const CodePiece &piece : getCodePieces(bits, position))
      visit(32 * order.getWord(line * bits + piece.word, lane) + 16 * e + piece.bit, unsigned(piece.from),
            unsigned(piece.count));
    return;
  }
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

void ElementOrder::storeCode(uint8_t *data, int64_t index, uint8_t code) const {
  FragmentOrder order(freeExtent, reduceExtent, bits);
  visitPieces(packing, order, index, bits, [&](int64_t at, unsigned first, unsigned count) {
    unsigned piece = ((code >> first) & ((1u << count) - 1)) << (at % 8);
    data[at / 8] |= uint8_t(piece);
    if (piece >> 8)
      data[at / 8 + 1] |= uint8_t(piece >> 8);
  });
}

uint8_t ElementOrder::loadCode(const uint8_t *data, int64_t index) const {
  FragmentOrder order(freeExtent, reduceExtent, bits);
  unsigned code = 0;
  visitPieces(packing, order, index, bits, [&](int64_t at, unsigned first, unsigned count) {
    unsigned raw = data[at / 8];
    if (at % 8 + count > 8)
      raw |= unsigned(data[at / 8 + 1]) << 8;
    code |= ((raw >> (at % 8)) & ((1u << count) - 1)) << first;
  });
  return uint8_t(code);
}
