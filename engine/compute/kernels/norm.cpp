// y = x / rms(x) * (w + offset) for each row.

#include "faces.h"
#include "norm.h"

// x, y [m, n], may be the same; w [n].
FACE void millrace_rms_norm(const bf16* x, int64_t m, int64_t n, const bf16* w, float offset,
                            float epsilon, bf16* y) {
#pragma omp parallel for schedule(static) if (m >= 16)
  for (int64_t row = 0; row < m; ++row) normalise(x + row * n, n, w, offset, epsilon, y + row * n);
}
