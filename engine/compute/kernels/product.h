// What products x W^T share: their division into panels and tiles, and what becomes of the sums.
//
// W [n, k] is packed as panels, each read from its beginning to its end; each thread has its own. A
// tile is up to 14 rows of x, whose sums stay in registers. Memory never rests: tiles ask for what
// is read after their panel, each for a part of it, and the last ones for what the next product
// begins with.

#pragma once

#include "kernels.h"
#include "panel.h"

static const int64_t ROW_BLOCK = 18 * 14;  // rows whose numbers stay in the second-level cache
static const int64_t AHEAD = 8192;         // bytes that a tile of its own asks for in advance
static const int64_t SMALL = 1 << 18;      // products that are done before threads have woken

// What is asked for while a panel is read: from `first` on, `stride` bytes for each step along the
// panel; behind its byte `turn` from `then` on.
struct Later {
  const char* first;
  int64_t stride, turn;
  const char* then;

  const char* at(int64_t byte) const {
    return byte < turn ? first + byte / LINES * stride : then + (byte - turn) / LINES * stride;
  }
};

struct Tile {
  int64_t column, row;
  const char* weights;
  Later later;
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
    *out.top(r, column) =
        largest(_mm512_mask_mov_ps(none, m0, low), _mm512_mask_mov_ps(none, m1, high));
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

// A Product has its Linear, w, and multiply<ROWS, EPILOGUE>(tile, out).

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

// `left`: bytes of this thread's own panels from this one on; `behind`: what it reads after them.
INLINE Later later_of(const char* weights, int64_t bytes, int64_t left, const char* behind,
                      int64_t tile, int64_t num_tiles) {
  if (num_tiles == 1) {
    const int64_t rest = left - AHEAD;
    return {weights + AHEAD, LINES, rest > 0 ? rest : 0, behind - (rest < 0 ? rest : 0)};
  }
  const char* panel = left > bytes ? weights + bytes : behind;
  return {panel + bytes * tile / num_tiles, LINES / num_tiles, bytes, nullptr};
}

template <class Product, int EPILOGUE>
static void multiply_panels(const Team& team, const Product& product, int64_t m, const Out& out,
                            const Linear* next) {
  const Linear& w = product.w;
  const int64_t begin = team.begin(w.num_panels()), end = team.end(w.num_panels());
  const int64_t bytes = w.panel_bytes();
  for (int64_t block = 0; block < m; block += ROW_BLOCK) {
    const int64_t rows = m - block < ROW_BLOCK ? m - block : ROW_BLOCK;
    const int64_t num_tiles = (rows + MAX_ROWS - 1) / MAX_ROWS;
    const bool is_last = block + rows == m && next != nullptr;
    const char* behind = is_last ? next->panel(team.begin(next->num_panels())) : w.panel(begin);
    for (int64_t p = begin; p < end; ++p) {
      const char* weights = w.panel(p);
      for (int64_t t = 0; t < num_tiles; ++t) {  // of nearly equal size
        const int64_t first = rows * t / num_tiles, count = rows * (t + 1) / num_tiles - first;
        // made in place: to copy it would wait until all that is on its way to memory is there
        const Tile tile = {p * PANEL, block + first, weights,
                           later_of(weights, bytes, (end - p) * bytes, behind, t, num_tiles)};
        multiply_rows<Product, EPILOGUE>(product, count, tile, out);
      }
    }
  }
}

template <class Product>
static void multiply_to(const Team& team, const Product& product, int64_t m, void* y, float* tops,
                        Epilogue epilogue, const Linear* next) {
  const int64_t n = product.w.n;
  char* to = (char*)y;
  const Out halves = {to, n * 2, tops, n}, floats = {to, n * 4, tops, n}, gated = {to, n, tops, n};
  switch (epilogue) {
    case STORE:
      return multiply_panels<Product, STORE>(team, product, m, halves, next);
    case ADD:
      return multiply_panels<Product, ADD>(team, product, m, halves, next);
    case SILU_MUL:
      return multiply_panels<Product, SILU_MUL>(team, product, m, gated, next);
    case GELU_MUL:
      return multiply_panels<Product, GELU_MUL>(team, product, m, gated, next);
    case LOGITS:
      return multiply_panels<Product, LOGITS>(team, product, m, floats, next);
    case FLOATS:
      return multiply_panels<Product, FLOATS>(team, product, m, floats, next);
  }
}

// A product by itself, as Python calls it.
INLINE void multiply_alone(const bf16* x, int64_t m, const Linear& w, void* y, float* tops,
                           Epilogue epilogue, char* workspace) {
#pragma omp parallel if (m * w.num_panels() * w.panel_bytes() > SMALL)
  multiply(team(), x, m, w, y, tops, epilogue, workspace, nullptr);
}
