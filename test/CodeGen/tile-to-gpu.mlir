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
// CHECK:           %[[UNIT:.*]] = arith.muli %[[GROUP]], %[[C96]]
// CHECK:           %[[WORD:.*]] = arith.addi %[[UNIT]], %[[LANE:.*]] :
// CHECK:           %[[FIRST:.*]] = memref.load %[[KEYS]][%[[WORD]]]
// CHECK:           %[[NEXT:.*]] = arith.addi %[[WORD]], %[[C32]]
// CHECK:           memref.load %[[KEYS]][%[[NEXT]]]
// CHECK:           %[[CODE:.*]] = arith.andi %[[FIRST]], %[[MASK]]
// CHECK:           %[[SUM:.*]] = memref.load %[[SUMS]][%[[C0]], %[[GROUP]]]
// CHECK:           arith.mulf %[[SUM]], %[[ZERO_CODE]]
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

// A folded operand has a row per group of free indices and head: a lane reads the rows of its channel's group. The
// product counts codes from the middle, and what that leaves stands in the offsets with the zero points.
// CHECK-LABEL: func.func @operand(
// CHECK-DAG:     %[[C1:.*]] = arith.constant 1 : index
// CHECK-DAG:     %[[C2:.*]] = arith.constant 2 : index
// CHECK-DAG:     %[[C16:.*]] = arith.constant 16 : index
// CHECK-DAG:     %[[LANE:.*]] = gpu.thread_id x
// CHECK-DAG:     %[[MIDDLE:.*]] = arith.constant 8.000000e+00 : f32
// CHECK-DAG:     %[[ZERO_CODE:.*]] = arith.constant -8.000000e+00 : f32
// CHECK-DAG:     %[[FOLDED:.*]] = memref.alloca() : memref<4x32xf32, #gpu.address_space<workgroup>>
// CHECK:         %[[SCALES:.*]] = memref.view %{{.*}} : memref<?xi8> to memref<64xf16>
// CHECK:         scf.for
// CHECK:           memref.load %[[SCALES]]
// CHECK:           memref.store %[[NUMBER:.*]], %[[FOLDED]]
// CHECK:           arith.mulf %[[NUMBER]], %[[MIDDLE]]
// CHECK:           gpu.shuffle xor
// CHECK:           memref.store %{{.*}}, %[[OFFSETS:[a-z_0-9]+]][%{{.*}}] : memref<4x1xf32, #gpu.address_space<workgroup>>
// CHECK:         gpu.barrier
// CHECK:           memref.store %{{.*}}, %[[SUMS:[a-z_0-9]+]][%{{.*}}] : memref<4x1xf32, #gpu.address_space<workgroup>>
// CHECK:         %[[GROUP:.*]] = arith.divui %{{.*}}, %[[C16]]
// CHECK:         %[[ROW:.*]] = arith.muli %[[GROUP]], %[[C2]]
// CHECK:         %[[SUM:.*]] = memref.load %[[SUMS]][%[[ROW]], %{{.*}}]
// CHECK-NEXT:    arith.mulf %[[SUM]], %[[ZERO_CODE]]
// CHECK:         memref.load %[[OFFSETS]][%[[ROW]], %{{.*}}]
func.func @operand(%w: memref<?xf32>, %bytes: memref<?xi8>, %at: index) attributes {kv.item_args = 1 : i64} {
  %state = kv.tile.init_state : !kv.state<2x32>
  %weights = kv.tile.load_query %w[%at] scale 1.0 : memref<?xf32> -> vector<2x32xf32>
  %values = kv.tile.load %bytes[%at]
    : memref<?xi8> -> !kv.block<value, 32x32xi4, packing = <32x32, lanes = 32>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<value, 32x2xf16, packing = <1x1>>
  %folded, %offsets = kv.tile.fold %weights, %scales zeros %scales middle 8
    : vector<2x32xf32>, !kv.block<value, 32x2xf16, packing = <1x1>>
      zeros !kv.block<value, 32x2xf16, packing = <1x1>> -> vector<4x32xf32> offsets vector<4x1xf32>
  %small:2 = kv.tile.prepare %folded group 32 : vector<4x32xf32> -> vector<4x32xf32>, vector<4x1xf32>
  kv.tile.accumulate %state, %small#0, %values scales %scales sums %small#1 offsets %offsets placement <operand>
    : !kv.state<2x32>, vector<4x32xf32>, !kv.block<value, 32x32xi4, packing = <32x32, lanes = 32>>,
      scales !kv.block<value, 32x2xf16, packing = <1x1>>, sums vector<4x1xf32> offsets vector<4x1xf32>
  return
}

// Only where the sign of the scale marks a group does its zero point count. Two groups share a unit of 32 codes.
// CHECK-LABEL: func.func @score_hybrid(
// CHECK-DAG:     %[[C0_I32:.*]] = arith.constant 0 : i32
// CHECK-DAG:     %[[ZERO_CODE:.*]] = arith.constant -2.000000e+00 : f32
// CHECK-COUNT-16: arith.uitofp
// CHECK-NOT:     arith.uitofp
// CHECK:         %[[SCALE:.*]] = arith.extf %{{.*}} : f16 to f32
// CHECK:         %[[ZERO:.*]] = arith.extf %{{.*}} : f16 to f32
// CHECK:         %[[BITS:.*]] = arith.bitcast %[[SCALE]] : f32 to i32
// CHECK:         %[[MARKED:.*]] = arith.cmpi slt, %[[BITS]], %[[C0_I32]]
// CHECK:         %[[MAGNITUDE:.*]] = math.absf %[[SCALE]]
// CHECK:         %[[SYMMETRIC:.*]] = arith.mulf %[[MAGNITUDE]], %[[ZERO_CODE]]
// CHECK:         arith.select %[[MARKED]], %[[ZERO]], %[[SYMMETRIC]]
// CHECK-COUNT-16: arith.uitofp
// CHECK-NOT:     arith.uitofp
// CHECK:         math.absf
// CHECK:         math.exp2
func.func @score_hybrid(%q: memref<?xf32>, %bytes: memref<?xi8>, %zeros_at: index, %at: index)
    attributes {kv.item_args = 1 : i64} {
  %state = kv.tile.init_state : !kv.state<1x32>
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %small:2 = kv.tile.prepare %query group 16 : vector<1x32xf32> -> vector<1x32xf32>, vector<1x2xf32>
  %keys = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x32xi2, packing = <32x32, lanes = 32>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x2xf16, packing = <32x1>>
  %zeros = kv.tile.load %bytes[%zeros_at] : memref<?xi8> -> !kv.block<key, 32x2xf16, packing = <32x1>>
  %logits = kv.tile.score %small#0, %keys scales %scales zeros %zeros hybrid sums %small#1 placement <accumulator>
    : vector<1x32xf32>, !kv.block<key, 32x32xi2, packing = <32x32, lanes = 32>>,
      scales !kv.block<key, 32x2xf16, packing = <32x1>> zeros !kv.block<key, 32x2xf16, packing = <32x1>>,
      sums vector<1x2xf32> -> vector<1x32xf32>
  kv.tile.softmax_step %state, %logits : !kv.state<1x32>, vector<1x32xf32> -> vector<1x32xf32>
  kv.tile.store_result %state, %q[%at], %q[%at] : !kv.state<1x32>, memref<?xf32>, memref<?xf32>
  return
}

// A code of f8E4M3FN becomes an f32 with the same exponent field and, in the end, 2^120 times that.
// CHECK-LABEL: func.func @score_fp8(
// CHECK-DAG:     %[[BIAS:.*]] = arith.constant 1.329228E+36 : f32
// CHECK-DAG:     %[[REST:.*]] = arith.constant 127 : i32
// CHECK-DAG:     %[[SIGN:.*]] = arith.constant 128 : i32
// CHECK:         %[[MAGNITUDE:.*]] = arith.andi %[[CODE:.*]], %[[REST]] : i32
// CHECK:         %[[MOVED:.*]] = arith.shli %[[MAGNITUDE]],
// CHECK:         %[[NEGATIVE:.*]] = arith.andi %[[CODE]], %[[SIGN]] : i32
// CHECK:         %[[TOP:.*]] = arith.shli %[[NEGATIVE]],
// CHECK:         %[[BITS:.*]] = arith.ori %[[MOVED]], %[[TOP]]
// CHECK:         %[[FLOAT:.*]] = arith.bitcast %[[BITS]] : i32 to f32
// CHECK:         arith.mulf %[[FLOAT]], %[[BIAS]]
func.func @score_fp8(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index) attributes {kv.item_args = 1 : i64} {
  %state = kv.tile.init_state : !kv.state<1x32>
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %small:2 = kv.tile.prepare %query group 32 : vector<1x32xf32> -> vector<1x32xf32>, vector<1x1xf32>
  %keys = kv.tile.load %bytes[%at]
    : memref<?xi8> -> !kv.block<key, 32x32xf8E4M3FN, packing = <32x32, lanes = 32>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x1xf16, packing = <32x1>>
  %logits = kv.tile.score %small#0, %keys scales %scales sums %small#1 placement <result>
    : vector<1x32xf32>, !kv.block<key, 32x32xf8E4M3FN, packing = <32x32, lanes = 32>>,
      scales !kv.block<key, 32x1xf16, packing = <32x1>>, sums vector<1x1xf32> -> vector<1x32xf32>
  kv.tile.softmax_step %state, %logits : !kv.state<1x32>, vector<1x32xf32> -> vector<1x32xf32>
  kv.tile.store_result %state, %q[%at], %q[%at] : !kv.state<1x32>, memref<?xf32>, memref<?xf32>
  return
}

// A code of f4E2M1FN picks a nibble of a word: twice its magnitude. A scale of f8E8M0FNU is the exponent of an f32.
// CHECK-LABEL: func.func @score_fp4(
// CHECK-DAG:     %[[TABLE:.*]] = arith.constant -932957680 : i32
// CHECK-DAG:     %[[TWELVE:.*]] = arith.constant 12 : i32
// CHECK-DAG:     %[[EXPONENT:.*]] = arith.constant 23 : i32
// CHECK-DAG:     %[[ZERO_CODE:.*]] = arith.constant -1.200000e+01 : f32
// CHECK-DAG:     %[[HALF:.*]] = arith.constant 5.000000e-01 : f32
// CHECK:         arith.mulf %{{.*}}, %[[ZERO_CODE]]
// CHECK:         %[[SHIFTED:.*]] = arith.shrui %[[TABLE]],
// CHECK:         %[[TWICE:.*]] = arith.andi %[[SHIFTED]],
// CHECK:         %[[IS_NEGATIVE:.*]] = arith.cmpi ugt
// CHECK:         %[[BELOW:.*]] = arith.subi %[[TWELVE]], %[[TWICE]]
// CHECK:         %[[ABOVE:.*]] = arith.addi %[[TWICE]], %[[TWELVE]]
// CHECK:         arith.select %[[IS_NEGATIVE]], %[[BELOW]], %[[ABOVE]]
// CHECK:         %[[BYTE:.*]] = arith.extui %{{.*}} : i8 to i32
// CHECK:         %[[BITS:.*]] = arith.shli %[[BYTE]], %[[EXPONENT]]
// CHECK:         %[[SCALE:.*]] = arith.bitcast %[[BITS]] : i32 to f32
// CHECK:         arith.mulf %[[SCALE]], %[[HALF]]
func.func @score_fp4(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index) attributes {kv.item_args = 1 : i64} {
  %state = kv.tile.init_state : !kv.state<1x32>
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %small:2 = kv.tile.prepare %query group 32 : vector<1x32xf32> -> vector<1x32xf32>, vector<1x1xf32>
  %keys = kv.tile.load %bytes[%at]
    : memref<?xi8> -> !kv.block<key, 32x32xf4E2M1FN, packing = <32x32, lanes = 32>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x1xf8E8M0FNU, packing = <32x1>>
  %logits = kv.tile.score %small#0, %keys scales %scales sums %small#1 placement <result>
    : vector<1x32xf32>, !kv.block<key, 32x32xf4E2M1FN, packing = <32x32, lanes = 32>>,
      scales !kv.block<key, 32x1xf8E8M0FNU, packing = <32x1>>, sums vector<1x1xf32> -> vector<1x32xf32>
  kv.tile.softmax_step %state, %logits : !kv.state<1x32>, vector<1x32xf32> -> vector<1x32xf32>
  kv.tile.store_result %state, %q[%at], %q[%at] : !kv.state<1x32>, memref<?xf32>, memref<?xf32>
  return
}

// Rotating takes a stage with a barrier for each power of two; the last stage scales.
// CHECK-LABEL: func.func @rotate(
// CHECK-DAG:     %[[NORM:.*]] = arith.constant 2.500000e-01 : f32
// CHECK:         gpu.barrier
// CHECK-COUNT-3: arith.subf
// CHECK:         gpu.barrier
// CHECK:         scf.for
// CHECK:           %[[X:.*]] = memref.load %[[TILE:.*]][
// CHECK:           %[[Y:.*]] = memref.load %[[TILE]][
// CHECK:           %[[SUM:.*]] = arith.addf %[[X]], %[[Y]]
// CHECK:           %[[ROTATED:.*]] = arith.mulf %[[SUM]], %[[NORM]]
// CHECK:           memref.store %[[ROTATED]], %[[TILE]]
// CHECK:           %[[DIFFERENCE:.*]] = arith.subf %[[X]], %[[Y]]
// CHECK:           arith.mulf %[[DIFFERENCE]], %[[NORM]]
// CHECK:         gpu.barrier
// CHECK-NEXT:    return
func.func @rotate(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index) attributes {kv.item_args = 1 : i64} {
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<2x32xf32>
  %rotated = kv.tile.rotate %query size 16 : vector<2x32xf32> -> vector<2x32xf32>
  kv.tile.scale_channels %rotated, %bytes[%at] : vector<2x32xf32>, memref<?xi8> -> vector<2x32xf32>
  return
}

// What centred keys lack in every logit moves the maximum, which every lane has. Outputs are rotated in
// workgroup memory; a lane's share of the sum is that of its tokens.
// CHECK-LABEL: func.func @restore(
// CHECK-SAME:    %{{[^:]*}}: memref<?xf32>, %[[BYTES:[^:]*]]: memref<?xi8>, %[[MEANS_AT:[^:]*]]: index, %[[FACTORS_AT:[^:]*]]: index)
// CHECK-DAG:     %[[C1:.*]] = arith.constant 1 : index
// CHECK-DAG:     %[[C2:.*]] = arith.constant 2 : index
// CHECK-DAG:     %[[SCALE:.*]] = arith.constant 2.500000e-01 : f32
// CHECK-DAG:     %[[STATE:.*]] = memref.alloca() : memref<1x3xf32, #gpu.address_space<private>>
// CHECK:         gpu.shuffle xor
// CHECK:         %[[SCALED:.*]] = arith.mulf %{{.*}}, %[[SCALE]]
// CHECK:         memref.store %[[SCALED]], %[[AMOUNTS:.*]][%{{.*}}] : memref<1x1xf32, #gpu.address_space<workgroup>>
// CHECK:         gpu.barrier
// CHECK:         %[[AMOUNT:.*]] = memref.load %[[AMOUNTS]]
// CHECK:         %[[OLD:.*]] = memref.load %[[STATE]][%{{.*}}, %[[C2]]]
// CHECK:         %[[NEW:.*]] = arith.addf %[[OLD]], %[[AMOUNT]]
// CHECK:         memref.store %[[NEW]], %[[STATE]][%{{.*}}, %[[C2]]]
// CHECK:         %[[MEANS:.*]] = memref.view %[[BYTES]][%[[MEANS_AT]]][] : memref<?xi8> to memref<32xf32>
// CHECK:         %[[FACTORS:.*]] = memref.view %[[BYTES]][%[[FACTORS_AT]]][] : memref<?xi8> to memref<32xf32>
// CHECK:         memref.store %{{.*}}, %[[TILE:.*]][%{{.*}}] : memref<1x32xf32, #gpu.address_space<workgroup>>
// CHECK:         gpu.barrier
// CHECK:         %[[SHARE:.*]] = memref.load %[[STATE]][%{{.*}}, %[[C1]]]
// CHECK:         gpu.shuffle xor %[[SHARE]],
// CHECK:         %[[OUT:.*]] = memref.load %[[TILE]]
// CHECK:         memref.load %[[MEANS]]
// CHECK:         memref.load %[[FACTORS]]
// CHECK:         memref.store %{{.*}}, %[[STATE]]
func.func @restore(%q: memref<?xf32>, %bytes: memref<?xi8>, %means_at: index, %factors_at: index, %at: index)
    attributes {kv.item_args = 1 : i64} {
  %state = kv.tile.init_state : !kv.state<1x32>
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %missing = kv.tile.dot_channels %query, %bytes[%at] scale 2.500000e-01 : vector<1x32xf32>, memref<?xi8> -> vector<1x1xf32>
  kv.tile.shift_state %state, %missing : !kv.state<1x32>, vector<1x1xf32>
  kv.tile.restore %state size 16 means %bytes[%means_at] factors %bytes[%factors_at]
    : !kv.state<1x32> means memref<?xi8> factors memref<?xi8>
  return
}

// CHECK-LABEL: func.func @mask(
// CHECK-SAME:    %{{[^:]*}}: memref<?xf32>, %[[VALID:[^:]*]]: index)
// CHECK-DAG:     %[[MASKED:.*]] = arith.constant -1.000000e+30 : f32
// CHECK:         %[[LANE:.*]] = gpu.thread_id x
// CHECK:         %[[TOKEN:.*]] = arith.addi %{{.*}}, %[[LANE]]
// CHECK:         %[[IS_THERE:.*]] = arith.cmpi slt, %[[TOKEN]], %[[VALID]]
// CHECK:         %[[LOGIT:.*]] = memref.load %{{.*}}[%{{.*}}, %[[LANE]]]
// CHECK:         %[[RESULT:.*]] = arith.select %[[IS_THERE]], %[[LOGIT]], %[[MASKED]]
// CHECK:         memref.store %[[RESULT]]
func.func @mask(%memory: memref<?xf32>, %valid: index, %at: index) attributes {kv.item_args = 1 : i64} {
  %logits = kv.tile.load_query %memory[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  kv.tile.mask %logits at %at valid %valid : vector<1x32xf32> -> vector<1x32xf32>
  return
}

// One lane writes the lse.
// CHECK-LABEL: func.func @results(
// CHECK-SAME:    %[[OUTS:[^:]*]]: memref<?xf32>, %[[LSES:[^:]*]]: memref<?xf32>, %[[OUT:[^:]*]]: memref<?xf32>, %[[LSE:[^:]*]]: memref<?xf32>,
// CHECK-DAG:     %[[C0:.*]] = arith.constant 0 : index
// CHECK-DAG:     %[[EMPTY:.*]] = arith.constant 0xFF800000 : f32
// CHECK:         %[[LANE:.*]] = gpu.thread_id x
// CHECK:         %[[IS_FIRST:.*]] = arith.cmpi eq, %[[LANE]], %[[C0]]
// CHECK:         gpu.shuffle xor
// CHECK:         math.log2
// CHECK:         %[[RESULT:.*]] = arith.select %{{.*}}, %{{.*}}, %[[EMPTY]]
// CHECK:         memref.store %{{.*}}, %[[OUT]]
// CHECK:         scf.if %[[IS_FIRST]] {
// CHECK:           memref.store %[[RESULT]], %[[LSE]]
// CHECK:         }
// Parts: a lane for four outputs, which reads many parts at a time.
// CHECK:         scf.for {{.*}} = %[[LANE]]
// CHECK:           scf.for
// CHECK-COUNT-4:     memref.load %[[OUTS]]
// CHECK-COUNT-15:    memref.load %[[LSES]]
// CHECK-COUNT-4:     memref.load %[[OUTS]]
// CHECK-NOT:       memref.load
// CHECK:           scf.yield
// CHECK-COUNT-4:   memref.store %{{.*}}, %[[OUT]]
func.func @results(%outs: memref<?xf32>, %lses: memref<?xf32>, %out: memref<?xf32>, %lse: memref<?xf32>,
                   %at: index, %row: index) attributes {kv.item_args = 1 : i64} {
  %state = kv.tile.init_state : !kv.state<1x64>
  kv.tile.store_result %state, %out[%at], %lse[%row] : !kv.state<1x64>, memref<?xf32>, memref<?xf32>
  kv.tile.merge %outs[%at], %lses[%row] count %row rows %row into %out[%at], %lse[%row] heads 2 x 64
    : memref<?xf32>, memref<?xf32> into memref<?xf32>, memref<?xf32>
  return
}

// A writer has four warps. Rows of its tile are padded, since lanes read its columns as well: those of the rows that are
// encoded, and groups of them. Rows that are loaded do not wait for each other.
// CHECK-LABEL: func.func @write(
// CHECK-SAME:    kv.threads = 128
// CHECK:         %[[TILE:.*]] = memref.alloca() : memref<32x64xf32, strided<[65, 1]>, #gpu.address_space<workgroup>>
// CHECK:         emitc.call_opaque "kv_grid_wait"
// CHECK-NEXT:    emitc.call_opaque "kv_grid_launch"
// CHECK:         scf.for %[[ROW:.*]] = %[[FROM:.*]] to %[[TO:.*]] step
// CHECK:           %[[CHANNEL:.*]] = gpu.thread_id x
// CHECK:           memref.store %{{.*}}, %[[TILE]][%[[ROW]], %[[CHANNEL]]]
// CHECK:         } {kv.unroll = 4 : i64}
// CHECK:         %[[ROWS:.*]] = arith.subi %[[TO]], %[[FROM]]
// CHECK:         %[[ALL:.*]] = arith.muli %[[ROWS]], %c2
// CHECK:         %[[THREAD:.*]] = gpu.thread_id x
// CHECK:         scf.for %[[I:.*]] = %[[THREAD]] to %[[ALL]] step %c128
// CHECK:           %[[I_WORD:.*]] = arith.index_cast %[[I]]
// CHECK:           %[[ROWS_WORD:.*]] = arith.index_cast %[[ROWS]]
// CHECK:           arith.remui %[[I_WORD]], %[[ROWS_WORD]] : i32
// CHECK:           arith.divui %{{.*}} : i32
func.func @write(%x: memref<?xf16>, %bytes: memref<?xi8>, %at: index, %from: index, %to: index, %item: index)
    attributes {kv.item_args = 1 : i64} {
  %tile = kv.tile.scratch : vector<32x64xf32>
  kv.tile.gather %tile oriented, %x[%at] stride %at rows %from to %to end %to : vector<32x64xf32>, memref<?xf16>
  %codes = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x64xi4, packing = <fragments>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x2xf16, packing = <fragment_rows>>
  kv.tile.encode %tile oriented rows %from to %to into %codes scales %scales as <i4, map = sym_signed, group = 1x32, scale = f16>
    : vector<32x64xf32> into !kv.block<key, 32x64xi4, packing = <fragments>> scales !kv.block<key, 32x2xf16, packing = <fragment_rows>>
  return
}
}
