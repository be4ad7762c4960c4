// A row of logits without what may not come.

#include "common.h"
#include "panel.h"

// Copies `row` [n] to `out`, which may be the row itself; -inf where `mask` [panels], a bit for
// each number, has none. `tops` [panels]: the largest of each panel; NaN where one is NaN.
EXPORT void millrace_mask(const float* row, int64_t n, const uint32_t* mask, float* out,
                          float* tops) {
  const int64_t num_panels = (n + PANEL - 1) / PANEL;
  const __m512 none = _mm512_set1_ps(-INFINITY);
#pragma omp parallel for schedule(static) if (num_panels > 1024)
  for (int64_t p = 0; p < num_panels; ++p) {
    __m512 top = none;
    __mmask16 is_nan = 0;
    for (int half = 0; half < 2; ++half) {
      const int64_t i = p * PANEL + 16 * half;
      const __mmask16 width = tail(n - i), kept = width & (__mmask16)(mask[p] >> (16 * half));
      const __m512 x = kept ? _mm512_mask_loadu_ps(none, kept, row + i) : none;
      _mm512_mask_storeu_ps(out + i, width, x);
      is_nan |= _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
      top = _mm512_max_ps(top, x);
    }
    tops[p] = is_nan ? NAN : _mm512_reduce_max_ps(top);
  }
}
