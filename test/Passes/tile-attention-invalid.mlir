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

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>,
                   value = <i4, map = sym, group = 1x32, scale = f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @placement_accumulator(%q: tensor<?x8x64xf16>, %cache: !cache) -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  // expected-error @below {{expected a scale for every free index of '!kv.block<value, 32x64xi4, packing = <16x4>>' with placement accumulator}}
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<none>, value_scales = #kv.placement<accumulator>,
      schedule = #kv.schedule<heads = 4, page = 128, compute = f32, key = <16x4>, value = <16x4>,
                              floats = <16x1>>}
    : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <i4, map = sym, group = 1x32, scale = f16>,
                   value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @placement_operand(%q: tensor<?x8x64xf16>, %cache: !cache) -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  // expected-error @below {{expected scales with 64 reduced indices, but got '!kv.block<key, 32x2xf16, packing = <16x1>>'}}
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<operand>, value_scales = #kv.placement<none>,
      schedule = #kv.schedule<heads = 4, page = 128, compute = f32, key = <16x4>, value = <16x4>,
                              floats = <16x1>>}
    : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>,
                   value = <i4, map = sym, group = 32x1, scale = f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @placement_element(%q: tensor<?x8x64xf16>, %cache: !cache) -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  // expected-error @below {{'kv.attend' op expected scales placed at none, accumulator, result or operand, but got element}}
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<none>, value_scales = #kv.placement<element>,
      schedule = #kv.schedule<heads = 4, page = 128, compute = f32, key = <16x4>, value = <16x4>,
                              floats = <16x1>>}
    : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// -----

// Packings that do not fit blocks of 32 tokens and 64 channels.
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <i4, map = sym, group = 1x32, scale = f16>,
                   value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @key_packing(%q: tensor<?x8x64xf16>, %cache: !cache) -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  // expected-error @below {{'kv.attend' op expected a packing whose tile divides 32x64 (free x reduced), but got #kv.packing<64x4>}}
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<accumulator>, value_scales = #kv.placement<none>,
      schedule = #kv.schedule<heads = 4, page = 128, compute = f32, key = <64x4>, value = <16x4>,
                              floats = <16x1>>}
    : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// -----

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>,
                   value = <i4, map = sym, group = 32x1, scale = f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @value_packing(%q: tensor<?x8x64xf16>, %cache: !cache) -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  // expected-error @below {{'kv.attend' op expected a packing whose tile divides 64x32 (free x reduced), but got #kv.packing<16x64>}}
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<none>, value_scales = #kv.placement<accumulator>,
      schedule = #kv.schedule<heads = 4, page = 128, compute = f32, key = <16x4>, value = <16x64>,
                              floats = <16x1>>}
    : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// -----

// No page is of numbers here, but the windows are.
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <i4, map = sym, group = 1x32, scale = f16>,
                   value = <i4, map = sym, group = 32x1, scale = f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @float_packing(%q: tensor<?x8x64xf16>, %cache: !cache) -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  // expected-error @below {{'kv.attend' op expected a packing whose tile divides 32x64 (free x reduced), but got #kv.packing<64x1>}}
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<accumulator>, value_scales = #kv.placement<accumulator>,
      schedule = #kv.schedule<heads = 4, page = 128, compute = f32, key = <16x4>, value = <16x4>,
                              floats = <64x1>>}
    : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// -----

func.func @dynamic_head_dim(%outs: tensor<?x?x8x?xf32>, %lses: tensor<?x?x8xf32>)
    -> (tensor<?x8x?xf32>, tensor<?x8xf32>) {
  // expected-error @below {{'kv.merge' op expected a static head_dim, a multiple of 32 from 32 to 256, but got 'tensor<?x8x?xf32>'}}
  %out, %lse = kv.merge %outs, %lses
    : tensor<?x?x8x?xf32>, tensor<?x?x8xf32> -> tensor<?x8x?xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x?xf32>, tensor<?x8xf32>
}

// -----

func.func @odd_head_dim(%outs: tensor<?x?x8x80xf32>, %lses: tensor<?x?x8xf32>)
    -> (tensor<?x8x80xf32>, tensor<?x8xf32>) {
  // expected-error @below {{'kv.merge' op expected a static head_dim, a multiple of 32 from 32 to 256, but got 'tensor<?x8x80xf32>'}}
  %out, %lse = kv.merge %outs, %lses
    : tensor<?x?x8x80xf32>, tensor<?x?x8xf32> -> tensor<?x8x80xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x80xf32>, tensor<?x8xf32>
}

// -----

func.func @large_head_dim(%outs: tensor<?x?x8x288xf32>, %lses: tensor<?x?x8xf32>)
    -> (tensor<?x8x288xf32>, tensor<?x8xf32>) {
  // expected-error @below {{'kv.merge' op expected a static head_dim, a multiple of 32 from 32 to 256, but got 'tensor<?x8x288xf32>'}}
  %out, %lse = kv.merge %outs, %lses
    : tensor<?x?x8x288xf32>, tensor<?x?x8xf32> -> tensor<?x8x288xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x288xf32>, tensor<?x8xf32>
}

// -----

// expected-error @below {{expected a function of one kv.attend, kv.append or kv.merge and the return of its results, but got kv.merge}}
func.func @results_dropped(%outs: tensor<?x?x8x64xf32>, %lses: tensor<?x?x8xf32>) -> tensor<?x8x64xf32> {
  %out, %lse = kv.merge %outs, %lses
    : tensor<?x?x8x64xf32>, tensor<?x?x8xf32> -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out : tensor<?x8x64xf32>
}

// -----

// expected-error @below {{expected a function of one kv.attend, kv.append or kv.merge and the return of its results, but got kv.merge}}
func.func @results_swapped(%outs: tensor<?x?x8x64xf32>, %lses: tensor<?x?x8xf32>)
    -> (tensor<?x8xf32>, tensor<?x8x64xf32>) {
  %out, %lse = kv.merge %outs, %lses
    : tensor<?x?x8x64xf32>, tensor<?x?x8xf32> -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %lse, %out : tensor<?x8xf32>, tensor<?x8x64xf32>
}

// -----

// expected-error @below {{expected a function of one kv.attend, kv.append or kv.merge and the return of its results, but got kv.merge}}
func.func @two_operations(%outs: tensor<?x?x8x64xf32>, %lses: tensor<?x?x8xf32>)
    -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  %0:2 = kv.merge %outs, %lses
    : tensor<?x?x8x64xf32>, tensor<?x?x8xf32> -> tensor<?x8x64xf32>, tensor<?x8xf32>
  %1:2 = kv.merge %outs, %lses
    : tensor<?x?x8x64xf32>, tensor<?x?x8xf32> -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %0#0, %0#1 : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// -----

// Nobody has said where everything lies.
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 0, flush = 32>>
func.func @append(%k: tensor<?x2x?x64xf16>, %v: tensor<?x2x?x64xf16>, %cache: !cache) -> !cache {
  // expected-error @below {{expected a schedule (run kv-plan-schedule first), but got none}}
  %0 = kv.append %k, %v into %cache : tensor<?x2x?x64xf16>, tensor<?x2x?x64xf16> into !cache -> !cache
  return %0 : !cache
}

// -----

// expected-error @below {{expected a function of one kv.attend, kv.append or kv.merge and the return of its results, but got func.return}}
func.func @empty() {
  return
}
