// Included inside the anonymous namespace of an isa_NAME.cc whose matmul_tile reads four columns a step, tokens in
// groups of kMatmulTokens: codes [column quad][row: 32][4], activations [column quad][token][4].
static void pack_tokens(const int8_t* q, int64_t stride, int64_t n_tokens, int64_t n_blocks, int8_t* packed) {
  for (int64_t t = 0; t < kMatmulTokens; ++t) {
    const int8_t* const row = q + t * stride;
    for (int64_t quad = 0; quad < 4 * n_blocks; ++quad) {
      const int32_t four = t < n_tokens ? load_quad(row + 4 * quad) : 0;
      __builtin_memcpy(packed + (quad * kMatmulTokens + t) * 4, &four, 4);
    }
  }
}
