// The nine taps of a halting branch's local convolution, in inference: dot products with rows of the state.

#pragma once

#include "gemm.h"

extern "C" {

// A halting branch with its norms folded away.
struct Halting {
    int64_t channels;
    const float *taps, *bias;  // [9, channels], and what each tap adds, whole vectors
    const float *mean_weights; // [channels], of the mean over an image
    float constant;
};

}  // extern "C"

namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int TAP_ROWS = 3;  // times nine sums, one vector each
#else
constexpr int TAP_ROWS = 1;
#endif

// Lanes i of a, or of b where i has the bit D, each plus its neighbour i ^ D.
template <int D, int... I>
inline Vector fold(Vector a, Vector b, std::integer_sequence<int, I...>) {
    return pick<(I & D ? I + LANES : I)...>(a, b) + pick<(I & D ? (I ^ D) + LANES : I ^ D)...>(a, b);
}

// The sum over the lanes of vector i, in lane i; there are LANES vectors, 2^n * D of them still to be folded.
template <int D = 1>
inline Vector sum_lanes(Vector* vectors) {
    if constexpr (D == LANES) {
        return vectors[0];
    } else {
#pragma GCC unroll 8
        for (int i = 0; i < LANES / D / 2; i++)
            vectors[i] = fold<D>(vectors[2 * i], vectors[2 * i + 1], std::make_integer_sequence<int, LANES>{});
        return sum_lanes<2 * D>(vectors);
    }
}

// What a branch's taps make of up to TAP_ROWS rows: dot products, plus the taps' biases.
inline void multiply_nine(const Halting& branch, const float* const* rows, int count, float* const* products) {
    Vector sums[TAP_ROWS][9] = {};
    const float* from[TAP_ROWS];
    for (int r = 0; r < TAP_ROWS; r++) from[r] = rows[std::min(r, count - 1)];
    const auto add = [&](int64_t c, auto load_at) {
        Vector x[TAP_ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < TAP_ROWS; r++) x[r] = load_at(from[r] + c);
#pragma GCC unroll 9
        for (int tap = 0; tap < 9; tap++) {
            const Vector weight = load_at(branch.taps + tap * branch.channels + c);
#pragma GCC unroll 8
            for (int r = 0; r < TAP_ROWS; r++) sums[r][tap] += x[r] * weight;
        }
    };
    int64_t c = 0;
    for (; c + LANES <= branch.channels; c += LANES) add(c, [](const float* p) { return load(p); });
    if (c < branch.channels) add(c, [&](const float* p) { return load_part(p, branch.channels - c); });
    for (int r = 0; r < count; r++)
        for (int tap = 0; tap < 9; tap += LANES) {
            Vector vectors[LANES] = {};
            for (int i = 0; i < std::min(LANES, 9 - tap); i++) vectors[i] = sums[r][tap + i];
            store(products[r] + tap, sum_lanes(vectors) + load(branch.bias + tap));
        }
}

}  // namespace
