// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The host twin of the device prelude: every primitive against a naive or an independent reference,
// and the mistakes in kernels that it promises to notice.

#include "runtime/CudaHost.h"

#include "codegen/cuda/Prelude.h"
#include "test/unit/ScopedVariable.h"

#include "llvm/ADT/APFloat.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/Regex.h"

#include "gtest/gtest.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <set>

using namespace llvm;
using kvcc::CudaHostModule;
using kvcc::CudaHostOptions;

namespace {

constexpr const char *Kernels = R"cuda(
KV_KERNEL(128) void saxpy(float a, const float *KV_RESTRICT x, float *KV_RESTRICT y, int64_t n) {
  size_t i = (kv_block_id_y() * kv_grid_dim_x() + kv_block_id_x()) * 128 + kv_thread_id_x();
  if (i < n)
    y[i] = kv_fma(a, x[i], y[i]);
}

KV_KERNEL(256) void reduce(const float *x, float *out) {
  KV_SHARED float partial[8];
  size_t tid = kv_thread_id_x();
  float v = x[kv_block_id_x() * 256 + tid];
  for (int32_t m = 16; m > 0; m /= 2)
    v = v + kv_shfl_xor_f32(v, m);
  if (tid % 32 == 0)
    partial[tid / 32] = v;
  kv_barrier();
  if (tid == 0) {
    float sum = 0.0f;
    KV_UNROLL
    for (int32_t i = 0; i < 8; ++i)
      sum = sum + partial[i];
    out[kv_block_id_x()] = sum;
  }
}

KV_KERNEL(64) void shuffles(uint32_t *out) {
  size_t tid = kv_thread_id_x();
  uint32_t lane = tid % 32;
  out[tid * 4] = kv_shfl_xor_u32(uint32_t(tid), 5);
  out[tid * 4 + 1] = kv_shfl_idx_u32(uint32_t(tid), (lane * 7 + 3) % 32);
  out[tid * 4 + 2] = kv_any(tid == 40);
  out[tid * 4 + 3] = uint32_t(kv_shfl_idx_f32(float(tid), 9));
}

// Fragments by the formulas of the PTX manual; a[16][16], b[16][8], c[16][8] row-major.
KV_KERNEL(32) void mma(const uint16_t *a, const uint16_t *b, const float *c, float *d,
                       int32_t bfloat) {
  int32_t lane = kv_thread_id_x(), gid = lane / 4, tig = lane % 4;
  uint32_t fa[4], fb[2];
  float fd[4];
  for (int32_t i = 0; i < 4; ++i) {
    int32_t row = gid + 8 * (i % 2), k = 2 * tig + 8 * (i / 2);
    fa[i] = a[row * 16 + k] | uint32_t(a[row * 16 + k + 1]) << 16;
    fd[i] = c[(gid + 8 * (i / 2)) * 8 + 2 * tig + i % 2];
  }
  for (int32_t i = 0; i < 2; ++i) {
    int32_t k = 2 * tig + 8 * i;
    fb[i] = b[k * 8 + gid] | uint32_t(b[(k + 1) * 8 + gid]) << 16;
  }
  if (bfloat)
    kv_mma_m16n8k16_bf16(fd, fa, fb);
  else
    kv_mma_m16n8k16_f16(fd, fa, fb);
  for (int32_t i = 0; i < 4; ++i)
    d[(gid + 8 * (i / 2)) * 8 + 2 * tig + i % 2] = fd[i];
}

// The same product from ldmatrix: A from its rows, B by the transposed form; D transposed back and
// forth by movmatrix (as two 16-bit halves).
KV_KERNEL(32) void mma_ldmatrix(const uint16_t *a, const uint16_t *b, const float *c, float *d) {
  KV_SHARED uint16_t sa[256];
  KV_SHARED uint16_t sb[128];
  int32_t lane = kv_thread_id_x(), gid = lane / 4, tig = lane % 4;
  for (int32_t i = lane; i < 256; i += 32)
    sa[i] = a[i];
  for (int32_t i = lane; i < 128; i += 32)
    sb[i] = b[i];
  kv_syncwarp();
  kv_u32x4 fa = kv_ldmatrix_x4(kv_smem_of(sa) + (lane % 16) * 32 + (lane / 16) * 16);
  kv_u32x2 fb = kv_ldmatrix_x2_trans(kv_smem_of(sb) + (lane % 16) * 16);
  kv_f32x4 fd = kv_make_f32x4(c[gid * 8 + 2 * tig], c[gid * 8 + 2 * tig + 1],
                              c[(gid + 8) * 8 + 2 * tig], c[(gid + 8) * 8 + 2 * tig + 1]);
  fd = kv_mma_m16n8k16_f16(fa, fb, fd);
  d[gid * 8 + 2 * tig] = kv_elt<0>(fd);
  d[gid * 8 + 2 * tig + 1] = kv_elt<1>(fd);
  d[(gid + 8) * 8 + 2 * tig] = kv_elt<2>(fd);
  d[(gid + 8) * 8 + 2 * tig + 1] = kv_elt<3>(fd);
}

// out: the transposes of in[8][8] by movmatrix, ldmatrix x1 trans, and x4 of four equal matrices.
KV_KERNEL(32) void transpose(const uint16_t *in, uint32_t *out) {
  KV_SHARED uint16_t s[64];
  int32_t lane = kv_thread_id_x();
  s[2 * lane] = in[2 * lane];
  s[2 * lane + 1] = in[2 * lane + 1];
  kv_syncwarp();
  kv_smem_ptr row = kv_smem_of(s) + (lane % 8) * 16;
  out[lane] = kv_movmatrix_trans(kv_ldmatrix_x1(row));
  out[32 + lane] = kv_ldmatrix_x1_trans(row);
  kv_u32x4 four = kv_ldmatrix_x4_trans(row);
  out[64 + lane] = four.x;
  out[96 + lane] = four.w;
  kv_u32x2 two = kv_ldmatrix_x2(row);
  out[128 + lane] = kv_movmatrix_trans(two.y);
}

// bytes a[16][32] row-major, b[8][32] (by column), c and d[16][8]
KV_KERNEL(32) void mma_int(const uint32_t *a, const uint32_t *b, const int32_t *c, int32_t *d,
                           int32_t kind) {
  int32_t lane = kv_thread_id_x(), gid = lane / 4, tig = lane % 4;
  kv_u32x4 fa = kv_make_u32x4(a[gid * 8 + tig], a[(gid + 8) * 8 + tig], a[gid * 8 + tig + 4],
                              a[(gid + 8) * 8 + tig + 4]);
  kv_u32x2 fb = kv_make_u32x2(b[gid * 8 + tig], b[gid * 8 + tig + 4]);
  kv_i32x4 fd = kv_make_i32x4(c[gid * 8 + 2 * tig], c[gid * 8 + 2 * tig + 1],
                              c[(gid + 8) * 8 + 2 * tig], c[(gid + 8) * 8 + 2 * tig + 1]);
  if (kind == 0)
    fd = kv_mma_m16n8k32_s8s8(fa, fb, fd);
  else if (kind == 1)
    fd = kv_mma_m16n8k32_s8u8(fa, fb, fd);
  else if (kind == 2)
    fd = kv_mma_m16n8k32_u8s8(fa, fb, fd);
  else
    fd = kv_mma_m16n8k32_u8u8(fa, fb, fd);
  d[gid * 8 + 2 * tig] = fd.x;
  d[gid * 8 + 2 * tig + 1] = fd.y;
  d[(gid + 8) * 8 + 2 * tig] = fd.z;
  d[(gid + 8) * 8 + 2 * tig + 1] = fd.w;
}

// D = A * identity: each block widens 128 fp16 (or bf16) values inside the mma.
KV_KERNEL(32) void widen(const uint16_t *in, float *out, int32_t bfloat) {
  int32_t lane = kv_thread_id_x(), gid = lane / 4, tig = lane % 4;
  const uint16_t *a = in + kv_block_id_x() * 128;
  uint32_t one = bfloat ? 0x3f80u : 0x3c00u;
  kv_u32x4 fa = kv_make_u32x4(a[gid * 8 + 2 * tig] | uint32_t(a[gid * 8 + 2 * tig + 1]) << 16,
                              a[64 + gid * 8 + 2 * tig] |
                                  uint32_t(a[64 + gid * 8 + 2 * tig + 1]) << 16, 0, 0);
  kv_u32x2 fb = kv_make_u32x2((2 * tig == gid ? one : 0) | (2 * tig + 1 == gid ? one << 16 : 0), 0);
  kv_f32x4 zero = kv_make_f32x4(0, 0, 0, 0);
  kv_f32x4 fd = zero;
  if (bfloat)
    fd = kv_mma_m16n8k16_bf16(fa, fb, zero);
  else
    fd = kv_mma_m16n8k16_f16(fa, fb, zero);
  float *d = out + kv_block_id_x() * 128;
  d[gid * 8 + 2 * tig] = fd.x;
  d[gid * 8 + 2 * tig + 1] = fd.y;
  d[64 + gid * 8 + 2 * tig] = fd.z;
  d[64 + gid * 8 + 2 * tig + 1] = fd.w;
}

// Each thread copies four times 16 bytes, two groups in flight.
KV_KERNEL(64) void async_copy(const uint32_t *in, uint32_t *out) {
  KV_SHARED_DYNAMIC(uint32_t, ring);
  uint32_t tid = kv_thread_id_x();
  kv_smem_ptr mine = kv_smem_of(ring) + tid * 16;
  for (uint32_t i = 0; i < 2; ++i) {
    kv_cp_async16(mine + i * 1024, in + (i * 64 + tid) * 4);
    kv_cp_async_commit();
  }
  for (uint32_t i = 0; i < 4; ++i) {
    kv_cp_async_wait_group<1>();
    kv_barrier();
    kv_u32x4 v = kv_lds128(kv_smem_of(ring) + (i % 2) * 1024 + (63 - tid) * 16);
    kv_stg128(out + (i * 64 + tid) * 4, v);
    kv_barrier();
    if (i < 2)
      kv_cp_async16(mine + (i % 2) * 1024, in + ((i + 2) * 64 + tid) * 4);
    kv_cp_async_commit();
  }
}

KV_KERNEL(256) void to_f32(const uint16_t *in, float *f16, float *bf16) {
  size_t i = kv_block_id_x() * 256 + kv_thread_id_x();
  f16[i] = kv_f16_to_f32(in[i]);
  bf16[i] = kv_bf16_to_f32(in[i]);
}
KV_KERNEL(256) void from_f32(const float *in, uint16_t *f16, uint16_t *bf16) {
  size_t i = kv_block_id_x() * 256 + kv_thread_id_x();
  f16[i] = kv_f32_to_f16(in[i]);
  bf16[i] = kv_f32_to_bf16(in[i]);
}
KV_KERNEL(256) void half_math(const uint32_t *x, const uint32_t *y, const uint32_t *z,
                              uint32_t *out) {
  size_t i = kv_block_id_x() * 256 + kv_thread_id_x();
  out[3 * i] = kv_add_f16x2(x[i], y[i]);
  out[3 * i + 1] = kv_mul_f16x2(x[i], y[i]);
  out[3 * i + 2] = kv_fma_f16x2(x[i], y[i], z[i]);
}
KV_KERNEL(256) void exp_log(const float *in, float *e, float *l) {
  size_t i = kv_block_id_x() * 256 + kv_thread_id_x();
  e[i] = kv_exp2(in[i]);
  l[i] = kv_log2(in[i]);
}
KV_KERNEL(32) void scalars(float *f, uint32_t *u) {
  if (kv_thread_id_x() != 0)
    return;
  f[0] = kv_max(1.0f, NAN);
  f[1] = kv_max(NAN, 2.0f);
  f[2] = kv_min(NAN, 3.0f);
  f[3] = kv_rint(2.5f);
  f[4] = kv_bits_to_f32(0x40490fdbu);
  f[5] = kv_i32_to_f32(-7);
  f[6] = kv_u32_to_f32(4294967295u);
  u[0] = kv_f32_to_bits(-0.0f);
  u[1] = kv_funnel_shift_r(0x11223344u, 0x55667788u, 8);
  u[2] = kv_funnel_shift_r(0x11223344u, 0x55667788u, 32);
  u[3] = kv_and_or(0x12345678u, 0x000f000fu, 0x64006400u);
  u[4] = uint32_t(kv_f32_to_i32_rn(-2.5f));
  u[5] = uint32_t(kv_f32_to_i32_rn(1e20f));
  u[6] = uint32_t(kv_f32_to_i32_rn(NAN));
  u[7] = kv_f32x2_to_f16x2(1.0f, -2.0f);
  u[8] = kv_f32x2_to_bf16x2(1.0f, -2.0f);
}

// The ticket of each thread: the order in which threads ran.
KV_KERNEL(64) void tickets(uint32_t *counter, uint32_t *out) {
  out[kv_block_id_x() * 64 + kv_thread_id_x()] = (*counter)++;
  kv_syncwarp();
  out[kv_block_id_x() * 64 + kv_thread_id_x()] += (*counter)++ * 1000;
}

// Last CTA to finish sums what the others published.
KV_KERNEL(32) void last_block(int32_t *counters, float *partial, float *out) {
  if (kv_thread_id_x() == 0)
    partial[kv_block_id_x()] = kv_i32_to_f32(kv_block_id_x());
  if (!kv_arrive(counters, 1, kv_grid_dim_x()) || kv_thread_id_x() != 0)
    return;
  float sum = 0;
  for (size_t i = 0; i < kv_grid_dim_x(); ++i)
    sum += partial[i];
  out[0] = sum;
}

KV_KERNEL(32) void poison(float *out) {
  KV_SHARED float s[32];
  KV_SHARED_DYNAMIC(float, dynamic);
  size_t i = kv_block_id_x() * 32 + kv_thread_id_x();
  out[2 * i] = s[kv_thread_id_x()];
  out[2 * i + 1] = dynamic[kv_thread_id_x()];
  s[kv_thread_id_x()] = 1.0f;
  dynamic[kv_thread_id_x()] = 1.0f;
}
)cuda";

// Each kernel makes one mistake. Messages name the lines of this text.
constexpr const char *Faults = R"cuda(
KV_KERNEL(64) void no_barrier(uint32_t *out) {
  KV_SHARED uint32_t s[64];
  uint32_t tid = kv_thread_id_x();
  s[tid] = tid;
  out[tid] = s[63 - tid];
}
KV_KERNEL(32) void no_syncwarp(uint32_t *out) {
  KV_SHARED uint32_t s[32];
  uint32_t tid = kv_thread_id_x();
  s[tid] = tid;
  kv_syncwarp();
  uint32_t v = s[31 - tid];
  s[tid] = v + 100;
  out[tid] = s[(tid + 1) % 32];
}
KV_KERNEL(32) void no_wait(const uint32_t *in, uint32_t *out) {
  KV_SHARED uint32_t s[128];
  uint32_t tid = kv_thread_id_x();
  kv_cp_async16(kv_smem_of(s) + 16 * tid, in + 4 * tid);
  kv_cp_async_commit();
  kv_cp_async_wait_group<1>();
  kv_syncwarp();
  out[tid] = s[4 * tid];
}
KV_KERNEL(32) void divergent(uint32_t *out) {
  uint32_t tid = kv_thread_id_x();
  if (tid < 8)
    out[tid] = kv_shfl_xor_u32(tid, 1);
  else
    out[tid] = kv_any(tid == 9);
}
KV_KERNEL(32) void two_sites(uint32_t *out) {
  uint32_t tid = kv_thread_id_x();
  if (tid < 8)
    out[tid] = kv_shfl_xor_u32(tid, 1);
  else
    out[tid] = kv_shfl_xor_u32(tid, 2);
}
KV_KERNEL(96) void early_exit(uint32_t *out) {
  uint32_t tid = kv_thread_id_x();
  if (tid < 32)
    return;
  kv_barrier();
  out[tid] = 1;
}
KV_KERNEL(64) void half_warp(uint32_t *out) {
  uint32_t tid = kv_thread_id_x();
  if (tid >= 40)
    return;
  kv_syncwarp();
  out[tid] = 1;
}
KV_KERNEL(32) void misaligned(uint32_t *out) {
  KV_SHARED uint32_t s[64];
  s[kv_thread_id_x()] = 0;
  out[kv_thread_id_x()] = kv_lds128(kv_smem_of(s) + 4).x;
}
KV_KERNEL(32) void outside(uint32_t *out) {
  KV_SHARED uint32_t s[64];
  s[kv_thread_id_x()] = 0;
  out[kv_thread_id_x()] = kv_ldmatrix_x1(kv_smem_of(s) + 16 * 100000);
}
)cuda";

// What no barrier orders, and beside it what one does.
constexpr const char *Races = R"cuda(
KV_KERNEL(64) void ordered(const uint32_t *in, uint32_t *out) {
  KV_SHARED uint32_t s[64];
  KV_SHARED_DYNAMIC(uint32_t, dynamic);
  uint32_t tid = kv_thread_id_x();
  kv_cp_async16(kv_smem_of(dynamic) + 16 * tid, in + 4 * (tid % 32));
  kv_cp_async_commit();
  s[tid] = tid;
  kv_syncwarp();
  uint32_t v = s[tid ^ 5];
  kv_barrier();
  s[63 - tid] = v;
  kv_cp_async_wait_group<0>();
  kv_barrier();
  s[tid & 32] = 7;
  kv_syncwarp();
  out[tid] = s[tid & 32] + dynamic[4 * (63 - tid)];
  kv_barrier();
  s[tid] = kv_ldmatrix_x1(kv_smem_of(dynamic) + 16 * (tid % 8));
}
KV_KERNEL(64) void read_early(uint32_t *out) {
  KV_SHARED uint32_t s[64];
  uint32_t tid = kv_thread_id_x();
  s[tid] = tid;
  kv_syncwarp();
  out[tid] = s[63 - tid];
}
KV_KERNEL(32) void shuffled(uint32_t *out) {
  KV_SHARED uint32_t s[32];
  uint32_t tid = kv_thread_id_x();
  s[tid] = tid;
  out[tid] = kv_shfl_xor_u32(tid, 1);
  out[tid] = s[tid ^ 1];
}
KV_KERNEL(64) void written_early(uint32_t *out) {
  KV_SHARED uint32_t s[64];
  uint32_t tid = kv_thread_id_x();
  s[tid] = tid;
  kv_barrier();
  out[tid] = s[63 - tid];
  kv_syncwarp();
  s[tid] = 0;
}
KV_KERNEL(32) void written_twice(uint32_t *out) {
  KV_SHARED uint32_t s[2];
  uint32_t tid = kv_thread_id_x();
  s[0] = 5;
  s[1] = tid / 31;
  kv_syncwarp();
  out[tid] = s[0] + s[1];
}
KV_KERNEL(32) void copied_over(const uint32_t *in, uint32_t *out) {
  KV_SHARED uint32_t s[128];
  uint32_t tid = kv_thread_id_x();
  s[tid] = 1;
  kv_syncwarp();
  out[tid] = s[31 - tid];
  kv_cp_async16(kv_smem_of(s) + 16 * tid, in + 4 * tid);
}
KV_KERNEL(32) void own_copy(const uint32_t *in, uint32_t *out) {
  KV_SHARED uint32_t s[128];
  uint32_t tid = kv_thread_id_x();
  kv_cp_async16(kv_smem_of(s) + 16 * tid, in + 4 * tid);
  kv_cp_async_commit();
  kv_cp_async_wait_group<1>();
  out[tid] = s[4 * tid];
}
KV_KERNEL(32) void others_copy(const uint32_t *in, uint32_t *out) {
  KV_SHARED uint32_t s[128];
  uint32_t tid = kv_thread_id_x();
  kv_cp_async16(kv_smem_of(s) + 16 * tid, in + 4 * tid);
  kv_cp_async_commit();
  kv_cp_async_wait_group<0>();
  out[tid] = s[4 * (tid ^ 1)];
}
KV_KERNEL(32) void beyond(uint32_t *out) {
  KV_SHARED_DYNAMIC(uint32_t, dynamic);
  dynamic[kv_thread_id_x()] = 1;
  kv_barrier();
  out[kv_thread_id_x()] = dynamic[kv_thread_id_x() + 1];
}
KV_KERNEL(32) void before(uint32_t *out) {
  KV_SHARED_DYNAMIC(uint32_t, dynamic);
  dynamic[int64_t(kv_thread_id_x()) - 1] = 1;
}
KV_KERNEL(32) void stored_twice(uint32_t *out) {
  KV_SHARED uint32_t s[4];
  kv_sts128(kv_smem_of(s), kv_make_u32x4(kv_thread_id_x(), 0, 0, 0));
}
KV_KERNEL(32) void without_wait(const uint32_t *in, uint32_t *out) {
  KV_SHARED uint32_t s[128];
  kv_cp_async16(kv_smem_of(s) + 16 * kv_thread_id_x(), in + 4 * kv_thread_id_x());
}
KV_KERNEL(32) void many_copies(const uint32_t *in, uint32_t *out) {
  KV_SHARED_DYNAMIC(uint32_t, dynamic);
  uint32_t tid = kv_thread_id_x();
  for (uint32_t i = 0; i < 300; ++i)
    kv_cp_async16(kv_smem_of(dynamic) + 16 * (32 * i + tid), in + 4 * tid);
  kv_cp_async_commit();
  kv_cp_async_wait_group<0>();
  kv_syncwarp();
  out[tid] = dynamic[4 * (32 * 299 + (31 - tid))] + kv_ldmatrix_x2(kv_smem_of(dynamic) + 299 * 512 + 256 + 16 * tid).x;
}
)cuda";

std::vector<std::string> kernelNames(StringRef text) {
  std::vector<std::string> names;
  for (StringRef rest = text; rest.contains("KV_KERNEL(");) {
    rest = rest.split("KV_KERNEL(").second.split("void ").second;
    names.push_back(rest.take_until([](char c) { return c == '('; }).str());
  }
  return names;
}

std::unique_ptr<CudaHostModule> build(StringRef text, const CudaHostOptions &options = {}) {
  kvcc::ScopedVariable variable("KVCC_HOST_CHECK", nullptr); // what is checked here, the options say
  auto module = CudaHostModule::compile(text, kernelNames(text), options);
  if (module)
    return std::move(*module);
  ADD_FAILURE() << toString(module.takeError());
  std::abort();
}

/// Compiled once for all tests.
CudaHostModule &good() {
  static std::unique_ptr<CudaHostModule> module = build(Kernels);
  return *module;
}
CudaHostModule &faulty() {
  static std::unique_ptr<CudaHostModule> module = build(Faults);
  return *module;
}

template <class... Args>
std::string run(CudaHostModule &module, StringRef kernel, std::array<uint32_t, 3> grid, uint32_t threads, uint64_t seed,
                uint32_t sharedBytes, Args... values) {
  void *args[] = {&values...};
  if (Error error = module.launch(kernel, grid, threads, args, seed, sharedBytes))
    return toString(std::move(error));
  return "";
}

#define EXPECT_CONTAINS(text, part) EXPECT_TRUE(StringRef(text).contains(part)) << (text)

double decode(uint16_t bits, const fltSemantics &semantics) {
  return APFloat(semantics, APInt(16, bits)).convertToDouble();
}
uint16_t encode(double value, const fltSemantics &semantics) {
  bool lossy;
  APFloat f(value);
  f.convert(semantics, APFloat::rmNearestTiesToEven, &lossy);
  return f.isNaN() ? 0x7fff : uint16_t(f.bitcastToAPInt().getZExtValue());
}
bool isNaN16(uint16_t bits, const fltSemantics &semantics) { return APFloat(semantics, APInt(16, bits)).isNaN(); }

//===----------------------------------------------------------------------===//
// Grids, collectives, copies
//===----------------------------------------------------------------------===//

TEST(CudaHost, SaxpyOverAGrid) {
  constexpr int64_t n = 1000;
  std::vector<float> x(n), y(n);
  for (int64_t i = 0; i < n; ++i)
    x[i] = i, y[i] = 1;
  EXPECT_EQ(run(good(), "saxpy", {4, 2, 1}, 128, 1, 0, 2.0f, x.data(), y.data(), n), "");
  for (int64_t i = 0; i < n; ++i)
    EXPECT_EQ(y[i], 2.0f * i + 1);
}

TEST(CudaHost, BlockReduction) {
  std::vector<float> x(256 * 5);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = i % 97;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::vector<float> out(5);
    EXPECT_EQ(run(good(), "reduce", {5, 1, 1}, 256, seed, 0, x.data(), out.data()), "");
    for (int b = 0; b < 5; ++b) {
      float sum = 0; // small integers: exact in any order
      for (int i = 0; i < 256; ++i)
        sum += x[b * 256 + i];
      EXPECT_EQ(out[b], sum);
    }
  }
}

TEST(CudaHost, Shuffles) {
  std::vector<uint32_t> out(64 * 4);
  EXPECT_EQ(run(good(), "shuffles", {1, 1, 1}, 64, 3, 0, out.data()), "");
  for (uint32_t tid = 0; tid < 64; ++tid) {
    EXPECT_EQ(out[tid * 4], tid ^ 5);
    EXPECT_EQ(out[tid * 4 + 1], tid / 32 * 32 + (tid % 32 * 7 + 3) % 32);
    EXPECT_EQ(out[tid * 4 + 2], uint32_t(tid >= 32));
    EXPECT_EQ(out[tid * 4 + 3], tid / 32 * 32 + 9);
  }
}

TEST(CudaHost, AsyncCopiesLandInTime) {
  alignas(16) static uint32_t in[1024], out[1024];
  for (uint32_t i = 0; i < 1024; ++i)
    in[i] = i * 3;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::memset(out, 0, sizeof(out));
    EXPECT_EQ(run(good(), "async_copy", {1, 1, 1}, 64, seed, 2048, &in[0], &out[0]), "");
    for (uint32_t i = 0; i < 4; ++i)
      for (uint32_t t = 0; t < 64; ++t)
        for (uint32_t k = 0; k < 4; ++k)
          ASSERT_EQ(out[(i * 64 + t) * 4 + k], in[(i * 64 + 63 - t) * 4 + k]);
  }
}

TEST(CudaHost, LastBlockMerges) {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    std::vector<float> partial(40, -1000.0f);
    int32_t counters[3] = {-1, 0, -1};
    float out = 0;
    EXPECT_EQ(run(good(), "last_block", {40, 1, 1}, 32, seed, 0, counters, partial.data(), &out), "");
    EXPECT_EQ(out, 780.0f);
    EXPECT_EQ(counters[0], -1);
    EXPECT_EQ(counters[1], 0); // for the next launch
    EXPECT_EQ(counters[2], -1);
  }
}

TEST(CudaHost, SharedMemoryStartsPoisonedInEveryBlock) {
  std::vector<float> out(3 * 64);
  EXPECT_EQ(run(good(), "poison", {3, 1, 1}, 32, 1, 128, out.data()), "");
  for (float v : out)
    EXPECT_TRUE(std::isnan(v));
}

//===----------------------------------------------------------------------===//
// Matrix fragments
//===----------------------------------------------------------------------===//

TEST(CudaHost, MmaAgainstNaive) {
  std::mt19937 rng(7);
  for (bool bfloat : {false, true}) {
    const fltSemantics &type = bfloat ? APFloat::BFloat() : APFloat::IEEEhalf();
    std::vector<uint16_t> a(256), b(128);
    std::vector<float> c(128), d(128), viaLdmatrix(128);
    std::normal_distribution<double> normal;
    for (uint16_t &v : a)
      v = encode(normal(rng), type);
    for (uint16_t &v : b)
      v = encode(normal(rng) * 1e-6, type); // subnormal in fp16
    for (float &v : c)
      v = normal(rng) * 1e-6;
    EXPECT_EQ(run(good(), "mma", {1, 1, 1}, 32, 5, 0, a.data(), b.data(), c.data(), d.data(), int32_t(bfloat)), "");
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 8; ++n) {
        double sum = c[m * 8 + n];
        for (int k = 0; k < 16; ++k)
          sum += decode(a[m * 16 + k], type) * decode(b[k * 8 + n], type);
        EXPECT_EQ(d[m * 8 + n], float(sum)) << m << " " << n;
      }
    if (bfloat)
      continue;
    EXPECT_EQ(run(good(), "mma_ldmatrix", {1, 1, 1}, 32, 6, 0, a.data(), b.data(), c.data(), viaLdmatrix.data()), "");
    EXPECT_EQ(d, viaLdmatrix);
  }
}

TEST(CudaHost, Transposes) {
  std::vector<uint16_t> in(64);
  for (uint32_t i = 0; i < 64; ++i)
    in[i] = i * 1001;
  std::vector<uint32_t> out(160);
  EXPECT_EQ(run(good(), "transpose", {1, 1, 1}, 32, 2, 0, in.data(), out.data()), "");
  for (uint32_t way = 0; way < 5; ++way)
    for (uint32_t lane = 0; lane < 32; ++lane) {
      uint32_t gid = lane / 4, k = lane % 4 * 2;
      EXPECT_EQ(out[way * 32 + lane], in[k * 8 + gid] | uint32_t(in[(k + 1) * 8 + gid]) << 16);
    }
}

TEST(CudaHost, IntegerMmaAgainstNaive) {
  std::mt19937 rng(3);
  for (int32_t kind = 0; kind < 4; ++kind) {
    std::vector<uint32_t> a(128), b(64);
    std::vector<int32_t> c(128), d(128);
    for (uint32_t &v : a)
      v = rng();
    for (uint32_t &v : b)
      v = rng();
    for (int32_t &v : c)
      v = rng() % 1000;
    EXPECT_EQ(run(good(), "mma_int", {1, 1, 1}, 32, 5, 0, a.data(), b.data(), c.data(), d.data(), kind), "");
    auto byte = [](const std::vector<uint32_t> &words, int i, bool isUnsigned) {
      uint8_t v = words[i / 4] >> (i % 4 * 8);
      return isUnsigned ? int(v) : int(int8_t(v));
    };
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 8; ++n) {
        int32_t sum = c[m * 8 + n];
        for (int k = 0; k < 32; ++k)
          sum += byte(a, m * 32 + k, kind >= 2) * byte(b, n * 32 + k, kind % 2);
        EXPECT_EQ(d[m * 8 + n], sum);
      }
  }
}

//===----------------------------------------------------------------------===//
// Numbers
//===----------------------------------------------------------------------===//

TEST(CudaHost, WidensEvery16BitValue) {
  std::vector<uint16_t> in(65536);
  for (uint32_t i = 0; i < 65536; ++i)
    in[i] = i;
  std::vector<float> f16(65536), bf16(65536);
  EXPECT_EQ(run(good(), "to_f32", {256, 1, 1}, 256, 1, 0, in.data(), f16.data(), bf16.data()), "");
  for (auto [semantics, out] : {std::pair(&APFloat::IEEEhalf(), &f16), {&APFloat::BFloat(), &bf16}})
    for (uint32_t i = 0; i < 65536; ++i) {
      if (isNaN16(i, *semantics)) {
        EXPECT_TRUE(std::isnan((*out)[i]));
        continue;
      }
      float expected = decode(i, *semantics);
      ASSERT_EQ(std::memcmp(&(*out)[i], &expected, 4), 0) << i;
    }

  // The same inside an mma, where a NaN or infinity would spread over its row: finite ones only.
  for (bool bfloat : {false, true}) {
    const fltSemantics &type = bfloat ? APFloat::BFloat() : APFloat::IEEEhalf();
    for (uint32_t i = 0; i < 65536; ++i)
      in[i] = std::isfinite(decode(i, type)) ? i : 0;
    std::vector<float> out(65536);
    EXPECT_EQ(run(good(), "widen", {512, 1, 1}, 32, 1, 0, in.data(), out.data(), int32_t(bfloat)), "");
    for (uint32_t i = 0; i < 65536; ++i)
      ASSERT_EQ(out[i], float(decode(in[i], type))) << i;
  }
}

TEST(CudaHost, NarrowsToNearestEven) {
  // Every value of each type, the midpoint to the next, and both neighbours of each.
  for (bool bfloat : {false, true}) {
    const fltSemantics &type = bfloat ? APFloat::BFloat() : APFloat::IEEEhalf();
    std::vector<float> in;
    for (uint32_t i = 0; i < 65536; ++i) {
      float v = decode(i, type), next = decode(uint16_t(i + 1), type);
      for (float x : {v, std::isfinite(next) ? v / 2 + next / 2 : v})
        for (float y : {x, std::nextafterf(x, INFINITY), std::nextafterf(x, -INFINITY)})
          in.push_back(y);
    }
    for (float x : {65519.99f, 65520.0f, -65520.0f, 3.4e38f, INFINITY, -INFINITY, NAN, 1e-45f})
      in.push_back(x);
    in.resize((in.size() + 255) / 256 * 256);
    std::vector<uint16_t> f16(in.size()), bf16(in.size());
    EXPECT_EQ(run(good(), "from_f32", {uint32_t(in.size() / 256), 1, 1}, 256, 0, 0, in.data(), f16.data(), bf16.data()),
              "");
    for (size_t i = 0; i < in.size(); ++i) {
      ASSERT_EQ(f16[i], encode(in[i], APFloat::IEEEhalf())) << in[i];
      ASSERT_EQ(bf16[i], encode(in[i], APFloat::BFloat())) << in[i];
    }
  }
}

TEST(CudaHost, HalfArithmeticRoundsOnce) {
  std::mt19937 rng(11);
  std::vector<uint32_t> x(256 * 200), y(x.size()), z(x.size()), out(3 * x.size());
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = rng(), y[i] = rng(), z[i] = rng();
  EXPECT_EQ(run(good(), "half_math", {200, 1, 1}, 256, 0, 0, x.data(), y.data(), z.data(), out.data()), "");
  auto half = [](uint32_t word, int i) { return APFloat(APFloat::IEEEhalf(), APInt(16, word >> (16 * i) & 0xffff)); };
  auto round = APFloat::rmNearestTiesToEven;
  for (size_t i = 0; i < x.size(); ++i)
    for (int h = 0; h < 2; ++h) {
      APFloat expected[3] = {half(x[i], h), half(x[i], h), half(x[i], h)};
      expected[0].add(half(y[i], h), round);
      expected[1].multiply(half(y[i], h), round);
      expected[2].fusedMultiplyAdd(half(y[i], h), half(z[i], h), round);
      for (int op = 0; op < 3; ++op) {
        uint16_t got = out[3 * i + op] >> (16 * h);
        if (expected[op].isNaN())
          ASSERT_TRUE(isNaN16(got, APFloat::IEEEhalf()));
        else
          ASSERT_EQ(got, expected[op].bitcastToAPInt().getZExtValue()) << op;
      }
    }
}

TEST(CudaHost, Exp2AndLog2) {
  std::vector<float> in(256 * 64), e(in.size()), l(in.size());
  for (size_t i = 0; i < in.size(); ++i)
    in[i] = (float(i) - 8192) / 60;
  in[0] = 1e-40f;
  in[1] = -INFINITY;
  in[2] = INFINITY;
  EXPECT_EQ(run(good(), "exp_log", {64, 1, 1}, 256, 0, 0, in.data(), e.data(), l.data()), "");
  EXPECT_EQ(e[0], 1.0f);
  EXPECT_EQ(l[0], -INFINITY);
  EXPECT_EQ(e[1], 0.0f);
  EXPECT_EQ(e[2], INFINITY);
  for (size_t i = 3; i < in.size(); ++i) {
    double expected = std::exp2(double(in[i]));
    if (in[i] < -126)
      EXPECT_EQ(e[i], 0.0f) << in[i]; // flushed
    else if (in[i] >= 128)
      EXPECT_EQ(e[i], INFINITY);
    else
      EXPECT_NEAR(e[i] / expected, 1, 2e-7) << in[i];
    if (in[i] > 0)
      EXPECT_NEAR(l[i], std::log2(double(in[i])), 1e-6);
    else if (in[i] < 0)
      EXPECT_TRUE(std::isnan(l[i]));
  }
}

TEST(CudaHost, Scalars) {
  float f[7] = {};
  uint32_t u[9] = {};
  EXPECT_EQ(run(good(), "scalars", {1, 1, 1}, 32, 1, 0, &f[0], &u[0]), "");
  float expectedF[] = {1, 2, 3, 2, 3.14159274f, -7, 4294967296.0f};
  uint32_t expectedU[] = {0x80000000u, 0x88112233u, 0x11223344u, 0x64046408u, uint32_t(-2),
                          0x7fffffffu, 0,           0xc0003c00u, 0xc0003f80u};
  for (int i = 0; i < 7; ++i)
    EXPECT_EQ(f[i], expectedF[i]) << i;
  for (int i = 0; i < 9; ++i)
    EXPECT_EQ(u[i], expectedU[i]) << i;
}

//===----------------------------------------------------------------------===//
// Seeds
//===----------------------------------------------------------------------===//

std::vector<uint32_t> tickets(CudaHostModule &module, uint64_t seed) {
  uint32_t counter = 0;
  std::vector<uint32_t> out(64 * 4);
  EXPECT_EQ(run(module, "tickets", {4, 1, 1}, 64, seed, 0, &counter, out.data()), "");
  return out;
}

TEST(CudaHost, EqualSeedsGiveEqualOrders) {
  std::set<std::vector<uint32_t>> orders;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    std::vector<uint32_t> order = tickets(good(), seed);
    EXPECT_EQ(order, tickets(good(), seed));
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 10u);
}

TEST(CudaHost, ObjectsAreReproducible) {
  std::vector<std::string> names = {"no_barrier", "divergent"};
  auto first = CudaHostModule::compileToObject(Faults, names);
  auto second = CudaHostModule::compileToObject(Faults, names);
  ASSERT_TRUE(bool(first) && bool(second));
  EXPECT_EQ((*first)->getBuffer(), (*second)->getBuffer());

  // Two loads of one object have separate state; a kernel that was not asked for is missing.
  auto a = CudaHostModule::loadObject((*first)->getBuffer(), names);
  auto b = CudaHostModule::loadObject((*first)->getBuffer(), names);
  ASSERT_TRUE(bool(a) && bool(b));
  names.push_back("early_exit");
  auto c = CudaHostModule::loadObject((*first)->getBuffer(), names);
  ASSERT_FALSE(bool(c));
  EXPECT_CONTAINS(toString(c.takeError()), "has no kernel 'early_exit'");
}

//===----------------------------------------------------------------------===//
// Mistakes
//===----------------------------------------------------------------------===//

/// How many of the seeds 1..20 give something else than `expected`.
template <class... Args>
int wrongSeeds(StringRef kernel, uint32_t threads, const std::vector<uint32_t> &expected, Args... args) {
  int wrong = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    std::vector<uint32_t> out(expected.size());
    EXPECT_EQ(run(faulty(), kernel, {1, 1, 1}, threads, seed, 0, args..., out.data()), "");
    wrong += out != expected;
  }
  return wrong;
}

TEST(CudaHostFaults, MissingSynchronizationShows) {
  std::vector<uint32_t> reversed(64), shifted(32), copied(32);
  for (uint32_t i = 0; i < 64; ++i)
    reversed[i] = 63 - i;
  for (uint32_t i = 0; i < 32; ++i)
    shifted[i] = 31 - (i + 1) % 32 + 100;
  alignas(16) static uint32_t in[128];
  for (uint32_t i = 0; i < 128; ++i)
    in[i] = i;
  for (uint32_t i = 0; i < 32; ++i)
    copied[i] = 4 * i;
  EXPECT_GT(wrongSeeds("no_barrier", 64, reversed), 15);
  EXPECT_GT(wrongSeeds("no_syncwarp", 32, shifted), 15);
  // In a third of the blocks all copies land at once.
  EXPECT_GT(wrongSeeds("no_wait", 32, copied, &in[0]), 7);
}

TEST(CudaHostFaults, CollectivesMustAgree) {
  std::vector<uint32_t> out(96);
  for (uint64_t seed = 0; seed < 5; ++seed) {
    std::string error = run(faulty(), "divergent", {1, 1, 1}, 32, seed, 0, out.data());
    EXPECT_CONTAINS(error, "kernel 'divergent', block (0, 0, 0): divergent collective: thread ");
    EXPECT_CONTAINS(error, "kv_shfl_xor at line 29");
    EXPECT_CONTAINS(error, "kv_any at line 31");
    error = run(faulty(), "two_sites", {1, 1, 1}, 32, seed, 0, out.data());
    EXPECT_CONTAINS(error, "kv_shfl_xor at line 36");
    EXPECT_CONTAINS(error, "kv_shfl_xor at line 38");
  }
  // An abandoned launch leaves nothing behind.
  EXPECT_EQ(run(faulty(), "no_barrier", {1, 1, 1}, 64, 1, 0, out.data()), "");
}

TEST(CudaHostFaults, DeadlocksNameTheThreads) {
  std::vector<uint32_t> out(96);
  for (uint64_t seed = 0; seed < 5; ++seed) {
    EXPECT_EQ(run(faulty(), "early_exit", {1, 1, 1}, 96, seed, 0, out.data()),
              "kernel 'early_exit', block (0, 0, 0): deadlock: threads 0-31 returned while others "
              "wait for them: threads 32-95 wait for kv_barrier at line 44");
    EXPECT_EQ(run(faulty(), "half_warp", {1, 1, 1}, 64, seed, 0, out.data()),
              "kernel 'half_warp', block (0, 0, 0): deadlock: threads 0-31, 40-63 returned while "
              "others wait for them: threads 32-39 wait for kv_syncwarp at line 51");
  }
}

TEST(CudaHostFaults, SharedAddressesAreChecked) {
  std::vector<uint32_t> out(32);
  EXPECT_CONTAINS(run(faulty(), "misaligned", {1, 1, 1}, 32, 0, 0, out.data()),
                  "kv_lds128 at line 57: the shared address is not a multiple of 16");
  EXPECT_CONTAINS(run(faulty(), "outside", {1, 1, 1}, 32, 0, 0, out.data()),
                  "kv_ldmatrix at line 62: the address is not in the block's shared memory");
}

TEST(CudaHostFaults, LaunchesAreChecked) {
  uint32_t *out = nullptr;
  EXPECT_EQ(run(faulty(), "divergent", {1, 1, 1}, 48, 0, 0, out),
            "kernel 'divergent': expected a multiple of 32 up to 1024, but got a thread count of "
            "48");
  EXPECT_EQ(run(faulty(), "divergent", {1, 1, 1}, 32, 0, 0, out, out),
            "kernel 'divergent': expected 1 arguments, but got a count of 2");
  EXPECT_CONTAINS(run(faulty(), "divergent", {1, 0, 1}, 32, 0, 0, out), "expected a grid of 1 to");
  EXPECT_CONTAINS(run(faulty(), "nothing", {1, 1, 1}, 32, 0, 0, out), "no kernel 'nothing'");
}

TEST(CudaHostFaults, CompilerErrorsArePassedOn) {
  StringRef text = "\nKV_KERNEL(32) void bad(float *p) {\n  *p = undeclared;\n}\n";
  auto module = CudaHostModule::compile(text, {"bad"});
  ASSERT_FALSE(bool(module));
  std::string error = toString(module.takeError());
  EXPECT_CONTAINS(error, "refused the emitted kernel (exit code 1):\n");
  EXPECT_CONTAINS(error, "kernel.cu:3:");
  EXPECT_CONTAINS(error, "undeclared");

  module = CudaHostModule::compile("", {"a;b"});
  EXPECT_EQ(toString(module.takeError()), "expected a C identifier as kernel name, but got 'a;b'");
}

TEST(CudaHostFaults, RacesAreNamed) {
  std::vector<uint32_t> out(64);
  alignas(16) static uint32_t in[128] = {3};
  for (const char *compiler : {"g++", "clang++-22"}) {
    if (!sys::findProgramByName(compiler))
      continue;
    SCOPED_TRACE(compiler);
    CudaHostOptions options;
    options.compiler = compiler;
    options.checksRaces = true;
    std::unique_ptr<CudaHostModule> module = build(Races, options);
    // Found in any order, not only where it shows.
    for (uint64_t seed = 0; seed < 8; ++seed) {
      auto launch = [&](StringRef kernel, uint32_t threads, auto... args) {
        uint32_t shared = kernel == "beyond" ? 128 : kernel == "many_copies" ? 300 * 512 : 1024;
        return run(*module, kernel, {2, 1, 1}, threads, seed, shared, args...);
      };
      ASSERT_EQ(launch("ordered", 64, &in[0], out.data()), "");
      auto expect = [&](const std::string &error, const char *pattern) {
        EXPECT_TRUE(Regex(pattern).match(error)) << error << "\n" << pattern;
      };
      expect(launch("read_early", 64, out.data()),
             "kernel 'read_early', block \\([01], 0, 0\\): race: thread [0-9]+ (reads|writes) byte [0-9]+ of static "
             "shared "
             "memory, which thread [0-9]+ (wrote|or another of its warp read), with no barrier in between");
      expect(launch("shuffled", 32, out.data()), "race: thread [0-9]+ (reads|writes) byte");
      expect(launch("written_early", 64, out.data()),
             "(writes byte [0-9]+ of .*which thread [0-9]+ or another of its warp read|reads byte .* wrote), with no "
             "barrier in between \\(the block's last was at line 39\\)");
      expect(launch("written_twice", 32, out.data()),
             "thread [0-9]+ writes byte [0-9]+ of static.*which thread [0-9]+ wrote");
      expect(launch("copied_over", 32, &in[0], out.data()), "copies to byte .* read|(reads) byte .* is copying to");
      expect(launch("own_copy", 32, &in[0], out.data()),
             "thread ([0-9]+) reads byte .* which thread ([0-9]+) is copying");
      expect(launch("others_copy", 32, &in[0], out.data()),
             "(reads|copies to) byte [0-9]+ of .* which thread [0-9]+ (wrote|read|is copying to)");
      expect(launch("beyond", 32, out.data()),
             "thread 31 reads 4 bytes at 128 of the block's 128 bytes of dynamic shared memory");
      expect(launch("before", 32, out.data()), "thread 0 writes 4 bytes at -4 of the block's 1024 bytes");
      expect(launch("stored_twice", 32, out.data()), "writes byte [0-9]+ of static.* which thread [0-9]+ wrote");
      EXPECT_EQ(launch("without_wait", 32, &in[0], out.data()), "");
      EXPECT_EQ(launch("many_copies", 32, &in[0], out.data()), "");
    }
  }
}

TEST(CudaHostFaults, UnknownChecksAreNamed) {
  kvcc::ScopedVariable variable("KVCC_HOST_CHECK", "everything");
  auto object = CudaHostModule::compileToObject("", {});
  EXPECT_EQ(toString(object.takeError()), "expected KVCC_HOST_CHECK to be empty or 'races', but got 'everything'");
}

TEST(CudaHostFaults, MissingCompilersAreNamed) {
  std::string path = std::getenv("PATH");
  const char *old = std::getenv("KVCC_HOST_CXX");
  std::string chosen = old ? old : "";

  setenv("KVCC_HOST_CXX", "kvcc-no-such-compiler", 1);
  auto object = CudaHostModule::compileToObject("", {});
  EXPECT_EQ(toString(object.takeError()),
            "cannot find the host C++ compiler 'kvcc-no-such-compiler' that KVCC_HOST_CXX names; "
            "name one that is installed");
  unsetenv("KVCC_HOST_CXX");
  setenv("PATH", "/nonexistent", 1);
  object = CudaHostModule::compileToObject("", {});
  EXPECT_EQ(toString(object.takeError()),
            "running CUDA kernels on the host needs a C++ compiler, but none of c++, g++, clang++, "
            "clang++-22 is on PATH; install one or name it in KVCC_HOST_CXX");

  setenv("PATH", path.c_str(), 1);
  if (old)
    setenv("KVCC_HOST_CXX", chosen.c_str(), 1);
}

//===----------------------------------------------------------------------===//
// The two preludes
//===----------------------------------------------------------------------===//

/// Functions and macros, with the number of times each is defined.
std::multiset<std::string> definedNames(StringRef prelude) {
  std::multiset<std::string> names;
  SmallVector<StringRef> lines;
  prelude.split(lines, '\n');
  Regex function("KV_DEVICE .*[ *](kv_[a-z0-9_]+)$"), macro("^#define (KV_[A-Z0-9_]+)");
  for (StringRef line : lines) {
    SmallVector<StringRef, 2> match;
    if (function.match(line.split('(').first, &match) || macro.match(line, &match))
      names.insert(match[1].str());
  }
  return names;
}

TEST(CudaHost, BothPreludesDefineTheSameNames) {
  std::multiset<std::string> device = definedNames(kvcc::devicePrelude());
  std::multiset<std::string> host = definedNames(kvcc::hostPrelude());
  // Helpers of one side.
  for (const char *name : {"KV_MMA_M16N8K32", "KV_MMA_M8N8K16"})
    device.erase(name);
  for (const char *name : {"KV_HOST_LINE"})
    host.erase(name);
  host.erase("KVCC_CODEGEN_CUDA_PRELUDE_HOST_H");
  EXPECT_GT(device.size(), 60u);
  EXPECT_EQ(device, host);
}

} // namespace
