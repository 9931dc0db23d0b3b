// What attributes refuse: every numbered constraint, then what they cannot parse.
// RUN: kvcc-opt %s -verify-diagnostics -split-input-file

//===-- #kv.quant ---------------------------------------------------------------------------===//

// expected-error @below {{expected element i2 to i8, f8E4M3FN, f4E2M1FN, f16, bf16 or f32, but got 'i1'}}
func.func private @quant_c1_narrow() attributes {a = #kv.quant<i1, map = sym, group = 1x32, scale = f16>}

// -----

// expected-error @below {{expected element i2 to i8, f8E4M3FN, f4E2M1FN, f16, bf16 or f32, but got 'i9'}}
func.func private @quant_c1_wide() attributes {a = #kv.quant<i9, map = sym, group = 1x32, scale = f16>}

// -----

// expected-error @below {{expected element i2 to i8, f8E4M3FN, f4E2M1FN, f16, bf16 or f32, but got 'si4'}}
func.func private @quant_c1_signed() attributes {a = #kv.quant<si4, map = sym, group = 1x32, scale = f16>}

// -----

// expected-error @below {{expected element i2 to i8, f8E4M3FN, f4E2M1FN, f16, bf16 or f32, but got 'f64'}}
func.func private @quant_c1_float() attributes {a = #kv.quant<f64>}

// -----

// expected-error @below {{expected map, group and scale with element 'i3', but got no map}}
func.func private @quant_c2_map() attributes {a = #kv.quant<i3, group = 1x32, scale = f16>}

// -----

// expected-error @below {{expected map, group and scale with element 'i3', but got no group}}
func.func private @quant_c2_group() attributes {a = #kv.quant<i3, map = sym, scale = f16>}

// -----

// expected-error @below {{expected map, group and scale with element 'i3', but got no scale}}
func.func private @quant_c2_scale() attributes {a = #kv.quant<i3, map = sym, group = 1x32>}

// -----

// expected-error @below {{expected element 'f16' without codes, but got a map with it}}
func.func private @quant_c3_map() attributes {a = #kv.quant<f16, map = sym>}

// -----

// expected-error @below {{expected element 'bf16' without codes, but got a group with it}}
func.func private @quant_c3_group() attributes {a = #kv.quant<bf16, group = 1x32>}

// -----

// expected-error @below {{expected element 'f32' without codes, but got a scale with it}}
func.func private @quant_c3_scale() attributes {a = #kv.quant<f32, scale = f16>}

// -----

// expected-error @below {{expected element 'f16' without codes, but got a search with it}}
func.func private @quant_c3_search() attributes {a = #kv.quant<f16, search = 8>}

// -----

// expected-error @below {{expected element 'f16' without codes, but got a feedback with it}}
func.func private @quant_c3_feedback() attributes {a = #kv.quant<f16, feedback>}

// -----

// expected-error @below {{expected group 1xN or Nx1 with N = 16 or a multiple of 32 up to 256, but got 2x32}}
func.func private @quant_c4_square() attributes {a = #kv.quant<i3, map = sym, group = 2x32, scale = f16>}

// -----

// expected-error @below {{expected group 1xN or Nx1 with N = 16 or a multiple of 32 up to 256, but got 0x32}}
func.func private @quant_c4_zero() attributes {a = #kv.quant<i3, map = sym, group = 0x32, scale = f16>}

// -----

// expected-error @below {{expected group 1xN or Nx1 with N = 16 or a multiple of 32 up to 256, but got 0x0}}
func.func private @quant_c4_none() attributes {a = #kv.quant<i3, map = sym, group = 0x0, scale = f16>}

// -----

// expected-error @below {{expected group 1xN or Nx1 with N = 16 or a multiple of 32 up to 256, but got 0x0}}
func.func private @quant_c4_float() attributes {a = #kv.quant<f16, group = 0x0>}

// -----

// expected-error @below {{expected group 1xN or Nx1 with N = 16 or a multiple of 32 up to 256, but got 1x48}}
func.func private @quant_c4_multiple() attributes {a = #kv.quant<i3, map = sym, group = 1x48, scale = f16>}

// -----

// expected-error @below {{expected group 1xN or Nx1 with N = 16 or a multiple of 32 up to 256, but got 8x1}}
func.func private @quant_c4_small() attributes {a = #kv.quant<i3, map = sym, group = 8x1, scale = f16>}

// -----

// expected-error @below {{expected group 1xN or Nx1 with N = 16 or a multiple of 32 up to 256, but got 1x512}}
func.func private @quant_c4_large() attributes {a = #kv.quant<i3, map = sym, group = 1x512, scale = f16>}

// -----

// expected-error @below {{expected scale f16, bf16, f8E4M3FN or f8E8M0FNU with map sym, but got 'f32'}}
func.func private @quant_c5_wide() attributes {a = #kv.quant<i3, map = sym, group = 1x32, scale = f32>}

// -----

// A power of two cannot be the exact -extreme / o of sym_signed, and zero points need a sign and precision.
// expected-error @below {{expected scale f16, bf16 or f8E4M3FN with map sym_signed, but got 'f8E8M0FNU'}}
func.func private @quant_c5_power() attributes {a = #kv.quant<i3, map = sym_signed, group = 1x32, scale = f8E8M0FNU>}

// -----

// expected-error @below {{expected scale f16 or bf16 with map asym, but got 'f8E4M3FN'}}
func.func private @quant_c5_asym() attributes {a = #kv.quant<i3, map = asym, group = 1x32, scale = f8E4M3FN>}

// -----

// expected-error @below {{expected scale f16 or bf16 with map hybrid, but got 'f8E8M0FNU'}}
func.func private @quant_c5_hybrid() attributes {a = #kv.quant<i3, map = hybrid, group = 1x32, scale = f8E8M0FNU>}

// -----

// expected-error @below {{expected scale f16, bf16, f8E4M3FN or f8E8M0FNU with map sym, but got 'f8E5M2'}}
func.func private @quant_c5_float() attributes {a = #kv.quant<f4E2M1FN, map = sym, group = 1x32, scale = f8E5M2>}

// -----

func.func private @quant_c6_unknown() attributes {
  // expected-error @below {{expected transform #kv.diag, #kv.center, #kv.hadamard or #kv.token_norm, but got "hadamard"}}
  a = #kv.quant<i3, map = sym, group = 1x32, scale = f16, transforms = ["hadamard"]>}

// -----

func.func private @quant_c6_twice() attributes {
  // expected-error @below {{expected transforms in the order diag, center, hadamard, token_norm, each at most once, but got [#kv.diag<sqrt_max>, #kv.diag<given>]}}
  a = #kv.quant<i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>, #kv.diag<given>]>}

// -----

func.func private @quant_c6_order() attributes {
  // expected-error @below {{expected transforms in the order diag, center, hadamard, token_norm, each at most once, but got [#kv.hadamard<64>, #kv.center]}}
  a = #kv.quant<i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.hadamard<64>, #kv.center]>}

// -----

// Numbers as they are may be transformed too, by the same rules.
func.func private @quant_c6_numbers() attributes {
  // expected-error @below {{expected transforms in the order diag, center, hadamard, token_norm, each at most once, but got [#kv.token_norm<f16>, #kv.diag<rms>]}}
  a = #kv.quant<f16, transforms = [#kv.token_norm<f16>, #kv.diag<rms>]>}

// -----

// expected-error @below {{expected map sym with element 'f8E4M3FN', but got asym}}
func.func private @quant_c7_eight() attributes {a = #kv.quant<f8E4M3FN, map = asym, group = 1x32, scale = f16>}

// -----

// expected-error @below {{expected map sym with element 'f4E2M1FN', but got sym_signed}}
func.func private @quant_c7_four() attributes {a = #kv.quant<f4E2M1FN, map = sym_signed, group = 1x32, scale = f16>}

// -----

// expected-error @below {{expected search from 0 to 16, but got 17}}
func.func private @quant_c8_large() attributes {a = #kv.quant<i3, map = sym, group = 1x32, scale = f16, search = 17>}

// -----

// expected-error @below {{expected search from 0 to 16, but got -1}}
func.func private @quant_c8_negative() attributes {a = #kv.quant<i3, map = sym, group = 1x32, scale = f16, search = -1>}

// -----

// expected-error @below {{expected map sym, sym_full, sym_signed, asym or hybrid, but got affine}}
func.func private @quant_map() attributes {a = #kv.quant<i3, map = affine, group = 1x32, scale = f16>}

// -----

// expected-error @below {{expected map sym, sym_full, sym_signed, asym or hybrid, but got none}}
func.func private @quant_map_none() attributes {a = #kv.quant<i3, map = none, group = 1x32, scale = f16>}

// -----

// expected-error @below {{expected map, group, scale, transforms, search or feedback, but got zero_point}}
func.func private @quant_key() attributes {a = #kv.quant<i3, map = sym, zero_point = 4>}

// -----

// expected-error @below {{expected map at most once, but got it again}}
func.func private @quant_key_twice() attributes {a = #kv.quant<i3, map = sym, map = sym_full, group = 1x32, scale = f16>}

// -----

// expected-error @below {{expected two extents such as 1x32, but got 1}}
func.func private @quant_one_extent() attributes {a = #kv.quant<i3, map = sym, group = 32, scale = f16>}

// -----

// expected-error @below {{expected two extents such as 1x32, but got 3}}
func.func private @quant_three_extents() attributes {a = #kv.quant<i3, map = sym, group = 1x32x1, scale = f16>}

// -----

func.func private @quant_transforms() attributes {
  // expected-error @below {{invalid kind of attribute specified}}
  a = #kv.quant<i3, map = sym, group = 1x32, scale = f16, transforms = #kv.diag<sqrt_max>>}

// -----

//===-- Transforms --------------------------------------------------------------------------===//

// expected-error @below {{expected strength over 0 and at most 1, and 1 with rms, but got 0.000000e+00}}
func.func private @diag_c1_zero() attributes {a = #kv.diag<rms, strength = 0.0>}

// -----

// expected-error @below {{expected strength over 0 and at most 1, and 1 with rms, but got 1.500000e+00}}
func.func private @diag_c1_large() attributes {a = #kv.diag<rms, strength = 1.5>}

// -----

// expected-error @below {{expected strength over 0 and at most 1, and 1 with sqrt_max, but got 5.000000e-01}}
func.func private @diag_c1_statistic() attributes {a = #kv.diag<sqrt_max, strength = 0.5>}

// -----

// expected-error @below {{expected given factors with weights, but got rms}}
func.func private @diag_c2() attributes {a = #kv.diag<rms, tied, weights>}

// -----

// expected-error @below {{expected sqrt_max, rms, tensor or given, but got mean}}
func.func private @diag_statistic() attributes {a = #kv.diag<mean>}

// -----

// expected-error @below {{expected strength, tied or weights, but got power}}
func.func private @diag_key() attributes {a = #kv.diag<rms, power = 0.5>}

// -----

// expected-error @below {{expected hadamard size a power of two from 16 to 256, but got 8}}
func.func private @hadamard_c1_small() attributes {a = #kv.hadamard<8>}

// -----

// expected-error @below {{expected hadamard size a power of two from 16 to 256, but got 512}}
func.func private @hadamard_c1_large() attributes {a = #kv.hadamard<512>}

// -----

// expected-error @below {{expected hadamard size a power of two from 16 to 256, but got 96}}
func.func private @hadamard_c1_power() attributes {a = #kv.hadamard<96>}

// -----

// expected-error @below {{expected token_norm f16 or f8E8M0FNU, but got 'bf16'}}
func.func private @token_norm_c1() attributes {a = #kv.token_norm<bf16>}

// -----

//===-- #kv.window --------------------------------------------------------------------------===//

// expected-error @below {{expected sink from 0 to 4096, but got -1}}
func.func private @window_c1_sink() attributes {a = #kv.window<sink = -1, recent = 96, flush = 32>}

// -----

// expected-error @below {{expected recent from 0 to 4096, but got 4128}}
func.func private @window_c1_recent() attributes {a = #kv.window<sink = 32, recent = 4128, flush = 32>}

// -----

// expected-error @below {{expected flush 1 or a multiple of 32 from 32 to 4096, but got 0}}
func.func private @window_c2_zero() attributes {a = #kv.window<sink = 32, recent = 96, flush = 0>}

// -----

// expected-error @below {{expected flush 1 or a multiple of 32 from 32 to 4096, but got 48}}
func.func private @window_c2_multiple() attributes {a = #kv.window<sink = 32, recent = 96, flush = 48>}

// -----

// expected-error @below {{expected flush 1 or a multiple of 32 from 32 to 4096, but got 4128}}
func.func private @window_c2_large() attributes {a = #kv.window<sink = 32, recent = 0, flush = 4128>}

// -----

// expected-error @below {{expected flush 1 or a multiple of 32 from 32 to 4096, but got 2}}
func.func private @window_c2_small() attributes {a = #kv.window<sink = 0, recent = 0, flush = 2>}

// -----

// expected-error @below {{expected recent 0 with flush = 1, but got 32}}
func.func private @window_c3_every_token() attributes {a = #kv.window<sink = 0, recent = 32, flush = 1>}

// -----

// expected-error @below {{expected recent a multiple of flush = 64, but got 96}}
func.func private @window_c3() attributes {a = #kv.window<sink = 32, recent = 96, flush = 64>}

// -----

//===-- #kv.packing -------------------------------------------------------------------------===//

// expected-error @below {{expected tile extents that are powers of two from 1 to 256, but got 0x4}}
func.func private @packing_c1_zero() attributes {a = #kv.packing<0x4>}

// -----

// expected-error @below {{expected tile extents that are powers of two from 1 to 256, but got 16x3}}
func.func private @packing_c1_power() attributes {a = #kv.packing<16x3>}

// -----

// expected-error @below {{expected tile extents that are powers of two from 1 to 256, but got 512x4}}
func.func private @packing_c1_large() attributes {a = #kv.packing<512x4>}

// -----

// expected-error @below {{expected lanes = 1, or a multiple of 32 that leaves each lane 8 or 32 codes of the tile, but got lanes = 0 with 32x32}}
func.func private @packing_c2_zero() attributes {a = #kv.packing<32x32, lanes = 0>}

// -----

// Eight codes for each of four lanes, which are fewer than the free indices.
// expected-error @below {{expected lanes = 1, or a multiple of 8 that leaves each lane 8 or 32 codes of the tile, but got lanes = 4 with 8x4}}
func.func private @packing_c2_few() attributes {a = #kv.packing<8x4, lanes = 4>}

// -----

// expected-error @below {{expected lanes = 1, or a multiple of 32 that leaves each lane 8 or 32 codes of the tile, but got lanes = 48 with 32x32}}
func.func private @packing_c2_multiple() attributes {a = #kv.packing<32x32, lanes = 48>}

// -----

// expected-error @below {{expected lanes = 1, or a multiple of 32 that leaves each lane 8 or 32 codes of the tile, but got lanes = 32 with 32x4}}
func.func private @packing_c2_four_codes() attributes {a = #kv.packing<32x4, lanes = 32>}

// -----

// expected-error @below {{expected lanes = 1, or a multiple of 16 that leaves each lane 8 or 32 codes of the tile, but got lanes = 32 with 16x32}}
func.func private @packing_c2_sixteen_codes() attributes {a = #kv.packing<16x32, lanes = 32>}

// -----

// expected-error @below {{expected tile extents, fragments, fragment_rows or fragment_columns, but got shards}}
func.func private @packing_order() attributes {a = #kv.packing<shards>}

// -----

// expected-error @below {{expected two extents such as 1x32, but got 1}}
func.func private @packing_extents() attributes {a = #kv.packing<16>}

// -----

// expected-error @below {{expected 'lanes'}}
func.func private @packing_key() attributes {a = #kv.packing<32x32, warps = 32>}

// -----

//===-- #kv.schedule ------------------------------------------------------------------------===//

func.func private @schedule_c1_zero() attributes {
  // expected-error @below {{expected heads from 1 to 16, but got 0}}
  a = #kv.schedule<heads = 0, page = 128, compute = f32, key = <16x4>, value = <16x4>, floats = <16x1>>}

// -----

func.func private @schedule_c1_large() attributes {
  // expected-error @below {{expected heads from 1 to 16, but got 17}}
  a = #kv.schedule<heads = 17, page = 128, compute = f32, key = <16x4>, value = <16x4>, floats = <16x1>>}

// -----

func.func private @schedule_c2_zero() attributes {
  // expected-error @below {{expected page a multiple of 32 from 32 to 65536, but got 0}}
  a = #kv.schedule<heads = 4, page = 0, compute = f32, key = <16x4>, value = <16x4>, floats = <16x1>>}

// -----

func.func private @schedule_c2_multiple() attributes {
  // expected-error @below {{expected page a multiple of 32 from 32 to 65536, but got 100}}
  a = #kv.schedule<heads = 4, page = 100, compute = f32, key = <16x4>, value = <16x4>, floats = <16x1>>}

// -----

func.func private @schedule_c3_negative() attributes {
  // expected-error @below {{expected accumulators from 0 to 32, but got -1}}
  a = #kv.schedule<heads = 4, page = 128, compute = f32, key = <16x4>, value = <16x4>, floats = <16x1>,
                   accumulators = -1>}

// -----

func.func private @schedule_c3_large() attributes {
  // expected-error @below {{expected accumulators from 0 to 32, but got 33}}
  a = #kv.schedule<heads = 4, page = 128, compute = f32, key = <16x4>, value = <16x4>, floats = <16x1>,
                   accumulators = 33>}

// -----

func.func private @schedule_c4_negative() attributes {
  // expected-error @below {{expected page_bytes of 0 or a positive multiple of 64, but got -64}}
  a = #kv.schedule<heads = 4, page = 128, compute = f32, key = <16x4>, value = <16x4>, floats = <16x1>,
                   page_bytes = -64>}

// -----

func.func private @schedule_c4_odd() attributes {
  // expected-error @below {{expected page_bytes of 0 or a positive multiple of 64, but got 100}}
  a = #kv.schedule<heads = 4, page = 128, compute = f32, key = <16x4>, value = <16x4>, floats = <16x1>,
                   page_bytes = 100>}

// -----

func.func private @schedule_c6_many() attributes {
  // expected-error @below {{expected queries from 1 to 16, and 1 unless compute is f16, but got 17}}
  x = #kv.schedule<heads = 1, page = 128, compute = f16, key = <fragments>, value = <fragments>, floats = <fragments>, queries = 17>}

// -----

func.func private @schedule_c6_compute() attributes {
  // expected-error @below {{expected queries from 1 to 16, and 1 unless compute is f16, but got 2}}
  x = #kv.schedule<heads = 1, page = 128, compute = f32, key = <16x4>, value = <16x4>, floats = <16x1>, queries = 2>}

// -----

func.func private @schedule_c7() attributes {
  // expected-error @below {{expected ahead from 0 to 16, and 0 with stages or several warps, but got 17}}
  x = #kv.schedule<heads = 1, page = 128, compute = f32, key = <16x4>, value = <16x4>, floats = <16x1>, ahead = 17>}

// -----

func.func private @schedule_c7_stages() attributes {
  // expected-error @below {{expected ahead from 0 to 16, and 0 with stages or several warps, but got 1}}
  x = #kv.schedule<heads = 1, page = 128, compute = f16, key = <fragments>, value = <fragments>, floats = <fragments>, stages = 2, ahead = 1>}

// -----

func.func private @schedule_c7_warps() attributes {
  // expected-error @below {{expected ahead from 0 to 16, and 0 with stages or several warps, but got 2}}
  x = #kv.schedule<heads = 1, page = 128, compute = f16, key = <fragments>, value = <fragments>, floats = <fragments>, warps = 4, ahead = 2>}

// -----

func.func private @schedule_compute() attributes {
  // expected-error @below {{expected f32, int16, int8, f16 or bf16, but got int4}}
  a = #kv.schedule<heads = 4, page = 128, compute = int4, key = <16x4>, value = <16x4>, floats = <16x1>>}

// -----

func.func private @schedule_incomplete() attributes {
  // expected-error @below {{struct is missing required parameter: floats}}
  a = #kv.schedule<heads = 4, page = 128, compute = f32, key = <16x4>, value = <16x4>>}

// -----

//===-- #kv.target, #kv.placement -----------------------------------------------------------===//

// expected-error @below {{expected cpu or cuda, but got rocm}}
func.func private @target_kind() attributes {a = #kv.target<rocm, "gfx942">}

// -----

// expected-error @below {{expected none, accumulator, result, operand or element, but got input}}
func.func private @placement_name() attributes {a = #kv.placement<input>}

// -----

// expected-error @below {{unknown attribute `codebook` in dialect `kv`}}
func.func private @unknown_attribute() attributes {a = #kv.codebook<16>}
