// The forward pass of a residual unit in training: as in rows.cpp, but what the backward pass reads is kept.

#include <omp.h>

#include "factors.h"
#include "sums.h"
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
    double* sums;               // [images, out_channels]; += residual, or state where `remaining` is null
    double* squares;            // [out_channels] or null; += the state's squares less those before
    float* scratch;             // [forward_scratch_size()]
};

}  // extern "C"

namespace {

// Where the parts of the scratch begin, in floats: normalized rows of each thread, sums over images, sums of squares.
struct Parts {
    Parts(const TrainedUnit& unit, const Sites& sites, int threads)
        : each(BLOCK_ROWS * unit.in_channels),
          sums(threads * each),
          squares(sums + ImageSums::size(sites.num_writes, sites.images, unit.out_channels)),
          size(squares + ImageSums::size(sites.num_writes, 1, unit.out_channels)) {}

    const int64_t each, sums, squares, size;
};

// Epilogue of conv3: adds the residual to the state and, weighted, to the output, and sums what it has changed.
struct AddResidual {
    const TrainedUnit& unit;
    const ForwardPass& pass;
    const int64_t* positions;  // of the rows
    const int32_t* state_rows;
    float* const* sums;        // [whole_vectors(out_channels)] of the image of each row, in order
    float* const* squares;     // the same of all images, or null

    void prepare(int first, int count, int64_t column, int vectors) const {
        for (int r = 0; r < count; r++) {
            const float* output = pass.output + positions[first + r] * unit.out_channels + column;
            for (int v = 0; v < vectors; v++) __builtin_prefetch(output + v * LANES, 1);
        }
    }

    void operator()(int first, int count, int64_t column, const Vector* product, int step) const {
        const int64_t width = unit.out_channels - column;
        const Vector bias = load_part(unit.bias3 + column, width);
        const bool one_image = sums[first] == sums[first + count - 1];
        Vector sum{}, square{};
        for (int r = 0; r < count; r++) {
            const int64_t position = positions[first + r];
            const Vector residual = product[r * step] + bias;
            const Vector before =
                unit.projects ? Vector{} : load_part(row_of(pass.x, pass.x_rows, position, unit.in_channels) + column, width);
            const Vector after = before + residual;
            if (pass.state) store_part(pass.state + state_rows[position] * unit.out_channels + column, after, width);
            float* output = pass.output + position * unit.out_channels + column;
            const Vector change = pass.remaining ? residual : after;
            store_part(output, pass.remaining ? load_part(output, width) + pass.remaining[position] * residual : after, width);
            if (squares) square += pass.remaining ? residual * (2 * before + residual) : after * after;
            if (one_image)
                sum += change;
            else
                add(change, sums[first + r] + column);
        }
        if (one_image) add(sum, sums[first] + column);
        if (squares) add(square, squares[first] + column);
    }
};

}  // namespace

extern "C" {

int64_t forward_scratch_size(const TrainedUnit* unit, const Sites* sites, int threads) {
    return Parts(*unit, *sites, threads).size;
}

void train_forward(const TrainedUnit* unit_at, const Sites* sites_at, const ForwardPass* pass_at, const Factors* factors,
                   int threads) {
    const TrainedUnit unit = *unit_at;
    const Sites sites = *sites_at;
    const ForwardPass pass = *pass_at;
    const int64_t inner_size = whole_vectors(unit.width), channels = unit.out_channels;
    const int32_t* state_rows = unit.projects ? sites.write_rows : sites.read_rows;
    float* zeros = pass.inner + sites.num_reads * inner_size;
    std::fill_n(zeros, inner_size, 0.0f);
    Blocks read_blocks(sites.num_reads, threads), write_blocks(sites.num_writes, threads);
    const Parts parts(unit, sites, threads);
    const int64_t map_size = sites.out_height * sites.out_width;
    const ImageSums image_sums(pass.scratch + parts.sums, sites.writes, sites.num_writes, sites.images, map_size, channels);
    const ImageSums all_squares(pass.scratch + parts.squares, sites.writes, sites.num_writes, 1, sites.images * map_size,
                                channels);

#pragma omp parallel num_threads(threads)
    {
        float* normalized = pass.scratch + omp_get_thread_num() * parts.each;
        float* targets[BLOCK_ROWS];
        LeftFactor<float> left;

        pack(*factors);
        left.zeros = zeros;
        left.set_segments(1, unit.in_channels);
        read_blocks.take([&](int64_t first, int rows) {
            for (int r = 0; r < rows; r++) {
                const int64_t position = sites.reads[first + r];
                const float* x = row_of(pass.x, pass.x_rows, position, unit.in_channels);
                if (r + 1 < rows)
                    prefetch(row_of(pass.x, pass.x_rows, sites.reads[first + r + 1], unit.in_channels), unit.in_channels);
                float* row = normalized + r * unit.in_channels;
                normalize_row(x, unit.scale, unit.shift, unit.in_channels, row);
                if (pass.state && !unit.projects && sites.write_rows[position] < 0)  // read, and stays as it is
                    std::copy_n(x, channels, pass.state + (first + r) * channels);
                left.rows[0][r] = row;
                targets[r] = pass.inner + (first + r) * inner_size;
            }
            multiply(left, rows, unit.conv1, unit.width, Store<float>{unit.bias1, unit.width, true, targets});
        });
#pragma omp barrier
        write_blocks.take([&](int64_t first, int rows) {
            Place places[BLOCK_ROWS];
            float *sums[BLOCK_ROWS], *squares[BLOCK_ROWS];
            left.set_segments(TAPS, unit.width);
            for (int r = 0; r < rows; r++) {
                places[r] = locate(sites.writes[first + r], sites.out_height, sites.out_width);
                sums[r] = image_sums.of(first + r, places[r].image);
                squares[r] = all_squares.of(first + r, 0);
                for (int tap = 0; tap < TAPS; tap++) {
                    const int64_t position = input_of_tap(unit, sites, places[r], tap);
                    const int32_t row = position < 0 ? -1 : sites.read_rows[position];
                    left.rows[tap][r] = row < 0 ? zeros : pass.inner + row * inner_size;
                }
                targets[r] = pass.middle + (first + r) * inner_size;
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
                normalize_row(row_of(pass.x, pass.x_rows, source, unit.in_channels), unit.scale, unit.shift, unit.in_channels,
                              normalized + r * unit.in_channels);
            }
            image_sums.start(first, rows, 0, whole_vectors(channels));
            if (pass.squares) all_squares.start(first, rows, 0, whole_vectors(channels));
            multiply(left, rows, unit.conv3, channels,
                     AddResidual{unit, pass, sites.writes + first, state_rows, sums, pass.squares ? squares : nullptr});
        });
#pragma omp barrier
        image_sums.add_to(pass.sums);
        if (pass.squares) all_squares.add_to(pass.squares);
    }
}

}  // extern "C"
