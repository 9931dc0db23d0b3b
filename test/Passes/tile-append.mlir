// The functions over tiles that kv-tile-attention makes of kv.append.
// RUN: kvcc-opt %s -split-input-file -kv-tile-attention -canonicalize -cse | FileCheck %s

// A sequence begins with cleared windows and measured factors; blocks that leave the recent window are gathered from it
// and from the new tokens, divided by the factors and encoded; new tokens are copied into the sink and the ring.
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                   key = <i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>]>,
                   value = <i2, map = asym, group = 32x1, scale = f16>,
                   window = <sink = 32, recent = 96, flush = 32>>
// CHECK-LABEL: func.func @windows(
// CHECK-SAME:    %[[KEYS:[^:]*]]: memref<?xf16>, %[[VALUES:[^:]*]]: memref<?xf16>, %[[PAGES:[^:]*]]: memref<?xi8>, %[[TABLE:[^:]*]]: memref<?xi32>,
// CHECK-SAME:    %[[SLOTS:[^:]*]]: memref<?xi8>, %[[SLOT_IDS:[^:]*]]: memref<?xi32>, %[[LENS:[^:]*]]: memref<?xi32>, %[[NEW:[^:]*]]: memref<?xi32>, %[[GIVEN:[^:]*]]: memref<?xf32>,
// CHECK-SAME:    %[[TABLE_STRIDE:[^:]*]]: index, %[[SEQ_STRIDE:[^:]*]]: index, %[[TOKEN_STRIDE:[^:]*]]: index, %[[HEAD_STRIDE:[^:]*]]: index, %[[ARG_GIVES:[^:]*]]: index,
// CHECK-SAME:    %[[ARG_PHASES:[^:]*]]: index, %[[ARG_PARTS:[^:]*]]: index, %[[ARG_PART:[^:]*]]: index, %[[ARG_HEAD:[^:]*]]: index, %[[ARG_SEQ:[^:]*]]: index) attributes {kv.item_args = 3 : i64}
// CHECK-DAG:     %[[C0:.*]] = arith.constant 0 : index
// CHECK-DAG:     %[[C1:.*]] = arith.constant 1 : index
// CHECK-DAG:     %[[C2:.*]] = arith.constant 2 : index
// CHECK-DAG:     %[[C8:.*]] = arith.constant 8 : index
// CHECK-DAG:     %[[C32:.*]] = arith.constant 32 : index
// CHECK-DAG:     %[[MOST:.*]] = arith.constant 2147483647 : index
// CHECK:         %[[PHASES:.*]] = arith.andi %[[ARG_PHASES]], %[[MOST]]
// CHECK:         %[[SOME_PARTS:.*]] = arith.andi %[[ARG_PARTS]], %[[MOST]]
// CHECK:         %[[PARTS:.*]] = arith.maxsi %[[SOME_PARTS]], %[[C1]]
// CHECK:         %[[PART:.*]] = arith.andi %[[ARG_PART]], %[[MOST]]
// CHECK:         arith.andi %[[ARG_HEAD]], %[[MOST]]
// CHECK:         %[[SEQ:.*]] = arith.andi %[[ARG_SEQ]], %[[MOST]]

// CHECK:         %[[LEN_WORD:.*]] = memref.load %[[LENS]][%[[SEQ]]]
// CHECK:         %[[LEN_INDEX:.*]] = arith.index_cast %[[LEN_WORD]]
// CHECK:         %[[LEN:.*]] = arith.maxsi %[[LEN_INDEX]], %[[C0]]
// CHECK:         %[[NEW_WORD:.*]] = memref.load %[[NEW]][%[[SEQ]]]
// CHECK:         %[[NEW_INDEX:.*]] = arith.index_cast %[[NEW_WORD]]
// CHECK:         %[[COUNT:.*]] = arith.maxsi %[[NEW_INDEX]], %[[C0]]
// CHECK:         %[[BEFORE:.*]] = arith.subi %[[LEN]], %[[COUNT]]
// CHECK:         %[[OLD:.*]] = arith.maxsi %[[BEFORE]], %[[C0]]
// CHECK:         %[[IS_FIRST:.*]] = arith.cmpi eq, %[[OLD]], %[[C0]]

// The first tokens: 8 blocks of windows.
// CHECK:         arith.remui %[[PHASES]],
// CHECK:         scf.if
// CHECK:           scf.for %{{.*}} = %[[C0]] to %[[C8]] step %[[C1]] {
// CHECK:             kv.tile.clear %[[SLOTS]][%{{.*}}] bytes 4096
// CHECK:           kv.tile.measure %[[KEYS]][%{{.*}}] stride %[[TOKEN_STRIDE]] rows %[[LEN]] given %[[GIVEN]]
// CHECK:           scf.for %{{.*}} = %[[C0]] to %[[C8]] step %[[C1]] {
// CHECK:             kv.tile.clear %[[SLOTS]][%{{.*}}] bytes 4096
// CHECK-NOT:       kv.tile.measure
// CHECK:         %[[TILE:.*]] = kv.tile.scratch : vector<32x64xf32>

// The blocks of this part: the first parts have one more.
// CHECK:         %[[SHARE:.*]] = arith.divui %[[BLOCKS:.*]], %[[PARTS]]
// CHECK:         %[[REST:.*]] = arith.remui %[[BLOCKS]], %[[PARTS]]
// CHECK:         %[[BEFORE_PART:.*]] = arith.muli %[[PART]], %[[SHARE]]
// CHECK:         %[[MORE:.*]] = arith.minsi %[[PART]], %[[REST]]
// CHECK:         arith.addi %[[BEFORE_PART]], %[[MORE]]
// CHECK:         scf.for
// CHECK:           %[[WAITING_K:.*]] = kv.tile.load %[[SLOTS]]{{.*}} -> <key, 32x64xf16, packing = <16x1>>
// CHECK:           kv.tile.gather %[[TILE]] oriented window %[[WAITING_K]], %[[KEYS]]{{.*}} factors %[[SLOTS]]
// CHECK:           %[[K:.*]] = kv.tile.load %[[PAGES]]{{.*}} -> <key, 32x64xi3
// CHECK:           %[[KS:.*]] = kv.tile.load %[[PAGES]]{{.*}} -> <key, 32x2xf16
// CHECK:           kv.tile.encode %[[TILE]] oriented into %[[K]] scales %[[KS]] as <i3,
// CHECK:           %[[WAITING_V:.*]] = kv.tile.load %[[SLOTS]]{{.*}} -> <value, 32x64xf16, packing = <16x1>>
// CHECK:           kv.tile.gather %[[TILE]] window %[[WAITING_V]], %[[VALUES]]
// CHECK-NOT:       factors
// CHECK-NOT:       kv.tile.rotate_rows
// CHECK:           kv.tile.encode %[[TILE]] into %{{.*}} scales %{{.*}} zeros %{{.*}} as <i2,

// The sink, then the ring of seven blocks.
// CHECK:         scf.for
// CHECK:           kv.tile.write_rows %[[KEYS]]
// CHECK:           kv.tile.write_rows %[[VALUES]]
// CHECK:         scf.for
// CHECK:           kv.tile.write_rows %[[KEYS]]
// CHECK:           kv.tile.write_rows %[[VALUES]]
func.func @windows(%k: tensor<?x2x?x64xf16>, %v: tensor<?x2x?x64xf16>, %cache: !cache) -> !cache {
  %0 = kv.append %k, %v into %cache {
      schedule = #kv.schedule<heads = 2, page = 128, compute = int16, key = <16x32, lanes = 64>,
                              value = <16x32, lanes = 64>, floats = <16x1>>}
    : tensor<?x2x?x64xf16>, tensor<?x2x?x64xf16> into !cache -> !cache
  return %0 : !cache
}

// -----

// Tokens that are quantized one by one never wait: nothing is gathered from a window, and the block keeps its other rows
// unless it begins. There are no windows to clear or to fill.
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = bf16,
                   key = <i8, map = sym_full, group = 1x32, scale = f16, transforms = [#kv.center, #kv.hadamard<64>], feedback>,
                   value = <i4, map = sym, group = 1x64, scale = f16, transforms = [#kv.token_norm<f16>]>,
                   window = <sink = 0, recent = 0, flush = 1>>
// CHECK-LABEL: func.func @one_by_one(
// CHECK-NOT:     kv.tile.clear
// CHECK:         kv.tile.measure %{{.*}} means %{{.*}} as <i8,
// CHECK:         scf.for
// CHECK:           %[[BEGINS:.*]] = arith.cmpi eq, %[[FROM:.*]], %{{.*}} : index
// CHECK:           %[[END:.*]] = arith.select %[[BEGINS]], %{{.*}}, %[[TO:.*]] : index
// CHECK:           kv.tile.gather %[[TILE:.*]], %{{.*}} rows %[[FROM]] to %[[TO]] end %[[END]] means %{{.*}} : vector<32x64xf32>, memref<?xbf16>
// CHECK:           kv.tile.rotate_rows %[[TILE]] rows %[[FROM]] to %[[END]] size 64
// CHECK:           kv.tile.encode %[[TILE]] rows %[[FROM]] to %[[END]] into %{{.*}} weights %{{.*}} as <i8,
// CHECK:           kv.tile.gather %[[TILE]], %{{.*}} rows %[[FROM]] to %[[TO]] end %[[END]] : vector<32x64xf32>, memref<?xbf16>
// CHECK:           kv.tile.normalize_tokens %[[TILE]], %{{.*}} rows %[[FROM]] to %[[END]]
// CHECK:           kv.tile.encode %[[TILE]] rows %[[FROM]] to %[[END]] into %{{.*}} as <i4,
// CHECK-NOT:     kv.tile.write_rows
// CHECK:         return
func.func @one_by_one(%k: tensor<?x2x?x64xbf16>, %v: tensor<?x2x?x64xbf16>, %cache: !cache) -> !cache {
  %0 = kv.append %k, %v into %cache {
      schedule = #kv.schedule<heads = 2, page = 32, compute = f32, key = <32x32, lanes = 32>,
                              value = <32x32, lanes = 32>, floats = <32x1>>}
    : tensor<?x2x?x64xbf16>, tensor<?x2x?x64xbf16> into !cache -> !cache
  return %0 : !cache
}

// -----

// On a GPU keys and values are work items of their own: of an index, whose half is the head, what is left says which.
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = bf16,
                   key = <i8, map = sym_full, group = 1x64, scale = f16>,
                   value = <i4, map = sym, group = 1x64, scale = f16>,
                   window = <sink = 0, recent = 0, flush = 1>>
module attributes {kv.target = #kv.target<cuda, "sm_90">} {
// CHECK-LABEL: func.func @sides(
// CHECK-SAME:    %[[KEYS:[^:]*]]: memref<?xbf16>, %[[VALUES:[^:]*]]: memref<?xbf16>,
// CHECK-SAME:    %[[ARG_HEAD:[^:]*]]: index, %{{[^:]*}}: index) attributes {kv.item_args = 3 : i64}
// CHECK-DAG:     %[[C0:.*]] = arith.constant 0 : index
// CHECK-DAG:     %[[C1:.*]] = arith.constant 1 : index
// CHECK-DAG:     %[[C2:.*]] = arith.constant 2 : index
// CHECK:         %[[SIDES:.*]] = arith.andi %[[ARG_HEAD]],
// CHECK:         arith.divui %[[SIDES]], %[[C2]]
// CHECK:         scf.for
// CHECK:           %[[SIDE:.*]] = arith.remui %[[SIDES]], %[[C2]]
// CHECK:           %[[IS_KEY:.*]] = arith.cmpi eq, %[[SIDE]], %[[C0]]
// CHECK:           scf.if %[[IS_KEY]] {
// CHECK:             kv.tile.gather %{{.*}}, %[[KEYS]]
// CHECK:           %[[IS_VALUE:.*]] = arith.cmpi eq, %[[SIDE]], %[[C1]]
// CHECK:           scf.if %[[IS_VALUE]] {
// CHECK:             kv.tile.gather %{{.*}}, %[[VALUES]]
func.func @sides(%k: tensor<?x2x?x64xbf16>, %v: tensor<?x2x?x64xbf16>, %cache: !cache) -> !cache {
  %0 = kv.append %k, %v into %cache {
      schedule = #kv.schedule<heads = 2, page = 32, compute = f32, key = <32x32, lanes = 32>,
                              value = <32x32, lanes = 32>, floats = <32x1>>}
    : tensor<?x2x?x64xbf16>, tensor<?x2x?x64xbf16> into !cache -> !cache
  return %0 : !cache
}
}
