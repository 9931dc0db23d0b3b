// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Host twin of device.cuh: the same names, so that the emitted text runs without a GPU. Stricter
// where a GPU is undefined: divergent collectives, misplaced shared addresses and missed barriers
// are errors. Collectives take the line of the call for their messages.

#ifndef KVCC_CODEGEN_CUDA_PRELUDE_HOST_H
#define KVCC_CODEGEN_CUDA_PRELUDE_HOST_H

#include "codegen/cuda/prelude/host_runtime.h"

// Of <math.h>, which takes a third of a second to read in C++: functions are called as builtins, and emitted numbers
// need these.
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")

//===----------------------------------------------------------------------===//
// Types and qualifiers
//===----------------------------------------------------------------------===//

typedef uint8_t kv_u8;
typedef uint16_t kv_u16;
typedef uint32_t kv_u32;
typedef uint64_t kv_u64;
typedef int8_t kv_i8;
typedef int16_t kv_i16;
typedef int32_t kv_i32;
typedef int64_t kv_i64;

struct alignas(8) kv_u32x2 {
  kv_u32 x, y;
};
struct alignas(16) kv_u32x4 {
  kv_u32 x, y, z, w;
};
struct alignas(16) kv_i32x4 {
  kv_i32 x, y, z, w;
};
struct alignas(16) kv_f32x4 {
  float x, y, z, w;
};
typedef kv_u32x4 kv_uint4;

typedef unsigned char *kv_smem_ptr;

#define KV_KERNEL(...) extern "C"
#define KV_DEVICE static inline
// One copy per module is one per CTA, since CTAs run one after the other; the section lets the
// runtime find all of them and poison them before each CTA.
#define KV_SHARED static __attribute__((section("kv_shared"), aligned(16)))
#define KV_SHARED_DYNAMIC(type, name) type *const name = reinterpret_cast<type *>(kv_host::state.dynamicShared)
#define KV_UNROLL
#define KV_PRAGMA(x)
#define KV_UNROLL_BY(n)
#define KV_NOUNROLL
#define KV_RESTRICT __restrict__
#define KV_HOST_LINE kv_u32 line = __builtin_LINE()

KV_DEVICE kv_u32x2 kv_make_u32x2(kv_u32 x, kv_u32 y) { return kv_u32x2{x, y}; }
KV_DEVICE kv_u32x4 kv_make_u32x4(kv_u32 x, kv_u32 y, kv_u32 z, kv_u32 w) { return kv_u32x4{x, y, z, w}; }
KV_DEVICE kv_i32x4 kv_make_i32x4(kv_i32 x, kv_i32 y, kv_i32 z, kv_i32 w) { return kv_i32x4{x, y, z, w}; }
KV_DEVICE kv_f32x4 kv_make_f32x4(float x, float y, float z, float w) { return kv_f32x4{x, y, z, w}; }
template <int I, class V> KV_DEVICE auto kv_elt(const V &v) {
  static_assert(I >= 0 && I < int(sizeof(V) / 4), "element out of range");
  if constexpr (I == 0)
    return v.x;
  else if constexpr (I == 1)
    return v.y;
  else if constexpr (I == 2)
    return v.z;
  else
    return v.w;
}

//===----------------------------------------------------------------------===//
// Indices
//===----------------------------------------------------------------------===//

KV_DEVICE size_t kv_thread_id_x() { return kv_host::state.current->tid; }
KV_DEVICE size_t kv_block_id_x() { return kv_host::state.block[0]; }
KV_DEVICE size_t kv_block_id_y() { return kv_host::state.block[1]; }
KV_DEVICE size_t kv_block_id_z() { return kv_host::state.block[2]; }
KV_DEVICE size_t kv_block_dim_x() { return kv_host::state.launch->threads; }
KV_DEVICE size_t kv_grid_dim_x() { return kv_host::state.launch->grid[0]; }
KV_DEVICE size_t kv_grid_dim_y() { return kv_host::state.launch->grid[1]; }
KV_DEVICE size_t kv_grid_dim_z() { return kv_host::state.launch->grid[2]; }

//===----------------------------------------------------------------------===//
// Arithmetic and conversions
//===----------------------------------------------------------------------===//

KV_DEVICE float kv_bits_to_f32(kv_u32 v) {
  float r;
  memcpy(&r, &v, 4);
  return r;
}
KV_DEVICE kv_u32 kv_f32_to_bits(float v) {
  kv_u32 r;
  memcpy(&r, &v, 4);
  return r;
}

namespace kv_host {
namespace {

inline float flush(float v) { return __builtin_fabsf(v) < 0x1p-126f ? __builtin_copysignf(0.0f, v) : v; }

// Eight values at once, for the operands of an mma. GNU vectors: any instruction set will do.
typedef kv_u32 U32x8 __attribute__((vector_size(32)));
typedef kv_i32 I32x8 __attribute__((vector_size(32)));
typedef float F32x8 __attribute__((vector_size(32)));

/// fp16 bits to float, exactly; without branches, because raw codes in fp16 are subnormals.
inline void widenF16(const kv_u16 *in, float *out) {
  U32x8 h;
  for (int i = 0; i < 8; ++i)
    h[i] = in[i];
  U32x8 magnitude = h & 0x7fffu;
  F32x8 small = __builtin_convertvector((I32x8)magnitude, F32x8) * 0x1p-24f;
  U32x8 normal = (magnitude << 13) + (112u << 23);
  U32x8 special = (U32x8)(magnitude >= 0x7c00u) & (112u << 23); // Inf and NaN: exponent 255
  U32x8 isSmall = (U32x8)(magnitude < 0x400u);
  U32x8 r = ((U32x8)small & isSmall) | ((normal + special) & ~isSmall) | (h & 0x8000u) << 16;
  memcpy(out, &r, 32);
}

} // namespace
} // namespace kv_host

// Correctly rounded to within an ulp where the GPU's are approximations; the same flushing.
KV_DEVICE float kv_exp2(float v) { return kv_host::flush(__builtin_exp2f(kv_host::flush(v))); }
KV_DEVICE float kv_log2(float v) { return __builtin_log2f(kv_host::flush(v)); }
KV_DEVICE float kv_rcp(float v) { return kv_host::flush(1.0f / kv_host::flush(v)); }
KV_DEVICE float kv_max(float a, float b) { return a > b || b != b ? a : b; }
KV_DEVICE float kv_min(float a, float b) { return a < b || b != b ? a : b; }
KV_DEVICE float kv_abs(float v) { return __builtin_fabsf(v); }
KV_DEVICE float kv_sqrt(float v) { return __builtin_sqrtf(v); }
KV_DEVICE float kv_pow(float a, float b) { return __builtin_powf(a, b); }
KV_DEVICE float kv_div(float a, float b) { return a / b; }
KV_DEVICE float kv_mul(float a, float b) { return a * b; }
KV_DEVICE float kv_add(float a, float b) { return a + b; }
KV_DEVICE float kv_sub(float a, float b) { return a - b; }
KV_DEVICE float kv_fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
KV_DEVICE float kv_rint(float v) { return __builtin_rintf(v); }

KV_DEVICE float kv_i32_to_f32(kv_i32 v) { return float(v); }
KV_DEVICE float kv_u32_to_f32(kv_u32 v) { return float(v); }
KV_DEVICE kv_i32 kv_f32_to_i32_rn(float v) {
  if (v != v)
    return 0;
  if (v >= 0x1p31f)
    return 0x7fffffff;
  if (v <= -0x1p31f)
    return -0x7fffffff - 1;
  return kv_i32(__builtin_rintf(v));
}

KV_DEVICE float kv_f16_to_f32(kv_u16 v) {
  kv_u32 magnitude = v & 0x7fffu, sign = kv_u32(v & 0x8000u) << 16;
  if (magnitude < 0x400)
    return kv_bits_to_f32(kv_f32_to_bits(float(magnitude) * 0x1p-24f) | sign);
  return kv_bits_to_f32(((magnitude << 13) + ((magnitude >= 0x7c00 ? 224u : 112u) << 23)) | sign);
}
KV_DEVICE float kv_f16x2_lo_to_f32(kv_u32 v) { return kv_f16_to_f32(kv_u16(v)); }
KV_DEVICE float kv_f16x2_hi_to_f32(kv_u32 v) { return kv_f16_to_f32(kv_u16(v >> 16)); }
KV_DEVICE float kv_bf16_to_f32(kv_u16 v) { return kv_bits_to_f32(kv_u32(v) << 16); }
KV_DEVICE kv_u16 kv_f32_to_f16(float v) {
  kv_u32 u = kv_f32_to_bits(v), sign = u >> 16 & 0x8000u;
  u &= 0x7fffffffu;
  if (u > 0x7f800000u)
    return 0x7fff;
  if (u >= 0x477ff000u) // 65520 is halfway between the largest number and 2^16: even is infinity
    return kv_u16(sign | 0x7c00u);
  if (u >= 0x38800000u) // 2^-14, the smallest normal
    return kv_u16(sign | ((u - (112u << 23) + 0xfffu + (u >> 13 & 1)) >> 13));
  // Adding 1/2 puts the units of 2^-24 in the last bit of the sum, which rounds to nearest even.
  return kv_u16(sign | (kv_f32_to_bits(kv_bits_to_f32(u) + 0.5f) - 0x3f000000u));
}
KV_DEVICE kv_u16 kv_f32_to_bf16(float v) {
  kv_u32 u = kv_f32_to_bits(v);
  if ((u & 0x7fffffffu) > 0x7f800000u)
    return 0x7fff;
  return kv_u16((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}
KV_DEVICE kv_u32 kv_f32x2_to_f16x2(float lo, float hi) { return kv_f32_to_f16(lo) | kv_u32(kv_f32_to_f16(hi)) << 16; }
KV_DEVICE kv_u32 kv_f32x2_to_bf16x2(float lo, float hi) {
  return kv_f32_to_bf16(lo) | kv_u32(kv_f32_to_bf16(hi)) << 16;
}

// Products of fp16 are exact in float, and a sum rounded to 24 bits rounds to 11 as if it had been
// exact (24 >= 2 * 11 + 2).
KV_DEVICE kv_u32 kv_add_f16x2(kv_u32 a, kv_u32 b) {
  return kv_f32x2_to_f16x2(kv_f16_to_f32(kv_u16(a)) + kv_f16_to_f32(kv_u16(b)),
                           kv_f16_to_f32(kv_u16(a >> 16)) + kv_f16_to_f32(kv_u16(b >> 16)));
}
KV_DEVICE kv_u32 kv_mul_f16x2(kv_u32 a, kv_u32 b) {
  return kv_f32x2_to_f16x2(kv_f16_to_f32(kv_u16(a)) * kv_f16_to_f32(kv_u16(b)),
                           kv_f16_to_f32(kv_u16(a >> 16)) * kv_f16_to_f32(kv_u16(b >> 16)));
}

namespace kv_host {
namespace {

/// A sum can lie next to a midpoint by less than a float shows: round it to odd on the way.
inline kv_u16 fmaF16(kv_u16 a, kv_u16 b, kv_u16 c) {
  double exact = double(kv_f16_to_f32(a)) * kv_f16_to_f32(b) + kv_f16_to_f32(c);
  float f = float(exact);
  if (f == f && double(f) != exact) {
    kv_u32 bits = kv_f32_to_bits(f);
    if (__builtin_fabs(double(f)) > __builtin_fabs(exact))
      --bits;
    f = kv_bits_to_f32(bits | 1);
  }
  return kv_f32_to_f16(f);
}

} // namespace
} // namespace kv_host

KV_DEVICE kv_u32 kv_fma_f16x2(kv_u32 a, kv_u32 b, kv_u32 c) {
  return kv_host::fmaF16(kv_u16(a), kv_u16(b), kv_u16(c)) |
         kv_u32(kv_host::fmaF16(kv_u16(a >> 16), kv_u16(b >> 16), kv_u16(c >> 16))) << 16;
}

KV_DEVICE kv_u32 kv_funnel_shift_r(kv_u32 lo, kv_u32 hi, kv_u32 n) {
  return kv_u32((kv_u64(hi) << 32 | lo) >> (n & 31));
}
KV_DEVICE kv_u32 kv_and_or(kv_u32 v, kv_u32 mask, kv_u32 bits) { return (v & mask) | bits; }

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

template <class T> KV_DEVICE T *kv_opaque_ptr(T *p) { return p; }
template <class T> KV_DEVICE T kv_opaque_word(T x) { return x; }

KV_DEVICE kv_u32x4 kv_ldg128(const void *p, KV_HOST_LINE) {
  kv_host::checkGlobal16(p, "kv_ldg128", line);
  kv_u32x4 r;
  memcpy(&r, p, 16);
  return r;
}
KV_DEVICE kv_u32x2 kv_ldg64_nc(const void *p) {
  kv_u32x2 r;
  memcpy(&r, p, 8);
  return r;
}
KV_DEVICE kv_u32 kv_ldg32_nc(const void *p) {
  kv_u32 r;
  memcpy(&r, p, 4);
  return r;
}
KV_DEVICE kv_u32x4 kv_ldg128_nc(const void *p, KV_HOST_LINE) {
  kv_host::checkGlobal16(p, "kv_ldg128_nc", line);
  kv_u32x4 r;
  memcpy(&r, p, 16);
  return r;
}
KV_DEVICE void kv_stg128(void *p, kv_u32x4 v, KV_HOST_LINE) {
  kv_host::checkGlobal16(p, "kv_stg128", line);
  memcpy(p, &v, 16);
}

KV_DEVICE kv_i8 *kv_dynamic_shared() { return reinterpret_cast<kv_i8 *>(kv_host::state.dynamicShared); }
KV_DEVICE kv_smem_ptr kv_smem_of(const void *p) { return static_cast<kv_smem_ptr>(const_cast<void *>(p)); }

namespace kv_host {
namespace {

template <class T> inline T loadShared(kv_smem_ptr p, const char *what, kv_u32 line) {
  checkShared(p, sizeof(T), what, line);
  KV_RACES(access(p, sizeof(T), /*isWrite=*/false));
  T r;
  memcpy(&r, p, sizeof(T));
  return r;
}
template <class T> inline void storeShared(kv_smem_ptr p, T v, const char *what, kv_u32 line) {
  checkShared(p, sizeof(T), what, line);
  KV_RACES(access(p, sizeof(T), /*isWrite=*/true));
  memcpy(p, &v, sizeof(T));
}

} // namespace
} // namespace kv_host

KV_DEVICE kv_u32 kv_lds32(kv_smem_ptr p, KV_HOST_LINE) { return kv_host::loadShared<kv_u32>(p, "kv_lds32", line); }
KV_DEVICE kv_u32x2 kv_lds64(kv_smem_ptr p, KV_HOST_LINE) { return kv_host::loadShared<kv_u32x2>(p, "kv_lds64", line); }
KV_DEVICE kv_u32x4 kv_lds128(kv_smem_ptr p, KV_HOST_LINE) {
  return kv_host::loadShared<kv_u32x4>(p, "kv_lds128", line);
}
KV_DEVICE void kv_sts32(kv_smem_ptr p, kv_u32 v, KV_HOST_LINE) { kv_host::storeShared(p, v, "kv_sts32", line); }
KV_DEVICE void kv_sts128(kv_smem_ptr p, kv_u32x4 v, KV_HOST_LINE) { kv_host::storeShared(p, v, "kv_sts128", line); }

KV_DEVICE void kv_cp_async16(kv_smem_ptr dst, const void *src, KV_HOST_LINE) {
  kv_host::checkShared(dst, 16, "kv_cp_async16", line);
  kv_host::checkGlobal16(src, "kv_cp_async16", line);
  kv_host::copyAsync(dst, src);
}
KV_DEVICE void kv_cp_async_commit() { ++kv_host::state.current->copyGroup; }
template <int Bytes> KV_DEVICE void kv_prefetch(const void *src, kv_i32, KV_HOST_LINE) {
  kv_host::checkGlobal16(src, "kv_prefetch", line);
}
template <int N> KV_DEVICE void kv_cp_async_wait_group() { kv_host::waitCopies(N); }

//===----------------------------------------------------------------------===//
// Collectives: what the last lane to arrive does for all
//===----------------------------------------------------------------------===//

namespace kv_host {
namespace {

struct ShuffleOperands {
  kv_u32 value;
  int source; ///< A lane or a mask.
  kv_u32 result;
};
template <bool Xor> inline void runShuffle(void *const *operands) {
  for (int i = 0; i < 32; ++i) {
    auto &mine = *static_cast<ShuffleOperands *>(operands[i]);
    int from = (Xor ? i ^ mine.source : mine.source) & 31;
    mine.result = static_cast<const ShuffleOperands *>(operands[from])->value;
  }
}
inline void runAny(void *const *operands) {
  bool any = false;
  for (int i = 0; i < 32; ++i)
    any |= *static_cast<bool *>(operands[i]);
  for (int i = 0; i < 32; ++i)
    *static_cast<bool *>(operands[i]) = any;
}

struct MatrixOperands {
  const unsigned char *row;
  kv_u32 line;
  kv_u32 result[4];
};
template <int Matrices, bool Transposed> inline void runLdmatrix(void *const *operands) {
  for (int m = 0; m < Matrices; ++m) {
    kv_u16 values[8][8];
    for (int r = 0; r < 8; ++r) {
      auto &o = *static_cast<const MatrixOperands *>(operands[8 * m + r]);
      checkShared(o.row, 16, "a row of kv_ldmatrix", o.line);
      memcpy(values[r], o.row, 16);
    }
    for (int lane = 0; lane < 32; ++lane) {
      int gid = lane / 4, k = lane % 4 * 2;
      kv_u16 lo = Transposed ? values[k][gid] : values[gid][k];
      kv_u16 hi = Transposed ? values[k + 1][gid] : values[gid][k + 1];
      static_cast<MatrixOperands *>(operands[lane])->result[m] = lo | kv_u32(hi) << 16;
    }
  }
}
inline void runMovmatrix(void *const *operands) {
  kv_u16 values[8][8];
  for (int lane = 0; lane < 32; ++lane)
    memcpy(&values[lane / 4][lane % 4 * 2], operands[lane], 4);
  for (int lane = 0; lane < 32; ++lane) {
    int gid = lane / 4, k = lane % 4 * 2;
    *static_cast<kv_u32 *>(operands[lane]) = values[k][gid] | kv_u32(values[k + 1][gid]) << 16;
  }
}

struct MmaOperands {
  kv_u32x4 a;
  kv_u32x2 b;
  kv_f32x4 d; ///< C, then D.
};
inline void widenBF16(const kv_u16 *in, float *out) {
  for (int i = 0; i < 8; ++i) {
    kv_u32 bits = kv_u32(in[i]) << 16;
    memcpy(&out[i], &bits, 4);
  }
}
/// Products are exact in double (2 * 11 bits, 2 * 8 bits); the sum runs in the order of k and is
/// rounded to float once. Tensor cores cut addends to about 25 bits instead.
template <void (*Widen)(const kv_u16 *, float *)> inline void runMma(void *const *operands) {
  // Half a row of D at a time: g++ keeps vectors wider than a register in memory.
  typedef double Half __attribute__((vector_size(32)));
  kv_u16 bitsA[16][16], bitsB[16][8];
  float c[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    auto &o = *static_cast<const MmaOperands *>(operands[lane]);
    int gid = lane / 4, k = lane % 4 * 2;
    memcpy(&bitsA[gid][k], &o.a.x, 4);
    memcpy(&bitsA[gid + 8][k], &o.a.y, 4);
    memcpy(&bitsA[gid][k + 8], &o.a.z, 4);
    memcpy(&bitsA[gid + 8][k + 8], &o.a.w, 4);
    bitsB[k][gid] = kv_u16(o.b.x), bitsB[k + 1][gid] = kv_u16(o.b.x >> 16);
    bitsB[k + 8][gid] = kv_u16(o.b.y), bitsB[k + 9][gid] = kv_u16(o.b.y >> 16);
    memcpy(&c[gid][k], &o.d.x, 8);
    memcpy(&c[gid + 8][k], &o.d.z, 8);
  }
  float a[16][16], b[16][8];
  for (int k = 0; k < 16; ++k) {
    Widen(bitsA[k], a[k]);
    Widen(bitsA[k] + 8, a[k] + 8);
    Widen(bitsB[k], b[k]);
  }
  for (int n = 0; n < 8; n += 4) {
    Half columns[16];
    for (int k = 0; k < 16; ++k)
      columns[k] = Half{b[k][n], b[k][n + 1], b[k][n + 2], b[k][n + 3]};
    for (int m = 0; m < 16; ++m) {
      Half sum = {c[m][n], c[m][n + 1], c[m][n + 2], c[m][n + 3]};
      for (int k = 0; k < 16; ++k)
        sum += double(a[m][k]) * columns[k];
      for (int i = 0; i < 4; ++i)
        c[m][n + i] = float(sum[i]);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    auto &d = static_cast<MmaOperands *>(operands[lane])->d;
    int gid = lane / 4, n = lane % 4 * 2;
    d = {c[gid][n], c[gid][n + 1], c[gid + 8][n], c[gid + 8][n + 1]};
  }
}

struct IntMmaOperands {
  kv_u32x4 a;
  kv_u32x2 b;
  kv_i32x4 d; ///< C, then D.
};
template <class A, class B> inline void runIntMma(void *const *operands) {
  A a[16][32];
  B b[8][32]; // by column
  for (int lane = 0; lane < 32; ++lane) {
    auto &o = *static_cast<const IntMmaOperands *>(operands[lane]);
    int gid = lane / 4, k = lane % 4 * 4;
    memcpy(&a[gid][k], &o.a.x, 4);
    memcpy(&a[gid + 8][k], &o.a.y, 4);
    memcpy(&a[gid][k + 16], &o.a.z, 4);
    memcpy(&a[gid + 8][k + 16], &o.a.w, 4);
    memcpy(&b[gid][k], &o.b.x, 4);
    memcpy(&b[gid][k + 16], &o.b.y, 4);
  }
  auto dot = [&](int row, int column, kv_i32 c) {
    kv_u32 sum = kv_u32(c); // wraps like the device
    for (int k = 0; k < 32; ++k)
      sum += kv_u32(int(a[row][k]) * int(b[column][k]));
    return kv_i32(sum);
  };
  for (int lane = 0; lane < 32; ++lane) {
    auto &d = static_cast<IntMmaOperands *>(operands[lane])->d;
    int gid = lane / 4, n = lane % 4 * 2;
    d = {dot(gid, n, d.x), dot(gid, n + 1, d.y), dot(gid + 8, n, d.z), dot(gid + 8, n + 1, d.w)};
  }
}

const Collective syncwarp = {"kv_syncwarp", nullptr, false};
const Collective shflXor = {"kv_shfl_xor", runShuffle<true>, true};
const Collective shflIdx = {"kv_shfl_idx", runShuffle<false>, true};
const Collective any = {"kv_any", runAny, true};
template <int Matrices, bool Transposed>
const Collective ldmatrix = {Transposed ? "kv_ldmatrix_trans" : "kv_ldmatrix", runLdmatrix<Matrices, Transposed>, true};
const Collective movmatrix = {"kv_movmatrix_trans", runMovmatrix, true};
const Collective mmaF16 = {"kv_mma_m16n8k16_f16", runMma<widenF16>, true};
const Collective mmaBF16 = {"kv_mma_m16n8k16_bf16", runMma<widenBF16>, true};
template <class A, class B> const Collective mmaInt = {"kv_mma_m16n8k32", runIntMma<A, B>, true};

inline kv_u32 shuffle(const Collective &c, kv_u32 value, int source, kv_u32 line) {
  ShuffleOperands o = {value, source, 0};
  collective(c, &o, line);
  return o.result;
}
template <int Matrices, bool Transposed> inline MatrixOperands loadMatrix(kv_smem_ptr row, kv_u32 line) {
  MatrixOperands o = {row, line, {}};
  if (kv_host::state.current->tid % 32 < 8 * Matrices) // the lanes whose addresses count
    KV_RACES(access(row, 16, /*isWrite=*/false));
  collective(ldmatrix<Matrices, Transposed>, &o, line);
  return o;
}
inline kv_f32x4 mma(const Collective &c, kv_u32x4 a, kv_u32x2 b, kv_f32x4 d, kv_u32 line) {
  MmaOperands o = {a, b, d};
  collective(c, &o, line);
  return o.d;
}
inline kv_i32x4 mma(const Collective &c, kv_u32x4 a, kv_u32x2 b, kv_i32x4 d, kv_u32 line) {
  IntMmaOperands o = {a, b, d};
  collective(c, &o, line);
  return o.d;
}

} // namespace
} // namespace kv_host

KV_DEVICE void kv_barrier(KV_HOST_LINE) { kv_host::collective(kv_host::ctaBarrier, nullptr, line); }
// Launches run one after the other, and so do CTAs of a grid, in one thread.
KV_DEVICE void kv_grid_wait() {}
KV_DEVICE void kv_grid_launch() {}
KV_DEVICE bool kv_arrive(void *counters, int32_t at, int32_t count, KV_HOST_LINE) {
  static thread_local bool last;
  kv_barrier(line);
  if (kv_thread_id_x() == 0) {
    kv_u32 &arrived = static_cast<kv_u32 *>(counters)[at];
    last = ++arrived == kv_u32(count);
    if (last)
      arrived = 0;
  }
  kv_barrier(line);
  return last;
}
KV_DEVICE void kv_syncwarp(KV_HOST_LINE) { kv_host::collective(kv_host::syncwarp, nullptr, line); }
KV_DEVICE float kv_shfl_xor_f32(float v, int mask, KV_HOST_LINE) {
  return kv_bits_to_f32(kv_host::shuffle(kv_host::shflXor, kv_f32_to_bits(v), mask, line));
}
KV_DEVICE kv_u32 kv_shfl_xor_u32(kv_u32 v, int mask, KV_HOST_LINE) {
  return kv_host::shuffle(kv_host::shflXor, v, mask, line);
}
KV_DEVICE float kv_shfl_idx_f32(float v, int lane, KV_HOST_LINE) {
  return kv_bits_to_f32(kv_host::shuffle(kv_host::shflIdx, kv_f32_to_bits(v), lane, line));
}
KV_DEVICE kv_u32 kv_shfl_idx_u32(kv_u32 v, int lane, KV_HOST_LINE) {
  return kv_host::shuffle(kv_host::shflIdx, v, lane, line);
}
KV_DEVICE bool kv_any(bool v, KV_HOST_LINE) {
  kv_host::collective(kv_host::any, &v, line);
  return v;
}

KV_DEVICE kv_u32 kv_ldmatrix_x1(kv_smem_ptr p, KV_HOST_LINE) {
  return kv_host::loadMatrix<1, false>(p, line).result[0];
}
KV_DEVICE kv_u32x2 kv_ldmatrix_x2(kv_smem_ptr p, KV_HOST_LINE) {
  kv_host::MatrixOperands o = kv_host::loadMatrix<2, false>(p, line);
  return {o.result[0], o.result[1]};
}
KV_DEVICE kv_u32x4 kv_ldmatrix_x4(kv_smem_ptr p, KV_HOST_LINE) {
  kv_host::MatrixOperands o = kv_host::loadMatrix<4, false>(p, line);
  return {o.result[0], o.result[1], o.result[2], o.result[3]};
}
KV_DEVICE kv_u32 kv_ldmatrix_x1_trans(kv_smem_ptr p, KV_HOST_LINE) {
  return kv_host::loadMatrix<1, true>(p, line).result[0];
}
KV_DEVICE kv_u32x2 kv_ldmatrix_x2_trans(kv_smem_ptr p, KV_HOST_LINE) {
  kv_host::MatrixOperands o = kv_host::loadMatrix<2, true>(p, line);
  return {o.result[0], o.result[1]};
}
KV_DEVICE kv_u32x4 kv_ldmatrix_x4_trans(kv_smem_ptr p, KV_HOST_LINE) {
  kv_host::MatrixOperands o = kv_host::loadMatrix<4, true>(p, line);
  return {o.result[0], o.result[1], o.result[2], o.result[3]};
}
KV_DEVICE kv_u32 kv_movmatrix_trans(kv_u32 v, KV_HOST_LINE) {
  kv_host::collective(kv_host::movmatrix, &v, line);
  return v;
}

KV_DEVICE kv_f32x4 kv_mma_m16n8k16_f16(kv_u32x4 a, kv_u32x2 b, kv_f32x4 c, KV_HOST_LINE) {
  return kv_host::mma(kv_host::mmaF16, a, b, c, line);
}
KV_DEVICE kv_f32x4 kv_mma_m16n8k16_bf16(kv_u32x4 a, kv_u32x2 b, kv_f32x4 c, KV_HOST_LINE) {
  return kv_host::mma(kv_host::mmaBF16, a, b, c, line);
}
KV_DEVICE kv_i32x4 kv_mma_m16n8k32_s8s8(kv_u32x4 a, kv_u32x2 b, kv_i32x4 c, KV_HOST_LINE) {
  return kv_host::mma(kv_host::mmaInt<kv_i8, kv_i8>, a, b, c, line);
}
KV_DEVICE kv_i32x4 kv_mma_m16n8k32_s8u8(kv_u32x4 a, kv_u32x2 b, kv_i32x4 c, KV_HOST_LINE) {
  return kv_host::mma(kv_host::mmaInt<kv_i8, kv_u8>, a, b, c, line);
}
KV_DEVICE kv_i32x4 kv_mma_m16n8k32_u8s8(kv_u32x4 a, kv_u32x2 b, kv_i32x4 c, KV_HOST_LINE) {
  return kv_host::mma(kv_host::mmaInt<kv_u8, kv_i8>, a, b, c, line);
}
KV_DEVICE kv_i32x4 kv_mma_m16n8k32_u8u8(kv_u32x4 a, kv_u32x2 b, kv_i32x4 c, KV_HOST_LINE) {
  return kv_host::mma(kv_host::mmaInt<kv_u8, kv_u8>, a, b, c, line);
}

// The same on arrays of registers: `d` is overwritten by ldmatrix and accumulated in place by mma.
KV_DEVICE void kv_ldmatrix_x2(kv_u32 *d, kv_smem_ptr p, KV_HOST_LINE) {
  const kv_u32x2 r = kv_ldmatrix_x2(p, line);
  d[0] = r.x, d[1] = r.y;
}
KV_DEVICE void kv_ldmatrix_x4(kv_u32 *d, kv_smem_ptr p, KV_HOST_LINE) {
  const kv_u32x4 r = kv_ldmatrix_x4(p, line);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}
KV_DEVICE void kv_ldmatrix_x2_trans(kv_u32 *d, kv_smem_ptr p, KV_HOST_LINE) {
  const kv_u32x2 r = kv_ldmatrix_x2_trans(p, line);
  d[0] = r.x, d[1] = r.y;
}
KV_DEVICE void kv_ldmatrix_x4_trans(kv_u32 *d, kv_smem_ptr p, KV_HOST_LINE) {
  const kv_u32x4 r = kv_ldmatrix_x4_trans(p, line);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}
KV_DEVICE void kv_mma_m16n8k16_f16(float *d, const kv_u32 *a, const kv_u32 *b, KV_HOST_LINE) {
  const kv_f32x4 c = {d[0], d[1], d[2], d[3]};
  const kv_f32x4 r = kv_mma_m16n8k16_f16({a[0], a[1], a[2], a[3]}, {b[0], b[1]}, c, line);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}
KV_DEVICE void kv_mma_m16n8k16_bf16(float *d, const kv_u32 *a, const kv_u32 *b, KV_HOST_LINE) {
  const kv_f32x4 c = {d[0], d[1], d[2], d[3]};
  const kv_f32x4 r = kv_mma_m16n8k16_bf16({a[0], a[1], a[2], a[3]}, {b[0], b[1]}, c, line);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}
KV_DEVICE void kv_mma_m16n8k32_s8s8(kv_i32 *d, const kv_u32 *a, const kv_u32 *b, KV_HOST_LINE) {
  const kv_i32x4 c = {d[0], d[1], d[2], d[3]};
  const kv_i32x4 r = kv_mma_m16n8k32_s8s8({a[0], a[1], a[2], a[3]}, {b[0], b[1]}, c, line);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}
KV_DEVICE void kv_mma_m16n8k32_s8u8(kv_i32 *d, const kv_u32 *a, const kv_u32 *b, KV_HOST_LINE) {
  const kv_i32x4 c = {d[0], d[1], d[2], d[3]};
  const kv_i32x4 r = kv_mma_m16n8k32_s8u8({a[0], a[1], a[2], a[3]}, {b[0], b[1]}, c, line);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}
KV_DEVICE void kv_mma_m16n8k32_u8s8(kv_i32 *d, const kv_u32 *a, const kv_u32 *b, KV_HOST_LINE) {
  const kv_i32x4 c = {d[0], d[1], d[2], d[3]};
  const kv_i32x4 r = kv_mma_m16n8k32_u8s8({a[0], a[1], a[2], a[3]}, {b[0], b[1]}, c, line);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}
KV_DEVICE void kv_mma_m16n8k32_u8u8(kv_i32 *d, const kv_u32 *a, const kv_u32 *b, KV_HOST_LINE) {
  const kv_i32x4 c = {d[0], d[1], d[2], d[3]};
  const kv_i32x4 r = kv_mma_m16n8k32_u8u8({a[0], a[1], a[2], a[3]}, {b[0], b[1]}, c, line);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}

#undef KV_HOST_LINE

#endif // KVCC_CODEGEN_CUDA_PRELUDE_HOST_H
