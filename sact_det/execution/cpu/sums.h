// Sums of rows over each image, in an order that does not depend on which thread computes which rows.
//
// Rows belong to the positions of an ascending list and are computed in blocks of it. The thread that computes a block writes
// a partial sum for each image in it; partial sums are added up afterwards, block by block. Blocks and images ascend along
// the list, so that no two pairs of them have the same block + image: that is where a partial sum stands in memory.

#pragma once

#include "gemm.h"

namespace {

class ImageSums {
public:
    // Floats of memory for so many blocks.
    static int64_t size(int64_t blocks, int64_t images, int64_t channels) {
        return (blocks + images) * whole_vectors(channels);
    }

    // list: positions of maps of `map_size`; block_rows: rows of a block.
    ImageSums(float* memory, const int64_t* list, int64_t count, int64_t block_rows, int64_t images, int64_t map_size,
              int64_t channels)
        : memory(memory), list(list), count(count), block_rows(block_rows), images(images), map_size(map_size),
          channels(channels) {}

    // Sets partial sums of the block that begins with row `first` to zero: those of images from `image` to `last_image`,
    // columns from `column` to `end`. All columns of an image up to whole_vectors(channels) are there to be written.
    void start(int64_t first, int64_t image, int64_t last_image, int64_t column, int64_t end) const {
        for (; image <= last_image; image++) std::fill(of(first, image) + column, of(first, image) + end, 0.0f);
    }

    // The partial sum of the block that begins with row `first`: [whole_vectors(channels)].
    float* of(int64_t first, int64_t image) const {
        return memory + (first / block_rows + image) * whole_vectors(channels);
    }

    // Adds the sums to to[images, channels], by the threads of a team, once all blocks are done.
    void add_to(double* to) const {
        constexpr int64_t PART = 256;
        const int64_t parts = (channels + PART - 1) / PART;
#pragma omp for schedule(static)
        for (int64_t n = 0; n < images * parts; n++) {
            const int64_t image = n / parts, column = n % parts * PART, end = std::min(column + PART, channels);
            const int64_t first = rows_before(image), next = rows_before(image + 1);
            if (first == next) continue;
            for (int64_t block = first / block_rows; block <= (next - 1) / block_rows; block++) {
                const float* partial = of(block * block_rows, image);
                for (int64_t c = column; c < end; c++) to[image * channels + c] += partial[c];
            }
        }
    }

private:
    int64_t rows_before(int64_t image) const { return std::lower_bound(list, list + count, image * map_size) - list; }

    float* const memory;
    const int64_t* const list;
    const int64_t count, block_rows, images, map_size, channels;
};

// sum += v.
inline void add(Vector v, float* sum) { store(sum, load(sum) + v); }

}  // namespace
