// Sums of rows over each image, in an order that depends neither on the number of threads nor on which computes which rows.
//
// Rows belong to the positions of an ascending list, of which a thread computes whole pieces of SUM_ROWS. It writes a partial
// sum for each image in a piece; partial sums are added up afterwards, piece by piece. Pieces and images ascend along the
// list, so that no two pairs of them have the same piece + image: that is where a partial sum stands in memory.

#pragma once

#include "gemm.h"

namespace {

class ImageSums {
public:
    // Floats of memory for a list of `count` positions.
    static int64_t size(int64_t count, int64_t images, int64_t channels) {
        return ((count + SUM_ROWS - 1) / SUM_ROWS + images) * whole_vectors(channels);
    }

    // list: positions of maps of `map_size`.
    ImageSums(float* memory, const int64_t* list, int64_t count, int64_t images, int64_t map_size, int64_t channels)
        : memory(memory), list(list), count(count), images(images), map_size(map_size), channels(channels) {}

    // The partial sum that a row of an image belongs to: [whole_vectors(channels)].
    float* of(int64_t row, int64_t image) const { return memory + (row / SUM_ROWS + image) * whole_vectors(channels); }

    // Sets the partial sums of so many rows to zero, columns from `column` to `end`. The first row begins a piece.
    void start(int64_t first, int64_t rows, int64_t column, int64_t end) const {
        float* const last = of(first + rows - 1, image_of(first + rows - 1));
        for (float* sum = of(first, image_of(first)); sum <= last; sum += whole_vectors(channels))
            std::fill(sum + column, sum + end, 0.0f);
    }

    // Adds the sums to to[images, channels], by the threads of a team, once all rows are done.
    void add_to(double* to) const {
        constexpr int64_t PART = 64;
        const int64_t parts = (channels + PART - 1) / PART;
#pragma omp for schedule(static)
        for (int64_t n = 0; n < images * parts; n++) {
            const int64_t image = n / parts, column = n % parts * PART, end = std::min(column + PART, channels);
            const int64_t first = rows_before(image), next = rows_before(image + 1);
            for (int64_t row = first; row < next; row = (row / SUM_ROWS + 1) * SUM_ROWS) {
                const float* partial = of(row, image);
                for (int64_t c = column; c < end; c++) to[image * channels + c] += partial[c];
            }
        }
    }

private:
    int64_t image_of(int64_t row) const { return list[row] / map_size; }
    int64_t rows_before(int64_t image) const { return std::lower_bound(list, list + count, image * map_size) - list; }

    float* const memory;
    const int64_t* const list;
    const int64_t count, images, map_size, channels;
};

// sum += v.
inline void add(Vector v, float* sum) { store(sum, load(sum) + v); }

}  // namespace
