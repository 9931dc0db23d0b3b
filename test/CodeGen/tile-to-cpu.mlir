// How tile operations are written for a CPU: with the byte instructions of AVX-512 VNNI and VBMI, and without.
// RUN: sed s/ARCH/avx512_vnni/ %s | kvcc-opt -kv-convert-tile-to-cpu -canonicalize -cse \
// RUN:   | FileCheck %s --check-prefixes=CHECK,VNNI --implicit-check-not=kv.tile
// RUN: sed s/ARCH/generic/ %s | kvcc-opt -kv-convert-tile-to-cpu -canonicalize -cse \
// RUN:   | FileCheck %s --check-prefixes=CHECK,GENERIC --implicit-check-not=kv.tile --implicit-check-not=llvm.call_intrinsic

module attributes {kv.target = #kv.target<cpu, "ARCH">} {

// CHECK-LABEL: func.func @query(
// CHECK-SAME:    %[[Q:[^:]*]]: memref<?xf16>, %[[BYTES:[^:]*]]: memref<?xi8>, %[[AT:[^:]*]]: index) attributes {{{.*}}llvm.emit_c_interface}
// CHECK-DAG:     %[[SCALE:.*]] = arith.constant dense<1.250000e-01> : vector<16xf32>
// CHECK-DAG:     %[[SCALED:.*]] = memref.alloca() {alignment = 64 : i64} : memref<2x32xf32>
// CHECK:         scf.for
// CHECK:           scf.for
// CHECK:             %[[NUMBERS:.*]] = vector.load %[[Q]]{{.*}} : memref<?xf16>, vector<16xf16>
// CHECK:             %[[WIDE:.*]] = arith.extf %[[NUMBERS]]
// CHECK:             %[[PRODUCT:.*]] = arith.mulf %[[WIDE]], %[[SCALE]]
// CHECK:             vector.store %[[PRODUCT]]
// CHECK:         %[[FACTORS:.*]] = memref.view %[[BYTES]][%[[AT]]][] : memref<?xi8> to memref<32xf32>
// CHECK:         scf.for
// CHECK:           scf.for
// CHECK:             vector.load %[[FACTORS]]{{.*}} : memref<32xf32>, vector<16xf32>
func.func @query(%q: memref<?xf16>, %bytes: memref<?xi8>, %at: index) {
  %query = kv.tile.load_query %q[%at] scale 0.125 : memref<?xf16> -> vector<2x32xf32>
  kv.tile.scale_channels %query, %bytes[%at] : vector<2x32xf32>, memref<?xi8> -> vector<2x32xf32>
  return
}

// A query of 16 bits is two planes of bytes, so 64 columns for 32 channels. The 32 keys are two vectors of
// 16; 64 codes of 3 bits are 24 bytes, which are spread so that eight codes have a word of 64 bits.
// CHECK-LABEL: func.func @score_int8(
// CHECK-SAME:    %[[Q:[^:]*]]: memref<?xf32>, %[[BYTES:[^:]*]]: memref<?xi8>, %[[AT:[^:]*]]: index)
// VNNI-DAG:      %[[SHIFTS:.*]] = arith.constant dense<[0, 3, 6, 9, 12, 15, 18, 21, 0, {{.*}}> : vector<64xi8>
// VNNI-DAG:      %[[MASK:.*]] = arith.constant dense<7> : vector<64xi8>
// CHECK-DAG:     %[[ZERO_CODE:.*]] = arith.constant -4 : i32
// CHECK-DAG:     %[[STEPS:.*]] = arith.constant 3.263900e+04 : f32
// CHECK-DAG:     %[[SMALL:.*]] = memref.alloca() {alignment = 64 : i64} : memref<1x64xi8>
// CHECK:         arith.divf %[[STEPS]],
// CHECK:         vector.store %{{.*}}, %[[SMALL]]
// CHECK:         %[[KEYS:.*]] = memref.view %[[BYTES]][%[[AT]]][] : memref<?xi8> to memref<448xi8>
// CHECK:         %[[SCALES:.*]] = memref.view %[[BYTES]][%[[AT]]][] : memref<?xi8> to memref<32xf16>
// CHECK:         scf.for
// CHECK:           %[[ZERO:.*]] = arith.muli %{{.*}}, %[[ZERO_CODE]] : i32
// CHECK:           %[[START:.*]] = vector.broadcast %[[ZERO]] : i32 to vector<16xi32>
// CHECK:           %[[PACKED:.*]] = vector.load %[[KEYS]]{{.*}} : memref<448xi8>, vector<32xi8>
// CHECK:           %[[SPREAD:.*]] = vector.shuffle %[[PACKED]], %[[PACKED]] [0, 1, 2, 0, 0, 0, 0, 0, 3, 4, 5, 0, {{.*}}] : vector<32xi8>, vector<32xi8>
// VNNI:            %[[MOVED:.*]] = llvm.call_intrinsic "llvm.x86.avx512.pmultishift.qb.512"(%[[SHIFTS]], %[[SPREAD]])
// VNNI:            %[[CODES:.*]] = arith.andi %[[MOVED]], %[[MASK]]
// VNNI:            vector.load %[[SMALL]]{{.*}} : memref<1x64xi8>, vector<4xi8>
// VNNI:            %[[LOW:.*]] = vector.bitcast %{{.*}} : vector<16xi32> to vector<64xi8>
// VNNI:            llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"(%[[START]], %[[CODES]], %[[LOW]])
// GENERIC:         %[[WORDS:.*]] = vector.bitcast %[[SPREAD]] : vector<64xi8> to vector<8xi64>
// GENERIC:         arith.shrui %[[WORDS]], %{{.*}} : vector<8xi64>
// GENERIC:         vector.load %[[SMALL]]{{.*}} : memref<1x64xi8>, vector<4xi8>
// GENERIC:         %[[PRODUCT:.*]] = arith.muli %{{.*}}, %{{.*}} : vector<16xi32>
// GENERIC:         arith.addi %[[START]], %[[PRODUCT]] : vector<16xi32>
// The sums with the high bytes count 256 fold; the scales come last.
// CHECK:           %[[SCALE:.*]] = vector.load %[[SCALES]]{{.*}} : memref<32xf16>, vector<16xf16>
// CHECK:           %[[WIDE:.*]] = arith.extf %[[SCALE]]
// CHECK:           %[[HIGH:.*]] = arith.shli
// CHECK:           %[[SUM:.*]] = arith.addi %{{.*}}, %[[HIGH]] : vector<16xi32>
// CHECK:           arith.sitofp %[[SUM]]
// CHECK:           arith.mulf %{{.*}}, %[[WIDE]] fastmath<contract> : vector<16xf32>
// CHECK:           vector.store
func.func @score_int8(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index) {
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %small:3 = kv.tile.prepare %query group 32
    : vector<1x32xf32> -> vector<1x32xi16>, vector<1x1xf32>, vector<1x1xf32>
  %keys = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x32xi3, packing = <16x4>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x1xf16, packing = <16x1>>
  kv.tile.score %small#0, %keys scales %scales sums %small#1 query_scales %small#2 placement <result>
    : vector<1x32xi16>, !kv.block<key, 32x32xi3, packing = <16x4>>,
      scales !kv.block<key, 32x1xf16, packing = <16x1>>, sums vector<1x1xf32>,
      query_scales vector<1x1xf32> -> vector<1x32xf32>
  return
}

// Several groups in a reduction are a loop that carries a sum per head.
// CHECK-LABEL: func.func @score_groups(
// CHECK:         scf.for
// CHECK:           %{{.*}}:2 = scf.for %{{.*}} iter_args({{.*}}) -> (vector<16xf32>, vector<16xf32>)
func.func @score_groups(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index) {
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<2x64xf32>
  %small:3 = kv.tile.prepare %query group 16
    : vector<2x64xf32> -> vector<2x64xi16>, vector<2x4xf32>, vector<2x4xf32>
  %keys = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x64xi4, packing = <16x4>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x4xf16, packing = <16x1>>
  kv.tile.score %small#0, %keys scales %scales sums %small#1 query_scales %small#2 placement <accumulator>
    : vector<2x64xi16>, !kv.block<key, 32x64xi4, packing = <16x4>>,
      scales !kv.block<key, 32x4xf16, packing = <16x1>>, sums vector<2x4xf32>,
      query_scales vector<2x4xf32> -> vector<2x32xf32>
  return
}

// In float arithmetic codes become floats and nothing is rounded; VNNI has no part in the product.
// CHECK-LABEL: func.func @score_f32(
// CHECK-NOT:     arith.fptosi
// CHECK-NOT:     vpdpbusd
// VNNI:          llvm.call_intrinsic "llvm.x86.avx512.pmultishift.qb.512"
// CHECK-NOT:     vpdpbusd
// CHECK:         %[[CODES:.*]] = arith.sitofp %{{.*}} : vector<16xi32> to vector<16xf32>
// CHECK:         %[[Q:.*]] = vector.broadcast %{{.*}} : f32 to vector<16xf32>
// CHECK:         %[[PRODUCT:.*]] = arith.mulf %[[CODES]], %[[Q]] fastmath<contract>
// CHECK:         arith.addf %[[PRODUCT]], %{{.*}} fastmath<contract>
// CHECK-NOT:     vpdpbusd
// CHECK:         return
func.func @score_f32(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index) {
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %small:2 = kv.tile.prepare %query group 32 : vector<1x32xf32> -> vector<1x32xf32>, vector<1x1xf32>
  %keys = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x32xi3, packing = <16x4>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x1xf16, packing = <16x1>>
  kv.tile.score %small#0, %keys scales %scales sums %small#1 placement <result>
    : vector<1x32xf32>, !kv.block<key, 32x32xi3, packing = <16x4>>,
      scales !kv.block<key, 32x1xf16, packing = <16x1>>, sums vector<1x1xf32> -> vector<1x32xf32>
  return
}

// Numbers: two vectors of 16 keys at a time.
// CHECK-LABEL: func.func @score_numbers(
// CHECK:         %[[KEYS:.*]] = memref.view %{{.*}} : memref<?xi8> to memref<1024xbf16>
// CHECK:         %{{.*}}:2 = scf.for %{{.*}} iter_args({{.*}}) -> (vector<16xf32>, vector<16xf32>)
// CHECK:           vector.load %[[KEYS]]{{.*}} : memref<1024xbf16>, vector<16xbf16>
// CHECK:           vector.load %[[KEYS]]{{.*}} : memref<1024xbf16>, vector<16xbf16>
func.func @score_numbers(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index) {
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %keys = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x32xbf16, packing = <16x1>>
  kv.tile.score %query, %keys placement <none>
    : vector<1x32xf32>, !kv.block<key, 32x32xbf16, packing = <16x1>> -> vector<1x32xf32>
  return
}

// Weights are unsigned bytes, so the codes take the signed side: those of 8 bits after subtracting 128,
// which leaves no zero code to make up for.
// CHECK-LABEL: func.func @accumulate_int8(
// CHECK-DAG:     %[[BIAS:.*]] = arith.constant dense<-128> : vector<64xi8>
// VNNI-DAG:      %[[NOTHING:.*]] = arith.constant dense<0> : vector<16xi32>
// CHECK-DAG:     %[[STEPS:.*]] = arith.constant 2.550000e+02 : f32
// CHECK-DAG:     %[[SMALL:.*]] = memref.alloca() {alignment = 64 : i64} : memref<1x32xi8>
// CHECK-DAG:     %[[STATE:.*]] = memref.alloca() {alignment = 64 : i64} : memref<1x64xf32>
// CHECK-NOT:     math.absf
// CHECK:         arith.divf %[[STEPS]],
// CHECK:         %[[VALUES:.*]] = memref.view %{{.*}} : memref<?xi8> to memref<1088xi8>
// CHECK:         scf.for
// CHECK:           %[[PACKED:.*]] = vector.load %[[VALUES]]{{.*}} : memref<1088xi8>, vector<64xi8>
// CHECK:           %[[CODES:.*]] = arith.xori %[[PACKED]], %[[BIAS]]
// VNNI:            vector.load %[[SMALL]]{{.*}} : memref<1x32xi8>, vector<4xi8>
// VNNI:            %[[FOUR:.*]] = vector.bitcast %{{.*}} : vector<16xi32> to vector<64xi8>
// VNNI:            llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"(%[[NOTHING]], %[[FOUR]], %[[CODES]])
// GENERIC:         %[[LANES:.*]] = vector.bitcast %[[CODES]] : vector<64xi8> to vector<16xi32>
// GENERIC:         arith.shli %[[LANES]],
// GENERIC:         %[[SIGNED:.*]] = arith.shrsi
// GENERIC:         arith.muli %{{.*}}, %[[SIGNED]] : vector<16xi32>
// CHECK:           %[[OLD:.*]] = vector.load %[[STATE]]
// CHECK:           %[[NEW:.*]] = arith.addf %[[OLD]], %{{.*}} fastmath<contract>
// CHECK:           vector.store %[[NEW]], %[[STATE]]
func.func @accumulate_int8(%w: memref<?xf32>, %bytes: memref<?xi8>, %at: index) {
  %state = kv.tile.init_state : !kv.state<1x32>
  %weights = kv.tile.load_query %w[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %small:3 = kv.tile.prepare %weights group 32 unsigned
    : vector<1x32xf32> -> vector<1x32xi8>, vector<1x1xf32>, vector<1x1xf32>
  %values = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<value, 32x32xi8, packing = <16x4>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<value, 1x32xf16, packing = <16x1>>
  kv.tile.accumulate %state, %small#0, %values scales %scales sums %small#1 weight_scales %small#2
      placement <accumulator>
    : !kv.state<1x32>, vector<1x32xi8>, !kv.block<value, 32x32xi8, packing = <16x4>>,
      scales !kv.block<value, 1x32xf16, packing = <16x1>>, sums vector<1x1xf32>, weight_scales vector<1x1xf32>
  return
}

// A state has 16 sums and the maximum behind its 32 outputs, which starts as the logit of a masked token.
// CHECK-LABEL: func.func @softmax(
// CHECK-SAME:    %[[MEMORY:[^:]*]]: memref<?xf32>, %[[AT:[^:]*]]: index, %[[VALID:[^:]*]]: index)
// CHECK-DAG:     %[[MASKED:.*]] = arith.constant dense<-1.000000e+30> : vector<16xf32>
// CHECK-DAG:     %[[NO_MAX:.*]] = arith.constant -1.000000e+30 : f32
// CHECK-DAG:     %[[MAX_AT:.*]] = arith.constant 48 : index
// CHECK-DAG:     %[[STATE:.*]] = memref.alloca() {alignment = 64 : i64} : memref<2x64xf32>
// CHECK-DAG:     %[[TILE:.*]] = memref.alloca() {alignment = 64 : i64} : memref<2x32xf32>
// CHECK:         memref.store %[[NO_MAX]], %[[STATE]][%{{.*}}, %[[MAX_AT]]]
// CHECK:         arith.index_cast %[[VALID]] : index to i32
// CHECK:         %[[IS_THERE:.*]] = arith.cmpi slt, %{{.*}} : vector<16xi32>
// CHECK:         %[[LOGITS:.*]] = arith.select %[[IS_THERE]], %{{.*}}, %[[MASKED]]
// CHECK:         vector.store %[[LOGITS]], %[[TILE]]
// CHECK:         %[[OLD:.*]] = memref.load %[[STATE]][%{{.*}}, %[[MAX_AT]]]
// CHECK:         vector.reduction <maxnumf>
// CHECK:         memref.store %{{.*}}, %[[STATE]][%{{.*}}, %[[MAX_AT]]]
func.func @softmax(%memory: memref<?xf32>, %at: index, %valid: index) {
  %state = kv.tile.init_state : !kv.state<2x32>
  %logits = kv.tile.load_query %memory[%at] scale 1.0 : memref<?xf32> -> vector<2x32xf32>
  %masked = kv.tile.mask %logits, %valid : vector<2x32xf32> -> vector<2x32xf32>
  kv.tile.softmax_step %state, %masked : !kv.state<2x32>, vector<2x32xf32> -> vector<2x32xf32>
  return
}

// CHECK-LABEL: func.func @results(
// CHECK-SAME:    %[[OUTS:[^:]*]]: memref<?xf32>, %[[LSES:[^:]*]]: memref<?xf32>, %[[OUT:[^:]*]]: memref<?xf32>, %[[LSE:[^:]*]]: memref<?xf32>,
// CHECK-DAG:     %[[EMPTY:.*]] = arith.constant 0xFF800000 : f32
// CHECK:         memref.load %[[LSES]]
// CHECK:         vector.load %[[OUTS]]
// CHECK:         vector.store %{{.*}}, %[[OUT]]
// CHECK:         math.log2
// CHECK:         %[[RESULT:.*]] = arith.select %{{.*}}, %{{.*}}, %[[EMPTY]]
// CHECK:         memref.store %[[RESULT]], %[[LSE]]
func.func @results(%outs: memref<?xf32>, %lses: memref<?xf32>, %out: memref<?xf32>, %lse: memref<?xf32>,
                   %at: index, %row: index) {
  %state = kv.tile.init_state : !kv.state<1x32>
  kv.tile.merge_step %state, %outs[%at], %lses[%row] : !kv.state<1x32>, memref<?xf32>, memref<?xf32>
  kv.tile.store_result %state, %out[%at], %lse[%row] : !kv.state<1x32>, memref<?xf32>, memref<?xf32>
  return
}

}
