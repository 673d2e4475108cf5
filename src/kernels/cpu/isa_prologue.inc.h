// Included inside the anonymous namespace of an isa_NAME.cc, before everything else.
#if defined(__clang__)
#define BN_UNROLL _Pragma("unroll")
#else
#define BN_UNROLL _Pragma("GCC unroll 16")
#endif

typedef uint8_t U8x16 __attribute__((vector_size(16)));
typedef uint8_t U8x32 __attribute__((vector_size(32)));

// The rows or columns at the front of a list, which no earlier one has fetched.
static inline void prefetch_first(const uint8_t* pieces, int64_t piece_bytes, const int32_t* ids, int64_t n) {
  for (int64_t i = 0; i < n && i < kPiecesAhead; ++i) {
    const uint8_t* const piece = pieces + ids[i] * piece_bytes;
    for (int64_t at = 0; at < piece_bytes; at += kVectorBytes) __builtin_prefetch(piece + at);
  }
}

// Four bytes as one integer, at any address.
static inline int32_t load_quad(const int8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return quad;
}
