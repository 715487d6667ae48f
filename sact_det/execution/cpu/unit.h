// A residual unit in inference, and where it is evaluated.

#pragma once

#include <cstdint>

extern "C" {

// A bottleneck unit. Norms are affine maps; that behind conv1 is scale1 and bias1, that behind conv2 scale2 and bias2.
struct Unit {
    int64_t in_channels, width, out_channels, stride, dilation;
    const float *scale, *shift;  // [in_channels], the pre-activation
    const float *scale1, *bias1, *scale2, *bias2;  // [width]
    const float* bias3;                            // [out_channels], the shortcut's included
    const void* conv1;  // depth in_channels; null: x is its product, and the pre-activation is what follows it
    const void* conv2;  // depth TAPS * width
    const void* conv3;  // depth width, or width + in_channels with the shortcut's convolution below
    int64_t projects;   // whether there is such a shortcut
    int64_t bfloat16;   // whether convolutions and what they read are of bfloat16; in_channels and width are even then
};

// Where a unit is evaluated, and scored by the branch behind it.
struct Evaluation {
    int64_t images, in_height, in_width, out_height, out_width;
    const void* x;           // rows at input resolution, [., in_channels], of floats but for this:
    int64_t x_bfloat16;      // whether it is of bfloat16: only for first units whose shortcut is not x, with such factors
    void* inner;             // rows behind conv1, [., whole_vectors(width)]; zero wherever there is no position
    const int64_t* reads;    // input positions at which conv1 is needed
    int64_t num_reads;
    const int64_t* writes;   // output positions
    int64_t num_writes;
    const float* shortcut;   // rows to which the residual is added, or null
    float* state;            // rows of the result; may be `shortcut`
    float* output;           // rows, or null; += remaining * residual
    const uint8_t* moved;    // [output positions] or null; where it does not hold, `x` is to be read in `output`
    const float* remaining;  // [output positions], where there is an output
    double* sums;            // [images, out_channels] or null; += residual, or state where there is no output
    float* scratch;          // [scratch_size()]
    const int64_t* counts;   // [images], positions of each image; from here on, for branches only
    float* products;         // [output positions, whole_vectors(TAPS)]; zero wherever there is no position
    float* image_logits;     // [images], room to work
    float* scores;           // [output positions], h^l at `writes`; the rest is left alone
};

}  // extern "C"
