// y = x W^T in bfloat16, for few rows and for many, over one packed layout.
//
// A panel is [k/2][32][2]: one instruction multiplies sixteen columns by a pair of numbers of one
// row. NaN and infinity pass through.

#include "product.h"

struct Bf16Product {
  const bf16* x;
  int64_t k;
  const char* packed;
  const bf16* bias;  // or null
  int64_t n;

  int64_t panel_bytes() const { return PANEL * k * 2; }

  template <int ROWS, int EPILOGUE>
  void multiply(const Tile& tile, char* y, int64_t y_bytes) const {
    const bf16* rows = x + tile.row * k;
    __m512 low[ROWS], high[ROWS];
    __m512 bias0 = _mm512_setzero_ps(), bias1 = bias0;
    if (bias != nullptr) {
      bias0 = load(bias + tile.column, tail(n - tile.column));
      bias1 = load(bias + tile.column + 16, tail(n - tile.column - 16));
    }
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r) low[r] = bias0, high[r] = bias1;
    const char *w = tile.weights, *later = tile.later;
    for (int64_t i = 0; i < k; i += 2, w += LINES, later += tile.stride) {
      const __m512bh w0 = (__m512bh)_mm512_loadu_si512(w);
      const __m512bh w1 = (__m512bh)_mm512_loadu_si512(w + LINES / 2);
      ask_for(later);
#pragma GCC unroll 14
      for (int r = 0; r < ROWS; ++r) {
        const __m512bh pair = broadcast_pair(rows + r * k + i);
        low[r] = _mm512_dpbf16_ps(low[r], w0, pair);
        high[r] = _mm512_dpbf16_ps(high[r], w1, pair);
      }
    }
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r)
      finish<EPILOGUE>(y + r * y_bytes, tile.column, n, low[r], high[r]);
  }
};

// weight [n, k] to `packed`, whose last panel keeps what is behind row n: zero it before.
FACE void millrace_pack(const bf16* weight, int64_t n, int64_t k, bf16* packed) {
#pragma omp parallel for
  for (int64_t row = 0; row < n; ++row) {
    bf16* panel = packed + row / PANEL * PANEL * k + row % PANEL * 2;
    for (int64_t i = 0; i < k; i += 2) memcpy(panel + i * PANEL, weight + row * k + i, 4);
  }
}

// x [m, k]
FACE void millrace_linear(const bf16* x, int64_t m, int64_t k, const bf16* packed,
                          const bf16* bias, int64_t n, void* y, int64_t epilogue) {
  const Bf16Product product = {x, k, (const char*)packed, bias, n};
  multiply_to(product, m, y, epilogue);
}
