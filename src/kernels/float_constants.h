#pragma once

// Plain numbers shared by float_spec.h and the instruction sets of cpu/, which include no library header.
namespace bitnet {

// Adding and subtracting 1.5 * 2^23 rounds |x| < 2^22 to an integer, half to even, in the default rounding mode; the
// low bits of the sum are that integer.
constexpr float kRoundMagic = 12582912.0f;

// exp(x) = 2^n * exp(r), n = round(x / ln 2), r = x - n * ln 2 in two steps (the first product is exact: the high part
// has 9 bits). exp(r) = 1 + (r + r^2 * (kExpC2 + r * (kExpC3 + ...))): Chebyshev interpolation of (exp(r) - 1 - r) /
// r^2 on |r| <= ln 2 / 2, within 2e-9; what remains is the rounding of the last two additions.
constexpr float kLog2E = 1.44269502f;
constexpr float kLn2High = 0.693359375f;
constexpr float kLn2Low = -0.000212194442f;
constexpr float kExpC2 = 0.5f;
constexpr float kExpC3 = 0.166665763f;
constexpr float kExpC4 = 0.0416665524f;
constexpr float kExpC5 = 0.00836323295f;
constexpr float kExpC6 = 0.00139262504f;
// Beyond these the result is 0 or infinity; within, 2^n splits into two finite powers of two.
constexpr float kExpMin = -105.0f;
constexpr float kExpMax = 90.0f;

// Activations: s = 127 / max(absmax, kAbsmaxFloor).
constexpr float kAbsmaxFloor = 1e-5f;

// Positions whose weighted values attention adds up before they join the others (numerics.md 8): few enough to stay in
// a first-level cache, and on a GPU tiles are summed beside each other.
constexpr int kValueTile = 64;

}  // namespace bitnet
