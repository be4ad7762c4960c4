// What this build needs of a processor; compiled for any, so that asking never faults.

#include <cpuid.h>
#include <stdint.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

// Changes with every change of an exported function: a library left over from another version is
// not called.
EXPORT int64_t millrace_version() { return 10; }

// The first instruction set that is missing here, or null.
EXPORT const char* millrace_missing() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx512f")) return "AVX-512";
  if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512dq"))
    return "AVX-512 BW, VL and DQ";
  if (!__builtin_cpu_supports("avx512vnni")) return "AVX-512 VNNI";
  if (!__builtin_cpu_supports("avx512bf16")) return "AVX-512 BF16";
  return nullptr;
}

// Whether there are matrix units for bfloat16 (AMX), of which these kernels know nothing.
EXPORT int64_t millrace_has_amx() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & 1u << 22) && (d & 1u << 24);
}
