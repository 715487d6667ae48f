// The stem: root convolution and pooling in one pass over the image, float32, on a CPU.

#include <omp.h>

#include "gemm.h"

extern "C" {

// The stem: convolution 7x7 of stride 2 to PANEL-packed channels, and pooling 3x3 of stride 2.
struct Stem {
    int64_t channels;
    const float *conv, *bias;  // depth 7 * 7 * 3: rows, columns, colours
    int64_t same;              // pooling padded as TensorFlow's SAME, or by 1 all around
};

struct Images {
    int64_t images, height, width;
    const float* pixels;          // three colours
    int64_t stride_image, stride_colour, stride_y, stride_x;
    const int64_t* sizes;         // [images, 2], each image's own height and width
    float* colours;               // [images, height + 6, width + 6, 3], for the images with a border of zeros
    float* rows;                  // [images, ceil(height / 4), ceil(width / 4), channels], zero where there is no image
    float* scratch;               // [threads, stem_scratch_size]
};

int64_t stem_scratch_size(const Stem* stem, int64_t width) {
    return 3 * ((width + 1) / 2) * whole_vectors(stem->channels);
}

void evaluate_stem(const Stem* stem_at, const Images* at, int threads) {
    const Stem stem = *stem_at;
    const Images to = *at;
    const int64_t border = 3, taps = 7, size = whole_vectors(stem.channels);
    const int64_t colours_row = (to.width + 2 * border) * 3, colours_image = (to.height + 2 * border) * colours_row;
    const int64_t out_height = (to.height + 3) / 4, out_width = (to.width + 3) / 4;

#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int64_t row = 0; row < to.images * (to.height + 2 * border); row++) {
            const int64_t image = row / (to.height + 2 * border), y = row % (to.height + 2 * border) - border;
            const int64_t height = to.sizes[2 * image], width = to.sizes[2 * image + 1];
            float* colours = to.colours + row * colours_row;
            std::fill_n(colours, colours_row, 0.0f);
            if (y < 0 || y >= height) continue;
            for (int64_t colour = 0; colour < 3; colour++) {
                const float* pixel = to.pixels + image * to.stride_image + colour * to.stride_colour + y * to.stride_y;
                for (int64_t x = 0; x < width; x++) colours[(x + border) * 3 + colour] = pixel[x * to.stride_x];
            }
        }
        const int thread = omp_get_thread_num(), team = omp_get_num_threads();
        float* ring = to.scratch + thread * stem_scratch_size(&stem, to.width);  // three rows of the convolution
        int64_t held[3] = {-1, -1, -1}, held_image = -1;
        Left<float> left;
        left.segments = taps;
        std::fill_n(left.lengths, taps, taps * 3);
        const int64_t begin = to.images * out_height * thread / team, end = to.images * out_height * (thread + 1) / team;
        for (int64_t out_row = begin; out_row < end; out_row++) {
            const int64_t image = out_row / out_height, out_y = out_row % out_height;
            const int64_t height = (to.sizes[2 * image] + 1) / 2, width = (to.sizes[2 * image + 1] + 1) / 2;
            const int64_t above = stem.same ? height % 2 : 1, before = stem.same ? width % 2 : 1;
            float* out = to.rows + out_row * out_width * stem.channels;
            if (out_y >= (height + 1) / 2) {
                std::fill_n(out, out_width * stem.channels, 0.0f);
                continue;
            }
            if (image != held_image) std::fill_n(held, 3, -1), held_image = image;
            const int64_t first_y = std::max<int64_t>(2 * out_y - above, 0);
            const int64_t last_y = std::min<int64_t>(2 * out_y - above + 2, height - 1);
            for (int64_t y = first_y; y <= last_y; y++) {
                if (held[y % 3] == y) continue;
                held[y % 3] = y;
                float* line = ring + y % 3 * ((to.width + 1) / 2) * size;
                for (int64_t x = 0; x < width; x += BLOCK_ROWS) {
                    const int count = static_cast<int>(std::min<int64_t>(BLOCK_ROWS, width - x));
                    float* targets[BLOCK_ROWS];
                    for (int r = 0; r < count; r++) {
                        const float* window = to.colours + image * colours_image + 2 * y * colours_row + 2 * (x + r) * 3;
                        for (int tap = 0; tap < taps; tap++) left.rows[tap][r] = window + tap * colours_row;
                        targets[r] = line + (x + r) * size;
                    }
                    multiply(left, count, stem.conv, stem.channels, Store<float>{stem.bias, stem.channels, false, targets});
                }
            }
            for (int64_t out_x = 0; out_x < out_width; out_x++, out += stem.channels) {
                if (out_x >= (width + 1) / 2) {
                    std::fill_n(out, stem.channels, 0.0f);
                    continue;
                }
                const int64_t first_x = std::max<int64_t>(2 * out_x - before, 0);
                const int64_t last_x = std::min<int64_t>(2 * out_x - before + 2, width - 1);
                for (int64_t c = 0; c < stem.channels; c += LANES) {
                    Vector best = load(ring + (first_y % 3 * ((to.width + 1) / 2) + first_x) * size + c);
                    for (int64_t y = first_y; y <= last_y; y++)
                        for (int64_t x = first_x; x <= last_x; x++)
                            best = larger(best, load(ring + (y % 3 * ((to.width + 1) / 2) + x) * size + c));
                    store_part(out + c, best, stem.channels - c);
                }
            }
        }
    }
}

}  // extern "C"
