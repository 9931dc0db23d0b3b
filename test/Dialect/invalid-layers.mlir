// What layers and the attributes of their selection refuse: every numbered constraint, then what is misspelt.
// RUN: kvcc-opt %s -verify-diagnostics -split-input-file

//===-- kv.layer ----------------------------------------------------------------------------===//

module @layer_c1 {
  // expected-error @below {{'kv.layer' op expected an index of at least 0, but got -1}}
  kv.layer -1
}

// -----

module @layer_c2_one {
  // expected-error @below {{expected q_heads, kv_heads, head_dim and dtype, or none of them, but got 1 of them}}
  kv.layer 0 {q_heads = 9}
}

// -----

module @layer_c2_three {
  // expected-error @below {{expected q_heads, kv_heads, head_dim and dtype, or none of them, but got 3 of them}}
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64}
}

// -----

module @layer_c3 {
  // expected-error @below {{expected q_heads a multiple of kv_heads = 3, but got 8}}
  kv.layer 0 {q_heads = 8, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

module @layer_c3_none {
  // expected-error @below {{expected q_heads a multiple of kv_heads = 0, but got 8}}
  kv.layer 0 {q_heads = 8, kv_heads = 0, head_dim = 64, dtype = f16}
}

// -----

module @layer_c3_no_queries {
  // expected-error @below {{expected q_heads a multiple of kv_heads = 3, but got 0}}
  kv.layer 0 {q_heads = 0, kv_heads = 3, head_dim = 64, dtype = f16}
}

// -----

module @layer_c3_negative {
  // expected-error @below {{expected q_heads a multiple of kv_heads = -3, but got -9}}
  kv.layer 0 {q_heads = -9, kv_heads = -3, head_dim = 64, dtype = f16}
}

// -----

module @layer_c4_head_dim {
  // expected-error @below {{expected head_dim a multiple of 32 from 32 to 256, but got 0}}
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 0, dtype = f16}
}

// -----

module @layer_c4_dtype {
  // expected-error @below {{expected dtype f16, bf16 or f32, but got 'i8'}}
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = i8}
}

// -----

module @layer_c4_group {
  // expected-error @below {{expected key group channels that divide head_dim = 64, but got 128}}
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16,
              key = #kv.quant<i4, map = sym, group = 1x128, scale = f16>, value = #kv.quant<f16>,
              window = #kv.window<sink = 0, recent = 0, flush = 32>}
}

// -----

module @layer_c4_flush {
  // expected-error @below {{expected value groups of one token with flush = 1, but got 32 tokens}}
  kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16, key = #kv.quant<f16>,
              value = #kv.quant<i4, map = sym, group = 32x1, scale = f16>,
              window = #kv.window<sink = 0, recent = 0, flush = 1>}
}

// -----

module @layer_c5_missing {
  // expected-error @below {{expected positive window_tokens exactly with reach sliding or chunked, but got 0}}
  kv.layer 0 {reach = #kv.reach<sliding>}
}

// -----

module @layer_c5_chunked_missing {
  // expected-error @below {{expected positive window_tokens exactly with reach sliding or chunked, but got 0}}
  kv.layer 0 {reach = #kv.reach<chunked>}
}

// -----

module @layer_c5_full {
  // expected-error @below {{expected positive window_tokens exactly with reach sliding or chunked, but got 512}}
  kv.layer 0 {reach = #kv.reach<full>, window_tokens = 512}
}

// -----

module @layer_c5_unsaid {
  // expected-error @below {{expected positive window_tokens exactly with reach sliding or chunked, but got 512}}
  kv.layer 0 {window_tokens = 512}
}

// -----

module @layer_c5_negative {
  // expected-error @below {{expected positive window_tokens exactly with reach sliding or chunked, but got -1}}
  kv.layer 0 {reach = #kv.reach<sliding>, window_tokens = -1}
}

// -----

module @layer_c6_measured {
  // expected-error @below {{expected measured to be a list of #kv.measured, but got [#kv.quant<f16>]}}
  kv.layer 0 {measured = [#kv.quant<f16>]}
}

// -----

module @layer_c6_open {
  // expected-error @below {{expected open "key" or "value", but got query}}
  kv.layer 0 {key = #kv.quant<f16>, open = ["key", "query"]}
}

// -----

module @layer_c6_open_nothing {
  // expected-error @below {{expected a format of the open value, but got none}}
  kv.layer 0 {key = #kv.quant<f16>, open = ["key", "value"]}
}

// -----

//===-- #kv.measured ------------------------------------------------------------------------===//

module attributes {
  // expected-error @below {{expected damage that is not negative, but got -1.}}
  measured_c1 = #kv.measured<key, <f16>, damage = -1.0e-3>} {}

// -----

module attributes {
  // expected-error @below {{expected damage that is not negative}}
  measured_c1_infinite = #kv.measured<value, <f16>, damage = 1.0e999>} {}

// -----

module attributes {
  // expected-error-re @below {{expected {{.*}}key{{.*}}value{{.*}}query}}
  measured_role = #kv.measured<query, <f16>, damage = 0.0>} {}

// -----

module attributes {
  // expected-error @below {{expected 'damage'}}
  measured_damage = #kv.measured<key, <f16>, harm = 0.0>} {}

// -----

//===-- #kv.objective -----------------------------------------------------------------------===//

module attributes {
  // expected-error @below {{expected budget that is finite and not negative, but got -3}}
  objective_c1_budget = #kv.objective<budget = -3>} {}

// -----

module attributes {
  // expected-error @below {{expected budget that is finite and not negative, but got}}
  objective_c1_infinite = #kv.objective<budget = 1.0e999>} {}

// -----

module attributes {
  // expected-error @below {{expected max_kl that is finite and not negative, but got -1}}
  objective_c1_max_kl = #kv.objective<max_kl = -1>} {}

// -----

module attributes {
  // expected-error @below {{expected memory that is finite and not negative, but got -8}}
  objective_c1_memory = #kv.objective<memory = -8>} {}

// -----

module attributes {
  // expected-error @below {{expected context from 1 to 2147483647, but got 0}}
  objective_c2_context = #kv.objective<context = 0>} {}

// -----

module attributes {
  // expected-error @below {{expected context from 1 to 2147483647, but got 2147483648}}
  objective_c2_long_context = #kv.objective<context = 2147483648>} {}

// -----

module attributes {
  // expected-error @below {{expected batch from 1 to 65536, but got 65537}}
  objective_c2_batch = #kv.objective<batch = 65537>} {}

// -----

module attributes {
  // expected-error @below {{expected batch from 1 to 65536, but got 0}}
  objective_c2_no_batch = #kv.objective<batch = 0>} {}

// -----

module attributes {
  // expected-error @below {{expected specs from 1 to 64, but got 0}}
  objective_c2_specs = #kv.objective<specs = 0>} {}

// -----

module attributes {
  // expected-error @below {{expected specs from 1 to 64, but got 65}}
  objective_c2_many_specs = #kv.objective<specs = 65>} {}

// -----

module attributes {
  // expected-error @below {{expected budget, memory, max_kl, context, batch, prefer or specs, but got bits}}
  objective_part = #kv.objective<budget = 3.5, bits = 4>} {}

// -----

module attributes {
  // expected-error-re @below {{expected {{.*}}quality{{.*}}speed{{.*}}memory{{.*}}fast}}
  objective_prefer = #kv.objective<prefer = fast>} {}

// -----

//===-- #kv.reach ---------------------------------------------------------------------------===//

module attributes {
  // expected-error-re @below {{expected {{.*}}full{{.*}}sliding{{.*}}chunked{{.*}}local}}
  reach = #kv.reach<local>} {}
