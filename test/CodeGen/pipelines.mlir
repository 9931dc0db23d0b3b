// Every pipeline runs from level 1 to its level, hands its options down, and prints the same bytes in another
// process.
// RUN: sed 's/TARGET/cpu, "avx512_vnni"/' %s > %t.vnni.mlir
// RUN: sed 's/TARGET/cpu, "generic"/' %s > %t.generic.mlir
// RUN: sed 's/TARGET/cuda, "sm_90"/' %s > %t.cuda.mlir

// RUN: kvcc-opt %t.vnni.mlir -kv-to-cpu-tile | FileCheck %s --check-prefixes=TILE,CPU-TILE
// RUN: kvcc-opt %t.vnni.mlir -kv-to-cpu-tile="compute=f32 page=64" | FileCheck %s --check-prefixes=TILE,OPTIONS
// RUN: kvcc-opt %t.cuda.mlir -kv-to-cuda-tile | FileCheck %s --check-prefixes=TILE,CUDA-TILE

// RUN: kvcc-opt %t.vnni.mlir -kv-to-cpu | FileCheck %s --check-prefix=CPU --implicit-check-not=kv.tile
// RUN: kvcc-opt %t.cuda.mlir -kv-to-gpu | FileCheck %s --check-prefix=GPU --implicit-check-not=kv.tile

// RUN: kvcc-opt %t.vnni.mlir -kv-to-llvm -o %t.vnni.1
// RUN: FileCheck %s --input-file=%t.vnni.1 --check-prefixes=LLVM,VNNI --implicit-check-not=kv.tile \
// RUN:   --implicit-check-not=func.func --implicit-check-not=memref. --implicit-check-not=" vector." \
// RUN:   --implicit-check-not=arith. --implicit-check-not=math. --implicit-check-not=scf. --implicit-check-not=cf. \
// RUN:   --implicit-check-not=unrealized
// RUN: kvcc-opt %t.generic.mlir -kv-to-llvm -o %t.generic.1
// RUN: FileCheck %s --input-file=%t.generic.1 --check-prefix=LLVM --implicit-check-not=x86
// RUN: kvcc-opt %t.cuda.mlir -kv-to-emitc -o %t.emitc.1
// RUN: FileCheck %s --input-file=%t.emitc.1 --check-prefix=EMITC --implicit-check-not=kv.tile \
// RUN:   --implicit-check-not=func.func --implicit-check-not=memref. --implicit-check-not=gpu. \
// RUN:   --implicit-check-not=arith. --implicit-check-not=math. --implicit-check-not=scf. \
// RUN:   --implicit-check-not=unrealized

// RUN: kvcc-opt %t.vnni.mlir -kv-to-llvm -o %t.vnni.2
// RUN: cmp %t.vnni.1 %t.vnni.2
// RUN: kvcc-opt %t.generic.mlir -kv-to-llvm -o %t.generic.2
// RUN: cmp %t.generic.1 %t.generic.2
// RUN: kvcc-opt %t.cuda.mlir -kv-to-emitc -o %t.emitc.2
// RUN: cmp %t.emitc.1 %t.emitc.2

!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                   key = <i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>]>,
                   value = <i2, map = sym, group = 32x1, scale = f16>,
                   window = <sink = 32, recent = 96, flush = 32>>

module attributes {kv.target = #kv.target<TARGET>} {

// TILE-LABEL:      func.func @attend(
// TILE-SAME:         attributes {kv.item_args = 3 : i64
// Of a page of 256 tokens there are eight blocks, of one of 128 four, of one of 64 two.
// CPU-TILE-DAG:      %[[BLOCKS:.*]] = arith.constant 8 : index
// CUDA-TILE-DAG:     %[[BLOCKS:.*]] = arith.constant 4 : i32
// OPTIONS-DAG:       %[[BLOCKS:.*]] = arith.constant 2 : index
// CPU-TILE:          kv.tile.prepare {{.*}} -> vector<4x64xi8>, vector<4x2xf32>, vector<4x2xf32>
// What four heads leave of eight columns serves a second query. Pages are on their way before it is in registers.
// CUDA-TILE:         kv.tile.load_query {{.*}} queries %{{.*}} heads 4 stride 512 : memref<?xf16> -> vector<8x64xf32>
// CUDA-TILE:         %[[RING:.*]] = kv.tile.ring stages 6 bytes 1536
// CUDA-TILE:         kv.tile.fetch {{.*}} to %[[RING]]
// CUDA-TILE:         kv.tile.prepare {{.*}} for i3 factor {{.*}} -> vector<8x64xf16>, vector<8x2xf32>, vector<8x1xf32>
// OPTIONS:           kv.tile.prepare {{.*}} -> vector<4x64xf32>, vector<4x2xf32>{{$}}
// CPU-TILE:          scf.for %[[BLOCK:.*]] = {{.*}} {
// CPU-TILE:            arith.divui %[[BLOCK]], %[[BLOCKS]]
// OPTIONS:           scf.for %[[BLOCK:.*]] = {{.*}} {
// OPTIONS:             arith.divui %[[BLOCK]], %[[BLOCKS]]
// Before a stage is read, the one that is needed last is fetched.
// CUDA-TILE:         scf.for {{.*}} iter_args(
// CUDA-TILE:           kv.tile.await pending 4
// CUDA-TILE:           scf.if
// CUDA-TILE:             kv.tile.fetch {{.*}} to %[[RING]]
// CUDA-TILE:           kv.tile.commit
// CPU-TILE:            kv.tile.load {{.*}} -> <key, 32x64xi3, packing = <16x32, lanes = 64>>
// CUDA-TILE:           kv.tile.load %[[RING]]{{.*}} -> <key, 32x64xi3, packing = <fragments>>
// OPTIONS:             kv.tile.load {{.*}} -> <key, 32x64xi3, packing = <16x32, lanes = 64>>
// TILE:                kv.tile.score {{.*}} placement <accumulator>
// TILE:                kv.tile.accumulate {{.*}} placement <accumulator>
// TILE:              kv.tile.store_result
// TILE-LABEL:      func.func @merge(
// TILE-SAME:         attributes {kv.item_args = 1 : i64}

// CPU-LABEL:       func.func @attend(
// CPU-SAME:          llvm.emit_c_interface
// The query is rounded to bytes, and so are the weights, with codes of so few bits.
// CPU:               llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"
// CPU:               scf.if
// CPU:                 llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"
// CPU:               } else {
// CPU:                 llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"
// CPU-LABEL:       func.func @merge(

// GPU-LABEL:       func.func @attend(
// GPU-SAME:          attributes {kv.blocks = 3 : i64, kv.threads = 128 : i64}
// Constants of the loop are in memory of the block, behind that of its warps. What is computed of lengths has 32 bits.
// GPU:               arith.cmpi eq, %{{.*}}, %c0{{.*}} : index
// GPU-NEXT:          scf.if
// GPU:                 emitc.call_opaque "kv_sts128"
// GPU:               gpu.block_id x
// GPU-NOT:           arith.divui %{{[0-9]+}}, %{{[0-9]+}} : index
// GPU:               arith.divui %{{[0-9]+}}, %{{[0-9]+}} : i32
// GPU-NOT:           arith.divui %{{[0-9]+}}, %{{[0-9]+}} : index
// GPU:               emitc.call_opaque "kv_opaque_word"
// GPU:               emitc.call_opaque "kv_cp_async16"
// GPU:               emitc.call_opaque "kv_mma_m16n8k16_f16"
// GPU:               emitc.call_opaque "kv_movmatrix_trans"
// GPU-LABEL:       func.func @merge(

// LLVM-LABEL:      llvm.func @attend(
// VNNI:              llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"
// LLVM:            llvm.func @_mlir_ciface_attend(
// LLVM-LABEL:      llvm.func @merge(
// LLVM:            llvm.func @_mlir_ciface_merge(

// EMITC-LABEL:     emitc.func @attend(
// EMITC-SAME:        specifiers = ["KV_KERNEL(128, 3)"]
// EMITC-DAG:         call_opaque "kv_block_id_z"
// EMITC-DAG:         call_opaque "kv_dynamic_shared"
// EMITC:             verbatim "KV_NOUNROLL"
// EMITC-NEXT:        for
// EMITC-LABEL:     emitc.func @merge(
// EMITC-SAME:        specifiers = ["KV_KERNEL(32, 8)"]
func.func @attend(%q: tensor<?x8x64xf16>, %cache: !cache) -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  %out, %lse = kv.attend %q, %cache {scale = 0.125}
    : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

func.func @merge(%outs: tensor<?x?x8x64xf32>, %lses: tensor<?x?x8xf32>)
    -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  %out, %lse = kv.merge %outs, %lses
    : tensor<?x?x8x64xf32>, tensor<?x?x8xf32> -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

}
