// The best of each row of logits, and its logprob.

#include "common.h"
#include "panel.h"

// Where the first number of a row is that equals `value`, or -1.
static int64_t find(const float* row, int64_t n, float value) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = tail(n - i);
    const __m512 x = _mm512_maskz_loadu_ps(mask, row + i);
    const __mmask16 is_it = _mm512_mask_cmp_ps_mask(mask, x, _mm512_set1_ps(value), _CMP_EQ_OQ);
    if (is_it) return i + __builtin_ctz(is_it);
  }
  return -1;
}

// The largest of a row; NaN where one is NaN.
static float peak(const float* row, int64_t n) {
  __m512 top = _mm512_set1_ps(-INFINITY);
  __mmask16 is_nan = 0;
  for (int64_t i = 0; i < n; i += 16) {
    const __m512 x = _mm512_mask_loadu_ps(top, tail(n - i), row + i);
    is_nan |= _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    top = _mm512_max_ps(top, x);
  }
  return is_nan ? NAN : _mm512_reduce_max_ps(top);
}

static float log_sum_exp(const float* row, int64_t n, float top) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = tail(n - i);
    const __m512 x = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, row + i), _mm512_set1_ps(top));
    sum = _mm512_mask_add_ps(sum, mask, sum, exp16(x));
  }
  return logf(_mm512_reduce_add_ps(sum));
}

// Of logits [any, n] and the largest of their panels, tops [any, panels], the m rows that `rows`
// names; ids [m]: the lowest among equals, -1 where the row has a NaN or its maximum is not finite;
// logprobs [m], or null.
EXPORT void millrace_greedy(const float* logits, const float* tops, int64_t n, const int64_t* rows,
                            int64_t m, int64_t* ids, float* logprobs) {
  const int64_t num_panels = (n + PANEL - 1) / PANEL;
#pragma omp parallel for schedule(dynamic) if (m > 4)
  for (int64_t i = 0; i < m; ++i) {
    const float *row = logits + rows[i] * n, *panels = tops + rows[i] * num_panels;
    const float top = peak(panels, num_panels);
    ids[i] = -1;
    if (logprobs != nullptr) logprobs[i] = NAN;
    if (!isfinite(top)) continue;
    const int64_t first = find(panels, num_panels, top) * PANEL;
    ids[i] = first + find(row + first, n - first, top);
    if (logprobs != nullptr) logprobs[i] = -log_sum_exp(row, n, top);
  }
}
