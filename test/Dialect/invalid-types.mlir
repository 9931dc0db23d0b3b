// What types refuse: every numbered constraint, then what they cannot parse.
// RUN: kvcc-opt %s -verify-diagnostics -split-input-file

//===-- !kv.cache ---------------------------------------------------------------------------===//

func.func private @cache_c1(
  // expected-error @below {{expected kv_heads of at least 1, but got 0}}
  !kv.cache<kv_heads = 0, head_dim = 64, dtype = f16, key = <f16>, value = <f16>,
            window = <sink = 0, recent = 0, flush = 32>>)

// -----

func.func private @cache_c2_multiple(
  // expected-error @below {{expected head_dim a multiple of 32 from 32 to 256, but got 80}}
  !kv.cache<kv_heads = 1, head_dim = 80, dtype = f16, key = <f16>, value = <f16>,
            window = <sink = 0, recent = 0, flush = 32>>)

// -----

func.func private @cache_c2_small(
  // expected-error @below {{expected head_dim a multiple of 32 from 32 to 256, but got 0}}
  !kv.cache<kv_heads = 1, head_dim = 0, dtype = f16, key = <f16>, value = <f16>,
            window = <sink = 0, recent = 0, flush = 32>>)

// -----

func.func private @cache_c2_large(
  // expected-error @below {{expected head_dim a multiple of 32 from 32 to 256, but got 288}}
  !kv.cache<kv_heads = 1, head_dim = 288, dtype = f16, key = <f16>, value = <f16>,
            window = <sink = 0, recent = 0, flush = 32>>)

// -----

func.func private @cache_c3(
  // expected-error @below {{expected dtype f16, bf16 or f32, but got 'i8'}}
  !kv.cache<kv_heads = 1, head_dim = 64, dtype = i8, key = <f16>, value = <f16>,
            window = <sink = 0, recent = 0, flush = 32>>)

// -----

func.func private @cache_c4_key(
  // expected-error @below {{expected key group channels that divide head_dim = 96, but got 64}}
  !kv.cache<kv_heads = 1, head_dim = 96, dtype = f16,
            key = <i4, map = sym, group = 1x64, scale = f16>, value = <f16>,
            window = <sink = 0, recent = 0, flush = 32>>)

// -----

func.func private @cache_c4_value(
  // expected-error @below {{expected value group channels that divide head_dim = 64, but got 128}}
  !kv.cache<kv_heads = 1, head_dim = 64, dtype = f16, key = <f16>,
            value = <i4, map = sym, group = 1x128, scale = f16>,
            window = <sink = 0, recent = 0, flush = 32>>)

// -----

func.func private @cache_c5_key(
  // expected-error @below {{expected key group tokens that divide 32, but got 64}}
  !kv.cache<kv_heads = 1, head_dim = 64, dtype = f16,
            key = <i4, map = sym, group = 64x1, scale = f16>, value = <f16>,
            window = <sink = 0, recent = 64, flush = 64>>)

// -----

func.func private @cache_c5_value(
  // expected-error @below {{expected value group tokens that divide 32, but got 128}}
  !kv.cache<kv_heads = 1, head_dim = 64, dtype = f16, key = <f16>,
            value = <i4, map = sym, group = 128x1, scale = f16>,
            window = <sink = 0, recent = 128, flush = 128>>)

// -----

// A token that is quantized alone shares its scale with no other.
func.func private @cache_c5_every_token(
  // expected-error @below {{expected key groups of one token with flush = 1, but got 32 tokens}}
  !kv.cache<kv_heads = 1, head_dim = 64, dtype = f16,
            key = <i4, map = sym, group = 32x1, scale = f16>, value = <f16>,
            window = <sink = 0, recent = 0, flush = 1>>)

// -----

func.func private @cache_c6_key(
  // expected-error @below {{expected a key hadamard size that divides head_dim = 96, but got 64}}
  !kv.cache<kv_heads = 1, head_dim = 96, dtype = f16,
            key = <i4, map = sym, group = 1x32, scale = f16, transforms = [#kv.hadamard<64>]>, value = <f16>,
            window = <sink = 0, recent = 0, flush = 32>>)

// -----

func.func private @cache_c6_value(
  // expected-error @below {{expected a value hadamard size that divides head_dim = 64, but got 128}}
  !kv.cache<kv_heads = 1, head_dim = 64, dtype = f16, key = <f16>,
            value = <bf16, transforms = [#kv.hadamard<128>]>,
            window = <sink = 0, recent = 0, flush = 32>>)

// -----

func.func private @cache_c7(
  // expected-error @below {{expected a key diagonal that is tied when it is folded into weights, but got #kv.diag<given, weights>}}
  !kv.cache<kv_heads = 1, head_dim = 64, dtype = f16,
            key = <i4, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<given, weights>]>, value = <f16>,
            window = <sink = 0, recent = 0, flush = 32>>)

// -----

func.func private @cache_c8_key(
  // expected-error @below {{expected key groups along the channels with map hybrid, but got 32x1}}
  !kv.cache<kv_heads = 1, head_dim = 64, dtype = f16,
            key = <i4, map = hybrid, group = 32x1, scale = f16>, value = <f16>,
            window = <sink = 0, recent = 0, flush = 32>>)

// -----

func.func private @cache_c8_value(
  // expected-error @below {{expected value groups along the tokens with map hybrid, but got 1x32}}
  !kv.cache<kv_heads = 1, head_dim = 64, dtype = f16, key = <f16>,
            value = <i4, map = hybrid, group = 1x32, scale = f16>,
            window = <sink = 0, recent = 0, flush = 32>>)

// -----

func.func private @cache_c9(
  // expected-error @below {{expected values without feedback, but got #kv.quant<i4, map = sym, group = 32x1, scale = f16, feedback>}}
  !kv.cache<kv_heads = 1, head_dim = 64, dtype = f16, key = <f16>,
            value = <i4, map = sym, group = 32x1, scale = f16, feedback>,
            window = <sink = 0, recent = 0, flush = 32>>)

// -----

func.func private @cache_without_window(
  // expected-error @below {{expected ','}}
  !kv.cache<kv_heads = 1, head_dim = 64, dtype = f16, key = <f16>, value = <f16>>)

// -----

func.func private @cache_key(
  // expected-error @below {{expected 'head_dim'}}
  !kv.cache<kv_heads = 1, channels = 64, dtype = f16, key = <f16>, value = <f16>,
            window = <sink = 0, recent = 0, flush = 32>>)

// -----

//===-- !kv.block ---------------------------------------------------------------------------===//

// Keys: tokens are free, channels are reduced.
func.func private @block_c1_free(
  // expected-error @below {{expected a packing whose tile divides 32x64 (free x reduced), but got #kv.packing<64x4>}}
  !kv.block<key, 32x64xi4, packing = <64x4>>)

// -----

func.func private @block_c1_reduced(
  // expected-error @below {{expected a packing whose tile divides 32x96 (free x reduced), but got #kv.packing<16x64>}}
  !kv.block<key, 32x96xi4, packing = <16x64>>)

// -----

// Values: channels are free, tokens are reduced.
func.func private @block_c1_value(
  // expected-error @below {{expected a packing whose tile divides 96x32 (free x reduced), but got #kv.packing<64x32>}}
  !kv.block<value, 32x96xi4, packing = <64x32>>)

// -----

func.func private @block_c2_tokens(
  // expected-error @below {{expected positive extents, but got 0x64}}
  !kv.block<key, 0x64xi4, packing = <16x4>>)

// -----

func.func private @block_c2_channels(
  // expected-error @below {{expected positive extents, but got 32x0}}
  !kv.block<key, 32x0xi4, packing = <16x4>>)

// -----

func.func private @block_c3_wide(
  // expected-error @below {{expected element i2 to i8, f8E4M3FN, f8E8M0FNU, f4E2M1FN, f16, bf16 or f32, but got 'i9'}}
  !kv.block<key, 32x64xi9, packing = <16x4>>)

// -----

func.func private @block_c3_signed(
  // expected-error @below {{expected element i2 to i8, f8E4M3FN, f8E8M0FNU, f4E2M1FN, f16, bf16 or f32, but got 'si4'}}
  !kv.block<key, 32x64xsi4, packing = <16x4>>)

// -----

func.func private @block_c3_float(
  // expected-error @below {{expected element i2 to i8, f8E4M3FN, f8E8M0FNU, f4E2M1FN, f16, bf16 or f32, but got 'f64'}}
  !kv.block<key, 32x64xf64, packing = <16x4>>)

// -----

func.func private @block_c3_index(
  // expected-error @below {{expected element i2 to i8, f8E4M3FN, f8E8M0FNU, f4E2M1FN, f16, bf16 or f32, but got 'index'}}
  !kv.block<key, 32x64xindex, packing = <16x4>>)

// -----

func.func private @block_role(
  // expected-error @below {{expected key or value and tokens x channels, but got query and 2 extents}}
  !kv.block<query, 32x64xi4, packing = <16x4>>)

// -----

func.func private @block_extents(
  // expected-error @below {{expected key or value and tokens x channels, but got key and 1 extents}}
  !kv.block<key, 64xi4, packing = <16x4>>)

// -----

func.func private @block_without_packing(
  // expected-error @below {{expected ','}}
  !kv.block<key, 32x64xi4>)

// -----

//===-- !kv.state ---------------------------------------------------------------------------===//

func.func private @state_c1_heads(
  // expected-error @below {{expected positive extents, but got 0x64}}
  !kv.state<0x64>)

// -----

func.func private @state_c1_channels(
  // expected-error @below {{expected positive extents, but got 4x0}}
  !kv.state<4x0>)

// -----

func.func private @state_extents(
  // expected-error @below {{expected heads x head_dim such as 4x128, but got 1 extents}}
  !kv.state<128>)

// -----

// expected-error @below {{type `scheme` in dialect `kv`}}
func.func private @unknown_type(!kv.scheme<4>)
