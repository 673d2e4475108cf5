// Included inside the anonymous namespace of an isa_NAME.cc: products with rows and columns of 2-bit codes for any
// processor.

static void dot_rows(const RowDotArgs& a) {
  for (int64_t i = 0; i < a.n; ++i) {
    const uint8_t* const row = a.rows + a.ids[i] * a.row_bytes;
    const int8_t* x = a.x;
    int32_t sum = 0;
    for (int64_t at = 0; at < a.row_bytes; at += kVectorBytes, x += 4 * kVectorBytes) {
      BN_UNROLL for (int j = 0; j < 4; ++j) {
        for (int b = 0; b < kVectorBytes; ++b) sum += (row[at + b] >> 2 * j & 3) * x[j * kVectorBytes + b];
      }
    }
    a.sums[i] = sum;
  }
}

// 32 columns stay within 16 bits: 32 * 3 * 128 = 12288.
static void add_columns(const ColumnSumArgs& a) {
  for (int64_t at = 0; at < a.column_bytes; at += kVectorBytes) {
    int16_t part[4][kVectorBytes] = {};
    for (int64_t i = 0; i < a.n; ++i) {
      const uint8_t* const bytes = a.columns + a.ids[i] * a.column_bytes + at;
      const int16_t q = a.q[i];
      BN_UNROLL for (int j = 0; j < 4; ++j) {
        for (int b = 0; b < kVectorBytes; ++b) part[j][b] = int16_t(part[j][b] + (bytes[b] >> 2 * j & 3) * q);
      }
    }
    int32_t* const sums = a.sums + 4 * at;
    for (int j = 0; j < 4; ++j) {
      for (int b = 0; b < kVectorBytes; ++b) sums[j * kVectorBytes + b] += part[j][b];
    }
  }
}
