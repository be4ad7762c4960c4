// The kernels' faces; each is described where it is written.

#pragma once

#include "common.h"

// What becomes of a product: stored, added to what is there, silu(gate) or gelu(gate) * factor of
// interleaved columns, stored as float beside the largest of each panel, stored as float.
enum Epilogue { STORE, ADD, SILU_MUL, GELU_MUL, LOGITS, FLOATS };

FACE void millrace_pack(const bf16* weight, int64_t n, int64_t k, bf16* packed);

FACE void millrace_linear(const bf16* x, int64_t m, int64_t k, const bf16* packed,
                          const bf16* bias, int64_t n, void* y, float* tops,
                          int64_t epilogue);

FACE void millrace_pack_int8(const bf16* weight, int64_t n, int64_t k, uint8_t* packed,
                             float* scales);

FACE int64_t millrace_int8_room(int64_t m, int64_t k);

FACE void millrace_linear_int8(const bf16* x, int64_t m, int64_t k, const uint8_t* packed,
                               const float* scales, const bf16* bias, int64_t n, void* y,
                               float* tops, int64_t epilogue, char* room);

FACE void millrace_rms_norm(const bf16* x, int64_t m, int64_t n, const bf16* w, float offset,
                            float epsilon, bf16* y);

FACE void millrace_rope_write(bf16* qkv, int64_t t, int64_t num_heads, int64_t num_kv_heads,
                              int64_t dim, const bf16* q_norm, const bf16* k_norm, float epsilon,
                              const int64_t* positions, const float* cosine, const float* sine,
                              const int64_t* slots, bf16* k, bf16* v, int64_t num_blocks,
                              int64_t block_size);

FACE void millrace_write(const bf16* new_k, const bf16* new_v, int64_t t, int64_t num_kv_heads,
                         int64_t dim, const int64_t* slots, bf16* k, bf16* v, int64_t num_blocks,
                         int64_t block_size);

FACE int64_t millrace_attend_can(int64_t dim, int64_t group, int64_t block_size);

FACE int64_t millrace_attend_scratch(int64_t group, int64_t max_length);

FACE void millrace_attend(const bf16* queries, int64_t query_stride, int64_t num_tokens,
                          int64_t num_heads, int64_t num_kv_heads, int64_t dim, bf16* k, bf16* v,
                          int64_t num_blocks, int64_t block_size, const int64_t* tables,
                          int64_t table_stride, const int64_t* rows, const int64_t* positions,
                          int64_t window, float scale, char* scratch, bf16* out);

FACE void millrace_mask(const float* row, int64_t n, const uint32_t* mask, float* out, float* tops);

FACE void millrace_greedy(const float* logits, const float* tops, int64_t n, const int64_t* rows,
                          int64_t m, int64_t* ids, float* logprobs);
