// The threads that compute one thing together. A kernel is called by each of them, does its part
// and returns; `wait` is where all have done theirs.

#pragma once

#include <omp.h>
#include <stdint.h>

struct Team {
  int64_t me, size;

  // Which of so many things are this thread's.
  int64_t begin(int64_t count) const { return count * me / size; }
  int64_t end(int64_t count) const { return count * (me + 1) / size; }

  void wait() const {
#pragma omp barrier
  }
};

// Within a parallel region; a thread outside of one is a team by itself.
static inline Team team() { return {omp_get_thread_num(), omp_get_num_threads()}; }
