// What LoRA adapters add to some tokens of a step: y += (x A^T) B^T beside a linear.

#pragma once

#include "kernels.h"

// The structs are those of library.py.

struct LowRank {
  const bf16 *a, *b;  // A [rank, k] and B [n, rank], packed; B holds the scale; or null
  int64_t rank;       // even
};

struct LayerAdapter {
  LowRank qkv, out, gate_up, down;
};

// The tokens of a step that an adapter is for.
struct AdapterTokens {
  const LayerAdapter* layers;
  int64_t num_tokens;
  const int64_t* tokens;
};

struct AdapterWorkspace {
  bf16 *gathered, *narrow;  // [tokens, k], [tokens, rank]
  float* added;             // [tokens, n]
};

INLINE void add(float* y, __m512 value, __mmask16 mask) {
  _mm512_mask_storeu_ps(y, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), value));
}

INLINE void add(bf16* y, __m512 value, __mmask16 mask) {
  store(y, _mm512_add_ps(load(y, mask), value), mask);
}

// x [step's tokens, k] times an adapter's low rank is added to y [step's tokens, n].
template <class Number>
static void add_low_rank(const Team& team, const AdapterTokens& of, const LowRank& w, const bf16* x,
                         int64_t k, Number* y, int64_t n, const AdapterWorkspace& workspace) {
  if (w.a == nullptr) return;
  const Linear a = {w.a, nullptr, nullptr, w.rank, k}, b = {w.b, nullptr, nullptr, n, w.rank};
  const int64_t m = of.num_tokens, begin = team.begin(m), end = team.end(m);
  for (int64_t i = begin; i < end; ++i)
    memcpy(workspace.gathered + i * k, x + of.tokens[i] * k, k * sizeof(bf16));
  team.wait();
  multiply(team, workspace.gathered, m, a, workspace.narrow, nullptr, STORE, nullptr, &b);
  team.wait();
  multiply(team, workspace.narrow, m, b, workspace.added, nullptr, FLOATS, nullptr, nullptr);
  team.wait();
  for (int64_t i = begin; i < end; ++i) {
    const float* from = workspace.added + i * n;
    Number* to = y + of.tokens[i] * n;
    for (int64_t j = 0; j < n; j += 16) {
      const __mmask16 mask = tail(n - j);
      add(to + j, _mm512_maskz_loadu_ps(mask, from + j), mask);
    }
  }
  team.wait();
}

// What the epilogue SILU_MUL does, of sums [m, n] that an adapter was added to; n is a multiple
// of 32.
static void silu_mul(const Team& team, const float* sums, int64_t m, int64_t n, bf16* y) {
  for (int64_t i = team.begin(m); i < team.end(m); ++i)
    for (int64_t j = 0; j < n; j += 32) {
      const float* from = sums + i * n + j;
      store(y + (i * n + j) / 2,
            _mm512_mul_ps(silu(_mm512_loadu_ps(from)), _mm512_loadu_ps(from + 16)));
    }
}
