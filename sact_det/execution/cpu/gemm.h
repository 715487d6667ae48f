// Matrix products on a CPU, which all kernels of this folder share. Factors are float32, or bfloat16 where the processor
// multiplies that; sums are float32.
//
// A product reads its left factor through a table of row pointers, one per position and tap of the convolution ("implicit"
// or "indirect" GEMM). Right factors are packed in panels of PANEL columns: [panel][k][column], or
// [panel][k / 2][column][k % 2] if they are bfloat16. The last panel is as wide as it needs to be, in whole vectors.

#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>

#include "elements.h"

namespace {

constexpr int PANEL = LANES * TILE_VECTORS;
constexpr int BLOCK_ROWS = 192;  // rows that share a panel while it is in the cache
constexpr int SUM_ROWS = 4 * TILE_ROWS;  // rows of a block that are summed at a time (sums.h)
static_assert(BLOCK_ROWS % SUM_ROWS == 0, "a block holds whole tiles, and is summed as a whole");
constexpr int TAPS = 9;  // of a 3x3 convolution, numbered row by row

// The rows of a left factor: each consists of segments of consecutive elements, in whole steps, anywhere in memory.
template <class Element>
struct LeftFactor {
    int64_t segments = 0;
    int64_t lengths[TAPS];
    const Element* rows[TAPS][BLOCK_ROWS];
    const Element* zeros = nullptr;  // a row of zeros, or null; where all rows of a tile point to it, nothing is multiplied

    void set_segments(int64_t count, int64_t length) {
        segments = count;
        std::fill_n(lengths, count, length);
    }
};

// Tiles that prefetch a panel between them, each a part: so the memory has time to deliver it.
constexpr int AHEAD_TILES = 4;

// TILE_ROWS rows of the left factor, from `first` on, times a panel of VECTORS vectors: product [TILE_ROWS][VECTORS].
// Prefetches an AHEAD_TILES-th of such a panel from `ahead` on, which need not be memory of this process.
// Not inlined, so that the compiler keeps all sums in registers.
template <int VECTORS, class Element>
__attribute__((noinline)) void multiply_tile(const LeftFactor<Element>& left, int first, const Element* panel,
                                             const Element* ahead, Vector* product) {
    typedef Step<Element> Of;
    constexpr int WIDTH = LANES * Of::LENGTH;  // elements of the panel that a vector of sums takes in a step
    constexpr int AHEAD = VECTORS * WIDTH / AHEAD_TILES;
    Vector sum[TILE_ROWS][VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) sum[r][v] = Vector{};
    for (int64_t s = 0; s < left.segments; s++) {
        const Element* row[TILE_ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++) row[r] = left.rows[s][first + r];
        const int64_t length = left.lengths[s];
        bool any = !left.zeros;
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++) any |= row[r] != left.zeros;
        if (!any) {
            panel += length / Of::LENGTH * VECTORS * WIDTH;
            ahead += length / Of::LENGTH * AHEAD;
            continue;
        }
        for (int64_t k = 0; k < length; k += Of::LENGTH, panel += VECTORS * WIDTH, ahead += AHEAD) {
            typename Of::Right right[VECTORS];
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) right[v] = Of::right(panel + v * WIDTH);
            __builtin_prefetch(ahead, 0, 2);  // not into the nearest cache, which the present panel needs
#pragma GCC unroll 8
            for (int r = 0; r < TILE_ROWS; r++) {
                const typename Of::Left x = Of::left(row[r] + k);
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; v++) sum[r][v] = Of::add(sum[r][v], x, right[v]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) product[r * VECTORS + v] = sum[r][v];
}

// next: the panel that is needed after this one.
template <int VECTORS, class Element, class Epilogue>
void multiply_panel(const LeftFactor<Element>& left, int rows, const Element* panel, const Element* next, int64_t depth,
                    int64_t start, const Epilogue& epilogue) {
    Vector product[TILE_ROWS * VECTORS];
    const int64_t part = depth * VECTORS * LANES / AHEAD_TILES;
    for (int first = 0; first < rows; first += TILE_ROWS) {
        const int count = std::min(TILE_ROWS, rows - first);
        epilogue.prepare(first, count, start, VECTORS);
        multiply_tile<VECTORS>(left, first, panel, next + first / TILE_ROWS % AHEAD_TILES * part, product);
        for (int v = 0; v < VECTORS; v++) epilogue(first, count, start + v * LANES, product + v, VECTORS);
    }
}

int64_t panels(int64_t columns) { return (columns + PANEL - 1) / PANEL; }

// One of several equal parts of the columns of a product, in whole panels.
struct Share {
    int part = 0, parts = 1;

    int64_t first_column(int64_t columns) const { return panels(columns) * part / parts * PANEL; }
    int64_t end_column(int64_t columns) const {
        return std::min(columns, panels(columns) * (part + 1) / parts * PANEL);
    }
};

// A product. For every tile, epilogue.prepare(first row, rows, column, vectors) is called before it is multiplied, and then,
// for every vector of columns, epilogue(first row, rows, column, Vector*, distance between rows' Vectors).
template <class Element, class Epilogue>
void multiply(LeftFactor<Element>& left, int rows, const Element* packed, int64_t columns, const Epilogue& epilogue,
              Share share = {}) {
    int64_t depth = 0;
    for (int64_t s = 0; s < left.segments; s++) {
        depth += left.lengths[s];
        for (int r = rows; r % TILE_ROWS != 0; r++) left.rows[s][r] = left.rows[s][rows - 1];  // computed, not used
    }
    for (int64_t start = share.first_column(columns); start < share.end_column(columns); start += PANEL) {
        const Element* panel = packed + start * depth;
        const Element* next = panel + PANEL * depth;  // behind the last one, whatever is there
        switch ((std::min<int64_t>(columns - start, PANEL) + LANES - 1) / LANES) {
            case 4: multiply_panel<TILE_VECTORS>(left, rows, panel, next, depth, start, epilogue); break;
            case 3: multiply_panel<std::min(3, TILE_VECTORS)>(left, rows, panel, next, depth, start, epilogue); break;
            case 2: multiply_panel<std::min(2, TILE_VECTORS)>(left, rows, panel, next, depth, start, epilogue); break;
            case 1: multiply_panel<1>(left, rows, panel, next, depth, start, epilogue); break;
        }
    }
}

// Epilogue: stores product + bias, rectified or not, in the given rows.
template <class Element>
struct Store {
    const float* bias;
    int64_t columns;
    bool rectify;
    Element* const* rows;

    void prepare(int, int, int64_t, int) const {}
    void operator()(int first, int count, int64_t column, const Vector* product, int step) const {
        const Vector b = load_part(bias + column, columns - column);
        for (int r = 0; r < count; r++) {
            const Vector v = product[r * step] + b;
            store(rows[first + r] + column, rectify ? relu(v) : v);
        }
    }
};

// Epilogue: stores relu(scale * product + bias) in the given rows.
template <class Element>
struct StoreScaled {
    const float *scale, *bias;
    int64_t columns;
    Element* const* rows;

    void prepare(int, int, int64_t, int) const {}
    void operator()(int first, int count, int64_t column, const Vector* product, int step) const {
        const int64_t left = columns - column;
        const Vector s = load_part(scale + column, left), b = load_part(bias + column, left);
        for (int r = 0; r < count; r++) store(rows[first + r] + column, relu(product[r * step] * s + b));
    }
};

struct Place {
    int64_t image, y, x;
};

Place locate(int64_t position, int64_t height, int64_t width) {
    const int64_t row = position / width;
    return {row / height, row % height, position % width};
}

// The position, on a map of height x width, that a tap of a 3x3 convolution reads for an output place; -1 beyond the map.
inline int64_t tap_position(const Place& place, int tap, int64_t stride, int64_t dilation, int64_t height, int64_t width) {
    const int64_t y = place.y * stride + (tap / 3 - 1) * dilation, x = place.x * stride + (tap % 3 - 1) * dilation;
    return 0 <= y && y < height && 0 <= x && x < width ? (place.image * height + y) * width + x : -1;
}

template <class Element>
void prefetch(const Element* row, int64_t count) {
    for (int64_t c = 0; c < count; c += 64 / sizeof(Element)) __builtin_prefetch(row + c);
}

// relu(scale * x + shift) of one row.
template <class From, class Element>
void normalize_row(const From* x, const float* scale, const float* shift, int64_t channels, Element* to) {
    int64_t c = 0;
    for (; c + LANES <= channels; c += LANES) store(to + c, relu(load(x + c) * load(scale + c) + load(shift + c)));
    if (c == channels) return;
    const int64_t left = channels - c;
    store_part(to + c, relu(load_part(x + c, left) * load_part(scale + c, left) + load_part(shift + c, left)), left);
}

// Rows in blocks of at most BLOCK_ROWS, whole times SUM_ROWS, small enough that every thread gets some. Threads take blocks as
// they come (dynamic scheduling).
class Blocks {
public:
    Blocks(int64_t count, int threads) : count(count) {
        const int64_t wanted = (count + 8 * threads - 1) / (8 * threads);
        size = std::clamp<int64_t>((wanted + SUM_ROWS - 1) / SUM_ROWS * SUM_ROWS, SUM_ROWS, BLOCK_ROWS);
    }

    // The number of blocks of a list of `count` rows at most, and of any shorter one.
    static int64_t most(int64_t count, int threads) {
        return std::max<int64_t>(8 * threads, (count + BLOCK_ROWS - 1) / BLOCK_ROWS);
    }

    int64_t number() const { return number_for(count); }
    int64_t number_for(int64_t rows) const { return (rows + size - 1) / size; }  // blocks that hold the first rows
    int64_t first(int64_t block) const { return block * size; }
    int64_t block_of(int64_t row) const { return row / size; }
    int rows(int64_t block) const { return static_cast<int>(std::min(size, count - block * size)); }

    // Calls work(first row, rows) for every block that this thread gets.
    template <class Work>
    void take(const Work& work) {
        for (int64_t block; (block = next.fetch_add(1)) < number();) work(first(block), rows(block));
    }

private:
    const int64_t count;
    int64_t size;
    std::atomic<int64_t> next{0};
};

}  // namespace
