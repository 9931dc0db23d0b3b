// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Instructions of the CPU lowerings.
#ifndef KVCC_PASSES_CPUCOST_H
#define KVCC_PASSES_CPUCOST_H

#include "dialect/Kv.h"
#include "passes/CpuLevel.h"

namespace kvcc {

/// Vector instructions, with what is scalar around them, of one pass of `schedule.heads` query heads over a block of 32
/// tokens of one KV head: of a page, and of a window.
struct CpuBlockCost {
  double page = 0, window = 0;
};
CpuBlockCost countCpuBlock(kv::CacheType cache, kv::ScheduleAttr schedule, const CpuLevel &level);

} // namespace kvcc

#endif
