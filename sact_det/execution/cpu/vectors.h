// Vectors of floats, as wide as the processor's registers, and how many of them hold the sums of a tile of a product.

#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, TILE_ROWS = 6, TILE_VECTORS = 4;
#elif defined(__AVX__)
constexpr int LANES = 8, TILE_ROWS = 6, TILE_VECTORS = 2;
#elif defined(__aarch64__)
constexpr int LANES = 4, TILE_ROWS = 6, TILE_VECTORS = 4;
#else
constexpr int LANES = 4, TILE_ROWS = 4, TILE_VECTORS = 2;
#endif

typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

inline Vector load(const float* p) { return *reinterpret_cast<const Vector*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }
inline Vector relu(Vector v) { return v < 0 ? Vector{} : v; }  // keeps NaN

typedef int32_t Lanes __attribute__((vector_size(LANES * sizeof(int32_t))));

// A vector of lanes of a (0 to LANES - 1) and b (from LANES on).
template <int... lanes>
inline Vector pick(Vector a, Vector b) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, lanes...);
#else
    return __builtin_shuffle(a, b, Lanes{lanes...});
#endif
}

// Of LANES vectors, exchanges the blocks of DISTANCE x DISTANCE beside the diagonals, then those within the blocks.
template <int DISTANCE, int... lanes>
inline void transpose_blocks(Vector* rows, std::integer_sequence<int, lanes...> all) {
    if constexpr (DISTANCE > 0) {
#pragma GCC unroll 16
        for (int r = 0; r < LANES; r++) {
            if (r & DISTANCE) continue;
            const Vector a = rows[r], b = rows[r + DISTANCE];
            rows[r] = pick<(lanes & DISTANCE ? lanes - DISTANCE + LANES : lanes)...>(a, b);
            rows[r + DISTANCE] = pick<(lanes & DISTANCE ? lanes + LANES : lanes + DISTANCE)...>(a, b);
        }
        transpose_blocks<DISTANCE / 2>(rows, all);
    }
}

// LANES vectors as a square matrix, transposed in registers.
inline void transpose_square(Vector* rows) {
    transpose_blocks<LANES / 2>(rows, std::make_integer_sequence<int, LANES>{});
}

// The sum of the lanes.
inline float total(Vector v) {
    float sum = 0;
    for (int c = 0; c < LANES; c++) sum += v[c];
    return sum;
}

inline Vector larger(Vector a, Vector b) { return ((a > b) | (a != a)) ? a : b; }  // NaN wins

int64_t whole_vectors(int64_t columns) { return (columns + LANES - 1) / LANES * LANES; }

}  // namespace
