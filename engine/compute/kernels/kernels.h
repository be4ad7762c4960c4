// The kernels, as each thread of a team calls them; each is described where it is written, above
// what Python calls.

#pragma once

#include "cache.h"
#include "common.h"
#include "team.h"
#include "units.h"

static const int64_t FEW = 16;  // rows for which one thread is done before others have woken

// What becomes of a product: stored, added to what is there, silu(gate) or gelu(gate) * factor of
// interleaved columns, stored as float beside the largest of each panel, stored as float.
enum Epilogue { STORE, ADD, SILU_MUL, GELU_MUL, LOGITS, FLOATS };

// The structs of library.py.

struct Linear {
  const void* packed;   // bfloat16, or 8 bits with
  const float* scales;  // or null
  const bf16* bias;     // or null
  int64_t n, k;

  int64_t num_panels() const { return (n + PANEL - 1) / PANEL; }
  int64_t panel_bytes() const { return PANEL * k * (scales == nullptr ? 2 : 1); }
  const char* panel(int64_t p) const { return (const char*)packed + p * panel_bytes(); }
};

// y = x W^T for x [m, k]. `tops` is for LOGITS, `workspace` for weights of 8 bits; what the threads
// read after this is `next`, or null.
void multiply(const Team& team, const bf16* x, int64_t m, const Linear& w, void* y, float* tops,
              Epilogue epilogue, char* workspace, const Linear* next);

void multiply_int8(const Team& team, const bf16* x, int64_t m, const Linear& w, void* y,
                   float* tops, Epilogue epilogue, char* workspace, const Linear* next);

void rms_norm(const Team& team, const bf16* x, int64_t m, int64_t n, const bf16* w, float offset,
              float epsilon, bf16* y);

void rope_write(const Units& units, bf16* qkv, const bf16* q_norm, const bf16* k_norm,
                float epsilon, const float* cosine, const float* sine, const Cache& keys,
                const Cache& values);

void attend(const Team& team, const Units& units, const bf16* queries, int64_t query_stride,
            const Cache& keys, const Cache& values, float scale, char* scratch, bf16* out);
