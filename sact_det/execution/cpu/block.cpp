// A block in inference in one call: on small maps, what Python does between units takes its share of the time.

#include <algorithm>

#include "process.h"
#include "taps.h"
#include "unit.h"
#include "vectors.h"

extern "C" {

int64_t scratch_size(const Unit* unit, const Evaluation* at, int threads);
void evaluate_unit(const Unit* unit, const Halting* branch, const Evaluation* at, int threads);
int64_t count_positions(const Process* process, int64_t unit);
int64_t halting_step(const Process* process, int64_t unit, const float* scores);
int64_t list_positions(const uint8_t* active, const uint8_t* exists, int64_t images, int64_t height, int64_t width,
                       int64_t* actives, int64_t* num_active, int64_t* reads);

// The units of a block.
struct Block {
    const Unit* units;
    int64_t count;
    const Halting* branches;  // behind all units but the last; null in a plain block
    const double* added;      // what each of them has more in every logit
    float threshold;          // as of Process
};

// What a block is evaluated at, and what becomes of it.
struct Passage {
    int64_t images, in_height, in_width, out_height, out_width;
    const void* x;                      // rows, as of Evaluation
    int64_t x_bfloat16;
    const float* shortcut;              // rows, as of Evaluation
    const uint8_t *exists_in, *exists;  // masks, of bytes, at input and output resolution; null: there is every position
    float* output;                      // rows of the result; zero where there is no position
    float* ponder_cost;                 // from here on as of Process, written whole; not for a plain block
    int64_t* num_units;
    float* distribution;
    int64_t *evaluated, *dilated;
    void* room;                         // [block_room()] bytes, at a multiple of 64
};

}  // extern "C"

namespace {

// Hands out memory of one piece, part by part.
class Room {
public:
    explicit Room(void* memory) : start(reinterpret_cast<uintptr_t>(memory)) {}

    template <class Number>
    Number* take(int64_t count) {
        const uintptr_t part = start + size;
        size += (count * sizeof(Number) + 63) / 64 * 64;
        return reinterpret_cast<Number*>(part);
    }

    int64_t size = 0;

private:
    const uintptr_t start;
};

int64_t inner_size(const Unit& unit) { return whole_vectors(unit.width) / (unit.bfloat16 ? 2 : 1); }

// One evaluation of a block, and the memory for it.
class BlockRun {
public:
    BlockRun(const Block& block, const Passage& at, int threads)
        : block(block), at(at), threads(threads), in_positions(at.images * at.in_height * at.in_width),
          map_size(at.out_height * at.out_width), positions(at.images * map_size), channels(block.units->out_channels),
          room(at.room) {
        const Unit &first = block.units[0], &next = block.units[block.count > 1 ? 1 : 0];
        const int64_t most = std::max(in_positions, positions);
        call.images = at.images, call.in_height = at.in_height, call.in_width = at.in_width;
        call.out_height = at.out_height, call.out_width = at.out_width;
        call.x = at.x, call.x_bfloat16 = at.x_bfloat16, call.shortcut = at.shortcut, call.state = at.output;
        call.inner = inner = room.take<float>(std::max((in_positions + 1) * inner_size(first), (positions + 1) * inner_size(next)));
        ones = room.take<uint8_t>(most);
        in_list = room.take<int64_t>(2 * in_positions);
        call.reads = reads = room.take<int64_t>(positions);
        call.writes = writes = room.take<int64_t>(positions);
        if (block.branches) {
            state = room.take<float>(positions * channels);
            moved = room.take<uint8_t>(positions);
            call.sums = room.take<double>(at.images * channels);
            call.counts = counts = room.take<int64_t>(at.images);
            call.products = room.take<float>(positions * whole_vectors(TAPS));
            call.image_logits = room.take<float>(at.images);
            call.scores = room.take<float>(positions);
            process.active = room.take<uint8_t>(positions);
            process.cumulative = room.take<float>(positions);
            call.remaining = process.remainder = room.take<float>(positions);
        }
        call.num_reads = most, call.num_writes = positions;  // or fewer
        int64_t scratch = 0;
        for (int64_t unit = 0; unit < block.count; unit++)
            scratch = std::max(scratch, scratch_size(block.units + unit, &call, threads));
        call.scratch = room.take<float>(scratch);
    }

    int64_t room_size() const { return room.size; }

    void evaluate() {
        std::fill_n(ones, std::max(in_positions, positions), 1);
        exists = at.exists ? at.exists : ones;
        if (at.exists) std::fill_n(at.output, positions * channels, 0.0f);
        const int64_t left = block.branches ? start_halting() : 0;
        evaluate_first();
        if (left > 0) halt();
        if (!block.branches)
            for (int64_t unit = 1; unit < block.count; unit++) evaluate(unit);
    }

private:
    bool is_scored(int64_t unit) const { return block.branches && unit + 1 < block.count; }

    const float* scores_behind(int64_t unit) const { return is_scored(unit) ? call.scores : nullptr; }

    void evaluate(int64_t unit) {
        if (!is_scored(unit)) return evaluate_unit(block.units + unit, nullptr, &call, threads);
        Halting branch = block.branches[unit];
        branch.constant = static_cast<float>(branch.constant + block.added[unit]);
        evaluate_unit(block.units + unit, &branch, &call, threads);
    }

    // Lists what the coming unit writes, and returns how many positions it reads.
    int64_t list(const uint8_t* active) {
        return list_positions(active, exists, at.images, at.out_height, at.out_width, writes, &call.num_writes, reads);
    }

    // Behind conv1 there are zeros where no position is, which its last row stands for beyond the map.
    void clear_inner(const Unit& unit, int64_t rows) {
        const int64_t written = at.exists ? 0 : rows;
        std::fill_n(inner + written * inner_size(unit), (rows + 1 - written) * inner_size(unit), 0.0f);
    }

    int64_t start_halting() {
        std::fill_n(call.sums, at.images * channels, 0.0);
        std::fill_n(call.scores, positions, 0.0f);
        if (at.exists) std::fill_n(call.products, positions * whole_vectors(TAPS), 0.0f);
        for (int64_t image = 0; image < at.images; image++)
            counts[image] = std::count(exists + image * map_size, exists + (image + 1) * map_size, 1);
        process.images = at.images, process.height = at.out_height, process.width = at.out_width;
        process.units = block.count, process.threshold = block.threshold, process.exists = exists;
        process.ponder_cost = at.ponder_cost, process.num_units = at.num_units, process.distribution = at.distribution;
        process.evaluated = at.evaluated, process.dilated = at.dilated;
        std::copy_n(exists, positions, process.active);
        std::fill_n(process.cumulative, positions, 0.0f);
        std::fill_n(process.remainder, positions, 1.0f);
        std::fill_n(process.ponder_cost, positions, 0.0f);
        std::fill_n(process.num_units, positions, 0);
        std::fill_n(process.distribution, positions * block.count, 0.0f);
        std::fill_n(process.evaluated, at.images * block.count, 0);
        std::fill_n(process.dilated, at.images * block.count, 0);
        return count_positions(&process, 0);
    }

    // Evaluates the first unit, and prepares for those behind it.
    void evaluate_first() {
        const int64_t around = list(exists);
        call.num_reads = around;
        if (at.in_height != at.out_height || at.in_width != at.out_width) {
            const uint8_t* own = at.exists_in ? at.exists_in : ones;
            list_positions(own, own, at.images, at.in_height, at.in_width, in_list, &call.num_reads, in_list + in_positions);
            call.reads = in_list;
        }
        clear_inner(block.units[0], in_positions);
        evaluate(0);
        if (block.count > 1) clear_inner(block.units[1], positions);
        call.in_height = at.out_height, call.in_width = at.out_width;
        call.x = call.shortcut = at.output, call.x_bfloat16 = 0;
        call.reads = reads, call.num_reads = around;
    }

    // The units behind the first, until every position has halted. The second one separates the state from the output of
    // the first, which is that of the block, too: `moved` says where the two differ.
    void halt() {
        int64_t left = halting_step(&process, 0, scores_behind(0));
        for (int64_t unit = 1; unit < block.count && left > 0; unit++) {
            call.num_reads = list(process.active);
            if (unit == 1) {
                call.output = at.output, call.state = state;
                std::copy_n(process.active, positions, moved);
            }
            evaluate(unit);
            call.x = call.shortcut = state, call.moved = moved;
            left = halting_step(&process, unit, scores_behind(unit));
        }
    }

    const Block& block;
    const Passage& at;
    const int threads;
    const int64_t in_positions, map_size, positions, channels;
    Room room;
    Evaluation call{};
    Process process{};
    float *inner, *state = nullptr;
    uint8_t *ones, *moved = nullptr;
    int64_t *in_list, *reads, *writes, *counts = nullptr;
    const uint8_t* exists = nullptr;
};

}  // namespace

extern "C" {

// Bytes of Passage::room; of the passage it reads the sizes.
int64_t block_room(const Block* block, const Passage* at, int threads) { return BlockRun(*block, *at, threads).room_size(); }

// Evaluates a block, and halts its positions by its own scores.
void evaluate_block(const Block* block, const Passage* at, int threads) { BlockRun(*block, *at, threads).evaluate(); }

}  // extern "C"
