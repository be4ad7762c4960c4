// x / rms(x) * (w + offset), for a row.

#pragma once

#include "common.h"

INLINE float sum_of_squares(const bf16* x, int64_t n) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 16) {
    const __m512 value = load(x + i, tail(n - i));
    sum = _mm512_fmadd_ps(value, value, sum);
  }
  return _mm512_reduce_add_ps(sum);
}

// `to` may be `from`. What is divided is rounded before it is multiplied, as in the library's
// modules, which with an offset round once.
INLINE void normalise(const bf16* from, int64_t n, const bf16* w, float offset, float epsilon,
                      bf16* to) {
  const __m512 scale = _mm512_set1_ps(1.f / sqrtf(sum_of_squares(from, n) / n + epsilon));
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = tail(n - i);
    const __m512 scaled = _mm512_mul_ps(load(from + i, mask), scale);
    const __m512 rounded = offset ? scaled : widen((__m256i)_mm512_cvtneps_pbh(scaled));
    const __m512 weight = _mm512_add_ps(load(w + i, mask), _mm512_set1_ps(offset));
    store(to + i, _mm512_mul_ps(weight, rounded), mask);
  }
}
