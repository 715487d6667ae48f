// RoIAlign on rows, forward and backward.
//
// A bin is the mean of bilinear samples on a grid. A sample is a weighted sum of pixels whose weights are products of one
// for its row and one for its column, and so is the mean: pooled[i, j] = sum_y a[i, y] sum_x b[j, x] features[y, x]. The
// weights of equal pixels are added up first, so that the work does not grow with the number of samples, and the sums over
// y serve every bin that reads their x. Every sum has one order, whatever the number of threads.

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "elements.h"

extern "C" {

struct Regions {
    int64_t images, height, width, channels;  // of the features
    int64_t count, bins_y, bins_x;
    int64_t max_pool;        // whether 2x2 max pooling of stride 2 follows, without padding
    int64_t step;            // along either axis every step-th bin is pooled, the first one on; 1 with max pooling
    int64_t sampling_ratio;  // samples of a bin along either axis; 0: as many as it spans pixels, rounded up
    int64_t aligned;         // whether the centre of a pixel lies half a pixel behind its index
    float scale;             // from the coordinates of boxes to pixels
    const float* boxes;      // [count, 5]: image, x0, y0, x1, y1
    const int64_t* targets;  // [count], where each goes among the pooled ones; null: they keep their order
    float* scratch;          // [threads, roi_align_scratch_size]

    int64_t rows() const { return (bins_y + step - 1) / step; }  // of bins that are pooled
    int64_t columns() const { return (bins_x + step - 1) / step; }
};

}  // extern "C"

namespace {

constexpr int64_t MOST_SAMPLES = 1 << 16;  // of a bin along an axis; boxes that need more are far larger than any map
constexpr int GROUP = 4;                   // vectors whose sums are in registers at a time
constexpr int64_t SLICE = 256, GRADIENT_SLICE = GROUP * LANES;  // channels at a time, so that caches hold their sums

// A product that no compiler fuses with an addition: where a sample lies is a matter of single bits.
inline float rounded(float product) {
    volatile float kept = product;
    return kept;
}

// The pixels along an axis that a bin reads, and their weights.
struct Taps {
    int64_t count;
    int32_t* pixels;
    float* weights;
};

// A region along one axis: `bins` of them over `side` pixels, placed as torchvision.ops.roi_align does.
struct Axis {
    float start, bin;
    int64_t samples, side;

    Axis(const Regions& regions, float begin, float end, int64_t bins, int64_t side) : side(side) {
        const float half = regions.aligned ? 0.5f : 0.0f;
        start = rounded(begin * regions.scale) - half;
        float length = rounded(end * regions.scale) - half - start;
        if (!regions.aligned) length = std::max(length, 1.0f);
        bin = length / bins;
        const float pixels = std::ceil(bin);
        if (regions.sampling_ratio > 0) samples = regions.sampling_ratio;
        else samples = pixels > 0 ? static_cast<int64_t>(std::min(pixels, float(MOST_SAMPLES))) : 0;
    }

    // Writes the taps of a bin to memory for `side` of them. line: [side] zeros, and again zeros afterwards.
    Taps taps_of(int64_t index, int32_t* pixels, float* weights, float* line) const {
        const float first = start + rounded(index * bin), share = 1.0f / samples;
        int64_t low = side, high = -1;
        for (int64_t sample = 0; sample < samples; sample++) {
            float at = first + (sample + 0.5f) * bin / samples;
            if (!(at >= -1 && at <= side)) continue;  // nor is NaN anywhere
            at = std::max(at, 0.0f);
            const int64_t before = std::min(static_cast<int64_t>(at), side - 1), after = std::min(before + 1, side - 1);
            const float part = before < after ? at - before : 0.0f;
            line[before] += (1 - part) * share;
            line[after] += part * share;
            low = std::min(low, before), high = std::max(high, after);
        }
        Taps taps{0, pixels, weights};
        for (int64_t pixel = low; pixel <= high; pixel++) {
            if (line[pixel] == 0) continue;
            pixels[taps.count] = static_cast<int32_t>(pixel), weights[taps.count++] = line[pixel];
            line[pixel] = 0;
        }
        return taps;
    }
};

// A region in a thread's memory: the taps of its columns of bins; those of a row are made when they are needed.
class Region {
public:
    static int64_t table_size(const Regions& r) {
        return std::max(r.height, r.width) + 2 * r.height + 2 * (r.columns() + 1) * r.width + r.columns() + 1;
    }

    Region(const Regions& regions, int64_t index, float* memory)
        : image(static_cast<int64_t>(regions.boxes[5 * index])), regions(regions), box(regions.boxes + 5 * index + 1) {
        line = memory, row_weights = line + std::max(regions.height, regions.width);
        weights = row_weights + regions.height;
        const int64_t columns = regions.columns();
        row_pixels = reinterpret_cast<int32_t*>(weights + (columns + 1) * regions.width);
        pixels = row_pixels + regions.height, ends = pixels + (columns + 1) * regions.width;
        std::fill_n(line, std::max(regions.height, regions.width), 0.0f);
        const Axis axis(regions, box[0], box[2], regions.bins_x, regions.width);
        ends[0] = 0, first = regions.width, last = -1;
        for (int64_t column = 0; column < columns; column++) {
            const int32_t begin = ends[column];
            const Taps taps = axis.taps_of(column * regions.step, pixels + begin, weights + begin, line);
            ends[column + 1] = begin + static_cast<int32_t>(taps.count);
            if (!taps.count) continue;
            first = std::min<int64_t>(first, taps.pixels[0]);
            last = std::max<int64_t>(last, taps.pixels[taps.count - 1]);
        }
        for (int32_t tap = 0; tap < ends[columns]; tap++) pixels[tap] -= static_cast<int32_t>(first);
    }

    // Taps among the rows of pixels; valid until the next call.
    Taps of_row(int64_t row) const {
        return Axis(regions, box[1], box[3], regions.bins_y, regions.height)
            .taps_of(row * regions.step, row_pixels, row_weights, line);
    }

    // Taps among the columns of pixels from `first` to `last`, counted from `first`.
    Taps of_column(int64_t column) const {
        return {ends[column + 1] - ends[column], pixels + ends[column], weights + ends[column]};
    }

    const int64_t image;
    int64_t first, last;  // columns of pixels that are read; none if last < first

private:
    const Regions& regions;
    const float* const box;
    float *line, *row_weights, *weights;
    int32_t *row_pixels, *pixels, *ends;
};

// to = sum over taps of weight * rows[pixel], all rows `stride` elements long, so many channels of them.
template <class From, class To>
inline void weighted_sum(const Taps& taps, const From* rows, int64_t stride, To* to, int64_t channels) {
    int64_t c = 0;
    for (; c + GROUP * LANES <= channels; c += GROUP * LANES) {
        Vector sums[GROUP] = {};
        for (int64_t tap = 0; tap < taps.count; tap++)
            for (int v = 0; v < GROUP; v++)
                sums[v] += taps.weights[tap] * load(rows + taps.pixels[tap] * stride + c + v * LANES);
        for (int v = 0; v < GROUP; v++) store(to + c + v * LANES, sums[v]);
    }
    for (; c < channels; c += LANES) {
        Vector sum = {};
        for (int64_t tap = 0; tap < taps.count; tap++)
            sum += taps.weights[tap] * load_part(rows + taps.pixels[tap] * stride + c, channels - c);
        store_part(to + c, sum, channels - c);
    }
}

// The transpose: rows[pixel] += weight * from.
inline void spread(const Taps& taps, const float* from, float* rows, int64_t stride, int64_t channels) {
    for (int64_t tap = 0; tap < taps.count; tap++) {
        float* row = rows + taps.pixels[tap] * stride;
        for (int64_t c = 0; c < channels; c += LANES) {
            const Vector more = taps.weights[tap] * load_part(from + c, channels - c);
            store_part(row + c, load_part(row + c, channels - c) + more, channels - c);
        }
    }
}

// A thread's memory: a region's taps, sums over y, and, to be pooled, the largest bins so far of a row and the present one.
struct Memory {
    static int64_t size(const Regions& r) {
        return Region::table_size(r) + (r.width + (r.max_pool ? r.bins_x / 2 + 1 : 0)) * whole_vectors(SLICE);
    }

    Memory(const Regions& r, int thread)
        : table(r.scratch + thread * size(r)), sums(table + Region::table_size(r)),
          largest(sums + r.width * whole_vectors(SLICE)), present(largest + r.bins_x / 2 * whole_vectors(SLICE)) {}

    float *const table, *const sums, *const largest, *const present;
};

// Sums over y of so many channels from `image` on, for every column of pixels that the region reads: [columns, size].
template <class Element>
inline void sum_rows(const Regions& regions, const Region& region, const Taps& taps, const Element* image, int64_t channels,
                     float* sums) {
    const int64_t size = whole_vectors(channels);
    for (int64_t x = region.first; x <= region.last; x++)
        weighted_sum(taps, image + x * regions.channels, regions.width * regions.channels,
                     sums + (x - region.first) * size, channels);
}

// Two rows of bins, pooled: row `row` of the region as it leaves.
template <class Element>
inline void pool_rows(const Regions& regions, const Region& region, int64_t row, const Element* image, int64_t channels,
                      const Memory& memory, Element* to) {
    const int64_t size = whole_vectors(channels), columns = regions.bins_x / 2;
    for (int64_t bin = 0; bin < 2; bin++) {
        sum_rows(regions, region, region.of_row(2 * row + bin), image, channels, memory.sums);
        for (int64_t column = 0; column < 2 * columns; column++) {
            weighted_sum(region.of_column(column), memory.sums, size, memory.present, channels);
            float* largest = memory.largest + column / 2 * size;
            const bool first = bin == 0 && column % 2 == 0;
            for (int64_t c = 0; c < channels; c += LANES) {
                const Vector present = load(memory.present + c);
                store(largest + c, first ? present : larger(present, load(largest + c)));
            }
        }
    }
    for (int64_t column = 0; column < columns; column++)
        for (int64_t c = 0; c < channels; c += LANES)
            store_part(to + column * regions.channels + c, load(memory.largest + column * size + c), channels - c);
}

template <class Element>
void pool(const Regions& regions, const Element* features, Element* pooled, int threads) {
    const int64_t height = regions.max_pool ? regions.bins_y / 2 : regions.rows();
    const int64_t width = regions.max_pool ? regions.bins_x / 2 : regions.columns();
#pragma omp parallel num_threads(threads)
    {
        const Memory memory(regions, omp_get_thread_num());
        const bool few = regions.count < 8 * omp_get_num_threads();  // then threads share a region, row by row
        const int64_t rows = few ? 1 : height, parts = height / rows;
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < regions.count * parts; item++) {
            const Region region(regions, item / parts, memory.table);
            const int64_t target = regions.targets ? regions.targets[item / parts] : item / parts;
            const Element* image = features + region.image * regions.height * regions.width * regions.channels;
            for (int64_t row = item % parts * rows, end = row + rows; row < end; row++) {
                Element* to = pooled + (target * height + row) * width * regions.channels;
                for (int64_t c = 0; c < regions.channels; c += SLICE) {
                    const int64_t channels = std::min(SLICE, regions.channels - c);
                    if (regions.max_pool) {
                        pool_rows(regions, region, row, image + c, channels, memory, to + c);
                        continue;
                    }
                    sum_rows(regions, region, region.of_row(row), image + c, channels, memory.sums);
                    for (int64_t column = 0; column < width; column++)
                        weighted_sum(region.of_column(column), memory.sums, whole_vectors(channels),
                                     to + column * regions.channels + c, channels);
                }
            }
        }
    }
}

void pool_backward(const Regions& regions, const float* grad_pooled, float* grad_features, int threads) {
    const int64_t slices = (regions.channels + GRADIENT_SLICE - 1) / GRADIENT_SLICE;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t item = 0; item < regions.images * slices; item++) {
        const Memory memory(regions, omp_get_thread_num());
        const int64_t number = item / slices, c = item % slices * GRADIENT_SLICE;
        const int64_t channels = std::min(GRADIENT_SLICE, regions.channels - c), size = whole_vectors(channels);
        float* image = grad_features + number * regions.height * regions.width * regions.channels + c;
        for (int64_t pixel = 0; pixel < regions.height * regions.width; pixel++)
            std::fill_n(image + pixel * regions.channels, channels, 0.0f);
        for (int64_t index = 0; index < regions.count; index++) {
            if (static_cast<int64_t>(regions.boxes[5 * index]) != number) continue;
            const Region region(regions, index, memory.table);
            for (int64_t row = 0; row < regions.rows(); row++) {
                const Taps above = region.of_row(row);
                const float* from =
                    grad_pooled + (index * regions.rows() + row) * regions.columns() * regions.channels + c;
                if (region.last < region.first || !above.count) continue;
                std::fill_n(memory.sums, (region.last - region.first + 1) * size, 0.0f);
                for (int64_t column = 0; column < regions.columns(); column++)
                    spread(region.of_column(column), from + column * regions.channels, memory.sums, size, channels);
                for (int64_t x = region.first; x <= region.last; x++)
                    spread(above, memory.sums + (x - region.first) * size, image + x * regions.channels,
                           regions.width * regions.channels, channels);
            }
        }
    }
}

}  // namespace

extern "C" {

int64_t roi_align_scratch_size(const Regions* regions) { return Memory::size(*regions); }

// features: [images, height, width, channels]; pooled: [count, rows, columns, channels] or, behind max pooling,
// [count, bins_y / 2, bins_x / 2, channels], or more of them where regions have targets; both of one type.
void roi_align(const Regions* regions, const void* features, void* pooled, int64_t bfloat16, int threads) {
#if HAS_BFLOAT16
    if (bfloat16)
        return pool(*regions, static_cast<const BFloat16*>(features), static_cast<BFloat16*>(pooled), threads);
#endif
    pool(*regions, static_cast<const float*>(features), static_cast<float*>(pooled), threads);
}

// Writes the gradient of the features, of float32; in it, regions are added up in their order. Without max pooling.
void roi_align_backward(const Regions* regions, const float* grad_pooled, float* grad_features, int threads) {
    pool_backward(*regions, grad_pooled, grad_features, threads);
}

}  // extern "C"
