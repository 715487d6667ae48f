// Right factors of matrix products, packed from the weights of convolutions: in training weights change all the time.

#pragma once

#include "gemm.h"

extern "C" {

// A matrix [columns, outer * inner]: element (column, i, j) is
// source[column * step + i * outer_step + j * inner_step] * by_inner[j] * by_column[column].
struct Factor {
    float* target;  // in panels, as gemm.h reads it
    const float* source;
    int64_t columns, outer, inner, step, outer_step, inner_step;
    const float *by_column, *by_inner;  // or null: 1
};

struct Factors {
    const Factor* factors;
    int64_t count;
};

}  // extern "C"

namespace {

// Packs elements j of `inner` from `first` to `end`, of one panel and one i of `outer`, one by one.
inline void pack_part(const Factor& at, int64_t panel, int64_t i, int64_t first, int64_t end) {
    const int64_t start = panel * PANEL, columns = std::min<int64_t>(at.columns - start, PANEL);
    const int64_t size = whole_vectors(columns);
    const float* from = at.source + start * at.step + i * at.outer_step;
    float* to = at.target + start * at.outer * at.inner + i * at.inner * size;
    for (int64_t j = first; j < end; j++) {
        const float factor = at.by_inner ? at.by_inner[j] : 1.0f;
        for (int64_t c = 0; c < columns; c++) to[j * size + c] = from[c * at.step + j * at.inner_step] * factor;
        if (at.by_column)
            for (int64_t c = 0; c < columns; c++) to[j * size + c] *= at.by_column[start + c];
        std::fill(to + j * size + columns, to + (j + 1) * size, 0.0f);
    }
}

// Packs up to LANES elements of every column of a panel at once, from (i, j) on: consecutive j if `along_inner`, else
// consecutive i; they lie side by side in memory.
inline void pack_square(const Factor& at, int64_t panel, int64_t i, int64_t j, bool along_inner) {
    const int64_t start = panel * PANEL, columns = std::min<int64_t>(at.columns - start, PANEL);
    const int64_t size = whole_vectors(columns), count = std::min<int64_t>(LANES, along_inner ? at.inner - j : at.outer - i);
    const float* from = at.source + start * at.step + i * at.outer_step + j * at.inner_step;
    const float* last = at.source + (at.columns - 1) * at.step + (at.outer - 1) * at.outer_step + (at.inner - 1) * at.inner_step;
    float* to = at.target + start * at.outer * at.inner + (i * at.inner + j) * size;
    for (int64_t column = 0; column < columns; column += LANES) {
        Vector square[LANES];
        for (int c = 0; c < LANES; c++) {
            const float* row = from + (column + c) * at.step;
            if (column + c >= columns)
                square[c] = Vector{};
            else  // beyond `count` may be anything, but not the end of the array
                square[c] = load_part(row, row + LANES - 1 <= last ? LANES : count);
        }
        transpose_square(square);
        const Vector by_column = at.by_column ? load_part(at.by_column + start + column, columns - column) : Vector{} + 1;
        for (int64_t n = 0; n < count; n++) {
            const float factor = at.by_inner ? at.by_inner[along_inner ? j + n : j] : 1.0f;
            store(to + n * (along_inner ? 1 : at.inner) * size + column, square[n] * factor * by_column);
        }
    }
}

// Packs all factors, by the threads of a team; ends with a barrier.
inline void pack(const Factors& all) {
    constexpr int64_t PART = 16;
    static_assert(PART % LANES == 0, "a part is made of whole squares");
    for (int64_t f = 0; f < all.count; f++) {
        const Factor& at = all.factors[f];
        const bool along_inner = at.inner_step == 1, squares = at.step != 1 && (along_inner || at.outer_step == 1);
        const int64_t outer_part = squares && !along_inner ? LANES : 1;  // of `outer` in an iteration; of `inner`, PART
        const int64_t outer_parts = (at.outer + outer_part - 1) / outer_part, inner_parts = (at.inner + PART - 1) / PART;
#pragma omp for schedule(dynamic, 8) nowait
        for (int64_t n = 0; n < panels(at.columns) * outer_parts * inner_parts; n++) {
            const int64_t panel = n / inner_parts / outer_parts, i = n / inner_parts % outer_parts * outer_part;
            const int64_t first = n % inner_parts * PART, end = std::min(at.inner, first + PART);
            if (!squares)
                pack_part(at, panel, i, first, end);
            else
                for (int64_t j = first; j < end; j += along_inner ? LANES : 1) pack_square(at, panel, i, j, along_inner);
        }
    }
#pragma omp barrier
}

}  // namespace
