// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Runs a grid on one OS thread: one CTA at a time, one fiber per CUDA thread. Knows scheduling,
// collectives, asynchronous copies and shared memory, but no kv_* name; those are in host.h.
//
// A fiber runs until it reaches a collective. It leaves a pointer to its operands (on its own
// stack) and gives way to the next ready fiber; the 32nd lane of the warp to arrive executes the
// collective for all of them and makes the other 31 ready. Nothing is allocated and the switch goes
// straight from fiber to fiber. Everything is file-local: each compiled module has its own state,
// and its loader lets one launch in at a time.

#ifndef KVCC_CODEGEN_CUDA_PRELUDE_HOST_RUNTIME_H
#define KVCC_CODEGEN_CUDA_PRELUDE_HOST_RUNTIME_H

#include "codegen/cuda/prelude/host_abi.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <utility>

#if !__has_include(<boost/context/detail/fcontext.hpp>)
#error "running kernels on the host needs Boost.Context; install it (Debian: libboost-context-dev)"
#endif
#include <boost/context/detail/fcontext.hpp>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KV_HOST_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define KV_HOST_ASAN 1
#endif
#ifdef KV_HOST_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// The linker makes these when a KV_SHARED array exists; weak for the kernels that have none.
extern "C" {
extern unsigned char __start_kv_shared[] __attribute__((weak, visibility("hidden")));
extern unsigned char __stop_kv_shared[] __attribute__((weak, visibility("hidden")));
}

namespace kv_host {
namespace {

namespace bc = boost::context::detail;

constexpr uint32_t MaxThreads = 1024;
constexpr uint32_t MaxPendingCopies = 256;
#if defined(KV_HOST_ASAN) || defined(KV_HOST_RACES)
constexpr size_t StackBytes = 256 * 1024; // redzones, or no optimization, make frames several times as large
#else
constexpr size_t StackBytes = 64 * 1024;
#endif
constexpr size_t GuardBytes = 4096;
// Fibers of a warp execute the same frames: stacks at equal offsets of a page would all fight for
// the same sets of the first-level cache.
constexpr size_t StackColour = 448;

/// What the lanes of a warp do together. `run` gets one operand pointer per lane.
struct Collective {
  const char *name;
  void (*run)(void *const *operands);
  /// All lanes must come from the same call: true of everything but the warp barrier.
  bool sameSite;
};

/// A cp.async that no wait has covered.
struct PendingCopy {
  void *dst;
  const void *src; ///< null if it has landed
  uint32_t group;
};

struct Fiber {
  bc::fcontext_t context;
  uint32_t tid;
  bool done;
  uint32_t copyGroup; ///< Groups committed so far.
  uint32_t numCopies;
  PendingCopy *copies; ///< MaxPendingCopies of them.
  void *stackLow;
  size_t stackBytes;
  void *fakeStack; ///< AddressSanitizer's.
};

struct Warp {
  const Collective *collective; ///< Meaningful while `arrived` is not 0.
  uint32_t line;
  uint32_t arrived; ///< One bit per waiting lane.
  uint32_t firstLane;
  void *operands[32];
};

struct State {
  // The launch.
  const KvHostLaunch *launch;
  const char *kernel;
  void (*body)();
  uint64_t random;
  bool failed;
  // The current CTA.
  uint32_t block[3];
  uint32_t alive;
  uint32_t warpsAtBarrier;
  uint32_t copyMode; ///< 0: copies land at once; 1: at the wait; 2: either.
  Fiber *current;
  Fiber mainFiber;
  Fiber fibers[MaxThreads];
  Warp warps[MaxThreads / 32];
  // Ready threads: a ring, both ends in use.
  uint16_t ready[MaxThreads];
  uint32_t readyHead, readyCount;
  // Kept until the module is unloaded: touching the stacks of a CTA for the first time costs more
  // than a short kernel.
  unsigned char *stacks;
  uint32_t numStacks;
  PendingCopy *copies;
  // Of this launch.
  unsigned char *dynamicShared;
};

State state;

/// splitmix64: the shortest generator that is good enough for orders.
inline uint64_t nextRandom() {
  uint64_t z = (state.random += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

//===----------------------------------------------------------------------===//
// Switching
//===----------------------------------------------------------------------===//

#ifdef KV_HOST_ASAN
inline void asanLeave(Fiber &from, Fiber &to, bool forever) {
  __sanitizer_start_switch_fiber(forever ? nullptr : &from.fakeStack, to.stackLow, to.stackBytes);
}
inline void asanEnter(Fiber &self) { __sanitizer_finish_switch_fiber(self.fakeStack, nullptr, nullptr); }
#else
inline void asanLeave(Fiber &, Fiber &, bool) {}
inline void asanEnter(Fiber &) {}
#endif

/// Runs `next`; returns when somebody switches back.
inline void switchTo(Fiber &next, bool forever = false) {
  Fiber &self = *state.current;
  state.current = &next;
  asanLeave(self, next, forever);
  bc::transfer_t t = bc::jump_fcontext(next.context, &self);
  // Whoever came back here left its own context behind.
  static_cast<Fiber *>(t.data)->context = t.fctx;
  asanEnter(self);
}

/// Records the error and abandons the CTA: kernels own nothing that would need unwinding.
[[noreturn]] __attribute__((noinline, format(printf, 1, 2))) void fail(const char *format, ...) {
  const KvHostLaunch &l = *state.launch;
  if (!state.failed) {
    int n = snprintf(l.error, l.errorSize, "kernel '%s', block (%u, %u, %u): ", state.kernel, state.block[0],
                     state.block[1], state.block[2]);
    if (n >= 0 && uint32_t(n) < l.errorSize) {
      va_list args;
      va_start(args, format);
      vsnprintf(l.error + n, l.errorSize - n, format, args);
      va_end(args);
    }
    state.failed = true;
  }
  switchTo(state.mainFiber, /*forever=*/true);
  __builtin_unreachable();
}

/// "threads 3, 32-63": the set bits of all warps as ranges.
inline void printThreads(char *out, size_t size, const uint32_t *masks) {
  size_t used = 0;
  out[0] = 0;
  uint32_t n = state.launch->threads;
  auto has = [&](uint32_t t) { return t < n && (masks[t / 32] >> (t % 32) & 1); };
  for (uint32_t t = 0; t < n; ++t) {
    if (!has(t) || (t && has(t - 1)))
      continue;
    uint32_t end = t;
    while (has(end + 1))
      ++end;
    if (used + 32 > size) {
      snprintf(out + used, size - used, ", ...");
      return;
    }
    used += snprintf(out + used, size - used, end > t ? "%s%u-%u" : "%s%u", used ? ", " : "", t, end);
  }
}

/// Nobody is ready but some threads have not returned: says who waits for what. Some others must
/// have returned: the lanes of a warp meet in one collective or diverge, and warps that are
/// complete only wait in the barrier.
[[noreturn]] __attribute__((noinline)) void failStuck() {
  uint32_t numWarps = state.launch->threads / 32;
  char text[1024], who[192];
  size_t used = 0;
  text[0] = 0;
  uint32_t masks[MaxThreads / 32] = {};
  for (uint32_t w = 0; w < numWarps; ++w) {
    for (uint32_t i = 0; i < 32; ++i)
      masks[w] |= uint32_t(state.fibers[w * 32 + i].done) << i;
  }
  char exited[192];
  printThreads(exited, sizeof(exited), masks);
  // One clause per (collective, line), in the order of the first warp that waits there.
  bool told[MaxThreads / 32] = {};
  for (uint32_t w = 0; w < numWarps; ++w) {
    if (told[w] || !state.warps[w].arrived)
      continue;
    const Warp &first = state.warps[w];
    for (uint32_t v = 0; v < numWarps; ++v) {
      const Warp &other = state.warps[v];
      bool same = other.arrived && other.collective == first.collective && other.line == first.line;
      masks[v] = same ? other.arrived : 0;
      told[v] |= same;
    }
    printThreads(who, sizeof(who), masks);
    if (used < sizeof(text))
      used += snprintf(text + used, sizeof(text) - used, "%sthreads %s wait for %s at line %u", used ? "; " : "", who,
                       first.collective->name, first.line);
  }
  fail("deadlock: threads %s returned while others wait for them: %s", exited, text);
}

} // namespace
} // namespace kv_host

#include "codegen/cuda/prelude/host_races.h"

namespace kv_host {
namespace {

inline void pushBack(uint32_t tid) { state.ready[(state.readyHead + state.readyCount++) % MaxThreads] = uint16_t(tid); }
inline void pushFront(uint32_t tid) {
  state.readyHead = (state.readyHead + MaxThreads - 1) % MaxThreads;
  state.ready[state.readyHead] = uint16_t(tid);
  ++state.readyCount;
}

inline Fiber &nextReady() {
  if (__builtin_expect(state.readyCount == 0, 0))
    failStuck();
  uint32_t tid = state.ready[state.readyHead];
  state.readyHead = (state.readyHead + 1) % MaxThreads;
  --state.readyCount;
  return state.fibers[tid];
}

/// Makes the lanes of `warp` ready, except `self`, in an order that the seed decides.
inline void release(Warp &warp, uint32_t self) {
  warp.arrived = 0;
  uint32_t first = warp.firstLane, flip = 0, stride = 1;
  bool front = false;
  if (state.launch->seed) {
    // An odd stride and an exclusive or permute 0..31. Half the time the warp goes on before the
    // others do, so that warps drift apart by more than one collective.
    uint64_t r = nextRandom();
    flip = r & 31, stride = (r >> 5 & 31) | 1, front = r >> 10 & 1;
  }
  for (uint32_t i = 0; i < 32; ++i) {
    uint32_t tid = first + ((i * stride ^ flip) & 31);
    if (tid == self)
      continue;
    if (front)
      pushFront(tid);
    else
      pushBack(tid);
  }
}

//===----------------------------------------------------------------------===//
// Collectives
//===----------------------------------------------------------------------===//

const Collective ctaBarrier = {"kv_barrier", nullptr, true};

[[noreturn]] __attribute__((noinline)) void failDivergent(const Collective &c, uint32_t line) {
  const Warp &w = state.warps[state.current->tid / 32];
  uint32_t masks[MaxThreads / 32] = {};
  masks[w.firstLane / 32] = w.arrived;
  char who[192];
  printThreads(who, sizeof(who), masks);
  fail("divergent collective: thread %u reached %s at line %u while threads %s of its warp wait "
       "for %s at line %u",
       state.current->tid, c.name, line, who, w.collective->name, w.line);
}

/// Waits for the rest of the warp and executes `c` with it. `operands` stay valid until then.
inline void collective(const Collective &c, void *operands, uint32_t line) {
  Fiber &self = *state.current;
  Warp &w = state.warps[self.tid / 32];
  KV_RACES(settleAll());
  if (w.arrived == 0) {
    w.collective = &c;
    w.line = line;
  } else if (__builtin_expect(w.collective != &c || (w.line != line && c.sameSite), 0)) {
    failDivergent(c, line);
  }
  w.operands[self.tid % 32] = operands;
  w.arrived |= 1u << (self.tid % 32);
  if (w.arrived != ~0u) {
    switchTo(nextReady());
    return;
  }
  if (&c != &ctaBarrier) {
    KV_RACES(pause(true));
    if (c.run)
      c.run(w.operands);
    else
      KV_RACES(passWarpBarrier(self.tid / 32));
    release(w, self.tid);
    KV_RACES(pause(false));
    return;
  }
  uint32_t numWarps = state.launch->threads / 32;
  if (++state.warpsAtBarrier < numWarps) {
    switchTo(nextReady());
    return;
  }
  state.warpsAtBarrier = 0;
  KV_RACES(passBarrier(line));
  uint32_t start = state.launch->seed ? nextRandom() % numWarps : 0;
  for (uint32_t i = 0; i < numWarps; ++i)
    release(state.warps[(start + i) % numWarps], self.tid);
}

//===----------------------------------------------------------------------===//
// Shared memory and asynchronous copies
//===----------------------------------------------------------------------===//

inline size_t staticSharedBytes() { return size_t(__stop_kv_shared - __start_kv_shared); }

/// Refuses what a GPU refuses: an address outside shared memory or not aligned to the access.
inline void checkShared(const void *p, size_t bytes, const char *what, uint32_t line) {
  uintptr_t a = uintptr_t(p);
  uintptr_t offset = a - uintptr_t(__start_kv_shared);
  uintptr_t dynamicOffset = a - uintptr_t(state.dynamicShared);
  if (__builtin_expect(offset + bytes > staticSharedBytes() || offset + bytes < bytes, 0) &&
      (dynamicOffset + bytes > state.launch->sharedBytes || dynamicOffset + bytes < bytes))
    fail("thread %u: %s at line %u: the address is not in the block's shared memory", state.current->tid, what, line);
  if (__builtin_expect(a % bytes != 0, 0))
    fail("thread %u: %s at line %u: the shared address is not a multiple of %zu", state.current->tid, what, line,
         bytes);
}

inline void checkGlobal16(const void *p, const char *what, uint32_t line) {
  if (__builtin_expect(uintptr_t(p) % 16 != 0, 0))
    fail("thread %u: %s at line %u: the global address is not a multiple of 16", state.current->tid, what, line);
}

/// Lands at once or at the wait that covers it: a kernel must be right either way.
inline void copyAsync(void *dst, const void *src) {
  Fiber &self = *state.current;
  bool late = state.copyMode == 1 || (state.copyMode == 2 && (nextRandom() & 1));
  KV_RACES(pause(true));
  KV_RACES(startCopy(dst));
  if (!late || self.numCopies == MaxPendingCopies)
    memcpy(dst, src, 16);
  if (self.numCopies < MaxPendingCopies)
    self.copies[self.numCopies++] = {dst, late ? src : nullptr, self.copyGroup};
  else
    KV_RACES(endCopy(dst)); // more than are remembered
  KV_RACES(pause(false));
}

inline void waitCopies(uint32_t inFlight) {
  Fiber &self = *state.current;
  KV_RACES(pause(true));
  uint32_t kept = 0;
  for (uint32_t i = 0; i < self.numCopies; ++i) {
    const PendingCopy &c = self.copies[i];
    if (c.group + inFlight >= self.copyGroup) {
      self.copies[kept++] = c;
      continue;
    }
    if (c.src)
      memcpy(c.dst, c.src, 16);
    KV_RACES(endCopy(c.dst));
  }
  self.numCopies = kept;
  KV_RACES(pause(false));
}

//===----------------------------------------------------------------------===//
// CTAs and grids
//===----------------------------------------------------------------------===//

void freeStacks() {
  if (state.stacks) {
    size_t bytes = state.numStacks * (GuardBytes + StackBytes);
#ifdef KV_HOST_ASAN
    // An abandoned CTA leaves redzones behind, and the next mapping may get these addresses.
    __asan_unpoison_memory_region(state.stacks, bytes);
#endif
    munmap(state.stacks, bytes);
  }
  free(state.copies);
  state.stacks = nullptr;
  state.copies = nullptr;
  state.numStacks = 0;
}

/// Runs when the module is unloaded.
struct StackOwner {
  ~StackOwner() { freeStacks(); }
} stackOwner;

bool allocateStacks(uint32_t count) {
  if (count <= state.numStacks)
    return true;
  freeStacks();
  void *stacks = mmap(nullptr, count * (GuardBytes + StackBytes), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED)
    return false;
  state.stacks = static_cast<unsigned char *>(stacks);
  state.numStacks = count;
  // An overflow faults instead of changing another thread's variables.
  for (uint32_t t = 0; t < count; ++t)
    mprotect(state.stacks + t * (GuardBytes + StackBytes), GuardBytes, PROT_NONE);
  state.copies = static_cast<PendingCopy *>(malloc(sizeof(PendingCopy) * MaxPendingCopies * count));
  return state.copies;
}

void fiberMain(bc::transfer_t t) {
  Fiber &from = *static_cast<Fiber *>(t.data);
  from.context = t.fctx;
#ifdef KV_HOST_ASAN
  const void *low;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &low, &bytes);
  if (&from == &state.mainFiber) {
    // Only the sanitizer knows the bounds of the thread's own stack.
    from.stackLow = const_cast<void *>(low);
    from.stackBytes = bytes;
  }
#endif
  KV_RACES(pause(false));
  state.body();
  KV_RACES(settleAll());
  state.current->done = true;
  Fiber &next = --state.alive ? nextReady() : state.mainFiber;
  switchTo(next, /*forever=*/true);
  __builtin_unreachable();
}

void runBlock() {
  const KvHostLaunch &l = *state.launch;
  // All bits set: a NaN in every float format and an improbable integer.
  KV_RACES(pause(true));
  KV_RACES(startBlock());
  if (size_t bytes = staticSharedBytes())
    memset(__start_kv_shared, 0xff, bytes);
  if (l.sharedBytes)
    memset(state.dynamicShared, 0xff, l.sharedBytes);
  state.alive = l.threads;
  state.warpsAtBarrier = 0;
  state.copyMode = l.seed ? nextRandom() % 3 : 0;
  state.readyHead = 0;
  state.readyCount = 0;
  for (uint32_t w = 0; w < l.threads / 32; ++w) {
    state.warps[w].arrived = 0;
    state.warps[w].firstLane = w * 32;
  }
  for (uint32_t t = 0; t < l.threads; ++t) {
    Fiber &f = state.fibers[t];
    unsigned char *low = state.stacks + t * (GuardBytes + StackBytes) + GuardBytes;
#ifdef KV_HOST_ASAN
    __asan_unpoison_memory_region(low, StackBytes);
#endif
    size_t usable = StackBytes - (t % 9) * StackColour;
    f.context = bc::make_fcontext(low + usable, usable, fiberMain);
    f.tid = t;
    f.done = false;
    f.copyGroup = f.numCopies = 0;
    f.copies = state.copies + size_t(t) * MaxPendingCopies;
    f.stackLow = low;
    f.stackBytes = StackBytes;
    f.fakeStack = nullptr;
    pushBack(t);
    if (l.seed) { // inside-out Fisher-Yates
      uint32_t other = nextRandom() % (t + 1);
      uint16_t moved = state.ready[other];
      state.ready[other] = state.ready[t];
      state.ready[t] = moved;
    }
  }
  state.current = &state.mainFiber;
  switchTo(nextReady());
}

/// `body` calls the kernel with the launch's arguments.
int runGrid(const char *kernel, void (*body)(), uint32_t arity, const KvHostLaunch &l) {
  if (l.size != sizeof(KvHostLaunch)) {
    snprintf(l.error, l.errorSize, "the object was built for another version of kvcc; rebuild it");
    return 1;
  }
  auto refuse = [&](const char *what, unsigned long long value, const char *expected) {
    snprintf(l.error, l.errorSize, "kernel '%s': expected %s, but got %s %llu", kernel, expected, what, value);
    return 1;
  };
  if (l.numArgs != arity) {
    char expected[48];
    snprintf(expected, sizeof(expected), "%u arguments", arity);
    return refuse("a count of", l.numArgs, expected);
  }
  if (l.threads == 0 || l.threads % 32 || l.threads > MaxThreads)
    return refuse("a thread count of", l.threads, "a multiple of 32 up to 1024");
  uint64_t blocks = uint64_t(l.grid[0]) * l.grid[1];
  if (!blocks || !l.grid[2] || blocks > 0x7fffffffu || blocks * l.grid[2] > 0x7fffffffu)
    return refuse("a last extent of", l.grid[2], "a grid of 1 to 2147483647 blocks");
  blocks *= l.grid[2];

  state.launch = &l;
  state.kernel = kernel;
  state.body = body;
  state.random = l.seed;
  state.failed = false;
  constexpr size_t margin = KV_SHARED_MARGIN;
  unsigned char *shared =
      static_cast<unsigned char *>(aligned_alloc(128, ((l.sharedBytes + 128) & ~127u) + 2 * margin));
  state.dynamicShared = shared ? shared + margin : nullptr;
  uint32_t *order = static_cast<uint32_t *>(malloc(blocks * sizeof(uint32_t)));
  bool allocated = allocateStacks(l.threads) && state.dynamicShared && order && KV_RACES_START(staticSharedBytes());
  if (!allocated)
    refuse("a block count of", blocks, "a launch that fits in memory");
  state.failed = !allocated;

  if (allocated) {
    for (uint32_t i = 0; i < blocks; ++i) {
      uint32_t other = l.seed ? nextRandom() % (i + 1) : i;
      order[i] = order[other];
      order[other] = i;
    }
    for (uint64_t i = 0; i < blocks && !state.failed; ++i) {
      uint32_t b = order[i];
      state.block[0] = b % l.grid[0];
      state.block[1] = b / l.grid[0] % l.grid[1];
      state.block[2] = b / l.grid[0] / l.grid[1];
      runBlock();
    }
  }
  KV_RACES(stop());
  free(shared);
  free(order);
  state.dynamicShared = nullptr;
  return state.failed;
}

/// Calls the kernel with args[i] read as the type of parameter i.
template <auto Kernel> struct Invoke;
template <class... Params, void (*Kernel)(Params...)> struct Invoke<Kernel> {
  static constexpr uint32_t arity = sizeof...(Params);
  template <size_t... I> static void call(void *const *args, std::index_sequence<I...>) {
    Kernel(*static_cast<std::remove_const_t<Params> *>(args[I])...);
  }
  static void body() { call(state.launch->args, std::make_index_sequence<arity>()); }
};

template <auto Kernel> int launch(const char *name, const KvHostLaunch *l) {
  return runGrid(name, Invoke<Kernel>::body, Invoke<Kernel>::arity, *l);
}

} // namespace
} // namespace kv_host

#define KV_HOST_ENTRY(name)                                                                                            \
  extern "C" __attribute__((visibility("default"))) int kv_host_launch_##name(const KvHostLaunch *l) {                 \
    return kv_host::launch<name>(#name, l);                                                                            \
  }

#endif // KVCC_CODEGEN_CUDA_PRELUDE_HOST_RUNTIME_H
