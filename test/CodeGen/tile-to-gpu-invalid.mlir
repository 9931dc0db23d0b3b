// What the GPU lowering refuses: targets, functions, placements, packings, groups and arithmetic that it does
// not implement.
// RUN: kvcc-opt %s -kv-convert-tile-to-gpu -verify-diagnostics -split-input-file

// expected-error @below {{expected a cuda target, but got #kv.target<cpu, "generic">}}
module attributes {kv.target = #kv.target<cpu, "generic">} {}

// -----

// expected-error @below {{expected attribute kv.target on the module}}
module {}

// -----

module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  // expected-error @below {{expected kv.item_args from 1 to 3, but got none}}
  func.func @no_item() {
    return
  }
}

// -----

module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  // expected-error @below {{expected kv.item_args from 1 to 3, but got 4}}
  func.func @four_indices(%x: index, %y: index, %z: index, %w: index) attributes {kv.item_args = 4 : i64} {
    return
  }
}

// -----

module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  // expected-error @below {{expected a body with 3 trailing index arguments, but got '(index) -> ()'}}
  func.func @too_few_arguments(%x: index) attributes {kv.item_args = 3 : i64} {
    return
  }
}

// -----

module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  // expected-error @below {{expected a body with 2 trailing index arguments, but got '(index, i32) -> ()'}}
  func.func @no_index(%x: index, %y: i32) attributes {kv.item_args = 2 : i64} {
    return
  }
}

// -----

module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  // expected-error @below {{expected a body with 1 trailing index arguments, but got '(index) -> ()' without a body}}
  func.func private @declaration(index) attributes {kv.item_args = 1 : i64}
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <32x32, lanes = 32>>
!scales = !kv.block<key, 32x2xf16, packing = <32x1>>
module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  func.func @score_element(%query: vector<1x64xf32>, %keys: !keys, %scales: !scales, %sums: vector<1x2xf32>,
                           %item: index) attributes {kv.item_args = 1 : i64} {
    // expected-error @below {{expected scales placed at accumulator, result or operand for a cuda target, but got element}}
    // expected-error @below {{failed to legalize operation 'kv.tile.score'}}
    kv.tile.score %query, %keys scales %scales sums %sums placement <element>
      : vector<1x64xf32>, !keys, scales !scales, sums vector<1x2xf32> -> vector<1x32xf32>
    return
  }
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <16x4>>
!scales = !kv.block<key, 32x2xf16, packing = <16x1>>
module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  func.func @packing_of_codes(%query: vector<1x64xf32>, %keys: !keys, %scales: !scales, %sums: vector<1x2xf32>,
                              %item: index) attributes {kv.item_args = 1 : i64} {
    // expected-error @below {{expected packing <32x32, lanes = 32> for a cuda target, but got #kv.packing<16x4>}}
    // expected-error @below {{failed to legalize operation 'kv.tile.score'}}
    kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
      : vector<1x64xf32>, !keys, scales !scales, sums vector<1x2xf32> -> vector<1x32xf32>
    return
  }
}

// -----

!keys = !kv.block<key, 32x64xf16, packing = <16x1>>
module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  func.func @packing_of_numbers(%query: vector<1x64xf32>, %keys: !keys, %item: index)
      attributes {kv.item_args = 1 : i64} {
    // expected-error @below {{for a cuda target, but got #kv.packing<16x1>}}
    // expected-error @below {{failed to legalize operation 'kv.tile.score'}}
    kv.tile.score %query, %keys placement <none> : vector<1x64xf32>, !keys -> vector<1x32xf32>
    return
  }
}

// -----

!keys = !kv.block<key, 32x96xi4, packing = <32x32, lanes = 32>>
!scales = !kv.block<key, 32x2xf16, packing = <32x1>>
module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  func.func @odd_group(%query: vector<1x96xf32>, %keys: !keys, %scales: !scales, %sums: vector<1x2xf32>,
                       %item: index) attributes {kv.item_args = 1 : i64} {
    // expected-error @below {{expected groups along the reduction that divide 32 or are a multiple of it for a cuda target, but got 48}}
    // expected-error @below {{failed to legalize operation 'kv.tile.score'}}
    kv.tile.score %query, %keys scales %scales sums %sums placement <accumulator>
      : vector<1x96xf32>, !keys, scales !scales, sums vector<1x2xf32> -> vector<1x32xf32>
    return
  }
}

// -----

!keys = !kv.block<key, 32x64xi4, packing = <32x32, lanes = 32>>
!scales = !kv.block<key, 32x2xf16, packing = <32x1>>
module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  func.func @score_int8(%query: vector<1x64xi8>, %keys: !keys, %scales: !scales, %sums: vector<1x2xf32>,
                        %item: index) attributes {kv.item_args = 1 : i64} {
    // expected-error @below {{expected compute f32 for a cuda target, but got 'vector<1x64xi8>'}}
    // expected-error @below {{failed to legalize operation 'kv.tile.score'}}
    kv.tile.score %query, %keys scales %scales sums %sums query_scales %sums placement <accumulator>
      : vector<1x64xi8>, !keys, scales !scales, sums vector<1x2xf32> query_scales vector<1x2xf32>
        -> vector<1x32xf32>
    return
  }
}

// -----

module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  func.func @prepare_int8(%tile: vector<1x64xf32>, %item: index) attributes {kv.item_args = 1 : i64} {
    // expected-error @below {{expected compute f32 for a cuda target, but got values 'vector<1x64xi8>'}}
    // expected-error @below {{failed to legalize operation 'kv.tile.prepare'}}
    kv.tile.prepare %tile group 32 : vector<1x64xf32> -> vector<1x64xi8>, vector<1x2xf32>, vector<1x2xf32>
    return
  }
}

// -----

// bf16 without scales is for CPUs.
module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  func.func @prepare_bf16(%tile: vector<1x64xf32>, %item: index) attributes {kv.item_args = 1 : i64} {
    // expected-error @below {{expected compute f32 for a cuda target, but got values 'vector<1x64xbf16>'}}
    // expected-error @below {{failed to legalize operation 'kv.tile.prepare'}}
    kv.tile.prepare %tile group 32 : vector<1x64xf32> -> vector<1x64xbf16>, vector<1x2xf32>
    return
  }
}

// -----

module attributes {kv.target = #kv.target<cuda, "sm_90">} {
  func.func @fold_bf16(%tile: vector<1x32xf32>, %scales: !kv.block<value, 32x2xf16, packing = <1x1>>, %item: index)
      attributes {kv.item_args = 1 : i64} {
    // expected-error @below {{expected compute f32 for a cuda target, but got a result 'vector<2x32xbf16>'}}
    // expected-error @below {{failed to legalize operation 'kv.tile.fold'}}
    kv.tile.fold %tile, %scales : vector<1x32xf32>, !kv.block<value, 32x2xf16, packing = <1x1>> -> vector<2x32xbf16>
    return
  }
}
