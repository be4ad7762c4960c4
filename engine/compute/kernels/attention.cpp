// Each token's queries over the paged cache: softmax(q K^T) V, each block read where it lies.
//
// The heads that share a KV head go together, so that its keys are read once for all of them. Blocks
// lie anywhere, so later ones are asked for while one is computed. Sums are float, weights bfloat16.

#include "faces.h"

static const int MAX_GROUP = 64;  // heads that share a KV head
static const int64_t AHEAD = 2;   // blocks

// Keys or values of one KV head, through one row's block table.
struct Cached {
  const bf16* first;
  const int64_t* table;
  int64_t block_size, block_numbers;
  int64_t begin, end;  // the tokens that are seen

  const bf16* block(int64_t index) const { return first + table[index] * block_numbers; }
  int64_t first_block() const { return begin / block_size; }
  int64_t num_blocks() const { return (end + block_size - 1) / block_size; }
  const bf16* later(int64_t index) const {
    return block(index + AHEAD < num_blocks() ? index + AHEAD : index);
  }
};

// Room for one row and KV head: scores [group, length] of float, then weights of bfloat16.
struct Scratch {
  float* scores;
  bf16* weights;
  int64_t length;  // with room for what is read behind the end
};

INLINE void ask_for(const bf16* numbers) { _mm_prefetch((const char*)numbers, _MM_HINT_T0); }

// The sums of sixteen registers, in their order.
INLINE __m512 sums(const __m512* a) {
  __m512 pairs[8], quads[4];
  for (int i = 0; i < 8; ++i) {
    const __m512 x = a[2 * i], y = a[2 * i + 1];
    pairs[i] = _mm512_add_ps(_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
  }
  for (int i = 0; i < 4; ++i) {
    const __m512d x = _mm512_castps_pd(pairs[2 * i]), y = _mm512_castps_pd(pairs[2 * i + 1]);
    quads[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  }
  const __m512 left = _mm512_add_ps(_mm512_shuffle_f32x4(quads[0], quads[1], 0x88),
                                    _mm512_shuffle_f32x4(quads[0], quads[1], 0xdd));
  const __m512 right = _mm512_add_ps(_mm512_shuffle_f32x4(quads[2], quads[3], 0x88),
                                     _mm512_shuffle_f32x4(quads[2], quads[3], 0xdd));
  return _mm512_add_ps(_mm512_shuffle_f32x4(left, right, 0x88),
                       _mm512_shuffle_f32x4(left, right, 0xdd));
}

// Sixteen keys times one query.
template <int DIM>
INLINE __m512 dots(const bf16* keys, const bf16* query) {
  __m512 products[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    products[i] = _mm512_setzero_ps();
#pragma GCC unroll 8
    for (int c = 0; c < DIM; c += 32) {
      const __m512bh key = (__m512bh)_mm512_loadu_si512(keys + i * DIM + c);
      products[i] = _mm512_dpbf16_ps(products[i], key, (__m512bh)_mm512_loadu_si512(query + c));
    }
  }
  return sums(products);
}

INLINE __mmask16 seen(const Cached& cached, int64_t at) {
  const int64_t hidden = cached.begin - at;
  return tail(cached.end - at) & (hidden > 0 ? ~tail(hidden) : 0xffff);
}

// Scores of the whole group, and each head's largest in `top`.
template <int DIM>
static void score(const bf16* queries, int64_t group, const Cached& keys, float scale,
                  const Scratch& scratch, __m512* top) {
  const __m512 none = _mm512_set1_ps(-INFINITY);
  for (int64_t g = 0; g < group; ++g) top[g] = none;
  for (int64_t b = keys.first_block(); b < keys.num_blocks(); ++b) {
    const bf16 *block = keys.block(b), *later = keys.later(b);
    for (int64_t s = 0; s < keys.block_size && b * keys.block_size + s < keys.end; s += 16) {
      const int64_t at = b * keys.block_size + s;
      const __mmask16 mask = seen(keys, at);
      for (int i = 0; i < 16 * DIM; i += 32) ask_for(later + s * DIM + i);
      for (int64_t g = 0; g < group; ++g) {
        const __m512 raw = dots<DIM>(block + s * DIM, queries + g * DIM);
        const __m512 scores = _mm512_mask_mul_ps(none, mask, raw, _mm512_set1_ps(scale));
        top[g] = _mm512_max_ps(top[g], scores);
        _mm512_storeu_ps(scratch.scores + g * scratch.length + at, scores);
      }
    }
  }
}

// One head's scores become weights that are not yet divided by their sum, which is returned.
INLINE float weigh(const Cached& cached, const float* scores, float top, bf16* weights) {
  __m512 sum = _mm512_setzero_ps();
  int64_t at = cached.first_block() * cached.block_size;
  for (; at < cached.end; at += 16) {
    const __m512 score = _mm512_loadu_ps(scores + at);
    const __m512 power = exp16(_mm512_sub_ps(score, _mm512_set1_ps(top)));
    const __m512 weight = _mm512_maskz_mov_ps(seen(cached, at), power);
    sum = _mm512_add_ps(sum, weight);
    store(weights + at, weight);
  }
  return _mm512_reduce_add_ps(sum);
}

// The weighted sum of the values for HEADS heads at a time; out [HEADS, DIM].
template <int DIM, int HEADS>
static void add_values(const Cached& values, const bf16* weights, int64_t length,
                       const float* divisors, bf16* out) {
  constexpr int PARTS = DIM / 32;
  __m512 low[HEADS][PARTS], high[HEADS][PARTS];
#pragma GCC unroll 8
  for (int g = 0; g < HEADS; ++g)
#pragma GCC unroll 8
    for (int c = 0; c < PARTS; ++c) low[g][c] = high[g][c] = _mm512_setzero_ps();
  for (int64_t b = values.first_block(); b < values.num_blocks(); ++b) {
    const bf16 *block = values.block(b), *later = values.later(b);
    for (int64_t s = 0; s < values.block_size && b * values.block_size + s < values.end; s += 2) {
      const bf16* pair = block + s * DIM;
      const int64_t at = b * values.block_size + s;
#pragma GCC unroll 8
      for (int c = 0; c < PARTS; ++c) {
        ask_for(later + s * DIM + c * 32);
        ask_for(later + (s + 1) * DIM + c * 32);
        const __m512i x = _mm512_loadu_si512(pair + c * 32);
        const __m512i y = _mm512_loadu_si512(pair + DIM + c * 32);
        const __m512bh lows = (__m512bh)_mm512_unpacklo_epi16(x, y);
        const __m512bh highs = (__m512bh)_mm512_unpackhi_epi16(x, y);
#pragma GCC unroll 8
        for (int g = 0; g < HEADS; ++g) {
          const __m512bh weight = broadcast_pair(weights + g * length + at);
          low[g][c] = _mm512_dpbf16_ps(low[g][c], lows, weight);
          high[g][c] = _mm512_dpbf16_ps(high[g][c], highs, weight);
        }
      }
    }
  }
  // unpacking has put numbers 0-3 of every eight into `low`, 4-7 into `high`
  const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
  for (int g = 0; g < HEADS; ++g) {
    const __m512 factor = _mm512_set1_ps(1.f / divisors[g]);
    for (int c = 0; c < PARTS; ++c) {
      bf16* to = out + g * DIM + c * 32;
      const __m512 a = low[g][c], b = high[g][c];
      store(to, _mm512_mul_ps(factor, _mm512_permutex2var_ps(a, first, b)));
      store(to + 16, _mm512_mul_ps(factor, _mm512_permutex2var_ps(a, second, b)));
    }
  }
}

template <int DIM>
static void attend(const bf16* queries, int64_t group, const Cached& keys, const Cached& values,
                   float scale, const Scratch& scratch, bf16* out) {
  constexpr int HEADS = DIM <= 64 ? 7 : DIM <= 128 ? 3 : 1;  // what the registers hold
  __m512 top[MAX_GROUP];
  float divisors[MAX_GROUP];
  score<DIM>(queries, group, keys, scale, scratch, top);
  for (int64_t g = 0; g < group; ++g) {
    bf16* weights = scratch.weights + g * scratch.length;
    const float* scores = scratch.scores + g * scratch.length;
    divisors[g] = weigh(keys, scores, _mm512_reduce_max_ps(top[g]), weights);
  }
  int64_t g = 0;
  for (; g + HEADS <= group; g += HEADS)
    add_values<DIM, HEADS>(values, scratch.weights + g * scratch.length, scratch.length,
                           divisors + g, out + g * DIM);
  for (; g < group; ++g)
    add_values<DIM, 1>(values, scratch.weights + g * scratch.length, scratch.length, divisors + g,
                       out + g * DIM);
}

typedef void (*Attend)(const bf16*, int64_t, const Cached&, const Cached&, float, const Scratch&,
                       bf16*);

static Attend attend_for(int64_t dim) {
  switch (dim) {
    case 32: return attend<32>;
    case 64: return attend<64>;
    case 96: return attend<96>;
    case 128: return attend<128>;
    case 256: return attend<256>;
    default: return nullptr;
  }
}

FACE int64_t millrace_attend_can(int64_t dim, int64_t group, int64_t block_size) {
  return attend_for(dim) != nullptr && group <= MAX_GROUP && block_size % 16 == 0;
}

static int64_t scratch_length(int64_t max_length) { return (max_length + 31) / 16 * 16; }

// Bytes of `scratch` for rows of at most so many tokens, on every thread.
FACE int64_t millrace_attend_scratch(int64_t group, int64_t max_length) {
  return omp_get_max_threads() * group * scratch_length(max_length) *
         (sizeof(float) + sizeof(bf16));
}

// queries: a token's lie `query_stride` apart, in each num_heads heads; k, v [num_kv_heads,
// num_blocks, block_size, dim]; token t is at position positions[t] of the row whose blocks are
// tables[rows[t]] [table_stride], and attends to what is up to there, at most `window` tokens (0:
// all); out [num_tokens, num_heads, dim]. Unseen numbers of a row's blocks must be finite.
FACE void millrace_attend(const bf16* queries, int64_t query_stride, int64_t num_tokens,
                          int64_t num_heads, int64_t num_kv_heads, int64_t dim, const bf16* k,
                          const bf16* v, int64_t num_blocks, int64_t block_size,
                          const int64_t* tables, int64_t table_stride, const int64_t* rows,
                          const int64_t* positions, int64_t window, float scale, char* scratch,
                          bf16* out) {
  const Attend attend_one = attend_for(dim);
  const int64_t group = num_heads / num_kv_heads, head_numbers = num_blocks * block_size * dim;
  const int64_t length = scratch_length(table_stride * block_size), num_scores = group * length;
#pragma omp parallel for schedule(dynamic) collapse(2)
  for (int64_t token = 0; token < num_tokens; ++token)
    for (int64_t head = 0; head < num_kv_heads; ++head) {
      char* own = scratch + omp_get_thread_num() * num_scores * (sizeof(float) + sizeof(bf16));
      const Scratch room = {(float*)own, (bf16*)(own + num_scores * sizeof(float)), length};
      const int64_t end = positions[token] + 1;
      const int64_t begin = window > 0 && end > window ? end - window : 0;
      const int64_t* table = tables + rows[token] * table_stride;
      const int64_t numbers = block_size * dim;
      const Cached keys = {k + head * head_numbers, table, block_size, numbers, begin, end};
      const Cached values = {v + head * head_numbers, table, block_size, numbers, begin, end};
      attend_one(queries + token * query_stride + head * group * dim, group, keys, values, scale,
                 room, out + (token * num_heads + head * group) * dim);
    }
}
