// What level 2 operations refuse: every numbered constraint, then what their definitions refuse.
// RUN: kvcc-opt %s -verify-diagnostics -split-input-file

//===-- kv.tile.scale_channels -------------------------------------------------------------===//

func.func @scale_channels_c1(%tile: vector<2x64xf32>, %bytes: memref<?xi8>, %at: index) {
  // expected-error @below {{expected a result of type 'vector<2x64xf32>', but got 'vector<2x32xf32>'}}
  kv.tile.scale_channels %tile, %bytes[%at] : vector<2x64xf32>, memref<?xi8> -> vector<2x32xf32>
  return
}

// -----

//===-- kv.tile.prepare --------------------------------------------------------------------===//

func.func @prepare_c1_shape(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected values of the shape of 'vector<2x64xf32>' of f32, i8 or i16, but got 'vector<2x32xf32>'}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x32xf32>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c1_element(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected values of the shape of 'vector<2x64xf32>' of f32, i8 or i16, but got 'vector<2x64xf16>'}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xf16>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c1_wide(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected values of the shape of 'vector<2x64xf32>' of f32, i8 or i16, but got 'vector<2x64xi32>'}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xi32>, vector<2x2xf32>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c2_group(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected a group that divides 64, but got 48}}
  kv.tile.prepare %tile group 48 : vector<2x64xf32> -> vector<2x64xf32>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c2_zero(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected a group that divides 64, but got 0}}
  kv.tile.prepare %tile group 0 : vector<2x64xf32> -> vector<2x64xf32>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c2_sums(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected sums and scales of 2x2}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xf32>, vector<2x4xf32>
  return
}

// -----

func.func @prepare_c2_scales(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected sums and scales of 2x2}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xi8>, vector<2x2xf32>, vector<2x4xf32>
  return
}

// -----

func.func @prepare_c3_missing_16(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected scales exactly with i8 or i16 values, but got values 'vector<2x64xi16>'}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xi16>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c3_missing(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected scales exactly with i8 or i16 values, but got values 'vector<2x64xi8>'}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xi8>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c3_extra(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected scales exactly with i8 or i16 values, but got values 'vector<2x64xf32>'}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xf32>, vector<2x2xf32>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c4_wide(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected unsigned with i8 values only, but got values 'vector<2x64xi16>'}}
  kv.tile.prepare %tile group 32 unsigned : vector<2x64xf32> -> vector<2x64xi16>, vector<2x2xf32>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c4_float(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected unsigned with i8 values only, but got values 'vector<2x64xf32>'}}
  kv.tile.prepare %tile group 32 unsigned : vector<2x64xf32> -> vector<2x64xf32>, vector<2x2xf32>
  return
}

// -----

//===-- kv.tile.score ----------------------------------------------------------------------===//

!keys = !kv.block<value, 32x64xf16, packing = <16x1>>
func.func @score_c1_role(%query: vector<2x64xf32>, %keys: !keys) {
  // expected-error @below {{expected query HxD, keys 32xD and a result Hx32, but got 'vector<2x64xf32>', '!kv.block<value, 32x64xf16, packing = <16x1>>' and 'vector<2x32xf32>'}}
  kv.tile.score %query, %keys placement <none>
    : vector<2x64xf32>, !keys -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 64x64xf16, packing = <16x1>>
func.func @score_c1_tokens(%query: vector<2x64xf32>, %keys: !keys) {
  // expected-error @below {{expected query HxD, keys 32xD and a result Hx32, but got }}
  kv.tile.score %query, %keys placement <none>
    : vector<2x64xf32>, !keys -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x128xf16, packing = <16x1>>
func.func @score_c1_channels(%query: vector<2x64xf32>, %keys: !keys) {
  // expected-error @below {{expected query HxD, keys 32xD and a result Hx32, but got }}
  kv.tile.score %query, %keys placement <none>
    : vector<2x64xf32>, !keys -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xf16, packing = <16x1>>
func.func @score_c1_heads(%query: vector<2x64xf32>, %keys: !keys) {
  // expected-error @below {{expected query HxD, keys 32xD and a result Hx32, but got }}
  kv.tile.score %query, %keys placement <none>
    : vector<2x64xf32>, !keys -> vector<4x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xf16, packing = <16x1>>
func.func @score_c1_columns(%query: vector<2x64xf32>, %keys: !keys) {
  // expected-error @below {{expected query HxD, keys 32xD and a result Hx32, but got }}
  kv.tile.score %query, %keys placement <none>
    : vector<2x64xf32>, !keys -> vector<2x64xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
func.func @score_c2_scales(%query: vector<2x64xf32>, %keys: !keys, %sums: vector<2x2xf32>) {
  // expected-error @below {{expected scales, sums and a placement exactly with codes, but got '!kv.block<key, 32x64xi4, packing = <16x4>>' with placement accumulator}}
  "kv.tile.score"(%query, %keys, %sums)
    <{operandSegmentSizes = array<i32: 1, 1, 0, 1, 0>, placement = #kv.placement<accumulator>}>
    : (vector<2x64xf32>, !keys, vector<2x2xf32>) -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c2_sums(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales) {
  // expected-error @below {{expected scales, sums and a placement exactly with codes, but got }}
  kv.tile.score %query, %keys scales %scales placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c2_placement(%query: vector<2x64xf32>, %keys: !keys,
                              %scales: !scales, %sums: vector<2x2xf32>) {
  // expected-error @below {{expected scales, sums and a placement exactly with codes, but got '!kv.block<key, 32x64xi4, packing = <16x4>>' with placement none}}
  kv.tile.score %query, %keys scales %scales sums %sums placement <none>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xf16, packing = <16x1>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c2_numbers_with_scales(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales) {
  // expected-error @below {{expected scales, sums and a placement exactly with codes, but got }}
  kv.tile.score %query, %keys scales %scales placement <none>
    : vector<2x64xf32>, !keys, scales !scales -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xf16, packing = <16x1>>
func.func @score_c2_numbers_with_sums(%query: vector<2x64xf32>, %keys: !keys, %sums: vector<2x2xf32>) {
  // expected-error @below {{expected scales, sums and a placement exactly with codes, but got }}
  "kv.tile.score"(%query, %keys, %sums)
    <{operandSegmentSizes = array<i32: 1, 1, 0, 1, 0>, placement = #kv.placement<none>}>
    : (vector<2x64xf32>, !keys, vector<2x2xf32>) -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xf16, packing = <16x1>>
func.func @score_c2_numbers_with_placement(%query: vector<2x64xf32>, %keys: !keys) {
  // expected-error @below {{expected scales, sums and a placement exactly with codes, but got '!kv.block<key, 32x64xf16, packing = <16x1>>' with placement result}}
  kv.tile.score %query, %keys placement <result>
    : vector<2x64xf32>, !keys -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c3_missing(%query: vector<2x64xi8>, %keys: !keys,
                            %scales: !scales, %sums: vector<2x2xf32>) {
  // expected-error @below {{expected scales of the small operand exactly if it is of integers, but got 'vector<2x64xi8>'}}
  kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
    : vector<2x64xi8>, !keys, scales !scales, sums vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c3_extra(%query: vector<2x64xf32>, %keys: !keys,
                          %scales: !scales, %sums: vector<2x2xf32>, %query_scales: vector<2x2xf32>) {
  // expected-error @below {{expected scales of the small operand exactly if it is of integers, but got 'vector<2x64xf32>'}}
  kv.tile.score %query, %keys scales %scales sums %sums query_scales %query_scales placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<2x2xf32>, query_scales vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xf16, packing = <16x1>>
func.func @score_c4_numbers(%query: vector<2x64xi8>, %keys: !keys, %query_scales: vector<2x1xf32>) {
  // expected-error @below {{expected a small operand of f32 or, times codes, i8 or i16, but got 'vector<2x64xi8>' and '!kv.block<key, 32x64xf16, packing = <16x1>>'}}
  "kv.tile.score"(%query, %keys, %query_scales)
    <{operandSegmentSizes = array<i32: 1, 1, 0, 0, 1>, placement = #kv.placement<none>}>
    : (vector<2x64xi8>, !keys, vector<2x1xf32>) -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c4_wide(%query: vector<2x64xi32>, %keys: !keys, %scales: !scales,
                         %sums: vector<2x2xf32>, %small: vector<2x2xf32>) {
  // expected-error @below {{expected a small operand of f32 or, times codes, i8 or i16, but got }}
  kv.tile.score %query, %keys scales %scales sums %sums query_scales %small placement <accumulator>
    : vector<2x64xi32>, !keys, scales !scales, sums vector<2x2xf32>, query_scales vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c4_float(%query: vector<2x64xf16>, %keys: !keys, %scales: !scales,
                          %sums: vector<2x2xf32>) {
  // expected-error @below {{expected a small operand of f32 or, times codes, i8 or i16, but got }}
  kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
    : vector<2x64xf16>, !keys, scales !scales, sums vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 32x2xf16, packing = <1x1>>
func.func @score_c5_role(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales,
                         %sums: vector<2x2xf32>) {
  // expected-error @below {{expected scales of f16 in the role of, and with extents that divide those of, '!kv.block<key, 32x64xi4, packing = <16x4>>', but got '!kv.block<value, 32x2xf16, packing = <1x1>>'}}
  kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf32, packing = <16x1>>
func.func @score_c5_element(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales,
                            %sums: vector<2x2xf32>) {
  // expected-error @below {{expected scales of f16 in the role of, and with extents that divide those of, }}
  kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 64x2xf16, packing = <16x1>>
func.func @score_c5_tokens(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales,
                           %sums: vector<2x2xf32>) {
  // expected-error @below {{expected scales of f16 in the role of, and with extents that divide those of, }}
  kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x3xf16, packing = <16x1>>
func.func @score_c5_channels(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales,
                             %sums: vector<2x3xf32>) {
  // expected-error @below {{expected scales of f16 in the role of, and with extents that divide those of, }}
  kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<2x3xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c6_heads(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales,
                          %sums: vector<1x2xf32>) {
  // expected-error @below {{expected sums and scales of the small operand of 2x2, but got 'vector<1x2xf32>'}}
  kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<1x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c6_groups(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales,
                           %sums: vector<2x4xf32>) {
  // expected-error @below {{expected sums and scales of the small operand of 2x2, but got 'vector<2x4xf32>'}}
  kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<2x4xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c6_scales(%query: vector<2x64xi16>, %keys: !keys, %scales: !scales,
                           %sums: vector<2x2xf32>, %small: vector<2x1xf32>) {
  // expected-error @below {{expected sums and scales of the small operand of 2x2, but got 'vector<2x1xf32>'}}
  kv.tile.score %query, %keys scales %scales sums %sums query_scales %small placement <accumulator>
    : vector<2x64xi16>, !keys, scales !scales, sums vector<2x2xf32>, query_scales vector<2x1xf32> -> vector<2x32xf32>
  return
}

// -----

//===-- kv.tile.mask -----------------------------------------------------------------------===//

func.func @mask_c1(%tile: vector<2x32xf32>, %valid: index) {
  // expected-error @below {{expected a result of type 'vector<2x32xf32>', but got 'vector<4x32xf32>'}}
  kv.tile.mask %tile, %valid : vector<2x32xf32> -> vector<4x32xf32>
  return
}

// -----

//===-- kv.tile.softmax_step ---------------------------------------------------------------===//

func.func @softmax_step_c1_heads(%state: !kv.state<2x64>, %logits: vector<4x32xf32>) {
  // expected-error @below {{expected logits and weights of 2x32, but got 'vector<4x32xf32>'}}
  kv.tile.softmax_step %state, %logits : !kv.state<2x64>, vector<4x32xf32> -> vector<4x32xf32>
  return
}

// -----

func.func @softmax_step_c1_columns(%state: !kv.state<2x64>, %logits: vector<2x64xf32>) {
  // expected-error @below {{expected logits and weights of 2x32, but got 'vector<2x64xf32>'}}
  kv.tile.softmax_step %state, %logits : !kv.state<2x64>, vector<2x64xf32> -> vector<2x64xf32>
  return
}

// -----

func.func @softmax_step_c1_weights(%state: !kv.state<2x64>, %logits: vector<2x32xf32>) {
  // expected-error @below {{expected logits and weights of 2x32, but got 'vector<2x16xf32>'}}
  kv.tile.softmax_step %state, %logits : !kv.state<2x64>, vector<2x32xf32> -> vector<2x16xf32>
  return
}

// -----

//===-- kv.tile.accumulate -----------------------------------------------------------------===//

!values = !kv.block<value, 32x64xf16, packing = <16x1>>
func.func @accumulate_c1_heads(%state: !kv.state<2x64>, %weights: vector<4x32xf32>, %values: !values) {
  // expected-error @below {{expected weights Hx32 and values 32xD for '!kv.state<2x64>', but got 'vector<4x32xf32>' and '!kv.block<value, 32x64xf16, packing = <16x1>>'}}
  kv.tile.accumulate %state, %weights, %values placement <none>
    : !kv.state<2x64>, vector<4x32xf32>, !values
  return
}

// -----

!values = !kv.block<value, 32x64xf16, packing = <16x1>>
func.func @accumulate_c1_columns(%state: !kv.state<2x64>, %weights: vector<2x64xf32>, %values: !values) {
  // expected-error @below {{expected weights Hx32 and values 32xD for '!kv.state<2x64>', but got }}
  kv.tile.accumulate %state, %weights, %values placement <none>
    : !kv.state<2x64>, vector<2x64xf32>, !values
  return
}

// -----

!values = !kv.block<key, 32x64xf16, packing = <16x1>>
func.func @accumulate_c1_role(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values) {
  // expected-error @below {{expected weights Hx32 and values 32xD for '!kv.state<2x64>', but got 'vector<2x32xf32>' and '!kv.block<key, 32x64xf16, packing = <16x1>>'}}
  kv.tile.accumulate %state, %weights, %values placement <none>
    : !kv.state<2x64>, vector<2x32xf32>, !values
  return
}

// -----

!values = !kv.block<value, 64x64xf16, packing = <16x1>>
func.func @accumulate_c1_tokens(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values) {
  // expected-error @below {{expected weights Hx32 and values 32xD for '!kv.state<2x64>', but got }}
  kv.tile.accumulate %state, %weights, %values placement <none>
    : !kv.state<2x64>, vector<2x32xf32>, !values
  return
}

// -----

!values = !kv.block<value, 32x128xf16, packing = <16x1>>
func.func @accumulate_c1_channels(%state: !kv.state<2x64>,
                                  %weights: vector<2x32xf32>, %values: !values) {
  // expected-error @below {{expected weights Hx32 and values 32xD for '!kv.state<2x64>', but got }}
  kv.tile.accumulate %state, %weights, %values placement <none>
    : !kv.state<2x64>, vector<2x32xf32>, !values
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
func.func @accumulate_c2_scales(%state: !kv.state<2x64>, %weights: vector<2x32xf32>,
                                %values: !values, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected scales, sums and a placement exactly with codes, but got '!kv.block<value, 32x64xi4, packing = <16x4>>' with placement accumulator}}
  "kv.tile.accumulate"(%state, %weights, %values, %sums)
    <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 1, 0>, placement = #kv.placement<accumulator>}>
    : (!kv.state<2x64>, vector<2x32xf32>, !values, vector<2x1xf32>) -> ()
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xf16, packing = <16x1>>
func.func @accumulate_c2_sums(%state: !kv.state<2x64>, %weights: vector<2x32xf32>,
                              %values: !values, %scales: !scales) {
  // expected-error @below {{expected scales, sums and a placement exactly with codes, but got }}
  kv.tile.accumulate %state, %weights, %values scales %scales placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xf16, packing = <16x1>>
func.func @accumulate_c2_placement(%state: !kv.state<2x64>, %weights: vector<2x32xf32>,
                                   %values: !values, %scales: !scales, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected scales, sums and a placement exactly with codes, but got '!kv.block<value, 32x64xi4, packing = <16x4>>' with placement none}}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <none>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales, sums vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xf16, packing = <16x1>>
!scales = !kv.block<value, 1x64xf16, packing = <16x1>>
func.func @accumulate_c2_numbers_with_scales(%state: !kv.state<2x64>, %weights: vector<2x32xf32>,
                                             %values: !values, %scales: !scales) {
  // expected-error @below {{expected scales, sums and a placement exactly with codes, but got }}
  kv.tile.accumulate %state, %weights, %values scales %scales placement <none>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales
  return
}

// -----

!values = !kv.block<value, 32x64xf16, packing = <16x1>>
func.func @accumulate_c2_numbers_with_sums(%state: !kv.state<2x64>, %weights: vector<2x32xf32>,
                                           %values: !values, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected scales, sums and a placement exactly with codes, but got }}
  "kv.tile.accumulate"(%state, %weights, %values, %sums)
    <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 1, 0>, placement = #kv.placement<none>}>
    : (!kv.state<2x64>, vector<2x32xf32>, !values, vector<2x1xf32>) -> ()
  return
}

// -----

!values = !kv.block<value, 32x64xf16, packing = <16x1>>
func.func @accumulate_c2_numbers_with_placement(%state: !kv.state<2x64>,
                                                %weights: vector<2x32xf32>, %values: !values) {
  // expected-error @below {{expected scales, sums and a placement exactly with codes, but got '!kv.block<value, 32x64xf16, packing = <16x1>>' with placement operand}}
  kv.tile.accumulate %state, %weights, %values placement <operand>
    : !kv.state<2x64>, vector<2x32xf32>, !values
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xf16, packing = <16x1>>
func.func @accumulate_c3_missing(%state: !kv.state<2x64>, %weights: vector<2x32xi8>,
                                 %values: !values, %scales: !scales, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected scales of the small operand exactly if it is of integers, but got 'vector<2x32xi8>'}}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <accumulator>
    : !kv.state<2x64>, vector<2x32xi8>, !values, scales !scales, sums vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xf16, packing = <16x1>>
func.func @accumulate_c3_extra(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values,
                               %scales: !scales, %sums: vector<2x1xf32>, %weight_scales: vector<2x1xf32>) {
  // expected-error @below {{expected scales of the small operand exactly if it is of integers, but got 'vector<2x32xf32>'}}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums weight_scales %weight_scales placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales, sums vector<2x1xf32>, weight_scales vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xf16, packing = <16x1>>
func.func @accumulate_c4_numbers(%state: !kv.state<2x64>, %weights: vector<2x32xi8>, %values: !values,
                                 %weight_scales: vector<2x1xf32>) {
  // expected-error @below {{expected a small operand of f32 or, times codes, i8, but got 'vector<2x32xi8>' and '!kv.block<value, 32x64xf16, packing = <16x1>>'}}
  "kv.tile.accumulate"(%state, %weights, %values, %weight_scales)
    <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 1>, placement = #kv.placement<none>}>
    : (!kv.state<2x64>, vector<2x32xi8>, !values, vector<2x1xf32>) -> ()
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xf16, packing = <16x1>>
func.func @accumulate_c4_wide(%state: !kv.state<2x64>, %weights: vector<2x32xi16>, %values: !values,
                              %scales: !scales, %sums: vector<2x1xf32>, %small: vector<2x1xf32>) {
  // expected-error @below {{expected a small operand of f32 or, times codes, i8, but got 'vector<2x32xi16>' and '!kv.block<value, 32x64xi4, packing = <16x4>>'}}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums weight_scales %small placement <accumulator>
    : !kv.state<2x64>, vector<2x32xi16>, !values, scales !scales, sums vector<2x1xf32>, weight_scales vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 1x64xf16, packing = <1x1>>
func.func @accumulate_c5_role(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values,
                              %scales: !scales, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected scales of f16 in the role of, and with extents that divide those of, }}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales, sums vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xbf16, packing = <16x1>>
func.func @accumulate_c5_element(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values,
                                 %scales: !scales, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected scales of f16 in the role of, and with extents that divide those of, }}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales, sums vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 3x64xf16, packing = <16x1>>
func.func @accumulate_c5_tokens(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values,
                                %scales: !scales, %sums: vector<2x3xf32>) {
  // expected-error @below {{expected scales of f16 in the role of, and with extents that divide those of, }}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales, sums vector<2x3xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x128xf16, packing = <16x1>>
func.func @accumulate_c5_channels(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values,
                                  %scales: !scales, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected scales of f16 in the role of, and with extents that divide those of, }}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales, sums vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xf16, packing = <16x1>>
func.func @accumulate_c6_heads(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values,
                               %scales: !scales, %sums: vector<4x1xf32>) {
  // expected-error @below {{expected sums and scales of the small operand of 2x1, but got 'vector<4x1xf32>'}}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales, sums vector<4x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 2x64xf16, packing = <16x1>>
func.func @accumulate_c6_groups(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values,
                                %scales: !scales, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected sums and scales of the small operand of 2x2, but got 'vector<2x1xf32>'}}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales, sums vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xf16, packing = <16x1>>
func.func @accumulate_c6_scales(%state: !kv.state<2x64>, %weights: vector<2x32xi8>, %values: !values,
                                %scales: !scales, %sums: vector<2x1xf32>, %small: vector<2x2xf32>) {
  // expected-error @below {{expected sums and scales of the small operand of 2x1, but got 'vector<2x2xf32>'}}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums weight_scales %small placement <accumulator>
    : !kv.state<2x64>, vector<2x32xi8>, !values, scales !scales, sums vector<2x1xf32>, weight_scales vector<2x2xf32>
  return
}

// -----

//===-- What the definitions refuse --------------------------------------------------------===//

func.func @load_words(%words: memref<?xi32>, %at: index) {
  // expected-error @below {{operand #0 must be 1D memref of 8-bit signless integer values, but got 'memref<?xi32>'}}
  kv.tile.load %words[%at] : memref<?xi32> -> !kv.block<key, 32x64xi4, packing = <16x4>>
  return
}

// -----

func.func @load_query_rank(%q: memref<?x64xf16>, %at: index) {
  // expected-error @below {{operand #0 must be 1D memref of 16-bit float or bfloat16 type or 32-bit float values}}
  kv.tile.load_query %q[%at] scale 1.0 : memref<?x64xf16> -> vector<2x64xf32>
  return
}

// -----

func.func @mask_rank(%tile: vector<64xf32>, %valid: index) {
  // expected-error @below {{operand #0 must be vector of 32-bit float values of ranks 2, but got 'vector<64xf32>'}}
  kv.tile.mask %tile, %valid : vector<64xf32> -> vector<64xf32>
  return
}

// -----

func.func @merge_step_memory(%state: !kv.state<1x64>, %halves: memref<?xf16>, %at: index) {
  // expected-error @below {{operand #1 must be 1D memref of 32-bit float values, but got 'memref<?xf16>'}}
  kv.tile.merge_step %state, %halves[%at], %halves[%at]
    : !kv.state<1x64>, memref<?xf16>, memref<?xf16>
  return
}

// -----

func.func @store_result_memory(%state: !kv.state<1x64>, %halves: memref<?xf16>, %at: index) {
  // expected-error @below {{operand #1 must be 1D memref of 32-bit float values, but got 'memref<?xf16>'}}
  kv.tile.store_result %state, %halves[%at], %halves[%at]
    : !kv.state<1x64>, memref<?xf16>, memref<?xf16>
  return
}
