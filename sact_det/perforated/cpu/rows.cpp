// Residual units at lists of positions, float32, on a CPU.
//
// A feature map lives in rows, [positions, C], position = (n * H + y) * W + x, channels last. Nothing is gathered into
// memory of its own except what batch normalisation and ReLU would have to write anyway: a 3x3 convolution reads its
// neighbours through pointers (gemm.h), and a pointer beyond the map leads to a row of zeros.
//
// Threads take blocks of a list as they come. A position's result does not depend on which thread computes it; sums
// over positions are kept per thread in double precision, and depend on it in their last bits.

#include <omp.h>

#include <thread>
#include <vector>

#include "gemm.h"
#include "taps.h"

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

// Where a unit is evaluated, and scored by the branch behind it.
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
    const int64_t* counts;   // [images], positions of each image; from here on, for branches only
    float* products;         // [output positions, whole_vectors(9)]; zero wherever there is no position
    float* image_logits;     // [images], room to work
    float* scores;           // [output positions], h^l at `writes`; the rest is left alone
};

int64_t scratch_size(const Unit* unit);

}  // extern "C"

namespace {

constexpr int64_t FEW = 2 * BLOCK_ROWS;  // reads up to which threads share positions instead of dealing them out

// Which blocks of reads are done, so that a block of writes waits for those that it needs and not for all threads.
class Progress {
public:
    explicit Progress(int64_t blocks) : done(blocks) {}

    void finish(int64_t block) { done[block].store(true, std::memory_order_release); }

    // Until the blocks before `end` are done. Threads take blocks in order: somebody is at work on each of them.
    void wait(int64_t end) {
        for (int64_t block = known.load(std::memory_order_acquire); block < end; block++) {
            while (!done[block].load(std::memory_order_acquire)) std::this_thread::yield();
            known.store(block + 1, std::memory_order_release);
        }
    }

private:
    std::vector<std::atomic<bool>> done;
    std::atomic<int64_t> known{0};  // all blocks before this one are done
};

// Rows that a product reads normalized: made a tile at a time, while the next tile's are on their way.
struct Normalized {
    const Unit& unit;
    int count;
    const float* const* from;  // [count]
    float* to;                 // [count, in_channels]
    int64_t first_column;      // of the product

    void expect(int first, int rows, int64_t column, int) const {
        if (column != first_column) return;
        for (int r = first; r < first + rows; r++) {
            normalize_row(from[r], unit.scale, unit.shift, unit.in_channels, to + r * unit.in_channels);
            if (r + TILE_ROWS < count) prefetch(from[r + TILE_ROWS], unit.in_channels);
        }
    }
};

// Store, of rows that are normalized for it.
struct StoreNormalized : Store {
    const Normalized& normalized;

    void expect(int first, int rows, int64_t column, int vectors) const {
        normalized.expect(first, rows, column, vectors);
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
    const Normalized* normalized;  // of a projecting shortcut, or null

    void expect(int first, int count, int64_t column, int vectors) const {
        if (normalized) normalized->expect(first, count, column, vectors);
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

// h^l at a position, once all products are there.
void score(const Evaluation& to, int64_t position) {
    const Place place = locate(position, to.out_height, to.out_width);
    float logit = to.image_logits[place.image];
    for (int tap = 0; tap < 9; tap++) {
        const int64_t y = place.y + tap / 3 - 1, x = place.x + tap % 3 - 1;
        if (0 <= y && y < to.out_height && 0 <= x && x < to.out_width)
            logit += to.products[((place.image * to.out_height + y) * to.out_width + x) * whole_vectors(9) + tap];
    }
    to.scores[position] = 1 / (1 + std::exp(-logit));
}

// One thread at work on a unit.
class Worker {
public:
    Worker(const Unit& unit, const Halting* branch, const Evaluation& to, int thread)
        : unit(unit), branch(branch), to(to), inner_size(whole_vectors(unit.width)),
          zeros(to.inner + to.images * to.in_height * to.in_width * inner_size),  // the row behind the last
          normalized(to.scratch + thread * scratch_size(&unit)),
          one_sum(normalized + BLOCK_ROWS * (unit.in_channels + inner_size)),
          sums(to.sums ? to.sums + thread * to.images * unit.out_channels : nullptr) {}

    // Room for what conv2 makes of a block of writes.
    float* middle() const { return normalized + BLOCK_ROWS * unit.in_channels; }

    // conv1 at some of the reads, a share of the columns.
    void read(int64_t first, int rows, Share share) {
        left.segments = 1;
        left.lengths[0] = unit.in_channels;
        for (int r = 0; r < rows; r++) {
            const int64_t position = to.reads[first + r];
            sources[r] = source(position);
            left.rows[0][r] = normalized + r * unit.in_channels;
            targets[r] = to.inner + position * inner_size;
        }
        const Normalized preactivation{unit, rows, sources, normalized, share.first_column(unit.width)};
        const StoreNormalized store{{unit.bias1, unit.width, true, targets}, preactivation};
        multiply(left, rows, unit.conv1, unit.width, store, share);
    }

    // conv2 at some of the writes, a share of the columns.
    void convolve(int64_t first, int rows, float* middle, Share share) {
        left.segments = 9;
        std::fill_n(left.lengths, 9, unit.width);
        for (int r = 0; r < rows; r++) {
            const Place place = locate(to.writes[first + r], to.out_height, to.out_width);
            for (int tap = 0; tap < 9; tap++) {
                const int64_t y = place.y * unit.stride + (tap / 3 - 1) * unit.dilation;
                const int64_t x = place.x * unit.stride + (tap % 3 - 1) * unit.dilation;
                const bool inside = 0 <= y && y < to.in_height && 0 <= x && x < to.in_width;
                const int64_t position = (place.image * to.in_height + y) * to.in_width + x;
                left.rows[tap][r] = inside ? to.inner + position * inner_size : zeros;
            }
            targets[r] = middle + r * inner_size;
        }
        multiply(left, rows, unit.conv2, unit.width, Store{unit.bias2, unit.width, true, targets}, share);
    }

    // conv3 and what becomes of it at some of the writes, a share of the columns.
    void write(int64_t first, int rows, const float* middle, Share share) {
        left.segments = unit.projects ? 2 : 1;
        left.lengths[0] = unit.width;
        left.lengths[1] = unit.in_channels;
        Place places[BLOCK_ROWS];
        for (int r = 0; r < rows; r++) {
            const Place place = places[r] = locate(to.writes[first + r], to.out_height, to.out_width);
            left.rows[0][r] = middle + r * inner_size;
            if (!unit.projects) continue;
            const int64_t row = place.image * to.in_height + place.y * unit.stride;
            sources[r] = to.x + (row * to.in_width + place.x * unit.stride) * unit.in_channels;
            left.rows[1][r] = normalized + r * unit.in_channels;
        }
        const Normalized preactivation{unit, rows, sources, normalized, share.first_column(unit.out_channels)};
        const bool one_image = places[0].image == places[rows - 1].image;
        const Residual residual{unit, to, to.writes + first, places, sums, sums && one_image ? one_sum : nullptr,
                                unit.projects ? &preactivation : nullptr};
        if (residual.one_sum) std::fill_n(one_sum, whole_vectors(unit.out_channels), 0.0f);
        multiply(left, rows, unit.conv3, unit.out_channels, residual, share);
        if (residual.one_sum) {
            double* sum = sums + places[0].image * unit.out_channels;
            for (int64_t c = 0; c < unit.out_channels; c++) sum[c] += one_sum[c];
        }
    }

    // Products with the branch's taps at those of some reads that are not written: their state is final.
    void multiply_halted(int64_t first, int rows) {
        if (!branch || !to.output) return;
        const int64_t *write = std::lower_bound(to.writes, to.writes + to.num_writes, to.reads[first]);
        int halted = 0;
        for (int r = 0; r < rows; r++) {
            const int64_t position = to.reads[first + r];
            if (write != to.writes + to.num_writes && *write == position)
                write++;
            else
                add_tapped(halted++, position, source(position));
        }
        multiply_taps(halted);
    }

    // The same at some of the writes, behind `write`.
    void multiply_written(int64_t first, int rows) {
        if (!branch) return;
        for (int r = 0; r < rows; r++) {
            const int64_t position = to.writes[first + r];
            add_tapped(r, position, to.state + position * unit.out_channels);
        }
        multiply_taps(rows);
    }

private:
    const float* source(int64_t position) const {
        return (to.moved && !to.moved[position] ? to.output : to.x) + position * unit.in_channels;
    }

    void add_tapped(int r, int64_t position, const float* row) {
        left.rows[0][r] = row;
        targets[r] = to.products + position * whole_vectors(9);
    }

    void multiply_taps(int rows) {
        for (int r = 0; r < rows; r += TAP_ROWS) multiply_nine(*branch, left.rows[0] + r, std::min(TAP_ROWS, rows - r), targets + r);
    }

    const Unit& unit;
    const Halting* branch;
    const Evaluation& to;
    const int64_t inner_size;
    const float* zeros;
    float *normalized, *one_sum;
    double* sums;
    float* targets[BLOCK_ROWS];
    const float* sources[BLOCK_ROWS];
    Left left;
};

// Every thread takes blocks of positions.
class Apart {
public:
    Apart(const Unit& unit, const Evaluation& to, int threads)
        : unit(unit), to(to), reads(to.num_reads, threads), writes(to.num_writes, threads), progress(reads.number()) {}

    void work(Worker& worker) {
        reads.take([&](int64_t first, int rows) {
            worker.read(first, rows, {});
            worker.multiply_halted(first, rows);
            progress.finish(reads.block_of(first));
        });
        writes.take([&](int64_t first, int rows) {
            progress.wait(needed(to.writes[first + rows - 1]));
            worker.convolve(first, rows, worker.middle(), {});
            worker.write(first, rows, worker.middle(), {});
            worker.multiply_written(first, rows);
        });
    }

private:
    // Blocks of reads that hold what output positions up to `position` read.
    int64_t needed(int64_t position) const {
        const Place place = locate(position, to.out_height, to.out_width);
        const int64_t y = std::min(place.y * unit.stride + unit.dilation, to.in_height - 1);
        const int64_t beyond = (place.image * to.in_height + y + 1) * to.in_width;
        return reads.number_for(std::lower_bound(to.reads, to.reads + to.num_reads, beyond) - to.reads);
    }

    const Unit& unit;
    const Evaluation& to;
    Blocks reads, writes;
    Progress progress;
};

// All threads work at the same positions, each on its columns: few positions are done before the weights are fetched, and
// so each weight is fetched by one thread only.
class Together {
public:
    Together(const Evaluation& to, int threads) : to(to), threads(threads), reads(to.num_reads, threads), writes(to.num_writes, threads) {}

    static bool pays(const Unit& unit, const Evaluation& to, int threads) {
        return to.num_reads <= FEW && threads > 1 && threads <= panels(unit.width);
    }

    // middle: shared.
    void work(Worker& worker, float* middle, int thread) {
        const Share share{thread, threads};
        for (int64_t first = 0; first < to.num_reads; first += BLOCK_ROWS)
            worker.read(first, static_cast<int>(std::min<int64_t>(BLOCK_ROWS, to.num_reads - first)), share);
        for (int64_t first = 0; first < to.num_writes; first += BLOCK_ROWS) {
            const int rows = static_cast<int>(std::min<int64_t>(BLOCK_ROWS, to.num_writes - first));
#pragma omp barrier
            worker.convolve(first, rows, middle, share);
#pragma omp barrier
            worker.write(first, rows, middle, share);
        }
        reads.take([&](int64_t first, int rows) { worker.multiply_halted(first, rows); });
#pragma omp barrier
        writes.take([&](int64_t first, int rows) { worker.multiply_written(first, rows); });
    }

private:
    const Evaluation& to;
    const int threads;
    Blocks reads, writes;
};

}  // namespace

extern "C" {

int64_t lanes() { return LANES; }
int64_t panel() { return PANEL; }
int64_t scratch_size(const Unit* unit) {
    return BLOCK_ROWS * (unit->in_channels + whole_vectors(unit->width)) + whole_vectors(unit->out_channels);
}

// One unit; branch may be null.
void evaluate_unit(const Unit* unit, const Halting* branch, const Evaluation* at, int threads) {
    const Evaluation to = *at;
    const bool together = Together::pays(*unit, to, threads);
    Apart apart(*unit, to, threads);
    Together shared(to, threads);
    float* middle = to.scratch + BLOCK_ROWS * unit->in_channels;

#pragma omp parallel num_threads(threads)
    {
        const int thread = omp_get_thread_num();
        Worker worker(*unit, branch, to, thread);
        if (together)
            shared.work(worker, middle, thread);
        else
            apart.work(worker);
        if (branch) {
#pragma omp barrier
#pragma omp for schedule(static)
            for (int64_t image = 0; image < to.images; image++) {
                double logit = 0;
                for (int part = 0; part < threads; part++) {
                    const double* sum = to.sums + (part * to.images + image) * branch->channels;
                    for (int64_t c = 0; c < branch->channels; c++) logit += sum[c] * branch->pooled[c];
                }
                to.image_logits[image] = static_cast<float>(logit / to.counts[image] + branch->constant);
            }
#pragma omp for schedule(static)
            for (int64_t i = 0; i < to.num_writes; i++) score(to, to.writes[i]);
        }
    }
}

}  // extern "C"
