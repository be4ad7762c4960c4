// What products x W^T share: their division into panels and tiles, and what becomes of the sums.
//
// W [n, k] is packed as panels, each read from its beginning to its end. A tile is up to 14 rows of x, whose sums stay in registers. Several tiles share the reading of the next panel
// from memory, so that it never rests.

#pragma once

#include "faces.h"
#include "panel.h"

static const int64_t ROW_BLOCK = 18 * 14;  // rows whose numbers stay in the second-level cache
static const int64_t AHEAD = 8192;         // bytes that a tile of its own asks for in advance
static const int64_t SMALL = 1 << 18;      // products that are done before threads have woken

struct Tile {
  int64_t column, row;
  const char* weights;
  const char* later;  // what is asked for meanwhile
  int64_t stride;     // of it in each step along k
};

// Where a product goes: y [m, n] of bf16, or of float, or [m, n/2] where gate and factor are
// multiplied; with float, the largest of each panel of a row in tops [m, panels].
struct Out {
  char* y;
  int64_t row_bytes;
  float* tops;
  int64_t n;

  char* row(int64_t r) const { return y + r * row_bytes; }
  float* top(int64_t r, int64_t column) const {
    return tops + r * ((n + PANEL - 1) / PANEL) + column / PANEL;
  }
};

// The largest of 32 numbers; NaN where one is NaN.
INLINE float largest(__m512 low, __m512 high) {
  const bool is_nan = _mm512_cmp_ps_mask(low, high, _CMP_UNORD_Q);
  return is_nan ? NAN : _mm512_reduce_max_ps(_mm512_max_ps(low, high));
}

// A row's 32 sums from a column on go out.
template <int EPILOGUE>
INLINE void finish(const Out& out, int64_t r, int64_t column, __m512 low, __m512 high) {
  const int64_t left = out.n - column;
  const __mmask16 m0 = tail(left), m1 = tail(left - 16);
  if (EPILOGUE == LOGITS) {
    float* y = (float*)out.row(r) + column;
    _mm512_mask_storeu_ps(y, m0, low);
    _mm512_mask_storeu_ps(y + 16, m1, high);
    const __m512 none = _mm512_set1_ps(-INFINITY);
    *out.top(r, column) = largest(_mm512_mask_mov_ps(none, m0, low),
                                  _mm512_mask_mov_ps(none, m1, high));
  } else if (EPILOGUE == FLOATS) {
    float* y = (float*)out.row(r) + column;
    _mm512_mask_storeu_ps(y, m0, low);
    _mm512_mask_storeu_ps(y + 16, m1, high);
  } else if (EPILOGUE == SILU_MUL || EPILOGUE == GELU_MUL) {  // 16 of the gate, then 16 to multiply
    bf16* y = (bf16*)out.row(r) + column / 2;
    const __m512 gate = EPILOGUE == SILU_MUL ? silu(low) : gelu(low);
    store(y, _mm512_mul_ps(gate, high), tail(left / 2));
  } else {
    bf16* y = (bf16*)out.row(r) + column;
    if (EPILOGUE == ADD) {
      low = _mm512_add_ps(low, load(y, m0));
      high = _mm512_add_ps(high, load(y + 16, m1));
    }
    store(y, low, m0);
    store(y + 16, high, m1);
  }
}

// A Product has n, packed, panel_bytes() and multiply<ROWS, EPILOGUE>(tile, out).

template <class Product, int ROWS, int EPILOGUE>
static void multiply(const Product& product, const Tile& tile, const Out& out) {
  product.template multiply<ROWS, EPILOGUE>(tile, out);
}

template <class Product, int EPILOGUE>
static void multiply_rows(const Product& p, int64_t num_rows, const Tile& tile, const Out& out) {
  typedef void (*Multiply)(const Product&, const Tile&, const Out&);
  static const Multiply by_rows[MAX_ROWS] = {
      multiply<Product, 1, EPILOGUE>,  multiply<Product, 2, EPILOGUE>,
      multiply<Product, 3, EPILOGUE>,  multiply<Product, 4, EPILOGUE>,
      multiply<Product, 5, EPILOGUE>,  multiply<Product, 6, EPILOGUE>,
      multiply<Product, 7, EPILOGUE>,  multiply<Product, 8, EPILOGUE>,
      multiply<Product, 9, EPILOGUE>,  multiply<Product, 10, EPILOGUE>,
      multiply<Product, 11, EPILOGUE>, multiply<Product, 12, EPILOGUE>,
      multiply<Product, 13, EPILOGUE>, multiply<Product, 14, EPILOGUE>};
  by_rows[num_rows - 1](p, tile, out);
}

template <class Product, int EPILOGUE>
static void multiply_panels(const Product& product, int64_t m, const Out& out) {
  const int64_t num_panels = (product.n + PANEL - 1) / PANEL, bytes = product.panel_bytes();
  for (int64_t begin = 0; begin < m; begin += ROW_BLOCK) {
    const int64_t rows = m - begin < ROW_BLOCK ? m - begin : ROW_BLOCK;
    const int64_t num_tiles = (rows + MAX_ROWS - 1) / MAX_ROWS;
#pragma omp parallel for schedule(static) if (rows * num_panels * bytes > SMALL)
    for (int64_t p = 0; p < num_panels; ++p) {
      const char* weights = product.packed + p * bytes;
      for (int64_t t = 0; t < num_tiles; ++t) {  // of nearly equal size
        const int64_t first = rows * t / num_tiles, end = rows * (t + 1) / num_tiles;
        const int64_t later = num_tiles == 1 ? AHEAD : bytes + bytes * t / num_tiles;
        const Tile tile = {p * PANEL, begin + first, weights, weights + later, LINES / num_tiles};
        multiply_rows<Product, EPILOGUE>(product, end - first, tile, out);
      }
    }
  }
}

template <class Product>
static void multiply_to(const Product& product, int64_t m, void* y, float* tops,
                        int64_t epilogue) {
  const int64_t n = product.n;
  char* to = (char*)y;
  switch (epilogue) {
    case STORE: return multiply_panels<Product, STORE>(product, m, Out{to, n * 2, tops, n});
    case ADD: return multiply_panels<Product, ADD>(product, m, Out{to, n * 2, tops, n});
    case SILU_MUL: return multiply_panels<Product, SILU_MUL>(product, m, Out{to, n, tops, n});
    case GELU_MUL: return multiply_panels<Product, GELU_MUL>(product, m, Out{to, n, tops, n});
    case LOGITS: return multiply_panels<Product, LOGITS>(product, m, Out{to, n * 4, tops, n});
    case FLOATS: return multiply_panels<Product, FLOATS>(product, m, Out{to, n * 4, tops, n});
  }
}
