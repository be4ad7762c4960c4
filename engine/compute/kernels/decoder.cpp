// One step of a dense Llama-like decoder: a loop over a table of layers, in one call, since a small
// model's kernels are shorter than a call from Python.

#include "adapter.h"

// The structs are those of library.py.

struct Linear {
  const void* packed;   // bfloat16, or 8 bits with
  const float* scales;  // or null
  const bf16* bias;     // or null
  int64_t n, k;
};

struct Layer {
  const bf16* norm;
  Linear qkv;
  const bf16 *q_norm, *k_norm;  // or null
  Linear out;
  const bf16* mlp_norm;
  Linear gate_up, down;
  bf16 *k, *v;
  int64_t window;
  float scale;
};

struct Shape {
  int64_t num_layers, hidden, num_heads, num_kv_heads, dim, num_blocks, block_size;
  float epsilon;
};

struct Step {
  int64_t num_tokens;
  bf16* x;  // [num_tokens, hidden]: embedded tokens, to which every layer adds
  const int64_t *positions, *slots, *rows, *tables;
  int64_t table_stride;
  const float *cosine, *sine;
  bf16 *y, *qkv, *attended, *h;  // room for the layers' own results
  char *scratch, *room;  // for attention; for products of 8 bits
  int64_t num_adapters;
  const AdapterTokens* adapters;
  AdapterRoom adapter_room;
  float* sums;  // [num_tokens, gate_up.n], where there are adapters
};

static void multiply(const bf16* x, const Step& s, const Linear& w, void* y, Epilogue epilogue) {
  if (w.scales == nullptr)
    millrace_linear(x, s.num_tokens, w.k, (const bf16*)w.packed, w.bias, w.n, y, nullptr, epilogue);
  else
    millrace_linear_int8(x, s.num_tokens, w.k, (const uint8_t*)w.packed, w.scales, w.bias, w.n, y,
                         nullptr, epilogue, s.room);
}

// Adds to y what the step's adapters make of a linear's input.
template <class Number>
static void adapt(const Step& s, int64_t layer, LowRank LayerAdapter::*part, const bf16* x,
                  const Linear& w, Number* y) {
  for (int64_t i = 0; i < s.num_adapters; ++i)
    add_low_rank(s.adapters[i], s.adapters[i].layers[layer].*part, x, w.k, y, w.n, s.adapter_room);
}

// silu(gate) * up; where an adapter adds to them, by way of all their sums, which are the same.
static void multiply_gate(const Step& s, int64_t layer, const Linear& w) {
  if (s.num_adapters == 0) return multiply(s.y, s, w, s.h, SILU_MUL);
  multiply(s.y, s, w, s.sums, FLOATS);
  adapt(s, layer, &LayerAdapter::gate_up, s.y, w, s.sums);
  silu_mul(s.sums, s.num_tokens, w.n, s.h);
}

FACE void millrace_decode(const Shape* shape, const Layer* layers, const Step* step) {
  const Shape& m = *shape;
  const Step& s = *step;
  const int64_t t = s.num_tokens;
  for (int64_t i = 0; i < m.num_layers; ++i) {
    const Layer* l = layers + i;
    millrace_rms_norm(s.x, t, m.hidden, l->norm, 0, m.epsilon, s.y);
    multiply(s.y, s, l->qkv, s.qkv, STORE);
    adapt(s, i, &LayerAdapter::qkv, s.y, l->qkv, s.qkv);
    millrace_rope_write(s.qkv, t, m.num_heads, m.num_kv_heads, m.dim, l->q_norm, l->k_norm,
                        m.epsilon, s.positions, s.cosine, s.sine, s.slots, l->k, l->v, m.num_blocks,
                        m.block_size);
    millrace_attend(s.qkv, l->qkv.n, t, m.num_heads, m.num_kv_heads, m.dim, l->k, l->v,
                    m.num_blocks, m.block_size, s.tables, s.table_stride, s.rows, s.positions,
                    l->window, l->scale, s.scratch, s.attended);
    multiply(s.attended, s, l->out, s.x, ADD);
    adapt(s, i, &LayerAdapter::out, s.attended, l->out, s.x);
    millrace_rms_norm(s.x, t, m.hidden, l->mlp_norm, 0, m.epsilon, s.y);
    multiply_gate(s, i, l->gate_up);
    multiply(s.h, s, l->down, s.x, ADD);
    adapt(s, i, &LayerAdapter::down, s.h, l->down, s.x);
  }
}
