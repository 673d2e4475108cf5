// Included by an isa_avx512*.cc in place of <immintrin.h>, before any namespace.
#if defined(__GNUC__) && !defined(__clang__)
// g++ 12's own header initialises "undefined" vectors with themselves and then warns about it (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
