// Layers, and what the selection passes read and write on them, survive printing and parsing in the pretty and in the
// generic form.
// RUN: kvcc-opt %s | kvcc-opt | FileCheck %s
// RUN: kvcc-opt %s --mlir-print-op-generic | kvcc-opt | FileCheck %s

// CHECK-LABEL: func.func private @objectives
// CHECK-SAME: #kv.objective<context = 32768, batch = 1, prefer = quality, specs = 8>,
// CHECK-SAME: #kv.objective<budget = 3.5, context = 32768, batch = 1, prefer = quality, specs = 8>,
// CHECK-SAME: #kv.objective<budget = 4, context = 131072, batch = 16, prefer = speed, specs = 1>,
// CHECK-SAME: #kv.objective<budget = 3.1234567, context = 1, batch = 65536, prefer = quality, specs = 64>,
// CHECK-SAME: #kv.objective<memory = 9000000000000000000, max_kl = 0.01, context = 2147483647, batch = 1, prefer = memory, specs = 8>,
// CHECK-SAME: #kv.objective<max_kl = 1.0E-10, context = 32768,
// CHECK-SAME: #kv.reach<full>, #kv.reach<sliding>, #kv.reach<chunked>]
func.func private @objectives() attributes {all = [
  #kv.objective<>,
  #kv.objective<budget = 3.50, memory = 0, max_kl = 0>,
  // Parts in another order than they print, and a number without a fraction.
  #kv.objective<specs = 1, prefer = speed, batch = 16, context = 131072, budget = 4>,
  #kv.objective<budget = 3.1234567, context = 1, batch = 65536, specs = 64>,
  #kv.objective<memory = 9000000000000000000, max_kl = 1.0e-2, context = 2147483647, prefer = memory>,
  #kv.objective<max_kl = 1.0e-10>,
  #kv.reach<full>, #kv.reach<sliding>, #kv.reach<chunked>]}

// Nothing but the index; the facts of a full layer; the index may have gaps.
// CHECK: kv.layer 0{{$}}
// CHECK: kv.layer 7 {dtype = f16, head_dim = 64 : i64, kv_heads = 3 : i64, q_heads = 9 : i64}
kv.layer 0
kv.layer 7 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}

// An entry of a table, without facts.
// CHECK: kv.layer 8 {key = #kv.quant<i4, map = sym_signed, group = 1x64, scale = f16, transforms = [#kv.center, #kv.hadamard<64>], feedback>,
// CHECK-SAME: value = #kv.quant<bf16>, window = #kv.window<sink = 32, recent = 96, flush = 32>}
kv.layer 8 {
  key = #kv.quant<i4, map = sym_signed, group = 1x64, scale = f16, transforms = [#kv.center, #kv.hadamard<64>], feedback>,
  value = #kv.quant<bf16>, window = #kv.window<sink = 32, recent = 96, flush = 32>}

// Everything at once.
// CHECK:      kv.layer 9 {dtype = bf16, head_dim = 128 : i64, key = #kv.quant<i4, map = sym_full, group = 1x128, scale = f16>,
// CHECK-SAME: key_bias, kv_heads = 8 : i64,
// CHECK-SAME: measured = [#kv.measured<key, <i3, map = sym_signed, group = 1x128, scale = f16, transforms = [#kv.hadamard<128>]>, damage = 1.250000e-03>,
// CHECK-SAME: #kv.measured<value, <bf16>, damage = 0.000000e+00>],
// CHECK-SAME: open = ["key", "value"], q_heads = 32 : i64, qk_norm, reach = #kv.reach<sliding>,
// CHECK-SAME: reasons = {"key modes" = "why", layout = "because"}, unserved = "sliding window 4096 is not served",
// CHECK-SAME: value = #kv.quant<i2, map = asym, group = 32x1, scale = f16>,
// CHECK-SAME: window = #kv.window<sink = 0, recent = 96, flush = 32>, window_tokens = 4096 : i64}
kv.layer 9 {
  q_heads = 32, kv_heads = 8, head_dim = 128, dtype = bf16, reach = #kv.reach<sliding>, window_tokens = 4096,
  key_bias, qk_norm, unserved = "sliding window 4096 is not served",
  measured = [#kv.measured<key, <i3, map = sym_signed, group = 1x128, scale = f16, transforms = [#kv.hadamard<128>]>,
                           damage = 1.25e-3>,
              #kv.measured<value, <bf16>, damage = 0.0>],
  key = #kv.quant<i4, map = sym_full, group = 1x128, scale = f16>,
  value = #kv.quant<i2, map = asym, group = 32x1, scale = f16>,
  window = #kv.window<sink = 0, recent = 96, flush = 32>,
  open = ["key", "value"], reasons = {layout = "because", "key modes" = "why"}}

// `full` may be said, chunks have their length, lists may be empty.
// CHECK: kv.layer 10 {measured = [], open = [], reach = #kv.reach<full>}
// CHECK: kv.layer 11 {reach = #kv.reach<chunked>, window_tokens = 8192 : i64}
kv.layer 10 {reach = #kv.reach<full>, measured = [], open = []}
kv.layer 11 {reach = #kv.reach<chunked>, window_tokens = 8192}
