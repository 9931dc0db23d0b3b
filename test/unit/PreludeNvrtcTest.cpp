// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The device prelude under NVRTC, without any header: a kernel that uses every name compiles for
// every architecture, and the same text runs on the host.

#include "codegen/cuda/Prelude.h"
#include "runtime/CudaHost.h"
#include "runtime/Nvrtc.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/Regex.h"

#include "gtest/gtest.h"

#include <set>

using namespace llvm;

namespace {

constexpr const char *Everything = R"cuda(
KV_DEVICE float helper(float v) { return v + INFINITY - NAN; }

KV_KERNEL(128) void everything(float *KV_RESTRICT floats, kv_u32 *words, const kv_u32 *in,
                               kv_u32 *counter, int64_t n, bool flag) {
  KV_SHARED float buffer[2048];
  KV_SHARED_DYNAMIC(float, dynamic);
  kv_grid_wait();
  kv_grid_launch();
  size_t tid = kv_thread_id_x();
  size_t block = kv_block_id_x() +
                 kv_grid_dim_x() * (kv_block_id_y() + kv_grid_dim_y() * kv_block_id_z());
  size_t i = block % (kv_grid_dim_x() * kv_grid_dim_y() * kv_grid_dim_z()) * kv_block_dim_x() + tid;
  kv_smem_ptr shared = kv_smem_of(buffer), mine = shared + 16 * (kv_u32)tid;
  kv_cp_async16(mine, kv_opaque_ptr(in) + 4 * i);
  kv_cp_async_commit();
  kv_cp_async_wait_group<0>();
  kv_prefetch<512>(in, kv_i32(tid));
  kv_sts128(mine + 2048, kv_ldg128(in + 4 * i));
  dynamic[tid] = helper(1.0f);
  kv_barrier();

  float f = kv_bits_to_f32(in[i]);
  f = kv_shfl_xor_f32(f, 1) + kv_shfl_idx_f32(f, 3);
  f += kv_u32_to_f32(kv_shfl_xor_u32(in[i], 2)) + kv_i32_to_f32(kv_shfl_idx_u32(in[i], 2));
  if (kv_any(f > 3.0f))
    f = kv_exp2(f) + kv_log2(f);
  f = kv_max(f, kv_min(kv_abs(f), kv_sqrt(f))) + kv_div(f, 3.0f) + kv_mul(f, f);
  f += kv_add(f, f) + kv_sub(f, f) + kv_fma(f, f, f) + kv_rint(f) + kv_pow(f, 0.5f);
  uint32_t u = kv_f32_to_bits(f) + kv_f32_to_i32_rn(f) + kv_f32_to_f16(f) + kv_f32_to_bf16(f);
  u += kv_f32x2_to_f16x2(f, f) ^ kv_f32x2_to_bf16x2(f, f);
  f += kv_f16_to_f32(u) + kv_bf16_to_f32(u) + kv_f16x2_lo_to_f32(u) + kv_f16x2_hi_to_f32(u);
  u = kv_add_f16x2(u, kv_mul_f16x2(u, kv_fma_f16x2(u, u, u)));
  u = kv_funnel_shift_r(u, u + 1, 3) + kv_and_or(u, 0x000f000fu, 0x64006400u);

  kv_uint4 nc = kv_ldg128_nc(in + 4 * i), l = kv_lds128(mine);
  u += kv_lds32(shared + 4 * kv_opaque_word(kv_i32(tid))) + kv_lds64(kv_opaque_word(mine)).x;
  u += kv_ldg64_nc(in + 2 * i).y + kv_ldg32_nc(in + i) + kv_dynamic_shared()[tid];
  kv_barrier();
  kv_sts32(shared + 4096 + 4 * (kv_u32)tid, u);
  kv_syncwarp();

  kv_smem_ptr row = shared + 16 * (kv_u32)(tid % 32);
  kv_u32x4 m4 = kv_ldmatrix_x4(row), t4 = kv_ldmatrix_x4_trans(row);
  kv_u32x2 m2 = kv_ldmatrix_x2(row), t2 = kv_ldmatrix_x2_trans(row);
  u += kv_ldmatrix_x1(row) + kv_ldmatrix_x1_trans(row) + kv_movmatrix_trans(u);
  kv_f32x4 c = kv_make_f32x4(0, 1, 2, f);
  c = kv_mma_m16n8k16_f16(m4, m2, c);
  c = kv_mma_m16n8k16_bf16(t4, t2, c);
  kv_i32x4 ci = kv_make_i32x4(0, 1, 2, 3);
  ci = kv_mma_m16n8k32_s8s8(m4, m2, ci);
  ci = kv_mma_m16n8k32_u8s8(l, m2, ci);
  ci = kv_mma_m16n8k32_s8u8(nc, t2, ci);
  ci = kv_mma_m16n8k32_u8u8(kv_make_u32x4(u, u, u, 1), kv_make_u32x2(u, 2), ci);

  float d[4] = {0, 0, 0, 0};
  uint32_t a[4], b[2];
  int32_t di[4] = {0, 1, 2, 3};
  kv_ldmatrix_x4(a, row);
  kv_ldmatrix_x2(b, row);
  kv_mma_m16n8k16_f16(d, a, b);
  kv_mma_m16n8k16_bf16(d, a, b);
  kv_mma_m16n8k32_s8s8(di, a, b);
  kv_mma_m16n8k32_u8s8(di, a, b);
  kv_ldmatrix_x4_trans(a, row);
  kv_ldmatrix_x2_trans(b, row);
  kv_mma_m16n8k32_s8u8(di, a, b);
  kv_mma_m16n8k32_u8u8(di, a, b);
  KV_UNROLL
  for (int32_t k = 0; k < 4; ++k)
    f += d[k] + di[k];
  KV_NOUNROLL
  for (uint8_t k = 0; k < 4; ++k)
    f *= f + (int8_t)n + (int16_t)n + (uint16_t)n + (uint64_t)n;

  kv_stg128(words + 4 * i, l);
  f += kv_elt<3>(c) + kv_elt<1>(ci) + kv_elt<0>(m2) + dynamic[tid ^ 1] + (flag ? 1.0f : 0.0f);
  floats[i] = f + kv_rcp(f);
  if (kv_arrive(counter, 0, kv_grid_dim_x() * 6))
    floats[i] = 0;
}
)cuda";

TEST(PreludeNvrtc, TheKernelUsesEveryName) {
  Regex function("KV_DEVICE .*[ *](kv_[a-z0-9_]+)\\(");
  SmallVector<StringRef> lines;
  kvcc::devicePrelude().split(lines, '\n');
  std::set<std::string> unused;
  for (StringRef line : lines) {
    SmallVector<StringRef, 2> match;
    std::string head = (line.split('(').first + "(").str();
    if (!function.match(head, &match))
      continue;
    std::string name = match[1].str();
    if (!StringRef(Everything).contains(name + "(") && !StringRef(Everything).contains(name + "<"))
      unused.insert(name);
  }
  EXPECT_TRUE(unused.empty()) << "unused: " << join(unused, ", ");
}

TEST(PreludeNvrtc, CompilesForEveryArchitecture) {
  Expected<std::shared_ptr<kvcc::Nvrtc>> nvrtc = kvcc::Nvrtc::load();
  if (!nvrtc) {
    consumeError(nvrtc.takeError());
    GTEST_SKIP() << "this machine has no NVRTC";
  }
  std::string source = kvcc::devicePrelude().str() + Everything;
  for (int arch : (*nvrtc)->supportedArchs()) {
    if (arch < 75)
      continue;
    std::string name = "sm_" + std::to_string(arch);
    auto kernel = (*nvrtc)->compile(source, "everything.cu", name);
    ASSERT_TRUE(bool(kernel)) << name << ": " << toString(kernel.takeError());
    EXPECT_EQ(kernel->log, "") << name;
    EXPECT_FALSE(kernel->cubin.empty()) << name;
    // What sm_75 lacks must be there from sm_80 on, and only there.
    StringRef ptx = kernel->ptx;
    for (const char *instruction : {"cp.async.cg", "mma.sync.aligned.m16n8k16", "cvt.rn.bf16x2"})
      EXPECT_EQ(ptx.contains(instruction), arch >= 80) << name << " " << instruction;
  }
}

TEST(PreludeNvrtc, TheSameTextRunsOnTheHost) {
  auto module = kvcc::CudaHostModule::compile(Everything, {"everything"});
  ASSERT_TRUE(bool(module)) << toString(module.takeError());
  constexpr uint32_t blocks = 2 * 3 * 2, threads = 128;
  alignas(16) static uint32_t in[blocks * threads * 4], words[blocks * threads * 4];
  static float floats[blocks * threads];
  for (uint32_t i = 0; i < blocks * threads * 4; ++i)
    in[i] = i * 2654435761u;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    uint32_t counter = 0, *pIn = in, *pWords = words, *pCounter = &counter;
    float *pFloats = floats;
    int64_t n = 3;
    bool flag = true;
    void *args[] = {&pFloats, &pWords, &pIn, &pCounter, &n, &flag};
    Error error = (*module)->launch("everything", {2, 3, 2}, threads, args, seed, threads * 4);
    EXPECT_FALSE(bool(error)) << toString(std::move(error));
    EXPECT_EQ(counter, 0u); // all CTAs have arrived
    for (uint32_t i = 0; i < blocks * threads * 4; ++i)
      ASSERT_EQ(words[i], in[i]);
  }
}

} // namespace
