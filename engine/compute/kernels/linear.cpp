// y = x W^T in bfloat16, for few rows and for many, over one packed layout. NaN and infinity pass
// through.

#include "product.h"

struct Bf16Product {
  const Linear& w;
  const bf16* x;

  template <int ROWS, int EPILOGUE>
  void multiply(const Tile& tile, const Out& out) const {
    const bf16* rows = x + tile.row * w.k;
    __m512 low[ROWS], high[ROWS];
    __m512 bias0 = _mm512_setzero_ps(), bias1 = bias0;
    if (w.bias != nullptr) {
      bias0 = load(w.bias + tile.column, tail(w.n - tile.column));
      bias1 = load(w.bias + tile.column + 16, tail(w.n - tile.column - 16));
    }
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r) low[r] = bias0, high[r] = bias1;
    const int64_t bytes = w.panel_bytes(), turn = tile.later.turn < bytes ? tile.later.turn : bytes;
    for (int64_t byte = 0, stop = turn; byte < bytes; byte = stop, stop = bytes)
      add_products<ROWS>(rows + 2 * byte / LINES, w.k, tile.weights + byte, (stop - byte) / LINES,
                         tile.later.at(byte), tile.later.stride, low, high);
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r)
      finish<EPILOGUE>(out, tile.row + r, tile.column, low[r], high[r]);
  }
};

void multiply(const Team& team, const bf16* x, int64_t m, const Linear& w, void* y, float* tops,
              Epilogue epilogue, char* workspace, const Linear* next) {
  if (w.scales != nullptr) return multiply_int8(team, x, m, w, y, tops, epilogue, workspace, next);
  multiply_to(team, Bf16Product{w, x}, m, y, tops, epilogue, next);
}

// rows [n] of k numbers to `packed`, with zeros behind the last.
EXPORT void millrace_pack(const bf16* const* rows, int64_t n, int64_t k, bf16* packed) {
  pack_panels(n, k, packed, [&](bf16* column, int64_t row, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i += 2) memcpy(column + i * PANEL, rows[row] + i, 4);
  });
}

EXPORT void millrace_linear(const bf16* x, int64_t m, int64_t k, const bf16* packed,
                            const bf16* bias, int64_t n, void* y, float* tops, int64_t epilogue) {
  multiply_alone(x, m, {packed, nullptr, bias, n, k}, y, tops, (Epilogue)epilogue, nullptr);
}
