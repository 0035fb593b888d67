/* prompt.h - tasks whose examples are messages in words and whose answers are words: LongEval, ZeroSCROLLS.
 *
 * From file to model: a loader makes prompts; a template wraps a prompt as a model was trained to be addressed; a tokenizer makes ids of
 * it, and where these are too many and the task allows it, the end of its context is cut off and a note put in its place. */
#ifndef ICE_PROMPT_H
#define ICE_PROMPT_H

#include <stddef.h>
#include <stdint.h>

#include "datasets/answer.h"
#include "datasets/task.h"
#include "kernels/core/err.h"

/** One example. All text is UTF-8. */
typedef struct prompt {
  char *id;          /* unique in its set */
  char *text;        /* the whole message */
  size_t query, end; /* bytes: text[0, query) may lose its end; text[query, end) is the question; text[end, ...) the header that an
                        answer would stand under. query = 0: nothing may be cut */
  char *separator;   /* stands for what was cut; NULL: nothing may be */
  char **reference;  /* [references] right answers; none where the release keeps them secret */
  int references;
} prompt;

typedef struct prompt_set {
  prompt *item; /* [count], owned */
  int64_t count, room;
  uint64_t hash;    /* XXH3 of the unpacked file */
  char origin[512]; /* its path */
  int official;     /* 1: official release, 0: generated or other examples, named so in reports */
  const char *note; /* "generated data", "not the official rows"; NULL: official */
} prompt_set;

/** What a task has instead of classes (task.prompts). */
typedef struct prompt_task {
  answer_mark mark;
  int answer_tokens;         /* budget of new tokens */
  int brief;                 /* 1: a chat model is asked not to explain */
  const int *lengths;        /* sizes it comes in, ascending, 0-terminated (numbers of lines, of topics); NULL: one size */
  const char *length_of;     /* "lines", "topics"; NULL */
  /** Loads a split of one length (0 where there are none) below one data root; *absent as in task.load. */
  int (*load)(const task *t, const char *root, task_split split, int64_t length, prompt_set *out, int *absent, ice_err *e);
} prompt_task;

/** Loads from the first data root that has it, as task_load does. ICE_DATA with what to make or fetch when none has. */
int prompt_load(const task *t, task_split split, int64_t length, prompt_set *out, ice_err *e);
int prompt_search(const task *t, task_split split, int64_t length, prompt_set *out, int *absent, ice_err *e);
void prompt_set_free(prompt_set *s);
/** The next prompt of a set that is being loaded, zeroed; NULL when out of memory. */
prompt *prompt_add(prompt_set *s);
/** Adds a copy of a right answer to a prompt; 0 when out of memory. */
int prompt_add_reference(prompt *p, const char *text);

typedef enum prompt_template {
  PROMPT_VICUNA, /* vicuna_v1.1: a chat between a curious user and an assistant; ZeroSCROLLS in its chat form */
  PROMPT_PLAIN,  /* the message as it is */
  PROMPT_TEMPLATES
} prompt_template;
extern const char *const prompt_template_names[PROMPT_TEMPLATES + 1]; /* NULL-terminated */

/** A prompt as a model is addressed. */
typedef struct prompt_wrapped {
  char *text;
  size_t query; /* as in prompt, counted in this text; 0: nothing may be cut */
} prompt_wrapped;
/** *out->text is to be freed. ICE_INTERNAL: out of memory. */
int prompt_wrap(const prompt *p, int brief, prompt_template t, prompt_wrapped *out, ice_err *e);
/** One message of a conversation in the vicuna form, up to where the assistant speaks; before the `first` one stands what the system
 *  says. *out to free(); ICE_INTERNAL: out of memory. */
int prompt_say(const char *message, int first, char **out, ice_err *e);

/** Ids of n bytes of text, as the model's tokenizer makes them, behind the token of the beginning when `begin` is not 0; *ids to free().
 *  tokenizer_encode() is one. */
typedef int (*prompt_encode)(void *ctx, const char *text, size_t n, int begin, int32_t **ids, int64_t *count, ice_err *e);
/** The ids of a wrapped prompt, to free(). More than `limit` become what fits of the part before the query, the separator, and the
 *  rest; *cut is the number of ids left out, 0 mostly. ICE_USAGE when nothing may be cut or even the rest is too long. */
int prompt_ids(const prompt *p, const prompt_wrapped *w, int64_t limit, prompt_encode encode, void *ctx, int32_t **ids, int64_t *count,
               int64_t *cut, ice_err *e);

/** An answer as it is scored and handed in: without white space at its ends, and of an answer in the XML tags of its header (<answer>)
 *  the inside alone. In place. */
void prompt_tidy(const prompt *p, char *answer);

#endif
