// How tile operations are written for a GPU: a warp per work item, tiles in workgroup memory, states in
// registers, a lane per free index of a product.
// RUN: kvcc-opt %s -kv-convert-tile-to-gpu -canonicalize -cse | FileCheck %s --implicit-check-not=kv.tile

module attributes {kv.target = #kv.target<cuda, "sm_90">} {

// The work item comes from the grid, its arguments go.
// CHECK-LABEL: func.func @three_indices(
// CHECK-SAME:    %[[OUT:[^:]*]]: memref<?xf32>) attributes {kv.threads = 32 : i64}
// CHECK-DAG:     %[[X:.*]] = gpu.block_id x
// CHECK-DAG:     %[[Y:.*]] = gpu.block_id y
// CHECK-DAG:     %[[Z:.*]] = gpu.block_id z
// CHECK:         %[[XY:.*]] = arith.addi %[[X]], %[[Y]]
// CHECK:         %[[XYZ:.*]] = arith.addi %[[XY]], %[[Z]]
// CHECK:         memref.store %{{.*}}, %[[OUT]][%[[XYZ]]]
func.func @three_indices(%out: memref<?xf32>, %tile: index, %split: index, %seq: index)
    attributes {kv.item_args = 3 : i64} {
  %zero = arith.constant 0.0 : f32
  %0 = arith.addi %tile, %split : index
  %1 = arith.addi %0, %seq : index
  memref.store %zero, %out[%1] : memref<?xf32>
  return
}

// CHECK-LABEL: func.func @one_index(
// CHECK-SAME:    %[[OUT:[^:]*]]: memref<?xf32>, %[[ROWS:[^:]*]]: index) attributes {kv.threads = 32 : i64}
// CHECK:         %[[X:.*]] = gpu.block_id x
// CHECK:         %[[AT:.*]] = arith.addi %[[ROWS]], %[[X]]
// CHECK:         memref.store %{{.*}}, %[[OUT]][%[[AT]]]
func.func @one_index(%out: memref<?xf32>, %rows: index, %row: index) attributes {kv.item_args = 1 : i64} {
  %zero = arith.constant 0.0 : f32
  %0 = arith.addi %rows, %row : index
  memref.store %zero, %out[%0] : memref<?xf32>
  return
}

// Lanes take channels lane, lane + 32; whoever reads a tile of others' numbers waits first.
// CHECK-LABEL: func.func @score(
// CHECK-SAME:    %[[Q:[^:]*]]: memref<?xf16>, %[[BYTES:[^:]*]]: memref<?xi8>, %[[OUT:[^:]*]]: memref<?xf32>)
// CHECK-DAG:     %[[C0:.*]] = arith.constant 0 : index
// CHECK-DAG:     %[[C1:.*]] = arith.constant 1 : index
// CHECK-DAG:     %[[C2:.*]] = arith.constant 2 : index
// CHECK-DAG:     %[[C32:.*]] = arith.constant 32 : index
// CHECK-DAG:     %[[C64:.*]] = arith.constant 64 : index
// CHECK-DAG:     %[[C96:.*]] = arith.constant 96 : index
// CHECK-DAG:     %[[MASK:.*]] = arith.constant 7 : i32
// CHECK-DAG:     %[[ZERO_CODE:.*]] = arith.constant -4.000000e+00 : f32
// CHECK-DAG:     %[[NO_MAX:.*]] = arith.constant -1.000000e+30 : f32
// CHECK-DAG:     %[[SUMS:.*]] = memref.alloca() : memref<2x2xf32, #gpu.address_space<workgroup>>
// CHECK-DAG:     %[[LOGITS:.*]] = memref.alloca() : memref<2x32xf32, #gpu.address_space<workgroup>>
// Of a head, a lane keeps two channels, a share of the sum and the maximum.
// CHECK-DAG:     %[[STATE:.*]] = memref.alloca() : memref<2x4xf32, #gpu.address_space<private>>
// CHECK:         memref.store %[[NO_MAX]], %[[STATE]]
// CHECK:         scf.for
// CHECK:           %[[LANE_OF_QUERY:.*]] = gpu.thread_id x
// CHECK:           scf.for %{{.*}} = %[[LANE_OF_QUERY]] to %[[C64]] step %[[C32]] {
// CHECK:             %[[NUMBER:.*]] = memref.load %[[Q]]{{.*}} : memref<?xf16>
// CHECK:             arith.extf %[[NUMBER]] : f16 to f32
// CHECK:         gpu.barrier
// CHECK:         %[[FACTORS:.*]] = memref.view %[[BYTES]]{{.*}} : memref<?xi8> to memref<64xf32>
// CHECK:         memref.load %[[FACTORS]]
// CHECK:         memref.store %{{.*}}, %[[QUERY:.*]][%{{.*}}] : memref<2x64xf32, #gpu.address_space<workgroup>>
// CHECK:         gpu.barrier
// CHECK:         memref.store %{{.*}}, %[[SUMS]]
// CHECK:         gpu.barrier
// Three words of a lane hold its 32 codes of a group; word k of all lanes stands together.
// CHECK:         %[[KEYS:.*]] = memref.view %[[BYTES]]{{.*}} : memref<?xi8> to memref<192xi32>
// CHECK:         %[[SCALES:.*]] = memref.view %[[BYTES]]{{.*}} : memref<?xi8> to memref<64xf16>
// CHECK:         %{{.*}}:2 = scf.for %[[GROUP:.*]] = %[[C0]] to %[[C2]] step %[[C1]] iter_args(
// CHECK:           %[[SUM:.*]] = memref.load %[[SUMS]][%[[C0]], %[[GROUP]]]
// CHECK:           arith.mulf %[[SUM]], %[[ZERO_CODE]]
// CHECK:           %[[UNIT:.*]] = arith.muli %[[GROUP]], %[[C96]]
// CHECK:           %[[WORD:.*]] = arith.addi %[[UNIT]], %[[LANE:.*]] :
// CHECK:           %[[FIRST:.*]] = memref.load %[[KEYS]][%[[WORD]]]
// CHECK:           %[[NEXT:.*]] = arith.addi %[[WORD]], %[[C32]]
// CHECK:           memref.load %[[KEYS]][%[[NEXT]]]
// CHECK:           %[[CODE:.*]] = arith.andi %[[FIRST]], %[[MASK]]
// CHECK:           arith.uitofp %[[CODE]] : i32 to f32
// CHECK:           %[[SCALE:.*]] = memref.load %[[SCALES]]
// CHECK:           arith.extf %[[SCALE]]
// CHECK:         memref.store %{{.*}}, %[[LOGITS]][%[[C0]], %[[LANE]]]
// CHECK:         memref.store %{{.*}}, %[[LOGITS]][%[[C1]], %[[LANE]]]
// CHECK:         gpu.shuffle xor
// CHECK:         arith.maxnumf
// CHECK:         math.exp2
// CHECK:         gpu.barrier
func.func @score(%q: memref<?xf16>, %bytes: memref<?xi8>, %out: memref<?xf32>, %at: index)
    attributes {kv.item_args = 1 : i64} {
  %state = kv.tile.init_state : !kv.state<2x64>
  %query = kv.tile.load_query %q[%at] scale 0.125 : memref<?xf16> -> vector<2x64xf32>
  %factored = kv.tile.scale_channels %query, %bytes[%at] : vector<2x64xf32>, memref<?xi8> -> vector<2x64xf32>
  %small:2 = kv.tile.prepare %factored group 32 : vector<2x64xf32> -> vector<2x64xf32>, vector<2x2xf32>
  %keys = kv.tile.load %bytes[%at]
    : memref<?xi8> -> !kv.block<key, 32x64xi3, packing = <32x32, lanes = 32>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x2xf16, packing = <32x1>>
  %logits = kv.tile.score %small#0, %keys scales %scales sums %small#1 placement <accumulator>
    : vector<2x64xf32>, !kv.block<key, 32x64xi3, packing = <32x32, lanes = 32>>,
      scales !kv.block<key, 32x2xf16, packing = <32x1>>, sums vector<2x2xf32> -> vector<2x32xf32>
  kv.tile.softmax_step %state, %logits : !kv.state<2x64>, vector<2x32xf32> -> vector<2x32xf32>
  kv.tile.store_result %state, %out[%at], %out[%at] : !kv.state<2x64>, memref<?xf32>, memref<?xf32>
  return
}

// The loop over the lane's channels indexes registers, so it has to be unrolled.
// CHECK-LABEL: func.func @accumulate_codes(
// CHECK-DAG:     %[[STATE:.*]] = memref.alloca() : memref<2x4xf32, #gpu.address_space<private>>
// CHECK:         %[[VALUES:.*]] = memref.view %{{.*}} : memref<?xi8> to memref<128xi32>
// CHECK:         scf.for %[[TILE:.*]] = %{{.*}} {
// CHECK:           memref.load %[[VALUES]]
// CHECK:           memref.load %[[STATE]][%{{.*}}, %[[TILE]]]
// CHECK:           memref.store %{{.*}}, %[[STATE]][%{{.*}}, %[[TILE]]]
// CHECK:           gpu.barrier
// CHECK-NEXT:    } {kv.unroll}
func.func @accumulate_codes(%w: memref<?xf32>, %bytes: memref<?xi8>, %at: index)
    attributes {kv.item_args = 1 : i64} {
  %state = kv.tile.init_state : !kv.state<2x64>
  %weights = kv.tile.load_query %w[%at] scale 1.0 : memref<?xf32> -> vector<2x32xf32>
  %small:2 = kv.tile.prepare %weights group 32 : vector<2x32xf32> -> vector<2x32xf32>, vector<2x1xf32>
  %values = kv.tile.load %bytes[%at]
    : memref<?xi8> -> !kv.block<value, 32x64xi2, packing = <32x32, lanes = 32>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<value, 1x64xf16, packing = <32x1>>
  kv.tile.accumulate %state, %small#0, %values scales %scales sums %small#1 placement <accumulator>
    : !kv.state<2x64>, vector<2x32xf32>, !kv.block<value, 32x64xi2, packing = <32x32, lanes = 32>>,
      scales !kv.block<value, 1x64xf16, packing = <32x1>>, sums vector<2x1xf32>
  return
}

// CHECK-LABEL: func.func @accumulate_numbers(
// CHECK:         %[[VALUES:.*]] = memref.view %{{.*}} : memref<?xi8> to memref<2048xbf16>
// CHECK:         scf.for
// CHECK:           %{{.*}}:2 = scf.for %{{.*}} iter_args(
// CHECK:             %[[NUMBER:.*]] = memref.load %[[VALUES]]
// CHECK:             arith.extf %[[NUMBER]] : bf16 to f32
// CHECK:           gpu.barrier
// CHECK-NEXT:    } {kv.unroll}
func.func @accumulate_numbers(%w: memref<?xf32>, %bytes: memref<?xi8>, %at: index)
    attributes {kv.item_args = 1 : i64} {
  %state = kv.tile.init_state : !kv.state<2x64>
  %weights = kv.tile.load_query %w[%at] scale 1.0 : memref<?xf32> -> vector<2x32xf32>
  %values = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<value, 32x64xbf16, packing = <32x1>>
  kv.tile.accumulate %state, %weights, %values placement <none>
    : !kv.state<2x64>, vector<2x32xf32>, !kv.block<value, 32x64xbf16, packing = <32x1>>
  return
}

// CHECK-LABEL: func.func @mask(
// CHECK-SAME:    %{{[^:]*}}: memref<?xf32>, %[[VALID:[^:]*]]: index)
// CHECK-DAG:     %[[MASKED:.*]] = arith.constant -1.000000e+30 : f32
// CHECK:         %[[LANE:.*]] = gpu.thread_id x
// CHECK:         %[[IS_THERE:.*]] = arith.cmpi ult, %[[LANE]], %[[VALID]]
// CHECK:         %[[LOGIT:.*]] = memref.load %{{.*}}[%{{.*}}, %[[LANE]]]
// CHECK:         %[[RESULT:.*]] = arith.select %[[IS_THERE]], %[[LOGIT]], %[[MASKED]]
// CHECK:         memref.store %[[RESULT]]
func.func @mask(%memory: memref<?xf32>, %valid: index, %at: index) attributes {kv.item_args = 1 : i64} {
  %logits = kv.tile.load_query %memory[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  kv.tile.mask %logits, %valid : vector<1x32xf32> -> vector<1x32xf32>
  return
}

// One lane writes the lse.
// CHECK-LABEL: func.func @results(
// CHECK-SAME:    %[[OUTS:[^:]*]]: memref<?xf32>, %[[LSES:[^:]*]]: memref<?xf32>, %[[OUT:[^:]*]]: memref<?xf32>, %[[LSE:[^:]*]]: memref<?xf32>,
// CHECK-DAG:     %[[C0:.*]] = arith.constant 0 : index
// CHECK-DAG:     %[[EMPTY:.*]] = arith.constant 0xFF800000 : f32
// CHECK:         memref.load %[[LSES]]
// CHECK:         %[[LANE:.*]] = gpu.thread_id x
// CHECK:         memref.load %[[OUTS]]
// CHECK:         %[[IS_FIRST:.*]] = arith.cmpi eq, %[[LANE]], %[[C0]]
// CHECK:         gpu.shuffle xor
// CHECK:         memref.store %{{.*}}, %[[OUT]]
// CHECK:         math.log2
// CHECK:         %[[RESULT:.*]] = arith.select %{{.*}}, %{{.*}}, %[[EMPTY]]
// CHECK:         scf.if %[[IS_FIRST]] {
// CHECK-NEXT:      memref.store %[[RESULT]], %[[LSE]]
// CHECK-NEXT:    }
func.func @results(%outs: memref<?xf32>, %lses: memref<?xf32>, %out: memref<?xf32>, %lse: memref<?xf32>,
                   %at: index, %row: index) attributes {kv.item_args = 1 : i64} {
  %state = kv.tile.init_state : !kv.state<1x64>
  kv.tile.merge_step %state, %outs[%at], %lses[%row] : !kv.state<1x64>, memref<?xf32>, memref<?xf32>
  kv.tile.store_result %state, %out[%at], %lse[%row] : !kv.state<1x64>, memref<?xf32>, memref<?xf32>
  return
}

}
