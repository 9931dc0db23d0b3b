// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Small kernels that decide how large ones are designed: micro.py compiles this text, behind the device prelude, with
// the STREAM macros below defined, and says what is measured.

// One product of each of `count` warps: a and b are fragments, four and two words a lane, out four numbers a lane.
extern "C" __global__ void micro_mma(const kv_u32x4 *a, const kv_u32x2 *b, kv_f32x4 *out) {
  size_t i = size_t(blockIdx.x) * 32 + threadIdx.x;
  out[i] = kv_mma_m16n8k16_f16(a[i], b[i], kv_f32x4{0, 0, 0, 0});
}

// `rounds` times eight independent products of one pair of operands.
extern "C" __global__ void micro_mma_rate(const kv_u32x4 *a, const kv_u32x2 *b, kv_f32x4 *out, int rounds) {
  kv_u32x4 left = a[threadIdx.x % 32];
  kv_u32x2 right = b[threadIdx.x % 32];
  kv_f32x4 sums[8] = {};
  for (int i = 0; i < rounds; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j)
      sums[j] = kv_mma_m16n8k16_f16(left, right, sums[j]);
  kv_f32x4 total = {};
  for (int j = 0; j < 8; ++j) {
    total.x += sums[j].x;
    total.y += sums[j].y;
    total.z += sums[j].z;
    total.w += sums[j].w;
  }
  out[size_t(blockIdx.x) * blockDim.x + threadIdx.x] = total;
}

// What a warp reads at a time, where its parts lie (in the order of `table`), and how it comes:
//   0 loads to registers   1 cp.async   2 cp.async, evicted first from the L2   3 cp.async.bulk, likewise
//   4 cp.async.bulk
#ifndef STREAM_KIND
#define STREAM_KIND 1
#define STREAM_BYTES 2048
#define STREAM_STAGES 3
#endif

__device__ __forceinline__ void stream_issue(kv_smem_ptr to, const char *from, kv_smem_ptr barrier, int lane,
                                             kv_u64 policy) {
#if STREAM_KIND >= 3
  if (lane == 0) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(STREAM_BYTES) : "memory");
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
            "r"(to),
        "l"(from), "r"(STREAM_BYTES), "r"(barrier), "l"(policy)
        : "memory");
  }
#else
#pragma unroll
  for (int i = 0; i < STREAM_BYTES; i += 512) {
    kv_smem_ptr place = to + i + 16 * lane;
    const char *source = from + i + 16 * lane;
#if STREAM_KIND == 2
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(place), "l"(source), "l"(policy)
                 : "memory");
#else
    kv_cp_async16(place, source);
#endif
  }
  kv_cp_async_commit();
#endif
}

// Reads `count` parts of STREAM_BYTES; part i of the stream is part table[i] of `data`. Warps take turns.
extern "C" __global__ void micro_stream(const char *data, const int *table, kv_u32 *out, int count) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  int at = blockIdx.x * warps + warp, step = gridDim.x * warps;
  kv_u32 sum = 0;
  auto place = [&](int i) { return data + size_t(table[i]) * STREAM_BYTES; };
#if STREAM_KIND == 0
  for (; at < count; at += step * STREAM_STAGES) {
    kv_u32x4 words[STREAM_STAGES][STREAM_BYTES / 512];
#pragma unroll
    for (int s = 0; s < STREAM_STAGES; ++s)
#pragma unroll
      for (int i = 0; i < STREAM_BYTES / 512; ++i)
        words[s][i] = kv_ldg128_nc(place(min(at + s * step, count - 1)) + 512 * i + 16 * lane);
#pragma unroll
    for (int s = 0; s < STREAM_STAGES; ++s)
#pragma unroll
      for (int i = 0; i < STREAM_BYTES / 512; ++i)
        sum ^= words[s][i].x ^ words[s][i].y ^ words[s][i].z ^ words[s][i].w;
  }
#else
  constexpr int kRing = STREAM_STAGES * STREAM_BYTES;
  kv_smem_ptr shared = kv_smem_of(kv_dynamic_shared());
  kv_smem_ptr ring = shared + warp * kRing, barriers = shared + warps * kRing + warp * 8 * STREAM_STAGES;
  kv_u64 policy = 0;
#if STREAM_KIND >= 2
#if STREAM_KIND == 4
  asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
#else
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
#endif
#endif
#if STREAM_KIND >= 3
  if (lane == 0)
    for (int s = 0; s < STREAM_STAGES; ++s)
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barriers + 8 * s) : "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncwarp();
#endif
  int next = at, stage = 0;
  kv_u32 phase = 0;
  for (int s = 0; s < STREAM_STAGES - 1; ++s, next += step)
    if (next < count)
      stream_issue(ring + s * STREAM_BYTES, place(next), barriers + 8 * s, lane, policy);
    else
      kv_cp_async_commit();
  for (; at < count; at += step, next += step) {
#if STREAM_KIND >= 3
    asm volatile(
        "{\n.reg .pred p;\nWAIT:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra WAIT;\n}" ::"r"(
            barriers + 8 * stage),
        "r"(phase)
        : "memory");
#else
    kv_cp_async_wait_group<STREAM_STAGES - 2>();
#endif
    __syncwarp();
    int last = stage == 0 ? STREAM_STAGES - 1 : stage - 1;
    if (next < count)
      stream_issue(ring + last * STREAM_BYTES, place(next), barriers + 8 * last, lane, policy);
    else
      kv_cp_async_commit();
#pragma unroll
    for (int i = 0; i < STREAM_BYTES; i += 512) {
      kv_u32x4 words = kv_lds128(ring + stage * STREAM_BYTES + i + 16 * lane);
      sum ^= words.x ^ words.y ^ words.z ^ words.w;
    }
    if (++stage == STREAM_STAGES) {
      stage = 0;
      phase ^= 1;
    }
  }
#endif
  out[size_t(blockIdx.x) * blockDim.x + threadIdx.x] = sum;
}
