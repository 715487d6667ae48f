// What the forward and the backward pass of a unit in training share.
//
// Rows that are kept for the backward pass are compact: a set of positions has a list of them, and a table that says for
// every position of the map where it stands in the list; -1 if it does not.

#pragma once

#include "gemm.h"

extern "C" {

// A bottleneck unit whose norms are fixed; those behind convolutions are folded into them. Right factors are packed.
struct TrainedUnit {
    int64_t in_channels, width, out_channels, stride, dilation;
    int64_t projects;             // whether the shortcut is a convolution; else it is the identity
    const float *scale, *shift;   // [in_channels], the pre-activation
    const float *bias1, *bias2;   // [width], what the norms add
    const float *bias3;           // [out_channels], the shortcut's included
    const float *scale1, *scale2; // [width], what the norms multiply by
    const float *conv1, *conv2, *conv3;            // forward; as in rows.cpp
    const float *back1, *back2, *back3, *shortcut;  // transposed: width -> in_channels, 9 * width -> width,
                                                    // out_channels -> width, out_channels -> in_channels
};

// Where a unit is evaluated.
struct Sites {
    int64_t images, in_height, in_width, out_height, out_width;
    const int64_t* reads;       // input positions at which conv1 is needed
    int64_t num_reads;
    const int32_t* read_rows;   // [input positions]
    const int64_t* writes;      // output positions
    int64_t num_writes;
    const int32_t* write_rows;  // [output positions]
};

}  // extern "C"

namespace {

// The row of a position; without a table (null), every position of the map has one.
inline const float* row_of(const float* rows, const int32_t* table, int64_t position, int64_t channels) {
    return rows + (table ? table[position] : position) * channels;
}

// Whether a position has a row of the state's gradient already.
inline bool has_row(const int32_t* filled, int64_t position) { return !filled || filled[position] >= 0; }

// The input position that a tap of conv2 reads for an output place; -1 beyond the map.
inline int64_t input_of_tap(const TrainedUnit& unit, const Sites& sites, const Place& place, int tap) {
    return tap_position(place, tap, unit.stride, unit.dilation, sites.in_height, sites.in_width);
}

// The output position for which a tap of conv2 reads an input place; -1 if there is none.
inline int64_t output_of_tap(const TrainedUnit& unit, const Sites& sites, const Place& place, int tap) {
    const int64_t y = place.y - (tap / 3 - 1) * unit.dilation, x = place.x - (tap % 3 - 1) * unit.dilation;
    if (y < 0 || x < 0 || y % unit.stride || x % unit.stride) return -1;
    if (y / unit.stride >= sites.out_height || x / unit.stride >= sites.out_width) return -1;
    return (place.image * sites.out_height + y / unit.stride) * sites.out_width + x / unit.stride;
}

// The input position that the shortcut reads for an output place.
inline int64_t shortcut_source(const TrainedUnit& unit, const Sites& sites, const Place& place) {
    return (place.image * sites.in_height + place.y * unit.stride) * sites.in_width + place.x * unit.stride;
}

}  // namespace
