// Which tokens kv-choose-windows keeps in full precision.
// RUN: kvcc-opt %s -kv-choose-windows | FileCheck %s
// RUN: kvcc-opt %s -kv-choose-windows --remark-format=emitRemark --remarks-filter=kv-choose-windows -o /dev/null 2>&1 \
// RUN:   | FileCheck %s --check-prefix=REMARK
// RUN: kvcc-opt %s -kv-choose-windows | kvcc-opt -kv-choose-windows | FileCheck %s

#i4 = #kv.quant<i4, map = sym_full, group = 1x64, scale = f16>

// Sinks and recent tokens.
// CHECK:      kv.layer 0 {{{.*}} reasons = {windows = "the first 32 tokens,{{.*}}the last 96{{.+}}"},
// CHECK-SAME:   window = #kv.window<sink = 32, recent = 96, flush = 32>}
// REMARK:      [[#@LINE+2]]:1: remark: [Passed] windows | Category:kv-choose-windows
// REMARK-SAME:   layer {{.*}}the first 32 tokens, {{.*}}the last 96
kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, key = #i4, value = #i4}

// One side is enough, and a side that is not chosen yet may become codes. Other reasons stay.
// CHECK: kv.layer 1 {{.*}} window = #kv.window<sink = 32, recent = 96, flush = 32>}
// CHECK: kv.layer 2 {{.*}} reasons = {layout = "because", windows = "{{.+}}"}, window = #kv.window<sink = 32, recent = 96, flush = 32>}
kv.layer 1 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, key = #kv.quant<f16>, value = #i4}
kv.layer 2 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, key = #kv.quant<f16>, reasons = {layout = "because"}}

// No window where all is full precision: nothing to say.
// CHECK: kv.layer 3 {dtype = f16, head_dim = 64 : i64, key = #kv.quant<f16>, kv_heads = 3 : i64, q_heads = 9 : i64, value = #kv.quant<f16>, window = #kv.window<sink = 0, recent = 0, flush = 32>}
// REMARK-NOT: :[[#@LINE+1]]:1: remark
kv.layer 3 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, key = #kv.quant<f16>, value = #kv.quant<f16>}

// A window that is given stays.
// CHECK: kv.layer 4 {{.*}} window = #kv.window<sink = 0, recent = 0, flush = 1>}
// REMARK-NOT: :[[#@LINE+1]]:1: remark
kv.layer 4 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, key = #i4, value = #i4,
            window = #kv.window<sink = 0, recent = 0, flush = 1>}

// Layers that forget their first tokens have no sinks.
// CHECK: kv.layer 5 {{.*}} window = #kv.window<sink = 0, recent = 96, flush = 32>, window_tokens = 161 : i64}
// CHECK: kv.layer 6 {{.*}} window = #kv.window<sink = 0, recent = 96, flush = 32>, window_tokens = 8192 : i64}
// REMARK:      [[#@LINE+2]]:1: remark: [Passed] windows
// REMARK-SAME:   layer {{.*}}the layer forgets its first tokens
kv.layer 5 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, key = #i4, value = #i4,
            reach = #kv.reach<sliding>, window_tokens = 161}
kv.layer 6 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, key = #i4, value = #i4,
            reach = #kv.reach<chunked>, window_tokens = 8192}

// Layers that see no more than the windows stay in the model's dtype, whatever they were to be, and nothing stays open.
// CHECK:      kv.layer 7 {dtype = bf16, head_dim = 64 : i64, key = #kv.quant<bf16>, kv_heads = 3 : i64, q_heads = 9 : i64, reach = #kv.reach<sliding>,
// CHECK-SAME:   reasons = {windows = "full precision: the layer sees 160 tokens, no more than the windows keep"},
// CHECK-SAME:   value = #kv.quant<bf16>, window = #kv.window<sink = 0, recent = 0, flush = 32>, window_tokens = 160 : i64}
// REMARK:      [[#@LINE+2]]:1: remark: [Passed] windows
// REMARK-SAME:   layer {{.*}}full precision: the layer sees 160 tokens, no more than the windows keep
kv.layer 7 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = bf16, key = #i4, value = #i4, open = ["key", "value"],
            reach = #kv.reach<sliding>, window_tokens = 160}

// Nobody chose a format for them; the windows are those that are given.
// CHECK: kv.layer 8 {{.*}} key = #kv.quant<f16>, {{.*}} value = #kv.quant<f16>, window = #kv.window<sink = 0, recent = 0, flush = 32>,
// CHECK: kv.layer 9 {{.*}} key = #kv.quant<f16>, {{.*}} value = #kv.quant<f16>, window = #kv.window<sink = 0, recent = 0, flush = 32>,
// CHECK: kv.layer 10 {{.*}} key = #kv.quant<i4, {{.*}} value = #kv.quant<i4, {{.*}} window = #kv.window<sink = 0, recent = 0, flush = 32>,
kv.layer 8 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, reach = #kv.reach<chunked>, window_tokens = 128}
kv.layer 9 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, key = #i4, value = #i4,
            reach = #kv.reach<sliding>, window_tokens = 512, window = #kv.window<sink = 0, recent = 512, flush = 32>}
kv.layer 10 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, key = #i4, value = #i4,
             reach = #kv.reach<sliding>, window_tokens = 33, window = #kv.window<sink = 0, recent = 0, flush = 32>}
