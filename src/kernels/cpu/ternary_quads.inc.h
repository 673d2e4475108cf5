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

// Codes of a head's coarse copy: [column quad][row: 32][4].
static void sketch_unpack_tile(const uint8_t* tile, int64_t n_blocks, uint8_t* codes) {
  const auto load_bytes = [](const uint8_t* p) {
    U8x16 v;
    __builtin_memcpy(&v, p, 16);
    return v;
  };
  for (int64_t block = 0; block < n_blocks; ++block, codes += kSketchBlockCols * kTileRows) {
    for (int64_t group = 0; group < 2; ++group, tile += kSketchBlockBytes / 2) {
      for (int64_t at = 0; at < kVectorBytes; at += 16) {
        const U8x16 low_bits = load_bytes(tile + 4 * kVectorBytes + at);
        BN_UNROLL for (int v = 0; v < 4; ++v) {
          const U8x16 bytes = load_bytes(tile + v * kVectorBytes + at);
          const U8x16 first = bytes & 31, second = (bytes >> 3 & 28) | (low_bits >> uint8_t(2 * v) & 3);
          uint8_t* const out = codes + v * kBlockBytes + group * kVectorBytes + at;
          __builtin_memcpy(out, &first, 16);
          __builtin_memcpy(out + 4 * kBlockBytes, &second, 16);
        }
      }
    }
  }
}
