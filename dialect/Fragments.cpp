// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The bits of fragments.
#include "dialect/Fragments.h"

#include <cassert>
#include <vector>

using namespace kvcc::kv;

/// The codes of a line, by position.
static std::vector<std::vector<CodePiece>> makeLine(unsigned bits) {
  std::vector<std::vector<CodePiece>> line;
  int width = int(bits), perHalf = 16 / width;
  // Three bits: the shift that brings the last two codes down leaves the bit between them where it joins others.
  const int threes[] = {0, 3, 6, 10, 13};
  for (int word = 0; word < width; ++word)
    for (int slot = 0; slot < perHalf && line.size() < 16; ++slot)
      line.push_back({{word, bits == 3 ? threes[slot] : slot * width, width, 0}});
  auto join = [&](std::initializer_list<CodePiece> pieces) { line.push_back(pieces); };
  switch (bits) {
  case 3:
    join({{0, 9, 1, 0}, {1, 9, 1, 1}, {2, 9, 1, 2}});
    break;
  case 5:
    join({{0, 15, 1, 0}, {1, 15, 1, 1}, {2, 15, 1, 2}, {3, 15, 1, 3}, {4, 15, 1, 4}});
    break;
  case 6:
    join({{0, 12, 4, 0}, {2, 12, 2, 4}});
    join({{1, 12, 4, 0}, {2, 14, 2, 4}});
    join({{3, 12, 4, 0}, {5, 12, 2, 4}});
    join({{4, 12, 4, 0}, {5, 14, 2, 4}});
    break;
  case 7:
    join({{0, 14, 2, 0}, {1, 14, 2, 2}, {2, 14, 2, 4}, {3, 14, 1, 6}});
    join({{3, 15, 1, 0}, {4, 14, 2, 1}, {5, 14, 2, 3}, {6, 14, 2, 5}});
    break;
  default:
    break;
  }
  assert(line.size() == 16 && "expected the codes of a line to fill it");
  return line;
}

llvm::ArrayRef<CodePiece> kvcc::kv::getCodePieces(unsigned bits, int64_t position) {
  assert(((bits >= 2 && bits <= 8) || bits == 16) && "expected 2 to 8 bits, or 16");
  static const std::vector<std::vector<std::vector<CodePiece>>> lines = [] {
    std::vector<std::vector<std::vector<CodePiece>>> all(17);
    for (unsigned bits : {2, 3, 4, 5, 6, 7, 8, 16})
      all[bits] = makeLine(bits);
    return all;
  }();
  return lines[bits][size_t(position)];
}

int64_t kvcc::kv::getLinePosition(unsigned bits, int64_t chunk, int64_t u, int64_t n) {
  if (chunk != 4)
    return u / (chunk / 4) * chunk + n;
  // Rows 0 and 1, and rows 2 and 3, multiply the same operand: codes of an index stand at the same bits in both, or get
  // there by shifts that other codes need anyway. All four rows share the operand of indices 0 and 1.
  static constexpr int threes[4][4] = {{0, 1, 2, 4}, {5, 6, 7, 9}, {10, 11, 3, 12}, {15, 13, 8, 14}};
  static constexpr int fives[4][4] = {{0, 1, 2, 12}, {3, 4, 5, 13}, {6, 7, 8, 14}, {9, 10, 11, 15}};
  return bits == 3 ? threes[u][n] : bits == 5 ? fives[u][n] : 4 * u + n;
}

FragmentOrder::Chunk FragmentOrder::getChunk(int64_t n) const {
  int64_t first = 0;
  for (int64_t extent : {16, 8, 4})
    for (; first + extent <= pairs; first += extent)
      if (n < first + extent)
        return {first, extent};
  assert(false && "expected an index of the block");
  return {0, 0};
}

std::pair<int64_t, int64_t> FragmentOrder::getPosition(int64_t u, int64_t n) const {
  Chunk chunk = getChunk(n);
  // Chunks before this one have as many lines as four pairs each.
  int64_t line = u / 4 * getLinesPerUnit() + chunk.first / 4 + u % 4 % chunk.getLines();
  return {line, getLinePosition(bits, chunk.extent, u % 4, n - chunk.first)};
}

int64_t FragmentOrder::getWord(int64_t x, int64_t lane) const {
  int64_t fours = words / 4 * 4, rest = words % 4;
  if (x < fours)
    return x / 4 * 128 + lane * 4 + x % 4;
  if (rest >= 2 && x < fours + 2)
    return fours * 32 + lane * 2 + x - fours;
  return (words - 1) * 32 + lane;
}
