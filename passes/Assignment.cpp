// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Lagrangian assignment.
#include "passes/Assignment.h"

#include "llvm/ADT/STLExtras.h"

#include <cmath>
#include <limits>
#include <set>

using namespace kvcc;

namespace {

using Kinds = std::set<int64_t>;

/// Whether a choice may be used; no set allows all.
bool isAllowed(const Choice &choice, const Kinds *kinds) { return !kinds || kinds->count(choice.kind); }

void sumUp(llvm::ArrayRef<Item> items, Assignment &result) {
  Kinds kinds;
  result.loss = result.cost = 0;
  for (auto [item, pick] : llvm::zip(items, result.picks)) {
    result.loss += item.weight * item.choices[pick].loss;
    result.cost += item.weight * item.choices[pick].cost;
    kinds.insert(item.choices[pick].kind);
  }
  result.kinds = kinds.size();
}

/// The best picks where a unit of cost is worth `exchange`; ties go to the cheaper choice.
std::optional<Assignment> pick(llvm::ArrayRef<Item> items, double exchange, const Kinds *kinds) {
  Assignment result;
  for (const Item &item : items) {
    size_t best = item.choices.size();
    double least = std::numeric_limits<double>::infinity();
    for (auto [i, choice] : llvm::enumerate(item.choices)) {
      double price = choice.loss + exchange * choice.cost;
      if (!isAllowed(choice, kinds) || price > least || (price == least && choice.cost >= item.choices[best].cost))
        continue;
      least = price;
      best = i;
    }
    if (best == item.choices.size())
      return std::nullopt;
    result.picks.push_back(best);
  }
  sumUp(items, result);
  return result;
}

/// Spends what is left on the changes that bring most per unit of cost.
void fill(llvm::ArrayRef<Item> items, double limit, const Kinds *kinds, Assignment &result) {
  for (;;) {
    double best = 0;
    size_t bestItem = 0, bestPick = 0;
    for (auto [i, item] : llvm::enumerate(items)) {
      const Choice &now = item.choices[result.picks[i]];
      for (auto [j, choice] : llvm::enumerate(item.choices)) {
        double more = item.weight * (choice.cost - now.cost), gain = item.weight * (now.loss - choice.loss);
        if (!isAllowed(choice, kinds) || gain <= 0 || result.cost + more > limit)
          continue;
        double rate = more > 0 ? gain / more : std::numeric_limits<double>::infinity();
        if (rate > best) {
          best = rate;
          bestItem = i;
          bestPick = j;
        }
      }
    }
    if (best == 0)
      return;
    result.picks[bestItem] = bestPick;
    sumUp(items, result);
  }
}

std::optional<Assignment> assignAmong(llvm::ArrayRef<Item> items, double limit, const Kinds *kinds) {
  std::optional<Assignment> result = pick(items, 0, kinds);
  if (result && result->cost > limit) {
    // The least exchange rate that keeps the limit, between 2^-120 and 2^120 of the units.
    double low = -120, high = 120;
    result.reset();
    for (int step = 0; step < 60; ++step) {
      double middle = (low + high) / 2;
      std::optional<Assignment> next = pick(items, std::exp2(middle), kinds);
      bool fits = next && next->cost <= limit;
      (fits ? high : low) = middle;
      if (fits)
        result = std::move(next);
    }
  }
  if (result)
    fill(items, limit, kinds, *result);
  return result;
}

/// The best choice of one kind for all items.
std::optional<Assignment> assignOneKind(llvm::ArrayRef<Item> items, double limit) {
  std::optional<Assignment> best;
  if (items.empty())
    return best;
  for (const Choice &choice : items.front().choices) {
    Kinds kinds = {choice.kind};
    std::optional<Assignment> result = pick(items, 0, &kinds);
    if (result && result->cost <= limit && (!best || result->loss < best->loss))
      best = std::move(result);
  }
  return best;
}

} // namespace

std::optional<Assignment> kvcc::assign(llvm::ArrayRef<Item> items, double limit, size_t maxKinds) {
  std::optional<Assignment> result = assignAmong(items, limit, nullptr);
  if (!result || result->kinds <= maxKinds)
    return result;
  while (result->kinds > maxKinds) {
    Kinds used;
    for (auto [item, pick] : llvm::zip(items, result->picks))
      used.insert(item.choices[pick].kind);
    std::optional<Assignment> best;
    for (int64_t dropped : used) {
      Kinds rest = used;
      rest.erase(dropped);
      std::optional<Assignment> without = assignAmong(items, limit, &rest);
      if (without && (!best || without->loss < best->loss))
        best = std::move(without);
    }
    if (!best)
      break;
    result = std::move(best);
  }
  // Nothing fits without one of them, or one that was not among them is better alone.
  std::optional<Assignment> one = assignOneKind(items, limit);
  return one && (result->kinds > maxKinds || one->loss < result->loss) ? one : result;
}
