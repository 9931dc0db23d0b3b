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
  %1 = arith.truncf %0 : f32 to f16
  %2 = arith.extf %1 : f16 to f32
  memref.store %2, %x[%i] : memref<?xf32>
  return
}
