// A residual unit in training: what rows.cpp does, and what the backward pass will read is kept.

#include <omp.h>

#include "factors.h"
#include "training.h"

extern "C" {

struct ForwardPass {
    const float* x;             // rows at input resolution, [., in_channels]
    const int32_t* x_rows;      // their table, or null
    float* inner;               // [num_reads + 1, whole_vectors(width)], behind conv1; the last row becomes zero
    float* middle;              // [num_writes, whole_vectors(width)], behind conv2
    float* state;               // rows of the result, or null: `reads` with the identity as shortcut, else `writes`
    float* output;              // [output positions, out_channels]; += remaining * residual
    const float* remaining;     // [output positions], or null: output = state
    double* sums;               // [threads, images, out_channels]; += residual, or state where `remaining` is null
    double* squares;            // [threads, out_channels] or null; += the state's squares less those before
    float* scratch;             // [threads, forward_scratch_size(unit)]
};

int64_t forward_scratch_size(const TrainedUnit* unit) {
    return BLOCK_ROWS * unit->in_channels + 2 * whole_vectors(unit->out_channels);
}

}  // extern "C"

namespace {

// Adds the residual to the state and, weighted, to the output.
struct Addition {
    const TrainedUnit& unit;
    const ForwardPass& to;
    const int64_t* positions;      // of the rows
    const Place* places;
    const int32_t* state_rows;
    double* sums;                  // [images, out_channels]
    float *one_sum, *one_square;   // [whole_vectors(out_channels)]; the sum if all rows belong to one image, else null

    void expect(int first, int count, int64_t column, int vectors) const {
        for (int r = 0; r < count; r++) {
            const float* output = to.output + positions[first + r] * unit.out_channels + column;
            for (int v = 0; v < vectors; v++) __builtin_prefetch(output + v * LANES, 1);
        }
    }

    void operator()(int first, int count, int64_t column, const Vector* product, int step) const {
        const int64_t width = unit.out_channels - column;
        const Vector bias = load_part(unit.bias3 + column, width);
        Vector sum{}, square{};
        for (int r = 0; r < count; r++) {
            const int64_t position = positions[first + r];
            const Vector residual = product[r * step] + bias;
            const Vector before =
                unit.projects ? Vector{} : load_part(row_of(to.x, to.x_rows, position, unit.in_channels) + column, width);
            const Vector after = before + residual;
            if (to.state) store_part(to.state + state_rows[position] * unit.out_channels + column, after, width);
            float* output = to.output + position * unit.out_channels + column;
            const Vector change = to.remaining ? residual : after;
            store_part(output, to.remaining ? load_part(output, width) + to.remaining[position] * residual : after, width);
            if (to.squares) square += to.remaining ? residual * (2 * before + residual) : after * after;
            if (one_sum)
                sum += change;
            else
                for (int64_t c = 0; c < std::min<int64_t>(width, LANES); c++)
                    sums[places[first + r].image * unit.out_channels + column + c] += change[c];
        }
        if (one_sum) store(one_sum + column, load(one_sum + column) + sum);
        if (to.squares) store(one_square + column, load(one_square + column) + square);
    }
};

}  // namespace

extern "C" {

void train_forward(const TrainedUnit* unit_at, const Sites* sites_at, const ForwardPass* pass_at, const Factors* factors,
                   int threads) {
    const TrainedUnit unit = *unit_at;
    const Sites sites = *sites_at;
    const ForwardPass to = *pass_at;
    const int64_t inner_size = whole_vectors(unit.width), channels = unit.out_channels;
    const int32_t* state_rows = unit.projects ? sites.write_rows : sites.read_rows;
    float* zeros = to.inner + sites.num_reads * inner_size;
    std::fill_n(zeros, inner_size, 0.0f);
    Blocks read_blocks(sites.num_reads, threads), write_blocks(sites.num_writes, threads);

#pragma omp parallel num_threads(threads)
    {
        const int thread = omp_get_thread_num();
        float* normalized = to.scratch + thread * forward_scratch_size(&unit);
        float* one_sum = normalized + BLOCK_ROWS * unit.in_channels;
        float* one_square = one_sum + whole_vectors(channels);
        double* sums = to.sums + thread * sites.images * channels;
        double* squares = to.squares ? to.squares + thread * channels : nullptr;
        float* targets[BLOCK_ROWS];
        Left<float> left;

        pack(*factors);
        left.zeros = zeros;
        left.segments = 1;
        left.lengths[0] = unit.in_channels;
        read_blocks.take([&](int64_t first, int rows) {
            for (int r = 0; r < rows; r++) {
                const int64_t position = sites.reads[first + r];
                const float* x = row_of(to.x, to.x_rows, position, unit.in_channels);
                if (r + 1 < rows)
                    prefetch(row_of(to.x, to.x_rows, sites.reads[first + r + 1], unit.in_channels), unit.in_channels);
                float* row = normalized + r * unit.in_channels;
                normalize_row(x, unit.scale, unit.shift, unit.in_channels, row);
                if (to.state && !unit.projects && sites.write_rows[position] < 0)  // read, and stays as it is
                    std::copy_n(x, channels, to.state + (first + r) * channels);
                left.rows[0][r] = row;
                targets[r] = to.inner + (first + r) * inner_size;
            }
            multiply(left, rows, unit.conv1, unit.width, Store<float>{unit.bias1, unit.width, true, targets});
        });
#pragma omp barrier
        write_blocks.take([&](int64_t first, int rows) {
            Place places[BLOCK_ROWS];
            left.segments = 9;
            std::fill_n(left.lengths, 9, unit.width);
            for (int r = 0; r < rows; r++) {
                places[r] = locate(sites.writes[first + r], sites.out_height, sites.out_width);
                for (int tap = 0; tap < 9; tap++) {
                    const int64_t position = tapped(unit, sites, places[r], tap);
                    const int32_t row = position < 0 ? -1 : sites.read_rows[position];
                    left.rows[tap][r] = row < 0 ? zeros : to.inner + row * inner_size;
                }
                targets[r] = to.middle + (first + r) * inner_size;
            }
            multiply(left, rows, unit.conv2, unit.width, Store<float>{unit.bias2, unit.width, true, targets});

            left.segments = unit.projects ? 2 : 1;
            left.lengths[0] = unit.width;
            left.lengths[1] = unit.in_channels;
            for (int r = 0; r < rows; r++) {
                left.rows[0][r] = targets[r];
                if (!unit.projects) continue;
                const int64_t source = shortcut_source(unit, sites, places[r]);
                left.rows[1][r] = normalized + r * unit.in_channels;
                normalize_row(row_of(to.x, to.x_rows, source, unit.in_channels), unit.scale, unit.shift, unit.in_channels,
                              normalized + r * unit.in_channels);
            }
            const bool one_image = places[0].image == places[rows - 1].image;
            std::fill_n(one_sum, 2 * whole_vectors(channels), 0.0f);
            multiply(left, rows, unit.conv3, channels,
                     Addition{unit, to, sites.writes + first, places, state_rows, sums, one_image ? one_sum : nullptr, one_square});
            for (int64_t c = 0; c < channels; c++) {
                if (one_image) sums[places[0].image * channels + c] += one_sum[c];
                if (squares) squares[c] += one_square[c];
            }
        });
    }
}

}  // extern "C"
