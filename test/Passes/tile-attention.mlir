// The functions over tiles that kv-tile-attention makes of decided level 1 functions: their signature, the
// walk over pages and windows, where each block is loaded from and what happens to it in which order.
// RUN: kvcc-opt %s -kv-tile-attention -canonicalize -cse | FileCheck %s

// Both sides quantized, keys with a diagonal transform, integer arithmetic: the query is rounded to words, the weights
// to bytes without a sign, or to words where a token dominates its block. Of eight query heads two share a pass, so
// two tiles share a KV head. A block of 32 tokens holds 768 bytes of key codes, 128 of key scales,
// 512 of value codes and 128 of value scales, 1536 in all; a page has four blocks of each of two KV heads.
// A slot has per KV head 256 bytes of factors, one sink block of 8192 and seven recent
// blocks: 96 + 32 tokens, and as many as 96 that may be taken back. With several queries of a sequence, its queries are
// work items that follow each other.
!cache = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                   key = <i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>]>,
                   value = <i2, map = sym, group = 32x1, scale = f16>,
                   window = <sink = 32, recent = 96, flush = 32>>

// CHECK-LABEL: func.func @codes(
// CHECK-SAME:    %[[Q:[^:]*]]: memref<?xf16>, %[[PAGES:[^:]*]]: memref<?xi8>, %[[TABLE:[^:]*]]: memref<?xi32>,
// CHECK-SAME:    %[[SLOTS:[^:]*]]: memref<?xi8>, %[[SLOT_IDS:[^:]*]]: memref<?xi32>, %[[LENS:[^:]*]]: memref<?xi32>,
// CHECK-SAME:    %[[OUT:[^:]*]]: memref<?xf32>, %[[LSE:[^:]*]]: memref<?xf32>, %{{[^:]*}}: memref<?xf32>, %[[PARTS:[^:]*]]: memref<?xf32>, %[[ARRIVALS:[^:]*]]: memref<?xi32>, %[[STRIDE:[^:]*]]: index, %[[ARG_BATCH:[^:]*]]: index, %[[ARG_QUERIES:[^:]*]]: index, %[[ARG_SPLITS:[^:]*]]: index, %[[ARG_SPLIT_BLOCKS:[^:]*]]: index,
// CHECK-SAME:    %[[ARG_TILE:[^:]*]]: index, %[[ARG_SPLIT:[^:]*]]: index, %[[ARG_SEQ:[^:]*]]: index) attributes {kv.item_args = 3 : i64}
// CHECK-DAG:     %[[C0:.*]] = arith.constant 0 : index
// CHECK-DAG:     %[[C1:.*]] = arith.constant 1 : index
// CHECK-DAG:     %[[C2:.*]] = arith.constant 2 : index
// CHECK-DAG:     %[[C4:.*]] = arith.constant 4 : index
// CHECK-DAG:     %[[C8:.*]] = arith.constant 8 : index
// CHECK-DAG:     %[[C31:.*]] = arith.constant 31 : index
// CHECK-DAG:     %[[C32:.*]] = arith.constant 32 : index
// CHECK-DAG:     %[[C64:.*]] = arith.constant 64 : index
// CHECK-DAG:     %[[C128:.*]] = arith.constant 128 : index
// CHECK-DAG:     %[[KEY_SCALES:.*]] = arith.constant 768 : index
// CHECK-DAG:     %[[VALUES:.*]] = arith.constant 896 : index
// CHECK-DAG:     %[[VALUE_SCALES:.*]] = arith.constant 1408 : index
// CHECK-DAG:     %[[BLOCK:.*]] = arith.constant 1536 : index
// CHECK-DAG:     %[[PAGE_HEAD:.*]] = arith.constant 6144 : index
// CHECK-DAG:     %[[PAGE:.*]] = arith.constant 12288 : index
// CHECK-DAG:     %[[SINK:.*]] = arith.constant 256 : index
// CHECK-DAG:     %[[WINDOW_VALUES:.*]] = arith.constant 4096 : index
// CHECK-DAG:     %[[WINDOW_BLOCK:.*]] = arith.constant 8192 : index
// CHECK-DAG:     %[[RECENT:.*]] = arith.constant 8448 : index
// CHECK-DAG:     %[[C7:.*]] = arith.constant 7 : index
// CHECK-DAG:     %[[MOST:.*]] = arith.constant 2147483647 : index
// CHECK-DAG:     %[[SLOT_HEAD:.*]] = arith.constant 65792 : index
// CHECK-DAG:     %[[SLOT:.*]] = arith.constant 131584 : index

// Counts are less than 2^31, and there is a query and a split.
// CHECK:         %[[BATCH:.*]] = arith.andi %[[ARG_BATCH]], %[[MOST]]
// CHECK:         %[[SOME_QUERIES:.*]] = arith.andi %[[ARG_QUERIES]], %[[MOST]]
// CHECK:         %[[QUERIES:.*]] = arith.maxsi %[[SOME_QUERIES]], %[[C1]]
// CHECK:         %[[SOME_SPLITS:.*]] = arith.andi %[[ARG_SPLITS]], %[[MOST]]
// CHECK:         %[[SPLITS:.*]] = arith.maxsi %[[SOME_SPLITS]], %[[C1]]
// CHECK:         %[[SPLIT_BLOCKS:.*]] = arith.andi %[[ARG_SPLIT_BLOCKS]], %[[MOST]]
// CHECK:         %[[TILES:.*]] = arith.andi %[[ARG_TILE]], %[[MOST]]
// CHECK:         %[[SPLIT:.*]] = arith.andi %[[ARG_SPLIT]], %[[MOST]]
// CHECK:         %[[SEQUENCE:.*]] = arith.andi %[[ARG_SEQ]], %[[MOST]]

// The work item: first query head, KV head, which query of the sequence, slot.
// CHECK:         %[[TILE:.*]] = arith.remui %[[TILES]], %[[C4]]
// CHECK:         %[[FIRST_HEAD:.*]] = arith.muli %[[TILE]], %[[C2]]
// CHECK:         %[[KV_HEAD:.*]] = arith.divui %[[TILE]], %[[C2]]
// CHECK:         %[[NUMBER:.*]] = arith.divui %[[TILES]], %[[C4]]
// CHECK:         %[[SLOT_WORD:.*]] = memref.load %[[SLOT_IDS]][%[[SEQUENCE]]]
// CHECK:         %[[SLOT_ID:.*]] = arith.index_cast %[[SLOT_WORD]]
// CHECK:         %[[SLOT_BYTES:.*]] = arith.muli %[[SLOT_ID]], %[[SLOT]]
// CHECK:         %[[HEAD_BYTES:.*]] = arith.muli %[[KV_HEAD]], %[[SLOT_HEAD]]
// CHECK:         %[[SLOT_AT:.*]] = arith.addi %[[SLOT_BYTES]], %[[HEAD_BYTES]]

// Blocks of the sequence, pages, then sinks, then the recent ones, and the share of this split.
// The query sees all tokens but the last %LATER; where tokens lie depends on all of them.
// CHECK:         %[[LEN_WORD:.*]] = memref.load %[[LENS]][%[[SEQUENCE]]]
// CHECK:         %[[LEN_INDEX:.*]] = arith.index_cast %[[LEN_WORD]]
// CHECK:         %[[ALL:.*]] = arith.maxsi %[[LEN_INDEX]], %[[C0]]
// CHECK:         %[[FROM_THIS_ON:.*]] = arith.subi %[[QUERIES]], %[[NUMBER]]
// CHECK:         %[[QUERIES_LEFT:.*]] = arith.maxsi %[[FROM_THIS_ON]], %[[C0]]
// CHECK:         %[[AFTER_THIS:.*]] = arith.subi %[[QUERIES_LEFT]], %[[C1]]
// CHECK:         %[[LATER:.*]] = arith.maxsi %[[AFTER_THIS]], %[[C0]]
// CHECK:         %[[SEEN:.*]] = arith.subi %[[ALL]], %[[LATER]]
// CHECK:         %[[LEN:.*]] = arith.maxsi %[[SEEN]], %[[C0]]
// CHECK:         %[[DIFFERENCE:.*]] = arith.subi %[[ALL]], %[[C128]]
// CHECK:         %[[OUTSIDE:.*]] = arith.maxsi %[[DIFFERENCE]], %[[C0]]
// CHECK:         %[[FLUSHES:.*]] = arith.divui %[[OUTSIDE]], %[[C32]]
// CHECK:         %[[PAGE_TOKENS:.*]] = arith.muli %[[FLUSHES]], %[[C32]]
// CHECK:         %[[PAGE_UP:.*]] = arith.addi %[[PAGE_TOKENS]], %[[C31]]
// CHECK:         %[[PAGE_BLOCKS:.*]] = arith.divui %[[PAGE_UP]], %[[C32]]
// CHECK:         %[[SINK_TOKENS:.*]] = arith.minsi %[[LEN]], %[[C32]]
// CHECK:         %[[SINK_UP:.*]] = arith.addi %[[SINK_TOKENS]], %[[C31]]
// CHECK:         %[[SINK_BLOCKS:.*]] = arith.divui %[[SINK_UP]], %[[C32]]
// CHECK:         %[[WITHOUT_SINK:.*]] = arith.subi %[[LEN]], %[[SINK_TOKENS]]
// CHECK:         %[[OUTSIDE_PAGES:.*]] = arith.subi %[[WITHOUT_SINK]], %[[PAGE_TOKENS]]
// CHECK:         %[[RECENT_TOKENS:.*]] = arith.maxsi %[[OUTSIDE_PAGES]], %[[C0]]
// CHECK:         %[[EQUAL_SHARE:.*]] = arith.divui %{{.*}}, %[[SPLITS]]
// CHECK:         %[[IS_GIVEN:.*]] = arith.cmpi ne, %[[SPLIT_BLOCKS]], %[[C0]]
// CHECK:         %[[SHARE:.*]] = arith.select %[[IS_GIVEN]], %[[SPLIT_BLOCKS]], %[[EQUAL_SHARE]]
// CHECK:         %[[BEFORE:.*]] = arith.muli %[[SPLIT]], %[[SHARE]]
// CHECK:         %[[FIRST:.*]] = arith.minsi %[[BEFORE]], %[[TOTAL:.*]] :
// CHECK:         %[[AFTER:.*]] = arith.addi %[[FIRST]], %[[SHARE]]
// CHECK:         %[[LAST:.*]] = arith.minsi %[[AFTER]], %[[TOTAL]]

// The query, scaled by 0.125 * log2(e); only pages see it through the factors of the keys.
// CHECK:         %[[STATE:.*]] = kv.tile.init_state : <2x64>
// CHECK:         %[[QUERIES_BEFORE:.*]] = arith.muli %[[SEQUENCE]], %[[QUERIES]]
// CHECK:         %[[QUERY_INDEX:.*]] = arith.addi %[[QUERIES_BEFORE]], %[[NUMBER]]
// CHECK:         %[[QUERY_COUNT:.*]] = arith.andi %[[QUERY_INDEX]], %[[MOST]]
// CHECK:         %[[ROWS:.*]] = arith.muli %[[QUERY_COUNT]], %[[C8]]
// CHECK:         %[[ROW:.*]] = arith.addi %[[ROWS]], %[[FIRST_HEAD]]
// CHECK:         %[[PAGES_END:.*]] = arith.minsi %[[LAST]], %[[PAGE_BLOCKS]]
// CHECK:         %[[QUERY_AT:.*]] = arith.muli %[[ROW]], %[[C64]]
// CHECK:         %[[QUERY:.*]] = kv.tile.load_query %[[Q]][%[[QUERY_AT]]] scale 0.180336878
// CHECK:         %[[FACTORED:.*]] = kv.tile.scale_channels %[[QUERY]], %[[SLOTS]][%[[SLOT_AT]]]
// CHECK:         %[[VALUES_Q:[^,]*]], %[[SUMS_Q:[^,]*]], %[[SCALES_Q:.*]] = kv.tile.prepare %[[FACTORED]] group 32 : vector<2x64xf32> -> vector<2x64xi16>, vector<2x2xf32>, vector<2x2xf32>

// Pages.
// CHECK:         scf.for %[[I:.*]] = %[[FIRST]] to %[[PAGES_END]] step %[[C1]] {
// CHECK:           %[[TABLE_ROW:.*]] = arith.muli %[[SEQUENCE]], %[[STRIDE]]
// CHECK:           %[[PAGE_OF_SEQ:.*]] = arith.divui %[[I]], %[[C4]]
// CHECK:           %[[ENTRY:.*]] = arith.addi %[[TABLE_ROW]], %[[PAGE_OF_SEQ]]
// CHECK:           %[[PAGE_WORD:.*]] = memref.load %[[TABLE]][%[[ENTRY]]]
// CHECK:           %[[PAGE_ID:.*]] = arith.index_cast %[[PAGE_WORD]]
// CHECK:           %[[PAGE_BYTES:.*]] = arith.muli %[[PAGE_ID]], %[[PAGE]]
// CHECK:           %[[PAGE_HEAD_BYTES:.*]] = arith.muli %[[KV_HEAD]], %[[PAGE_HEAD]]
// CHECK:           %[[BLOCK_OF_PAGE:.*]] = arith.remui %[[I]], %[[C4]]
// CHECK:           %[[BLOCK_BYTES:.*]] = arith.muli %[[BLOCK_OF_PAGE]], %[[BLOCK]]
// CHECK:           %[[IN_PAGE:.*]] = arith.addi %[[PAGE_HEAD_BYTES]], %[[BLOCK_BYTES]]
// CHECK:           %[[AT:.*]] = arith.addi %[[PAGE_BYTES]], %[[IN_PAGE]]
// CHECK:           %[[K:.*]] = kv.tile.load %[[PAGES]][%[[AT]]] : memref<?xi8> -> <key, 32x64xi3, packing = <16x32, lanes = 64>>
// CHECK:           %[[KEY_SCALES_AT:.*]] = arith.addi %[[AT]], %[[KEY_SCALES]]
// CHECK:           %[[KS:.*]] = kv.tile.load %[[PAGES]][%[[KEY_SCALES_AT]]] : memref<?xi8> -> <key, 32x2xf16, packing = <16x1>>
// CHECK:           %[[LOGITS:.*]] = kv.tile.score %[[VALUES_Q]], %[[K]] scales %[[KS]] sums %[[SUMS_Q]] query_scales %[[SCALES_Q]] placement <accumulator>
// CHECK:           %[[W:.*]] = kv.tile.softmax_step %[[STATE]], %[[LOGITS]]
// CHECK:           %[[VALUES_AT:.*]] = arith.addi %[[AT]], %[[VALUES]]
// CHECK:           %[[V:.*]] = kv.tile.load %[[PAGES]][%[[VALUES_AT]]] : memref<?xi8> -> <value, 32x64xi2, packing = <32x4>>
// CHECK:           %[[VALUE_SCALES_AT:.*]] = arith.addi %[[AT]], %[[VALUE_SCALES]]
// CHECK:           %[[VS:.*]] = kv.tile.load %[[PAGES]][%[[VALUE_SCALES_AT]]] : memref<?xi8> -> <value, 1x64xf16, packing = <32x1>>
// CHECK:           %[[IS_DOMINATED:.*]] = kv.tile.is_dominated %[[STATE]], %[[W]] share 1.250000e-01
// CHECK-NEXT:      scf.if %[[IS_DOMINATED]] {
// CHECK-NEXT:        %[[WORDS_W:[^,]*]], %[[WORD_SUMS_W:[^,]*]], %[[WORD_SCALES_W:.*]] = kv.tile.prepare %[[W]] group 32 : vector<2x32xf32> -> vector<2x32xi16>, vector<2x1xf32>, vector<2x1xf32>
// CHECK-NEXT:        kv.tile.accumulate %[[STATE]], %[[WORDS_W]], %[[V]] scales %[[VS]] sums %[[WORD_SUMS_W]] weight_scales %[[WORD_SCALES_W]] placement <result>
// CHECK-NEXT:      } else {
// CHECK-NEXT:        %[[BYTES_W:[^,]*]], %[[BYTE_SUMS_W:[^,]*]], %[[BYTE_SCALES_W:.*]] = kv.tile.prepare %[[W]] group 32 : vector<2x32xf32> -> vector<2x32xui8>, vector<2x1xf32>, vector<2x1xf32>
// CHECK-NEXT:        kv.tile.accumulate %[[STATE]], %[[BYTES_W]], %[[V]] scales %[[VS]] sums %[[BYTE_SUMS_W]] weight_scales %[[BYTE_SCALES_W]] placement <result>
// CHECK-NEXT:      }
// CHECK-NEXT:    }

// Windows: sink blocks, then a ring of recent blocks; the query without the factors.
// CHECK:         %[[BEFORE_WINDOW:.*]] = arith.subi %[[FIRST]], %[[PAGE_BLOCKS]]
// CHECK:         %[[WINDOW_FIRST:.*]] = arith.maxsi %[[BEFORE_WINDOW]], %[[C0]]
// CHECK:         %[[AFTER_WINDOW:.*]] = arith.subi %[[LAST]], %[[PAGE_BLOCKS]]
// CHECK:         %[[WINDOW_LAST:.*]] = arith.maxsi %[[AFTER_WINDOW]], %[[C0]]
// CHECK:         scf.for %[[J:.*]] = %[[WINDOW_FIRST]] to %[[WINDOW_LAST]] step %[[C1]] {
// CHECK:           %[[IS_SINK:.*]] = arith.cmpi slt, %[[J]], %[[SINK_BLOCKS]]
// CHECK:           %[[RECENT_J:.*]] = arith.subi %[[J]], %[[SINK_BLOCKS]]
// CHECK:           %[[SINCE_SINK:.*]] = arith.addi %[[PAGE_BLOCKS]], %[[RECENT_J]]
// CHECK:           %[[RING:.*]] = arith.remui %[[SINCE_SINK]], %[[C7]]
// CHECK:           %[[SINK_BYTES:.*]] = arith.muli %[[J]], %[[WINDOW_BLOCK]]
// CHECK:           %[[SINK_AT:.*]] = arith.addi %[[SINK_BYTES]], %[[SINK]]
// CHECK:           %[[RECENT_BYTES:.*]] = arith.muli %[[RING]], %[[WINDOW_BLOCK]]
// CHECK:           %[[RECENT_AT:.*]] = arith.addi %[[RECENT_BYTES]], %[[RECENT]]
// CHECK:           %[[IN_SLOT:.*]] = arith.select %[[IS_SINK]], %[[SINK_AT]], %[[RECENT_AT]]
// CHECK:           %[[WINDOW_AT:.*]] = arith.addi %[[SLOT_AT]], %[[IN_SLOT]]
// CHECK:           %[[RECENT_START:.*]] = arith.addi %[[SINK_TOKENS]], %[[PAGE_TOKENS]]
// CHECK:           %[[SINK_FIRST:.*]] = arith.muli %[[J]], %[[C32]]
// CHECK:           %[[RECENT_BEFORE:.*]] = arith.muli %[[RECENT_J]], %[[C32]]
// CHECK:           %[[RECENT_FIRST:.*]] = arith.addi %[[RECENT_START]], %[[RECENT_BEFORE]]
// CHECK:           %[[FIRST_TOKEN:.*]] = arith.select %[[IS_SINK]], %[[SINK_FIRST]], %[[RECENT_FIRST]]
// CHECK:           %[[RECENT_END:.*]] = arith.addi %[[RECENT_START]], %[[RECENT_TOKENS]]
// CHECK:           %[[VALID:.*]] = arith.select %[[IS_SINK]], %[[SINK_TOKENS]], %[[RECENT_END]]
// CHECK:           %[[WINDOW_K:.*]] = kv.tile.load %[[SLOTS]][%[[WINDOW_AT]]] : memref<?xi8> -> <key, 32x64xf16, packing = <16x1>>
// CHECK:           %[[WINDOW_LOGITS:.*]] = kv.tile.score %[[QUERY]], %[[WINDOW_K]] placement <none>
// CHECK:           %[[MASKED:.*]] = kv.tile.mask %[[WINDOW_LOGITS]] at %[[FIRST_TOKEN]] valid %[[VALID]]
// CHECK:           %[[WINDOW_W:.*]] = kv.tile.softmax_step %[[STATE]], %[[MASKED]]
// CHECK:           %[[WINDOW_VALUES_AT:.*]] = arith.addi %[[WINDOW_AT]], %[[WINDOW_VALUES]]
// CHECK:           %[[WINDOW_V:.*]] = kv.tile.load %[[SLOTS]][%[[WINDOW_VALUES_AT]]] : memref<?xi8> -> <value, 32x64xf16, packing = <16x1>>
// CHECK:           kv.tile.accumulate %[[STATE]], %[[WINDOW_W]], %[[WINDOW_V]] placement <none>
// CHECK-NEXT:    }

// Parts lie as [split][sequence][head]; the last to arrive merges them.
// CHECK:         %[[IS_PART:.*]] = arith.cmpi ne, %[[SPLITS]], %[[C1]]
// CHECK:         %[[ALL_ROWS:.*]] = arith.muli %[[BATCH]], %[[C8]]
// CHECK:         %[[OUTS:.*]] = arith.muli %[[SPLITS]], %[[ALL_ROWS]]
// CHECK:         %[[LSES:.*]] = arith.muli %[[OUTS]], %[[C64]]
// CHECK:         %[[SPLIT_ROWS:.*]] = arith.muli %[[SPLIT]], %[[ALL_ROWS]]
// CHECK:         %[[PART_ROW:.*]] = arith.addi %[[SPLIT_ROWS]], %[[ROW]]
// CHECK:         %[[PART_AT:.*]] = arith.muli %[[PART_ROW]], %[[C64]]
// CHECK:         %[[PART_LSE:.*]] = arith.addi %[[LSES]], %[[PART_ROW]]
// CHECK:         kv.tile.store_result %[[STATE]], %[[OUT]][%[[QUERY_AT]]], %[[LSE]][%[[ROW]]] part if %[[IS_PART]] into %[[PARTS]][%[[PART_AT]]], [%[[PART_LSE]]]
// CHECK:         scf.if %[[IS_PART]] {
// CHECK:           %[[TILES_OF_SEQ:.*]] = arith.muli %[[QUERIES]], %[[C4]]
// CHECK:           %[[SEQ_TILES:.*]] = arith.muli %[[SEQUENCE]], %[[TILES_OF_SEQ]]
// CHECK:           %[[ITEM:.*]] = arith.addi %[[SEQ_TILES]], %[[TILES]]
// CHECK:           %[[IS_LAST:.*]] = kv.tile.arrive %[[ARRIVALS]][%[[ITEM]]] of %[[SPLITS]] : memref<?xi32>
// CHECK:           scf.if %[[IS_LAST]] {
// CHECK:             %[[FIRST_LSE:.*]] = arith.addi %[[LSES]], %[[ROW]]
// CHECK:             kv.tile.merge %[[PARTS]][%[[QUERY_AT]]], %[[PARTS]][%[[FIRST_LSE]]] count %[[SPLITS]] rows %[[ALL_ROWS]] into %[[OUT]][%[[QUERY_AT]]], %[[LSE]][%[[ROW]]] heads 2 x 64
func.func @codes(%q: tensor<?x8x64xf16>, %cache: !cache) -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<accumulator>, value_scales = #kv.placement<result>,
      schedule = #kv.schedule<heads = 2, page = 128, compute = int16, key = <16x32, lanes = 64>, value = <32x4>,
                              floats = <16x1>>}
    : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// Float arithmetic rounds nothing and brings no scales of its own; values that are numbers need no
// preparation and no look at the weights. Keys have no transform.
!mixed = !kv.cache<kv_heads = 2, head_dim = 64, dtype = bf16,
                   key = <i4, map = sym, group = 1x64, scale = f16>, value = <f16>,
                   window = <sink = 0, recent = 32, flush = 32>>
// CHECK-LABEL: func.func @codes_f32(
// CHECK-SAME:    %{{[^:]*}}: memref<?xbf16>,
// CHECK-NOT:     kv.tile.scale_channels
// CHECK:         %[[QUERY:.*]] = kv.tile.load_query
// CHECK-NOT:     kv.tile.scale_channels
// CHECK:         %[[VALUES_Q:[^,]*]], %[[SUMS_Q:.*]] = kv.tile.prepare %[[QUERY]] group 64 : vector<4x64xf32> -> vector<4x64xf32>, vector<4x1xf32>
// CHECK:         scf.for
// CHECK:           %[[K:.*]] = kv.tile.load {{.*}} -> <key, 32x64xi4, packing = <32x32, lanes = 32>>
// CHECK:           %[[KS:.*]] = kv.tile.load {{.*}} -> <key, 32x1xf16, packing = <32x1>>
// CHECK:           %[[LOGITS:.*]] = kv.tile.score %[[VALUES_Q]], %[[K]] scales %[[KS]] sums %[[SUMS_Q]] placement <result>
// CHECK:           %[[W:.*]] = kv.tile.softmax_step %{{.*}}, %[[LOGITS]]
// CHECK-NOT:       kv.tile.prepare
// CHECK-NOT:       kv.tile.is_dominated
// CHECK:           %[[V:.*]] = kv.tile.load {{.*}} -> <value, 32x64xf16, packing = <32x1>>
// CHECK:           kv.tile.accumulate %{{.*}}, %[[W]], %[[V]] placement <none>
// CHECK:         scf.for
// CHECK:           kv.tile.load {{.*}} -> <key, 32x64xbf16, packing = <32x1>>
// CHECK:           kv.tile.load {{.*}} -> <value, 32x64xbf16, packing = <32x1>>
func.func @codes_f32(%q: tensor<?x8x64xbf16>, %cache: !mixed) -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<result>, value_scales = #kv.placement<none>,
      schedule = #kv.schedule<heads = 4, page = 32, compute = f32, key = <32x32, lanes = 32>,
                              value = <32x32, lanes = 32>, floats = <32x1>>}
    : tensor<?x8x64xbf16>, !mixed -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// A cache of numbers: nothing is prepared, also where the schedule speaks of integers.
!plain = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                   window = <sink = 0, recent = 32, flush = 32>>
// CHECK-LABEL: func.func @numbers(
// CHECK-NOT:     kv.tile.prepare
// CHECK:         %[[QUERY:.*]] = kv.tile.load_query
// CHECK-NOT:     kv.tile.prepare
// CHECK:         scf.for
// CHECK:           %[[K:.*]] = kv.tile.load {{.*}} -> <key, 32x64xf16, packing = <16x1>>
// CHECK:           %[[LOGITS:.*]] = kv.tile.score %[[QUERY]], %[[K]] placement <none>
// CHECK:           %[[W:.*]] = kv.tile.softmax_step %{{.*}}, %[[LOGITS]]
// CHECK-NOT:       kv.tile.prepare
// CHECK:           %[[V:.*]] = kv.tile.load {{.*}} -> <value, 32x64xf16, packing = <16x1>>
// CHECK:           kv.tile.accumulate %{{.*}}, %[[W]], %[[V]] placement <none>
// CHECK:         scf.for
func.func @numbers(%q: tensor<?x8x64xf16>, %cache: !plain) -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<none>, value_scales = #kv.placement<none>,
      schedule = #kv.schedule<heads = 4, page = 128, compute = int16, key = <16x32, lanes = 64>,
                              value = <16x32, lanes = 64>, floats = <16x1>>}
    : tensor<?x8x64xf16>, !plain -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// Arithmetic in bytes rounds the query to bytes too, with a sign; a dominated block still takes words. The block after the
// next one is asked for, or the last one again: its keys and their scales beside the keys, the rest beside the values.
// Where the block after it stands is made known before.
// CHECK-LABEL: func.func @bytes(
// CHECK-SAME:    %{{[^:]*}}: memref<?xf16>, %[[PAGES:[^:]*]]: memref<?xi8>, %{{[^:]*}}: memref<?xi32>, %[[SLOTS:[^:]*]]: memref<?xi8>,
// CHECK-DAG:     %[[C1:.*]] = arith.constant 1 : index
// CHECK-DAG:     %[[C2:.*]] = arith.constant 2 : index
// CHECK-DAG:     %[[C3:.*]] = arith.constant 3 : index
// CHECK-DAG:     %[[C4:.*]] = arith.constant 4 : index
// CHECK-DAG:     %[[VALUES:.*]] = arith.constant 896 : index
// CHECK:         kv.tile.prepare {{.*}} group 32 : vector<2x64xf32> -> vector<2x64xi8>, vector<2x2xf32>, vector<2x2xf32>
// CHECK:         scf.for %[[I:.*]] = %{{.*}} to %[[END:.*]] step
// CHECK:           %[[NEXT:.*]] = arith.addi %[[I]], %[[C2]]
// CHECK:           %[[LAST:.*]] = arith.subi %[[END]], %[[C1]]
// CHECK:           %[[THERE:.*]] = arith.minsi %[[NEXT]], %[[LAST]]
// CHECK:           %[[OF_PAGE:.*]] = arith.divui %[[THERE]], %[[C4]]
// CHECK:           arith.remui %[[THERE]], %[[C4]]
// CHECK:           arith.addi
// CHECK:           %[[AHEAD:.*]] = arith.addi
// CHECK:           %[[LATER:.*]] = arith.addi %[[I]], %[[C3]]
// CHECK:           arith.minsi %[[LATER]], %[[LAST]]
// CHECK:           memref.load
// CHECK:           kv.tile.prefetch %[[PAGES]][%{{.*}}] bytes 1536 :
// CHECK:           kv.tile.score {{.*}} ahead %[[PAGES]][%[[AHEAD]]] bytes 896 : vector<2x64xi8>, <key, 32x64xi3,
// CHECK:           %[[VALUES_AHEAD:.*]] = arith.addi %[[AHEAD]], %[[VALUES]]
// CHECK:           scf.if
// CHECK:             kv.tile.accumulate {{.*}} ahead %[[PAGES]][%[[VALUES_AHEAD]]] bytes 640 : <2x64>, vector<2x32xi16>, <value, 32x64xi2,
// CHECK:           } else {
// CHECK:             kv.tile.accumulate {{.*}} ahead %[[PAGES]][%[[VALUES_AHEAD]]] bytes 640 : <2x64>, vector<2x32xui8>, <value, 32x64xi2,
// Of windows, which are larger, it is the next one.
// CHECK:         scf.for %[[W:.*]] = %{{.*}} to %[[WINDOWS:.*]] step
// CHECK:           %[[NEXT_WINDOW:.*]] = arith.addi %[[W]], %[[C1]]
// CHECK:           %[[LAST_WINDOW:.*]] = arith.subi %[[WINDOWS]], %[[C1]]
// CHECK:           arith.minsi %[[NEXT_WINDOW]], %[[LAST_WINDOW]]
// CHECK:           kv.tile.score {{.*}} ahead %[[SLOTS]][%{{.*}}] bytes 4096 : vector<2x64xf32>, <key, 32x64xf16,
// CHECK:           kv.tile.accumulate {{.*}} ahead %[[SLOTS]][%{{.*}}] bytes 4096 : <2x64>, vector<2x32xf32>, <value, 32x64xf16,
func.func @bytes(%q: tensor<?x8x64xf16>, %cache: !cache) -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<accumulator>, value_scales = #kv.placement<result>,
      schedule = #kv.schedule<heads = 2, page = 128, compute = int8, key = <16x32, lanes = 64>,
                              value = <16x32, lanes = 64>, floats = <16x1>, ahead = 2>}
    : tensor<?x8x64xf16>, !cache -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// Beside values of more than four bits the error of bytes would show: weights are words in every block. How many
// registers sums take goes to the lowering with the function.
!fine = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                  key = <i3, map = sym, group = 1x32, scale = f16>,
                  value = <i5, map = sym, group = 32x1, scale = f16>,
                  window = <sink = 0, recent = 32, flush = 32>>
// CHECK-LABEL: func.func @words(
// CHECK-SAME:    attributes {kv.accumulators = 4 : i64, kv.item_args = 3 : i64}
// CHECK-NOT:     kv.tile.is_dominated
// CHECK:         kv.tile.accumulate {{.*}} : <2x64>, vector<2x32xi16>, <value, 32x64xi5,
// CHECK-NEXT:    }
func.func @words(%q: tensor<?x8x64xf16>, %cache: !fine) -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<accumulator>, value_scales = #kv.placement<result>,
      schedule = #kv.schedule<heads = 2, page = 128, compute = int16, key = <16x32, lanes = 64>,
                              value = <16x32, lanes = 64>, floats = <16x1>, accumulators = 4>}
    : tensor<?x8x64xf16>, !fine -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// Scales that every reduced index has of its own go into the small operand: the query once per block, for the
// one group of keys that a block holds, and the weights twice, for two groups of channels. Zero points, folded
// too, are added to the logits and to the output; codes count from the middle, 2, as codes without zero points do.
!kivi = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                  key = <i2, map = asym, group = 32x1, scale = f16>,
                  value = <i2, map = asym, group = 1x32, scale = f16>,
                  window = <sink = 0, recent = 128, flush = 32>>
// CHECK-LABEL: func.func @operand(
// CHECK:         %[[STATE:.*]] = kv.tile.init_state : <2x64>
// CHECK:         %[[QUERY:.*]] = kv.tile.load_query
// CHECK-NOT:     kv.tile.prepare
// CHECK:         scf.for
// CHECK:           %[[K:.*]] = kv.tile.load {{.*}} -> <key, 32x64xi2, packing = <16x32, lanes = 64>>
// CHECK:           %[[KS:.*]] = kv.tile.load {{.*}} -> <key, 1x64xf16, packing = <1x1>>
// CHECK:           %[[KZ:.*]] = kv.tile.load {{.*}} -> <key, 1x64xf16, packing = <1x1>>
// CHECK:           %[[FOLDED_Q:[^,]*]], %[[OFFSETS_Q:.*]] = kv.tile.fold %[[QUERY]], %[[KS]] zeros %[[KZ]] middle 2 : {{.*}} -> vector<2x64xf32> offsets vector<2x1xf32>
// CHECK:           %[[VALUES_Q:[^,]*]], %[[SUMS_Q:[^,]*]], %[[SCALES_Q:.*]] = kv.tile.prepare %[[FOLDED_Q]] group 64 : vector<2x64xf32> -> vector<2x64xi16>, vector<2x1xf32>, vector<2x1xf32>
// CHECK:           %[[LOGITS:.*]] = kv.tile.score %[[VALUES_Q]], %[[K]] scales %[[KS]] sums %[[SUMS_Q]] query_scales %[[SCALES_Q]] offsets %[[OFFSETS_Q]] placement <operand>
// CHECK:           %[[W:.*]] = kv.tile.softmax_step %[[STATE]], %[[LOGITS]]
// CHECK:           %[[V:.*]] = kv.tile.load {{.*}} -> <value, 32x64xi2, packing = <16x32, lanes = 64>>
// CHECK:           %[[VS:.*]] = kv.tile.load {{.*}} -> <value, 32x2xf16, packing = <1x1>>
// CHECK:           %[[VZ:.*]] = kv.tile.load {{.*}} -> <value, 32x2xf16, packing = <1x1>>
// CHECK:           %[[FOLDED_W:[^,]*]], %[[OFFSETS_W:.*]] = kv.tile.fold %[[W]], %[[VS]] zeros %[[VZ]] middle 2 : {{.*}} -> vector<4x32xf32> offsets vector<4x1xf32>
// CHECK:           %[[IS_DOMINATED:.*]] = kv.tile.is_dominated %[[STATE]], %[[W]] share
// CHECK-NEXT:      scf.if %[[IS_DOMINATED]] {
// CHECK-NEXT:        %[[WORDS_W:[^,]*]], %[[WORD_SUMS_W:[^,]*]], %[[WORD_SCALES_W:.*]] = kv.tile.prepare %[[FOLDED_W]] group 32 : vector<4x32xf32> -> vector<4x32xi16>, vector<4x1xf32>, vector<4x1xf32>
// CHECK-NEXT:        kv.tile.accumulate %[[STATE]], %[[WORDS_W]], %[[V]] scales %[[VS]] sums %[[WORD_SUMS_W]] weight_scales %[[WORD_SCALES_W]] offsets %[[OFFSETS_W]] placement <operand>
// CHECK-NEXT:      } else {
// CHECK-NEXT:        %[[BYTES_W:[^,]*]], %[[BYTE_SUMS_W:[^,]*]], %[[BYTE_SCALES_W:.*]] = kv.tile.prepare %[[FOLDED_W]] group 32 : vector<4x32xf32> -> vector<4x32xui8>, vector<4x1xf32>, vector<4x1xf32>
// CHECK-NEXT:        kv.tile.accumulate %[[STATE]], %[[BYTES_W]], %[[V]] scales %[[VS]] sums %[[BYTE_SUMS_W]] weight_scales %[[BYTE_SCALES_W]] offsets %[[OFFSETS_W]] placement <operand>
// CHECK-NEXT:      }
// CHECK-NEXT:    }
// CHECK-NOT:     kv.tile.restore
func.func @operand(%q: tensor<?x4x64xf16>, %cache: !kivi) -> (tensor<?x4x64xf32>, tensor<?x4xf32>) {
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<operand>, value_scales = #kv.placement<operand>,
      schedule = #kv.schedule<heads = 2, page = 128, compute = int16, key = <16x32, lanes = 64>,
                              value = <16x32, lanes = 64>, floats = <16x1>>}
    : tensor<?x4x64xf16>, !kivi -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return %out, %lse : tensor<?x4x64xf32>, tensor<?x4xf32>
}

// Scales with signs make folded weights negative: bytes have a sign then, and a bit less for the magnitude, so that
// words are taken sooner.
!signed = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>,
                    value = <i4, map = sym_signed, group = 1x64, scale = f16>,
                    window = <sink = 0, recent = 128, flush = 32>>
// CHECK-LABEL: func.func @signed(
// CHECK:         %[[W:.*]] = kv.tile.softmax_step
// CHECK:         %[[FOLDED_W:.*]] = kv.tile.fold %[[W]], %{{.*}} : {{.*}} -> vector<2x32xf32>{{$}}
// CHECK:         kv.tile.is_dominated %{{.*}}, %[[W]] share 6.250000e-02
// CHECK-NEXT:    scf.if
// CHECK:           kv.tile.prepare %[[FOLDED_W]] group 32 : {{.*}} -> vector<2x32xi16>,
// CHECK:         } else {
// CHECK:           kv.tile.prepare %[[FOLDED_W]] group 32 : {{.*}} -> vector<2x32xi8>,
func.func @signed(%q: tensor<?x4x64xf16>, %cache: !signed) -> (tensor<?x4x64xf32>, tensor<?x4xf32>) {
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<none>, value_scales = #kv.placement<operand>,
      schedule = #kv.schedule<heads = 2, page = 128, compute = int16, key = <16x32, lanes = 64>,
                              value = <16x32, lanes = 64>, floats = <16x1>>}
    : tensor<?x4x64xf16>, !signed -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return %out, %lse : tensor<?x4x64xf32>, tensor<?x4xf32>
}

// Zero points of groups along the reduction stay with the product; of a hybrid group only where it is marked.
!hybrid = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                    key = <i4, map = asym, group = 1x32, scale = bf16>,
                    value = <i2, map = hybrid, group = 32x1, scale = f16>,
                    window = <sink = 0, recent = 32, flush = 32>>
// CHECK-LABEL: func.func @zeros(
// CHECK-NOT:     kv.tile.fold
// CHECK:         scf.for
// CHECK-NOT:       kv.tile.fold
// CHECK:           %[[KS:.*]] = kv.tile.load {{.*}} -> <key, 32x2xbf16, packing = <16x1>>
// CHECK:           %[[KZ:.*]] = kv.tile.load {{.*}} -> <key, 32x2xbf16, packing = <16x1>>
// CHECK:           kv.tile.score %{{[^ ]*}}, %{{[^ ]*}} scales %[[KS]] zeros %[[KZ]] sums
// CHECK-NOT:       kv.tile.fold
// CHECK:           %[[VS:.*]] = kv.tile.load {{.*}} -> <value, 1x64xf16, packing = <16x1>>
// CHECK:           %[[VZ:.*]] = kv.tile.load {{.*}} -> <value, 1x64xf16, packing = <16x1>>
// CHECK:           kv.tile.accumulate %{{.*}}, %{{.*}}, %{{.*}} scales %[[VS]] zeros %[[VZ]] hybrid sums
// CHECK-NEXT:    }
func.func @zeros(%q: tensor<?x4x64xf16>, %cache: !hybrid) -> (tensor<?x4x64xf32>, tensor<?x4xf32>) {
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<accumulator>, value_scales = #kv.placement<accumulator>,
      schedule = #kv.schedule<heads = 2, page = 128, compute = f32, key = <16x32, lanes = 64>,
                              value = <16x32, lanes = 64>, floats = <16x1>>}
    : tensor<?x4x64xf16>, !hybrid -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return %out, %lse : tensor<?x4x64xf32>, tensor<?x4xf32>
}

// Transforms: of the keys into the query, in the order in which they were applied, and what centring took from
// every logit into the state; of the values out of the state, where the quantized tokens end. A slot
// begins with four vectors of 256 bytes: key factors and means, value factors and means.
!transformed = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                         key = <i4, map = sym_signed, group = 1x64, scale = f16,
                                transforms = [#kv.diag<rms, strength = 0.2>, #kv.center, #kv.hadamard<64>]>,
                         value = <i4, map = sym_signed, group = 32x1, scale = f16,
                                  transforms = [#kv.diag<sqrt_max>, #kv.center, #kv.hadamard<32>]>,
                         window = <sink = 32, recent = 96, flush = 32>>
// CHECK-LABEL: func.func @transforms(
// CHECK-SAME:    %{{[^:]*}}: memref<?xf16>, %{{[^:]*}}: memref<?xi8>, %{{[^:]*}}: memref<?xi32>, %[[SLOTS:[^:]*]]: memref<?xi8>,
// CHECK-DAG:     %[[KEY_MEANS:.*]] = arith.constant 256 : index
// CHECK-DAG:     %[[VALUE_FACTORS:.*]] = arith.constant 512 : index
// CHECK-DAG:     %[[VALUE_MEANS:.*]] = arith.constant 768 : index
// CHECK-DAG:     %[[SINK:.*]] = arith.constant 1024 : index
// CHECK:         %[[HEAD_BYTES:.*]] = arith.muli
// CHECK:         %[[STATE:.*]] = kv.tile.init_state : <2x64>
// CHECK:         %[[QUERY:.*]] = kv.tile.load_query
// CHECK:         %[[FACTORED:.*]] = kv.tile.scale_channels %[[QUERY]], %[[SLOTS]][%[[SLOT_AT:.*]]] :
// CHECK:         %[[KEY_MEANS_AT:.*]] = arith.addi %[[SLOT_AT]], %[[KEY_MEANS]]
// CHECK:         %[[MISSING:.*]] = kv.tile.dot_channels %[[FACTORED]], %[[SLOTS]][%[[KEY_MEANS_AT]]] : vector<2x64xf32>, memref<?xi8> -> vector<2x1xf32>
// CHECK:         %[[ROTATED:.*]] = kv.tile.rotate %[[FACTORED]] size 64
// CHECK:         %[[VALUES_Q:[^,]*]], %{{.*}} = kv.tile.prepare %[[ROTATED]] group 64
// CHECK:         scf.for
// CHECK:           kv.tile.score %[[VALUES_Q]]
// CHECK:           kv.tile.accumulate
// CHECK-NEXT:    }
// CHECK-NEXT:    kv.tile.shift_state %[[STATE]], %[[MISSING]] : <2x64>, vector<2x1xf32>
// CHECK-DAG:     %[[VALUE_MEANS_AT:.*]] = arith.addi %[[SLOT_AT]], %[[VALUE_MEANS]]
// CHECK-DAG:     %[[VALUE_FACTORS_AT:.*]] = arith.addi %[[SLOT_AT]], %[[VALUE_FACTORS]]
// CHECK:         kv.tile.restore %[[STATE]] size 32 means %[[SLOTS]][%[[VALUE_MEANS_AT]]] factors %[[SLOTS]][%[[VALUE_FACTORS_AT]]]
// CHECK:         scf.for
// CHECK:           kv.tile.score %[[QUERY]], %{{.*}} placement <none>
// CHECK:         kv.tile.store_result %[[STATE]]
func.func @transforms(%q: tensor<?x4x64xf16>, %cache: !transformed) -> (tensor<?x4x64xf32>, tensor<?x4xf32>) {
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<result>, value_scales = #kv.placement<accumulator>,
      schedule = #kv.schedule<heads = 2, page = 128, compute = f32, key = <16x32, lanes = 64>,
                              value = <16x32, lanes = 64>, floats = <16x1>>}
    : tensor<?x4x64xf16>, !transformed -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return %out, %lse : tensor<?x4x64xf32>, tensor<?x4xf32>
}

// Factors that the projections hold already are applied nowhere, and have no place in a slot.
!in_weights = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                        key = <i4, map = sym, group = 1x32, scale = f16,
                               transforms = [#kv.diag<given, tied, weights>]>,
                        value = <f16, transforms = [#kv.hadamard<64>]>,
                        window = <sink = 0, recent = 32, flush = 32>>
// CHECK-LABEL: func.func @in_weights(
// CHECK-NOT:     kv.tile.scale_channels
// CHECK-NOT:     kv.tile.shift_state
// CHECK:         kv.tile.restore %{{.*}} size 64 : <2x64>{{$}}
// CHECK-NOT:     kv.tile.scale_channels
// CHECK:         return
func.func @in_weights(%q: tensor<?x4x64xf16>, %cache: !in_weights) -> (tensor<?x4x64xf32>, tensor<?x4xf32>) {
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<accumulator>, value_scales = #kv.placement<none>,
      schedule = #kv.schedule<heads = 2, page = 128, compute = f32, key = <16x32, lanes = 64>,
                              value = <16x32, lanes = 64>, floats = <16x1>>}
    : tensor<?x4x64xf16>, !in_weights -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return %out, %lse : tensor<?x4x64xf32>, tensor<?x4xf32>
}

// Token norms multiply the logits of their keys and the weights of their values; which token dominates is said by the
// weights without them.
!normed = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                    key = <i4, map = sym, group = 1x64, scale = f16, transforms = [#kv.token_norm<f16>]>,
                    value = <i4, map = sym, group = 32x1, scale = f16, transforms = [#kv.token_norm<f8E8M0FNU>]>,
                    window = <sink = 0, recent = 32, flush = 32>>
// CHECK-LABEL: func.func @token_norms(
// CHECK:         scf.for
// CHECK:           %[[KN:.*]] = kv.tile.load {{.*}} -> <value, 32x1xf16, packing = <1x1>>
// CHECK:           %[[LOGITS:.*]] = kv.tile.score
// CHECK:           %[[NORMED:.*]] = kv.tile.fold %[[LOGITS]], %[[KN]] : {{.*}} -> vector<2x32xf32>{{$}}
// CHECK:           %[[W:.*]] = kv.tile.softmax_step %{{.*}}, %[[NORMED]]
// CHECK:           %[[VN:.*]] = kv.tile.load {{.*}} -> <value, 32x1xf8E8M0FNU, packing = <1x1>>
// CHECK:           %[[NORMED_W:.*]] = kv.tile.fold %[[W]], %[[VN]] : {{.*}} -> vector<2x32xf32>{{$}}
// CHECK:           kv.tile.is_dominated %{{.*}}, %[[W]] share
// CHECK:             %[[WORDS_W:[^,]*]], %{{.*}} = kv.tile.prepare %[[NORMED_W]] group 32
// CHECK:             kv.tile.accumulate %{{.*}}, %[[WORDS_W]],
// CHECK:           } else {
// CHECK:             %[[BYTES_W:[^,]*]], %{{.*}} = kv.tile.prepare %[[NORMED_W]] group 32
// CHECK:             kv.tile.accumulate %{{.*}}, %[[BYTES_W]],
// CHECK-NEXT:      }
// CHECK-NEXT:    }
// CHECK-NOT:     kv.tile.restore
// CHECK:         return
func.func @token_norms(%q: tensor<?x4x64xf16>, %cache: !normed) -> (tensor<?x4x64xf32>, tensor<?x4xf32>) {
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<result>, value_scales = #kv.placement<accumulator>,
      schedule = #kv.schedule<heads = 2, page = 128, compute = int16, key = <16x32, lanes = 64>,
                              value = <16x32, lanes = 64>, floats = <16x1>>}
    : tensor<?x4x64xf16>, !normed -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return %out, %lse : tensor<?x4x64xf32>, tensor<?x4xf32>
}

// Tokens that are quantized one by one leave the last block of the pages partial, so its logits are masked.
!every_token = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                         key = <f8E4M3FN, map = sym, group = 1x64, scale = f16>,
                         value = <f8E4M3FN, map = sym, group = 1x64, scale = f16>,
                         window = <sink = 0, recent = 0, flush = 1>>
// CHECK-LABEL: func.func @every_token(
// CHECK-SAME:    %{{[^:]*}}: memref<?xf16>, %{{[^:]*}}: memref<?xi8>, %{{[^:]*}}: memref<?xi32>, %{{[^:]*}}: memref<?xi8>, %{{[^:]*}}: memref<?xi32>, %[[LENS:[^:]*]]: memref<?xi32>,
// CHECK-DAG:     %[[C31:.*]] = arith.constant 31 : index
// CHECK-DAG:     %[[C32:.*]] = arith.constant 32 : index
// CHECK:         %[[LEN_WORD:.*]] = memref.load %[[LENS]]
// CHECK:         %[[LEN_INDEX:.*]] = arith.index_cast %[[LEN_WORD]]
// CHECK:         %[[ALL:.*]] = arith.maxsi %[[LEN_INDEX]],
// CHECK:         %[[LEFT:.*]] = arith.subi %[[ALL]],
// CHECK:         %[[LEN:.*]] = arith.maxsi %[[LEFT]],
// CHECK:         %[[PAGE_ALL:.*]] = arith.maxsi %[[ALL]],
// CHECK:         %[[SEEN:.*]] = arith.maxsi %[[LEN]],
// CHECK:         %[[PAGE_TOKENS:.*]] = arith.minsi %[[PAGE_ALL]], %[[SEEN]]
// CHECK:         %[[PAGE_UP:.*]] = arith.addi %[[PAGE_TOKENS]], %[[C31]]
// CHECK:         arith.divui %[[PAGE_UP]], %[[C32]]
// CHECK:         scf.for %[[I:.*]] = {{.*}} {
// CHECK:           %[[K:.*]] = kv.tile.load {{.*}} -> <key, 32x64xf8E4M3FN, packing = <16x32, lanes = 64>>
// CHECK:           %[[LOGITS:.*]] = kv.tile.score
// CHECK:           %[[BEFORE:.*]] = arith.muli %[[I]], %[[C32]]
// CHECK:           %[[MASKED:.*]] = kv.tile.mask %[[LOGITS]] at %[[BEFORE]] valid %[[PAGE_TOKENS]]
// CHECK:           kv.tile.softmax_step %{{.*}}, %[[MASKED]]
func.func @every_token(%q: tensor<?x4x64xf16>, %cache: !every_token) -> (tensor<?x4x64xf32>, tensor<?x4xf32>) {
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<result>, value_scales = #kv.placement<operand>,
      schedule = #kv.schedule<heads = 2, page = 128, compute = f32, key = <16x32, lanes = 64>,
                              value = <16x32, lanes = 64>, floats = <16x1>>}
    : tensor<?x4x64xf16>, !every_token -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return %out, %lse : tensor<?x4x64xf32>, tensor<?x4xf32>
}

// Where nothing is recent, a query's block may hold tokens of the queries after it: it is masked, too.
!no_window = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
                       window = <sink = 0, recent = 0, flush = 32>>
// CHECK-LABEL: func.func @no_window(
// CHECK:         scf.for
// CHECK:           %[[LOGITS:.*]] = kv.tile.score
// CHECK:           kv.tile.mask %[[LOGITS]]
// CHECK:         scf.for
func.func @no_window(%q: tensor<?x?x4x64xf16>, %cache: !no_window) -> (tensor<?x?x4x64xf32>, tensor<?x?x4xf32>) {
  %out, %lse = kv.attend %q, %cache {
      scale = 0.125, key_scales = #kv.placement<none>, value_scales = #kv.placement<none>,
      schedule = #kv.schedule<heads = 2, page = 128, compute = f32, key = <16x32, lanes = 64>,
                              value = <16x32, lanes = 64>, floats = <16x1>>}
    : tensor<?x?x4x64xf16>, !no_window -> tensor<?x?x4x64xf32>, tensor<?x?x4xf32>
  return %out, %lse : tensor<?x?x4x64xf32>, tensor<?x?x4xf32>
}

// One row of the result per work item, over all parts.
// A query that does not reach all tokens skips the blocks before its first one and masks what is before it in that block.
// Bounded logits have what centred keys lack already when they are bounded. Sink logits join in the first split.
!slides = !kv.cache<kv_heads = 2, head_dim = 64, dtype = f16,
                    key = <i4, map = sym, group = 1x64, scale = f16, transforms = [#kv.center]>,
                    value = <i4, map = sym, group = 32x1, scale = f16>,
                    window = <sink = 32, recent = 32, flush = 32>>
// CHECK-LABEL: func.func @slides(
// CHECK-DAG:     %[[C0:.*]] = arith.constant 0 : index
// CHECK-DAG:     %[[C32:.*]] = arith.constant 32 : index
// CHECK-DAG:     %[[C100:.*]] = arith.constant 100 : index
// CHECK:         %[[BEFORE:.*]] = arith.subi %[[TOKENS:.*]], %[[C100]]
// CHECK:         %[[FIRST:.*]] = arith.maxsi %[[BEFORE]], %[[C0]]
// CHECK:         %[[AFTER_SINK:.*]] = arith.subi %[[FIRST]], %[[C32]]
// CHECK:         %[[FIRST_PAGED:.*]] = arith.maxsi %[[AFTER_SINK]], %[[C0]]
// CHECK:         %[[BLOCK:.*]] = arith.divui %[[FIRST_PAGED]], %[[C32]]
// CHECK:         arith.minsi %[[BLOCK]],
// CHECK:         %[[MISSING:.*]] = kv.tile.dot_channels
// CHECK:         scf.for
// CHECK:           %[[LOGITS:.*]] = kv.tile.score
// CHECK:           %[[BOUNDED:.*]] = kv.tile.softcap %[[LOGITS]] plus %[[MISSING]] cap 2.885
// CHECK:           kv.tile.mask %[[BOUNDED]] at %{{.*}} from %[[FIRST]]
// CHECK-NOT:     kv.tile.shift_state
// CHECK:         scf.for
// CHECK:           %[[BOUNDED:.*]] = kv.tile.softcap %{{[^ ]*}} cap 2.885
// CHECK:           kv.tile.mask %[[BOUNDED]] at %{{.*}} valid %{{.*}} from %[[FIRST]]
// CHECK:         scf.if
// CHECK-NEXT:      kv.tile.join_sinks
// CHECK-NEXT:    }
// CHECK:         kv.tile.store_result
func.func @slides(%q: tensor<?x4x64xf16>, %cache: !slides, %sinks: tensor<4xf32>) -> (tensor<?x4x64xf32>, tensor<?x4xf32>) {
  %out, %lse = kv.attend %q, %cache sinks %sinks {
      scale = 0.125, softcap = 20.0, reach = #kv.reach<sliding>, window_tokens = 100,
      key_scales = #kv.placement<result>, value_scales = #kv.placement<accumulator>,
      schedule = #kv.schedule<heads = 2, page = 128, compute = f32, key = <16x32, lanes = 64>,
                              value = <16x32, lanes = 64>, floats = <16x1>>}
    : tensor<?x4x64xf16>, !slides sinks tensor<4xf32> -> tensor<?x4x64xf32>, tensor<?x4xf32>
  return %out, %lse : tensor<?x4x64xf32>, tensor<?x4xf32>
}

// CHECK-LABEL: func.func @merge(
// CHECK-SAME:    %[[OUTS:[^:]*]]: memref<?xf32>, %[[LSES:[^:]*]]: memref<?xf32>, %[[OUT:[^:]*]]: memref<?xf32>, %[[LSE:[^:]*]]: memref<?xf32>,
// CHECK-SAME:    %[[ROWS:[^:]*]]: index, %[[PARTS:[^:]*]]: index, %[[ROW:[^:]*]]: index) attributes {kv.item_args = 1 : i64}
// CHECK:         %[[C64:.*]] = arith.constant 64 : index
// CHECK:         %[[AT:.*]] = arith.muli %[[ROW]], %[[C64]]
// CHECK:         kv.tile.merge %[[OUTS]][%[[AT]]], %[[LSES]][%[[ROW]]] count %[[PARTS]] rows %[[ROWS]] into %[[OUT]][%[[AT]]], %[[LSE]][%[[ROW]]] heads 1 x 64
// CHECK-NEXT:    return
func.func @merge(%outs: tensor<?x?x8x64xf32>, %lses: tensor<?x?x8xf32>)
    -> (tensor<?x8x64xf32>, tensor<?x8xf32>) {
  %out, %lse = kv.merge %outs, %lses
    : tensor<?x?x8x64xf32>, tensor<?x?x8xf32> -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// Visibility and attributes of a function stay.
// CHECK-LABEL: func.func private @private_merge(
// CHECK-SAME:    attributes {kv.item_args = 1 : i64, note = "kept"}
func.func private @private_merge(%outs: tensor<?x?x8x64xf32>, %lses: tensor<?x?x8xf32>)
    -> (tensor<?x8x64xf32>, tensor<?x8xf32>) attributes {note = "kept"} {
  %out, %lse = kv.merge %outs, %lses
    : tensor<?x?x8x64xf32>, tensor<?x?x8xf32> -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %out, %lse : tensor<?x8x64xf32>, tensor<?x8xf32>
}

// Declarations and functions that are over tiles already stay.
// CHECK-LABEL: func.func private @declaration(index)
func.func private @declaration(index)
// CHECK-LABEL: func.func @tiled(
// CHECK-SAME:    index) attributes {kv.item_args = 1 : i64}
// CHECK-NEXT:    return
func.func @tiled(%item: index) attributes {kv.item_args = 1 : i64} {
  return
}
