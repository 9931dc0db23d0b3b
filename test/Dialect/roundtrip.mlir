// Every attribute, type and operation survives printing and parsing, in the pretty and in the generic form.
// RUN: kvcc-opt %s | kvcc-opt | FileCheck %s
// RUN: kvcc-opt %s --mlir-print-op-generic | kvcc-opt | FileCheck %s

//===-- Attributes --------------------------------------------------------------------------===//

// CHECK-LABEL: func.func private @quant
// CHECK-SAME:    #kv.quant<f16>,
// CHECK-SAME:    #kv.quant<bf16>,
// CHECK-SAME:    #kv.quant<f32>,
// CHECK-SAME:    #kv.quant<i2, map = sym, group = 1x16, scale = f16>,
// CHECK-SAME:    #kv.quant<i4, map = sym_full, group = 256x1, scale = f16>,
// CHECK-SAME:    #kv.quant<i8, map = sym_signed, group = 32x1, scale = f16, transforms = [#kv.diag<sqrt_max>]>,
// CHECK-SAME:    #kv.quant<i2, map = asym, group = 1x96, scale = bf16>,
// CHECK-SAME:    #kv.quant<i3, map = hybrid, group = 32x1, scale = f16, search = 16>,
// CHECK-SAME:    #kv.quant<i4, map = sym_signed, group = 1x64, scale = f8E4M3FN, search = 4, feedback>,
// CHECK-SAME:    #kv.quant<f8E4M3FN, map = sym, group = 1x128, scale = f16>,
// CHECK-SAME:    #kv.quant<f4E2M1FN, map = sym, group = 1x32, scale = f8E8M0FNU>,
// CHECK-SAME:    #kv.quant<bf16, transforms = [#kv.token_norm<f16>]>]
func.func private @quant() attributes {formats = [
  #kv.quant<f16>,
  #kv.quant<bf16>,
  #kv.quant<f32>,
  #kv.quant<i2, map = sym, group = 1x16, scale = f16, transforms = []>,
  #kv.quant<i4, map = sym_full, group = 256x1, scale = f16>,
  // Keys in another order than they print.
  #kv.quant<i8, transforms = [#kv.diag<sqrt_max>], scale = f16, group = 32x1, map = sym_signed>,
  #kv.quant<i2, map = asym, group = 1x96, scale = bf16>,
  #kv.quant<i3, map = hybrid, group = 32x1, scale = f16, search = 16>,
  #kv.quant<i4, feedback, search = 4, map = sym_signed, group = 1x64, scale = f8E4M3FN>,
  #kv.quant<f8E4M3FN, map = sym, group = 1x128, scale = f16, search = 0>,
  #kv.quant<f4E2M1FN, map = sym, group = 1x32, scale = f8E8M0FNU>,
  #kv.quant<bf16, transforms = [#kv.token_norm<f16>]>]}

// CHECK-LABEL: func.func private @transforms
// CHECK-SAME:    #kv.diag<sqrt_max>,
// CHECK-SAME:    #kv.diag<rms, strength = 0.2, tied>,
// CHECK-SAME:    #kv.diag<rms, strength = 1.25E-5>,
// CHECK-SAME:    #kv.diag<rms>,
// CHECK-SAME:    #kv.diag<tensor>,
// CHECK-SAME:    #kv.diag<given, tied, weights>,
// CHECK-SAME:    #kv.center,
// CHECK-SAME:    #kv.hadamard<16>,
// CHECK-SAME:    #kv.token_norm<f16>,
// CHECK-SAME:    #kv.token_norm<f8E8M0FNU>,
// CHECK-SAME:    [#kv.diag<rms, strength = 0.2>, #kv.center, #kv.hadamard<256>, #kv.token_norm<f8E8M0FNU>]]
func.func private @transforms() attributes {transforms = [
  #kv.diag<sqrt_max, strength = 1.0>,
  #kv.diag<rms, tied, strength = 0.2>,
  #kv.diag<rms, strength = 0.0000125>,
  #kv.diag<rms>,
  #kv.diag<tensor>,
  #kv.diag<given, weights, tied>,
  #kv.center,
  #kv.hadamard<16>,
  #kv.token_norm<f16>,
  #kv.token_norm<f8E8M0FNU>,
  [#kv.diag<rms, strength = 0.2>, #kv.center, #kv.hadamard<256>, #kv.token_norm<f8E8M0FNU>]]}

// CHECK-LABEL: func.func private @window
// CHECK-SAME:    #kv.window<sink = 0, recent = 0, flush = 32>,
// CHECK-SAME:    #kv.window<sink = 4, recent = 0, flush = 1>,
// CHECK-SAME:    #kv.window<sink = 32, recent = 96, flush = 32>,
// CHECK-SAME:    #kv.window<sink = 4096, recent = 4096, flush = 4096>]
func.func private @window() attributes {windows = [
  #kv.window<sink = 0, recent = 0, flush = 32>,
  #kv.window<sink = 4, recent = 0, flush = 1>,
  #kv.window<flush = 32, recent = 96, sink = 32>,
  #kv.window<sink = 4096, recent = 4096, flush = 4096>]}

// CHECK-LABEL: func.func private @packing
// CHECK-SAME:    #kv.packing<1x1>,
// CHECK-SAME:    #kv.packing<16x4>,
// CHECK-SAME:    #kv.packing<256x256>,
// CHECK-SAME:    #kv.packing<32x32, lanes = 32>,
// CHECK-SAME:    #kv.packing<16x32, lanes = 64>,
// CHECK-SAME:    #kv.packing<64x32, lanes = 256>,
// CHECK-SAME:    #kv.packing<fragments>,
// CHECK-SAME:    #kv.packing<fragment_rows>,
// CHECK-SAME:    #kv.packing<fragment_columns>]
func.func private @packing() attributes {packings = [
  #kv.packing<1x1>,
  #kv.packing<16x4, lanes = 1>,
  #kv.packing<256x256>,
  #kv.packing<32x32, lanes = 32>,
  #kv.packing<16x32, lanes = 64>,
  #kv.packing<64x32, lanes = 256>,
  #kv.packing<fragments>,
  #kv.packing<fragment_rows>,
  #kv.packing<fragment_columns>]}

// CHECK-LABEL: func.func private @schedule
// CHECK-SAME:    #kv.schedule<heads = 1, page = 32, compute = f32, key = <32x32, lanes = 32>, value = <32x32, lanes = 32>, floats = <32x1>>,
// CHECK-SAME:    #kv.schedule<heads = 16, page = 4096, compute = int8, key = <16x4>, value = <16x32, lanes = 64>, floats = <16x1>, ahead = 2>,
// CHECK-SAME:    #kv.schedule<heads = 4, page = 65536, compute = int16, key = <16x32, lanes = 64>, value = <16x32, lanes = 64>, floats = <16x1>, accumulators = 32>]
func.func private @schedule() attributes {schedules = [
  #kv.schedule<heads = 1, page = 32, compute = f32, key = <32x32, lanes = 32>, value = <32x32, lanes = 32>,
               floats = <32x1>>,
  #kv.schedule<heads = 16, page = 4096, compute = int8, key = #kv.packing<16x4>, value = <16x32, lanes = 64>,
               floats = <16x1>, accumulators = 0, ahead = 2>,
  // Keys in another order than they print.
  #kv.schedule<accumulators = 32, heads = 4, page = 65536, compute = int16, floats = <16x1>,
               value = <16x32, lanes = 64>, key = <16x32, lanes = 64>>]}

// CHECK-LABEL: func.func private @target
// CHECK-SAME:    #kv.target<cpu, "avx512_vnni">,
// CHECK-SAME:    #kv.target<cuda, "sm_90">]
func.func private @target() attributes {targets = [
  #kv.target<cpu, "avx512_vnni">,
  #kv.target<cuda, "sm_90">]}

// CHECK-LABEL: func.func private @placement
// CHECK-SAME:    #kv.placement<none>,
// CHECK-SAME:    #kv.placement<accumulator>,
// CHECK-SAME:    #kv.placement<result>,
// CHECK-SAME:    #kv.placement<operand>,
// CHECK-SAME:    #kv.placement<element>]
func.func private @placement() attributes {placements = [
  #kv.placement<none>,
  #kv.placement<accumulator>,
  #kv.placement<result>,
  #kv.placement<operand>,
  #kv.placement<element>]}

//===-- Types -------------------------------------------------------------------------------===//

// CHECK-LABEL: func.func private @plain_cache(
// CHECK-SAME:    !kv.cache<kv_heads = 1, head_dim = 256, dtype = bf16, key = <bf16>, value = <f32>, window = <sink = 0, recent = 0, flush = 32>>)
func.func private @plain_cache(
  !kv.cache<kv_heads = 1, head_dim = 256, dtype = bf16, key = <bf16>, value = <f32>,
            window = <sink = 0, recent = 0, flush = 32>>)

// CHECK-LABEL: func.func private @quantized_cache(
// CHECK-SAME:    !kv.cache<kv_heads = 8, head_dim = 128, dtype = f16, key = <i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>]>, value = <i2, map = sym, group = 32x1, scale = f16>, window = <sink = 32, recent = 96, flush = 32>>)
#key = #kv.quant<i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>]>
!cache = !kv.cache<kv_heads = 8, head_dim = 128, dtype = f16, key = #key,
                   value = <i2, map = sym, group = 32x1, scale = f16>,
                   window = <sink = 32, recent = 96, flush = 32>>
func.func private @quantized_cache(!cache)

// CHECK-LABEL: func.func private @transformed_cache(
// CHECK-SAME:    key = <f4E2M1FN, map = sym, group = 1x16, scale = f8E4M3FN, transforms = [#kv.diag<tensor>], feedback>,
// CHECK-SAME:    value = <i4, map = sym_signed, group = 1x128, scale = f16, transforms = [#kv.center, #kv.hadamard<128>]>, window = <sink = 0, recent = 0, flush = 1>>)
func.func private @transformed_cache(
  !kv.cache<kv_heads = 8, head_dim = 128, dtype = f16,
            key = <f4E2M1FN, map = sym, group = 1x16, scale = f8E4M3FN, transforms = [#kv.diag<tensor>], feedback>,
            value = <i4, map = sym_signed, group = 1x128, scale = f16,
                     transforms = [#kv.center, #kv.hadamard<128>]>,
            window = <sink = 0, recent = 0, flush = 1>>)

// CHECK-LABEL: func.func private @block(
// CHECK-SAME:    !kv.block<key, 32x128xi3, packing = <16x4>>,
// CHECK-SAME:    !kv.block<key, 32x4xf16, packing = <32x1>>,
// CHECK-SAME:    !kv.block<value, 32x64xi8, packing = <32x32, lanes = 32>>,
// CHECK-SAME:    !kv.block<key, 32x64xf8E4M3FN, packing = <16x4>>,
// CHECK-SAME:    !kv.block<value, 32x64xf4E2M1FN, packing = <16x4>>,
// CHECK-SAME:    !kv.block<value, 32x1xf8E8M0FNU, packing = <1x1>>)
func.func private @block(
  !kv.block<key, 32x128xi3, packing = <16x4>>,
  !kv.block<key, 32x4xf16, packing = #kv.packing<32x1>>,
  !kv.block<value, 32x64xi8, packing = <32x32, lanes = 32>>,
  !kv.block<key, 32x64xf8E4M3FN, packing = <16x4>>,
  !kv.block<value, 32x64xf4E2M1FN, packing = <16x4>>,
  !kv.block<value, 32x1xf8E8M0FNU, packing = <1x1>>)

// CHECK-LABEL: func.func private @state(
// CHECK-SAME:    !kv.state<4x128>)
func.func private @state(!kv.state<4x128>)

//===-- Level 1 -----------------------------------------------------------------------------===//

// CHECK-LABEL: func.func @attend(
// CHECK-SAME:    %[[Q:.*]]: tensor<?x32x128xf16>, %[[C:.*]]: !kv.cache
// CHECK:         kv.attend %[[Q]], %[[C]] {scale = 1.250000e-01 : f64} : tensor<?x32x128xf16>, <kv_heads = 8
// CHECK-SAME:      -> tensor<?x32x128xf32>, tensor<?x32xf32>
func.func @attend(%q: tensor<?x32x128xf16>, %cache: !cache) -> (tensor<?x32x128xf32>, tensor<?x32xf32>) {
  %out, %lse = kv.attend %q, %cache {scale = 0.125} : tensor<?x32x128xf16>, !cache
                 -> tensor<?x32x128xf32>, tensor<?x32xf32>
  return %out, %lse : tensor<?x32x128xf32>, tensor<?x32xf32>
}

// CHECK-LABEL: func.func @attend_decided(
// CHECK:         kv.attend {{.*}} {key_scales = #kv.placement<accumulator>, scale = 1.250000e-01 : f64,
// CHECK-SAME:      schedule = #kv.schedule<heads = 2, page = 64, compute = int8, key = <16x4>, value = <16x4>, floats = <16x1>>,
// CHECK-SAME:      value_scales = #kv.placement<operand>} : tensor<2x32x128xf32>
func.func @attend_decided(%q: tensor<2x32x128xf32>, %cache: !cache)
    -> (tensor<2x32x128xf32>, tensor<2x32xf32>) {
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<accumulator>, value_scales = #kv.placement<operand>,
      schedule = #kv.schedule<heads = 2, page = 64, compute = int8, key = <16x4>, value = <16x4>,
                              floats = <16x1>>}
    : tensor<2x32x128xf32>, !cache -> tensor<2x32x128xf32>, tensor<2x32xf32>
  return %out, %lse : tensor<2x32x128xf32>, tensor<2x32xf32>
}

// CHECK-LABEL: func.func @attend_bounded(
// CHECK:         kv.attend %{{.*}}, %{{.*}} sinks %[[S:.*]] {reach = #kv.reach<sliding>, scale = 1.250000e-01 : f64, softcap = 5.000000e+01 : f64,
// CHECK-SAME:      window_tokens = 4096 : i64} : tensor<2x32x128xf32>, <{{.*}}> sinks tensor<32xf32> -> tensor<2x32x128xf32>
func.func @attend_bounded(%q: tensor<2x32x128xf32>, %cache: !cache, %sinks: tensor<32xf32>)
    -> (tensor<2x32x128xf32>, tensor<2x32xf32>) {
  %out, %lse = kv.attend %q, %cache sinks %sinks {
      scale = 0.125, softcap = 50.0, reach = #kv.reach<sliding>, window_tokens = 4096}
    : tensor<2x32x128xf32>, !cache sinks tensor<32xf32> -> tensor<2x32x128xf32>, tensor<2x32xf32>
  return %out, %lse : tensor<2x32x128xf32>, tensor<2x32xf32>
}

// CHECK-LABEL: func.func @append(
// CHECK-SAME:    %[[K:.*]]: tensor<?x8x?x128xf16>, %[[V:.*]]: tensor<?x8x?x128xf16>, %[[C:.*]]: !kv.cache
// CHECK:         kv.append %[[K]], %[[V]] into %[[C]] : tensor<?x8x?x128xf16>, tensor<?x8x?x128xf16> into <kv_heads = 8
func.func @append(%k: tensor<?x8x?x128xf16>, %v: tensor<?x8x?x128xf16>, %cache: !cache) -> !cache {
  %0 = kv.append %k, %v into %cache : tensor<?x8x?x128xf16>, tensor<?x8x?x128xf16> into !cache -> !cache
  return %0 : !cache
}

// CHECK-LABEL: func.func @merge(
// CHECK-SAME:    %[[O:.*]]: tensor<?x?x32x128xf32>, %[[L:.*]]: tensor<?x?x32xf32>)
// CHECK:         kv.merge %[[O]], %[[L]] : tensor<?x?x32x128xf32>, tensor<?x?x32xf32> -> tensor<?x32x128xf32>, tensor<?x32xf32>
func.func @merge(%o: tensor<?x?x32x128xf32>, %l: tensor<?x?x32xf32>)
    -> (tensor<?x32x128xf32>, tensor<?x32xf32>) {
  %out, %lse = kv.merge %o, %l : tensor<?x?x32x128xf32>, tensor<?x?x32xf32>
                 -> tensor<?x32x128xf32>, tensor<?x32xf32>
  return %out, %lse : tensor<?x32x128xf32>, tensor<?x32xf32>
}

//===-- Level 2 -----------------------------------------------------------------------------===//

// CHECK-LABEL: func.func @query(
// CHECK-SAME:    %[[Q:.*]]: memref<?xf16>, %[[B:.*]]: memref<?xi8>, %[[AT:.*]]: index)
// CHECK:         %[[TILE:.*]] = kv.tile.load_query %[[Q]][%[[AT]]] scale 1.250000e-01 : memref<?xf16> -> vector<2x64xf32>
// CHECK:         %[[SCALED:.*]] = kv.tile.scale_channels %[[TILE]], %[[B]][%[[AT]]] : vector<2x64xf32>, memref<?xi8> -> vector<2x64xf32>
// CHECK:         kv.tile.prepare %[[SCALED]] group 32 : vector<2x64xf32> -> vector<2x64xf32>, vector<2x2xf32>{{$}}
// CHECK:         kv.tile.prepare %[[SCALED]] group 64 : vector<2x64xf32> -> vector<2x64xi16>, vector<2x1xf32>, vector<2x1xf32>
// CHECK:         kv.tile.prepare %[[SCALED]] group 16 : vector<2x64xf32> -> vector<2x64xi8>, vector<2x4xf32>, vector<2x4xf32>
// CHECK:         kv.tile.prepare %[[SCALED]] group 16 : vector<2x64xf32> -> vector<2x64xui8>, vector<2x4xf32>, vector<2x4xf32>
func.func @query(%q: memref<?xf16>, %bytes: memref<?xi8>, %at: index) {
  %0 = kv.tile.load_query %q[%at] scale 0.125 : memref<?xf16> -> vector<2x64xf32>
  %1 = kv.tile.scale_channels %0, %bytes[%at] : vector<2x64xf32>, memref<?xi8> -> vector<2x64xf32>
  %2:2 = kv.tile.prepare %1 group 32 : vector<2x64xf32> -> vector<2x64xf32>, vector<2x2xf32>
  %3:3 = kv.tile.prepare %1 group 64
    : vector<2x64xf32> -> vector<2x64xi16>, vector<2x1xf32>, vector<2x1xf32>
  %4:3 = kv.tile.prepare %1 group 16
    : vector<2x64xf32> -> vector<2x64xi8>, vector<2x4xf32>, vector<2x4xf32>
  %5:3 = kv.tile.prepare %1 group 16
    : vector<2x64xf32> -> vector<2x64xui8>, vector<2x4xf32>, vector<2x4xf32>
  return
}

// CHECK-LABEL: func.func @codes(
// CHECK-SAME:    %[[B:[^:]*]]: memref<?xi8>, %[[AT:[^:]*]]: index, %[[STATE:[^:]*]]: !kv.state<2x64>,
// CHECK-SAME:    %[[Q:[^:]*]]: vector<2x64xi16>, %[[QS:[^:]*]]: vector<2x2xf32>, %[[W:[^:]*]]: vector<2x32xui8>, %[[WS:[^:]*]]: vector<2x1xf32>)
// CHECK:         %[[K:.*]] = kv.tile.load %[[B]][%[[AT]]] : memref<?xi8> -> <key, 32x64xi3, packing = <16x32, lanes = 64>>
// CHECK:         %[[KS:.*]] = kv.tile.load {{.*}} -> <key, 32x2xf16, packing = <16x1>>
// CHECK:         kv.tile.score %[[Q]], %[[K]] scales %[[KS]] sums %[[QS]] query_scales %[[QS]] placement <accumulator> ahead %[[B]][%[[AT]]] bytes 1792
// CHECK-SAME:      : vector<2x64xi16>, <key, 32x64xi3, packing = <16x32, lanes = 64>>, scales !kv.block<key, 32x2xf16, packing = <16x1>>, sums vector<2x2xf32> query_scales vector<2x2xf32> ahead memref<?xi8> -> vector<2x32xf32>
// CHECK:         %[[V:.*]] = kv.tile.load {{.*}} -> <value, 32x64xi2, packing = <16x32, lanes = 64>>
// CHECK:         %[[VS:.*]] = kv.tile.load {{.*}} -> <value, 1x64xf16, packing = <16x1>>
// CHECK:         kv.tile.accumulate %[[STATE]], %[[W]], %[[V]] scales %[[VS]] sums %[[WS]] weight_scales %[[WS]] placement <result> ahead %[[B]][%[[AT]]] bytes 1280
// CHECK-SAME:      : <2x64>, vector<2x32xui8>, <value, 32x64xi2, packing = <16x32, lanes = 64>>, scales !kv.block<value, 1x64xf16, packing = <16x1>>, sums vector<2x1xf32> weight_scales vector<2x1xf32> ahead memref<?xi8>
func.func @codes(%bytes: memref<?xi8>, %at: index, %state: !kv.state<2x64>, %q: vector<2x64xi16>,
                 %qs: vector<2x2xf32>, %w: vector<2x32xui8>, %ws: vector<2x1xf32>) {
  %k = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>>
  %ks = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x2xf16, packing = <16x1>>
  %0 = kv.tile.score %q, %k scales %ks sums %qs query_scales %qs placement <accumulator>
      ahead %bytes[%at] bytes 1792
    : vector<2x64xi16>, !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>>,
      scales !kv.block<key, 32x2xf16, packing = <16x1>>, sums vector<2x2xf32>
      query_scales vector<2x2xf32> ahead memref<?xi8> -> vector<2x32xf32>
  %v = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<value, 32x64xi2, packing = <16x32, lanes = 64>>
  %vs = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<value, 1x64xf16, packing = <16x1>>
  kv.tile.accumulate %state, %w, %v scales %vs sums %ws weight_scales %ws placement <result>
      ahead %bytes[%at] bytes 1280
    : !kv.state<2x64>, vector<2x32xui8>, !kv.block<value, 32x64xi2, packing = <16x32, lanes = 64>>,
      scales !kv.block<value, 1x64xf16, packing = <16x1>>, sums vector<2x1xf32>
      weight_scales vector<2x1xf32> ahead memref<?xi8>
  return
}

// CHECK-LABEL: func.func @folded(
// CHECK-SAME:    %[[STATE:[^:]*]]: !kv.state<2x64>, %[[Q:[^:]*]]: vector<2x64xf32>, %[[W:[^:]*]]: vector<2x32xf32>,
// CHECK:         kv.tile.fold %[[W]], %[[NORMS:.*]] : vector<2x32xf32>, <value, 32x1xf8E8M0FNU, packing = <1x1>> -> vector<2x32xf32>{{$}}
// CHECK:         %[[FQ:.*]], %[[OQ:.*]] = kv.tile.fold %[[Q]], %[[KS:.*]] zeros %[[KS]] middle 2 : vector<2x64xf32>, <key, 1x64xf16, packing = <1x1>> zeros !kv.block<key, 1x64xf16, packing = <1x1>> -> vector<2x64xf32> offsets vector<2x1xf32>
// CHECK:         kv.tile.score %[[FQ]], %[[K:.*]] scales %[[KS]] sums %[[OQ]] offsets %[[OQ]] placement <operand> : vector<2x64xf32>, <key, 32x64xi2, packing = <16x32, lanes = 64>>, scales !kv.block<key, 1x64xf16, packing = <1x1>>, sums vector<2x1xf32> offsets vector<2x1xf32> -> vector<2x32xf32>
// CHECK:         %[[FW:.*]], %[[OW:.*]] = kv.tile.fold %[[W]], %[[VS:.*]] zeros %[[VS]] middle 0 : vector<2x32xf32>, <value, 32x2xbf16, packing = <1x1>>
// CHECK-SAME:      -> vector<4x32xf32> offsets vector<4x1xf32>
// CHECK:         kv.tile.accumulate %[[STATE]], %[[FW]], %[[V:.*]] scales %[[VS]] sums %[[OW]] offsets %[[OW]] placement <operand> : <2x64>, vector<4x32xf32>, <value, 32x64xi2, packing = <16x32, lanes = 64>>, scales !kv.block<value, 32x2xbf16, packing = <1x1>>, sums vector<4x1xf32> offsets vector<4x1xf32>
func.func @folded(%state: !kv.state<2x64>, %q: vector<2x64xf32>, %w: vector<2x32xf32>,
                  %k: !kv.block<key, 32x64xi2, packing = <16x32, lanes = 64>>,
                  %ks: !kv.block<key, 1x64xf16, packing = <1x1>>,
                  %v: !kv.block<value, 32x64xi2, packing = <16x32, lanes = 64>>,
                  %vs: !kv.block<value, 32x2xbf16, packing = <1x1>>,
                  %norms: !kv.block<value, 32x1xf8E8M0FNU, packing = <1x1>>) {
  %0 = kv.tile.fold %w, %norms
    : vector<2x32xf32>, !kv.block<value, 32x1xf8E8M0FNU, packing = <1x1>> -> vector<2x32xf32>
  %1:2 = kv.tile.fold %q, %ks zeros %ks middle 2
    : vector<2x64xf32>, !kv.block<key, 1x64xf16, packing = <1x1>> zeros !kv.block<key, 1x64xf16, packing = <1x1>>
      -> vector<2x64xf32> offsets vector<2x1xf32>
  %2 = kv.tile.score %1#0, %k scales %ks sums %1#1 offsets %1#1 placement <operand>
    : vector<2x64xf32>, !kv.block<key, 32x64xi2, packing = <16x32, lanes = 64>>,
      scales !kv.block<key, 1x64xf16, packing = <1x1>>, sums vector<2x1xf32> offsets vector<2x1xf32>
      -> vector<2x32xf32>
  %3:2 = kv.tile.fold %w, %vs zeros %vs middle 0
    : vector<2x32xf32>, !kv.block<value, 32x2xbf16, packing = <1x1>> zeros !kv.block<value, 32x2xbf16, packing = <1x1>>
      -> vector<4x32xf32> offsets vector<4x1xf32>
  kv.tile.accumulate %state, %3#0, %v scales %vs sums %3#1 offsets %3#1 placement <operand>
    : !kv.state<2x64>, vector<4x32xf32>, !kv.block<value, 32x64xi2, packing = <16x32, lanes = 64>>,
      scales !kv.block<value, 32x2xbf16, packing = <1x1>>, sums vector<4x1xf32> offsets vector<4x1xf32>
  return
}

// CHECK-LABEL: func.func @zeros(
// CHECK:         kv.tile.score %{{.*}}, %{{.*}} scales %[[KS:.*]] zeros %[[KS]] sums %[[QS:.*]] query_scales %[[QS]] placement <accumulator> : vector<2x64xi16>, <key, 32x64xi4, packing = <16x32, lanes = 64>>, scales !kv.block<key, 32x2xf16, packing = <16x1>> zeros !kv.block<key, 32x2xf16, packing = <16x1>>, sums vector<2x2xf32> query_scales vector<2x2xf32> -> vector<2x32xf32>
// CHECK:         kv.tile.accumulate %{{.*}}, %{{.*}}, %{{.*}} scales %[[VS:.*]] zeros %[[VS]] hybrid sums %[[WS:.*]] weight_scales %[[WS]] placement <accumulator> : <2x64>, vector<2x32xui8>, <value, 32x64xi2, packing = <16x32, lanes = 64>>, scales !kv.block<value, 1x64xf16, packing = <16x1>> zeros !kv.block<value, 1x64xf16, packing = <16x1>>, sums vector<2x1xf32> weight_scales vector<2x1xf32>
func.func @zeros(%state: !kv.state<2x64>, %q: vector<2x64xi16>, %qs: vector<2x2xf32>,
                 %k: !kv.block<key, 32x64xi4, packing = <16x32, lanes = 64>>,
                 %ks: !kv.block<key, 32x2xf16, packing = <16x1>>, %w: vector<2x32xui8>, %ws: vector<2x1xf32>,
                 %v: !kv.block<value, 32x64xi2, packing = <16x32, lanes = 64>>,
                 %vs: !kv.block<value, 1x64xf16, packing = <16x1>>) {
  %0 = kv.tile.score %q, %k scales %ks zeros %ks sums %qs query_scales %qs placement <accumulator>
    : vector<2x64xi16>, !kv.block<key, 32x64xi4, packing = <16x32, lanes = 64>>,
      scales !kv.block<key, 32x2xf16, packing = <16x1>> zeros !kv.block<key, 32x2xf16, packing = <16x1>>,
      sums vector<2x2xf32> query_scales vector<2x2xf32> -> vector<2x32xf32>
  kv.tile.accumulate %state, %w, %v scales %vs zeros %vs hybrid sums %ws weight_scales %ws placement <accumulator>
    : !kv.state<2x64>, vector<2x32xui8>, !kv.block<value, 32x64xi2, packing = <16x32, lanes = 64>>,
      scales !kv.block<value, 1x64xf16, packing = <16x1>> zeros !kv.block<value, 1x64xf16, packing = <16x1>>,
      sums vector<2x1xf32> weight_scales vector<2x1xf32>
  return
}

// CHECK-LABEL: func.func @transforms_undone(
// CHECK-SAME:    %[[STATE:.*]]: !kv.state<2x64>, %[[Q:.*]]: vector<2x64xf32>, %[[B:.*]]: memref<?xi8>, %[[AT:.*]]: index,
// CHECK:         %[[MISSING:.*]] = kv.tile.dot_channels %[[Q]], %[[B]][%[[AT]]] : vector<2x64xf32>, memref<?xi8> -> vector<2x1xf32>
// CHECK:         kv.tile.dot_channels %[[Q]], %[[B]][%[[AT]]] scale 1.250000e-01 : vector<2x64xf32>, memref<?xi8> -> vector<2x1xf32>
// CHECK:         kv.tile.rotate %[[Q]] size 64 : vector<2x64xf32> -> vector<2x64xf32>
// CHECK:         %[[L:.*]] = kv.tile.softcap %{{.*}} plus %[[MISSING]] cap 3.000000e+01 : vector<2x32xf32> plus vector<2x1xf32> -> vector<2x32xf32>
// CHECK:         kv.tile.mask %[[L]] at %[[AT]] from %[[AT]] : vector<2x32xf32> -> vector<2x32xf32>
// CHECK:         kv.tile.mask %[[L]] at %[[AT]] end %[[AT]] later %[[AT]] heads 1 : vector<2x32xf32> -> vector<2x32xf32>
// CHECK:         kv.tile.load_query %{{.*}}[%[[AT]]] scale 1.000000e+00 queries %[[AT]] heads 1 stride 128 : memref<?xf32> -> vector<2x64xf32>
// CHECK:         kv.tile.join_sinks %[[STATE]], %[[F:.*]][%[[AT]]] exponent 10 heads 1 : <2x64>, memref<?xf32>
// CHECK:         kv.tile.arrive %{{.*}}[%[[AT]]] of %[[AT]] : memref<?xi32>
// CHECK:         kv.tile.shift_state %[[STATE]], %[[MISSING]] : <2x64>, vector<2x1xf32>
// CHECK:         kv.tile.restore %[[STATE]] size 16 : <2x64>{{$}}
// CHECK:         kv.tile.restore %[[STATE]] means %[[B]][%[[AT]]] : <2x64> means memref<?xi8>{{$}}
// CHECK:         kv.tile.restore %[[STATE]] factors %[[B]][%[[AT]]] : <2x64> factors memref<?xi8>{{$}}
// CHECK:         kv.tile.restore %[[STATE]] size 64 means %[[B]][%[[AT]]] factors %[[B]][%[[AT]]] : <2x64> means memref<?xi8> factors memref<?xi8>{{$}}
func.func @transforms_undone(%state: !kv.state<2x64>, %q: vector<2x64xf32>, %bytes: memref<?xi8>, %at: index,
                             %tile: vector<2x32xf32>, %floats: memref<?xf32>, %words: memref<?xi32>) {
  %0 = kv.tile.dot_channels %q, %bytes[%at] : vector<2x64xf32>, memref<?xi8> -> vector<2x1xf32>
  %scaled = kv.tile.dot_channels %q, %bytes[%at] scale 1.250000e-01 : vector<2x64xf32>, memref<?xi8> -> vector<2x1xf32>
  %1 = kv.tile.rotate %q size 64 : vector<2x64xf32> -> vector<2x64xf32>
  %2 = kv.tile.softcap %tile plus %0 cap 30.0 : vector<2x32xf32> plus vector<2x1xf32> -> vector<2x32xf32>
  %3 = kv.tile.mask %2 at %at from %at : vector<2x32xf32> -> vector<2x32xf32>
  %4 = kv.tile.mask %2 at %at end %at later %at heads 1 : vector<2x32xf32> -> vector<2x32xf32>
  %5 = kv.tile.load_query %floats[%at] scale 1.0 queries %at heads 1 stride 128 : memref<?xf32> -> vector<2x64xf32>
  kv.tile.join_sinks %state, %floats[%at] exponent 10 heads 1 : !kv.state<2x64>, memref<?xf32>
  %is_last = kv.tile.arrive %words[%at] of %at : memref<?xi32>
  kv.tile.shift_state %state, %0 : !kv.state<2x64>, vector<2x1xf32>
  kv.tile.restore %state size 16 : !kv.state<2x64>
  kv.tile.restore %state means %bytes[%at] : !kv.state<2x64> means memref<?xi8>
  kv.tile.restore %state factors %bytes[%at] : !kv.state<2x64> factors memref<?xi8>
  kv.tile.restore %state size 64 means %bytes[%at] factors %bytes[%at]
    : !kv.state<2x64> means memref<?xi8> factors memref<?xi8>
  return
}

// CHECK-LABEL: func.func @numbers(
// CHECK-SAME:    %[[AT:[^:]*]]: index, %[[Q:[^:]*]]: vector<2x64xf32>, %[[K:[^:]*]]: !kv.block<key, {{.*}}, %[[V:[^:]*]]: !kv.block<value,
// CHECK:         %[[STATE:.*]] = kv.tile.init_state : <2x64>
// CHECK:         %[[LOGITS:.*]] = kv.tile.score %[[Q]], %[[K]] placement <none> : vector<2x64xf32>, <key, 32x64xf16, packing = <16x1>> -> vector<2x32xf32>
// CHECK:         %[[MASKED:.*]] = kv.tile.mask %[[LOGITS]] at %[[AT]] valid %[[AT]] : vector<2x32xf32> -> vector<2x32xf32>
// CHECK:         %[[W:.*]] = kv.tile.softmax_step %[[STATE]], %[[MASKED]] : <2x64>, vector<2x32xf32> -> vector<2x32xf32>
// CHECK:         kv.tile.is_dominated %[[STATE]], %[[W]] share 1.250000e-01 : <2x64>, vector<2x32xf32>{{$}}
// CHECK:         kv.tile.accumulate %[[STATE]], %[[W]], %[[V]] placement <none> : <2x64>, vector<2x32xf32>, <value, 32x64xf16, packing = <16x1>>{{$}}
func.func @numbers(%at: index, %q: vector<2x64xf32>, %k: !kv.block<key, 32x64xf16, packing = <16x1>>,
                   %v: !kv.block<value, 32x64xf16, packing = <16x1>>) {
  %state = kv.tile.init_state : !kv.state<2x64>
  %0 = kv.tile.score %q, %k placement <none>
    : vector<2x64xf32>, !kv.block<key, 32x64xf16, packing = <16x1>> -> vector<2x32xf32>
  %1 = kv.tile.mask %0 at %at valid %at : vector<2x32xf32> -> vector<2x32xf32>
  %2 = kv.tile.softmax_step %state, %1 : !kv.state<2x64>, vector<2x32xf32> -> vector<2x32xf32>
  %3 = kv.tile.is_dominated %state, %2 share 0.125 : !kv.state<2x64>, vector<2x32xf32>
  kv.tile.accumulate %state, %2, %v placement <none>
    : !kv.state<2x64>, vector<2x32xf32>, !kv.block<value, 32x64xf16, packing = <16x1>>
  return
}

// CHECK-LABEL: func.func @results(
// CHECK-SAME:    %[[STATE:.*]]: !kv.state<1x64>, %[[F:.*]]: memref<?xf32>, %[[AT:.*]]: index, %[[L:.*]]: index, %[[H:.*]]: memref<?xf16>, %[[IS_PART:.*]]: i1)
// CHECK:         kv.tile.merge %[[F]][%[[AT]]], %[[F]][%[[L]]] count %[[AT]] rows %[[L]] into %[[H]][%[[L]]], %[[F]][%[[AT]]] heads 4 x 64 queries %[[AT]] stride 8 : memref<?xf32>, memref<?xf32> into memref<?xf16>, memref<?xf32>
// CHECK:         kv.tile.store_result %[[STATE]], %[[H]][%[[AT]]], %[[F]][%[[L]]] exponent 3 queries %[[AT]] heads 1 stride 8 part if %[[IS_PART]] into %[[F]][%[[L]]], [%[[AT]]] : <1x64>, memref<?xf16>, memref<?xf32> into memref<?xf32>
// CHECK:         kv.tile.store_result %[[STATE]], %[[F]][%[[AT]]], %[[F]][%[[L]]] : <1x64>, memref<?xf32>, memref<?xf32>
func.func @results(%state: !kv.state<1x64>, %floats: memref<?xf32>, %at: index, %lse_at: index, %halves: memref<?xf16>,
                   %is_part: i1) {
  kv.tile.merge %floats[%at], %floats[%lse_at] count %at rows %lse_at into %halves[%lse_at], %floats[%at] heads 4 x 64
    queries %at stride 8 : memref<?xf32>, memref<?xf32> into memref<?xf16>, memref<?xf32>
  kv.tile.store_result %state, %halves[%at], %floats[%lse_at] exponent 3 queries %at heads 1 stride 8 part if %is_part into %floats[%lse_at], [%at]
    : !kv.state<1x64>, memref<?xf16>, memref<?xf32> into memref<?xf32>
  kv.tile.store_result %state, %floats[%at], %floats[%lse_at]
    : !kv.state<1x64>, memref<?xf32>, memref<?xf32>
  return
}

// What writers do with a tile.
!key_window = !kv.block<key, 32x64xf16, packing = <16x1>>
!key_codes = !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>>
!key_scales = !kv.block<key, 32x2xf16, packing = <16x1>>
!norms = !kv.block<value, 32x1xf16, packing = <1x1>>
// CHECK-LABEL: func.func @writer(
// CHECK:         %[[TILE:.*]] = kv.tile.scratch : vector<32x64xf32>
// CHECK:         kv.tile.clear %{{.*}}[%[[I:.*]]] bytes 256 : memref<?xi8>
// CHECK:         kv.tile.measure %{{.*}}[%[[I]]] stride %[[I]] rows %[[I]] given %{{.*}}[%[[I]]] means %[[I]] into %{{.*}} factors %[[I]] means %[[I]] channels 64 as <i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>, #kv.center]> : memref<?xf16>, memref<?xf32>, memref<?xi8>
// CHECK:         kv.tile.gather %[[TILE]] oriented window %{{.*}}, %{{.*}}[%[[I]]] stride %[[I]] rows %[[I]] to %[[I]] end %[[I]] means %{{.*}}[%[[I]]] factors %{{.*}}[%[[I]]] : vector<32x64xf32> window !kv.block<key, 32x64xf16, packing = <16x1>>, memref<?xf16> means memref<?xi8> factors memref<?xi8>
// CHECK:         kv.tile.gather %[[TILE]], %{{.*}}[%[[I]]] stride %[[I]] rows %[[I]] to %[[I]] end %[[I]] : vector<32x64xf32>, memref<?xf16>
// CHECK:         kv.tile.rotate_rows %[[TILE]] size 64 : vector<32x64xf32>
// CHECK:         kv.tile.rotate_rows %[[TILE]] rows %[[I]] to %[[I]] size 64 : vector<32x64xf32>
// CHECK:         kv.tile.normalize_tokens %[[TILE]], %{{.*}} rows %[[I]] to %[[I]] : vector<32x64xf32>
// CHECK:         kv.tile.encode %[[TILE]] rows %[[I]] to %[[I]] into %{{.*}} scales %{{.*}} weights %{{.*}}[%[[I]]] if %[[I]] as <i3, map = sym, group = 1x32, scale = f16, feedback>
// CHECK:         kv.tile.encode %[[TILE]] oriented into %{{.*}} as <f16> : vector<32x64xf32> into <key, 32x64xf16, packing = <16x1>>
// CHECK:         kv.tile.write_rows %{{.*}}[%[[I]]] stride %[[I]] rows %[[I]] to %[[I]] into %{{.*}} : memref<?xf16> into <key, 32x64xf16, packing = <16x1>>
func.func @writer(%source: memref<?xf16>, %bytes: memref<?xi8>, %given: memref<?xf32>, %window: !key_window,
                  %codes: !key_codes, %scales: !key_scales, %norms: !norms, %i: index) {
  %tile = kv.tile.scratch : vector<32x64xf32>
  kv.tile.clear %bytes[%i] bytes 256 : memref<?xi8>
  kv.tile.measure %source[%i] stride %i rows %i given %given[%i] means %i into %bytes factors %i means %i channels 64
      as <i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>, #kv.center]>
      : memref<?xf16>, memref<?xf32>, memref<?xi8>
  kv.tile.gather %tile oriented window %window, %source[%i] stride %i rows %i to %i end %i means %bytes[%i] factors %bytes[%i]
      : vector<32x64xf32> window !key_window, memref<?xf16> means memref<?xi8> factors memref<?xi8>
  kv.tile.gather %tile, %source[%i] stride %i rows %i to %i end %i : vector<32x64xf32>, memref<?xf16>
  kv.tile.rotate_rows %tile size 64 : vector<32x64xf32>
  kv.tile.rotate_rows %tile rows %i to %i size 64 : vector<32x64xf32>
  kv.tile.normalize_tokens %tile, %norms rows %i to %i : vector<32x64xf32>, !norms
  kv.tile.encode %tile rows %i to %i into %codes scales %scales weights %given[%i] if %i
      as <i3, map = sym, group = 1x32, scale = f16, feedback>
      : vector<32x64xf32> into !key_codes scales !key_scales weights memref<?xf32>
  kv.tile.encode %tile oriented into %window as <f16> : vector<32x64xf32> into !key_window
  kv.tile.write_rows %source[%i] stride %i rows %i to %i into %window : memref<?xf16> into !key_window
  return
}

//===-- Warps and halves --------------------------------------------------------------------===//

!fragments = !kv.block<key, 32x64xi3, packing = <fragments>>
!row_scales = !kv.block<key, 32x2xf16, packing = <fragment_rows>>
!value_fragments = !kv.block<value, 32x64xi4, packing = <fragments>>
!column_scales = !kv.block<value, 32x2xf16, packing = <fragment_columns>>

// CHECK-LABEL: func.func @halves(
// CHECK:         kv.tile.warp
// CHECK:         kv.tile.advance %{{.*}}[%{{.*}}] : memref<?xi8> -> memref<?xi8>
// CHECK:         %[[RING:.*]] = kv.tile.ring stages 2 bytes 4096 : memref<?xi8>
// CHECK:         kv.tile.fetch %{{.*}}[%{{.*}}] to %[[RING]][%{{.*}}] bytes 2048 : memref<?xi8> to memref<?xi8>
// CHECK:         kv.tile.commit
// CHECK:         kv.tile.prefetch %{{.*}}[%{{.*}}] bytes 512 : memref<?xi8>
// CHECK:         kv.tile.await pending 1
// CHECK:         kv.tile.prepare %{{.*}} group 32 for i3 factor 1.250000e-01 : vector<2x64xf32> -> vector<2x64xf16>, vector<2x2xf32>, vector<2x1xf32>
// CHECK:         kv.tile.score %{{.*}}, %{{.*}} scales %{{.*}} query_scales %{{.*}} placement <accumulator> : vector<2x64xf16>, <key, 32x64xi3, packing = <fragments>>, scales !kv.block<key, 32x2xf16, packing = <fragment_rows>>{{.*}} query_scales vector<2x1xf32> -> vector<2x32xf32>
// CHECK:         kv.tile.softmax_step %{{.*}}, %{{.*}} exponent 6 : <2x64>, vector<2x32xf32> -> vector<2x32xf16>
// CHECK:         kv.tile.prepare %{{.*}} group 32 for i4 : vector<2x32xf16> -> vector<2x32xf16>, vector<2x1xf32>
// CHECK:         kv.tile.fold %{{.*}}, %{{.*}} : vector<2x32xf16>, <value, 32x2xf16, packing = <fragment_columns>> -> vector<4x32xf16>
// CHECK:         kv.tile.scale_state %{{.*}} by 2.500000e-01 : <2x64>
// CHECK:         kv.tile.store_result {{.*}} exponent 6
func.func @halves(%state: !kv.state<2x64>, %query: vector<2x64xf32>, %bytes: memref<?xi8>, %floats: memref<?xf32>,
                  %keys: !fragments, %scales: !row_scales, %values: !value_fragments, %columns: !column_scales,
                  %i: index) {
  %warp = kv.tile.warp
  %memory = kv.tile.advance %bytes[%warp] : memref<?xi8> -> memref<?xi8>
  %ring = kv.tile.ring stages 2 bytes 4096 : memref<?xi8>
  kv.tile.fetch %memory[%i] to %ring[%i] bytes 2048 : memref<?xi8> to memref<?xi8>
  kv.tile.commit
  kv.tile.prefetch %memory[%i] bytes 512 : memref<?xi8>
  kv.tile.await pending 1
  %q, %sums, %qs = kv.tile.prepare %query group 32 for i3 factor 0.125
      : vector<2x64xf32> -> vector<2x64xf16>, vector<2x2xf32>, vector<2x1xf32>
  %logits = kv.tile.score %q, %keys scales %scales query_scales %qs placement <accumulator>
      : vector<2x64xf16>, !fragments, scales !row_scales query_scales vector<2x1xf32> -> vector<2x32xf32>
  %weights = kv.tile.softmax_step %state, %logits exponent 6
      : !kv.state<2x64>, vector<2x32xf32> -> vector<2x32xf16>
  %w, %unused = kv.tile.prepare %weights group 32 for i4 : vector<2x32xf16> -> vector<2x32xf16>, vector<2x1xf32>
  %folded = kv.tile.fold %w, %columns : vector<2x32xf16>, !column_scales -> vector<4x32xf16>
  kv.tile.accumulate %state, %folded, %values scales %columns placement <operand>
      : !kv.state<2x64>, vector<4x32xf16>, !value_fragments, scales !column_scales
  kv.tile.scale_state %state by 0.25 : !kv.state<2x64>
  kv.tile.store_result %state, %floats[%i], %floats[%i] exponent 6 : !kv.state<2x64>, memref<?xf32>, memref<?xf32>
  return
}
