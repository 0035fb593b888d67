/* lra_pathfinder.h - Pathfinder's list of images and its pictures, for the loader and the tests. */
#ifndef ICE_LRA_PATHFINDER_H
#define ICE_LRA_PATHFINDER_H

#include "datasets/pathfinder_draw.h"
#include "datasets/task.h"

typedef struct pathfinder_row {
  char name[64]; /* of the image, below imgs/ */
  int label;
  int file, line; /* of the list it stands in */
} pathfinder_row;

typedef struct pathfinder_list {
  pathfinder_row *row;
  int64_t count, room;
} pathfinder_list;

/** Adds the rows of one list in memory (metadata/<file>.npy, which are text). ICE_DATA with name:line, value, what is allowed. */
int pathfinder_parse(const uint8_t *p, size_t n, const char *name, int file, pathfinder_list *list, ice_err *e);
/** Decodes a gray 8-bit PNG of 32 x 32 into pixels [1024]. ICE_DATA, with name and reason, for anything else. */
int pathfinder_png(const uint8_t *p, size_t n, const char *name, uint8_t *pixels, ice_err *e);

#endif
