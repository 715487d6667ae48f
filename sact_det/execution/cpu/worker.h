// What one thread computes of a residual unit in inference: at some of its positions, some of its columns.

#pragma once

#include <type_traits>

#include "sums.h"
#include "taps.h"
#include "unit.h"

namespace {

// Rows of a product's left factor that are normalized just before their tile is multiplied; the next tile's are prefetched.
template <class Element, class From>
struct Normalized {
    const Unit& unit;
    int count;
    const From* const* from;  // [count]
    Element* to;              // [count, in_channels]
    int64_t first_column;     // of the product

    void prepare(int first, int rows, int64_t column, int) const {
        if (column != first_column) return;
        for (int r = first; r < first + rows; r++) {
            normalize_row(from[r], unit.scale, unit.shift, unit.in_channels, to + r * unit.in_channels);
            if (r + TILE_ROWS < count) prefetch(from[r + TILE_ROWS], unit.in_channels);
        }
    }
};

// Epilogue: StoreScaled, for a product whose left factor is Normalized.
template <class Element, class From>
struct StoreNormalized : StoreScaled<Element> {
    const Normalized<Element, From>& normalized;

    void prepare(int first, int rows, int64_t column, int vectors) const {
        normalized.prepare(first, rows, column, vectors);
    }
};

// Epilogue of conv3: adds the residual to the state and, weighted, to the output, and sums what it has changed.
template <class Element, class From>
struct Residual {
    const Unit& unit;
    const Evaluation& call;
    const int64_t* positions;
    float* const* sums;  // [whole_vectors(out_channels)] of the image of each row, in order; or null
    const Normalized<Element, From>* normalized;  // of a projecting shortcut, or null

    void prepare(int first, int count, int64_t column, int vectors) const {
        if (normalized) normalized->prepare(first, count, column, vectors);
        for (int r = 0; r < count; r++) {
            const int64_t place = positions[first + r] * unit.out_channels + column;
            for (int v = 0; v < vectors; v++) {
                __builtin_prefetch(call.state + place + v * LANES, 1);
                if (call.output) __builtin_prefetch(call.output + place + v * LANES, 1);
            }
        }
    }

    void operator()(int first, int count, int64_t column, const Vector* product, int step) const {
        const int64_t width = unit.out_channels - column;
        const Vector bias = load_part(unit.bias3 + column, width);
        const bool one_image = sums && sums[first] == sums[first + count - 1];
        Vector sum{};
        for (int r = 0; r < count; r++) {
            const int64_t position = positions[first + r], place = position * unit.out_channels + column;
            const Vector residual = product[r * step] + bias;
            const Vector state = call.shortcut ? load_part(call.shortcut + place, width) + residual : residual;
            store_part(call.state + place, state, width);
            if (call.output) {
                float* output = call.output + place;
                store_part(output, load_part(output, width) + call.remaining[position] * residual, width);
            }
            const Vector change = call.output ? residual : state;
            if (one_image)
                sum += change;
            else if (sums)
                add(change, sums[first + r] + column);
        }
        if (one_image) add(sum, sums[first] + column);
    }
};

// Writes h^l of a position from the products of its neighbours with the taps.
void score(const Evaluation& call, int64_t position) {
    const Place place = locate(position, call.out_height, call.out_width);
    float logit = call.image_logits[place.image];
    for (int tap = 0; tap < TAPS; tap++) {
        const int64_t neighbour = tap_position(place, tap, 1, 1, call.out_height, call.out_width);
        if (neighbour >= 0) logit += call.products[neighbour * whole_vectors(TAPS) + tap];
    }
    call.scores[position] = 1 / (1 + std::exp(-logit));
}

// Floats that hold so many elements.
template <class Element>
int64_t room(int64_t elements) {
    return elements * sizeof(Element) / sizeof(float);
}

// The part of the scratch that one thread has.
template <class Element>
struct Scratch {
    explicit Scratch(const Unit& unit)
        : middle(room<Element>(BLOCK_ROWS * unit.in_channels)),
          size(middle + room<Element>(BLOCK_ROWS * whole_vectors(unit.width))) {}

    const int64_t middle, size;  // in floats; normalized rows come first
};

// The work of one thread on a unit. Element: the type of factors; From: that of x.
template <class Element, class From>
class Worker {
public:
    Worker(const Unit& unit, const Halting* branch, const Evaluation& call, int thread)
        : unit(unit), branch(branch), call(call), scratch(unit), x(static_cast<const From*>(call.x)),
          inner_size(whole_vectors(unit.width)), inner(static_cast<Element*>(call.inner)),
          zeros(inner + call.images * call.in_height * call.in_width * inner_size),  // the row behind the last
          normalized(reinterpret_cast<Element*>(call.scratch + thread * scratch.size)),
          middles(reinterpret_cast<Element*>(call.scratch + thread * scratch.size + scratch.middle)) {}

    // This thread's room for the output of conv2 at a block of writes.
    Element* middle() const { return middles; }

    // conv1 and what follows it at some of the reads, a share of the columns; or what follows alone, of the rows.
    void read(int64_t first, int rows, Share share) {
        if (!unit.conv1) {
            for (int r = share.part; r < rows; r += share.parts) {
                const int64_t position = call.reads[first + r];
                normalize_row(source(position), unit.scale, unit.shift, unit.width, inner + position * inner_size);
            }
            return;
        }
        left.set_segments(1, unit.in_channels);
        for (int r = 0; r < rows; r++) {
            const int64_t position = call.reads[first + r];
            sources[r] = source(position);
            left.rows[0][r] = normalized + r * unit.in_channels;
            targets[r] = inner + position * inner_size;
        }
        const Normalized<Element, From> preactivation{unit, rows, sources, normalized, share.first_column(unit.width)};
        const StoreNormalized<Element, From> store{{unit.scale1, unit.bias1, unit.width, targets}, preactivation};
        multiply(left, rows, static_cast<const Element*>(unit.conv1), unit.width, store, share);
    }

    // conv2 at some of the writes, a share of the columns.
    void convolve(int64_t first, int rows, Element* middle, Share share) {
        left.set_segments(TAPS, unit.width);
        for (int r = 0; r < rows; r++) {
            const Place place = locate(call.writes[first + r], call.out_height, call.out_width);
            for (int tap = 0; tap < TAPS; tap++) {
                const int64_t position =
                    tap_position(place, tap, unit.stride, unit.dilation, call.in_height, call.in_width);
                left.rows[tap][r] = position < 0 ? zeros : inner + position * inner_size;
            }
            targets[r] = middle + r * inner_size;
        }
        const StoreScaled<Element> store{unit.scale2, unit.bias2, unit.width, targets};
        multiply(left, rows, static_cast<const Element*>(unit.conv2), unit.width, store, share);
    }

    // conv3 and the additions to state, output and sums at some of the writes, a share of the columns.
    void write(int64_t first, int rows, const Element* middle, const ImageSums& sums, Share share) {
        left.segments = unit.projects ? 2 : 1;
        left.lengths[0] = unit.width;
        left.lengths[1] = unit.in_channels;
        for (int r = 0; r < rows; r++) {
            const Place place = locate(call.writes[first + r], call.out_height, call.out_width);
            if (call.sums) image_sums[r] = sums.of(first + r, place.image);
            left.rows[0][r] = middle + r * inner_size;
            if (!unit.projects) continue;
            const int64_t row = place.image * call.in_height + place.y * unit.stride;
            sources[r] = x + (row * call.in_width + place.x * unit.stride) * unit.in_channels;
            left.rows[1][r] = normalized + r * unit.in_channels;
        }
        const Normalized<Element, From> preactivation{unit, rows, sources, normalized, share.first_column(unit.out_channels)};
        const Residual<Element, From> residual{unit, call, call.writes + first, call.sums ? image_sums : nullptr,
                                               unit.projects ? &preactivation : nullptr};
        if (call.sums)
            sums.start(first, rows, share.first_column(unit.out_channels),
                       whole_vectors(share.end_column(unit.out_channels)));
        multiply(left, rows, static_cast<const Element*>(unit.conv3), unit.out_channels, residual, share);
    }

    // The branch's products at those of some reads that are not among the writes: their state does not change any more.
    void multiply_halted(int64_t first, int rows) {
        if (!branch || !call.output) return;
        if constexpr (READS_STATE) {
            const int64_t *write = std::lower_bound(call.writes, call.writes + call.num_writes, call.reads[first]);
            int halted = 0;
            for (int r = 0; r < rows; r++) {
                const int64_t position = call.reads[first + r];
                if (write != call.writes + call.num_writes && *write == position)
                    write++;
                else
                    add_tapped(halted++, position, source(position));
            }
            multiply_tapped(halted);
        }
    }

    // The branch's products at some of the writes, once `write` has been called for them.
    void multiply_written(int64_t first, int rows) {
        if (!branch) return;
        for (int r = 0; r < rows; r++) {
            const int64_t position = call.writes[first + r];
            add_tapped(r, position, call.state + position * unit.out_channels);
        }
        multiply_tapped(rows);
    }

private:
    static constexpr bool READS_STATE = std::is_same_v<From, float>;  // else it is the first unit of its block

    const From* source(int64_t position) const {
        if constexpr (READS_STATE) {
            if (call.moved && !call.moved[position]) return call.output + position * unit.in_channels;
        }
        return x + position * unit.in_channels;
    }

    void add_tapped(int r, int64_t position, const float* row) {
        tapped[r] = row;
        products[r] = call.products + position * whole_vectors(TAPS);
    }

    void multiply_tapped(int rows) {
        for (int r = 0; r < rows; r += TAP_ROWS)
            multiply_taps(*branch, tapped + r, std::min(TAP_ROWS, rows - r), products + r);
    }

    const Unit& unit;
    const Halting* branch;
    const Evaluation& call;
    const Scratch<Element> scratch;
    const From* const x;
    const int64_t inner_size;
    Element *const inner, *const zeros, *const normalized, *const middles;
    const From* sources[BLOCK_ROWS];
    const float* tapped[BLOCK_ROWS];
    Element* targets[BLOCK_ROWS];
    float* products[BLOCK_ROWS];
    float* image_sums[BLOCK_ROWS];
    LeftFactor<Element> left;
};

}  // namespace
