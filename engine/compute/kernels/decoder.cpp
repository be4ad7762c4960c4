// One step of a dense Llama-like decoder: a loop over a table of layers, in one call, since a small
// model's kernels are shorter than a call from Python, and by one team of threads, since to begin
// together takes them several times as long as to wait for each other.

#include "adapter.h"
#include "norm.h"

// The structs are those of library.py.

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
  int64_t num_layers, hidden;
  Heads heads;
  Blocks blocks;
  float epsilon;
  const bf16 *embedding, *norm;  // [num_ids, hidden], [hidden]
  int64_t num_ids;
  Linear head;
};

struct Step {
  Tokens tokens;
  const int64_t* ids;          // of the tokens, or null: x is there already
  bf16* x;                     // [tokens, hidden]: embedded tokens, to which every layer adds
  const float *cosine, *sine;  // [num_positions, dim]
  int64_t num_positions;
  int64_t num_logits;  // of the tokens logits_at, or 0
  const int64_t* logits_at;
  float *logits, *tops;
  bf16 *y, *qkv, *attended, *h;  // room for the layers' own results
  char *scratch, *quantised;     // for attention; for products of 8 bits
  int64_t num_adapters;
  const AdapterTokens* adapters;
  AdapterWorkspace adapter_workspace;
  float* sums;  // [tokens, gate_up.n], where there are adapters
};

// What each thread does in a step.
struct Worker {
  const Team team;
  const Shape& shape;
  const Step& s;

  void embed() const {
    if (s.ids == nullptr) return;
    for (int64_t t = team.begin(s.tokens.num); t < team.end(s.tokens.num); ++t)
      memcpy(s.x + t * shape.hidden, shape.embedding + s.ids[t] * shape.hidden,
             shape.hidden * sizeof(bf16));
    team.wait();
  }

  void multiply_by_head() const {
    if (s.num_logits == 0) return;
    for (int64_t i = team.begin(s.num_logits); i < team.end(s.num_logits); ++i)
      ::normalise(s.x + s.logits_at[i] * shape.hidden, shape.hidden, shape.norm, 0, shape.epsilon,
                  s.y + i * shape.hidden);
    team.wait();
    multiply(team, s.y, s.num_logits, shape.head, s.logits, s.tops, LOGITS, s.quantised, nullptr);
  }

  void normalise(const bf16* w) const {
    rms_norm(team, s.x, s.tokens.num, shape.hidden, w, 0, shape.epsilon, s.y);
    team.wait();
  }

  // `next`: what is multiplied after this, or null.
  void multiply_by(const Linear& w, const bf16* x, void* y, Epilogue epilogue,
                   const Linear* next) const {
    multiply(team, x, s.tokens.num, w, y, nullptr, epilogue, s.quantised, next);
    team.wait();
  }

  // Adds to y what the step's adapters make of a linear's input.
  template <class Number>
  void adapt(int64_t layer, LowRank LayerAdapter::* part, const bf16* x, const Linear& w,
             Number* y) const {
    for (int64_t i = 0; i < s.num_adapters; ++i)
      add_low_rank(team, s.adapters[i], s.adapters[i].layers[layer].*part, x, w.k, y, w.n,
                   s.adapter_workspace);
  }

  // silu(gate) * up; where an adapter adds to them, by way of all their sums, which are the same.
  void multiply_by_gate(int64_t layer, const Linear& w, const Linear* next) const {
    if (s.num_adapters == 0) return multiply_by(w, s.y, s.h, SILU_MUL, next);
    multiply_by(w, s.y, s.sums, FLOATS, next);
    adapt(layer, &LayerAdapter::gate_up, s.y, w, s.sums);
    silu_mul(team, s.sums, s.tokens.num, w.n, s.h);
    team.wait();
  }

  void add(const Layer* layers, int64_t i) const {
    const Layer& l = layers[i];
    const Linear* end = s.num_logits > 0 ? &shape.head : nullptr;
    const Linear* next = i + 1 < shape.num_layers ? &layers[i + 1].qkv : end;
    const Units units(team, s.tokens, shape.heads, l.window);
    const Cache keys = {l.k, shape.blocks, shape.heads.dim};
    const Cache values = {l.v, shape.blocks, shape.heads.dim};
    normalise(l.norm);
    multiply_by(l.qkv, s.y, s.qkv, STORE, &l.out);
    adapt(i, &LayerAdapter::qkv, s.y, l.qkv, s.qkv);
    rope_write(units, s.qkv, l.q_norm, l.k_norm, shape.epsilon, s.cosine, s.sine, keys, values);
    team.wait();
    attend(team, units, s.qkv, l.qkv.n, keys, values, l.scale, s.scratch, s.attended);
    team.wait();
    multiply_by(l.out, s.attended, s.x, ADD, &l.gate_up);
    adapt(i, &LayerAdapter::out, s.attended, l.out, s.x);
    normalise(l.mlp_norm);
    multiply_by_gate(i, l.gate_up, &l.down);
    multiply_by(l.down, s.h, s.x, ADD, next);
    adapt(i, &LayerAdapter::down, s.h, l.down, s.x);
  }
};

EXPORT int64_t millrace_decode(const Shape* shape, const Layer* layers, const Step* step) {
  const Tokens& tokens = step->tokens;
  if (!tokens.lie_in(shape->blocks.num, shape->blocks.size)) return OUTSIDE_CACHE;
  if (!all_below(tokens.positions, tokens.num, step->num_positions)) return OUTSIDE_ROPE_TABLE;
  if (step->ids != nullptr && !all_below(step->ids, tokens.num, shape->num_ids))
    return OUTSIDE_EMBEDDING;
  if (!all_below(step->logits_at, step->num_logits, tokens.num)) return OUTSIDE_STEP;
#pragma omp parallel
  {
    const Worker worker = {team(), *shape, *step};
    worker.embed();
    for (int64_t i = 0; i < shape->num_layers; ++i) worker.add(layers, i);
    worker.multiply_by_head();
  }
  return GOOD;
}
