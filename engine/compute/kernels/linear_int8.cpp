// y = x W^T with weights of 8 bits, one scale a column.
//
// x becomes 8 bits too, with one scale for every GROUP numbers of a row, so that sums are exact
// within a group. A panel is [k/4][32][4]: one instruction multiplies sixteen columns by four
// numbers of one row. Weights are kept as w + 128, unsigned, as that instruction wants; `sums`
// takes away again what this adds. NaN and infinity in a row make it NaN.

#include "product.h"

static const int64_t GROUP = 128;

static int64_t num_groups(int64_t k) { return (k + GROUP - 1) / GROUP; }

// A quantised x: values [m, k]; for every row and group a scale and -128 times the values' sum.
struct Rows {
  int8_t* values;
  float* scales;
  int32_t* sums;

  Rows(char* workspace, int64_t m, int64_t k)
      : values((int8_t*)(workspace + 2 * m * num_groups(k) * 4)),
        scales((float*)workspace),
        sums((int32_t*)workspace + m * num_groups(k)) {}
};

// What _mm512_dpbusd_epi32 is for, of which GCC 12 copies the sum twice.
INLINE void add_fours(__m512i& sum, __m512i weights, __m512i four) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(four));
}

// Adds one group's products to ROWS rows of 32 sums. A function of its own, so that its registers
// hold nothing else.
template <int ROWS>
__attribute__((noinline)) static void add_group(const Rows& rows, int64_t k, int64_t row, int64_t g,
                                                const char* w, const char* later, int64_t stride,
                                                float (*sums)[PANEL]) {
  const int64_t groups = num_groups(k), at = row * groups + g, begin = g * GROUP;
  const int8_t* values = rows.values + row * k;
  const int64_t end = begin + GROUP < k ? begin + GROUP : k;
  __m512i low[ROWS], high[ROWS];
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r) low[r] = high[r] = _mm512_set1_epi32(rows.sums[at + r * groups]);
  for (int64_t i = begin; i < end; i += 4, w += LINES, later += stride) {
    const __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + LINES / 2);
    ask_for<ROWS>(later);
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r) {
      int32_t four;
      memcpy(&four, values + r * k + i, sizeof four);
      add_fours(low[r], w0, _mm512_set1_epi32(four));
      add_fours(high[r], w1, _mm512_set1_epi32(four));
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r) {
    const __m512 scale = _mm512_set1_ps(rows.scales[at + r * groups]);
    float* to = sums[r];
    const __m512 a = _mm512_cvtepi32_ps(low[r]), b = _mm512_cvtepi32_ps(high[r]);
    _mm512_store_ps(to, _mm512_fmadd_ps(a, scale, _mm512_load_ps(to)));
    _mm512_store_ps(to + 16, _mm512_fmadd_ps(b, scale, _mm512_load_ps(to + 16)));
  }
}

struct Int8Product {
  const Linear& w;
  Rows rows;

  template <int ROWS, int EPILOGUE>
  void multiply(const Tile& tile, const Out& out) const {
    alignas(64) float sums[ROWS][PANEL] = {};
    for (int64_t g = 0; g < num_groups(w.k); ++g) {
      const int64_t byte = g * GROUP * PANEL;
      add_group<ROWS>(rows, w.k, tile.row, g, tile.weights + byte, tile.later.at(byte),
                      tile.later.stride, sums);
    }
    const int64_t n = w.n, c = tile.column;
    const __mmask16 m0 = tail(n - c), m1 = tail(n - c - 16);
    const __m512 zero = _mm512_setzero_ps();
    const __m512 bias0 = w.bias == nullptr ? zero : load(w.bias + c, m0);
    const __m512 bias1 = w.bias == nullptr ? zero : load(w.bias + c + 16, m1);
    const __m512 scale0 = _mm512_maskz_loadu_ps(m0, w.scales + c);
    const __m512 scale1 = _mm512_maskz_loadu_ps(m1, w.scales + c + 16);
    for (int r = 0; r < ROWS; ++r)
      finish<EPILOGUE>(out, tile.row + r, c,
                       _mm512_fmadd_ps(_mm512_load_ps(sums[r]), scale0, bias0),
                       _mm512_fmadd_ps(_mm512_load_ps(sums[r] + 16), scale1, bias1));
  }
};

// Sixteen numbers as bytes, rounded to the nearest.
INLINE __m128i to_bytes(__m512 numbers) {
  return _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(numbers));
}

INLINE void quantise_group(const bf16* x, int64_t count, int8_t* values, float* scale,
                           int32_t* sum) {
  const __m512 zero = _mm512_setzero_ps();
  __m512 top = zero, probe = zero;
  for (int64_t i = 0; i < count; i += 16) {
    const __m512 number = load(x + i, tail(count - i));
    top = _mm512_max_ps(top, _mm512_abs_ps(number));
    probe = _mm512_fmadd_ps(number, zero, probe);  // NaN where one is not finite
  }
  const float largest = _mm512_reduce_max_ps(top);
  const __m512 factor = _mm512_set1_ps(largest > 0.f ? 127.f / largest : 0.f);
  __m512i total = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = tail(count - i);
    const __m128i bytes = to_bytes(_mm512_mul_ps(load(x + i, mask), factor));
    _mm_mask_storeu_epi8(values + i, mask, bytes);
    total = _mm512_add_epi32(total, _mm512_cvtepi8_epi32(bytes));
  }
  *scale = largest / 127.f + _mm512_reduce_add_ps(probe);
  *sum = -128 * _mm512_reduce_add_epi32(total);
}

static void quantise(const Team& team, const bf16* x, int64_t m, int64_t k, const Rows& rows) {
  const int64_t groups = num_groups(k);
  for (int64_t at = team.begin(m * groups); at < team.end(m * groups); ++at) {
    const int64_t g = at % groups, first = at / groups * k + g * GROUP;
    const int64_t count = k - g * GROUP < GROUP ? k - g * GROUP : GROUP;
    quantise_group(x + first, count, rows.values + first, rows.scales + at, rows.sums + at);
  }
}

// x is quantised in `workspace`.
void multiply_int8(const Team& team, const bf16* x, int64_t m, const Linear& w, void* y,
                   float* tops, Epilogue epilogue, char* workspace, const Linear* next) {
  const Rows rows(workspace, m, w.k);
  quantise(team, x, m, w.k, rows);
  team.wait();
  multiply_to(team, Int8Product{w, rows}, m, y, tops, epilogue, next);
}

static float largest(const bf16* numbers, int64_t count) {
  __m512 top = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; i += 16)
    top = _mm512_max_ps(top, _mm512_abs_ps(load(numbers + i, tail(count - i))));
  return _mm512_reduce_max_ps(top);
}

// rows [n] of k numbers, a multiple of four, to `packed` and `scales` [n], with zeros behind the
// last.
EXPORT void millrace_pack_int8(const bf16* const* rows, int64_t n, int64_t k, uint8_t* packed,
                               float* scales) {
#pragma omp parallel for
  for (int64_t row = 0; row < n; ++row) scales[row] = largest(rows[row], k);
  pack_panels(n, k, packed, [&](uint8_t* column, int64_t row, int64_t from, int64_t to) {
    const __m512 factor = _mm512_set1_ps(scales[row] > 0.f ? 127.f / scales[row] : 0.f);
    for (int64_t i = from; i < to; i += 16) {
      const __m512 numbers = load(rows[row] + i, tail(k - i));
      const __m128i bytes = to_bytes(_mm512_mul_ps(numbers, factor));
      uint8_t sixteen[16];
      _mm_storeu_si128((__m128i*)sixteen, _mm_xor_si128(bytes, _mm_set1_epi8((char)128)));
      for (int64_t j = 0; j < 16 && i + j < k; j += 4)
        memcpy(column + (i + j) * PANEL, sixteen + j, 4);
    }
  });
  for (int64_t row = 0; row < n; ++row) scales[row] /= 127.f;
}

// Bytes of `workspace` for a quantised x.
EXPORT int64_t millrace_int8_workspace(int64_t m, int64_t k) { return m * (k + 8 * num_groups(k)); }

EXPORT void millrace_linear_int8(const bf16* x, int64_t m, int64_t k, const uint8_t* packed,
                                 const float* scales, const bf16* bias, int64_t n, void* y,
                                 float* tops, int64_t epilogue, char* workspace) {
  multiply_alone(x, m, {packed, scales, bias, n, k}, y, tops, (Epilogue)epilogue, workspace);
}
