// Which layouts kv-choose-layout gives to layers, by priors and by what was measured: limits, what is preferred, which
// layers are decided together, and what it leaves alone.
// RUN: kvcc-opt %s -split-input-file -kv-choose-layout | FileCheck %s
// RUN: kvcc-opt %s -split-input-file -kv-choose-layout --remark-format=emitRemark --remarks-filter=kv-choose-layout \
// RUN:   -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// A budget is an average over keys and values, scales included. Layouts have neither transforms nor a writer.
// CHECK-LABEL: module @budget
// CHECK:         kv.layer 0 {{{.*}} key = #kv.quant<i4, map = sym_full, group = 1x64, scale = f16>,
// CHECK-SAME:      open = ["key", "value"],
// CHECK-SAME:      reasons = {layout = "keys of 4.25 and values of 3.25 bits: {{.+}}"}
// CHECK-SAME:      value = #kv.quant<i3, map = sym_full, group = 1x64, scale = f16>}
// REMARK:      [[#@LINE+4]]:3: remark: [Passed] layout | Category:kv-choose-layout
// REMARK-SAME:   layer {{.*}}keys of 4.25 and values of 3.25 bits: a prior, damage 2.20e-03; the runner-up,
// REMARK-SAME:   keys of 3.25 and values of 3.25 bits, has damage 5.80e-03 for -0.50 bits
module @budget attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 3.8>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// The ends of the range.
// CHECK-LABEL: module @lowest
// CHECK:         key = #kv.quant<i2, {{.*}} value = #kv.quant<i2,
module @lowest attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 2.25>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// CHECK-LABEL: module @highest
// CHECK:         key = #kv.quant<bf16>, {{.*}} value = #kv.quant<bf16>
module @highest attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 16>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = bf16}
}

// -----

// Biased keys get bits from the others; the facts that counted are said.
// CHECK-LABEL: module @facts
// CHECK:         kv.layer 0 {{.*}} key = #kv.quant<i4, {{.*}} value = #kv.quant<i3,
// CHECK:         kv.layer 1 {{.*}} key = #kv.quant<i8, {{.*}} value = #kv.quant<i4,
// CHECK:         kv.layer 2 {{.*}} key = #kv.quant<i4, {{.*}} value = #kv.quant<i3,
// CHECK:         kv.layer 3 {{.*}} key = #kv.quant<i4, {{.*}} value = #kv.quant<i3,
// REMARK:     [[#@LINE+5]]:3: remark: {{.*}}(head_dim 128 averages more rounding errors in a logit than 64, 8 query heads share each key)
// REMARK:     [[#@LINE+6]]:3: remark: {{.*}}(head_dim 128 averages more rounding errors in a logit than 64, 8 query heads share each key)
// REMARK:     [[#@LINE+4]]:3: remark: {{.*}} 8 query heads share each key, biased keys have large channels)
// REMARK:     [[#@LINE+5]]:3: remark: {{.*}} 8 query heads share each key, normalized keys have even channels)
module @facts attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 4.25>} {
  kv.layer 0 {q_heads = 32, kv_heads = 4, head_dim = 128, dtype = f16}
  kv.layer 1 {q_heads = 32, kv_heads = 4, head_dim = 128, dtype = f16, key_bias}
  kv.layer 2 {q_heads = 32, kv_heads = 4, head_dim = 128, dtype = f16}
  kv.layer 3 {q_heads = 32, kv_heads = 4, head_dim = 128, dtype = f16, qk_norm}
}

// -----

// One more bit on one side of one of these layers would fit, but equal layers are decided alike.
// CHECK-LABEL: module @alike
// CHECK:         kv.layer 0 {{.*}} key = #kv.quant<i2, {{.*}} value = #kv.quant<i2,
// CHECK:         kv.layer 5 {{.*}} key = #kv.quant<i2, {{.*}} value = #kv.quant<i2,
module @alike attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 2.5>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
  kv.layer 5 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// A profile tells layers apart, and offers other maps and axes.
// CHECK-LABEL: module @measured
// CHECK:         kv.layer 0 {{.*}} key = #kv.quant<i2, map = asym, group = 32x1, scale = f16>, {{.*}} value = #kv.quant<i2, map = sym_full, group = 1x64,
// CHECK:         kv.layer 1 {{.*}} key = #kv.quant<i4, map = sym_full, group = 1x64, scale = f16>, {{.*}} value = #kv.quant<i2, map = sym_full, group = 1x64,
// REMARK:     [[#@LINE+7]]:3: remark: {{.*}}keys of 3.00 and values of 2.25 bits: the profile's damage is 1.10e-03; the runner-up
// REMARK:     [[#@LINE+11]]:3: remark: {{.*}}keys of 4.25 and values of 2.25 bits: the profile's damage is 1.20e-02; the runner-up
#k2 = #kv.quant<i2, map = asym, group = 32x1, scale = f16, transforms = [#kv.center]>
#k4 = #kv.quant<i4, map = sym_signed, group = 1x64, scale = f16, transforms = [#kv.center, #kv.hadamard<64>], feedback>
#k4_plain = #kv.quant<i4, map = sym_signed, group = 1x64, scale = f16>
#v2 = #kv.quant<i2, map = sym_signed, group = 1x64, scale = f16, transforms = [#kv.hadamard<64>]>
module @measured attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 3.0>} {
  kv.layer 0 {
    q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16,
    measured = [#kv.measured<key, #k2, damage = 1.0e-3>, #kv.measured<key, #k4_plain, damage = 9.0e-4>,
                #kv.measured<key, #k4, damage = 8.0e-4>, #kv.measured<value, #v2, damage = 1.0e-4>]}
  // The layout is worth what its best modes are.
  kv.layer 1 {
    q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16,
    measured = [#kv.measured<key, #k2, damage = 3.0e-1>, #kv.measured<key, #k4_plain, damage = 2.0e-1>,
                #kv.measured<key, #k4, damage = 2.0e-3>, #kv.measured<value, #v2, damage = 1.0e-2>]}
}

// -----

// Memory counts windows and all sequences.
// CHECK-LABEL: module @memory
// CHECK:         key = #kv.quant<i6, {{.*}} value = #kv.quant<i6,
module @memory attributes {
    kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<memory = 20000000, context = 32768, batch = 2>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// Twice the sequences in the same memory.
// CHECK-LABEL: module @memory_of_more
// CHECK:         key = #kv.quant<i3, {{.*}} value = #kv.quant<i2,
module @memory_of_more attributes {
    kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<memory = 20000000, context = 32768, batch = 4>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// The fewest bytes whose damage is accepted: 5.00e-4 here, 1.10e-3 with a bit less for the keys.
// CHECK-LABEL: module @max_kl
// CHECK:         key = #kv.quant<i5, {{.*}} value = #kv.quant<i4,
module @max_kl attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<max_kl = 1.0e-3>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// With a budget too, what is accepted is no reason to spend less.
// CHECK-LABEL: module @max_kl_and_budget
// CHECK:         key = #kv.quant<i8, {{.*}} value = #kv.quant<i6,
module @max_kl_and_budget attributes {
    kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 7.25, max_kl = 1.0e-3>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// The same, where fewer bytes are preferred.
// CHECK-LABEL: module @prefer_memory
// CHECK:         key = #kv.quant<i5, {{.*}} value = #kv.quant<i4,
module @prefer_memory attributes {
    kv.target = #kv.target<cpu, "generic">,
    kv.objective = #kv.objective<budget = 7.25, max_kl = 1.0e-3, prefer = memory>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// Time where it differs: a large batch on a GPU waits for memory, and the damage may be what is accepted.
// CHECK-LABEL: module @prefer_speed
// CHECK:         key = #kv.quant<i3, {{.*}} value = #kv.quant<i3,
module @prefer_speed attributes {
    kv.target = #kv.target<cuda, "sm_90">,
    kv.objective = #kv.objective<budget = 16, max_kl = 1.0e-2, prefer = speed, batch = 64>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

// Three classes of layers would like three pairs of layouts.
// CHECK-LABEL: module @specs_3
// CHECK:         kv.layer 0 {{.*}} key = #kv.quant<i4, {{.*}} value = #kv.quant<i3,
// CHECK:         kv.layer 1 {{.*}} key = #kv.quant<i6, {{.*}} value = #kv.quant<i3,
// CHECK:         kv.layer 2 {{.*}} key = #kv.quant<i3, {{.*}} value = #kv.quant<i3,
module @specs_3 attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 4, specs = 3>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
  kv.layer 1 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, key_bias}
  kv.layer 2 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, qk_norm}
}

// -----

// CHECK-LABEL: module @specs_2
// CHECK:         kv.layer 0 {{.*}} key = #kv.quant<i3, {{.*}} value = #kv.quant<i3,
// CHECK:         kv.layer 1 {{.*}} key = #kv.quant<i6, {{.*}} value = #kv.quant<i3,
// CHECK:         kv.layer 2 {{.*}} key = #kv.quant<i3, {{.*}} value = #kv.quant<i3,
module @specs_2 attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 4, specs = 2>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
  kv.layer 1 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, key_bias}
  kv.layer 2 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, qk_norm}
}

// -----

// The one pair need not be among those of above, none of which fits all layers.
// CHECK-LABEL: module @specs_1
// CHECK:         kv.layer 0 {{.*}} key = #kv.quant<[[KEY:.*]]>, kv_heads {{.*}} value = #kv.quant<[[VALUE:.*]]>}
// CHECK:         kv.layer 1 {{.*}} key = #kv.quant<[[KEY]]>, key_bias, {{.*}} value = #kv.quant<[[VALUE]]>}
// CHECK:         kv.layer 2 {{.*}} key = #kv.quant<[[KEY]]>, kv_heads {{.*}} value = #kv.quant<[[VALUE]]>}
module @specs_1 attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 4, specs = 1>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
  kv.layer 1 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, key_bias}
  kv.layer 2 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, qk_norm}
}

// -----

// A side that is given stays as it is, counts, and is not open; a layer with both sides is left alone.
// CHECK-LABEL: module @given
// CHECK:         kv.layer 0 {{.*}} key = #kv.quant<i8, map = sym, group = 1x32, scale = bf16, transforms = [#kv.center]>, {{.*}} open = ["value"], {{.*}} value = #kv.quant<i2,
// CHECK:         kv.layer 1 {{.*}} key = #kv.quant<i3, {{.*}} open = ["key"], {{.*}} value = #kv.quant<f8E4M3FN, map = sym, group = 1x64, scale = f16>}
// CHECK:         kv.layer 2 {dtype = f16, head_dim = 64 : i64, key = #kv.quant<f16>, kv_heads = 3 : i64, q_heads = 9 : i64, value = #kv.quant<f16>}
module @given attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 5.625>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16,
              key = #kv.quant<i8, map = sym, group = 1x32, scale = bf16, transforms = [#kv.center]>}
  kv.layer 1 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16,
              value = #kv.quant<f8E4M3FN, map = sym, group = 1x64, scale = f16>}
  kv.layer 2 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, key = #kv.quant<f16>, value = #kv.quant<f16>}
}

// -----

// Layers that see at most the 160 tokens of the windows are left to kv-choose-windows. Others count with the tokens that
// they see: these 192 weigh little, so that they may have many bits.
// CHECK-LABEL: module @sliding
// CHECK:         kv.layer 0 {{.*}} key = #kv.quant<i3, {{.*}} value = #kv.quant<i3,
// CHECK:         kv.layer 1 {dtype = f16, head_dim = 64 : i64, kv_heads = 3 : i64, q_heads = 9 : i64, reach = #kv.reach<sliding>, window_tokens = 160 : i64}
// CHECK:         kv.layer 2 {{.*}} key = #kv.quant<{{f16|i8}}
module @sliding attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 3.5>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
  kv.layer 1 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, reach = #kv.reach<sliding>, window_tokens = 160}
  kv.layer 2 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, reach = #kv.reach<chunked>, window_tokens = 192}
}

// -----

// Nothing to decide, whatever the budget.
// CHECK-LABEL: module @none
// CHECK:         kv.layer 0 {{{.*}}window_tokens = 64 : i64}
module @none attributes {kv.target = #kv.target<cpu, "generic">, kv.objective = #kv.objective<budget = 1>} {
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, reach = #kv.reach<sliding>, window_tokens = 64}
}
