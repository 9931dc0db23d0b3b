// What the conversion to EmitC does not know fails, at its location.
// RUN: kvcc-opt %s -kv-convert-gpu-to-emitc -verify-diagnostics -split-input-file

func.func @unknown_operation(%x: memref<?xf32>, %i: index) attributes {kv.threads = 32 : i64} {
  %0 = memref.load %x[%i] : memref<?xf32>
  // expected-error @below {{failed to legalize operation 'math.sin'}}
  %1 = math.sin %0 : f32
  memref.store %1, %x[%i] : memref<?xf32>
  return
}

// -----

// expected-error @below {{failed to legalize operation 'func.func'}}
func.func @no_kernel(%x: memref<?xf32>) {
  return
}

// -----

func.func @tile_operation() attributes {kv.threads = 32 : i64} {
  // expected-error @below {{failed to legalize operation 'kv.tile.init_state'}}
  %state = kv.tile.init_state : !kv.state<1x64>
  return
}

// -----

func.func @shuffle_of_integers(%words: memref<?xi32>, %i: index) attributes {kv.threads = 32 : i64} {
  %width = arith.constant 32 : i32
  %0 = memref.load %words[%i] : memref<?xi32>
  // expected-error @below {{failed to legalize operation 'gpu.shuffle'}}
  %1, %valid = gpu.shuffle xor %0, %width, %width : i32
  memref.store %1, %words[%i] : memref<?xi32>
  return
}

// -----

func.func @shuffle_down(%x: memref<?xf32>, %i: index) attributes {kv.threads = 32 : i64} {
  %width = arith.constant 32 : i32
  %0 = memref.load %x[%i] : memref<?xf32>
  // expected-error @below {{failed to legalize operation 'gpu.shuffle'}}
  %1, %valid = gpu.shuffle down %0, %width, %width : f32
  memref.store %1, %x[%i] : memref<?xf32>
  return
}

// -----

func.func @buffer_without_space(%i: index) attributes {kv.threads = 32 : i64} {
  // expected-error @below {{failed to legalize operation 'memref.alloca'}}
  %buffer = memref.alloca() : memref<32xf32>
  return
}

// -----

func.func @rounding(%x: memref<?xf32>, %i: index) attributes {kv.threads = 32 : i64} {
  %0 = memref.load %x[%i] : memref<?xf32>
  // expected-error @below {{failed to legalize operation 'arith.truncf'}}
  %1 = arith.truncf %0 : f32 to f8E4M3FN
  %2 = arith.extf %1 : f8E4M3FN to f32
  memref.store %2, %x[%i] : memref<?xf32>
  return
}

// -----

func.func @bitcast_of_halves(%x: memref<?xf16>, %n: index) attributes {kv.threads = 32 : i64} {
  %0 = memref.load %x[%n] : memref<?xf16>
  // expected-error @below {{failed to legalize operation 'arith.bitcast'}}
  %1 = arith.bitcast %0 : f16 to i16
  %2 = arith.bitcast %1 : i16 to f16
  memref.store %2, %x[%n] : memref<?xf16>
  return
}

// -----

func.func @narrow_shuffle(%x: memref<?xf32>, %i: index, %n: i32) attributes {kv.threads = 32 : i64} {
  %c16 = arith.constant 16 : i32
  %0 = memref.load %x[%i] : memref<?xf32>
  // expected-error @below {{failed to legalize operation 'gpu.shuffle'}}
  %1, %valid = gpu.shuffle xor %0, %c16, %c16 : f32
  memref.store %1, %x[%i] : memref<?xf32>
  return
}

// -----

func.func @shuffle_of_unknown_width(%x: memref<?xf32>, %i: index, %n: i32) attributes {kv.threads = 32 : i64} {
  %c16 = arith.constant 16 : i32
  %0 = memref.load %x[%i] : memref<?xf32>
  // expected-error @below {{failed to legalize operation 'gpu.shuffle'}}
  %1, %valid = gpu.shuffle xor %0, %c16, %n : f32
  memref.store %1, %x[%i] : memref<?xf32>
  return
}

// -----

func.func @thread_id_y(%x: memref<?xf32>, %v: f32) attributes {kv.threads = 32 : i64} {
  // expected-error @below {{failed to legalize operation 'gpu.thread_id'}}
  %y = gpu.thread_id y
  memref.store %v, %x[%y] : memref<?xf32>
  return
}

// -----

func.func @exp2_f16(%x: memref<?xf16>, %i: index) attributes {kv.threads = 32 : i64} {
  %0 = memref.load %x[%i] : memref<?xf16>
  // expected-error @below {{failed to legalize operation 'math.exp2'}}
  %1 = math.exp2 %0 : f16
  memref.store %1, %x[%i] : memref<?xf16>
  return
}

// -----

func.func @log2_f64(%x: memref<?xf64>, %i: index) attributes {kv.threads = 32 : i64} {
  %0 = memref.load %x[%i] : memref<?xf64>
  // expected-error @below {{failed to legalize operation 'math.log2'}}
  %1 = math.log2 %0 : f64
  memref.store %1, %x[%i] : memref<?xf64>
  return
}

// -----

func.func @unrolled_with_iter_args(%x: memref<?xf32>, %v: f32) attributes {kv.threads = 32 : i64} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c4 = arith.constant 4 : index
  // expected-error @below {{expected kv.unroll on a loop without iter_args, but got 1}}
  %0 = scf.for %i = %c0 to %c4 step %c1 iter_args(%sum = %v) -> f32 {
    %1 = arith.addf %sum, %v : f32
    scf.yield %1 : f32
  } {kv.unroll}
  memref.store %0, %x[%c0] : memref<?xf32>
  return
}

// -----

#workgroup = #gpu.address_space<workgroup>
func.func @columns_first() attributes {kv.threads = 32 : i64} {
  // expected-error @below {{failed to legalize operation 'memref.alloca'}}
  %matrix = memref.alloca() : memref<32x64xf32, strided<[1, 33]>, #workgroup>
  return
}
