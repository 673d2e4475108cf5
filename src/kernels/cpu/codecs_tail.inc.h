// Included inside the anonymous namespace of an isa_codecs_NAME.cc: what is left of a run behind its whole vectors,
// from value i on, by the plain loops.

inline bool decode_left_quarters(const uint8_t* in, int64_t i, int64_t n, uint8_t* const codes[4]) {
  uint8_t* left[4];
  for (int k = 0; k < 4; ++k) left[k] = codes[k] == nullptr ? nullptr : codes[k] + i;
  return kPlainTernaryCodecs.decode_quarters(in + i, n - i, left);
}
inline bool encode_left_quarters(const uint8_t* const codes[4], int64_t i, int64_t n, uint8_t* out) {
  const uint8_t* left[4];
  for (int k = 0; k < 4; ++k) left[k] = codes[k] == nullptr ? nullptr : codes[k] + i;
  return kPlainTernaryCodecs.encode_quarters(left, n - i, out + i);
}
inline void round_left(const float* x, int64_t i, int64_t n, float scale, uint8_t* codes) {
  kPlainTernaryCodecs.round_to_codes(x + i, n - i, scale, codes + i);
}
