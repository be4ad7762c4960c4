// y = x / rms(x) * (w + offset) for each row.

#include "norm.h"

#include "kernels.h"

// x, y [m, n], may be the same; w [n].
void rms_norm(const Team& team, const bf16* x, int64_t m, int64_t n, const bf16* w, float offset,
              float epsilon, bf16* y) {
  for (int64_t row = team.begin(m); row < team.end(m); ++row)
    normalise(x + row * n, n, w, offset, epsilon, y + row * n);
}

EXPORT void millrace_rms_norm(const bf16* x, int64_t m, int64_t n, const bf16* w, float offset,
                              float epsilon, bf16* y) {
#pragma omp parallel if (m >= FEW)
  rms_norm(team(), x, m, n, w, offset, epsilon, y);
}
