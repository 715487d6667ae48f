// Residual units at lists of positions on a CPU: in float32, but for the factors of products, which may be bfloat16.
//
// A feature map is stored in rows, [positions, C], position = (n * H + y) * W + x, channels last. Nothing is gathered into
// memory of its own except what batch normalisation and ReLU would have to write anyway: a 3x3 convolution reads its
// neighbours through pointers (gemm.h), and a pointer beyond the map leads to a row of zeros.
//
// Threads take blocks of a list as they come; there may be fewer threads than were asked for. No result depends on which
// thread computes it, nor on how many there are. Nothing is allocated here.

#include <omp.h>

#include <new>
#include <thread>

#include "worker.h"

namespace {

constexpr int64_t MAX_SHARED_READS = 2 * BLOCK_ROWS;  // number of reads up to which threads may work by columns

// Which blocks of reads are done: a block of writes waits for those that it needs, not for all threads.
class Progress {
public:
    // Floats of memory for so many blocks.
    static int64_t size(int64_t blocks) { return (blocks * sizeof(Flag) + sizeof(float) - 1) / sizeof(float); }

    Progress(float* memory, int64_t blocks) : done(reinterpret_cast<Flag*>(memory)) {
        for (int64_t block = 0; block < blocks; block++) new (done + block) Flag(false);
    }

    void finish(int64_t block) { done[block].store(true, std::memory_order_release); }

    // Waits until the blocks before `end` are done. Threads take blocks in order: each of them is being worked on.
    void wait(int64_t end) {
        for (int64_t block = known.load(std::memory_order_acquire); block < end; block++) {
            while (!done[block].load(std::memory_order_acquire)) std::this_thread::yield();
            known.store(block + 1, std::memory_order_release);
        }
    }

private:
    typedef std::atomic<bool> Flag;

    Flag* const done;
    std::atomic<int64_t> known{0};  // all blocks before this one are done
};

// Every thread computes all columns at blocks of positions.
class PositionParallel {
public:
    PositionParallel(const Unit& unit, const Evaluation& call, Blocks& reads, Blocks& writes, float* memory)
        : unit(unit), call(call), reads(reads), writes(writes), progress(memory, reads.number()) {}

    template <class Element, class From>
    void work(Worker<Element, From>& worker, const ImageSums& sums) {
        reads.take([&](int64_t first, int rows) {
            worker.read(first, rows, {});
            worker.multiply_halted(first, rows);
            progress.finish(reads.block_of(first));
        });
        writes.take([&](int64_t first, int rows) {
            progress.wait(needed(call.writes[first + rows - 1]));
            worker.convolve(first, rows, worker.middle(), {});
            worker.write(first, rows, worker.middle(), sums, {});
            worker.multiply_written(first, rows);
        });
    }

private:
    // The number of blocks of reads that hold all that output positions up to `position` read.
    int64_t needed(int64_t position) const {
        const Place place = locate(position, call.out_height, call.out_width);
        const int64_t y = std::min(place.y * unit.stride + unit.dilation, call.in_height - 1);
        const int64_t beyond = (place.image * call.in_height + y + 1) * call.in_width;
        return reads.number_for(std::lower_bound(call.reads, call.reads + call.num_reads, beyond) - call.reads);
    }

    const Unit& unit;
    const Evaluation& call;
    Blocks &reads, &writes;
    Progress progress;
};

// Every thread computes its own columns at all positions: each weight is fetched by one thread only, and where positions are
// few, fetching takes longer than computing.
class ColumnParallel {
public:
    ColumnParallel(const Evaluation& call, Blocks& reads, Blocks& writes) : call(call), reads(reads), writes(writes) {}

    static bool is_faster(const Unit& unit, const Evaluation& call, int threads) {
        return call.num_reads <= MAX_SHARED_READS && threads > 1 && threads <= panels(unit.width);
    }

    // middle: shared by the threads; share: this thread's columns.
    template <class Element, class From>
    void work(Worker<Element, From>& worker, Element* middle, const ImageSums& sums, Share share) {
        for (int64_t first = 0; first < call.num_reads; first += BLOCK_ROWS)
            worker.read(first, static_cast<int>(std::min<int64_t>(BLOCK_ROWS, call.num_reads - first)), share);
        for (int64_t first = 0; first < call.num_writes; first += BLOCK_ROWS) {
            const int rows = static_cast<int>(std::min<int64_t>(BLOCK_ROWS, call.num_writes - first));
#pragma omp barrier
            worker.convolve(first, rows, middle, share);
#pragma omp barrier
            worker.write(first, rows, middle, sums, share);
        }
        reads.take([&](int64_t first, int rows) { worker.multiply_halted(first, rows); });
#pragma omp barrier
        writes.take([&](int64_t first, int rows) { worker.multiply_written(first, rows); });
    }

private:
    const Evaluation& call;
    Blocks &reads, &writes;
};

// Where the parts of the scratch begin, in floats: Scratch of each thread, sums over images, Progress.
template <class Element>
struct Parts {
    Parts(const Unit& unit, const Evaluation& call, int threads)
        : sums(threads * Scratch<Element>(unit).size),
          progress(sums + (call.sums ? ImageSums::size(call.num_writes, call.images, unit.out_channels) : 0)),
          size(progress + Progress::size(Blocks::most(call.num_reads, threads))) {}

    const int64_t sums, progress, size;
};

template <class Element, class From>
void evaluate(const Unit& unit, const Halting* branch, const Evaluation& call, int threads) {
    const Parts<Element> parts(unit, call, threads);
    const int64_t map_size = call.out_height * call.out_width;
    Blocks reads(call.num_reads, threads), writes(call.num_writes, threads);
    PositionParallel by_positions(unit, call, reads, writes, call.scratch + parts.progress);
    ColumnParallel by_columns(call, reads, writes);
    Element* middle = reinterpret_cast<Element*>(call.scratch + Scratch<Element>(unit).middle);

#pragma omp parallel num_threads(threads)
    {
        const int thread = omp_get_thread_num(), team = omp_get_num_threads();
        const bool splits_columns = ColumnParallel::is_faster(unit, call, team);
        const ImageSums sums(call.scratch + parts.sums, call.writes, call.num_writes, call.images, map_size,
                             unit.out_channels);
        Worker<Element, From> worker(unit, branch, call, thread);
        if (splits_columns)
            by_columns.work(worker, middle, sums, {thread, team});
        else
            by_positions.work(worker, sums);
#pragma omp barrier
        if (call.sums) sums.add_to(call.sums);
        if (branch) {
#pragma omp for schedule(static)
            for (int64_t image = 0; image < call.images; image++) {
                double logit = 0;
                const double* sum = call.sums + image * branch->channels;
                for (int64_t c = 0; c < branch->channels; c++) logit += sum[c] * branch->mean_weights[c];
                call.image_logits[image] = static_cast<float>(logit / call.counts[image] + branch->constant);
            }
#pragma omp for schedule(static)
            for (int64_t i = 0; i < call.num_writes; i++) score(call, call.writes[i]);
        }
    }
}

}  // namespace

extern "C" {

int64_t lanes() { return LANES; }
int64_t panel() { return PANEL; }

int64_t has_bfloat16() { return HAS_BFLOAT16; }

// Whether the processor has instructions that PyTorch multiplies 16-bit numbers with and that are not used here.
int64_t has_bfloat16_tiles() {
#if defined(__AMX_BF16__)
    return 1;
#else
    return 0;
#endif
}

int64_t has_float16() {
#if defined(__AVX512FP16__)
    return 1;
#else
    return 0;
#endif
}

// Floats of Evaluation::scratch, at so many positions or fewer. Of the evaluation it reads images, num_reads, num_writes, and
// whether there are sums.
int64_t scratch_size(const Unit* unit, const Evaluation* at, int threads) {
#if HAS_BFLOAT16
    if (unit->bfloat16) return Parts<BFloat16>(*unit, *at, threads).size;
#endif
    return Parts<float>(*unit, *at, threads).size;
}

// Evaluates a unit, and its branch unless that is null.
void evaluate_unit(const Unit* unit, const Halting* branch, const Evaluation* at, int threads) {
    const Evaluation call = *at;
#if HAS_BFLOAT16
    if (call.x_bfloat16) return evaluate<BFloat16, BFloat16>(*unit, branch, call, threads);
    if (unit->bfloat16) return evaluate<BFloat16, float>(*unit, branch, call, threads);
#endif
    evaluate<float, float>(*unit, branch, call, threads);
}

}  // extern "C"
