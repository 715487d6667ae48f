// Gradients of a convolution's weights: matrix products whose sums run over positions.

#pragma once

#include "gemm.h"

namespace {

constexpr int SLICE = 128;  // positions whose factors are packed at a time: a panel of the right one fits the first cache

// [depth, TILE_ROWS] times [depth, VECTORS vectors], summed over depth.
template <int VECTORS>
__attribute__((noinline)) void multiply_packed(const float* left, const float* right, int64_t depth, Vector* product) {
    Vector sum[TILE_ROWS][VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) sum[r][v] = Vector{};
    for (int64_t k = 0; k < depth; k++, left += TILE_ROWS, right += VECTORS * LANES) {
        Vector factor[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) factor[v] = load(right + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++) {
            const float x = left[r];
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) sum[r][v] += x * factor[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) product[r * VECTORS + v] = sum[r][v];
}

// to[m, s, k] = scale[m] * sum over i < count of left(i)[m] * right(i, s)[k], for m < rows, s < segments, k < length.
// With `sums`, a further row m = rows has the sums of right(i, s)[k].
//
// Threads take groups of columns as they come (dynamic scheduling), each over all positions: the result does not depend on
// the number of threads.
class WeightGradient {
public:
    // `to` may be null: there is nothing to do. `scale` may be null: 1.
    WeightGradient(float* to, const float* scale, int64_t count, int64_t rows, int64_t segments, int64_t length, int threads,
                   bool sums = false)
        : to(to), scale(scale), count(count), own_rows(rows), rows(rows + sums), length(length), columns(segments * length),
          panels((length + PANEL - 1) / PANEL), all_panels(segments * panels),
          group(std::clamp<int64_t>(all_panels / threads, 1, 8)) {}

    // Floats of scratch per thread.
    static int64_t scratch_size(int64_t rows) { return SLICE * (rows + 1 + TILE_ROWS + PANEL); }

    // left(i) is a row of `rows` floats; right(i, s, k, vectors, panel row) writes so many vectors from column k on.
    template <class LeftRow, class RightPart>
    void take(float* scratch, const LeftRow& left, const RightPart& right) {
        if (!to) return;
        float* panel = scratch + SLICE * ((rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS);
        for (int64_t start; (start = next.fetch_add(group)) < all_panels;)
            for (int64_t first = 0; first < count; first += SLICE) {
                const int64_t depth = std::min<int64_t>(SLICE, count - first);
                pack_left(first, depth, scratch, left);
                for (int64_t at = start; at < std::min(start + group, all_panels); at++) {
                    const int64_t segment = at / panels, column = at % panels * PANEL;
                    const int vectors = static_cast<int>((std::min<int64_t>(length - column, PANEL) + LANES - 1) / LANES);
                    for (int64_t i = 0; i < depth; i++)
                        right(first + i, segment, column, vectors, panel + i * vectors * LANES);
                    float* target = to + segment * length + column;
                    switch (vectors) {
                        case 4: accumulate<TILE_VECTORS>(scratch, panel, depth, target, length - column, first > 0); break;
                        case 3: accumulate<std::min(3, TILE_VECTORS)>(scratch, panel, depth, target, length - column, first > 0); break;
                        case 2: accumulate<std::min(2, TILE_VECTORS)>(scratch, panel, depth, target, length - column, first > 0); break;
                        case 1: accumulate<1>(scratch, panel, depth, target, length - column, first > 0); break;
                    }
                }
            }
    }

private:
    template <class LeftRow>
    void pack_left(int64_t first, int64_t depth, float* packed, const LeftRow& left) const {
        const int64_t whole = own_rows / TILE_ROWS, rest = rows - whole * TILE_ROWS;
        for (int64_t i = 0; i < depth; i++) {
            const float* row = left(first + i);
            float* tile = packed + i * TILE_ROWS;
            for (int64_t t = 0; t < whole; t++, tile += depth * TILE_ROWS)
                std::memcpy(tile, row + t * TILE_ROWS, TILE_ROWS * sizeof(float));
            if (rest == 0) continue;
            std::fill_n(tile, TILE_ROWS, 0.0f);
            std::copy_n(row + whole * TILE_ROWS, own_rows - whole * TILE_ROWS, tile);
            if (rows > own_rows) tile[rest - 1] = 1;
        }
    }

    template <int VECTORS>
    void accumulate(const float* packed, const float* panel, int64_t depth, float* target, int64_t width, bool adds) const {
        Vector product[TILE_ROWS * VECTORS];
        for (int64_t m = 0; m < rows; m += TILE_ROWS, packed += depth * TILE_ROWS) {
            multiply_packed<VECTORS>(packed, panel, depth, product);
            for (int64_t r = 0; r < std::min<int64_t>(TILE_ROWS, rows - m); r++) {
                const float factor = scale ? scale[m + r] : 1.0f;
                for (int v = 0; v < VECTORS; v++) {
                    float* part = target + (m + r) * columns + v * LANES;
                    const Vector value = factor * product[r * VECTORS + v];
                    store_part(part, adds ? load_part(part, width - v * LANES) + value : value, width - v * LANES);
                }
            }
        }
    }

    float* const to;
    const float* const scale;
    const int64_t count, own_rows, rows, length, columns, panels, all_panels, group;
    std::atomic<int64_t> next{0};
};

// Transposes a matrix [rows, columns], by the threads of a team; does nothing if either pointer is null.
void transpose(const float* from, int64_t rows, int64_t columns, float* to) {
    if (!from || !to) return;
#pragma omp for schedule(static) nowait
    for (int64_t column = 0; column < columns; column += LANES)
        for (int64_t row = 0; row < rows; row += LANES) {
            Vector square[LANES];
            for (int r = 0; r < LANES; r++)
                square[r] = row + r < rows ? load_part(from + (row + r) * columns + column, columns - column) : Vector{};
            transpose_square(square);
            for (int c = 0; c < std::min<int64_t>(LANES, columns - column); c++)
                store_part(to + (column + c) * rows + row, square[c], rows - row);
        }
}

}  // namespace
