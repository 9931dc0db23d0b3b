// How kernels become EmitC that prints as header-free CUDA C++; nothing of any other dialect is left.
// RUN: kvcc-opt %s -kv-convert-gpu-to-emitc | FileCheck %s --implicit-check-not=func.func --implicit-check-not=gpu. \
// RUN:   --implicit-check-not=memref --implicit-check-not=arith. --implicit-check-not=math. \
// RUN:   --implicit-check-not=scf. --implicit-check-not=unrealized

#private = #gpu.address_space<private>
#workgroup = #gpu.address_space<workgroup>

// Cache memory is reached through pointers, 16-bit floats as their bits, indices as size_t.
// CHECK-LABEL: emitc.func @memory(
// CHECK-SAME:    %[[HALVES:[^:]*]]: !emitc.ptr<ui16>, %[[BRAINS:[^:]*]]: !emitc.ptr<ui16>, %[[BYTES:[^:]*]]: !emitc.ptr<i8>,
// CHECK-SAME:    %[[WORDS:[^:]*]]: !emitc.ptr<i32>, %[[FLOATS:[^:]*]]: !emitc.ptr<f32>, %[[N:[^:]*]]: !emitc.size_t)
// CHECK-SAME:    attributes {specifiers = ["KV_KERNEL(32, 8)"]}
// CHECK-DAG:     %[[ONE:.*]] = "emitc.constant"() <{value = 1 : index}>
// CHECK-DAG:     %[[INFINITE_BITS:.*]] = "emitc.constant"() <{value = 4286578688 : ui32}>
// CHECK:         %[[INFINITE:.*]] = call_opaque "kv_bits_to_f32"(%[[INFINITE_BITS]]) : (ui32) -> f32
// CHECK:         %[[HALF_AT:.*]] = subscript %[[HALVES]][%[[N]]]
// CHECK:         %[[HALF:.*]] = load %[[HALF_AT]] : <ui16>
// CHECK:         call_opaque "kv_f16_to_f32"(%[[HALF]]) : (ui16) -> f32
// CHECK:         %[[BRAIN_AT:.*]] = subscript %[[BRAINS]][%[[N]]]
// CHECK:         %[[BRAIN:.*]] = load %[[BRAIN_AT]] : <ui16>
// CHECK:         %[[WIDE:.*]] = call_opaque "kv_bf16_to_f32"(%[[BRAIN]]) : (ui16) -> f32
// CHECK:         %[[FLOAT_AT:.*]] = subscript %[[FLOATS]][%[[N]]]
// CHECK:         assign %[[INFINITE]] : f32 to %[[FLOAT_AT]]
// A view is the address of its first byte as another pointer.
// CHECK:         %[[BYTE:.*]] = subscript %[[BYTES]][%[[N]]]
// CHECK:         %[[ADDRESS:.*]] = address_of %[[BYTE]]
// CHECK:         %[[VIEW:.*]] = cast %[[ADDRESS]] : !emitc.ptr<i8> to !emitc.ptr<i32>
// CHECK:         %[[WORD_AT:.*]] = subscript %[[VIEW]][%[[ONE]]]
// CHECK:         %[[WORD:.*]] = load %[[WORD_AT]] : <i32>
// CHECK:         assign %[[WORD]] : i32
func.func @memory(%halves: memref<?xf16>, %brains: memref<?xbf16>, %bytes: memref<?xi8>,
                  %words: memref<?xi32>, %floats: memref<?xf32>, %n: index)
    attributes {kv.threads = 32 : i64} {
  %c1 = arith.constant 1 : index
  %infinite = arith.constant 0xFF800000 : f32
  %0 = memref.load %halves[%n] : memref<?xf16>
  %1 = arith.extf %0 : f16 to f32
  %2 = memref.load %brains[%n] : memref<?xbf16>
  %3 = arith.extf %2 : bf16 to f32
  memref.store %infinite, %floats[%n] : memref<?xf32>
  %view = memref.view %bytes[%n][] : memref<?xi8> to memref<16xi32>
  %4 = memref.load %view[%c1] : memref<16xi32>
  memref.store %4, %words[%n] : memref<?xi32>
  memref.store %1, %floats[%c1] : memref<?xf32>
  memref.store %3, %floats[%c1] : memref<?xf32>
  return
}

// Buffers of the block are KV_SHARED arrays, padded where their type says so, those of a lane arrays; the pragma stands right before its loop, and says of
// every other loop that it stays one.
// CHECK-LABEL: emitc.func @buffers(
// CHECK-SAME:    specifiers = ["KV_KERNEL(64, 4)"]
// CHECK:         verbatim "KV_SHARED"
// CHECK-NEXT:    %[[TILE:.*]] = "emitc.variable"() {{.*}} : () -> !emitc.array<2x32xf32>
// CHECK-NEXT:    verbatim "KV_SHARED"
// CHECK-NEXT:    %[[MATRIX:.*]] = "emitc.variable"() {{.*}} : () -> !emitc.array<32x65xf32>
// CHECK-NEXT:    %[[STATE:.*]] = "emitc.variable"() {{.*}} : () -> !emitc.array<1x4xf32>
// CHECK:         verbatim "KV_UNROLL"
// CHECK-NEXT:    for %[[I:.*]] = %{{.*}} {
// CHECK:           subscript %[[TILE]][%{{.*}}, %[[I]]]
// CHECK:           subscript %[[STATE]][%{{.*}}, %[[I]]]
// CHECK:         }
// CHECK:         verbatim "KV_NOUNROLL"
// CHECK-NEXT:    for %{{.*}} {
// CHECK:         verbatim "KV_UNROLL_BY(4)"
// CHECK-NEXT:    for %[[J:.*]] = %{{.*}} {
// CHECK:           subscript %[[MATRIX]][%[[J]], %{{.*}}]
func.func @buffers(%x: memref<?xf32>) attributes {kv.threads = 64 : i64} {
  %tile = memref.alloca() : memref<2x32xf32, #workgroup>
  %matrix = memref.alloca() : memref<32x64xf32, strided<[65, 1]>, #workgroup>
  %state = memref.alloca() : memref<1x4xf32, #private>
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c4 = arith.constant 4 : index
  scf.for %i = %c0 to %c4 step %c1 {
    %0 = memref.load %tile[%c1, %i] : memref<2x32xf32, #workgroup>
    memref.store %0, %state[%c0, %i] : memref<1x4xf32, #private>
  } {kv.unroll}
  scf.for %i = %c0 to %c4 step %c1 {
    %0 = memref.load %x[%i] : memref<?xf32>
    memref.store %0, %x[%c1] : memref<?xf32>
  }
  scf.for %i = %c0 to %c4 step %c1 {
    %0 = memref.load %matrix[%i, %c4] : memref<32x64xf32, strided<[65, 1]>, #workgroup>
    memref.store %0, %x[%i] : memref<?xf32>
  } {kv.unroll = 4 : i64}
  return
}

// CHECK-LABEL: emitc.func @calls(
// CHECK-SAME:    %[[FLOATS:[^:]*]]: !emitc.ptr<f32>
// CHECK:         %[[LANE:.*]] = call_opaque "kv_thread_id_x"() : () -> !emitc.size_t
// CHECK:         call_opaque "kv_block_id_x"() : () -> !emitc.size_t
// CHECK:         call_opaque "kv_block_id_y"() : () -> !emitc.size_t
// CHECK:         call_opaque "kv_block_id_z"() : () -> !emitc.size_t
// CHECK:         call_opaque "kv_barrier"() : () -> ()
// CHECK:         %[[AT:.*]] = subscript %[[FLOATS]][%[[LANE]]]
// CHECK:         %[[OWN:.*]] = load %[[AT]]
// CHECK:         %[[DISTANCE:.*]] = "emitc.constant"() <{value = 16 : i32}>
// CHECK:         %[[OTHER:.*]] = call_opaque "kv_shfl_xor_f32"(%[[OWN]], %[[DISTANCE]]) : (f32, i32) -> f32
// CHECK:         %[[MAX:.*]] = call_opaque "kv_max"(%[[OWN]], %[[OTHER]])
// CHECK:         %[[POWER:.*]] = call_opaque "kv_exp2"(%[[MAX]])
// CHECK:         call_opaque "kv_log2"(%[[POWER]])
func.func @calls(%floats: memref<?xf32>) attributes {kv.threads = 32 : i64} {
  %lane = gpu.thread_id x
  %x = gpu.block_id x
  %y = gpu.block_id y
  %z = gpu.block_id z
  gpu.barrier
  %0 = memref.load %floats[%lane] : memref<?xf32>
  %distance = arith.constant 16 : i32
  %width = arith.constant 32 : i32
  %1, %valid = gpu.shuffle xor %0, %distance, %width : f32
  %2 = arith.maxnumf %0, %1 : f32
  %3 = math.exp2 %2 : f32
  %4 = math.log2 %3 : f32
  memref.store %4, %floats[%x] : memref<?xf32>
  memref.store %4, %floats[%y] : memref<?xf32>
  memref.store %4, %floats[%z] : memref<?xf32>
  return
}

// A bitcast between f32 and a word is a call of the prelude, whose words are unsigned.
// CHECK-LABEL: emitc.func @bits(
// CHECK-SAME:    %[[FLOATS:[^:]*]]: !emitc.ptr<f32>
// CHECK:         %[[FLOAT:.*]] = load %{{.*}} : <f32>
// CHECK:         %[[UNSIGNED:.*]] = call_opaque "kv_f32_to_bits"(%[[FLOAT]]) : (f32) -> ui32
// CHECK:         %[[SIGNED:.*]] = cast %[[UNSIGNED]] : ui32 to i32
// CHECK:         %[[WORD:.*]] = cast %[[SIGNED]] : i32 to ui32
// CHECK:         %[[BACK:.*]] = call_opaque "kv_bits_to_f32"(%[[WORD]]) : (ui32) -> f32
// CHECK:         call_opaque "kv_abs"(%[[BACK]]) : (f32) -> f32
func.func @bits(%floats: memref<?xf32>, %n: index) attributes {kv.threads = 32 : i64} {
  %0 = memref.load %floats[%n] : memref<?xf32>
  %1 = arith.bitcast %0 : f32 to i32
  %2 = arith.bitcast %1 : i32 to f32
  %3 = math.absf %2 : f32
  memref.store %3, %floats[%n] : memref<?xf32>
  return
}

// CHECK-LABEL: emitc.func @indices(
// CHECK-SAME:    %{{[^:]*}}: !emitc.ptr<f32>, %[[N:[^:]*]]: !emitc.size_t)
// CHECK:         %[[FOUR:.*]] = "emitc.constant"() <{value = 4 : index}>
// CHECK:         %[[QUOTIENT:.*]] = div %[[N]], %[[FOUR]] : (!emitc.size_t, !emitc.size_t) -> !emitc.size_t
// CHECK:         %[[REST:.*]] = rem %[[N]], %[[FOUR]] : (!emitc.size_t, !emitc.size_t) -> !emitc.size_t
// CHECK:         subscript %{{.*}}[%[[QUOTIENT]]]
// CHECK:         subscript %{{.*}}[%[[REST]]]
func.func @indices(%floats: memref<?xf32>, %n: index) attributes {kv.threads = 32 : i64} {
  %c4 = arith.constant 4 : index
  %quotient = arith.divui %n, %c4 : index
  %rest = arith.remui %n, %c4 : index
  %0 = memref.load %floats[%quotient] : memref<?xf32>
  memref.store %0, %floats[%rest] : memref<?xf32>
  return
}
