/* lra_image.h - records of CIFAR-10, for the loader and the tests. */
#ifndef ICE_LRA_IMAGE_H
#define ICE_LRA_IMAGE_H

#include "datasets/build.h"

enum { IMAGE_PIXELS = 1024 };

/** Gray value of a pixel as the LRA pipeline computes it (TensorFlow's rgb_to_grayscale in float, truncated). */
uint8_t image_gray(uint8_t r, uint8_t g, uint8_t b);
/** Takes record k of a file, first + k being its index over all files, unless chosen (may be NULL) says 0. Records are a label byte
 *  and 3 planes (rgb) or one plane of 1024 bytes. ICE_DATA with name, record and byte for labels past 9 and a file cut short. */
int image_parse(const uint8_t *p, size_t n, int rgb, const char *name, int64_t first, const uint8_t *chosen, int64_t n_chosen,
                task_builder *b, ice_err *e);

#endif
