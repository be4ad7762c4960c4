// Turns queries and keys by their positions, and puts keys and values into the paged cache.

#include "cache.h"
#include "faces.h"
#include "norm.h"

// One head of `dim` numbers, whose halves are the two coordinates (Su et al., as in Llama).
INLINE void turn(bf16* head, int64_t half, const float* cosine, const float* sine) {
  for (int64_t i = 0; i < half; i += 16) {
    const __mmask16 mask = tail(half - i);
    const __m512 a = load(head + i, mask), b = load(head + half + i, mask);
    const __m512 c = _mm512_maskz_loadu_ps(mask, cosine + i);
    const __m512 s = _mm512_maskz_loadu_ps(mask, sine + i);
    store(head + i, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)), mask);
    store(head + half + i, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)), mask);
  }
}

// qkv [t, (num_heads + 2 num_kv_heads) dim], changed in place; q_norm, k_norm [dim] or null: each
// head is normalised before it is turned (as in Qwen 3); positions [t]; cosine, sine [any position,
// dim], of which the first halves are read; slots [t]; k, v: a layer's cache.
FACE void millrace_rope_write(bf16* qkv, int64_t t, int64_t num_heads, int64_t num_kv_heads,
                              int64_t dim, const bf16* q_norm, const bf16* k_norm, float epsilon,
                              const int64_t* positions, const float* cosine, const float* sine,
                              const int64_t* slots, bf16* k, bf16* v, int64_t num_blocks,
                              int64_t block_size) {
  const int64_t width = (num_heads + 2 * num_kv_heads) * dim;
  const Cache keys = {k, num_blocks, block_size, dim}, values = {v, num_blocks, block_size, dim};
#pragma omp parallel for schedule(static) if (t >= 16)
  for (int64_t row = 0; row < t; ++row) {
    bf16* heads = qkv + row * width;
    const int64_t at = positions[row] * dim;
    for (int64_t h = 0; h < num_heads + num_kv_heads; ++h) {
      bf16* head = heads + h * dim;
      const bf16* norm = h < num_heads ? q_norm : k_norm;
      if (norm != nullptr) normalise(head, dim, norm, 0, epsilon, head);
      turn(head, dim / 2, cosine + at, sine + at);
    }
    for (int64_t h = 0; h < num_kv_heads; ++h) {
      put_key(keys, h, slots[row], heads + (num_heads + h) * dim);
      put_value(values, h, slots[row], heads + (num_heads + num_kv_heads + h) * dim);
    }
  }
}

// new_k, new_v [num_kv_heads, t, dim]; slots [t]; k, v: a layer's cache.
FACE void millrace_write(const bf16* new_k, const bf16* new_v, int64_t t, int64_t num_kv_heads,
                         int64_t dim, const int64_t* slots, bf16* k, bf16* v, int64_t num_blocks,
                         int64_t block_size) {
  const Cache keys = {k, num_blocks, block_size, dim}, values = {v, num_blocks, block_size, dim};
  for (int64_t h = 0; h < num_kv_heads; ++h)
    for (int64_t row = 0; row < t; ++row) {
      put_key(keys, h, slots[row], new_k + (h * t + row) * dim);
      put_value(values, h, slots[row], new_v + (h * t + row) * dim);
    }
}
