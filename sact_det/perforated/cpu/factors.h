// Right factors of matrix products, packed from the weights of convolutions: in training weights change all the time.

#pragma once

#include "gemm.h"

extern "C" {

// A matrix [columns, outer * inner]: (column, i, j) is at from[column * step + i * outer_step + j * inner_step], times
// by_column[column], times by_inner[j], each of which may be null.
struct Factor {
    float* to;  // in panels, as gemm.h reads it
    const float* from;
    int64_t columns, outer, inner, step, outer_step, inner_step;
    const float *by_column, *by_inner;
};

struct Factors {
    const Factor* factors;
    int64_t count;
};

}  // extern "C"

namespace {

// `inner` elements from `first` on, of one panel and one `i`.
inline void pack_part(const Factor& at, int64_t panel, int64_t i, int64_t first, int64_t end) {
    const int64_t start = panel * PANEL, columns = std::min<int64_t>(at.columns - start, PANEL);
    const int64_t size = whole_vectors(columns);
    const float* from = at.from + start * at.step + i * at.outer_step;
    float* to = at.to + start * at.outer * at.inner + i * at.inner * size;
    const auto by_inner = [&](int64_t j) { return at.by_inner ? at.by_inner[j] : 1.0f; };
    if (at.step == 1) {
        for (int64_t j = first; j < end; j++) {
            const float factor = by_inner(j);
            for (int64_t c = 0; c < columns; c++) to[j * size + c] = from[c + j * at.inner_step] * factor;
        }
    } else {
        for (int64_t c = 0; c < columns; c++)
            for (int64_t j = first; j < end; j++) to[j * size + c] = from[c * at.step + j * at.inner_step] * by_inner(j);
    }
    for (int64_t j = first; j < end; j++) {
        if (at.by_column)
            for (int64_t c = 0; c < columns; c++) to[j * size + c] *= at.by_column[start + c];
        std::fill(to + j * size + columns, to + (j + 1) * size, 0.0f);
    }
}

// By the threads of a team, all of which find all factors packed behind it.
inline void pack(const Factors& all) {
    constexpr int64_t PART = 16;
    for (int64_t f = 0; f < all.count; f++) {
        const Factor& at = all.factors[f];
        const int64_t panels = (at.columns + PANEL - 1) / PANEL, parts = (at.inner + PART - 1) / PART;
#pragma omp for schedule(dynamic, 8) nowait
        for (int64_t n = 0; n < panels * at.outer * parts; n++) {
            const int64_t first = n % parts * PART;
            pack_part(at, n / parts / at.outer, n / parts % at.outer, first, std::min(at.inner, first + PART));
        }
    }
#pragma omp barrier
}

}  // namespace
