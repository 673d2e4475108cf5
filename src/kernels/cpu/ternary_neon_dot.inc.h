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
static void sketch_matvec_tile(const uint8_t* tile, int64_t n_blocks, const int8_t* q, int32_t* sums) {
  int32x4_t sum[8];
  BN_UNROLL for (int i = 0; i < 8; ++i) sum[i] = vdupq_n_s32(0);
  for (int64_t block = 0; block < n_blocks; ++block, tile += kSketchBlockBytes, q += kSketchBlockCols) {
    const int8x16_t x0 = vld1q_s8(q), x1 = vld1q_s8(q + 16);
    BN_UNROLL for (int i = 0; i < 8; ++i) {
      const uint8_t* const vectors = tile + i / 4 * (kSketchBlockBytes / 2) + i % 4 * 16;
      const uint8x16_t low_bits = vld1q_u8(vectors + 4 * kVectorBytes);
      const uint8x16_t a = vld1q_u8(vectors), b = vld1q_u8(vectors + kVectorBytes);
      const uint8x16_t c = vld1q_u8(vectors + 2 * kVectorBytes), d = vld1q_u8(vectors + 3 * kVectorBytes);
      sum[i] = vdotq_laneq_s32(sum[i], sketch_first(a), x0, 0);
      sum[i] = vdotq_laneq_s32(sum[i], sketch_first(b), x0, 1);
      sum[i] = vdotq_laneq_s32(sum[i], sketch_first(c), x0, 2);
      sum[i] = vdotq_laneq_s32(sum[i], sketch_first(d), x0, 3);
      sum[i] = vdotq_laneq_s32(sum[i], sketch_second<0>(a, low_bits), x1, 0);
      sum[i] = vdotq_laneq_s32(sum[i], sketch_second<1>(b, low_bits), x1, 1);
      sum[i] = vdotq_laneq_s32(sum[i], sketch_second<2>(c, low_bits), x1, 2);
      sum[i] = vdotq_laneq_s32(sum[i], sketch_second<3>(d, low_bits), x1, 3);
    }
  }
  BN_UNROLL for (int i = 0; i < 8; ++i) vst1q_s32(sums + 4 * i, sum[i]);
}
