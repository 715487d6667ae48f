// The local convolution of a halting branch in training, forward and backward.

#include <omp.h>

#include "factors.h"
#include "training.h"
#include "weight_gradient.h"

extern "C" {

// A halting branch's local convolution, to one channel, with its norm folded into it.
struct LocalScoring {
    int64_t channels;
    const float* taps;      // [TAPS, channels]
    const float* packed;    // the same as a right factor
    const float* bias;      // [whole_vectors(TAPS)], what the norm adds at each tap
    const float* rows;      // of the state, at `reads`
    float* products;        // [num_reads, whole_vectors(TAPS)], room to work
    float* logits;          // [output positions]; forward: written where active; backward: its gradient
    float* grad_rows;       // backward: [output positions, channels] or null; += its gradient
    int64_t adds;           // backward: as in BackwardPass, like `filled`
    const int32_t* filled;
    float* grad_taps;       // backward: [TAPS, channels] or null
    float* scratch;         // [threads, local_scratch_size()]
};

int64_t local_scratch_size() { return WeightGradient::scratch_size(TAPS); }

void local_forward(const LocalScoring* scoring_at, const Sites* sites_at, const Factors* factors, int threads) {
    const LocalScoring scoring = *scoring_at;
    const Sites sites = *sites_at;
    const int64_t size = whole_vectors(TAPS);
    Blocks blocks(sites.num_reads, threads);
#pragma omp parallel num_threads(threads)
    {
        pack(*factors);
        blocks.take([&](int64_t first, int rows) {
            LeftFactor<float> left;
            left.set_segments(1, scoring.channels);
            float* targets[BLOCK_ROWS];
            for (int r = 0; r < rows; r++) {
                left.rows[0][r] = scoring.rows + (first + r) * scoring.channels;
                targets[r] = scoring.products + (first + r) * size;
            }
            multiply(left, rows, scoring.packed, TAPS, Store<float>{scoring.bias, size, false, targets});
        });
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t i = 0; i < sites.num_writes; i++) {
            const int64_t position = sites.writes[i];
            const Place place = locate(position, sites.out_height, sites.out_width);
            float logit = 0;
            for (int tap = 0; tap < TAPS; tap++) {
                const int64_t neighbour = tap_position(place, tap, 1, 1, sites.out_height, sites.out_width);
                const int32_t row = neighbour < 0 ? -1 : sites.read_rows[neighbour];
                if (row >= 0) logit += scoring.products[row * size + tap];
            }
            scoring.logits[position] = logit;
        }
    }
}

// Writes the gradients of the products to `products`, besides those of rows and taps.
void local_backward(const LocalScoring* scoring_at, const Sites* sites_at, int threads) {
    const LocalScoring scoring = *scoring_at;
    const Sites sites = *sites_at;
    const int64_t size = whole_vectors(TAPS);
    WeightGradient taps(scoring.grad_taps, nullptr, sites.num_reads, TAPS, 1, scoring.channels, threads);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < sites.num_reads; i++) {
            const int64_t position = sites.reads[i];
            const Place place = locate(position, sites.out_height, sites.out_width);
            float* products = scoring.products + i * size;
            std::fill_n(products, size, 0.0f);
            for (int tap = 0; tap < TAPS; tap++) {
                const int64_t scored = tap_position(place, TAPS - 1 - tap, 1, 1, sites.out_height, sites.out_width);
                if (scored >= 0 && sites.write_rows[scored] >= 0) products[tap] = scoring.logits[scored];
            }
            if (!scoring.grad_rows) continue;
            float* row = scoring.grad_rows + position * scoring.channels;
            const bool adds = scoring.adds && has_row(scoring.filled, position);
            for (int64_t c = 0; c < scoring.channels; c += LANES) {
                Vector sum = adds ? load_part(row + c, scoring.channels - c) : Vector{};
                for (int tap = 0; tap < TAPS; tap++)
                    sum += products[tap] * load_part(scoring.taps + tap * scoring.channels + c, scoring.channels - c);
                store_part(row + c, sum, scoring.channels - c);
            }
        }
        taps.take(
            scoring.scratch + omp_get_thread_num() * local_scratch_size(),
            [&](int64_t i) { return scoring.products + i * size; },
            [&](int64_t i, int64_t, int64_t column, int vectors, float* to) {
                const float* row = scoring.rows + i * scoring.channels + column;
                for (int v = 0; v < vectors; v++)
                    store(to + v * LANES, load_part(row + v * LANES, scoring.channels - column - v * LANES));
            });
    }
}

}  // extern "C"
