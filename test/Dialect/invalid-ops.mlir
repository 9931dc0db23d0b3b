// What level 1 operations refuse: every numbered constraint, then what their definitions refuse.
// RUN: kvcc-opt %s -verify-diagnostics -split-input-file

//===-- kv.attend ---------------------------------------------------------------------------===//

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c1_rank(%q: tensor<4x64xf16>, %cache: !cache) {
  // expected-error @below {{expected query [batch, q_heads, head_dim] or [batch, queries, q_heads, head_dim] with static heads}}
  kv.attend %q, %cache {scale = 0.125} : tensor<4x64xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c1_heads(%q: tensor<?x?x64xf16>, %cache: !cache) {
  // expected-error @below {{expected query [batch, q_heads, head_dim] or [batch, queries, q_heads, head_dim] with static heads}}
  kv.attend %q, %cache {scale = 0.125} : tensor<?x?x64xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c1_channels(%q: tensor<?x4x?xf16>, %cache: !cache) {
  // expected-error @below {{expected query [batch, q_heads, head_dim] or [batch, queries, q_heads, head_dim] with static heads}}
  kv.attend %q, %cache {scale = 0.125} : tensor<?x4x?xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c1_element(%q: tensor<?x4x64xi8>, %cache: !cache) {
  // expected-error @below {{must be ranked tensor of 16-bit float or bfloat16 type or 32-bit float values}}
  kv.attend %q, %cache {scale = 0.125} : tensor<?x4x64xi8>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c2(%q: tensor<?x5x64xf16>, %cache: !cache) {
  // expected-error @below {{expected query heads a multiple of kv_heads = 2, but got 5}}
  kv.attend %q, %cache {scale = 0.125} : tensor<?x5x64xf16>, !cache -> tensor<?x5x64xf32>, tensor<?x5xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c2_none(%q: tensor<?x0x64xf16>, %cache: !cache) {
  // expected-error @below {{expected query heads a multiple of kv_heads = 2, but got 0}}
  kv.attend %q, %cache {scale = 0.125} : tensor<?x0x64xf16>, !cache -> tensor<?x0x64xf32>, tensor<?x0xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c3(%q: tensor<?x4x32xf16>, %cache: !cache) {
  // expected-error @below {{expected query head_dim 64, but got 32}}
  kv.attend %q, %cache {scale = 0.125} : tensor<?x4x32xf16>, !cache -> tensor<?x4x32xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c4_shape(%q: tensor<?x4x64xf16>, %cache: !cache) {
  // expected-error @below {{expected out of the shape of 'tensor<?x4x64xf16>', but got 'tensor<?x64x4xf32>'}}
  kv.attend %q, %cache {scale = 0.125} : tensor<?x4x64xf16>, !cache -> tensor<?x64x4xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c4_element(%q: tensor<?x4x64xf16>, %cache: !cache) {
  // expected-error @below {{expected out of f32 or of the query's 'f16', but got 'tensor<?x4x64xbf16>'}}
  kv.attend %q, %cache {scale = 0.125} : tensor<?x4x64xf16>, !cache -> tensor<?x4x64xbf16>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c5_shape(%q: tensor<?x4x64xf16>, %cache: !cache) {
  // expected-error @below {{expected lse of the shape of the query without head_dim, but got 'tensor<?x2xf32>'}}
  kv.attend %q, %cache {scale = 0.125} : tensor<?x4x64xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x2xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c5_element(%q: tensor<?x4x64xf16>, %cache: !cache) {
  // expected-error @below {{'kv.attend' op result #1 must be ranked tensor of 32-bit float values, but got 'tensor<?x4xf16>'}}
  kv.attend %q, %cache {scale = 0.125} : tensor<?x4x64xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf16>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c6_zero(%q: tensor<?x4x64xf16>, %cache: !cache) {
  // expected-error @below {{expected a positive finite scale, but got 0}}
  kv.attend %q, %cache {scale = 0.0} : tensor<?x4x64xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c6_negative(%q: tensor<?x4x64xf16>, %cache: !cache) {
  // expected-error @below {{expected a positive finite scale, but got -1.25}}
  kv.attend %q, %cache {scale = -0.125} : tensor<?x4x64xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c6_infinite(%q: tensor<?x4x64xf16>, %cache: !cache) {
  // expected-error @below {{expected a positive finite scale}}
  kv.attend %q, %cache {scale = 0x7FF0000000000000 : f64} : tensor<?x4x64xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c6_nan(%q: tensor<?x4x64xf16>, %cache: !cache) {
  // expected-error @below {{expected a positive finite scale}}
  kv.attend %q, %cache {scale = 0x7FF8000000000000 : f64} : tensor<?x4x64xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

// Two KV heads share six query heads: groups of three.
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c7(%q: tensor<?x6x64xf16>, %cache: !cache) {
  // expected-error @below {{expected schedule heads that divide the group of 3 query heads, but got 2}}
  kv.attend %q, %cache {
      scale = 0.125, schedule = #kv.schedule<heads = 2, page = 128, compute = f32, key = <16x4>, value = <16x4>,
                                             floats = <16x1>>}
    : tensor<?x6x64xf16>, !cache -> tensor<?x6x64xf32>, tensor<?x6xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c8_zero(%q: tensor<?x4x64xf16>, %cache: !cache) {
  // expected-error @below {{expected a positive finite softcap, but got 0}}
  kv.attend %q, %cache {scale = 0.125, softcap = 0.0} : tensor<?x4x64xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c8_infinite(%q: tensor<?x4x64xf16>, %cache: !cache) {
  // expected-error @below {{expected a positive finite softcap, but got}}
  kv.attend %q, %cache {scale = 0.125, softcap = 0x7FF0000000000000 : f64} : tensor<?x4x64xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c9_missing(%q: tensor<?x4x64xf16>, %cache: !cache) {
  // expected-error @below {{expected positive window_tokens exactly with reach sliding or chunked, but got 0}}
  kv.attend %q, %cache {scale = 0.125, reach = #kv.reach<sliding>} : tensor<?x4x64xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c9_alone(%q: tensor<?x4x64xf16>, %cache: !cache) {
  // expected-error @below {{expected positive window_tokens exactly with reach sliding or chunked, but got 32}}
  kv.attend %q, %cache {scale = 0.125, window_tokens = 32} : tensor<?x4x64xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c9_negative(%q: tensor<?x4x64xf16>, %cache: !cache) {
  // expected-error @below {{expected positive window_tokens exactly with reach sliding or chunked, but got -1}}
  kv.attend %q, %cache {scale = 0.125, reach = #kv.reach<chunked>, window_tokens = -1} : tensor<?x4x64xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_c10(%q: tensor<?x4x64xf16>, %cache: !cache, %sinks: tensor<2xf32>) {
  // expected-error @below {{expected sinks [4], but got 'tensor<2xf32>'}}
  kv.attend %q, %cache sinks %sinks {scale = 0.125} : tensor<?x4x64xf16>, !cache sinks tensor<2xf32> -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_without_scale(%q: tensor<?x4x64xf16>, %cache: !cache) {
  // expected-error @below {{'kv.attend' op requires attribute 'scale'}}
  kv.attend %q, %cache : tensor<?x4x64xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @attend_placement(%q: tensor<?x4x64xf16>, %cache: !cache) {
  // expected-error @below {{attribute 'key_scales' failed to satisfy constraint: where a scale is multiplied in}}
  kv.attend %q, %cache {scale = 0.125, key_scales = "result"} : tensor<?x4x64xf16>, !cache -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

//===-- kv.append ---------------------------------------------------------------------------===//

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @append_c1_rank(%k: tensor<2x?x64xf16>, %v: tensor<2x?x64xf16>, %cache: !cache) {
  // expected-error @below {{expected key and value [batch, kv_heads, tokens, head_dim] of one type, but got 'tensor<2x?x64xf16>' and 'tensor<2x?x64xf16>'}}
  kv.append %k, %v into %cache : tensor<2x?x64xf16>, tensor<2x?x64xf16> into !cache -> !cache
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @append_c1_type(%k: tensor<?x2x?x64xf16>, %v: tensor<?x2x?x64xf32>, %cache: !cache) {
  // expected-error @below {{of one type, but got 'tensor<?x2x?x64xf16>' and 'tensor<?x2x?x64xf32>'}}
  kv.append %k, %v into %cache : tensor<?x2x?x64xf16>, tensor<?x2x?x64xf32> into !cache -> !cache
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @append_c2_heads(%k: tensor<?x4x?x64xf16>, %v: tensor<?x4x?x64xf16>, %cache: !cache) {
  // expected-error @below {{expected kv_heads = 2 and head_dim = 64, but got 'tensor<?x4x?x64xf16>'}}
  kv.append %k, %v into %cache : tensor<?x4x?x64xf16>, tensor<?x4x?x64xf16> into !cache -> !cache
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @append_c2_channels(%k: tensor<?x2x?x32xf16>, %v: tensor<?x2x?x32xf16>, %cache: !cache) {
  // expected-error @below {{expected kv_heads = 2 and head_dim = 64, but got 'tensor<?x2x?x32xf16>'}}
  kv.append %k, %v into %cache : tensor<?x2x?x32xf16>, tensor<?x2x?x32xf16> into !cache -> !cache
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
!other = !kv.cache<kv_heads = 2, head_dim = 64, dtype = bf16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @append_c3(%k: tensor<?x2x?x64xf16>, %v: tensor<?x2x?x64xf16>, %cache: !cache) {
  // expected-error @below {{expected the result to have the type of the cache, but got '!kv.cache<kv_heads = 2, head_dim = 64, dtype = bf16}}
  kv.append %k, %v into %cache : tensor<?x2x?x64xf16>, tensor<?x2x?x64xf16> into !cache -> !other
  return
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @append_c4(%k: tensor<?x2x?x64xf32>, %v: tensor<?x2x?x64xf32>, %cache: !cache) {
  // expected-error @below {{expected elements of the cache's dtype 'f16', but got 'tensor<?x2x?x64xf32>'}}
  kv.append %k, %v into %cache : tensor<?x2x?x64xf32>, tensor<?x2x?x64xf32> into !cache -> !cache
  return
}

// -----

//===-- kv.merge ----------------------------------------------------------------------------===//

func.func @merge_c1_rank(%outs: tensor<?x4x64xf32>, %lses: tensor<?x4xf32>) {
  // expected-error @below {{expected outs [parts, batch, q_heads, head_dim] and lses [parts, batch, q_heads], but got 'tensor<?x4x64xf32>' and 'tensor<?x4xf32>'}}
  kv.merge %outs, %lses : tensor<?x4x64xf32>, tensor<?x4xf32> -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

func.func @merge_c1_lses(%outs: tensor<?x?x4x64xf32>, %lses: tensor<?x?x2xf32>) {
  // expected-error @below {{expected outs [parts, batch, q_heads, head_dim] and lses [parts, batch, q_heads], but got 'tensor<?x?x4x64xf32>' and 'tensor<?x?x2xf32>'}}
  kv.merge %outs, %lses : tensor<?x?x4x64xf32>, tensor<?x?x2xf32> -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return
}

// -----

func.func @merge_c2_out(%outs: tensor<?x?x4x64xf32>, %lses: tensor<?x?x4xf32>) {
  // expected-error @below {{expected out and lse without the leading dimension, but got 'tensor<?x4x32xf32>' and 'tensor<?x4xf32>'}}
  kv.merge %outs, %lses : tensor<?x?x4x64xf32>, tensor<?x?x4xf32> -> tensor<?x4x32xf32>, tensor<?x4xf32>
  return
}

// -----

func.func @merge_c2_lse(%outs: tensor<?x?x4x64xf32>, %lses: tensor<?x?x4xf32>) {
  // expected-error @below {{expected out and lse without the leading dimension, but got 'tensor<?x4x64xf32>' and 'tensor<?x4x64xf32>'}}
  kv.merge %outs, %lses : tensor<?x?x4x64xf32>, tensor<?x?x4xf32> -> tensor<?x4x64xf32>, tensor<?x4x64xf32>
  return
}
