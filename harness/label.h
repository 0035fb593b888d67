/* label.h - parts of a row's label that other parts of the program look for. */
#ifndef ICE_LABEL_H
#define ICE_LABEL_H

#define LABEL_PADDED "padding computed"       /* cells with `padding: compute` */
#define LABEL_NO_RETRAINING "no retraining" /* a method that needs training, in a model that was trained with another */

#endif
