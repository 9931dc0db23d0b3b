// What kv-plan-schedule decides: arithmetic and packings by target, query heads by group, options.
// Without products of bytes nothing is rounded; where codes have more than three bits, or scales or norms are folded into
// what multiplies them, that is rounded to words; but not where the query is rotated, up to four bits. All CPU levels share
// one order of codes.
// GENERIC: compute = f32, key = <16x32, lanes = 64>, value = <16x32, lanes = 64>, floats = <16x1>, ahead = 2>
// WORDS: compute = int16, key = <16x32, lanes = 64>, value = <16x32, lanes = 64>, floats = <16x1>, ahead = 2>
// BYTES: compute = int8, key = <16x32, lanes = 64>, value = <16x32, lanes = 64>, floats = <16x1>, ahead = 2>
// RUN: split-file %s %t
// RUN: kvcc-opt %t/cpu.mlir -kv-plan-schedule | FileCheck %t/cpu.mlir
// RUN: kvcc-opt %t/cpu.mlir -kv-plan-schedule="compute=f32 page=64 accumulators=12" | FileCheck %t/cpu.mlir --check-prefix=OPTIONS
// RUN: kvcc-opt %t/cpu.mlir -kv-plan-schedule=compute=int16 | FileCheck %s --check-prefix=WORDS
// RUN: sed 's/<i2,/<i4,/' %t/cpu.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=WORDS
// RUN: sed 's/<i3,/<i4,/' %t/cpu.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=WORDS
// RUN: sed 's/group = 1x32/group = 1x64/' %t/cpu.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=WORDS
// RUN: sed 's/group = 1x32/group = 32x1/' %t/cpu.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=WORDS
// RUN: sed 's/group = 32x1/group = 1x32/' %t/cpu.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=WORDS
// RUN: sed 's/group = 32x1, scale = f16/&, transforms = [#kv.token_norm<f16>]/' %t/cpu.mlir | kvcc-opt -kv-plan-schedule \
// RUN:   | FileCheck %s --check-prefix=WORDS
// RUN: sed 's/<i3,/<i4,/; s/1x32, scale = f16/1x32, scale = f16, transforms = [#kv.diag<tensor>]/' %t/cpu.mlir \
// RUN:   | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=WORDS
// RUN: kvcc-opt %t/rotated.mlir -kv-plan-schedule | FileCheck %s --check-prefix=BYTES
// RUN: sed 's/<i3,/<i5,/' %t/rotated.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=WORDS
// RUN: sed 's/<i4,/<i5,/' %t/rotated.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=WORDS
// RUN: sed 's/sym, group = 1x64/asym, group = 1x64/' %t/rotated.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=WORDS
// RUN: sed 's/group = 1x64/group = 32x1/' %t/rotated.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=WORDS
// RUN: kvcc-opt %t/cpu.mlir -kv-plan-schedule=compute=int8 | FileCheck %s --check-prefix=BYTES
// Where bf16 is multiplied as fast as bytes, it is what scales fold into, and the query if it is bf16 as it is.
// RUN: sed 's/avx512_vnni/avx512_bf16/' %t/cpu.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=BYTES
// RUN: sed 's/avx512_vnni/avx512_bf16/' %t/fp4.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=BF16
// RUN: sed 's/avx512_vnni/avx512_bf16/; s/<i4,/<i8,/; s/<i3,/<i8,/' %t/rotated.mlir \
// RUN:   | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=WORDS
// RUN: sed 's/avx512_vnni/avx512_bf16/' %t/fp8.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=FP8-F16
// RUN: sed 's/avx512_vnni/avx512_bf16/; s/dtype = f16/dtype = bf16/; s/key = <f16>/key = <bf16>/; s/xf16>, /xbf16>, /' \
// RUN:   %t/fp8.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=FP8-BF16
// BF16: compute = bf16, key = <16x32, lanes = 64>
// FP8-F16: func.func @fp8_keys(
// FP8-F16: compute = f32
// FP8-F16: func.func @fp8_values(
// FP8-F16: compute = bf16
// FP8-BF16: func.func @fp8_keys(
// FP8-BF16: compute = bf16
// FP8-BF16: func.func @fp8_values(
// FP8-BF16: compute = bf16
// RUN: sed 's/avx512_vnni/avx512/' %t/cpu.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=BYTES
// RUN: sed 's/avx512_vnni/x86-64-v4/' %t/cpu.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=BYTES
// RUN: sed 's/avx512_vnni/avx_vnni/' %t/cpu.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=BYTES
// RUN: sed 's/avx512_vnni/avx2/' %t/cpu.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=BYTES
// RUN: sed 's/avx512_vnni/x86-64-v3/' %t/cpu.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=BYTES
// RUN: sed 's/avx512_vnni/neon_dotprod/' %t/cpu.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=BYTES
// RUN: sed 's/avx512_vnni/generic/' %t/cpu.mlir | kvcc-opt -kv-plan-schedule | FileCheck %s --check-prefix=GENERIC
// RUN: sed 's/avx512_vnni/generic/' %t/cpu.mlir | kvcc-opt -kv-plan-schedule=compute=int8 | FileCheck %s --check-prefix=BYTES
// RUN: kvcc-opt %t/heads.mlir -kv-plan-schedule=heads=2 | FileCheck %t/heads.mlir
// RUN: kvcc-opt %t/fp8.mlir -kv-plan-schedule | FileCheck %t/fp8.mlir
// RUN: kvcc-opt %t/writer.mlir -kv-plan-schedule | FileCheck %t/writer.mlir
// RUN: kvcc-opt %t/fp8.mlir -kv-plan-schedule=compute=f32 | FileCheck %t/fp8.mlir
// RUN: kvcc-opt %t/fp4.mlir -kv-plan-schedule | FileCheck %t/fp4.mlir
// RUN: kvcc-opt %t/fp4.mlir -kv-plan-schedule=compute=int8 | FileCheck %s --check-prefix=BYTES
// RUN: kvcc-opt %t/cuda-f16.mlir -kv-plan-schedule | FileCheck %t/cuda-f16.mlir
// RUN: kvcc-opt %t/cuda-f16.mlir -kv-plan-schedule=compute=f16 | FileCheck %t/cuda-f16.mlir
// RUN: kvcc-opt %t/cuda-f16.mlir -kv-plan-schedule=queries=3 | FileCheck %t/cuda-f16.mlir --check-prefix=QUERIES
// RUN: kvcc-opt %t/cuda-pipeline.mlir -kv-plan-schedule | FileCheck %t/cuda-pipeline.mlir
// RUN: sed 's/sm_90/sm_89/' %t/cuda-pipeline.mlir | kvcc-opt -kv-plan-schedule \
// RUN:   | FileCheck %t/cuda-pipeline.mlir --check-prefix=SMALLER
// RUN: kvcc-opt %t/cuda.mlir -kv-plan-schedule=compute=f32 | FileCheck %t/cuda.mlir
// RUN: kvcc-opt %t/cpu.mlir -kv-plan-schedule --remark-format=emitRemark --remarks-filter=kv-plan-schedule \
// RUN:   -o /dev/null 2>&1 | FileCheck %t/cpu.mlir --check-prefix=REMARK

//--- cpu.mlir
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                   key = <i3, map = sym, group = 1x32, scale = f16>,
                   value = <i2, map = sym, group = 32x1, scale = f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cpu, "avx512_vnni">} {
  // CHECK-LABEL: func.func @group_4(
  // CHECK:         schedule = #kv.schedule<heads = 4, page = 256, compute = int8, key = <16x32, lanes = 64>, value = <16x32, lanes = 64>, floats = <16x1>, ahead = 2>
  // OPTIONS-LABEL: func.func @group_4(
  // OPTIONS:         schedule = #kv.schedule<heads = 4, page = 64, compute = f32, key = <16x32, lanes = 64>, value = <16x32, lanes = 64>, floats = <16x1>, accumulators = 12, ahead = 2>
  // REMARK:        [[#@LINE+3]]:5: remark: [Passed] schedule | Category:kv-plan-schedule
  // REMARK-SAME:     4{{.*}} query heads share {{.*}}256{{.*}} tokens, {{.*}}int8 products
  func.func @group_4(%q: tensor<?x8x64xf16>, %cache: !cache) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }

  // A group that fits stays whole, also where it is odd.
  // CHECK-LABEL: func.func @group_7(
  // CHECK:         #kv.schedule<heads = 7,
  func.func @group_7(%q: tensor<?x14x64xf16>, %cache: !cache) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x14x64xf16>, !cache -> tensor<?x14x64xf32>, tensor<?x14xf32>
    return
  }

  // A larger group is cut evenly.
  // CHECK-LABEL: func.func @group_12(
  // CHECK:         #kv.schedule<heads = 6,
  func.func @group_12(%q: tensor<?x24x64xf16>, %cache: !cache) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x24x64xf16>, !cache -> tensor<?x24x64xf32>, tensor<?x24xf32>
    return
  }

  // CHECK-LABEL: func.func @group_16(
  // CHECK:         #kv.schedule<heads = 8,
  func.func @group_16(%q: tensor<?x32x64xf16>, %cache: !cache) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x32x64xf16>, !cache -> tensor<?x32x64xf32>, tensor<?x32xf32>
    return
  }

  // A prime above the limit has no even cut.
  // CHECK-LABEL: func.func @group_11(
  // CHECK:         #kv.schedule<heads = 1,
  func.func @group_11(%q: tensor<?x22x64xf16>, %cache: !cache) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x22x64xf16>, !cache -> tensor<?x22x64xf32>, tensor<?x22xf32>
    return
  }

  // A decision that is there stays, whatever the options.
  // CHECK-LABEL: func.func @decided(
  // CHECK:         schedule = #kv.schedule<heads = 2, page = 32, compute = f32, key = <32x4>, value = <32x4>, floats = <32x1>>
  // OPTIONS-LABEL: func.func @decided(
  // OPTIONS:         schedule = #kv.schedule<heads = 2, page = 32, compute = f32, key = <32x4>, value = <32x4>, floats = <32x1>>
  // REMARK-NOT:    [[#@LINE+2]]:5: remark
  func.func @decided(%q: tensor<?x8x64xf16>, %cache: !cache) {
    kv.attend %q, %cache {
        scale = 0.125, schedule = #kv.schedule<heads = 2, page = 32, compute = f32, key = <32x4>,
                                               value = <32x4>, floats = <32x1>>}
      : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- rotated.mlir
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                   key = <i3, map = sym, group = 1x64, scale = f16, transforms = [#kv.hadamard<64>]>,
                   value = <i4, map = sym, group = 1x32, scale = f16, transforms = [#kv.token_norm<f16>]>,
                   window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cpu, "avx512_vnni">} {
  func.func @rotated(%q: tensor<?x8x64xf16>, %cache: !cache) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- heads.mlir
// Heads that are asked for divide each group; so they also may be fewer than fit.
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cpu, "generic">} {
  // CHECK-LABEL: func.func @group_4(
  // CHECK:         #kv.schedule<heads = 2,
  func.func @group_4(%q: tensor<?x8x64xf16>, %cache: !cache) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }

  // CHECK-LABEL: func.func @group_6(
  // CHECK:         #kv.schedule<heads = 2,
  func.func @group_6(%q: tensor<?x12x64xf16>, %cache: !cache) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x12x64xf16>, !cache -> tensor<?x12x64xf32>, tensor<?x12xf32>
    return
  }
}

//--- fp8.mlir
// Codes of f8E4M3FN are no integers of a byte, on whichever side they stand.
!fp8_keys = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                      key = <f8E4M3FN, map = sym, group = 1x64, scale = f16>,
                      value = <i4, map = sym, group = 32x1, scale = f16>,
                      window = <sink = 0, recent = 0, flush = 32>>
!fp8_values = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>,
                        value = <f8E4M3FN, map = sym, group = 1x64, scale = f16>,
                        window = <sink = 0, recent = 0, flush = 1>>
module attributes {kv.target = #kv.target<cpu, "avx512_vnni">} {
  // CHECK-LABEL: func.func @fp8_keys(
  // CHECK:         compute = f32, key = <16x32, lanes = 64>, value = <16x32, lanes = 64>,
  func.func @fp8_keys(%q: tensor<?x8x64xf16>, %cache: !fp8_keys) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !fp8_keys -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }

  // CHECK-LABEL: func.func @fp8_values(
  // CHECK:         compute = f32, key = <16x32, lanes = 64>, value = <16x32, lanes = 64>,
  func.func @fp8_values(%q: tensor<?x8x64xf16>, %cache: !fp8_values) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !fp8_values -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- fp4.mlir
// Those of f4E2M1FN are, counted in halves.
!fp4 = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                 key = <f4E2M1FN, map = sym, group = 1x32, scale = f8E8M0FNU>,
                 value = <f4E2M1FN, map = sym, group = 1x16, scale = f8E4M3FN>,
                 window = <sink = 0, recent = 0, flush = 1>>
module attributes {kv.target = #kv.target<cpu, "avx512_vnni">} {
  // CHECK-LABEL: func.func @fp4(
  // CHECK:         compute = int16, key = <16x32, lanes = 64>, value = <16x32, lanes = 64>,
  func.func @fp4(%q: tensor<?x8x64xf16>, %cache: !fp4) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !fp4 -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }
}

//--- cuda.mlir
!cache_64 = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                      window = <sink = 0, recent = 0, flush = 32>>
!cache_256 = !kv.cache<kv_heads = 2, head_dim = 256, dtype = f16, key = <f16>, value = <f16>,
                       window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  // CHECK-LABEL: func.func @group_4(
  // CHECK:         schedule = #kv.schedule<heads = 4, page = 128, compute = f32, key = <32x32, lanes = 32>, value = <32x32, lanes = 32>, floats = <32x1>>
  func.func @group_4(%q: tensor<?x8x64xf16>, %cache: !cache_64) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache_64 -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }

  // With more than four heads partial sums would spill.
  // CHECK-LABEL: func.func @group_16(
  // CHECK:         #kv.schedule<heads = 4,
  func.func @group_16(%q: tensor<?x32x64xf16>, %cache: !cache_64) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x32x64xf16>, !cache_64 -> tensor<?x32x64xf32>, tensor<?x32xf32>
    return
  }

  // CHECK-LABEL: func.func @group_12_wide(
  // CHECK:         #kv.schedule<heads = 4,
  func.func @group_12_wide(%q: tensor<?x24x256xf16>, %cache: !cache_256) {
    kv.attend %q, %cache {scale = 0.125}
      : tensor<?x24x256xf16>, !cache_256 -> tensor<?x24x256xf32>, tensor<?x24xf32>
    return
  }

  // CHECK-LABEL: func.func @group_7_wide(
  // CHECK:         #kv.schedule<heads = 1,
  func.func @group_7_wide(%q: tensor<?x14x256xf16>, %cache: !cache_256) {
    kv.attend %q, %cache {scale = 0.125}
      : tensor<?x14x256xf16>, !cache_256 -> tensor<?x14x256xf32>, tensor<?x14xf32>
    return
  }
}

//--- cuda-f16.mlir
!cache_64 = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                      window = <sink = 0, recent = 0, flush = 32>>
!cache_256 = !kv.cache<kv_heads = 2, head_dim = 256, dtype = f16, key = <f16>, value = <f16>,
                       window = <sink = 0, recent = 0, flush = 32>>
module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  // Of more queries as many as fit two tiles of columns, or one of wide heads.
  // QUERIES-LABEL: func.func @group_4(
  // QUERIES:         queries = 3>
  // QUERIES-LABEL: func.func @chunks(
  // QUERIES:         floats = <fragments>, warps = 4>
  // QUERIES-LABEL: func.func @group_12_wide(
  // QUERIES:         #kv.schedule<heads = 6,
  // QUERIES-SAME:    floats = <fragments>, warps = 4>
  // CHECK-LABEL: func.func @group_4(
  // CHECK:         schedule = #kv.schedule<heads = 4, page = 128, compute = f16, key = <fragments>, value = <fragments>, floats = <fragments>, warps = 4, queries = 2>
  func.func @group_4(%q: tensor<?x8x64xf16>, %cache: !cache_64) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x64xf16>, !cache_64 -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }

  // Queries of different chunks have nothing in common.
  // CHECK-LABEL: func.func @chunks(
  // CHECK:         floats = <fragments>, warps = 4>
  func.func @chunks(%q: tensor<?x8x64xf16>, %cache: !cache_64) {
    kv.attend %q, %cache {scale = 0.125, reach = #kv.reach<chunked>, window_tokens = 64}
      : tensor<?x8x64xf16>, !cache_64 -> tensor<?x8x64xf32>, tensor<?x8xf32>
    return
  }

  // Tensor cores take eight heads at once, and two times eight share the codes.
  // CHECK-LABEL: func.func @group_16(
  // CHECK:         #kv.schedule<heads = 16,
  func.func @group_16(%q: tensor<?x32x64xf16>, %cache: !cache_64) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x32x64xf16>, !cache_64 -> tensor<?x32x64xf32>, tensor<?x32xf32>
    return
  }

  // CHECK-LABEL: func.func @group_12_wide(
  // CHECK:         #kv.schedule<heads = 6,
  func.func @group_12_wide(%q: tensor<?x24x256xf16>, %cache: !cache_256) {
    kv.attend %q, %cache {scale = 0.125}
      : tensor<?x24x256xf16>, !cache_256 -> tensor<?x24x256xf32>, tensor<?x24xf32>
    return
  }

  // CHECK-LABEL: func.func @group_7_wide(
  // CHECK:         #kv.schedule<heads = 7,
  func.func @group_7_wide(%q: tensor<?x14x256xf16>, %cache: !cache_256) {
    kv.attend %q, %cache {scale = 0.125}
      : tensor<?x14x256xf16>, !cache_256 -> tensor<?x14x256xf32>, tensor<?x14xf32>
    return
  }
}

//--- cuda-pipeline.mlir
// Three blocks of four warps share the memory of a multiprocessor, with 96 KiB on their way there if they fit.
!small = !kv.cache<kv_heads = 2, head_dim = 128, dtype = bf16, key = <i3, map = sym, group = 1x32, scale = f16>,
                   value = <i2, map = sym, group = 32x1, scale = f16>, window = <sink = 32, recent = 96, flush = 32>>
!large = !kv.cache<kv_heads = 2, head_dim = 256, dtype = bf16, key = <i8, map = sym, group = 1x32, scale = f16>,
                   value = <i8, map = sym, group = 32x1, scale = f16>, window = <sink = 32, recent = 96, flush = 32>>
module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  // CHECK-LABEL: func.func @small(
  // CHECK:         warps = 4, stages = 4, queries = 2>
  // SMALLER-LABEL: func.func @small(
  // SMALLER:         warps = 4, stages = 2, queries = 2>
  func.func @small(%q: tensor<?x8x128xbf16>, %cache: !small) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x128xbf16>, !small -> tensor<?x8x128xf32>, tensor<?x8xf32>
    return
  }
  // CHECK-LABEL: func.func @large(
  // CHECK:         warps = 2, stages = 3, queries = 2>
  // SMALLER-LABEL: func.func @large(
  // SMALLER:         floats = <fragments>, stages = 2, queries = 2>
  func.func @large(%q: tensor<?x8x256xbf16>, %cache: !large) {
    kv.attend %q, %cache {scale = 0.125} : tensor<?x8x256xbf16>, !large -> tensor<?x8x256xf32>, tensor<?x8xf32>
    return
  }
}

//--- writer.mlir
!written = !kv.cache<kv_heads = 2, head_dim = 32, dtype = f16, key = <f16>, value = <f16>,
                     window = <sink = 0, recent = 0, flush = 32>>
!other = !kv.cache<kv_heads = 2, head_dim = 32, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 32, flush = 32>>
module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  // A writer lays out what the reader of the same cache expects; alone it gets what any reader would.
  // CHECK-LABEL: func.func @writer(
  // CHECK:         kv.attend {{.*}}schedule = #kv.schedule<heads = 4, page = 128,
  // CHECK:         kv.append {{.*}}schedule = #kv.schedule<heads = 4, page = 128,
  // CHECK:         kv.append {{.*}}schedule = #kv.schedule<heads = 1, page = 128,
  func.func @writer(%q: tensor<?x8x32xf16>, %k: tensor<?x2x?x32xf16>, %written: !written, %other: !other) {
    kv.attend %q, %written {scale = 0.125} : tensor<?x8x32xf16>, !written -> tensor<?x8x32xf32>, tensor<?x8xf32>
    kv.append %k, %k into %written : tensor<?x2x?x32xf16>, tensor<?x2x?x32xf16> into !written -> !written
    kv.append %k, %k into %other : tensor<?x2x?x32xf16>, tensor<?x2x?x32xf16> into !other -> !other
    return
  }
}
