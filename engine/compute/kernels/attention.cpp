// Each token's queries over the paged cache: softmax(q K^T) V, each block read where it lies.
//
// The heads that share a KV head go together, so that its keys are read once for all of them. Blocks
// lie anywhere, so the next is asked for while one is computed. Sums are float, weights bfloat16.

#include "cache.h"
#include "faces.h"

static const int MAX_GROUP = 64;  // heads that share a KV head
static const int64_t AHEAD = 2;   // panels that are asked for in advance

// What one token sees of one KV head, in panels of 32 tokens.
struct Seen {
  Cache keys, values;
  int64_t head;
  const int64_t* table;  // the row's blocks
  int64_t begin, end;    // tokens

  int64_t first() const { return begin / PANEL; }
  int64_t last() const { return (end - 1) / PANEL; }
  int64_t nearest(int64_t panel) const { return panel < last() ? panel : last(); }
  const bf16* block(const Cache& cache, int64_t panel) const {
    return cache.block(head, table[panel * PANEL / cache.block_size]);
  }
  const char* key_panel(int64_t panel) const {
    return keys_of(block(keys, panel), panel * PANEL % keys.block_size, keys.dim);
  }
  // The values of the head's numbers from `number` on.
  const char* value_panel(int64_t panel, int64_t number) const {
    return values_of(block(values, panel), panel * PANEL % keys.block_size, number,
                     keys.block_size);
  }
  __mmask16 mask(int64_t at) const {
    const int64_t hidden = begin - at;
    return tail(end - at) & (hidden > 0 ? ~tail(hidden) : 0xffff);
  }
};

// Room for one token and KV head: scores [group, length] of float, then weights of bfloat16.
struct Scratch {
  float* scores;
  bf16* weights;
  int64_t length;  // in whole panels
};

template <int ROWS>
INLINE void clear(__m512* low, __m512* high) {
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r) low[r] = high[r] = _mm512_setzero_ps();
}

// Scores of some heads, and each one's largest in `top`. The values are asked for behind the keys.
template <int ROWS>
static void score(const bf16* queries, const Seen& seen, float scale, const Scratch& scratch,
                  __m512* top) {
  const int64_t dim = seen.keys.dim;
  const __m512 none = _mm512_set1_ps(-INFINITY), factor = _mm512_set1_ps(scale);
  for (int r = 0; r < ROWS; ++r) top[r] = none;
  for (int64_t p = seen.first(); p <= seen.last(); ++p) {
    const int64_t behind = p + AHEAD - seen.last();  // the last panel of keys
    const char* later = behind <= 0 ? seen.key_panel(p + AHEAD)
                                    : seen.value_panel(seen.nearest(seen.first() + behind - 1), 0);
    __m512 low[ROWS], high[ROWS];
    clear<ROWS>(low, high);
    add_products<ROWS>(queries, dim, seen.key_panel(p), dim / 2, later, LINES, low, high);
    const __mmask16 m0 = seen.mask(p * PANEL), m1 = seen.mask(p * PANEL + 16);
    float* scores = scratch.scores + p * PANEL;
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r, scores += scratch.length) {
      const __m512 a = _mm512_mask_mul_ps(none, m0, low[r], factor);
      const __m512 b = _mm512_mask_mul_ps(none, m1, high[r], factor);
      top[r] = _mm512_max_ps(_mm512_max_ps(top[r], a), b);
      _mm512_storeu_ps(scores, a);
      _mm512_storeu_ps(scores + 16, b);
    }
  }
}

// One head's scores become weights that are not yet divided by their sum, which is returned.
INLINE float weigh(const Seen& seen, const float* scores, float top, bf16* weights) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t at = seen.first() * PANEL; at < (seen.last() + 1) * PANEL; at += 16) {
    const __m512 power = exp16(_mm512_sub_ps(_mm512_loadu_ps(scores + at), _mm512_set1_ps(top)));
    const __m512 weight = _mm512_maskz_mov_ps(seen.mask(at), power);
    sum = _mm512_add_ps(sum, weight);
    store(weights + at, weight);
  }
  return _mm512_reduce_add_ps(sum);
}

// The weighted sums of the values for some heads; out [ROWS, dim].
template <int ROWS>
static void add_values(const Seen& seen, const Scratch& scratch, const float* divisors,
                       bf16* out) {
  const int64_t dim = seen.values.dim;
  for (int64_t i = 0; i < dim; i += PANEL) {
    __m512 low[ROWS], high[ROWS];
    clear<ROWS>(low, high);
    for (int64_t p = seen.first(); p <= seen.last(); ++p) {
      const char* later = seen.value_panel(seen.nearest(p + AHEAD), i);
      add_products<ROWS>(scratch.weights + p * PANEL, scratch.length, seen.value_panel(p, i),
                         PANEL / 2, later, LINES, low, high);
    }
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r) {
      const __m512 factor = _mm512_set1_ps(1.f / divisors[r]);
      store(out + r * dim + i, _mm512_mul_ps(factor, low[r]));
      store(out + r * dim + i + 16, _mm512_mul_ps(factor, high[r]));
    }
  }
}

template <int ROWS>
static void attend(const bf16* queries, const Seen& seen, float scale, const Scratch& scratch,
                   bf16* out) {
  __m512 top[ROWS];
  float divisors[ROWS];
  score<ROWS>(queries, seen, scale, scratch, top);
  for (int r = 0; r < ROWS; ++r)
    divisors[r] = weigh(seen, scratch.scores + r * scratch.length, _mm512_reduce_max_ps(top[r]),
                        scratch.weights + r * scratch.length);
  add_values<ROWS>(seen, scratch, divisors, out);
}

typedef void (*Attend)(const bf16*, const Seen&, float, const Scratch&, bf16*);

static const Attend attend_heads[MAX_ROWS] = {
    attend<1>, attend<2>, attend<3>,  attend<4>,  attend<5>,  attend<6>,  attend<7>,
    attend<8>, attend<9>, attend<10>, attend<11>, attend<12>, attend<13>, attend<14>};

FACE int64_t millrace_attend_can(int64_t dim, int64_t group, int64_t block_size) {
  return dim % PANEL == 0 && group <= MAX_GROUP && block_size % PANEL == 0;
}

static int64_t scratch_length(int64_t max_length) { return (max_length + PANEL - 1) / PANEL * PANEL; }

static int64_t scratch_bytes(int64_t group, int64_t length) {
  return (group < MAX_ROWS ? group : MAX_ROWS) * length * (sizeof(float) + sizeof(bf16));
}

// Bytes of `scratch` for rows of at most so many tokens, on every thread.
FACE int64_t millrace_attend_scratch(int64_t group, int64_t max_length) {
  return omp_get_max_threads() * scratch_bytes(group, scratch_length(max_length));
}

// queries: a token's lie `query_stride` apart, in each num_heads heads; k, v: a layer's cache; token
// t is at position positions[t] of the row whose blocks are tables[rows[t]] [table_stride], and
// attends to what is up to there, at most `window` tokens (0: all); out [num_tokens, num_heads,
// dim]. Unseen numbers of a row's blocks must be finite.
FACE void millrace_attend(const bf16* queries, int64_t query_stride, int64_t num_tokens,
                          int64_t num_heads, int64_t num_kv_heads, int64_t dim, bf16* k, bf16* v,
                          int64_t num_blocks, int64_t block_size, const int64_t* tables,
                          int64_t table_stride, const int64_t* rows, const int64_t* positions,
                          int64_t window, float scale, char* scratch, bf16* out) {
  const int64_t group = num_heads / num_kv_heads, length = scratch_length(table_stride * block_size);
  const int64_t own_bytes = scratch_bytes(group, length);
  const Cache keys = {k, num_blocks, block_size, dim}, values = {v, num_blocks, block_size, dim};
#pragma omp parallel for schedule(dynamic) collapse(2)
  for (int64_t token = 0; token < num_tokens; ++token)
    for (int64_t head = 0; head < num_kv_heads; ++head) {
      char* own = scratch + omp_get_thread_num() * own_bytes;
      const int64_t end = positions[token] + 1;
      const int64_t begin = window > 0 && end > window ? end - window : 0;
      const Seen seen = {keys, values, head, tables + rows[token] * table_stride, begin, end};
      for (int64_t g = 0; g < group; g += MAX_ROWS) {
        const int64_t count = group - g < MAX_ROWS ? group - g : MAX_ROWS;
        const Scratch room = {(float*)own, (bf16*)(own + count * length * sizeof(float)), length};
        const int64_t first = head * group + g;
        attend_heads[count - 1](queries + token * query_stride + first * dim, seen, scale, room,
                                out + (token * num_heads + first) * dim);
      }
    }
}
