// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A peer of `tools/dev bench cuda`: decode attention over an InnerQ cache (arXiv 2602.23200) as three kernels, a
// quantized matrix-vector product with the keys, a softmax, and one with the values. Both tensors are grouped along the
// inner dimension of their product, so that a thread finishes the sum of a group before it meets its scale.
// innerq_peer.py writes the cache, puts a prelude in front of this text and defines KEY_BITS, VALUE_BITS, HEAD_DIM (32,
// 64, 128 or 256) and QUERIES, the query heads of a KV head.
//
// Tokens form units of 32: the sink is unit 0, units 1 to `blocks` are quantized, later ones are the recent tokens.
// The windows hold the rows of the others one after the other, up to a whole unit, in fp16.
//
// 32 codes lie in BITS words as 16 pairs of halves, offset by 2^(BITS-1): with 16 / BITS pairs per word, pair n has
// shift BITS * (n % (16 / BITS)) of word n / (16 / BITS). Three bits leave pair 15 over: its bits are bit 15 of the
// halves of words 0, 1, 2. Word w of key group g of token t of a block is word 32 * GROUPS * w + GROUPS * t + g, word w
// of channel c's values is word HEAD_DIM * w + c: consecutive lanes read consecutive words.

constexpr int GROUPS = HEAD_DIM / 32;
constexpr int WARPS = 4;
constexpr int UNITS_PER_WARP = 2; // of the key kernel

/// Codes minus their offset, as pairs of fp16; exact.
template <int BITS> KV_DEVICE void decode(const kv_u32 *words, kv_u32 *pairs) {
  constexpr int PER_WORD = 16 / BITS;
  constexpr kv_u32 MASK = (1u << BITS) - 1;
  // 0x6400 is 1024, whose last bit counts ones.
  constexpr kv_u32 BIAS = 0xe400u + (1u << (BITS - 1));
  KV_UNROLL
  for (int n = 0; n < 16; ++n) {
    kv_u32 codes;
    if (n < PER_WORD * BITS)
      codes = words[n / PER_WORD] >> BITS * (n % PER_WORD);
    else
      codes = (words[0] >> 15 & 0x10001u) | (words[1] >> 14 & 0x20002u) | (words[BITS - 1] >> 13 & 0x40004u);
    pairs[n] = kv_add_f16x2(kv_and_or(codes, MASK * 0x10001u, 0x64006400u), BIAS * 0x10001u);
  }
}

KV_DEVICE float sum_of_halves(kv_u32 v) { return kv_f16x2_lo_to_f32(v) + kv_f16x2_hi_to_f32(v); }

/// The units of a sequence from `begin` to `end`, and the quantized ones among them.
struct Range {
  kv_i32 begin, end, first_block, end_block;
};
KV_DEVICE Range clip(kv_i32 begin, kv_i32 end, kv_i32 ctx, kv_i32 blocks) {
  const kv_i32 units = (ctx + 31) / 32;
  end = end < units ? end : units;
  return Range{begin, end, begin > 1 ? begin : 1, end < blocks + 1 ? end : blocks + 1};
}

/// 16 words of memory that nothing writes.
KV_DEVICE void load16(const kv_u32 *from, kv_u32 *to) {
  KV_UNROLL
  for (int i = 0; i < 4; ++i) {
    kv_u32x4 v = kv_ldg128_nc(from + 4 * i);
    to[4 * i] = v.x, to[4 * i + 1] = v.y, to[4 * i + 2] = v.z, to[4 * i + 3] = v.w;
  }
}

/// Scores of the 32 tokens of a unit, for the rows of `scores`. GROUPS neighbouring lanes handle a token, a lane one
/// group. load(item, pairs) gives a group's pairs and returns its scale.
template <class Load>
KV_DEVICE void score_unit(const kv_u32 (&q)[QUERIES][16], float *scores, kv_i32 stride, Load load) {
  const kv_u32 lane = kv_u32(kv_thread_id_x()) % 32;
  KV_UNROLL
  for (int pass = 0; pass < GROUPS; ++pass) {
    const kv_u32 item = 32 * pass + lane;
    kv_u32 k[16];
    const float factor = load(item, k);
    float score[QUERIES];
    KV_UNROLL
    for (int h = 0; h < QUERIES; ++h) {
      kv_u32 sum = 0;
      KV_UNROLL
      for (int n = 0; n < 16; ++n)
        sum = kv_fma_f16x2(k[n], q[h][n], sum);
      score[h] = factor * sum_of_halves(sum);
      KV_UNROLL
      for (int mask = 1; mask < GROUPS; mask *= 2)
        score[h] += kv_shfl_xor_f32(score[h], mask);
    }
    if (lane % GROUPS == 0) {
      KV_UNROLL
      for (int h = 0; h < QUERIES; ++h)
        scores[h * stride + kv_i32(item / GROUPS)] = score[h];
    }
  }
}

/// scores[batch][q head][stride]: q . k times `scale`, which has a factor of log2(e) for exp2. query[batch][q
/// head][HEAD_DIM] is bf16. Rows go on to the end of a unit; what is there from token `ctx` on means nothing.
KV_KERNEL(32 * WARPS)
void innerq_scores(const kv_u16 *query, const kv_u32 *codes, const kv_u16 *scales, const kv_u32 *windows, float *scores,
                   kv_i32 ctx, kv_i32 blocks, kv_i32 rows, kv_i32 stride, float scale) {
  const kv_u32 thread = kv_u32(kv_thread_id_x()), channel = 32 * (thread % GROUPS);
  const size_t head = kv_block_id_z() * kv_grid_dim_y() + kv_block_id_y(), first_query = head * QUERIES;

  kv_u32 q[QUERIES][16];
  KV_UNROLL
  for (int h = 0; h < QUERIES; ++h) {
    const kv_u16 *row = query + (first_query + h) * HEAD_DIM + channel;
    KV_UNROLL
    for (int n = 0; n < 16; ++n)
      q[h][n] = kv_f32x2_to_f16x2(scale * kv_bf16_to_f32(row[2 * n]), scale * kv_bf16_to_f32(row[2 * n + 1]));
  }

  const kv_i32 begin = (kv_i32(kv_block_id_x()) * WARPS + kv_i32(thread / 32)) * UNITS_PER_WARP;
  const Range range = clip(begin, begin + UNITS_PER_WARP, ctx, blocks);
  scores += first_query * stride;
  KV_NOUNROLL
  for (kv_i32 unit = range.first_block; unit < range.end_block; ++unit) {
    const size_t block = head * blocks + (unit - 1);
    score_unit(q, scores + 32 * unit, stride, [&](kv_u32 item, kv_u32 *k) {
      kv_u32 words[KEY_BITS];
      KV_UNROLL
      for (int w = 0; w < KEY_BITS; ++w)
        words[w] = kv_ldg32_nc(codes + (block * KEY_BITS + w) * 32 * GROUPS + item);
      decode<KEY_BITS>(words, k);
      return kv_f16_to_f32(scales[block * 32 * GROUPS + item]);
    });
  }
  KV_NOUNROLL
  for (kv_i32 unit = range.begin; unit < range.end; ++unit) {
    if (unit >= 1 && unit <= blocks)
      continue;
    const size_t first_row = head * rows + (unit == 0 ? 0 : 32 * (unit - blocks));
    score_unit(q, scores + 32 * unit, stride, [&](kv_u32 item, kv_u32 *k) {
      load16(windows + ((first_row + item / GROUPS) * HEAD_DIM + channel) / 2, k);
      return 1.0f;
    });
  }
}

KV_DEVICE float reduce(float v, float *shared, bool maximum) {
  const kv_u32 thread = kv_u32(kv_thread_id_x()), warps = kv_u32(kv_block_dim_x() / 32);
  KV_UNROLL
  for (int mask = 1; mask < 32; mask *= 2) {
    float other = kv_shfl_xor_f32(v, mask);
    v = maximum ? kv_max(v, other) : v + other;
  }
  if (thread % 32 == 0)
    shared[thread / 32] = v;
  kv_barrier();
  v = shared[0];
  for (kv_u32 warp = 1; warp < warps; ++warp)
    v = maximum ? kv_max(v, shared[warp]) : v + shared[warp];
  kv_barrier();
  return v;
}

/// probabilities[q row][stride] in fp16, relative to the largest, zero from `ctx` on; sums[q row] is their sum.
KV_KERNEL(512)
void innerq_softmax(const float *scores, kv_u32 *probabilities, float *sums, kv_i32 ctx, kv_i32 stride) {
  KV_SHARED float shared[32];
  const kv_i32 thread = kv_i32(kv_thread_id_x()), threads = kv_i32(kv_block_dim_x());
  const float *row = scores + kv_block_id_x() * stride;
  float most = -1e30f, sum = 0.0f;
  for (kv_i32 token = thread; token < ctx; token += threads)
    most = kv_max(most, row[token]);
  most = reduce(most, shared, true);
  for (kv_i32 pair = thread; pair < stride / 2; pair += threads) {
    float even = 2 * pair < ctx ? kv_exp2(row[2 * pair] - most) : 0.0f;
    float odd = 2 * pair + 1 < ctx ? kv_exp2(row[2 * pair + 1] - most) : 0.0f;
    sum += even + odd;
    probabilities[kv_block_id_x() * (stride / 2) + pair] = kv_f32x2_to_f16x2(even, odd);
  }
  sum = reduce(sum, shared, false);
  if (thread == 0)
    sums[kv_block_id_x()] = sum;
}

/// Adds what a unit contributes to one channel: factor * sum of p times v.
KV_DEVICE void add_unit(const kv_u32 *probabilities, kv_i32 stride, const kv_u32 *v, float factor,
                        float (&acc)[QUERIES]) {
  KV_UNROLL
  for (int h = 0; h < QUERIES; ++h) {
    kv_u32 p[16], sum = 0;
    load16(probabilities + h * (stride / 2), p);
    KV_UNROLL
    for (int n = 0; n < 16; ++n)
      sum = kv_fma_f16x2(v[n], p[n], sum);
    acc[h] = kv_fma(factor, sum_of_halves(sum), acc[h]);
  }
}

/// out[batch][q head][HEAD_DIM]. A thread handles one channel; CTA x of the grid handles units x * per_split and on,
/// and the last of a KV head to finish adds up `partial`[head][split][q head][HEAD_DIM]. counters[head] are zero.
KV_KERNEL(HEAD_DIM)
void innerq_values(const kv_u32 *probabilities, const float *sums, const kv_u32 *codes, const kv_u16 *scales,
                   const kv_u16 *windows, float *partial, void *counters, float *out, kv_i32 ctx, kv_i32 blocks,
                   kv_i32 rows, kv_i32 stride, kv_i32 per_split) {
  const kv_u32 channel = kv_u32(kv_thread_id_x());
  const size_t splits = kv_grid_dim_x(), split = kv_block_id_x();
  const size_t head = kv_block_id_z() * kv_grid_dim_y() + kv_block_id_y(), first_query = head * QUERIES;
  const Range range = clip(kv_i32(split) * per_split, kv_i32(split + 1) * per_split, ctx, blocks);
  probabilities += first_query * (stride / 2);
  float acc[QUERIES] = {};
  kv_u32 v[16];
  KV_NOUNROLL
  for (kv_i32 unit = range.first_block; unit < range.end_block; ++unit) {
    const size_t block = head * blocks + (unit - 1);
    kv_u32 words[VALUE_BITS];
    KV_UNROLL
    for (int w = 0; w < VALUE_BITS; ++w)
      words[w] = kv_ldg32_nc(codes + (block * VALUE_BITS + w) * HEAD_DIM + channel);
    decode<VALUE_BITS>(words, v);
    add_unit(probabilities + 16 * unit, stride, v, kv_f16_to_f32(scales[block * HEAD_DIM + channel]), acc);
  }
  KV_NOUNROLL
  for (kv_i32 unit = range.begin; unit < range.end; ++unit) {
    if (unit >= 1 && unit <= blocks)
      continue;
    const kv_u16 *row = windows + (head * rows + (unit == 0 ? 0 : 32 * (unit - blocks))) * HEAD_DIM + channel;
    KV_UNROLL
    for (int n = 0; n < 16; ++n)
      v[n] = row[2 * n * HEAD_DIM] | kv_u32(row[(2 * n + 1) * HEAD_DIM]) << 16;
    add_unit(probabilities + 16 * unit, stride, v, 1.0f, acc);
  }
  KV_UNROLL
  for (int h = 0; h < QUERIES; ++h)
    partial[((head * splits + split) * QUERIES + h) * HEAD_DIM + channel] = acc[h];
  if (!kv_arrive(counters, int32_t(head), int32_t(splits)))
    return;
  KV_NOUNROLL
  for (int h = 0; h < QUERIES; ++h) {
    float sum = 0.0f;
    for (size_t s = 0; s < splits; ++s)
      sum += partial[((head * splits + s) * QUERIES + h) * HEAD_DIM + channel];
    out[(first_query + h) * HEAD_DIM + channel] = kv_div(sum, sums[first_query + h]);
  }
}
