// Residual units at lists of positions on a CPU: in float32, but for the factors of products, which may be bfloat16.
//
// A feature map lives in rows, [positions, C], position = (n * H + y) * W + x, channels last. Nothing is gathered into
// memory of its own except what batch normalisation and ReLU would have to write anyway: a 3x3 convolution reads its
// neighbours through pointers (gemm.h), and a pointer beyond the map leads to a row of zeros.
//
// Threads take blocks of a list as they come; there may be fewer of them than were asked for. No result depends on which
// thread computes it; sums over positions (sums.h) depend on the number that was asked for, in their last bits. Nothing is
// allocated here.

#include <omp.h>

#include <new>
#include <thread>

#include "worker.h"

namespace {

constexpr int64_t FEW = 2 * BLOCK_ROWS;  // reads up to which threads share positions instead of dealing them out

// Which blocks of reads are done, so that a block of writes waits for those that it needs and not for all threads.
class Progress {
public:
    // Floats of memory for so many blocks.
    static int64_t size(int64_t blocks) { return (blocks * sizeof(Flag) + sizeof(float) - 1) / sizeof(float); }

    Progress(float* memory, int64_t blocks) : done(reinterpret_cast<Flag*>(memory)) {
        for (int64_t block = 0; block < blocks; block++) new (done + block) Flag(false);
    }

    void finish(int64_t block) { done[block].store(true, std::memory_order_release); }

    // Until the blocks before `end` are done. Threads take blocks in order: somebody is at work on each of them.
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

// Every thread takes blocks of positions.
class Apart {
public:
    Apart(const Unit& unit, const Evaluation& to, Blocks& reads, Blocks& writes, float* memory)
        : unit(unit), to(to), reads(reads), writes(writes), progress(memory, reads.number()) {}

    template <class Element, class From>
    void work(Worker<Element, From>& worker, const ImageSums& sums) {
        reads.take([&](int64_t first, int rows) {
            worker.read(first, rows, {});
            worker.multiply_halted(first, rows);
            progress.finish(reads.block_of(first));
        });
        writes.take([&](int64_t first, int rows) {
            progress.wait(needed(to.writes[first + rows - 1]));
            worker.convolve(first, rows, worker.middle(), {});
            worker.write(first, rows, worker.middle(), sums, {});
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
    Blocks &reads, &writes;
    Progress progress;
};

// All threads work at the same positions, each on its columns: few positions are done before the weights are fetched, and
// so each weight is fetched by one thread only.
class Together {
public:
    Together(const Evaluation& to, Blocks& reads, Blocks& writes) : to(to), reads(reads), writes(writes) {}

    static bool pays(const Unit& unit, const Evaluation& to, int threads) {
        return to.num_reads <= FEW && threads > 1 && threads <= panels(unit.width);
    }

    // middle: shared; share: this thread's; sums: of blocks of BLOCK_ROWS.
    template <class Element, class From>
    void work(Worker<Element, From>& worker, Element* middle, const ImageSums& sums, Share share) {
        for (int64_t first = 0; first < to.num_reads; first += BLOCK_ROWS)
            worker.read(first, static_cast<int>(std::min<int64_t>(BLOCK_ROWS, to.num_reads - first)), share);
        for (int64_t first = 0; first < to.num_writes; first += BLOCK_ROWS) {
            const int rows = static_cast<int>(std::min<int64_t>(BLOCK_ROWS, to.num_writes - first));
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
    const Evaluation& to;
    Blocks &reads, &writes;
};

// The parts of the scratch: what each thread keeps, sums over images, and what blocks of reads are done.
template <class Element>
struct Parts {
    Parts(const Unit& unit, const Evaluation& to, int threads)
        : sums(threads * Scratch<Element>(unit).size),
          progress(sums + (to.sums ? ImageSums::size(Blocks(to.num_writes, threads).number(), to.images, unit.out_channels) : 0)),
          size(progress + Progress::size(Blocks(to.num_reads, threads).number())) {}

    const int64_t sums, progress, size;  // in floats; what the threads keep comes first
};

template <class Element, class From>
void evaluate(const Unit& unit, const Halting* branch, const Evaluation& to, int threads) {
    const Parts<Element> parts(unit, to, threads);
    const int64_t map_size = to.out_height * to.out_width;
    Blocks reads(to.num_reads, threads), writes(to.num_writes, threads);
    Apart apart(unit, to, reads, writes, to.scratch + parts.progress);
    Together together(to, reads, writes);
    Element* middle = reinterpret_cast<Element*>(to.scratch + Scratch<Element>(unit).middle);

#pragma omp parallel num_threads(threads)
    {
        const int thread = omp_get_thread_num(), team = omp_get_num_threads();
        const bool shares = Together::pays(unit, to, team);
        const ImageSums sums(to.scratch + parts.sums, to.writes, to.num_writes, shares ? BLOCK_ROWS : writes.size_of_each(),
                             to.images, map_size, unit.out_channels);
        Worker<Element, From> worker(unit, branch, to, thread);
        if (shares)
            together.work(worker, middle, sums, {thread, team});
        else
            apart.work(worker, sums);
#pragma omp barrier
        if (to.sums) sums.add_to(to.sums);
        if (branch) {
#pragma omp for schedule(static)
            for (int64_t image = 0; image < to.images; image++) {
                double logit = 0;
                const double* sum = to.sums + image * branch->channels;
                for (int64_t c = 0; c < branch->channels; c++) logit += sum[c] * branch->mean_weights[c];
                to.image_logits[image] = static_cast<float>(logit / to.counts[image] + branch->constant);
            }
#pragma omp for schedule(static)
            for (int64_t i = 0; i < to.num_writes; i++) score(to, to.writes[i]);
        }
    }
}

}  // namespace

extern "C" {

int64_t lanes() { return LANES; }
int64_t panel() { return PANEL; }

int64_t has_bfloat16() { return HAS_BFLOAT16; }

// Whether the processor has instructions that PyTorch multiplies 16-bit numbers with, and that are not used here.
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

// Floats that `scratch` holds; of `at`, images, num_reads and num_writes matter, and whether there are sums.
int64_t scratch_size(const Unit* unit, const Evaluation* at, int threads) {
#if HAS_BFLOAT16
    if (unit->bfloat16) return Parts<BFloat16>(*unit, *at, threads).size;
#endif
    return Parts<float>(*unit, *at, threads).size;
}

// One unit; branch may be null.
void evaluate_unit(const Unit* unit, const Halting* branch, const Evaluation* at, int threads) {
    const Evaluation to = *at;
#if HAS_BFLOAT16
    if (to.x_bfloat16) return evaluate<BFloat16, BFloat16>(*unit, branch, to, threads);
    if (unit->bfloat16) return evaluate<BFloat16, float>(*unit, branch, to, threads);
#endif
    evaluate<float, float>(*unit, branch, to, threads);
}

}  // extern "C"
