// What of isa_codecs_neon.cc is neither planes nor neighbours; included inside its anonymous namespace.

// Q1_0: a bit a value, 16 of them in copies of their bytes.
bool decode_q1_0(const uint8_t* in, int64_t n, uint8_t* codes) {
  const uint8x8_t bits = {1, 2, 4, 8, 16, 32, 64, 128};
  for (int64_t i = 0; i < n; ++i, in += 18, codes += 128) {
    BN_UNROLL for (int k = 0; k < 16; ++k) {
      vst1_u8(codes + 8 * k, vand_u8(vtst_u8(vdup_n_u8(in[2 + k]), bits), vdup_n_u8(2)));
    }
  }
  return true;
}
bool encode_q1_0(const uint8_t* codes, int64_t n, uint8_t* out) {
  const uint8x8_t places = {1, 2, 4, 8, 16, 32, 64, 128};
  Largest largest;
  for (int64_t i = 0; i < n; ++i, codes += 128, out += 18) {
    BN_UNROLL for (int k = 0; k < 16; k += 2) {
      const uint8x16_t x = largest.look(vld1q_u8(codes + 8 * k));
      const uint8x16_t ones = vshrq_n_u8(x, 1);
      out[2 + k] = vaddv_u8(vmul_u8(vget_low_u8(ones), places));
      out[3 + k] = vaddv_u8(vmul_u8(vget_high_u8(ones), places));
    }
  }
  return largest.at_most(2);
}

// IQ1_BN: three bytes of five digits and one digit of the 13th byte for 16 values.
struct Iq1BnVectors {
  alignas(16) uint8_t index[4][16], factor[4][16];
};
constexpr Iq1BnVectors make_iq1_bn_vectors() {
  Iq1BnVectors made = {};
  for (int value = 0; value < 64; ++value) {
    const int group = value / 16, in_group = value % 16, digit = in_group == 15 ? group : in_group % 5;
    uint32_t factor = 1;
    for (int j = digit; j < 4; ++j) factor *= 3;
    made.index[group][in_group] = uint8_t(in_group == 15 ? 12 : 3 * group + in_group / 5);
    made.factor[group][in_group] = uint8_t(factor);
  }
  return made;
}
constexpr Iq1BnVectors kIq1BnVectors = make_iq1_bn_vectors();

// The fifth digit of the 13th byte is its most significant and 0, so that the byte is at most 85.
bool decode_iq1_bn(const uint8_t* in, int64_t n, uint8_t* codes) {
  Largest left;
  uint8_t last_byte = 0;
  for (int64_t i = 0; i < n; ++i, in += 13, codes += 64) {
    uint8_t block[16] = {};
    __builtin_memcpy(block, in, 13);
    const uint8x16_t x = vld1q_u8(block);
    left.look(triple(triple(triple(triple(triple(x))))));
    last_byte = in[12] > last_byte ? in[12] : last_byte;
    BN_UNROLL for (int g = 0; g < 4; ++g) {
      const uint8x16_t copies = vqtbl1q_u8(x, vld1q_u8(kIq1BnVectors.index[g]));
      vst1q_u8(codes + 16 * g, digits(vmulq_u8(copies, vld1q_u8(kIq1BnVectors.factor[g]))));
    }
  }
  return left.at_most(242) && last_byte <= 85;
}
// A block in scalar steps: the layout mixes neighbours of four places.
bool encode_iq1_bn(const uint8_t* codes, int64_t n, uint8_t* out) {
  Largest largest;
  const auto byte = [](int q) { return uint8_t((q * 256 + 242) / 243); };
  for (int64_t i = 0; i < n; ++i, codes += 64, out += 13) {
    BN_UNROLL for (int k = 0; k < 4; ++k) largest.look(vld1q_u8(codes + 16 * k));
    for (int g = 0; g < 4; ++g) {
      for (int b = 0; b < 3; ++b) {
        const uint8_t* c = codes + 16 * g + 5 * b;
        out[3 * g + b] = byte(c[0] + 3 * c[1] + 9 * c[2] + 27 * c[3] + 81 * c[4]);
      }
    }
    out[12] = byte(codes[15] + 3 * codes[31] + 9 * codes[47] + 27 * codes[63]);
  }
  return largest.at_most(2);
}

bool copy_codes(const uint8_t* in, int64_t n, uint8_t* out) {
  Largest largest;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) vst1q_u8(out + i, largest.look(vld1q_u8(in + i)));
  uint8_t most = 0;
  for (; i < n; ++i) {
    most = in[i] > most ? in[i] : most;
    out[i] = in[i];
  }
  return most <= 2 && largest.at_most(2);
}

bool decode_quarters(const uint8_t* in, int64_t n, uint8_t* const codes[4]) {
  Threes threes;
  uint8_t *const a = codes[0], *const b = codes[1], *const c = codes[2], *const d = codes[3];
  // Of a byte only the quarters that are wanted may be looked at.
  const uint8x16_t wanted = vdupq_n_u8(
      uint8_t((a != nullptr ? 3 : 0) | (b != nullptr ? 12 : 0) | (c != nullptr ? 48 : 0) | (d != nullptr ? 192 : 0)));
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const uint8x16_t x = vld1q_u8(in + i);
    threes.look(vandq_u8(x, wanted));
    if (a != nullptr) vst1q_u8(a + i, field<0>(x));
    if (b != nullptr) vst1q_u8(b + i, field<2>(x));
    if (c != nullptr) vst1q_u8(c + i, field<4>(x));
    if (d != nullptr) vst1q_u8(d + i, field<6>(x));
  }
  return decode_left_quarters(in, i, n, codes) && threes.none();
}
bool encode_quarters(const uint8_t* const codes[4], int64_t n, uint8_t* out) {
  Largest largest;
  const auto quarter = [&](int k, int64_t i) {
    return codes[k] == nullptr ? vdupq_n_u8(0) : largest.look(vld1q_u8(codes[k] + i));
  };
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    vst1q_u8(out + i, join_fields(quarter(0, i), quarter(1, i), quarter(2, i), quarter(3, i)));
  }
  return encode_left_quarters(codes, i, n, out) && largest.at_most(2);
}

// Eight lanes, each in order.
void add_magnitudes(const float* x, int64_t n, double lanes[kMagnitudeLanes]) {
  float64x2_t sums[4];
  BN_UNROLL for (int k = 0; k < 4; ++k) sums[k] = vld1q_f64(lanes + 2 * k);
  for (int64_t i = 0; i < n; i += kMagnitudeLanes) {
    const float32x4_t low = vabsq_f32(vld1q_f32(x + i)), high = vabsq_f32(vld1q_f32(x + i + 4));
    sums[0] = vaddq_f64(sums[0], vcvt_f64_f32(vget_low_f32(low)));
    sums[1] = vaddq_f64(sums[1], vcvt_high_f64_f32(low));
    sums[2] = vaddq_f64(sums[2], vcvt_f64_f32(vget_low_f32(high)));
    sums[3] = vaddq_f64(sums[3], vcvt_high_f64_f32(high));
  }
  BN_UNROLL for (int k = 0; k < 4; ++k) vst1q_f64(lanes + 2 * k, sums[k]);
}

// Truths are -1: (x * scale < -0.5) - (x * scale > 0.5).
inline uint16x4_t round_four(const float* x, float scale) {
  const float32x4_t v = vmulq_n_f32(vld1q_f32(x), scale);
  return vmovn_u32(vsubq_u32(vcltq_f32(v, vdupq_n_f32(-0.5f)), vcgtq_f32(v, vdupq_n_f32(0.5f))));
}
void round_to_codes(const float* x, int64_t n, float scale, uint8_t* codes) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const uint16x8_t low = vcombine_u16(round_four(x + i, scale), round_four(x + i + 4, scale));
    const uint16x8_t high = vcombine_u16(round_four(x + i + 8, scale), round_four(x + i + 12, scale));
    vst1q_u8(codes + i, vaddq_u8(vcombine_u8(vmovn_u16(low), vmovn_u16(high)), vdupq_n_u8(1)));
  }
  round_left(x, i, n, scale, codes);
}
