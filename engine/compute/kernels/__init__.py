"""kernels: the small operations of a decoder on a CPU, in C++ and in plain torch beside it."""
