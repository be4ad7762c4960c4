// A step's work on one layer's cache, in units: a token and one of its KV heads. Both kernels that
// do such work divide it alike, so that a thread reads what it has written.

#pragma once

#include "common.h"
#include "panel.h"
#include "team.h"

INLINE bool all_below(const int64_t* numbers, int64_t count, int64_t limit) {
  for (int64_t i = 0; i < count; ++i)
    if (numbers[i] < 0 || numbers[i] >= limit) return false;
  return true;
}

// A step's tokens. Token t is at positions[t] of the row whose blocks are tables[rows[t]]; its keys
// and values go to slots[t].
struct Tokens {
  int64_t num;
  const int64_t *positions, *slots, *rows, *tables;  // slots or tables may be null
  int64_t num_rows, table_stride;

  // Whether nothing of it leads outside of such a cache.
  bool lie_in(int64_t num_blocks, int64_t block_size) const {
    if (slots != nullptr && !all_below(slots, num, num_blocks * block_size)) return false;
    if (tables == nullptr) return true;
    if (!all_below(rows, num, num_rows)) return false;
    if (!all_below(positions, num, table_stride * block_size)) return false;
    for (int64_t t = 0, row = -1, known = 0; t < num; ++t) {
      if (rows[t] != row) row = rows[t], known = 0;
      const int64_t count = positions[t] / block_size + 1;
      if (!all_below(tables + row * table_stride + known, count - known, num_blocks)) return false;
      known = count > known ? count : known;
    }
    return true;
  }
};

struct Heads {
  int64_t num, num_kv, dim;

  int64_t group() const { return num / num_kv; }
  int64_t width() const { return (num + 2 * num_kv) * dim; }
};

// One thread's units: from `first` up to `end`.
struct Units {
  Tokens tokens;
  Heads heads;
  int64_t window;  // so many tokens are seen at most; 0: all
  int64_t first, end;

  Units(const Team& team, const Tokens& t, const Heads& h, int64_t w)
      : tokens(t),
        heads(h),
        window(w),
        first(part(team.me, team.size)),
        end(part(team.me + 1, team.size)) {}

  int64_t token(int64_t unit) const { return unit / heads.num_kv; }
  int64_t head(int64_t unit) const { return unit % heads.num_kv; }

  // A token sees from `begin_of` up to `end_of`.
  int64_t end_of(int64_t token) const { return tokens.positions[token] + 1; }
  int64_t begin_of(int64_t token) const {
    return window > 0 && end_of(token) > window ? end_of(token) - window : 0;
  }
  int64_t num_panels(int64_t token) const {
    return (end_of(token) - 1) / PANEL - begin_of(token) / PANEL + 1;
  }

  // Where a thread's part begins, which is where the one before it ends; all read as much.
  int64_t part(int64_t thread, int64_t num_threads) const {
    int64_t all = 0, token = 0;
    for (int64_t t = 0; t < tokens.num; ++t) all += num_panels(t);
    int64_t left = all * heads.num_kv * thread / num_threads;
    for (; token < tokens.num && left >= num_panels(token) * heads.num_kv; ++token)
      left -= num_panels(token) * heads.num_kv;
    return token * heads.num_kv + (token < tokens.num ? left / num_panels(token) : 0);
  }
};
