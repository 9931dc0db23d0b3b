// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Device prelude: every name that emitted kernels may use, as header-free CUDA for sm_75 and newer.
// It is put in front of the emitted text and compiled by NVRTC. host.h defines the same names for
// execution without a GPU; a test compares the two lists, so add to both (one KV_DEVICE line each).

//===----------------------------------------------------------------------===//
// Types and qualifiers
//===----------------------------------------------------------------------===//

typedef unsigned char kv_u8;
typedef unsigned short kv_u16;
typedef unsigned int kv_u32;
typedef unsigned long kv_u64;
typedef signed char kv_i8;
typedef short kv_i16;
typedef int kv_i32;
typedef long kv_i64;
static_assert(sizeof(kv_u64) == 8 && sizeof(size_t) == 8, "kernels are 64-bit only");

// The spellings that EmitC prints.
typedef kv_i8 int8_t;
typedef kv_i16 int16_t;
typedef kv_i32 int32_t;
typedef kv_i64 int64_t;
typedef kv_u8 uint8_t;
typedef kv_u16 uint16_t;
typedef kv_u32 uint32_t;
typedef kv_u64 uint64_t;

// Register fragments. The alignment makes a load or store through them one instruction.
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

// A shared-memory address; arithmetic on it counts bytes. 32-bit shared addresses cost fewer
// registers and instructions than generic pointers.
typedef kv_u32 kv_smem_ptr;

// Threads of a block and, optional, blocks that fit a multiprocessor, which bounds the registers. Without
// the second ptxas aims at more blocks and spills for them.
#define KV_KERNEL(...) extern "C" __global__ __launch_bounds__(__VA_ARGS__)
#define KV_DEVICE __device__ __forceinline__
#define KV_SHARED __shared__ __align__(16)
// Declares `type *name`, the launch's dynamic shared memory. One declaration per kernel.
#define KV_SHARED_DYNAMIC(type, name)                                                                                  \
  extern __shared__ __align__(16) unsigned char kv_shared_dynamic[];                                                   \
  type *const name = reinterpret_cast<type *>(kv_shared_dynamic)
#define KV_UNROLL _Pragma("unroll")
#define KV_PRAGMA(x) _Pragma(#x)
#define KV_UNROLL_BY(n) KV_PRAGMA(unroll n)
#define KV_NOUNROLL _Pragma("unroll 1")
#define KV_RESTRICT __restrict__

// What EmitC prints for the float constants that are not finite.
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef NAN
#define NAN __int_as_float(0x7fffffff)
#endif

KV_DEVICE kv_u32x2 kv_make_u32x2(kv_u32 x, kv_u32 y) { return kv_u32x2{x, y}; }
KV_DEVICE kv_u32x4 kv_make_u32x4(kv_u32 x, kv_u32 y, kv_u32 z, kv_u32 w) { return kv_u32x4{x, y, z, w}; }
KV_DEVICE kv_i32x4 kv_make_i32x4(kv_i32 x, kv_i32 y, kv_i32 z, kv_i32 w) { return kv_i32x4{x, y, z, w}; }
KV_DEVICE kv_f32x4 kv_make_f32x4(float x, float y, float z, float w) { return kv_f32x4{x, y, z, w}; }
// Element I of a fragment.
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
// Indices, barriers, warp collectives
//===----------------------------------------------------------------------===//

KV_DEVICE size_t kv_thread_id_x() { return threadIdx.x; }
KV_DEVICE size_t kv_block_id_x() { return blockIdx.x; }
KV_DEVICE size_t kv_block_id_y() { return blockIdx.y; }
KV_DEVICE size_t kv_block_id_z() { return blockIdx.z; }
KV_DEVICE size_t kv_block_dim_x() { return blockDim.x; }
KV_DEVICE size_t kv_grid_dim_x() { return gridDim.x; }
KV_DEVICE size_t kv_grid_dim_y() { return gridDim.y; }
KV_DEVICE size_t kv_grid_dim_z() { return gridDim.z; }

KV_DEVICE void kv_barrier() { __syncthreads(); }
KV_DEVICE void kv_syncwarp() { __syncwarp(); }
KV_DEVICE float kv_shfl_xor_f32(float v, int mask) { return __shfl_xor_sync(~0u, v, mask); }
KV_DEVICE kv_u32 kv_shfl_xor_u32(kv_u32 v, int mask) { return __shfl_xor_sync(~0u, v, mask); }
KV_DEVICE float kv_shfl_idx_f32(float v, int lane) { return __shfl_sync(~0u, v, lane); }
KV_DEVICE kv_u32 kv_shfl_idx_u32(kv_u32 v, int lane) { return __shfl_sync(~0u, v, lane); }
KV_DEVICE bool kv_any(bool v) { return __any_sync(~0u, v); }

// Waits for the kernels before this one in the stream, and for what they have written: a launch may begin before they
// end. `kv_grid_launch` lets the next one begin once all blocks have called it; what is written later is still waited
// for. It comes after the wait, so that those before this kernel have ended: the next one waits for this one alone.
KV_DEVICE void kv_grid_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
KV_DEVICE void kv_grid_launch() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Whether this CTA is the last of `count` that arrive at a counter, which is zero again then. All threads call it, and
// what the threads of the others stored before is seen after it: with the barriers, the atomic of one thread publishes
// what all of its CTA have stored, and shows what those of the others have (as in grid synchronization of cooperative
// groups).
KV_DEVICE bool kv_arrive(void *counters, int32_t at, int32_t count) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    kv_u32 before;
    asm volatile("atom.acq_rel.gpu.inc.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(static_cast<kv_u32 *>(counters) + at), "r"(count - 1)
                 : "memory");
    last = before == kv_u32(count - 1);
  }
  __syncthreads();
  return last;
}

//===----------------------------------------------------------------------===//
// Arithmetic and conversions
//===----------------------------------------------------------------------===//

// ex2.approx.ftz: relative error up to 2^-22, subnormal operands and results are zero.
KV_DEVICE float kv_exp2(float v) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}
// lg2.approx.ftz: absolute error up to 2^-22 in [0.5, 2], a subnormal operand counts as zero.
KV_DEVICE float kv_log2(float v) {
  float r;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}
// rcp.approx.ftz: error up to one unit in the last place; the reciprocal of infinity is zero.
KV_DEVICE float kv_rcp(float v) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}
// kv_max and kv_min return the other operand if one is NaN.
KV_DEVICE float kv_max(float a, float b) { return fmaxf(a, b); }
KV_DEVICE float kv_min(float a, float b) { return fminf(a, b); }
KV_DEVICE float kv_abs(float v) { return fabsf(v); }
KV_DEVICE float kv_sqrt(float v) { return __fsqrt_rn(v); }
KV_DEVICE float kv_pow(float a, float b) { return powf(a, b); }
// The quotient, correctly rounded whatever the compiler's options say.
KV_DEVICE float kv_div(float a, float b) { return __fdiv_rn(a, b); }
// a * b, a + b and a - b that the compiler may not contract into one rounding.
KV_DEVICE float kv_mul(float a, float b) { return __fmul_rn(a, b); }
KV_DEVICE float kv_add(float a, float b) { return __fadd_rn(a, b); }
KV_DEVICE float kv_sub(float a, float b) { return __fsub_rn(a, b); }
KV_DEVICE float kv_fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
// To the nearest integer, ties to even.
KV_DEVICE float kv_rint(float v) { return rintf(v); }

KV_DEVICE float kv_bits_to_f32(kv_u32 v) { return __uint_as_float(v); }
KV_DEVICE kv_u32 kv_f32_to_bits(float v) { return __float_as_uint(v); }
KV_DEVICE float kv_i32_to_f32(kv_i32 v) { return __int2float_rn(v); }
KV_DEVICE float kv_u32_to_f32(kv_u32 v) { return __uint2float_rn(v); }
// To nearest even, saturating; NaN is 0.
KV_DEVICE kv_i32 kv_f32_to_i32_rn(float v) { return __float2int_rn(v); }

KV_DEVICE float kv_f16_to_f32(kv_u16 v) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(v));
  return r;
}
// Either half of a word.
KV_DEVICE float kv_f16x2_lo_to_f32(kv_u32 v) {
  float r;
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l; }" : "=f"(r) : "r"(v));
  return r;
}
KV_DEVICE float kv_f16x2_hi_to_f32(kv_u32 v) {
  float r;
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h; }" : "=f"(r) : "r"(v));
  return r;
}
KV_DEVICE float kv_bf16_to_f32(kv_u16 v) { return __uint_as_float(kv_u32(v) << 16); }
// To nearest even; overflow is infinity, NaN is 0x7fff (as the hardware has it).
KV_DEVICE kv_u16 kv_f32_to_f16(float v) {
  kv_u16 r;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(v));
  return r;
}
KV_DEVICE kv_u16 kv_f32_to_bf16(float v) {
#if __CUDA_ARCH__ >= 800
  kv_u16 r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(v));
  return r;
#else
  kv_u32 u = __float_as_uint(v);
  if ((u & 0x7fffffffu) > 0x7f800000u)
    return 0x7fff;
  return kv_u16((u + 0x7fffu + (u >> 16 & 1)) >> 16);
#endif
}
// Two conversions in one word, `lo` in the low half.
KV_DEVICE kv_u32 kv_f32x2_to_f16x2(float lo, float hi) {
#if __CUDA_ARCH__ >= 800
  kv_u32 r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
#else
  return kv_f32_to_f16(lo) | kv_u32(kv_f32_to_f16(hi)) << 16;
#endif
}
KV_DEVICE kv_u32 kv_f32x2_to_bf16x2(float lo, float hi) {
#if __CUDA_ARCH__ >= 800
  kv_u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
#else
  return kv_f32_to_bf16(lo) | kv_u32(kv_f32_to_bf16(hi)) << 16;
#endif
}

// fp16 arithmetic on both halves, one rounding each, subnormals kept.
KV_DEVICE kv_u32 kv_add_f16x2(kv_u32 a, kv_u32 b) {
  kv_u32 r;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
KV_DEVICE kv_u32 kv_mul_f16x2(kv_u32 a, kv_u32 b) {
  kv_u32 r;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
KV_DEVICE kv_u32 kv_fma_f16x2(kv_u32 a, kv_u32 b, kv_u32 c) {
  kv_u32 r;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
  return r;
}

// The low word of (hi:lo) >> (n mod 32).
KV_DEVICE kv_u32 kv_funnel_shift_r(kv_u32 lo, kv_u32 hi, kv_u32 n) { return __funnelshift_r(lo, hi, n); }
// (v & mask) | bits in one instruction; left to itself the compiler splits it in two when mask and
// bits are both constants.
KV_DEVICE kv_u32 kv_and_or(kv_u32 v, kv_u32 mask, kv_u32 bits) {
  kv_u32 r;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(r) : "r"(v), "r"(mask), "r"(bits));
  return r;
}

//===----------------------------------------------------------------------===//
// Memory. Addresses of 16-byte accesses must be multiples of 16.
//===----------------------------------------------------------------------===//

// Hide how a pointer, or a word, was computed, so that ptxas keeps it instead of recomputing it in a loop.
template <class T> KV_DEVICE T *kv_opaque_ptr(T *p) {
  asm volatile("" : "+l"(p));
  return p;
}
template <class T> KV_DEVICE T kv_opaque_word(T x) {
  asm volatile("" : "+r"(x));
  return x;
}

KV_DEVICE kv_u32x4 kv_ldg128(const void *p) { return *static_cast<const kv_u32x4 *>(p); }
// For memory that nothing writes after kv_grid_wait. Addresses come from what is loaded behind it.
KV_DEVICE kv_u32x4 kv_ldg128_nc(const void *p) {
  kv_u32x4 r;
  asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) : "l"(p));
  return r;
}
KV_DEVICE kv_u32x2 kv_ldg64_nc(const void *p) {
  kv_u32x2 r;
  asm("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(r.x), "=r"(r.y) : "l"(p));
  return r;
}
KV_DEVICE kv_u32 kv_ldg32_nc(const void *p) {
  kv_u32 r;
  asm("ld.global.nc.u32 %0, [%1];" : "=r"(r) : "l"(p));
  return r;
}
KV_DEVICE void kv_stg128(void *p, kv_u32x4 v) { *static_cast<kv_u32x4 *>(p) = v; }

// The launch's dynamic shared memory.
KV_DEVICE kv_i8 *kv_dynamic_shared() {
  extern __shared__ __align__(16) kv_i8 kv_dynamic_memory[];
  return kv_dynamic_memory;
}
KV_DEVICE kv_smem_ptr kv_smem_of(const void *p) { return kv_u32(__cvta_generic_to_shared(p)); }
// The memory clobbers order these with plain accesses to the same arrays.
KV_DEVICE kv_u32 kv_lds32(kv_smem_ptr p) {
  kv_u32 r;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(r) : "r"(p) : "memory");
  return r;
}
KV_DEVICE kv_u32x2 kv_lds64(kv_smem_ptr p) {
  kv_u32x2 r;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(r.x), "=r"(r.y) : "r"(p) : "memory");
  return r;
}
KV_DEVICE kv_u32x4 kv_lds128(kv_smem_ptr p) {
  kv_u32x4 r;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "r"(p)
               : "memory");
  return r;
}
KV_DEVICE void kv_sts32(kv_smem_ptr p, kv_u32 v) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(p), "r"(v) : "memory");
}
KV_DEVICE void kv_sts128(kv_smem_ptr p, kv_u32x4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

// Asynchronous copies of 16 bytes: a thread's copies up to each commit form a group; waiting leaves
// at most the N latest groups in flight, and orders nothing for other threads. Before sm_80 the
// copy is synchronous, which satisfies every wait.
KV_DEVICE void kv_cp_async16(kv_smem_ptr dst, const void *src) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(dst), "l"(src) : "memory");
#else
  kv_sts128(dst, kv_ldg128(src));
#endif
}
KV_DEVICE void kv_cp_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// A warp asks the L2 for bytes, a multiple of 16 at one.
template <int Bytes> KV_DEVICE void kv_prefetch(const void *src, kv_i32 lane) {
#if __CUDA_ARCH__ >= 900
  if (lane == 0)
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(src), "n"(Bytes));
#else
  for (kv_i32 at = 128 * lane; at < Bytes; at += 128 * 32)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<const kv_i8 *>(src) + at));
#endif
}
template <int N> KV_DEVICE void kv_cp_async_wait_group() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

//===----------------------------------------------------------------------===//
// Matrix fragments. lane = 4 * gid + tig.
//===----------------------------------------------------------------------===//

// ldmatrix: lane 8m + r gives the address of row r (8 halves) of matrix m. Word m of the result
// holds row gid, columns 2tig and 2tig + 1 of matrix m; with _trans the same of its transpose.
KV_DEVICE kv_u32 kv_ldmatrix_x1(kv_smem_ptr p) {
  kv_u32 r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(p) : "memory");
  return r;
}
KV_DEVICE kv_u32x2 kv_ldmatrix_x2(kv_smem_ptr p) {
  kv_u32x2 r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r.x), "=r"(r.y) : "r"(p) : "memory");
  return r;
}
KV_DEVICE kv_u32x4 kv_ldmatrix_x4(kv_smem_ptr p) {
  kv_u32x4 r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "r"(p)
               : "memory");
  return r;
}
KV_DEVICE kv_u32 kv_ldmatrix_x1_trans(kv_smem_ptr p) {
  kv_u32 r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(p) : "memory");
  return r;
}
KV_DEVICE kv_u32x2 kv_ldmatrix_x2_trans(kv_smem_ptr p) {
  kv_u32x2 r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r.x), "=r"(r.y)
               : "r"(p)
               : "memory");
  return r;
}
KV_DEVICE kv_u32x4 kv_ldmatrix_x4_trans(kv_smem_ptr p) {
  kv_u32x4 r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "r"(p)
               : "memory");
  return r;
}

// Transposes an 8x8 matrix of 16-bit elements; in and out: row gid, columns 2tig and 2tig + 1.
// Volatile, like every collective here: it must not move into a divergent branch.
KV_DEVICE kv_u32 kv_movmatrix_trans(kv_u32 v) {
  kv_u32 r;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(v));
  return r;
}

// mma m16n8k16: D[16x8] = A[16x16] * B[16x8] + C.
//   A: a.x row gid, k 2tig..; a.y row gid + 8; a.z row gid, k + 8; a.w row gid + 8, k + 8
//   B: b.x k 2tig.., column gid; b.y k + 8
//   C, D: x, y row gid, columns 2tig, 2tig + 1; z, w row gid + 8
KV_DEVICE kv_f32x4 kv_mma_m16n8k16_f16(kv_u32x4 a, kv_u32x2 b, kv_f32x4 c) {
  kv_f32x4 d;
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
               "{%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
               : "=f"(d.x), "=f"(d.y), "=f"(d.z), "=f"(d.w)
               : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y), "f"(c.x), "f"(c.y), "f"(c.z), "f"(c.w));
#else
  kv_f32x4 h;
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, "
               "{%6}, {%7, %8, %9, %10};"
               : "=f"(h.x), "=f"(h.y), "=f"(h.z), "=f"(h.w)
               : "r"(a.x), "r"(a.y), "r"(b.x), "f"(c.x), "f"(c.y), "f"(c.z), "f"(c.w));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, "
               "{%6}, {%7, %8, %9, %10};"
               : "=f"(d.x), "=f"(d.y), "=f"(d.z), "=f"(d.w)
               : "r"(a.z), "r"(a.w), "r"(b.y), "f"(h.x), "f"(h.y), "f"(h.z), "f"(h.w));
#endif
  return d;
}
KV_DEVICE kv_f32x4 kv_mma_m16n8k16_bf16(kv_u32x4 a, kv_u32x2 b, kv_f32x4 c) {
  kv_f32x4 d;
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
               "{%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
               : "=f"(d.x), "=f"(d.y), "=f"(d.z), "=f"(d.w)
               : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y), "f"(c.x), "f"(c.y), "f"(c.z), "f"(c.w));
#else
  // sm_75 has no bf16 MMA and fp16 lacks the range: fetch rows and columns by shuffle. Slow.
  d = c;
  const kv_u32 lane = threadIdx.x & 31, gid = lane >> 2, tig = lane & 3;
  KV_UNROLL
  for (kv_u32 t = 0; t < 4; ++t) {
    const kv_u32 rows[4] = {__shfl_sync(~0u, a.x, 4 * gid + t), __shfl_sync(~0u, a.y, 4 * gid + t),
                            __shfl_sync(~0u, a.z, 4 * gid + t), __shfl_sync(~0u, a.w, 4 * gid + t)};
    const kv_u32 cols[4] = {__shfl_sync(~0u, b.x, 8 * tig + t), __shfl_sync(~0u, b.x, 8 * tig + 4 + t),
                            __shfl_sync(~0u, b.y, 8 * tig + t), __shfl_sync(~0u, b.y, 8 * tig + 4 + t)};
    KV_UNROLL
    for (int k = 0; k < 2; ++k) {
      const kv_u32 lo = rows[2 * k], hi = rows[2 * k + 1];
      KV_UNROLL
      for (int n = 0; n < 2; ++n) {
        const kv_u32 v = cols[2 * k + n];
        float &top = n ? d.y : d.x, &bottom = n ? d.w : d.z;
        top = __fmaf_rn(kv_bf16_to_f32(lo), kv_bf16_to_f32(v), top);
        top = __fmaf_rn(kv_bf16_to_f32(lo >> 16), kv_bf16_to_f32(v >> 16), top);
        bottom = __fmaf_rn(kv_bf16_to_f32(hi), kv_bf16_to_f32(v), bottom);
        bottom = __fmaf_rn(kv_bf16_to_f32(hi >> 16), kv_bf16_to_f32(v >> 16), bottom);
      }
    }
  }
#endif
  return d;
}

// mma m16n8k32 on bytes, exact in 32 bits. A and B as above with four k per word: a.x row gid,
// k 4tig.., a.y row gid + 8, a.z and a.w k + 16; b.x k 4tig.., b.y k + 16. The names give the types
// of A and B. sm_75 has the 8x8x16 shape only: both row halves, both k halves.
#if __CUDA_ARCH__ >= 800
#define KV_MMA_M16N8K32(A, B)                                                                                          \
  kv_i32x4 d;                                                                                                          \
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32." #A "." #B ".s32 {%0, %1, %2, %3}, "                            \
               "{%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"                                                     \
               : "=r"(d.x), "=r"(d.y), "=r"(d.z), "=r"(d.w)                                                            \
               : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y), "r"(c.x), "r"(c.y), "r"(c.z), "r"(c.w));  \
  return d
#else
#define KV_MMA_M8N8K16(A, B, x, y, row, col)                                                                           \
  asm volatile("mma.sync.aligned.m8n8k16.row.col.s32." #A "." #B ".s32 {%0, %1}, {%2}, {%3}, "                         \
               "{%0, %1};"                                                                                             \
               : "+r"(x), "+r"(y)                                                                                      \
               : "r"(row), "r"(col))
#define KV_MMA_M16N8K32(A, B)                                                                                          \
  kv_i32x4 d = c;                                                                                                      \
  KV_MMA_M8N8K16(A, B, d.x, d.y, a.x, b.x);                                                                            \
  KV_MMA_M8N8K16(A, B, d.x, d.y, a.z, b.y);                                                                            \
  KV_MMA_M8N8K16(A, B, d.z, d.w, a.y, b.x);                                                                            \
  KV_MMA_M8N8K16(A, B, d.z, d.w, a.w, b.y);                                                                            \
  return d
#endif
KV_DEVICE kv_i32x4 kv_mma_m16n8k32_s8s8(kv_u32x4 a, kv_u32x2 b, kv_i32x4 c) { KV_MMA_M16N8K32(s8, s8); }
KV_DEVICE kv_i32x4 kv_mma_m16n8k32_s8u8(kv_u32x4 a, kv_u32x2 b, kv_i32x4 c) { KV_MMA_M16N8K32(s8, u8); }
KV_DEVICE kv_i32x4 kv_mma_m16n8k32_u8s8(kv_u32x4 a, kv_u32x2 b, kv_i32x4 c) { KV_MMA_M16N8K32(u8, s8); }
KV_DEVICE kv_i32x4 kv_mma_m16n8k32_u8u8(kv_u32x4 a, kv_u32x2 b, kv_i32x4 c) { KV_MMA_M16N8K32(u8, u8); }

// The same on arrays of registers: `d` is overwritten by ldmatrix and accumulated in place by mma.
KV_DEVICE void kv_ldmatrix_x2(kv_u32 *d, kv_smem_ptr p) {
  const kv_u32x2 r = kv_ldmatrix_x2(p);
  d[0] = r.x, d[1] = r.y;
}
KV_DEVICE void kv_ldmatrix_x4(kv_u32 *d, kv_smem_ptr p) {
  const kv_u32x4 r = kv_ldmatrix_x4(p);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}
KV_DEVICE void kv_ldmatrix_x2_trans(kv_u32 *d, kv_smem_ptr p) {
  const kv_u32x2 r = kv_ldmatrix_x2_trans(p);
  d[0] = r.x, d[1] = r.y;
}
KV_DEVICE void kv_ldmatrix_x4_trans(kv_u32 *d, kv_smem_ptr p) {
  const kv_u32x4 r = kv_ldmatrix_x4_trans(p);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}
KV_DEVICE void kv_mma_m16n8k16_f16(float *d, const kv_u32 *a, const kv_u32 *b) {
  const kv_f32x4 c = {d[0], d[1], d[2], d[3]};
  const kv_f32x4 r = kv_mma_m16n8k16_f16({a[0], a[1], a[2], a[3]}, {b[0], b[1]}, c);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}
KV_DEVICE void kv_mma_m16n8k16_bf16(float *d, const kv_u32 *a, const kv_u32 *b) {
  const kv_f32x4 c = {d[0], d[1], d[2], d[3]};
  const kv_f32x4 r = kv_mma_m16n8k16_bf16({a[0], a[1], a[2], a[3]}, {b[0], b[1]}, c);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}
KV_DEVICE void kv_mma_m16n8k32_s8s8(kv_i32 *d, const kv_u32 *a, const kv_u32 *b) {
  const kv_i32x4 c = {d[0], d[1], d[2], d[3]};
  const kv_i32x4 r = kv_mma_m16n8k32_s8s8({a[0], a[1], a[2], a[3]}, {b[0], b[1]}, c);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}
KV_DEVICE void kv_mma_m16n8k32_s8u8(kv_i32 *d, const kv_u32 *a, const kv_u32 *b) {
  const kv_i32x4 c = {d[0], d[1], d[2], d[3]};
  const kv_i32x4 r = kv_mma_m16n8k32_s8u8({a[0], a[1], a[2], a[3]}, {b[0], b[1]}, c);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}
KV_DEVICE void kv_mma_m16n8k32_u8s8(kv_i32 *d, const kv_u32 *a, const kv_u32 *b) {
  const kv_i32x4 c = {d[0], d[1], d[2], d[3]};
  const kv_i32x4 r = kv_mma_m16n8k32_u8s8({a[0], a[1], a[2], a[3]}, {b[0], b[1]}, c);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}
KV_DEVICE void kv_mma_m16n8k32_u8u8(kv_i32 *d, const kv_u32 *a, const kv_u32 *b) {
  const kv_i32x4 c = {d[0], d[1], d[2], d[3]};
  const kv_i32x4 r = kv_mma_m16n8k32_u8u8({a[0], a[1], a[2], a[3]}, {b[0], b[1]}, c);
  d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
}
