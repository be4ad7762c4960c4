// Rotates queries and keys by their positions, and puts keys and values into the paged cache.

#include "kernels.h"
#include "norm.h"

// One head of `dim` numbers, whose halves are the two coordinates (Su et al., as in Llama).
INLINE void rotate(bf16* head, int64_t half, const float* cosine, const float* sine) {
  for (int64_t i = 0; i < half; i += 16) {
    const __mmask16 mask = tail(half - i);
    const __m512 a = load(head + i, mask), b = load(head + half + i, mask);
    const __m512 c = _mm512_maskz_loadu_ps(mask, cosine + i);
    const __m512 s = _mm512_maskz_loadu_ps(mask, sine + i);
    store(head + i, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)), mask);
    store(head + half + i, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)), mask);
  }
}

// A key goes to a line for each pair of its numbers: all are asked for while the heads are rotated.
INLINE void ask_for_slot(const Cache& keys, const Cache& values, int64_t head, int64_t slot) {
  for (int64_t i = 0; i < keys.dim; i += 2)
    __builtin_prefetch(key_at(keys, head, slot) + i * PANEL, 1);
  for (int64_t i = 0; i < values.dim; i += PANEL)
    __builtin_prefetch(value_at(values, head, slot) + i * values.blocks.size, 1);
}

// qkv [tokens, heads' width], changed in place; q_norm, k_norm [dim] or null: each head is
// normalised before it is rotated (as in Qwen 3); cosine, sine [any position, dim], of which the
// first halves are read.
void rope_write(const Units& units, bf16* qkv, const bf16* q_norm, const bf16* k_norm,
                float epsilon, const float* cosine, const float* sine, const Cache& keys,
                const Cache& values) {
  const Heads& heads = units.heads;
  const int64_t dim = heads.dim;
  for (int64_t unit = units.first; unit < units.end; ++unit) {
    const int64_t token = units.token(unit), head = units.head(unit);
    const int64_t slot = units.tokens.slots[token], at = units.tokens.positions[token] * dim;
    ask_for_slot(keys, values, head, slot);
    bf16 *row = qkv + token * heads.width(), *key = row + (heads.num + head) * dim;
    for (int64_t h = 0; h <= heads.group(); ++h) {  // its queries, then its key
      const bool is_key = h == heads.group();
      bf16* own = is_key ? key : row + (head * heads.group() + h) * dim;
      const bf16* norm = is_key ? k_norm : q_norm;
      if (norm != nullptr) normalise(own, dim, norm, 0, epsilon, own);
      rotate(own, dim / 2, cosine + at, sine + at);
    }
    put_key(keys, head, slot, key);
    put_value(values, head, slot, key + heads.num_kv * dim);
  }
}

EXPORT int64_t millrace_rope_write(bf16* qkv, int64_t t, int64_t num_heads, int64_t num_kv_heads,
                                   int64_t dim, const bf16* q_norm, const bf16* k_norm,
                                   float epsilon, const int64_t* positions, const float* cosine,
                                   const float* sine, int64_t num_positions, const int64_t* slots,
                                   bf16* k, bf16* v, int64_t num_blocks, int64_t block_size,
                                   int64_t head_stride, int64_t block_stride) {
  const Tokens tokens = {t, positions, slots, nullptr, nullptr, 0, 0};
  if (!all_below(positions, t, num_positions)) return OUTSIDE_ROPE_TABLE;
  if (!tokens.lie_in(num_blocks, block_size)) return OUTSIDE_CACHE;
  const Blocks blocks = {num_blocks, block_size, head_stride, block_stride};
  const Cache keys = {k, blocks, dim}, values = {v, blocks, dim};
#pragma omp parallel if (t >= FEW)
  rope_write({team(), tokens, {num_heads, num_kv_heads, dim}, 0}, qkv, q_norm, k_norm, epsilon,
             cosine, sine, keys, values);
  return GOOD;
}

// new_k, new_v [num_kv_heads, t, dim]; slots [t]; k, v: a layer's cache.
EXPORT int64_t millrace_write(const bf16* new_k, const bf16* new_v, int64_t t, int64_t num_kv_heads,
                              int64_t dim, const int64_t* slots, bf16* k, bf16* v,
                              int64_t num_blocks, int64_t block_size, int64_t head_stride,
                              int64_t block_stride) {
  const Tokens tokens = {t, nullptr, slots, nullptr, nullptr, 0, 0};
  if (!tokens.lie_in(num_blocks, block_size)) return OUTSIDE_CACHE;
  const Blocks blocks = {num_blocks, block_size, head_stride, block_stride};
  const Cache keys = {k, blocks, dim}, values = {v, blocks, dim};
  for (int64_t h = 0; h < num_kv_heads; ++h)
    for (int64_t row = 0; row < t; ++row) {
      put_key(keys, h, slots[row], new_k + (h * t + row) * dim);
      put_value(values, h, slots[row], new_v + (h * t + row) * dim);
    }
  return GOOD;
}
