// What level 2 operations refuse: every numbered constraint, then what their definitions refuse.
// RUN: kvcc-opt %s -verify-diagnostics -split-input-file

//===-- kv.tile.scale_channels -------------------------------------------------------------===//

func.func @scale_channels_c1(%tile: vector<2x64xf32>, %bytes: memref<?xi8>, %at: index) {
  // expected-error @below {{expected a result of type 'vector<2x64xf32>', but got 'vector<2x32xf32>'}}
  kv.tile.scale_channels %tile, %bytes[%at] : vector<2x64xf32>, memref<?xi8> -> vector<2x32xf32>
  return
}

// -----

//===-- kv.tile.dot_channels ---------------------------------------------------------------===//

func.func @dot_channels_c1_rows(%tile: vector<2x64xf32>, %bytes: memref<?xi8>, %at: index) {
  // expected-error @below {{expected a result of 2x1, but got 'vector<4x1xf32>'}}
  kv.tile.dot_channels %tile, %bytes[%at] : vector<2x64xf32>, memref<?xi8> -> vector<4x1xf32>
  return
}

// -----

func.func @dot_channels_c1_columns(%tile: vector<2x64xf32>, %bytes: memref<?xi8>, %at: index) {
  // expected-error @below {{expected a result of 2x1, but got 'vector<2x64xf32>'}}
  kv.tile.dot_channels %tile, %bytes[%at] : vector<2x64xf32>, memref<?xi8> -> vector<2x64xf32>
  return
}

// -----

//===-- kv.tile.rotate ---------------------------------------------------------------------===//

func.func @rotate_c1(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected a result of type 'vector<2x64xf32>', but got 'vector<2x32xf32>'}}
  kv.tile.rotate %tile size 32 : vector<2x64xf32> -> vector<2x32xf32>
  return
}

// -----

func.func @rotate_c2_divides(%tile: vector<2x96xf32>) {
  // expected-error @below {{expected size a power of two from 16 to 256 that divides 96, but got 64}}
  kv.tile.rotate %tile size 64 : vector<2x96xf32> -> vector<2x96xf32>
  return
}

// -----

func.func @rotate_c2_power(%tile: vector<2x96xf32>) {
  // expected-error @below {{expected size a power of two from 16 to 256 that divides 96, but got 48}}
  kv.tile.rotate %tile size 48 : vector<2x96xf32> -> vector<2x96xf32>
  return
}

// -----

func.func @rotate_c2_small(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected size a power of two from 16 to 256 that divides 64, but got 8}}
  kv.tile.rotate %tile size 8 : vector<2x64xf32> -> vector<2x64xf32>
  return
}

// -----

func.func @rotate_c2_zero(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected size a power of two from 16 to 256 that divides 64, but got 0}}
  kv.tile.rotate %tile size 0 : vector<2x64xf32> -> vector<2x64xf32>
  return
}

// -----

//===-- kv.tile.fold -----------------------------------------------------------------------===//

!scales = !kv.block<key, 1x64xf32, packing = <1x1>>
func.func @fold_c1_element(%tile: vector<2x64xf32>, %scales: !scales) {
  // expected-error @below {{expected scales with 64 reduced indices, but got '!kv.block<key, 1x64xf32, packing = <1x1>>'}}
  kv.tile.fold %tile, %scales : vector<2x64xf32>, !scales -> vector<2x64xf32>
  return
}

// -----

!scales = !kv.block<key, 1x32xf16, packing = <1x1>>
func.func @fold_c1_extent(%tile: vector<2x64xf32>, %scales: !scales) {
  // expected-error @below {{expected scales with 64 reduced indices, but got '!kv.block<key, 1x32xf16, packing = <1x1>>'}}
  kv.tile.fold %tile, %scales : vector<2x64xf32>, !scales -> vector<2x64xf32>
  return
}

// -----

!scales = !kv.block<value, 32x2xf16, packing = <1x1>>
func.func @fold_c2_result(%tile: vector<2x32xf32>, %scales: !scales) {
  // expected-error @below {{expected a result of 4x32 and offsets of 4x1}}
  kv.tile.fold %tile, %scales : vector<2x32xf32>, !scales -> vector<2x32xf32>
  return
}

// -----

!scales = !kv.block<value, 32x2xf16, packing = <1x1>>
func.func @fold_c2_offsets(%tile: vector<2x32xf32>, %scales: !scales) {
  // expected-error @below {{expected a result of 4x32 and offsets of 4x1}}
  kv.tile.fold %tile, %scales zeros %scales middle 8 : vector<2x32xf32>, !scales zeros !scales
    -> vector<4x32xf32> offsets vector<4x32xf32>
  return
}

// -----

!scales = !kv.block<key, 1x64xf16, packing = <1x1>>
func.func @fold_c3_offsets(%tile: vector<2x64xf32>, %scales: !scales) {
  // expected-error @below {{expected offsets exactly with zeros, and zeros of f16 or bf16 and the type '!kv.block<key, 1x64xf16, packing = <1x1>>'}}
  kv.tile.fold %tile, %scales : vector<2x64xf32>, !scales -> vector<2x64xf32> offsets vector<2x1xf32>
  return
}

// -----

!scales = !kv.block<key, 1x64xf16, packing = <1x1>>
func.func @fold_c3_zeros(%tile: vector<2x64xf32>, %scales: !scales) {
  // expected-error @below {{expected offsets exactly with zeros, and zeros of f16 or bf16 and the type }}
  kv.tile.fold %tile, %scales zeros %scales middle 8 : vector<2x64xf32>, !scales zeros !scales -> vector<2x64xf32>
  return
}

// -----

!scales = !kv.block<key, 1x64xf16, packing = <1x1>>
!zeros = !kv.block<key, 1x64xbf16, packing = <1x1>>
func.func @fold_c3_type(%tile: vector<2x64xf32>, %scales: !scales, %zeros: !zeros) {
  // expected-error @below {{expected offsets exactly with zeros, and zeros of f16 or bf16 and the type }}
  kv.tile.fold %tile, %scales zeros %zeros middle 8 : vector<2x64xf32>, !scales zeros !zeros
    -> vector<2x64xf32> offsets vector<2x1xf32>
  return
}

// -----

!scales = !kv.block<key, 1x64xf8E4M3FN, packing = <1x1>>
func.func @fold_c3_eight_bits(%tile: vector<2x64xf32>, %scales: !scales) {
  // expected-error @below {{expected offsets exactly with zeros, and zeros of f16 or bf16 and the type }}
  kv.tile.fold %tile, %scales zeros %scales middle 8 : vector<2x64xf32>, !scales zeros !scales
    -> vector<2x64xf32> offsets vector<2x1xf32>
  return
}

// -----

//===-- kv.tile.prepare --------------------------------------------------------------------===//

func.func @prepare_c1_shape(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected values of the shape of 'vector<2x64xf32>' of f32, i8, ui8, i16, f16 or bf16, but got 'vector<2x32xf32>'}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x32xf32>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c1_element(%tile: vector<2x64xf16>) {
  // expected-error @below {{expected values of the shape of 'vector<2x64xf16>' of f32, i8, ui8, i16, f16 or bf16, but got 'vector<2x64xbf16>'}}
  kv.tile.prepare %tile group 32 : vector<2x64xf16> -> vector<2x64xbf16>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c1_wide(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected values of the shape of 'vector<2x64xf32>' of f32, i8, ui8, i16, f16 or bf16, but got 'vector<2x64xi32>'}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xi32>, vector<2x2xf32>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c1_unsigned(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected values of the shape of 'vector<2x64xf32>' of f32, i8, ui8, i16, f16 or bf16, but got 'vector<2x64xui16>'}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xui16>, vector<2x2xf32>, vector<2x2xf32>
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
  // expected-error @below {{expected scales exactly with values that are rounded, but got values 'vector<2x64xi16>'}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xi16>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c3_missing(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected scales exactly with values that are rounded, but got values 'vector<2x64xi8>'}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xi8>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c3_missing_unsigned(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected scales exactly with values that are rounded, but got values 'vector<2x64xui8>'}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xui8>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c3_missing_half(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected scales exactly with values that are rounded, but got values 'vector<2x64xf16>'}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xf16>, vector<2x2xf32>
  return
}

// -----

func.func @prepare_c3_extra(%tile: vector<2x64xf32>) {
  // expected-error @below {{expected scales exactly with values that are rounded, but got values 'vector<2x64xf32>'}}
  kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xf32>, vector<2x2xf32>, vector<2x2xf32>
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
    <{operandSegmentSizes = array<i32: 1, 1, 0, 0, 1, 0, 0, 0, 0>, placement = #kv.placement<accumulator>}>
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
func.func @score_c2_sums_of_zeros(%query: vector<2x64xbf16>, %keys: !keys, %scales: !scales) {
  // expected-error @below {{expected scales, sums and a placement exactly with codes, but got }}
  kv.tile.score %query, %keys scales %scales zeros %scales placement <accumulator>
    : vector<2x64xbf16>, !keys, scales !scales zeros !scales -> vector<2x32xf32>
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
    <{operandSegmentSizes = array<i32: 1, 1, 0, 0, 1, 0, 0, 0, 0>, placement = #kv.placement<none>}>
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
  // expected-error @below {{expected scales of the small operand exactly if it is of integers or a query of f16, but got 'vector<2x64xi8>'}}
  kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
    : vector<2x64xi8>, !keys, scales !scales, sums vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c3_extra(%query: vector<2x64xf32>, %keys: !keys,
                          %scales: !scales, %sums: vector<2x2xf32>, %query_scales: vector<2x2xf32>) {
  // expected-error @below {{expected scales of the small operand exactly if it is of integers or a query of f16, but got 'vector<2x64xf32>'}}
  kv.tile.score %query, %keys scales %scales sums %sums query_scales %query_scales placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<2x2xf32> query_scales vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xf16, packing = <16x1>>
func.func @score_c4_numbers(%query: vector<2x64xi8>, %keys: !keys, %query_scales: vector<2x1xf32>) {
  // expected-error @below {{expected a small operand of f32, f16, bf16 or, times codes, i8, ui8 or i16, but got 'vector<2x64xi8>' and '!kv.block<key, 32x64xf16, packing = <16x1>>'}}
  "kv.tile.score"(%query, %keys, %query_scales)
    <{operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 1, 0, 0, 0>, placement = #kv.placement<none>}>
    : (vector<2x64xi8>, !keys, vector<2x1xf32>) -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c4_wide(%query: vector<2x64xi32>, %keys: !keys, %scales: !scales,
                         %sums: vector<2x2xf32>, %small: vector<2x2xf32>) {
  // expected-error @below {{expected a small operand of f32, f16, bf16 or, times codes, i8, ui8 or i16, but got }}
  kv.tile.score %query, %keys scales %scales sums %sums query_scales %small placement <accumulator>
    : vector<2x64xi32>, !keys, scales !scales, sums vector<2x2xf32> query_scales vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c3_half(%query: vector<2x64xf16>, %keys: !keys, %scales: !scales,
                         %sums: vector<2x2xf32>) {
  // expected-error @below {{expected scales of the small operand exactly if it is of integers or a query of f16, but got 'vector<2x64xf16>'}}
  kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
    : vector<2x64xf16>, !keys, scales !scales, sums vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c3_half_shape(%query: vector<2x64xf16>, %keys: !keys, %scales: !scales,
                               %small: vector<2x2xf32>) {
  // expected-error @below {{expected scales of a query of halves of 2x1, but got 'vector<2x2xf32>'}}
  kv.tile.score %query, %keys scales %scales query_scales %small placement <accumulator>
    : vector<2x64xf16>, !keys, scales !scales query_scales vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 32x2xf16, packing = <1x1>>
func.func @score_c5_role(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales,
                         %sums: vector<2x2xf32>) {
  // expected-error @below {{expected scales in the role of, and with extents that divide those of, '!kv.block<key, 32x64xi4, packing = <16x4>>', but got '!kv.block<value, 32x2xf16, packing = <1x1>>'}}
  kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf32, packing = <16x1>>
func.func @score_c5_element(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales,
                            %sums: vector<2x2xf32>) {
  // expected-error @below {{expected scales in the role of, and with extents that divide those of, }}
  kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 64x2xf16, packing = <16x1>>
func.func @score_c5_tokens(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales,
                           %sums: vector<2x2xf32>) {
  // expected-error @below {{expected scales in the role of, and with extents that divide those of, }}
  kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x3xf16, packing = <16x1>>
func.func @score_c5_channels(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales,
                             %sums: vector<2x3xf32>) {
  // expected-error @below {{expected scales in the role of, and with extents that divide those of, }}
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
    : vector<2x64xi16>, !keys, scales !scales, sums vector<2x2xf32> query_scales vector<2x1xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xf16, packing = <16x1>>
func.func @score_c6_numbers(%query: vector<2x64xf32>, %keys: !keys) {
  // expected-error @below {{expected a small operand of 4 rows, but got 'vector<2x64xf32>'}}
  kv.tile.score %query, %keys placement <none> : vector<2x64xf32>, !keys -> vector<4x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c6_rows(%query: vector<4x64xf32>, %keys: !keys, %scales: !scales, %sums: vector<4x2xf32>) {
  // expected-error @below {{expected a small operand of 2 rows, but got 'vector<4x64xf32>'}}
  kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
    : vector<4x64xf32>, !keys, scales !scales, sums vector<4x2xf32> -> vector<2x32xf32>
  return
}

// -----

// Folded, the small operand has its rows once per group of free indices.
!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 1x64xf16, packing = <1x1>>
func.func @score_c6_folded_rows(%query: vector<4x64xf32>, %keys: !keys, %scales: !scales, %sums: vector<4x1xf32>) {
  // expected-error @below {{expected a small operand of 2 rows, but got 'vector<4x64xf32>'}}
  kv.tile.score %query, %keys scales %scales sums %sums placement <operand>
    : vector<4x64xf32>, !keys, scales !scales, sums vector<4x1xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 1x64xf16, packing = <1x1>>
func.func @score_c6_folded_sums(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales, %sums: vector<2x64xf32>) {
  // expected-error @below {{expected sums and scales of the small operand of 2x1, but got 'vector<2x64xf32>'}}
  kv.tile.score %query, %keys scales %scales sums %sums placement <operand>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<2x64xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
!zeros = !kv.block<key, 32x2xbf16, packing = <16x1>>
func.func @score_c7_type(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales, %zeros: !zeros, %sums: vector<2x2xf32>) {
  // expected-error @below {{expected zeros of f16 or bf16 and the type of scales, and hybrid only with zeros, not with operand}}
  kv.tile.score %query, %keys scales %scales zeros %zeros sums %sums placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales zeros !zeros, sums vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf8E4M3FN, packing = <16x1>>
func.func @score_c7_eight_bits(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales, %sums: vector<2x2xf32>) {
  // expected-error @below {{expected zeros of f16 or bf16 and the type of scales, and hybrid only with zeros, not with operand}}
  kv.tile.score %query, %keys scales %scales zeros %scales sums %sums placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales zeros !scales, sums vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c7_hybrid(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales, %sums: vector<2x2xf32>) {
  // expected-error @below {{expected zeros of f16 or bf16 and the type of scales, and hybrid only with zeros, not with operand}}
  kv.tile.score %query, %keys scales %scales hybrid sums %sums placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<2x2xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 1x64xf16, packing = <1x1>>
func.func @score_c7_folded_zeros(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected zeros of f16 or bf16 and the type of scales, and hybrid only with zeros, not with operand}}
  kv.tile.score %query, %keys scales %scales zeros %scales sums %sums placement <operand>
    : vector<2x64xf32>, !keys, scales !scales zeros !scales, sums vector<2x1xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xf16, packing = <16x1>>
!zeros = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c7_numbers(%query: vector<2x64xf32>, %keys: !keys, %zeros: !zeros) {
  // expected-error @below {{expected zeros of f16 or bf16 and the type of scales, and hybrid only with zeros, not with operand}}
  "kv.tile.score"(%query, %keys, %zeros)
    <{operandSegmentSizes = array<i32: 1, 1, 0, 1, 0, 0, 0, 0, 0>, placement = #kv.placement<none>}>
    : (vector<2x64xf32>, !keys, !zeros) -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 1x64xf16, packing = <1x1>>
func.func @score_c7_offsets(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales, %sums: vector<2x1xf32>, %offsets: vector<2x64xf32>) {
  // expected-error @below {{expected offsets of 2x1, with placement operand only, but got 'vector<2x64xf32>'}}
  kv.tile.score %query, %keys scales %scales sums %sums offsets %offsets placement <operand>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<2x1xf32> offsets vector<2x64xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
func.func @score_c7_offsets_placement(%query: vector<2x64xf32>, %keys: !keys, %scales: !scales, %sums: vector<2x2xf32>, %offsets: vector<2x1xf32>) {
  // expected-error @below {{expected offsets of 2x1, with placement operand only, but got 'vector<2x1xf32>'}}
  kv.tile.score %query, %keys scales %scales sums %sums offsets %offsets placement <accumulator>
    : vector<2x64xf32>, !keys, scales !scales, sums vector<2x2xf32> offsets vector<2x1xf32> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xf16, packing = <16x1>>
func.func @score_c8_bytes(%query: vector<2x64xf32>, %keys: !keys, %pages: memref<?xi8>, %at: index) {
  // expected-error @below {{expected bytes ahead above 0, but got 0}}
  kv.tile.score %query, %keys placement <none> ahead %pages[%at] bytes 0
    : vector<2x64xf32>, !keys ahead memref<?xi8> -> vector<2x32xf32>
  return
}

// -----

!keys = !kv.block<key, 32x64xf16, packing = <16x1>>
func.func @score_c8_incomplete(%query: vector<2x64xf32>, %keys: !keys, %pages: memref<?xi8>) {
  // expected-error @below {{expected memory ahead with an offset and bytes, or none of them}}
  "kv.tile.score"(%query, %keys, %pages)
    <{operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 1, 0>, placement = #kv.placement<none>}>
    : (vector<2x64xf32>, !keys, memref<?xi8>) -> vector<2x32xf32>
  return
}

// -----

//===-- kv.tile.mask -----------------------------------------------------------------------===//

func.func @mask_c1(%tile: vector<2x32xf32>, %valid: index) {
  // expected-error @below {{expected a result of type 'vector<2x32xf32>', but got 'vector<4x32xf32>'}}
  kv.tile.mask %tile at %valid valid %valid : vector<2x32xf32> -> vector<4x32xf32>
  return
}

// -----

//===-- kv.tile.store_result, kv.tile.merge -----------------------------------------------===//

func.func @store_result_c1(%state: !kv.state<1x64>, %floats: memref<?xf32>, %at: index, %is_part: i1) {
  // expected-error @below {{expected a condition, memory and two offsets of parts, or none of them, but got 1}}
  "kv.tile.store_result"(%state, %floats, %at, %floats, %at, %is_part) {operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0, 0>}
    : (!kv.state<1x64>, memref<?xf32>, index, memref<?xf32>, index, i1) -> ()
  return
}

// -----

func.func @store_result_c2(%state: !kv.state<3x64>, %floats: memref<?xf32>, %at: index) {
  // expected-error @below {{expected heads that divide the 3 rows, but got 2}}
  kv.tile.store_result %state, %floats[%at], %floats[%at] queries %at heads 2 stride 4
    : !kv.state<3x64>, memref<?xf32>, memref<?xf32>
  return
}

// -----

func.func @merge_c2(%floats: memref<?xf32>, %at: index) {
  // expected-error @below {{expected all that says what rows of several queries are, or none of it, but got 1 of 2}}
  kv.tile.merge %floats[%at], %floats[%at] count %at rows %at into %floats[%at], %floats[%at] heads 2 x 64 {stride = 8 : i64}
    : memref<?xf32>, memref<?xf32> into memref<?xf32>, memref<?xf32>
  return
}

// -----

func.func @load_query_c1(%floats: memref<?xf32>, %at: index) {
  // expected-error @below {{expected all that says what rows of several queries are, or none of it, but got 1 of 3}}
  kv.tile.load_query %floats[%at] scale 1.0 {heads = 2 : i64} : memref<?xf32> -> vector<4x64xf32>
  return
}

// -----

func.func @mask_c2(%tile: vector<4x32xf32>, %at: index) {
  // expected-error @below {{expected heads that divide the 4 rows, but got 3}}
  kv.tile.mask %tile at %at end %at later %at heads 3 : vector<4x32xf32> -> vector<4x32xf32>
  return
}

// -----

func.func @join_sinks_c1(%state: !kv.state<3x64>, %floats: memref<?xf32>, %at: index) {
  // expected-error @below {{expected heads that divide the 3 rows, but got 2}}
  kv.tile.join_sinks %state, %floats[%at] heads 2 : !kv.state<3x64>, memref<?xf32>
  return
}

// -----

func.func @merge_c1(%floats: memref<?xf32>, %at: index) {
  // expected-error @below {{expected positive heads and a head_dim of a multiple of 32, but got 2 x 40}}
  kv.tile.merge %floats[%at], %floats[%at] count %at rows %at into %floats[%at], %floats[%at] heads 2 x 40
    : memref<?xf32>, memref<?xf32> into memref<?xf32>, memref<?xf32>
  return
}

// -----

//===-- kv.tile.softcap --------------------------------------------------------------------===//

func.func @softcap_c1(%tile: vector<2x32xf32>) {
  // expected-error @below {{expected a result of type 'vector<2x32xf32>', but got 'vector<4x32xf32>'}}
  kv.tile.softcap %tile cap 30.0 : vector<2x32xf32> -> vector<4x32xf32>
  return
}

// -----

func.func @softcap_c2(%tile: vector<2x32xf32>) {
  // expected-error @below {{expected a positive finite cap, but got 0}}
  kv.tile.softcap %tile cap 0.0 : vector<2x32xf32> -> vector<2x32xf32>
  return
}

// -----

func.func @softcap_c3(%tile: vector<2x32xf32>, %amounts: vector<4x1xf32>) {
  // expected-error @below {{expected amounts of 2x1, but got 'vector<4x1xf32>'}}
  kv.tile.softcap %tile plus %amounts cap 30.0 : vector<2x32xf32> plus vector<4x1xf32> -> vector<2x32xf32>
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
    <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 1, 0, 0, 0, 0>, placement = #kv.placement<accumulator>}>
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
    <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 1, 0, 0, 0, 0>, placement = #kv.placement<none>}>
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
  // expected-error @below {{expected scales of the small operand exactly if it is of integers or a query of f16, but got 'vector<2x32xi8>'}}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <accumulator>
    : !kv.state<2x64>, vector<2x32xi8>, !values, scales !scales, sums vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xf16, packing = <16x1>>
func.func @accumulate_c3_extra(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values,
                               %scales: !scales, %sums: vector<2x1xf32>, %weight_scales: vector<2x1xf32>) {
  // expected-error @below {{expected scales of the small operand exactly if it is of integers or a query of f16, but got 'vector<2x32xf32>'}}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums weight_scales %weight_scales placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales, sums vector<2x1xf32> weight_scales vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xf16, packing = <16x1>>
func.func @accumulate_c4_numbers(%state: !kv.state<2x64>, %weights: vector<2x32xi8>, %values: !values,
                                 %weight_scales: vector<2x1xf32>) {
  // expected-error @below {{expected a small operand of f32, f16, bf16 or, times codes, i8, ui8 or i16, but got 'vector<2x32xi8>' and '!kv.block<value, 32x64xf16, packing = <16x1>>'}}
  "kv.tile.accumulate"(%state, %weights, %values, %weight_scales)
    <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 0, 1, 0, 0, 0>, placement = #kv.placement<none>}>
    : (!kv.state<2x64>, vector<2x32xi8>, !values, vector<2x1xf32>) -> ()
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xf16, packing = <16x1>>
func.func @accumulate_c4_wide(%state: !kv.state<2x64>, %weights: vector<2x32xi32>, %values: !values,
                              %scales: !scales, %sums: vector<2x1xf32>, %small: vector<2x1xf32>) {
  // expected-error @below {{expected a small operand of f32, f16, bf16 or, times codes, i8, ui8 or i16, but got 'vector<2x32xi32>' and '!kv.block<value, 32x64xi4, packing = <16x4>>'}}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums weight_scales %small placement <accumulator>
    : !kv.state<2x64>, vector<2x32xi32>, !values, scales !scales, sums vector<2x1xf32> weight_scales vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 1x64xf16, packing = <1x1>>
func.func @accumulate_c5_role(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values,
                              %scales: !scales, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected scales in the role of, and with extents that divide those of, }}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales, sums vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xf32, packing = <16x1>>
func.func @accumulate_c5_element(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values,
                                 %scales: !scales, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected scales in the role of, and with extents that divide those of, }}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales, sums vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 3x64xf16, packing = <16x1>>
func.func @accumulate_c5_tokens(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values,
                                %scales: !scales, %sums: vector<2x3xf32>) {
  // expected-error @below {{expected scales in the role of, and with extents that divide those of, }}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales, sums vector<2x3xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x128xf16, packing = <16x1>>
func.func @accumulate_c5_channels(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values,
                                  %scales: !scales, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected scales in the role of, and with extents that divide those of, }}
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
    : !kv.state<2x64>, vector<2x32xi8>, !values, scales !scales, sums vector<2x1xf32> weight_scales vector<2x2xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xf16, packing = <16x1>>
func.func @accumulate_c6_numbers(%state: !kv.state<2x64>, %weights: vector<4x32xf32>, %values: !values) {
  // expected-error @below {{expected a small operand of 2 rows, but got 'vector<4x32xf32>'}}
  kv.tile.accumulate %state, %weights, %values placement <none> : !kv.state<2x64>, vector<4x32xf32>, !values
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xf16, packing = <16x1>>
func.func @accumulate_c6_rows(%state: !kv.state<2x64>, %weights: vector<4x32xf32>, %values: !values, %scales: !scales, %sums: vector<4x1xf32>) {
  // expected-error @below {{expected a small operand of 2 rows, but got 'vector<4x32xf32>'}}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <accumulator>
    : !kv.state<2x64>, vector<4x32xf32>, !values, scales !scales, sums vector<4x1xf32>
  return
}

// -----

// Folded, the small operand has its rows once per group of free indices.
!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 32x2xf16, packing = <1x1>>
func.func @accumulate_c6_folded_rows(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values, %scales: !scales, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected a small operand of 4 rows, but got 'vector<2x32xf32>'}}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <operand>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales, sums vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 32x2xf16, packing = <1x1>>
func.func @accumulate_c6_folded_sums(%state: !kv.state<2x64>, %weights: vector<4x32xf32>, %values: !values, %scales: !scales, %sums: vector<4x32xf32>) {
  // expected-error @below {{expected sums and scales of the small operand of 4x1, but got 'vector<4x32xf32>'}}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <operand>
    : !kv.state<2x64>, vector<4x32xf32>, !values, scales !scales, sums vector<4x32xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xf16, packing = <16x1>>
!zeros = !kv.block<value, 1x64xbf16, packing = <16x1>>
func.func @accumulate_c7_type(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values, %scales: !scales, %zeros: !zeros, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected zeros of f16 or bf16 and the type of scales, and hybrid only with zeros, not with operand}}
  kv.tile.accumulate %state, %weights, %values scales %scales zeros %zeros sums %sums placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales zeros !zeros, sums vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xf8E4M3FN, packing = <16x1>>
func.func @accumulate_c7_eight_bits(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values, %scales: !scales, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected zeros of f16 or bf16 and the type of scales, and hybrid only with zeros, not with operand}}
  kv.tile.accumulate %state, %weights, %values scales %scales zeros %scales sums %sums placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales zeros !scales, sums vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xf16, packing = <16x1>>
func.func @accumulate_c7_hybrid(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values, %scales: !scales, %sums: vector<2x1xf32>) {
  // expected-error @below {{expected zeros of f16 or bf16 and the type of scales, and hybrid only with zeros, not with operand}}
  kv.tile.accumulate %state, %weights, %values scales %scales hybrid sums %sums placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales, sums vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 32x2xf16, packing = <1x1>>
func.func @accumulate_c7_folded_zeros(%state: !kv.state<2x64>, %weights: vector<4x32xf32>, %values: !values, %scales: !scales, %sums: vector<4x1xf32>) {
  // expected-error @below {{expected zeros of f16 or bf16 and the type of scales, and hybrid only with zeros, not with operand}}
  kv.tile.accumulate %state, %weights, %values scales %scales zeros %scales sums %sums placement <operand>
    : !kv.state<2x64>, vector<4x32xf32>, !values, scales !scales zeros !scales, sums vector<4x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xf16, packing = <16x1>>
!zeros = !kv.block<value, 1x64xf16, packing = <16x1>>
func.func @accumulate_c7_numbers(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values, %zeros: !zeros) {
  // expected-error @below {{expected zeros of f16 or bf16 and the type of scales, and hybrid only with zeros, not with operand}}
  "kv.tile.accumulate"(%state, %weights, %values, %zeros)
    <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 1, 0, 0, 0, 0, 0>, placement = #kv.placement<none>}>
    : (!kv.state<2x64>, vector<2x32xf32>, !values, !zeros) -> ()
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 32x2xf16, packing = <1x1>>
func.func @accumulate_c7_offsets(%state: !kv.state<2x64>, %weights: vector<4x32xf32>, %values: !values, %scales: !scales, %sums: vector<4x1xf32>, %offsets: vector<4x32xf32>) {
  // expected-error @below {{expected offsets of 4x1, with placement operand only, but got 'vector<4x32xf32>'}}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums offsets %offsets placement <operand>
    : !kv.state<2x64>, vector<4x32xf32>, !values, scales !scales, sums vector<4x1xf32> offsets vector<4x32xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xi4, packing = <16x4>>
!scales = !kv.block<value, 1x64xf16, packing = <16x1>>
func.func @accumulate_c7_offsets_placement(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values, %scales: !scales, %sums: vector<2x1xf32>, %offsets: vector<2x1xf32>) {
  // expected-error @below {{expected offsets of 2x1, with placement operand only, but got 'vector<2x1xf32>'}}
  kv.tile.accumulate %state, %weights, %values scales %scales sums %sums offsets %offsets placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !values, scales !scales, sums vector<2x1xf32> offsets vector<2x1xf32>
  return
}

// -----

!values = !kv.block<value, 32x64xf16, packing = <16x1>>
func.func @accumulate_c8_bytes(%state: !kv.state<2x64>, %weights: vector<2x32xf32>, %values: !values,
                               %pages: memref<?xi8>, %at: index) {
  // expected-error @below {{expected bytes ahead above 0, but got -64}}
  kv.tile.accumulate %state, %weights, %values placement <none> ahead %pages[%at] bytes -64
    : !kv.state<2x64>, vector<2x32xf32>, !values ahead memref<?xi8>
  return
}

// -----

//===-- kv.tile.shift_state ----------------------------------------------------------------===//

func.func @shift_state_c1_rows(%state: !kv.state<2x64>, %amounts: vector<4x1xf32>) {
  // expected-error @below {{expected amounts of 2x1, but got 'vector<4x1xf32>'}}
  kv.tile.shift_state %state, %amounts : !kv.state<2x64>, vector<4x1xf32>
  return
}

// -----

func.func @shift_state_c1_columns(%state: !kv.state<2x64>, %amounts: vector<2x32xf32>) {
  // expected-error @below {{expected amounts of 2x1, but got 'vector<2x32xf32>'}}
  kv.tile.shift_state %state, %amounts : !kv.state<2x64>, vector<2x32xf32>
  return
}

// -----

//===-- kv.tile.restore --------------------------------------------------------------------===//

func.func @restore_c1_divides(%state: !kv.state<2x96>) {
  // expected-error @below {{expected size a power of two from 16 to 256 that divides 96, but got 64}}
  kv.tile.restore %state size 64 : !kv.state<2x96>
  return
}

// -----

func.func @restore_c1_small(%state: !kv.state<2x64>) {
  // expected-error @below {{expected size a power of two from 16 to 256 that divides 64, but got 8}}
  kv.tile.restore %state size 8 : !kv.state<2x64>
  return
}

// -----

func.func @restore_c2_means(%state: !kv.state<2x64>, %bytes: memref<?xi8>) {
  // expected-error @below {{expected an offset exactly with each vector}}
  "kv.tile.restore"(%state, %bytes) <{operandSegmentSizes = array<i32: 1, 1, 0, 0, 0>}>
    : (!kv.state<2x64>, memref<?xi8>) -> ()
  return
}

// -----

func.func @restore_c2_factors(%state: !kv.state<2x64>, %at: index) {
  // expected-error @below {{expected an offset exactly with each vector}}
  "kv.tile.restore"(%state, %at) <{operandSegmentSizes = array<i32: 1, 0, 0, 0, 1>}>
    : (!kv.state<2x64>, index) -> ()
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
  kv.tile.mask %tile at %valid valid %valid : vector<64xf32> -> vector<64xf32>
  return
}

// -----

func.func @merge_memory(%halves: memref<?xf16>, %floats: memref<?xf32>, %at: index) {
  // expected-error @below {{operand #0 must be 1D memref of 32-bit float values, but got 'memref<?xf16>'}}
  kv.tile.merge %halves[%at], %floats[%at] count %at rows %at into %halves[%at], %floats[%at] heads 1 x 64
    : memref<?xf16>, memref<?xf32> into memref<?xf16>, memref<?xf32>
  return
}

// -----

func.func @store_result_memory(%state: !kv.state<1x64>, %words: memref<?xi32>, %floats: memref<?xf32>, %at: index) {
  // expected-error @below {{operand #1 must be 1D memref of 16-bit float or bfloat16 type or 32-bit float values, but got 'memref<?xi32>'}}
  kv.tile.store_result %state, %words[%at], %floats[%at]
    : !kv.state<1x64>, memref<?xi32>, memref<?xf32>
  return
}

// -----

//===-- kv.tile.is_dominated ---------------------------------------------------------------===//

func.func @is_dominated_c1(%state: !kv.state<2x64>, %weights: vector<1x32xf32>) {
  // expected-error @below {{expected weights of 2x32, but got 'vector<1x32xf32>'}}
  kv.tile.is_dominated %state, %weights share 0.125 : !kv.state<2x64>, vector<1x32xf32>
  return
}

// -----

//===-- kv.tile.scratch ---------------------------------------------------------===//

// -----

func.func @scratch_c1() {
  // expected-error @below {{expected a tile of 32 rows, but got 'vector<16x64xf32>'}}
  %0 = kv.tile.scratch : vector<16x64xf32>
  return
}

// -----

//===-- kv.tile.gather ----------------------------------------------------------===//

// -----

func.func @gather_c1_codes(%t: vector<32x64xf32>, %b: !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>>, %s: memref<?xf16>, %i: index) {
  // expected-error @below {{expected a block of numbers for 'vector<32x64xf32>'}}
  kv.tile.gather %t window %b, %s[%i] stride %i rows %i to %i end %i : vector<32x64xf32> window !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>>, memref<?xf16>
  return
}

// -----

func.func @gather_c1_shape(%t: vector<32x32xf32>, %b: !kv.block<key, 32x64xf16, packing = <16x1>>, %s: memref<?xf16>, %i: index) {
  // expected-error @below {{expected a block of numbers for 'vector<32x32xf32>'}}
  kv.tile.gather %t window %b, %s[%i] stride %i rows %i to %i end %i : vector<32x32xf32> window !kv.block<key, 32x64xf16, packing = <16x1>>, memref<?xf16>
  return
}

// -----

func.func @gather_c2(%t: vector<32x64xf32>, %s: memref<?xf16>, %m: memref<?xi8>, %i: index) {
  // expected-error @below {{expected an offset exactly with each vector}}
  "kv.tile.gather"(%t, %s, %i, %i, %i, %i, %i, %m) {operandSegmentSizes = array<i32: 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0>} : (vector<32x64xf32>, memref<?xf16>, index, index, index, index, index, memref<?xi8>) -> ()
  return
}

// -----

//===-- kv.tile.rotate_rows -----------------------------------------------------===//

// -----

func.func @rotate_rows_c1(%t: vector<32x64xf32>) {
  // expected-error @below {{expected size a power of two from 16 to 256 that divides 64, but got 128}}
  kv.tile.rotate_rows %t size 128 : vector<32x64xf32>
  return
}

// -----

func.func @rotate_rows_c2(%t: vector<32x64xf32>, %i: index) {
  // expected-error @+1 {{'kv.tile.rotate_rows' op expected both bounds of rows, or none}}
  "kv.tile.rotate_rows"(%t, %i) {operandSegmentSizes = array<i32: 1, 1, 0>, size = 64 : i64} : (vector<32x64xf32>, index) -> ()
  return
}

// -----

//===-- kv.tile.normalize_tokens ------------------------------------------------===//

// -----

func.func @normalize_tokens_c1(%t: vector<32x64xf32>, %n: !kv.block<value, 32x1xbf16, packing = <1x1>>, %i: index) {
  // expected-error @below {{expected norms of 32x1 of f16 or f8E8M0FNU}}
  kv.tile.normalize_tokens %t, %n rows %i to %i : vector<32x64xf32>, !kv.block<value, 32x1xbf16, packing = <1x1>>
  return
}

// -----

//===-- kv.tile.encode ----------------------------------------------------------===//

// -----

func.func @encode_c1_element(%t: vector<32x64xf32>, %d: !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>>, %s: !kv.block<key, 32x2xf16, packing = <16x1>>) {
  // expected-error @below {{expected a block of 'i4'}}
  kv.tile.encode %t into %d scales %s as <i4, map = sym, group = 1x32, scale = f16> : vector<32x64xf32> into !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>> scales !kv.block<key, 32x2xf16, packing = <16x1>>
  return
}

// -----

func.func @encode_c1_shape(%t: vector<32x32xf32>, %d: !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>>, %s: !kv.block<key, 32x2xf16, packing = <16x1>>) {
  // expected-error @below {{expected a block of 'i3' for 'vector<32x32xf32>'}}
  kv.tile.encode %t into %d scales %s as <i3, map = sym, group = 1x32, scale = f16> : vector<32x32xf32> into !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>> scales !kv.block<key, 32x2xf16, packing = <16x1>>
  return
}

// -----

func.func @encode_c2_scales(%t: vector<32x64xf32>, %d: !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>>) {
  // expected-error @below {{expected scales and zeros exactly if the format has them}}
  kv.tile.encode %t into %d as <i3, map = sym, group = 1x32, scale = f16> : vector<32x64xf32> into !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>>
  return
}

// -----

func.func @encode_c2_groups(%t: vector<32x64xf32>, %d: !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>>, %s: !kv.block<key, 32x2xf16, packing = <16x1>>) {
  // expected-error @below {{expected a scale (and zero) of 'f16' for each group of 1x64}}
  kv.tile.encode %t into %d scales %s as <i3, map = sym, group = 1x64, scale = f16> : vector<32x64xf32> into !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>> scales !kv.block<key, 32x2xf16, packing = <16x1>>
  return
}

// -----

func.func @encode_c3(%t: vector<32x64xf32>, %d: !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>>, %s: !kv.block<key, 1x64xf16, packing = <1x1>>, %i: index) {
  // expected-error @below {{expected groups of one token with rows, but got 32}}
  kv.tile.encode %t rows %i to %i into %d scales %s as <i3, map = sym, group = 32x1, scale = f16> : vector<32x64xf32> into !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>> scales !kv.block<key, 1x64xf16, packing = <1x1>>
  return
}

// -----

func.func @encode_c4(%t: vector<32x64xf32>, %d: !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>>, %s: !kv.block<key, 32x2xf16, packing = <16x1>>) {
  // expected-error @below {{expected weights exactly with feedback}}
  kv.tile.encode %t into %d scales %s as <i3, map = sym, group = 1x32, scale = f16, feedback> : vector<32x64xf32> into !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>> scales !kv.block<key, 32x2xf16, packing = <16x1>>
  return
}

// -----

func.func @encode_c5(%t: vector<32x64xf32>, %d: !kv.block<value, 32x64xi3, packing = <16x32, lanes = 64>>, %s: !kv.block<value, 1x64xf16, packing = <1x1>>) {
  // expected-error @below {{expected an oriented tile only for groups of one token}}
  kv.tile.encode %t oriented into %d scales %s as <i3, map = sym, group = 32x1, scale = f16> : vector<32x64xf32> into !kv.block<value, 32x64xi3, packing = <16x32, lanes = 64>> scales !kv.block<value, 1x64xf16, packing = <1x1>>
  return
}

// -----

//===-- kv.tile.write_rows ------------------------------------------------------===//

// -----

func.func @write_rows_c1(%s: memref<?xf32>, %b: !kv.block<key, 32x64xf16, packing = <16x1>>, %i: index) {
  // expected-error @below {{expected a block of 32 tokens of 'f32'}}
  kv.tile.write_rows %s[%i] stride %i rows %i to %i into %b : memref<?xf32> into !kv.block<key, 32x64xf16, packing = <16x1>>
  return
}

// -----

//===-- kv.tile.clear -----------------------------------------------------------===//

// -----

func.func @clear_c1(%m: memref<?xi8>, %i: index) {
  // expected-error @below {{expected bytes a positive multiple of 64, but got 100}}
  kv.tile.clear %m[%i] bytes 100 : memref<?xi8>
  return
}

// -----

//===-- kv.tile.measure ---------------------------------------------------------===//

// -----

func.func @measure_c1_means(%s: memref<?xf16>, %g: memref<?xf32>, %m: memref<?xi8>, %i: index) {
  // expected-error @below {{expected offsets exactly for the factors and means of the format}}
  kv.tile.measure %s[%i] stride %i rows %i given %g[%i] means %i into %m means %i channels 64 as <i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>]> : memref<?xf16>, memref<?xf32>, memref<?xi8>
  return
}

// -----

func.func @measure_c1_none(%s: memref<?xf16>, %g: memref<?xf32>, %m: memref<?xi8>, %i: index) {
  // expected-error @below {{expected offsets exactly for the factors and means of the format}}
  kv.tile.measure %s[%i] stride %i rows %i given %g[%i] means %i into %m channels 64 as <i3, map = sym, group = 1x32, scale = f16> : memref<?xf16>, memref<?xf32>, memref<?xi8>
  return
}

// -----

func.func @measure_c2(%s: memref<?xf16>, %g: memref<?xf32>, %m: memref<?xi8>, %i: index) {
  // expected-error @below {{expected channels a multiple of 32, but got 48}}
  kv.tile.measure %s[%i] stride %i rows %i given %g[%i] means %i into %m means %i channels 48 as <i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.center]> : memref<?xf16>, memref<?xf32>, memref<?xi8>
  return
}

// -----

//===-- kv.tile.advance, ring, fetch, await ---------------------------------------------------===//

func.func @advance_c1(%memory: memref<?xi8>, %at: index) {
  // expected-error @below {{expected a result of type 'memref<?xi8>', but got 'memref<?xi32>'}}
  kv.tile.advance %memory[%at] : memref<?xi8> -> memref<?xi32>
  return
}

// -----

func.func @ring_c1_stages() {
  // expected-error @below {{expected positive stages and bytes a positive multiple of 16, but got 0 and 64}}
  kv.tile.ring stages 0 bytes 64 : memref<?xi8>
  return
}

// -----

func.func @ring_c1_bytes() {
  // expected-error @below {{expected positive stages and bytes a positive multiple of 16, but got 2 and 40}}
  kv.tile.ring stages 2 bytes 40 : memref<?xi8>
  return
}

// -----

func.func @fetch_c1(%memory: memref<?xi8>, %ring: memref<?xi8>, %at: index) {
  // expected-error @below {{expected bytes a positive multiple of 16, but got 8}}
  kv.tile.fetch %memory[%at] to %ring[%at] bytes 8 : memref<?xi8> to memref<?xi8>
  return
}

// -----

func.func @prefetch_c1(%memory: memref<?xi8>, %at: index) {
  // expected-error @below {{expected bytes a positive multiple of 16, but got 8}}
  kv.tile.prefetch %memory[%at] bytes 8 : memref<?xi8>
  return
}

// -----

func.func @await_c1() {
  // expected-error @below {{expected pending not negative, but got -1}}
  kv.tile.await pending -1
  return
}
