#pragma once

#include <cstdint>

// ggml's block types of 2 to 5 bits: one block to floats and back. Encoders take finite values whose scales binary16
// holds and search each group's scale (and minimum) for the least squared error.
namespace bitnet {

void decode_q4_0(const uint8_t* block, float* out);
void decode_q4_1(const uint8_t* block, float* out);
void decode_q5_0(const uint8_t* block, float* out);
void decode_q5_1(const uint8_t* block, float* out);
void decode_q2_k(const uint8_t* block, float* out);
void decode_q3_k(const uint8_t* block, float* out);
void decode_q4_k(const uint8_t* block, float* out);
void decode_q5_k(const uint8_t* block, float* out);

void encode_q4_0(const float* x, uint8_t* out);
void encode_q4_1(const float* x, uint8_t* out);
void encode_q5_0(const float* x, uint8_t* out);
void encode_q5_1(const float* x, uint8_t* out);
void encode_q2_k(const float* x, uint8_t* out);
void encode_q3_k(const float* x, uint8_t* out);
void encode_q4_k(const float* x, uint8_t* out);
void encode_q5_k(const float* x, uint8_t* out);

}  // namespace bitnet
