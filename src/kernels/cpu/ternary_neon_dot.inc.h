// Included inside the anonymous namespace of an isa_neon*.cc that has SDOT.
static void matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  int32x4_t sum[8];
  BN_UNROLL for (int i = 0; i < 8; ++i) sum[i] = vdupq_n_s32(0);
  for (int64_t block = 0; block < n_blocks; ++block, tile += kBlockBytes, q += kBlockCols) {
    const int8x16_t x = vld1q_s8(q);
    BN_UNROLL for (int i = 0; i < 8; ++i) {
      const uint8x16_t v = vld1q_u8(tile + 16 * i);
      sum[i] = vdotq_laneq_s32(sum[i], field<0>(v), x, 0);
      sum[i] = vdotq_laneq_s32(sum[i], field<1>(v), x, 1);
      sum[i] = vdotq_laneq_s32(sum[i], field<2>(v), x, 2);
      sum[i] = vdotq_laneq_s32(sum[i], field<3>(v), x, 3);
    }
  }
  BN_UNROLL for (int i = 0; i < 8; ++i) vst1q_s32(sums + 4 * i, sum[i]);
}
