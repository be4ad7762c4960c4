// y = x W^T, for few rows and for many, over one packed layout.
//
// W [n, k] is packed as panels of 32 columns, [n/32][k/2][32][2]: a panel is read from its beginning
// to its end, and one instruction multiplies sixteen columns by a pair of numbers of one row. Up to
// 14 rows share each pair of registers of weights. NaN and infinity pass through.

#include "faces.h"

static const int64_t PANEL = 32;
static const int MAX_ROWS = 14;            // 28 registers of sums, 2 of weights, 1 of the row
static const int64_t ROW_BLOCK = 18 * 14;  // rows whose numbers stay in the second-level cache
static const int64_t AHEAD = 4096;         // numbers that are asked for in advance by one tile
static const int64_t SMALL = 1 << 18;      // products that are done before threads have woken

// What becomes of a row's 32 sums in columns `n` to `n + 31`.
template <int EPILOGUE>
INLINE void finish(void* row, int64_t n, int64_t num_columns, __m512 low, __m512 high) {
  const int64_t left = num_columns - n;
  const __mmask16 m0 = tail(left), m1 = tail(left - 16);
  if (EPILOGUE == FLOAT) {
    _mm512_mask_storeu_ps((float*)row + n, m0, low);
    _mm512_mask_storeu_ps((float*)row + n + 16, m1, high);
  } else if (EPILOGUE == SILU_MUL) {  // sixteen columns of the gate, then sixteen to multiply
    store((bf16*)row + n / 2, _mm512_mul_ps(silu(low), high), tail(left / 2));
  } else {
    bf16* y = (bf16*)row + n;
    if (EPILOGUE == ADD) {
      low = _mm512_add_ps(low, load(y, m0));
      high = _mm512_add_ps(high, load(y + 16, m1));
    }
    store(y, low, m0);
    store(y + 16, high, m1);
  }
}

struct Panel {
  const bf16* weights;
  const bf16* bias;  // or null
  int64_t first, num_columns, k;
  const bf16* later;  // what is asked for meanwhile, a `share`th of a panel
  int64_t share;
};

template <int ROWS, int EPILOGUE>
static void multiply(const bf16* x, int64_t ldx, const Panel& panel, char* y, int64_t y_bytes) {
  const int64_t n = panel.first;
  __m512 low[ROWS], high[ROWS];
  __m512 bias0 = _mm512_setzero_ps(), bias1 = bias0;
  if (panel.bias != nullptr) {
    bias0 = load(panel.bias + n, tail(panel.num_columns - n));
    bias1 = load(panel.bias + n + 16, tail(panel.num_columns - n - 16));
  }
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r) low[r] = bias0, high[r] = bias1;
  const bf16 *w = panel.weights, *later = panel.later;
  for (int64_t k = 0; k < panel.k; k += 2, w += 2 * PANEL, later += 2 * PANEL / panel.share) {
    const __m512bh w0 = (__m512bh)_mm512_loadu_si512(w);
    const __m512bh w1 = (__m512bh)_mm512_loadu_si512(w + PANEL);
    _mm_prefetch((const char*)later, _MM_HINT_T0);
    _mm_prefetch((const char*)(later + PANEL), _MM_HINT_T0);
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r) {
      const __m512bh pair = broadcast_pair(x + r * ldx + k);
      low[r] = _mm512_dpbf16_ps(low[r], w0, pair);
      high[r] = _mm512_dpbf16_ps(high[r], w1, pair);
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r)
    finish<EPILOGUE>(y + r * y_bytes, n, panel.num_columns, low[r], high[r]);
}

typedef void (*Multiply)(const bf16*, int64_t, const Panel&, char*, int64_t);

template <int EPILOGUE>
static Multiply multiply_rows(int64_t num_rows) {
  static const Multiply by_rows[MAX_ROWS + 1] = {
      nullptr,
      multiply<1, EPILOGUE>,  multiply<2, EPILOGUE>,  multiply<3, EPILOGUE>,
      multiply<4, EPILOGUE>,  multiply<5, EPILOGUE>,  multiply<6, EPILOGUE>,
      multiply<7, EPILOGUE>,  multiply<8, EPILOGUE>,  multiply<9, EPILOGUE>,
      multiply<10, EPILOGUE>, multiply<11, EPILOGUE>, multiply<12, EPILOGUE>,
      multiply<13, EPILOGUE>, multiply<14, EPILOGUE>};
  return by_rows[num_rows];
}

template <int EPILOGUE>
static void linear(const bf16* x, int64_t m, int64_t k, const bf16* packed, const bf16* bias,
                   int64_t n, char* y, int64_t y_bytes) {
  const int64_t num_panels = (n + PANEL - 1) / PANEL;
  for (int64_t begin = 0; begin < m; begin += ROW_BLOCK) {
    const int64_t rows = m - begin < ROW_BLOCK ? m - begin : ROW_BLOCK;
    const int64_t num_tiles = (rows + MAX_ROWS - 1) / MAX_ROWS;
#pragma omp parallel for schedule(static) if (rows * n * k > SMALL)
    for (int64_t p = 0; p < num_panels; ++p) {
      const bf16* weights = packed + p * PANEL * k;
      int64_t done = 0;
      for (int64_t tile = 1; tile <= num_tiles; ++tile) {  // of nearly equal size
        const int64_t next = rows * tile / num_tiles;
        const int64_t row = begin + done;
        // Several tiles share the reading of the next panel: memory never rests.
        const bf16* later = num_tiles == 1 ? weights + AHEAD
                                           : weights + PANEL * k + PANEL * k * (tile - 1) / num_tiles;
        const Panel panel = {weights, bias, p * PANEL, n, k, later, num_tiles};
        multiply_rows<EPILOGUE>(next - done)(x + row * k, k, panel, y + row * y_bytes, y_bytes);
        done = next;
      }
    }
  }
}

// weight [n, k] to `packed`, whose last panel keeps what is behind row n: zero it before.
FACE void millrace_pack(const bf16* weight, int64_t n, int64_t k, bf16* packed) {
#pragma omp parallel for
  for (int64_t row = 0; row < n; ++row) {
    bf16* panel = packed + row / PANEL * PANEL * k + row % PANEL * 2;
    for (int64_t i = 0; i < k; i += 2) memcpy(panel + i * PANEL, weight + row * k + i, 4);
  }
}

// x [m, k]; y [m, n] of bf16, or of float, or [m, n/2] where gate and factor are multiplied.
FACE void millrace_linear(const bf16* x, int64_t m, int64_t k, const bf16* packed,
                          const bf16* bias, int64_t n, void* y, int64_t epilogue) {
  char* out = (char*)y;
  switch (epilogue) {
    case STORE: return linear<STORE>(x, m, k, packed, bias, n, out, n * 2);
    case ADD: return linear<ADD>(x, m, k, packed, bias, n, out, n * 2);
    case SILU_MUL: return linear<SILU_MUL>(x, m, k, packed, bias, n, out, n);
    case FLOAT: return linear<FLOAT>(x, m, k, packed, bias, n, out, n * 4);
  }
}
