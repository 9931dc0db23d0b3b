// What kv-tile-attention refuses: attention without decisions, and functions that are no kernels.
// RUN: kvcc-opt %s -kv-tile-attention -verify-diagnostics -split-input-file

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @no_schedule(%q: tensor<?x8x64xf16>, %cache: !cache) -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  // expected-error @below {{'kv.attend' op expected schedule, key_scales and value_scales (run kv-place-scales and kv-plan-schedule first), but got none}}
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<none>, value_scales = #kv.placement<none>}
    : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @no_placement(%q: tensor<?x8x64xf16>, %cache: !cache) -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  // expected-error @below {{'kv.attend' op expected schedule, key_scales and value_scales}}
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<none>,
      schedule = #kv.schedule<heads = 4, page = 128, compute = f32, key = <16x4>, value = <16x4>,
                              floats = <16x1>>}
    : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// -----

// A placement that contradicts the format.
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                   key = <i4, map = sym, group = 1x32, scale = f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @placement_none(%q: tensor<?x8x64xf16>, %cache: !cache)
    -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  // expected-error @below {{expected scales, sums and a placement exactly with codes}}
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<none>, value_scales = #kv.placement<none>,
      schedule = #kv.schedule<heads = 4, page = 128, compute = f32, key = <16x4>, value = <16x4>,
                              floats = <16x1>>}
    : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// -----

func.func @dynamic_head_dim(%outs: tensor<?x?x8x?xf32>, %lses: tensor<?x?x8xf32>)
    -> (tensor<?x8x?xf32>, tensor<?x8xf32>) {
  // expected-error @below {{'kv.merge' op expected a static head_dim, but got 'tensor<?x8x?xf32>'}}
  %out, %lse = kv.merge %outs, %lses
    : tensor<?x?x8x?xf32>, tensor<?x?x8xf32> -> tensor<?x8x?xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x?xf32>, tensor<?x8xf32>
}

// -----

// expected-error @below {{expected a function of one kv.attend or kv.merge and the return of its results, but got kv.merge}}
func.func @results_dropped(%outs: tensor<?x?x8x64xf32>, %lses: tensor<?x?x8xf32>) -> tensor<?x8x64xf32> {
  %out, %lse = kv.merge %outs, %lses
    : tensor<?x?x8x64xf32>, tensor<?x?x8xf32> -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out : tensor<?x8x64xf32>
}

// -----

// expected-error @below {{expected a function of one kv.attend or kv.merge and the return of its results, but got kv.merge}}
func.func @results_swapped(%outs: tensor<?x?x8x64xf32>, %lses: tensor<?x?x8xf32>)
    -> (tensor<?x8xf32>, tensor<?x8x64xf32>) {
  %out, %lse = kv.merge %outs, %lses
    : tensor<?x?x8x64xf32>, tensor<?x?x8xf32> -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %lse, %out : tensor<?x8xf32>, tensor<?x8x64xf32>
}

// -----

// expected-error @below {{expected a function of one kv.attend or kv.merge and the return of its results, but got kv.merge}}
func.func @two_operations(%outs: tensor<?x?x8x64xf32>, %lses: tensor<?x?x8xf32>)
    -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  %0:2 = kv.merge %outs, %lses
    : tensor<?x?x8x64xf32>, tensor<?x?x8xf32> -> tensor<?x8x64xf32>, tensor<?x8xf32>
  %1:2 = kv.merge %outs, %lses
    : tensor<?x?x8x64xf32>, tensor<?x?x8xf32> -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %0#0, %0#1 : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// -----

// Appending has no form over tiles.
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
// expected-error @below {{expected a function of one kv.attend or kv.merge and the return of its results, but got kv.append}}
func.func @append(%k: tensor<?x2x?x64xf16>, %v: tensor<?x2x?x64xf16>, %cache: !cache) -> !cache {
  %0 = kv.append %k, %v into %cache : tensor<?x2x?x64xf16>, tensor<?x2x?x64xf16> into !cache -> !cache
  return %0 : !cache
}

// -----

// expected-error @below {{expected a function of one kv.attend or kv.merge and the return of its results, but got func.return}}
func.func @empty() {
  return
}
