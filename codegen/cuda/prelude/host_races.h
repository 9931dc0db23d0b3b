// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Races in shared memory. The compiler calls the functions at the end of this file for every access to memory
// (-fsanitize=thread, without its library); here are shadows of the bytes of shared memory, and what orders two
// accesses: a barrier of the block, a barrier of the warp among its lanes, the order of one thread. An asynchronous
// copy writes from when it is started until the thread has waited for it. Shuffles and products order nothing, as on a
// GPU.

#ifndef KVCC_CODEGEN_CUDA_PRELUDE_HOST_RACES_H
#define KVCC_CODEGEN_CUDA_PRELUDE_HOST_RACES_H

#ifndef KV_HOST_RACES

#define KV_RACES(call) ((void)0)
#define KV_RACES_START(bytes) true
#define KV_SHARED_MARGIN 0

#else

#define KV_RACES(call) kv_host::races::call
#define KV_RACES_START(bytes) kv_host::races::start(bytes)
/// Bytes around dynamic shared memory that no kernel may touch.
#define KV_SHARED_MARGIN 4096
#define KV_NOT_CHECKED __attribute__((no_sanitize("thread")))

namespace kv_host {
namespace {
namespace races {

/// When and by whom: epochs count barriers, of all blocks of a launch and of each warp.
struct Stamp {
  uint32_t block, warp;
};

/// Of a byte.
struct Shadow {
  Stamp written, read;
  uint32_t readLanes; ///< that read it since the barriers that `read` says, of the warp that read last
  uint32_t readWarps; ///< one bit for each, since the barrier of the block
  uint16_t writer;
  uint16_t readWarp;
  bool isPending; ///< an asynchronous copy may write it at any time
};

struct Region {
  uintptr_t begin;
  size_t bytes;
  Shadow *shadows;
};

struct Checker {
  Region regions[2];            ///< arrays of the kernel, dynamic shared memory
  uint32_t block, firstOfBlock; ///< epochs: now, and when the block of threads began
  uint32_t warps[MaxThreads / 32];
  uint32_t barrierLine; ///< of the last barrier of the block
  bool isOn;            ///< whether a thread of the kernel runs, outside the runtime
  // A write to what another thread wrote is no race if it changes nothing, which only what comes next can see.
  const unsigned char *rewritten;
  size_t rewrittenBytes; ///< 0: none
  unsigned char before[16];
  uint32_t rewriter, otherWriter;
};

Checker checker;

/// Where a byte is, or null.
KV_NOT_CHECKED inline Region *findRegion(const void *p) {
  for (Region &region : checker.regions)
    if (uintptr_t(p) - region.begin < region.bytes)
      return &region;
  return nullptr;
}

KV_NOT_CHECKED inline bool isOrdered(const Stamp &stamp, uint32_t warp, uint32_t tid) {
  return stamp.block != checker.block || (warp == tid / 32 && stamp.warp != checker.warps[warp]);
}

[[noreturn]] KV_NOT_CHECKED __attribute__((noinline)) void
failRace(const Region &region, size_t at, uint32_t tid, const char *second, uint32_t other, const char *first) {
  checker.isOn = false;
  bool dynamic = &region == &checker.regions[1];
  fail("race: thread %u %s byte %zu of %s shared memory, which thread %u %s, with no barrier in between (the block's "
       "last was at line %u)",
       tid, second, at, dynamic ? "dynamic" : "static", other, first, checker.barrierLine);
}

/// Whether a write has changed what it should not have. It may come after calls for other accesses.
KV_NOT_CHECKED inline void settle() {
  for (size_t i = 0; i < checker.rewrittenBytes; ++i)
    if (checker.rewritten[i] != checker.before[i]) {
      const Region &region = *findRegion(checker.rewritten);
      failRace(region, uintptr_t(checker.rewritten) - region.begin + i, checker.rewriter, "writes", checker.otherWriter,
               "wrote");
    }
}

/// The same, when another thread is about to run: the write has happened.
KV_NOT_CHECKED inline void settleAll() {
  settle();
  checker.rewrittenBytes = 0;
}

/// Returns whether another thread wrote the byte at the same time, if that is all.
KV_NOT_CHECKED inline bool checkOrder(const Region &region, size_t at, const char *what, bool isWrite) {
  const Shadow &shadow = region.shadows[at];
  uint32_t tid = state.current->tid;
  if (shadow.isPending && shadow.written.block >= checker.firstOfBlock)
    failRace(region, at, tid, what, shadow.writer, "is copying to");
  bool isRewritten = shadow.writer != tid && !isOrdered(shadow.written, shadow.writer / 32, tid);
  if (isRewritten && !isWrite)
    failRace(region, at, tid, what, shadow.writer, "wrote");
  if (!isWrite || shadow.read.block != checker.block)
    return isRewritten;
  if (uint32_t others = shadow.readWarps & ~(1u << tid / 32))
    failRace(region, at, tid, what, uint32_t(__builtin_ctz(others)) * 32, "or another of its warp read");
  uint32_t lanes = shadow.readLanes & ~(1u << tid % 32);
  if (lanes && !isOrdered(shadow.read, shadow.readWarp, tid))
    failRace(region, at, tid, what, shadow.readWarp * 32u + uint32_t(__builtin_ctz(lanes)), "read");
  return isRewritten;
}

KV_NOT_CHECKED inline void noteRead(Shadow &shadow) {
  uint32_t tid = state.current->tid, warp = tid / 32;
  if (shadow.read.block != checker.block)
    shadow.readWarps = 0;
  if (shadow.read.block != checker.block || shadow.readWarp != warp || shadow.read.warp != checker.warps[warp])
    shadow.readLanes = 0;
  shadow.read = {checker.block, checker.warps[warp]};
  shadow.readWarp = uint16_t(warp);
  shadow.readWarps |= 1u << warp;
  shadow.readLanes |= 1u << tid % 32;
}

KV_NOT_CHECKED inline void noteWrite(Shadow &shadow, bool isPending) {
  uint32_t tid = state.current->tid;
  shadow.written = {checker.block, checker.warps[tid / 32]};
  shadow.writer = uint16_t(tid);
  shadow.isPending = isPending;
}

KV_NOT_CHECKED inline void access(const void *p, size_t bytes, bool isWrite) {
  if (__builtin_expect(!checker.isOn, 0))
    return;
  settle();
  const Region &dynamic = checker.regions[1];
  size_t offset = uintptr_t(p) - dynamic.begin;
  if (offset + KV_SHARED_MARGIN < dynamic.bytes + 2 * KV_SHARED_MARGIN &&
      (offset >= dynamic.bytes || offset + bytes > dynamic.bytes)) {
    checker.isOn = false;
    fail("thread %u %s %zu bytes at %td of the block's %zu bytes of dynamic shared memory", state.current->tid,
         isWrite ? "writes" : "reads", bytes, ptrdiff_t(offset), dynamic.bytes);
  }
  const Region *region = findRegion(p);
  if (!region)
    return;
  bool isWatched = false;
  size_t at = uintptr_t(p) - region->begin;
  for (size_t i = at; i < at + bytes && i < region->bytes; ++i) {
    if (checkOrder(*region, i, isWrite ? "writes" : "reads", isWrite) && !isWatched && bytes <= sizeof checker.before) {
      isWatched = true;
      checker.rewritten = static_cast<const unsigned char *>(p);
      checker.rewrittenBytes = bytes;
      memcpy(checker.before, p, bytes);
      checker.rewriter = state.current->tid;
      checker.otherWriter = region->shadows[i].writer;
    }
    if (isWrite)
      noteWrite(region->shadows[i], /*isPending=*/false);
    else
      noteRead(region->shadows[i]);
  }
}

/// Of 16 bytes of shared memory; not checked where they land.
KV_NOT_CHECKED inline void startCopy(const void *to) {
  const Region &region = *findRegion(to);
  size_t at = uintptr_t(to) - region.begin;
  for (size_t i = at; i < at + 16; ++i) {
    if (checkOrder(region, i, "copies to", /*isWrite=*/true))
      failRace(region, i, state.current->tid, "copies to", region.shadows[i].writer, "wrote");
    noteWrite(region.shadows[i], /*isPending=*/true);
  }
}
/// The thread has waited for the copy.
KV_NOT_CHECKED inline void endCopy(const void *to) {
  const Region &region = *findRegion(to);
  size_t at = uintptr_t(to) - region.begin;
  for (size_t i = at; i < at + 16; ++i)
    noteWrite(region.shadows[i], /*isPending=*/false);
}

KV_NOT_CHECKED inline void passBarrier(uint32_t line) {
  ++checker.block;
  checker.barrierLine = line;
}
KV_NOT_CHECKED inline void startBlock() {
  passBarrier(0);
  checker.firstOfBlock = checker.block;
}
KV_NOT_CHECKED inline void passWarpBarrier(uint32_t warp) { ++checker.warps[warp]; }
/// While the runtime does something in the name of other threads.
KV_NOT_CHECKED inline void pause(bool paused) {
  settle();
  checker.isOn = !paused;
}

/// Of a launch.
KV_NOT_CHECKED inline bool start(size_t staticBytes) {
  checker.regions[0] = {uintptr_t(__start_kv_shared), staticBytes, nullptr};
  checker.regions[1] = {uintptr_t(state.dynamicShared), state.launch->sharedBytes, nullptr};
  checker.block = 0;
  checker.rewrittenBytes = 0;
  for (Region &region : checker.regions)
    if (!(region.shadows = static_cast<Shadow *>(calloc(region.bytes + 1, sizeof(Shadow)))))
      return false;
  return true;
}
KV_NOT_CHECKED inline void stop() {
  checker.isOn = false;
  for (Region &region : checker.regions) {
    free(region.shadows);
    region.shadows = nullptr;
  }
}

} // namespace races
} // namespace
} // namespace kv_host

// What the compiler calls. Hidden: a process may have the sanitizer's library for its own code.
#define KV_HOOK extern "C" __attribute__((visibility("hidden"), no_sanitize("thread")))
#define KV_HOOKS(bytes)                                                                                                \
  KV_HOOK void __tsan_read##bytes(void *p) { kv_host::races::access(p, bytes, false); }                                \
  KV_HOOK void __tsan_write##bytes(void *p) { kv_host::races::access(p, bytes, true); }                                \
  KV_HOOK void __tsan_unaligned_read##bytes(void *p) { kv_host::races::access(p, bytes, false); }                      \
  KV_HOOK void __tsan_unaligned_write##bytes(void *p) { kv_host::races::access(p, bytes, true); }                      \
  KV_HOOK void __tsan_read_write##bytes(void *p) {                                                                     \
    kv_host::races::access(p, bytes, false);                                                                           \
    kv_host::races::access(p, bytes, true);                                                                            \
  }                                                                                                                    \
  KV_HOOK void __tsan_unaligned_read_write##bytes(void *p) { __tsan_read_write##bytes(p); }
KV_HOOKS(1)
KV_HOOKS(2)
KV_HOOKS(4)
KV_HOOKS(8)
KV_HOOKS(16)
KV_HOOK void __tsan_read_range(void *p, size_t bytes) { kv_host::races::access(p, bytes, false); }
KV_HOOK void __tsan_write_range(void *p, size_t bytes) { kv_host::races::access(p, bytes, true); }
KV_HOOK void *__tsan_memmove(void *to, const void *from, size_t bytes) {
  kv_host::races::access(from, bytes, false);
  kv_host::races::access(to, bytes, true);
  return memmove(to, from, bytes);
}
KV_HOOK void *__tsan_memcpy(void *to, const void *from, size_t bytes) { return __tsan_memmove(to, from, bytes); }
KV_HOOK void *__tsan_memset(void *to, int value, size_t bytes) {
  kv_host::races::access(to, bytes, true);
  return memset(to, value, bytes);
}
KV_HOOK void __tsan_init() {}
KV_HOOK void __tsan_func_entry(void *) {}
KV_HOOK void __tsan_func_exit() {}

#endif // KV_HOST_RACES
#endif // KVCC_CODEGEN_CUDA_PRELUDE_HOST_RACES_H
