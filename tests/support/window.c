/* window.c - the example of docs/plugin.c, among the subjects of the property tests: it is what people copy, and a method
 * that declares little, without which the tests might take more for granted than a new method promises. */
#include "docs/plugin.c"
