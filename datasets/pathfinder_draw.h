/* pathfinder_draw.h - draws one picture of the Pathfinder task: dashed curves, two discs, one question: does a curve join them? */
#ifndef ICE_PATHFINDER_DRAW_H
#define ICE_PATHFINDER_DRAW_H

#include "kernels/core/rng.h"

enum { PATHFINDER_SIDE = 32, PATHFINDER_PIXELS = PATHFINDER_SIDE * PATHFINDER_SIDE };

/** Parameters that the LRA set varies: paddles of a target curve (6, 9, 14), and of a distractor. */
typedef struct pathfinder_level {
  int contour, distractor;
} pathfinder_level;

enum { PATHFINDER_STROKES = 14, PATHFINDER_SNAKES = 12 }; /* most strokes of a curve, most curves: two targets, then distractors */

/** What a picture shows, in pixels (row, column). */
typedef struct pathfinder_scene {
  int snakes, strokes[PATHFINDER_SNAKES];
  double tail[PATHFINDER_SNAKES][PATHFINDER_STROKES][2], head[PATHFINDER_SNAKES][PATHFINDER_STROKES][2];
  double disc[2][2];
} pathfinder_scene;

/** pixels [1024] from one stream of random numbers; returns the label, 1 = the discs lie on one curve. scene may be NULL. */
int pathfinder_draw(const pathfinder_level *level, attn_rng *rng, unsigned char *pixels, pathfinder_scene *scene);

#endif
