// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The passes of kvcc, in alphabetical order. Pipelines.cpp holds the order they run in.
#ifndef KVCC_PASSES_PASSES_TD
#define KVCC_PASSES_PASSES_TD

include "mlir/Pass/PassBase.td"

def ChooseLayoutPass : Pass<"kv-choose-layout", "::mlir::ModuleOp"> {
  let summary = "decides bits, map, group and axis of the keys and values of each kv.layer";
  let description = [{
    Reads `kv.objective` and `kv.target` from the module. A layer's candidates are the formats of its `measured`, or, as
    a prior, those of recipe T. All layers are assigned together: least damage, time or bytes (`prefer`) within the
    budget or the memory, with at most `specs` distinct pairs of layouts. What only the modes decide is left open, and
    `reasons` get what the runner-up would have cost. Layers that see no more tokens than their windows keep are left
    to kv-choose-windows. Fails if nothing fits the objective.

    ```mlir
    kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}
    // becomes
    kv.layer 0 {..., key = #kv.quant<i4, map = sym_full, group = 1x64, scale = f16>, value = #kv.quant<i3, ...>,
                open = ["key", "value"], reasons = {layout = "..."}}
    ```
  }];
}

def ChooseModesPass : Pass<"kv-choose-modes", "::mlir::ModuleOp"> {
  let summary = "decides the map, the transforms and the writer of each open kv.layer";
  let description = [{
    For the sides in `open`: the candidate of the side's layout, that is of the same bytes, with the least damage, summed
    over all layers of equal layout and shape, so that these share a kernel: symmetric, signed, asymmetric or hybrid map,
    diagonal, centring, rotation, search, feedback.

    ```mlir
    kv.layer 0 {..., key = #kv.quant<i4, map = sym_full, group = 1x64, scale = f16>, open = ["key"]}
    // becomes
    kv.layer 0 {..., key = #kv.quant<i4, map = sym_signed, group = 1x64, scale = f16, transforms = [#kv.center,
                #kv.hadamard<64>], feedback>, reasons = {"key modes" = "..."}}
    ```
  }];
}

def ChooseWindowsPass : Pass<"kv-choose-windows", "::mlir::ModuleOp"> {
  let summary = "decides which tokens of each kv.layer stay in full precision";
  let description = [{
    Sinks, recent tokens and flush block for layers without `window`. A sliding or chunked layer that sees no more tokens
    than its windows keep stays unquantized, whatever its formats were.

    ```mlir
    kv.layer 0 {..., key = #kv.quant<i4, ...>, value = #kv.quant<i3, ...>}
    // becomes
    kv.layer 0 {..., window = #kv.window<sink = 32, recent = 96, flush = 32>}
    ```
  }];
}

def ConvertGpuToEmitcPass : Pass<"kv-convert-gpu-to-emitc", "::mlir::ModuleOp"> {
  let summary = "gpu, memref, scf, arith and math to EmitC that prints as header-free CUDA C++";
  let description = [{
    Thread and block ids, barriers, shuffles, exp2 and log2 become calls of the device prelude
    (`kv_thread_id_x`, ...); one-dimensional dynamic memrefs become pointers, static ones arrays, those in
    workgroup memory `KV_SHARED` arrays; loops marked `kv.unroll` get `KV_UNROLL`. Fails, with a
    location, on anything it does not know. Bit-exact.

    ```mlir
    %0 = gpu.thread_id x
    // becomes
    %0 = emitc.call_opaque "kv_thread_id_x"() : () -> !emitc.size_t
    ```
  }];
  let dependentDialects = ["::mlir::emitc::EmitCDialect"];
}

def ConvertTileToCpuPass : Pass<"kv-convert-tile-to-cpu", "::mlir::ModuleOp"> {
  let summary = "tile operations to vector, arith, math, scf and memref for a CPU";
  let description = [{
    Tiles become scratch buffers on the stack, blocks stay in cache memory and are unpacked by the
    operation that consumes them. Products with codes use the instructions of the module's target, a level of
    `passes/CpuLevel.cpp`: `avx512_bf16`, `avx512_vnni`, `avx512`, `avx_vnni`, `avx2`, `neon_dotprod` or `generic`. Rounds where
    the tile operations say so (`kv.tile.prepare`); sums are f32.

    ```mlir
    %0 = kv.tile.load %pages[%off] : memref<?xi8> -> !kv.block<key, 32x64xi3, packing = <16x32, lanes = 64>>
    // becomes
    %0 = memref.view %pages[%off][] : memref<?xi8> to memref<768xi8>
    ```
  }];
  let dependentDialects = ["::mlir::LLVM::LLVMDialect", "::mlir::math::MathDialect",
                           "::mlir::vector::VectorDialect"];
}

def ConvertTileToGpuPass : Pass<"kv-convert-tile-to-gpu", "::mlir::ModuleOp"> {
  let summary = "tile operations to gpu, arith, math, scf, memref and calls of the prelude";
  let description = [{
    Functions with `kv.warps` are lowered to fragments of tensor cores (codegen/cuda/README.md), for so many warps per
    work item; writers for four warps, a lane per thread; the others for one warp, in f32:
    a lane owns a token of a score tile and channels lane, lane + 32, ... of the output. Tiles live in
    workgroup memory, the state in private memory. The work item's indices become block ids x, y, z.
    Sums are f32; codes are converted to f32 exactly.

    ```mlir
    func.func @attend(..., %tile: index, %split: index, %seq: index)
    // becomes
    func.func @attend(...) attributes {kv.threads = 32 : i64} { %tile = gpu.block_id x ... }
    ```
  }];
  let dependentDialects = ["::mlir::emitc::EmitCDialect", "::mlir::gpu::GPUDialect", "::mlir::math::MathDialect"];
}

def PlaceScalesPass : Pass<"kv-place-scales", "::mlir::ModuleOp"> {
  let summary = "decides where each scale is multiplied in";
  let description = [{
    One rule over the shape of the group, for keys and values alike. Let r be the extent of the group
    along the reduced dimension (channels for keys, tokens for values):
    - r covers the whole reduction: `result`, the finished logit or output (K per token);
    - r > 1: `accumulator`, the finished partial sum of the group (InnerQ);
    - r = 1: the scale differs inside the reduction but is shared along the free dimension: `operand`,
      folded into the query or the weights (KIVI).
    Numbers without codes have no scale: `none`. The choice changes rounding only. A placement that is
    there already stays.

    ```mlir
    %0:2 = kv.attend %q, %c {scale = 0.125} : ...
    // becomes
    %0:2 = kv.attend %q, %c {key_scales = #kv.placement<accumulator>, scale = 0.125,
                             value_scales = #kv.placement<accumulator>} : ...
    ```
  }];
}

def PlanSchedulePass : Pass<"kv-plan-schedule", "::mlir::ModuleOp"> {
  let summary = "decides query heads per pass, page size, arithmetic and packings for the target";
  let description = [{
    Reads `kv.target` from the module and writes `schedule` on each `kv.attend` that has none, and on each `kv.append` that of the
    kv.attend over the same cache. Packing and page size
    change nothing that is computed; what arithmetic rounds is said at `#kv.schedule`. On a CPU level with products of bytes
    `auto` is `int8` where codes of at most three bits hide it, or four where the query is rotated, else `bf16` where a
    level has it and scales fold into the weights or the query is bf16 as it is, else `int16`; it is
    `f16` on a GPU with a model of 16 bits, and `f32` elsewhere.

    ```mlir
    %0:2 = kv.attend %q, %c {scale = 0.125} : ...
    // becomes
    %0:2 = kv.attend %q, %c {scale = 0.125, schedule = #kv.schedule<heads = 4, page = 128,
        compute = int16, key = <16x32, lanes = 64>, value = <16x32, lanes = 64>, floats = <16x1>, ahead = 2>} : ...
    ```
  }];
  let options = [
    Option<"compute", "compute", "std::string", "\"auto\"",
           "arithmetic of products with codes: auto, f32, f16, bf16, int16 or int8">,
    Option<"page", "page", "int64_t", "0", "quantized tokens per page; 0 lets the pass choose">,
    Option<"heads", "heads", "int64_t", "0", "query heads that share a pass over the codes; 0 lets the pass choose">,
    Option<"accumulators", "accumulators", "int64_t", "0",
           "vector registers for sums of products with codes; 0 is what the level says">,
    Option<"warps", "warps", "int64_t", "0", "warps that share a work item on tensor cores; 0 lets the pass choose">,
    Option<"stages", "stages", "int64_t", "-1", "blocks that a warp has on their way; -1 lets the pass choose">,
    Option<"page_bytes", "page-bytes", "int64_t", "0", "bytes of a page; 0: as many as it needs">,
    Option<"queries", "queries", "int64_t", "0",
           "queries of a step, which share a pass on tensor cores where they fit; 0: those that cost nothing">,
    Option<"ahead", "ahead", "int64_t", "-1", "blocks that a CPU asks for early; -1 lets the pass choose">];
}

def TileAttentionPass : Pass<"kv-tile-attention", "::mlir::ModuleOp"> {
  let summary = "level 1 to level 2: a function per kernel that walks over blocks of 32 tokens";
  let description = [{
    A function that returns the results of one `kv.attend`, `kv.append` or `kv.merge` becomes a function over one work
    item, its last arguments. Follows `key_scales`, `value_scales` and `schedule`; bit-exact. Of kv.attend an item is a tile
    of query heads (of the first queries of the sequence, then of the next), a split of the tokens and a sequence; of
    kv.append a part of the blocks, a KV head and a sequence, with a cuda target keys or values of a head alone.

    ```mlir
    func.func @attend(%q: tensor<?x4x64xf16>, %cache: !kv.cache<...>) -> (...)
    // becomes
    func.func @attend(%q: memref<?xf16>, %pages: memref<?xi8>, %table: memref<?xi32>,
                      %slots: memref<?xi8>, %slot_ids: memref<?xi32>, %lens: memref<?xi32>,
                      %out: memref<?xf32>, %lse: memref<?xf32>, %sinks: memref<?xf32>, %parts: memref<?xf32>,
                      %arrivals: memref<?xi32>, %table_stride: index, %batch: index, %queries: index,
                      %splits: index, %split_blocks: index, %tile: index, %split: index, %seq: index)
        attributes {kv.item_args = 3 : i64}
    ```
  }];
}

#endif
