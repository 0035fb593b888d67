/* data_prompts.h - what `data list` and `data check` say of tasks that are asked and answered in words. */
#ifndef ICE_DATA_PROMPTS_H
#define ICE_DATA_PROMPTS_H

#include "datasets/prompt.h"

/** Prints a line for every split (and length) that is there, and one for each split that is not. *missing: nothing is there at all. */
void data_prompts_list(const task *t, int *missing);
/** Reads everything that is there and says what it is. Returns the first fault, and goes on behind it; *splits grows by what was read,
 *  *missing as above. */
int data_prompts_check(const task *t, int64_t *splits, int *missing, ice_err *e);

#endif
