// Where kv-place-scales has each shape of group multiplied in, what it leaves alone, and what it says.
// RUN: kvcc-opt %s -kv-place-scales | FileCheck %s
// RUN: kvcc-opt %s -kv-place-scales --remark-format=emitRemark --remarks-filter=kv-place-scales -o /dev/null 2>&1 \
// RUN:   | FileCheck %s --check-prefix=REMARK

// Several groups along the reduction, on both sides.
// CHECK-LABEL: func.func @accumulator(
// CHECK:         kv.attend {{.*}} {key_scales = #kv.placement<accumulator>,
// CHECK-SAME:      value_scales = #kv.placement<accumulator>}
// REMARK:      [[#@LINE+9]]:3: remark: [Passed] scale-placement | Category:kv-place-scales
// REMARK-SAME:   key{{.*}} scales at {{.*}}accumulator{{.*}}a group spans 32 of the reduced channels
// REMARK:      [[#@LINE+7]]:3: remark: [Passed] scale-placement
// REMARK-SAME:   value{{.*}} scales at {{.*}}accumulator{{.*}}a group spans 32 of the reduced tokens
!inner = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                   key = <i3, map = sym, group = 1x32, scale = f16>,
                   value = <i2, map = sym, group = 32x1, scale = f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @accumulator(%q: tensor<?x4x64xf16>, %cache: !inner) {
  kv.attend %q, %cache {scale = 0.125} : tensor<?x4x64xf16>, !inner -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// A group as wide as the head. Groups of values never cover a sequence, not even a whole block.
// CHECK-LABEL: func.func @result(
// CHECK:         kv.attend {{.*}} {key_scales = #kv.placement<result>,
// CHECK-SAME:      value_scales = #kv.placement<accumulator>}
!token = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                   key = <i4, map = sym_full, group = 1x64, scale = f16>,
                   value = <i4, map = sym_full, group = 16x1, scale = f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @result(%q: tensor<?x4x64xf16>, %cache: !token) {
  kv.attend %q, %cache {scale = 0.125} : tensor<?x4x64xf16>, !token -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// Groups along the free dimension.
// CHECK-LABEL: func.func @operand(
// CHECK:         kv.attend {{.*}} {key_scales = #kv.placement<operand>,
// CHECK-SAME:      value_scales = #kv.placement<operand>}
// REMARK:      [[#@LINE+9]]:3: remark: [Passed] scale-placement
// REMARK-SAME:   key{{.*}} scales at {{.*}}operand{{.*}}every reduced element has a scale of its own
// REMARK:      [[#@LINE+7]]:3: remark: [Passed] scale-placement
// REMARK-SAME:   value{{.*}} scales at {{.*}}operand{{.*}}every reduced element has a scale of its own
!outer = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                   key = <i4, map = sym, group = 32x1, scale = f16>,
                   value = <i4, map = sym, group = 1x64, scale = f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @operand(%q: tensor<?x4x64xf16>, %cache: !outer) {
  kv.attend %q, %cache {scale = 0.125} : tensor<?x4x64xf16>, !outer -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// CHECK-LABEL: func.func @none(
// CHECK:         kv.attend {{.*}} {key_scales = #kv.placement<none>,
// CHECK-SAME:      value_scales = #kv.placement<none>}
!plain = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <bf16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @none(%q: tensor<?x4x64xf16>, %cache: !plain) {
  kv.attend %q, %cache {scale = 0.125} : tensor<?x4x64xf16>, !plain -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// Only the missing one of two decisions is taken, and only that one is told.
// CHECK-LABEL: func.func @decided(
// CHECK:         kv.attend {{.*}} {key_scales = #kv.placement<element>,
// CHECK-SAME:      value_scales = #kv.placement<accumulator>}
// REMARK:      [[#@LINE+3]]:3: remark: [Passed] scale-placement
// REMARK-SAME:   value{{.*}} scales at {{.*}}accumulator{{.*}}a group spans 32 of the reduced tokens
func.func @decided(%q: tensor<?x4x64xf16>, %cache: !inner) {
  kv.attend %q, %cache {scale = 0.125, key_scales = #kv.placement<element>}
    : tensor<?x4x64xf16>, !inner -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// REMARK-NOT: remark
