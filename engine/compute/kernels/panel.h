// Panels of 32 columns, [pairs][32][2]: what the products' weights, and the cache's keys and
// values, are laid out as. One instruction multiplies sixteen columns by a pair of numbers of one
// row.

#pragma once

#include "common.h"

static const int64_t PANEL = 32;
static const int MAX_ROWS = 14;    // 28 registers of sums, 2 of the panel, 1 of the row
static const int64_t LINES = 128;  // bytes of a panel in one step along the pairs

// So few rows are the only ones that read a panel in a step, see multiply_panels in product.h. It
// goes past the second-level cache then, where Python needs the room between two steps.
template <int ROWS>
INLINE void ask_for(const char* later) {
  constexpr _mm_hint hint = ROWS < MAX_ROWS / 2 ? _MM_HINT_NTA : _MM_HINT_T0;
  _mm_prefetch(later, hint);
  _mm_prefetch(later + LINES / 2, hint);
}

// Adds rows [ROWS, 2 num_pairs], `stride` numbers apart, times a panel to their sums; meanwhile
// asks for what is at `later`, `later_stride` bytes on in each step.
template <int ROWS>
INLINE void add_products(const bf16* rows, int64_t stride, const char* panel, int64_t num_pairs,
                         const char* later, int64_t later_stride, __m512* low, __m512* high) {
  for (int64_t i = 0; i < num_pairs; ++i, panel += LINES, later += later_stride) {
    const __m512bh w0 = (__m512bh)_mm512_loadu_si512(panel);
    const __m512bh w1 = (__m512bh)_mm512_loadu_si512(panel + LINES / 2);
    ask_for<ROWS>(later);
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r) {
      const __m512bh pair = broadcast_pair(rows + r * stride + 2 * i);
      low[r] = _mm512_dpbf16_ps(low[r], w0, pair);
      high[r] = _mm512_dpbf16_ps(high[r], w1, pair);
    }
  }
}

// Lays out n rows of k numbers as panels, with zeros behind the last: put(column, row, from, to)
// writes these numbers of a row. All rows of a panel go on together, a line at a time, since what
// they write lies between each other's numbers.
template <typename T, typename Put>
void pack_panels(int64_t n, int64_t k, T* packed, const Put& put) {
  const int64_t step = 64 / sizeof(bf16), pair = 4 / sizeof(T);
#pragma omp parallel for
  for (int64_t first = 0; first < n; first += PANEL) {
    T* panel = packed + first * k;
    const int64_t end = first + PANEL < n ? first + PANEL : n;
    if (end < first + PANEL) memset(panel, 0, PANEL * k * sizeof(T));
    for (int64_t from = 0; from < k; from += step)
      for (int64_t row = first; row < end; ++row)
        put(panel + (row - first) * pair, row, from, from + step < k ? from + step : k);
  }
}
