// What the kernels share: bfloat16 in and out, exp, and what compiler and processor must offer.
//
// A kernel has a C interface, takes raw pointers and sizes in elements, and allocates nothing.
// native.py checks the sizes. It runs on the OpenMP threads of torch, which is loaded before.

#pragma once

#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni,avx2,fma")

#define EXPORT extern "C" __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

typedef uint16_t bf16;

// What a function returns that looks first where its numbers lead; nothing was done but for GOOD.
enum Verdict { GOOD, OUTSIDE_CACHE, OUTSIDE_ROPE_TABLE, OUTSIDE_EMBEDDING, OUTSIDE_STEP };

// Sixteen numbers of a register; `mask` says which of them exist.

INLINE __m512 widen(__m256i half) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

INLINE __m512 load(const bf16* from) { return widen(_mm256_loadu_si256((const __m256i*)from)); }

INLINE __m512 load(const bf16* from, __mmask16 mask) {
  return widen(_mm256_maskz_loadu_epi16(mask, from));
}

INLINE void store(bf16* to, __m512 value) {
  _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(value));
}

INLINE void store(bf16* to, __m512 value, __mmask16 mask) {
  _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(value));
}

// Where a loop in steps of sixteen has `left` numbers left.
INLINE __mmask16 tail(int64_t left) {
  return left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
}

// The same pair of numbers in every place, for a product of pairs.
INLINE __m512bh broadcast_pair(const bf16* pair) {
  int32_t bits;
  memcpy(&bits, pair, sizeof bits);
  return (__m512bh)_mm512_set1_epi32(bits);
}

// exp to 2e-7 of its value: 2^n times a polynomial of the rest (Cephes' coefficients for 2^x). NaN
// stays NaN, since of two operands the second is given where one is NaN.
INLINE __m512 exp16(__m512 x) {
  x = _mm512_min_ps(_mm512_set1_ps(88.f), _mm512_max_ps(_mm512_set1_ps(-87.f), x));
  const __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f));
  const __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(t, n);
  __m512 p = _mm512_set1_ps(1.535336188319500e-4f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.339887440266574e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.618437357674640e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.550332471162809e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.402264791363012e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931472028550421e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.f));
  return _mm512_scalef_ps(p, n);
}

INLINE __m512 silu(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.f);
  return _mm512_div_ps(x, _mm512_add_ps(one, exp16(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

// The approximation by tanh (Hendrycks and Gimpel), as Gemma has it: x sigmoid(2 u).
INLINE __m512 gelu(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.f), cubic = _mm512_set1_ps(-2.f * 0.7978845608f * 0.044715f);
  const __m512 slope =
      _mm512_fmadd_ps(_mm512_mul_ps(x, x), cubic, _mm512_set1_ps(-2.f * 0.7978845608f));
  return _mm512_div_ps(x, _mm512_add_ps(one, exp16(_mm512_mul_ps(x, slope))));
}
