// Each token's queries over the paged cache: softmax(q K^T) V, each block read where it lies.
//
// The heads that share a KV head go together, so that its keys are read once for all of them.
// Blocks lie anywhere, where no processor looks ahead by itself, so they are asked for some time
// before they are read. Sums are float, weights bfloat16.

#include "kernels.h"

static const int64_t PIECE = PANEL * LINES / 2;  // bytes: 32 numbers of 32 tokens
static const int64_t AHEAD = 4;                  // pieces from what is read to what is asked for

// What one token sees of one KV head, in panels of 32 tokens.
struct Seen {
  Cache keys, values;
  int64_t head;
  const int64_t* table;  // the row's blocks
  int64_t begin, end;    // tokens

  int64_t first() const { return begin / PANEL; }
  int64_t last() const { return (end - 1) / PANEL; }
  // Of the head's numbers from `number` on. Most blocks are one panel, and need no division.
  const char* key_piece(int64_t panel, int64_t number) const {
    const int64_t each = keys.blocks.size / PANEL, within = each == 1 ? 0 : panel % each;
    const bf16* block = keys.block(head, table[each == 1 ? panel : panel / each]);
    return keys_of(block, within * PANEL, keys.dim) + number / PANEL * PIECE;
  }
  const char* value_piece(int64_t panel, int64_t number) const {
    const int64_t each = values.blocks.size / PANEL, within = each == 1 ? 0 : panel % each;
    const bf16* block = values.block(head, table[each == 1 ? panel : panel / each]);
    return values_of(block, within * PANEL, number, values.blocks.size);
  }
  __mmask16 mask(int64_t at) const {
    const int64_t hidden = begin - at;
    return tail(end - at) & (hidden > 0 ? ~tail(hidden) : 0xffff);
  }
};

// A thread's units, of which it asks for the pieces in the order in which they are read, some
// before they are: keys panel by panel, then values number by number.
struct Asked {
  const Units& units;
  const Cache &keys, &values;
  int64_t unit;
  Seen seen;
  bool is_value = false, is_resting = false;  // resting: what was read is read again
  int64_t panel, number = 0;
  const char* latest = nullptr;

  Asked(const Units& of, const Cache& k, const Cache& v)
      : units(of), keys(k), values(v), unit(of.first), seen(see(unit)), panel(seen.first()) {
    for (int64_t i = 0; i < AHEAD; ++i) {
      const char* piece = next();
      for (int64_t line = 0; line < PIECE; line += LINES / 2)
        _mm_prefetch(piece + line, _MM_HINT_T0);
    }
  }

  Seen see(int64_t at) const {
    const int64_t token = units.token(at), row = units.tokens.rows[token];
    const int64_t* table = units.tokens.tables + row * units.tokens.table_stride;
    return {keys, values, units.head(at), table, units.begin_of(token), units.end_of(token)};
  }

  // The last one again where there are no more.
  const char* next() {
    if (is_resting || unit == units.end) return latest;
    latest = is_value ? seen.value_piece(panel, number) : seen.key_piece(panel, number);
    if (is_value ? ++panel > seen.last() : (number += PANEL) == keys.dim) turn();
    return latest;
  }

  void turn() {
    if (!is_value) {
      number = 0;
      if (++panel <= seen.last()) return;
      is_value = true;
    } else if ((number += PANEL) == keys.dim) {
      number = 0;
      is_value = false;
      if (++unit == units.end) return;
      seen = see(unit);
    }
    panel = seen.first();
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

// Scores of some heads, and each one's largest in `top`.
template <int ROWS>
static void score(const bf16* queries, const Seen& seen, Asked& asked, float scale,
                  const Scratch& scratch, __m512* top) {
  const int64_t dim = seen.keys.dim;
  const __m512 none = _mm512_set1_ps(-INFINITY), factor = _mm512_set1_ps(scale);
  for (int r = 0; r < ROWS; ++r) top[r] = none;
  for (int64_t p = seen.first(); p <= seen.last(); ++p) {
    __m512 low[ROWS], high[ROWS];
    clear<ROWS>(low, high);
    for (int64_t i = 0; i < dim; i += PANEL)
      add_products<ROWS>(queries + i, dim, seen.key_piece(p, i), PANEL / 2, asked.next(), LINES,
                         low, high);
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
static void add_values(const Seen& seen, Asked& asked, const Scratch& scratch,
                       const float* divisors, bf16* out) {
  const int64_t dim = seen.values.dim;
  for (int64_t i = 0; i < dim; i += PANEL) {
    __m512 low[ROWS], high[ROWS];
    clear<ROWS>(low, high);
    for (int64_t p = seen.first(); p <= seen.last(); ++p)
      add_products<ROWS>(scratch.weights + p * PANEL, scratch.length, seen.value_piece(p, i),
                         PANEL / 2, asked.next(), LINES, low, high);
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r) {
      const __m512 factor = _mm512_set1_ps(1.f / divisors[r]);
      store(out + r * dim + i, _mm512_mul_ps(factor, low[r]));
      store(out + r * dim + i + 16, _mm512_mul_ps(factor, high[r]));
    }
  }
}

template <int ROWS>
static void attend_with(const bf16* queries, const Seen& seen, Asked& asked, float scale,
                        const Scratch& scratch, bf16* out) {
  __m512 top[ROWS];
  float divisors[ROWS];
  score<ROWS>(queries, seen, asked, scale, scratch, top);
  for (int r = 0; r < ROWS; ++r)
    divisors[r] = weigh(seen, scratch.scores + r * scratch.length, _mm512_reduce_max_ps(top[r]),
                        scratch.weights + r * scratch.length);
  add_values<ROWS>(seen, asked, scratch, divisors, out);
}

typedef void (*Attend)(const bf16*, const Seen&, Asked&, float, const Scratch&, bf16*);

static const Attend attend_heads[MAX_ROWS] = {
    attend_with<1>,  attend_with<2>,  attend_with<3>,  attend_with<4>, attend_with<5>,
    attend_with<6>,  attend_with<7>,  attend_with<8>,  attend_with<9>, attend_with<10>,
    attend_with<11>, attend_with<12>, attend_with<13>, attend_with<14>};

EXPORT int64_t millrace_attend_can(int64_t dim, int64_t block_size) {
  return dim % PANEL == 0 && block_size % PANEL == 0;
}

static int64_t scratch_length(int64_t max_length) {
  return (max_length + PANEL - 1) / PANEL * PANEL;
}

static int64_t scratch_bytes(int64_t group, int64_t length) {
  return (group < MAX_ROWS ? group : MAX_ROWS) * length * (sizeof(float) + sizeof(bf16));
}

// Bytes of `scratch` for rows of at most so many tokens, on every thread.
EXPORT int64_t millrace_attend_workspace(int64_t group, int64_t max_length) {
  return omp_get_max_threads() * scratch_bytes(group, scratch_length(max_length));
}

// queries: a token's lie `query_stride` apart; out [tokens, heads, dim]. Unseen numbers of a row's
// blocks must be finite.
void attend(const Team& team, const Units& units, const bf16* queries, int64_t query_stride,
            const Cache& keys, const Cache& values, float scale, char* scratch, bf16* out) {
  if (units.first == units.end) return;
  const Heads& heads = units.heads;
  const int64_t group = heads.group();
  const int64_t length = scratch_length(units.tokens.table_stride * keys.blocks.size);
  char* own = scratch + team.me * scratch_bytes(group, length);
  Asked asked(units, keys, values);
  for (int64_t unit = units.first; unit < units.end; ++unit) {
    const Seen seen = asked.see(unit);
    for (int64_t g = 0; g < group; g += MAX_ROWS) {
      asked.is_resting = g > 0;
      const int64_t count = group - g < MAX_ROWS ? group - g : MAX_ROWS;
      const Scratch own_part = {(float*)own, (bf16*)(own + count * length * sizeof(float)), length};
      const int64_t token = units.token(unit), first = seen.head * group + g;
      attend_heads[count - 1](queries + token * query_stride + first * heads.dim, seen, asked,
                              scale, own_part, out + (token * heads.num + first) * heads.dim);
    }
  }
}

EXPORT int64_t millrace_attend(const bf16* queries, int64_t query_stride, int64_t num_tokens,
                               int64_t num_heads, int64_t num_kv_heads, int64_t dim, bf16* k,
                               bf16* v, int64_t num_blocks, int64_t block_size, int64_t head_stride,
                               int64_t block_stride, const int64_t* tables, int64_t num_rows,
                               int64_t table_stride, const int64_t* rows, const int64_t* positions,
                               int64_t window, float scale, char* scratch, bf16* out) {
  const Tokens tokens = {num_tokens, positions, nullptr, rows, tables, num_rows, table_stride};
  if (!tokens.lie_in(num_blocks, block_size)) return OUTSIDE_CACHE;
  const Blocks blocks = {num_blocks, block_size, head_stride, block_stride};
  const Cache keys = {k, blocks, dim}, values = {v, blocks, dim};
#pragma omp parallel
  attend(team(), {team(), tokens, {num_heads, num_kv_heads, dim}, window}, queries, query_stride,
         keys, values, scale, scratch, out);
  return GOOD;
}
