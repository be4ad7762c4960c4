// y = x W^T in bfloat16, for few rows and for many, over one packed layout. NaN and infinity pass
// through.

#include "product.h"

struct Bf16Product {
  const bf16* x;
  int64_t k;
  const char* packed;
  const bf16* bias;  // or null
  int64_t n;

  int64_t panel_bytes() const { return PANEL * k * 2; }

  template <int ROWS, int EPILOGUE>
  void multiply(const Tile& tile, const Out& out) const {
    const bf16* rows = x + tile.row * k;
    __m512 low[ROWS], high[ROWS];
    __m512 bias0 = _mm512_setzero_ps(), bias1 = bias0;
    if (bias != nullptr) {
      bias0 = load(bias + tile.column, tail(n - tile.column));
      bias1 = load(bias + tile.column + 16, tail(n - tile.column - 16));
    }
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r) low[r] = bias0, high[r] = bias1;
    add_products<ROWS>(rows, k, tile.weights, k / 2, tile.later, tile.stride, low, high);
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r)
      finish<EPILOGUE>(out, tile.row + r, tile.column, low[r], high[r]);
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
                          const bf16* bias, int64_t n, void* y, float* tops,
                          int64_t epilogue) {
  const Bf16Product product = {x, k, (const char*)packed, bias, n};
  multiply_to(product, m, y, tops, epilogue);
}
