// What factors of a product consist of: float32, or bfloat16 where the processor multiplies that.

#pragma once

#include "vectors.h"

#if defined(__AVX512BF16__)
#define HAS_BFLOAT16 1
#include <immintrin.h>
#else
#define HAS_BFLOAT16 0
#endif

namespace {

// One step of a product: LENGTH consecutive elements of a row times as many rows of the right factor.
template <class Element>
struct Step;

template <>
struct Step<float> {
    static constexpr int LENGTH = 1;
    typedef Vector Right;
    typedef float Left;

    static Right right(const float* p) { return load(p); }  // of LANES columns
    static Left left(const float* p) { return *p; }
    static Vector add(Vector sum, Left x, Right y) { return sum + x * y; }
};

#if HAS_BFLOAT16

struct BFloat16 {
    uint16_t bits;
};

inline Vector load(const BFloat16* p) {
    uint16_t halves __attribute__((vector_size(LANES * sizeof(uint16_t))));
    std::memcpy(&halves, p, sizeof(halves));
    return (Vector)(__builtin_convertvector(halves, Lanes) << 16);
}

// Rounds to the nearest, ties to even.
inline void store(BFloat16* p, Vector v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh((__m512)v));
}

// Two elements at a time; the right factor has them side by side, too: [column][2].
template <>
struct Step<BFloat16> {
    static constexpr int LENGTH = 2;
    typedef __m512bh Right;
    typedef __m512bh Left;

    static Right right(const BFloat16* p) { return (Right)_mm512_loadu_si512(p); }
    static Left left(const BFloat16* p) {
        int32_t pair;
        std::memcpy(&pair, p, sizeof(pair));
        return (Left)_mm512_set1_epi32(pair);
    }
    static Vector add(Vector sum, Left x, Right y) { return (Vector)_mm512_dpbf16_ps((__m512)sum, y, x); }
};

#endif

// Loads and stores of the first `count` lanes, or of all if there are no more.
template <class Element>
inline Vector load_part(const Element* p, int64_t count) {
    if (count >= LANES) return load(p);
    Element part[LANES] = {};
    std::memcpy(part, p, count * sizeof(Element));
    return load(part);
}

template <class Element>
inline void store_part(Element* p, Vector v, int64_t count) {
    if (count >= LANES) return store(p, v);
    Element part[LANES];
    store(part, v);
    std::memcpy(p, part, count * sizeof(Element));
}

}  // namespace
