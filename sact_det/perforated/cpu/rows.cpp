// Residual units at lists of positions, float32, on a CPU.
//
// A feature map lives in rows, [positions, C], position = (n * H + y) * W + x, channels last. Nothing is gathered into
// memory of its own except what batch normalisation and ReLU would have to write anyway: a 3x3 convolution reads its
// neighbours through pointers (gemm.h), and a pointer beyond the map leads to a row of zeros.
//
// Threads take blocks of a list as they come. A position's result does not depend on which thread computes it; sums
// over positions are kept per thread in double precision, and depend on it in their last bits.

#include <omp.h>

#include "gemm.h"

extern "C" {

// A bottleneck unit with its norms folded away but for the first, the pre-activation.
struct Unit {
    int64_t in_channels, width, out_channels, stride, dilation;
    const float *scale, *shift;  // [in_channels], the pre-activation
    const float *conv1, *bias1;  // depth in_channels
    const float *conv2, *bias2;  // depth 9 * width, taps row by row
    const float *conv3, *bias3;  // depth width, or width + in_channels with the shortcut's convolution below
    int64_t projects;            // whether there is such a shortcut
};

// Where it is evaluated.
struct Evaluation {
    int64_t images, in_height, in_width, out_height, out_width;
    const float* x;          // rows at input resolution, [., in_channels]
    float* inner;            // rows behind conv1, [., whole_vectors(width)]; zero wherever there is no position
    const int64_t* reads;    // input positions at which conv1 is needed
    int64_t num_reads;
    const int64_t* writes;   // output positions
    int64_t num_writes;
    const float* shortcut;   // rows to which the residual is added, or null
    float* state;            // rows of the result; may be `shortcut`
    float* output;           // rows, or null; += remaining * residual
    const uint8_t* moved;    // [output positions] or null; where it does not hold, `x` is to be read in `output`
    const float* remaining;  // [output positions], where there is an output
    double* sums;            // [threads, images, out_channels] or null; += residual, or state where there is no output
    float* scratch;          // [threads, scratch_size(unit)]
};

}  // extern "C"

namespace {

// Store, while the next tile's rows are on their way.
struct Taps : Store {
    const Left& left;
    int count;
    int64_t channels;

    void expect(int first, int, int64_t, int) const {
        for (int r = first + TILE_ROWS; r < std::min(first + 2 * TILE_ROWS, count); r++) prefetch(left.rows[0][r], channels);
    }
};

// Adds the residual to the state and, weighted, to the output.
struct Residual {
    const Unit& unit;
    const Evaluation& to;
    const int64_t* positions;
    const Place* places;
    double* sums;    // [images, out_channels] or null
    float* one_sum;  // [whole_vectors(out_channels)] if all rows belong to one image, else null

    void expect(int first, int count, int64_t column, int vectors) const {
        for (int r = 0; r < count; r++) {
            const int64_t place = positions[first + r] * unit.out_channels + column;
            for (int v = 0; v < vectors; v++) {
                __builtin_prefetch(to.state + place + v * LANES, 1);
                if (to.output) __builtin_prefetch(to.output + place + v * LANES, 1);
            }
        }
    }

    void operator()(int first, int count, int64_t column, const Vector* product, int step) const {
        const int64_t width = unit.out_channels - column;
        const Vector bias = load_part(unit.bias3 + column, width);
        Vector sum{};
        for (int r = 0; r < count; r++) {
            const int64_t position = positions[first + r], place = position * unit.out_channels + column;
            const Vector residual = product[r * step] + bias;
            const Vector state = to.shortcut ? load_part(to.shortcut + place, width) + residual : residual;
            store_part(to.state + place, state, width);
            if (to.output) {
                float* output = to.output + place;
                store_part(output, load_part(output, width) + to.remaining[position] * residual, width);
            }
            const Vector change = to.output ? residual : state;
            if (one_sum)
                sum += change;
            else if (sums)
                add(change, width, sums + places[first + r].image * unit.out_channels + column);
        }
        if (one_sum) store(one_sum + column, load(one_sum + column) + sum);
    }

    static void add(Vector v, int64_t count, double* sum) {
        for (int64_t c = 0; c < std::min<int64_t>(count, LANES); c++) sum[c] += v[c];
    }
};

}  // namespace

extern "C" {

int64_t lanes() { return LANES; }
int64_t panel() { return PANEL; }
int64_t scratch_size(const Unit* unit) {
    return BLOCK_ROWS * (unit->in_channels + whole_vectors(unit->width)) + whole_vectors(unit->out_channels);
}

void evaluate_unit(const Unit* unit_at, const Evaluation* at, int threads) {
    const Unit unit = *unit_at;
    const Evaluation to = *at;
    const int64_t inner_size = whole_vectors(unit.width);
    const float* zeros = to.inner + to.images * to.in_height * to.in_width * inner_size;  // the row behind the last
    Blocks read_blocks(to.num_reads, threads), write_blocks(to.num_writes, threads);
    const auto source = [&](int64_t position) {
        return (to.moved && !to.moved[position] ? to.output : to.x) + position * unit.in_channels;
    };

#pragma omp parallel num_threads(threads)
    {
        const int thread = omp_get_thread_num();
        float* normalized = to.scratch + thread * scratch_size(&unit);
        float* middle = normalized + BLOCK_ROWS * unit.in_channels;
        float* one_sum = middle + BLOCK_ROWS * inner_size;
        double* sums = to.sums ? to.sums + thread * to.images * unit.out_channels : nullptr;
        float* targets[BLOCK_ROWS];
        Left left;

        left.segments = 1;
        left.lengths[0] = unit.in_channels;
        read_blocks.take([&](int64_t first, int rows) {
            for (int r = 0; r < rows; r++) {
                const int64_t position = to.reads[first + r];
                float* row = normalized + r * unit.in_channels;
                if (r + 1 < rows) prefetch(source(to.reads[first + r + 1]), unit.in_channels);
                normalize_row(source(position), unit.scale, unit.shift, unit.in_channels, row);
                left.rows[0][r] = row;
                targets[r] = to.inner + position * inner_size;
            }
            multiply(left, rows, unit.conv1, unit.width, Store{unit.bias1, unit.width, true, targets});
        });
#pragma omp barrier
        write_blocks.take([&](int64_t first, int rows) {
            Place places[BLOCK_ROWS];
            left.segments = 9;
            std::fill_n(left.lengths, 9, unit.width);
            for (int r = 0; r < rows; r++) {
                const Place place = places[r] = locate(to.writes[first + r], to.out_height, to.out_width);
                for (int tap = 0; tap < 9; tap++) {
                    const int64_t y = place.y * unit.stride + (tap / 3 - 1) * unit.dilation;
                    const int64_t x = place.x * unit.stride + (tap % 3 - 1) * unit.dilation;
                    const bool inside = 0 <= y && y < to.in_height && 0 <= x && x < to.in_width;
                    const int64_t position = (place.image * to.in_height + y) * to.in_width + x;
                    left.rows[tap][r] = inside ? to.inner + position * inner_size : zeros;
                }
                targets[r] = middle + r * inner_size;
            }
            multiply(left, rows, unit.conv2, unit.width, Store{unit.bias2, unit.width, true, targets});

            left.segments = unit.projects ? 2 : 1;
            left.lengths[0] = unit.width;
            left.lengths[1] = unit.in_channels;
            for (int r = 0; r < rows; r++) {
                left.rows[0][r] = middle + r * inner_size;
                if (!unit.projects) continue;
                const Place& place = places[r];
                const int64_t row = place.image * to.in_height + place.y * unit.stride;
                const float* x = to.x + (row * to.in_width + place.x * unit.stride) * unit.in_channels;
                left.rows[1][r] = normalized + r * unit.in_channels;
                normalize_row(x, unit.scale, unit.shift, unit.in_channels, normalized + r * unit.in_channels);
            }
            const bool one_image = places[0].image == places[rows - 1].image;
            Residual residual{unit, to, to.writes + first, places, sums, sums && one_image ? one_sum : nullptr};
            if (residual.one_sum) std::fill_n(one_sum, whole_vectors(unit.out_channels), 0.0f);
            multiply(left, rows, unit.conv3, unit.out_channels, residual);
            if (residual.one_sum) {
                double* sum = sums + places[0].image * unit.out_channels;
                for (int64_t c = 0; c < unit.out_channels; c++) sum[c] += one_sum[c];
            }
        });
    }
}

// Writes the positions at which `active` and `exists` hold, and those where `exists` holds at one of them or beside it;
// both lists are ascending and have room for every position. Masks are bytes, [images, height, width]; returns the
// length of the second list, and of the first through `num_active`.
int64_t list_positions(const uint8_t* active, const uint8_t* exists, int64_t images, int64_t height, int64_t width,
                       int64_t* actives, int64_t* num_active, int64_t* reads) {
    int64_t found = 0, around = 0;
    for (int64_t row = 0; row < images * height; row++) {
        const int64_t y = row % height, first = row * width;
        const uint8_t *here = active + first, *own = exists + first;
        const uint8_t* above = y > 0 ? here - width : here;
        const uint8_t* below = y + 1 < height ? here + width : here;
        uint8_t before = 0, now = here[0] | above[0] | below[0];
        for (int64_t x = 0; x < width; x++) {
            const uint8_t next = x + 1 < width ? here[x + 1] | above[x + 1] | below[x + 1] : 0;
            actives[found] = reads[around] = first + x;
            found += here[x] & own[x];
            around += (before | now | next) & own[x];
            before = now;
            now = next;
        }
    }
    *num_active = found;
    return around;
}

// A halting branch with its norms folded away.
struct Halting {
    int64_t channels;
    const float *taps, *bias;  // nine columns of depth `channels`, and what each adds
    const float *pooled;       // [channels], of the global mean
    float constant;
};

// h^l of a state at the positions of `actives`, zero elsewhere; `reads` are those and their neighbours.
struct Scoring {
    int64_t images, height, width;
    const float* state;       // rows
    const float* unmoved;     // rows of the state where `moved` does not hold
    const uint8_t* moved;     // [images, height, width] or null
    const int64_t* reads;
    int64_t num_reads;
    const int64_t* actives;
    int64_t num_actives;
    const double* sums;       // [sum_parts, images, channels], of the state over each image's own positions
    int64_t sum_parts;
    const int64_t* counts;    // [images], how many those are
    float* products;          // [., whole_vectors(9)]; zero wherever there is no position
    float* image_logits;      // [images], room to work
    float* scores;            // [images, height, width], zero
};

void evaluate_halting(const Halting* halting_at, const Scoring* at, int threads) {
    const Halting halting = *halting_at;
    const Scoring to = *at;
    const int64_t size = whole_vectors(9);
    Blocks blocks(to.num_reads, threads);

#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static) nowait
        for (int64_t image = 0; image < to.images; image++) {
            double logit = 0;
            for (int64_t part = 0; part < to.sum_parts; part++) {
                const double* sum = to.sums + (part * to.images + image) * halting.channels;
                for (int64_t c = 0; c < halting.channels; c++) logit += sum[c] * halting.pooled[c];
            }
            to.image_logits[image] = static_cast<float>(logit / to.counts[image] + halting.constant);
        }
        blocks.take([&](int64_t first, int block) {
            Left left;
            left.segments = 1;
            left.lengths[0] = halting.channels;
            float* targets[BLOCK_ROWS];
            for (int r = 0; r < block; r++) {
                const int64_t position = to.reads[first + r];
                left.rows[0][r] = (to.moved && !to.moved[position] ? to.unmoved : to.state) + position * halting.channels;
                targets[r] = to.products + position * size;
            }
            multiply(left, block, halting.taps, 9, Taps{{halting.bias, size, false, targets}, left, block, halting.channels});
        });
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t i = 0; i < to.num_actives; i++) {
            const int64_t position = to.actives[i];
            const Place place = locate(position, to.height, to.width);
            float logit = to.image_logits[place.image];
            for (int tap = 0; tap < 9; tap++) {
                const int64_t y = place.y + tap / 3 - 1, x = place.x + tap % 3 - 1;
                if (0 <= y && y < to.height && 0 <= x && x < to.width)
                    logit += to.products[((place.image * to.height + y) * to.width + x) * size + tap];
            }
            to.scores[position] = 1 / (1 + std::exp(-logit));
        }
    }
}

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
        Left left;
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
                    multiply(left, count, stem.conv, stem.channels, Store{stem.bias, stem.channels, false, targets});
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
