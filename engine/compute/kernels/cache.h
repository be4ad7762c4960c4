// How a block of the paged cache is laid out inside: as panels, so that attention multiplies by it
// as by weights. Keys: a panel for each 32 tokens, its pairs along the head. Values: a panel for
// each 32 numbers of the head, its pairs along the tokens.

#pragma once

#include "panel.h"

// The blocks of a cache: how many, of how many tokens, and how many numbers lie from one head's, or
// one block's, to the next.
struct Blocks {
  int64_t num, size, head_stride, stride;
};

// One layer's keys or values.
struct Cache {
  bf16* first;
  Blocks blocks;
  int64_t dim;

  bf16* block(int64_t head, int64_t index) const {
    return first + head * blocks.head_stride + index * blocks.stride;
  }
  bf16* block_of(int64_t head, int64_t slot) const { return block(head, slot / blocks.size); }
};

INLINE const char* keys_of(const bf16* block, int64_t token, int64_t dim) {
  return (const char*)(block + token * dim);
}

INLINE const char* values_of(const bf16* block, int64_t token, int64_t number, int64_t block_size) {
  return (const char*)(block + number * block_size + token * PANEL);
}

// Where a token's key and value begin.
INLINE bf16* key_at(const Cache& cache, int64_t head, int64_t slot) {
  const int64_t token = slot % cache.blocks.size, at = token % PANEL;
  return cache.block_of(head, slot) + (token - at) * cache.dim + 2 * at;
}

INLINE bf16* value_at(const Cache& cache, int64_t head, int64_t slot) {
  const int64_t token = slot % cache.blocks.size;
  return cache.block_of(head, slot) + token / 2 * 2 * PANEL + token % 2;
}

// key [dim]
INLINE void put_key(const Cache& cache, int64_t head, int64_t slot, const bf16* key) {
  bf16* panel = key_at(cache, head, slot);
  for (int64_t i = 0; i < cache.dim; i += 2) memcpy(panel + i * PANEL, key + i, 2 * sizeof(bf16));
}

// value [dim]: one of each pair of numbers
INLINE void put_value(const Cache& cache, int64_t head, int64_t slot, const bf16* value) {
  bf16* pairs = value_at(cache, head, slot);
  for (int64_t i = 0; i < cache.dim; i += PANEL, pairs += PANEL * cache.blocks.size)
    for (int64_t c = 0; c < PANEL; ++c) pairs[2 * c] = value[i + c];
}
