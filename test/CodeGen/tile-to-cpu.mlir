// How tile operations are written for a CPU. What differs between levels is how many free indices ($W, one for each 32
// bits), words ($WORDS) and bytes ($BYTES) a vector has, and which instructions multiply bytes and words: those of VNNI,
// multiplications of pairs (MADD), those of NEON, or no instructions of their own (GENERIC).
// RUN: sed s/ARCH/avx512_vnni/ %s | kvcc-opt -kv-convert-tile-to-cpu -canonicalize -cse \
// RUN:   | FileCheck %s --check-prefixes=CHECK,VNNI,BYTEWISE --implicit-check-not=kv.tile -D$W=16 -D$WORDS=32 -D$BYTES=64 \
// RUN:     -D$DOT_BYTES=llvm.x86.avx512.vpdpbusd.512
// RUN: sed s/ARCH/avx_vnni/ %s | kvcc-opt -kv-convert-tile-to-cpu -canonicalize -cse \
// RUN:   | FileCheck %s --check-prefixes=CHECK,VNNI,BYTEWISE --implicit-check-not=kv.tile -D$W=8 -D$WORDS=16 -D$BYTES=32 \
// RUN:     -D$DOT_BYTES=llvm.x86.avx512.vpdpbusd.256
// RUN: sed s/ARCH/avx512/ %s | kvcc-opt -kv-convert-tile-to-cpu -canonicalize -cse \
// RUN:   | FileCheck %s --check-prefixes=CHECK,MADD,WORDS --implicit-check-not=kv.tile -D$W=16 -D$WORDS=32 -D$BYTES=64 \
// RUN:     -D$PAIRS=llvm.x86.avx512.pmaddubs.w.512 -D$WORD_PAIRS=llvm.x86.avx512.pmaddw.d.512
// RUN: sed s/ARCH/avx2/ %s | kvcc-opt -kv-convert-tile-to-cpu -canonicalize -cse \
// RUN:   | FileCheck %s --check-prefixes=CHECK,MADD,WORDS --implicit-check-not=kv.tile -D$W=8 -D$WORDS=16 -D$BYTES=32 \
// RUN:     -D$PAIRS=llvm.x86.avx2.pmadd.ub.sw -D$WORD_PAIRS=llvm.x86.avx2.pmadd.wd
// RUN: sed s/ARCH/neon_dotprod/ %s | kvcc-opt -kv-convert-tile-to-cpu -canonicalize -cse \
// RUN:   | FileCheck %s --check-prefixes=CHECK,NEON,BYTEWISE --implicit-check-not=kv.tile -D$W=4 -D$WORDS=8 -D$BYTES=16
// RUN: sed s/ARCH/generic/ %s | kvcc-opt -kv-convert-tile-to-cpu -canonicalize -cse \
// RUN:   | FileCheck %s --check-prefixes=CHECK,GENERIC,WORDS,PLAIN-WORDS --implicit-check-not=kv.tile -D$W=4 -D$WORDS=8 -D$BYTES=16 \
// RUN:     --implicit-check-not=llvm.call_intrinsic

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

// A query in bytes. A tile of 16 keys has 64 lanes, four for each key, with eight codes of 3 bits each: so three words
// of a byte, of which one load takes those of a vector. Codes 0 and 1 are shifted and masked out of word 0; code 2 is
// in two words, two bits and one. The codes of four lanes, times four bytes of the query, make a number of 32 bits.
// CHECK-LABEL: func.func @score_int8(
// CHECK-SAME:    %[[Q:[^:]*]]: memref<?xf32>, %[[BYTES:[^:]*]]: memref<?xi8>, %[[AT:[^:]*]]: index)
// CHECK-DAG:     %[[C0:.*]] = arith.constant 0 : index
// CHECK-DAG:     %[[MASK:.*]] = arith.constant dense<7> : vector<[[$BYTES]]xi8>
// CHECK-DAG:     %[[LOW_MASK:.*]] = arith.constant dense<3> : vector<[[$BYTES]]xi8>
// CHECK-DAG:     %[[HIGH_MASK:.*]] = arith.constant dense<4> : vector<[[$BYTES]]xi8>
// CHECK-DAG:     %[[BY_2:.*]] = arith.constant dense<2> : vector<[[$W]]xi32>
// CHECK-DAG:     %[[BY_3:.*]] = arith.constant dense<3> : vector<[[$W]]xi32>
// CHECK-DAG:     %[[BY_6:.*]] = arith.constant dense<6> : vector<[[$W]]xi32>
// GENERIC-DAG:   %[[BY_24:.*]] = arith.constant dense<24> : vector<[[$W]]xi32>
// VNNI-DAG:      %[[NOTHING:.*]] = arith.constant dense<0> : vector<[[$W]]xi32>
// NEON-DAG:      %[[NOTHING:.*]] = arith.constant dense<0> : vector<[[$W]]xi32>
// MADD-DAG:      %[[ONES:.*]] = arith.constant dense<1> : vector<[[$WORDS]]xi16>
// CHECK-DAG:     %[[ZERO_CODE:.*]] = arith.constant dense<-4.000000e+00> : vector<[[$W]]xf32>
// CHECK-DAG:     %[[STEPS:.*]] = arith.constant dense<1.270000e+02> : vector<1xf32>
// CHECK-DAG:     %[[SMALL:.*]] = memref.alloca() {alignment = 64 : i64} : memref<1x32xi8>
// CHECK:         math.absf
// CHECK:         arith.divf %[[STEPS]],
// CHECK-NOT:     vector.shuffle
// CHECK:         vector.store %{{.*}}, %[[SMALL]]
// CHECK:         %[[KEYS:.*]] = memref.view %[[BYTES]][%[[AT]]][] : memref<?xi8> to memref<384xi8>
// CHECK:         %[[SCALES:.*]] = memref.view %[[BYTES]][%[[AT]]][] : memref<?xi8> to memref<32xf16>
// CHECK:         %[[WORD_0:.*]] = vector.load %[[KEYS]][%{{.*}}] : memref<384xi8>, vector<[[$BYTES]]xi8>
// CHECK-NEXT:    %[[CODES_0:.*]] = arith.andi %[[WORD_0]], %[[MASK]]
// CHECK:         %[[FOUR:.*]] = vector.load %[[SMALL]][%[[C0]], %[[C0]]] : memref<1x32xi8>, vector<4xi8>
// CHECK:         %[[REPEATED:.*]] = vector.broadcast %{{.*}} : i32 to vector<[[$W]]xi32>
// VNNI-NEXT:     %[[QUERY:.*]] = vector.bitcast %[[REPEATED]] : vector<[[$W]]xi32> to vector<[[$BYTES]]xi8>
// VNNI-NEXT:     %[[SUM_0:.*]] = llvm.call_intrinsic "[[$DOT_BYTES]]"(%[[NOTHING]], %[[CODES_0]], %[[QUERY]])
// MADD-NEXT:     %[[QUERY:.*]] = vector.bitcast %[[REPEATED]] : vector<[[$W]]xi32> to vector<[[$BYTES]]xi8>
// MADD-NEXT:     %[[SUM_0:.*]] = llvm.call_intrinsic "[[$PAIRS]]"(%[[CODES_0]], %[[QUERY]]) : {{.*}} -> vector<[[$WORDS]]xi16>
// NEON-NEXT:     %[[QUERY:.*]] = vector.bitcast %[[REPEATED]] : vector<[[$W]]xi32> to vector<[[$BYTES]]xi8>
// NEON-NEXT:     %[[SUM_0:.*]] = llvm.call_intrinsic "llvm.aarch64.neon.sdot.v4i32.v16i8"(%[[NOTHING]], %[[CODES_0]], %[[QUERY]])
// GENERIC:       %[[TOP_CODES:.*]] = arith.shli %{{.*}}, %[[BY_24]]
// GENERIC:       %[[CODE:.*]] = arith.shrui %[[TOP_CODES]], %[[BY_24]]
// GENERIC:       %[[TOP_NUMBERS:.*]] = arith.shli %[[REPEATED]], %[[BY_24]]
// GENERIC:       %[[NUMBER:.*]] = arith.shrsi %[[TOP_NUMBERS]], %[[BY_24]]
// GENERIC:       %[[PART_0:.*]] = arith.muli %[[CODE]], %[[NUMBER]] : vector<[[$W]]xi32>
// GENERIC:       arith.muli
// GENERIC:       arith.addi %[[PART_0]], %{{.*}} : vector<[[$W]]xi32>
// CHECK:         %[[LANES_0:.*]] = vector.bitcast %[[WORD_0]] : vector<[[$BYTES]]xi8> to vector<[[$W]]xi32>
// CHECK-NEXT:    %[[MOVED_1:.*]] = arith.shrui %[[LANES_0]], %[[BY_3]]
// CHECK-NEXT:    %[[BYTES_1:.*]] = vector.bitcast %[[MOVED_1]] : vector<[[$W]]xi32> to vector<[[$BYTES]]xi8>
// CHECK-NEXT:    %[[CODES_1:.*]] = arith.andi %[[BYTES_1]], %[[MASK]]
// VNNI:          llvm.call_intrinsic "[[$DOT_BYTES]]"(%[[SUM_0]], %[[CODES_1]],
// MADD:          %[[PRODUCT_1:.*]] = llvm.call_intrinsic "[[$PAIRS]]"(%[[CODES_1]],
// MADD-NEXT:     arith.addi %[[SUM_0]], %[[PRODUCT_1]] : vector<[[$WORDS]]xi16>
// NEON:          llvm.call_intrinsic "llvm.aarch64.neon.sdot.v4i32.v16i8"(%[[SUM_0]], %[[CODES_1]],
// CHECK:         %[[LOW_MOVED:.*]] = arith.shrui %[[LANES_0]], %[[BY_6]]
// CHECK-NEXT:    %[[LOW_BYTES:.*]] = vector.bitcast %[[LOW_MOVED]]
// CHECK-NEXT:    %[[LOW:.*]] = arith.andi %[[LOW_BYTES]], %[[LOW_MASK]]
// CHECK:         %[[WORD_1:.*]] = vector.load %[[KEYS]][%{{.*}}] : memref<384xi8>, vector<[[$BYTES]]xi8>
// CHECK-NEXT:    %[[LANES_1:.*]] = vector.bitcast %[[WORD_1]]
// CHECK-NEXT:    %[[HIGH_MOVED:.*]] = arith.shli %[[LANES_1]], %[[BY_2]]
// CHECK-NEXT:    %[[HIGH_BYTES:.*]] = vector.bitcast %[[HIGH_MOVED]]
// CHECK-NEXT:    %[[HIGH:.*]] = arith.andi %[[HIGH_BYTES]], %[[HIGH_MASK]]
// CHECK-NEXT:    arith.ori %[[LOW]], %[[HIGH]]
// Sums of 16 bits become sums of 32 once they hold all eight codes; the scales come last.
// MADD:          llvm.call_intrinsic "[[$WORD_PAIRS]]"(%{{.*}}, %[[ONES]]) : {{.*}} -> vector<[[$W]]xi32>
// CHECK:         %[[ZERO:.*]] = arith.mulf %{{.*}}, %[[ZERO_CODE]]
// CHECK:         %[[SCALE:.*]] = vector.load %[[SCALES]]{{.*}} : memref<32xf16>, vector<[[$W]]xf16>
// CHECK-NEXT:    %[[WIDE:.*]] = arith.extf %[[SCALE]]
// CHECK-NEXT:    %[[SUM:.*]] = arith.sitofp %{{.*}} : vector<[[$W]]xi32> to vector<[[$W]]xf32>
// CHECK:         %[[SCALED:.*]] = arith.mulf %[[SUM]], %{{.*}} fastmath<contract> : vector<[[$W]]xf32>
// CHECK:         %[[SHIFTED:.*]] = arith.addf %[[SCALED]], %[[ZERO]] fastmath<contract> : vector<[[$W]]xf32>
// CHECK:         arith.mulf %[[SHIFTED]], %[[WIDE]] fastmath<contract> : vector<[[$W]]xf32>
// CHECK:         vector.store
func.func @score_int8(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index) {
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %small:3 = kv.tile.prepare %query group 32
    : vector<1x32xf32> -> vector<1x32xi8>, vector<1x1xf32>, vector<1x1xf32>
  %keys = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x32xi3, packing = <16x32, lanes = 64>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x1xf16, packing = <16x1>>
  kv.tile.score %small#0, %keys scales %scales sums %small#1 query_scales %small#2 placement <result>
    : vector<1x32xi8>, !kv.block<key, 32x32xi3, packing = <16x32, lanes = 64>>,
      scales !kv.block<key, 32x1xf16, packing = <16x1>>, sums vector<1x1xf32>
      query_scales vector<1x1xf32> -> vector<1x32xf32>
  return
}

// What is needed soon is asked for while codes, or numbers, are multiplied: all lines of it, a few at a time.
// CHECK-LABEL: func.func @score_ahead(
// CHECK-SAME:    %{{[^:]*}}: memref<?xf32>, %[[BYTES:[^:]*]]: memref<?xi8>, %{{[^:]*}}: index, %[[NEXT_AT:[^:]*]]: index)
// CHECK:         %[[NEXT:.*]] = memref.view %[[BYTES]][%[[NEXT_AT]]][] : memref<?xi8> to memref<448xi8>
// CHECK:         vector.load %{{.*}} : memref<384xi8>
// CHECK:         memref.prefetch %[[NEXT]][%{{.*}}], read, locality<2>, data : memref<448xi8>
// CHECK:         %[[NUMBERS:.*]] = memref.view %[[BYTES]][%[[NEXT_AT]]][] : memref<?xi8> to memref<4096xi8>
// CHECK:         memref.prefetch %[[NUMBERS]][%{{.*}}], read, locality<2>, data : memref<4096xi8>
// CHECK:         vector.load %{{.*}} : memref<1024xf32>
func.func @score_ahead(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index, %next: index) {
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %small:3 = kv.tile.prepare %query group 32
    : vector<1x32xf32> -> vector<1x32xi8>, vector<1x1xf32>, vector<1x1xf32>
  %keys = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x32xi3, packing = <16x32, lanes = 64>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x1xf16, packing = <16x1>>
  kv.tile.score %small#0, %keys scales %scales sums %small#1 query_scales %small#2 placement <result>
      ahead %bytes[%next] bytes 448
    : vector<1x32xi8>, !kv.block<key, 32x32xi3, packing = <16x32, lanes = 64>>,
      scales !kv.block<key, 32x1xf16, packing = <16x1>>, sums vector<1x1xf32>
      query_scales vector<1x1xf32> ahead memref<?xi8> -> vector<1x32xf32>
  %numbers = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x32xf32, packing = <16x1>>
  kv.tile.score %query, %numbers placement <none> ahead %bytes[%next] bytes 4096
    : vector<1x32xf32>, !kv.block<key, 32x32xf32, packing = <16x1>> ahead memref<?xi8> -> vector<1x32xf32>
  return
}

// What is asked for earlier still is a line of every 4 KiB.
// CHECK-LABEL: func.func @prefetch(
// CHECK-SAME:    %[[BYTES:[^:]*]]: memref<?xi8>, %[[AT:[^:]*]]: index)
// CHECK:         %[[C4096:.*]] = arith.constant 4096 : index
// CHECK-NEXT:    memref.prefetch %[[BYTES]][%[[AT]]], read, locality<2>, data
// CHECK-NEXT:    %[[SECOND:.*]] = arith.addi %[[AT]], %[[C4096]]
// CHECK-NEXT:    memref.prefetch %[[BYTES]][%[[SECOND]]], read, locality<2>, data
// CHECK-NEXT:    return
func.func @prefetch(%bytes: memref<?xi8>, %at: index) {
  kv.tile.prefetch %bytes[%at] bytes 8192 : memref<?xi8>
  return
}

// A query in words multiplies codes in bytes where dot products of bytes are: as two digits, n = 256 * high + low, both
// with a sign. Four low digits stand before the high ones of the same four numbers; what the digits give is added up
// apart. Elsewhere it multiplies codes in words: those of every second lane, then those of the others, for which the
// same word is shifted by a byte more. Fours of the query stand in that order, 0 2 1 3.
// CHECK-LABEL: func.func @score_int16(
// CHECK-DAG:     %[[C0:.*]] = arith.constant 0 : index
// CHECK-DAG:     %[[C2:.*]] = arith.constant 2 : index
// WORDS-DAG:     %[[MASK:.*]] = arith.constant dense<7> : vector<[[$WORDS]]xi16>
// WORDS-DAG:     %[[BY_8:.*]] = arith.constant dense<8> : vector<[[$WORDS]]xi16>
// BYTEWISE-DAG:  %[[MASK:.*]] = arith.constant dense<7> : vector<[[$BYTES]]xi8>
// BYTEWISE-DAG:  %[[HALF_DIGIT:.*]] = arith.constant dense<128> : vector<16xi32>
// CHECK-DAG:     %[[STEPS:.*]] = arith.constant dense<3.263900e+04> : vector<1xf32>
// PLAIN-WORDS-DAG: %[[BY_16:.*]] = arith.constant dense<16> : vector<[[$W]]xi32>
// BYTEWISE-DAG:  %[[NOTHING:.*]] = arith.constant dense<0> : vector<[[$W]]xi32>
// CHECK-DAG:     %[[SMALL:.*]] = memref.alloca() {alignment = 64 : i64} : memref<1x32xi16>
// CHECK:         arith.divf %[[STEPS]],
// WORDS:         %[[ORDERED:.*]] = vector.shuffle %{{.*}} [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15] : vector<16xi16>
// WORDS-NEXT:    vector.store %[[ORDERED]], %[[SMALL]]
// BYTEWISE-COUNT-2: arith.bitcast %{{.*}} : vector<16xf32> to vector<16xi32>
// BYTEWISE:      %[[SIGNED:.*]] = arith.xori %{{.*}}, %[[HALF_DIGIT]]
// BYTEWISE-NEXT: %[[DIGITS:.*]] = vector.bitcast %[[SIGNED]] : vector<16xi32> to vector<64xi8>
// BYTEWISE-NEXT: %[[FOURS:.*]] = vector.shuffle %[[DIGITS]], %[[DIGITS]] [0, 4, 8, 12, 1, 5, 9, 13, -1, -1, -1, -1, -1, -1, -1, -1, 16,
// BYTEWISE-NEXT: %[[FIRST:.*]] = vector.bitcast %[[FOURS]] : vector<64xi8> to vector<8xi64>
// BYTEWISE:      %[[ALL:.*]] = vector.shuffle %[[FIRST]], %{{.*}} [0, 2, 4, 6, 8, 10, 12, 14] : vector<8xi64>, vector<8xi64>
// BYTEWISE-NEXT: %[[ORDERED:.*]] = vector.bitcast %[[ALL]] : vector<8xi64> to vector<32xi16>
// BYTEWISE-NEXT: vector.store %[[ORDERED]], %[[SMALL]]
// CHECK:         %[[KEYS:.*]] = memref.view %{{.*}} : memref<?xi8> to memref<384xi8>
// CHECK:         %[[WORD:.*]] = vector.load %[[KEYS]][%{{.*}}] : memref<384xi8>, vector<[[$BYTES]]xi8>
// BYTEWISE-NEXT: %[[CODES:.*]] = arith.andi %[[WORD]], %[[MASK]]
// WORDS-NEXT:    %[[LANES:.*]] = vector.bitcast %[[WORD]] : vector<[[$BYTES]]xi8> to vector<[[$WORDS]]xi16>
// WORDS-NEXT:    %[[EVEN:.*]] = arith.andi %[[LANES]], %[[MASK]]
// CHECK:         vector.load %[[SMALL]][%[[C0]], %[[C0]]] : memref<1x32xi16>, vector<2xi16>
// CHECK:         %[[REPEATED:.*]] = vector.broadcast %{{.*}} : i32 to vector<[[$W]]xi32>
// BYTEWISE-NEXT: %[[LOW_DIGITS:.*]] = vector.bitcast %[[REPEATED]] : vector<[[$W]]xi32> to vector<[[$BYTES]]xi8>
// VNNI-NEXT:     llvm.call_intrinsic "[[$DOT_BYTES]]"(%[[NOTHING]], %[[CODES]], %[[LOW_DIGITS]])
// NEON-NEXT:     llvm.call_intrinsic "llvm.aarch64.neon.sdot.v4i32.v16i8"(%[[NOTHING]], %[[CODES]], %[[LOW_DIGITS]])
// BYTEWISE:      vector.load %[[SMALL]][%[[C0]], %[[C2]]] : memref<1x32xi16>, vector<2xi16>
// BYTEWISE:      %[[REPEATED_HIGH:.*]] = vector.broadcast %{{.*}} : i32 to vector<[[$W]]xi32>
// BYTEWISE-NEXT: %[[HIGH_DIGITS:.*]] = vector.bitcast %[[REPEATED_HIGH]] : vector<[[$W]]xi32> to vector<[[$BYTES]]xi8>
// VNNI-NEXT:     llvm.call_intrinsic "[[$DOT_BYTES]]"(%[[NOTHING]], %[[CODES]], %[[HIGH_DIGITS]])
// NEON-NEXT:     llvm.call_intrinsic "llvm.aarch64.neon.sdot.v4i32.v16i8"(%[[NOTHING]], %[[CODES]], %[[HIGH_DIGITS]])
// BYTEWISE:      %[[BOTH:.*]] = arith.addi %{{.*}} : vector<[[$W]]xi32>
// BYTEWISE-NEXT: arith.sitofp %[[BOTH]]
// MADD-NEXT:     %[[TWO:.*]] = vector.bitcast %[[REPEATED]] : vector<[[$W]]xi32> to vector<[[$WORDS]]xi16>
// MADD-NEXT:     %[[SUM:.*]] = llvm.call_intrinsic "[[$WORD_PAIRS]]"(%[[EVEN]], %[[TWO]]) : {{.*}} -> vector<[[$W]]xi32>
// PLAIN-WORDS:     %[[TOP:.*]] = arith.shli %[[REPEATED]], %[[BY_16]]
// PLAIN-WORDS:     %[[NUMBER:.*]] = arith.shrsi %[[TOP]], %[[BY_16]]
// PLAIN-WORDS:     arith.muli %{{.*}}, %[[NUMBER]] : vector<[[$W]]xi32>
// WORDS:         %[[MOVED:.*]] = arith.shrui %[[LANES]], %[[BY_8]]
// WORDS-NEXT:    %[[ODD:.*]] = arith.andi %[[MOVED]], %[[MASK]]
// WORDS:         vector.load %[[SMALL]][%[[C0]], %[[C2]]] : memref<1x32xi16>, vector<2xi16>
// MADD:          %[[PRODUCT:.*]] = llvm.call_intrinsic "[[$WORD_PAIRS]]"(%[[ODD]],
// MADD-NEXT:     arith.addi %[[SUM]], %[[PRODUCT]] : vector<[[$W]]xi32>
// CHECK:         arith.sitofp %{{.*}} : vector<[[$W]]xi32> to vector<[[$W]]xf32>
func.func @score_int16(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index) {
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

// Several tiles along the reduction are a loop that carries a sum per head and vector. A tile has two groups of 16:
// codes 0 to 3 of its lanes, then codes 4 to 7, with scales of their own. How many vectors are computed together is what
// the function's registers for sums leave room for: two take one vector with two heads.
// CHECK-LABEL: func.func @score_groups(
// CHECK:         scf.for
// CHECK:           %{{.*}}:2 = scf.for %{{.*}} iter_args({{.*}}) -> (vector<[[$W]]xf32>, vector<[[$W]]xf32>)
// CHECK-COUNT-4:     arith.sitofp
// CHECK-NOT:         arith.sitofp
// CHECK:             scf.yield
func.func @score_groups(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index)
    attributes {kv.accumulators = 2 : i64} {
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

// In float arithmetic codes become floats, those of every fourth lane at a time, and nothing is rounded; instructions
// for bytes have no part in the product.
// CHECK-LABEL: func.func @score_f32(
// CHECK-DAG:     %[[MASK:.*]] = arith.constant dense<7> : vector<[[$W]]xi32>
// CHECK-NOT:     arith.fptosi
// CHECK-NOT:     llvm.call_intrinsic
// CHECK:         %[[WORD:.*]] = vector.load %{{.*}} : memref<384xi8>, vector<[[$BYTES]]xi8>
// CHECK-NEXT:    %[[LANES:.*]] = vector.bitcast %[[WORD]] : vector<[[$BYTES]]xi8> to vector<[[$W]]xi32>
// CHECK-NEXT:    %[[MASKED:.*]] = arith.andi %[[LANES]], %[[MASK]]
// CHECK-NEXT:    %[[CODES:.*]] = arith.sitofp %[[MASKED]] : vector<[[$W]]xi32> to vector<[[$W]]xf32>
// CHECK:         %[[Q:.*]] = vector.broadcast %{{.*}} : f32 to vector<[[$W]]xf32>
// CHECK:         %[[PRODUCT:.*]] = arith.mulf %[[CODES]], %[[Q]] fastmath<contract>
// CHECK:         arith.addf %[[PRODUCT]], %{{.*}} fastmath<contract>
// CHECK-NOT:     llvm.call_intrinsic
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

// Numbers: vectors of keys beside each other, as many as the function says that there are registers for.
// CHECK-LABEL: func.func @score_numbers(
// CHECK:         %[[KEYS:.*]] = memref.view %{{.*}} : memref<?xi8> to memref<1024xbf16>
// CHECK:         %{{.*}}:2 = scf.for %{{.*}} iter_args({{.*}}) -> (vector<[[$W]]xf32>, vector<[[$W]]xf32>)
// CHECK:           vector.load %[[KEYS]]{{.*}} : memref<1024xbf16>, vector<[[$W]]xbf16>
// CHECK:           vector.load %[[KEYS]]{{.*}} : memref<1024xbf16>, vector<[[$W]]xbf16>
func.func @score_numbers(%q: memref<?xf32>, %bytes: memref<?xi8>, %at: index)
    attributes {kv.accumulators = 3 : i64} {
  %query = kv.tile.load_query %q[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %keys = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<key, 32x32xbf16, packing = <16x1>>
  kv.tile.score %query, %keys placement <none>
    : vector<1x32xf32>, !kv.block<key, 32x32xbf16, packing = <16x1>> -> vector<1x32xf32>
  return
}

// Weights are bytes without a sign, so VNNI takes the codes on the signed side: those of 8 bits after subtracting 128,
// which leaves no zero code to make up for. NEON multiplies two unsigned sides. Sums of 16 bits have no room for codes of
// 8 bits: they become two digits, and the products with the second count 16 fold.
// CHECK-LABEL: func.func @accumulate_int8(
// CHECK-DAG:     %[[C0:.*]] = arith.constant 0 : index
// VNNI-DAG:      %[[BIAS:.*]] = arith.constant dense<-128> : vector<[[$BYTES]]xi8>
// GENERIC-DAG:   %[[BIAS:.*]] = arith.constant dense<-128> : vector<[[$BYTES]]xi8>
// MADD-DAG:      %[[DIGIT:.*]] = arith.constant dense<15> : vector<[[$BYTES]]xi8>
// MADD-DAG:      %[[BY_4:.*]] = arith.constant dense<4> : vector<[[$W]]xi32>
// MADD-DAG:      %[[ONES:.*]] = arith.constant dense<1> : vector<[[$WORDS]]xi16>
// MADD-DAG:      %[[SIXTEENS:.*]] = arith.constant dense<16> : vector<[[$WORDS]]xi16>
// MADD-DAG:      %[[ZERO_CODE:.*]] = arith.constant dense<-1.280000e+02> : vector<[[$W]]xf32>
// NEON-DAG:      %[[ZERO_CODE:.*]] = arith.constant dense<-1.280000e+02> : vector<[[$W]]xf32>
// VNNI-DAG:      %[[NOTHING:.*]] = arith.constant dense<0> : vector<[[$W]]xi32>
// NEON-DAG:      %[[NOTHING:.*]] = arith.constant dense<0> : vector<[[$W]]xi32>
// CHECK-DAG:     %[[STEPS:.*]] = arith.constant dense<2.550000e+02> : vector<1xf32>
// CHECK-DAG:     %[[SMALL:.*]] = memref.alloca() {alignment = 64 : i64} : memref<1x32xi8>
// CHECK-DAG:     %[[STATE:.*]] = memref.alloca() {alignment = 64 : i64} : memref<1x64xf32>
// CHECK-NOT:     math.absf
// CHECK:         arith.divf %[[STEPS]],
// CHECK:         %[[VALUES:.*]] = memref.view %{{.*}} : memref<?xi8> to memref<1024xi8>
// CHECK:         %[[PACKED:.*]] = vector.load %[[VALUES]][%{{.*}}] : memref<1024xi8>, vector<[[$BYTES]]xi8>
// VNNI-NEXT:     %[[CODES:.*]] = arith.xori %[[PACKED]], %[[BIAS]]
// GENERIC-NEXT:  %[[CODES:.*]] = arith.xori %[[PACKED]], %[[BIAS]]
// MADD-NEXT:     %[[DIGITS:.*]] = arith.andi %[[PACKED]], %[[DIGIT]]
// CHECK:         vector.load %[[SMALL]]{{.*}} : memref<1x32xi8>, vector<4xi8>
// CHECK:         %[[REPEATED:.*]] = vector.broadcast %{{.*}} : i32 to vector<[[$W]]xi32>
// VNNI-NEXT:     %[[FOUR:.*]] = vector.bitcast %[[REPEATED]] : vector<[[$W]]xi32> to vector<[[$BYTES]]xi8>
// VNNI-NEXT:     llvm.call_intrinsic "[[$DOT_BYTES]]"(%[[NOTHING]], %[[FOUR]], %[[CODES]])
// NEON-NEXT:     %[[FOUR:.*]] = vector.bitcast %[[REPEATED]] : vector<[[$W]]xi32> to vector<[[$BYTES]]xi8>
// NEON-NEXT:     llvm.call_intrinsic "llvm.aarch64.neon.udot.v4i32.v16i8"(%[[NOTHING]], %[[PACKED]], %[[FOUR]])
// MADD-NEXT:     %[[FOUR:.*]] = vector.bitcast %[[REPEATED]] : vector<[[$W]]xi32> to vector<[[$BYTES]]xi8>
// MADD-NEXT:     llvm.call_intrinsic "[[$PAIRS]]"(%[[FOUR]], %[[DIGITS]]) : {{.*}} -> vector<[[$WORDS]]xi16>
// MADD:          %[[LOW:.*]] = llvm.call_intrinsic "[[$WORD_PAIRS]]"(%{{.*}}, %[[ONES]])
// MADD:          %[[LANES:.*]] = vector.bitcast %[[PACKED]] : vector<[[$BYTES]]xi8> to vector<[[$W]]xi32>
// MADD-NEXT:     %[[MOVED:.*]] = arith.shrui %[[LANES]], %[[BY_4]]
// MADD-NEXT:     %[[MOVED_BYTES:.*]] = vector.bitcast %[[MOVED]]
// MADD-NEXT:     %[[HIGH_DIGITS:.*]] = arith.andi %[[MOVED_BYTES]], %[[DIGIT]]
// MADD:          llvm.call_intrinsic "[[$PAIRS]]"(%{{.*}}, %[[HIGH_DIGITS]])
// MADD:          llvm.call_intrinsic "[[$WORD_PAIRS]]"(%{{.*}}, %[[SIXTEENS]])
// GENERIC:       %[[TOP:.*]] = arith.shli
// GENERIC:       %[[SIGNED:.*]] = arith.shrsi %[[TOP]],
// GENERIC:       %[[TOP_NUMBERS:.*]] = arith.shli %[[REPEATED]],
// GENERIC:       %[[NUMBERS:.*]] = arith.shrui %[[TOP_NUMBERS]],
// GENERIC:       arith.muli %[[SIGNED]], %[[NUMBERS]] : vector<[[$W]]xi32>
// MADD:          arith.mulf %{{.*}}, %[[ZERO_CODE]]
// NEON:          arith.mulf %{{.*}}, %[[ZERO_CODE]]
// CHECK:         %[[OLD:.*]] = vector.load %[[STATE]]
// CHECK:         %[[NEW:.*]] = arith.addf %{{.*}}, %[[OLD]] fastmath<contract>
// CHECK:         vector.store %[[NEW]], %[[STATE]]
func.func @accumulate_int8(%w: memref<?xf32>, %bytes: memref<?xi8>, %at: index) {
  %state = kv.tile.init_state : !kv.state<1x32>
  %weights = kv.tile.load_query %w[%at] scale 1.0 : memref<?xf32> -> vector<1x32xf32>
  %small:3 = kv.tile.prepare %weights group 32
    : vector<1x32xf32> -> vector<1x32xui8>, vector<1x1xf32>, vector<1x1xf32>
  %values = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<value, 32x32xi8, packing = <16x32, lanes = 64>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<value, 1x32xf16, packing = <16x1>>
  kv.tile.accumulate %state, %small#0, %values scales %scales sums %small#1 weight_scales %small#2
      placement <accumulator>
    : !kv.state<1x32>, vector<1x32xui8>, !kv.block<value, 32x32xi8, packing = <16x32, lanes = 64>>,
      scales !kv.block<value, 1x32xf16, packing = <16x1>>, sums vector<1x1xf32> weight_scales vector<1x1xf32>
  return
}

// A folded operand has a row per group of free indices and head: here the weights of channels 0..15 and
// 16..31, whose vectors share a row. Their products with zero points are sums of their own, with those of what codes
// lack that count from the middle.
// CHECK-LABEL: func.func @operand(
// CHECK-DAG:     %[[C16:.*]] = arith.constant 16 : index
// CHECK-DAG:     %[[MIDDLE:.*]] = arith.constant dense<8.000000e+00> : vector<16xf32>
// CHECK-DAG:     %[[ZERO_CODE:.*]] = arith.constant dense<-8.000000e+00> : vector<[[$W]]xf32>
// CHECK-DAG:     %[[FOLDED:.*]] = memref.alloca() {alignment = 64 : i64} : memref<4x32xf32>
// CHECK:         %[[SCALES:.*]] = memref.view %{{.*}} : memref<?xi8> to memref<64xf16>
// CHECK:         scf.for
// CHECK:           vector.load %[[SCALES]]{{.*}} : memref<64xf16>, vector<16xf16>
// CHECK:           %[[SCALE:.*]] = arith.extf
// Both heads take the same scales, and what the middle code stands for.
// CHECK:           arith.mulf %[[SCALE]], %[[MIDDLE]]
// CHECK:           %[[STANDS_FOR:.*]] = arith.addf
// CHECK:           %[[NUMBERS_0:.*]] = vector.load
// CHECK:           %[[FOLDED_0:.*]] = arith.mulf %[[NUMBERS_0]], %[[SCALE]]
// CHECK:           arith.mulf %[[NUMBERS_0]], %[[STANDS_FOR]]
// CHECK:           vector.store %[[FOLDED_0]], %[[FOLDED]]
// CHECK-NOT:       vector.load %[[SCALES]]
// CHECK:           %[[NUMBERS_1:.*]] = vector.load
// CHECK:           %[[FOLDED_1:.*]] = arith.mulf %[[NUMBERS_1]], %[[SCALE]]
// CHECK:           arith.mulf %[[NUMBERS_1]], %[[STANDS_FOR]]
// CHECK:           vector.store %[[FOLDED_1]], %[[FOLDED]]
// CHECK:         %[[FLAT:.*]] = memref.reinterpret_cast %[[OFFSETS:[a-z_0-9]+]] to offset: [0], sizes: [4], strides: [1] : memref<4x1xf32> to memref<4xf32>
// CHECK:         vector.store %{{.*}}, %[[FLAT]][%{{.*}}] : memref<4xf32>, vector<2xf32>
// CHECK:         scf.for
// CHECK:           %[[GROUP:.*]] = arith.divui %{{.*}}, %[[C16]]
// CHECK:           arith.muli %[[GROUP]], %{{.*}} : index
// CHECK:           arith.mulf %{{.*}}, %[[ZERO_CODE]]
// CHECK:           memref.load %[[OFFSETS]]
func.func @operand(%w: memref<?xf32>, %bytes: memref<?xi8>, %at: index) {
  %state = kv.tile.init_state : !kv.state<2x32>
  %weights = kv.tile.load_query %w[%at] scale 1.0 : memref<?xf32> -> vector<2x32xf32>
  %values = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<value, 32x32xi4, packing = <16x32, lanes = 64>>
  %scales = kv.tile.load %bytes[%at] : memref<?xi8> -> !kv.block<value, 32x2xf16, packing = <1x1>>
  %folded, %offsets = kv.tile.fold %weights, %scales zeros %scales middle 8
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
// CHECK-DAG:     %[[NOTHING:.*]] = arith.constant dense<0> : vector<[[$W]]xi32>
// CHECK-DAG:     %[[ZERO_CODE:.*]] = arith.constant dense<-2.000000e+00> : vector<[[$W]]xf32>
// CHECK:         %[[SCALE:.*]] = arith.extf %{{.*}} : vector<[[$W]]xf16> to vector<[[$W]]xf32>
// CHECK:         %[[BITS:.*]] = arith.bitcast %[[SCALE]] : vector<[[$W]]xf32> to vector<[[$W]]xi32>
// CHECK:         %[[MARKED:.*]] = arith.cmpi slt, %[[BITS]], %[[NOTHING]]
// CHECK:         %[[MAGNITUDE:.*]] = math.absf %[[SCALE]]
// CHECK:         %[[ZERO:.*]] = arith.extf %{{.*}} : vector<[[$W]]xf16> to vector<[[$W]]xf32>
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

// Codes of f8E4M3FN become f16 with the same exponent field, 16 bits at a time, so that a vector has two of each four; what
// that leaves, 2^8, goes into the scale. The query stands in the same order, and the sums of a pair are added in the end.
// CHECK-LABEL: func.func @score_fp8(
// CHECK-DAG:     %[[UNIT:.*]] = arith.constant dense<2.560000e+02> : vector<[[$W]]xf32>
// CHECK-DAG:     %[[SIGN:.*]] = arith.constant dense<-32768> : vector<[[$WORDS]]xi16>
// CHECK-DAG:     %[[REST:.*]] = arith.constant dense<16256> : vector<[[$WORDS]]xi16>
// CHECK-DAG:     %[[ONE:.*]] = arith.constant dense<1> : vector<[[$WORDS]]xi16>
// CHECK:         vector.shuffle %{{.*}} [0, 2, 1, 3, 4, 6, 5, 7,
// CHECK:         %[[CODES:.*]] = vector.bitcast %{{.*}} : vector<[[$BYTES]]xi8> to vector<[[$WORDS]]xi16>
// CHECK:         %[[TOP:.*]] = arith.shli %[[CODES]]
// CHECK:         %[[MOVED:.*]] = arith.shrui %[[TOP]], %[[ONE]]
// CHECK:         %[[MAGNITUDE:.*]] = arith.andi %[[MOVED]], %[[REST]]
// CHECK:         %[[SIGNS:.*]] = arith.andi %[[TOP]], %[[SIGN]]
// CHECK:         %[[BITS:.*]] = arith.ori %[[MAGNITUDE]], %[[SIGNS]]
// CHECK:         %[[HALVES:.*]] = arith.bitcast %[[BITS]] : vector<[[$WORDS]]xi16> to vector<[[$WORDS]]xf16>
// CHECK:         %[[PART:.*]] = vector.extract_strided_slice %[[HALVES]] {offsets = [0]
// CHECK:         arith.extf %[[PART]] : vector<[[$W]]xf16> to vector<[[$W]]xf32>
// CHECK:         vector.load %{{.*}} : memref<1x32xf32>, vector<2xf32>
// CHECK:         arith.shrui %[[CODES]], %[[ONE]]
// CHECK:         %[[EVEN:.*]] = vector.shuffle %[[LOWER:.*]], %[[UPPER:.*]] [0, 2, 4, 6
// CHECK:         %[[ODD:.*]] = vector.shuffle %[[LOWER]], %[[UPPER]] [1, 3, 5, 7
// CHECK:         arith.addf %[[EVEN]], %[[ODD]]
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

// Codes of f4E2M1FN become bytes, twice the number plus 12, so that integer products take them: by a table, or counted
// where there is no instruction for one. A scale of f8E8M0FNU is the exponent of an f32, and takes the half.
// CHECK-LABEL: func.func @score_fp4(
// GENERIC-DAG:   %[[MAGNITUDE:.*]] = arith.constant dense<7> : vector<[[$BYTES]]xi8>
// GENERIC-DAG:   %[[TWELVE:.*]] = arith.constant dense<12> : vector<[[$BYTES]]xi8>
// CHECK-DAG:     %[[ZERO_CODE:.*]] = arith.constant dense<-1.200000e+01> : vector<[[$W]]xf32>
// CHECK-DAG:     %[[HALF:.*]] = arith.constant dense<5.000000e-01> : vector<[[$W]]xf32>
// CHECK-DAG:     %[[EXPONENT:.*]] = arith.constant dense<23> : vector<[[$W]]xi32>
// GENERIC:       arith.andi %{{.*}}, %[[MAGNITUDE]] : vector<[[$BYTES]]xi8>
// GENERIC:       %[[BELOW:.*]] = arith.subi %[[TWELVE]], %{{.*}} : vector<[[$BYTES]]xi8>
// GENERIC:       arith.select %{{.*}}, %[[BELOW]], %{{.*}} : vector<[[$BYTES]]xi1>, vector<[[$BYTES]]xi8>
// VNNI:          llvm.call_intrinsic "llvm.x86.{{.*}}pshuf.b{{.*}}"(
// MADD:          llvm.call_intrinsic "llvm.x86.{{.*}}pshuf.b{{.*}}"(
// NEON:          llvm.call_intrinsic "llvm.aarch64.neon.tbl1.v16i8"(
// VNNI:          llvm.call_intrinsic "[[$DOT_BYTES]]"
// MADD:          llvm.call_intrinsic "[[$WORD_PAIRS]]"
// CHECK:         %[[ZERO:.*]] = arith.mulf %{{.*}}, %[[ZERO_CODE]]
// CHECK:         %[[POWER:.*]] = arith.extui %{{.*}} : vector<[[$W]]xi8> to vector<[[$W]]xi32>
// CHECK:         %[[BITS:.*]] = arith.shli %[[POWER]], %[[EXPONENT]]
// CHECK:         %[[SCALE:.*]] = arith.bitcast %[[BITS]] : vector<[[$W]]xi32> to vector<[[$W]]xf32>
// CHECK:         %[[HALVED:.*]] = arith.mulf %[[SCALE]], %[[HALF]]
// CHECK:         %[[SHIFTED:.*]] = arith.addf %{{.*}}, %[[ZERO]]
// CHECK:         arith.mulf %[[SHIFTED]], %[[HALVED]]
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
// CHECK-NOT:     vector.shuffle
// CHECK:         vector.store
// CHECK:         %[[SUM:[^ ]*]] = arith.addf
// CHECK:         %[[DIFFERENCE:.*]] = arith.subf
// CHECK:         %[[FIRST:.*]] = arith.mulf %[[SUM]], %[[NORM]] fastmath<contract>
// CHECK:         vector.store %[[FIRST]]
// CHECK:         %[[SECOND:.*]] = arith.mulf %[[DIFFERENCE]], %[[NORM]] fastmath<contract>
// CHECK:         vector.store %[[SECOND]]
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
// CHECK-DAG:     %[[SCALE:.*]] = arith.constant 2.500000e-01 : f32
// CHECK-DAG:     %[[STATE:.*]] = memref.alloca() {alignment = 64 : i64} : memref<1x64xf32>
// CHECK:         %[[VECTOR:.*]] = memref.view %[[BYTES]][%[[AT]]][] : memref<?xi8> to memref<32xf32>
// CHECK:         vector.load %[[VECTOR]]
// CHECK:         %[[SUM:.*]] = vector.reduction <add>
// CHECK:         %[[MISSING:.*]] = arith.mulf %[[SUM]], %[[SCALE]]
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
  %missing = kv.tile.dot_channels %query, %bytes[%at] scale 2.500000e-01 : vector<1x32xf32>, memref<?xi8> -> vector<1x1xf32>
  kv.tile.shift_state %state, %missing : !kv.state<1x32>, vector<1x1xf32>
  kv.tile.restore %state size 16 means %bytes[%means_at] factors %bytes[%factors_at]
    : !kv.state<1x32> means memref<?xi8> factors memref<?xi8>
  return
}

// A state has 16 sums and the maximum behind its 32 outputs, which starts as the logit of a masked token. Maxima, and
// what has been summed, change only if a logit of some head is above its head's maximum.
// CHECK-LABEL: func.func @softmax(
// CHECK-SAME:    %[[MEMORY:[^:]*]]: memref<?xf32>, %[[AT:[^:]*]]: index, %[[VALID:[^:]*]]: index)
// CHECK-DAG:     %[[MASKED:.*]] = arith.constant dense<-1.000000e+30> : vector<16xf32>
// CHECK-DAG:     %[[NO_MAX:.*]] = arith.constant -1.000000e+30 : f32
// CHECK-DAG:     %[[MAX_AT:.*]] = arith.constant 48 : index
// CHECK-DAG:     %[[STATE:.*]] = memref.alloca() {alignment = 64 : i64} : memref<2x64xf32>
// CHECK-DAG:     %[[TILE:.*]] = memref.alloca() {alignment = 64 : i64} : memref<2x32xf32>
// CHECK:         memref.store %[[NO_MAX]], %[[STATE]][%{{.*}}, %[[MAX_AT]]]
// CHECK:         %[[FROM_FIRST:.*]] = arith.subi %[[VALID]], %[[AT]]
// CHECK:         arith.index_cast %[[FROM_FIRST]] : index to i32
// CHECK:         %[[IS_THERE:.*]] = arith.cmpi slt, %{{.*}} : vector<16xi32>
// CHECK:         %[[LOGITS:.*]] = arith.select %[[IS_THERE]], %{{.*}}, %[[MASKED]]
// CHECK:         vector.store %[[LOGITS]], %[[TILE]]
// CHECK:         %[[OLD:.*]] = memref.load %[[STATE]][%{{.*}}, %[[MAX_AT]]]
// CHECK:         %[[GROWS:.*]] = vector.reduction <or>
// CHECK:         scf.if %[[GROWS]]
// CHECK:           vector.reduction <maxnumf>
// CHECK:           memref.store %{{.*}}, %[[STATE]][%{{.*}}, %[[MAX_AT]]]
// CHECK:         memref.load %[[STATE]][%{{.*}}, %[[MAX_AT]]]
// CHECK:         vector.store %{{.*}}, %[[TILE]]
func.func @softmax(%memory: memref<?xf32>, %at: index, %valid: index) {
  %state = kv.tile.init_state : !kv.state<2x32>
  %logits = kv.tile.load_query %memory[%at] scale 1.0 : memref<?xf32> -> vector<2x32xf32>
  %masked = kv.tile.mask %logits at %at valid %valid : vector<2x32xf32> -> vector<2x32xf32>
  kv.tile.softmax_step %state, %masked : !kv.state<2x32>, vector<2x32xf32> -> vector<2x32xf32>
  return
}

// A token dominates if the largest weight of any head is over a share of the sum of that head's weights.
// CHECK-LABEL: func.func @is_dominated(
// Heads are reduced together: pairs of vectors become one with the lanes of both, which then is halved until each head
// has one lane.
// CHECK-DAG:     %[[SHARE:.*]] = arith.constant dense<1.250000e-01> : vector<2xf32>
// CHECK-DAG:     %[[SUM_AT:.*]] = arith.constant 32 : index
// CHECK-DAG:     %[[STATE:.*]] = memref.alloca() {alignment = 64 : i64} : memref<2x64xf32>
// CHECK:         %[[SUMS_0:.*]] = vector.load %[[STATE]][%{{.*}}, %[[SUM_AT]]] : memref<2x64xf32>, vector<16xf32>
// CHECK:         %[[SUMS_1:.*]] = vector.load %[[STATE]][%{{.*}}, %[[SUM_AT]]] : memref<2x64xf32>, vector<16xf32>
// CHECK:         %[[LOWER:.*]] = vector.shuffle %[[SUMS_0]], %[[SUMS_1]] [0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29]
// CHECK-NEXT:    %[[UPPER:.*]] = vector.shuffle %[[SUMS_0]], %[[SUMS_1]] [2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31]
// CHECK-NEXT:    %[[BOTH:.*]] = arith.addf %[[LOWER]], %[[UPPER]]
// CHECK-NEXT:    %[[FIRST:.*]] = vector.extract_strided_slice %[[BOTH]] {offsets = [0], sizes = [8], strides = [1]}
// CHECK-NEXT:    %[[SECOND:.*]] = vector.extract_strided_slice %[[BOTH]] {offsets = [8], sizes = [8], strides = [1]}
// CHECK-NEXT:    arith.addf %[[FIRST]], %[[SECOND]]
// CHECK:         %[[SUM:.*]] = arith.addf %{{.*}} : vector<2xf32>
// CHECK:         %[[LIMIT:.*]] = arith.mulf %[[SUM]], %[[SHARE]]
// CHECK:         %[[LARGEST:.*]] = arith.select %{{.*}} : vector<2xi1>, vector<2xf32>
// CHECK:         %[[OVER:.*]] = arith.cmpf ogt, %[[LARGEST]], %[[LIMIT]]
// CHECK:         %[[RESULT:.*]] = vector.reduction <or>, %[[OVER]]
// CHECK:         return %[[RESULT]] : i1
func.func @is_dominated(%memory: memref<?xf32>, %at: index) -> i1 {
  %state = kv.tile.init_state : !kv.state<2x32>
  %weights = kv.tile.load_query %memory[%at] scale 1.0 : memref<?xf32> -> vector<2x32xf32>
  %result = kv.tile.is_dominated %state, %weights share 0.125 : !kv.state<2x32>, vector<2x32xf32>
  return %result : i1
}

// CHECK-LABEL: func.func @results(
// CHECK-SAME:    %[[OUTS:[^:]*]]: memref<?xf32>, %[[LSES:[^:]*]]: memref<?xf32>, %[[OUT:[^:]*]]: memref<?xf32>, %[[LSE:[^:]*]]: memref<?xf32>,
// CHECK-DAG:     %[[EMPTY:.*]] = arith.constant 0xFF800000 : f32
// CHECK:         math.log2
// CHECK:         %[[RESULT:.*]] = arith.select %{{.*}}, %{{.*}}, %[[EMPTY]]
// CHECK:         vector.store %{{.*}}, %[[OUT]]
// CHECK:         memref.store %[[RESULT]], %[[LSE]]
// CHECK:         memref.load %[[LSES]]
// CHECK:         vector.load %[[OUTS]]
// CHECK:         vector.store %{{.*}}, %[[OUT]]
// CHECK:         memref.store %{{.*}}, %[[LSE]]
func.func @results(%outs: memref<?xf32>, %lses: memref<?xf32>, %out: memref<?xf32>, %lse: memref<?xf32>,
                   %at: index, %row: index) {
  %state = kv.tile.init_state : !kv.state<1x32>
  kv.tile.store_result %state, %out[%at], %lse[%row] : !kv.state<1x32>, memref<?xf32>, memref<?xf32>
  kv.tile.merge %outs[%at], %lses[%row] count %row rows %row into %out[%at], %lse[%row] heads 2 x 32
    : memref<?xf32>, memref<?xf32> into memref<?xf32>, memref<?xf32>
  return
}

}
