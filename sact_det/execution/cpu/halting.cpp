// Algorithm 2 for one unit after the other, at every position of a block, and the positions that its FLOPs are counted from.
//
// The arithmetic is that of sact_det/rule/halting.py, operation by operation in float32, so that the bits are the same.

#include "process.h"

extern "C" {

// Counts, of every image, the active positions before a unit, and the image's own positions in their 3x3 dilation. Returns how
// many are active in all images.
int64_t count_positions(const Process* process_at, int64_t unit) {
    const Process process = *process_at;
    int64_t all = 0;
    for (int64_t row = 0; row < process.images * process.height; row++) {
        const int64_t y = row % process.height;
        const uint8_t *here = process.active + row * process.width, *own = process.exists + row * process.width;
        const uint8_t* above = y > 0 ? here - process.width : here;
        const uint8_t* below = y + 1 < process.height ? here + process.width : here;
        int64_t found = 0, around = 0;
        for (int64_t x = 0; x < process.width; x++) found += here[x];
        const auto column = [&](int64_t x) { return here[x] | above[x] | below[x]; };
        if (process.width == 1) {
            around = column(0) & own[0];
        } else {
            around = ((column(0) | column(1)) & own[0]) +
                     ((column(process.width - 2) | column(process.width - 1)) & own[process.width - 1]);
            for (int64_t x = 1; x < process.width - 1; x++) around += (column(x - 1) | column(x) | column(x + 1)) & own[x];
        }
        process.evaluated[row / process.height * process.units + unit] += found;
        process.dilated[row / process.height * process.units + unit] += around;
        all += found;
    }
    return all;
}

// Halts positions by the scores h^l of a unit, or null for the last one (h^L = 1). Returns how many remain active.
int64_t halting_step(const Process* process_at, int64_t unit, const float* scores) {
    const Process process = *process_at;
    const int64_t size = process.height * process.width;
    const float threshold = process.threshold;
    const bool last = scores == nullptr;
    for (int64_t image = 0; image < process.images; image++) {
        const int64_t start = image * size;
        const float* h = scores ? scores + start : process.remainder + start;  // the latter is not used
        float* __restrict p = process.distribution + (image * process.units + unit) * size;
        float* __restrict cumulative = process.cumulative + start;
        float* __restrict remainder = process.remainder + start;
        float* __restrict ponder_cost = process.ponder_cost + start;
        int64_t* __restrict num_units = process.num_units + start;
        uint8_t* __restrict active = process.active + start;
        for (int64_t i = 0; i < size; i++) num_units[i] += active[i];
        for (int64_t i = 0; i < size; i++) {
            const int32_t evaluated = active[i];
            const float score = h[i], own = last ? 1.0f : score;
            const float before = cumulative[i], after = before + own, sum = evaluated ? after : before;
            const int32_t halts = evaluated & (sum >= threshold), continues = evaluated & ~halts;
            const float open = remainder[i], less = open - own, spent = halts ? open : 0.0f;
            p[i] = continues ? own : spent;
            cumulative[i] = sum;
            remainder[i] = continues ? less : open;
            ponder_cost[i] = ponder_cost[i] + static_cast<float>(evaluated) + spent;
            active[i] = continues;
        }
    }
    return unit + 1 < process.units ? count_positions(process_at, unit + 1) : 0;
}

}  // extern "C"
