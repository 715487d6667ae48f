// All units of a block behind its first one, in one call: on small maps, what Python does between units takes its share of the
// time.

#include <algorithm>
#include <cstring>

#include "process.h"
#include "taps.h"
#include "unit.h"

extern "C" {

int64_t scratch_size(const Unit* unit, const Evaluation* at, int threads);
void evaluate_unit(const Unit* unit, const Halting* branch, const Evaluation* at, int threads);
int64_t halting_step(const Process* process, int64_t unit, const float* scores);
int64_t list_positions(const uint8_t* active, const uint8_t* exists, int64_t images, int64_t height, int64_t width,
                       int64_t* actives, int64_t* num_active, int64_t* reads);

// Floats of Evaluation::scratch that each of the units behind the first can do with.
int64_t units_scratch_size(const Unit* units, int64_t count, const Evaluation* at, int threads) {
    int64_t size = 0;
    for (int64_t unit = 1; unit < count; unit++) size = std::max(size, scratch_size(units + unit, at, threads));
    return size;
}

// The units of a plain block behind the first.
void evaluate_units(const Unit* units, int64_t count, const Evaluation* at, int threads) {
    for (int64_t unit = 1; unit < count; unit++) evaluate_unit(units + unit, nullptr, at, threads);
}

// The units of a SACT block behind the first, whose scores are at->scores, until every position has halted.
//
// units, branches: [process->units], that of the last one null in all its fields, and not read.
// at: as for evaluate_unit, with lists that have room for every position. It is the second unit that separates the output of
// the first from the state: `state`, and `moved`, where the two differ, are room for that.
void evaluate_halting_units(const Unit* units, const Halting* branches, const Process* process, const Evaluation* at,
                            float* state, uint8_t* moved, int threads) {
    Evaluation call = *at;
    int64_t left = halting_step(process, 0, call.scores);
    for (int64_t unit = 1; unit < process->units && left > 0; unit++) {
        const bool last = unit + 1 == process->units;
        call.num_reads = list_positions(process->active, process->exists, call.images, call.out_height, call.out_width,
                                        const_cast<int64_t*>(call.writes), &call.num_writes, const_cast<int64_t*>(call.reads));
        if (unit == 1) {
            call.output = call.state;
            call.state = state;
            std::memcpy(moved, process->active, call.images * call.out_height * call.out_width);
        }
        evaluate_unit(units + unit, last ? nullptr : branches + unit, &call, threads);
        if (unit == 1) {
            call.x = call.shortcut = state;
            call.moved = moved;
        }
        left = halting_step(process, unit, last ? nullptr : call.scores);
    }
}

}  // extern "C"
