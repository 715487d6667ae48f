// The backward pass of a residual unit in training.
//
// A unit computes x' = x + f(x), adds r f(x) to the block's output and f(x) to the sums over each image. So the gradient of
// f at an active position is that of x', plus r times the output's, plus the sums'. It is never written to memory as a
// whole: the three are added up again wherever it is read. Gradients of weights are products over positions
// (weight_gradient.h). The gradient of conv2's input is gathered, not scattered. So one thread computes every float, in one
// order, whatever the number of threads.

#include <omp.h>

#include "factors.h"
#include "training.h"
#include "weight_gradient.h"

extern "C" {

// Gradients may be null: where there are none, and where none are wanted.
struct BackwardPass {
    const float* x;              // as in the forward pass, like all up to `remaining`
    const int32_t* x_rows;
    const float* inner;
    const float* middle;
    const float* state;          // or null behind the last unit: then the gradient of f comes from `grad_output` alone
    const float* remaining;      // or null: 1
    const float* grad_state;     // [output positions, out_channels]
    const int32_t* filled;       // [output positions], negative where grad_state has no row yet: zero; or null: it has all
    const float* grad_output;    // [output positions, out_channels]
    const float* grad_sums;      // [images, out_channels]
    float* grad_x;               // [input positions, in_channels]; may be grad_state
    int64_t adds;                // whether what comes through f is added to it where it is read (and filled), or written
    float* grad_remaining;       // [output positions], written where active
    float* grad_conv1;           // [width, in_channels]
    float* grad_conv2;           // [width, TAPS, width]
    float* grad_conv3;           // [out_channels, width]
    float* grad_shortcut;        // [out_channels, in_channels]
    float* grad_conv3_transposed;     // [width + 1, out_channels], room to work; the last row is the bias's gradient
    float* grad_shortcut_transposed;  // [in_channels, out_channels], room to work
    float* grad_inner;           // [num_reads, whole_vectors(width)], room to work
    float* grad_middle;          // [num_writes + 1, whole_vectors(width)], room to work, or null: nothing needs it
    int32_t* taps;               // [num_writes, TAPS], room to work: the rows of `inner` that conv2 reads
    float* scratch;              // [threads, backward_scratch_size(unit)]
};

int64_t backward_scratch_size(const TrainedUnit* unit) {
    const int64_t rows = std::max(unit->width, unit->in_channels);
    return std::max(BLOCK_ROWS * unit->out_channels, WeightGradient::scratch_size(rows) + unit->in_channels);
}

}  // extern "C"

namespace {

// The gradient of a unit's residual f at output positions.
struct ResidualGradient {
    const Sites& sites;
    const BackwardPass& pass;
    int64_t channels;

    const float* sums(int64_t position) const {
        if (!pass.grad_sums) return nullptr;
        return pass.grad_sums + position / (sites.out_height * sites.out_width) * channels;
    }

    float remaining(int64_t position) const { return pass.remaining ? pass.remaining[position] : 1.0f; }

    // Writes so many vectors of a position's gradient, from `column` on; `weight` multiplies the output's part.
    void part(int64_t position, int64_t column, int vectors, float weight, float* to) const {
        const float* image = sums(position);
        const float* state = pass.grad_state && has_row(pass.filled, position) ? pass.grad_state : nullptr;
        const int64_t place = position * channels + column;
        for (int v = 0; v < vectors; v++) {
            const int64_t c = v * LANES, width = channels - column - c;
            Vector sum{};
            if (state) sum += load_part(state + place + c, width);
            if (pass.grad_output) sum += weight * load_part(pass.grad_output + place + c, width);
            if (image) sum += load_part(image + column + c, width);
            store(to + c, sum);
        }
    }

    // Writes a position's gradient, [channels].
    void row(int64_t position, float weight, float* to) const {
        int64_t c = 0;
        for (; c + LANES <= channels; c += LANES) part(position, c, 1, weight, to + c);
        if (c == channels) return;
        Vector last;
        part(position, c, 1, weight, reinterpret_cast<float*>(&last));
        store_part(to + c, last, channels - c);
    }
};

// <a, b - c>; c may be null.
float dot(const float* a, const float* b, const float* c, int64_t count) {
    Vector sum{};
    for (int64_t k = 0; k < count; k += LANES) {
        const Vector right = load_part(b + k, count - k);
        sum += load_part(a + k, count - k) * (c ? right - load_part(c + k, count - k) : right);
    }
    return total(sum);
}

// Epilogue: the gradient through a ReLU, which is the product where the rectified value is positive and 0 elsewhere.
struct ReluBackward {
    const float* rectified;  // of the first row
    int64_t size;            // floats of a row
    float* to;
    const float* weights;    // of the rows, or null
    float* dots;             // [rows] or null; += <gradient, rectified>

    void prepare(int, int, int64_t, int) const {}
    void operator()(int first, int count, int64_t column, const Vector* product, int step) const {
        for (int r = 0; r < count; r++) {
            const int64_t place = (first + r) * size + column;
            const Vector value = load(rectified + place);
            const Vector gradient = value <= 0 ? Vector{} : product[r * step];
            store(to + place, weights ? weights[first + r] * gradient : gradient);
            if (dots) dots[first + r] += total(gradient * value);
        }
    }
};

// Epilogue: the gradient through the pre-activation (norm and ReLU), written or added to rows.
struct PreactivationBackward {
    const TrainedUnit& unit;
    const float* const* x;
    float* const* to;
    const bool* adds;  // of each row: whether the gradient is added

    void prepare(int first, int count, int64_t column, int vectors) const {
        for (int r = 0; r < count; r++)
            for (int v = 0; v < vectors; v++) {
                __builtin_prefetch(x[first + r] + column + v * LANES);
                __builtin_prefetch(to[first + r] + column + v * LANES, 1);
            }
    }
    void operator()(int first, int count, int64_t column, const Vector* product, int step) const {
        const int64_t width = unit.in_channels - column;
        const Vector scale = load_part(unit.scale + column, width), shift = load_part(unit.shift + column, width);
        for (int r = 0; r < count; r++) {
            const Vector value = load_part(x[first + r] + column, width) * scale + shift;
            const Vector gradient = value <= 0 ? Vector{} : product[r * step] * scale;
            float* target = to[first + r] + column;
            store_part(target, adds[first + r] ? load_part(target, width) + gradient : gradient, width);
        }
    }
};

}  // namespace

extern "C" {

void train_backward(const TrainedUnit* unit_at, const Sites* sites_at, const BackwardPass* pass_at, const Factors* factors,
                    int threads) {
    const TrainedUnit unit = *unit_at;
    const Sites sites = *sites_at;
    const BackwardPass pass = *pass_at;
    const int64_t size = whole_vectors(unit.width), channels = unit.out_channels;
    const int32_t* state_rows = unit.projects ? sites.write_rows : sites.read_rows;
    const ResidualGradient gradient{sites, pass, channels};
    const bool last = !pass.state;
    const float* no_row = nullptr;
    if (pass.grad_middle) {
        std::fill_n(pass.grad_middle + sites.num_writes * size, size, 0.0f);
        no_row = pass.grad_middle + sites.num_writes * size;
    }
    const auto source = [&](int64_t position) { return row_of(pass.x, pass.x_rows, position, unit.in_channels); };

    Blocks middle_blocks(sites.num_writes, threads), inner_blocks(sites.num_reads, threads);
    Blocks x_blocks(sites.num_reads, threads), shortcut_blocks(sites.num_writes, threads);
    WeightGradient conv3(pass.grad_conv3_transposed, nullptr, sites.num_writes, unit.width, 1, channels, threads, true);
    WeightGradient shortcut(pass.grad_shortcut_transposed, nullptr, sites.num_writes, unit.in_channels, 1, channels, threads);
    WeightGradient conv2(pass.grad_conv2, unit.scale2, sites.num_writes, unit.width, TAPS, unit.width, threads);
    WeightGradient conv1(pass.grad_conv1, unit.scale1, sites.num_reads, unit.width, 1, unit.in_channels, threads);

#pragma omp parallel num_threads(threads)
    {
        float* scratch = pass.scratch + omp_get_thread_num() * backward_scratch_size(&unit);
        pack(*factors);
        LeftFactor<float> left;
        left.zeros = no_row;
        const float* sources[BLOCK_ROWS];
        float* targets[BLOCK_ROWS];
        bool adds[BLOCK_ROWS];

        // The gradients of `middle` and `remaining`, and `taps`.
        middle_blocks.take([&](int64_t first, int rows) {
            float weights[BLOCK_ROWS], dots[BLOCK_ROWS];
            left.set_segments(1, channels);
            for (int r = 0; r < rows; r++) {
                const int64_t position = sites.writes[first + r];
                const Place place = locate(position, sites.out_height, sites.out_width);
                for (int tap = 0; tap < TAPS; tap++) {
                    const int64_t at = input_of_tap(unit, sites, place, tap);
                    const int32_t row = at < 0 ? -1 : sites.read_rows[at];
                    pass.taps[(first + r) * TAPS + tap] = row < 0 ? static_cast<int32_t>(sites.num_reads) : row;
                }
                weights[r] = gradient.remaining(position);
                dots[r] = 0;
                float* row = scratch + r * channels;
                if (pass.grad_middle) gradient.row(position, last ? 1.0f : weights[r], row);
                left.rows[0][r] = row;
                if (!pass.grad_remaining) continue;
                const float* output = pass.grad_output + position * channels;
                dots[r] = last ? dot(output, unit.bias3, nullptr, channels)
                               : dot(output, pass.state + state_rows[position] * channels, source(position), channels);
            }
            if (pass.grad_middle)
                multiply(left, rows, unit.back3, unit.width,
                         ReluBackward{pass.middle + first * size, size, pass.grad_middle + first * size,
                                   last ? weights : nullptr, last && pass.grad_remaining ? dots : nullptr});
            if (pass.grad_remaining)
                for (int r = 0; r < rows; r++) pass.grad_remaining[sites.writes[first + r]] = dots[r];
        });
#pragma omp barrier
        const auto own = [&](int64_t i, int64_t, int64_t column, int vectors, float* to) {
            const int64_t position = sites.writes[i];
            gradient.part(position, column, vectors, gradient.remaining(position), to);
        };
        const auto normalized_source = [&](int64_t i) {
            float* row = scratch + WeightGradient::scratch_size(unit.in_channels);
            const Place place = locate(sites.writes[i], sites.out_height, sites.out_width);
            normalize_row(source(shortcut_source(unit, sites, place)), unit.scale, unit.shift, unit.in_channels, row);
            return row;
        };
        conv3.take(scratch, [&](int64_t i) { return pass.middle + i * size; }, own);
        shortcut.take(scratch, normalized_source, own);
        if (pass.grad_inner)
            inner_blocks.take([&](int64_t first, int rows) {
                left.set_segments(TAPS, unit.width);
                for (int r = 0; r < rows; r++) {
                    const Place place = locate(sites.reads[first + r], sites.in_height, sites.in_width);
                    for (int tap = 0; tap < TAPS; tap++) {
                        const int64_t position = output_of_tap(unit, sites, place, tap);
                        const int32_t row = position < 0 ? -1 : sites.write_rows[position];
                        left.rows[tap][r] = row < 0 ? no_row : pass.grad_middle + row * size;
                    }
                }
                multiply(left, rows, unit.back2, unit.width,
                         ReluBackward{pass.inner + first * size, size, pass.grad_inner + first * size, nullptr, nullptr});
            });
#pragma omp barrier
        transpose(pass.grad_conv3_transposed, unit.width, channels, pass.grad_conv3);
        transpose(pass.grad_shortcut_transposed, unit.in_channels, channels, pass.grad_shortcut);
        conv2.take(
            scratch, [&](int64_t i) { return pass.grad_middle + i * size; },
            [&](int64_t i, int64_t tap, int64_t column, int vectors, float* to) {
                const float* row = pass.inner + pass.taps[i * TAPS + tap] * size + column;
                for (int v = 0; v < vectors; v++) store(to + v * LANES, load(row + v * LANES));
            });
        conv1.take(
            scratch, [&](int64_t i) { return pass.grad_inner + i * size; },
            [&](int64_t i, int64_t, int64_t column, int vectors, float* to) {
                const float* x = source(sites.reads[i]) + column;
                for (int v = 0; v < vectors; v++) {
                    const int64_t c = v * LANES, width = unit.in_channels - column - c;
                    store(to + c, relu(load_part(x + c, width) * load_part(unit.scale + column + c, width) +
                                       load_part(unit.shift + column + c, width)));
                }
            });
        if (pass.grad_x)
            x_blocks.take([&](int64_t first, int rows) {
                left.set_segments(1, unit.width);
                for (int r = 0; r < rows; r++) {
                    const int64_t position = sites.reads[first + r];
                    left.rows[0][r] = pass.grad_inner + (first + r) * size;
                    sources[r] = source(position);
                    targets[r] = pass.grad_x + position * unit.in_channels;
                    adds[r] = pass.adds && (pass.grad_x != pass.grad_state || has_row(pass.filled, position));
                }
                multiply(left, rows, unit.back1, unit.in_channels, PreactivationBackward{unit, sources, targets, adds});
            });
        if (pass.grad_x && unit.projects) {
#pragma omp barrier
            shortcut_blocks.take([&](int64_t first, int rows) {
                left.set_segments(1, channels);
                for (int r = 0; r < rows; r++) {
                    const int64_t position = sites.writes[first + r];
                    const Place place = locate(position, sites.out_height, sites.out_width);
                    const int64_t from = shortcut_source(unit, sites, place);
                    gradient.row(position, gradient.remaining(position), scratch + r * channels);
                    left.rows[0][r] = scratch + r * channels;
                    sources[r] = source(from);
                    targets[r] = pass.grad_x + from * unit.in_channels;
                    adds[r] = true;
                }
                multiply(left, rows, unit.shortcut, unit.in_channels, PreactivationBackward{unit, sources, targets, adds});
            });
        }
    }
}

}  // extern "C"
