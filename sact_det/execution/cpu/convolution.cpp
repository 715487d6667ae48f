// A 1x1 or 3x3 convolution with its bias and perhaps ReLU, in float32, at every position of a map or at listed ones: those of
// a feature pyramid and of a detector's heads.

#include <omp.h>

#include "gemm.h"

extern "C" {

struct Convolution {
    int64_t in_channels, out_channels;
    int64_t taps;         // 1 or 9
    int64_t rectify;      // whether ReLU follows
    const float* weight;  // packed, depth taps * in_channels: taps, channels
    const float* bias;
};

struct Maps {
    int64_t images, height, width;
    const float* x;      // [images, height, width, in_channels]
    const float* zeros;  // in_channels: what is read beyond the map
    const int64_t* list; // ascending positions that are evaluated; null: all
    int64_t count;       // of these
    const float* coarser; // null, or [images, height / 2, width / 2, out_channels]: added, each position to 2x2 of y
    float* y;            // [images, height, width, out_channels]; written where it is evaluated
};

}  // extern "C"

namespace {

// Epilogue: stores product + bias, perhaps plus other rows, rectified or not, in the given rows, and nothing beyond their last
// column.
struct StoreRows {
    const float* bias;
    int64_t columns;
    bool rectify;
    const float* const* added;  // rows; null: nothing is
    float* const* rows;

    void prepare(int, int, int64_t, int) const {}
    void operator()(int first, int count, int64_t column, const Vector* product, int step) const {
        const Vector b = load_part(bias + column, columns - column);
        for (int r = 0; r < count; r++) {
            Vector v = product[r * step] + b;
            if (added) v += load_part(added[first + r] + column, columns - column);
            store_part(rows[first + r] + column, rectify ? relu(v) : v, columns - column);
        }
    }
};

}  // namespace

extern "C" void convolve(const Convolution* at, const Maps* maps_at, int threads) {
    const Convolution conv = *at;
    const Maps maps = *maps_at;
    Blocks blocks(maps.count, threads);
#pragma omp parallel num_threads(threads)
    {
        LeftFactor<float> left;
        left.set_segments(conv.taps, conv.in_channels);
        left.zeros = maps.zeros;
        blocks.take([&](int64_t first, int rows) {
            float* to[BLOCK_ROWS];
            const float* added[BLOCK_ROWS];
            for (int r = 0; r < rows; r++) {
                const int64_t own = maps.list ? maps.list[first + r] : first + r;
                to[r] = maps.y + own * conv.out_channels;
                const Place place = locate(own, maps.height, maps.width);
                if (maps.coarser) {
                    const int64_t row = (place.image * (maps.height / 2) + place.y / 2) * (maps.width / 2) + place.x / 2;
                    added[r] = maps.coarser + row * conv.out_channels;
                }
                if (conv.taps == 1) {
                    left.rows[0][r] = maps.x + own * conv.in_channels;
                    continue;
                }
                for (int tap = 0; tap < TAPS; tap++) {
                    const int64_t position = tap_position(place, tap, 1, 1, maps.height, maps.width);
                    left.rows[tap][r] = position < 0 ? maps.zeros : maps.x + position * conv.in_channels;
                }
            }
            const StoreRows store{conv.bias, conv.out_channels, conv.rectify != 0, maps.coarser ? added : nullptr, to};
            multiply(left, rows, conv.weight, conv.out_channels, store);
        });
    }
}
