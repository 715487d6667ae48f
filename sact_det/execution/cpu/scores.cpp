// The local convolution of a halting branch in training, forward and backward.

#include <omp.h>

#include "factors.h"
#include "training.h"
#include "weight_gradient.h"

extern "C" {

// A halting branch's local convolution with its norm folded away, C channels to one.
struct LocalScoring {
    int64_t channels;
    const float* taps;      // [9, channels]
    const float* packed;    // the same as a right factor
    const float* bias;      // [whole_vectors(9)], what the norm adds at each tap
    const float* rows;      // of the state, at `reads`
    float* products;        // [num_reads, whole_vectors(9)], room to work
    float* logits;          // [output positions]; forward: written where active; backward: its gradient
    float* grad_rows;       // backward: [output positions, channels] or null; += its gradient
    int64_t adds;           // backward: as in BackwardPass, like `filled`
    const int32_t* filled;
    float* grad_taps;       // backward: [9, channels] or null
    float* scratch;         // [threads, local_scratch_size()]
};

int64_t local_scratch_size() { return WeightGradient::scratch_size(9); }

void local_forward(const LocalScoring* scoring_at, const Sites* sites_at, const Factors* factors, int threads) {
    const LocalScoring to = *scoring_at;
    const Sites sites = *sites_at;
    const int64_t size = whole_vectors(9);
    Blocks blocks(sites.num_reads, threads);
#pragma omp parallel num_threads(threads)
    {
        pack(*factors);
        blocks.take([&](int64_t first, int rows) {
            Left<float> left;
            left.segments = 1;
            left.lengths[0] = to.channels;
            float* targets[BLOCK_ROWS];
            for (int r = 0; r < rows; r++) {
                left.rows[0][r] = to.rows + (first + r) * to.channels;
                targets[r] = to.products + (first + r) * size;
            }
            multiply(left, rows, to.packed, 9, Store<float>{to.bias, size, false, targets});
        });
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t i = 0; i < sites.num_writes; i++) {
            const int64_t position = sites.writes[i];
            const Place place = locate(position, sites.out_height, sites.out_width);
            float logit = 0;
            for (int tap = 0; tap < 9; tap++) {
                const int64_t y = place.y + tap / 3 - 1, x = place.x + tap % 3 - 1;
                if (y < 0 || y >= sites.out_height || x < 0 || x >= sites.out_width) continue;
                const int32_t row = sites.read_rows[position + (tap / 3 - 1) * sites.out_width + tap % 3 - 1];
                if (row >= 0) logit += to.products[row * size + tap];
            }
            to.logits[position] = logit;
        }
    }
}

// Leaves the gradients of the products in `products`.
void local_backward(const LocalScoring* scoring_at, const Sites* sites_at, int threads) {
    const LocalScoring at = *scoring_at;
    const Sites sites = *sites_at;
    const int64_t size = whole_vectors(9);
    WeightGradient taps(at.grad_taps, nullptr, sites.num_reads, 9, 1, at.channels, threads);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < sites.num_reads; i++) {
            const int64_t position = sites.reads[i];
            const Place place = locate(position, sites.out_height, sites.out_width);
            float* products = at.products + i * size;
            std::fill_n(products, size, 0.0f);
            for (int tap = 0; tap < 9; tap++) {
                const int64_t y = place.y - (tap / 3 - 1), x = place.x - (tap % 3 - 1);
                if (y < 0 || y >= sites.out_height || x < 0 || x >= sites.out_width) continue;
                const int64_t scored = position - (tap / 3 - 1) * sites.out_width - (tap % 3 - 1);
                if (sites.write_rows[scored] >= 0) products[tap] = at.logits[scored];
            }
            if (!at.grad_rows) continue;
            float* row = at.grad_rows + position * at.channels;
            const bool adds = at.adds && has_row(at.filled, position);
            for (int64_t c = 0; c < at.channels; c += LANES) {
                Vector sum = adds ? load_part(row + c, at.channels - c) : Vector{};
                for (int tap = 0; tap < 9; tap++)
                    sum += products[tap] * load_part(at.taps + tap * at.channels + c, at.channels - c);
                store_part(row + c, sum, at.channels - c);
            }
        }
        taps.take(
            at.scratch + omp_get_thread_num() * local_scratch_size(),
            [&](int64_t i) { return at.products + i * size; },
            [&](int64_t i, int64_t, int64_t column, int vectors, float* to) {
                const float* row = at.rows + i * at.channels + column;
                for (int v = 0; v < vectors; v++)
                    store(to + v * LANES, load_part(row + v * LANES, at.channels - column - v * LANES));
            });
    }
}

}  // extern "C"
