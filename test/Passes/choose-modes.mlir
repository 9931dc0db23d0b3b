// Which map, transforms and writer kv-choose-modes gives to the open sides of layers.
// RUN: kvcc-opt %s -split-input-file -kv-choose-modes | FileCheck %s
// RUN: kvcc-opt %s -split-input-file -kv-choose-modes --remark-format=emitRemark --remarks-filter=kv-choose-modes \
// RUN:   -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// Priors, on both sides; nothing stays open.
// CHECK-LABEL: module @priors
// CHECK:         kv.layer 0 {dtype = f16, head_dim = 64 : i64,
// CHECK-SAME:      key = #kv.quant<i4, map = sym_signed, group = 1x64, scale = f16, transforms = [#kv.center, #kv.hadamard<64>], feedback>,
// CHECK-SAME:      kv_heads = 3 : i64, q_heads = 9 : i64, reasons = {"key modes" = "keys sym_signed, center, hadamard<64>, feedback: a prior{{.+}}", "value modes" = "values sym_signed, hadamard<64>: a prior{{.+}}"},
// CHECK-SAME:      value = #kv.quant<i3, map = sym_signed, group = 1x64, scale = f16, transforms = [#kv.hadamard<64>]>}
// REMARK:      [[#@LINE+5]]:3: remark: [Passed] modes | Category:kv-choose-modes
// REMARK-SAME:   layer {{.*}}keys sym_signed, center, hadamard<64>, feedback: a prior
// REMARK:      [[#@LINE+3]]:3: remark: [Passed] modes
// REMARK-SAME:   layer {{.*}}values sym_signed, hadamard<64>: a prior
module @priors {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, open = ["key", "value"],
              key = #kv.quant<i4, map = sym_full, group = 1x64, scale = f16>,
              value = #kv.quant<i3, map = sym_full, group = 1x64, scale = f16>}
}

// -----

// The rotation covers the largest power of two in the head.
// CHECK-LABEL: module @head_dims
// CHECK:         kv.layer 0 {{.*}} transforms = [#kv.center, #kv.hadamard<32>], feedback>
// CHECK:         kv.layer 1 {{.*}} transforms = [#kv.center, #kv.hadamard<256>], feedback>
module @head_dims {
  kv.layer 0 {q_heads = 8, kv_heads = 8, head_dim = 96, dtype = f16, open = ["key"],
              key = #kv.quant<i4, map = sym_full, group = 1x96, scale = f16>}
  kv.layer 1 {q_heads = 8, kv_heads = 8, head_dim = 256, dtype = f16, open = ["key"],
              key = #kv.quant<i4, map = sym_full, group = 1x256, scale = f16>}
}

// -----

// Sides that are not open, numbers as they are, and layouts that no candidate has stay.
// CHECK-LABEL: module @kept
// CHECK:         kv.layer 0 {dtype = f16, head_dim = 64 : i64, key = #kv.quant<i4, map = sym, group = 1x64, scale = f16>, kv_heads = 3 : i64, q_heads = 9 : i64,
// CHECK-SAME:      value = #kv.quant<i3, map = sym_signed, group = 1x64, scale = f16, transforms = [#kv.hadamard<64>]>}
// CHECK:         kv.layer 1 {dtype = f16, head_dim = 64 : i64, key = #kv.quant<f16>, kv_heads = 3 : i64, q_heads = 9 : i64, value = #kv.quant<i8, map = hybrid, group = 32x1, scale = bf16>}
// CHECK:         kv.layer 2 {dtype = f16, head_dim = 64 : i64, kv_heads = 3 : i64, q_heads = 9 : i64}
module @kept {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, open = ["value"],
              key = #kv.quant<i4, map = sym, group = 1x64, scale = f16>,
              value = #kv.quant<i3, map = sym_full, group = 1x64, scale = f16>}
  kv.layer 1 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, open = ["key", "value"],
              key = #kv.quant<f16>, value = #kv.quant<i8, map = hybrid, group = 32x1, scale = bf16>}
  kv.layer 2 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// What was measured decides, summed over the layers of one layout: 3 + 3 for the first, 1 + 6 for the second. Formats
// that need other bytes (a zero point, another group) are no candidates.
// CHECK-LABEL: module @measured
// CHECK:         kv.layer 0 {{.*}} key = #kv.quant<i4, map = sym_signed, group = 1x64, scale = f16, transforms = [#kv.diag<sqrt_max>]>,
// CHECK-SAME:      "key modes" = "keys sym_signed, diag<sqrt_max>: measured damage 6.00e-03 over 2 layers; the runner-up, sym_signed, center, feedback, has 7.00e-03"
// CHECK:         kv.layer 1 {{.*}} key = #kv.quant<i4, map = sym_signed, group = 1x64, scale = f16, transforms = [#kv.diag<sqrt_max>]>,
// REMARK:     [[#@LINE+8]]:3: remark: {{.*}}layer {{.*}}keys sym_signed, diag<sqrt_max>: measured damage 6.00e-03 over 2 layers; the runner-up, sym_signed, center, feedback, has 7.00e-03
// REMARK:     [[#@LINE+12]]:3: remark: {{.*}}layer {{.*}}keys sym_signed, diag<sqrt_max>: measured damage 6.00e-03 over 2 layers
#layout = #kv.quant<i4, map = sym_full, group = 1x64, scale = f16>
#first = #kv.quant<i4, map = sym_signed, group = 1x64, scale = f16, transforms = [#kv.diag<sqrt_max>]>
#second = #kv.quant<i4, map = sym_signed, group = 1x64, scale = f16, transforms = [#kv.center], feedback>
#asym = #kv.quant<i4, map = asym, group = 1x64, scale = f16>
#short = #kv.quant<i4, map = sym_signed, group = 1x32, scale = f16>
module @measured {
  kv.layer 0 {
    q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, open = ["key"], key = #layout,
    measured = [#kv.measured<key, #first, damage = 3.0e-3>, #kv.measured<key, #second, damage = 1.0e-3>,
                #kv.measured<key, #asym, damage = 0.0>, #kv.measured<key, #short, damage = 0.0>,
                #kv.measured<value, #layout, damage = 0.0>]}
  kv.layer 1 {
    q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, open = ["key"], key = #layout,
    measured = [#kv.measured<key, #first, damage = 3.0e-3>, #kv.measured<key, #second, damage = 6.0e-3>]}
}

// -----

// Layers of another shape or another layout decide for themselves; a mode that one of the layers was not measured in is
// none for all.
// CHECK-LABEL: module @apart
// CHECK:         kv.layer 0 {{.*}} value = #kv.quant<i3, map = sym_full, group = 32x1, scale = f16>}
// CHECK:         kv.layer 1 {{.*}} value = #kv.quant<i3, map = sym_full, group = 32x1, scale = f16>}
// CHECK:         kv.layer 2 {{.*}} value = #kv.quant<i3, map = sym_signed, group = 32x1, scale = f16, search = 4>}
#columns = #kv.quant<i3, map = sym_full, group = 32x1, scale = f16>
#search = #kv.quant<i3, map = sym_signed, group = 32x1, scale = f16, search = 4>
module @apart {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, open = ["value"], value = #columns,
              measured = [#kv.measured<value, #columns, damage = 2.0e-3>, #kv.measured<value, #search, damage = 1.0e-3>]}
  kv.layer 1 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, open = ["value"], value = #columns,
              measured = [#kv.measured<value, #columns, damage = 2.0e-3>]}
  kv.layer 2 {q_heads = 12, kv_heads = 3, head_dim = 64, dtype = f16, open = ["value"], value = #columns,
              measured = [#kv.measured<value, #columns, damage = 2.0e-3>, #kv.measured<value, #search, damage = 1.0e-3>]}
}
