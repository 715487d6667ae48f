// The stem on a CPU: root convolution and pooling in one pass over the image; in float32, but for the convolution's factors,
// which may be bfloat16.

#include <omp.h>

#include "gemm.h"

extern "C" {

// The stem: 7x7 convolution of stride 2, and 3x3 max pooling of stride 2.
struct Stem {
    int64_t channels;
    const void* conv;   // packed, depth 7 * 7 * 3: rows, columns, colours; of bfloat16, a zero follows the 21 of a row
    const float* bias;
    int64_t same;       // pooling padded as TensorFlow's SAME, or by 1 all around
    int64_t bfloat16;   // whether conv and the colours that it reads are of bfloat16
};

struct Images {
    int64_t images, height, width;
    const float* pixels;          // three colours
    int64_t stride_image, stride_colour, stride_y, stride_x;
    const int64_t* sizes;         // [images, 2], each image's own height and width
    void* colours;                // [images, height + 6, width + 6, 3] and 1 more: the images with a border of zeros
    float* rows;                  // [images, ceil(height / 4), ceil(width / 4), channels], zero where there is no image
    float* scratch;               // [threads, stem_scratch_size]
};

}  // extern "C"

namespace {

constexpr int64_t BORDER = 3;

// Floats of a thread's ring buffer: the three rows of the root convolution's output that a window of the pooling reads.
int64_t ring_size(int64_t channels, int64_t width) { return 3 * ((width + 1) / 2) * whole_vectors(channels); }

// Elements of a row of colours, with its border.
int64_t line_size(int64_t width) { return (width + 2 * BORDER) * 3; }

constexpr int64_t whole_steps(int64_t elements, int64_t length) { return (elements + length - 1) / length * length; }

// Floats of scratch of one thread: its ring buffer, and a row of colours.
int64_t scratch_size(const Stem& stem, int64_t width) {
    return ring_size(stem.channels, width) + whole_vectors(line_size(width));
}

template <class Element>
void evaluate(const Stem& stem, const Images& batch, int threads) {
    Element* const all_colours = static_cast<Element*>(batch.colours);
    const int64_t border = BORDER, taps = 7, size = whole_vectors(stem.channels);
    const int64_t colours_row = line_size(batch.width), colours_image = (batch.height + 2 * border) * colours_row;
    const int64_t out_height = (batch.height + 3) / 4, out_width = (batch.width + 3) / 4;
    store_part(all_colours + batch.images * colours_image, Vector{}, 1);  // read with the last row, and multiplied by 0

#pragma omp parallel num_threads(threads)
    {
        const int thread = omp_get_thread_num(), team = omp_get_num_threads();
        float* ring = batch.scratch + thread * scratch_size(stem, batch.width);
        float* line = ring + ring_size(stem.channels, batch.width);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < batch.images * (batch.height + 2 * border); row++) {
            const int64_t image = row / (batch.height + 2 * border), y = row % (batch.height + 2 * border) - border;
            const int64_t height = batch.sizes[2 * image], width = batch.sizes[2 * image + 1];
            std::fill_n(line, whole_vectors(colours_row), 0.0f);
            for (int64_t colour = 0; colour < 3 && 0 <= y && y < height; colour++) {
                const float* pixel =
                    batch.pixels + image * batch.stride_image + colour * batch.stride_colour + y * batch.stride_y;
                for (int64_t x = 0; x < width; x++) line[(x + border) * 3 + colour] = pixel[x * batch.stride_x];
            }
            Element* colours = all_colours + row * colours_row;
            for (int64_t c = 0; c < colours_row; c += LANES) store_part(colours + c, load(line + c), colours_row - c);
        }
        int64_t held[3] = {-1, -1, -1}, held_image = -1;
        LeftFactor<Element> left;
        left.segments = taps;
        std::fill_n(left.lengths, taps, whole_steps(taps * 3, Step<Element>::LENGTH));
        const int64_t begin = batch.images * out_height * thread / team, end = batch.images * out_height * (thread + 1) / team;
        for (int64_t out_row = begin; out_row < end; out_row++) {
            const int64_t image = out_row / out_height, out_y = out_row % out_height;
            const int64_t height = (batch.sizes[2 * image] + 1) / 2, width = (batch.sizes[2 * image + 1] + 1) / 2;
            const int64_t above = stem.same ? height % 2 : 1, before = stem.same ? width % 2 : 1;
            float* out = batch.rows + out_row * out_width * stem.channels;
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
                float* row = ring + y % 3 * ((batch.width + 1) / 2) * size;
                for (int64_t x = 0; x < width; x += BLOCK_ROWS) {
                    const int count = static_cast<int>(std::min<int64_t>(BLOCK_ROWS, width - x));
                    float* targets[BLOCK_ROWS];
                    for (int r = 0; r < count; r++) {
                        const Element* window = all_colours + image * colours_image + 2 * y * colours_row + 2 * (x + r) * 3;
                        for (int tap = 0; tap < taps; tap++) left.rows[tap][r] = window + tap * colours_row;
                        targets[r] = row + (x + r) * size;
                    }
                    const Store<float> store{stem.bias, stem.channels, false, targets};
                    multiply(left, count, static_cast<const Element*>(stem.conv), stem.channels, store);
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
                    Vector best = load(ring + (first_y % 3 * ((batch.width + 1) / 2) + first_x) * size + c);
                    for (int64_t y = first_y; y <= last_y; y++)
                        for (int64_t x = first_x; x <= last_x; x++)
                            best = larger(best, load(ring + (y % 3 * ((batch.width + 1) / 2) + x) * size + c));
                    store_part(out + c, best, stem.channels - c);
                }
            }
        }
    }
}

}  // namespace

extern "C" {

int64_t stem_scratch_size(const Stem* stem, int64_t width) { return scratch_size(*stem, width); }

void evaluate_stem(const Stem* stem_at, const Images* at, int threads) {
    const Stem stem = *stem_at;
    const Images batch = *at;
#if HAS_BFLOAT16
    if (stem.bfloat16) return evaluate<BFloat16>(stem, batch, threads);
#endif
    evaluate<float>(stem, batch, threads);
}

}  // extern "C"
