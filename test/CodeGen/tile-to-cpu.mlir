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
// CHECK-DAG:     %[[ZERO_CODE:.*]] = arith.constant -4.000000e+00 : f32
// CHECK-DAG:     %[[STEPS:.*]] = arith.constant 3.263900e+04 : f32
// CHECK-DAG:     %[[SMALL:.*]] = memref.alloca() {alignment = 64 : i64} : memref<1x64xi8>
// CHECK:         arith.divf %[[STEPS]],
// CHECK:         vector.store %{{.*}}, %[[SMALL]]
// CHECK:         %[[KEYS:.*]] = memref.view %[[BYTES]][%[[AT]]][] : memref<?xi8> to memref<448xi8>
// CHECK:         %[[SCALES:.*]] = memref.view %[[BYTES]][%[[AT]]][] : memref<?xi8> to memref<32xf16>
// CHECK:         scf.for
// CHECK:           %[[ZERO_SUM:.*]] = arith.mulf %{{.*}}, %[[ZERO_CODE]]
// CHECK:           %[[ZERO:.*]] = arith.fptosi %[[ZERO_SUM]] : f32 to i32
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
  %keys = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x32xi3, packing = <16x32, lanes = 64>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x1xf16, packing = <16x1>>
  kv.tile.score %small#0, %keys scales %scales sums %small#1 query_scales %small#2 placement <result>
    : vector<1x32xi16>, !kv.block<key, 32x32xi3, packing = <16x32, lanes = 64>>,
      scales !kv.block<key, 32x1xf16, packing = <16x1>>, sums vector<1x1xf32>
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
  %keys = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x64xi4, packing = <16x32, lanes = 64>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x4xf16, packing = <16x1>>
  kv.tile.score %small#0, %keys scales %scales sums %small#1 query_scales %small#2 placement <accumulator>
    : vector<2x64xi16>, !kv.block<key, 32x64xi4, packing = <16x32, lanes = 64>>,
      scales !kv.block<key, 32x4xf16, packing = <16x1>>, sums vector<2x4xf32>
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
  %keys = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x32xi3, packing = <16x32, lanes = 64>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x1xf16, packing = <16x1>>
  kv.tile.score %small#0, %keys scales %scales sums %small#1 placement <result>
    : vector<1x32xf32>, !kv.block<key, 32x32xi3, packing = <16x32, lanes = 64>>,
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
  %values = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<value, 32x32xi8, packing = <16x32, lanes = 64>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<value, 1x32xf16, packing = <16x1>>
  kv.tile.accumulate %state, %small#0, %values scales %scales sums %small#1 weight_scales %small#2
      placement <accumulator>
    : !kv.state<1x32>, vector<1x32xi8>, !kv.block<value, 32x32xi8, packing = <16x32, lanes = 64>>,
      scales !kv.block<value, 1x32xf16, packing = <16x1>>, sums vector<1x1xf32> weight_scales vector<1x1xf32>
  return
}

// A folded operand has a row per group of free indices and head: here the weights of channels 0..15 and
// 16..31, which are the two vectors of a block. Their products with zero points are sums of their own.
// CHECK-LABEL: func.func @operand(
// CHECK-DAG:     %[[C16:.*]] = arith.constant 16 : index
// CHECK-DAG:     %[[FOLDED:.*]] = memref.alloca() {alignment = 64 : i64} : memref<4x32xf32>
// CHECK-DAG:     %[[OFFSETS:.*]] = memref.alloca() {alignment = 64 : i64} : memref<4x1xf32>
// CHECK:         %[[SCALES:.*]] = memref.view %{{.*}} : memref<?xi8> to memref<64xf16>
// CHECK:         scf.for
// CHECK:           vector.load %[[SCALES]]{{.*}} : memref<64xf16>, vector<16xf16>
// CHECK:           vector.store %{{.*}}, %[[FOLDED]]
// CHECK:           vector.reduction <add>
// CHECK:           memref.store %{{.*}}, %[[OFFSETS]]
// CHECK:         scf.for
// CHECK:           %[[GROUP:.*]] = arith.divui %{{.*}}, %[[C16]]
// CHECK:           arith.muli %[[GROUP]], %{{.*}} : index
// CHECK:           memref.load %[[OFFSETS]]
func.func @operand(%w: memref<?xf32>, %bytes: memref<?xi8>, %at: index) {
  %state = kv.tile.init_state : !kv.state<2x32>
  %weights = kv.tile.load_query %w[%at] scale 1.0 : memref<?xf32> -> vector<2x32xf32>
  %values = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<value, 32x32xi4, packing = <16x32, lanes = 64>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<value, 32x2xf16, packing = <1x1>>
  %folded, %offsets = kv.tile.fold %weights, %scales zeros %scales
    : vector<2x32xf32>, !kv.block<value, 32x2xf16, packing = <1x1>>
      zeros !kv.block<value, 32x2xf16, packing = <1x1>> -> vector<4x32xf32> offsets vector<4x1xf32>
  %small:2 = kv.tile.prepare %folded group 32 : vector<4x32xf32> -> vector<4x32xf32>, vector<4x1xf32>
  kv.tile.accumulate %state, %small#0, %values scales %scales sums %small#1 offsets %offsets placement <operand>
    : !kv.state<2x32>, vector<4x32xf32>, !kv.block<value, 32x32xi4, packing = <16x32, lanes = 64>>,
      scales !kv.block<value, 32x2xf16, packing = <1x1>>, sums vector<4x1xf32> offsets vector<4x1xf32>
  return
}

// Only where the sign of the scale marks a group does its zero point count; elsewhere codes have their zero code.
// CHECK-LABEL: func.func @score_hybrid(
// CHECK-DAG:     %[[NOTHING:.*]] = arith.constant dense<0> : vector<16xi32>
// CHECK-DAG:     %[[ZERO_CODE:.*]] = arith.constant dense<-2.000000e+00> : vector<16xf32>
// CHECK:         %[[SCALE:.*]] = arith.extf %{{.*}} : vector<16xf16> to vector<16xf32>
// CHECK:         %[[ZERO:.*]] = arith.extf %{{.*}} : vector<16xf16> to vector<16xf32>
// CHECK:         %[[BITS:.*]] = arith.bitcast %[[SCALE]] : vector<16xf32> to vector<16xi32>
// CHECK:         %[[MARKED:.*]] = arith.cmpi slt, %[[BITS]], %[[NOTHING]]
// CHECK:         %[[MAGNITUDE:.*]] = math.absf %[[SCALE]]
// CHECK:         %[[SYMMETRIC:.*]] = arith.mulf %[[MAGNITUDE]], %[[ZERO_CODE]]
// CHECK:         arith.select %[[MARKED]], %[[ZERO]], %[[SYMMETRIC]]
func.func @score_hybrid(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index, %zeros_at: index) {
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %small:2 = kv.tile.prepare %query group 32 : vector<1x32xf32> -> vector<1x32xf32>, vector<1x1xf32>
  %keys = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x32xi2, packing = <16x32, lanes = 64>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x1xf16, packing = <16x1>>
  %zeros = kv.tile.load %bytes[%zeros_at] : memref<?xi8> -> !kv.block<key, 32x1xf16, packing = <16x1>>
  kv.tile.score %small#0, %keys scales %scales zeros %zeros hybrid sums %small#1 placement <result>
    : vector<1x32xf32>, !kv.block<key, 32x32xi2, packing = <16x32, lanes = 64>>,
      scales !kv.block<key, 32x1xf16, packing = <16x1>> zeros !kv.block<key, 32x1xf16, packing = <16x1>>,
      sums vector<1x1xf32> -> vector<1x32xf32>
  return
}

// Codes of f8E4M3FN become f16 with the same exponent field; what that leaves, 2^8, goes into the scale.
// CHECK-LABEL: func.func @score_fp8(
// CHECK-DAG:     %[[UNIT:.*]] = arith.constant dense<2.560000e+02> : vector<16xf32>
// CHECK-DAG:     %[[SIGN:.*]] = arith.constant dense<128> : vector<16xi32>
// CHECK-DAG:     %[[REST:.*]] = arith.constant dense<127> : vector<16xi32>
// CHECK:         arith.andi %{{.*}}, %[[REST]] : vector<16xi32>
// CHECK:         arith.andi %{{.*}}, %[[SIGN]] : vector<16xi32>
// CHECK:         %[[BITS:.*]] = arith.trunci %{{.*}} : vector<16xi32> to vector<16xi16>
// CHECK:         %[[HALVES:.*]] = arith.bitcast %[[BITS]] : vector<16xi16> to vector<16xf16>
// CHECK:         arith.extf %[[HALVES]] : vector<16xf16> to vector<16xf32>
// CHECK:         arith.mulf %{{.*}}, %[[UNIT]]
func.func @score_fp8(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index) {
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %small:2 = kv.tile.prepare %query group 32 : vector<1x32xf32> -> vector<1x32xf32>, vector<1x1xf32>
  %keys = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x32xf8E4M3FN, packing = <16x32, lanes = 64>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x1xf16, packing = <16x1>>
  kv.tile.score %small#0, %keys scales %scales sums %small#1 placement <result>
    : vector<1x32xf32>, !kv.block<key, 32x32xf8E4M3FN, packing = <16x32, lanes = 64>>,
      scales !kv.block<key, 32x1xf16, packing = <16x1>>, sums vector<1x1xf32> -> vector<1x32xf32>
  return
}

// Codes of f4E2M1FN become bytes, twice the number plus 12, so that integer products take them. A scale of
// f8E8M0FNU is the exponent of an f32, and takes the half.
// CHECK-LABEL: func.func @score_fp4(
// CHECK-DAG:     %[[MAGNITUDE:.*]] = arith.constant dense<7> : vector<64xi8>
// CHECK-DAG:     %[[TWELVE:.*]] = arith.constant dense<12> : vector<64xi8>
// CHECK-DAG:     %[[ZERO_CODE:.*]] = arith.constant -1.200000e+01 : f32
// CHECK-DAG:     %[[HALF:.*]] = arith.constant dense<5.000000e-01> : vector<16xf32>
// CHECK-DAG:     %[[EXPONENT:.*]] = arith.constant dense<23> : vector<16xi32>
// CHECK:         arith.mulf %{{.*}}, %[[ZERO_CODE]]
// CHECK:         arith.andi %{{.*}}, %[[MAGNITUDE]] : vector<64xi8>
// CHECK:         %[[BELOW:.*]] = arith.subi %[[TWELVE]], %{{.*}} : vector<64xi8>
// CHECK:         arith.select %{{.*}}, %[[BELOW]], %{{.*}} : vector<64xi1>, vector<64xi8>
// VNNI:          llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"
// CHECK:         %[[POWER:.*]] = arith.extui %{{.*}} : vector<16xi8> to vector<16xi32>
// CHECK:         %[[BITS:.*]] = arith.shli %[[POWER]], %[[EXPONENT]]
// CHECK:         %[[SCALE:.*]] = arith.bitcast %[[BITS]] : vector<16xi32> to vector<16xf32>
// CHECK:         arith.mulf %[[SCALE]], %[[HALF]]
func.func @score_fp4(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index) {
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %small:3 = kv.tile.prepare %query group 32
    : vector<1x32xf32> -> vector<1x32xi16>, vector<1x1xf32>, vector<1x1xf32>
  %keys = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x32xf4E2M1FN, packing = <16x32, lanes = 64>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x1xf8E8M0FNU, packing = <16x1>>
  kv.tile.score %small#0, %keys scales %scales sums %small#1 query_scales %small#2 placement <result>
    : vector<1x32xi16>, !kv.block<key, 32x32xf4E2M1FN, packing = <16x32, lanes = 64>>,
      scales !kv.block<key, 32x1xf8E8M0FNU, packing = <16x1>>, sums vector<1x1xf32>
      query_scales vector<1x1xf32> -> vector<1x32xf32>
  return
}

// Butterflies inside vectors are shuffles, with a sign per lane; beyond 16 channels they are between vectors.
// CHECK-LABEL: func.func @rotate(
// CHECK-DAG:     %[[SIGNS:.*]] = arith.constant dense<[1.000000e+00, -1.000000e+00, 1.000000e+00, -1.000000e+00, {{.*}}> : vector<16xf32>
// CHECK-DAG:     %[[NORM:.*]] = arith.constant dense<0.176776692> : vector<16xf32>
// CHECK:         %[[PARTNERS:.*]] = vector.shuffle %[[NUMBERS:.*]], %[[NUMBERS]] [1, 0, 3, 2,
// CHECK:         %[[SIGNED:.*]] = arith.mulf %[[NUMBERS]], %[[SIGNS]]
// CHECK:         arith.addf %[[SIGNED]], %[[PARTNERS]]
// CHECK:         vector.shuffle %{{.*}} [2, 3, 0, 1,
// CHECK:         vector.shuffle %{{.*}} [4, 5, 6, 7,
// CHECK:         vector.shuffle %{{.*}} [8, 9, 10, 11,
// CHECK:         arith.mulf %{{.*}}, %[[NORM]] fastmath<contract>
// CHECK-NOT:     vector.shuffle
// CHECK:         %[[SUM:.*]] = arith.addf
// CHECK:         vector.store %[[SUM]]
// CHECK:         %[[DIFFERENCE:.*]] = arith.subf
// CHECK:         vector.store %[[DIFFERENCE]]
// CHECK-NOT:     vector.shuffle
// CHECK:         return
func.func @rotate(%q: memref<?xf32>, %at: index) {
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<2x32xf32>
  kv.tile.rotate %query size 32 : vector<2x32xf32> -> vector<2x32xf32>
  return
}

// What centred keys lack in every logit moves the maximum, which stands behind the outputs and the sums. The
// outputs are rotated, then get the means as often as the weights say, then the factors.
// CHECK-LABEL: func.func @restore(
// CHECK-SAME:    %{{[^:]*}}: memref<?xf32>, %[[BYTES:[^:]*]]: memref<?xi8>, %[[AT:[^:]*]]: index, %[[MEANS_AT:[^:]*]]: index, %[[FACTORS_AT:[^:]*]]: index)
// CHECK-DAG:     %[[SUM_AT:.*]] = arith.constant 32 : index
// CHECK-DAG:     %[[MAX_AT:.*]] = arith.constant 48 : index
// CHECK-DAG:     %[[STATE:.*]] = memref.alloca() {alignment = 64 : i64} : memref<1x64xf32>
// CHECK:         %[[VECTOR:.*]] = memref.view %[[BYTES]][%[[AT]]][] : memref<?xi8> to memref<32xf32>
// CHECK:         vector.load %[[VECTOR]]
// CHECK:         %[[MISSING:.*]] = vector.reduction <add>
// CHECK:         memref.store %[[MISSING]], %[[AMOUNTS:.*]][%{{.*}}] : memref<1x1xf32>
// CHECK:         %[[AMOUNT:.*]] = memref.load %[[AMOUNTS]]
// CHECK:         %[[OLD:.*]] = memref.load %[[STATE]][%{{.*}}, %[[MAX_AT]]]
// CHECK:         %[[NEW:.*]] = arith.addf %[[OLD]], %[[AMOUNT]]
// CHECK:         memref.store %[[NEW]], %[[STATE]][%{{.*}}, %[[MAX_AT]]]
// CHECK:         %[[MEANS:.*]] = memref.view %[[BYTES]][%[[MEANS_AT]]][] : memref<?xi8> to memref<32xf32>
// CHECK:         %[[FACTORS:.*]] = memref.view %[[BYTES]][%[[FACTORS_AT]]][] : memref<?xi8> to memref<32xf32>
// CHECK:         vector.shuffle
// CHECK:         %[[SUMS:.*]] = vector.load %[[STATE]][%{{.*}}, %[[SUM_AT]]]
// CHECK:         %[[TOTAL:.*]] = vector.reduction <add>, %[[SUMS]]
// CHECK:         %[[WEIGHT:.*]] = vector.broadcast %[[TOTAL]]
// CHECK:         %[[OUT:.*]] = vector.load %[[STATE]]
// CHECK:         %[[MEAN:.*]] = vector.load %[[MEANS]]
// CHECK:         %[[PART:.*]] = arith.mulf %[[WEIGHT]], %[[MEAN]]
// CHECK:         %[[MOVED:.*]] = arith.addf %[[PART]], %[[OUT]]
// CHECK:         %[[FACTOR:.*]] = vector.load %[[FACTORS]]
// CHECK:         %[[RESULT:.*]] = arith.mulf %[[MOVED]], %[[FACTOR]]
// CHECK:         vector.store %[[RESULT]], %[[STATE]]
func.func @restore(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index, %means_at: index, %factors_at: index) {
  %state = kv.tile.init_state : !kv.state<1x32>
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %missing = kv.tile.dot_channels %query, %bytes[%at] : vector<1x32xf32>, memref<?xi8> -> vector<1x1xf32>
  kv.tile.shift_state %state, %missing : !kv.state<1x32>, vector<1x1xf32>
  kv.tile.restore %state size 16 means %bytes[%means_at] factors %bytes[%factors_at]
    : !kv.state<1x32> means memref<?xi8> factors memref<?xi8>
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
