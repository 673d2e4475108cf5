// Included inside the anonymous namespace of an isa_neon*.cc whose matmul_tile reads four columns a step.
static void unpack_tile(const uint8_t* tile, int64_t n_blocks, uint8_t* codes) {
  for (int64_t block = 0; block < n_blocks; ++block, tile += kBlockBytes, codes += 4 * kBlockBytes) {
    for (int64_t i = 0; i < kBlockBytes; i += 16) {
      const uint8x16_t v = vld1q_u8(tile + i);
      vst1q_u8(codes + i, vreinterpretq_u8_s8(field<0>(v)));
      vst1q_u8(codes + kBlockBytes + i, vreinterpretq_u8_s8(field<1>(v)));
      vst1q_u8(codes + 2 * kBlockBytes + i, vreinterpretq_u8_s8(field<2>(v)));
      vst1q_u8(codes + 3 * kBlockBytes + i, vreinterpretq_u8_s8(field<3>(v)));
    }
  }
}
