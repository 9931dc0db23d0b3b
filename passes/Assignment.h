// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One choice for each of many items, within a limit on their sum.
#ifndef KVCC_PASSES_ASSIGNMENT_H
#define KVCC_PASSES_ASSIGNMENT_H

#include "llvm/ADT/ArrayRef.h"

#include <cstdint>
#include <optional>
#include <vector>

namespace kvcc {

/// What choosing something brings (less is better) and what it costs. Choices of equal `kind` in different items
/// count as one kind.
struct Choice {
  double loss = 0, cost = 0;
  int64_t kind = 0;
};
/// `weight` equal items that must be decided alike.
struct Item {
  std::vector<Choice> choices;
  double weight = 1;
};

struct Assignment {
  std::vector<size_t> picks; ///< for each item an index into its choices
  double loss = 0, cost = 0;
  size_t kinds = 0; ///< distinct kinds among the picks
};

/// The least sum of losses with a sum of costs of at most `limit` and at most `maxKinds` kinds, or nothing if the
/// cheapest choices cost more. By Lagrange multipliers, then greedily into what is left of the limit: within one
/// choice of the best. Too many kinds are reduced by dropping, one after the other, the one that is missed least, or to
/// the best single one. Items that have no kind in common may keep more of them.
std::optional<Assignment> assign(llvm::ArrayRef<Item> items, double limit, size_t maxKinds);

} // namespace kvcc

#endif
