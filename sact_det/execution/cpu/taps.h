// A halting branch's local convolution in inference: dot products of its taps with rows of the state.

#pragma once

#include "gemm.h"

extern "C" {

// A halting branch whose norms are folded into its convolutions.
struct Halting {
    int64_t channels;
    const float *taps, *bias;  // [TAPS, channels], and what each tap adds, [whole_vectors(TAPS)]
    const float *mean_weights; // [channels], of the mean over an image
    float constant;
};

}  // extern "C"

namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int TAP_ROWS = 3;  // rows at a time: TAPS sums each, one vector a sum
#else
constexpr int TAP_ROWS = 1;
#endif

// Adds neighbouring lanes, i and i ^ D: of a where i lacks the bit D, of b where it has it.
template <int D, int... I>
inline Vector fold(Vector a, Vector b, std::integer_sequence<int, I...>) {
    return pick<(I & D ? I + LANES : I)...>(a, b) + pick<(I & D ? (I ^ D) + LANES : I ^ D)...>(a, b);
}

// A vector whose lane i is the sum of the lanes of vectors[i], i < LANES; recursive, D = 1, 2, 4, ... LANES.
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

// Dot products of a branch's taps with up to TAP_ROWS rows, plus the taps' biases.
inline void multiply_taps(const Halting& branch, const float* const* rows, int count, float* const* products) {
    Vector sums[TAP_ROWS][TAPS] = {};
    const float* from[TAP_ROWS];
    for (int r = 0; r < TAP_ROWS; r++) from[r] = rows[std::min(r, count - 1)];
    const auto add = [&](int64_t c, auto load_at) {
        Vector x[TAP_ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < TAP_ROWS; r++) x[r] = load_at(from[r] + c);
#pragma GCC unroll 9
        for (int tap = 0; tap < TAPS; tap++) {
            const Vector weight = load_at(branch.taps + tap * branch.channels + c);
#pragma GCC unroll 8
            for (int r = 0; r < TAP_ROWS; r++) sums[r][tap] += x[r] * weight;
        }
    };
    int64_t c = 0;
    for (; c + LANES <= branch.channels; c += LANES) add(c, [](const float* p) { return load(p); });
    if (c < branch.channels) add(c, [&](const float* p) { return load_part(p, branch.channels - c); });
    for (int r = 0; r < count; r++)
        for (int tap = 0; tap < TAPS; tap += LANES) {
            Vector vectors[LANES] = {};
            for (int i = 0; i < std::min(LANES, TAPS - tap); i++) vectors[i] = sums[r][tap + i];
            store(products[r] + tap, sum_lanes(vectors) + load(branch.bias + tap));
        }
}

}  // namespace
