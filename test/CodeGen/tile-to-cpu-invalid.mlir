// What the CPU lowering refuses: targets, placements, packings and groups that it does not implement.
// RUN: kvcc-opt %s -kv-convert-tile-to-cpu -verify-diagnostics -split-input-file

// expected-error @below {{expected kv.target #kv.target<cpu, LEVEL> with a level of avx512_bf16, avx512_vnni, avx512, avx_vnni, avx2, neon_dotprod, generic, but got #kv.target<cuda, "sm_90">}}
module attributes {kv.target = #kv.target<cuda, "sm_90">} {}

// -----

// expected-error @below {{but got #kv.target<cpu, "avx">}}
module attributes {kv.target = #kv.target<cpu, "avx">} {}

// -----

// A level has no empty alias.
// expected-error @below {{but got #kv.target<cpu, "">}}
module attributes {kv.target = #kv.target<cpu, "">} {}

// -----

// expected-error @below {{expected attribute kv.target on the module}}
module {}

// -----

// The 16 keys of a vector share the rows of a folded query.
!keys = !kv.block<key, 32x32xi4, packing = <16x32, lanes = 64>>
!scales = !kv.block<key, 4x32xf16, packing = <1x1>>
module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @narrow_operand(%query: vector<4x32xf32>, %keys: !keys, %scales: !scales, %sums: vector<4x1xf32>) {
    // expected-error @below {{expected scales at operand that a multiple of 16 free indices share for a cpu target, but got 8}}
    // expected-error @below {{failed to legalize operation 'kv.tile.score'}}
    kv.tile.score %query, %keys scales %scales sums %sums placement <operand>
      : vector<4x32xf32>, !keys, scales !scales, sums vector<4x1xf32> -> vector<1x32xf32>
    return
  }
}

// -----

!values = !kv.block<value, 32x32xi4, packing = <16x32, lanes = 64>>
!scales = !kv.block<value, 1x32xf16, packing = <16x1>>
module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @accumulate_element(%state: !kv.state<1x32>, %weights: vector<1x32xf32>, %values: !values,
                                %scales: !scales, %sums: vector<1x1xf32>) {
    // expected-error @below {{expected scales placed at accumulator, result or operand for a cpu target, but got element}}
    // expected-error @below {{failed to legalize operation 'kv.tile.accumulate'}}
    kv.tile.accumulate %state, %weights, %values scales %scales sums %sums placement <element>
      : !kv.state<1x32>, vector<1x32xf32>, !values, scales !scales, sums vector<1x1xf32>
    return
  }
}

// -----

!keys = !kv.block<key, 32x32xi4, packing = <32x32, lanes = 32>>
!scales = !kv.block<key, 32x1xf16, packing = <32x1>>
module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @packing_of_codes(%query: vector<1x32xf32>, %keys: !keys, %scales: !scales, %sums: vector<1x1xf32>) {
    // expected-error @below {{expected packing #kv.packing<16x32, lanes = 64> for a cpu target, but got #kv.packing<32x32, lanes = 32>}}
    // expected-error @below {{failed to legalize operation 'kv.tile.score'}}
    kv.tile.score %query, %keys scales %scales sums %sums placement <result>
      : vector<1x32xf32>, !keys, scales !scales, sums vector<1x1xf32> -> vector<1x32xf32>
    return
  }
}

// -----

!keys = !kv.block<key, 32x32xf16, packing = <16x32, lanes = 64>>
module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @packing_of_numbers(%query: vector<1x32xf32>, %keys: !keys) {
    // expected-error @below {{expected packing #kv.packing<16x1> for a cpu target, but got #kv.packing<16x32, lanes = 64>}}
    // expected-error @below {{failed to legalize operation 'kv.tile.score'}}
    kv.tile.score %query, %keys placement <none> : vector<1x32xf32>, !keys -> vector<1x32xf32>
    return
  }
}

// -----

// The 64 lanes stand for 16 free indices, not 32.
!keys = !kv.block<key, 32x32xi4, packing = <32x16, lanes = 64>>
!scales = !kv.block<key, 32x1xf16, packing = <32x1>>
module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @packing_of_lanes(%query: vector<1x32xf32>, %keys: !keys, %scales: !scales, %sums: vector<1x1xf32>) {
    // expected-error @below {{expected packing #kv.packing<16x32, lanes = 64> for a cpu target, but got #kv.packing<32x16, lanes = 64>}}
    // expected-error @below {{failed to legalize operation 'kv.tile.score'}}
    kv.tile.score %query, %keys scales %scales sums %sums placement <result>
      : vector<1x32xf32>, !keys, scales !scales, sums vector<1x1xf32> -> vector<1x32xf32>
    return
  }
}

// -----

!keys = !kv.block<key, 32x32xf8E4M3FN, packing = <16x32, lanes = 64>>
!scales = !kv.block<key, 32x1xf16, packing = <16x1>>
module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @fp8_int8(%query: vector<1x32xi16>, %keys: !keys, %scales: !scales, %sums: vector<1x1xf32>) {
    // expected-error @below {{expected compute f32 or bf16 with codes of f8E4M3FN, but got 'i16'}}
    // expected-error @below {{failed to legalize operation 'kv.tile.score'}}
    kv.tile.score %query, %keys scales %scales sums %sums query_scales %sums placement <result>
      : vector<1x32xi16>, !keys, scales !scales, sums vector<1x1xf32> query_scales vector<1x1xf32> -> vector<1x32xf32>
    return
  }
}

// -----

module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @narrow_group(%tile: vector<1x32xf32>) {
    // expected-error @below {{expected groups of a multiple of 16 for a cpu target, but got 8}}
    // expected-error @below {{failed to legalize operation 'kv.tile.prepare'}}
    kv.tile.prepare %tile group 8 : vector<1x32xf32> -> vector<1x32xf32>, vector<1x4xf32>
    return
  }
}

// -----

// bf16 is for the level that multiplies it, and for codes.
module attributes {kv.target = #kv.target<cpu, "avx512_vnni">} {
  func.func @prepare_bf16(%tile: vector<2x64xf32>) {
    // expected-error @below {{expected f32, or bf16 in pairs of vectors, scales with a factor, on a cpu level that multiplies it, but got 'vector<2x64xbf16>' and avx512_vnni}}
    // expected-error @below {{failed to legalize operation 'kv.tile.prepare'}}
    kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xbf16>, vector<2x2xf32>
    return
  }
}

// -----

module attributes {kv.target = #kv.target<cpu, "avx512_bf16">} {
  func.func @prepare_bf16_scales(%tile: vector<2x64xf32>) {
    // expected-error @below {{expected f32, or bf16 in pairs of vectors, scales with a factor, on a cpu level that multiplies it, but got 'vector<2x64xbf16>' and avx512_bf16}}
    // expected-error @below {{failed to legalize operation 'kv.tile.prepare'}}
    kv.tile.prepare %tile group 32 : vector<2x64xf32> -> vector<2x64xbf16>, vector<2x2xf32>, vector<2x1xf32>
    return
  }
}

// -----

module attributes {kv.target = #kv.target<cpu, "generic">} {
  func.func @fold_bf16(%tile: vector<1x32xf32>, %scales: !kv.block<value, 32x2xf16, packing = <1x1>>) {
    // expected-error @below {{expected a tile of f32, and a result of bf16 only on a cpu level that multiplies it, but got 'vector<1x32xf32>' on generic}}
    // expected-error @below {{failed to legalize operation 'kv.tile.fold'}}
    kv.tile.fold %tile, %scales : vector<1x32xf32>, !kv.block<value, 32x2xf16, packing = <1x1>> -> vector<2x32xbf16>
    return
  }
}

// -----

!keys = !kv.block<key, 32x64xf16, packing = <16x1>>
module attributes {kv.target = #kv.target<cpu, "avx512_bf16">} {
  func.func @score_bf16_numbers(%query: vector<1x64xbf16>, %keys: !keys) {
    // expected-error @below {{expected bf16 with codes on a cpu level that multiplies it, but got avx512_bf16 and '!kv.block<key, 32x64xf16, packing = <16x1>>'}}
    // expected-error @below {{failed to legalize operation 'kv.tile.score'}}
    kv.tile.score %query, %keys placement <none> : vector<1x64xbf16>, !keys -> vector<1x32xf32>
    return
  }
}
