// The state of algorithm 2 at every position of a block.

#pragma once

#include <cstdint>

extern "C" {

struct Process {
    int64_t images, height, width, units;
    float threshold;        // halts where the cumulative score reaches it
    const uint8_t* exists;  // a mask, of bytes; arrays are [images, height, width] where nothing else is said
    float *cumulative, *remainder, *ponder_cost;
    int64_t* num_units;
    uint8_t* active;             // before the coming unit
    float* distribution;         // [images, units, height, width]
    int64_t *evaluated, *dilated;  // [images, units], zero
};

}  // extern "C"
